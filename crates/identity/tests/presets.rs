//! The presets, by tokens as their issuers make them.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod common;

use common::*;
use identity::{Issuer, IssuerSettings, Preset, PresetSettings, Proven, Refusal};
use model::Evidence;
use serde_json::{Value, json};

fn prove(preset: Preset, settings: &PresetSettings, claims: &Value) -> Result<Proven, Refusal> {
    let signer = Signer::rsa();
    let token = signer.token(&json!({"alg": "RS256", "kid": "k1", "typ": "JWT", "x5t": "k1"}), claims);
    let iss = claims["iss"].as_str().unwrap();
    let issuer = IssuerSettings { kept_claims: preset.kept_claims(), ..IssuerSettings::new("corp", iss, &[AUDIENCE]) };
    let issuer = Issuer::new(issuer, &preset.rules("corp", settings).unwrap()).unwrap();
    issuer.verify(&token, &keys(&[signer.jwk("k1")]), NOW)
}

/// A token of a job, as GitHub's documentation and its issuer give it.
fn github(over: Value) -> Value {
    let mut claims = json!({
        "jti": "6ec8a7c1-4b7e-4e0f-b7a3-0f3b9f4c1d2e",
        "sub": "repo:octo-org/octo-repo:environment:prod",
        "aud": AUDIENCE,
        "ref": "refs/heads/main",
        "sha": "1234567890123456789012345678901234567890",
        "repository": "octo-org/octo-repo",
        "repository_owner": "octo-org",
        "repository_owner_id": "65",
        "run_id": "30433642",
        "run_number": "10",
        "run_attempt": "2",
        "repository_visibility": "private",
        "repository_id": "74",
        "actor_id": "12",
        "actor": "octocat",
        "workflow": "example-workflow",
        "head_ref": "",
        "base_ref": "",
        "event_name": "workflow_dispatch",
        "ref_protected": "true",
        "ref_type": "branch",
        "workflow_ref": "octo-org/octo-repo/.github/workflows/example.yml@refs/heads/main",
        "workflow_sha": "1234567890123456789012345678901234567890",
        "job_workflow_ref": "octo-org/octo-automation/.github/workflows/oidc.yml@refs/heads/main",
        "job_workflow_sha": "1234567890123456789012345678901234567890",
        "runner_environment": "github-hosted",
        "enterprise_id": "9",
        "enterprise": "octo-enterprise",
        "check_run_id": "5550001",
        "iss": "https://token.actions.githubusercontent.com",
        "nbf": NOW - 300,
        "exp": NOW + 600,
        "iat": NOW - 5,
    });
    for (name, value) in over.as_object().unwrap() {
        claims[name] = value.clone();
    }
    claims
}

fn owners(ids: &[&str]) -> PresetSettings {
    PresetSettings { owner_ids: ids.iter().map(|id| (*id).to_owned()).collect(), ..PresetSettings::default() }
}

#[test]
fn github_is_mapped_on_ids() {
    let preset = Preset::GithubActions;
    let proven = prove(preset, &owners(&["65"]), &github(json!({}))).unwrap();
    assert_eq!(proven.name.as_str(), "service:github.74");
    assert_eq!(proven.run.unwrap().id, "github:30433642.2");
    assert_eq!(proven.on_behalf_of.unwrap().name.as_str(), "human:github.12");
    let Evidence::Token(evidence) = proven.evidence else { panic!("a token proved it") };
    assert!(evidence.claims.contains(&("repository".to_owned(), "octo-org/octo-repo".to_owned())));
    let copilot = github(json!({"environment": "copilot", "sub": "repo:octo-org/octo-repo:environment:copilot"}));
    assert_eq!(prove(preset, &owners(&["65"]), &copilot).unwrap().name.as_str(), "agent:copilot.74");
    let single = PresetSettings {
        repository_ids: vec!["74".into()],
        groups: vec!["ci".into(), "a{b}".into()],
        ..PresetSettings::default()
    };
    assert_eq!(prove(preset, &single, &github(json!({}))).unwrap().groups, ["a{b}", "ci"]);
}

#[test]
fn github_names_change_hands_and_change_nothing() {
    let preset = Preset::GithubActions;
    // The form of `sub` with ids in it, and a repository that was renamed: the same identity.
    let immutable = github(json!({
        "sub": "repo:octo-org@65/renamed@74:ref:refs/heads/main", "repository": "octo-org/renamed",
    }));
    assert_eq!(prove(preset, &owners(&["65"]), &immutable).unwrap().name.as_str(), "service:github.74");
    // Somebody else who took the old name, with all the same text.
    let squatter = github(json!({"repository_owner_id": "66", "repository_id": "75"}));
    assert!(matches!(prove(preset, &owners(&["65"]), &squatter), Err(Refusal::Unmapped { .. })));
    // A customised `sub` says nothing here.
    let customised = github(json!({"sub": "repository_owner_id:65", "repository_owner_id": "66"}));
    assert!(prove(preset, &owners(&["65"]), &customised).is_err());
}

