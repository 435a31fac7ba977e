//! Checks that span several values of the file, and the ones that reach outside of it.

use model::Durability;

use super::problem::Problem;
use super::{
    Address, Config, Connection, ConnectionKind, MESSAGE_BYTES_CEILING, MESSAGE_BYTES_FLOOR, PolicyMode, SecretError,
    UpstreamTls,
};
use crate::config::{ConnectionName, Shells};

/// User names that are no identity's.
const RESERVED: [&str; 1] = ["token"];
/// Entries of a list of the file: databases of a connection, identities, listeners.
pub(super) const LIST_ENTRIES_MAX: usize = 1024;

/// A secret of the file that cannot be read, or that others can read too.
#[derive(Debug)]
pub struct SecretFinding {
    /// The key that names it.
    pub key: String,
    /// What was found.
    pub what: SecretState,
}

/// How a secret was found.
#[derive(Debug)]
pub enum SecretState {
    /// It cannot be read.
    Unreadable(SecretError),
    /// Others than its owner may read it: its file and its permission bits.
    Loose(String, u32),
}

/// Reads every secret once and says which ones are not as they should be. Certificates and
/// policies are no secret, so their permissions are not looked at.
pub fn resolve_secrets(config: &Config) -> Vec<SecretFinding> {
    let mut findings = Vec::new();
    for (key, source) in config.secrets() {
        let public =
            key == "tls.certificate" || key == "witness.policy" || key.ends_with(".ca") || key.ends_with(".jwks");
        let what = match (source.read(), source.loose_mode()) {
            (Err(error), _) => SecretState::Unreadable(error),
            (Ok(_), Some(mode)) if !public => SecretState::Loose(source.to_string(), mode),
            (Ok(_), _) => continue,
        };
        findings.push(SecretFinding { key, what });
    }
    findings
}

