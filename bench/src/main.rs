//! `cargo xtask bench`: what a recorded command costs, beside what others cost.
//!
//! It starts everything that it measures (PostgreSQL, pgbouncer, a byte copy, the gateway) on
//! loopback in a directory of its own, and ends every process that it started, by its own pid, on
//! every way out. It judges the gateway by ratios taken within a round, since a shared machine
//! changes its speed from minute to minute. It is a tool, not a test: nothing fails by being slow.

mod cases;
mod link;
mod measure;
mod processes;
mod record;
mod report;
mod run;
mod ssh;
mod summary;
mod targets;
mod token;

use std::{io::Write, path::PathBuf, process::ExitCode, thread};

use clap::{Parser, Subcommand};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::oneshot,
};

use crate::{processes::Processes, targets::Kind};

#[derive(Parser)]
#[command(name = "cargo xtask bench", about = "Measures what the gateway costs.")]
struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// PostgreSQL: direct, pgbouncer, a plain byte copy, and the gateway at three durabilities.
    Postgres(Options),
    /// An outpost: direct, the gateway, and the same gateway through an outpost.
    Link(link::Options),
    /// SSH: direct, a ProxyJump over a plain sshd, and the gateway.
    Ssh(ssh::Options),
    /// The record by itself, beside the raw disk.
    Record(record::Arguments),
}

/// How a run is cut to size.
#[derive(clap::Args, Clone)]
pub(crate) struct Options {
    /// Below five minutes: fewer rounds, each shorter.
    #[arg(long)]
    quick: bool,
    /// Machine-readable results on stdout instead of tables.
    #[arg(long)]
    json: bool,
    /// Rounds; every round measures every case on every target [default: 7, quick 3].
    #[arg(long)]
    rounds: Option<usize>,
    /// Seconds that one pgbench run lasts [default: 3, quick 1].
    #[arg(long)]
    seconds: Option<u32>,
    /// Only the cases whose name begins so, like `simple`, `prepared/8`, `rows`; may be repeated.
    #[arg(long, value_name = "CASE")]
    only: Vec<String>,
    /// Only these targets.
    #[arg(long, value_delimiter = ',', value_enum)]
    targets: Vec<Kind>,
    /// Where to put the database and the logs: on the disk that is to be measured.
    #[arg(long, default_value = "/var/tmp")]
    dir: PathBuf,
    /// The gateway's binary [default: the one beside this program].
    #[arg(long)]
    onrecord: Option<PathBuf>,
}

fn main() -> ExitCode {
    let result = match Arguments::parse().what {
        What::Postgres(options) => supervise(move |processes| run::run(&options, processes)),
        What::Link(options) => supervise(move |processes| link::run(&options, processes)),
        What::Ssh(options) => supervise(move |processes| ssh::run(&options, processes)),
        What::Record(arguments) => record::run(&arguments).map(|()| ExitCode::SUCCESS),
    };
    match result {
        Ok(code) => code,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Runs the measurements on a thread, so that a signal can end what they started.
fn supervise(measure: impl FnOnce(&Processes) -> anyhow::Result<()> + Send + 'static) -> anyhow::Result<ExitCode> {
    let processes = Processes::default();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    let (done, finished) = oneshot::channel();
    let code = runtime.block_on(async {
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        let worker = processes.clone();
        thread::spawn(move || {
            let _ = done.send(measure(&worker));
        });
        tokio::select! {
            result = finished => result?.map(|()| ExitCode::SUCCESS),
            _ = interrupt.recv() => Ok(ExitCode::from(130)),
            _ = terminate.recv() => Ok(ExitCode::from(143)),
        }
    });
    processes.end_all();
    code
}
