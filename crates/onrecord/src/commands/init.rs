//! `onrecord init`: a commented configuration, a data directory, and what to do next. Asks nothing and
//! overwrites nothing.

use std::fmt::Write as _;
use std::io::Write;
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::json;

use super::Context;
use crate::Failure;
use crate::config::{Config, ConnectionName};
use crate::output::{Format, Tone};

/// Arguments of `init`.
#[derive(Debug, Args)]
pub struct Init {
    /// Data directory, relative to the configuration's
    #[arg(long, value_name = "DIR", default_value = "onrecord-data")]
    data: PathBuf,
    /// Origin of the log: the name under which it is signed, for ever [default: HOSTNAME/onrecord]
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Where to listen for PostgreSQL clients
    #[arg(long, value_name = "IP:PORT", default_value = "127.0.0.1:6432")]
    listen: SocketAddr,
    /// A PostgreSQL server to protect: postgres://USER@HOST[:PORT]/DATABASE, without the password
    #[arg(long, value_name = "URL")]
    postgres: Option<String>,
    /// Where that server's password is: file:PATH or env:NAME
    #[arg(long, value_name = "SOURCE", requires = "postgres")]
    password: Option<String>,
}

/// The resource of a `postgres://` URL.
#[derive(Debug, PartialEq, Eq)]
struct Resource {
    address: String,
    database: String,
    user: String,
}

impl Init {
    /// Does it.
    pub fn run(self, context: &mut Context) -> Result<(), Failure> {
        let file = context.config.clone().unwrap_or_else(|| PathBuf::from("onrecord.toml"));
        if file.exists() {
            return Err(Failure::new(format_args!("{} exists, and nothing was changed", file.display()))
                .hint("--config FILE writes another one; `onrecord config check` checks this one"));
        }
        let resource = self.postgres.as_deref().map(resource).transpose()?;
        let text = self.template(resource.as_ref());
        // What is written is what would be read: a flag's wrong value ends here, before anything is made.
        let config = Config::parse(&text, &file)?;
        let created = crate::wiring::create_record(&config)?;
        write_new(&file, &text)?;
        self.report(context, &file, &config, &created.vkey)
    }

    fn template(&self, resource: Option<&Resource>) -> String {
        let name = self.name.clone().unwrap_or_else(|| format!("{}/onrecord", host_name()));
        let mut text = format!(
            "# OnRecord. Every key is described by `onrecord config schema`.\n\
             \n\
             [gateway]\n\
             # The name under which the log is signed. It cannot change later.\n\
             name = {name}\n\
             # The record, its keys and its checkpoints.\n\
             data = {data}\n\
             \n\
             [listen]\n\
             postgres = [{listen}]\n\
             \n\
             # [tls]\n\
             # Without a certificate a self-signed one is made in the data directory.\n\
             # certificate = \"file:/etc/onrecord/tls.crt\"\n\
             # key = \"file:/etc/onrecord/tls.key\"\n\
             # plaintext = \"loopback\"     # who may connect without TLS: always, loopback, never\n\
             \n\
             # [publish]\n\
             # The log over HTTP, for anyone who can connect to read and verify.\n\
             # listen = [\"127.0.0.1:6480\"]\n\
             \n\
             # [witness]\n\
             # Who is asked to cosign the log, so that it cannot be rewritten in silence.\n\
             # policy = \"file:/etc/onrecord/policy.tlog\"\n\
             \n",
            name = quoted(&name),
            data = quoted(&self.data.to_string_lossy()),
            listen = quoted(&self.listen.to_string()),
        );
        let example = Resource {
            address: "db.internal:5432".to_owned(),
            database: "app".to_owned(),
            user: "app_owner".to_owned(),
        };
        let mut connection = self.connection(resource.unwrap_or(&example));
        if resource.is_none() {
            connection = commented(&connection);
        }
        text.push_str(&connection);
        text.push_str("\n# Identities are written here by `onrecord identities add NAME --connection ...`.\n");
        text
    }

    fn connection(&self, resource: &Resource) -> String {
        let mut text = String::new();
        let name = ConnectionName::try_from(resource.database.clone())
            .map_or_else(|_| "main".to_owned(), |name| name.to_string());
        let password = match (&self.password, &self.postgres) {
            (Some(source), _) => format!("password = {}", quoted(source)),
            (None, Some(_)) => "# password = \"file:/path/to/password\"".to_owned(),
            (None, None) => "password = \"file:/etc/onrecord/app.password\"".to_owned(),
        };
        let _ = writeln!(
            text,
            "# Clients give this name as their database.\n\
             [connections.{name}]\n\
             kind = \"postgres\"\n\
             address = {address}\n\
             database = {database}\n\
             user = {user}\n\
             {password}\n\
             # tls = \"verify-full\"        # verify-full, require, disable\n\
             # durability = \"intent\"      # intent, both, held, written\n\
             identities = []             # who may use it; nobody unless named",
            name = quoted_key(&name),
            address = quoted(&resource.address),
            database = quoted(&resource.database),
            user = quoted(&resource.user),
        );
        text
    }

