//! What the fuzzer has found interesting, replayed; and hostile bytes without a fuzzer.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod common;

use std::path::Path;

use common::*;
use identity::peek;
use proptest::prelude::*;
use serde_json::json;

const CORPUS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fuzz/corpus/token");

#[test]
fn the_corpus_proves_nothing_and_panics_nowhere() {
    let files: Vec<_> = std::fs::read_dir(CORPUS).unwrap().collect();
    assert!(!files.is_empty());
    for file in files {
        identity::fuzz::token(&std::fs::read(file.unwrap().path()).unwrap());
    }
}

/// Makes the corpus: run it when the forms change, with `--ignored`.
#[test]
#[ignore = "writes fuzz/corpus/token"]
fn make_the_corpus() {
    let dir = Path::new(CORPUS);
    std::fs::create_dir_all(dir).unwrap();
    let signer = Signer::es256();
    let token = signer.token(&json!({"alg": "ES256", "kid": "a"}), &claims(json!({})));
    let write = |name: &str, bytes: &[u8]| std::fs::write(dir.join(name), bytes).unwrap();
    write("token", token.as_bytes());
    write(
        "rsa",
        Signer::rsa().token(&json!({"alg": "RS256", "kid": "a"}), &claims(json!({"aud": "gateway"}))).as_bytes(),
    );
    write("none", token.replacen('.', ".e30.", 1).as_bytes());
    write(
        "claims",
        claims(json!({"groups": ["a", "b"], "run": 7, "act": {"sub": "x", "act": {"sub": "y"}}}))
            .to_string()
            .as_bytes(),
    );
    write(
        "numbers",
        br#"{"iss":"i","sub":"s","aud":["a"],"exp":1e9,"iat":-1,"nbf":1.5,"cnf":{"jkt":"t"},"amr":"pwd","acr":1}"#,
    );
    write(
        "jwks",
        json!({"keys": [signer.jwk("a"), Signer::rsa().jwk("b"), Signer::ed25519().jwk("c")]}).to_string().as_bytes(),
    );
    let certified = rcgen::generate_simple_self_signed(vec!["agent.example".to_owned()]).unwrap();
    write("certificate", certified.cert.der());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    #[test]
    fn random_bytes_prove_nothing(data in prop::collection::vec(any::<u8>(), 0..2000)) {
        identity::fuzz::token(&data);
    }

    #[test]
    fn random_parts_prove_nothing(header in "\\PC{0,60}", payload in "\\PC{0,200}", signature in prop::collection::vec(any::<u8>(), 0..100)) {
        let token = format!("{}.{}.{}", encoded(header.as_bytes()), encoded(payload.as_bytes()), encoded(&signature));
        let _ = peek(&token);
        identity::fuzz::token(token.as_bytes());
    }

    #[test]
    fn random_claims_of_a_genuine_token_panic_nowhere(
        name in prop::sample::select(vec!["iss", "sub", "aud", "exp", "iat", "nbf", "act", "cnf", "amr", "acr", "azp", "jti", "auth_time"]),
        value in json(),
    ) {
        let signer = Signer::ed25519();
        let token = signer.token(&json!({"alg": "EdDSA", "kid": "a"}), &claims(json!({name: value})));
        let _ = issuer().verify(&token, &keys(&[signer.jwk("a")]), NOW);
    }
}

fn json() -> impl Strategy<Value = serde_json::Value> {
    let leaf = prop_oneof![
        Just(json!(null)),
        any::<bool>().prop_map(|value| json!(value)),
        any::<i64>().prop_map(|value| json!(value)),
        any::<f64>().prop_map(|value| json!(value)),
        "\\PC{0,20}".prop_map(|value| json!(value)),
    ];
    leaf.prop_recursive(4, 32, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(|list| json!(list)),
            prop::collection::hash_map("(sub|act|jkt|[a-z]{1,3})", inner, 0..4).prop_map(|map| json!(map)),
        ]
    })
}
