//! What goes into the tap and what comes out of it.

use super::names::Prepared;
use crate::postgres::message;
use crate::postgres::parameters::Parameters;
use std::borrow::Cow;
use std::sync::Arc;

/// Bounds of one session. Bytes unless the name says otherwise.
#[derive(Clone, Copy, Debug)]
pub struct TapLimits {
    /// Longest Query, Parse, Bind or FunctionCall of the client.
    pub message_bytes_max: usize,
    /// Longest of those that is looked at in memory; longer ones are [`ClientStep::Large`].
    pub buffered_bytes_max: usize,
    /// How many messages may wait for their reply.
    pub commands_in_flight_max: usize,
    /// How many prepared statements, and how many portals, are remembered.
    pub names_max: usize,
    /// How many bytes of text the remembered prepared statements may have.
    pub names_bytes_max: usize,
}

impl Default for TapLimits {
    fn default() -> Self {
        Self {
            message_bytes_max: 64 << 20,
            buffered_bytes_max: 1 << 20,
            commands_in_flight_max: 4096,
            names_max: 4096,
            names_bytes_max: 8 << 20,
        }
    }
}

/// A command of this session; dense, in order of drafts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CommandKey(pub u64);

/// Transaction status, as ReadyForQuery has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TxStatus {
    /// In a transaction block that failed.
    Failed,
    /// Not in a transaction block.
    Idle,
    /// In a transaction block.
    Open,
}

impl TxStatus {
    /// The byte of ReadyForQuery.
    pub fn byte(self) -> u8 {
        match self {
            Self::Failed => b'E',
            Self::Idle => b'I',
            Self::Open => b'T',
        }
    }

    pub(crate) fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            b'E' => Some(Self::Failed),
            b'I' => Some(Self::Idle),
            b'T' => Some(Self::Open),
            _ => None,
        }
    }
}

/// Bytes that start nothing that was not recorded: they may go upstream at once.
#[derive(Debug)]
#[must_use]
pub struct Passive<'b> {
    pub(super) inject: Vec<u8>,
    pub(super) bytes: &'b [u8],
    pub(super) consumed: usize,
}

/// Bytes that execute something: they go upstream after their command's intent is on record.
#[derive(Debug)]
#[must_use]
pub struct Executing<'b> {
    pub(super) inject: Vec<u8>,
    pub(super) injected_entries: usize,
    pub(super) bytes: Cow<'b, [u8]>,
}

impl<'b> Passive<'b> {
    pub(super) fn verbatim(bytes: &'b [u8]) -> Self {
        Self { inject: Vec::new(), bytes, consumed: bytes.len() }
    }

    /// How many of the client's bytes these stand for; may be 0.
    pub fn consumed(&self) -> usize {
        self.consumed
    }

    /// Appends what goes upstream.
    pub fn write_to(self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.inject);
        out.extend_from_slice(self.bytes);
    }
}

impl Executing<'_> {
    /// The same, for as long as it takes.
    pub fn into_owned(self) -> Executing<'static> {
        Executing {
            inject: self.inject,
            injected_entries: self.injected_entries,
            bytes: self.bytes.into_owned().into(),
        }
    }

    /// How many of the client's bytes these stand for.
    pub fn consumed(&self) -> usize {
        self.bytes.len()
    }

    /// Appends what goes upstream.
    pub fn write_to(self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.inject);
        out.extend_from_slice(&self.bytes);
    }
}

