//! Development tasks, reached as `cargo xtask TASK`.
#![allow(clippy::print_stderr)]

mod bench;

use std::process::ExitCode;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let (task, rest) = match args.split_first() {
        Some((task, rest)) => (task.as_str(), rest),
        None => ("help", args.as_slice()),
    };
    let result = match task {
        "bench" => bench::run(rest),
        other => Err(anyhow::anyhow!("no task `{other}`")),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("\nxtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}