/// What the types could not refuse: values that contradict or miss each other.
pub(super) fn inconsistencies(config: &Config, text: &str) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut problem = |key: &str, what: String, hint: &str| {
        problems.push(Problem::at(text, key, what, hint));
    };
    if config.gateway.data.as_os_str().is_empty() {
        problem("gateway.data", "the path is empty".into(), "name the data directory");
    }
    if config.listen.postgres.is_empty() && config.listen.ssh.is_empty() {
        let hint = "write at least one address, such as [\"127.0.0.1:6432\"]";
        problem("listen.postgres", "there is no address to listen on".into(), hint);
    }
    for (key, listened) in [("listen.postgres", &config.listen.postgres), ("listen.ssh", &config.listen.ssh)] {
        if listened.len() > LIST_ENTRIES_MAX {
            problem(key, format!("more than {LIST_ENTRIES_MAX} entries"), "remove some");
        }
    }
    match (&config.tls.certificate, &config.tls.key) {
        (Some(_), None) => problem(
            "tls.certificate",
            "there is a certificate without its key".into(),
            "add `key` beside it, or remove both for a self-signed certificate",
        ),
        (None, Some(_)) => problem(
            "tls.key",
            "there is a key without its certificate".into(),
            "add `certificate` beside it, or remove both for a self-signed certificate",
        ),
        (Some(_), Some(_)) | (None, None) => {}
    }
    for user in config.identities.keys() {
        if RESERVED.contains(&user.as_str()) {
            let what =
                format!("{user:?} is what clients give as their user name when they prove by a token who they are");
            problem(&format!("identities.{user}"), what, "choose another name");
        } else if config.identity_name(user).is_none() {
            let hint = "use 1 to 128 letters, digits, `.`, `_`, `@`, `-`, `+` or `/`";
            let what = format!("{user:?} is not an identity's name");
            problem(&format!("identities.{user}"), what, hint);
        }
    }
    let mut keys: Vec<(gateway::SshPublicKey, &str)> = Vec::new();
    for (user, identity) in &config.identities {
        let place = format!("identities.{user}.ssh_keys");
        for line in &identity.ssh_keys {
            match gateway::SshPublicKey::from_openssh(line) {
                Err(error) => {
                    let hint = "write the line of a .pub file: \"ssh-ed25519 AAAA... comment\"";
                    problem(&place, error.to_string(), hint);
                }
                Ok(key) => match keys.iter().find(|(known, _)| *known == key) {
                    Some((_, other)) => {
                        let what = format!("{} is a key of {other} already", key.fingerprint());
                        problem(&place, what, "give each identity a key of its own: a key says who somebody is");
                    }
                    None => keys.push((key, user)),
                },
            }
        }
    }
    let limits = &config.limits;
    for (key, value) in [
        ("connections_max", limits.connections_max),
        ("connections_per_identity_max", limits.connections_per_identity_max),
        ("authentication_seconds_max", limits.authentication_seconds_max),
        ("token_seconds_max", limits.token_seconds_max),
    ] {
        if value == 0 {
            let hint = "write a number above 0, or leave the key out for its default";
            problem(&format!("limits.{key}"), "0 would refuse everybody".into(), hint);
        }
    }
    if !(65_536..=1 << 30).contains(&limits.session_bytes_max) {
        let what = format!("{} bytes is out of range", limits.session_bytes_max);
        problem("limits.session_bytes_max", what, "write 65536 (64 KiB) to 1073741824 (1 GiB)");
    }
    if matches!(config.outposts.address, Some(Address::Unix(_))) {
        let what = "outposts cannot dial a unix socket of this machine".to_owned();
        problem("outposts.address", what, "write \"host:port\", as outposts reach this gateway");
    }
    let signed = config.connections.iter().filter(|(_, one)| one.approvals.as_ref().is_some_and(|asked| asked.signed));
    for (name, _) in signed.filter(|_| config.passkeys.is_none()) {
        let hint = "set passkeys.origin, so that there is a page to make passkeys on, or take `signed` away";
        problem(&format!("connections.{name}.approvals.signed"), "nobody can sign".into(), hint);
    }
    if let Some(passkeys) = &config.passkeys {
        if gateway::Site::new(&passkeys.origin).is_none() {
            let what = format!("{:?} is no origin that has passkeys", passkeys.origin);
            let hint = "write it as browsers show it: \"https://gateway.example:8443\", a name and no address, no path";
            problem("passkeys.origin", what, hint);
        }
        if config.listen.api.is_empty() {
            let hint = "set listen.api, where the page /approve is served, or remove [passkeys]";
            problem(
                "passkeys.origin",
                "passkeys are made on a page of the API, which is not listened for".into(),
                hint,
            );
        }
    }
    if config.publish.as_ref().is_some_and(|publish| !(1..=LIST_ENTRIES_MAX).contains(&publish.listen.len())) {
        let hint = "write at least one address, such as [\"127.0.0.1:6480\"], or remove [publish]";
        problem("publish.listen", "there is no address to listen on, or too many".into(), hint);
    }
    if let Some(witness) = &config.witness {
        for (key, value, most) in
            [("interval_seconds", witness.interval_seconds, 3600), ("timeout_seconds", witness.timeout_seconds, 60)]
        {
            if !(1..=most).contains(&value) {
                let hint = format!("write 1 to {most}, or leave the key out for its default");
                problem(&format!("witness.{key}"), format!("{value} seconds is out of range"), &hint);
            }
        }
    }
    for (name, issuer) in &config.issuers {
        if let Err(error) = issuer.build(name) {
            problem(&format!("issuers.{name}"), error.to_string(), "see docs/identity.md");
        }
        if let Some(what) = issuer.login_fault() {
            problem(&format!("issuers.{name}.login"), what, "add it to `audience`, or write token = \"access_token\"");
        }
    }
    if let Some(Err(error)) = config.certificates.as_ref().map(|certificates| certificates.build()) {
        problem("certificates", error.to_string(), "see docs/identity.md");
    }
    for (name, connection) in &config.connections {
        of_connection(config, name, connection, &mut problem);
    }
    problems.sort_by_key(|problem| problem.line);
    problems
}

fn of_connection(
    config: &Config,
    name: &ConnectionName,
    connection: &Connection,
    problem: &mut impl FnMut(&str, String, &str),
) {
    let key = |last: &str| format!("connections.{name}.{last}");
    of_kind(config, name, connection, problem);
    let database = (connection.kind == ConnectionKind::Postgres).then_some(("database", &connection.database));
    for (which, value) in [("user", &connection.user)].into_iter().chain(database) {
        if value.is_empty() || value.contains('\0') {
            problem(&key(which), "the name is empty".into(), "name it as the resource does");
        }
    }
    if connection.databases.len() > LIST_ENTRIES_MAX {
        let what = format!("more than {LIST_ENTRIES_MAX} entries");
        problem(&key("databases"), what, "write [\"*\"] for any database");
    }
    if !(MESSAGE_BYTES_FLOOR..=MESSAGE_BYTES_CEILING).contains(&connection.message_bytes_max) {
        let what = format!("{} bytes is out of range", connection.message_bytes_max);
        problem(&key("message_bytes_max"), what, "write 16384 (16 KiB) to 1073741824 (1 GiB, PostgreSQL's own limit)");
    }
    if connection.ca.is_some() && connection.tls() != UpstreamTls::VerifyFull {
        problem(
            &key("ca"),
            format!("with tls = \"{}\" nothing is checked against this authority", connection.tls()),
            "write tls = \"verify-full\", or remove `ca`",
        );
    }
    of_way(config, name, connection, problem);
    of_approvals(config, name, connection, problem);
    of_break_glass(config, name, connection, problem);
    // Issuers and certificates bring identities that are not in the file.
    let all_are_known = config.issuers.is_empty() && config.certificates.is_none();
    for identity in connection.identities.iter().filter(|_| all_are_known) {
        if config.identity_name(identity.name()).as_ref() != Some(identity) {
            problem(
                &key("identities"),
                format!("there is no identity {identity}"),
                &format!("`onrecord identities add` makes one; known: {}", known_identities(config)),
            );
        }
    }
}

