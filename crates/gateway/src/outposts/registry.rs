//! The outposts that may connect and the join tokens that are out: one file, replaced as a whole.
//!
//! Invariant: what is not on the disk did not happen. A token that was used is gone from the disk before its certificate
//! leaves, and a certificate is on the disk before it does.

use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use link::token::mac_holds;
use serde::{Deserialize, Serialize};

use super::OutpostsError;
use crate::{files, hex};

const FILE: &str = "registry.json";
const VERSION: u32 = 1;
/// Outposts, those that were revoked included.
const OUTPOSTS_MAX: usize = 4096;
/// Join tokens that are out at a time.
const TOKENS_MAX: usize = 256;
/// Certificates of an outpost that are honoured at a time: the one in use, and one that may not have arrived.
const SERIALS_MAX: usize = 4;

/// The registry.
pub(super) struct Registry {
    directory: PathBuf,
    content: Mutex<Content>,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Content {
    version: u32,
    authorities: Vec<Generation>,
    outposts: Vec<Enrolled>,
    tokens: Vec<Invited>,
}

/// An authority, and since when there is one. Seconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Generation {
    pub(super) number: u64,
    pub(super) since: i64,
}

/// An outpost that has joined.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Enrolled {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Its labels.
    pub labels: Vec<String>,
    /// When it joined, seconds since 1970.
    pub since: i64,
    /// The certificates that are honoured.
    pub(super) serials: Vec<Serial>,
    /// When it was locked out, seconds since 1970.
    pub revoked: Option<i64>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Serial {
    pub(super) serial: String,
    pub(super) not_after: i64,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Invited {
    id: String,
    /// Hexadecimal.
    secret: String,
    name: String,
    labels: Vec<String>,
    until: i64,
}

/// Why somebody does not get in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum NotAdmitted {
    #[error("this join token is not known, was used already, or has expired")]
    Token,
    #[error("this certificate is not known here")]
    Unknown,
    #[error("this outpost was revoked")]
    Revoked,
    #[error("this certificate has expired")]
    Expired,
}

impl Enrolled {
    /// Until when its newest certificate is valid, seconds since 1970.
    #[must_use]
    pub fn valid_until(&self) -> Option<i64> {
        self.serials.iter().map(|serial| serial.not_after).max()
    }
}

