//! What a gateway is told: listeners, identities, connections, limits.
//!
//! Plain values that have been checked; where they come from (a file, a test) is not known here.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use model::{ChannelBinding, Durability, IdentityName, Known, OnBehalfOf, Proof, ProofMethod, UpstreamSecurity};
use policy::approvals::ApprovalRules;
use policy::break_glass::GlassRules;
use policy::{Grants, Mode, PolicySet};
use sql::AnalyzerConfig;
use zeroize::Zeroizing;

use crate::issuers::IssuerSource;
use crate::notify::Notify;
use crate::outposts::Via;
use crate::passkeys::Site;
use crate::scram::{SaltedCache, Secret};
use crate::ssh::keys::{PrivateKey, PublicKey};
use crate::tls::{ClientTls, ServerTls, Verify};

/// Everything that a gateway needs besides its recorder.
#[derive(Debug)]
pub struct Config {
    /// Where PostgreSQL clients are listened for; port 0 takes a free one.
    pub listen_postgres: Vec<SocketAddr>,
    /// Where SSH clients are listened for; nowhere, unless given.
    pub listen_ssh: Vec<SocketAddr>,
    /// The gateway's own keys for SSH; none is spoken, unless given.
    pub ssh: Option<SshKeys>,
    /// Where outposts are listened for; nowhere, unless given.
    pub listen_outposts: Vec<SocketAddr>,
    /// Where the HTTP API is listened for; nowhere, unless given.
    pub listen_api: Vec<SocketAddr>,
    /// What the API tells everybody: how to reach the gateway and how to log in.
    pub about: serde_json::Value,
    /// The certificate that is shown to clients.
    pub tls: ServerTls,
    /// Who may connect without TLS.
    pub plaintext: Plaintext,
    /// The trusted issuers of tokens. Taken out when the gateway starts with them.
    pub issuers: Vec<IssuerSource>,
    /// What makes identities of client certificates, if those are taken.
    pub certificates: Option<Arc<identity::Certificates>>,
    /// The identities by the user name that clients give.
    pub identities: BTreeMap<String, Identity>,
    /// The connections by name.
    pub connections: BTreeMap<String, Arc<Connection>>,
    /// The hosts that are reached over SSH, by name. No connection has the name of another.
    pub hosts: BTreeMap<String, Arc<Host>>,
    /// The limits in force.
    pub limits: Limits,
    /// What analyses statements, where a connection has a policy.
    pub analysis: AnalyzerConfig,
    /// Who is told that something waits for people, and that somebody broke the glass. Taken out when the gateway starts.
    pub notify: Option<Notify>,
    /// Where people make and use passkeys; none are taken unless given.
    pub passkeys: Option<Site>,
    /// Worker threads; sessions are spread over them.
    pub workers: usize,
}

/// The keys that a gateway has for SSH.
#[derive(Debug, Clone)]
pub struct SshKeys {
    /// Proves the gateway to clients.
    pub host: PrivateKey,
    /// Signs the certificates by which clients prove who they are.
    pub user_ca: PrivateKey,
    /// Signs those by which the gateway logs in to hosts.
    pub session_ca: PrivateKey,
    /// Signs those by which the gateway proves to clients that it is what they call it.
    pub host_ca: PrivateKey,
    /// What clients call the gateway; only who has a name gets a certificate.
    pub names: Vec<String>,
}

/// The policy of a connection.
#[derive(Debug)]
pub struct Policy {
    /// Its rules.
    pub set: Arc<PolicySet>,
    /// Whether it decides, or only says what it would have decided.
    pub mode: Mode,
}

impl Policy {
    /// Whether what it says is done. Only there is something held that break-glass could lift.
    pub(crate) fn decides(&self) -> bool {
        self.mode == Mode::Enforce
    }
}

