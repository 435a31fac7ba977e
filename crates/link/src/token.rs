//! The join token: all that a new outpost has to be told, in one line.
//!
//! ```text
//! orj_ base64url( version u8 | token id 8 | secret 32 | SHA-256 of the authority's SPKI 32 | address | checksum 4 )
//! ```
//!
//! The checksum is the start of the SHA-256 of all before it: a token that was cut while it was copied is told from one
//! that is not known. Whoever has the token can become that outpost, once, until it expires; it is a secret.

use std::fmt;
use std::str::FromStr;

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// What every join token starts with.
pub const PREFIX: &str = "orj_";
/// The longest address, bytes.
const ADDRESS_BYTES_MAX: usize = 262;
/// The longest token, characters.
const TOKEN_CHARS_MAX: usize = 512;
const VERSION: u8 = 1;

/// A join token.
#[derive(Clone, PartialEq, Eq)]
pub struct JoinToken {
    /// Which one.
    id: [u8; 8],
    secret: [u8; 32],
    /// SHA-256 of the SubjectPublicKeyInfo of the authority that the gateway's certificate comes from.
    authority: [u8; 32],
    /// Where the gateway is, `host:port`.
    address: String,
}

/// Why a text is no join token. The text is never repeated: it may be a secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// It is something else.
    #[error("this is not a join token: one starts with orj_ and comes from `onrecord outpost token`")]
    Form,
    /// It was cut or changed on its way.
    #[error("this join token is damaged: copy the whole line")]
    Checksum,
    /// It is of another version.
    #[error("this join token is of a version that this program does not know")]
    Version,
}

impl JoinToken {
    /// Puts one together.
    ///
    /// # Errors
    /// The address is no address.
    pub fn new(id: [u8; 8], secret: [u8; 32], authority: [u8; 32], address: &str) -> Result<Self, TokenError> {
        let odd = |c: char| c.is_whitespace() || c.is_control();
        if address.is_empty() || address.len() > ADDRESS_BYTES_MAX || address.contains(odd) || !address.contains(':') {
            return Err(TokenError::Form);
        }
        Ok(Self { id, secret, authority, address: address.to_owned() })
    }

    /// Which one.
    #[must_use]
    pub fn id(&self) -> [u8; 8] {
        self.id
    }

    /// SHA-256 of the SubjectPublicKeyInfo of the gateway's authority.
    #[must_use]
    pub fn authority(&self) -> [u8; 32] {
        self.authority
    }

    /// Where the gateway is, `host:port`.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.address
    }

    /// What shows that whoever made this request has the token.
    #[must_use]
    pub fn mac(&self, request: &[u8]) -> [u8; 32] {
        mac(&self.secret, request)
    }

    /// The one line that is handed over.
    #[must_use]
    pub fn to_line(&self) -> String {
        let mut bytes = vec![VERSION];
        bytes.extend_from_slice(&self.id);
        bytes.extend_from_slice(&self.secret);
        bytes.extend_from_slice(&self.authority);
        bytes.extend_from_slice(self.address.as_bytes());
        let sum = checksum(&bytes);
        bytes.extend_from_slice(&sum);
        format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(bytes))
    }
}

/// HMAC-SHA256 of a request with a token's secret.
#[must_use]
pub fn mac(secret: &[u8; 32], request: &[u8]) -> [u8; 32] {
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), request);
    let mut mac = [0; 32];
    mac.copy_from_slice(tag.as_ref());
    mac
}

/// Whether a request was made by somebody who has the secret; in constant time.
#[must_use]
pub fn mac_holds(secret: &[u8; 32], request: &[u8], mac: &[u8; 32]) -> bool {
    hmac::verify(&hmac::Key::new(hmac::HMAC_SHA256, secret), request, mac).is_ok()
}

fn checksum(bytes: &[u8]) -> [u8; 4] {
    digest(&SHA256, bytes).as_ref().first_chunk().copied().unwrap_or_default()
}

impl FromStr for JoinToken {
    type Err = TokenError;

    fn from_str(text: &str) -> Result<Self, TokenError> {
        let coded = text.trim().strip_prefix(PREFIX).filter(|coded| coded.len() <= TOKEN_CHARS_MAX);
        let bytes = URL_SAFE_NO_PAD.decode(coded.ok_or(TokenError::Form)?).map_err(|_| TokenError::Checksum)?;
        let (bytes, sum) = bytes.split_last_chunk::<4>().ok_or(TokenError::Checksum)?;
        if checksum(bytes) != *sum {
            return Err(TokenError::Checksum);
        }
        let (version, rest) = bytes.split_first().ok_or(TokenError::Form)?;
        if *version != VERSION {
            return Err(TokenError::Version);
        }
        let (id, rest) = rest.split_first_chunk::<8>().ok_or(TokenError::Form)?;
        let (secret, rest) = rest.split_first_chunk::<32>().ok_or(TokenError::Form)?;
        let (authority, address) = rest.split_first_chunk::<32>().ok_or(TokenError::Form)?;
        let address = std::str::from_utf8(address).map_err(|_| TokenError::Form)?;
        Self::new(*id, *secret, *authority, address)
    }
}

impl fmt::Debug for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinToken").field("address", &self.address).finish_non_exhaustive()
    }
}

/// What the fuzzer runs.
pub(crate) fn fuzz(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(token) = text.parse::<JoinToken>() {
        assert_eq!(token.to_line().parse(), Ok(token), "it reads what it writes");
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_token_comes_back_whole_or_not_at_all() {
        let token = JoinToken::new([1; 8], [2; 32], [3; 32], "gw.example.com:7443").unwrap();
        let line = token.to_line();
        assert_eq!(line.parse(), Ok(token.clone()));
        assert_eq!(format!("  {line}\n").parse(), Ok(token.clone()));
        for cut in 0..line.len() {
            assert!(line.get(..cut).unwrap().parse::<JoinToken>().is_err());
        }
        assert!(!format!("{token:?}").contains(&line), "the secret stays where it is");
    }

    #[test]
    fn only_the_secret_makes_the_mac() {
        let token = JoinToken::new([1; 8], [2; 32], [3; 32], "gw:1").unwrap();
        assert!(mac_holds(&[2; 32], b"request", &token.mac(b"request")));
        assert!(!mac_holds(&[4; 32], b"request", &token.mac(b"request")));
        assert!(!mac_holds(&[2; 32], b"another", &token.mac(b"request")));
    }
}
