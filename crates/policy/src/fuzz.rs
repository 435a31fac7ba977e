//! What the fuzzer drives, and what replays its corpus.

use std::collections::BTreeMap;

use model::{Access, Effect, Facts, IdentityName, Opaque, Operation, Relation, Transaction};

use crate::{Input, PolicyFile, PolicySet, SessionState, Subject, SubjectParts, Target, TargetParts};

/// A policy file, and after a zero byte the text of a statement and bytes that facts are made from. Nothing may panic, and
/// what is decided must not depend on how often it is asked.
pub fn policy(data: &[u8]) {
    let mut parts = data.splitn(3, |byte| *byte == 0);
    let mut part = || parts.next().unwrap_or_default();
    let (file, text, seed) = (part(), part(), part());
    let file = String::from_utf8_lossy(file);
    let _ = crate::cases::parse("fuzz", &file);
    let set = match PolicySet::parse(&[PolicyFile { name: "fuzz", text: &file }]) {
        Ok(set) => set,
        Err(problems) => {
            assert!(!problems.is_empty());
            return problems.iter().for_each(|problem| drop(problem.to_string()));
        }
    };
    decide(&set, std::str::from_utf8(text).ok(), seed);
}

/// Puts a command to a set.
pub fn decide(set: &PolicySet, text: Option<&str>, seed: &[u8]) -> Option<crate::Decision> {
    let name = "agent:fuzz".parse::<IdentityName>().ok()?;
    let pairs = BTreeMap::from([("env".to_owned(), "prod".to_owned())]);
    let groups = ["a".to_owned()];
    let subject = SubjectParts { name: &name, groups: &groups, on_behalf_of: None, run: None, claims: &pairs };
    let target = TargetParts { name: "app", kind: "postgres", labels: &pairs, database: "app", role: "app" };
    let (who, target, facts) = (Subject::new(subject), Target::new(target), facts(seed));
    let first = seed.first().copied().unwrap_or_default();
    let input = Input {
        who: &who,
        target: &target,
        facts: &facts,
        text,
        moment: set.moment(i64::from(first) * 7919),
        session: SessionState { age: u64::from(first), count: 1, transaction: Transaction::Idle },
    };
    let decision = set.decide(&input);
    assert!(decision == set.decide(&input), "a decision does not change");
    assert!(decision.error().is_none_or(|error| !error.contains("engine")), "the engine never panics");
    assert!(set.explain(&input).count() == set.rules().count());
    Some(decision)
}

/// Facts from bytes: any of them.
fn facts(seed: &[u8]) -> Facts {
    let mut bytes = seed.iter().copied();
    let mut byte = || usize::from(bytes.next().unwrap_or_default());
    fn pick<T: Copy>(all: &[T], at: usize) -> Option<T> {
        all.get(at % all.len().max(1)).copied()
    }
    let operation = pick(Operation::ALL, byte()).unwrap_or(Operation::Other);
    let mut facts = Facts {
        operation,
        operations: vec![operation],
        effects: pick(Effect::ALL, byte()).into_iter().collect(),
        relations: Vec::new(),
        functions: Vec::new(),
        bounded: byte() % 2 == 0,
        fingerprint: None,
        opaque: Vec::new(),
    };
    if byte() % 2 == 0 {
        facts.opaque.extend(pick(Opaque::ALL, byte()));
    }
    for index in 0..byte() % model::RELATIONS_MAX {
        let schema = (byte() % 2 == 0).then(|| "public".to_owned());
        let access = pick(Access::ALL, byte()).into_iter().collect();
        facts.relations.push(Relation { schema, name: format!("t{}", index % 5), access });
    }
    facts
}
