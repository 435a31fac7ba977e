//! Verification of a log, entry by entry, from nothing but bytes and public keys.
//!
//! An [`Audit`] is fed the entries in their order and gives three verdicts. *Integrity*: the entries are those that were
//! recorded. *Completeness*: every attempt is there, with its outcome. *Coverage*: what this log can say about what went
//! through the gateway; that nothing went around it, no log can say.
//!
//! Pure, so that a data directory, a published log, an evidence bundle and a page in a browser are judged by the same
//! code. Not for: finding the bytes. Memory is that of the sessions and of the approvals that are open at one time, of
//! break-glass that was not reviewed, and of those erased sessions whose blobs are gone.

mod approvals;
mod break_glass;
mod published;
mod report;
mod session;
mod state;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use model::{
    ApprovalStep, ApprovalVote, Assertion, BlobField, Body, Digest, Entry, Erase, Hold, HoldAction, Kind, Passkey,
    PasskeyAction, SessionClose, SessionEnd, SessionId, SessionOpen, Skim, SkimmedCommand, Time, approval_challenge,
};

pub use published::read_published;
pub use report::{
    Away, AwayEnd, ClockStep, Completeness, CompletenessVerdict, Coverage, GAPS_MAX, Integrity, Report, Silence,
    Violation,
};
pub use state::StateError;

use self::approvals::{Approvals, StepAt};
use self::break_glass::{Before, Glasses};
use self::session::{At, Connections, Found, Open};
use crate::checkpoint::Checkpoint;
use crate::frontier::Frontier;
use crate::note::VerifierKey;
use crate::passkey;
use crate::tree::EMPTY_ROOT;

/// Silence longer than this, while the gateway was running, is worth a question: heartbeats come every ten seconds.
pub const SILENCE_US: u64 = 25_000_000;
/// The wall clock may drift this far from the boot clock between two entries before it counts as a step.
pub const CLOCK_STEP_US: u64 = 2_000_000;
/// Which entries an audit is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// All of a log from its first: the tree is computed.
    Whole,
    /// Some of a log, proven by other means.
    Selection,
}

/// Where an entry was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The file.
    pub file: Arc<str>,
    /// Where in the file.
    pub offset: u64,
    /// The entry's index.
    pub index: u64,
}

/// What is known of a blob that an entry names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BlobState {
    /// It is what the entry names.
    Right,
    /// It is something else.
    Wrong(String),
    /// It is not there, and should be unless it was erased.
    Missing(String),
    /// It is not at hand here.
    Unchecked,
}

/// A verification under way.
pub struct Audit {
    scope: Scope,
    vkey: VerifierKey,
    found: Found,
    frontier: Frontier,
    /// The roots at the sizes that were signed.
    signed: Vec<Checkpoint>,
    roots: BTreeMap<u64, Option<Digest>>,
    /// The next of those sizes; `u64::MAX` if there is none.
    next_root: u64,
    /// What [`Audit::save`] gave at the largest of them.
    saved: Option<Vec<u8>>,
    entries: u64,
    blobs: u64,
    blobs_unchecked: u64,
    torn_bytes: u64,
    sessions: BTreeMap<SessionId, Open>,
    connections: Connections,
    /// Blobs that are not there, until the record says that they were erased.
    missing: BTreeMap<(SessionId, u64), (At, String)>,
    holds: BTreeMap<String, Hold>,
    /// The passkeys that are enrolled, by the credential's id.
    passkeys: BTreeMap<String, Passkey>,
    /// Decisions that were signed: by keys of this log, and by others.
    signed_decisions: u64,
    signed_decisions_unchecked: u64,
    approvals: Approvals,
    glasses: Glasses,
    completeness: Completeness,
    coverage: Coverage,
    last: Option<(u64, Kind, Time)>,
}

