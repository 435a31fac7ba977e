//! The way into the record: makes a log, opens it, and hands out what writes to it.

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use ledger::{Frontier, SignedNote, leaf_hash};
use model::{
    Approval, ApprovalStep, Body, BreakGlass, BreakGlassStep, Cancel, Configuration, Digest, Entry, Export, Genesis,
    Heartbeat, IssuerKey, Outpost, Oversight, Passkey, PreviousLog, Refused, Revocation, SessionId, Shared, Start,
    Stop, StopReason, Token, Witnesses,
};

use crate::approvals::BreakGlassEntry;
use crate::blob;
use crate::clock::{Clock, Random, SystemClock, SystemRandom, random};
use crate::custody::Custodian;
use crate::disk::{Disk, RealDisk, write_all};
use crate::epoch;
use crate::error::{Health, RecordError, StoreError};
use crate::format::{
    self, GROUP_HEADER_BYTES, GroupHeader, HEADER_BYTES, SEGMENT_BYTES_MIN, SegmentHeader, push_entry, segment_path,
};
use crate::gate::{Gate, Opening};
use crate::head::{self, HeadRegister};
use crate::keys::{self, KeyPool, SealKey};
use crate::log::{Log, Parts, Position, Purpose, SPARE, Signer, lock, make_spare};
use crate::publish::Published;
use crate::recover::{self, Begin, Recovery};
use crate::session::{SessionLog, SessionStart};
use crate::threads;
use crate::walk;
use crate::wrapping::{Wrapping, WrappingKey};

/// How the log is written. [`Options::new`] has the defaults.
#[derive(Clone, Debug)]
pub struct Options {
    /// The log's name, which must be the one that it was made with.
    pub origin: String,
    /// The length of a segment.
    pub segment_bytes: u64,
    /// How long an entry for which nobody waits may take to become durable.
    pub sync_interval: Duration,
    /// How often a checkpoint is signed while entries flow.
    pub checkpoint_interval: Duration,
    /// How much of the last segment is kept for the ends of running commands when the disk is full.
    pub reserve_bytes: u64,
    /// The key that wraps the one under which session keys are kept; none if that one is kept in clear.
    pub wrapping_key: Option<Arc<dyn WrappingKey>>,
}

impl Options {
    /// The defaults: segments of 64 MiB, 20 ms, one second, 8 MiB.
    #[must_use]
    pub fn new(origin: impl Into<String>) -> Self {
        Self {
            origin: origin.into(),
            segment_bytes: 64 << 20,
            sync_interval: Duration::from_millis(20),
            checkpoint_interval: Duration::from_secs(1),
            reserve_bytes: 8 << 20,
            wrapping_key: None,
        }
    }
}

/// A new log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Created {
    /// The public key that verifies its checkpoints: keep a copy elsewhere.
    pub vkey: String,
}

/// What the gateway itself has to say. The store adds the time.
#[derive(Clone, Debug)]
pub enum GatewayEntry {
    /// It began to record.
    Start(Start),
    /// It is alive.
    Heartbeat(Heartbeat),
    /// Connection attempts that led to no session.
    Refused(Refused),
    /// Someone asked for a command to be cancelled.
    Cancel(Cancel),
    /// How far the witnesses are.
    Witnesses(Witnesses),
    /// A part of the record was handed out.
    Export(Export),
    /// Another configuration was offered.
    Configuration(Configuration),
    /// An issuer's key was used for the first time.
    IssuerKey(IssuerKey),
    /// A connection token was handed out or taken back.
    Token(Token),
    /// An identity was locked out or let in again.
    Revocation(Revocation),
    /// One credential is in use from several places.
    Shared(Shared),
    /// An outpost came, went, or was turned away.
    Outpost(Outpost),
    /// Somebody's key for signing decisions was enrolled or removed.
    Passkey(Passkey),
    /// Somebody watched a live session, or ended it.
    Oversight(Oversight),
}

/// The open log of one gateway. Clones are the same log.
#[derive(Clone)]
pub struct Recorder(Arc<Open>);

struct Open {
    log: Arc<Log>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    custodian: Mutex<Custodian>,
}

pub(crate) const LOCK: &str = "LOCK";

