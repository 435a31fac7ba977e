//! Several workers with their gates on one log: every waiter is woken, whoever syncs, and the order of the log is dense.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod common;

use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;
use std::time::{Duration, Instant};

use common::*;
use model::{Field, Status};
use store::{
    Gate, Level, Lone, Options, OutcomeDraft, Pending, RealDisk, RecordError, Recorder, Recovery, SessionLog,
    StoreError, SystemClock, SystemRandom, verify,
};
use testkit::sim_disk::{Fault, SimDisk};

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// One worker: sessions whose commands overlap, driven only by wake-ups.
fn worker(recorder: &Recorder, lone: Lone, level: Level, rounds: usize) -> Result<usize, RecordError> {
    let gate = recorder.gate();
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    gate.set_turn_waker(&waker);
    let mut sessions = Vec::new();
    for _ in 0..4 {
        let (session, opening) = recorder.open_session(start())?;
        wait(&gate, &waker, lone, |cx| gate.poll(cx, opening.position(), level))?;
        sessions.push(session);
    }
    let mut done = 0;
    for round in 0..rounds {
        let mut pending: Vec<(usize, Pending)> = Vec::new();
        for (i, session) in sessions.iter_mut().enumerate() {
            let text = session.seal(format!("select {round}").as_bytes());
            pending.push((i, session.intent(&intent(&text, &Field::NONE))?));
        }
        for (i, pending) in pending {
            wait(&gate, &waker, lone, |cx| gate.poll(cx, pending.position(), level))?;
            let recorded = gate.admit(pending, level).expect("it has reached the level");
            sessions[i].outcome(recorded, &OutcomeDraft::new(Status::Ok))?;
            done += 1;
        }
    }
    for session in sessions {
        SessionLog::close(session, closing())?;
    }
    Ok(done)
}

fn wait(
    gate: &Gate,
    waker: &Waker,
    lone: Lone,
    mut poll: impl FnMut(&mut Context<'_>) -> Poll<Result<(), RecordError>>,
) -> Result<(), RecordError> {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        if let Poll::Ready(result) = poll(&mut Context::from_waker(waker)) {
            return result;
        }
        if gate.turn_wanted() {
            gate.turn(lone);
            continue;
        }
        // Nothing but a wake-up ends this: a lost one fails the test at the deadline.
        std::thread::park_timeout(deadline.saturating_duration_since(Instant::now()));
        assert!(Instant::now() < deadline, "a waiter was not woken");
    }
}

fn run(recorder: &Recorder, workers: usize, rounds: usize) -> Vec<Result<usize, RecordError>> {
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..workers)
            .map(|i| {
                let lone = if i % 2 == 0 { Lone::Yes } else { Lone::No };
                let level = if i % 3 == 2 { Level::Written } else { Level::Durable };
                scope.spawn(move || worker(recorder, lone, level, rounds))
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}

fn open_real(dir: &std::path::Path, segment_bytes: u64) -> Result<(Recorder, Recovery), StoreError> {
    let options = Options { segment_bytes, ..Options::new(ORIGIN) };
    Recorder::open(Arc::new(RealDisk::new(dir)), options, Arc::new(SystemClock), Box::new(SystemRandom))
}

#[test]
fn every_waiter_is_woken() {
    let dir = tempfile::tempdir().unwrap();
    Recorder::create(dir.path(), ORIGIN).unwrap();
    let (recorder, _) = open_real(dir.path(), 256 * 1024).unwrap();
    let done = run(&recorder, 5, 40);
    assert!(done.iter().all(|done| *done == Ok(160)), "{done:?}");
    recorder.stop().unwrap();
    let report = verify(dir.path(), None, &mut |_| {}).unwrap();
    assert!(report.is_ok(), "{report:#?}");
    assert_eq!((report.completeness.commands, report.completeness.sessions), (800, 20));
}

#[test]
fn a_failed_sync_wakes_everyone_with_the_reason() {
    for at in [40, 60, 90] {
        let disk = SimDisk::new();
        create(&disk).unwrap();
        let (recorder, _) = open(&disk).unwrap();
        for operation in disk.operations() + at..disk.operations() + at + 3 {
            disk.at(operation, Fault::Error(std::io::ErrorKind::Other));
        }
        let done = run(&recorder, 3, 200);
        assert!(done.iter().all(Result::is_err), "{done:?}");
        assert!(matches!(recorder.health(), store::Health::Stopped { .. }));
        assert!(recorder.open_session(start()).is_err() && recorder.note(heartbeat()).is_err());
    }
}
