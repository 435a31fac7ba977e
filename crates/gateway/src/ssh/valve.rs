//! How much of what a peer sends is taken from its socket: as much as can be passed on.
//!
//! The library grants a channel's window when bytes arrive, not when they are passed on, so a peer could send without
//! end. A connection whose bytes wait to be passed on is therefore not read any more. One exception: while something
//! waits for room that the peer itself must grant, its grants must be read, and with them what it sends before them.
//!
//! The library's tasks go on by themselves when their handles are dropped. A connection is ended for sure by cutting it.
//!
//! Invariant: a connection that waits for nothing of its peer's takes no more than [`QUEUED_BYTES_MAX`] and what one
//! channel's window lets in; none takes more than [`STUCK_BYTES_MAX`] and that. What waits for one client, of all its programs,
//! is no more than [`STUCK_BYTES_MAX`] and [`SHARE_BYTES_MAX`] for each of them.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::stream::Stream;

/// Bytes that wait to be passed on, above which the connection that they came over is not read.
const QUEUED_BYTES_MAX: usize = 1 << 20;
/// Bytes that wait to be passed on, above which the program that they are for is ended: its client sends on and reads
/// nothing.
pub(super) const STUCK_BYTES_MAX: usize = 64 << 20;
/// Bytes that may wait for a client of one program, whatever waits for it of others: above what comes of a program whose host's
/// grants nobody waits for.
const SHARE_BYTES_MAX: usize = 4 << 20;

/// What is queued of one connection.
#[derive(Default)]
pub(super) struct Valve(Mutex<State>);

#[derive(Default)]
struct State {
    queued: usize,
    /// Bytes that came over other connections and wait for the peer of this one to take them.
    owed: usize,
    /// How many wait for the peer to grant them room.
    starved: usize,
    reader: Option<Waker>,
    writer: Option<Waker>,
    cut: bool,
    outpost_lost: bool,
}

impl State {
    fn is_open(&self) -> bool {
        self.cut || self.queued <= QUEUED_BYTES_MAX || (self.starved > 0 && self.queued <= STUCK_BYTES_MAX)
    }
}

impl Valve {
    /// So many bytes came over the connection and wait.
    pub(super) fn queue(&self, bytes: usize) {
        self.change(|state| state.queued = state.queued.saturating_add(bytes));
    }

    /// So many of them wait no more.
    pub(super) fn passed(&self, bytes: usize) {
        self.change(|state| state.queued = state.queued.saturating_sub(bytes));
    }

    /// So many bytes that came from elsewhere wait for the peer.
    pub(super) fn owe(&self, bytes: usize) {
        let mut state = self.state();
        state.owed = state.owed.saturating_add(bytes);
    }

    /// So many of them wait no more.
    pub(super) fn paid(&self, bytes: usize) {
        let mut state = self.state();
        state.owed = state.owed.saturating_sub(bytes);
    }

    /// Whether a program of which so many bytes wait for the peer must be ended.
    pub(super) fn is_too_much(&self, bytes: usize) -> bool {
        bytes > STUCK_BYTES_MAX || (bytes > SHARE_BYTES_MAX && self.state().owed > STUCK_BYTES_MAX)
    }

    /// As long as what is given lives, something waits for room that the peer of the connection must grant.
    pub(super) fn starve(self: &Arc<Self>) -> Starved {
        self.change(|state| state.starved += 1);
        Starved(Arc::clone(self))
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.state();
        change(&mut state);
        let reader = if state.is_open() { state.reader.take() } else { None };
        drop(state);
        if let Some(reader) = reader {
            reader.wake();
        }
    }

    /// Whether more waits than may in any case.
    pub(super) fn is_stuck(&self) -> bool {
        self.state().queued > STUCK_BYTES_MAX
    }

    /// Whether the connection ended because the outpost on the way did.
    pub(super) fn outpost_lost(&self) -> bool {
        self.state().outpost_lost
    }

    #[cfg(test)]
    pub(super) fn queued(&self) -> usize {
        self.state().queued
    }

    #[cfg(test)]
    pub(super) fn is_starved(&self) -> bool {
        self.state().starved > 0
    }

    /// Ends the connection when what is given is dropped, whoever still has it.
    pub(super) fn cut_on_drop(self: &Arc<Self>) -> Cut {
        Cut(Arc::clone(self))
    }

