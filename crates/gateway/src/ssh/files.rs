//! The subsystem `sftp`: each operation on files is a command of its own, decided and recorded before the host gets it.
//!
//! ```text
//! client ─▶ tap ─▶ operation ─▶ policy, record ─▶ staged, in order ─▶ host
//! client ◀─ tap ◀─ host          └─▶ outcome ─▶ record
//! ```
//!
//! Not for: SFTP itself (that is `wire::ssh::sftp`), the channel (that is `program`).
//!
//! Invariant: requests go to the host in the order in which the client sent them, each operation once its intent is where
//! the connection's durability wants it.

use std::collections::{HashMap, VecDeque};

use bytes::Bytes;
use model::{AbsentReason, Field, FileContent, Reason, StatementResult, Status};
use policy::Permit;
use store::{OutcomeDraft, Pending, RecordError, Recorded};
use wire::ssh::sftp::{ClientStep, End, Event, Held, Limits, Looks, OperationKey, Outcome, Tap, Violation};

use super::entries::{self, Asked};
use super::session::{Ruled, Session};

/// Bytes of a client's requests that are staged, above which no more are taken.
const STAGED_BYTES_MAX: usize = 1 << 20;

/// One channel with files.
pub(super) struct Files {
    tap: Tap,
    /// The start of a request.
    inbox: Vec<u8>,
    /// The start of an answer.
    outbox: Vec<u8>,
    staged: VecDeque<Staged>,
    staged_bytes: usize,
    /// What is left in `inbox` is no whole request: without more bytes nothing comes of it.
    stuck: bool,
    /// The client has been told of break-glass.
    told: bool,
    open: HashMap<OperationKey, Recorded>,
}

