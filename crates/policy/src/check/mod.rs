//! Whether a condition can mean what it says: checked once, when a file is loaded.
//!
//! What it is for: names that do not exist, types that do not fit, words that never come, fields that may be absent, and
//! what it costs at most. What it is not for: deciding. The engine has no types before it evaluates, so that a typing
//! error would show as a denied command; and it has functions whose cost has no useful bound, which rules cannot call.
//!
//! Two things are more than checks. A pattern of `matches` is compiled here, and its text replaced by the name of the
//! compiled one. And `labels` of a relation is replaced by the labels it surely has where more labels would let more
//! happen, so that no label allows by a guess.

mod calls;
mod guards;
mod loops;

use cel::common::ast::{Expr, IdedExpr, LiteralValue, operators};

use crate::problem::{Fault, nearest, shown, suggestion};
use crate::value::Pattern;
use crate::vocabulary::{Presence, Range, Record, Type, VARIABLES, Words};

/// What one condition may cost at most, steps of the engine.
pub(crate) const COST_MAX: u64 = 200_000;
/// How many lists may be looked through inside one another.
const LOOPS_MAX: usize = 2;
/// What it costs to look through a short text.
const TEXT_COST: u64 = 4;
/// What it costs to look through the text of a command ([`crate::TEXT_BYTES_MAX`]).
const LONG_TEXT_COST: u64 = 2_000;
/// The field that relations have beside those that rules may name: the labels that are sure.
pub(crate) const SURE_LABELS: &str = "@sure_labels";
/// What the names of compiled patterns begin with.
pub(crate) const PATTERN_PREFIX: &str = "@pattern";

/// What a rule does when its condition holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Aim {
    Permits,
    Restricts,
}

/// What became of a condition.
#[derive(Debug)]
pub(crate) struct Checked {
    pub(crate) uses: Uses,
    pub(crate) cost: u64,
}

/// What a condition looks at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Uses {
    pub(crate) command: bool,
    pub(crate) text: bool,
    pub(crate) argv: bool,
    pub(crate) time: bool,
    pub(crate) session: bool,
    /// At facts that may not be the whole.
    partial: bool,
    /// At whether they are.
    complete: bool,
}

/// Whether a part that becomes true can make the condition true, or false.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sense {
    Same,
    Inverse,
    Both,
}

impl Sense {
    fn inverse(self) -> Self {
        match self {
            Self::Same => Self::Inverse,
            Self::Inverse => Self::Same,
            Self::Both => Self::Both,
        }
    }
}

/// What is known of a part.
#[derive(Clone, Debug)]
struct Part {
    of: Type,
    /// What it always gives.
    always: Option<bool>,
    cost: u64,
}

impl Part {
    fn new(of: Type, cost: u64) -> Self {
        Self { of, always: None, cost }
    }

    fn wrong() -> Self {
        Self::new(Type::Wrong, 0)
    }
}

/// Checks a condition and prepares its tree for the engine.
pub(crate) fn check(
    tree: &mut IdedExpr,
    aim: Aim,
    labels: &[String],
    patterns: &mut Vec<Pattern>,
) -> Result<Checked, Vec<Fault>> {
    let mut checker = Checker {
        aim,
        labels,
        patterns,
        bound: Vec::new(),
        present: Vec::new(),
        faults: Vec::new(),
        uses: Uses::default(),
    };
    let part = checker.part(tree, Sense::Same);
    checker.whole(&part);
    if checker.faults.is_empty() {
        Ok(Checked { uses: checker.uses, cost: part.cost })
    } else {
        checker.faults.dedup();
        Err(checker.faults)
    }
}

struct Checker<'a> {
    aim: Aim,
    labels: &'a [String],
    patterns: &'a mut Vec<Pattern>,
    /// Names that loops have bound, innermost last.
    bound: Vec<(String, Type)>,
    /// Paths that are known to be there.
    present: Vec<String>,
    faults: Vec<Fault>,
    uses: Uses,
}

