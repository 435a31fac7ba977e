//! PostgreSQL: from an accepted socket, or a tunnel through SSH, to the end of its session.

mod cancel;
mod downstream;
mod entries;
mod greet;
mod login;
mod session;
mod upstream;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use link::LinkStream;
use model::{CancelResult, SessionEnd};
use store::{Level, Opening, RecordError, SessionClosing, SessionLog};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use wire::postgres::message;
use wire::postgres::startup::CancelKey;
use wire::postgres::tap::{Tap, TapLimits};

use crate::Shared;
use crate::access::{Entered, NotEntered};
use crate::config::{Config, Connection, Limits};
use crate::outposts::OpenError;
use crate::refusals::{Named, Reason};
use crate::ssh::Tunnel;
use crate::stream::Stream;
use crate::worker::Seat;
use downstream::Downstream;
use greet::{Client, GreetError, Greeted};
use login::{LoggedIn, LoginError};
use session::{Parts, Policing, Session};
use upstream::Upstream;

pub(crate) use cancel::{Busy, Cancels};

/// Time to carry a cancellation to a server.
const CANCEL_MAX: Duration = Duration::from_secs(5);
/// After a refusal: how long the client may take to read it before the socket is closed.
const LINGER_MAX: Duration = Duration::from_secs(1);
/// Messages above this go to disk instead of memory, bytes.
const BUFFERED_BYTES_MAX: usize = 1024 * 1024;
/// Commands of one session that may be without an outcome at once.
const COMMANDS_IN_FLIGHT_MAX: usize = 65_536;
/// Names of prepared statements and portals of one session.
const NAMES_MAX: usize = 65_536;
/// Texts of prepared statements of one session, bytes.
const NAMES_BYTES_MAX: usize = 64 * 1024 * 1024;

/// The way by which a client has come.
#[derive(Debug)]
pub(crate) enum Route {
    /// Straight, to where PostgreSQL is listened for.
    Straight,
    /// Through an SSH connection, which encrypts it, and to these connections only.
    Tunnel(Vec<String>),
}

impl Route {
    /// Whether it leads to this connection.
    fn leads_to(&self, connection: &str) -> bool {
        match self {
            Self::Straight => true,
            Self::Tunnel(connections) => connections.iter().any(|name| name == connection),
        }
    }
}

/// Serves one accepted connection to its end. Dropping it closes its sockets.
pub(crate) async fn serve(shared: Arc<Shared>, seat: Seat, tcp: TcpStream, peer: SocketAddr) {
    if tcp.set_nodelay(true).is_err() {
        return;
    }
    crate::keepalive(&tcp);
    answer(shared, seat, Stream::Tcp(tcp), peer, Route::Straight).await;
}

/// Serves what comes through an SSH connection from there, on its way to these connections. It counts as a connection of
/// its own.
pub(crate) async fn serve_tunnel(
    shared: Arc<Shared>,
    seat: Seat,
    tunnel: Tunnel,
    peer: SocketAddr,
    connections: Vec<String>,
) {
    answer(shared, seat, Stream::Tunnel(tunnel), peer, Route::Tunnel(connections)).await;
}

async fn answer(shared: Arc<Shared>, seat: Seat, mut stream: Stream, peer: SocketAddr, route: Route) {
    let Ok(_slot) = shared.slots.clone().try_acquire_owned() else {
        shared.refuse(Reason::Limit, peer);
        let text = "OnRecord has reached its limit of connections";
        let telling = async {
            stream.write_all(&message::error_response("FATAL", "53300", text, None)).await?;
            stream.flush().await
        };
        let _ = tokio::time::timeout(LINGER_MAX, telling).await;
        return;
    };
    let config = shared.config();
    let failures_max = config.limits.failed_logins_per_minute_max;
    if let Some(wait) = shared.access.wait(peer.ip(), failures_max) {
        return throttled(&shared, stream, peer, wait).await;
    }
    let greeting = greet::greet(stream, peer, route, &config, &shared.access);
    let greeted = tokio::select! {
        greeted = tokio::time::timeout(config.limits.authentication_max, greeting) => greeted,
        () = shared.stopping.cancelled() => return shared.refuse(Reason::GatewayStopping, peer),
    };
    match greeted {
        Err(_elapsed) => shared.refuse(Reason::Timeout, peer),
        Ok(Err(GreetError::Gone(_))) => shared.refuse(Reason::ClosedEarly, peer),
        Ok(Err(GreetError::Refused(reason))) => shared.refuse(reason, peer),
        Ok(Err(GreetError::NotProven { reason, named })) => shared.refuse_named(reason, peer, named),
        Ok(Ok(Greeted::Cancel(key))) => cancel(&shared, &key, peer).await,
        Ok(Ok(Greeted::Client(client))) => Box::pin(open(&shared, &config, seat, *client)).await,
    }
}