impl Recorder {
    /// Makes a new log in a directory, with keys of its own.
    ///
    /// # Errors
    /// There is a log already, the name cannot be one, or the disk refused.
    pub fn create(dir: &Path, origin: &str) -> Result<Created, StoreError> {
        let disk: Arc<dyn Disk> = Arc::new(RealDisk::new(dir));
        Self::create_on(&disk, &Options::new(origin), &SystemClock, &mut SystemRandom)
    }

    /// As [`Recorder::create`], on any disk.
    ///
    /// # Errors
    /// As [`Recorder::create`].
    pub fn create_on(
        disk: &Arc<dyn Disk>,
        options: &Options,
        clock: &dyn Clock,
        source: &mut dyn Random,
    ) -> Result<Created, StoreError> {
        Self::create_after(disk, options, None, clock, source)
    }

    /// As [`Recorder::create_on`], for a log that continues another.
    pub(crate) fn create_after(
        disk: &Arc<dyn Disk>,
        options: &Options,
        previous: Option<PreviousLog>,
        clock: &dyn Clock,
        source: &mut dyn Random,
    ) -> Result<Created, StoreError> {
        let error = StoreError::disk;
        if epoch::is_changing(&**disk) {
            return Err(StoreError::Exists);
        }
        disk.create_dir("log").map_err(error("making the data directory"))?;
        let _lock = take_lock(&**disk)?;
        if !walk::list(&**disk)?.is_empty() {
            return Err(StoreError::Exists);
        }
        // Without a segment there is no log: what a broken attempt left behind is made again. Only the keys of a log
        // that another one has named already are kept.
        let signing = match keys::signing_key(&**disk) {
            Ok(key) if previous.is_some() && key.verifier().name() == options.origin => key,
            _ => keys::create(&**disk, &options.origin, source, options.wrapping_key.as_deref())?,
        };
        head::create(&**disk).map_err(error("making head"))?;
        let vkey = signing.verifier().to_string();
        let body = Body::Genesis(Genesis {
            origin: options.origin.clone(),
            vkey: vkey.clone(),
            program: concat!("onrecord ", env!("CARGO_PKG_VERSION")).to_owned(),
            previous,
        });
        let mut leaf = Vec::new();
        Entry { time: clock.now(), body }.encode(&mut leaf);
        first_segment(&**disk, options, source, &leaf).map_err(error("making the first segment"))?;
        disk.sync_dir("").map_err(error("making the data directory"))?;
        Ok(Created { vkey })
    }

    /// Opens the log in a directory, as [`Recorder::open`] does.
    ///
    /// # Errors
    /// As [`Recorder::open`].
    pub fn open_dir(dir: &Path, options: Options) -> Result<(Self, Recovery), StoreError> {
        let disk: Arc<dyn Disk> = Arc::new(RealDisk::new(dir));
        epoch::finish(dir, &disk)?;
        Self::open(disk, options, Arc::new(SystemClock), Box::new(SystemRandom))
    }

