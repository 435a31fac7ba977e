//! Signed notes with Ed25519 signatures: C2SP signed-note.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::Signer as _;
use sha2::{Digest as _, Sha256};

/// A note is at most this long, in bytes.
pub const NOTE_BYTES_MAX: usize = 64 * 1024;

/// A note has at most this many signatures.
pub const SIGNATURES_MAX: usize = 64;

const ED25519: u8 = 0x01;

/// A key that signs notes.
pub struct SigningKey {
    name: String,
    key: ed25519_dalek::SigningKey,
}

/// A key that verifies notes.
#[derive(Clone, PartialEq, Eq)]
pub struct VerifierKey {
    name: String,
    key: ed25519_dalek::VerifyingKey,
}

/// A note whose signature by one known key was verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    text: String,
}

/// What is wrong with a note or a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoteError {
    /// Not the text of a signing key.
    #[error("a signing key is written as PRIVATE+KEY+<name>+<id>+<base64>")]
    SigningKey,
    /// Not the text of a verifier key.
    #[error("a verifier key is written as <name>+<id>+<base64>, with the key type Ed25519")]
    VerifierKey,
    /// A name that no key can have.
    #[error("a key name is not empty and has no spaces, no plus signs and no control characters")]
    Name,
    /// Not a signed note.
    #[error("this is no signed note: text, an empty line, and signature lines")]
    Malformed,
    /// No signature by the expected key.
    #[error("the note has no signature by the expected key")]
    NotSigned,
    /// A signature by the expected key that is wrong.
    #[error("the note's signature is wrong: the text was altered, or it was not signed by this key")]
    BadSignature,
}

impl SigningKey {
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
    /// The text is not of that form.
    pub fn from_text(text: &str) -> Result<Self, NoteError> {
        let rest = text.trim_end_matches('\n').strip_prefix("PRIVATE+KEY+").ok_or(NoteError::SigningKey)?;
        let (name, id, bytes) = split_key(rest).ok_or(NoteError::SigningKey)?;
        let seed = bytes.try_into().map_err(|_| NoteError::SigningKey)?;
        let key = Self::new(name, &seed)?;
        if key.verifier().id() == id { Ok(key) } else { Err(NoteError::SigningKey) }
    }

    /// The text form. It is the secret itself.
    #[must_use]
    pub fn to_text(&self) -> String {
        let mut typed = vec![ED25519];
        typed.extend_from_slice(self.key.as_bytes());
        format!("PRIVATE+KEY+{}+{:08x}+{}", self.name, self.verifier().id(), STANDARD.encode(typed))
    }

    /// The key that verifies what this one signs.
    #[must_use]
    pub fn verifier(&self) -> VerifierKey {
        VerifierKey { name: self.name.clone(), key: self.key.verifying_key() }
    }

    /// Signs a text, which must end with a newline, and gives the whole note.
    ///
    /// # Errors
    /// The text cannot be that of a note.
    pub fn sign(&self, text: &str) -> Result<String, NoteError> {
        check_text(text)?;
        let mut signature = self.verifier().id().to_be_bytes().to_vec();
        signature.extend_from_slice(&self.key.sign(text.as_bytes()).to_bytes());
        Ok(format!("{text}\n\u{2014} {} {}\n", self.name, STANDARD.encode(signature)))
    }
}

impl VerifierKey {
    /// The key's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The key's id: the first four bytes of `SHA-256(name || 0x0A || 0x01 || key)`.
    #[must_use]
    pub fn id(&self) -> u32 {
        let mut hash = Sha256::new();
        hash.update(self.name.as_bytes());
        hash.update([b'\n', ED25519]);
        hash.update(self.key.as_bytes());
        let hash: [u8; 32] = hash.finalize().into();
        hash.first_chunk::<4>().map_or(0, |id| u32::from_be_bytes(*id))
    }

