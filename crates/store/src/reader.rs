//! Reads a log, also while a gateway writes it: entries in order, and the content that they seal.
//!
//! Nothing is written and no lock is taken. Content opens for those who may read `keys/`.

use std::collections::{HashMap, VecDeque};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};

use ledger::VerifierKey;
use model::seal::{FieldKey, open};
use model::{
    AbsentReason, Actor, BlobField, Body, Digest, Entry, Erase, EraseCause, Field, Kind, Peek, SealedField, SessionId,
    SessionOpen, Time,
};

use crate::approvals::KnownApprovals;
use crate::blob::{BlobReader, blob_path};
use crate::disk::{Disk, RealDisk, read_file};
use crate::error::{RecordError, StoreError};
use crate::keys::{self, KeyTable, Slot};
use crate::log::lock;
use crate::walk::{Step, Tail, Walk};
use crate::wrapping::WrappingKey;

/// Blobs whose content is at most this long are opened whole; of longer ones, [`Opened::Blob`] has the beginning.
pub const OPENED_BYTES_MAX: u64 = 1 << 20;

/// A log, for reading. Clones share what they have learnt about sessions and approvals.
#[derive(Clone)]
pub struct Reader {
    disk: Arc<dyn Disk>,
    vkey: VerifierKey,
    keys: Result<Arc<KeyTable>, Arc<str>>,
    sessions: Arc<Mutex<Sessions>>,
    approvals: Arc<Mutex<KnownApprovals>>,
}

/// Where the keys of sessions are and which were erased, as far as the log has been read for that.
#[derive(Default)]
struct Sessions {
    slots: HashMap<SessionId, (u64, Digest)>,
    read: u64,
    erasures: HashMap<SessionId, Vec<Arc<Erasure>>>,
    /// How far the log has been read for erasures: later than for keys, because most readers meet none.
    read_erasures: u64,
}

