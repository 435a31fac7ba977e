//! Erasure without breakage: content is destroyed, what is left still proves itself, and the record says what was erased,
//! by whom, when and why. Holds keep content from it.
//!
//! Invariants:
//! - The entry that says that content is erased is durable before any of its keys is touched: content is never lost
//!   without an entry that says so.
//! - At every start, what the log says is erased is destroyed again: neither a crash between the entry and the key, nor
//!   an old copy of the keys that was put back, keeps content alive.
//! - What is under a hold is not erased, whoever asks.
//!
//! Not for: deciding what should be erased. That is asked for, or configured ([`retention`]).

mod destroy;
mod retention;
mod slots;
mod state;
mod subject;

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::{Arc, Mutex};

use model::{Actor, Body, CommandId, ContentKind, Erase, EraseCause, Hold, HoldAction, IdentityName, SessionId, Time};

pub use self::retention::{Due, Pace, Retained, RetentionRules, retention_due};
pub use self::state::Held;

use self::destroy::{Came, Means, Others};
use self::state::State;
use self::subject::{Gather, Subject};
use crate::clock::{Random, random};
use crate::disk::{Disk, RealDisk};
use crate::error::{RecordError, StoreError};
use crate::keys::{self, KeyTable, SealKey, Slot};
use crate::log::{Log, Purpose, lock};
use crate::recorder::Recorder;

/// A reason has at most this many bytes.
pub const REASON_BYTES_MAX: usize = 1024;
/// The state is saved when this many entries have come since the last time, so that a start does not read the whole log
/// for it.
const SAVE_ENTRIES: u64 = 64 * 1024;

/// Content was not erased, or not held.
#[derive(Debug, thiserror::Error)]
pub enum CustodyError {
    /// The session is not in the log.
    #[error("session {0} is not on this record")]
    NoSession(SessionId),
    /// The command is not in the log.
    #[error("command {0} is not on this record")]
    NoCommand(CommandId),
    /// The session has not ended.
    #[error("session {0} is still open: what is being recorded cannot be erased; end it first, then ask again")]
    Open(SessionId),
    /// A hold keeps the content.
    #[error(
        "session {session} is under the hold {hold} ({reason}): nothing of it is erased until `onrecord hold release {hold}`"
    )]
    Held {
        /// The session.
        session: SessionId,
        /// The hold.
        hold: String,
        /// The reason that was given for it.
        reason: String,
    },
    /// It was erased before.
    #[error("this was erased before; `onrecord show` says by whom and why")]
    Already,
    /// The command has no such content.
    #[error("command {command} has no {} to erase", field.as_str())]
    Nothing {
        /// The command.
        command: CommandId,
        /// The field.
        field: ContentKind,
    },
    /// The slot that the session names has the key of something else.
    #[error("the key in the slot of session {0} is not the one that the session began with; nothing was erased")]
    OtherKey(SessionId),
    /// A reason that is none.
    #[error("a reason is needed: 1 to {REASON_BYTES_MAX} bytes, without control characters; it stays on the record")]
    Reason,
    /// There is no such hold.
    #[error("there is no hold {0} in force; `onrecord hold list` lists them")]
    NoHold(String),
    /// The wall clock jumped, so nobody knows how old anything is.
    #[error(
        "the wall clock was changed by {hours} hours while the gateway ran: by which of the two times is content old? \
         Nothing is erased for its age until the gateway is started again"
    )]
    ClockStepped {
        /// By how much.
        hours: u64,
    },
    /// The erasure is on the record, and not all is destroyed yet.
    #[error(
        "the erasure is on the record, but destroying the keys failed ({0}); it is tried again with the next request \
         and at the next start"
    )]
    Unfinished(StoreError),
    /// The log or the keys cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The entry cannot be recorded.
    #[error(transparent)]
    Record(#[from] RecordError),
}

/// What a hold covers: what is named limits it, and one that names nothing covers everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HoldScope {
    /// Only this session.
    pub session: Option<SessionId>,
    /// Only sessions of this connection.
    pub connection: Option<String>,
    /// Only sessions of this identity.
    pub identity: Option<IdentityName>,
}

