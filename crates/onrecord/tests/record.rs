//! What the binary shows of a record: golden outputs over a record that is the same every time.
//!
//! `UPDATE_GOLDEN=1 cargo test -p onrecord --test record` writes the golden files anew; look at the difference.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod common;

use std::io::Read;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use common::{Place, Ran};
use model::{
    ChannelBinding, Claim, Durability, Effective, Identity, Known, Label, OnBehalfOf, Proof, ProofMethod, Reason,
    SessionEnd, StatementResult, Status, Time, Via,
};
use store::{
    Clock, Disk, IntentDraft, Options, OutcomeDraft, Random, RealDisk, Recorder, SessionClosing, SessionStart,
};

/// Ticks by a millisecond and a half whenever it is asked.
struct Ticking(AtomicI64);

impl Clock for Ticking {
    fn now(&self) -> Time {
        let passed = self.0.fetch_add(1_500, Ordering::Relaxed);
        Time { wall_us: 1_795_340_101_000_000 + passed, boot_us: 1_000_000 + u64::try_from(passed).unwrap() }
    }
}

/// As random as a test needs: never the same twice, always the same again.
struct Counting(u64);

impl Random for Counting {
    fn fill(&mut self, bytes: &mut [u8]) -> std::io::Result<()> {
        for byte in bytes {
            self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            *byte = self.0.to_be_bytes()[0];
        }
        Ok(())
    }
}

struct Said<'a> {
    via: Via,
    text: &'a str,
    parameters: Option<&'a str>,
    status: Status,
    code: Option<&'a str>,
    reason: Option<Reason>,
    message: Option<&'a str>,
    tags: &'a [&'a str],
}

const fn said<'a>(text: &'a str, status: Status) -> Said<'a> {
    Said { via: Via::Simple, text, parameters: None, status, code: None, reason: None, message: None, tags: &[] }
}

