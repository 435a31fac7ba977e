//! Development tasks, reached as `cargo xtask TASK`.
#![allow(clippy::print_stdout, clippy::print_stderr)]

mod bench;
mod install;
mod regress;
mod shell;
mod test;
mod wasm;

use std::process::ExitCode;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let (task, rest) = match args.split_first() {
        Some((task, rest)) => (task.as_str(), rest),
        None => ("help", args.as_slice()),
    };
    let result = match task {
        "bench" => bench::run(rest),
        "test" => test::run(rest),
        "wasm" => {
            wasm::run(if rest.iter().any(|arg| arg == "--check") { wasm::Then::Compare } else { wasm::Then::Write })
        }
        "help" | "--help" | "-h" => {
            println!("{HELP}");
            Ok(())
        }
        other => Err(anyhow::anyhow!("no task `{other}`\n\n{HELP}")),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("\nxtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

const HELP: &str = "\
cargo xtask test [--quick] [--without STEP]... [--only STEP]...
    Everything that must hold before a change lands, on real servers and real
    clients; installs what it needs, or says exactly what is missing.
    Steps: install, fmt, clippy, deny, wasm, test, regress
    --quick   what needs no further installation and few minutes: fmt, clippy,
              and the tests without servers
cargo xtask bench postgres [...]
    The speed of the gateway against a byte copy and pgbouncer.
cargo xtask bench link [--quick]
    The speed of the way through an outpost, against the gateway without one.
cargo xtask bench ssh [--quick]
    The speed of SSH through the gateway, against direct and a ProxyJump.
cargo xtask bench record [--quick]
    The speed of the record by itself, against the raw disk.
cargo xtask wasm [--check]
    Builds the evidence verifier for browsers that the binary carries, or
    checks that the committed one is what the sources say.";
