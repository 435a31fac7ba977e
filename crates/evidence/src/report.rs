//! What verification found: three verdicts, what is disclosed, and the commands themselves.

use std::collections::BTreeMap;

use ledger::Evaluation;
use model::{AbsentReason, Approval, BreakGlass, ContentKind, Digest, Intent, Outcome, ProofMethod, Time};

use crate::manifest::Manifest;

/// The verdicts on a bundle.
#[derive(Clone, Debug)]
pub struct Report {
    /// The verdicts, as on any record.
    pub audit: ledger::audit::Report,
    /// What the bundle says it is; none if that cannot be read.
    pub manifest: Option<Manifest>,
    /// Where the key is from with which the checkpoint was verified.
    pub key_from: From,
    /// What a policy says of the witnesses, and whose policy it is.
    pub witnessed: Option<(Evaluation, From)>,
    /// How many entries the log has between the first and the last of the bundle's sessions that are not in it.
    pub left_out: u64,
    /// The files that this program does not know: only their digests were checked.
    pub unknown_files: Vec<String>,
    /// How much of the sensitive content of the selected commands can be read.
    pub disclosure: BTreeMap<ContentKind, Counts>,
    /// The steps of all approvals in the bundle, in order. That they keep the rules is a matter of the verdicts.
    pub approvals: Vec<ApprovalEntry>,
    /// The steps of all break-glass in the bundle, likewise.
    pub break_glass: Vec<BreakGlassEntry>,
    /// The selected commands.
    pub commands: Vec<Command>,
}

/// A step of an approval.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApprovalEntry {
    /// The index of the entry.
    pub index: u64,
    /// When it was recorded.
    pub time: Time,
    /// Its leaf hash: of the `requested` step, what decisions name.
    pub leaf: Digest,
    /// What it says.
    pub approval: Approval,
}

/// A step of break-glass.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BreakGlassEntry {
    /// The index of the entry.
    pub index: u64,
    /// When it was recorded.
    pub time: Time,
    /// What it says.
    pub break_glass: BreakGlass,
}

/// Where something is from that decides what is believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum From {
    /// From whoever verifies.
    Verifier,
    /// From the bundle itself, which can say anything.
    Bundle,
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
    /// How the identity was proven when the session began.
    pub proof: Option<ProofMethod>,
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
