//! `onrecord identities`: who may sign in, who has, from where, and who may no longer.

mod add;

use std::collections::BTreeMap;

use clap::{Args, Subcommand};
use model::IdentityName;
use serde_json::{Value, json};

use super::Context;
use super::asking::{self, number, text, when};
use super::words::counted;
use crate::Failure;
use crate::config::Config;
use crate::control::{Asked, Request, ask as ask_gateway};
use crate::output::{Cell, Column, Format, Table, Tone, single_line};

/// `identities ...`.
#[derive(Debug, Subcommand)]
pub enum Identities {
    /// List the identities that are configured, live, hold a token, or are locked out
    List,
    /// Show what is known of one now
    Show(Show),
    /// Make an identity and its key, and add it to the configuration
    Add(add::Add),
    /// Lock an identity out: its sessions end, its tokens hold no more, nothing lets it in
    Revoke(Change),
    /// Let an identity in again
    Restore(Change),
}

/// Arguments of `identities show`.
#[derive(Debug, Args)]
pub struct Show {
    /// The identity's full name, such as agent:copilot-agent
    identity: IdentityName,
}

/// Arguments of `identities revoke` and `restore`.
#[derive(Debug, Args)]
pub struct Change {
    /// The identity's full name, such as agent:copilot-agent
    identity: IdentityName,
    /// Why; it stays on the record
    #[arg(long, value_name = "TEXT")]
    reason: String,
}

impl Identities {
    /// Does it.
    pub fn run(self, context: &mut Context) -> Result<(), Failure> {
        match self {
            Self::List => list(context),
            Self::Show(Show { identity }) => show(context, &identity),
            Self::Add(add) => add.run(context),
            Self::Revoke(Change { identity, reason }) => {
                let request = Request::IdentityRevoke { identity: identity.to_string(), reason };
                let answer = asking::ask(context, &request)?;
                let sessions = counted(number(&answer, "sessions"), "session", "sessions");
                let tokens = counted(number(&answer, "tokens"), "token", "tokens");
                let restore = format!("onrecord identities restore {identity} --reason ...");
                let said = format!(
                    "{identity} is locked out: {sessions} ended, {tokens} taken back.\n{restore} lets it in again."
                );
                say(context, &answer, &said)
            }
            Self::Restore(Change { identity, reason }) => {
                let request = Request::IdentityRestore { identity: identity.to_string(), reason };
                let answer = asking::ask(context, &request)?;
                say(context, &answer, &format!("{identity} is let in again. It needs new tokens."))
            }
        }
    }
}

fn say(context: &mut Context, answer: &Value, said: &str) -> Result<(), Failure> {
    let console = &mut context.console;
    if console.format() == Format::Table { Ok(console.line(said)?) } else { Ok(console.json(answer)?) }
}

/// An identity as it is configured, and as the running gateway knows it.
#[derive(Default)]
struct Known {
    configured: Option<Value>,
    connections: Vec<String>,
    now: Option<Value>,
}

/// Everybody that anything is known of. Without a running gateway, that is what is configured.
fn everybody(config: &Config) -> Result<BTreeMap<IdentityName, Known>, Failure> {
    let mut all: BTreeMap<IdentityName, Known> = BTreeMap::new();
    for (user, identity) in &config.identities {
        let Some(name) = config.identity_name(user) else { continue };
        all.entry(name).or_default().configured = Some(json!({
            "user": user,
            "on_behalf_of": identity.on_behalf_of.as_ref().map(ToString::to_string),
            "groups": identity.groups,
            "key": identity.secret.is_some(),
        }));
    }
    let asked = ask_gateway(&config.gateway.data, &Request::IdentityList {});
    let answer = match asked {
        Ok(Asked::Answered(answer)) => answer.map_err(|refusal| Failure::new(refusal.message))?,
        // No gateway, or none that this user may ask.
        Ok(Asked::Nobody) | Err(_) => Value::Null,
    };
    for one in answer.get("identities").and_then(Value::as_array).into_iter().flatten() {
        if let Ok(name) = text(one, "name").parse::<IdentityName>() {
            all.entry(name).or_default().now = Some(one.clone());
        }
    }
    for (name, known) in &mut all {
        known.connections = config.connections_of(name).map(|name| name.as_str().to_owned()).collect();
    }
    Ok(all)
}

impl Known {
    fn json(&self, name: &IdentityName) -> Value {
        let configured = self.configured.as_ref();
        let of = |key: &str| configured.and_then(|one| one.get(key)).cloned().unwrap_or(Value::Null);
        let now = |key: &str| self.now.as_ref().and_then(|one| one.get(key)).cloned();
        json!({
            "name": name.to_string(),
            "kind": name.kind().to_string(),
            "user": of("user"),
            "on_behalf_of": of("on_behalf_of"),
            "groups": of("groups"),
            "connections": self.connections,
            "sessions": now("sessions").unwrap_or(json!(0)),
            "credentials": now("credentials").unwrap_or(json!([])),
            "tokens": now("tokens").unwrap_or(json!([])),
            "revoked": now("revoked").unwrap_or(Value::Null),
        })
    }

