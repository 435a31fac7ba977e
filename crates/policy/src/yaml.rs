//! YAML as policy files use it: maps, lists and texts, each with its line.
//!
//! What it is not for: YAML's anchors, aliases, tags and further documents, which are refused. So no file grows while it
//! is read, and each text stands where it is used. The same key twice is refused too: one of the two would be lost.

use std::collections::HashSet;
use std::panic::{AssertUnwindSafe, catch_unwind};

use saphyr_parser::{Event, Parser, ScalarStyle, Span};

use crate::problem::{Fault, shown};

/// The longest file, bytes.
pub(crate) const FILE_BYTES_MAX: usize = 1 << 20;
/// How deep maps and lists may nest.
const DEPTH_MAX: usize = 8;

/// A value and where it begins.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) line: u32,
    pub(crate) value: Value,
}

#[derive(Clone, Debug)]
pub(crate) enum Value {
    Text { text: String, style: Style },
    List(Vec<Node>),
    Map(Vec<Entry>),
}

/// How a text is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Style {
    /// Without quotes: it may be a number or nothing.
    Plain,
    /// In quotes.
    Quoted,
    /// After `|`, with its own lines.
    Literal,
    /// After `>`.
    Folded,
}

/// A key and its value.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) key: String,
    pub(crate) line: u32,
    pub(crate) node: Node,
}

impl Node {
    /// What it is called in a message.
    pub(crate) fn kind(&self) -> &'static str {
        match &self.value {
            Value::Text { text, style: Style::Plain } if text.is_empty() => "nothing",
            Value::Text { .. } => "a text",
            Value::List(_) => "a list",
            Value::Map(_) => "a map",
        }
    }
}

/// Reads one document. `None` when there is nothing in it.
pub(crate) fn read(text: &str) -> Result<Option<Node>, (u32, Fault)> {
    if text.len() > FILE_BYTES_MAX {
        let what = format!("the file has {} bytes, and {FILE_BYTES_MAX} is the most", text.len());
        return Err((1, Fault::new(what, "several connections' rules into files of their own")));
    }
    // The parser is not ours. Should it panic, the file is wrong, and nobody ends for it.
    let read = catch_unwind(AssertUnwindSafe(|| Reader::default().document(text)));
    read.unwrap_or_else(|_| {
        Err((1, Fault::new("the file cannot be read as YAML", "it with plain maps, lists and texts")))
    })
}

/// A map or a list that has begun.
enum Open {
    List { line: u32, list: Vec<Node> },
    Map { line: u32, entries: Vec<Entry>, keys: HashSet<String>, key: Option<(String, u32)> },
}

#[derive(Default)]
struct Reader {
    open: Vec<Open>,
    root: Option<Node>,
    documents: usize,
}

impl Reader {
    fn document(mut self, text: &str) -> Result<Option<Node>, (u32, Fault)> {
        let mut parser = Parser::new_from_str(text);
        while let Some(event) = parser.next_event() {
            let (event, span) = event.map_err(|error| {
                let line = line(error.marker().line());
                (
                    line,
                    Fault::new(format!("the file is no YAML: {}", error.info()), "maps and lists indented by spaces"),
                )
            })?;
            self.event(event, span)?;
        }
        Ok(self.root)
    }

    fn event(&mut self, event: Event<'_>, span: Span) -> Result<(), (u32, Fault)> {
        let at = line(span.start.line());
        let plain = |anchor: usize, tagged: bool| match (anchor, tagged) {
            (0, false) => Ok(()),
            (0, true) => Err((at, Fault::new("a tag (`!`) is used", "the text in quotes"))),
            _ => Err((at, Fault::new("an anchor (`&`) is used", "the value wherever it is meant"))),
        };
        match event {
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => Ok(()),
            Event::DocumentStart(_) => {
                self.documents += 1;
                if self.documents > 1 {
                    return Err((
                        at,
                        Fault::new("a second document begins (`---`)", "each document into a file of its own"),
                    ));
                }
                Ok(())
            }
            Event::Alias(_) => Err((at, Fault::new("an alias (`*`) is used", "the value wherever it is meant"))),
            Event::Scalar(text, style, anchor, tag) => {
                plain(anchor, tag.is_some())?;
                let style = match style {
                    ScalarStyle::Plain => Style::Plain,
                    ScalarStyle::SingleQuoted | ScalarStyle::DoubleQuoted => Style::Quoted,
                    ScalarStyle::Literal => Style::Literal,
                    ScalarStyle::Folded => Style::Folded,
                };
                self.value(Node { line: at, value: Value::Text { text: text.into_owned(), style } })
            }
            Event::SequenceStart(anchor, tag) => {
                plain(anchor, tag.is_some())?;
                self.begin(at, Open::List { line: at, list: Vec::new() })
            }
            Event::MappingStart(anchor, tag) => {
                plain(anchor, tag.is_some())?;
                self.begin(at, Open::Map { line: at, entries: Vec::new(), keys: HashSet::new(), key: None })
            }
            Event::SequenceEnd | Event::MappingEnd => {
                let ended = match self.open.pop() {
                    Some(Open::List { line, list }) => Node { line, value: Value::List(list) },
                    Some(Open::Map { line, entries, .. }) => Node { line, value: Value::Map(entries) },
                    None => return Ok(()),
                };
                self.value(ended)
            }
        }
    }

