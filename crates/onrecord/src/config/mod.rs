//! The configuration file: what it may say, and how it is read.
//!
//! A [`Config`] that exists has passed every check that needs only the file itself: unknown keys are
//! refused, values are parsed into types that cannot hold a wrong one, and every reference points at
//! something. What needs the world outside (secrets, the data directory, the network) is checked by
//! `onrecord config check` and `onrecord doctor`.
//!
//! Invariant: no secret is ever a value of the file; see [`SecretSource`].

mod approvals;
mod break_glass;
mod check;
mod issuers;
mod problem;
mod value;

pub use approvals::Approvals;
pub use break_glass::BreakGlass;
pub use check::{SecretFinding, SecretState, resolve_secrets};
pub use issuers::{Certificates, Issuer, KeysPlace, LoginWay};
pub use problem::{ConfigError, Problem};
pub use value::{
    Address, ConnectionKind, ConnectionName, Origin, Plaintext, SecretError, SecretSource, UpstreamTls, Via, WebUrl,
};

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::num::{NonZeroU32, NonZeroUsize};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use model::{Digest, Durability, IdentityKind, IdentityName};
use policy::{PolicyFile, PolicySet, Ruling};
use serde::Deserialize;
use sha2::Digest as _;
use sha2::Sha256;

use crate::keys::Verifier;

/// The JSON Schema of the file, as `onrecord config schema` prints it.
pub const SCHEMA: &str = include_str!("schema.json");

/// The smallest `message_bytes_max`: a client's startup must fit.
pub const MESSAGE_BYTES_FLOOR: u64 = 16 * 1024;
/// The largest `message_bytes_max`: PostgreSQL's own limit of a message.
pub const MESSAGE_BYTES_CEILING: u64 = 1 << 30;
/// Bytes of a command's streams that are kept unless the file says another number.
pub const KEPT_BYTES: u64 = 64 << 20;
/// The longest file of a policy, bytes.
const POLICY_BYTES_MAX: u64 = 1 << 20;

/// A whole configuration file.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The gateway itself.
    pub gateway: Gateway,
    /// Where clients connect.
    pub listen: Listen,
    /// The certificate that clients see.
    #[serde(default)]
    pub tls: Tls,
    /// The resources, by the name that clients use.
    #[serde(default)]
    pub connections: BTreeMap<ConnectionName, Connection>,
    /// Who may sign in, by the user name that clients use.
    #[serde(default)]
    pub identities: BTreeMap<String, Identity>,
    /// Who is trusted to say by a token who somebody is.
    #[serde(default)]
    pub issuers: BTreeMap<String, Issuer>,
    /// The authority of client certificates.
    pub certificates: Option<Certificates>,
    /// How the record is kept.
    #[serde(default)]
    pub record: Record,
    /// For how long content is kept.
    #[serde(default)]
    pub retention: Retention,
    /// Limits of the whole gateway.
    #[serde(default)]
    pub limits: Limits,
    /// The log over HTTP, for anyone to read. Off unless given.
    pub publish: Option<Publish>,
    /// The witnesses that are asked to cosign.
    pub witness: Option<Witness>,
    /// Where receipts are sent.
    pub receipts: Option<Receipts>,
    /// Who is told that something waits for approval, and that somebody broke the glass.
    pub notifications: Option<Notifications>,
    /// The keys with which people sign their decisions.
    pub passkeys: Option<PasskeySite>,
    /// What outposts are told.
    #[serde(default)]
    pub outposts: Outposts,
    /// What SSH clients are told.
    #[serde(default)]
    pub ssh: Ssh,
    /// The policies of those connections that have one.
    #[serde(skip)]
    pub policies: BTreeMap<ConnectionName, Arc<PolicySet>>,
    /// Names what is in force: SHA-256 of the file's text, which holds no secrets; where connections have policies, SHA-256
    /// of that and of the digests of the policies, in the order of the connections.
    #[serde(skip, default = "no_digest")]
    pub digest: Digest,
}

/// `[gateway]`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Gateway {
    /// The log's origin: the name under which its checkpoints are signed.
    pub name: Origin,
    /// The data directory; a relative path starts at the directory of the file.
    pub data: PathBuf,
    /// Worker threads; half of the processors, at least one, unless given.
    pub workers: Option<NonZeroUsize>,
}

/// `[record]`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// The key that wraps the one under which session keys are kept; that one is kept in clear unless given.
    pub wrapping_key: Option<SecretSource>,
}

