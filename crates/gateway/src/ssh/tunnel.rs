//! A channel of one connection that carries another (`ssh -J`), or a client of a database (`ssh -L`).
//!
//! The library's task of the outer connection waits where a channel's messages are not taken, and that of the inner one
//! takes nothing while it writes: each could wait for the other. So a channel's messages are always taken, by
//! [`pump`], and what waits counts in the outer connection's valve, as what waits for a program does.
//!
//! Invariant: no more waits than the valve lets in; a tunnel in which more does is over.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};

use bytes::{Buf as _, Bytes};
use russh::server::Msg;
use russh::{Channel, ChannelMsg, ChannelReadHalf};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

use super::inbox::ITEM_BYTES;
use super::relay::STARVES_AFTER;
use super::valve::{Starved, Valve};

/// Bytes that a tunnel takes before the ones ahead of them have found room: as many as fit into one message.
const OUT_BYTES_MAX: usize = 32 * 1024;

/// Serves the stream that a channel is which was opened over the connection with this valve; then the channel is closed.
pub(super) async fn serve<F: Future<Output = ()>>(
    channel: Channel<Msg>,
    valve: Arc<Valve>,
    serving: impl FnOnce(Tunnel) -> F,
) {
    let (reader, writer) = channel.split();
    let arrived = Arc::new(Arrived::new(valve));
    let tunnel = Tunnel::new(arrived.clone(), writer.make_writer());
    let pumping = async {
        pump(reader, &arrived).await;
        std::future::pending().await
    };
    tokio::select! {
        () = serving(tunnel) => {}
        () = pumping => {}
    }
    let _ = writer.close().await;
}

/// What has come in a channel and was not taken yet.
struct Arrived {
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
    fn new(valve: Arc<Valve>) -> Self {
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
async fn pump(mut channel: ChannelReadHalf, arrived: &Arrived) {
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
pub(crate) struct Tunnel {
    arrived: Arc<Arrived>,
    writer: Pin<Box<dyn AsyncWrite + Send + Sync>>,
    /// What was taken and is to be written. The library's writer has taken bytes already where it says that there is no
    /// room, and would write them whatever it is given next: so it is only ever given what was taken for good.
    out: Vec<u8>,
    written: usize,
    /// Its end was written.
    shut: bool,
    /// Since something waits for room in the channel.
    waits: Option<Pin<Box<Sleep>>>,
    starved: Option<Starved>,
}

impl Tunnel {
    fn new(arrived: Arc<Arrived>, writer: impl AsyncWrite + Send + Sync + 'static) -> Self {
        let (out, written, shut) = (Vec::new(), 0, false);
        Self { arrived, writer: Box::pin(writer), out, written, shut, waits: None, starved: None }
    }

    /// The first byte that comes, which is still to be read; none if it ends. Cancel safe.
    pub(crate) async fn peek(&mut self) -> Option<u8> {
        poll_fn(|cx| {
            let mut state = self.arrived.state();
            let first = state.queue.front().and_then(|data| data.first().copied());
            if first.is_none() && !state.over {
                state.reader = Some(cx.waker().clone());
                return Poll::Pending;
            }
            Poll::Ready(first)
        })
        .await
    }

    /// Ready once all that was taken is written.
    fn poll_out(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some(rest) = self.out.get(self.written..)
            && !rest.is_empty()
        {
            match self.writer.as_mut().poll_write(cx, rest) {
                Poll::Ready(count) => {
                    (self.waits, self.starved) = (None, None);
                    match count? {
                        0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                        count => self.written += count,
                    }
                }
                Poll::Pending => {
                    self.wait(cx);
                    return Poll::Pending;
                }
            }
        }
        self.out.clear();
        self.written = 0;
        Poll::Ready(Ok(()))
    }

    /// There is no room.
    fn wait(&mut self, cx: &mut Context<'_>) {
        if self.starved.is_none() {
            let waits = self.waits.get_or_insert_with(|| Box::pin(sleep(STARVES_AFTER)));
            if waits.as_mut().poll(cx).is_ready() {
                // Room is what the connection's client grants: that must be read.
                self.starved = Some(self.arrived.valve.starve());
            }
        }
    }
}

impl AsyncRead for Tunnel {
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

impl AsyncWrite for Tunnel {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.poll_out(cx))?;
        let (taken, _) = bytes.split_at(bytes.len().min(OUT_BYTES_MAX));
        self.out.extend_from_slice(taken);
        match self.poll_out(cx) {
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Ready(Ok(())) | Poll::Pending => Poll::Ready(Ok(taken.len())),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_out(cx))?;
        self.writer.as_mut().poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_out(cx))?;
        if !self.shut {
            ready!(self.writer.as_mut().poll_shutdown(cx))?;
            self.shut = true;
        }
        Poll::Ready(Ok(()))
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
    async fn what_is_looked_at_is_still_to_be_read() {
        let arrived = Arc::new(Arrived::new(Arc::default()));
        let mut tunnel = Tunnel::new(arrived.clone(), tokio::io::sink());
        let (first, ()) = tokio::join!(tunnel.peek(), async { arrive(&arrived, b"one") });
        assert_eq!(first, Some(b'o'));
        let mut three = [0; 3];
        tunnel.read_exact(&mut three).await.unwrap();
        arrived.change(|state| state.over = true);
        assert_eq!((&three, tunnel.peek().await), (b"one", None));
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
        tunnel.write_all(b"more").await.unwrap();
        tokio::select! {
            _ = tunnel.flush() => panic!("there is no room"),
            () = starved => {}
        }
        let mut eight = [0; 8];
        reader.read_exact(&mut eight[..4]).await.unwrap();
        tunnel.flush().await.unwrap();
        assert!(!valve.is_starved());
        reader.read_exact(&mut eight[4..]).await.unwrap();
        assert_eq!(&eight, b"fullmore");
    }
}
