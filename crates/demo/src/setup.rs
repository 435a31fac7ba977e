//! Before the agents start: the resource, the keys, the configuration.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;

use anyhow::{Context, Result, bail};
use onrecord::config::Config;
use onrecord::keys::{Verifier, make_key};

use crate::agents::{Agent, CLAUDE, CONNECTION, COPILOT, SCHEMA, SETUP};
use crate::place::{Place, write_private};
use crate::postgres::{OWNER, Server};

/// Where the gateway listens, unless something else does.
const PORT: u16 = 6432;
/// How many ports after it are tried before any.
const PORTS: u16 = 10;

/// What the gateway stands before.
#[derive(Debug)]
pub(crate) struct Resource {
    /// `host:port` or the directory of a unix socket.
    pub(crate) address: String,
    /// The database.
    pub(crate) database: String,
    user: String,
    /// None when the server asks for none.
    password: Option<String>,
}

impl Resource {
    /// The demo's own server.
    pub(crate) fn of(server: &Server, password: &str) -> Self {
        Self {
            address: format!("127.0.0.1:{}", server.port),
            database: CONNECTION.to_owned(),
            user: OWNER.to_owned(),
            password: Some(password.to_owned()),
        }
    }

    /// Somebody's server. The password may be in the URL, or in `PGPASSWORD`.
    pub(crate) fn parse(url: &str) -> Result<Self> {
        // tokio-postgres knows the whole grammar, percent signs included.
        let parsed: tokio_postgres::Config = match url.parse() {
            Ok(parsed) if url.starts_with("postgres") => parsed,
            // The URL is not repeated: it may hold a password.
            _ => bail!("--upstream: write postgres://USER:PASSWORD@HOST[:PORT]/DATABASE"),
        };
        let user = parsed.get_user().context("--upstream: the URL names no user")?.to_owned();
        let port = parsed.get_ports().first().copied().unwrap_or(5432);
        let address = match parsed.get_hosts().first() {
            Some(tokio_postgres::config::Host::Tcp(host)) if host.contains(':') => format!("[{host}]:{port}"),
            Some(tokio_postgres::config::Host::Tcp(host)) => format!("{host}:{port}"),
            #[cfg(unix)]
            Some(tokio_postgres::config::Host::Unix(directory)) => directory.display().to_string(),
            None => bail!("--upstream: the URL names no host"),
        };
        let password = parsed.get_password().map(|password| String::from_utf8_lossy(password).into_owned());
        Ok(Self {
            address,
            database: parsed.get_dbname().unwrap_or(&user).to_owned(),
            password: password.or_else(|| std::env::var("PGPASSWORD").ok()),
            user,
        })
    }
}

/// A password that nobody has to know, kept from run to run because the server's data is.
pub(crate) fn resource_password(place: &Place) -> Result<String> {
    let path = place.resource_password();
    if let Ok(text) = fs::read_to_string(&path)
        && text.trim().len() > 20
    {
        return Ok(text.trim().to_owned());
    }
    let password = make_key().context("no randomness")?;
    write_private(&path, &format!("{}\n", *password))?;
    Ok(password.to_string())
}

/// Makes the database of the demo's own server unless an earlier run did.
pub(crate) async fn make_database(port: u16, password: &str) -> Result<()> {
    let (client, connection) = tokio_postgres::Config::new()
        .host("127.0.0.1")
        .port(port)
        .user(OWNER)
        .password(password)
        .dbname("postgres")
        .connect(tokio_postgres::NoTls)
        .await
        .context("cannot sign in to the demo's PostgreSQL")?;
    let driver = tokio::spawn(connection);
    let made = client.query("select from pg_database where datname = $1", &[&CONNECTION]).await?;
    if made.is_empty() {
        client.batch_execute(&format!("create database {CONNECTION}")).await?;
    }
    // So that whoever looks around with psql finds the tables by their names.
    client.batch_execute(&format!("alter database {CONNECTION} set search_path = {SCHEMA}, public")).await?;
    drop(client);
    Ok(driver.await??)
}

/// The agent's key, from the file that psql reads; made when there is none.
pub(crate) fn key(place: &Place, agent: Agent) -> Result<String> {
    let path = place.pgpass(agent.user);
    let kept = fs::read_to_string(&path).ok();
    let kept = kept.as_deref().and_then(|line| line.trim().rsplit_once(':')).map(|(_, key)| key);
    if let Some(key) = kept
        && key.starts_with("onr_")
    {
        return Ok(key.to_owned());
    }
    let key = make_key().context("no randomness")?;
    write_private(&path, &format!("*:*:*:{}:{}\n", agent.user, *key))?;
    Ok(key.to_string())
}

/// The first free port from the usual one.
pub(crate) fn listen_address() -> SocketAddr {
    let address = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    (PORT..PORT + PORTS).map(address).find(|address| is_free(*address)).unwrap_or_else(|| address(0))
}

/// Whether nobody listens there.
pub(crate) fn is_free(address: SocketAddr) -> bool {
    TcpListener::bind(address).is_ok()
}

/// Whether this is not the usual port.
pub(crate) fn is_unusual(address: SocketAddr) -> Option<u16> {
    (address.port() != PORT).then_some(PORT)
}

/// Writes the gateway's configuration and reads it as `onrecord` does.
pub(crate) fn configure(
    place: &Place,
    resource: &Resource,
    listen: SocketAddr,
    keys: &[(Agent, String)],
) -> Result<Config> {
    let quoted = |text: &str| serde_json::Value::from(text).to_string();
    let path = |path: &Path| quoted(&path.to_string_lossy());
    let mut text = format!(
        "# Written anew by every start of the OnRecord demo.\n\
         \n\
         [gateway]\n\
         name = \"onrecord-demo\"\n\
         data = {data}\n\
         \n\
         [listen]\n\
         postgres = [{listen}]\n\
         \n\
         [connections.{CONNECTION}]\n\
         kind = \"postgres\"\n\
         address = {address}\n\
         database = {database}\n\
         user = {user}\n",
        data = path(&place.record()),
        listen = quoted(&listen.to_string()),
        address = quoted(&resource.address),
        database = quoted(&resource.database),
        user = quoted(&resource.user),
    );
    if let Some(password) = &resource.password {
        let file = place.root().join("upstream.password");
        write_private(&file, &format!("{password}\n"))?;
        text.push_str(&format!("password = {}\n", quoted(&format!("file:{}", file.display()))));
    }
    let names: Vec<String> = [SETUP, CLAUDE, COPILOT].iter().map(|agent| quoted(&agent.name())).collect();
    text.push_str(&format!("identities = [{}]\n", names.join(", ")));
    for (agent, key) in keys {
        text.push_str(&format!("\n[identities.{}]\nkind = \"{}\"\n", agent.user, agent.kind));
        if let Some(principal) = agent.on_behalf_of {
            text.push_str(&format!("on_behalf_of = \"{principal}\"\n"));
        }
        let verifier = Verifier::of(key).context("no randomness")?;
        text.push_str(&format!("secret = \"{verifier}\"\n"));
    }
    write_private(&place.config(), &text)?;
    Ok(Config::load(&place.config())?)
}
