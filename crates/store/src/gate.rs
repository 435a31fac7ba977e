//! Where sessions wait until what they recorded is safe, and the one place that mints [`Recorded`].
//!
//! A worker thread has one gate. Sessions append and register a waker; once per turn of its event loop the worker calls
//! [`Gate::turn`], which writes everything that was appended as one group and sees to it that it becomes durable.
//! No thread stands between a session and the disk unless several sessions share a sync.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use model::{CommandId, Digest};

use crate::error::RecordError;
use crate::log::{Log, Position, lock};

/// How safe an entry must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Written: a crash of the gateway does not lose it.
    Written,
    /// On stable storage: a loss of power does not lose it.
    Durable,
}

/// Whether anything else could run on this worker meanwhile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lone {
    /// Nothing else runs: a short sync is done here and now, which saves two changes of thread.
    Yes,
    /// Other sessions run: the sync is left to the syncer.
    No,
}

/// An intent that was appended and is not known to be safe. Only [`Gate::admit`] makes it more than that.
#[must_use = "an intent that is appended needs an outcome: admit it, or withdraw it"]
#[derive(Debug)]
pub struct Pending {
    pub(crate) command: CommandId,
    pub(crate) position: Position,
    pub(crate) boot_us: u64,
    pub(crate) leaf: Digest,
}

/// A session's first entry, appended. Wait for its position before anything is forwarded.
#[must_use = "wait until the session's first entry is safe"]
#[derive(Debug)]
pub struct Opening {
    pub(crate) position: Position,
}

/// The evidence that a command's intent is on the record. Nothing is forwarded without it, and an outcome consumes it:
/// a command gets exactly one.
///
/// It cannot be made up:
/// ```compile_fail
/// let forged = store::Recorded { command: todo!(), position: todo!(), boot_us: 0 };
/// ```
/// and not be copied:
/// ```compile_fail
/// fn twice(recorded: store::Recorded) -> (store::Recorded, store::Recorded) { (recorded.clone(), recorded) }
/// ```
#[must_use = "a recorded command needs an outcome"]
#[derive(Debug)]
pub struct Recorded {
    command: CommandId,
    position: Position,
    boot_us: u64,
}

impl Pending {
    /// Where the intent is in the log.
    #[must_use]
    pub fn position(&self) -> Position {
        self.position
    }

    /// The command.
    #[must_use]
    pub fn command(&self) -> CommandId {
        self.command
    }

    /// The intent's leaf hash.
    #[must_use]
    pub fn leaf(&self) -> Digest {
        self.leaf
    }
}

impl Opening {
    /// Where the entry is in the log.
    #[must_use]
    pub fn position(&self) -> Position {
        self.position
    }
}

impl Recorded {
    /// Where the intent is in the log.
    #[must_use]
    pub fn position(&self) -> Position {
        self.position
    }

    /// The command.
    #[must_use]
    pub fn command(&self) -> CommandId {
        self.command
    }

    /// When the intent was made, by the boot clock.
    pub(crate) fn boot_us(&self) -> u64 {
        self.boot_us
    }
}

/// One worker thread's waiting room.
pub struct Gate {
    log: Arc<Log>,
    shared: Arc<GateShared>,
    /// Ordered by position: sessions append in order, so registering is nearly always a push at the end.
    waiters: Mutex<VecDeque<Waiter>>,
}

#[derive(Default)]
pub(crate) struct GateShared {
    turn: Mutex<Option<Waker>>,
    turn_asked: AtomicBool,
    waiting: AtomicUsize,
}

struct Waiter {
    position: Position,
    level: Level,
    waker: Waker,
}

impl GateShared {
    pub(crate) fn wake_if_waiting(&self) {
        if self.waiting.load(SeqCst) > 0 {
            self.ask_turn();
        }
    }

    fn ask_turn(&self) {
        if !self.turn_asked.swap(true, SeqCst)
            && let Some(waker) = &*lock(&self.turn)
        {
            waker.wake_by_ref();
        }
    }
}

impl Gate {
    pub(crate) fn new(log: Arc<Log>) -> Self {
        let shared = Arc::<GateShared>::default();
        lock(&log.gates).push(Arc::downgrade(&shared));
        Self { log, shared, waiters: Mutex::default() }
    }

