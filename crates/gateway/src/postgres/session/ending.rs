//! How a session ends: what its client is told, what is still waited for, what is written last.
//!
//! Whatever ends it, three things hold. Nothing that waits for its record is forwarded any more, unless the client said
//! goodbye properly, in which case what it sent runs to its end. No byte that was held back for the record leaves
//! unless the record has it. And every command on the record gets an outcome, the server's own where it can still be
//! learnt.

use std::future::Future as _;
use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::Duration;

use model::SessionEnd;
use store::{RecordError, SessionClosing};
use tokio::time::{Instant, Sleep};
use wire::postgres::message;
use wire::postgres::tap::Violation;

use super::super::cancel_in_background;
use super::super::downstream::{Between, Downstream};
use super::super::entries;
use super::{Moved, Session};
use crate::Totals;

/// The session is over; what is in flight is waited for until the deadline.
pub(super) struct Ending {
    reason: SessionEnd,
    deadline: Pin<Box<Sleep>>,
}

/// Why a session ends, and what its client is told.
pub(super) struct Fault {
    reason: SessionEnd,
    response: Option<Vec<u8>>,
    server: Server,
}

/// Whether the server is still listened to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Server {
    /// It may yet say how its commands ended.
    Heard,
    /// It is gone, it is not understood, or what it says could not be recorded.
    Ignored,
}

impl Fault {
    pub(super) fn new(reason: SessionEnd) -> Self {
        Self { reason, response: None, server: Server::Heard }
    }

    fn told(reason: SessionEnd, code: &str, text: &str, hint: Option<&str>) -> Self {
        let response = message::error_response("FATAL", code, text, hint);
        Self { reason, response: Some(response), server: Server::Heard }
    }

    /// The server closed its stream.
    pub(super) fn server_gone() -> Self {
        Self { server: Server::Ignored, ..Self::new(SessionEnd::UpstreamGone) }
    }

    /// The outpost on the way to the server is gone.
    pub(super) fn outpost_lost() -> Self {
        let text = "OnRecord lost the outpost on the way to the resource: what ran may have run to its end";
        let hint = "Find out before you send it again. The record says that its outcome is unknown.";
        Self { server: Server::Ignored, ..Self::told(SessionEnd::OutpostLost, "08006", text, Some(hint)) }
    }

    /// The client sent what cannot be forwarded.
    pub(super) fn violation(violation: Violation) -> Self {
        let (code, text) = violation.for_client();
        Self::told(SessionEnd::Violation, code, &text, None)
    }

    /// The server sent what answers nothing: the place is lost, and nothing that follows can be believed.
    pub(super) fn server_violation(violation: Violation) -> Self {
        Self { server: Server::Ignored, ..Self::violation(violation) }
    }

    /// No record, no command.
    pub(super) fn record(error: RecordError) -> Self {
        let text = format!("OnRecord refused this command because it cannot record it: {}", error.for_client());
        let server = Self::heard_after(&error);
        let hint = match server {
            Server::Ignored => {
                "It was not sent to the server. Recording resumes when the gateway is restarted with a working disk."
            }
            Server::Heard => "It was not sent to the server. The gateway's operator should look at the record's disk.",
        };
        Self { server, ..Self::told(SessionEnd::RecordingStopped, "58030", &text, Some(hint)) }
    }

    /// A command was forwarded, and what became of it cannot be recorded.
    pub(super) fn record_lost(error: RecordError) -> Self {
        let text = "OnRecord cannot record what became of a command: it may have run";
        let hint = "Find out before you send it again. The record will say that its outcome is unknown.";
        let server = Self::heard_after(&error);
        Self { server, ..Self::told(SessionEnd::RecordingStopped, "58030", text, Some(hint)) }
    }

    /// When only new commands are refused, the ends of those that run are still recorded.
    fn heard_after(error: &RecordError) -> Server {
        match error {
            RecordError::Stopped { .. } => Server::Ignored,
            RecordError::Full | RecordError::TooLong { .. } | RecordError::WrongSession | RecordError::Blob { .. } => {
                Server::Heard
            }
        }
    }
}

impl Session {
    pub(super) fn touch(&mut self) {
        if let Some(idle) = &mut self.idle {
            idle.last = std::time::Instant::now();
        }
    }

    /// Whether what was not forwarded yet never will be.
    pub(super) fn abandoned(&self) -> bool {
        self.ending.as_ref().is_some_and(|ending| ending.reason != SessionEnd::ClientClosed)
    }

    /// The gateway's own stop and the idle limit.
    pub(super) fn check_clocks(&mut self, cx: &mut Context<'_>) -> Result<(), Fault> {
        if !self.abandoned() && self.stop.as_mut().poll(cx).is_ready() {
            return Err(Fault::told(SessionEnd::GatewayStopped, "57P01", "OnRecord is shutting down", None));
        }
        if !self.abandoned()
            && let Poll::Ready(Ok(reason)) = Pin::new(&mut self.entered.ended).poll(cx)
        {
            let text = match reason {
                SessionEnd::Revoked => "OnRecord ended this session: its identity was revoked",
                SessionEnd::Killed => "OnRecord ended this session: somebody who looks after the gateway asked for it",
                _ => "OnRecord ended this session: its identity may no longer use this connection",
            };
            return Err(Fault::told(reason, "57P01", text, None));
        }
        if self.ending.is_some() {
            return Ok(());
        }
        let resting = self.tap.idle() && self.held.is_empty() && self.waiting.is_none() && !self.policing.waits();
        if let Some(idle) = &mut self.idle
            && idle.timer.as_mut().poll(cx).is_ready()
        {
            let quiet = idle.last.elapsed();
            if resting && quiet >= idle.limit {
                let text = "OnRecord ended this session: it was idle for longer than the limit";
                return Err(Fault::told(SessionEnd::Idle, "57P05", text, None));
            }
            let next = idle.limit.saturating_sub(quiet).max(Duration::from_secs(1));
            idle.timer.as_mut().reset(Instant::now() + next);
            // Registers the waker for the new deadline.
            let _ = idle.timer.as_mut().poll(cx);
        }
        Ok(())
    }

