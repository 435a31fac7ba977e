//! A PostgreSQL client that sends exactly the bytes a test asks for, and reads message by message.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use crate::Target;
use crate::process::PATIENCE;
use crate::scram::Exchange;

/// One message of the server's.
#[derive(Clone, PartialEq, Eq)]
pub struct Message {
    /// The type byte.
    pub kind: u8,
    /// What follows the length.
    pub body: Vec<u8>,
}

impl std::fmt::Debug for Message {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let text = String::from_utf8_lossy(&self.body);
        write!(f, "{}[{}]", self.kind as char, text.escape_debug())
    }
}

impl Message {
    /// One field of an ErrorResponse or NoticeResponse: `C` is the SQLSTATE, `M` the message.
    pub fn field(&self, field: u8) -> Option<String> {
        let part = self.body.split(|b| *b == 0).find(|part| part.first() == Some(&field))?;
        Some(String::from_utf8_lossy(&part[1..]).into_owned())
    }
}

/// A connection. `P` is the protocol's minor version at log-in.
#[derive(Debug)]
pub struct Raw {
    stream: TcpStream,
    /// What the server sent between log-in and its first ReadyForQuery.
    pub greeting: Vec<Message>,
}

impl Raw {
    /// A connection on which nothing has been sent.
    pub fn connect(target: &Target) -> Raw {
        let stream = TcpStream::connect((target.host.as_str(), target.port)).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        Raw { stream, greeting: Vec::new() }
    }

    /// Logs in with protocol 3.0 and no further parameters.
    pub fn login(target: &Target) -> Raw {
        let mut raw = Raw::connect(target);
        raw.authenticate(target, 0x0003_0000, &[]).unwrap_or_else(|e| panic!("log-in: {e:?}"));
        raw
    }

    /// As [`Raw::login`], from another address of this machine, such as `127.0.0.2`.
    pub fn login_from(source: &str, target: &Target) -> Raw {
        use rustix::net::{AddressFamily, SocketType, bind, connect, socket};
        let to: std::net::SocketAddr = format!("{}:{}", target.host, target.port).parse().unwrap();
        let from: std::net::SocketAddr = format!("{source}:0").parse().unwrap();
        let fd = socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
        bind(&fd, &from).unwrap();
        connect(&fd, &to).unwrap();
        let stream = TcpStream::from(fd);
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut raw = Raw { stream, greeting: Vec::new() };
        raw.authenticate(target, 0x0003_0000, &[]).unwrap_or_else(|e| panic!("log-in: {e:?}"));
        raw
    }

    /// Sends a startup message and authenticates; an ErrorResponse on the way is the error.
    pub fn authenticate(&mut self, target: &Target, version: u32, parameters: &[(&str, &str)]) -> Result<(), Message> {
        self.send(&startup(target, version, parameters));
        let mut exchange = Exchange::new(&target.password);
        loop {
            let Some(message) = self.read() else {
                return Err(Message { kind: 0, body: b"connection closed".to_vec() });
            };
            match message.kind {
                b'E' => return Err(message),
                b'R' => self.answer(target, &message.body, &mut exchange),
                b'Z' => return Ok(()),
                _ => self.greeting.push(message),
            }
        }
    }

    fn answer(&mut self, target: &Target, body: &[u8], exchange: &mut Exchange) {
        let text = || String::from_utf8_lossy(&body[4..]).into_owned();
        match u32::from_be_bytes(body[..4].try_into().unwrap()) {
            0 => {}
            3 => self.send(&message(b'p', &cstr(&target.password))),
            10 => {
                let first = exchange.first();
                let length = u32::try_from(first.len()).unwrap().to_be_bytes();
                let body = [&cstr("SCRAM-SHA-256")[..], &length, first.as_bytes()].concat();
                self.send(&message(b'p', &body));
            }
            11 => {
                let answer = exchange.answer(&text());
                self.send(&message(b'p', answer.as_bytes()));
            }
            12 => exchange.check(&text()),
            other => panic!("authentication request {other}"),
        }
    }

    /// The process id and secret of BackendKeyData.
    pub fn key(&self) -> (u32, Vec<u8>) {
        let key = self.greeting.iter().find(|m| m.kind == b'K').expect("BackendKeyData");
        (u32::from_be_bytes(key.body[..4].try_into().unwrap()), key.body[4..].to_vec())
    }

    /// Sends bytes as they are.
    pub fn send(&mut self, bytes: &[u8]) {
        self.try_send(bytes).unwrap_or_else(|e| panic!("send: {e}"));
    }

