//! The bytes on their way to the client, and what holds them back.
//!
//! They leave verbatim and in order. With durability `held` and `both`, from some byte on they wait
//! until a position of the record is durable.

use std::io;
use std::task::{Context, Poll, ready};

use store::Position;

use crate::stream::{Socket, Stream};

/// A drained buffer larger than this is given back to the allocator.
const KEEP_BYTES: usize = 4 * 1024;

/// The client's end of a session.
pub(crate) struct Downstream {
    socket: Socket,
    out: Vec<u8>,
    written: usize,
    /// From this byte of `out` on, nothing leaves before the position is durable.
    hold: Option<(usize, Position)>,
    /// The client is gone: what is for it is dropped.
    deaf: bool,
}

impl Downstream {
    pub(crate) fn new(stream: Stream) -> Self {
        Self { socket: Socket::new(stream), out: Vec::new(), written: 0, hold: None, deaf: false }
    }

    /// Queues bytes.
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        if !self.deaf {
            self.out.extend_from_slice(bytes);
        }
    }

    /// Holds back everything queued after the first `keep` queued bytes until `position` is durable.
    pub(crate) fn hold_from(&mut self, keep: usize, position: Position) {
        let at = self.hold.map_or(keep, |(at, _)| at.min(keep));
        self.hold = Some((at, position));
    }

    /// The position that is waited for.
    pub(crate) fn held_for(&self) -> Option<Position> {
        self.hold.map(|(_, position)| position)
    }

    /// What was held may leave.
    pub(crate) fn release(&mut self) {
        self.hold = None;
    }

    /// Bytes that are queued and not written.
    pub(crate) fn queued(&self) -> usize {
        self.out.len() - self.written
    }

    /// Length of the queue as [`Self::hold_from`] counts it.
    pub(crate) fn len(&self) -> usize {
        self.out.len()
    }

    /// The client no longer reads: drops what is queued and what will be.
    pub(crate) fn close_ears(&mut self) {
        self.deaf = true;
        self.hold = None;
        self.out = Vec::new();
        self.written = 0;
    }

    /// Writes `bytes` past the queue when the queue is empty, and queues what the socket does not take.
    pub(crate) fn push_through(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> io::Result<()> {
        let mut written = 0;
        if self.out.is_empty() && self.hold.is_none() && !self.deaf {
            match self.socket.poll_write_until(cx, bytes, &mut written, bytes.len()) {
                Poll::Ready(done) => done?,
                Poll::Pending => {}
            }
        }
        self.push(bytes.get(written..).unwrap_or_default());
        Ok(())
    }

    /// Writes what may leave. Ready when there was something to write and it has been written.
    pub(crate) fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.deaf {
            return Poll::Pending;
        }
        let end = self.hold.map_or(self.out.len(), |(at, _)| at.min(self.out.len()));
        ready!(self.socket.poll_write_until(cx, &self.out, &mut self.written, end))?;
        if self.written == self.out.len() {
            self.out.clear();
            self.written = 0;
            if let Some((at, _)) = &mut self.hold {
                *at = 0;
            }
            if self.out.capacity() > KEEP_BYTES {
                self.out = Vec::new();
            }
        }
        self.socket.poll_flush(cx)
    }

    /// Reads what the client sent; 0 is its end.
    pub(crate) fn poll_read(&mut self, cx: &mut Context<'_>, into: &mut [u8]) -> Poll<io::Result<usize>> {
        self.socket.poll_read(cx, into)
    }

    /// Ends the stream towards the client.
    pub(crate) fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.socket.poll_shutdown(cx)
    }
}