    fn list<'a>(&'a self, key: &str) -> impl Iterator<Item = &'a Value> {
        self.now.iter().filter_map(move |one| one.get(key)?.as_array()).flatten()
    }

    fn revoked(&self) -> Option<&Value> {
        self.now.as_ref()?.get("revoked").filter(|revoked| !revoked.is_null())
    }

    /// The places of the credentials that are in use in several.
    fn shared(&self) -> Vec<String> {
        let shared = self.list("credentials").filter(|one| one.get("shared").and_then(Value::as_bool) == Some(true));
        shared.map(places).collect()
    }
}

/// From where a credential is in use, and by which runs.
fn places(credential: &Value) -> String {
    let all = |key: &str| {
        let values = credential.get(key).and_then(Value::as_array).into_iter().flatten();
        values.filter_map(Value::as_str).collect::<Vec<_>>().join(", ")
    };
    match (all("sources"), all("runs")) {
        (sources, runs) if runs.is_empty() => sources,
        (sources, runs) => format!("{sources} ({runs})"),
    }
}

fn list(context: &mut Context) -> Result<(), Failure> {
    let config = context.load()?;
    let all = everybody(&config)?;
    let console = &mut context.console;
    if console.format() != Format::Table {
        return console.json_list(all.iter().map(|(name, known)| Ok(known.json(name))));
    }
    let mut table = Table::new([
        Column::text("IDENTITY"),
        Column::text("ON BEHALF OF"),
        Column::number("SESSIONS"),
        Column::number("TOKENS"),
        Column::text("CONNECTIONS"),
        Column::flexible("STATE"),
    ]);
    for (name, known) in &all {
        let on_behalf_of = known.configured.as_ref().map(|one| text(one, "on_behalf_of")).unwrap_or_default();
        let sessions = known.now.as_ref().map_or(0, |one| number(one, "sessions"));
        let connections = if known.connections.is_empty() {
            Cell::toned(Tone::Faint, "by group, or none")
        } else {
            Cell::new(known.connections.join(", "))
        };
        let state = match (known.revoked(), known.shared()) {
            (Some(revoked), _) => Cell::toned(Tone::Bad, format!("locked out: {}", text(revoked, "reason"))),
            (None, shared) if !shared.is_empty() => {
                Cell::toned(Tone::Warning, format!("one credential in use from {}", shared.join("; ")))
            }
            (None, _) => Cell::new(""),
        };
        table.row([
            Cell::toned(Tone::Strong, name.to_string()),
            Cell::new(on_behalf_of),
            Cell::new(sessions.to_string()),
            Cell::new(known.list("tokens").count().to_string()),
            connections,
            state,
        ]);
    }
    if table.is_empty() {
        console.line("No identities. `onrecord identities add NAME` makes one; an issuer's tokens bring others.")?;
    }
    Ok(console.table(&table)?)
}

fn show(context: &mut Context, name: &IdentityName) -> Result<(), Failure> {
    let config = context.load()?;
    let all = everybody(&config)?;
    let Some(known) = all.get(name) else {
        return Err(Failure::not_found(format_args!("nothing is known of {name} now"))
            .hint("`onrecord commands --identity` finds what it did; `onrecord identities list` shows who is known"));
    };
    let console = &mut context.console;
    if console.format() != Format::Table {
        return Ok(console.json(&known.json(name))?);
    }
    console.line(&console.paint(Tone::Strong, &name.to_string()))?;
    if let Some(configured) = &known.configured {
        let key = configured.get("key").and_then(Value::as_bool) == Some(true);
        let how = if key { "with a key of its own" } else { "without a key" };
        console.line(&format!("configured   {how}, user {}", text(configured, "user")))?;
        if !text(configured, "on_behalf_of").is_empty() {
            console.line(&format!("on behalf of {} (claimed)", text(configured, "on_behalf_of")))?;
        }
    }
    if !known.connections.is_empty() {
        console.line(&format!("connections  {}", known.connections.join(", ")))?;
    }
    if let Some(revoked) = known.revoked() {
        let said = format!("{} by {}: {}", when(text(revoked, "time")), text(revoked, "by"), text(revoked, "reason"));
        console.line(&format!("locked out   {}", console.paint(Tone::Bad, &single_line(&said))))?;
    }
    for one in known.list("credentials") {
        let shared = one.get("shared").and_then(Value::as_bool) == Some(true);
        let sessions = counted(number(one, "sessions"), "session", "sessions");
        let said = format!("{}: {sessions} from {}", text(one, "credential"), places(one));
        let said = single_line(&said).into_owned();
        let said = if shared { console.paint(Tone::Warning, &format!("{said}, shared")) } else { said };
        console.line(&format!("in use       {said}"))?;
    }
    for one in known.list("tokens") {
        let (id, connection) = (text(one, "id"), text(one, "connection"));
        console.line(&format!("token        {id} for {connection}, until {}", when(text(one, "expires"))))?;
    }
    Ok(())
}
