//! A command as the CLI shows it: the intent joined with its outcome, in clear text where the keys are there.

use model::{CommandId, wall_text};
use serde::{Serialize, Serializer};
use serde_json::Value;

use super::words;
use crate::output::{Cell, Column, Table, Tone};

/// A command, as `--output json` has it; see `docs/cli.md`.
#[derive(Debug, Clone, Serialize)]
pub struct Row {
    /// `SESSION.N`.
    #[serde(serialize_with = "shown")]
    pub id: CommandId,
    pub session: String,
    pub ordinal: u32,
    #[serde(serialize_with = "time")]
    pub time: i64,
    pub identity: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub on_behalf_of: Option<String>,
    pub connection: String,
    pub database: String,
    pub via: &'static str,
    /// None when it cannot be shown; `text_state` says why.
    pub text: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text_state: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parameters: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parameters_state: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub statement: Option<String>,
    pub transaction: &'static str,
    pub verdict: &'static str,
    /// `pending` while there is no outcome.
    pub status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<&'static str>,
    #[serde(flatten)]
    pub measured: Option<Measured>,
}

/// What is known once a command has ended.
#[derive(Debug, Clone, Serialize)]
pub struct Measured {
    pub results: Vec<StatementResult>,
    pub rows: u64,
    pub bytes_up: u64,
    pub bytes_down: u64,
    pub duration_us: u64,
}

/// The result of one statement of a command.
#[derive(Debug, Clone, Serialize)]
pub struct StatementResult {
    pub tag: String,
    pub rows: Option<u64>,
}

impl Row {
    /// The id as tables show it: the end of the session's, and the ordinal.
    pub fn short_id(&self) -> String {
        format!("{}.{}", short_session(&self.session), self.ordinal)
    }

    /// What stands in a table for the text.
    pub fn text_or_why(&self) -> (Tone, &str) {
        match (&self.text, self.text_state) {
            (Some(text), _) => (Tone::Plain, text),
            (None, Some(why)) => (Tone::Faint, why),
            (None, None) => (Tone::Faint, "-"),
        }
    }

    /// The status as a table shows it: with its code or reason.
    pub fn status_cell(&self) -> Cell {
        let tone = tone_of(self.status);
        let detail = self.code.as_deref().or(self.reason);
        match detail {
            Some(detail) => Cell::toned(tone, format!("{} {detail}", self.status)),
            None => Cell::toned(tone, self.status),
        }
    }
}

/// The table of commands.
pub(super) fn table(rows: &[Row], indent: usize) -> Table {
    let mut table = Table::new([
        Column::text("TIME (UTC)"),
        Column::text("ID"),
        Column::text("WHO"),
        Column::text("CONNECTION"),
        Column::flexible("COMMAND"),
        Column::text("STATUS"),
        Column::number("ROWS"),
        Column::number("TOOK"),
    ])
    .indented(indent);
    for row in rows {
        table.row(cells(row));
    }
    table
}

fn cells(row: &Row) -> [Cell; 8] {
    let (tone, text) = row.text_or_why();
    let rows = row.measured.as_ref().map(|measured| measured.rows).filter(|rows| *rows > 0);
    let took = row.measured.as_ref().map(|measured| words::duration(measured.duration_us));
    [
        Cell::toned(Tone::Faint, words::to_the_second(row.time)),
        Cell::toned(Tone::Faint, row.short_id()),
        Cell::new(&row.identity),
        Cell::new(&row.connection),
        Cell::toned(tone, text.trim()),
        row.status_cell(),
        Cell::new(rows.map(|rows| rows.to_string()).unwrap_or_default()),
        Cell::toned(Tone::Faint, took.unwrap_or_default()),
    ]
}

/// How a status looks.
pub(super) fn tone_of(status: &str) -> Tone {
    match status {
        "ok" => Tone::Good,
        "error" | "denied" => Tone::Bad,
        "pending" | "skipped" => Tone::Faint,
        _ => Tone::Warning,
    }
}

/// The end of a session's id, which is random and therefore tells sessions apart at a glance.
pub(super) fn short_session(session: &str) -> &str {
    session.get(session.len().saturating_sub(6)..).unwrap_or(session)
}

fn shown<S: Serializer>(id: &CommandId, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(id)
}

fn time<S: Serializer>(wall_us: &i64, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(&wall_text(*wall_us))
}
