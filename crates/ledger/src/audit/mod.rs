//! Verification of a log, entry by entry, from nothing but bytes and public keys.
//!
//! An [`Audit`] is fed the entries in their order and gives three verdicts. *Integrity*: the entries are those that were
//! recorded. *Completeness*: every attempt is there, with its outcome. *Coverage*: what this log can say about what went
//! through the gateway; that nothing went around it, no log can say.
//!
//! Pure, so that a data directory, a published log, an evidence bundle and a page in a browser are judged by the same
//! code. Not for: finding the bytes. Memory is that of the sessions that are open at one time, and of those erased
//! sessions whose blobs are gone.

mod published;
mod report;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use model::{
    BlobField, Body, CommandId, Digest, Entry, Erase, Field, Hold, HoldAction, Intent, Kind, Link, Outcome,
    SessionClose, SessionEnd, SessionId, SessionOpen, Time,
};

pub use published::read_published;
pub use report::{
    Away, AwayEnd, ClockStep, Completeness, CompletenessVerdict, Coverage, GAPS_MAX, Integrity, Report, Silence,
    Violation,
};

use crate::checkpoint::Checkpoint;
use crate::frontier::Frontier;
use crate::note::VerifierKey;
use crate::tree::EMPTY_ROOT;

/// Silence longer than this, while the gateway was running, is worth a question: heartbeats come every ten seconds.
pub const SILENCE_US: u64 = 25_000_000;
/// The wall clock may drift this far from the boot clock between two entries before it counts as a step.
pub const CLOCK_STEP_US: u64 = 2_000_000;
/// Of one session, at most this many blobs are remembered, so that each is looked at once.
const BLOBS_REMEMBERED_MAX: usize = 1024;

/// Which entries an audit is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// All of a log from its first: the tree is computed.
    Whole,
    /// Some of a log, proven by other means.
    Selection,
}

/// Where an entry was found.
#[derive(Clone, Debug)]
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
    /// The violation, and the last entry that it may concern.
    violation: Option<(u64, Violation)>,
    frontier: Frontier,
    /// The roots at the sizes that were signed.
    signed: Vec<Checkpoint>,
    roots: BTreeMap<u64, Option<Digest>>,
    entries: u64,
    blobs: u64,
    blobs_unchecked: u64,
    torn_bytes: u64,
    sessions: BTreeMap<SessionId, Open>,
    /// Blobs that are not there, until the record says that they were erased.
    missing: BTreeMap<(SessionId, u64), (At, String)>,
    holds: BTreeMap<String, Hold>,
    completeness: Completeness,
    coverage: Coverage,
    last: Option<(u64, Kind, Time)>,
}

/// A session that has not ended.
struct Open {
    next_number: u32,
    hash: Digest,
    at: At,
    tree: Frontier,
    intents: u32,
    outcomes: u32,
    open: BTreeSet<u32>,
    connection: String,
    blobs: BTreeSet<Digest>,
}

/// A place, and the command of its entry.
#[derive(Clone)]
struct At {
    place: Place,
    command: Option<CommandId>,
}

