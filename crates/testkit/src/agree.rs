//! Holds accounts of what happened against each other: what the client says that it did, what the
//! record says, and what the server's own log says ran.

use serde_json::Value;

use crate::{Command, Ran, Record};

/// One command as a client tells it. What the client cannot know is not compared.
#[derive(Clone, Debug)]
pub struct Told(Value);

impl Told {
    /// Reads the lines of JSON that a client script prints.
    #[track_caller]
    pub fn parse(output: &str) -> Vec<Told> {
        let line = |l: &str| Told(serde_json::from_str(l).unwrap_or_else(|e| panic!("{e} in script output: {l}")));
        output.lines().filter(|l| !l.trim().is_empty()).map(line).collect()
    }

    /// One told command with whatever members its teller knows.
    pub fn from_json(value: Value) -> Told {
        Told(value)
    }

    /// A command told by a test itself.
    pub fn new(text: &str, status: &str, code: Option<&str>) -> Told {
        Told(serde_json::json!({"text": text, "status": status, "code": code}))
    }

    fn text(&self) -> &str {
        self.0["text"].as_str().expect("a told command has a text")
    }

    fn status(&self) -> &str {
        self.0["status"].as_str().expect("a told command has a status")
    }

    fn code(&self) -> Option<&str> {
        self.0["code"].as_str()
    }

    fn parameters(&self) -> Option<Vec<Option<String>>> {
        let list = self.0.get("params")?.as_array()?;
        Some(list.iter().map(|p| p.as_str().map(str::to_owned)).collect())
    }

    /// Whether the server got to see it.
    fn reached_server(&self) -> bool {
        !matches!(self.status(), "skipped" | "denied")
    }

    fn line(&self) -> String {
        line(self.status(), self.code(), self.text(), self.parameters(), self.0["rows"].as_u64())
    }

    fn matches(&self, command: &Command) -> bool {
        let tags = || self.0["tags"].as_array().unwrap().iter().map(|t| t.as_str().unwrap());
        self.text() == command.text()
            && self.status() == command.status()
            && self.code() == command.code()
            && self.parameters().is_none_or(|p| Some(p) == command.parameters())
            && (self.0["rows"].is_null() || self.0["rows"].as_u64() == command.rows())
            && (self.0["via"].is_null() || self.0["via"].as_str() == command.str("via"))
            && (self.0["tags"].is_null() || tags().eq(command.tags()))
    }

    fn ran_as(&self, ran: &Ran) -> bool {
        let same_parameters = match (self.parameters(), &ran.parameters) {
            (Some(told), Some(logged)) => told == *logged,
            _ => true,
        };
        self.text() == ran.text && self.code() == ran.code.as_deref() && same_parameters
    }
}

/// The record must hold exactly what the client did: every command, in order, with its outcome.
#[track_caller]
pub fn record_holds(told: &[Told], record: &Record) {
    let record_line = |c: &Command| line(c.status(), c.code(), c.text(), c.parameters(), c.rows());
    compare("the client", told, Told::line, "the record", &record.commands, record_line, Told::matches);
}

/// The server's log must show exactly what the client did, but for what never reached the server.
#[track_caller]
pub fn server_ran(told: &[Told], ran: &[Ran]) {
    let reached: Vec<Told> = told.iter().filter(|t| t.reached_server()).cloned().collect();
    compare("the client", &reached, Told::line, "the server", ran, ran_line, Told::ran_as);
}

/// What succeeded by the record and what succeeded by the server's log must be the same texts in
/// the same order. A portal that was bound and never executed is on the record, and is nothing that
/// the server logs.
#[track_caller]
pub fn succeeded_alike(record: &Record, ran: &[Ran]) {
    let (recorded, ran) = (succeeded(record), ran_well(ran));
    compare("the record", &recorded, escaped, "the server", &ran, escaped, |a, b| a == b);
}

/// As [`succeeded_alike`], in any order: the record has commands in the order of their Binds, the
/// server in that of their Executes, which may have other commands between them.
#[track_caller]
pub fn succeeded_as_often(record: &Record, ran: &[Ran]) {
    let (mut recorded, mut ran) = (succeeded(record), ran_well(ran));
    recorded.sort();
    ran.sort();
    compare("the record", &recorded, escaped, "the server", &ran, escaped, |a, b| a == b);
}

fn succeeded(record: &Record) -> Vec<String> {
    let executed = |c: &&Command| c.status() == "ok" && (!c.tags().is_empty() || c.rows() > Some(0));
    record.commands.iter().filter(executed).map(|c| c.text().to_owned()).collect()
}

fn ran_well(ran: &[Ran]) -> Vec<String> {
    ran.iter().filter(|r| r.code.is_none()).map(|r| r.text.clone()).collect()
}

#[expect(clippy::ptr_arg, reason = "called with items of a list of strings")]
fn escaped(text: &String) -> String {
    text.escape_debug().to_string()
}

fn ran_line(ran: &Ran) -> String {
    let status = if ran.code.is_some() { "error" } else { "ok" };
    line(status, ran.code.as_deref(), &ran.text, ran.parameters.clone(), None)
}

#[track_caller]
fn compare<A, B>(
    left_name: &str,
    left: &[A],
    left_line: impl Fn(&A) -> String,
    right_name: &str,
    right: &[B],
    right_line: impl Fn(&B) -> String,
    same: impl Fn(&A, &B) -> bool,
) {
    let first = left.iter().zip(right).position(|(l, r)| !same(l, r));
    let Some(first) = first.or((left.len() != right.len()).then(|| left.len().min(right.len()))) else {
        return;
    };
    let list = |lines: Vec<String>| {
        let shown = lines.iter().enumerate().skip(first.saturating_sub(3)).take(12);
        let mark = |at| if at == first { '>' } else { ' ' };
        shown.map(|(at, line)| format!("{} {at:3} {line}\n", mark(at))).collect::<String>()
    };
    panic!(
        "{left_name} ({}) and {right_name} ({}) differ at {first}\n{left_name}:\n{}{right_name}:\n{}",
        left.len(),
        right.len(),
        list(left.iter().map(left_line).collect()),
        list(right.iter().map(right_line).collect()),
    );
}

fn line(
    status: &str,
    code: Option<&str>,
    text: &str,
    parameters: Option<Vec<Option<String>>>,
    rows: Option<u64>,
) -> String {
    let text: String = text.chars().take(120).collect();
    let parameters = parameters.filter(|p| !p.is_empty()).map(|p| format!(" {p:?}"));
    let rows = rows.map(|r| format!(" rows={r}")).unwrap_or_default();
    let parameters: String = parameters.unwrap_or_default().chars().take(200).collect();
    format!("{status:9} {:5} {}{parameters}{rows}", code.unwrap_or(""), text.escape_debug())
}
