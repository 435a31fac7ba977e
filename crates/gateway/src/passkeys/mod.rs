//! Passkeys: the keys with which people sign their decisions.
//!
//! ```text
//! begin ─▶ challenge ─▶ browser makes a key ─▶ finish ─▶ entry `passkey` ─▶ file
//! decision ─▶ its challenge ─▶ browser signs ─▶ verify ─▶ `decided`, with the signature
//! ```
//!
//! What a signature must be is checked in `ledger::passkey`, as it is later by whoever has the record; here is the memory
//! of whose keys there are, in a file with the entries that say so. The first key of a person is taken from whoever proves
//! to be that person; each further one must be confirmed by a key that is there, so that a stolen token enrols none.
//! Locking a person out removes its keys.
//!
//! Invariant: a key is on the record before anything that it signs is taken.

mod api;
mod page;

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use ledger::passkey::{PasskeyError, read_new_key, verify};
use model::{
    Assertion, Body, Digest, Entry, Identity, IdentityKind, IdentityName, Known, Passkey, PasskeyAction, Time,
};
use store::{Clock as _, GatewayEntry, RecordError, Recorder, SystemClock};

use crate::{files, random};

pub(crate) use api::{SignedForm, answer, not_taken, request_options};
pub(crate) use page::page;

/// Keys of one person.
const OF_ONE_MAX: usize = 8;
/// Keys in all.
const KEYS_MAX: usize = 16_384;
/// Enrolments under way.
const PENDING_MAX: usize = 1024;
/// How long an enrolment may take, from its challenge to its key.
pub(crate) const CEREMONY_MAX: Duration = Duration::from_secs(5 * 60);

/// Where the page is on which keys are made and used: what they belong to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Site {
    origin: String,
    rp_id: String,
}

impl Site {
    /// Of an origin as browsers write it: `https://HOST` or `https://HOST:PORT`, the host a name in lower case. Browsers
    /// make no passkeys for IP addresses.
    #[must_use]
    pub fn new(origin: &str) -> Option<Self> {
        let rest = origin.strip_prefix("https://")?;
        let host = match rest.split_once(':') {
            None => rest,
            // Browsers leave the usual port out.
            Some((host, port)) => {
                let number: u16 = port.parse().ok()?;
                (number != 443 && number != 0 && number.to_string() == port).then_some(host)?
            }
        };
        let label = |label: &str| {
            let fine = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
            !label.is_empty() && label.bytes().all(fine)
        };
        let last = host.rsplit('.').next()?;
        let name = host.len() <= 253 && host.split('.').all(label) && last.bytes().any(|b| b.is_ascii_lowercase());
        name.then(|| Self { origin: origin.to_owned(), rp_id: host.to_owned() })
    }

    /// Whether a key belongs here.
    fn has(&self, key: &Passkey) -> bool {
        key.origin == self.origin && key.rp_id == self.rp_id
    }
}

/// All passkeys of a gateway.
pub(crate) struct Passkeys {
    file: PathBuf,
    recorder: Recorder,
    /// By the credential's id, with the time of the entry.
    keys: Mutex<BTreeMap<String, (Time, Passkey)>>,
    pending: Mutex<HashMap<IdentityName, ([u8; 32], Instant)>>,
    /// Held while something changes: the record, then the file, then the memory.
    changing: Mutex<()>,
}

