//! What version 1 wrote, every later version reads: `tests/golden/v1` is a data directory that is never made again.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod common;

use std::path::Path;
use std::sync::Arc;

use common::*;
use model::{
    Cancel, CancelResult, ClockState, Copy, CopyDirection, Digest, Effective, Entry, Field, Kind, Label, Reason,
    Refused, RefusedReason, Start, Status, Verdict,
};
use store::{CommandStatus, Filter, GatewayEntry, Opened, OutcomeDraft, Reader, commands, sessions, verify};
use testkit::sim_disk::{SimDisk, Unsynced};

const V1: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/v1");

#[test]
fn version_1_reads_and_verifies() {
    let dir = Path::new(V1).join("data");
    let vkey = std::fs::read_to_string(dir.join("vkey")).unwrap().parse().unwrap();
    let report = verify(&dir, Some(&vkey), &mut |_| {}).unwrap();
    assert!(report.is_ok(), "{report:#?}");
    assert_eq!(report.integrity.blobs, 1);

    let expected = std::fs::read_to_string(Path::new(V1).join("entries.ndjson")).unwrap();
    let reader = Reader::open(&dir).unwrap();
    let stored: Vec<_> = reader.entries(0).map(Result::unwrap).collect();
    assert_eq!(stored.len(), expected.lines().count());
    for (stored, line) in stored.iter().zip(expected.lines()) {
        assert_eq!(stored.leaf, line.as_bytes());
        let mut again = Vec::new();
        Entry::decode(line.as_bytes()).unwrap().encode(&mut again);
        assert_eq!(again, line.as_bytes());
    }
    let kinds: std::collections::BTreeSet<Kind> = stored.iter().map(|s| s.entry.body.kind()).collect();
    assert_eq!(kinds.len(), 11, "every kind of entry that version 1 had when this was made: {kinds:?}");

    let seen: Vec<_> = commands(&reader, Filter::default()).map(Result::unwrap).collect();
    let texts: Vec<_> = seen.iter().map(|view| view.text.text().unwrap().into_owned()).collect();
    assert_eq!(texts[0], "select 1");
    assert_eq!(texts[1], "copy t from stdin");
    assert_eq!(texts[2], "drop table t");
    assert!(texts[3].starts_with("select 'long long") && texts[3].len() == 100_000);
    assert_eq!(seen[1].parameters, Opened::Bytes(br#"[{"type":"int4","value":"7"},null]"#.to_vec()));
    assert_eq!(seen[1].outcome.as_ref().unwrap().message, Opened::Bytes("Tabelle «t» fehlt\n".into()));
    assert_eq!(seen[2].verdict, Verdict::Deny);
    assert_eq!(seen[3].status(), CommandStatus::Ended(Status::Unknown));
    assert_eq!(sessions(&reader, &Filter::default()).unwrap().len(), 2);
}

/// How `golden/v1` was made. Never run again for version 1: another version gets a directory of its own.
#[test]
#[ignore = "makes the golden files, once per version of the format"]
fn make_version_1() {
    assert!(!Path::new(V1).exists(), "golden files are never made again");
    let disk = SimDisk::new();
    create(&disk).unwrap();
    let (recorder, _) = open(&disk).unwrap();
    let gate = recorder.gate();
    recorder
        .note(GatewayEntry::Start(Start {
            boot_id: "5b1e1c1e-6a0b-4a53-9d3c-1f2e3d4c5b6a".into(),
            program: "onrecord 0.1.0".into(),
            configuration: Some(Digest([5; 32])),
            clock: ClockState::Synchronized,
        }))
        .unwrap();
    recorder.note(heartbeat()).unwrap();
    recorder
        .note(GatewayEntry::Refused(Refused {
            reason: RefusedReason::AuthenticationFailed,
            source: "192.0.2.7".into(),
            count: 12,
            first_us: 1_763_804_101_000_000,
            user: Some(Label::new("böse\"\\\u{1}\u{7f}".as_bytes())),
            connection: Some(Label::new(&[0xff; 400])),
        }))
        .unwrap();
    let (mut session, opening) = recorder.open_session(start()).unwrap();
    durable(&gate, opening.position()).unwrap();
    command(&gate, &mut session, "select 1").unwrap();
    let text = session.seal(b"copy t from stdin");
    let parameters = session.seal(br#"[{"type":"int4","value":"7"},null]"#);
    let rules = vec!["rule-1".to_owned(), "rule-2".to_owned()];
    let draft = store::IntentDraft {
        statement: Some(b"s1"),
        portal: Some(b""),
        rules: &rules,
        via: model::Via::Extended,
        transaction: Some(model::Transaction::Open),
        ..intent(&text, &parameters)
    };
    let recorded = admit(&gate, session.intent(&draft).unwrap()).unwrap();
    let message = session.seal("Tabelle «t» fehlt\n".as_bytes());
    let outcome = OutcomeDraft {
        code: Some("42P01"),
        message,
        copy: Some(Copy { direction: CopyDirection::In, bytes: 99 }),
        effective: Effective::RolledBack,
        suspended: true,
        executed: true,
        fetches: 2,
        notices: 1,
        ..OutcomeDraft::new(Status::Error)
    };
    session.outcome(recorded, &outcome).unwrap();
    let text = session.seal(b"drop table t");
    let denied = store::IntentDraft { verdict: Verdict::Deny, ..intent(&text, &Field::NONE) };
    let outcome = OutcomeDraft { reason: Some(Reason::Policy), ..OutcomeDraft::new(Status::Denied) };
    session.settled(&denied, &outcome).unwrap();
    let cancelled = Some(session.id());
    session.close(closing()).unwrap();
    for session in [cancelled, None] {
        let (source, result) = ("127.0.0.1:6".to_owned(), CancelResult::Forwarded);
        recorder.note(GatewayEntry::Cancel(Cancel { session, source, result, count: 1 })).unwrap();
    }
    let (mut session, _opening) = recorder.open_session(start()).unwrap();
    let text = session.seal(format!("select '{}'", "long ".repeat(20_000)).get(..100_000).unwrap().as_bytes());
    let pending = session.intent(&intent(&text, &Field::NONE)).unwrap();
    let _lost = admit(&gate, pending).unwrap();
    disk.crash();
    let disk = disk.after_crash(Unsynced::Dropped);
    let (recorder, _) = open_with(&disk, options(), 3).unwrap();
    recorder.stop().unwrap();

    let root = Path::new(V1);
    for path in disk.paths().iter().filter(|path| *path != "log/spare") {
        let to = root.join("data").join(path);
        std::fs::create_dir_all(to.parent().unwrap()).unwrap();
        std::fs::write(to, disk.bytes(path).unwrap()).unwrap();
    }
    let reader = Reader::on(Arc::new(disk)).unwrap();
    let mut lines = Vec::new();
    for stored in reader.entries(0) {
        lines.extend(stored.unwrap().leaf);
        lines.push(b'\n');
    }
    std::fs::write(root.join("entries.ndjson"), lines).unwrap();
}
