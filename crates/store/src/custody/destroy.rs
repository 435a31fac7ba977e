//! Destroys what the log says is erased. Everything here may be done twice, and after a crash it is.
//!
//! Invariant: a key that is still needed is durable in its new place before its old place is overwritten.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;

use model::seal::{KeyPlace, SessionKey};
use model::{Digest, SessionId};

use super::slots::Slots;
use super::state::{Redacted, State};
use super::subject::Subject;
use crate::blob::blob_path;
use crate::clock::{Random, random};
use crate::disk::{Disk, DiskFile, Mode, read_full, write_all};
use crate::error::StoreError;
use crate::keys::{FIELDS, KeyTable, SLOT_BYTES, SealKey, Slot, TABLE, fields_path, slot_offset};

/// How many slots are read or written at a time.
const STEP_SLOTS: u64 = 16 * 1024;

/// What it takes to destroy.
pub(crate) struct Means<'a> {
    pub(crate) disk: &'a Arc<dyn Disk>,
    pub(crate) seal: &'a Arc<SealKey>,
    pub(crate) random: &'a mut dyn Random,
}

/// Whether the keys of the other fields are kept already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Others {
    Kept,
    NotKept,
}

impl Means<'_> {
    /// Erases whole sessions.
    pub(crate) fn sessions(&self, state: &mut State, subjects: &[Subject]) -> Result<(), StoreError> {
        let disk = &**self.disk;
        let slots: BTreeSet<u64> = subjects.iter().map(|subject| subject.slot).collect();
        zero_slots(disk, &slots).map_err(StoreError::disk("destroying session keys"))?;
        for subject in subjects {
            let session = subject.session;
            drop_fields(disk, session).map_err(StoreError::disk("destroying field keys"))?;
            state.redacted.remove(&session);
            state.erased.insert(subject.slot);
        }
        let blobs = subjects.iter().flat_map(|subject| subject.blobs.values());
        remove_blobs(disk, blobs).map_err(StoreError::disk("removing blobs"))
    }

    /// Keeps the keys of all fields but the erased ones where they outlive the session's own key. Nothing to do if that
    /// has happened.
    pub(crate) fn keep_others(&mut self, subject: &Subject, erased: &BTreeSet<u64>) -> Result<(), StoreError> {
        let key = KeyTable::with(self.disk, self.seal.clone())?
            .read(subject.slot)
            .map_err(StoreError::disk("reading session keys"))?;
        match key {
            Slot::Key(key) => self.build_fields(subject.session, subject.fields, &key, erased),
            Slot::Erased | Slot::Missing => Ok(()),
        }
    }

    /// Erases some fields of a session.
    pub(crate) fn fields(
        &mut self,
        state: &mut State,
        subject: &Subject,
        fields: &BTreeSet<u64>,
        others: Others,
    ) -> Result<(), StoreError> {
        let count = subject.fields;
        let fresh = Redacted { slot: subject.slot, count, fields: BTreeSet::new() };
        let redacted = state.redacted.entry(subject.session).or_insert(fresh);
        redacted.fields.extend(fields);
        if others == Others::NotKept {
            self.keep_others(subject, &redacted.fields)?;
        }
        let disk = &**self.disk;
        zero_slots(disk, &[subject.slot].into()).map_err(StoreError::disk("destroying a session key"))?;
        shrink_fields(disk, subject.session, fields).map_err(StoreError::disk("destroying field keys"))?;
        let blobs = subject.blobs.iter().filter(|(number, _)| fields.contains(number)).map(|(_, sha256)| sha256);
        remove_blobs(disk, blobs).map_err(StoreError::disk("removing blobs"))
    }

    /// Destroys again what came back with an old copy of the keys. Says whether anything had.
    pub(crate) fn again(&mut self, state: &State) -> Result<Came, StoreError> {
        let disk = self.disk.clone();
        let error = || StoreError::disk("destroying keys that were erased before");
        let mut came = zero_ranges(&*disk, &state.erased).map_err(error())?;
        for (&session, redacted) in &state.redacted {
            let key = KeyTable::with(&disk, self.seal.clone())?.read(redacted.slot).map_err(error())?;
            if let Slot::Key(key) = &key {
                self.build_fields(session, redacted.count, key, &redacted.fields)?;
            }
            if !matches!(key, Slot::Erased) {
                came = Came::Back;
                zero_slots(&*disk, &[redacted.slot].into()).map_err(error())?;
            }
            if shrink_fields(&*disk, session, &redacted.fields).map_err(error())? == Came::Back {
                came = Came::Back;
            }
        }
        // Everything else there belongs to no session that the log says was redacted: it was made for an erasure that
        // did not come to be, or its session was erased as a whole later.
        for name in list_fields(&*disk).map_err(error())? {
            if !name.parse().is_ok_and(|session: SessionId| state.redacted.contains_key(&session)) {
                drop_file(&*disk, &format!("{FIELDS}/{name}")).map_err(error())?;
                came = Came::Back;
            }
        }
        Ok(came)
    }

    /// Makes the file of a session's field keys, without those of the erased fields.
    fn build_fields(
        &mut self,
        session: SessionId,
        count: u64,
        key: &SessionKey,
        erased: &BTreeSet<u64>,
    ) -> Result<(), StoreError> {
        let mut build = || {
            let disk = &**self.disk;
            let (path, beside) = (fields_path(session), format!("{}.new", fields_path(session)));
            disk.create_dir(FIELDS)?;
            drop_file(disk, &beside)?;
            let file = disk.open(&beside, Mode::Create)?;
            let mut first = 0;
            while first < count {
                let end = count.min(first + STEP_SLOTS);
                let mut bytes = Vec::new();
                for number in first..end {
                    if erased.contains(&number) {
                        bytes.extend_from_slice(&[0; SLOT_BYTES]);
                        continue;
                    }
                    let (place, nonce) = (KeyPlace::Field(session, number), random(self.random)?);
                    bytes.extend_from_slice(&self.seal.slot(place, nonce, key.field(number).bytes()));
                }
                write_all(&*file, &bytes, slot_offset(first))?;
                first = end;
            }
            file.sync()?;
            drop(file);
            disk.rename(&beside, &path)?;
            disk.sync_dir(FIELDS)?;
            disk.sync_dir("keys")
        };
        build().map_err(StoreError::disk("keeping the keys of the other fields"))
    }
}