/// What only connections of one kind have.
fn of_kind(
    config: &Config,
    name: &ConnectionName,
    connection: &Connection,
    problem: &mut impl FnMut(&str, String, &str),
) {
    let key = |last: &str| format!("connections.{name}.{last}");
    let (listened, listen) = match connection.kind {
        // `ssh -L` leads to one, too.
        ConnectionKind::Postgres => {
            (!config.listen.postgres.is_empty() || !config.listen.ssh.is_empty(), "postgres = [\"127.0.0.1:6432\"]")
        }
        ConnectionKind::Ssh => (!config.listen.ssh.is_empty(), "ssh = [\"127.0.0.1:2222\"]"),
    };
    if !listened {
        let what = format!("there is no address where clients could speak {}", connection.kind.as_str());
        problem(&key("kind"), what, &format!("add `{listen}` to [listen]"));
    }
    let (postgres, ssh) = (
        [
            ("database", !connection.database.is_empty()),
            ("databases", !connection.databases.is_empty()),
            ("tls", connection.tls_asked.is_some()),
            ("ca", connection.ca.is_some()),
            ("server_name", connection.server_name.is_some()),
            ("allow_plaintext", connection.allow_plaintext),
        ],
        [
            ("key", connection.key.is_some()),
            ("login", connection.login.is_some()),
            ("host_keys", !connection.host_keys.is_empty()),
            ("host_cas", !connection.host_cas.is_empty()),
            ("users", !connection.users.is_empty()),
            ("terminals", connection.terminals),
            ("shells", connection.shells != Shells::Refused),
            ("kept_bytes_max", connection.kept_bytes_max.is_some()),
        ],
    );
    let others: Vec<_> = match connection.kind {
        ConnectionKind::Postgres => ssh.into_iter().collect(),
        ConnectionKind::Ssh => postgres.into_iter().collect(),
    };
    for (last, _) in others.into_iter().filter(|(_, given)| *given) {
        problem(&key(last), format!("a connection of kind \"{}\" has none", connection.kind.as_str()), "remove it");
    }
    if connection.kind == ConnectionKind::Ssh {
        of_host(name, connection, problem);
    }
}

/// What a host is trusted by, and logged in to with.
fn of_host(name: &ConnectionName, connection: &Connection, problem: &mut impl FnMut(&str, String, &str)) {
    let key = |last: &str| format!("connections.{name}.{last}");
    if connection.host_keys.is_empty() && connection.host_cas.is_empty() {
        let hint = "write the lines of `ssh-keyscan -t ed25519 HOST`, without the name, after you have checked them";
        problem(&key("host_keys"), "the host could be anybody: no key of it is known".into(), hint);
    }
    for (last, lines) in [("host_keys", &connection.host_keys), ("host_cas", &connection.host_cas)] {
        for line in lines {
            if let Err(error) = gateway::SshPublicKey::from_openssh(line) {
                problem(&key(last), error.to_string(), "write \"ssh-ed25519 AAAA...\"");
            }
        }
    }
    let ways = [connection.key.is_some(), connection.password.is_some(), connection.login.is_some()];
    if ways.into_iter().filter(|given| *given).count() != 1 {
        let hint = "write key = \"file:PATH\" with the private key that the host lets in, or `password`, or \
                    login = \"certificate\": one of them";
        problem(&key("key"), "it is not said with what the gateway logs in".into(), hint);
    }
    if matches!(connection.durability, Durability::Both | Durability::Held) {
        let what = format!(
            "over ssh nothing is held back until the outcome is durable, as \"{}\" wants",
            connection.durability
        );
        problem(&key("durability"), what, "write \"intent\" or \"written\"");
    }
    if matches!(connection.address, Address::Unix(_)) {
        problem(&key("address"), "ssh is not spoken over a unix socket".into(), "write \"host:22\"");
    }
}

