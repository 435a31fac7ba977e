//! Verifies a data directory over and over, for a profiler: `verify_speed DIR ROUNDS`. A directory that does not exist is
//! made, with a million entries of 300 bytes.
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::cast_precision_loss, missing_docs)]

use std::path::Path;
use std::time::Duration;

use model::{Label, Refused, RefusedReason};
use store::{GatewayEntry, Options, Recorder};

const ENTRIES: u64 = 1_000_000;
const ORIGIN: &str = "verify.example/1";

fn main() {
    let mut args = std::env::args().skip(1);
    let dir = args.next().unwrap();
    let rounds: u32 = args.next().unwrap().parse().unwrap();
    if !Path::new(&dir).exists() {
        make(Path::new(&dir));
    }
    for _ in 0..rounds {
        let (began, cpu) = (std::time::Instant::now(), cpu());
        let report = store::verify(Path::new(&dir), None, &mut |_| {}).unwrap();
        let (seconds, cpu) = (began.elapsed().as_secs_f64(), (self::cpu() - cpu).as_secs_f64());
        let entries = report.integrity.entries as f64;
        println!("{entries} entries: {:.0} a second, {:.0} a second of CPU", entries / seconds, entries / cpu);
    }
}

fn make(dir: &Path) {
    Recorder::create(dir, ORIGIN).unwrap();
    let options = Options { checkpoint_interval: Duration::from_secs(1), ..Options::new(ORIGIN) };
    let (recorder, _) = Recorder::open_dir(dir, options).unwrap();
    for number in 0..ENTRIES {
        let entry = Refused {
            reason: RefusedReason::AuthenticationFailed,
            source: format!("192.0.2.{}", number % 251),
            count: number % 17 + 1,
            first_us: 1_795_340_101_000_000,
            user: Some(Label::new(b"agent:copilot-agent")),
            connection: Some(Label::new(&[b'x'; 60])),
        };
        recorder.note(GatewayEntry::Refused(entry)).unwrap();
    }
    recorder.stop().unwrap();
}

/// The time that this thread has computed.
fn cpu() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
}
