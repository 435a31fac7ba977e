//! The real binary in a directory of its own.
#![allow(dead_code, clippy::unwrap_used, missing_docs, unreachable_pub)]

use std::path::Path;
use std::process::{Command, Output};

pub struct Place(pub tempfile::TempDir);

pub struct Ran {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl Place {
    pub fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }

    pub fn write(&self, file: &str, text: &str) {
        std::fs::write(self.path().join(file), text).unwrap();
    }

    pub fn read(&self, file: &str) -> String {
        std::fs::read_to_string(self.path().join(file)).unwrap()
    }

    pub fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_onrecord"));
        command.current_dir(self.path()).env_remove("ONRECORD_CONFIG").env_remove("COLUMNS");
        command
    }

    /// Runs `onrecord` with these words, split at spaces.
    pub fn run(&self, words: &str) -> Ran {
        self.command().args(words.split_whitespace()).output().unwrap().into()
    }
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

pub const CONFIG: &str = r#"[gateway]
name = "gateway.example.com/1"
data = "data"

[listen]
postgres = ["127.0.0.1:0"]

[connections.app]
kind = "postgres"
address = "127.0.0.1:5432"
database = "app"
user = "app_owner"
password = "file:password"
identities = ["agent:copilot-agent"]

[identities.copilot-agent]
kind = "agent"
on_behalf_of = "human:bea"
secret = "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU="
"#;