/// What the client's next bytes are.
#[derive(Debug)]
#[must_use]
pub enum ClientStep<'b> {
    /// A command: record its intent, then forward.
    Command(Executing<'b>, Draft<'b>),
    /// Terminate.
    End(Passive<'b>),
    /// A message above `buffered_bytes_max`. The 5 header bytes are consumed; `body_bytes` go to [`super::Tap::large`].
    Large {
        /// Type and length, to be forwarded before the body (the pass of its last step has them too).
        header: [u8; 5],
        /// Which message.
        kind: LargeKind,
        /// Length of its body.
        body_bytes: usize,
    },
    /// Not a whole message yet.
    NeedMore,
    /// Forward at once.
    Pass(Passive<'b>),
    /// Refused. What is forwarded instead makes the server answer in its place in the order of replies; the tap
    /// puts the refusal's text in place of the server's. The draft is recorded as denied; its outcome is an event.
    Refuse {
        /// How many of the client's bytes this was.
        consumed: usize,
        /// Why.
        refusal: Refusal,
        /// What would have run.
        draft: Option<Draft<'b>>,
        /// What is forwarded instead; executes nothing.
        substitute: Passive<'b>,
    },
    /// Consumed and not forwarded (Sync and Flush inside COPY FROM STDIN, which the server ignores).
    Swallow(usize),
    /// Stop reading the client until [`super::Tap::server`] has moved. Nothing was consumed.
    Wait,
}

/// Which message is large.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LargeKind {
    /// Bind.
    Bind,
    /// FunctionCall.
    Function,
    /// Parse.
    Parse,
    /// Query.
    Query,
}

/// How a command was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Via {
    /// Bind and its Executes.
    Extended,
    /// FunctionCall.
    Function,
    /// A Parse that the server refused.
    Parse,
    /// Query.
    Simple,
}

/// How the server reads a text, as far as is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reading {
    /// `standard_conforming_strings`, if its value is known.
    pub conforming: Option<bool>,
    /// Each byte below 0x80 is known to be what it is in ASCII, wherever it stands (`client_encoding`).
    pub ascii: bool,
}

/// The text that the next message runs or prepares, before it is taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peeked<'b> {
    /// What the message does with it.
    pub purpose: Purpose,
    /// The text.
    pub text: Text<'b>,
    /// How the server reads it, or has read it when it was prepared.
    pub reading: Reading,
}

/// What a message does with a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Query, Bind: it runs.
    Run,
    /// Parse: it is prepared. The server looks names and types up, and may run the input functions of types.
    Prepare,
}

/// A command about to run.
#[derive(Clone, Debug)]
pub struct Draft<'b> {
    /// Its key.
    pub key: CommandKey,
    /// How it was sent.
    pub via: Via,
    /// What it runs.
    pub text: Text<'b>,
    /// Its parameters.
    pub parameters: Option<Parameters<'b>>,
    /// Name of its prepared statement, empty for none.
    pub statement: &'b [u8],
    /// Name of its portal, empty for none.
    pub portal: &'b [u8],
    /// The transaction status that the server said last; commands that are still running may change it.
    pub transaction: TxStatus,
    /// The function of a FunctionCall.
    pub function_oid: Option<u32>,
}

/// A command's text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Text<'b> {
    /// In the message itself.
    Inline(&'b [u8]),
    /// None, or not known.
    None,
    /// Of an earlier Parse.
    Prepared {
        /// Unique to the Parse in this session.
        id: u64,
        /// The text.
        text: Arc<[u8]>,
    },
    /// Of an earlier large Parse, by the id that its draft had.
    Spooled {
        /// See [`super::LargeDraft::spooled_id`].
        id: u64,
    },
}

/// Why something is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The gateway's own reason ([`super::Tap::deny`]).
    Denied {
        /// SQLSTATE.
        code: String,
        /// Message.
        message: String,
        /// Hint.
        hint: Option<String>,
    },
    /// FunctionCall of a function that is not one of libpq's large object calls.
    FunctionCall {
        /// The function.
        oid: u32,
    },
    /// The portal was bound before something ran that may have replaced it.
    PortalInDoubt,
    /// The portal was not bound over the protocol.
    PortalUnknown,
    /// The prepared statement's name is in doubt and its text is too long to define it again.
    StatementInDoubt,
    /// The prepared statement was not defined over the protocol.
    StatementUnknown,
}

impl Refusal {
    /// SQLSTATE.
    pub fn code(&self) -> &str {
        match self {
            Self::Denied { code, .. } => code,
            Self::FunctionCall { .. } => "0A000",
            Self::PortalInDoubt | Self::PortalUnknown => "34000",
            Self::StatementInDoubt | Self::StatementUnknown => "26000",
        }
    }

