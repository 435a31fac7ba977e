//! Signed notes: C2SP signed-note, with Ed25519 signatures (type 0x01).
//!
//! A note carries any number of signatures, by the log and by witnesses. Those by unknown keys are kept and ignored; a
//! wrong one by a known key spoils the note.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::Signer as _;
use sha2::{Digest as _, Sha256};

/// A note is at most this long, in bytes. C2SP signed-note asks for 16 signatures of up to 5 kB each, which are 110 kB
/// in base64.
pub const NOTE_BYTES_MAX: usize = 128 * 1024;

/// A note has at most this many signatures.
pub const SIGNATURES_MAX: usize = 64;

pub(crate) const ED25519: u8 = 0x01;

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

/// A note as it was received: its form was checked, its signatures were not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedNote {
    text: String,
    signatures: Vec<SignatureLine>,
}

/// One signature of a note.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignatureLine {
    /// The name of the key.
    pub name: String,
    /// The id of the key.
    pub id: u32,
    /// What follows the id; never empty.
    pub signature: Vec<u8>,
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
    /// Not the text of a witness's key.
    #[error("a witness's key is written as <name>+<id>+<base64>, with the key type for Ed25519 cosignatures (0x04)")]
    CosignerKey,
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
        let (name, id, bytes) = split_key(rest, ED25519).ok_or(NoteError::SigningKey)?;
        let seed = bytes.try_into().map_err(|_| NoteError::SigningKey)?;
        let key = Self::new(name, &seed)?;
        if key.verifier().id() == id { Ok(key) } else { Err(NoteError::SigningKey) }
    }

    /// The text form. It is the secret itself.
    #[must_use]
    pub fn to_text(&self) -> String {
        format!("PRIVATE+KEY+{}", key_text(&self.name, self.verifier().id(), ED25519, self.key.as_bytes()))
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
        let signature = self.key.sign(text.as_bytes()).to_bytes().to_vec();
        let line = SignatureLine { name: self.name.clone(), id: self.verifier().id(), signature };
        Ok(SignedNote { text: text.to_owned(), signatures: vec![line] }.to_string())
    }
}

impl VerifierKey {
    /// The key's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The public key itself.
    #[must_use]
    pub fn key_bytes(&self) -> &[u8; 32] {
        self.key.as_bytes()
    }

    /// The key's id: the first four bytes of `SHA-256(name || 0x0A || 0x01 || key)`.
    #[must_use]
    pub fn id(&self) -> u32 {
        key_id(&self.name, ED25519, self.key.as_bytes())
    }

    /// Verifies that a note has a right signature by this key. Signatures by other keys are ignored.
    ///
    /// # Errors
    /// The note is malformed, or not signed by this key, or wrongly.
    pub fn open(&self, note: &str) -> Result<Note, NoteError> {
        let note = SignedNote::parse(note)?;
        note.verify(self)?;
        Ok(Note { text: note.text })
    }
}

impl SignedNote {
    /// Reads a note. The last empty line ends its text: a text may itself contain empty lines.
    ///
    /// # Errors
    /// It has not the form of a note, or is longer, or has more signatures, than this program reads.
    pub fn parse(note: &str) -> Result<Self, NoteError> {
        if note.len() > NOTE_BYTES_MAX {
            return Err(NoteError::Malformed);
        }
        let at = note.rfind("\n\n").ok_or(NoteError::Malformed)? + 1;
        let (text, signatures) = note.split_at(at);
        check_text(text)?;
        let signatures =
            signatures.strip_prefix('\n').and_then(|s| s.strip_suffix('\n')).ok_or(NoteError::Malformed)?;
        let signatures = signatures.split('\n').map(SignatureLine::parse).take(SIGNATURES_MAX + 1);
        let signatures = signatures.collect::<Result<Vec<_>, _>>()?;
        if signatures.len() > SIGNATURES_MAX {
            return Err(NoteError::Malformed);
        }
        Ok(Self { text: text.to_owned(), signatures })
    }

    /// The text, with its last newline. Nothing is known of it before a signature was verified.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The signatures, in their order.
    #[must_use]
    pub fn signatures(&self) -> &[SignatureLine] {
        &self.signatures
    }

    /// Adds a signature at the end, instead of one by the same key if there is one. Nothing is added beyond
    /// [`SIGNATURES_MAX`].
    pub fn add(&mut self, line: SignatureLine) {
        let same = |old: &SignatureLine| old.name == line.name && old.id == line.id;
        self.signatures.retain(|old| !same(old));
        if self.signatures.len() < SIGNATURES_MAX {
            self.signatures.push(line);
        }
    }

    /// Verifies that the note has a right signature by this key, and no wrong one.
    ///
    /// # Errors
    /// It has none, or a wrong one.
    pub fn verify(&self, key: &VerifierKey) -> Result<(), NoteError> {
        let mut found = false;
        for line in self.by(&key.name, key.id()) {
            verify_ed25519(&key.key, self.text.as_bytes(), &line.signature)?;
            found = true;
        }
        if found { Ok(()) } else { Err(NoteError::NotSigned) }
    }

