//! `onrecord policy ...` with the binary.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use common::Place;
use model::{ChannelBinding, Durability, Identity, Known, Label, Proof, ProofMethod, SessionEnd, Status, Time, Via};
use serde_json::Value;
use store::{
    Clock, Disk, IntentDraft, Options, OutcomeDraft, RealDisk, Recorder, SessionClosing, SessionStart, SystemRandom,
};

const EXAMPLES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/examples/policy");

/// Rules that need to know nothing of statements but their text.
const RULES: &str = r#"version: 1
default: allow
rules:
- id: no-drop
  when: cmd.text.lowerAscii().contains("drop table")
  then: deny
  message: ask a person to drop it
- id: agents
  when: identity.kind == "agent" && "readers" in identity.groups
  then: allow
"#;

/// 2026-11-22T09:35:01Z and then some.
struct Ticking(AtomicI64);

impl Clock for Ticking {
    fn now(&self) -> Time {
        let passed = self.0.fetch_add(1_500, Ordering::Relaxed);
        Time { wall_us: 1_795_340_101_000_000 + passed, boot_us: 1_000_000 + u64::try_from(passed).unwrap() }
    }
}

/// A session with these commands, the second by number, and its id.
fn record(place: &Place, texts: &[&str]) -> String {
    let disk: Arc<dyn Disk> = Arc::new(RealDisk::new(&place.path().join("data")));
    let options = Options { segment_bytes: 1 << 20, ..Options::new("gateway.example.com/1") };
    let clock = Arc::new(Ticking(AtomicI64::new(0)));
    Recorder::create_on(&disk, &options, &*clock, &mut SystemRandom).unwrap();
    // Another test's fork may hold the directory's lock until it executes its program.
    let recorder = loop {
        match Recorder::open(disk.clone(), options.clone(), clock.clone(), Box::new(SystemRandom)) {
            Err(store::StoreError::Locked) => std::thread::sleep(std::time::Duration::from_millis(5)),
            opened => break opened.unwrap().0,
        }
    };
    let start = SessionStart {
        identity: Identity {
            name: "agent:copilot".parse().unwrap(),
            known: Known::Verified,
            proof: Proof {
                method: ProofMethod::ScramSha256,
                channel: ChannelBinding::None,
                credential: "salt:W22ZaJ0SNY7soEsUEjb6gQ==".to_owned(),
                evidence: None,
            },
            on_behalf_of: None,
            groups: vec!["readers".to_owned()],
            run: None,
        },
        connection: "app".to_owned(),
        database: Some(Label::new(b"app")),
        upstream_user: "app_owner".to_owned(),
        protocol: "postgres".to_owned(),
        client: "192.0.2.7:50123".to_owned(),
        tls: None,
        claims: Vec::new(),
        durability: Durability::Intent,
        upstream: model::UpstreamSecurity::Local,
        outpost: None,
    };
    let (mut log, id) = recorder.open_session(start).unwrap();
    for (number, text) in texts.iter().enumerate() {
        let text = log.seal(text.as_bytes());
        let none = model::Field::NONE;
        let via = if number == 1 { Via::Function } else { Via::Simple };
        let intent = IntentDraft { bytes: 60, ..IntentDraft::new(via, &text, &none) };
        log.settled(&intent, &OutcomeDraft::new(Status::Ok)).unwrap();
    }
    log.close(SessionClosing { reason: SessionEnd::ClientClosed, bytes_up: 300, bytes_down: 400 }).unwrap();
    let _ = id;
    recorder.stop().unwrap();
    let sessions: Value = serde_json::from_str(&place.run("sessions --data data --output json").out).unwrap();
    sessions[0]["id"].as_str().unwrap().to_owned()
}