    /// Opens a log for writing. What the last run left unfinished is completed first: commands without an outcome get
    /// `unknown`, open sessions are closed as lost.
    ///
    /// # Errors
    /// Another process has the log, it is damaged, it is not the one that was signed, or the disk refused.
    pub fn open(
        disk: Arc<dyn Disk>,
        mut options: Options,
        clock: Arc<dyn Clock>,
        mut source: Box<dyn Random>,
    ) -> Result<(Self, Recovery), StoreError> {
        options.segment_bytes = options.segment_bytes.max(SEGMENT_BYTES_MIN).next_multiple_of(4096);
        options.reserve_bytes = options.reserve_bytes.min(options.segment_bytes / 2);
        if walk::list(&*disk)?.is_empty() {
            return Err(StoreError::NoLog);
        }
        let lock = take_lock(&*disk)?;
        let key = keys::signing_key(&*disk)?;
        let verifier = key.verifier();
        if !epoch::is_epoch_of(&options.origin, verifier.name()) {
            let found = verifier.name().to_owned();
            return Err(StoreError::Origin { expected: options.origin, found });
        }
        options.origin = verifier.name().to_owned();
        let seal = Arc::new(SealKey::read_strictly(&*disk, options.wrapping_key.as_deref())?);
        blob::clean(&*disk).map_err(StoreError::disk("removing unfinished blobs"))?;

        let (head, signed) = HeadRegister::open(&*disk)?;
        let checkpoint = head::read_checkpoint(&*disk, &verifier)?;
        let signed = signed.map(|head| (head.size, head.root));
        let newest = checkpoint.clone();
        let checkpoint = checkpoint.map(|(checkpoint, _)| (checkpoint.size, checkpoint.root));
        let signed: Vec<_> = signed.into_iter().chain(checkpoint).collect();
        let sizes: Vec<_> = signed.iter().map(|(size, _)| *size).collect();
        let origin = format::origin_hash(&options.origin);
        let mut found = recover::recover(&disk, &origin, &sizes, Begin::Snapshot)?;
        if signed.iter().any(|(size, root)| found.roots.get(size) != Some(root)) {
            // Before anything is said of the log, a snapshot that leads astray is ruled out.
            found = recover::recover(&disk, &origin, &sizes, Begin::First)?;
        }
        for (size, root) in signed {
            match found.roots.get(&size) {
                None => {
                    return Err(StoreError::Shorter { entries: found.recovery.entries, signed: size });
                }
                Some(found) if *found != root => return Err(StoreError::Forked { size }),
                Some(_) => {}
            }
        }

        let custodian = Custodian::open(&disk, seal.clone(), &options.origin, clock.now(), &mut *source)?;
        let mut keys = KeyPool::open(&*disk, seal, custodian.next_slot())?;
        keys.refill(&mut *source).map_err(StoreError::disk("making session keys"))?;
        let (writer, unfinished, recovery) = found.split();
        let signer = Signer { key, head, signed: sizes.into_iter().max().unwrap_or(0), newest };
        let log = Arc::new(Log::new(Parts { disk, clock, options, random: source, keys, writer, signer, lock }));
        recover::complete(&log, &unfinished, &recovery)?;
        log.complete_at(log.appended());
        log.write();
        log.sync();
        log.check(Purpose::Begin)?;
        let threads = threads::start(&log).map_err(StoreError::disk("starting the store's threads"))?;
        let (threads, custodian) = (Mutex::new(threads), Mutex::new(custodian));
        Ok((Self(Arc::new(Open { log, threads, custodian })), recovery))
    }

    /// Keeps the seal key of a data directory under another wrapping key, or in clear. `from` is the key that wraps it
    /// now. Whoever had the seal key still has it: this protects copies of the data directory that are made from now on.
    ///
    /// # Errors
    /// Another process has the log open, a key is not the right one, or the disk refused.
    pub fn rewrap(
        disk: &dyn Disk,
        from: Option<&dyn WrappingKey>,
        to: Option<&dyn WrappingKey>,
    ) -> Result<Wrapping, StoreError> {
        if walk::list(disk)?.is_empty() {
            return Err(StoreError::NoLog);
        }
        let _lock = take_lock(disk)?;
        keys::rewrap(disk, from, to)
    }

