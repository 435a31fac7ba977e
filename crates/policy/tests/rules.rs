//! What rules decide, over facts made by hand.
#![allow(clippy::unwrap_used)]

mod common;

use common::*;
use model::{Access, Effect, Facts, IdentityName, Opaque, Operation};
use policy::{Grants, Mode, PolicyFile, PolicySet, Request, Ruling, Variation, Verdict};

fn holds(when: &str, command: &Command) -> Option<bool> {
    let set = set(&rule(when, "deny"));
    let decision = command.decide(&set);
    if decision.error().is_some() {
        return None;
    }
    Some(decision.rules() == ["r"])
}

#[test]
fn every_variable_is_what_the_documentation_says() {
    let mut command = Command::facts(delete("public.customers", true));
    command.facts.relations.push(relation("other", Access::Read));
    command.facts.functions = vec!["pg_catalog.now".to_owned(), "lower".to_owned()];
    command.on_behalf_of = Some("human:bea".parse().unwrap());
    for when in [
        r#"identity.kind == "agent""#,
        r#"identity.name == "agent:copilot""#,
        r#""agents" in identity.groups"#,
        r#"identity.?on_behalf_of.orValue("") == "human:bea""#,
        r#"has(identity.on_behalf_of) && identity.on_behalf_of.startsWith("human:")"#,
        r#"identity.?run.orValue("") == "run-1""#,
        r#"identity.claims.?application_name.orValue("") == "psql""#,
        r#"conn.name == "app" && conn.kind == "postgres" && conn.database == "shop" && conn.role == "app""#,
        r#"conn.labels.?env.orValue("") == "prod""#,
        r#""env" in conn.labels && conn.labels.env == "prod""#,
        r#""env" in conn.labels && conn.labels["env"] == "prod""#,
        r#"!has(conn.labels.team) || conn.labels.team == "x""#,
        r#"has(conn.labels.team) ? conn.labels.team == "x" : true"#,
        r#"cmd.text == "select 1""#,
        r#"cmd.text.matches("(?i)^SELECT\\s+[0-9]$")"#,
        r#"cmd.text.lowerAscii().contains("lect")"#,
        r#"cmd.operation == "delete" && cmd.operation in ["delete", "update"]"#,
        r#""delete" in cmd.operations && cmd.operations.size() == 1"#,
        r#"cmd.effects == ["write"] && cmd.effects.all(e, e in ["read", "write"])"#,
        r#"cmd.complete && cmd.opaque == [] && size(cmd.opaque) == 0"#,
        r#"cmd.has_where"#,
        r#"cmd.relations.exists(r, r.?schema.orValue("") == "public" && r.name == "customers" && "write" in r.access)"#,
        r#"cmd.relations.exists(r, "pii" in r.labels)"#,
        r#"cmd.relations.exists_one(r, r.name == "other" && !has(r.schema))"#,
        r#"cmd.relations.filter(r, "write" in r.access).size() == 1"#,
        r#""customers" in cmd.relations.map(r, r.name)"#,
        r#"cmd.functions.exists(f, f.endsWith("now"))"#,
        r#"!has(cmd.fingerprint)"#,
        r#"time.hour == 10 && time.weekday == "mon""#,
        r#"session.age >= 60 && session.count == 3 && session.transaction == "idle""#,
        r#"session.age - 10 * 2 > 39 && -session.count < 0 && session.count % 2 == 1 && session.age / 7 == 8"#,
        r#"cmd.effects[?0].orValue("none") == "write" && !cmd.effects[?1].hasValue()"#,
    ] {
        assert_eq!(holds(when, &command), Some(true), "{when}");
        assert_eq!(holds(&format!("!({when})"), &command), Some(false), "not {when}");
    }
}

