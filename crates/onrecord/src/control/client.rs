//! Asks the running gateway.

use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;

use gateway::Shown;
use serde_json::Value;

use super::place::{NAME, Place};
use super::{ANSWER_BYTES_MAX, Code, Refusal, Request, parse_answer, shown};

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
    Ok(begin(data, request)?.map_or(Asked::Nobody, |(answer, _)| Asked::Answered(answer)))
}

/// Asks the gateway that has this data directory open to show what a program writes. None if no gateway listens there.
///
/// # Errors
/// Somebody listens there and cannot be asked.
pub fn watch(data: &Path, command: String) -> io::Result<Option<Result<Watching, Refusal>>> {
    let begun = begin(data, &Request::Watch { command })?;
    Ok(begun.map(|(answer, stream)| answer.map(|_| Watching { stream, line: Vec::new() })))
}

/// What a program shows, as it comes.
#[derive(Debug)]
pub struct Watching {
    stream: BufReader<UnixStream>,
    line: Vec<u8>,
}

impl Watching {
    /// What comes next; waits for it.
    ///
    /// # Errors
    /// The gateway is gone, or says what is none of this version.
    pub fn wait(&mut self) -> io::Result<Shown> {
        self.line.clear();
        read_line(&mut self.stream, &mut self.line)?;
        if self.line.is_empty() {
            return Err(io::Error::new(ErrorKind::UnexpectedEof, "the gateway ended this"));
        }
        let malformed = || io::Error::new(ErrorKind::InvalidData, "the gateway's answer is not one of this version");
        shown::parse(&self.line).ok_or_else(malformed)
    }
}

/// Asks, and reads the answer: with it comes where it came from. None if nobody listens.
#[allow(clippy::type_complexity, reason = "of one place")]
fn begin(data: &Path, request: &Request) -> io::Result<Option<(Result<Value, Refusal>, BufReader<UnixStream>)>> {
    let place = match Place::new(data) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        place => place?,
    };
    let mut stream = match UnixStream::connect(place.path(NAME)) {
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::ConnectionRefused) => return Ok(None),
        stream => stream?,
    };
    let line = request.to_line() + "\n";
    // A server that refuses may answer and close before it has read all.
    let sent = stream.write_all(line.as_bytes());
    let (mut answer, mut stream) = (Vec::new(), BufReader::new(stream));
    read_line(&mut stream, &mut answer)?;
    if answer.last() != Some(&b'\n') {
        sent?;
        let what = "the gateway ended the connection without an answer; what was asked for may have been done";
        return Ok(Some((Err(Refusal::new(Code::Failed, what)), stream)));
    }
    Ok(Some((parse_answer(&answer), stream)))
}

/// Reads a line, of a length that one may have.
fn read_line(stream: &mut BufReader<UnixStream>, line: &mut Vec<u8>) -> io::Result<usize> {
    stream.by_ref().take(u64::try_from(ANSWER_BYTES_MAX).unwrap_or(u64::MAX)).read_until(b'\n', line)
}
