//! Content goes when it has been kept as long as the rules say, and not before.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use common::*;
use model::{Actor, EraseCause, Known, SessionId, Time};
use store::{
    Clock, CustodyError, Filter, HoldScope, Opened, Pace, Reader, Recorder, RetentionRules, SessionStart, commands,
    verify_on,
};
use testkit::sim_disk::SimDisk;

const DAY_US: u64 = 86_400_000_000;

/// A clock that the test moves; both of its hands, or one.
#[derive(Default)]
struct Hands {
    wall_us: AtomicU64,
    boot_us: AtomicU64,
}

impl Hands {
    fn pass_days(&self, days: u64) {
        self.wall_us.fetch_add(days * DAY_US, Ordering::SeqCst);
        self.boot_us.fetch_add(days * DAY_US, Ordering::SeqCst);
    }
}

struct Moved(Arc<Hands>);

impl Clock for Moved {
    fn now(&self) -> Time {
        let boot_us = self.0.boot_us.fetch_add(1000, Ordering::SeqCst);
        let wall_us = self.0.wall_us.fetch_add(1000, Ordering::SeqCst);
        Time { wall_us: 1_763_804_101_000_000 + i64::try_from(wall_us).unwrap(), boot_us }
    }
}

fn open_at(disk: &SimDisk, hands: &Arc<Hands>, seed: u64) -> Recorder {
    let clock = Arc::new(Moved(hands.clone()));
    Recorder::open(Arc::new(disk.clone()), options(), clock, Box::new(TestRandom(seed))).unwrap().0
}

fn session(recorder: &Recorder, connection: &str) -> SessionId {
    let gate = recorder.gate();
    let start = SessionStart { connection: connection.into(), ..start() };
    let (mut session, _opening) = recorder.open_session(start).unwrap();
    let id = session.id();
    command(&gate, &mut session, "select 'old'").unwrap();
    session.close(closing()).unwrap();
    id
}

/// The sessions whose text is gone, in order.
fn gone(disk: &SimDisk) -> Vec<SessionId> {
    let reader = Reader::on(Arc::new(disk.clone())).unwrap();
    let erased = commands(&reader, Filter::default()).map(Result::unwrap).filter(|view| {
        let erased = matches!(&view.text, Opened::Erased(Some(erasure)) if erasure.cause == EraseCause::Retention);
        assert!(erased || view.text == Opened::Bytes(b"select 'old'".to_vec()), "{:?}", view.text);
        erased
    });
    erased.map(|view| view.id.session).collect()
}

fn gateway() -> Actor {
    Actor { name: "gateway".into(), known: Known::Verified }
}

fn rules(days: Option<u32>, connections: &[(&str, u32)]) -> RetentionRules {
    let connections = connections.iter().map(|(name, days)| ((*name).to_owned(), *days)).collect();
    RetentionRules { days, connections }
}

#[test]
fn each_connection_is_kept_as_long_as_its_rule_says() {
    let disk = SimDisk::new();
    create(&disk).unwrap();
    let hands = Arc::new(Hands::default());
    let recorder = open_at(&disk, &hands, 2);
    let rules = rules(Some(30), &[("audit", 90), ("scratch", 1)]);
    let retain = |recorder: &Recorder| recorder.retain(&rules, &gateway(), &mut || Pace::Go).unwrap();
    let old = ["app", "audit", "scratch"].map(|connection| session(&recorder, connection));
    let (still_open, _opening) = recorder.open_session(start()).unwrap();
    assert_eq!(retain(&recorder).erased, 0);
    hands.pass_days(2);
    let later = session(&recorder, "app");
    assert_eq!(retain(&recorder).erased, 1);
    assert_eq!(gone(&disk), [old[2]]);
    hands.pass_days(29);
    // The one that was open all the time ended just now.
    let open_id = still_open.id();
    still_open.close(closing()).unwrap();
    assert_eq!(retain(&recorder).erased, 1);
    assert_eq!(gone(&disk), [old[0], old[2]]);
    hands.pass_days(2);
    assert_eq!(retain(&recorder).erased, 1);
    assert_eq!(gone(&disk), [old[0], old[2], later]);
    recorder.stop().unwrap();

    // Another run begins at the beginning again, and finds the same.
    let recorder = open_at(&disk, &hands, 3);
    assert_eq!(retain(&recorder).erased, 0);
    hands.pass_days(60);
    assert_eq!(retain(&recorder).erased, 2, "{open_id} too");
    assert_eq!(gone(&disk), [old[0], old[1], old[2], later]);
    assert_eq!(retain(&recorder).erased, 0);
    recorder.stop().unwrap();
    let report = verify_on(Arc::new(disk), None, &[], &mut |_| {}).unwrap();
    assert!(report.is_ok() && report.completeness.erased_sessions == 5, "{report:#?}");
}

#[test]
fn what_is_held_stays_until_it_is_released() {
    let disk = SimDisk::new();
    create(&disk).unwrap();
    let hands = Arc::new(Hands::default());
    let recorder = open_at(&disk, &hands, 2);
    let sessions = [session(&recorder, "app"), session(&recorder, "app")];
    let scope = HoldScope { session: Some(sessions[0]), ..HoldScope::default() };
    let hold = recorder.place_hold(scope, &gateway(), "litigation").unwrap();
    hands.pass_days(10);
    let rules = rules(Some(1), &[]);
    let retain = || recorder.retain(&rules, &gateway(), &mut || Pace::Go).unwrap();
    let first = retain();
    assert_eq!((first.erased, first.held), (1, 1));
    let second = retain();
    assert_eq!((second.erased, second.held), (0, 1));
    assert_eq!(gone(&disk), [sessions[1]]);
    recorder.release_hold(&hold, &gateway(), "settled").unwrap();
    assert_eq!(retain().erased, 1);
    assert_eq!(gone(&disk), sessions);
}

#[test]
fn a_pass_that_was_stopped_goes_on_where_it_was() {
    let disk = SimDisk::new();
    create(&disk).unwrap();
    let hands = Arc::new(Hands::default());
    let recorder = open_at(&disk, &hands, 2);
    let sessions: Vec<_> = (0..70).map(|_| session(&recorder, "app")).collect();
    hands.pass_days(10);
    let rules = rules(None, &[("app", 1)]);
    let erased = recorder.retain(&rules, &gateway(), &mut || Pace::Stop).unwrap().erased;
    assert!(erased > 0 && erased < 70, "{erased}");
    assert_eq!(recorder.retain(&rules, &gateway(), &mut || Pace::Go).unwrap().erased, 70 - erased);
    assert_eq!(gone(&disk), sessions);
}

#[test]
fn a_clock_that_jumps_erases_nothing() {
    let disk = SimDisk::new();
    create(&disk).unwrap();
    let hands = Arc::new(Hands::default());
    let recorder = open_at(&disk, &hands, 2);
    session(&recorder, "app");
    hands.wall_us.fetch_add(400 * DAY_US, Ordering::SeqCst);
    let error = recorder.retain(&rules(Some(30), &[]), &gateway(), &mut || Pace::Go).unwrap_err();
    assert!(matches!(error, CustodyError::ClockStepped { hours: 9600 }), "{error}");
    assert_eq!(gone(&disk), []);
}
