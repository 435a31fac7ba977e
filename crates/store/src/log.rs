//! The log while it is written: one buffer that all sessions append to, one write for each group of entries, and two
//! watermarks that say how far the log is written and how far it is durable.
//!
//! Not for: deciding what an entry says (`session`), who waits for it (`gate`), or when to sync (`threads`).
//!
//! Invariants:
//! - The index of an entry is its place in the log, and the order of appends is the order in the file.
//! - `durable <= written <= appended`, and each only grows.
//! - After the first failed write or sync, nothing is written, nothing becomes durable and nothing is accepted.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::{Duration, Instant};

use ledger::{Checkpoint, Frontier, SigningKey, leaf_hash};
use model::{Body, Digest, Entry, LEAF_BYTES_MAX, Time};

use crate::clock::{Clock, Random, random};
use crate::disk::{Disk, DiskFile, Mode, replace_file, write_all};
use crate::error::RecordError;
use crate::format::{
    self, ENTRY_HEADER_BYTES, GROUP_BYTES_MAX, GROUP_HEADER_BYTES, GroupHeader, HEADER_BYTES, SegmentHeader, padded,
    segment_path,
};
use crate::gate::GateShared;
use crate::head::{CHECKPOINT, Head, HeadRegister};
use crate::keys::KeyPool;
use crate::publish::{Board, Publisher};
use crate::recorder::Options;

/// The place of an entry in the log: its index.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Position(pub(crate) u64);

impl Position {
    /// The index of the entry: its leaf index in the tree.
    #[must_use]
    pub fn index(self) -> u64 {
        self.0
    }
}

/// What an entry is for: when the disk is nearly full, new commands stop before the ends of running ones do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// It begins something.
    Begin,
    /// It completes something that has begun.
    Complete,
}

pub(crate) struct Log {
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) options: Options,
    pub(crate) random: Mutex<Box<dyn Random>>,
    pub(crate) keys: Mutex<KeyPool>,
    pub(crate) signal: Signal,
    pub(crate) gates: Mutex<Vec<Weak<GateShared>>>,
    origin: String,
    group_bytes_max: usize,
    batch: Mutex<Batch>,
    writer: Mutex<Writer>,
    spare: Mutex<Option<Spare>>,
    signer: Mutex<Signer>,
    publisher: Mutex<Publisher>,
    pub(crate) board: Arc<Board>,
    syncing: Mutex<()>,
    appended: AtomicU64,
    written: AtomicU64,
    durable: AtomicU64,
    sync_us: AtomicU64,
    no_space: AtomicBool,
    full: AtomicBool,
    /// Set when a writer waits for the spare segment.
    pub(crate) hurry: AtomicBool,
    failure: OnceLock<RecordError>,
    /// The data directory's lock, until the log is stopped: then nothing is written any more.
    lock: Mutex<Option<Box<dyn std::any::Any + Send + Sync>>>,
}

/// Entries that are not yet written. The bytes begin with room for the group's header.
struct Batch {
    bytes: Vec<u8>,
    hashes: Vec<Digest>,
    first: u64,
}

/// Where the next group goes.
pub(crate) struct Writer {
    pub(crate) segment: Arc<dyn DiskFile>,
    pub(crate) number: u64,
    pub(crate) salt: [u8; 16],
    pub(crate) length: u64,
    pub(crate) offset: u64,
    pub(crate) chain: Digest,
    pub(crate) frontier: Frontier,
    /// What the page at `offset` holds before `offset`.
    pub(crate) page: Vec<u8>,
    pub(crate) group: Vec<u8>,
    pub(crate) hashes: Vec<Digest>,
}

impl Writer {
    /// Writes the group as whole pages: what the first page holds already is written again, byte for byte, and the last
    /// is filled up with the zeros that it has. A write of parts of pages would read them back from the disk first
    /// whenever the system has dropped them from its cache.
    fn put_group(&mut self, total: u64) -> io::Result<()> {
        let begin = self.offset - u64::try_from(self.page.len()).unwrap_or(0);
        self.page.append(&mut self.group);
        let end = begin + u64::try_from(self.page.len()).unwrap_or(0);
        self.page.resize(self.page.len().next_multiple_of(PAGE_BYTES), 0);
        write_all(&*self.segment, &self.page, begin)?;
        self.offset += total;
        debug_assert!(end <= self.offset && self.offset <= begin + u64::try_from(self.page.len()).unwrap_or(0));
        let kept = usize::try_from(self.offset - begin).unwrap_or(0);
        let page_start = kept / PAGE_BYTES * PAGE_BYTES;
        self.page.truncate(kept);
        self.page.drain(..page_start);
        Ok(())
    }
}

