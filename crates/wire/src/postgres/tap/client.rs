//! From the client: one message at a time.

use super::bodies::{BindBody, ParseBody, query_text};
use super::commands::Open;
use super::large::Large;
use super::names::{Change, Lookup, Portal, Prepared, Statement};
use super::types::{
    ClientStep, CommandKey, Draft, Executing, LargeKind, OutcomeStatus, Passive, Peeked, Purpose, Refusal, Text, Via,
    Violation,
};
use super::{Kind, Tap};
use crate::cursor::Cursor;
use crate::postgres::lexer::{self, Class};
use crate::postgres::message;
use crate::postgres::parameters::Parameters;

/// As the server has it: `PQ_SMALL_MESSAGE_LIMIT` and `PQ_LARGE_MESSAGE_LIMIT`.
const SMALL_BYTES_MAX: u32 = 10_000;
const LARGE_BYTES_MAX: u32 = 0x3FFF_FFFE;
const HEADER_BYTES: usize = 5;
/// One client message may need this many entries (what we inject before it, and itself).
const ENTRIES_PER_MESSAGE: usize = 3;
/// libpq's large object calls (pg_proc): all that FunctionCall may reach.
const LARGE_OBJECT_FUNCTIONS: [u32; 13] = [715, 952, 953, 954, 955, 956, 957, 958, 964, 1004, 3170, 3171, 3172];

