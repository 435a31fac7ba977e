//! A gateway without sockets or a record: drives a tap of SFTP and writes down all that it says.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used, clippy::indexing_slicing, clippy::cast_possible_truncation)]

use std::fmt::Write as _;
use wire::ssh::sftp::*;

/// Both directions of one channel, and what came of them.
pub struct Session {
    pub tap: Tap,
    from_client: Vec<u8>,
    from_server: Vec<u8>,
    pub to_server: Vec<u8>,
    pub to_client: Vec<u8>,
    pub log: Vec<String>,
    /// The text with which an operation is denied.
    pub policy: fn(&Operation) -> Option<&'static str>,
    /// Keeps operations instead of forwarding them at once.
    pub keep: bool,
    pub kept: Vec<Held<'static>>,
    pub waiting: bool,
    next: u64,
}

pub fn limits() -> Limits {
    Limits { requests_max: 16, handles_max: 4, path_bytes_max: 64, reorder_bytes_max: 200 }
}

impl Session {
    pub fn new(limits: Limits, looks: Looks) -> Self {
        Self {
            tap: Tap::new(limits, looks),
            from_client: Vec::new(),
            from_server: Vec::new(),
            to_server: Vec::new(),
            to_client: Vec::new(),
            log: Vec::new(),
            policy: |_| None,
            keep: false,
            kept: Vec::new(),
            waiting: false,
            next: 0,
        }
    }

    /// One that has exchanged versions.
    pub fn greeted() -> Self {
        let mut session = Self::new(limits(), Looks::Hold);
        session.client(&init(3)).unwrap();
        session.server(&version(3)).unwrap();
        session.to_server.clear();
        session.to_client.clear();
        session
    }

    /// One in which these are open, each by its name: directories where that begins with `d`, else files.
    pub fn with_open(handles: &[&str]) -> Self {
        let mut session = Self::greeted();
        for handle in handles {
            let path = format!("/{handle}");
            let request = if handle.starts_with('d') { opendir(1, &path) } else { open(1, &path, 3) };
            session.client(&request).unwrap();
            session.server(&handle_reply(1, handle)).unwrap();
        }
        session.to_server.clear();
        session.to_client.clear();
        session.log.clear();
        session
    }

    pub fn client(&mut self, bytes: &[u8]) -> Result<(), Violation> {
        self.from_client.extend_from_slice(bytes);
        self.pump()
    }

    fn pump(&mut self) -> Result<(), Violation> {
        self.waiting = false;
        loop {
            let bytes = std::mem::take(&mut self.from_client);
            let step = self.tap.client(&bytes);
            let consumed = match step {
                Ok(ClientStep::NeedMore) => 0,
                Ok(ClientStep::Wait) => {
                    self.waiting = true;
                    0
                }
                Ok(ClientStep::Greet { consumed, bytes }) => {
                    self.to_server.extend_from_slice(bytes);
                    consumed
                }
                Ok(ClientStep::Pass(frame)) => {
                    assert_eq!(frame, &bytes[..frame.len()]);
                    self.to_server.extend_from_slice(frame);
                    frame.len()
                }
                Ok(ClientStep::Operation(held, operation)) => {
                    assert_eq!(held.frame(), &bytes[..held.consumed()]);
                    assert_eq!(held.key(), operation.key);
                    let consumed = held.consumed();
                    self.drafted(&operation);
                    match (self.policy)(&operation) {
                        Some(text) => {
                            self.log.push(format!("deny {}", operation.key.0));
                            let reply = self.tap.deny(held, text);
                            self.to_client.extend_from_slice(&reply);
                        }
                        None if self.keep => self.kept.push(held.into_owned()),
                        None => self.to_server.extend_from_slice(&self.tap.forward(held)),
                    }
                    consumed
                }
                Ok(ClientStep::Refuse { consumed, operation, refusal, reply }) => {
                    self.drafted(&operation);
                    self.log.push(format!("refuse {} {refusal:?}", operation.key.0));
                    self.to_client.extend_from_slice(&reply);
                    consumed
                }
                Err(violation) => {
                    self.log.push(format!("violation {violation}"));
                    return Err(violation);
                }
            };
            self.from_client = bytes[consumed..].to_vec();
            if consumed == 0 {
                return Ok(());
            }
        }
    }

    fn drafted(&mut self, operation: &Operation) {
        assert_eq!(operation.key.0, self.next, "keys are dense");
        self.next += 1;
        self.log.push(show_operation(operation));
    }

    pub fn server(&mut self, bytes: &[u8]) -> Result<(), Violation> {
        self.from_server.extend_from_slice(bytes);
        loop {
            let step = match self.tap.server(&self.from_server) {
                Ok(step) => step,
                Err(violation) => {
                    self.log.push(format!("violation {violation}"));
                    return Err(violation);
                }
            };
            if step.pass == 0 {
                assert_eq!(step.event, None);
                break;
            }
            self.to_client.extend(self.from_server.drain(..step.pass));
            self.log.extend(step.event.iter().map(show_event));
        }
        self.pump()
    }

    /// The channel ends.
    pub fn end(&mut self) {
        for event in self.tap.abandon() {
            self.log.push(show_event(&event));
        }
        assert!(self.tap.abandon().is_empty());
    }

    /// What was written down since the last call.
    pub fn said(&mut self) -> Vec<String> {
        std::mem::take(&mut self.log)
    }
}