    /// Ready when the entry at this position is that safe, or when recording has stopped before it was. Otherwise the
    /// task is woken when that is so.
    ///
    /// # Errors
    /// Recording has stopped, and the entry is not known to be safe.
    pub fn poll(&self, cx: &mut Context<'_>, position: Position, level: Level) -> Poll<Result<(), RecordError>> {
        if let Some(result) = self.settled(position, level) {
            return Poll::Ready(result);
        }
        if level == Level::Written {
            // A write costs less than a second visit to the task, and the command leaves that much earlier.
            self.log.write();
            if let Some(result) = self.settled(position, level) {
                return Poll::Ready(result);
            }
        }
        self.register(cx.waker(), position, level);
        // The syncer may have been faster than the registration.
        match self.settled(position, level) {
            Some(result) => Poll::Ready(result),
            None => {
                self.shared.ask_turn();
                Poll::Pending
            }
        }
    }

    /// Waits as [`Gate::poll`] does. Cancel safe.
    ///
    /// # Errors
    /// As [`Gate::poll`].
    pub fn reached(&self, position: Position, level: Level) -> impl Future<Output = Result<(), RecordError>> + '_ {
        std::future::poll_fn(move |cx| self.poll(cx, position, level))
    }

    /// Exchanges an intent that has reached the level for the right to forward the command.
    ///
    /// # Errors
    /// It has not: the pending intent is given back.
    pub fn admit(&self, pending: Pending, level: Level) -> Result<Recorded, Pending> {
        if self.has_reached(pending.position, level) {
            Ok(Recorded { command: pending.command, position: pending.position, boot_us: pending.boot_us })
        } else {
            Err(pending)
        }
    }

    /// Whether the entry at this position is that safe.
    #[must_use]
    pub fn has_reached(&self, position: Position, level: Level) -> bool {
        match level {
            Level::Written => position.0 < self.log.written(),
            Level::Durable => position.0 < self.log.durable(),
        }
    }

    /// To be called once per turn of the worker's event loop: writes what was appended as one group, sees to it that
    /// it becomes durable if someone waits for that, and wakes those who need not wait any more.
    pub fn turn(&self, lone: Lone) {
        self.shared.turn_asked.store(false, SeqCst);
        self.log.write();
        let wants_sync = {
            let durable = self.log.durable();
            lock(&self.waiters).iter().any(|w| w.level == Level::Durable && w.position.0 >= durable)
        };
        if wants_sync && self.log.failure().is_none() {
            if lone == Lone::Yes && self.log.syncs_are_short() && self.log.try_sync() {
                self.log.wake_gates(Some(&self.shared));
            } else {
                self.log.ask_sync();
            }
        }
        self.wake_settled();
    }

    /// Sets whom to wake when [`Gate::turn`] should be called: a session has registered, or the syncer has made
    /// progress.
    pub fn set_turn_waker(&self, waker: &Waker) {
        let mut turn = lock(&self.shared.turn);
        match &mut *turn {
            Some(old) => old.clone_from(waker),
            None => *turn = Some(waker.clone()),
        }
    }

    /// Whether a call of [`Gate::turn`] has been asked for since the last one. A task that drives the gate looks here
    /// after it has set its waker, so that nothing is missed.
    #[must_use]
    pub fn turn_wanted(&self) -> bool {
        self.shared.turn_asked.load(SeqCst)
    }

    fn settled(&self, position: Position, level: Level) -> Option<Result<(), RecordError>> {
        if self.has_reached(position, level) {
            return Some(Ok(()));
        }
        self.log.failure().map(|failure| Err(failure.clone()))
    }

    fn register(&self, waker: &Waker, position: Position, level: Level) {
        let mut waiters = lock(&self.waiters);
        let at = waiters.partition_point(|w| w.position < position);
        let mut here = waiters.range(at..).take_while(|w| w.position == position);
        if here.any(|w| w.level == level && w.waker.will_wake(waker)) {
            return;
        }
        waiters.insert(at, Waiter { position, level, waker: waker.clone() });
        self.shared.waiting.store(waiters.len(), SeqCst);
    }

    fn wake_settled(&self) {
        let failed = self.log.failure().is_some();
        let (written, durable) = (self.log.written(), self.log.durable());
        let mut waiters = lock(&self.waiters);
        waiters.retain(|waiter| {
            let reached = match waiter.level {
                Level::Written => waiter.position.0 < written,
                Level::Durable => waiter.position.0 < durable,
            };
            if reached || failed {
                waiter.waker.wake_by_ref();
            }
            !(reached || failed)
        });
        self.shared.waiting.store(waiters.len(), SeqCst);
    }
}
