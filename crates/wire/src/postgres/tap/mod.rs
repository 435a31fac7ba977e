//! The tap of an authenticated PostgreSQL session, both directions.
//!
//! For: cutting the client's bytes into messages, saying which of them execute and what text they execute, and
//! mapping the server's replies to the commands that they answer. Not for: forwarding, recording, deciding.
//!
//! The mapping is a queue of the terminators that the server owes (`queue`), one flag for its skip-until-Sync
//! mode, and the state of COPY. Names of statements and portals (`names`) are believed only as long as nothing
//! ran that could have changed them behind the protocol's back; then they are defined again, or refused.
//!
//! Invariant: a reply that does not fit the queue ends the session ([`Violation`]); nothing is guessed.

mod bodies;
mod client;
mod commands;
mod large;
mod names;
mod refuse;
mod server;
mod types;

pub use bodies::parse_of;
pub use large::{ExecutingLarge, LargeDraft, LargePass, LargeStep, LargeText, PassiveLarge};
pub use names::Prepared;
pub use types::{
    ClientStep, CommandKey, CommandOutcome, Copy, CopyDirection, Draft, Effective, Event, Executing, LargeKind,
    OutcomeStatus, ParseText, Passive, Peeked, Purpose, Reading, Refusal, ServerStep, StatementResult, TapLimits, Text,
    TxStatus, Via, Violation,
};

use commands::Commands;
use large::Large;
use names::Names;
use std::collections::VecDeque;
use std::sync::Arc;

/// A session's tap. Does no I/O; an idle one takes less than a KiB.
#[derive(Debug)]
pub struct Tap {
    limits: TapLimits,
    transaction: TxStatus,
    /// What the server owes, in order.
    queue: VecDeque<Entry>,
    /// Number of the next entry.
    next: u64,
    /// How many Syncs were sent: an error of one segment cannot make the server skip the next.
    segment: u64,
    /// The server discards what it reads until Sync, and no Sync was sent yet.
    skipping: bool,
    /// Something was sent since the last message that makes the server send its replies.
    unflushed: bool,
    /// The client's last step was to wait.
    stalled: bool,
    copy_in: bool,
    /// The last entry may start COPY FROM STDIN: what the client sends next depends on the server's answer.
    hold: bool,
    /// Bytes of a CopyData of the client that are still to come.
    client_body: usize,
    /// Bytes of a server message that are still to come, and what to do with them.
    server_body: usize,
    server_body_dropped: bool,
    large: Option<Box<Large>>,
    names: Names,
    commands: Commands,
    trust: Trust,
    /// An error ended the current implicit transaction.
    segment_error: bool,
}

/// What we may believe about names and about how texts are read.
#[derive(Debug, Default)]
struct Trust {
    /// Raised by everything that may touch names by SQL.
    epoch: u64,
    /// Entry that raised it last.
    doubted_at: u64,
    /// Code that we cannot see ran: every command is in doubt.
    opaque: bool,
    /// Function names may no longer mean the built-in functions.
    shadowed: bool,
    /// The server's last word on standard_conforming_strings.
    conforming: bool,
    /// That word is still good: nothing that could change it ran since.
    conforming_known: bool,
    /// The server's last word on client_encoding: a byte below 0x80 may be part of another character.
    multibyte: bool,
}

#[derive(Debug)]
struct Entry {
    number: u64,
    kind: Kind,
    /// A change of names waits for this reply.
    renames: bool,
    /// We sent it, not the client: its reply is dropped.
    injected: bool,
    refusal: Option<Box<Refusal>>,
}

#[derive(Debug)]
enum Kind {
    Bind { key: CommandKey },
    Close,
    DescribePortal,
    DescribeStatement { prepared: Option<Arc<Prepared>> },
    Execute { key: CommandKey, copy_in: bool },
    Function { key: CommandKey },
    Parse { prepared: Arc<Prepared> },
    Query { key: CommandKey, copy_in: bool },
    Sync,
}

impl Kind {
    /// Ends with ReadyForQuery.
    fn ends_with_ready(&self) -> bool {
        match self {
            Self::Function { .. } | Self::Query { .. } | Self::Sync => true,
            Self::Bind { .. }
            | Self::Close
            | Self::DescribePortal
            | Self::DescribeStatement { .. }
            | Self::Execute { .. }
            | Self::Parse { .. } => false,
        }
    }

