//! A channel of one connection that carries another (`ssh -J`).
//!
//! The library's task of the outer connection waits where a channel's messages are not taken, and that of the inner one
//! takes nothing while it writes: each could wait for the other. So a channel's messages are always taken, by
//! [`pump`], and what waits counts in the outer connection's valve, as what waits for a program does.
//!
//! Invariant: no more waits than the valve lets in; a tunnel in which more does is over.

use std::collections::VecDeque;
use std::future::Future as _;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use bytes::{Buf as _, Bytes};
use russh::{ChannelMsg, ChannelReadHalf};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

use super::inbox::ITEM_BYTES;
use super::relay::STARVES_AFTER;
use super::valve::{Starved, Valve, Way};

/// What has come in a channel and was not taken yet.
pub(super) struct Arrived {
    /// Of the connection whose channel it is.
    valve: Arc<Valve>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    queue: VecDeque<Bytes>,
    over: bool,
    reader: Option<Waker>,
}

impl Arrived {
    pub(super) fn new(valve: Arc<Valve>) -> Self {
        Self { valve, state: Mutex::default() }
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.state();
        change(&mut state);
        let reader = state.reader.take();
        drop(state);
        if let Some(reader) = reader {
            reader.wake();
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Arrived {
    fn drop(&mut self) {
        let left = self.state().queue.iter().map(|data| data.len() + ITEM_BYTES).sum();
        self.valve.passed(left);
    }
}

/// Takes what comes in a channel, until that ends.
pub(super) async fn pump(mut channel: ChannelReadHalf, arrived: &Arrived) {
    while let Some(message) = channel.wait().await {
        match message {
            ChannelMsg::Data { data } if data.is_empty() => {}
            ChannelMsg::Data { data } => {
                arrived.valve.queue(data.len() + ITEM_BYTES);
                arrived.change(|state| state.queue.push_back(data));
                if arrived.valve.is_stuck() {
                    break;
                }
            }
            ChannelMsg::Eof | ChannelMsg::Close => break,
            _ => {}
        }
    }
    arrived.change(|state| state.over = true);
}

/// The stream that a channel is.
pub(super) struct Tunnel<W> {
    arrived: Arc<Arrived>,
    writer: Pin<Box<W>>,
    /// Since something waits for room in the channel.
    waits: Option<Pin<Box<Sleep>>>,
    starved: Option<Starved>,
}

impl<W> Tunnel<W> {
    pub(super) fn new(arrived: Arc<Arrived>, writer: W) -> Self {
        Self { arrived, writer: Box::pin(writer), waits: None, starved: None }
    }
}

impl<W> Way for Tunnel<W> {
    fn outpost_lost(&self) -> bool {
        false
    }
}

impl<W> AsyncRead for Tunnel<W> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let mut state = self.arrived.state();
        let (mut taken, mut items) = (0, 0);
        while let Some(first) = state.queue.front_mut().filter(|_| buf.remaining() > 0) {
            let length = first.len().min(buf.remaining());
            buf.put_slice(&first.split_to(length));
            taken += length;
            if !first.has_remaining() {
                state.queue.pop_front();
                items += 1;
            }
        }
        if taken == 0 && !state.over {
            state.reader = Some(cx.waker().clone());
            return Poll::Pending;
        }
        drop(state);
        self.arrived.valve.passed(taken + items * ITEM_BYTES);
        Poll::Ready(Ok(()))
    }
}

impl<W: AsyncWrite> AsyncWrite for Tunnel<W> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        let written = this.writer.as_mut().poll_write(cx, bytes);
        if written.is_ready() {
            (this.waits, this.starved) = (None, None);
        } else if this.starved.is_none() {
            let waits = this.waits.get_or_insert_with(|| Box::pin(sleep(STARVES_AFTER)));
            if waits.as_mut().poll(cx).is_ready() {
                // Room is what the outer connection's client grants: that must be read.
                this.starved = Some(this.arrived.valve.starve());
            }
        }
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.writer.as_mut().poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.writer.as_mut().poll_shutdown(cx)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    fn arrive(arrived: &Arrived, bytes: &'static [u8]) {
        arrived.valve.queue(bytes.len() + ITEM_BYTES);
        arrived.change(|state| state.queue.push_back(Bytes::from_static(bytes)));
    }

    #[tokio::test]
    async fn what_arrives_is_read_in_its_order_and_counts_until_then() {
        let valve = Arc::new(Valve::default());
        let arrived = Arc::new(Arrived::new(valve.clone()));
        let mut tunnel = Tunnel::new(arrived.clone(), tokio::io::sink());
        arrive(&arrived, b"one");
        arrive(&arrived, b"two");
        assert_eq!(valve.queued(), 6 + 2 * ITEM_BYTES);
        let mut four = [0; 4];
        tunnel.read_exact(&mut four).await.unwrap();
        assert_eq!((&four, valve.queued()), (b"onet", 2 + ITEM_BYTES));
        arrived.change(|state| state.over = true);
        let mut rest = Vec::new();
        tunnel.read_to_end(&mut rest).await.unwrap();
        assert_eq!((rest.as_slice(), valve.queued()), (&b"wo"[..], 0));
        arrive(&arrived, b"left");
        drop((tunnel, arrived));
        assert_eq!(valve.queued(), 0, "what nobody takes counts no more");
    }

    #[tokio::test]
    async fn what_waits_for_room_has_the_grants_read() {
        let valve = Arc::new(Valve::default());
        let (writer, mut reader) = tokio::io::duplex(4);
        let mut tunnel = Tunnel::new(Arc::new(Arrived::new(valve.clone())), writer);
        tunnel.write_all(b"full").await.unwrap();
        let starved = async {
            while !valve.is_starved() {
                sleep(STARVES_AFTER).await;
            }
        };
        tokio::select! {
            _ = tunnel.write_all(b"more") => panic!("there is no room"),
            () = starved => {}
        }
        let mut four = [0; 4];
        reader.read_exact(&mut four).await.unwrap();
        tunnel.write_all(b"more").await.unwrap();
        assert!(!valve.is_starved());
    }
}
