//! The vocabulary of OnRecord: ids, times, identities, commands, outcomes, and the entries of the record with their
//! exact encoding.
//!
//! Plain data: no I/O, no clock, no source of randomness; what is random or depends on the time comes as an argument.
//!
//! The invariant kept here: an entry has exactly one encoding. [`Entry::decode`] accepts only bytes that
//! [`Entry::encode`] would write, so that what is verified, what is shown and what was recorded are the same thing.

mod access;
mod approval;
mod base64;
mod break_glass;
mod closed;
mod command;
mod comment;
mod content;
mod cursor;
mod custody;
mod decode;
mod digest;
mod encode;
mod entry;
mod facts;
mod field;
mod id;
mod identity;
mod json;
mod passkey;
mod peek;
pub mod seal;
mod skim;
mod time;
pub mod transcript;

pub use access::{
    Carried, Configuration, ConfigurationCause, ConfigurationResult, IssuerKey, Opens, Outpost, OutpostAction,
    Oversight, OversightAction, PLACES_MAX, Revocation, RevocationAction, Shared, Token, TokenAction, UpstreamSecurity,
};
pub use approval::{
    Approval, ApprovalDecision, ApprovalEnd, ApprovalRequest, ApprovalStep, ApprovalVote, ApprovalWord,
};
pub use break_glass::{
    BREAK_GLASS_SECONDS_MAX, BreakGlass, BreakGlassEnd, BreakGlassFinding, BreakGlassId, BreakGlassIdError,
    BreakGlassOpening, BreakGlassReview, BreakGlassStep, BreakGlassWord,
};
pub use command::{
    BlobForm, Copy, CopyDirection, Durability, Effective, Effects, Fidelity, FileContent, Intent, Outcome, Packing,
    RESULTS_MAX, Reason, StatementResult, Status, Transaction, Transcript, Verdict, Via, Who,
};
pub use comment::{COMMENT_BYTES_MAX, COMMENT_CLAIMS_MAX, comment_claims, fuzz_comment};
pub use content::ContentKind;
pub use custody::{Actor, Erase, EraseCause, Export, Hold, HoldAction, WitnessStanding, WitnessState, Witnesses};
pub use decode::DecodeError;
pub use digest::Digest;
pub use entry::{
    Body, Cancel, CancelResult, ClockState, Entry, EpochReason, Genesis, Heartbeat, Kind, LEAF_BYTES_MAX, Link, Loss,
    PreviousLog, Recovery, Refused, RefusedReason, SessionClose, SessionEnd, SessionOpen, Start, Stop, StopReason,
};
pub use facts::{
    Access, Effect, FUNCTIONS_MAX, Facts, NAMES_BYTES_MAX, OBJECT_NAME_BYTES_MAX, Opaque, Operation, RELATIONS_MAX,
    Relation,
};
pub use field::{AbsentReason, BlobField, Field, SealedField};
pub use id::{CommandId, IdError, SessionId};
pub use identity::{
    CertificateEvidence, ChannelBinding, Claim, Evidence, Identity, IdentityKind, IdentityName, Known, LABEL_BYTES_MAX,
    Label, NameError, OnBehalfOf, Proof, ProofMethod, Run, TokenEvidence,
};
pub use passkey::{Assertion, Passkey, PasskeyAction, PasskeyAlgorithm, approval_challenge};
pub use peek::Peek;
pub use skim::{Skim, SkimmedCommand};
pub use time::{Time, TimeError, WALL_TEXT_BYTES, parse_wall, wall_text, write_wall};
