//! Operators and functions.

use cel::common::ast::{CallExpr, Expr, IdedExpr, operators};

use super::{Checker, LONG_TEXT_COST, PATTERN_PREFIX, Part, Sense, TEXT_COST, guards, number_of, text_of};
use crate::problem::{shown, suggestion};
use crate::value::Pattern;
use crate::vocabulary::{Presence, Range, Type, Words};

/// The functions that conditions may call.
const FUNCTIONS: [&str; 14] = [
    "all",
    "contains",
    "endsWith",
    "exists",
    "exists_one",
    "filter",
    "has",
    "hasValue",
    "lowerAscii",
    "map",
    "matches",
    "orValue",
    "size",
    "startsWith",
];

impl Checker<'_> {
    pub(super) fn call(&mut self, node: &mut IdedExpr, sense: Sense) -> Part {
        let path = guards::path(node);
        let Expr::Call(call) = &mut node.expr else { return Part::wrong() };
        let name = call.func_name.clone();
        if call.target.is_some() {
            return self.member(call, &name, sense);
        }
        match (name.as_str(), call.args.len()) {
            (operators::LOGICAL_AND, 2) => self.and(call, sense),
            (operators::LOGICAL_OR, 2) => self.or(call, sense),
            (operators::LOGICAL_NOT, 1) => self.not(call, sense),
            (operators::CONDITIONAL, 3) => self.conditional(call, sense),
            (operators::EQUALS | operators::NOT_EQUALS, 2) => self.equality(call),
            (operators::LESS | operators::LESS_EQUALS | operators::GREATER | operators::GREATER_EQUALS, 2) => {
                self.order(call)
            }
            (operators::IN, 2) => self.membership(call, sense),
            (
                operators::ADD | operators::SUBSTRACT | operators::MULTIPLY | operators::DIVIDE | operators::MODULO,
                2,
            )
            | (operators::NEGATE, 1) => self.arithmetic(call),
            (operators::INDEX, 2) => self.index(call, path),
            (operators::OPT_SELECT | operators::OPT_INDEX, 2) => self.optional(call),
            ("size", 1) => {
                let Some(arg) = call.args.first_mut() else { return Part::wrong() };
                let part = self.part(arg, Sense::Both);
                self.size(part)
            }
            _ => self.unknown_function(&name),
        }
    }

    fn unknown_function(&mut self, name: &str) -> Part {
        if FUNCTIONS.contains(&name) {
            let what = format!("`{name}` is called in a way that it cannot be");
            return self.fault(what, format!("`{name}` as docs/policy.md describes it"));
        }
        let what = format!("the function {} does not exist", shown(name));
        self.fault(what, suggestion(name, &FUNCTIONS))
    }

    /// The parts of a call, as conditions.
    fn conditions(&mut self, parts: Vec<&mut IdedExpr>, sense: Sense) -> Option<(Vec<Option<bool>>, u64)> {
        let (mut always, mut cost, mut wrong) = (Vec::new(), 1_u64, false);
        for part in parts {
            let part = self.part(part, sense);
            cost = cost.saturating_add(part.cost).saturating_add(1);
            always.push(part.always);
            match part.of {
                Type::Bool => {}
                Type::Wrong => wrong = true,
                other => {
                    wrong = true;
                    let what = format!("{} stands where true or false is wanted", other.name());
                    self.fault(what, "a condition, such as a comparison");
                }
            }
        }
        (!wrong).then_some((always, cost))
    }

    fn and(&mut self, call: &mut CallExpr, sense: Sense) -> Part {
        let before = self.present.len();
        let mut parts = Vec::new();
        guards::operands(call, operators::LOGICAL_AND, &mut parts);
        parts.iter().for_each(|part| guards::when_true(part, &mut self.present));
        let contradict = guards::contradict(&parts);
        let checked = self.conditions(parts, sense);
        self.present.truncate(before);
        let Some((always, cost)) = checked else { return Part::wrong() };
        let always = match () {
            () if contradict || always.contains(&Some(false)) => Some(false),
            () if always.iter().all(|part| *part == Some(true)) => Some(true),
            () => None,
        };
        Part { of: Type::Bool, always, cost }
    }

    fn or(&mut self, call: &mut CallExpr, sense: Sense) -> Part {
        let before = self.present.len();
        let mut parts = Vec::new();
        guards::operands(call, operators::LOGICAL_OR, &mut parts);
        parts.iter().for_each(|part| guards::when_false(part, &mut self.present));
        let checked = self.conditions(parts, sense);
        self.present.truncate(before);
        let Some((always, cost)) = checked else { return Part::wrong() };
        let always = match () {
            () if always.contains(&Some(true)) => Some(true),
            () if always.iter().all(|part| *part == Some(false)) => Some(false),
            () => None,
        };
        Part { of: Type::Bool, always, cost }
    }

    fn not(&mut self, call: &mut CallExpr, sense: Sense) -> Part {
        match self.conditions(call.args.iter_mut().collect(), sense.inverse()) {
            Some((always, cost)) => {
                let always = always.first().copied().flatten().map(|always| !always);
                Part { of: Type::Bool, always, cost }
            }
            None => Part::wrong(),
        }
    }

    fn conditional(&mut self, call: &mut CallExpr, sense: Sense) -> Part {
        let [condition, yes, no] = call.args.as_mut_slice() else { return Part::wrong() };
        let before = self.present.len();
        let Some((always, cost)) = self.conditions(vec![condition], Sense::Both) else { return Part::wrong() };
        guards::when_true(condition, &mut self.present);
        let yes = self.part(yes, sense);
        self.present.truncate(before);
        guards::when_false(condition, &mut self.present);
        let no = self.part(no, sense);
        self.present.truncate(before);
        if yes.of == Type::Wrong || no.of == Type::Wrong {
            return Part::wrong();
        }
        if !fit(&yes.of, &no.of) {
            let what = format!("`? :` gives {} or {}", yes.of.name(), no.of.name());
            return self.fault(what, "two values of one kind");
        }
        let always = match always.first().copied().flatten() {
            Some(true) => yes.always,
            Some(false) => no.always,
            None if yes.always == no.always => yes.always,
            None => None,
        };
        Part { of: joined(yes.of, &no.of), always, cost: cost.saturating_add(yes.cost).saturating_add(no.cost) }
    }

    fn equality(&mut self, call: &mut CallExpr) -> Part {
        let [left, right] = call.args.as_mut_slice() else { return Part::wrong() };
        let (one, other) = (self.part(left, Sense::Both), self.part(right, Sense::Both));
        if one.of == Type::Wrong || other.of == Type::Wrong {
            return Part::wrong();
        }
        let comparable = |of: &Type| matches!(of, Type::Bool | Type::Int(_) | Type::Text(_) | Type::List(..));
        if !fit(&one.of, &other.of) || !comparable(&one.of) {
            let what = format!("{} is compared with {}", one.of.name(), other.of.name());
            let optional = matches!(one.of, Type::Optional(_)) || matches!(other.of, Type::Optional(_));
            let instead = if optional { "`.orValue(\"\")` after what may be absent" } else { "two values of one kind" };
            return self.fault(what, instead);
        }
        self.words_of(&one.of, right);
        self.words_of(&other.of, left);
        self.hour(&one.of, right);
        self.hour(&other.of, left);
        let always = match (text_of(left), text_of(right), number_of(left), number_of(right)) {
            (Some(left), Some(right), ..) => Some(left == right),
            (_, _, Some(left), Some(right)) => Some(left == right),
            _ => None,
        };
        let always = always.map(|same| same == (call.func_name == operators::EQUALS));
        let weight = weight(&one.of).min(weight(&other.of));
        Part { of: Type::Bool, always, cost: one.cost.saturating_add(other.cost).saturating_add(weight) }
    }

    fn order(&mut self, call: &mut CallExpr) -> Part {
        let [left, right] = call.args.as_mut_slice() else { return Part::wrong() };
        let (one, other) = (self.part(left, Sense::Both), self.part(right, Sense::Both));
        match (&one.of, &other.of) {
            (Type::Wrong, _) | (_, Type::Wrong) => return Part::wrong(),
            (Type::Int(_), Type::Int(_)) => {}
            (one, other) => {
                let what = format!("{} and {} are put in order", one.name(), other.name());
                return self.fault(what, "numbers, as in `time.hour >= 8`");
            }
        }
        self.hour(&one.of, right);
        self.hour(&other.of, left);
        Part::new(Type::Bool, one.cost.saturating_add(other.cost).saturating_add(1))
    }

    fn membership(&mut self, call: &mut CallExpr, sense: Sense) -> Part {
        let [element, list] = call.args.as_mut_slice() else { return Part::wrong() };
        let (one, other) = (self.part(element, Sense::Both), self.part(list, sense));
        let cost = one.cost.saturating_add(other.cost).saturating_add(1);
        match (&one.of, &other.of) {
            (Type::Wrong, _) | (_, Type::Wrong) => Part::wrong(),
            (Type::Text(_), Type::Map) => Part::new(Type::Bool, cost),
            (one, Type::List(of, most)) if fit(one, of) && matches!(one, Type::Bool | Type::Int(_) | Type::Text(_)) => {
                self.words_of(of, element);
                self.words_of(one, list);
                let always = (*most == 0).then_some(false);
                Part { of: Type::Bool, always, cost: cost.saturating_add(*most) }
            }
            (one, Type::List(of, _)) => {
                let what = format!("{} is looked for in a list, of which each is {}", one.name(), of.name());
                self.fault(what, "an element of the list's kind, or `.exists(x, ...)` to look at its fields")
            }
            (_, other) => {
                let what = format!("`in` looks into {}, which is no list", other.name());
                self.fault(what, "a list after `in`, as in `x in [\"a\", \"b\"]`, or `.contains(...)` for a text")
            }
        }
    }

    /// Faults for the texts of a part that are none of the words of this type.
    fn words_of(&mut self, of: &Type, part: &IdedExpr) {
        let words = match of {
            Type::Text(words) => *words,
            Type::List(of, _) => return self.words_of(of, part),
            _ => return,
        };
        match &part.expr {
            Expr::List(list) => list.elements.iter().for_each(|element| self.words_of(&Type::Text(words), element)),
            _ => {
                if let Some(text) = text_of(part) {
                    self.word(words, text);
                }
            }
        }
    }

    /// Faults for a number that no hour is.
    fn hour(&mut self, of: &Type, part: &IdedExpr) {
        if let (Type::Int(Range::Hour), Some(number)) = (of, number_of(part))
            && !(0..=24).contains(&number)
        {
            self.fault(format!("an hour is never {number}"), "a number from 0 to 23");
        }
    }

    fn arithmetic(&mut self, call: &mut CallExpr) -> Part {
        let mut cost = 1_u64;
        for arg in &mut call.args {
            let part = self.part(arg, Sense::Both);
            cost = cost.saturating_add(part.cost);
            match part.of {
                Type::Int(_) => {}
                Type::Wrong => return Part::wrong(),
                other => {
                    let what = format!("it is reckoned with {}", other.name());
                    return self.fault(what, "numbers, and for texts or lists several conditions with `||`");
                }
            }
        }
        Part::new(Type::Int(Range::Any), cost)
    }

    /// `map["key"]`.
    fn index(&mut self, call: &mut CallExpr, path: Option<String>) -> Part {
        let [of, key] = call.args.as_mut_slice() else { return Part::wrong() };
        let (of, index) = (self.part(of, Sense::Both), self.part(key, Sense::Both));
        match (&of.of, &index.of) {
            (Type::Wrong, _) | (_, Type::Wrong) => Part::wrong(),
            (Type::Map, Type::Text(_)) => match path {
                Some(path) if self.present.contains(&path) => {
                    Part::new(Type::Text(Words::Any), of.cost.saturating_add(index.cost))
                }
                Some(path) => self.absent(&path),
                None => self.fault("a key may be absent, and the rule then fails and denies", "`[?KEY].orValue(\"\")`"),
            },
            (Type::List(..), Type::Int(_)) => self.fault(
                "an element is asked for by its place, and there may be fewer",
                "`.exists(x, ...)` or `.all(x, ...)`, or `[?0].orValue(\"\")`",
            ),
            (of, index) => {
                let what = format!("{} is asked for by {}", of.name(), index.name());
                self.fault(what, "a field by its name, as in `cmd.operation`")
            }
        }
    }

    /// `a.?b` and `a[?b]`.
    fn optional(&mut self, call: &mut CallExpr) -> Part {
        let select = call.func_name == operators::OPT_SELECT;
        let [of, key] = call.args.as_mut_slice() else { return Part::wrong() };
        let before = guards::path(of);
        let of = self.part(of, Sense::Both);
        let cost = of.cost.saturating_add(2);
        let inner = match of.of {
            Type::Optional(inner) => *inner,
            other => other,
        };
        let given = match (&inner, select, text_of(key)) {
            (Type::Record(_) | Type::Map, _, Some(field)) => {
                if field == "labels" && matches!(inner, Type::Record(crate::vocabulary::Record::Relation)) {
                    self.fault("`labels` of a relation is always there", "`.labels`, without `?`");
                }
                let path = before.map(|before| format!("{before}.{field}"));
                self.field(&inner, field, path.as_deref()).map(|(of, _): (Type, Presence)| of)
            }
            (Type::Map, false, None) => match self.part(key, Sense::Both).of {
                Type::Text(_) => Some(Type::Text(Words::Any)),
                _ => None,
            },
            (Type::List(of, _), false, _) => match self.part(key, Sense::Both).of {
                Type::Int(_) => Some(*of.clone()),
                _ => None,
            },
            (Type::Wrong, ..) => return Part::wrong(),
            _ => None,
        };
        match given {
            Some(of) => Part::new(Type::Optional(Box::new(of)), cost),
            None if self.faults.is_empty() => {
                let what = format!("`?` asks {} for something that it cannot have", inner.name());
                self.fault(what, "`.?field` of a group of fields or a map, or `[?0]` of a list")
            }
            None => Part::wrong(),
        }
    }

    fn size(&mut self, part: Part) -> Part {
        match part.of {
            Type::Wrong => Part::wrong(),
            Type::Text(_) | Type::List(..) => {
                let weight = weight(&part.of);
                Part::new(Type::Int(Range::Any), part.cost.saturating_add(weight))
            }
            other => {
                let what = format!("`size` is asked of {}", other.name());
                self.fault(what, "`size` of a text or a list")
            }
        }
    }

    /// `x.f(...)`.
    fn member(&mut self, call: &mut CallExpr, name: &str, sense: Sense) -> Part {
        let Some(target) = call.target.as_deref_mut() else { return Part::wrong() };
        if !FUNCTIONS.contains(&name) {
            return self.unknown_function(name);
        }
        let known_labels = matches!(name, "orValue" | "hasValue");
        let of = self.part(target, if known_labels { sense } else { Sense::Both });
        match (name, call.args.as_mut_slice(), &of.of) {
            (_, _, Type::Wrong) => Part::wrong(),
            ("size", [], _) => self.size(of),
            ("lowerAscii", [], Type::Text(words)) => {
                let words = if *words == Words::Long { Words::Long } else { Words::Any };
                let cost = of.cost.saturating_add(weight(&of.of));
                Part::new(Type::Text(words), cost)
            }
            ("contains" | "startsWith" | "endsWith", [arg], Type::Text(_)) => {
                let part = self.part(arg, Sense::Both);
                match part.of {
                    Type::Text(_) => {
                        let cost = of.cost.saturating_add(part.cost).saturating_add(weight(&of.of));
                        Part::new(Type::Bool, cost)
                    }
                    Type::Wrong => Part::wrong(),
                    other => self.fault(format!("`{name}` is given {}", other.name()), "a text in the brackets"),
                }
            }
            ("matches", [arg], Type::Text(_)) => self.pattern(arg, &of),
            ("hasValue", [], Type::Optional(_)) => Part::new(Type::Bool, of.cost.saturating_add(1)),
            ("orValue", [arg], Type::Optional(inner)) => {
                let part = self.part(arg, Sense::Both);
                match part.of {
                    Type::Wrong => Part::wrong(),
                    other if fit(&other, inner) => Part::new(*inner.clone(), of.cost.saturating_add(part.cost)),
                    other => {
                        let what = format!("`orValue` gives {} for {}", other.name(), inner.name());
                        self.fault(what, "a value of the same kind")
                    }
                }
            }
            ("orValue" | "hasValue", _, other) => {
                let what = format!("`{name}` is asked of {}, which is always there", other.name());
                self.fault(what, "`.?` before the field that may be absent")
            }
            (_, _, other) => {
                let what = format!("`{name}` is called on {}", other.name());
                let instead = match other {
                    Type::List(..) => format!("`.exists(x, x.{name}(...))`, or `in`"),
                    Type::Optional(_) => format!("`.orValue(\"\").{name}(...)`"),
                    _ => format!("`{name}` as docs/policy.md describes it"),
                };
                self.fault(what, instead)
            }
        }
    }

    /// `text.matches("...")`: the pattern is compiled, and its name takes the place of its text.
    fn pattern(&mut self, arg: &mut IdedExpr, of: &Part) -> Part {
        let Some(source) = text_of(arg) else {
            return self.fault("the pattern of `matches` is not written out", "the pattern as a text in the rule");
        };
        match Pattern::new(source) {
            Ok(pattern) => {
                arg.expr = Expr::Ident(format!("{PATTERN_PREFIX}{}", self.patterns.len()));
                self.patterns.push(pattern);
                // A pattern costs more than a search, by how large it may be.
                let weight = weight(&of.of).saturating_mul(8);
                Part::new(Type::Bool, of.cost.saturating_add(weight))
            }
            Err(what) => {
                let what = format!("the pattern {} {what}", shown(source));
                self.fault(what, "a shorter or simpler pattern, in the syntax of the `regex` crate")
            }
        }
    }
}

