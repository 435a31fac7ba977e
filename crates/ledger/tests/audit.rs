//! An audit that is put aside at any entry and taken up again says the same in the end.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::sync::Arc;

use ledger::audit::{Audit, BlobState, CompletenessVerdict, Place, Report, Scope, StateError};
use ledger::{Checkpoint, Frontier, SigningKey, VerifierKey, leaf_hash, root};
use model::seal::{SessionKey, seal};
use model::*;
use proptest::prelude::*;
use sha2::Digest as _;

const ORIGIN: &str = "gateway.example.com/1";

fn vkey() -> VerifierKey {
    SigningKey::new(ORIGIN, &[7; 32]).unwrap().verifier()
}

fn id(session: u8) -> SessionId {
    SessionId::from_bytes([session; 16])
}

fn agent() -> IdentityName {
    "agent:copilot".parse().unwrap()
}

/// Writes the entries of a log.
#[derive(Default)]
struct Log {
    leaves: Vec<Vec<u8>>,
    /// Of each session: its last leaf hash, its entries' hashes, its intents and outcomes.
    sessions: std::collections::BTreeMap<u8, (Vec<Digest>, u32, u32)>,
    clock: u64,
}

impl Log {
    fn push(&mut self, body: Body) {
        self.clock += 1_000_000;
        let wall_us = 1_795_340_101_000_000 + i64::try_from(self.clock).unwrap();
        let entry = Entry { time: Time { wall_us, boot_us: self.clock }, body };
        let mut leaf = Vec::new();
        entry.encode(&mut leaf);
        self.leaves.push(leaf);
    }

    fn link(&self, session: u8) -> Link {
        let hashes = self.sessions.get(&session).map_or(&[][..], |(hashes, ..)| hashes);
        let number = u32::try_from(hashes.len()).unwrap();
        Link { session: id(session), number, previous: hashes.last().copied() }
    }

    fn in_session(&mut self, session: u8, body: Body) {
        self.push(body);
        let hash = leaf_hash(self.leaves.last().unwrap());
        self.sessions.entry(session).or_default().0.push(hash);
    }

    fn open(&mut self, session: u8, connection: &str) {
        let open = SessionOpen {
            link: self.link(session),
            identity: Identity {
                name: agent(),
                known: Known::Verified,
                proof: Proof {
                    method: ProofMethod::ScramSha256,
                    channel: ChannelBinding::None,
                    credential: "copilot/1".into(),
                    evidence: None,
                },
                on_behalf_of: None,
                groups: Vec::new(),
                run: None,
            },
            connection: connection.into(),
            database: Label::new(b"app"),
            upstream_user: "app".into(),
            protocol: "postgres".into(),
            client: "127.0.0.1:5".into(),
            tls: None,
            claims: vec![],
            durability: Durability::Intent,
            key_slot: session.into(),
            key_commitment: Digest([session; 32]),
            upstream: None,
            outpost: None,
        };
        self.in_session(session, Body::SessionOpen(open));
    }

    fn intent(&mut self, session: u8, text: Field) {
        let link = self.link(session);
        let count = &mut self.sessions.get_mut(&session).unwrap().1;
        *count += 1;
        let intent = Intent {
            link,
            command: CommandId { session: id(session), ordinal: *count },
            who: Who { name: agent(), known: Known::Verified, on_behalf_of: None },
            connection: "app".into(),
            database: Label::new(b"app"),
            via: Via::Simple,
            text,
            parameters: Field::NONE,
            statement: None,
            portal: None,
            transaction: Transaction::Idle,
            effects: Effects::NotEstablished,
            fidelity: Fidelity::Exact,
            verdict: Verdict::Allow,
            rules: vec![],
            policy: None,
            observed: None,
            durability: Durability::Intent,
            bytes: 9,
            upstream: None,
        };
        self.in_session(session, Body::Intent(intent));
    }

    fn outcome(&mut self, session: u8) {
        let link = self.link(session);
        let count = &mut self.sessions.get_mut(&session).unwrap().2;
        *count += 1;
        let outcome = Outcome {
            link,
            of: CommandId { session: id(session), ordinal: *count },
            status: Status::Ok,
            reason: None,
            code: None,
            message: Field::NONE,
            results: vec![],
            results_count: 0,
            rows: 0,
            bytes_up: 0,
            bytes_down: 0,
            duration_us: 1,
            copy: None,
            fetches: 0,
            suspended: false,
            effective: Effective::Committed,
            notices: 0,
            executed: true,
        };
        self.in_session(session, Body::Outcome(outcome));
    }

