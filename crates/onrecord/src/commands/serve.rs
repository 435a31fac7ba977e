//! `onrecord serve`: runs the gateway until it is told to stop.

use std::io::Write;
use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use model::ConfigurationCause;
use store::{RecordError, Recovery};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing_subscriber::EnvFilter;

use super::Context;
use super::words::counted;
use crate::config::Config;
use crate::output;
use crate::wiring::{Opened, Reloaded, Running};
use crate::{Failure, wiring};

/// Between two looks at whether the record is still being written.
const WATCH_PAUSE: Duration = Duration::from_millis(500);
/// Between two tries to open the record again: doubled from the first to the last.
const REOPEN_PAUSES: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(30)];
/// What must be free before a record that had no space is opened again: two segments, and room for long texts.
const SPACE_BYTES_MIN: u64 = 192 << 20;

/// Runs until SIGTERM or SIGINT; a second one does not wait for the sessions.
pub fn run(context: &mut Context) -> Result<(), Failure> {
    let file = context.config_file();
    let config = context.load()?;
    log_to_stderr();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(Failure::new)?;
    // The handlers come first: from here on a signal never ends the process by itself.
    let mut signals = runtime.block_on(async { Signals::new() }).map_err(Failure::new)?;
    let mut hangup = runtime.block_on(async { signal(SignalKind::hangup()) }).map_err(Failure::new)?;
    let mut running = wiring::start(&config)?;
    let mut watched = Watched::new(files(&file, &config));
    say_ready(&running);
    loop {
        let next = runtime.block_on(async {
            tokio::select! {
                () = signals.next() => Next::Stop,
                _ = hangup.recv() => Next::Reload(ConfigurationCause::Signal),
                () = watched.changed() => Next::Reload(ConfigurationCause::FileChanged),
                end = recording_ends(&running) => end,
            }
        });
        let why = match next {
            Next::Stop => break,
            Next::Reload(cause) => {
                reload(&mut running, &file, cause);
                watched.watch(files(&file, running.config()));
                continue;
            }
            Next::Stopped(why) => why,
            Next::Contradicted(contradiction) => {
                say(&format!("onrecord: the log must not go on: {contradiction}"));
                let (addresses, access, config) = (running.addresses(), running.access(), running.config().clone());
                running.halt();
                running = wiring::start_again(&config, addresses, &access, wiring::open(&config)?)?;
                say_ready(&running);
                continue;
            }
        };
        say(&format!("onrecord: {why}"));
        if why == RecordError::Full {
            say(&format!("onrecord: it goes on by itself once {} MiB are free there", SPACE_BYTES_MIN >> 20));
        }
        let config = running.config().clone();
        let again = runtime.block_on(async {
            tokio::select! {
                () = signals.next() => None,
                again = possible_again(&config, &mut running, &why) => Some(again),
            }
        });
        let Some(again) = again else { break };
        let (addresses, access) = (running.addresses(), running.access());
        // Sessions that are left end here. What is lost of them with a log that failed, the new one declares.
        let _ = running.stop();
        let opened = match again {
            Some(opened) => opened,
            None => wiring::open(&config)?,
        };
        running = wiring::start_again(&config, addresses, &access, opened)?;
        say_ready(&running);
    }
    say("onrecord: stopping; a second signal does not wait for the sessions");
    std::thread::spawn(move || {
        runtime.block_on(signals.next());
        std::process::exit(1);
    });
    running.stop()?;
    say("onrecord: stopped, the record is complete");
    Ok(())
}

fn say_ready(running: &Running) {
    say(&format!("onrecord: {}", described(&running.recovery)));
    let addresses = running.addresses();
    let joined = |addresses: &[SocketAddr]| addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    if !addresses.publish.is_empty() {
        say(&format!("onrecord: the log is published over http on {}", joined(&addresses.publish)));
    }
    if !addresses.api.is_empty() {
        say(&format!("onrecord: the API is on https {}", joined(&addresses.api)));
    }
    if !addresses.outposts.is_empty() {
        say(&format!("onrecord: outposts dial {}", joined(&addresses.outposts)));
    }
    let spoken = [("postgres", &addresses.postgres), ("ssh", &addresses.ssh)];
    let spoken = spoken.into_iter().filter(|(_, addresses)| !addresses.is_empty());
    let spoken: Vec<_> = spoken.map(|(name, addresses)| format!("{name} on {}", joined(addresses))).collect();
    say(&format!("onrecord: ready, {}", spoken.join("; ")));
}

