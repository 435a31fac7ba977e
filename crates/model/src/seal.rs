//! Sealing of sensitive fields: encryption that can be opened field by field, erased session by session, and never
//! opened to two different stories.
//!
//! - A session has a random key. Field *f* has the key `HMAC-SHA256(session key, "onrecord/v1 field" || u64be f)`:
//!   revealing it opens that field and no other.
//! - `SHA-512("onrecord/v1 seal" || field key)` gives the AES-256-GCM key (first half) and the commitment (second
//!   half), which stands in the entry. AES-GCM alone would let the holder of the keys prepare two keys that open one
//!   ciphertext to two texts; with the commitment, that needs a collision in SHA-512.
//! - Each AES key seals one message or the chunks of one blob, so nonces are counters.
//!
//! Not for: keeping keys, or choosing them. Keys come as arguments.

use std::sync::Arc;

use aes_gcm::aead::AeadInOut;
use aes_gcm::{Aes256Gcm, KeyInit, Nonce, Tag};
use hmac::{Hmac, Mac};
use sha2::{Digest as _, Sha256, Sha512};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::{Digest, SealedField, SessionId};

/// The authentication tag of a sealed field or of a chunk, in bytes.
pub const TAG_BYTES: usize = 16;

/// A blob's content is sealed in chunks of this many bytes; the last one is shorter, possibly empty.
pub const CHUNK_BYTES: usize = 64 * 1024;

/// The key of a session: destroying it erases everything that was sealed in the session.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct SessionKey([u8; 32]);

/// The key of one field: it opens that field and no other.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct FieldKey([u8; 32]);

/// A sealed field that did not open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// The key is not the one that the entry commits to.
    #[error("this key is not the one that the entry commits to")]
    WrongKey,
    /// The ciphertext was altered, or belongs to another field.
    #[error("the sealed content was altered")]
    Altered,
}

impl std::fmt::Debug for SessionKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SessionKey(..)")
    }
}

impl std::fmt::Debug for FieldKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("FieldKey(..)")
    }
}

impl SessionKey {
    /// The key of these random bytes.
    #[must_use]
    pub fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The bytes, for the key table.
    #[must_use]
    pub fn bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// What the session's first entry says of the key.
    #[must_use]
    pub fn commitment(&self, session: SessionId) -> Digest {
        let mut hash = Sha256::new();
        hash.update(b"onrecord/v1 session key");
        hash.update(session.to_bytes());
        hash.update(self.0);
        Digest(hash.finalize().into())
    }

    /// The key of one of the session's fields.
    #[must_use]
    pub fn field(&self, number: u64) -> FieldKey {
        #[allow(clippy::expect_used, reason = "HMAC takes keys of any length")]
        let mut mac = <Hmac<Sha256> as KeyInit>::new_from_slice(&self.0).expect("HMAC takes keys of any length");
        mac.update(b"onrecord/v1 field");
        mac.update(&number.to_be_bytes());
        FieldKey(mac.finalize().into_bytes().into())
    }
}

impl FieldKey {
    /// The key of these bytes, as someone revealed it.
    #[must_use]
    pub fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The bytes, to reveal the field.
    #[must_use]
    pub fn bytes(&self) -> &[u8; 32] {
        &self.0
    }

    fn derive(&self) -> (Aes256Gcm, Digest) {
        let mut hash = Sha512::new();
        hash.update(b"onrecord/v1 seal");
        hash.update(self.0);
        let mut block: [u8; 64] = hash.finalize().into();
        let mut key = [0u8; 32];
        let mut commitment = [0u8; 32];
        let (first, second) = block.split_at(32);
        key.copy_from_slice(first);
        commitment.copy_from_slice(second);
        let cipher = Aes256Gcm::new(&key.into());
        key.zeroize();
        block.zeroize();
        (cipher, Digest(commitment))
    }
}

