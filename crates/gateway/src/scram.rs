//! SCRAM-SHA-256 (RFC 5802, RFC 7677), both sides, with `tls-server-end-point` channel binding
//! (RFC 5929).
//!
//! The gateway keeps only what PostgreSQL keeps of a secret (salt, StoredKey, ServerKey), so its
//! configuration cannot be used to log in anywhere. Towards the resource it is the client, and it
//! verifies the server's signature: a server that does not know the secret is not talked to.
//!
//! Not for: user names (PostgreSQL sends them in the startup message and ignores SCRAM's).

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as B64;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;
use zeroize::{Zeroize as _, Zeroizing};

/// Mechanism name without channel binding.
pub const SCRAM: &str = "SCRAM-SHA-256";
/// Mechanism name with channel binding.
pub const SCRAM_PLUS: &str = "SCRAM-SHA-256-PLUS";
/// Iterations of a new secret; the default of PostgreSQL's `scram_iterations`.
pub const ITERATIONS: u32 = 4096;
/// A server that asks for more is refused: each iteration is work it can make us do.
const ITERATIONS_MAX: u32 = 1_000_000;
/// Longest SCRAM message that is looked at, bytes.
const MESSAGE_BYTES_MAX: usize = 4096;
const KEY_BYTES: usize = 32;

type Key = [u8; KEY_BYTES];

/// What is kept of a secret: enough to check it, not enough to use it.
///
/// Its text form is the one of PostgreSQL's `pg_authid.rolpassword`:
/// `SCRAM-SHA-256$<iterations>:<salt>$<StoredKey>:<ServerKey>`.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret {
    iterations: u32,
    salt: Vec<u8>,
    stored_key: Key,
    server_key: Key,
}

impl Secret {
    /// Derives what is kept of `password`. `salt` should be 16 random bytes.
    pub fn derive(password: &[u8], salt: &[u8], iterations: u32) -> Self {
        let salted = salted_password(password, salt, iterations);
        let client_key = hmac(&salted, &[b"Client Key"]);
        Self {
            iterations,
            salt: salt.to_vec(),
            stored_key: Sha256::digest(client_key).into(),
            server_key: hmac(&salted, &[b"Server Key"]),
        }
    }

    /// Stands in for an identity that does not exist, so that the exchange looks the same and
    /// always fails. The salt is a function of the name: it does not change from try to try.
    fn mock(name: &[u8], mock_key: &Key) -> Self {
        let mut salt = hmac(mock_key, &[b"salt", name]).to_vec();
        salt.truncate(16);
        Self {
            iterations: ITERATIONS,
            salt,
            stored_key: hmac(mock_key, &[b"stored", name]),
            server_key: hmac(mock_key, &[b"server", name]),
        }
    }

    /// Whether `password` is the secret, in time that does not depend on where they differ.
    pub fn matches(&self, password: &[u8]) -> bool {
        let other = Self::derive(password, &self.salt, self.iterations);
        bool::from(other.stored_key.ct_eq(&self.stored_key))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{SCRAM}${}:{}${}:{}",
            self.iterations,
            B64.encode(&self.salt),
            B64.encode(self.stored_key),
            B64.encode(self.server_key)
        )
    }
}

impl FromStr for Secret {
    type Err = SecretError;

    fn from_str(text: &str) -> Result<Self, SecretError> {
        let parse = || -> Option<Self> {
            let (iterations, rest) = text.strip_prefix(SCRAM)?.strip_prefix('$')?.split_once(':')?;
            let (salt, keys) = rest.split_once('$')?;
            let (stored, server) = keys.split_once(':')?;
            let iterations = iterations.parse().ok()?;
            (1..=ITERATIONS_MAX).contains(&iterations).then_some(())?;
            Some(Self {
                iterations,
                salt: B64.decode(salt).ok()?,
                stored_key: B64.decode(stored).ok()?.try_into().ok()?,
                server_key: B64.decode(server).ok()?.try_into().ok()?,
            })
        };
        parse().ok_or(SecretError)
    }
}

