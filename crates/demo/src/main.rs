//! The first minute: a real PostgreSQL, a gateway before it, two agents at work, and a record that verifies.
//!
//! Everything is local and disposable. Not for production.

mod agents;
mod place;
mod postgres;
mod run;
mod screen;
mod setup;
mod tamper;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::place::Place;
use crate::screen::Screen;

/// A PostgreSQL, a gateway before it and two agents at work: what they did, on the record.
#[derive(Debug, Parser)]
#[command(name = "demo", disable_help_subcommand = true)]
struct Arguments {
    /// Do the same and exit, instead of staying up
    #[arg(long)]
    script: bool,
    /// Use this PostgreSQL (postgres://USER:PASSWORD@HOST[:PORT]/DATABASE); the agents work in its schema onrecord_demo, which is made anew
    #[arg(long, value_name = "URL")]
    upstream: Option<String>,
    /// Remove everything that earlier demos left, and exit
    #[arg(long)]
    reset: bool,
    /// Print events as JSON, one a line
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Change one byte of the demo's record on disk, then verify it
    Tamper,
}

fn main() -> ExitCode {
    if let Some(end) = onrecord::wiring::analyse_if_asked() {
        return end;
    }
    let arguments = Arguments::parse();
    let mut screen = Screen::new(arguments.json);
    let done = Place::open().and_then(|place| match arguments.command {
        Some(Command::Tamper) => tamper::tamper(&place, &mut screen),
        None if arguments.reset => reset(&place, &mut screen),
        None => run::run(&place, arguments.upstream.as_deref(), arguments.script, &mut screen),
    });
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if screen::is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            screen.failure(&format!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn reset(place: &Place, screen: &mut Screen) -> anyhow::Result<()> {
    let held = place.hold()?;
    postgres::wipe(place)?;
    place.wipe()?;
    drop(held);
    screen.note(&format!("removed {}", place.shown()))
}
