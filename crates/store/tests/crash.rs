//! The power goes at every single operation of a gateway's life, and whatever the disk made of the writes that were not
//! synced: nothing that was acknowledged is lost, the log verifies, and every command has an outcome.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod common;

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::sync::Arc;

use common::*;
use model::{CommandId, Reason, Status};
use store::{CommandStatus, CommandView, Filter, Opened, Reader, StoreError, commands, verify_on};
use testkit::sim_disk::{Fault, SimDisk, Unsynced};

fn created() -> SimDisk {
    let disk = SimDisk::new();
    create(&disk).unwrap();
    disk
}

/// The number of operations of a life without faults. The store's threads add a few of their own, at their own time.
fn operations() -> u64 {
    let disk = created();
    let before = disk.operations();
    life(&disk, &mut Acknowledged::default()).unwrap();
    disk.operations() - before
}

fn seen(disk: &SimDisk) -> BTreeMap<CommandId, CommandView> {
    let reader = Reader::on(Arc::new(disk.clone())).unwrap();
    commands(&reader, Filter::default()).map(Result::unwrap).map(|view| (view.id, view)).collect()
}

/// What must hold of a disk on which a gateway had acknowledged this much.
fn check(disk: &SimDisk, acknowledged: &Acknowledged, what: &str) {
    // Before anything is repaired: what is there, verifies, and what is torn is not taken for an entry.
    let report = verify_on(Arc::new(disk.clone()), None, &[], &mut |_| {}).unwrap();
    assert_eq!(report.integrity.violation, None, "{what}: before recovery");

    let (recorder, recovery) = open(disk).unwrap_or_else(|error| panic!("{what}: {error}"));
    drop(recorder);
    let report = verify_on(Arc::new(disk.clone()), None, &[], &mut |_| {}).unwrap();
    assert!(report.is_ok(), "{what}: {report:#?}");
    assert_eq!(report.integrity.torn_bytes, 0, "{what}");
    let seen = seen(disk);
    for (id, text) in &acknowledged.texts {
        let view = seen.get(id).unwrap_or_else(|| panic!("{what}: command {id} was acknowledged and is gone"));
        assert!(view.text == Opened::Bytes(text.clone().into_bytes()), "{what}: {:?}", view.text);
    }
    for view in seen.values() {
        let outcome = view.outcome.as_ref().unwrap_or_else(|| panic!("{what}: command {} has no outcome", view.id));
        if recovery.commands_unknown.contains(&view.id) {
            assert_eq!((outcome.status, outcome.reason), (Status::Unknown, Some(Reason::GatewayRestarted)), "{what}");
        }
        assert_ne!(view.status(), CommandStatus::Pending);
    }
}

#[test]
fn the_power_goes_at_every_operation() {
    let operations = operations();
    assert!(operations > 50);
    for at in 0..operations {
        let disk = created();
        disk.at(disk.operations() + at, Fault::Crash);
        let mut acknowledged = Acknowledged::default();
        let _ = life(&disk, &mut acknowledged);
        let states = [Unsynced::Dropped, Unsynced::Kept]
            .into_iter()
            .chain((0..3).map(|seed| Unsynced::Reordered(at * 31 + seed)))
            .chain((0..5).map(|seed| Unsynced::Torn(at * 37 + seed)));
        for state in states {
            check(&disk.after_crash(state), &acknowledged, &format!("crash at operation {at}, {state:?}"));
        }
    }
}

#[test]
fn the_power_goes_again_during_recovery() {
    let operations = operations();
    for at in (0..operations).step_by(3) {
        let disk = created();
        disk.at(disk.operations() + at, Fault::Crash);
        let mut acknowledged = Acknowledged::default();
        let _ = life(&disk, &mut acknowledged);
        let found = disk.after_crash(Unsynced::Torn(at));
        for again in 0..12 {
            let disk = found.copy();
            disk.at(disk.operations() + again, Fault::Crash);
            let _ = open(&disk);
            disk.crash();
            for state in [Unsynced::Dropped, Unsynced::Kept, Unsynced::Torn(at + again)] {
                let what = format!("crash at operation {at}, then at {again} of the recovery, {state:?}");
                check(&disk.after_crash(state), &acknowledged, &what);
            }
        }
    }
}

#[test]
fn making_a_log_is_all_or_nothing() {
    let disk = SimDisk::new();
    create(&disk).unwrap();
    for at in 0..disk.operations() {
        for state in [Unsynced::Dropped, Unsynced::Kept, Unsynced::Torn(at)] {
            let disk = SimDisk::new();
            disk.at(at, Fault::Crash);
            assert!(create(&disk).is_err());
            let disk = disk.after_crash(state);
            match create(&disk) {
                Ok(()) | Err(StoreError::Exists) => drop(open(&disk).unwrap()),
                Err(error) => panic!("crash at operation {at}, {state:?}: {error}"),
            }
        }
    }
}

#[test]
fn one_failure_and_nothing_is_acknowledged_any_more() {
    let operations = operations();
    let faults =
        [Fault::Error(ErrorKind::Other), Fault::ErrorAfter(ErrorKind::TimedOut), Fault::Error(ErrorKind::StorageFull)];
    for at in 0..operations {
        for fault in faults {
            let disk = created();
            disk.at(disk.operations() + at, fault);
            let mut acknowledged = Acknowledged::default();
            let _ = life(&disk, &mut acknowledged);
            disk.crash();
            for state in [Unsynced::Dropped, Unsynced::Kept, Unsynced::Torn(at)] {
                check(&disk.after_crash(state), &acknowledged, &format!("{fault:?} at operation {at}, {state:?}"));
            }
        }
    }
}

#[test]
fn short_writes_are_completed() {
    for at in 0..operations() {
        let disk = created();
        disk.at(disk.operations() + at, Fault::Short);
        let mut acknowledged = Acknowledged::default();
        life(&disk, &mut acknowledged).unwrap();
        check(&disk.after_crash(Unsynced::Dropped), &acknowledged, &format!("short write at {at}"));
    }
}
