//! Content that is too long for an entry: packed, sealed in chunks, in a file that is named by the SHA-256 of what is in
//! it.
//!
//! Invariants: a blob is durable, under its name, before an entry can name it. Memory is bounded on both sides, whatever
//! is written and whatever is found: a reader takes no more content out of a blob than its entry says.

use std::io;
use std::sync::Arc;

use model::seal::{CHUNK_BYTES, ChunkOpener, ChunkSealer, FieldKey, Last, OpenError, TAG_BYTES, seal};
use model::{BlobField, BlobForm, Digest, Field, Packing, SessionId};
use sha2::{Digest as _, Sha256};

use crate::disk::{Disk, DiskFile, Mode, read_full, write_all};
use crate::error::RecordError;
use crate::pack::{Effort, Packer, Unpacker};

/// How much of a blob's beginning its entry has, sealed.
pub const HEAD_BYTES: usize = 4096;

const DIR: &str = "blobs";

/// Writes one blob. Dropped unfinished, it leaves nothing.
pub struct BlobWriter {
    disk: Arc<dyn Disk>,
    session: SessionId,
    number: u64,
    form: BlobForm,
    key: FieldKey,
    head_key: FieldKey,
    path: String,
    sink: Sink,
    packer: Packer,
    head: Vec<u8>,
    length: u64,
}

/// Where packed content goes: into chunks, sealed, into the file.
struct Sink {
    sealer: ChunkSealer,
    file: Box<dyn DiskFile>,
    chunk: Vec<u8>,
    offset: u64,
    hash: Sha256,
}

/// Reads a blob's content back, in order.
pub struct BlobReader {
    source: Source,
    unpacker: Option<Unpacker>,
    /// Content that is still to come.
    left: u64,
    content: Vec<u8>,
}

/// The chunks of a blob's file, opened.
struct Source {
    file: Box<dyn DiskFile>,
    opener: ChunkOpener,
    bytes: u64,
    offset: u64,
}

pub(crate) struct BlobKeys {
    /// The number of the blob's field; its head has the next one.
    pub(crate) number: u64,
    pub(crate) key: FieldKey,
    pub(crate) head_key: FieldKey,
}

impl BlobWriter {
    pub(crate) fn new(disk: Arc<dyn Disk>, session: SessionId, keys: BlobKeys) -> Result<Self, RecordError> {
        let path = format!("{DIR}/{session}-{}.new", keys.number);
        disk.create_dir(DIR).map_err(|e| failed("making the directory of blobs", &e))?;
        let file = disk.open(&path, Mode::Create).map_err(|e| failed("making a blob", &e))?;
        let sink = Sink {
            sealer: ChunkSealer::new(session, &keys.key, keys.number),
            file,
            chunk: Vec::with_capacity(CHUNK_BYTES + TAG_BYTES),
            offset: 0,
            hash: Sha256::new(),
        };
        Ok(Self {
            disk,
            session,
            number: keys.number,
            form: BlobForm::Message,
            key: keys.key,
            head_key: keys.head_key,
            path,
            sink,
            packer: Packer::new(Effort::Little),
            head: Vec::new(),
            length: 0,
        })
    }

    /// Says what the content is, before any of it is written; the body of a protocol message if nothing is said.
    #[must_use]
    pub fn form(mut self, form: BlobForm) -> Self {
        if form == BlobForm::Transcript {
            self.packer = Packer::new(Effort::More);
        }
        self.form = form;
        self
    }

    /// Appends content.
    ///
    /// # Errors
    /// The disk refused; only this blob's command is affected.
    pub fn write(&mut self, content: &[u8]) -> Result<(), RecordError> {
        self.length += u64::try_from(content.len()).unwrap_or(0);
        let missing = HEAD_BYTES.saturating_sub(self.head.len()).min(content.len());
        self.head.extend_from_slice(content.get(..missing).unwrap_or_default());
        self.packer.pack(content, &mut |packed| self.sink.put(packed)).map_err(|e| failed("writing a blob", &e))
    }

