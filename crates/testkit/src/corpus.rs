//! The statements of `crates/sql/tests/corpus`, the database that they run in, and what they did to it.
//!
//! An entry has `sql` (or `hex`, and `pad`: that many blanks before it) and, where they matter, `strings` and `encoding` as
//! settings. Its facts are `operations`, `effects`, `relations`, `functions`, `bounded` (true if absent) and `opaque`;
//! `cargo run -p sql --example facts -- 'STATEMENT'` prints them in this form.
//!
//! On a real server, in the database of `corpus.sql`: `options` and `client_encoding` are those of the session, `setup` and
//! `after` run before and after it in the same session, `cleanup` after it in another. `touches` says what it did to `customers`: `read` (a secret
//! came back), `changed`. `error` says that the server refuses it. `hidden` says that this is behind something that no text
//! shows, and behind what: those are the blind spots.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::Path;
use std::process::{Command, Output};

use crate::Target;
use crate::postgres::binary;

const DIR: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../sql/tests/corpus");
/// Makes the database that the statements run in anew.
pub const RESET: &str = include_str!("../../sql/tests/corpus/corpus.sql");
/// Asks for a digest of the rows and columns of `customers`, or of that it is not there.
pub const STATE: &str = "set client_min_messages = error; select md5(coalesce(case when to_regclass('public.customers') is not null then \
    query_to_xml('select * from customers order by id', true, true, '')::text end, 'gone') || \
    coalesce((select string_agg(attname || format_type(atttypid, atttypmod), ' ' order by attnum) from pg_attribute where attrelid = to_regclass('public.customers') and attnum > 0 and not attisdropped), ''))";
/// What is in `customers` and nowhere else.
const SECRET: &str = "s3cret-7f";

/// What becomes of the rest of a session when one of its statements is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnError {
    /// It is left out.
    Stop,
    /// It runs.
    GoOn,
}

/// A statement, and what is said of it.
#[derive(Debug)]
pub struct Entry {
    file: String,
    table: toml::Table,
}

impl Entry {
    /// A field that is a text.
    pub fn text(&self, field: &str) -> Option<&str> {
        self.table.get(field).map(|value| value.as_str().unwrap())
    }

    /// A field that is a list of texts; empty if absent.
    pub fn list(&self, field: &str) -> Vec<&str> {
        let list = self.table.get(field).map(|value| value.as_array().unwrap().iter());
        list.into_iter().flatten().map(|item| item.as_str().unwrap()).collect()
    }

    /// A field that is true or false.
    pub fn flag(&self, field: &str) -> Option<bool> {
        self.table.get(field).map(|value| value.as_bool().unwrap())
    }

    /// Its file, name and class.
    pub fn id(&self) -> String {
        format!("{}: {} ({})", self.file, self.text("name").unwrap(), self.text("class").unwrap())
    }

    /// The statement's bytes.
    pub fn sql(&self) -> Vec<u8> {
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

    /// Runs it in a session of its own, with what belongs before and after it in the session.
    pub fn run(&self, target: &Target, on_error: OnError) -> Output {
        let sql = self.sql();
        let setup = self.text("setup").map(str::as_bytes);
        let after = self.text("after").map(str::as_bytes);
        let mut psql = Command::new(binary("psql"));
        target.libpq(&mut psql);
        // Else psql would send what it calls this encoding itself.
        psql.env("PGCLIENTENCODING", self.text("client_encoding").unwrap_or("UTF8"));
        psql.env("PGOPTIONS", self.text("options").unwrap_or_default());
        psql.arg("-XAtq");
        if on_error == OnError::Stop {
            psql.args(["-v", "ON_ERROR_STOP=1"]);
        }
        for statement in setup.into_iter().chain([&sql[..]]).chain(after) {
            psql.arg("-c").arg(OsString::from_vec(statement.to_vec()));
        }
        psql.output().unwrap()
    }

    /// Undoes what a reset does not.
    pub fn clean_up(&self, mut run: impl FnMut(&str)) {
        self.text("cleanup").into_iter().flat_map(|cleanup| cleanup.split(';')).for_each(&mut run);
    }
}

/// All statements of the corpus.
pub fn statements() -> Vec<Entry> {
    let mut files: Vec<_> = std::fs::read_dir(DIR).unwrap().map(|file| file.unwrap().path()).collect();
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

/// Whether a secret of `customers` came back.
pub fn shows_a_secret(output: &Output) -> bool {
    String::from_utf8_lossy(&output.stdout).contains(SECRET)
}
