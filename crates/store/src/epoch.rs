//! When a log must not go on, another begins: with a key of its own, under a name that says which it is, and with a first
//! entry that names the log before.
//!
//! The old log stays as it is, below `epochs/<n>`, where it is a data directory like any other. Going on with it instead
//! would sign a second past: a copy that was restored does not know what was signed after it was made.
//!
//! Invariant: the change is made whole. What it will do is written down first; a start that finds that finishes it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use model::{EpochReason, PreviousLog};

use crate::clock::{SystemClock, SystemRandom};
use crate::disk::{Disk, Mode, RealDisk, read_file, replace_file};
use crate::error::StoreError;
use crate::keys;
use crate::recorder::{Created, LOCK, Options, Recorder, take_lock};

const EPOCHS: &str = "epochs";
const NEXT: &str = "epochs/next";
/// Which epoch ends, and what moves with it: a line each.
const MOVES: &str = "moves";
const MOVES_BYTES_MAX: u64 = 64 * 1024;
/// What stays where it is: it belongs to the gateway, not to a log.
const STAYS: [&str; 4] = [LOCK, EPOCHS, "tls", "control"];

/// What becomes of the log of a data directory.
#[derive(Clone, Debug)]
pub struct BeginEpoch {
    /// How the log is written. The name is the gateway's; the epoch's number is added to it.
    pub options: Options,
    /// Why the log does not go on.
    pub reason: EpochReason,
    /// The largest size that a witness is known to have cosigned, if it is larger than what is here.
    pub witnessed: Option<u64>,
}

/// The name of the `n`-th log of a gateway, from 1.
#[must_use]
pub fn epoch_origin(gateway: &str, number: u32) -> String {
    if number <= 1 { gateway.to_owned() } else { format!("{gateway}/epoch-{number}") }
}

/// Whether a log of this name is one of this gateway's.
pub(crate) fn is_epoch_of(gateway: &str, origin: &str) -> bool {
    let number = origin.strip_prefix(gateway).and_then(|rest| rest.strip_prefix("/epoch-"));
    origin == gateway
        || number.and_then(|n| n.parse().ok()).is_some_and(|n| epoch_origin(gateway, n) == origin && n > 1)
}

/// Ends the log of a data directory and begins another. No gateway may be running. What can be read of the old log is
/// what the new one says of it; a log that is to be rotated must be sound.
///
/// # Errors
/// Another process has the log, there is none, or the disk refused. Nothing has changed then, or the next start
/// completes it.
pub fn begin_epoch(dir: &Path, begin: &BeginEpoch) -> Result<Created, StoreError> {
    let disk: Arc<dyn Disk> = Arc::new(RealDisk::new(dir));
    finish(dir, &disk)?;
    let failed = |what: &str| StoreError::disk(format!("beginning an epoch: {what}"));
    let key = keys::verifier_key(&*disk)?;
    let number = (1..).find(|n| !dir.join(EPOCHS).join(n.to_string()).exists()).unwrap_or(u32::MAX);
    let next = dir.join(NEXT);
    if next.exists() {
        // Left by a try that did not come far enough to count.
        fs::remove_dir_all(&next).map_err(failed("removing an unfinished one"))?;
    }
    let report = crate::verify::verify(dir, Some(&key), &mut |_| {})?;
    let previous = PreviousLog {
        origin: key.name().to_owned(),
        vkey: key.to_string(),
        size: report.integrity.entries,
        root: report.integrity.root,
        witnessed: begin.witnessed.filter(|witnessed| *witnessed > report.integrity.entries),
        reason: begin.reason,
    };
    let origin = epoch_origin(&begin.options.origin, number.saturating_add(1));
    let options = Options { origin, ..begin.options.clone() };
    let made: Arc<dyn Disk> = Arc::new(RealDisk::new(&next));
    let created = if begin.reason == EpochReason::Rotation {
        // The old log says which key goes on, and is then as long as it will ever be.
        let created = Recorder::create_after(&made, &options, None, &SystemClock, &mut SystemRandom)?;
        let (recorder, _) = Recorder::open_dir(dir, begin.options.clone())?;
        recorder.stop_for(&created.vkey)?;
        fs::remove_dir_all(next.join("log")).map_err(failed("preparing the new log"))?;
        let report = crate::verify::verify(dir, Some(&key), &mut |_| {})?;
        let (size, root) = (report.integrity.entries, report.integrity.root);
        let previous = PreviousLog { size, root, ..previous };
        Recorder::create_after(&made, &options, Some(previous), &SystemClock, &mut SystemRandom)?
    } else {
        Recorder::create_after(&made, &options, Some(previous), &SystemClock, &mut SystemRandom)?
    };
    {
        let _lock = take_lock(&*disk)?;
        let mut moves = format!("{number}\n");
        for name in names(dir).map_err(failed("listing the data directory"))? {
            moves.push_str(&name);
            moves.push('\n');
        }
        replace_file(&*disk, EPOCHS, MOVES, moves.as_bytes()).map_err(failed("writing down what moves"))?;
    }
    finish(dir, &disk)?;
    Ok(created)
}

