//! Finds the system's PostgreSQL programs, newest first.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A directory with `initdb` and `postgres`.
#[derive(Debug, Clone)]
pub(crate) struct Programs {
    /// The directory.
    pub(crate) directory: PathBuf,
    /// Such as `15.18`.
    pub(crate) version: String,
    /// Such as `15`: data directories are of one major version.
    pub(crate) major: String,
}

impl Programs {
    /// The newest of `PATH`, `pg_config --bindir` and where the distributions put them.
    pub(crate) fn find() -> Option<Self> {
        let mut directories: BTreeSet<PathBuf> =
            std::env::var_os("PATH").map(|path| std::env::split_paths(&path).collect()).unwrap_or_default();
        if let Ok(output) = Command::new("pg_config").arg("--bindir").output() {
            directories.insert(PathBuf::from(String::from_utf8_lossy(&output.stdout).trim()));
        }
        for (parent, below) in [
            ("/usr/lib/postgresql", "bin"),
            ("/usr/lib64/postgresql", "bin"),
            ("/usr/pgsql", "bin"),
            ("/opt/homebrew/opt", "bin"),
            ("/usr/local/opt", "bin"),
        ] {
            directories.extend(children(Path::new(parent)).map(|child| child.join(below)));
        }
        directories.extend(children(Path::new("/usr")).map(|child| child.join("bin")));
        let real: BTreeSet<PathBuf> = directories.iter().filter_map(|d| real_directory(d)).collect();
        real.into_iter().filter_map(Self::of).max_by_key(|programs| numbers(&programs.version))
    }

    fn of(directory: PathBuf) -> Option<Self> {
        let output = Command::new(directory.join("postgres")).arg("--version").output().ok()?;
        let text = String::from_utf8(output.stdout).ok()?;
        let version = text.split_whitespace().nth(2)?.to_owned();
        let major = version.split(['.', 'd', 'b', 'r']).next()?.to_owned();
        Some(Self { directory, version, major })
    }
}

/// Where `initdb` and `postgres` really are; a link alone in another directory does not run.
fn real_directory(directory: &Path) -> Option<PathBuf> {
    let real = directory.join("postgres").canonicalize().ok()?.parent()?.to_path_buf();
    real.join("initdb").is_file().then_some(real)
}

fn children(parent: &Path) -> impl Iterator<Item = PathBuf> {
    std::fs::read_dir(parent).into_iter().flatten().flatten().map(|entry| entry.path())
}

fn numbers(version: &str) -> Vec<u32> {
    version.split(|c: char| !c.is_ascii_digit()).filter_map(|part| part.parse().ok()).collect()
}
