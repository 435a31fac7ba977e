//! `onrecord approvals approve` and `deny`: show a held statement, ask, and decide on exactly that.

use clap::Args;
use serde_json::{Value, json};

use super::{Desk, Seat, shown, which};
use crate::Failure;
use crate::commands::Context;
use crate::commands::asking::{number, text};
use crate::commands::desk::{Question, words};
use crate::output::{Format, Look, Tone, single_line};

const QUESTION: Question = Question { nothing: "nothing was decided", hint: "--yes decides without a question" };
/// Hexadecimal digits of a digest.
const DIGEST_DIGITS: usize = 64;

/// Arguments of `approvals approve` and `approvals deny`.
#[derive(Debug, Args)]
pub struct Decide {
    /// The approval, which is called as the command that is held: SESSION.N, in full or by the end of the session's id
    id: String,
    /// What there is to say of it; it stays on the record
    #[arg(long, value_name = "TEXT", value_parser = words)]
    comment: Option<String>,
    /// Decide without a question. What is decided on is shown all the same
    #[arg(long, short)]
    yes: bool,
    #[command(flatten)]
    desk: Desk,
}

/// What is decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Decision {
    /// It may run.
    Approve,
    /// It must not.
    Deny,
}

impl Decide {
    pub(super) fn run(self, decision: Decision, context: &mut Context) -> Result<(), Failure> {
        let mut seat = self.desk.sit()?;
        let id = which(&seat.api, &seat.proof, &self.id)?;
        let detail = seat.api.approval(&seat.proof, id)?;
        let request = decidable(&detail, &id.to_string(), decision)?;
        show(&detail)?;
        if !self.yes {
            QUESTION.ask(match decision {
                Decision::Approve => "Approve these bytes?",
                Decision::Deny => "Deny these bytes?",
            })?;
            // Reading takes its time, and a token holds for a while only.
            seat = self.desk.sit()?;
        }
        let Seat { api, proof } = seat;
        let mut body = json!({"decision": decision.word(), "request": request});
        if let (Some(fields), Some(comment)) = (body.as_object_mut(), self.comment) {
            fields.insert("comment".to_owned(), Value::String(comment));
        }
        let answer = api.decide(&proof, id, &body)?;
        let console = &mut context.console;
        if console.format() != Format::Table {
            return Ok(console.json(&answer)?);
        }
        Ok(console.line(&single_line(&came_of(decision, &answer)))?)
    }
}

impl Decision {
    fn word(self) -> &'static str {
        match self {
            Self::Approve => "approve",
            Self::Deny => "deny",
        }
    }
}

/// The digest of what would be decided on, if all of it is there to be shown and it is still open.
fn decidable<'a>(detail: &'a Value, id: &str, decision: Decision) -> Result<&'a str, Failure> {
    let whole = detail.get("statement").is_some_and(Value::is_string)
        && detail.get("statement_shortened").and_then(Value::as_bool) != Some(true);
    let request = text(detail, "request");
    let digest = request.len() == DIGEST_DIGITS && request.bytes().all(|byte| byte.is_ascii_hexdigit());
    if text(detail, "id") != id || !whole || !digest {
        return Err(Failure::new(format_args!("the gateway does not show all of {id}, so it cannot be decided here"))
            .hint("the gateway may be of another version than this program"));
    }
    match (text(detail, "state"), decision) {
        // What enough others have approved can be stopped as long as it has not run.
        ("waiting", _) | ("approved", Decision::Deny) => Ok(request),
        (state, _) => {
            Err(Failure::new(format_args!("{id} is {}: there is nothing left to decide", single_line(state)))
                .hint(format_args!("`onrecord approvals show {id}` says what became of it")))
        }
    }
}

/// Shows it where questions are asked, and not where results go.
fn show(detail: &Value) -> Result<(), Failure> {
    let look = Look::of(&std::io::stderr());
    let mut lines = shown::lines_of(detail, look);
    if detail.get("may_decide").and_then(Value::as_bool) == Some(false) {
        lines.push(look.paint(Tone::Warning, "You may not decide this one, the gateway says."));
    }
    QUESTION.show(&lines)
}

/// What came of it, for people.
fn came_of(decision: Decision, answer: &Value) -> String {
    let (id, state) = (text(answer, "id"), text(answer, "state"));
    let (given, quorum) = (number(answer, "approvals"), number(answer, "quorum"));
    match (decision, state) {
        (Decision::Approve, "waiting") => {
            format!("Approved {id}: {given} of {quorum}. It runs once all have approved.")
        }
        (Decision::Approve, "approved") => {
            format!("Approved {id}. It runs once, as soon as who asked for it is there.")
        }
        (Decision::Approve, "used") => format!("Approved {id}. It runs."),
        (Decision::Deny, "denied") => format!("Denied {id}."),
        (_, state) => format!("Decided on {id}: it is {state}."),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_whole_and_open_is_decided() {
        let digest = "ab".repeat(32);
        let right =
            json!({"id": "S.1", "state": "waiting", "statement": "x", "statement_shortened": false, "request": digest});
        assert_eq!(decidable(&right, "S.1", Decision::Approve).unwrap(), digest);
        let approved = json!({"id": "S.1", "state": "approved", "statement": "x", "request": digest});
        assert_eq!(decidable(&approved, "S.1", Decision::Deny).unwrap(), digest);
        assert!(decidable(&approved, "S.1", Decision::Approve).is_err());
        for (key, value) in [
            ("id", json!("S.2")),
            ("statement", json!(null)),
            ("statement_shortened", json!(true)),
            ("request", json!("ab")),
            ("request", json!("xy".repeat(32))),
            ("state", json!("expired")),
            ("state", json!(null)),
        ] {
            let mut wrong = right.clone();
            wrong.as_object_mut().unwrap().insert(key.to_owned(), value.clone());
            assert!(decidable(&wrong, "S.1", Decision::Deny).is_err(), "{key} {value}");
        }
    }
}
