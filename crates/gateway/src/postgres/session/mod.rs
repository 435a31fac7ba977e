//! One session: two directions, one task, no command forwarded without its record.
//!
//! ```text
//! client ─read─▶ tap ─▶ policy ─▶ Permit ┐
//!                  └─▶ record  ─▶ Pending ─gate─▶ Recorded ┐
//!                  └─▶ Upstream::stage ────────────────────┴▶ Upstream::forward ─▶ server
//! client ◀─────── Downstream (verbatim) ◀─ tap ◀─read─ server
//!                                           └─▶ outcome ─▶ record
//! ```
//!
//! Both directions make progress independently: a client that does not read slows the server and
//! nothing else, and while a command waits for its intent to be durable the server is still read.
//! The whole is one hand-written future, because the tap is shared by both directions and a wake-up
//! of a second task would cost more than what it does.
//!
//! Cancel safe in the sense that dropping it closes both sockets; what was in flight then has no
//! outcome, and recovery records `unknown`.

mod ending;

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use model::{BlobForm, Durability, Field, SessionEnd};
use policy::{Admission, Permit, Verdict};
use store::{BlobReader, BlobWriter, Gate, Level, Pending, Position, RecordError, Recorded, SessionLog};
use tokio::time::Sleep;
use tokio_util::sync::WaitForCancellationFutureOwned;
use wire::postgres::parameters::Parameters;
use wire::postgres::tap::{
    ClientStep, CommandKey, Event, LargeDraft, LargePass, LargeStep, LargeText, ParseText, Refusal, Tap, Text,
    Violation,
};

use self::ending::{Ending, Fault};
use super::cancel::{Busy, Minted};
use super::downstream::{Between, Downstream};
use super::entries;
use super::upstream::{Staged, Upstream};
use crate::Totals;
use crate::worker::Running;

/// What one socket read takes at most, bytes; one buffer per worker thread serves all its sessions.
const READ_BYTES: usize = 128 * 1024;
/// Turns of the pump before other sessions of the worker get theirs.
const TURNS_MAX: usize = 32;
/// Content up to this length is sealed into its entry, which has at most 65,535 bytes; base64 takes a third more.
const INLINE_BYTES_MAX: usize = 16 * 1024;
/// Sealed texts of prepared statements that are remembered.
const SEALED_TEXTS_MAX: usize = 1024;
/// Texts of prepared statements in blobs that are remembered; Binds of older ones are refused.
const SPOOLED_TEXTS_MAX: usize = 256;
/// After the end: how long the client may take to read why.
const LINGER_MAX: Duration = Duration::from_secs(1);

thread_local! {
    static SCRATCH: RefCell<Vec<u8>> = RefCell::new(vec![0; READ_BYTES]);
}

/// A session between an authenticated client and a server that is ready for queries.
pub(crate) struct Session {
    client: Downstream,
    upstream: Upstream,
    tap: Tap,
    admission: Admission,
    minted: Minted,
    running: Running,

    log: SessionLog,
    gate: Arc<Gate>,
    durability: Durability,

    /// Client bytes that are not yet taken: the start of a message, or all while the tap waits.
    inbox: Vec<u8>,
    /// Whether `inbox` may hold something to take without reading more.
    inbox_fresh: bool,
    /// The start of a server message.
    outbox: Vec<u8>,
    spool: Option<Spool>,
    /// Commands whose intent is written and that are not forwarded yet, in order.
    held: VecDeque<Held>,
    /// Commands that are forwarded and have no outcome yet, in order.
    open: VecDeque<Open>,
    /// The last intent that was forwarded, for durability `held`.
    forwarded: Option<Position>,
    /// Sealed texts of prepared statements, by the id of their Parse. Each can be sealed again.
    sealed: HashMap<u64, Field>,
    /// Texts of prepared statements that are in blobs and nowhere else, by the id of their Parse.
    spooled: BTreeMap<u64, Field>,
    events: Vec<Event>,
    scratch: Vec<u8>,

    session_bytes_max: usize,
    outcome_wait: Duration,
    idle: Option<Idle>,
    stop: Pin<Box<WaitForCancellationFutureOwned>>,
    ending: Option<Ending>,
    /// SQLSTATE of the server's FATAL, when it sent one.
    fatal: Option<String>,
    /// The server has nothing more to say, or nothing that could be believed.
    upstream_dead: bool,
    /// A write to the client failed while the server's bytes were being taken.
    client_failed: bool,
    /// An outcome could not be written while the server's bytes were being taken.
    record_failed: Option<RecordError>,
    commands: u64,
    bytes_up: u64,
    bytes_down: u64,
}

struct Held {
    key: CommandKey,
    staged: Staged,
    permit: Permit,
    pending: Pending,
}

