//! `onrecord hold`: legal holds, which keep content from being erased, whoever asks.

use clap::{Args, Subcommand};
use model::IdentityName;
use serde_json::Value;
use store::Custody;

use super::asking::{self, text, when};
use super::{Context, source};
use crate::Failure;
use crate::cli::RecordPlace;
use crate::control::{Request, hold_as_json};
use crate::output::{Cell, Column, Format, Table, Tone};

/// `hold ...`.
#[derive(Debug, Subcommand)]
pub enum HoldCommand {
    /// Keep content from being erased, and print the hold's id
    Place(Place),
    /// Let a hold go
    Release(Release),
    /// List the holds in force
    List(List),
}

/// Arguments of `hold place`. What is named limits the hold; one that names nothing holds everything.
#[derive(Debug, Args)]
pub struct Place {
    /// Only this session: its id, or the end of it
    #[arg(long, value_name = "ID")]
    session: Option<String>,
    /// Only sessions of this connection
    #[arg(long, value_name = "NAME")]
    connection: Option<String>,
    /// Only sessions of this identity, such as agent:copilot-agent
    #[arg(long, value_name = "IDENTITY")]
    identity: Option<IdentityName>,
    /// Why; it stays on the record
    #[arg(long, value_name = "TEXT")]
    reason: String,
}

/// Arguments of `hold release`.
#[derive(Debug, Args)]
pub struct Release {
    /// The hold's id, as `hold list` shows it
    hold: String,
    /// Why; it stays on the record
    #[arg(long, value_name = "TEXT")]
    reason: String,
}

/// Arguments of `hold list`.
#[derive(Debug, Args)]
pub struct List {
    #[command(flatten)]
    place: RecordPlace,
}

impl HoldCommand {
    /// Does it.
    pub fn run(self, context: &mut Context) -> Result<(), Failure> {
        match self {
            Self::Place(place) => place.run(context),
            Self::Release(Release { hold, reason }) => {
                let answer = asking::ask(context, &Request::HoldRelease { hold, reason })?;
                let said = format!("The hold {} is released.", text(&answer, "hold"));
                say(context, &answer, &said)
            }
            Self::List(list) => list.run(context),
        }
    }
}

impl Place {
    fn run(self, context: &mut Context) -> Result<(), Failure> {
        let session = match &self.session {
            Some(id) => Some(source::session(&context.reader(&RecordPlace::default())?, id)?.to_string()),
            None => None,
        };
        let request = Request::HoldPlace {
            session,
            connection: self.connection,
            identity: self.identity.map(|identity| identity.to_string()),
            reason: self.reason,
        };
        let answer = asking::ask(context, &request)?;
        let said = text(&answer, "hold").to_owned();
        say(context, &answer, &said)
    }
}

impl List {
    fn run(self, context: &mut Context) -> Result<(), Failure> {
        let holds = Custody::open(&context.data(&self.place)?).map_err(source::unreadable)?.holds();
        let holds: Vec<Value> = holds.iter().map(hold_as_json).collect();
        let console = &mut context.console;
        if console.format() != Format::Table {
            return console.json_list(holds.iter().map(Ok::<_, Failure>));
        }
        if holds.is_empty() {
            return Ok(console.line(&console.paint(Tone::Faint, "No holds."))?);
        }
        let mut table = Table::new([
            Column::text("PLACED (UTC)"),
            Column::text("HOLD"),
            Column::text("COVERS"),
            Column::text("BY"),
            Column::flexible("REASON"),
        ]);
        for hold in &holds {
            let scope: Vec<String> = ["session", "connection", "identity"]
                .iter()
                .filter(|key| !text(hold, key).is_empty())
                .map(|key| format!("{key} {}", text(hold, key)))
                .collect();
            let scope = if scope.is_empty() { "everything".to_owned() } else { scope.join(", ") };
            let time = when(text(hold, "time"));
            table.row([
                Cell::toned(Tone::Faint, time),
                Cell::new(text(hold, "hold")),
                Cell::new(scope),
                Cell::new(text(hold, "by")),
                Cell::new(text(hold, "reason")),
            ]);
        }
        Ok(console.table(&table)?)
    }
}

fn say(context: &mut Context, answer: &Value, said: &str) -> Result<(), Failure> {
    let console = &mut context.console;
    if console.format() == Format::Table { Ok(console.line(said)?) } else { Ok(console.json(answer)?) }
}