    fn key(&self) -> Option<CommandKey> {
        match self {
            Self::Bind { key } | Self::Execute { key, .. } | Self::Function { key } | Self::Query { key, .. } => {
                Some(*key)
            }
            Self::Close | Self::DescribePortal | Self::DescribeStatement { .. } | Self::Parse { .. } | Self::Sync => {
                None
            }
        }
    }
}

impl Tap {
    /// A tap of a session that has just seen its first ReadyForQuery.
    pub fn new(limits: TapLimits) -> Self {
        Self {
            limits,
            transaction: TxStatus::Idle,
            queue: VecDeque::new(),
            next: 1,
            segment: 0,
            skipping: false,
            unflushed: false,
            stalled: false,
            copy_in: false,
            hold: false,
            client_body: 0,
            server_body: 0,
            server_body_dropped: false,
            large: None,
            names: Names::default(),
            commands: Commands::default(),
            trust: Trust { epoch: 1, ..Trust::default() },
            segment_error: false,
        }
    }

    /// A parameter that the server reported before the session was the tap's: same effect as seeing it.
    pub fn parameter(&mut self, name: &[u8], value: &[u8]) {
        self.trust.parameter(name, value);
        self.trust.conforming_known = self.queue.is_empty();
    }

    /// All commands that are still open, in order: the session has ended.
    pub fn abandon(&mut self) -> Vec<CommandKey> {
        self.queue.clear();
        self.commands.abandon()
    }

    /// The transaction status that the server said last.
    pub fn transaction(&self) -> TxStatus {
        self.transaction
    }

    /// Whether the server owes nothing and the client is not in the middle of a message.
    pub fn idle(&self) -> bool {
        self.queue.is_empty() && !self.skipping && self.client_body == 0 && self.large.is_none()
    }

    /// Whether the server owes a reply.
    pub fn owes(&self) -> bool {
        !self.queue.is_empty()
    }

    /// Whether the server owes a ReadyForQuery.
    pub fn owes_ready(&self) -> bool {
        self.queue.iter().any(|entry| entry.kind.ends_with_ready())
    }

    /// Whether what of the server's bytes was passed so far ends with a whole message.
    pub fn between_messages(&self) -> bool {
        self.server_body == 0
    }

    /// Whether the client must not be read until [`Tap::server`] has moved.
    pub fn waiting(&self) -> bool {
        self.stalled
    }

    fn push(&mut self, kind: Kind) {
        self.push_entry(kind, false, false, None);
    }

    fn push_entry(&mut self, kind: Kind, renames: bool, injected: bool, refusal: Option<Box<Refusal>>) {
        let number = self.number();
        self.unflushed = !kind.ends_with_ready();
        self.queue.push_back(Entry { number, kind, renames, injected, refusal });
    }

    fn number(&mut self) -> u64 {
        let number = self.next;
        self.next += 1;
        number
    }

    /// Something may have touched names by SQL.
    fn doubt(&mut self) {
        self.trust.epoch += 1;
        self.trust.doubted_at = self.next;
        self.trust.conforming_known = false;
    }
}

impl Trust {
    fn parameter(&mut self, name: &[u8], value: &[u8]) {
        // In these encodings a backslash may be the second byte of a character: our reading would be wrong.
        const BACKSLASHED: [&[u8]; 6] = [b"SJIS", b"BIG5", b"GBK", b"GB18030", b"UHC", b"JOHAB"];
        match name {
            b"standard_conforming_strings" => self.conforming = value == b"on",
            b"client_encoding" => {
                self.multibyte =
                    value == b"SHIFT_JIS_2004" || BACKSLASHED.iter().any(|name| value.eq_ignore_ascii_case(name));
                self.opaque |= self.multibyte;
            }
            _ => {}
        }
    }

    /// How a text that is sent now is read.
    fn reading(&self) -> Reading {
        Reading {
            conforming: Some(self.conforming).filter(|_| self.conforming_known),
            ascii: self.conforming_known && !self.multibyte,
        }
    }
}