impl Audit {
    /// Begins an audit of the log of this key.
    #[must_use]
    pub fn new(scope: Scope, vkey: &VerifierKey) -> Self {
        Self {
            scope,
            vkey: vkey.clone(),
            found: Found::default(),
            frontier: Frontier::new(),
            signed: Vec::new(),
            roots: BTreeMap::new(),
            next_root: u64::MAX,
            saved: None,
            entries: 0,
            blobs: 0,
            blobs_unchecked: 0,
            torn_bytes: 0,
            sessions: BTreeMap::new(),
            connections: Connections::default(),
            missing: BTreeMap::new(),
            holds: BTreeMap::new(),
            passkeys: BTreeMap::new(),
            signed_decisions: 0,
            signed_decisions_unchecked: 0,
            approvals: Approvals::default(),
            glasses: Glasses::default(),
            completeness: Completeness {
                verdict: CompletenessVerdict::Ok,
                gaps: Vec::new(),
                gaps_count: 0,
                commands: 0,
                outcomes: BTreeMap::new(),
                pending: 0,
                sessions: 0,
                sessions_open: 0,
                sessions_lost: 0,
                refused: 0,
                recoveries: 0,
                torn_bytes_declared: 0,
                erased_sessions: 0,
                erased_fields: 0,
                holds: BTreeSet::new(),
                silences: Vec::new(),
                break_glass_opened: 0,
                break_glass_commands: 0,
                break_glass_unreviewed: BTreeSet::new(),
                stopped: false,
            },
            coverage: Coverage::default(),
            last: None,
        }
    }

    /// Says what was signed of this log, before the entries come: the tree must have that root at that size. The first
    /// is the one that the report names.
    pub fn expect(&mut self, checkpoint: Checkpoint) {
        let root = match checkpoint.size {
            0 => Some(EMPTY_ROOT),
            size if size == self.frontier.size() => Some(self.frontier.root()),
            _ => None,
        };
        self.roots.entry(checkpoint.size).or_insert(root);
        self.signed.push(checkpoint);
        self.next_root = self.next_root();
    }

    /// Whether the tree's root at this size can still be told: entries before those that an audit was resumed behind
    /// are not seen again.
    #[must_use]
    pub fn can_expect(&self, size: u64) -> bool {
        size == 0 || size >= self.entries || self.root_at(size).is_some()
    }

    /// The largest size that was expected: beyond it, entries are only as good as their own sums.
    #[must_use]
    pub fn newest_signed(&self) -> u64 {
        self.signed.iter().map(|checkpoint| checkpoint.size).max().unwrap_or(0)
    }

    /// Goes on from an audit that was put aside, instead of this one, which has been told what is expected and no entry
    /// yet. Where that cannot be judged from there, such as for a log that was rolled back since, this one begins at the
    /// beginning, and expects what the other had seen besides.
    #[must_use]
    pub fn or_from(mut self, put_aside: Self) -> Self {
        let mut other = put_aside;
        let tellable = self.signed.iter().all(|checkpoint| other.can_expect(checkpoint.size));
        if self.found.violation.is_none() && tellable && self.newest_signed() >= other.entries {
            std::mem::take(&mut self.signed).into_iter().for_each(|checkpoint| other.expect(checkpoint));
            return other;
        }
        let origin = self.vkey.name().to_owned();
        self.expect(Checkpoint { origin, size: other.entries, root: other.frontier.root() });
        self
    }

    fn next_root(&self) -> u64 {
        let later = self.entries.saturating_add(1)..;
        self.roots.range(later).next().map_or(u64::MAX, |(size, _)| *size)
    }

    /// How many entries there were.
    #[must_use]
    pub fn entries(&self) -> u64 {
        self.entries
    }

    /// The root at a size that was expected, once that many entries have come.
    #[must_use]
    pub fn root_at(&self, size: u64) -> Option<Digest> {
        self.roots.get(&size).copied().flatten()
    }

    /// Takes the next entry. `blob` looks at a blob that it names.
    pub fn entry(
        &mut self,
        place: &Place,
        leaf: &[u8],
        hash: Digest,
        blob: &mut dyn FnMut(SessionId, &BlobField) -> BlobState,
    ) {
        self.entries += 1;
        let signed = self.scope == Scope::Whole && self.next_root == self.entries;
        if self.scope == Scope::Whole {
            self.frontier.append(hash);
        }
        match Skim::read(leaf) {
            Ok(Skim::Command(command)) => self.command(place, leaf, &command, hash, blob),
            Ok(Skim::Other(entry)) => self.other(place, &entry, hash),
            Err(error) => self.found.violate_at(&At { place: place.clone(), command: None }, error.to_string()),
        }
        if signed {
            self.roots.insert(self.entries, Some(self.frontier.root()));
            self.next_root = self.next_root();
            self.saved = self.save().or(self.saved.take());
        }
    }

