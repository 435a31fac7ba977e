//! From configuration to a running gateway: opens the record, builds what the gateway is told, starts it.
//!
//! Invariant: the record is open before anybody can connect, and is closed after the last session ended.

use std::fs;
use std::io::Write;
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use gateway::issuers::{IssuerSource, KeysFrom};
use gateway::tls::{ClientTls, ServerTls, Verify};
use gateway::{Access, BreakGlass, Databases, Gateway, HostLogin, SshKeys, SshPrivateKey, SshPublicKey, Terminals};
use model::{ConfigurationCause, ConfigurationResult, Digest};
use sha2::{Digest as _, Sha256};
use sql::AnalyzerConfig;
use store::{
    Created, Disk, GatewayEntry, Health, LocalKey, Options, Reader, RealDisk, RecordError, Recorder, Recovery,
    SystemClock, SystemRandom, WrappingKey,
};

use crate::Failure;
use crate::config;
use crate::config::{
    Address, Approvals, Config, Connection, ConnectionKind, ConnectionName, Issuer, KEPT_BYTES, KeysPlace, LoginWay,
    NotificationFormat, Notifications, Plaintext, PolicyMode, SecretSource, Shells, UpstreamTls, Via,
};
use crate::control::{Executor, Rules, Server};
use crate::custodian::Custodian;
use crate::keys::Verifier;
use crate::outside::Outside;

/// A reason on the record has at most this many characters.
const REASON_CHARACTERS_MAX: usize = 1024;
/// The verb by which this program becomes one that analyses statements.
const ANALYSE: &str = "analyse-statements";
/// How many processes analyse statements.
const ANALYSTS: usize = 2;
/// How long the analysis of one statement may take; then it counts as not understood.
const ANALYSIS_MAX: Duration = Duration::from_millis(500);

/// A gateway and its record, running.
pub struct Running {
    gateway: Gateway,
    /// What is in force.
    config: Config,
    rules: Rules,
    access: Access,
    recorder: Recorder,
    /// None once the data directory was given free.
    outside: Option<Outside>,
    publish_addresses: Vec<SocketAddr>,
    // None when there can be no socket in the data directory.
    control: Option<Server>,
    custodian: Option<Custodian>,
    /// What was found when the record was opened.
    pub recovery: Recovery,
}

/// Makes the data directory and an empty record in it.
pub fn create_record(config: &Config) -> Result<Created, Failure> {
    let data = &config.gateway.data;
    let disk: Arc<dyn Disk> = Arc::new(RealDisk::new(data));
    Recorder::create_on(&disk, &options(config)?, &SystemClock, &mut SystemRandom)
        .map_err(|error| Failure::new(format_args!("cannot create the record in {}: {error}", data.display())))
}

/// The record, open for writing.
pub struct Opened {
    recorder: Recorder,
    recovery: Recovery,
}

/// How the record is written, by the configuration.
pub fn options(config: &Config) -> Result<Options, Failure> {
    let wrapping_key = wrapping_key(config.record.wrapping_key.as_ref())?;
    let wrapping_key = wrapping_key.map(|key| Arc::new(key) as Arc<dyn WrappingKey>);
    Ok(Options { wrapping_key, ..Options::new(config.gateway.name.as_str()) })
}

/// The wrapping key that is named, if one is.
pub fn wrapping_key(source: Option<&SecretSource>) -> Result<Option<LocalKey>, Failure> {
    let Some(source) = source else { return Ok(None) };
    let key = LocalKey::parse(&read("record.wrapping_key", source)?);
    key.map(Some).map_err(|error| Failure::usage(format_args!("record.wrapping_key: {source}: {error}")))
}

