//! What the tests of the store share: a clock and keys that are always the same, and a small gateway at work.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::cast_sign_loss,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation
)]

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use model::{
    ChannelBinding, ClockState, CommandId, Durability, Field, Heartbeat, Identity, Known, Label, OnBehalfOf, Proof,
    ProofMethod, SessionEnd, StatementResult, Status, Time, Via,
};
use store::{
    Clock, Disk, Gate, GatewayEntry, IntentDraft, Level, Lone, Options, OutcomeDraft, Pending, Position, Random,
    RecordError, Recorded, Recorder, Recovery, SessionClosing, SessionLog, SessionStart, StoreError,
};
use testkit::sim_disk::SimDisk;

pub const ORIGIN: &str = "gateway.example.com/1";

/// A clock that moves on by 1 ms whenever someone looks.
pub struct TestClock(AtomicU64);

impl TestClock {
    pub fn new() -> Self {
        Self(AtomicU64::new(1))
    }
}

impl Clock for TestClock {
    fn now(&self) -> Time {
        let ms = self.0.fetch_add(1, Ordering::SeqCst);
        Time { wall_us: 1_763_804_101_000_000 + ms as i64 * 1000, boot_us: 5_000_000 + ms * 1000 }
    }
}

/// Bytes that are the same in every run.
pub struct TestRandom(pub u64);

impl Random for TestRandom {
    fn fill(&mut self, bytes: &mut [u8]) -> io::Result<()> {
        for byte in bytes {
            self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            *byte = (self.0 >> 56) as u8;
        }
        Ok(())
    }
}

/// Options under which the store's threads stay idle, so that a test decides what happens when.
pub fn options() -> Options {
    Options {
        segment_bytes: 128 * 1024,
        sync_interval: Duration::from_secs(3600),
        checkpoint_interval: Duration::from_secs(3600),
        reserve_bytes: 16 * 1024,
        ..Options::new(ORIGIN)
    }
}

pub fn create(disk: &SimDisk) -> Result<(), StoreError> {
    let disk: Arc<dyn Disk> = Arc::new(disk.clone());
    Recorder::create_on(&disk, &options(), &TestClock::new(), &mut TestRandom(1)).map(drop)
}

pub fn open(disk: &SimDisk) -> Result<(Recorder, Recovery), StoreError> {
    open_with(disk, options(), 2)
}

pub fn open_with(disk: &SimDisk, options: Options, seed: u64) -> Result<(Recorder, Recovery), StoreError> {
    Recorder::open(Arc::new(disk.clone()), options, Arc::new(TestClock::new()), Box::new(TestRandom(seed)))
}

