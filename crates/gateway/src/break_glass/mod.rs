//! Break-glass: a person who runs what is held at once, for a short time; and who looked at it afterwards.
//!
//! ```text
//! person (api):  open ─▶ `opened`, durable ─▶ told ─▶ in force
//! session:       covering ─▶ Cover ─▶ Permit, and the mark on each intent
//! person, clock: close ─▶ `closed` ─▶ told          another person: review ─▶ `reviewed` ─▶ told
//! ```
//!
//! What counts is decided in `policy::break_glass`; here is the memory of it, and each step's entry. A restart ends what was
//! open; what was not reviewed stays in the list until it is.
//!
//! Invariants: a step is on the record before it has an effect, and opening is durable before. No intent that names
//! break-glass is appended after the step that closes it: whoever appends one holds what closing waits for.

mod api;
mod file;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, VecDeque};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::{Duration, Instant};

use model::{
    BreakGlass as Step, BreakGlassEnd, BreakGlassId, BreakGlassReview, BreakGlassStep, BreakGlassWord, CommandId,
    Identity, IdentityName, Who, wall_text,
};
use policy::Verdict;
use policy::approvals::Now;
use policy::break_glass::{Cover, Glass, GlassRules, NotAllowed, NotOpened, NotReviewed, Standing};
use store::{BreakGlassEntry, CommandStatus, Filter, Reader, RecordError, Recorder, StoreError, commands_between};

use self::file::Kept;
use crate::approvals::wall_us;
use crate::notify::{GlassNotice, Notice, Notifier};
use crate::random;

pub(crate) use api::answer;

/// Of one person, at most this many wait for a review: then the next one waits for that.
const UNREVIEWED_OF_ONE_MAX: usize = 8;
/// The same of all people.
const UNREVIEWED_MAX: usize = 256;
/// Those that were reviewed and can still be looked at.
const REVIEWED_MAX: usize = 64;
/// After so long what is kept is written again, so that a start need not read more of the record than that.
const KEEP_EVERY: Duration = Duration::from_secs(60 * 60);
/// Where the data directory has it.
const FILE: &str = "access/break-glass";

/// All break-glass of a gateway.
pub struct BreakGlass {
    recorder: Recorder,
    reader: Reader,
    notifier: Option<Notifier>,
    kept: Kept,
    /// Held while something changes: the record, then the memory, then the file. When the file was written last.
    changing: Mutex<Instant>,
    glasses: RwLock<Glasses>,
    /// How many are open. While none is, sessions look no further.
    open: AtomicUsize,
    /// Those that this start closed.
    restarted: Vec<BreakGlassId>,
}

#[derive(Default)]
struct Glasses {
    known: BTreeMap<BreakGlassId, Held>,
    reviewed: VecDeque<BreakGlassId>,
}

/// One, with all that is shown of it.
struct Held {
    glass: Glass,
    began: Instant,
    /// Its steps, as they were recorded.
    steps: Vec<BreakGlassEntry>,
}

/// What is kept cannot be read: what was not reviewed must not be forgotten by that.
#[derive(Debug, thiserror::Error)]
#[error("what is remembered of break-glass cannot be read: {file}: {why}")]
pub struct BreakGlassError {
    file: String,
    why: String,
}