/// Opens the record of a gateway that does not run, does something to it and closes it.
pub fn with_record<T>(config: &Config, work: impl FnOnce(&Recorder) -> Result<T, Failure>) -> Result<T, Failure> {
    let Opened { recorder, .. } = open(config)?;
    let done = recorder.note(GatewayEntry::Start(start_entry(config))).map_err(Failure::new);
    let done = done.and_then(|_| work(&recorder));
    let stopped =
        recorder.stop().map_err(|error| Failure::new(format_args!("the record could not be closed: {error}")));
    done.and_then(|value| stopped.map(|()| value))
}

/// Opens the record; another one in its place, if a witness proves that it is not all that was signed.
pub fn open(config: &Config) -> Result<Opened, Failure> {
    if let Some(contradiction) = crate::outside::check(config)? {
        tracing::error!(
            "the log must not go on: {contradiction}. Another has begun, with a key of its own: onrecord epochs list"
        );
    }
    let data = &config.gateway.data;
    let opened = Recorder::open_dir(data, options(config)?);
    let (recorder, recovery) =
        opened.map_err(|error| Failure::new(format_args!("cannot open the record in {}: {error}", data.display())))?;
    Ok(Opened { recorder, recovery })
}

/// Opens the record and starts the gateway.
pub fn start(config: &Config) -> Result<Running, Failure> {
    // What the gateway is told comes first: a missing password is found before the record is touched.
    let told = gateway_config(config)?;
    start_on(config, told, None, open(config)?, None)
}

/// Starts the gateway again after recording had stopped, on the addresses where clients know it.
pub fn start_again(config: &Config, addresses: Addresses, before: &Access, opened: Opened) -> Result<Running, Failure> {
    let told = gateway::Config {
        listen_postgres: addresses.postgres,
        listen_ssh: addresses.ssh,
        listen_api: addresses.api,
        listen_outposts: addresses.outposts,
        ..gateway_config(config)?
    };
    let publish = (!addresses.publish.is_empty()).then_some(addresses.publish);
    start_on(config, told, publish, opened, Some(before))
}

/// Where a gateway listens, with the ports that were taken where 0 was asked for.
#[derive(Clone, Debug)]
pub struct Addresses {
    /// For PostgreSQL.
    pub postgres: Vec<SocketAddr>,
    /// For SSH.
    pub ssh: Vec<SocketAddr>,
    /// For the HTTP API.
    pub api: Vec<SocketAddr>,
    /// For outposts.
    pub outposts: Vec<SocketAddr>,
    /// For those who read the published log.
    pub publish: Vec<SocketAddr>,
}

fn start_on(
    config: &Config,
    told: gateway::Config,
    publish: Option<Vec<SocketAddr>>,
    opened: Opened,
    before: Option<&Access>,
) -> Result<Running, Failure> {
    let Opened { recorder, recovery } = opened;
    let started = recorder.note(GatewayEntry::Start(start_entry(config))).map_err(Failure::new);
    let outside = started.and_then(|_| Outside::start(config, &recorder, publish.as_deref()));
    let started = outside.and_then(|outside| {
        let mut executor = executor(config, &recorder)?;
        if let Some(before) = before {
            executor.access.keep_out(before);
        }
        let glasses =
            BreakGlass::open(&config.gateway.data, recorder.clone(), reader(config)?).map_err(Failure::new)?;
        let (access, outposts) = (executor.access.clone(), executor.outposts.clone());
        let gateway = Gateway::start(told, access, outposts, glasses, recorder.clone())
            .map_err(|error| Failure::new(&error).hint("`onrecord doctor` looks for what is in the way"))?;
        executor.outpost_address = outpost_address(config, gateway.outpost_addresses());
        Ok((gateway, executor, outside))
    });
    match started {
        Ok((gateway, executor, outside)) => {
            let publish_addresses = outside.addresses().to_vec();
            let (config, rules, access) = (config.clone(), executor.rules.clone(), executor.access.clone());
            let data = config.gateway.data.clone();
            let custodian = Custodian::start(executor.clone());
            let custodian = custodian.inspect_err(|error| tracing::error!("retention does not run: {error}")).ok();
            let control = Server::start(&data, executor);
            let said =
                "no control socket: `onrecord erase`, `hold` and the like work only while the gateway is stopped";
            let control = control.inspect_err(|error| tracing::warn!("{said}: {error}")).ok();
            let outside = Some(outside);
            Ok(Running {
                gateway,
                config,
                rules,
                access,
                recorder,
                outside,
                publish_addresses,
                control,
                custodian,
                recovery,
            })
        }
        Err(failure) => {
            let _ = recorder.stop();
            Err(failure)
        }
    }
}

