//! What a client sends in a channel, and nobody has taken yet.
//!
//! It is taken from the library at once, so that no channel holds up its connection, and counts against the connection's limits
//! ([`Valve`]) until it is passed on.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use russh::{ChannelMsg, ChannelReadHalf, Sig};

use super::session::Session;
use super::valve::{STUCK_BYTES_MAX, Valve};

/// What something that is queued costs besides its bytes, so that many that have none are bounded too.
pub(super) const ITEM_BYTES: usize = 64;
/// The longest name of a signal that is passed on, bytes.
const SIGNAL_BYTES_MAX: usize = 32;

/// Something on its way to the host.
#[derive(Debug)]
pub(super) enum Up {
    Data(Bytes),
    Signal(Sig),
    /// Columns, rows, and both in pixels.
    Resize([u32; 4]),
    Eof,
}

impl Up {
    /// The bytes, if it is bytes.
    pub(super) fn data(self) -> Option<Bytes> {
        match self {
            Self::Data(data) => Some(data),
            Self::Signal(_) | Self::Resize(_) | Self::Eof => None,
        }
    }

    /// What it counts for while it waits, bytes.
    pub(super) fn cost(&self) -> usize {
        match self {
            Self::Data(data) => data.len() + ITEM_BYTES,
            Self::Signal(_) | Self::Resize(_) | Self::Eof => ITEM_BYTES,
        }
    }
}

/// What a client sent in a channel and nobody has taken yet.
pub(super) struct Inbox {
    /// Of the client's connection; what is queued here counts there until it is taken, or this is dropped.
    valve: Arc<Valve>,
    reader: ChannelReadHalf,
    up: VecDeque<Up>,
    /// Bytes of data in it, and on their way out of it.
    bytes: usize,
    state: InboxState,
    /// The size of the client's terminal, once it has changed: columns, rows, and both in pixels.
    size: Option<[u32; 4]>,
    /// The client sends no more input.
    ended: bool,
}

/// Whether a client's end of a channel is open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum InboxState {
    Open,
    Closed,
}

impl Inbox {
    /// `first` is what came before something was started.
    pub(super) fn new(session: &Session, reader: ChannelReadHalf, first: InputBefore) -> Self {
        let valve = Arc::clone(session.valve());
        let mut inbox =
            Self { valve, reader, up: VecDeque::new(), bytes: 0, state: InboxState::Open, size: None, ended: false };
        if first == InputBefore::Ended {
            inbox.push(Up::Eof);
        }
        inbox
    }

    /// The size of the client's terminal, once it has changed.
    pub(super) fn size(&self) -> Option<[u32; 4]> {
        self.size
    }

    /// Whether the client has said that there is no more input, taken or not.
    pub(super) fn is_ended(&self) -> bool {
        self.ended
    }

    pub(super) fn is_open(&self) -> bool {
        self.state == InboxState::Open
    }

    /// Waits for one message of the client and keeps it. Cancel safe.
    pub(super) async fn take(&mut self) {
        match self.reader.wait().await {
            Some(ChannelMsg::Data { data }) if data.is_empty() => {}
            Some(ChannelMsg::Data { data }) => self.push(Up::Data(data)),
            Some(ChannelMsg::Eof) => self.push(Up::Eof),
            Some(ChannelMsg::Signal { signal: Sig::Custom(name) }) if name.len() > SIGNAL_BYTES_MAX => {}
            Some(ChannelMsg::Signal { signal }) => self.push(Up::Signal(signal)),
            Some(ChannelMsg::WindowChange { col_width, row_height, pix_width, pix_height }) => {
                let size = [col_width, row_height, pix_width, pix_height];
                self.size = Some(size);
                match self.up.back_mut() {
                    Some(Up::Resize(last)) => *last = size,
                    _ => self.push(Up::Resize(size)),
                }
            }
            Some(ChannelMsg::Close) | None => self.close(),
            Some(_) => {}
        }
    }

    /// Whether more waits than may: its client sends on, and nothing takes it.
    pub(super) fn is_stuck(&self) -> bool {
        self.bytes > STUCK_BYTES_MAX || self.valve.is_stuck()
    }

    /// What came first, and is to be taken next.
    pub(super) fn next(&self) -> Option<&Up> {
        self.up.front()
    }

    /// Takes it. Its bytes count until [`Inbox::passed`] says that they have gone.
    pub(super) fn pop(&mut self) -> Option<Up> {
        self.up.pop_front()
    }

    fn push(&mut self, up: Up) {
        self.ended |= matches!(up, Up::Eof);
        self.bytes += up.cost();
        self.valve.queue(up.cost());
        self.up.push_back(up);
    }

    /// So many bytes of it wait no more.
    pub(super) fn passed(&mut self, bytes: usize) {
        self.valve.passed(bytes);
        self.bytes = self.bytes.saturating_sub(bytes);
    }

    pub(super) fn close(&mut self) {
        if self.is_open() {
            self.state = InboxState::Closed;
            self.push(Up::Eof);
        }
    }
}

impl Drop for Inbox {
    fn drop(&mut self) {
        self.valve.passed(self.bytes);
    }
}

/// Whether a client's input had ended before something was started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum InputBefore {
    Open,
    Ended,
}