/// `[retention]`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Retention {
    /// Days after the end of a session until its content is erased; never unless given.
    pub days: Option<NonZeroU32>,
}

/// `[listen]`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Listen {
    /// Addresses that speak PostgreSQL.
    #[serde(default, deserialize_with = "value::listeners")]
    pub postgres: Vec<SocketAddr>,
    /// Addresses that speak SSH.
    #[serde(default, deserialize_with = "value::listeners")]
    pub ssh: Vec<SocketAddr>,
    /// Addresses of the HTTP API, over TLS; nowhere, unless given.
    #[serde(default, deserialize_with = "value::listeners")]
    pub api: Vec<SocketAddr>,
    /// Addresses that outposts dial; nowhere, unless given.
    #[serde(default, deserialize_with = "value::listeners")]
    pub outposts: Vec<SocketAddr>,
}

/// `[outposts]`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Outposts {
    /// Where outposts find the gateway, `host:port`, as join tokens say it; the first of `listen.outposts` unless given.
    pub address: Option<Address>,
}

/// `[ssh]`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ssh {
    /// What clients call the gateway: the names in the certificate for its host key. None has one, unless given.
    #[serde(default)]
    pub names: Vec<String>,
}

/// `[tls]`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tls {
    /// The certificate chain, PEM; self-signed and generated unless given.
    pub certificate: Option<SecretSource>,
    /// The certificate's private key, PEM.
    pub key: Option<SecretSource>,
    /// Who may connect without TLS.
    #[serde(default)]
    pub plaintext: Plaintext,
}

/// `[connections.NAME]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Connection {
    /// The protocol.
    pub kind: ConnectionKind,
    /// Where the resource is.
    pub address: Address,
    /// PostgreSQL: the database that the connection's name stands for.
    #[serde(default)]
    pub database: String,
    /// Further databases, reachable as `NAME/DATABASE`; `*` is any.
    #[serde(default)]
    pub databases: Vec<String>,
    /// The user that the gateway signs in as.
    pub user: String,
    /// That user's password.
    pub password: Option<SecretSource>,
    /// SSH: the private key that lets that user in.
    pub key: Option<SecretSource>,
    /// SSH: another way in than a key or a password.
    pub login: Option<HostLogin>,
    /// SSH: the public keys by which the host proves itself.
    #[serde(default)]
    pub host_keys: Vec<String>,
    /// SSH: the authorities whose certificates prove the host.
    #[serde(default)]
    pub host_cas: Vec<String>,
    /// SSH: further users that clients may ask for, as `USER%NAME`.
    #[serde(default)]
    pub users: Vec<String>,
    /// SSH: whether commands may have a terminal.
    #[serde(default)]
    pub terminals: bool,
    /// SSH: whether shells may be started, and how.
    #[serde(default)]
    pub shells: Shells,
    /// SSH: how many bytes of what goes over a command's streams are kept; of all of them there is a digest.
    pub kept_bytes_max: Option<u64>,
    /// How the gateway encrypts to the resource; see [`Connection::tls`].
    #[serde(rename = "tls")]
    tls_asked: Option<UpstreamTls>,
    /// The authority that the resource's certificate must come from; the system's unless given.
    pub ca: Option<SecretSource>,
    /// The name that the resource's certificate must have; the host of `address` unless given.
    pub server_name: Option<String>,
    /// The outposts through which the resource is reached; straight unless given.
    pub outpost: Option<Via>,
    /// Whether statements, rows and passwords may cross a network in the clear.
    #[serde(default)]
    pub allow_plaintext: bool,
    /// What must be on stable storage before what.
    #[serde(default = "default_durability", deserialize_with = "value::durability")]
    pub durability: Durability,
    /// Who may use the connection. Nobody, unless named.
    #[serde(default, deserialize_with = "value::identity_names")]
    pub identities: Vec<IdentityName>,
    /// Whoever is proven to be in one of these groups may use it too.
    #[serde(default)]
    pub groups: Vec<String>,
    /// The longest message, in bytes; a longer one is refused, never cut.
    #[serde(default = "default_message_bytes_max")]
    pub message_bytes_max: u64,
    /// As `retention.days`, for sessions of this connection.
    pub retention_days: Option<NonZeroU32>,
    /// What policies can say of the connection, such as `env = "prod"`.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// The files of its policy; every statement may run unless given.
    #[serde(default)]
    pub policy: Vec<PathBuf>,
    /// Whether the policy decides, or only says what it would have decided.
    #[serde(default)]
    pub policy_mode: PolicyMode,
    /// Who approves what the policy holds; nobody unless given, and then it must hold nothing.
    pub approvals: Option<Approvals>,
    /// Who may run what the policy holds without waiting; nobody unless given.
    pub break_glass: Option<BreakGlass>,
}

