//! Keys of identities, and the verifiers that the configuration keeps of them.
//!
//! A key is 256 random bits in plain characters, shown once. What stays is its SCRAM-SHA-256 verifier, which
//! proves the key and does not reveal it.

use gateway::scram::{ITERATIONS, Secret};
use serde::Deserialize;
use zeroize::Zeroizing;

/// Bytes of salt of a new verifier.
const SALT_BYTES: usize = 16;
/// Characters of a made key after its prefix: 43 of base62 carry 256 bits.
const KEY_CHARACTERS: usize = 43;
const KEY_PREFIX: &str = "onr_";

/// A verifier as it stands in the configuration.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Verifier(Secret);

impl Verifier {
    /// The verifier of this key, under a new salt.
    ///
    /// # Errors
    /// The system gave no randomness.
    pub fn of(key: &str) -> Result<Self, getrandom::Error> {
        let mut salt = [0; SALT_BYTES];
        getrandom::fill(&mut salt)?;
        Ok(Self(Secret::derive(key.as_bytes(), &salt, ITERATIONS)))
    }

    /// What names the key in the record: its verifier's salt, which anybody may know, and which is another
    /// one for every key.
    pub fn credential(&self) -> String {
        let text = self.0.to_string();
        let salt = text.split([':', '$']).nth(2).unwrap_or_default();
        format!("salt:{salt}")
    }

    /// As the gateway takes it.
    pub fn secret(&self) -> &Secret {
        &self.0
    }
}

impl std::fmt::Display for Verifier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(&self.0, f)
    }
}

impl TryFrom<String> for Verifier {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        // The text is not repeated: it may be a key that somebody put here.
        text.parse().map(Self).map_err(|_| {
            "this is not a SCRAM-SHA-256 verifier\nhint: `onrecord identities add NAME` makes a key and its \
             verifier; a key itself does not belong in this file"
        })
    }
}

/// A new key.
///
/// # Errors
/// The system gave no randomness.
pub fn make_key() -> Result<Zeroizing<String>, getrandom::Error> {
    const DIGITS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    const LENGTH: usize = KEY_PREFIX.len() + KEY_CHARACTERS;
    let mut key = Zeroizing::new(String::with_capacity(LENGTH));
    key.push_str(KEY_PREFIX);
    let mut bytes = Zeroizing::new([0_u8; 64]);
    while key.len() < LENGTH {
        getrandom::fill(&mut *bytes)?;
        // 248 is four times 62: the bytes above would make the first digits likelier.
        let digits = bytes.iter().filter(|byte| **byte < 248);
        for digit in digits.take(LENGTH - key.len()) {
            key.extend(DIGITS.get(usize::from(digit % 62)).copied().map(char::from));
        }
    }
    Ok(key)
}

/// Whether a key that somebody brings can be used: printable ASCII, and long enough not to be guessed.
///
/// # Errors
/// What is wrong with it.
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

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_long_plain_and_differ() {
        let (one, two) = (make_key().unwrap(), make_key().unwrap());
        assert_eq!(one.len(), 47);
        assert!(one.starts_with("onr_"));
        assert!(usable_key(&one).is_ok());
        assert_ne!(*one, *two);
        assert_ne!(Verifier::of(&one).unwrap().credential(), Verifier::of(&one).unwrap().credential());
        assert_eq!(Verifier::of(&one).unwrap().credential().len(), "salt:".len() + 24);
        assert!(Verifier::of(&one).unwrap().secret().matches(one.as_bytes()));
    }

    #[test]
    fn a_key_in_place_of_a_verifier_is_refused_and_not_repeated() {
        let refused = Verifier::try_from("hunter2hunter2".to_owned()).unwrap_err();
        assert!(!refused.contains("hunter2"), "{refused}");
    }
}
