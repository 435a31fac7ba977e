//! Entries about the record itself: what was erased from it, what must not be, who watches it, what was handed out.

use crate::closed::closed;
use crate::{Digest, IdentityName, Known, SessionId};

/// Who did something to the record itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Actor {
    /// The name, such as `uid:1000` for a user of the gateway's machine.
    pub name: String,
    /// How it is known: a user's number is verified by the kernel.
    pub known: Known,
}

closed! {
    /// Why content was erased.
    EraseCause {
        /// A person asked for it.
        Request = "request",
        /// It was kept as long as the configuration says.
        Retention = "retention",
    }
}

/// The key of sensitive content was destroyed. This entry is durable before the key is gone, and a key that comes back
/// with an old copy of the keys is destroyed again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Erase {
    /// The session whose content it was.
    pub session: SessionId,
    /// The connection of that session.
    pub connection: String,
    /// The identity of that session.
    pub identity: IdentityName,
    /// The fields, by their numbers in the session; none for all of them.
    pub fields: Option<Vec<u64>>,
    /// Why.
    pub cause: EraseCause,
    /// The rule that asked for it, or the reason that the person gave.
    pub reason: String,
    /// Who did it.
    pub by: Actor,
}

closed! {
    /// What became of a hold.
    HoldAction {
        /// From here on nothing in its scope is erased.
        Placed = "placed",
        /// It no longer counts.
        Released = "released",
    }
}

/// A legal hold: it keeps content from being erased, whoever asks. What is not named is not limited: a hold that names
/// nothing holds everything.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hold {
    /// Its name, which releases it.
    pub hold: String,
    /// What became of it.
    pub action: HoldAction,
    /// Only this session.
    pub session: Option<SessionId>,
    /// Only sessions of this connection.
    pub connection: Option<String>,
    /// Only sessions of this identity.
    pub identity: Option<IdentityName>,
    /// The reason that was given.
    pub reason: String,
    /// Who did it.
    pub by: Actor,
}

closed! {
    /// How a witness stands to the log.
    WitnessState {
        /// It has cosigned the last checkpoint that it was asked for.
        Current = "current",
        /// It has not answered for the last checkpoint, but for an earlier one.
        Behind = "behind",
        /// It has never answered since the start.
        Absent = "absent",
        /// It refused.
        Refused = "refused",
    }
}

/// How far one witness is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WitnessStanding {
    /// Its name, as its key has it.
    pub name: String,
    /// How it stands.
    pub state: WitnessState,
    /// The largest size that it cosigned; none if it never did.
    pub size: Option<u64>,
}

/// How far the witnesses are behind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Witnesses {
    /// The size of the checkpoint that they were last asked for.
    pub size: u64,
    /// The largest size whose cosignatures are enough for the policy; none if there is no such size yet.
    pub enough: Option<u64>,
    /// Each of them.
    pub witnesses: Vec<WitnessStanding>,
}

/// A part of the record was handed out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Export {
    /// Who did it.
    pub by: Actor,
    /// What was asked for, as a command line would say it.
    pub selection: String,
    /// How many entries were handed out.
    pub entries: u64,
    /// How many sensitive fields can be read in what was handed out.
    pub disclosed: u64,
    /// SHA-256 of the file.
    pub sha256: Digest,
}
