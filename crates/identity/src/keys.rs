//! The public keys of an issuer: its JWKS document (RFC 7517), read into keys that are ready to verify.
//!
//! A key that cannot be used (another type, another use, too short) is skipped, so that an issuer can publish keys of
//! tomorrow. A document with a private or a symmetric key is no document of public keys, and refused.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::DecodingKey;
use model::{Digest, IssuerKey};
use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};

use crate::json;

/// The longest JWKS document, in bytes.
pub const JWKS_BYTES_MAX: usize = 1 << 20;
/// The most keys that a document may have.
pub const KEYS_MAX: usize = 128;
/// The longest `kid`, in bytes.
pub(crate) const KID_BYTES_MAX: usize = 256;
/// The shortest RSA modulus, in bits.
const RSA_BITS_MIN: usize = 2048;
/// The longest RSA modulus, in bits: a longer one only costs time.
const RSA_BITS_MAX: usize = 8192;
/// The longest RSA exponent, in bytes.
const RSA_EXPONENT_BYTES_MAX: usize = 8;

/// Why a document gives no keys.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeysError {
    /// It is too long.
    #[error("the document has more than {JWKS_BYTES_MAX} bytes")]
    TooLong,
    /// It is no JWKS document.
    #[error("it is no JWKS document (an object whose `keys` is a list of keys): {0}")]
    Form(String),
    /// It has too many keys.
    #[error("it has more than {KEYS_MAX} keys")]
    TooMany,
    /// It has a key that no public document may have.
    #[error("it has a private or a symmetric key, which everyone can read: have the issuer replace its keys")]
    Private,
    /// None of its keys can be used.
    #[error("none of its {0} keys can be used to verify a token (RSA of 2048 to 8192 bits, P-256, P-384 or Ed25519)")]
    None(usize),
}

/// What a key can verify.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    Rsa,
    P256,
    P384,
    Ed25519,
}

/// One public key of an issuer.
pub struct Key {
    kid: Option<String>,
    algorithm: Option<String>,
    shape: Shape,
    decoding: DecodingKey,
    thumbprint: Digest,
    jwk: String,
}

impl Key {
    /// The issuer's name for it.
    #[must_use]
    pub fn kid(&self) -> Option<&str> {
        self.kid.as_deref()
    }

    /// Its thumbprint (RFC 7638).
    #[must_use]
    pub fn thumbprint(&self) -> Digest {
        self.thumbprint
    }

    /// The entry by which the record keeps it, for the issuer with this `iss`.
    #[must_use]
    pub fn entry(&self, issuer: &str) -> IssuerKey {
        let (kid, jwk) = (self.kid.clone(), self.jwk.clone());
        IssuerKey { issuer: issuer.to_owned(), kid, thumbprint: self.thumbprint, jwk }
    }

    pub(crate) fn decoding(&self) -> &DecodingKey {
        &self.decoding
    }

    /// Whether it is for signatures of this shape and algorithm.
    fn is_for(&self, shape: Shape, algorithm: &str) -> bool {
        let named = self.algorithm.as_deref();
        // RFC 9864 gave EdDSA over Ed25519 a second name.
        let same =
            |named: &str| named == algorithm || (shape == Shape::Ed25519 && matches!(named, "EdDSA" | "Ed25519"));
        self.shape == shape && named.is_none_or(same)
    }
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Key").field("kid", &self.kid).field("shape", &self.shape).finish_non_exhaustive()
    }
}

/// The keys that an issuer published at one time.
#[derive(Clone, Debug)]
pub struct KeySet {
    keys: Vec<Arc<Key>>,
    document: Digest,
    fetched: u64,
    skipped: usize,
}