/// Why nothing came of it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NotDone {
    /// There is none, or not for who asks.
    #[error("there is no such break-glass, or it is not for you to see")]
    Unknown,
    /// Nothing in the configuration allows it.
    #[error("nobody may break the glass on connection {0}")]
    NotConfigured(String),
    /// It must not be opened.
    #[error(transparent)]
    NotOpened(#[from] NotOpened),
    /// They have it open already.
    #[error("you have broken the glass on this connection already: {0}")]
    Already(BreakGlassId),
    /// Too many were not reviewed.
    #[error("{0}")]
    TooMany(&'static str),
    /// They may not close it.
    #[error("whoever opened it closes it, or who may review it")]
    NotYours(#[from] NotAllowed),
    /// It is over.
    #[error("it is over already")]
    Over,
    /// The review does not count.
    #[error(transparent)]
    NotReviewed(#[from] NotReviewed),
    /// What has begun under it has not ended.
    #[error("not all that was begun under it has ended: {0} still runs")]
    Running(CommandId),
    /// What ran under it cannot be read.
    #[error("what ran under it cannot be read: {0}")]
    Unreadable(#[from] StoreError),
    /// It cannot be recorded.
    #[error("it cannot be recorded: {}", .0.for_client())]
    Record(#[from] RecordError),
}

/// What somebody asks for who breaks the glass.
pub(crate) struct Asked<'a> {
    pub(crate) by: &'a Identity,
    pub(crate) connection: &'a str,
    pub(crate) reason: &'a str,
    pub(crate) lasts: Duration,
}

/// What covers the commands of a session. While it is there, nothing closes what covers them.
pub(crate) struct Covered<'a> {
    id: BreakGlassId,
    until_us: i64,
    cover: Cover,
    _open: RwLockReadGuard<'a, Glasses>,
}

impl Covered<'_> {
    /// What an intent names.
    pub(crate) fn id(&self) -> BreakGlassId {
        self.id
    }

    /// Until when, microseconds since 1970.
    pub(crate) fn until_us(&self) -> i64 {
        self.until_us
    }

    /// As [`Cover::lift`].
    pub(crate) fn lift(&self, verdict: Verdict) -> Verdict {
        self.cover.lift(verdict)
    }
}

impl BreakGlass {
    /// Reads what is remembered in a data directory, and closes what was open when the gateway stopped. The record has to
    /// say before that it began again.
    ///
    /// # Errors
    /// It cannot be read, or the record cannot be written.
    pub fn open(data: &Path, recorder: Recorder, reader: Reader) -> Result<Self, BreakGlassError> {
        let kept = Kept::new(data.join(FILE), &reader);
        let fault = |why: String| BreakGlassError { file: data.join(FILE).display().to_string(), why };
        let steps = kept.read(&reader).map_err(|error| fault(error.to_string()))?;
        let mut known: BTreeMap<BreakGlassId, Held> = BTreeMap::new();
        for (id, entry) in steps {
            let index = entry.index;
            match (&entry.step, known.get_mut(&id)) {
                // Also found in the record because the file was older.
                (_, Some(held)) if held.steps.iter().any(|step| step.step.word() == entry.step.word()) => {}
                (BreakGlassStep::Reviewed(_), _) => _ = known.remove(&id),
                (BreakGlassStep::Opened(opening), _) => {
                    let glass = Glass::over((**opening).clone(), BreakGlassEnd::Restart);
                    known.insert(id, Held { glass, began: Instant::now(), steps: vec![entry] });
                }
                (BreakGlassStep::Closed { how, .. }, Some(held)) => {
                    held.glass = Glass::over(held.glass.opening().clone(), *how);
                    held.steps.push(entry);
                }
                (BreakGlassStep::Closed { .. }, None) => tracing::warn!(%id, index, "closed, and not known"),
            }
        }
        let restarted = known.iter().filter(|(_, held)| held.closed().is_none()).map(|(id, _)| *id).collect();
        let this = Self {
            recorder,
            reader,
            notifier: None,
            kept,
            changing: Mutex::new(Instant::now()),
            glasses: RwLock::new(Glasses { known, reviewed: VecDeque::new() }),
            open: AtomicUsize::new(0),
            restarted,
        };
        let closed = this.close_open_of_before();
        closed.map_err(|error| fault(format!("that it is over cannot be recorded: {error}")))?;
        // In any case: a crash may have taken entries behind which the file says to read on, and without a file the next
        // start would read all of the record again.
        this.keep(&mut this.change());
        Ok(this)
    }

    /// What was open when the gateway stopped is over, and the record says so.
    fn close_open_of_before(&self) -> Result<(), RecordError> {
        let mut glasses = self.write();
        for id in &self.restarted {
            if let Some(held) = glasses.known.get_mut(id) {
                let step = BreakGlassStep::Closed { how: BreakGlassEnd::Restart, by: None };
                held.steps.push(self.note(*id, step)?);
            }
        }
        drop(glasses);
        self.recorder.flush()
    }

    /// The same, with somebody to tell; who is told at once what was closed by the restart.
    pub(crate) fn telling(mut self, notifier: Option<Notifier>) -> Self {
        self.notifier = notifier;
        for id in std::mem::take(&mut self.restarted) {
            if let Some(held) = self.read().known.get(&id) {
                self.tell("closed", id, held);
            }
        }
        self
    }

    /// Says in the log what nobody can review, because its connection names nobody any more by these rules.
    pub(crate) fn warn_unreviewable<'a>(&self, rules: impl Fn(&str) -> Option<&'a GlassRules>) -> usize {
        let glasses = self.read();
        let unreviewable = glasses
            .known
            .iter()
            .filter(|(_, held)| !held.is_reviewed() && rules(&held.glass.opening().connection).is_none());
        unreviewable
            .map(|(id, held)| {
                let connection = &held.glass.opening().connection;
                tracing::warn!(
                    %id,
                    connection,
                    "this break-glass waits for its review, and the configuration names nobody who may review it: put \
                     [connections.NAME.break_glass] back until it was"
                );
            })
            .count()
    }

    /// What covers a command that this client sends over this connection, if anything does.
    pub(crate) fn covering(&self, who: &Who, connection: &str) -> Option<Covered<'_>> {
        if self.open.load(Ordering::Acquire) == 0 {
            return None;
        }
        let glasses = self.read();
        let open = glasses.known.iter().filter(|(_, held)| held.glass.standing() == Standing::Open);
        let covers = |(id, held): (&BreakGlassId, &Held)| {
            let cover = held.glass.covers(who, connection, held.now())?;
            Some((*id, held.glass.opening().until_us, cover))
        };
        let (id, until_us, cover) = { open }.find_map(covers)?;
        Some(Covered { id, until_us, cover, _open: glasses })
    }

    /// Opens it. It is durable, and in force, when this returns without an error.
    pub(crate) fn break_it(&self, asked: &Asked<'_>, rules: Option<&GlassRules>) -> Result<BreakGlassId, NotDone> {
        let mut changing = self.change();
        let rules = rules.ok_or_else(|| NotDone::NotConfigured(asked.connection.to_owned()))?;
        let glass = rules.open(asked.by.clone(), asked.connection, asked.reason, asked.lasts, wall_us())?;
        self.has_room(asked)?;
        let ms = u64::try_from(wall_us() / 1000).unwrap_or(0);
        let id = BreakGlassId::new(ms, random::bytes());
        let began = Instant::now();
        let step = self.note(id, BreakGlassStep::Opened(Box::new(glass.opening().clone())))?;
        self.recorder.flush()?;
        let held = Held { glass, began, steps: vec![step] };
        tracing::warn!(%id, by = %asked.by.name, connection = asked.connection, "break-glass was opened");
        self.tell("opened", id, &held);
        self.write().known.insert(id, held);
        self.open.fetch_add(1, Ordering::Release);
        self.keep(&mut changing);
        Ok(id)
    }

    fn has_room(&self, asked: &Asked<'_>) -> Result<(), NotDone> {
        let glasses = self.read();
        let unreviewed = || glasses.known.iter().filter(|(_, held)| !held.is_reviewed());
        let own = || unreviewed().filter(|(_, held)| held.glass.opening().by.name == asked.by.name);
        let mut open = own().filter(|(_, held)| held.glass.standing() == Standing::Open);
        if let Some((id, _)) = open.find(|(_, held)| held.glass.opening().connection == asked.connection) {
            return Err(NotDone::Already(*id));
        }
        if own().count() >= UNREVIEWED_OF_ONE_MAX {
            return Err(NotDone::TooMany("eight times that you broke the glass were not reviewed yet"));
        }
        if unreviewed().count() >= UNREVIEWED_MAX {
            return Err(NotDone::TooMany("256 times that somebody broke the glass were not reviewed yet"));
        }
        Ok(())
    }

    /// Closes it before its time. `rules` are those of its connection.
    pub(crate) fn close_it(&self, id: BreakGlassId, by: &Identity, rules: Option<&GlassRules>) -> Result<(), NotDone> {
        let mut changing = self.change();
        {
            let glasses = self.read();
            let held = glasses.known.get(&id).ok_or(NotDone::Unknown)?;
            let opener = &held.glass.opening().by;
            let own = opener.name == by.name && by.on_behalf_of.is_none();
            if !own {
                rules.ok_or(NotAllowed::NotNamed)?.may_review(&opener.name, by)?;
            }
            if held.glass.standing() != Standing::Open {
                return Err(NotDone::Over);
            }
        }
        self.end(id, BreakGlassEnd::Person, Some(by))?;
        self.recorder.flush()?;
        self.keep(&mut changing);
        Ok(())
    }

    /// Notes what another person found, once all that was begun under it has ended. It is durable when this returns
    /// without an error. Reads the record.
    pub(crate) fn review(
        &self,
        id: BreakGlassId,
        review: BreakGlassReview,
        rules: Option<&GlassRules>,
    ) -> Result<(), NotDone> {
        let rules = rules.ok_or(NotReviewed::NotAllowed(NotAllowed::NotNamed))?;
        let window = {
            let glasses = self.read();
            let held = glasses.known.get(&id).ok_or(NotDone::Unknown)?;
            held.glass.check_review(rules, &review.by, &review.comment)?;
            held.window()
        };
        // It is over: nothing more begins under it, and what has ended by now has ended.
        if let Some(running) = window.map(|window| self.running(id, window)).transpose()?.flatten() {
            return Err(NotDone::Running(running));
        }
        let mut changing = self.change();
        let mut glasses = self.write();
        let held = glasses.known.get_mut(&id).ok_or(NotDone::Unknown)?;
        held.glass.check_review(rules, &review.by, &review.comment)?;
        held.steps.push(self.note(id, BreakGlassStep::Reviewed(Box::new(review)))?);
        held.glass.review();
        self.tell("reviewed", id, held);
        glasses.reviewed.push_back(id);
        if glasses.reviewed.len() > REVIEWED_MAX
            && let Some(oldest) = glasses.reviewed.pop_front()
        {
            glasses.known.remove(&oldest);
        }
        drop(glasses);
        self.recorder.flush()?;
        self.keep(&mut changing);
        Ok(())
    }

    /// A command under it that has no outcome.
    fn running(&self, id: BreakGlassId, (first, last): (u64, u64)) -> Result<Option<CommandId>, NotDone> {
        self.recorder.flush()?;
        let filter = Filter { break_glass: Some(id), status: Some(CommandStatus::Pending), ..Filter::default() };
        let running = commands_between(&self.reader, filter, first, last).next().transpose()?;
        Ok(running.map(|command| command.id))
    }

    /// Closes what is over: its time, or that `may` its opener open it on its connection.
    pub(crate) fn sweep(&self, may: impl Fn(&Identity, &str) -> bool, revoked: impl Fn(&IdentityName) -> bool) {
        // What changes now is looked at the next time.
        let Ok(mut changing) = self.changing.try_lock() else { return };
        let over = |(id, held): (&BreakGlassId, &Held)| {
            let opening = held.glass.opening();
            let how = match held.glass.standing() {
                Standing::Closed(_) | Standing::Reviewed(_) => return None,
                Standing::Open if held.glass.is_overdue(held.now()) => BreakGlassEnd::Expired,
                Standing::Open if revoked(&opening.by.name) => BreakGlassEnd::Revoked,
                Standing::Open if !may(&opening.by, &opening.connection) => BreakGlassEnd::NotPermitted,
                Standing::Open => return None,
            };
            Some((*id, how))
        };
        let over: Vec<_> = self.read().known.iter().filter_map(over).collect();
        for (id, how) in &over {
            if let Err(error) = self.end(*id, *how, None) {
                tracing::error!(%error, %id, "that break-glass is over cannot be recorded");
            }
        }
        let old = changing.elapsed() >= KEEP_EVERY;
        if !over.is_empty() || old {
            self.keep(&mut changing);
        }
    }

    /// Ends what is open, in any case; the record says so, if it can be written.
    fn end(&self, id: BreakGlassId, how: BreakGlassEnd, by: Option<&Identity>) -> Result<(), RecordError> {
        let mut glasses = self.write();
        let Some(held) = glasses.known.get_mut(&id) else { return Ok(()) };
        if !held.glass.close(how) {
            return Ok(());
        }
        self.open.fetch_sub(1, Ordering::Release);
        let step = BreakGlassStep::Closed { how, by: by.cloned().map(Box::new) };
        let noted = self.note(id, step);
        let noted = noted.map(|step| held.steps.push(step));
        tracing::warn!(%id, how = how.as_str(), "break-glass is over");
        self.tell("closed", id, held);
        noted
    }

    fn note(&self, id: BreakGlassId, step: BreakGlassStep) -> Result<BreakGlassEntry, RecordError> {
        self.recorder.note_break_glass(Step { id, step })
    }

    /// Writes what is kept, once the record has it. What fails here is read from the record at the next start.
    fn keep(&self, changing: &mut MutexGuard<'_, Instant>) {
        if self.recorder.flush().is_err() {
            return;
        }
        let glasses = self.read();
        let waiting = glasses.known.iter().filter(|(_, held)| !held.is_reviewed());
        let steps = waiting.flat_map(|(id, held)| held.steps.iter().map(|step| (*id, step)));
        match self.kept.write(self.recorder.appended(), steps) {
            Ok(()) => **changing = Instant::now(),
            Err(error) => {
                tracing::error!(%error, file = %self.kept.path().display(), "break-glass cannot be remembered");
            }
        }
    }

    /// Tells who is to be told, if anybody is.
    fn tell(&self, event: &'static str, id: BreakGlassId, held: &Held) {
        let Some(notifier) = &self.notifier else { return };
        let opening = held.glass.opening();
        let (how, by, comment) = match held.steps.last().map(|step| &step.step) {
            Some(BreakGlassStep::Closed { how, by }) => {
                (Some(how.as_str()), by.as_ref().map(|by| by.name.to_string()), None)
            }
            Some(BreakGlassStep::Reviewed(review)) => {
                let by = review.by.name.to_string();
                (Some(review.finding.as_str()), Some(by), Some(review.comment.clone()))
            }
            Some(BreakGlassStep::Opened(_)) | None => (None, None, None),
        };
        notifier.send(Notice::BreakGlass(GlassNotice {
            event,
            id: id.to_string(),
            opener: opening.by.name.to_string(),
            connection: opening.connection.clone(),
            reason: opening.reason.clone(),
            until: wall_text(opening.until_us),
            how,
            by,
            comment,
        }));
    }

    fn change(&self) -> MutexGuard<'_, Instant> {
        self.changing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read(&self) -> RwLockReadGuard<'_, Glasses> {
        self.glasses.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Glasses> {
        self.glasses.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Held {
    fn now(&self) -> Now {
        Now { wall_us: wall_us(), age: self.began.elapsed() }
    }

    fn is_reviewed(&self) -> bool {
        matches!(self.glass.standing(), Standing::Reviewed(_))
    }

    fn step(&self, wanted: BreakGlassWord) -> Option<&BreakGlassEntry> {
        self.steps.iter().find(|entry| entry.step.word() == wanted)
    }

    fn closed(&self) -> Option<&BreakGlassEntry> {
        self.step(BreakGlassWord::Closed)
    }

    /// Between which entries its commands begin; none if that is in another log, which has its opening at 0 here.
    fn window(&self) -> Option<(u64, u64)> {
        let first = self.step(BreakGlassWord::Opened).map(|step| step.index).filter(|index| *index > 0)?;
        Some((first, self.closed().map_or(u64::MAX, |step| step.index)))
    }
}
