//! The record on disk: segments, group commit, recovery, blobs, the [`Recorder`] and the readers.
//!
//! This is the only crate that syncs. What it promises: an entry whose position has reached [`Level::Durable`] survives
//! a loss of power; an intent that was forwarded gets an outcome, if need be `unknown` at the next start; and what is
//! damaged is never taken for an end.
//!
//! Not for: deciding whether a command may run, or moving its bytes.

mod approvals;
mod blob;
mod clock;
mod custody;
mod disk;
mod epoch;
mod error;
mod format;
#[doc(hidden)]
pub mod fuzz;
mod gate;
mod head;
mod keys;
mod log;
mod pack;
mod publish;
mod reader;
mod recorder;
mod recover;
mod session;
mod snapshot;
mod tamper;
mod threads;
mod verify;
mod views;
mod walk;
mod wrapping;

pub use approvals::{ApprovalEntry, ApprovalStory, BreakGlassEntry};
pub use blob::{BlobReader, BlobWriter, HEAD_BYTES};
pub use clock::{Clock, Random, SystemClock, SystemRandom, clock_state};
pub use custody::{
    Custody, CustodyError, Due, Erased, Held, HoldScope, Pace, REASON_BYTES_MAX, Retained, RetentionRules,
    retention_due,
};
pub use disk::{Disk, DiskFile, Mode, RealDisk, read_file, replace_file, write_all};
pub use epoch::{BeginEpoch, begin_epoch, epoch_origin, epochs};
pub use error::{Blame, Health, RecordError, StoreError};
pub use gate::{Gate, Level, Lone, Opening, Pending, Recorded};
pub use ledger::audit::{
    Away, AwayEnd, ClockStep, Completeness, CompletenessVerdict, Coverage, GAPS_MAX, Integrity, Report, SILENCE_US,
    Silence, Violation,
};
pub use log::Position;
pub use publish::Published;
pub use reader::{Entries, Erasure, OPENED_BYTES_MAX, Opened, Reader, Stored};
pub use recorder::{Created, GatewayEntry, Options, Recorder};
pub use recover::Recovery;
pub use session::{INLINE_BYTES_MAX, IntentDraft, OutcomeDraft, SessionClosing, SessionLog, SessionStart};
pub use tamper::{Tampered, tamper, tamper_on};
pub use verify::{Progress, Verified, verify, verify_from, verify_on};
pub use views::{
    CloseView, CommandStatus, CommandView, Commands, FileView, Filter, OutcomeView, SessionView, commands,
    commands_between, oversight, sessions,
};
pub use wrapping::{KEY_ID_BYTES_MAX, LocalKey, WRAPPED_BYTES_MAX, WrapError, Wrapping, WrappingError, WrappingKey};
