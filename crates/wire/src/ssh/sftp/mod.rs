//! The tap of the subsystem `sftp`: SFTP version 3 (draft-ietf-secsh-filexfer-02) with OpenSSH's extensions.
//!
//! For: cutting both directions into packets, saying which **operation on files** a request begins, holding that request
//! until the caller forwards or denies it, and saying how each operation ended. Not for: SSH's channels, recording,
//! deciding.
//!
//! A file is one operation from OPEN to CLOSE: what is read and written in between passes without a decision and is
//! counted and hashed. So is a directory. Everything else is an operation of one request.
//!
//! Packets pass whole and as they are, in both directions, but for the client's INIT: the server gets one of the gateway's
//! own ([`ClientStep::Greet`]). So the server's side is always between two packets when the tap returns, and
//! an answer of the gateway's own ([`Tap::deny`], [`ClientStep::Refuse`]) may go to the client at any such moment.
//! Answers carry the id of their request; their order is free.
//!
//! Strict where two readers could differ: a packet has exactly the fields of its type, a path has no NUL (OpenSSH would
//! stop reading there), an id that waits for its answer is not used again, and nothing works on a handle but between the
//! server's answer to its open and its CLOSE, and what it was opened for. Handles can be guessed (OpenSSH counts from 0), so a request on one that the
//! server has not given yet is never forwarded, though the server would serve it.
//!
//! Version 3 is what is spoken until the end: a client's `version-select`, by which a server may begin to read all that
//! follows as another, is refused here.
//!
//! Bytes of a client that leaves in the middle of a packet are never forwarded.
//!
//! Invariant: whatever goes to the server is a whole packet that was read here, and whatever changes something was an
//! operation in the caller's hands before.

mod content;
mod files;
mod packet;
mod reply;
mod request;
mod types;

pub use packet::{MESSAGE_BYTES_MAX, PACKET_BYTES_MAX};
pub use types::{
    Attributes, Class, ClientStep, ContentDigest, CopyRange, End, Event, Held, Kind, Limits, Looked, Looks, OpenFlags,
    Operation, OperationKey, Outcome, Refusal, ServerStep, Status, Transferred, Violation,
};

use files::{Files, Transfer, Use};
use packet::{Packet, code, kind};
use reply::Reply;
use request::Ask;
use std::borrow::Cow;
use std::collections::BTreeMap;

/// One session of the subsystem. Does no I/O.
#[derive(Debug)]
pub struct Tap {
    limits: Limits,
    looks: Looks,
    phase: Phase,
    /// Key of the next operation.
    next: u64,
    /// Requests without an answer, by their id.
    requests: BTreeMap<u32, Request>,
    files: Files,
    looked: Looked,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// INIT must come.
    Begin,
    /// INIT is sent; nothing more is, before VERSION says how the server will read it.
    Greeted,
    /// Both sides speak version 3.
    Running,
}

#[derive(Debug)]
struct Request {
    sent: Sent,
    what: What,
}

#[derive(Debug, PartialEq, Eq)]
enum Sent {
    /// In the caller's hands.
    Not,
    Yes,
}

#[derive(Clone, Copy, Debug)]
enum What {
    Close(OperationKey),
    Look(Answer),
    Open(OperationKey),
    Operation(OperationKey, Answer),
    Transfer(OperationKey, Transfer),
}

/// How a request is answered when it succeeds.
#[derive(Clone, Copy, Debug)]
enum Answer {
    /// Not known: by anything but a handle, which only opens give.
    Any,
    Attributes,
    Extended,
    Names,
    Status,
}

impl Tap {
    /// A tap of a channel on which nothing was said yet.
    pub fn new(limits: Limits, looks: Looks) -> Self {
        Self {
            limits,
            looks,
            phase: Phase::Begin,
            next: 0,
            requests: BTreeMap::new(),
            files: Files::new(limits.reorder_bytes_max),
            looked: Looked::default(),
        }
    }

