//! The published log: a pure function of the segments, whatever fails while it is written.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::cast_possible_truncation)]

mod common;

use std::any::Any;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::Duration;

use common::*;
use ledger::{Checkpoint, CosignerKey, SignedNote, Tile, TileKind, leaf_hash, root, root_of, tiles};
use model::Digest;
use store::{Disk, DiskFile, Mode, Options, Published, Reader, Recorder};
use testkit::sim_disk::{Fault, SimDisk, Unsynced};

fn leaves(disk: &SimDisk) -> Vec<Vec<u8>> {
    let reader = Reader::on(Arc::new(disk.clone())).unwrap();
    reader.entries(0).map(|stored| stored.unwrap().leaf).collect()
}

fn vkey(disk: &SimDisk) -> ledger::VerifierKey {
    Reader::on(Arc::new(disk.clone())).unwrap().vkey().clone()
}

/// Every tile and bundle of a size, made from the entries in the plainest way.
fn expected(leaves: &[Vec<u8>]) -> Vec<(Tile, Vec<u8>)> {
    let hashes: Vec<Digest> = leaves.iter().map(|leaf| leaf_hash(leaf)).collect();
    tiles(leaves.len() as u64)
        .map(|tile| {
            let (first, count) = (tile.index() as usize * 256, usize::from(tile.width()));
            let bytes = match tile.kind() {
                TileKind::Entries => leaves[first..first + count]
                    .iter()
                    .flat_map(|leaf| [&(leaf.len() as u16).to_be_bytes()[..], leaf].concat())
                    .collect(),
                TileKind::Hashes(level) => {
                    let span = 256usize.pow(level.into());
                    (first..first + count).flat_map(|i| root(&hashes[i * span..][..span]).0).collect()
                }
            };
            (tile, bytes)
        })
        .collect()
}

/// What was published is right: all of it is there, and it is what the log says. Gives its size.
fn check(disk: &SimDisk, what: &str) -> u64 {
    let published = Published::open(Arc::new(disk.clone()));
    let Some(note) = published.checkpoint().unwrap_or_else(|error| panic!("{what}: {error}")) else {
        return 0;
    };
    let checkpoint = Checkpoint::open(&note, &vkey(disk)).unwrap_or_else(|error| panic!("{what}: {error}"));
    let leaves = leaves(disk);
    let size = checkpoint.size as usize;
    assert!(size <= leaves.len(), "{what}: {size} entries were published, the log has {}", leaves.len());
    for (tile, bytes) in expected(&leaves[..size]) {
        let found = published.tile(&tile).unwrap_or_else(|error| panic!("{what}: {}: {error}", tile.path()));
        assert!(found == bytes, "{what}: {} is not what the log says", tile.path());
    }
    let found = root_of(&mut published.nodes(checkpoint.size), checkpoint.size).unwrap();
    assert_eq!(found, checkpoint.root, "{what}");
    checkpoint.size
}

/// Enough entries for two full tiles, and a checkpoint now and then.
fn long_life(disk: &Arc<dyn Disk>, options: Options) -> Recorder {
    let (recorder, _) =
        Recorder::open(disk.clone(), options, Arc::new(TestClock::new()), Box::new(TestRandom(2))).unwrap();
    let gate = recorder.gate();
    let (mut session, opening) = recorder.open_session(start()).unwrap();
    durable(&gate, opening.position()).unwrap();
    for i in 0..300 {
        command(&gate, &mut session, &format!("select {i}")).unwrap();
    }
    session.close(closing()).unwrap();
    recorder
}

