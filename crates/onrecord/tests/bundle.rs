//! Evidence bundles from the real binary: exported, verified by it, by the independent verifier in Python, and by the page
//! in a real browser.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod common;

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use common::{Place, Ran};
use model::{
    Actor, Approval, ApprovalDecision, ApprovalRequest, ApprovalStep, ApprovalVote, Body, BreakGlass, BreakGlassEnd,
    BreakGlassFinding, BreakGlassId, BreakGlassOpening, BreakGlassReview, BreakGlassStep, ChannelBinding, CommandId,
    ContentKind, Digest, Durability, Identity, Known, Label, Proof, ProofMethod, Reason, SessionEnd, Status, Time,
    Verdict, Via,
};
use serde_json::{Value, json};
use store::{
    Clock, IntentDraft, Level, Lone, Options, OutcomeDraft, Reader, Recorder, SessionClosing, SessionLog, SessionStart,
};

/// Ticks by a millisecond and a half whenever it is asked.
struct Ticking(AtomicI64);

impl Clock for Ticking {
    fn now(&self) -> Time {
        let passed = self.0.fetch_add(1_500, Ordering::Relaxed);
        Time { wall_us: 1_795_340_101_000_000 + passed, boot_us: 1_000_000 + u64::try_from(passed).unwrap() }
    }
}

/// The record in `data`, open; it is made if it is not there.
fn open(place: &Place) -> Recorder {
    static CLOCK: AtomicI64 = AtomicI64::new(0);
    let data = place.path().join("data");
    let mut options = Options::new("gateway.example.com/1");
    options.segment_bytes = 1 << 20;
    if !data.exists() {
        Recorder::create(&data, "gateway.example.com/1").unwrap();
    }
    let disk = Arc::new(store::RealDisk::new(&data));
    let clock = Arc::new(Ticking(AtomicI64::new(CLOCK.fetch_add(1_000_000_000, Ordering::Relaxed))));
    // Another test's fork may hold the directory's lock until it executes its program.
    loop {
        let random = Box::new(store::SystemRandom);
        match Recorder::open(disk.clone(), options.clone(), clock.clone(), random) {
            Err(store::StoreError::Locked) => std::thread::sleep(std::time::Duration::from_millis(5)),
            opened => return opened.unwrap().0,
        }
    }
}

fn begin(recorder: &Recorder, user: &str) -> SessionLog {
    begin_as(recorder, &format!("agent:{user}"))
}

