//! Where sessions end in the log: what finds a receipt without reading the whole log.
//!
//! `receipts/sessions` has one record for each end of a session, in the order of the log; `receipts/next` says up to
//! which entry it is complete. Both are derived: they can be removed, and are made again. They are synced only once in a
//! while, and never trusted: what a record points at is looked at before anything is handed out.

use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use ledger::{TlogProof, VerifierKey, prove_inclusion};
use model::SessionId;
use sha2::{Digest as _, Sha256};
use store::{Disk, DiskFile, Mode, Published, RealDisk, Recorder, StoreError, read_file, replace_file, write_all};

use crate::receipt::Receipt;
use crate::{lock, tiles};

pub(crate) const DIR: &str = "receipts";
const SESSIONS: &str = "receipts/sessions";
const NEXT: &str = "next";
const HEADER_BYTES: u64 = 24;
const RECORD_BYTES: u64 = 24;
/// Records that are read at a time.
const BLOCK_RECORDS: u64 = 2048;
/// How often what was found is made durable. What a crash takes is found again.
const SAVE_INTERVAL: Duration = Duration::from_secs(60);
/// How long the follower waits for a checkpoint before it looks whether it is to stop.
const WAIT: Duration = Duration::from_millis(250);

/// The ends of sessions of a published log.
pub struct Closes {
    published: Published,
    disk: Arc<dyn Disk>,
    tag: [u8; 16],
    known: Mutex<Known>,
}

struct Known {
    file: Option<Box<dyn DiskFile>>,
    records: u64,
    /// The first entry that was not looked at.
    next: u64,
    saved: Instant,
}

impl Closes {
    /// Opens what is known of the log in a data directory. Nothing is written before [`Closes::advance`].
    #[must_use]
    pub fn open_dir(data: &Path, key: &VerifierKey) -> Self {
        Self::open(Arc::new(RealDisk::new(data)), key)
    }

    /// As [`Closes::open_dir`], on any disk.
    #[must_use]
    pub fn open(disk: Arc<dyn Disk>, key: &VerifierKey) -> Self {
        let mut tag = [0; 16];
        tag.iter_mut().zip(Sha256::digest(key.to_string())).for_each(|(to, from)| *to = from);
        let known = match read_known(&*disk, &tag) {
            Ok(Some(known)) => known,
            // What cannot be read is made anew.
            Ok(None) | Err(_) => Known { file: None, records: 0, next: 0, saved: Instant::now() },
        };
        Self { published: Published::open(disk.clone()), disk, tag, known: Mutex::new(known) }
    }

    /// Looks through what was published since. One caller at a time, and only the one that has the data directory.
    ///
    /// # Errors
    /// The log cannot be read, or the disk refused.
    pub fn advance(&self) -> Result<(), StoreError> {
        let size = tiles::published_size(&self.published)?;
        loop {
            let next = lock(&self.known).next;
            if next >= size {
                return Ok(());
            }
            let (end, found) = self.scan(next, size)?;
            self.append(&found, end).map_err(disk_error("writing receipts/sessions"))?;
        }
    }

    /// Makes what was found durable.
    ///
    /// # Errors
    /// The disk refused.
    pub fn save(&self) -> Result<(), StoreError> {
        let mut known = lock(&self.known);
        if let Some(file) = &known.file {
            file.sync().map_err(disk_error("writing receipts/sessions"))?;
            let text = format!("{}\n", known.next);
            replace_file(&*self.disk, DIR, NEXT, text.as_bytes()).map_err(disk_error("writing receipts/next"))?;
        }
        known.saved = Instant::now();
        Ok(())
    }

    /// The receipt of a session; none if it has not ended in the published log.
    ///
    /// # Errors
    /// The log cannot be read.
    pub fn receipt(&self, session: SessionId) -> Result<Option<Receipt>, StoreError> {
        match self.find(session)? {
            Some(index) => self.receipt_at(index),
            None => Ok(None),
        }
    }