    /// How the seal key of a data directory is kept.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn wrapping(disk: &dyn Disk) -> Result<Wrapping, StoreError> {
        keys::wrapping(disk)
    }

    pub(crate) fn custody(&self) -> (&Arc<Log>, &Mutex<Custodian>) {
        (&self.0.log, &self.0.custodian)
    }

    /// Begins a session. Its key is durable already; its first entry is, when its position is reached.
    ///
    /// # Errors
    /// It cannot be recorded, so the session must not be served.
    pub fn open_session(&self, start: SessionStart) -> Result<(SessionLog, Opening), RecordError> {
        self.open_session_as(self.session_id()?, start)
    }

    /// An id for a session that is about to begin; nothing is recorded of it yet.
    ///
    /// # Errors
    /// No session can be recorded.
    pub fn session_id(&self) -> Result<SessionId, RecordError> {
        let log = &self.0.log;
        log.check(Purpose::Begin)?;
        let ms = u64::try_from(log.clock.now().wall_us / 1000).unwrap_or(0);
        Ok(SessionId::new(ms, random(&mut **lock(&log.random)).map_err(no_key)?))
    }

    /// As [`Recorder::open_session`], with an id of [`Recorder::session_id`], which is used once.
    ///
    /// # Errors
    /// It cannot be recorded, so the session must not be served.
    pub fn open_session_as(&self, id: SessionId, start: SessionStart) -> Result<(SessionLog, Opening), RecordError> {
        let log = &self.0.log;
        log.check(Purpose::Begin)?;
        let key = {
            let mut keys = lock(&log.keys);
            match keys.take() {
                Some(key) => key,
                None => {
                    keys.refill(&mut **lock(&log.random)).map_err(no_key)?;
                    keys.take().ok_or(RecordError::Full)?
                }
            }
        };
        SessionLog::open(log.clone(), id, key, start)
    }

    /// Appends what the gateway itself has to say.
    ///
    /// # Errors
    /// Recording has stopped.
    pub fn note(&self, entry: GatewayEntry) -> Result<Position, RecordError> {
        let body = match entry {
            GatewayEntry::Start(body) => Body::Start(body),
            GatewayEntry::Heartbeat(body) => Body::Heartbeat(body),
            GatewayEntry::Refused(body) => Body::Refused(body),
            GatewayEntry::Cancel(body) => Body::Cancel(body),
            GatewayEntry::Witnesses(body) => Body::Witnesses(body),
            GatewayEntry::Export(body) => Body::Export(body),
            GatewayEntry::Configuration(body) => Body::Configuration(body),
            GatewayEntry::IssuerKey(body) => Body::IssuerKey(body),
            GatewayEntry::Token(body) => Body::Token(body),
            GatewayEntry::Revocation(body) => Body::Revocation(body),
            GatewayEntry::Oversight(body) => Body::Oversight(body),
            GatewayEntry::Shared(body) => Body::Shared(body),
            GatewayEntry::Outpost(body) => Body::Outpost(body),
            GatewayEntry::Passkey(body) => Body::Passkey(body),
        };
        Ok(self.0.log.note(body, Purpose::Complete)?.0)
    }

    /// Appends a step of an approval, and gives its leaf hash too. A step after which a command begins is as one: it takes no
    /// room that is kept for the ends of others.
    ///
    /// # Errors
    /// Recording has stopped, or the disk is full and nothing new may begin.
    pub fn note_approval(&self, approval: Approval) -> Result<(Position, Digest), RecordError> {
        let purpose = match &approval.step {
            ApprovalStep::Requested(_) | ApprovalStep::Used { .. } => Purpose::Begin,
            ApprovalStep::Seen { .. } | ApprovalStep::Decided(_) | ApprovalStep::Ended { .. } => Purpose::Complete,
        };
        self.0.log.note(Body::Approval(approval), purpose)
    }

    /// Appends a step of break-glass; gives it as the record has it. It begins only where something new may: it takes no room that is kept for the ends of
    /// others.
    ///
    /// # Errors
    /// Recording has stopped, or the disk is full and nothing new may begin.
    pub fn note_break_glass(&self, glass: BreakGlass) -> Result<BreakGlassEntry, RecordError> {
        let (step, time) = (glass.step.clone(), self.0.log.clock.now());
        let purpose = match &step {
            BreakGlassStep::Opened(_) => Purpose::Begin,
            BreakGlassStep::Closed { .. } | BreakGlassStep::Reviewed(_) => Purpose::Complete,
        };
        let (position, _) = self.0.log.note_at(time, Body::BreakGlass(glass), purpose)?;
        Ok(BreakGlassEntry { index: position.index(), time, step })
    }

    /// A gate for one worker thread.
    #[must_use]
    pub fn gate(&self) -> Gate {
        Gate::new(self.0.log.clone())
    }

    /// How many entries were appended so far, durable or not.
    #[must_use]
    pub fn appended(&self) -> u64 {
        self.0.log.appended()
    }

    /// The newest checkpoint of more than `after` entries whose tiles are published: its size and its signed note. Waits
    /// for it as long as this.
    #[must_use]
    pub fn wait_checkpoint(&self, after: u64, timeout: Duration) -> Option<(u64, String)> {
        self.0.log.board.wait(after, timeout)
    }

    /// Publishes the cosignatures that a checkpoint of this log got.
    ///
    /// # Errors
    /// The disk refused; recording goes on.
    pub fn cosigned(&self, note: &SignedNote) -> Result<(), StoreError> {
        self.0.log.board.cosigned(&*self.0.log.disk, note)
    }

    /// Why the last checkpoint could not be published, if it could not. Recording goes on, and the next one is tried.
    #[must_use]
    pub fn unpublished(&self) -> Option<Arc<str>> {
        self.0.log.board.failure()
    }

    /// The published log, for reading.
    #[must_use]
    pub fn published(&self) -> Published {
        Published::open(self.0.log.disk.clone())
    }

    /// Whether new commands are accepted.
    #[must_use]
    pub fn health(&self) -> Health {
        match self.0.log.check(Purpose::Begin) {
            Ok(()) => Health::Accepting,
            Err(why) => Health::Stopped { why },
        }
    }

    /// Ends the log where it stands and signs nothing more: for a log that is shown to be a second past under one name.
    /// What was appended is made durable first; afterwards nothing is accepted, also through clones.
    pub fn halt(self) {
        let log = &self.0.log;
        threads::quit(log, std::mem::take(&mut *lock(&self.0.threads)));
        let _ = self.flush();
        log.stop(RecordError::Stopped { why: "the log must not go on".into() });
        log.release();
    }

    /// Gives the data directory free after recording has stopped by itself, so that it can be opened again as at a
    /// restart: whatever this one had not made durable is then looked at anew. Nothing while recording works.
    pub fn abandon(&self) {
        if self.0.log.failure().is_some() {
            self.0.log.release();
        }
    }

    /// Makes everything that was appended durable, and waits for it.
    ///
    /// # Errors
    /// Recording has stopped.
    pub fn flush(&self) -> Result<(), RecordError> {
        self.0.log.write();
        self.0.log.sync();
        self.0.log.wake_gates(None);
        self.0.log.check(Purpose::Complete)
    }

    /// Ends the log of this run: the stop entry, a last sync, a last checkpoint. Sessions must have been closed before;
    /// afterwards nothing is accepted, also through clones.
    ///
    /// # Errors
    /// Recording had stopped, or stopped now; the next start completes the log.
    pub fn stop(self) -> Result<(), RecordError> {
        self.end(Stop { reason: StopReason::Requested, next: None })
    }

    /// Ends the log for good: the key that goes on from here is its last word.
    pub(crate) fn stop_for(self, next: &str) -> Result<(), RecordError> {
        self.end(Stop { reason: StopReason::Rotation, next: Some(next.to_owned()) })
    }

    #[allow(clippy::needless_pass_by_value, reason = "nothing is accepted afterwards")]
    fn end(self, stop: Stop) -> Result<(), RecordError> {
        let log = &self.0.log;
        threads::quit(log, std::mem::take(&mut *lock(&self.0.threads)));
        log.note(Body::Stop(stop), Purpose::Complete)?;
        self.flush()?;
        log.checkpoint();
        log.check(Purpose::Complete)?;
        log.publish();
        log.stop(RecordError::Stopped { why: "the gateway was told to stop".into() });
        log.release();
        Ok(())
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        threads::quit(&self.log, std::mem::take(&mut *lock(&self.threads)));
    }
}

