//! An outpost: a process beside a resource. It dials out to the gateway, listens nowhere, and moves bytes between the
//! gateway and the few addresses that it was told it may dial.
//!
//! What it does, whole: it gets a certificate with a join token and renews it ([`enrol`]); it keeps two to four TLS 1.3
//! connections to the gateway ([`links`]); for each stream that the gateway opens it looks the address up in its own
//! list, dials it ([`serve`]) and copies bytes both ways ([`pump`]). Its key is made here and never leaves ([`state`]).
//!
//! Not for: protocols, credentials, recording. TLS to the resource is the gateway's own and runs through here: the
//! outpost sees ciphertext. It can drop or delay, and can neither read, change nor make up a command.
//!
//! Invariant: nothing is dialled but the gateway, its proxy, and what is on the list.

mod carrier;
mod enrol;
mod links;
mod pump;
mod serve;
mod state;

use std::io::Write as _;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use link::JoinToken;
use tokio::sync::watch;

pub use carrier::Proxy;
pub use state::{Identity, State, StateError};

/// Connections to the gateway, unless told otherwise.
pub const CONNECTIONS_DEFAULT: u8 = 2;
/// How long the last word may take to leave when it stops.
const PARTING: Duration = Duration::from_millis(300);
/// Addresses that an outpost may be told of.
const ALLOWED_MAX: usize = 1024;

/// What an outpost is told at its start.
#[derive(Debug)]
pub struct Options {
    /// Its directory: the key, the certificate, the gateway's address.
    pub state: PathBuf,
    /// The join token, where there is no certificate yet.
    pub join: Option<JoinToken>,
    /// What may be dialled.
    pub allowed: Vec<Address>,
    /// Connections to the gateway, 2 to 4.
    pub connections: u8,
    /// A proxy on the way to the gateway.
    pub proxy: Option<Proxy>,
    /// How the gateway is reached.
    pub carrier: Carrier,
}

/// How the gateway is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Carrier {
    /// TLS on TCP.
    Tls,
    /// A WebSocket on TLS, with the other TLS inside.
    WebSocket,
}

/// A host and a port that may be dialled. It is compared letter by letter with what the gateway asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    pub(crate) host: String,
    pub(crate) port: u16,
}

/// Why an outpost ends.
#[derive(Debug, thiserror::Error)]
pub enum OutpostError {
    /// Its directory.
    #[error(transparent)]
    State(#[from] StateError),
    /// It has no certificate and no token to get one.
    #[error(
        "this outpost has not joined a gateway yet: give it the join token that `onrecord outpost token` prints, \
         in the file of --join-file or in the environment variable ONRECORD_JOIN"
    )]
    NoIdentity,
    /// Its certificate was not renewed in time.
    #[error(
        "the certificate of this outpost has expired: it has to join again, with a new token from `onrecord outpost token`"
    )]
    Expired,
    /// The gateway does not want it.
    #[error("the gateway refuses this outpost: {0}")]
    Denied(String),
    /// It may dial nothing.
    #[error("there is no address that this outpost may dial: name each with --allow HOST:PORT")]
    NothingAllowed,
    /// TLS cannot be set up.
    #[error("TLS cannot be set up: {0}")]
    Tls(#[from] rustls::Error),
    /// No key or signing request could be made.
    #[error("cannot make a key: {0}")]
    Key(#[from] rcgen::Error),
    /// The gateway cannot be reached.
    #[error("cannot reach the gateway at {address}: {source}")]
    Unreachable {
        /// Where.
        address: String,
        /// Why.
        source: std::io::Error,
    },
    /// The gateway answers what makes no sense.
    #[error("the gateway answers with something else than was asked for; is it of another version?")]
    Answer,
}

impl FromStr for Address {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const FORM: &str = "write HOST:PORT, such as db.internal:5432 or [::1]:5432";
        let (host, port) = text.rsplit_once(':').ok_or(FORM)?;
        let bracketed = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        let host = bracketed.unwrap_or(host);
        let port = port.parse().ok().filter(|port| *port > 0).ok_or(FORM)?;
        let odd = |c: char| c.is_whitespace() || c.is_control() || "/@[]*".contains(c);
        let fits = (1..=link::frame::HOST_BYTES_MAX).contains(&host.len());
        if !fits || host.contains(odd) || (bracketed.is_none() && host.contains(':')) {
            return Err(FORM);
        }
        Ok(Self { host: host.to_owned(), port })
    }
}

/// What all tasks of an outpost share.
struct Shared {
    options: Options,
    state: State,
    identity: Mutex<Identity>,
    /// Made up at each start; the gateway tells by it which connections are of a process that is gone.
    instance: [u8; 16],
    stopping: watch::Sender<bool>,
}

impl Shared {
    fn identity(&self) -> MutexGuard<'_, Identity> {
        self.identity.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Runs until `stop` is ready, which ends it in order, or until the gateway does not want it any more.
///
/// # Errors
/// Why it cannot go on. That the gateway cannot be reached is no reason: it is tried again.
pub async fn run(options: Options, stop: impl Future<Output = ()>) -> Result<(), OutpostError> {
    if options.allowed.is_empty() || options.allowed.len() > ALLOWED_MAX {
        return Err(OutpostError::NothingAllowed);
    }
    let state = State::open(&options.state)?;
    let kept = state.load()?;
    let mut stop = std::pin::pin!(stop);
    let identity = match (kept, &options.join) {
        (Some(identity), _) if !identity.is_expired() => identity,
        (_, Some(token)) => tokio::select! {
            joined = enrol::join(&options, &state, token) => joined?,
            () = &mut stop => return Ok(()),
        },
        (Some(_), None) => return Err(OutpostError::Expired),
        (None, None) => return Err(OutpostError::NoIdentity),
    };
    say(&format!("outpost {} ({}), gateway {}", identity.name, identity.id, identity.address));
    let (stopping, _) = watch::channel(false);
    let shared = Arc::new(Shared { options, state, identity: Mutex::new(identity), instance: random(), stopping });
    let parting = async {
        stop.await;
        say("stopping");
        shared.stopping.send_replace(true);
        tokio::time::sleep(PARTING).await;
    };
    tokio::select! {
        ended = links::keep(shared.clone()) => ended,
        ended = enrol::keep(shared.clone()) => ended,
        () = parting => Ok(()),
    }
}

/// Ready when SIGTERM or SIGINT comes.
///
/// # Errors
/// The system takes no handler.
pub fn told_to_stop() -> std::io::Result<impl Future<Output = ()>> {
    use tokio::signal::unix::{SignalKind, signal};
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    })
}

/// The outpost's log: one line on standard error.
pub fn say(line: &str) {
    // Nobody to read it is no reason to stop.
    let _ = writeln!(std::io::stderr().lock(), "onrecord-outpost: {line}");
}

/// Random bytes; the process cannot go on without.
fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    aws_lc_rs::rand::fill(&mut bytes).expect("the system gives random numbers");
    bytes
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_one_host_and_one_port() {
        assert_eq!("db.internal:5432".parse(), Ok(Address { host: "db.internal".into(), port: 5432 }));
        assert_eq!("[::1]:5432".parse(), Ok(Address { host: "::1".into(), port: 5432 }));
        for odd in ["db", "db:0", "db:99999", "::1:5432", "*:5432", ":5432", "a b:1", "10.0.0.0/8:5432"] {
            assert!(odd.parse::<Address>().is_err(), "{odd}");
        }
    }
}