    fn close(&mut self, session: u8) {
        let link = self.link(session);
        let (hashes, intents, outcomes) = self.sessions[&session].clone();
        let close = SessionClose {
            link,
            reason: SessionEnd::ClientClosed,
            intents,
            outcomes,
            bytes_up: 0,
            bytes_down: 0,
            root: Some(root(&hashes)),
        };
        self.in_session(session, Body::SessionClose(close));
    }

    fn erase(&mut self, session: u8, fields: Option<Vec<u64>>) {
        self.push(Body::Erase(Erase {
            session: id(session),
            connection: "app".into(),
            identity: agent(),
            fields,
            cause: EraseCause::Request,
            reason: "asked for".into(),
            by: Actor { name: "uid:1000".into(), known: Known::Verified },
        }));
    }

    fn hold(&mut self, hold: &str, action: HoldAction, session: Option<SessionId>) {
        self.push(Body::Hold(Hold {
            hold: hold.into(),
            action,
            session,
            connection: None,
            identity: None,
            reason: "a lawsuit".into(),
            by: Actor { name: "uid:1000".into(), known: Known::Verified },
        }));
    }

    fn start(&mut self) {
        let (boot_id, program) = ("boot".into(), "onrecord 0.2".into());
        self.push(Body::Start(Start { boot_id, program, configuration: None, clock: ClockState::Synchronized }));
    }

    fn hashes(&self) -> Vec<Digest> {
        self.leaves.iter().map(|leaf| leaf_hash(leaf)).collect()
    }

    fn checkpoint(&self, size: usize) -> Checkpoint {
        Checkpoint { origin: ORIGIN.into(), size: size as u64, root: root(&self.hashes()[..size]) }
    }
}

fn blob(session: u8, number: u64) -> Field {
    let key = SessionKey::new([session; 32]);
    let head = seal(id(session), &key.field(number + 1), number + 1, b"begins");
    let sha256 = Digest(sha2::Sha256::digest([session, u8::try_from(number).unwrap()]).into());
    let (length, bytes, form, packing) = (70_000, 70_032, BlobForm::Text, None);
    let commitment = Digest([session; 32]);
    Field::Blob(BlobField { number, length, commitment, sha256, bytes, form, packing, head })
}

/// A log with something of everything that an audit remembers.
fn log() -> Log {
    let mut log = Log::default();
    let previous = PreviousLog {
        origin: "gateway.example.com/0".into(),
        vkey: "v".into(),
        size: 5,
        root: Digest([5; 32]),
        witnessed: None,
        reason: EpochReason::Rollback,
    };
    let (origin, vkey, program) = (ORIGIN.into(), vkey().to_string(), "onrecord 0.2".into());
    log.push(Body::Genesis(Genesis { origin, vkey, program, previous: Some(previous) }));
    log.start();
    log.hold("case-1", HoldAction::Placed, Some(id(9)));
    log.open(1, "app");
    log.open(2, "reports");
    log.intent(1, Field::NONE);
    log.intent(1, blob(1, 3));
    log.intent(2, blob(2, 8));
    log.outcome(1);
    log.intent(2, blob(2, 20));
    log.outcome(2);
    log.outcome(2);
    log.erase(2, Some(vec![8]));
    log.erase(2, Some(vec![20]));
    log.close(2);
    log.open(3, "app");
    log.clock += 60_000_000;
    let standing = WitnessStanding { name: "w".into(), state: WitnessState::Behind, size: Some(3) };
    log.push(Body::Witnesses(Witnesses { size: 9, enough: None, witnesses: vec![standing] }));
    log.outcome(1);
    log.erase(1, None);
    log.close(1);
    log.hold("case-2", HoldAction::Placed, None);
    log.hold("case-2", HoldAction::Released, None);
    log.clock += 900_000_000;
    let (loss, torn_bytes) = (Loss::TornTail, 17);
    log.push(Body::Recovery(Recovery { entries: 22, loss, torn_bytes, commands_unknown: 0, sessions_lost: 0 }));
    log.intent(3, Field::NONE);
    log.outcome(3);
    log.close(3);
    log.push(Body::Stop(Stop { reason: StopReason::Requested, next: None }));
    log
}

fn feed(audit: &mut Audit, log: &Log, from: usize, to: usize) {
    for (index, leaf) in log.leaves.iter().enumerate().take(to).skip(from) {
        let place = Place { file: Arc::from("log"), offset: index as u64 * 10, index: index as u64 };
        audit.entry(&place, leaf, leaf_hash(leaf), &mut |_, field| {
            BlobState::Missing(format!("{} is gone", field.number))
        });
    }
}