impl Config {
    /// Whether an identity that was proven under an earlier configuration may use a connection under this one.
    pub(crate) fn permits(&self, identity: &model::Identity, connection: &str) -> bool {
        let grants = self.grants(connection);
        self.still_knows(identity)
            && grants.is_some_and(|grants| grants.admit(&identity.name, &identity.groups).is_some())
    }

    /// Whether such an identity may use any.
    pub(crate) fn permits_some(&self, identity: &model::Identity) -> bool {
        let mut grants = self.all_grants().map(|(_, grants)| grants);
        self.still_knows(identity) && grants.any(|grants| grants.admit(&identity.name, &identity.groups).is_some())
    }

    /// Who may use a connection, of whatever kind.
    pub(crate) fn grants(&self, connection: &str) -> Option<&Grants> {
        let host = || self.hosts.get(connection).map(|host| &host.grants);
        self.connections.get(connection).map(|known| &known.grants).or_else(host)
    }

    /// Who may use which connection, of all kinds.
    pub(crate) fn all_grants(&self) -> impl Iterator<Item = (&str, &Grants)> {
        let hosts = self.hosts.values().map(|host| (host.name.as_str(), &host.grants));
        self.connections.values().map(|known| (known.name.as_str(), &known.grants)).chain(hosts)
    }

    /// Whether somebody may use a connection, and open break-glass there.
    pub(crate) fn may_break_glass(&self, by: &model::Identity, connection: &str) -> bool {
        self.glass_rules(connection).is_some_and(|rules| rules.may_open(by).is_ok())
            && self.grants(connection).is_some_and(|grants| grants.admit(&by.name, &by.groups).is_some())
    }

    /// By which rules break-glass is opened and reviewed on a connection, of whatever kind.
    pub(crate) fn glass_rules(&self, connection: &str) -> Option<&GlassRules> {
        let host = || self.hosts.get(connection).and_then(|host| host.break_glass.as_ref());
        self.connections.get(connection).and_then(|known| known.break_glass.as_ref()).or_else(host)
    }

    /// Whether its key is still there.
    pub(crate) fn still_knows(&self, identity: &model::Identity) -> bool {
        match identity.proof.method {
            ProofMethod::ScramSha256 | ProofMethod::ScramSha256Plus => self
                .identities
                .get(identity.name.name())
                .is_some_and(|known| known.name == identity.name && known.credential == identity.proof.credential),
            ProofMethod::PublicKey => self.identities.get(identity.name.name()).is_some_and(|known| {
                known.name == identity.name
                    && known.ssh_keys.iter().any(|key| key.credential() == identity.proof.credential)
            }),
            ProofMethod::Jwt
            | ProofMethod::ConnectionToken
            | ProofMethod::Certificate
            | ProofMethod::SshCertificate => true,
        }
    }
}

/// Who may connect without TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Plaintext {
    /// Clients on this host.
    Loopback,
    /// Nobody.
    Never,
    /// Everybody. Secrets are still not sent (SCRAM), statements and rows are.
    Always,
}

/// A principal that can log in.
#[derive(Debug, Clone)]
pub struct Identity {
    /// Its full name.
    pub name: IdentityName,
    /// For whom it says that it acts.
    pub on_behalf_of: Option<IdentityName>,
    /// Names the credential in the record; reveals nothing of it.
    pub credential: String,
    /// The groups it is in, by the configuration.
    pub groups: Vec<String>,
    /// What is kept of its API key; none if it proves itself otherwise.
    pub secret: Option<Secret>,
    /// The SSH keys that prove it.
    pub ssh_keys: Vec<PublicKey>,
}

impl Identity {
    /// It, proven by one of its credentials.
    pub(crate) fn proven(&self, method: ProofMethod, channel: ChannelBinding, credential: String) -> model::Identity {
        model::Identity {
            name: self.name.clone(),
            known: Known::Verified,
            proof: Proof { method, channel, credential, evidence: None },
            // From the configuration, not proven by the credential.
            on_behalf_of: self.on_behalf_of.clone().map(|name| OnBehalfOf { name, known: Known::Claimed }),
            groups: self.groups.clone(),
            run: None,
        }
    }
}