impl Checker<'_> {
    fn fault(&mut self, what: impl Into<String>, instead: impl Into<String>) -> Part {
        self.faults.push(Fault::new(what, instead));
        Part::wrong()
    }

    fn whole(&mut self, part: &Part) {
        match &part.of {
            Type::Bool | Type::Wrong => {}
            other => {
                let what = format!("`when` gives {}, not true or false", other.name());
                self.fault(what, "a condition, such as a comparison");
            }
        }
        if part.always == Some(false) && self.faults.is_empty() {
            self.fault("the rule can never match", "a condition that can be true, or leave the rule out");
        }
        if part.cost > COST_MAX {
            let what = format!("`when` may take {} steps, and {COST_MAX} is the most", part.cost);
            self.fault(what, "fewer lists looked through inside one another, or several rules");
        }
        if self.aim == Aim::Permits && self.uses.partial && !self.uses.complete {
            self.fault(
                "the rule allows by what is known of a command, without asking whether that is all",
                "`cmd.complete && ` before the rest, or what may be unknown, as in `cmd.opaque.all(o, o == \"function\")`",
            );
        }
    }

    fn part(&mut self, node: &mut IdedExpr, sense: Sense) -> Part {
        match &mut node.expr {
            Expr::Unspecified => self.fault("`when` has a part that is missing", "the whole condition"),
            Expr::Literal(literal) => self.literal(literal),
            Expr::Ident(name) => {
                let name = name.clone();
                self.name(&name)
            }
            Expr::Select(_) => self.select(node, sense),
            Expr::Call(_) => self.call(node, sense),
            Expr::List(list) => {
                if !list.optional_indices.is_empty() {
                    return self.fault("a list has an element that may be absent (`?`)", "each element without `?`");
                }
                let mut of: Option<Type> = None;
                let mut cost = 1_u64;
                for element in &mut list.elements {
                    let part = self.part(element, Sense::Both);
                    cost = cost.saturating_add(part.cost);
                    match (&of, part.of) {
                        (_, Type::Wrong) => return Part::wrong(),
                        (None, first @ (Type::Bool | Type::Int(_) | Type::Text(_))) => of = Some(first),
                        (Some(first), other) if first.name() == other.name() => {}
                        (_, other) => {
                            let what = format!("a list has {} among its elements", other.name());
                            return self.fault(what, "a list of texts, or of numbers");
                        }
                    }
                }
                let length = u64::try_from(list.elements.len()).unwrap_or(u64::MAX);
                Part::new(Type::List(Box::new(of.unwrap_or(Type::Text(Words::Any))), length), cost)
            }
            Expr::Map(_) | Expr::Struct(_) => {
                self.fault("`when` makes a map", "`has(...)`, or `in` with a list of what is meant")
            }
            Expr::Comprehension(_) => self.comprehension(node, sense),
        }
    }

    fn literal(&mut self, literal: &LiteralValue) -> Part {
        match literal {
            LiteralValue::Boolean(value) => Part { of: Type::Bool, always: Some(*value.inner()), cost: 1 },
            LiteralValue::Int(_) => Part::new(Type::Int(Range::Any), 1),
            LiteralValue::String(_) => Part::new(Type::Text(Words::Any), 1),
            LiteralValue::UInt(_) | LiteralValue::Double(_) => {
                self.fault("a number is not a whole number", "whole numbers, without `u` and without a point")
            }
            LiteralValue::Bytes(_) => self.fault("bytes (`b\"...\"`) are used", "a text, without `b`"),
            LiteralValue::Null => self.fault("`null` is used", "`has(...)` to ask whether something is there"),
        }
    }

    fn name(&mut self, name: &str) -> Part {
        if let Some((_, of)) = self.bound.iter().rev().find(|(bound, _)| bound == name) {
            return Part::new(of.clone(), 1);
        }
        if let Some((_, record)) = VARIABLES.iter().find(|(variable, _)| *variable == name) {
            match record {
                Record::Command => self.uses.command = true,
                Record::Time => self.uses.time = true,
                Record::Session => self.uses.session = true,
                Record::Identity | Record::Connection | Record::Relation => {}
            }
            return Part::new(Type::Record(*record), 1);
        }
        let mut names: Vec<&str> = self.bound.iter().map(|(bound, _)| bound.as_str()).collect();
        names.extend(VARIABLES.map(|(variable, _)| variable));
        let instead = suggestion(name, &names);
        self.fault(format!("`{}` does not exist", inner(name)), instead)
    }

    /// `a.b` and `has(a.b)`.
    fn select(&mut self, node: &mut IdedExpr, sense: Sense) -> Part {
        let path = guards::path(node);
        let Expr::Select(select) = &mut node.expr else { return Part::wrong() };
        let operand = self.part(&mut select.operand, Sense::Both);
        let (of, presence) = match self.field(&operand.of, &select.field, path.as_deref()) {
            Some(found) => found,
            None => return Part::wrong(),
        };
        let cost = operand.cost.saturating_add(1);
        if select.test {
            return Part::new(Type::Bool, cost);
        }
        if operand.of == Type::Record(Record::Relation) && select.field == "labels" && self.label_sense(sense) {
            SURE_LABELS.clone_into(&mut select.field);
        }
        let known = path.as_ref().is_some_and(|path| self.present.contains(path));
        if presence == Presence::Sometimes && !known {
            let path = path.unwrap_or_else(|| format!("....{}", select.field));
            return self.absent(&path);
        }
        Part::new(of, cost)
    }

    fn absent(&mut self, path: &str) -> Part {
        let optional = match path.rsplit_once('.') {
            Some((before, last)) => format!("{before}.?{last}"),
            None => path.to_owned(),
        };
        self.fault(
            format!("`{path}` may be absent, and a rule that asks for it then fails and denies"),
            format!("`{optional}.orValue(\"\")`, or `has({path}) && ` before it"),
        )
    }

    /// Whether labels at a place of this sense must be those that are sure. A place where it cannot be told is a fault.
    fn label_sense(&mut self, sense: Sense) -> bool {
        match (sense, self.aim) {
            (Sense::Same, Aim::Permits) | (Sense::Inverse, Aim::Restricts) => true,
            (Sense::Inverse, Aim::Permits) | (Sense::Same, Aim::Restricts) => false,
            (Sense::Both, _) => {
                self.fault(
                    "it cannot be told whether more labels here would allow more or less",
                    "`\"LABEL\" in r.labels` or its negation, within `all`, `exists`, `&&`, `||` and `!` only",
                );
                false
            }
        }
    }

    /// The type of a field of a value of this type.
    fn field(&mut self, of: &Type, field: &str, path: Option<&str>) -> Option<(Type, Presence)> {
        let written = || path.map_or_else(|| format!("....{field}"), inner);
        match of {
            Type::Wrong => None,
            Type::Map => Some((Type::Text(Words::Any), Presence::Sometimes)),
            Type::Optional(of) => {
                let (of, _) = self.field(of, field, path)?;
                Some((Type::Optional(Box::new(of)), Presence::Always))
            }
            Type::Record(record) => {
                if *record == Record::Command {
                    match field {
                        "text" => self.uses.text = true,
                        "argv" => (self.uses.argv, self.uses.partial) = (true, true),
                        "complete" | "opaque" => self.uses.complete = true,
                        _ => self.uses.partial = true,
                    }
                }
                let found = record.field(field);
                if found.is_none() {
                    let before = written();
                    let before = before.rsplit_once('.').map_or("", |(before, _)| before);
                    let instead = match nearest(field, record.fields().iter().copied()) {
                        Some(meant) => format!("`{before}.{meant}`"),
                        None => suggestion("", record.fields()),
                    };
                    self.fault(format!("`{}` does not exist", written()), instead);
                }
                found
            }
            other => {
                let what = format!("`{}` asks for a field of {}, which has none", written(), other.name());
                let instead = if matches!(other, Type::List(..)) {
                    "`.exists(x, ...)` or `.all(x, ...)` to look through the list"
                } else {
                    "it without the field"
                };
                self.fault(what, instead);
                None
            }
        }
    }

    /// Faults for a text that is none of the words there are.
    fn word(&mut self, words: Words, text: &str) {
        let Some(closed) = words.closed(self.labels) else { return };
        if closed.contains(&text) {
            return;
        }
        let (what, instead) = match words {
            Words::Label if closed.is_empty() => (
                format!("no label {} is declared", shown(text)),
                "it under `labels:`, with the names of its relations".to_owned(),
            ),
            Words::Label => (format!("no label {} is declared", shown(text)), quoted(text, &closed)),
            _ => (format!("it is never {}", shown(text)), quoted(text, &closed)),
        };
        self.fault(what, instead);
    }
}