    /// What the client's next bytes are. The caller drops what was consumed, and comes again with the rest.
    pub fn client<'b>(&mut self, bytes: &'b [u8]) -> Result<ClientStep<'b>, Violation> {
        if self.phase == Phase::Greeted || self.requests.len() >= self.limits.requests_max {
            return Ok(ClientStep::Wait);
        }
        let Some(packet) = packet::cut(bytes).map_err(|length| Violation::ClientLength { length })? else {
            return Ok(ClientStep::NeedMore);
        };
        match self.phase {
            Phase::Begin => self.greet(packet),
            Phase::Greeted | Phase::Running => self.request(packet),
        }
    }

    /// One packet of the server, from the front of `bytes`. The caller passes it on, drops it, and comes again with the
    /// rest.
    pub fn server(&mut self, bytes: &[u8]) -> Result<ServerStep, Violation> {
        let Some(packet) = packet::cut(bytes).map_err(|length| Violation::ServerLength { length })? else {
            return Ok(ServerStep { pass: 0, event: None });
        };
        let event = match self.phase {
            Phase::Begin => return Err(Violation::ServerUnexpected { kind: packet.kind }),
            Phase::Greeted => self.greeted(packet)?,
            Phase::Running => self.reply(packet)?,
        };
        Ok(ServerStep { pass: packet.frame.len(), event })
    }

    /// The bytes of a held request: they go to the server now, behind all that the steps before it gave.
    pub fn forward<'b>(&mut self, held: Held<'b>) -> Cow<'b, [u8]> {
        if let Some(request) = self.requests.get_mut(&held.id) {
            request.sent = Sent::Yes;
        }
        held.frame
    }

    /// The answer to a held request that is not forwarded: SSH_FX_PERMISSION_DENIED with a text, for the client. Too long
    /// a text ([`MESSAGE_BYTES_MAX`]) is cut.
    #[allow(clippy::needless_pass_by_value, reason = "what is not forwarded is used up")]
    pub fn deny(&mut self, held: Held<'_>, text: &str) -> Vec<u8> {
        self.requests.remove(&held.id);
        self.files.forget(held.key);
        packet::status(held.id, code::PERMISSION_DENIED, text)
    }

    /// Ends every operation that is still open, in order: the channel has ended.
    pub fn abandon(&mut self) -> Vec<Event> {
        let mut events = Vec::new();
        for request in std::mem::take(&mut self.requests).into_values() {
            let end = if request.sent == Sent::Yes { End::Unanswered } else { End::NotSent };
            match request.what {
                What::Open(key) => {
                    self.files.forget(key);
                    events.push(Event { key, outcome: Outcome::of(end) });
                }
                What::Operation(key, _) => events.push(Event { key, outcome: Outcome::of(end) }),
                What::Transfer(key, Transfer::Write { .. }) => self.files.writes_unseen(key),
                What::Transfer(..) | What::Close(_) | What::Look(_) => {}
            }
        }
        events.extend(self.files.abandon());
        events.sort_by_key(|event| event.key);
        events
    }

    /// The looks that were passed and not held, so far.
    pub fn looked(&self) -> Looked {
        self.looked
    }

    /// Whether nothing is open and nothing waits for an answer.
    pub fn idle(&self) -> bool {
        self.requests.is_empty() && self.files.count() == 0 && self.phase != Phase::Greeted
    }

    fn greet<'b>(&mut self, packet: Packet<'b>) -> Result<ClientStep<'b>, Violation> {
        if packet.kind != kind::INIT {
            return Err(Violation::ClientUnexpected { kind: packet.kind });
        }
        let version = request::init(packet)?;
        if version < packet::VERSION {
            return Err(Violation::ClientVersion { version });
        }
        self.phase = Phase::Greeted;
        Ok(ClientStep::Greet { consumed: packet.frame.len(), bytes: packet::INIT })
    }

    fn greeted(&mut self, packet: Packet<'_>) -> Result<Option<Event>, Violation> {
        if packet.kind != kind::VERSION {
            return Err(Violation::ServerUnexpected { kind: packet.kind });
        }
        let version = reply::version(packet)?;
        if version != packet::VERSION {
            return Err(Violation::ServerVersion { version });
        }
        self.phase = Phase::Running;
        Ok(None)
    }

    fn request<'b>(&mut self, packet: Packet<'b>) -> Result<ClientStep<'b>, Violation> {
        let (id, ask) = request::request(packet, self.limits.path_bytes_max)?;
        if self.requests.contains_key(&id) {
            return Err(Violation::IdInUse);
        }
        let step = Step { tap: self, id, frame: packet.frame };
        Ok(match ask {
            Ask::Open { path, flags, attributes } => step.open(Kind::Open, path, Some(flags), attributes),
            Ask::OpenDir { path } => step.open(Kind::List, path, None, Attributes::default()),
            Ask::Close { handle } => step.close(handle),
            Ask::Read { handle, offset, length } => step.read(handle, offset, length),
            Ask::ReadDir { handle } => step.read_dir(handle),
            Ask::Write { handle, offset, data } => step.write(handle, offset, data),
            Ask::CopyData { from, from_offset, length, to, to_offset } => {
                let opened = |handle, wanted| step.tap.files.opened_for(handle, wanted);
                match opened(from, Use::Read).and_then(|from| Ok((from, opened(to, Use::Write)?))) {
                    Ok((from, to)) => step.copy(CopyRange { from, from_offset, length, to, to_offset }),
                    Err(on) => step.stray(on),
                }
            }
            Ask::Handle { kind, handle, attributes } => match step.tap.files.opened_by(handle) {
                Some(on) => {
                    let path = step.tap.files.path(on).map(<[u8]>::to_vec);
                    step.operation(kind, |operation| Operation { path, attributes, on: Some(on), ..operation })
                }
                None => step.stray(None),
            },
            Ask::Path { kind, path, attributes } => {
                step.operation(kind, |operation| Operation { path: Some(path.to_vec()), attributes, ..operation })
            }
            Ask::Paths { kind, path, target } => {
                let (path, target) = (Some(path.to_vec()), Some(target.to_vec()));
                step.operation(kind, |operation| Operation { path, target, ..operation })
            }
            Ask::Plain { kind, name } => {
                step.operation(kind, |operation| Operation { name: name.map(<[u8]>::to_vec), ..operation })
            }
            Ask::VersionSelect { name } => step.version_select(name),
            Ask::Extended { name, data } => {
                let (name, data) = (Some(name.to_vec()), Some(data.to_vec()));
                step.operation(Kind::Extended, |operation| Operation { name, data, ..operation })
            }
        })
    }

    fn reply(&mut self, packet: Packet<'_>) -> Result<Option<Event>, Violation> {
        let unexpected = Violation::ServerUnexpected { kind: packet.kind };
        let (id, reply) = reply::reply(packet)?;
        let request = self.requests.get(&id).filter(|request| request.sent == Sent::Yes).ok_or(unexpected)?;
        // Only a reply that fits ends the request: after a violation it is still one without an answer.
        let event = self.answered(request.what, reply, unexpected)?;
        self.requests.remove(&id);
        Ok(event)
    }

    fn answered(&mut self, what: What, reply: Reply<'_>, unexpected: Violation) -> Result<Option<Event>, Violation> {
        Ok(match (what, reply) {
            (What::Open(key), Reply::Handle(handle)) => {
                if !self.files.opened(key, handle) {
                    return Err(Violation::ServerHandle);
                }
                None
            }
            (What::Open(key), Reply::Status(status)) if status.code != code::OK => {
                self.files.forget(key);
                Some(Event { key, outcome: Outcome::of(End::Answered(status)) })
            }
            (What::Close(key), Reply::Status(status)) => self.files.closed(key, status),
            (What::Transfer(key, Transfer::Read { offset, length }), Reply::Data(data)) if data.len() <= length => {
                self.files.data(key, offset, data)
            }
            (What::Transfer(key, Transfer::Entries), Reply::Names { count, .. }) => self.files.entries(key, count),
            (What::Transfer(key, transfer @ Transfer::Write { .. }), Reply::Status(status)) => {
                self.files.status(key, transfer, status)
            }
            (What::Transfer(key, transfer), Reply::Status(status)) if status.code != code::OK => {
                self.files.status(key, transfer, status)
            }
            (What::Operation(key, answer), reply) => {
                Some(Event { key, outcome: answer.outcome(reply).ok_or(unexpected)? })
            }
            (What::Look(answer), reply) => {
                let outcome = answer.outcome(reply).ok_or(unexpected)?;
                let ok = matches!(outcome.end, End::Answered(Status { code: code::OK, .. }));
                *if ok { &mut self.looked.answered } else { &mut self.looked.failed } += 1;
                None
            }
            (What::Open(_) | What::Close(_) | What::Transfer(..), _) => return Err(unexpected),
        })
    }
}