#[test]
fn check_says_all_that_is_wrong_and_what_to_write() {
    let place = Place::new();
    place.write("good.yaml", RULES);
    let ran = place.run("policy check good.yaml");
    assert_eq!((ran.code, ran.err.as_str()), (0, ""));
    assert!(ran.out.starts_with("good.yaml: ok (2 rules, default allow, digest "), "{}", ran.out);
    let json: Value = serde_json::from_str(&place.run("policy check good.yaml --output json").out).unwrap();
    assert_eq!(json["rules"], serde_json::json!(["no-drop", "agents"]));
    assert_eq!(json["digest"].as_str().unwrap().len(), 64);

    place.write(
        "bad.yaml",
        "version: 1\nrules:\n- id: a\n  when: cmd.operation == \"slect\"\n  then: dney\n- id: a\n  when: cmd.efects.size() > 0\n  then: require_aproval\n",
    );
    let ran = place.run("policy check good.yaml bad.yaml");
    assert_eq!((ran.code, ran.err.as_str()), (2, ""));
    assert_eq!(
        ran.out,
        "bad.yaml:5: rule a: `then` is \"dney\"; write `deny`\n\
         bad.yaml:8: rule a: `then` is \"require_aproval\"; write `require_approval`\n\
         2 problems\n"
    );
    let json: Value = serde_json::from_str(&place.run("policy check bad.yaml --output json").out).unwrap();
    assert_eq!((json[0]["line"].as_u64(), json[0]["rule"].as_str()), (Some(5), Some("a")));
    for (words, code) in
        [("policy check missing.yaml", 2), ("policy check", 2), ("policy test", 2), ("policy explain", 2)]
    {
        assert_eq!(place.run(words).code, code, "{words}");
    }
}

#[test]
fn test_says_which_cases_fail_and_why() {
    let place = Place::new();
    place.write("p.yaml", RULES);
    let case = |name: &str, sql: &str, rest: &str| {
        format!("- {{name: {name}, identity: agent:copilot, connection: app, sql: \"{sql}\", {rest}}}\n")
    };
    let good =
        case("drops", "DROP TABLE a", "expect: deny, rules: [no-drop]") + &case("reads", "select 1", "expect: allow");
    place.write("good.yaml", &good);
    let ran = place.run("policy test good.yaml --policy p.yaml");
    assert_eq!((ran.code, ran.out.as_str(), ran.err.as_str()), (0, "2 cases: 2 passed, 0 failed\n", ""));
    place.write("bad.yaml", &(good + &case("drops too", "drop table b", "expect: allow, rules: [agents]")));
    let ran = place.run("policy test bad.yaml --policy p.yaml");
    assert_eq!((ran.code, ran.err.as_str()), (1, ""));
    let lines: Vec<&str> = ran.out.lines().collect();
    assert_eq!(lines.len(), 3, "{}", ran.out);
    assert!(lines[0].starts_with("LINE  CASE       EXPECTED        GOT"), "{}", ran.out);
    assert!(
        lines[1].starts_with("3     drops too  allow (agents)  deny (no-drop)  deny by rule no-drop"),
        "{}",
        ran.out
    );
    assert_eq!(lines[2], "3 cases: 2 passed, 1 failed");
    let json: Value = serde_json::from_str(&place.run("policy test bad.yaml --policy p.yaml -o json").out).unwrap();
    assert_eq!((json["cases"].as_u64(), json["failed"][0]["case"].as_str()), (Some(3), Some("drops too")));

    place.write("time.yaml", "version: 1\nrules:\n- {id: h, when: time.hour > 8, then: allow}\n");
    let ran = place.run("policy test good.yaml --policy time.yaml");
    assert_eq!(ran.code, 2);
    assert!(ran.err.contains("good.yaml:1: the case has no `at`, and the rules look at the time"), "{}", ran.err);
}

#[test]
fn what_needs_an_approval_is_called_hold() {
    let place = Place::new();
    place.write(
        "p.yaml",
        "version: 1\ndefault: allow\nrules:\n- {id: ask, when: 'cmd.operation == \"drop\"', then: require_approval}\n",
    );
    place.write(
        "cases.yaml",
        "- {name: drops, identity: agent:copilot, connection: app, sql: drop table a, expect: hold, rules: [ask]}\n\
         - {name: reads, identity: agent:copilot, connection: app, sql: select 1, expect: hold}\n",
    );
    let ran = place.run("policy test cases.yaml --policy p.yaml");
    assert_eq!((ran.code, ran.err.as_str()), (1, ""));
    assert!(ran.out.contains("reads  hold") && ran.out.ends_with("2 cases: 1 passed, 1 failed\n"), "{}", ran.out);
    let words = ["policy", "explain", "--sql", "drop table a", "--identity", "agent:copilot", "--connection", "app"];
    let ran: common::Ran = place.command().args(words).args(["--policy", "p.yaml"]).output().unwrap().into();
    assert_eq!((ran.code, ran.err.as_str()), (0, ""));
    assert!(ran.out.contains("hold by rule ask"), "{}", ran.out);
}

