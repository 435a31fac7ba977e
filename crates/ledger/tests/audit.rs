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

fn human(name: &str) -> IdentityName {
    IdentityName::new(IdentityKind::Human, name).unwrap()
}

fn identity(name: IdentityName) -> Identity {
    let (method, channel) = (ProofMethod::ScramSha256, ChannelBinding::None);
    let proof = Proof { method, channel, credential: "copilot/1".into(), evidence: None };
    Identity { name, known: Known::Verified, proof, on_behalf_of: None, groups: Vec::new(), run: None }
}

fn first(session: u8) -> CommandId {
    CommandId { session: id(session), ordinal: 1 }
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
            identity: identity(agent()),
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
        self.intent_with(session, text, |_| {});
    }

    /// An intent of a command that waits for an approval: its own, or that of another command.
    fn held(&mut self, session: u8, approval: Option<CommandId>) {
        self.intent_with(session, Field::NONE, |intent| {
            let principal = OnBehalfOf { name: human("ada"), known: Known::Verified };
            intent.who.on_behalf_of = Some(principal);
            (intent.verdict, intent.approval) = (Verdict::Hold, approval);
        });
    }

    fn intent_with(&mut self, session: u8, text: Field, change: impl FnOnce(&mut Intent)) {
        let link = self.link(session);
        let count = &mut self.sessions.get_mut(&session).unwrap().1;
        *count += 1;
        let mut intent = Intent {
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
            approval: None,
            durability: Durability::Intent,
            bytes: 9,
            upstream: None,
        };
        change(&mut intent);
        self.in_session(session, Body::Intent(intent));
    }

    fn outcome(&mut self, session: u8) {
        self.ended(session, true);
    }

    fn ended(&mut self, session: u8, executed: bool) {
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
            executed,
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

    /// The leaf hash of the last entry.
    fn last(&self) -> Digest {
        leaf_hash(self.leaves.last().unwrap())
    }

    fn step(&mut self, session: u8, step: ApprovalStep) -> Digest {
        let of = CommandId { session: id(session), ordinal: 1 };
        self.push(Body::Approval(Approval { of, step }));
        self.last()
    }

    /// Asks for an approval of the session's first command by so many people, within so many entries.
    fn requested(&mut self, session: u8, intent: Digest, quorum: u64, entries: u64) -> Digest {
        self.requested_so(session, intent, quorum, entries, false)
    }

    fn requested_so(&mut self, session: u8, intent: Digest, quorum: u64, entries: u64, signed: bool) -> Digest {
        let expires_us = 1_795_340_101_000_000 + i64::try_from(self.clock + 1_000_000 * (entries + 1)).unwrap();
        self.step(
            session,
            ApprovalStep::Requested(Box::new(ApprovalRequest {
                intent,
                connection: "app".into(),
                database: Label::new(b"app"),
                role: "app".into(),
                policy: Digest([4; 32]),
                quorum,
                signed,
                expires_us,
                nonce: Digest([3; 32]),
            })),
        )
    }

    fn vote(&mut self, session: u8, request: Digest, by: IdentityName, decision: ApprovalDecision) {
        let by = identity(by);
        self.step(
            session,
            ApprovalStep::Decided(Box::new(ApprovalVote { decision, request, by, comment: None, signature: None })),
        );
    }

    fn approve(&mut self, session: u8, request: Digest, by: &str) {
        self.vote(session, request, human(by), ApprovalDecision::Approve);
    }

    fn used(&mut self, session: u8, command: CommandId) {
        self.step(session, ApprovalStep::Used { command });
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
    log.open(4, "app");
    log.held(4, None);
    let request = log.requested(4, log.last(), 2, 20);
    log.step(4, ApprovalStep::Seen { by: Box::new(identity(human("grace"))) });
    log.approve(4, request, "grace");
    log.open(5, "app");
    log.held(5, Some(first(4)));
    log.ended(4, false);
    log.approve(4, request, "linus");
    log.close(4);
    log.used(4, first(5));
    log.outcome(5);
    log.close(5);
    log.open(6, "app");
    log.held(6, None);
    let request = log.requested(6, log.last(), 1, 20);
    log.vote(6, request, human("grace"), ApprovalDecision::Deny);
    log.ended(6, false);
    log.close(6);
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

/// What is found in a log with one held command, of which the given entries decide.
fn found(decide: impl FnOnce(&mut Log, Digest)) -> Vec<String> {
    let mut log = Log::default();
    let (origin, vkey, program) = (ORIGIN.into(), vkey().to_string(), "onrecord 0.2".into());
    log.push(Body::Genesis(Genesis { origin, vkey, program, previous: None }));
    log.start();
    log.open(1, "app");
    log.held(1, None);
    let intent = log.last();
    decide(&mut log, intent);
    let report = whole(&log, &[]);
    assert_eq!(report.integrity.violation, None);
    report.completeness.gaps
}

#[test]
fn what_people_approved_runs() {
    let gaps = found(|log, intent| {
        let request = log.requested(1, intent, 2, 9);
        log.approve(1, request, "grace");
        log.approve(1, request, "linus");
        log.used(1, first(1));
        log.outcome(1);
    });
    assert_eq!(gaps, [""; 0]);
    // It was denied, and did not run.
    let gaps = found(|log, intent| {
        let request = log.requested(1, intent, 1, 9);
        log.vote(1, request, human("grace"), ApprovalDecision::Deny);
        log.ended(1, false);
    });
    assert_eq!(gaps, [""; 0]);
}

/// Each rule of approvals, broken by itself.
#[test]
fn what_nobody_may_approve_so_is_a_gap() {
    fn one(expected: &str, decide: impl FnOnce(&mut Log, Digest)) {
        let gaps = found(decide);
        assert!(gaps.len() == 1 && gaps[0].contains(expected), "{expected}: {gaps:#?}");
    }
    fn approved(log: &mut Log, intent: Digest) -> Digest {
        let request = log.requested(1, intent, 1, 9);
        log.approve(1, request, "grace");
        request
    }
    // Without, or with nobody's.
    one("entry 4: command 01040G2081040G2081040G2081.1 was executed, although entry 3 holds it", |log, _| {
        log.outcome(1);
    });
    one("although entry 3 holds it", |log, intent| {
        approved(log, intent);
        log.outcome(1);
    });
    // Of something else.
    one("entry 4: an approval was asked for, and what it names is not the intent", |log, _| {
        let request = log.requested(1, Digest([9; 32]), 1, 9);
        log.approve(1, request, "grace");
        log.used(1, first(1));
        log.outcome(1);
    });
    // Decided on something else; then it is not approved either.
    let gaps = found(|log, intent| {
        log.requested(1, intent, 1, 9);
        log.approve(1, Digest([9; 32]), "grace");
        log.used(1, first(1));
        log.outcome(1);
    });
    assert!(
        gaps.len() == 2 && gaps[0].contains("entry 5") && gaps[0].contains("not the request in entry 4"),
        "{gaps:?}"
    );
    assert!(gaps[1].contains("entry 6") && gaps[1].contains("although 0 of 1 people had approved it"), "{gaps:?}");
    // By whom it must not be.
    one("entry 6: the approval of command 01040G2081040G2081040G2081.1, asked for in entry 4", |log, intent| {
        let request = log.requested(1, intent, 2, 9);
        log.approve(1, request, "grace");
        log.used(1, first(1));
        log.outcome(1);
    });
    one("although 1 of 2 people had approved it", |log, intent| {
        let request = log.requested(1, intent, 2, 9);
        log.approve(1, request, "grace");
        log.approve(1, request, "grace");
        log.used(1, first(1));
        log.outcome(1);
    });
    one("entry 5: human:ada decided on the approval of command", |log, intent| {
        let request = log.requested(1, intent, 1, 9);
        log.approve(1, request, "ada");
    });
    for by in ["agent:copilot", "agent:other", "service:ci"] {
        one("only people may", |log, intent| {
            let request = log.requested(1, intent, 1, 9);
            log.vote(1, request, by.parse().unwrap(), ApprovalDecision::Approve);
        });
    }
    one("was not verified", |log, intent| {
        let request = log.requested(1, intent, 1, 9);
        let by = Identity { known: Known::Claimed, ..identity(human("grace")) };
        let decision = ApprovalDecision::Approve;
        log.step(
            1,
            ApprovalStep::Decided(Box::new(ApprovalVote { decision, request, by, comment: None, signature: None })),
        );
    });
    // Without the signature that is asked for; denying needs none.
    let gaps = found(|log, intent| {
        let request = log.requested_so(1, intent, 1, 9, true);
        log.approve(1, request, "grace");
        log.used(1, first(1));
        log.outcome(1);
    });
    assert!(gaps.len() == 2 && gaps[0].contains("must sign, and did not"), "{gaps:?}");
    assert!(gaps[1].contains("although 0 of 1 people had approved it"), "{gaps:?}");
    assert_eq!(
        found(|log, intent| {
            let request = log.requested_so(1, intent, 1, 9, true);
            log.vote(1, request, human("grace"), ApprovalDecision::Deny);
        }),
        [""; 0]
    );
    // Although it must not be.
    one("although human:linus had denied it", |log, intent| {
        let request = approved(log, intent);
        log.vote(1, request, human("linus"), ApprovalDecision::Deny);
        log.used(1, first(1));
        log.outcome(1);
    });
    one("although its time was over at", |log, intent| {
        let request = log.requested(1, intent, 1, 1);
        log.approve(1, request, "grace");
        log.used(1, first(1));
        log.outcome(1);
    });
    one("entry 7: command 01040G2081040G2081040G2081.1 used the approval of command", |log, intent| {
        approved(log, intent);
        log.start();
        log.used(1, first(1));
        log.outcome(1);
    });
    one("which is not open", |log, intent| {
        approved(log, intent);
        let (loss, torn_bytes) = (Loss::TornTail, 17);
        log.push(Body::Recovery(Recovery { entries: 6, loss, torn_bytes, commands_unknown: 0, sessions_lost: 0 }));
        log.used(1, first(1));
        log.outcome(1);
    });
    one("which is not open", |log, intent| {
        approved(log, intent);
        log.step(1, ApprovalStep::Ended { how: ApprovalEnd::Superseded });
        log.used(1, first(1));
        log.outcome(1);
    });
    one("entry 8: human:grace decided on the approval of command", |log, intent| {
        let request = approved(log, intent);
        log.used(1, first(1));
        log.outcome(1);
        log.approve(1, request, "grace");
    });
    // Twice, once for the same again.
    one("entry 9: command 02081040G2081040G2081040G2.1 used the approval", |log, intent| {
        approved(log, intent);
        log.used(1, first(1));
        log.open(2, "app");
        log.held(2, Some(first(1)));
        log.used(1, first(2));
        log.outcome(1);
        log.outcome(2);
    });
    // For another command.
    one("is not the same identity's command over the same connection", |log, intent| {
        approved(log, intent);
        log.open(2, "app");
        log.held(2, None);
        log.used(1, first(2));
    });
    one("is not the same identity's command over the same connection", |log, intent| {
        approved(log, intent);
        log.open(2, "app");
        log.intent_with(2, Field::NONE, |intent| intent.approval = Some(first(1)));
        log.used(1, first(2));
    });
    one("which is not held or has an outcome already", |log, intent| {
        approved(log, intent);
        log.used(1, first(2));
    });
    one("was asked for in entry 4 already", |log, intent| {
        log.requested(1, intent, 1, 9);
        log.requested(1, intent, 1, 9);
    });
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
#[ignore = "writes files of fuzz/corpus/ledger"]
fn make_the_corpus() {
    let (name, seed) = ("log.example.com/1", [1; 32]);
    let key = SigningKey::new(name, &seed).unwrap().verifier();
    let mut log = log();
    let previous = None;
    let (origin, vkey, program) = (name.into(), key.to_string(), String::new());
    let first = Entry {
        time: Time { wall_us: 0, boot_us: 0 },
        body: Body::Genesis(Genesis { origin, vkey, program, previous }),
    };
    log.leaves[0].clear();
    first.encode(&mut log.leaves[0]);
    // Where blobs are missing, and where approvals are open.
    for (name, entries) in [("audit", 17), ("audit-approvals", 33)] {
        let mut audit = Audit::new(Scope::Whole, &key);
        feed(&mut audit, &log, 0, entries);
        let saved = audit.save().unwrap();
        // The fuzz target adds the checksum.
        let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fuzz/corpus/ledger/");
        std::fs::write(format!("{dir}{name}"), &saved[..saved.len() - 32]).unwrap();
    }
}

proptest! {
    /// Whatever is in the file, with a right checksum or not: an audit or an error, and no panic when it goes on.
    #[test]
    fn hostile_states_are_harmless(at in 0..52usize, places in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4), cut in any::<prop::sample::Index>(), sum in any::<bool>()) {
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