/// That content was erased: when, by whom and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Erasure {
    /// The index of the entry that says so.
    pub index: u64,
    /// When it was recorded.
    pub time: Time,
    /// The fields, by their numbers in the session; none for all of them.
    pub fields: Option<Arc<[u64]>>,
    /// Why.
    pub cause: EraseCause,
    /// The rule that asked for it, or the reason that a person gave.
    pub reason: Arc<str>,
    /// Who did it.
    pub by: Arc<Actor>,
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
    /// Its key was destroyed, and the content with it: when, by whom and why, as far as the log says.
    Erased(Option<Arc<Erasure>>),
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
            Self::Absent(_) | Self::Erased(_) | Self::NoKey | Self::Damaged => None,
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
        Self::with(disk, None)
    }

    /// Opens the log on any disk, with the key that wraps its seal key. With another one, or none where there should be
    /// one, everything but the sensitive content can be read: see [`Reader::no_keys`].
    ///
    /// # Errors
    /// As [`Reader::open`].
    pub fn with(disk: Arc<dyn Disk>, wrapping: Option<&dyn WrappingKey>) -> Result<Self, StoreError> {
        let vkey = keys::verifier_key(&*disk)?;
        if crate::walk::list(&*disk)?.is_empty() {
            return Err(StoreError::NoLog);
        }
        // Without the keys, everything but the sensitive content can be read.
        let keys = KeyTable::open(&disk, wrapping).map(Arc::new).map_err(|error| error.to_string().into());
        Ok(Self { disk, vkey, keys, sessions: Arc::default(), approvals: Arc::default() })
    }

    /// The log's public key, as the data directory has it.
    #[must_use]
    pub fn vkey(&self) -> &VerifierKey {
        &self.vkey
    }

    /// Whether sensitive content can be opened here.
    #[must_use]
    pub fn has_keys(&self) -> bool {
        self.keys.is_ok()
    }

    /// Why sensitive content cannot be opened here, if it cannot.
    #[must_use]
    pub fn no_keys(&self) -> Option<&str> {
        self.keys.as_ref().err().map(|why| &**why)
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
        let (number, sealed) = match field {
            Field::Absent(reason) => return Ok(Opened::Absent(*reason)),
            Field::Sealed(sealed) => (sealed.number, Some(sealed)),
            Field::Blob(blob) if blob.length <= OPENED_BYTES_MAX => (blob.number, None),
            Field::Blob(blob) => (blob.head.number, Some(&blob.head)),
        };
        let key = match self.field_key(session, number)? {
            Ok(key) => key,
            Err(why) => return Ok(why),
        };
        let content = match (field, sealed) {
            (Field::Blob(blob), None) => self.read_blob(session, &key, blob).ok(),
            (_, Some(sealed)) => opened(session, &key, sealed),
            (Field::Sealed(_) | Field::Absent(_), None) => None,
        };
        Ok(match (content, field) {
            (None, _) => Opened::Damaged,
            (Some(head), Field::Blob(blob)) if sealed.is_some() => {
                Opened::Blob { head, length: blob.length, sha256: blob.sha256 }
            }
            (Some(content), _) => Opened::Bytes(content),
        })
    }

    /// The content of a blob, to be read piece by piece; none if its key is not to be had.
    ///
    /// # Errors
    /// The session is not in the log, or the log or the blob cannot be read.
    pub fn open_blob(&self, session: SessionId, blob: &BlobField) -> Result<Option<BlobReader>, StoreError> {
        match self.field_key(session, blob.number)? {
            Ok(key) => Ok(Some(BlobReader::open(&*self.disk, session, &key, blob)?)),
            Err(_) => Ok(None),
        }
    }

    /// The key that opens one field and nothing else, to be given to someone who may see just that.
    ///
    /// # Errors
    /// The session is not in the log, or the log cannot be read.
    pub fn reveal(&self, session: SessionId, field_number: u64) -> Result<Option<FieldKey>, StoreError> {
        Ok(self.field_key(session, field_number)?.ok())
    }

    /// A blob as it is stored, sealed, to be given to someone with or without its key.
    ///
    /// # Errors
    /// It is not there, or cannot be read.
    pub fn sealed_blob(&self, blob: &BlobField) -> Result<Vec<u8>, StoreError> {
        let path = blob_path(&blob.sha256);
        read_file(&*self.disk, &path, blob.bytes).map_err(StoreError::disk(format!("reading {path}")))
    }

    fn read_blob(&self, session: SessionId, key: &FieldKey, blob: &BlobField) -> Result<Vec<u8>, RecordError> {
        let mut reader = BlobReader::open(&*self.disk, session, key, blob)?;
        let mut content = Vec::new();
        while let Some(chunk) = reader.next_chunk()? {
            content.extend_from_slice(chunk);
        }
        Ok(content)
    }

    fn field_key(&self, session: SessionId, number: u64) -> Result<Result<FieldKey, Opened>, StoreError> {
        let Ok(keys) = &self.keys else {
            return Ok(Err(Opened::NoKey));
        };
        let (slot, commitment) = self.slot(session)?;
        let error = || StoreError::disk("reading session keys");
        Ok(match keys.read(slot).map_err(error())? {
            Slot::Key(key) if key.commitment(session) == commitment => Ok(key.field(number)),
            Slot::Key(_) => Err(Opened::Damaged),
            // Of a session of which something was redacted, the keys of the other fields are kept.
            Slot::Erased => match keys.read_field(session, number).map_err(error())? {
                Slot::Key(key) => Ok(key),
                Slot::Erased | Slot::Missing => Err(Opened::Erased(self.erasure(session, Some(number))?)),
            },
            Slot::Missing => Err(Opened::NoKey),
        })
    }

    /// The entry that says that a field of a session was erased, or without a number, that all of it was.
    ///
    /// # Errors
    /// The log cannot be read.
    pub fn erasure(&self, session: SessionId, number: Option<u64>) -> Result<Option<Arc<Erasure>>, StoreError> {
        let is = |erasure: &&Arc<Erasure>| match (&erasure.fields, number) {
            (None, _) => true,
            (Some(fields), Some(number)) => fields.contains(&number),
            (Some(_), None) => false,
        };
        let known = lock(&self.sessions).erasures.get(&session).and_then(|known| known.iter().find(is).cloned());
        match known {
            Some(erasure) => Ok(Some(erasure)),
            None => Ok(self.erasures(session)?.iter().find(is).cloned()),
        }
    }

    /// What the log says was erased of a session.
    ///
    /// # Errors
    /// The log cannot be read.
    pub fn erasures(&self, session: SessionId) -> Result<Vec<Arc<Erasure>>, StoreError> {
        let mut sessions = lock(&self.sessions);
        let from = sessions.read_erasures;
        let mut walk = Walk::new(self.disk.clone(), from, Tail::Live)?;
        while let Step::Group(group) | Step::Altered(_, group) = walk.step()? {
            for (index, _, leaf) in group.entries().filter(|(index, _, _)| *index >= from) {
                if Peek::new(leaf).is_some_and(|peek| peek.kind == Kind::Erase)
                    && let Ok(Entry { time, body: Body::Erase(erase) }) = Entry::decode(leaf)
                {
                    sessions.learn_erasure(index, time, erase);
                }
                sessions.read_erasures = index + 1;
            }
        }
        Ok(sessions.erasures.get(&session).cloned().unwrap_or_default())
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

    pub(crate) fn disk(&self) -> Arc<dyn Disk> {
        self.disk.clone()
    }

    pub(crate) fn known_approvals(&self) -> MutexGuard<'_, KnownApprovals> {
        lock(&self.approvals)
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

    fn learn_erasure(&mut self, index: u64, time: Time, erase: Erase) {
        let Erase { session, fields, cause, reason, by, .. } = erase;
        let fields = fields.map(Arc::from);
        let erasure = Erasure { index, time, fields, cause, reason: reason.into(), by: Arc::new(by) };
        self.erasures.entry(session).or_default().push(Arc::new(erasure));
    }
}

fn opened(session: SessionId, key: &FieldKey, sealed: &SealedField) -> Option<Vec<u8>> {
    open(session, key, sealed).ok()
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