    /// Makes the blob durable and gives the field that names it, and a reader of its content.
    ///
    /// # Errors
    /// The disk refused; only this blob's command is affected.
    pub fn finish(mut self) -> Result<(Field, BlobReader), RecordError> {
        let packed = self.packer.finish(&mut |packed| self.sink.put(packed));
        let packing = packed.and_then(|packing| self.sink.seal_chunk(Last::Yes).map(|()| packing));
        let packing = packing.map_err(|e| failed("writing a blob", &e))?;
        let sha256 = Digest(std::mem::take(&mut self.sink.hash).finalize().into());
        self.sink.file.sync().map_err(|e| failed("syncing a blob", &e))?;
        let path = blob_path(&sha256);
        let dir = path.rsplit_once('/').map_or(DIR, |(dir, _)| dir).to_owned();
        let place = |disk: &dyn Disk| {
            disk.create_dir(&dir)?;
            disk.sync_dir(DIR)?;
            disk.sync_dir("")?;
            disk.rename(&self.path, &path)?;
            disk.sync_dir(&dir)
        };
        place(&*self.disk).map_err(|e| failed("naming a blob", &e))?;
        self.path.clear();
        let field = BlobField {
            number: self.number,
            length: self.length,
            commitment: self.sink.sealer.commitment(),
            sha256,
            bytes: self.sink.offset,
            form: self.form,
            packing,
            head: seal(self.session, &self.head_key, self.number + 1, &self.head),
        };
        let reader = BlobReader::open(&*self.disk, self.session, &self.key, &field)?;
        Ok((Field::Blob(field), reader))
    }
}

impl Sink {
    fn put(&mut self, mut content: &[u8]) -> io::Result<()> {
        while !content.is_empty() {
            // A full chunk is sealed only when more content comes: the last one is sealed differently.
            if self.chunk.len() == CHUNK_BYTES {
                self.seal_chunk(Last::No)?;
            }
            let room = (CHUNK_BYTES - self.chunk.len()).min(content.len());
            let (now, later) = content.split_at(room);
            self.chunk.extend_from_slice(now);
            content = later;
        }
        Ok(())
    }

    fn seal_chunk(&mut self, last: Last) -> io::Result<()> {
        self.sealer.seal(&mut self.chunk, last);
        self.hash.update(&self.chunk);
        write_all(&*self.file, &self.chunk, self.offset)?;
        self.offset += u64::try_from(self.chunk.len()).unwrap_or(0);
        self.chunk.clear();
        Ok(())
    }
}

impl Drop for BlobWriter {
    fn drop(&mut self) {
        if !self.path.is_empty() {
            // What cannot be removed now is removed at the next start.
            let _ = self.disk.remove(&self.path);
        }
    }
}

impl BlobReader {
    pub(crate) fn open(
        disk: &dyn Disk,
        session: SessionId,
        key: &FieldKey,
        blob: &BlobField,
    ) -> Result<Self, RecordError> {
        let opener = ChunkOpener::new(session, key, blob.number, blob.commitment)
            .map_err(|e| failed_open("reading a blob", e))?;
        let file = disk.open(&blob_path(&blob.sha256), Mode::Read).map_err(|e| failed("reading a blob", &e))?;
        Ok(Self {
            source: Source { file, opener, bytes: blob.bytes, offset: 0 },
            unpacker: blob.packing.map(|Packing::Deflate| Unpacker::new()),
            left: blob.length,
            content: Vec::new(),
        })
    }