#[test]
fn the_published_log_is_what_the_segments_say() {
    let disk = SimDisk::new();
    create(&disk).unwrap();
    let shared: Arc<dyn Disk> = Arc::new(disk.clone());
    for round in 1..=4 {
        let recorder = long_life(&shared, Options { checkpoint_interval: Duration::from_millis(1), ..options() });
        let (size, note) = recorder.wait_checkpoint(0, Duration::from_secs(20)).expect("a checkpoint");
        assert!(size > 0 && note.starts_with(ORIGIN));
        recorder.stop().unwrap();
        let size = check(&disk, "stopped");
        assert_eq!(size, leaves(&disk).len() as u64, "all of it, round {round}");
        let files = disk.paths().iter().filter(|path| path.starts_with("tiles/tile/")).count();
        let needed = tiles(size).count();
        assert!(files <= 2 * needed + 8, "old partial tiles go: {files} files, {needed} tiles");
    }
    // A partial tile of an older size is cut from the full one.
    let published = Published::open(shared.clone());
    for (tile, bytes) in expected(&leaves(&disk)[..77]) {
        assert_eq!(published.tile(&tile).unwrap(), bytes, "{}", tile.path());
    }
    // What is removed is made again.
    let before: Vec<_> = disk.paths().into_iter().filter(|path| path.starts_with("tiles/")).collect();
    before.iter().for_each(|path| Disk::remove(&disk, path).unwrap());
    open(&disk).unwrap().0.stop().unwrap();
    check(&disk, "made again");
}

#[test]
fn a_crash_leaves_only_what_is_right_published() {
    let life = |disk: &SimDisk| {
        let shared: Arc<dyn Disk> = Arc::new(disk.clone());
        let opened = Recorder::open(shared, options(), Arc::new(TestClock::new()), Box::new(TestRandom(2)));
        let Ok((recorder, _)) = opened else { return };
        let gate = recorder.gate();
        for i in 0..2 {
            let Ok((mut session, _)) = recorder.open_session(start()) else { return };
            for j in 0..70 {
                let text = session.seal(format!("select {i}, {j}").as_bytes());
                let draft = intent(&text, &model::Field::NONE);
                if session.settled(&draft, &store::OutcomeDraft::new(model::Status::Denied)).is_err() {
                    return;
                }
            }
            let _ = session.close(closing());
            if recorder.flush().is_err() {
                return;
            }
        }
        drop(gate);
        let _ = recorder.stop();
    };
    let created = || {
        let disk = SimDisk::new();
        create(&disk).unwrap();
        // A first run has published something already.
        life(&disk);
        disk
    };
    let clean = created();
    let before = clean.operations();
    life(&clean);
    let operations = clean.operations() - before;
    assert!(check(&clean, "clean") > 512);
    for at in 0..operations {
        let disk = created();
        disk.at(disk.operations() + at, Fault::Crash);
        life(&disk);
        disk.crash();
        for state in
            [Unsynced::Dropped, Unsynced::Kept, Unsynced::Reordered(at), Unsynced::Torn(at), Unsynced::Torn(!at)]
        {
            let what = format!("crash at operation {at}, {state:?}");
            let disk = disk.after_crash(state);
            check(&disk, &what);
            let (recorder, _) = open(&disk).unwrap_or_else(|error| panic!("{what}: {error}"));
            recorder.stop().unwrap();
            assert_eq!(check(&disk, &what), leaves(&disk).len() as u64, "{what}");
        }
    }
}

/// A disk that refuses to write tiles while it is told to.
struct NoTiles(SimDisk, AtomicBool);

impl NoTiles {
    fn refuse(&self, path: &str) -> io::Result<()> {
        let refuses = path.starts_with("tiles") && self.1.load(SeqCst);
        if refuses { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }
}

impl Disk for NoTiles {
    fn open(&self, path: &str, mode: Mode) -> io::Result<Box<dyn DiskFile>> {
        if mode != Mode::Read {
            self.refuse(path)?;
        }
        self.0.open(path, mode)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.refuse(to)?;
        self.0.rename(from, to)
    }

    fn remove(&self, path: &str) -> io::Result<()> {
        self.0.remove(path)
    }

    fn list(&self, dir: &str) -> io::Result<Vec<String>> {
        self.0.list(dir)
    }

    fn create_dir(&self, dir: &str) -> io::Result<()> {
        self.refuse(dir)?;
        self.0.create_dir(dir)
    }