#[test]
fn explain_says_what_each_rule_says() {
    let place = Place::new();
    place.write("p.yaml", RULES);
    let words = [
        "policy",
        "explain",
        "--sql",
        "drop TABLE a;\nselect 1",
        "--identity",
        "agent:copilot",
        "--connection",
        "app",
        "--group",
        "readers",
        "--policy",
        "p.yaml",
    ];
    let ran: common::Ran = place.command().args(words).output().unwrap().into();
    assert_eq!((ran.code, ran.err.as_str()), (0, ""));
    for line in [
        "text          drop TABLE a;",
        "              select 1",
        "verdict       deny by rule no-drop",
        "message       ask a person to drop it",
    ] {
        assert!(ran.out.lines().any(|said| said == line), "{line}\n{}", ran.out);
    }
    assert!(ran.out.contains("no-drop  deny   matched"), "{}", ran.out);
    let session = record(&place, &["select 1", "(by number)", "drop table a"]);
    let explain = |id: &str| place.run(&format!("policy explain {id} --data data --policy p.yaml -o json"));
    let json: Value = serde_json::from_str(&explain(&format!("{session}.3")).out).unwrap();
    assert_eq!((json["verdict"].as_str(), json["recorded"]["verdict"].as_str()), (Some("deny"), Some("allow")));
    assert_eq!(json["matched"], serde_json::json!(["no-drop", "agents"]));
    assert_eq!(json["rules"][0]["result"], "matched");
    let json: Value = serde_json::from_str(&explain(&format!("{session}.1")).out).unwrap();
    assert_eq!((json["verdict"].as_str(), json["rules"][0]["result"].as_str()), (Some("allow"), Some("not_matched")));
    let ran = explain(&format!("{session}.2"));
    assert_eq!(ran.code, 1);
    assert!(ran.err.contains("a call by number, which rules do not decide"), "{}", ran.err);
    assert_eq!(explain(&format!("{session}.9")).code, 5);
    assert_eq!(explain(&session).code, 2);
}

#[test]
fn replay_says_what_would_have_changed_and_guesses_nothing() {
    let place = Place::new();
    place.write("p.yaml", RULES);
    let session = record(&place, &["drop table a", "(by number)", "select 1", "select 'gone'", "drop TABLE b"]);
    place.write("onrecord.toml", common::CONFIG);
    place.write("password", "secret\n");
    let ran = place.run(&format!("redact {session}.4 --field statement --reason test"));
    assert_eq!(ran.code, 0, "{}", ran.err);
    let ran = place.run("policy replay --data data --policy p.yaml");
    assert_eq!((ran.code, ran.err.as_str()), (0, ""));
    let lines: Vec<&str> = ran.out.lines().collect();
    assert_eq!(
        &lines[..6],
        [
            "5 commands: 2 would change",
            "not put to the rules: 1 (erased)",
            "not put to the rules: 1 (a call by number, which rules do not decide)",
            "",
            "RECORDED  NEW   COMMANDS  RULES",
            "allow     deny         2  no-drop, agents",
        ],
        "{}",
        ran.out
    );
    assert!(lines[lines.len() - 1].ends_with("drop TABLE b"), "newest last: {}", ran.out);
    let json = place.run("policy replay --data data --policy p.yaml --limit 1 --output json").out;
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!((json["commands"].as_u64(), json["changed"].as_u64()), (Some(5), Some(2)));
    assert_eq!(json["not_decided"], serde_json::json!({"erased": 1, "function": 1}));
    assert_eq!(json["list"].as_array().unwrap().len(), 1);
    assert_eq!(json["list"][0]["command"]["text"], "drop TABLE b");
    let ran = place.run("policy replay --data data --policy p.yaml --until 2026-01-01");
    assert_eq!(ran.out, "0 commands: 0 would change\n");
}

#[test]
fn the_examples_of_the_manual_do_what_their_cases_say() {
    let place = Place::new();
    for name in ["read-only-agents", "read-only-tables", "rules"] {
        let ran = place.run(&format!("policy test {EXAMPLES}/{name}.cases.yaml --policy {EXAMPLES}/{name}.yaml"));
        assert_eq!(ran.code, 0, "{}{}", ran.out, ran.err);
    }
}
