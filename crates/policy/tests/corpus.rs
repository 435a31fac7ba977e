//! What the fuzzer has found interesting, replayed; and hostile files without a fuzzer.
#![allow(clippy::unwrap_used)]

mod common;

use std::path::Path;

use common::*;
use proptest::prelude::*;

const CORPUS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fuzz/corpus/policy");
const EXAMPLES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/examples/policy");

#[test]
fn the_corpus_panics_nowhere() {
    let files: Vec<_> = std::fs::read_dir(CORPUS).unwrap().collect();
    assert!(!files.is_empty());
    for file in files {
        policy::fuzz::policy(&std::fs::read(file.unwrap().path()).unwrap());
    }
}

/// Makes the corpus: run it when the forms change, with `--ignored`.
#[test]
#[ignore = "writes fuzz/corpus/policy"]
fn make_the_corpus() {
    std::fs::create_dir_all(CORPUS).unwrap();
    let write = |name: &str, text: &str| {
        let bytes = [text.as_bytes(), b"\0select * from t0\0\x01\x02\x03\x04\x05\x06\x07\x08"].concat();
        std::fs::write(Path::new(CORPUS).join(name), bytes).unwrap();
    };
    for file in std::fs::read_dir(EXAMPLES).unwrap() {
        let path = file.unwrap().path();
        write(path.file_name().unwrap().to_str().unwrap(), &std::fs::read_to_string(&path).unwrap());
    }
    for (number, when) in CONDITIONS.iter().enumerate() {
        write(&format!("condition-{number}"), &rule(when, if number % 2 == 0 { "deny" } else { "allow" }));
    }
    write("anchors", "a: &a [x]\nb: *a\n");
    write("deep", &format!("version: 1\nrules: {}", "[".repeat(200)));
    write("brackets", &rule(&format!("{}true{}", "(".repeat(16), ")".repeat(16)), "deny"));
}

const CONDITIONS: [&str; 14] = [
    r#"cmd.text.matches("(?i)x{1,20}\\b") || cmd.text.lowerAscii().contains("a")"#,
    r#"cmd.complete && cmd.relations.all(r, "known" in r.labels)"#,
    r#"cmd.relations.exists(r, r.access.all(a, a in ["read", "lock"]) && r.?schema.orValue("") != "x")"#,
    r#"has(conn.labels.env) ? conn.labels.env == "prod" : identity.kind == "agent""#,
    r#"conn.labels[?cmd.operation].hasValue() && cmd.effects[?0].orValue("read") == "write""#,
    r#"session.age * 9223372036854775807 / (time.hour - 3) % 7 > -1"#,
    r#"cmd.relations.map(r, r.name).exists_one(n, n == "t0")"#,
    r#"cmd.relations.filter(r, r.name.size() == 2).size() > 3 || cmd.fingerprint == "a""#,
    r#"cmd.relations.map(r, r.name == "a", r.access) == [["read"], []]"#,
    r#"!!!!-1 == --1 && [1, 2][?5].orValue(7) in [1, 2, 3]"#,
    r#"r'''\''' == "\u00e9\x41\101" && b"a" == b'\xff' && 1u < 2u"#,
    r#"a.b.c.d(e)[f]{g: h}.?i[?j]"#,
    r#"[[[[1]]]].all(a, a.all(b, b.all(c, c == c)))"#,
    r#"true ? false : true ? cmd.has_where : cmd in [cmd]"#,
];

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    #[test]
    fn random_bytes_are_no_policy(data in prop::collection::vec(any::<u8>(), 0..1000)) {
        policy::fuzz::policy(&data);
    }

    #[test]
    fn random_text_is_no_policy(text in "\\PC{0,200}(\n\\PC{0,60}){0,6}") {
        policy::fuzz::policy(text.as_bytes());
    }

    #[test]
    fn random_conditions_are_refused_or_decided(when in "([a-z]{1,4}|cmd|[.]relations|[.]exists|[(]|[)]|r|,|[.]name|==|&&|[|][|]|!|\"a\"|1| in |\\[|\\]|[?]|:|[.]labels|-){1,40}", seed in prop::collection::vec(any::<u8>(), 0..60)) {
        let file = [rule(&when, "deny").as_bytes(), b"\0select 1\0", &seed].concat();
        policy::fuzz::policy(&file);
    }

    #[test]
    fn conditions_with_one_character_changed(at in 0_usize..14, place in any::<prop::sample::Index>(), with in "[ -~é]", seed in prop::collection::vec(any::<u8>(), 0..60)) {
        let mut when: Vec<char> = CONDITIONS.get(at).unwrap().chars().collect();
        let place = place.index(when.len());
        when.splice(place..=place, with.chars());
        let when: String = when.into_iter().collect();
        let file = [rule(&when, "deny").as_bytes(), b"\0select 1\0", &seed].concat();
        policy::fuzz::policy(&file);
    }

    #[test]
    fn good_conditions_over_any_facts(at in 0_usize..9, text in "\\PC{0,300}", seed in prop::collection::vec(any::<u8>(), 0..200)) {
        let rule = rule(CONDITIONS.get(at).unwrap(), "deny");
        policy::fuzz::policy(&[rule.as_bytes(), b"\0", text.as_bytes(), b"\0", &seed].concat());
    }
}

/// What is deep is refused, or is read, in a small stack: never by overflowing it, which nothing could catch.
#[test]
fn deep_conditions_fit_a_small_stack() {
    let thread = std::thread::Builder::new().stack_size(1 << 20).spawn(|| {
        let repeat = |text: &str, times: usize| text.repeat(times);
        for when in [
            format!("{}1{} == 1", repeat("(", 2000), repeat(")", 2000)),
            format!("{}1{} == [1]", repeat("[", 16), repeat("]", 16)),
            format!("{}true{}", repeat("(", 16), repeat(")", 16)),
            format!("cmd{}", repeat(".a", 399)),
            format!("1{} == 1", repeat("+1", 399)),
            format!("1{}", repeat(" in 1", 399)),
            format!("{}true", repeat("!", 799)),
            format!("{}1 == 1", repeat("-", 790)),
            format!("{}false", repeat("true ? false : ", 190)),
            format!("true{}", repeat(" && true", 399)),
            format!("true{}", repeat(" || (true && false)", 100)),
            format!("cmd{}", repeat("[0]", 266)),
            format!("cmd{}", repeat(".f()", 199)),
            format!("r'{}", repeat("(", 3000)),
            format!("'\\'{}", repeat("(", 3000)),
            format!("'''{}", repeat("[", 3000)),
            format!("a'{}'", repeat("{a:", 1300)),
            format!("r'\\' + {}", repeat("(", 3000)),
            format!("{}true{}", repeat("[1].exists(x, ", 15), repeat(")", 15)),
        ] {
            policy::fuzz::policy(rule(&when, "deny").as_bytes());
        }
        for text in [repeat("[", 1 << 20), repeat("{a: ", 1 << 18), repeat("- ", 1 << 19), repeat("? ", 1 << 19)] {
            policy::fuzz::policy(text.as_bytes());
        }
    });
    thread.unwrap().join().unwrap();
}
