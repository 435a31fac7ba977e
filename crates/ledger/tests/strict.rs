//! What the specifications demand to refuse or to accept, beyond round trips; and proofs in trees too large to build.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ledger::*;
use model::Digest;
use proptest::prelude::*;

const ORIGIN: &str = "log.example.com/1";

fn key() -> SigningKey {
    SigningKey::new(ORIGIN, &[1; 32]).unwrap()
}

fn cosigner(seed: u8) -> CosignerKey {
    CosignerKey::new(&format!("witness.example.com/{seed}"), &[seed; 32]).unwrap()
}

fn checkpoint(size: u64, root: Digest) -> String {
    Checkpoint { origin: ORIGIN.into(), size, root }.sign(&key()).unwrap()
}

#[test]
fn checkpoints_have_the_form_that_all_readers_take() {
    let root = leaf_hash(b"x").base64();
    let open = |text: &str| Checkpoint::open(&key().sign(text).unwrap(), &key().verifier());
    for good in [
        format!("{ORIGIN}\n1\n{root}\n"),
        format!("{ORIGIN}\n1\n{root}\nextension\n another one\n"),
        format!("{ORIGIN}\n9223372036854775807\n{root}\n"),
    ] {
        assert!(open(&good).is_ok(), "{good}");
    }
    for bad in [
        format!("{ORIGIN}\n1\n"),
        format!("{ORIGIN}\n1\n{root}\n\n"),
        format!("{ORIGIN}\n1\n{root}\n\nextension\n"),
        format!("{ORIGIN}\n1\n\n{root}\n"),
        format!("{ORIGIN}\n01\n{root}\n"),
        format!("{ORIGIN}\n+1\n{root}\n"),
        format!("{ORIGIN}\n-1\n{root}\n"),
        format!("{ORIGIN}\n1 \n{root}\n"),
        format!("{ORIGIN}\n\u{661}\n{root}\n"),
        format!("{ORIGIN}\n9223372036854775808\n{root}\n"),
        format!("{ORIGIN}\n18446744073709551616\n{root}\n"),
        format!("{ORIGIN}\n1\n{}\n", &root[..43]),
        format!("{ORIGIN}\n1\n{root} \n"),
        format!("{ORIGIN}\n1\n{}\n", STANDARD.encode([0; 31])),
        // The last character has bits that stand for nothing, and they are not zero.
        format!("{ORIGIN}\n1\n{}B=\n", "A".repeat(42)),
    ] {
        assert_eq!(open(&bad), Err(CheckpointError::Malformed), "{bad}");
    }
    assert_eq!(open(&format!("other.example.com/1\n1\n{root}\n")), Err(CheckpointError::Origin));
    let large = Checkpoint { origin: ORIGIN.into(), size: 1 << 63, root: EMPTY_ROOT };
    assert_eq!(large.sign(&key()), Err(CheckpointError::Malformed));
}

