//! `cargo xtask bench record`: what the record itself costs, beside the raw disk in the same run.
//!
//! In one process, over the store's own interface: no network, no database. Raw flushes and durable appends are taken in
//! turns, so that both see the same disk; a bar is a ratio to the flush where the disk decides, and absolute where the
//! processor does.

use std::fmt::Write as _;
use std::io::Write as _;
use std::num::NonZeroU64;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::task::{Context, Wake, Waker};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use ledger::{TileKind, tiles};
use model::{
    ChannelBinding, Durability, Field, Identity, Known, Label, Proof, ProofMethod, Refused, RefusedReason, SessionEnd,
    StatementResult, Status, Via,
};
use store::{
    Gate, GatewayEntry, IntentDraft, Level, Lone, Options, OutcomeDraft, Pending, Position, Recorder, SessionClosing,
    SessionLog, SessionStart,
};

use crate::measure::{Disk, microseconds};

/// How a run is cut to size.
#[derive(clap::Args, Clone)]
pub(crate) struct Arguments {
    /// Shorter measurements: a minute in all.
    #[arg(long)]
    quick: bool,
    /// Where to put the record: on the disk that is to be measured.
    #[arg(long, default_value = "/var/tmp")]
    dir: PathBuf,
}

const ORIGIN: &str = "bench.example/1";
const TEXT: &[u8] = b"SELECT abalance FROM pgbench_accounts WHERE aid = 123456;";
/// Sessions of the throughput measurement, on two threads as the gateway has them.
const WRITERS: usize = 64;
const THREADS: usize = 2;
/// The bar.
const ENTRIES_A_SECOND: f64 = 100_000.0;
/// Commands a second of the latency measurements.
const RATES: [u32; 3] = [1_000, 2_000, 5_000];

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let dir = tempfile::Builder::new().prefix("onrecord-bench-").tempdir_in(&arguments.dir)?;
    let mut disk = Disk::new(dir.path())?;
    let scale = if arguments.quick { 1 } else { 4 };
    let mut table = Table::default();
    single(dir.path(), &mut disk, scale, &mut table)?;
    let log = throughput(dir.path(), scale, &mut table)?;
    restart(&log, &mut table)?;
    verify(&log, &mut table)?;
    archived(dir.path(), &log, &mut table)?;
    for order in [Scheduling::Normal, Scheduling::Raised] {
        latencies(dir.path(), &mut disk, scale, order, &mut table)?;
    }
    Ok(writeln!(std::io::stdout(), "{}", table.text())?)
}

/// One writer: each append waits until it is durable, raw flushes in between.
fn single(dir: &Path, disk: &mut Disk, scale: usize, table: &mut Table) -> anyhow::Result<()> {
    let recorder = open(&dir.join("single"))?;
    let gate = recorder.gate();
    let mut session = begin(&recorder, &gate)?;
    let (mut raw, mut ours) = (Vec::new(), Vec::new());
    for _ in 0..10 * scale {
        raw.extend(disk.flushes_us(100)?);
        for _ in 0..100 {
            let start = Instant::now();
            let pending = intent(&mut session)?;
            wait(&gate, pending.position(), Lone::Yes);
            ours.push(microseconds(start.elapsed()));
            end(&gate, &mut session, pending)?;
        }
    }
    finish(session, recorder)?;
    let (raw, ours) = (middle(&mut raw), middle(&mut ours));
    table.fact("raw flush: 4 KiB written, fdatasync", &format!("{raw:.0} µs"));
    table.bar(
        "one writer, durable append, against the raw flush",
        &format!("{ours:.0} µs"),
        ours / raw,
        "x",
        1.3,
        Most,
    );
    Ok(())
}

/// 64 sessions on two threads, each with one command at a time: what is durable, in the tree and signed. Once as fast as
/// it goes, and once at the rate of the bar, to see how far behind the published log is then.
fn throughput(dir: &Path, scale: usize, table: &mut Table) -> anyhow::Result<PathBuf> {
    let log = dir.join("throughput");
    let length = Duration::from_secs(2 * scale as u64);
    let (rate, what, lag) = writers(&log, length, None)?;
    let name = "64 writers, durable entries a second, tree and tiles included";
    table.bar(name, &what, rate, "/s", ENTRIES_A_SECOND, Least);
    table.fact("  until an entry is in a published checkpoint, at that rate", &format!("{lag:.2} s (worst seen)"));
    let (rate, _, lag) = writers(&dir.join("paced"), length, Some(ENTRIES_A_SECOND))?;
    let name = "64 writers, until an entry is in a published checkpoint, worst seen";
    table.bar(name, &format!("at {rate:.0} entries a second"), lag, "s", 1.0, Most);
    Ok(log)
}

