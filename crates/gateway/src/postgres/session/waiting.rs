//! A command that people must approve: it stays here, and nothing behind it is taken, until they have decided.
//!
//! Its intent is on the record when it begins to wait, and its approval is before it goes ahead. The client is told at
//! once, kept alive, and can cancel; if it gives up, the approval stays, and the same command runs under it once.
//!
//! Not for: who may decide (that is `policy::approvals`), what was asked for by whom (that is `crate::approvals`).

use std::borrow::Cow;
use std::future::Future as _;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use model::{ApprovalEnd, Facts, Reason, Status, wall_text};
use policy::approvals::Standing;
use policy::{Denial, Ruling};
use store::{OutcomeDraft, Pending};
use tokio::time::{Instant, Sleep};
use wire::postgres::message;
use wire::postgres::tap::{CommandKey, Draft, Executing, Passive, Refusal, Text, TxStatus};

use super::super::entries::{self, Ruled};
use super::ending::Fault;
use super::to_server::{POLICY_CODE, Taken};
use super::{Held, Moved, READ_BYTES, SCRATCH, Said, Session};
use crate::approvals::{Asked, HELD_BYTES_MAX, NotHeld, NotTaken, Shown, Ticket, wait_of};
use crate::words;

/// Between bytes that keep a driver from thinking that the server is gone.
const BEAT: Duration = Duration::from_secs(10);
/// Beats between notices.
const BEATS_PER_NOTICE: u32 = 6;
/// SQLSTATE of a command that its client cancelled: query_canceled.
const CANCELLED_CODE: &str = "57014";
/// SQLSTATE of a command that there is no room for: configuration_limit_exceeded.
const LIMIT_CODE: &str = "53400";

/// A command that waits for people.
pub(super) struct Waiting {
    key: CommandKey,
    frames: Executing<'static>,
    pending: Pending,
    ticket: Ticket,
    facts: Option<Arc<Facts>>,
    text: Vec<u8>,
    transaction: TxStatus,
    until: Pin<Box<Sleep>>,
    beat: Pin<Box<Sleep>>,
    beats: u32,
    notice: Vec<u8>,
    told: bool,
}

/// How a wait ends without the command going ahead.
struct Refused {
    status: Status,
    reason: Option<Reason>,
    code: &'static str,
    message: String,
    hint: String,
}

