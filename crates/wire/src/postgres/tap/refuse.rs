//! Refusing in the server's own place: what is sent instead of a command makes the server fail it in order, and the tap
//! puts the refusal's text in place of the server's. So the state of the transaction is what the client believes.

use super::large::{ExecutingLarge, PassiveLarge};
use super::names::{Change, Portal};
use super::types::{ClientStep, CommandKey, Draft, Executing, OutcomeStatus, Passive, Refusal, Text, Via};
use super::{Kind, Tap};
use crate::postgres::lexer::Class;
use crate::postgres::message;

/// A name that the server has just been told to forget.
const NOBODY: &[u8] = b"onrecord_refused";

impl Tap {
    /// Puts the gateway's own refusal in place of the command that was drafted last and not forwarded. The server
    /// answers in its place, as if it had failed; an open transaction fails with it.
    pub fn deny<'b>(&mut self, executing: Executing<'b>, key: CommandKey, refusal: Refusal) -> Passive<'b> {
        let consumed = executing.bytes.len();
        let inject = self.deny_last(executing.injected_entries, key, refusal);
        Passive { inject, bytes: &[], consumed }
    }

    /// As [`Tap::deny`], of the Parse that was taken last: the server fails in its place, and the name stays what it was.
    pub fn deny_parse<'b>(&mut self, parse: Passive<'b>, refusal: Refusal) -> Passive<'b> {
        Passive { inject: self.deny_last_parse(parse.consumed, refusal), bytes: &[], consumed: parse.consumed }
    }

    /// As [`Tap::deny_parse`], of a large Parse: its body is not forwarded.
    #[allow(clippy::needless_pass_by_value, reason = "what is not forwarded is used up")]
    pub fn deny_parse_large(&mut self, parse: PassiveLarge, refusal: Refusal) -> Passive<'static> {
        drop(parse);
        Passive { inject: self.deny_last_parse(0, refusal), bytes: &[], consumed: 0 }
    }

    fn deny_last_parse(&mut self, bytes: usize, refusal: Refusal) -> Vec<u8> {
        let forwarded =
            !self.skipping && matches!(self.queue.back(), Some(last) if matches!(last.kind, Kind::Parse { .. }));
        if !forwarded {
            // The server would discard it.
            return Vec::new();
        }
        self.queue.pop_back();
        self.names.unexpect();
        let key = self.draft(Via::Parse, Class::default(), bytes);
        let inject = self.refuse_bind(key, b"", NOBODY, false, refusal);
        self.commands.begins_at(key, self.next - 1);
        inject
    }

    /// As [`Tap::deny`], of a large command: its body is not forwarded.
    pub fn deny_large(&mut self, executing: ExecutingLarge, key: CommandKey, refusal: Refusal) -> Passive<'static> {
        let inject = self.deny_last(executing.injected_entries, key, refusal);
        Passive { inject, bytes: &[], consumed: 0 }
    }

    fn deny_last(&mut self, injected_entries: usize, key: CommandKey, refusal: Refusal) -> Vec<u8> {
        if self.skipping {
            // The server would discard it.
            self.commands.stop(key, OutcomeStatus::Denied);
            return Vec::new();
        }
        let Some(last) = self.queue.pop_back() else {
            return Vec::new();
        };
        let portal = if last.renames { self.names.unexpect() } else { None }.unwrap_or_default();
        for _ in 0..injected_entries {
            if self.queue.pop_back().is_some_and(|entry| entry.renames) {
                self.names.unexpect();
            }
        }
        self.hold = false;
        let inject = match last.kind {
            Kind::Bind { .. } => self.refuse_bind(key, &portal, NOBODY, false, refusal),
            _ => self.refuse_function(key, refusal),
        };
        self.commands.begins_at(key, self.next - 1);
        inject
    }

    /// Close and Bind of a statement that is then gone: the server says 26000 in the Bind's place.
    pub(super) fn refuse_bind(
        &mut self,
        key: CommandKey,
        portal: &[u8],
        name: &[u8],
        known: bool,
        refusal: Refusal,
    ) -> Vec<u8> {
        let mut inject = Vec::new();
        message::close(&mut inject, b'S', name);
        message::bind(&mut inject, b"", name);
        if known {
            self.names.expect(self.segment, name, Change::Undefine);
        }
        self.push_entry(Kind::Close, known, true, None);
        // The Executes of this portal are skipped with it: they are no attempts of their own.
        let opened = Portal { key, epoch: self.trust.epoch, class: Class::default() };
        self.names.expect(self.segment, portal, Change::Open(opened));
        self.push_entry(Kind::Bind { key }, true, false, Some(Box::new(refusal)));
        self.commands.stop(key, OutcomeStatus::Denied);
        inject
    }

    pub(super) fn refuse_execute<'b>(&mut self, message: &'b [u8], name: &'b [u8], refusal: Refusal) -> ClientStep<'b> {
        let key = self.draft(Via::Extended, Class::default(), message.len());
        let draft = Draft { portal: name, ..self.drafted(key, Via::Extended, Text::None) };
        let mut inject = Vec::new();
        message::close(&mut inject, b'P', name);
        self.names.expect(self.segment, name, Change::Close);
        self.push_entry(Kind::Close, true, true, None);
        self.push_entry(Kind::Execute { key, copy_in: false }, false, false, Some(Box::new(refusal.clone())));
        self.commands.stop(key, OutcomeStatus::Denied);
        inject.extend_from_slice(message);
        ClientStep::Refuse {
            consumed: message.len(),
            refusal,
            draft: Some(draft),
            substitute: Passive { inject, bytes: &[], consumed: message.len() },
        }
    }

    /// A call of a function that cannot exist: the server answers with an error and ReadyForQuery, in order, and
    /// fails an open transaction as it would for a function that it refuses.
    pub(super) fn refuse_function(&mut self, key: CommandKey, refusal: Refusal) -> Vec<u8> {
        if !self.skipping {
            self.push_entry(Kind::Function { key }, false, false, Some(Box::new(refusal)));
        }
        self.commands.stop(key, OutcomeStatus::Denied);
        message::impossible_function()
    }
}
