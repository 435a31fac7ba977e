//! Connection tokens: short-lived, for one identity and one connection, opaque to who carries them. And certificates for
//! SSH keys, which are as short-lived.
//!
//! A token is `ort_ID_SECRET`. The gateway keeps SHA-256 of the secret; what the token proves is its entry on the record,
//! byte for byte, in a file of its own, so that it outlives a restart. Of a certificate the id is the serial number, and
//! SHA-256 of the public key takes the place of the secret's: what it proves is here, whatever is written in it.
//!
//! Invariant: what has expired or was taken back proves nothing, and no two of the checks take a different time by what
//! is secret.

use std::collections::HashMap;
use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use model::{Body, Digest, Entry, Identity, IdentityName, Opens, Time, Token, TokenAction};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

use crate::{hex, random};

/// What every token begins with.
pub(crate) const PREFIX: &str = "ort_";
/// Tokens at once.
const TOKENS_MAX: usize = 65_536;
/// Tokens at once of one identity.
const TOKENS_PER_IDENTITY_MAX: usize = 1024;
/// The longest life of a token.
pub const TOKEN_TTL_MAX: Duration = Duration::from_secs(24 * 60 * 60);
/// The end of the name of a token's file.
const SUFFIX: &str = "token";
/// A file larger than this is none of ours, bytes.
const FILE_BYTES_MAX: u64 = 128 * 1024;

/// The tokens that hold.
#[derive(Debug)]
pub(crate) struct Tokens {
    directory: PathBuf,
    held: Mutex<HashMap<String, Arc<Held>>>,
}

/// A token that holds.
#[derive(Debug)]
pub(crate) struct Held {
    /// SHA-256 of the secret, or of the public key.
    secret: [u8; 32],
    /// What it proves.
    pub(crate) token: Token,
}

impl Held {
    fn certifies(&self, key: Digest, now_us: i64) -> bool {
        matches!(self.token.opens, Opens::Ssh { .. }) && self.secret == key.0 && self.token.expires_us > now_us
    }
}

/// Why no token was handed out.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// The disk refused.
    #[error("the token cannot be kept: {0}")]
    Disk(#[from] io::Error),
    /// There are too many.
    #[error(
        "{who} has {count} tokens and certificates that still hold, which is the most it may have: wait until some expire"
    )]
    TooMany {
        /// Whose.
        who: String,
        /// How many.
        count: usize,
    },
}

