//! Identities that are locked out: a file with the entries that say so, which a restart reads again.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

use model::{Body, Entry, IdentityName, Revocation, RevocationAction, Time};

use crate::files;

/// The identities that are locked out, each with the entry that says so.
#[derive(Debug)]
pub(crate) struct Revoked {
    file: PathBuf,
    by_name: Mutex<BTreeMap<IdentityName, (Time, Revocation)>>,
    /// Held while the file is written, which may take its time: who asks who is locked out does not wait for that.
    writing: Mutex<()>,
}

impl Revoked {
    /// Reads the file, if there is one.
    ///
    /// # Errors
    /// It cannot be read, or is damaged: who is locked out must not come back by that.
    pub(crate) fn open(file: PathBuf) -> io::Result<Self> {
        let mut by_name = BTreeMap::new();
        for entry in files::entries(&file)? {
            match entry {
                Entry { time, body: Body::Revocation(one) } if one.action == RevocationAction::Revoked => {
                    by_name.insert(one.identity.clone(), (time, one));
                }
                _ => return Err(files::damaged()),
            }
        }
        Ok(Self { file, by_name: Mutex::new(by_name), writing: Mutex::default() })
    }

    pub(crate) fn contains(&self, name: &IdentityName) -> bool {
        self.lock().contains_key(name)
    }

    pub(crate) fn all(&self) -> Vec<(Time, Revocation)> {
        self.lock().values().cloned().collect()
    }

    /// Locks out. From here on nobody is let in; on the disk when this returns without an error.
    pub(crate) fn insert(&self, time: Time, entry: Revocation) -> io::Result<()> {
        self.lock().insert(entry.identity.clone(), (time, entry));
        self.write(None)
    }

    /// Writes the file again, as it should be.
    pub(crate) fn rewrite(&self) -> io::Result<()> {
        self.write(None)
    }

    /// Lets in again. Nobody is, if the disk refuses.
    pub(crate) fn remove(&self, name: &IdentityName) -> io::Result<Option<Revocation>> {
        if !self.contains(name) {
            return Ok(None);
        }
        self.write(Some(name))?;
        Ok(self.lock().remove(name).map(|(_, was)| was))
    }

    /// Writes the file: all that are locked out, but this one.
    fn write(&self, but: Option<&IdentityName>) -> io::Result<()> {
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let all = self.lock().clone();
        let kept = all.into_values().filter(|(_, entry)| but != Some(&entry.identity));
        files::replace_entries(&self.file, kept.map(|(time, entry)| Entry { time, body: Body::Revocation(entry) }))
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<IdentityName, (Time, Revocation)>> {
        self.by_name.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use model::{Actor, Known};

    #[test]
    fn who_is_locked_out_stays_so_over_a_restart_and_a_damaged_file_lets_nobody_in() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("revoked");
        let name: IdentityName = "agent:a".parse().unwrap();
        let entry = Revocation {
            action: RevocationAction::Revoked,
            identity: name.clone(),
            sessions: 1,
            tokens: 2,
            reason: "left".into(),
            by: Actor { name: "uid:0".into(), known: Known::Verified },
        };
        let revoked = Revoked::open(file.clone()).unwrap();
        revoked.insert(Time { wall_us: 1, boot_us: 2 }, entry.clone()).unwrap();
        let again = Revoked::open(file.clone()).unwrap();
        assert!(again.contains(&name));
        assert_eq!(again.all(), [(Time { wall_us: 1, boot_us: 2 }, entry.clone())]);
        assert_eq!(again.remove(&name).unwrap(), Some(entry));
        assert!(!Revoked::open(file.clone()).unwrap().contains(&name));
        std::fs::write(&file, "{}").unwrap();
        assert!(Revoked::open(file).is_err());
    }
}
