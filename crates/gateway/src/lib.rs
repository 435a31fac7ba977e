//! Listeners, identity, sessions and upstreams: the only owner of proxied sockets.
//!
//! The path of a command, in the order of the modules that it meets:
//!
//! ```text
//! listener (here) -> postgres::greet (TLS, identity) -> postgres::open (admission, session entry)
//!   -> postgres::session (tap -> policy -> Permit; record -> Recorded)
//!   -> postgres::upstream (forward only with both) -> server
//!   <- postgres::downstream (verbatim) <- tap -> outcome entry
//! ```
//!
//! Not for: files (that is `store`), the meaning of statements (that is `sql`), rules (that is `policy`).
//!
//! Invariant: no byte of a command leaves for a resource before its intent is where the
//! connection's durability wants it. When recording stops, commands stop.

mod access;
mod api;
mod approvals;
mod break_glass;
mod config;
mod files;
pub mod issuers;
mod notify;
mod outposts;
mod passkeys;
mod postgres;
mod random;
mod refusals;
pub mod scram;
mod ssh;
mod stream;
pub mod tls;
mod words;
mod worker;

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::thread::JoinHandle;
use std::time::Duration;

use model::SessionId;
use store::{GatewayEntry, Recorder};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use access::{Access, AccessError, InUse, LockedOut, Shown, Standing, TOKEN_TTL_MAX, TokenError, Watch};
pub use break_glass::{BreakGlass, BreakGlassError};
pub use config::{
    Address, Config, Connection, Databases, Host, HostLogin, Identity, Limits, Plaintext, Policy, Shells, SshKeys,
    Terminals,
};
pub use notify::{Notify, NotifyForm};
pub use outposts::{Enrolled, JOIN_TTL_MAX, Outposts, OutpostsError, Seen, Via, is_outpost_name};
pub use passkeys::Site;
pub use ssh::keys::{KeyError, PrivateKey as SshPrivateKey, PublicKey as SshPublicKey};

use access::{Entered, NotEntered};
use notify::Notifier;
use refusals::{Named, Reason, Refusals};
use worker::{Arrival, Port};

/// Connections that the kernel keeps for us until they are accepted.
const BACKLOG: u32 = 1024;
/// Between heartbeats, and between the entries of folded refusals.
const HEARTBEAT: Duration = Duration::from_secs(10);
/// Between looks for approvals and break-glass whose time is over.
const SWEEP: Duration = Duration::from_secs(1);
/// Pause after the system could not give us another socket.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A running gateway.
pub struct Gateway {
    shared: Arc<Shared>,
    addresses: Vec<SocketAddr>,
    api_addresses: Vec<SocketAddr>,
    ssh_addresses: Vec<SocketAddr>,
    outpost_addresses: Vec<SocketAddr>,
    accepting: CancellationToken,
    stopping: CancellationToken,
    threads: Vec<JoinHandle<()>>,
}

