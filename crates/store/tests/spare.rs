//! The next segment is made ahead by one thread and taken by another: whatever the moment, the entries go to the file
//! that has the segment's name.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod common;

use std::any::Any;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use common::*;
use store::{Disk, DiskFile, Mode, Options, Recorder, verify_on};
use testkit::sim_disk::SimDisk;

/// A disk that takes its time over giving the spare segment its name, so that the keeper comes by in between.
struct Slow(SimDisk);

/// Long enough for many rounds of a keeper that comes by every millisecond.
const RENAME_TAKES: Duration = Duration::from_millis(50);

impl Disk for Slow {
    fn open(&self, path: &str, mode: Mode) -> io::Result<Box<dyn DiskFile>> {
        self.0.open(path, mode)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        if from == "log/spare" {
            std::thread::sleep(RENAME_TAKES);
        }
        self.0.rename(from, to)
    }

    fn remove(&self, path: &str) -> io::Result<()> {
        self.0.remove(path)
    }

    fn list(&self, dir: &str) -> io::Result<Vec<String>> {
        self.0.list(dir)
    }

    fn create_dir(&self, dir: &str) -> io::Result<()> {
        self.0.create_dir(dir)
    }

    fn sync_dir(&self, dir: &str) -> io::Result<()> {
        self.0.sync_dir(dir)
    }

    fn remove_dir(&self, dir: &str) -> io::Result<()> {
        self.0.remove_dir(dir)
    }

    fn sync_all(&self) -> io::Result<()> {
        self.0.sync_all()
    }

    fn lock(&self, path: &str) -> io::Result<Box<dyn Any + Send + Sync>> {
        self.0.lock(path)
    }
}

/// Once, the keeper saw no spare while the old one was waiting for its new name, made another in its place, and that
/// one, empty, became the segment.
#[test]
fn the_keeper_comes_by_while_the_spare_is_being_named() {
    let disk = SimDisk::new();
    create(&disk).unwrap();
    let options = Options { checkpoint_interval: Duration::from_millis(1), ..options() };
    let slow: Arc<dyn Disk> = Arc::new(Slow(disk.clone()));
    let (recorder, _) = Recorder::open(slow, options, Arc::new(TestClock::new()), Box::new(TestRandom(2))).unwrap();
    let gate = recorder.gate();
    let (mut session, opening) = recorder.open_session(start()).unwrap();
    durable(&gate, opening.position()).unwrap();
    // Five segments of 128 KiB.
    let text = "x".repeat(10_000);
    for _ in 0..50 {
        command(&gate, &mut session, &text).unwrap();
    }
    session.close(closing()).unwrap();
    recorder.stop().unwrap();
    let segments = disk.paths().iter().filter(|path| path.ends_with(".seg")).count();
    assert!(segments >= 4, "{segments} segments");
    let report = verify_on(Arc::new(disk), None, &[], &mut |_| {}).unwrap();
    assert!(report.is_ok(), "{report:#?}");
    assert_eq!(report.completeness.commands, 50);
}
