//! `onrecord verify` on a published log: in a directory, behind a real web server, under the names of an object store.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod common;

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use common::{Place, Ran};
use ledger::{CosignerKey, SignedNote};
use model::{ClockState, Heartbeat};
use store::{GatewayEntry, Options, Recorder, StoreError};

const ORIGIN: &str = "gateway.example.com/1";

/// A log with this many entries and some, published in `data/tiles`.
fn record(place: &Place, entries: u64) {
    let data = place.path().join("data");
    if !data.exists() {
        Recorder::create(&data, ORIGIN).unwrap();
    }
    let recorder = open(&data);
    for sessions in 0..entries {
        let clock = ClockState::NotEstablished;
        let beat = Heartbeat { clock, sessions, commands: 0, refused: 0, bytes_up: 0, bytes_down: 0 };
        recorder.note(GatewayEntry::Heartbeat(beat)).unwrap();
    }
    recorder.stop().unwrap();
    std::fs::copy(data.join("vkey"), place.path().join("vkey")).unwrap();
}

/// Opens it. A process that another test is starting has this one's lock too, from its fork to its exec.
fn open(data: &Path) -> Recorder {
    loop {
        match Recorder::open_dir(data, Options { segment_bytes: 1 << 20, ..Options::new(ORIGIN) }) {
            Err(StoreError::Locked) => std::thread::yield_now(),
            opened => return opened.unwrap().0,
        }
    }
}

/// Python's own static web server, which knows nothing of logs.
struct Server(Child, u16);

impl Server {
    fn start(dir: &Path) -> Self {
        let mut python = Command::new("python3");
        python.args(["-u", "-m", "http.server", "0", "--bind", "127.0.0.1", "--directory"]).arg(dir);
        let mut child = python.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        let port = line.split("port ").nth(1).unwrap().split(' ').next().unwrap().parse().unwrap();
        Self(child, port)
    }

    fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.1)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[track_caller]
fn says(ran: &Ran, code: i32, text: &str) {
    assert!(ran.code == code && ran.out.contains(text), "code {}, {}\n{}", ran.code, ran.out, ran.err);
}

/// The bundle of the tree's first entries.
fn first_bundle(place: &Place) -> PathBuf {
    place.path().join("data/tiles/tile/entries/000")
}

#[test]
fn a_published_log_verifies_wherever_it_is() {
    let place = Place::new();
    record(&place, 600);
    says(&place.run("verify data/tiles --vkey vkey"), 0, "entries as they were recorded, all of them signed");
    let server = Server::start(&place.path().join("data/tiles"));
    says(&place.run(&format!("verify {}/ --vkey vkey", server.url())), 0, "integrity     ok");
    let vkey = place.read("vkey");
    says(&place.run(&format!("verify {} --vkey {}", server.url(), vkey.trim())), 0, "integrity     ok");
    // No key from elsewhere, no verdict.
    let ran = place.run(&format!("verify {}", server.url()));
    assert!(ran.code == 2 && ran.err.contains("--vkey"), "{}", ran.err);
    // The whole file system, as the buckets of a store.
    let store = Server::start(place.path());
    let mut s3 = place.command();
    s3.args(["verify", "s3://data/tiles", "--vkey", "vkey"]).env("AWS_ENDPOINT_URL", store.url());
    s3.env("AWS_ACCESS_KEY_ID", "key").env("AWS_SECRET_ACCESS_KEY", "a secret that is shown nowhere");
    let ran: Ran = s3.output().unwrap().into();
    says(&ran, 0, "integrity     ok");
    assert!(!(ran.out + &ran.err).contains("secret"));
    let ran = place.run(&format!("verify {}/nothing --vkey vkey", store.url()));
    assert_eq!(ran.code, 5, "{}", ran.err);
    drop(server);
    let ran = place.run("verify http://127.0.0.1:9 --vkey vkey");
    assert!(ran.code == 1 && ran.err.contains("http://127.0.0.1:9"), "{}", ran.err);
}