/// Why a gateway could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// An address cannot be listened on.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system says.
        source: io::Error,
    },
    /// The issuers cannot be trusted as they are.
    #[error(transparent)]
    Issuers(#[from] issuers::IssuersError),
    /// The system gives no thread or no event loop.
    #[error("cannot start a worker: {0}")]
    Worker(#[source] io::Error),
}

/// What all workers share.
struct Shared {
    /// What is in force. A session keeps what was in force when it began.
    config: RwLock<Arc<Config>>,
    access: Access,
    outposts: Option<Outposts>,
    analyzer: Arc<sql::Analyzer>,
    approvals: Arc<approvals::Approvals>,
    break_glass: Arc<BreakGlass>,
    recorder: Recorder,
    refusals: Refusals,
    cancels: Arc<postgres::Cancels>,
    slots: Arc<Semaphore>,
    /// The sessions of all workers: a link of one may carry sessions of another, and outlives them.
    sessions: TaskTracker,
    totals: Totals,
    stopping: CancellationToken,
}

/// Counters for heartbeats.
#[derive(Default)]
struct Totals {
    sessions: AtomicU64,
    commands: AtomicU64,
    refused: AtomicU64,
    bytes_up: AtomicU64,
    bytes_down: AtomicU64,
}

impl Shared {
    /// The configuration in force.
    fn config(&self) -> Arc<Config> {
        self.config.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Counts a session in, if its identity may still use the connection.
    fn enter(
        &self,
        session: SessionId,
        identity: &Arc<model::Identity>,
        connection: &str,
        peer: SocketAddr,
        max: usize,
    ) -> Result<Entered, NotEntered> {
        let (entered, news) = self.access.enter(session, identity, connection, peer.ip(), max)?;
        if let Some(news) = news {
            note(self, GatewayEntry::Shared(news));
        }
        // After it is counted: a change of the configuration either finds it among the live, or is found here.
        let config = self.config();
        let permitted = config.permits(identity, connection) && self.access.still_trusts(identity, &config);
        if permitted { Ok(entered) } else { Err(NotEntered::NotPermitted) }
    }

    /// Counts somebody in who has come over SSH, with a session or without.
    fn pass(&self, identity: &Arc<model::Identity>, peer: SocketAddr, max: usize) -> Result<Entered, NotEntered> {
        let passed = self.access.pass(identity, peer.ip(), max)?;
        // As above.
        let config = self.config();
        let known = config.still_knows(identity) && self.access.still_trusts(identity, &config);
        if known { Ok(passed) } else { Err(NotEntered::NotPermitted) }
    }

    fn refuse(&self, reason: Reason, peer: SocketAddr) {
        self.refuse_named(reason, peer, Named::default());
    }

    /// Counts a refusal, with what the client said it wanted.
    fn refuse_named(&self, reason: Reason, peer: SocketAddr, named: Named) {
        self.totals.refused.fetch_add(1, Ordering::Relaxed);
        self.refusals.count(reason, peer.ip(), named);
    }
}

impl Gateway {
    /// Starts to listen and to serve. Returns once every address is listened on.
    ///
    /// # Errors
    /// An address is taken or not ours, or the system gives no thread.
    pub fn start(
        mut config: Config,
        access: Access,
        outposts: Option<Outposts>,
        break_glass: BreakGlass,
        recorder: Recorder,
    ) -> Result<Self, StartError> {
        raise_file_limit();
        access.trust(std::mem::take(&mut config.issuers))?;
        let accepting = CancellationToken::new();
        let stopping = CancellationToken::new();
        let workers = config.workers.max(1);
        let postgres = config.listen_postgres.iter().map(|address| (Port::Postgres, *address));
        let ssh = config.listen_ssh.iter().map(|address| (Port::Ssh, *address));
        let listen = postgres
            .chain(ssh)
            .chain(config.listen_outposts.iter().map(|address| (Port::Outposts, *address)))
            .collect();
        let listen_api = config.listen_api.clone();
        let notify = config.notify.take();
        let notifier = |name| match notify.clone() {
            Some(notify) => Notifier::start(name, notify).map(Some).map_err(StartError::Worker),
            None => Ok(None),
        };
        let shared = Arc::new(Shared {
            slots: Arc::new(Semaphore::new(config.limits.connections_max)),
            analyzer: sql::Analyzer::start(config.analysis.clone()),
            approvals: Arc::new(approvals::Approvals::new(recorder.clone(), notifier("notify")?)),
            break_glass: Arc::new(break_glass.telling(notifier("notify-glass")?)),
            config: RwLock::new(Arc::new(config)),
            access,
            outposts,
            recorder,
            refusals: Refusals::default(),
            cancels: Arc::default(),
            sessions: TaskTracker::new(),
            totals: Totals::default(),
            stopping: stopping.clone(),
        });
        let now = shared.config();
        shared.break_glass.warn_unreviewable(|connection| now.glass_rules(connection));
        let mut threads = Vec::new();
        let mut senders = Vec::new();
        for number in 0..workers {
            let (sender, arrivals) = mpsc::channel(worker::ARRIVALS_MAX);
            let shared = shared.clone();
            senders.push(sender);
            threads.push(spawn(format!("worker-{number}"), worker::run(shared, number, arrivals))?);
        }
        let (ready, addresses) = std::sync::mpsc::sync_channel(1);
        let front = front(shared.clone(), listen, senders, accepting.clone(), ready);
        threads.push(spawn("front".to_owned(), front)?);
        match addresses.recv() {
            Ok(Ok(bound)) => {
                let of = |port| bound.iter().filter(move |(of, _)| *of == port).map(|(_, address)| *address);
                let [addresses, ssh_addresses, outpost_addresses] =
                    [Port::Postgres, Port::Ssh, Port::Outposts].map(|port| of(port).collect::<Vec<_>>());
                let first = |addresses: &[SocketAddr]| addresses.first().map(SocketAddr::port);
                let ports = api::Ports { postgres: first(&addresses), ssh: first(&ssh_addresses) };
                let api_addresses = api(&shared, listen_api, ports, &mut threads)?;
                Ok(Self {
                    shared,
                    addresses,
                    ssh_addresses,
                    api_addresses,
                    outpost_addresses,
                    accepting,
                    stopping,
                    threads,
                })
            }
            Ok(Err(error)) => Err(error),
            Err(_) => Err(StartError::Worker(io::Error::other("the listening thread ended"))),
        }
    }

    /// Puts another configuration in force, for whoever comes from here on, and ends the live sessions that it no longer
    /// permits. Says how many those are. Addresses and threads stay as they are.
    ///
    /// # Errors
    /// The issuers cannot be trusted as they are; then nothing has changed.
    pub fn reconfigure(&self, mut config: Config) -> Result<u64, issuers::IssuersError> {
        self.shared.access.trust(std::mem::take(&mut config.issuers))?;
        let config = Arc::new(config);
        *self.shared.config.write().unwrap_or_else(PoisonError::into_inner) = config.clone();
        self.shared.break_glass.warn_unreviewable(|connection| config.glass_rules(connection));
        let trusts = |identity: &model::Identity| self.shared.access.still_trusts(identity, &config);
        let permits = |identity: &model::Identity, connection: &str| config.permits(identity, connection);
        Ok(self.shared.access.end_unless(
            |identity, connection| permits(identity, connection) && trusts(identity),
            |identity| config.permits_some(identity) && trusts(identity),
        ))
    }

    /// The addresses that are listened on, with the ports that were taken where 0 was asked for.
    #[must_use]
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// As [`Gateway::addresses`], for SSH.
    #[must_use]
    pub fn ssh_addresses(&self) -> &[SocketAddr] {
        &self.ssh_addresses
    }

    /// As [`Gateway::addresses`], of the HTTP API.
    #[must_use]
    pub fn api_addresses(&self) -> &[SocketAddr] {
        &self.api_addresses
    }

    /// As [`Gateway::addresses`], of the port for outposts.
    #[must_use]
    pub fn outpost_addresses(&self) -> &[SocketAddr] {
        &self.outpost_addresses
    }

    /// Accepts no more, ends the sessions, and returns when all have ended. What runs is cancelled
    /// and given the configured time for its outcome.
    pub fn stop(self) {
        self.accepting.cancel();
        self.stopping.cancel();
        for thread in self.threads {
            // A worker that panicked has said so already.
            let _ = thread.join();
        }
    }
}

/// A session takes two sockets; the usual soft limit of 1,024 files is for programs that use select(2).
fn raise_file_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
        tracing::warn!(%error, "cannot raise the limit of open files");
    }
}

