//! `onrecord identities add`: an identity with a key of its own.

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use model::{IdentityKind, IdentityName};
use serde_json::json;
use toml_edit::{DocumentMut, Item, Table as TomlTable, value};
use zeroize::Zeroizing;

use crate::Failure;
use crate::commands::Context;
use crate::config::{Config, SecretSource};
use crate::keys::{Verifier, make_key, usable_key};
use crate::output::{Format, Tone};

/// Arguments of `identities add`.
#[derive(Debug, Args)]
pub struct Add {
    /// The user name that clients sign in with
    name: String,
    /// What it is
    #[arg(long, value_enum, default_value_t = Kind::Agent)]
    kind: Kind,
    /// For whom it acts, such as human:bea; recorded as claimed, not verified
    #[arg(long, value_name = "IDENTITY")]
    on_behalf_of: Option<String>,
    /// Let it use this connection (repeatable)
    #[arg(long, value_name = "NAME")]
    connection: Vec<String>,
    /// Take the key from this file, or make it and write it there with mode 0600 [default: print it once]
    #[arg(long, value_name = "FILE")]
    secret_file: Option<PathBuf>,
    /// Print the block to paste, and leave the configuration alone
    #[arg(long)]
    print: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Kind {
    Agent,
    Human,
    Service,
}

impl From<Kind> for IdentityKind {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::Agent => Self::Agent,
            Kind::Human => Self::Human,
            Kind::Service => Self::Service,
        }
    }
}

/// An identity that is about to be written.
struct NewIdentity {
    user: String,
    name: IdentityName,
    kind: IdentityKind,
    on_behalf_of: Option<IdentityName>,
    secret: Verifier,
    connections: Vec<String>,
}

impl Add {
    pub(super) fn run(self, context: &mut Context) -> Result<(), Failure> {
        let file = context.config_file();
        let (key, kept) = self.key()?;
        let identity = self.identity(&key)?;
        let mut listen = None;
        let mut block = None;
        let mut changed = None;
        if self.print {
            block = Some(identity.block());
        } else {
            let text = std::fs::read_to_string(&file).map_err(|source| {
                Failure::from(crate::config::ConfigError::Unreadable { file: file.clone(), source })
            })?;
            let before = Config::parse(&text, &file)?;
            if before.identities.contains_key(&identity.user) {
                return Err(Failure::new(format_args!("the user name {} is taken", identity.user))
                    .hint("remove its table from the configuration first, or choose another name"));
            }
            let after = identity.add_to(&text)?;
            listen = Config::parse(&after, &file)?.listen.postgres.first().copied();
            changed = Some(after);
        }
        // The key first: without its identity it opens nothing, and an identity without it is lost.
        if let (Kept::ToWrite, Some(path)) = (kept, &self.secret_file) {
            write_key(path, &key)?;
        }
        if let Some(text) = changed {
            replace(&file, &text)?;
        }
        let shown = (kept == Kept::Nowhere).then(|| key.as_str());
        self.report(context, &identity, shown, block.as_deref(), listen, &file)
    }

    fn key(&self) -> Result<(Zeroizing<String>, Kept), Failure> {
        let Some(path) = &self.secret_file else {
            return Ok((make_key().map_err(no_randomness)?, Kept::Nowhere));
        };
        if !path.exists() {
            return Ok((make_key().map_err(no_randomness)?, Kept::ToWrite));
        }
        let bytes = SecretSource::File(path.clone()).read().map_err(Failure::new)?;
        let key = std::str::from_utf8(&bytes)
            .map_or(Err("the key is not text"), |key| usable_key(key).map(|()| Zeroizing::new(key.to_owned())));
        let key = key.map_err(|why| {
            Failure::usage(format_args!("{}: {why}", path.display()))
                .hint("name a file that does not exist yet, and a key is made and written there")
        })?;
        Ok((key, Kept::InFile))
    }

    fn identity(&self, key: &str) -> Result<NewIdentity, Failure> {
        let kind = IdentityKind::from(self.kind);
        let name = IdentityName::new(kind, &self.name).map_err(|_| {
            Failure::usage(format_args!("{:?} is not an identity's name", self.name))
                .hint("use 1 to 128 letters, digits, `.`, `_`, `@`, `-`, `+` or `/`; the kind goes into --kind")
        })?;
        let on_behalf_of = match &self.on_behalf_of {
            None => None,
            Some(text) => Some(text.parse().map_err(|_| {
                Failure::usage(format_args!("{text:?} is not an identity"))
                    .hint("write agent:NAME, human:NAME or service:NAME")
            })?),
        };
        Ok(NewIdentity {
            user: self.name.clone(),
            name,
            kind,
            on_behalf_of,
            secret: Verifier::of(key).map_err(no_randomness)?,
            connections: self.connection.clone(),
        })
    }

