//! Messages that are too long to be looked at in memory: the gateway spools their body, the tap reads it as it
//! comes and keeps only names, type ids and where the text and the parameters are.
//!
//! Their texts are not read: they count as able to do everything (`Class::UNREAD`).

use super::bodies::oids;
use super::names::Prepared;
use super::types::{CommandKey, LargeKind, Passive, Refusal, TxStatus, Via, Violation};
use super::{Kind, Tap, Text};
use crate::cursor::Cursor;
use crate::postgres::lexer::Class;
use std::ops::Range;

/// Longest name in a large message.
const NAME_BYTES_MAX: usize = 4096;
/// What may follow a Parse's text: a count and as many type ids.
const TYPES_BYTES_MAX: usize = 2 + 4 * 65_535;

/// Header of a large message that executes; its spooled body follows it.
#[derive(Debug)]
#[must_use]
pub struct ExecutingLarge {
    bytes: Vec<u8>,
    pub(super) injected_entries: usize,
}

/// Header of a large message that executes nothing; its spooled body follows it.
#[derive(Debug)]
#[must_use]
pub struct PassiveLarge {
    bytes: Vec<u8>,
}

impl ExecutingLarge {
    /// Appends what goes upstream before the body.
    pub fn write_to(self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.bytes);
    }
}

impl PassiveLarge {
    /// Appends what goes upstream before the body.
    pub fn write_to(self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.bytes);
    }
}

/// Where a large message stands.
// Moved once for a message of more than a MiB: a box would buy nothing.
#[allow(clippy::large_enum_variant)]
#[derive(Debug)]
#[must_use]
pub enum LargeStep {
    /// All of the body was seen.
    Done(LargeDraft),
    /// More of the body is to come.
    More,
}

/// What a large message is.
#[derive(Debug)]
pub struct LargeDraft {
    /// Which message.
    pub kind: LargeKind,
    /// Its command; none for Parse.
    pub key: Option<CommandKey>,
    /// How it was sent.
    pub via: Via,
    /// What it runs, or defines.
    pub text: LargeText,
    /// Where in the body the format codes and values of its parameters are.
    pub parameters: Option<Range<usize>>,
    /// Name of its prepared statement.
    pub statement: Vec<u8>,
    /// Name of its portal.
    pub portal: Vec<u8>,
    /// The transaction status that the server said last.
    pub transaction: TxStatus,
    /// The function of a FunctionCall.
    pub function_oid: Option<u32>,
    /// Of a Parse: the id by which later texts name it ([`Text::Spooled`]).
    pub spooled_id: Option<u64>,
    /// What to do with it.
    pub pass: LargePass,
}

/// The text of a large message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LargeText {
    /// This part of its body.
    Body(Range<usize>),
    /// Of an earlier Parse, or none.
    Known(Text<'static>),
}

/// What to do with a large message.
#[derive(Debug)]
#[must_use]
pub enum LargePass {
    /// Record its intent, then forward these bytes and the body.
    Executing(ExecutingLarge),
    /// Forward these bytes and the body.
    Passive(PassiveLarge),
    /// Forward these bytes, and not the body; as [`super::ClientStep::Refuse`].
    Refuse(Refusal, Passive<'static>),
}

/// A large message whose body is being read.
#[derive(Debug)]
pub(super) struct Large {
    header: [u8; 5],
    kind: LargeKind,
    body_bytes: usize,
    seen: usize,
    /// Strings that are still to be read before the rest.
    strings: usize,
    /// The string that is being read: its start, and of a name its bytes.
    start: usize,
    names: [Vec<u8>; 2],
    text: Option<Range<usize>>,
    /// What follows the strings, as far as it is needed.
    tail: Vec<u8>,
    tail_start: usize,
}

impl Large {
    pub(super) fn new(header: [u8; 5], kind: LargeKind, body_bytes: usize) -> Self {
        let strings = match kind {
            LargeKind::Bind | LargeKind::Parse => 2,
            LargeKind::Query => 1,
            LargeKind::Function => 0,
        };
        Self {
            header,
            kind,
            body_bytes,
            seen: 0,
            strings,
            start: 0,
            names: [Vec::new(), Vec::new()],
            text: None,
            tail: Vec::new(),
            tail_start: 0,
        }
    }

    fn malformed(&self) -> Violation {
        Violation::ClientMalformed { kind: self.header[0] }
    }

    /// Which of the strings is read now is the text, and not a name.
    fn reads_text(&self) -> bool {
        self.strings == 1 && matches!(self.kind, LargeKind::Parse | LargeKind::Query)
    }

