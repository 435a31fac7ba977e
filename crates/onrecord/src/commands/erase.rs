//! `onrecord erase` and `onrecord redact`: content is destroyed; that it was there, and who did it and why, stays.

use clap::Args;
use model::ContentKind;
use serde_json::Value;

use super::Context;
use super::asking::{self, number, text};
use super::source::{self, Named};
use super::words::counted;
use crate::Failure;
use crate::cli::RecordPlace;
use crate::control::Request;
use crate::output::Format;

/// Arguments of `erase`.
#[derive(Debug, Args)]
pub struct Erase {
    /// The session: its id, or the end of it
    #[arg(long, value_name = "ID")]
    session: String,
    /// Why; it stays on the record, so do not repeat here what is to be erased
    #[arg(long, value_name = "TEXT")]
    reason: String,
}

/// Arguments of `redact`.
#[derive(Debug, Args)]
pub struct Redact {
    /// The command (SESSION.N), in full or by the end of the session's id
    command: String,
    /// What of it: statement, parameters, message or output
    #[arg(long, value_name = "FIELD", value_parser = field)]
    field: ContentKind,
    /// Why; it stays on the record, so do not repeat here what is to be erased
    #[arg(long, value_name = "TEXT")]
    reason: String,
}

impl Erase {
    /// Does it.
    pub fn run(self, context: &mut Context) -> Result<(), Failure> {
        let session = source::session(&context.reader(&RecordPlace::default())?, &self.session)?.to_string();
        let answer = asking::ask(context, &Request::Erase { session, reason: self.reason })?;
        report(context, &answer, &format!("The content of session {} is erased", text(&answer, "session")))
    }
}

impl Redact {
    /// Does it.
    pub fn run(self, context: &mut Context) -> Result<(), Failure> {
        let command = match source::named(&context.reader(&RecordPlace::default())?, &self.command)? {
            Named::Command(id) => id.to_string(),
            Named::Session(id) => {
                return Err(Failure::usage(format_args!("{id} is a session, not a command")).hint(format_args!(
                    "write the command's number too, such as {id}.1; `onrecord erase` takes sessions"
                )));
            }
        };
        let field = self.field.as_str();
        let said = format!("The {field} of command {command} is erased");
        let answer = asking::ask(context, &Request::Redact { command, field: field.to_owned(), reason: self.reason })?;
        report(context, &answer, &said)
    }
}

fn report(context: &mut Context, answer: &Value, said: &str) -> Result<(), Failure> {
    let console = &mut context.console;
    if console.format() != Format::Table {
        return Ok(console.json(answer)?);
    }
    let blobs = match number(answer, "blobs") {
        0 => String::new(),
        blobs => format!(", {} removed", counted(blobs, "long text", "long texts")),
    };
    console.line(&format!("{said}{blobs}; entry {} says so.", number(answer, "entry")))?;
    let shared = answer.get("shared").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    if !shared.is_empty() {
        console.line("These had the same content, which is gone for them too:")?;
        for other in shared {
            console.line(&format!("  {} of {}", text(other, "field"), text(other, "command")))?;
        }
    }
    Ok(())
}

fn field(text: &str) -> Result<ContentKind, &'static str> {
    ContentKind::parse(text).ok_or("write statement, parameters, message or output")
}
