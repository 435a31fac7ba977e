//! `onrecord retention`: what has been kept as long as the configuration says. The running gateway erases it by itself,
//! from time to time; here one can look first, or not wait.

use clap::{Args, Subcommand};
use model::wall_text;
use serde_json::json;
use store::{Due, SystemClock, retention_due};

use super::asking::{self, number};
use super::words::{counted, to_the_second};
use super::{Context, source};
use crate::Failure;
use crate::control::Request;
use crate::output::{Cell, Column, Format, Table, Tone};

/// Arguments of `retention`.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Retention {
    /// Show what would be erased; nothing is. The same as without an argument
    #[arg(long)]
    dry_run: bool,
    #[command(subcommand)]
    command: Option<RetentionCommand>,
}

/// `retention ...`.
#[derive(Debug, Subcommand)]
pub enum RetentionCommand {
    /// Erase now what is due
    Run,
}

impl Retention {
    /// Does it.
    pub fn run(self, context: &mut Context) -> Result<(), Failure> {
        match self.command {
            Some(RetentionCommand::Run) => run(context),
            None => show(context),
        }
    }
}

fn run(context: &mut Context) -> Result<(), Failure> {
    let answer = asking::ask(context, &Request::RetentionRun {})?;
    let console = &mut context.console;
    if console.format() != Format::Table {
        return Ok(console.json(&answer)?);
    }
    let erased = counted(number(&answer, "erased"), "session", "sessions");
    let held = match number(&answer, "held") {
        0 => String::new(),
        held => format!(" {} that would be due stay under a hold.", counted(held, "session", "sessions")),
    };
    Ok(console.line(&format!("The content of {erased} was erased.{held}"))?)
}

fn show(context: &mut Context) -> Result<(), Failure> {
    let config = context.load()?;
    let rules = config.retention_rules();
    let mut due: Vec<Due> = Vec::new();
    let now = store::Clock::now(&SystemClock);
    if !rules.is_empty() {
        retention_due(&config.gateway.data, &rules, now, &mut |one| due.push(one)).map_err(source::unreadable)?;
    }
    let console = &mut context.console;
    if console.format() != Format::Table {
        return console.json_list(due.iter().map(|due| {
            Ok::<_, Failure>(json!({
                "session": due.session.to_string(),
                "connection": due.connection,
                "identity": due.identity.to_string(),
                "ended": wall_text(due.ended.wall_us),
                "rule": due.rule,
                "held": due.held,
            }))
        }));
    }
    if rules.is_empty() {
        let said = "No retention is configured: nothing is ever erased for its age.";
        return Ok(console.line(&console.paint(Tone::Faint, said))?);
    }
    if due.is_empty() {
        return Ok(console.line(&console.paint(Tone::Faint, "Nothing is due."))?);
    }
    let mut table = Table::new([
        Column::text("ENDED (UTC)"),
        Column::text("SESSION"),
        Column::text("WHO"),
        Column::text("CONNECTION"),
        Column::flexible("RULE"),
        Column::text("HELD BY"),
    ]);
    for due in &due {
        table.row([
            Cell::toned(Tone::Faint, to_the_second(due.ended.wall_us)),
            Cell::new(due.session.to_string()),
            Cell::new(due.identity.as_str()),
            Cell::new(&due.connection),
            Cell::new(&due.rule),
            Cell::toned(Tone::Warning, due.held.as_deref().unwrap_or_default()),
        ]);
    }
    Ok(console.table(&table)?)
}
