//! Keys of identities, and the SCRAM-SHA-256 verifiers that the configuration keeps of them.
//!
//! A verifier proves a key without revealing it, and is written as PostgreSQL writes its own:
//! `SCRAM-SHA-256$4096:<salt>$<stored key>:<server key>`. Keys are made here and are ASCII, so SASLprep
//! leaves them as they are; keys that people bring are refused unless they are printable ASCII.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use serde::Deserialize;
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

/// Rounds of the key derivation, as PostgreSQL's default.
pub const ITERATIONS: u32 = 4096;
/// Bytes of salt of a new verifier.
pub const SALT_BYTES: usize = 16;
/// Characters of a made key after its prefix: 43 of base62 carry 256 bits.
const KEY_CHARACTERS: usize = 43;
const KEY_PREFIX: &str = "onr_";
/// What a client may ask the gateway to spend on one sign-in.
const ITERATIONS_MAX: u32 = 1_000_000;
const SALT_BYTES_MAX: usize = 64;

/// A verifier, checked for form.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct ScramSecret(String);

impl ScramSecret {
    /// The verifier of this key.
    pub fn derive(key: &str, salt: &[u8; SALT_BYTES]) -> Self {
        let salted = salted_password(key.as_bytes(), salt);
        let stored = Sha256::digest(hmac(&*salted, &[b"Client Key"]));
        let server = hmac(&*salted, &[b"Server Key"]);
        Self(format!(
            "SCRAM-SHA-256${ITERATIONS}:{}${}:{}",
            STANDARD.encode(salt),
            STANDARD.encode(stored),
            STANDARD.encode(server)
        ))
    }

    /// The verifier, as it stands in the configuration.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for ScramSecret {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        if well_formed(&text) {
            Ok(Self(text))
        } else {
            // Not repeated: it may be a key that somebody put here.
            Err("this is not a SCRAM-SHA-256 verifier\nhint: `onrecord identities add NAME` makes a key \
                 and its verifier; a key itself does not belong in this file"
                .to_owned())
        }
    }
}

impl fmt::Debug for ScramSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SCRAM-SHA-256$...")
    }
}

/// A new key: 256 bits from the system's source of randomness.
pub fn make_key() -> Result<Zeroizing<String>, getrandom::Error> {
    const DIGITS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    let mut key = Zeroizing::new(String::with_capacity(KEY_PREFIX.len() + KEY_CHARACTERS));
    key.push_str(KEY_PREFIX);
    let mut bytes = Zeroizing::new([0_u8; 64]);
    while key.len() < KEY_PREFIX.len() + KEY_CHARACTERS {
        getrandom::fill(&mut *bytes)?;
        // 248 is four times 62: the bytes above would make the first digits likelier.
        let digits = bytes.iter().filter(|byte| **byte < 248).filter_map(|b| DIGITS.get(usize::from(b % 62)));
        for digit in digits.take(KEY_PREFIX.len() + KEY_CHARACTERS - key.len()) {
            key.push(char::from(*digit));
        }
    }
    Ok(key)
}

/// A new salt.
pub fn make_salt() -> Result<[u8; SALT_BYTES], getrandom::Error> {
    let mut salt = [0; SALT_BYTES];
    getrandom::fill(&mut salt)?;
    Ok(salt)
}

/// Whether a key that somebody brings can be used: printable ASCII, and long enough not to be guessed.
pub fn usable_key(key: &str) -> Result<(), &'static str> {
    if !key.bytes().all(|byte| (b'!'..=b'~').contains(&byte)) {
        Err("the key has characters other than printable ASCII")
    } else if key.len() < 20 {
        Err("the key is shorter than 20 characters")
    } else if key.len() > 512 {
        Err("the key is longer than 512 characters")
    } else {
        Ok(())
    }
}

fn well_formed(text: &str) -> bool {
    let parts = || {
        let rest = text.strip_prefix("SCRAM-SHA-256$")?;
        let (salting, keys) = rest.split_once('$')?;
        let (iterations, salt) = salting.split_once(':')?;
        let (stored, server) = keys.split_once(':')?;
        Some((
            iterations.parse::<u32>().ok()?,
            STANDARD.decode(salt).ok()?.len(),
            STANDARD.decode(stored).ok()?.len(),
            STANDARD.decode(server).ok()?.len(),
        ))
    };
    parts().is_some_and(|(iterations, salt, stored, server)| {
        (ITERATIONS..=ITERATIONS_MAX).contains(&iterations)
            && (1..=SALT_BYTES_MAX).contains(&salt)
            && stored == 32
            && server == 32
    })
}

/// PBKDF2 with HMAC-SHA-256 and one block of output, which is what RFC 5802 calls `Hi`.
fn salted_password(password: &[u8], salt: &[u8]) -> Zeroizing<[u8; 32]> {
    let mut round = hmac(password, &[salt, &1_u32.to_be_bytes()]);
    let mut result = Zeroizing::new(round);
    for _ in 1..ITERATIONS {
        round = hmac(password, &[&round]);
        for (byte, more) in result.iter_mut().zip(round) {
            *byte ^= more;
        }
    }
    result
}

fn hmac(key: &[u8], parts: &[&[u8]]) -> [u8; 32] {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes a key of any length");
    for part in parts {
        mac.update(part);
    }
    mac.finalize().into_bytes().into()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn verifier_is_the_one_of_rfc_7677() {
        // RFC 7677, section 3: user "user", password "pencil", this salt, 4096 iterations. The keys were
        // computed with Python's hashlib.pbkdf2_hmac.
        let salt: [u8; 16] = STANDARD.decode("W22ZaJ0SNY7soEsUEjb6gQ==").unwrap().try_into().unwrap();
        assert_eq!(
            ScramSecret::derive("pencil", &salt).as_str(),
            "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU="
        );
    }

    #[test]
    fn keys_are_long_plain_and_differ() {
        let (one, two) = (make_key().unwrap(), make_key().unwrap());
        assert_eq!(one.len(), 47);
        assert!(one.starts_with("onr_"));
        assert!(usable_key(&one).is_ok());
        assert_ne!(*one, *two);
    }

    #[test]
    fn a_key_in_place_of_a_verifier_is_refused_and_not_repeated() {
        let refused = ScramSecret::try_from("hunter2hunter2".to_owned()).unwrap_err();
        assert!(!refused.contains("hunter2"), "{refused}");
        for text in ["SCRAM-SHA-256$4096:AA==$AA==:AA==", "SCRAM-SHA-256$1:W22ZaJ0SNY7soEsUEjb6gQ==$WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU="] {
            assert!(ScramSecret::try_from(text.to_owned()).is_err());
        }
    }
}