fn whole(log: &Log, expected: &[usize]) -> Report {
    let mut audit = Audit::new(Scope::Whole, &vkey());
    expected.iter().for_each(|size| audit.expect(log.checkpoint(*size)));
    feed(&mut audit, log, 0, log.leaves.len());
    audit.finish(None)
}

#[test]
fn it_goes_on_from_any_entry() {
    let log = log();
    let all = log.leaves.len();
    let report = whole(&log, &[all]);
    assert!(report.is_ok(), "{report:#?}");
    assert_eq!((report.completeness.erased_sessions, report.completeness.erased_fields), (1, 2));
    assert!(report.completeness.holds.contains("case-1") && report.coverage.away_count == 1);
    assert!(report.coverage.previous.is_some() && report.coverage.witnesses.is_some());
    assert_eq!(report.completeness.silences.len(), 1);
    for at in 0..=all {
        let mut before = Audit::new(Scope::Whole, &vkey());
        feed(&mut before, &log, 0, at);
        let saved = before.save().unwrap();
        let resumed = Audit::resume(&saved, &vkey()).unwrap();
        assert_eq!(resumed.save().unwrap(), saved, "at {at}");
        let mut fresh = Audit::new(Scope::Whole, &vkey());
        fresh.expect(log.checkpoint(all));
        let mut audit = fresh.or_from(resumed);
        assert_eq!(audit.entries(), at as u64);
        feed(&mut audit, &log, at, all);
        assert_eq!(audit.finish(None), report, "at {at}");
    }
}

#[test]
fn it_does_not_go_on_where_it_could_not_tell() {
    let log = log();
    let all = log.leaves.len();
    let mut before = Audit::new(Scope::Whole, &vkey());
    before.expect(log.checkpoint(6));
    feed(&mut before, &log, 0, 10);
    let resumed = || Audit::resume(&before.save().unwrap(), &vkey()).unwrap();
    // A root that was told is remembered.
    let mut fresh = Audit::new(Scope::Whole, &vkey());
    fresh.expect(log.checkpoint(all));
    fresh.expect(log.checkpoint(6));
    assert_eq!(fresh.or_from(resumed()).entries(), 10);
    // Another one is behind it.
    let mut fresh = Audit::new(Scope::Whole, &vkey());
    fresh.expect(log.checkpoint(all));
    fresh.expect(log.checkpoint(7));
    assert_eq!(fresh.or_from(resumed()).entries(), 0);
    // A log that is shorter than it was, however well signed, is named.
    let mut fresh = Audit::new(Scope::Whole, &vkey());
    fresh.expect(log.checkpoint(8));
    let mut audit = fresh.or_from(resumed());
    assert_eq!(audit.entries(), 0);
    for (index, leaf) in log.leaves.iter().enumerate().take(8) {
        let place = Place { file: Arc::from("log"), offset: 0, index: index as u64 };
        audit.entry(&place, leaf, leaf_hash(leaf), &mut |_, _| BlobState::Unchecked);
    }
    let violation = audit.finish(None).integrity.violation.unwrap();
    assert_eq!(violation.what, "10 entries were signed, and the log has 8");
    let other = SigningKey::new(ORIGIN, &[8; 32]).unwrap().verifier();
    assert_eq!(Audit::resume(&before.save().unwrap(), &other).err(), Some(StateError::OtherLog));
    assert_eq!(
        Audit::resume(b"onrecord/v9 audit\n and more, much more than a checksum", &vkey()).err(),
        Some(StateError::Version)
    );
}

#[test]
fn a_violation_is_not_put_aside() {
    let mut log = log();
    let at = log.leaves[10].len() - 3;
    log.leaves[10][at] ^= 1;
    let mut audit = Audit::new(Scope::Whole, &vkey());
    feed(&mut audit, &log, 0, 10);
    assert!(audit.save().is_some());
    feed(&mut audit, &log, 10, 12);
    assert!(audit.save().is_none());
}

#[test]
fn what_was_erased_under_a_hold_is_a_gap() {
    let mut log = log();
    log.leaves.pop();
    log.erase(9, None);
    let report = whole(&log, &[]);
    assert_eq!(report.completeness.verdict, CompletenessVerdict::Violated);
    assert!(report.completeness.gaps[0].contains("was erased under the hold case-1"), "{:?}", report.completeness.gaps);
}