    /// Sends bytes; the peer may have closed.
    pub fn try_send(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// Sends a byte at a time, each in a segment of its own.
    pub fn send_bytewise(&mut self, bytes: &[u8]) {
        bytes.chunks(1).for_each(|byte| self.send(byte));
    }

    /// The next message; `None` when the peer has closed.
    pub fn read(&mut self) -> Option<Message> {
        let mut header = [0u8; 5];
        self.fill(&mut header)?;
        let length = u32::from_be_bytes(header[1..].try_into().unwrap());
        let mut body = vec![0; usize::try_from(length).unwrap().checked_sub(4).unwrap()];
        self.fill(&mut body)?;
        Some(Message { kind: header[0], body })
    }

    /// Reads one byte that is no message (the answer to SSLRequest).
    pub fn read_byte(&mut self) -> Option<u8> {
        let mut byte = [0u8; 1];
        self.fill(&mut byte)?;
        Some(byte[0])
    }

    /// Reads up to and including the `count`-th ReadyForQuery, or to the end of the connection.
    pub fn until_ready(&mut self, count: usize) -> Vec<Message> {
        let mut messages = Vec::new();
        let mut ready = 0;
        while ready < count {
            let Some(message) = self.read() else { break };
            ready += usize::from(message.kind == b'Z');
            messages.push(message);
        }
        messages
    }

    /// Sends, then reads up to the `count`-th ReadyForQuery.
    pub fn exchange(&mut self, bytes: &[u8], count: usize) -> Vec<Message> {
        self.send(bytes);
        self.until_ready(count)
    }

    /// Whether the peer closes without sending anything more.
    pub fn closed(&mut self) -> bool {
        self.read().is_none()
    }

    /// Limits the wait for a read, for tests that expect silence.
    pub fn patience(&mut self, wait: Duration) {
        self.stream.set_read_timeout(Some(wait)).unwrap();
    }

    /// Closes our sending half.
    pub fn finish(&mut self) {
        let _ = self.stream.shutdown(Shutdown::Write);
    }

    /// The socket.
    pub fn stream(&self) -> &TcpStream {
        &self.stream
    }

    fn fill(&mut self, buffer: &mut [u8]) -> Option<()> {
        match self.stream.read_exact(buffer) {
            Ok(()) => Some(()),
            Err(e) if matches!(e.kind(), ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset) => None,
            Err(e) => panic!("read: {e}"),
        }
    }
}

/// The kinds of messages in order, as a string: `12CZ`. ParameterStatus and notices left out, they
/// may come at any time.
pub fn kinds(messages: &[Message]) -> String {
    let tell = |m: &&Message| !matches!(m.kind, b'S' | b'N' | b'A');
    messages.iter().filter(tell).map(|m| m.kind as char).collect()
}

/// A message with its length.
pub fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 4).unwrap();
    [&[kind][..], &length.to_be_bytes(), body].concat()
}

/// A startup message.
pub fn startup(target: &Target, version: u32, parameters: &[(&str, &str)]) -> Vec<u8> {
    let mut body = version.to_be_bytes().to_vec();
    let user = [("user", target.user.as_str()), ("database", target.database.as_str())];
    for (name, value) in user.iter().chain(parameters) {
        body.extend(cstr(name));
        body.extend(cstr(value));
    }
    body.push(0);
    let length = u32::try_from(body.len() + 4).unwrap();
    [&length.to_be_bytes()[..], &body].concat()
}

/// `Q`.
pub fn query(text: &str) -> Vec<u8> {
    message(b'Q', &cstr(text))
}

/// `P` without parameter types.
pub fn parse(statement: &str, text: &str) -> Vec<u8> {
    message(b'P', &[&cstr(statement)[..], &cstr(text), &[0, 0]].concat())
}

/// `B` with parameters as text, and results as text.
pub fn bind(portal: &str, statement: &str, parameters: &[&str]) -> Vec<u8> {
    let mut body = [cstr(portal), cstr(statement), vec![0, 0]].concat();
    body.extend(u16::try_from(parameters.len()).unwrap().to_be_bytes());
    for parameter in parameters {
        body.extend(u32::try_from(parameter.len()).unwrap().to_be_bytes());
        body.extend(parameter.as_bytes());
    }
    body.extend([0, 0]);
    message(b'B', &body)
}

/// `E` with a limit of rows, 0 for none.
pub fn execute(portal: &str, rows_max: u32) -> Vec<u8> {
    message(b'E', &[&cstr(portal)[..], &rows_max.to_be_bytes()].concat())
}

/// `D` of a portal.
pub fn describe_portal(portal: &str) -> Vec<u8> {
    message(b'D', &[b"P", &cstr(portal)[..]].concat())
}

/// `C` of a statement.
pub fn close_statement(statement: &str) -> Vec<u8> {
    message(b'C', &[b"S", &cstr(statement)[..]].concat())
}

/// `S`.
pub fn sync() -> Vec<u8> {
    message(b'S', &[])
}

/// `d`.
pub fn copy_data(data: &[u8]) -> Vec<u8> {
    message(b'd', data)
}

/// `c`.
pub fn copy_done() -> Vec<u8> {
    message(b'c', &[])
}

/// `F` with arguments and result in binary form.
pub fn function_call(oid: u32, arguments: &[&[u8]]) -> Vec<u8> {
    let mut body = oid.to_be_bytes().to_vec();
    body.extend([0, 1, 0, 1]);
    body.extend(u16::try_from(arguments.len()).unwrap().to_be_bytes());
    for argument in arguments {
        body.extend(u32::try_from(argument.len()).unwrap().to_be_bytes());
        body.extend(*argument);
    }
    body.extend([0, 1]);
    message(b'F', &body)
}

/// CancelRequest, sent on a connection of its own.
pub fn cancel_request(pid: u32, secret: &[u8]) -> Vec<u8> {
    let length = u32::try_from(secret.len() + 12).unwrap();
    [&length.to_be_bytes()[..], &80_877_102u32.to_be_bytes(), &pid.to_be_bytes(), secret].concat()
}

/// A string with its terminator.
pub fn cstr(text: &str) -> Vec<u8> {
    [text.as_bytes(), &[0]].concat()
}