    fn remove_dir(&self, dir: &str) -> io::Result<()> {
        self.0.remove_dir(dir)
    }

    fn sync_all(&self) -> io::Result<()> {
        self.0.sync_all()
    }

    fn sync_dir(&self, dir: &str) -> io::Result<()> {
        self.0.sync_dir(dir)
    }

    fn lock(&self, path: &str) -> io::Result<Box<dyn Any + Send + Sync>> {
        self.0.lock(path)
    }
}

#[test]
fn recording_goes_on_when_tiles_cannot_be_written() {
    let disk = SimDisk::new();
    create(&disk).unwrap();
    let refusing = Arc::new(NoTiles(disk.clone(), AtomicBool::new(true)));
    let shared: Arc<dyn Disk> = refusing.clone();
    let recorder = long_life(&shared, Options { checkpoint_interval: Duration::from_millis(1), ..options() });
    assert_eq!(recorder.wait_checkpoint(0, Duration::from_millis(200)), None);
    let why = recorder.unpublished().expect("a reason");
    assert!(why.contains("publishing the log"), "{why}");
    assert_eq!(recorder.health(), store::Health::Accepting);
    refusing.1.store(false, SeqCst);
    recorder.note(heartbeat()).unwrap();
    recorder.flush().unwrap();
    let (size, _) = recorder.wait_checkpoint(600, Duration::from_secs(20)).expect("it catches up");
    assert_eq!(recorder.unpublished(), None);
    assert!(check(&disk, "caught up") >= size);
    recorder.stop().unwrap();
}

#[test]
fn cosignatures_are_published_with_their_checkpoint() {
    let disk = SimDisk::new();
    create(&disk).unwrap();
    let (recorder, _) = open(&disk).unwrap();
    recorder.note(heartbeat()).unwrap();
    recorder.stop().unwrap();
    let (recorder, _) = open(&disk).unwrap();
    let (size, note) = recorder.wait_checkpoint(0, Duration::from_secs(20)).expect("published at the start");
    let witness = CosignerKey::new("witness.example.com", &[3; 32]).unwrap();
    let mut note = SignedNote::parse(&note).unwrap();
    note.add(witness.cosign(note.text(), 1_763_804_200).unwrap());
    recorder.cosigned(&note).unwrap();
    let published = recorder.published();
    for text in [published.checkpoint().unwrap().unwrap(), published.cosigned().unwrap().unwrap()] {
        assert_eq!(witness.verifier().verify(&SignedNote::parse(&text).unwrap()), Ok(1_763_804_200));
    }
    assert_eq!(recorder.wait_checkpoint(0, Duration::ZERO).unwrap().1, note.to_string());
    // A newer checkpoint takes its place; the cosigned one stays beside it.
    recorder.note(heartbeat()).unwrap();
    recorder.stop().unwrap();
    assert!(check(&disk, "a newer one") > size);
    assert!(published.cosigned().unwrap().unwrap().contains("witness.example.com"));
    assert!(!published.checkpoint().unwrap().unwrap().contains("witness.example.com"));
}
#[test]
fn a_third_level() {
    let disk = SimDisk::new();
    create(&disk).unwrap();
    let shared: Arc<dyn Disk> = Arc::new(disk.clone());
    let big = Options { segment_bytes: 8 << 20, ..options() };
    let open = |seed| {
        Recorder::open(shared.clone(), big.clone(), Arc::new(TestClock::new()), Box::new(TestRandom(seed))).unwrap().0
    };
    let recorder = open(2);
    for _ in 0..70_000 {
        recorder.note(heartbeat()).unwrap();
    }
    recorder.stop().unwrap();
    assert_eq!(check(&disk, "stopped"), 70_002);
    disk.paths()
        .into_iter()
        .filter(|path| path.starts_with("tiles/"))
        .for_each(|path| Disk::remove(&disk, &path).unwrap());
    let recorder = open(3);
    recorder.stop().unwrap();
    assert_eq!(check(&disk, "made again"), 70_003);
}