/// Turns away a source that has failed too often. It learns nothing that depends on what it would have said.
async fn throttled(shared: &Shared, mut stream: Stream, peer: SocketAddr, wait: Duration) {
    shared.refuse(Reason::Throttled, peer);
    let (text, hint) = greet::throttled(wait);
    let answer = message::error_response("FATAL", "53300", &text, Some(hint));
    let telling = async {
        // An SSLRequest is eight bytes, and its answer may be an error in the clear.
        let mut first = [0; 8];
        stream.read_exact(&mut first).await?;
        stream.write_all(&answer).await?;
        stream.shutdown().await?;
        let mut rest = [0; 512];
        while stream.read(&mut rest).await? > 0 {}
        std::io::Result::Ok(())
    };
    let _ = tokio::time::timeout(LINGER_MAX, telling).await;
}

/// From a proven identity to a session, or to a refusal in words.
async fn open(shared: &Arc<Shared>, config: &Arc<Config>, seat: Seat, mut client: Client) {
    if !client.route.leads_to(&client.connection) {
        let (text, hint) = elsewhere(config, &client);
        return turn_away(shared, &mut client, Reason::NotPermitted, "3D000", &text, Some(&hint)).await;
    }
    let known = config.connections.get(&client.connection).filter(|known| client.may_open(&known.name));
    let database = known.and_then(|connection| connection.database_for(client.database.as_deref()));
    let identity = client.identity.clone();
    let admission = known.and_then(|connection| connection.grants.admit(&identity.name, &identity.groups));
    let (Some(connection), Some(database), Some(admission)) = (known, database, admission) else {
        // One answer, so that nobody learns which connections there are.
        let text = format!("connection \"{}\" does not exist, or {} may not use it", client.asked, identity.name);
        let hint = "The database name selects the connection: NAME or NAME/DATABASE.";
        return turn_away(shared, &mut client, Reason::NotPermitted, "3D000", &text, Some(hint)).await;
    };
    let max = config.limits.connections_per_identity_max;
    let id = match shared.recorder.session_id() {
        Ok(id) => id,
        Err(error) => return not_recorded(shared, &mut client, &error).await,
    };
    let entered = match shared.enter(id, &identity, &connection.name, client.peer, max) {
        Ok(entered) => entered,
        Err(not) => {
            let code = match not {
                NotEntered::Limit => "53300",
                NotEntered::Revoked => "28000",
                NotEntered::NotPermitted => "3D000",
            };
            let text = not.for_client(&identity.name, &client.asked, max);
            return turn_away(shared, &mut client, not.reason(), code, &text, not.hint()).await;
        }
    };
    let reached = match login::reach(connection, shared.outposts.as_ref(), &id.to_string()).await {
        Ok(reached) => reached,
        Err(error) => return no_outpost(shared, &mut client, &connection.name, &error).await,
    };
    let (carried, outpost) = reached.unzip();
    let opened = shared.recorder.open_session_as(id, entries::session_open(&client, connection, &database, outpost));
    let (log, opening) = match opened {
        Ok(opened) => opened,
        Err(error) => return not_recorded(shared, &mut client, &error).await,
    };
    shared.totals.sessions.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let limits = &config.limits;
    start(shared, limits, seat, client, connection, carried, &database, admission, entered, log, opening).await;
    shared.totals.sessions.fetch_sub(1, std::sync::atomic::Ordering::Relaxed);
}

