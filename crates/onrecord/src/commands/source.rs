//! From the store's readers to what the CLI shows, and from what people call an id to the id.

use std::path::Path;
use std::sync::Arc;

use evidence::Content;
use model::{CommandId, EraseCause, Label, SessionId};
use serde_json::Value;
use store::{
    CommandStatus, CommandView, Commands, Erasure, Filter, LocalKey, Opened, Reader, RealDisk, SessionView, WrappingKey,
};

use super::row::{Measured, Row, StatementResult};
use super::selection::Selection;
use super::words;
use crate::Failure;

/// Opens the record in a data directory.
pub(super) fn open(data: &Path, key: Option<&LocalKey>) -> Result<Reader, Failure> {
    let key = key.map(|key| key as &dyn WrappingKey);
    Reader::with(Arc::new(RealDisk::new(data)), key).map_err(|error| {
        Failure::new(format_args!("cannot read the record in {}: {error}", data.display()))
            .hint("--data DIR names a data directory, --config FILE a configuration that does")
    })
}

/// The selected commands.
pub(super) fn commands(reader: &Reader, selection: &Selection) -> Result<Commands, Failure> {
    Ok(store::commands(reader, filter(reader, selection)?))
}

/// One command.
pub(super) fn command(reader: &Reader, id: CommandId) -> Result<CommandView, Failure> {
    let selection = Selection { session: Some(id.session.to_string()), ..Selection::default() };
    let mut found = None;
    for view in commands(reader, &selection)? {
        let view = view.map_err(unreadable)?;
        if view.id == id {
            found = Some(view);
        }
    }
    found.ok_or_else(|| {
        Failure::not_found(format_args!("there is no command {id} in this record"))
            .hint("`onrecord commands --session ID` lists a session's")
    })
}

/// One command, by what names it.
pub(super) fn command_named(reader: &Reader, id: &str) -> Result<CommandView, Failure> {
    match named(reader, id)? {
        Named::Command(id) => command(reader, id),
        Named::Session(_) => {
            Err(Failure::usage(format_args!("{id} is a session")).hint("`onrecord show ID` lists a session's commands"))
        }
    }
}

/// The selected sessions.
pub(super) fn sessions(reader: &Reader, selection: &Selection) -> Result<Vec<SessionView>, Failure> {
    store::sessions(reader, &filter(reader, selection)?).map_err(unreadable)
}

/// An error while reading, in the CLI's words.
pub(super) fn unreadable(error: store::StoreError) -> Failure {
    Failure::new(error).hint("`onrecord verify` says what is wrong with the record")
}

/// What an id names.
pub(super) enum Named {
    Command(CommandId),
    Session(SessionId),
}

/// What a full id, or the end of a session's id with or without `.N`, names in this record.
pub(super) fn named(reader: &Reader, id: &str) -> Result<Named, Failure> {
    let id = id.trim();
    match id.split_once('.') {
        None => Ok(Named::Session(session(reader, id)?)),
        Some((text, ordinal)) => {
            let session = session(reader, text)?;
            let command: Result<CommandId, _> = format!("{session}.{ordinal}").parse();
            command.map(Named::Command).map_err(|error| Failure::usage(format_args!("{id:?}: {error}")))
        }
    }
}

/// The session that this id, or the end of one, names.
pub(super) fn session(reader: &Reader, id: &str) -> Result<SessionId, Failure> {
    let wanted = id.trim().to_ascii_uppercase();
    let digits = wanted.bytes().all(|byte| byte.is_ascii_alphanumeric());
    if !(4..=26).contains(&wanted.len()) || !digits {
        return Err(Failure::usage(format_args!("{id:?} is not an id"))
            .hint("write a whole id, or at least the last 4 characters of a session's, as the tables show them"));
    }
    let all = store::sessions(reader, &Filter::default()).map_err(unreadable)?;
    let mut found = all.iter().map(|view| view.id).filter(|id| id.to_string().ends_with(&wanted));
    match (found.next(), found.next()) {
        (Some(only), None) => Ok(only),
        (None, _) => Err(Failure::not_found(format_args!("there is no session {id} in this record"))),
        (Some(_), Some(_)) => {
            Err(Failure::usage(format_args!("several sessions end in {id}")).hint("write more of the id, or all of it"))
        }
    }
}

