//! Inputs made by hand.
#![allow(dead_code, missing_docs, unreachable_pub, clippy::unwrap_used)]

use std::collections::BTreeMap;

use model::{Access, Effect, Facts, IdentityName, Opaque, Operation, Relation, Transaction};
use policy::{
    Decision, Input, PolicyFile, PolicyProblem, PolicySet, SessionState, Subject, SubjectParts, Target, TargetParts,
};

/// 2026-11-23T10:00:00Z, a Monday.
pub const MONDAY: i64 = 1_795_428_000;

pub fn set(text: &str) -> PolicySet {
    PolicySet::parse(&[PolicyFile { name: "a.yaml", text }]).unwrap_or_else(|problems| panic!("{problems:#?}"))
}

pub fn problems(text: &str) -> Vec<String> {
    let problems: Vec<PolicyProblem> = match PolicySet::parse(&[PolicyFile { name: "a.yaml", text }]) {
        Ok(_) => Vec::new(),
        Err(problems) => problems,
    };
    problems.iter().map(ToString::to_string).collect()
}

/// A set of one rule with this condition.
pub fn rule(when: &str, then: &str) -> String {
    format!(
        "version: 1\nlabels: {{pii: [public.customers, hr.*], known: [public.orders, items]}}\nrules:\n- id: r\n  then: {then}\n  when: |\n    {when}\n"
    )
}

pub struct Command {
    pub identity: &'static str,
    pub groups: Vec<String>,
    pub on_behalf_of: Option<IdentityName>,
    pub labels: BTreeMap<String, String>,
    pub facts: Facts,
    pub text: Option<String>,
    pub unix: i64,
    pub session: SessionState,
}

impl Command {
    pub fn decide(&self, set: &PolicySet) -> Decision {
        self.with(set, |input| set.decide(input))
    }

    pub fn with<T>(&self, set: &PolicySet, run: impl FnOnce(&Input<'_>) -> T) -> T {
        let name: IdentityName = self.identity.parse().unwrap();
        let claims = BTreeMap::from([("application_name".to_owned(), "psql".to_owned())]);
        let who = Subject::new(SubjectParts {
            name: &name,
            groups: &self.groups,
            on_behalf_of: self.on_behalf_of.as_ref(),
            run: Some("run-1"),
            claims: &claims,
        });
        let target = Target::new(TargetParts {
            name: "app",
            kind: "postgres",
            labels: &self.labels,
            database: "shop",
            role: "app",
        });
        run(&Input {
            who: &who,
            target: &target,
            facts: &self.facts,
            text: self.text.as_deref(),
            moment: set.moment(self.unix),
            session: self.session,
        })
    }

    pub fn facts(facts: Facts) -> Self {
        Self {
            identity: "agent:copilot",
            groups: vec!["agents".to_owned()],
            on_behalf_of: None,
            labels: BTreeMap::from([("env".to_owned(), "prod".to_owned())]),
            facts,
            text: Some("select 1".to_owned()),
            unix: MONDAY,
            session: SessionState { age: 60, count: 3, transaction: Transaction::Idle },
        }
    }
}

pub fn relation(name: &str, access: Access) -> Relation {
    let (schema, name) = match name.split_once('.') {
        Some((schema, name)) => (Some(schema.to_owned()), name),
        None => (None, name),
    };
    Relation { schema, name: name.to_owned(), access: vec![access] }
}

/// A whole `SELECT` of these relations.
pub fn select(relations: &[&str]) -> Facts {
    Facts {
        operation: Operation::Select,
        operations: vec![Operation::Select],
        effects: vec![Effect::Read],
        relations: relations.iter().map(|name| relation(name, Access::Read)).collect(),
        functions: Vec::new(),
        bounded: true,
        fingerprint: None,
        opaque: Vec::new(),
    }
}

/// A `DELETE` of this relation.
pub fn delete(name: &str, bounded: bool) -> Facts {
    Facts {
        operation: Operation::Delete,
        operations: vec![Operation::Delete],
        effects: vec![Effect::Write],
        relations: vec![relation(name, Access::Write)],
        bounded,
        ..select(&[])
    }
}

/// Nothing is known.
pub fn unknown() -> Facts {
    Facts::unknown(Opaque::Unparsed)
}
