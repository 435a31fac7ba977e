//! The bytes on their way to the server, and the proofs without which they do not leave.
//!
//! Bytes that execute nothing pass. Bytes that execute are *staged*: they keep their place in the
//! stream and leave only when [`Upstream::forward`] has been shown the command's [`Permit`] and its
//! [`Recorded`]. There is no other way in.

use std::collections::VecDeque;
use std::io;
use std::task::{Context, Poll, ready};

use policy::Permit;
use store::{BlobReader, Recorded};
use wire::postgres::tap::{Executing, ExecutingLarge, Passive, PassiveLarge};

use crate::stream::{Socket, Stream};

/// A drained buffer larger than this is given back to the allocator.
const KEEP_BYTES: usize = 4 * 1024;

/// The server's end of a session.
pub(crate) struct Upstream {
    socket: Socket,
    out: Vec<u8>,
    /// Prefix of `out` that has been written.
    written: usize,
    /// Prefix of `out` that may be written: `written <= released <= out.len()`.
    released: usize,
    /// Where each staged command starts, in order; the first is at `released`.
    staged: VecDeque<usize>,
    /// The body of a message too large for memory, behind everything in `out`.
    spool: Option<BlobReader>,
}

/// A place in the stream that waits for its proofs.
#[must_use = "staged bytes leave only through Upstream::forward"]
#[derive(Debug)]
pub(crate) struct Staged(());

impl Upstream {
    pub(crate) fn new(stream: Stream) -> Self {
        Self {
            socket: Socket::new(stream),
            out: Vec::new(),
            written: 0,
            released: 0,
            staged: VecDeque::new(),
            spool: None,
        }
    }

    /// Bytes that execute nothing. They keep their order behind what is staged.
    pub(crate) fn pass(&mut self, frames: Passive<'_>) {
        frames.write_to(&mut self.out);
        self.release();
    }

    /// A large message that executes nothing; its body is read back from the record.
    pub(crate) fn pass_large(&mut self, header: PassiveLarge, body: BlobReader) {
        header.write_to(&mut self.out);
        self.spool = Some(body);
        self.release();
    }

    /// Gives a command its place in the stream.
    pub(crate) fn stage(&mut self, frames: Executing<'_>) -> Staged {
        self.staged.push_back(self.out.len());
        frames.write_to(&mut self.out);
        Staged(())
    }

    /// Gives a large command its place in the stream; its body is read back from the record.
    pub(crate) fn stage_large(&mut self, header: ExecutingLarge, body: BlobReader) -> Staged {
        self.staged.push_back(self.out.len());
        header.write_to(&mut self.out);
        self.spool = Some(body);
        Staged(())
    }

    /// Lets the oldest staged command leave: it may run, and its intent is where the connection's
    /// durability wants it.
    pub(crate) fn forward(&mut self, staged: Staged, permit: &Permit, recorded: &Recorded) {
        let (Staged(()), _, _) = (staged, permit, recorded);
        self.staged.pop_front();
        self.release();
    }

    fn release(&mut self) {
        self.released = self.staged.front().copied().unwrap_or(self.out.len());
    }

    /// Whether everything has been written and nothing waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.out.is_empty() && self.spool.is_none()
    }

    /// Forgets what has not left. For the end of a session only.
    pub(crate) fn discard_staged(&mut self) {
        self.out.truncate(self.released);
        self.staged.clear();
        if self.spool.is_some() && self.written == self.released {
            self.spool = None;
        }
    }

    /// The server does not take what is sent: forgets what has not left. It may still be read.
    pub(crate) fn give_up_writing(&mut self) {
        self.out = Vec::new();
        (self.written, self.released) = (0, 0);
        self.staged.clear();
        self.spool = None;
        self.socket.forget_unflushed();
    }

    /// Writes what may leave. Ready when there was something to write and it has been written.
    pub(crate) fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            ready!(self.socket.poll_write_until(cx, &self.out, &mut self.written, self.released))?;
            if self.written < self.out.len() {
                break;
            }
            self.out.clear();
            (self.written, self.released) = (0, 0);
            let Some(spool) = &mut self.spool else {
                if self.out.capacity() > KEEP_BYTES {
                    self.out = Vec::new();
                }
                break;
            };
            match spool.next_chunk().map_err(io::Error::other)? {
                Some(chunk) => self.out.extend_from_slice(chunk),
                None => self.spool = None,
            }
            self.released = self.out.len();
        }
        self.socket.poll_flush(cx)
    }

    /// Whether the server is gone because the outpost on the way to it is.
    pub(crate) fn outpost_lost(&self) -> bool {
        self.socket.outpost_lost()
    }

    /// Reads what the server sent; 0 is its end.
    pub(crate) fn poll_read(&mut self, cx: &mut Context<'_>, into: &mut [u8]) -> Poll<io::Result<usize>> {
        self.socket.poll_read(cx, into)
    }
}
