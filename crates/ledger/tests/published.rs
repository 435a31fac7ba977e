//! Tiles, proofs, cosignatures, witnesses and policies: against the slice functions, the specifications and small models.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::cast_possible_truncation)]

use std::collections::BTreeMap;

use ledger::*;
use model::Digest;
use proptest::prelude::*;

fn hashes(count: u64) -> Vec<Digest> {
    (0..count).map(|i| leaf_hash(format!("entry {i}").as_bytes())).collect()
}

/// The tiles of a log, made in the plainest way.
fn published(leaves: &[Digest]) -> BTreeMap<Tile, Vec<u8>> {
    let mut made = BTreeMap::new();
    for tile in tiles(leaves.len() as u64) {
        let TileKind::Hashes(level) = tile.kind() else { continue };
        let span = 256usize.pow(level.into());
        let first = tile.index() as usize * 256;
        let bytes = (first..first + usize::from(tile.width())).flat_map(|i| root(&leaves[i * span..][..span]).0);
        made.insert(tile, bytes.collect());
    }
    made
}

#[derive(Debug, PartialEq)]
enum Fetch {
    Absent(Tile),
    Bad(TileError),
}

impl From<TileError> for Fetch {
    fn from(error: TileError) -> Self {
        Self::Bad(error)
    }
}

fn nodes(tiles: &BTreeMap<Tile, Vec<u8>>, size: u64) -> impl Nodes<Error = Fetch> {
    TileNodes::new(size, move |tile: &Tile| tiles.get(tile).cloned().ok_or(Fetch::Absent(*tile)))
}

fn agrees(leaves: &[Digest], tiles: &BTreeMap<Tile, Vec<u8>>, index: u64, old: u64) {
    let size = leaves.len() as u64;
    let mut nodes = nodes(tiles, size);
    assert_eq!(root_of(&mut nodes, size).unwrap(), root(leaves));
    let mut grown = Frontier::new();
    leaves.iter().for_each(|leaf| grown.append(*leaf));
    assert_eq!(Frontier::of(&mut nodes, size).unwrap(), grown);
    let inclusion = prove_inclusion(&mut nodes, index, size).unwrap();
    assert_eq!(Some(inclusion), inclusion_proof(leaves, index as usize), "{index} of {size}");
    let consistency = prove_consistency(&mut nodes, old, size).unwrap();
    assert_eq!(Some(consistency), consistency_proof(leaves, old as usize), "{old} of {size}");
}

#[test]
fn proofs_from_tiles_equal_those_from_leaves() {
    let all = hashes(300);
    for size in 1..=300u64 {
        let leaves = &all[..size as usize];
        let tiles = published(leaves);
        for index in (0..size).step_by(1 + size as usize / 7) {
            agrees(leaves, &tiles, index, size - index);
        }
    }
    let all = hashes(70_000);
    for size in [255, 256, 257, 511, 512, 513, 65_535, 65_536, 65_537, 70_000] {
        let leaves = &all[..size];
        let tiles = published(leaves);
        for index in [0, 1, 254, 255, 256, 300, 65_535, 65_536, 69_999] {
            if index < size as u64 {
                agrees(leaves, &tiles, index, size as u64 - index);
            }
        }
    }
}

#[test]
fn a_log_is_published_as_the_specification_says() {
    let paths = |size| tiles(size).map(|tile| tile.path()).collect::<Vec<_>>();
    assert_eq!(paths(0), Vec::<String>::new());
    assert_eq!(paths(1), ["tile/entries/000.p/1", "tile/0/000.p/1"]);
    assert_eq!(paths(256), ["tile/entries/000", "tile/0/000", "tile/1/000.p/1"]);
    // The example of the specification: 70,000 entries.
    let paths = paths(70_000);
    assert_eq!(paths.len(), 2 * 273 + 1 + 4);
    for path in ["tile/0/272", "tile/0/273.p/112", "tile/1/000", "tile/1/001.p/17", "tile/2/000.p/1"] {
        assert!(paths.iter().any(|p| p == path), "{path}");
    }
    let tile = Tile::new(TileKind::Hashes(0), 1_234_067, 256).unwrap();
    assert_eq!(tile.path(), "tile/0/x001/x234/067");
    for other in [
        "tile/0/x001/x234/67",
        "tile/0/001/x234/067",
        "tile/0/x000/x001/x234/067",
        "tile/00/000",
        "tile/8/000",
        "tile/0/000.p/256",
        "tile/0/000.p/0",
        "tile/0/000.p/01",
        "tile/0/+00",
        "tile/0/../0",
        "tile/0/",
        "tile//000",
        "tile/7/001",
    ] {
        assert_eq!(Tile::from_path(other), None, "{other}");
    }
}