#[test]
fn all_rules_count_and_the_strictest_wins() {
    let set = set("version: 1\ndefault: deny\nrules:\n\
         - {id: reads, when: 'cmd.complete && cmd.effects.all(e, e == \"read\")', then: allow}\n\
         - {id: deletes, when: 'cmd.complete && cmd.operation == \"delete\"', then: allow}\n\
         - {id: bounded, when: '!cmd.has_where', then: deny, message: add a WHERE clause}\n");
    let decision = Command::facts(select(&["a"])).decide(&set);
    assert_eq!((decision.ruling(), decision.rules()), (Ruling::Allow, &["reads".to_owned()][..]));
    let decision = Command::facts(delete("a", false)).decide(&set);
    assert_eq!(decision.ruling(), Ruling::Deny);
    assert_eq!(decision.rules(), ["deletes", "bounded"]);
    assert_eq!((decision.decisive(), decision.message()), (Some("bounded"), Some("add a WHERE clause")));
    let decision = Command::facts(delete("a", true)).decide(&set);
    assert_eq!((decision.ruling(), decision.decisive()), (Ruling::Allow, Some("deletes")));
    let decision = Command::facts(unknown()).decide(&set);
    assert_eq!((decision.ruling(), decision.decisive()), (Ruling::Deny, Some("bounded")));
}

#[test]
fn without_a_rule_or_a_default_it_is_denied() {
    let none = PolicySet::parse(&[]).unwrap();
    assert_eq!(Command::facts(select(&[])).decide(&none).ruling(), Ruling::Deny);
    assert_eq!(Command::facts(select(&[])).decide(&set("version: 1\n")).ruling(), Ruling::Deny);
    let open = set("version: 1\ndefault: allow\nrules: []\n");
    assert_eq!(Command::facts(unknown()).decide(&open).ruling(), Ruling::Allow);
}

#[test]
fn what_cannot_be_evaluated_is_denied_and_named() {
    let set = set("version: 1\ndefault: allow\nrules:\n\
         - {id: a, when: 'true', then: allow}\n\
         - {id: t, when: 'cmd.text.contains(\"x\")', then: deny}\n");
    let mut command = Command::facts(select(&[]));
    assert_eq!(command.decide(&set).ruling(), Ruling::Allow);
    command.text = Some("y".repeat(policy::TEXT_BYTES_MAX));
    assert_eq!(command.decide(&set).ruling(), Ruling::Allow);
    for text in [None, Some("y".repeat(policy::TEXT_BYTES_MAX + 1))] {
        command.text = text;
        let decision = command.decide(&set);
        assert_eq!((decision.ruling(), decision.decisive()), (Ruling::Deny, None));
        assert_eq!(decision.rules(), ["a"]);
        assert!(decision.error().unwrap().starts_with("rule t asks for `cmd.text`, which is not at hand"));
    }
    for when in ["session.age / (session.count - 3) > 0", "session.age * 9223372036854775807 > 0"] {
        assert_eq!(holds(when, &Command::facts(select(&[]))), None, "{when}");
    }
}