    /// What the client may read.
    pub fn message(&self) -> String {
        match self {
            Self::Denied { message, .. } => message.clone(),
            Self::FunctionCall { oid } => {
                format!("OnRecord refuses the function call message for function {oid}")
            }
            Self::PortalInDoubt => "OnRecord cannot tell what this portal would run".to_owned(),
            Self::PortalUnknown => "OnRecord does not know this portal".to_owned(),
            Self::StatementInDoubt => "OnRecord cannot tell what this prepared statement would run".to_owned(),
            Self::StatementUnknown => "OnRecord does not know this prepared statement".to_owned(),
        }
    }

    /// What the client can do about it.
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Denied { hint, .. } => return hint.clone(),
            Self::FunctionCall { .. } => {
                "Call the function in a SELECT. Only the large object functions may be called by number."
            }
            Self::PortalInDoubt => {
                "A statement that may close or declare cursors ran after it was bound. Bind it again, or use FETCH."
            }
            Self::PortalUnknown => {
                "Cursors declared in SQL are read with FETCH; Execute works on portals that were bound in this transaction."
            }
            Self::StatementInDoubt => {
                "A statement that may have replaced it ran after it was prepared. Prepare it again."
            }
            Self::StatementUnknown => {
                "Statements prepared in SQL are run with EXECUTE; Bind works on statements that were sent with Parse and are still remembered."
            }
        };
        Some(hint.to_owned())
    }

    /// The ErrorResponse.
    pub fn error_response(&self) -> Vec<u8> {
        message::error_response("ERROR", self.code(), &self.message(), self.hint().as_deref())
    }
}

/// What to do with the server's bytes: `pass` go to the client, the next `skip` are dropped, then `reply` is said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[must_use]
pub struct ServerStep {
    /// Bytes to forward verbatim.
    pub pass: usize,
    /// Bytes after `pass` to drop: they answer what the client did not send.
    pub skip: usize,
    /// Bytes of ours to send after `pass`.
    pub reply: Vec<u8>,
    /// Where in `pass` the last message starts that ends a response.
    pub boundary: Option<usize>,
    /// Call again with the rest.
    pub more: bool,
}

/// What was learnt from the server.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// The server ends the session.
    Fatal {
        /// SQLSTATE.
        code: String,
        /// Message, at most 8 KiB.
        message: String,
    },
    /// A command ended.
    Outcome {
        /// Which.
        key: CommandKey,
        /// How.
        outcome: CommandOutcome,
    },
    /// ParameterStatus; forwarded all the same.
    Parameter {
        /// Name.
        name: Vec<u8>,
        /// Value.
        value: Vec<u8>,
    },
    /// The server refused a Parse that no command used: intent and outcome in one.
    ParseFailed {
        /// A key of its own.
        key: CommandKey,
        /// What it would have prepared.
        text: ParseText,
        /// Under which name.
        statement: Vec<u8>,
        /// How it ended.
        outcome: CommandOutcome,
    },
    /// ReadyForQuery.
    Ready(TxStatus),
}

/// The text of a Parse.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ParseText {
    /// The text.
    Text(Arc<[u8]>),
    /// It was large; the id that its draft had.
    Spooled(u64),
}

/// How a command ended.
#[derive(Clone, Debug, PartialEq)]
pub struct CommandOutcome {
    /// Status.
    pub status: OutcomeStatus,
    /// SQLSTATE of its error.
    pub code: Option<String>,
    /// Severity of its error.
    pub severity: Option<String>,
    /// Message of its error, at most 8 KiB.
    pub message: Option<String>,
    /// One result per statement that completed, the first thousand.
    pub results: Vec<StatementResult>,
    /// How many statements completed.
    pub results_total: u64,
    /// Rows sent to the client.
    pub rows: u64,
    /// Bytes of its messages from the client.
    pub bytes_up: u64,
    /// Bytes of its replies.
    pub bytes_down: u64,
    /// Notices while it ran.
    pub notices: u32,
    /// COPY that it started.
    pub copy: Option<Copy>,
    /// Executes of its portal that were answered.
    pub fetches: u32,
    /// Its portal was left before its last row.
    pub suspended: bool,
    /// What became of its effects.
    pub effective: Effective,
    /// Whether anything of it was executed; a portal may be bound and never executed.
    pub executed: bool,
}