struct Open {
    key: CommandKey,
    recorded: Recorded,
}

/// A message that is too large for memory, on its way to a blob.
struct Spool {
    left: usize,
    blob: BlobWriter,
}

struct Idle {
    limit: Duration,
    last: Instant,
    timer: Pin<Box<Sleep>>,
}

/// What a session needs to start.
pub(crate) struct Parts {
    pub(crate) client: Downstream,
    pub(crate) upstream: Upstream,
    pub(crate) tap: Tap,
    pub(crate) admission: Admission,
    pub(crate) minted: Minted,
    pub(crate) running: Running,
    pub(crate) log: SessionLog,
    pub(crate) gate: Arc<Gate>,
    pub(crate) durability: Durability,
    pub(crate) session_bytes_max: usize,
    pub(crate) outcome_wait: Duration,
    pub(crate) idle_max: Option<Duration>,
    pub(crate) stop: WaitForCancellationFutureOwned,
}

impl Session {
    pub(crate) fn new(parts: Parts) -> Self {
        Self {
            client: parts.client,
            upstream: parts.upstream,
            tap: parts.tap,
            admission: parts.admission,
            minted: parts.minted,
            running: parts.running,
            log: parts.log,
            gate: parts.gate,
            durability: parts.durability,
            inbox: Vec::new(),
            inbox_fresh: false,
            outbox: Vec::new(),
            spool: None,
            held: VecDeque::new(),
            open: VecDeque::new(),
            forwarded: None,
            sealed: HashMap::new(),
            spooled: BTreeMap::new(),
            events: Vec::new(),
            scratch: Vec::new(),
            session_bytes_max: parts.session_bytes_max,
            outcome_wait: parts.outcome_wait,
            idle: parts.idle_max.map(|limit| Idle {
                limit,
                last: Instant::now(),
                timer: Box::pin(tokio::time::sleep(limit)),
            }),
            stop: Box::pin(parts.stop),
            ending: None,
            fatal: None,
            upstream_dead: false,
            client_failed: false,
            record_failed: None,
            commands: 0,
            bytes_up: 0,
            bytes_down: 0,
        }
    }

    /// Runs to the end and records it. A panic ends this session, and the record says so.
    pub(crate) async fn run(mut self, totals: &Totals) {
        let reason = poll_fn(|cx| {
            catch_unwind(AssertUnwindSafe(|| self.poll_pump(cx))).unwrap_or(Poll::Ready(SessionEnd::GatewayFault))
        })
        .await;
        let mut client = self.finish(reason, totals);
        let parting = poll_fn(|cx| SCRATCH.with_borrow_mut(|scratch| client.poll_part(cx, scratch)));
        // A client that does not listen is left.
        let _ = tokio::time::timeout(LINGER_MAX, parting).await;
    }

