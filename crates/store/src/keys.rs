//! The keys of a data directory: the one that signs checkpoints, and those that seal what is sensitive.
//!
//! A session's key must be durable before the session's first entry, and a session must not cost a flush of its own:
//! so keys are made ahead, in slots of a table, and a session takes the next free one. Overwriting a slot with zeros
//! erases everything that its session sealed. A session of which only some fields were erased has the keys of its other
//! fields in a file of its own, of the same slots.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

use ledger::{SigningKey, VerifierKey};
use model::SessionId;
use model::seal::{FieldKey, KeyPlace, SessionKey, WRAPPED_BYTES, unwrap_key, wrap_key};
use zeroize::Zeroizing;

use crate::clock::{Random, random};
use crate::disk::{Disk, DiskFile, Mode, read_file, read_full, replace_file, write_all};
use crate::error::StoreError;
use crate::wrapping::{SealFile, Wrapping, WrappingError, WrappingKey};

const SIGNING: &str = "keys/signing";
const SEAL: &str = "keys/seal";
pub(crate) const TABLE: &str = "keys/sessions";
/// Where the field keys of sessions are of which something was redacted.
pub(crate) const FIELDS: &str = "keys/fields";
const TEXT_BYTES_MAX: u64 = 4096;
pub(crate) const SLOT_BYTES: usize = 64;
/// How many keys are made at a time, and how few must be left before that happens.
const BATCH: usize = 256;
const LOW: usize = 64;

/// The key under which session keys are kept.
pub(crate) struct SealKey(Zeroizing<[u8; 32]>);

/// Makes the keys of a new data directory.
pub(crate) fn create(
    disk: &dyn Disk,
    origin: &str,
    source: &mut dyn Random,
    wrapping: Option<&dyn WrappingKey>,
) -> Result<SigningKey, StoreError> {
    let error = |what| StoreError::disk(format!("making {what}"));
    let seed = Zeroizing::new(random::<32>(source).map_err(error(SIGNING))?);
    let signing = SigningKey::new(origin, &seed).map_err(|_| StoreError::BadOrigin(origin.to_owned()))?;
    disk.create_dir("keys").map_err(error("keys"))?;
    let seal = Zeroizing::new(random::<32>(source).map_err(error(SEAL))?);
    let seal = match wrapping {
        Some(wrapping) => SealFile::wrap(&seal, wrapping)?,
        None => SealFile::Clear(seal),
    };
    replace_file(disk, "keys", "seal", &seal.encode()).map_err(error(SEAL))?;
    replace_file(disk, "keys", "sessions", &[]).map_err(error(TABLE))?;
    let text = Zeroizing::new(signing.to_text() + "\n");
    replace_file(disk, "keys", "signing", text.as_bytes()).map_err(error(SIGNING))?;
    let vkey = format!("{}\n", signing.verifier());
    replace_file(disk, "", "vkey", vkey.as_bytes()).map_err(error("vkey"))?;
    Ok(signing)
}

pub(crate) fn signing_key(disk: &dyn Disk) -> Result<SigningKey, StoreError> {
    let text = text(disk, SIGNING)?;
    SigningKey::from_text(&text).map_err(|error| StoreError::malformed(SIGNING, error.to_string()))
}

pub(crate) fn verifier_key(disk: &dyn Disk) -> Result<VerifierKey, StoreError> {
    let text = text(disk, "vkey")?;
    text.parse().map_err(|error: ledger::NoteError| StoreError::malformed("vkey", error.to_string()))
}

fn text(disk: &dyn Disk, path: &str) -> Result<Zeroizing<String>, StoreError> {
    let bytes = read_file(disk, path, TEXT_BYTES_MAX).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => StoreError::NoLog,
        _ => StoreError::disk(format!("reading {path}"))(error),
    })?;
    String::from_utf8(bytes).map(Zeroizing::new).map_err(|_| StoreError::malformed(path, "not text"))
}

impl SealKey {
    /// Reads it, for whoever may: a seal key in clear needs no wrapping key.
    pub(crate) fn read(disk: &dyn Disk, wrapping: Option<&dyn WrappingKey>) -> Result<Self, StoreError> {
        Ok(Self(read_seal(disk)?.open(wrapping)?))
    }

