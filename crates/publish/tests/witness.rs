//! A witness on a disk that behaves as badly as a real one may: whatever happens, it never cosigns two roots of one size,
//! nor two futures of one past.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::sync::Arc;

use ledger::{
    AddCheckpoint, Checkpoint, CosignerVerifier, Refusal, SignatureLine, SignedNote, SigningKey, consistency_proof,
    leaf_hash, root,
};
use model::Digest;
use publish::{Witness, WitnessError, origin_name};
use store::Disk;
use testkit::sim_disk::{Fault, SimDisk, Unsynced};

const ORIGIN: &str = "log.example.com/1";
/// The forks have so many entries in common.
const COMMON: usize = 3;

fn key() -> SigningKey {
    SigningKey::new(ORIGIN, &[1; 32]).unwrap()
}

fn leaves(fork: &str, size: usize) -> Vec<Digest> {
    let of = |index: usize| if index < COMMON { "common" } else { fork };
    (0..size).map(|index| leaf_hash(format!("{} {index}", of(index)).as_bytes())).collect()
}

fn request(fork: &str, old: usize, size: usize) -> AddCheckpoint {
    let leaves = leaves(fork, size);
    let checkpoint = Checkpoint { origin: ORIGIN.into(), size: size as u64, root: root(&leaves) };
    let proof = consistency_proof(&leaves, old).unwrap_or_default();
    AddCheckpoint { old: old as u64, proof, checkpoint: checkpoint.sign(&key()).unwrap() }
}

/// Asks as a log does: from nothing first, then from what the witness says it has.
fn ask(witness: &Witness, fork: &str, size: usize) -> Result<SignatureLine, WitnessError> {
    let mut old = 0;
    for _ in 0..3 {
        match witness.add_checkpoint(&request(fork, old, size).to_string(), 1_763_804_101) {
            Err(WitnessError::Refused(Refusal::Conflict { size: known }))
                if (old..=size).contains(&usize::try_from(known).unwrap()) =>
            {
                old = usize::try_from(known).unwrap();
            }
            answer => return answer,
        }
    }
    Err(Refusal::Inconsistent.into())
}

