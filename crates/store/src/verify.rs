//! Verification of a data directory, from nothing but its files and a public key: walks over the log and lets
//! [`ledger::audit`] judge.

use std::path::Path;
use std::sync::Arc;

use ledger::audit::{Audit, BlobState, Place, Report, Scope, Violation};
use ledger::{Checkpoint, VerifierKey};

use crate::blob;
use crate::disk::{Disk, RealDisk, read_file};
use crate::error::StoreError;
use crate::head::{self, CHECKPOINT};
use crate::keys;
use crate::walk::{Damage, GroupAt, Step, Tail, Walk};

/// How far verification is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Entries that were read.
    pub entries: u64,
}

/// Verifies the log in a directory with a public key; with the directory's own, if none is given: then a log that was
/// replaced as a whole, key and all, is not noticed.
///
/// # Errors
/// There is no log, or the disk refused. What is wrong with the log itself is in the report.
pub fn verify(
    dir: &Path,
    vkey: Option<&VerifierKey>,
    progress: &mut dyn FnMut(Progress),
) -> Result<Report, StoreError> {
    verify_on(Arc::new(RealDisk::new(dir)), vkey, &[], progress)
}

/// As [`verify`], on any disk. `kept` are checkpoints of this log that were kept elsewhere: it must continue them.
///
/// # Errors
/// As [`verify`].
pub fn verify_on(
    disk: Arc<dyn Disk>,
    vkey: Option<&VerifierKey>,
    kept: &[Checkpoint],
    progress: &mut dyn FnMut(Progress),
) -> Result<Report, StoreError> {
    let verified = verify_from(disk, vkey, kept, None, &mut |audit| progress(Progress { entries: audit.entries() }));
    verified.map(|verified| verified.report)
}

/// What was verified.
#[derive(Clone, Debug)]
pub struct Verified {
    /// The verdicts.
    pub report: Report,
    /// What to go on from the next time; none if there is something wrong, or if nothing was signed since the last time.
    pub saved: Option<Vec<u8>>,
}

/// As [`verify_on`]; goes on from an audit that was put aside, if there is one and if that can be done: then the entries
/// that it has seen are not read again. `progress` sees the audit now and then.
///
/// # Errors
/// As [`verify`].
pub fn verify_from(
    disk: Arc<dyn Disk>,
    vkey: Option<&VerifierKey>,
    kept: &[Checkpoint],
    put_aside: Option<Audit>,
    progress: &mut dyn FnMut(&Audit),
) -> Result<Verified, StoreError> {
    let own;
    let vkey = match vkey {
        Some(vkey) => vkey,
        None => {
            own = keys::verifier_key(&*disk)?;
            &own
        }
    };
    let mut audit = Audit::new(Scope::Whole, vkey);
    // What was signed is read before the entries: they may still be growing.
    signed(&mut audit, &*disk, vkey);
    kept.iter().for_each(|checkpoint| audit.expect(checkpoint.clone()));
    if let Some(put_aside) = put_aside {
        audit = audit.or_from(put_aside);
    }
    let seen = audit.entries();
    let mut walk = Walk::new(disk.clone(), seen, Tail::Examine)?;
    let torn = loop {
        match walk.step()? {
            Step::Group(group) => {
                feed(&mut audit, &*disk, &group);
                walk.reuse(group);
            }
            Step::Altered(damage, group) => {
                let (last, violation) = violation(damage);
                audit.violate(last, violation);
                feed(&mut audit, &*disk, &group);
            }
            Step::Damaged(damage) => {
                let (last, violation) = violation(damage);
                audit.violate(last, violation);
                break None;
            }
            Step::End(end) => {
                if end.entries < seen {
                    let what = format!("{seen} entries were verified before, and the log has {}", end.entries);
                    let (index, file) = (Some(end.entries), "log".to_owned());
                    audit.violate(end.entries, Violation { index, command: None, file, offset: 0, what });
                }
                audit.torn(end.torn_bytes);
                break end.torn;
            }
        }
        progress(&audit);
    };
    let saved = audit.saved_at_signed().map(<[u8]>::to_vec);
    let report = audit.finish(torn.map(violation));
    Ok(Verified { saved: saved.filter(|_| report.integrity.violation.is_none()), report })
}

/// Reads the signed statements; what cannot be verified is a violation.
fn signed(audit: &mut Audit, disk: &dyn Disk, vkey: &VerifierKey) {
    match read_file(disk, CHECKPOINT, 64 * 1024).map(String::from_utf8) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Ok(Ok(text)) => match Checkpoint::open(&text, vkey) {
            Ok(checkpoint) => audit.expect(checkpoint),
            Err(error) => audit.violate_file(CHECKPOINT, error.to_string()),
        },
        Ok(Err(_)) => audit.violate_file(CHECKPOINT, "it is not text".to_owned()),
        Err(error) => audit.violate_file(CHECKPOINT, error.to_string()),
    }
    match head::read(disk) {
        Ok(Some(head)) => {
            audit.expect(Checkpoint { origin: vkey.name().to_owned(), size: head.size, root: head.root });
        }
        Ok(None) => {}
        Err(error) => audit.violate_file("head", error.to_string()),
    }
}

fn feed(audit: &mut Audit, disk: &dyn Disk, group: &GroupAt) {
    let seen = audit.entries();
    for ((index, offset, leaf), hash) in group.entries().zip(&group.hashes) {
        if index < seen {
            continue;
        }
        let place = Place { file: group.path.clone(), offset, index };
        audit.entry(&place, leaf, *hash, &mut |_, field| match blob::check(disk, field) {
            Ok(()) => BlobState::Right,
            Err(blob::Bad::Missing(what)) => BlobState::Missing(what),
            Err(blob::Bad::Wrong(what)) => BlobState::Wrong(what),
        });
    }
}

fn violation(damage: Damage) -> (u64, Violation) {
    let found = Violation {
        index: Some(damage.index),
        command: damage.command,
        file: damage.path.to_string(),
        offset: damage.offset,
        what: damage.what,
    };
    (damage.last, found)
}