    fn report(&self, context: &mut Context, file: &Path, config: &Config, vkey: &str) -> Result<(), Failure> {
        let data = &config.gateway.data;
        let console = &mut context.console;
        if console.format() != Format::Table {
            return Ok(console.json(&json!({"config": file, "data": data, "vkey": vkey}))?);
        }
        let flag = if context.config.is_some() {
            format!(" --config {}", shell_word(&file.to_string_lossy()))
        } else {
            String::new()
        };
        console.line(&format!("configuration   {}", file.display()))?;
        console.line(&format!("data directory  {}", data.display()))?;
        console.line(&format!("verifier key    {vkey}"))?;
        let why = "keep a copy elsewhere: it verifies the record without this machine";
        console.line(&format!("                {}", console.paint(Tone::Faint, why)))?;
        console.line("\nNext:")?;
        let connection = config.connections.keys().next();
        let mut steps = Vec::new();
        if connection.is_none() {
            steps.push((format!("$EDITOR {}", file.display()), "name a resource"));
        }
        let name = connection.map_or("app", ConnectionName::as_str);
        steps.push((
            format!("onrecord{flag} identities add copilot-agent --connection {name}"),
            "make an identity and its key",
        ));
        steps.push((format!("onrecord{flag} doctor"), "look for what is in the way"));
        steps.push((format!("onrecord{flag} serve"), "start"));
        let width = steps.iter().map(|(step, _)| step.len()).max().unwrap_or(0);
        for (step, why) in steps {
            console.line(&format!("  {step:width$}  {}", console.paint(Tone::Faint, &format!("# {why}"))))?;
        }
        Ok(())
    }
}

fn resource(url: &str) -> Result<Resource, Failure> {
    let wrong = |what: &str| {
        Failure::usage(format_args!("--postgres: {what}")).hint("write postgres://USER@HOST[:PORT]/DATABASE")
    };
    let rest = url
        .strip_prefix("postgres://")
        .or_else(|| url.strip_prefix("postgresql://"))
        .ok_or_else(|| wrong("this is not a postgres:// URL"))?;
    let (user, rest) = rest.split_once('@').ok_or_else(|| wrong("there is no user"))?;
    if user.contains(':') {
        return Err(Failure::usage("--postgres: the URL holds a password, which would stay in the shell's history")
            .hint("leave it out, put it in a file of mode 0600, and add --password file:PATH"));
    }
    let (host, database) = rest.split_once('/').ok_or_else(|| wrong("there is no database"))?;
    if [user, host, database].iter().any(|part| part.is_empty() || part.contains(['%', '?', '@', '/'])) {
        return Err(wrong("user, host and database must be plain names"));
    }
    let has_port = host.rsplit_once(':').is_some_and(|(_, port)| !port.ends_with(']'));
    let address = if has_port { host.to_owned() } else { format!("{host}:5432") };
    Ok(Resource { address, database: database.to_owned(), user: user.to_owned() })
}

fn write_new(file: &Path, text: &str) -> Result<(), Failure> {
    let write = || {
        let mut new = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o640).open(file)?;
        new.write_all(text.as_bytes())?;
        new.sync_all()
    };
    write().map_err(|error: std::io::Error| Failure::new(format_args!("cannot write {}: {error}", file.display())))
}

/// A TOML basic string.
fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

/// A TOML key, bare where it can be.
fn quoted_key(name: &str) -> String {
    if name.contains('.') { quoted(name) } else { name.to_owned() }
}

fn commented(text: &str) -> String {
    text.lines().fold(String::new(), |mut out, line| {
        let _ = match line.strip_prefix("# ") {
            Some(_) => writeln!(out, "{line}"),
            None => writeln!(out, "# {line}"),
        };
        out
    })
}

/// The text as one word of a shell.
fn shell_word(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+=:,@%".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        text.to_owned()
    } else {
        format!("'{}'", text.replace('\'', "'\\''"))
    }
}

fn host_name() -> String {
    let name = rustix::system::uname().nodename().to_string_lossy().to_lowercase();
    let plain: String = name.chars().filter(|c| c.is_ascii_alphanumeric() || ".-".contains(*c)).collect();
    if plain.is_empty() { "localhost".to_owned() } else { plain }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::Exit;

    #[test]
    fn urls_are_taken_apart_and_passwords_refused() {
        let expected =
            Resource { address: "db.internal:5432".into(), database: "app".into(), user: "app_owner".into() };
        assert_eq!(resource("postgres://app_owner@db.internal/app").unwrap(), expected);
        assert_eq!(resource("postgresql://u@[::1]:5433/d").unwrap().address, "[::1]:5433");
        assert_eq!(resource("postgres://u@[::1]/d").unwrap().address, "[::1]:5432");
        let refused = resource("postgres://u:hunter2@h/d").unwrap_err();
        assert_eq!(refused.exit(), Exit::Usage);
        assert!(!refused.to_string().contains("hunter2"));
        for url in ["mysql://u@h/d", "postgres://h/d", "postgres://u@h", "postgres://u@h/"] {
            assert!(resource(url).is_err(), "{url}");
        }
    }
}
