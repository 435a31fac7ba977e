//! One session under audit, and what an audit has found so far.

use std::collections::{BTreeMap, BTreeSet};

use model::{CommandId, Digest, Link, SkimmedCommand};

use super::Place;
use super::report::{GAPS_MAX, Violation};
use crate::frontier::Frontier;

/// Of one session, at most this many blobs are remembered, so that each is looked at once.
const BLOBS_REMEMBERED_MAX: usize = 1024;

/// A place, and the command of its entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct At {
    pub(super) place: Place,
    pub(super) command: Option<CommandId>,
}

/// What is wrong.
#[derive(Default)]
pub(super) struct Found {
    /// The violation, and the last entry that it may concern.
    pub(super) violation: Option<(u64, Violation)>,
    pub(super) gaps: Vec<String>,
    pub(super) gaps_count: u64,
}

impl Found {
    /// See [`super::Audit::violate`].
    pub(super) fn violate(&mut self, last: u64, found: Violation) {
        let rank = |last: u64, v: &Violation| (last, v.command.is_none());
        let first = |(known_last, known): &(u64, Violation)| rank(last, &found) < rank(*known_last, known);
        if self.violation.as_ref().is_none_or(first) {
            self.violation = Some((last, found));
        }
    }

    pub(super) fn violate_at(&mut self, at: &At, what: String) {
        let found = Violation {
            index: Some(at.place.index),
            command: at.command,
            file: at.place.file.to_string(),
            offset: at.place.offset,
            what,
        };
        self.violate(at.place.index, found);
    }

    pub(super) fn gap(&mut self, what: String) {
        self.gaps_count += 1;
        if self.gaps.len() < GAPS_MAX {
            self.gaps.push(what);
        }
    }
}

/// A session that has not ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Open {
    pub(super) next_number: u32,
    /// The leaf hash of its last entry.
    pub(super) hash: Digest,
    /// Its last entry.
    pub(super) at: At,
    /// Of its entries.
    pub(super) tree: Frontier,
    pub(super) intents: u32,
    pub(super) outcomes: u32,
    /// The commands without an outcome.
    pub(super) open: BTreeSet<u32>,
    /// By place in [`Connections`].
    pub(super) connection: usize,
    pub(super) blobs: BTreeSet<Digest>,
}

impl Open {
    pub(super) fn new(connection: usize, at: At) -> Self {
        Self {
            next_number: 0,
            hash: Digest([0; 32]),
            at,
            tree: Frontier::new(),
            intents: 0,
            outcomes: 0,
            open: BTreeSet::new(),
            connection,
            blobs: BTreeSet::new(),
        }
    }

    /// An entry of a session names the one before by its hash.
    pub(super) fn link(&self, link: &Link, at: &At, found: &mut Found) {
        let number = self.next_number;
        let expected = (number > 0).then_some(self.hash);
        if link.number != number {
            found.gap(format!("session {}: after its entry {number} comes {}", link.session, link.number));
        } else if link.previous != expected {
            let bad = if number > 0 { &self.at } else { at };
            let index = at.place.index;
            found.violate_at(bad, format!("it is not the entry that entry {index} names as the one before it"));
        }
    }

    pub(super) fn follow(&mut self, link: &Link, hash: Digest, at: At) {
        self.next_number = link.number.saturating_add(1);
        self.hash = hash;
        self.tree.append(hash);
        self.at = at;
    }

    pub(super) fn intent(&mut self, intent: &SkimmedCommand, index: u64, found: &mut Found) {
        let (command, session) = (intent.command, intent.link.session);
        self.intents = self.intents.saturating_add(1);
        self.open.insert(command.ordinal);
        if command.session != session || command.ordinal != self.intents {
            let expected = self.intents;
            found.gap(format!("entry {index}: command {command} is not number {expected} of its session"));
        }
    }

    pub(super) fn outcome(&mut self, outcome: &SkimmedCommand, index: u64, found: &mut Found) {
        let (command, session) = (outcome.command, outcome.link.session);
        self.outcomes = self.outcomes.saturating_add(1);
        if command.session != session || !self.open.remove(&command.ordinal) {
            found.gap(format!("entry {index}: an outcome of command {command}, which has no open intent"));
        }
    }

    /// Whether this blob was looked at, as far as that is remembered; it is from now on.
    pub(super) fn has_seen(&mut self, blob: &Digest) -> bool {
        if self.blobs.contains(blob) {
            return true;
        }
        if self.blobs.len() < BLOBS_REMEMBERED_MAX {
            self.blobs.insert(*blob);
        }
        false
    }
}

/// When each connection was used: wall clock times of its first and its last entry.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Connections {
    places: BTreeMap<String, usize>,
    spans: Vec<(i64, i64)>,
}

impl Connections {
    /// A session began on it. Gives its place.
    pub(super) fn seen(&mut self, name: &str, wall_us: i64) -> usize {
        match self.places.get(name) {
            Some(place) => {
                let place = *place;
                self.seen_again(place, wall_us);
                place
            }
            None => {
                self.add(name.to_owned(), (wall_us, wall_us));
                self.spans.len() - 1
            }
        }
    }

    pub(super) fn seen_again(&mut self, place: usize, wall_us: i64) {
        if let Some(span) = self.spans.get_mut(place) {
            span.1 = wall_us;
        }
    }

    pub(super) fn add(&mut self, name: String, span: (i64, i64)) {
        self.places.insert(name, self.spans.len());
        self.spans.push(span);
    }

    pub(super) fn len(&self) -> usize {
        self.spans.len()
    }

    /// In the order of their places.
    pub(super) fn in_order(&self) -> Vec<(&str, (i64, i64))> {
        let mut all: Vec<_> = self.places.iter().map(|(name, place)| (*place, name.as_str())).collect();
        all.sort_unstable();
        all.into_iter().zip(&self.spans).map(|((_, name), span)| (name, *span)).collect()
    }

    pub(super) fn into_spans(self) -> BTreeMap<String, (i64, i64)> {
        let Self { places, spans } = self;
        places.into_iter().filter_map(|(name, place)| Some((name, *spans.get(place)?))).collect()
    }
}
