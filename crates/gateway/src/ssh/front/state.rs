//! What is known of one client's connection, by its own task and by whoever watches over it: who has proven something, what
//! runs, how many channels there are, and how it ends.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use model::SessionEnd;
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use super::super::session::{Ending, Session};
use super::Error;

/// Channels of one connection at a time.
const CHANNELS_MAX: usize = 128;
/// Channels of one connection in which somebody goes on from here, at a time: each is a connection of its own.
const WAYS_ON_MAX: usize = 16;
/// Channels of one connection in all: the library keeps a little of each until the connection ends.
const CHANNELS_TOTAL_MAX: usize = 100_000;

/// What both the connection's task and who watches over it know.
pub(in crate::ssh) struct State {
    proven: AtomicBool,
    /// Whether there is a database that whoever has proven something may use.
    may_forward: AtomicBool,
    refused: AtomicBool,
    session: Mutex<Option<Arc<Session>>>,
    pub(super) end: watch::Sender<Option<SessionEnd>>,
    pub(super) programs: TaskTracker,
    /// What waits for the session, or whoever has come, to be ended from outside.
    pub(super) watching: TaskTracker,
    /// Nobody watches over the connection any more.
    pub(super) over: CancellationToken,
    /// Channels that the connection has had.
    total: AtomicUsize,
    /// Channels in which somebody goes on from here.
    ways_on: Arc<AtomicUsize>,
    channels: Arc<AtomicUsize>,
}

impl Default for State {
    fn default() -> Self {
        Self {
            proven: AtomicBool::new(false),
            may_forward: AtomicBool::new(false),
            refused: AtomicBool::new(false),
            session: Mutex::default(),
            end: watch::Sender::new(None),
            programs: TaskTracker::new(),
            watching: TaskTracker::new(),
            over: CancellationToken::new(),
            total: AtomicUsize::new(0),
            ways_on: Arc::default(),
            channels: Arc::default(),
        }
    }
}

impl State {
    /// Whether somebody has proven who they are.
    pub(in crate::ssh) fn is_proven(&self) -> bool {
        self.proven.load(Ordering::Relaxed)
    }

    /// Whether somebody may go on from here to a database.
    pub(in crate::ssh) fn may_forward(&self) -> bool {
        self.may_forward.load(Ordering::Relaxed)
    }

    pub(super) fn set_proven(&self) {
        self.proven.store(true, Ordering::Relaxed);
    }

    pub(super) fn set_may_forward(&self, may: bool) {
        self.may_forward.store(may, Ordering::Relaxed);
    }

    pub(super) fn set_refused(&self) {
        self.refused.store(true, Ordering::Relaxed);
    }

    /// Whether a refusal has been counted already.
    pub(in crate::ssh) fn was_refused(&self) -> bool {
        self.refused.load(Ordering::Relaxed)
    }

    /// Whether nothing goes on over the connection: no session, and nobody on the way through.
    pub(in crate::ssh) fn is_unused(&self) -> bool {
        self.session().is_none() && self.ways_on.load(Ordering::Relaxed) == 0
    }

    /// Lets nothing more be opened once what is given is dropped.
    pub(in crate::ssh) fn over_on_drop(&self) -> DropGuard {
        self.over.clone().drop_guard()
    }

    /// Comes when the session is to end.
    pub(in crate::ssh) fn ending(&self) -> Ending {
        Ending::of(&self.end)
    }

    /// Waits for what still runs, and closes the session's record.
    pub(in crate::ssh) async fn finish(&self, why: SessionEnd) {
        self.over.cancel();
        let session = self.session().take();
        let Some(session) = session else {
            self.watching.close();
            return self.watching.wait().await;
        };
        match why {
            // What runs notices by itself that its client is gone, and is given time for its outcome.
            SessionEnd::ClientClosed | SessionEnd::ClientGone | SessionEnd::Idle | SessionEnd::Violation => {}
            _ => session.finish(why),
        }
        self.programs.close();
        self.programs.wait().await;
        session.finish(why);
        self.watching.close();
        self.watching.wait().await;
        session.close(why).await;
    }

    /// For one channel more, if there may be one.
    pub(super) fn slot(&self) -> Option<Slot> {
        let total = self.total.fetch_add(1, Ordering::Relaxed);
        Slot::take(&self.channels, CHANNELS_MAX).filter(|_| total < CHANNELS_TOTAL_MAX)
    }

    /// For one channel more in which somebody goes on from here, if there may be one.
    pub(super) fn way_on(&self) -> Option<Slot> {
        Slot::take(&self.ways_on, WAYS_ON_MAX)
    }

    pub(super) fn session(&self) -> MutexGuard<'_, Option<Arc<Session>>> {
        self.session.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Why a session ended whose connection did.
pub(in crate::ssh) fn end_of(ended: &Result<(), Error>) -> SessionEnd {
    match ended {
        Ok(()) => SessionEnd::ClientClosed,
        Err(Error::Ssh(russh::Error::InactivityTimeout)) => SessionEnd::Idle,
        Err(Error::Ssh(russh::Error::IO(_) | russh::Error::HUP | russh::Error::Disconnect)) => SessionEnd::ClientGone,
        Err(Error::Ssh(_)) => SessionEnd::Violation,
    }
}

/// What a client is told when its connection ends.
pub(in crate::ssh) fn goodbye(why: SessionEnd) -> &'static str {
    match why {
        SessionEnd::GatewayStopped => "the gateway is stopping",
        SessionEnd::RecordingStopped => "it cannot be recorded",
        SessionEnd::Revoked => "the identity was revoked",
        SessionEnd::NotPermitted => "the identity may no longer use this connection",
        SessionEnd::Killed => "somebody who looks after the gateway ended it",
        SessionEnd::Idle => "nothing was sent for too long",
        _ => "",
    }
}

/// A channel's share in the count of channels.
pub(super) struct Slot(Arc<AtomicUsize>);

impl Slot {
    fn take(channels: &Arc<AtomicUsize>, max: usize) -> Option<Self> {
        let before = channels.fetch_add(1, Ordering::Relaxed);
        let slot = Self(Arc::clone(channels));
        (before < max).then_some(slot)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
