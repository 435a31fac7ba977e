//! What is said of a command: before it runs, and after it ended.
//!
//! Closed sets, so that nothing can mean two things; what a protocol calls its own is a code beside them.

use std::sync::Arc;

use crate::access::UpstreamSecurity;
use crate::break_glass::BreakGlassId;
use crate::closed::closed;
use crate::entry::Link;
use crate::{CommandId, Digest, Facts, Field, IdentityName, Known, Label, OnBehalfOf};

/// At most this many results of one command are listed one by one; all are counted.
pub const RESULTS_MAX: usize = 256;

/// Who sent a command, as each intent repeats it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Who {
    /// The identity.
    pub name: IdentityName,
    /// How it is known.
    pub known: Known,
    /// For whom it acts.
    pub on_behalf_of: Option<OnBehalfOf>,
}

closed! {
    /// How a command reached the server.
    Via {
        /// A simple query.
        Simple = "simple",
        /// The extended protocol: a Bind and its Executes.
        Extended = "extended",
        /// A Parse that the server refused and no Bind used.
        Parse = "parse",
        /// A function call message.
        Function = "function",
        /// A program that a host was asked to run (RFC 4254, 6.5 `exec`).
        Exec = "exec",
        /// A shell that a host was asked to start (RFC 4254, 6.5 `shell`).
        Shell = "shell",
        /// A subsystem that a host was asked to start (RFC 4254, 6.5 `subsystem`).
        Subsystem = "subsystem",
        /// An operation on a file (SFTP).
        File = "file",
        /// A line that was given to a shell which runs.
        Line = "line",
    }
}

closed! {
    /// The state of the transaction when the command was sent.
    Transaction {
        /// None is open.
        Idle = "idle",
        /// One is open.
        Open = "open",
        /// One is open and has failed.
        Failed = "failed",
    }
}

closed! {
    /// How exactly a command is known.
    Fidelity {
        /// Byte by byte, as the server got it.
        Exact = "exact",
        /// As a shell's own record has it.
        Shell = "shell",
        /// Read off a screen.
        Screen = "screen",
        /// As the kernel saw it.
        Kernel = "kernel",
        /// Not known at all.
        Opaque = "opaque",
    }
}

/// What the command does to which objects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effects {
    /// Not analysed.
    NotEstablished,
    /// As far as its text tells.
    Established(Arc<Facts>),
}

closed! {
    /// The decision on a command.
    Verdict {
        /// It may run.
        Allow = "allow",
        /// It may not.
        Deny = "deny",
        /// Somebody must approve it first.
        Hold = "hold",
    }
}

closed! {
    /// What was on stable storage when.
    Durability {
        /// The intent, before the command was forwarded.
        Intent = "intent",
        /// As `intent`, and the outcome before the end of the response was released.
        Both = "both",
        /// The intent, before any byte of the response was released.
        Held = "held",
        /// The intent left the process before the command was forwarded; stable within a bound.
        Written = "written",
    }
}

/// A command is about to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Intent {
    /// Its place in the session.
    pub link: Link,
    /// The command.
    pub command: CommandId,
    /// Who sent it.
    pub who: Who,
    /// Over which connection.
    pub connection: String,
    /// To which database, where there are any. Logs of versions before 0.6 always have one.
    pub database: Option<Label>,
    /// By which message.
    pub via: Via,
    /// Its text.
    pub text: Field,
    /// Its parameters: a JSON array.
    pub parameters: Field,
    /// The prepared statement's name, if the protocol has one here.
    pub statement: Option<Label>,
    /// The portal's name, if the protocol has one here.
    pub portal: Option<Label>,
    /// The state of the transaction, where there are any. Logs of versions before 0.6 always have one.
    pub transaction: Option<Transaction>,
    /// What it does, as far as that was analysed.
    pub effects: Effects,
    /// How exactly it is known.
    pub fidelity: Fidelity,
    /// The decision.
    pub verdict: Verdict,
    /// The rules that matched.
    pub rules: Vec<String>,
    /// The policy in force, if there is one.
    pub policy: Option<Digest>,
    /// What the policy says of it where it only observes or break-glass lifts it, if that is not the decision. Logs of
    /// versions before 0.4 have none.
    pub observed: Option<Verdict>,
    /// The command under whose approval this one waits or runs, if it is not its own. Logs of versions before 0.5 have
    /// none.
    pub approval: Option<CommandId>,
    /// The break-glass that its sender had opened on the connection. Logs of versions before 0.6 have none.
    pub break_glass: Option<BreakGlassId>,
    /// The durability in force.
    pub durability: Durability,
    /// How many bytes the client sent for it.
    pub bytes: u64,
    /// Said only where the way to the server is open to others: [`UpstreamSecurity::Plaintext`].
    pub upstream: Option<UpstreamSecurity>,
}

closed! {
    /// How a command ended.
    Status {
        /// It ran.
        Ok = "ok",
        /// The server refused it or it failed.
        Error = "error",
        /// The gateway refused it.
        Denied = "denied",
        /// It was cancelled.
        Cancelled = "cancelled",
        /// It never ran, because something before it failed.
        Skipped = "skipped",
        /// Nobody knows.
        Unknown = "unknown",
    }
}

