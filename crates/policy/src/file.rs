//! One policy file: from text to rules that are not yet checked against each other.

use std::collections::BTreeMap;

use crate::decision::Ruling;
use crate::labels::{LABELLED_MAX, Pattern};
use crate::problem::{Fault, PolicyProblem, shown, suggestion};
use crate::yaml::{self, Entry, Node, Style, Value};

/// The longest id of a rule or a label, bytes.
const ID_BYTES_MAX: usize = 64;
/// The longest message, bytes.
const MESSAGE_BYTES_MAX: usize = 512;
/// The most rules of one file, and of one set.
pub(crate) const RULES_MAX: usize = 1_000;
/// The most schemas of a search path.
const SEARCH_PATH_MAX: usize = 16;
/// The farthest that clocks are from UTC anywhere, seconds.
const OFFSET_MAX: i64 = 14 * 3600;
/// What `then` can be.
const THEN: &str = "`then: allow`, `then: deny` or `then: require_approval`";

/// A policy file, read.
#[derive(Debug, Default)]
pub(crate) struct Document {
    pub(crate) default: Option<(Ruling, u32)>,
    pub(crate) timezone: Option<(i64, u32)>,
    pub(crate) search_path: Option<(Vec<String>, u32)>,
    pub(crate) labels: BTreeMap<String, Vec<Pattern>>,
    pub(crate) rules: Vec<RawRule>,
}

/// A rule as it is written.
#[derive(Debug)]
pub(crate) struct RawRule {
    pub(crate) id: String,
    pub(crate) line: u32,
    pub(crate) when: String,
    /// The line that the condition's first one stands on.
    pub(crate) when_line: u32,
    /// How it is written: only after `|` each of its lines is a line of the file.
    pub(crate) when_style: Style,
    pub(crate) then: Ruling,
    pub(crate) message: Option<String>,
}

/// Reads a file. What is wrong with it goes to `problems`.
pub(crate) fn read(name: &str, text: &str, problems: &mut Vec<PolicyProblem>) -> Document {
    let mut reader = Reader { name, problems, document: Document::default() };
    match yaml::read(text) {
        Err((line, fault)) => reader.problems.push(fault.at(name, line)),
        Ok(None) => reader.fault(1, "the file is empty", "`version: 1` and `rules:`"),
        Ok(Some(Node { value: Value::Map(entries), line })) => reader.file(entries, line),
        Ok(Some(node)) => {
            let what = format!("the file is {}, not a map", node.kind());
            reader.fault(node.line, what, "`version: 1` and `rules:`");
        }
    }
    reader.document
}

struct Reader<'a> {
    name: &'a str,
    problems: &'a mut Vec<PolicyProblem>,
    document: Document,
}

