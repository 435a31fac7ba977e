//! `onrecord commands`: the list of commands, newest last.

use std::collections::VecDeque;
use std::path::Path;
use std::time::Duration;

use clap::Args;
use store::CommandView;

use super::Context;
use super::row::{self, Row, Times};
use super::selection::Selection;
use super::source;
use super::wrote::Wrote;
use crate::Failure;
use crate::cli::RecordPlace;
use crate::output::{Console, Format, Table, Tone};

/// How often `--follow` looks for more.
const FOLLOW_INTERVAL: Duration = Duration::from_millis(250);

/// Which of the selected commands are shown.
type Wanted<'a> = dyn FnMut(&CommandView) -> Result<bool, Failure> + 'a;

/// Arguments of `commands`.
#[derive(Debug, Args)]
pub struct Commands {
    #[command(flatten)]
    selection: Selection,
    /// That wrote this, in capitals or not: in a line of their output, or of their terminal as it was to be read
    #[arg(long, value_name = "TEXT")]
    wrote: Option<String>,
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
        let mut wrote = self.wrote.map(Wrote::new);
        let mut wanted = |view: &CommandView| wrote.as_mut().map_or(Ok(true), |wrote| wrote.by(&reader, view));
        let rows = newest(&mut commands, self.limit, &mut wanted)?;
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
        if self.follow {
            return follow(&mut commands, table, console, &mut wanted);
        }
        if let Some(wrote) = wrote {
            console.flush()?;
            wrote.say_what_is_missing();
        }
        Ok(())
    }
}

/// Prints the selected commands of a record as a table, for people, or an object a line.
pub fn print_rows(console: &mut Console, data: &Path, selection: &Selection, indent: usize) -> Result<(), Failure> {
    let rows = newest(&mut source::commands(&source::open(data, None)?, selection)?, 0, &mut |_| Ok(true))?;
    match console.format() {
        Format::Table => console.table(&row::table(&rows, Times::Short, indent))?,
        Format::Json | Format::Ndjson => console.json_list(rows.iter().map(Ok::<_, Failure>))?,
    }
    Ok(console.flush()?)
}

/// How many commands are selected.
pub fn count(data: &Path, selection: &Selection) -> Result<usize, Failure> {
    Ok(newest(&mut source::commands(&source::open(data, None)?, selection)?, 0, &mut |_| Ok(true))?.len())
}

/// The newest commands, oldest first. Keeps no more than the limit.
pub(super) fn newest(
    commands: &mut store::Commands,
    limit: usize,
    wanted: &mut Wanted<'_>,
) -> Result<Vec<Row>, Failure> {
    let mut newest = VecDeque::new();
    for view in commands {
        let view = view.map_err(source::unreadable)?;
        if !wanted(&view)? {
            continue;
        }
        if limit > 0 && newest.len() == limit {
            newest.pop_front();
        }
        newest.push_back(Row::from(view));
    }
    Ok(newest.into())
}

/// Prints commands as they end, until the reader of the output has seen enough.
fn follow(
    commands: &mut store::Commands,
    mut above: Table,
    console: &mut Console,
    wanted: &mut Wanted<'_>,
) -> Result<(), Failure> {
    loop {
        console.flush()?;
        std::thread::sleep(FOLLOW_INTERVAL);
        commands.again();
        let mut ended = newest(commands, 0, wanted)?;
        // Those that were running come again when they end.
        ended.retain(|row| row.status != "pending");
        if ended.is_empty() {
            continue;
        }
        print_below(&mut above, &ended, console)?;
    }
}

/// Prints commands below others.
pub(super) fn print_below(above: &mut Table, rows: &[Row], console: &mut Console) -> Result<(), Failure> {
    if rows.is_empty() {
        return Ok(());
    }
    if console.format() != Format::Table {
        return console.json_list(rows.iter().map(Ok::<_, Failure>));
    }
    let table = row::table(rows, Times::Full, 0);
    let table = if above.is_empty() { table } else { table.below(above) };
    console.table(&table)?;
    *above = table;
    Ok(())
}