/// A text is not a SCRAM secret.
#[derive(Debug, thiserror::Error)]
#[error("expected SCRAM-SHA-256$<iterations>:<salt>$<StoredKey>:<ServerKey>, as `onrecord identities add` writes it")]
pub struct SecretError;

/// What the channel below gives to bind to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Binding {
    /// No TLS: nothing to bind to.
    None,
    /// TLS; the hash of the server's certificate (RFC 5929, 4.1).
    EndPoint(Vec<u8>),
}

/// Why an exchange failed. The peer is told only that it did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ScramError {
    /// A message is not SCRAM.
    #[error("malformed SCRAM message")]
    Malformed,
    /// The client says that we offered no channel binding although we did: someone is in between.
    #[error("channel binding was downgraded")]
    Downgrade,
    /// The channel is not the one that the peer authenticated over.
    #[error("channel binding does not match")]
    Binding,
    /// The proof is wrong.
    #[error("wrong secret")]
    Proof,
    /// The server could not prove that it knows the secret.
    #[error("the server could not prove that it knows the secret")]
    ServerProof,
    /// The server asks for something that we do not do.
    #[error("the server asks for an unsupported extension or too many iterations")]
    Unsupported,
}

/// The gateway's side towards a client: waits for the client's proof.
pub struct ServerExchange {
    secret: Secret,
    known: bool,
    header: String,
    binding: Vec<u8>,
    /// client-first-bare "," server-first, the start of the AuthMessage.
    transcript: String,
    nonce: String,
}

/// How a client proved itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChannelBound {
    /// The proof holds on this TLS channel only.
    Yes,
    /// It does not name the channel.
    No,
}

impl ServerExchange {
    /// Takes the client's first message and gives the server's. `secret` is `None` for a name that
    /// does not exist; the exchange then goes on and fails at its end.
    pub fn start(
        mechanism: &str,
        client_first: &[u8],
        name: &[u8],
        secret: Option<&Secret>,
        mock_key: &[u8; 32],
        binding: &Binding,
        server_nonce: &[u8; 18],
    ) -> Result<(Self, String), ScramError> {
        let message = text(client_first)?;
        let (flag, rest) = message.split_once(',').ok_or(ScramError::Malformed)?;
        let (authzid, bare) = rest.split_once(',').ok_or(ScramError::Malformed)?;
        if !authzid.is_empty() {
            return Err(ScramError::Malformed);
        }
        let binding = match (flag, mechanism, binding) {
            ("n", SCRAM, _) => Vec::new(),
            ("y", SCRAM, Binding::None) => Vec::new(),
            ("y", SCRAM, Binding::EndPoint(_)) => return Err(ScramError::Downgrade),
            ("p=tls-server-end-point", SCRAM_PLUS, Binding::EndPoint(hash)) => hash.clone(),
            _ => return Err(ScramError::Malformed),
        };
        let mut parts = bare.split(',');
        let user = parts.next().ok_or(ScramError::Malformed)?;
        let client_nonce = parts.next().and_then(|part| part.strip_prefix("r=")).ok_or(ScramError::Malformed)?;
        if !user.starts_with("n=") || client_nonce.is_empty() {
            return Err(ScramError::Malformed);
        }
        let nonce = format!("{client_nonce}{}", B64.encode(server_nonce));
        let (known, secret) = match secret {
            Some(secret) => (true, secret.clone()),
            None => (false, Secret::mock(name, mock_key)),
        };
        let server_first = format!("r={nonce},s={},i={}", B64.encode(&secret.salt), secret.iterations);
        let exchange = Self {
            secret,
            known,
            header: format!("{flag},,"),
            binding,
            transcript: format!("{bare},{server_first}"),
            nonce,
        };
        Ok((exchange, server_first))
    }

