//! What is recorded can be read, opened and verified; one process writes one log.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::cast_sign_loss, clippy::cast_possible_truncation)]

mod common;

use common::*;
use model::seal::open as open_sealed;
use model::{Body, Field, Kind, Reason, SessionEnd, Status};
use std::sync::Arc;
use store::{
    CommandStatus, Filter, Level, Lone, Opened, Options, OutcomeDraft, Reader, RealDisk, RecordError, Recorder,
    SessionClosing, StoreError, commands, sessions, verify, verify_on,
};
use testkit::sim_disk::SimDisk;

#[test]
fn a_gateway_s_life_on_a_real_disk() {
    let dir = tempfile::tempdir().unwrap();
    let created = Recorder::create(dir.path(), ORIGIN).unwrap();
    assert!(matches!(Recorder::create(dir.path(), ORIGIN), Err(StoreError::Exists)));
    let (recorder, recovery) = Recorder::open_dir(dir.path(), Options::new(ORIGIN)).unwrap();
    assert!(recovery.clean);
    assert!(matches!(Recorder::open_dir(dir.path(), Options::new(ORIGIN)), Err(StoreError::Locked)));

    let gate = recorder.gate();
    let (mut session, opening) = recorder.open_session(start()).unwrap();
    durable(&gate, opening.position()).unwrap();
    let id = command(&gate, &mut session, "select 1").unwrap();
    let text = session.seal(b"insert into t values ($1)");
    let parameters = session.seal(br#"[{"type":"int4","value":"7"}]"#);
    let denied = OutcomeDraft { reason: Some(Reason::Policy), ..OutcomeDraft::new(Status::Denied) };
    session.settled(&intent(&text, &parameters), &denied).unwrap();
    let id_session = session.id();
    recorder.flush().unwrap();

    // Beside the gateway, while it runs.
    let reader = Reader::open(dir.path()).unwrap();
    let seen: Vec<_> = commands(&reader, Filter::default()).map(Result::unwrap).collect();
    assert_eq!(seen.len(), 2);
    assert_eq!(seen[0].id, id);
    assert_eq!(seen[0].text, Opened::Bytes(b"select 1".to_vec()));
    assert_eq!(seen[0].outcome.as_ref().unwrap().results[0].tag, "SELECT 1");
    assert_eq!(seen[1].parameters, Opened::Bytes(br#"[{"type":"int4","value":"7"}]"#.to_vec()));
    assert_eq!(seen[1].status(), CommandStatus::Ended(Status::Denied));
    let report = verify(dir.path(), None, &mut |_| {}).unwrap();
    assert!(report.is_ok(), "{report:?}");

    session.close(closing()).unwrap();
    drop(gate);
    recorder.stop().unwrap();
    let vkey = created.vkey.parse().unwrap();
    let report = verify(dir.path(), Some(&vkey), &mut |_| {}).unwrap();
    assert!(report.is_ok(), "{report:?}");
    assert_eq!(report.integrity.signed, Some(report.integrity.entries));
    assert!(report.completeness.stopped);
    let seen = sessions(&reader, &Filter::default()).unwrap();
    assert_eq!(seen.len(), 1);
    assert_eq!((seen[0].id, seen[0].intents, seen[0].outcomes), (id_session, 2, 2));
    assert_eq!(seen[0].close.as_ref().unwrap().reason, SessionEnd::ClientClosed);

    let (recorder, recovery) = Recorder::open_dir(dir.path(), Options::new(ORIGIN)).unwrap();
    assert!(recovery.clean, "{recovery:?}");
    drop(recorder);
    let other = Options::new("elsewhere.example.com/1");
    assert!(matches!(Recorder::open_dir(dir.path(), other), Err(StoreError::Origin { .. })));
}

#[test]
fn nothing_is_admitted_before_it_is_durable() {
    let disk = SimDisk::new();
    create(&disk).unwrap();
    let (recorder, _) = open(&disk).unwrap();
    let gate = recorder.gate();
    let (mut session, _opening) = recorder.open_session(start()).unwrap();
    let text = session.seal(b"select 1");
    let pending = session.intent(&intent(&text, &Field::NONE)).unwrap();
    let pending = gate.admit(pending, Level::Written).unwrap_err();
    gate.turn(Lone::Yes);
    let pending = gate.admit(pending, Level::Durable).unwrap_err();
    let recorded = gate.admit(pending, Level::Written).unwrap();
    session.outcome(recorded, &OutcomeDraft::new(Status::Ok)).unwrap();
}

#[test]
fn the_syncer_makes_durable_what_nobody_waits_for() {
    let disk = SimDisk::new();
    create(&disk).unwrap();
    let options = Options { sync_interval: std::time::Duration::from_millis(1), ..options() };
    let (recorder, _) = open_with(&disk, options, 3).unwrap();
    let gate = recorder.gate();
    let position = recorder.note(heartbeat()).unwrap();
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
    while !gate.has_reached(position, Level::Durable) {
        assert!(std::time::Instant::now() < deadline);
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
}

#[test]
fn checkpoints_are_signed_while_entries_flow() {
    let disk = SimDisk::new();
    create(&disk).unwrap();
    let options = Options { checkpoint_interval: std::time::Duration::from_millis(1), ..options() };
    let (recorder, _) = open_with(&disk, options, 3).unwrap();
    recorder.note(heartbeat()).unwrap();
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
    while disk.bytes("checkpoint").is_none() {
        assert!(std::time::Instant::now() < deadline);
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    let report = verify_on(Arc::new(disk), None, &[], &mut |_| {}).unwrap();
    assert!(report.is_ok() && report.integrity.signed.is_some(), "{report:?}");
}

#[test]
fn a_dropped_session_is_completed() {
    let disk = SimDisk::new();
    create(&disk).unwrap();
    let (recorder, _) = open(&disk).unwrap();
    let gate = recorder.gate();
    let (mut session, _opening) = recorder.open_session(start()).unwrap();
    let text = session.seal(b"select 1");
    let pending = session.intent(&intent(&text, &Field::NONE)).unwrap();
    let _recorded = admit(&gate, pending).unwrap();
    drop(session);
    recorder.stop().unwrap();
    let report = verify_on(Arc::new(disk.clone()), None, &[], &mut |_| {}).unwrap();
    assert!(report.is_ok(), "{report:?}");
    assert_eq!(report.completeness.outcomes[&Status::Unknown], 1);
    let reader = Reader::on(Arc::new(disk)).unwrap();
    let seen: Vec<_> = commands(&reader, Filter::default()).map(Result::unwrap).collect();
    assert_eq!(seen[0].outcome.as_ref().unwrap().reason, Some(Reason::GatewayFault));
}

#[test]
fn many_segments_read_as_one_log() {
    let disk = SimDisk::new();
    create(&disk).unwrap();
    let (recorder, _) = open(&disk).unwrap();
    let gate = recorder.gate();
    let (mut session, _opening) = recorder.open_session(start()).unwrap();
    for i in 0..400 {
        command(&gate, &mut session, &format!("select {i}")).unwrap();
    }
    session.close(closing()).unwrap();
    recorder.stop().unwrap();
    assert!(disk.paths().iter().filter(|path| path.ends_with(".seg")).count() > 3, "{:?}", disk.paths());
    let reader = Reader::on(Arc::new(disk.clone())).unwrap();
    let indexes: Vec<_> = reader.entries(0).map(|entry| entry.unwrap().index).collect();
    assert_eq!(indexes, (0..indexes.len() as u64).collect::<Vec<_>>());
    assert_eq!(reader.entries(500).next().unwrap().unwrap().index, 500);
    assert!(verify_on(Arc::new(disk.clone()), None, &[], &mut |_| {}).unwrap().is_ok());
    assert!(open(&disk).unwrap().1.clean);

    // A segment in the middle that is gone is noticed.
    let middle = disk.paths().into_iter().filter(|path| path.ends_with(".seg")).nth(1).unwrap();
    let broken = disk.copy();
    store::Disk::remove(&broken, &middle).unwrap();
    let report = verify_on(Arc::new(broken.clone()), None, &[], &mut |_| {}).unwrap();
    assert!(report.integrity.violation.unwrap().what.contains("missing"));
    assert!(matches!(open(&broken), Err(StoreError::Corrupt { .. })));
}

#[test]
fn following_a_log_gives_each_command_when_it_ends() {
    let disk = SimDisk::new();
    create(&disk).unwrap();
    let (recorder, _) = open(&disk).unwrap();
    let gate = recorder.gate();
    let (mut session, _opening) = recorder.open_session(start()).unwrap();
    let text = session.seal(b"select pg_sleep(1)");
    let pending = session.intent(&intent(&text, &Field::NONE)).unwrap();
    let recorded = admit(&gate, pending).unwrap();
    let reader = Reader::on(Arc::new(disk)).unwrap();
    let mut follow = commands(&reader, Filter::default());
    assert_eq!(follow.next().unwrap().unwrap().status(), CommandStatus::Pending);
    assert!(follow.next().is_none());
    session.outcome(recorded, &OutcomeDraft::new(Status::Ok)).unwrap();
    command(&gate, &mut session, "select 2").unwrap();
    recorder.flush().unwrap();
    follow.again();
    let now: Vec<_> = follow.by_ref().map(|view| view.unwrap().id.ordinal).collect();
    assert_eq!(now, [1, 2]);
}

#[test]
fn content_opens_field_by_field_and_can_be_erased() {
    let disk = SimDisk::new();
    create(&disk).unwrap();
    let (recorder, _) = open(&disk).unwrap();
    let gate = recorder.gate();
    let (mut session, _opening) = recorder.open_session(start()).unwrap();
    command(&gate, &mut session, "select 'secret'").unwrap();
    let id = session.id();
    session.close(closing()).unwrap();
    recorder.stop().unwrap();
    let reader = Reader::on(Arc::new(disk.clone())).unwrap();
    let stored: Vec<_> = reader.entries(0).map(Result::unwrap).collect();
    let Some(Body::Intent(intent)) = stored.iter().map(|s| s.entry.body.clone()).find(|b| b.kind() == Kind::Intent)
    else {
        panic!("no intent");
    };
    let Field::Sealed(sealed) = &intent.text else { panic!("not sealed") };
    let key = reader.reveal(id, sealed.number).unwrap().unwrap();
    assert_eq!(open_sealed(id, &key, sealed).unwrap(), b"select 'secret'");
    let other = reader.reveal(id, sealed.number + 1).unwrap().unwrap();
    assert!(open_sealed(id, &other, sealed).is_err());
    for path in disk.paths() {
        let bytes = disk.bytes(&path).unwrap();
        assert!(!bytes.windows(6).any(|w| w == b"secret"), "{path} has the text in clear");
    }

    let Some(Body::SessionOpen(open)) =
        stored.iter().map(|s| s.entry.body.clone()).find(|b| b.kind() == Kind::SessionOpen)
    else {
        panic!("no session");
    };
    let mut keys = disk.bytes("keys/sessions").unwrap();
    let slot = usize::try_from(open.key_slot).unwrap() * 64;
    keys[slot..slot + 64].fill(0);
    disk.set_bytes("keys/sessions", &keys);
    assert_eq!(reader.open_field(id, &intent.text).unwrap(), Opened::Erased(None));
    assert!(verify_on(Arc::new(disk.clone()), None, &[], &mut |_| {}).unwrap().is_ok());
    store::Disk::remove(&disk, "keys/seal").unwrap();
    assert_eq!(Reader::on(Arc::new(disk)).unwrap().open_field(id, &intent.text).unwrap(), Opened::NoKey);
}

#[test]
fn blobs_read_back_whole_and_are_verified() {
    for length in [16 * 1024 + 1, 65_535, 65_536, 65_537, 3 << 20] {
        let disk = SimDisk::new();
        create(&disk).unwrap();
        let (recorder, _) = open(&disk).unwrap();
        let gate = recorder.gate();
        let (mut session, _opening) = recorder.open_session(start()).unwrap();
        let content: Vec<u8> = (0..length).map(|i| (i % 251) as u8).collect();
        let mut blob = session.blob().unwrap();
        for piece in content.chunks(10_000) {
            blob.write(piece).unwrap();
        }
        let (field, mut back) = blob.finish().unwrap();
        let mut read = Vec::new();
        while let Some(chunk) = back.next_chunk().unwrap() {
            read.extend_from_slice(chunk);
        }
        assert!(read == content);
        let pending = session.intent(&intent(&field, &Field::NONE)).unwrap();
        let recorded = admit(&gate, pending).unwrap();
        session.outcome(recorded, &OutcomeDraft::new(Status::Ok)).unwrap();
        let abandoned = session.blob().unwrap();
        drop(abandoned);
        session.close(closing()).unwrap();
        recorder.stop().unwrap();
        assert!(!disk.paths().iter().any(|path| path.ends_with(".new")), "{:?}", disk.paths());
        let reader = Reader::on(Arc::new(disk.clone())).unwrap();
        match commands(&reader, Filter::default()).next().unwrap().unwrap().text {
            Opened::Bytes(bytes) => assert!(bytes == content),
            Opened::Blob { head, length: all, .. } => {
                assert!(length > 1 << 20 && all == length as u64 && head == content[..4096]);
            }
            other => panic!("{other:?}"),
        }
        assert!(verify_on(Arc::new(disk.clone()), None, &[], &mut |_| {}).unwrap().is_ok());
        let Field::Blob(blob) = field else { panic!("not a blob") };
        let path = format!("blobs/{}/{}", &blob.sha256.hex()[..2], blob.sha256.hex());
        let mut bytes = disk.bytes(&path).unwrap();
        bytes[100] ^= 1;
        disk.set_bytes(&path, &bytes);
        let violation = verify_on(Arc::new(disk), None, &[], &mut |_| {}).unwrap().integrity.violation.unwrap();
        assert!(violation.what.contains(&blob.sha256.hex()) && violation.command.is_some(), "{violation:?}");
    }
}

#[test]
fn a_leaf_that_is_too_long_is_refused_and_nothing_is_lost() {
    let disk = SimDisk::new();
    create(&disk).unwrap();
    let (recorder, _) = open(&disk).unwrap();
    let gate = recorder.gate();
    let (mut session, _opening) = recorder.open_session(start()).unwrap();
    let text = session.seal(b"select 1");
    let rules = vec!["r".repeat(70_000)];
    let draft = store::IntentDraft { rules: &rules, ..intent(&text, &Field::NONE) };
    assert!(matches!(session.intent(&draft), Err(RecordError::TooLong { .. })));
    assert_eq!(command(&gate, &mut session, "select 2").unwrap().ordinal, 1);
    session.close(SessionClosing { reason: SessionEnd::Idle, ..closing() }).unwrap();
    recorder.stop().unwrap();
    assert!(verify_on(Arc::new(disk), None, &[], &mut |_| {}).unwrap().is_ok());
}

#[test]
fn a_directory_without_a_log_says_so() {
    let dir = tempfile::tempdir().unwrap();
    assert!(matches!(Recorder::open_dir(dir.path(), Options::new(ORIGIN)), Err(StoreError::NoLog)));
    assert!(matches!(Reader::open(dir.path()), Err(StoreError::NoLog)));
    assert!(matches!(verify(dir.path(), None, &mut |_| {}), Err(StoreError::NoLog)));
    let _ = RealDisk::new(dir.path());
    assert!(matches!(Recorder::create(dir.path(), "two words"), Err(StoreError::BadOrigin(_))));
}