fn stopped(what: &str, error: &io::Error) -> RecordError {
    RecordError::Stopped { why: format!("{what} failed: {error}").into() }
}

/// A segment that is filled with zeros and has no header yet.
pub(crate) struct Spare {
    pub(crate) file: Box<dyn DiskFile>,
    pub(crate) length: u64,
}

pub(crate) struct Signer {
    pub(crate) key: SigningKey,
    pub(crate) head: HeadRegister,
    pub(crate) signed: u64,
    /// What was signed last in this run, and its note.
    pub(crate) newest: Option<(Checkpoint, String)>,
}

/// How threads are told that there is work.
#[derive(Default)]
pub(crate) struct Signal {
    pub(crate) asks: Mutex<Asks>,
    /// Wakes the syncer.
    pub(crate) changed: Condvar,
    /// Wakes the keeper.
    pub(crate) keeper: Condvar,
    /// Wakes the signer.
    pub(crate) signer: Condvar,
    /// Wakes the publisher.
    pub(crate) publisher: Condvar,
    /// Something was appended since the syncer last looked.
    pub(crate) dirty: AtomicBool,
}

#[derive(Default)]
pub(crate) struct Asks {
    /// Someone waits for a sync.
    pub(crate) sync: bool,
    /// Something was appended.
    pub(crate) dirty: bool,
    /// A checkpoint was signed that is not published yet.
    pub(crate) publish: bool,
    /// The threads must end.
    pub(crate) quit: bool,
}

/// A lock is taken even if its last holder panicked: the data behind these locks is valid between any two statements
/// that could panic, and a gateway that cannot record because one session panicked would be worse.
pub(crate) fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(crate) const SPARE: &str = "log/spare";

pub(crate) struct Parts {
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) options: Options,
    pub(crate) random: Box<dyn Random>,
    pub(crate) keys: KeyPool,
    pub(crate) writer: Writer,
    pub(crate) signer: Signer,
    pub(crate) lock: Box<dyn std::any::Any + Send + Sync>,
}

impl Log {
    pub(crate) fn new(parts: Parts) -> Self {
        let next = parts.writer.frontier.size();
        let room = usize::try_from(parts.options.segment_bytes).unwrap_or(usize::MAX);
        let board = Arc::new(Board::default());
        let key = parts.signer.key.verifier();
        let publisher = Publisher::new(parts.disk.clone(), key, board.clone());
        Self {
            origin: parts.signer.key.verifier().name().to_owned(),
            group_bytes_max: GROUP_BYTES_MAX.min(room.saturating_sub(HEADER_BYTES)),
            batch: Mutex::new(Batch { bytes: vec![0; GROUP_HEADER_BYTES], hashes: Vec::new(), first: next }),
            disk: parts.disk,
            clock: parts.clock,
            options: parts.options,
            random: Mutex::new(parts.random),
            keys: Mutex::new(parts.keys),
            signal: Signal::default(),
            gates: Mutex::default(),
            writer: Mutex::new(parts.writer),
            spare: Mutex::new(None),
            signer: Mutex::new(parts.signer),
            publisher: Mutex::new(publisher),
            board,
            syncing: Mutex::new(()),
            appended: AtomicU64::new(next),
            written: AtomicU64::new(next),
            durable: AtomicU64::new(next),
            sync_us: AtomicU64::new(0),
            no_space: AtomicBool::new(false),
            full: AtomicBool::new(false),
            hurry: AtomicBool::new(false),
            failure: OnceLock::new(),
            lock: Mutex::new(Some(parts.lock)),
        }
    }

    /// Appends an entry to the group that is being collected. It is not safe yet, and may not even be written.
    pub(crate) fn append(&self, leaf: &[u8], hash: Digest, purpose: Purpose) -> Result<Position, RecordError> {
        if leaf.len() > LEAF_BYTES_MAX {
            return Err(RecordError::TooLong { bytes: leaf.len() });
        }
        let position = loop {
            self.check(purpose)?;
            let mut batch = lock(&self.batch);
            if padded(batch.bytes.len() + ENTRY_HEADER_BYTES + leaf.len()) <= self.group_bytes_max {
                let index = batch.first + u64::try_from(batch.hashes.len()).unwrap_or(u64::MAX);
                format::push_entry(&mut batch.bytes, leaf);
                batch.hashes.push(hash);
                self.appended.store(index + 1, SeqCst);
                break Position(index);
            }
            drop(batch);
            self.write();
        };
        if !self.signal.dirty.load(SeqCst) && !self.signal.dirty.swap(true, SeqCst) {
            lock(&self.signal.asks).dirty = true;
            self.signal.changed.notify_one();
        }
        Ok(position)
    }

