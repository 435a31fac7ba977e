//! The `onrecord` binary.

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    if let Some(end) = onrecord::wiring::analyse_if_asked() {
        return end;
    }
    onrecord::cli::run(onrecord::cli::Cli::parse()).into()
}
