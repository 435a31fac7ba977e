//! Commands that wait for people: who asked for what, what was decided, and the one command that goes ahead for it.
//!
//! ```text
//! session: hold ─▶ intent, `requested` ─▶ poll … ─▶ take ─▶ `used`, Grant ─▶ Permit
//! people (api):    list, see ─▶ `seen`        decide ─▶ `decided`
//! clock:           sweep ─▶ `ended`
//! ```
//!
//! What counts is decided in `policy::approvals`; here is the memory of it, and each step's entry. A case lives in memory
//! only: after a restart, what was asked for is void, and has to be asked for again.
//!
//! Invariant: a step is on the record before it has an effect. Its effect on a command is later on the record than
//! itself, so a command that goes ahead once `used` is durable has the decision behind it.

mod api;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use model::{
    Approval, ApprovalDecision, ApprovalEnd, ApprovalRequest, ApprovalStep, ApprovalVote, Assertion, CommandId, Digest,
    Facts, Identity, IdentityName, Label, Opaque, Transaction, Who, wall_text,
};
use policy::approvals::{ApprovalRules, Case, Grant, NotDecided, NotUsable, Now, Standing};
use sha2::{Digest as _, Sha256};
use store::{Pending, Position, RecordError, Recorder};
use tokio::sync::watch;

use crate::notify::{ApprovalNotice, Notice, Notifier};
use crate::random;

pub(crate) use api::{Signing, answer, problem};

/// Open cases of one identity at a time.
const OF_ONE_MAX: usize = 32;
/// Open cases at a time.
const OPEN_MAX: usize = 4096;
/// Bytes of the statements and parameters of all open cases.
const OPEN_BYTES_MAX: usize = 64 << 20;
/// Bytes of a statement with its parameters that can be held: what nobody reads, nobody can approve.
pub(crate) const HELD_BYTES_MAX: usize = 64 << 10;
/// Cases that are over and can still be looked at.
const CLOSED_MAX: usize = 256;

/// All cases of a gateway.
pub(crate) struct Approvals {
    recorder: Recorder,
    /// Makes digests of statements worthless to whoever sees one.
    key: [u8; 32],
    inner: Mutex<Inner>,
    /// Counts changes, for those who watch.
    revision: watch::Sender<u64>,
    notifier: Option<Notifier>,
}

#[derive(Default)]
struct Inner {
    cases: BTreeMap<CommandId, Held>,
    /// The case of a statement that is asked for again.
    same: HashMap<Same, CommandId>,
    closed: VecDeque<CommandId>,
    open: usize,
    open_bytes: usize,
    tickets: u64,
}

/// What makes two commands the same: a digest of the statement with its parameters, who sends it and where to, and what it
/// does. Not the statement itself.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Same([u8; 32], Arc<Facts>);

/// A case with all that is shown of it.
struct Held {
    case: Case,
    began: Instant,
    asked_us: i64,
    intent: Digest,
    shown: Shown,
    /// None if nobody else's command can be the same.
    same: Option<Same>,
    seen: Vec<(IdentityName, i64)>,
    votes: Vec<Vote>,
    used_by: Option<CommandId>,
    waiting: Vec<(u64, Option<Waker>)>,
}

struct Vote {
    by: IdentityName,
    decision: ApprovalDecision,
    comment: Option<String>,
    signed: bool,
    at_us: i64,
}

/// What people see of a command before they decide. Nothing of it is shortened.
pub(crate) struct Shown {
    pub(crate) connection: String,
    /// Where there are any.
    pub(crate) database: Option<String>,
    pub(crate) role: String,
    pub(crate) statement: String,
    /// A JSON array, if there are any.
    pub(crate) parameters: Option<serde_json::Value>,
    /// Where there are any.
    pub(crate) transaction: Option<Transaction>,
    pub(crate) rules: Vec<String>,
    pub(crate) message: Option<String>,
    /// Why the statement may do more than it says; empty if it does not.
    pub(crate) opaque: Vec<Opaque>,
}