#[test]
fn notes_take_what_the_specification_lets_pass_and_nothing_else() {
    let note = checkpoint(1, leaf_hash(b"x"));
    let (line, verifier) = (note.lines().last().unwrap().to_owned(), key().verifier());
    let with = |more: &str| verifier.open(&format!("{note}{more}"));
    // Sixteen signatures, the others by unknown keys of the largest kind that the specification speaks of.
    let large = STANDARD.encode([7; 4 + 5_000]);
    let many: String = (0..15).map(|i| format!("\u{2014} post.quantum.example.com/{i} {large}\n")).collect();
    assert!(with(&many).is_ok());
    // Another key of the same name; another name with the same id; an odd name; a one-byte signature.
    let id = &STANDARD.decode(line.rsplit(' ').next().unwrap()).unwrap()[..4];
    for more in [
        format!("\u{2014} {ORIGIN} AAAAAAA=\n"),
        format!("\u{2014} other {}\n", STANDARD.encode([id, &[0; 64]].concat())),
        "\u{2014} \u{7f}\u{81}\u{2014} AAAAAAA=\n".to_owned(),
    ] {
        assert!(with(&more).is_ok(), "{more}");
    }
    for more in [
        "\n",
        "\u{2014} a+b AAAAAAA=\n",
        "\u{2014} a\u{a0}b AAAAAAA=\n",
        "\u{2014} a\u{85}b AAAAAAA=\n",
        "\u{2014} a\tb AAAAAAA=\n",
        "\u{2014} a\u{1}b AAAAAAA=\n",
        "\u{2014}  AAAAAAA=\n",
        "\u{2014} a AAAAAA==\n",
        "\u{2014} a AAAAAAA\n",
        "\u{2014} a AAAAAAB=\n",
        "\u{2014} a AAAA\rAAA=\n",
        "\u{2014} a AAAAAAA= \n",
        "- a AAAAAAA=\n",
        "\u{2014} a AAAAAAA=",
        "\u{2014} a AAAAAAA=\r\n",
    ] {
        assert_eq!(with(more), Err(NoteError::Malformed), "{more:?}");
    }
    let stranger = "\u{2014} a AAAAAAA=\n";
    assert!(with(&stranger.repeat(SIGNATURES_MAX - 1)).is_ok());
    assert_eq!(with(&stranger.repeat(SIGNATURES_MAX)), Err(NoteError::Malformed));
    // One right signature does not make up for a wrong one by the same key.
    let wrong = format!("\u{2014} {ORIGIN} {}\n", STANDARD.encode([id, &[0; 64]].concat()));
    assert_eq!(with(&wrong), Err(NoteError::BadSignature));
}

#[test]
fn cosignatures_are_on_checkpoints_only() {
    let witness = cosigner(2);
    for text in ["", "text\n", "a\n1\nxx\n", "a\n1\n", &format!("a\n1\n{}", EMPTY_ROOT.base64())] {
        assert_eq!(witness.cosign(text, 1), Err(NoteError::Malformed), "{text:?}");
    }
    // Extension lines are cosigned with the rest.
    let extended = format!("{ORIGIN}\n1\n{}\nextension\n", leaf_hash(b"x").base64());
    let mut note = SignedNote::parse(&key().sign(&extended).unwrap()).unwrap();
    note.add(witness.cosign(note.text(), 1).unwrap());
    assert_eq!(witness.verifier().verify(&note), Ok(1));
    let line = note.signatures()[1].clone();
    let mut without = SignedNote::parse(&checkpoint(1, leaf_hash(b"x"))).unwrap();
    without.add(line);
    assert_eq!(witness.verifier().verify(&without), Err(NoteError::BadSignature));
}

/// The signed text and its encoding, put together by hand from C2SP tlog-cosignature.
#[test]
fn a_cosignature_is_over_the_text_that_the_specification_says() {
    use ed25519_dalek::Signer as _;
    let text = "example.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n";
    let line = cosigner(9).cosign(text, 1_679_315_147).unwrap();
    let signed = format!("cosignature/v1\ntime 1679315147\n{text}");
    let signature = ed25519_dalek::SigningKey::from_bytes(&[9; 32]).sign(signed.as_bytes()).to_bytes();
    assert_eq!(line.signature, [&[0, 0, 0, 0, 0x64, 0x18, 0x50, 0xcb][..], &signature].concat());
    assert_eq!((line.name.as_str(), line.id), ("witness.example.com/9", cosigner(9).verifier().id()));
}

