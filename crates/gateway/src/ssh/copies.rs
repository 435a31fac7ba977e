//! The old `scp`: which files go over a command that plainly is one, each put on the record once it has gone.
//!
//! What may run was decided over the command, whose bytes and end are recorded as any other's. This is more than that and
//! holds nothing up: at anything odd it ends, and the command's outcome says so.

use model::{AbsentReason, Field, FileContent, StatementResult, Status, Via};
use store::{IntentDraft, OutcomeDraft, RecordError};
use wire::ssh::scp::{Event, File, Role, Scp, Tap};

use super::entries::Asked;
use super::session::Session;

/// Files of one command that are recorded one by one; all are counted.
const FILES_MAX: u64 = 10_000;

/// Where a file goes.
#[derive(Clone, Copy)]
enum Towards {
    Host,
    Client,
}

/// The files that go over one command.
pub(super) struct Copies {
    tap: Tap,
    learnt: Learnt,
}

/// What the tap has said of them.
struct Learnt {
    scp: Scp,
    files: u64,
    lost: bool,
}

impl Copies {
    /// Of a command, if it plainly is such an `scp`.
    pub(super) fn of(asked: &Asked) -> Option<Self> {
        let scp = (asked.via == Via::Exec).then(|| Scp::of_command(&asked.text))??;
        Some(Self { tap: Tap::new(scp.role), learnt: Learnt { scp, files: 0, lost: false } })
    }

    /// Takes bytes of the client.
    pub(super) fn client(&mut self, session: &Session, bytes: &[u8]) -> Result<(), RecordError> {
        let Self { tap, learnt } = self;
        learnt.all(session, |each| tap.client(bytes, each))
    }

    /// Takes bytes of the host.
    pub(super) fn server(&mut self, session: &Session, bytes: &[u8]) -> Result<(), RecordError> {
        let Self { tap, learnt } = self;
        learnt.all(session, |each| tap.server(bytes, each))
    }

    /// The channel has ended. Gives how many files there were, and whether the tap lost its way.
    pub(super) fn finish(&mut self, session: &Session) -> Result<Vec<StatementResult>, RecordError> {
        let Self { tap, learnt } = self;
        learnt.all(session, |each| tap.finish(each))?;
        let files = StatementResult { tag: "FILES".to_owned(), rows: Some(learnt.files) };
        let lost = learnt.lost.then(|| StatementResult { tag: "LOST".to_owned(), rows: None });
        Ok(std::iter::once(files).chain(lost).collect())
    }
}

impl Learnt {
    /// Takes what the tap says, one by one: a packet may hold thousands of files. After what cannot be recorded, nothing.
    fn all(&mut self, session: &Session, say: impl FnOnce(&mut dyn FnMut(Event))) -> Result<(), RecordError> {
        let mut done = Ok(());
        say(&mut |event| {
            if done.is_ok() {
                done = self.one(session, event);
            }
        });
        done
    }

    fn one(&mut self, session: &Session, event: Event) -> Result<(), RecordError> {
        match event {
            Event::File(file) => {
                self.files += 1;
                if self.files <= FILES_MAX {
                    self.record(session, &file)?;
                }
            }
            Event::Lost { .. } => self.lost = true,
            Event::Complaint { .. } | Event::Directory(_) => {}
        }
        Ok(())
    }

    fn record(&self, session: &Session, file: &File) -> Result<(), RecordError> {
        let (asked, sent) = match self.scp.role {
            Role::Sink => (Asked::copy("write", &self.scp.path, " <- ", file), Towards::Host),
            Role::Source => (Asked::copy("read", &self.scp.path, " -> ", file), Towards::Client),
        };
        Self::settle(session, &asked, sent, file)
    }

    fn settle(session: &Session, asked: &Asked, sent: Towards, file: &File) -> Result<(), RecordError> {
        let mut log = session.log();
        let text = log.seal(&asked.text);
        let parameters = asked.parameters.as_ref().map_or(Field::NONE, |parameters| log.seal(parameters));
        let sha256 = match file.sha256 {
            Some(digest) => log.seal(crate::hex(&digest).as_bytes()),
            None => Field::Absent(AbsentReason::None),
        };
        let answers = [&file.source, &file.sink].into_iter().flatten();
        let complaint = answers.filter(|answer| answer.code != 0).map(|answer| &answer.message).next();
        let status = match (complaint, &file.sink) {
            (Some(_), _) => Status::Error,
            (None, Some(_)) => Status::Ok,
            (None, None) => Status::Unknown,
        };
        let (read, written) = match sent {
            Towards::Host => (0, file.bytes),
            Towards::Client => (file.bytes, 0),
        };
        let outcome = OutcomeDraft {
            reason: (status == Status::Unknown).then_some(model::Reason::SessionEnded),
            message: complaint.map_or(Field::NONE, |text| log.seal(text)),
            bytes_up: written,
            bytes_down: read,
            executed: true,
            file: Some(FileContent { read, written, sha256 }),
            ..OutcomeDraft::new(status)
        };
        drop(log);
        session.marked(|break_glass| {
            let intent = IntentDraft {
                effects: Some(&asked.facts),
                break_glass,
                bytes: file.bytes,
                ..IntentDraft::new(asked.via, &text, &parameters)
            };
            session.log().settled(&intent, &outcome).map(drop)
        })
    }
}
