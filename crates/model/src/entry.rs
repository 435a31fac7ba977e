//! The entries of the record.
//!
//! Every entry has a time; the entries of a session also have a [`Link`] to the one before them.

use crate::access::{
    Carried, Configuration, IssuerKey, Outpost, Oversight, Revocation, Shared, Token, UpstreamSecurity,
};
use crate::approval::Approval;
use crate::break_glass::BreakGlass;
use crate::closed::closed;
use crate::command::{Durability, Intent, Outcome, Reason};
use crate::custody::{Erase, Export, Hold, Witnesses};
use crate::passkey::Passkey;
use crate::{Claim, Digest, Identity, Label, SessionId, Time};

/// An entry is at most this long, in bytes: the limit of tlog-tiles.
pub const LEAF_BYTES_MAX: usize = 65_535;

/// One entry of the record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// When it was made.
    pub time: Time,
    /// What it says.
    pub body: Body,
}

closed! {
    /// The kinds of entries.
    Kind {
        /// The first entry of a log.
        Genesis = "genesis",
        /// The gateway began to record.
        Start = "start",
        /// The gateway stopped, and everything before is complete.
        Stop = "stop",
        /// The log was opened after the gateway had not stopped cleanly.
        Recovery = "recovery",
        /// The gateway is alive.
        Heartbeat = "heartbeat",
        /// A session began.
        SessionOpen = "session-open",
        /// A session ended.
        SessionClose = "session-close",
        /// A command is about to run.
        Intent = "intent",
        /// A command ended.
        Outcome = "outcome",
        /// Connection attempts that led to no session.
        Refused = "refused",
        /// Someone asked for a running command to be cancelled.
        Cancel = "cancel",
        /// The key of sensitive content was destroyed, and the content with it.
        Erase = "erase",
        /// A legal hold was placed or released.
        Hold = "hold",
        /// How far the witnesses are behind.
        Witnesses = "witnesses",
        /// A part of the record was handed out as evidence.
        Export = "export",
        /// The configuration in force changed, or a change was refused.
        Configuration = "configuration",
        /// A key of an issuer was used for the first time.
        IssuerKey = "issuer-key",
        /// A connection token was handed out or taken back.
        Token = "token",
        /// An identity was locked out, or let in again.
        Revocation = "revocation",
        /// One credential is in use from several places.
        Shared = "shared",
        /// An outpost came, went, or was turned away.
        Outpost = "outpost",
        /// A step of an approval.
        Approval = "approval",
        /// Somebody's key for signing decisions was enrolled or removed.
        Passkey = "passkey",
        /// A step of break-glass.
        BreakGlass = "break-glass",
        /// Somebody watched a live session, or ended it.
        Oversight = "oversight",
    }
}

/// What an entry says.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(clippy::large_enum_variant, reason = "entries are written and read one at a time, never kept in numbers")]
pub enum Body {
    /// See [`Kind::Genesis`].
    Genesis(Genesis),
    /// See [`Kind::Start`].
    Start(Start),
    /// See [`Kind::Stop`].
    Stop(Stop),
    /// See [`Kind::Recovery`].
    Recovery(Recovery),
    /// See [`Kind::Heartbeat`].
    Heartbeat(Heartbeat),
    /// See [`Kind::SessionOpen`].
    SessionOpen(SessionOpen),
    /// See [`Kind::SessionClose`].
    SessionClose(SessionClose),
    /// See [`Kind::Intent`].
    Intent(Intent),
    /// See [`Kind::Outcome`].
    Outcome(Outcome),
    /// See [`Kind::Refused`].
    Refused(Refused),
    /// See [`Kind::Cancel`].
    Cancel(Cancel),
    /// See [`Kind::Erase`].
    Erase(Erase),
    /// See [`Kind::Hold`].
    Hold(Hold),
    /// See [`Kind::Witnesses`].
    Witnesses(Witnesses),
    /// See [`Kind::Export`].
    Export(Export),
    /// See [`Kind::Configuration`].
    Configuration(Configuration),
    /// See [`Kind::IssuerKey`].
    IssuerKey(IssuerKey),
    /// See [`Kind::Token`].
    Token(Token),
    /// See [`Kind::Revocation`].
    Revocation(Revocation),
    /// See [`Kind::Shared`].
    Shared(Shared),
    /// See [`Kind::Outpost`].
    Outpost(Outpost),
    /// See [`Kind::Approval`].
    Approval(Approval),
    /// See [`Kind::Passkey`].
    Passkey(Passkey),
    /// See [`Kind::BreakGlass`].
    BreakGlass(BreakGlass),
    /// See [`Kind::Oversight`].
    Oversight(Oversight),
}

