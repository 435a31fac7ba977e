//! SSH: from an accepted socket to the end of its session.
//!
//! ```text
//! client ─ ssh ─▶ Front (who, where to) ─▶ session ─▶ program, one per channel ─▶ upstream ─ ssh ─▶ host
//!                   ├─ direct-tcpip (`ssh -J`) ─ ssh ─▶ another Front, whose host is known
//!                   └─ direct-tcpip (`ssh -L`) ─▶ `postgres`, as where that is listened for
//! ```
//!
//! The gateway ends SSH on both sides (crate `russh`): it has the host's credential, and the client has none. What is
//! carried are commands (`exec`), the subsystem `sftp`, shells where the connection allows them, and clients of databases
//! that are connections; agents, X11 and other forwarding are refused.
//!
//! Sources: RFC 4251 to 4254; OpenSSH's PROTOCOL.

pub(crate) mod certificates;
mod copies;
mod entries;
mod files;
mod front;
mod inbox;
pub(crate) mod keys;
mod lines;
mod managed;
mod program;
mod relay;
mod session;
mod shell;
mod transcript;
mod tunnel;
mod upstream;
mod valve;
mod waiting;

use std::borrow::Cow;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use model::SessionEnd;
use russh::keys::Certificate;
use russh::keys::ssh_key::certificate::CertType;
use russh::{Disconnect, Limits, MethodKind, MethodSet, Preferred, SshId, cipher, compression, kex, mac, server};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use crate::config::{Config, Host, SshKeys};
use crate::refusals::Reason;
use crate::stream::Stream;
use crate::worker::Seat;
use crate::{Shared, random};
use certificates::Wanted;
use front::Front;
use valve::{Valve, Valved};

pub(crate) use tunnel::Tunnel;

/// Bytes that a peer may send in a channel before it is granted more.
const WINDOW_BYTES: u32 = 2 << 20;
/// Messages of a channel that wait for their task.
const CHANNEL_MESSAGES_MAX: usize = 64;
/// After the end: how long the client may take to read why.
const LINGER_MAX: Duration = Duration::from_secs(1);
/// For how long a certificate for the host key is valid: it is made for each connection.
const HANDSHAKE_MAX: Duration = Duration::from_secs(60 * 60);
/// How long a client may take to leave by itself once its last channel has ended: OpenSSH's does not show what comes right
/// before the connection is ended for it.
const LEAVE_MAX: Duration = Duration::from_millis(500);
/// Attempts to prove an identity over one connection: a client may have several keys.
const ATTEMPTS_MAX: usize = 12;

/// What is agreed on with either side. No SHA-1, no CBC, no compression.
fn preferred() -> Preferred {
    Preferred {
        kex: Cow::Borrowed(&[
            kex::MLKEM768X25519_SHA256,
            kex::CURVE25519,
            kex::CURVE25519_PRE_RFC_8731,
            kex::ECDH_SHA2_NISTP256,
            kex::ECDH_SHA2_NISTP384,
            kex::ECDH_SHA2_NISTP521,
            kex::DH_G16_SHA512,
            kex::DH_G14_SHA256,
            kex::EXTENSION_SUPPORT_AS_CLIENT,
            kex::EXTENSION_SUPPORT_AS_SERVER,
            kex::EXTENSION_OPENSSH_STRICT_KEX_AS_CLIENT,
            kex::EXTENSION_OPENSSH_STRICT_KEX_AS_SERVER,
        ]),
        cipher: Cow::Borrowed(&[
            cipher::AES_256_GCM,
            cipher::AES_128_GCM,
            cipher::CHACHA20_POLY1305,
            cipher::AES_256_CTR,
            cipher::AES_128_CTR,
        ]),
        mac: Cow::Borrowed(&[mac::HMAC_SHA256_ETM, mac::HMAC_SHA512_ETM, mac::HMAC_SHA256, mac::HMAC_SHA512]),
        compression: Cow::Borrowed(&[compression::NONE]),
        ..Preferred::DEFAULT
    }
}

/// Serves one accepted connection to its end.
pub(crate) async fn serve(shared: Arc<Shared>, seat: Seat, mut tcp: TcpStream, peer: SocketAddr) {
    let Ok(_slot) = shared.slots.clone().try_acquire_owned() else {
        shared.refuse(Reason::Limit, peer);
        return;
    };
    if tcp.set_nodelay(true).is_err() {
        return;
    }
    crate::keepalive(&tcp);
    let config = shared.config();
    let Some(keys) = config.ssh.clone() else { return };
    if let Some(wait) = shared.access.wait(peer.ip(), config.limits.failed_logins_per_minute_max) {
        shared.refuse(Reason::Throttled, peer);
        // RFC 4253, 4.2: lines may come before the version, and some clients show them.
        let text = format!(
            "OnRecord takes no logins from this address for {} s: too many have failed\r\n",
            wait.as_secs() + 1
        );
        let _ = tcp.write_all(text.as_bytes()).await;
        return;
    }
    let names = keys.names.clone();
    carry(shared, config, seat, Stream::Tcp(tcp), peer, Where { names, ..Where::default() }).await;
}

