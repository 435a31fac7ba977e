//! A log that a test writes entry by entry, and its audit.
#![allow(dead_code, reason = "each test file takes what it needs")]

use std::sync::Arc;

use ledger::audit::{Audit, BlobState, Place, Report, Scope};
use ledger::{Checkpoint, SigningKey, VerifierKey, leaf_hash, root};
use model::seal::{SessionKey, seal};
use model::*;
use sha2::Digest as _;

pub(crate) const ORIGIN: &str = "gateway.example.com/1";

pub(crate) fn vkey() -> VerifierKey {
    SigningKey::new(ORIGIN, &[7; 32]).unwrap().verifier()
}

pub(crate) fn id(session: u8) -> SessionId {
    SessionId::from_bytes([session; 16])
}

pub(crate) fn glass(id: u8) -> BreakGlassId {
    BreakGlassId::from_bytes([id; 16])
}

pub(crate) fn agent() -> IdentityName {
    "agent:copilot".parse().unwrap()
}

pub(crate) fn human(name: &str) -> IdentityName {
    IdentityName::new(IdentityKind::Human, name).unwrap()
}

pub(crate) fn identity(name: IdentityName) -> Identity {
    let (method, channel) = (ProofMethod::ScramSha256, ChannelBinding::None);
    let proof = Proof { method, channel, credential: "copilot/1".into(), evidence: None };
    Identity { name, known: Known::Verified, proof, on_behalf_of: None, groups: Vec::new(), run: None }
}

pub(crate) fn first(session: u8) -> CommandId {
    CommandId { session: id(session), ordinal: 1 }
}

/// Writes the entries of a log.
#[derive(Default)]
pub(crate) struct Log {
    pub(crate) leaves: Vec<Vec<u8>>,
    /// Of each session: its last leaf hash, its entries' hashes, its intents and outcomes.
    pub(crate) sessions: std::collections::BTreeMap<u8, (Vec<Digest>, u32, u32)>,
    pub(crate) clock: u64,
}

impl Log {
    pub(crate) fn push(&mut self, body: Body) {
        self.clock += 1_000_000;
        let wall_us = 1_795_340_101_000_000 + i64::try_from(self.clock).unwrap();
        let entry = Entry { time: Time { wall_us, boot_us: self.clock }, body };
        let mut leaf = Vec::new();
        entry.encode(&mut leaf);
        self.leaves.push(leaf);
    }

    pub(crate) fn link(&self, session: u8) -> Link {
        let hashes = self.sessions.get(&session).map_or(&[][..], |(hashes, ..)| hashes);
        let number = u32::try_from(hashes.len()).unwrap();
        Link { session: id(session), number, previous: hashes.last().copied() }
    }

    pub(crate) fn in_session(&mut self, session: u8, body: Body) {
        self.push(body);
        let hash = leaf_hash(self.leaves.last().unwrap());
        self.sessions.entry(session).or_default().0.push(hash);
    }