/// What was erased.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Erased {
    /// The session whose content it was.
    pub session: SessionId,
    /// The index of the entry that says so.
    pub index: u64,
    /// How many blobs were removed.
    pub blobs: u64,
    /// Of a redaction: what else had the same content, such as other executions of one prepared statement.
    pub shared: Vec<(CommandId, ContentKind)>,
}

/// What the log says of its own content, read without a lock.
#[derive(Clone, Debug)]
pub struct Custody {
    state: State,
}

impl Custody {
    /// Reads it from a data directory, also while a gateway writes there.
    ///
    /// # Errors
    /// There is no log, or it cannot be read.
    pub fn open(dir: &Path) -> Result<Self, StoreError> {
        Self::on(&(Arc::new(RealDisk::new(dir)) as Arc<dyn Disk>))
    }

    /// As [`Custody::open`], on any disk.
    ///
    /// # Errors
    /// As [`Custody::open`].
    pub fn on(disk: &Arc<dyn Disk>) -> Result<Self, StoreError> {
        let vkey = keys::verifier_key(&**disk)?;
        Ok(Self { state: State::read(disk, vkey.name())?.0 })
    }

    /// The holds in force, oldest first.
    #[must_use]
    pub fn holds(&self) -> Vec<Held> {
        in_order(&self.state)
    }
}

fn in_order(state: &State) -> Vec<Held> {
    let mut holds: Vec<_> = state.holds.values().cloned().collect();
    holds.sort_by_key(|held| held.index);
    holds
}

/// The keeper of the content of an open log.
pub(crate) struct Custodian {
    state: State,
    seal: Arc<SealKey>,
    origin: String,
    /// The state's size when it was last saved.
    saved: u64,
    /// Erasures that are on the record and not carried out.
    unfinished: Vec<Erase>,
    /// Where the next pass for retention begins, and by which rules that was found.
    resume: Option<(RetentionRules, u64)>,
    /// The time when the log was opened.
    opened: Time,
}

impl Custodian {
    /// Opens a log's custody: what it says is erased is destroyed, whatever became of that before.
    pub(crate) fn open(
        disk: &Arc<dyn Disk>,
        seal: Arc<SealKey>,
        origin: &str,
        now: Time,
        source: &mut dyn Random,
    ) -> Result<Self, StoreError> {
        let (state, unfinished) = State::read(disk, origin)?;
        let mut custodian =
            Self { saved: state.size, state, seal, origin: origin.to_owned(), unfinished, resume: None, opened: now };
        let new = !custodian.unfinished.is_empty();
        custodian.finish(disk, source)?;
        let came = custodian.means(disk, source, |means, state| means.again(state))?;
        if new || came == Came::Back || custodian.state.size >= SAVE_ENTRIES {
            custodian.save(disk, custodian.state.size)?;
        }
        Ok(custodian)
    }

    /// Slots below this were taken by sessions of the log.
    pub(crate) fn next_slot(&self) -> u64 {
        self.state.next_slot.max(self.state.erased.end())
    }

