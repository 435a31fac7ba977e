//! The one seam between the record and the disk.
//!
//! Everything that the store does to files goes through [`Disk`], so that a simulated one can lose, tear and reorder
//! what was not synced. Paths are relative to the data directory and use `/`.

use std::any::Any;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

/// How a file is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Made new for reading and writing; an error if it exists.
    Create,
    /// For reading.
    Read,
    /// For reading and writing; it must exist.
    Write,
}

/// A data directory.
pub trait Disk: Send + Sync + 'static {
    /// Opens a file.
    ///
    /// # Errors
    /// As the system says.
    fn open(&self, path: &str, mode: Mode) -> io::Result<Box<dyn DiskFile>>;

    /// Renames a file, replacing what has the new name. Durable after [`Disk::sync_dir`] of the directory.
    ///
    /// # Errors
    /// As the system says.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Removes a file.
    ///
    /// # Errors
    /// As the system says.
    fn remove(&self, path: &str) -> io::Result<()>;

    /// The names in a directory, in no order.
    ///
    /// # Errors
    /// As the system says.
    fn list(&self, dir: &str) -> io::Result<Vec<String>>;

    /// Makes a directory, and those above it; no error if it exists.
    ///
    /// # Errors
    /// As the system says.
    fn create_dir(&self, dir: &str) -> io::Result<()>;

    /// Removes an empty directory.
    ///
    /// # Errors
    /// As the system says.
    fn remove_dir(&self, dir: &str) -> io::Result<()>;

    /// Makes everything durable that was written to the file system of the data directory, names included (`syncfs`):
    /// for many small files one call is cheaper than one for each.
    ///
    /// # Errors
    /// As the system says. It may be about a file of someone else's.
    fn sync_all(&self) -> io::Result<()>;

    /// Makes the names in a directory durable. The empty path is the data directory itself.
    ///
    /// # Errors
    /// As the system says.
    fn sync_dir(&self, dir: &str) -> io::Result<()>;

    /// Takes the lock of the data directory, which is held until what is returned is dropped.
    ///
    /// # Errors
    /// [`io::ErrorKind::WouldBlock`] if another process has it; else as the system says.
    fn lock(&self, path: &str) -> io::Result<Box<dyn Any + Send + Sync>>;
}

/// An open file.
pub trait DiskFile: Send + Sync {
    /// Reads at an offset; fewer bytes than asked for only at the end.
    ///
    /// # Errors
    /// As the system says.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;

    /// Writes at an offset; it may write fewer bytes than asked for.
    ///
    /// # Errors
    /// As the system says.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize>;

    /// Makes what was written durable, the length included (`fdatasync`).
    ///
    /// # Errors
    /// As the system says. What was written may then be lost, and a second try may lie: nothing here tries again.
    fn sync(&self) -> io::Result<()>;

    /// How long the file is.
    ///
    /// # Errors
    /// As the system says.
    fn len(&self) -> io::Result<u64>;

    /// Whether the file has no bytes.
    ///
    /// # Errors
    /// As [`DiskFile::len`].
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }
}

/// Writes all of it, in as many steps as the system takes.
///
/// # Errors
/// As the system says.
pub fn write_all(file: &dyn DiskFile, mut bytes: &[u8], mut offset: u64) -> io::Result<()> {
    while !bytes.is_empty() {
        let count = file.write_at(bytes, offset)?;
        if count == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        bytes = bytes.get(count..).unwrap_or_default();
        offset += u64::try_from(count).unwrap_or(u64::MAX);
    }
    Ok(())
}

/// Reads until the buffer is full or the file ends, and says how much it was.
pub(crate) fn read_full(file: &dyn DiskFile, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut done = 0;
    while let Some(rest) = buffer.get_mut(done..).filter(|rest| !rest.is_empty()) {
        let count = file.read_at(rest, offset + u64::try_from(done).unwrap_or(u64::MAX))?;
        if count == 0 {
            break;
        }
        done += count;
    }
    Ok(done)
}