/// The record as the gateway itself reads it, to show people what ran under break-glass.
fn reader(config: &Config) -> Result<Reader, Failure> {
    let disk: Arc<dyn Disk> = Arc::new(RealDisk::new(&config.gateway.data));
    let key = wrapping_key(config.record.wrapping_key.as_ref())?;
    let reader = Reader::with(disk, key.as_ref().map(|key| key as &dyn WrappingKey));
    reader.map_err(|error| Failure::new(format_args!("the record cannot be read: {error}")))
}

/// What executes requests with an open record.
pub fn executor(config: &Config, recorder: &Recorder) -> Result<Executor, Failure> {
    let access = Access::open(&config.gateway.data, recorder.clone()).map_err(Failure::new)?;
    let outposts = (!config.listen.outposts.is_empty())
        .then(|| gateway::Outposts::open(&config.gateway.data, recorder.clone()).map_err(Failure::new))
        .transpose()?;
    Ok(Executor {
        recorder: recorder.clone(),
        rules: Rules::new(config.retention_rules()),
        access,
        outposts,
        outpost_address: outpost_address(config, &config.listen.outposts),
    })
}

/// Where outposts find the gateway, if that is known.
fn outpost_address(config: &Config, listened: &[SocketAddr]) -> Option<String> {
    match (&config.outposts.address, listened.first()) {
        (Some(address), _) => Some(address.to_string()),
        (None, Some(first)) if !first.ip().is_unspecified() && first.port() != 0 => Some(first.to_string()),
        (None, _) => None,
    }
}

/// What became of a configuration that a running gateway was offered.
#[derive(Debug)]
pub enum Reloaded {
    /// It is the one in force.
    Same,
    /// It is in force; so many live sessions ended with that.
    Accepted(u64),
    /// It is not; what was in force still is.
    Refused(String),
}

/// What the record says of this start: which configuration is in force, on which boot of the machine.
fn start_entry(config: &Config) -> model::Start {
    let boot_id = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    model::Start {
        boot_id: boot_id.trim().to_owned(),
        program: concat!("onrecord ", env!("CARGO_PKG_VERSION")).to_owned(),
        configuration: Some(config.digest),
        clock: store::clock_state(),
    }
}

impl Running {
    /// The addresses that are listened on.
    pub fn addresses(&self) -> Addresses {
        Addresses {
            postgres: self.gateway.addresses().to_vec(),
            ssh: self.gateway.ssh_addresses().to_vec(),
            api: self.gateway.api_addresses().to_vec(),
            outposts: self.gateway.outpost_addresses().to_vec(),
            publish: self.publish_addresses.clone(),
        }
    }

    /// What is remembered of identities.
    pub fn access(&self) -> Access {
        self.access.clone()
    }

