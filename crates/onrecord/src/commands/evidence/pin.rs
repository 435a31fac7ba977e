//! Under which checkpoint a selection is proven: always the same one, however much the log has grown since.
//!
//! Checkpoints that exports have used are kept in `evidence/` of the data directory, each with the witness policy of that
//! time. The smallest one that covers the selected entries is taken again; only if there is none, a new one joins them.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;

use ledger::{Checkpoint, NOTE_BYTES_MAX, POLICY_BYTES_MAX, VerifierKey};
use store::Published;

use crate::Failure;

const DIR: &str = "evidence";

/// A checkpoint and its note, with the cosignatures that it had when it was first used.
#[derive(Clone, Debug)]
pub(super) struct Pinned {
    pub(super) checkpoint: Checkpoint,
    pub(super) note: String,
    /// The witness policy that was configured.
    pub(super) policy: Option<String>,
}

/// The newest checkpoint that was published.
pub(super) fn newest(published: &Published, key: &VerifierKey) -> Result<Pinned, Failure> {
    let note = published.checkpoint().map_err(Failure::new)?;
    let note = note.ok_or_else(|| {
        Failure::new("nothing of this record was signed and published yet, so nothing can be proven")
            .hint("`onrecord serve` signs and publishes within a second; also what an earlier version recorded")
    })?;
    opened(note, key)
}

/// The checkpoint for entries up to `last`: one that was used before, else the newest that witnesses cosigned, else the
/// newest.
pub(super) fn choose(
    data: &Path,
    published: &Published,
    key: &VerifierKey,
    newest: Pinned,
    last: u64,
    policy: Option<&str>,
) -> Result<Pinned, Failure> {
    if let Some(used) = used(data, key, last) {
        return Ok(used);
    }
    let cosigned = published.cosigned().map_err(Failure::new)?.and_then(|note| opened(note, key).ok());
    let mut chosen = cosigned.filter(|cosigned| cosigned.checkpoint.size > last).unwrap_or(newest);
    chosen.policy = policy.map(str::to_owned);
    if let Err(error) = keep(data, &chosen) {
        let _ = writeln!(
            std::io::stderr(),
            "onrecord: cannot keep the checkpoint in {}: {error}; another export of this may not be the same file",
            data.join(DIR).display()
        );
    }
    Ok(chosen)
}

/// The smallest checkpoint that was used before and covers this entry.
fn used(data: &Path, key: &VerifierKey, last: u64) -> Option<Pinned> {
    let names = fs::read_dir(data.join(DIR)).ok()?.flatten().map(|entry| entry.path());
    let mut sizes: Vec<(u64, _)> = names
        .filter_map(|path| Some((path.file_name()?.to_str()?.strip_suffix(".checkpoint")?.parse().ok()?, path)))
        .filter(|(size, _)| *size > last)
        .collect();
    sizes.sort();
    sizes.into_iter().find_map(|(size, path)| {
        let note = read(&path, NOTE_BYTES_MAX)?;
        // What cannot be verified is passed over: an earlier log of this directory, or half a file.
        let pinned = opened(note, key).ok().filter(|pinned| pinned.checkpoint.size == size)?;
        Some(Pinned { policy: read(&path.with_extension("policy"), POLICY_BYTES_MAX), ..pinned })
    })
}

fn read(path: &Path, bytes_max: usize) -> Option<String> {
    let length = fs::metadata(path).ok()?.len();
    if usize::try_from(length).ok()? > bytes_max {
        return None;
    }
    fs::read_to_string(path).ok()
}

fn keep(data: &Path, pinned: &Pinned) -> std::io::Result<()> {
    let dir = data.join(DIR);
    fs::DirBuilder::new().mode(0o700).recursive(true).create(&dir)?;
    let name = format!("{:020}", pinned.checkpoint.size);
    // The checkpoint last: without it, the policy means nothing.
    if let Some(policy) = &pinned.policy {
        write(&dir.join(format!("{name}.policy")), policy)?;
    }
    write(&dir.join(format!("{name}.checkpoint")), &pinned.note)?;
    fs::File::open(&dir)?.sync_all()
}

fn write(path: &Path, text: &str) -> std::io::Result<()> {
    let new = path.with_extension("new");
    let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&new, path)
}

fn opened(note: String, key: &VerifierKey) -> Result<Pinned, Failure> {
    let checkpoint = Checkpoint::open(&note, key)
        .map_err(|error| Failure::new(error).hint("`onrecord verify` says what is wrong with the record"))?;
    Ok(Pinned { checkpoint, note, policy: None })
}