impl Tap {
    /// The next message of the client's bytes. Call again with the rest until `NeedMore` or `Wait`.
    pub fn client<'b>(&mut self, bytes: &'b [u8]) -> Result<ClientStep<'b>, Violation> {
        if self.large.is_some() {
            return Ok(ClientStep::NeedMore);
        }
        if self.client_body > 0 {
            return Ok(self.copy_data_continued(bytes));
        }
        let Some(header) = bytes.first_chunk::<HEADER_BYTES>() else {
            return Ok(ClientStep::NeedMore);
        };
        let [kind, length @ ..] = *header;
        let total = self.total(kind, u32::from_be_bytes(length))?;
        if self.held(kind)? {
            return Ok(self.wait());
        }
        if kind == b'd' {
            return Ok(self.copy_data(bytes, total));
        }
        if total - HEADER_BYTES > self.limits.buffered_bytes_max
            && let Some(large) = large_kind(kind)
        {
            return Ok(self.begin_large(*header, large, total - HEADER_BYTES));
        }
        let Some(message) = bytes.get(..total) else {
            return Ok(ClientStep::NeedMore);
        };
        let body = message.get(HEADER_BYTES..).unwrap_or_default();
        self.message(kind, message, body)
    }

    /// The text that the next message runs or prepares, if it is a whole Query, Parse or Bind whose text is known. Takes
    /// nothing, and says nothing of whether the message will be taken.
    pub fn peek<'b>(&self, bytes: &'b [u8]) -> Option<Peeked<'b>> {
        let [kind, length @ ..] = *bytes.first_chunk::<HEADER_BYTES>()?;
        if !matches!(kind, b'Q' | b'P' | b'B') || self.large.is_some() || self.client_body > 0 || self.copy_in {
            return None;
        }
        let total = self.total(kind, u32::from_be_bytes(length)).ok()?;
        if total - HEADER_BYTES > self.limits.buffered_bytes_max {
            return None;
        }
        let body = bytes.get(HEADER_BYTES..total)?;
        if kind == b'Q' {
            let (purpose, text) = (Purpose::Run, Text::Inline(query_text(body)?));
            return Some(Peeked { purpose, text, reading: self.trust.reading() });
        }
        let mut cursor = Cursor(body);
        let (_name, text) = (cursor.string()?, cursor.string()?);
        if kind == b'P' {
            return Some(Peeked { purpose: Purpose::Prepare, text: Text::Inline(text), reading: self.trust.reading() });
        }
        let name = text;
        let Lookup::Known(statement) = self.names.statement(name, self.segment) else { return None };
        // As `plan_bind` has it: it is defined again first.
        let again = !name.is_empty() && statement.epoch != self.trust.epoch;
        let reading = if again { self.trust.reading() } else { statement.reading };
        Some(Peeked { purpose: Purpose::Run, text: Text::of(&statement.prepared), reading })
    }

    /// Length of the whole message, if its type may have it.
    fn total(&self, kind: u8, length: u32) -> Result<usize, Violation> {
        let max = match kind {
            b'Q' | b'P' | b'B' | b'F' | b'd' => LARGE_BYTES_MAX,
            b'E' | b'D' | b'C' | b'H' | b'S' | b'X' | b'c' | b'f' => SMALL_BYTES_MAX,
            _ => return Err(Violation::ClientUnexpected { kind }),
        };
        if !(4..=max).contains(&length) {
            return Err(Violation::ClientLength { kind, length });
        }
        let total = usize::try_from(length).unwrap_or(usize::MAX).saturating_add(1);
        if kind != b'd' && max == LARGE_BYTES_MAX && total > self.limits.message_bytes_max {
            return Err(Violation::MessageTooLarge { bytes: total, bytes_max: self.limits.message_bytes_max });
        }
        Ok(total)
    }

    /// Whether the client has to wait before this message is looked at.
    fn held(&self, kind: u8) -> Result<bool, Violation> {
        if kind == b'X' {
            return Ok(false);
        }
        if self.copy_in {
            return match kind {
                b'd' | b'c' | b'f' | b'H' | b'S' => Ok(false),
                _ => Err(Violation::ClientUnexpected { kind }),
            };
        }
        let in_flight_max = self.limits.commands_in_flight_max.max(ENTRIES_PER_MESSAGE);
        if self.skipping && self.commands.len() > in_flight_max.saturating_mul(2) {
            return Err(Violation::TooMany { what: "commands without a Sync", limit: in_flight_max });
        }
        let full = self.queue.len() + ENTRIES_PER_MESSAGE > in_flight_max
            || self.names.pending_bytes() > self.limits.names_bytes_max;
        Ok(self.hold || (full && !self.queue.is_empty()))
    }

    /// The server keeps replies back until it is told to flush: without that we would both wait.
    fn wait<'b>(&mut self) -> ClientStep<'b> {
        self.stalled = true;
        if self.unflushed {
            self.unflushed = false;
            return ClientStep::Pass(Passive { inject: message::flush(), bytes: &[], consumed: 0 });
        }
        ClientStep::Wait
    }

    fn message<'b>(&mut self, kind: u8, message: &'b [u8], body: &'b [u8]) -> Result<ClientStep<'b>, Violation> {
        let malformed = || Violation::ClientMalformed { kind };
        match kind {
            b'Q' => {
                let text = query_text(body).ok_or_else(malformed)?;
                Ok(self.query(message, text))
            }
            b'P' => {
                let parse = ParseBody::read(body).ok_or_else(malformed)?;
                Ok(self.parse(message, parse))
            }
            b'B' => {
                let bind = BindBody::read(body).ok_or_else(malformed)?;
                self.bind(message, bind)
            }
            b'E' => {
                let mut cursor = Cursor(body);
                let portal = cursor.string().ok_or_else(malformed)?;
                cursor.u32().filter(|_| cursor.is_empty()).ok_or_else(malformed)?;
                Ok(self.execute(message, portal))
            }
            b'D' | b'C' => {
                let mut cursor = Cursor(body);
                let what = cursor.u8().filter(|what| matches!(what, b'S' | b'P')).ok_or_else(malformed)?;
                let name = cursor.string().filter(|_| cursor.is_empty()).ok_or_else(malformed)?;
                Ok(if kind == b'D' { self.describe(message, what, name) } else { self.close(message, what, name) })
            }
            b'F' => {
                let oid = Cursor(body).u32().ok_or_else(malformed)?;
                self.function(message, body, oid).ok_or_else(malformed)
            }
            b'S' => Ok(self.sync(message)),
            b'H' if body.is_empty() => {
                if self.copy_in {
                    return Ok(ClientStep::Swallow(message.len()));
                }
                self.unflushed = false;
                Ok(ClientStep::Pass(Passive::verbatim(message)))
            }
            b'c' if body.is_empty() => Ok(self.copy_end(message)),
            b'f' if query_text(body).is_some() => Ok(self.copy_end(message)),
            b'X' => Ok(ClientStep::End(Passive::verbatim(message))),
            _ => Err(malformed()),
        }
    }

    fn query<'b>(&mut self, message: &'b [u8], text: &'b [u8]) -> ClientStep<'b> {
        let key = self.begin_query(lexer::classify(text), message.len());
        let draft = self.drafted(key, Via::Simple, Text::Inline(text));
        ClientStep::Command(Executing { inject: Vec::new(), injected_entries: 0, bytes: message.into() }, draft)
    }

    pub(super) fn begin_query(&mut self, class: Class, bytes: usize) -> CommandKey {
        let key = self.draft(Via::Simple, class, bytes);
        if !self.skipping {
            let drops_unnamed = self.names.has_unnamed();
            if drops_unnamed {
                self.names.expect(self.segment, b"", Change::Undefine);
            }
            self.push_entry(Kind::Query { key, copy_in: class.copy_in }, drops_unnamed, false, None);
            self.hold = class.copy_in;
        }
        self.ran(class);
        key
    }

    fn parse<'b>(&mut self, message: &'b [u8], parse: ParseBody<'b>) -> ClientStep<'b> {
        let class = lexer::classify(parse.text);
        let prepared = Prepared::new(self.next, parse.name, Some(parse.text), parse.types, class);
        if !self.skipping {
            self.expect_parse(parse.name, prepared);
        } else if self.names.pending_bytes() < self.limits.names_bytes_max {
            // Only so that the Binds that are skipped with it can be recorded with their text.
            let (epoch, reading) = (self.trust.epoch, self.trust.reading());
            self.names.expect(self.segment, parse.name, Change::Define(Statement { prepared, epoch, reading }));
            self.number();
        }
        ClientStep::Pass(Passive::verbatim(message))
    }

    pub(super) fn expect_parse(&mut self, name: &[u8], prepared: std::sync::Arc<Prepared>) {
        let reading = self.trust.reading();
        let statement = Statement { prepared: prepared.clone(), epoch: self.trust.epoch, reading };
        self.names.expect(self.segment, name, Change::Define(statement));
        self.push_entry(Kind::Parse { prepared }, true, false, None);
    }

    fn bind<'b>(&mut self, message: &'b [u8], bind: BindBody<'b>) -> Result<ClientStep<'b>, Violation> {
        if self.names.portals() > self.limits.names_max {
            return Err(Violation::TooMany { what: "portals", limit: self.limits.names_max });
        }
        let plan = match self.plan_bind(bind.portal, bind.statement, message.len()) {
            Some(plan) => plan,
            None => return Ok(self.wait()),
        };
        let draft = Draft {
            parameters: Some(match &plan.prepared {
                Some(prepared) => bind.parameters.of(prepared.clone()),
                None => bind.parameters,
            }),
            statement: bind.statement,
            portal: bind.portal,
            ..self.drafted(plan.key, Via::Extended, plan.text)
        };
        Ok(match plan.refusal {
            None => ClientStep::Command(
                Executing { inject: plan.inject, injected_entries: plan.injected_entries, bytes: message.into() },
                draft,
            ),
            Some(refusal) => ClientStep::Refuse {
                consumed: message.len(),
                refusal,
                draft: Some(draft),
                substitute: Passive { inject: plan.inject, bytes: &[], consumed: message.len() },
            },
        })
    }

    /// Everything about a Bind but its bytes; `None` to wait.
    pub(super) fn plan_bind<'b>(&mut self, portal: &[u8], name: &[u8], bytes: usize) -> Option<BindPlan<'b>> {
        let found = match self.names.statement(name, self.segment) {
            Lookup::Ambiguous if !self.skipping => return None,
            Lookup::Ambiguous | Lookup::Unknown => None,
            Lookup::Known(statement) => Some(statement),
        };
        let class = found.as_ref().map_or(Class::default(), |statement| statement.prepared.class());
        let key = self.draft(Via::Extended, class, bytes);
        let text = found.as_ref().map_or(Text::None, |statement| Text::of(&statement.prepared));
        let prepared = found.as_ref().map(|statement| statement.prepared.clone());
        let mut plan = BindPlan { key, text, prepared, inject: Vec::new(), injected_entries: 0, refusal: None };
        if self.skipping {
            return Some(plan);
        }
        let refusal = match &found {
            None => Some(Refusal::StatementUnknown),
            // SQL cannot name the unnamed statement.
            Some(statement) if !name.is_empty() && statement.epoch != self.trust.epoch => {
                match statement.prepared.text() {
                    None => Some(Refusal::StatementInDoubt),
                    Some(text) => {
                        message::close(&mut plan.inject, b'S', name);
                        message::parse(&mut plan.inject, name, text, statement.prepared.declared());
                        plan.injected_entries = 2;
                        self.renew(name, statement);
                        None
                    }
                }
            }
            Some(_) => None,
        };
        if let Some(refusal) = refusal {
            plan.inject = self.refuse_bind(key, portal, name, found.is_some(), refusal.clone());
            plan.refusal = Some(refusal);
            self.commands.begins_at(key, self.next - 1);
            return Some(plan);
        }
        self.ran(class);
        self.commands.begins_at(key, self.next);
        if let (Some(open), Some(prepared)) = (self.commands.get(key), &plan.prepared) {
            open.of_statement(prepared.id());
        }
        let opened = Portal { key, epoch: self.trust.epoch, class };
        self.names.expect(self.segment, portal, Change::Open(opened));
        self.push_entry(Kind::Bind { key }, true, false, None);
        Some(plan)
    }

    fn renew(&mut self, name: &[u8], statement: &Statement) {
        self.push_entry(Kind::Close, false, true, None);
        let reading = self.trust.reading();
        let renewed = Statement { prepared: statement.prepared.clone(), epoch: self.trust.epoch, reading };
        self.names.expect(self.segment, name, Change::Renew(renewed));
        self.push_entry(Kind::Parse { prepared: statement.prepared.clone() }, true, true, None);
    }

    fn execute<'b>(&mut self, message: &'b [u8], name: &'b [u8]) -> ClientStep<'b> {
        let pass = ClientStep::Pass(Passive::verbatim(message));
        if self.skipping {
            return pass;
        }
        let portal = match self.names.portal(name, self.segment) {
            Lookup::Ambiguous => return self.wait(),
            Lookup::Known(portal) if name.is_empty() || portal.epoch == self.trust.epoch => portal,
            Lookup::Known(_) => return self.refuse_execute(message, name, Refusal::PortalInDoubt),
            Lookup::Unknown => return self.refuse_execute(message, name, Refusal::PortalUnknown),
        };
        if let Some(open) = self.commands.get(portal.key) {
            open.bytes_up(message.len());
        }
        if self.ran(portal.class) {
            self.names.refresh_portal(name, self.trust.epoch);
        }
        self.push(Kind::Execute { key: portal.key, copy_in: portal.class.copy_in });
        self.hold = portal.class.copy_in;
        pass
    }

    fn describe<'b>(&mut self, message: &'b [u8], what: u8, name: &[u8]) -> ClientStep<'b> {
        if !self.skipping {
            let kind = if what == b'P' {
                Kind::DescribePortal
            } else {
                let prepared = match self.names.statement(name, self.segment) {
                    Lookup::Known(statement) if name.is_empty() || statement.epoch == self.trust.epoch => {
                        Some(statement.prepared)
                    }
                    Lookup::Known(_) | Lookup::Ambiguous | Lookup::Unknown => None,
                };
                Kind::DescribeStatement { prepared }
            };
            self.push(kind);
        }
        ClientStep::Pass(Passive::verbatim(message))
    }

    fn close<'b>(&mut self, message: &'b [u8], what: u8, name: &[u8]) -> ClientStep<'b> {
        if !self.skipping {
            let change = if what == b'S' { Change::Undefine } else { Change::Close };
            self.names.expect(self.segment, name, change);
            self.push_entry(Kind::Close, true, false, None);
        }
        ClientStep::Pass(Passive::verbatim(message))
    }

    fn function<'b>(&mut self, message: &'b [u8], body: &'b [u8], oid: u32) -> Option<ClientStep<'b>> {
        let mut cursor = Cursor(body);
        cursor.u32()?;
        let parameters = Parameters::parse(&mut cursor)?;
        cursor.u16().filter(|_| cursor.is_empty())?;
        let key = self.draft(Via::Function, Class::default(), message.len());
        let draft = Draft {
            parameters: Some(parameters),
            function_oid: Some(oid),
            ..self.drafted(key, Via::Function, Text::None)
        };
        if LARGE_OBJECT_FUNCTIONS.contains(&oid) {
            if !self.skipping {
                self.push(Kind::Function { key });
            }
            let executing = Executing { inject: Vec::new(), injected_entries: 0, bytes: message.into() };
            return Some(ClientStep::Command(executing, draft));
        }
        let refusal = Refusal::FunctionCall { oid };
        let inject = self.refuse_function(key, refusal.clone());
        Some(ClientStep::Refuse {
            consumed: message.len(),
            refusal,
            draft: Some(draft),
            substitute: Passive { inject, bytes: &[], consumed: message.len() },
        })
    }

    pub(super) fn may_call(oid: u32) -> bool {
        LARGE_OBJECT_FUNCTIONS.contains(&oid)
    }

    fn sync<'b>(&mut self, message: &'b [u8]) -> ClientStep<'b> {
        if self.copy_in {
            return ClientStep::Swallow(message.len());
        }
        if self.skipping {
            self.names.forget_pending();
        }
        self.push(Kind::Sync);
        self.segment += 1;
        self.skipping = false;
        ClientStep::Pass(Passive::verbatim(message))
    }

    fn copy_data<'b>(&mut self, bytes: &'b [u8], total: usize) -> ClientStep<'b> {
        let now = bytes.get(..total.min(bytes.len())).unwrap_or(bytes);
        self.client_body = total - now.len();
        if let Some(open) = self.copying() {
            open.bytes_up(now.len());
            open.copied(now.len().saturating_sub(HEADER_BYTES));
        }
        ClientStep::Pass(Passive::verbatim(now))
    }

    fn copy_data_continued<'b>(&mut self, bytes: &'b [u8]) -> ClientStep<'b> {
        let now = bytes.get(..self.client_body.min(bytes.len())).unwrap_or(bytes);
        if now.is_empty() {
            return ClientStep::NeedMore;
        }
        self.client_body -= now.len();
        if let Some(open) = self.copying() {
            open.bytes_up(now.len());
            open.copied(now.len());
        }
        ClientStep::Pass(Passive::verbatim(now))
    }

    /// CopyDone or CopyFail. A Query may have another COPY after this one, so that the client is still held; an
    /// Execute has not, and answers every Sync from here on.
    fn copy_end<'b>(&mut self, message: &'b [u8]) -> ClientStep<'b> {
        if let Some(open) = self.copying() {
            open.bytes_up(message.len());
        }
        if self.copy_in {
            self.copy_in = false;
            self.hold = matches!(self.queue.front().map(|entry| &entry.kind), Some(Kind::Query { .. }));
        }
        ClientStep::Pass(Passive::verbatim(message))
    }

    /// The command whose COPY FROM STDIN is on; data outside of one is ignored by the server, and not counted.
    fn copying(&mut self) -> Option<&mut Open> {
        if !self.copy_in && !self.hold {
            return None;
        }
        let key = self.queue.front()?.kind.key()?;
        self.commands.get(key)
    }

    fn begin_large<'b>(&mut self, header: [u8; 5], kind: LargeKind, body_bytes: usize) -> ClientStep<'b> {
        if kind == LargeKind::Bind && self.names.unsettled(self.segment) {
            return self.wait();
        }
        self.large = Some(Box::new(Large::new(header, kind, body_bytes)));
        ClientStep::Large { header, kind, body_bytes }
    }

    pub(super) fn draft(&mut self, via: Via, class: Class, bytes: usize) -> CommandKey {
        let began = self.next;
        let key = self.commands.draft(began, via, class);
        if self.skipping {
            self.number();
            self.commands.stop(key, OutcomeStatus::Skipped);
        }
        if let Some(open) = self.commands.get(key) {
            open.bytes_up(bytes);
        }
        key
    }

    pub(super) fn drafted<'b>(&self, key: CommandKey, via: Via, text: Text<'b>) -> Draft<'b> {
        Draft {
            key,
            via,
            text,
            parameters: None,
            statement: b"",
            portal: b"",
            transaction: self.transaction,
            function_oid: None,
        }
    }

    /// A text of this class runs: says whether names are in doubt after it.
    pub(super) fn ran(&mut self, class: Class) -> bool {
        let misread = class.backslash && !(self.trust.conforming && self.trust.conforming_known);
        self.trust.opaque |= class.opaque || misread || (class.builtins && self.trust.shadowed);
        self.trust.shadowed |= class.shadows;
        let doubt = class.names || self.trust.opaque;
        if doubt {
            self.doubt();
        }
        doubt
    }
}

/// What a Bind comes to.
pub(super) struct BindPlan<'b> {
    pub(super) key: CommandKey,
    pub(super) text: Text<'b>,
    pub(super) prepared: Option<std::sync::Arc<Prepared>>,
    pub(super) inject: Vec<u8>,
    pub(super) injected_entries: usize,
    pub(super) refusal: Option<Refusal>,
}

fn large_kind(kind: u8) -> Option<LargeKind> {
    match kind {
        b'B' => Some(LargeKind::Bind),
        b'F' => Some(LargeKind::Function),
        b'P' => Some(LargeKind::Parse),
        b'Q' => Some(LargeKind::Query),
        _ => None,
    }
}