/// Why content cannot be shown in full; none when it can, or when there is none.
pub(super) fn state(content: &Opened) -> Option<String> {
    match content {
        Opened::Bytes(_) | Opened::Absent(model::AbsentReason::None) => None,
        Opened::Absent(reason) => Some(format!("({reason})")),
        Opened::Blob { head, length, .. } => Some(format!("(the first {} of {length} bytes)", head.len())),
        Opened::Erased(None) => Some("(erased)".to_owned()),
        Opened::Erased(Some(erasure)) => Some(format!("(erased {})", erased(erasure))),
        Opened::NoKey => Some("(sealed: its key cannot be read here)".to_owned()),
        Opened::Damaged => Some("(damaged)".to_owned()),
    }
}

/// When, by whom and why something was erased.
pub(super) fn erased(erasure: &Erasure) -> String {
    let (time, by) = (words::to_the_second(erasure.time.wall_us), &erasure.by.name);
    let why = match erasure.cause {
        EraseCause::Request => "because",
        EraseCause::Retention => "by the rule",
    };
    format!("{time} UTC by {by}, {why}: {}", erasure.reason)
}

impl From<CommandView> for Row {
    fn from(view: CommandView) -> Self {
        let status = view.status().as_str();
        let outcome = view.outcome.as_ref();
        Self {
            session: view.id.session.to_string(),
            ordinal: view.id.ordinal,
            time: view.time.wall_us,
            identity: view.who.name.to_string(),
            proof: view.proof.map(|method| method.as_str()),
            on_behalf_of: view.who.on_behalf_of.as_ref().map(|principal| principal.name.to_string()),
            connection: view.connection.clone(),
            database: view.database.as_ref().map(Label::to_string),
            via: view.via.as_str(),
            text: text(&view.text),
            text_state: state(&view.text),
            parameters: json(&view.parameters),
            parameters_state: state(&view.parameters),
            statement: view.statement.as_ref().map(Label::to_string).filter(|name| !name.is_empty()),
            transaction: view.transaction.map(model::Transaction::as_str),
            fidelity: view.fidelity.as_str(),
            verdict: view.verdict.as_str(),
            rules: view.rules.clone(),
            observed: view.observed.map(model::Verdict::as_str),
            break_glass: view.break_glass.map(|id| id.to_string()),
            status,
            code: outcome.and_then(|outcome| outcome.code.clone()),
            message: outcome.and_then(|outcome| text(&outcome.message)),
            message_state: outcome.and_then(|outcome| state(&outcome.message)),
            reason: outcome.and_then(|outcome| outcome.reason).map(model::Reason::as_str),
            measured: outcome.map(|outcome| Measured {
                results: outcome
                    .results
                    .iter()
                    .map(|result| StatementResult { tag: result.tag.clone(), rows: result.rows })
                    .collect(),
                results_count: outcome.results_count,
                rows: outcome.rows,
                bytes_up: outcome.bytes_up,
                bytes_down: outcome.bytes_down,
                duration_us: outcome.duration_us,
                effective: outcome.effective.as_str(),
            }),
            id: view.id,
        }
    }
}

fn filter(reader: &Reader, selection: &Selection) -> Result<Filter, Failure> {
    Ok(Filter {
        identity: selection.identity.clone(),
        connection: selection.connection.clone(),
        session: selection.session.as_deref().map(|id| session(reader, id)).transpose()?,
        status: selection.status,
        verdict: selection.verdict,
        break_glass: selection.break_glass,
        since_us: selection.since_us,
        until_us: selection.until_us,
        contains: selection.contains.clone(),
        claim: selection.claim.clone(),
    })
}