    /// Checks the client's proof; gives the server's final message.
    pub fn finish(self, client_final: &[u8]) -> Result<(String, ChannelBound), ScramError> {
        let message = text(client_final)?;
        let (without_proof, proof) = message.rsplit_once(",p=").ok_or(ScramError::Malformed)?;
        let mut parts = without_proof.split(',');
        let channel = parts
            .next()
            .and_then(|part| part.strip_prefix("c="))
            .and_then(|part| B64.decode(part).ok())
            .ok_or(ScramError::Malformed)?;
        let expected = [self.header.as_bytes(), &self.binding].concat();
        if !bool::from(channel.ct_eq(&expected)) {
            return Err(ScramError::Binding);
        }
        let nonce = parts.next().and_then(|part| part.strip_prefix("r=")).ok_or(ScramError::Malformed)?;
        if nonce != self.nonce {
            return Err(ScramError::Malformed);
        }
        let proof: Key = B64.decode(proof).ok().and_then(|proof| proof.try_into().ok()).ok_or(ScramError::Malformed)?;
        let auth = format!("{},{without_proof}", self.transcript);
        let signature = hmac(&self.secret.stored_key, &[auth.as_bytes()]);
        let client_key = xor(&proof, &signature);
        let stored: Key = Sha256::digest(client_key).into();
        let equal = stored.ct_eq(&self.secret.stored_key);
        if !(bool::from(equal) & self.known) {
            return Err(ScramError::Proof);
        }
        let server = hmac(&self.secret.server_key, &[auth.as_bytes()]);
        let bound = if self.binding.is_empty() { ChannelBound::No } else { ChannelBound::Yes };
        Ok((format!("v={}", B64.encode(server)), bound))
    }
}

/// The gateway's side towards the resource: waits for the server's messages.
pub struct ClientExchange {
    password: Zeroizing<Vec<u8>>,
    header: &'static str,
    binding: Vec<u8>,
    nonce: String,
}

/// A client that has sent its proof and waits for the server's.
pub struct ServerProof {
    signature: Key,
}

impl ClientExchange {
    /// The mechanism to name, and the client's first message. Binds to the channel when there is
    /// one and the server offers it.
    pub fn start(
        password: &[u8],
        offered: &[&str],
        binding: &Binding,
        client_nonce: &[u8; 18],
    ) -> Result<(Self, &'static str, String), ScramError> {
        let (mechanism, header, binding) = match binding {
            Binding::EndPoint(hash) if offered.contains(&SCRAM_PLUS) => {
                (SCRAM_PLUS, "p=tls-server-end-point,,", hash.clone())
            }
            // "y": we could have bound; a server that did offer it will notice the downgrade.
            Binding::EndPoint(_) if offered.contains(&SCRAM) => (SCRAM, "y,,", Vec::new()),
            Binding::None if offered.contains(&SCRAM) => (SCRAM, "n,,", Vec::new()),
            _ => return Err(ScramError::Unsupported),
        };
        let nonce = B64.encode(client_nonce);
        let first = format!("{header}n=,r={nonce}");
        let exchange = Self { password: Zeroizing::new(password.to_vec()), header, binding, nonce };
        Ok((exchange, mechanism, first))
    }

