//! What is changed on disk is named; what is only unfinished is not taken for damage.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::cast_possible_truncation)]

mod common;

use std::sync::Arc;

use common::*;
use model::{Approval, ApprovalEnd, ApprovalStep, Body, Field, Status};
use store::{OutcomeDraft, Reader, StoreError, tamper_on, verify_on};
use testkit::sim_disk::SimDisk;

const FIRST: &str = "log/00000000000000000000.seg";

/// A small log with two commands, cleanly stopped; and the offset at which its entries end.
fn small() -> (SimDisk, usize) {
    let disk = SimDisk::new();
    create(&disk).unwrap();
    let (recorder, _) = open(&disk).unwrap();
    let gate = recorder.gate();
    let (mut session, _opening) = recorder.open_session(start()).unwrap();
    command(&gate, &mut session, "select 1").unwrap();
    command(&gate, &mut session, "select 2").unwrap();
    session.close(closing()).unwrap();
    recorder.stop().unwrap();
    let end = disk.bytes(FIRST).unwrap().iter().rposition(|&b| b != 0).unwrap() + 1;
    (disk, end)
}

/// Where each entry's bytes are in the first segment.
fn places(disk: &SimDisk) -> Vec<(u64, usize, usize)> {
    let bytes = disk.bytes(FIRST).unwrap();
    let reader = Reader::on(Arc::new(disk.clone())).unwrap();
    let find = |leaf: &[u8]| bytes.windows(leaf.len()).position(|window| window == leaf).unwrap();
    reader.entries(0).map(Result::unwrap).map(|stored| (stored.index, find(&stored.leaf), stored.leaf.len())).collect()
}

#[test]
fn every_flipped_byte_is_named() {
    let (disk, end) = small();
    let places = places(&disk);
    let bytes = disk.bytes(FIRST).unwrap();
    for at in 0..end {
        // The header's zeros are covered by its checksum: one of them stands for all.
        if (200..4090).contains(&at) {
            continue;
        }
        let mut changed = bytes.clone();
        changed[at] ^= 1 << (at % 8);
        let broken = disk.copy();
        broken.set_bytes(FIRST, &changed);
        let report = verify_on(Arc::new(broken.clone()), None, &[], &mut |_| {}).unwrap();
        let violation =
            report.integrity.violation.unwrap_or_else(|| panic!("byte {at} was flipped and nobody noticed"));
        if let Some((index, start, _)) = places.iter().find(|(_, start, len)| (*start..start + len).contains(&at)) {
            assert_eq!(violation.index, Some(*index), "byte {at}: {violation:?}");
            assert_eq!((violation.file.as_str(), violation.offset), (FIRST, *start as u64), "byte {at}");
        }
        assert!(open(&broken).is_err(), "byte {at}: a damaged log was opened");
    }
}

#[test]
fn an_end_that_was_signed_cannot_be_cut_off() {
    let (disk, end) = small();
    let bytes = disk.bytes(FIRST).unwrap();
    for cut in (4096..end).step_by(7) {
        let mut changed = bytes.clone();
        changed[cut..].fill(0);
        let broken = disk.copy();
        broken.set_bytes(FIRST, &changed);
        let report = verify_on(Arc::new(broken.clone()), None, &[], &mut |_| {}).unwrap();
        assert!(report.integrity.violation.is_some(), "cut at {cut}");
        assert!(matches!(open(&broken), Err(StoreError::Shorter { .. })), "cut at {cut}");
        // A file that was truncated is no better.
        broken.set_bytes(FIRST, &bytes[..cut]);
        assert!(verify_on(Arc::new(broken.clone()), None, &[], &mut |_| {}).unwrap().integrity.violation.is_some());
        assert!(open(&broken).is_err());
    }
}

