//! `onrecord run -- CMD`: runs a client with all that it needs to connect, and nothing that lives long.
//!
//! The client finds the gateway in the environment that libpq and the drivers around it read, and the token in a password
//! file that only this user can read, which is renewed while the client runs and gone when it has ended.

use std::ffi::OsString;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::time::Duration;

use clap::Args;
use rustix::process::{Pid, Signal};
use serde_json::Value;
use tokio::signal::unix::{SignalKind, signal};
use zeroize::Zeroizing;

use super::Context;
use super::token::Wanted;
use crate::agent::{Api, Token};
use crate::{Exit, Failure};

/// Where systems keep the authorities that they trust: libpq before version 16 has to be told.
const SYSTEM_ROOTS: [&str; 3] =
    ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem"];
/// Between two tries to renew a token when one has failed.
const RETRY: Duration = Duration::from_secs(10);
/// What is in the environment of this command and is not for the client: it lives longer than the client's token.
const KEPT_BACK: [&str; 5] =
    ["ONRECORD_TOKEN", "ACTIONS_ID_TOKEN_REQUEST_URL", "ACTIONS_ID_TOKEN_REQUEST_TOKEN", "PGPASSWORD", "PGSERVICE"];

/// Arguments of `run`.
#[derive(Debug, Args)]
pub struct Run {
    #[command(flatten)]
    wanted: Wanted,
    /// The command and its arguments
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

impl Run {
    /// Runs the command, and ends as it ended.
    pub fn run(self, context: &mut Context) -> Result<(), Failure> {
        let (api, token) = self.wanted.get()?;
        let port = api.about()?.pointer("/postgres/port").and_then(Value::as_u64).unwrap_or(5432);
        let pass = PassFile::new(api.host(), port, &token.text)?;
        let child = self.start(&api, port, &pass)?;
        let renew = || -> Result<Token, Failure> {
            let (_, token) = self.wanted.get()?;
            pass.write(&token.text)?;
            Ok(token)
        };
        let status = attend(child, &token, &renew)?;
        drop(pass);
        context.console.flush()?;
        match (status.code(), status.signal()) {
            (Some(0), _) => Ok(()),
            // As shells do.
            (code, signal) => std::process::exit(code.or(signal.map(|signal| 128 + signal)).unwrap_or(1)),
        }
    }

    fn start(&self, api: &Api, port: u64, pass: &PassFile) -> Result<Child, Failure> {
        let Some((program, arguments)) = self.command.split_first() else {
            return Err(Failure::usage("there is no command to run"));
        };
        let roots = api.ca.clone().or_else(|| SYSTEM_ROOTS.iter().map(PathBuf::from).find(|file| file.exists()));
        let roots =
            roots.map_or_else(|| OsString::from("system"), |file| std::path::absolute(&file).unwrap_or(file).into());
        let mut command = Command::new(program);
        command.args(arguments);
        for name in KEPT_BACK {
            command.env_remove(name);
        }
        command
            .env("PGHOST", api.host())
            .env("PGPORT", port.to_string())
            .env("PGUSER", "token")
            .env("PGDATABASE", &self.wanted.connection)
            .env("PGPASSFILE", &pass.file)
            .env("PGSSLMODE", "verify-full")
            .env("PGSSLROOTCERT", roots);
        command.spawn().map_err(|error| {
            Failure::of(Exit::NotFound, format_args!("{} cannot be run: {error}", Path::new(program).display()))
        })
    }
}

/// Waits for the client, passes on what it is told, and renews its token when two thirds of its time are over.
fn attend(mut child: Child, first: &Token, renew: &dyn Fn() -> Result<Token, Failure>) -> Result<ExitStatus, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Failure::new)?;
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    let (ended, mut waiting) = tokio::sync::oneshot::channel();
    let waiter = std::thread::spawn(move || drop(ended.send(child.wait())));
    let status = runtime.block_on(async {
        // The terminal tells the client itself; what is sent to this process alone is passed on.
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        let mut hangup = signal(SignalKind::hangup())?;
        let mut quit = signal(SignalKind::quit())?;
        let mut next = Duration::from_secs(first.expires_in) * 2 / 3;
        loop {
            let told = tokio::select! {
                status = &mut waiting => return status.unwrap_or_else(|_| Err(std::io::ErrorKind::Other.into())),
                _ = interrupt.recv() => continue,
                _ = quit.recv() => continue,
                _ = terminate.recv() => Signal::TERM,
                _ = hangup.recv() => Signal::HUP,
                () = tokio::time::sleep(next.max(Duration::from_secs(1))) => {
                    next = match renew() {
                        Ok(token) => Duration::from_secs(token.expires_in) * 2 / 3,
                        Err(failure) => {
                            crate::cli::say(&failure);
                            RETRY
                        }
                    };
                    continue;
                }
            };
            if let Some(pid) = pid {
                let _ = rustix::process::kill_process(pid, told);
            }
        }
    });
    let _ = waiter.join();
    status.map_err(|error| Failure::new(format_args!("the command cannot be waited for: {error}")))
}

/// A password file as libpq reads it, in a directory of its own. It is removed with this.
struct PassFile {
    directory: PathBuf,
    file: PathBuf,
    line: String,
}

impl PassFile {
    fn new(host: &str, port: u64, token: &str) -> Result<Self, Failure> {
        let mut name = [0; 8];
        getrandom::fill(&mut name).map_err(Failure::new)?;
        let name: String = name.iter().map(|byte| format!("{byte:02x}")).collect();
        // In memory rather than on a disk, where there is such a place.
        let base = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from).filter(|dir| dir.is_dir());
        let directory = base.unwrap_or_else(std::env::temp_dir).join(format!("onrecord-{name}"));
        let failed = |error: std::io::Error| {
            Failure::new(format_args!("no password file can be made in {}: {error}", directory.display()))
        };
        fs::DirBuilder::new().mode(0o700).create(&directory).map_err(failed)?;
        // libpq's escapes: https://www.postgresql.org/docs/current/libpq-pgpass.html
        let host = host.replace('\\', "\\\\").replace(':', "\\:");
        let pass = Self { file: directory.join("pgpass"), directory, line: format!("{host}:{port}:*:token:") };
        pass.write(token)?;
        Ok(pass)
    }

    /// Puts a token in the place of the one before, in one step.
    fn write(&self, token: &str) -> Result<(), Failure> {
        let beside = self.directory.join("pgpass.new");
        let write = || {
            let mut new = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
            new.write_all(Zeroizing::new(format!("{}{token}\n", self.line)).as_bytes())?;
            fs::rename(&beside, &self.file)
        };
        write().map_err(|error: std::io::Error| {
            Failure::new(format_args!("the password file {} cannot be written: {error}", self.file.display()))
        })
    }
}

impl Drop for PassFile {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.directory);
    }
}
