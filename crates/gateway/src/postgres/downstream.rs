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
/// Less than this is not worth moving the rest of the queue for.
const COMPACT_BYTES: usize = 64 * 1024;

/// The client's end of a session.
pub(crate) struct Downstream {
    socket: Socket,
    out: Vec<u8>,
    written: usize,
    hold: Option<Hold>,
    ears: Ears,
}

/// From byte `at` of the queue on, nothing leaves before the position is durable.
#[derive(Debug, Clone, Copy)]
struct Hold {
    at: usize,
    position: Position,
    between: Between,
}

/// Whether a place in the stream is between two messages of the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Between {
    Messages,
    Parts,
}

/// What becomes of bytes for the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ears {
    /// They are sent.
    Open,
    /// What is queued is sent, and nothing more.
    Muted,
    /// The client is gone: they are dropped.
    Deaf,
}

impl Downstream {
    pub(crate) fn new(stream: Stream) -> Self {
        Self { socket: Socket::new(stream), out: Vec::new(), written: 0, hold: None, ears: Ears::Open }
    }

    /// Queues bytes.
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        if self.ears == Ears::Open {
            self.out.extend_from_slice(bytes);
        }
    }

    /// Holds back everything queued after the first `keep` queued bytes until `position` is durable.
    pub(crate) fn hold_from(&mut self, keep: usize, position: Position, between: Between) {
        let hold = match self.hold {
            Some(hold) if hold.at <= keep => Hold { position, ..hold },
            _ => Hold { at: keep, position, between },
        };
        self.hold = Some(hold);
    }

    /// The position that is waited for.
    pub(crate) fn held_for(&self) -> Option<Position> {
        self.hold.map(|hold| hold.position)
    }

    /// Drops what is queued from byte `at` on, or from where it is held if that is before.
    pub(crate) fn cut(&mut self, at: usize) {
        let at = self.hold.map_or(at, |hold| hold.at.min(at));
        self.out.truncate(at.max(self.written));
    }

    /// Drops what is held, and says where that leaves the stream; none if nothing was held.
    pub(crate) fn drop_held(&mut self) -> Option<Between> {
        let hold = self.hold.take()?;
        self.out.truncate(hold.at.max(self.written));
        Some(hold.between)
    }

    /// What is queued is the last that the client gets.
    pub(crate) fn mute(&mut self) {
        if self.ears == Ears::Open {
            self.ears = Ears::Muted;
        }
    }

    /// What was held may leave.
    pub(crate) fn release(&mut self) {
        self.hold = None;
    }

    /// Bytes that are queued and not written.
    pub(crate) fn queued(&self) -> usize {
        self.out.len() - self.written
    }

    /// Whether everything that was queued has left.
    pub(crate) fn is_drained(&self) -> bool {
        self.ears == Ears::Deaf || (self.queued() == 0 && self.socket.is_flushed())
    }

    /// Length of the queue as [`Self::hold_from`] counts it.
    pub(crate) fn len(&self) -> usize {
        self.out.len()
    }

    /// The client no longer reads: drops what is queued and what will be.
    pub(crate) fn close_ears(&mut self) {
        self.ears = Ears::Deaf;
        self.hold = None;
        self.out = Vec::new();
        self.written = 0;
    }

    /// Writes `bytes` past the queue when the queue is empty, and queues what the socket does not take.
    pub(crate) fn push_through(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> io::Result<()> {
        let mut written = 0;
        if self.out.is_empty() && self.hold.is_none() && self.ears == Ears::Open {
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
        if self.ears == Ears::Deaf {
            return Poll::Pending;
        }
        self.compact();
        let end = self.hold.map_or(self.out.len(), |hold| hold.at.min(self.out.len()));
        ready!(self.socket.poll_write_until(cx, &self.out, &mut self.written, end))?;
        if self.written == self.out.len() {
            self.out.clear();
            self.written = 0;
            if let Some(hold) = &mut self.hold {
                hold.at = 0;
            }
            if self.out.capacity() > KEEP_BYTES {
                self.out = Vec::new();
            }
        }
        self.socket.poll_flush(cx)
    }

    /// Gives up what has been written, once it is most of the queue: a client that is always a little slower than the
    /// server would otherwise make the queue as long as all that it was ever sent.
    fn compact(&mut self) {
        if self.written >= COMPACT_BYTES && self.written * 2 >= self.out.len() {
            self.out.drain(..self.written);
            if let Some(hold) = &mut self.hold {
                hold.at = hold.at.saturating_sub(self.written);
            }
            self.written = 0;
        }
    }

    /// Reads what the client sent; 0 is its end.
    pub(crate) fn poll_read(&mut self, cx: &mut Context<'_>, into: &mut [u8]) -> Poll<io::Result<usize>> {
        self.socket.poll_read(cx, into)
    }

    /// Ends the stream and waits until the client has, so that its last message is not lost: closing a socket with
    /// unread bytes in it would reset the connection under that message.
    pub(crate) fn poll_part(&mut self, cx: &mut Context<'_>, scratch: &mut [u8]) -> Poll<()> {
        if self.ears == Ears::Deaf || ready!(self.socket.poll_shutdown(cx)).is_err() {
            return Poll::Ready(());
        }
        loop {
            match ready!(self.socket.poll_read(cx, scratch)) {
                Ok(0) | Err(_) => return Poll::Ready(()),
                Ok(_) => {}
            }
        }
    }
}
