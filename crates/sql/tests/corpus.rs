//! Statements, what is said of them, and what they really do: `corpus/*.toml`.
//!
//! An entry has `sql` (or `hex`, and `pad`: that many blanks before it) and, where they matter, `strings` and `encoding` as
//! settings. The facts must be `operations`, `effects`, `relations`, `functions`, `bounded` (true if absent) and `opaque`;
//! `cargo run -p sql --example facts -- 'STATEMENT'` prints them in this form.
//!
//! On a real server, in the database of `corpus.sql`: `options` and `client_encoding` are those of the session, `setup` and
//! `after` run before and after it in the same session, `cleanup` after it in another. `touches` says what it did to `customers`: `read` (a secret
//! came back), `changed`. `error` says that the server refuses it. `hidden` says that this is behind something that no text
//! shows, and behind what: those are the blind spots.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::Path;
use std::process::{Command, Output};

use model::{Access, Facts};
use sql::{Encoding, Settings, Strings, analyze};
use testkit::Postgres;

const CORPUS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/corpus");
const SECRET: &str = "s3cret-7f";

struct Entry {
    file: String,
    table: toml::Table,
}

impl Entry {
    fn text(&self, field: &str) -> Option<&str> {
        self.table.get(field).map(|value| value.as_str().unwrap())
    }

    fn list(&self, field: &str) -> Vec<&str> {
        let list = self.table.get(field).map(|value| value.as_array().unwrap().iter());
        list.into_iter().flatten().map(|item| item.as_str().unwrap()).collect()
    }

    fn flag(&self, field: &str) -> Option<bool> {
        self.table.get(field).map(|value| value.as_bool().unwrap())
    }

    fn id(&self) -> String {
        format!("{}: {} ({})", self.file, self.text("name").unwrap(), self.text("class").unwrap())
    }

    fn sql(&self) -> Vec<u8> {
        let pad = self.table.get("pad").map_or(0, |pad| usize::try_from(pad.as_integer().unwrap()).unwrap());
        let mut sql = vec![b' '; pad];
        match self.text("hex") {
            Some(hex) => {
                let digits: Vec<u8> = hex.bytes().collect();
                let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
                sql.extend(digits.chunks(2).map(byte));
            }
            None => sql.extend_from_slice(self.text("sql").unwrap().as_bytes()),
        }
        sql
    }

    fn facts(&self) -> Facts {
        let strings = match self.text("strings") {
            None => Strings::Standard,
            Some("escapes") => Strings::Escapes,
            Some("either") => Strings::Either,
            Some(other) => panic!("{}: {other}", self.id()),
        };
        let encoding = match self.text("encoding") {
            None => Encoding::AsciiSafe,
            Some("other") => Encoding::Other,
            Some(other) => panic!("{}: {other}", self.id()),
        };
        analyze(&self.sql(), Settings { strings, encoding })
    }
}

fn corpus() -> Vec<Entry> {
    let mut files: Vec<_> = std::fs::read_dir(CORPUS).unwrap().map(|file| file.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "toml"));
    files.sort();
    files.iter().flat_map(|path| entries(path)).collect()
}

fn entries(path: &Path) -> Vec<Entry> {
    let page: toml::Table = std::fs::read_to_string(path).unwrap().parse().unwrap();
    let file = path.file_stem().unwrap().to_str().unwrap();
    let entry = |value: &toml::Value| Entry { file: file.to_owned(), table: value.as_table().unwrap().clone() };
    page["statement"].as_array().unwrap().iter().map(entry).collect()
}

#[test]
fn facts_are_as_the_corpus_says() {
    let corpus = corpus();
    assert!(corpus.len() > 300);
    let mut wrong = Vec::new();
    for entry in &corpus {
        let facts = entry.facts();
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

struct Server(Postgres);

impl Server {
    fn psql(&self, entry: Option<&Entry>, statements: &[&[u8]]) -> Output {
        let mut psql = Command::new(testkit::postgres::binary("psql"));
        self.0.target().libpq(&mut psql);
        psql.args(["-XAtq", "-v", "ON_ERROR_STOP=1"]);
        if let Some(entry) = entry {
            // Else psql would send what it calls this encoding itself.
            psql.env("PGCLIENTENCODING", entry.text("client_encoding").unwrap_or("UTF8"));
            psql.env("PGOPTIONS", entry.text("options").unwrap_or_default());
        }
        for statement in statements {
            psql.arg("-c").arg(OsString::from_vec(statement.to_vec()));
        }
        psql.output().unwrap()
    }

    fn must(&self, statements: &[&[u8]]) -> String {
        let output = self.psql(None, statements);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    fn run(&self, entry: &Entry) -> (Deed, String) {
        let before = self.must(&[RESET.as_bytes(), STATE.as_bytes()]);
        let sql = entry.sql();
        let setup = entry.text("setup").map(str::as_bytes);
        let after = entry.text("after").map(str::as_bytes);
        let statements: Vec<&[u8]> = setup.into_iter().chain([&sql[..]]).chain(after).collect();
        let output = self.psql(Some(entry), &statements);
        let after = self.must(&[STATE.as_bytes()]);
        if let Some(cleanup) = entry.text("cleanup") {
            for statement in cleanup.split(';') {
                self.must(&[statement.as_bytes()]);
            }
        }
        let deed = Deed {
            read: String::from_utf8_lossy(&output.stdout).contains(SECRET),
            changed: before.lines().last() != after.lines().last(),
            error: !output.status.success(),
        };
        (deed, String::from_utf8_lossy(&output.stderr).into_owned())
    }
}

const RESET: &str = include_str!("corpus/corpus.sql");
/// The rows and columns of `customers`, or that it is not there.
const STATE: &str = "set client_min_messages = error; select md5(coalesce(case when to_regclass('public.customers') is not null then \
    query_to_xml('select * from customers order by id', true, true, '')::text end, 'gone') || \
    coalesce((select string_agg(attname || format_type(atttypid, atttypmod), ' ' order by attnum) from pg_attribute where attrelid = to_regclass('public.customers') and attnum > 0 and not attisdropped), ''))";

/// Each does to a real server what the corpus says, and whatever it did, the facts say so, or that they are not the whole.
#[test]
fn what_statements_really_do_is_in_the_facts() {
    let server = Server(Postgres::start());
    let mut wrong = Vec::new();
    for entry in corpus() {
        let (deed, errors) = server.run(&entry);
        let touches = entry.list("touches");
        let said = Deed {
            read: touches.contains(&"read"),
            changed: touches.contains(&"changed"),
            error: entry.flag("error").unwrap_or(false),
        };
        if deed != said {
            wrong.push(format!("{}: {deed:?}, not {said:?} {}", entry.id(), errors.trim()));
        }
        let facts = entry.facts();
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
