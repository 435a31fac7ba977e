//! Small files of the gateway's own: each is replaced as a whole, and is on stable storage when that returns.
//!
//! Some hold the entries that say why they are as they are, a line each; one that is damaged is an error, because what
//! somebody must not do is not to be forgotten by that.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use model::Entry;

/// Writes a file as a whole, for its owner alone.
pub(crate) fn replace(file: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut beside = file.as_os_str().to_owned();
    beside.push(".new");
    let beside = Path::new(&beside);
    let _ = fs::remove_file(beside);
    let mut new = OpenOptions::new().write(true).create_new(true).mode(0o600).open(beside)?;
    new.write_all(bytes)?;
    new.sync_all()?;
    fs::rename(beside, file)?;
    File::open(file.parent().unwrap_or(file))?.sync_all()
}

/// Writes a file of entries as a whole.
pub(crate) fn replace_entries(file: &Path, entries: impl Iterator<Item = Entry>) -> io::Result<()> {
    let mut bytes = Vec::new();
    for entry in entries {
        entry.encode(&mut bytes);
        bytes.push(b'\n');
    }
    replace(file, &bytes)
}

/// Reads a file of entries; one that is not there has none.
///
/// # Errors
/// It cannot be read, or is damaged.
pub(crate) fn entries(file: &Path) -> io::Result<Vec<Entry>> {
    let bytes = match fs::read(file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        read => read?,
    };
    let lines = bytes.split(|&byte| byte == b'\n').filter(|line| !line.is_empty());
    lines.map(|line| Entry::decode(line).map_err(|_| damaged())).collect()
}

/// What is in a file is not what belongs there.
pub(crate) fn damaged() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "it is damaged")
}
