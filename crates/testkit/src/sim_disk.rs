//! A disk in memory that behaves as badly as a real one may.
//!
//! Every write and every sync is an operation with a number. A [`Fault`] at one of them makes it fail; a crash at one of
//! them freezes the disk. [`SimDisk::after_crash`] gives the disk as a machine would find it after a loss of power:
//! what was synced is there; of what was not, each 512-byte sector of each write is there or not, as the seed says,
//! and names that were not synced may be old or new.

use std::any::Any;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use store::{Disk, DiskFile, Mode};

const SECTOR: usize = 512;

/// What happens at an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The power goes: the operation has no effect, and neither have later ones.
    Crash,
    /// It fails, and has no effect.
    Error(io::ErrorKind),
    /// It fails, although it had its effect.
    ErrorAfter(io::ErrorKind),
    /// A write that writes only half of its bytes.
    Short,
}

/// What becomes of unsynced writes in a crash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unsynced {
    /// None is there.
    Dropped,
    /// All are there.
    Kept,
    /// Each is there or not.
    Reordered(u64),
    /// Each sector of each is there or not.
    Torn(u64),
}

/// A disk in memory. Clones are the same disk.
#[derive(Clone, Default)]
pub struct SimDisk(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    files: Vec<File>,
    names: BTreeMap<String, usize>,
    dirs: BTreeSet<String>,
    /// Changes of names that are not durable yet, by directory.
    renames: Vec<(String, Naming)>,
    durable_names: BTreeMap<String, usize>,
    operations: u64,
    faults: BTreeMap<u64, Fault>,
    /// From this operation on, there is no space for files to grow.
    full_from: Option<u64>,
    crashed: bool,
    locked: bool,
}

#[derive(Clone)]
enum Naming {
    Set(String, usize),
    Unset(String),
}

#[derive(Default, Clone)]
struct File {
    /// As programs see it.
    now: Vec<u8>,
    /// As it is on stable storage.
    durable: Vec<u8>,
    /// Writes since the last sync, in order.
    unsynced: Vec<(usize, Vec<u8>)>,
}

impl SimDisk {
    /// An empty disk.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// How many operations there have been.
    #[must_use]
    pub fn operations(&self) -> u64 {
        self.state().operations
    }

    /// Makes something happen at an operation, counted from the disk's first.
    pub fn at(&self, operation: u64, fault: Fault) {
        self.state().faults.insert(operation, fault);
    }

    /// From this operation on, files cannot grow.
    pub fn full_from(&self, operation: u64) {
        self.state().full_from = Some(operation);
    }

    /// Whether the power has gone.
    #[must_use]
    pub fn crashed(&self) -> bool {
        self.state().crashed
    }

    /// Takes the power away now.
    pub fn crash(&self) {
        self.state().crashed = true;
    }

    /// The disk as it is found after the power came back.
    #[must_use]
    pub fn after_crash(&self, unsynced: Unsynced) -> Self {
        let old = self.state();
        let mut dice = Dice(match unsynced {
            Unsynced::Reordered(seed) | Unsynced::Torn(seed) => seed,
            Unsynced::Dropped | Unsynced::Kept => 0,
        });
        let files: Vec<File> = old.files.iter().map(|file| file.after(unsynced, &mut dice)).collect();
        let mut names = old.durable_names.clone();
        for (_, naming) in &old.renames {
            let kept = match unsynced {
                Unsynced::Dropped => false,
                Unsynced::Kept => true,
                Unsynced::Reordered(_) | Unsynced::Torn(_) => dice.flip(),
            };
            if kept {
                apply(&mut names, naming);
            }
        }
        let state = State { files, durable_names: names.clone(), names, dirs: old.dirs.clone(), ..State::default() };
        Self(Arc::new(Mutex::new(state)))
    }

    /// A copy of the disk as programs see it, everything synced.
    #[must_use]
    pub fn copy(&self) -> Self {
        self.after_crash(Unsynced::Kept)
    }

    /// The bytes of a file.
    #[must_use]
    pub fn bytes(&self, path: &str) -> Option<Vec<u8>> {
        let state = self.state();
        state.names.get(path).and_then(|&id| state.files.get(id)).map(|file| file.now.clone())
    }

