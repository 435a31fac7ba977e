//! What an audit says of break-glass: each rule, kept and broken.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod log;

use ledger::audit::Report;
use log::*;
use model::*;

/// A log with a session of the human `cy` in it, and then what is given. Each entry is a second after the one before.
fn report(then: impl FnOnce(&mut Log)) -> Report {
    let mut log = Log::default();
    let (origin, vkey, program) = (ORIGIN.into(), vkey().to_string(), "onrecord 0.6".into());
    log.push(Body::Genesis(Genesis { origin, vkey, program, previous: None }));
    log.start();
    log.open(1, "app");
    then(&mut log);
    let report = whole(&log, &[]);
    assert_eq!(report.integrity.violation, None);
    report
}

fn gaps(then: impl FnOnce(&mut Log)) -> Vec<String> {
    report(then).completeness.gaps
}

#[test]
fn what_was_opened_and_reviewed_as_it_must_be_is_right() {
    let report = report(|log| {
        log.opened(1, "cy", 10);
        log.under(1, 1, "cy");
        log.outcome(1);
        log.closed(1, Some("cy"));
        log.reviewed(1, "dora");
        // Another, for longer than a gateway's life.
        log.opened(2, "cy", 1000);
        log.under(1, 2, "cy");
        log.outcome(1);
        log.start();
        log.closed_so(2, BreakGlassEnd::Restart, None);
        // And one of which the gateway knew nothing any more: nothing ran under it.
        log.opened(3, "cy", 1000);
        log.start();
    });
    assert_eq!(report.completeness.gaps, [""; 0]);
    assert_eq!((report.completeness.break_glass_opened, report.completeness.break_glass_commands), (3, 2));
    assert_eq!(report.completeness.break_glass_unreviewed, [glass(2)].into());
}

/// What is found in a log that continues another one.
fn gaps_of_continued(then: impl FnOnce(&mut Log)) -> Vec<String> {
    let mut log = Log::default();
    let (origin, vkey, program) = (ORIGIN.into(), vkey().to_string(), "onrecord 0.6".into());
    let previous = PreviousLog {
        origin: "gateway.example.com/0".into(),
        vkey: "v".into(),
        size: 5,
        root: Digest([5; 32]),
        witnessed: None,
        reason: EpochReason::Damaged,
    };
    log.push(Body::Genesis(Genesis { origin, vkey, program, previous: Some(previous) }));
    log.start();
    then(&mut log);
    whole(&log, &[]).completeness.gaps
}

#[test]
fn a_log_that_continues_another_may_end_what_that_one_began() {
    let gaps = gaps_of_continued(|log| {
        log.closed_so(1, BreakGlassEnd::Restart, None);
        log.reviewed(1, "dora");
        // That one closed it already.
        log.reviewed(2, "dora");
        log.open(1, "app");
        log.under(1, 1, "cy");
        log.outcome(1);
    });
    assert!(gaps.len() == 1 && gaps[0].contains("which was not opened before"), "{gaps:#?}");
}

#[test]
fn a_log_that_continues_another_ends_it_once_and_by_a_person() {
    fn one(expected: &str, then: impl FnOnce(&mut Log)) {
        let gaps = gaps_of_continued(then);
        assert!(gaps.len() == 1 && gaps[0].contains(expected), "{expected}: {gaps:#?}");
    }
    let by_nobody = |id: u8, change: fn(&mut Identity)| {
        move |log: &mut Log| {
            let mut by = identity(human("dora"));
            change(&mut by);
            let review = BreakGlassReview { by, finding: BreakGlassFinding::Justified, comment: "fine".into() };
            log.glass_step(id, BreakGlassStep::Reviewed(Box::new(review)));
        }
    };
    one("only people may, each for themselves", by_nobody(1, |by| by.name = agent()));
    one("who that is was not verified", by_nobody(1, |by| by.known = Known::Claimed));
    one("or was reviewed already", |log| {
        log.reviewed(1, "dora");
        log.reviewed(1, "erin");
    });
    one("or was reviewed already", |log| {
        log.opened(1, "cy", 10);
        log.closed(1, Some("cy"));
        log.reviewed(1, "dora");
        log.reviewed(1, "erin");
    });
    for again in [1, 2] {
        one("was closed, and was not open", |log| {
            log.opened(2, "cy", 10);
            log.closed(2, Some("cy"));
            log.closed_so(1, BreakGlassEnd::Restart, None);
            log.closed_so(again, BreakGlassEnd::Restart, None);
        });
    }
    one("was closed, and was not open", |log| {
        log.reviewed(1, "dora");
        log.closed_so(1, BreakGlassEnd::Restart, None);
    });
    one("was opened, and is over already", |log| {
        log.reviewed(1, "dora");
        log.opened(1, "cy", 10);
    });
}

