//! `onrecord commands`: the list of commands, newest last.

use std::collections::VecDeque;
use std::path::Path;
use std::time::Duration;

use clap::Args;

use super::Context;
use super::row::{self, Row, Times};
use super::selection::Selection;
use super::source;
use crate::Failure;
use crate::cli::RecordPlace;
use crate::output::{Console, Format, Table, Tone};

/// How often `--follow` looks for more.
const FOLLOW_INTERVAL: Duration = Duration::from_millis(250);

/// Arguments of `commands`.
#[derive(Debug, Args)]
pub struct Commands {
    #[command(flatten)]
    selection: Selection,
    /// The newest so many; 0 is all
    #[arg(long, short = 'n', value_name = "N", default_value_t = 50)]
    limit: usize,
    /// Go on with what is recorded from now on, each command as it ends
    #[arg(long, short)]
    follow: bool,
    #[command(flatten)]
    place: RecordPlace,
}

impl Commands {
    /// Does it.
    pub fn run(self, context: &mut Context) -> Result<(), Failure> {
        let reader = context.reader(&self.place)?;
        let console = &mut context.console;
        if self.follow && console.format() == Format::Json {
            return Err(
                Failure::usage("--follow has no end, and --output json is one value").hint("use --output ndjson")
            );
        }
        let mut commands = source::commands(&reader, &self.selection)?;
        let rows = newest(&mut commands, self.limit)?;
        let times = if self.follow { Times::Full } else { Times::Short };
        let table = row::table(&rows, times, 0);
        if console.format() == Format::Table {
            if rows.is_empty() && !self.follow {
                console.line(&console.paint(Tone::Faint, "No commands."))?;
            }
            console.table(&table)?;
        } else {
            console.json_list(rows.iter().map(Ok::<_, Failure>))?;
        }
        if self.follow { follow(&mut commands, table, console) } else { Ok(()) }
    }
}

/// Prints the selected commands of a record as a table, for people, or an object a line.
pub fn print_rows(console: &mut Console, data: &Path, selection: &Selection, indent: usize) -> Result<(), Failure> {
    let rows = newest(&mut source::commands(&source::open(data, None)?, selection)?, 0)?;
    match console.format() {
        Format::Table => console.table(&row::table(&rows, Times::Short, indent))?,
        Format::Json | Format::Ndjson => console.json_list(rows.iter().map(Ok::<_, Failure>))?,
    }
    Ok(console.flush()?)
}

/// How many commands are selected.
pub fn count(data: &Path, selection: &Selection) -> Result<usize, Failure> {
    Ok(newest(&mut source::commands(&source::open(data, None)?, selection)?, 0)?.len())
}

/// The newest commands, oldest first. Keeps no more than the limit.
fn newest(commands: &mut store::Commands, limit: usize) -> Result<Vec<Row>, Failure> {
    let mut newest = VecDeque::new();
    for view in commands {
        if limit > 0 && newest.len() == limit {
            newest.pop_front();
        }
        newest.push_back(Row::from(view.map_err(source::unreadable)?));
    }
    Ok(newest.into())
}

/// Prints commands as they end, until the reader of the output has seen enough.
fn follow(commands: &mut store::Commands, mut above: Table, console: &mut Console) -> Result<(), Failure> {
    loop {
        console.flush()?;
        std::thread::sleep(FOLLOW_INTERVAL);
        commands.again();
        let mut ended = newest(commands, 0)?;
        // Those that were running come again when they end.
        ended.retain(|row| row.status != "pending");
        if ended.is_empty() {
            continue;
        }
        if console.format() == Format::Table {
            let table = row::table(&ended, Times::Full, 0);
            let table = if above.is_empty() { table } else { table.below(&above) };
            console.table(&table)?;
            above = table;
        } else {
            console.json_list(ended.iter().map(Ok::<_, Failure>))?;
        }
    }
}
