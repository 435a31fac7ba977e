//! Break-glass: a person who runs what has to be approved without waiting for that, for a short time, and in the open.
//!
//! Its steps are entries of their own, and each command of that person on that connection names it, so that whoever reviews
//! it afterwards has all of them.

use std::fmt;
use std::str::FromStr;

use crate::closed::closed;
use crate::{Identity, SessionId};

/// The longest that break-glass lasts, in seconds.
pub const BREAK_GLASS_SECONDS_MAX: u64 = 60 * 60;

/// A time of break-glass: a ULID, as a session's id is one.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BreakGlassId(SessionId);

/// Text that is no id of break-glass.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the id of break-glass has 26 digits of Crockford's base 32, like 01K9ZZ3Q0V8C2M4N6P8R0T2W4Y")]
pub struct BreakGlassIdError;

impl BreakGlassId {
    /// Makes an id from the time (milliseconds since 1970) and 80 random bits.
    #[must_use]
    pub fn new(unix_ms: u64, random: [u8; 10]) -> Self {
        Self(SessionId::new(unix_ms, random))
    }

    /// The id as 16 bytes, big-endian.
    #[must_use]
    pub fn to_bytes(self) -> [u8; 16] {
        self.0.to_bytes()
    }

    /// The id of these 16 bytes.
    #[must_use]
    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(SessionId::from_bytes(bytes))
    }

    pub(crate) fn text(self) -> impl AsRef<[u8]> {
        self.0.text()
    }

    pub(crate) fn from_text(text: &[u8]) -> Option<Self> {
        SessionId::from_text(text).map(Self)
    }
}

impl fmt::Display for BreakGlassId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for BreakGlassId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BreakGlassId({self})")
    }
}

impl FromStr for BreakGlassId {
    type Err = BreakGlassIdError;

    fn from_str(text: &str) -> Result<Self, BreakGlassIdError> {
        Self::from_text(text.as_bytes()).ok_or(BreakGlassIdError)
    }
}

/// A step of break-glass.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BreakGlass {
    /// Which one.
    pub id: BreakGlassId,
    /// The step.
    pub step: BreakGlassStep,
}

/// The steps of break-glass, in the order in which they come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BreakGlassStep {
    /// Somebody opened it: from here on what is held runs at once.
    Opened(Box<BreakGlassOpening>),
    /// It is over.
    Closed {
        /// Why.
        how: BreakGlassEnd,
        /// Who closed it, where a person did.
        by: Option<Box<Identity>>,
    },
    /// Somebody else looked at what ran under it.
    Reviewed(Box<BreakGlassReview>),
}

closed! {
    /// What the steps of break-glass are called.
    BreakGlassWord {
        /// See [`BreakGlassStep::Opened`].
        Opened = "opened",
        /// See [`BreakGlassStep::Closed`].
        Closed = "closed",
        /// See [`BreakGlassStep::Reviewed`].
        Reviewed = "reviewed",
    }
}

impl BreakGlassStep {
    /// What it is called.
    #[must_use]
    pub fn word(&self) -> BreakGlassWord {
        match self {
            Self::Opened(_) => BreakGlassWord::Opened,
            Self::Closed { .. } => BreakGlassWord::Closed,
            Self::Reviewed(_) => BreakGlassWord::Reviewed,
        }
    }
}

/// Who opened it, where, why, and for how long.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BreakGlassOpening {
    /// On which connection.
    pub connection: String,
    /// Who, and how that is known.
    pub by: Identity,
    /// Why, in that person's words.
    pub reason: String,
    /// Until when at most, microseconds since 1970.
    pub until_us: i64,
}

/// What somebody found who looked at what ran under it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BreakGlassReview {
    /// Who, and how that is known.
    pub by: Identity,
    /// What they found.
    pub finding: BreakGlassFinding,
    /// What there is to say of it.
    pub comment: String,
}

closed! {
    /// Why break-glass is over. One that was open when the gateway stopped is over with that, and gets its step when the
    /// gateway starts again.
    BreakGlassEnd {
        /// A person closed it.
        Person = "person",
        /// Its time is over.
        Expired = "expired",
        /// The gateway stopped or was killed.
        Restart = "restart",
        /// Who opened it was locked out.
        Revoked = "revoked",
        /// The configuration no longer lets that person open it on that connection.
        NotPermitted = "not_permitted",
    }
}

closed! {
    /// What a review found.
    BreakGlassFinding {
        /// There was reason for it, and what ran was right.
        Justified = "justified",
        /// There was not, or it was not.
        NotJustified = "not_justified",
    }
}
