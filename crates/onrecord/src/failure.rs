//! How a command of the CLI ends: its exit code, and what it says when it is not zero.

use std::fmt;
use std::process::ExitCode;

use crate::config::ConfigError;

/// The exit codes, which are stable and documented in `docs/cli.md`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// Done.
    Ok = 0,
    /// It did not work.
    Failure = 1,
    /// The command line or the configuration is wrong.
    Usage = 2,
    /// The record was altered.
    Integrity = 3,
    /// The record misses something.
    Completeness = 4,
    /// There is no such thing.
    NotFound = 5,
    /// Fewer witnesses than the policy asks for vouch for the record, or something could not be looked at that had to be.
    Coverage = 6,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// A command that did not work: what failed, and what to do about it.
#[derive(Debug, thiserror::Error)]
pub struct Failure {
    exit: Exit,
    message: String,
    hint: Option<String>,
}

impl Failure {
    /// Something did not work.
    pub fn new(message: impl fmt::Display) -> Self {
        Self { exit: Exit::Failure, message: message.to_string(), hint: None }
    }

    /// Something did not work, with an exit code of its own.
    pub fn of(exit: Exit, message: impl fmt::Display) -> Self {
        Self { exit, ..Self::new(message) }
    }

    /// The command line or the configuration is wrong.
    pub fn usage(message: impl fmt::Display) -> Self {
        Self { exit: Exit::Usage, ..Self::new(message) }
    }

    /// There is no such thing.
    pub fn not_found(message: impl fmt::Display) -> Self {
        Self { exit: Exit::NotFound, ..Self::new(message) }
    }

    /// The command said everything itself; only the exit code is left.
    pub fn said(exit: Exit) -> Self {
        Self { exit, ..Self::new("") }
    }

    /// Adds what to do about it.
    #[must_use]
    pub fn hint(mut self, hint: impl fmt::Display) -> Self {
        self.hint = Some(hint.to_string());
        self
    }

    /// The same with another exit code.
    #[must_use]
    pub fn with(self, exit: Exit) -> Self {
        Self { exit, ..self }
    }

    /// The exit code.
    pub fn exit(&self) -> Exit {
        self.exit
    }

    /// Whether there is nothing left to say.
    pub fn is_silent(&self) -> bool {
        self.message.is_empty()
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        match &self.hint {
            Some(hint) => write!(f, "\n  hint: {hint}"),
            None => Ok(()),
        }
    }
}

/// Errors of writing the output. A reader that has seen enough, such as `head`, is no failure.
impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        if error.kind() == std::io::ErrorKind::BrokenPipe {
            Self::said(Exit::Ok)
        } else {
            Self::new(format_args!("cannot write the output: {error}"))
        }
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        let failure = Self::usage(&error);
        match error {
            ConfigError::Unreadable { ref source, .. } if source.kind() == std::io::ErrorKind::NotFound => {
                failure.hint("`onrecord init` writes a configuration; --config FILE names one")
            }
            ConfigError::Policy { .. } => {
                failure.hint("`onrecord policy check FILE` checks a policy by itself; see docs/policy.md")
            }
            ConfigError::NobodyApproves { connection, .. } => failure.hint(format_args!(
                "add [connections.{connection}.approvals] with approvers = [\"human:NAME\"] or groups = [\"GROUP\"], or \
                 write `then: deny`"
            )),
            ConfigError::Unreadable { .. } | ConfigError::Invalid { .. } => failure,
        }
    }
}