    fn read(&mut self, mut bytes: &[u8]) -> Result<(), Violation> {
        while self.strings > 0 && !bytes.is_empty() {
            let end = memchr(bytes);
            let (part, rest) = bytes.split_at_checked(end.unwrap_or(bytes.len())).unwrap_or((bytes, &[]));
            if !self.reads_text() {
                let [first, second] = &mut self.names;
                let name = if self.strings == 1 { second } else { first };
                name.extend_from_slice(part);
                if name.len() > NAME_BYTES_MAX {
                    return Err(self.malformed());
                }
            }
            self.seen += part.len();
            bytes = rest;
            if end.is_some() {
                if self.reads_text() {
                    self.text = Some(self.start..self.seen);
                }
                self.strings -= 1;
                self.seen += 1;
                self.start = self.seen;
                self.tail_start = self.seen;
                bytes = bytes.get(1..).unwrap_or_default();
            }
        }
        let needed = match self.kind {
            LargeKind::Parse => TYPES_BYTES_MAX + 1,
            LargeKind::Function => 4,
            LargeKind::Bind => 0,
            LargeKind::Query => 1,
        };
        let wanted = needed.saturating_sub(self.tail.len()).min(bytes.len());
        self.tail.extend_from_slice(bytes.get(..wanted).unwrap_or_default());
        self.seen += bytes.len();
        Ok(())
    }
}

impl Tap {
    /// The next part of a large message's body, at most up to its end.
    pub fn large(&mut self, body: &[u8]) -> Result<LargeStep, Violation> {
        let Some(large) = &mut self.large else {
            return Err(Violation::ClientUnexpected { kind: 0 });
        };
        if body.len() > large.body_bytes - large.seen {
            return Err(large.malformed());
        }
        large.read(body)?;
        if large.seen < large.body_bytes {
            return Ok(LargeStep::More);
        }
        let Some(large) = self.large.take() else {
            return Ok(LargeStep::More);
        };
        if large.strings > 0 {
            return Err(large.malformed());
        }
        self.large_done(*large).map(LargeStep::Done)
    }

    fn large_done(&mut self, large: Large) -> Result<LargeDraft, Violation> {
        let malformed = large.malformed();
        let bytes = large.body_bytes + large.header.len();
        let header = large.header.to_vec();
        let [first, second] = large.names;
        let mut draft = LargeDraft {
            kind: large.kind,
            key: None,
            via: Via::Simple,
            text: LargeText::Known(Text::None),
            parameters: None,
            statement: Vec::new(),
            portal: Vec::new(),
            transaction: self.transaction,
            function_oid: None,
            spooled_id: None,
            pass: LargePass::Passive(PassiveLarge { bytes: Vec::new() }),
        };
        match large.kind {
            LargeKind::Query => {
                if !large.tail.is_empty() {
                    return Err(malformed);
                }
                draft.text = LargeText::Body(large.text.ok_or(malformed)?);
                let key = self.begin_query(Class::UNREAD, bytes);
                draft.key = Some(key);
                draft.pass = LargePass::Executing(ExecutingLarge { bytes: header, injected_entries: 0 });
            }
            LargeKind::Parse => {
                let mut tail = Cursor(&large.tail);
                let types = tail.u16().and_then(|count| oids(tail.0, count)).ok_or(malformed)?;
                draft.via = Via::Parse;
                draft.text = LargeText::Body(large.text.ok_or(malformed)?);
                draft.spooled_id = Some(self.next);
                let prepared = Prepared::new(self.next, &first, None, types, Class::UNREAD);
                if self.skipping {
                    self.number();
                } else {
                    self.expect_parse(&first, prepared);
                }
                draft.statement = first;
                draft.pass = LargePass::Passive(PassiveLarge { bytes: header });
            }
            LargeKind::Bind => {
                draft.via = Via::Extended;
                draft.parameters = Some(large.tail_start..large.body_bytes);
                // It was not begun while a change of an earlier segment was pending, so that this never waits.
                let plan = self.plan_bind(&first, &second, bytes).ok_or(malformed)?;
                draft.key = Some(plan.key);
                draft.text = LargeText::Known(plan.text);
                draft.portal = first;
                draft.statement = second;
                let mut inject = plan.inject;
                draft.pass = match plan.refusal {
                    Some(refusal) => LargePass::Refuse(refusal, Passive { inject, bytes: &[], consumed: 0 }),
                    None => {
                        inject.extend_from_slice(&header);
                        LargePass::Executing(ExecutingLarge { bytes: inject, injected_entries: plan.injected_entries })
                    }
                };
            }
            LargeKind::Function => {
                let oid = Cursor(&large.tail).u32().ok_or(malformed)?;
                let key = self.draft(Via::Function, Class::default(), bytes);
                draft.via = Via::Function;
                draft.key = Some(key);
                draft.function_oid = Some(oid);
                draft.parameters = Some(4..large.body_bytes);
                draft.pass = if Self::may_call(oid) {
                    if !self.skipping {
                        self.push(Kind::Function { key });
                    }
                    LargePass::Executing(ExecutingLarge { bytes: header, injected_entries: 0 })
                } else {
                    let refusal = Refusal::FunctionCall { oid };
                    let inject = self.refuse_function(key, refusal.clone());
                    LargePass::Refuse(refusal, Passive { inject, bytes: &[], consumed: 0 })
                };
            }
        }
        Ok(draft)
    }
}

/// Where the first NUL is; `contains` and `position` of the standard library are too slow and too vague for it.
fn memchr(bytes: &[u8]) -> Option<usize> {
    std::ffi::CStr::from_bytes_until_nul(bytes).ok().map(|text| text.to_bytes().len())
}
