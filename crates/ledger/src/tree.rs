//! The hashes of RFC 6962, section 2.1.

use model::Digest;
use sha2::{Digest as _, Sha256};

/// The root of a tree without leaves: SHA-256 of nothing.
pub const EMPTY_ROOT: Digest = Digest([
    0xe3, 0xb0, 0xc4, 0x42, 0x98, 0xfc, 0x1c, 0x14, 0x9a, 0xfb, 0xf4, 0xc8, 0x99, 0x6f, 0xb9, 0x24, 0x27, 0xae, 0x41,
    0xe4, 0x64, 0x9b, 0x93, 0x4c, 0xa4, 0x95, 0x99, 0x1b, 0x78, 0x52, 0xb8, 0x55,
]);

/// The hash of a leaf: `SHA-256(0x00 || leaf)`.
#[must_use]
pub fn leaf_hash(leaf: &[u8]) -> Digest {
    let mut hash = Sha256::new();
    hash.update([0]);
    hash.update(leaf);
    Digest(hash.finalize().into())
}

/// The hash of an inner node: `SHA-256(0x01 || left || right)`.
#[must_use]
pub fn node_hash(left: &Digest, right: &Digest) -> Digest {
    let mut bytes = [1u8; 65];
    if let Some((_, halves)) = bytes.split_first_chunk_mut::<1>() {
        let (to_left, to_right) = halves.split_at_mut(32);
        to_left.copy_from_slice(&left.0);
        to_right.copy_from_slice(&right.0);
    }
    Digest(Sha256::digest(bytes).into())
}

/// The root over these leaf hashes.
#[must_use]
pub fn root(leaves: &[Digest]) -> Digest {
    match leaves {
        [] => EMPTY_ROOT,
        [leaf] => *leaf,
        _ => {
            let (left, right) = leaves.split_at(split(leaves.len()));
            node_hash(&root(left), &root(right))
        }
    }
}

/// The largest power of two below `size`, which is at least 2.
pub(crate) fn split(size: usize) -> usize {
    1 << (usize::BITS - 1 - (size - 1).leading_zeros())
}
