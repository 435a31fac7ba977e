//! A witness over HTTP: C2SP tlog-witness.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ledger::{ADD_CHECKPOINT_BYTES_MAX, Refusal};

use crate::server::{Answer, Limits, Method, Request, Site};
use crate::witness::{Witness, WitnessError};

/// A witness's answers.
pub struct WitnessSite {
    witness: Arc<Witness>,
}

impl WitnessSite {
    /// The site of this witness.
    #[must_use]
    pub fn new(witness: Arc<Witness>) -> Self {
        Self { witness }
    }

    /// The limits of its server.
    #[must_use]
    pub fn limits() -> Limits {
        Limits {
            body_bytes_max: ADD_CHECKPOINT_BYTES_MAX,
            connections_max: 512,
            request_max: Duration::from_secs(30),
            ..Limits::default()
        }
    }

    fn add_checkpoint(&self, body: &[u8]) -> Answer {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let Ok(body) = std::str::from_utf8(body) else {
            return refused(&WitnessError::Refused(Refusal::Malformed));
        };
        match self.witness.add_checkpoint(body, now) {
            Ok(line) => Answer::text(200, &line.to_string()),
            Err(error) => refused(&error),
        }
    }

    fn latest(&self, name: &str) -> Answer {
        match self.witness.latest(name) {
            Ok(Some(note)) => {
                Answer::new(200, "text/plain; charset=utf-8", note.to_string()).with("cache-control", "no-cache")
            }
            Ok(None) => Answer::not_found(),
            Err(error) => refused(&error),
        }
    }
}

fn refused(error: &WitnessError) -> Answer {
    match error {
        WitnessError::Refused(Refusal::Conflict { size }) => {
            Answer::new(409, "text/x.tlog.size", format!("{size}\n")).with("cache-control", "no-store")
        }
        WitnessError::Refused(refusal) => Answer::text(refusal.status(), &refusal.to_string()),
        WitnessError::TooOften => Answer::text(429, &error.to_string()).with("retry-after", "1"),
        _ => {
            tracing::error!("{error}");
            Answer::text(500, "the witness cannot keep what it sees at the moment")
        }
    }
}

impl Site for WitnessSite {
    fn answer(&self, request: &Request) -> Answer {
        let path = request.path.as_str();
        let name = path.strip_prefix('/').and_then(|path| path.strip_suffix("/checkpoint"));
        match (request.method, path, name) {
            (Method::Post, "/add-checkpoint", _) => self.add_checkpoint(&request.body),
            (Method::Get, "/add-checkpoint", _) => Answer::text(405, "hand in a checkpoint").with("allow", "POST"),
            (Method::Get, _, Some(name)) => self.latest(name),
            (Method::Get | Method::Post, _, _) => Answer::not_found(),
        }
    }
}