    /// Replaces the bytes of a file, past all rules.
    pub fn set_bytes(&self, path: &str, bytes: &[u8]) {
        let mut state = self.state();
        let id = match state.names.get(path) {
            Some(&id) => id,
            None => {
                let id = state.files.len();
                state.files.push(File::default());
                state.names.insert(path.to_owned(), id);
                state.durable_names.insert(path.to_owned(), id);
                id
            }
        };
        if let Some(file) = state.files.get_mut(id) {
            *file = File { now: bytes.to_vec(), durable: bytes.to_vec(), unsynced: Vec::new() };
        }
    }

    /// The paths of all files.
    #[must_use]
    pub fn paths(&self) -> Vec<String> {
        self.state().names.keys().cloned().collect()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Counts an operation and says what happens at it.
    fn operate(&mut self) -> io::Result<Option<Fault>> {
        let fault = self.faults.get(&self.operations).copied();
        self.operations += 1;
        if fault == Some(Fault::Crash) {
            self.crashed = true;
        }
        if self.crashed {
            return Err(io::Error::other("the power is gone"));
        }
        match fault {
            Some(Fault::Error(kind)) => Err(kind.into()),
            fault => Ok(fault),
        }
    }

    fn after(fault: Option<Fault>) -> io::Result<()> {
        match fault {
            Some(Fault::ErrorAfter(kind)) => Err(kind.into()),
            _ => Ok(()),
        }
    }

    fn is_full(&self) -> bool {
        self.full_from.is_some_and(|from| self.operations >= from)
    }
}

impl File {
    fn after(&self, unsynced: Unsynced, dice: &mut Dice) -> Self {
        let mut bytes = self.durable.clone();
        for (offset, data) in &self.unsynced {
            match unsynced {
                Unsynced::Dropped => {}
                Unsynced::Kept => put(&mut bytes, *offset, data),
                Unsynced::Reordered(_) => {
                    if dice.flip() {
                        put(&mut bytes, *offset, data);
                    }
                }
                Unsynced::Torn(_) => {
                    let mut at = 0;
                    while at < data.len() {
                        let end = (at + SECTOR - (offset + at) % SECTOR).min(data.len());
                        if dice.flip() {
                            put(&mut bytes, offset + at, data.get(at..end).unwrap_or_default());
                        }
                        at = end;
                    }
                }
            }
        }
        Self { now: bytes.clone(), durable: bytes, unsynced: Vec::new() }
    }
}

fn put(bytes: &mut Vec<u8>, offset: usize, data: &[u8]) {
    if bytes.len() < offset + data.len() {
        bytes.resize(offset + data.len(), 0);
    }
    if let Some(place) = bytes.get_mut(offset..offset + data.len()) {
        place.copy_from_slice(data);
    }
}

fn apply(names: &mut BTreeMap<String, usize>, naming: &Naming) {
    match naming {
        Naming::Set(name, id) => {
            // One file has one name: a rename takes the old one away.
            names.retain(|_, other| other != id);
            names.insert(name.clone(), *id);
        }
        Naming::Unset(name) => {
            names.remove(name);
        }
    }
}

fn dir_of(path: &str) -> String {
    path.rsplit_once('/').map_or_else(String::new, |(dir, _)| dir.to_owned())
}

struct Dice(u64);

impl Dice {
    fn flip(&mut self) -> bool {
        // SplitMix64.
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) & 1 == 0
    }
}

impl Disk for SimDisk {
    fn open(&self, path: &str, mode: Mode) -> io::Result<Box<dyn DiskFile>> {
        let mut state = self.state();
        if state.crashed {
            return Err(io::Error::other("the power is gone"));
        }
        let id = match (state.names.get(path).copied(), mode) {
            (Some(_), Mode::Create) => return Err(io::ErrorKind::AlreadyExists.into()),
            (Some(id), Mode::Read | Mode::Write) => id,
            (None, Mode::Read | Mode::Write) => return Err(io::ErrorKind::NotFound.into()),
            (None, Mode::Create) => {
                state.operate()?;
                if !state.dirs.contains(&dir_of(path)) && !dir_of(path).is_empty() {
                    return Err(io::ErrorKind::NotFound.into());
                }
                let id = state.files.len();
                state.files.push(File::default());
                state.names.insert(path.to_owned(), id);
                state.renames.push((dir_of(path), Naming::Set(path.to_owned(), id)));
                id
            }
        };
        Ok(Box::new(SimFile { disk: self.clone(), id }))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.state();
        let fault = state.operate()?;
        let id = state.names.remove(from).ok_or(io::ErrorKind::NotFound)?;
        state.names.insert(to.to_owned(), id);
        state.renames.push((dir_of(to), Naming::Set(to.to_owned(), id)));
        State::after(fault)
    }

