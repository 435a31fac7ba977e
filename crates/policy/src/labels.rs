//! Labels of relations: which names carry them, surely or possibly.
//!
//! A statement that names no schema may mean a relation of any. So each relation has two sets of labels: those that it
//! surely has, whatever schema is meant, and those that it may have. A policy can say in which schemas such names are
//! looked up; it is believed as long as the session has not changed it. Which of the two a rule sees depends on what the
//! rule does with it (crate::check): a label never allows because of a guess, and never fails to deny for want of one.

use std::collections::HashMap;

use model::{OBJECT_NAME_BYTES_MAX, Relation};

use crate::problem::{Fault, shown};

/// The most labels of one set.
pub(crate) const LABELS_MAX: usize = 64;
/// The most names under all labels together.
pub(crate) const LABELLED_MAX: usize = 20_000;

/// The names under one label.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Pattern {
    /// `schema.*`
    Schema(String),
    /// `schema.name`
    Exact(String, String),
    /// `name`, of whatever schema.
    Name(String),
}

impl Pattern {
    /// Reads a name as SQL does: what is not in double quotes is in lower case.
    pub(crate) fn parse(text: &str) -> Result<Self, Fault> {
        let wrong = |what: &str| {
            Fault::new(
                format!("the name {} {what}", shown(text)),
                "`schema.name`, `schema.*` or `name`, with double quotes around a part that is not in lower case",
            )
        };
        let (first, rest) = part(text).ok_or_else(|| wrong("is no name of a relation"))?;
        let pattern = match rest.strip_prefix('.') {
            None if rest.is_empty() => Self::Name(first),
            None => return Err(wrong("is no name of a relation")),
            Some("*") => Self::Schema(first),
            Some(second) => match part(second) {
                Some((second, "")) => Self::Exact(first, second),
                _ => return Err(wrong("is no name of a relation")),
            },
        };
        let longest = match &pattern {
            Self::Schema(name) | Self::Name(name) => name.len(),
            Self::Exact(schema, name) => schema.len().max(name.len()),
        };
        if longest > OBJECT_NAME_BYTES_MAX {
            return Err(wrong(&format!(
                "has a part of more than {OBJECT_NAME_BYTES_MAX} bytes, which no relation has"
            )));
        }
        Ok(pattern)
    }

    /// Reads the name of a schema.
    pub(crate) fn schema(text: &str) -> Option<String> {
        match Self::parse(text) {
            Ok(Self::Name(name)) => Some(name),
            _ => None,
        }
    }

    /// The same for the same names, different for different ones.
    pub(crate) fn canonical(&self) -> String {
        let quoted = |name: &str| format!("\"{}\"", name.replace('"', "\"\""));
        match self {
            Self::Schema(schema) => format!("{}.*", quoted(schema)),
            Self::Exact(schema, name) => format!("{}.{}", quoted(schema), quoted(name)),
            Self::Name(name) => quoted(name),
        }
    }
}

/// The name that a text begins with, as the server has it, and what follows.
fn part(text: &str) -> Option<(String, &str)> {
    if let Some(quoted) = text.strip_prefix('"') {
        let mut name = String::new();
        let mut chars = quoted.char_indices().peekable();
        while let Some((at, c)) = chars.next() {
            match c {
                '"' if chars.next_if(|(_, next)| *next == '"').is_some() => name.push('"'),
                '"' => return (!name.is_empty()).then(|| (name, quoted.get(at + 1..).unwrap_or_default())),
                c => name.push(c),
            }
        }
        return None;
    }
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '$') || !c.is_ascii();
    let end = text.find(|c| !allowed(c)).unwrap_or(text.len());
    let (name, rest) = text.split_at_checked(end)?;
    let first = name.chars().next()?;
    (!first.is_ascii_digit() && first != '$').then(|| (name.to_ascii_lowercase(), rest))
}

/// All labels of a set.
#[derive(Debug, Default)]
pub(crate) struct Labels {
    names: Vec<String>,
    /// By name of relation: under which label, and with which schema.
    by_name: HashMap<String, Vec<(usize, Option<String>)>>,
    /// By schema: under which label.
    by_schema: HashMap<String, Vec<usize>>,
    /// The labels with a whole schema under them.
    schemas: Vec<usize>,
}

/// The labels of one relation, as indices.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    /// It has them, whatever schema is meant.
    pub(crate) surely: Vec<usize>,
    /// It has them if the schema is the one that is listed.
    pub(crate) possibly: Vec<usize>,
}

impl Labels {
    /// Labels in the order of their names.
    pub(crate) fn new(labels: &std::collections::BTreeMap<String, Vec<Pattern>>) -> Self {
        let mut made = Self::default();
        for (index, (name, patterns)) in labels.iter().enumerate() {
            made.names.push(name.clone());
            for pattern in patterns {
                match pattern {
                    Pattern::Schema(schema) => {
                        made.by_schema.entry(schema.clone()).or_default().push(index);
                        if made.schemas.last() != Some(&index) {
                            made.schemas.push(index);
                        }
                    }
                    Pattern::Exact(schema, name) => {
                        made.by_name.entry(name.clone()).or_default().push((index, Some(schema.clone())));
                    }
                    Pattern::Name(name) => made.by_name.entry(name.clone()).or_default().push((index, None)),
                }
            }
        }
        made
    }

    pub(crate) fn name(&self, label: usize) -> Option<&str> {
        self.names.get(label).map(String::as_str)
    }

