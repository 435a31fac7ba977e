//! A conservative reading of an SQL text: only enough to say what it may do to names and to the session.
//!
//! For: deciding whether a prepared statement or portal may still be what the client defined over the protocol.
//! Not for: policy or the record; those use the server's own grammar. A wrong answer on the safe side costs a
//! second Parse; so whatever is not recognised counts as able to do everything.

mod tokens;
mod words;

use tokens::{Token, Tokens, contains};
use words::{BUILTINS, DEFINES_CODE, KEYWORDS, KEYWORDS_AFTER, KEYWORDS_BETWEEN, TARGETS};

/// What a text may do. A pure function of the text, so that it can be kept with a prepared statement.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Class {
    /// Touches prepared statements, cursors or settings by SQL: names that were confirmed before are in doubt.
    pub(crate) names: bool,
    /// Runs or creates code that we cannot see: names stay in doubt until the session ends.
    pub(crate) opaque: bool,
    /// Changes what an unqualified function name means (DDL, search_path, role).
    pub(crate) shadows: bool,
    /// Calls a well-known built-in function without naming its schema.
    pub(crate) builtins: bool,
    /// Has a backslash in a plain quoted string: where that string ends depends on a setting.
    pub(crate) backslash: bool,
    /// May start COPY FROM STDIN.
    pub(crate) copy_in: bool,
    /// May commit by itself, or leave effects that a rollback does not undo.
    pub(crate) outside_transaction: bool,
    /// Rolls back to a savepoint.
    pub(crate) savepoint: bool,
}

impl Class {
    /// A text that was not read.
    pub(crate) const UNREAD: Self = Self {
        names: true,
        opaque: true,
        shadows: true,
        builtins: true,
        backslash: true,
        copy_in: true,
        outside_transaction: true,
        savepoint: true,
    };
}

/// Reads a text.
pub(crate) fn classify(text: &[u8]) -> Class {
    let mut class = Class::default();
    let mut tokens = Tokens::new(text);
    let mut statement = Statement::default();
    while let Some(token) = tokens.next() {
        if token == Token::Symbol(b';') {
            statement = Statement::default();
        } else {
            statement.token(&token, &mut class);
        }
    }
    class.backslash |= tokens.backslash;
    // Quoting cannot hide these words where they are keywords. The grammar takes STDOUT for STDIN, and the other way
    // round: `copy t from stdout` reads from the client.
    class.copy_in =
        contains(text, b"copy") && (contains(text, b"stdin") || contains(text, b"stdout") && contains(text, b"from"));
    class
}

/// What kind of statement the first word says it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Verb {
    /// No word yet.
    #[default]
    Awaited,
    /// CREATE, ALTER, DROP and the like of tables and other things that are not code.
    Define,
    /// Whatever it is, it is settled.
    Other,
    Set,
}

/// A statement while it is read.
#[derive(Debug)]
struct Statement {
    verb: Verb,
    before: Token,
    /// The token before that.
    earlier: Token,
    /// Behind `INSERT INTO`, `COPY` or `CREATE TABLE`: a name, and its parenthesis is a list of columns.
    target: bool,
    /// CREATE INDEX.
    index: bool,
    /// `pg_catalog.` was just read, or it and a name.
    catalog: bool,
    words: usize,
}

impl Default for Statement {
    fn default() -> Self {
        let none = Token::Symbol(b';');
        Self { verb: Verb::Awaited, before: none, earlier: none, target: false, index: false, catalog: false, words: 0 }
    }
}

impl Statement {
    fn token(&mut self, token: &Token, class: &mut Class) {
        let dotted = self.before == Token::Symbol(b'.');
        match token {
            Token::Word(word) => {
                self.catalog &= dotted;
                self.word(word.text(), dotted, class);
            }
            Token::Symbol(b'(') => {
                self.parenthesis(class);
                self.target = false;
            }
            Token::Symbol(b'.') => self.catalog = self.before_is(&["pg_catalog"]),
            // `"prepare" ...` starts nothing that the server would run.
            Token::Quoted | Token::Literal | Token::Symbol(_) if self.verb == Verb::Awaited => {
                self.verb = Verb::Other;
            }
            Token::Quoted => self.target &= dotted || self.before_is(&TARGETS),
            Token::Literal | Token::Symbol(_) => {}
        }
        self.earlier = std::mem::replace(&mut self.before, *token);
    }

