//! The examples of the documentation, over facts made by hand.
#![allow(clippy::unwrap_used)]

mod common;

use std::path::Path;

use common::*;
use model::{Effect, Opaque, Operation};
use policy::{PolicySet, Ruling, cases};

const EXAMPLES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/examples/policy");

fn example(name: &str) -> PolicySet {
    set(&std::fs::read_to_string(Path::new(EXAMPLES).join(name)).unwrap())
}

#[test]
fn all_examples_and_their_cases_are_read() {
    let mut read = 0;
    for file in std::fs::read_dir(EXAMPLES).unwrap() {
        let path = file.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        let name = path.file_name().unwrap().to_str().unwrap();
        if name.ends_with(".cases.yaml") {
            let cases = cases::parse(name, &text).unwrap();
            let set = example(&name.replace(".cases", ""));
            for id in cases.iter().flat_map(|case| case.rules.iter().flatten()) {
                assert!(set.rules().any(|rule| rule.id() == id), "{name}: {id}");
            }
        } else {
            assert!(set(&text).rules().count() > 2, "{name}");
        }
        read += 1;
    }
    assert!(read >= 4);
}

/// What is in the manual as text is what was tried.
#[test]
fn the_policies_of_the_manual_are_valid() {
    let manual = std::fs::read_to_string(Path::new(EXAMPLES).join("../../policy.md")).unwrap();
    let mut blocks = 0;
    for block in manual.split("```yaml\n").skip(1) {
        let text = block.split("```").next().unwrap();
        if text.starts_with("version:") {
            assert_eq!(problems(text), <[String; 0]>::default(), "{text}");
            blocks += 1;
        }
    }
    assert!(blocks >= 2);
}

#[test]
fn agents_read_and_nothing_else() {
    let set = example("read-only-agents.yaml");
    let ruling = |facts| Command::facts(facts).decide(&set).ruling();
    assert_eq!(ruling(select(&["orders", "public.items"])), Ruling::Allow);
    for secret in ["api_keys", "public.api_keys", "auth.users"] {
        assert_eq!(ruling(select(&["orders", secret])), Ruling::Deny, "{secret}");
    }
    assert_eq!(ruling(delete("orders", true)), Ruling::Deny);
    let begin = model::Facts {
        operation: Operation::Transaction,
        operations: vec![Operation::Transaction],
        effects: vec![Effect::Session],
        ..select(&[])
    };
    assert_eq!(ruling(begin.clone()), Ruling::Allow);
    assert_eq!(ruling(model::Facts { operations: vec![Operation::Set], ..begin }), Ruling::Deny);
    // Whatever is not known denies, and so does a search path that is not known any more.
    for reason in Opaque::ALL {
        assert_eq!(ruling(model::Facts::unknown(*reason)), Ruling::Deny, "{reason}");
        assert_eq!(ruling(model::Facts { opaque: vec![*reason], ..select(&["orders"]) }), Ruling::Deny, "{reason}");
    }
    let mut human = Command::facts(select(&["orders"]));
    human.identity = "human:bea";
    assert_eq!(human.decide(&set).ruling(), Ruling::Deny);
}

#[test]
fn the_rules_to_take_from_do_what_they_say() {
    let set = example("rules.yaml");
    let mut command = Command::facts(select(&["orders", "reporting.daily"]));
    command.on_behalf_of = Some("human:bea".parse().unwrap());
    assert_eq!(command.decide(&set).rules(), ["agents-read-reports"]);
    command.unix += 10 * 3600;
    assert_eq!(command.decide(&set).decisive(), Some("office-hours"));
    command.unix -= 10 * 3600;
    command.on_behalf_of = None;
    assert_eq!(command.decide(&set).decisive(), Some("acts-for-somebody"));
    command.facts = select(&["customers"]);
    assert_eq!(command.decide(&set).decisive(), Some("no-pii-for-agents"));
    command.labels.clear();
    command.facts = delete("orders", false);
    assert_eq!(command.decide(&set).rules(), ["no-unbounded-change"]);
    command.identity = "human:bea";
    command.groups = vec!["dba".to_owned()];
    assert_eq!(command.decide(&set).rules(), ["dba-writes", "no-unbounded-change"]);
    command.facts = delete("orders", true);
    assert_eq!(command.decide(&set).ruling(), Ruling::Allow);
    command.facts.functions = vec!["pg_catalog.pg_read_binary_file".to_owned()];
    assert_eq!(command.decide(&set).decisive(), Some("no-way-out"));
}
