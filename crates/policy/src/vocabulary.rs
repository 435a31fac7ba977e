//! What conditions may name: variables, their fields, and the words that a field can have.

use model::{Access, Effect, FUNCTIONS_MAX, IdentityKind, Opaque, Operation, RELATIONS_MAX, Transaction};
use wire::ssh::argv::WORDS_MAX;

use crate::input::{GROUPS_MAX, WEEKDAYS};
use crate::labels::LABELS_MAX;

/// The kinds of connection that there are.
pub(crate) const CONNECTION_KINDS: [&str; 2] = ["postgres", "ssh"];

/// The variables.
pub(crate) const VARIABLES: [(&str, Record); 5] = [
    ("identity", Record::Identity),
    ("conn", Record::Connection),
    ("cmd", Record::Command),
    ("time", Record::Time),
    ("session", Record::Session),
];

/// A value with fixed fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Record {
    Identity,
    Connection,
    Command,
    Relation,
    Time,
    Session,
}

/// What a condition or a part of it gives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Type {
    Bool,
    /// A whole number; an hour is from 0 to 23.
    Int(Range),
    Text(Words),
    /// A list of at most so many.
    List(Box<Type>, u64),
    Record(Record),
    /// Texts by keys that are not known before.
    Map,
    Optional(Box<Type>),
    /// Something is wrong with it, and that was said.
    Wrong,
}

/// Which numbers there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Range {
    Any,
    Hour,
}

/// Which texts there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Words {
    /// Any.
    Any,
    /// Any, and long: the text of a command.
    Long,
    Operation,
    Effect,
    Access,
    Opaque,
    IdentityKind,
    ConnectionKind,
    Weekday,
    Transaction,
    /// The labels of the set.
    Label,
}

/// Whether a field is always there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Presence {
    Always,
    Sometimes,
}

impl Type {
    /// What it is called in a message.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Bool => "true or false",
            Self::Int(_) => "a number",
            Self::Text(_) => "a text",
            Self::List(..) => "a list",
            Self::Record(_) => "a group of fields",
            Self::Map => "a map",
            Self::Optional(_) => "a value that may be absent",
            Self::Wrong => "something wrong",
        }
    }

    fn list(of: Self, most: usize) -> Self {
        Self::List(Box::new(of), u64::try_from(most).unwrap_or(u64::MAX))
    }
}

impl Words {
    /// The words, if there are not any.
    pub(crate) fn closed(self, labels: &[String]) -> Option<Vec<&str>> {
        Some(match self {
            Self::Any | Self::Long => return None,
            Self::Operation => Operation::ALL.iter().map(|word| word.as_str()).collect(),
            Self::Effect => Effect::ALL.iter().map(|word| word.as_str()).collect(),
            Self::Access => Access::ALL.iter().map(|word| word.as_str()).collect(),
            Self::Opaque => Opaque::ALL.iter().map(|word| word.as_str()).collect(),
            Self::IdentityKind => IdentityKind::ALL.iter().map(|word| word.as_str()).collect(),
            Self::ConnectionKind => CONNECTION_KINDS.to_vec(),
            Self::Weekday => WEEKDAYS.to_vec(),
            Self::Transaction => Transaction::ALL.iter().map(|state| state.as_str()).collect(),
            Self::Label => labels.iter().map(String::as_str).collect(),
        })
    }
}

impl Record {
    /// The fields, in the order of the documentation.
    pub(crate) fn fields(self) -> &'static [&'static str] {
        match self {
            Self::Identity => &["kind", "name", "groups", "on_behalf_of", "run", "claims"],
            Self::Connection => &["name", "kind", "labels", "database", "role"],
            Self::Command => &[
                "text",
                "operation",
                "operations",
                "effects",
                "complete",
                "opaque",
                "has_where",
                "relations",
                "functions",
                "fingerprint",
                "argv",
            ],
            Self::Relation => &["schema", "name", "access", "labels"],
            Self::Time => &["hour", "weekday"],
            Self::Session => &["age", "count", "transaction"],
        }
    }

    /// The type of a field.
    pub(crate) fn field(self, name: &str) -> Option<(Type, Presence)> {
        use Presence::{Always, Sometimes};
        let any = || Type::Text(Words::Any);
        let words = |words: Words, most: usize| Type::list(Type::Text(words), most);
        Some(match (self, name) {
            (Self::Identity, "kind") => (Type::Text(Words::IdentityKind), Always),
            (Self::Identity, "groups") => (words(Words::Any, GROUPS_MAX), Always),
            (Self::Identity, "on_behalf_of" | "run") => (any(), Sometimes),
            (Self::Identity, "claims") | (Self::Connection, "labels") => (Type::Map, Always),
            (Self::Connection, "kind") => (Type::Text(Words::ConnectionKind), Always),
            (Self::Identity | Self::Connection | Self::Relation, "name") => (any(), Always),
            (Self::Connection, "database" | "role") => (any(), Always),
            (Self::Command, "text") => (Type::Text(Words::Long), Always),
            (Self::Command, "operation") => (Type::Text(Words::Operation), Always),
            (Self::Command, "operations") => (words(Words::Operation, Operation::ALL.len()), Always),
            (Self::Command, "effects") => (words(Words::Effect, Effect::ALL.len()), Always),
            (Self::Command, "complete" | "has_where") => (Type::Bool, Always),
            (Self::Command, "opaque") => (words(Words::Opaque, Opaque::ALL.len()), Always),
            (Self::Command, "relations") => (Type::list(Type::Record(Self::Relation), RELATIONS_MAX), Always),
            (Self::Command, "functions") => (words(Words::Any, FUNCTIONS_MAX), Always),
            (Self::Command, "argv") => (words(Words::Any, WORDS_MAX), Always),
            (Self::Command, "fingerprint") | (Self::Relation, "schema") => (any(), Sometimes),
            (Self::Relation, "access") => (words(Words::Access, Access::ALL.len()), Always),
            (Self::Relation, "labels") => (words(Words::Label, LABELS_MAX), Always),
            (Self::Time, "hour") => (Type::Int(Range::Hour), Always),
            (Self::Time, "weekday") => (Type::Text(Words::Weekday), Always),
            (Self::Session, "age" | "count") => (Type::Int(Range::Any), Always),
            (Self::Session, "transaction") => (Type::Text(Words::Transaction), Always),
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_field_that_is_named_has_a_type() {
        let records = VARIABLES.map(|(_, record)| record).into_iter().chain([Record::Relation]);
        for record in records {
            for field in record.fields() {
                assert!(record.field(field).is_some(), "{record:?}.{field}");
            }
        }
    }
}