    fn word(&mut self, word: &str, dotted: bool, class: &mut Class) {
        self.words += 1;
        if self.verb == Verb::Awaited {
            self.verb = first(word, class);
            self.target = word == "copy";
            return;
        }
        match word {
            "into" => self.target = self.before_is(&["insert", "merge"]),
            "table" | "references" => self.target = self.verb == Verb::Define,
            "index" => self.index |= self.verb == Verb::Define && self.words <= 3,
            "on" | "using" => self.target = self.index,
            "deallocate" | "declare" | "discard" | "execute" | "prepare" => class.names = true,
            "concurrently" | "database" | "subscription" | "tablespace" => class.outside_transaction = true,
            "savepoint" => class.savepoint = true,
            "if" | "not" | "exists" | "only" => {}
            _ => self.target &= dotted || self.before_is(&TARGETS),
        }
        // ROLLBACK TO needs no SAVEPOINT; a TO elsewhere costs an `unknown`, nothing more.
        if word == "to" && self.before_is(&["rollback", "transaction", "work"]) {
            class.savepoint = true;
        }
        match self.verb {
            Verb::Set => match word {
                "search_path" | "schema" | "role" | "authorization" => {
                    class.shadows = true;
                    class.names = true;
                }
                "client_encoding" | "names" => class.opaque = true,
                "standard_conforming_strings" => class.names = true,
                _ => {}
            },
            Verb::Define if DEFINES_CODE.contains(&word) => class.opaque = true,
            Verb::Awaited | Verb::Define | Verb::Other => {}
        }
    }

    fn parenthesis(&self, class: &mut Class) {
        let name = match &self.before {
            Token::Word(word) => word.text(),
            Token::Quoted => {
                class.opaque |= !self.target;
                return;
            }
            Token::Literal | Token::Symbol(_) => return,
        };
        if self.target || self.words == 1 {
            return;
        }
        let builtin = BUILTINS.binary_search(&name).is_ok();
        if self.earlier == Token::Symbol(b'.') {
            class.opaque |= !(builtin && self.catalog);
        } else if builtin {
            class.builtins = true;
        } else if !self.keyword(name) {
            class.opaque = true;
        }
    }

    /// Whether the word before a parenthesis is a keyword where it stands.
    fn keyword(&self, name: &str) -> bool {
        if KEYWORDS.binary_search(&name).is_ok() {
            return true;
        }
        let between = KEYWORDS_BETWEEN.contains(&name);
        match &self.earlier {
            Token::Word(word) => {
                let earlier = word.text();
                // `WITH name (columns) AS`, where no function can be.
                matches!(earlier, "with" | "recursive")
                    || (between && KEYWORDS.binary_search(&earlier).is_err())
                    || (name == "like" || name == "ilike") && earlier == "not"
                    || KEYWORDS_AFTER.iter().any(|(word, after)| *word == name && after.contains(&earlier))
            }
            Token::Quoted | Token::Literal | Token::Symbol(b')') => between,
            Token::Symbol(_) => false,
        }
    }

    fn before_is(&self, words: &[&str]) -> bool {
        matches!(&self.before, Token::Word(word) if words.contains(&word.text()))
    }
}

