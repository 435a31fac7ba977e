//! From the server: a walk over message headers. Rows and COPY data are not looked at.

use super::types::{CopyDirection, Effective, Event, ParseText, Refusal, ServerStep, TxStatus, Violation};
use super::{CommandOutcome, Entry, Kind, Tap};
use crate::cursor::Cursor;
use crate::postgres::fields::{ErrorFields, error_fields};

/// The longest server message that is waited for as a whole; of a longer error, what is looked at. The caller's
/// buffer must have room for this many bytes.
pub(super) const WHOLE_BYTES_MAX: usize = 32 * 1024;
const HEADER_BYTES: usize = 5;
/// With these an Execute or a Query was looked at, and nothing of it ran.
const IN_FAILED_TRANSACTION: &str = "25P02";
const NO_SUCH_PORTAL: &str = "34000";
const MESSAGE_BYTES_MAX: u32 = 0x3FFF_FFFF;

/// What is done with a message.
enum Fate {
    Drop,
    Pass,
    /// Dropped, and this is said instead.
    Replace(Vec<u8>),
}

impl Tap {
    /// Follows the server's bytes, and stops after a message that made an event or that is dropped. What is neither
    /// passed nor skipped is to be given again with more bytes behind it.
    pub fn server(&mut self, bytes: &[u8], events: &mut Vec<Event>) -> Result<ServerStep, Violation> {
        let mut step = ServerStep::default();
        loop {
            let rest = bytes.get(step.pass..).unwrap_or_default();
            if self.server_body > 0 {
                let now = self.server_body.min(rest.len());
                if now == 0 {
                    return Ok(step);
                }
                self.server_body -= now;
                if self.server_body_dropped {
                    step.skip = now;
                    step.more = rest.len() > now;
                    return Ok(step);
                }
                step.pass += now;
                continue;
            }
            let Some(&[kind, a, b, c, d]) = rest.first_chunk::<HEADER_BYTES>() else {
                return Ok(step);
            };
            let total = match server_total(kind, u32::from_be_bytes([a, b, c, d])) {
                Ok(total) => total,
                Err(violation) => return after(step, violation),
            };
            let looked_at = if passes_in_pieces(kind) { HEADER_BYTES } else { total.min(WHOLE_BYTES_MAX) };
            let Some(head) = rest.get(..looked_at) else {
                return Ok(step);
            };
            let before = events.len();
            let body = head.get(HEADER_BYTES..).unwrap_or_default();
            let fate = match self.reply(kind, body, total, events) {
                Ok(fate) => fate,
                Err(violation) => return after(step, violation),
            };
            let now = total.min(rest.len());
            self.server_body = total - now;
            self.server_body_dropped = !matches!(fate, Fate::Pass);
            match fate {
                Fate::Pass => {
                    if matches!(kind, b'C' | b'E' | b'I' | b's' | b'V' | b'Z') {
                        step.boundary = Some(step.pass);
                    }
                    step.pass += now;
                }
                Fate::Drop => step.skip = now,
                Fate::Replace(reply) => {
                    step.skip = now;
                    step.reply = reply;
                }
            }
            if events.len() > before || step.skip > 0 {
                step.more = rest.len() > now;
                return Ok(step);
            }
        }
    }

