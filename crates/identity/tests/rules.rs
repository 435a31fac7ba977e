//! Rules: what they make of verified claims, and what is wrong with those that cannot be used.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod common;

use common::*;
use identity::{Issuer, Proven, Refusal, RuleSettings};
use model::{Known, RefusedReason};
use serde_json::{Value, json};

fn map(rules: &[RuleSettings], over: Value) -> Result<Proven, Refusal> {
    let signer = Signer::ed25519();
    let token = signer.token(&json!({"alg": "EdDSA", "kid": "a"}), &claims(over));
    Issuer::new(settings(), rules).unwrap().verify(&token, &keys(&[signer.jwk("a")]), NOW)
}

fn wrong(rule: RuleSettings) -> String {
    Issuer::new(settings(), &[rule]).unwrap_err().to_string()
}

#[test]
fn the_first_rule_that_matches_counts() {
    let rules = [
        RuleSettings::new("absent", "claims.environment == \"copilot\"", "agent:copilot"),
        RuleSettings::new("second", "claims.sub.startsWith(\"build-\")", "agent:{claims.sub}"),
        RuleSettings::new("third", "true", "service:other"),
    ];
    assert_eq!(map(&rules, json!({})).unwrap().name.as_str(), "agent:build-7");
    assert_eq!(map(&rules, json!({"environment": "copilot"})).unwrap().name.as_str(), "agent:copilot");
    assert_eq!(map(&rules, json!({"sub": "x"})).unwrap().name.as_str(), "service:other");
    let refusal = map(&rules[..2], json!({"sub": "x"})).unwrap_err();
    assert_eq!(refusal.reason(), RefusedReason::TokenUnmapped);
    assert!(refusal.to_string().contains("no rule of test"), "{refusal}");
}

#[test]
fn groups_run_and_principal_come_from_templates() {
    let rule = RuleSettings {
        groups: vec![
            "agents".into(),
            "{claims.groups}".into(),
            "{claims.groups.filter(g, g.startsWith(\"db-\")).map(g, \"x-\" + g)}".into(),
            "{claims.absent}".into(),
        ],
        on_behalf_of: Some("human:{claims.email}".into()),
        run: Some("run:{claims.run_id}.{claims.attempt}".into()),
        ..rule("agent:{issuer}.{claims.sub}")
    };
    let over = json!({"groups": ["db-read", "dev", "dev"], "email": "ada@example.org", "run_id": 77, "attempt": "2"});
    let proven = map(std::slice::from_ref(&rule), over.clone()).unwrap();
    assert_eq!(proven.name.as_str(), "agent:test.build-7");
    assert_eq!(proven.groups, ["agents", "db-read", "dev", "x-db-read"]);
    let principal = proven.on_behalf_of.unwrap();
    assert_eq!((principal.name.as_str(), principal.known), ("human:ada@example.org", Known::Verified));
    assert_eq!(proven.run.unwrap().id, "run:77.2");
    // Absent: no run, and no identity on behalf of nobody.
    let mut over = over;
    over["attempt"] = Value::Null;
    assert_eq!(map(std::slice::from_ref(&rule), over.clone()).unwrap().run, None);
    over["email"] = Value::Null;
    let refusal = map(&[rule], over).unwrap_err().to_string();
    assert!(refusal.contains("test/all") && refusal.contains("on_behalf_of") && refusal.contains("email"), "{refusal}");
}

#[test]
fn values_that_make_no_name_are_refused_and_never_mangled() {
    let rule = [rule("agent:x.{claims.who}")];
    assert!(map(&rule, json!({"who": "a/b+c@d-e_f.g"})).is_ok());
    assert_eq!(map(&rule, json!({"who": 12_345_678_901_u64})).unwrap().name.as_str(), "agent:x.12345678901");
    for who in [
        json!(""),
        json!("a b"),
        json!("a:b"),
        json!("a\u{0}"),
        json!("\u{430}dmin"),
        json!("x".repeat(127)),
        json!(1.5),
        json!(null),
        json!(["a"]),
        json!({"a": 1}),
        json!("a\nb"),
        json!("x".repeat(4000)),
    ] {
        let refusal = map(&rule, json!({"who": who})).unwrap_err();
        assert_eq!(refusal.reason(), RefusedReason::TokenUnmapped);
        assert!(refusal.to_string().len() < 500 && !refusal.to_string().contains('\n'), "{refusal}");
    }
}