    /// Takes the server's first message; gives the client's final one.
    pub fn prove(self, server_first: &[u8], cache: &SaltedCache) -> Result<(ServerProof, String), ScramError> {
        let message = text(server_first)?;
        let mut parts = message.split(',');
        let mut part = |prefix: &str| parts.next().and_then(|part| part.strip_prefix(prefix));
        let nonce = part("r=").ok_or(ScramError::Malformed)?;
        let salt = part("s=").and_then(|salt| B64.decode(salt).ok()).ok_or(ScramError::Malformed)?;
        let iterations: u32 = part("i=").and_then(|iterations| iterations.parse().ok()).ok_or(ScramError::Malformed)?;
        if !nonce.starts_with(&self.nonce) || nonce.len() == self.nonce.len() {
            return Err(ScramError::Malformed);
        }
        if iterations == 0 || iterations > ITERATIONS_MAX {
            return Err(ScramError::Unsupported);
        }
        let salted = cache.salted(&self.password, &salt, iterations);
        let client_key = hmac(&*salted, &[b"Client Key"]);
        let stored_key: Key = Sha256::digest(client_key).into();
        let channel = [self.header.as_bytes(), &self.binding].concat();
        let without_proof = format!("c={},r={nonce}", B64.encode(channel));
        let auth = format!("n=,r={},{message},{without_proof}", self.nonce);
        let proof = xor(&client_key, &hmac(&stored_key, &[auth.as_bytes()]));
        let server_key = hmac(&*salted, &[b"Server Key"]);
        let waiting = ServerProof { signature: hmac(&server_key, &[auth.as_bytes()]) };
        Ok((waiting, format!("{without_proof},p={}", B64.encode(proof))))
    }
}

impl ServerProof {
    /// Checks the server's final message.
    pub fn check(self, server_final: &[u8]) -> Result<(), ScramError> {
        let signature = text(server_final)?
            .strip_prefix("v=")
            .and_then(|v| B64.decode(v.split(',').next().unwrap_or_default()).ok())
            .ok_or(ScramError::ServerProof)?;
        if bool::from(signature.ct_eq(&self.signature)) { Ok(()) } else { Err(ScramError::ServerProof) }
    }
}

/// Remembers the salted password of one upstream credential, so that a new session need not spend
/// thousands of hash iterations on what the last one computed.
#[derive(Default)]
pub struct SaltedCache(std::sync::Mutex<Option<Salted>>);

struct Salted {
    salt: Vec<u8>,
    iterations: u32,
    password_hash: Key,
    salted: Zeroizing<Key>,
}

impl SaltedCache {
    fn salted(&self, password: &[u8], salt: &[u8], iterations: u32) -> Zeroizing<Key> {
        let password_hash: Key = Sha256::digest(password).into();
        if let Ok(kept) = self.0.lock()
            && let Some(kept) = kept.as_ref()
            && kept.salt == salt
            && kept.iterations == iterations
            && kept.password_hash == password_hash
        {
            return kept.salted.clone();
        }
        let salted = Zeroizing::new(salted_password(password, salt, iterations));
        if let Ok(mut kept) = self.0.lock() {
            *kept = Some(Salted { salt: salt.to_vec(), iterations, password_hash, salted: salted.clone() });
        }
        salted
    }
}

impl fmt::Debug for SaltedCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SaltedCache(..)")
    }
}

/// Hi() of RFC 5802, 2.2, over the SASLprep'ed password; a password that SASLprep refuses is used
/// as it is, as PostgreSQL does.
fn salted_password(password: &[u8], salt: &[u8], iterations: u32) -> Key {
    let mut prepared = std::str::from_utf8(password)
        .ok()
        .and_then(|password| stringprep::saslprep(password).ok())
        .map_or_else(|| password.to_vec(), |prepared| prepared.as_bytes().to_vec());
    let keyed = keyed(&prepared);
    prepared.zeroize();
    let mut first = keyed.clone();
    first.update(salt);
    first.update(&1u32.to_be_bytes());
    let mut block: Key = first.finalize().into_bytes().into();
    let mut result = block;
    for _ in 1..iterations {
        let mut next = keyed.clone();
        next.update(&block);
        block = next.finalize().into_bytes().into();
        result = xor(&result, &block);
    }
    result
}

fn hmac(key: &[u8], parts: &[&[u8]]) -> Key {
    let mut mac = keyed(key);
    for part in parts {
        mac.update(part);
    }
    mac.finalize().into_bytes().into()
}

fn keyed(key: &[u8]) -> Hmac<Sha256> {
    Hmac::new_from_slice(key).expect("HMAC takes a key of any length")
}