    /// An intent or an outcome: nearly every entry is one.
    fn command(
        &mut self,
        place: &Place,
        leaf: &[u8],
        entry: &SkimmedCommand,
        hash: Digest,
        blob: &mut dyn FnMut(SessionId, &BlobField) -> BlobState,
    ) {
        let kind = if entry.status.is_some() { Kind::Outcome } else { Kind::Intent };
        self.passage(place.index, kind, entry.time);
        let at = At { place: place.clone(), command: Some(entry.command) };
        if place.index == 0 {
            self.begins_wrongly(&at);
        }
        match entry.status {
            None => self.completeness.commands += 1,
            Some(status) => *self.completeness.outcomes.entry(status).or_insert(0) += 1,
        }
        if entry.held {
            self.approvals.intent(place.index, leaf, hash);
        }
        if entry.break_glass.is_some() {
            self.glasses.intent(place.index, leaf, &mut self.found);
        }
        if entry.status.is_some() {
            self.approvals.outcome(place.index, entry.command, entry.executed, &mut self.found);
        }
        for named in &entry.blobs {
            self.blob(entry.link.session, named, &at, blob);
        }
        let Some(session) = self.sessions.get_mut(&entry.link.session) else {
            return self.no_session(place.index, entry.link.session);
        };
        self.connections.seen_again(session.connection, entry.time.wall_us);
        session.link(&entry.link, &at, &mut self.found);
        match entry.status {
            None => session.intent(entry, place.index, &mut self.found),
            Some(_) => session.outcome(entry, place.index, &mut self.found),
        }
        session.follow(&entry.link, hash, at);
    }

    fn other(&mut self, place: &Place, entry: &Entry, hash: Digest) {
        let kind = entry.body.kind();
        self.passage(place.index, kind, entry.time);
        let at = At { place: place.clone(), command: None };
        if (place.index == 0) != (kind == Kind::Genesis) {
            self.begins_wrongly(&at);
        }
        let completeness = &mut self.completeness;
        match &entry.body {
            Body::Genesis(genesis) => {
                if genesis.origin != self.vkey.name() {
                    self.found.violate_at(&at, format!("the log is named {}", genesis.origin));
                } else if genesis.vkey != self.vkey.to_string() {
                    // A checkpoint that the key did not sign says it better, and comes first.
                    let what = "the log was begun with another key than the one that verifies it".to_owned();
                    let (file, offset) = (place.file.to_string(), place.offset);
                    self.found.violate(u64::MAX, Violation { index: Some(0), command: None, file, offset, what });
                }
                self.coverage.previous.clone_from(&genesis.previous);
            }
            Body::SessionOpen(open) => self.open_session(open, at, entry.time.wall_us, hash),
            Body::SessionClose(close) => self.close_session(close, &at, entry.time.wall_us),
            Body::Refused(refused) => completeness.refused = completeness.refused.saturating_add(refused.count),
            Body::Recovery(recovery) => {
                completeness.recoveries += 1;
                completeness.torn_bytes_declared = completeness.torn_bytes_declared.saturating_add(recovery.torn_bytes);
                self.void();
            }
            Body::Witnesses(witnesses) => self.coverage.witnesses = Some(witnesses.clone()),
            Body::Erase(erase) => self.erase(erase, &at),
            Body::Hold(hold) => self.hold(hold),
            Body::Passkey(key) => match key.action {
                PasskeyAction::Enrolled => drop(self.passkeys.insert(key.credential.clone(), key.clone())),
                PasskeyAction::Removed => drop(self.passkeys.remove(&key.credential)),
            },
            Body::Start(_) | Body::Stop(_) => self.void(),
            Body::BreakGlass(step) => {
                let at = StepAt { index: place.index, wall_us: entry.time.wall_us, hash };
                let before = if self.coverage.previous.is_some() { Before::Possible } else { Before::Nothing };
                self.glasses.step(&at, step, before, &mut self.found);
            }
            Body::Approval(step) => {
                let step_at = StepAt { index: place.index, wall_us: entry.time.wall_us, hash };
                let sessions = &self.sessions;
                let knows = |session| sessions.contains_key(&session);
                self.approvals.step(&step_at, step, self.scope, knows, &mut self.found);
                if let ApprovalStep::Decided(vote) = &step.step
                    && let Some(signature) = &vote.signature
                {
                    self.signed_decision(vote, signature, &At { command: Some(step.of), ..at });
                }
            }
            Body::Heartbeat(_)
            | Body::Intent(_)
            | Body::Outcome(_)
            | Body::Cancel(_)
            | Body::Export(_)
            | Body::Configuration(_)
            | Body::IssuerKey(_)
            | Body::Token(_)
            | Body::Revocation(_)
            | Body::Shared(_)
            | Body::Outpost(_)
            | Body::Oversight(_) => {}
        }
    }