#[test]
fn a_missing_blob_that_nobody_erased_is_named() {
    let mut log = Log::default();
    let (origin, vkey, program) = (ORIGIN.into(), vkey().to_string(), "onrecord 0.2".into());
    log.push(Body::Genesis(Genesis { origin, vkey, program, previous: None }));
    log.open(1, "app");
    log.intent(1, blob(1, 3));
    log.intent(1, blob(1, 9));
    log.erase(1, Some(vec![3]));
    let violation = whole(&log, &[]).integrity.violation.unwrap();
    assert_eq!((violation.index, violation.what.as_str()), (Some(3), "9 is gone"));
}

#[test]
fn the_key_is_that_of_the_first_entry() {
    let mut log = Log::default();
    let other = SigningKey::new(ORIGIN, &[9; 32]).unwrap().verifier();
    let (origin, vkey, program) = (ORIGIN.into(), other.to_string(), "onrecord 0.2".into());
    log.push(Body::Genesis(Genesis { origin, vkey, program, previous: None }));
    let violation = whole(&log, &[]).integrity.violation.unwrap();
    assert!(violation.index == Some(0) && violation.what.contains("another key"), "{violation:?}");
}

#[test]
fn a_session_must_be_what_its_last_entry_stands_for() {
    let mut log = Log::default();
    let (origin, vkey, program) = (ORIGIN.into(), vkey().to_string(), "onrecord 0.2".into());
    log.push(Body::Genesis(Genesis { origin, vkey, program, previous: None }));
    log.open(1, "app");
    log.sessions.get_mut(&1).unwrap().0.insert(0, Digest([1; 32]));
    let link = Link { number: 1, ..log.link(1) };
    let root = Some(root(&log.sessions[&1].0));
    let (reason, intents, outcomes) = (SessionEnd::ClientClosed, 0, 0);
    log.push(Body::SessionClose(SessionClose { link, reason, intents, outcomes, bytes_up: 0, bytes_down: 0, root }));
    let violation = whole(&log, &[]).integrity.violation.unwrap();
    assert!(violation.index == Some(2) && violation.what.contains("stands for"), "{violation:?}");
}

#[test]
#[ignore = "writes a file of fuzz/corpus/ledger"]
fn make_the_corpus() {
    let (name, seed) = ("log.example.com/1", [1; 32]);
    let key = SigningKey::new(name, &seed).unwrap().verifier();
    let mut audit = Audit::new(Scope::Whole, &key);
    let mut log = log();
    let previous = None;
    let (origin, vkey, program) = (name.into(), key.to_string(), String::new());
    let first = Entry {
        time: Time { wall_us: 0, boot_us: 0 },
        body: Body::Genesis(Genesis { origin, vkey, program, previous }),
    };
    log.leaves[0].clear();
    first.encode(&mut log.leaves[0]);
    feed(&mut audit, &log, 0, 17);
    let saved = audit.save().unwrap();
    // The fuzz target adds the checksum.
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fuzz/corpus/ledger/audit");
    std::fs::write(path, &saved[..saved.len() - 32]).unwrap();
}

proptest! {
    /// Whatever is in the file, with a right checksum or not: an audit or an error, and no panic when it goes on.
    #[test]
    fn hostile_states_are_harmless(at in 0..28usize, places in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4), cut in any::<prop::sample::Index>(), sum in any::<bool>()) {
        let log = log();
        let mut audit = Audit::new(Scope::Whole, &vkey());
        feed(&mut audit, &log, 0, at.min(log.leaves.len()));
        let mut saved = audit.save().unwrap();
        let body = saved.len() - 32;
        for (place, byte) in places {
            saved[place.index(body)] = byte;
        }
        if cut.index(4) == 0 {
            saved.truncate(cut.index(body) + 32);
        }
        if sum {
            let body = saved.len() - 32;
            let right = sha2::Sha256::digest(&saved[..body]);
            saved[body..].copy_from_slice(&right);
        }
        if let Ok(mut audit) = Audit::resume(&saved, &vkey()) {
            feed(&mut audit, &log, at, log.leaves.len());
            let _ = audit.save();
            let _ = audit.finish(None);
        }
    }
}

/// Frontiers, which states have many of, take any bytes too.
#[test]
fn a_frontier_has_as_many_hashes_as_its_size_says() {
    let mut frontier = Frontier::new();
    (0..5).for_each(|byte| frontier.append(Digest([byte; 32])));
    let bytes = frontier.to_bytes();
    assert_eq!(Frontier::from_bytes(&bytes).unwrap(), frontier);
    assert!(Frontier::from_bytes(&bytes[..bytes.len() - 1]).is_err());
}