    /// The labels of a relation. Where it is known in which schemas a name without one is looked up, only those count.
    pub(crate) fn of(&self, relation: &Relation, search_path: Option<&[String]>) -> Found {
        let (None, Some(path)) = (&relation.schema, search_path) else { return self.anywhere(relation) };
        // The server looks into its own catalog first, and the names there begin so.
        let catalog = relation.name.starts_with("pg_").then_some("pg_catalog");
        let mut found: Option<Found> = None;
        for schema in path.iter().map(String::as_str).chain(catalog) {
            let Found { surely: here, .. } = self.anywhere(&Relation {
                schema: Some(schema.to_owned()),
                name: relation.name.clone(),
                access: Vec::new(),
            });
            found = Some(match found {
                None => Found { surely: here.clone(), possibly: here },
                Some(Found { mut surely, mut possibly }) => {
                    surely.retain(|label| here.contains(label));
                    possibly.extend(here);
                    Found { surely, possibly }
                }
            });
        }
        let mut found = found.unwrap_or_else(|| self.anywhere(relation));
        found.possibly.sort_unstable();
        found.possibly.dedup();
        found
    }

    fn anywhere(&self, relation: &Relation) -> Found {
        let (mut surely, mut possibly) = (Vec::new(), Vec::new());
        for (label, schema) in self.by_name.get(&relation.name).map(Vec::as_slice).unwrap_or_default() {
            match (schema, &relation.schema) {
                (None, _) => surely.push(*label),
                (Some(listed), Some(named)) if listed == named => surely.push(*label),
                (Some(_), Some(_)) => {}
                (Some(_), None) => possibly.push(*label),
            }
        }
        match &relation.schema {
            Some(schema) => surely.extend(self.by_schema.get(schema).map(Vec::as_slice).unwrap_or_default()),
            None => possibly.extend(&self.schemas),
        }
        possibly.extend(&surely);
        for labels in [&mut surely, &mut possibly] {
            labels.sort_unstable();
            labels.dedup();
        }
        Found { surely, possibly }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn labels() -> Labels {
        let parse = |names: &[&str]| names.iter().map(|name| Pattern::parse(name).unwrap()).collect();
        Labels::new(
            &[
                ("known".to_owned(), parse(&["public.orders", "items"])),
                ("pii".to_owned(), parse(&["public.customers", "hr.*"])),
            ]
            .into(),
        )
    }

    fn of(schema: Option<&str>, name: &str) -> (Vec<usize>, Vec<usize>) {
        let relation = Relation { schema: schema.map(str::to_owned), name: name.to_owned(), access: vec![] };
        let found = labels().of(&relation, None);
        (found.surely, found.possibly)
    }

    #[test]
    fn without_a_schema_a_label_is_possible_and_not_sure() {
        assert_eq!(of(Some("public"), "customers"), (vec![1], vec![1]));
        assert_eq!(of(None, "customers"), (vec![], vec![1]));
        assert_eq!(of(Some("other"), "customers"), (vec![], vec![]));
        assert_eq!(of(Some("hr"), "anything"), (vec![1], vec![1]));
        // Any table may be the one of a schema that is labelled whole.
        assert_eq!(of(None, "anything"), (vec![], vec![1]));
        assert_eq!(of(None, "orders"), (vec![], vec![0, 1]));
        assert_eq!(of(Some("public"), "orders"), (vec![0], vec![0]));
        // A name that is listed without a schema is meant in each.
        assert_eq!(of(Some("x"), "items"), (vec![0], vec![0]));
        assert_eq!(of(None, "items"), (vec![0], vec![0, 1]));
    }

    #[test]
    fn a_search_path_says_which_schemas_count() {
        let of = |name: &str, path: &[&str]| {
            let path: Vec<String> = path.iter().map(|schema| (*schema).to_owned()).collect();
            let relation = Relation { schema: None, name: name.to_owned(), access: vec![] };
            let found = labels().of(&relation, Some(&path));
            (found.surely, found.possibly)
        };
        assert_eq!(of("orders", &["public"]), (vec![0], vec![0]));
        assert_eq!(of("customers", &["public"]), (vec![1], vec![1]));
        assert_eq!(of("customers", &["public", "other"]), (vec![], vec![1]));
        assert_eq!(of("anything", &["public"]), (vec![], vec![]));
        assert_eq!(of("anything", &["public", "hr"]), (vec![], vec![1]));
        assert_eq!(of("pg_anything", &["hr"]), (vec![], vec![1]), "it may be the server's own");
        assert_eq!(of("anything", &[]), (vec![], vec![1]));
    }

    #[test]
    fn names_are_read_as_sql_reads_them() {
        assert_eq!(Pattern::parse("Public.Customers").unwrap(), Pattern::Exact("public".into(), "customers".into()));
        assert_eq!(Pattern::parse("\"A.b\".\"c\"\"d\"").unwrap(), Pattern::Exact("A.b".into(), "c\"d".into()));
        assert_eq!(Pattern::parse("hr.*").unwrap(), Pattern::Schema("hr".into()));
        assert_eq!(Pattern::parse("straße").unwrap(), Pattern::Name("straße".into()));
        for wrong in ["", "*", "*.a", "a.b.c", "a.", ".a", "1a", "a b", "a.b*", "\"\"", "\"a", "a\"b\"", "a-b"] {
            assert!(Pattern::parse(wrong).is_err(), "{wrong}");
        }
        assert!(Pattern::parse(&"a".repeat(64)).is_err());
        assert_eq!(Pattern::parse("a.\"b\"\"\"").unwrap().canonical(), "\"a\".\"b\"\"\"");
    }
}