#[test]
fn a_torn_tail_of_any_length_is_dropped() {
    // The same log, without its checkpoint and its head: nobody relied on its end.
    let (disk, end) = small();
    let bytes = disk.bytes(FIRST).unwrap();
    let blank = SimDisk::new();
    create(&blank).unwrap();
    let whole = places(&disk);
    for cut in 4096..end {
        let torn = disk.copy();
        let mut changed = bytes.clone();
        changed[cut..].fill(0);
        torn.set_bytes(FIRST, &changed);
        torn.set_bytes("head", &blank.bytes("head").unwrap());
        store::Disk::remove(&torn, "checkpoint").unwrap();
        let Ok((recorder, recovery)) = open(&torn) else {
            panic!("cut at {cut}: a torn tail was taken for damage");
        };
        drop(recorder);
        assert!(recovery.entries <= whole.len() as u64);
        let report = verify_on(Arc::new(torn), None, &[], &mut |_| {}).unwrap();
        assert!(cut < 4096 + 600 || report.is_ok(), "cut at {cut}: {report:#?}");
    }
}

#[test]
fn an_acknowledged_group_before_others_is_never_a_torn_tail() {
    let (disk, _) = small();
    let bytes = disk.bytes(FIRST).unwrap();
    let blank = SimDisk::new();
    create(&blank).unwrap();
    for (index, start, len) in places(&disk).into_iter().filter(|(index, ..)| *index <= 3) {
        let broken = disk.copy();
        let mut changed = bytes.clone();
        changed[start..start + len].fill(0);
        broken.set_bytes(FIRST, &changed);
        // Without anything signed, the later groups alone say that this one was safe.
        broken.set_bytes("head", &blank.bytes("head").unwrap());
        store::Disk::remove(&broken, "checkpoint").unwrap();
        assert!(matches!(open(&broken), Err(StoreError::Corrupt { .. })), "entry {index}");
    }
}

/// Writes a segment's groups again with right checksums, after a change of its entries: what someone with access to the
/// disk can do. `links` says whether the groups' chain hashes are made right as well.
fn forge(bytes: &mut Vec<u8>, change: impl Fn(&mut Vec<u8>), links: bool) {
    use sha2::Digest as _;
    let salt: [u8; 16] = bytes[72..88].try_into().unwrap();
    let mut chain = [0u8; 32];
    let mut out = bytes[..4096].to_vec();
    let mut at = 4096;
    while bytes[at..at + 4] != [0; 4] {
        let length = u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap()) as usize;
        let (header, body) = (bytes[at..at + 56].to_vec(), bytes[at + 64..at + 64 + length].to_vec());
        at += (64 + length).next_multiple_of(8);
        let (mut entries, mut rest) = (Vec::new(), body.as_slice());
        let mut hash = sha2::Sha256::new_with_prefix(chain);
        while !rest.is_empty() {
            let length = u16::from_be_bytes([rest[0], rest[1]]) as usize;
            let mut leaf = rest[6..6 + length].to_vec();
            rest = &rest[6 + length..];
            change(&mut leaf);
            hash.update(ledger::leaf_hash(&leaf).0);
            entries.extend((leaf.len() as u16).to_be_bytes());
            entries.extend(crc32c::crc32c(&leaf).to_be_bytes());
            entries.extend(leaf);
        }
        chain = if links { hash.finalize().into() } else { header[24..56].try_into().unwrap() };
        let mut group = (entries.len() as u32).to_be_bytes().to_vec();
        group.extend(&header[4..24]);
        group.extend(chain);
        group.extend([0; 4]);
        let crc = crc32c::crc32c_append(crc32c::crc32c_append(crc32c::crc32c(&salt), &group), &entries);
        group.extend(crc.to_be_bytes());
        group.extend(entries);
        group.resize(group.len().next_multiple_of(8), 0);
        out.extend(group);
    }
    out.resize(bytes.len(), 0);
    *bytes = out;
}

#[test]
fn a_forger_who_mends_checksums_is_found_by_the_hashes() {
    let (disk, _) = small();
    let bytes = disk.bytes(FIRST).unwrap();
    let mut same = bytes.clone();
    forge(&mut same, |_| {}, true);
    assert!(same == bytes, "the forger of this test writes what the store writes");
    let change = |leaf: &mut Vec<u8>| {
        let text = String::from_utf8(leaf.clone()).unwrap();
        *leaf = text.replacen("\"bytes\":42", "\"bytes\":43", 1).into_bytes();
    };
    for links in [false, true] {
        let mut changed = bytes.clone();
        forge(&mut changed, change, links);
        let broken = disk.copy();
        broken.set_bytes(FIRST, &changed);
        let report = verify_on(Arc::new(broken.clone()), None, &[], &mut |_| {}).unwrap();
        let violation = report.integrity.violation.unwrap();
        let reader = Reader::on(Arc::new(disk.clone())).unwrap();
        let first = reader.entries(0).map(Result::unwrap).find(|s| matches!(s.entry.body, Body::Intent(_))).unwrap();
        assert_eq!(violation.index, Some(first.index), "{violation:?}");
        assert!(violation.command.is_some());
        assert!(open(&broken).is_err());
    }
}