/// Entries a second, what that was, and the longest time until an entry was published.
fn writers(log: &Path, length: Duration, rate: Option<f64>) -> anyhow::Result<(f64, String, f64)> {
    let recorder = open(log)?;
    let stop = Arc::new(AtomicBool::new(false));
    let before = recorder.appended();
    let began = Instant::now();
    // Each command is two entries.
    let pause = rate.map(|rate| Duration::from_secs_f64(2.0 * WRITERS as f64 / rate));
    let (commands, lags) = std::thread::scope(|scope| -> anyhow::Result<(u64, Vec<f64>)> {
        let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(|| writer(&recorder, &stop, pause))).collect();
        let lags = lags(&recorder, began + length);
        stop.store(true, SeqCst);
        let mut commands = 0;
        for thread in threads {
            commands += thread.join().map_err(|_| anyhow::anyhow!("a writer panicked"))??;
        }
        Ok((commands, lags))
    })?;
    let seconds = began.elapsed().as_secs_f64();
    let entries = (recorder.appended() - before) as f64;
    recorder.stop()?;
    let worst = lags.iter().copied().fold(0.0, f64::max);
    Ok((entries / seconds, format!("{commands} commands in {seconds:.1} s"), worst))
}

/// 32 sessions as one worker has them: all append, one write, one flush, all go on. A round begins no sooner than
/// `pause` after the one before.
fn writer(recorder: &Recorder, stop: &AtomicBool, pause: Option<Duration>) -> anyhow::Result<u64> {
    let gate = recorder.gate();
    let mut sessions: Vec<SessionLog> =
        (0..WRITERS / THREADS).map(|_| begin(recorder, &gate)).collect::<anyhow::Result<_>>()?;
    let mut commands = 0;
    let mut due = Instant::now();
    while !stop.load(SeqCst) {
        if let Some(pause) = pause {
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            due += pause;
        }
        let pending: Vec<Pending> = sessions.iter_mut().map(intent).collect::<anyhow::Result<_>>()?;
        if let Some(last) = pending.last() {
            wait(&gate, last.position(), Lone::No);
        }
        for (session, pending) in sessions.iter_mut().zip(pending) {
            end(&gate, session, pending)?;
            commands += 1;
        }
    }
    for session in sessions {
        session.close(closing())?;
    }
    Ok(commands)
}

/// How long what was appended at a moment took until it was published, in seconds, looked at now and then.
fn lags(recorder: &Recorder, until: Instant) -> Vec<f64> {
    let mut found = Vec::new();
    while Instant::now() < until {
        let (appended, at) = (recorder.appended(), Instant::now());
        if recorder.wait_checkpoint(appended.saturating_sub(1), Duration::from_secs(30)).is_some() {
            found.push(at.elapsed().as_secs_f64());
        }
    }
    found
}

/// The gateway is gone, and nothing of the last segment was ever published.
fn restart(log: &Path, table: &mut Table) -> anyhow::Result<()> {
    std::fs::remove_dir_all(log.join("tiles"))?;
    let began = Instant::now();
    let (recorder, recovery) = Recorder::open_dir(log, Options::new(ORIGIN))?;
    let took = began.elapsed().as_secs_f64();
    let entries = format!("a log of {} entries", recovery.entries);
    table.bar("restart, until commands are accepted", &entries, took, "s", 1.0, Most);
    Ok(recorder.stop()?)
}

fn verify(log: &Path, table: &mut Table) -> anyhow::Result<()> {
    let began = Instant::now();
    let report = store::verify(log, None, &mut |_| {})?;
    let took = began.elapsed().as_secs_f64();
    anyhow::ensure!(report.is_ok(), "the record does not verify: {report:?}");
    let bytes = segments(log)?;
    let each = format!("{} entries of {} bytes", report.integrity.entries, bytes / report.integrity.entries.max(1));
    table.fact(
        "verify, commands, one core",
        &format!("{:.0} entries/s ({each})", report.integrity.entries as f64 / took),
    );
    Ok(())
}

