//! A start reads the end of the log, not all of it, and knows what a start that read all of it would know.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod common;

use std::sync::Arc;
use std::time::Duration;

use common::*;
use model::{Field, Status};
use store::{CommandStatus, Disk, Filter, Options, Reader, Recorder, commands, verify_on};
use testkit::sim_disk::{SimDisk, Unsynced};

fn states(disk: &SimDisk) -> Vec<String> {
    disk.paths().into_iter().filter(|path| path.ends_with(".state")).collect()
}

/// A gateway that crashes after several segments, with a session open all the while and one command of it unfinished.
fn crashed() -> SimDisk {
    let disk = SimDisk::new();
    create(&disk).unwrap();
    let options = Options { checkpoint_interval: Duration::from_millis(1), ..options() };
    let (recorder, _) = open_with(&disk, options, 2).unwrap();
    let gate = recorder.gate();
    let (mut long, opening) = recorder.open_session(start()).unwrap();
    durable(&gate, opening.position()).unwrap();
    let text = long.seal(b"select pg_sleep(1000)");
    let pending = long.intent(&intent(&text, &Field::NONE)).unwrap();
    let _running = admit(&gate, pending).unwrap();
    for i in 0..60 {
        let (mut short, _) = recorder.open_session(start()).unwrap();
        command(&gate, &mut short, &format!("select {i} {}", "x".repeat(8000))).unwrap();
        short.close(closing()).unwrap();
        command(&gate, &mut long, "select 1").unwrap();
    }
    recorder.flush().unwrap();
    let (size, _) = recorder.wait_checkpoint(200, Duration::from_secs(20)).unwrap();
    assert!(size > 200);
    disk.crash();
    disk.after_crash(Unsynced::Dropped)
}

#[track_caller]
fn recovers(disk: &SimDisk) -> Vec<(String, Option<Status>)> {
    let (recorder, recovery) = open(disk).unwrap();
    assert_eq!((recovery.commands_unknown.len(), recovery.sessions_lost.len()), (1, 1));
    recorder.stop().unwrap();
    let report = verify_on(Arc::new(disk.clone()), None, &[], &mut |_| {}).unwrap();
    assert!(report.is_ok(), "{report:#?}");
    let reader = Reader::on(Arc::new(disk.clone())).unwrap();
    let seen = commands(&reader, Filter::default()).map(Result::unwrap);
    seen.map(|view| {
        assert_ne!(view.status(), CommandStatus::Pending);
        (view.text.text().unwrap().into_owned(), view.outcome.map(|outcome| outcome.status))
    })
    .collect()
}

#[test]
fn a_start_from_a_snapshot_is_a_start_from_the_beginning() {
    let disk = crashed();
    let states = states(&disk);
    assert!(states.len() >= 3, "{states:?}");
    let without = disk.copy();
    states.iter().for_each(|path| Disk::remove(&without, path).unwrap());
    let expected = recovers(&without);
    assert_eq!(recovers(&disk.copy()), expected);
}

#[test]
fn a_snapshot_that_is_wrong_does_no_harm() {
    let disk = crashed();
    let states = states(&disk);
    let newest = states.last().unwrap();
    let good = disk.bytes(newest).unwrap();
    // Damaged: another is taken.
    let damaged = disk.copy();
    damaged.set_bytes(newest, &good[..good.len() - 4]);
    recovers(&damaged);
    // Whole, but of another log: what was signed does not follow from it.
    let text = String::from_utf8(good).unwrap();
    let mut lines: Vec<&str> = text.lines().collect();
    lines.pop();
    let other = lines[1].replacen(&lines[1][20..24], "AAAA", 1);
    lines[1] = &other;
    let body = lines.join("\n") + "\n";
    let forged = format!("{body}{:08x}\n", crc32c::crc32c(body.as_bytes()));
    let wrong = disk.copy();
    wrong.set_bytes(newest, forged.as_bytes());
    recovers(&wrong);
}

#[test]
fn many_runs_begin_where_the_one_before_ended() {
    let disk = SimDisk::new();
    create(&disk).unwrap();
    for run in 0..12 {
        let (recorder, recovery) = open_with(&disk, options(), run + 2).unwrap();
        assert!(recovery.clean, "run {run}");
        let gate = recorder.gate();
        let (mut session, _) = recorder.open_session(start()).unwrap();
        for i in 0..6 {
            command(&gate, &mut session, &format!("select {i} {}", "x".repeat(8000))).unwrap();
        }
        session.close(closing()).unwrap();
        recorder.stop().unwrap();
    }
    assert!(states(&disk).len() >= 4, "{:?}", states(&disk));
    let report = verify_on(Arc::new(disk.clone()), None, &[], &mut |_| {}).unwrap();
    assert!(report.is_ok() && report.completeness.commands == 72, "{report:#?}");
    let _ = Recorder::open(Arc::new(disk), options(), Arc::new(TestClock::new()), Box::new(TestRandom(99))).unwrap();
}