    /// The configuration in force.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Reads the configuration again, and the secrets that it names, and puts it in force if it can be. Either way is an
    /// entry. Sessions go on, but those that are no longer permitted.
    pub fn reload(&mut self, file: &Path, cause: ConfigurationCause) -> Result<Reloaded, Failure> {
        let loaded = Config::load(file);
        let offered = match &loaded {
            Ok(config) => Some(config.digest),
            Err(_) => fs::read_to_string(file).ok().map(|text| Digest(Sha256::digest(text).into())),
        };
        // A signal means that secrets may have changed, too; a file that was only touched means nothing.
        if cause == ConfigurationCause::FileChanged && offered == Some(self.config.digest) && loaded.is_ok() {
            return Ok(Reloaded::Same);
        }
        let told = loaded.map_err(Failure::from).and_then(|config| {
            if let Some(part) = config.fixed_difference(&self.config) {
                return Err(Failure::new(format_args!("{part} cannot change while the gateway runs: restart it")));
            }
            let ended = self.gateway.reconfigure(gateway_config(&config)?).map_err(Failure::usage)?;
            Ok((ended, config))
        });
        let (reloaded, sessions_ended, reason) = match told {
            Ok((ended, config)) => {
                self.rules.set(config.retention_rules());
                self.config = config;
                (Reloaded::Accepted(ended), ended, None)
            }
            Err(failure) => {
                let why: String = failure.to_string().chars().take(REASON_CHARACTERS_MAX).collect();
                (Reloaded::Refused(why.clone()), 0, Some(why))
            }
        };
        let accepted = reason.is_none();
        let entry = model::Configuration {
            result: if accepted { ConfigurationResult::Accepted } else { ConfigurationResult::Refused },
            cause,
            configuration: self.config.digest,
            refused: offered.filter(|_| !accepted),
            reason,
            sessions_ended,
        };
        self.recorder.note(GatewayEntry::Configuration(entry)).map_err(Failure::new)?;
        self.recorder.flush().map_err(Failure::new)?;
        Ok(reloaded)
    }

    /// The proof that the log must not go on, if a witness has shown one.
    pub fn contradiction(&self) -> Option<publish::Contradiction> {
        self.outside.as_ref().and_then(Outside::contradiction)
    }

    /// Why no new command is accepted, if none is.
    pub fn stopped(&self) -> Option<RecordError> {
        match self.recorder.health() {
            Health::Accepting => None,
            Health::Stopped { why } => Some(why),
        }
    }

    /// Puts on the record that a part of it was handed out.
    pub fn note_export(&self, export: model::Export) -> Result<(), Failure> {
        self.recorder.note(GatewayEntry::Export(export)).map(drop).map_err(Failure::new)
    }

    /// Gives the data directory free once recording has stopped, so that [`open`] can try it again. Clients are still
    /// answered, with refusals.
    pub fn abandon(&mut self) {
        self.outside = None;
        self.recorder.abandon();
    }

    /// Ends the sessions and what follows the record, and leaves the record as it stands: nothing more is signed.
    pub fn halt(self) {
        self.end().halt();
    }

    /// Ends the sessions, then what follows the record, then the record.
    pub fn stop(self) -> Result<(), Failure> {
        self.end().stop().map_err(|error| {
            Failure::new(format_args!("the record could not be closed: {error}"))
                .hint("the next start recovers it, and records that it did")
        })
    }

    /// Ends everything but the record.
    fn end(self) -> Recorder {
        if let Some(outside) = &self.outside {
            outside.quit();
        }
        drop(self.control);
        drop(self.custodian);
        self.gateway.stop();
        drop(self.outside);
        self.recorder
    }
}

