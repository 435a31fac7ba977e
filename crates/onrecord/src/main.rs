//! The `onrecord` binary.

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    onrecord::cli::run(onrecord::cli::Cli::parse()).into()
}