impl KeySet {
    /// The keys in a JWKS document that was fetched at this time, in seconds since 1970.
    ///
    /// # Errors
    /// The document is too long, is none, has a private key, or has no key that can be used.
    pub fn parse(document: &[u8], fetched: u64) -> Result<Self, KeysError> {
        if document.len() > JWKS_BYTES_MAX {
            return Err(KeysError::TooLong);
        }
        let mut object = json::object(document).map_err(|error| KeysError::Form(error.to_string()))?;
        let Some(Value::Array(list)) = object.remove("keys") else {
            return Err(KeysError::Form("`keys` is no list".to_owned()));
        };
        if list.len() > KEYS_MAX {
            return Err(KeysError::TooMany);
        }
        let offered = list.len();
        let mut keys = Vec::new();
        for jwk in list {
            let Value::Object(jwk) = jwk else {
                return Err(KeysError::Form("a key is no object".to_owned()));
            };
            if ["d", "p", "q", "dp", "dq", "qi", "k"].iter().any(|private| jwk.contains_key(*private)) {
                return Err(KeysError::Private);
            }
            keys.extend(public(&jwk).map(Arc::new));
        }
        if keys.is_empty() {
            return Err(KeysError::None(offered));
        }
        let skipped = offered - keys.len();
        Ok(Self { keys, document: Digest(Sha256::digest(document).into()), fetched, skipped })
    }

    /// SHA-256 of the document.
    #[must_use]
    pub fn document(&self) -> Digest {
        self.document
    }

    /// When it was fetched, in seconds since 1970.
    #[must_use]
    pub fn fetched(&self) -> u64 {
        self.fetched
    }

    /// How many of its keys cannot be used here.
    #[must_use]
    pub fn skipped(&self) -> usize {
        self.skipped
    }

    /// How many can.
    #[must_use]
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether none can. That is never so: such a document is refused.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// The key with this thumbprint.
    #[must_use]
    pub fn by_thumbprint(&self, thumbprint: Digest) -> Option<&Arc<Key>> {
        self.keys.iter().find(|key| key.thumbprint == thumbprint)
    }

    /// Whether a token that names this key, or none, can be checked by these keys.
    #[must_use]
    pub fn has(&self, kid: Option<&str>) -> bool {
        kid.is_none_or(|kid| self.keys.iter().any(|key| key.kid.as_deref() == Some(kid)))
    }

    /// The keys that a token may be signed by. One that names no key may be signed by any.
    pub(crate) fn candidates<'a, 'n>(
        &'a self,
        kid: Option<&'n str>,
        shape: Shape,
        algorithm: &'n str,
    ) -> impl Iterator<Item = &'a Key> + use<'a, 'n> {
        let named = move |key: &&Key| kid.is_none_or(|kid| key.kid.as_deref() == Some(kid));
        self.keys.iter().map(Arc::as_ref).filter(named).filter(move |key| key.is_for(shape, algorithm))
    }
}