/// `connections.NAME.shells`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Shells {
    /// They may not.
    #[default]
    Refused,
    /// So that they mark the lines that they run.
    Marked,
    /// As they are.
    Plain,
    /// In name only: each line is a command.
    Managed,
}

/// `connections.NAME.login`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HostLogin {
    /// By a certificate that the gateway makes for each login.
    Certificate,
}

/// `connections.NAME.policy_mode`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PolicyMode {
    /// What the policy denies does not run.
    #[default]
    Enforce,
    /// Everything runs, and the record says what the policy would have denied.
    Observe,
}

/// `[identities.NAME]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Identity {
    /// Agent, human or service.
    #[serde(deserialize_with = "value::identity_kind")]
    pub kind: IdentityKind,
    /// For whom it acts; recorded as claimed by the configuration, not verified.
    #[serde(default, deserialize_with = "value::identity_name")]
    pub on_behalf_of: Option<IdentityName>,
    /// The groups it is in.
    #[serde(default)]
    pub groups: Vec<String>,
    /// The SSH public keys that prove it.
    #[serde(default)]
    pub ssh_keys: Vec<String>,
    /// The SCRAM-SHA-256 verifier of its key, which does not reveal the key; none if it proves itself otherwise.
    pub secret: Option<Verifier>,
}

/// `[limits]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Client connections at a time.
    pub connections_max: u32,
    /// Client connections of one identity at a time.
    pub connections_per_identity_max: u32,
    /// Seconds from accept to a signed-in session.
    pub authentication_seconds_max: u32,
    /// The longest life of a connection token, seconds.
    pub token_seconds_max: u32,
    /// Failed logins of one address in a minute, above which it has to wait; 0 is no limit.
    pub failed_logins_per_minute_max: u32,
    /// Seconds without a byte in either direction; 0 is no limit.
    pub idle_seconds_max: u32,
    /// Bytes of buffers of one session.
    pub session_bytes_max: u64,
}

/// `[publish]`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Publish {
    /// Addresses that speak HTTP.
    #[serde(deserialize_with = "value::listeners")]
    pub listen: Vec<SocketAddr>,
}

/// `[witness]`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Witness {
    /// Who they are and how many are enough, in the form of tlog-policy.
    pub policy: SecretSource,
    /// Seconds between two checkpoints that they are asked for; at least.
    #[serde(default = "default_interval_seconds")]
    pub interval_seconds: u32,
    /// Seconds that one of them may take to answer.
    #[serde(default = "default_timeout_seconds")]
    pub timeout_seconds: u32,
}

/// `[receipts]`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Receipts {
    /// The URL that gets the receipt of every session that ends.
    pub webhook: WebUrl,
    /// What signs what is sent, as Standard Webhooks do.
    pub secret: Option<SecretSource>,
}

/// `[passkeys]`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PasskeySite {
    /// Where browsers reach the gateway's page, as they write it: `https://gateway.example:8443`.
    pub origin: String,
}

/// `[notifications]`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Notifications {
    /// Holds the URL, which for chats is itself a secret.
    pub webhook: SecretSource,
    /// What is sent there.
    #[serde(default)]
    pub format: NotificationFormat,
}

/// `notifications.format`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NotificationFormat {
    /// All of it, for programs.
    #[default]
    Json,
    /// As Slack's incoming webhooks take it.
    Slack,
    /// As the workflows of Microsoft Teams take it.
    Teams,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections_max: 4096,
            connections_per_identity_max: 1024,
            authentication_seconds_max: 10,
            token_seconds_max: 3600,
            failed_logins_per_minute_max: 60,
            idle_seconds_max: 0,
            session_bytes_max: 1 << 20,
        }
    }
}

impl Config {
    /// Reads and checks the file.
    pub fn load(file: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(file)
            .map_err(|source| ConfigError::Unreadable { file: file.to_owned(), source })?;
        let mut config = Self::parse(&text, file)?;
        config.load_policies()?;
        Ok(config)
    }

