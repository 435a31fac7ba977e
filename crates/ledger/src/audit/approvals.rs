//! Approvals under audit: that no command that had to wait for one was executed without it, and that no approval was
//! given by somebody who must not give it.
//!
//! Memory is that of the commands that wait, and of the approvals that can still be used: one that was used or has
//! ended, or that a stop of the gateway made void, is forgotten, and so is one whose time has been over for an hour.

use std::collections::{BTreeMap, BTreeSet};

use model::{
    Approval, ApprovalDecision, ApprovalStep, ApprovalVote, Body, CommandId, Digest, Entry, IdentityKind, IdentityName,
    Intent, Known, SessionId, wall_text,
};

use super::Scope;
use super::session::Found;

/// How long after its end an approval is remembered, so that a late use is named as one; microseconds.
const REMEMBERED_US: i64 = 3_600_000_000;

/// What an audit remembers of approvals.
#[derive(Default)]
pub(super) struct Approvals {
    /// Commands without an outcome that wait for an approval, or run under one.
    pub(super) held: BTreeMap<CommandId, Held>,
    /// Approvals that can be used, by the command that each was asked for.
    pub(super) open: BTreeMap<CommandId, Asked>,
}

/// A command that must not run without an approval.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Held {
    /// The leaf hash of its intent.
    pub(super) intent: Digest,
    /// The index of its intent.
    pub(super) index: u64,
    /// Whose approval it waits for; none for its own.
    pub(super) under: Option<CommandId>,
    /// Who sent it, over which connection.
    pub(super) asker: Asker,
    /// Whether it may run by now.
    pub(super) released: bool,
}

/// Who asks for an approval, and for where: an approval is of use to nobody else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Asker {
    pub(super) name: IdentityName,
    pub(super) on_behalf_of: Option<IdentityName>,
    pub(super) connection: String,
}

/// An approval that was asked for.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Asked {
    /// The leaf hash of the `requested` step.
    pub(super) request: Digest,
    /// The index of that step.
    pub(super) index: u64,
    pub(super) quorum: u64,
    /// Whether whoever approves must sign.
    pub(super) signed: bool,
    /// Microseconds since 1970.
    pub(super) expires_us: i64,
    /// None if the intent is not known: that was found already.
    pub(super) asker: Option<Asker>,
    /// Who approved: each person once.
    pub(super) approved: BTreeSet<IdentityName>,
    /// Who denied first.
    pub(super) denied: Option<IdentityName>,
}

/// Where a step is, and when it was made.
pub(super) struct StepAt {
    pub(super) index: u64,
    pub(super) wall_us: i64,
    pub(super) hash: Digest,
}

impl Approvals {
    /// Takes the intent of a command that must not run without an approval.
    pub(super) fn intent(&mut self, index: u64, leaf: &[u8], hash: Digest) {
        let Ok(Entry { body: Body::Intent(intent), .. }) = Entry::decode(leaf) else { return };
        let Intent { command, who, connection, approval, .. } = intent;
        let on_behalf_of = who.on_behalf_of.map(|principal| principal.name);
        let asker = Asker { name: who.name, on_behalf_of, connection };
        self.held.insert(command, Held { intent: hash, index, under: approval, asker, released: false });
    }

    /// Takes an outcome.
    pub(super) fn outcome(&mut self, index: u64, command: CommandId, executed: bool, found: &mut Found) {
        if let Some(held) = self.held.remove(&command).filter(|held| executed && !held.released) {
            found.gap(format!(
                "entry {index}: command {command} was executed, although entry {} holds it and nothing says that an \
                 approval was used for it",
                held.index
            ));
        }
    }

    /// A session ended: nothing of it waits any more.
    pub(super) fn session_ended(&mut self, session: SessionId) {
        let all = CommandId { session, ordinal: 0 }..=CommandId { session, ordinal: u32::MAX };
        let gone: Vec<CommandId> = self.held.range(all).map(|(command, _)| *command).collect();
        gone.iter().for_each(|command| drop(self.held.remove(command)));
    }

    /// The gateway stopped, or started again: what was open is void.
    pub(super) fn void(&mut self) {
        self.open.clear();
    }