impl Reader<'_> {
    fn fault(&mut self, line: u32, what: impl Into<String>, instead: impl Into<String>) {
        self.problems.push(Fault::new(what, instead).at(self.name, line));
    }

    fn rule_fault(&mut self, line: u32, rule: &str, what: impl Into<String>, instead: impl Into<String>) {
        let problem = Fault::new(what, instead).at(self.name, line);
        self.problems.push(PolicyProblem { rule: (!rule.is_empty()).then(|| rule.to_owned()), ..problem });
    }

    fn file(&mut self, entries: Vec<Entry>, line: u32) {
        const KEYS: [&str; 6] = ["version", "default", "timezone", "search_path", "labels", "rules"];
        let mut version = false;
        for Entry { key, line, node } in entries {
            match key.as_str() {
                "version" => {
                    version = true;
                    if plain(&node) != Some("1") {
                        self.fault(node.line, "this version of the format is not known", "`version: 1`");
                    }
                }
                "default" => match plain(&node) {
                    Some("allow") => self.document.default = Some((Ruling::Allow, node.line)),
                    Some("deny") => self.document.default = Some((Ruling::Deny, node.line)),
                    _ => self.fault(node.line, "`default` is neither `allow` nor `deny`", "`default: deny`"),
                },
                "timezone" => match plain(&node).and_then(offset) {
                    Some(seconds) => self.document.timezone = Some((seconds, node.line)),
                    None => self.fault(
                        node.line,
                        "`timezone` is no fixed offset from UTC",
                        "`timezone: UTC` or `timezone: \"+02:00\"`",
                    ),
                },
                "search_path" => {
                    let line = node.line;
                    match schemas(&node) {
                        Some(path) => self.document.search_path = Some((path, line)),
                        None => self.fault(
                            line,
                            format!("`search_path` is no list of 1 to {SEARCH_PATH_MAX} schemas"),
                            "`search_path: [public]`",
                        ),
                    }
                }
                "labels" => self.labels(node),
                "rules" => self.rules(node),
                _ => self.fault(line, format!("the key {} does not exist", shown(&key)), suggestion(&key, &KEYS)),
            }
        }
        if !version {
            self.fault(line, "`version` is missing", "`version: 1` at the top");
        }
    }

    fn labels(&mut self, node: Node) {
        let Value::Map(entries) = node.value else {
            return self.fault(
                node.line,
                format!("`labels` is {}", node.kind()),
                "`labels: {pii: [public.customers]}`",
            );
        };
        let mut count = 0;
        for Entry { key, line, node } in entries {
            if !is_id(&key) {
                let instead = format!("1 to {ID_BYTES_MAX} of a-z 0-9 - _ .");
                self.fault(line, format!("the label {} has a wrong name", shown(&key)), instead);
                continue;
            }
            let Value::List(names) = node.value else {
                let what = format!("the label {key} has {} for its names", node.kind());
                self.fault(node.line, what, format!("`{key}: [schema.name]`"));
                continue;
            };
            let mut patterns = Vec::new();
            for name in names {
                count += 1;
                match plain(&name).ok_or(name.kind()).map(Pattern::parse) {
                    Ok(Ok(pattern)) => patterns.push(pattern),
                    Ok(Err(fault)) => self.problems.push(fault.at(self.name, name.line)),
                    Err(kind) => {
                        self.fault(name.line, format!("the label {key} has {kind} among its names"), "`schema.name`");
                    }
                }
            }
            self.document.labels.insert(key, patterns);
        }
        if count > LABELLED_MAX {
            let what = format!("`labels` has {count} names, and {LABELLED_MAX} is the most");
            self.fault(node.line, what, "`schema.*` for schemas that are labelled whole");
        }
    }

    fn rules(&mut self, node: Node) {
        let rules = match node.value {
            Value::List(rules) => rules,
            Value::Text { ref text, style: Style::Plain } if text.is_empty() => return,
            _ => {
                return self.fault(
                    node.line,
                    format!("`rules` is {}, not a list", node.kind()),
                    "`- id: ...` for each rule",
                );
            }
        };
        if rules.len() > RULES_MAX {
            let what = format!("there are {} rules, and {RULES_MAX} is the most", rules.len());
            return self.fault(node.line, what, "rules that say more, with labels and lists");
        }
        for rule in rules {
            self.rule(rule);
        }
    }

    fn rule(&mut self, node: Node) {
        const KEYS: [&str; 4] = ["id", "when", "then", "message"];
        let line = node.line;
        let Value::Map(entries) = node.value else {
            let what = format!("a rule is {}, not a map", node.kind());
            return self.fault(line, what, "`{id: ..., when: ..., then: ...}`");
        };
        let named = entries.iter().find(|entry| entry.key == "id").and_then(|entry| plain(&entry.node));
        let id = named.filter(|id| is_id(id)).unwrap_or_default().to_owned();
        let (mut when, mut then, mut message) = (None, None, None);
        let mut wrong = false;
        for Entry { key, line, node } in entries {
            let before = self.problems.len();
            match (key.as_str(), node.value) {
                ("id", Value::Text { .. }) if !id.is_empty() => {}
                ("id", _) => {
                    let instead = format!("1 to {ID_BYTES_MAX} of a-z 0-9 - _ .");
                    self.fault(line, "a rule's `id` is no name", instead);
                }
                ("when", Value::Text { text, style }) => when = Some((text, node.line, style)),
                ("then", Value::Text { text, .. }) => then = self.then(&id, node.line, &text),
                ("message", Value::Text { text, .. }) => {
                    if text.len() > MESSAGE_BYTES_MAX || text.trim().is_empty() || text.chars().any(char::is_control) {
                        let instead = format!("1 to {MESSAGE_BYTES_MAX} bytes on one line");
                        self.rule_fault(line, &id, "`message` is empty, too long, or has control characters", instead);
                    }
                    message = Some(text);
                }
                ("when" | "message", _) => {
                    self.rule_fault(line, &id, format!("`{key}` is no text"), format!("`{key}: \"...\"`"));
                }
                ("then", _) => self.rule_fault(line, &id, "`then` is no word", THEN),
                ("approvers" | "approvals" | "quorum", _) => {
                    let what = format!("a rule does not say who approves: `{key}` is not for it");
                    let instead =
                        "`[connections.NAME.approvals]` in the configuration, which says it for the connection";
                    self.rule_fault(line, &id, what, instead);
                }
                _ => {
                    let what = format!("the key {} does not exist", shown(&key));
                    self.rule_fault(line, &id, what, suggestion(&key, &KEYS));
                }
            }
            wrong |= self.problems.len() > before;
        }
        if named_missing(&id, wrong) {
            return self.fault(line, "a rule has no `id`", "`id: some-name`, by which the record will call it");
        }
        if when.is_none() && !wrong {
            return self.rule_fault(line, &id, "`when` is missing", "`when: \"true\"` for a rule that always matches");
        }
        if then.is_none() && !wrong {
            return self.rule_fault(line, &id, "`then` is missing", THEN);
        }
        let (Some((when, when_line, when_style)), Some(then)) = (when, then) else { return };
        self.document.rules.push(RawRule { id, line, when, when_line, when_style, then, message });
    }

    fn then(&mut self, id: &str, line: u32, word: &str) -> Option<Ruling> {
        match word {
            "allow" => Some(Ruling::Allow),
            "deny" => Some(Ruling::Deny),
            "require_approval" => Some(Ruling::Hold),
            _ => {
                let what = format!("`then` is {}", shown(word));
                self.rule_fault(line, id, what, suggestion(word, &["allow", "deny", "require_approval"]));
                None
            }
        }
    }
}