    /// Reads the policies that the connections name.
    fn load_policies(&mut self) -> Result<(), ConfigError> {
        let mut sum = Sha256::new_with_prefix(self.digest.0);
        for (name, connection) in self.connections.iter().filter(|(_, connection)| !connection.policy.is_empty()) {
            let policy = Arc::new(load_policy(name.as_str(), &connection.policy)?);
            if connection.approvals.is_none() && connection.policy_mode == PolicyMode::Enforce {
                nothing_is_held(name, &policy)?;
            }
            sum.update(policy.digest().0);
            self.policies.insert(name.clone(), policy);
        }
        if !self.policies.is_empty() {
            self.digest = Digest(sum.finalize().into());
        }
        Ok(())
    }

    /// Checks `text` as if it were read from `file`; relative paths start at the directory of `file`.
    pub fn parse(text: &str, file: &Path) -> Result<Self, ConfigError> {
        let mut config: Self =
            toml::from_str(text).map_err(|error| ConfigError::invalid(file, Problem::of_parser(&error, text)))?;
        let problems = check::inconsistencies(&config, text);
        if !problems.is_empty() {
            return Err(ConfigError::Invalid { file: file.to_owned(), problems });
        }
        config.digest = Digest(Sha256::digest(text).into());
        config.resolve_paths(file.parent().unwrap_or(Path::new("")));
        Ok(config)
    }

    /// The first part of the file that is not as in `other`, of those that a running gateway cannot change.
    pub fn fixed_difference(&self, other: &Self) -> Option<&'static str> {
        let parts = [
            ("gateway", self.gateway == other.gateway),
            ("listen", self.listen == other.listen),
            ("record", self.record == other.record),
            ("publish", self.publish == other.publish),
            ("witness", self.witness == other.witness),
            ("receipts", self.receipts == other.receipts),
            ("notifications", self.notifications == other.notifications),
            ("outposts", self.outposts == other.outposts),
            ("limits.connections_max", self.limits.connections_max == other.limits.connections_max),
        ];
        parts.into_iter().find_map(|(part, same)| (!same).then_some(part))
    }

    /// The full name of the identity with this user name, as the record has it.
    pub fn identity_name(&self, user: &str) -> Option<IdentityName> {
        let identity = self.identities.get(user)?;
        IdentityName::new(identity.kind, user).ok()
    }

    /// The connections that this identity may use.
    pub fn connections_of<'a>(&'a self, identity: &'a IdentityName) -> impl Iterator<Item = &'a ConnectionName> {
        self.connections
            .iter()
            .filter_map(move |(name, connection)| connection.identities.contains(identity).then_some(name))
    }

    /// Every secret of the file, with the key that names it.
    pub fn secrets(&self) -> Vec<(String, &SecretSource)> {
        let own = [
            ("tls.certificate", &self.tls.certificate),
            ("tls.key", &self.tls.key),
            ("record.wrapping_key", &self.record.wrapping_key),
        ];
        let connections = self.connections.iter().flat_map(|(name, connection)| {
            [("password", &connection.password), ("ca", &connection.ca), ("key", &connection.key)]
                .map(|(key, source)| (format!("connections.{name}.{key}"), source))
        });
        let policy = self.witness.iter().map(|witness| ("witness.policy".to_owned(), &witness.policy));
        let receipts = self.receipts.iter().filter_map(|receipts| receipts.secret.as_ref());
        let receipts = receipts.map(|secret| ("receipts.secret".to_owned(), secret));
        let told = self.notifications.iter().map(|told| ("notifications.webhook".to_owned(), &told.webhook));
        let keys = self.issuers.iter().flat_map(|(name, issuer)| {
            let file = match &issuer.jwks {
                Some(KeysPlace::File(file)) => Some(file),
                Some(KeysPlace::Url(_)) | None => None,
            };
            let keys = file.map(|file| (format!("issuers.{name}.jwks"), file));
            keys.into_iter().chain(issuer.ca.as_ref().map(|ca| (format!("issuers.{name}.ca"), ca)))
        });
        let certificates = self.certificates.iter().map(|one| ("certificates.ca".to_owned(), &one.ca));
        let always = policy.chain(receipts).chain(told).chain(keys).chain(certificates).collect::<Vec<_>>();
        own.into_iter()
            .map(|(key, source)| (key.to_owned(), source))
            .chain(connections)
            .filter_map(|(key, source)| source.as_ref().map(|source| (key, source)))
            .chain(always)
            .collect()
    }

    fn resolve_paths(&mut self, base: &Path) {
        self.gateway.data = base.join(&self.gateway.data);
        for file in self.connections.values_mut().flat_map(|connection| &mut connection.policy) {
            *file = base.join(&*file);
        }
        let own = [&mut self.tls.certificate, &mut self.tls.key, &mut self.record.wrapping_key];
        let connections = self.connections.values_mut().flat_map(|c| [&mut c.password, &mut c.ca, &mut c.key]);
        let policy = self.witness.iter_mut().map(|witness| &mut witness.policy);
        let receipts = self.receipts.iter_mut().filter_map(|receipts| receipts.secret.as_mut());
        let told = self.notifications.iter_mut().map(|told| &mut told.webhook);
        let issuers = self.issuers.values_mut().flat_map(|issuer| {
            let file = match &mut issuer.jwks {
                Some(KeysPlace::File(file)) => Some(file),
                Some(KeysPlace::Url(_)) | None => None,
            };
            file.into_iter().chain(issuer.ca.as_mut())
        });
        let certificates = self.certificates.iter_mut().map(|one| &mut one.ca);
        let others = policy.chain(receipts).chain(told).chain(issuers).chain(certificates);
        for source in own.into_iter().chain(connections).flatten().chain(others) {
            source.resolve(base);
        }
    }
}