closed! {
    /// Why an outcome is what it is, where the status alone does not say.
    Reason {
        /// The client went away.
        ClientGone = "client_gone",
        /// The server went away.
        UpstreamGone = "upstream_gone",
        /// The gateway restarted.
        GatewayRestarted = "gateway_restarted",
        /// The gateway was stopping.
        GatewayStopped = "gateway_stopped",
        /// A fault in the gateway ended the session.
        GatewayFault = "gateway_fault",
        /// One side sent what the protocol does not allow.
        Violation = "violation",
        /// The session ended otherwise.
        SessionEnded = "session_ended",
        /// An earlier command of the pipeline failed.
        PipelineError = "pipeline_error",
        /// The record could not be written.
        RecordingStopped = "recording_stopped",
        /// The intent was written, but the command was never forwarded.
        NotForwarded = "not_forwarded",
        /// A rule of the policy denies it.
        Policy = "policy",
        /// The gateway does not forward what it does not understand.
        Unsupported = "unsupported",
        /// The outpost on the way to the server went away.
        OutpostLost = "outpost_lost",
        /// The identity was locked out, or lost its right to the connection.
        Revoked = "revoked",
        /// Who was asked to approve it said no.
        ApprovalDenied = "approval_denied",
        /// Nobody approved it in time.
        ApprovalExpired = "approval_expired",
        /// It waited no longer for its approval; the same again runs once that is there.
        ApprovalPending = "approval_pending",
        /// It was seen to run; how it ended cannot be seen.
        NotSeen = "not_seen",
        /// Somebody ended its session.
        Killed = "killed",
    }
}

closed! {
    /// Whether the command's effects lasted.
    Effective {
        /// Its transaction was committed.
        Committed = "committed",
        /// Its transaction was rolled back.
        RolledBack = "rolled_back",
        /// Its transaction was still open.
        Open = "open",
        /// Nobody knows.
        Unknown = "unknown",
    }
}

closed! {
    /// The direction of a COPY.
    CopyDirection {
        /// To the server.
        In = "in",
        /// From the server.
        Out = "out",
    }
}

closed! {
    /// What a blob's content is.
    BlobForm {
        /// The text of a statement.
        Text = "text",
        /// Parameters as a JSON array.
        Parameters = "parameters",
        /// The body of a protocol message, as it came.
        Message = "message",
        /// What went over the streams of a program, in the order in which it did: see `docs/format.md`.
        Transcript = "transcript",
    }
}

closed! {
    /// How a blob's content was packed before it was sealed.
    Packing {
        /// DEFLATE, without a wrapper (RFC 1951).
        Deflate = "deflate",
    }
}

/// What a COPY moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Copy {
    /// Which way.
    pub direction: CopyDirection,
    /// How many bytes of data.
    pub bytes: u64,
}

/// The result of one statement of a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatementResult {
    /// The server's tag, such as `SELECT 1`.
    pub tag: String,
    /// The number of rows that the tag names, if it names one.
    pub rows: Option<u64>,
}

/// A command ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Its place in the session.
    pub link: Link,
    /// The command.
    pub of: CommandId,
    /// How it ended.
    pub status: Status,
    /// Why, where the status does not say.
    pub reason: Option<Reason>,
    /// The protocol's own code (SQLSTATE).
    pub code: Option<String>,
    /// The server's message.
    pub message: Field,
    /// The results, at most [`RESULTS_MAX`] of them.
    pub results: Vec<StatementResult>,
    /// How many results there were in all.
    pub results_count: u64,
    /// Rows that were sent to the client.
    pub rows: u64,
    /// Bytes from the client.
    pub bytes_up: u64,
    /// Bytes to the client.
    pub bytes_down: u64,
    /// From the intent to the end of the response, in microseconds of the boot clock.
    pub duration_us: u64,
    /// What a COPY moved.
    pub copy: Option<Copy>,
    /// How many times rows were fetched from it.
    pub fetches: u32,
    /// Whether it ended before all its rows were fetched.
    pub suspended: bool,
    /// Whether its effects lasted.
    pub effective: Effective,
    /// How many notices the server sent.
    pub notices: u32,
    /// Whether it was executed at all.
    pub executed: bool,
    /// What went over its streams, if it is a program. Logs of versions before 0.6 have none.
    pub transcript: Option<Transcript>,
    /// What went in and out of the file, if it is an operation on an open one. Logs of versions before 0.6 have none.
    pub file: Option<FileContent>,
}

/// What went over the streams of a program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transcript {
    /// The bytes with their times, as far as they are kept; a blob's form is [`BlobForm::Transcript`].
    pub content: Field,
    /// Bytes of its standard input.
    pub stdin: u64,
    /// Bytes of its standard output.
    pub stdout: u64,
    /// Bytes of its standard error.
    pub stderr: u64,
    /// How many of them, from the first on, are in `content`.
    pub kept: u64,
}

/// What went in and out of a file while it was open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileContent {
    /// Bytes that were read.
    pub read: u64,
    /// Bytes that were written.
    pub written: u64,
    /// SHA-256 of the content in hexadecimal digits, if it was read or written as a whole and in order.
    pub sha256: Field,
}
