//! What can go wrong, and whose fault it is.

use std::io;
use std::sync::Arc;

use model::{DecodeError, SessionId};

use crate::wrapping::WrappingError;

/// A data directory that cannot be made, opened or read.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The disk refused.
    #[error("{what}: {source}")]
    Disk {
        /// What was tried.
        what: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// Another process has the data directory open for writing.
    #[error("another process is using this data directory; one gateway writes one log")]
    Locked,
    /// There is no log here.
    #[error("this directory has no log; make one with `onrecord init`")]
    NoLog,
    /// There is a log already.
    #[error("this directory has a log already; a log is never overwritten")]
    Exists,
    /// The log has another name than the configuration says.
    #[error("this log is named {found}, but the configuration names the gateway {expected}")]
    Origin {
        /// The name in the configuration.
        expected: String,
        /// The log's own name.
        found: String,
    },
    /// A name that no log can have.
    #[error("{0:?} cannot name a log: it must not be empty and have no spaces, plus signs or control characters")]
    BadOrigin(String),
    /// A file does not have the form that it should.
    #[error("{file}: {what}")]
    Malformed {
        /// The file.
        file: String,
        /// What is wrong.
        what: String,
    },
    /// The log is damaged before its end.
    #[error(
        "{file}, offset {offset}: entry {index} was safely stored once and is damaged now. \
         This is no crash: nothing was changed; restore the file, or examine it with `onrecord verify`"
    )]
    Corrupt {
        /// The segment.
        file: String,
        /// Where in it.
        offset: u64,
        /// The first entry that is lost.
        index: u64,
    },
    /// The log has fewer entries than it has signed.
    #[error(
        "the log has {entries} entries, but a statement about {signed} entries was signed: its end was lost, or an \
         older copy was restored. It is not opened, because going on would fork it"
    )]
    Shorter {
        /// Entries in the log.
        entries: u64,
        /// Entries in the signed statement.
        signed: u64,
    },
    /// The log is not the one that was signed.
    #[error("the first {size} entries of the log are not those that were signed: the record was altered")]
    Forked {
        /// The size at which they differ.
        size: u64,
    },
    /// An entry could not be read.
    #[error("entry {index}: {source}")]
    Entry {
        /// Its index.
        index: u64,
        /// What is wrong with it.
        #[source]
        source: DecodeError,
    },
    /// The session is not in the log.
    #[error("session {0} is not in this log")]
    NoSession(SessionId),
    /// The key under which session keys are kept cannot be had.
    #[error(transparent)]
    Wrapping(#[from] WrappingError),
    /// Recording failed while the log was opened.
    #[error(transparent)]
    Record(#[from] RecordError),
}

impl StoreError {
    pub(crate) fn disk(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |source| Self::Disk { what, source }
    }

    pub(crate) fn malformed(file: impl Into<String>, what: impl Into<String>) -> Self {
        Self::Malformed { file: file.into(), what: what.into() }
    }
}

/// Something could not be recorded, so it must not happen.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// The disk refused once; nothing is accepted until the log was opened and checked anew.
    #[error("recording has stopped: {why}. Nothing is accepted until the record could be opened and checked again")]
    Stopped {
        /// What failed.
        why: Arc<str>,
    },
    /// There is no room for new commands; what is running can still be completed.
    #[error("the disk of the record is full: no new commands until there is space again")]
    Full,
    /// The entry would be longer than an entry can be.
    #[error("the entry would have {bytes} bytes, and an entry has at most 65535")]
    TooLong {
        /// Its length.
        bytes: usize,
    },
    /// A command of one session was given to another.
    #[error("this command belongs to another session")]
    WrongSession,
    /// A blob could not be written or read; only its command is refused.
    #[error("long content could not be stored: {why}")]
    Blob {
        /// What failed.
        why: Arc<str>,
    },
}

/// Whose fault an error is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blame {
    /// The client asked for something impossible.
    Client,
    /// The disk refused.
    Disk,
    /// A fault in the gateway.
    Gateway,
}

impl RecordError {
    /// Whose fault it is.
    #[must_use]
    pub fn blame(&self) -> Blame {
        match self {
            Self::Stopped { .. } | Self::Full | Self::Blob { .. } => Blame::Disk,
            Self::TooLong { .. } => Blame::Client,
            Self::WrongSession => Blame::Gateway,
        }
    }

    /// What a client may read: no file names, no system errors.
    #[must_use]
    pub fn for_client(&self) -> &'static str {
        match self {
            Self::Stopped { .. } => "the command was not run: the gateway cannot record at the moment",
            Self::Full => "the command was not run: the disk of the record is full",
            Self::Blob { .. } => "the command was not run: its text could not be stored on the record",
            Self::TooLong { .. } => "the command was not run: its entry on the record would be too long",
            Self::WrongSession => "the command was not run: internal error of the gateway",
        }
    }
}

/// Whether new commands are accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Health {
    /// They are.
    Accepting,
    /// They are not.
    Stopped {
        /// Why.
        why: RecordError,
    },
}
