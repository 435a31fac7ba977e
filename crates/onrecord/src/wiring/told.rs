//! What the gateway is told: the configuration as it has it, with the files behind it read.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use gateway::issuers::{IssuerSource, KeysFrom};
use gateway::tls::{ClientTls, ServerTls, Verify};
use gateway::{Databases, HostLogin, SshKeys, SshPrivateKey, SshPublicKey, Terminals};
use sql::AnalyzerConfig;

use crate::Failure;
use crate::config;
use crate::config::{
    Address, Approvals, Config, Connection, ConnectionKind, ConnectionName, Issuer, KEPT_BYTES, KeysPlace, LoginWay,
    NotificationFormat, Notifications, Plaintext, PolicyMode, SecretSource, Shells, UpstreamTls, Via,
};
use crate::keys::Verifier;

/// The verb by which this program becomes one that analyses statements.
const ANALYSE: &str = "analyse-statements";
/// How many processes analyse statements.
const ANALYSTS: usize = 2;
/// How long the analysis of one statement may take; then it counts as not understood.
const ANALYSIS_MAX: Duration = Duration::from_millis(500);

/// What becomes of keys of the gateway's own that are not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum MissingKeys {
    /// They are made: it starts.
    Made,
    /// They are missed: others trust the ones that were there.
    Refused,
}

/// All of it.
pub(super) fn gateway_config(config: &Config, missing: MissingKeys) -> Result<gateway::Config, Failure> {
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
    let ssh = ssh_keys(config, missing)?;
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
pub(super) fn analysis() -> AnalyzerConfig {
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
fn ssh_keys(config: &Config, missing: MissingKeys) -> Result<Option<SshKeys>, Failure> {
    if config.listen.ssh.is_empty() {
        return Ok(None);
    }
    let directory = config.gateway.data.join("ssh");
    let key = |name| ssh_key(&directory, name, missing);
    Ok(Some(SshKeys {
        host: key("host_key")?,
        user_ca: key("user_ca")?,
        session_ca: key("session_ca")?,
        host_ca: key("host_ca")?,
        names: config.ssh.names.clone(),
    }))
}

/// A key of the gateway's own, made at the first start that wants one, with its public half beside it: others trust it.
fn ssh_key(directory: &Path, name: &str, missing: MissingKeys) -> Result<SshPrivateKey, Failure> {
    let (file, beside) = (directory.join(name), directory.join(name).with_extension("pub"));
    let failed = |error: &dyn std::fmt::Display| Failure::new(format_args!("{}: {error}", file.display()));
    if missing == MissingKeys::Made && !file.exists() {
        let private = SshPrivateKey::generate().to_openssh().map_err(|error| failed(&error))?;
        place_first(&file, private.as_bytes()).map_err(|error| failed(&error))?;
    }
    let text = zeroize::Zeroizing::new(fs::read_to_string(&file).map_err(|error| failed(&error))?);
    let key = SshPrivateKey::from_openssh(&text).map_err(|error| failed(&error))?;
    let public = format!("{}\n", key.public().to_openssh());
    if fs::read_to_string(&beside).ok().as_deref() != Some(&public) {
        fs::write(&beside, &public).map_err(|error| failed(&error))?;
    }
    Ok(key)
}

/// Puts a file in its place, whole, unless there is one: then that one stays. For its owner alone.
fn place_first(file: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let directory = file.parent().unwrap_or(Path::new("."));
    fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
    let new = file.with_extension(format!("new-{}", std::process::id()));
    let _ = fs::remove_file(&new);
    let mut open = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
    open.write_all(bytes)?;
    open.sync_all()?;
    let placed = fs::hard_link(&new, file);
    fs::remove_file(&new)?;
    match placed {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => Err(error),
        Ok(()) | Err(_) => fs::File::open(directory)?.sync_all(),
    }
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

/// What a secret is, by the key of the configuration that names it.
pub(super) fn read(key: &str, source: &SecretSource) -> Result<zeroize::Zeroizing<Vec<u8>>, Failure> {
    source.read().map_err(|error| Failure::usage(format_args!("{key}: {error}")))
}

fn whole(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}