#[test]
fn what_was_changed_in_a_published_log_is_named() {
    let place = Place::new();
    record(&place, 600);
    let server = Server::start(&place.path().join("data/tiles"));
    let verify = || place.run(&format!("verify {} --vkey vkey", server.url()));
    let good = std::fs::read(first_bundle(&place)).unwrap();
    let offsets: Vec<usize> = ledger::bundle_entries(&good)
        .scan(0, |at, entry| {
            let start = *at + 2;
            *at = start + entry.unwrap().len();
            Some(start)
        })
        .collect();
    for (index, within) in [(0, 30), (7, 40), (255, 60)] {
        let mut bad = good.clone();
        bad[offsets[index] + within] ^= 1;
        std::fs::write(first_bundle(&place), bad).unwrap();
        says(&verify(), 3, &format!("entry {index}: "));
    }
    let mut cut = good.clone();
    cut.truncate(good.len() - 3);
    std::fs::write(first_bundle(&place), cut).unwrap();
    says(&verify(), 3, "entry 255: the bundle does not have the 256 entries");
    std::fs::remove_file(first_bundle(&place)).unwrap();
    says(&verify(), 3, "entry 0: entries 0 to 255 are missing");
    std::fs::write(first_bundle(&place), good).unwrap();
    says(&verify(), 0, "integrity     ok");
    // Another log's key.
    let other = Place::new();
    record(&other, 1);
    std::fs::copy(other.path().join("vkey"), place.path().join("other")).unwrap();
    says(
        &place.run(&format!("verify {} --vkey other", server.url())),
        3,
        "the note has no signature by the expected key",
    );
}

#[test]
fn a_log_must_continue_what_was_kept_of_it() {
    let place = Place::new();
    record(&place, 40);
    let kept = place.path().join("kept");
    let copy = Command::new("cp").args(["-r", "data", "backup"]).current_dir(place.path()).status().unwrap();
    assert!(copy.success());
    record(&place, 40);
    std::fs::copy(place.path().join("data/tiles/checkpoint"), &kept).unwrap();
    for source in ["data", "data/tiles"] {
        says(&place.run(&format!("verify {source} --vkey vkey --checkpoint kept")), 0, "integrity     ok");
    }
    record(&place, 3);
    says(&place.run("verify data --vkey vkey --checkpoint kept"), 0, "integrity     ok");
    // The backup by itself is right, but it is older than what was kept.
    says(&place.run("verify backup --vkey vkey"), 0, "integrity     ok");
    for source in ["backup", "backup/tiles"] {
        let ran = place.run(&format!("verify {source} --vkey vkey --checkpoint kept"));
        says(&ran, 3, "entries were signed, and the log has");
    }
    // And one that went on from the backup is a fork.
    std::fs::rename(place.path().join("data"), place.path().join("right")).unwrap();
    std::fs::rename(place.path().join("backup"), place.path().join("data")).unwrap();
    record(&place, 90);
    for source in ["data", "data/tiles"] {
        let ran = place.run(&format!("verify {source} --vkey vkey --checkpoint kept"));
        says(&ran, 3, "entries are not those that were signed");
    }
}

#[test]
fn a_policy_asks_for_witnesses() {
    let place = Place::new();
    record(&place, 5);
    let witness = CosignerKey::new("witness.example.com", &[7; 32]).unwrap();
    place.write("policy", &format!("witness W {}\nquorum W\n", witness.verifier()));
    for source in ["data", "data/tiles"] {
        says(&place.run(&format!("verify {source} --vkey vkey --policy policy")), 6, "witnesses     TOO FEW");
    }
    let recorder = open(&place.path().join("data"));
    let (_, note) = recorder.wait_checkpoint(0, std::time::Duration::from_secs(20)).unwrap();
    let mut note = SignedNote::parse(&note).unwrap();
    note.add(witness.cosign(note.text(), 1_795_340_101).unwrap());
    recorder.cosigned(&note).unwrap();
    recorder.stop().unwrap();
    for source in ["data", "data/tiles"] {
        let ran = place.run(&format!("verify {source} --vkey vkey --policy policy"));
        says(&ran, 0, "witnesses     enough    1 witness cosigned");
        says(&ran, 0, "W at 2026-11-22 09:35:01 UTC");
    }
    // A policy that names another log accepts no other, however many have cosigned.
    let other = ledger::SigningKey::new("other.example.com/1", &[8; 32]).unwrap().verifier();
    place.write("policy", &format!("log {other}\nwitness W {}\nquorum W\n", witness.verifier()));
    for source in ["data", "data/tiles"] {
        let ran = place.run(&format!("verify {source} --vkey vkey --policy policy"));
        assert!(ran.code == 2 && ran.err.contains("no line `log` has the key of this log"), "{}", ran.err);
    }
    place.write("policy", "quorum W\n");
    let ran = place.run("verify data --vkey vkey --policy policy");
    assert!(ran.code == 2 && ran.err.contains("line 1"), "{}", ran.err);
}

