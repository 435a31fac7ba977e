//! Tokens that are genuine, and every way in which one is not.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod common;

use std::time::Duration;

use common::*;
use identity::{Issuer, IssuerSettings, KeySet, Refusal, TOKEN_BYTES_MAX, peek};
use model::{Evidence, RefusedReason};
use serde_json::{Value, json};

/// What comes of a token with these claims over the usual ones, signed as it should be.
fn with(over: Value) -> Result<identity::Proven, Refusal> {
    with_issuer(&issuer(), over)
}

fn with_issuer(issuer: &Issuer, over: Value) -> Result<identity::Proven, Refusal> {
    let signer = Signer::es256();
    let token = signer.token(&json!({"alg": "ES256", "kid": "a", "typ": "JWT"}), &claims(over));
    issuer.verify(&token, &keys(&[signer.jwk("a")]), NOW)
}

/// What comes of a token with this header.
fn with_header(header: Value) -> Result<identity::Proven, Refusal> {
    let signer = Signer::es256();
    issuer().verify(&signer.token(&header, &claims(json!({}))), &keys(&[signer.jwk("a")]), NOW)
}

fn reason(result: Result<identity::Proven, Refusal>) -> RefusedReason {
    result.unwrap_err().reason()
}

#[test]
fn a_genuine_token_of_each_kind_of_key_proves_its_subject() {
    for (signer, algorithm) in [
        (Signer::rsa(), "RS256"),
        (Signer::rsa(), "PS256"),
        (Signer::es256(), "ES256"),
        (Signer::ed25519(), "EdDSA"),
        (Signer::ed25519(), "Ed25519"),
    ] {
        let token = signer.token(&json!({"alg": algorithm, "kid": "a"}), &claims(json!({})));
        let set = keys(&[signer.jwk("a")]);
        let proven = issuer().verify(&token, &set, NOW).unwrap();
        assert_eq!(proven.name.as_str(), "service:build-7");
        assert_eq!(proven.not_after, NOW + 300 + 30);
        let Evidence::Token(evidence) = proven.evidence else { panic!("a token proved it") };
        assert_eq!((evidence.algorithm.as_str(), evidence.kid.as_deref()), (algorithm, Some("a")));
        assert_eq!((evidence.keys, evidence.keys_fetched, evidence.verified), (set.document(), NOW - 60, NOW));
        assert_eq!(evidence.rule, "test/all");
        assert_eq!(evidence.rules, issuer().stable_digest());
        assert!(set.by_thumbprint(evidence.key).is_some());
    }
    // Allowed only if the operator says so.
    let signer = Signer::es384();
    let token = signer.token(&json!({"alg": "ES384", "kid": "a"}), &claims(json!({})));
    let set = keys(&[signer.jwk("a")]);
    assert_eq!(reason(issuer().verify(&token, &set, NOW)), RefusedReason::TokenAlgorithm);
    let allowing = IssuerSettings { algorithms: vec!["ES384".to_owned()], ..settings() };
    assert!(Issuer::new(allowing, &[rule("service:x")]).unwrap().verify(&token, &set, NOW).is_ok());
}

