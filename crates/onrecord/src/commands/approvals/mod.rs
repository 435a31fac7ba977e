//! `onrecord approvals`: what waits for a person's decision, over the gateway's HTTP API.
//!
//! What it is not for: deciding who may decide. The gateway knows the bearer, and refuses whoever may not.
//!
//! Invariant: a decision names the `request` of what was shown, whole, before it. Nothing is decided that was not shown.

mod decide;
pub(super) mod shown;
mod watch;

use clap::{Args, Subcommand};
use model::CommandId;
use serde_json::Value;

use super::Context;
use super::asking::{number, text, when};
use super::desk::{self, Desk, Seat};
use crate::Failure;
use crate::agent::Api;
use crate::output::{Cell, Column, Format, Table};

const EXAMPLES: &str = "\
Examples:
  onrecord approvals list
  onrecord approvals approve 7Q2M.3 --comment 'ticket 4711'
  onrecord approvals deny 7Q2M.3
Where and as whom, as with `onrecord whoami`: use `onrecord login` once, or --gateway and --token-file.";

/// `approvals ...`.
#[derive(Debug, Subcommand)]
#[command(after_long_help = EXAMPLES)]
pub enum Approvals {
    /// List what you may decide or have asked for, oldest first
    List(List),
    /// Show everything known of one of them
    Show(Show),
    /// Look at a statement that is held, and let it run
    Approve(decide::Decide),
    /// Look at a statement that is held, and refuse it
    Deny(decide::Decide),
    /// Follow them: a line for each change
    Watch(watch::Watch),
}

/// Arguments of `approvals list`.
#[derive(Debug, Args)]
pub struct List {
    #[command(flatten)]
    desk: Desk,
}

/// Arguments of `approvals show`.
#[derive(Debug, Args)]
pub struct Show {
    /// The approval, which is called as the command that is held: SESSION.N, in full or by the end of the session's id
    id: String,
    #[command(flatten)]
    desk: Desk,
}

impl Approvals {
    /// Does it.
    ///
    /// # Errors
    /// The gateway cannot be asked, or refuses.
    pub fn run(self, context: &mut Context) -> Result<(), Failure> {
        match self {
            Self::List(list) => list.run(context),
            Self::Show(show) => show.run(context),
            Self::Approve(decide) => decide.run(decide::Decision::Approve, context),
            Self::Deny(decide) => decide.run(decide::Decision::Deny, context),
            Self::Watch(watch) => watch.run(context),
        }
    }
}

impl List {
    fn run(self, context: &mut Context) -> Result<(), Failure> {
        let Seat { api, proof } = self.desk.sit()?;
        let answer = api.approvals(&proof, None)?;
        let console = &mut context.console;
        if console.format() != Format::Table {
            return console.json_list(summaries(&answer).map(Ok::<_, Failure>));
        }
        let columns = [
            Column::text("ID"),
            Column::text("STATE"),
            Column::spare("APPROVED"),
            Column::text("EXPIRES"),
            Column::text("WHO"),
            Column::spare("ON BEHALF OF"),
            Column::text("CONNECTION"),
            Column::flexible("STATEMENT"),
        ];
        let mut table = Table::new(columns);
        for one in summaries(&answer) {
            let quorum = number(one, "quorum");
            let approved = if quorum > 1 { format!("{} of {quorum}", number(one, "approvals")) } else { String::new() };
            table.row([
                Cell::new(text(one, "id")),
                Cell::toned(shown::tone(text(one, "state")), text(one, "state")),
                Cell::new(approved),
                Cell::new(when(text(one, "expires"))),
                Cell::new(text(one, "requester")),
                Cell::new(text(one, "on_behalf_of")),
                Cell::new(text(one, "connection")),
                Cell::new(text(one, "statement")),
            ]);
        }
        if table.is_empty() {
            return Ok(console.line("Nothing waits for you, and nothing that you asked for waits.")?);
        }
        Ok(console.table(&table)?)
    }
}

impl Show {
    fn run(self, context: &mut Context) -> Result<(), Failure> {
        let Seat { api, proof } = self.desk.sit()?;
        let id = which(&api, &proof, &self.id)?;
        let detail = api.approval(&proof, id)?;
        let console = &mut context.console;
        if console.format() != Format::Table {
            return Ok(console.json(&detail)?);
        }
        for line in shown::lines_of(&detail, console.look()) {
            console.line(&line)?;
        }
        Ok(())
    }
}

/// The approvals of a list.
fn summaries(answer: &Value) -> impl Iterator<Item = &Value> {
    answer.get("approvals").and_then(Value::as_array).into_iter().flatten()
}

/// The approval that is meant: in full, or the only one of the list whose session's id ends so.
fn which(api: &Api, proof: &str, meant: &str) -> Result<CommandId, Failure> {
    match meant.parse() {
        Ok(id) => Ok(id),
        Err(_) => only(&api.approvals(proof, None)?, meant),
    }
}

/// As [`which`], among those of a list.
fn only(answer: &Value, meant: &str) -> Result<CommandId, Failure> {
    let (end, ordinal) = meant.split_once('.').map_or((meant, None), |(end, ordinal)| (end, Some(ordinal)));
    let end = end.to_ascii_uppercase();
    let fits = |id: &CommandId| {
        let ordinal_fits = ordinal.is_none_or(|ordinal| ordinal == id.ordinal.to_string());
        !end.is_empty() && ordinal_fits && id.session.to_string().ends_with(&end)
    };
    let ids = summaries(answer).filter_map(|one| text(one, "id").parse().ok());
    let found: Vec<CommandId> = ids.filter(fits).collect();
    desk::only("approval", "`onrecord approvals list` has those there are", meant, &found)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::only;
    use crate::Exit;
    use model::{CommandId, SessionId};
    use serde_json::json;

    #[test]
    fn an_approval_is_found_by_the_end_of_its_sessions_id() {
        let session = |last| SessionId::new(1_763_804_136_123, [0, 0, 0, 0, 0, 0, 0, 0, 0, last]);
        let id = |last, ordinal| CommandId { session: session(last), ordinal };
        let all = [id(1, 3), id(1, 4), id(2, 3)];
        let list = json!({"approvals": all.map(|id| json!({"id": id.to_string()}))});
        let one = session(2).to_string();
        assert_eq!(only(&list, &one[20..]).unwrap(), id(2, 3));
        assert_eq!(only(&list, &one[20..].to_lowercase()).unwrap(), id(2, 3));
        let two = session(1).to_string();
        assert_eq!(only(&list, &two[20..]).unwrap_err().exit(), Exit::Usage);
        assert_eq!(only(&list, &format!("{}.4", &two[20..])).unwrap(), id(1, 4));
        for nothing in ["", ".3", "zzz", "\u{1b}[2J"] {
            let failure = only(&list, nothing).unwrap_err();
            assert_eq!(failure.exit(), Exit::NotFound, "{nothing}");
            assert!(!failure.to_string().contains('\u{1b}'));
        }
    }
}