    fn remove(&self, path: &str) -> io::Result<()> {
        let mut state = self.state();
        if !state.names.contains_key(path) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let fault = state.operate()?;
        state.names.remove(path);
        state.renames.push((dir_of(path), Naming::Unset(path.to_owned())));
        State::after(fault)
    }

    fn list(&self, dir: &str) -> io::Result<Vec<String>> {
        let state = self.state();
        if state.crashed {
            return Err(io::Error::other("the power is gone"));
        }
        if !dir.is_empty() && !state.dirs.contains(dir) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let inside = state.names.keys().filter(|path| dir_of(path) == dir);
        Ok(inside.filter_map(|path| path.rsplit('/').next()).map(str::to_owned).collect())
    }

    fn create_dir(&self, dir: &str) -> io::Result<()> {
        let mut state = self.state();
        let mut path = String::new();
        for part in dir.split('/') {
            if !path.is_empty() {
                path.push('/');
            }
            path.push_str(part);
            state.dirs.insert(path.clone());
        }
        Ok(())
    }

    fn sync_dir(&self, dir: &str) -> io::Result<()> {
        let mut state = self.state();
        let fault = state.operate()?;
        let (now, later): (Vec<_>, Vec<_>) =
            std::mem::take(&mut state.renames).into_iter().partition(|(of, _)| of == dir);
        state.renames = later;
        for (_, naming) in &now {
            apply(&mut state.durable_names, naming);
        }
        State::after(fault)
    }

    fn remove_dir(&self, dir: &str) -> io::Result<()> {
        let mut state = self.state();
        if state.names.keys().any(|path| dir_of(path) == dir) {
            return Err(io::ErrorKind::DirectoryNotEmpty.into());
        }
        // Whether the directory itself is found again after a crash makes no difference to anyone.
        state.operate().map(drop)
    }

    fn sync_all(&self) -> io::Result<()> {
        let mut state = self.state();
        let fault = state.operate()?;
        for file in &mut state.files {
            file.durable = file.now.clone();
            file.unsynced.clear();
        }
        state.durable_names = state.names.clone();
        state.renames.clear();
        State::after(fault)
    }

    fn lock(&self, _: &str) -> io::Result<Box<dyn Any + Send + Sync>> {
        let mut state = self.state();
        if std::mem::replace(&mut state.locked, true) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        drop(state);
        Ok(Box::new(Locked(self.clone())))
    }
}

struct Locked(SimDisk);

impl Drop for Locked {
    fn drop(&mut self) {
        self.0.state().locked = false;
    }
}

struct SimFile {
    disk: SimDisk,
    id: usize,
}

impl DiskFile for SimFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let state = self.disk.state();
        if state.crashed {
            return Err(io::Error::other("the power is gone"));
        }
        let file = state.files.get(self.id).ok_or(io::ErrorKind::NotFound)?;
        let from = usize::try_from(offset).unwrap_or(usize::MAX).min(file.now.len());
        let bytes = file.now.get(from..).unwrap_or_default();
        let count = bytes.len().min(buffer.len());
        for (to, from) in buffer.iter_mut().zip(bytes) {
            *to = *from;
        }
        Ok(count)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        let mut state = self.disk.state();
        let fault = state.operate()?;
        let offset = usize::try_from(offset).map_err(|_| io::ErrorKind::InvalidInput)?;
        let full = state.is_full();
        let file = state.files.get_mut(self.id).ok_or(io::ErrorKind::NotFound)?;
        let count = if fault == Some(Fault::Short) { bytes.len().div_ceil(2) } else { bytes.len() };
        if full && offset + count > file.now.len() {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let written = bytes.get(..count).unwrap_or_default();
        put(&mut file.now, offset, written);
        file.unsynced.push((offset, written.to_vec()));
        State::after(fault)?;
        Ok(count)
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.disk.state();
        let fault = state.operate()?;
        let file = state.files.get_mut(self.id).ok_or(io::ErrorKind::NotFound)?;
        file.durable.clone_from(&file.now);
        file.unsynced.clear();
        State::after(fault)
    }

    fn len(&self) -> io::Result<u64> {
        let state = self.disk.state();
        let file = state.files.get(self.id).ok_or(io::ErrorKind::NotFound)?;
        u64::try_from(file.now.len()).map_err(|_| io::ErrorKind::FileTooLarge.into())
    }
}