pub fn start() -> SessionStart {
    SessionStart {
        identity: Identity {
            name: "agent:copilot-agent".parse().unwrap(),
            known: Known::Verified,
            proof: Proof {
                method: ProofMethod::ScramSha256,
                channel: ChannelBinding::None,
                credential: "copilot-agent/1".into(),
                evidence: None,
            },
            on_behalf_of: Some(OnBehalfOf { name: "human:bea".parse().unwrap(), known: Known::Claimed }),
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

pub fn intent<'a>(text: &'a Field, parameters: &'a Field) -> IntentDraft<'a> {
    IntentDraft { bytes: 42, ..IntentDraft::new(Via::Simple, text, parameters) }
}

pub fn closing() -> SessionClosing {
    SessionClosing { reason: SessionEnd::ClientClosed, bytes_up: 1, bytes_down: 2 }
}

pub fn heartbeat() -> GatewayEntry {
    GatewayEntry::Heartbeat(Heartbeat {
        clock: ClockState::Synchronized,
        sessions: 1,
        commands: 2,
        refused: 3,
        bytes_up: 4,
        bytes_down: 5,
    })
}

/// Waits, as a gateway's event loop does, until a position is durable. How long that takes is up to the disk and to who
/// else uses it; what is still not durable after a minute never will be.
pub fn durable(gate: &Gate, position: Position) -> Result<(), RecordError> {
    let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
    let patience = Instant::now() + Duration::from_secs(60);
    while Instant::now() < patience {
        match gate.poll(&mut cx, position, Level::Durable) {
            std::task::Poll::Ready(result) => return result,
            std::task::Poll::Pending => gate.turn(Lone::Yes),
        }
        std::thread::yield_now();
    }
    panic!("the position never became durable");
}

pub fn admit(gate: &Gate, pending: Pending) -> Result<Recorded, (RecordError, Pending)> {
    match durable(gate, pending.position()) {
        Ok(()) => Ok(gate.admit(pending, Level::Durable).expect("it has reached the level")),
        Err(error) => Err((error, pending)),
    }
}

/// Records one command from beginning to end.
pub fn command(gate: &Gate, session: &mut SessionLog, text: &str) -> Result<CommandId, RecordError> {
    let field = session.seal(text.as_bytes());
    let pending = session.intent(&intent(&field, &Field::NONE))?;
    let recorded = admit(gate, pending).map_err(|(error, _)| error)?;
    let id = recorded.command();
    let results = [StatementResult { tag: "SELECT 1".into(), rows: Some(1) }];
    session.outcome(recorded, &OutcomeDraft { results: &results, rows: 1, ..OutcomeDraft::new(Status::Ok) })?;
    Ok(id)
}

/// What a gateway was told is safe: this must be there after any crash.
#[derive(Default, Debug, Clone)]
pub struct Acknowledged {
    /// Texts by command.
    pub texts: BTreeMap<CommandId, String>,
}

/// A gateway's life: sessions, commands, concurrent ones, blobs, a clean stop. Every durable intent is noted. Ends at
/// the first refusal.
pub fn life(disk: &SimDisk, acknowledged: &mut Acknowledged) -> Result<(), String> {
    let (recorder, _) = open(disk).map_err(|e| e.to_string())?;
    let gate = recorder.gate();
    let result = work(&recorder, &gate, acknowledged).map_err(|e| e.to_string());
    drop(gate);
    result?;
    recorder.stop().map_err(|e| e.to_string())
}

fn work(recorder: &Recorder, gate: &Gate, acknowledged: &mut Acknowledged) -> Result<(), RecordError> {
    let (mut a, opening) = recorder.open_session(start())?;
    durable(gate, opening.position())?;
    for i in 0..3 {
        let text = format!("select {i}");
        let id = command(gate, &mut a, &text)?;
        acknowledged.texts.insert(id, text);
    }
    recorder.note(heartbeat())?;
    let (mut b, opening) = recorder.open_session(start())?;
    durable(gate, opening.position())?;
    // Two commands in flight, in one group; one of them stays open for a while.
    let fields = [a.seal(b"select pg_sleep(1)"), b.seal("x".repeat(3000).as_bytes())];
    let first = a.intent(&intent(&fields[0], &Field::NONE))?;
    let second = b.intent(&intent(&fields[1], &fields[1]))?;
    let second = admit(gate, second).map_err(|(error, _)| error)?;
    let first = admit(gate, first).map_err(|(error, _)| error)?;
    acknowledged.texts.insert(first.command(), "select pg_sleep(1)".into());
    acknowledged.texts.insert(second.command(), "x".repeat(3000));
    b.outcome(second, &OutcomeDraft::new(Status::Error))?;
    // Long text goes into a blob.
    let long = "select '".to_owned() + &"long ".repeat(20_000) + "'";
    let id = command(gate, &mut b, &long)?;
    acknowledged.texts.insert(id, long);
    b.close(closing())?;
    // Groups that are written and not synced, one after another.
    for i in 0..3 {
        recorder.note(heartbeat())?;
        gate.turn(Lone::Yes);
        let _ = i;
    }
    // Enough to need a second segment.
    for i in 0..10 {
        let text = format!("select '{}'", i.to_string().repeat(12_000));
        let id = command(gate, &mut a, &text)?;
        acknowledged.texts.insert(id, text);
    }
    a.outcome(first, &OutcomeDraft::new(Status::Cancelled))?;
    let id = command(gate, &mut a, "commit")?;
    acknowledged.texts.insert(id, "commit".into());
    a.close(closing())?;
    Ok(())
}
