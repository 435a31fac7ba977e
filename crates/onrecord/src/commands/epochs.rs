//! `onrecord epochs`: the logs of a data directory, one after another, and the beginning of another.

use clap::{Args, Subcommand, ValueEnum};
use model::{Body, EpochReason, PreviousLog};
use serde_json::{Value, json};
use store::{BeginEpoch, Published, Reader, begin_epoch, epochs};

use super::{Context, words};
use crate::output::Format;
use crate::{Failure, wiring};

/// The subcommands of `epochs`.
#[derive(Debug, Subcommand)]
pub enum EpochsCommand {
    /// List the logs of the data directory, oldest first
    List,
    /// End the log and begin another, with a new key; the old one stays, below `epochs`
    Begin(Begin),
}

/// Arguments of `epochs begin`.
#[derive(Debug, Args)]
pub struct Begin {
    /// Why the log does not go on
    #[arg(long, value_enum)]
    reason: Why,
}

/// Why a log does not go on.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Why {
    /// Its key is to be used no longer
    Rotation,
    /// It is damaged, so that the gateway does not start
    Damaged,
    /// An older copy of the data directory was restored
    Rollback,
}

impl EpochsCommand {
    /// Does it.
    pub fn run(self, context: &mut Context) -> Result<(), Failure> {
        match self {
            Self::List => list(context),
            Self::Begin(begin) => begin.run(context),
        }
    }
}

impl Begin {
    fn run(self, context: &mut Context) -> Result<(), Failure> {
        let config = context.load()?;
        let reason = match self.reason {
            Why::Rotation => EpochReason::Rotation,
            Why::Damaged => EpochReason::Damaged,
            Why::Rollback => EpochReason::Rollback,
        };
        let begin = BeginEpoch { options: wiring::options(&config)?, reason, witnessed: None };
        let data = &config.gateway.data;
        let made = begin_epoch(data, &begin)
            .map_err(|error| Failure::new(format_args!("no epoch was begun in {}: {error}", data.display())))?;
        if context.console.format() != Format::Table {
            context.console.json(&json!({"vkey": made.vkey}))?;
            return Ok(());
        }
        context.console.line("Another log has begun. Its public key, to be kept elsewhere:")?;
        context.console.line(&format!("  {}", made.vkey))?;
        context.console.line("The log before is a data directory of its own; `onrecord epochs list` says where.")?;
        Ok(context.console.line("Witnesses must be told of the new key before they cosign it.")?)
    }
}

fn list(context: &mut Context) -> Result<(), Failure> {
    let data = context.load()?.gateway.data;
    let unreadable = |error: &dyn std::fmt::Display| Failure::new(format_args!("{}: {error}", data.display()));
    let mut places = epochs(&data).map_err(|error| unreadable(&error))?;
    let current = places.last().map_or(1, |(number, _)| number + 1);
    places.push((current, data.clone()));
    for (number, dir) in places {
        let reader = Reader::open(&dir).map_err(|error| unreadable(&error))?;
        let signed = Published::open_dir(&dir).checkpoint().map_err(|error| unreadable(&error))?;
        let signed = signed.and_then(|note| ledger::Checkpoint::open(&note, reader.vkey()).ok());
        let previous = previous(&reader);
        if context.console.format() == Format::Table {
            let size = signed.map_or_else(|| "nothing".to_owned(), |c| words::counted(c.size, "entry", "entries"));
            let here = if dir == data { "current".to_owned() } else { dir.display().to_string() };
            context.console.line(&format!("{number}  {}  {size} published  {here}", reader.vkey().name()))?;
            if let Some(previous) = previous {
                let PreviousLog { origin, size, reason, .. } = previous;
                let size = words::counted(size, "entry", "entries");
                context.console.line(&format!("   continues {origin} after {size}: {reason}"))?;
            }
        } else {
            context.console.json(&json!({
                "epoch": number,
                "origin": reader.vkey().name(),
                "vkey": reader.vkey().to_string(),
                "published": signed.map(|checkpoint| checkpoint.size),
                "data": dir,
                "previous": previous.map_or(Value::Null, |previous| json!({
                    "origin": previous.origin,
                    "vkey": previous.vkey,
                    "size": previous.size,
                    "root": previous.root.hex(),
                    "witnessed": previous.witnessed,
                    "reason": previous.reason.as_str(),
                })),
            }))?;
        }
    }
    Ok(())
}

fn previous(reader: &Reader) -> Option<PreviousLog> {
    match reader.entries(0).next()?.ok()?.entry.body {
        Body::Genesis(genesis) => genesis.previous,
        _ => None,
    }
}