    fn begin(&mut self, at: u32, open: Open) -> Result<(), (u32, Fault)> {
        if let Some(Open::Map { key: None, .. }) = self.open.last() {
            return Err((at, Fault::new("a key is no text", "a word before the colon")));
        }
        if self.open.len() >= DEPTH_MAX {
            let what = format!("maps and lists nest deeper than {DEPTH_MAX}");
            return Err((at, Fault::new(what, "them flat, as docs/policy.md shows")));
        }
        self.open.push(open);
        Ok(())
    }

    fn value(&mut self, node: Node) -> Result<(), (u32, Fault)> {
        match self.open.last_mut() {
            None => self.root = Some(node),
            Some(Open::List { list, .. }) => list.push(node),
            Some(Open::Map { entries, keys, key, .. }) => match (key.take(), node) {
                (Some((key, line)), node) => entries.push(Entry { key, line, node }),
                (None, Node { line, value: Value::Text { text, .. } }) => {
                    if !keys.insert(text.clone()) {
                        let what = format!("the key {} is given twice", shown(&text));
                        return Err((line, Fault::new(what, "it once")));
                    }
                    *key = Some((text, line));
                }
                (None, Node { line, .. }) => {
                    return Err((line, Fault::new("a key is no text", "a word before the colon")));
                }
            },
        }
        Ok(())
    }
}

fn line(line: usize) -> u32 {
    u32::try_from(line).unwrap_or(u32::MAX)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn refused(text: &str) -> (u32, String) {
        let (line, fault) = read(text).unwrap_err();
        (line, fault.what)
    }

    #[test]
    fn nothing_that_grows_or_hides_is_read() {
        assert_eq!(refused("a: &x [1]\nb: *x\n"), (1, "an anchor (`&`) is used".to_owned()));
        assert_eq!(refused("a: !!str 1\n"), (1, "a tag (`!`) is used".to_owned()));
        assert_eq!(refused("a: 1\n---\nb: 2\n"), (2, "a second document begins (`---`)".to_owned()));
        assert_eq!(refused("a: 1\nb: 2\na: 3\n"), (3, "the key \"a\" is given twice".to_owned()));
        assert_eq!(refused("[1, 2]: 3\n"), (1, "a key is no text".to_owned()));
        assert!(refused(&"[".repeat(9)).1.starts_with("maps and lists nest deeper than"));
        assert!(refused(&"[".repeat(100_000)).1.starts_with("the file is no YAML"));
        assert!(refused(&" ".repeat(FILE_BYTES_MAX + 1)).1.starts_with("the file has"));
        assert!(refused("a: [1\nb: 2\n").1.starts_with("the file is no YAML"));
        assert!(refused("a:\n\t- b\n").1.starts_with("the file is no YAML"));
        // Nine levels of nine aliases each would be a billion texts.
        let bomb: String =
            (1..=9).map(|n| format!("a{n}: &a{n} [{}]\n", vec![format!("*a{}", n - 1); 9].join(", "))).collect();
        assert_eq!(refused(&format!("a0: &a0 [x]\n{bomb}")), (1, "an anchor (`&`) is used".to_owned()));
    }

    #[test]
    fn each_value_knows_its_line() {
        let node = read("version: 1\nrules:\n- id: a\n  when: |\n    x\n").unwrap().unwrap();
        let Value::Map(entries) = node.value else { panic!("a map") };
        let [version, rules] = entries.as_slice() else { panic!("two keys") };
        assert_eq!((version.line, version.node.line, rules.line), (1, 1, 2));
        let Value::List(rules) = &rules.node.value else { panic!("a list") };
        assert_eq!(rules.iter().map(|rule| rule.line).collect::<Vec<_>>(), [3]);
        assert!(read("").unwrap().is_none());
        assert!(read("# nothing\n").unwrap().is_none());
    }
}