    /// Reads it to record under it: it must be kept as the configuration says.
    pub(crate) fn read_strictly(disk: &dyn Disk, wrapping: Option<&dyn WrappingKey>) -> Result<Self, StoreError> {
        let file = read_seal(disk)?;
        match (&file, wrapping) {
            (SealFile::Clear(_), Some(wrapping)) => {
                Err(WrappingError::NotWrapped { given: wrapping.id().to_owned() }.into())
            }
            (SealFile::Clear(_) | SealFile::Wrapped { .. }, _) => Ok(Self(file.open(wrapping)?)),
        }
    }

    /// A slot with a key in it.
    pub(crate) fn slot(&self, place: KeyPlace, nonce: [u8; 12], key: &[u8; 32]) -> [u8; SLOT_BYTES] {
        let mut slot = [0; SLOT_BYTES];
        let wrapped = wrap_key(&self.0, place, nonce, key);
        let parts = nonce.iter().chain(&wrapped);
        slot.iter_mut().zip(parts).for_each(|(to, from)| *to = *from);
        let crc = crc32c::crc32c(slot.get(..SLOT_BYTES - 4).unwrap_or_default()).to_be_bytes();
        slot.iter_mut().skip(SLOT_BYTES - 4).zip(crc).for_each(|(to, from)| *to = from);
        slot
    }

    /// What a slot has, which may be cut short by the end of its file.
    pub(crate) fn unslot(&self, place: KeyPlace, slot: &[u8]) -> Slot<Zeroizing<[u8; 32]>> {
        if slot.len() < SLOT_BYTES {
            return Slot::Missing;
        }
        if slot.iter().all(|byte| *byte == 0) {
            return Slot::Erased;
        }
        let (nonce, rest) = slot.split_at(12);
        let (wrapped, _) = rest.split_at(WRAPPED_BYTES);
        let (Ok(nonce), Ok(wrapped)) = (nonce.try_into(), wrapped.try_into()) else {
            return Slot::Missing;
        };
        unwrap_key(&self.0, place, nonce, wrapped).map_or(Slot::Missing, Slot::Key)
    }
}

fn read_seal(disk: &dyn Disk) -> Result<SealFile, StoreError> {
    let bytes = read_file(disk, SEAL, TEXT_BYTES_MAX).map_err(StoreError::disk(format!("reading {SEAL}")))?;
    SealFile::parse(&Zeroizing::new(bytes)).map_err(|what| StoreError::malformed(SEAL, what))
}

/// How the seal key is kept.
pub(crate) fn wrapping(disk: &dyn Disk) -> Result<Wrapping, StoreError> {
    Ok(match read_seal(disk)? {
        SealFile::Clear(_) => Wrapping::None,
        SealFile::Wrapped { id, .. } => Wrapping::By(id),
    })
}

/// Keeps the seal key in another way. Nobody may have the log open. After a crash it is kept in the old way or in the
/// new one.
pub(crate) fn rewrap(
    disk: &dyn Disk,
    from: Option<&dyn WrappingKey>,
    to: Option<&dyn WrappingKey>,
) -> Result<Wrapping, StoreError> {
    let error = || StoreError::disk(format!("writing {SEAL}"));
    let key = read_seal(disk)?.open(from)?;
    let file = match to {
        Some(to) => SealFile::wrap(&key, to)?,
        None => SealFile::Clear(key),
    };
    let before = disk.open(SEAL, Mode::Write).map_err(error())?;
    replace_file(disk, "keys", "seal", &file.encode()).map_err(error())?;
    // The old file has no name any more, but its bytes would stay on the disk until something else takes their place.
    let zeros = vec![0; usize::try_from(before.len().map_err(error())?).unwrap_or(0)];
    write_all(&*before, &zeros, 0).and_then(|()| before.sync()).map_err(error())?;
    wrapping(disk)
}

/// Session keys that are durable and not yet used.
pub(crate) struct KeyPool {
    file: Box<dyn DiskFile>,
    seal: Arc<SealKey>,
    next_slot: u64,
    ready: VecDeque<(u64, SessionKey)>,
}