    fn reply(&mut self, kind: u8, body: &[u8], total: usize, events: &mut Vec<Event>) -> Result<Fate, Violation> {
        let desync = Err(Violation::ServerDesync { kind });
        match kind {
            b'A' => return Ok(Fate::Pass),
            b'N' => {
                if let Some(open) = self.front_command() {
                    open.notice();
                    open.bytes_down(total);
                }
                return Ok(Fate::Pass);
            }
            b'S' => {
                let mut cursor = Cursor(body);
                let (Some(name), Some(value)) = (cursor.string(), cursor.string()) else {
                    return Err(Violation::ServerMalformed { kind });
                };
                self.trust.parameter(name, value);
                events.push(Event::Parameter { name: name.to_vec(), value: value.to_vec() });
                return Ok(Fate::Pass);
            }
            b'E' => return self.error(error_fields(body), total, events),
            b'Z' => {
                let status = match body {
                    [byte] => TxStatus::from_byte(*byte),
                    _ => None,
                };
                self.ready(status.ok_or(Violation::ServerMalformed { kind })?, events)?;
                return Ok(Fate::Pass);
            }
            _ => {}
        }
        let Some(front) = self.queue.front() else {
            return desync;
        };
        if front.refusal.is_some() {
            return desync;
        }
        match (kind, &front.kind) {
            (b'D', Kind::Query { .. } | Kind::Execute { .. }) => {
                if let Some(open) = self.front_command() {
                    open.row();
                    open.bytes_down(total);
                }
            }
            (b'd', Kind::Query { .. } | Kind::Execute { .. }) => {
                if let Some(open) = self.front_command() {
                    open.copied(total - HEADER_BYTES);
                    open.bytes_down(total);
                }
            }
            (b'T' | b'c', Kind::Query { .. } | Kind::Execute { .. }) => self.count(total),
            (b'C', Kind::Query { .. } | Kind::Execute { .. }) => {
                let tag = Cursor(body).string().ok_or(Violation::ServerMalformed { kind })?;
                self.complete(tag, total, events);
            }
            (b'I', Kind::Query { .. } | Kind::Execute { .. }) => self.complete(b"", total, events),
            (b's', Kind::Execute { .. }) => {
                if let Some(open) = self.front_command() {
                    open.suspend();
                    open.bytes_down(total);
                }
                self.pop();
            }
            (b'1', Kind::Parse { .. }) | (b'3', Kind::Close) => {
                let injected = front.injected;
                self.confirm();
                if injected {
                    return Ok(Fate::Drop);
                }
            }
            (b'2', Kind::Bind { .. }) => self.confirm(),
            (b't', Kind::DescribeStatement { prepared }) => {
                // Longer ones are not looked at: their parameters are recorded by number.
                if let Some(prepared) = prepared
                    && let Some(types) = described(body)
                {
                    prepared.describe(types);
                }
            }
            (b'T' | b'n', Kind::DescribeStatement { .. } | Kind::DescribePortal) => {
                self.pop();
            }
            (b'G', Kind::Query { copy_in: true, .. } | Kind::Execute { copy_in: true, .. }) => {
                self.copy_in = true;
                self.hold = false;
                self.stalled = false;
                self.copy(CopyDirection::In, total);
            }
            (b'H', Kind::Query { .. } | Kind::Execute { .. }) => self.copy(CopyDirection::Out, total),
            (b'V', Kind::Function { .. }) => {
                if let Some(open) = self.front_command() {
                    open.executed();
                }
                self.count(total);
            }
            // Everything else, CopyBothResponse among it.
            _ => return desync,
        }
        Ok(Fate::Pass)
    }

    fn complete(&mut self, tag: &[u8], total: usize, events: &mut Vec<Event>) {
        let Some(front) = self.queue.front() else {
            return;
        };
        let number = front.number;
        let ends_execute = matches!(front.kind, Kind::Execute { .. });
        let mut savepoint = false;
        if let Some(open) = self.front_command() {
            open.result(tag);
            open.bytes_down(total);
            savepoint = open.savepoint();
        }
        match tag {
            b"COMMIT" => self.commands.settle(number, Effective::Committed),
            b"ROLLBACK" if savepoint => self.commands.settle(number, Effective::Unknown),
            b"ROLLBACK" => self.commands.settle(number, Effective::RolledBack),
            b"PREPARE TRANSACTION" => self.commands.settle(number, Effective::Unknown),
            _ => {}
        }
        if ends_execute {
            self.copy_in = false;
            self.pop();
            self.commands.relieve(self.limits.commands_in_flight_max, events);
        }
    }

    fn error(&mut self, fields: ErrorFields, total: usize, events: &mut Vec<Event>) -> Result<Fate, Violation> {
        if fields.ends_session() {
            events.push(Event::Fatal { code: fields.code, message: fields.message });
            return Ok(Fate::Pass);
        }
        self.copy_in = false;
        self.segment_error = true;
        let Some(front) = self.queue.front_mut() else {
            return Err(Violation::ServerDesync { kind: b'E' });
        };
        if front.kind.ends_with_ready() {
            let refusal = front.refusal.take();
            if refusal.is_none()
                && let Some(open) = self.front_command()
            {
                open.bytes_down(total);
                if fields.code != IN_FAILED_TRANSACTION {
                    open.executed();
                }
                open.fail(fields);
                return Ok(Fate::Pass);
            }
            return Ok(replaced(refusal.as_deref(), &fields));
        }
        let Some(front) = self.pop() else {
            return Err(Violation::ServerDesync { kind: b'E' });
        };
        if front.renames {
            self.names.fail();
        }
        let fate = replaced(front.refusal.as_deref(), &fields);
        match &front.kind {
            Kind::Parse { prepared } => {
                let user =
                    self.queue.iter().take_while(|entry| !matches!(entry.kind, Kind::Sync)).find_map(
                        |entry| match entry.kind {
                            Kind::Bind { key } if self.commands.uses(key, prepared.id()) => Some(key),
                            _ => None,
                        },
                    );
                match user.and_then(|key| self.commands.get(key)) {
                    Some(open) => {
                        open.bytes_down(total);
                        open.fail(fields);
                    }
                    None => self.parse_failed(prepared, fields, total, events),
                }
            }
            Kind::Bind { key } | Kind::Execute { key, .. } if front.refusal.is_none() => {
                let executed = matches!(front.kind, Kind::Execute { .. })
                    && fields.code != IN_FAILED_TRANSACTION
                    && fields.code != NO_SUCH_PORTAL;
                if let Some(open) = self.commands.get(*key) {
                    open.bytes_down(total);
                    if executed {
                        open.executed();
                    }
                    open.fail(fields);
                }
            }
            _ => {}
        }
        self.skip_to_sync();
        Ok(fate)
    }

