//! The right edge of a growing tree: enough to append and to compute the root, in at most 64 hashes.

use model::Digest;

use crate::tile::Nodes;
use crate::tree::{EMPTY_ROOT, node_hash};

/// The most bytes that [`Frontier::to_bytes`] gives.
pub const FRONTIER_BYTES_MAX: usize = 8 + 64 * 32;

/// The roots of the complete subtrees that a tree consists of, largest first: one for each bit of its size.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Frontier {
    size: u64,
    nodes: Vec<Digest>,
}

/// Bytes that are no frontier.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a frontier is its size and one hash for each bit of the size")]
pub struct FrontierError;

impl Frontier {
    /// The frontier of an empty tree.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The frontier of the first `size` leaves of a log, from its inner hashes.
    ///
    /// # Errors
    /// A hash could not be had.
    pub fn of<N: Nodes>(nodes: &mut N, size: u64) -> Result<Self, N::Error> {
        let mut frontier = Self { size, nodes: Vec::new() };
        let mut begin = 0u64;
        for level in (0..64u8).rev().filter(|level| size >> level & 1 == 1) {
            frontier.nodes.push(nodes.node(level, begin >> level)?);
            begin += 1 << level;
        }
        Ok(frontier)
    }

    /// How many leaves the tree has.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Appends a leaf by its hash.
    pub fn append(&mut self, leaf: Digest) {
        let mut node = leaf;
        for _ in 0..self.size.trailing_ones() {
            if let Some(left) = self.nodes.pop() {
                node = node_hash(&left, &node);
            }
        }
        self.nodes.push(node);
        self.size += 1;
    }

    /// The root of the tree.
    #[must_use]
    pub fn root(&self) -> Digest {
        let mut nodes = self.nodes.iter().rev();
        match nodes.next() {
            None => EMPTY_ROOT,
            Some(last) => nodes.fold(*last, |right, left| node_hash(left, &right)),
        }
    }

    /// The size, big-endian, and the hashes.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = self.size.to_be_bytes().to_vec();
        for node in &self.nodes {
            bytes.extend_from_slice(&node.0);
        }
        bytes
    }

    /// Reads what [`Frontier::to_bytes`] gives.
    ///
    /// # Errors
    /// The number of hashes is not the one that belongs to the size.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, FrontierError> {
        let (size, rest) = bytes.split_first_chunk::<8>().ok_or(FrontierError)?;
        let size = u64::from_be_bytes(*size);
        let (nodes, tail) = rest.as_chunks::<32>();
        if !tail.is_empty() || u32::try_from(nodes.len()) != Ok(size.count_ones()) {
            return Err(FrontierError);
        }
        Ok(Self { size, nodes: nodes.iter().copied().map(Digest).collect() })
    }
}
