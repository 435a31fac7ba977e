//! The key that wraps a data directory's seal key, so that a copy of the data directory alone opens nothing.
//!
//! `keys/seal` holds the key under which all session keys are kept. Without a [`WrappingKey`] it is there in clear, guarded
//! by the file's mode; with one, it is encrypted, and only who has the wrapping key opens it. The wrapping key is asked
//! once when a log is opened and once when the seal key is wrapped anew, never in a command's way: it may be far away
//! and slow.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use model::seal::{KeyPlace, WRAPPED_BYTES, unwrap_key, wrap_key};
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

/// A wrapped seal key has at most this many bytes: what key management services give is far below.
pub const WRAPPED_BYTES_MAX: usize = 2048;
/// The id of a wrapping key has at most this many bytes.
pub const KEY_ID_BYTES_MAX: usize = 512;

/// A key that wraps other keys: in a file, in a key management service, in a hardware module.
pub trait WrappingKey: fmt::Debug + Send + Sync + 'static {
    /// Its name: printable ASCII without spaces. It stands beside what it wrapped and reveals nothing of the key.
    fn id(&self) -> &str;

    /// Encrypts a key. It may wait for a service.
    ///
    /// # Errors
    /// The key cannot be used at the moment, or not at all.
    fn wrap(&self, key: &[u8; 32]) -> Result<Vec<u8>, WrapError>;

    /// Decrypts what [`WrappingKey::wrap`] gave.
    ///
    /// # Errors
    /// The key cannot be used, or it is not the one that wrapped this.
    fn unwrap(&self, wrapped: &[u8]) -> Result<Zeroizing<[u8; 32]>, WrapError>;
}

/// A wrapping key could not be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{why}")]
pub struct WrapError {
    /// Why, without any secret.
    pub why: String,
}

impl WrapError {
    /// An error with this reason.
    pub fn new(why: impl Into<String>) -> Self {
        Self { why: why.into() }
    }
}

/// A wrapping key of 32 random bytes, from a file or the environment: AES-256-GCM.
pub struct LocalKey {
    key: Zeroizing<[u8; 32]>,
    id: String,
}

impl LocalKey {
    /// The key of this text: 32 bytes in base64, or in hexadecimal. `openssl rand -base64 32` makes one.
    ///
    /// # Errors
    /// The text is something else. The error does not repeat it.
    pub fn parse(text: &[u8]) -> Result<Self, WrapError> {
        let text = text.trim_ascii();
        let bytes =
            Zeroizing::new(if text.len() == 64 { unhex(text) } else { BASE64.decode(text).ok() }.unwrap_or_default());
        let key = <[u8; 32]>::try_from(bytes.as_slice()).map(Zeroizing::new).map_err(|_| {
            WrapError::new(
                "a wrapping key is 32 random bytes, written in base64 or hexadecimal; `openssl rand -base64 32` makes one",
            )
        })?;
        let digest =
            model::Digest(Sha256::new().chain_update(b"onrecord/v1 wrapping key").chain_update(*key).finalize().into());
        let id = format!("local:{}", digest.hex().get(..16).unwrap_or_default());
        Ok(Self { key, id })
    }
}

fn unhex(text: &[u8]) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    text.chunks_exact(2)
        .map(|pair| match pair {
            [high, low] => Some(digit(*high)? << 4 | digit(*low)?),
            _ => None,
        })
        .collect()
}

impl fmt::Debug for LocalKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LocalKey({})", self.id)
    }
}

impl WrappingKey for LocalKey {
    fn id(&self) -> &str {
        &self.id
    }

    fn wrap(&self, key: &[u8; 32]) -> Result<Vec<u8>, WrapError> {
        let mut nonce = [0; 12];
        getrandom::fill(&mut nonce).map_err(|error| WrapError::new(format!("no random bytes: {error}")))?;
        Ok([&nonce[..], &wrap_key(&self.key, KeyPlace::Seal, nonce, key)].concat())
    }

    fn unwrap(&self, wrapped: &[u8]) -> Result<Zeroizing<[u8; 32]>, WrapError> {
        let altered = || WrapError::new("it is not the key that wrapped this, or what was wrapped has been altered");
        let (nonce, wrapped) = wrapped.split_at_checked(12).ok_or_else(altered)?;
        let (Ok(nonce), Ok(wrapped)) = (<[u8; 12]>::try_from(nonce), <&[u8; WRAPPED_BYTES]>::try_from(wrapped)) else {
            return Err(altered());
        };
        unwrap_key(&self.key, KeyPlace::Seal, nonce, wrapped).map_err(|_| altered())
    }
}

/// What a seal key's file says.
pub(crate) enum SealFile {
    Clear(Zeroizing<[u8; 32]>),
    Wrapped { id: String, wrapped: Vec<u8> },
}

const FIRST_LINE: &str = "onrecord/v1 wrapped seal key";

