//! Reads a log, also while a gateway writes it: entries in order, and the content that they seal.
//!
//! Nothing is written and no lock is taken. Content opens for those who may read `keys/`.

use std::collections::{HashMap, VecDeque};
use std::path::Path;
use std::sync::{Arc, Mutex};

use ledger::VerifierKey;
use model::seal::{FieldKey, SessionKey, open};
use model::{AbsentReason, BlobField, Body, Digest, Entry, Field, Kind, Peek, SealedField, SessionId, SessionOpen};

use crate::blob::{BlobReader, blob_path};
use crate::disk::{Disk, RealDisk, read_file};
use crate::error::{RecordError, StoreError};
use crate::keys::{self, KeyTable, Slot};
use crate::log::lock;
use crate::walk::{Step, Tail, Walk};

/// Blobs whose content is at most this long are opened whole; of longer ones, [`Opened::Blob`] has the beginning.
pub const OPENED_BYTES_MAX: u64 = 1 << 20;

/// A log, for reading. Clones share what they have learnt about sessions.
#[derive(Clone)]
pub struct Reader {
    disk: Arc<dyn Disk>,
    vkey: VerifierKey,
    keys: Option<Arc<KeyTable>>,
    sessions: Arc<Mutex<Sessions>>,
}

/// Where the keys of sessions are, as far as the log has been read for that.
#[derive(Default)]
struct Sessions {
    slots: HashMap<SessionId, (u64, Digest)>,
    read: u64,
}

/// An entry as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// Its place in the log.
    pub index: u64,
    /// Its bytes: what the tree is made of.
    pub leaf: Vec<u8>,
    /// Its hash in the tree.
    pub hash: Digest,
    /// What it says.
    pub entry: Entry,
}

/// Sensitive content, as far as it can be opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Opened {
    /// The content.
    Bytes(Vec<u8>),
    /// The beginning of content that is longer than [`OPENED_BYTES_MAX`].
    Blob {
        /// The first bytes.
        head: Vec<u8>,
        /// How many there are in all.
        length: u64,
        /// The blob's name.
        sha256: Digest,
    },
    /// There is none.
    Absent(AbsentReason),
    /// The session's key was destroyed, and the content with it.
    Erased,
    /// The keys cannot be read here.
    NoKey,
    /// The content is not what was recorded, or its blob is gone.
    Damaged,
}

impl Opened {
    /// The content as text, for people: the beginning, if it is long.
    #[must_use]
    pub fn text(&self) -> Option<std::borrow::Cow<'_, str>> {
        match self {
            Self::Bytes(bytes) | Self::Blob { head: bytes, .. } => Some(String::from_utf8_lossy(bytes)),
            Self::Absent(_) | Self::Erased | Self::NoKey | Self::Damaged => None,
        }
    }
}

impl Reader {
    /// Opens the log in a directory.
    ///
    /// # Errors
    /// There is no log, or it cannot be read.
    pub fn open(dir: &Path) -> Result<Self, StoreError> {
        Self::on(Arc::new(RealDisk::new(dir)))
    }

    /// Opens the log on any disk.
    ///
    /// # Errors
    /// As [`Reader::open`].
    pub fn on(disk: Arc<dyn Disk>) -> Result<Self, StoreError> {
        let vkey = keys::verifier_key(&*disk)?;
        if crate::walk::list(&*disk)?.is_empty() {
            return Err(StoreError::NoLog);
        }
        // Without the keys, everything but the sensitive content can be read.
        let keys = KeyTable::open(&disk).ok().map(Arc::new);
        Ok(Self { disk, vkey, keys, sessions: Arc::default() })
    }

    /// The log's public key, as the data directory has it.
    #[must_use]
    pub fn vkey(&self) -> &VerifierKey {
        &self.vkey
    }

    /// Whether sensitive content can be opened here.
    #[must_use]
    pub fn has_keys(&self) -> bool {
        self.keys.is_some()
    }

    /// The entries from this index on, to the end of the log as it is now. To follow a growing log, ask again from the
    /// index after the last.
    #[must_use]
    pub fn entries(&self, from: u64) -> Entries {
        Entries { disk: self.disk.clone(), from, walk: None, ready: VecDeque::new(), done: false }
    }

    /// Opens sensitive content of a session's entry.
    ///
    /// # Errors
    /// The session is not in the log, or the log cannot be read.
    pub fn open_field(&self, session: SessionId, field: &Field) -> Result<Opened, StoreError> {
        let sealed = match field {
            Field::Absent(reason) => return Ok(Opened::Absent(*reason)),
            Field::Sealed(sealed) => sealed,
            Field::Blob(blob) => &blob.head,
        };
        let key = match self.session_key(session)? {
            Ok(key) => key,
            Err(why) => return Ok(why),
        };
        Ok(match field {
            Field::Blob(blob) if blob.length <= OPENED_BYTES_MAX => {
                self.read_blob(session, &key, blob).map_or(Opened::Damaged, Opened::Bytes)
            }
            Field::Blob(blob) => opened(session, &key, sealed).map_or(Opened::Damaged, |head| Opened::Blob {
                head,
                length: blob.length,
                sha256: blob.sha256,
            }),
            Field::Sealed(_) | Field::Absent(_) => opened(session, &key, sealed).map_or(Opened::Damaged, Opened::Bytes),
        })
    }