#[test]
fn bundles_give_back_their_entries() {
    let entries: [&[u8]; 3] = [b"", b"one", &[7; 65_535]];
    let mut bundle = Vec::new();
    entries.iter().for_each(|entry| assert!(push_bundle_entry(&mut bundle, entry)));
    assert!(!push_bundle_entry(&mut bundle, &[7; 65_536]));
    assert_eq!(bundle_entries(&bundle).collect::<Result<Vec<_>, _>>().unwrap(), entries);
    for cut in [1, 3, 6, bundle.len() - 1] {
        assert_eq!(bundle_entries(&bundle[..cut]).last(), Some(Err(TileError::Cut)), "{cut}");
    }
}

fn log_key() -> SigningKey {
    SigningKey::new("log.example.com/1", &[1; 32]).unwrap()
}

fn signed(leaves: &[Digest]) -> String {
    let key = log_key();
    let origin = key.verifier().name().to_owned();
    Checkpoint { origin, size: leaves.len() as u64, root: root(leaves) }.sign(&key).unwrap()
}

#[test]
fn cosignatures_verify_and_say_when() {
    let witness = CosignerKey::new("witness.example.com/w1", &[2; 32]).unwrap();
    let verifier: CosignerVerifier = witness.verifier().to_string().parse().unwrap();
    assert_eq!(CosignerKey::from_text(&witness.to_text()).unwrap().verifier(), verifier);
    let mut note = SignedNote::parse(&signed(&hashes(5))).unwrap();
    assert_eq!(verifier.verify(&note), Err(NoteError::NotSigned));
    note.add(witness.cosign(note.text(), 1_679_315_147).unwrap());
    let note = SignedNote::parse(&note.to_string()).unwrap();
    assert_eq!(note.signatures().len(), 2);
    assert_eq!(verifier.verify(&note), Ok(1_679_315_147));
    // The log's signature is still right, and its key is not a witness's.
    Checkpoint::open(&note.to_string(), &log_key().verifier()).unwrap();
    assert!(log_key().verifier().to_string().parse::<CosignerVerifier>().is_err());
    // Another time, another text.
    let mut line = note.signatures()[1].clone();
    line.signature[7] ^= 1;
    let mut altered = note.clone();
    altered.add(line);
    assert_eq!(verifier.verify(&altered), Err(NoteError::BadSignature));
    let mut other = SignedNote::parse(&signed(&hashes(6))).unwrap();
    other.add(note.signatures()[1].clone());
    assert_eq!(verifier.verify(&other), Err(NoteError::BadSignature));
    assert!(witness.cosign(note.text(), u64::MAX).is_err());
}

/// The cosignature in the example of C2SP tlog-cosignature has this name and key id.
#[test]
fn the_specification_s_cosigned_checkpoint_is_read() {
    let note = "example.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n\n\
        \u{2014} example.com/behind-the-sofa Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4URYN7u5/Zhcyv2q1gGzGku9nTo+zyWE+xeMcTOAYQ8=\n\
        \u{2014} witness.example.com/w1 jWbPPwAAAABkGFDLEZMHwSRaJNiIDoe9DYn/zXcrtPHeolMI5OWXEhZCB9dlrDJsX3b2oyin1nPZqhf5nNo0xUe+mbIUBkBIfZ+qnA==\n";
    let read = SignedNote::parse(note).unwrap();
    assert_eq!(read.to_string(), note);
    let witness = &read.signatures()[1];
    assert_eq!((witness.name.as_str(), witness.id), ("witness.example.com/w1", 0x8d66_cf3f));
    let time = u64::from_be_bytes(witness.signature[..8].try_into().unwrap());
    assert_eq!(time, 1_679_315_147);
}

