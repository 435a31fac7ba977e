//! What is wrong with a policy file, and what to write instead.

use std::fmt;

/// The longest text of a file that a problem repeats, characters.
const SHOWN_CHARS_MAX: usize = 60;

/// One thing that is wrong with a policy file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyProblem {
    /// The file's name, as it was given.
    pub file: String,
    /// The line, from 1.
    pub line: Option<u32>,
    /// The rule's id, if it is about a rule that has one.
    pub rule: Option<String>,
    /// What is wrong.
    pub what: String,
    /// What to write instead.
    pub instead: String,
}

impl fmt::Display for PolicyProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)?;
        if let Some(line) = self.line {
            write!(f, ":{line}")?;
        }
        f.write_str(": ")?;
        if let Some(rule) = &self.rule {
            write!(f, "rule {rule}: ")?;
        }
        write!(f, "{}; write {}", self.what, self.instead)
    }
}

impl std::error::Error for PolicyProblem {}

/// What is wrong and what to write, before it is known where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    pub(crate) what: String,
    pub(crate) instead: String,
}

impl Fault {
    pub(crate) fn new(what: impl Into<String>, instead: impl Into<String>) -> Self {
        Self { what: what.into(), instead: instead.into() }
    }

    pub(crate) fn at(self, file: &str, line: u32) -> PolicyProblem {
        PolicyProblem { file: file.to_owned(), line: Some(line), rule: None, what: self.what, instead: self.instead }
    }
}

/// A text of a file as a message may repeat it: quoted, without control characters, not long.
pub(crate) fn shown(text: &str) -> String {
    let mut shown: String = text.chars().take(SHOWN_CHARS_MAX).flat_map(char::escape_debug).collect();
    if text.chars().nth(SHOWN_CHARS_MAX).is_some() {
        shown.push_str("...");
    }
    format!("\"{shown}\"")
}

/// The word of these that was probably meant.
pub(crate) fn nearest<'a>(word: &str, words: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let most = match word.chars().count() {
        0 | 1 => 0,
        2 | 3 => 1,
        _ => 2,
    };
    let near = |other: &&str| {
        let (word, other) = (word.to_lowercase(), other.to_lowercase());
        // `relation` for `relations`, `op` for `operation`.
        distance(&word, &other) <= most || (word.len() >= 2 && other.starts_with(&word))
    };
    words.into_iter().filter(near).min_by_key(|other| distance(word, other))
}

/// As [`nearest`], with all words where none is near: what to write instead of a wrong word.
pub(crate) fn suggestion(word: &str, words: &[&str]) -> String {
    match nearest(word, words.iter().copied()) {
        Some(meant) => format!("`{meant}`"),
        None => match words {
            [] => "nothing".to_owned(),
            [one] => format!("`{one}`"),
            [most @ .., last] => {
                let most: Vec<String> = most.iter().map(|word| format!("`{word}`")).collect();
                format!("one of {} or `{last}`", most.join(", "))
            }
        },
    }
}

/// How many characters must be added, left out or replaced to make one text of the other.
fn distance(one: &str, other: &str) -> usize {
    let other: Vec<char> = other.chars().collect();
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (above, left) in one.chars().enumerate() {
        let mut next = vec![above + 1];
        for ((corner, top), right) in row.iter().zip(row.iter().skip(1)).zip(&other) {
            let before = next.last().copied().unwrap_or(usize::MAX - 1);
            next.push((corner + usize::from(left != *right)).min(top + 1).min(before + 1));
        }
        row = next;
    }
    row.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_near_word_is_suggested_and_a_far_one_is_not() {
        let words = ["operation", "operations", "effects"];
        assert_eq!(nearest("operaton", words), Some("operation"));
        assert_eq!(nearest("effect", words), Some("effects"));
        assert_eq!(nearest("op", words), Some("operation"));
        assert_eq!(nearest("colour", words), None);
        assert_eq!(suggestion("colour", &words), "one of `operation`, `operations` or `effects`");
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("abc", "abd"), 1);
    }

    #[test]
    fn a_problem_says_where_what_and_what_instead() {
        let fault = Fault::new("`cmd.relation` does not exist", "`cmd.relations`");
        let mut problem = fault.at("app.yaml", 7);
        assert_eq!(problem.to_string(), "app.yaml:7: `cmd.relation` does not exist; write `cmd.relations`");
        problem.rule = Some("a".to_owned());
        assert_eq!(problem.to_string(), "app.yaml:7: rule a: `cmd.relation` does not exist; write `cmd.relations`");
        assert_eq!(shown("a\u{1b}[1m\"").as_str(), "\"a\\u{1b}[1m\\\"\"");
    }
}