/// A PostgreSQL resource as clients reach it.
#[derive(Debug)]
pub struct Connection {
    /// Its name: the database name that clients give.
    pub name: String,
    /// Where the server is.
    pub address: Address,
    /// The outposts through which it is reached; straight, unless given.
    pub outpost: Option<Via>,
    /// The name that its certificate must have, if that is not the host's.
    pub server_name: Option<String>,
    /// TLS towards it, or none.
    pub tls: Option<ClientTls>,
    /// The database, when the client names none.
    pub database: String,
    /// Further databases that may be reached as `name/database`.
    pub databases: Databases,
    /// The role to log in as.
    pub user: String,
    /// Its password.
    pub password: Option<Zeroizing<Vec<u8>>>,
    /// When a command may be forwarded.
    pub durability: Durability,
    /// Who may use it.
    pub grants: Grants,
    /// Largest message from a client, bytes; at most 1 GiB.
    pub message_bytes_max: usize,
    /// What policies can say of it.
    pub labels: BTreeMap<String, String>,
    /// Its policy; every statement may run unless given.
    pub policy: Option<Arc<Policy>>,
    /// Who approves what its policy holds; nobody can unless given.
    pub approvals: Option<ApprovalRules>,
    /// Who may break the glass; nobody unless given.
    pub break_glass: Option<GlassRules>,
    /// Remembers the outcome of the upstream's key derivation.
    pub salted: SaltedCache,
}

/// A host as SSH clients reach it.
#[derive(Debug)]
pub struct Host {
    /// Its name: the user name that clients give.
    pub name: String,
    /// Where it is.
    pub address: Address,
    /// The outposts through which it is reached; straight, unless given.
    pub outpost: Option<Via>,
    /// The keys by which it proves itself.
    pub host_keys: Vec<PublicKey>,
    /// Who signs certificates by which it proves itself.
    pub host_cas: Vec<PublicKey>,
    /// The user to log in as.
    pub user: String,
    /// Further users that may be asked for.
    pub users: Vec<String>,
    /// By what the gateway proves itself to it.
    pub login: HostLogin,
    /// When a command may be forwarded.
    pub durability: Durability,
    /// Who may use it.
    pub grants: Grants,
    /// Whether commands may have a terminal.
    pub terminals: Terminals,
    /// Whether shells may be started.
    pub shells: Shells,
    /// How many bytes of what goes over a command's streams are kept.
    pub kept_bytes_max: u64,
    /// What policies can say of it.
    pub labels: BTreeMap<String, String>,
    /// Its policy; every command may run unless given.
    pub policy: Option<Arc<Policy>>,
    /// Who approves what its policy holds; nobody can unless given.
    pub approvals: Option<ApprovalRules>,
    /// Who may run that without waiting; nobody can unless given.
    pub break_glass: Option<GlassRules>,
}

/// Whether commands may have a terminal: in one, a program can be made to do what its command does not say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Terminals {
    /// They may.
    Allowed,
    /// They may not, and run without one.
    Refused,
}

/// Whether shells may be started: nobody decides over what is typed into one before it runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shells {
    /// They may not.
    Refused,
    /// They may. One with a terminal is started so that it marks the lines that it runs.
    Marked,
    /// They may, and are started as they are; lines are read off the screen.
    Plain,
    /// No shell is started: the gateway reads lines, and each is a command.
    Managed,
}

/// By what the gateway proves itself to a host.
pub enum HostLogin {
    /// A key that the host lets in.
    Key(PrivateKey),
    /// A password.
    Password(Zeroizing<String>),
    /// A certificate that is made for each login, by which the host learns who is behind it.
    Certificate {
        /// What signs it: the host trusts its public half.
        ca: PrivateKey,
        /// What the gateway calls itself in it.
        gateway: String,
    },
}