#[test]
fn a_proof_in_one_piece_proves_its_entry_only() {
    let leaves = hashes(200);
    let tiles = published(&leaves);
    let key = log_key().verifier();
    for index in [0, 77, 199] {
        let hashes = prove_inclusion(&mut nodes(&tiles, 200), index, 200).unwrap();
        let extra = (index == 77).then(|| b"more".to_vec());
        let proof = TlogProof { index, hashes, checkpoint: signed(&leaves), extra };
        let read: TlogProof = proof.to_string().parse().unwrap();
        assert_eq!(read, proof);
        let checkpoint = read.verify(&leaves[index as usize], &key).unwrap();
        assert_eq!(checkpoint.size, 200);
        assert!(read.verify(&leaves[100], &key).is_err());
        assert!(TlogProof { index: index ^ 1, ..read.clone() }.verify(&leaves[index as usize], &key).is_err());
        let mut cut = read;
        cut.hashes.pop();
        assert!(cut.verify(&leaves[index as usize], &key).is_err());
    }
    for other in ["", "c2sp.org/tlog-proof@v1\nindex 00\n\nx", "c2sp.org/tlog-proof@v1\n\nx", "index 1\n\nx"] {
        assert_eq!(other.parse::<TlogProof>(), Err(TlogProofError::Malformed), "{other:?}");
    }
}

#[test]
fn a_witness_answers_as_the_specification_says() {
    let all = hashes(20);
    let key = log_key().verifier();
    let ask = |known: Option<&Known>, old: u64, proof: Vec<Digest>, note: String| {
        let body = AddCheckpoint { old, proof, checkpoint: note }.to_string();
        consider(known, &body.parse().unwrap(), &key).map(|(known, _)| known)
    };
    let first = ask(None, 0, vec![], signed(&all[..8])).unwrap();
    assert_eq!(first, Known { size: 8, root: root(&all[..8]) });
    let proof = consistency_proof(&all, 8).unwrap();
    assert_eq!(ask(Some(&first), 8, proof.clone(), signed(&all)).unwrap().size, 20);
    // The same again is no growth, and no harm.
    assert_eq!(ask(Some(&first), 8, vec![], signed(&all[..8])).unwrap(), first);
    assert_eq!(ask(Some(&first), 0, vec![], signed(&all)), Err(Refusal::Conflict { size: 8 }));
    assert_eq!(ask(Some(&first), 7, vec![], signed(&all)), Err(Refusal::Conflict { size: 8 }));
    assert_eq!(ask(Some(&first), 8, vec![], signed(&all)), Err(Refusal::Inconsistent));
    assert_eq!(ask(Some(&first), 8, vec![], signed(&all[..7])), Err(Refusal::OldTooLarge));
    assert_eq!(ask(None, 0, proof.clone(), signed(&all)), Err(Refusal::Inconsistent), "a proof from nothing is empty");
    let mut fork = all.clone();
    fork[3] = leaf_hash(b"another past");
    assert_eq!(
        ask(Some(&first), 8, vec![], signed(&fork[..8])),
        Err(Refusal::Inconsistent),
        "409 would say: ask again"
    );
    assert_eq!(ask(Some(&first), 8, proof.clone(), signed(&fork)), Err(Refusal::Inconsistent));
    let thief = SigningKey::new("log.example.com/1", &[9; 32]).unwrap();
    let checkpoint = Checkpoint { origin: "log.example.com/1".into(), size: 20, root: root(&all) };
    assert_eq!(ask(Some(&first), 8, proof, checkpoint.sign(&thief).unwrap()), Err(Refusal::NotSigned));
    let empty = Checkpoint { origin: "log.example.com/1".into(), size: 0, root: root(&all) };
    assert_eq!(ask(None, 0, vec![], empty.sign(&log_key()).unwrap()), Err(Refusal::Inconsistent));
    let statuses = [Refusal::Malformed, Refusal::NotSigned, Refusal::UnknownLog, Refusal::Inconsistent];
    assert_eq!(statuses.map(Refusal::status), [400, 403, 404, 422]);
    for body in ["old 1\n\n", "old 01\n\nx", "old -1\n\nx", "new 1\n\nx", "old 1\nAAAA\n\nx"] {
        let parsed = body.parse::<AddCheckpoint>().map(|request| consider(None, &request, &key));
        assert!(!matches!(parsed, Ok(Ok(_))), "{body:?}");
    }
    let many = AddCheckpoint { old: 1, proof: vec![Digest([0; 32]); 64], checkpoint: "x".into() };
    assert!(many.to_string().parse::<AddCheckpoint>().is_err());
}

