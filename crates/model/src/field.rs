//! Sensitive content of an entry: statement texts, parameters, error messages.
//!
//! It is never in the clear in an entry, and never as a bare hash of something that could be guessed.

use std::sync::Arc;

use crate::closed::closed;
use crate::{BlobForm, Digest, Packing};

closed! {
    /// Why a field has no content.
    AbsentReason {
        /// The command has none, such as a simple query that has no parameters.
        None = "none",
        /// It exists, but the gateway did not see it.
        NotSeen = "not_seen",
    }
}

/// Sensitive content in one of its states. Cheap to clone, so that several entries can name one sealed text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Field {
    /// There is none.
    Absent(AbsentReason),
    /// Encrypted, in the entry itself.
    Sealed(SealedField),
    /// Encrypted, in a blob that is named by its digest.
    Blob(BlobField),
}

/// Content that is encrypted in the entry itself. See [`crate::seal`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SealedField {
    /// The field's number within its session: which key it has.
    pub number: u64,
    /// How many bytes the content has.
    pub length: u64,
    /// Commitment to the field's key: nobody can show another key that opens it.
    pub commitment: Digest,
    /// The ciphertext with its authentication tag.
    pub ciphertext: Arc<[u8]>,
}

/// Content that is encrypted in a blob of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlobField {
    /// The field's number within its session.
    pub number: u64,
    /// How many bytes the content has.
    pub length: u64,
    /// Commitment to the field's key.
    pub commitment: Digest,
    /// SHA-256 of the ciphertext, and the name of the blob's file.
    pub sha256: Digest,
    /// How many bytes the ciphertext has.
    pub bytes: u64,
    /// What the content is.
    pub form: BlobForm,
    /// How the content was packed before it was sealed; none if it was not.
    pub packing: Option<Packing>,
    /// The first bytes of the content, sealed in the entry.
    pub head: SealedField,
}

impl Field {
    /// A field of which the command has none.
    pub const NONE: Self = Self::Absent(AbsentReason::None);

    /// How many bytes the content has, if there is any.
    #[must_use]
    pub fn length(&self) -> Option<u64> {
        match self {
            Self::Absent(_) => None,
            Self::Sealed(sealed) => Some(sealed.length),
            Self::Blob(blob) => Some(blob.length),
        }
    }
}
