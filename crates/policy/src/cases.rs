//! Files of cases: statements, and what the rules are to say about them.

use std::collections::BTreeMap;

use model::IdentityName;

use crate::decision::Ruling;
use crate::problem::{Fault, PolicyProblem, shown, suggestion};
use crate::yaml::{self, Entry, Node, Value};

/// The most cases of one file.
const CASES_MAX: usize = 10_000;

/// One case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Case {
    /// What it is called.
    pub name: String,
    /// The line it begins on.
    pub line: u32,
    /// Who sends the statement.
    pub identity: IdentityName,
    /// In which groups.
    pub groups: Vec<String>,
    /// For whom.
    pub on_behalf_of: Option<IdentityName>,
    /// In which run.
    pub run: Option<String>,
    /// What the client says about itself.
    pub claims: BTreeMap<String, String>,
    /// Over which connection.
    pub connection: CaseConnection,
    /// The statement.
    pub sql: String,
    /// When: RFC 3339, if it is said.
    pub at: Option<String>,
    /// What the rules are to say.
    pub expect: Ruling,
    /// The ids of the rules that are to match, if that is said.
    pub rules: Option<Vec<String>>,
}

/// The connection of a case.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CaseConnection {
    /// Its name.
    pub name: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// The database.
    pub database: String,
    /// The user that the gateway signs in as.
    pub role: String,
}

/// Reads a file of cases: a list of them.
///
/// # Errors
/// All that is wrong with it.
pub fn parse(name: &str, text: &str) -> Result<Vec<Case>, Vec<PolicyProblem>> {
    let fault = |line: u32, what: &str, instead: &str| vec![Fault::new(what, instead).at(name, line)];
    let cases = match yaml::read(text) {
        Err((line, fault)) => return Err(vec![fault.at(name, line)]),
        Ok(Some(Node { value: Value::List(cases), .. })) => cases,
        Ok(node) => {
            return Err(fault(
                node.map_or(1, |node| node.line),
                "the file is no list of cases",
                "`- name: ...` for each",
            ));
        }
    };
    if cases.len() > CASES_MAX {
        return Err(fault(1, "the file has too many cases", "at most 10000 of them into one file"));
    }
    let (mut read, mut problems) = (Vec::new(), Vec::new());
    for node in cases {
        match case(node) {
            Ok(case) => read.push(case),
            Err((line, fault)) => problems.push(fault.at(name, line)),
        }
    }
    if problems.is_empty() { Ok(read) } else { Err(problems) }
}

type Wrong = (u32, Fault);

fn case(node: Node) -> Result<Case, Wrong> {
    const KEYS: [&str; 11] =
        ["name", "identity", "groups", "on_behalf_of", "run", "claims", "connection", "sql", "at", "expect", "rules"];
    let line = node.line;
    let Value::Map(entries) = node.value else {
        return Err((line, Fault::new("a case is no map", "`name`, `identity`, `sql` and `expect`")));
    };
    let (mut name, mut identity, mut sql, mut expect) = (None, None, None, None);
    let (mut groups, mut on_behalf_of, mut run, mut at, mut rules) = (Vec::new(), None, None, None, None);
    let (mut claims, mut connection) = (BTreeMap::new(), CaseConnection::default());
    for entry in entries {
        match entry.key.as_str() {
            "name" => name = Some(text(entry)?),
            "identity" => identity = Some(named(entry)?),
            "on_behalf_of" => on_behalf_of = Some(named(entry)?),
            "sql" => sql = Some(text(entry)?),
            "run" => run = Some(text(entry)?),
            "at" => at = Some(text(entry)?),
            "groups" => groups = texts(entry)?,
            "rules" => rules = Some(texts(entry)?),
            "claims" => claims = map(entry)?,
            "connection" => connection = self::connection(entry)?,
            "expect" => {
                let line = entry.line;
                let word = text(entry)?;
                expect = Some(Ruling::parse(&word).ok_or_else(|| {
                    let instead = suggestion(&word, &["allow", "deny", "hold"]);
                    (line, Fault::new(format!("`expect` is {}", shown(&word)), instead))
                })?);
            }
            other => return Err(unknown(other, entry.line, &KEYS)),
        }
    }
    let missing = |key: &str| (line, Fault::new(format!("a case has no `{key}`"), format!("`{key}: ...`")));
    Ok(Case {
        line,
        name: name.ok_or_else(|| missing("name"))?,
        identity: identity.ok_or_else(|| missing("identity"))?,
        groups,
        on_behalf_of,
        run,
        claims,
        connection,
        sql: sql.ok_or_else(|| missing("sql"))?,
        at,
        expect: expect.ok_or_else(|| missing("expect"))?,
        rules,
    })
}