proptest! {
    /// Whatever a log asks for, in whatever order, what a witness has cosigned is one past.
    #[test]
    fn a_witness_never_cosigns_two_pasts(asks in prop::collection::vec((any::<bool>(), 0..40usize, 0..40usize), 1..60)) {
        let honest = hashes(40);
        let mut forked = honest.clone();
        forked[17] = leaf_hash(b"another past");
        let key = log_key().verifier();
        let mut known: Option<Known> = None;
        let mut cosigned: Vec<Known> = Vec::new();
        for (fork, size, old) in asks {
            let leaves = &(if fork { &forked } else { &honest })[..size];
            // A log that knows what to say: its proof is right for the old size that it names.
            let old = known.map_or(0, |known| if old % 3 == 0 { old } else { known.size as usize });
            let proof = consistency_proof(leaves, old).unwrap_or_default();
            let request = AddCheckpoint { old: old as u64, proof, checkpoint: signed(leaves) };
            if let Ok((now, _)) = consider(known.as_ref(), &request, &key) {
                prop_assert!(known.is_none_or(|known| now.size >= known.size));
                known = Some(now);
                cosigned.push(now);
            }
        }
        let of = |leaves: &[Digest]| cosigned.iter().all(|c| root(&leaves[..c.size as usize]) == c.root);
        prop_assert!(of(&honest) || of(&forked));
    }
}

fn witnesses(count: u8) -> Vec<CosignerKey> {
    (0..count).map(|i| CosignerKey::new(&format!("witness.example.com/{i}"), &[10 + i; 32]).unwrap()).collect()
}

#[test]
fn a_policy_says_who_is_enough() {
    let keys = witnesses(5);
    let vkey = |i: usize| keys[i].verifier();
    let text = format!(
        "# two of three here, and one of two there\nlog {}\t https://log.example.com\n\n\
         witness X1 {}\nwitness X2 {} https://x2.example.com/w\n witness X3 {}\ngroup X 2 X1 X2 X3\n\
         witness Y1 {}\nwitness Y2 {}\ngroup Y any Y1 Y2\ngroup both all X Y\nquorum both\n",
        log_key().verifier(),
        vkey(0),
        vkey(1),
        vkey(2),
        vkey(3),
        vkey(4),
    );
    let policy: WitnessPolicy = text.parse().unwrap();
    assert_eq!(policy.to_string().parse::<WitnessPolicy>().unwrap(), policy);
    assert_eq!(policy.witnesses()[1].url.as_deref(), Some("https://x2.example.com/w"));
    assert_eq!(policy.logs()[0].verifier, log_key().verifier());
    for signers in 0..32u8 {
        let mut note = SignedNote::parse(&signed(&hashes(3))).unwrap();
        let who: Vec<usize> = (0..5).filter(|i| signers & (1 << i) != 0).collect();
        who.iter().for_each(|i| note.add(keys[*i].cosign(note.text(), 7).unwrap()));
        let count = |range: std::ops::Range<usize>| who.iter().filter(|i| range.contains(i)).count();
        let expected = if count(0..3) >= 2 && count(3..5) >= 1 { Quorum::Reached } else { Quorum::NotReached };
        let found = policy.evaluate(&note);
        assert_eq!((found.quorum, found.cosigned.len()), (expected, who.len()), "{who:?}");
        assert!(found.wrong.is_empty());
    }
    let none: WitnessPolicy = "quorum none".parse().unwrap();
    assert_eq!(none.evaluate(&SignedNote::parse(&signed(&[])).unwrap()).quorum, Quorum::NoneRequired);
}

