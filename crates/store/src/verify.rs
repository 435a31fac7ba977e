//! Verification of a data directory, from nothing but its files and a public key.
//!
//! Three verdicts, never one. *Integrity*: the entries are those that were recorded. *Completeness*: every attempt is
//! there, with its outcome. *Coverage*: what this log can say about what went through the gateway; that nothing went
//! around it, no log can say.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use ledger::{Checkpoint, Frontier, VerifierKey};
use model::{Body, CommandId, Digest, Entry, Field, Intent, Kind, Link, Outcome, SessionEnd, SessionId, Status, Time};

use crate::blob;
use crate::disk::{Disk, RealDisk, read_file};
use crate::error::StoreError;
use crate::head::{self, CHECKPOINT};
use crate::keys;
use crate::walk::{Damage, GroupAt, Step, Tail, Walk};

/// Silence longer than this, while the gateway was running, is worth a question: heartbeats come every ten seconds.
pub const SILENCE_US: u64 = 25_000_000;

/// At most this many violations of completeness are listed; all are counted.
pub const GAPS_MAX: usize = 100;

/// The three verdicts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Whether the entries are those that were recorded.
    pub integrity: Integrity,
    /// Whether every attempt is there, with its outcome.
    pub completeness: Completeness,
    /// What the log says about what it covers.
    pub coverage: Coverage,
}

/// Whether the entries are those that were recorded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Integrity {
    /// The first violation, by index; none if the log is intact.
    pub violation: Option<Violation>,
    /// How many entries were read.
    pub entries: u64,
    /// The root of the tree of all of them.
    pub root: Digest,
    /// The log's name.
    pub origin: String,
    /// The key that verified the checkpoint.
    pub vkey: String,
    /// How many entries the signed checkpoint covers; none if nothing has been signed yet.
    pub signed: Option<u64>,
    /// How many blobs were read and found as named.
    pub blobs: u64,
    /// Bytes of an unfinished group at the end, on which nobody relied.
    pub torn_bytes: u64,
}

/// Something that is not as it was recorded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The first entry concerned, if it can be told.
    pub index: Option<u64>,
    /// Its command, if it belongs to one.
    pub command: Option<CommandId>,
    /// The file.
    pub file: String,
    /// Where in the file.
    pub offset: u64,
    /// What is wrong.
    pub what: String,
}

/// Whether every attempt is there, with its outcome.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Completeness {
    /// The verdict.
    pub verdict: CompletenessVerdict,
    /// What is missing; at most [`GAPS_MAX`] are listed.
    pub gaps: Vec<String>,
    /// How many gaps there are in all.
    pub gaps_count: u64,
    /// Intents.
    pub commands: u64,
    /// Outcomes, by status.
    pub outcomes: BTreeMap<Status, u64>,
    /// Commands that have no outcome yet, in sessions that are open.
    pub pending: u64,
    /// Sessions that began.
    pub sessions: u64,
    /// Sessions that are open at the end of the log.
    pub sessions_open: u64,
    /// Sessions that were closed as lost.
    pub sessions_lost: u64,
    /// Connection attempts that led to no session.
    pub refused: u64,
    /// Times at which the gateway was running and nothing was recorded, not even a heartbeat.
    pub silences: Vec<Silence>,
    /// Whether the log ends with a clean stop.
    pub stopped: bool,
}

/// The verdict on completeness.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CompletenessVerdict {
    /// Nothing is missing; what is unknown is declared so.
    Ok,
    /// Something is missing.
    Violated,
    /// It cannot be told, because the entries are not intact.
    NotEstablished,
}

/// A time without entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Silence {
    /// The last entry before.
    pub from: Time,
    /// The first entry after.
    pub to: Time,
}

/// What the log says about what it covers. It can never say that nothing went around the gateway.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Coverage {
    /// Wall clock time of the first and the last entry.
    pub recorded: Option<(i64, i64)>,
    /// For each connection, the wall clock times of its first and last entry.
    pub connections: BTreeMap<String, (i64, i64)>,
}

impl Report {
    /// Whether integrity and completeness hold.
    #[must_use]
    pub fn is_ok(&self) -> bool {
        self.integrity.violation.is_none() && self.completeness.verdict == CompletenessVerdict::Ok
    }
}

/// How far verification is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Entries that were read.
    pub entries: u64,
}

/// Verifies the log in a directory with a public key; with the directory's own, if none is given: then a log that was
/// replaced as a whole, key and all, is not noticed.
///
/// # Errors
/// There is no log, or the disk refused. What is wrong with the log itself is in the report.
pub fn verify(
    dir: &Path,
    vkey: Option<&VerifierKey>,
    progress: &mut dyn FnMut(Progress),
) -> Result<Report, StoreError> {
    verify_on(Arc::new(RealDisk::new(dir)), vkey, progress)
}