    fn means<T>(
        &mut self,
        disk: &Arc<dyn Disk>,
        random: &mut dyn Random,
        work: impl FnOnce(&mut Means<'_>, &mut State) -> T,
    ) -> T {
        work(&mut Means { disk, seal: &self.seal, random }, &mut self.state)
    }

    /// Carries out what is on the record and was not carried out.
    fn finish(&mut self, disk: &Arc<dyn Disk>, source: &mut dyn Random) -> Result<(), StoreError> {
        if self.unfinished.is_empty() {
            return Ok(());
        }
        let sessions: BTreeSet<_> = self.unfinished.iter().map(|erase| erase.session).collect();
        let subjects = subject::find(disk, &sessions, Gather::Blobs)?;
        for erase in self.unfinished.clone() {
            // An erasure of what the log does not have destroys nothing.
            let Some(subject) = subjects.get(&erase.session) else { continue };
            self.means(disk, source, |means, state| match &erase.fields {
                None => means.sessions(state, std::slice::from_ref(subject)),
                Some(_) if state.erased.contains(subject.slot) => Ok(()),
                Some(fields) => means.fields(state, subject, &fields.iter().copied().collect(), Others::NotKept),
            })?;
        }
        self.unfinished.clear();
        Ok(())
    }

    /// Saves what the log says up to this many entries.
    fn save(&mut self, disk: &Arc<dyn Disk>, size: u64) -> Result<(), StoreError> {
        self.state.size = size;
        self.state.save(&**disk, &self.origin)?;
        self.saved = size;
        Ok(())
    }

    /// Saves the state if the log has grown by much since the last time. Nothing may be unfinished.
    fn save_sometimes(&mut self, log: &Log) -> Result<(), StoreError> {
        let durable = log.durable();
        if !self.unfinished.is_empty() || durable < self.saved.saturating_add(SAVE_ENTRIES) {
            return Ok(());
        }
        self.save_all(log)
    }

    /// Saves the state with everything that is durable. All entries about content were appended by this custodian, so
    /// that it knows of each; which slots are taken, the pool knows.
    fn save_all(&mut self, log: &Log) -> Result<(), StoreError> {
        let durable = log.durable();
        self.state.next_slot = self.state.next_slot.max(lock(&log.keys).next_slot());
        self.save(&log.disk, durable)
    }

    /// What cannot be erased, and why.
    fn check(&self, subject: &Subject) -> Result<(), CustodyError> {
        let session = subject.session;
        if subject.closed.is_none() {
            return Err(CustodyError::Open(session));
        }
        if let Some(held) = self.state.holding(session, &subject.connection, &subject.identity) {
            let (hold, reason) = (held.hold.hold.clone(), held.hold.reason.clone());
            return Err(CustodyError::Held { session, hold, reason });
        }
        if self.state.erased.contains(subject.slot) {
            return Err(CustodyError::Already);
        }
        Ok(())
    }

    /// The slot must have the session's key, or none.
    fn check_key(&self, disk: &Arc<dyn Disk>, subject: &Subject) -> Result<(), CustodyError> {
        let table = KeyTable::with(disk, self.seal.clone())?;
        match table.read(subject.slot).map_err(StoreError::disk("reading session keys"))? {
            Slot::Key(key) if key.commitment(subject.session) != subject.commitment => {
                Err(CustodyError::OtherKey(subject.session))
            }
            Slot::Key(_) | Slot::Erased | Slot::Missing => Ok(()),
        }
    }

    /// Puts erasures on the record, durably. From here on they are carried out, now or later.
    fn declare(&mut self, log: &Log, erasures: &[Erase]) -> Result<Vec<u64>, CustodyError> {
        let append = |erase: &Erase| Ok(log.note(Body::Erase(erase.clone()), Purpose::Complete)?.0.index());
        let indexes = erasures.iter().map(append).collect::<Result<Vec<_>, RecordError>>();
        // Some may be on the record although others are not.
        self.unfinished.extend_from_slice(erasures);
        let durable = indexes.and_then(|indexes| durable(log).map(|()| indexes));
        if durable.is_err() {
            // The log has stopped: the next start finds which of them are on the record.
            self.unfinished.clear();
        }
        Ok(durable?)
    }
}

/// Makes everything that was appended durable.
fn durable(log: &Log) -> Result<(), RecordError> {
    log.write();
    log.sync();
    log.wake_gates(None);
    log.check(Purpose::Complete)
}

impl Recorder {
    /// Erases what a session sealed. Its entries stay, and verify.
    ///
    /// # Errors
    /// See [`CustodyError`]; nothing was erased, except where it says so.
    pub fn erase(&self, session: SessionId, by: &Actor, reason: &str) -> Result<Erased, CustodyError> {
        let reason = reason_of(reason)?;
        self.with_custody(|log, custodian, source| {
            let subject = one(log, session, Gather::Blobs)?;
            custodian.check(&subject)?;
            custodian.check_key(&log.disk, &subject)?;
            let erase = erasure(&subject, None, EraseCause::Request, reason, by);
            let indexes = custodian.declare(log, &[erase])?;
            custodian
                .means(&log.disk, source, |means, state| means.sessions(state, std::slice::from_ref(&subject)))
                .map_err(CustodyError::Unfinished)?;
            custodian.finished(log)?;
            Ok(Erased { session, index: first(&indexes), blobs: count(subject.blobs.len()), shared: Vec::new() })
        })
    }

