//! The way of the client's bytes: tap, policy, intent, stage, and forward once the record has them.

use std::task::{Context, Poll};

use model::{BlobForm, Durability, Field, SessionEnd};
use policy::{Decision, Denial, Verdict};
use store::{BlobReader, INLINE_BYTES_MAX, IntentDraft, Level, Pending};
use wire::postgres::parameters::Parameters;
use wire::postgres::tap::{
    ClientStep, Draft, LargeDraft, LargePass, LargeStep, LargeText, Refusal, Text, Via, Violation, parse_of,
};

use super::super::entries::{self, Ruled};
use super::ending::Fault;
use super::policing::Next;
use super::{Held, Moved, Open, SCRATCH, Said, Session, Spool};
use crate::break_glass::Covered;
use crate::words;

/// SQLSTATE of what a policy refuses: insufficient_privilege.
pub(super) const POLICY_CODE: &str = "42501";
/// Sealed texts of prepared statements that are remembered.
const SEALED_TEXTS_MAX: usize = 1024;
/// Texts of prepared statements in blobs that are remembered; Binds of older ones are refused.
const SPOOLED_TEXTS_MAX: usize = 256;

/// A command that was taken, with what the record is to have of it.
pub(super) struct Taken<'a> {
    pub(super) shape: &'a entries::Shape<'a>,
    pub(super) text: &'a Field,
    pub(super) parameters: &'a Field,
    pub(super) said: &'a Said,
    /// The break-glass that its sender has open.
    pub(super) covered: Option<&'a Covered<'a>>,
}

impl Taken<'_> {
    /// Its intent, so ruled.
    pub(super) fn intent<'a>(&'a self, ruled: Ruled<'a>) -> IntentDraft<'a> {
        self.shape.intent(self.text, self.parameters, ruled.while_open(self.covered.map(Covered::id)))
    }

    /// What the policy says of it, if there is one.
    pub(super) fn decision(&self) -> Option<&Decision> {
        self.said.policy.as_ref().map(|(_, decision)| &**decision)
    }
}

impl Session {
    pub(super) fn read_client(&mut self, cx: &mut Context<'_>) -> Result<Moved, Fault> {
        let busy = !self.held.is_empty() || !self.upstream.is_empty() || self.tap.waiting() || self.policing.waits();
        if self.ending.is_none() && self.waiting.is_some() {
            return self.read_ahead(cx);
        }
        if self.ending.is_some() || busy {
            return Ok(Moved::No);
        }
        if self.inbox_fresh {
            let inbox = std::mem::take(&mut self.inbox);
            let taken = self.take(&inbox)?;
            self.keep_inbox(inbox, taken);
            return Ok(Moved::Yes);
        }
        SCRATCH.with_borrow_mut(|scratch| {
            let Some(bytes) = self.read_some(cx, scratch)? else { return Ok(Moved::No) };
            self.touch();
            if self.inbox.is_empty() {
                let taken = self.take(bytes)?;
                self.inbox.extend_from_slice(bytes.get(taken..).unwrap_or_default());
            } else {
                let mut inbox = std::mem::take(&mut self.inbox);
                inbox.extend_from_slice(bytes);
                let taken = self.take(&inbox)?;
                self.keep_inbox(inbox, taken);
            }
            Ok(Moved::Yes)
        })
    }

