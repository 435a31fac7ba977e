//! What verification found: three verdicts, never one.

use std::collections::{BTreeMap, BTreeSet};

use model::{BreakGlassId, CommandId, Digest, PreviousLog, Status, Time, Witnesses};

/// At most this many violations of completeness, silences and the like are listed; all are counted.
pub const GAPS_MAX: usize = 100;

/// The three verdicts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Whether the entries are those that were recorded.
    pub integrity: Integrity,
    /// Whether every attempt is there, with its outcome.
    pub completeness: Completeness,
    /// What the log says about what it covers.
    pub coverage: Coverage,
}

/// Whether the entries are those that were recorded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Integrity {
    /// The first violation, by index; none if the log is intact.
    pub violation: Option<Violation>,
    /// How many entries were read.
    pub entries: u64,
    /// The root of the tree of all of them; of a selection, the root that its proofs lead to.
    pub root: Digest,
    /// The log's name.
    pub origin: String,
    /// The key that verified the checkpoint.
    pub vkey: String,
    /// How many entries the signed checkpoint covers; none if nothing has been signed yet.
    pub signed: Option<u64>,
    /// How many blobs were read and found as named.
    pub blobs: u64,
    /// How many blobs were not at hand, so that nothing is known of them.
    pub blobs_unchecked: u64,
    /// Bytes of an unfinished group at the end, on which nobody relied.
    pub torn_bytes: u64,
    /// How many decisions on commands were signed by a passkey, and found right.
    pub signed_decisions: u64,
    /// How many signed decisions are by a passkey whose enrolment is not at hand, so that nothing is known of them.
    pub signed_decisions_unchecked: u64,
}

/// Something that is not as it was recorded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The first entry concerned, if it can be told.
    pub index: Option<u64>,
    /// Its command, if it belongs to one.
    pub command: Option<CommandId>,
    /// The file.
    pub file: String,
    /// Where in the file.
    pub offset: u64,
    /// What is wrong.
    pub what: String,
}

/// Whether every attempt is there, with its outcome.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Completeness {
    /// The verdict.
    pub verdict: CompletenessVerdict,
    /// What is missing; at most [`GAPS_MAX`] are listed.
    pub gaps: Vec<String>,
    /// How many gaps there are in all.
    pub gaps_count: u64,
    /// Intents.
    pub commands: u64,
    /// Outcomes, by status.
    pub outcomes: BTreeMap<Status, u64>,
    /// Commands that have no outcome yet, in sessions that are open.
    pub pending: u64,
    /// Sessions that began.
    pub sessions: u64,
    /// Sessions that are open at the end of the log.
    pub sessions_open: u64,
    /// Sessions that were closed as lost.
    pub sessions_lost: u64,
    /// Connection attempts that led to no session.
    pub refused: u64,
    /// How many times the log was opened after the gateway had not stopped cleanly.
    pub recoveries: u64,
    /// Bytes of unfinished groups that recoveries dropped and declared: nobody relied on them.
    pub torn_bytes_declared: u64,
    /// Erasures that the record declares, of whole sessions and of single fields.
    pub erased_sessions: u64,
    /// See `erased_sessions`.
    pub erased_fields: u64,
    /// Holds that are in force at the end.
    pub holds: BTreeSet<String>,
    /// Times at which the gateway was running and nothing was recorded, not even a heartbeat.
    pub silences: Vec<Silence>,
    /// How many times break-glass was opened.
    pub break_glass_opened: u64,
    /// How many commands name break-glass.
    pub break_glass_commands: u64,
    /// Break-glass that waits for its review, or is still open.
    pub break_glass_unreviewed: BTreeSet<BreakGlassId>,
    /// Whether the log ends with a clean stop.
    pub stopped: bool,
}

/// The verdict on completeness.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CompletenessVerdict {
    /// Nothing is missing; what is unknown is declared so.
    Ok,
    /// Something is missing.
    Violated,
    /// It cannot be told, because the entries are not intact.
    NotEstablished,
}

/// A time without entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Silence {
    /// The last entry before.
    pub from: Time,
    /// The first entry after.
    pub to: Time,
}

/// What the log says about what it covers. It can never say that nothing went around the gateway.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Coverage {
    /// Wall clock time of the first and the last entry.
    pub recorded: Option<(i64, i64)>,
    /// For each connection, the wall clock times of its first and last entry.
    pub connections: BTreeMap<String, (i64, i64)>,
    /// Times at which the gateway was not running; at most [`GAPS_MAX`] are listed.
    pub away: Vec<Away>,
    /// How many there are in all.
    pub away_count: u64,
    /// Jumps of the wall clock against the clock that only goes forward; at most [`GAPS_MAX`] are listed.
    pub clock_steps: Vec<ClockStep>,
    /// The log that this one continues.
    pub previous: Option<PreviousLog>,
    /// What the log says last of its witnesses.
    pub witnesses: Option<Witnesses>,
}

/// A time at which the gateway was not running.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Away {
    /// Wall clock time of the last entry before, in microseconds since 1970.
    pub from_us: i64,
    /// Wall clock time of the first entry after.
    pub to_us: i64,
    /// How it ended.
    pub end: AwayEnd,
}

/// How the gateway had gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AwayEnd {
    /// It had stopped cleanly.
    Stopped,
    /// It had not: a crash, a kill, a power cut, a disk that refused.
    Crashed,
}

/// A jump of the wall clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClockStep {
    /// The first entry with the new time.
    pub index: u64,
    /// By how much it jumped forward, in microseconds.
    pub by_us: i64,
}

impl Report {
    /// Whether integrity and completeness hold.
    #[must_use]
    pub fn is_ok(&self) -> bool {
        self.integrity.violation.is_none() && self.completeness.verdict == CompletenessVerdict::Ok
    }
}
