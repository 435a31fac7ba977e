//! What is wrong with a configuration file: where, what, and what to do about it.

use std::fmt;
use std::path::{Path, PathBuf};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// A configuration that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file could not be read.
    #[error("{}: {source}", file.display())]
    Unreadable {
        /// The file.
        file: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file was read and is wrong.
    #[error("{}", Listing { file, problems })]
    Invalid {
        /// The file.
        file: PathBuf,
        /// Everything that is wrong with it, in the order of its lines.
        problems: Vec<Problem>,
    },
    /// The policy of a connection cannot be put in force.
    #[error("connections.{connection}.policy: {}", .problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
    Policy {
        /// The connection.
        connection: String,
        /// Everything that is wrong with its files.
        problems: Vec<policy::PolicyProblem>,
    },
    /// The policy of a connection asks for approvals, and nobody could give them.
    #[error("connections.{connection}.policy: {asks} requires an approval, and nobody may approve on this connection")]
    NobodyApproves {
        /// The connection.
        connection: String,
        /// What asks: a rule, with its file and line, or the default.
        asks: String,
    },
}

/// One thing that is wrong, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The line, from 1.
    pub line: Option<usize>,
    /// The dotted key, such as `connections.app.password`.
    pub key: Option<String>,
    /// What is wrong.
    pub what: String,
    /// What to do about it.
    pub hint: Option<String>,
}

/// Parts the message of a value's own error into what is wrong and what to do.
const HINT: &str = "\nhint: ";

impl ConfigError {
    pub(super) fn invalid(file: &Path, problem: Problem) -> Self {
        Self::Invalid { file: file.to_owned(), problems: vec![problem] }
    }
}

impl Problem {
    /// A problem of the value at `key` of the file with this text.
    pub(super) fn at(text: &str, key: &str, what: impl Into<String>, hint: &str) -> Self {
        Self {
            line: span_of(text, key).map(|span| line_of(text, span.start)),
            key: Some(key.to_owned()),
            what: what.into(),
            hint: Some(hint.to_owned()),
        }
    }

    /// What the TOML parser, or a value's own type, refused.
    pub(super) fn of_parser(error: &toml::de::Error, text: &str) -> Self {
        let (what, hint) = match error.message().split_once(HINT) {
            Some((what, hint)) => (what.to_owned(), Some(hint.to_owned())),
            None => plain_words(error.message()),
        };
        let span = error.span();
        Self {
            line: span.as_ref().map(|span| line_of(text, span.start)),
            key: span.and_then(|span| key_at(text, &span)),
            what,
            hint,
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(key) = &self.key {
            write!(f, "{key}: ")?;
        }
        f.write_str(&self.what)?;
        match &self.hint {
            Some(hint) => write!(f, "\n  hint: {hint}"),
            None => Ok(()),
        }
    }
}

struct Listing<'a> {
    file: &'a Path,
    problems: &'a [Problem],
}

impl fmt::Display for Listing<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, problem) in self.problems.iter().enumerate() {
            if number > 0 {
                writeln!(f)?;
            }
            write!(f, "{}:", self.file.display())?;
            if let Some(line) = problem.line {
                write!(f, "{line}:")?;
            }
            write!(f, " {problem}")?;
        }
        Ok(())
    }
}

/// Writes the message of a value's own error, so that [`Problem::of_parser`] can part it again.
pub(super) fn with_hint(what: impl fmt::Display, hint: impl fmt::Display) -> String {
    format!("{what}{HINT}{hint}")
}

/// The parser's words, in ours where ours help more.
fn plain_words(message: &str) -> (String, Option<String>) {
    if let Some(rest) = message.strip_prefix("unknown field ") {
        let (key, expected) = rest.split_once(", ").unwrap_or((rest, ""));
        let known = expected.trim_start_matches("expected one of ").trim_start_matches("expected ");
        return (
            format!("the key {key} is not known here"),
            (!known.is_empty()).then(|| format!("known keys: {}", known.replace("` or `", ", ").replace('`', ""))),
        );
    }
    if let Some(rest) = message.strip_prefix("missing field ") {
        return (
            format!("the key {rest} is missing"),
            Some("add it; `onrecord config schema` describes every key".to_owned()),
        );
    }
    (message.to_owned(), None)
}

fn line_of(text: &str, offset: usize) -> usize {
    let before = text.get(..offset).unwrap_or(text);
    before.matches('\n').count() + 1
}

/// The bytes of the value at a dotted key; of the nearest table above it if it is not there.
fn span_of(text: &str, key: &str) -> Option<std::ops::Range<usize>> {
    let document = DeTable::parse(text).ok()?;
    let mut table = document.get_ref();
    let mut span = None;
    for part in key.split('.') {
        let Some((name, value)) = table.iter().find(|(name, _)| name.get_ref() == part) else {
            break;
        };
        span = Some(name.span());
        match value.get_ref() {
            DeValue::Table(inner) => table = inner,
            _ => break,
        }
    }
    span
}

/// The dotted key whose value, or whose own name, holds these bytes.
fn key_at(text: &str, span: &std::ops::Range<usize>) -> Option<String> {
    let document = DeTable::parse(text).ok()?;
    let mut path = Vec::new();
    find(document.get_ref(), span, &mut path);
    (!path.is_empty()).then(|| path.join("."))
}

fn find(table: &DeTable<'_>, span: &std::ops::Range<usize>, path: &mut Vec<String>) -> bool {
    for (name, value) in table.iter() {
        path.push(name.get_ref().to_string());
        let inside = match value.get_ref() {
            DeValue::Table(inner) => find(inner, span, path),
            _ => false,
        };
        if inside || holds(&name.span(), span) || holds(&Spanned::span(value), span) {
            return true;
        }
        path.pop();
    }
    false
}

fn holds(outer: &std::ops::Range<usize>, inner: &std::ops::Range<usize>) -> bool {
    outer.start <= inner.start && inner.end <= outer.end
}
