//! The wall clock goes back and forth: the order of the record does not, and the record says what the clock did.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::SeqCst};

use common::*;
use model::Time;
use store::{Clock, Filter, Reader, Recorder, commands, verify_on};
use testkit::sim_disk::SimDisk;

/// A boot clock that only goes forward, and a wall clock that someone sets.
struct Set {
    boot_us: AtomicU64,
    ahead_us: AtomicI64,
}

impl Clock for Set {
    fn now(&self) -> Time {
        let boot_us = self.boot_us.fetch_add(1000, SeqCst);
        let wall_us = 1_763_804_101_000_000 + i64::try_from(boot_us).unwrap() + self.ahead_us.load(SeqCst);
        Time { wall_us, boot_us }
    }
}

#[test]
fn the_wall_clock_is_set_back_and_forward() {
    let disk = SimDisk::new();
    create(&disk).unwrap();
    let clock = Arc::new(Set { boot_us: AtomicU64::new(5_000_000), ahead_us: AtomicI64::new(0) });
    let (recorder, _) =
        Recorder::open(Arc::new(disk.clone()), options(), clock.clone(), Box::new(TestRandom(2))).unwrap();
    let gate = recorder.gate();
    let (mut session, opening) = recorder.open_session(start()).unwrap();
    durable(&gate, opening.position()).unwrap();
    let hour = 3_600_000_000;
    let mut recorded = Vec::new();
    for (text, ahead) in [("before", 0), ("an hour back", -hour), ("a day forward", 24 * hour), ("right again", 0)] {
        clock.ahead_us.store(ahead, SeqCst);
        recorded.push((command(&gate, &mut session, text).unwrap(), text));
    }
    session.close(closing()).unwrap();
    recorder.stop().unwrap();
    let reader = Reader::on(Arc::new(disk.clone())).unwrap();
    let seen: Vec<_> = commands(&reader, Filter::default()).map(Result::unwrap).collect();
    let order: Vec<_> = seen.iter().map(|view| (view.id, view.text.text().unwrap().into_owned())).collect();
    let expected: Vec<_> = recorded.iter().map(|(id, text)| (*id, (*text).to_owned())).collect();
    assert_eq!(order, expected, "the order is that of the log, whatever the clock says");
    // What took how long is measured by the other clock.
    assert!(seen.iter().all(|view| view.outcome.as_ref().unwrap().duration_us < 1_000_000));
    let report = verify_on(Arc::new(disk), None, &[], &mut |_| {}).unwrap();
    assert!(report.is_ok(), "{report:#?}");
    let steps: Vec<i64> = report.coverage.clock_steps.iter().map(|step| step.by_us).collect();
    assert_eq!(steps, [-hour, 25 * hour, -24 * hour]);
    assert_eq!(report.completeness.silences, []);
}
