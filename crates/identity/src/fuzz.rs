//! What the fuzzer runs: any bytes as a token, as an issuer's keys, as a certificate, and as the claims of a token whose
//! signature is right.

use crate::claims::Registered;
use crate::{Certificates, Issuer, IssuerSettings, KeySet, RuleSettings, jwks_uri, peek};

/// Nothing may panic, and nothing may be proven: no key that the fuzzer could know signs anything here.
pub fn token(data: &[u8]) {
    let rule = RuleSettings {
        groups: vec!["{claims.groups}".to_owned()],
        run: Some("{claims.run}".to_owned()),
        ..RuleSettings::new("any", "claims.sub != \"\"", "service:{claims.sub}")
    };
    let settings = IssuerSettings::new("fuzz", "https://issuer.example", &["gateway"]);
    let (Ok(issuer), Ok(certificates)) =
        (Issuer::new(settings, std::slice::from_ref(&rule)), Certificates::new("fuzz", &[rule]))
    else {
        return;
    };
    let _ = KeySet::parse(data, 0);
    let _ = jwks_uri(data, "https://issuer.example");
    let _ = certificates.prove(data, 0);
    if let Ok(claims) = crate::json::object(data) {
        let _ = Registered::read(&claims);
        let _ = issuer.map_for_fuzzing(&claims);
    }
    if let (Ok(text), Ok(keys)) = (std::str::from_utf8(data), KeySet::parse(KEYS.as_bytes(), 0)) {
        let _ = peek(text);
        assert!(issuer.verify(text, &keys, 0).is_err(), "a token that nobody signed was taken for genuine");
    }
}

/// The public key of section 3.1 of RFC 7638.
const KEYS: &str = r#"{"keys":[{"kty":"RSA","n":"0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw","e":"AQAB","kid":"a"}]}"#;