/// Seals content that stays in the entry.
#[must_use]
pub fn seal(session: SessionId, key: &FieldKey, number: u64, plaintext: &[u8]) -> SealedField {
    let (cipher, commitment) = key.derive();
    let mut ciphertext = Vec::with_capacity(plaintext.len() + TAG_BYTES);
    ciphertext.extend_from_slice(plaintext);
    encrypt(&cipher, Nonce::default(), &associated(session, number, Place::Entry), &mut ciphertext);
    SealedField {
        number,
        length: u64::try_from(plaintext.len()).unwrap_or(u64::MAX),
        commitment,
        ciphertext: Arc::from(ciphertext),
    }
}

/// Opens content that was sealed by [`seal`], with the key of the field alone.
///
/// # Errors
/// The key is not the committed one, or the content was altered.
pub fn open(session: SessionId, key: &FieldKey, field: &SealedField) -> Result<Vec<u8>, OpenError> {
    let (cipher, commitment) = key.derive();
    if commitment != field.commitment {
        return Err(OpenError::WrongKey);
    }
    let mut content = field.ciphertext.to_vec();
    decrypt(&cipher, Nonce::default(), &associated(session, field.number, Place::Entry), &mut content)?;
    if u64::try_from(content.len()) == Ok(field.length) { Ok(content) } else { Err(OpenError::Altered) }
}

/// Seals the chunks of one blob, in order.
pub struct ChunkSealer {
    chunks: Chunks,
    commitment: Digest,
}

/// Opens the chunks of one blob, in order.
pub struct ChunkOpener {
    chunks: Chunks,
}

/// Whether a chunk is the blob's last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Last {
    /// It is: a blob that was cut at a chunk's end does not open.
    Yes,
    /// More follow.
    No,
}

struct Chunks {
    cipher: Aes256Gcm,
    associated: [u8; 44],
    next: u32,
}

impl ChunkSealer {
    /// For the blob of this field.
    #[must_use]
    pub fn new(session: SessionId, key: &FieldKey, number: u64) -> Self {
        let (cipher, commitment) = key.derive();
        Self { chunks: Chunks { cipher, associated: associated(session, number, Place::Blob), next: 0 }, commitment }
    }

    /// What the entry says of the field's key.
    #[must_use]
    pub fn commitment(&self) -> Digest {
        self.commitment
    }

    /// Seals the next chunk in place; it grows by [`TAG_BYTES`]. All chunks but the last have [`CHUNK_BYTES`].
    pub fn seal(&mut self, chunk: &mut Vec<u8>, last: Last) {
        let nonce = self.chunks.nonce(last);
        encrypt(&self.chunks.cipher, nonce, &self.chunks.associated, chunk);
    }
}

impl ChunkOpener {
    /// For the blob of this field.
    ///
    /// # Errors
    /// The key is not the committed one.
    pub fn new(session: SessionId, key: &FieldKey, number: u64, commitment: Digest) -> Result<Self, OpenError> {
        let (cipher, derived) = key.derive();
        if derived != commitment {
            return Err(OpenError::WrongKey);
        }
        Ok(Self { chunks: Chunks { cipher, associated: associated(session, number, Place::Blob), next: 0 } })
    }

    /// Opens the next chunk in place; it shrinks by [`TAG_BYTES`].
    ///
    /// # Errors
    /// The chunk was altered, is out of order, or is not the last although it should be.
    pub fn open(&mut self, chunk: &mut Vec<u8>, last: Last) -> Result<(), OpenError> {
        let nonce = self.chunks.nonce(last);
        decrypt(&self.chunks.cipher, nonce, &self.chunks.associated, chunk)
    }
}

impl Chunks {
    /// 7 zero bytes, the chunk's number, 1 for the last chunk. 2^32 chunks are 256 TiB.
    fn nonce(&mut self, last: Last) -> Nonce<aes_gcm::aead::consts::U12> {
        let mut nonce = [0u8; 12];
        for (to, from) in nonce.iter_mut().skip(7).zip(self.next.to_be_bytes()) {
            *to = from;
        }
        if let Some(flag) = nonce.last_mut() {
            *flag = u8::from(last == Last::Yes);
        }
        self.next = self.next.wrapping_add(1);
        nonce.into()
    }
}