fn gateway_config(config: &Config) -> Result<gateway::Config, Failure> {
    let limits = &config.limits;
    let policy_of = |name: &ConnectionName, connection: &Connection| {
        config.policies.get(name).map(|set| {
            let mode = match connection.policy_mode {
                PolicyMode::Enforce => policy::Mode::Enforce,
                PolicyMode::Observe => policy::Mode::Observe,
            };
            Arc::new(gateway::Policy { set: Arc::clone(set), mode })
        })
    };
    let of_kind = |kind| config.connections.iter().filter(move |(_, connection)| connection.kind == kind);
    let connections = of_kind(ConnectionKind::Postgres).map(|(name, connection)| {
        let policy = policy_of(name, connection);
        Ok((name.to_string(), Arc::new(upstream(name.as_str(), connection, policy)?)))
    });
    let ssh = ssh_keys(config)?;
    let hosts = of_kind(ConnectionKind::Ssh).map(|(name, connection)| {
        let policy = policy_of(name, connection);
        Ok((name.to_string(), Arc::new(host(config, ssh.as_ref(), name.as_str(), connection, policy)?)))
    });
    let hosts = hosts.collect::<Result<_, Failure>>()?;
    let identities = config.identities.iter().filter_map(|(user, identity)| {
        let told = gateway::Identity {
            name: config.identity_name(user)?,
            on_behalf_of: identity.on_behalf_of.clone(),
            groups: identity.groups.clone(),
            credential: identity.secret.as_ref().map(Verifier::credential).unwrap_or_default(),
            secret: identity.secret.as_ref().map(|secret| secret.secret().clone()),
            ssh_keys: identity.ssh_keys.iter().filter_map(|line| SshPublicKey::from_openssh(line).ok()).collect(),
        };
        Some((user.clone(), told))
    });
    Ok(gateway::Config {
        listen_postgres: config.listen.postgres.clone(),
        listen_ssh: config.listen.ssh.clone(),
        ssh,
        listen_api: config.listen.api.clone(),
        listen_outposts: config.listen.outposts.clone(),
        about: about(config),
        issuers: config.issuers.iter().map(|(name, issuer)| issuer_source(name, issuer)).collect::<Result<_, _>>()?,
        certificates: certificates(config)?,
        tls: server_tls(config)?,
        plaintext: match config.tls.plaintext {
            Plaintext::Always => gateway::Plaintext::Always,
            Plaintext::Loopback => gateway::Plaintext::Loopback,
            Plaintext::Never => gateway::Plaintext::Never,
        },
        passkeys: config.passkeys.as_ref().and_then(|passkeys| gateway::Site::new(&passkeys.origin)),
        notify: config.notifications.as_ref().map(notify).transpose()?,
        identities: identities.collect(),
        connections: connections.collect::<Result<_, Failure>>()?,
        hosts,
        limits: gateway::Limits {
            connections_max: whole(limits.connections_max.into()),
            connections_per_identity_max: whole(limits.connections_per_identity_max.into()),
            authentication_max: Duration::from_secs(limits.authentication_seconds_max.into()),
            token_max: Duration::from_secs(limits.token_seconds_max.into()).min(gateway::TOKEN_TTL_MAX),
            failed_logins_per_minute_max: limits.failed_logins_per_minute_max,
            idle_max: (limits.idle_seconds_max > 0).then(|| Duration::from_secs(limits.idle_seconds_max.into())),
            session_bytes_max: whole(limits.session_bytes_max),
            ..gateway::Limits::default()
        },
        analysis: analysis(),
        workers: config.gateway.worker_count().get(),
    })
}