impl Body {
    /// Which kind of entry this is.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::Genesis(_) => Kind::Genesis,
            Self::Start(_) => Kind::Start,
            Self::Stop(_) => Kind::Stop,
            Self::Recovery(_) => Kind::Recovery,
            Self::Heartbeat(_) => Kind::Heartbeat,
            Self::SessionOpen(_) => Kind::SessionOpen,
            Self::SessionClose(_) => Kind::SessionClose,
            Self::Intent(_) => Kind::Intent,
            Self::Outcome(_) => Kind::Outcome,
            Self::Refused(_) => Kind::Refused,
            Self::Cancel(_) => Kind::Cancel,
            Self::Erase(_) => Kind::Erase,
            Self::Hold(_) => Kind::Hold,
            Self::Witnesses(_) => Kind::Witnesses,
            Self::Export(_) => Kind::Export,
            Self::Configuration(_) => Kind::Configuration,
            Self::IssuerKey(_) => Kind::IssuerKey,
            Self::Token(_) => Kind::Token,
            Self::Revocation(_) => Kind::Revocation,
            Self::Shared(_) => Kind::Shared,
            Self::Outpost(_) => Kind::Outpost,
            Self::Approval(_) => Kind::Approval,
            Self::Passkey(_) => Kind::Passkey,
            Self::BreakGlass(_) => Kind::BreakGlass,
            Self::Oversight(_) => Kind::Oversight,
        }
    }

    /// The entry's place in its session, if it belongs to one.
    #[must_use]
    pub fn link(&self) -> Option<&Link> {
        match self {
            Self::SessionOpen(SessionOpen { link, .. })
            | Self::SessionClose(SessionClose { link, .. })
            | Self::Intent(Intent { link, .. })
            | Self::Outcome(Outcome { link, .. }) => Some(link),
            Self::Genesis(_)
            | Self::Start(_)
            | Self::Stop(_)
            | Self::Recovery(_)
            | Self::Heartbeat(_)
            | Self::Refused(_)
            | Self::Cancel(_)
            | Self::Erase(_)
            | Self::Hold(_)
            | Self::Witnesses(_)
            | Self::Export(_)
            | Self::Configuration(_)
            | Self::IssuerKey(_)
            | Self::Token(_)
            | Self::Revocation(_)
            | Self::Shared(_)
            | Self::Outpost(_)
            | Self::Approval(_)
            | Self::Passkey(_)
            | Self::BreakGlass(_)
            | Self::Oversight(_) => None,
        }
    }
}

/// Where an entry stands in its session: every entry of a session names the one before, so that a session can be
/// checked by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    /// The session.
    pub session: SessionId,
    /// The entry's number in the session, from 0, without gaps.
    pub number: u32,
    /// The leaf hash of the session's previous entry; none for the first.
    pub previous: Option<Digest>,
}

/// The first entry of a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Genesis {
    /// The log's name, as in its checkpoints.
    pub origin: String,
    /// The public key that signs its checkpoints, as a C2SP verifier key.
    pub vkey: String,
    /// Name and version of the program that made it.
    pub program: String,
    /// The log that this one continues, if it is not the first of its data directory.
    pub previous: Option<PreviousLog>,
}

closed! {
    /// Why a log does not go on, so that another begins.
    EpochReason {
        /// A witness knows more of it than the data directory has: an older copy was restored.
        Rollback = "rollback",
        /// It is damaged.
        Damaged = "damaged",
        /// Its key is to be used no longer.
        Rotation = "rotation",
    }
}

/// The end of the log before, as far as it is known here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PreviousLog {
    /// Its name.
    pub origin: String,
    /// Its public key.
    pub vkey: String,
    /// How many entries of it are there.
    pub size: u64,
    /// Their root.
    pub root: Digest,
    /// The largest size that a witness is known to have cosigned, if it is larger.
    pub witnessed: Option<u64>,
    /// Why it does not go on.
    pub reason: EpochReason,
}

/// The gateway began to record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Start {
    /// The machine's boot id, to which boot clock times belong.
    pub boot_id: String,
    /// Name and version of the program.
    pub program: String,
    /// SHA-256 of the configuration in force, secrets left out, if given.
    pub configuration: Option<Digest>,
    /// Whether the wall clock is synchronised.
    pub clock: ClockState,
}