impl Answer {
    fn to(kind: Kind) -> Self {
        match kind {
            Kind::FStat | Kind::LStat | Kind::Stat => Self::Attributes,
            Kind::FStatVfs | Kind::Limits | Kind::StatVfs | Kind::UsersGroups => Self::Extended,
            Kind::ExpandPath | Kind::HomeDirectory | Kind::ReadLink | Kind::RealPath => Self::Names,
            Kind::Extended => Self::Any,
            Kind::CopyData
            | Kind::FSetStat
            | Kind::FSync
            | Kind::HardLink
            | Kind::LSetStat
            | Kind::List
            | Kind::MkDir
            | Kind::Open
            | Kind::PosixRename
            | Kind::Remove
            | Kind::Rename
            | Kind::RmDir
            | Kind::SetStat
            | Kind::Stray
            | Kind::SymLink => Self::Status,
        }
    }

    /// What a reply says; `None` if it is no answer to this.
    fn outcome(self, reply: Reply<'_>) -> Option<Box<Outcome>> {
        let mut answer = None;
        let status = match (self, reply) {
            (Self::Any | Self::Status, Reply::Status(status)) => status,
            (Self::Attributes | Self::Extended | Self::Names, Reply::Status(status)) => {
                Some(status).filter(|status| status.code != code::OK)?
            }
            (Self::Names, Reply::Names { only, .. }) => {
                answer = only.map(<[u8]>::to_vec);
                Status::default()
            }
            (Self::Attributes, Reply::Attributes) | (Self::Extended, Reply::Extended) => Status::default(),
            (Self::Any, Reply::Attributes | Reply::Data(_) | Reply::Extended | Reply::Names { .. }) => {
                Status::default()
            }
            (Self::Any, Reply::Handle(_)) | (Self::Status | Self::Attributes | Self::Extended | Self::Names, _) => {
                return None;
            }
        };
        let mut outcome = Outcome::of(End::Answered(status));
        outcome.answer = answer;
        Some(outcome)
    }
}

