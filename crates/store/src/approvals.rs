//! Approvals and break-glass as the record tells them: the steps of each, in order, and whether the gateway's end was theirs.
//!
//! What is remembered are the steps themselves, starts and stops: few beside the commands. Nothing is judged here; that is
//! for `ledger::audit`.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use model::{
    Approval, ApprovalDecision, ApprovalStep, Body, BreakGlass, BreakGlassId, BreakGlassStep, CommandId, Digest, Entry,
    Kind, Peek, SessionId, Time,
};

use crate::error::StoreError;
use crate::reader::Reader;
use crate::walk::{Step, Tail, Walk};

/// A step of an approval, as it was recorded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApprovalEntry {
    /// The index of the entry.
    pub index: u64,
    /// When it was recorded.
    pub time: Time,
    /// Its leaf hash: of the `requested` step, what decisions name.
    pub leaf: Digest,
    /// The step.
    pub step: ApprovalStep,
}

/// All that became of an approval.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApprovalStory {
    /// The command that it was asked for.
    pub of: CommandId,
    /// Its steps, in order.
    pub steps: Vec<Arc<ApprovalEntry>>,
    /// The entry of the stop, the recovery or the start, and when that was, that made it void: it was neither used nor
    /// denied, and had not ended before.
    pub void: Option<(u64, Time)>,
}

/// A step of break-glass, as it was recorded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BreakGlassEntry {
    /// The index of the entry.
    pub index: u64,
    /// When it was recorded.
    pub time: Time,
    /// The step.
    pub step: BreakGlassStep,
}

/// What has been read for approvals and break-glass, and how far.
#[derive(Default)]
pub(crate) struct KnownApprovals {
    steps: HashMap<CommandId, Vec<Arc<ApprovalEntry>>>,
    /// Of commands that went ahead, the approvals that they used, by the session; each with its entry's index.
    used: HashMap<SessionId, Vec<(u64, CommandId)>>,
    glasses: HashMap<BreakGlassId, Vec<Arc<BreakGlassEntry>>>,
    /// Stops, recoveries and starts.
    ends: Vec<(u64, Time)>,
    read: u64,
}

impl KnownApprovals {
    fn read(&mut self, mut walk: Walk) -> Result<(), StoreError> {
        let from = self.read;
        while let Step::Group(group) | Step::Altered(_, group) = walk.step()? {
            for (index, _, leaf) in group.entries().filter(|(index, _, _)| *index >= from) {
                let kind = Peek::new(leaf).map(|peek| peek.kind);
                if let Some(Kind::Approval | Kind::BreakGlass | Kind::Stop | Kind::Recovery | Kind::Start) = kind
                    && let Ok(Entry { time, body }) = Entry::decode(leaf)
                {
                    self.learn(index, time, ledger::leaf_hash(leaf), body);
                }
                self.read = index + 1;
            }
        }
        Ok(())
    }

    fn learn(&mut self, index: u64, time: Time, leaf: Digest, body: Body) {
        let Approval { of, step } = match body {
            Body::Approval(approval) => approval,
            Body::BreakGlass(BreakGlass { id, step }) => {
                let entry = BreakGlassEntry { index, time, step };
                return self.glasses.entry(id).or_default().push(Arc::new(entry));
            }
            _ => return self.ends.push((index, time)),
        };
        if let ApprovalStep::Used { command } = &step {
            self.used.entry(command.session).or_default().push((index, of));
        }
        self.steps.entry(of).or_default().push(Arc::new(ApprovalEntry { index, time, leaf, step }));
    }

    /// The gateway's first end after an approval was asked for, unless it was over before.
    fn void(&self, steps: &[Arc<ApprovalEntry>]) -> Option<(u64, Time)> {
        let asked = steps.first()?.index;
        let end = *self.ends.iter().find(|(index, _)| *index > asked)?;
        let over = |entry: &&Arc<ApprovalEntry>| {
            let over = match &entry.step {
                ApprovalStep::Used { .. } | ApprovalStep::Ended { .. } => true,
                ApprovalStep::Decided(vote) => vote.decision == ApprovalDecision::Deny,
                ApprovalStep::Requested(_) | ApprovalStep::Seen { .. } => false,
            };
            over && entry.index < end.0
        };
        steps.iter().find(over).is_none().then_some(end)
    }
}

impl Reader {
    /// The steps of the approval that was asked for this command, in order; none if none was.
    ///
    /// # Errors
    /// The log cannot be read.
    pub fn approvals(&self, of: CommandId) -> Result<Vec<Arc<ApprovalEntry>>, StoreError> {
        self.with_approvals(|known| known.steps.get(&of).cloned().unwrap_or_default())
    }

    /// What became of the approval that was asked for this command; none if none was.
    ///
    /// # Errors
    /// The log cannot be read.
    pub fn approval_story(&self, of: CommandId) -> Result<Option<ApprovalStory>, StoreError> {
        self.with_approvals(|known| {
            let steps = known.steps.get(&of)?.clone();
            let void = known.void(&steps);
            Some(ApprovalStory { of, steps, void })
        })
    }

    /// The approvals that commands of this session used, in the first `size` entries.
    ///
    /// # Errors
    /// The log cannot be read.
    pub fn approvals_used(&self, session: SessionId, size: u64) -> Result<BTreeSet<CommandId>, StoreError> {
        self.with_approvals(|known| {
            let used = known.used.get(&session).into_iter().flatten();
            used.filter(|(index, _)| *index < size).map(|(_, of)| *of).collect()
        })
    }

    /// The steps of this break-glass, in order; none if there is no such.
    ///
    /// # Errors
    /// The log cannot be read.
    pub fn break_glass(&self, id: BreakGlassId) -> Result<Vec<Arc<BreakGlassEntry>>, StoreError> {
        self.with_approvals(|known| known.glasses.get(&id).cloned().unwrap_or_default())
    }

    /// All steps of break-glass from this entry on, in order. Entries before it are not read.
    ///
    /// # Errors
    /// The log cannot be read, or is damaged from there on: a step that is lost is one that would be forgotten.
    pub fn break_glass_from(&self, first: u64) -> Result<Vec<(BreakGlassId, BreakGlassEntry)>, StoreError> {
        let mut steps = Vec::new();
        let mut walk = Walk::new(self.disk(), first, Tail::Live)?;
        loop {
            let group = match walk.step()? {
                Step::Group(group) => group,
                Step::Altered(damage, _) | Step::Damaged(damage) => return Err(damage.into()),
                Step::End(_) => return Ok(steps),
            };
            for (index, _, leaf) in group.entries().filter(|(index, _, _)| *index >= first) {
                if Peek::new(leaf).is_some_and(|peek| peek.kind != Kind::BreakGlass) {
                    continue;
                }
                let entry = Entry::decode(leaf).map_err(|source| StoreError::Entry { index, source })?;
                if let Body::BreakGlass(BreakGlass { id, step }) = entry.body {
                    steps.push((id, BreakGlassEntry { index, time: entry.time, step }));
                }
            }
            walk.reuse(group);
        }
    }

    /// Reads on to the end of the log as it is now, and asks what is known then.
    fn with_approvals<T>(&self, ask: impl FnOnce(&KnownApprovals) -> T) -> Result<T, StoreError> {
        let mut known = self.known_approvals();
        let walk = Walk::new(self.disk(), known.read, Tail::Live)?;
        known.read(walk)?;
        Ok(ask(&known))
    }
}
