//! What an audit says of approvals: each rule, kept and broken.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod log;

use log::*;
use model::*;

/// What is found in a log with one held command, of which the given entries decide.
fn found(decide: impl FnOnce(&mut Log, Digest)) -> Vec<String> {
    let mut log = Log::default();
    let (origin, vkey, program) = (ORIGIN.into(), vkey().to_string(), "onrecord 0.2".into());
    log.push(Body::Genesis(Genesis { origin, vkey, program, previous: None }));
    log.start();
    log.open(1, "app");
    log.held(1, None);
    let intent = log.last();
    decide(&mut log, intent);
    let report = whole(&log, &[]);
    assert_eq!(report.integrity.violation, None);
    report.completeness.gaps
}

#[test]
fn what_people_approved_runs() {
    let gaps = found(|log, intent| {
        let request = log.requested(1, intent, 2, 9);
        log.approve(1, request, "grace");
        log.approve(1, request, "linus");
        log.used(1, first(1));
        log.outcome(1);
    });
    assert_eq!(gaps, [""; 0]);
    // It was denied, and did not run.
    let gaps = found(|log, intent| {
        let request = log.requested(1, intent, 1, 9);
        log.vote(1, request, human("grace"), ApprovalDecision::Deny);
        log.ended(1, false);
    });
    assert_eq!(gaps, [""; 0]);
}

/// Each rule of approvals, broken by itself.
#[test]
fn what_nobody_may_approve_so_is_a_gap() {
    fn one(expected: &str, decide: impl FnOnce(&mut Log, Digest)) {
        let gaps = found(decide);
        assert!(gaps.len() == 1 && gaps[0].contains(expected), "{expected}: {gaps:#?}");
    }
    fn approved(log: &mut Log, intent: Digest) -> Digest {
        let request = log.requested(1, intent, 1, 9);
        log.approve(1, request, "grace");
        request
    }
    // Without, or with nobody's.
    one("entry 4: command 01040G2081040G2081040G2081.1 was executed, although entry 3 holds it", |log, _| {
        log.outcome(1);
    });
    one("although entry 3 holds it", |log, intent| {
        approved(log, intent);
        log.outcome(1);
    });
    // Of something else.
    one("entry 4: an approval was asked for, and what it names is not the intent", |log, _| {
        let request = log.requested(1, Digest([9; 32]), 1, 9);
        log.approve(1, request, "grace");
        log.used(1, first(1));
        log.outcome(1);
    });
    // Decided on something else; then it is not approved either.
    let gaps = found(|log, intent| {
        log.requested(1, intent, 1, 9);
        log.approve(1, Digest([9; 32]), "grace");
        log.used(1, first(1));
        log.outcome(1);
    });
    assert!(
        gaps.len() == 2 && gaps[0].contains("entry 5") && gaps[0].contains("not the request in entry 4"),
        "{gaps:?}"
    );
    assert!(gaps[1].contains("entry 6") && gaps[1].contains("although 0 of 1 people had approved it"), "{gaps:?}");
    // By whom it must not be.
    one("entry 6: the approval of command 01040G2081040G2081040G2081.1, asked for in entry 4", |log, intent| {
        let request = log.requested(1, intent, 2, 9);
        log.approve(1, request, "grace");
        log.used(1, first(1));
        log.outcome(1);
    });
    one("although 1 of 2 people had approved it", |log, intent| {
        let request = log.requested(1, intent, 2, 9);
        log.approve(1, request, "grace");
        log.approve(1, request, "grace");
        log.used(1, first(1));
        log.outcome(1);
    });
    one("entry 5: human:ada decided on the approval of command", |log, intent| {
        let request = log.requested(1, intent, 1, 9);
        log.approve(1, request, "ada");
    });
    for by in ["agent:copilot", "agent:other", "service:ci"] {
        one("only people may", |log, intent| {
            let request = log.requested(1, intent, 1, 9);
            log.vote(1, request, by.parse().unwrap(), ApprovalDecision::Approve);
        });
    }
    one("was not verified", |log, intent| {
        let request = log.requested(1, intent, 1, 9);
        let by = Identity { known: Known::Claimed, ..identity(human("grace")) };
        let decision = ApprovalDecision::Approve;
        log.step(
            1,
            ApprovalStep::Decided(Box::new(ApprovalVote { decision, request, by, comment: None, signature: None })),
        );
    });
    // Without the signature that is asked for; denying needs none.
    let gaps = found(|log, intent| {
        let request = log.requested_so(1, intent, 1, 9, true);
        log.approve(1, request, "grace");
        log.used(1, first(1));
        log.outcome(1);
    });
    assert!(gaps.len() == 2 && gaps[0].contains("must sign, and did not"), "{gaps:?}");
    assert!(gaps[1].contains("although 0 of 1 people had approved it"), "{gaps:?}");
    assert_eq!(
        found(|log, intent| {
            let request = log.requested_so(1, intent, 1, 9, true);
            log.vote(1, request, human("grace"), ApprovalDecision::Deny);
        }),
        [""; 0]
    );
    // Although it must not be.
    one("although human:linus had denied it", |log, intent| {
        let request = approved(log, intent);
        log.vote(1, request, human("linus"), ApprovalDecision::Deny);
        log.used(1, first(1));
        log.outcome(1);
    });
    one("although its time was over at", |log, intent| {
        let request = log.requested(1, intent, 1, 1);
        log.approve(1, request, "grace");
        log.used(1, first(1));
        log.outcome(1);
    });
    one("entry 7: command 01040G2081040G2081040G2081.1 used the approval of command", |log, intent| {
        approved(log, intent);
        log.start();
        log.used(1, first(1));
        log.outcome(1);
    });
    one("which is not open", |log, intent| {
        approved(log, intent);
        let (loss, torn_bytes) = (Loss::TornTail, 17);
        log.push(Body::Recovery(Recovery { entries: 6, loss, torn_bytes, commands_unknown: 0, sessions_lost: 0 }));
        log.used(1, first(1));
        log.outcome(1);
    });
    one("which is not open", |log, intent| {
        approved(log, intent);
        log.step(1, ApprovalStep::Ended { how: ApprovalEnd::Superseded });
        log.used(1, first(1));
        log.outcome(1);
    });
    one("entry 8: human:grace decided on the approval of command", |log, intent| {
        let request = approved(log, intent);
        log.used(1, first(1));
        log.outcome(1);
        log.approve(1, request, "grace");
    });
    // Twice, once for the same again.
    one("entry 9: command 02081040G2081040G2081040G2.1 used the approval", |log, intent| {
        approved(log, intent);
        log.used(1, first(1));
        log.open(2, "app");
        log.held(2, Some(first(1)));
        log.used(1, first(2));
        log.outcome(1);
        log.outcome(2);
    });
    // For another command.
    one("is not the same identity's command over the same connection", |log, intent| {
        approved(log, intent);
        log.open(2, "app");
        log.held(2, None);
        log.used(1, first(2));
    });
    one("is not the same identity's command over the same connection", |log, intent| {
        approved(log, intent);
        log.open(2, "app");
        log.intent_with(2, Field::NONE, |intent| intent.approval = Some(first(1)));
        log.used(1, first(2));
    });
    one("which is not held or has an outcome already", |log, intent| {
        approved(log, intent);
        log.used(1, first(2));
    });
    one("was asked for in entry 4 already", |log, intent| {
        log.requested(1, intent, 1, 9);
        log.requested(1, intent, 1, 9);
    });
}
