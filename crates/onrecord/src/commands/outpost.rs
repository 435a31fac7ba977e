//! `onrecord outpost`: who dials out to the gateway, how another one joins, and being one.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};
use link::JoinToken;
use serde_json::Value;

use super::Context;
use super::asking::{self, number, text, when};
use super::words::counted;
use crate::Failure;
use crate::control::Request;
use crate::output::{Cell, Column, Format, Table, Tone};

/// `outpost ...`.
#[derive(Debug, Subcommand)]
pub enum OutpostCommand {
    /// Print a join token, with which one outpost can join
    Token(Token),
    /// List the outposts, and what is up of each
    List,
    /// Lock an outpost out: its links and their sessions end, and it cannot come back without a new token
    Revoke(Revoke),
    /// Give the gateway's authority for outposts another key; outposts learn of it when they renew
    RotateAuthority,
    /// Be an outpost: dial out to a gateway, and let it reach the named addresses
    Run(Run),
}

/// Arguments of `outpost token`.
#[derive(Debug, Args)]
pub struct Token {
    /// The outpost's name, by which connections name it; one that has the name already is replaced
    #[arg(long)]
    name: String,
    /// A label, by which connections name it together with others; may be given again
    #[arg(long, value_name = "LABEL")]
    label: Vec<String>,
    /// How long the token can be used, such as 30s, 10m or 2h
    #[arg(long, value_name = "TIME", default_value = "10m", value_parser = time)]
    ttl: Duration,
}

/// Arguments of `outpost revoke`.
#[derive(Debug, Args)]
pub struct Revoke {
    /// The outpost's name or id
    name: String,
}

/// Arguments of `outpost run`.
#[derive(Debug, Args)]
pub struct Run {
    /// Directory of its own, made if there is none: key, certificate, the gateway's address
    #[arg(long, value_name = "DIR")]
    state: PathBuf,
    /// An address that the gateway may have dialled, letter by letter; may be given again
    #[arg(long, value_name = "HOST:PORT", required = true)]
    allow: Vec<outpost::Address>,
    /// File with the join token, for the first start; or the environment variable ONRECORD_JOIN
    #[arg(long, value_name = "FILE")]
    join_file: Option<PathBuf>,
    /// Parallel connections to the gateway
    #[arg(long, value_name = "N", default_value_t = outpost::CONNECTIONS_DEFAULT, value_parser = clap::value_parser!(u8).range(2..=4))]
    connections: u8,
    /// HTTP proxy that is asked to CONNECT, http://HOST:PORT
    #[arg(long, value_name = "URL", env = "HTTPS_PROXY")]
    proxy: Option<outpost::Proxy>,
    /// Reach the gateway inside a WebSocket, where a proxy lets only the web through
    #[arg(long)]
    websocket: bool,
}

impl OutpostCommand {
    /// Does it.
    pub fn run(self, context: &mut Context) -> Result<(), Failure> {
        match self {
            Self::Token(token) => token.run(context),
            Self::List => list(context),
            Self::Revoke(Revoke { name }) => {
                let answer = asking::ask(context, &Request::OutpostRevoke { name })?;
                let links = counted(number(&answer, "links"), "link", "links");
                let said = format!("Outpost {} is locked out; {links} ended.", text(&answer, "name"));
                say(context, &answer, &said)
            }
            Self::RotateAuthority => {
                let answer = asking::ask(context, &Request::OutpostRotateAuthority {})?;
                let said = "The authority for outposts has another key. Both hold for 25 hours: every outpost that is \
                            connected renews within that time and learns of it.";
                say(context, &answer, said)
            }
            Self::Run(run) => run.run(),
        }
    }
}

impl Token {
    fn run(self, context: &mut Context) -> Result<(), Failure> {
        let request = Request::OutpostInvite { name: self.name, labels: self.label, ttl_seconds: self.ttl.as_secs() };
        let answer = asking::ask(context, &request)?;
        let console = &mut context.console;
        if console.format() != Format::Table {
            return Ok(console.json(&answer)?);
        }
        // Alone on standard output, so that it can be piped into a file.
        Ok(console.line(text(&answer, "token"))?)
    }
}

