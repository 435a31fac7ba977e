//! An audit that is put aside at any entry and taken up again says the same in the end.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod log;

use std::sync::Arc;

use ledger::audit::{Audit, BlobState, CompletenessVerdict, Place, Scope, StateError};
use ledger::{Frontier, SigningKey, leaf_hash, root};
use log::*;
use model::*;
use proptest::prelude::*;
use sha2::Digest as _;

#[test]
fn it_goes_on_from_any_entry() {
    let log = log();
    let all = log.leaves.len();
    let report = whole(&log, &[all]);
    assert!(report.is_ok(), "{report:#?}");
    assert_eq!((report.completeness.erased_sessions, report.completeness.erased_fields), (1, 2));
    assert!(report.completeness.holds.contains("case-1") && report.coverage.away_count == 1);
    assert!(report.coverage.previous.is_some() && report.coverage.witnesses.is_some());
    assert_eq!(report.completeness.silences.len(), 1);
    for at in 0..=all {
        let mut before = Audit::new(Scope::Whole, &vkey());
        feed(&mut before, &log, 0, at);
        let saved = before.save().unwrap();
        let resumed = Audit::resume(&saved, &vkey()).unwrap();
        assert_eq!(resumed.save().unwrap(), saved, "at {at}");
        let mut fresh = Audit::new(Scope::Whole, &vkey());
        fresh.expect(log.checkpoint(all));
        let mut audit = fresh.or_from(resumed);
        assert_eq!(audit.entries(), at as u64);
        feed(&mut audit, &log, at, all);
        assert_eq!(audit.finish(None), report, "at {at}");
    }
}

#[test]
fn it_does_not_go_on_where_it_could_not_tell() {
    let log = log();
    let all = log.leaves.len();
    let mut before = Audit::new(Scope::Whole, &vkey());
    before.expect(log.checkpoint(6));
    feed(&mut before, &log, 0, 10);
    let resumed = || Audit::resume(&before.save().unwrap(), &vkey()).unwrap();
    // A root that was told is remembered.
    let mut fresh = Audit::new(Scope::Whole, &vkey());
    fresh.expect(log.checkpoint(all));
    fresh.expect(log.checkpoint(6));
    assert_eq!(fresh.or_from(resumed()).entries(), 10);
    // Another one is behind it.
    let mut fresh = Audit::new(Scope::Whole, &vkey());
    fresh.expect(log.checkpoint(all));
    fresh.expect(log.checkpoint(7));
    assert_eq!(fresh.or_from(resumed()).entries(), 0);
    // A log that is shorter than it was, however well signed, is named.
    let mut fresh = Audit::new(Scope::Whole, &vkey());
    fresh.expect(log.checkpoint(8));
    let mut audit = fresh.or_from(resumed());
    assert_eq!(audit.entries(), 0);
    for (index, leaf) in log.leaves.iter().enumerate().take(8) {
        let place = Place { file: Arc::from("log"), offset: 0, index: index as u64 };
        audit.entry(&place, leaf, leaf_hash(leaf), &mut |_, _| BlobState::Unchecked);
    }
    let violation = audit.finish(None).integrity.violation.unwrap();
    assert_eq!(violation.what, "10 entries were signed, and the log has 8");
    let other = SigningKey::new(ORIGIN, &[8; 32]).unwrap().verifier();
    assert_eq!(Audit::resume(&before.save().unwrap(), &other).err(), Some(StateError::OtherLog));
    assert_eq!(
        Audit::resume(b"onrecord/v9 audit\n and more, much more than a checksum", &vkey()).err(),
        Some(StateError::Version)
    );
}

#[test]
fn a_violation_is_not_put_aside() {
    let mut log = log();
    let at = log.leaves[10].len() - 3;
    log.leaves[10][at] ^= 1;
    let mut audit = Audit::new(Scope::Whole, &vkey());
    feed(&mut audit, &log, 0, 10);
    assert!(audit.save().is_some());
    feed(&mut audit, &log, 10, 12);
    assert!(audit.save().is_none());
}

#[test]
fn what_was_erased_under_a_hold_is_a_gap() {
    let mut log = log();
    log.leaves.pop();
    log.erase(9, None);
    let report = whole(&log, &[]);
    assert_eq!(report.completeness.verdict, CompletenessVerdict::Violated);
    assert!(report.completeness.gaps[0].contains("was erased under the hold case-1"), "{:?}", report.completeness.gaps);
}

