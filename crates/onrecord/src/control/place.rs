//! Where the socket is. The address of a Unix socket has at most 107 bytes, and a data directory's path may be longer:
//! then the directory is opened and named by its descriptor.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

/// The socket's name in the data directory.
pub(super) const NAME: &str = "control";
/// The longest path that is used as it is; what is beside the socket has four bytes more.
const PATH_BYTES_MAX: usize = 100;

/// A path of the socket's directory that is short enough, while this lives.
pub(super) struct Place {
    directory: PathBuf,
    _open: Option<File>,
}

impl Place {
    pub(super) fn new(data: &Path) -> io::Result<Self> {
        if data.join(NAME).as_os_str().len() <= PATH_BYTES_MAX {
            return Ok(Self { directory: data.to_owned(), _open: None });
        }
        let open = File::open(data)?;
        let directory = PathBuf::from(format!("/proc/self/fd/{}", open.as_raw_fd()));
        Ok(Self { directory, _open: Some(open) })
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }
}