/// Each rule of break-glass, broken by itself.
#[test]
fn what_must_not_be_under_break_glass_is_a_gap() {
    fn one(expected: &str, then: impl FnOnce(&mut Log)) {
        let gaps = gaps(then);
        assert!(gaps.len() == 1 && gaps[0].contains(expected), "{expected}: {gaps:#?}");
    }
    // A command without it, of somebody else, elsewhere, too late.
    one("which was not opened before", |log| {
        log.under(1, 1, "cy");
        log.outcome(1);
    });
    one("entry 4: command 01040G2081040G2081040G2081.1 names break-glass", |log| {
        log.opened(1, "cy", 10);
        log.under(1, 1, "dora");
        log.outcome(1);
    });
    for change in [
        |intent: &mut Intent| intent.connection = "other".into(),
        |intent: &mut Intent| intent.who.known = Known::Claimed,
        |intent: &mut Intent| {
            intent.who.on_behalf_of = Some(OnBehalfOf { name: human("dora"), known: Known::Verified });
        },
    ] {
        one("which human:cy opened for their own commands on app (entry 3)", |log| {
            log.opened(1, "cy", 10);
            log.under_so(1, 1, "cy", change);
            log.outcome(1);
        });
    }
    one("which lifts holds, and its policy denied it (opened in entry 3)", |log| {
        log.opened(1, "cy", 10);
        log.under_so(1, 1, "cy", |intent| intent.observed = Some(Verdict::Deny));
        log.outcome(1);
        // What it would have held is what it is for.
        log.under_so(1, 1, "cy", |intent| intent.observed = Some(Verdict::Hold));
        log.outcome(1);
        // A line of a shell is seen when it runs.
        log.under_so(1, 1, "cy", |intent| (intent.via, intent.observed) = (Via::Line, Some(Verdict::Deny)));
        log.outcome(1);
    });
    one("which was over (opened in entry 3)", |log| {
        log.opened(1, "cy", 10);
        log.closed(1, Some("cy"));
        log.under(1, 1, "cy");
        log.outcome(1);
    });
    one("which was over (opened in entry 3)", |log| {
        log.opened(1, "cy", 10);
        log.start();
        log.under(1, 1, "cy");
        log.outcome(1);
    });
    one("whose time was over at", |log| {
        log.opened(1, "cy", 10);
        log.clock += 10_000_000;
        log.under(1, 1, "cy");
        log.outcome(1);
    });
    one("which was not opened before, or was reviewed", |log| {
        log.opened(1, "cy", 10);
        log.closed(1, Some("cy"));
        log.reviewed(1, "dora");
        log.under(1, 1, "cy");
        log.outcome(1);
    });
    // Its opening.
    one("it would last more than an hour", |log| log.opened(1, "cy", 3601));
    one("only people may, each for themselves", |log| {
        log.opened_so(1, 10, |opening| opening.by.name = agent());
    });
    one("only people may, each for themselves", |log| {
        log.opened_so(1, 10, |opening| {
            opening.by.on_behalf_of = Some(OnBehalfOf { name: human("dora"), known: Known::Verified });
        });
    });
    one("who that is was not verified", |log| {
        log.opened_so(1, 10, |opening| opening.by.known = Known::Claimed);
    });
    one("was opened in entry 3 already", |log| {
        log.opened(1, "cy", 10);
        log.opened(1, "cy", 10);
    });
    // Its end.
    one("was closed, and was not open", |log| log.closed(1, Some("cy")));
    one("was closed, and was not open", |log| {
        log.opened(1, "cy", 10);
        log.closed(1, Some("cy"));
        log.closed_so(1, BreakGlassEnd::Expired, None);
    });
    one("was closed by somebody, and not by a proven person", |log| {
        log.opened(1, "cy", 10);
        log.closed(1, None);
    });
    // Its review.
    one("human:dora reviewed break-glass 01040G2081040G2081040G2081: it was not opened", |log| log.reviewed(1, "dora"));
    one("it was not closed", |log| {
        log.opened(1, "cy", 10);
        log.reviewed(1, "dora");
    });
    one("whoever opened it may not", |log| {
        log.opened(1, "cy", 10);
        log.closed(1, Some("cy"));
        log.reviewed(1, "cy");
    });
    one("or was reviewed already", |log| {
        log.opened(1, "cy", 10);
        log.closed(1, Some("cy"));
        log.reviewed(1, "dora");
        log.reviewed(1, "erin");
    });
}