#[test]
fn tampering_for_a_demonstration_is_named() {
    let (disk, _) = small();
    let done = tamper_on(Arc::new(disk.clone()), None).unwrap().unwrap();
    let violation = verify_on(Arc::new(disk.clone()), None, &[], &mut |_| {}).unwrap().integrity.violation.unwrap();
    assert_eq!((violation.index, violation.command), (Some(done.index), Some(done.command)));
    assert_eq!(violation.file, done.file);
    // Nor is what comes behind it taken for all there is.
    let reader = Reader::on(Arc::new(disk)).unwrap();
    assert!(matches!(reader.break_glass_from(0), Err(StoreError::Corrupt { .. })));
}

#[test]
fn another_key_or_another_checkpoint_is_refused() {
    let (disk, _) = small();
    let other = ledger::SigningKey::new(ORIGIN, &[9; 32]).unwrap();
    let report = verify_on(Arc::new(disk.clone()), Some(&other.verifier()), &[], &mut |_| {}).unwrap();
    assert_eq!(report.integrity.violation.unwrap().file, "checkpoint");

    // A log that was made again from scratch does not have what was signed.
    let forged = disk.copy();
    let fresh = SimDisk::new();
    create(&fresh).unwrap();
    forged.set_bytes(FIRST, &fresh.bytes(FIRST).unwrap());
    assert!(matches!(open(&forged), Err(StoreError::Shorter { .. })));
    let (recorder, _) = open(&fresh).unwrap();
    let gate = recorder.gate();
    for _ in 0..20 {
        durable(&gate, recorder.note(heartbeat()).unwrap()).unwrap();
    }
    recorder.stop().unwrap();
    forged.set_bytes(FIRST, &fresh.bytes(FIRST).unwrap());
    assert!(matches!(open(&forged), Err(StoreError::Forked { .. })));
    assert!(!verify_on(Arc::new(forged), None, &[], &mut |_| {}).unwrap().is_ok());
}

#[test]
fn a_full_disk_stops_new_commands_and_completes_old_ones() {
    let disk = SimDisk::new();
    create(&disk).unwrap();
    disk.full_from(0);
    // Keys for sessions are made at the start, and that needs space.
    assert!(open(&disk).is_err());
    let disk = disk.copy();
    let (recorder, _) = open(&disk).unwrap();
    let gate = recorder.gate();
    let (mut session, _opening) = recorder.open_session(start()).unwrap();
    let text = session.seal(b"select pg_sleep(1)");
    let pending = session.intent(&intent(&text, &Field::NONE)).unwrap();
    let running = admit(&gate, pending).unwrap();
    // The next segment is made ahead, by another thread.
    while !disk.paths().iter().any(|path| path == "log/spare") {
        std::thread::yield_now();
    }
    disk.full_from(0);
    let mut refused = None;
    for i in 0..2000 {
        if let Err(error) = command(&gate, &mut session, &format!("select {i} {}", "x".repeat(200))) {
            refused = Some(error);
            break;
        }
    }
    assert_eq!(refused, Some(store::RecordError::Full));
    // Nor does a command begin that was held until now; that it is over can be said.
    let of = running.command();
    let step = |step| recorder.note_approval(Approval { of, step });
    assert_eq!(step(ApprovalStep::Used { command: of }).err(), refused);
    assert!(step(ApprovalStep::Ended { how: ApprovalEnd::Expired }).is_ok());
    session.outcome(running, &OutcomeDraft::new(Status::Ok)).unwrap();
    session.close(closing()).unwrap();
    recorder.stop().unwrap();
    let report = verify_on(Arc::new(disk), None, &[], &mut |_| {}).unwrap();
    assert!(report.is_ok(), "{report:#?}");
    assert!(report.completeness.stopped);
}