/// Entries of some 300 bytes: how fast they verify, and what they take once archived: gzip'd bundles and all tiles.
fn archived(dir: &Path, commands: &Path, table: &mut Table) -> anyhow::Result<()> {
    let log = dir.join("archived");
    let recorder = open(&log)?;
    for number in 0..200_000u64 {
        let entry = Refused {
            reason: RefusedReason::AuthenticationFailed,
            source: format!("192.0.2.{}", number * 7 % 251),
            count: number % 17 + 1,
            first_us: 1_795_340_101_000_000 + i64::try_from(number * 1_313)?,
            user: Some(Label::new(format!("agent-{}", number * 31 % 1009).as_bytes())),
            connection: Some(Label::new(TEXT)),
        };
        recorder.note(GatewayEntry::Refused(entry))?;
    }
    recorder.stop()?;
    let began = Instant::now();
    let report = store::verify(&log, None, &mut |_| {})?;
    let rate = report.integrity.entries as f64 / began.elapsed().as_secs_f64();
    let each = segments(&log)? / report.integrity.entries.max(1);
    table.bar(
        "verify, one core, entries a second",
        &format!("entries of {each} bytes"),
        rate,
        "/s",
        1_000_000.0,
        Least,
    );
    let packed = packed(&log, report.integrity.entries)?;
    table.bar("an archived entry, tiles included", &format!("entries of {each} bytes"), packed, "B", 110.0, Most);
    let report = store::verify(commands, None, &mut |_| {})?;
    let packed = self::packed(commands, report.integrity.entries)?;
    table.fact("  the entries of commands, whose texts are sealed", &format!("{packed:.0} B"));
    Ok(())
}

fn packed(log: &Path, entries: u64) -> anyhow::Result<f64> {
    let published = store::Published::open_dir(log);
    let mut bytes = 0;
    for tile in tiles(entries) {
        let content = published.tile(&tile)?;
        bytes += match tile.kind() {
            TileKind::Hashes(_) => content.len(),
            TileKind::Entries => {
                let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
                gzip.write_all(&content)?;
                gzip.finish()?.len()
            }
        };
    }
    Ok(bytes as f64 / entries as f64)
}

/// Bytes of entries in all segments, about: what is written of them.
fn segments(log: &Path) -> anyhow::Result<u64> {
    let mut bytes = 0;
    for entry in std::fs::read_dir(log.join("tiles/tile/entries"))? {
        bytes += size_of(&entry?.path())?;
    }
    Ok(bytes)
}

fn size_of(path: &Path) -> anyhow::Result<u64> {
    if !path.is_dir() {
        return Ok(path.metadata()?.len());
    }
    // A partial bundle is named like its full one, which may be there as well.
    std::fs::read_dir(path)?.map(|entry| size_of(&entry?.path())).sum()
}

/// Commands arrive when they arrive, whether those before are durable or not: the time of each counts from its arrival.
fn latencies(dir: &Path, disk: &mut Disk, scale: usize, order: Scheduling, table: &mut Table) -> anyhow::Result<()> {
    for rate in RATES {
        let recorder = open(&dir.join(format!("latency-{order:?}-{rate}")))?;
        if order == Scheduling::Raised && !raise(Scheduling::Raised) {
            table.fact("the same with the committing threads before others", "not measured: chrt may not do that here");
            return Ok(recorder.stop()?);
        }
        let mut raw = disk.flushes_us(500)?;
        let times = arrivals(&recorder, rate, scale)?;
        raw.extend(disk.flushes_us(500)?);
        if order == Scheduling::Raised {
            raise(Scheduling::Normal);
        }
        recorder.stop()?;
        let (raw_p50, raw_p99) = (part(&mut raw, 500), part(&mut raw, 990));
        let name = format!("durable intent at {rate} commands a second{}", order.words());
        for (which, value, most) in [("p50", times.0, 2.5), ("p99", times.1, 8.0)] {
            let seen = format!("{value:.0} µs; raw p50 {raw_p50:.0}, p99 {raw_p99:.0}");
            table.bar(&format!("{name}, {which}"), &seen, value / raw_p50, "x", most, Most);
        }
    }
    Ok(())
}