/// What it costs to look through a value.
fn weight(of: &Type) -> u64 {
    match of {
        Type::Text(Words::Long) => LONG_TEXT_COST,
        Type::Text(_) => TEXT_COST,
        Type::List(of, most) => weight(of).saturating_mul(*most),
        _ => 1,
    }
}

/// Whether two types are one kind.
fn fit(one: &Type, other: &Type) -> bool {
    match (one, other) {
        (Type::List(_, 0), Type::List(..)) | (Type::List(..), Type::List(_, 0)) => true,
        (Type::List(one, _), Type::List(other, _)) => fit(one, other),
        (Type::Optional(one), Type::Optional(other)) => fit(one, other),
        (one, other) => one.name() == other.name(),
    }
}

/// The type of a value that is of the one or of the other.
fn joined(one: Type, other: &Type) -> Type {
    match (one, other) {
        (Type::Text(one), Type::Text(other)) if one == *other => Type::Text(one),
        (Type::Text(one), Type::Text(other)) => {
            Type::Text(if Words::Long == one || Words::Long == *other { Words::Long } else { Words::Any })
        }
        (Type::Int(_), Type::Int(_)) => Type::Int(Range::Any),
        (Type::List(one, most), Type::List(other, others)) => {
            Type::List(Box::new(joined(*one, other)), most.max(*others))
        }
        (one, _) => one,
    }
}