/// As [`suggestion`], for texts.
fn quoted(word: &str, words: &[&str]) -> String {
    let quoted: Vec<String> = words.iter().map(|word| format!("\"{word}\"")).collect();
    match nearest(word, words.iter().copied()) {
        Some(meant) => format!("`\"{meant}\"`"),
        None => suggestion("", &quoted.iter().map(String::as_str).collect::<Vec<_>>()),
    }
}

/// A name of the file as a message may repeat it.
fn inner(name: &str) -> String {
    shown(name).trim_matches('"').to_owned()
}

/// The text that a part is, if it is one.
fn text_of(node: &IdedExpr) -> Option<&str> {
    match &node.expr {
        Expr::Literal(LiteralValue::String(text)) => Some(text.inner()),
        _ => None,
    }
}

/// The number that a part is, if it is one.
fn number_of(node: &IdedExpr) -> Option<i64> {
    match &node.expr {
        Expr::Literal(LiteralValue::Int(number)) => Some(*number.inner()),
        Expr::Call(call) if call.func_name == operators::NEGATE => {
            call.args.first().and_then(number_of).and_then(i64::checked_neg)
        }
        _ => None,
    }
}

impl Uses {
    /// What two conditions look at together.
    pub(crate) fn with(self, other: Self) -> Self {
        Self {
            command: self.command || other.command,
            text: self.text || other.text,
            argv: self.argv || other.argv,
            time: self.time || other.time,
            session: self.session || other.session,
            partial: self.partial || other.partial,
            complete: self.complete || other.complete,
        }
    }
}
