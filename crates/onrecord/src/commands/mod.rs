//! The commands of the CLI, one a module: arguments in, results on the console.

pub mod approvals;
pub mod asciicast;
pub mod break_glass;
#[allow(clippy::module_inception, reason = "every module here is named as its command")]
pub mod commands;
pub mod completions;
pub mod config;
pub mod connections;
pub mod doctor;
pub mod epochs;
pub mod erase;
pub mod evidence;
pub mod hold;
pub mod identities;
pub mod init;
pub mod keys;
pub mod kill;
pub mod login;
pub mod outpost;
pub mod output;
pub mod policy;
pub mod receipt;
pub mod replay;
pub mod retention;
pub mod run;
pub mod serve;
pub mod sessions;
pub mod show;
pub mod token;
pub mod verify;
pub mod watch;
pub mod witness;

mod asking;
mod desk;
mod row;
mod selection;
mod source;
mod story;
mod transcript;
mod words;
mod wrote;

pub use selection::Selection;
pub use words::now_us;

use std::fmt;
use std::io::Write as _;
use std::path::PathBuf;

use store::Reader;

use crate::Failure;
use crate::cli::{RecordPlace, config_file};
use crate::config::Config;
use crate::output::Console;
use crate::wiring;

/// The public key of a log: the line itself, or a file that has it.
fn log_key(text: &str) -> Result<ledger::VerifierKey, Failure> {
    if let Ok(key) = text.trim().parse() {
        return Ok(key);
    }
    let content = std::fs::read_to_string(text)
        .map_err(|error| Failure::usage(format_args!("{text:?} is neither a log's public key nor a file: {error}")))?;
    content.trim().parse().map_err(|error| {
        Failure::usage(format_args!("{text}: {error}"))
            .hint("it is the file `vkey` of the data directory, or the line that `onrecord init` printed")
    })
}

/// Says something beside the result, on standard error. Nobody to tell it to is no reason to fail.
fn note(what: fmt::Arguments<'_>) {
    let _ = writeln!(std::io::stderr().lock(), "onrecord: {what}");
}

/// What every command gets.
pub struct Context {
    /// The configuration file that was named, if one was.
    pub config: Option<PathBuf>,
    /// Where to print.
    pub console: Console,
}

impl Context {
    /// The configuration file to use.
    pub fn config_file(&self) -> PathBuf {
        config_file(self.config.as_deref())
    }

    /// The configuration.
    pub fn load(&self) -> Result<Config, Failure> {
        Ok(Config::load(&self.config_file())?)
    }

    /// The record to read, with the keys that the configuration names. Where there is no configuration, or its keys are
    /// not to be had, the entries can be read all the same.
    pub fn reader(&self, place: &RecordPlace) -> Result<Reader, Failure> {
        let data = self.data(place)?;
        let config = self.load().ok();
        let key = config.and_then(|config| wiring::wrapping_key(config.record.wrapping_key.as_ref()).ok().flatten());
        source::open(&data, key.as_ref())
    }

    /// The data directory to read.
    pub fn data(&self, place: &RecordPlace) -> Result<PathBuf, Failure> {
        match &place.data {
            Some(data) => Ok(data.clone()),
            None => Ok(self.load()?.gateway.data),
        }
    }
}