    /// Erases one field of a command, with whatever else has the same content.
    ///
    /// # Errors
    /// As [`Recorder::erase`].
    pub fn redact(
        &self,
        command: CommandId,
        field: ContentKind,
        by: &Actor,
        reason: &str,
    ) -> Result<Erased, CustodyError> {
        let reason = reason_of(reason)?;
        let session = command.session;
        self.with_custody(|log, custodian, source| {
            let subject = one(log, session, Gather::Uses)?;
            custodian.check(&subject)?;
            custodian.check_key(&log.disk, &subject)?;
            let of_command = subject.uses.iter().filter(|used| used.command == command);
            let number = match of_command.clone().find(|used| used.role == field).map(|used| used.number) {
                Some(Some(number)) => number,
                Some(None) => return Err(CustodyError::Nothing { command, field }),
                None if of_command.count() == 0 => return Err(CustodyError::NoCommand(command)),
                None => return Err(CustodyError::Nothing { command, field }),
            };
            let before = custodian.state.redacted.get(&session).map(|redacted| &redacted.fields);
            if before.is_some_and(|fields| fields.contains(&number)) {
                return Err(CustodyError::Already);
            }
            // A blob's beginning is sealed in the entry too, under the next number.
            let blob = subject.blobs.contains_key(&number);
            let fields: BTreeSet<u64> = if blob { [number, number + 1].into() } else { [number].into() };
            let all: BTreeSet<u64> = before.into_iter().flatten().chain(&fields).copied().collect();
            // If there is no room for the other keys, that is found before anything is on the record.
            custodian.means(&log.disk, source, |means, _| means.keep_others(&subject, &all))?;
            let erase = erasure(&subject, Some(&fields), EraseCause::Request, reason, by);
            let indexes = custodian.declare(log, &[erase])?;
            custodian
                .means(&log.disk, source, |means, state| means.fields(state, &subject, &fields, Others::Kept))
                .map_err(CustodyError::Unfinished)?;
            custodian.finished(log)?;
            let same =
                |used: &&subject::Use| used.number == Some(number) && (used.command, used.role) != (command, field);
            let shared = subject.uses.iter().filter(same).map(|used| (used.command, used.role)).collect();
            Ok(Erased { session, index: first(&indexes), blobs: u64::from(blob), shared })
        })
    }

    /// Places a hold and gives its name. From here on nothing in its scope is erased.
    ///
    /// # Errors
    /// It cannot be recorded.
    pub fn place_hold(&self, scope: HoldScope, by: &Actor, reason: &str) -> Result<String, CustodyError> {
        let reason = reason_of(reason)?;
        self.with_custody(|log, custodian, source| {
            // A name that nobody else has: the same form as that of a session.
            let ms = u64::try_from(log.clock.now().wall_us / 1000).unwrap_or(0);
            let name = SessionId::new(ms, random(source).map_err(StoreError::disk("making a hold's name"))?);
            let hold = Hold {
                hold: name.to_string(),
                action: HoldAction::Placed,
                session: scope.session,
                connection: scope.connection,
                identity: scope.identity,
                reason: reason.to_owned(),
                by: by.clone(),
            };
            custodian.note_hold(log, hold)?;
            Ok(name.to_string())
        })
    }