    /// Appends an entry that belongs to no session; gives its place and its leaf hash.
    pub(crate) fn note(&self, body: Body, purpose: Purpose) -> Result<(Position, Digest), RecordError> {
        self.note_at(self.clock.now(), body, purpose)
    }

    /// As [`Log::note`], at this time, which is now.
    pub(crate) fn note_at(&self, time: Time, body: Body, purpose: Purpose) -> Result<(Position, Digest), RecordError> {
        let mut leaf = Vec::with_capacity(512);
        Entry { time, body }.encode(&mut leaf);
        let hash = leaf_hash(&leaf);
        Ok((self.append(&leaf, hash, purpose)?, hash))
    }

    /// Whether entries of this purpose are accepted.
    pub(crate) fn check(&self, purpose: Purpose) -> Result<(), RecordError> {
        match self.failure.get() {
            Some(failure) => Err(failure.clone()),
            None if purpose == Purpose::Begin && self.full.load(SeqCst) => Err(RecordError::Full),
            None => Ok(()),
        }
    }

    pub(crate) fn failure(&self) -> Option<&RecordError> {
        self.failure.get()
    }

    pub(crate) fn appended(&self) -> u64 {
        self.appended.load(SeqCst)
    }

    pub(crate) fn written(&self) -> u64 {
        self.written.load(SeqCst)
    }

    pub(crate) fn durable(&self) -> u64 {
        self.durable.load(SeqCst)
    }

    /// Whether syncs have lately been short enough to wait for inline.
    pub(crate) fn syncs_are_short(&self) -> bool {
        self.sync_us.load(SeqCst) < 1_000
    }

    /// Stops everything for good.
    pub(crate) fn fail(&self, what: &str, error: &io::Error) {
        self.stop(stopped(what, error));
    }

    pub(crate) fn stop(&self, why: RecordError) {
        let _ = self.failure.set(why);
        self.signal.changed.notify_one();
        self.wake_gates(None);
    }

    /// Lets another process have the data directory. Only after [`Log::stop`].
    pub(crate) fn release(&self) {
        // A write that began before the stop ends before the lock is given up.
        let _writer = lock(&self.writer);
        lock(&self.lock).take();
    }

    /// Writes what has been appended, as one group. After this, a crash of the process loses none of it.
    pub(crate) fn write(&self) {
        if self.written() == self.appended() {
            return;
        }
        let mut writer = lock(&self.writer);
        if let Err(error) = self.write_group(&mut writer) {
            let why = stopped("writing the log", &error);
            // While nobody else can have the writer: what it knows of the last page is no longer so, and whoever wrote
            // with it would write over what is there.
            let _ = self.failure.set(why.clone());
            drop(writer);
            self.stop(why);
        }
    }

    fn write_group(&self, writer: &mut Writer) -> io::Result<()> {
        if self.failure.get().is_some() {
            return Ok(());
        }
        let first = {
            let mut batch = lock(&self.batch);
            if batch.hashes.is_empty() {
                return Ok(());
            }
            writer.group.clear();
            writer.group.resize(GROUP_HEADER_BYTES, 0);
            writer.hashes.clear();
            let first = batch.first;
            batch.first += u64::try_from(batch.hashes.len()).unwrap_or(0);
            std::mem::swap(&mut batch.bytes, &mut writer.group);
            std::mem::swap(&mut batch.hashes, &mut writer.hashes);
            first
        };
        let total = u64::try_from(padded(writer.group.len())).unwrap_or(u64::MAX);
        if writer.offset + total > writer.length {
            self.next_segment(writer, first)?;
        }
        for hash in &writer.hashes {
            writer.frontier.append(*hash);
        }
        let header = GroupHeader {
            body_bytes: u32::try_from(writer.group.len() - GROUP_HEADER_BYTES).unwrap_or(u32::MAX),
            count: u32::try_from(writer.hashes.len()).unwrap_or(u32::MAX),
            first,
            durable: self.durable(),
            chain: format::chain(&writer.chain, &writer.hashes),
        };
        header.seal(&writer.salt, &mut writer.group);
        writer.put_group(total)?;
        writer.chain = header.chain;
        self.written.store(writer.frontier.size(), SeqCst);
        self.check_space(writer);
        Ok(())
    }

