//! A conservative reading of an SQL text: only enough to say what it may do to names and to the session.
//!
//! For: deciding whether a prepared statement or portal may still be what the client defined over the protocol.
//! Not for: policy or the record; those use the server's own grammar. A wrong answer on the safe side costs a
//! second Parse; so whatever is not recognised counts as able to do everything.

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
    let mut tokens = Tokens {
        text,
        at: 0,
        backslash: false,
        escaped: false,
    };
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
    class.copy_in = contains(text, b"copy")
        && (contains(text, b"stdin") || contains(text, b"stdout") && contains(text, b"from"));
    class
}

/// The longest word that any list below has.
const WORD_BYTES_MAX: usize = 32;

/// A word in lower case, cut: longer words are in no list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Word {
    bytes: [u8; WORD_BYTES_MAX],
    length: u8,
}

impl Word {
    const NONE: Self = Self {
        bytes: [0; WORD_BYTES_MAX],
        length: 0,
    };

    fn new(text: &[u8]) -> Self {
        let mut word = Self::NONE;
        if text.len() > WORD_BYTES_MAX {
            // Not empty and in no list.
            word.length = 1;
            return word;
        }
        for (to, from) in word.bytes.iter_mut().zip(text) {
            *to = from.to_ascii_lowercase();
        }
        word.length = u8::try_from(text.len()).unwrap_or(0);
        word
    }

    fn text(&self) -> &str {
        self.bytes
            .get(..usize::from(self.length))
            .and_then(|bytes| std::str::from_utf8(bytes).ok())
            .unwrap_or("?")
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Token {
    /// A quoted identifier: never a keyword.
    Quoted,
    /// A string or a number.
    Literal,
    Symbol(u8),
    Word(Word),
}

#[derive(Debug)]
struct Tokens<'b> {
    text: &'b [u8],
    at: usize,
    backslash: bool,
    /// The last token was a string with escapes: a string right behind it may be its continuation.
    escaped: bool,
}

impl Tokens<'_> {
    fn peek(&self, ahead: usize) -> u8 {
        self.text
            .get(self.at.saturating_add(ahead))
            .copied()
            .unwrap_or(0)
    }

    fn ended(&self) -> bool {
        self.at >= self.text.len()
    }

    fn next(&mut self) -> Option<Token> {
        self.blank();
        if self.ended() {
            return None;
        }
        let escaped = std::mem::take(&mut self.escaped);
        Some(match (self.peek(0), self.peek(1), self.peek(2)) {
            (b'\'', ..) => {
                self.backslash |= escaped;
                self.string(1, false)
            }
            (b'e' | b'E', b'\'', _) => {
                self.escaped = true;
                self.string(2, true)
            }
            (b'b' | b'B' | b'x' | b'X' | b'n' | b'N', b'\'', _) => self.string(2, false),
            (b'u' | b'U', b'&', b'\'') => self.string(3, false),
            (b'u' | b'U', b'&', b'"') => self.identifier(3),
            (b'"', ..) => self.identifier(1),
            (b'$', ..) => self.dollar(),
            (first, ..) if starts_word(first) => self.word(),
            (b'0'..=b'9', ..) => {
                // What is glued to a number counts as a word of its own, as it does in older servers.
                while self.peek(0).is_ascii_digit() {
                    self.at += 1;
                }
                Token::Literal
            }
            (symbol, ..) => {
                self.at += 1;
                Token::Symbol(symbol)
            }
        })
    }

    fn blank(&mut self) {
        while !self.ended() {
            match (self.peek(0), self.peek(1)) {
                (b' ' | b'\t' | b'\n' | b'\r' | 0x0B | 0x0C, _) => self.at += 1,
                (b'-', b'-') => {
                    while !self.ended() && !matches!(self.peek(0), b'\n' | b'\r') {
                        self.at += 1;
                    }
                }
                (b'/', b'*') => self.comment(),
                _ => return,
            }
        }
    }

