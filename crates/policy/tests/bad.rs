//! Files that are wrong, and what is said about each.
#![allow(clippy::unwrap_used)]

mod common;

use common::*;
use policy::{PolicyFile, PolicySet};

/// What is said about a rule with this condition.
#[track_caller]
fn condition(when: &str, then: &str, said: &str) {
    let problems = problems(&rule(when, then));
    assert_eq!(problems, [format!("a.yaml:7: rule r: {said}")], "{when}");
}

#[test]
fn conditions_that_name_what_there_is_not() {
    let cases = [
        ("cmd.operaton == \"select\"", "`cmd.operaton` does not exist; write `cmd.operation`"),
        ("comand.text == \"\"", "`comand` does not exist; write one of `identity`, `conn`, `cmd`, `time` or `session`"),
        ("cnd.has_where", "`cnd` does not exist; write `cmd`"),
        (".cmd.has_where", "`.cmd` does not exist; write `cmd`"),
        (
            "cmd.relations.exists(r, r.table == \"x\")",
            "`r.table` does not exist; write one of `schema`, `name`, `access` or `labels`",
        ),
        (
            "cmd.relations.exists(r, s.name == \"x\")",
            "`s` does not exist; write one of `r`, `identity`, `conn`, `cmd`, `time` or `session`",
        ),
        (
            "cmd.relations.name == \"x\"",
            "`cmd.relations.name` asks for a field of a list, which has none; write `.exists(x, ...)` or `.all(x, ...)` to look through the list",
        ),
        ("cmd.text.startWith(\"x\")", "the function \"startWith\" does not exist; write `startsWith`"),
        (
            "now() > 3",
            "the function \"now\" does not exist; write one of `all`, `contains`, `endsWith`, `exists`, `exists_one`, `filter`, `has`, `hasValue`, `lowerAscii`, `map`, `matches`, `orValue`, `size` or `startsWith`",
        ),
        (
            "timestamp(\"2020-01-01T00:00:00Z\") == cmd.text",
            "the function \"timestamp\" does not exist; write one of `all`, `contains`, `endsWith`, `exists`, `exists_one`, `filter`, `has`, `hasValue`, `lowerAscii`, `map`, `matches`, `orValue`, `size` or `startsWith`",
        ),
        ("cmd.relations.exists(r, \"pi\" in r.labels)", "no label \"pi\" is declared; write `\"pii\"`"),
    ];
    for (when, said) in cases {
        condition(when, "deny", said);
    }
}