#[test]
fn proofs_in_one_piece_have_one_spelling() {
    let leaves = [leaf_hash(b"a"), leaf_hash(b"b")];
    let good = TlogProof {
        index: 1,
        hashes: vec![leaves[0]],
        checkpoint: checkpoint(2, root(&leaves)),
        extra: Some(vec![7; EXTRA_BYTES_MAX]),
    };
    let text = good.to_string();
    assert_eq!(text.parse::<TlogProof>().as_ref(), Ok(&good));
    assert!(text.lines().all(|line| line.len() < 64 * 1024 - 1), "Go's line scanner reads it");
    // No extra data is written as no line, and only so.
    let none = TlogProof { extra: Some(Vec::new()), ..good.clone() }.to_string();
    assert_eq!(none.parse(), Ok(TlogProof { extra: None, ..good.clone() }));
    let long = TlogProof { extra: Some(vec![7; EXTRA_BYTES_MAX + 1]), ..good.clone() }.to_string();
    for bad in [
        none.replace("\nindex", "\nextra \nindex"),
        none.replace("\nindex", "\nextra YQ\nindex"),
        none.replace("\nindex", "\nextra YQ==\nextra YQ==\nindex"),
        none.replace("index 1", "index 01"),
        none.replace("index 1", "index -1"),
        none.replace("index 1", "index 9223372036854775808"),
        none.replace("index 1", "index 1 "),
        none.replace("index 1\n", ""),
        none.replace("proof@v1", "proof@v2"),
        none.replace('\n', "\r\n"),
        long,
    ] {
        assert_eq!(bad.parse::<TlogProof>(), Err(TlogProofError::Malformed));
    }
    // 63 hashes are as many as a tree of less than 2^63 leaves needs.
    let deep = TlogProof { hashes: vec![leaves[0]; 63], ..good };
    assert_eq!(deep.to_string().parse(), Ok(deep));
}

#[test]
fn a_witness_asks_for_the_one_root_of_nothing() {
    let ask = |known: Option<Known>, old, size, root, proof| {
        let request = AddCheckpoint { old, proof, checkpoint: checkpoint(size, root) };
        let request: AddCheckpoint = request.to_string().parse().unwrap();
        consider(known.as_ref(), &request, &key().verifier()).map(|(known, _)| known)
    };
    let (one, other) = (leaf_hash(b"one"), leaf_hash(b"other"));
    let nothing = Known { size: 0, root: EMPTY_ROOT };
    assert_eq!(ask(None, 0, 0, EMPTY_ROOT, vec![]), Ok(nothing));
    assert_eq!(ask(Some(nothing), 0, 1, one, vec![]), Ok(Known { size: 1, root: one }));
    assert_eq!(ask(None, 0, 0, one, vec![]), Err(Refusal::Inconsistent));
    assert_eq!(ask(Some(nothing), 0, 0, one, vec![]), Err(Refusal::Inconsistent));
    // Another root of the size that was named rightly is no conflict: asking again would not help.
    let known = Some(Known { size: 1, root: one });
    assert_eq!(ask(known, 1, 1, other, vec![]), Err(Refusal::Inconsistent));
    assert_eq!(ask(known, 1, 1, one, vec![one]), Err(Refusal::Inconsistent));
    assert_eq!(ask(known, 0, 1, other, vec![]), Err(Refusal::Conflict { size: 1 }));
    // Signed by the right key, but under another log's name.
    let text = format!("other.example.com/1\n1\n{}\n", one.base64());
    let request = AddCheckpoint { old: 0, proof: vec![], checkpoint: key().sign(&text).unwrap() };
    assert_eq!(consider(None, &request, &key().verifier()).unwrap_err(), Refusal::UnknownLog);
    let most = AddCheckpoint { old: 1, proof: vec![one; 63], checkpoint: checkpoint(2, one) };
    assert_eq!(most.to_string().parse(), Ok(most));
}

/// The public key text of any type.
fn vkey(name: &str, key_type: u8, key: &[u8]) -> String {
    use sha2::{Digest as _, Sha256};
    let hash = Sha256::digest([name.as_bytes(), b"\n", &[key_type], key].concat());
    let id = u32::from_be_bytes(hash[..4].try_into().unwrap());
    format!("{name}+{id:08x}+{}", STANDARD.encode([&[key_type], key].concat()))
}