    /// The content of a blob, to be read piece by piece; none if the session's key is not to be had.
    ///
    /// # Errors
    /// The session is not in the log, or the log or the blob cannot be read.
    pub fn open_blob(&self, session: SessionId, blob: &BlobField) -> Result<Option<BlobReader>, StoreError> {
        match self.session_key(session)? {
            Ok(key) => Ok(Some(BlobReader::open(&*self.disk, session, &key.field(blob.number), blob)?)),
            Err(_) => Ok(None),
        }
    }

    /// The key that opens one field and nothing else, to be given to someone who may see just that.
    ///
    /// # Errors
    /// The session is not in the log, or the log cannot be read.
    pub fn reveal(&self, session: SessionId, field_number: u64) -> Result<Option<FieldKey>, StoreError> {
        Ok(self.session_key(session)?.ok().map(|key| key.field(field_number)))
    }

    /// A blob as it is stored, sealed, to be given to someone with or without its key.
    ///
    /// # Errors
    /// It is not there, or cannot be read.
    pub fn sealed_blob(&self, blob: &BlobField) -> Result<Vec<u8>, StoreError> {
        let path = blob_path(&blob.sha256);
        read_file(&*self.disk, &path, blob.bytes).map_err(StoreError::disk(format!("reading {path}")))
    }

    fn read_blob(&self, session: SessionId, key: &SessionKey, blob: &BlobField) -> Result<Vec<u8>, RecordError> {
        let mut reader = BlobReader::open(&*self.disk, session, &key.field(blob.number), blob)?;
        let mut content = Vec::new();
        while let Some(chunk) = reader.next_chunk()? {
            content.extend_from_slice(chunk);
        }
        Ok(content)
    }

    fn session_key(&self, session: SessionId) -> Result<Result<SessionKey, Opened>, StoreError> {
        let Some(keys) = &self.keys else {
            return Ok(Err(Opened::NoKey));
        };
        let (slot, commitment) = self.slot(session)?;
        Ok(match keys.read(slot).map_err(StoreError::disk("reading session keys"))? {
            Slot::Key(key) if key.commitment(session) == commitment => Ok(key),
            Slot::Key(_) => Err(Opened::Damaged),
            Slot::Erased => Err(Opened::Erased),
            Slot::Missing => Err(Opened::NoKey),
        })
    }

    /// Finds the session's first entry, which says where its key is.
    fn slot(&self, session: SessionId) -> Result<(u64, Digest), StoreError> {
        let mut sessions = lock(&self.sessions);
        if !sessions.slots.contains_key(&session) {
            let mut walk = Walk::new(self.disk.clone(), sessions.read, Tail::Live)?;
            while let Step::Group(group) | Step::Altered(_, group) = walk.step()? {
                for (index, _, leaf) in group.entries() {
                    if Peek::new(leaf).is_some_and(|peek| peek.kind == Kind::SessionOpen)
                        && let Ok(Entry { body: Body::SessionOpen(open), .. }) = Entry::decode(leaf)
                    {
                        sessions.learn(&open);
                    }
                    sessions.read = sessions.read.max(index + 1);
                }
            }
        }
        sessions.slots.get(&session).copied().ok_or(StoreError::NoSession(session))
    }

    /// Remembers where a session's key is, so that the log need not be read for it again.
    pub(crate) fn learn(&self, open: &SessionOpen) {
        lock(&self.sessions).learn(open);
    }
}

impl Sessions {
    fn learn(&mut self, open: &SessionOpen) {
        self.slots.insert(open.link.session, (open.key_slot, open.key_commitment));
    }
}

fn opened(session: SessionId, key: &SessionKey, sealed: &SealedField) -> Option<Vec<u8>> {
    open(session, &key.field(sealed.number), sealed).ok()
}

/// An iterator over entries; see [`Reader::entries`]. After an error it ends.
pub struct Entries {
    disk: Arc<dyn Disk>,
    from: u64,
    walk: Option<Walk>,
    ready: VecDeque<(u64, Vec<u8>, Digest)>,
    done: bool,
}

impl Entries {
    fn fill(&mut self) -> Result<(), StoreError> {
        let mut walk = match self.walk.take() {
            Some(walk) => walk,
            None => Walk::new(self.disk.clone(), self.from, Tail::Live)?,
        };
        while self.ready.is_empty() {
            match walk.step()? {
                Step::Group(group) => {
                    let entries = group.entries().zip(&group.hashes);
                    let wanted = entries.filter(|((index, _, _), _)| *index >= self.from);
                    self.ready.extend(wanted.map(|((index, _, leaf), hash)| (index, leaf.to_vec(), *hash)));
                }
                Step::Altered(damage, _) | Step::Damaged(damage) => return Err(damage.into()),
                Step::End(_) => {
                    self.done = true;
                    break;
                }
            }
        }
        self.walk = Some(walk);
        Ok(())
    }
}

impl Iterator for Entries {
    type Item = Result<Stored, StoreError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ready.is_empty()
            && !self.done
            && let Err(error) = self.fill()
        {
            self.done = true;
            return Some(Err(error));
        }
        let (index, leaf, hash) = self.ready.pop_front()?;
        Some(match Entry::decode(&leaf) {
            Ok(entry) => Ok(Stored { index, leaf, hash, entry }),
            Err(source) => {
                self.done = true;
                self.ready.clear();
                Err(StoreError::Entry { index, source })
            }
        })
    }
}
