//! Names of relations: as nodes, as lists of names, as literals.

use model::{Access, Effect, OBJECT_NAME_BYTES_MAX};
use pg_query::protobuf::ObjectType;

use super::Walk;
use crate::tree::{Node, Tree};

/// How an object of some kind names a relation.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Names {
    /// It is one.
    Relation,
    /// It is part of one, whose name precedes its own.
    PartOfRelation,
    /// It is none.
    Other,
}

/// How the objects of this kind, as the parser numbers it, name a relation.
pub(super) fn names_of(kind: &Tree) -> Names {
    let Tree::Int(number) = kind else { return Names::Other };
    let kind = i32::try_from(*number).ok().and_then(|number| ObjectType::try_from(number).ok());
    match kind {
        Some(
            ObjectType::ObjectTable
            | ObjectType::ObjectView
            | ObjectType::ObjectMatview
            | ObjectType::ObjectIndex
            | ObjectType::ObjectSequence
            | ObjectType::ObjectForeignTable,
        ) => Names::Relation,
        Some(
            ObjectType::ObjectColumn
            | ObjectType::ObjectPolicy
            | ObjectType::ObjectRule
            | ObjectType::ObjectTrigger
            | ObjectType::ObjectTabconstraint,
        ) => Names::PartOfRelation,
        _ => Names::Other,
    }
}

/// Whether a number of the parser is this member of an enumeration.
pub(super) fn is(number: &Tree, member: impl Into<i32>) -> bool {
    *number == Tree::Int(i64::from(member.into()))
}

impl Walk {
    /// Notes what is done to a relation.
    pub(super) fn note(&mut self, schema: Option<&str>, name: &str, access: Access) {
        let access = if self.planning { Access::Read } else { access };
        let key = (schema.filter(|schema| !schema.is_empty()).map(clipped), clipped(name));
        self.relations.entry(key).or_default().insert(access);
        match access {
            Access::Read => self.effect(Effect::Read),
            Access::Write => self.effect(Effect::Write),
            // These depend on the statement.
            Access::Define | Access::Lock => {}
        }
    }

    /// Notes what is done to the relation that a `RangeVar` names, even where a `WITH` has that name: the target of a
    /// statement is never hidden.
    pub(super) fn target(&mut self, range: &Tree, access: Access) {
        let Some(range) = range.as_kind("RangeVar") else { return };
        let (schema, name) = (self.field(range, "schemaname"), self.field(range, "relname"));
        if let Some(name) = name.text() {
            self.note(schema.text(), name, access);
        }
    }

    pub(super) fn targets(&mut self, ranges: &Tree, access: Access) {
        ranges.items().iter().for_each(|range| self.target(range, access));
    }

    /// A relation in a `FROM` and the like: read, unless a `WITH` hides it.
    pub(super) fn range(&mut self, range: &Node) {
        let (schema, name) = (self.field(range, "schemaname"), self.field(range, "relname"));
        let Some(name) = name.text() else { return };
        if schema.is_there() || !self.hidden.iter().any(|hidden| hidden == name) {
            self.note(schema.text(), name, Access::Read);
            if self.locking {
                self.note(schema.text(), name, Access::Lock);
            }
        }
    }

    /// An object's name as a list of names, as `DROP` and `COMMENT` have it.
    pub(super) fn object(&mut self, object: &Tree, names: Names, access: Access) {
        let parts: Vec<&str> = object.items().iter().filter_map(Tree::text).collect();
        let relation = match names {
            Names::Relation => parts.as_slice(),
            Names::PartOfRelation => parts.split_last().map_or(&[][..], |(_, relation)| relation),
            Names::Other => return,
        };
        if let Some((name, before)) = relation.split_last() {
            self.note(before.last().copied(), name, access);
        }
    }

    /// A literal that is the name of a relation, as `regclass` reads it.
    pub(super) fn named_by_literal(&mut self, literal: &str, access: Access) {
        if literal.bytes().all(|byte| byte.is_ascii_digit()) {
            return;
        }
        let parts = identifiers(literal);
        if let Some((name, before)) = parts.split_last() {
            self.note(before.last().map(String::as_str), name, access);
        }
    }
}

/// The identifiers of a dotted name, folded as the server does.
fn identifiers(text: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    let mut quoted = false;
    let mut characters = text.trim().chars().peekable();
    while let Some(character) = characters.next() {
        match character {
            '"' if quoted && characters.peek() == Some(&'"') => {
                characters.next();
                push(&mut parts, '"');
            }
            '"' => quoted = !quoted,
            '.' if !quoted => parts.push(String::new()),
            character if quoted => push(&mut parts, character),
            character if character.is_ascii_whitespace() => {}
            character => push(&mut parts, character.to_ascii_lowercase()),
        }
    }
    parts
}

fn push(parts: &mut [String], character: char) {
    if let Some(part) = parts.last_mut() {
        part.push(character);
    }
}

/// A name as the server knows it: it takes no more of it, and no part of a character.
pub(super) fn clipped(name: &str) -> String {
    let end = (0..=OBJECT_NAME_BYTES_MAX.min(name.len())).rev().find(|end| name.is_char_boundary(*end));
    name.get(..end.unwrap_or(0)).unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_literal_is_read_as_the_server_reads_it() {
        assert_eq!(identifiers("Public.Customers"), ["public", "customers"]);
        assert_eq!(identifiers(r#" "A.b"."c""d" "#), ["A.b", "c\"d"]);
    }

    #[test]
    fn names_are_clipped_between_characters() {
        assert_eq!(clipped(&"a".repeat(70)), "a".repeat(63));
        assert_eq!(clipped(&"é".repeat(40)), "é".repeat(31));
    }
}