#[test]
fn conditions_whose_types_do_not_fit() {
    let cases = [
        ("cmd.operation == 1", "a text is compared with a number; write two values of one kind"),
        ("time.hour == \"8\"", "a number is compared with a text; write two values of one kind"),
        (
            "\"x\" in cmd.operation",
            "`in` looks into a text, which is no list; write a list after `in`, as in `x in [\"a\", \"b\"]`, or `.contains(...)` for a text",
        ),
        (
            "3 in cmd.effects",
            "a number is looked for in a list, of which each is a text; write an element of the list's kind, or `.exists(x, ...)` to look at its fields",
        ),
        (
            "\"x\" in cmd.relations",
            "a text is looked for in a list, of which each is a group of fields; write an element of the list's kind, or `.exists(x, ...)` to look at its fields",
        ),
        ("cmd.operation", "`when` gives a text, not true or false; write a condition, such as a comparison"),
        ("cmd", "`when` gives a group of fields, not true or false; write a condition, such as a comparison"),
        ("cmd == cmd", "a group of fields is compared with a group of fields; write two values of one kind"),
        (
            "cmd.has_where && cmd.operation",
            "a text stands where true or false is wanted; write a condition, such as a comparison",
        ),
        ("!cmd.effects", "a list stands where true or false is wanted; write a condition, such as a comparison"),
        ("cmd.text > \"a\"", "a text and a text are put in order; write numbers, as in `time.hour >= 8`"),
        (
            "cmd.text + \"a\" == \"ba\"",
            "it is reckoned with a text; write numbers, and for texts or lists several conditions with `||`",
        ),
        (
            "cmd.effects.contains(\"read\")",
            "`contains` is called on a list; write `.exists(x, x.contains(...))`, or `in`",
        ),
        (
            "cmd.effects.all(e, e)",
            "a loop's condition gives a text, not true or false; write a condition, such as a comparison",
        ),
        (
            "cmd.text.all(c, c == \"a\")",
            "a text is looked through, which is no list; write a list, such as `cmd.relations`, or `has(...)` for a map",
        ),
        (
            "conn.labels.all(l, l == \"a\")",
            "a map is looked through, which is no list; write a list, such as `cmd.relations`, or `has(...)` for a map",
        ),
        ("cmd.text.contains(1)", "`contains` is given a number; write a text in the brackets"),
        (
            "conn.labels.?env == \"dev\"",
            "a value that may be absent is compared with a text; write `.orValue(\"\")` after what may be absent",
        ),
        (
            "conn.labels.?env.orValue(1) == \"dev\"",
            "`orValue` gives a number for a text; write a value of the same kind",
        ),
        (
            "conn.name.orValue(\"\") == \"dev\"",
            "`orValue` is asked of a text, which is always there; write `.?` before the field that may be absent",
        ),
        ("time.hour == 1.5", "a number is not a whole number; write whole numbers, without `u` and without a point"),
        ("conn.name == null", "`null` is used; write `has(...)` to ask whether something is there"),
        ("conn.name == b\"a\"", "bytes (`b\"...\"`) are used; write a text, without `b`"),
        ("{\"a\": 1}.a == 1", "`when` makes a map; write `has(...)`, or `in` with a list of what is meant"),
        (
            "cmd.operation in [\"select\", 1]",
            "a list has a number among its elements; write a list of texts, or of numbers",
        ),
    ];
    for (when, said) in cases {
        condition(when, "deny", said);
    }
}

#[test]
fn conditions_that_can_never_hold() {
    let cases = [
        ("cmd.operation == \"selct\"", "it is never \"selct\"; write `\"select\"`"),
        ("\"reed\" == cmd.effects[?0].orValue(\"\")", "it is never \"reed\"; write `\"read\"`"),
        ("\"wirte\" in cmd.effects", "it is never \"wirte\"; write `\"write\"`"),
        ("cmd.effects.all(e, e in [\"read\", \"wirte\"])", "it is never \"wirte\"; write `\"write\"`"),
        ("cmd.relations.exists(r, \"reads\" in r.access)", "it is never \"reads\"; write `\"read\"`"),
        ("identity.kind == \"agents\"", "it is never \"agents\"; write `\"agent\"`"),
        ("conn.kind == \"kubernetes\"", "it is never \"kubernetes\"; write one of `\"postgres\"` or `\"ssh\"`"),
        (
            "time.weekday in [\"monday\"]",
            "it is never \"monday\"; write one of `\"mon\"`, `\"tue\"`, `\"wed\"`, `\"thu\"`, `\"fri\"`, `\"sat\"` or `\"sun\"`",
        ),
        ("session.transaction != \"opened\"", "it is never \"opened\"; write `\"open\"`"),
        ("time.hour >= 25", "an hour is never 25; write a number from 0 to 23"),
        ("false", "the rule can never match; write a condition that can be true, or leave the rule out"),
        (
            "cmd.has_where && false",
            "the rule can never match; write a condition that can be true, or leave the rule out",
        ),
        (
            "!(true || cmd.has_where)",
            "the rule can never match; write a condition that can be true, or leave the rule out",
        ),
        ("\"a\" == \"b\"", "the rule can never match; write a condition that can be true, or leave the rule out"),
        ("cmd.operation in []", "the rule can never match; write a condition that can be true, or leave the rule out"),
        (
            "cmd.operation == \"select\" && cmd.has_where && cmd.operation in [\"insert\", \"update\"]",
            "the rule can never match; write a condition that can be true, or leave the rule out",
        ),
        (
            "conn.name == \"a\" && conn.name == \"b\"",
            "the rule can never match; write a condition that can be true, or leave the rule out",
        ),
    ];
    for (when, said) in cases {
        condition(when, "deny", said);
    }
}

