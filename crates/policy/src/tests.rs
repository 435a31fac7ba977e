//! What is behind the doors that this version keeps shut: rules that ask for approval.
#![allow(clippy::unwrap_used)]

use crate::file::Approvals;
use crate::{PolicyFile, PolicySet, Ruling};

const FILE: PolicyFile<'_> = PolicyFile {
    name: "a.yaml",
    text: "version: 1\nrules:\n- {id: ask, when: 'true', then: require_approval, message: ask somebody}\n",
};

#[test]
fn a_rule_that_asks_for_approval_is_read_and_refused_for_now() {
    let problems = PolicySet::parse(&[FILE]).unwrap_err();
    let texts: Vec<String> = problems.iter().map(ToString::to_string).collect();
    assert_eq!(texts, ["a.yaml:3: rule ask: approvals are not part of this version; write `then: deny`"]);
}

#[test]
fn once_offered_it_holds() {
    let set = PolicySet::parse_with(&[FILE], Approvals::Offered).unwrap();
    assert_eq!(set.rules().next().unwrap().then(), Ruling::Hold);
    let decision = crate::fuzz::decided(&set);
    assert_eq!((decision.ruling(), decision.decisive()), (Ruling::Hold, Some("ask")));
    assert_eq!(decision.message(), Some("ask somebody"));
}
