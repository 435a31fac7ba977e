//! What the fuzzer has found interesting, replayed; and hostile bytes without a fuzzer.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use link::{Frame, JoinToken, VERSION};
use proptest::prelude::*;

const CORPUS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fuzz/corpus/link");

#[test]
fn the_corpus_is_read_without_a_panic() {
    let files: Vec<_> = std::fs::read_dir(CORPUS).unwrap().collect();
    assert!(!files.is_empty());
    for file in files {
        link::fuzz(&std::fs::read(file.unwrap().path()).unwrap());
    }
}

/// Makes the corpus: run it when the format changes, with `--ignored`.
#[test]
#[ignore = "writes fuzz/corpus/link"]
fn make_the_corpus() {
    let keep = |name: &str, bytes: &[u8]| std::fs::write(format!("{CORPUS}/{name}"), bytes).unwrap();
    let frames = [
        ("hello", Frame::Hello { version: VERSION, instance: [7; 16], epoch: 1, place: 0, program: "outpost".into() }),
        ("welcome", Frame::Welcome { version: VERSION, name: "site-a".into() }),
        ("ping", Frame::Ping { number: 1 }),
        ("goodbye", Frame::Goodbye { why: "stopping".into() }),
        (
            "open",
            Frame::Open { version: VERSION, session: "s".into(), host: "db".into(), port: 5432, deadline_ms: 5000 },
        ),
        ("unreachable", Frame::Unreachable { why: "refused".into() }),
        ("enrol", Frame::Enrol { token: [1; 8], request: vec![0x30; 40], mac: [2; 32] }),
        (
            "issued",
            Frame::Issued {
                id: "op_1".into(),
                name: "site-a".into(),
                certificate: vec![0x30; 40],
                authorities: vec![vec![0x30; 20]; 2],
                not_before: 1,
                not_after: 2,
            },
        ),
    ];
    for (name, frame) in frames {
        keep(name, &frame.encode()[2..]);
    }
    keep("token", JoinToken::new([1; 8], [2; 32], [3; 32], "gw.example.com:7443").unwrap().to_line().as_bytes());
    keep("ws-text", b"\x82\x05hello");
    keep("ws-masked", b"\x82\x85\x01\x02\x03\x04hello\x89\x80\x01\x02\x03\x04");
    keep("ws-parts", b"\x02\x03hel\x89\x01p\x80\x02lo\x88\x00");
    keep("ws-long", &[b"\x82\x7e\x01\x00".as_slice(), &[9; 256]].concat());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    #[test]
    fn random_bytes_are_taken_or_refused(data in prop::collection::vec(any::<u8>(), 0..600)) {
        link::fuzz(&data);
    }

    #[test]
    fn any_frame_of_a_kind_is_taken_or_refused(kind in 0u8..16, data in prop::collection::vec(any::<u8>(), 0..200)) {
        link::fuzz(&[&[kind], data.as_slice()].concat());
    }
}
