//! The document by which an issuer says where its keys are (OpenID Connect Discovery, RFC 8414).

use serde_json::Value;

use crate::json;
use crate::refusal::shown;

/// The longest document, in bytes.
pub const DISCOVERY_BYTES_MAX: usize = 256 * 1024;
/// The longest URL, in bytes.
const URL_BYTES_MAX: usize = 2048;

/// Why a document does not say where the keys are.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DiscoveryError {
    /// It is no such document.
    #[error("it is no discovery document: {0}")]
    Form(String),
    /// It is that of another issuer.
    #[error("it says that it is of {0}: configure exactly that as `issuer`, if it is the one that is meant")]
    Issuer(String),
    /// It names no keys.
    #[error("it does not say where the keys are (`jwks_uri`)")]
    NoKeys,
}

/// Where the keys of this issuer are, by its discovery document.
///
/// # Errors
/// The document is none, is of another issuer (compared exactly), or names no keys.
pub fn jwks_uri(document: &[u8], issuer: &str) -> Result<String, DiscoveryError> {
    if document.len() > DISCOVERY_BYTES_MAX {
        return Err(DiscoveryError::Form(format!("it has more than {DISCOVERY_BYTES_MAX} bytes")));
    }
    let object = json::object(document).map_err(|error| DiscoveryError::Form(error.to_string()))?;
    match object.get("issuer").and_then(Value::as_str) {
        Some(said) if said == issuer => {}
        said => return Err(DiscoveryError::Issuer(said.map_or_else(|| "nobody".to_owned(), shown))),
    }
    match object.get("jwks_uri").and_then(Value::as_str) {
        Some(url) if (1..=URL_BYTES_MAX).contains(&url.len()) => Ok(url.to_owned()),
        _ => Err(DiscoveryError::NoKeys),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_document_of_the_issuer_itself_is_believed() {
        let of = |document: &str| jwks_uri(document.as_bytes(), "https://a.example");
        let good = r#"{"issuer":"https://a.example","jwks_uri":"https://b.example/k"}"#;
        assert_eq!(of(good), Ok("https://b.example/k".to_owned()));
        let slash = good.replace("a.example", "a.example/");
        assert_eq!(of(&slash), Err(DiscoveryError::Issuer("\"https://a.example/\"".to_owned())));
        assert!(matches!(of("{}"), Err(DiscoveryError::Issuer(_))));
        assert_eq!(of(r#"{"issuer":"https://a.example"}"#), Err(DiscoveryError::NoKeys));
        assert!(matches!(of("<html>"), Err(DiscoveryError::Form(_))));
    }
}