/// Who approves, and whether they could say so: people decide over the HTTP API, with a token of an issuer.
fn of_approvals(
    config: &Config,
    name: &ConnectionName,
    connection: &Connection,
    problem: &mut impl FnMut(&str, String, &str),
) {
    let Some(approvals) = &connection.approvals else { return };
    let table = format!("connections.{name}.approvals");
    approvals.check(|last, what, hint| match last {
        "" => problem(&table, what, hint),
        last => problem(&format!("{table}.{last}"), what, hint),
    });
    if config.listen.api.is_empty() {
        let hint = "add `api = [\"[::]:6443\"]` to [listen]";
        problem(&table, "there is no address where people could decide".into(), hint);
    }
    if config.issuers.is_empty() {
        let hint = "add an [issuers.NAME]; see docs/identity.md";
        problem(&table, "people decide with a token of an issuer, and none is trusted".into(), hint);
    }
}

/// Who may break the glass, and whether that could be done as it must be: by people, over the HTTP API, and not in silence.
fn of_break_glass(
    config: &Config,
    name: &ConnectionName,
    connection: &Connection,
    problem: &mut impl FnMut(&str, String, &str),
) {
    let Some(break_glass) = &connection.break_glass else { return };
    let table = format!("connections.{name}.break_glass");
    break_glass.check(connection.approvals.as_ref(), |last, what, hint| match last {
        "" => problem(&table, what, hint),
        last => problem(&format!("{table}.{last}"), what, hint),
    });
    if config.notifications.is_none() {
        let hint = "add [notifications] with a webhook that people look at";
        problem(&table, "nobody would be told that the glass is broken".into(), hint);
    }
    if connection.approvals.as_ref().is_some_and(|approvals| approvals.signed) {
        let what = "approvals of this connection must be signed, and break-glass is not".to_owned();
        problem(&table, what, "take [break_glass] away, or `signed` in [approvals]");
    }
    if config.listen.api.is_empty() {
        let hint = "add `api = [\"[::]:6443\"]` to [listen]";
        problem(&table, "there is no address where people could open it".into(), hint);
    }
    if config.issuers.is_empty() {
        let hint = "add an [issuers.NAME]; see docs/identity.md";
        problem(&table, "people open it with a token of an issuer, and none is trusted".into(), hint);
    }
    if connection.policy.is_empty() || connection.policy_mode == PolicyMode::Observe {
        let why = if connection.policy.is_empty() { "it has no policy" } else { "its policy only observes" };
        let what = format!("nothing is held on this connection, because {why}: there is nothing to lift");
        problem(&table, what, "take [break_glass] away until a policy decides there");
    }
}

/// The way to the resource: straight or through an outpost, encrypted or not.
fn of_way(
    config: &Config,
    name: &ConnectionName,
    connection: &Connection,
    problem: &mut impl FnMut(&str, String, &str),
) {
    let key = |last: &str| format!("connections.{name}.{last}");
    if connection.outpost.is_some() && matches!(connection.address, Address::Unix(_)) {
        let hint = "write the \"host:port\" that the outpost is to dial";
        problem(&key("address"), "an outpost dials no unix socket".into(), hint);
    }
    if connection.outpost.is_some() && config.listen.outposts.is_empty() {
        let hint = "add `outposts = [\"0.0.0.0:7443\"]` to [listen]";
        problem(&key("outpost"), "there is no address that outposts could dial".into(), hint);
    }
    if connection.outpost.is_some() && connection.tls() == UpstreamTls::Require {
        problem(
            &key("tls"),
            "with tls = \"require\" the outpost could pass for the server, and read and change commands".into(),
            "remove `tls` so that the server's certificate is checked, and name its authority with `ca`",
        );
    }
    if connection.tls() == UpstreamTls::Disable && !connection.is_local() && !connection.allow_plaintext {
        problem(
            &key("tls"),
            "with tls = \"disable\" statements, rows and passwords cross a network in the clear".into(),
            "remove `tls` so that the server's certificate is checked, or write allow_plaintext = true; \
             every command of the connection then says so",
        );
    }
    if connection.server_name.is_some() && connection.tls() != UpstreamTls::VerifyFull {
        let what = format!("with tls = \"{}\" no name is checked", connection.tls());
        problem(&key("server_name"), what, "write tls = \"verify-full\", or remove `server_name`");
    }
}

fn known_identities(config: &Config) -> String {
    let names: Vec<String> = config
        .identities
        .keys()
        .filter_map(|user| config.identity_name(user))
        .take(8)
        .map(|name| name.to_string())
        .collect();
    if names.is_empty() { "none yet".to_owned() } else { names.join(", ") }
}
