//! The mathematics of the record: the Merkle tree of RFC 6962, its proofs, signed notes and checkpoints (C2SP
//! signed-note and tlog-checkpoint), and nothing else.
//!
//! Pure, so that the same code verifies in the gateway, on the command line and in a browser: no files, no clock, no
//! randomness. Not for: finding the bytes of entries, or deciding what a valid entry says.
//!
//! The invariant kept here: nothing is accepted that another implementation of the same specifications would refuse.

mod checkpoint;
mod frontier;
mod note;
mod proof;
mod tree;

pub use checkpoint::{Checkpoint, CheckpointError};
pub use frontier::{FRONTIER_BYTES_MAX, Frontier, FrontierError};
pub use note::{NOTE_BYTES_MAX, Note, NoteError, SIGNATURES_MAX, SigningKey, VerifierKey};
pub use proof::{ProofError, consistency_proof, inclusion_proof, verify_consistency, verify_inclusion};
pub use tree::{EMPTY_ROOT, leaf_hash, node_hash, root};
