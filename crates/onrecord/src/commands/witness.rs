//! `onrecord witness`: a witness of other logs, and how far this log's own witnesses are.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use clap::Subcommand;
use publish::{Look, Server, Witness, WitnessError, WitnessSite};
use serde_json::json;
use store::Published;

use super::serve::{Signals, log_to_stderr, say};
use super::words::{counted, now_us, to_the_second};
use super::{Context, log_key};
use crate::config::Config;
use crate::output::{Cell, Column, Format, Table, Tone, single_line};
use crate::{Exit, Failure};

/// `witness ...`.
#[derive(Debug, Subcommand)]
pub enum WitnessCommand {
    /// Make a witness: a directory with a key of its own
    Init {
        /// Directory of the witness
        #[arg(long, value_name = "DIR")]
        dir: PathBuf,
        /// Name of the witness, such as witness.example.com/1; it cannot change later
        #[arg(long, value_name = "NAME")]
        name: String,
    },
    /// Let the witness know a log; also while it is served
    AddLog {
        /// Directory of the witness
        #[arg(long, value_name = "DIR")]
        dir: PathBuf,
        /// The log's public key, or a file that has it
        #[arg(value_name = "VKEY")]
        vkey: String,
    },
    /// Cosign the checkpoints of the logs that the witness knows, until SIGTERM or SIGINT
    Serve {
        /// Directory of the witness
        #[arg(long, value_name = "DIR")]
        dir: PathBuf,
        /// Where to listen for HTTP
        #[arg(long, value_name = "IP:PORT", default_value = "127.0.0.1:6481")]
        listen: SocketAddr,
    },
    /// Ask this log's own witnesses how far they are
    Status,
}

impl WitnessCommand {
    /// Does it.
    pub fn run(self, context: &mut Context) -> Result<(), Failure> {
        match self {
            Self::Init { dir, name } => init(context, &dir, &name),
            Self::AddLog { dir, vkey } => {
                let key = log_key(&vkey)?;
                Witness::add_log(&dir, &key).map_err(failed)?;
                match context.console.format() {
                    Format::Table => context.console.line(&format!("the witness knows {}", key.name()))?,
                    Format::Json | Format::Ndjson => context.console.json(&json!({"log": key.name()}))?,
                }
                Ok(())
            }
            Self::Serve { dir, listen } => serve(&dir, listen),
            Self::Status => status(context),
        }
    }
}

fn init(context: &mut Context, dir: &std::path::Path, name: &str) -> Result<(), Failure> {
    let vkey = Witness::init(dir, name).map_err(failed)?;
    let console = &mut context.console;
    if console.format() != Format::Table {
        return Ok(console.json(&json!({"dir": dir, "vkey": vkey}))?);
    }
    console.line(&vkey)?;
    let shown = dir.display();
    let steps = format!(
        "next: `onrecord witness add-log --dir {shown} VKEY` for each log, then `onrecord witness serve --dir {shown}`"
    );
    say(&format!("onrecord: {steps}"));
    Ok(())
}

fn serve(dir: &std::path::Path, listen: SocketAddr) -> Result<(), Failure> {
    log_to_stderr();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Failure::new)?;
    let mut signals = runtime.block_on(async { Signals::new() }).map_err(Failure::new)?;
    let witness = Arc::new(Witness::open(dir).map_err(failed)?);
    let logs = counted(witness.states().len(), "log", "logs");
    say(&format!("onrecord: witness {} of {logs}", witness.vkey()));
    let site = Arc::new(WitnessSite::new(witness));
    let server = Server::start("witness-http", &[listen], site, WitnessSite::limits()).map_err(Failure::new)?;
    let addresses: Vec<String> = server.addresses().iter().map(ToString::to_string).collect();
    say(&format!("onrecord: ready, witness on {}", addresses.join(", ")));
    runtime.block_on(signals.next());
    server.stop();
    say("onrecord: stopped");
    Ok(())
}

fn failed(error: WitnessError) -> Failure {
    match error {
        WitnessError::Key(error) => Failure::usage(error),
        error => Failure::new(error),
    }
}

fn status(context: &mut Context) -> Result<(), Failure> {
    let config = context.load()?;
    let Some(witness) = &config.witness else {
        return Err(Failure::not_found("no witnesses are configured").hint(
            "name them in a tlog-policy file, and the file in the configuration: [witness] policy = \"file:...\"",
        ));
    };
    let looks = crate::outside::look(&config, witness)?;
    let size = published_size(&config);
    let contradicted = looks.iter().any(|look| look.contradiction.is_some());
    let console = &mut context.console;
    if console.format() == Format::Table {
        let mut table = Table::new([Column::text("WITNESS"), Column::flexible("STANDING")]);
        for look in &looks {
            let tone = match (&look.contradiction, &look.cosigned) {
                (Some(_), _) => Tone::Bad,
                (None, Ok(Some(_))) => Tone::Good,
                (None, Ok(None) | Err(_)) => Tone::Warning,
            };
            table.row([Cell::new(&look.witness), Cell::toned(tone, single_line(&described(look, size)))]);
        }
        console.table(&table)?;
    } else {
        let rows = looks.iter().map(|look| {
            let cosigned = look.cosigned.as_ref().ok().copied().flatten();
            Ok::<_, Failure>(json!({
                "witness": look.witness,
                "size": cosigned.map(|(size, _)| size),
                "behind": cosigned.map(|(cosigned, _)| size.saturating_sub(cosigned)),
                "time": cosigned.map(|(_, time)| model::wall_text(micros(time))),
                "error": look.cosigned.as_ref().err(),
                "contradiction": look.contradiction.as_ref().map(ToString::to_string),
                "note": look.contradiction.as_ref().map(|contradiction| &contradiction.note),
            }))
        });
        console.json_list(rows)?;
    }
    if contradicted { Err(Failure::said(Exit::Integrity)) } else { Ok(()) }
}

/// How many entries of the log are published here.
pub(super) fn published_size(config: &Config) -> u64 {
    let note = Published::open_dir(&config.gateway.data).checkpoint().ok().flatten().unwrap_or_default();
    note.split('\n').nth(1).and_then(|size| size.parse().ok()).unwrap_or(0)
}

/// What a witness shows, in words.
pub(super) fn described(look: &Look, size: u64) -> String {
    match (&look.contradiction, &look.cosigned) {
        (Some(contradiction), _) => contradiction.to_string(),
        (None, Err(why)) => format!("not established: {why}"),
        (None, Ok(None)) => "has cosigned nothing of this log".to_owned(),
        (None, Ok(Some((cosigned, time)))) => {
            let when = to_the_second(micros(*time));
            let ago = u64::try_from((now_us() - micros(*time)).max(0)).unwrap_or(0) / 1_000_000;
            let entries = counted(*cosigned, "entry", "entries");
            match size.saturating_sub(*cosigned) {
                0 => format!("has cosigned all {entries}, {ago} s ago ({when} UTC)"),
                behind => format!("has cosigned {entries}, {ago} s ago ({when} UTC): {behind} behind"),
            }
        }
    }
}

fn micros(unix_seconds: u64) -> i64 {
    i64::try_from(unix_seconds.saturating_mul(1_000_000)).unwrap_or(i64::MAX)
}