    /// Releases a hold.
    ///
    /// # Errors
    /// There is no such hold in force, or it cannot be recorded.
    pub fn release_hold(&self, name: &str, by: &Actor, reason: &str) -> Result<(), CustodyError> {
        let reason = reason_of(reason)?;
        self.with_custody(|log, custodian, _| {
            let held = custodian.state.holds.get(name).ok_or_else(|| CustodyError::NoHold(name.to_owned()))?;
            let hold =
                Hold { action: HoldAction::Released, reason: reason.to_owned(), by: by.clone(), ..held.hold.clone() };
            custodian.note_hold(log, hold)
        })
    }

    /// The holds in force, oldest first.
    #[must_use]
    pub fn holds(&self) -> Vec<Held> {
        in_order(&lock(self.custody().1).state)
    }

    /// Saves what need not be read from the log again at the next start, if that is much.
    ///
    /// # Errors
    /// The disk refused.
    pub fn save_custody(&self) -> Result<(), StoreError> {
        let (log, custodian) = self.custody();
        lock(custodian).save_sometimes(log)
    }

    /// Does something to the content of the log, one at a time.
    fn with_custody<T>(
        &self,
        work: impl FnOnce(&Log, &mut Custodian, &mut dyn Random) -> Result<T, CustodyError>,
    ) -> Result<T, CustodyError> {
        let (log, custodian): (&Arc<Log>, &Mutex<Custodian>) = self.custody();
        let mut custodian = lock(custodian);
        log.check(Purpose::Complete)?;
        // The log is read from its files: what was appended must be there.
        log.write();
        let mut source = Shared(log.clone());
        custodian.finish(&log.disk, &mut source)?;
        work(log, &mut custodian, &mut source)
    }
}

/// The log's randomness, taken for one draw at a time.
struct Shared(Arc<Log>);

impl Random for Shared {
    fn fill(&mut self, bytes: &mut [u8]) -> std::io::Result<()> {
        lock(&self.0.random).fill(bytes)
    }
}

impl Custodian {
    /// What was declared has been carried out.
    fn finished(&mut self, log: &Log) -> Result<(), CustodyError> {
        self.unfinished.clear();
        self.save_all(log).map_err(CustodyError::Store)
    }

    fn note_hold(&mut self, log: &Log, hold: Hold) -> Result<(), CustodyError> {
        let time = log.clock.now();
        let (position, _) = log.note(Body::Hold(hold.clone()), Purpose::Complete)?;
        durable(log)?;
        self.state.hold(position.index(), time, hold);
        // What was passed over for a hold may be due now.
        self.resume = None;
        Ok(self.save_all(log)?)
    }
}

/// Reads any bytes as a saved state: what was read is written again so that it is read as the same.
pub(crate) fn fuzz(data: &[u8]) {
    const ORIGIN: &str = "fuzz.example/1";
    if let Some(state) = State::parse(data, ORIGIN) {
        let again = State::parse(state.encode(ORIGIN).as_bytes(), ORIGIN);
        assert_eq!(again.as_ref(), Some(&state), "it reads what it writes");
    }
}

fn one(log: &Log, session: SessionId, what: Gather) -> Result<Subject, CustodyError> {
    let mut found = subject::find(&log.disk, &[session].into(), what)?;
    found.remove(&session).ok_or(CustodyError::NoSession(session))
}

fn erasure(subject: &Subject, fields: Option<&BTreeSet<u64>>, cause: EraseCause, reason: &str, by: &Actor) -> Erase {
    Erase {
        session: subject.session,
        connection: subject.connection.clone(),
        identity: subject.identity.clone(),
        fields: fields.map(|fields| fields.iter().copied().collect()),
        cause,
        reason: reason.to_owned(),
        by: by.clone(),
    }
}

fn reason_of(reason: &str) -> Result<&str, CustodyError> {
    let reason = reason.trim();
    let printable = !reason.is_empty() && reason.len() <= REASON_BYTES_MAX && !reason.contains(char::is_control);
    printable.then_some(reason).ok_or(CustodyError::Reason)
}

fn first(indexes: &[u64]) -> u64 {
    indexes.first().copied().unwrap_or(0)
}

fn count(n: usize) -> u64 {
    u64::try_from(n).unwrap_or(u64::MAX)
}
