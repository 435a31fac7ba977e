//! A receipt: the log's signed word that a session is on the record, in one piece of text.
//!
//! It is a C2SP tlog-proof of the session's last entry, whose `extra` is that entry itself. The entry has the counts and
//! the root of the session, so whoever holds the receipt can show that the session was on the record, complete, whatever
//! the log says later.
//!
//! Invariant: a [`Receipt`] has the form of one; nothing in it is believed before [`Receipt::check`].

use std::fmt;
use std::str::FromStr;

use ledger::{Checkpoint, NoteError, SignedNote, TLOG_PROOF_BYTES_MAX, TlogProof, TlogProofError, VerifierKey};
use model::{Body, Entry, SessionClose, SessionId, Time};

use crate::tiles;

/// A receipt is at most this long, in bytes.
pub const RECEIPT_BYTES_MAX: usize = TLOG_PROOF_BYTES_MAX;

/// A receipt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt {
    proof: TlogProof,
    leaf: Vec<u8>,
    time: Time,
    close: SessionClose,
}

/// What is wrong with a receipt.
#[derive(Debug, thiserror::Error)]
pub enum ReceiptError {
    /// It is no proof, or one that does not prove.
    #[error(transparent)]
    Proof(#[from] TlogProofError),
    /// There is no session's last entry in it.
    #[error("this proof is no receipt: its `extra` is not the last entry of a session")]
    NoClose,
}

impl Receipt {
    /// The receipt of this proof.
    ///
    /// # Errors
    /// Its extra data is not the last entry of a session.
    pub fn new(proof: TlogProof) -> Result<Self, ReceiptError> {
        let leaf = proof.extra.clone().ok_or(ReceiptError::NoClose)?;
        match Entry::decode(&leaf) {
            Ok(Entry { time, body: Body::SessionClose(close) }) => Ok(Self { proof, leaf, time, close }),
            _ => Err(ReceiptError::NoClose),
        }
    }

    /// The session.
    #[must_use]
    pub fn session(&self) -> SessionId {
        self.close.link.session
    }

    /// What its last entry says.
    #[must_use]
    pub fn close(&self) -> &SessionClose {
        &self.close
    }

    /// When that entry was made.
    #[must_use]
    pub fn time(&self) -> Time {
        self.time
    }

    /// That entry's bytes.
    #[must_use]
    pub fn leaf(&self) -> &[u8] {
        &self.leaf
    }

    /// That entry's place in the log.
    #[must_use]
    pub fn index(&self) -> u64 {
        self.proof.index
    }

    /// The checkpoint's note, with its cosignatures.
    ///
    /// # Errors
    /// It has not the form of one.
    pub fn note(&self) -> Result<SignedNote, NoteError> {
        SignedNote::parse(&self.proof.checkpoint)
    }

    /// Verifies that the log with this key has signed for the entry at its place, and gives the checkpoint that says so.
    ///
    /// # Errors
    /// It is not proven.
    pub fn check(&self, key: &VerifierKey) -> Result<Checkpoint, ReceiptError> {
        Ok(self.proof.verify(&tiles::hash(&self.leaf), key)?)
    }
}

impl fmt::Display for Receipt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.proof, f)
    }
}

impl FromStr for Receipt {
    type Err = ReceiptError;

    fn from_str(text: &str) -> Result<Self, ReceiptError> {
        Self::new(text.parse()?)
    }
}