/// What goes to the host, in order.
enum Staged {
    Pass(Bytes),
    Operation { held: Held<'static>, permit: Permit, pending: Pending },
}

/// What comes of the client's bytes.
#[derive(Default)]
pub(super) struct Answers {
    /// Answers of the gateway's own, for the client.
    pub(super) packets: Vec<Bytes>,
    /// What is said beside them, where whoever sits at the client reads it.
    pub(super) said: Vec<String>,
}

/// Why files cannot be carried on.
#[derive(Debug, thiserror::Error)]
pub(super) enum FilesError {
    #[error(transparent)]
    Violation(#[from] Violation),
    #[error(transparent)]
    Record(#[from] RecordError),
}

/// What is next for the host.
pub(super) enum Next {
    /// Nothing.
    Nothing,
    /// These bytes, which need no decision.
    Pass(Bytes),
    /// An operation whose intent has to be safe first: see [`Files::recorded`].
    Wait(Waiting),
}

/// An operation on its way into the record.
pub(super) struct Waiting {
    held: Held<'static>,
    permit: Permit,
    pending: Pending,
}

impl Files {
    pub(super) fn new() -> Self {
        Self {
            tap: Tap::new(Limits::default(), Looks::Count),
            inbox: Vec::new(),
            outbox: Vec::new(),
            staged: VecDeque::new(),
            staged_bytes: 0,
            stuck: true,
            told: false,
            open: HashMap::new(),
        }
    }

    /// Whether more of the client's bytes can be taken.
    pub(super) fn has_room(&self) -> bool {
        self.staged_bytes + self.inbox.len() <= STAGED_BYTES_MAX
    }

    /// Takes bytes of the client: decides the operations in them, and stages what goes on.
    pub(super) fn client(&mut self, session: &Session, bytes: &[u8]) -> Result<Answers, FilesError> {
        self.inbox.extend_from_slice(bytes);
        let mut answers = Answers::default();
        let mut taken = 0;
        self.stuck = true;
        while let Some(rest) = self.inbox.get(taken..)
            && !rest.is_empty()
        {
            match self.tap.client(rest)? {
                ClientStep::NeedMore => break,
                ClientStep::Wait => {
                    self.stuck = false;
                    break;
                }
                ClientStep::Greet { consumed, bytes } => {
                    taken += consumed;
                    self.staged_bytes += bytes.len();
                    self.staged.push_back(Staged::Pass(Bytes::from_static(bytes)));
                }
                ClientStep::Pass(frame) => {
                    taken += frame.len();
                    self.staged_bytes += frame.len();
                    self.staged.push_back(Staged::Pass(Bytes::copy_from_slice(frame)));
                }
                ClientStep::Operation(held, operation) => {
                    taken += held.consumed();
                    let held = held.into_owned();
                    match session.decide(&Asked::file(&operation))? {
                        Ruled::Goes(permit, pending, told) => {
                            // Once for a channel: its client may do thousands of operations in it.
                            if let Some(told) = told.filter(|_| !self.told) {
                                self.told = true;
                                answers.said.push(told);
                            }
                            self.staged_bytes += held.consumed();
                            self.staged.push_back(Staged::Operation { held, permit, pending });
                        }
                        Ruled::Refused(text) => answers.deny(self.tap.deny(held, &text), text),
                        Ruled::Held(denial, said) => {
                            let asked = Asked::file(&operation);
                            let text = format!(
                                "OnRecord refused this operation: somebody must approve it (rule {}), and operations on files cannot wait",
                                denial.rule
                            );
                            let text = session.refuse(&asked, &said, &text)?;
                            answers.deny(self.tap.deny(held, &text), text);
                        }
                    }
                }
                ClientStep::Refuse { consumed, operation, refusal, reply } => {
                    taken += consumed;
                    session.refuse_by(&Asked::file(&operation), entries::rule(refusal), refusal.message())?;
                    answers.packets.push(reply.into());
                }
            }
        }
        self.inbox.drain(..taken);
        Ok(answers)
    }

    /// Takes bytes of the host. Gives what passes on to the client, in whole packets; the outcomes in it are written.
    pub(super) fn server(&mut self, session: &Session, bytes: &[u8]) -> Result<Bytes, FilesError> {
        self.outbox.extend_from_slice(bytes);
        let mut taken = 0;
        while let Some(rest) = self.outbox.get(taken..)
            && !rest.is_empty()
        {
            let step = self.tap.server(rest)?;
            if step.pass == 0 {
                break;
            }
            taken += step.pass;
            if let Some(event) = step.event {
                self.ended(session, &event)?;
            }
        }
        let passed = Bytes::copy_from_slice(self.outbox.get(..taken).unwrap_or_default());
        self.outbox.drain(..taken);
        Ok(passed)
    }

    /// What is next for the host.
    pub(super) fn next(&mut self) -> Next {
        match self.staged.pop_front() {
            None => Next::Nothing,
            Some(Staged::Pass(frame)) => {
                self.staged_bytes -= frame.len();
                Next::Pass(frame)
            }
            Some(Staged::Operation { held, permit, pending }) => Next::Wait(Waiting { held, permit, pending }),
        }
    }

    /// An operation that is on the record: its bytes, and what lets them go.
    pub(super) fn forward(&mut self, held: Held<'static>, recorded: Recorded) -> Bytes {
        self.staged_bytes = self.staged_bytes.saturating_sub(held.consumed());
        self.open.insert(held.key(), recorded);
        self.tap.forward(held).into_owned().into()
    }

    /// Whether all that was taken of the client has gone to the host, or cannot go.
    pub(super) fn is_drained(&self) -> bool {
        self.staged.is_empty() && self.stuck
    }

    /// An operation that is on the record and was not sent.
    pub(super) fn never_went(
        &mut self,
        session: &Session,
        held: &Held<'static>,
        recorded: Recorded,
    ) -> Result<(), RecordError> {
        self.staged_bytes = self.staged_bytes.saturating_sub(held.consumed());
        session.log().outcome(recorded, &entries::not_forwarded()).map(drop)
    }

    fn ended(&mut self, session: &Session, event: &Event) -> Result<(), RecordError> {
        let Some(recorded) = self.open.remove(&event.key) else { return Ok(()) };
        let mut log = session.log();
        let draft = outcome(&event.outcome, |content| log.seal(content));
        log.outcome(recorded, &draft)?;
        Ok(())
    }

    /// The channel has ended: so has every operation. Gives how many requests only looked.
    pub(super) fn finish(&mut self, session: &Session) -> Result<Vec<StatementResult>, RecordError> {
        for staged in std::mem::take(&mut self.staged) {
            if let Staged::Operation { pending, .. } = staged {
                session.log().withdraw(pending, &entries::not_forwarded())?;
            }
        }
        for event in self.tap.abandon() {
            self.ended(session, &event)?;
        }
        let looked = self.tap.looked();
        let counted = [("LOOKED", looked.sent), ("FAILED", looked.failed)];
        let counted = counted.into_iter().filter(|(_, count)| *count > 0);
        Ok(counted.map(|(tag, count)| StatementResult { tag: tag.to_owned(), rows: Some(count) }).collect())
    }
}

impl Waiting {
    /// Waits until the operation's intent is safe.
    pub(super) async fn recorded(self, session: &Session) -> Result<(Held<'static>, Permit, Recorded), RecordError> {
        let Self { held, permit, pending } = self;
        let ready = pending.position();
        Ok((held, permit, session.recorded(pending, ready).await?))
    }
}

impl Answers {
    fn deny(&mut self, packet: Vec<u8>, text: String) {
        self.packets.push(packet.into());
        self.said.push(text);
    }
}

/// The outcome of an operation on files.
fn outcome<'a>(ended: &'a Outcome, mut seal: impl FnMut(&[u8]) -> Field) -> OutcomeDraft<'a> {
    let answered = match &ended.end {
        End::Answered(status) => Some(status),
        End::NotClosed | End::Unanswered | End::NotSent => None,
    };
    // A read or write that failed says more than the close behind it.
    let said = ended.failed.as_ref().or(answered).filter(|status| status.code != 0);
    let (status, reason) = match (&ended.end, said) {
        (End::Answered(_), None) => (Status::Ok, None),
        (End::Answered(_), Some(_)) => (Status::Error, None),
        (End::NotClosed | End::Unanswered, _) => (Status::Unknown, Some(Reason::SessionEnded)),
        (End::NotSent, _) => (Status::Skipped, Some(Reason::NotForwarded)),
    };
    let (read, written) = (&ended.read, &ended.written);
    // What was written is what the operation was for; of what was read only where nothing was written.
    let digest = if written.bytes > 0 { written.digest } else { read.digest };
    let digest = digest.filter(|digest| digest.offset == 0);
    let file = (read.bytes > 0 || written.bytes > 0).then(|| FileContent {
        read: read.bytes,
        written: written.bytes,
        sha256: match digest {
            Some(digest) => seal(crate::hex(&digest.sha256).as_bytes()),
            None => Field::Absent(AbsentReason::None),
        },
    });
    OutcomeDraft {
        reason,
        code: said.and_then(|status| status.name()),
        message: match said {
            Some(status) if !status.message.is_empty() => seal(status.message.as_bytes()),
            _ => Field::NONE,
        },
        rows: ended.entries,
        bytes_up: written.bytes,
        bytes_down: read.bytes,
        executed: ended.end != End::NotSent,
        file,
        ..OutcomeDraft::new(status)
    }
}