#[test]
fn a_policy_may_name_keys_that_cannot_be_verified_and_they_never_count() {
    let (log, w) = (key().verifier(), cosigner(2));
    let post_quantum = vkey("pq.example.com", 0x06, &[5; 1312]);
    let later = vkey("later.example.com", 0x77, &[6; 40]);
    let text = format!(
        "log {log}\nlog {}\nwitness A {}\nwitness B {post_quantum} https://b.example.com\nwitness C {later}\n",
        vkey("log.example.com/pq", 0x06, &[8; 1312]),
        w.verifier(),
    );
    let policy = |end: &str| format!("{text}{end}").parse::<WitnessPolicy>().unwrap();
    let mut note = SignedNote::parse(&checkpoint(1, leaf_hash(b"x"))).unwrap();
    note.add(w.cosign(note.text(), 7).unwrap());
    // Whatever they have put under the note.
    for key in [&post_quantum, &later] {
        let mut parts = key.split('+');
        let (name, id) = (parts.next().unwrap().to_owned(), u32::from_str_radix(parts.next().unwrap(), 16).unwrap());
        note.add(SignatureLine { name, id, signature: vec![0; 72] });
    }
    for (end, quorum) in [
        ("group G any A B C\nquorum G\n", Quorum::Reached),
        ("quorum A\n", Quorum::Reached),
        ("quorum B\n", Quorum::NotReached),
        ("group G 2 A B C\nquorum G\n", Quorum::NotReached),
        ("group G all B C\nquorum G\n", Quorum::NotReached),
        ("quorum none\n", Quorum::NoneRequired),
    ] {
        let policy = policy(end);
        let found = policy.evaluate(&note);
        assert_eq!((found.quorum, found.cosigned, found.wrong), (quorum, vec![("A".to_owned(), 7)], vec![]), "{end}");
        assert_eq!(policy.unverifiable().collect::<Vec<_>>(), ["B", "C"]);
        assert_eq!(policy.to_string().parse::<WitnessPolicy>().unwrap(), policy);
        assert!(policy.accepts(&log) && !policy.accepts(&SigningKey::new(ORIGIN, &[3; 32]).unwrap().verifier()));
    }
    // A policy whose only log cannot be verified accepts none, rather than any.
    let other_log = format!("log {}\nquorum none\n", vkey("log.example.com/pq", 0x06, &[8; 1312]));
    assert!(!other_log.parse::<WitnessPolicy>().unwrap().accepts(&log));
    assert!("quorum none\n".parse::<WitnessPolicy>().unwrap().accepts(&log));
}

#[test]
fn a_policy_refuses_keys_in_the_wrong_place() {
    let (log, w) = (key().verifier(), cosigner(2).verifier());
    let post_quantum = vkey("pq.example.com", 0x06, &[5; 1312]);
    let renamed = vkey("again.example.com", 0x06, &[5; 1312]);
    let wrong_id = post_quantum.replace(post_quantum.split('+').nth(1).unwrap(), "00000000");
    for (bad, line) in [
        (format!("log {w}\nquorum none\n"), 1),
        (format!("witness W {log}\nquorum W\n"), 1),
        (format!("witness W {}\nquorum W\n", vkey("a", 0x02, &[1; 91])), 1),
        (format!("witness W {}\nquorum W\n", vkey("a", 0x05, &[1; 32])), 1),
        (format!("witness W {}\nquorum W\n", vkey("a", 0x04, &[1; 31])), 1),
        (format!("witness W {}\nquorum W\n", vkey("a", 0x77, &[])), 1),
        (format!("witness W {wrong_id}\nquorum W\n"), 1),
        (format!("witness W {post_quantum}\nwitness V {renamed}\nquorum W\n"), 2),
        (format!("log {post_quantum}\nlog {renamed}\nquorum none\n"), 2),
        (format!("witness W {w}\ngroup G +1 W\nquorum G\n"), 2),
        (format!("witness W {w}\ngroup G 01 W\nquorum G\n"), 2),
        (format!("witness W {w}\ngroup G W\nquorum G\n"), 2),
        (format!("witness W {w}\ngroup W any W\nquorum W\n"), 2),
        (format!("witness W {w}\ngroup G any none\nquorum G\n"), 2),
        (format!("witness W {w}\ngroup G any G\nquorum G\n"), 2),
        (format!("witness W {w}\nquorum \u{57}\u{301}\n"), 2),
        (format!("quorum W\nwitness W {w}\n"), 1),
        ("quorum none # no comments here\n".to_owned(), 1),
        ("quorum\u{a0}none\n".to_owned(), 1),
    ] {
        match bad.parse::<WitnessPolicy>() {
            Err(PolicyError::Line { line: found, .. }) => assert_eq!(found, line, "{bad}"),
            other => panic!("{bad}: {other:?}"),
        }
    }
}