closed! {
    /// Whether the wall clock is synchronised with a time server.
    ClockState {
        /// The kernel says that it is.
        Synchronized = "synchronized",
        /// The kernel says that it is not.
        Unsynchronized = "unsynchronized",
        /// Nobody knows.
        NotEstablished = "not_established",
    }
}

closed! {
    /// Why the gateway stopped.
    StopReason {
        /// It was told to.
        Requested = "requested",
        /// Another log, with another key, goes on from here.
        Rotation = "rotation",
    }
}

/// The gateway stopped cleanly.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stop {
    /// Why.
    pub reason: StopReason,
    /// The public key of the log that goes on, if this one ends for good.
    pub next: Option<String>,
}

closed! {
    /// What the recovery found at the end of the log.
    Loss {
        /// Nothing was cut off.
        None = "none",
        /// A group that was never acknowledged was incomplete and was dropped.
        TornTail = "torn_tail",
    }
}

/// The log was opened after an unclean end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recovery {
    /// How many entries the log had.
    pub entries: u64,
    /// What was dropped.
    pub loss: Loss,
    /// How many bytes of an incomplete group were dropped.
    pub torn_bytes: u64,
    /// How many commands get an outcome `unknown` in the entries that follow.
    pub commands_unknown: u64,
    /// How many sessions are closed as lost in the entries that follow.
    pub sessions_lost: u64,
}

/// The gateway is alive: silence longer than the interval of heartbeats is evidence of a gap.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heartbeat {
    /// Whether the wall clock is synchronised.
    pub clock: ClockState,
    /// Sessions open now.
    pub sessions: u64,
    /// Commands since the start.
    pub commands: u64,
    /// Connection attempts without a session since the start.
    pub refused: u64,
    /// Bytes from clients since the start.
    pub bytes_up: u64,
    /// Bytes to clients since the start.
    pub bytes_down: u64,
}

/// A session began.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionOpen {
    /// Its place: always number 0.
    pub link: Link,
    /// Who it is.
    pub identity: Identity,
    /// Which connection it uses.
    pub connection: String,
    /// Which database, where there are any. Logs of versions before 0.6 always have one.
    pub database: Option<Label>,
    /// As which user the gateway logged in there.
    pub upstream_user: String,
    /// The protocol.
    pub protocol: String,
    /// The client's address.
    pub client: String,
    /// The TLS version and cipher suite, none when the client came without TLS.
    pub tls: Option<String>,
    /// What the client said about itself.
    pub claims: Vec<Claim>,
    /// The durability in force.
    pub durability: Durability,
    /// Which slot of the key table has the session's key.
    pub key_slot: u64,
    /// Commitment to the session's key.
    pub key_commitment: Digest,
    /// How safe the way to the server is. Logs of versions before 0.3 do not say.
    pub upstream: Option<UpstreamSecurity>,
    /// The outpost through which the server is reached, if through one.
    pub outpost: Option<Carried>,
}

closed! {
    /// Why a session ended.
    SessionEnd {
        /// The client ended it properly.
        ClientClosed = "client_closed",
        /// The client went away.
        ClientGone = "client_gone",
        /// The server ended it with a message.
        UpstreamClosed = "upstream_closed",
        /// The server went away.
        UpstreamGone = "upstream_gone",
        /// Nothing was sent for too long.
        Idle = "idle",
        /// One side sent what the protocol does not allow.
        Violation = "violation",
        /// The gateway stopped.
        GatewayStopped = "gateway_stopped",
        /// A fault in the gateway ended the session.
        GatewayFault = "gateway_fault",
        /// The record could not be written.
        RecordingStopped = "recording_stopped",
        /// The gateway was gone before the session ended.
        Lost = "lost",
        /// The identity was locked out.
        Revoked = "revoked",
        /// The identity may no longer use the connection.
        NotPermitted = "not_permitted",
        /// The outpost on the way to the server went away.
        OutpostLost = "outpost_lost",
        /// Somebody ended it: an entry of the kind `oversight` says who, and why.
        Killed = "killed",
    }
}

impl SessionEnd {
    /// Why a command that is open when its session ends so has no known outcome.
    #[must_use]
    pub fn unknown_because(self) -> Reason {
        match self {
            Self::ClientClosed | Self::Idle => Reason::SessionEnded,
            Self::ClientGone => Reason::ClientGone,
            Self::UpstreamClosed | Self::UpstreamGone => Reason::UpstreamGone,
            Self::Violation => Reason::Violation,
            Self::GatewayStopped => Reason::GatewayStopped,
            Self::GatewayFault => Reason::GatewayFault,
            Self::RecordingStopped => Reason::RecordingStopped,
            Self::Lost => Reason::GatewayRestarted,
            Self::Revoked | Self::NotPermitted => Reason::Revoked,
            Self::OutpostLost => Reason::OutpostLost,
            Self::Killed => Reason::Killed,
        }
    }
}

