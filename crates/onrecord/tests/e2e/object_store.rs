//! `onrecord verify` on a log that lies in an object store, which checks who asks.

use std::path::Path;
use std::process::{Command, Output};

use model::{ClockState, Heartbeat};
use store::{GatewayEntry, Options, Recorder};
use testkit::ObjectStore;

const ORIGIN: &str = "gateway.example.com/1";

fn verify(store: &ObjectStore, source: &str, vkey: &Path, secret: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_onrecord"));
    command.args(["verify", source, "--vkey"]).arg(vkey);
    command.env("AWS_ENDPOINT_URL", store.endpoint()).env("AWS_REGION", "eu-central-1");
    command.env("AWS_ACCESS_KEY_ID", ObjectStore::ACCESS_KEY).env("AWS_SECRET_ACCESS_KEY", secret);
    command.output().unwrap()
}

#[test]
fn a_log_in_an_object_store_verifies() {
    let place = tempfile::tempdir().unwrap();
    let data = place.path().join("data");
    Recorder::create(&data, ORIGIN).unwrap();
    let (recorder, _) = Recorder::open_dir(&data, Options { segment_bytes: 1 << 20, ..Options::new(ORIGIN) }).unwrap();
    for sessions in 0..300 {
        let clock = ClockState::NotEstablished;
        let beat = Heartbeat { clock, sessions, commands: 0, refused: 0, bytes_up: 0, bytes_down: 0 };
        recorder.note(GatewayEntry::Heartbeat(beat)).unwrap();
    }
    recorder.stop().unwrap();
    let (tiles, vkey) = (data.join("tiles"), data.join("vkey"));

    let store = ObjectStore::start();
    store.fill("evidence", "a/log", &tiles);
    let said = |output: Output| {
        let said = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        assert!(!said.contains(ObjectStore::SECRET_KEY) && !said.contains("X-Amz-Signature"), "{said}");
        (output.status.code(), said)
    };
    let (code, text) = said(verify(&store, "s3://evidence/a/log", &vkey, ObjectStore::SECRET_KEY));
    assert!(code == Some(0) && text.contains("all of them signed"), "{text}");
    let (code, text) = said(verify(&store, "s3://evidence/another", &vkey, ObjectStore::SECRET_KEY));
    assert!(code == Some(5), "{text}");
    let (code, text) = said(verify(&store, "s3://evidence/a/log", &vkey, "another secret"));
    assert!(code == Some(1) && text.contains("403"), "{text}");

    // A flipped byte in the store is named.
    let bundle = tiles.join("tile/entries/000");
    let mut bytes = std::fs::read(&bundle).unwrap();
    let second = 2 + usize::from(u16::from_be_bytes([bytes[0], bytes[1]]));
    bytes[second + 40] ^= 1;
    std::fs::write(&bundle, bytes).unwrap();
    store.fill("evidence", "a/log", &tiles);
    let (code, text) = said(verify(&store, "s3://evidence/a/log", &vkey, ObjectStore::SECRET_KEY));
    assert!(code == Some(3) && text.contains("entry 1: "), "{text}");
}
