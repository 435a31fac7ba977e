//! Decisions that a person signed with a passkey (WebAuthn), checked from nothing but bytes.
//!
//! The gateway calls it before it takes a decision, and everybody else with what is on the record, later and without
//! the gateway. Not for: whose key it is, which the `passkey` entry says, and attestation of authenticators, which
//! nobody asks for. `docs/decisions/0019-passkeys.md` says what a signature proves.
//!
//! The invariant kept here: what is accepted was signed by the key over exactly this challenge, on the key's own origin,
//! with a person there whom the authenticator knows.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ed25519_dalek::Verifier as _;
use model::{Assertion, Digest, Passkey, PasskeyAlgorithm};
use serde::Deserialize;
use sha2::{Digest as _, Sha256};

/// Client data is at most this long, bytes.
pub const CLIENT_DATA_BYTES_MAX: usize = 4096;
/// Authenticator data is at most this long, bytes.
pub const AUTHENTICATOR_DATA_BYTES_MAX: usize = 2048;
/// A signature is at most this long, bytes.
pub const SIGNATURE_BYTES_MAX: usize = 128;
/// A credential's id is at most this long, bytes, as WebAuthn has it.
pub const CREDENTIAL_BYTES_MAX: usize = 1023;

/// A person was there.
const FLAG_UP: u8 = 0x01;
/// The authenticator knows that it was its owner, by a PIN or a finger.
const FLAG_UV: u8 = 0x04;
/// A new key follows.
const FLAG_AT: u8 = 0x40;

/// A key of P-256 as COSE has it, in the one form that CTAP2 allows: up to the first coordinate.
const COSE_ES256: &[u8] = &[0xa5, 0x01, 0x02, 0x03, 0x26, 0x20, 0x01, 0x21, 0x58, 0x20];
/// Between its coordinates.
const COSE_ES256_Y: &[u8] = &[0x22, 0x58, 0x20];
/// As above, of Ed25519.
const COSE_ED25519: &[u8] = &[0xa4, 0x01, 0x01, 0x03, 0x27, 0x20, 0x06, 0x21, 0x58, 0x20];

/// Why a signature or a new key is not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PasskeyError {
    /// Longer than anything genuine.
    #[error("the {0} is longer than it can be")]
    TooLong(&'static str),
    /// The client data cannot be read.
    #[error("the client data is not the JSON that a browser writes: {0}")]
    ClientData(String),
    /// It was made for something else.
    #[error("the client data is of type {got:?}, and should be {expected:?}")]
    Type {
        /// What it should be.
        expected: &'static str,
        /// What it is.
        got: String,
    },
    /// Something else was signed.
    #[error("another challenge was signed than the one that stands for this decision")]
    Challenge,
    /// Signed on another page.
    #[error("it was signed on {got:?}, and the key signs on {expected:?}")]
    Origin {
        /// The key's origin.
        expected: String,
        /// Where it was.
        got: String,
    },
    /// Signed in a frame of another page.
    #[error("it was signed in a frame of a page of another origin")]
    CrossOrigin,
    /// The authenticator data cannot be read.
    #[error("the authenticator data is malformed: {0}")]
    AuthenticatorData(&'static str),
    /// Of another host.
    #[error("the authenticator signed for another host than {0:?}")]
    RpId(String),
    /// Nobody touched it.
    #[error("the authenticator does not say that a person was there")]
    NotPresent,
    /// It may have been anybody.
    #[error("the authenticator does not say that it was its owner, by a PIN or a biometric")]
    NotVerified,
    /// Of another key.
    #[error("it was signed with another passkey")]
    OtherCredential,
    /// The public key is none.
    #[error("the public key is not one of its algorithm")]
    PublicKey,
    /// The key is of a kind that is not taken.
    #[error("the new key is neither of ES256 (P-256) nor of Ed25519")]
    Algorithm,
    /// The signature is wrong.
    #[error("the signature is wrong")]
    Signature,
}

/// A new key, as its authenticator gave it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewKey {
    /// The credential's id, base64url without padding.
    pub credential: String,
    /// How it signs.
    pub algorithm: PasskeyAlgorithm,
    /// The public key, see [`PasskeyAlgorithm`].
    pub public_key: Vec<u8>,
    /// The model of the authenticator, as it says itself, as a UUID.
    pub aaguid: String,
}

