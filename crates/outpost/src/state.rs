//! The outpost's directory: one file with all that it is, replaced as a whole, and a lock.
//!
//! Invariant: the file is readable by its owner alone, and a crash leaves the old one or the new one.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use link::frame::AUTHORITIES_MAX;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

const FILE: &str = "identity";
const FIRST_LINE: &str = "onrecord-outpost identity 1";
const LAST_LINE: &str = "end\n";
/// The longest file, bytes.
const FILE_BYTES_MAX: u64 = 64 * 1024;

/// Why the directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// The system refuses.
    #[error("cannot use {}: {source}", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// Another process has it.
    #[error("another outpost runs with {}: each needs a directory of its own", .0.display())]
    Locked(PathBuf),
    /// The file is not what was written.
    #[error("{} is damaged: remove it and join again with a new token", .0.display())]
    Damaged(PathBuf),
}

/// The directory, locked for as long as this exists.
#[derive(Debug)]
pub struct State {
    directory: PathBuf,
    _lock: File,
}

/// Who the outpost is, and whom it believes.
#[derive(Clone)]
pub struct Identity {
    /// Its id, given by the gateway.
    pub id: String,
    /// Its name, as the gateway's operator wrote it.
    pub name: String,
    /// Where the gateway is, `host:port`.
    pub address: String,
    pub(crate) certificate: CertificateDer<'static>,
    /// PKCS #8.
    pub(crate) key: Vec<u8>,
    pub(crate) authorities: Vec<CertificateDer<'static>>,
    /// Seconds since 1970.
    pub(crate) not_before: i64,
    /// Seconds since 1970.
    pub(crate) not_after: i64,
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Identity").field("id", &self.id).field("name", &self.name).finish_non_exhaustive()
    }
}

impl Identity {
    pub(crate) fn key(&self) -> PrivateKeyDer<'static> {
        PrivatePkcs8KeyDer::from(self.key.clone()).into()
    }

    /// Whether the certificate is of no use any more.
    #[must_use]
    pub fn is_expired(&self) -> bool {
        now() >= self.not_after
    }

    /// When the next certificate is due, seconds since 1970: at two thirds of this one's life.
    pub(crate) fn due(&self) -> i64 {
        self.not_before + self.not_after.saturating_sub(self.not_before) / 3 * 2
    }

    fn to_text(&self) -> String {
        let mut text = format!(
            "{FIRST_LINE}\nid {}\nname {}\naddress {}\nvalid {} {}\ncertificate {}\nkey {}\n",
            self.id,
            self.name,
            self.address,
            self.not_before,
            self.not_after,
            STANDARD.encode(&self.certificate),
            STANDARD.encode(&self.key),
        );
        for authority in &self.authorities {
            text.push_str(&format!("authority {}\n", STANDARD.encode(authority)));
        }
        text.push_str(LAST_LINE);
        text
    }

    fn parse(text: &str) -> Option<Self> {
        // What was cut anywhere is not taken for whole.
        let mut lines = text.strip_suffix(LAST_LINE)?.lines();
        lines.next().filter(|line| *line == FIRST_LINE)?;
        let mut field = |name: &str| {
            let line = lines.next()?;
            line.strip_prefix(name)?.strip_prefix(' ').map(str::to_owned)
        };
        let (id, name, address) = (field("id")?, field("name")?, field("address")?);
        let valid = field("valid")?;
        let (not_before, not_after) = valid.split_once(' ')?;
        let (not_before, not_after) = (not_before.parse().ok()?, not_after.parse().ok()?);
        let certificate = STANDARD.decode(field("certificate")?).ok()?.into();
        let key = STANDARD.decode(field("key")?).ok()?;
        let authority =
            |line: &str| line.strip_prefix("authority ").and_then(|coded| STANDARD.decode(coded).ok()).map(Into::into);
        let authorities: Vec<_> = lines.map(authority).collect::<Option<_>>()?;
        let fits = (1..=AUTHORITIES_MAX).contains(&authorities.len());
        fits.then_some(Self { id, name, address, certificate, key, authorities, not_before, not_after })
    }
}

/// The wall clock, seconds since 1970.
pub(crate) fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

impl State {
    /// Makes the directory if there is none, and locks it.
    ///
    /// # Errors
    /// It cannot be made or read, or another outpost has it.
    pub fn open(directory: &Path) -> Result<Self, StateError> {
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |source| StateError::Io { path, source }
        };
        fs::DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(failed(directory))?;
        let path = directory.join("lock");
        let lock = OpenOptions::new().create(true).write(true).truncate(false).mode(0o600).open(&path);
        let lock = lock.map_err(failed(&path))?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { directory: directory.to_owned(), _lock: lock }),
            Err(fs::TryLockError::WouldBlock) => Err(StateError::Locked(directory.to_owned())),
            Err(fs::TryLockError::Error(source)) => Err(StateError::Io { path, source }),
        }
    }

    /// Who this outpost is, if it has joined.
    ///
    /// # Errors
    /// The file cannot be read, or is damaged.
    pub fn load(&self) -> Result<Option<Identity>, StateError> {
        let path = self.directory.join(FILE);
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(StateError::Io { path, source }),
        };
        let mut text = String::new();
        match file.take(FILE_BYTES_MAX).read_to_string(&mut text) {
            Ok(_) => Identity::parse(&text).map(Some).ok_or(StateError::Damaged(path)),
            Err(error) if error.kind() == io::ErrorKind::InvalidData => Err(StateError::Damaged(path)),
            Err(source) => Err(StateError::Io { path, source }),
        }
    }

    /// Keeps who this outpost is now; returns once that is on stable storage.
    ///
    /// # Errors
    /// It cannot be written; the one before is still there.
    pub fn save(&self, identity: &Identity) -> Result<(), StateError> {
        let path = self.directory.join(FILE);
        let beside = self.directory.join("identity.new");
        let write = || -> io::Result<()> {
            let _ = fs::remove_file(&beside);
            let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&beside)?;
            file.write_all(identity.to_text().as_bytes())?;
            file.sync_all()?;
            fs::rename(&beside, &path)?;
            File::open(&self.directory)?.sync_all()
        };
        write().map_err(|source| StateError::Io { path: path.clone(), source })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    fn identity() -> Identity {
        Identity {
            id: "op_1".into(),
            name: "site-a".into(),
            address: "gw:7443".into(),
            certificate: vec![1; 10].into(),
            key: vec![2; 10],
            authorities: vec![vec![3; 10].into()],
            not_before: 900,
            not_after: 1800,
        }
    }

    #[test]
    fn what_is_kept_comes_back_and_nobody_else_reads_it() {
        let place = tempfile::tempdir().unwrap();
        let state = State::open(place.path()).unwrap();
        assert!(state.load().unwrap().is_none());
        state.save(&identity()).unwrap();
        let back = state.load().unwrap().unwrap();
        assert_eq!(back.to_text(), identity().to_text());
        assert_eq!(back.due(), 1500);
        let mode = fs::metadata(place.path().join(FILE)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert!(matches!(State::open(place.path()), Err(StateError::Locked(_))));
    }

    #[test]
    fn a_damaged_file_is_said_to_be() {
        let place = tempfile::tempdir().unwrap();
        let state = State::open(place.path()).unwrap();
        let text = identity().to_text();
        for cut in 0..text.len() {
            fs::write(place.path().join(FILE), text.get(..cut).unwrap()).unwrap();
            assert!(matches!(state.load(), Err(StateError::Damaged(_))), "cut at {cut}");
        }
    }
}
