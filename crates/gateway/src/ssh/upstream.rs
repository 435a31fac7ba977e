//! Hosts: reached and logged in to as the gateway, and the one place from which a command leaves for one.
//!
//! The credential is used here and nowhere else. A host must prove itself by a key that the configuration names.
//!
//! Invariant: a program is started only with the permission to do so and the evidence that it is on the record.

use std::borrow::Cow;
use std::future::Future;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use link::LinkStream;
use model::{Carried, Identity, Reason};
use policy::Permit;
use russh::client::{self, AuthResult, ChannelOpenHandle, Handle, Msg, Session as Connection};
use russh::keys::ssh_key::certificate::CertType;
use russh::keys::{Algorithm, Certificate, EcdsaCurve, HashAlg, PrivateKeyWithHashAlg, PublicKeyOrCertificate};
use russh::{Channel, ChannelMsg, ChannelOpenFailure, ChannelWriteHalf, Disconnect, Preferred, Pty};
use store::Recorded;
use tokio::net::TcpStream;

use super::certificates::{self, NotTaken, Wanted};
use super::keys::{KeyError, PrivateKey};
use super::shell::{self, Nonce};
use super::valve::{Cut, Valve, Valved};
use super::{CHANNEL_MESSAGES_MAX, WINDOW_BYTES, preferred};
use crate::config::{Address, Host, HostLogin};
use crate::outposts::{OPEN_MAX, OpenError, Outposts};
use crate::random;
use crate::stream::Stream;

/// How long a certificate is good for logging in, and how far a host's clock may be ahead.
const LOGIN_MAX: Duration = Duration::from_secs(5 * 60);
/// The kinds of keys in hosts' certificates.
const CERTIFIED: &[Algorithm] = &[
    Algorithm::Ed25519,
    Algorithm::Ecdsa { curve: EcdsaCurve::NistP256 },
    Algorithm::Ecdsa { curve: EcdsaCurve::NistP384 },
    Algorithm::Ecdsa { curve: EcdsaCurve::NistP521 },
];
/// Connections to the host that a session keeps open while nothing runs over them.
const IDLE_MAX: usize = 2;