/// A request of which the packet was read.
struct Step<'t, 'b> {
    tap: &'t mut Tap,
    id: u32,
    frame: &'b [u8],
}

impl<'b> Step<'_, 'b> {
    fn open(self, kind: Kind, path: &[u8], flags: Option<OpenFlags>, attributes: Attributes) -> ClientStep<'b> {
        let operation = Operation { path: Some(path.to_vec()), attributes, ..self.draft(kind, flags) };
        if self.tap.files.count() >= self.tap.limits.handles_max {
            return self.refuse(operation, Refusal::TooManyOpen);
        }
        self.tap.files.asked(operation.key, path, flags);
        let what = What::Open(operation.key);
        self.hold(operation, what)
    }

    fn close(self, handle: &[u8]) -> ClientStep<'b> {
        let Some(key) = self.tap.files.opened_by(handle) else {
            return self.stray(None);
        };
        self.tap.files.closing(handle);
        self.pass(What::Close(key))
    }

    fn read(self, handle: &[u8], offset: u64, length: u32) -> ClientStep<'b> {
        let key = match self.tap.files.opened_for(handle, Use::Read) {
            Ok(key) => key,
            Err(on) => return self.stray(on),
        };
        self.tap.files.reads(key, Some(offset));
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        self.pass(What::Transfer(key, Transfer::Read { offset, length }))
    }

    fn read_dir(self, handle: &[u8]) -> ClientStep<'b> {
        let key = match self.tap.files.opened_for(handle, Use::Entries) {
            Ok(key) => key,
            Err(on) => return self.stray(on),
        };
        self.tap.files.reads(key, None);
        self.pass(What::Transfer(key, Transfer::Entries))
    }

    fn write(self, handle: &[u8], offset: u64, data: &[u8]) -> ClientStep<'b> {
        let key = match self.tap.files.opened_for(handle, Use::Write) {
            Ok(key) => key,
            Err(on) => return self.stray(on),
        };
        self.tap.files.writes(key, offset, data);
        self.pass(What::Transfer(key, Transfer::Write { length: data.len() }))
    }

    fn copy(self, copy: CopyRange) -> ClientStep<'b> {
        // Even if it is denied: no digest is better than a wrong one.
        self.tap.files.writes_unseen(copy.to);
        let path = |key| self.tap.files.path(key).map(<[u8]>::to_vec);
        let (path, target) = (path(copy.from), path(copy.to));
        let on = Some(copy.from);
        self.operation(Kind::CopyData, |operation| Operation { path, target, on, copy: Some(copy), ..operation })
    }

    /// On a handle that is not open, or that `on` opened for something else.
    fn stray(self, on: Option<OperationKey>) -> ClientStep<'b> {
        let path = on.and_then(|key| self.tap.files.path(key)).map(<[u8]>::to_vec);
        let operation = Operation { path, on, ..self.draft(Kind::Stray, None) };
        self.refuse(operation, if on.is_some() { Refusal::NotFor } else { Refusal::NotOpen })
    }

    fn version_select(self, name: &[u8]) -> ClientStep<'b> {
        let operation = Operation { name: Some(name.to_vec()), ..self.draft(Kind::Extended, None) };
        self.refuse(operation, Refusal::Version)
    }

    /// An operation of one request.
    fn operation(self, kind: Kind, fill: impl FnOnce(Operation) -> Operation) -> ClientStep<'b> {
        if self.tap.looks == Looks::Count && kind.class(OpenFlags::default()) == Class::Look {
            self.tap.looked.sent += 1;
            return self.pass(What::Look(Answer::to(kind)));
        }
        let operation = fill(self.draft(kind, None));
        let what = What::Operation(operation.key, Answer::to(kind));
        self.hold(operation, what)
    }

    fn draft(&self, kind: Kind, flags: Option<OpenFlags>) -> Operation {
        Operation::new(OperationKey(self.tap.next), kind, flags)
    }

    fn pass(self, what: What) -> ClientStep<'b> {
        self.tap.requests.insert(self.id, Request { sent: Sent::Yes, what });
        ClientStep::Pass(self.frame)
    }

    fn hold(self, operation: Operation, what: What) -> ClientStep<'b> {
        self.tap.next += 1;
        self.tap.requests.insert(self.id, Request { sent: Sent::Not, what });
        let held = Held { id: self.id, key: operation.key, frame: Cow::Borrowed(self.frame) };
        ClientStep::Operation(held, Box::new(operation))
    }

    fn refuse(self, operation: Operation, refusal: Refusal) -> ClientStep<'b> {
        self.tap.next += 1;
        ClientStep::Refuse {
            consumed: self.frame.len(),
            operation: Box::new(operation),
            refusal,
            reply: packet::status(self.id, code::FAILURE, refusal.message()),
        }
    }
}