#[test]
fn fields_that_may_be_absent() {
    let cases = [
        (
            "conn.labels.env == \"dev\"",
            "`conn.labels.env` may be absent, and a rule that asks for it then fails and denies; write `conn.labels.?env.orValue(\"\")`, or `has(conn.labels.env) && ` before it",
        ),
        (
            "has(conn.labels.env) || conn.labels.env == \"dev\"",
            "`conn.labels.env` may be absent, and a rule that asks for it then fails and denies; write `conn.labels.?env.orValue(\"\")`, or `has(conn.labels.env) && ` before it",
        ),
        (
            "has(conn.labels.team) && conn.labels[\"env\"] == \"dev\"",
            "`conn.labels.env` may be absent, and a rule that asks for it then fails and denies; write `conn.labels.?env.orValue(\"\")`, or `has(conn.labels.env) && ` before it",
        ),
        (
            "identity.on_behalf_of == \"human:a\"",
            "`identity.on_behalf_of` may be absent, and a rule that asks for it then fails and denies; write `identity.?on_behalf_of.orValue(\"\")`, or `has(identity.on_behalf_of) && ` before it",
        ),
        (
            "cmd.relations.exists(r, r.schema == \"hr\")",
            "`r.schema` may be absent, and a rule that asks for it then fails and denies; write `r.?schema.orValue(\"\")`, or `has(r.schema) && ` before it",
        ),
        (
            "cmd.effects[0] == \"read\"",
            "an element is asked for by its place, and there may be fewer; write `.exists(x, ...)` or `.all(x, ...)`, or `[?0].orValue(\"\")`",
        ),
        (
            "conn.labels[conn.name] == \"read\"",
            "a key may be absent, and the rule then fails and denies; write `[?KEY].orValue(\"\")`",
        ),
    ];
    for (when, said) in cases {
        condition(when, "deny", said);
    }
    for fine in [
        "has(conn.labels.env) && conn.labels.env == \"dev\"",
        "conn.labels.env == \"dev\" && (has(conn.labels.env) && cmd.has_where)",
        "!(!has(conn.labels.env) || conn.labels.env == \"dev\")",
        "cmd.relations.exists(r, has(r.schema) && r.schema == \"hr\")",
        "conn.labels[?conn.name].orValue(\"\") == \"x\"",
    ] {
        assert_eq!(problems(&rule(fine, "deny")), <[String; 0]>::default(), "{fine}");
    }
}

#[test]
fn rules_that_would_allow_by_a_guess() {
    let partial = "the rule allows by what is known of a command, without asking whether that is all; write `cmd.complete && ` before the rest, or what may be unknown, as in `cmd.opaque.all(o, o == \"function\")`";
    let sense = "it cannot be told whether more labels here would allow more or less; write `\"LABEL\" in r.labels` or its negation, within `all`, `exists`, `&&`, `||` and `!` only";
    condition("cmd.operation == \"select\"", "allow", partial);
    condition("cmd.relations.all(r, r.name == \"a\")", "allow", partial);
    condition("cmd.complete && cmd.relations.all(r, size(r.labels) == 0)", "allow", sense);
    condition("cmd.relations.exists_one(r, \"pii\" in r.labels)", "deny", sense);
    condition("cmd.relations.filter(r, \"pii\" in r.labels).size() > 0", "deny", sense);
    condition("cmd.relations.exists(r, (\"pii\" in r.labels) == true)", "deny", sense);
    for (fine, then) in [
        ("cmd.operation == \"select\"", "deny"),
        ("cmd.complete && cmd.operation == \"select\"", "allow"),
        ("identity.kind == \"human\"", "allow"),
        ("cmd.operation == \"select\" && cmd.opaque.all(o, o == \"function\")", "allow"),
    ] {
        assert_eq!(problems(&rule(fine, then)), <[String; 0]>::default(), "{fine}");
    }
}