/// Median and 99th percentile of the time from a command's arrival until its intent is durable, on a thread that does
/// what a worker of the gateway does: it takes what has arrived, makes one turn, and sleeps until there is more.
fn arrivals(recorder: &Recorder, rate: u32, scale: usize) -> anyhow::Result<(f64, f64)> {
    let gate = recorder.gate();
    gate.set_turn_waker(&Waker::from(Arc::new(Unpark(std::thread::current()))));
    let mut sessions: Vec<SessionLog> = (0..8).map(|_| begin(recorder, &gate)).collect::<anyhow::Result<_>>()?;
    // A socket wakes its thread at once; a timer does so only with this.
    rustix::thread::set_current_timer_slack(NonZeroU64::new(1))?;
    let count = rate as usize * scale;
    let apart = Duration::from_secs(1) / rate;
    let began = Instant::now() + apart;
    let (mut waiting, mut times, mut next) = (Vec::new(), Vec::new(), 0usize);
    let mut cx = Context::from_waker(Waker::noop());
    while times.len() < count {
        let mut due = began + apart * u32::try_from(next)?;
        while next < count && due <= Instant::now() {
            let lane = next % sessions.len();
            let pending = intent(sessions.get_mut(lane).context("a session")?)?;
            let _ = gate.poll(&mut cx, pending.position(), Level::Durable);
            waiting.push((lane, due, pending));
            next += 1;
            due += apart;
        }
        if gate.turn_wanted() {
            gate.turn(if waiting.len() <= 1 { Lone::Yes } else { Lone::No });
        }
        let mut rest = Vec::new();
        for (lane, due, pending) in waiting.drain(..) {
            if gate.has_reached(pending.position(), Level::Durable) {
                times.push(microseconds(due.elapsed()));
                end(&gate, sessions.get_mut(lane).context("a session")?, pending)?;
            } else {
                rest.push((lane, due, pending));
            }
        }
        waiting = rest;
        if !gate.turn_wanted() {
            let idle = due.saturating_duration_since(Instant::now());
            std::thread::park_timeout(if next < count { idle } else { Duration::from_millis(1) });
        }
    }
    for session in sessions {
        session.close(closing())?;
    }
    Ok((part(&mut times, 500), part(&mut times, 990)))
}

/// How the committing threads, which are the one that syncs and the worker, stand in the scheduler's eyes: on a busy
/// machine, that matters more than the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scheduling {
    Normal,
    Raised,
}

impl Scheduling {
    fn words(self) -> &'static str {
        match self {
            Self::Normal => "",
            Self::Raised => ", committing threads before others",
        }
    }
}

/// Whether that could be done: it takes a right that not every user has.
fn raise(to: Scheduling) -> bool {
    let policy = match to {
        Scheduling::Normal => ["--other", "0"],
        Scheduling::Raised => ["--fifo", "5"],
    };
    let own = rustix::thread::gettid().as_raw_nonzero().get().to_string();
    let threads = std::fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    let committing = threads.filter(|thread| {
        let name = std::fs::read_to_string(thread.path().join("comm")).unwrap_or_default();
        thread.file_name() == *own || name.trim() == "store-syncer"
    });
    committing.into_iter().all(|thread| {
        let [policy, priority] = policy;
        let mut chrt = Command::new("chrt");
        chrt.args([policy, "--pid", priority]).arg(thread.file_name()).stderr(Stdio::null());
        chrt.status().is_ok_and(|status| status.success())
    })
}