    /// The receipt of the session that this entry ends, with the newest cosigned checkpoint that has the entry, else the
    /// newest. None if it does not end a session.
    pub(crate) fn receipt_at(&self, index: u64) -> Result<Option<Receipt>, StoreError> {
        let has = |note: &String| tiles::size_of(note).is_some_and(|size| size > index);
        let note = match self.published.cosigned()?.filter(has) {
            Some(note) => Some(note),
            None => self.published.checkpoint()?.filter(has),
        };
        let Some((size, note)) = note.and_then(|note| Some((tiles::size_of(&note)?, note))) else {
            return Ok(None);
        };
        let Some(leaf) = tiles::entry(&self.published, index, size)? else { return Ok(None) };
        let hashes = prove_inclusion(&mut tiles::nodes(&self.published, size), index, size)?;
        let proof = TlogProof { index, hashes, checkpoint: note, extra: Some(leaf.to_vec()) };
        Ok(Receipt::new(proof).ok())
    }

    /// The published log.
    pub(crate) fn published(&self) -> &Published {
        &self.published
    }

    fn find(&self, session: SessionId) -> Result<Option<u64>, StoreError> {
        let size = tiles::published_size(&self.published)?;
        // Held while the file is read: many who ask at once read one after the other.
        let known = lock(&self.known);
        if let Some(file) = &known.file {
            for index in of_session(&**file, known.records, session).map_err(disk_error("reading receipts/sessions"))? {
                let leaf = if index < size { tiles::entry(&self.published, index, size)? } else { None };
                if leaf.is_some_and(|leaf| tiles::closed_session(&leaf) == Some(session)) {
                    return Ok(Some(index));
                }
            }
        }
        let mut next = known.next;
        drop(known);
        while next < size {
            let (end, found) = self.scan(next, size)?;
            if let Some((_, index)) = found.into_iter().find(|(found, _)| *found == session) {
                return Ok(Some(index));
            }
            next = end;
        }
        Ok(None)
    }

    /// The ends of sessions in the bundle that has this entry, from it on, and the first entry after them.
    pub(crate) fn scan(&self, from: u64, size: u64) -> Result<(u64, Vec<(SessionId, u64)>), StoreError> {
        let number = from / ledger::TILE_WIDTH;
        let first = number * ledger::TILE_WIDTH;
        let entries = tiles::bundle(&self.published, number, size)?;
        let end = first + u64::try_from(entries.len()).unwrap_or(0);
        if end <= from {
            return Err(StoreError::Malformed { file: "tiles".into(), what: format!("entry {from} is not there") });
        }
        let entries = (first..).zip(entries).filter(|(index, _)| *index >= from);
        let found = entries.filter_map(|(index, leaf)| Some((tiles::closed_session(&leaf)?, index)));
        Ok((end, found.collect()))
    }

    fn append(&self, found: &[(SessionId, u64)], next: u64) -> io::Result<()> {
        let mut known = lock(&self.known);
        if known.file.is_none() {
            known.file = Some(self.create()?);
        }
        let mut bytes = Vec::new();
        for (session, index) in found {
            bytes.extend_from_slice(&session.to_bytes());
            bytes.extend_from_slice(&index.to_be_bytes());
        }
        if let Some(file) = &known.file {
            write_all(&**file, &bytes, HEADER_BYTES + known.records * RECORD_BYTES)?;
        }
        known.records += u64::try_from(found.len()).unwrap_or(0);
        known.next = next;
        Ok(())
    }