    /// Takes a step. In a selection, `knows` says which sessions are in it.
    pub(super) fn step(
        &mut self,
        at: &StepAt,
        approval: &Approval,
        scope: Scope,
        knows: impl Fn(SessionId) -> bool,
        found: &mut Found,
    ) {
        let of = approval.of;
        match &approval.step {
            ApprovalStep::Requested(request) => {
                self.open.retain(|_, asked| asked.expires_us.saturating_add(REMEMBERED_US) >= at.wall_us);
                let index = at.index;
                let held = self.held.get(&of).filter(|held| held.intent == request.intent && held.under.is_none());
                if held.is_none() {
                    found.gap(format!(
                        "entry {index}: an approval was asked for, and what it names is not the intent of command {of}, \
                         held and without an outcome"
                    ));
                }
                let asked = Asked {
                    request: at.hash,
                    index,
                    quorum: request.quorum,
                    signed: request.signed,
                    expires_us: request.expires_us,
                    asker: held.map(|held| held.asker.clone()),
                    approved: BTreeSet::new(),
                    denied: None,
                };
                if let Some(before) = self.open.insert(of, asked) {
                    let first = before.index;
                    found.gap(format!(
                        "entry {index}: an approval of command {of} was asked for in entry {first} already"
                    ));
                }
            }
            ApprovalStep::Decided(vote) => match self.open.get_mut(&of) {
                Some(asked) => asked.decided(of, at.index, vote, found),
                None => found.gap(format!(
                    "entry {}: {} decided on the approval of command {of}, {NOT_OPEN}",
                    at.index, vote.by.name
                )),
            },
            ApprovalStep::Used { command } => {
                self.used(of, *command, at, scope == Scope::Whole || knows(command.session), found);
            }
            ApprovalStep::Ended { .. } => drop(self.open.remove(&of)),
            // Looking is not deciding, and may come late.
            ApprovalStep::Seen { .. } => {}
        }
    }

    /// A command goes ahead. `known` says whether its intent must be at hand.
    fn used(&mut self, of: CommandId, command: CommandId, at: &StepAt, known: bool, found: &mut Found) {
        let index = at.index;
        let asked = self.open.remove(&of);
        match &asked {
            None => {
                found.gap(format!("entry {index}: command {command} used the approval of command {of}, {NOT_OPEN}"))
            }
            Some(asked) => asked.allows(of, at, found),
        }
        let Some(held) = self.held.get_mut(&command) else {
            if known {
                found.gap(format!(
                    "entry {index}: the approval of command {of} was used for command {command}, which is not held or has \
                     an outcome already"
                ));
            }
            return;
        };
        // Whether it should have been is said above; that it ran without any is another matter.
        held.released = true;
        let other = asked.and_then(|asked| asked.asker).is_some_and(|asker| asker != held.asker);
        if held.under.unwrap_or(command) != of || other {
            found.gap(format!(
                "entry {index}: the approval of command {of} was used for command {command}, and entry {} is not the same \
                 identity's command over the same connection that waits for this approval",
                held.index
            ));
        }
    }
}

/// Why nothing can be done with an approval.
const NOT_OPEN: &str =
    "which is not open: it was not asked for, was used or ended before, or a stop of the gateway made it void";

impl Asked {
    fn decided(&mut self, of: CommandId, index: u64, vote: &ApprovalVote, found: &mut Found) {
        let by = &vote.by.name;
        let asks = |asker: &Asker| asker.name == *by || asker.on_behalf_of.as_ref() == Some(by);
        let why = if vote.request != self.request {
            format!("what it names is not the request in entry {}", self.index)
        } else if by.kind() != IdentityKind::Human {
            "only people may".to_owned()
        } else if vote.by.known != Known::Verified {
            "who that is was not verified".to_owned()
        } else if self.asker.as_ref().is_some_and(asks) {
            "whoever asks for an approval, or has it asked for, may not give it".to_owned()
        } else if self.signed && vote.decision == ApprovalDecision::Approve && vote.signature.is_none() {
            "whoever approves it must sign, and did not".to_owned()
        } else {
            match vote.decision {
                ApprovalDecision::Approve => drop(self.approved.insert(by.clone())),
                ApprovalDecision::Deny => drop(self.denied.get_or_insert_with(|| by.clone())),
            }
            return;
        };
        found.gap(format!("entry {index}: {by} decided on the approval of command {of}: {why}"));
    }

    /// Whether it may be used now.
    fn allows(&self, of: CommandId, at: &StepAt, found: &mut Found) {
        let approved = u64::try_from(self.approved.len()).unwrap_or(u64::MAX);
        let why = if let Some(by) = &self.denied {
            format!("although {by} had denied it")
        } else if approved < self.quorum.max(1) {
            format!("although {approved} of {} people had approved it", self.quorum.max(1))
        } else if at.wall_us >= self.expires_us {
            format!("although its time was over at {}", wall_text(self.expires_us))
        } else {
            return;
        };
        let (index, request) = (at.index, self.index);
        found.gap(format!("entry {index}: the approval of command {of}, asked for in entry {request}, was used {why}"));
    }
}