#[test]
fn a_delegated_token_is_never_taken_for_its_subject() {
    let plain = RuleSettings::new("people", "true", "human:{claims.sub}");
    let delegated = RuleSettings {
        on_behalf_of: Some("human:{claims.sub}".into()),
        ..RuleSettings::new("delegated", "size(act) == 1", "agent:{act[0]}")
    };
    let over = json!({"sub": "ada", "act": {"sub": "assistant"}});
    let refusal = map(std::slice::from_ref(&plain), over.clone()).unwrap_err();
    assert!(refusal.to_string().contains("`act`"), "{refusal}");
    let both = [plain, delegated];
    let proven = map(&both, over).unwrap();
    assert_eq!(proven.name.as_str(), "agent:assistant");
    assert_eq!(proven.on_behalf_of.unwrap().name.as_str(), "human:ada");
    assert_eq!(map(&both, json!({"sub": "ada"})).unwrap().name.as_str(), "human:ada");
    // A longer chain: this rule is for one only.
    let chain = json!({"sub": "ada", "act": {"sub": "tool", "act": {"sub": "assistant"}}});
    assert!(map(&both, chain.clone()).is_err());
    let any = RuleSettings { when: "size(act) >= 1".into(), ..both[1].clone() };
    let proven = map(&[any], chain).unwrap();
    assert_eq!(proven.name.as_str(), "agent:tool");
    let model::Evidence::Token(evidence) = proven.evidence else { panic!("a token proved it") };
    assert_eq!(evidence.actors, ["tool", "assistant"]);
}

#[test]
fn chains_of_actors_have_an_end() {
    let rule = RuleSettings { on_behalf_of: Some("human:{claims.sub}".into()), ..rule("agent:{act[0]}") };
    let chain = |length: usize| {
        (0..length).fold(Value::Null, |inner, at| match inner {
            Value::Null => json!({"sub": format!("a{at}")}),
            inner => json!({"sub": format!("a{at}"), "act": inner}),
        })
    };
    assert!(map(std::slice::from_ref(&rule), json!({"act": chain(8)})).is_ok());
    assert_eq!(
        map(std::slice::from_ref(&rule), json!({"act": chain(9)})).unwrap_err().reason(),
        RefusedReason::TokenClaims
    );
    for odd in [json!("x"), json!({}), json!({"sub": 7}), json!({"sub": ""}), json!([{"sub": "a"}])] {
        assert_eq!(
            map(std::slice::from_ref(&rule), json!({"act": odd})).unwrap_err().reason(),
            RefusedReason::TokenClaims
        );
    }
}

#[test]
fn too_many_groups_are_refused_with_what_to_write() {
    let rule = RuleSettings { groups: vec!["{claims.groups}".into()], ..rule("agent:x") };
    let groups = |count: usize| (0..count).map(|at| format!("g{at}")).collect::<Vec<_>>();
    assert_eq!(map(std::slice::from_ref(&rule), json!({"groups": groups(64)})).unwrap().groups.len(), 64);
    let refusal = map(std::slice::from_ref(&rule), json!({"groups": groups(65)})).unwrap_err().to_string();
    assert!(refusal.contains("65 groups") && refusal.contains("filter"), "{refusal}");
    for odd in [json!(["a", 1.5]), json!(["a\u{7}"]), json!([""]), json!([["a"]]), json!({"a": 1})] {
        assert!(map(std::slice::from_ref(&rule), json!({"groups": odd})).is_err());
    }
}

