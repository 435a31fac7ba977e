//! What the check of an issuer's token costs once the issuer's keys are there: the decision itself, in this process. What
//! comes before it (a look-up under a lock) and after it (an entry) is in every login.

use std::hint::black_box;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use identity::{Issuer, IssuerSettings, KeySet, RuleSettings};
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_RSA_SHA256, RsaKeySize};
use serde_json::json;

/// Checks of one token.
const CHECKS: usize = 2_000;

/// Median and 99th percentile of a check, in microseconds.
pub(crate) struct Cost {
    pub(crate) algorithm: &'static str,
    pub(crate) median: f64,
    pub(crate) p99: f64,
}

/// Measures a token of an agent that acts for a person, by both kinds of keys that issuers use.
pub(crate) fn costs() -> anyhow::Result<Vec<Cost>> {
    let rsa = KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048)?;
    let rsa = EncodingKey::from_rsa_pem(rsa.serialize_pem().as_bytes())?;
    let ec = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let ec = EncodingKey::from_ec_pem(ec.serialize_pem().as_bytes())?;
    Ok(vec![cost("RS256", Algorithm::RS256, &rsa)?, cost("ES256", Algorithm::ES256, &ec)?])
}

fn cost(name: &'static str, algorithm: Algorithm, key: &EncodingKey) -> anyhow::Result<Cost> {
    let mut jwk = Jwk::from_encoding_key(key, algorithm)?;
    jwk.common.key_id = Some("k1".to_owned());
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    let keys = KeySet::parse(json!({"keys": [jwk]}).to_string().as_bytes(), now)?;
    let mut header = Header::new(algorithm);
    header.kid = Some("k1".to_owned());
    let claims = json!({
        "iss": "https://idp.invalid", "aud": "onrecord", "sub": "bea", "email": "bea@example.com", "act": {"sub": "copilot"},
        "iat": now, "nbf": now, "exp": now + 600, "jti": "0123456789abcdef", "groups": ["dba", "staff"], "sid": "c-17",
    });
    let token = jsonwebtoken::encode(&header, &claims, key)?;
    let rules = RuleSettings {
        on_behalf_of: Some("human:{claims.email}".to_owned()),
        groups: vec!["{claims.groups}".to_owned()],
        run: Some("conversation:{claims.sid}".to_owned()),
        ..RuleSettings::new("agents", "size(act) == 1", "agent:{act[0]}")
    };
    let issuer = Issuer::new(IssuerSettings::new("bench", "https://idp.invalid", &["onrecord"]), &[rules])?;
    let mut taken = Vec::with_capacity(CHECKS);
    for _ in 0..CHECKS {
        let began = Instant::now();
        let proven = black_box(issuer.verify(black_box(&token), &keys, now));
        taken.push(began.elapsed().as_secs_f64() * 1e6);
        proven?;
    }
    taken.sort_by(f64::total_cmp);
    let at = |share: usize| taken.get(CHECKS * share / 100).copied().context("no checks");
    Ok(Cost { algorithm: name, median: at(50)?, p99: at(99)? })
}
