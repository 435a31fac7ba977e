//! Random operations against a small model of what the record must hold.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod common;

use std::collections::BTreeMap;
use std::sync::Arc;

use common::*;
use model::{CommandId, Field, SessionId, Status};
use proptest::prelude::*;
use store::{
    CommandStatus, Filter, Gate, Level, Lone, Opened, OutcomeDraft, Pending, Reader, Recorded, Recorder, SessionLog,
    commands, verify_on,
};
use testkit::sim_disk::{SimDisk, Unsynced};

#[derive(Clone, Debug)]
enum Operation {
    Open,
    Intent { session: usize, bytes: usize },
    Admit { pending: usize },
    Outcome { recorded: usize, status: Status },
    Withdraw { pending: usize },
    Close { session: usize },
    Turn,
    Note,
    Flush,
    StopAndOpen,
    Crash(Unsynced),
}

fn operation() -> impl Strategy<Value = Operation> {
    let any_index = 0..8usize;
    prop_oneof![
        2 => Just(Operation::Open),
        8 => (any_index.clone(), prop_oneof![0..200usize, 5_000..40_000usize])
            .prop_map(|(session, bytes)| Operation::Intent { session, bytes }),
        6 => any_index.clone().prop_map(|pending| Operation::Admit { pending }),
        6 => (any_index.clone(), prop::sample::select(Status::ALL))
            .prop_map(|(recorded, status)| Operation::Outcome { recorded, status }),
        1 => any_index.clone().prop_map(|pending| Operation::Withdraw { pending }),
        2 => any_index.prop_map(|session| Operation::Close { session }),
        4 => Just(Operation::Turn),
        1 => Just(Operation::Note),
        2 => Just(Operation::Flush),
        1 => Just(Operation::StopAndOpen),
        1 => prop_oneof![
            Just(Unsynced::Dropped),
            Just(Unsynced::Kept),
            any::<u64>().prop_map(Unsynced::Reordered),
            any::<u64>().prop_map(Unsynced::Torn),
        ].prop_map(Operation::Crash),
    ]
}

/// What the record must say of a command.
#[derive(Clone, Debug)]
struct Expected {
    text: Vec<u8>,
    /// It was acknowledged as durable: it must be there after a crash.
    safe: bool,
    /// What its outcome must be, if the outcome is there at all.
    status: Option<Status>,
}

struct World {
    disk: SimDisk,
    recorder: Recorder,
    gate: Gate,
    sessions: BTreeMap<SessionId, SessionLog>,
    pending: Vec<Pending>,
    recorded: Vec<Recorded>,
    expected: BTreeMap<CommandId, Expected>,
    runs: u64,
}

impl World {
    fn new() -> Self {
        let disk = SimDisk::new();
        create(&disk).unwrap();
        let (recorder, _) = open(&disk).unwrap();
        let gate = recorder.gate();
        Self {
            disk,
            recorder,
            gate,
            sessions: BTreeMap::new(),
            pending: vec![],
            recorded: vec![],
            expected: BTreeMap::new(),
            runs: 2,
        }
    }