fn kubernetes(sub: &str) -> Value {
    json!({
        "aud": [AUDIENCE],
        "exp": NOW + 3600,
        "iat": NOW - 10,
        "iss": "https://kubernetes.default.svc.cluster.local",
        "jti": "aed34954-b33a-4142-b1ec-389d6bbb4936",
        "kubernetes.io": {
            "namespace": "agents",
            "node": {"name": "node-1", "uid": "646e7c5e-32d6-4d42-9dbd-e504e6cbe6b1"},
            "pod": {"name": "planner-6c9f", "uid": "5e0bd49b-f040-43b0-99b7-22765a53f7f3"},
            "serviceaccount": {"name": "planner", "uid": "14ee3fa4-a7e2-420f-9f9a-dbc4507c3798"},
            "warnafter": NOW + 3000,
        },
        "nbf": NOW - 10,
        "sub": sub,
    })
}

#[test]
fn kubernetes_is_mapped_on_its_own_claims() {
    let settings = PresetSettings { namespaces: vec!["agents".into()], ..PresetSettings::default() };
    let claims = kubernetes("system:serviceaccount:agents:planner");
    let proven = prove(Preset::Kubernetes, &settings, &claims).unwrap();
    assert_eq!(proven.name.as_str(), "service:corp/agents/planner");
    assert_eq!(proven.run.unwrap().id, "pod:5e0bd49b-f040-43b0-99b7-22765a53f7f3");
    let Evidence::Token(evidence) = proven.evidence else { panic!("a token proved it") };
    assert_eq!(evidence.claims[0].0, "kubernetes.io");
    // A subject that does not fit, and another namespace.
    assert!(prove(Preset::Kubernetes, &settings, &kubernetes("system:serviceaccount:agents:other")).is_err());
    let elsewhere = PresetSettings { namespaces: vec!["default".into()], ..PresetSettings::default() };
    assert!(prove(Preset::Kubernetes, &elsewhere, &claims).is_err());
    // A token that is bound to no pod has no run.
    let mut unbound = claims;
    unbound["kubernetes.io"].as_object_mut().unwrap().remove("pod");
    assert_eq!(prove(Preset::Kubernetes, &settings, &unbound).unwrap().run, None);
}

#[test]
fn spiffe_is_mapped_on_the_path_in_its_trust_domain() {
    let settings = PresetSettings { trust_domain: Some("prod.example.org".into()), ..PresetSettings::default() };
    let svid = |sub: &str| json!({"iss": "https://oidc.prod.example.org", "aud": [AUDIENCE], "exp": NOW + 300, "iat": NOW, "sub": sub});
    let proven = prove(Preset::Spiffe, &settings, &svid("spiffe://prod.example.org/ns/agents/sa/planner")).unwrap();
    assert_eq!(proven.name.as_str(), "service:prod.example.org/ns/agents/sa/planner");
    for other in
        ["spiffe://prod.example.org.evil.example/x", "spiffe://dev.example.org/x", "spiffe://prod.example.org", "x"]
    {
        assert!(prove(Preset::Spiffe, &settings, &svid(other)).is_err(), "{other}");
    }
}

#[test]
fn client_credentials_are_told_from_people_by_the_same_client() {
    let preset = Preset::ClientCredentials;
    let settings = PresetSettings { clients: vec!["reporting".into()], ..PresetSettings::default() };
    let base = json!({"iss": "https://idp.example", "aud": AUDIENCE, "exp": NOW + 300, "iat": NOW, "scope": "db"});
    let token = |over: Value| {
        let mut claims = base.clone();
        claims.as_object_mut().unwrap().extend(over.as_object().unwrap().clone());
        claims
    };
    for own in [
        json!({"sub": "reporting", "client_id": "reporting"}),
        json!({"sub": "reporting", "azp": "reporting"}),
        json!({"sub": "2c1f", "oid": "2c1f", "azp": "reporting", "idtyp": "app", "ver": "2.0", "roles": ["db"]}),
        json!({"sub": "reporting@clients", "azp": "reporting", "gty": "client-credentials"}),
    ] {
        assert_eq!(prove(preset, &settings, &token(own)).unwrap().name.as_str(), "service:reporting");
    }
    for person in [
        json!({"sub": "ada", "client_id": "reporting"}),
        json!({"sub": "ada", "azp": "reporting", "idtyp": "user"}),
        json!({"sub": "auth0|ada", "azp": "reporting", "gty": "password"}),
        json!({"sub": "ada@clients", "azp": "reporting", "gty": "client-credentials"}),
        json!({"sub": "other", "client_id": "other"}),
    ] {
        assert!(prove(preset, &settings, &token(person.clone())).is_err(), "{person}");
    }
}

#[test]
fn presets_that_would_let_anyone_in_are_refused() {
    let error = |preset: Preset, settings: PresetSettings| preset.rules("corp", &settings).unwrap_err().to_string();
    assert!(error(Preset::GithubActions, PresetSettings::default()).contains("owner_ids"));
    assert!(error(Preset::GithubActions, owners(&["octo-org"])).contains("numbers"));
    assert!(error(Preset::GithubActions, owners(&["65\"] || true || \"\" in [\""])).contains("numbers"));
    assert!(error(Preset::Kubernetes, PresetSettings::default()).contains("namespaces"));
    assert!(error(Preset::Spiffe, PresetSettings::default()).contains("trust_domain"));
    assert!(error(Preset::Spiffe, owners(&["65"])).contains("github-actions"));
    for preset in Preset::ALL {
        assert_eq!(Preset::parse(preset.as_str()), Some(preset));
    }
    // Quotes in a value stay in it.
    let odd = PresetSettings { clients: vec!["a\"b\\".into()], ..PresetSettings::default() };
    let rules = Preset::ClientCredentials.rules("corp", &odd).unwrap();
    assert!(Issuer::new(settings(), &rules).is_ok());
}