fn connection(entry: Entry) -> Result<CaseConnection, Wrong> {
    let mut connection = CaseConnection::default();
    match entry.node.value {
        Value::Text { text, .. } => connection.name = text,
        Value::Map(entries) => {
            for entry in entries {
                match entry.key.as_str() {
                    "name" => connection.name = text(entry)?,
                    "database" => connection.database = text(entry)?,
                    "role" => connection.role = text(entry)?,
                    "labels" => connection.labels = map(entry)?,
                    other => return Err(unknown(other, entry.line, &["name", "labels", "database", "role"])),
                }
            }
        }
        Value::List(_) => {
            let fault = Fault::new("`connection` is a list", "its name, or `{name: ..., labels: {...}}`");
            return Err((entry.line, fault));
        }
    }
    Ok(connection)
}

fn unknown(key: &str, line: u32, keys: &[&str]) -> Wrong {
    (line, Fault::new(format!("the key {} does not exist", shown(key)), suggestion(key, keys)))
}

fn text(entry: Entry) -> Result<String, Wrong> {
    match entry.node.value {
        Value::Text { text, .. } => Ok(text),
        _ => Err((entry.line, Fault::new(format!("`{}` is no text", entry.key), format!("`{}: \"...\"`", entry.key)))),
    }
}

fn named(entry: Entry) -> Result<IdentityName, Wrong> {
    let (line, key) = (entry.line, entry.key.clone());
    text(entry)?
        .parse()
        .map_err(|error| (line, Fault::new(format!("`{key}` is no identity: {error}"), format!("`{key}: agent:NAME`"))))
}

fn texts(entry: Entry) -> Result<Vec<String>, Wrong> {
    let wrong =
        |line| (line, Fault::new(format!("`{}` is no list of texts", entry.key), format!("`{}: [a, b]`", entry.key)));
    let Value::List(list) = entry.node.value else { return Err(wrong(entry.line)) };
    list.into_iter()
        .map(|node| match node.value {
            Value::Text { text, .. } => Ok(text),
            _ => Err(wrong(node.line)),
        })
        .collect()
}

fn map(entry: Entry) -> Result<BTreeMap<String, String>, Wrong> {
    let wrong =
        |line| (line, Fault::new(format!("`{}` is no map of texts", entry.key), format!("`{}: {{a: b}}`", entry.key)));
    let Value::Map(entries) = entry.node.value else { return Err(wrong(entry.line)) };
    entries
        .into_iter()
        .map(|entry| match entry.node.value {
            Value::Text { text, .. } => Ok((entry.key, text)),
            _ => Err(wrong(entry.line)),
        })
        .collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_case_is_read_and_its_mistakes_are_named() {
        let text = "- name: a\n  identity: agent:copilot\n  groups: [x]\n  connection: {name: app, labels: {env: prod}}\n  \
                    sql: \"SELECT 1\"\n  at: \"2026-11-23T10:00:00Z\"\n  expect: allow\n  rules: [r]\n";
        let cases = parse("cases.yaml", text).unwrap();
        let [case] = cases.as_slice() else { panic!("one") };
        assert_eq!(case.identity.as_str(), "agent:copilot");
        assert_eq!(case.connection.labels.get("env").unwrap(), "prod");
        assert_eq!((case.expect, case.rules.as_deref()), (Ruling::Allow, Some(&["r".to_owned()][..])));
        let problem = |text: &str| parse("c", text).unwrap_err().first().unwrap().to_string();
        assert_eq!(problem("- name: a\n"), "c:1: a case has no `identity`; write `identity: ...`");
        assert_eq!(problem("- nmae: a\n"), "c:1: the key \"nmae\" does not exist; write `name`");
        assert_eq!(problem("- expect: alow\n"), "c:1: `expect` is \"alow\"; write `allow`");
        assert_eq!(problem("a: b\n"), "c:1: the file is no list of cases; write `- name: ...` for each");
    }
}
