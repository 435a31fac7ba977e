//! `onrecord sessions`: the list of sessions, newest last.

use clap::Args;
use model::{Claim, Evidence, Identity, wall_text};
use serde_json::{Value, json};
use store::SessionView;

use super::Context;
use super::row::short_session;
use super::selection::SessionSelection;
use super::{source, words};
use crate::Failure;
use crate::cli::RecordPlace;
use crate::output::{Cell, Column, Format, Table, Tone};

/// Arguments of `sessions`.
#[derive(Debug, Args)]
pub struct Sessions {
    #[command(flatten)]
    selection: SessionSelection,
    /// The newest so many; 0 is all
    #[arg(long, short = 'n', value_name = "N", default_value_t = 50)]
    limit: usize,
    #[command(flatten)]
    place: RecordPlace,
}

impl Sessions {
    /// Does it.
    pub fn run(self, context: &mut Context) -> Result<(), Failure> {
        let reader = context.reader(&self.place)?;
        let mut sessions = source::sessions(&reader, &self.selection.into())?;
        if self.limit > 0 {
            sessions.drain(..sessions.len().saturating_sub(self.limit));
        }
        let console = &mut context.console;
        if console.format() != Format::Table {
            return console.json_list(sessions.iter().map(|session| Ok(as_json(session))));
        }
        if sessions.is_empty() {
            console.line(&console.paint(Tone::Faint, "No sessions."))?;
        }
        Ok(console.table(&table(&sessions))?)
    }
}

/// A session as `--output json` has it; see `docs/cli.md`.
pub(super) fn as_json(session: &SessionView) -> Value {
    let principal = session.identity.on_behalf_of.as_ref();
    json!({
        "id": session.id.to_string(),
        "time": wall_text(session.time.wall_us),
        "identity": session.identity.name.to_string(),
        "identity_known": session.identity.known.as_str(),
        "proof": session.identity.proof.method.as_str(),
        "credential": session.identity.proof.credential,
        "evidence": evidence(&session.identity),
        "groups": session.identity.groups,
        "run": session.identity.run.as_ref().map(|run| &run.id),
        "run_known": session.identity.run.as_ref().map(|run| run.known.as_str()),
        "on_behalf_of": principal.map(|principal| principal.name.to_string()),
        "on_behalf_of_known": principal.map(|principal| principal.known.as_str()),
        "connection": session.open.connection,
        "database": session.open.database.as_ref().map(ToString::to_string),
        "protocol": session.open.protocol,
        "upstream_user": session.open.upstream_user,
        "client": session.open.client,
        "tls": session.open.tls,
        "upstream": session.open.upstream.map(|upstream| upstream.as_str()),
        "outpost": session.open.outpost.as_ref().map(|outpost| &outpost.name),
        "claims": claims(&session.open.claims),
        "durability": session.open.durability.as_str(),
        "commands": session.intents,
        "state": session.close.as_ref().map_or("open", |close| close.reason.as_str()),
        "ended": session.close.as_ref().map(|close| wall_text(close.time.wall_us)),
        "bytes_up": session.close.as_ref().map(|close| close.bytes_up),
        "bytes_down": session.close.as_ref().map(|close| close.bytes_down),
    })
}

/// What was said and nobody checked.
pub(super) fn claims(claims: &[Claim]) -> Vec<Value> {
    claims.iter().map(|claim| json!({"name": claim.name.to_string(), "value": claim.value.to_string()})).collect()
}

/// What was checked of a credential, as its entry has it.
fn evidence(identity: &Identity) -> Value {
    match &identity.proof.evidence {
        None => Value::Null,
        Some(Evidence::Token(token)) => json!({
            "issuer": token.issuer,
            "subject": token.subject,
            "audience": token.audience,
            "client": token.client,
            "jti": token.jti,
            "expires": token.expires,
            "actors": token.actors,
            "kid": token.kid,
            "algorithm": token.algorithm,
            "key_thumbprint": token.key.hex(),
            "token_sha256": token.token.hex(),
            "rule": token.rule,
            "claims": token.claims,
        }),
        Some(Evidence::Certificate(certificate)) => json!({
            "subject": certificate.subject,
            "names": certificate.names,
            "issuer": certificate.issuer,
            "serial": certificate.serial,
            "sha256": certificate.sha256.hex(),
            "rule": certificate.rule,
        }),
    }
}

fn table(sessions: &[SessionView]) -> Table {
    let mut table = Table::new([
        Column::text("BEGAN (UTC)"),
        Column::text("ID"),
        Column::text("WHO"),
        Column::text("CONNECTION"),
        Column::flexible("FROM"),
        Column::number("COMMANDS"),
        Column::text("ENDED"),
        Column::number("LASTED"),
    ]);
    for session in sessions {
        let (ended, lasted) = match &session.close {
            None => (Cell::toned(Tone::Good, "open"), String::new()),
            Some(close) => (
                Cell::toned(tone_of(close.reason), close.reason.as_str()),
                words::duration(close.time.boot_us.saturating_sub(session.time.boot_us)),
            ),
        };
        table.row([
            Cell::toned(Tone::Faint, words::to_the_second(session.time.wall_us)),
            Cell::toned(Tone::Faint, short_session(&session.id.to_string())),
            Cell::new(session.identity.name.as_str()),
            Cell::new(&session.open.connection),
            Cell::new(&session.open.client),
            Cell::new(session.intents.to_string()),
            ended,
            Cell::toned(Tone::Faint, lasted),
        ]);
    }
    table
}

/// How the end of a session looks.
pub(super) fn tone_of(reason: model::SessionEnd) -> Tone {
    use model::SessionEnd;
    match reason {
        SessionEnd::ClientClosed | SessionEnd::GatewayStopped | SessionEnd::Idle => Tone::Plain,
        SessionEnd::ClientGone | SessionEnd::UpstreamClosed | SessionEnd::UpstreamGone => Tone::Warning,
        SessionEnd::Revoked | SessionEnd::NotPermitted | SessionEnd::Killed | SessionEnd::OutpostLost => Tone::Warning,
        SessionEnd::Violation | SessionEnd::GatewayFault | SessionEnd::RecordingStopped | SessionEnd::Lost => Tone::Bad,
    }
}
