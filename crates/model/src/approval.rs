//! What becomes of a command that somebody must approve.
//!
//! An approval is called by the command that it was asked for, and its steps are entries of their own: who decides is
//! seldom there when the command is sent. What is decided on is the leaf of the `requested` step: it names the leaf of
//! the command's intent, and so commits to the exact statement, its parameters, who sent it, where it goes and under
//! which policy.

use crate::closed::closed;
use crate::passkey::Assertion;
use crate::{CommandId, Digest, Identity, Label};

/// A step of an approval.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Approval {
    /// The command that it was asked for: the approval's name.
    pub of: CommandId,
    /// Which step.
    pub step: ApprovalStep,
}

/// The steps of an approval, in the order in which they can come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ApprovalStep {
    /// It was asked for.
    Requested(Box<ApprovalRequest>),
    /// Somebody who may decide looked at the command.
    Seen {
        /// Who.
        by: Box<Identity>,
    },
    /// Somebody decided.
    Decided(Box<ApprovalVote>),
    /// A command goes ahead under it. An approval is used once.
    Used {
        /// The command: the one that it was asked for, or the same again in a later session.
        command: CommandId,
    },
    /// It can be used no more, and was not.
    Ended {
        /// Why.
        how: ApprovalEnd,
    },
}

closed! {
    /// What the steps of an approval are called.
    ApprovalWord {
        /// See [`ApprovalStep::Requested`].
        Requested = "requested",
        /// See [`ApprovalStep::Seen`].
        Seen = "seen",
        /// See [`ApprovalStep::Decided`].
        Decided = "decided",
        /// See [`ApprovalStep::Used`].
        Used = "used",
        /// See [`ApprovalStep::Ended`].
        Ended = "ended",
    }
}

impl ApprovalStep {
    /// What it is called.
    #[must_use]
    pub fn word(&self) -> ApprovalWord {
        match self {
            Self::Requested(_) => ApprovalWord::Requested,
            Self::Seen { .. } => ApprovalWord::Seen,
            Self::Decided(_) => ApprovalWord::Decided,
            Self::Used { .. } => ApprovalWord::Used,
            Self::Ended { .. } => ApprovalWord::Ended,
        }
    }
}

/// What is decided on. Its leaf hash is what a decision names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApprovalRequest {
    /// The leaf hash of the command's intent.
    pub intent: Digest,
    /// Over which connection.
    pub connection: String,
    /// To which database.
    pub database: Option<Label>,
    /// As which user the gateway is logged in there.
    pub role: String,
    /// The policy that asks for the approval.
    pub policy: Digest,
    /// How many people must approve.
    pub quorum: u64,
    /// Whether those who approve must sign with a passkey.
    pub signed: bool,
    /// Until when it can be decided and used, microseconds since 1970.
    pub expires_us: i64,
    /// 32 random bytes, so that no two requests are the same.
    pub nonce: Digest,
}

closed! {
    /// What somebody decided.
    ApprovalDecision {
        /// It may run.
        Approve = "approve",
        /// It must not.
        Deny = "deny",
    }
}

/// What one person decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApprovalVote {
    /// What.
    pub decision: ApprovalDecision,
    /// The leaf hash of the `requested` step.
    pub request: Digest,
    /// Who, and how that is known.
    pub by: Identity,
    /// What there is to say of it.
    pub comment: Option<String>,
    /// Who decided signed it, see [`crate::approval_challenge`]; none where nobody asked for that.
    pub signature: Option<Box<Assertion>>,
}

closed! {
    /// Why an approval can be used no more. One that was open when the gateway stopped can be used no more either, and
    /// has no such step: the `stop` or `recovery` entry says it.
    ApprovalEnd {
        /// Its time is over.
        Expired = "expired",
        /// Who sent the command took it back.
        Cancelled = "cancelled",
        /// The policy is another, or says something else, than when it was asked for.
        Superseded = "superseded",
        /// Who sent the command was locked out.
        Revoked = "revoked",
    }
}
