//! Many streams over one connection, each with a window of its own: one that is not read slows itself and no other.
//!
//! yamux does the multiplexing. Here it gets its bytes written once a turn instead of once a frame, streams that know
//! whether they ended or were lost, and opening from any thread.
//!
//! Invariant: a [`Mux`] must be polled for its streams to move; when it is dropped, all of them are lost and say so.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use futures_io::{AsyncRead as _, AsyncWrite as _};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::{mpsc, oneshot};

use crate::{STREAMS_MAX, WINDOW_BYTES, WINDOW_EXTRA_BYTES};

/// Bytes that wait to be written before frames have to wait.
const OUT_BYTES_MAX: usize = 128 * 1024;
/// A drained buffer larger than this is given back to the allocator.
const KEEP_BYTES: usize = 16 * 1024;
/// Streams that are ended here and not yet there, beyond [`STREAMS_MAX`].
const STREAMS_ENDING_MAX: usize = 256;
/// Streams that wait to be opened.
const OPENS_MAX: usize = 256;

/// Which end of the connection this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// It dials; it opens the control stream and no other.
    Outpost,
    /// It listens, and opens a stream for each session.
    Gateway,
}

/// Why there is no stream.
#[derive(Debug, thiserror::Error)]
pub enum MuxError {
    /// The connection is no more.
    #[error("the link is lost")]
    Lost,
    /// It has all the streams that it may have.
    #[error("the link has {STREAMS_MAX} streams already")]
    Full,
    /// The other end does not speak the protocol, or the connection broke.
    #[error("the link broke: {0}")]
    Broken(#[from] yamux::ConnectionError),
    /// The connection broke while something was written to it.
    #[error("the link broke: {0}")]
    Io(#[from] io::Error),
}

/// A connection with many streams.
pub struct Mux<T: AsyncRead + AsyncWrite + Unpin> {
    connection: yamux::Connection<Half<T>>,
    carrier: Arc<Mutex<Carrier<T>>>,
    opens: mpsc::Receiver<oneshot::Sender<Result<LinkStream, MuxError>>>,
    waiting: Option<oneshot::Sender<Result<LinkStream, MuxError>>>,
    shared: Arc<Shared>,
}

/// Opens streams of a [`Mux`], from any thread.
#[derive(Clone)]
pub struct Opener {
    asks: mpsc::Sender<oneshot::Sender<Result<LinkStream, MuxError>>>,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    dead: AtomicBool,
    streams: AtomicUsize,
}

impl<T: AsyncRead + AsyncWrite + Unpin> Mux<T> {
    /// Takes over a connection whose handshakes are done.
    pub fn new(io: T, side: Side) -> (Self, Opener) {
        let carrier = Arc::new(Mutex::new(Carrier { io, out: Vec::new(), written: 0, dirty: false }));
        let mut config = yamux::Config::default();
        let streams = STREAMS_MAX + STREAMS_ENDING_MAX;
        config.set_max_num_streams(streams);
        config.set_max_connection_receive_window(Some(streams * WINDOW_BYTES + WINDOW_EXTRA_BYTES));
        let mode = match side {
            Side::Outpost => yamux::Mode::Client,
            Side::Gateway => yamux::Mode::Server,
        };
        let (asks, opens) = mpsc::channel(OPENS_MAX);
        let shared = Arc::new(Shared::default());
        let connection = yamux::Connection::new(Half(carrier.clone()), config, mode);
        (Self { connection, carrier, opens, waiting: None, shared: shared.clone() }, Opener { asks, shared })
    }

    /// Moves all streams, and gives the next one that the other end has opened. `None` is the end of the connection.
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<LinkStream, MuxError>>> {
        let polled = self.poll_streams(cx);
        // Whatever was said above leaves now, in one piece.
        match lock(&self.carrier).poll_drain(cx) {
            Poll::Ready(Err(error)) if polled.is_pending() => {
                self.shared.dead.store(true, SeqCst);
                return Poll::Ready(Some(Err(error.into())));
            }
            Poll::Ready(_) | Poll::Pending => {}
        }
        if let Poll::Ready(None | Some(Err(_))) = polled {
            self.shared.dead.store(true, SeqCst);
        }
        polled
    }

    fn poll_streams(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<LinkStream, MuxError>>> {
        loop {
            while self.waiting.is_none()
                && let Poll::Ready(Some(asked)) = self.opens.poll_recv(cx)
            {
                self.waiting = Some(asked).filter(|asked| !asked.is_closed());
            }
            // Looked at again here, where streams are opened one by one: beyond the limit of the other end the whole link ends.
            if self.shared.streams.load(SeqCst) >= STREAMS_MAX
                && let Some(asked) = self.waiting.take()
            {
                let _ = asked.send(Err(MuxError::Full));
                continue;
            }
            if self.waiting.is_some()
                && let Poll::Ready(opened) = self.connection.poll_new_outbound(cx)
            {
                match opened {
                    Ok(stream) => {
                        let stream = self.wrap(stream);
                        // Who asked may have gone: then the stream is dropped, and nothing was sent for it.
                        let _ = self.waiting.take().map(|asked| asked.send(Ok(stream)));
                        continue;
                    }
                    Err(error) => return Poll::Ready(Some(Err(error.into()))),
                }
            }
            let next = ready!(self.connection.poll_next_inbound(cx));
            return Poll::Ready(next.map(|next| next.map(|stream| self.wrap(stream)).map_err(MuxError::from)));
        }
    }

    fn wrap(&self, inner: yamux::Stream) -> LinkStream {
        self.shared.streams.fetch_add(1, SeqCst);
        LinkStream { inner, shared: self.shared.clone(), ended: false, shut: false }
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> Drop for Mux<T> {
    fn drop(&mut self) {
        // Before the streams learn that they are closed, so that they can tell why.
        self.shared.dead.store(true, SeqCst);
    }
}

impl Opener {
    /// Opens a stream. The other end learns of it with the first byte that is written.
    ///
    /// # Errors
    /// The link is lost, or has too many streams.
    pub async fn open(&self) -> Result<LinkStream, MuxError> {
        if self.streams() >= STREAMS_MAX {
            return Err(MuxError::Full);
        }
        let (ask, opened) = oneshot::channel();
        self.asks.send(ask).await.map_err(|_| MuxError::Lost)?;
        opened.await.map_err(|_| MuxError::Lost)?
    }

    /// How many streams there are.
    #[must_use]
    pub fn streams(&self) -> usize {
        self.shared.streams.load(SeqCst)
    }

    /// Whether the link is lost.
    #[must_use]
    pub fn is_lost(&self) -> bool {
        self.shared.dead.load(SeqCst) || self.asks.is_closed()
    }
}

/// One stream of a link.
pub struct LinkStream {
    inner: yamux::Stream,
    shared: Arc<Shared>,
    /// The other end has ended it properly.
    ended: bool,
    /// This end has.
    shut: bool,
}

impl LinkStream {
    /// Whether the stream ended because the link did, or because the other end dropped it, and not in order.
    #[must_use]
    pub fn is_lost(&self) -> bool {
        !self.ended && (self.shared.dead.load(SeqCst) || (self.inner.is_closed() && !self.shut))
    }
}

impl Drop for LinkStream {
    fn drop(&mut self) {
        self.shared.streams.fetch_sub(1, SeqCst);
    }
}

impl AsyncRead for LinkStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let read = ready!(Pin::new(&mut this.inner).poll_read(cx, buf.initialize_unfilled()))?;
        if read == 0 && buf.remaining() > 0 {
            if this.is_lost() {
                return Poll::Ready(Err(io::Error::new(io::ErrorKind::ConnectionAborted, MuxError::Lost)));
            }
            this.ended = true;
        }
        buf.advance(read);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for LinkStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // What is written is the connection's from then on, and it sends all it has.
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.shut = true;
        Pin::new(&mut self.inner).poll_close(cx)
    }
}

/// The connection below, with what waits to be written to it.
struct Carrier<T> {
    io: T,
    out: Vec<u8>,
    written: usize,
    /// Something was written and not flushed.
    dirty: bool,
}

impl<T: AsyncWrite + Unpin> Carrier<T> {
    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some(rest) = self.out.get(self.written..)
            && !rest.is_empty()
        {
            let count = ready!(Pin::new(&mut self.io).poll_write(cx, rest))?;
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.written += count;
            self.dirty = true;
        }
        self.written = 0;
        self.out.clear();
        if self.out.capacity() > KEEP_BYTES {
            self.out = Vec::new();
        }
        if self.dirty {
            ready!(Pin::new(&mut self.io).poll_flush(cx))?;
            self.dirty = false;
        }
        Poll::Ready(Ok(()))
    }
}

/// What yamux has of the connection: it writes to the buffer, and the [`Mux`] sends that once a turn.
struct Half<T>(Arc<Mutex<Carrier<T>>>);

fn lock<T>(carrier: &Mutex<T>) -> MutexGuard<'_, T> {
    carrier.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<T: AsyncRead + Unpin> futures_io::AsyncRead for Half<T> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut [u8]) -> Poll<io::Result<usize>> {
        let mut into = ReadBuf::new(into);
        ready!(Pin::new(&mut lock(&self.0).io).poll_read(cx, &mut into))?;
        Poll::Ready(Ok(into.filled().len()))
    }
}