    /// The server discards what follows until Sync.
    fn skip_to_sync(&mut self) {
        while let Some(entry) = self.queue.front() {
            if matches!(entry.kind, Kind::Sync) {
                return;
            }
            let Some(entry) = self.pop() else {
                break;
            };
            if entry.renames {
                self.names.skip();
            }
            match entry.kind {
                Kind::Bind { key } | Kind::Query { key, .. } | Kind::Function { key } => {
                    self.commands.skip(key);
                }
                Kind::Execute { .. }
                | Kind::Close
                | Kind::DescribePortal
                | Kind::DescribeStatement { .. }
                | Kind::Parse { .. }
                | Kind::Sync => {}
            }
        }
        self.hold = false;
        self.skipping = true;
    }

    fn parse_failed(&mut self, prepared: &super::Prepared, fields: ErrorFields, total: usize, events: &mut Vec<Event>) {
        let mut outcome = CommandOutcome::of_error(fields);
        outcome.bytes_down = total as u64;
        let text = match prepared.text() {
            Some(text) => ParseText::Text(text.clone()),
            None => ParseText::Spooled(prepared.id()),
        };
        events.push(Event::ParseFailed {
            key: self.commands.mint(),
            text,
            statement: prepared.name().to_vec(),
            outcome,
        });
    }

    fn ready(&mut self, status: TxStatus, events: &mut Vec<Event>) -> Result<(), Violation> {
        let desync = Violation::ServerDesync { kind: b'Z' };
        let front = self.queue.front().ok_or(desync)?;
        if !front.kind.ends_with_ready() {
            return Err(desync);
        }
        let Some(entry) = self.pop() else {
            return Err(desync);
        };
        match entry.kind {
            Kind::Query { key, .. } | Kind::Function { key } => {
                self.commands.end(key);
                self.copy_in = false;
                // What the client is held for is always the last entry.
                self.hold &= !self.queue.is_empty();
            }
            _ => {}
        }
        if entry.renames {
            self.names.confirm(&self.limits);
        }
        if status == TxStatus::Idle {
            self.names.end_transaction();
        }
        self.transaction = status;
        if entry.number >= self.trust.doubted_at {
            self.trust.conforming_known = true;
        }
        self.commands.ready(entry.number, status, std::mem::take(&mut self.segment_error), events);
        events.push(Event::Ready(status));
        Ok(())
    }

    fn confirm(&mut self) {
        let renames = self.pop().is_some_and(|entry| entry.renames);
        if renames && let Some(key) = self.names.confirm(&self.limits) {
            self.commands.end(key);
        }
    }

    fn pop(&mut self) -> Option<Entry> {
        self.stalled = false;
        let entry = self.queue.pop_front()?;
        if self.queue.is_empty() && self.hold && matches!(entry.kind, Kind::Execute { .. }) {
            self.hold = false;
        }
        Some(entry)
    }

    fn front_command(&mut self) -> Option<&mut super::commands::Open> {
        let key = self.queue.front()?.kind.key()?;
        self.commands.get(key)
    }

    fn count(&mut self, bytes: usize) {
        if let Some(open) = self.front_command() {
            open.bytes_down(bytes);
        }
    }

    fn copy(&mut self, direction: CopyDirection, total: usize) {
        if let Some(open) = self.front_command() {
            open.executed();
            open.copy(direction);
            open.bytes_down(total);
        }
    }
}

/// What came before a violation passes first; the same bytes then violate again.
fn after(mut step: ServerStep, violation: Violation) -> Result<ServerStep, Violation> {
    if step.pass == 0 {
        return Err(violation);
    }
    step.more = true;
    Ok(step)
}

/// Length of the whole message, if its type may have it.
fn server_total(kind: u8, length: u32) -> Result<usize, Violation> {
    let total = usize::try_from(length).unwrap_or(usize::MAX).saturating_add(1);
    let long = matches!(kind, b'A' | b'D' | b'E' | b'N' | b'T' | b'V' | b'd' | b't');
    if !(4..=MESSAGE_BYTES_MAX).contains(&length) || (!long && total > WHOLE_BYTES_MAX) {
        return Err(Violation::ServerLength { kind, length });
    }
    Ok(total)
}

fn passes_in_pieces(kind: u8) -> bool {
    matches!(kind, b'A' | b'D' | b'N' | b'T' | b'V' | b'd')
}

/// The server's error in the place of a refusal becomes the refusal, unless it is about something else.
fn replaced(refusal: Option<&Refusal>, fields: &ErrorFields) -> Fate {
    match refusal {
        Some(refusal) if matches!(fields.code.as_str(), "26000" | "34000" | "42883") => {
            Fate::Replace(refusal.error_response())
        }
        Some(_) | None => Fate::Pass,
    }
}

fn described(body: &[u8]) -> Option<Box<[u32]>> {
    let mut cursor = Cursor(body);
    let count = cursor.u16()?;
    super::bodies::oids(cursor.0, count)
}