/// What the first word of a statement says about it.
fn first(word: &str, class: &mut Class) -> Verb {
    match word {
        "abort" | "begin" | "commit" | "copy" | "delete" | "end" | "explain" | "insert" | "listen" | "lock"
        | "merge" | "notify" | "release" | "rollback" | "savepoint" | "select" | "show" | "start" | "table"
        | "truncate" | "unlisten" | "update" | "values" | "with" => {
            class.savepoint |= word == "savepoint";
        }
        "analyze" | "vacuum" => class.outside_transaction = true,
        "close" | "deallocate" | "declare" | "discard" | "execute" | "fetch" | "move" | "prepare" => {
            class.names = true;
            // DISCARD ALL and EXECUTE of a SET change more than names.
            class.shadows |= matches!(word, "discard" | "execute");
        }
        "reset" => {
            class.names = true;
            class.shadows = true;
        }
        "set" => return Verb::Set,
        "alter" | "comment" | "create" | "drop" | "grant" | "revoke" => {
            class.names = true;
            class.shadows = true;
            return Verb::Define;
        }
        // CALL, DO, LOAD, REINDEX, CLUSTER, REFRESH and what we do not know.
        _ => {
            class.opaque = true;
            class.outside_transaction = true;
        }
    }
    Verb::Other
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::*;

    fn plain(text: &str) {
        let class = classify(text.as_bytes());
        assert!(!class.names && !class.opaque, "{text}: {class:?}");
    }

    fn doubts(text: &str) {
        let class = classify(text.as_bytes());
        assert!(class.names || class.opaque, "{text}: {class:?}");
    }

    fn opaque(text: &str) {
        assert!(classify(text.as_bytes()).opaque, "{text}");
    }

    #[test]
    fn lists_are_sorted() {
        assert!(BUILTINS.is_sorted() && KEYWORDS.is_sorted());
        assert!(BUILTINS.iter().all(|name| KEYWORDS.binary_search(name).is_err()));
    }

    #[test]
    fn ordinary_statements_are_plain() {
        for text in [
            "",
            ";;",
            "select 1",
            "SELECT abalance FROM pgbench_accounts WHERE aid = $1",
            "select count(*), max(a) from t where b in (1,2) and (c = 2 or not (d))",
            "insert into t (a, b) values ($1, $2) on conflict (a) do update set b = excluded.b returning *",
            "insert into s.t(a) select upper(x) from u",
            "INSERT INTO \"T\" (a) values (1)",
            "update t set (a, b) = (1, 2)",
            "with a as (select 1), b as materialized (select 2) select * from a, b",
            "with recursive n(i) as (select 1 union all select i + 1 from n) select * from n",
            "select * from a left join (select 1) b on (a.x = b.x)",
            "select sum(x) filter (where x > 1) over (partition by y order by z) from t",
            "select 'prepare x as' || $$ do it( $$ || $a$f(x)$a$ -- f(x)\n, /* f( /* g( */ ) */ 1",
            "begin; select 1; commit",
            "set local statement_timeout = 10",
            "copy t (a, b) from stdin",
            "copy (select 1) to stdout",
            "select pg_catalog.lower('a')",
            "select cast(a as numeric(10, 2))::varchar(3) from t where a like ('x') and b not like ('y')",
            "select close, fetch_ from t",
            "explain (analyze) select 1",
            "vacuum (verbose) t",
            "select e'it\\'s; do it(' from t",
        ] {
            plain(text);
        }
    }

    #[test]
    fn whatever_reaches_names_by_sql_is_seen() {
        for text in [
            "prepare s1 as select 1",
            "/* x */ PREPARE s1 as select 1",
            "select 1; deallocate s1",
            "(select 1); discard all",
            "declare c cursor for select 1",
            "close c",
            "fetch c",
            "move c",
            "execute s1",
            "explain execute s1",
            "explain analyze execute s1",
            "create table x as execute s1",
            "reset all",
            "set search_path to x",
            "set standard_conforming_strings = off",
        ] {
            doubts(text);
        }
    }

    #[test]
    fn code_that_cannot_be_seen_is_opaque() {
        for text in [
            "do $$ begin end $$",
            "call p()",
            "select f()",
            "select f ()",
            "select f/**/(1)",
            "select f--\n(1)",
            "select \"f\"(1)",
            "select u&\"f\"(1)",
            "select s.f(1)",
            "select s.lower('x')",
            "select x.pg_catalog.g(1)",
            "select pg_catalog.set_config('a', 'b', false)",
            "select like(1)",
            "select 1, join(1)",
            "select (over(1))",
            "select a into t where f(1)",
            "create table x as select 1 from a join b on f(a)",
            "create function f() returns int language sql as 'select 1'",
            "create or replace view v as select 1",
            "alter function f() rename to g",
            "create trigger t before insert on t for each row execute function f()",
            "load 'x'",
            "frobnicate",
            "insert into t values (f(1))",
            "insert into t select f(1)",
            "copy (select f(1)) to stdout",
            "select 'a' 'b', f(1)",
            "select $1f(1)",
            "select a$b$(1) $b$",
            "set client_encoding to sjis",
        ] {
            opaque(text);
        }
    }

    #[test]
    fn table_definitions_doubt_names_once_and_shadow() {
        for text in [
            "create table t (a int primary key, b varchar(10) references u (x))",
            "create table if not exists s.t (a int)",
            "create unique index i on t using btree (a, lower(b))",
            "alter table t add column a int",
            "drop table t",
        ] {
            let class = classify(text.as_bytes());
            assert!(class.names && class.shadows && !class.opaque, "{text}: {class:?}");
        }
    }

    #[test]
    fn a_backslash_in_a_plain_string_is_reported() {
        assert!(classify(br"select 'a\'; drop table t; --'").backslash);
        assert!(classify(br"select e'a' 'b\'").backslash);
        assert!(classify(b"select e'a'\n'b'").backslash);
        assert!(!classify(br"select e'a\\b'").backslash);
        assert!(!classify(br"select 1 -- \").backslash);
    }

    #[test]
    fn copy_from_stdin_is_found_wherever_it_hides() {
        assert!(classify(b"select 1; CoPy t from/**/STDIN").copy_in);
        assert!(classify(b"copy t from stdout").copy_in);
        assert!(classify(br"select '\'; copy t from stdin; --'").copy_in);
        assert!(!classify(b"copy t to stdout").copy_in);
    }

    #[test]
    fn builtins_are_told_apart() {
        assert!(classify(b"select lower(x) from t").builtins);
        assert!(!classify(b"select pg_catalog.lower(x) from t").builtins);
        assert!(!classify(b"select x from t").builtins);
    }
}