#[test]
fn conditions_that_are_deep_slow_or_unreadable() {
    let deep = "`when` has brackets nested deeper than 16; write several rules with simpler conditions";
    condition(&format!("{}true{}", "(".repeat(17), ")".repeat(17)), "deny", deep);
    condition(&format!("{}1{} == [1]", "[".repeat(500), "]".repeat(500)), "deny", deep);
    let long = format!("conn.name in [{}]", vec!["\"a\""; 500].join(", "));
    condition(
        &long,
        "deny",
        "`when` has more than 800 words and signs; write a label with the names under it, or several rules",
    );
    let chain = format!("cmd{} == 1", ".a".repeat(399));
    let problems_of_chain = problems(&rule(&chain, "deny"));
    assert_eq!(problems_of_chain.len(), 1, "{problems_of_chain:?}");
    let sum = format!("{}1 == 1", "1+".repeat(350));
    condition(
        &sum,
        "deny",
        "`when` is nested too deep or has too many parts; write several rules with simpler conditions",
    );
    // An even number of negations is none.
    assert_eq!(problems(&rule(&format!("{}true", "!".repeat(700)), "deny")), <[String; 0]>::default());
}

#[test]
fn what_looks_through_too_much_is_refused() {
    let names = |list: &str, var: &str, inner: &str| format!("{list}.exists({var}, {inner})");
    let three = names("cmd.relations", "a", &names("cmd.functions", "b", &names("cmd.functions", "c", "c == b")));
    condition(&three, "deny", "more than 2 lists are looked through inside one another; write several rules");
    let slow =
        names("cmd.relations", "a", &names("cmd.functions", "b", "cmd.text.contains(b) && cmd.text.contains(a.name)"));
    let found = problems(&rule(&slow, "deny"));
    assert!(found.first().unwrap().contains("steps, and 200000 is the most"), "{found:?}");
    condition(
        "cmd.relations.exists(cmd, cmd.name == \"a\")",
        "deny",
        "the name \"cmd\" is taken; write another name for the element",
    );
    condition(
        "cmd.text.matches(cmd.operation)",
        "deny",
        "the pattern of `matches` is not written out; write the pattern as a text in the rule",
    );
    for (pattern, said) in [
        ("(a{1000}){1000}", "is too large once compiled"),
        ("(", "is no regular expression: unclosed group"),
        ("(?=a)", "is no regular expression: look-around, including look-ahead and look-behind, is not supported"),
    ] {
        let said = format!(
            "the pattern \"{pattern}\" {said}; write a shorter or simpler pattern, in the syntax of the `regex` crate"
        );
        condition(&format!("cmd.text.matches(\"{pattern}\")"), "deny", &said);
    }
    let found = problems(&rule(&format!("cmd.text.matches(\"{}\")", "a".repeat(600)), "deny"));
    assert!(found.first().unwrap().contains("has more than 512 bytes"), "{found:?}");
    let found = problems(&rule(&format!("conn.name == \"{}\"", "a".repeat(5000)), "deny"));
    assert!(found.first().unwrap().contains("and 4096 is the most"), "{found:?}");
    // Each rule alone is fine, all together are not.
    let heavy: String = (0..300)
        .map(|n| format!("- {{id: r{n}, when: 'cmd.text.matches(\"a\") || cmd.text.matches(\"b\")', then: deny}}\n"))
        .collect();
    let found = problems(&format!("version: 1\nrules:\n{heavy}"));
    assert!(found.first().unwrap().contains("all rules together may take"), "{found:?}");
}