/// Whether a rule has no id, and nothing has been said about it.
fn named_missing(id: &str, wrong: bool) -> bool {
    id.is_empty() && !wrong
}

/// The text of a value that is one.
fn plain(node: &Node) -> Option<&str> {
    match &node.value {
        Value::Text { text, .. } => Some(text),
        Value::List(_) | Value::Map(_) => None,
    }
}

/// The schemas of a search path.
fn schemas(node: &Node) -> Option<Vec<String>> {
    match &node.value {
        Value::List(list) if (1..=SEARCH_PATH_MAX).contains(&list.len()) => {
            list.iter().map(|schema| Pattern::schema(plain(schema)?)).collect()
        }
        _ => None,
    }
}

fn is_id(id: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'_' | b'.');
    (1..=ID_BYTES_MAX).contains(&id.len()) && id.bytes().all(allowed)
}

/// `UTC`, `+HH:MM` or `-HH:MM`, as seconds ahead of UTC.
fn offset(text: &str) -> Option<i64> {
    if text == "UTC" {
        return Some(0);
    }
    let (sign, rest) = match text.strip_prefix('+') {
        Some(rest) => (1, rest),
        None => (-1, text.strip_prefix('-')?),
    };
    let (hours, minutes) = rest.split_once(':')?;
    let number =
        |text: &str| (text.len() == 2 && text.bytes().all(|b| b.is_ascii_digit())).then(|| text.parse::<i64>().ok())?;
    let (hours, minutes) = (number(hours)?, number(minutes)?);
    let seconds = hours * 3600 + minutes * 60;
    (minutes < 60 && seconds <= OFFSET_MAX).then_some(sign * seconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_zone_is_a_fixed_offset() {
        assert_eq!(offset("UTC"), Some(0));
        assert_eq!(offset("+02:00"), Some(7200));
        assert_eq!(offset("-05:30"), Some(-19_800));
        for wrong in ["", "Europe/Berlin", "+2:00", "+02:60", "+15:00", "02:00", "+02:0a", "+-1:00", "utc"] {
            assert_eq!(offset(wrong), None, "{wrong}");
        }
    }
}