#[test]
fn a_wrong_cosignature_by_a_known_witness_spoils_the_quorum() {
    let (one, two) = (cosigner(2), cosigner(3));
    let policy = format!("witness A {}\nwitness B {}\ngroup G any A B\nquorum G\n", one.verifier(), two.verifier());
    let policy: WitnessPolicy = policy.parse().unwrap();
    let mut note = SignedNote::parse(&checkpoint(1, leaf_hash(b"x"))).unwrap();
    note.add(one.cosign(note.text(), 7).unwrap());
    assert_eq!(policy.evaluate(&note).quorum, Quorum::Reached);
    let mut wrong = two.cosign(note.text(), 7).unwrap();
    wrong.signature[7] ^= 1;
    note.add(wrong);
    let found = policy.evaluate(&note);
    assert_eq!((found.quorum, found.wrong.as_slice()), (Quorum::NotReached, ["B".to_owned()].as_slice()));
}

#[test]
fn at_least_32_of_each_are_read() {
    let mut text = String::new();
    for i in 0..POLICY_ITEMS_MAX {
        let seed: [u8; 32] = std::array::from_fn(|at| if at < 8 { i.to_be_bytes()[at] } else { 1 });
        text += &format!("log {}\n", SigningKey::new(&format!("log/{i}"), &seed).unwrap().verifier());
        text += &format!("witness w{i} {}\n", CosignerKey::new("w", &seed).unwrap().verifier());
        // Each group has the one before: as deep as it can be.
        text += &if i == 0 { "group g0 all w0\n".to_owned() } else { format!("group g{i} all w{i} g{}\n", i - 1) };
    }
    let policy: WitnessPolicy = format!("{text}quorum g{}\n", POLICY_ITEMS_MAX - 1).parse().unwrap();
    assert_eq!(policy.witnesses().len(), POLICY_ITEMS_MAX);
    assert_eq!(policy.evaluate_nothing().quorum, Quorum::NotReached);
    let more = vkey("one-more", 0x06, &[5; 1312]);
    assert_eq!(format!("{text}witness more {more}\nquorum g0\n").parse::<WitnessPolicy>(), Err(PolicyError::TooLong));
}

/// A tree of any size in which all leaves are alike but one: its hashes are known without building it.
struct Marked {
    at: u64,
}

impl Nodes for Marked {
    type Error = std::convert::Infallible;

    fn node(&mut self, level: u8, index: u64) -> Result<Digest, Self::Error> {
        assert!(level < 64 && index.leading_zeros() >= u32::from(level), "no such node in a tree of 2^64 leaves");
        let plain = |levels: u8| (0..levels).fold(leaf_hash(b"plain"), |hash, _| node_hash(&hash, &hash));
        if index != self.at >> level {
            return Ok(plain(level));
        }
        Ok((0..level).fold(leaf_hash(b"marked"), |hash, below| match (self.at >> below) & 1 {
            0 => node_hash(&hash, &plain(below)),
            _ => node_hash(&plain(below), &hash),
        }))
    }
}

fn sizes() -> impl Strategy<Value = u64> {
    // As many small as large ones, and those next to powers of two.
    (0..63u32, any::<u64>(), 0..4u8).prop_map(|(bits, noise, how)| match how {
        0 => 1 << bits,
        1 => (1 << bits) + 1,
        2 => (1u64 << bits).saturating_sub(1).max(1),
        _ => (noise >> (63 - bits)).max(1),
    })
}