fn open(dir: &Path) -> anyhow::Result<Recorder> {
    Recorder::create(dir, ORIGIN)?;
    let options = Options::new(ORIGIN);
    let recorder = Recorder::open_dir(dir, options.clone())?.0;
    // The next segment is made ahead, once in 64 MiB: what is measured here is the time between.
    while std::fs::metadata(dir.join("log/spare")).map_or(true, |spare| spare.len() < options.segment_bytes) {
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(recorder)
}

fn begin(recorder: &Recorder, gate: &Gate) -> anyhow::Result<SessionLog> {
    let (session, opening) = recorder.open_session(start())?;
    wait(gate, opening.position(), Lone::Yes);
    Ok(session)
}

fn intent(session: &mut SessionLog) -> anyhow::Result<Pending> {
    let text = session.seal(TEXT);
    let draft = IntentDraft { bytes: 63, ..IntentDraft::new(Via::Simple, &text, &Field::NONE) };
    Ok(session.intent(&draft)?)
}

fn end(gate: &Gate, session: &mut SessionLog, pending: Pending) -> anyhow::Result<()> {
    let Ok(recorded) = gate.admit(pending, Level::Durable) else {
        anyhow::bail!("an intent that was waited for is not durable");
    };
    let results = [StatementResult { tag: "SELECT 1".into(), rows: Some(1) }];
    let outcome =
        OutcomeDraft { results: &results, rows: 1, bytes_down: 80, executed: true, ..OutcomeDraft::new(Status::Ok) };
    session.outcome(recorded, &outcome)?;
    Ok(())
}

fn finish(session: SessionLog, recorder: Recorder) -> anyhow::Result<()> {
    session.close(closing())?;
    Ok(recorder.stop()?)
}

/// Waits as a worker's event loop does: one turn, then nothing until the record has made progress.
fn wait(gate: &Gate, position: Position, lone: Lone) {
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    gate.set_turn_waker(&waker);
    let mut cx = Context::from_waker(Waker::noop());
    while gate.poll(&mut cx, position, Level::Durable).is_pending() {
        gate.turn(lone);
        while !gate.turn_wanted() && !gate.has_reached(position, Level::Durable) {
            std::thread::park();
        }
    }
}

/// Wakes a worker's thread.
struct Unpark(std::thread::Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

fn closing() -> SessionClosing {
    SessionClosing { reason: SessionEnd::ClientClosed, bytes_up: 0, bytes_down: 0 }
}

fn start() -> SessionStart {
    SessionStart {
        identity: Identity {
            name: model::IdentityName::new(model::IdentityKind::Agent, "copilot-agent")
                .unwrap_or_else(|_| unreachable!()),
            known: Known::Verified,
            proof: Proof {
                method: ProofMethod::ScramSha256,
                channel: ChannelBinding::None,
                credential: "copilot-agent/1".into(),
                evidence: None,
            },
            on_behalf_of: None,
            groups: Vec::new(),
            run: None,
        },
        connection: "app".into(),
        database: Some(Label::new(b"app")),
        upstream_user: "app_owner".into(),
        protocol: "postgres".into(),
        client: "127.0.0.1:50000".into(),
        tls: None,
        claims: vec![],
        durability: Durability::Intent,
        upstream: model::UpstreamSecurity::Local,
        outpost: None,
    }
}

fn middle(times: &mut [f64]) -> f64 {
    part(times, 500)
}

/// The value that so many thousandths of all are below.
fn part(times: &mut [f64], thousandths: usize) -> f64 {
    times.sort_by(f64::total_cmp);
    times.get(times.len() * thousandths / 1000).copied().unwrap_or_default()
}

use Bound::{Least, Most};

#[derive(Clone, Copy)]
enum Bound {
    Most,
    Least,
}

/// What was found, line by line.
#[derive(Default)]
struct Table(Vec<[String; 4]>);

impl Table {
    fn fact(&mut self, what: &str, found: &str) {
        self.0.push([what.to_owned(), found.to_owned(), String::new(), String::new()]);
    }

    fn bar(&mut self, what: &str, seen: &str, value: f64, unit: &str, wanted: f64, bound: Bound) {
        let (met, sign) = match bound {
            Most => (value <= wanted, "≤"),
            Least => (value >= wanted, "≥"),
        };
        let digits = if value < 100.0 { 2 } else { 0 };
        let number =
            |value: f64, digits: usize| format!("{value:.digits$} {unit}").replace(" x", "x").replace(" /s", "/s");
        let wanted = format!("{sign} {}", number(wanted, usize::from(wanted.fract() != 0.0)));
        let verdict = if met { "met" } else { "MISSED" };
        self.0.push([what.to_owned(), format!("{} ({seen})", number(value, digits)), wanted, verdict.to_owned()]);
    }

    fn text(&self) -> String {
        let mut text = String::from("| what | found | bar | |\n|---|---|---|---|\n");
        for [what, found, wanted, verdict] in &self.0 {
            let _ = writeln!(text, "| {what} | {found} | {wanted} | {verdict} |");
        }
        text
    }
}