/// Logs in to the server and runs the session. The session's entry is durable before the client
/// learns that it may send commands.
#[allow(clippy::too_many_arguments, reason = "one call; each is a different thing of the session")]
async fn start(
    shared: &Arc<Shared>,
    limits: &Limits,
    Seat { gate, running }: Seat,
    mut client: Client,
    connection: &Arc<Connection>,
    carried: Option<LinkStream>,
    database: &str,
    admission: policy::Admission,
    entered: Entered,
    log: SessionLog,
    opening: Opening,
) {
    let logging_in = log_in(&client, connection, carried, database);
    let logged_in = match tokio::time::timeout(limits.upstream_connect_max, logging_in).await {
        Ok(logged_in) => logged_in,
        Err(_elapsed) => Err(LoginError::Unreachable(std::io::ErrorKind::TimedOut.into())),
    };
    let server = match logged_in {
        Ok(server) => server,
        Err(error) => {
            tracing::warn!(connection = connection.name, %error, "cannot log in to the resource");
            let closing = SessionClosing { reason: SessionEnd::UpstreamGone, bytes_up: 0, bytes_down: 0 };
            let _ = log.close(closing);
            return farewell(&mut client, &error.for_client(&connection.name)).await;
        }
    };
    let recorded = std::future::poll_fn(|cx| gate.poll(cx, opening.position(), Level::Durable)).await;
    if let Err(error) = recorded {
        return not_recorded(shared, &mut client, &error).await;
    }
    let upstream_key = server.cancel.unwrap_or(CancelKey { pid: 0, secret: vec![0; 4] });
    let secret_bytes = if client.minor >= 2 { 32 } else { 4 };
    let minted = shared.cancels.mint(log.id(), connection, shared.outposts.as_ref(), upstream_key, secret_bytes);

    let mut welcome = message::authentication_ok();
    welcome.extend_from_slice(&server.greeting);
    welcome.extend_from_slice(&message::backend_key_data(minted.key.pid, &minted.key.secret));
    welcome.extend_from_slice(&server.ready);
    let policing = Policing::new(shared, connection, database, &client);
    let mut downstream = Downstream::new(client.stream);
    downstream.push(&welcome);

    let mut tap = Tap::new(TapLimits {
        message_bytes_max: connection.message_bytes_max,
        buffered_bytes_max: BUFFERED_BYTES_MAX.min(connection.message_bytes_max),
        commands_in_flight_max: COMMANDS_IN_FLIGHT_MAX,
        names_max: NAMES_MAX,
        names_bytes_max: NAMES_BYTES_MAX,
    });
    for (name, value) in &server.parameters {
        tap.parameter(name, value);
    }
    let session = Session::new(Parts {
        client: downstream,
        upstream: Upstream::new(server.stream),
        tap,
        admission,
        policing,
        minted,
        running,
        log,
        gate,
        durability: connection.durability,
        session_bytes_max: limits.session_bytes_max,
        outcome_wait: limits.outcome_wait_max,
        idle_max: limits.idle_max,
        stop: shared.stopping.clone().cancelled_owned(),
        entered,
    });
    session.run(&shared.totals).await;
}

async fn log_in(
    client: &Client,
    connection: &Connection,
    carried: Option<LinkStream>,
    database: &str,
) -> Result<LoggedIn, LoginError> {
    let mut parameters: Vec<(&[u8], &[u8])> =
        vec![(b"user", connection.user.as_bytes()), (b"database", database.as_bytes())];
    // Run-time settings are the client's business; who it is and where it goes are ours.
    let settings = client.startup.parameters().filter(|(name, _)| is_setting(name));
    parameters.extend(settings);
    let version = 0x0003_0000 | u32::from(client.minor);
    login::log_in(connection, carried, version, &parameters).await
}

/// Whether a startup parameter is a run-time setting (or `options`), which the server checks itself.
fn is_setting(name: &[u8]) -> bool {
    !matches!(name, b"user" | b"database" | b"replication") && !name.starts_with(b"_pq_.")
}

