//! Where the demo keeps everything: one directory of the user's own, closed to others.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use rustix::fs::{FlockOperation, flock};

/// The demo's directory.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    root: PathBuf,
}

/// Held for as long as a demo runs in a place.
pub(crate) struct Held(#[allow(dead_code)] fs::File);

impl Place {
    /// `$XDG_DATA_HOME/onrecord/demo`, which is `~/.local/share/onrecord/demo` unless set. Made when missing.
    pub(crate) fn open() -> Result<Self> {
        let absolute = |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
        let data = absolute("XDG_DATA_HOME")
            .or_else(|| Some(absolute("HOME")?.join(".local/share")))
            .context("neither HOME nor XDG_DATA_HOME is set: set one to a directory of yours")?;
        let root = data.join("onrecord").join("demo");
        make_private(&root)?;
        Ok(Self { root })
    }

    /// Takes the place for this process; fails when another demo has it.
    pub(crate) fn hold(&self) -> Result<Held> {
        let path = self.root.join("running");
        let file = private().write(true).create(true).truncate(false).open(&path)?;
        if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
            bail!("a demo is running already in {}: stop it with Ctrl-C where it runs", self.shown());
        }
        Ok(Held(file))
    }

    /// Removes everything that earlier demos left.
    pub(crate) fn wipe(&self) -> Result<()> {
        for entry in fs::read_dir(&self.root)? {
            let path = entry?.path();
            if path == self.root.join("running") {
                continue;
            }
            let removed = if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
            removed.with_context(|| format!("cannot remove {}", path.display()))?;
        }
        Ok(())
    }

    /// The directory.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// The gateway's configuration.
    pub(crate) fn config(&self) -> PathBuf {
        self.root.join("onrecord.toml")
    }

    /// The gateway's data directory.
    pub(crate) fn record(&self) -> PathBuf {
        self.root.join("record")
    }

    /// The public key that verifies the record.
    pub(crate) fn vkey(&self) -> PathBuf {
        self.record().join("vkey")
    }

    /// What the agents did, as one file.
    pub(crate) fn evidence(&self) -> PathBuf {
        self.root.join("evidence.zip")
    }

    /// The page that verifies that file.
    pub(crate) fn page(&self) -> PathBuf {
        self.root.join("verify.html")
    }

    /// The file that psql takes an identity's key from.
    pub(crate) fn pgpass(&self, user: &str) -> PathBuf {
        self.root.join(format!("{user}.pgpass"))
    }

    /// The password that only the gateway uses.
    pub(crate) fn resource_password(&self) -> PathBuf {
        self.root.join("resource.password")
    }

    /// What the demo's PostgreSQL says.
    pub(crate) fn server_log(&self) -> PathBuf {
        self.root.join("postgres.log")
    }

    /// The directory as people write it.
    pub(crate) fn shown(&self) -> String {
        shown(&self.root)
    }
}

/// A path as people write it: with `~` for the home directory.
pub(crate) fn shown(path: &Path) -> String {
    let home = std::env::var_os("HOME").map(PathBuf::from).filter(|home| home.parent().is_some());
    let plain = |text: &str| text.chars().all(|c| c.is_ascii_alphanumeric() || "/._-".contains(c));
    match home.and_then(|home| path.strip_prefix(home).ok().map(Path::to_path_buf)) {
        Some(rest) if plain(&rest.to_string_lossy()) => format!("~/{}", rest.display()),
        _ if plain(&path.to_string_lossy()) => path.display().to_string(),
        _ => format!("'{}'", path.to_string_lossy().replace('\'', "'\\''")),
    }
}

/// Writes a file that only its owner may read, in one step.
pub(crate) fn write_private(path: &Path, text: &str) -> Result<()> {
    let new = path.with_extension("new");
    let written = || {
        let mut file = private().write(true).create(true).truncate(true).open(&new)?;
        file.write_all(text.as_bytes())?;
        fs::rename(&new, path)
    };
    written().with_context(|| format!("cannot write {}", path.display()))
}

/// Makes a directory that only its owner may enter.
pub(crate) fn make_private(path: &Path) -> Result<()> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .and_then(|()| fs::set_permissions(path, fs::Permissions::from_mode(0o700)))
        .with_context(|| format!("cannot make the directory {}", path.display()))
}

fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.mode(0o600);
    options
}