    fn create(&self) -> io::Result<Box<dyn DiskFile>> {
        self.disk.create_dir(DIR)?;
        for old in [format!("{DIR}/{NEXT}"), SESSIONS.to_owned()] {
            match self.disk.remove(&old) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        let file = self.disk.open(SESSIONS, Mode::Create)?;
        let mut header = b"receipt1".to_vec();
        header.extend_from_slice(&self.tag);
        write_all(&*file, &header, 0)?;
        Ok(file)
    }
}

fn read_known(disk: &dyn Disk, tag: &[u8; 16]) -> io::Result<Option<Known>> {
    let next = String::from_utf8(read_file(disk, &format!("{DIR}/{NEXT}"), 64)?).unwrap_or_default();
    let Ok(next) = next.trim_end().parse() else { return Ok(None) };
    // Readers without the right to write read as well.
    let file = match disk.open(SESSIONS, Mode::Write) {
        Ok(file) => file,
        Err(_) => disk.open(SESSIONS, Mode::Read)?,
    };
    let mut header = [0; 24];
    file.read_at(&mut header, 0)?;
    let (name, found) = header.split_at(8);
    if name != b"receipt1" || found != tag {
        return Ok(None);
    }
    let mut records = file.len()?.saturating_sub(HEADER_BYTES) / RECORD_BYTES;
    // Beyond `next` are records that were written and not saved: they will be written again.
    while let Some(last) = records.checked_sub(1) {
        let mut record = [0; 24];
        file.read_at(&mut record, HEADER_BYTES + last * RECORD_BYTES)?;
        if parse(&record).is_some_and(|(_, index)| index < next) {
            break;
        }
        records = last;
    }
    Ok(Some(Known { file: Some(file), records, next, saved: Instant::now() }))
}

/// What the records say of a session, the newest first.
fn of_session(file: &dyn DiskFile, mut records: u64, session: SessionId) -> io::Result<Vec<u64>> {
    let mut found = Vec::new();
    while records > 0 {
        let count = records.min(BLOCK_RECORDS);
        records -= count;
        let mut block = vec![0; usize::try_from(count * RECORD_BYTES).unwrap_or(0)];
        let length = file.read_at(&mut block, HEADER_BYTES + records * RECORD_BYTES)?;
        let (block, _) = block.get(..length).unwrap_or_default().as_chunks::<24>();
        let matching = block.iter().rev().filter_map(parse).filter(|(id, _)| *id == session);
        found.extend(matching.map(|(_, index)| index));
        if !found.is_empty() {
            break;
        }
    }
    Ok(found)
}

fn parse(record: &[u8; 24]) -> Option<(SessionId, u64)> {
    let (session, index) = record.split_first_chunk::<16>()?;
    Some((SessionId::from_bytes(*session), u64::from_be_bytes(*index.first_chunk()?)))
}

fn disk_error(what: &'static str) -> impl FnOnce(io::Error) -> StoreError {
    move |source| StoreError::Disk { what: what.to_owned(), source }
}

/// The thread that keeps [`Closes`] up to date. It ends when this is dropped.
pub struct Follower {
    quit: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Follower {
    /// Begins to follow.
    ///
    /// # Errors
    /// There can be no thread.
    pub fn start(recorder: Recorder, closes: Arc<Closes>) -> io::Result<Self> {
        let quit = Arc::new(AtomicBool::new(false));
        let told = quit.clone();
        let work = move || follow(&recorder, &closes, &told);
        let thread = std::thread::Builder::new().name("publish-closes".to_owned()).spawn(work)?;
        Ok(Self { quit, thread: Some(thread) })
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.quit.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn follow(recorder: &Recorder, closes: &Closes, quit: &AtomicBool) {
    let mut seen = 0;
    let mut said = String::new();
    while !quit.load(Ordering::SeqCst) {
        let Some((size, _)) = recorder.wait_checkpoint(seen, WAIT) else { continue };
        seen = size;
        let due = lock(&closes.known).saved.elapsed() >= SAVE_INTERVAL;
        let done = closes.advance().and_then(|()| if due { closes.save() } else { Ok(()) });
        if let Err(error) = done
            && said != error.to_string()
        {
            said = error.to_string();
            tracing::warn!("receipts are found slowly for now: {said}");
        }
    }
    let _ = closes.save();
}