impl Tokens {
    /// Reads the tokens of a directory, which is made if it is not there. What has expired is removed.
    pub(crate) fn open(directory: PathBuf, now_us: i64) -> io::Result<Self> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&directory)?;
        let mut held = HashMap::new();
        for file in fs::read_dir(&directory)? {
            let path = file?.path();
            if path.extension().is_none_or(|suffix| suffix != SUFFIX) {
                continue;
            }
            match read(&path) {
                Some(one) if one.token.expires_us > now_us => {
                    held.insert(one.token.id.clone(), Arc::new(one));
                }
                // Expired, or cut off by a crash before it was handed out.
                Some(_) | None => fs::remove_file(&path)?,
            }
        }
        Ok(Self { directory, held: Mutex::new(held) })
    }

    /// Hands out a token. It is on the disk when this returns; putting it on the record is the caller's.
    pub(crate) fn issue(
        &self,
        identity: Identity,
        connection: &str,
        client: String,
        expires_us: i64,
        now: Time,
    ) -> Result<(Zeroizing<String>, Token), TokenError> {
        let secret = Zeroizing::new(URL_SAFE_NO_PAD.encode(random::bytes::<32>()));
        let digest = Sha256::digest(secret.as_bytes()).into();
        let opens = Opens::Connection(connection.to_owned());
        let token = self.hold(digest, identity, opens, client, expires_us, now)?;
        let text = Zeroizing::new(format!("{PREFIX}{}_{}", token.id, *secret));
        Ok((text, token))
    }

    /// Keeps what a certificate for a key with this digest proves, as [`Tokens::issue`] does of a token.
    pub(crate) fn certify(
        &self,
        identity: Identity,
        opens: Opens,
        key: Digest,
        client: String,
        expires_us: i64,
        now: Time,
    ) -> Result<Token, TokenError> {
        self.hold(key.0, identity, opens, client, expires_us, now)
    }

    fn hold(
        &self,
        secret: [u8; 32],
        identity: Identity,
        opens: Opens,
        client: String,
        expires_us: i64,
        now: Time,
    ) -> Result<Token, TokenError> {
        self.sweep(now.wall_us);
        let count = |held: &HashMap<String, Arc<Held>>| {
            held.values().filter(|one| one.token.identity.name == identity.name).count()
        };
        let who = || identity.name.to_string();
        {
            let held = self.lock();
            let own = count(&held);
            if own >= TOKENS_PER_IDENTITY_MAX || held.len() >= TOKENS_MAX {
                return Err(TokenError::TooMany { who: who(), count: own });
            }
        }
        let id = hex(&random::bytes::<8>());
        let token = Token { action: TokenAction::Issued, id, identity, opens, expires_us, client: Some(client) };
        self.write(&secret, &token, now)?;
        self.lock().insert(token.id.clone(), Arc::new(Held { secret, token: token.clone() }));
        Ok(token)
    }

    /// What a text proves, if it is a token that holds.
    pub(crate) fn find(&self, text: &str, now_us: i64) -> Option<Arc<Held>> {
        let (id, secret) = text.strip_prefix(PREFIX)?.split_once('_')?;
        let given: [u8; 32] = Sha256::digest(secret.as_bytes()).into();
        let held = self.lock().get(id).cloned();
        // The same work whether or not there is one.
        let expected = held.as_ref().map_or([0; 32], |held| held.secret);
        let same = bool::from(expected.ct_eq(&given));
        // What takes the place of a certificate's secret is known to everybody.
        let is_token = |held: &Held| matches!(held.token.opens, Opens::Connection(_));
        held.filter(|held| same && is_token(held) && held.token.expires_us > now_us)
    }

    /// What a certificate for a key with this digest proves, if it holds. That the key's owner is there, and that the
    /// gateway signed the certificate, are the caller's to check.
    pub(crate) fn certificate(&self, serial: u64, key: Digest, now_us: i64) -> Option<Arc<Held>> {
        let held = self.lock().get(&format!("{serial:016x}")).cloned();
        held.filter(|held| held.certifies(key, now_us))
    }

    /// Whether any certificate for a key with this digest holds.
    pub(crate) fn is_certified(&self, key: Digest, now_us: i64) -> bool {
        self.lock().values().any(|held| held.certifies(key, now_us))
    }

    /// Takes back every token of an identity.
    pub(crate) fn revoke_all(&self, identity: &IdentityName) -> Vec<Token> {
        let mut taken = Vec::new();
        self.lock().retain(|_, held| {
            let keep = held.token.identity.name != *identity;
            if !keep {
                taken.push(held.token.clone());
            }
            keep
        });
        taken.iter().for_each(|token| self.remove(token));
        if !taken.is_empty()
            && let Err(error) = fs::File::open(&self.directory).and_then(|directory| directory.sync_all())
        {
            tracing::warn!(%error, "the end of connection tokens could not be synced");
        }
        taken
    }

    /// The tokens that hold.
    pub(crate) fn all(&self, now_us: i64) -> Vec<Arc<Held>> {
        self.lock().values().filter(|held| held.token.expires_us > now_us).cloned().collect()
    }

    /// Forgets what has expired.
    pub(crate) fn sweep(&self, now_us: i64) {
        let mut expired = Vec::new();
        self.lock().retain(|_, held| {
            let keep = held.token.expires_us > now_us;
            if !keep {
                expired.push(held.clone());
            }
            keep
        });
        expired.iter().for_each(|held| self.remove(&held.token));
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Arc<Held>>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn path(&self, id: &str) -> PathBuf {
        self.directory.join(id).with_extension(SUFFIX)
    }

    fn remove(&self, token: &Token) {
        // What is left is removed at the next start: by then it has expired, or its identity is still locked out.
        if let Err(error) = fs::remove_file(self.path(&token.id)) {
            tracing::warn!(%error, "a connection token's file could not be removed");
        }
    }

    fn write(&self, secret: &[u8; 32], token: &Token, time: Time) -> io::Result<()> {
        let path = self.path(&token.id);
        let mut bytes = hex(secret).into_bytes();
        bytes.push(b'\n');
        Entry { time, body: Body::Token(token.clone()) }.encode(&mut bytes);
        let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
        file.write_all(&bytes)?;
        file.sync_all()?;
        fs::File::open(&self.directory)?.sync_all()
    }
}