/// Two sessions: everyday commands, and hostile ones.
fn record(place: &Place) {
    let disk: Arc<dyn Disk> = Arc::new(RealDisk::new(&place.path().join("data")));
    let mut options = Options::new("gateway.example.com/1");
    options.segment_bytes = 1 << 20;
    let clock = Arc::new(Ticking(AtomicI64::new(0)));
    Recorder::create_on(&disk, &options, &*clock, &mut Counting(1)).unwrap();
    // Another test's fork may hold the directory's lock until it executes its program.
    let recorder = loop {
        let opened = Recorder::open(disk.clone(), options.clone(), clock.clone(), Box::new(Counting(2)));
        match opened {
            Err(store::StoreError::Locked) => std::thread::sleep(std::time::Duration::from_millis(5)),
            opened => break opened.unwrap().0,
        }
    };
    session(
        &recorder,
        "copilot-agent",
        Some("human:bea"),
        &[
            Said { tags: &["SELECT 1"], ..said("select count(*) from orders where status = 'open'", Status::Ok) },
            Said {
                via: Via::Extended,
                parameters: Some(r#"[{"type":"int4","value":"7"},null]"#),
                tags: &["UPDATE 1"],
                ..said("update orders\n   set status = 'shipped', note = $2\n where id = $1", Status::Ok)
            },
            Said {
                code: Some("42703"),
                message: Some("column \"emial\" does not exist"),
                ..said("select emial from customers", Status::Error)
            },
        ],
    );
    session(
        &recorder,
        "claude-code",
        None,
        &[
            Said {
                tags: &["SELECT 1"],
                ..said("select '\u{1b}]0;owned\u{7}\u{1b}[2J', '\u{202e}txet', '\u{9b}31m'", Status::Ok)
            },
            Said { reason: Some(Reason::UpstreamGone), ..said("delete from orders", Status::Unknown) },
        ],
    );
    recorder.stop().unwrap();
}

fn session(recorder: &Recorder, user: &str, principal: Option<&str>, commands: &[Said<'_>]) {
    let start = SessionStart {
        identity: Identity {
            name: format!("agent:{user}").parse().unwrap(),
            known: Known::Verified,
            proof: Proof {
                method: ProofMethod::ScramSha256,
                channel: ChannelBinding::None,
                credential: "salt:W22ZaJ0SNY7soEsUEjb6gQ==".to_owned(),
                evidence: None,
            },
            on_behalf_of: principal.map(|name| OnBehalfOf { name: name.parse().unwrap(), known: Known::Claimed }),
            groups: Vec::new(),
            run: None,
        },
        connection: "app".to_owned(),
        database: Some(Label::new(b"app")),
        upstream_user: "app_owner".to_owned(),
        protocol: "postgres".to_owned(),
        client: "192.0.2.7:50123".to_owned(),
        tls: Some("TLSv1.3 TLS13_AES_256_GCM_SHA384".to_owned()),
        claims: vec![Claim { name: Label::new(b"application_name"), value: Label::new(b"psql\x1b[31m") }],
        durability: Durability::Intent,
        upstream: model::UpstreamSecurity::Local,
        outpost: None,
    };
    let (mut log, _) = recorder.open_session(start).unwrap();
    for said in commands {
        let text = log.seal(said.text.as_bytes());
        let none = model::Field::NONE;
        let parameters = said.parameters.map_or(none, |parameters| log.seal(parameters.as_bytes()));
        let message = said.message.map_or(model::Field::NONE, |message| log.seal(message.as_bytes()));
        let results: Vec<_> =
            said.tags.iter().map(|tag| StatementResult { tag: (*tag).to_owned(), rows: Some(1) }).collect();
        let intent = IntentDraft {
            transaction: Some(model::Transaction::Idle),
            statement: (said.via == Via::Extended).then_some(b"s1"),
            portal: (said.via == Via::Extended).then_some(b""),
            bytes: 60,
            ..IntentDraft::new(said.via, &text, &parameters)
        };
        let outcome = OutcomeDraft {
            reason: said.reason,
            code: said.code,
            message,
            results: &results,
            results_count: results.len() as u64,
            rows: results.len() as u64,
            bytes_up: 60,
            bytes_down: 80,
            effective: Effective::Committed,
            executed: true,
            ..OutcomeDraft::new(said.status)
        };
        log.settled(&intent, &outcome).unwrap();
    }
    log.close(SessionClosing { reason: SessionEnd::ClientClosed, bytes_up: 300, bytes_down: 400 }).unwrap();
}

#[test]
fn outputs_are_as_they_were() {
    let place = Place::new();
    record(&place);
    for (name, words) in [
        ("commands", "commands --data data"),
        ("commands-ndjson", "commands --data data --output ndjson"),
        ("commands-status", "commands --data data --status error"),
        ("sessions", "sessions --data data"),
        ("replay", "replay --data data --at-once COPILOT"),
        ("show-command", "show --data data COPILOT.2"),
        ("show-command-json", "show --data data COPILOT.2 --output json"),
        ("show-session", "show --data data COPILOT"),
        ("verify", "verify data"),
        ("verify-json", "verify data --output json"),
    ] {
        let copilot = copilot(&place);
        let ran = run_at(&place, 120, &words.replace("COPILOT", &copilot));
        assert_eq!((ran.code, ran.err.as_str()), (0, ""), "{name}");
        let acts = |c: char| c.is_control() && c != '\n' || ('\u{202a}'..='\u{202e}').contains(&c);
        assert!(!ran.out.contains(acts), "{name} acts on a terminal:\n{:?}", ran.out);
        golden(name, &ran.out);
    }
}

#[test]
fn tables_fit_and_json_is_whole() {
    let place = Place::new();
    record(&place);
    for width in [60, 80, 140] {
        let out = run_at(&place, width, "commands --data data").out;
        let widest = out.lines().map(|line| line.chars().count()).max().unwrap();
        // Columns other than the text keep their width: below about 100 the terminal wraps them.
        assert!(widest <= width.max(104), "{width}: {widest}\n{out}");
    }
    let out = run_at(&place, 60, "commands --data data --output json").out;
    let all: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!(all.as_array().unwrap().len(), 5);
    assert_eq!(all[3]["text"], "select '\u{1b}]0;owned\u{7}\u{1b}[2J', '\u{202e}txet', '\u{9b}31m'");
}

#[test]
fn filters_select() {
    let place = Place::new();
    record(&place);
    let count = |words: &str| place.run(&format!("commands --data data --output ndjson {words}")).out.lines().count();
    for (words, expected) in [
        ("", 5),
        ("--limit 2", 2),
        ("--identity agent:claude-code", 2),
        ("--connection other", 0),
        ("--contains ORDERS", 3),
        ("--status unknown", 1),
        ("--since 2026-11-22T00:00Z", 5),
        ("--until 2026-11-22", 0),
    ] {
        assert_eq!(count(words), expected, "{words}");
    }
    assert_eq!(place.run("commands --data data --status maybe").code, 2);
    assert_eq!(place.run("commands --data data --since yesterday").code, 2);
}

#[test]
fn exit_codes_tell_what_is_wrong() {
    let place = Place::new();
    record(&place);
    assert_eq!(place.run("show --data data ZZZZZZ").code, 5);
    assert_eq!(place.run("show --data data x").code, 2);
    assert_eq!(place.run(&format!("show --data data {}.99", copilot(&place))).code, 5);
    assert_eq!(place.run("commands --data nowhere").code, 1);
    assert_eq!(place.run("nonsense").code, 2);

    std::fs::copy(place.path().join("data/vkey"), place.path().join("copy")).unwrap();
    assert_eq!(place.run("verify data --vkey copy").code, 0);
    place.write("other", "gateway.example.com/1+00000000+AQ==\n");
    assert_eq!(place.run("verify data --vkey other").code, 2);

    let changed = store::tamper(&place.path().join("data"), None).unwrap().unwrap();
    let ran = place.run("verify data --vkey copy");
    assert_eq!(ran.code, 3, "{}", ran.out);
    assert!(ran.out.contains(&format!("VIOLATED  entry {}", changed.index)), "{}", ran.out);
    assert!(ran.out.contains(&changed.command.to_string()), "{}", ran.out);
}

#[test]
fn a_reader_that_has_seen_enough_is_no_failure() {
    let place = Place::new();
    record(&place);
    let mut child = place
        .command()
        .args(["commands", "--data", "data", "--output", "ndjson", "--follow"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut first = [0; 1];
    child.stdout.as_mut().unwrap().read_exact(&mut first).unwrap();
    drop(child.stdout.take());
    // It notices at its next line; there is none, so it is ended here, and must not have said anything.
    child.kill().unwrap();
    assert_eq!(Ran::from(child.wait_with_output().unwrap()).err, "");

    let piped = format!("{} commands --data data --limit 0 | head -1", env!("CARGO_BIN_EXE_onrecord"));
    let mut shell = std::process::Command::new("sh");
    shell.args(["-c", &piped]).current_dir(place.path());
    assert_eq!(Ran::from(shell.output().unwrap()).err, "");
}

fn run_at(place: &Place, width: usize, words: &str) -> Ran {
    let mut command = place.command();
    command.args(words.split_whitespace()).env("COLUMNS", width.to_string());
    command.output().unwrap().into()
}

/// The first session's id.
fn copilot(place: &Place) -> String {
    let out = place.run("sessions --data data --output ndjson --identity copilot-agent").out;
    let session: serde_json::Value = serde_json::from_str(out.lines().next().unwrap()).unwrap();
    session["id"].as_str().unwrap().to_owned()
}

fn golden(name: &str, out: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(format!("{name}.txt"));
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, out).unwrap();
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(out, expected, "{name} changed; UPDATE_GOLDEN=1 writes it anew");
}
