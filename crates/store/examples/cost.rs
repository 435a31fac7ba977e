//! What one command costs the recorder: `cargo run --release -p store --example cost`. With an argument, the record is
//! left there, for `verify_speed`.
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::cast_precision_loss, missing_docs)]

use std::time::{Duration, Instant};

use model::{
    ChannelBinding, Durability, Field, Identity, Known, Label, Proof, ProofMethod, SessionEnd, StatementResult, Status,
    Via,
};
use store::{
    Gate, IntentDraft, Level, Lone, Options, OutcomeDraft, Position, Recorder, SessionClosing, SessionLog, SessionStart,
};

fn main() {
    let dir = tempfile::tempdir_in(".").unwrap();
    Recorder::create(dir.path(), "cost.example/1").unwrap();
    let options = Options { checkpoint_interval: Duration::from_secs(1), ..Options::new("cost.example/1") };
    let (recorder, _) = Recorder::open_dir(dir.path(), options).unwrap();
    let gate = recorder.gate();
    let (mut session, opening) = recorder.open_session(start()).unwrap();
    wait(&gate, opening.position());
    let text = b"SELECT abalance FROM pgbench_accounts WHERE aid = 123456;";

    // CPU: 32 commands to a group, written and not synced.
    for round in 0..4 {
        let began = cpu();
        let (groups, size) = (2_000, 32);
        let mut inside = Duration::ZERO;
        for _ in 0..groups {
            let start = cpu();
            let pending: Vec<_> = (0..size).map(|_| intent(&mut session, text)).collect();
            inside += cpu() - start;
            gate.turn(Lone::No);
            let start = cpu();
            for pending in pending {
                let recorded = gate.admit(pending, Level::Written).unwrap();
                session.outcome(recorded, &outcome()).unwrap();
            }
            inside += cpu() - start;
        }
        let all = (cpu() - began).as_nanos() as f64 / f64::from(groups * size);
        let inside = inside.as_nanos() as f64 / f64::from(groups * size);
        println!("round {round}: sealing and appending {inside:.0} ns CPU/command; with the writes {all:.0}");
    }

    // Latency: one command at a time, each durable before the next.
    let mut times: Vec<_> = (0..3_000)
        .map(|_| {
            let start = Instant::now();
            let pending = intent(&mut session, text);
            wait(&gate, pending.position());
            let recorded = gate.admit(pending, Level::Durable).unwrap();
            let time = start.elapsed();
            session.outcome(recorded, &outcome()).unwrap();
            time
        })
        .collect();
    times.sort();
    let at = |part: usize| times.get(times.len() * part / 1000).copied().unwrap_or_default();
    println!("durable intent, alone: p50 {:?}, p99 {:?}", at(500), at(990));
    let closing = SessionClosing { reason: SessionEnd::ClientClosed, bytes_up: 0, bytes_down: 0 };
    session.close(closing).unwrap();
    drop(gate);
    recorder.stop().unwrap();
    let began = Instant::now();
    let report = store::verify(dir.path(), None, &mut |_| {}).unwrap();
    let seconds = began.elapsed().as_secs_f64();
    println!("verified {} entries in {seconds:.2} s: {}", report.integrity.entries, report.is_ok());
    if let Some(kept) = std::env::args().nth(1) {
        std::fs::rename(dir.path(), kept).unwrap();
        return;
    }
    let began = Instant::now();
    drop(Recorder::open_dir(dir.path(), Options::new("cost.example/1")).unwrap());
    println!("opened again in {:.2} s", began.elapsed().as_secs_f64());
}

/// The time that this thread has computed.
fn cpu() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
}

fn intent(session: &mut SessionLog, text: &[u8]) -> store::Pending {
    let text = session.seal(text);
    let draft = IntentDraft { bytes: 63, ..IntentDraft::new(Via::Simple, &text, &Field::NONE) };
    session.intent(&draft).unwrap()
}

fn outcome() -> OutcomeDraft<'static> {
    static RESULTS: std::sync::LazyLock<[StatementResult; 1]> =
        std::sync::LazyLock::new(|| [StatementResult { tag: "SELECT 1".into(), rows: Some(1) }]);
    OutcomeDraft { results: &*RESULTS, rows: 1, bytes_down: 80, executed: true, ..OutcomeDraft::new(Status::Ok) }
}

fn wait(gate: &Gate, position: Position) {
    while !gate.has_reached(position, Level::Durable) {
        let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
        let _ = gate.poll(&mut cx, position, Level::Durable);
        gate.turn(Lone::Yes);
    }
}

fn start() -> SessionStart {
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
