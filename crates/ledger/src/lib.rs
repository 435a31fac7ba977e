//! The mathematics of the record: the Merkle tree of RFC 6962, its proofs, signed notes and checkpoints (C2SP
//! signed-note and tlog-checkpoint), and nothing else.
//!
//! Pure, so that the same code verifies in the gateway, on the command line and in a browser: no files, no clock, no
//! randomness. Not for: finding the bytes of entries, or deciding what a valid entry says.
//!
//! The invariant kept here: nothing is accepted that another implementation of the same specifications would refuse.

pub mod audit;
mod checkpoint;
mod cosignature;
mod frontier;
#[doc(hidden)]
pub mod fuzz;
mod multiproof;
mod note;
pub mod passkey;
mod policy;
mod proof;
mod tile;
mod tlog_proof;
mod tree;
mod witness;

pub use checkpoint::{Checkpoint, CheckpointError};
pub use cosignature::{CosignerKey, CosignerVerifier};
pub use frontier::{FRONTIER_BYTES_MAX, Frontier, FrontierError};
pub use multiproof::{prove_leaves, verify_leaves};
pub use note::{NOTE_BYTES_MAX, Note, NoteError, SIGNATURES_MAX, SignatureLine, SignedNote, SigningKey, VerifierKey};
pub use policy::{
    Evaluation, POLICY_BYTES_MAX, POLICY_ITEMS_MAX, PolicyError, PolicyLog, PolicyWitness, Quorum, WitnessPolicy,
};
pub use proof::{ProofError, consistency_proof, inclusion_proof, verify_consistency, verify_inclusion};
pub use tile::{
    BUNDLE_BYTES_MAX, Nodes, TILE_BYTES_MAX, TILE_LEVELS, TILE_WIDTH, Tile, TileError, TileKind, TileNodes,
    bundle_entries, partial_tiles, prove_consistency, prove_inclusion, push_bundle_entry, root_of, tile_hashes, tiles,
};
pub use tlog_proof::{EXTRA_BYTES_MAX, TLOG_PROOF_BYTES_MAX, TlogProof, TlogProofError};
pub use tree::{EMPTY_ROOT, leaf_hash, node_hash, root};
pub use witness::{
    ADD_CHECKPOINT_BYTES_MAX, AddCheckpoint, CONSISTENCY_HASHES_MAX, Known, Refusal, RequestError, consider,
};