fn begin_as(recorder: &Recorder, name: &str) -> SessionLog {
    let start = SessionStart {
        identity: Identity {
            name: name.parse().unwrap(),
            known: Known::Verified,
            proof: Proof {
                method: ProofMethod::ScramSha256,
                channel: ChannelBinding::None,
                credential: format!("{name}/1"),
                evidence: None,
            },
            on_behalf_of: None,
            groups: Vec::new(),
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
    recorder.open_session(start).unwrap().0
}

fn session(recorder: &Recorder, user: &str, commands: &[(&str, Option<&str>, Status)]) {
    let mut log = begin(recorder, user);
    for (text, parameters, status) in commands {
        let text = if text.len() > 4000 {
            let mut blob = log.blob().unwrap();
            blob.write(text.as_bytes()).unwrap();
            blob.finish().unwrap().0
        } else {
            log.seal(text.as_bytes())
        };
        let parameters = parameters.map_or(model::Field::NONE, |parameters| log.seal(parameters.as_bytes()));
        let message = match status {
            Status::Error => log.seal(b"column \"emial\" does not exist"),
            _ => model::Field::NONE,
        };
        let intent = IntentDraft { bytes: 60, ..IntentDraft::new(Via::Simple, &text, &parameters) };
        let code = (*status == Status::Error).then_some("42703");
        let outcome = OutcomeDraft { code, message, executed: true, ..OutcomeDraft::new(*status) };
        log.settled(&intent, &outcome).unwrap();
    }
    end(log);
}

fn end(log: SessionLog) {
    log.close(SessionClosing { reason: SessionEnd::ClientClosed, bytes_up: 300, bytes_down: 400 }).unwrap();
}

/// A command whose client did not wait for its approval, the same again under that, and one that nobody decided on
/// before the gateway stopped. Gives their ids.
fn approvals(place: &Place) -> [CommandId; 3] {
    let recorder = open(place);
    let held = |log: &mut SessionLog, approval: Option<CommandId>, decide: &mut dyn FnMut(CommandId, Digest)| {
        let text = log.seal(b"drop table users");
        let draft = IntentDraft {
            verdict: Verdict::Hold,
            rules: &["no-drops".to_owned()],
            approval,
            ..IntentDraft::new(Via::Simple, &text, &model::Field::NONE)
        };
        let pending = log.intent(&draft).unwrap();
        let (command, leaf) = (pending.command(), pending.leaf());
        decide(command, leaf);
        let gate = recorder.gate();
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        while gate.poll(&mut context, pending.position(), Level::Durable).is_pending() {
            gate.turn(Lone::Yes);
        }
        let recorded = gate.admit(pending, Level::Durable).unwrap();
        let (status, reason) = match approval {
            Some(_) => (Status::Ok, None),
            None => (Status::Denied, Some(Reason::ApprovalPending)),
        };
        let outcome = OutcomeDraft { reason, executed: approval.is_some(), ..OutcomeDraft::new(status) };
        log.outcome(recorded, &outcome).unwrap();
        command
    };
    let step = |of, step| recorder.note_approval(Approval { of, step }).unwrap().1;
    let request = std::cell::Cell::new(Digest([0; 32]));
    let mut ask = |of, intent| {
        request.set(step(
            of,
            ApprovalStep::Requested(Box::new(ApprovalRequest {
                intent,
                connection: "app".to_owned(),
                database: Some(Label::new(b"app")),
                role: "app_owner".to_owned(),
                policy: Digest([4; 32]),
                quorum: 1,
                signed: false,
                expires_us: 1_900_000_000_000_000,
                nonce: Digest([3; 32]),
            })),
        ));
    };
    let mut log = begin(&recorder, "copilot-agent");
    let first = held(&mut log, None, &mut ask);
    end(log);
    let proof =
        Proof { method: ProofMethod::Jwt, channel: ChannelBinding::None, credential: "sso".to_owned(), evidence: None };
    let name = "human:grace".parse().unwrap();
    let by = Identity { name, known: Known::Verified, proof, on_behalf_of: None, groups: Vec::new(), run: None };
    step(first, ApprovalStep::Seen { by: Box::new(by.clone()) });
    let comment = Some("as \u{1b}[31magreed".to_owned());
    let vote =
        ApprovalVote { decision: ApprovalDecision::Approve, request: request.get(), by, comment, signature: None };
    step(first, ApprovalStep::Decided(Box::new(vote)));
    let mut log = begin(&recorder, "copilot-agent");
    let again = held(&mut log, Some(first), &mut |command, _| {
        step(first, ApprovalStep::Used { command });
    });
    end(log);
    let mut log = begin(&recorder, "copilot-agent");
    let undecided = held(&mut log, None, &mut ask);
    end(log);
    recorder.stop().unwrap();
    [first, again, undecided]
}

#[test]
fn the_story_of_an_approval_is_told_from_the_record_and_from_a_bundle() {
    let place = Place::new();
    let [first, again, undecided] = approvals(&place);
    let show = |id: CommandId| {
        let ran = place.run(&format!("show {id} --data data"));
        assert_eq!(ran.code, 0, "{}", ran.err);
        assert!(!ran.out.contains('\u{1b}'), "{}", ran.out);
        ran.out
    };
    let in_order = |text: &str, parts: &[&str]| {
        let mut rest = text;
        for part in parts {
            let at = rest.find(part).unwrap_or_else(|| panic!("{part}: {text}"));
            rest = &rest[at + part.len()..];
        }
    };
    let used = format!("used by command {again} at ");
    in_order(
        &show(first),
        &[
            "verdict       hold",
            "rules         no-drops",
            "approval      asked for at 2026-",
            ", until 2030-",
            ", of 1 person",
            "seen by human:grace (verified, jwt) at ",
            "approved by human:grace (verified, jwt) at ",
            ": as \\x1b[31magreed",
            &used,
            "status        denied approval_pending",
            "executed      no",
        ],
    );
    in_order(
        &show(again),
        &[&format!("approval      of command {first}"), "approved by human:grace", "used by this command at "],
    );
    in_order(&show(undecided), &["approval      asked for", "void since ", "status        denied approval_pending"]);
    let json = |id| {
        let ran = place.run(&format!("show {id} --data data --output json"));
        serde_json::from_str::<Value>(&ran.out).unwrap()["approval"].clone()
    };
    let (told, void) = (json(again), json(undecided));
    assert_eq!((&told["of"], &told["state"]), (&json!(first.to_string()), &json!("used")));
    assert_eq!(told["votes"][0]["by"], json!({"name": "human:grace", "known": "verified", "proof": "jwt"}));
    assert_eq!(told["votes"][0]["request"], told["asked"]["request"]);
    assert_eq!(told["used"]["command"], again.to_string());
    assert!(void["state"] == "void" && void["void"]["entry"].is_u64(), "{void}");
    let listed = place.run("commands --data data --verdict hold --output ndjson").out;
    assert!(listed.lines().count() == 3 && listed.contains(r#""verdict":"hold""#), "{listed}");
    assert!(place.run("commands --data data --verdict deny").out.contains("No commands"));
    let ran = place.run("verify data");
    assert_eq!(ran.code, 0, "{}{}", ran.out, ran.err);
    for (command, words) in [("replay", "--at-once"), ("show", "")] {
        let ran = place.run(&format!("{command} {} --data data {words}", again.session));
        assert_eq!(ran.code, 0, "{}{}", ran.out, ran.err);
    }

    // Of the one command that ran, all that proves its approval.
    export(&place, &format!("--session {}", again.session), "one.zip");
    let ran = place.run("verify one.zip --vkey data/vkey");
    assert_eq!(ran.code, 0, "{}{}", ran.out, ran.err);
    in_order(
        &ran.out,
        &[
            &format!("approval for {again}: of command {first}"),
            "asked for at ",
            "approved by human:grace (verified, jwt) at ",
            "used by this command at ",
        ],
    );
    let shown: Value = serde_json::from_str(&place.run("verify one.zip --output json").out).unwrap();
    assert_eq!(shown["bundle"]["approvals"][2]["by"]["name"], "human:grace");
    assert_eq!((&shown["bundle"]["selected"], &shown["completeness"]["sessions"]), (&json!(1), &json!(2)));
    let theirs = python(&place, "one.zip --vkey data/vkey");
    assert_eq!(theirs.code, 0, "{}{}", theirs.out, theirs.err);
}

#[test]
fn the_story_of_break_glass_is_told_from_the_record_and_from_a_bundle() {
    let place = Place::new();
    let id = BreakGlassId::from_bytes([9; 16]);
    let person = |name: &str| {
        let (method, channel) = (ProofMethod::Jwt, ChannelBinding::None);
        let proof = Proof { method, channel, credential: "sso".to_owned(), evidence: None };
        let name = name.parse().unwrap();
        Identity { name, known: Known::Verified, proof, on_behalf_of: None, groups: Vec::new(), run: None }
    };
    let recorder = open(&place);
    let step = |recorder: &Recorder, step| recorder.note_break_glass(BreakGlass { id, step }).unwrap();
    // It lasts longer than this run of the gateway, whose next one says that it is over. Others work meanwhile.
    let (connection, reason) = ("app".to_owned(), "stuck \u{1b}[31m".to_owned());
    session(&recorder, "copilot-agent", &[("select 0", None, Status::Ok)]);
    recorder.flush().unwrap();
    let reader = Reader::open(&place.path().join("data")).unwrap();
    let until_us = reader.entries(0).last().unwrap().unwrap().entry.time.wall_us + 1_800_000_000;
    let opening = BreakGlassOpening { connection, by: person("human:cy"), reason, until_us };
    step(&recorder, BreakGlassStep::Opened(Box::new(opening)));
    session(&recorder, "copilot-agent", &[("select 1", None, Status::Ok)]);
    let mut log = begin_as(&recorder, "human:cy");
    let text = log.seal(b"drop table users");
    let intent = IntentDraft {
        rules: &["no-drops".to_owned()],
        observed: Some(Verdict::Hold),
        break_glass: Some(id),
        ..IntentDraft::new(Via::Simple, &text, &model::Field::NONE)
    };
    let outcome = OutcomeDraft { executed: true, ..OutcomeDraft::new(Status::Ok) };
    let (command, _) = log.settled(&intent, &outcome).unwrap();
    end(log);
    recorder.stop().unwrap();
    let recorder = open(&place);
    step(&recorder, BreakGlassStep::Closed { how: BreakGlassEnd::Restart, by: None });
    session(&recorder, "copilot-agent", &[("select 2", None, Status::Ok)]);
    recorder.flush().unwrap();
    let unreviewed = format!("break-glass {id} was not reviewed yet");
    let ran = place.run("verify data");
    assert!(ran.code == 0 && ran.out.contains(&unreviewed), "{}{}", ran.out, ran.err);
    let (by, finding) = (person("human:dora"), BreakGlassFinding::NotJustified);
    let review = BreakGlassReview { by, finding, comment: "it \u{202e}could wait".to_owned() };
    step(&recorder, BreakGlassStep::Reviewed(Box::new(review)));
    recorder.stop().unwrap();

    let told = [
        "opened by human:cy (verified, jwt) on app at 2026-",
        ", until 2026-",
        ": stuck \\x1b[31m",
        "closed at 2026-",
        " (restart)",
        "reviewed by human:dora (verified, jwt) at 2026-",
        ": not justified: it \\u{202e}could wait",
    ];
    let in_order = |text: &str| {
        let mut rest = text;
        for part in told {
            let at = rest.find(part).unwrap_or_else(|| panic!("{part}: {text}"));
            rest = &rest[at + part.len()..];
        }
    };
    let ran = place.run(&format!("show {command} --data data"));
    assert!(ran.code == 0 && !ran.out.contains('\u{1b}'), "{}{}", ran.out, ran.err);
    assert!(ran.out.contains("observed      hold, had the glass not been broken"), "{}", ran.out);
    assert!(ran.out.contains(&format!("break-glass   {id}\n")), "{}", ran.out);
    in_order(&ran.out);
    let ran = place.run(&format!("show {command} --data data --output json"));
    let shown = serde_json::from_str::<Value>(&ran.out).unwrap()["break_glass"].clone();
    assert_eq!((&shown["id"], &shown["closed"]["how"]), (&json!(id.to_string()), &json!("restart")));
    assert_eq!(shown["review"]["by"], json!({"name": "human:dora", "known": "verified", "proof": "jwt"}));
    let listed = place.run(&format!("commands --data data --break-glass {id} --output ndjson")).out;
    assert!(listed.lines().count() == 1 && listed.contains(&command.to_string()), "{listed}");
    let ran = place.run("verify data");
    assert!(ran.code == 0 && !ran.out.contains("not reviewed"), "{}{}", ran.out, ran.err);
    assert!(ran.out.contains("break-glass was opened 1 time, with 1 command under it"), "{}", ran.out);

    // Of the one command, all that proves it, from before its session to after the next start.
    export(&place, &format!("--break-glass {id}"), "one.zip");
    let ran = place.run("verify one.zip --vkey data/vkey");
    assert_eq!(ran.code, 0, "{}{}", ran.out, ran.err);
    assert!(ran.out.contains(&format!("selected by: --break-glass {id}")), "{}", ran.out);
    assert!(ran.out.contains(&format!("break-glass {id}: opened by human:cy")), "{}", ran.out);
    in_order(&ran.out);
    let shown: Value = serde_json::from_str(&place.run("verify one.zip --output json").out).unwrap();
    assert_eq!(shown["completeness"]["break_glass"], json!({"opened": 1, "commands": 1, "unreviewed": []}));
    assert_eq!((&shown["bundle"]["selected"], &shown["completeness"]["sessions"]), (&json!(1), &json!(1)));
    let theirs = python(&place, "one.zip --vkey data/vkey");
    assert_eq!(theirs.code, 0, "{}{}", theirs.out, theirs.err);
}

const HOSTILE: &str = "select '<b>bold</b><script>alert(1)</script>', '\u{1b}[2J\u{202e}txet'";

fn record(place: &Place) {
    let recorder = open(place);
    let long = format!("insert into t values {}", "(1), ".repeat(20_000));
    session(
        &recorder,
        "copilot-agent",
        &[
            ("select count(*) from orders", None, Status::Ok),
            ("update orders set status = $1", Some(r#"[{"type":"text","value":"shipped"}]"#), Status::Ok),
            ("select emial from customers", None, Status::Error),
            (&long, None, Status::Ok),
        ],
    );
    session(&recorder, "claude-code", &[(HOSTILE, None, Status::Ok), ("delete from orders", None, Status::Unknown)]);
    recorder.stop().unwrap();
}

/// Exports, and gives the file's bytes.
#[track_caller]
fn export(place: &Place, words: &str, file: &str) -> Vec<u8> {
    let ran = place.run(&format!("evidence export --data data --out {file} {words}"));
    assert_eq!((ran.code, ran.err.as_str()), (0, ""), "{}", ran.out);
    std::fs::read(place.path().join(file)).unwrap()
}

fn python(place: &Place, words: &str) -> Ran {
    let verifier = concat!(env!("CARGO_MANIFEST_DIR"), "/../../contrib/python-verifier/onrecord_verify.py");
    let mut command = Command::new("python3");
    command.current_dir(place.path()).arg("-B").arg(verifier).args(words.split_whitespace());
    command.output().unwrap().into()
}

/// Changes one byte in the middle of the first place that has `what`.
fn flip(file: &Path, what: &str) {
    let mut bytes = std::fs::read(file).unwrap();
    let at = bytes.windows(what.len()).position(|window| window == what.as_bytes()).unwrap();
    bytes[at + what.len() / 2] ^= 1;
    std::fs::write(file, bytes).unwrap();
}

#[test]
fn a_bundle_is_carried_elsewhere_and_verifies_there() {
    let place = Place::new();
    record(&place);
    export(&place, "", "all.zip");
    let elsewhere = Place::new();
    for file in ["all.zip", "data/vkey"] {
        let name = Path::new(file).file_name().unwrap();
        std::fs::copy(place.path().join(file), elsewhere.path().join(name)).unwrap();
    }
    let ran = elsewhere.run("verify all.zip --vkey vkey");
    assert_eq!(ran.code, 0, "{}{}", ran.out, ran.err);
    for said in ["integrity     ok", "completeness  ok        6 commands", "statement: 6 can be read", "in no record"] {
        assert!(ran.out.contains(said), "{said}:\n{}", ran.out);
    }
    assert!(!ran.out.contains("own key"), "{}", ran.out);
    assert!(elsewhere.run("verify all.zip").out.contains("own key"));

    let ran = elsewhere.run("evidence show all.zip --output json --vkey vkey");
    let rows: Value = serde_json::from_str(&ran.out).unwrap();
    let local: Value = serde_json::from_str(&place.run("commands --data data --output json").out).unwrap();
    assert_eq!(rows, local, "as the record itself shows them");
    assert!(!elsewhere.run("evidence show all.zip").out.contains('\u{1b}'));

    let ran = python(&elsewhere, "all.zip --vkey vkey");
    assert_eq!(ran.code, 0, "{}{}", ran.out, ran.err);
    assert!(ran.out.contains("8 disclosed"), "{}", ran.out);
}

#[test]
fn the_same_selection_is_the_same_file_though_the_log_has_grown() {
    let place = Place::new();
    record(&place);
    let first = export(&place, "--identity copilot-agent", "first.zip");
    // The export itself, and another session.
    let recorder = open(&place);
    session(&recorder, "claude-code", &[("select 1", None, Status::Ok)]);
    recorder.stop().unwrap();
    let second = export(&place, "--identity copilot-agent", "second.zip");
    assert!(first == second, "the same bytes");
    // What has new commands has a new checkpoint, and again always the same.
    let third = export(&place, "--identity claude-code", "third.zip");
    let report: Value = serde_json::from_str(&place.run("verify third.zip --output json").out).unwrap();
    assert_eq!(report["bundle"]["selected"], 3);
    assert!(third == export(&place, "--identity claude-code", "fourth.zip"));
    assert!(first == export(&place, "--identity copilot-agent", "fifth.zip"));
}

#[test]
fn an_export_is_on_the_record() {
    let place = Place::new();
    record(&place);
    let ran = place.run("evidence export --data data --status error --out one.zip --withhold message --output json");
    assert_eq!(ran.code, 0, "{}", ran.err);
    let said: Value = serde_json::from_str(&ran.out).unwrap();
    let reader = Reader::open(&place.path().join("data")).unwrap();
    let exports = reader.entries(0).filter_map(|stored| match stored.unwrap().entry.body {
        Body::Export(export) => Some(export),
        _ => None,
    });
    let exports: Vec<_> = exports.collect();
    assert_eq!(exports.len(), 1);
    assert_eq!(exports[0].sha256.hex(), said["sha256"]);
    assert_eq!((exports[0].selection.as_str(), exports[0].disclosed), ("--status error", 1));
    assert_eq!(exports[0].by.name, format!("uid:{}", rustix::process::getuid().as_raw()));
    assert_eq!(place.run("verify data").code, 0);
    assert_eq!(python(&place, "data").code, 0);
}

#[test]
fn what_is_withheld_is_not_in_the_file() {
    let place = Place::new();
    record(&place);
    let bundle = export(&place, "--withhold all", "none.zip");
    let listed = b"\"name\": \"keys.txt\"";
    assert!(!bundle.windows(listed.len()).any(|window| window == listed));
    let ran = place.run("verify none.zip --output json");
    assert_eq!(ran.code, 0, "{}", ran.err);
    let report: Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!(report["bundle"]["disclosure"]["statement"], json!({"disclosed": 0, "withheld": 6, "erased": 0}));
    assert_eq!(report["bundle"]["withheld"], json!(["message", "output", "parameters", "statement"]));
    let shown = place.run("evidence show none.zip").out;
    assert_eq!(shown.matches("(withheld)").count(), 6, "{shown}");
    assert_eq!(python(&place, "none.zip").code, 0);

    export(&place, "--withhold statement", "some.zip");
    let ran = python(&place, "some.zip");
    assert!(ran.code == 0 && ran.out.contains("2 disclosed, 6 withheld"), "{}", ran.out);
}

#[test]
fn what_was_erased_is_said_to_be_erased() {
    let place = Place::new();
    record(&place);
    let before = export(&place, "", "before.zip");
    let recorder = open(&place);
    let rows: Value = serde_json::from_str(&place.run("commands --data data --output json").out).unwrap();
    let by = Actor { name: "uid:0".to_owned(), known: Known::Verified };
    recorder.redact(rows[1]["id"].as_str().unwrap().parse().unwrap(), ContentKind::Parameters, &by, "a name").unwrap();
    recorder.erase(rows[4]["session"].as_str().unwrap().parse().unwrap(), &by, "asked for").unwrap();
    recorder.stop().unwrap();
    let after = export(&place, "", "after.zip");
    assert!(before != after && after == export(&place, "", "again.zip"));
    let ran = place.run("verify after.zip --output json");
    assert_eq!(ran.code, 0, "{}{}", ran.out, ran.err);
    let report: Value = serde_json::from_str(&ran.out).unwrap();
    let disclosure = &report["bundle"]["disclosure"];
    assert_eq!(disclosure["statement"], json!({"disclosed": 4, "withheld": 0, "erased": 2}));
    assert_eq!(disclosure["parameters"], json!({"disclosed": 0, "withheld": 0, "erased": 1}));
    assert_eq!(place.run("evidence show after.zip").out.matches("(erased)").count(), 2);
    let ran = python(&place, "after.zip");
    assert!(ran.code == 0 && ran.out.contains("5 disclosed, 3 erased"), "{}{}", ran.out, ran.err);
    // What was handed out before is out of reach: it still opens.
    assert!(python(&place, "before.zip").out.contains("8 disclosed"));
}

#[test]
fn a_flipped_byte_is_named_by_both_verifiers() {
    let place = Place::new();
    record(&place);
    export(&place, "", "all.zip");
    let index = |needle: &str| {
        let reader = Reader::open(&place.path().join("data")).unwrap();
        let found =
            reader.entries(0).map(Result::unwrap).find(|stored| String::from_utf8_lossy(&stored.leaf).contains(needle));
        found.unwrap().index
    };
    let needle = "\"code\":\"42703\"";
    let named = format!("entry {}:", index(needle));
    flip(&place.path().join("all.zip"), needle);
    let (ours, theirs) = (place.run("verify all.zip"), python(&place, "all.zip"));
    assert!(ours.code == 3 && ours.out.contains(&named), "{named} {}", ours.out);
    assert!(theirs.code == 3 && theirs.out.contains(&named), "{named} {}", theirs.out);
    let shown = place.run("evidence show all.zip");
    assert!(shown.code == 3 && shown.out.is_empty() && shown.err.contains(&named), "{}", shown.err);

    // And in the data directory itself.
    flip(&place.path().join("data/log/00000000000000000000.seg"), needle);
    let (ours, theirs) = (place.run("verify data"), python(&place, "data"));
    assert!(ours.code == 3 && ours.out.contains(&named), "{named} {}", ours.out);
    assert!(theirs.code == 3 && theirs.out.contains(&named), "{named} {}", theirs.out);
}

#[test]
fn wrong_keys_and_empty_selections_are_refused() {
    let place = Place::new();
    record(&place);
    export(&place, "", "all.zip");
    let other = Place::new();
    record(&other);
    std::fs::copy(other.path().join("data/vkey"), place.path().join("other")).unwrap();
    for ran in [place.run("verify all.zip --vkey other"), python(&place, "all.zip --vkey other")] {
        assert!(ran.code == 3 && ran.out.contains("not the"), "{}", ran.out);
    }
    let ran = place.run("evidence export --data data --out none.zip --identity nobody");
    assert!(ran.code == 5 && ran.err.contains("no command on the record matches"), "{}", ran.err);
    assert!(!place.path().join("none.zip").exists());
    let ran = place.run("evidence export --data data --out all.zip");
    assert!(ran.code == 2 && ran.err.contains("exists already"), "{}", ran.err);
    place.write("text", "not a bundle");
    let ran = place.run("verify text");
    assert!(ran.code == 3 && ran.out.contains("no evidence bundle"), "{}", ran.out);
}

/// Any program unpacks a bundle; the page in it verifies it from `file://`, without a network.
#[test]
fn the_page_verifies_in_a_browser() {
    let place = Place::new();
    record(&place);
    let good = export(&place, "", "all.zip");
    let unpack =
        "import sys, zipfile; z = zipfile.ZipFile(sys.argv[1]); assert z.testzip() is None; z.extractall('unpacked')";
    let unpacked = Command::new("python3").current_dir(place.path()).args(["-c", unpack, "all.zip"]).output().unwrap();
    assert!(unpacked.status.success(), "{unpacked:?}");
    let own = place.run("evidence page --out own.html");
    assert_eq!((own.code, place.read("own.html")), (0, place.read("unpacked/verify.html")), "the same from elsewhere");
    std::fs::write(place.path().join("bad.zip"), good).unwrap();
    flip(&place.path().join("bad.zip"), "\"code\":\"42703\"");
    export(&place, "--withhold all", "none.zip");
    let other = Place::new();
    record(&other);

    let (key, wrong) = (place.read("data/vkey"), other.read("data/vkey"));
    let path = |file: &str| place.path().join(file).display().to_string();
    let cases = json!([
        {"bundle": path("all.zip"), "key": key},
        {"bundle": path("bad.zip"), "key": key},
        {"bundle": path("all.zip"), "key": wrong},
        {"bundle": path("none.zip"), "key": ""},
        {"bundle": path("all.zip"), "key": "no key"},
    ]);
    place.write("cases.json", &cases.to_string());
    let modules = testkit::clients::installed().join("browser/node_modules");
    assert!(modules.is_dir(), "`cargo xtask test` installs what drives the browser");
    let mut node = Command::new("node");
    node.arg(testkit::clients::scripts().join("browser/verify.js")).env("NODE_PATH", modules);
    node.args([path("unpacked/verify.html"), path("cases.json")]).args(std::env::var_os("SCREENSHOTS"));
    let ran = node.output().unwrap();
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    let shown: Value = serde_json::from_slice(&ran.stdout).unwrap();
    for case in shown.as_array().unwrap() {
        assert_eq!((&case["foreign"], &case["said"], &case["markup"]), (&json!([]), &json!([]), &json!(0)), "{case}");
    }
    let words = |case: &Value| -> Vec<String> {
        case["verdicts"].as_array().unwrap().iter().map(|card| card["word"].as_str().unwrap().to_owned()).collect()
    };

    let case = &shown[0];
    assert_eq!(words(case), ["Unaltered", "Complete", "Recorded"], "{case}");
    assert_eq!(case["ownKey"], false);
    assert_eq!(case["commands"].as_array().unwrap().len(), 6);
    let text = case["commands"][4][3].as_str().unwrap();
    assert_eq!(text, r"select '<b>bold</b><script>alert(1)</script>', '\x1b[2J\u{202e}txet'");

    let case = &shown[1];
    assert_eq!(words(case), ["Violated", "Cannot be told", "Cannot be told"], "{case}");
    assert_eq!(case["commands"], json!([]), "what was altered is not shown as if it could be read");
    let said = place.run("verify bad.zip").out;
    let named = case["verdicts"][0]["details"][0].as_str().unwrap();
    assert!(named.starts_with("entry ") && said.contains(named), "{named}: {said}");

    assert_eq!(words(&shown[2])[0], "Violated", "{}", shown[2]);
    assert!(shown[2]["verdicts"][0]["details"][0].as_str().unwrap().contains("not the key that you gave"));

    let case = &shown[3];
    assert_eq!(words(case), ["Unaltered", "Complete", "Recorded"], "{case}");
    assert_eq!(case["ownKey"], true);
    assert_eq!(case["commands"][0][3], "text withheld");
    assert!(shown[4]["state"].as_str().unwrap().contains("not a public key"), "{}", shown[4]);
}