/// What a running gateway comes to do next.
enum Next {
    /// To stop.
    Stop,
    /// To read its configuration again.
    Reload(ConfigurationCause),
    /// The record can no longer be written.
    Stopped(RecordError),
    /// A witness proves that this is not all that the log has signed.
    Contradicted(publish::Contradiction),
}

/// Returns when the record can no longer be written, or must not be.
async fn recording_ends(running: &Running) -> Next {
    loop {
        if let Some(why) = running.stopped() {
            return Next::Stopped(why);
        }
        if let Some(contradiction) = running.contradiction() {
            return Next::Contradicted(contradiction);
        }
        tokio::time::sleep(WATCH_PAUSE).await;
    }
}

/// Returns when recording is possible again. A log that has failed is opened anew, exactly as at a restart: what the
/// failed run left is read from the disk, checked against what was signed, and completed. A log that had no space left
/// still takes the outcomes of what runs, so it is closed properly first. Until then clients are answered with refusals.
async fn possible_again(config: &Config, running: &mut Running, why: &RecordError) -> Option<Opened> {
    let [mut pause, longest] = REOPEN_PAUSES;
    let mut said = String::new();
    loop {
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(longest);
        if *why == RecordError::Full {
            if has_space(&config.gateway.data) {
                return None;
            }
            continue;
        }
        running.abandon();
        match wiring::open(config) {
            Ok(opened) => return Some(opened),
            Err(failure) if failure.to_string() != said => {
                said = failure.to_string();
                say(&format!("onrecord: still not recording: {said}"));
            }
            Err(_) => {}
        }
    }
}

fn has_space(data: &Path) -> bool {
    rustix::fs::statvfs(data).is_ok_and(|fs| fs.f_bavail.saturating_mul(fs.f_frsize) >= SPACE_BYTES_MIN)
}

/// Puts the configuration in force as it now is, and says what came of it.
fn reload(running: &mut Running, file: &Path, cause: ConfigurationCause) {
    match running.reload(file, cause) {
        Ok(Reloaded::Same) => {}
        Ok(Reloaded::Accepted(0)) => say("onrecord: the configuration is read again and in force"),
        Ok(Reloaded::Accepted(ended)) => {
            let sessions = counted(ended, "session that is", "sessions that are");
            say(&format!(
                "onrecord: the configuration is read again and in force; {sessions} no longer permitted ended"
            ));
        }
        Ok(Reloaded::Refused(why)) => {
            say(&format!("onrecord: the configuration was refused, what was in force still is: {why}"));
        }
        Err(failure) => {
            say(&format!("onrecord: the configuration was read again, and that is not on the record: {failure}"))
        }
    }
}

/// The files that say what is in force.
fn files(file: &Path, config: &Config) -> Vec<PathBuf> {
    let policies = config.connections.values().flat_map(|connection| connection.policy.iter().cloned());
    std::iter::once(file.to_owned()).chain(policies).collect()
}

/// Files that are looked at again and again. What changes them may do so in several writes, so a change counts once it has
/// stood for one look.
struct Watched {
    files: Vec<PathBuf>,
    known: Option<Vec<Look>>,
}

/// What of a file changes with its content: its inode, its length, and when it was written.
type Look = (u64, u64, i64, i64);

impl Watched {
    fn new(files: Vec<PathBuf>) -> Self {
        let mut watched = Self { files, known: None };
        watched.known = watched.look();
        watched
    }

    /// Looks at these from now on.
    fn watch(&mut self, files: Vec<PathBuf>) {
        if files != self.files {
            *self = Self::new(files);
        }
    }

    fn look(&self) -> Option<Vec<Look>> {
        let look = |file: &PathBuf| {
            let file = std::fs::metadata(file).ok()?;
            Some((file.ino(), file.len(), file.mtime(), file.mtime_nsec()))
        };
        self.files.iter().map(look).collect()
    }

    /// Returns when the files are there and others than they were. Cancel safe.
    async fn changed(&mut self) {
        let mut before = self.known.clone();
        loop {
            tokio::time::sleep(WATCH_PAUSE).await;
            let now = self.look();
            if now.is_some() && now == before && now != self.known {
                self.known = now;
                return;
            }
            before = now;
        }
    }
}

pub(super) struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    pub(super) fn new() -> std::io::Result<Self> {
        Ok(Self { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    pub(super) async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

/// The operator's log. `ONRECORD_LOG` sets what is in it; commands, rows and secrets never are.
pub(super) fn log_to_stderr() {
    let filter = EnvFilter::try_from_env("ONRECORD_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(output::Look::of(&std::io::stderr()).colour)
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
pub(super) fn say(line: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{line}");
}