    /// Starts to end the session, or learns while it ends that there is less to wait for.
    pub(super) fn begin_ending(&mut self, fault: Fault) {
        let before = self.ending.as_ref().map(|ending| ending.reason);
        match (before, fault.reason) {
            // The first reason stands, unless the client had only said goodbye and this cuts it short.
            (Some(SessionEnd::ClientClosed), SessionEnd::ClientClosed | SessionEnd::ClientGone) => {
                return self.client.close_ears();
            }
            // A server that ends after a goodbye does as it was told.
            (Some(SessionEnd::ClientClosed), SessionEnd::UpstreamGone) if self.goodbye_was_heard() => {
                self.upstream_dead = true;
                return;
            }
            (None | Some(SessionEnd::ClientClosed), _) => {}
            (Some(_), SessionEnd::ClientGone) => return self.client.close_ears(),
            (Some(_), reason) => {
                self.upstream_dead |= fault.server == Server::Ignored;
                // What is still held will never be durable.
                if reason == SessionEnd::RecordingStopped {
                    fault.response.iter().for_each(|response| self.say_goodbye(response));
                }
                return;
            }
        }
        if fault.reason == SessionEnd::ClientGone {
            self.client.close_ears();
        }
        // A client that said goodbye wants its commands to run to their end.
        if fault.reason != SessionEnd::ClientClosed {
            self.upstream.discard_staged();
            if !self.open.is_empty() && fault.reason != SessionEnd::UpstreamGone {
                cancel_in_background(self.minted.target.clone());
            }
        }
        if let Some(response) = &fault.response {
            self.say_goodbye(response);
        }
        self.upstream_dead |= fault.server == Server::Ignored;
        let deadline = Box::pin(tokio::time::sleep(self.outcome_wait));
        self.ending = Some(Ending { reason: fault.reason, deadline });
    }

    /// Whether the server got all that the client sent, with its goodbye, and owes nothing more.
    fn goodbye_was_heard(&self) -> bool {
        self.fatal.is_none() && self.held.is_empty() && self.upstream.is_empty() && !self.tap.owes_ready()
    }

    /// Where what was passed to the client ends.
    pub(super) fn place(&self) -> Between {
        if self.tap.between_messages() { Between::Messages } else { Between::Parts }
    }

    /// The last message to the client. What was held back for the record is dropped, not sent; if that, or what was
    /// passed, ends inside a message, then nothing can be said without becoming part of that message.
    fn say_goodbye(&mut self, response: &[u8]) {
        let between = self.client.drop_held().unwrap_or_else(|| self.place());
        if between == Between::Messages {
            self.client.push(response);
        }
        self.client.mute();
    }

    /// Whether all that can still be learnt and said has been.
    pub(super) fn poll_ended(&mut self, cx: &mut Context<'_>, moved: Moved) -> Option<SessionEnd> {
        let ending = self.ending.as_mut()?;
        let waits_for_client = !self.client.is_drained();
        let waits_for_server = !self.upstream_dead
            && match ending.reason {
                // Everything that the client sent is to run.
                SessionEnd::ClientClosed => !self.held.is_empty() || !self.upstream.is_empty() || !self.tap.idle(),
                // Its last words and its end.
                SessionEnd::UpstreamGone => true,
                // A suspended portal is open too, but nothing will come for it.
                _ => !self.open.is_empty() && self.tap.owes(),
            };
        if !waits_for_client && !waits_for_server {
            return Some(ending.reason);
        }
        if ending.reason == SessionEnd::ClientClosed {
            // A command that runs on has no deadline; a client that does not take its result has.
            if waits_for_server && !waits_for_client {
                return None;
            }
            if moved == Moved::Yes {
                ending.deadline.as_mut().reset(Instant::now() + self.outcome_wait);
            }
        }
        ending.deadline.as_mut().poll(cx).is_ready().then_some(ending.reason)
    }

    /// Writes the last entries: an outcome for every command, and the close. Gives back the client.
    pub(super) fn finish(mut self, reason: SessionEnd, totals: &Totals) -> Downstream {
        let code = self.fatal.take();
        let reason = match (reason, &code) {
            (SessionEnd::UpstreamGone, Some(_)) => SessionEnd::UpstreamClosed,
            (reason, _) => reason,
        };
        let unknown = reason.unknown_because();
        // Errors here mean that recording has stopped; recovery then writes what is missing.
        for open in self.open.drain(..) {
            let _ = self.log.outcome(open.recorded, &entries::unknown(unknown, code.as_deref()));
        }
        self.withdraw_waiting();
        for held in self.held.drain(..) {
            let _ = self.log.withdraw(held.pending, &entries::never_forwarded());
        }
        totals.commands.fetch_add(self.commands, Ordering::Relaxed);
        totals.bytes_up.fetch_add(self.bytes_up, Ordering::Relaxed);
        totals.bytes_down.fetch_add(self.bytes_down, Ordering::Relaxed);
        let closing = SessionClosing { reason, bytes_up: self.bytes_up, bytes_down: self.bytes_down };
        let _ = self.log.close(closing);
        self.client
    }
}