/// How many bytes [`wrap_key`] gives.
pub const WRAPPED_BYTES: usize = 32 + TAG_BYTES;

/// What a wrapped key is for: it cannot be unwrapped as anything else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyPlace {
    /// A session's key, in this slot of the key table.
    Slot(u64),
    /// The key of one field of a session.
    Field(SessionId, u64),
    /// The key under which a data directory's session keys are kept.
    Seal,
}

impl KeyPlace {
    /// Up to 45 bytes that no two places share.
    fn name(self) -> Vec<u8> {
        match self {
            Self::Slot(slot) => [&b"onrecord/v1 key slot"[..], &slot.to_be_bytes()].concat(),
            Self::Field(session, number) => {
                [&b"onrecord/v1 field key"[..], &session.to_bytes(), &number.to_be_bytes()].concat()
            }
            Self::Seal => b"onrecord/v1 seal key".to_vec(),
        }
    }
}

/// Encrypts a key under another one. The nonce must be new each time.
#[must_use]
pub fn wrap_key(under: &[u8; 32], place: KeyPlace, nonce: [u8; 12], key: &[u8; 32]) -> [u8; WRAPPED_BYTES] {
    let mut content = key.to_vec();
    encrypt(&Aes256Gcm::new(&(*under).into()), nonce.into(), &place.name(), &mut content);
    let mut wrapped = [0u8; WRAPPED_BYTES];
    for (to, from) in wrapped.iter_mut().zip(&content) {
        *to = *from;
    }
    wrapped
}

/// Decrypts a key that [`wrap_key`] encrypted.
///
/// # Errors
/// The key or the place is another, or the wrapped key was altered.
pub fn unwrap_key(
    under: &[u8; 32],
    place: KeyPlace,
    nonce: [u8; 12],
    wrapped: &[u8; WRAPPED_BYTES],
) -> Result<Zeroizing<[u8; 32]>, OpenError> {
    let mut content = Zeroizing::new(wrapped.to_vec());
    decrypt(&Aes256Gcm::new(&(*under).into()), nonce.into(), &place.name(), &mut content)?;
    <[u8; 32]>::try_from(content.as_slice()).map(Zeroizing::new).map_err(|_| OpenError::Altered)
}

#[derive(Clone, Copy)]
enum Place {
    Entry,
    Blob,
}

/// 20 bytes of purpose, the session, the field's number: content cannot be moved between fields or sessions.
fn associated(session: SessionId, number: u64, place: Place) -> [u8; 44] {
    let purpose: &[u8; 20] = match place {
        Place::Entry => b"onrecord/v1 in entry",
        Place::Blob => b"onrecord/v1 in blob ",
    };
    let mut bytes = [0u8; 44];
    let all = purpose.iter().copied().chain(session.to_bytes()).chain(number.to_be_bytes());
    for (to, from) in bytes.iter_mut().zip(all) {
        *to = from;
    }
    bytes
}

#[allow(clippy::expect_used, reason = "AES-GCM seals up to 64 GiB, and a field or chunk is far below")]
fn encrypt(cipher: &Aes256Gcm, nonce: Nonce<aes_gcm::aead::consts::U12>, associated: &[u8], content: &mut Vec<u8>) {
    let tag = cipher
        .encrypt_inout_detached(&nonce, associated, content.as_mut_slice().into())
        .expect("a field or chunk is shorter than AES-GCM's limit");
    content.extend_from_slice(&tag);
}

fn decrypt(
    cipher: &Aes256Gcm,
    nonce: Nonce<aes_gcm::aead::consts::U12>,
    associated: &[u8],
    content: &mut Vec<u8>,
) -> Result<(), OpenError> {
    let length = content.len().checked_sub(TAG_BYTES).ok_or(OpenError::Altered)?;
    let tag: [u8; TAG_BYTES] = content.get(length..).and_then(|tag| tag.try_into().ok()).ok_or(OpenError::Altered)?;
    content.truncate(length);
    cipher
        .decrypt_inout_detached(&nonce, associated, content.as_mut_slice().into(), &Tag::from(tag))
        .map_err(|_| OpenError::Altered)
}
