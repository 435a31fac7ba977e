//! `onrecord serve`: runs the gateway until it is told to stop.

use std::io::Write;

use store::Recovery;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing_subscriber::EnvFilter;

use super::Context;
use super::words::counted;
use crate::output::Look;
use crate::{Failure, wiring};

/// Runs until SIGTERM or SIGINT; a second one does not wait for the sessions.
pub fn run(context: &mut Context) -> Result<(), Failure> {
    let config = context.load()?;
    log_to_stderr();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(Failure::new)?;
    // The handlers come first: from here on a signal never ends the process by itself.
    let mut signals = runtime.block_on(async { Signals::new() }).map_err(Failure::new)?;
    let running = wiring::start(&config)?;
    say(&format!("onrecord: {}", described(&running.recovery)));
    let addresses: Vec<String> = running.addresses().iter().map(ToString::to_string).collect();
    say(&format!("onrecord: ready, postgres on {}", addresses.join(", ")));
    runtime.block_on(signals.next());
    say("onrecord: stopping; a second signal does not wait for the sessions");
    std::thread::spawn(move || {
        runtime.block_on(signals.next());
        std::process::exit(1);
    });
    running.stop()?;
    say("onrecord: stopped, the record is complete");
    Ok(())
}

struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

/// The operator's log. `ONRECORD_LOG` sets what is in it; commands, rows and secrets never are.
fn log_to_stderr() {
    let filter = EnvFilter::try_from_env("ONRECORD_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(Look::of(&std::io::stderr()).colour)
        .with_target(false)
        .with_writer(std::io::stderr)
        .try_init();
}

/// What was found when the record was opened, in one line.
fn described(recovery: &Recovery) -> String {
    let entries = counted(recovery.entries, "entry", "entries");
    if recovery.clean {
        return format!("record opened with {entries}");
    }
    let unknown = counted(recovery.commands_unknown.len(), "command", "commands");
    let lost = counted(recovery.sessions_lost.len(), "session", "sessions");
    let mut text = format!("record recovered with {entries}: {unknown} recorded as unknown, {lost} as lost");
    if recovery.torn_bytes > 0 {
        let torn = counted(recovery.torn_bytes, "byte", "bytes");
        text.push_str(&format!(", {torn} of an unfinished write dropped"));
    }
    text
}

/// Nobody to read it is no reason to stop.
fn say(line: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{line}");
}