#[test]
fn a_missing_blob_that_nobody_erased_is_named() {
    let mut log = Log::default();
    let (origin, vkey, program) = (ORIGIN.into(), vkey().to_string(), "onrecord 0.2".into());
    log.push(Body::Genesis(Genesis { origin, vkey, program, previous: None }));
    log.open(1, "app");
    log.intent(1, blob(1, 3));
    log.intent(1, blob(1, 9));
    log.erase(1, Some(vec![3]));
    let violation = whole(&log, &[]).integrity.violation.unwrap();
    assert_eq!((violation.index, violation.what.as_str()), (Some(3), "9 is gone"));
}

#[test]
fn the_key_is_that_of_the_first_entry() {
    let mut log = Log::default();
    let other = SigningKey::new(ORIGIN, &[9; 32]).unwrap().verifier();
    let (origin, vkey, program) = (ORIGIN.into(), other.to_string(), "onrecord 0.2".into());
    log.push(Body::Genesis(Genesis { origin, vkey, program, previous: None }));
    let violation = whole(&log, &[]).integrity.violation.unwrap();
    assert!(violation.index == Some(0) && violation.what.contains("another key"), "{violation:?}");
}

#[test]
fn a_session_must_be_what_its_last_entry_stands_for() {
    let mut log = Log::default();
    let (origin, vkey, program) = (ORIGIN.into(), vkey().to_string(), "onrecord 0.2".into());
    log.push(Body::Genesis(Genesis { origin, vkey, program, previous: None }));
    log.open(1, "app");
    log.sessions.get_mut(&1).unwrap().0.insert(0, Digest([1; 32]));
    let link = Link { number: 1, ..log.link(1) };
    let root = Some(root(&log.sessions[&1].0));
    let (reason, intents, outcomes) = (SessionEnd::ClientClosed, 0, 0);
    log.push(Body::SessionClose(SessionClose { link, reason, intents, outcomes, bytes_up: 0, bytes_down: 0, root }));
    let violation = whole(&log, &[]).integrity.violation.unwrap();
    assert!(violation.index == Some(2) && violation.what.contains("stands for"), "{violation:?}");
}

#[test]
#[ignore = "writes files of fuzz/corpus/ledger"]
fn make_the_corpus() {
    let (name, seed) = ("log.example.com/1", [1; 32]);
    let key = SigningKey::new(name, &seed).unwrap().verifier();
    let mut log = log();
    let previous = None;
    let (origin, vkey, program) = (name.into(), key.to_string(), String::new());
    let first = Entry {
        time: Time { wall_us: 0, boot_us: 0 },
        body: Body::Genesis(Genesis { origin, vkey, program, previous }),
    };
    log.leaves[0].clear();
    first.encode(&mut log.leaves[0]);
    // Where blobs are missing, and where approvals are open.
    for (name, entries) in [("audit", 17), ("audit-approvals", 33)] {
        let mut audit = Audit::new(Scope::Whole, &key);
        feed(&mut audit, &log, 0, entries);
        let saved = audit.save().unwrap();
        // The fuzz target adds the checksum.
        let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fuzz/corpus/ledger/");
        std::fs::write(format!("{dir}{name}"), &saved[..saved.len() - 32]).unwrap();
    }
}

proptest! {
    /// Whatever is in the file, with a right checksum or not: an audit or an error, and no panic when it goes on.
    #[test]
    fn hostile_states_are_harmless(at in 0..52usize, places in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4), cut in any::<prop::sample::Index>(), sum in any::<bool>()) {
        let log = log();
        let mut audit = Audit::new(Scope::Whole, &vkey());
        feed(&mut audit, &log, 0, at.min(log.leaves.len()));
        let mut saved = audit.save().unwrap();
        let body = saved.len() - 32;
        for (place, byte) in places {
            saved[place.index(body)] = byte;
        }
        if cut.index(4) == 0 {
            saved.truncate(cut.index(body) + 32);
        }
        if sum {
            let body = saved.len() - 32;
            let right = sha2::Sha256::digest(&saved[..body]);
            saved[body..].copy_from_slice(&right);
        }
        if let Ok(mut audit) = Audit::resume(&saved, &vkey()) {
            feed(&mut audit, &log, at, log.leaves.len());
            let _ = audit.save();
            let _ = audit.finish(None);
        }
    }
}

/// Frontiers, which states have many of, take any bytes too.
#[test]
fn a_frontier_has_as_many_hashes_as_its_size_says() {
    let mut frontier = Frontier::new();
    (0..5).for_each(|byte| frontier.append(Digest([byte; 32])));
    let bytes = frontier.to_bytes();
    assert_eq!(Frontier::from_bytes(&bytes).unwrap(), frontier);
    assert!(Frontier::from_bytes(&bytes[..bytes.len() - 1]).is_err());
}