#[test]
fn a_rule_that_cannot_be_evaluated_refuses_and_says_which() {
    let odd = [RuleSettings::new("odd", "claims.sub + 1 == 2", "agent:x"), rule("agent:y")];
    let refusal = map(&odd, json!({})).unwrap_err().to_string();
    assert!(refusal.contains("test/odd") && refusal.contains("`when`"), "{refusal}");
    let refusal = map(&[RuleSettings::new("text", "claims.sub", "agent:x")], json!({})).unwrap_err().to_string();
    assert!(refusal.contains("neither true nor false"), "{refusal}");
}

#[test]
fn rules_that_are_wrong_say_what_to_write() {
    let says =
        |text: String, parts: &[&str]| parts.iter().for_each(|part| assert!(text.contains(part), "{text}: {part}"));
    says(wrong(RuleSettings::new("r", "claims.sub ==", "agent:x")), &["issuer test, rule r: `when`", "CEL"]);
    says(wrong(RuleSettings::new("r", "claim.sub == \"x\"", "agent:x")), &["\"claim\"", "claims, issuer, act"]);
    says(wrong(RuleSettings::new("r", "now() > 1", "agent:x")), &["\"now\""]);
    says(wrong(RuleSettings::new("r", "true", "{claims.kind}:x")), &["`identity`", "agent:, human: or service:"]);
    says(wrong(RuleSettings::new("r", "true", "robot:x")), &["`identity`"]);
    says(wrong(RuleSettings::new("r", "true", "agent:{claims.sub")), &["`identity`", "brace"]);
    says(wrong(RuleSettings::new("r", "true", "agent:claims.sub}")), &["`identity`", "brace"]);
    says(wrong(RuleSettings::new("r", "true", "agent:{}")), &["`identity`"]);
    says(wrong(RuleSettings::new("r", "true", "agent:{act[0]}")), &["`on_behalf_of`", "human:{claims.sub}"]);
    says(wrong(RuleSettings::new("R R", "true", "agent:x")), &["`name`"]);
    let long = format!("claims.sub == \"{}\"", "x".repeat(3000));
    says(wrong(RuleSettings::new("r", &long, "agent:x")), &["longer"]);
    let deep = format!("{}true{}", "(".repeat(1000), ")".repeat(1000));
    assert!(!wrong(RuleSettings::new("r", &deep, "agent:x")).is_empty());
    let twice = Issuer::new(settings(), &[rule("agent:x"), rule("agent:y")]).unwrap_err().to_string();
    says(twice, &["two rules"]);
}

#[test]
fn braces_and_quotes_in_expressions_are_theirs() {
    let rule = rule("agent:{{\"a\": claims.sub}[\"a\"]}.{\"}\" == \"}\" ? \"y\" : \"n\"}");
    assert_eq!(map(&[rule], json!({})).unwrap().name.as_str(), "agent:build-7.y");
}

#[test]
fn the_digest_follows_every_part_of_the_rules() {
    let digest = |rule: RuleSettings| Issuer::new(settings(), &[rule]).unwrap().stable_digest();
    let base = rule("agent:x");
    let all = [
        digest(base.clone()),
        digest(RuleSettings { name: "b".into(), ..base.clone() }),
        digest(RuleSettings { when: "1 == 1".into(), ..base.clone() }),
        digest(RuleSettings { identity: "agent:y".into(), ..base.clone() }),
        digest(RuleSettings { groups: vec!["g".into()], ..base.clone() }),
        digest(RuleSettings { on_behalf_of: Some("human:h".into()), ..base.clone() }),
        digest(RuleSettings { run: Some("human:h".into()), ..base.clone() }),
    ];
    for (at, one) in all.iter().enumerate() {
        assert!(!all[..at].contains(one), "{at}");
    }
    assert_eq!(digest(base.clone()), digest(base));
}
