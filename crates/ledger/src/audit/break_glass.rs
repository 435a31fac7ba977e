//! Break-glass under audit: that every command under it was its opener's own, there and in its time, and that another
//! person reviewed it, once, when it was over.
//!
//! Memory is that of those that were not reviewed yet, and the ids of those that were: each is reviewed once.

use std::collections::{BTreeMap, BTreeSet};

use model::{
    BREAK_GLASS_SECONDS_MAX, Body, BreakGlass, BreakGlassEnd, BreakGlassId, BreakGlassOpening, BreakGlassStep, Entry,
    Identity, IdentityKind, IdentityName, Known, Verdict, Via, wall_text,
};

use super::approvals::StepAt;
use super::session::Found;

/// What an audit remembers of break-glass.
#[derive(Default)]
pub(super) struct Glasses {
    /// Those that were not reviewed yet.
    pub(super) known: BTreeMap<BreakGlassId, Glass>,
    /// Those that were opened before this log began, were closed in it, and were not reviewed yet.
    pub(super) closed_before: BTreeSet<BreakGlassId>,
    /// Those that were reviewed.
    pub(super) reviewed: BTreeSet<BreakGlassId>,
    /// How many were opened.
    pub(super) opened: u64,
    /// How many commands ran under one, or were refused meanwhile.
    pub(super) commands: u64,
}

/// One that was not reviewed yet.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Glass {
    /// The index of its `opened` step.
    pub(super) index: u64,
    pub(super) opener: IdentityName,
    pub(super) connection: String,
    /// Microseconds since 1970.
    pub(super) until_us: i64,
    /// How many commands name it.
    pub(super) commands: u64,
    pub(super) state: State,
}

/// Whether something can have been opened before the log began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Before {
    /// It cannot.
    Nothing,
    /// It can, in the log that this one continues.
    Possible,
}

/// Whether more may come under it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// It may.
    Open,
    /// The gateway stopped or started again: no more, and the step that says so follows.
    Over,
    /// No more, and it can be reviewed.
    Closed,
}

impl Glasses {
    /// Takes the intent of a command that names break-glass.
    pub(super) fn intent(&mut self, index: u64, leaf: &[u8], found: &mut Found) {
        let Ok(Entry { time, body: Body::Intent(intent) }) = Entry::decode(leaf) else { return };
        let Some(id) = intent.break_glass else { return };
        self.commands += 1;
        let command = intent.command;
        let mut gap =
            |why: String| found.gap(format!("entry {index}: command {command} names break-glass {id}, {why}"));
        let Some(glass) = self.known.get_mut(&id) else {
            return gap("which was not opened before, or was reviewed and so is over".to_owned());
        };
        glass.commands += 1;
        let (opener, opened) = (&glass.opener, glass.index);
        let own = intent.who.name == *opener
            && intent.who.on_behalf_of.is_none()
            && intent.who.known == Known::Verified
            && intent.connection == glass.connection;
        if !own {
            gap(format!("which {opener} opened for their own commands on {} (entry {opened})", glass.connection));
        } else if glass.state != State::Open {
            gap(format!("which was over (opened in entry {opened})"));
        } else if time.wall_us > glass.until_us {
            gap(format!("whose time was over at {} (opened in entry {opened})", wall_text(glass.until_us)));
        } else if intent.verdict == Verdict::Allow
            && intent.observed == Some(Verdict::Deny)
            // A line of a shell is seen when it runs: nothing let it through.
            && intent.via != Via::Line
        {
            gap(format!("which lifts holds, and its policy denied it (opened in entry {opened})"));
        }
    }

    /// The gateway stopped, or started again: what was open is over.
    pub(super) fn void(&mut self) {
        let open = self.known.values_mut().filter(|glass| glass.state == State::Open);
        open.for_each(|glass| glass.state = State::Over);
    }

    /// Takes a step. `before` says of what was opened before this log began.
    pub(super) fn step(&mut self, at: &StepAt, glass: &BreakGlass, before: Before, found: &mut Found) {
        let (index, id) = (at.index, glass.id);
        match &glass.step {
            BreakGlassStep::Opened(opening) => self.open(at, id, opening, found),
            BreakGlassStep::Closed { how, by } => {
                if *how == BreakGlassEnd::Person && by.as_ref().is_none_or(|by| no_person(by).is_some()) {
                    found.gap(format!(
                        "entry {index}: break-glass {id} was closed by somebody, and not by a proven person"
                    ));
                }
                let closed = match self.known.get_mut(&id) {
                    Some(glass) => std::mem::replace(&mut glass.state, State::Closed) != State::Closed,
                    None => before == Before::Possible && !self.reviewed.contains(&id) && self.closed_before.insert(id),
                };
                if !closed {
                    found.gap(format!("entry {index}: break-glass {id} was closed, and was not open"));
                }
            }
            BreakGlassStep::Reviewed(review) => {
                let by = &review.by.name;
                let mut gap = |why: &str| found.gap(format!("entry {index}: {by} reviewed break-glass {id}: {why}"));
                if let Some(why) = no_person(&review.by) {
                    gap(why);
                }
                self.closed_before.remove(&id);
                let first = self.reviewed.insert(id);
                match self.known.remove(&id) {
                    None if before == Before::Possible && first => {}
                    None => gap("it was not opened, or was reviewed already"),
                    Some(glass) => {
                        if glass.state != State::Closed {
                            gap("it was not closed");
                        }
                        if glass.opener == *by {
                            gap("whoever opened it may not");
                        }
                    }
                }
            }
        }
    }

    fn open(&mut self, at: &StepAt, id: BreakGlassId, opening: &BreakGlassOpening, found: &mut Found) {
        let index = at.index;
        self.opened += 1;
        let mut gap = |why: &str| {
            found.gap(format!("entry {index}: {} opened break-glass {id}: {why}", opening.by.name));
        };
        if let Some(why) = no_person(&opening.by) {
            gap(why);
        }
        let lasts_us = opening.until_us.saturating_sub(at.wall_us);
        if u64::try_from(lasts_us).is_ok_and(|lasts| lasts > BREAK_GLASS_SECONDS_MAX * 1_000_000) {
            gap("it would last more than an hour");
        }
        let glass = Glass {
            index,
            opener: opening.by.name.clone(),
            connection: opening.connection.clone(),
            until_us: opening.until_us,
            commands: 0,
            state: State::Open,
        };
        if let Some(before) = self.known.insert(id, glass) {
            found.gap(format!("entry {index}: break-glass {id} was opened in entry {} already", before.index));
        } else if self.reviewed.contains(&id) || self.closed_before.contains(&id) {
            found.gap(format!("entry {index}: break-glass {id} was opened, and is over already"));
        }
    }

    /// Those that wait for their review. One that was open when the gateway went, without a command under it and without
    /// the step that closes it, was never in force.
    pub(super) fn unreviewed(&self) -> BTreeSet<BreakGlassId> {
        let waits = |glass: &Glass| glass.state != State::Over || glass.commands > 0;
        self.known.iter().filter(|(_, glass)| waits(glass)).map(|(id, _)| *id).collect()
    }
}

/// Why somebody is not one of the people whom break-glass is for.
fn no_person(by: &Identity) -> Option<&'static str> {
    if by.name.kind() != IdentityKind::Human || by.on_behalf_of.is_some() {
        return Some("only people may, each for themselves");
    }
    (by.known != Known::Verified).then_some("who that is was not verified")
}