    /// The signatures by one key.
    pub(crate) fn by<'a>(&'a self, name: &'a str, id: u32) -> impl Iterator<Item = &'a SignatureLine> {
        self.signatures.iter().filter(move |line| line.id == id && line.name == name)
    }
}

impl fmt::Display for SignedNote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.text)?;
        self.signatures.iter().try_for_each(|line| writeln!(f, "{line}"))
    }
}

impl SignatureLine {
    /// Reads one line, without its newline.
    ///
    /// # Errors
    /// It has not the form of a signature line.
    pub fn parse(line: &str) -> Result<Self, NoteError> {
        let line = line.strip_prefix("\u{2014} ").ok_or(NoteError::Malformed)?;
        let (name, signature) = line.split_once(' ').ok_or(NoteError::Malformed)?;
        // A stranger's name may be odder than ours: what the specification lets pass is not looked at further.
        if name.is_empty() || name.contains(|c: char| c < ' ' || c.is_whitespace() || c == '+') {
            return Err(NoteError::Malformed);
        }
        let signature = STANDARD.decode(signature).map_err(|_| NoteError::Malformed)?;
        match signature.split_first_chunk::<4>() {
            Some((id, signature)) if !signature.is_empty() => {
                Ok(Self { name: name.to_owned(), id: u32::from_be_bytes(*id), signature: signature.to_vec() })
            }
            _ => Err(NoteError::Malformed),
        }
    }
}

impl fmt::Display for SignatureLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bytes = self.id.to_be_bytes().to_vec();
        bytes.extend_from_slice(&self.signature);
        write!(f, "\u{2014} {} {}", self.name, STANDARD.encode(bytes))
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
        f.write_str(&key_text(&self.name, self.id(), ED25519, self.key.as_bytes()))
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
        let (name, id, bytes) = split_key(text.trim_end_matches('\n'), ED25519).ok_or(NoteError::VerifierKey)?;
        check_name(name)?;
        let bytes: [u8; 32] = bytes.try_into().map_err(|_| NoteError::VerifierKey)?;
        let key = ed25519_dalek::VerifyingKey::from_bytes(&bytes).map_err(|_| NoteError::VerifierKey)?;
        let key = Self { name: name.to_owned(), key };
        if key.id() == id { Ok(key) } else { Err(NoteError::VerifierKey) }
    }
}

/// Name, id and key bytes of a key's text form, if the key is of this type.
pub(crate) fn split_key(text: &str, key_type: u8) -> Option<(&str, u32, Vec<u8>)> {
    let (name, id, found, bytes) = split_any_key(text)?;
    (found == key_type).then_some((name, id, bytes))
}

/// Name, id, type and key bytes of a key's text form.
pub(crate) fn split_any_key(text: &str) -> Option<(&str, u32, u8, Vec<u8>)> {
    let mut parts = text.splitn(3, '+');
    let (name, id, data) = (parts.next()?, parts.next()?, parts.next()?);
    let hexadecimal = id.len() == 8 && id.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    let data = STANDARD.decode(data).ok().filter(|_| hexadecimal)?;
    let (key_type, bytes) = data.split_first()?;
    Some((name, u32::from_str_radix(id, 16).ok()?, *key_type, bytes.to_vec()))
}

/// The text form of a key: `<name>+<id>+base64(<type> || <bytes>)`.
pub(crate) fn key_text(name: &str, id: u32, key_type: u8, bytes: &[u8]) -> String {
    let mut typed = vec![key_type];
    typed.extend_from_slice(bytes);
    format!("{name}+{id:08x}+{}", STANDARD.encode(typed))
}

/// The first four bytes of `SHA-256(name || 0x0A || type || key)`.
pub(crate) fn key_id(name: &str, key_type: u8, key: &[u8]) -> u32 {
    let mut hash = Sha256::new();
    hash.update(name.as_bytes());
    hash.update([b'\n', key_type]);
    hash.update(key);
    let hash: [u8; 32] = hash.finalize().into();
    hash.first_chunk::<4>().map_or(0, |id| u32::from_be_bytes(*id))
}

pub(crate) fn verify_ed25519(
    key: &ed25519_dalek::VerifyingKey,
    message: &[u8],
    signature: &[u8],
) -> Result<(), NoteError> {
    let signature = signature.try_into().map_err(|_| NoteError::BadSignature)?;
    key.verify_strict(message, &signature).map_err(|_| NoteError::BadSignature)
}

pub(crate) fn check_name(name: &str) -> Result<(), NoteError> {
    let bad = |c: char| c.is_whitespace() || c.is_control() || c == '+';
    if name.is_empty() || name.contains(bad) { Err(NoteError::Name) } else { Ok(()) }
}

pub(crate) fn check_text(text: &str) -> Result<(), NoteError> {
    let control = |c: char| c < ' ' && c != '\n';
    if text.ends_with('\n') && !text.contains(control) { Ok(()) } else { Err(NoteError::Malformed) }
}
