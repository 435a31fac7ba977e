//! The control protocol: how the command line asks the running gateway for what only the owner of the log can do.
//!
//! One JSON object a line each way, over the Unix socket `control` in the data directory (mode 0600): a request such as
//! `{"v":1,"do":"hold-list"}`, an answer `{"v":1,"ok":{...}}` or `{"v":1,"error":{"code":...,"message":...}}`. Who asks is
//! what the kernel says of the peer. Behind the answer to `watch` come lines of what a program shows ([`shown`]). When no gateway runs, the command line executes the same requests itself.
//!
//! Not for: reading the record, which needs nobody's help.

mod client;
mod execute;
mod place;
mod server;
mod shown;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

pub use client::{Asked, Watching, ask, watch};
pub(crate) use execute::held as hold_as_json;
pub use execute::{Executor, Rules, actor};
pub use server::Server;

/// The version of the protocol.
pub const VERSION: u64 = 1;
/// A request's line has at most this many bytes.
pub const REQUEST_BYTES_MAX: usize = 64 * 1024;
/// An answer's line has at most this many bytes.
pub const ANSWER_BYTES_MAX: usize = 4 << 20;

/// What can be asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Request {
    /// Whether the gateway records.
    Status {},
    /// Erase what a session sealed.
    Erase {
        /// The session's whole id.
        session: String,
        /// Why.
        reason: String,
    },
    /// Erase one field of a command.
    Redact {
        /// The command's whole id.
        command: String,
        /// `statement`, `parameters` or `message`.
        field: String,
        /// Why.
        reason: String,
    },
    /// Keep content from being erased.
    HoldPlace {
        /// Only of this session.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        session: Option<String>,
        /// Only of this connection.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        connection: Option<String>,
        /// Only of this identity.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        identity: Option<String>,
        /// Why.
        reason: String,
    },
    /// Let a hold go.
    HoldRelease {
        /// Its id.
        hold: String,
        /// Why.
        reason: String,
    },
    /// The holds in force.
    HoldList {},
    /// Erase now what has been kept as long as the configuration says.
    RetentionRun {},
    /// What is known now of identities: sessions, credentials in use, tokens, lock-outs.
    IdentityList {},
    /// Lock an identity out, and end its sessions.
    IdentityRevoke {
        /// Its full name.
        identity: String,
        /// Why.
        reason: String,
    },
    /// Let an identity in again.
    IdentityRestore {
        /// Its full name.
        identity: String,
        /// Why.
        reason: String,
    },
    /// Hand out a join token for an outpost. The answer is a secret.
    OutpostInvite {
        /// Its name.
        name: String,
        /// Its labels.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        labels: Vec<String>,
        /// Seconds until the token is no more.
        ttl_seconds: u64,
    },
    /// The outposts, and what is up of each.
    OutpostList {},
    /// Lock an outpost out, and end its links.
    OutpostRevoke {
        /// Its name or id.
        name: String,
    },
    /// Give the authority for outposts another key.
    OutpostRotateAuthority {},
    /// End a live session.
    Kill {
        /// The session's whole id.
        session: String,
        /// Why.
        reason: String,
    },
    /// Put on the record that somebody follows the commands of a live session.
    Follow {
        /// The session's whole id.
        session: String,
    },
    /// Show what a running program writes, until it ends or nobody looks any more.
    Watch {
        /// The command's whole id.
        command: String,
    },
    /// Put on the record that a part of it was handed out.
    NoteExport {
        /// What was asked for, as a command line would say it.
        selection: String,
        /// How many entries were handed out.
        entries: u64,
        /// How many sensitive fields can be read in what was handed out.
        disclosed: u64,
        /// SHA-256 of the file, in hexadecimal.
        sha256: String,
    },
}

/// Why something was not done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// The kind of reason, for programs.
    pub code: Code,
    /// For people: what happened, why, what to do.
    pub message: String,
}

/// The kinds of reasons.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Code {
    /// The request is not one of this version.
    Malformed,
    /// A value in it is wrong.
    Invalid,
    /// There is no such session, command, content or hold.
    NotFound,
    /// The session has not ended.
    Open,
    /// A hold keeps it.
    Held,
    /// It was done before.
    Already,
    /// It is on the record, and not finished.
    Unfinished,
    /// Who asks may not.
    Forbidden,
    /// Too many ask at the same time.
    Busy,
    /// It did not work.
    Failed,
}

impl Refusal {
    pub(crate) fn new(code: Code, message: impl std::fmt::Display) -> Self {
        Self { code, message: message.to_string() }
    }
}

impl Request {
    /// Reads a request's line.
    ///
    /// # Errors
    /// It is none of this version.
    pub fn parse(line: &[u8]) -> Result<Self, Refusal> {
        let malformed = |what: &dyn std::fmt::Display| Refusal::new(Code::Malformed, what);
        if line.len() > REQUEST_BYTES_MAX {
            return Err(malformed(&format_args!("the request is longer than {REQUEST_BYTES_MAX} bytes")));
        }
        let mut value: Value = serde_json::from_slice(line).map_err(|error| malformed(&error))?;
        let version = value.as_object_mut().and_then(|fields| fields.remove("v"));
        if version.as_ref().and_then(Value::as_u64) != Some(VERSION) {
            return Err(malformed(&format_args!(
                "this is version {VERSION} of the control protocol: `\"v\":{VERSION}`"
            )));
        }
        serde_json::from_value(value).map_err(|error| malformed(&error))
    }

    /// The request's line, without its end.
    #[must_use]
    pub fn to_line(&self) -> String {
        let mut value = serde_json::to_value(self).unwrap_or_default();
        if let Some(fields) = value.as_object_mut() {
            fields.insert("v".to_owned(), VERSION.into());
        }
        value.to_string()
    }
}

/// The line of an answer, without its end.
#[must_use]
pub fn answer_line(answer: &Result<Value, Refusal>) -> String {
    match answer {
        Ok(value) => json!({"v": VERSION, "ok": value}),
        Err(refusal) => json!({"v": VERSION, "error": refusal}),
    }
    .to_string()
}

/// Reads an answer's line.
///
/// # Errors
/// What it refuses; [`Code::Malformed`] if it is no answer of this version.
pub fn parse_answer(line: &[u8]) -> Result<Value, Refusal> {
    let malformed = || Refusal::new(Code::Malformed, "the gateway's answer is not one of this version");
    let value: Value = serde_json::from_slice(line).map_err(|_| malformed())?;
    let (version, ok, error) = (value.get("v").and_then(Value::as_u64), value.get("ok"), value.get("error"));
    match (version, ok, error) {
        (Some(VERSION), Some(ok), None) => Ok(ok.clone()),
        (Some(VERSION), None, Some(error)) => {
            Err(serde_json::from_value(error.clone()).unwrap_or_else(|_| malformed()))
        }
        _ => Err(malformed()),
    }
}

/// What the fuzzer runs: any bytes as a request and as an answer.
#[doc(hidden)]
pub fn fuzz(data: &[u8]) {
    if let Ok(request) = Request::parse(data) {
        assert_eq!(Request::parse(request.to_line().as_bytes()), Ok(request), "it reads what it writes");
    }
    if let Some(shown) = shown::parse(data) {
        let line = shown::line(&shown).unwrap_or_default();
        assert_eq!(shown::parse(line.as_bytes()), Some(shown), "it reads what it writes");
    }
    let answer = parse_answer(data);
    if !matches!(&answer, Err(Refusal { code: Code::Malformed, .. })) {
        assert_eq!(parse_answer(answer_line(&answer).as_bytes()), answer, "it reads what it writes");
    }
}