impl<T: AsyncWrite + Unpin> futures_io::AsyncWrite for Half<T> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let mut carrier = lock(&self.0);
        if carrier.out.len() >= OUT_BYTES_MAX {
            ready!(carrier.poll_drain(cx))?;
        }
        carrier.out.extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut carrier = lock(&self.0);
        ready!(carrier.poll_drain(cx))?;
        Pin::new(&mut carrier.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::future::poll_fn;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    async fn drive(mut mux: Mux<tokio::io::DuplexStream>, streams: mpsc::Sender<LinkStream>) {
        while let Some(Ok(stream)) = poll_fn(|cx| mux.poll_next(cx)).await {
            let _ = streams.send(stream).await;
        }
    }

    fn pair() -> (Opener, mpsc::Receiver<LinkStream>, tokio::task::JoinHandle<()>, tokio::task::JoinHandle<()>) {
        let (a, b) = tokio::io::duplex(64 * 1024);
        let (gateway, opener) = Mux::new(a, Side::Gateway);
        let (outpost, _) = Mux::new(b, Side::Outpost);
        let (sender, streams) = mpsc::channel(8);
        let (nobody, _) = mpsc::channel(1);
        (opener, streams, tokio::spawn(drive(gateway, nobody)), tokio::spawn(drive(outpost, sender)))
    }

    #[tokio::test]
    async fn an_end_in_order_is_told_from_a_lost_link() {
        let (opener, mut streams, gateway, outpost) = pair();
        let mut ours = opener.open().await.unwrap();
        ours.write_all(b"hello").await.unwrap();
        let mut theirs = streams.recv().await.unwrap();
        let mut five = [0; 5];
        theirs.read_exact(&mut five).await.unwrap();
        theirs.write_all(b"bye").await.unwrap();
        theirs.shutdown().await.unwrap();
        let mut all = Vec::new();
        ours.read_to_end(&mut all).await.unwrap();
        assert_eq!((all.as_slice(), ours.is_lost()), (b"bye".as_slice(), false));

        let mut ours = opener.open().await.unwrap();
        ours.write_all(b"hello").await.unwrap();
        let _theirs = streams.recv().await.unwrap();
        outpost.abort();
        let error = ours.read_u8().await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionAborted);
        assert!(ours.is_lost());
        gateway.await.unwrap();
        assert!(opener.is_lost());
    }

    #[tokio::test]
    async fn a_stream_that_is_not_read_does_not_slow_another() {
        let (opener, mut streams, _gateway, _outpost) = pair();
        let mut slow = opener.open().await.unwrap();
        slow.write_all(&[0]).await.unwrap();
        let _unread = streams.recv().await.unwrap();
        // Its window fills up, and then it waits.
        let stuck = tokio::spawn(async move { slow.write_all(&vec![0; 2 * WINDOW_BYTES]).await });
        let mut quick = opener.open().await.unwrap();
        let writing = tokio::spawn(async move {
            for _ in 0..100 {
                quick.write_all(&[1; 10_000]).await.unwrap();
            }
            quick.shutdown().await.unwrap();
        });
        let mut theirs = streams.recv().await.unwrap();
        let mut all = Vec::new();
        theirs.read_to_end(&mut all).await.unwrap();
        writing.await.unwrap();
        assert_eq!(all.len(), 1_000_000);
        assert!(!stuck.is_finished());
    }
}
