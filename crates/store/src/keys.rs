//! The keys of a data directory: the one that signs checkpoints, and those that seal what is sensitive.
//!
//! A session's key must be durable before the session's first entry, and a session must not cost a flush of its own:
//! so keys are made ahead, in slots of a table, and a session takes the next free one. Overwriting a slot with zeros
//! erases everything that its session sealed.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

use ledger::{SigningKey, VerifierKey};
use model::seal::{SessionKey, WRAPPED_BYTES, unwrap, wrap};
use zeroize::Zeroizing;

use crate::clock::{Random, random};
use crate::disk::{Disk, DiskFile, Mode, read_file, read_full, replace_file, write_all};
use crate::error::StoreError;

const SIGNING: &str = "keys/signing";
const SEAL: &str = "keys/seal";
const TABLE: &str = "keys/sessions";
const TEXT_BYTES_MAX: u64 = 4096;
const SLOT_BYTES: usize = 64;
/// How many keys are made at a time, and how few must be left before that happens.
const BATCH: usize = 256;
const LOW: usize = 64;

/// The key under which session keys are kept.
pub(crate) struct SealKey(Zeroizing<[u8; 32]>);

/// Makes the keys of a new data directory.
pub(crate) fn create(disk: &dyn Disk, origin: &str, source: &mut dyn Random) -> Result<SigningKey, StoreError> {
    let error = |what| StoreError::disk(format!("making {what}"));
    let seed = Zeroizing::new(random::<32>(source).map_err(error(SIGNING))?);
    let signing = SigningKey::new(origin, &seed).map_err(|_| StoreError::BadOrigin(origin.to_owned()))?;
    disk.create_dir("keys").map_err(error("keys"))?;
    let seal = Zeroizing::new(random::<32>(source).map_err(error(SEAL))?);
    replace_file(disk, "keys", "seal", &seal[..]).map_err(error(SEAL))?;
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
    pub(crate) fn read(disk: &dyn Disk) -> Result<Self, StoreError> {
        let bytes =
            Zeroizing::new(read_file(disk, SEAL, TEXT_BYTES_MAX).map_err(StoreError::disk(format!("reading {SEAL}")))?);
        let key = bytes.as_slice().try_into().map_err(|_| StoreError::malformed(SEAL, "a seal key has 32 bytes"))?;
        Ok(Self(Zeroizing::new(key)))
    }
}

/// Session keys that are durable and not yet used.
pub(crate) struct KeyPool {
    file: Box<dyn DiskFile>,
    seal: SealKey,
    next_slot: u64,
    ready: VecDeque<(u64, SessionKey)>,
}

impl KeyPool {
    pub(crate) fn open(disk: &dyn Disk) -> Result<Self, StoreError> {
        let file = disk.open(TABLE, Mode::Write).map_err(StoreError::disk(format!("opening {TABLE}")))?;
        let length = file.len().map_err(StoreError::disk(format!("reading {TABLE}")))?;
        let slot = u64::try_from(SLOT_BYTES).unwrap_or(64);
        // Slots of an earlier run are never taken again, whether they were used or not.
        Ok(Self { file, seal: SealKey::read(disk)?, next_slot: length.div_ceil(slot), ready: VecDeque::new() })
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
            let start = bytes.len();
            bytes.extend_from_slice(&nonce);
            bytes.extend_from_slice(&wrap(&self.seal.0, slot, nonce, &key));
            let crc = crc32c::crc32c(bytes.get(start..).unwrap_or_default());
            bytes.extend_from_slice(&crc.to_be_bytes());
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
}

/// What a slot of the key table has.
pub(crate) enum Slot {
    Key(SessionKey),
    /// Overwritten with zeros.
    Erased,
    /// Not readable: no such slot, or damaged.
    Missing,
}

/// Reads session keys for those who may.
pub(crate) struct KeyTable {
    file: Box<dyn DiskFile>,
    seal: SealKey,
}

impl KeyTable {
    pub(crate) fn open(disk: &Arc<dyn Disk>) -> Result<Self, StoreError> {
        let file = disk.open(TABLE, Mode::Read).map_err(StoreError::disk(format!("opening {TABLE}")))?;
        Ok(Self { file, seal: SealKey::read(&**disk)? })
    }

    pub(crate) fn read(&self, slot: u64) -> io::Result<Slot> {
        let mut bytes = [0; SLOT_BYTES];
        if read_full(&*self.file, &mut bytes, slot_offset(slot))? < SLOT_BYTES {
            return Ok(Slot::Missing);
        }
        if bytes == [0; SLOT_BYTES] {
            return Ok(Slot::Erased);
        }
        let (nonce, rest) = bytes.split_at(12);
        let (wrapped, _) = rest.split_at(WRAPPED_BYTES);
        let (Ok(nonce), Ok(wrapped)) = (nonce.try_into(), wrapped.try_into()) else {
            return Ok(Slot::Missing);
        };
        Ok(unwrap(&self.seal.0, slot, nonce, wrapped).map_or(Slot::Missing, Slot::Key))
    }
}

fn slot_offset(slot: u64) -> u64 {
    slot.saturating_mul(u64::try_from(SLOT_BYTES).unwrap_or(64))
}
