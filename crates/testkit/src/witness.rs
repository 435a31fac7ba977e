//! The real `onrecord witness` as a process.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::process::Signal;

use crate::process::{self, Process, poll};

/// A witness with a directory of its own. It keeps its port over restarts, because a policy names it.
#[derive(Debug)]
pub struct Witness {
    process: Option<Process>,
    binary: PathBuf,
    name: String,
    vkey: String,
    port: u16,
    dir: tempfile::TempDir,
}

impl Witness {
    /// Makes a witness and starts it.
    #[track_caller]
    pub fn start(binary: impl Into<PathBuf>, name: &str) -> Witness {
        let dir = tempfile::Builder::new().prefix("onrecord-witness-").tempdir().unwrap();
        let (binary, name) = (binary.into(), name.to_owned());
        let mut witness = Witness { process: None, binary, name, vkey: String::new(), port: 0, dir };
        let mut init = witness.command("init");
        witness.vkey = process::run(init.args(["--name", &witness.name]), "").expect_success("witness init");
        witness.vkey = witness.vkey.trim().to_owned();
        witness.restart();
        witness
    }

    /// Starts it, on the port that it had.
    #[track_caller]
    pub fn restart(&mut self) {
        assert!(self.process.is_none(), "kill it first");
        let path = self.dir.path().join("stderr");
        let stderr = File::create(&path).unwrap();
        let mut command = process::tethered(&self.binary, "KILL");
        command.args(["witness", "serve", "--listen", &format!("127.0.0.1:{}", self.port), "--dir"]).arg(self.state());
        command.stdout(stderr.try_clone().unwrap()).stderr(stderr);
        let mut process = Process::start("onrecord witness", &mut command, Signal::KILL);
        self.port = poll("the witness's ready line", || {
            let ended = process.ended();
            let said = fs::read_to_string(&path).unwrap_or_default();
            assert!(ended.is_none(), "the witness ended before it was ready:\n{said}");
            let (_, port) = said.split_once("witness on 127.0.0.1:")?;
            port.split_once('\n')?.0.parse().ok()
        });
        self.process = Some(process);
    }

    /// Kills it as a power cut would, as far as its memory goes.
    pub fn kill9(&mut self) {
        let mut process = self.process.take().expect("running");
        process.signal(Signal::KILL);
        process.wait();
    }

    /// Lets it know a log.
    #[track_caller]
    pub fn add_log(&self, vkey: &str) {
        process::run(self.command("add-log").arg(vkey), "").expect_success("witness add-log");
    }

    /// Its line of a policy.
    pub fn policy_line(&self) -> String {
        format!("witness {} {} {}\n", self.name.replace('/', "-"), self.vkey, self.url())
    }

    /// What a policy calls it.
    pub fn policy_name(&self) -> String {
        self.name.replace('/', "-")
    }

    /// Its public key.
    pub fn vkey(&self) -> &str {
        &self.vkey
    }

    /// Where it is.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Its directory.
    pub fn state(&self) -> PathBuf {
        self.dir.path().join("witness")
    }

    fn command(&self, what: &str) -> Command {
        let mut command = Command::new(&self.binary);
        command.args(["witness", what, "--dir"]).arg(self.state());
        command
    }
}

/// Copies a directory and everything in it.
pub fn copy_directory(from: &Path, to: &Path) {
    let mut copy = Command::new("cp");
    process::run(copy.arg("-a").arg("--").arg(from).arg(to), "").expect_success("cp");
}