    fn apply(mut self, operation: Operation) -> Self {
        match operation {
            Operation::Open => {
                let (session, opening) = self.recorder.open_session(start()).unwrap();
                let _ = opening.position();
                self.sessions.insert(session.id(), session);
            }
            Operation::Intent { session, bytes } => {
                let count = self.sessions.len().max(1);
                let Some(session) = self.sessions.values_mut().nth(session % count) else {
                    return self;
                };
                let text = vec![b'a' + u8::try_from(bytes % 26).unwrap(); bytes];
                let field = session.seal(&text);
                let pending = session.intent(&intent(&field, &Field::NONE)).unwrap();
                self.expected.insert(pending.command(), Expected { text, safe: false, status: None });
                self.pending.push(pending);
            }
            Operation::Admit { pending } if !self.pending.is_empty() => {
                let pending = self.pending.swap_remove(pending % self.pending.len());
                match self.gate.admit(pending, Level::Durable) {
                    Ok(recorded) => {
                        self.expected.get_mut(&recorded.command()).unwrap().safe = true;
                        self.recorded.push(recorded);
                    }
                    Err(pending) => self.pending.push(pending),
                }
            }
            Operation::Outcome { recorded, status } if !self.recorded.is_empty() => {
                let recorded = self.recorded.swap_remove(recorded % self.recorded.len());
                let id = recorded.command();
                let session = self.sessions.get_mut(&id.session).unwrap();
                session.outcome(recorded, &OutcomeDraft::new(status)).unwrap();
                self.expected.get_mut(&id).unwrap().status = Some(status);
            }
            Operation::Withdraw { pending } if !self.pending.is_empty() => {
                let pending = self.pending.swap_remove(pending % self.pending.len());
                let id = pending.command();
                let session = self.sessions.get_mut(&id.session).unwrap();
                session.withdraw(pending, &OutcomeDraft::new(Status::Skipped)).unwrap();
                self.expected.get_mut(&id).unwrap().status = Some(Status::Skipped);
            }
            Operation::Close { session } => {
                let count = self.sessions.len().max(1);
                if let Some(&id) = self.sessions.keys().nth(session % count) {
                    self.close(id);
                }
            }
            Operation::Turn => self.gate.turn(Lone::Yes),
            Operation::Note => drop(self.recorder.note(heartbeat()).unwrap()),
            Operation::Flush => self.recorder.flush().unwrap(),
            Operation::StopAndOpen => {
                let ids: Vec<_> = self.sessions.keys().copied().collect();
                ids.into_iter().for_each(|id| self.close(id));
                self.recorder.clone().stop().unwrap();
                for expected in self.expected.values_mut() {
                    expected.safe = true;
                }
                return self.reopen(None);
            }
            Operation::Crash(unsynced) => {
                self.disk.crash();
                return self.reopen(Some(unsynced));
            }
            Operation::Admit { .. } | Operation::Outcome { .. } | Operation::Withdraw { .. } => {}
        }
        self
    }

    fn close(&mut self, id: SessionId) {
        self.pending.retain(|pending| pending.command().session != id);
        self.recorded.retain(|recorded| recorded.command().session != id);
        self.sessions.remove(&id).unwrap().close(closing()).unwrap();
        for (_, expected) in self.expected.range_mut(CommandId { session: id, ordinal: 0 }..) {
            expected.status.get_or_insert(Status::Unknown);
        }
    }

    fn reopen(self, crash: Option<Unsynced>) -> Self {
        let Self { disk, recorder, gate, sessions, mut expected, runs, .. } = self;
        drop((sessions, gate, recorder));
        let disk = match crash {
            Some(unsynced) => disk.after_crash(unsynced),
            None => disk,
        };
        let (recorder, recovery) = open_with(&disk, options(), runs + 1).unwrap();
        // A crash before anything became durable leaves the log as the last stop had left it.
        assert!(recovery.clean || crash.is_some());
        check(&disk, &mut expected);
        let gate = recorder.gate();
        Self {
            disk,
            recorder,
            gate,
            sessions: BTreeMap::new(),
            pending: vec![],
            recorded: vec![],
            expected,
            runs: runs + 1,
        }
    }
}

fn check(disk: &SimDisk, expected: &mut BTreeMap<CommandId, Expected>) {
    let report = verify_on(Arc::new(disk.clone()), None, &[], &mut |_| {}).unwrap();
    assert!(report.is_ok(), "{report:#?}");
    let reader = Reader::on(Arc::new(disk.clone())).unwrap();
    let seen: BTreeMap<_, _> = commands(&reader, Filter::default()).map(Result::unwrap).map(|v| (v.id, v)).collect();
    assert!(seen.keys().all(|id| expected.contains_key(id)), "nothing is made up");
    expected.retain(|id, expected| {
        let Some(view) = seen.get(id) else {
            assert!(!expected.safe, "command {id} was safe and is gone");
            return false;
        };
        assert!(view.text == Opened::Bytes(expected.text.clone()), "command {id}");
        let CommandStatus::Ended(status) = view.status() else { panic!("command {id} has no outcome") };
        // An outcome that was not yet durable may be lost; then it is unknown, and nothing else.
        assert!(Some(status) == expected.status || status == Status::Unknown, "command {id}: {status}");
        *expected = Expected { safe: true, status: Some(status), text: expected.text.clone() };
        true
    });
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48,
        failure_persistence: None, max_shrink_iters: 200, ..ProptestConfig::default() })]

    #[test]
    fn the_record_is_what_the_model_says(operations in prop::collection::vec(operation(), 1..120)) {
        let world = operations.into_iter().fold(World::new(), World::apply);
        let world = world.apply(Operation::Crash(Unsynced::Torn(7)));
        drop(world.apply(Operation::StopAndOpen));
    }
}
