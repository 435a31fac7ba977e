//! Our tree and notes against other people's.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::cast_possible_truncation)]

use ct_merkle::mem_backed_tree::MemoryBackedTree;
use ledger::{
    Checkpoint, Frontier, NoteError, SigningKey, VerifierKey, consistency_proof, inclusion_proof, leaf_hash, root,
    verify_consistency, verify_inclusion,
};
use model::Digest;
use proptest::prelude::*;
use sha2::Sha256;
use signed_note::{Note as TheirNote, StandardVerifier, VerifierList};

fn leaves(count: usize) -> Vec<Vec<u8>> {
    (0..count).map(|i| format!("entry {i}").into_bytes()).collect()
}

fn hashes(leaves: &[Vec<u8>]) -> Vec<Digest> {
    leaves.iter().map(|leaf| leaf_hash(leaf)).collect()
}

#[test]
fn roots_and_proofs_equal_ct_merkle() {
    for count in 1..70usize {
        let leaves = leaves(count);
        let ours = hashes(&leaves);
        let mut theirs = MemoryBackedTree::<Sha256, Vec<u8>>::new();
        let mut frontier = Frontier::new();
        for (leaf, hash) in leaves.iter().zip(&ours) {
            theirs.push(leaf.clone());
            frontier.append(*hash);
        }
        let their_root = theirs.root();
        assert_eq!(root(&ours).0[..], their_root.as_bytes()[..]);
        assert_eq!(frontier.root(), root(&ours));
        assert_eq!(Frontier::from_bytes(&frontier.to_bytes()).unwrap(), frontier);
        for index in 0..count {
            let proof = inclusion_proof(&ours, index).unwrap();
            let theirs = theirs.prove_inclusion(index);
            assert_eq!(proof.iter().flat_map(|d| d.0).collect::<Vec<_>>(), theirs.as_bytes());
            verify_inclusion(&ours[index], index as u64, count as u64, &proof, &root(&ours)).unwrap();
        }
        for old in 1..count {
            let proof = consistency_proof(&ours, old).unwrap();
            let theirs = theirs.prove_consistency(count - old);
            assert_eq!(proof.iter().flat_map(|d| d.0).collect::<Vec<_>>(), theirs.as_bytes());
        }
    }
}

#[test]
fn consistency_holds_for_every_pair_of_sizes() {
    let all = hashes(&leaves(65));
    for new in 0..all.len() {
        for old in 0..=new {
            let proof = consistency_proof(&all[..new], old).unwrap();
            let (a, b) = (root(&all[..old]), root(&all[..new]));
            verify_consistency(old as u64, &a, new as u64, &b, &proof).unwrap();
            if old != 0 && old != new {
                assert!(verify_consistency(old as u64, &b, new as u64, &b, &proof).is_err());
                assert!(verify_consistency(old as u64, &a, new as u64, &a, &proof).is_err());
            }
        }
    }
}

proptest! {
    #[test]
    fn a_changed_proof_proves_nothing(count in 2..200usize, index in any::<usize>(), flip in any::<usize>(), how in 0..3) {
        let index = index % count;
        let all = hashes(&leaves(count));
        let mut proof = inclusion_proof(&all, index).unwrap();
        let at = flip % proof.len();
        match how {
            0 => proof[at].0[flip % 32] ^= 1,
            1 => { proof.remove(at); }
            _ => proof.insert(at, all[0]),
        }
        prop_assert!(verify_inclusion(&all[index], index as u64, count as u64, &proof, &root(&all)).is_err());
    }

    #[test]
    fn notes_verify_with_signed_note(seed in any::<[u8; 32]>(), size in 0..=u64::MAX >> 1, hash in any::<[u8; 32]>()) {
        let key = SigningKey::new("gateway.example.com/1", &seed).unwrap();
        let checkpoint = Checkpoint { origin: "gateway.example.com/1".into(), size, root: Digest(hash) };
        let note = checkpoint.sign(&key).unwrap();
        let vkey = key.verifier().to_string();

        let verifier = StandardVerifier::new(&vkey).unwrap();
        let theirs = TheirNote::from_bytes(note.as_bytes()).unwrap();
        let (good, unknown) = theirs.verify(&VerifierList::new(vec![Box::new(verifier)])).unwrap();
        prop_assert_eq!((good.len(), unknown.len()), (1, 0));

        let ours: VerifierKey = vkey.parse().unwrap();
        prop_assert_eq!(Checkpoint::open(&note, &ours).unwrap(), checkpoint);
        prop_assert_eq!(SigningKey::from_text(&key.to_text()).unwrap().to_text(), key.to_text());
    }

    #[test]
    fn a_changed_note_is_refused(at in any::<usize>(), byte in any::<u8>()) {
        let key = SigningKey::new("a.example/log", &[7; 32]).unwrap();
        let note = Checkpoint { origin: "a.example/log".into(), size: 5, root: Digest([3; 32]) }.sign(&key).unwrap();
        let mut changed = note.clone().into_bytes();
        let at = at % changed.len();
        prop_assume!(changed[at] != byte);
        changed[at] = byte;
        if let Ok(changed) = String::from_utf8(changed) {
            prop_assert!(key.verifier().open(&changed).is_err());
        }
    }

    #[test]
    fn hostile_notes_do_not_panic(text in ".{0,300}") {
        let key = SigningKey::new("a.example/log", &[7; 32]).unwrap().verifier();
        let _ = key.open(&text);
        let _ = text.parse::<VerifierKey>();
        let _ = SigningKey::from_text(&text);
    }
}

#[test]
fn the_specification_s_example_verifies() {
    // C2SP signed-note, from golang.org/x/mod/sumdb/note.
    let key: VerifierKey = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW".parse().unwrap();
    let note = "If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n\n\
        \u{2014} PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n";
    assert!(key.open(note).is_ok());
    assert_eq!(key.open(&note.replace("think", "thank")), Err(NoteError::BadSignature));
    let other = SigningKey::new("PeterNeumann", &[1; 32]).unwrap().verifier();
    assert_eq!(other.open(note), Err(NoteError::NotSigned));
}