#[test]
fn a_wrong_policy_is_refused_with_its_line() {
    let key = witnesses(1).remove(0).verifier();
    let line = |text: &str| match text.parse::<WitnessPolicy>() {
        Err(PolicyError::Line { line, .. }) => line,
        other => panic!("{text:?}: {other:?}"),
    };
    assert_eq!("".parse::<WitnessPolicy>(), Err(PolicyError::NoQuorum));
    assert_eq!(line("quorum none\nquorum none"), 2);
    assert_eq!(line("quorum W"), 1);
    assert_eq!(line(&format!("witness W {key}\nwitness V {key}\nquorum W")), 2, "one key, one witness");
    assert_eq!(line(&format!("witness none {key}")), 1);
    assert_eq!(line(&format!("witness W {key}\ngroup G 2 W\nquorum G")), 2);
    assert_eq!(line(&format!("witness W {key}\ngroup G 0 W\nquorum G")), 2);
    assert_eq!(line(&format!("witness W {key}\ngroup G all W\ngroup H all W\nquorum G")), 3, "a member once only");
    assert_eq!(line(&format!("witness W {key}\ngroup G all\nquorum G")), 2);
    assert_eq!(line(&format!("witness W {}\nquorum W", log_key().verifier())), 1, "a log's key is no witness's");
    assert_eq!(line("quorum none\r"), 1);
}

/// One of each form, for the fuzzer to begin with.
fn samples() -> Vec<(&'static str, Vec<u8>)> {
    let leaves = hashes(20);
    let mut note = SignedNote::parse(&signed(&leaves)).unwrap();
    let witness = &witnesses(1)[0];
    note.add(witness.cosign(note.text(), 1_679_315_147).unwrap());
    let (checkpoint, hashes) = (note.to_string(), inclusion_proof(&leaves, 7).unwrap());
    let proof = TlogProof { index: 7, hashes, checkpoint: checkpoint.clone(), extra: Some(b"more".to_vec()) };
    let request = AddCheckpoint { old: 0, proof: vec![], checkpoint: checkpoint.clone() };
    let grown = AddCheckpoint { old: 8, proof: consistency_proof(&leaves, 8).unwrap(), ..request.clone() };
    let vkey = witness.verifier();
    let policy = format!("log {}\nwitness W {vkey} https://w\ngroup G 1 W\nquorum G\n", log_key().verifier());
    let mut bundle = Vec::new();
    assert!(push_bundle_entry(&mut bundle, b"one") && push_bundle_entry(&mut bundle, b""));
    let mut frontier = Frontier::new();
    leaves.iter().for_each(|leaf| frontier.append(*leaf));
    let text = |text: String| text.into_bytes();
    vec![
        ("note", text(checkpoint)),
        ("proof", text(proof.to_string())),
        ("request-first", text(request.to_string())),
        ("request-grown", text(grown.to_string())),
        ("policy", text(policy)),
        ("policy-none", b"quorum none".to_vec()),
        // An ML-DSA-44 key would be 1,312 bytes; the type 0x77 does not exist yet.
        ("policy-unverifiable", b"witness W later+00000000+dwAB\ngroup G any W\nquorum G\n".to_vec()),
        (
            "note-extended",
            text(log_key().sign(&format!("log.example.com/1\n1\n{}\nextension\n", EMPTY_ROOT.base64())).unwrap()),
        ),
        ("vkey-log", text(log_key().verifier().to_string())),
        ("vkey-witness", text(vkey.to_string())),
        ("bundle", bundle),
        ("frontier", frontier.to_bytes()),
        ("path", b"tile/0/x001/x234/067.p/5".to_vec()),
    ]
}

const CORPUS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fuzz/corpus/ledger");

#[test]
fn the_fuzz_corpus_replays() {
    let mut count = 0;
    for file in std::fs::read_dir(CORPUS).unwrap() {
        let bytes = std::fs::read(file.unwrap().path()).unwrap();
        fuzz::everything(&bytes);
        // Cut anywhere, and with any one byte changed, nothing panics either.
        for at in 0..bytes.len() {
            fuzz::everything(&bytes[..at]);
            let mut changed = bytes.clone();
            changed[at] ^= 1 << (at % 8);
            fuzz::everything(&changed);
        }
        count += 1;
    }
    assert!(count > 5);
    for (name, bytes) in samples() {
        assert_eq!(std::fs::read(format!("{CORPUS}/{name}")).unwrap(), bytes, "{name}: the form has changed");
    }
}

#[test]
#[ignore = "writes fuzz/corpus/ledger"]
fn make_the_corpus() {
    std::fs::create_dir_all(CORPUS).unwrap();
    for (name, bytes) in samples() {
        std::fs::write(format!("{CORPUS}/{name}"), bytes).unwrap();
    }
}
