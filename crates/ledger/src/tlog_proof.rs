//! A proof that one entry is in the log, in one piece of text: C2SP tlog-proof.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use model::Digest;

use crate::checkpoint::{Checkpoint, CheckpointError};
use crate::note::{NOTE_BYTES_MAX, VerifierKey};
use crate::proof::{ProofError, verify_inclusion};

/// The extra data of a proof is at most this long, in bytes: other programs read lines shorter than 64 KiB, and this is
/// a line of 64,006 characters.
pub const EXTRA_BYTES_MAX: usize = 48_000;
/// A proof is at most this long, in bytes.
pub const TLOG_PROOF_BYTES_MAX: usize = NOTE_BYTES_MAX + 2 * EXTRA_BYTES_MAX;
/// No tree has a longer proof.
const HASHES_MAX: usize = 64;
const FIRST_LINE: &str = "c2sp.org/tlog-proof@v1";

/// The proof that an entry is in the log that a checkpoint is about. The entry itself is not in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlogProof {
    /// The entry's index.
    pub index: u64,
    /// The hashes, the leaf's sibling first.
    pub hashes: Vec<Digest>,
    /// The signed note of the checkpoint, with its cosignatures.
    pub checkpoint: String,
    /// More data, which nothing proves. Never empty: a proof that is read has then none, and one that is written says
    /// none.
    pub extra: Option<Vec<u8>>,
}

/// What is wrong with a proof.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TlogProofError {
    /// Its form.
    #[error(
        "this is no proof: it begins with the line {FIRST_LINE}, then come index, hashes, an empty line, a checkpoint"
    )]
    Malformed,
    /// Its checkpoint.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// Its hashes.
    #[error(transparent)]
    Proof(#[from] ProofError),
}

impl TlogProof {
    /// Verifies that the leaf with this hash is in the log of this key, and gives the checkpoint that says so.
    ///
    /// # Errors
    /// It is not proven.
    pub fn verify(&self, leaf: &Digest, key: &VerifierKey) -> Result<Checkpoint, TlogProofError> {
        let checkpoint = Checkpoint::open(&self.checkpoint, key)?;
        verify_inclusion(leaf, self.index, checkpoint.size, &self.hashes, &checkpoint.root)?;
        Ok(checkpoint)
    }
}

impl fmt::Display for TlogProof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{FIRST_LINE}")?;
        if let Some(extra) = self.extra.as_ref().filter(|extra| !extra.is_empty()) {
            writeln!(f, "extra {}", STANDARD.encode(extra))?;
        }
        writeln!(f, "index {}", self.index)?;
        self.hashes.iter().try_for_each(|hash| writeln!(f, "{}", hash.base64()))?;
        write!(f, "\n{}", self.checkpoint)
    }
}

impl FromStr for TlogProof {
    type Err = TlogProofError;

    fn from_str(text: &str) -> Result<Self, TlogProofError> {
        let bad = TlogProofError::Malformed;
        let (head, checkpoint) = text.split_once("\n\n").filter(|_| text.len() <= TLOG_PROOF_BYTES_MAX).ok_or(bad)?;
        let mut lines = head.split('\n').peekable();
        if lines.next() != Some(FIRST_LINE) {
            return Err(bad);
        }
        let extra = match lines.peek().and_then(|line| line.strip_prefix("extra ")) {
            Some(extra) => {
                lines.next();
                let extra = STANDARD.decode(extra).ok();
                Some(extra.filter(|extra| (1..=EXTRA_BYTES_MAX).contains(&extra.len())).ok_or(bad)?)
            }
            None => None,
        };
        let index = lines.next().and_then(|line| line.strip_prefix("index ")).and_then(decimal).ok_or(bad)?;
        let hashes: Option<Vec<_>> = lines.take(HASHES_MAX + 1).map(Digest::from_base64).collect();
        let hashes = hashes.filter(|hashes| hashes.len() <= HASHES_MAX).ok_or(bad)?;
        Ok(Self { index, hashes, checkpoint: checkpoint.to_owned(), extra })
    }
}

/// An ASCII decimal without leading zeros, below 2^63: other programs keep sizes and indexes in signed integers.
pub(crate) fn decimal(text: &str) -> Option<u64> {
    let canonical = text == "0" || (!text.starts_with('0') && text.bytes().all(|b| b.is_ascii_digit()));
    let number: i64 = text.parse().ok().filter(|_| canonical)?;
    u64::try_from(number).ok()
}
