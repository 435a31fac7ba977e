//! PostgreSQL's own regression suite: the same result through the gateway as without it, and every
//! statement of it on the record.

use std::collections::BTreeMap;

use testkit::{Postgres, Ran, Record, regress};

use crate::plan;

#[test]
#[ignore = "some minutes, and needs PostgreSQL's sources: `cargo xtask test` runs it"]
fn same_result_and_all_on_the_record() {
    let direct = {
        let server = Postgres::start();
        regress::run_suite(&server.target())
    };
    eprintln!("direct: {} tests, failed: {:?}", direct.ran, direct.failed);
    assert!(direct.ran > 200, "{}", direct.report);

    let server = Postgres::start();
    // The suite makes and uses databases of these names.
    let plan = plan().connection("postgres", "postgres", "app_owner");
    let gateway = plan.connection("regression", "regression", "app_owner").start(&server);
    let owner = gateway.target().with_user("app_owner", &gateway.target().password);
    let through = regress::run_suite(&owner);
    eprintln!("through the gateway: {} tests, failed: {:?}", through.ran, through.failed);
    assert_eq!(through.ran, direct.ran, "{}", through.report);
    assert_eq!(through.failed, direct.failed, "{}", through.differences);

    let ran = server.log().ran("regression");
    let record = gateway.settled("regression");
    eprintln!("{} commands on the record, {} ran", record.commands.len(), ran.len());
    all_recorded(&record, &ran);
    gateway.verify();
}

/// Session by session: the suite's sessions run side by side, so each of the server's must be found
/// whole, in its order, among the record's.
fn all_recorded(record: &Record, ran: &[Ran]) {
    type Line = (String, Option<String>);
    let mut recorded: BTreeMap<&str, Vec<Line>> = BTreeMap::new();
    for command in &record.commands {
        if !matches!(command.status(), "skipped" | "denied") {
            let line = (command.text().to_owned(), command.code().map(str::to_owned));
            recorded.entry(command.str("session").unwrap()).or_default().push(line);
        }
    }
    let mut logged: BTreeMap<&str, Vec<Line>> = BTreeMap::new();
    for one in ran {
        let line = (one.text.clone(), one.code.clone());
        logged.entry(&one.session).or_default().push(line);
    }
    let mut unmatched: Vec<&Vec<Line>> = Vec::new();
    let mut left: Vec<&Vec<Line>> = recorded.values().collect();
    for session in logged.values() {
        match left.iter().position(|r| *r == session) {
            Some(at) => drop(left.swap_remove(at)),
            None => unmatched.push(session),
        }
    }
    let mut report = String::new();
    for session in &unmatched {
        // The nearest of what is left shares the longest beginning.
        let shared = |r: &&&Vec<Line>| r.iter().zip(session.iter()).take_while(|(a, b)| a == b).count();
        let nearest = left.iter().max_by_key(shared);
        let at = nearest.map_or(0, |n| shared(&n));
        report += &format!("at {at}: the server: {:?}\n", session.get(at));
        report += &format!("      the record: {:?}\n", nearest.and_then(|n| n.get(at)));
    }
    assert!(unmatched.is_empty() && left.is_empty(), "{} sessions differ\n{report}", unmatched.len());
}
