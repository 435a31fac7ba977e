//! A shell in a terminal and the lines that ran in it, over a record that is the same every time: how it is played, printed
//! and given to others.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use common::Place;
use model::transcript::{self, Stream, Whole};
use model::{
    ChannelBinding, Digest, Durability, Field, Identity, Known, Proof, ProofMethod, SessionEnd, Status, Time,
    Transcript, Via,
};
use serde_json::{Value, json};
use store::{
    Clock, Disk, IntentDraft, Options, OutcomeDraft, RealDisk, Recorder, SessionClosing, SessionLog, SessionStart,
    SystemRandom,
};

/// Stands still until it is set.
struct Set(AtomicI64);

impl Clock for Set {
    fn now(&self) -> Time {
        let passed = self.0.load(Ordering::Relaxed);
        Time { wall_us: 1_795_340_101_000_000 + passed, boot_us: 1_000_000 + u64::try_from(passed).unwrap() }
    }
}

/// A shell of four seconds in a terminal of 60 by 10, which grows; two lines ran in it.
fn record(place: &Place) -> String {
    let disk: Arc<dyn Disk> = Arc::new(RealDisk::new(&place.path().join("data")));
    let mut options = Options::new("gateway.example.com/1");
    options.segment_bytes = 1 << 20;
    let clock = Arc::new(Set(AtomicI64::new(0)));
    Recorder::create_on(&disk, &options, &*clock, &mut SystemRandom).unwrap();
    // Another test's fork may hold the directory's lock until it executes its program.
    let recorder = loop {
        let opened = Recorder::open(disk.clone(), options.clone(), clock.clone(), Box::new(SystemRandom));
        match opened {
            Err(store::StoreError::Locked) => std::thread::sleep(std::time::Duration::from_millis(5)),
            opened => break opened.unwrap().0,
        }
    };
    let (mut log, _) = recorder.open_session(start()).unwrap();
    let session = log.id().to_string();
    let mut frames = transcript::size(0, 60, 10);
    let mut stdout = 0;
    let mut write = |frames: &mut Vec<u8>, since_us: u64, bytes: &[u8]| {
        frames.extend(transcript::head(Stream::Stdout, since_us, bytes.len() as u64));
        frames.extend(bytes);
        stdout += bytes.len() as u64;
    };
    write(&mut frames, 500_000, b"\x1b]633;A\x07$ \x1b]633;B\x07");
    write(&mut frames, 600_000, b"ls\r\n\x1b]633;C\x07a-\x1b[32mfile\x1b[0m\r\n\x1b]633;D;0\x07$ ");
    frames.extend(transcript::size(900_000, 100, 20));
    write(&mut frames, 1_100_000, b"vi\r\n\x1b[?1049h\x1b[5;5Hinside vi\x1b[?1049l$ exit\r\n");
    let whole = |bytes| Whole { bytes, sha256: Some(Digest([1; 32])) };
    frames.extend(transcript::end(900_000, &[Whole { bytes: 9, sha256: None }, whole(stdout), whole(0)]));
    let content = log.seal(&frames);
    let transcript = Transcript { content, stdin: 9, stdout, stderr: 0, kept: stdout };
    let shell = OutcomeDraft { code: Some("0"), transcript: Some(transcript), ..OutcomeDraft::new(Status::Ok) };
    command(&mut log, Via::Shell, None, r#"{"terminal":"xterm-256color"}"#, &shell);
    for (at_us, text) in [(1_000_000, "ls"), (2_900_000, "vi\u{1b}[c")] {
        clock.0.store(at_us, Ordering::Relaxed);
        command(&mut log, Via::Line, Some(text), r#"{"shell":1}"#, &OutcomeDraft::new(Status::Ok));
    }
    log.close(SessionClosing { reason: SessionEnd::ClientClosed, bytes_up: 9, bytes_down: 99 }).unwrap();
    recorder.stop().unwrap();
    session
}

fn command(log: &mut SessionLog, via: Via, text: Option<&str>, parameters: &str, outcome: &OutcomeDraft<'_>) {
    let text = text.map_or(Field::NONE, |text| log.seal(text.as_bytes()));
    let parameters = log.seal(parameters.as_bytes());
    log.settled(&IntentDraft::new(via, &text, &parameters), outcome).unwrap();
}

fn start() -> SessionStart {
    SessionStart {
        identity: Identity {
            name: "agent:deployer".parse().unwrap(),
            known: Known::Verified,
            proof: Proof {
                method: ProofMethod::PublicKey,
                channel: ChannelBinding::None,
                credential: "ssh-key:SHA256:x".to_owned(),
                evidence: None,
            },
            on_behalf_of: None,
            groups: Vec::new(),
            run: None,
        },
        connection: "web1".to_owned(),
        database: None,
        upstream_user: "deploy".to_owned(),
        protocol: "ssh".to_owned(),
        client: "192.0.2.7:50123".to_owned(),
        tls: None,
        claims: Vec::new(),
        durability: Durability::Intent,
        upstream: model::UpstreamSecurity::Local,
        outpost: None,
    }
}

#[test]
fn the_text_of_a_terminal_is_printed() {
    let place = Place::new();
    let session = record(&place);
    let text = "$ ls\na-file\n";
    for id in [format!("{session}.1"), session.clone()] {
        let ran = place.run(&format!("replay --data data {id}"));
        assert_eq!((ran.code, ran.err.as_str()), (0, ""), "{}", ran.out);
        assert!(
            ran.out.contains(text) && ran.out.contains("    inside vi\n") && ran.out.ends_with("$ exit\n"),
            "{}",
            ran.out
        );
        assert!(!ran.out.contains('\u{1b}') && !ran.out.contains("633"), "{}", ran.out);
    }
    // As lists, a session is its commands.
    let listed = place.run(&format!("replay --data data --output ndjson {session}")).out;
    assert_eq!(listed.lines().count(), 3, "{listed}");
    let listed = place.run(&format!("replay --data data --output ndjson {session}.1")).out;
    let last: Value = serde_json::from_str(listed.lines().last().unwrap()).unwrap();
    assert_eq!(last, json!({"at_us": 4_000_000, "text": "$ exit"}));
    // A line has no terminal of its own: its session is played.
    assert!(place.run(&format!("replay --data data --at-once {session}.2")).out.contains("what its terminal showed"));
}

#[test]
fn an_asciicast_has_sizes_lines_and_the_exit_status() {
    let place = Place::new();
    let session = record(&place);
    let cast = |version: u8| -> Vec<Value> {
        let ran = place.run(&format!("asciicast --data data --version {version} {session}.1"));
        assert!(ran.code == 0 && ran.err.contains("proves nothing"), "{}", ran.err);
        ran.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    let title = format!("{session}.1");
    assert_eq!(
        cast(3),
        [
            json!({"version": 3, "term": {"cols": 60, "rows": 10, "type": "xterm-256color"},
                   "timestamp": 1_795_340_101, "title": title}),
            json!([0.5, "o", "$ "]),
            json!([0.5, "m", "ls"]),
            json!([0.1, "o", "ls\r\na-\u{1b}[32mfile\u{1b}[0m\r\n$ "]),
            json!([0.9, "r", "100x20"]),
            json!([0.9, "m", "vi [c"]),
            json!([0.2, "o", "vi\r\n\u{1b}[?1049h\u{1b}[5;5Hinside vi\u{1b}[?1049l$ exit\r\n"]),
            json!([0.9, "x", "0"]),
        ]
    );
    let two = cast(2);
    assert_eq!(two[0]["env"], json!({"TERM": "xterm-256color"}));
    let times: Vec<f64> = two[1..].iter().map(|event| event[0].as_f64().unwrap()).collect();
    assert_eq!(times, [0.5, 1.0, 1.1, 2.0, 2.9, 3.1]);
    let out = place.path().join("out.cast");
    std::fs::write(&out, "precious").unwrap();
    assert_eq!(place.run(&format!("asciicast --data data {session}.1 --out out.cast")).code, 1);
    assert_eq!(std::fs::read_to_string(&out).unwrap(), "precious");
    assert_eq!(place.run(&format!("asciicast --data data {session}.2")).code, 5);
}

#[test]
fn a_shell_is_found_by_what_was_on_its_screens() {
    let place = Place::new();
    let session = record(&place);
    let found = |text: &str| -> Vec<String> {
        let ran = place.command().args(["commands", "--data", "data", "--output", "ndjson", "--wrote", text]).output();
        let said = String::from_utf8(ran.unwrap().stdout).unwrap();
        let id = |line: &str| serde_json::from_str::<Value>(line).unwrap()["id"].as_str().unwrap().to_owned();
        said.lines().map(id).collect()
    };
    assert_eq!(found("A-FILE"), [format!("{session}.1")]);
    assert_eq!(found("inside vi").len(), 1);
    assert!(found("633;").is_empty() && found("a-\u{1b}[32m").is_empty());
}
