//! A command as the CLI shows it: the intent joined with its outcome, in clear text where the keys are there.

use model::{CommandId, ProofMethod, wall_text};
use serde::{Serialize, Serializer};
use serde_json::Value;

use super::transcript::terminal_in;
use super::words;
use crate::output::{Cell, Column, Table, Tone};

/// A command, as `--output json` has it; see `docs/cli.md`.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Row {
    /// `SESSION.N`.
    #[serde(serialize_with = "shown")]
    pub(super) id: CommandId,
    pub(super) session: String,
    pub(super) ordinal: u32,
    #[serde(serialize_with = "time")]
    pub(super) time: i64,
    pub(super) identity: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) proof: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) on_behalf_of: Option<String>,
    pub(super) connection: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) database: Option<String>,
    pub(super) via: &'static str,
    /// None when it cannot be shown; `text_state` says why.
    pub(super) text: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) text_state: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) parameters: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) parameters_state: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) statement: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) transaction: Option<&'static str>,
    /// How exactly it is known.
    pub(super) fidelity: &'static str,
    pub(super) verdict: &'static str,
    /// The rules that matched.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) rules: Vec<String>,
    /// What a policy said of it that only observed, or that break-glass lifted, if that was not the verdict.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) observed: Option<&'static str>,
    /// The break-glass that its sender had opened.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) break_glass: Option<String>,
    /// `pending` while there is no outcome.
    pub(super) status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) code: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) message: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) message_state: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) reason: Option<&'static str>,
    #[serde(flatten)]
    pub(super) measured: Option<Measured>,
}

/// What is known once a command has ended.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Measured {
    /// The first of them; `results_count` has all.
    pub(super) results: Vec<StatementResult>,
    pub(super) results_count: u64,
    pub(super) rows: u64,
    pub(super) bytes_up: u64,
    pub(super) bytes_down: u64,
    pub(super) duration_us: u64,
    /// Whether its effects lasted: an insert can be `ok` and its transaction undone.
    pub(super) effective: &'static str,
}

impl Measured {
    /// Rows as a table shows them: those that were sent, or else those that the tags say were affected.
    fn rows_shown(&self) -> u64 {
        if self.rows > 0 { self.rows } else { self.results.iter().filter_map(|result| result.rows).sum() }
    }

    /// It succeeded, and nothing of it is left.
    fn undone(&self) -> bool {
        self.effective == model::Effective::RolledBack.as_str()
    }
}

/// The result of one statement of a command.
#[derive(Debug, Clone, Serialize)]
pub(super) struct StatementResult {
    pub(super) tag: String,
    pub(super) rows: Option<u64>,
}

impl Row {
    /// The id as tables show it: the end of the session's, and the ordinal.
    /// Whether it is a program with a terminal that has not ended.
    pub(super) fn is_terminal_now(&self) -> bool {
        self.status == "pending" && self.parameters.as_ref().and_then(terminal_in).is_some()
    }

    pub(super) fn short_id(&self) -> String {
        format!("{}.{}", short_session(&self.session), self.ordinal)
    }

    /// What stands in a table for the text.
    pub(super) fn text_or_why(&self) -> (Tone, &str) {
        match (&self.text, self.text_state.as_deref()) {
            (Some(text), _) => (Tone::Plain, text),
            (None, Some(why)) => (Tone::Faint, why),
            (None, None) if self.via == model::Via::Shell.as_str() => (Tone::Faint, "(a shell)"),
            (None, None) => (Tone::Faint, "-"),
        }
    }

    /// The status as a table shows it: with its code or reason.
    pub(super) fn status_cell(&self) -> Cell {
        let tone = tone_of(self.status);
        let undone = self.status == "ok" && self.measured.as_ref().is_some_and(Measured::undone);
        let held = self.status == "pending" && self.verdict == model::Verdict::Hold.as_str();
        let detail = self.code.as_deref().or(self.reason).or(undone.then_some("undone")).or(held.then_some("hold"));
        match detail {
            Some(detail) => Cell::toned(tone, format!("{} {detail}", self.status)),
            None => Cell::toned(tone, self.status),
        }
    }
}

/// How much of a time a table shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Times {
    /// Date and time.
    Full,
    /// The time alone where all rows are of one day, which then is the heading.
    Short,
}

/// The table of commands.
pub(super) fn table(rows: &[Row], times: Times, indent: usize) -> Table {
    let day = match times {
        Times::Full => None,
        Times::Short => one_day(rows),
    };
    let mut table = Table::new([
        Column::text(&day.as_ref().map_or_else(|| "TIME (UTC)".to_owned(), |day| format!("{day}Z"))),
        Column::text("ID"),
        Column::text("WHO"),
        Column::spare("FOR"),
        Column::spare("PROOF"),
        Column::text("CONNECTION"),
        Column::flexible("COMMAND"),
        Column::text("STATUS"),
        Column::number("ROWS"),
        Column::number("TOOK"),
    ])
    .indented(indent);
    for row in rows {
        let time = words::to_the_second(row.time);
        let time = if day.is_some() { time.get(11..).unwrap_or_default() } else { &time };
        table.row(cells(row, time));
    }
    table
}

/// The day of all rows, if it is one.
fn one_day(rows: &[Row]) -> Option<String> {
    let day = |row: &Row| words::to_the_second(row.time).get(..10).map(str::to_owned);
    let first = day(rows.first()?)?;
    rows.iter().all(|row| day(row).as_ref() == Some(&first)).then_some(first)
}

fn cells(row: &Row, time: &str) -> [Cell; 10] {
    let (tone, text) = row.text_or_why();
    // Indentation is for lines of their own; here it would only take room.
    let text: Vec<&str> = text.trim().lines().map(str::trim).collect();
    let mut text = text.join("\n");
    // What was seen is not what was forwarded, and no table may make it look so.
    if row.via == model::Via::Line.as_str() {
        text = format!("[{}] {text}", row.fidelity);
    }
    // What is counted of a program or of files are no rows.
    let affected = |measured: &Measured| if row.transaction.is_some() { measured.rows_shown() } else { measured.rows };
    let rows = row.measured.as_ref().map(affected).filter(|rows| *rows > 0);
    let took = row.measured.as_ref().map(|measured| words::duration(measured.duration_us));
    [
        Cell::toned(Tone::Faint, time),
        Cell::toned(Tone::Faint, row.short_id()),
        Cell::new(&row.identity),
        Cell::new(row.on_behalf_of.as_deref().unwrap_or_default()),
        Cell::toned(Tone::Faint, row.proof.map(brief).unwrap_or_default()),
        Cell::new(&row.connection),
        Cell::toned(tone, text),
        row.status_cell(),
        Cell::new(rows.map(|rows| rows.to_string()).unwrap_or_default()),
        Cell::toned(Tone::Faint, took.unwrap_or_default()),
    ]
}

/// How an identity was proven, in a word.
fn brief(method: &str) -> &str {
    match ProofMethod::parse(method) {
        Some(ProofMethod::ScramSha256 | ProofMethod::ScramSha256Plus) => "key",
        Some(ProofMethod::ConnectionToken) => "token",
        Some(ProofMethod::PublicKey) => "ssh-key",
        Some(ProofMethod::SshCertificate) => "ssh-cert",
        Some(ProofMethod::Jwt | ProofMethod::Certificate) | None => method,
    }
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