/// Reads a whole file of at most `bytes_max` bytes.
///
/// # Errors
/// It is longer, or as the system says.
pub fn read_file(disk: &dyn Disk, path: &str, bytes_max: u64) -> io::Result<Vec<u8>> {
    let file = disk.open(path, Mode::Read)?;
    let length = file.len()?;
    if length > bytes_max {
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("{path} is longer than {bytes_max} bytes")));
    }
    let mut bytes = vec![0; usize::try_from(length).map_err(|_| io::ErrorKind::InvalidData)?];
    let count = read_full(&*file, &mut bytes, 0)?;
    bytes.truncate(count);
    Ok(bytes)
}

/// Makes or replaces a small file so that after a crash it is the old one or the new one, whole.
///
/// # Errors
/// As the system says. Which of the two the file is, is then not known.
pub fn replace_file(disk: &dyn Disk, dir: &str, name: &str, bytes: &[u8]) -> io::Result<()> {
    let join = |name: &str| {
        if dir.is_empty() { name.to_owned() } else { format!("{dir}/{name}") }
    };
    let temporary = join(&format!("{name}.new"));
    match disk.remove(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let file = disk.open(&temporary, Mode::Create)?;
    write_all(&*file, bytes, 0)?;
    file.sync()?;
    drop(file);
    disk.rename(&temporary, &join(name))?;
    disk.sync_dir(dir)
}

/// A real directory.
#[derive(Clone, Debug)]
pub struct RealDisk {
    root: PathBuf,
}

impl RealDisk {
    /// The data directory at this path. It is made when something is first written, readable by its owner only.
    #[must_use]
    pub fn new(root: &Path) -> Self {
        Self { root: root.to_owned() }
    }

    fn path(&self, path: &str) -> PathBuf {
        if path.is_empty() { self.root.clone() } else { self.root.join(path) }
    }
}

impl Disk for RealDisk {
    fn open(&self, path: &str, mode: Mode) -> io::Result<Box<dyn DiskFile>> {
        let mut options = OpenOptions::new();
        options.read(true);
        match mode {
            Mode::Create => options.write(true).create_new(true).mode(0o600),
            Mode::Read => &mut options,
            Mode::Write => options.write(true),
        };
        Ok(Box::new(RealFile(options.open(self.path(path))?)))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        std::fs::rename(self.path(from), self.path(to))
    }

    fn remove(&self, path: &str) -> io::Result<()> {
        std::fs::remove_file(self.path(path))
    }

    fn list(&self, dir: &str) -> io::Result<Vec<String>> {
        std::fs::read_dir(self.path(dir))?
            .map(|entry| {
                entry?.file_name().into_string().map_err(|_| {
                    io::Error::new(io::ErrorKind::InvalidData, format!("{dir} has a file whose name is not UTF-8"))
                })
            })
            .collect()
    }

    fn create_dir(&self, dir: &str) -> io::Result<()> {
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(self.path(dir))
    }

    fn remove_dir(&self, dir: &str) -> io::Result<()> {
        std::fs::remove_dir(self.path(dir))
    }

    fn sync_all(&self) -> io::Result<()> {
        Ok(rustix::fs::syncfs(File::open(self.path(""))?)?)
    }

    fn sync_dir(&self, dir: &str) -> io::Result<()> {
        File::open(self.path(dir))?.sync_all()
    }

    fn lock(&self, path: &str) -> io::Result<Box<dyn Any + Send + Sync>> {
        let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(self.path(path))?;
        match file.try_lock() {
            Ok(()) => Ok(Box::new(file)),
            Err(std::fs::TryLockError::WouldBlock) => Err(io::ErrorKind::WouldBlock.into()),
            Err(std::fs::TryLockError::Error(error)) => Err(error),
        }
    }
}

struct RealFile(File);

impl DiskFile for RealFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.0.read_at(buffer, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        self.0.write_at(bytes, offset)
    }

    fn sync(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }
}