pub(crate) fn take_lock(disk: &dyn Disk) -> Result<Box<dyn std::any::Any + Send + Sync>, StoreError> {
    disk.lock(LOCK).map_err(|error| match error.kind() {
        std::io::ErrorKind::WouldBlock => StoreError::Locked,
        _ => StoreError::disk("locking the data directory")(error),
    })
}

/// The segment with the genesis entry; the log exists when it has its name.
fn first_segment(disk: &dyn Disk, options: &Options, source: &mut dyn Random, leaf: &[u8]) -> std::io::Result<()> {
    let length = options.segment_bytes.max(SEGMENT_BYTES_MIN).next_multiple_of(4096);
    let spare = make_spare(disk, length, None)?;
    let chain = Digest([0; 32]);
    let header = SegmentHeader {
        number: 0,
        first: 0,
        origin: format::origin_hash(&options.origin),
        salt: random(source)?,
        chain,
    };
    let mut frontier = Frontier::new();
    frontier.append(leaf_hash(leaf));
    let mut group = vec![0; GROUP_HEADER_BYTES];
    push_entry(&mut group, leaf);
    let group_header = GroupHeader {
        body_bytes: u32::try_from(group.len() - GROUP_HEADER_BYTES).unwrap_or(u32::MAX),
        count: 1,
        first: 0,
        durable: 0,
        chain: format::chain(&chain, &[leaf_hash(leaf)]),
    };
    group_header.seal(&header.salt, &mut group);
    write_all(&*spare.file, &header.encode(), 0)?;
    write_all(&*spare.file, &group, u64::try_from(HEADER_BYTES).unwrap_or(0))?;
    spare.file.sync()?;
    disk.rename(SPARE, &segment_path(0))?;
    disk.sync_dir("log")
}

fn no_key(error: std::io::Error) -> RecordError {
    RecordError::Stopped { why: format!("making a session key failed: {error}").into() }
}
