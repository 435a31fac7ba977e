//! The server's own account of what ran, read from its csvlog.

use std::collections::BTreeMap;

/// One command as the server logged it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ran {
    /// The server's id of the session.
    pub session: String,
    /// The backend's process id.
    pub pid: u32,
    /// The text that ran.
    pub text: String,
    /// Parameters of an extended execution, as the types print them.
    pub parameters: Option<Vec<Option<String>>>,
    /// SQLSTATE when it failed.
    pub code: Option<String>,
}

/// The lines of a csvlog.
#[derive(Debug)]
pub struct ServerLog {
    lines: Vec<Vec<String>>,
}

impl ServerLog {
    /// Reads the text of a csvlog file.
    pub fn parse(text: &str) -> ServerLog {
        let lines = csv(text).into_iter().filter(|l| l.len() > COLUMN_BACKEND).collect();
        ServerLog { lines }
    }

    /// What ran in one database, sessions in the order in which they began.
    ///
    /// A statement is logged before it runs. A duration line says that it succeeded; an error with
    /// no statement under way is a refused Parse or Bind, or text that is no SQL.
    pub fn ran(&self, database: &str) -> Vec<Ran> {
        let mut order = Vec::new();
        let mut sessions: BTreeMap<&str, (Vec<Ran>, State)> = BTreeMap::new();
        // Parallel workers log the errors of the backend that they work for once more.
        let client = |l: &&Vec<String>| l[COLUMN_BACKEND] == "client backend";
        let here = |l: &&Vec<String>| l[COLUMN_DATABASE] == database;
        for line in self.lines.iter().filter(here).filter(client) {
            let id = line[COLUMN_SESSION].as_str();
            if !sessions.contains_key(id) {
                order.push(id);
            }
            let (ran, state) = sessions.entry(id).or_insert((Vec::new(), State::Closed));
            read_line(line, ran, state);
        }
        order.into_iter().flat_map(|id| sessions.remove(id).unwrap().0).collect()
    }

    /// Sessions that authenticated in this database.
    pub fn sessions(&self, database: &str) -> usize {
        let authorized = |l: &&Vec<String>| l[COLUMN_MESSAGE].starts_with("connection authorized:");
        let here = |l: &&Vec<String>| l[COLUMN_DATABASE] == database;
        self.lines.iter().filter(here).filter(authorized).count()
    }
}

#[derive(Clone, Copy, PartialEq)]
enum State {
    /// The last statement logged may still fail.
    Running,
    Closed,
}

fn read_line(line: &[String], ran: &mut Vec<Ran>, state: &mut State) {
    let message = line[COLUMN_MESSAGE].as_str();
    let entry = |text: &str, parameters| Ran {
        session: line[COLUMN_SESSION].clone(),
        pid: line[COLUMN_PID].parse().unwrap_or(0),
        text: text.to_owned(),
        parameters,
        code: None,
    };
    match line[COLUMN_SEVERITY].as_str() {
        "LOG" if message.starts_with("duration: ") => *state = State::Closed,
        "LOG" if message.starts_with("execute fetch from ") => *state = State::Running,
        "LOG" => {
            let simple = message.strip_prefix("statement: ");
            let extended =
                message.strip_prefix("execute ").and_then(|rest| rest.split_once(": ")).map(|(_, text)| text);
            if message.starts_with("fastpath function call: ") {
                // The protocol's function call has no text.
                ran.push(entry("", None));
                *state = State::Running;
            } else if let Some(text) = simple {
                ran.push(entry(text, None));
                *state = State::Running;
            } else if let Some(text) = extended {
                ran.push(entry(text, Some(parameters(&line[COLUMN_DETAIL]))));
                *state = State::Running;
            }
        }
        "ERROR" | "FATAL" | "PANIC" => {
            let code = Some(line[COLUMN_CODE].clone());
            let text = line[COLUMN_QUERY].as_str();
            match ran.last_mut() {
                Some(last) if *state == State::Running => last.code = code,
                // Refused at Sync: the statement had already been reported as done.
                Some(last) if text.is_empty() && last.code.is_none() && at_commit(&line[COLUMN_CODE]) => {
                    last.code = code;
                }
                _ if !text.is_empty() => ran.push(Ran { code, ..entry(text, None) }),
                _ => {}
            }
            *state = State::Closed;
        }
        _ => {}
    }
}

/// Integrity constraints and serialisation failures; a Bind of an unknown name has no text either,
/// and is nothing that ran.
fn at_commit(code: &str) -> bool {
    code.starts_with("23") || code.starts_with("40")
}

/// `parameters: $1 = '7', $2 = NULL`, quotes doubled within.
fn parameters(detail: &str) -> Vec<Option<String>> {
    let mut values = Vec::new();
    let Some(mut rest) = detail.strip_prefix("parameters: ") else {
        return values;
    };
    while let Some((_, after)) = rest.split_once(" = ") {
        if let Some(after) = after.strip_prefix("NULL") {
            values.push(None);
            rest = after;
            continue;
        }
        let mut value = String::new();
        let mut chars = after.char_indices().skip(1).peekable();
        let mut end = after.len();
        while let Some((at, c)) = chars.next() {
            if c == '\'' && chars.next_if(|(_, next)| *next == '\'').is_none() {
                end = at + 1;
                break;
            }
            value.push(c);
        }
        values.push(Some(value));
        rest = after.get(end..).unwrap_or("");
    }
    values
}

fn csv(text: &str) -> Vec<Vec<String>> {
    let mut lines = Vec::new();
    let mut line = Vec::new();
    let mut field = String::new();
    let mut quoted = false;
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match (c, quoted) {
            ('"', true) if chars.next_if_eq(&'"').is_some() => field.push('"'),
            ('"', _) => quoted = !quoted,
            (',', false) => line.push(std::mem::take(&mut field)),
            ('\n', false) => {
                line.push(std::mem::take(&mut field));
                lines.push(std::mem::take(&mut line));
            }
            (c, _) => field.push(c),
        }
    }
    lines
}

const COLUMN_DATABASE: usize = 2;
const COLUMN_PID: usize = 3;
const COLUMN_SESSION: usize = 5;
const COLUMN_SEVERITY: usize = 11;
const COLUMN_CODE: usize = 12;
const COLUMN_MESSAGE: usize = 13;
const COLUMN_DETAIL: usize = 14;
const COLUMN_QUERY: usize = 19;
const COLUMN_BACKEND: usize = 23;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_keep_quotes_and_nulls() {
        let values = parameters("parameters: $1 = 'a''b = ', $2 = NULL, $3 = '7'");
        assert_eq!(values, [Some("a'b = ".into()), None, Some("7".into())]);
    }

    #[test]
    fn csv_keeps_newlines_and_quotes_in_fields() {
        assert_eq!(csv("a,\"b\n\"\"c\"\"\",\nd\n"), [vec!["a", "b\n\"c\"", ""], vec!["d"]]);
    }
}