#[test]
fn a_label_denies_when_it_is_possible_and_allows_only_when_it_is_sure() {
    let allowed = |relations: &[&str]| {
        let set = set(&rule(r#"cmd.complete && cmd.relations.all(r, "known" in r.labels)"#, "allow"));
        Command::facts(select(relations)).decide(&set).ruling() == Ruling::Allow
    };
    assert!(allowed(&["public.orders", "items", "x.items"]));
    assert!(!allowed(&["orders"]), "another schema's `orders` may be meant");
    assert!(!allowed(&["hr.orders"]));

    let denied = |relations: &[&str]| {
        let set =
            set(&rule(r#"cmd.relations.exists(r, "pii" in r.labels)"#, "deny")
                .replace("rules:", "default: allow\nrules:"));
        Command::facts(select(relations)).decide(&set).ruling() == Ruling::Deny
    };
    assert!(denied(&["public.customers"]));
    assert!(denied(&["customers"]));
    assert!(denied(&["hr.anything"]));
    assert!(denied(&["anything"]), "it may be hr.anything");
    assert!(!denied(&["public.orders"]));
    assert!(!denied(&["other.customers"]));

    // The same with the opposite words.
    let unlabelled = |relations: &[&str]| {
        let set = set(&rule(r#"cmd.complete && !cmd.relations.exists(r, "pii" in r.labels)"#, "allow"));
        Command::facts(select(relations)).decide(&set).ruling() == Ruling::Allow
    };
    assert!(unlabelled(&["public.orders"]));
    assert!(!unlabelled(&["orders"]));
    let unlisted = |relations: &[&str]| {
        let set = set(&rule(r#"cmd.relations.exists(r, !("known" in r.labels))"#, "deny")
            .replace("rules:", "default: allow\nrules:"));
        Command::facts(select(relations)).decide(&set).ruling() == Ruling::Deny
    };
    assert!(!unlisted(&["public.orders"]));
    assert!(unlisted(&["orders"]));
    // And through the list itself.
    let through = |then: &str, name: &str| {
        let set = set(&rule(r#"cmd.complete && cmd.relations.exists(r, r.labels.exists(l, l == "pii"))"#, then));
        Command::facts(select(&[name])).decide(&set).rules().len()
    };
    assert_eq!((through("deny", "customers"), through("allow", "customers")), (1, 0));
    assert_eq!((through("deny", "hr.a"), through("allow", "hr.a")), (1, 1));
}

#[test]
fn a_search_path_counts_until_the_session_changes_it() {
    let text = rule(r#"cmd.complete && cmd.relations.all(r, "known" in r.labels)"#, "allow");
    let set =
        set(&text.replace("rules:", "search_path: [public]\nrules:").replace("cmd.complete", "cmd.opaque.size() < 2"));
    let mut command = Command::facts(select(&["orders"]));
    assert_eq!(command.decide(&set).ruling(), Ruling::Allow);
    command.facts.opaque = vec![Opaque::Settings];
    assert_eq!(command.decide(&set).ruling(), Ruling::Deny);
}

#[test]
fn several_files_are_one_set() {
    let file = |name, text| PolicyFile { name, text };
    let one = file(
        "one.yaml",
        "version: 1\nlabels: {pii: [a.b]}\nrules:\n- {id: x, when: 'cmd.relations.exists(r, \"pii\" in r.labels)', then: deny}\n",
    );
    let two = file("two.yaml", "version: 1\ndefault: allow\ntimezone: \"+02:00\"\nlabels: {pii: [c.d]}\n");
    let set = PolicySet::parse(&[one, two]).unwrap();
    assert_eq!(set.default_ruling(), Ruling::Allow);
    assert_eq!(set.moment(MONDAY).hour, 12);
    for name in ["a.b", "c.d"] {
        assert_eq!(Command::facts(select(&[name])).decide(&set).ruling(), Ruling::Deny);
    }
    let wrong =
        file("three.yaml", "version: 1\ndefault: deny\ntimezone: UTC\nrules:\n- {id: x, when: 'true', then: deny}\n");
    let found: Vec<String> =
        PolicySet::parse(&[one, two, wrong]).unwrap_err().iter().map(ToString::to_string).collect();
    assert_eq!(
        found,
        [
            "three.yaml:2: `default` is another than in two.yaml; write the same in both, or `default` in one file only",
            "three.yaml:3: `timezone` is another than in two.yaml; write the same in both, or `timezone` in one file only",
            "three.yaml:5: rule x: the id is taken by the rule at one.yaml:4; write another id",
        ]
    );
}

#[test]
fn the_digest_is_of_what_decides() {
    let base = "version: 1\ndefault: deny\nlabels: {a: [x.y, '\"X\".z']}\nrules:\n- {id: r, when: 'true', then: deny, message: no}\n";
    let digest = |text: &str| set(text).digest();
    assert_eq!(digest(base), digest(&format!("# a comment\n{}", base.replace("x.y", "X.Y"))));
    assert_eq!(digest(base), PolicySet::parse(&[PolicyFile { name: "other", text: base }]).unwrap().digest());
    let mut seen = vec![digest(base)];
    for (from, to) in [
        ("default: deny", "default: allow"),
        ("x.y", "x.w"),
        ("id: r", "id: s"),
        ("'true'", "'!false'"),
        ("then: deny", "then: allow"),
        ("message: no", "message: nope"),
        (", message: no", ""),
        ("rules:", "timezone: \"+01:00\"\nrules:"),
        ("rules:", "rules:\n- {id: q, when: 'true', then: allow}"),
        ("a: [", "b: ["),
        ("rules:", "search_path: [public]\nrules:"),
    ] {
        let text = base.replace(from, to);
        assert_ne!(text, base);
        let digest = digest(&text);
        assert!(!seen.contains(&digest), "{from} -> {to}");
        seen.push(digest);
    }
}

#[test]
fn what_decisions_vary_with_is_known() {
    let of = |when: &str| set(&rule(when, "deny")).varies_with();
    assert_eq!(of("identity.kind == \"agent\" && cmd.has_where"), Variation::default());
    assert_eq!(of("cmd.text.size() > 3"), Variation { text: true, ..Variation::default() });
    assert_eq!(of("cmd.?text.hasValue()"), Variation { text: true, ..Variation::default() });
    assert_eq!(of("time.hour > 3"), Variation { time: true, ..Variation::default() });
    assert_eq!(of("session.count > 3"), Variation { session: true, ..Variation::default() });
}

#[test]
fn a_permit_needs_an_allowing_decision_or_observation() {
    let name: IdentityName = "agent:copilot".parse().unwrap();
    let admission = Grants::new([name.clone()], []).admit(&name, &[]).unwrap();
    let set = set(&rule("!cmd.has_where", "deny").replace("rules:", "default: allow\nrules:"));
    let decision = |facts| Command::facts(facts).with(&set, |input| set.decide(input));
    let unbounded = decision(delete("a", false));
    assert_eq!((unbounded.ruling(), unbounded.rules()), (Ruling::Deny, &["r".to_owned()][..]));
    let Verdict::Deny(denial) = admission.apply(&unbounded, Mode::Enforce) else { panic!("denied") };
    assert_eq!(denial.rule, "r");
    assert!(matches!(admission.apply(&unbounded, Mode::Observe), Verdict::Allow(_)));
    assert!(matches!(admission.apply(&decision(delete("a", true)), Mode::Enforce), Verdict::Allow(_)));
    let default = PolicySet::parse(&[]).unwrap();
    let nothing = Command::facts(select(&[])).with(&default, |input| default.decide(input));
    let Verdict::Deny(denial) = admission.apply(&nothing, Mode::Enforce) else { panic!("denied") };
    assert_eq!(denial.rule, "builtin:default");
    assert!(matches!(admission.decide(&Request::Statement), Verdict::Allow(_)));
}

#[test]
fn a_rule_that_asks_for_approval_holds() {
    let set = set("version: 1\ndefault: allow\nrules:\n\
         - {id: ask, when: 'cmd.operation == \"delete\"', then: require_approval, message: ask somebody}\n\
         - {id: never, when: '!cmd.has_where', then: deny}\n");
    assert_eq!(set.rules().next().unwrap().then(), Ruling::Hold);
    let decision = Command::facts(delete("a", true)).decide(&set);
    assert_eq!((decision.ruling(), decision.decisive()), (Ruling::Hold, Some("ask")));
    assert_eq!(decision.message(), Some("ask somebody"));
    assert_eq!(Command::facts(delete("a", false)).decide(&set).ruling(), Ruling::Deny);
    assert_eq!(Command::facts(select(&["a"])).decide(&set).ruling(), Ruling::Allow);
}

/// What a host is asked to run.
fn exec(text: &str) -> Command {
    let facts = Facts {
        operation: Operation::Exec,
        operations: vec![Operation::Exec],
        effects: vec![Effect::Unknown],
        opaque: vec![Opaque::Exec],
        ..select(&[])
    };
    Command { text: Some(text.to_owned()), ..Command::facts(facts) }
}

#[test]
fn the_words_of_a_command_are_there_where_every_shell_makes_the_same_of_it() {
    let when = "cmd.opaque.all(o, o == \"exec\") && cmd.argv[?0].orValue(\"\") == \"systemctl\" && \
                cmd.argv[?1].orValue(\"\") in [\"status\", \"is-active\"] && size(cmd.argv) == 3 && \
                !cmd.argv[?2].orValue(\"-\").startsWith(\"-\")";
    let text = rule(when, "allow").replace("version: 1\n", "version: 1\ndefault: deny\n");
    let set = set(&text);
    let allowed = |text: &str| exec(text).decide(&set).ruling() == Ruling::Allow;
    for text in ["systemctl status app", "systemctl  'is-active' \"app@1.service\""] {
        assert!(allowed(text), "{text}");
    }
    for text in [
        "systemctl stop app",
        "systemctl status app x",
        "systemctl status --help",
        "systemctl status $app",
        "systemctl status app; id",
        "systemctl status app\nid",
        "A=1 systemctl status app",
        "",
    ] {
        assert!(!allowed(text), "{text}");
    }
    let statement = Command { text: Some("systemctl status app".to_owned()), ..Command::facts(select(&[])) };
    assert_eq!(statement.decide(&set).ruling(), Ruling::Deny, "only of what a host runs");
    let refused = problems(&rule("cmd.argv[?0].orValue(\"\") == \"uptime\"", "allow"));
    assert!(refused.iter().any(|what| what.contains("cmd.complete")), "{refused:?}");
}