    fn comment(&mut self) {
        let mut depth = 0_usize;
        while !self.ended() {
            match (self.peek(0), self.peek(1)) {
                (b'/', b'*') => {
                    depth += 1;
                    self.at += 2;
                }
                (b'*', b'/') => {
                    depth -= 1;
                    self.at += 2;
                    if depth == 0 {
                        return;
                    }
                }
                _ => self.at += 1,
            }
        }
    }

    fn string(&mut self, prefix: usize, escapes: bool) -> Token {
        self.at += prefix;
        while !self.ended() {
            match (self.peek(0), self.peek(1)) {
                (b'\'', b'\'') => self.at += 2,
                (b'\'', _) => {
                    self.at += 1;
                    break;
                }
                (b'\\', _) if escapes => self.at += 2,
                (b'\\', _) => {
                    self.backslash = true;
                    self.at += 1;
                }
                _ => self.at += 1,
            }
        }
        Token::Literal
    }

    fn identifier(&mut self, prefix: usize) -> Token {
        self.at += prefix;
        while !self.ended() {
            match (self.peek(0), self.peek(1)) {
                (b'"', b'"') => self.at += 2,
                (b'"', _) => {
                    self.at += 1;
                    break;
                }
                _ => self.at += 1,
            }
        }
        Token::Quoted
    }

    /// `$1`, `$$text$$` or `$tag$text$tag$`.
    fn dollar(&mut self) -> Token {
        let rest = self.text.get(self.at..).unwrap_or_default();
        let tag = rest
            .iter()
            .skip(1)
            .take_while(|byte| continues_word(**byte) && **byte != b'$')
            .count();
        let numbered = rest.get(1).is_some_and(u8::is_ascii_digit);
        if numbered || rest.get(tag + 1) != Some(&b'$') {
            self.at += 1;
            return Token::Symbol(b'$');
        }
        let (mark, body) = rest.split_at_checked(tag + 2).unwrap_or((rest, &[]));
        let end = body
            .windows(mark.len())
            .position(|window| window == mark)
            .unwrap_or(body.len());
        self.at += mark.len() + end + mark.len();
        Token::Literal
    }

    fn word(&mut self) -> Token {
        let start = self.at;
        while continues_word(self.peek(0)) {
            self.at += 1;
        }
        Token::Word(Word::new(self.text.get(start..self.at).unwrap_or_default()))
    }
}

fn starts_word(byte: u8) -> bool {
    byte.is_ascii_alphabetic() || byte == b'_' || byte >= 0x80
}

fn continues_word(byte: u8) -> bool {
    starts_word(byte) || byte.is_ascii_digit() || byte == b'$'
}