/// Carries a cancellation. The protocol has no answer to it: the socket is closed either way.
async fn cancel(shared: &Shared, key: &CancelKey, peer: SocketAddr) {
    let found = shared.cancels.find(key);
    let session = found.as_ref().map(|target| target.session);
    let result = match found {
        None => CancelResult::NoSession,
        // Nothing runs: a cancellation now could only hit the next command.
        Some(target) if target.cancel_wait() => CancelResult::Held,
        Some(target) if target.busy() == Busy::No => CancelResult::TooLate,
        Some(target) => match tokio::time::timeout(CANCEL_MAX, target.cancel()).await {
            Ok(Ok(())) => CancelResult::Forwarded,
            Ok(Err(_)) | Err(_) => CancelResult::UpstreamUnreachable,
        },
    };
    match result {
        // Guesses are counted, not listed.
        CancelResult::NoSession => shared.refuse(Reason::CancelKey, peer),
        _ => crate::note(shared, entries::cancel(session, peer, result)),
    }
}

/// Asks the server to stop what a session runs whose client is gone.
fn cancel_in_background(target: Arc<cancel::Target>) {
    // Owned by the worker's event loop; it ends within its limit.
    tokio::spawn(async move {
        if let Ok(Err(error)) = tokio::time::timeout(CANCEL_MAX, target.cancel()).await {
            tracing::warn!(%error, "cannot cancel what a lost client left running");
        }
    });
}

async fn turn_away(shared: &Shared, client: &mut Client, reason: Reason, code: &str, text: &str, hint: Option<&str>) {
    let named = Named::new(client.startup.user().unwrap_or_default(), client.asked.as_bytes());
    shared.refuse_named(reason, client.peer, named);
    farewell(client, &message::error_response("FATAL", code, text, hint)).await;
}

/// What a client is told that came through a tunnel to another connection.
fn elsewhere(config: &Config, client: &Client) -> (String, String) {
    let identity = &client.identity;
    let may = |name: &str| client.may_open(name) && config.permits(identity, name);
    let leads = match &client.route {
        Route::Straight => Vec::new(),
        // What its owner may use need not be what this client may.
        Route::Tunnel(connections) => connections.iter().map(String::as_str).filter(|name| may(name)).collect(),
    };
    let hint = match leads.as_slice() {
        [] => format!("It leads to no connection that {} may use.", identity.name),
        names => format!(
            "The database name selects the connection: NAME or NAME/DATABASE. NAME is {} here.",
            names.join(" or ")
        ),
    };
    (format!("this SSH tunnel does not lead to connection \"{}\"", client.connection), hint)
}

/// The resource is behind an outpost, and there is no way through one.
async fn no_outpost(shared: &Shared, client: &mut Client, connection: &str, error: &OpenError) {
    tracing::warn!(connection, %error, "cannot reach the resource");
    let (reason, text, hint) = match error {
        OpenError::None(_) | OpenError::Lost { .. } | OpenError::Refused { .. } => (
            Reason::OutpostUnavailable,
            format!("OnRecord cannot reach the resource behind connection \"{connection}\": {error}"),
            "`onrecord outpost list` on the gateway shows which outposts are connected.",
        ),
        OpenError::Unreachable { .. } | OpenError::TimedOut { .. } => (
            Reason::UpstreamUnreachable,
            format!("OnRecord cannot reach the resource behind connection \"{connection}\" through its outpost"),
            "The server may be down or its address wrong; the gateway's log says more.",
        ),
    };
    turn_away(shared, client, reason, "08001", &text, Some(hint)).await;
}

async fn not_recorded(shared: &Shared, client: &mut Client, error: &RecordError) {
    tracing::error!(%error, "a session cannot be recorded");
    let text = "OnRecord takes no sessions because it cannot record them";
    turn_away(shared, client, Reason::RecordingStopped, "58030", text, None).await;
}

/// Sends a last message and waits a moment for the client to read it: closing a socket with unread
/// bytes in it would reset the connection under the message.
async fn farewell(client: &mut Client, response: &[u8]) {
    let stream = &mut client.stream;
    let parting = async {
        stream.write_all(response).await?;
        stream.shutdown().await?;
        let mut rest = [0; 512];
        while stream.read(&mut rest).await? > 0 {}
        std::io::Result::Ok(())
    };
    let _ = tokio::time::timeout(LINGER_MAX, parting).await;
}