impl Run {
    fn run(self) -> Result<(), Failure> {
        let join = match &self.join_file {
            Some(file) => match std::fs::read_to_string(file) {
                Ok(text) => Some(text),
                // Once it has joined, the file is not needed, and may be gone.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
                Err(error) => return Err(Failure::usage(format_args!("cannot read {}: {error}", file.display()))),
            },
            None => std::env::var("ONRECORD_JOIN").ok().filter(|text| !text.trim().is_empty()),
        };
        let join = join.map(|text| text.parse::<JoinToken>()).transpose().map_err(Failure::usage)?;
        let options = outpost::Options {
            state: self.state,
            join,
            allowed: self.allow,
            connections: self.connections,
            proxy: self.proxy,
            carrier: if self.websocket { outpost::Carrier::WebSocket } else { outpost::Carrier::Tls },
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Failure::new)?;
        runtime.block_on(async {
            let stop = outpost::told_to_stop().map_err(Failure::new)?;
            outpost::run(options, stop).await.map_err(Failure::new)
        })
    }
}

fn list(context: &mut Context) -> Result<(), Failure> {
    let answer = asking::ask(context, &Request::OutpostList {})?;
    let all = answer.get("outposts").and_then(Value::as_array).cloned().unwrap_or_default();
    let console = &mut context.console;
    if console.format() != Format::Table {
        return console.json_list(all.into_iter().map(Ok));
    }
    let mut table = Table::new([
        Column::text("NAME"),
        Column::text("LABELS"),
        Column::number("LINKS"),
        Column::number("STREAMS"),
        Column::flexible("FROM"),
        Column::text("CERTIFICATE UNTIL"),
        Column::text("STATE"),
    ]);
    let words = |one: &Value, key: &str| {
        let words = one.get(key).and_then(Value::as_array).into_iter().flatten();
        words.filter_map(Value::as_str).collect::<Vec<_>>().join(", ")
    };
    for one in &all {
        let state = match (text(one, "revoked"), number(one, "links")) {
            ("", 0) => Cell::toned(Tone::Warning, "not connected"),
            ("", _) => Cell::new("connected"),
            (revoked, _) => Cell::toned(Tone::Faint, format!("revoked {}", when(revoked))),
        };
        table.row([
            Cell::toned(Tone::Strong, text(one, "name")),
            Cell::new(words(one, "labels")),
            Cell::new(number(one, "links").to_string()),
            Cell::new(number(one, "streams").to_string()),
            Cell::new(words(one, "addresses")),
            Cell::new(when(text(one, "certificate_until"))),
            state,
        ]);
    }
    if table.is_empty() {
        console.line("No outposts. `onrecord outpost token --name NAME` prints what one needs to join.")?;
    }
    Ok(console.table(&table)?)
}

fn say(context: &mut Context, answer: &Value, said: &str) -> Result<(), Failure> {
    let console = &mut context.console;
    if console.format() == Format::Table { Ok(console.line(said)?) } else { Ok(console.json(answer)?) }
}

/// A number and `s`, `m` or `h`.
fn time(text: &str) -> Result<Duration, String> {
    let refused = || format!("write a time up to 24h, such as 30s, 10m or 2h, not {text:?}");
    let (number, unit) = text.split_at_checked(text.len().saturating_sub(1)).ok_or_else(refused)?;
    let unit = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        _ => return Err(refused()),
    };
    let seconds = number.parse::<u64>().ok().and_then(|number| number.checked_mul(unit)).ok_or_else(refused)?;
    let time = Duration::from_secs(seconds);
    if time.is_zero() || time > gateway::JOIN_TTL_MAX { Err(refused()) } else { Ok(time) }
}