/// Why a host could not be logged in to.
#[derive(Debug, thiserror::Error)]
pub(super) enum LoginError {
    #[error("cannot reach the host: {0}")]
    Unreachable(#[source] io::Error),
    #[error("no way to the host through an outpost: {0}")]
    Outpost(#[from] OpenError),
    #[error("the host's key {got} is not one of `host_keys`")]
    HostKey { got: String },
    #[error("the host's certificate {key_id:?} is not taken: {why}")]
    HostCertificate { key_id: String, why: NotTaken },
    #[error("SSH with the host failed: {0}")]
    Ssh(#[from] russh::Error),
    #[error("the host does not accept the gateway's credential for user {user:?}")]
    Refused { user: String },
    #[error("the certificate for the host cannot be signed: {0}")]
    NotCertified(#[from] KeyError),
    #[error("the host took too long")]
    TimedOut,
}

impl LoginError {
    /// For the client: nothing of addresses, keys and credentials.
    pub(super) fn for_client(&self, connection: &str) -> String {
        let what = match self {
            Self::Outpost(error) => {
                format!("OnRecord cannot reach the host behind connection \"{connection}\": {error}")
            }
            Self::Unreachable(_) | Self::TimedOut => {
                format!("OnRecord cannot reach the host behind connection \"{connection}\"")
            }
            Self::HostKey { .. } => {
                format!(
                    "OnRecord does not trust the host behind connection \"{connection}\": its key is not the one that is configured"
                )
            }
            Self::HostCertificate { why, .. } => {
                format!("OnRecord does not trust the certificate of the host behind connection \"{connection}\": {why}")
            }
            Self::Refused { .. } | Self::NotCertified(_) => {
                format!("OnRecord could not log in to the host behind connection \"{connection}\"")
            }
            Self::Ssh(_) => {
                format!("OnRecord could not establish SSH with the host behind connection \"{connection}\"")
            }
        };
        format!("{what}. `onrecord doctor` and the gateway's log say more.")
    }
}

/// What is to be started.
#[derive(Debug, Clone)]
pub(super) enum Start {
    /// A command for the user's shell, RFC 4254 6.5 `exec`.
    Exec(Vec<u8>),
    /// A subsystem.
    Subsystem(String),
    /// The user's shell; with a nonce, so that it marks its lines.
    Shell(Option<Nonce>),
}

/// Something that is to be started, with what was asked for it before.
#[derive(Debug, Clone)]
pub(super) struct Staged {
    pub(super) start: Start,
    pub(super) env: Vec<(String, String)>,
    pub(super) terminal: Option<Terminal>,
}

/// A terminal that a client asked for (RFC 4254, 6.2).
#[derive(Debug, Clone)]
pub(super) struct Terminal {
    pub(super) term: String,
    /// Columns, rows, and both in pixels.
    pub(super) size: [u32; 4],
    pub(super) modes: Vec<(Pty, u32)>,
}

/// Why a program was not started.
#[derive(Debug, thiserror::Error)]
pub(super) enum StartError {
    #[error(transparent)]
    Login(#[from] LoginError),
    #[error("the host opens no more channels ({0:?})")]
    Channel(ChannelOpenFailure),
    #[error("the connection to the host broke: {0}")]
    Broken(#[source] russh::Error),
    #[error("the session ends ({0})")]
    Ending(Reason),
    #[error("the client left")]
    ClientGone,
}

impl StartError {
    /// Why it is not known what became of a command that may have reached the host.
    pub(super) fn reason(&self) -> Reason {
        match self {
            Self::Login(_) | Self::Channel(_) | Self::Broken(_) => Reason::UpstreamGone,
            Self::Ending(reason) => *reason,
            Self::ClientGone => Reason::ClientGone,
        }
    }
}

/// The connections of one session to its host.
pub(super) struct Upstream {
    host: Arc<Host>,
    user: String,
    outposts: Option<Outposts>,
    session: String,
    /// Who is behind it, for hosts that are told.
    who: String,
    idle: Mutex<Vec<Link>>,
}

/// One connection to a host, logged in.
pub(super) struct Link {
    handle: Handle<Verifier>,
    pub(super) valve: Arc<Valve>,
    /// The connection ends with this, whatever becomes of its task.
    _cut: Cut,
}

/// A program that was started, and the connection that it has for itself.
pub(super) struct Program {
    pub(super) channel: Channel<Msg>,
    pub(super) link: Link,
    pub(super) terminal: HasTerminal,
}

/// Whether a program has a terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum HasTerminal {
    Yes,
    No,
}

impl Upstream {
    pub(super) fn new(
        host: Arc<Host>,
        user: String,
        outposts: Option<Outposts>,
        session: String,
        identity: &Identity,
    ) -> Self {
        let whom = identity.on_behalf_of.as_ref().map(|whom| format!(" on_behalf_of={}", whom.name));
        let who = format!("identity={}{}", identity.name, whom.unwrap_or_default());
        Self { host, user, outposts, session, who, idle: Mutex::default() }
    }

    /// Logs in, so that a host that is not there is known before anything runs.
    pub(super) async fn prepare(&self, first: Option<LinkStream>) -> Result<(), LoginError> {
        let link = self.connect(first).await?;
        self.give_back(link);
        Ok(())
    }

    /// A channel to the host, over which nothing was asked for yet. Cancel safe: dropping it ends the connection that it was
    /// making.
    pub(super) async fn open(&self) -> Result<Program, StartError> {
        let link = match self.take() {
            Some(link) => link,
            None => self.connect(None).await?,
        };
        let channel = link.handle.channel_open_session().await.map_err(|error| match error {
            russh::Error::ChannelOpenFailure(why) => StartError::Channel(why),
            other => StartError::Broken(other),
        })?;
        Ok(Program { channel, link, terminal: HasTerminal::No })
    }

    /// Gives a program what was asked for it: nothing runs yet. Cancel safe, if the program is not used any more then.
    pub(super) async fn equip(
        &self,
        program: &mut Program,
        env: Vec<(String, String)>,
        terminal: Option<Terminal>,
    ) -> Result<(), StartError> {
        for (name, value) in env {
            program.channel.set_env(false, name, value).await.map_err(StartError::Broken)?;
        }
        let Some(Terminal { term, size: [columns, rows, width, height], mut modes }) = terminal else { return Ok(()) };
        // What is typed is not kept, since what is echoed is: that is not for the client to switch off beforehand.
        modes.retain(|(mode, _)| *mode != Pty::ECHO);
        modes.push((Pty::ECHO, 1));
        let asking = program.channel.request_pty(true, &term, columns, rows, width, height, &modes);
        asking.await.map_err(StartError::Broken)?;
        // A host may refuse; then the command runs without one.
        loop {
            match program.channel.wait().await {
                Some(ChannelMsg::Success) => break program.terminal = HasTerminal::Yes,
                Some(ChannelMsg::Failure) => break,
                Some(_) => {}
                None => return Err(StartError::Broken(russh::Error::Disconnect)),
            }
        }
        Ok(())
    }

    /// Starts it. It is on the record, and may run. Not cancel safe: dropping it leaves open whether the host got the command.
    pub(super) async fn forward(
        &self,
        program: &Program,
        start: Start,
        _: &Permit,
        _: &Recorded,
    ) -> Result<(), StartError> {
        let starting = match start {
            Start::Exec(command) => program.channel.exec(true, command).await,
            Start::Subsystem(name) => program.channel.request_subsystem(true, name).await,
            Start::Shell(None) => program.channel.request_shell(true).await,
            Start::Shell(Some(nonce)) => program.channel.exec(true, shell::command(&nonce)).await,
        };
        starting.map_err(StartError::Broken)
    }

    /// As [`Upstream::forward`], of an operation on files in a channel that is open.
    pub(super) fn forward_file(
        writer: Arc<ChannelWriteHalf<Msg>>,
        bytes: Bytes,
        _: &Permit,
        _: &Recorded,
    ) -> impl Future<Output = Result<(), russh::Error>> + Send + use<> {
        async move { writer.data_bytes(bytes).await }
    }

    /// A program is over: another one may use its connection.
    pub(super) fn give_back(&self, link: Link) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < IDLE_MAX && !link.handle.is_closed() {
            idle.push(link);
        }
    }

    /// Ends the connections that nothing runs over.
    pub(super) async fn close(&self) {
        let idle = std::mem::take(&mut *self.idle.lock().unwrap_or_else(PoisonError::into_inner));
        for link in idle {
            let _ = link.handle.disconnect(Disconnect::ByApplication, "", "").await;
        }
    }

    fn take(&self) -> Option<Link> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        while let Some(link) = idle.pop() {
            if !link.handle.is_closed() {
                return Some(link);
            }
        }
        None
    }

    async fn connect(&self, carried: Option<LinkStream>) -> Result<Link, LoginError> {
        let stream = match carried {
            Some(carried) => Stream::Link(carried),
            None => self.reach().await?,
        };
        let valve = Arc::new(Valve::default());
        let cut = valve.cut_on_drop();
        let config = client::Config {
            window_size: WINDOW_BYTES,
            channel_buffer_size: CHANNEL_MESSAGES_MAX,
            // Only keys that are known here: a host may have others.
            preferred: Preferred {
                key: self.host.host_keys.iter().map(|key| key.0.algorithm()).collect(),
                host_key_certificates: Cow::Borrowed(if self.host.host_cas.is_empty() { &[] } else { CERTIFIED }),
                ..preferred()
            },
            nodelay: true,
            ..client::Config::default()
        };
        let wrong = Arc::new(Mutex::new(None));
        let verifier = Verifier { host: self.host.clone(), wrong: Arc::clone(&wrong) };
        let connected =
            client::connect_stream(Arc::new(config), Valved::new(stream, Arc::clone(&valve)), verifier).await;
        let mut handle =
            connected.map_err(|error| match wrong.lock().unwrap_or_else(PoisonError::into_inner).take() {
                Some(wrong) => wrong,
                None => LoginError::Ssh(error),
            })?;
        let result = match &self.host.login {
            HostLogin::Key(key) => {
                let key = PrivateKeyWithHashAlg::new(Arc::clone(&key.0), Some(HashAlg::Sha256));
                handle.authenticate_publickey(&self.user, key).await?
            }
            HostLogin::Password(password) => handle.authenticate_password(&self.user, password.as_str()).await?,
            HostLogin::Certificate { ca, gateway } => {
                let key = PrivateKey::generate();
                let certificate = self.certify(&key, ca, gateway)?;
                handle.authenticate_openssh_cert(&self.user, key.0, certificate).await?
            }
        };
        match result {
            AuthResult::Success => Ok(Link { handle, valve, _cut: cut }),
            AuthResult::Failure { .. } => Err(LoginError::Refused { user: self.user.clone() }),
        }
    }

    /// For this login and no other, by a key that is forgotten after it. The host's log has what it says.
    fn certify(&self, key: &PrivateKey, ca: &PrivateKey, gateway: &str) -> Result<Certificate, LoginError> {
        let wanted = Wanted {
            kind: CertType::User,
            serial: u64::from_be_bytes(random::bytes()),
            key_id: &format!("{} session={} gateway={gateway}", self.who, self.session),
            principals: std::slice::from_ref(&self.user),
            ttl: LOGIN_MAX,
        };
        Ok(certificates::sign(ca, &key.public(), &wanted)?)
    }

    /// A stream to the host: straight, or through an outpost.
    async fn reach(&self) -> Result<Stream, LoginError> {
        let Address::Tcp { host, port } = &self.host.address else {
            return Err(LoginError::Unreachable(io::ErrorKind::Unsupported.into()));
        };
        if let Some((stream, _)) = through_outpost(&self.host, self.outposts.as_ref(), &self.session).await? {
            return Ok(Stream::Link(stream));
        }
        let stream = TcpStream::connect((host.as_str(), *port)).await.map_err(LoginError::Unreachable)?;
        stream.set_nodelay(true).map_err(LoginError::Unreachable)?;
        crate::keepalive(&stream);
        Ok(Stream::Tcp(stream))
    }
}

/// A stream to a host through an outpost, and which one that is, where its connection asks for one.
pub(super) async fn through_outpost(
    host: &Host,
    outposts: Option<&Outposts>,
    session: &str,
) -> Result<Option<(LinkStream, Carried)>, OpenError> {
    let (Some(via), Address::Tcp { host, port }) = (&host.outpost, &host.address) else { return Ok(None) };
    let outposts = outposts.ok_or_else(|| OpenError::None(via.clone()))?;
    outposts.open_stream(via, host, *port, session, OPEN_MAX).await.map(Some)
}

/// Checks that a host is the one that is meant.
pub(super) struct Verifier {
    host: Arc<Host>,
    /// What is not trusted.
    wrong: Arc<Mutex<Option<LoginError>>>,
}

impl Verifier {
    fn check(&self, shown: &PublicKeyOrCertificate) -> Result<(), LoginError> {
        match shown {
            PublicKeyOrCertificate::PublicKey { key, .. } => {
                let trusted = self.host.host_keys.iter().any(|trusted| trusted.is(key));
                let got = || key.fingerprint(HashAlg::Sha256).to_string();
                if trusted { Ok(()) } else { Err(LoginError::HostKey { got: got() }) }
            }
            PublicKeyOrCertificate::Certificate(certificate) => {
                let Address::Tcp { host, .. } = &self.host.address else {
                    return Err(LoginError::Unreachable(io::ErrorKind::Unsupported.into()));
                };
                let now = SystemTime::now();
                let taken = certificates::check_host(certificate, &self.host.host_cas, host, now);
                let key_id = || certificate.key_id().to_owned();
                taken.map_err(|why| LoginError::HostCertificate { key_id: key_id(), why })
            }
        }
    }
}

/// Handlers of the library that refuse the channel which a host wants to open, whatever else they are told of it.
macro_rules! refused {
    ($($open:ident($($told:ty),*))*) => {$(
        async fn $open(
            &mut self,
            _: Channel<Msg>,
            $(_: $told,)*
            reply: ChannelOpenHandle,
            _: &mut Connection,
        ) -> Result<(), Self::Error> {
            reply.reject(ChannelOpenFailure::AdministrativelyProhibited).await;
            Ok(())
        }
    )*};
}

impl client::Handler for Verifier {
    type Error = russh::Error;

    async fn check_server_key(&mut self, shown: &PublicKeyOrCertificate) -> Result<bool, Self::Error> {
        let checked = self.check(shown);
        let trusted = checked.is_ok();
        *self.wrong.lock().unwrap_or_else(PoisonError::into_inner) = checked.err();
        Ok(trusted)
    }

    // Nothing was forwarded, so there is nothing that a host may open. The library would accept each.

    refused! {
        server_channel_open_session()
        server_channel_open_x11(&str, u32)
        server_channel_open_agent_forward()
        server_channel_open_forwarded_tcpip(&str, u32, &str, u32)
        server_channel_open_forwarded_streamlocal(&str)
        server_channel_open_direct_tcpip(&str, u32, &str, u32)
        server_channel_open_direct_streamlocal(&str)
    }
}