    /// When no further segment can be prepared, what is left is kept for the ends of running commands. So the next one has
    /// to be there before the last part of this one is touched: a disk that turns out to be full only at the end of the
    /// segment would leave no room for them.
    fn check_space(&self, writer: &Writer) {
        if writer.length - writer.offset >= self.options.reserve_bytes {
            return;
        }
        if !self.no_space.load(SeqCst) {
            self.hurry.store(true, SeqCst);
            let mut place = lock(&self.spare);
            self.hurry.store(false, SeqCst);
            if place.is_none() {
                self.fill(&mut place, None);
            }
        }
        if self.no_space.load(SeqCst) {
            self.full.store(true, SeqCst);
        }
    }

    /// Makes the next segment, or notes that it cannot be made.
    fn fill(&self, place: &mut Option<Spare>, hurry: Option<&AtomicBool>) {
        match make_spare(&*self.disk, self.options.segment_bytes, hurry) {
            Ok(made) => {
                *place = Some(made);
                self.no_space.store(false, SeqCst);
            }
            // Whatever the reason: without a spare, the room that is left must suffice for what is running.
            Err(_) => {
                // What was made of it takes room that others need.
                let _ = self.disk.remove(SPARE);
                self.no_space.store(true, SeqCst);
            }
        }
    }

    fn next_segment(&self, writer: &mut Writer, first: u64) -> io::Result<()> {
        // Everything in the old segment is durable before the new one exists: only the last segment can have an
        // unfinished end.
        writer.segment.sync()?;
        self.durable.fetch_max(self.written(), SeqCst);
        self.hurry.store(true, SeqCst);
        // Held until the spare has its new name: the keeper would otherwise see none, make another under the old name,
        // and that one would become the segment, while the entries go to a file without a name.
        let mut place = lock(&self.spare);
        self.hurry.store(false, SeqCst);
        let spare = match place.take() {
            Some(spare) => spare,
            None => make_spare(&*self.disk, self.options.segment_bytes, None)?,
        };
        let header = SegmentHeader {
            number: writer.number + 1,
            first,
            origin: format::origin_hash(&self.origin),
            salt: random(&mut **lock(&self.random))?,
            chain: writer.chain,
        };
        write_all(&*spare.file, &header.encode(), 0)?;
        spare.file.sync()?;
        self.disk.rename(SPARE, &segment_path(first))?;
        self.disk.sync_dir("log")?;
        drop(place);
        writer.segment = Arc::from(spare.file);
        writer.number += 1;
        writer.salt = header.salt;
        writer.length = spare.length;
        writer.offset = u64::try_from(HEADER_BYTES).unwrap_or(0);
        writer.page.clear();
        self.signal.keeper.notify_all();
        Ok(())
    }

    /// Makes what is written durable. Waits for a sync that is under way.
    pub(crate) fn sync(&self) {
        let guard = lock(&self.syncing);
        self.sync_holding(&guard);
    }

    /// As [`Log::sync`], unless a sync is under way.
    pub(crate) fn try_sync(&self) -> bool {
        let guard = match self.syncing.try_lock() {
            Ok(guard) => guard,
            Err(std::sync::TryLockError::Poisoned(guard)) => guard.into_inner(),
            Err(std::sync::TryLockError::WouldBlock) => return false,
        };
        self.sync_holding(&guard);
        true
    }

