//! One proof that many leaves are in one tree, with every shared hash in it once.
//!
//! The proof is the list of hashes that a walk down the tree (as RFC 6962, section 2.1, splits it) cannot compute from
//! the proven leaves: at each subtree, left before right, either no proven leaf is in it, and its hash is the next one of
//! the proof; or it is a proven leaf; or the walk goes on into both halves. `docs/format.md` has it for others.
//!
//! Invariant: a proof is accepted only if all its hashes were used, so that there is one proof for a set of leaves.

use model::Digest;

use crate::proof::ProofError;
use crate::tile::{Nodes, range, split};
use crate::tree::node_hash;

/// The proof that the leaves at these indexes, ascending, are in the tree of the first `size` leaves.
///
/// # Errors
/// A hash could not be had.
pub fn prove_leaves<N: Nodes>(nodes: &mut N, indexes: &[u64], size: u64) -> Result<Vec<Digest>, N::Error> {
    let mut proof = Vec::new();
    // Subtrees still to be looked at, the leftmost on top, each with the proven leaves in it.
    let mut rest = vec![(0, size, indexes)];
    while let Some((begin, end, inside)) = rest.pop() {
        if begin >= end {
            continue;
        }
        if inside.is_empty() {
            proof.push(range(nodes, begin, end)?);
        } else if end - begin > 1 {
            let middle = begin + split(end - begin);
            let (left, right) = inside.split_at(inside.partition_point(|index| *index < middle));
            rest.push((middle, end, right));
            rest.push((begin, middle, left));
        }
    }
    Ok(proof)
}

/// Verifies that leaves with these hashes are at these indexes, ascending, in the tree of this size and root.
///
/// # Errors
/// It is not proven.
pub fn verify_leaves(leaves: &[(u64, Digest)], size: u64, proof: &[Digest], root: &Digest) -> Result<(), ProofError> {
    let ascending = leaves.is_sorted_by(|(before, _), (after, _)| before < after);
    if !ascending || leaves.is_empty() || leaves.last().is_some_and(|(index, _)| *index >= size) {
        return Err(ProofError::Range);
    }
    let mut rest = proof.iter();
    let found = subtree(leaves, 0, size, &mut rest).ok_or(ProofError::Length)?;
    if rest.next().is_some() {
        return Err(ProofError::Length);
    }
    if found == *root { Ok(()) } else { Err(ProofError::Root) }
}

/// The hash of a subtree. It halves at each step, so that this goes at most 64 levels deep.
fn subtree<'a>(
    inside: &[(u64, Digest)],
    begin: u64,
    end: u64,
    proof: &mut impl Iterator<Item = &'a Digest>,
) -> Option<Digest> {
    match inside {
        [] => proof.next().copied(),
        [(_, leaf)] if end - begin == 1 => Some(*leaf),
        _ => {
            let middle = begin + split(end - begin);
            let (left, right) = inside.split_at(inside.partition_point(|(index, _)| *index < middle));
            let left = subtree(left, begin, middle, proof)?;
            let right = subtree(right, middle, end, proof)?;
            Some(node_hash(&left, &right))
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::cast_possible_truncation)]
    use std::convert::Infallible;

    use proptest::prelude::*;

    use super::*;
    use crate::{inclusion_proof, leaf_hash, root};

    struct Leaves(Vec<Digest>);

    impl Nodes for Leaves {
        type Error = Infallible;

        fn node(&mut self, level: u8, index: u64) -> Result<Digest, Infallible> {
            let first = (index as usize) << level;
            Ok(root(&self.0[first..first + (1 << level)]))
        }
    }

    fn leaves(size: usize) -> Leaves {
        Leaves((0..size).map(|n| leaf_hash(&n.to_be_bytes())).collect())
    }

    #[test]
    fn a_proof_of_one_leaf_is_its_audit_path_in_the_order_of_the_walk() {
        let mut tree = leaves(7);
        let mut path = inclusion_proof(&tree.0, 6).unwrap();
        path.reverse();
        assert_eq!(prove_leaves(&mut tree, &[6], 7).unwrap(), path);
        assert!(prove_leaves(&mut tree, &[0, 1, 2, 3, 4, 5, 6], 7).unwrap().is_empty());
    }

    proptest! {
        #[test]
        fn any_subset_is_proven_and_nothing_else(
            size in 1usize..300,
            picks in prop::collection::btree_set(0usize..300, 1..40),
            spoil in any::<prop::sample::Index>(),
            bit in 0u8..8,
        ) {
            let mut tree = leaves(size);
            let top = root(&tree.0);
            let indexes: Vec<u64> = picks.into_iter().filter(|n| *n < size).map(|n| n as u64).collect();
            prop_assume!(!indexes.is_empty());
            let proof = prove_leaves(&mut tree, &indexes, size as u64).unwrap();
            let proven: Vec<_> = indexes.iter().map(|index| (*index, tree.0[*index as usize])).collect();
            prop_assert_eq!(verify_leaves(&proven, size as u64, &proof, &top), Ok(()));

            let mut longer = proof.clone();
            longer.push(top);
            prop_assert_eq!(verify_leaves(&proven, size as u64, &longer, &top), Err(ProofError::Length));
            if let Some((_, shorter)) = proof.split_last() {
                prop_assert_eq!(verify_leaves(&proven, size as u64, shorter, &top), Err(ProofError::Length));
                let mut other = proof.clone();
                let at = spoil.index(other.len());
                other[at].0[3] ^= 1 << bit;
                prop_assert_eq!(verify_leaves(&proven, size as u64, &other, &top), Err(ProofError::Root));
            }
            let mut other = proven.clone();
            let at = spoil.index(other.len());
            other[at].1.0[3] ^= 1 << bit;
            prop_assert_eq!(verify_leaves(&other, size as u64, &proof, &top), Err(ProofError::Root));
            // Twice the same leaf, and one beyond the end.
            let twice = [proven[0], proven[0]];
            prop_assert_eq!(verify_leaves(&twice, size as u64, &proof, &top), Err(ProofError::Range));
            let beyond = [(size as u64, proven[0].1)];
            prop_assert_eq!(verify_leaves(&beyond, size as u64, &proof, &top), Err(ProofError::Range));
        }
    }
}