/// Answers, in the place of a host that a client wants to reach by way of the gateway (`ssh -J`), in a channel that it has
/// opened. It counts as a connection of its own.
fn jump(
    shared: Arc<Shared>,
    seat: Seat,
    tunnel: Tunnel,
    peer: SocketAddr,
    at: Where,
) -> Pin<Box<dyn Future<Output = ()> + Send>> {
    Box::pin(async move {
        let Ok(_slot) = shared.slots.clone().try_acquire_owned() else {
            shared.refuse(Reason::Limit, peer);
            return;
        };
        let config = shared.config();
        carry(shared, config, seat, Stream::Tunnel(tunnel), peer, at).await;
    })
}

/// Where a connection ended that is answered here.
#[derive(Default)]
struct Where {
    /// What its client calls that place.
    names: Vec<String>,
    /// The host in whose place the gateway answers; else the user name says where to go.
    host: Option<Arc<Host>>,
}

/// The certificate by which the gateway is what a client calls it. One that cannot be made is not shown.
fn certificate(keys: &SshKeys, names: &[String]) -> Option<Certificate> {
    let wanted = Wanted {
        kind: CertType::Host,
        serial: u64::from_be_bytes(random::bytes()),
        key_id: "onrecord",
        principals: names,
        ttl: HANDSHAKE_MAX,
    };
    let made = || certificates::sign(&keys.host_ca, &keys.host.public(), &wanted);
    let made = (!names.is_empty()).then(made)?;
    made.inspect_err(|error| tracing::error!(%error, "no certificate for the host key")).ok()
}

/// Serves one connection to its end, over whatever carries it.
async fn carry(shared: Arc<Shared>, config: Arc<Config>, seat: Seat, stream: Stream, peer: SocketAddr, at: Where) {
    let Some(keys) = &config.ssh else { return };
    let settings = server::Config {
        server_id: SshId::Standard(Cow::Borrowed("SSH-2.0-OnRecord")),
        methods: MethodSet::from([MethodKind::PublicKey, MethodKind::Password].as_slice()),
        auth_rejection_time: Duration::from_millis(300),
        auth_rejection_time_initial: Some(Duration::ZERO),
        keys: vec![russh::keys::PrivateKey::clone(&keys.host.0)],
        certificates: certificate(keys, &at.names).into_iter().collect(),
        limits: Limits::default(),
        window_size: WINDOW_BYTES,
        channel_buffer_size: CHANNEL_MESSAGES_MAX,
        preferred: preferred(),
        max_auth_attempts: ATTEMPTS_MAX,
        inactivity_timeout: config.limits.idle_max,
        nodelay: true,
        ..server::Config::default()
    };
    let valve = Arc::new(Valve::default());
    // However this ends: the library's task goes on by itself, and ends with the connection.
    let _cut = valve.cut_on_drop();
    let state = Arc::new(front::State::default());
    let _over = state.over_on_drop();
    let front = Front::new(shared.clone(), config.clone(), seat, peer, valve.clone(), state.clone(), at.host);
    let beginning = server::run_stream(Arc::new(settings), Valved::new(stream, valve), front);
    let running = tokio::select! {
        running = tokio::time::timeout(config.limits.authentication_max, beginning) => running,
        () = shared.stopping.cancelled() => return shared.refuse(Reason::GatewayStopping, peer),
    };
    let mut running = match running {
        Err(_elapsed) => return shared.refuse(Reason::Timeout, peer),
        Ok(Err(_)) => return shared.refuse(Reason::Malformed, peer),
        Ok(Ok(running)) => running,
    };
    let handle = running.handle();
    let proving = tokio::time::sleep(config.limits.authentication_max);
    tokio::pin!(proving);
    let ending = state.ending();
    let (why, ended) = loop {
        tokio::select! {
            ended = &mut running => break (front::end_of(&ended), true),
            end = ending.wait() => break (end, false),
            () = shared.stopping.cancelled() => break (SessionEnd::GatewayStopped, false),
            () = &mut proving => {
                // Who has proven something and does nothing with it counts for nobody, but for a client that listens for
                // others who want to reach a database.
                if !state.is_proven() || (state.is_unused() && !state.may_forward()) {
                    shared.refuse(Reason::Timeout, peer);
                    return;
                }
                proving.as_mut().reset(tokio::time::Instant::now() + config.limits.authentication_max);
            }
        }
    };
    if !state.is_proven() && !state.was_refused() {
        shared.refuse(if shared.stopping.is_cancelled() { Reason::GatewayStopping } else { Reason::ClosedEarly }, peer);
    }
    state.finish(why).await;
    if ended || tokio::time::timeout(LEAVE_MAX, &mut running).await.is_ok() {
        return;
    }
    let parting = async {
        let _ = handle.disconnect(Disconnect::ByApplication, front::goodbye(why).to_owned(), "en".to_owned()).await;
        let _ = (&mut running).await;
    };
    let _ = tokio::time::timeout(LINGER_MAX, parting).await;
}
