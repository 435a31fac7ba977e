//! Cosignatures of witnesses: C2SP tlog-cosignature, the Ed25519 form `cosignature/v1` (type 0x04).
//!
//! A cosignature says: at this time, this was the largest consistent head of that log that the witness had seen. Its key
//! must be used for nothing else, because the signed text does not name the witness.
//!
//! Not for: deciding whether to cosign (see `witness`), or how many cosignatures are enough (see `policy`).

use std::fmt;
use std::str::FromStr;

use ed25519_dalek::Signer as _;

use crate::checkpoint::Checkpoint;
use crate::note::{
    NoteError, SignatureLine, SignedNote, check_name, check_text, key_id, key_text, split_key, verify_ed25519,
};

pub(crate) const COSIGNATURE_V1: u8 = 0x04;

/// The key of a witness.
pub struct CosignerKey {
    name: String,
    key: ed25519_dalek::SigningKey,
}

/// What verifies a witness's cosignatures.
#[derive(Clone, PartialEq, Eq)]
pub struct CosignerVerifier {
    name: String,
    key: ed25519_dalek::VerifyingKey,
}

impl CosignerKey {
    /// The key with this name and seed.
    ///
    /// # Errors
    /// The name is not one that a key can have.
    pub fn new(name: &str, seed: &[u8; 32]) -> Result<Self, NoteError> {
        check_name(name)?;
        Ok(Self { name: name.to_owned(), key: ed25519_dalek::SigningKey::from_bytes(seed) })
    }

    /// Reads the text form `PRIVATE+KEY+<name>+<id>+<base64>`.
    ///
    /// # Errors
    /// The text is not of that form, or not of this type of key.
    pub fn from_text(text: &str) -> Result<Self, NoteError> {
        let rest = text.trim_end_matches('\n').strip_prefix("PRIVATE+KEY+").ok_or(NoteError::SigningKey)?;
        let (name, id, bytes) = split_key(rest, COSIGNATURE_V1).ok_or(NoteError::SigningKey)?;
        let seed = bytes.try_into().map_err(|_| NoteError::SigningKey)?;
        let key = Self::new(name, &seed)?;
        if key.verifier().id() == id { Ok(key) } else { Err(NoteError::SigningKey) }
    }

    /// The text form. It is the secret itself.
    #[must_use]
    pub fn to_text(&self) -> String {
        format!("PRIVATE+KEY+{}", key_text(&self.name, self.verifier().id(), COSIGNATURE_V1, self.key.as_bytes()))
    }

    /// What verifies this key's cosignatures.
    #[must_use]
    pub fn verifier(&self) -> CosignerVerifier {
        CosignerVerifier { name: self.name.clone(), key: self.key.verifying_key() }
    }

    /// Cosigns the text of a checkpoint at a time, in seconds since 1970.
    ///
    /// # Errors
    /// The text is not that of a checkpoint, or the time is beyond what a cosignature can have.
    pub fn cosign(&self, checkpoint_text: &str, unix_seconds: u64) -> Result<SignatureLine, NoteError> {
        check_text(checkpoint_text)?;
        if Checkpoint::read(checkpoint_text).is_err() || i64::try_from(unix_seconds).is_err() {
            return Err(NoteError::Malformed);
        }
        let signature = self.key.sign(&message(checkpoint_text, unix_seconds));
        let mut bytes = unix_seconds.to_be_bytes().to_vec();
        bytes.extend_from_slice(&signature.to_bytes());
        Ok(SignatureLine { name: self.name.clone(), id: self.verifier().id(), signature: bytes })
    }
}

impl CosignerVerifier {
    /// The witness's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The key's id: the first four bytes of `SHA-256(name || 0x0A || 0x04 || key)`.
    #[must_use]
    pub fn id(&self) -> u32 {
        key_id(&self.name, COSIGNATURE_V1, self.key.as_bytes())
    }

    /// The public key itself: two witnesses with one key are one witness.
    #[must_use]
    pub fn key_bytes(&self) -> &[u8; 32] {
        self.key.as_bytes()
    }

    /// Verifies the cosignature of this witness on a note, and gives its time in seconds since 1970; the latest, if
    /// there are several.
    ///
    /// # Errors
    /// There is none, or one that is wrong, as every one is on what is no checkpoint.
    pub fn verify(&self, note: &SignedNote) -> Result<u64, NoteError> {
        let mut latest = None;
        for line in note.by(&self.name, self.id()) {
            let (time, signature) = line.signature.split_first_chunk::<8>().ok_or(NoteError::BadSignature)?;
            let time = u64::from_be_bytes(*time);
            if Checkpoint::read(note.text()).is_err() || i64::try_from(time).is_err() {
                return Err(NoteError::BadSignature);
            }
            verify_ed25519(&self.key, &message(note.text(), time), signature)?;
            latest = latest.max(Some(time));
        }
        latest.ok_or(NoteError::NotSigned)
    }
}

fn message(checkpoint_text: &str, unix_seconds: u64) -> Vec<u8> {
    format!("cosignature/v1\ntime {unix_seconds}\n{checkpoint_text}").into_bytes()
}

impl FromStr for CosignerVerifier {
    type Err = NoteError;

    fn from_str(text: &str) -> Result<Self, NoteError> {
        let (name, id, bytes) = split_key(text.trim_end_matches('\n'), COSIGNATURE_V1).ok_or(NoteError::CosignerKey)?;
        check_name(name)?;
        let bytes: [u8; 32] = bytes.try_into().map_err(|_| NoteError::CosignerKey)?;
        let key = ed25519_dalek::VerifyingKey::from_bytes(&bytes).map_err(|_| NoteError::CosignerKey)?;
        let key = Self { name: name.to_owned(), key };
        if key.id() == id { Ok(key) } else { Err(NoteError::CosignerKey) }
    }
}

impl fmt::Display for CosignerVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&key_text(&self.name, self.id(), COSIGNATURE_V1, self.key.as_bytes()))
    }
}

impl fmt::Debug for CosignerVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CosignerVerifier({self})")
    }
}

impl fmt::Debug for CosignerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CosignerKey({})", self.name)
    }
}
