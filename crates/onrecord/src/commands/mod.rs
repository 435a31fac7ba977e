//! The commands of the CLI, one a module: arguments in, results on the console.

#[allow(clippy::module_inception, reason = "every module here is named as its command")]
pub mod commands;
pub mod completions;
pub mod config;
pub mod connections;
pub mod doctor;
pub mod epochs;
pub mod evidence;
pub mod identities;
pub mod init;
pub mod receipt;
pub mod replay;
pub mod serve;
pub mod sessions;
pub mod show;
pub mod verify;
pub mod witness;

mod row;
mod selection;
mod source;
mod words;

pub use selection::Selection;
pub use words::now_us;

use std::path::PathBuf;

use crate::Failure;
use crate::cli::{RecordPlace, config_file};
use crate::config::Config;
use crate::output::Console;

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

    /// The data directory to read.
    pub fn data(&self, place: &RecordPlace) -> Result<PathBuf, Failure> {
        match &place.data {
            Some(data) => Ok(data.clone()),
            None => Ok(self.load()?.gateway.data),
        }
    }
}