impl Registry {
    /// Reads it, or begins one.
    pub(super) fn open(directory: &Path) -> Result<Self, OutpostsError> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
        let path = directory.join(FILE);
        let content = match fs::read(&path) {
            Ok(bytes) => serde_json::from_slice::<Content>(&bytes)
                .ok()
                .filter(|content| content.version == VERSION)
                .ok_or_else(|| OutpostsError::Damaged(path.clone()))?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Content { version: VERSION, ..Content::default() },
            Err(error) => return Err(error.into()),
        };
        Ok(Self { directory: directory.to_owned(), content: Mutex::new(content) })
    }

    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }

    pub(super) fn generations(&self) -> Vec<Generation> {
        self.lock().authorities.clone()
    }

    pub(super) fn set_generations(&self, generations: Vec<Generation>) -> Result<(), OutpostsError> {
        self.change(|content| {
            content.authorities = generations;
            Ok(())
        })
    }

    /// Keeps a join token until it is used or expires.
    pub(super) fn invite(
        &self,
        id: [u8; 8],
        secret: [u8; 32],
        name: &str,
        labels: &[String],
        [now, until]: [i64; 2],
    ) -> Result<(), OutpostsError> {
        self.change(|content| {
            content.tokens.retain(|token| token.until > now);
            if content.tokens.len() >= TOKENS_MAX {
                return Err(OutpostsError::TooMany("join tokens"));
            }
            let (name, labels) = (name.to_owned(), labels.to_vec());
            content.tokens.push(Invited { id: hex(&id), secret: hex(&secret), name, labels, until });
            Ok(())
        })
    }

    /// Uses a join token up, if the request was made with it: the name and labels that it is for.
    pub(super) fn redeem(
        &self,
        id: [u8; 8],
        request: &[u8],
        mac: &[u8; 32],
        now: i64,
    ) -> Result<Result<(String, Vec<String>), NotAdmitted>, OutpostsError> {
        let id = hex(&id);
        let holds = |content: &Content| {
            let found = content.tokens.iter().position(|token| token.id == id && token.until > now);
            // One that is not known is checked all the same, so that it cannot be told by the time it takes.
            let secret =
                found.and_then(|at| content.tokens.get(at)).and_then(|token| model::Digest::from_hex(&token.secret));
            let holds = mac_holds(&secret.map_or([0; 32], |secret| secret.0), request, mac);
            found.filter(|_| holds && secret.is_some())
        };
        // Whoever has no token must not make the disk work: nothing is written for a wrong one.
        if holds(&self.lock()).is_none() {
            return Ok(Err(NotAdmitted::Token));
        }
        self.change(|content| match holds(content) {
            Some(at) => {
                let token = content.tokens.swap_remove(at);
                Ok(Ok((token.name, token.labels)))
            }
            // Somebody else was faster.
            None => Ok(Err(NotAdmitted::Token)),
        })
    }

    /// Takes in an outpost with its first certificate; gives those whose name it takes over, which are revoked.
    pub(super) fn enrol(&self, new: Enrolled, now: i64) -> Result<Vec<Enrolled>, OutpostsError> {
        self.change(|content| {
            if content.outposts.len() >= OUTPOSTS_MAX {
                content.outposts.retain(|outpost| outpost.revoked.is_none());
            }
            if content.outposts.len() >= OUTPOSTS_MAX {
                return Err(OutpostsError::TooMany("outposts"));
            }
            let mut replaced = Vec::new();
            for old in content.outposts.iter_mut().filter(|old| old.name == new.name && old.revoked.is_none()) {
                old.revoked = Some(now);
                replaced.push(old.clone());
            }
            content.outposts.push(new);
            Ok(replaced)
        })
    }

    /// Honours another certificate of an outpost.
    pub(super) fn renew(&self, id: &str, serial: Serial, now: i64) -> Result<(), OutpostsError> {
        self.change(|content| {
            let known = content.outposts.iter_mut().find(|outpost| outpost.id == id && outpost.revoked.is_none());
            let known = known.ok_or_else(|| OutpostsError::Unknown(id.to_owned()))?;
            known.serials.retain(|serial| serial.not_after > now);
            if known.serials.len() >= SERIALS_MAX {
                known.serials.remove(0);
            }
            known.serials.push(serial);
            Ok(())
        })
    }

    /// Whose certificate this is, if it is honoured.
    pub(super) fn admit(&self, serial: &str, now: i64) -> Result<Enrolled, NotAdmitted> {
        let content = self.lock();
        for outpost in &content.outposts {
            if let Some(found) = outpost.serials.iter().find(|known| known.serial == serial) {
                return match outpost.revoked {
                    Some(_) => Err(NotAdmitted::Revoked),
                    None if found.not_after <= now => Err(NotAdmitted::Expired),
                    None => Ok(outpost.clone()),
                };
            }
        }
        Err(NotAdmitted::Unknown)
    }

    /// Whether an outpost has a certificate that is honoured now.
    pub(super) fn stands(&self, id: &str, now: i64) -> Result<(), NotAdmitted> {
        let content = self.lock();
        let outpost = content.outposts.iter().find(|outpost| outpost.id == id).ok_or(NotAdmitted::Unknown)?;
        match outpost.revoked {
            Some(_) => Err(NotAdmitted::Revoked),
            None if outpost.valid_until().is_some_and(|until| until > now) => Ok(()),
            None => Err(NotAdmitted::Expired),
        }
    }

    /// Locks out the outpost with this name or id. Join tokens for it hold no more, also where nobody has joined yet.
    pub(super) fn revoke(&self, name: &str, now: i64) -> Result<Enrolled, OutpostsError> {
        let known = self.lock().outposts.iter().find(|outpost| outpost.id == name).map(|outpost| outpost.name.clone());
        let of_name = known.unwrap_or_else(|| name.to_owned());
        if self.lock().tokens.iter().any(|token| token.name == of_name) {
            // A token that is still out would let it in again.
            self.change(|content| {
                content.tokens.retain(|token| token.name != of_name);
                Ok(())
            })?;
        }
        self.change(|content| {
            let mut standing = content.outposts.iter_mut().filter(|outpost| outpost.revoked.is_none());
            let found = standing.find(|outpost| outpost.name == name || outpost.id == name);
            let found = found.ok_or_else(|| OutpostsError::Unknown(name.to_owned()))?;
            found.revoked = Some(now);
            Ok(found.clone())
        })
    }

    pub(super) fn all(&self) -> Vec<Enrolled> {
        self.lock().outposts.clone()
    }

    fn lock(&self) -> MutexGuard<'_, Content> {
        self.content.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the content, first on the disk and then here.
    fn change<T>(&self, change: impl FnOnce(&mut Content) -> Result<T, OutpostsError>) -> Result<T, OutpostsError> {
        let mut content = self.lock();
        let mut changed = content.clone();
        let result = change(&mut changed)?;
        let text = serde_json::to_vec_pretty(&changed).map_err(io::Error::other)?;
        files::replace(&self.directory.join(FILE), &text)?;
        *content = changed;
        Ok(result)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use link::token::mac;

    fn outpost(id: &str, name: &str) -> Enrolled {
        let serials = vec![Serial { serial: format!("{id}-1"), not_after: 1000 }];
        Enrolled { id: id.into(), name: name.into(), labels: vec![], since: 1, serials, revoked: None }
    }

    #[test]
    fn a_token_works_once_and_not_after_its_time_also_across_a_restart() {
        let place = tempfile::tempdir().unwrap();
        let registry = Registry::open(place.path()).unwrap();
        for id in [1, 2] {
            registry.invite([id; 8], [7; 32], "site-a", &["eu".into()], [0, 100]).unwrap();
        }
        let registry = Registry::open(place.path()).unwrap();
        let good = mac(&[7; 32], b"request");
        let none = Err(NotAdmitted::Token);
        assert_eq!(registry.redeem([1; 8], b"other", &good, 50).unwrap(), none, "another request");
        assert_eq!(registry.redeem([3; 8], b"request", &mac(&[0; 32], b"request"), 50).unwrap(), none, "no such");
        assert_eq!(registry.redeem([1; 8], b"request", &good, 100).unwrap(), none, "expired");
        assert_eq!(registry.redeem([1; 8], b"request", &good, 99).unwrap(), Ok(("site-a".into(), vec!["eu".into()])));
        assert_eq!(registry.redeem([1; 8], b"request", &good, 99).unwrap(), none, "used");
        let again = Registry::open(place.path()).unwrap();
        assert_eq!(again.redeem([1; 8], b"request", &good, 99).unwrap(), none, "used, also after a restart");
        assert!(again.redeem([2; 8], b"request", &good, 99).unwrap().is_ok());
    }

    #[test]
    fn a_revoked_outpost_and_an_expired_certificate_are_told_apart() {
        let place = tempfile::tempdir().unwrap();
        let registry = Registry::open(place.path()).unwrap();
        registry.enrol(outpost("a", "site-a"), 1).unwrap();
        assert!(registry.admit("a-1", 999).is_ok());
        assert_eq!(registry.admit("a-1", 1000), Err(NotAdmitted::Expired));
        assert_eq!(registry.admit("x", 1), Err(NotAdmitted::Unknown));
        registry.renew("a", Serial { serial: "a-2".into(), not_after: 2000 }, 900).unwrap();
        assert!(registry.admit("a-1", 999).is_ok(), "until it expires: the new one may not have arrived");
        assert!(registry.admit("a-2", 1500).is_ok());
        let replaced = registry.enrol(outpost("b", "site-a"), 5).unwrap();
        assert_eq!(replaced.iter().map(|one| one.id.as_str()).collect::<Vec<_>>(), ["a"], "its name is taken over");
        assert_eq!(registry.admit("a-2", 1500), Err(NotAdmitted::Revoked));
        registry.revoke("site-a", 6).unwrap();
        assert_eq!(registry.stands("b", 7), Err(NotAdmitted::Revoked));
        assert!(registry.revoke("site-a", 8).is_err());
    }
}