fn spawn(name: String, main: impl Future<Output = ()> + Send + 'static) -> Result<JoinHandle<()>, StartError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(StartError::Worker)?;
    std::thread::Builder::new().name(name).spawn(move || runtime.block_on(main)).map_err(StartError::Worker)
}

/// Starts the HTTP API, if it is to be. Returns where it listens.
fn api(
    shared: &Arc<Shared>,
    listen: Vec<SocketAddr>,
    ports: api::Ports,
    threads: &mut Vec<JoinHandle<()>>,
) -> Result<Vec<SocketAddr>, StartError> {
    if listen.is_empty() {
        return Ok(Vec::new());
    }
    let shared = shared.clone();
    let (ready, bound) = std::sync::mpsc::sync_channel(1);
    threads.push(spawn("api".to_owned(), async move {
        match listen.into_iter().map(bind).collect::<Result<Vec<_>, _>>() {
            Ok(listeners) => {
                let addresses = listeners.iter().filter_map(|listener| listener.local_addr().ok()).collect();
                let _ = ready.send(Ok(addresses));
                api::run(shared, listeners, ports).await;
            }
            Err(error) => drop(ready.send(Err(error))),
        }
    })?);
    bound.recv().unwrap_or_else(|_| Err(StartError::Worker(io::Error::other("the listening thread ended"))))
}

