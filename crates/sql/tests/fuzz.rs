//! What the fuzzer has found interesting, replayed; and hostile bytes without a fuzzer.
//!
//! In this process: on what is known, PostgreSQL's parser in C does not end it, and if it ever does, this test should.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::path::Path;

use proptest::prelude::*;

const CORPUS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fuzz/corpus/sql");

/// As the worker does: the parser's stack grows with the text.
fn on_a_large_stack(run: impl FnOnce() + Send + 'static) {
    std::thread::Builder::new().stack_size(64 * 1024 * 1024).spawn(run).unwrap().join().unwrap();
}

#[test]
fn the_corpus_holds() {
    let files: Vec<_> =
        std::fs::read_dir(CORPUS).unwrap().map(|file| std::fs::read(file.unwrap().path()).unwrap()).collect();
    assert!(!files.is_empty());
    on_a_large_stack(move || files.iter().for_each(|file| sql::fuzz::text(file)));
}

/// Makes the corpus of the statements in `tests/corpus`: run it when those change, with `--ignored`.
#[test]
#[ignore = "writes fuzz/corpus/sql"]
fn make_the_corpus() {
    std::fs::create_dir_all(CORPUS).unwrap();
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus");
    for path in std::fs::read_dir(dir).unwrap().map(|file| file.unwrap().path()) {
        let Ok(page) = std::fs::read_to_string(&path).unwrap().parse::<toml::Table>() else { continue };
        let file = path.file_stem().unwrap().to_str().unwrap();
        for (number, entry) in page["statement"].as_array().unwrap().iter().enumerate() {
            let Some(sql) = entry.get("sql").and_then(|sql| sql.as_str()) else { continue };
            // One in eight of each kind, and all that are about lexing; short ones.
            if sql.len() < 400 && (file == "lexing" || number % 8 == 0) {
                let settings = if sql.contains('\\') { 2 } else { 0 };
                let data = [&[settings], sql.as_bytes()].concat();
                std::fs::write(Path::new(CORPUS).join(format!("{file}-{number}")), data).unwrap();
            }
        }
    }
    for (number, text) in WITH_INTEGERS.iter().enumerate() {
        std::fs::write(Path::new(CORPUS).join(format!("integers-{number}")), [&[0], text.as_bytes()].concat()).unwrap();
    }
    for (name, text) in [("parentheses", "(".repeat(2000)), ("arrays", format!("select {}", "array[".repeat(2000)))] {
        std::fs::write(Path::new(CORPUS).join(name), [&[0], text.as_bytes()].concat()).unwrap();
    }
}

/// Texts whose facts may be those of others, and texts that are close to one.
const WITH_INTEGERS: &[&str] = &[
    "select a1 from t where b = 4711 and c < -2 order by 1 limit 3",
    "insert into t values (1, -2), (3, 4) returning 5",
    "update t set a = a + -12 where b in (1, 2, 3)",
    "delete from t where a[1] = 2::varchar(3)::int[4] and b = 5::float(6)",
    "select current_time(1), 2 * 3, x.y1 <> 4",
    "select 1.5, 1e5, 0x1F, 1_000, 1..2, 2147483648",
    "fetch 1 from c; set work_mem = 2",
];

#[test]
fn long_and_deep_texts_are_answered() {
    let repeat = |start: &str, middle: &str, end: &str| format!("{start}{}{end}", middle.repeat(60_000 / middle.len()));
    let texts = [
        repeat("select ", "(", ""),
        repeat("select ", "1+", "1"),
        repeat("select ", "not ", "true"),
        repeat("select ", "- ", "1"),
        repeat("select 1 ", "union select 1 ", ""),
        repeat("select ", "array[", ""),
        repeat("select 1 where true ", "and true ", ""),
        repeat("select ", "case when ", ""),
        repeat("select 1 ", "/*", ""),
        repeat("", "select 1;", ""),
        repeat("select 'a' ", "\n'b'", ""),
        repeat("select ", "f(", ""),
        repeat("select a", ".a", ""),
        repeat("select a", "[1]", ""),
        repeat("select a", "::int", ""),
        repeat("with a as (", "with a as (", ""),
        repeat("select * from a ", "join a ", ""),
        repeat("explain ", "explain ", "select 1"),
        repeat("select U&'", "\\0041", "'"),
        repeat("insert into t values ", "(1),", "(1)"),
        // Of the length that a shape may have.
        format!("select 1{}", "+1".repeat(2000)),
        format!("insert into t values (1){}", ",(1)".repeat(1000)),
    ];
    on_a_large_stack(move || texts.iter().for_each(|text| sql::fuzz::text(&[&[0], text.as_bytes()].concat())));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_hold(data in prop::collection::vec(any::<u8>(), 0..300)) {
        on_a_large_stack(move || sql::fuzz::text(&data));
    }

    #[test]
    fn any_words_hold(settings in 0_u8..6, words in prop::collection::vec(prop::sample::select(WORDS), 0..30)) {
        let data = [&[settings], words.join(" ").as_bytes()].concat();
        on_a_large_stack(move || sql::fuzz::text(&data));
    }
}

const WORDS: &[&str] = &[
    "select",
    "from",
    "where",
    "with",
    "as",
    "(",
    ")",
    ",",
    "delete from",
    "update",
    "set",
    "=",
    "1",
    "'a\\'",
    "E'\\''",
    "$a$",
    "a",
    "b.c",
    "insert into",
    "values",
    "returning",
    "*",
    "union",
    "explain",
    "analyze",
    "copy",
    "to stdout",
    "create table",
    "view",
    "drop",
    "cascade",
    "::",
    "int",
    ";",
    "--",
    "\n",
    "/*",
    "*/",
    "\"x\"",
    "U&\"\\0061\"",
    "join",
    "on",
    "order by",
    "limit",
    "for update",
    "merge into",
    "using",
    "when matched then",
    "truncate",
    "grant",
    "prepare",
    "execute",
    "é",
    "f(",
    "+",
];
