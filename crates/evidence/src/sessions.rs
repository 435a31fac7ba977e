//! The sessions of a bundle: each must be there from its first entry to its last, or to where the checkpoint ends.

use std::collections::{BTreeMap, BTreeSet};

use ledger::root;
use model::{Body, CommandId, Digest, Link, SessionClose, SessionEnd, SessionId};

use crate::entries::Included;
use crate::report::{Complete, Completeness, Coverage, GAPS_MAX};

/// What is found while the entries are read in order.
pub(crate) struct Sessions {
    open: BTreeMap<SessionId, Open>,
    /// The last entry of each session: its place among the entries.
    pub(crate) last: BTreeMap<SessionId, usize>,
    pub(crate) commands: BTreeSet<CommandId>,
    pub(crate) completeness: Completeness,
    pub(crate) coverage: Coverage,
    /// Entries that are not what the session says: the place among the entries, and why.
    pub(crate) wrong: Vec<(usize, String)>,
}

struct Open {
    next: u32,
    /// The place of the session's last entry among the entries.
    before: usize,
    hashes: Vec<Digest>,
    intents: u32,
    outcomes: u32,
    running: BTreeSet<u32>,
    connection: String,
}

impl Sessions {
    /// Goes through the entries of a bundle.
    pub(crate) fn new(entries: &[Included]) -> Self {
        let mut sessions = Self {
            open: BTreeMap::new(),
            last: BTreeMap::new(),
            commands: BTreeSet::new(),
            completeness: Completeness {
                verdict: Complete::Yes,
                gaps: Vec::new(),
                gaps_count: 0,
                commands: 0,
                outcomes: BTreeMap::new(),
                pending: 0,
                sessions: 0,
                sessions_open: 0,
                sessions_lost: 0,
            },
            coverage: Coverage::default(),
            wrong: Vec::new(),
        };
        for (place, included) in entries.iter().enumerate() {
            sessions.entry(entries, place, included);
        }
        sessions.end();
        sessions
    }

    fn entry(&mut self, entries: &[Included], place: usize, included: &Included) {
        let Some(link) = included.entry.body.link() else {
            return;
        };
        let wall = included.entry.time.wall_us;
        let id = link.session;
        self.coverage.recorded = Some((self.coverage.recorded.map_or(wall, |(from, _)| from), wall));
        if let Body::SessionOpen(open) = &included.entry.body {
            self.completeness.sessions += 1;
            let fresh = Open {
                next: 0,
                before: place,
                hashes: Vec::new(),
                intents: 0,
                outcomes: 0,
                running: BTreeSet::new(),
                connection: open.connection.clone(),
            };
            if self.last.contains_key(&id) || self.open.insert(id, fresh).is_some() {
                self.gap(format!("session {id} began twice"));
            }
        }
        let Some(session) = self.open.get_mut(&id) else {
            let what = format!("entry {} belongs to session {id}, which did not begin or had ended", included.index);
            self.last.insert(id, place);
            return self.gap(what);
        };
        let times = self.coverage.connections.entry(session.connection.clone()).or_insert((wall, wall));
        times.1 = wall;
        if let Some(what) = session.link(entries, link, included) {
            match what {
                Unlinked::Missing(what) => self.gap(what),
                Unlinked::Altered(place, what) => self.wrong.push((place, what)),
            }
        }
        self.last.insert(id, place);
        self.body(place, included);
    }

    fn body(&mut self, place: usize, included: &Included) {
        let index = included.index;
        match &included.entry.body {
            Body::Intent(intent) => {
                self.completeness.commands += 1;
                self.commands.insert(intent.command);
                let Some(session) = self.open.get_mut(&intent.link.session) else {
                    return;
                };
                session.intents += 1;
                session.running.insert(intent.command.ordinal);
                let expected = CommandId { session: intent.link.session, ordinal: session.intents };
                if intent.command != expected {
                    self.gap(format!("entry {index}: command {} stands where {expected} should", intent.command));
                }
            }
            Body::Outcome(outcome) => {
                *self.completeness.outcomes.entry(outcome.status).or_insert(0) += 1;
                let Some(session) = self.open.get_mut(&outcome.link.session) else {
                    return;
                };
                session.outcomes += 1;
                if outcome.of.session != outcome.link.session || !session.running.remove(&outcome.of.ordinal) {
                    let of = outcome.of;
                    self.gap(format!("entry {index}: an outcome of command {of}, which was not running"));
                }
            }
            Body::SessionClose(close) => self.close(place, index, close),
            _ => {}
        }
    }

    fn close(&mut self, place: usize, index: u64, close: &SessionClose) {
        let id = close.link.session;
        let Some(session) = self.open.remove(&id) else {
            return;
        };
        self.completeness.sessions_lost += u64::from(close.reason == SessionEnd::Lost);
        for ordinal in &session.running {
            self.gap(format!("command {id}.{ordinal} has no outcome, although its session ended"));
        }
        if (close.intents, close.outcomes) != (session.intents, session.outcomes) {
            let (intents, outcomes) = (close.intents, close.outcomes);
            self.gap(format!(
                "entry {index}: session {id} ended with {intents} intents and {outcomes} outcomes, and {} and {} are here",
                session.intents, session.outcomes
            ));
        }
        let before = session.hashes.get(..session.hashes.len().saturating_sub(1)).unwrap_or_default();
        if close.root.is_some_and(|told| told != root(before)) {
            self.wrong.push((place, format!("the entries of session {id} are not those that it ended with")));
        }
    }

    fn end(&mut self) {
        self.completeness.sessions_open = u64::try_from(self.open.len()).unwrap_or(u64::MAX);
        let running: usize = self.open.values().map(|session| session.running.len()).sum();
        self.completeness.pending = u64::try_from(running).unwrap_or(u64::MAX);
    }

    pub(crate) fn gap(&mut self, what: String) {
        self.completeness.gaps_count += 1;
        self.completeness.verdict = Complete::No;
        if self.completeness.gaps.len() < GAPS_MAX {
            self.completeness.gaps.push(what);
        }
    }
}

enum Unlinked {
    /// Entries in between are not here.
    Missing(String),
    /// The entry at this place is not the one that the next one names.
    Altered(usize, String),
}

impl Open {
    /// Holds an entry against the one before it.
    fn link(&mut self, entries: &[Included], link: &Link, included: &Included) -> Option<Unlinked> {
        let before = self.before;
        let expected = entries.get(before).filter(|_| self.next > 0).map(|before| before.hash);
        let next = self.next;
        let place = entries.partition_point(|other| other.index < included.index);
        self.next = link.number.saturating_add(1);
        self.before = place;
        self.hashes.push(included.hash);
        if link.number != next {
            let (id, number) = (link.session, link.number);
            return Some(Unlinked::Missing(format!("session {id}: its entry {number} stands where {next} should")));
        }
        if link.previous == expected {
            return None;
        }
        let what = format!("it is not the entry that entry {} names as the one before it", included.index);
        Some(Unlinked::Altered(if next > 0 { before } else { place }, what))
    }
}
