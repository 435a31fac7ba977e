//! `onrecord kill SESSION`: a live session is ended. The record says who did it, and why.

use clap::Args;

use super::source::{self, Named};
use super::{Context, asking};
use crate::Failure;
use crate::cli::RecordPlace;
use crate::control::Request;
use crate::output::Format;

/// Arguments of `kill`.
#[derive(Debug, Args)]
pub struct Kill {
    /// The session: its id, or the end of it
    session: String,
    /// Why; it stays on the record
    #[arg(long, value_name = "TEXT")]
    reason: String,
}

impl Kill {
    /// Does it.
    pub fn run(self, context: &mut Context) -> Result<(), Failure> {
        let session = match source::named(&context.reader(&RecordPlace::default())?, &self.session)? {
            Named::Session(id) => id.to_string(),
            Named::Command(id) => {
                return Err(Failure::usage(format_args!("{id} is a command, and what is ended is its session"))
                    .hint(format_args!("onrecord kill {} --reason TEXT", id.session)));
            }
        };
        let answer = asking::ask_live(context, &Request::Kill { session: session.clone(), reason: self.reason })?;
        let console = &mut context.console;
        if console.format() != Format::Table {
            return Ok(console.json(&answer)?);
        }
        Ok(console.line(&format!("Session {session} is told to end. What ran in it has no known outcome."))?)
    }
}
