//! `onrecord policy test`: cases that say what rules are to decide.

use std::path::PathBuf;

use clap::Args;
use policy::cases::{self, Case};
use policy::{Decision, PolicySet};
use serde_json::{Value, json};

use super::super::words::{self, counted};
use super::asked::{Asked, Imagined, reasons, verdict};
use super::{Context, PolicyPlace, content, say};
use crate::output::{Cell, Column, Format, Table, Tone};
use crate::{Exit, Failure};

/// Arguments of `policy test`.
#[derive(Debug, Args)]
pub struct Test {
    /// The file of cases
    #[arg(value_name = "CASES")]
    cases: PathBuf,
    #[command(flatten)]
    policy: PolicyPlace,
}

/// A case that did not go as it says.
struct Failed {
    name: String,
    line: u32,
    expected: String,
    got: String,
    why: String,
}

impl Test {
    /// Does it.
    pub fn run(self, context: &mut Context) -> Result<(), Failure> {
        let set = self.policy.set(context)?;
        let file = self.cases.display().to_string();
        let cases = match cases::parse(&file, &content(&self.cases)?) {
            Ok(cases) => cases,
            Err(problems) => {
                say(&mut context.console, &problems)?;
                return Err(Failure::said(Exit::Usage));
            }
        };
        let mut failed = Vec::new();
        for case in &cases {
            failed.extend(run(&set, &file, case)?);
        }
        let console = &mut context.console;
        let passed = cases.len() - failed.len();
        if console.format() == Format::Table {
            let mut table = Table::new([
                Column::text("LINE"),
                Column::text("CASE"),
                Column::text("EXPECTED"),
                Column::text("GOT"),
                Column::flexible("WHY"),
            ]);
            for failed in &failed {
                table.row([
                    Cell::new(failed.line.to_string()),
                    Cell::new(&failed.name),
                    Cell::new(&failed.expected),
                    Cell::toned(Tone::Bad, &failed.got),
                    Cell::new(&failed.why),
                ]);
            }
            console.table(&table)?;
            let tone = if failed.is_empty() { Tone::Good } else { Tone::Bad };
            let count = format!("{}: {passed} passed, {} failed", counted(cases.len(), "case", "cases"), failed.len());
            console.line(&console.paint(tone, &count))?;
        } else {
            let list: Vec<Value> = failed.iter().map(as_json).collect();
            console.json(&json!({"cases": cases.len(), "passed": passed, "failed": list}))?;
        }
        if failed.is_empty() { Ok(()) } else { Err(Failure::said(Exit::Failure)) }
    }
}

fn run(set: &PolicySet, file: &str, case: &Case) -> Result<Option<Failed>, Failure> {
    let unix = match case.at.as_deref().map(words::moment) {
        Some(Ok(us)) => us.div_euclid(1_000_000),
        Some(Err(why)) => return Err(Failure::usage(format_args!("{file}:{}: `at`: {why}", case.line))),
        None if set.varies_with().time => {
            let what = format!("{file}:{}: the case has no `at`, and the rules look at the time", case.line);
            return Err(Failure::usage(what).hint("write `at: \"2026-11-23T10:00:00Z\"` or another time"));
        }
        None => 0,
    };
    let asked = Asked::from(Imagined {
        identity: &case.identity,
        groups: &case.groups,
        on_behalf_of: case.on_behalf_of.as_ref(),
        run: case.run.as_deref(),
        claims: &case.claims,
        connection: &case.connection.name,
        labels: &case.connection.labels,
        database: &case.connection.database,
        role: &case.connection.role,
        sql: &case.sql,
        unix,
    });
    let decision = asked.decide(set);
    if as_expected(case, &decision) {
        return Ok(None);
    }
    let mut why = verdict(&decision);
    if !asked.facts.complete() {
        why.push_str(&format!("; not all of the statement is known: {}", reasons(&asked.facts.opaque)));
    }
    let with_rules = |ruling: &str, rules: &[String]| match (&case.rules, rules) {
        (None, _) => ruling.to_owned(),
        (Some(_), []) => format!("{ruling} (no rule)"),
        (Some(_), rules) => format!("{ruling} ({})", rules.join(", ")),
    };
    Ok(Some(Failed {
        name: case.name.clone(),
        line: case.line,
        expected: with_rules(case.expect.as_str(), case.rules.as_deref().unwrap_or_default()),
        got: with_rules(decision.ruling().as_str(), decision.rules()),
        why,
    }))
}

fn as_expected(case: &Case, decision: &Decision) -> bool {
    let sorted = |rules: &[String]| {
        let mut rules = rules.to_vec();
        rules.sort();
        rules
    };
    case.expect == decision.ruling()
        && case.rules.as_ref().is_none_or(|rules| sorted(rules) == sorted(decision.rules()))
}

fn as_json(failed: &Failed) -> Value {
    let Failed { name, line, expected, got, why } = failed;
    json!({"case": name, "line": line, "expected": expected, "got": got, "why": why})
}