impl Audit {
    /// Begins an audit of the log of this key.
    #[must_use]
    pub fn new(scope: Scope, vkey: &VerifierKey) -> Self {
        Self {
            scope,
            vkey: vkey.clone(),
            violation: None,
            frontier: Frontier::new(),
            signed: Vec::new(),
            roots: BTreeMap::new(),
            entries: 0,
            blobs: 0,
            blobs_unchecked: 0,
            torn_bytes: 0,
            sessions: BTreeMap::new(),
            missing: BTreeMap::new(),
            holds: BTreeMap::new(),
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
                stopped: false,
            },
            coverage: Coverage::default(),
            last: None,
        }
    }

    /// Says what was signed of this log, before the entries come: the tree must have that root at that size. The first
    /// is the one that the report names.
    pub fn expect(&mut self, checkpoint: Checkpoint) {
        let root = (checkpoint.size == 0).then_some(EMPTY_ROOT);
        self.roots.insert(checkpoint.size, root);
        self.signed.push(checkpoint);
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
        if self.scope == Scope::Whole {
            self.frontier.append(hash);
            let size = self.frontier.size();
            if let Some(root) = self.roots.get_mut(&size) {
                *root = Some(self.frontier.root());
            }
        }
        match Entry::decode(leaf) {
            Ok(entry) => self.decoded(place, &entry, hash, blob),
            Err(error) => self.violate_at(&At { place: place.clone(), command: None }, error.to_string()),
        }
    }

    fn decoded(
        &mut self,
        place: &Place,
        entry: &Entry,
        hash: Digest,
        blob: &mut dyn FnMut(SessionId, &BlobField) -> BlobState,
    ) {
        let wall = entry.time.wall_us;
        self.coverage.recorded = Some((self.coverage.recorded.map_or(wall, |(from, _)| from), wall));
        self.passage(place.index, entry);
        let command = match &entry.body {
            Body::Intent(intent) => Some(intent.command),
            Body::Outcome(outcome) => Some(outcome.of),
            _ => None,
        };
        let at = At { place: place.clone(), command };
        if (place.index == 0) != (entry.body.kind() == Kind::Genesis) {
            self.violate_at(&at, "a log begins with its genesis entry, and only there".to_owned());
        }
        match &entry.body {
            Body::Genesis(genesis) => {
                if genesis.origin != self.vkey.name() {
                    self.violate_at(&at, format!("the log is named {}", genesis.origin));
                }
                self.coverage.previous.clone_from(&genesis.previous);
            }
            Body::SessionOpen(open) => self.open_session(open, &at, wall),
            Body::Refused(refused) => self.completeness.refused += refused.count,
            Body::Recovery(recovery) => {
                self.completeness.recoveries += 1;
                self.completeness.torn_bytes_declared += recovery.torn_bytes;
            }
            Body::Witnesses(witnesses) => self.coverage.witnesses = Some(witnesses.clone()),
            Body::Erase(erase) => self.erase(erase, &at),
            Body::Hold(hold) => self.hold(hold),
            Body::Start(_)
            | Body::Stop(_)
            | Body::Heartbeat(_)
            | Body::SessionClose(_)
            | Body::Intent(_)
            | Body::Outcome(_)
            | Body::Cancel(_)
            | Body::Export(_) => {}
        }
        let Some(link) = entry.body.link() else {
            return;
        };
        self.link(link, &at, wall);
        match &entry.body {
            Body::Intent(intent) => {
                self.intent(intent, &at);
                self.blob(link.session, &intent.text, &at, blob);
                self.blob(link.session, &intent.parameters, &at, blob);
            }
            Body::Outcome(outcome) => {
                self.outcome(outcome, &at);
                self.blob(link.session, &outcome.message, &at, blob);
            }
            Body::SessionClose(close) => self.close_session(close, &at),
            _ => {}
        }
        self.follow(link, hash, at);
    }

    /// What the times of two entries that follow each other say.
    fn passage(&mut self, index: u64, entry: &Entry) {
        let (kind, time) = (entry.body.kind(), entry.time);
        let Some((before, last_kind, last)) = self.last.replace((index, kind, time)) else {
            return;
        };
        if before + 1 != index {
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
        let by_us = (time.wall_us - last.wall_us).saturating_sub(i64::try_from(apart).unwrap_or(i64::MAX));
        if by_us.unsigned_abs() > CLOCK_STEP_US && self.coverage.clock_steps.len() < GAPS_MAX {
            self.coverage.clock_steps.push(ClockStep { index, by_us });
        }
    }

    fn open_session(&mut self, open: &SessionOpen, at: &At, wall: i64) {
        self.completeness.sessions += 1;
        let connection = open.connection.clone();
        self.coverage.connections.entry(connection.clone()).or_insert((wall, wall)).1 = wall;
        let fresh = Open {
            next_number: 0,
            hash: Digest([0; 32]),
            at: at.clone(),
            tree: Frontier::new(),
            intents: 0,
            outcomes: 0,
            open: BTreeSet::new(),
            connection,
            blobs: BTreeSet::new(),
        };
        let id = open.link.session;
        if self.sessions.insert(id, fresh).is_some() {
            self.gap(format!("session {id} began twice"));
        }
    }

    /// An entry of a session names the one before by its hash.
    fn link(&mut self, link: &Link, at: &At, wall: i64) {
        let index = at.place.index;
        let Some(session) = self.sessions.get(&link.session) else {
            let id = link.session;
            return self.gap(format!("entry {index} belongs to session {id}, which did not begin or had ended"));
        };
        if let Some(times) = self.coverage.connections.get_mut(&session.connection) {
            times.1 = wall;
        }
        let number = session.next_number;
        let expected = (number > 0).then_some(session.hash);
        if link.number != number {
            self.gap(format!("session {}: after its entry {number} comes {}", link.session, link.number));
        } else if link.previous != expected {
            let bad = if number > 0 { session.at.clone() } else { at.clone() };
            self.violate_at(&bad, format!("it is not the entry that entry {index} names as the one before it"));
        }
    }

    fn follow(&mut self, link: &Link, hash: Digest, at: At) {
        if let Some(session) = self.sessions.get_mut(&link.session) {
            session.next_number = link.number.saturating_add(1);
            session.hash = hash;
            session.tree.append(hash);
            session.at = at;
        }
    }

    fn intent(&mut self, intent: &Intent, at: &At) {
        self.completeness.commands += 1;
        let Some(session) = self.sessions.get_mut(&intent.link.session) else {
            return;
        };
        session.intents += 1;
        session.open.insert(intent.command.ordinal);
        if intent.command.session != intent.link.session || intent.command.ordinal != session.intents {
            let (index, expected) = (at.place.index, session.intents);
            self.gap(format!("entry {index}: command {} is not number {expected} of its session", intent.command));
        }
    }

    fn outcome(&mut self, outcome: &Outcome, at: &At) {
        *self.completeness.outcomes.entry(outcome.status).or_insert(0) += 1;
        let Some(session) = self.sessions.get_mut(&outcome.link.session) else {
            return;
        };
        session.outcomes += 1;
        if outcome.of.session != outcome.link.session || !session.open.remove(&outcome.of.ordinal) {
            let index = at.place.index;
            self.gap(format!("entry {index}: an outcome of command {}, which has no open intent", outcome.of));
        }
    }

    fn close_session(&mut self, close: &SessionClose, at: &At) {
        let (id, index) = (close.link.session, at.place.index);
        let Some(session) = self.sessions.remove(&id) else {
            return;
        };
        self.completeness.sessions_lost += u64::from(close.reason == SessionEnd::Lost);
        for ordinal in &session.open {
            self.gap(format!("command {id}.{ordinal} has no outcome, although its session ended"));
        }
        if (close.intents, close.outcomes) != (session.intents, session.outcomes) {
            self.gap(format!(
                "entry {index}: session {id} ended with {} intents and {} outcomes, and {} and {} are there",
                close.intents, close.outcomes, session.intents, session.outcomes
            ));
        }
        if close.root.is_some_and(|root| root != session.tree.root()) {
            self.violate_at(at, format!("the entries of session {id} are not those that its last entry stands for"));
        }
    }

    fn blob(
        &mut self,
        session: SessionId,
        field: &Field,
        at: &At,
        look: &mut dyn FnMut(SessionId, &BlobField) -> BlobState,
    ) {
        let Field::Blob(blob) = field else {
            return;
        };
        if let Some(open) = self.sessions.get_mut(&session) {
            if open.blobs.contains(&blob.sha256) {
                return;
            }
            if open.blobs.len() < BLOBS_REMEMBERED_MAX {
                open.blobs.insert(blob.sha256);
            }
        }
        match look(session, blob) {
            BlobState::Right => self.blobs += 1,
            BlobState::Wrong(what) => self.violate_at(at, what),
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
            self.gap(format!("entry {index}: content of session {} was erased under the hold {hold}", erase.session));
        }
        match &erase.fields {
            None => {
                self.completeness.erased_sessions += 1;
                self.missing.retain(|(session, _), _| *session != erase.session);
            }
            Some(fields) => {
                self.completeness.erased_fields += u64::try_from(fields.len()).unwrap_or(0);
                self.missing.retain(|(session, field), _| *session != erase.session || !fields.contains(field));
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

    /// Notes something that is not as it was recorded. `last` is the last entry that it may concern: later than the
    /// violation's own index if only a group of entries is known.
    ///
    /// The first violation is kept. One that names a single entry is better than one that names a group around it, one
    /// that names a command better than one that does not, and any better than one that names no entry.
    pub fn violate(&mut self, last: u64, found: Violation) {
        let rank = |last: u64, v: &Violation| (last, v.command.is_none());
        let first = |(known_last, known): &(u64, Violation)| rank(last, &found) < rank(*known_last, known);
        if self.violation.as_ref().is_none_or(first) {
            self.violation = Some((last, found));
        }
    }

    /// Notes that a file is not what it should be.
    pub fn violate_file(&mut self, file: &str, what: String) {
        let found = Violation { index: None, command: None, file: file.to_owned(), offset: 0, what };
        self.violate(u64::MAX, found);
    }

    /// Notes bytes of an unfinished group at the end.
    pub fn torn(&mut self, bytes: u64) {
        self.torn_bytes = bytes;
    }

    fn violate_at(&mut self, at: &At, what: String) {
        let found = Violation {
            index: Some(at.place.index),
            command: at.command,
            file: at.place.file.to_string(),
            offset: at.place.offset,
            what,
        };
        self.violate(at.place.index, found);
    }

    fn gap(&mut self, what: String) {
        self.completeness.gaps_count += 1;
        if self.completeness.gaps.len() < GAPS_MAX {
            self.completeness.gaps.push(what);
        }
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
                None if self.violation.is_some() => {}
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
            self.violate_at(&at, what);
        }
        let open: Vec<_> = std::mem::take(&mut self.sessions).into_iter().collect();
        self.completeness.sessions_open = u64::try_from(open.len()).unwrap_or(u64::MAX);
        for (id, session) in open {
            self.completeness.pending += u64::try_from(session.open.len()).unwrap_or(0);
            if self.completeness.stopped {
                self.gap(format!("session {id} is open, although the gateway stopped"));
            }
        }
        self.completeness.holds = std::mem::take(&mut self.holds).into_keys().collect();
        self.completeness.verdict = match (&self.violation, self.completeness.gaps_count) {
            (Some(_), _) => CompletenessVerdict::NotEstablished,
            (None, 0) => CompletenessVerdict::Ok,
            (None, _) => CompletenessVerdict::Violated,
        };
        Report {
            integrity: Integrity {
                violation: self.violation.map(|(_, violation)| violation),
                entries: self.entries,
                root,
                origin: self.vkey.name().to_owned(),
                vkey: self.vkey.to_string(),
                signed: self.signed.first().map(|checkpoint| checkpoint.size),
                blobs: self.blobs,
                blobs_unchecked: self.blobs_unchecked,
                torn_bytes: self.torn_bytes,
            },
            completeness: self.completeness,
            coverage: self.coverage,
        }
    }
}
