//! What the fuzzer has found interesting, replayed; and hostile bytes without a fuzzer.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod common;

use common::*;
use proptest::prelude::*;
use testkit::sim_disk::SimDisk;

#[test]
fn the_corpus_is_read_without_a_panic() {
    let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fuzz/corpus/segment");
    let files: Vec<_> = std::fs::read_dir(dir).unwrap().collect();
    assert!(!files.is_empty());
    for file in files {
        store::fuzz::segment(&std::fs::read(file.unwrap().path()).unwrap());
    }
}

#[test]
fn the_corpus_of_keys_is_read_without_a_panic() {
    let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fuzz/corpus/keys");
    let files: Vec<_> = std::fs::read_dir(dir).unwrap().collect();
    assert!(!files.is_empty());
    for file in files {
        store::fuzz::keys(&std::fs::read(file.unwrap().path()).unwrap());
    }
}

fn log() -> Vec<u8> {
    let disk = SimDisk::new();
    create(&disk).unwrap();
    let _ = life(&disk, &mut Acknowledged::default());
    disk.bytes("log/00000000000000000000.seg").unwrap()
}

/// Makes the corpus: run it when the format changes, with `--ignored`.
#[test]
#[ignore = "writes fuzz/corpus/segment"]
fn make_the_corpus() {
    let dir = std::path::Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../fuzz/corpus/segment"));
    std::fs::create_dir_all(dir).unwrap();
    let log = log();
    let end = 4096 + 6000;
    std::fs::write(dir.join("whole"), &log[..end]).unwrap();
    std::fs::write(dir.join("torn"), &log[..end - 700]).unwrap();
    std::fs::write(dir.join("groups"), &log[4096..end]).unwrap();
    std::fs::write(dir.join("header"), &log[..4096]).unwrap();
    std::fs::write(dir.join("entry"), &log[4096 + 64 + 6..4096 + 64 + 6 + 200]).unwrap();
    std::fs::write(dir.join("zeros"), [0; 256]).unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn random_bytes_are_no_log(data in prop::collection::vec(any::<u8>(), 0..5000)) {
        store::fuzz::segment(&data);
    }

    #[test]
    fn random_bytes_are_no_keys(data in prop::collection::vec(any::<u8>(), 0..200)) {
        store::fuzz::keys(&data);
    }

    #[test]
    fn changed_logs_do_not_panic(changes in prop::collection::vec((4096..12_000usize, any::<u8>()), 1..8), cut in 4096..14_000usize) {
        static LOG: std::sync::LazyLock<Vec<u8>> = std::sync::LazyLock::new(log);
        let mut bytes = LOG[..cut].to_vec();
        for (at, value) in changes {
            if let Some(byte) = bytes.get_mut(at) {
                *byte = value;
            }
        }
        store::fuzz::segment(&bytes);
    }
}