    /// The next piece of the content, at most [`CHUNK_BYTES`] long; none at its end.
    ///
    /// # Errors
    /// The blob cannot be read, was altered, or has not as much content as its entry says.
    pub fn next_chunk(&mut self) -> Result<Option<&[u8]>, RecordError> {
        let more = match &mut self.unpacker {
            None => self.source.next(&mut self.content)?,
            Some(unpacker) => {
                // One byte more than the entry says is enough to see that there is more.
                let room = usize::try_from(self.left).unwrap_or(usize::MAX).clamp(1, CHUNK_BYTES);
                self.content.resize(room, 0);
                let source = &mut self.source;
                let count = unpacker.unpack(&mut self.content, &mut |input| source.next(input))?;
                self.content.truncate(count);
                count > 0
            }
        };
        let length = if more { u64::try_from(self.content.len()).unwrap_or(u64::MAX) } else { 0 };
        self.left = self.left.checked_sub(length).ok_or_else(|| wrong_length("more"))?;
        match (more, self.left) {
            (true, _) => Ok(Some(&self.content)),
            (false, 0) => Ok(None),
            (false, _) => Err(wrong_length("less")),
        }
    }
}

impl Source {
    /// Opens the next chunk; false at the end.
    fn next(&mut self, chunk: &mut Vec<u8>) -> Result<bool, RecordError> {
        let left = self.bytes.saturating_sub(self.offset);
        if left == 0 {
            return Ok(false);
        }
        let full = u64::try_from(CHUNK_BYTES + TAG_BYTES).unwrap_or(u64::MAX);
        let take = left.min(full);
        let last = if take == left { Last::Yes } else { Last::No };
        chunk.resize(usize::try_from(take).unwrap_or(0), 0);
        let count = read_full(&*self.file, chunk, self.offset).map_err(|e| failed("reading a blob", &e))?;
        chunk.truncate(count);
        self.offset += take;
        self.opener.open(chunk, last).map_err(|e| failed_open("reading a blob", e))?;
        Ok(true)
    }
}

/// Why a blob is not what an entry names.
pub(crate) enum Bad {
    /// It is not there.
    Missing(String),
    /// It is something else, or cannot be read.
    Wrong(String),
}

/// Checks a blob's bytes against its name.
pub(crate) fn check(disk: &dyn Disk, blob: &BlobField) -> Result<(), Bad> {
    let read = || -> io::Result<(u64, Digest)> {
        let file = disk.open(&blob_path(&blob.sha256), Mode::Read)?;
        let (mut hash, mut offset, mut buffer) = (Sha256::new(), 0, vec![0; CHUNK_BYTES]);
        loop {
            let count = read_full(&*file, &mut buffer, offset)?;
            hash.update(buffer.get(..count).unwrap_or_default());
            offset += u64::try_from(count).unwrap_or(0);
            if count < buffer.len() {
                return Ok((offset, Digest(hash.finalize().into())));
            }
        }
    };
    match read() {
        Ok((bytes, digest)) if bytes == blob.bytes && digest == blob.sha256 => Ok(()),
        Ok(_) => Err(Bad::Wrong(format!("{} is not the content that the entry names", blob_path(&blob.sha256)))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Err(Bad::Missing(format!("{} is not there, and nothing says that it was erased", blob_path(&blob.sha256))))
        }
        Err(error) => Err(Bad::Wrong(format!("{}: {error}", blob_path(&blob.sha256)))),
    }
}

/// Removes what an earlier run left unfinished.
pub(crate) fn clean(disk: &dyn Disk) -> io::Result<()> {
    let names = match disk.list(DIR) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        names => names?,
    };
    for name in names.iter().filter(|name| name.ends_with(".new")) {
        disk.remove(&format!("{DIR}/{name}"))?;
    }
    Ok(())
}

pub(crate) fn blob_path(sha256: &Digest) -> String {
    let hex = sha256.hex();
    format!("{DIR}/{}/{hex}", hex.get(..2).unwrap_or_default())
}

fn failed(what: &str, error: &io::Error) -> RecordError {
    RecordError::Blob { why: format!("{what} failed: {error}").into() }
}

fn wrong_length(than: &str) -> RecordError {
    RecordError::Blob { why: format!("reading a blob failed: it has {than} content than its entry says").into() }
}

fn failed_open(what: &str, error: OpenError) -> RecordError {
    RecordError::Blob { why: format!("{what} failed: {error}").into() }
}