/// As [`verify`], on any disk.
///
/// # Errors
/// As [`verify`].
pub fn verify_on(
    disk: Arc<dyn Disk>,
    vkey: Option<&VerifierKey>,
    progress: &mut dyn FnMut(Progress),
) -> Result<Report, StoreError> {
    let own;
    let vkey = match vkey {
        Some(vkey) => vkey,
        None => {
            own = keys::verifier_key(&*disk)?;
            &own
        }
    };
    // What was signed is read before the entries: they may still be growing.
    let mut state = State::new(vkey);
    let signed = state.signed(&*disk, vkey);
    let mut walk = Walk::new(disk.clone(), 0, Tail::Examine)?;
    let torn = loop {
        match walk.step()? {
            Step::Group(group) => state.group(&*disk, &group),
            Step::Altered(damage, group) => {
                state.damage(damage);
                state.group(&*disk, &group);
            }
            Step::Damaged(damage) => {
                state.damage(damage);
                break None;
            }
            Step::End(end) => {
                state.torn_bytes = end.torn_bytes;
                break end.torn;
            }
        }
        progress(Progress { entries: state.frontier.size() });
    };
    state.check_signed(&signed, torn);
    Ok(state.report(vkey, &signed))
}

struct State {
    /// The violation, and the last entry that it may concern.
    violation: Option<(u64, Violation)>,
    frontier: Frontier,
    /// The roots at the sizes that were signed.
    roots: BTreeMap<u64, Option<Digest>>,
    blobs: BTreeSet<Digest>,
    torn_bytes: u64,
    sessions: BTreeMap<SessionId, Open>,
    completeness: Completeness,
    coverage: Coverage,
    last: Option<(Kind, Time)>,
    origin: String,
}

/// A session that has not ended.
struct Open {
    next_number: u32,
    hash: Digest,
    place: Place,
    intents: u32,
    outcomes: u32,
    open: BTreeSet<u32>,
    connection: String,
}

#[derive(Clone)]
struct Place {
    path: Arc<str>,
    offset: u64,
    index: u64,
    command: Option<CommandId>,
}