    pub(crate) fn open(&mut self, session: u8, connection: &str) {
        let open = SessionOpen {
            link: self.link(session),
            identity: identity(agent()),
            connection: connection.into(),
            database: Some(Label::new(b"app")),
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

    pub(crate) fn intent(&mut self, session: u8, text: Field) {
        self.intent_with(session, text, |_| {});
    }

    /// An intent of a command that waits for an approval: its own, or that of another command.
    pub(crate) fn held(&mut self, session: u8, approval: Option<CommandId>) {
        self.intent_with(session, Field::NONE, |intent| {
            let principal = OnBehalfOf { name: human("ada"), known: Known::Verified };
            intent.who.on_behalf_of = Some(principal);
            (intent.verdict, intent.approval) = (Verdict::Hold, approval);
        });
    }

    pub(crate) fn intent_with(&mut self, session: u8, text: Field, change: impl FnOnce(&mut Intent)) {
        let link = self.link(session);
        let count = &mut self.sessions.get_mut(&session).unwrap().1;
        *count += 1;
        let mut intent = Intent {
            link,
            command: CommandId { session: id(session), ordinal: *count },
            who: Who { name: agent(), known: Known::Verified, on_behalf_of: None },
            connection: "app".into(),
            database: Some(Label::new(b"app")),
            via: Via::Simple,
            text,
            parameters: Field::NONE,
            statement: None,
            portal: None,
            transaction: Some(Transaction::Idle),
            effects: Effects::NotEstablished,
            fidelity: Fidelity::Exact,
            verdict: Verdict::Allow,
            rules: vec![],
            policy: None,
            observed: None,
            approval: None,
            break_glass: None,
            durability: Durability::Intent,
            bytes: 9,
            upstream: None,
        };
        change(&mut intent);
        self.in_session(session, Body::Intent(intent));
    }

    pub(crate) fn outcome(&mut self, session: u8) {
        self.ended(session, true);
    }

    pub(crate) fn ended(&mut self, session: u8, executed: bool) {
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
            transcript: None,
            file: None,
        };
        self.in_session(session, Body::Outcome(outcome));
    }

    pub(crate) fn close(&mut self, session: u8) {
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

    pub(crate) fn erase(&mut self, session: u8, fields: Option<Vec<u64>>) {
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

    pub(crate) fn hold(&mut self, hold: &str, action: HoldAction, session: Option<SessionId>) {
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
    pub(crate) fn last(&self) -> Digest {
        leaf_hash(self.leaves.last().unwrap())
    }

    pub(crate) fn step(&mut self, session: u8, step: ApprovalStep) -> Digest {
        let of = CommandId { session: id(session), ordinal: 1 };
        self.push(Body::Approval(Approval { of, step }));
        self.last()
    }

    /// Asks for an approval of the session's first command by so many people, within so many entries.
    pub(crate) fn requested(&mut self, session: u8, intent: Digest, quorum: u64, entries: u64) -> Digest {
        self.requested_so(session, intent, quorum, entries, false)
    }

    pub(crate) fn requested_so(
        &mut self,
        session: u8,
        intent: Digest,
        quorum: u64,
        entries: u64,
        signed: bool,
    ) -> Digest {
        let expires_us = 1_795_340_101_000_000 + i64::try_from(self.clock + 1_000_000 * (entries + 1)).unwrap();
        self.step(
            session,
            ApprovalStep::Requested(Box::new(ApprovalRequest {
                intent,
                connection: "app".into(),
                database: Some(Label::new(b"app")),
                role: "app".into(),
                policy: Digest([4; 32]),
                quorum,
                signed,
                expires_us,
                nonce: Digest([3; 32]),
            })),
        )
    }

    pub(crate) fn vote(&mut self, session: u8, request: Digest, by: IdentityName, decision: ApprovalDecision) {
        let by = identity(by);
        self.step(
            session,
            ApprovalStep::Decided(Box::new(ApprovalVote { decision, request, by, comment: None, signature: None })),
        );
    }

    pub(crate) fn approve(&mut self, session: u8, request: Digest, by: &str) {
        self.vote(session, request, human(by), ApprovalDecision::Approve);
    }

    pub(crate) fn used(&mut self, session: u8, command: CommandId) {
        self.step(session, ApprovalStep::Used { command });
    }

    pub(crate) fn glass_step(&mut self, id: u8, step: BreakGlassStep) {
        self.push(Body::BreakGlass(BreakGlass { id: glass(id), step }));
    }

    /// Opens break-glass on the connection `app` for so many seconds.
    pub(crate) fn opened(&mut self, id: u8, by: &str, seconds: u64) {
        self.opened_so(id, seconds, |opening| opening.by.name = human(by));
    }

    pub(crate) fn opened_so(&mut self, id: u8, seconds: u64, change: impl FnOnce(&mut BreakGlassOpening)) {
        // The step itself is a second later than what was before.
        let until_us = 1_795_340_101_000_000 + i64::try_from(self.clock + (seconds + 1) * 1_000_000).unwrap();
        let (connection, reason) = ("app".into(), "stuck".into());
        let mut opening = BreakGlassOpening { connection, by: identity(human("cy")), reason, until_us };
        change(&mut opening);
        self.glass_step(id, BreakGlassStep::Opened(Box::new(opening)));
    }

    pub(crate) fn closed(&mut self, id: u8, by: Option<&str>) {
        self.closed_so(id, BreakGlassEnd::Person, by);
    }

    pub(crate) fn closed_so(&mut self, id: u8, how: BreakGlassEnd, by: Option<&str>) {
        let by = by.map(|by| Box::new(identity(human(by))));
        self.glass_step(id, BreakGlassStep::Closed { how, by });
    }

    pub(crate) fn reviewed(&mut self, id: u8, by: &str) {
        let (by, finding, comment) = (identity(human(by)), BreakGlassFinding::Justified, "fine".into());
        self.glass_step(id, BreakGlassStep::Reviewed(Box::new(BreakGlassReview { by, finding, comment })));
    }

    /// A command of this human that names break-glass.
    pub(crate) fn under(&mut self, session: u8, id: u8, who: &str) {
        self.under_so(session, id, who, |_| {});
    }

    pub(crate) fn under_so(&mut self, session: u8, id: u8, who: &str, change: impl FnOnce(&mut Intent)) {
        self.intent_with(session, Field::NONE, |intent| {
            intent.who.name = human(who);
            intent.break_glass = Some(glass(id));
            change(intent);
        });
    }

    pub(crate) fn start(&mut self) {
        let (boot_id, program) = ("boot".into(), "onrecord 0.2".into());
        self.push(Body::Start(Start { boot_id, program, configuration: None, clock: ClockState::Synchronized }));
    }

    pub(crate) fn hashes(&self) -> Vec<Digest> {
        self.leaves.iter().map(|leaf| leaf_hash(leaf)).collect()
    }

    pub(crate) fn checkpoint(&self, size: usize) -> Checkpoint {
        Checkpoint { origin: ORIGIN.into(), size: size as u64, root: root(&self.hashes()[..size]) }
    }
}

pub(crate) fn blob(session: u8, number: u64) -> Field {
    let key = SessionKey::new([session; 32]);
    let head = seal(id(session), &key.field(number + 1), number + 1, b"begins");
    let sha256 = Digest(sha2::Sha256::digest([session, u8::try_from(number).unwrap()]).into());
    let (length, bytes, form, packing) = (70_000, 70_032, BlobForm::Text, None);
    let commitment = Digest([session; 32]);
    Field::Blob(BlobField { number, length, commitment, sha256, bytes, form, packing, head })
}

/// A log with something of everything that an audit remembers.
pub(crate) fn log() -> Log {
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
    log.open(7, "app");
    log.opened(1, "cy", 600);
    log.opened(2, "ada", 600);
    log.under(7, 1, "cy");
    log.outcome(7);
    log.closed(1, Some("cy"));
    log.close(7);
    log.reviewed(1, "dora");
    log.push(Body::Stop(Stop { reason: StopReason::Requested, next: None }));
    log
}

pub(crate) fn feed(audit: &mut Audit, log: &Log, from: usize, to: usize) {
    for (index, leaf) in log.leaves.iter().enumerate().take(to).skip(from) {
        let place = Place { file: Arc::from("log"), offset: index as u64 * 10, index: index as u64 };
        audit.entry(&place, leaf, leaf_hash(leaf), &mut |_, field| {
            BlobState::Missing(format!("{} is gone", field.number))
        });
    }
}

pub(crate) fn whole(log: &Log, expected: &[usize]) -> Report {
    let mut audit = Audit::new(Scope::Whole, &vkey());
    expected.iter().for_each(|size| audit.expect(log.checkpoint(*size)));
    feed(&mut audit, log, 0, log.leaves.len());
    audit.finish(None)
}
