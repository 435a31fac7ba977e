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

use std::ffi::OsString;
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
    /// The `onrecord` command itself, as it is in this program already
    #[command(disable_help_flag = true)]
    Onrecord {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
}

fn main() -> ExitCode {
    if let Some(end) = onrecord::wiring::analyse_if_asked() {
        return end;
    }
    let Arguments { script, upstream, reset: resets, json, command } = Arguments::parse();
    let mut screen = Screen::new(json);
    let done = match command {
        Some(Command::Onrecord { arguments }) => {
            let words = std::iter::once(OsString::from("onrecord")).chain(arguments);
            return onrecord::cli::run(onrecord::cli::Cli::parse_from(words)).into();
        }
        Some(Command::Tamper) => Place::open().and_then(|place| tamper::tamper(&place, &mut screen)),
        None => Place::open().and_then(|place| match resets {
            true => reset(&place, &mut screen),
            false => run::run(&place, upstream.as_deref(), script, &mut screen),
        }),
    };
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