impl State {
    fn new(vkey: &VerifierKey) -> Self {
        Self {
            violation: None,
            frontier: Frontier::new(),
            roots: BTreeMap::new(),
            blobs: BTreeSet::new(),
            torn_bytes: 0,
            sessions: BTreeMap::new(),
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
                silences: Vec::new(),
                stopped: false,
            },
            coverage: Coverage::default(),
            last: None,
            origin: vkey.name().to_owned(),
        }
    }

    /// Reads the signed statements; what cannot be verified is a violation.
    fn signed(&mut self, disk: &dyn Disk, vkey: &VerifierKey) -> Vec<Checkpoint> {
        let mut signed = Vec::new();
        match read_file(disk, CHECKPOINT, 64 * 1024).map(String::from_utf8) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Ok(Ok(text)) => match Checkpoint::open(&text, vkey) {
                Ok(checkpoint) => signed.push(checkpoint),
                Err(error) => self.violate_file(CHECKPOINT, error.to_string()),
            },
            Ok(Err(_)) => self.violate_file(CHECKPOINT, "it is not text".to_owned()),
            Err(error) => self.violate_file(CHECKPOINT, error.to_string()),
        }
        match head::read(disk) {
            Ok(Some(head)) => {
                signed.push(Checkpoint { origin: self.origin.clone(), size: head.size, root: head.root });
            }
            Ok(None) => {}
            Err(error) => self.violate_file("head", error.to_string()),
        }
        for checkpoint in &signed {
            let root = (checkpoint.size == 0).then_some(ledger::EMPTY_ROOT);
            self.roots.insert(checkpoint.size, root);
        }
        signed
    }

    /// Compares the tree with what was signed.
    fn check_signed(&mut self, signed: &[Checkpoint], torn: Option<Damage>) {
        let size = self.frontier.size();
        for checkpoint in signed {
            match self.roots.get(&checkpoint.size).copied().flatten() {
                Some(root) if root == checkpoint.root => {}
                Some(_) => self.violate_file(
                    CHECKPOINT,
                    format!("the first {} entries are not those that were signed", checkpoint.size),
                ),
                None if self.violation.is_some() => {}
                None => match torn.clone() {
                    Some(damage) => self.damage(damage),
                    None => self.violate(
                        size,
                        Violation {
                            index: Some(size),
                            command: None,
                            file: "log".to_owned(),
                            offset: 0,
                            what: format!("{} entries were signed, and the log has {size}", checkpoint.size),
                        },
                    ),
                },
            }
        }
    }

    fn group(&mut self, disk: &dyn Disk, group: &GroupAt) {
        for ((index, offset, leaf), hash) in group.entries().zip(&group.hashes) {
            self.frontier.append(*hash);
            let size = self.frontier.size();
            if let Some(root) = self.roots.get_mut(&size) {
                *root = Some(self.frontier.root());
            }
            let mut place = Place { path: group.path.clone(), offset, index, command: None };
            match Entry::decode(leaf) {
                Ok(entry) => self.entry(disk, &entry, *hash, &mut place),
                Err(error) => self.violate_at(&place, error.to_string()),
            }
        }
    }

    fn entry(&mut self, disk: &dyn Disk, entry: &Entry, hash: Digest, place: &mut Place) {
        let wall = entry.time.wall_us;
        self.coverage.recorded = Some((self.coverage.recorded.map_or(wall, |(from, _)| from), wall));
        self.silence(entry);
        self.last = Some((entry.body.kind(), entry.time));
        place.command = match &entry.body {
            Body::Intent(intent) => Some(intent.command),
            Body::Outcome(outcome) => Some(outcome.of),
            _ => None,
        };
        if (place.index == 0) != (entry.body.kind() == Kind::Genesis) {
            self.violate_at(place, "a log begins with its genesis entry, and only there".to_owned());
        }
        match &entry.body {
            Body::Genesis(genesis) if genesis.origin != self.origin => {
                self.violate_at(place, format!("the log is named {}", genesis.origin));
            }
            Body::SessionOpen(open) => self.open_session(open.link.session, &open.connection, wall),
            Body::Intent(intent) => {
                for field in [&intent.text, &intent.parameters] {
                    self.check_blob(disk, field, place);
                }
            }
            Body::Outcome(outcome) => self.check_blob(disk, &outcome.message, place),
            Body::Refused(refused) => self.completeness.refused += refused.count,
            _ => {}
        }
        let Some(link) = entry.body.link() else {
            return;
        };
        self.link(link, hash, place, wall);
        match &entry.body {
            Body::Intent(intent) => self.intent(intent, place),
            Body::Outcome(outcome) => self.outcome(outcome, place),
            Body::SessionClose(close) => {
                let lost = close.reason == SessionEnd::Lost;
                self.close_session(link.session, (close.intents, close.outcomes), lost, place);
            }
            _ => {}
        }
    }

    fn silence(&mut self, entry: &Entry) {
        let Some((kind, time)) = self.last else {
            return;
        };
        let running = !matches!(kind, Kind::Stop | Kind::Genesis);
        let fresh = matches!(entry.body.kind(), Kind::Recovery | Kind::Start);
        let apart = entry.time.boot_us.saturating_sub(time.boot_us);
        if running && !fresh && apart > SILENCE_US && self.completeness.silences.len() < GAPS_MAX {
            self.completeness.silences.push(Silence { from: time, to: entry.time });
        }
    }

    fn open_session(&mut self, id: SessionId, connection: &str, wall: i64) {
        self.completeness.sessions += 1;
        let times = self.coverage.connections.entry(connection.to_owned()).or_insert((wall, wall));
        times.1 = wall;
        let fresh = Open {
            next_number: 0,
            hash: Digest([0; 32]),
            place: Place { path: "".into(), offset: 0, index: 0, command: None },
            intents: 0,
            outcomes: 0,
            open: BTreeSet::new(),
            connection: connection.to_owned(),
        };
        if self.sessions.insert(id, fresh).is_some() {
            self.gap(format!("session {id} began twice"));
        }
    }

    /// An entry of a session names the one before by its hash.
    fn link(&mut self, link: &Link, hash: Digest, place: &Place, wall: i64) {
        let Some(session) = self.sessions.get_mut(&link.session) else {
            return self.gap(format!(
                "entry {} belongs to session {}, which did not begin or had ended",
                place.index, link.session
            ));
        };
        if let Some(times) = self.coverage.connections.get_mut(&session.connection) {
            times.1 = wall;
        }
        let expected = (session.next_number > 0).then_some(session.hash);
        let (number, before) = (session.next_number, session.place.clone());
        session.next_number = link.number.saturating_add(1);
        session.hash = hash;
        session.place = place.clone();
        if link.number != number {
            self.gap(format!("session {}: after its entry {number} comes {}", link.session, link.number));
        } else if link.previous != expected {
            let bad = if number > 0 { &before } else { place };
            self.violate_at(bad, format!("it is not the entry that entry {} names as the one before it", place.index));
        }
    }

    fn intent(&mut self, intent: &Intent, place: &Place) {
        self.completeness.commands += 1;
        let Some(session) = self.sessions.get_mut(&intent.link.session) else {
            return;
        };
        session.intents += 1;
        session.open.insert(intent.command.ordinal);
        if intent.command.session != intent.link.session || intent.command.ordinal != session.intents {
            let expected = session.intents;
            self.gap(format!(
                "entry {}: command {} is not number {expected} of its session",
                place.index, intent.command
            ));
        }
    }

    fn outcome(&mut self, outcome: &Outcome, place: &Place) {
        *self.completeness.outcomes.entry(outcome.status).or_insert(0) += 1;
        let Some(session) = self.sessions.get_mut(&outcome.link.session) else {
            return;
        };
        session.outcomes += 1;
        if outcome.of.session != outcome.link.session || !session.open.remove(&outcome.of.ordinal) {
            self.gap(format!("entry {}: an outcome of command {}, which has no open intent", place.index, outcome.of));
        }
    }

    fn close_session(&mut self, id: SessionId, counts: (u32, u32), lost: bool, place: &Place) {
        let Some(session) = self.sessions.remove(&id) else {
            return;
        };
        self.completeness.sessions_lost += u64::from(lost);
        for ordinal in &session.open {
            self.gap(format!("command {id}.{ordinal} has no outcome, although its session ended"));
        }
        if counts != (session.intents, session.outcomes) {
            let (intents, outcomes) = counts;
            self.gap(format!(
                "entry {}: session {id} ended with {intents} intents and {outcomes} outcomes, and {} and {} are there",
                place.index, session.intents, session.outcomes
            ));
        }
    }

    fn check_blob(&mut self, disk: &dyn Disk, field: &Field, place: &Place) {
        if let Field::Blob(blob) = field
            && !self.blobs.contains(&blob.sha256)
        {
            match blob::check(disk, blob) {
                Ok(()) => {
                    self.blobs.insert(blob.sha256);
                }
                Err(what) => self.violate_at(place, what),
            }
        }
    }

    fn damage(&mut self, damage: Damage) {
        let found = Violation {
            index: Some(damage.index),
            command: damage.command,
            file: damage.path.to_string(),
            offset: damage.offset,
            what: damage.what,
        };
        self.violate(damage.last, found);
    }

    fn violate_at(&mut self, place: &Place, what: String) {
        let found = Violation {
            index: Some(place.index),
            command: place.command,
            file: place.path.to_string(),
            offset: place.offset,
            what,
        };
        self.violate(place.index, found);
    }

    fn violate_file(&mut self, file: &str, what: String) {
        let found = Violation { index: None, command: None, file: file.to_owned(), offset: 0, what };
        self.violate(u64::MAX, found);
    }

    /// Keeps the first violation. One that names a single entry is better than one that names a group around it, one
    /// that names a command better than one that does not, and any better than one that names no entry.
    fn violate(&mut self, last: u64, found: Violation) {
        let rank = |last: u64, v: &Violation| (last, v.command.is_none());
        let first = |(known_last, known): &(u64, Violation)| rank(last, &found) < rank(*known_last, known);
        if self.violation.as_ref().is_none_or(first) {
            self.violation = Some((last, found));
        }
    }

    fn gap(&mut self, what: String) {
        self.completeness.gaps_count += 1;
        if self.completeness.gaps.len() < GAPS_MAX {
            self.completeness.gaps.push(what);
        }
    }

    fn report(mut self, vkey: &VerifierKey, signed: &[Checkpoint]) -> Report {
        self.completeness.stopped = matches!(self.last, Some((Kind::Stop, _)));
        let open: Vec<_> = std::mem::take(&mut self.sessions).into_iter().collect();
        self.completeness.sessions_open = u64::try_from(open.len()).unwrap_or(u64::MAX);
        for (id, session) in open {
            self.completeness.pending += u64::try_from(session.open.len()).unwrap_or(0);
            if self.completeness.stopped {
                self.gap(format!("session {id} is open, although the gateway stopped"));
            }
        }
        self.completeness.verdict = match (&self.violation, self.completeness.gaps_count) {
            (Some(_), _) => CompletenessVerdict::NotEstablished,
            (None, 0) => CompletenessVerdict::Ok,
            (None, _) => CompletenessVerdict::Violated,
        };
        Report {
            integrity: Integrity {
                violation: self.violation.map(|(_, violation)| violation),
                entries: self.frontier.size(),
                root: self.frontier.root(),
                origin: self.origin,
                vkey: vkey.to_string(),
                signed: signed.first().map(|checkpoint| checkpoint.size),
                blobs: u64::try_from(self.blobs.len()).unwrap_or(0),
                torn_bytes: self.torn_bytes,
            },
            completeness: self.completeness,
            coverage: self.coverage,
        }
    }
}
