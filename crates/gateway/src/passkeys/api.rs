//! Passkeys over the HTTP API.
//!
//! ```text
//! GET  /v1/passkeys          the bearer's own
//! POST /v1/passkeys/begin    what a browser needs to make one
//! POST /v1/passkeys/finish   what it made
//! ```
//!
//! Bytes are base64url without padding, as browsers have them.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hyper::{Method, StatusCode};
use model::{Assertion, Identity, Passkey, Time, wall_text};
use serde::Deserialize;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::{CEREMONY_MAX, NotTaken, Passkeys, Site};
use crate::approvals::problem;

/// A new key.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewForm {
    authenticator_data: String,
    client_data: String,
    assertion: Option<SignedForm>,
}

/// A signature, as a browser gives it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SignedForm {
    credential: String,
    authenticator_data: String,
    client_data: String,
    signature: String,
}

impl SignedForm {
    /// The bytes of it; none if they are not base64url.
    pub(crate) fn read(&self) -> Option<Assertion> {
        Some(Assertion {
            credential: self.credential.clone(),
            authenticator_data: URL_SAFE_NO_PAD.decode(&self.authenticator_data).ok()?,
            client_data: URL_SAFE_NO_PAD.decode(&self.client_data).ok()?,
            signature: URL_SAFE_NO_PAD.decode(&self.signature).ok()?,
        })
    }
}

