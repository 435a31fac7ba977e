//! One byte stream, whatever it runs over.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use link::LinkStream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

use crate::ssh::Tunnel;

/// A client's or an upstream's byte stream.
pub(crate) enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
    /// In a channel of a client's SSH connection.
    Tunnel(Tunnel),
    /// TLS with a client, over whatever it came.
    ServerTls(Box<tokio_rustls::server::TlsStream<Stream>>),
    ClientTls(Box<tokio_rustls::client::TlsStream<TcpStream>>),
    /// Through an outpost.
    Link(LinkStream),
    /// TLS with the resource itself, through an outpost.
    LinkTls(Box<tokio_rustls::client::TlsStream<LinkStream>>),
}

impl Stream {
    /// Whether it ended because the outpost on the way did.
    pub(crate) fn outpost_lost(&self) -> bool {
        match self {
            Self::Link(stream) => stream.is_lost(),
            Self::LinkTls(stream) => stream.get_ref().0.is_lost(),
            Self::Tcp(_) | Self::Unix(_) | Self::Tunnel(_) | Self::ServerTls(_) | Self::ClientTls(_) => false,
        }
    }

    /// The first byte that comes from a client, which is still to be read; none if it ends. Cancel safe.
    pub(crate) async fn peek(&mut self) -> io::Result<Option<u8>> {
        match self {
            Self::Tcp(stream) => {
                let mut first = [0];
                let count = stream.peek(&mut first).await?;
                Ok(first.first().copied().filter(|_| count > 0))
            }
            Self::Tunnel(stream) => Ok(stream.peek().await),
            Self::Unix(_) | Self::ServerTls(_) | Self::ClientTls(_) | Self::Link(_) | Self::LinkTls(_) => {
                Err(io::ErrorKind::Unsupported.into())
            }
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Unix(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Tunnel(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::ServerTls(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::ClientTls(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Link(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::LinkTls(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Unix(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Tunnel(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::ServerTls(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::ClientTls(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Link(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::LinkTls(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_flush(cx),
            Self::Unix(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tunnel(stream) => Pin::new(stream).poll_flush(cx),
            Self::ServerTls(stream) => Pin::new(stream).poll_flush(cx),
            Self::ClientTls(stream) => Pin::new(stream).poll_flush(cx),
            Self::Link(stream) => Pin::new(stream).poll_flush(cx),
            Self::LinkTls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tunnel(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::ServerTls(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::ClientTls(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Link(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::LinkTls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

/// A stream with what both ends of a session do with it.
pub(crate) struct Socket {
    stream: Stream,
    flushed: bool,
}

impl Socket {
    pub(crate) fn new(stream: Stream) -> Self {
        Self { stream, flushed: true }
    }

    /// Writes `bytes` from `written` up to `end`, and moves `written`. Ready when that is done.
    pub(crate) fn poll_write_until(
        &mut self,
        cx: &mut Context<'_>,
        bytes: &[u8],
        written: &mut usize,
        end: usize,
    ) -> Poll<io::Result<()>> {
        while let Some(rest) = bytes.get(*written..end)
            && !rest.is_empty()
        {
            let count = ready!(Pin::new(&mut self.stream).poll_write(cx, rest))?;
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            *written += count;
            self.flushed = false;
        }
        Poll::Ready(Ok(()))
    }

    /// Ready once after each time that something was written and has left.
    pub(crate) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.flushed {
            return Poll::Pending;
        }
        ready!(Pin::new(&mut self.stream).poll_flush(cx))?;
        self.flushed = true;
        Poll::Ready(Ok(()))
    }

    /// The peer does not take what was written.
    pub(crate) fn forget_unflushed(&mut self) {
        self.flushed = true;
    }

    /// Whether everything that was written has left.
    pub(crate) fn is_flushed(&self) -> bool {
        self.flushed
    }

    /// Reads what the peer sent; 0 is its end.
    pub(crate) fn poll_read(&mut self, cx: &mut Context<'_>, into: &mut [u8]) -> Poll<io::Result<usize>> {
        let mut into = ReadBuf::new(into);
        ready!(Pin::new(&mut self.stream).poll_read(cx, &mut into))?;
        Poll::Ready(Ok(into.filled().len()))
    }

    /// Whether the stream ended because the outpost on the way did.
    pub(crate) fn outpost_lost(&self) -> bool {
        self.stream.outpost_lost()
    }

    /// Ends the stream towards the peer.
    pub(crate) fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
