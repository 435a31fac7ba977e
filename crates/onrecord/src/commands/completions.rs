//! `onrecord completions SHELL`.

use clap::{Args, CommandFactory};

use super::Context;
use crate::Failure;
use crate::cli::Cli;

/// Arguments of `completions`.
#[derive(Debug, Args)]
pub struct Completions {
    /// The shell
    #[arg(value_enum)]
    shell: clap_complete::Shell,
}

impl Completions {
    /// Prints the script.
    pub fn run(self, context: &mut Context) -> Result<(), Failure> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut Cli::command(), "onrecord", &mut script);
        let script = String::from_utf8_lossy(&script);
        Ok(context.console.line(script.trim_end())?)
    }
}
