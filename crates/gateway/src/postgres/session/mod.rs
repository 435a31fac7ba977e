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
//! Here: what a session is, and the pump. The way of the client's bytes is in `to_server`, that of the server's in
//! `to_client`, what people must approve first in `waiting`, what is said of break-glass in `glass`, and how it all ends in
//! `ending`.
//!
//! Cancel safe in the sense that dropping it closes both sockets; its log then writes `unknown` for what was in flight.

mod ending;
mod glass;
mod policing;
mod to_client;
mod to_server;
mod waiting;

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use model::{Durability, Field, SessionEnd};
use policy::{Admission, Permit};
use store::{BlobWriter, Gate, Pending, Position, RecordError, Recorded, SessionLog};
use tokio::time::Sleep;
use tokio_util::sync::WaitForCancellationFutureOwned;
use wire::postgres::tap::{CommandKey, Event, Tap};

use self::ending::{Ending, Fault};
pub(crate) use self::policing::{Policing, Said};
use self::waiting::Waiting;
use super::cancel::{Busy, Minted};
use super::downstream::Downstream;
use super::upstream::{Staged, Upstream};
use crate::Totals;
use crate::access::Entered;
use crate::worker::Running;

/// What one socket read takes at most, bytes; one buffer per worker thread serves all its sessions.
const READ_BYTES: usize = 128 * 1024;
/// Turns of the pump before other sessions of the worker get theirs.
const TURNS_MAX: usize = 32;
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
    policing: Policing,
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
    /// The command that waits for people, if one does; nothing behind it is taken.
    waiting: Option<Box<Waiting>>,
    /// What the client is to be told of break-glass, once there is a place for it.
    glass_notice: Option<Vec<u8>>,
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
    /// Its place among the live sessions, by which it is ended from outside.
    entered: Entered,
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
    /// What must be safe before it leaves: its intent, or the use of its approval.
    ready: Position,
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
    pub(crate) policing: Policing,
    pub(crate) minted: Minted,
    pub(crate) running: Running,
    pub(crate) log: SessionLog,
    pub(crate) gate: Arc<Gate>,
    pub(crate) durability: Durability,
    pub(crate) session_bytes_max: usize,
    pub(crate) outcome_wait: Duration,
    pub(crate) idle_max: Option<Duration>,
    pub(crate) stop: WaitForCancellationFutureOwned,
    pub(crate) entered: Entered,
}

impl Session {
    pub(crate) fn new(parts: Parts) -> Self {
        Self {
            client: parts.client,
            upstream: parts.upstream,
            tap: parts.tap,
            admission: parts.admission,
            policing: parts.policing,
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
            waiting: None,
            glass_notice: None,
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
            entered: parts.entered,
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
        moved |= self.poll_waiting(cx)?;
        moved |= self.tell_glass();
        moved |= self.admit(cx)?;
        match self.upstream.poll_drain(cx) {
            Poll::Ready(Ok(())) => moved = Moved::Yes,
            Poll::Ready(Err(_)) => {
                // What the server said before it closed may still be on its way here.
                self.upstream.give_up_writing();
                return Err(if self.upstream.outpost_lost() {
                    Fault::outpost_lost()
                } else {
                    Fault::new(SessionEnd::UpstreamGone)
                });
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
        if self.policing.poll(cx).is_ready() {
            self.inbox_fresh = true;
            moved = Moved::Yes;
        }
        moved |= self.read_client(cx)?;
        self.check_clocks(cx)?;
        Ok(moved)
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
