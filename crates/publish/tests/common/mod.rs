//! What these tests share: a record in a directory, with sessions in it.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used, clippy::indexing_slicing)]

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use ledger::VerifierKey;
use model::{
    ChannelBinding, ClockState, Durability, Heartbeat, Identity, Known, Label, OnBehalfOf, Proof, ProofMethod,
    SessionEnd, SessionId,
};
use publish::{Answer, Limits, Request, Server, Site};
use store::{GatewayEntry, Options, Reader, Recorder, SessionClosing, SessionStart};

pub const ORIGIN: &str = "gateway.example.com/1";

/// A record whose checkpoints come fast.
pub fn record(dir: &Path) -> (Recorder, VerifierKey) {
    if !dir.join("vkey").exists() {
        Recorder::create(dir, ORIGIN).unwrap();
    }
    let options = Options {
        segment_bytes: 256 * 1024,
        checkpoint_interval: Duration::from_millis(20),
        reserve_bytes: 16 * 1024,
        ..Options::new(ORIGIN)
    };
    let (recorder, _) = Recorder::open_dir(dir, options).unwrap();
    (recorder, Reader::open(dir).unwrap().vkey().clone())
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

/// A session without commands, from its beginning to its end.
pub fn session(recorder: &Recorder) -> SessionId {
    let start = SessionStart {
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
    };
    let (log, _) = recorder.open_session(start).unwrap();
    let id = log.id();
    log.close(SessionClosing { reason: SessionEnd::ClientClosed, bytes_up: 1, bytes_down: 2 }).unwrap();
    recorder.flush().unwrap();
    id
}

/// A server whose every answer is what this function says.
pub fn serve(answer: impl Fn(&Request) -> Answer + Send + Sync + 'static) -> Server {
    struct Says<F>(F);
    impl<F: Fn(&Request) -> Answer + Send + Sync + 'static> Site for Says<F> {
        fn answer(&self, request: &Request) -> Answer {
            (self.0)(request)
        }
    }
    serve_site(Arc::new(Says(answer)))
}

pub fn serve_site(site: Arc<dyn Site>) -> Server {
    let limits = Limits { body_bytes_max: 1 << 20, ..Limits::default() };
    Server::start("test-http", &["127.0.0.1:0".parse().unwrap()], site, limits).unwrap()
}

pub fn url(server: &Server) -> String {
    format!("http://{}", server.addresses()[0])
}
