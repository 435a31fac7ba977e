//! Statements, what is said of them, and what they really do: `corpus/*.toml`. What is in those: [`testkit::corpus`].
#![allow(clippy::unwrap_used)]

use model::{Access, Facts};
use sql::{Encoding, Settings, Strings, analyze};
use testkit::Postgres;
use testkit::corpus::{Entry, OnError, RESET, STATE, shows_a_secret, statements};

fn facts(entry: &Entry) -> Facts {
    let strings = match entry.text("strings") {
        None => Strings::Standard,
        Some("escapes") => Strings::Escapes,
        Some("either") => Strings::Either,
        Some(other) => panic!("{}: {other}", entry.id()),
    };
    let encoding = match entry.text("encoding") {
        None => Encoding::AsciiSafe,
        Some("other") => Encoding::Other,
        Some(other) => panic!("{}: {other}", entry.id()),
    };
    analyze(&entry.sql(), Settings { strings, encoding })
}

#[test]
fn facts_are_as_the_corpus_says() {
    let corpus = statements();
    assert!(corpus.len() > 300);
    let mut wrong = Vec::new();
    for entry in &corpus {
        let facts = facts(entry);
        let relation = |relation: &model::Relation| {
            let schema = relation.schema.as_ref().map_or(String::new(), |schema| format!("{schema}."));
            let access: Vec<&str> = relation.access.iter().map(|access| access.as_str()).collect();
            format!("{schema}{}: {}", relation.name, access.join(" "))
        };
        let said = [
            ("operations", facts.operations.iter().map(|operation| operation.as_str().to_owned()).collect()),
            ("effects", facts.effects.iter().map(|effect| effect.as_str().to_owned()).collect()),
            ("relations", facts.relations.iter().map(relation).collect()),
            ("functions", facts.functions.clone()),
            ("opaque", facts.opaque.iter().map(|reason| reason.as_str().to_owned()).collect::<Vec<String>>()),
        ];
        for (field, said) in said {
            if entry.list(field) != said {
                wrong.push(format!("{}: {field} {said:?}, not {:?}", entry.id(), entry.list(field)));
            }
        }
        if entry.flag("bounded").unwrap_or(true) != facts.bounded {
            wrong.push(format!("{}: bounded {}", entry.id(), facts.bounded));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// What a statement did on the server.
#[derive(Debug, PartialEq, Eq)]
struct Deed {
    read: bool,
    changed: bool,
    error: bool,
}

/// Runs an entry in a database that is made anew, and says what it did, and what psql said of it.
fn run(server: &Postgres, entry: &Entry) -> (Deed, String) {
    server.sql(RESET);
    let before = server.sql(STATE);
    let output = entry.run(&server.target(), OnError::Stop);
    let changed = before != server.sql(STATE);
    entry.clean_up(|statement| {
        server.sql(statement);
    });
    let deed = Deed { read: shows_a_secret(&output), changed, error: !output.status.success() };
    (deed, String::from_utf8_lossy(&output.stderr).into_owned())
}

/// Each does to a real server what the corpus says, and whatever it did, the facts say so, or that they are not the whole.
#[test]
fn what_statements_really_do_is_in_the_facts() {
    let server = Postgres::start_with(&["max_prepared_transactions=4"]);
    let mut wrong = Vec::new();
    for entry in statements() {
        let (deed, errors) = run(&server, &entry);
        let touches = entry.list("touches");
        let said = Deed {
            read: touches.contains(&"read"),
            changed: touches.contains(&"changed"),
            error: entry.flag("error").unwrap_or(false),
        };
        if deed != said {
            wrong.push(format!("{}: {deed:?}, not {said:?} {}", entry.id(), errors.trim()));
        }
        let facts = facts(&entry);
        let has = |access: &[Access]| {
            let mut customers = facts.relations.iter().filter(|relation| relation.name == "customers");
            customers.any(|relation| access.iter().any(|access| relation.access.contains(access)))
        };
        let read = !deed.read || has(&[Access::Read]) || !facts.complete();
        let changed = !deed.changed || has(&[Access::Write, Access::Define]) || !facts.complete();
        match (entry.text("hidden"), read && changed) {
            (None, true) => {}
            (None, false) => wrong.push(format!("{}: EVADED: {deed:?} {facts:?}", entry.id())),
            // What is no blind spot is not to be called one.
            (Some(_), true) if !touches.is_empty() => wrong.push(format!("{}: is not hidden", entry.id())),
            (Some(_), _) => {}
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