impl KeyPool {
    /// Slots before `used` are never taken, even if the table is shorter, because an old copy of it was put back.
    pub(crate) fn open(disk: &dyn Disk, seal: Arc<SealKey>, used: u64) -> Result<Self, StoreError> {
        let file = disk.open(TABLE, Mode::Write).map_err(StoreError::disk(format!("opening {TABLE}")))?;
        let length = file.len().map_err(StoreError::disk(format!("reading {TABLE}")))?;
        // Slots of an earlier run are never taken again, whether they were used or not.
        Ok(Self { file, seal, next_slot: length.div_ceil(slot_offset(1)).max(used), ready: VecDeque::new() })
    }

    pub(crate) fn is_low(&self) -> bool {
        self.ready.len() < LOW
    }

    /// Makes more keys and returns when they are durable.
    pub(crate) fn refill(&mut self, source: &mut dyn Random) -> io::Result<()> {
        let mut bytes = Vec::with_capacity(BATCH * SLOT_BYTES);
        let mut keys = Vec::with_capacity(BATCH);
        let first = self.next_slot;
        for slot in (first..).take(BATCH) {
            let key = SessionKey::new(random(source)?);
            let nonce = random::<12>(source)?;
            bytes.extend_from_slice(&self.seal.slot(KeyPlace::Slot(slot), nonce, key.bytes()));
            keys.push((slot, key));
        }
        self.next_slot += u64::try_from(BATCH).unwrap_or(0);
        write_all(&*self.file, &bytes, slot_offset(first))?;
        self.file.sync()?;
        self.ready.extend(keys);
        Ok(())
    }

    pub(crate) fn take(&mut self) -> Option<(u64, SessionKey)> {
        self.ready.pop_front()
    }

    /// No slot from here on was ever taken.
    pub(crate) fn next_slot(&self) -> u64 {
        self.next_slot
    }
}

/// What a slot has.
pub(crate) enum Slot<K> {
    Key(K),
    /// Overwritten with zeros.
    Erased,
    /// Not readable: no such slot, or damaged.
    Missing,
}

impl<K> Slot<K> {
    pub(crate) fn map<T>(self, to: impl FnOnce(K) -> T) -> Slot<T> {
        match self {
            Self::Key(key) => Slot::Key(to(key)),
            Self::Erased => Slot::Erased,
            Self::Missing => Slot::Missing,
        }
    }
}

/// Reads session keys and field keys for those who may.
pub(crate) struct KeyTable {
    disk: Arc<dyn Disk>,
    file: Box<dyn DiskFile>,
    seal: Arc<SealKey>,
}

impl KeyTable {
    pub(crate) fn open(disk: &Arc<dyn Disk>, wrapping: Option<&dyn WrappingKey>) -> Result<Self, StoreError> {
        let seal = Arc::new(SealKey::read(&**disk, wrapping)?);
        Self::with(disk, seal)
    }

    pub(crate) fn with(disk: &Arc<dyn Disk>, seal: Arc<SealKey>) -> Result<Self, StoreError> {
        let file = disk.open(TABLE, Mode::Read).map_err(StoreError::disk(format!("opening {TABLE}")))?;
        Ok(Self { disk: disk.clone(), file, seal })
    }

    /// The key of a session.
    pub(crate) fn read(&self, slot: u64) -> io::Result<Slot<SessionKey>> {
        Ok(self.read_in(&*self.file, slot, KeyPlace::Slot(slot))?.map(|key| SessionKey::new(*key)))
    }

    /// The key of one field of a session whose own key is gone.
    pub(crate) fn read_field(&self, session: SessionId, number: u64) -> io::Result<Slot<FieldKey>> {
        let file = match self.disk.open(&fields_path(session), Mode::Read) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Slot::Erased),
            file => file?,
        };
        Ok(self.read_in(&*file, number, KeyPlace::Field(session, number))?.map(|key| FieldKey::new(*key)))
    }

    fn read_in(&self, file: &dyn DiskFile, slot: u64, place: KeyPlace) -> io::Result<Slot<Zeroizing<[u8; 32]>>> {
        let mut bytes = [0; SLOT_BYTES];
        let count = read_full(file, &mut bytes, slot_offset(slot))?;
        Ok(self.seal.unslot(place, bytes.get(..count).unwrap_or_default()))
    }
}

pub(crate) fn fields_path(session: SessionId) -> String {
    format!("{FIELDS}/{session}")
}

pub(crate) fn slot_offset(slot: u64) -> u64 {
    slot.saturating_mul(u64::try_from(SLOT_BYTES).unwrap_or(64))
}