/// Reads the files of one policy.
///
/// # Errors
/// A file cannot be read, or what they say together cannot be put in force.
pub fn load_policy(connection: &str, files: &[PathBuf]) -> Result<PolicySet, ConfigError> {
    let read = |file: &PathBuf| match std::fs::metadata(file) {
        Ok(found) if found.len() > POLICY_BYTES_MAX => Err(std::io::Error::other(format!(
            "the file has {} bytes, a policy has at most {POLICY_BYTES_MAX}",
            found.len()
        ))),
        Ok(_) => std::fs::read_to_string(file),
        Err(error) => Err(error),
    };
    let texts = files.iter().map(|file| {
        let text = read(file).map_err(|source| ConfigError::Unreadable { file: file.clone(), source })?;
        Ok((file.display().to_string(), text))
    });
    let texts = texts.collect::<Result<Vec<_>, ConfigError>>()?;
    let files: Vec<_> = texts.iter().map(|(name, text)| PolicyFile { name, text }).collect();
    PolicySet::parse(&files).map_err(|problems| ConfigError::Policy { connection: connection.to_owned(), problems })
}

/// Makes sure that a policy that is enforced asks nobody for approval.
///
/// # Errors
/// It does, and where.
fn nothing_is_held(connection: &ConnectionName, policy: &PolicySet) -> Result<(), ConfigError> {
    let asks = match policy.rules().find(|rule| rule.then() == Ruling::Hold) {
        Some(rule) => format!("{}:{}: rule {}", rule.file(), rule.line(), rule.id()),
        None if policy.default_ruling() == Ruling::Hold => "`default`".to_owned(),
        None => return Ok(()),
    };
    Err(ConfigError::NobodyApproves { connection: connection.to_string(), asks })
}

impl Config {
    /// For how long content is kept.
    pub fn retention_rules(&self) -> store::RetentionRules {
        let connections = self
            .connections
            .iter()
            .filter_map(|(name, connection)| connection.retention_days.map(|days| (name.to_string(), days.get())));
        store::RetentionRules { days: self.retention.days.map(NonZeroU32::get), connections: connections.collect() }
    }
}

impl Gateway {
    /// The worker threads to start.
    pub fn worker_count(&self) -> NonZeroUsize {
        self.workers.unwrap_or_else(|| {
            let processors = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
            NonZeroUsize::new(processors / 2).unwrap_or(NonZeroUsize::MIN)
        })
    }
}

impl Connection {
    /// Whether bytes to the resource stay on this machine. What is local to an outpost does not.
    pub fn is_local(&self) -> bool {
        self.outpost.is_none() && self.address.is_local()
    }

    /// How the gateway encrypts to the resource: as asked, else verified in full unless the bytes stay
    /// on this machine.
    pub fn tls(&self) -> UpstreamTls {
        self.tls_asked.unwrap_or(if self.is_local() { UpstreamTls::Disable } else { UpstreamTls::VerifyFull })
    }
}

fn no_digest() -> Digest {
    Digest([0; 32])
}

fn default_durability() -> Durability {
    Durability::Intent
}

fn default_interval_seconds() -> u32 {
    10
}

fn default_timeout_seconds() -> u32 {
    5
}

fn default_message_bytes_max() -> u64 {
    64 << 20
}