    fn sync_holding(&self, _syncing: &MutexGuard<'_, ()>) {
        let (segment, written) = {
            let writer = lock(&self.writer);
            (writer.segment.clone(), self.written())
        };
        if self.failure.get().is_some() || written <= self.durable() {
            return;
        }
        let began = Instant::now();
        match segment.sync() {
            Ok(()) => {
                let took = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX).min(1_000_000);
                self.sync_us.store((self.sync_us.load(SeqCst) * 7 + took) / 8, SeqCst);
                self.durable.fetch_max(written, SeqCst);
            }
            Err(error) => self.fail("syncing the log", &error),
        }
    }

    /// Tells gates with waiters, other than the given one, that something changed.
    pub(crate) fn wake_gates(&self, except: Option<&Arc<GateShared>>) {
        let mut gates = lock(&self.gates);
        gates.retain(|gate| match gate.upgrade() {
            Some(gate) => {
                if except.is_none_or(|except| !Arc::ptr_eq(&gate, except)) {
                    gate.wake_if_waiting();
                }
                true
            }
            None => false,
        });
    }

    /// Asks the syncer for a sync soon.
    pub(crate) fn ask_sync(&self) {
        lock(&self.signal.asks).sync = true;
        self.signal.changed.notify_one();
    }

    /// Whether the last try to make the next segment ready failed.
    pub(crate) fn lacks_space(&self) -> bool {
        self.no_space.load(SeqCst)
    }

    /// Makes the next segment ready, slowly, unless there is one.
    pub(crate) fn prepare_spare(&self) {
        let mut spare = lock(&self.spare);
        // Once new commands are refused they stay refused: only a restart makes another segment.
        if spare.is_some() || self.failure.get().is_some() || self.full.load(SeqCst) {
            return;
        }
        self.fill(&mut spare, Some(&self.hurry));
        drop(spare);
        if self.no_space.load(SeqCst) {
            let writer = lock(&self.writer);
            self.check_space(&writer);
        }
    }

    /// Makes more session keys ready, if few are left.
    pub(crate) fn prepare_keys(&self) {
        if self.failure.get().is_some() || !lock(&self.keys).is_low() {
            return;
        }
        let mut keys = lock(&self.keys);
        // A full disk only stops new sessions, when the last key is taken; other errors show there too.
        let _ = keys.refill(&mut **lock(&self.random));
    }

    /// How many entries are not signed.
    pub(crate) fn unsigned(&self) -> u64 {
        self.appended().saturating_sub(lock(&self.signer).signed)
    }

    /// Signs the log as it stands, if it has grown since the last time.
    pub(crate) fn checkpoint(&self) {
        let mut signer = lock(&self.signer);
        if self.appended() > signer.signed && self.failure.get().is_none() {
            self.sign(&mut signer);
        }
    }

    fn sign(&self, signer: &mut Signer) {
        self.write();
        let frontier = lock(&self.writer).frontier.clone();
        if self.durable() < frontier.size() {
            self.sync();
            self.wake_gates(None);
        }
        if self.failure.get().is_some() || self.durable() < frontier.size() {
            return;
        }
        let head = Head { size: frontier.size(), root: frontier.root() };
        if let Err(error) = signer.head.set(head) {
            return self.fail("writing the head register", &error);
        }
        let checkpoint = Checkpoint { origin: self.origin.clone(), size: head.size, root: head.root };
        let note = match checkpoint.sign(&signer.key) {
            Ok(note) => note,
            Err(error) => {
                return self.fail("signing a checkpoint", &io::Error::other(error.to_string()));
            }
        };
        match replace_file(&*self.disk, "", CHECKPOINT, note.as_bytes()) {
            Ok(()) => {
                signer.signed = head.size;
                signer.newest = Some((checkpoint, note));
                lock(&self.signal.asks).publish = true;
                self.signal.publisher.notify_one();
            }
            // Without space the old checkpoint stays, which is older and still right.
            Err(error) if is_no_space(&error) => {}
            Err(error) => self.fail("writing the checkpoint", &error),
        }
    }
}

impl Log {
    /// Publishes what was signed last. Not in any command's way: other threads read and write while this one works.
    pub(crate) fn publish(&self) {
        let newest = lock(&self.signer).newest.clone();
        if let Some((checkpoint, note)) = newest {
            lock(&self.publisher).publish(&checkpoint, &note);
        }
    }

    /// Says that here, with the log complete again, no session is open: from here on snapshots can be made.
    pub(crate) fn complete_at(&self, size: u64) {
        lock(&self.publisher).complete_at(size);
    }
}

pub(crate) fn is_no_space(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// Makes a file full of zeros. In steps with pauses if nobody is in a hurry, so that it does not stand in the way of
/// the syncs of the log.
pub(crate) fn make_spare(disk: &dyn Disk, length: u64, hurry: Option<&AtomicBool>) -> io::Result<Spare> {
    match disk.remove(SPARE) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let file = disk.open(SPARE, Mode::Create)?;
    let zeros = vec![0; usize::try_from(length.min(STEP_BYTES)).unwrap_or(0)];
    let mut offset = 0;
    while offset < length {
        let step = usize::try_from((length - offset).min(STEP_BYTES)).unwrap_or(0);
        write_all(&*file, zeros.get(..step).unwrap_or_default(), offset)?;
        offset += u64::try_from(step).unwrap_or(0);
        if hurry.is_some_and(|hurry| !hurry.load(SeqCst)) && offset < length {
            file.sync()?;
            std::thread::sleep(STEP_PAUSE);
        }
    }
    file.sync()?;
    Ok(Spare { file, length })
}

/// Segments are written in units of this; every file system's block is at most as long.
pub(crate) const PAGE_BYTES: usize = 4096;
const STEP_BYTES: u64 = 512 * 1024;
const STEP_PAUSE: Duration = Duration::from_millis(4);