/// A selection as a command line would say it, with whole ids and points in time.
pub(super) fn spelled(reader: &Reader, selection: &Selection) -> Result<String, Failure> {
    let Filter { identity, connection, session, status, verdict, break_glass, since_us, until_us, contains, claim } =
        filter(reader, selection)?;
    let words = [
        ("identity", identity),
        ("connection", connection),
        ("session", session.map(|session| session.to_string())),
        ("status", status.map(|status| status.as_str().to_owned())),
        ("verdict", verdict.map(|verdict| verdict.as_str().to_owned())),
        ("break-glass", break_glass.map(|id| id.to_string())),
        ("since", since_us.map(model::wall_text)),
        ("until", until_us.map(model::wall_text)),
        ("contains", contains),
        ("claim", claim.map(|(name, value)| format!("{name}={value}"))),
    ];
    let words = words.into_iter().filter_map(|(name, value)| Some(format!("--{name} {}", quoted(&value?))));
    Ok(words.collect::<Vec<_>>().join(" "))
}

/// A word as a shell takes it.
fn quoted(word: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b':' | b'@' | b'/');
    if !word.is_empty() && word.bytes().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', "'\\''"))
    }
}

impl From<&evidence::Command> for Row {
    fn from(command: &evidence::Command) -> Self {
        let intent = &command.intent;
        let outcome = command.outcome.as_ref();
        let text = |content: &Content| content.text().map(std::borrow::Cow::into_owned);
        let state = |content: &Content| content.state().map(|state| format!("({state})"));
        let json = |content: &Content| match content {
            Content::Disclosed(bytes) => serde_json::from_slice(bytes).ok(),
            Content::Absent(_) | Content::Withheld | Content::Erased | Content::Damaged => None,
        };
        Self {
            session: intent.command.session.to_string(),
            ordinal: intent.command.ordinal,
            time: command.time.wall_us,
            identity: intent.who.name.to_string(),
            proof: command.proof.map(|method| method.as_str()),
            on_behalf_of: intent.who.on_behalf_of.as_ref().map(|principal| principal.name.to_string()),
            connection: intent.connection.clone(),
            database: intent.database.as_ref().map(Label::to_string),
            via: intent.via.as_str(),
            text: text(&command.text),
            text_state: state(&command.text),
            parameters: json(&command.parameters),
            parameters_state: state(&command.parameters),
            statement: intent.statement.as_ref().map(Label::to_string).filter(|name| !name.is_empty()),
            transaction: intent.transaction.map(model::Transaction::as_str),
            fidelity: intent.fidelity.as_str(),
            verdict: intent.verdict.as_str(),
            rules: intent.rules.clone(),
            observed: intent.observed.map(model::Verdict::as_str),
            break_glass: intent.break_glass.map(|id| id.to_string()),
            status: outcome.map_or(CommandStatus::Pending, |outcome| CommandStatus::Ended(outcome.status)).as_str(),
            code: outcome.and_then(|outcome| outcome.code.clone()),
            message: text(&command.message),
            message_state: state(&command.message),
            reason: outcome.and_then(|outcome| outcome.reason).map(model::Reason::as_str),
            measured: outcome.map(|outcome| Measured {
                results: outcome
                    .results
                    .iter()
                    .map(|result| StatementResult { tag: result.tag.clone(), rows: result.rows })
                    .collect(),
                results_count: outcome.results_count,
                rows: outcome.rows,
                bytes_up: outcome.bytes_up,
                bytes_down: outcome.bytes_down,
                duration_us: outcome.duration_us,
                effective: outcome.effective.as_str(),
            }),
            id: intent.command,
        }
    }
}

fn text(content: &Opened) -> Option<String> {
    content.text().map(std::borrow::Cow::into_owned)
}

/// Parameters are kept as a JSON array.
fn json(content: &Opened) -> Option<Value> {
    match content {
        Opened::Bytes(bytes) => serde_json::from_slice(bytes).ok(),
        Opened::Blob { .. } | Opened::Absent(_) | Opened::Erased(_) | Opened::NoKey | Opened::Damaged => None,
    }
}