/// Whether something that was destroyed had come back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Came {
    Back,
    NotBack,
}

fn zero_slots(disk: &dyn Disk, slots: &BTreeSet<u64>) -> io::Result<()> {
    let file = disk.open(TABLE, Mode::Write)?;
    zero_in(&*file, slots.iter().copied())
}

/// Overwrites slots, as far as the file has them.
fn zero_in(file: &dyn DiskFile, slots: impl Iterator<Item = u64>) -> io::Result<()> {
    let length = file.len()?;
    for slot in slots {
        let (from, to) = (slot_offset(slot), slot_offset(slot.saturating_add(1)).min(length));
        let zeros = [0; SLOT_BYTES];
        let count = usize::try_from(to.saturating_sub(from)).unwrap_or(0);
        write_all(file, zeros.get(..count).unwrap_or_default(), from)?;
    }
    file.sync()
}

/// Overwrites those of these slots that are not zeros already.
fn zero_ranges(disk: &dyn Disk, slots: &Slots) -> io::Result<Came> {
    let file = disk.open(TABLE, Mode::Write)?;
    let end = file.len()?.div_ceil(slot_offset(1));
    let mut back = BTreeSet::new();
    for (first, last) in slots.ranges() {
        let mut from = first;
        while from <= last && from < end {
            let step = (last - from).saturating_add(1).min(STEP_SLOTS).min(end - from);
            let mut bytes = vec![0; usize::try_from(slot_offset(step)).unwrap_or(0)];
            let count = read_full(&*file, &mut bytes, slot_offset(from))?;
            let found = bytes.get(..count).unwrap_or_default().chunks(SLOT_BYTES);
            let alive = (from..).zip(found).filter(|(_, slot)| slot.iter().any(|byte| *byte != 0));
            back.extend(alive.map(|(slot, _)| slot));
            from += step;
        }
    }
    if back.is_empty() {
        return Ok(Came::NotBack);
    }
    zero_in(&*file, back.into_iter()).map(|()| Came::Back)
}

/// Overwrites the keys of these fields, if there is a file of the session's field keys.
fn shrink_fields(disk: &dyn Disk, session: SessionId, fields: &BTreeSet<u64>) -> io::Result<Came> {
    let file = match disk.open(&fields_path(session), Mode::Write) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Came::NotBack),
        file => file?,
    };
    let mut alive = Vec::new();
    for &number in fields {
        let mut slot = [0; SLOT_BYTES];
        read_full(&*file, &mut slot, slot_offset(number))?;
        if slot != [0; SLOT_BYTES] {
            alive.push(number);
        }
    }
    if alive.is_empty() {
        // What is zero may still be so in the cache only.
        return file.sync().map(|()| Came::NotBack);
    }
    zero_in(&*file, alive.into_iter()).map(|()| Came::Back)
}

fn drop_fields(disk: &dyn Disk, session: SessionId) -> io::Result<()> {
    for path in [fields_path(session), format!("{}.new", fields_path(session))] {
        drop_file(disk, &path)?;
    }
    Ok(())
}

/// Overwrites a file of keys and removes it.
fn drop_file(disk: &dyn Disk, path: &str) -> io::Result<()> {
    let file = match disk.open(path, Mode::Write) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        file => file?,
    };
    zero_in(&*file, 0..file.len()?.div_ceil(slot_offset(1)))?;
    drop(file);
    disk.remove(path)?;
    disk.sync_dir(FIELDS)
}

fn list_fields(disk: &dyn Disk) -> io::Result<Vec<String>> {
    match disk.list(FIELDS) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        names => names,
    }
}

fn remove_blobs<'a>(disk: &dyn Disk, blobs: impl Iterator<Item = &'a Digest>) -> io::Result<()> {
    let mut dirs = BTreeMap::new();
    for sha256 in blobs {
        let path = blob_path(sha256);
        match disk.remove(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            removed => removed?,
        }
        dirs.insert(path.rsplit_once('/').map_or_else(String::new, |(dir, _)| dir.to_owned()), ());
    }
    dirs.into_keys().try_for_each(|dir| disk.sync_dir(&dir))
}
