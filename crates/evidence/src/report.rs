//! What verification found: three verdicts, what is disclosed, and the commands themselves.

use std::collections::BTreeMap;

use ledger::Quorum;
use model::{AbsentReason, CommandId, Digest, Intent, Outcome, Status, Time};

use crate::fields::Kind;
use crate::manifest::Manifest;

/// At most this many gaps are told one by one; all are counted.
pub const GAPS_MAX: usize = 64;

/// The verdicts on a bundle.
#[derive(Clone, Debug)]
pub struct Report {
    /// What the bundle says it is; none if that cannot be read.
    pub manifest: Option<Manifest>,
    /// Is every entry as it was written and signed, and everything else as it was put together?
    pub integrity: Integrity,
    /// Has every command its outcome, and is nothing missing in between?
    pub completeness: Completeness,
    /// What the bundle is about, and what it is not.
    pub coverage: Coverage,
    /// How much of the sensitive content of the selected commands can be read.
    pub disclosure: BTreeMap<Kind, Counts>,
    /// The selected commands.
    pub commands: Vec<Command>,
}

/// The first verdict.
#[derive(Clone, Debug)]
pub struct Integrity {
    /// The first thing that is not as it was.
    pub violation: Option<Violation>,
    /// How many entries are in the bundle.
    pub entries: u64,
    /// The log's name.
    pub origin: String,
    /// The key with which the checkpoint was verified.
    pub vkey: String,
    /// Where that key is from.
    pub key_from: From,
    /// How many entries the checkpoint is about.
    pub size: u64,
    /// The root that was signed.
    pub root: Digest,
    /// The witnesses that cosigned, as the policy names them, and when, in seconds since 1970.
    pub cosigned: Vec<(String, u64)>,
    /// Whether they are enough, if there is a policy, and whose policy.
    pub quorum: Option<(Quorum, From)>,
    /// How many blobs are in the bundle.
    pub blobs: u64,
    /// The files that this program does not know: only their digests were checked.
    pub unknown_files: Vec<String>,
}

/// Where something is from that decides what is believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum From {
    /// From whoever verifies.
    Verifier,
    /// From the bundle itself, which can say anything.
    Bundle,
}

/// Something that is not as it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The entry, if it is one.
    pub index: Option<u64>,
    /// The command of that entry.
    pub command: Option<CommandId>,
    /// The file in the bundle.
    pub file: String,
    /// Where in the bundle, in bytes.
    pub offset: u64,
    /// What is wrong.
    pub what: String,
}

/// The second verdict.
#[derive(Clone, Debug)]
pub struct Completeness {
    /// The verdict itself.
    pub verdict: Complete,
    /// What is missing, up to [`GAPS_MAX`] of it.
    pub gaps: Vec<String>,
    /// How much is missing.
    pub gaps_count: u64,
    /// How many commands the sessions have.
    pub commands: u64,
    /// How the commands ended.
    pub outcomes: BTreeMap<Status, u64>,
    /// How many had not ended.
    pub pending: u64,
    /// How many sessions there are.
    pub sessions: u64,
    /// How many of them had not ended.
    pub sessions_open: u64,
    /// How many of them were lost with the gateway.
    pub sessions_lost: u64,
}

/// Whether something is missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Complete {
    /// Nothing is.
    Yes,
    /// Something is.
    No,
    /// It cannot be told.
    NotEstablished,
}

/// What the bundle is about.
#[derive(Clone, Debug, Default)]
pub struct Coverage {
    /// The wall clock times of the first and the last entry of its sessions, in microseconds since 1970.
    pub recorded: Option<(i64, i64)>,
    /// The same for each connection.
    pub connections: BTreeMap<String, (i64, i64)>,
    /// How many entries the log has between the first and the last of them that are not in the bundle.
    pub left_out: u64,
}

/// How many sensitive fields are in which state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// They can be read, and are what was recorded.
    pub disclosed: u64,
    /// They were left out on purpose.
    pub withheld: u64,
    /// They were erased from the record.
    pub erased: u64,
}

/// A selected command.
#[derive(Clone, Debug)]
pub struct Command {
    /// The index of its intent.
    pub index: u64,
    /// When that was recorded.
    pub time: Time,
    /// The intent.
    pub intent: Intent,
    /// The outcome, unless it was still running.
    pub outcome: Option<Outcome>,
    /// Its text.
    pub text: Content,
    /// Its parameters: a JSON array.
    pub parameters: Content,
    /// The server's message.
    pub message: Content,
}

/// Sensitive content, as far as it is disclosed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// There is none.
    Absent(AbsentReason),
    /// What was recorded.
    Disclosed(Vec<u8>),
    /// It was left out on purpose.
    Withheld,
    /// It was erased from the record.
    Erased,
    /// It does not open, or its key is missing.
    Damaged,
}

impl Content {
    /// The content as text, for people.
    #[must_use]
    pub fn text(&self) -> Option<std::borrow::Cow<'_, str>> {
        match self {
            Self::Disclosed(bytes) => Some(String::from_utf8_lossy(bytes)),
            Self::Absent(_) | Self::Withheld | Self::Erased | Self::Damaged => None,
        }
    }

    /// Why there is nothing to read; none when there is, or when there never was.
    #[must_use]
    pub fn state(&self) -> Option<&'static str> {
        match self {
            Self::Disclosed(_) | Self::Absent(AbsentReason::None) => None,
            Self::Absent(AbsentReason::NotSeen) => Some("not_seen"),
            Self::Withheld => Some("withheld"),
            Self::Erased => Some("erased"),
            Self::Damaged => Some("damaged"),
        }
    }
}