#[test]
fn what_the_record_keeps_is_what_the_token_says() {
    let settings = IssuerSettings { kept_claims: vec!["ref".into(), "long".into(), "none".into()], ..settings() };
    let issuer = Issuer::new(settings, &[rule("service:{claims.sub}")]).unwrap();
    let over = json!({
        "aud": ["other", AUDIENCE], "azp": "cli", "auth_time": NOW - 100, "acr": "2", "amr": ["pwd", "otp"],
        "ref": {"a": [1]}, "long": "x".repeat(300), "secret": "s",
    });
    let Evidence::Token(evidence) = with_issuer(&issuer, over).unwrap().evidence else { panic!("a token proved it") };
    assert_eq!(evidence.audience, ["other", AUDIENCE]);
    assert_eq!(evidence.client.as_deref(), Some("cli"));
    assert_eq!((evidence.issued, evidence.not_before, evidence.expires), (Some(NOW - 5), Some(NOW - 5), NOW + 300));
    assert_eq!((evidence.auth_time, evidence.acr.as_deref()), (Some(NOW - 100), Some("2")));
    assert_eq!((evidence.amr.as_slice(), evidence.confirmation.as_deref()), (&["pwd".into(), "otp".into()][..], None));
    let kept: Vec<&str> = evidence.claims.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(kept, ["ref", "long"]);
    assert_eq!(evidence.claims[0].1, r#"{"a":[1]}"#);
    assert!(evidence.claims[1].1.starts_with("(300 bytes, sha256 "), "{}", evidence.claims[1].1);
}

#[test]
fn a_token_that_is_bound_to_a_key_is_no_bearers() {
    for cnf in [json!({"jkt": "thumb"}), json!({"x5t#S256": "thumb"}), json!({"jwk": {}}), json!({})] {
        assert!(matches!(with(json!({"cnf": cnf})), Err(Refusal::Claims { claim: "cnf", .. })));
    }
}

#[test]
fn a_credential_is_named_alike_each_time_and_reveals_nothing() {
    let signer = Signer::ed25519();
    let token = signer.token(&json!({"alg": "EdDSA", "kid": "a"}), &claims(json!({})));
    let set = keys(&[signer.jwk("a")]);
    let first = issuer().verify(&token, &set, NOW).unwrap();
    assert_eq!(first.credential, issuer().verify(&token, &set, NOW + 9).unwrap().credential);
    assert!(!token.contains(first.credential.strip_prefix("jwt:").unwrap()));
}

#[test]
fn times_are_checked_with_the_leeway_and_no_more() {
    assert!(with(json!({"exp": NOW - 29})).is_ok());
    assert_eq!(with(json!({"exp": NOW - 30})).unwrap_err(), Refusal::Expired { seconds_ago: 30 });
    assert!(with(json!({"nbf": NOW + 30})).is_ok());
    assert_eq!(with(json!({"nbf": NOW + 31})).unwrap_err(), Refusal::NotYetValid { seconds: 31, claim: "nbf" });
    assert_eq!(with(json!({"iat": NOW + 3600})).unwrap_err(), Refusal::NotYetValid { seconds: 3600, claim: "iat" });
    assert!(with(json!({"iat": null, "nbf": null})).is_ok());
    // A fraction is allowed by the standard.
    assert!(with(json!({"exp": 1_790_000_300.75})).is_ok());
    for wrong in [json!(null), json!("1790000300"), json!(-1), json!(1e300), json!(-1e300), json!(u64::MAX), json!([])]
    {
        assert_eq!(reason(with(json!({"exp": wrong}))), RefusedReason::TokenClaims);
    }
}

#[test]
fn a_token_that_holds_for_too_long_is_refused() {
    let settings = IssuerSettings { token_max: Some(Duration::from_secs(600)), ..settings() };
    let issuer = Issuer::new(settings, &[rule("service:{claims.sub}")]).unwrap();
    assert!(with_issuer(&issuer, json!({"exp": NOW + 595})).is_ok());
    assert!(matches!(
        with_issuer(&issuer, json!({"exp": NOW + 596})),
        Err(Refusal::Lifetime { seconds: 601, max: 600, .. })
    ));
    assert_eq!(reason(with_issuer(&issuer, json!({"iat": null}))), RefusedReason::TokenClaims);
}

#[test]
fn another_audience_or_issuer_is_refused_with_what_to_do() {
    let refusal = with(json!({"aud": ["https://other.example"]})).unwrap_err();
    assert_eq!(refusal.reason(), RefusedReason::TokenAudience);
    assert!(refusal.to_string().contains(r#"the audience "https://gateway.example""#), "{refusal}");
    for wrong in [json!(null), json!([]), json!(7), json!(""), json!([AUDIENCE, 7]), json!({"a": AUDIENCE})] {
        assert!(with(json!({"aud": wrong.clone()})).is_err(), "{wrong}");
    }
    // Exactly: a slash more is another issuer.
    assert_eq!(reason(with(json!({"iss": format!("{ISSUER}/")}))), RefusedReason::TokenIssuer);
    assert_eq!(reason(with(json!({"iss": null}))), RefusedReason::TokenClaims);
    assert_eq!(reason(with(json!({"sub": null}))), RefusedReason::TokenClaims);
}

#[test]
fn algorithms_that_prove_nothing_are_refused() {
    let signer = Signer::rsa();
    let set = keys(&[signer.jwk("a")]);
    let payload = encoded(claims(json!({})).to_string().as_bytes());
    for none in ["none", "None", "nOnE", "NONE", ""] {
        let header = encoded(json!({"alg": none, "kid": "a"}).to_string().as_bytes());
        for signature in ["", "AAAA"] {
            let token = format!("{header}.{payload}.{signature}");
            assert_eq!(reason(issuer().verify(&token, &set, NOW)), RefusedReason::TokenAlgorithm);
        }
    }
    // The public key as the secret of a MAC, in the spellings that libraries have fallen for.
    let jwk = signer.jwk("a");
    for secret in [jwk.to_string(), jwk["n"].as_str().unwrap().to_owned()] {
        let header = encoded(json!({"alg": "HS256", "kid": "a"}).to_string().as_bytes());
        let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, secret.as_bytes());
        let mac = aws_lc_rs::hmac::sign(&key, format!("{header}.{payload}").as_bytes());
        let token = format!("{header}.{payload}.{}", encoded(mac.as_ref()));
        assert_eq!(reason(issuer().verify(&token, &set, NOW)), RefusedReason::TokenAlgorithm);
    }
}

#[test]
fn a_key_is_used_for_its_own_algorithm_only() {
    let signer = Signer::rsa();
    let mut jwk = signer.jwk("a");
    jwk["alg"] = json!("RS256");
    let token = signer.token(&json!({"alg": "PS256", "kid": "a"}), &claims(json!({})));
    assert_eq!(reason(issuer().verify(&token, &keys(&[jwk]), NOW)), RefusedReason::TokenKey);
    let token = signer.token(&json!({"alg": "ES256", "kid": "a"}), &claims(json!({})));
    assert_eq!(reason(issuer().verify(&token, &keys(&[signer.jwk("a")]), NOW)), RefusedReason::TokenKey);
}

#[test]
fn keys_are_found_by_name_and_rotate() {
    let (old, new) = (Signer::es256(), Signer::es256());
    let by_old = old.token(&json!({"alg": "ES256", "kid": "old"}), &claims(json!({})));
    let by_new = new.token(&json!({"alg": "ES256", "kid": "new"}), &claims(json!({})));
    let before = keys(&[old.jwk("old")]);
    let during = keys(&[old.jwk("old"), new.jwk("new")]);
    let after = keys(&[new.jwk("new")]);
    assert!(issuer().verify(&by_old, &before, NOW).is_ok());
    assert_eq!(reason(issuer().verify(&by_new, &before, NOW)), RefusedReason::TokenKey);
    assert!(issuer().verify(&by_old, &during, NOW).is_ok() && issuer().verify(&by_new, &during, NOW).is_ok());
    assert_eq!(reason(issuer().verify(&by_old, &after, NOW)), RefusedReason::TokenKey);
    // The name of a published key on a token that another key signed.
    let posing = old.token(&json!({"alg": "ES256", "kid": "new"}), &claims(json!({})));
    assert_eq!(issuer().verify(&posing, &during, NOW).unwrap_err(), Refusal::Signature);
    // Without a name, any published key will do, and no other.
    let unnamed = new.token(&json!({"alg": "ES256"}), &claims(json!({})));
    assert!(issuer().verify(&unnamed, &during, NOW).is_ok());
    assert_eq!(reason(issuer().verify(&unnamed, &before, NOW)), RefusedReason::TokenKey);
}

#[test]
fn no_byte_of_a_token_can_be_changed() {
    let signer = Signer::ed25519();
    let set = keys(&[signer.jwk("a")]);
    let token = signer.token(&json!({"alg": "EdDSA", "kid": "a"}), &claims(json!({})));
    assert!(issuer().verify(&token, &set, NOW).is_ok());
    for at in 0..token.len() {
        let mut changed = token.clone().into_bytes();
        changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
        let changed = String::from_utf8(changed).unwrap();
        assert!(issuer().verify(&changed, &set, NOW).is_err(), "byte {at}");
        assert!(issuer().verify(&token[..at], &set, NOW).is_err(), "cut at {at}");
    }
    assert!(issuer().verify(&format!("{token}A"), &set, NOW).is_err());
    assert!(issuer().verify(&format!("{token}="), &set, NOW).is_err());
    assert!(issuer().verify(&format!(" {token}"), &set, NOW).is_err());
}

#[test]
fn headers_that_bring_keys_or_change_the_rules_are_refused() {
    let brought = Signer::es256().jwk("a");
    for (name, value) in [
        ("jwk", brought),
        ("jku", json!("https://attacker.example/keys")),
        ("x5u", json!("https://attacker.example/cert")),
        ("crit", json!(["exp"])),
        ("b64", json!(true)),
        ("cty", json!("JWT")),
        ("zip", json!("DEF")),
        ("typ", json!("logout+jwt")),
        ("typ", json!("dpop+jwt")),
        ("typ", json!(7)),
        ("alg", json!(["ES256"])),
        ("kid", json!(7)),
        ("kid", json!("k".repeat(300))),
    ] {
        let mut header = json!({"alg": "ES256", "kid": "a"});
        header[name] = value;
        assert_eq!(reason(with_header(header)), RefusedReason::TokenMalformed, "{name}");
    }
    for kind in ["JWT", "at+jwt", "application/at+jwt", "JOSE"] {
        assert!(with_header(json!({"alg": "ES256", "kid": "a", "typ": kind})).is_ok());
    }
}

#[test]
fn text_that_is_read_in_two_ways_is_not_read() {
    let signer = Signer::es256();
    let set = keys(&[signer.jwk("a")]);
    let header = r#"{"alg":"ES256","kid":"a"}"#;
    let good = claims(json!({})).to_string();
    assert!(issuer().verify(&signer.raw(header, &good), &set, NOW).is_ok());
    let twice = good.replacen('{', r#"{"sub":"admin","#, 1);
    let nested = good.replacen('{', &format!(r#"{{"x":{}{},"#, "[".repeat(40), "]".repeat(40)), 1);
    for payload in [twice.as_str(), nested.as_str(), &format!("{good}{good}"), "[]", "", "\u{feff}{}"] {
        assert_eq!(reason(issuer().verify(&signer.raw(header, payload), &set, NOW)), RefusedReason::TokenMalformed);
    }
    let twice = r#"{"alg":"ES256","alg":"none","kid":"a"}"#;
    assert_eq!(reason(issuer().verify(&signer.raw(twice, &good), &set, NOW)), RefusedReason::TokenMalformed);
    for odd in ["", ".", "..", "a.b", "a.b.c", "a.b.c.d", "....", "\u{e9}.\u{e9}.\u{e9}"] {
        assert_eq!(reason(issuer().verify(odd, &set, NOW)), RefusedReason::TokenMalformed, "{odd}");
        assert!(peek(odd).is_err());
    }
}

#[test]
fn sixteen_kibibytes_are_read_and_no_more() {
    let signer = Signer::es256();
    let set = keys(&[signer.jwk("a")]);
    let of = |padding: usize| {
        signer.token(&json!({"alg": "ES256", "kid": "a"}), &claims(json!({"padding": "x".repeat(padding)})))
    };
    let longest = (11_000..13_000).rev().map(of).find(|token| token.len() <= TOKEN_BYTES_MAX).unwrap();
    assert!(longest.len() > TOKEN_BYTES_MAX - 4);
    assert!(issuer().verify(&longest, &set, NOW).is_ok());
    let long = of(13_000);
    assert_eq!(issuer().verify(&long, &set, NOW).unwrap_err(), Refusal::TooLong { bytes: long.len() });
    assert_eq!(peek(&long).unwrap_err().reason(), RefusedReason::TokenTooLong);
}

#[test]
fn peeking_says_who_claims_to_have_issued_it() {
    let token = Signer::es256().token(&json!({"alg": "ES256", "kid": "a"}), &claims(json!({})));
    let peeked = peek(&token).unwrap();
    assert_eq!(
        (peeked.issuer.as_str(), peeked.kid.as_deref(), peeked.algorithm.as_str()),
        (ISSUER, Some("a"), "ES256")
    );
}

#[test]
fn refusals_never_hold_the_token() {
    let signer = Signer::es256();
    let set: KeySet = keys(&[Signer::es256().jwk("a")]);
    let token = signer.token(&json!({"alg": "ES256", "kid": "a"}), &claims(json!({})));
    let refusal = issuer().verify(&token, &set, NOW).unwrap_err();
    for part in token.split('.') {
        assert!(!refusal.to_string().contains(part) && !format!("{refusal:?}").contains(part));
    }
}

#[test]
fn settings_that_would_let_anyone_in_are_refused() {
    let error = |settings: IssuerSettings| Issuer::new(settings, &[rule("service:x")]).unwrap_err().to_string();
    let base = settings;
    assert!(error(IssuerSettings { audiences: vec![], ..base() }).contains("audiences"));
    assert!(error(IssuerSettings { algorithms: vec!["HS256".into()], ..base() }).contains("HS256"));
    assert!(error(IssuerSettings { algorithms: vec!["none".into()], ..base() }).contains("none"));
    assert!(error(IssuerSettings { issuer: String::new(), ..base() }).contains("iss"));
    assert!(error(IssuerSettings { name: "A b".into(), ..base() }).contains("name"));
    assert!(Issuer::new(base(), &[]).unwrap_err().to_string().contains("rules"));
}
