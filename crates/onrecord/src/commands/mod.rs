//! The commands of the CLI, one a module: arguments in, results on the console.

#[allow(clippy::module_inception, reason = "every module here is named as its command")]
pub mod commands;
pub mod completions;
pub mod config;
pub mod connections;
pub mod doctor;
pub mod evidence;
pub mod identities;
pub mod init;
pub mod replay;
pub mod serve;
pub mod sessions;
pub mod show;
pub mod verify;

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