    /// What the client has sent meanwhile; none if nothing.
    pub(super) fn read_some<'b>(
        &mut self,
        cx: &mut Context<'_>,
        scratch: &'b mut [u8],
    ) -> Result<Option<&'b [u8]>, Fault> {
        let read = match self.client.poll_read(cx, scratch) {
            Poll::Pending => return Ok(None),
            Poll::Ready(read) => read.map_err(|_| Fault::new(SessionEnd::ClientGone))?,
        };
        self.bytes_up += u64::try_from(read).unwrap_or(0);
        match scratch.get(..read) {
            None | Some([]) => Err(Fault::new(SessionEnd::ClientGone)),
            Some(bytes) => Ok(Some(bytes)),
        }
    }

    fn keep_inbox(&mut self, mut inbox: Vec<u8>, taken: usize) {
        inbox.drain(..taken);
        if inbox.is_empty() {
            inbox = Vec::new();
        }
        self.inbox = inbox;
    }

    /// Takes whole messages from the front of `bytes`; gives how many bytes they were.
    fn take(&mut self, bytes: &[u8]) -> Result<usize, Fault> {
        self.inbox_fresh = false;
        self.policing.refresh();
        let mut taken = 0;
        loop {
            let rest = bytes.get(taken..).unwrap_or_default();
            if self.spool.is_some() {
                taken += self.spool(rest)?;
                if self.spool.is_some() {
                    return Ok(taken);
                }
                // Its body comes back from disk before anything that follows it.
                self.inbox_fresh = taken < bytes.len();
                return Ok(taken);
            }
            // Without its facts, a command cannot be decided: it stays where it is.
            let tap = &self.tap;
            if self.policing.next(|| tap.peek(rest)) == Next::Wait {
                return Ok(taken);
            }
            let step = match self.tap.client(rest) {
                Ok(step) => step,
                Err(violation) => return Err(self.refuse_message(rest, violation)),
            };
            match step {
                ClientStep::NeedMore => return Ok(taken),
                ClientStep::Wait => {
                    self.inbox_fresh = true;
                    return Ok(taken);
                }
                ClientStep::Pass(frames) => {
                    let consumed = frames.consumed();
                    taken += consumed;
                    let passed = match self.refuse_parse(rest.get(..consumed).unwrap_or_default())? {
                        Some(refusal) => self.tap.deny_parse(frames, refusal),
                        None => frames,
                    };
                    self.upstream.pass(passed);
                }
                ClientStep::Swallow(count) => taken += count,
                ClientStep::Command(frames, draft) => {
                    let consumed = frames.consumed();
                    taken += consumed;
                    let parameters = self.parameters_field(draft.parameters.as_ref())?;
                    let shape = entries::Shape::of(&draft, consumed);
                    let Some(text) = self.text_field(&draft.text) else {
                        let refusal = Refusal::StatementInDoubt;
                        let substitute = self.tap.deny(frames, draft.key, refusal.clone());
                        self.settle_denied(shape, &entries::NOT_SEEN, &parameters, &refusal)?;
                        self.upstream.pass(substitute);
                        continue;
                    };
                    let said = self.said(&draft);
                    let glasses = self.policing.break_glass();
                    let covered = self.policing.covered_by(&glasses);
                    let covered = covered.as_ref();
                    let taken_up = Taken { shape: &shape, text: &text, parameters: &parameters, said: &said, covered };
                    match self.decide(&taken_up) {
                        Verdict::Allow(permit) => {
                            let pending = self.intend(&taken_up)?;
                            let staged = self.upstream.stage(frames);
                            let ready = pending.position();
                            self.held.push_back(Held { key: draft.key, staged, permit, pending, ready });
                        }
                        Verdict::Hold(why) => match self.hold(&taken_up, frames, &draft, &why)? {
                            None => return Ok(taken),
                            Some(substitute) => self.upstream.pass(substitute),
                        },
                        Verdict::Deny(denial) => {
                            let refusal = self.refuse(&taken_up, &denial)?;
                            let substitute = self.tap.deny(frames, draft.key, refusal);
                            self.upstream.pass(substitute);
                        }
                    }
                }
                ClientStep::Refuse { consumed, refusal, draft, substitute } => {
                    taken += consumed;
                    if let Some(draft) = draft {
                        let text = self.text_field(&draft.text).unwrap_or(entries::NOT_SEEN);
                        let parameters = self.parameters_field(draft.parameters.as_ref())?;
                        let shape = entries::Shape::of(&draft, consumed);
                        self.settle_denied(shape, &text, &parameters, &refusal)?;
                    }
                    self.upstream.pass(substitute);
                }
                ClientStep::Large { header, body_bytes, .. } => {
                    taken += header.len();
                    let blob = self.log.blob().map_err(Fault::record)?;
                    self.spool = Some(Spool { left: body_bytes, blob });
                }
                ClientStep::End(frames) => {
                    self.upstream.pass(frames);
                    return Err(Fault::new(SessionEnd::ClientClosed));
                }
            }
        }
    }

    /// Ends the session over a message that is not forwarded. One that is too large to be taken is
    /// a command that was refused, and is recorded as one; its text was never read.
    fn refuse_message(&mut self, message: &[u8], violation: Violation) -> Fault {
        if let Violation::MessageTooLarge { bytes, .. } = violation {
            let shape = entries::Shape::too_large(message.first().copied(), self.tap.transaction(), bytes);
            let (code, text) = violation.for_client();
            let message = self.log.seal(text.as_bytes());
            let rules = [entries::RULE_SIZE.to_owned()];
            let settled = self.marked(|session, glass| {
                let ruled = Ruled::refused(&rules, session.policing.digest()).while_open(glass);
                let intent = shape.intent(&entries::NOT_SEEN, &entries::NOT_SEEN, ruled);
                session.log.settled(&intent, &entries::denied(code, message))
            });
            if let Err(error) = settled {
                return Fault::record(error);
            }
        }
        Fault::violation(violation)
    }

    /// Writes the body of a large message to its blob; at its end the message takes its place in
    /// the stream, to be read back.
    fn spool(&mut self, bytes: &[u8]) -> Result<usize, Fault> {
        let Some(spool) = &mut self.spool else {
            return Ok(0);
        };
        let chunk = bytes.get(..spool.left.min(bytes.len())).unwrap_or_default();
        spool.blob.write(chunk).map_err(Fault::record)?;
        spool.left -= chunk.len();
        if let LargeStep::Done(large) = self.tap.large(chunk).map_err(Fault::violation)?
            && let Some(spool) = self.spool.take()
        {
            let (field, body) = spool.blob.form(BlobForm::Message).finish().map_err(Fault::record)?;
            self.take_large(large, field, body)?;
        }
        Ok(chunk.len())
    }

    /// Gives a large message, which is on disk by now, its place in the stream.
    fn take_large(&mut self, large: LargeDraft, body: Field, reader: BlobReader) -> Result<(), Fault> {
        let bytes = body.length().unwrap_or(0);
        let (text, parameters) = match (&large.text, large.parameters.is_some()) {
            (LargeText::Body(_), _) => (Some(body), entries::NO_PARAMETERS),
            (LargeText::Known(text), true) => (self.text_field(text), body),
            (LargeText::Known(text), false) => (self.text_field(text), entries::NO_PARAMETERS),
        };
        let known = text.is_some();
        let text = text.unwrap_or(entries::NOT_SEEN);
        let (statement, portal) = (&large.statement, &large.portal);
        let shape = entries::Shape::new(large.via, statement, portal, large.transaction, bytes);
        match large.pass {
            LargePass::Passive(header) => {
                if let Some(said) = self.policing.prepared_large(self.tap.transaction(), self.commands) {
                    let glasses = self.policing.break_glass();
                    let covered = self.policing.covered_by(&glasses);
                    let covered = covered.as_ref();
                    let taken = Taken { shape: &shape, text: &text, parameters: &parameters, said: &said, covered };
                    if let Verdict::Deny(denial) = self.decide(&taken) {
                        let refusal = self.refuse(&taken, &denial)?;
                        let substitute = self.tap.deny_parse_large(header, refusal);
                        self.upstream.pass(substitute);
                        return Ok(());
                    }
                }
                if let Some(id) = large.spooled_id {
                    self.spooled.insert(id, text);
                    if self.spooled.len() > SPOOLED_TEXTS_MAX {
                        self.spooled.pop_first();
                    }
                }
                self.upstream.pass_large(header, reader);
            }
            LargePass::Executing(header) if !known => {
                let Some(key) = large.key else {
                    return Err(Fault::new(SessionEnd::GatewayFault));
                };
                let refusal = Refusal::StatementInDoubt;
                let substitute = self.tap.deny_large(header, key, refusal.clone());
                self.settle_denied(shape, &text, &parameters, &refusal)?;
                self.upstream.pass(substitute);
            }
            LargePass::Executing(header) => {
                let Some(key) = large.key else {
                    return Err(Fault::new(SessionEnd::GatewayFault));
                };
                let said = self.policing.large(self.tap.transaction(), self.commands);
                let glasses = self.policing.break_glass();
                let covered = self.policing.covered_by(&glasses);
                let covered = covered.as_ref();
                let taken = Taken { shape: &shape, text: &text, parameters: &parameters, said: &said, covered };
                match self.decide(&taken) {
                    Verdict::Allow(permit) => {
                        let pending = self.intend(&taken)?;
                        let staged = self.upstream.stage_large(header, reader);
                        let ready = pending.position();
                        self.held.push_back(Held { key, staged, permit, pending, ready });
                    }
                    // What is too long to be read cannot be approved.
                    Verdict::Deny(denial) | Verdict::Hold(denial) => {
                        let refusal = self.refuse(&taken, &denial)?;
                        let substitute = self.tap.deny_large(header, key, refusal);
                        self.upstream.pass(substitute);
                    }
                }
            }
            LargePass::Refuse(refusal, substitute) => {
                self.settle_denied(shape, &text, &parameters, &refusal)?;
                self.upstream.pass(substitute);
            }
        }
        Ok(())
    }

    /// What the policy says of a command that is in memory.
    fn said(&mut self, draft: &Draft<'_>) -> Said {
        let text = match &draft.text {
            Text::Inline(text) => Some(*text),
            Text::Prepared { text, .. } => Some(&**text),
            Text::Spooled { .. } | Text::None => None,
        };
        match draft.via {
            Via::Function => self.policing.function(draft.transaction, self.commands),
            Via::Extended | Via::Parse | Via::Simple => self.policing.statement(text, draft.transaction, self.commands),
        }
    }

    /// What is to be done with a command. Where its sender has broken the glass, nothing is held.
    fn decide(&self, taken: &Taken<'_>) -> Verdict {
        let verdict = match &taken.said.policy {
            None => self.admission.decide(&taken.shape.request()),
            Some((policy, decision)) => self.admission.apply(decision, policy.mode),
        };
        match taken.covered {
            Some(covered) => covered.lift(verdict),
            None => verdict,
        }
    }

    /// Writes the intent of a command that may run.
    fn intend(&mut self, taken: &Taken<'_>) -> Result<Pending, Fault> {
        self.policing.runs(taken.said.facts.as_deref());
        if let Some(covered) = taken.covered {
            self.runs_under(covered);
        }
        let ruled = Ruled::by(model::Verdict::Allow, taken.said);
        self.log.intent(&taken.intent(ruled)).map_err(Fault::record)
    }

    /// Why the policy refuses this Parse, if it is one and it does. The server does not get to see its text, of which it
    /// might run parts at once.
    fn refuse_parse(&mut self, message: &[u8]) -> Result<Option<Refusal>, Fault> {
        let Some((name, text)) = parse_of(message) else { return Ok(None) };
        let transaction = self.tap.transaction();
        let Some(said) = self.policing.prepared(text, transaction, self.commands) else { return Ok(None) };
        let shape = entries::Shape::of_parse(name, transaction);
        let parameters = &entries::NO_PARAMETERS;
        let taken = Taken { shape: &shape, text: &entries::NOT_SEEN, parameters, said: &said, covered: None };
        // People decide on a command with its parameters: at its Bind.
        let Verdict::Deny(denial) = self.decide(&taken) else { return Ok(None) };
        let text = self.log.seal(text);
        let glasses = self.policing.break_glass();
        let covered = self.policing.covered_by(&glasses);
        let taken = Taken { text: &text, covered: covered.as_ref(), ..taken };
        self.refuse(&taken, &denial).map(Some)
    }

    /// Records a command that the policy refuses, and says why to its client. It is never forwarded.
    fn refuse(&mut self, taken: &Taken<'_>, denial: &Denial) -> Result<Refusal, Fault> {
        let message = words::why_denied("statement", taken.decision(), denial);
        self.refuse_saying(taken, POLICY_CODE, message)
    }

    /// As [`Session::refuse`], in these words.
    pub(super) fn refuse_saying(&mut self, taken: &Taken<'_>, code: &str, message: String) -> Result<Refusal, Fault> {
        let sealed = self.log.seal(message.as_bytes());
        let intent = taken.intent(Ruled::by(model::Verdict::Deny, taken.said));
        let (command, _) = self.log.settled(&intent, &entries::denied(code, sealed)).map_err(Fault::record)?;
        let hint = format!("It was not sent to the server. The record has it as {command}.");
        Ok(Refusal::Denied { code: code.to_owned(), message, hint: Some(hint) })
    }

    /// Records a command that the gateway refuses: it is never forwarded.
    fn settle_denied(
        &mut self,
        shape: entries::Shape<'_>,
        text: &Field,
        parameters: &Field,
        refusal: &Refusal,
    ) -> Result<(), Fault> {
        let message = self.log.seal(refusal.message().as_bytes());
        let rules = [shape.denied_by()];
        let settled = self.marked(|session, glass| {
            let ruled = Ruled::refused(&rules, session.policing.digest()).while_open(glass);
            let intent = shape.intent(text, parameters, ruled);
            session.log.settled(&intent, &entries::denied(refusal.code(), message))
        });
        settled.map(drop).map_err(Fault::record)
    }

    /// The text of a command; none where it is not known any more, and then the command must not run.
    fn text_field(&mut self, text: &Text<'_>) -> Option<Field> {
        Some(match text {
            Text::Inline(text) => self.log.seal(text),
            Text::Prepared { id, text } => match self.sealed.get(id) {
                Some(field) => field.clone(),
                None => {
                    let field = self.log.seal(text);
                    self.remember(*id, field.clone());
                    field
                }
            },
            Text::Spooled { id } => return self.spooled.get(id).cloned(),
            Text::None => entries::NO_TEXT,
        })
    }

    fn parameters_field(&mut self, parameters: Option<&Parameters<'_>>) -> Result<Field, Fault> {
        let Some(parameters) = parameters else {
            return Ok(entries::NO_PARAMETERS);
        };
        let mut json = std::mem::take(&mut self.scratch);
        json.clear();
        let field = match parameters.to_json(&mut json, INLINE_BYTES_MAX) {
            Ok(()) => Ok(self.log.seal(&json)),
            // Too long to be written out: the values as they came.
            Err(_) => self.raw_parameters(parameters.raw()),
        };
        self.scratch = json;
        field
    }

    fn raw_parameters(&mut self, raw: &[u8]) -> Result<Field, Fault> {
        let mut blob = self.log.blob().map_err(Fault::record)?;
        blob.write(raw).map_err(Fault::record)?;
        let (field, _) = blob.form(BlobForm::Message).finish().map_err(Fault::record)?;
        Ok(field)
    }

    fn remember(&mut self, id: u64, field: Field) {
        if self.sealed.len() >= SEALED_TEXTS_MAX {
            self.sealed.clear();
        }
        self.sealed.insert(id, field);
    }

    /// Forwards what has become safe to forward.
    pub(super) fn admit(&mut self, cx: &mut Context<'_>) -> Result<Moved, Fault> {
        let Some(last) = self.held.back() else {
            return Ok(Moved::No);
        };
        if self.abandoned() {
            return Ok(Moved::No);
        }
        let level = match self.durability {
            Durability::Intent | Durability::Both => Level::Durable,
            Durability::Held | Durability::Written => Level::Written,
        };
        match self.gate.poll(cx, last.ready, level) {
            Poll::Pending => return Ok(Moved::No),
            Poll::Ready(reached) => reached.map_err(Fault::record)?,
        }
        while let Some(Held { key, staged, permit, pending, ready }) = self.held.pop_front() {
            match self.gate.admit(pending, level) {
                Ok(recorded) => {
                    self.forwarded = Some(ready);
                    self.upstream.forward(staged, &permit, &recorded);
                    self.open.push_back(Open { key, recorded });
                    self.commands += 1;
                }
                Err(pending) => {
                    self.held.push_front(Held { key, staged, permit, pending, ready });
                    return Ok(Moved::No);
                }
            }
        }
        Ok(Moved::Yes)
    }
}