    /// The gateway stopped, or started again: what people had decided holds no longer.
    fn void(&mut self) {
        self.approvals.void();
        self.glasses.void();
    }

    fn begins_wrongly(&mut self, at: &At) {
        self.found.violate_at(at, "a log begins with its genesis entry, and only there".to_owned());
    }

    fn no_session(&mut self, index: u64, id: SessionId) {
        self.found.gap(format!("entry {index} belongs to session {id}, which did not begin or had ended"));
    }

    /// What the times of two entries that follow each other say.
    fn passage(&mut self, index: u64, kind: Kind, time: Time) {
        let wall = time.wall_us;
        self.coverage.recorded = Some((self.coverage.recorded.map_or(wall, |(from, _)| from), wall));
        let Some((before, last_kind, last)) = self.last.replace((index, kind, time)) else {
            return;
        };
        if before.checked_add(1) != Some(index) {
            return;
        }
        let crashed = kind == Kind::Recovery;
        let stopped = last_kind == Kind::Stop;
        if crashed || (stopped && kind == Kind::Start) {
            self.coverage.away_count += 1;
            if self.coverage.away.len() < GAPS_MAX {
                let end = if crashed { AwayEnd::Crashed } else { AwayEnd::Stopped };
                self.coverage.away.push(Away { from_us: last.wall_us, to_us: time.wall_us, end });
            }
            return;
        }
        // The boot clock is another one after a start.
        if kind == Kind::Start || stopped || last_kind == Kind::Genesis {
            return;
        }
        let apart = time.boot_us.saturating_sub(last.boot_us);
        if apart > SILENCE_US && self.completeness.silences.len() < GAPS_MAX {
            self.completeness.silences.push(Silence { from: last, to: time });
        }
        let by_us = time.wall_us.saturating_sub(last.wall_us).saturating_sub(i64::try_from(apart).unwrap_or(i64::MAX));
        if by_us.unsigned_abs() > CLOCK_STEP_US && self.coverage.clock_steps.len() < GAPS_MAX {
            self.coverage.clock_steps.push(ClockStep { index, by_us });
        }
    }

    fn open_session(&mut self, open: &SessionOpen, at: At, wall: i64, hash: Digest) {
        self.completeness.sessions += 1;
        let id = open.link.session;
        let mut session = Open::new(self.connections.seen(&open.connection, wall), at.clone());
        session.link(&open.link, &at, &mut self.found);
        session.follow(&open.link, hash, at);
        if self.sessions.insert(id, session).is_some() {
            self.found.gap(format!("session {id} began twice"));
        }
    }