/// Where this process was started to analyse statements, does that until there are no more.
pub fn analyse_if_asked() -> Option<ExitCode> {
    let mut arguments = std::env::args_os().skip(1);
    if arguments.next()? != ANALYSE || arguments.next().is_some() {
        return None;
    }
    Some(if sql::serve_worker().is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Statements are analysed by this very program, in processes of their own.
fn analysis() -> AnalyzerConfig {
    // What runs, even where its file has been replaced since.
    let own = Path::new("/proc/self/exe");
    let program = if own.exists() { Ok(own.to_owned()) } else { std::env::current_exe() };
    let command = vec![program.unwrap_or_default().into_os_string(), ANALYSE.into()];
    AnalyzerConfig { command, workers: ANALYSTS, deadline: ANALYSIS_MAX }
}

/// What the API tells everybody.
fn about(config: &Config) -> serde_json::Value {
    let login = config.issuers.iter().filter_map(|(name, issuer)| {
        let LoginWay { client_id, scope, resource, token } = issuer.login.as_ref()?;
        Some(serde_json::json!({
            "name": name,
            "issuer": issuer.issuer(),
            "client_id": client_id,
            "scope": scope,
            "resource": resource,
            "token": token.as_str(),
        }))
    });
    serde_json::json!({
        "gateway": config.gateway.name.as_str(),
        "login": login.collect::<Vec<_>>(),
    })
}

/// An issuer as the gateway is told of it.
pub fn issuer_source(name: &str, issuer: &Issuer) -> Result<IssuerSource, Failure> {
    let key = format!("issuers.{name}");
    let built = issuer.build(name).map_err(|error| Failure::usage(format_args!("{key}: {error}")))?;
    let ca = issuer.ca.as_ref().map(|ca| read(&format!("{key}.ca"), ca)).transpose()?;
    Ok(IssuerSource {
        issuer: Arc::new(built),
        keys: match &issuer.jwks {
            None => KeysFrom::Discovery,
            Some(KeysPlace::Url(url)) => KeysFrom::Url(url.as_str().to_owned()),
            Some(KeysPlace::File(SecretSource::File(path))) => KeysFrom::File(path.clone()),
            Some(KeysPlace::File(SecretSource::Environment(_))) => {
                return Err(Failure::usage(format_args!("{key}.jwks: write a URL, or file:PATH")));
            }
        },
        ca: ca.map(|ca| ca.to_vec()),
    })
}

fn certificates(config: &Config) -> Result<Option<Arc<identity::Certificates>>, Failure> {
    let built = config.certificates.as_ref().map(|certificates| certificates.build()).transpose();
    built.map(|built| built.map(Arc::new)).map_err(|error| Failure::usage(format_args!("certificates: {error}")))
}

fn upstream(
    name: &str,
    connection: &Connection,
    policy: Option<Arc<gateway::Policy>>,
) -> Result<gateway::Connection, Failure> {
    let key = |last: &str| format!("connections.{name}.{last}");
    let secret =
        |last: &str, source: &Option<SecretSource>| source.as_ref().map(|source| read(&key(last), source)).transpose();
    let ca = secret("ca", &connection.ca)?;
    let client = |verify| {
        let made = ClientTls::new(verify, ca.as_deref().map(Vec::as_slice));
        made.map(Some).map_err(|error| Failure::usage(format_args!("{}: {error}", key("tls"))))
    };
    Ok(gateway::Connection {
        name: name.to_owned(),
        address: address(&connection.address),
        outpost: connection.outpost.as_ref().map(via),
        server_name: connection.server_name.clone(),
        tls: match connection.tls() {
            UpstreamTls::Disable => None,
            UpstreamTls::Require => client(Verify::Nothing)?,
            UpstreamTls::VerifyFull => client(Verify::Full)?,
        },
        database: connection.database.clone(),
        databases: if connection.databases.iter().any(|name| name == "*") {
            Databases::Any
        } else {
            Databases::Named(connection.databases.clone())
        },
        user: connection.user.clone(),
        password: secret("password", &connection.password)?,
        durability: connection.durability,
        grants: policy::Grants::new(connection.identities.iter().cloned(), connection.groups.iter().cloned()),
        message_bytes_max: whole(connection.message_bytes_max),
        labels: connection.labels.clone(),
        policy,
        approvals: connection.approvals.as_ref().map(Approvals::rules),
        break_glass: connection.break_glass.as_ref().map(|glass| glass.rules(connection.approvals.as_ref())),
        salted: Default::default(),
    })
}

fn host(
    config: &Config,
    ssh: Option<&SshKeys>,
    name: &str,
    connection: &Connection,
    policy: Option<Arc<gateway::Policy>>,
) -> Result<gateway::Host, Failure> {
    let key = |last: &str| format!("connections.{name}.{last}");
    let not_a_key = |last: &str, error: gateway::KeyError| Failure::usage(format_args!("{}: {error}", key(last)));
    let text = |last: &str, source: &SecretSource| {
        let bytes = read(&key(last), source)?;
        match std::str::from_utf8(&bytes) {
            Ok(text) => Ok(zeroize::Zeroizing::new(text.to_owned())),
            Err(_) => Err(Failure::usage(format_args!("{}: it is not text", key(last)))),
        }
    };
    let login = match (&connection.key, &connection.password, ssh) {
        (Some(source), _, _) => {
            let private = SshPrivateKey::from_openssh(&text("key", source)?);
            HostLogin::Key(private.map_err(|error| not_a_key("key", error))?)
        }
        (None, Some(source), _) => HostLogin::Password(text("password", source)?),
        (None, None, Some(keys)) if connection.login == Some(config::HostLogin::Certificate) => {
            HostLogin::Certificate { ca: keys.session_ca.clone(), gateway: config.gateway.name.as_str().to_owned() }
        }
        (None, None, _) => return Err(Failure::usage(format_args!("{}: there is none", key("key")))),
    };
    let public_keys = |last: &str, lines: &[String]| {
        let keys = lines.iter().map(|line| SshPublicKey::from_openssh(line)).collect::<Result<_, _>>();
        keys.map_err(|error| not_a_key(last, error))
    };
    Ok(gateway::Host {
        name: name.to_owned(),
        address: address(&connection.address),
        outpost: connection.outpost.as_ref().map(via),
        host_keys: public_keys("host_keys", &connection.host_keys)?,
        host_cas: public_keys("host_cas", &connection.host_cas)?,
        user: connection.user.clone(),
        users: connection.users.clone(),
        login,
        durability: connection.durability,
        grants: policy::Grants::new(connection.identities.iter().cloned(), connection.groups.iter().cloned()),
        terminals: match connection.terminals {
            true => Terminals::Allowed,
            false => Terminals::Refused,
        },
        shells: match connection.shells {
            Shells::Refused => gateway::Shells::Refused,
            Shells::Marked => gateway::Shells::Marked,
            Shells::Plain => gateway::Shells::Plain,
            Shells::Managed => gateway::Shells::Managed,
        },
        kept_bytes_max: connection.kept_bytes_max.unwrap_or(KEPT_BYTES),
        labels: connection.labels.clone(),
        policy,
        approvals: connection.approvals.as_ref().map(Approvals::rules),
        break_glass: connection.break_glass.as_ref().map(|glass| glass.rules(connection.approvals.as_ref())),
    })
}

fn address(address: &Address) -> gateway::Address {
    match address {
        Address::Tcp { host, port } => gateway::Address::Tcp { host: host.clone(), port: *port },
        Address::Unix(directory) => gateway::Address::Unix(directory.clone()),
    }
}

fn via(via: &Via) -> gateway::Via {
    match via {
        Via::Name(name) => gateway::Via::Name(name.clone()),
        Via::Label(label) => gateway::Via::Label(label.clone()),
    }
}

/// The gateway's own keys for SSH. None where no SSH is spoken.
fn ssh_keys(config: &Config) -> Result<Option<SshKeys>, Failure> {
    if config.listen.ssh.is_empty() {
        return Ok(None);
    }
    let directory = config.gateway.data.join("ssh");
    let key = |name| ssh_key(&directory, name);
    Ok(Some(SshKeys {
        host: key("host_key")?,
        user_ca: key("user_ca")?,
        session_ca: key("session_ca")?,
        host_ca: key("host_ca")?,
        names: config.ssh.names.clone(),
    }))
}

/// A key of the gateway's own, made at the first start that wants one, with its public half beside it: others pin it.
fn ssh_key(directory: &Path, name: &str) -> Result<SshPrivateKey, Failure> {
    let (file, beside) = (directory.join(name), directory.join(name).with_extension("pub"));
    let failed = |error: &dyn std::fmt::Display| Failure::new(format_args!("{}: {error}", file.display()));
    if !file.exists() {
        let made = SshPrivateKey::generate();
        let private = made.to_openssh().map_err(|error| failed(&error))?;
        let public = format!("{}\n", made.public().to_openssh());
        keep(directory, &[(&file, &private), (&beside, &public)]).map_err(|error| failed(&error))?;
    }
    let text = zeroize::Zeroizing::new(fs::read_to_string(&file).map_err(|error| failed(&error))?);
    SshPrivateKey::from_openssh(&text).map_err(|error| failed(&error))
}

/// The configured certificate; else the one that was made at the first start, so that clients can pin it.
fn server_tls(config: &Config) -> Result<ServerTls, Failure> {
    let clients = config.certificates.as_ref();
    let clients = clients.map(|certificates| read("certificates.ca", &certificates.ca)).transpose()?;
    if let (Some(certificate), Some(key)) = (&config.tls.certificate, &config.tls.key) {
        let certificate = read("tls.certificate", certificate)?;
        let key = read("tls.key", key)?;
        return ServerTls::from_pem(&certificate, &key, clients.as_deref().map(Vec::as_slice))
            .map_err(|error| Failure::usage(format_args!("tls.certificate: {error}")));
    }
    let directory = config.gateway.data.join("tls");
    let (certificate, key) = (directory.join("certificate.pem"), directory.join("key.pem"));
    if !certificate.exists() || !key.exists() {
        let mut names = vec!["localhost".to_owned()];
        names.extend(config.listen.postgres.iter().map(|address| address.ip().to_string()));
        names.dedup();
        let (made, made_key) = gateway::tls::generate(names).map_err(Failure::new)?;
        keep(&directory, &[(&key, &made_key), (&certificate, &made)]).map_err(|error| {
            Failure::new(format_args!("cannot keep a certificate in {}: {error}", directory.display()))
        })?;
    }
    let read = |file: &Path| fs::read(file).map_err(|error| Failure::new(format_args!("{}: {error}", file.display())));
    ServerTls::from_pem(&read(&certificate)?, &read(&key)?, clients.as_deref().map(Vec::as_slice)).map_err(|error| {
        Failure::new(format_args!("{}: {error}", directory.display()))
            .hint("remove the directory, and the next start makes another certificate")
    })
}

fn keep(directory: &Path, files: &[(&Path, &str)]) -> std::io::Result<()> {
    fs::create_dir_all(directory)?;
    for (file, text) in files {
        let _ = fs::remove_file(file);
        let mut new = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(file)?;
        new.write_all(text.as_bytes())?;
        new.sync_all()?;
    }
    Ok(())
}

/// Where notifications go. The URL is read, and looked at, before anything starts.
fn notify(told: &Notifications) -> Result<gateway::Notify, Failure> {
    let url = read("notifications.webhook", &told.webhook)?;
    let url = std::str::from_utf8(&url).map(str::trim).unwrap_or_default();
    // Not said: what it is instead may be a secret.
    if !(url.starts_with("https://") || url.starts_with("http://")) || url.contains(char::is_whitespace) {
        return Err(Failure::usage("notifications.webhook: what it holds is no URL")
            .hint("one line that begins with https://, such as a chat gives for an incoming webhook"));
    }
    let form = match told.format {
        NotificationFormat::Json => gateway::NotifyForm::Json,
        NotificationFormat::Slack => gateway::NotifyForm::Slack,
        NotificationFormat::Teams => gateway::NotifyForm::Teams,
    };
    Ok(gateway::Notify { url: zeroize::Zeroizing::new(url.to_owned()), form })
}

fn read(key: &str, source: &SecretSource) -> Result<zeroize::Zeroizing<Vec<u8>>, Failure> {
    source.read().map_err(|error| Failure::usage(format_args!("{key}: {error}")))
}

fn whole(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}
