//! Asks the running gateway.

use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;

use serde_json::Value;

use super::place::{NAME, Place};
use super::{ANSWER_BYTES_MAX, Code, Refusal, Request, parse_answer};

/// What came of asking.
#[derive(Debug)]
pub enum Asked {
    /// The gateway's answer.
    Answered(Result<Value, Refusal>),
    /// No gateway listens there.
    Nobody,
}

/// Asks the gateway that has this data directory open. Waits as long as the work takes.
///
/// # Errors
/// Somebody listens there and cannot be asked.
pub fn ask(data: &Path, request: &Request) -> io::Result<Asked> {
    let place = match Place::new(data) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Asked::Nobody),
        place => place?,
    };
    let mut stream = match UnixStream::connect(place.path(NAME)) {
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::ConnectionRefused) => {
            return Ok(Asked::Nobody);
        }
        stream => stream?,
    };
    let line = request.to_line() + "\n";
    // A server that refuses may answer and close before it has read all.
    let sent = stream.write_all(line.as_bytes());
    let mut answer = Vec::new();
    let limit = u64::try_from(ANSWER_BYTES_MAX).unwrap_or(u64::MAX);
    BufReader::new(stream.take(limit)).read_until(b'\n', &mut answer)?;
    if answer.last() != Some(&b'\n') {
        sent?;
        let what = "the gateway ended the connection without an answer; what was asked for may have been done";
        return Ok(Asked::Answered(Err(Refusal::new(Code::Failed, what))));
    }
    Ok(Asked::Answered(parse_answer(&answer)))
}