impl std::fmt::Debug for HostLogin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Key(key) => f.debug_tuple("Key").field(key).finish(),
            Self::Password(_) => f.write_str("Password"),
            Self::Certificate { ca, .. } => f.debug_tuple("Certificate").field(ca).finish(),
        }
    }
}

impl Host {
    /// The user to log in as, or `None` where the one that is asked for is not to be had.
    pub(crate) fn user_for(&self, asked: Option<&str>) -> Option<String> {
        match asked {
            None => Some(self.user.clone()),
            Some(asked) if asked == self.user => Some(asked.to_owned()),
            Some(asked) => self.users.iter().find(|user| *user == asked).cloned(),
        }
    }

    /// How safe the way to it is: its key is always checked.
    pub(crate) fn security(&self) -> UpstreamSecurity {
        UpstreamSecurity::Verified
    }
}

/// Which databases of a server a connection reaches beside its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Databases {
    /// Those.
    Named(Vec<String>),
    /// All.
    Any,
}

impl Connection {
    /// Whether the password may be sent as it is: to this host, or to a server whose certificate was verified.
    pub(crate) fn may_see_password(&self) -> bool {
        let verified = self.tls.as_ref().is_some_and(|tls| tls.verify == Verify::Full);
        verified || self.is_local()
    }

    /// Whether bytes to it stay on this host. What is local to an outpost is not.
    fn is_local(&self) -> bool {
        self.outpost.is_none() && self.address.is_local()
    }

    /// How safe the way to the server is.
    pub(crate) fn security(&self) -> UpstreamSecurity {
        match &self.tls {
            Some(tls) if tls.verify == Verify::Full => UpstreamSecurity::Verified,
            Some(_) => UpstreamSecurity::Encrypted,
            None if self.is_local() => UpstreamSecurity::Local,
            None => UpstreamSecurity::Plaintext,
        }
    }

    /// The database to ask for, or `None` when this connection does not reach it.
    pub(crate) fn database_for(&self, asked: Option<&str>) -> Option<String> {
        match asked {
            None => Some(self.database.clone()),
            Some(asked) if asked == self.database => Some(asked.to_owned()),
            Some(asked) => match &self.databases {
                Databases::Any => Some(asked.to_owned()),
                Databases::Named(names) => names.iter().find(|name| *name == asked).cloned(),
            },
        }
    }
}

/// Where a server is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// Host name or address, and port.
    Tcp {
        /// Host name or IP address.
        host: String,
        /// Port.
        port: u16,
    },
    /// A Unix-domain socket.
    Unix(PathBuf),
}

impl Address {
    /// Whether bytes to it stay on this host.
    pub(crate) fn is_local(&self) -> bool {
        match self {
            Self::Unix(_) => true,
            Self::Tcp { host, .. } => {
                host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
            }
        }
    }
}

/// Limits with their defaults.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Client connections at once, before and after authentication.
    pub connections_max: usize,
    /// Sessions at once of one identity.
    pub connections_per_identity_max: usize,
    /// Time from accept to the end of authentication.
    pub authentication_max: Duration,
    /// Time to reach and log in to a resource.
    pub upstream_connect_max: Duration,
    /// Time without a byte in either direction; `None` is no limit.
    pub idle_max: Option<Duration>,
    /// Bytes that one session may hold in memory per direction before its peer is slowed.
    pub session_bytes_max: usize,
    /// Failures to prove an identity that one source may have in a minute; 0 is no limit.
    pub failed_logins_per_minute_max: u32,
    /// The longest life of a connection token.
    pub token_max: Duration,
    /// After a client is gone: how long a running statement's outcome is waited for.
    pub outcome_wait_max: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections_max: 4096,
            connections_per_identity_max: 1024,
            authentication_max: Duration::from_secs(10),
            upstream_connect_max: Duration::from_secs(10),
            idle_max: None,
            session_bytes_max: 1024 * 1024,
            failed_logins_per_minute_max: 60,
            token_max: Duration::from_secs(60 * 60),
            outcome_wait_max: Duration::from_secs(5),
        }
    }
}