/// Whether `text` has the lower-case `word` in it, whatever its case.
fn contains(text: &[u8], word: &[u8]) -> bool {
    let first = word.first().copied().unwrap_or(0);
    text.windows(word.len()).any(|window| {
        window.first().is_some_and(|byte| byte | 0x20 == first) && window.eq_ignore_ascii_case(word)
    })
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
        Self {
            verb: Verb::Awaited,
            before: none,
            earlier: none,
            target: false,
            index: false,
            catalog: false,
            words: 0,
        }
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
            "concurrently" | "database" | "subscription" | "tablespace" => {
                class.outside_transaction = true
            }
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
                    || KEYWORDS_AFTER
                        .iter()
                        .any(|(word, after)| *word == name && after.contains(&earlier))
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
        "abort" | "begin" | "commit" | "copy" | "delete" | "end" | "explain" | "insert"
        | "listen" | "lock" | "merge" | "notify" | "release" | "rollback" | "savepoint"
        | "select" | "show" | "start" | "table" | "truncate" | "unlisten" | "update" | "values"
        | "with" => {
            class.savepoint |= word == "savepoint";
        }
        "analyze" | "vacuum" => class.outside_transaction = true,
        "close" | "deallocate" | "declare" | "discard" | "execute" | "fetch" | "move"
        | "prepare" => {
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

/// Words behind which the name of a table stands.
const TARGETS: [&str; 10] = [
    "copy",
    "exists",
    "into",
    "on",
    "only",
    "references",
    "table",
    "using",
    "if",
    "not",
];

/// Words that say that a definition is about code, or about what runs code.
const DEFINES_CODE: [&str; 21] = [
    "aggregate",
    "cast",
    "collation",
    "conversion",
    "domain",
    "event",
    "extension",
    "foreign",
    "function",
    "language",
    "operator",
    "policy",
    "procedure",
    "routine",
    "rule",
    "server",
    "system",
    "transform",
    "trigger",
    "type",
    "view",
];

/// Functions of pg_catalog that run nothing of the user's. Sorted.
const BUILTINS: [&str; 186] = [
    "abs",
    "acos",
    "age",
    "array_agg",
    "array_append",
    "array_cat",
    "array_length",
    "array_lower",
    "array_position",
    "array_prepend",
    "array_remove",
    "array_replace",
    "array_to_json",
    "array_to_string",
    "array_upper",
    "ascii",
    "asin",
    "atan",
    "atan2",
    "avg",
    "bit_length",
    "bool_and",
    "bool_or",
    "btrim",
    "cardinality",
    "cbrt",
    "ceil",
    "ceiling",
    "char_length",
    "character_length",
    "chr",
    "clock_timestamp",
    "col_description",
    "concat",
    "concat_ws",
    "cos",
    "count",
    "cume_dist",
    "current_database",
    "current_schema",
    "currval",
    "date_part",
    "date_trunc",
    "decode",
    "degrees",
    "dense_rank",
    "div",
    "encode",
    "every",
    "exp",
    "first_value",
    "floor",
    "format",
    "format_type",
    "gcd",
    "gen_random_uuid",
    "generate_series",
    "generate_subscripts",
    "has_schema_privilege",
    "has_table_privilege",
    "initcap",
    "isfinite",
    "json_agg",
    "json_array_length",
    "json_build_array",
    "json_build_object",
    "json_each",
    "json_each_text",
    "json_extract_path_text",
    "json_object_agg",
    "json_typeof",
    "jsonb_agg",
    "jsonb_array_elements",
    "jsonb_array_length",
    "jsonb_build_array",
    "jsonb_build_object",
    "jsonb_each",
    "jsonb_each_text",
    "jsonb_extract_path",
    "jsonb_extract_path_text",
    "jsonb_object_agg",
    "jsonb_set",
    "jsonb_typeof",
    "lag",
    "last_value",
    "lastval",
    "lcm",
    "lead",
    "left",
    "length",
    "ln",
    "log",
    "lower",
    "lpad",
    "ltrim",
    "make_date",
    "make_interval",
    "make_timestamp",
    "max",
    "md5",
    "min",
    "mod",
    "mode",
    "nextval",
    "now",
    "nth_value",
    "ntile",
    "obj_description",
    "octet_length",
    "percent_rank",
    "percentile_cont",
    "percentile_disc",
    "pg_advisory_lock",
    "pg_advisory_unlock",
    "pg_advisory_xact_lock",
    "pg_backend_pid",
    "pg_database_size",
    "pg_encoding_to_char",
    "pg_get_constraintdef",
    "pg_get_expr",
    "pg_get_indexdef",
    "pg_get_userbyid",
    "pg_relation_size",
    "pg_size_pretty",
    "pg_sleep",
    "pg_table_is_visible",
    "pg_total_relation_size",
    "pg_try_advisory_lock",
    "pi",
    "power",
    "quote_ident",
    "quote_literal",
    "quote_nullable",
    "radians",
    "random",
    "rank",
    "regexp_match",
    "regexp_matches",
    "regexp_replace",
    "regexp_split_to_array",
    "regexp_split_to_table",
    "repeat",
    "replace",
    "reverse",
    "right",
    "round",
    "row_number",
    "row_to_json",
    "rpad",
    "rtrim",
    "setval",
    "sha256",
    "shobj_description",
    "sign",
    "sin",
    "split_part",
    "sqrt",
    "starts_with",
    "statement_timestamp",
    "stddev",
    "stddev_pop",
    "stddev_samp",
    "string_agg",
    "string_to_array",
    "strpos",
    "substr",
    "sum",
    "tan",
    "timeofday",
    "to_char",
    "to_date",
    "to_hex",
    "to_json",
    "to_jsonb",
    "to_number",
    "to_timestamp",
    "transaction_timestamp",
    "translate",
    "trunc",
    "unnest",
    "upper",
    "var_pop",
    "var_samp",
    "variance",
    "version",
    "width_bucket",
];

/// Keywords that cannot be the name of a function: reserved ones, and those of types and of special syntax. Sorted.
const KEYWORDS: [&str; 126] = [
    "all",
    "analyse",
    "analyze",
    "and",
    "any",
    "array",
    "as",
    "asc",
    "between",
    "bigint",
    "bit",
    "boolean",
    "both",
    "case",
    "cast",
    "char",
    "character",
    "check",
    "coalesce",
    "collate",
    "column",
    "constraint",
    "create",
    "current_catalog",
    "current_date",
    "current_role",
    "current_time",
    "current_timestamp",
    "current_user",
    "dec",
    "decimal",
    "default",
    "deferrable",
    "desc",
    "distinct",
    "do",
    "else",
    "end",
    "except",
    "exists",
    "extract",
    "false",
    "fetch",
    "float",
    "for",
    "foreign",
    "from",
    "grant",
    "greatest",
    "group",
    "grouping",
    "having",
    "in",
    "initially",
    "inout",
    "int",
    "integer",
    "intersect",
    "interval",
    "into",
    "lateral",
    "leading",
    "least",
    "limit",
    "localtime",
    "localtimestamp",
    "national",
    "nchar",
    "none",
    "not",
    "null",
    "nullif",
    "numeric",
    "offset",
    "on",
    "only",
    "or",
    "order",
    "out",
    "overlay",
    "placing",
    "position",
    "precision",
    "primary",
    "real",
    "references",
    "returning",
    "row",
    "select",
    "session_user",
    "setof",
    "smallint",
    "some",
    "substring",
    "symmetric",
    "table",
    "then",
    "time",
    "timestamp",
    "to",
    "trailing",
    "treat",
    "trim",
    "true",
    "union",
    "unique",
    "user",
    "using",
    "values",
    "varchar",
    "variadic",
    "when",
    "where",
    "window",
    "with",
    "xmlattributes",
    "xmlconcat",
    "xmlelement",
    "xmlexists",
    "xmlforest",
    "xmlnamespaces",
    "xmlparse",
    "xmlpi",
    "xmlroot",
    "xmlserialize",
    "xmltable",
];

/// Keywords that could be the name of a function, and the words after which they are not.
const KEYWORDS_AFTER: [(&str, &[&str]); 10] = [
    ("bernoulli", &["tablesample"]),
    ("by", &["group", "order", "partition"]),
    ("conflict", &["on"]),
    ("cube", &["by"]),
    (
        "join",
        &[
            "cross", "full", "inner", "left", "natural", "outer", "right",
        ],
    ),
    ("key", &["foreign", "primary"]),
    ("materialized", &["as", "not"]),
    ("rollup", &["by"]),
    ("sets", &["grouping"]),
    ("varying", &["bit", "char", "character", "nchar"]),
];

/// Keywords that are not the name of a function behind an operand.
const KEYWORDS_BETWEEN: [&str; 8] = [
    "filter", "ilike", "include", "join", "like", "operator", "over", "set",
];

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
        assert!(
            BUILTINS
                .iter()
                .all(|name| KEYWORDS.binary_search(name).is_err())
        );
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
            assert!(
                class.names && class.shadows && !class.opaque,
                "{text}: {class:?}"
            );
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