/// What a session asks for.
pub(crate) struct Asked {
    pub(crate) who: Who,
    pub(crate) rules: ApprovalRules,
    pub(crate) policy: Digest,
    pub(crate) shown: Shown,
    /// What the statement does.
    pub(crate) facts: Arc<Facts>,
    /// The parameters' own bytes: what is shown of them may be the same for different ones.
    pub(crate) raw_parameters: Vec<u8>,
}

/// Why nothing can be asked for.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NotHeld {
    /// Nothing of it is on the record.
    #[error("{0}")]
    TooMany(&'static str),
    /// It cannot be recorded.
    #[error(transparent)]
    Record(#[from] RecordError),
}

/// Why a command does not go ahead.
#[derive(Debug)]
pub(crate) enum NotTaken {
    /// The case stands so.
    Stands(Standing),
    /// It cannot be recorded.
    Record(RecordError),
}

/// Why a decision does not count.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NotCounted {
    /// There is no such case, or not for who asks.
    #[error("there is no such approval, or it is not for you to see")]
    Unknown,
    /// It would not count.
    #[error(transparent)]
    Not(#[from] NotDecided),
    /// It cannot be recorded.
    #[error("the decision does not count, because it cannot be recorded: {}", .0.for_client())]
    Record(#[from] RecordError),
}

/// A session's place at a case; left when it is dropped.
pub(crate) struct Ticket {
    approvals: Arc<Approvals>,
    of: CommandId,
    number: u64,
}

impl Approvals {
    /// None yet.
    pub(crate) fn new(recorder: Recorder, notifier: Option<Notifier>) -> Self {
        let (inner, revision) = (Mutex::default(), watch::Sender::new(0));
        Self { recorder, key: random::bytes(), inner, revision, notifier }
    }

    /// Tells who is to be told, if anybody is.
    fn tell(&self, event: &'static str, of: CommandId, held: &Held, by: Option<&IdentityName>) {
        let Some(notifier) = &self.notifier else { return };
        let (requester, shown) = (held.case.requester(), &held.shown);
        notifier.send(Notice::Approval(ApprovalNotice {
            event,
            id: of.to_string(),
            requester: requester.name.to_string(),
            on_behalf_of: requester.on_behalf_of.as_ref().map(|whom| whom.name.to_string()),
            connection: shown.connection.clone(),
            database: shown.database.clone(),
            message: shown.message.clone(),
            rules: shown.rules.clone(),
            expires: wall_text(held.case.expires_us()),
            by: by.map(ToString::to_string),
        }));
    }

    /// Asks people for a command. `intend` writes its intent, which says under whose approval it waits, if that was asked
    /// for before.
    pub(crate) fn hold(
        self: &Arc<Self>,
        asked: Asked,
        intend: impl FnOnce(Option<CommandId>) -> Result<Pending, RecordError>,
    ) -> Result<(Pending, Ticket), NotHeld> {
        let same = self.same(&asked);
        let mut inner = self.lock();
        let known = same.as_ref().and_then(|same| inner.same.get(same)).copied();
        let known = known.filter(|id| inner.cases.get(id).is_some_and(|held| held.serves(asked.policy)));
        let pending = match known {
            Some(_) => intend(known)?,
            None => self.open(&mut inner, asked, same, intend)?,
        };
        let of = known.unwrap_or(pending.command());
        inner.tickets += 1;
        let number = inner.tickets;
        if let Some(held) = inner.cases.get_mut(&of) {
            held.waiting.push((number, None));
        }
        drop(inner);
        self.changed();
        Ok((pending, Ticket { approvals: Arc::clone(self), of, number }))
    }

    fn open(
        &self,
        inner: &mut Inner,
        asked: Asked,
        same: Option<Same>,
        intend: impl FnOnce(Option<CommandId>) -> Result<Pending, RecordError>,
    ) -> Result<Pending, NotHeld> {
        let bytes = asked.shown.bytes();
        let open = inner.cases.values().filter(|held| held.case.is_open());
        if open.filter(|held| held.case.requester().name == asked.who.name).count() >= OF_ONE_MAX {
            return Err(NotHeld::TooMany("32 commands of this identity wait for approval already"));
        }
        if inner.open >= OPEN_MAX || inner.open_bytes + bytes > OPEN_BYTES_MAX {
            return Err(NotHeld::TooMany("as many commands wait for approval already as the gateway keeps"));
        }
        let pending = intend(None)?;
        let asked_us = wall_us();
        let lasts = i64::try_from(asked.rules.expires.as_micros()).unwrap_or(i64::MAX);
        let expires_us = asked_us.saturating_add(lasts);
        let request = ApprovalRequest {
            intent: pending.leaf(),
            connection: asked.shown.connection.clone(),
            database: asked.shown.database.as_ref().map(|name| Label::new(name.as_bytes())),
            role: asked.shown.role.clone(),
            policy: asked.policy,
            quorum: u64::from(asked.rules.quorum),
            signed: asked.rules.signed,
            expires_us,
            nonce: Digest(random::bytes()),
        };
        let of = pending.command();
        let intent = pending.leaf();
        let step = ApprovalStep::Requested(Box::new(request));
        // The intent is on the record: without a case, its session ends, and withdraws it.
        let (_, leaf) = self.recorder.note_approval(Approval { of, step })?;
        let held = Held {
            case: Case::new(asked.who, asked.rules, asked.policy, leaf, expires_us),
            began: Instant::now(),
            asked_us,
            intent,
            shown: asked.shown,
            same: same.clone(),
            seen: Vec::new(),
            votes: Vec::new(),
            used_by: None,
            waiting: Vec::new(),
        };
        self.tell("requested", of, &held, None);
        inner.cases.insert(of, held);
        if let Some(same) = same {
            inner.same.insert(same, of);
        }
        inner.open += 1;
        inner.open_bytes += bytes;
        Ok(pending)
    }

    /// Ends what nobody can use any more: its time is over, or who asked for it was locked out.
    pub(crate) fn sweep(&self, revoked: impl Fn(&IdentityName) -> bool) {
        let mut inner = self.lock();
        let over: Vec<_> = inner.cases.iter().filter(|(_, held)| held.case.is_open()).collect();
        let over = over.into_iter().filter_map(|(id, held)| {
            let how = match revoked(&held.case.requester().name) {
                true => ApprovalEnd::Revoked,
                false if held.case.is_overdue(held.now()) => ApprovalEnd::Expired,
                false => return None,
            };
            Some((*id, how))
        });
        let over: Vec<_> = over.collect();
        let any = !over.is_empty();
        for (id, how) in over {
            self.end(&mut inner, id, how);
        }
        drop(inner);
        if any {
            self.changed();
        }
    }

    /// Counts what somebody decided. It is durable, and so is all that it rests on, once [`Recorder::flush`] has returned.
    pub(crate) fn decide(
        &self,
        of: CommandId,
        by: &Identity,
        decision: ApprovalDecision,
        request: Digest,
        comment: Option<String>,
        signature: Option<Assertion>,
    ) -> Result<(), NotCounted> {
        let mut inner = self.lock();
        let held = inner.cases.get_mut(&of).ok_or(NotCounted::Unknown)?;
        let now = held.now();
        held.case.check(by, decision, request, now)?;
        let signed = signature.is_some();
        let signature = signature.map(Box::new);
        let vote = ApprovalVote { decision, request, by: by.clone(), comment: comment.clone(), signature };
        self.recorder.note_approval(Approval { of, step: ApprovalStep::Decided(Box::new(vote)) })?;
        let standing = held.case.decide(by, decision, request, now)?;
        held.votes.push(Vote { by: by.name.clone(), decision, comment, signed, at_us: now.wall_us });
        held.wake();
        match standing {
            Standing::Approved => self.tell("approved", of, held, Some(&by.name)),
            Standing::Denied => self.tell("denied", of, held, Some(&by.name)),
            Standing::Waiting | Standing::Used | Standing::Ended(_) => {}
        }
        if !held.case.is_open() {
            inner.close(of);
        }
        drop(inner);
        self.changed();
        Ok(())
    }

    /// Notes that somebody who may decide has looked at the command.
    fn see(&self, of: CommandId, by: &Identity) -> Result<(), RecordError> {
        let mut inner = self.lock();
        let Some(held) = inner.cases.get_mut(&of) else { return Ok(()) };
        let decides = held.case.is_open() && held.case.rules().may_decide(held.case.requester(), by).is_ok();
        if !decides || held.seen.iter().any(|(who, _)| *who == by.name) {
            return Ok(());
        }
        self.recorder.note_approval(Approval { of, step: ApprovalStep::Seen { by: Box::new(by.clone()) } })?;
        held.seen.push((by.name.clone(), wall_us()));
        drop(inner);
        self.changed();
        Ok(())
    }

    fn end(&self, inner: &mut Inner, of: CommandId, how: ApprovalEnd) {
        let Some(held) = inner.cases.get_mut(&of).filter(|held| held.case.is_open()) else { return };
        if let Err(error) = self.recorder.note_approval(Approval { of, step: ApprovalStep::Ended { how } }) {
            // It ends all the same: nothing may go ahead under it.
            tracing::error!(%error, "the end of an approval cannot be recorded");
        }
        held.case.end(how);
        self.tell(how.as_str(), of, held, None);
        held.wake();
        inner.close(of);
    }

    /// What makes two commands the same. A session that may have changed what names mean asks for itself alone: the same
    /// text is then not the same command.
    fn same(&self, asked: &Asked) -> Option<Same> {
        let Asked { who, shown, raw_parameters, facts, .. } = asked;
        if facts.opaque.contains(&Opaque::Settings) {
            return None;
        }
        let principal = who.on_behalf_of.as_ref().map_or("", |whom| whom.name.as_str());
        let mut hash = Sha256::new_with_prefix(self.key);
        let database = shown.database.as_deref().unwrap_or_default();
        let texts = [who.name.as_str(), principal, &shown.connection, database, &shown.role, &shown.statement];
        for part in texts.map(str::as_bytes).into_iter().chain([raw_parameters.as_slice()]) {
            hash.update(u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
            hash.update(part);
        }
        Some(Same(hash.finalize().into(), Arc::clone(facts)))
    }

    fn changed(&self) {
        self.revision.send_modify(|revision| *revision += 1);
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    /// A case is over: it is kept for those who look, as long as there is room.
    fn close(&mut self, of: CommandId) {
        if let Some(held) = self.cases.get(&of) {
            self.open -= 1;
            self.open_bytes -= held.shown.bytes();
            if let Some(same) = &held.same
                && self.same.get(same) == Some(&of)
            {
                self.same.remove(same);
            }
            self.closed.push_back(of);
        }
        while self.closed.len() > CLOSED_MAX {
            if let Some(oldest) = self.closed.pop_front() {
                self.cases.remove(&oldest);
            }
        }
    }
}

impl Held {
    /// Whether this case can be that of the same statement sent again, under this policy.
    fn serves(&self, policy: Digest) -> bool {
        self.case.is_open() && !self.case.is_overdue(self.now()) && self.case.policy() == policy
    }

    fn now(&self) -> Now {
        Now { wall_us: wall_us(), age: self.began.elapsed() }
    }

    fn wake(&mut self) {
        for (_, waker) in &mut self.waiting {
            if let Some(waker) = waker.take() {
                waker.wake();
            }
        }
    }
}

impl Shown {
    fn bytes(&self) -> usize {
        let parameters = self.parameters.as_ref().map_or(0, |parameters| parameters.to_string().len());
        self.statement.len() + parameters
    }
}

impl Ticket {
    /// The approval's name.
    pub(crate) fn of(&self) -> CommandId {
        self.of
    }

    /// How long a case like this may take, and how long its client waits.
    pub(crate) fn expires_us(&self) -> i64 {
        self.approvals.lock().cases.get(&self.of).map_or(0, |held| held.case.expires_us())
    }

    /// Ready once it is decided or over.
    pub(crate) fn poll(&self, cx: &mut Context<'_>) -> Poll<Standing> {
        let mut inner = self.approvals.lock();
        let Some(held) = inner.cases.get_mut(&self.of) else {
            return Poll::Ready(Standing::Ended(ApprovalEnd::Expired));
        };
        match held.case.standing() {
            Standing::Waiting => {
                if let Some((_, waker)) = held.waiting.iter_mut().find(|(number, _)| *number == self.number) {
                    *waker = Some(cx.waker().clone());
                }
                Poll::Pending
            }
            standing => Poll::Ready(standing),
        }
    }

    /// What whoever denied it had to say.
    pub(crate) fn denied(&self) -> Option<(IdentityName, Option<String>)> {
        let inner = self.approvals.lock();
        let votes = &inner.cases.get(&self.of)?.votes;
        let vote = votes.iter().rev().find(|vote| vote.decision == ApprovalDecision::Deny)?;
        Some((vote.by.clone(), vote.comment.clone()))
    }

    /// Lets `command` go ahead under the policy in force, once what this writes is as safe as the connection wants it.
    pub(crate) fn take(&self, command: CommandId, policy: Option<Digest>) -> Result<(Grant, Position), NotTaken> {
        let approvals = &self.approvals;
        let mut inner = approvals.lock();
        let Some(held) = inner.cases.get_mut(&self.of) else {
            return Err(NotTaken::Stands(Standing::Ended(ApprovalEnd::Expired)));
        };
        let taken = held.case.take(policy, held.now());
        let grant = match taken {
            Ok(grant) => grant,
            Err(NotUsable::Stands(standing)) => {
                if let Standing::Ended(how) = standing {
                    approvals.end(&mut inner, self.of, how);
                }
                return Err(NotTaken::Stands(standing));
            }
            Err(NotUsable::Superseded) => {
                approvals.end(&mut inner, self.of, ApprovalEnd::Superseded);
                return Err(NotTaken::Stands(Standing::Ended(ApprovalEnd::Superseded)));
            }
        };
        held.used_by = Some(command);
        held.wake();
        inner.close(self.of);
        let step = ApprovalStep::Used { command };
        let noted = approvals.recorder.note_approval(Approval { of: self.of, step });
        drop(inner);
        approvals.changed();
        // Used up all the same: nothing else goes ahead under it.
        noted.map(|(position, _)| (grant, position)).map_err(NotTaken::Record)
    }

    /// The policy says another thing now than when it was asked for.
    pub(crate) fn supersede(&self) {
        let mut inner = self.approvals.lock();
        self.approvals.end(&mut inner, self.of, ApprovalEnd::Superseded);
        drop(inner);
        self.approvals.changed();
    }

    /// Who sent the command takes it back, unless another session waits for the same.
    pub(crate) fn cancel(&self) {
        let mut inner = self.approvals.lock();
        let alone = inner.cases.get(&self.of).is_some_and(|held| held.waiting.len() <= 1);
        if alone {
            self.approvals.end(&mut inner, self.of, ApprovalEnd::Cancelled);
        }
        drop(inner);
        self.approvals.changed();
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if let Some(held) = self.approvals.lock().cases.get_mut(&self.of) {
            held.waiting.retain(|(number, _)| *number != self.number);
        }
    }
}

/// How long a client is kept waiting.
pub(crate) fn wait_of(rules: &ApprovalRules, transaction: Option<Transaction>) -> Duration {
    match transaction {
        None | Some(Transaction::Idle) => rules.wait,
        Some(Transaction::Open | Transaction::Failed) => rules.wait_in_transaction,
    }
}

/// Microseconds since 1970.
pub(crate) fn wall_us() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}