#[test]
fn verification_goes_on_where_it_stopped() {
    let place = Place::new();
    record(&place, 600);
    let copy = Command::new("cp").args(["-r", "data", "backup"]).current_dir(place.path()).status().unwrap();
    assert!(copy.success());
    let with_state = |source: &str, state: &str| place.run(&format!("verify {source} --vkey vkey --state {state}"));
    for (source, state) in [("data", "s1"), ("data/tiles", "s2")] {
        says(&with_state(source, state), 0, "integrity     ok");
    }
    record(&place, 500);
    // What was verified is not read again: it is not even there.
    let data = place.path().join("data");
    let (bundle, away) = (first_bundle(&place), place.path().join("away"));
    std::fs::rename(&bundle, &away).unwrap();
    let ran = with_state("data/tiles", "s2");
    says(&ran, 0, "entries as they were recorded, all of them signed");
    says(&place.run("verify data/tiles --vkey vkey"), 3, "entry 0: entries 0 to 255 are missing");
    std::fs::rename(&away, &bundle).unwrap();
    let whole = place.run("verify data/tiles --vkey vkey");
    assert_eq!(ran.out, whole.out, "the verdicts of a continued verification are those of a whole one");
    assert_eq!(with_state("data", "s1").out, whole.out);
    // Either may go on from the other: it is one log.
    says(&with_state("data", "s2"), 0, "integrity     ok");
    // An older copy is right by itself, and not what was verified here.
    says(&place.run("verify backup --vkey vkey"), 0, "integrity     ok");
    for (source, state) in [("backup", "s1"), ("backup/tiles", "s2")] {
        says(&with_state(source, state), 3, "entries were signed, and the log has");
        says(&with_state(&source.replace("backup", "data"), state), 0, "integrity     ok");
    }
    // Older statements about a log that goes on as it was.
    for file in ["checkpoint", "head"] {
        std::fs::copy(place.path().join("backup").join(file), data.join(file)).unwrap();
    }
    says(&with_state("data", "s1"), 0, "integrity     ok");
    place.write("s1", "something else");
    let ran = with_state("data", "s1");
    assert!(ran.code == 2 && ran.err.contains("--state: s1") && ran.err.contains("at the beginning"), "{}", ran.err);
    let other = Place::new();
    record(&other, 1);
    std::fs::copy(other.path().join("vkey"), place.path().join("other")).unwrap();
    let ran = place.run("verify data/tiles --vkey other --state s2");
    assert!(ran.code == 2 && ran.err.contains("of another log"), "{}", ran.err);
}

#[test]
fn an_auditor_can_demand_that_everything_is_looked_at() {
    let place = Place::new();
    record(&place, 5);
    says(&place.run("verify data --vkey vkey --strict"), 0, "integrity     ok");
    says(&place.run("verify data --strict"), 6, "not seen      TOO MUCH  the key is the record's own");
    says(&place.run("verify data"), 0, "integrity     ok");
    // Nothing says how much of it was signed.
    let data = place.path().join("data");
    Recorder::create(&place.path().join("new"), ORIGIN).unwrap();
    std::fs::copy(place.path().join("new/head"), data.join("head")).unwrap();
    std::fs::remove_file(data.join("checkpoint")).unwrap();
    says(&place.run("verify data --vkey vkey --strict"), 6, "at the end not signed yet");
    let ran = place.run("verify data --vkey vkey --output json");
    says(&ran, 0, "\"not_looked_at\"");
}
