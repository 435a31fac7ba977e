//! What the fuzz target `ledger` runs on any bytes: everything of this crate that reads bytes from outside.
//!
//! Nothing may panic, and what is read must say the same when it is written again.

use std::fmt::Display;
use std::str::FromStr;

use sha2::{Digest as _, Sha256};

use crate::audit::{Audit, BlobState, Place};
use crate::{
    AddCheckpoint, Checkpoint, CosignerVerifier, Frontier, SignedNote, Tile, TlogProof, VerifierKey, WitnessPolicy,
    bundle_entries, consider, push_bundle_entry,
};

/// Reads the bytes in every way.
pub fn everything(data: &[u8]) {
    bundle(data);
    if let Ok(frontier) = Frontier::from_bytes(data) {
        assert_eq!(frontier.to_bytes(), data);
    }
    saved_audit(data);
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    if let Some(tile) = Tile::from_path(text) {
        assert_eq!(tile.path(), text);
    }
    if let Ok(note) = SignedNote::parse(text) {
        assert_eq!(SignedNote::parse(&note.to_string()), Ok(note));
    }
    stable::<VerifierKey>(text);
    stable::<CosignerVerifier>(text);
    stable::<TlogProof>(text);
    stable::<WitnessPolicy>(text);
    let Some(key) = key() else {
        return;
    };
    let _ = Checkpoint::open(text, &key);
    if let Some(request) = stable::<AddCheckpoint>(text) {
        let _ = consider(None, &request, &key);
    }
    if let Some(policy) = stable::<WitnessPolicy>(text)
        && let Ok(note) = SignedNote::parse(text)
    {
        let _ = policy.evaluate(&note);
    }
}

/// An audit that was put aside, with a right checksum whatever it says; and the bytes as its next entry.
fn saved_audit(data: &[u8]) {
    let Some(key) = key() else {
        return;
    };
    let sealed = [data, Sha256::digest(data).as_slice()].concat();
    let Ok(mut audit) = Audit::resume(&sealed, &key) else {
        return;
    };
    assert!(audit.save().is_some(), "what was resumed can be put aside again");
    let place = Place { file: "log".into(), offset: 0, index: audit.entries() };
    audit.entry(&place, data, crate::leaf_hash(data), &mut |_, _| BlobState::Unchecked);
    let _ = audit.finish(None);
}

fn bundle(data: &[u8]) {
    let mut again = Vec::new();
    for entry in bundle_entries(data) {
        match entry {
            Ok(entry) => assert!(push_bundle_entry(&mut again, entry), "an entry that was read can be written"),
            Err(_) => return,
        }
    }
    assert_eq!(again, data);
}

fn stable<T: FromStr + Display>(text: &str) -> Option<T> {
    let read: T = text.parse().ok()?;
    let again = read.to_string();
    let second = again.parse::<T>().ok().map(|read| read.to_string());
    assert_eq!(second.as_deref(), Some(again.as_str()));
    Some(read)
}

/// The key of the corpus's log.
fn key() -> Option<VerifierKey> {
    crate::SigningKey::new("log.example.com/1", &[1; 32]).ok().map(|key| key.verifier())
}
