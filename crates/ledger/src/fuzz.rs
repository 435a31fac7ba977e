//! What the fuzz target `ledger` runs on any bytes: everything of this crate that reads bytes from outside.
//!
//! Nothing may panic, and what is read must say the same when it is written again.

use std::fmt::Display;
use std::str::FromStr;

use model::{
    Assertion, ChannelBinding, Digest, Identity, Known, Passkey, PasskeyAction, PasskeyAlgorithm, Proof, ProofMethod,
};
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

/// What the fuzz target `passkey` runs on any bytes: up to the first zero byte as client data, the rest as authenticator
/// data; of a new key, and of a signature.
pub fn passkey(data: &[u8]) {
    let (client_data, authenticator) = match data.iter().position(|byte| *byte == 0) {
        Some(at) => data.split_at(at),
        None => (data, &[][..]),
    };
    let authenticator = authenticator.get(1..).unwrap_or_default();
    let new = crate::passkey::read_new_key("localhost", "https://localhost", &[0; 32], authenticator, client_data);
    let Some(by) = identity() else {
        return;
    };
    let key = match new {
        Ok(new) => Passkey { algorithm: new.algorithm, public_key: new.public_key, credential: new.credential, ..by },
        Err(_) => by,
    };
    let signature = Assertion {
        credential: key.credential.clone(),
        authenticator_data: authenticator.to_vec(),
        client_data: client_data.to_vec(),
        signature: authenticator.get(37..).unwrap_or_default().to_vec(),
    };
    let right = crate::passkey::verify(&key, &Digest([0; 32]), &signature);
    assert!(right.is_err(), "nobody has signed this");
}

/// A passkey without a key.
fn identity() -> Option<Passkey> {
    Some(Passkey {
        action: PasskeyAction::Enrolled,
        identity: Identity {
            name: "human:bea".parse().ok()?,
            known: Known::Verified,
            proof: Proof {
                method: ProofMethod::Jwt,
                channel: ChannelBinding::None,
                credential: String::new(),
                evidence: None,
            },
            on_behalf_of: None,
            groups: Vec::new(),
            run: None,
        },
        credential: "AA".to_owned(),
        algorithm: PasskeyAlgorithm::Ed25519,
        public_key: Vec::new(),
        rp_id: "localhost".to_owned(),
        origin: "https://localhost".to_owned(),
        aaguid: String::new(),
    })
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