/// Status of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OutcomeStatus {
    /// Cancelled (SQLSTATE 57014).
    Cancelled,
    /// Refused by the gateway.
    Denied,
    /// The server said that it failed.
    Error,
    /// It completed.
    Ok,
    /// It never ran: an error came before it.
    Skipped,
}

/// What became of a command's effects, as far as the protocol says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effective {
    /// Its transaction committed.
    Committed,
    /// Its transaction was still open.
    Open,
    /// Nothing of it is left: rolled back, or never ran.
    RolledBack,
    /// The protocol does not tell.
    Unknown,
}

/// One statement of a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatementResult {
    /// Command tag; empty for an empty query.
    pub tag: String,
    /// The count in the tag.
    pub rows: Option<u64>,
}

/// COPY of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Copy {
    /// Direction.
    pub direction: CopyDirection,
    /// Bytes of data.
    pub bytes: u64,
}

/// Direction of COPY.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CopyDirection {
    /// From the client.
    In,
    /// To the client.
    Out,
}

/// The session cannot go on. Never has any of a command's text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Violation {
    /// The client's message has a length that its type cannot have.
    #[error("the client's message {kind:#04x} declared {length} bytes")]
    ClientLength {
        /// Type byte.
        kind: u8,
        /// Declared length.
        length: u32,
    },
    /// The client's message does not have the fields of its type.
    #[error("the client's message {kind:#04x} is malformed")]
    ClientMalformed {
        /// Type byte.
        kind: u8,
    },
    /// The client's message has no place where the session is.
    #[error("the client's message {kind:#04x} has no place here")]
    ClientUnexpected {
        /// Type byte.
        kind: u8,
    },
    /// A message is longer than the connection allows.
    #[error("a message of {bytes} bytes is above the limit of {bytes_max}")]
    MessageTooLarge {
        /// Its length.
        bytes: usize,
        /// The limit.
        bytes_max: usize,
    },
    /// The server answered what nobody asked.
    #[error("the server's message {kind:#04x} answers nothing that was sent")]
    ServerDesync {
        /// Type byte.
        kind: u8,
    },
    /// The server's message has a length that its type cannot have.
    #[error("the server's message {kind:#04x} declared {length} bytes")]
    ServerLength {
        /// Type byte.
        kind: u8,
        /// Declared length.
        length: u32,
    },
    /// The server's message does not have the fields of its type.
    #[error("the server's message {kind:#04x} is malformed")]
    ServerMalformed {
        /// Type byte.
        kind: u8,
    },
    /// More is open than is remembered.
    #[error("more than {limit} {what} are open")]
    TooMany {
        /// What.
        what: &'static str,
        /// The limit.
        limit: usize,
    },
}

impl Violation {
    /// What the client may read: an SQLSTATE and a message.
    pub fn for_client(&self) -> (&'static str, String) {
        let code = match self {
            Self::ClientLength { .. }
            | Self::ClientMalformed { .. }
            | Self::ClientUnexpected { .. }
            | Self::ServerDesync { .. }
            | Self::ServerLength { .. }
            | Self::ServerMalformed { .. } => "08P01",
            Self::MessageTooLarge { .. } => "54000",
            Self::TooMany { .. } => "53400",
        };
        (code, format!("OnRecord ends this session: {self}"))
    }
}

impl<'b> Text<'b> {
    pub(super) fn of(prepared: &Prepared) -> Self {
        match prepared.text() {
            Some(text) => Text::Prepared { id: prepared.id(), text: Arc::clone(text) },
            None => Text::Spooled { id: prepared.id() },
        }
    }
}