    /// Ready when the connection may be read; an error once it was cut. Whoever reads is woken when that changes.
    fn poll_open(&self, cx: &Context<'_>) -> Poll<io::Result<()>> {
        let mut state = self.state();
        if state.cut {
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        state.reader = Some(cx.waker().clone());
        if state.is_open() { Poll::Ready(Ok(())) } else { Poll::Pending }
    }

    /// An error once the connection was cut. Whoever writes is woken then.
    fn check_uncut(&self, cx: &Context<'_>) -> io::Result<()> {
        let mut state = self.state();
        if state.cut {
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        state.writer = Some(cx.waker().clone());
        Ok(())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// See [`Valve::cut_on_drop`].
pub(super) struct Cut(Arc<Valve>);

impl Drop for Cut {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.cut = true;
        let waiting = [state.reader.take(), state.writer.take()];
        drop(state);
        waiting.into_iter().flatten().for_each(Waker::wake);
    }
}

/// See [`Valve::starve`].
pub(super) struct Starved(Arc<Valve>);

impl Drop for Starved {
    fn drop(&mut self) {
        self.0.change(|state| state.starved = state.starved.saturating_sub(1));
    }
}

/// A connection that is read only while its valve is open.
pub(super) struct Valved {
    stream: Stream,
    valve: Arc<Valve>,
}

impl Valved {
    pub(super) fn new(stream: Stream, valve: Arc<Valve>) -> Self {
        Self { stream, valve }
    }
}

impl AsyncRead for Valved {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        ready!(self.valve.poll_open(cx))?;
        let before = buf.filled().len();
        let read = ready!(Pin::new(&mut self.stream).poll_read(cx, buf));
        if (read.is_err() || buf.filled().len() == before) && self.stream.outpost_lost() {
            self.valve.state().outpost_lost = true;
        }
        Poll::Ready(read)
    }
}

impl AsyncWrite for Valved {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.valve.check_uncut(cx)?;
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::task::Context;

    use super::*;

    #[test]
    fn what_waits_closes_it_and_what_starves_opens_it() {
        let valve = Arc::new(Valve::default());
        let cx = Context::from_waker(Waker::noop());
        valve.queue(QUEUED_BYTES_MAX);
        assert!(valve.poll_open(&cx).is_ready());
        valve.queue(1);
        assert!(valve.poll_open(&cx).is_pending());
        let starved = valve.starve();
        assert!(valve.poll_open(&cx).is_ready(), "the peer's grants must be read");
        drop(starved);
        assert!(valve.poll_open(&cx).is_pending());
        valve.passed(1);
        assert!(valve.poll_open(&cx).is_ready());
    }

    #[test]
    fn nothing_opens_it_beyond_the_bound() {
        let valve = Arc::new(Valve::default());
        let cx = Context::from_waker(Waker::noop());
        let _starved = valve.starve();
        valve.queue(STUCK_BYTES_MAX);
        assert!(valve.poll_open(&cx).is_ready() && !valve.is_stuck());
        valve.queue(1);
        assert!(valve.poll_open(&cx).is_pending() && valve.is_stuck());
    }

    #[test]
    fn what_waits_for_a_client_counts_together_beyond_a_share() {
        let valve = Valve::default();
        valve.owe(STUCK_BYTES_MAX);
        assert!(!valve.is_too_much(STUCK_BYTES_MAX));
        valve.owe(1);
        assert!(!valve.is_too_much(SHARE_BYTES_MAX) && valve.is_too_much(SHARE_BYTES_MAX + 1));
        valve.paid(1);
        assert!(!valve.is_too_much(SHARE_BYTES_MAX + 1) && valve.is_too_much(STUCK_BYTES_MAX + 1));
    }

    #[tokio::test]
    async fn what_is_cut_ends_whoever_has_it() {
        use tokio::io::AsyncReadExt as _;
        let valve = Arc::new(Valve::default());
        let cut = valve.cut_on_drop();
        let (ours, _theirs) = tokio::net::UnixStream::pair().unwrap();
        let mut stream = Valved::new(Stream::Unix(ours), valve);
        let reading = tokio::spawn(async move { stream.read_u8().await.map_err(|error| error.kind()) });
        tokio::task::yield_now().await;
        drop(cut);
        assert_eq!(reading.await.unwrap(), Err(io::ErrorKind::ConnectionAborted));
    }
}
