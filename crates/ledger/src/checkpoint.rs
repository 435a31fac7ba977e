//! What a log commits to: C2SP tlog-checkpoint.

use model::Digest;

use crate::note::{NoteError, SigningKey, VerifierKey};
use crate::tlog_proof::decimal;

/// A log's size and root, under its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// The log's name.
    pub origin: String,
    /// How many entries it has.
    pub size: u64,
    /// The root of its tree.
    pub root: Digest,
}

/// What is wrong with a checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CheckpointError {
    /// The note around it.
    #[error(transparent)]
    Note(#[from] NoteError),
    /// Its text.
    #[error("a checkpoint has three lines: the log's name, its size and its root in base64")]
    Malformed,
    /// It belongs to another log.
    #[error("the checkpoint belongs to another log than its key")]
    Origin,
}

impl Checkpoint {
    /// The three lines.
    #[must_use]
    pub fn text(&self) -> String {
        format!("{}\n{}\n{}\n", self.origin, self.size, self.root.base64())
    }

    /// The signed note.
    ///
    /// # Errors
    /// The key, the origin or the size cannot be that of a checkpoint.
    pub fn sign(&self, key: &SigningKey) -> Result<String, CheckpointError> {
        if self.origin != key.verifier().name() {
            return Err(CheckpointError::Origin);
        }
        if i64::try_from(self.size).is_err() {
            return Err(CheckpointError::Malformed);
        }
        Ok(key.sign(&self.text())?)
    }

    /// Verifies a signed note and reads the checkpoint in it.
    ///
    /// # Errors
    /// The note is not rightly signed by the key, or it is no checkpoint of the log that the key belongs to.
    pub fn open(note: &str, key: &VerifierKey) -> Result<Self, CheckpointError> {
        Self::of_text(key.open(note)?.text(), key)
    }

    /// Reads the checkpoint in a text that was verified.
    pub(crate) fn of_text(text: &str, key: &VerifierKey) -> Result<Self, CheckpointError> {
        let checkpoint = Self::read(text)?;
        if checkpoint.origin == key.name() { Ok(checkpoint) } else { Err(CheckpointError::Origin) }
    }

    /// Reads a text by its form, of whatever log: at least three lines, none of them empty.
    pub(crate) fn read(text: &str) -> Result<Self, CheckpointError> {
        let bad = CheckpointError::Malformed;
        let mut lines = text.strip_suffix('\n').ok_or(bad)?.split('\n');
        let origin = lines.next().filter(|origin| !origin.is_empty()).ok_or(bad)?;
        let size = lines.next().and_then(decimal).ok_or(bad)?;
        let root = lines.next().and_then(Digest::from_base64).ok_or(bad)?;
        // What follows are extensions, which this version does not know and does not mind.
        if lines.any(str::is_empty) {
            return Err(bad);
        }
        Ok(Self { origin: origin.to_owned(), size, root })
    }
}