pub fn show_operation(operation: &Operation) -> String {
    let mut line = format!("{} {} {:?}", operation.kind.as_str(), operation.key.0, operation.class);
    for name in [&operation.path, &operation.target, &operation.name].into_iter().flatten() {
        write!(line, " {}", String::from_utf8_lossy(name)).unwrap();
    }
    if let Some(data) = operation.data.as_ref().filter(|data| !data.is_empty()) {
        write!(line, " data={data:02x?}").unwrap();
    }
    if let Some(flags) = operation.flags {
        write!(line, " {}", flags.names().join("+")).unwrap();
    }
    let attributes = &operation.attributes;
    if let Some(size) = attributes.size {
        write!(line, " size={size}").unwrap();
    }
    if let Some((user, group)) = attributes.owner {
        write!(line, " owner={user}:{group}").unwrap();
    }
    if let Some(permissions) = attributes.permissions {
        write!(line, " mode={permissions:o}").unwrap();
    }
    if attributes.times.is_some() {
        line.push_str(" times");
    }
    if attributes.extended > 0 {
        write!(line, " extended={}", attributes.extended).unwrap();
    }
    if let Some(on) = operation.on {
        write!(line, " on={}", on.0).unwrap();
    }
    if let Some(copy) = operation.copy {
        write!(line, " copy {}@{}+{} to {}@{}", copy.from.0, copy.from_offset, copy.length, copy.to.0, copy.to_offset)
            .unwrap();
    }
    line
}

pub fn show_event(event: &Event) -> String {
    let outcome = &event.outcome;
    let mut line = format!("outcome {}", event.key.0);
    match &outcome.end {
        End::Answered(status) => write!(line, " {}", status.name().unwrap_or("?")).unwrap(),
        end => write!(line, " {end:?}").unwrap(),
    }
    for (what, transferred) in [("read", outcome.read), ("written", outcome.written)] {
        if transferred != Transferred::default() {
            write!(line, " {what}={}", transferred.bytes).unwrap();
            match transferred.digest {
                Some(digest) => write!(line, "@{}:{}", digest.offset, hex(&digest.sha256)).unwrap(),
                None => line.push_str(" no-digest"),
            }
        }
    }
    if outcome.read_to_end {
        line.push_str(" to-end");
    }
    if outcome.entries > 0 {
        write!(line, " entries={}", outcome.entries).unwrap();
    }
    if let Some(failed) = &outcome.failed {
        write!(line, " failed={}", failed.name().unwrap_or("?")).unwrap();
    }
    if let Some(answer) = &outcome.answer {
        write!(line, " answer={}", String::from_utf8_lossy(answer)).unwrap();
    }
    line
}

/// The first eight digits are enough to tell.
pub fn hex(digest: &[u8]) -> String {
    digest[..4].iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Fields of a packet, after its type.
#[derive(Clone, Default)]
pub struct Fields(pub Vec<u8>);

impl Fields {
    pub fn u32(mut self, value: u32) -> Self {
        self.0.extend_from_slice(&value.to_be_bytes());
        self
    }

    pub fn u64(mut self, value: u64) -> Self {
        self.0.extend_from_slice(&value.to_be_bytes());
        self
    }

    pub fn text(self, text: &str) -> Self {
        self.bytes(text.as_bytes())
    }

    pub fn bytes(self, bytes: &[u8]) -> Self {
        let mut counted = self.u32(bytes.len() as u32);
        counted.0.extend_from_slice(bytes);
        counted
    }

    pub fn packet(self, kind: u8) -> Vec<u8> {
        let mut frame = (self.0.len() as u32 + 1).to_be_bytes().to_vec();
        frame.push(kind);
        frame.extend_from_slice(&self.0);
        frame
    }
}

pub fn id(id: u32) -> Fields {
    Fields::default().u32(id)
}

pub fn init(version: u32) -> Vec<u8> {
    id(version).packet(1)
}

pub fn version(version: u32) -> Vec<u8> {
    id(version).text("limits@openssh.com").text("1").packet(2)
}

pub fn open(request: u32, path: &str, flags: u32) -> Vec<u8> {
    id(request).text(path).u32(flags).u32(0).packet(3)
}

pub fn close(request: u32, handle: &str) -> Vec<u8> {
    id(request).text(handle).packet(4)
}

pub fn read(request: u32, handle: &str, offset: u64, length: u32) -> Vec<u8> {
    id(request).text(handle).u64(offset).u32(length).packet(5)
}

pub fn write(request: u32, handle: &str, offset: u64, data: &str) -> Vec<u8> {
    id(request).text(handle).u64(offset).text(data).packet(6)
}

pub fn opendir(request: u32, path: &str) -> Vec<u8> {
    id(request).text(path).packet(11)
}

pub fn readdir(request: u32, handle: &str) -> Vec<u8> {
    id(request).text(handle).packet(12)
}

pub fn remove(request: u32, path: &str) -> Vec<u8> {
    id(request).text(path).packet(13)
}

pub fn stat(request: u32, path: &str) -> Vec<u8> {
    id(request).text(path).packet(17)
}

pub fn extended(request: u32, name: &str) -> Fields {
    id(request).text(name)
}

pub fn copy_data(request: u32, from: &str, to: &str) -> Vec<u8> {
    extended(request, "copy-data").text(from).u64(0).u64(0).text(to).u64(0).packet(200)
}

pub fn status(request: u32, code: u32) -> Vec<u8> {
    id(request).u32(code).text("as it is").text("en").packet(101)
}

pub fn handle_reply(request: u32, handle: &str) -> Vec<u8> {
    id(request).text(handle).packet(102)
}

pub fn data(request: u32, data: &str) -> Vec<u8> {
    id(request).text(data).packet(103)
}

pub fn names(request: u32, names: &[&str]) -> Vec<u8> {
    let counted = id(request).u32(names.len() as u32);
    names.iter().fold(counted, |fields, name| fields.text(name).text("-rw-r--r--").u32(0)).packet(104)
}

pub fn attributes(request: u32) -> Vec<u8> {
    id(request).u32(4).u32(0o100_644).packet(105)
}
