//! A log that must not go on stays as it is, and another begins that names it.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod common;

use std::fs;
use std::path::Path;

use common::{closing, command, durable, start};
use model::{Body, EpochReason, Kind, PreviousLog, StopReason};
use store::{BeginEpoch, Options, Reader, Recorder, StoreError, begin_epoch, epoch_origin, epochs, verify};

const GATEWAY: &str = "gateway.example.com";

fn options() -> Options {
    Options { segment_bytes: 128 * 1024, ..Options::new(GATEWAY) }
}

fn record(dir: &Path) {
    match Recorder::create(dir, GATEWAY) {
        Ok(_) | Err(StoreError::Exists) => {}
        Err(error) => panic!("{error}"),
    }
    let (recorder, _) = Recorder::open_dir(dir, options()).unwrap();
    let gate = recorder.gate();
    let (mut session, opening) = recorder.open_session(start()).unwrap();
    durable(&gate, opening.position()).unwrap();
    for i in 0..5 {
        command(&gate, &mut session, &format!("select {i}")).unwrap();
    }
    session.close(closing()).unwrap();
    drop(gate);
    recorder.stop().unwrap();
}

fn begin(dir: &Path, reason: EpochReason) -> Result<store::Created, StoreError> {
    begin_epoch(dir, &BeginEpoch { options: options(), reason, witnessed: Some(1_000_000) })
}

fn first(dir: &Path) -> (String, Option<PreviousLog>) {
    match Reader::open(dir).unwrap().entries(0).next().unwrap().unwrap().entry.body {
        Body::Genesis(genesis) => (genesis.origin, genesis.previous),
        other => panic!("{other:?}"),
    }
}

fn vkey(dir: &Path) -> String {
    fs::read_to_string(dir.join("vkey")).unwrap().trim().to_owned()
}

#[test]
fn a_rotated_log_and_the_next_name_each_other() {
    let dir = tempfile::tempdir().unwrap();
    record(dir.path());
    let old_key = vkey(dir.path());
    let made = begin(dir.path(), EpochReason::Rotation).unwrap();
    assert_eq!(made.vkey, vkey(dir.path()));
    assert_ne!(made.vkey, old_key);
    let [(1, old)] = &epochs(dir.path()).unwrap()[..] else { panic!("one earlier log") };
    let last = Reader::open(old).unwrap().entries(0).map(Result::unwrap).last().unwrap();
    assert!(
        matches!(last.entry.body, Body::Stop(stop) if stop.reason == StopReason::Rotation && stop.next == Some(made.vkey.clone()))
    );
    let report = verify(old, Some(&old_key.parse().unwrap()), &mut |_| {}).unwrap();
    assert!(report.is_ok(), "{report:#?}");
    let (origin, previous) = first(dir.path());
    assert_eq!(origin, epoch_origin(GATEWAY, 2));
    let previous = previous.unwrap();
    assert_eq!((previous.size, previous.root), (report.integrity.entries, report.integrity.root));
    assert_eq!((previous.vkey, previous.reason), (old_key, EpochReason::Rotation));
    // The new one is recorded in under the gateway's own name, and ends like the first.
    record(dir.path());
    begin(dir.path(), EpochReason::Rotation).unwrap();
    record(dir.path());
    assert_eq!(first(dir.path()).0, epoch_origin(GATEWAY, 3));
    assert_eq!(epochs(dir.path()).unwrap().len(), 2);
    let report = verify(dir.path(), None, &mut |_| {}).unwrap();
    assert!(report.is_ok() && report.completeness.commands == 5, "{report:#?}");
}

#[test]
fn a_damaged_log_ends_and_another_begins() {
    let dir = tempfile::tempdir().unwrap();
    record(dir.path());
    let segment = dir.path().join("log/00000000000000000000.seg");
    let mut bytes = fs::read(&segment).unwrap();
    let at = bytes.windows(10).position(|w| w == b"\"k\":\"outco").unwrap();
    bytes[at + 1] ^= 1;
    fs::write(&segment, &bytes).unwrap();
    assert!(Recorder::open_dir(dir.path(), options()).is_err());
    assert!(begin(dir.path(), EpochReason::Rotation).is_err(), "only a sound log is rotated");
    begin(dir.path(), EpochReason::Damaged).unwrap();
    record(dir.path());
    let (_, previous) = first(dir.path());
    let previous = previous.unwrap();
    assert!(previous.reason == EpochReason::Damaged && previous.size > 0, "{previous:?}");
    let old = dir.path().join("epochs/1/log/00000000000000000000.seg");
    assert_eq!(fs::read(old).unwrap(), bytes, "the evidence stays as it is");
    assert!(verify(dir.path(), None, &mut |_| {}).unwrap().is_ok());
}

#[test]
fn a_change_that_was_cut_off_is_completed() {
    let names = ["blobs", "checkpoint", "head", "keys", "log", "tiles", "vkey"];
    for moved in 0..=2 * names.len() {
        let dir = tempfile::tempdir().unwrap();
        record(dir.path());
        let old_key = vkey(dir.path());
        // As a change leaves it that was cut off after so many renames: the last steps are taken back.
        begin(dir.path(), EpochReason::Rollback).unwrap();
        let new_key = vkey(dir.path());
        let (old, next) = (dir.path().join("epochs/1"), dir.path().join("epochs/next"));
        fs::create_dir_all(&next).unwrap();
        let there = |dir: &Path| names.iter().copied().filter(|name| dir.join(name).exists()).collect::<Vec<_>>();
        let (of_old, of_new) = (there(&old), there(dir.path()));
        let mut moves = "1\n".to_owned();
        of_old.iter().for_each(|name| moves += &format!("{name}\n"));
        let steps: Vec<_> = of_old
            .iter()
            .map(|name| (dir.path().join(name), old.join(name)))
            .chain(of_new.iter().map(|name| (next.join(name), dir.path().join(name))))
            .collect();
        steps.iter().skip(moved).rev().for_each(|(from, to)| fs::rename(to, from).unwrap());
        fs::write(dir.path().join("epochs/moves"), moves).unwrap();
        record(dir.path());
        assert_eq!((vkey(dir.path()), vkey(&old)), (new_key, old_key), "cut off after {moved}");
        assert!(verify(dir.path(), None, &mut |_| {}).unwrap().is_ok());
        assert!(verify(&old, None, &mut |_| {}).unwrap().is_ok());
        assert!(!next.exists() && !dir.path().join("epochs/moves").exists());
    }
}

#[test]
fn only_a_gateway_s_own_logs_are_opened_under_its_name() {
    let dir = tempfile::tempdir().unwrap();
    record(dir.path());
    begin(dir.path(), EpochReason::Rollback).unwrap();
    let other = |name: &str| Recorder::open_dir(dir.path(), Options::new(name)).err();
    assert!(matches!(other("another.example.com"), Some(StoreError::Origin { .. })));
    assert!(matches!(other("gateway.example.co"), Some(StoreError::Origin { .. })));
    assert!(other(GATEWAY).is_none());
    let kinds: Vec<Kind> =
        Reader::open(dir.path()).unwrap().entries(0).map(|stored| stored.unwrap().entry.body.kind()).collect();
    assert_eq!(kinds[0], Kind::Genesis);
}