/// Answers a request of somebody who is proven to be `by`. The path is what follows `/v1/passkeys`.
pub(crate) fn answer(
    passkeys: &Passkeys,
    site: Option<&Site>,
    by: &Identity,
    method: &Method,
    path: &str,
    body: &[u8],
) -> (StatusCode, Value) {
    let Some(site) = site else {
        let hint = "its operator sets passkeys.origin to the address at which browsers reach /approve";
        return problem(StatusCode::NOT_FOUND, "no_passkeys", "this gateway takes no passkeys", hint);
    };
    match (method, path) {
        (&Method::GET, "") => {
            let own: Vec<Value> = passkeys.of(&by.name, site).iter().map(shown).collect();
            (StatusCode::OK, json!({"passkeys": own}))
        }
        (&Method::POST, "/begin") => match passkeys.begin(by) {
            Ok(challenge) => {
                let own: Vec<Passkey> = passkeys.of(&by.name, site).into_iter().map(|(_, key)| key).collect();
                // One of them confirms the new one, by the same challenge.
                let confirm = (!own.is_empty()).then(|| request_options(&challenge, &own, site));
                (StatusCode::OK, json!({"create": creation_options(&challenge, by, &own, site), "confirm": confirm}))
            }
            Err(error) => not_taken(&error),
        },
        (&Method::POST, "/finish") => finish(passkeys, site, by, body),
        (_, "" | "/begin" | "/finish") => {
            problem(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", "use GET, or POST to enrol", "")
        }
        _ => problem(StatusCode::NOT_FOUND, "not_found", "there is nothing here", ""),
    }
}

fn finish(passkeys: &Passkeys, site: &Site, by: &Identity, body: &[u8]) -> (StatusCode, Value) {
    let malformed = |text: &str| {
        let hint = "send what the browser made, each part in base64url without padding";
        problem(StatusCode::BAD_REQUEST, "invalid_request", text, hint)
    };
    let form: NewForm = match serde_json::from_slice(body) {
        Ok(form) => form,
        Err(error) => return malformed(&format!("the new passkey cannot be read: {error}")),
    };
    let bytes = |text: &str| URL_SAFE_NO_PAD.decode(text).ok();
    let (Some(authenticator), Some(client)) = (bytes(&form.authenticator_data), bytes(&form.client_data)) else {
        return malformed("the new passkey is not base64url");
    };
    let confirmed = form.assertion.as_ref().map(SignedForm::read);
    if matches!(confirmed, Some(None)) {
        return malformed("the confirming signature is not base64url");
    }
    match passkeys.finish(by, site, &authenticator, &client, confirmed.flatten().as_ref()) {
        Ok(key) => (
            StatusCode::OK,
            json!({"credential": key.credential, "algorithm": key.algorithm.as_str(), "aaguid": key.aaguid}),
        ),
        Err(error) => not_taken(&error),
    }
}

fn shown((time, key): &(Time, Passkey)) -> Value {
    json!({
        "credential": key.credential,
        "algorithm": key.algorithm.as_str(),
        "aaguid": key.aaguid,
        "enrolled": wall_text(time.wall_us),
    })
}

/// What a browser needs to make a key: `PublicKeyCredentialCreationOptionsJSON`.
fn creation_options(challenge: &[u8; 32], by: &Identity, own: &[Passkey], site: &Site) -> Value {
    let user = URL_SAFE_NO_PAD.encode(Sha256::digest(by.name.as_str().as_bytes()));
    json!({
        "rp": {"id": site.rp_id, "name": "OnRecord"},
        "user": {"id": user, "name": by.name.as_str(), "displayName": by.name.as_str()},
        "challenge": URL_SAFE_NO_PAD.encode(challenge),
        "pubKeyCredParams": [{"type": "public-key", "alg": -7}, {"type": "public-key", "alg": -8}],
        "timeout": milliseconds(),
        "excludeCredentials": credentials(own),
        "authenticatorSelection": {"residentKey": "preferred", "userVerification": "required"},
        "attestation": "none",
    })
}

/// What a browser needs to sign with one of these keys: `PublicKeyCredentialRequestOptionsJSON`.
pub(crate) fn request_options(challenge: &[u8; 32], own: &[Passkey], site: &Site) -> Value {
    json!({
        "challenge": URL_SAFE_NO_PAD.encode(challenge),
        "rpId": site.rp_id,
        "allowCredentials": credentials(own),
        "userVerification": "required",
        "timeout": milliseconds(),
    })
}

fn credentials(own: &[Passkey]) -> Vec<Value> {
    own.iter().map(|key| json!({"type": "public-key", "id": key.credential})).collect()
}

fn milliseconds() -> u64 {
    u64::try_from(CEREMONY_MAX.as_millis()).unwrap_or(u64::MAX)
}

/// Why a key or a signature is not taken, as an answer.
pub(crate) fn not_taken(error: &NotTaken) -> (StatusCode, Value) {
    let (status, code, hint) = match error {
        NotTaken::NoPerson => (StatusCode::FORBIDDEN, "not_allowed", ""),
        NotTaken::NotBegun => (StatusCode::CONFLICT, "not_begun", "begin again"),
        NotTaken::NotConfirmed => {
            let hint =
                "sign with it; if it is lost, whoever operates the gateway revokes and restores you, which removes it";
            (StatusCode::FORBIDDEN, "passkey_required", hint)
        }
        NotTaken::MustSign => {
            let hint = "make one on the page /approve of this gateway, where its operator has set passkeys.origin";
            (StatusCode::FORBIDDEN, "passkey_required", hint)
        }
        NotTaken::Unsigned => {
            (StatusCode::FORBIDDEN, "passkey_required", "decide on the page /approve of this gateway, which signs")
        }
        NotTaken::Known => (StatusCode::CONFLICT, "already_enrolled", ""),
        NotTaken::TooMany(_) => (StatusCode::CONFLICT, "too_many", ""),
        NotTaken::NotYours | NotTaken::Wrong(_) => {
            (StatusCode::FORBIDDEN, "wrong_signature", "sign again, on the page /approve of this gateway")
        }
        NotTaken::Record(_) | NotTaken::Disk(_) => {
            (StatusCode::SERVICE_UNAVAILABLE, "not_recorded", "the gateway's operator should look at its disk")
        }
    };
    problem(status, code, &error.to_string(), hint)
}