    fn close_session(&mut self, close: &SessionClose, at: &At, wall: i64) {
        let (id, index) = (close.link.session, at.place.index);
        let Some(session) = self.sessions.remove(&id) else {
            return self.no_session(index, id);
        };
        self.approvals.session_ended(id);
        self.connections.seen_again(session.connection, wall);
        session.link(&close.link, at, &mut self.found);
        self.completeness.sessions_lost += u64::from(close.reason == SessionEnd::Lost);
        for ordinal in &session.open {
            self.found.gap(format!("command {id}.{ordinal} has no outcome, although its session ended"));
        }
        if (close.intents, close.outcomes) != (session.intents, session.outcomes) {
            self.found.gap(format!(
                "entry {index}: session {id} ended with {} intents and {} outcomes, and {} and {} are there",
                close.intents, close.outcomes, session.intents, session.outcomes
            ));
        }
        if close.root.is_some_and(|root| root != session.tree.root()) {
            let what = format!("the entries of session {id} are not those that its last entry stands for");
            self.found.violate_at(at, what);
        }
    }

    fn blob(
        &mut self,
        session: SessionId,
        blob: &BlobField,
        at: &At,
        look: &mut dyn FnMut(SessionId, &BlobField) -> BlobState,
    ) {
        if self.sessions.get_mut(&session).is_some_and(|open| open.has_seen(&blob.sha256)) {
            return;
        }
        match look(session, blob) {
            BlobState::Right => self.blobs += 1,
            BlobState::Wrong(what) => self.found.violate_at(at, what),
            BlobState::Missing(what) => {
                self.missing.insert((session, blob.number), (at.clone(), what));
            }
            BlobState::Unchecked => self.blobs_unchecked += 1,
        }
    }

    fn erase(&mut self, erase: &Erase, at: &At) {
        let held = |hold: &&Hold| {
            hold.session.is_none_or(|session| session == erase.session)
                && hold.connection.as_ref().is_none_or(|connection| *connection == erase.connection)
                && hold.identity.as_ref().is_none_or(|identity| *identity == erase.identity)
        };
        if let Some(hold) = self.holds.values().find(held).map(|hold| hold.hold.clone()) {
            let index = at.place.index;
            let what = format!("entry {index}: content of session {} was erased under the hold {hold}", erase.session);
            self.found.gap(what);
        }
        match &erase.fields {
            None => {
                self.completeness.erased_sessions += 1;
                let all = (erase.session, 0)..=(erase.session, u64::MAX);
                let gone: Vec<_> = self.missing.range(all).map(|(key, _)| *key).collect();
                gone.iter().for_each(|key| drop(self.missing.remove(key)));
            }
            Some(fields) => {
                self.completeness.erased_fields += u64::try_from(fields.len()).unwrap_or(0);
                fields.iter().for_each(|field| drop(self.missing.remove(&(erase.session, *field))));
            }
        }
    }

    fn hold(&mut self, hold: &Hold) {
        match hold.action {
            HoldAction::Placed => {
                self.holds.insert(hold.hold.clone(), hold.clone());
            }
            HoldAction::Released => {
                self.holds.remove(&hold.hold);
            }
        }
    }

    /// A decision that somebody signed. Whose key it was may be in entries that are not here: of a selection, or of the
    /// log that this one continues.
    fn signed_decision(&mut self, vote: &ApprovalVote, signature: &Assertion, at: &At) {
        let Some(key) = self.passkeys.get(&signature.credential) else {
            if self.scope == Scope::Selection || self.coverage.previous.is_some() {
                self.signed_decisions_unchecked += 1;
            } else {
                let what = "a decision is signed by a passkey that nobody had enrolled".to_owned();
                self.found.violate_at(at, what);
            }
            return;
        };
        if key.identity.name != vote.by.name {
            let what = format!("a decision of {} is signed by a passkey of {}", vote.by.name, key.identity.name);
            return self.found.violate_at(at, what);
        }
        let challenge = approval_challenge(vote.decision, &vote.by.name, &vote.request, vote.comment.as_deref());
        match passkey::verify(key, &challenge, signature) {
            Ok(()) => self.signed_decisions += 1,
            Err(error) => {
                let what = format!("the signature of a decision of {} does not hold: {error}", vote.by.name);
                self.found.violate_at(at, what);
            }
        }
    }

    /// Notes something that is not as it was recorded. `last` is the last entry that it may concern: later than the
    /// violation's own index if only a group of entries is known.
    ///
    /// The first violation is kept. One that names a single entry is better than one that names a group around it, one
    /// that names a command better than one that does not, and any better than one that names no entry.
    pub fn violate(&mut self, last: u64, found: Violation) {
        self.found.violate(last, found);
    }

