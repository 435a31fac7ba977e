//! Changes one byte of a stored command, to show that verification notices. For demonstrations and tests only.

use std::path::Path;
use std::sync::Arc;

use model::{CommandId, Kind, Peek};

use crate::disk::{Disk, Mode, RealDisk, write_all};
use crate::error::StoreError;
use crate::walk::{Step, Tail, Walk};

/// What was changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tampered {
    /// The entry.
    pub index: u64,
    /// Its command.
    pub command: CommandId,
    /// The file, relative to the data directory.
    pub file: String,
    /// Where in the file.
    pub offset: u64,
    /// The byte as it was.
    pub before: u8,
    /// The byte as it is.
    pub after: u8,
}

/// Flips one bit inside the sealed text of a command's stored intent: of the given command, or else of one in the
/// middle of the log. `None` if there is no such command.
///
/// # Errors
/// There is no log, it is damaged already, or the disk refused.
pub fn tamper(dir: &Path, command: Option<CommandId>) -> Result<Option<Tampered>, StoreError> {
    tamper_on(Arc::new(RealDisk::new(dir)), command)
}

/// As [`tamper`], on any disk.
///
/// # Errors
/// As [`tamper`].
pub fn tamper_on(disk: Arc<dyn Disk>, command: Option<CommandId>) -> Result<Option<Tampered>, StoreError> {
    let mut found = Vec::new();
    let mut walk = Walk::new(disk.clone(), 0, Tail::Live)?;
    loop {
        match walk.step()? {
            Step::Group(group) => {
                for (index, offset, leaf) in group.entries() {
                    let Some(Peek { kind: Kind::Intent, command: Some(id), .. }) = Peek::new(leaf) else {
                        continue;
                    };
                    let place = leaf.windows(5).position(|w| w == b"\"x\":\"").map(|at| at + 5);
                    let wanted = command.is_none_or(|wanted| wanted == id);
                    if let Some((place, &before)) = place.and_then(|at| Some((at, leaf.get(at)?))).filter(|_| wanted) {
                        let offset = offset + u64::try_from(place).unwrap_or(0);
                        let file = group.path.to_string();
                        found.push(Tampered { index, command: id, file, offset, before, after: before ^ 1 });
                    }
                }
            }
            Step::Altered(damage, _) | Step::Damaged(damage) => return Err(damage.into()),
            Step::End(_) => break,
        }
    }
    if found.is_empty() {
        return Ok(None);
    }
    let chosen = found.swap_remove(found.len() / 2);
    let change = || {
        let file = disk.open(&chosen.file, Mode::Write)?;
        write_all(&*file, &[chosen.after], chosen.offset)?;
        file.sync()
    };
    change().map_err(StoreError::disk(format!("writing {}", chosen.file)))?;
    Ok(Some(chosen))
}
