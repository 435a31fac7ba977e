//! Content that is too long for an entry: sealed in chunks, in a file that is named by the SHA-256 of what is in it.
//!
//! A blob is durable, under its name, before an entry can name it.

use std::io;
use std::sync::Arc;

use model::seal::{CHUNK_BYTES, ChunkOpener, ChunkSealer, FieldKey, Last, OpenError, TAG_BYTES, seal};
use model::{BlobField, BlobForm, Digest, Field, SessionId};
use sha2::{Digest as _, Sha256};

use crate::disk::{Disk, DiskFile, Mode, read_full, write_all};
use crate::error::RecordError;

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
    sealer: ChunkSealer,
    path: String,
    file: Option<Box<dyn DiskFile>>,
    chunk: Vec<u8>,
    head: Vec<u8>,
    length: u64,
    offset: u64,
    hash: Sha256,
}

/// Reads a blob's content back, in order.
pub struct BlobReader {
    file: Box<dyn DiskFile>,
    opener: ChunkOpener,
    bytes: u64,
    offset: u64,
    chunk: Vec<u8>,
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
        Ok(Self {
            disk,
            session,
            number: keys.number,
            form: BlobForm::Message,
            sealer: ChunkSealer::new(session, &keys.key, keys.number),
            key: keys.key,
            head_key: keys.head_key,
            path,
            file: Some(file),
            chunk: Vec::with_capacity(CHUNK_BYTES + TAG_BYTES),
            head: Vec::new(),
            length: 0,
            offset: 0,
            hash: Sha256::new(),
        })
    }

    /// Says what the content is; the body of a protocol message if nothing is said.
    #[must_use]
    pub fn form(mut self, form: BlobForm) -> Self {
        self.form = form;
        self
    }

    /// Appends content.
    ///
    /// # Errors
    /// The disk refused; only this blob's command is affected.
    pub fn write(&mut self, mut content: &[u8]) -> Result<(), RecordError> {
        self.length += u64::try_from(content.len()).unwrap_or(0);
        let missing = HEAD_BYTES.saturating_sub(self.head.len()).min(content.len());
        self.head.extend_from_slice(content.get(..missing).unwrap_or_default());
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

    /// Makes the blob durable and gives the field that names it, and a reader of its content.
    ///
    /// # Errors
    /// The disk refused; only this blob's command is affected.
    pub fn finish(mut self) -> Result<(Field, BlobReader), RecordError> {
        self.seal_chunk(Last::Yes)?;
        let sha256 = Digest(std::mem::take(&mut self.hash).finalize().into());
        let Some(file) = self.file.take() else {
            return Err(failed("writing a blob", &io::ErrorKind::Other.into()));
        };
        file.sync().map_err(|e| failed("syncing a blob", &e))?;
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
            commitment: self.sealer.commitment(),
            sha256,
            bytes: self.offset,
            form: self.form,
            packing: None,
            head: seal(self.session, &self.head_key, self.number + 1, &self.head),
        };
        let opener = ChunkOpener::new(self.session, &self.key, self.number, field.commitment)
            .map_err(|e| failed_open("reading a blob", e))?;
        let reader = BlobReader { file, opener, bytes: field.bytes, offset: 0, chunk: Vec::new() };
        Ok((Field::Blob(field), reader))
    }

    fn seal_chunk(&mut self, last: Last) -> Result<(), RecordError> {
        self.sealer.seal(&mut self.chunk, last);
        self.hash.update(&self.chunk);
        let Some(file) = &self.file else {
            return Err(failed("writing a blob", &io::ErrorKind::Other.into()));
        };
        write_all(&**file, &self.chunk, self.offset).map_err(|e| failed("writing a blob", &e))?;
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
        Ok(Self { file, opener, bytes: blob.bytes, offset: 0, chunk: Vec::new() })
    }

    /// The next piece of the content; none at its end.
    ///
    /// # Errors
    /// The blob cannot be read or was altered.
    pub fn next_chunk(&mut self) -> Result<Option<&[u8]>, RecordError> {
        let left = self.bytes - self.offset;
        if left == 0 {
            return Ok(None);
        }
        let full = u64::try_from(CHUNK_BYTES + TAG_BYTES).unwrap_or(u64::MAX);
        let take = left.min(full);
        let last = if take == left { Last::Yes } else { Last::No };
        self.chunk.resize(usize::try_from(take).unwrap_or(0), 0);
        let count = read_full(&*self.file, &mut self.chunk, self.offset).map_err(|e| failed("reading a blob", &e))?;
        self.chunk.truncate(count);
        self.offset += take;
        self.opener.open(&mut self.chunk, last).map_err(|e| failed_open("reading a blob", e))?;
        Ok(Some(&self.chunk))
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

fn failed_open(what: &str, error: OpenError) -> RecordError {
    RecordError::Blob { why: format!("{what} failed: {error}").into() }
}