    /// Verifies that a note has a right signature by this key. Signatures by other keys are ignored.
    ///
    /// # Errors
    /// The note is malformed, or not signed by this key, or wrongly.
    pub fn open(&self, note: &str) -> Result<Note, NoteError> {
        if note.len() > NOTE_BYTES_MAX {
            return Err(NoteError::Malformed);
        }
        // The last empty line ends the text: a text may itself contain empty lines.
        let at = note.rfind("\n\n").ok_or(NoteError::Malformed)? + 1;
        let (text, signatures) = note.split_at(at);
        check_text(text)?;
        let signatures =
            signatures.strip_prefix('\n').and_then(|s| s.strip_suffix('\n')).ok_or(NoteError::Malformed)?;
        let mut found = false;
        for (count, line) in signatures.split('\n').enumerate() {
            let line = line.strip_prefix("\u{2014} ").ok_or(NoteError::Malformed)?;
            let (name, signature) = line.split_once(' ').ok_or(NoteError::Malformed)?;
            check_name(name).map_err(|_| NoteError::Malformed)?;
            let signature = STANDARD.decode(signature).map_err(|_| NoteError::Malformed)?;
            let (id, signature) = signature.split_first_chunk::<4>().ok_or(NoteError::Malformed)?;
            if signature.is_empty() || count >= SIGNATURES_MAX {
                return Err(NoteError::Malformed);
            }
            if name == self.name && u32::from_be_bytes(*id) == self.id() {
                let signature = signature.try_into().map_err(|_| NoteError::BadSignature)?;
                self.key.verify_strict(text.as_bytes(), &signature).map_err(|_| NoteError::BadSignature)?;
                found = true;
            }
        }
        if found { Ok(Note { text: text.to_owned() }) } else { Err(NoteError::NotSigned) }
    }
}

impl Note {
    /// The text, with its last newline.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }
}

impl fmt::Display for VerifierKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut typed = vec![ED25519];
        typed.extend_from_slice(self.key.as_bytes());
        write!(f, "{}+{:08x}+{}", self.name, self.id(), STANDARD.encode(typed))
    }
}

impl fmt::Debug for VerifierKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "VerifierKey({self})")
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey({})", self.name)
    }
}

impl FromStr for VerifierKey {
    type Err = NoteError;

    fn from_str(text: &str) -> Result<Self, NoteError> {
        let (name, id, bytes) = split_key(text.trim_end_matches('\n')).ok_or(NoteError::VerifierKey)?;
        check_name(name)?;
        let bytes: [u8; 32] = bytes.try_into().map_err(|_| NoteError::VerifierKey)?;
        let key = ed25519_dalek::VerifyingKey::from_bytes(&bytes).map_err(|_| NoteError::VerifierKey)?;
        let key = Self { name: name.to_owned(), key };
        if key.id() == id { Ok(key) } else { Err(NoteError::VerifierKey) }
    }
}

fn split_key(text: &str) -> Option<(&str, u32, Vec<u8>)> {
    let mut parts = text.splitn(3, '+');
    let (name, id, data) = (parts.next()?, parts.next()?, parts.next()?);
    let hexadecimal = id.len() == 8 && id.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    let data = STANDARD.decode(data).ok()?;
    match data.split_first() {
        Some((&ED25519, bytes)) if hexadecimal => Some((name, u32::from_str_radix(id, 16).ok()?, bytes.to_vec())),
        _ => None,
    }
}

fn check_name(name: &str) -> Result<(), NoteError> {
    let bad = |c: char| c.is_whitespace() || c.is_control() || c == '+';
    if name.is_empty() || name.contains(bad) { Err(NoteError::Name) } else { Ok(()) }
}

fn check_text(text: &str) -> Result<(), NoteError> {
    let control = |c: char| c < ' ' && c != '\n';
    if text.ends_with('\n') && !text.contains(control) { Ok(()) } else { Err(NoteError::Malformed) }
}