    /// Moves bytes until nothing moves.
    fn poll_pump(&mut self, cx: &mut Context<'_>) -> Poll<SessionEnd> {
        for _ in 0..TURNS_MAX {
            let moved = match self.turn(cx) {
                Ok(moved) => moved,
                Err(fault) => {
                    self.begin_ending(fault);
                    Moved::Yes
                }
            };
            if let Some(reason) = self.poll_ended(cx, moved) {
                return Poll::Ready(reason);
            }
            if moved == Moved::No {
                let busy = if self.tap.idle() && self.held.is_empty() { Busy::No } else { Busy::Yes };
                self.minted.target.set_busy(busy);
                self.running.set(busy);
                return Poll::Pending;
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// One try of everything that could move.
    fn turn(&mut self, cx: &mut Context<'_>) -> Result<Moved, Fault> {
        let mut moved = Moved::No;
        moved |= self.admit(cx)?;
        match self.upstream.poll_drain(cx) {
            Poll::Ready(Ok(())) => moved = Moved::Yes,
            Poll::Ready(Err(_)) => {
                // What the server said before it closed may still be on its way here.
                self.upstream.give_up_writing();
                return Err(Fault::new(SessionEnd::UpstreamGone));
            }
            Poll::Pending => {}
        }
        moved |= self.read_upstream(cx)?;
        moved |= self.release(cx)?;
        match self.client.poll_drain(cx) {
            Poll::Ready(Ok(())) => moved = Moved::Yes,
            Poll::Ready(Err(_)) => return Err(Fault::new(SessionEnd::ClientGone)),
            Poll::Pending => {}
        }
        moved |= self.read_client(cx)?;
        self.check_clocks(cx)?;
        Ok(moved)
    }

    // ---- client to server ----------------------------------------------------------------

    fn read_client(&mut self, cx: &mut Context<'_>) -> Result<Moved, Fault> {
        if self.ending.is_some() || !self.held.is_empty() || !self.upstream.is_empty() || self.tap.waiting() {
            return Ok(Moved::No);
        }
        if self.inbox_fresh {
            let inbox = std::mem::take(&mut self.inbox);
            let taken = self.take(&inbox)?;
            self.keep_inbox(inbox, taken);
            return Ok(Moved::Yes);
        }
        SCRATCH.with_borrow_mut(|scratch| {
            let read = match self.client.poll_read(cx, scratch) {
                Poll::Pending => return Ok(Moved::No),
                Poll::Ready(read) => read.map_err(|_| Fault::new(SessionEnd::ClientGone))?,
            };
            let bytes = scratch.get(..read).unwrap_or_default();
            if bytes.is_empty() {
                return Err(Fault::new(SessionEnd::ClientGone));
            }
            self.bytes_up += u64::try_from(read).unwrap_or(0);
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
                    taken += frames.consumed();
                    self.upstream.pass(frames);
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
                    let (permit, pending) = self.intend(shape, &text, &parameters)?;
                    let staged = self.upstream.stage(frames);
                    self.held.push_back(Held { key: draft.key, staged, permit, pending });
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
            let intent = shape.denied_intent(&entries::NOT_SEEN, &entries::NOT_SEEN, &rules);
            if let Err(error) = self.log.settled(&intent, &entries::denied(code, message)) {
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
                let (permit, pending) = self.intend(shape, &text, &parameters)?;
                let staged = self.upstream.stage_large(header, reader);
                self.held.push_back(Held { key, staged, permit, pending });
            }
            LargePass::Refuse(refusal, substitute) => {
                self.settle_denied(shape, &text, &parameters, &refusal)?;
                self.upstream.pass(substitute);
            }
        }
        Ok(())
    }

    /// Decides a command and writes its intent.
    fn intend(
        &mut self,
        shape: entries::Shape<'_>,
        text: &Field,
        parameters: &Field,
    ) -> Result<(Permit, Pending), Fault> {
        let permit = match self.admission.decide(&shape.request()) {
            Verdict::Allow(permit) => permit,
            // The tap refuses what these rules refuse before it gets here.
            Verdict::Deny(_) => return Err(Fault::new(SessionEnd::GatewayFault)),
        };
        let pending = self.log.intent(&shape.intent(text, parameters)).map_err(Fault::record)?;
        Ok((permit, pending))
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
        let intent = shape.denied_intent(text, parameters, &rules);
        self.log.settled(&intent, &entries::denied(refusal.code(), message)).map_err(Fault::record)?;
        Ok(())
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
    fn admit(&mut self, cx: &mut Context<'_>) -> Result<Moved, Fault> {
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
        match self.gate.poll(cx, last.pending.position(), level) {
            Poll::Pending => return Ok(Moved::No),
            Poll::Ready(reached) => reached.map_err(Fault::record)?,
        }
        while let Some(Held { key, staged, permit, pending }) = self.held.pop_front() {
            match self.gate.admit(pending, level) {
                Ok(recorded) => {
                    self.forwarded = Some(recorded.position());
                    self.upstream.forward(staged, &permit, &recorded);
                    self.open.push_back(Open { key, recorded });
                    self.commands += 1;
                }
                Err(pending) => {
                    self.held.push_front(Held { key, staged, permit, pending });
                    return Ok(Moved::No);
                }
            }
        }
        Ok(Moved::Yes)
    }

    // ---- server to client ----------------------------------------------------------------

    fn read_upstream(&mut self, cx: &mut Context<'_>) -> Result<Moved, Fault> {
        if self.upstream_dead || self.client.queued() >= self.session_bytes_max {
            return Ok(Moved::No);
        }
        SCRATCH.with_borrow_mut(|scratch| {
            let read = match self.upstream.poll_read(cx, scratch) {
                Poll::Pending => return Ok(Moved::No),
                Poll::Ready(read) => read.map_err(|_| Fault::server_gone())?,
            };
            let bytes = scratch.get(..read).unwrap_or_default();
            if bytes.is_empty() {
                return Err(Fault::server_gone());
            }
            self.bytes_down += u64::try_from(read).unwrap_or(0);
            self.touch();
            if self.outbox.is_empty() {
                let taken = self.deliver(cx, bytes)?;
                self.outbox.extend_from_slice(bytes.get(taken..).unwrap_or_default());
            } else {
                let mut outbox = std::mem::take(&mut self.outbox);
                outbox.extend_from_slice(bytes);
                let taken = self.deliver(cx, &outbox)?;
                outbox.drain(..taken);
                self.outbox = if outbox.is_empty() { Vec::new() } else { outbox };
            }
            if let Some(error) = self.record_failed.take() {
                return Err(Fault::record_lost(error));
            }
            if std::mem::take(&mut self.client_failed) {
                return Err(Fault::new(SessionEnd::ClientGone));
            }
            Ok(Moved::Yes)
        })
    }

    /// Passes the server's bytes on and records the outcomes they carry; gives how many were taken.
    fn deliver(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Result<usize, Fault> {
        // `held`: nothing of a response before the intent behind it is durable.
        if self.durability == Durability::Held
            && let Some(position) = self.forwarded
        {
            self.client.hold_from(self.client.len(), position, self.place());
        }
        let mut taken = 0;
        loop {
            let rest = bytes.get(taken..).unwrap_or_default();
            let step = self.tap.server(rest, &mut self.events).map_err(Fault::server_violation)?;
            let pass = rest.get(..step.pass).unwrap_or_default();
            if self.durability == Durability::Both {
                // The end of the response waits for its outcome, so it must not be written first; and without an
                // outcome on the record nothing more of it leaves.
                let end = self.client.len() + step.boundary.unwrap_or(0);
                if self.record_failed.is_none() {
                    self.client.push(pass);
                }
                let outcome = self.record_events();
                if self.record_failed.is_some() {
                    self.client.cut(end);
                } else if let Some(outcome) = outcome {
                    self.client.hold_from(end, outcome, Between::Messages);
                }
            } else {
                // That the client is gone must not cost the outcomes that these bytes carry.
                self.client_failed |= self.client.push_through(cx, pass).is_err();
                self.record_events();
            }
            if !step.reply.is_empty() {
                self.client_failed |= self.client.push_through(cx, &step.reply).is_err();
            }
            taken += step.pass + step.skip;
            if !step.more {
                return Ok(taken);
            }
        }
    }

    /// Writes the outcomes that the server's bytes carried; gives the last one's position. A failure is kept for later:
    /// it must not cost the outcomes behind it.
    fn record_events(&mut self) -> Option<Position> {
        let mut last = None;
        let mut events = std::mem::take(&mut self.events);
        for event in events.drain(..) {
            match event {
                Event::Outcome { key, mut outcome } => {
                    let Some(open) = self.take_open(key) else {
                        continue;
                    };
                    let message = self.message_field(outcome.message.as_deref());
                    let results = entries::results(&mut outcome);
                    let draft = entries::outcome(&outcome, message, &results);
                    match self.log.outcome(open.recorded, &draft) {
                        Ok(position) => last = Some(position),
                        Err(error) => self.record_failed = self.record_failed.take().or(Some(error)),
                    }
                }
                Event::ParseFailed { text, outcome, statement, .. } => {
                    let text = match text {
                        ParseText::Text(text) => self.log.seal(&text),
                        ParseText::Spooled(id) => self.spooled.remove(&id).unwrap_or(entries::NOT_SEEN),
                    };
                    let message = self.message_field(outcome.message.as_deref());
                    let shape = entries::Shape::of_parse(&statement, self.tap.transaction());
                    let intent = shape.intent(&text, &entries::NO_PARAMETERS);
                    let draft = entries::outcome(&outcome, message, &[]);
                    match self.log.settled(&intent, &draft) {
                        Ok((_, position)) => last = Some(position),
                        Err(error) => self.record_failed = self.record_failed.take().or(Some(error)),
                    }
                }
                Event::Fatal { code, .. } => self.fatal = Some(code),
                Event::Parameter { .. } | Event::Ready(_) => {}
            }
        }
        self.events = events;
        last
    }

    fn message_field(&mut self, message: Option<&str>) -> Field {
        message.map_or(entries::NO_MESSAGE, |message| self.log.seal(message.as_bytes()))
    }

    fn take_open(&mut self, key: CommandKey) -> Option<Open> {
        // Nearly always the oldest; a suspended portal may outlive its neighbours.
        let at = self.open.iter().position(|open| open.key == key)?;
        self.open.remove(at)
    }

    /// Lets go of response bytes once what they wait for is durable.
    fn release(&mut self, cx: &mut Context<'_>) -> Result<Moved, Fault> {
        let Some(position) = self.client.held_for() else {
            return Ok(Moved::No);
        };
        match self.gate.poll(cx, position, Level::Durable) {
            Poll::Pending => Ok(Moved::No),
            Poll::Ready(reached) => {
                reached.map_err(Fault::record_lost)?;
                self.client.release();
                Ok(Moved::Yes)
            }
        }
    }
}

/// Whether anything moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Moved {
    Yes,
    No,
}

impl std::ops::BitOrAssign for Moved {
    fn bitor_assign(&mut self, other: Self) {
        if other == Self::Yes {
            *self = Self::Yes;
        }
    }
}
