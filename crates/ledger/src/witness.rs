//! What a witness is asked and how it decides: C2SP tlog-witness, as pure functions.
//!
//! A witness remembers, for each log, the last checkpoint that it cosigned. It cosigns another only if that one is proven
//! to continue it; so whoever trusts the witness knows that nobody was shown another past.
//!
//! Not for: keeping what is remembered. A caller makes it durable before a cosignature leaves, and lets no two requests
//! for one log run at a time.

use std::fmt;
use std::str::FromStr;

use model::Digest;

use crate::checkpoint::{Checkpoint, CheckpointError};
use crate::note::{NOTE_BYTES_MAX, NoteError, SignedNote, VerifierKey};
use crate::proof::verify_consistency;
use crate::tlog_proof::decimal;
use crate::tree::EMPTY_ROOT;

/// A request has at most this many hashes.
pub const CONSISTENCY_HASHES_MAX: usize = 63;
/// A request is at most this long, in bytes.
pub const ADD_CHECKPOINT_BYTES_MAX: usize = NOTE_BYTES_MAX + 64 * 46;

/// A request to cosign: the body of `POST /add-checkpoint`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddCheckpoint {
    /// The size that the witness is thought to have cosigned last.
    pub old: u64,
    /// The proof that the checkpoint continues that one.
    pub proof: Vec<Digest>,
    /// The signed note of the checkpoint.
    pub checkpoint: String,
}

/// A body that is no request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a request is a line `old <size>`, at most 63 hashes in base64, an empty line, and a checkpoint")]
pub struct RequestError;

/// What a witness remembers of a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Known {
    /// The size that it cosigned last.
    pub size: u64,
    /// Its root.
    pub root: Digest,
}

/// Why a witness does not cosign.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The request has not the right form.
    #[error("{RequestError}")]
    Malformed,
    /// The witness does not know the log.
    #[error("this witness does not know the log")]
    UnknownLog,
    /// The log did not sign the checkpoint.
    #[error("the checkpoint is not signed by the key that this witness knows of the log")]
    NotSigned,
    /// The old size is larger than the checkpoint.
    #[error("the old size is larger than the checkpoint's")]
    OldTooLarge,
    /// The witness has cosigned another size last.
    #[error("this witness has cosigned size {size} last")]
    Conflict {
        /// The size that it cosigned last.
        size: u64,
    },
    /// The checkpoint does not continue what was cosigned: its proof is wrong, or it has another root of the same size.
    #[error("the proof does not show that the checkpoint continues what this witness has cosigned")]
    Inconsistent,
}

impl Refusal {
    /// The status of the answer over HTTP.
    #[must_use]
    pub fn status(self) -> u16 {
        match self {
            Self::Malformed | Self::OldTooLarge => 400,
            Self::NotSigned => 403,
            Self::UnknownLog => 404,
            Self::Conflict { .. } => 409,
            Self::Inconsistent => 422,
        }
    }
}

impl AddCheckpoint {
    /// The origin that the checkpoint claims: which log's key to use.
    #[must_use]
    pub fn origin(&self) -> &str {
        self.checkpoint.split('\n').next().unwrap_or_default()
    }
}

/// Decides whether a witness that knows this much of a log may cosign, and gives what it must remember before it does.
///
/// # Errors
/// It must not.
pub fn consider(
    known: Option<&Known>,
    request: &AddCheckpoint,
    key: &VerifierKey,
) -> Result<(Known, SignedNote), Refusal> {
    let note = SignedNote::parse(&request.checkpoint).map_err(|_| Refusal::Malformed)?;
    match note.verify(key) {
        Ok(()) => {}
        Err(NoteError::NotSigned | NoteError::BadSignature) => return Err(Refusal::NotSigned),
        Err(_) => return Err(Refusal::Malformed),
    }
    let Checkpoint { size, root, .. } = Checkpoint::of_text(note.text(), key).map_err(|error| match error {
        CheckpointError::Origin => Refusal::UnknownLog,
        CheckpointError::Note(_) | CheckpointError::Malformed => Refusal::Malformed,
    })?;
    if request.old > size {
        return Err(Refusal::OldTooLarge);
    }
    let last = known.copied().unwrap_or(Known { size: 0, root: EMPTY_ROOT });
    if request.old != last.size {
        return Err(Refusal::Conflict { size: last.size });
    }
    // A tree without leaves has one root only. The rule does not follow from consistency: anything continues nothing.
    if size == 0 && root != EMPTY_ROOT {
        return Err(Refusal::Inconsistent);
    }
    verify_consistency(last.size, &last.root, size, &root, &request.proof).map_err(|_| Refusal::Inconsistent)?;
    Ok((Known { size, root }, note))
}

impl fmt::Display for AddCheckpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "old {}", self.old)?;
        self.proof.iter().try_for_each(|hash| writeln!(f, "{}", hash.base64()))?;
        write!(f, "\n{}", self.checkpoint)
    }
}

impl FromStr for AddCheckpoint {
    type Err = RequestError;

    fn from_str(body: &str) -> Result<Self, RequestError> {
        let (head, checkpoint) =
            body.split_once("\n\n").filter(|_| body.len() <= ADD_CHECKPOINT_BYTES_MAX).ok_or(RequestError)?;
        let mut lines = head.split('\n');
        let old = lines.next().and_then(|line| line.strip_prefix("old ")).and_then(decimal).ok_or(RequestError)?;
        let proof: Option<Vec<_>> = lines.take(CONSISTENCY_HASHES_MAX + 1).map(Digest::from_base64).collect();
        let proof = proof.filter(|proof| proof.len() <= CONSISTENCY_HASHES_MAX).ok_or(RequestError)?;
        Ok(Self { old, proof, checkpoint: checkpoint.to_owned() })
    }
}