proptest! {
    #[test]
    fn proofs_hold_in_trees_of_any_size(size in sizes(), at in any::<u64>(), old in any::<u64>(), small in 0..70u64) {
        let at = at % size;
        let mut tree = Marked { at };
        let root = root_of(&mut tree, size).unwrap();
        let marked = leaf_hash(b"marked");
        let proof = prove_inclusion(&mut tree, at, size).unwrap();
        prop_assert!(proof.len() <= 63);
        prop_assert_eq!(verify_inclusion(&marked, at, size, &proof, &root), Ok(()));
        for other in [at ^ 1, at / 2, size - 1, 0] {
            if other != at {
                prop_assert!(verify_inclusion(&marked, other, size, &proof, &root).is_err());
            }
        }
        for old in [old % (size + 1), small.min(size), size - 1, at, at.saturating_add(1).min(size)] {
            let before = root_of(&mut tree, old).unwrap();
            let proof = prove_consistency(&mut tree, old, size).unwrap();
            prop_assert_eq!(verify_consistency(old, &before, size, &root, &proof), Ok(()));
            // The same sizes, and another past or future.
            let fork = root_of(&mut Marked { at: if at == 0 { 1 } else { at - 1 } }, size).unwrap();
            if fork != root && old > 0 {
                prop_assert!(verify_consistency(old, &before, size, &fork, &proof).is_err());
            }
        }
    }

    #[test]
    fn hostile_policies_and_requests_do_not_panic(
        words in prop::collection::vec("(log|witness|group|quorum|none|any|all|[0-9]{1,20}|A|B|#|\u{a0}|[ -~]{0,9}|[ \t\n]){1,3}", 0..40),
    ) {
        let text = words.join(" ");
        if let Ok(policy) = text.parse::<WitnessPolicy>() {
            prop_assert_eq!(policy.to_string().parse::<WitnessPolicy>(), Ok(policy));
        }
        let _ = text.parse::<AddCheckpoint>();
        let _ = text.parse::<TlogProof>();
        let _ = Tile::from_path(&text);
    }

    #[test]
    fn a_path_names_one_tile(level in 0..8u8, index in any::<u64>(), width in 1..=256u16, bundle in any::<bool>()) {
        let kind = if bundle { TileKind::Entries } else { TileKind::Hashes(level) };
        let level = if bundle { 0 } else { level };
        let index = index.checked_shr(8 * (u32::from(level) + 1)).unwrap_or(0);
        let tile = Tile::new(kind, index, width).unwrap();
        prop_assert_eq!(Tile::from_path(&tile.path()), Some(tile));
    }
}

/// The example of C2SP merkle-tree: the tree of seven entries, with its letters.
#[test]
fn the_specification_s_tree_of_seven_is_ours() {
    let [a, b, c, d, e, f, g] = std::array::from_fn(|i| leaf_hash(&[u8::try_from(i).unwrap()]));
    let (h, i, j) = (node_hash(&a, &b), node_hash(&c, &d), node_hash(&e, &f));
    let (k, l) = (node_hash(&h, &i), node_hash(&j, &g));
    let leaves = [a, b, c, d, e, f, g];
    assert_eq!(root(&leaves), node_hash(&k, &l));
    let inclusion = |index| inclusion_proof(&leaves, index).unwrap();
    assert_eq!(inclusion(0), [b, i, l]);
    assert_eq!(inclusion(3), [c, h, l]);
    assert_eq!(inclusion(4), [f, g, k]);
    assert_eq!(inclusion(6), [j, k]);
    let consistency = |old| consistency_proof(&leaves, old).unwrap();
    assert_eq!(consistency(3), [c, d, h, l]);
    assert_eq!(consistency(4), [l]);
    assert_eq!(consistency(6), [j, g, k]);
}