/// A session ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionClose {
    /// Its place: always the last.
    pub link: Link,
    /// Why it ended.
    pub reason: SessionEnd,
    /// How many intents it has.
    pub intents: u32,
    /// How many outcomes it has: the same number.
    pub outcomes: u32,
    /// Bytes from the client.
    pub bytes_up: u64,
    /// Bytes to the client.
    pub bytes_down: u64,
    /// The root, as of RFC 6962, over the leaf hashes of the session's entries before this one. Logs of versions before
    /// 0.2 have none.
    pub root: Option<Digest>,
}

closed! {
    /// Why a connection attempt led to no session.
    RefusedReason {
        /// The proof of the identity was wrong.
        AuthenticationFailed = "authentication_failed",
        /// The identity may not use the connection, or one of them does not exist.
        NotPermitted = "not_permitted",
        /// It took too long.
        Timeout = "timeout",
        /// It sent what the protocol does not allow.
        Malformed = "malformed",
        /// It came without TLS where TLS is required.
        PlaintextRefused = "plaintext_refused",
        /// Too many connections.
        Limit = "limit",
        /// The record could not be written.
        RecordingStopped = "recording_stopped",
        /// The server could not be reached or refused the gateway.
        UpstreamUnreachable = "upstream_unreachable",
        /// It asked for something that the gateway does not support, such as replication.
        Unsupported = "unsupported",
        /// It asked to cancel with a key that no session has.
        CancelKey = "cancel_key",
        /// It went away before it had said who it is.
        ClosedEarly = "closed_early",
        /// The gateway was stopping.
        GatewayStopping = "gateway_stopping",
        /// What was given as a token is none.
        TokenMalformed = "token_malformed",
        /// The token is longer than one may be.
        TokenTooLong = "token_too_long",
        /// The token is signed by an algorithm that is not allowed.
        TokenAlgorithm = "token_algorithm",
        /// The token's issuer is not trusted.
        TokenIssuer = "token_issuer",
        /// The token is meant for someone else.
        TokenAudience = "token_audience",
        /// The token does not hold any more.
        TokenExpired = "token_expired",
        /// The token does not hold yet.
        TokenNotYetValid = "token_not_yet_valid",
        /// The token is signed by a key that the issuer does not publish.
        TokenKey = "token_key",
        /// The token's signature is wrong.
        TokenSignature = "token_signature",
        /// A claim of the token is missing or has a wrong form.
        TokenClaims = "token_claims",
        /// No rule gives the token an identity.
        TokenUnmapped = "token_unmapped",
        /// The issuer's keys are not to be had.
        IssuerUnreachable = "issuer_unreachable",
        /// The identity was locked out.
        Revoked = "revoked",
        /// Too many attempts from this address failed.
        Throttled = "throttled",
        /// No outpost is there to carry the connection.
        OutpostUnavailable = "outpost_unavailable",
    }
}

/// Connection attempts that led to no session, counted by reason and source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Why.
    pub reason: RefusedReason,
    /// The address they came from.
    pub source: String,
    /// How many.
    pub count: u64,
    /// The wall clock time of the first, in microseconds since 1970. The entry's own time is not before the last.
    pub first_us: i64,
    /// The user name of the first, as claimed.
    pub user: Option<Label>,
    /// The connection that the first asked for, as claimed.
    pub connection: Option<Label>,
}

closed! {
    /// What became of a request to cancel.
    CancelResult {
        /// It was passed on for the named session.
        Forwarded = "forwarded",
        /// The session had no command running: nothing was passed on.
        TooLate = "too_late",
        /// No session has that key: nothing was passed on.
        NoSession = "no_session",
        /// The server could not be reached.
        UpstreamUnreachable = "upstream_unreachable",
        /// The command waited for an approval, and waits no more: nothing was passed on.
        Held = "held",
    }
}

/// Someone asked for a running command to be cancelled. Such a request is not authenticated by the protocol.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cancel {
    /// The session whose command is meant, if the key belongs to one.
    pub session: Option<SessionId>,
    /// The address it came from.
    pub source: String,
    /// What became of it.
    pub result: CancelResult,
    /// How many such requests this entry stands for.
    pub count: u64,
}
