//! What was signed last: the head register and the checkpoint.
//!
//! The register is durable before a signature leaves, so that the gateway never signs two logs that differ: at the next
//! start, the log must have at least that many entries with that root. It has two slots that are written in turn, in
//! place, so that a full disk cannot stop it and a torn write leaves the other slot.

use std::io;

use ledger::{Checkpoint, VerifierKey};
use model::Digest;

use crate::disk::{Disk, DiskFile, Mode, read_file, replace_file, write_all};
use crate::error::StoreError;

const HEAD: &str = "head";
pub(crate) const CHECKPOINT: &str = "checkpoint";
const SLOT_BYTES: usize = 512;
const BYTES_MAX: u64 = 4096;

/// The largest size that was ever signed, and its root.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) size: u64,
    pub(crate) root: Digest,
}

pub(crate) struct HeadRegister {
    file: Box<dyn DiskFile>,
    next_slot: u64,
}

pub(crate) fn create(disk: &dyn Disk) -> io::Result<()> {
    replace_file(disk, "", HEAD, &[b'\n'; 2 * SLOT_BYTES])
}

impl HeadRegister {
    pub(crate) fn open(disk: &dyn Disk) -> Result<(Self, Option<Head>), StoreError> {
        let slots = read_slots(disk)?;
        let newest = slots.iter().copied().flatten().max_by_key(|head| head.size);
        let next_slot = u64::from(newest.is_some() && slots.first().copied().flatten() == newest);
        let file = disk.open(HEAD, Mode::Write).map_err(StoreError::disk("opening head"))?;
        Ok((Self { file, next_slot }, newest))
    }

    pub(crate) fn set(&mut self, head: Head) -> io::Result<()> {
        let mut text = format!("onrecord/v1 head\n{}\n{}\n", head.size, head.root.base64()).into_bytes();
        let crc = crc32c::crc32c(&text);
        text.extend_from_slice(format!("{crc:08x}\n").as_bytes());
        text.resize(SLOT_BYTES, b'\n');
        write_all(&*self.file, &text, self.next_slot * u64::try_from(SLOT_BYTES).unwrap_or(512))?;
        self.file.sync()?;
        self.next_slot ^= 1;
        Ok(())
    }
}

/// The register, for those who only read.
pub(crate) fn read(disk: &dyn Disk) -> Result<Option<Head>, StoreError> {
    Ok(read_slots(disk)?.into_iter().flatten().max_by_key(|head| head.size))
}

fn read_slots(disk: &dyn Disk) -> Result<Vec<Option<Head>>, StoreError> {
    let bytes = read_file(disk, HEAD, BYTES_MAX).map_err(StoreError::disk("reading head"))?;
    let slots: Vec<_> = bytes.chunks(SLOT_BYTES).map(parse).collect();
    // While the second slot is blank, the first may have been torn before anything was signed.
    let blank = bytes.iter().skip(SLOT_BYTES).all(|&b| b == b'\n');
    if slots.len() == 2 && (blank || slots.iter().any(Option::is_some)) {
        Ok(slots)
    } else {
        Err(StoreError::malformed(HEAD, "neither of its two slots can be read"))
    }
}

fn parse(slot: &[u8]) -> Option<Head> {
    let text = std::str::from_utf8(slot).ok()?;
    let mut lines = text.split('\n');
    let (name, size, root, crc) = (lines.next()?, lines.next()?, lines.next()?, lines.next()?);
    let signed = format!("{name}\n{size}\n{root}\n");
    if name != "onrecord/v1 head" || u32::from_str_radix(crc, 16).ok()? != crc32c::crc32c(signed.as_bytes()) {
        return None;
    }
    Some(Head { size: size.parse().ok()?, root: Digest::from_base64(root)? })
}

/// The checkpoint, verified, and its note; none if the log has not signed one yet.
pub(crate) fn read_checkpoint(disk: &dyn Disk, key: &VerifierKey) -> Result<Option<(Checkpoint, String)>, StoreError> {
    let bytes = match read_file(disk, CHECKPOINT, 64 * 1024) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        bytes => bytes.map_err(StoreError::disk("reading checkpoint"))?,
    };
    let text = String::from_utf8(bytes).map_err(|_| StoreError::malformed(CHECKPOINT, "not text"))?;
    let checkpoint = Checkpoint::open(&text, key);
    checkpoint
        .map(|checkpoint| Some((checkpoint, text)))
        .map_err(|error| StoreError::malformed(CHECKPOINT, error.to_string()))
}