/// Whether a change of epochs was begun and is not complete: then a directory without a log has one all the same.
pub(crate) fn is_changing(disk: &dyn Disk) -> bool {
    disk.open(&format!("{EPOCHS}/{MOVES}"), Mode::Read).is_ok()
}

/// Completes a change of epochs that was begun; nothing if there is none.
pub(crate) fn finish(dir: &Path, disk: &Arc<dyn Disk>) -> Result<(), StoreError> {
    let failed = |what: &str| StoreError::disk(format!("completing an epoch: {what}"));
    let moves = match read_file(&**disk, &format!("{EPOCHS}/{MOVES}"), MOVES_BYTES_MAX) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        moves => String::from_utf8(moves.map_err(failed("reading what moves"))?),
    };
    let malformed = || StoreError::malformed(format!("{EPOCHS}/{MOVES}"), "it does not say what moves");
    let moves = moves.map_err(|_| malformed())?;
    let mut lines = moves.lines();
    let number: u32 = lines.next().and_then(|number| number.parse().ok()).ok_or_else(malformed)?;
    let _lock = take_lock(&**disk)?;
    let old = dir.join(EPOCHS).join(number.to_string());
    fs::create_dir_all(&old).map_err(failed("making the old log's place"))?;
    for name in lines.filter(|name| !name.is_empty() && !name.contains('/')) {
        place(&dir.join(name), &old.join(name)).map_err(failed(name))?;
    }
    sync(&old).map_err(failed("syncing"))?;
    let next = dir.join(NEXT);
    if next.exists() {
        for name in names(&next).map_err(failed("listing the new log"))? {
            place(&next.join(&name), &dir.join(&name)).map_err(failed(&name))?;
        }
    }
    sync(dir).map_err(failed("syncing"))?;
    disk.remove(&format!("{EPOCHS}/{MOVES}")).map_err(failed("ending"))?;
    disk.sync_dir(EPOCHS).map_err(failed("ending"))?;
    // With the lock file of the new log's making in it.
    let _ = fs::remove_dir_all(next);
    Ok(())
}

/// Renames, unless that was done before: then there is nothing to rename, or something else has the old name.
fn place(from: &Path, to: &Path) -> io::Result<()> {
    if to.exists() || !from.exists() { Ok(()) } else { fs::rename(from, to) }
}

fn sync(dir: &Path) -> io::Result<()> {
    fs::File::open(dir)?.sync_all()
}

fn names(dir: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(dir)? {
        let name = entry?.file_name().into_string().map_err(|_| io::Error::from(io::ErrorKind::InvalidFilename))?;
        if !STAYS.contains(&name.as_str()) {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

/// The earlier logs of a data directory, oldest first: each is a data directory of its own.
///
/// # Errors
/// The disk refused.
pub fn epochs(dir: &Path) -> io::Result<Vec<(u32, PathBuf)>> {
    let mut found = Vec::new();
    let entries = match fs::read_dir(dir.join(EPOCHS)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(found),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        if let Some(number) = entry.file_name().to_str().and_then(|name| name.parse().ok()) {
            found.push((number, entry.path()));
        }
    }
    found.sort();
    Ok(found)
}