/// Listens, hands connections to the workers in turn, and keeps the heart beating.
async fn front(
    shared: Arc<Shared>,
    listen: Vec<(Port, SocketAddr)>,
    workers: Vec<mpsc::Sender<Arrival>>,
    accepting: CancellationToken,
    ready: std::sync::mpsc::SyncSender<Result<Vec<(Port, SocketAddr)>, StartError>>,
) {
    let bound: Result<Vec<_>, _> = listen.into_iter().map(|(port, address)| Ok((port, bind(address)?))).collect();
    let listeners = match bound {
        Ok(listeners) => listeners,
        Err(error) => {
            let _ = ready.send(Err(error));
            return;
        }
    };
    let local = |(port, listener): &(Port, TcpListener)| listener.local_addr().ok().map(|address| (*port, address));
    let _ = ready.send(Ok(listeners.iter().filter_map(local).collect()));

    let mut accepts = tokio::task::JoinSet::new();
    for (port, listener) in listeners {
        accepts.spawn(accept(shared.clone(), port, listener, workers.clone()));
    }
    drop(workers);
    let mut beat = tokio::time::interval(HEARTBEAT);
    let mut sweep = tokio::time::interval(SWEEP);
    loop {
        tokio::select! {
            () = accepting.cancelled() => break,
            _ = beat.tick() => heartbeat(&shared),
            _ = sweep.tick() => {
                shared.approvals.sweep(|identity| shared.access.is_revoked(identity));
                let config = shared.config();
                let may = |by: &model::Identity, connection: &str| config.may_break_glass(by, connection);
                shared.break_glass.sweep(may, |identity| shared.access.is_revoked(identity));
            }
        }
    }
    accepts.shutdown().await;
    heartbeat(&shared);
}

fn bind(address: SocketAddr) -> Result<TcpListener, StartError> {
    let listen = || -> io::Result<TcpListener> {
        let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        socket.listen(BACKLOG)
    };
    listen().map_err(|source| StartError::Listen { address, source })
}

/// Accepts for ever. Never waits for a client: what a connection says is read on its worker.
async fn accept(shared: Arc<Shared>, port: Port, listener: TcpListener, workers: Vec<mpsc::Sender<Arrival>>) {
    for worker in workers.iter().cycle() {
        let (stream, peer) = loop {
            match listener.accept().await {
                Ok(accepted) => break accepted,
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        };
        let Ok(stream) = stream.into_std() else {
            continue;
        };
        // A full worker makes the kernel's queue wait, nobody else's memory.
        if worker.send(Arrival { stream, peer, port }).await.is_err() {
            shared.refuse(Reason::GatewayStopping, peer);
            return;
        }
    }
}

fn heartbeat(shared: &Shared) {
    let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    for folded in shared.refusals.take() {
        note(shared, folded.into_entry());
    }
    let totals = &shared.totals;
    let beat = model::Heartbeat {
        clock: store::clock_state(),
        sessions: load(&totals.sessions),
        commands: load(&totals.commands),
        refused: load(&totals.refused),
        bytes_up: load(&totals.bytes_up),
        bytes_down: load(&totals.bytes_down),
    };
    note(shared, GatewayEntry::Heartbeat(beat));
}

/// Writes an entry of the gateway's own. That recording has stopped is said once per try: nothing
/// else can go on either.
fn note(shared: &Shared, entry: GatewayEntry) {
    if let Err(error) = shared.recorder.note(entry) {
        tracing::error!(%error, "the record cannot be written; commands are refused");
    }
}

/// Bytes as lower-case hexadecimal digits.
fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Notices dead peers within minutes, whatever is between.
fn keepalive(stream: &TcpStream) {
    let _ = rustix::net::sockopt::set_socket_keepalive(stream, true);
    let _ = rustix::net::sockopt::set_tcp_keepidle(stream, Duration::from_secs(60));
    let _ = rustix::net::sockopt::set_tcp_keepintvl(stream, Duration::from_secs(15));
    let _ = rustix::net::sockopt::set_tcp_keepcnt(stream, 4);
}