/// Every cosignature that ever left, by size.
#[derive(Default)]
struct Seen(BTreeMap<usize, &'static str>);

impl Seen {
    /// Notes a cosignature; all of them must be of one past.
    fn note(&mut self, size: usize, fork: &'static str) {
        if size > COMMON {
            self.0.insert(size, fork);
            assert!(self.0.values().all(|other| *other == fork), "two pasts were cosigned: {:?}", self.0);
        }
    }

    /// Two forks of one log ask in turn, until the disk fails.
    fn work(&mut self, witness: &Witness, first: &'static str, second: &'static str) {
        for size in [2, COMMON, 5, 6, 9] {
            for fork in [first, second] {
                if ask(witness, fork, size).is_ok() {
                    self.note(size, fork);
                }
            }
        }
    }
}

fn made() -> SimDisk {
    let disk = SimDisk::new();
    Witness::init_on(&disk, "witness.example.com/1").unwrap();
    Witness::add_log_on(&disk, &key().verifier()).unwrap();
    disk.copy()
}

fn open(disk: &SimDisk) -> Result<Witness, WitnessError> {
    let disk: Arc<dyn Disk> = Arc::new(disk.clone());
    Witness::open_on(disk)
}

/// How many operations the whole work has.
fn operations() -> u64 {
    let disk = made();
    Seen::default().work(&open(&disk).unwrap(), "a", "b");
    disk.operations()
}

#[test]
fn a_crash_at_any_operation_makes_it_forget_nothing() {
    let ends = [Unsynced::Dropped, Unsynced::Kept, Unsynced::Reordered(1), Unsynced::Torn(2), Unsynced::Torn(3)];
    let mut crashed = 0;
    for operation in 0..operations() {
        for unsynced in ends {
            let disk = made();
            disk.at(operation, Fault::Crash);
            let mut seen = Seen::default();
            if let Ok(witness) = open(&disk) {
                seen.work(&witness, "a", "b");
            }
            crashed += u32::from(disk.crashed());
            // The other fork is first now.
            let disk = disk.after_crash(unsynced);
            let witness = open(&disk).unwrap_or_else(|error| panic!("{operation} {unsynced:?}: {error}"));
            seen.work(&witness, "b", "a");
            assert!(seen.0.contains_key(&9), "{operation} {unsynced:?}: it goes on");
        }
    }
    assert!(crashed > 100, "{crashed}");
}

#[test]
fn a_disk_that_refuses_gets_no_cosignature() {
    let faults = [
        Fault::Error(ErrorKind::StorageFull),
        Fault::Error(ErrorKind::Other),
        Fault::ErrorAfter(ErrorKind::Other),
        Fault::Short,
    ];
    for operation in 0..operations() {
        for fault in faults {
            let disk = made();
            disk.at(operation, fault);
            let mut seen = Seen::default();
            let Ok(witness) = open(&disk) else { continue };
            seen.work(&witness, "a", "b");
            seen.work(&witness, "b", "a");
            drop(witness);
            // And neither has the next process forgotten.
            let disk = disk.after_crash(Unsynced::Dropped);
            seen.work(&open(&disk).unwrap(), "b", "a");
            assert!(seen.0.contains_key(&9), "{operation} {fault:?}: it goes on");
        }
    }
}

#[test]
fn many_who_ask_at_once_get_one_past() {
    let disk = made();
    let witness = open(&disk).unwrap();
    let cosigned = std::thread::scope(|scope| {
        let ask = |number: usize| {
            let fork = ["a", "b", "c", "d"][number % 4];
            let size = COMMON + 1 + number / 4;
            let witness = &witness;
            scope.spawn(move || ask(witness, fork, size).ok().map(|_| (size, fork)))
        };
        let threads: Vec<_> = (0..32).map(ask).collect();
        threads.into_iter().filter_map(|thread| thread.join().unwrap()).collect::<Vec<_>>()
    });
    let mut seen = Seen::default();
    assert!(!cosigned.is_empty());
    cosigned.into_iter().for_each(|(size, fork)| seen.note(size, fork));
}

#[test]
fn it_answers_as_the_specification_says() {
    let disk = made();
    let witness = open(&disk).unwrap();
    let add = |request: &AddCheckpoint| witness.add_checkpoint(&request.to_string(), 1_763_804_101);
    let refused = |request: &AddCheckpoint| match add(request) {
        Err(WitnessError::Refused(refusal)) => (refusal.status(), refusal),
        other => panic!("{other:?}"),
    };
    assert_eq!(refused(&AddCheckpoint { old: 9, ..request("a", 0, 5) }).0, 400);
    assert_eq!(refused(&request("a", 3, 5)).1, Refusal::Conflict { size: 0 });
    let line = add(&request("a", 0, 5)).unwrap();
    // A cosignature that the witness's own key verifies, on that very note.
    let mut note = SignedNote::parse(&request("a", 0, 5).checkpoint).unwrap();
    note.add(line);
    let verifier: CosignerVerifier = witness.vkey().parse().unwrap();
    assert_eq!(verifier.verify(&note), Ok(1_763_804_101));
    // The same once more, a rollback, another root of that size, another future, and no proof at all.
    assert!(add(&request("a", 5, 5)).is_ok());
    assert_eq!(refused(&request("a", 0, 4)), (409, Refusal::Conflict { size: 5 }));
    assert_eq!(refused(&request("b", 5, 5)), (422, Refusal::Inconsistent));
    assert_eq!(refused(&request("b", 5, 8)).0, 422);
    assert_eq!(refused(&AddCheckpoint { proof: vec![], ..request("a", 5, 8) }).0, 422);
    // Logs and keys that it does not know.
    let stranger = SigningKey::new("other.example.com/1", &[2; 32]).unwrap();
    let of = |key: &SigningKey, origin: &str| {
        Checkpoint { origin: origin.into(), size: 1, root: leaf_hash(b"x") }.sign(key).unwrap()
    };
    assert_eq!(
        refused(&AddCheckpoint { old: 0, proof: vec![], checkpoint: of(&stranger, "other.example.com/1") }).0,
        404
    );
    let impostor = SigningKey::new(ORIGIN, &[3; 32]).unwrap();
    assert_eq!(refused(&AddCheckpoint { old: 0, proof: vec![], checkpoint: of(&impostor, ORIGIN) }).0, 403);
    assert!(matches!(witness.add_checkpoint("nonsense", 0), Err(WitnessError::Refused(Refusal::Malformed))));
    // It shows what it cosigned last, and nothing else.
    let shown = witness.latest(&origin_name(ORIGIN)).unwrap().unwrap();
    assert_eq!(Checkpoint::open(&shown.to_string(), &key().verifier()).unwrap().size, 5);
    assert!(verifier.verify(&shown).is_ok());
    assert!(witness.latest(&origin_name("other.example.com/1")).unwrap().is_none());
    assert!(witness.latest("../key").unwrap().is_none());
}

/// A log may hand in as many signatures of others as a note can have: they do not take the place of the witness's own.
#[test]
fn signatures_of_others_are_not_kept() {
    let disk = made();
    let witness = open(&disk).unwrap();
    let mut request = request("a", 0, 5);
    let mut note = SignedNote::parse(&request.checkpoint).unwrap();
    for id in 0..200 {
        note.add(SignatureLine { name: "nobody".into(), id, signature: vec![0; 64] });
    }
    request.checkpoint = note.to_string();
    witness.add_checkpoint(&request.to_string(), 1).unwrap();
    drop(witness);
    let witness = open(&disk).unwrap();
    assert_eq!(witness.latest(&origin_name(ORIGIN)).unwrap().unwrap().signatures().len(), 2);
}

#[test]
fn a_damaged_state_stops_it() {
    let file = format!("logs/{}", origin_name(ORIGIN));
    let disk = made();
    ask(&open(&disk).unwrap(), "a", 5).unwrap();
    let bytes = disk.bytes(&file).unwrap();
    for at in 0..bytes.len() {
        let mut changed = bytes.clone();
        changed[at] ^= 1;
        disk.set_bytes(&file, &changed);
        assert!(matches!(open(&disk), Err(WitnessError::Damaged { .. })), "byte {at}");
    }
    for length in 0..bytes.len() {
        disk.set_bytes(&file, &bytes[..length]);
        assert!(matches!(open(&disk), Err(WitnessError::Damaged { .. })), "length {length}");
    }
}

#[test]
fn a_key_and_a_log_are_never_exchanged() {
    let dir = tempfile::tempdir().unwrap();
    assert!(matches!(Witness::add_log(dir.path(), &key().verifier()), Err(WitnessError::NoWitness)));
    assert!(matches!(Witness::open(dir.path()), Err(WitnessError::NoWitness)));
    assert!(matches!(Witness::init(dir.path(), "a name"), Err(WitnessError::Key(_))));
    Witness::init(dir.path(), "witness.example.com/1").unwrap();
    assert!(matches!(Witness::init(dir.path(), "witness.example.com/2"), Err(WitnessError::Exists)));
    let witness = Witness::open(dir.path()).unwrap();
    assert!(matches!(Witness::open(dir.path()), Err(WitnessError::Locked)));
    // While it is served, it learns a log, and another key for it is refused.
    Witness::add_log(dir.path(), &key().verifier()).unwrap();
    Witness::add_log(dir.path(), &key().verifier()).unwrap();
    let other = SigningKey::new(ORIGIN, &[9; 32]).unwrap().verifier();
    assert!(matches!(Witness::add_log(dir.path(), &other), Err(WitnessError::OtherKey(_))));
    ask(&witness, "a", 5).unwrap();
    drop(witness);
    Witness::add_log(dir.path(), &key().verifier()).unwrap();
    assert!(Witness::open(dir.path()).unwrap().states()[0].note.is_some(), "adding it again changes nothing");
    use std::os::unix::fs::PermissionsExt as _;
    let mode = std::fs::metadata(dir.path().join("key")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}