/// The key of a JWK, if it is one that can be used.
fn public(jwk: &Map<String, Value>) -> Option<Key> {
    let text = |name: &str| jwk.get(name).and_then(Value::as_str);
    if text("use").is_some_and(|r#use| r#use != "sig") {
        return None;
    }
    if let Some(Value::Array(operations)) = jwk.get("key_ops")
        && !operations.iter().any(|operation| operation.as_str() == Some("verify"))
    {
        return None;
    }
    let kid = text("kid").map(str::to_owned);
    if kid.as_ref().is_some_and(|kid| kid.len() > KID_BYTES_MAX) {
        return None;
    }
    let bytes = |name: &str| URL_SAFE_NO_PAD.decode(text(name)?).ok();
    // What is required of a key, in the order of RFC 7638 and in the one spelling that it has: both the thumbprint and
    // the key on the record are made from this.
    let (shape, decoding, jwk_text) = match (text("kty")?, text("crv")) {
        ("RSA", _) => {
            let (n, e) = (unsigned(bytes("n")?), unsigned(bytes("e")?));
            let bits = n.len() * 8 - usize::try_from(n.first()?.leading_zeros()).ok()?;
            let exponent = (1..=RSA_EXPONENT_BYTES_MAX).contains(&e.len()) && e.last()? % 2 == 1 && e != [1];
            if !(RSA_BITS_MIN..=RSA_BITS_MAX).contains(&bits) || !exponent {
                return None;
            }
            let jwk = format!(r#"{{"e":"{}","kty":"RSA","n":"{}"}}"#, encoded(&e), encoded(&n));
            (Shape::Rsa, DecodingKey::from_rsa_raw_components(&n, &e), jwk)
        }
        ("EC", Some(curve @ ("P-256" | "P-384"))) => {
            let (shape, length) = if curve == "P-256" { (Shape::P256, 32) } else { (Shape::P384, 48) };
            let (x, y) = (bytes("x")?, bytes("y")?);
            if x.len() != length || y.len() != length {
                return None;
            }
            let (x, y) = (encoded(&x), encoded(&y));
            let jwk = format!(r#"{{"crv":"{curve}","kty":"EC","x":"{x}","y":"{y}"}}"#);
            (shape, DecodingKey::from_ec_components(&x, &y).ok()?, jwk)
        }
        ("OKP", Some("Ed25519")) => {
            let x = bytes("x")?;
            if x.len() != 32 {
                return None;
            }
            let x = encoded(&x);
            let jwk = format!(r#"{{"crv":"Ed25519","kty":"OKP","x":"{x}"}}"#);
            (Shape::Ed25519, DecodingKey::from_ed_components(&x).ok()?, jwk)
        }
        _ => return None,
    };
    let thumbprint = Digest(Sha256::digest(jwk_text.as_bytes()).into());
    Some(Key { kid, algorithm: text("alg").map(str::to_owned), shape, decoding, thumbprint, jwk: jwk_text })
}

/// A number without leading zeros.
fn unsigned(mut bytes: Vec<u8>) -> Vec<u8> {
    let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
    bytes.drain(..zeros);
    bytes
}

fn encoded(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::*;

    /// The key and the thumbprint in section 3.1 of RFC 7638.
    const RFC_7638: &str = r#"{"kty":"RSA","n":"0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw","e":"AQAB","alg":"RS256","kid":"2011-04-29"}"#;

    fn keys(list: &str) -> Result<KeySet, KeysError> {
        KeySet::parse(format!("{{\"keys\":[{list}]}}").as_bytes(), 7)
    }

    #[test]
    fn the_thumbprint_is_that_of_the_rfc() {
        let set = keys(RFC_7638).unwrap();
        assert_eq!(encoded(&set.keys[0].thumbprint().0), "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs");
        assert!(set.by_thumbprint(set.keys[0].thumbprint()).is_some());
        assert!(set.has(Some("2011-04-29")) && set.has(None) && !set.has(Some("other")));
        assert_eq!((set.len(), set.skipped(), set.fetched()), (1, 0, 7));
    }

    #[test]
    fn another_spelling_of_the_same_number_is_the_same_key() {
        let spelled = RFC_7638.replace("\"AQAB\"", "\"AAEAAQ\"");
        assert_eq!(keys(&spelled).unwrap().keys[0].thumbprint(), keys(RFC_7638).unwrap().keys[0].thumbprint());
    }

    #[test]
    fn keys_that_cannot_be_used_are_skipped() {
        let other = r#"{"kty":"EC","crv":"P-521","x":"AA","y":"AA"},{"kty":"AKP","alg":"ML-DSA-65","pub":"AA"},{"kty":"RSA","use":"enc","n":"AA","e":"AQAB"},{"kty":"RSA","n":"AQAB","e":"AQAB"}"#;
        let set = keys(&format!("{other},{RFC_7638}")).unwrap();
        assert_eq!((set.len(), set.skipped()), (1, 4));
        assert_eq!(keys(other).unwrap_err(), KeysError::None(4));
    }

    #[test]
    fn documents_that_are_none_are_refused() {
        assert_eq!(keys(r#"{"kty":"oct","k":"AAAA"}"#).unwrap_err(), KeysError::Private);
        assert_eq!(keys(&RFC_7638.replace("\"e\":", "\"d\":\"AQAB\",\"e\":")).unwrap_err(), KeysError::Private);
        assert!(matches!(KeySet::parse(b"{}", 0), Err(KeysError::Form(_))));
        assert!(matches!(KeySet::parse(b"<html>", 0), Err(KeysError::Form(_))));
        assert!(matches!(keys("1"), Err(KeysError::Form(_))));
        assert_eq!(KeySet::parse(&vec![b' '; JWKS_BYTES_MAX + 1], 0).unwrap_err(), KeysError::TooLong);
        assert_eq!(keys(&vec!["{\"kty\":\"x\"}"; KEYS_MAX + 1].join(",")).unwrap_err(), KeysError::TooMany);
    }
}
