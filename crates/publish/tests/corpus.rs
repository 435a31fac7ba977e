//! What the fuzzer has found interesting, replayed; and hostile bytes without a fuzzer.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod common;

use std::path::{Path, PathBuf};

use common::{record, session};
use ledger::SigningKey;
use publish::{Closes, Search, Witness, origin_name};
use testkit::process::poll;

fn dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus/publish")
}

fn corpus() -> Vec<Vec<u8>> {
    std::fs::read_dir(dir()).unwrap().map(|file| std::fs::read(file.unwrap().path()).unwrap()).collect()
}

#[test]
fn the_corpus_is_read_without_a_panic() {
    let files = corpus();
    assert!(files.len() >= 4);
    for file in &files {
        publish::fuzz::everything(file);
    }
}

#[test]
fn changed_and_cut_files_do_not_panic() {
    for file in corpus() {
        for at in 0..file.len() {
            publish::fuzz::everything(&file[..at]);
            for value in [0, b'\n', b'9', 0xff] {
                let mut changed = file.clone();
                changed[at] = value;
                publish::fuzz::everything(&changed);
            }
        }
    }
}

/// Makes the corpus: run it when a format changes, with `--ignored`.
#[test]
#[ignore = "writes fuzz/corpus/publish"]
fn make_the_corpus() {
    std::fs::create_dir_all(dir()).unwrap();
    let home = tempfile::tempdir().unwrap();
    let (recorder, key) = record(home.path());
    let first = session(&recorder);
    let closes = Closes::open_dir(home.path(), &key);
    let receipt = poll("the receipt", || closes.receipt(first, Search::All).unwrap()).to_string();
    std::fs::write(dir().join("receipt"), &receipt).unwrap();
    let bare: String = receipt.lines().filter(|l| !l.starts_with("extra ")).map(|l| format!("{l}\n")).collect();
    std::fs::write(dir().join("proof"), bare).unwrap();
    let witness = tempfile::tempdir().unwrap();
    Witness::init(witness.path(), "witness.example.com/1").unwrap();
    let log = SigningKey::new("log.example.com/1", &[1; 32]).unwrap();
    Witness::add_log(witness.path(), &log.verifier()).unwrap();
    let file = witness.path().join("logs").join(origin_name("log.example.com/1"));
    std::fs::copy(&file, dir().join("log-new")).unwrap();
    let checkpoint =
        ledger::Checkpoint { origin: "log.example.com/1".into(), size: 1, root: ledger::leaf_hash(b"entry") };
    let request = ledger::AddCheckpoint { old: 0, proof: vec![], checkpoint: checkpoint.sign(&log).unwrap() };
    Witness::open(witness.path()).unwrap().add_checkpoint(&request.to_string(), 1_763_804_101).unwrap();
    std::fs::copy(&file, dir().join("log-cosigned")).unwrap();
    recorder.stop().unwrap();
}