/// Why a key or a signature is not taken.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NotTaken {
    /// Not a person who is proven to be who they are.
    #[error("only people sign, each for themselves, and only when it is proven who they are")]
    NoPerson,
    /// No enrolment was begun, or too long ago.
    #[error("no enrolment was begun, or it took longer than five minutes")]
    NotBegun,
    /// There is one already, and it did not confirm.
    #[error("you have a passkey already, and only with its signature another one is added")]
    NotConfirmed,
    /// Who has a passkey signs.
    #[error("you have a passkey, and a decision of yours counts only with its signature")]
    Unsigned,
    /// The connection asks for a signature.
    #[error("this connection's approvals must be signed with a passkey, and you have none here")]
    MustSign,
    /// Somebody has it already.
    #[error("this passkey is enrolled already")]
    Known,
    /// Too many.
    #[error("{0}")]
    TooMany(&'static str),
    /// No such key.
    #[error("this passkey is not one of yours")]
    NotYours,
    /// Something about it is wrong.
    #[error(transparent)]
    Wrong(#[from] PasskeyError),
    /// It cannot be recorded.
    #[error("it cannot be recorded: {}", .0.for_client())]
    Record(#[from] RecordError),
    /// It cannot be remembered.
    #[error("it cannot be remembered: {0}")]
    Disk(#[from] io::Error),
}

impl Passkeys {
    /// Reads the file, if there is one.
    ///
    /// # Errors
    /// It cannot be read, or is damaged: who has a key must not get along without it by that.
    pub(crate) fn open(file: PathBuf, recorder: Recorder) -> io::Result<Self> {
        let mut keys = BTreeMap::new();
        for entry in files::entries(&file)? {
            match entry {
                Entry { time, body: Body::Passkey(key) } if key.action == PasskeyAction::Enrolled => {
                    keys.insert(key.credential.clone(), (time, key));
                }
                _ => return Err(files::damaged()),
            }
        }
        let (keys, pending, changing) = (Mutex::new(keys), Mutex::default(), Mutex::default());
        Ok(Self { file, recorder, keys, pending, changing })
    }

    /// Somebody's keys that belong to this site, with when they were enrolled.
    pub(crate) fn of(&self, who: &IdentityName, site: &Site) -> Vec<(Time, Passkey)> {
        let keys = self.lock();
        let own = keys.values().filter(|(_, key)| key.identity.name == *who && site.has(key));
        own.cloned().collect()
    }

    /// Whether somebody has a key, and so must sign.
    pub(crate) fn has(&self, who: &IdentityName, site: &Site) -> bool {
        self.lock().values().any(|(_, key)| key.identity.name == *who && site.has(key))
    }

    /// Begins an enrolment, in the place of one that was begun before. Gives the challenge.
    fn begin(&self, by: &Identity) -> Result<[u8; 32], NotTaken> {
        is_person(by)?;
        let mut pending = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
        pending.retain(|_, (_, begun)| begun.elapsed() < CEREMONY_MAX);
        if pending.len() >= PENDING_MAX && !pending.contains_key(&by.name) {
            return Err(NotTaken::TooMany("too many enrolments are under way; try again in some minutes"));
        }
        let challenge = random::bytes();
        pending.insert(by.name.clone(), (challenge, Instant::now()));
        Ok(challenge)
    }

    /// Ends an enrolment with the new key. It is on the record, and remembered, when this returns without an error.
    fn finish(
        &self,
        by: &Identity,
        site: &Site,
        authenticator_data: &[u8],
        client_data: &[u8],
        confirmed: Option<&Assertion>,
    ) -> Result<Passkey, NotTaken> {
        is_person(by)?;
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        // Once: what was tried is over.
        let begun = self.pending.lock().unwrap_or_else(PoisonError::into_inner).remove(&by.name);
        let (challenge, _) = begun.filter(|(_, at)| at.elapsed() < CEREMONY_MAX).ok_or(NotTaken::NotBegun)?;
        let new = read_new_key(&site.rp_id, &site.origin, &challenge, authenticator_data, client_data)?;
        let own = self.of(&by.name, site).len();
        if own > 0 {
            let confirmed = confirmed.ok_or(NotTaken::NotConfirmed)?;
            self.verify(&by.name, site, &Digest(challenge), confirmed)?;
        }
        {
            let keys = self.lock();
            if keys.contains_key(&new.credential) {
                return Err(NotTaken::Known);
            }
            if own >= OF_ONE_MAX || keys.len() >= KEYS_MAX {
                return Err(NotTaken::TooMany("there are as many passkeys already as there may be: 8 of a person"));
            }
        }
        let key = Passkey {
            action: PasskeyAction::Enrolled,
            identity: by.clone(),
            credential: new.credential,
            algorithm: new.algorithm,
            public_key: new.public_key,
            rp_id: site.rp_id.clone(),
            origin: site.origin.clone(),
            aaguid: new.aaguid,
        };
        self.note(key.clone())?;
        let mut next = self.lock().clone();
        next.insert(key.credential.clone(), (SystemClock.now(), key.clone()));
        if let Err(error) = self.write(&next) {
            // It signs nothing: the record is to say so.
            self.note(Passkey { action: PasskeyAction::Removed, ..key })?;
            return Err(error.into());
        }
        *self.lock() = next;
        Ok(key)
    }

    /// Whether this is a signature over this challenge by a key of this person, on this site.
    ///
    /// # Errors
    /// It is not; then nothing is signed.
    pub(crate) fn verify(
        &self,
        by: &IdentityName,
        site: &Site,
        challenge: &Digest,
        assertion: &Assertion,
    ) -> Result<(), NotTaken> {
        let key = self.lock().get(&assertion.credential).map(|(_, key)| key.clone());
        let key = key.filter(|key| key.identity.name == *by && site.has(key)).ok_or(NotTaken::NotYours)?;
        Ok(verify(&key, challenge, assertion)?)
    }

    /// Removes all keys of somebody, of every site. They sign no more from here on, also where this fails.
    ///
    /// # Errors
    /// The record or the disk refuses.
    pub(crate) fn remove_all(&self, who: &IdentityName) -> Result<(), NotTaken> {
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        self.pending.lock().unwrap_or_else(PoisonError::into_inner).remove(who);
        let (gone, next) = {
            let mut keys = self.lock();
            let all = std::mem::take(&mut *keys);
            let (gone, next): (BTreeMap<_, _>, _) =
                all.into_iter().partition(|(_, (_, key))| key.identity.name == *who);
            keys.clone_from(&next);
            (gone, next)
        };
        if gone.is_empty() {
            return Ok(());
        }
        let written = self.write(&next);
        for (_, key) in gone.into_values() {
            self.note(Passkey { action: PasskeyAction::Removed, ..key })?;
        }
        Ok(written?)
    }

    /// On the record, durably.
    fn note(&self, key: Passkey) -> Result<(), RecordError> {
        self.recorder.note(GatewayEntry::Passkey(key))?;
        self.recorder.flush()
    }

    fn write(&self, keys: &BTreeMap<String, (Time, Passkey)>) -> io::Result<()> {
        let entry = |(time, key): &(Time, Passkey)| Entry { time: *time, body: Body::Passkey(key.clone()) };
        files::replace_entries(&self.file, keys.values().map(entry))
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, (Time, Passkey)>> {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn is_person(by: &Identity) -> Result<(), NotTaken> {
    let person = by.name.kind() == IdentityKind::Human && by.known == Known::Verified && by.on_behalf_of.is_none();
    person.then_some(()).ok_or(NotTaken::NoPerson)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::*;
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    use model::{ChannelBinding, OnBehalfOf, Proof, ProofMethod};
    use p256::ecdsa::signature::Signer as _;
    use p256::ecdsa::{Signature, SigningKey};
    use sha2::{Digest as _, Sha256};
    use std::sync::Arc;
    use store::{Options, RealDisk, SystemRandom};

    const ORIGIN: &str = "https://gateway.example:8443";

    fn identity(name: &str) -> Identity {
        Identity {
            name: name.parse().unwrap(),
            known: Known::Verified,
            proof: Proof {
                method: ProofMethod::Jwt,
                channel: ChannelBinding::None,
                credential: "jwt:00".into(),
                evidence: None,
            },
            on_behalf_of: None,
            groups: vec![],
            run: None,
        }
    }

    /// An authenticator with one key.
    struct Authenticator(SigningKey, &'static [u8]);

    impl Authenticator {
        fn client_data(kind: &str, challenge: [u8; 32]) -> Vec<u8> {
            let challenge = URL_SAFE_NO_PAD.encode(challenge);
            format!(r#"{{"type":"{kind}","challenge":"{challenge}","origin":"{ORIGIN}","crossOrigin":false}}"#).into()
        }

        fn data(flags: u8) -> Vec<u8> {
            [&Sha256::digest("gateway.example")[..], &[flags, 0, 0, 0, 0]].concat()
        }

        /// The authenticator data and the client data of its key.
        fn create(&self, challenge: [u8; 32]) -> (Vec<u8>, Vec<u8>) {
            let point = self.0.verifying_key().to_sec1_point(false);
            let (x, y) = point.as_bytes().split_first().unwrap().1.split_at(32);
            let length = u8::try_from(self.1.len()).unwrap();
            let cose = [0xa5, 0x01, 0x02, 0x03, 0x26, 0x20, 0x01, 0x21, 0x58, 0x20];
            let id = [[0; 16].as_slice(), &[0, length], self.1].concat();
            let data = [Self::data(0x45), id, cose.to_vec(), x.to_vec(), vec![0x22, 0x58, 0x20], y.to_vec()].concat();
            (data, Self::client_data("webauthn.create", challenge))
        }

        fn sign(&self, challenge: [u8; 32]) -> Assertion {
            let (authenticator_data, client_data) = (Self::data(0x05), Self::client_data("webauthn.get", challenge));
            let signed = [&authenticator_data[..], &Sha256::digest(&client_data)[..]].concat();
            let signature: Signature = self.0.sign(&signed);
            let signature = signature.to_der().as_bytes().to_vec();
            Assertion { credential: URL_SAFE_NO_PAD.encode(self.1), authenticator_data, client_data, signature }
        }
    }

    #[test]
    fn keys_come_by_a_ceremony_and_further_ones_by_a_key_that_is_there() {
        let directory = tempfile::tempdir().unwrap();
        let data = directory.path().join("data");
        Recorder::create(&data, "gateway.example/1").unwrap();
        let disk = Arc::new(RealDisk::new(&data));
        let (recorder, _) =
            Recorder::open(disk, Options::new("gateway.example/1"), Arc::new(SystemClock), Box::new(SystemRandom))
                .unwrap();
        let file = directory.path().join("passkeys");
        let passkeys = Passkeys::open(file.clone(), recorder.clone()).unwrap();
        let site = Site::new(ORIGIN).unwrap();
        let (bea, cem) = (identity("human:bea"), identity("human:cem"));
        let new = |byte, id| Authenticator(SigningKey::from_slice(&[byte; 32]).unwrap(), id);
        let (first, second) = (new(1, b"first".as_slice()), new(2, b"second".as_slice()));
        let finish = |by: &Identity, (data, client): (Vec<u8>, Vec<u8>), confirmed: Option<&Assertion>| {
            passkeys.finish(by, &site, &data, &client, confirmed)
        };

        // No agents, and nobody for somebody else.
        assert!(matches!(passkeys.begin(&identity("agent:a")), Err(NotTaken::NoPerson)));
        let on_behalf_of = Some(OnBehalfOf { name: bea.name.clone(), known: Known::Verified });
        assert!(matches!(passkeys.begin(&Identity { on_behalf_of, ..cem.clone() }), Err(NotTaken::NoPerson)));

        // A challenge is for one, and once.
        let challenge = passkeys.begin(&bea).unwrap();
        assert!(matches!(finish(&cem, first.create(challenge), None), Err(NotTaken::NotBegun)));
        assert!(matches!(finish(&bea, first.create([7; 32]), None), Err(NotTaken::Wrong(PasskeyError::Challenge))));
        assert!(matches!(finish(&bea, first.create(challenge), None), Err(NotTaken::NotBegun)));
        assert!(!passkeys.has(&bea.name, &site));
        let challenge = passkeys.begin(&bea).unwrap();
        finish(&bea, first.create(challenge), None).unwrap();
        assert!(passkeys.has(&bea.name, &site) && !passkeys.has(&cem.name, &site));
        assert!(!passkeys.has(&bea.name, &Site::new("https://gateway.example").unwrap()));

        // It signs, for its owner only.
        let signed = first.sign([9; 32]);
        passkeys.verify(&bea.name, &site, &Digest([9; 32]), &signed).unwrap();
        assert!(passkeys.verify(&bea.name, &site, &Digest([8; 32]), &signed).is_err());
        let other = passkeys.verify(&cem.name, &site, &Digest([9; 32]), &signed);
        assert!(matches!(other, Err(NotTaken::NotYours)));

        // The same key for another one; another key without, and with a signature of the first.
        let challenge = passkeys.begin(&cem).unwrap();
        assert!(matches!(finish(&cem, first.create(challenge), None), Err(NotTaken::Known)));
        let challenge = passkeys.begin(&bea).unwrap();
        assert!(matches!(finish(&bea, second.create(challenge), None), Err(NotTaken::NotConfirmed)));
        let challenge = passkeys.begin(&bea).unwrap();
        let own = second.sign(challenge);
        assert!(matches!(finish(&bea, second.create(challenge), Some(&own)), Err(NotTaken::NotYours)));
        let challenge = passkeys.begin(&bea).unwrap();
        finish(&bea, second.create(challenge), Some(&first.sign(challenge))).unwrap();

        // Over a restart, until they are removed.
        let again = Passkeys::open(file.clone(), recorder.clone()).unwrap();
        assert_eq!(again.of(&bea.name, &site), passkeys.of(&bea.name, &site));
        again.remove_all(&bea.name).unwrap();
        assert!(again.verify(&bea.name, &site, &Digest([9; 32]), &signed).is_err());
        assert!(!Passkeys::open(file.clone(), recorder.clone()).unwrap().has(&bea.name, &site));
        std::fs::write(&file, "{}").unwrap();
        assert!(Passkeys::open(file, recorder).is_err(), "who has a key does not get along without it by that");
    }

    #[test]
    fn a_site_is_an_origin_as_browsers_write_it() {
        for (origin, host) in [
            ("https://gateway.example", "gateway.example"),
            ("https://gateway.example:8443", "gateway.example"),
            ("https://localhost:1", "localhost"),
        ] {
            assert_eq!(Site::new(origin).map(|site| site.rp_id).as_deref(), Some(host));
        }
        for origin in [
            "http://gateway.example",
            "https://gateway.example/",
            "https://gateway.example:443",
            "https://gateway.example:08443",
            "https://gateway.example:0",
            "https://Gateway.example",
            "https://127.0.0.1:8443",
            "https://[::1]",
            "https://a@b",
            "https://",
            "gateway.example",
        ] {
            assert_eq!(Site::new(origin), None, "{origin}");
        }
    }
}
