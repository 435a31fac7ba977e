//! `onrecord break-glass review`: show what ran under it, ask, and put what was found on the record.

use std::io::{IsTerminal as _, Write as _};

use clap::Args;
use serde_json::{Value, json};

use super::{Desk, each_page, shown, text, which, words};
use crate::Failure;
use crate::commands::Context;
use crate::output::{Format, Look, single_line};

/// Arguments of `break-glass review`.
#[derive(Debug, Args)]
pub struct Review {
    /// Its id, in full or the end of it
    id: String,
    /// What you found; it stays on the record, in clear
    #[arg(long, value_name = "TEXT", value_parser = words)]
    comment: String,
    /// There was no reason for it, or what ran was not right
    #[arg(long)]
    not_justified: bool,
    /// Review without a question. What is reviewed is shown all the same
    #[arg(long, short)]
    yes: bool,
    #[command(flatten)]
    desk: Desk,
}

impl Review {
    pub(super) fn run(self, context: &mut Context) -> Result<(), Failure> {
        let mut seat = self.desk.sit()?;
        let id = which(&seat.api, &seat.proof, &self.id)?;
        let mut telling = shown::Telling::new(Look::of(&std::io::stderr()));
        each_page(&seat.api, &seat.proof, id, |page| {
            reviewable(page)?;
            show(&telling.page(page))
        })?;
        show(&telling.end())?;
        let finding = if self.not_justified { "not_justified" } else { "justified" };
        if !self.yes {
            ask(finding)?;
            // Reading takes its time, and a token holds for a while only.
            seat = self.desk.sit()?;
        }
        let body = json!({"finding": finding, "comment": self.comment});
        let answer = seat.api.review_break_glass(&seat.proof, id, &body)?;
        let console = &mut context.console;
        if console.format() != Format::Table {
            return Ok(console.json(&answer)?);
        }
        Ok(console.line(&single_line(&format!("Reviewed {}: {}.", text(&answer, "id"), said(finding))))?)
    }
}

/// Whether there is something to review: the gateway decides who may.
fn reviewable(detail: &Value) -> Result<(), Failure> {
    let id = single_line(text(detail, "id"));
    match text(detail, "state") {
        "closed" => Ok(()),
        "open" => Err(Failure::new(format_args!("{id} is still open: it is reviewed once it is over"))
            .hint(format_args!("`onrecord break-glass close {id}` closes it"))),
        state => Err(Failure::new(format_args!("{id} is {}: there is nothing left to review", single_line(state)))),
    }
}

/// Shows it where questions are asked, and not where results go.
fn show(lines: &[String]) -> Result<(), Failure> {
    let mut out = std::io::stderr().lock();
    lines.iter().try_for_each(|line| writeln!(out, "{line}")).and_then(|()| out.flush()).map_err(unshown)
}

/// What is not shown is not reviewed.
fn unshown(error: std::io::Error) -> Failure {
    Failure::new(format_args!("what is to be reviewed cannot be shown, so nothing was: {error}"))
}

/// Asks, and goes on only after a yes.
fn ask(finding: &str) -> Result<(), Failure> {
    if !std::io::stdin().is_terminal() || !std::io::stderr().is_terminal() {
        return Err(Failure::usage("nothing was reviewed: there is no terminal to ask on")
            .hint("--yes reviews without a question"));
    }
    let mut out = std::io::stderr().lock();
    let asked = write!(out, "Put on the record that it was {}? [y/N] ", said(finding));
    asked.and_then(|()| out.flush()).map_err(unshown)?;
    let mut answer = String::new();
    std::io::stdin()
        .read_line(&mut answer)
        .map_err(|error| Failure::new(format_args!("nothing was reviewed: the answer cannot be read: {error}")))?;
    match answer.trim().to_ascii_lowercase().as_str() {
        "y" | "yes" => Ok(()),
        _ => Err(Failure::new("nothing was reviewed")),
    }
}

fn said(finding: &str) -> String {
    finding.replace('_', " ")
}