impl SealFile {
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, &'static str> {
        if let Ok(key) = <[u8; 32]>::try_from(bytes) {
            return Ok(Self::Clear(Zeroizing::new(key)));
        }
        let malformed = "neither 32 bytes nor a wrapped key";
        let text = std::str::from_utf8(bytes).map_err(|_| malformed)?;
        let mut lines = text.strip_suffix('\n').ok_or(malformed)?.split('\n');
        let (Some(FIRST_LINE), Some(id), Some(wrapped), None) =
            (lines.next(), lines.next(), lines.next(), lines.next())
        else {
            return Err(malformed);
        };
        let wrapped = BASE64.decode(wrapped).map_err(|_| malformed)?;
        if !is_id(id) || wrapped.is_empty() || wrapped.len() > WRAPPED_BYTES_MAX {
            return Err(malformed);
        }
        Ok(Self::Wrapped { id: id.to_owned(), wrapped })
    }

    pub(crate) fn encode(&self) -> Zeroizing<Vec<u8>> {
        Zeroizing::new(match self {
            Self::Clear(key) => key.to_vec(),
            Self::Wrapped { id, wrapped } => format!("{FIRST_LINE}\n{id}\n{}\n", BASE64.encode(wrapped)).into_bytes(),
        })
    }

    /// Wraps a seal key, and makes sure that it will be unwrapped again.
    pub(crate) fn wrap(key: &[u8; 32], wrapping: &dyn WrappingKey) -> Result<Self, WrappingError> {
        let id = wrapping.id().to_owned();
        let failed = |why: WrapError| WrappingError::Unusable { id: wrapping.id().to_owned(), why };
        if !is_id(&id) {
            return Err(failed(WrapError::new("its id is not printable ASCII without spaces")));
        }
        let wrapped = wrapping.wrap(key).map_err(failed)?;
        let back = wrapping.unwrap(&wrapped).map_err(failed)?;
        if *back != *key || wrapped.len() > WRAPPED_BYTES_MAX {
            return Err(failed(WrapError::new("it does not give back what it wrapped")));
        }
        Ok(Self::Wrapped { id, wrapped })
    }

    pub(crate) fn open(self, wrapping: Option<&dyn WrappingKey>) -> Result<Zeroizing<[u8; 32]>, WrappingError> {
        match (self, wrapping) {
            (Self::Clear(key), _) => Ok(key),
            (Self::Wrapped { id, .. }, None) => Err(WrappingError::Missing { id }),
            (Self::Wrapped { id, .. }, Some(wrapping)) if wrapping.id() != id => {
                Err(WrappingError::Other { id, given: wrapping.id().to_owned() })
            }
            (Self::Wrapped { id, wrapped }, Some(wrapping)) => {
                wrapping.unwrap(&wrapped).map_err(|why| WrappingError::Unusable { id, why })
            }
        }
    }
}

fn is_id(id: &str) -> bool {
    (1..=KEY_ID_BYTES_MAX).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_graphic())
}

/// How a data directory's seal key is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wrapping {
    /// In clear.
    None,
    /// Wrapped by the key with this id.
    By(String),
}

/// The seal key cannot be had, so content can be neither sealed nor opened.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WrappingError {
    /// No wrapping key was given.
    #[error(
        "keys/seal is wrapped by the key {id}, and no wrapping key was given; name it as `wrapping_key` in [record]"
    )]
    Missing {
        /// The key that wrapped it.
        id: String,
    },
    /// Another wrapping key was given.
    #[error(
        "keys/seal is wrapped by the key {id}, and the key {given} was given; \
         `onrecord keys rewrap --from ...` changes from one to the other"
    )]
    Other {
        /// The key that wrapped it.
        id: String,
        /// The key that was given.
        given: String,
    },
    /// The wrapping key did not do its work.
    #[error("the wrapping key {id} cannot be used: {why}")]
    Unusable {
        /// The key.
        id: String,
        /// Why.
        why: WrapError,
    },
    /// A wrapping key is configured, and the seal key is in clear.
    #[error("keys/seal is in clear, although the wrapping key {given} was given; `onrecord keys rewrap` wraps it")]
    NotWrapped {
        /// The key that was given.
        given: String,
    },
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::*;

    #[test]
    fn local_keys_are_read_in_both_forms() {
        let hex = "00112233445566778899aabbccddeeff00112233445566778899AABBCCDDEEFF";
        let base64 = "ABEiM0RVZneImaq7zN3u/wARIjNEVWZ3iJmqu8zd7v8=\n";
        let (one, other) = (LocalKey::parse(hex.as_bytes()).unwrap(), LocalKey::parse(base64.as_bytes()).unwrap());
        assert_eq!(one.id(), other.id());
        assert!(!format!("{one:?}").contains("0011"));
        for wrong in ["", "hunter2", "AAAA", &hex[1..], &format!("{}gg", &hex[..62])] {
            let error = LocalKey::parse(wrong.as_bytes()).unwrap_err();
            assert!(wrong.is_empty() || !error.to_string().contains(wrong), "{error}");
        }
    }

    #[test]
    fn a_wrapped_key_opens_with_its_own_key_only() {
        let (one, other) = (LocalKey::parse(&[b'1'; 64]).unwrap(), LocalKey::parse(&[b'2'; 64]).unwrap());
        let file = SealFile::wrap(&[7; 32], &one).unwrap();
        let bytes = file.encode();
        assert!(!bytes.windows(4).any(|window| window == [7; 4]));
        let read = || SealFile::parse(&bytes).unwrap();
        assert_eq!(*read().open(Some(&one)).unwrap(), [7; 32]);
        assert!(matches!(read().open(None), Err(WrappingError::Missing { .. })));
        assert!(matches!(read().open(Some(&other)), Err(WrappingError::Other { .. })));
        let SealFile::Wrapped { mut wrapped, id } = read() else { panic!("not wrapped") };
        wrapped[20] ^= 1;
        let altered = SealFile::Wrapped { id, wrapped };
        assert!(matches!(altered.open(Some(&one)), Err(WrappingError::Unusable { .. })));
    }

    #[test]
    fn other_files_are_no_seal_keys() {
        for text in ["", "x", "onrecord/v1 wrapped seal key\nlocal:1\n", "onrecord/v1 wrapped seal key\na b\nAAAA\n"] {
            assert!(SealFile::parse(text.as_bytes()).is_err(), "{text:?}");
        }
    }
}