fn read(path: &Path) -> Option<Held> {
    if fs::metadata(path).ok()?.len() > FILE_BYTES_MAX {
        return None;
    }
    let bytes = fs::read(path).ok()?;
    let (secret, entry) = bytes.split_at_checked(bytes.iter().position(|&byte| byte == b'\n')?)?;
    let Body::Token(token) = Entry::decode(entry.get(1..)?).ok()?.body else {
        return None;
    };
    let secret = Digest::from_hex(std::str::from_utf8(secret).ok()?)?.0;
    // The name is what a client gives: a file under another one would answer to it.
    (path.file_stem()?.to_str()? == token.id).then_some(Held { secret, token })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use model::{ChannelBinding, Known, Proof, ProofMethod};

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
            groups: vec!["agents".into()],
            run: None,
        }
    }

    const NOW: Time = Time { wall_us: 1_000_000, boot_us: 1 };

    #[test]
    fn a_token_holds_until_its_time_and_over_a_restart() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("tokens");
        let tokens = Tokens::open(path.clone(), 0).unwrap();
        let (text, token) = tokens.issue(identity("agent:a"), "app", "::1".into(), 5_000_000, NOW).unwrap();
        assert_eq!(tokens.find(&text, 4_999_999).unwrap().token, token);
        assert!(tokens.find(&text, 5_000_000).is_none(), "expired");
        let again = Tokens::open(path.clone(), 4_000_000).unwrap();
        assert_eq!(again.find(&text, 4_000_000).unwrap().token, token);
        assert!(Tokens::open(path, 5_000_000).unwrap().all(0).is_empty());
        assert_eq!(fs::read_dir(directory.path().join("tokens")).unwrap().count(), 0);
    }

    #[test]
    fn what_is_not_the_token_proves_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let tokens = Tokens::open(directory.path().into(), 0).unwrap();
        let (text, token) = tokens.issue(identity("agent:a"), "app", "::1".into(), 5_000_000, NOW).unwrap();
        let zero = format!("{PREFIX}{}_{}", token.id, "A".repeat(43));
        for other in ["", "ort_", "ort__", &text[..text.len() - 1], &format!("{}x", *text), &zero, "ort_ffff_x"] {
            assert!(tokens.find(other, 1).is_none(), "{other}");
        }
        assert_eq!(tokens.revoke_all(&"agent:b".parse().unwrap()), []);
        assert_eq!(tokens.revoke_all(&"agent:a".parse().unwrap()), [token]);
        assert!(tokens.find(&text, 1).is_none());
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_certificate_is_for_its_key_and_no_token() {
        let directory = tempfile::tempdir().unwrap();
        let tokens = Tokens::open(directory.path().into(), 0).unwrap();
        // A key that could be sent as a password.
        let key = Digest(Sha256::digest("blob").into());
        let opens = Opens::Ssh { connections: vec!["web1".into()], key: "SHA256:x".into() };
        let token = tokens.certify(identity("agent:a"), opens, key, "::1".into(), 5_000_000, NOW).unwrap();
        let serial = u64::from_str_radix(&token.id, 16).unwrap();
        let again = Tokens::open(directory.path().into(), 0).unwrap();
        assert_eq!(again.certificate(serial, key, 1).unwrap().token, token);
        assert!(again.is_certified(key, 1) && !again.is_certified(key, 5_000_000));
        assert!(again.certificate(serial, key, 5_000_000).is_none(), "expired");
        assert!(again.certificate(serial, Digest([0; 32]), 1).is_none(), "another key");
        assert!(again.certificate(serial ^ 1, key, 1).is_none(), "another serial number");
        assert!(again.find(&format!("{PREFIX}{}_blob", token.id), 1).is_none());
        let (_, other) = again.issue(identity("agent:a"), "app", "::1".into(), 5_000_000, NOW).unwrap();
        let of_token = u64::from_str_radix(&other.id, 16).unwrap();
        let secret = again.lock().get(&other.id).unwrap().secret;
        assert!(again.certificate(of_token, Digest(secret), 1).is_none());
    }

    #[test]
    fn the_secret_is_not_on_the_disk() {
        let directory = tempfile::tempdir().unwrap();
        let tokens = Tokens::open(directory.path().into(), 0).unwrap();
        let (text, token) = tokens.issue(identity("agent:a"), "app", "::1".into(), 5_000_000, NOW).unwrap();
        let secret = text.rsplit_once('_').map(|_| text.split('_').nth(2).unwrap()).unwrap();
        let kept = fs::read_to_string(tokens.path(&token.id)).unwrap();
        assert!(!kept.contains(secret) && kept.contains("agent:a"));
    }

    #[test]
    fn one_identity_cannot_fill_the_disk() {
        let directory = tempfile::tempdir().unwrap();
        let tokens = Tokens::open(directory.path().into(), 0).unwrap();
        for _ in 0..TOKENS_PER_IDENTITY_MAX {
            let held = Held { secret: [0; 32], token: token_of("agent:a") };
            tokens.lock().insert(hex(&random::bytes::<8>()), Arc::new(held));
        }
        let refused = tokens.issue(identity("agent:a"), "app", "::1".into(), 5_000_000, NOW);
        assert!(matches!(refused, Err(TokenError::TooMany { .. })));
        assert!(tokens.issue(identity("agent:b"), "app", "::1".into(), 5_000_000, NOW).is_ok());
    }

    fn token_of(name: &str) -> Token {
        Token {
            action: TokenAction::Issued,
            id: "00".into(),
            identity: identity(name),
            opens: Opens::Connection("app".into()),
            expires_us: i64::MAX,
            client: None,
        }
    }
}