impl Session {
    /// Holds a command. Gives what goes to the server in its place, where it cannot be held.
    pub(super) fn hold<'b>(
        &mut self,
        taken: &Taken<'_>,
        frames: Executing<'b>,
        draft: &Draft<'_>,
        why: &Denial,
    ) -> Result<Option<Passive<'b>>, Fault> {
        let what = match taken.decision().and_then(policy::Decision::message) {
            Some(message) => format!("{message} (rule {})", why.rule),
            None => format!("rule {}", why.rule),
        };
        let refuse = |session: &mut Self, frames, because: &str| {
            let message = format!("OnRecord refused this statement: somebody must approve it ({what}), and {because}");
            let refusal = session.refuse_saying(taken, LIMIT_CODE, message)?;
            Ok(Some(session.tap.deny(frames, draft.key, refusal)))
        };
        let asked = match self.asked(draft, taken.said) {
            Ok(asked) => asked,
            Err(because) => return refuse(self, frames, because),
        };
        let statement = asked.shown.statement.clone().into_bytes();
        let wait = wait_of(&asked.rules, asked.shown.transaction).min(asked.rules.expires);
        let log = &mut self.log;
        let held = self
            .policing
            .approvals()
            .hold(asked, |under| log.intent(&taken.intent(Ruled::by(model::Verdict::Hold, taken.said).under(under))));
        let (pending, ticket) = match held {
            Ok(held) => held,
            Err(NotHeld::Record(error)) => return Err(Fault::record(error)),
            Err(NotHeld::TooMany(because)) => return refuse(self, frames, because),
        };
        let of = ticket.of();
        let hint = format!(
            "Approve it with: onrecord approvals approve {of} (until {}). It waits here for {} s; cancelling it takes the request back.",
            wall_text(ticket.expires_us()),
            wait.as_secs()
        );
        let told = format!("OnRecord holds this statement until somebody approves it: {what}");
        self.waiting = Some(Box::new(Waiting {
            key: draft.key,
            frames: frames.into_owned(),
            pending,
            ticket,
            facts: taken.said.facts.clone(),
            text: statement,
            transaction: draft.transaction,
            until: Box::pin(tokio::time::sleep(wait)),
            beat: Box::pin(tokio::time::sleep(BEAT)),
            beats: 0,
            notice: message::notice("NOTICE", "01000", &told, Some(&hint)),
            told: false,
        }));
        Ok(None)
    }

    /// What people are asked, if they can be.
    fn asked(&self, draft: &Draft<'_>, said: &Said) -> Result<Asked, &'static str> {
        let rules = self.policing.approval_rules().ok_or("the connection names nobody who could approve it")?;
        let (policy, decision) = said.policy.as_ref().ok_or("no policy asks for it any more")?;
        let facts = said.facts.as_ref().ok_or("nothing is known of what it does")?;
        let bytes: Cow<'_, [u8]> = match &draft.text {
            Text::Inline(text) => Cow::Borrowed(*text),
            Text::Prepared { text, .. } => Cow::Borrowed(&**text),
            Text::Spooled { .. } | Text::None => return Err("it has no text that could be shown to who decides"),
        };
        let raw = draft.parameters.as_ref().map(|parameters| parameters.raw()).unwrap_or_default();
        if bytes.len() + raw.len() > HELD_BYTES_MAX {
            return Err("it is too long to be read and approved; more than 64 KiB is not held");
        }
        let statement =
            std::str::from_utf8(&bytes).map_err(|_| "its text is not UTF-8, so it cannot be shown as it is")?;
        let parameters = match &draft.parameters {
            None => None,
            Some(parameters) => {
                let mut json = Vec::new();
                let shown = parameters.to_json(&mut json, 4 * HELD_BYTES_MAX);
                shown.map_err(|_| "its parameters are too long to be read and approved")?;
                Some(serde_json::from_slice(&json).map_err(|_| "its parameters cannot be shown")?)
            }
        };
        let shown = Shown {
            connection: self.policing.connection().to_owned(),
            database: Some(self.policing.database().to_owned()),
            role: self.policing.role().to_owned(),
            statement: statement.to_owned(),
            parameters,
            transaction: Some(entries::transaction(draft.transaction)),
            rules: decision.rules().to_vec(),
            message: decision.message().map(str::to_owned),
            opaque: facts.opaque.clone(),
        };
        let (who, policy) = (self.policing.who().clone(), policy.set.digest());
        Ok(Asked { who, rules, policy, shown, facts: Arc::clone(facts), raw_parameters: raw.to_vec() })
    }

    /// Sees to a command that waits.
    pub(super) fn poll_waiting(&mut self, cx: &mut Context<'_>) -> Result<Moved, Fault> {
        if self.ending.is_some() {
            return Ok(Moved::No);
        }
        let Some(waiting) = &mut self.waiting else { return Ok(Moved::No) };
        self.minted.target.set_waits(cx.waker());
        if self.minted.target.wait_is_cancelled() {
            waiting.ticket.cancel();
            return self.refuse_waiting(Refused {
                status: Status::Cancelled,
                reason: None,
                code: CANCELLED_CODE,
                message: "canceling statement due to user request".to_owned(),
                hint: "It was not sent to the server, and the request for its approval is taken back.".to_owned(),
            });
        }
        match waiting.ticket.poll(cx) {
            Poll::Ready(Standing::Approved) => self.go_ahead(),
            Poll::Ready(standing) => self.refuse_standing(standing),
            Poll::Pending if waiting.until.as_mut().poll(cx).is_ready() => {
                let of = waiting.ticket.of();
                let until = wall_text(waiting.ticket.expires_us());
                self.refuse_waiting(Refused {
                    status: Status::Denied,
                    reason: Some(Reason::ApprovalPending),
                    code: POLICY_CODE,
                    message: format!("OnRecord still waits for somebody to approve this statement: approval {of}"),
                    hint: format!(
                        "It was not sent to the server. Send the same statement again once it is approved; until {until} it then runs, once."
                    ),
                })
            }
            Poll::Pending => Ok(self.keep_alive(cx)),
        }
    }

    /// Tells the client why it waits, and that the gateway is alive: with messages that may come at any time.
    fn keep_alive(&mut self, cx: &mut Context<'_>) -> Moved {
        let Some(waiting) = &mut self.waiting else { return Moved::No };
        let mut beaten = false;
        while waiting.beat.as_mut().poll(cx).is_ready() {
            beaten = true;
            waiting.beats += 1;
            waiting.beat.as_mut().reset(Instant::now() + BEAT);
        }
        if !self.tap.between_messages() {
            return Moved::No;
        }
        if !waiting.told || (beaten && waiting.beats.is_multiple_of(BEATS_PER_NOTICE)) {
            waiting.told = true;
            self.client.push(&waiting.notice);
            return Moved::Yes;
        }
        if beaten {
            // True of every server, so nobody learns anything new.
            self.client.push(&message::parameter_status(b"integer_datetimes", b"on"));
            return Moved::Yes;
        }
        Moved::No
    }

    /// People have approved: the policy is asked again, and what they approved is what goes.
    fn go_ahead(&mut self) -> Result<Moved, Fault> {
        self.policing.refresh();
        let Some(waiting) = self.waiting.take() else { return Ok(Moved::No) };
        let (facts, text) = (waiting.facts.clone(), waiting.text.as_slice());
        let said = self.policing.again(facts, text, waiting.transaction, self.commands);
        let denies = said.policy.as_ref().is_none_or(|(_, decision)| decision.ruling() == Ruling::Deny);
        if denies {
            waiting.ticket.supersede();
            self.waiting = Some(waiting);
            return self.refuse_standing(Standing::Ended(ApprovalEnd::Superseded));
        }
        let taken = waiting.ticket.take(waiting.pending.command(), self.policing.digest());
        let (grant, ready) = match taken {
            Ok(taken) => taken,
            Err(why) => {
                self.waiting = Some(waiting);
                return match why {
                    NotTaken::Stands(standing) => self.refuse_standing(standing),
                    NotTaken::Record(error) => Err(Fault::record(error)),
                };
            }
        };
        self.done_waiting();
        let Waiting { key, frames, pending, facts, .. } = *waiting;
        self.policing.runs(facts.as_deref());
        let staged = self.upstream.stage(frames);
        self.held.push_back(Held { key, staged, permit: grant.into_permit(), pending, ready });
        Ok(Moved::Yes)
    }

    fn refuse_standing(&mut self, standing: Standing) -> Result<Moved, Fault> {
        let Some(waiting) = &self.waiting else { return Ok(Moved::No) };
        let (reason, message) = words::why_not_approved("statement", standing, &waiting.ticket);
        self.refuse_waiting(Refused {
            status: Status::Denied,
            reason: Some(reason),
            code: POLICY_CODE,
            message,
            hint: "It was not sent to the server. If it is sent again, approval is asked for anew.".to_owned(),
        })
    }

    /// The command that waits is never forwarded: the record and its client are told why.
    fn refuse_waiting(&mut self, refused: Refused) -> Result<Moved, Fault> {
        let Some(waiting) = self.waiting.take() else { return Ok(Moved::No) };
        self.done_waiting();
        let Waiting { key, frames, pending, .. } = *waiting;
        let sealed = self.log.seal(refused.message.as_bytes());
        let draft =
            OutcomeDraft { status: refused.status, reason: refused.reason, ..entries::denied(refused.code, sealed) };
        let command = pending.command();
        self.log.withdraw(pending, &draft).map_err(Fault::record)?;
        let hint = Some(format!("{} The record has it as {command}.", refused.hint));
        let refusal = Refusal::Denied { code: refused.code.to_owned(), message: refused.message, hint };
        let substitute = self.tap.deny(frames, key, refusal);
        self.upstream.pass(substitute);
        Ok(Moved::Yes)
    }

    /// What the client sent behind the command can be taken.
    fn done_waiting(&mut self) {
        self.minted.target.stop_waiting();
        self.inbox_fresh = true;
        self.touch();
    }

    /// The session ends: what waits is not forwarded. Its approval stays, for the same command again.
    pub(super) fn withdraw_waiting(&mut self) {
        if let Some(waiting) = self.waiting.take() {
            self.minted.target.stop_waiting();
            // An error here means that recording has stopped; recovery then writes what is missing.
            let _ = self.log.withdraw(waiting.pending, &entries::never_forwarded());
        }
    }

    /// Reads on while a command waits, so that it is noticed when the client goes away.
    pub(super) fn read_ahead(&mut self, cx: &mut Context<'_>) -> Result<Moved, Fault> {
        if self.inbox.len() >= READ_BYTES {
            return Ok(Moved::No);
        }
        SCRATCH.with_borrow_mut(|scratch| {
            let Some(bytes) = self.read_some(cx, scratch)? else { return Ok(Moved::No) };
            self.inbox.extend_from_slice(bytes);
            Ok(Moved::Yes)
        })
    }
}