/// Checks a signature over a challenge by a key.
///
/// # Errors
/// What is wrong with it first. It is then no proof of anything.
pub fn verify(key: &Passkey, challenge: &Digest, assertion: &Assertion) -> Result<(), PasskeyError> {
    if assertion.credential != key.credential {
        return Err(PasskeyError::OtherCredential);
    }
    if assertion.signature.len() > SIGNATURE_BYTES_MAX {
        return Err(PasskeyError::TooLong("signature"));
    }
    ClientData::read(&assertion.client_data)?.check("webauthn.get", &challenge.0, &key.origin)?;
    let _ = authenticator_data(&assertion.authenticator_data, &key.rp_id)?;
    let mut signed = assertion.authenticator_data.clone();
    signed.extend_from_slice(&Sha256::digest(&assertion.client_data));
    match key.algorithm {
        PasskeyAlgorithm::Es256 => {
            let signature = p256::ecdsa::Signature::from_der(&assertion.signature);
            let signature = signature.map_err(|_| PasskeyError::Signature)?;
            es256(&key.public_key)?.verify(&signed, &signature).map_err(|_| PasskeyError::Signature)
        }
        PasskeyAlgorithm::Ed25519 => {
            let signature = ed25519_dalek::Signature::from_slice(&assertion.signature);
            let signature = signature.map_err(|_| PasskeyError::Signature)?;
            ed25519(&key.public_key)?.verify_strict(&signed, &signature).map_err(|_| PasskeyError::Signature)
        }
    }
}

/// Reads a new key from what a browser says when one is made: the authenticator data and the client data. Attestation is
/// not looked at: that the key is whose it should be rests on who brings it.
///
/// # Errors
/// It was made for something else, or is no key that is taken.
pub fn read_new_key(
    rp_id: &str,
    origin: &str,
    challenge: &[u8; 32],
    authenticator: &[u8],
    client_data: &[u8],
) -> Result<NewKey, PasskeyError> {
    ClientData::read(client_data)?.check("webauthn.create", challenge, origin)?;
    let (flags, rest) = authenticator_data(authenticator, rp_id)?;
    if flags & FLAG_AT == 0 {
        return Err(PasskeyError::AuthenticatorData("there is no new key in it"));
    }
    let cut = PasskeyError::AuthenticatorData("it is cut off");
    let (aaguid, rest) = rest.split_first_chunk::<16>().ok_or(cut.clone())?;
    let (length, rest) = rest.split_first_chunk::<2>().ok_or(cut.clone())?;
    let length = usize::from(u16::from_be_bytes(*length));
    if length == 0 || length > CREDENTIAL_BYTES_MAX {
        return Err(PasskeyError::AuthenticatorData("the credential's id is empty or too long"));
    }
    let (credential, cose) = rest.split_at_checked(length).ok_or(cut)?;
    let (algorithm, public_key) = cose_key(cose).ok_or(PasskeyError::Algorithm)?;
    match algorithm {
        PasskeyAlgorithm::Es256 => drop(es256(&public_key)?),
        PasskeyAlgorithm::Ed25519 => drop(ed25519(&public_key)?),
    }
    Ok(NewKey { credential: URL_SAFE_NO_PAD.encode(credential), algorithm, public_key, aaguid: uuid(aaguid) })
}

/// What a browser says. Members that it may add are passed over.
#[derive(Debug, Deserialize)]
struct ClientData {
    #[serde(rename = "type")]
    kind: String,
    challenge: String,
    origin: String,
    #[serde(rename = "crossOrigin", default)]
    cross_origin: bool,
}