    /// Notes that a file is not what it should be.
    pub fn violate_file(&mut self, file: &str, what: String) {
        let found = Violation { index: None, command: None, file: file.to_owned(), offset: 0, what };
        self.found.violate(u64::MAX, found);
    }

    /// Notes bytes of an unfinished group at the end.
    pub fn torn(&mut self, bytes: u64) {
        self.torn_bytes = bytes;
    }

    /// Compares the tree with what was signed. `torn` is what an unfinished end would be, if it was not unfinished.
    fn check_signed(&mut self, torn: Option<(u64, Violation)>) {
        let size = self.frontier.size();
        for checkpoint in std::mem::take(&mut self.signed) {
            match self.roots.get(&checkpoint.size).copied().flatten() {
                Some(root) if root == checkpoint.root => {}
                Some(_) => {
                    let what = format!("the first {} entries are not those that were signed", checkpoint.size);
                    self.violate_file("checkpoint", what);
                }
                // What is wrong is named already.
                None if self.found.violation.is_some() => {}
                None => match torn.clone() {
                    Some((last, violation)) => self.violate(last, violation),
                    None => {
                        let what = format!("{} entries were signed, and the log has {size}", checkpoint.size);
                        let file = "log".to_owned();
                        self.violate(size, Violation { index: Some(size), command: None, file, offset: 0, what });
                    }
                },
            }
            self.signed.push(checkpoint);
        }
    }

    /// The verdicts on a whole log. `torn` is what the unfinished end of the log would be, if it had been signed.
    #[must_use]
    pub fn finish(mut self, torn: Option<(u64, Violation)>) -> Report {
        self.check_signed(torn);
        self.completeness.stopped = matches!(self.last, Some((_, Kind::Stop, _)));
        let root = self.frontier.root();
        self.report(root)
    }

    /// The verdicts on a selection that was proven to be in the log with this root.
    #[must_use]
    pub fn finish_selection(self, root: Digest) -> Report {
        self.report(root)
    }

    fn report(mut self, root: Digest) -> Report {
        for (at, what) in std::mem::take(&mut self.missing).into_values() {
            self.found.violate_at(&at, what);
        }
        let open: Vec<_> = std::mem::take(&mut self.sessions).into_iter().collect();
        self.completeness.sessions_open = u64::try_from(open.len()).unwrap_or(u64::MAX);
        for (id, session) in open {
            self.completeness.pending += u64::try_from(session.open.len()).unwrap_or(0);
            if self.completeness.stopped {
                self.found.gap(format!("session {id} is open, although the gateway stopped"));
            }
        }
        self.completeness.holds = std::mem::take(&mut self.holds).into_keys().collect();
        self.completeness.break_glass_opened = self.glasses.opened;
        self.completeness.break_glass_commands = self.glasses.commands;
        self.completeness.break_glass_unreviewed = self.glasses.unreviewed();
        self.coverage.connections = self.connections.into_spans();
        (self.completeness.gaps, self.completeness.gaps_count) = (self.found.gaps, self.found.gaps_count);
        self.completeness.verdict = match (&self.found.violation, self.completeness.gaps_count) {
            (Some(_), _) => CompletenessVerdict::NotEstablished,
            (None, 0) => CompletenessVerdict::Ok,
            (None, _) => CompletenessVerdict::Violated,
        };
        Report {
            integrity: Integrity {
                violation: self.found.violation.map(|(_, violation)| violation),
                entries: self.entries,
                root,
                origin: self.vkey.name().to_owned(),
                vkey: self.vkey.to_string(),
                signed: self.signed.first().map(|checkpoint| checkpoint.size),
                blobs: self.blobs,
                blobs_unchecked: self.blobs_unchecked,
                torn_bytes: self.torn_bytes,
                signed_decisions: self.signed_decisions,
                signed_decisions_unchecked: self.signed_decisions_unchecked,
            },
            completeness: self.completeness,
            coverage: self.coverage,
        }
    }
}