    fn report(
        &self,
        context: &mut Context,
        identity: &NewIdentity,
        key: Option<&str>,
        block: Option<&str>,
        listen: Option<std::net::SocketAddr>,
        file: &Path,
    ) -> Result<(), Failure> {
        let console = &mut context.console;
        if console.format() != Format::Table {
            return Ok(console.json(&json!({
                "identity": identity.name.to_string(),
                "user": identity.user,
                "key": key,
                "key_file": self.secret_file,
                "secret": identity.secret.to_string(),
                "connections": identity.connections,
                "config": block.is_none().then_some(file),
            }))?);
        }
        console.line(&format!("identity  {}", console.paint(Tone::Strong, &identity.name.to_string())))?;
        match (key, &self.secret_file) {
            (Some(key), _) => {
                let once = console.paint(Tone::Faint, "shown this once and kept nowhere");
                console.line(&format!("key       {key}  {once}"))?;
            }
            (None, Some(path)) => console.line(&format!("key       in {}", path.display()))?,
            (None, None) => {}
        }
        match block {
            Some(block) => {
                console.line("\nAdd to the configuration:\n")?;
                console.line(block.trim_end())?;
                if !identity.connections.is_empty() {
                    let connections = identity.connections.join(", ");
                    console.line(&format!(
                        "\nand {:?} to the `identities` of {connections}.",
                        identity.name.to_string()
                    ))?;
                }
            }
            None => {
                console.line(&format!("added to  {}", file.display()))?;
                if identity.connections.is_empty() {
                    console.line(&format!(
                        "\nIt may use no connection yet: add {:?} to the `identities` of one.",
                        identity.name.to_string()
                    ))?;
                }
                console.line("\nA running gateway knows it within a second or two.")?;
            }
        }
        if let (Some(listen), Some(connection)) = (listen, identity.connections.first()) {
            console.line("\nConnect with the key as the password:")?;
            console.line(&format!(
                "  psql \"host={} port={} user={} dbname={connection}\"",
                reachable(listen.ip()),
                listen.port(),
                identity.user
            ))?;
        }
        Ok(())
    }
}

/// Where a key is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kept {
    InFile,
    Nowhere,
    ToWrite,
}

impl NewIdentity {
    fn table(&self) -> TomlTable {
        let mut table = TomlTable::new();
        table.insert("kind", value(self.kind.to_string()));
        if let Some(principal) = &self.on_behalf_of {
            table.insert("on_behalf_of", value(principal.to_string()));
        }
        table.insert("secret", value(self.secret.to_string()));
        table
    }

    /// The identity as text to paste.
    fn block(&self) -> String {
        let mut document = DocumentMut::new();
        insert(&mut document, &self.user, self.table());
        document.to_string()
    }

    /// The configuration with the identity added, and everything else as it was.
    fn add_to(&self, text: &str) -> Result<String, Failure> {
        let mut document: DocumentMut = text.parse().map_err(Failure::usage)?;
        insert(&mut document, &self.user, self.table());
        for connection in &self.connections {
            let table = document
                .get_mut("connections")
                .and_then(|connections| connections.get_mut(connection))
                .and_then(Item::as_table_like_mut);
            let Some(table) = table else {
                return Err(Failure::usage(format_args!("there is no connection {connection}"))
                    .hint("`onrecord connections list` shows them"));
            };
            let identities = table.entry("identities").or_insert_with(|| value(toml_edit::Array::new())).as_array_mut();
            if let Some(identities) = identities {
                identities.push(self.name.to_string());
            }
        }
        Ok(document.to_string())
    }
}

fn insert(document: &mut DocumentMut, user: &str, table: TomlTable) {
    let identities = document.entry("identities").or_insert_with(|| {
        let mut identities = TomlTable::new();
        identities.set_implicit(true);
        Item::Table(identities)
    });
    if let Some(identities) = identities.as_table_like_mut() {
        identities.insert(user, Item::Table(table));
    }
}

/// Replaces a file in one step, so that a crash leaves the old one or the new one.
fn replace(file: &Path, text: &str) -> Result<(), Failure> {
    let failed = |error: std::io::Error| {
        Failure::new(format_args!("cannot write {}: {error}", file.display()))
            .hint("--print prints the block to paste instead")
    };
    let file = std::fs::canonicalize(file).map_err(failed)?;
    let mut beside = file.clone().into_os_string();
    beside.push(".new");
    let beside = PathBuf::from(beside);
    let write = || {
        let permissions = std::fs::metadata(&file)?.permissions();
        let mut new = std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
        new.write_all(text.as_bytes())?;
        new.set_permissions(permissions)?;
        new.sync_all()?;
        std::fs::rename(&beside, &file)
    };
    write().map_err(|error| {
        let _ = std::fs::remove_file(&beside);
        failed(error)
    })
}

fn write_key(path: &Path, key: &str) -> Result<(), Failure> {
    let write = || {
        let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
        writeln!(file, "{key}")?;
        file.sync_all()
    };
    write().map_err(|error: std::io::Error| {
        Failure::new(format_args!("cannot write the key to {}: {error}", path.display()))
    })
}

fn no_randomness(error: getrandom::Error) -> Failure {
    Failure::new(format_args!("the system gave no randomness: {error}"))
}

/// An address that a client on this machine can dial: a listener on every address is also on loopback.
fn reachable(ip: std::net::IpAddr) -> std::net::IpAddr {
    use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
    match ip {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        other => other,
    }
}