impl ClientData {
    fn read(bytes: &[u8]) -> Result<Self, PasskeyError> {
        if bytes.len() > CLIENT_DATA_BYTES_MAX {
            return Err(PasskeyError::TooLong("client data"));
        }
        serde_json::from_slice(bytes).map_err(|error| PasskeyError::ClientData(error.to_string()))
    }

    fn check(self, expected: &'static str, challenge: &[u8; 32], origin: &str) -> Result<(), PasskeyError> {
        if self.kind != expected {
            return Err(PasskeyError::Type { expected, got: self.kind });
        }
        if self.challenge != URL_SAFE_NO_PAD.encode(challenge) {
            return Err(PasskeyError::Challenge);
        }
        if self.origin != origin {
            return Err(PasskeyError::Origin { expected: origin.to_owned(), got: self.origin });
        }
        if self.cross_origin { Err(PasskeyError::CrossOrigin) } else { Ok(()) }
    }
}

/// Checks the head of authenticator data, and gives its flags and what follows.
fn authenticator_data<'a>(bytes: &'a [u8], rp_id: &str) -> Result<(u8, &'a [u8]), PasskeyError> {
    if bytes.len() > AUTHENTICATOR_DATA_BYTES_MAX {
        return Err(PasskeyError::TooLong("authenticator data"));
    }
    let cut = PasskeyError::AuthenticatorData("it is cut off");
    let (host, rest) = bytes.split_first_chunk::<32>().ok_or(cut.clone())?;
    let ([flags, _count @ ..], rest) = rest.split_first_chunk::<5>().ok_or(cut)?;
    if Sha256::digest(rp_id.as_bytes()).as_slice() != host {
        return Err(PasskeyError::RpId(rp_id.to_owned()));
    }
    if flags & FLAG_UP == 0 {
        return Err(PasskeyError::NotPresent);
    }
    if flags & FLAG_UV == 0 {
        return Err(PasskeyError::NotVerified);
    }
    Ok((*flags, rest))
}

/// The key that stands at the beginning; extensions may follow it.
fn cose_key(bytes: &[u8]) -> Option<(PasskeyAlgorithm, Vec<u8>)> {
    if let Some(rest) = bytes.strip_prefix(COSE_ES256) {
        let (x, rest) = rest.split_first_chunk::<32>()?;
        let y = rest.strip_prefix(COSE_ES256_Y)?.first_chunk::<32>()?;
        return Some((PasskeyAlgorithm::Es256, [&[4], x.as_slice(), y].concat()));
    }
    let x = bytes.strip_prefix(COSE_ED25519)?.first_chunk::<32>()?;
    Some((PasskeyAlgorithm::Ed25519, x.to_vec()))
}

fn es256(point: &[u8]) -> Result<p256::ecdsa::VerifyingKey, PasskeyError> {
    // Compressed points say the same in other bytes: one key has one form.
    if point.len() != 65 {
        return Err(PasskeyError::PublicKey);
    }
    p256::ecdsa::VerifyingKey::from_sec1_bytes(point).map_err(|_| PasskeyError::PublicKey)
}

fn ed25519(bytes: &[u8]) -> Result<ed25519_dalek::VerifyingKey, PasskeyError> {
    let bytes = bytes.try_into().map_err(|_| PasskeyError::PublicKey)?;
    ed25519_dalek::VerifyingKey::from_bytes(bytes).map_err(|_| PasskeyError::PublicKey)
}

fn uuid(bytes: &[u8; 16]) -> String {
    use std::fmt::Write as _;
    let mut text = String::with_capacity(36);
    for (at, byte) in bytes.iter().enumerate() {
        if matches!(at, 4 | 6 | 8 | 10) {
            text.push('-');
        }
        let _ = write!(text, "{byte:02x}");
    }
    text
}
