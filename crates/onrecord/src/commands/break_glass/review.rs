//! `onrecord break-glass review`: show what ran under it, ask, and put what was found on the record.

use clap::Args;
use serde_json::{Value, json};

use super::{Desk, each_page, shown, text, which, words};
use crate::Failure;
use crate::commands::Context;
use crate::commands::desk::Question;
use crate::output::{Format, Look, single_line};

const QUESTION: Question = Question { nothing: "nothing was reviewed", hint: "--yes reviews without a question" };

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
            QUESTION.show(&telling.page(page))
        })?;
        QUESTION.show(&telling.end())?;
        let finding = if self.not_justified { "not_justified" } else { "justified" };
        if !self.yes {
            QUESTION.ask(&format!("Put on the record that it was {}?", said(finding)))?;
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

fn said(finding: &str) -> String {
    finding.replace('_', " ")
}