#[test]
fn files_that_are_wrong_say_all_that_is() {
    let text = "\
versoin: 1
default: maybe
timezone: Europe/Berlin
labels:
  PII: [a.b]
  pii: [a b, [c], x.y]
rules:
- when: 'true'
  then: deny
- id: a
  then: deny
- id: b
  when: 'true'
- id: c
  when: 'true'
  then: alow
- id: Bad Name
  when: 'true'
  then: deny
- id: d
  when:
  then: deny
- id: e
  when: 'true'
  then: deny
  messages: x
- id: f
  when: [x]
  then: [y]
- id: g
  when: 'true'
  then: require_approval
  approvers: {groups: [dba]}
- id: h
  when: cmd.has_wher
  then: deny
- id: h
  when: |
    cmd.has_where &&
    cmd.operation ===
  then: deny
- just text
- id: i
  when: 'true'
  then: deny
  message: \"\"
";
    assert_eq!(
        problems(text),
        [
            "a.yaml:1: the key \"versoin\" does not exist; write `version`",
            "a.yaml:1: `version` is missing; write `version: 1` at the top",
            "a.yaml:2: `default` is neither `allow` nor `deny`; write `default: deny`",
            "a.yaml:3: `timezone` is no fixed offset from UTC; write `timezone: UTC` or `timezone: \"+02:00\"`",
            "a.yaml:5: the label \"PII\" has a wrong name; write 1 to 64 of a-z 0-9 - _ .",
            "a.yaml:6: the name \"a b\" is no name of a relation; write `schema.name`, `schema.*` or `name`, with double quotes around a part that is not in lower case",
            "a.yaml:6: the label pii has a list among its names; write `schema.name`",
            "a.yaml:8: a rule has no `id`; write `id: some-name`, by which the record will call it",
            "a.yaml:10: rule a: `when` is missing; write `when: \"true\"` for a rule that always matches",
            "a.yaml:12: rule b: `then` is missing; write `then: allow`, `then: deny` or `then: require_approval`",
            "a.yaml:16: rule c: `then` is \"alow\"; write `allow`",
            "a.yaml:17: a rule's `id` is no name; write 1 to 64 of a-z 0-9 - _ .",
            "a.yaml:21: rule d: `when` is empty; write `when: \"true\"` for a rule that always matches",
            "a.yaml:26: rule e: the key \"messages\" does not exist; write `message`",
            "a.yaml:28: rule f: `when` is no text; write `when: \"...\"`",
            "a.yaml:29: rule f: `then` is no word; write `then: allow`, `then: deny` or `then: require_approval`",
            "a.yaml:33: rule g: a rule does not say who approves: `approvers` is not for it; write `[connections.NAME.approvals]` in the configuration, which says it for the connection",
            "a.yaml:35: rule h: `cmd.has_wher` does not exist; write `cmd.has_where`",
            "a.yaml:37: rule h: the id is taken by the rule at a.yaml:34; write another id",
            "a.yaml:42: a rule is a text, not a map; write `{id: ..., when: ..., then: ...}`",
            "a.yaml:46: rule i: `message` is empty, too long, or has control characters; write 1 to 512 bytes on one line",
        ]
    );
    assert_eq!(problems(""), ["a.yaml:1: the file is empty; write `version: 1` and `rules:`"]);
    assert_eq!(problems("- a\n"), ["a.yaml:1: the file is a list, not a map; write `version: 1` and `rules:`"]);
    assert_eq!(problems("version: 2\n"), ["a.yaml:1: this version of the format is not known; write `version: 1`"]);
    assert_eq!(
        problems("version: 1\nrules: {a: b}\n"),
        ["a.yaml:2: `rules` is a map, not a list; write `- id: ...` for each rule"]
    );
}

#[test]
fn a_syntax_error_of_a_condition_names_its_line() {
    let text = "version: 1\nrules:\n- id: a\n  then: deny\n  when: |\n    cmd.has_where &&\n    cmd.operation === \"select\"\n";
    let found = problems(text);
    let first = found.first().unwrap();
    assert!(first.starts_with("a.yaml:7: rule a: `when` is no CEL expression (at character "), "{first}");
}

#[test]
fn there_are_limits_to_rules_and_files() {
    let rules: String = (0..1001).map(|n| format!("- {{id: r{n}, when: 'true', then: deny}}\n")).collect();
    let found = problems(&format!("version: 1\nrules:\n{rules}"));
    assert_eq!(
        found,
        ["a.yaml:3: there are 1001 rules, and 1000 is the most; write rules that say more, with labels and lists"]
    );
    let file = PolicyFile { name: "a", text: "version: 1\n" };
    assert!(PolicySet::parse(&vec![file; 65]).is_err());
}