fn xor(left: &Key, right: &Key) -> Key {
    let mut out = *left;
    for (out, right) in out.iter_mut().zip(right) {
        *out ^= right;
    }
    out
}

fn text(message: &[u8]) -> Result<&str, ScramError> {
    if message.len() > MESSAGE_BYTES_MAX {
        return Err(ScramError::Malformed);
    }
    std::str::from_utf8(message).map_err(|_| ScramError::Malformed)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const MOCK: [u8; 32] = [7; 32];

    fn exchange(password: &[u8], secret: Option<&Secret>, binding: &Binding) -> Result<ChannelBound, ScramError> {
        let offered: &[&str] = match binding {
            Binding::None => &[SCRAM],
            Binding::EndPoint(_) => &[SCRAM_PLUS, SCRAM],
        };
        let (client, mechanism, first) = ClientExchange::start(password, offered, binding, &[1; 18])?;
        let (server, server_first) =
            ServerExchange::start(mechanism, first.as_bytes(), b"bea", secret, &MOCK, binding, &[2; 18])?;
        let (proof, client_final) = client.prove(server_first.as_bytes(), &SaltedCache::default())?;
        let (server_final, bound) = server.finish(client_final.as_bytes())?;
        proof.check(server_final.as_bytes())?;
        Ok(bound)
    }

    #[test]
    fn both_sides_agree_with_and_without_a_channel() {
        let secret = Secret::derive(b"pencil", b"0123456789abcdef", 64);
        assert_eq!(exchange(b"pencil", Some(&secret), &Binding::None), Ok(ChannelBound::No));
        let channel = Binding::EndPoint(vec![9; 32]);
        assert_eq!(exchange(b"pencil", Some(&secret), &channel), Ok(ChannelBound::Yes));
    }

    #[test]
    fn a_wrong_secret_and_an_unknown_name_fail_alike() {
        let secret = Secret::derive(b"pencil", b"0123456789abcdef", 64);
        assert_eq!(exchange(b"pen", Some(&secret), &Binding::None), Err(ScramError::Proof));
        assert_eq!(exchange(b"pencil", None, &Binding::None), Err(ScramError::Proof));
    }

    #[test]
    fn a_downgrade_is_noticed() {
        let secret = Secret::derive(b"pencil", b"0123456789abcdef", 64);
        let channel = Binding::EndPoint(vec![9; 32]);
        let (_, mechanism, first) = ClientExchange::start(b"pencil", &[SCRAM], &channel, &[1; 18]).unwrap();
        let answer =
            ServerExchange::start(mechanism, first.as_bytes(), b"bea", Some(&secret), &MOCK, &channel, &[2; 18]);
        assert_eq!(answer.err(), Some(ScramError::Downgrade));
    }

    /// The example of RFC 7677, section 3.
    #[test]
    fn derives_what_the_rfc_derives() {
        let salt = B64.decode("W22ZaJ0SNY7soEsUEjb6gQ==").unwrap();
        let secret = Secret::derive(b"pencil", &salt, 4096);
        let auth = "n=user,r=rOprNGfwEbeRWgbNEkqO,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
                    s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096,c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0";
        let server = hmac(&secret.server_key, &[auth.as_bytes()]);
        assert_eq!(B64.encode(server), "6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=");
    }

    #[test]
    fn the_text_form_survives_a_round_trip_and_shows_no_key_in_debug() {
        let secret = Secret::derive(b"pencil", b"0123456789abcdef", 4096);
        let text = secret.to_string();
        assert_eq!(text.parse::<Secret>().unwrap(), secret);
        assert!(secret.matches(b"pencil") && !secret.matches(b"pencil2"));
        assert_eq!(format!("{secret:?}"), "Secret(..)");
        for bad in ["", "pencil", "SCRAM-SHA-256$0:YQ==$YQ==:YQ==", "md5abc"] {
            assert!(bad.parse::<Secret>().is_err());
        }
    }
}
