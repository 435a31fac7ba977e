//! The lines that a shell runs, as far as its terminal shows them: each a command of its own, recorded as it is seen.
//!
//! The shell itself was decided over, recorded and started as one command. Its lines are not forwarded by anybody but seen
//! to run, so what is said here always comes after the fact. How a line is known is its fidelity.

use bytes::Bytes;
use model::{CommandId, Field, Reason, StatementResult, Status};
use store::{OutcomeDraft, Pending, RecordError};
use wire::ssh::terminal::{Event, Seen, Tap};

use super::entries::{self, Asked};
use super::program::Exit;
use super::session::Session;

/// Lines of one shell: more are made by no person, and each is an entry.
const LINES_MAX: u64 = 100_000;

/// A line that was seen.
pub(super) struct Line {
    pub(super) text: Option<Vec<u8>>,
    pub(super) directory: Option<Vec<u8>>,
    pub(super) seen: Seen,
}

/// The lines of one shell.
pub(super) struct Lines {
    tap: Tap,
    shell: CommandId,
    /// The line that runs.
    running: Option<Pending>,
    count: u64,
}

/// What the host showed.
pub(super) struct Shown {
    /// What of it is for the client.
    pub(super) bytes: Bytes,
    /// Why the terminal must end, if it must, and in words.
    pub(super) ends: Option<Ends>,
}

/// Why a terminal must end, and in words.
pub(super) type Ends = (Reason, String);

impl Lines {
    /// Of the shell of this command, which marks its lines with `nonce`, or not if that is empty.
    pub(super) fn new(shell: CommandId, nonce: &[u8], [columns, rows]: [u32; 2]) -> Self {
        Self { tap: Tap::new(nonce, columns, rows), shell, running: None, count: 0 }
    }

    /// Takes bytes of the client.
    pub(super) fn client(&mut self, bytes: &[u8]) {
        self.tap.client(bytes);
    }

    /// The terminal has another size.
    pub(super) fn resize(&mut self, [columns, rows]: [u32; 2]) {
        self.tap.resize(columns, rows);
    }

    /// Takes bytes of the host.
    pub(super) fn host(&mut self, session: &Session, bytes: &[u8]) -> Result<Shown, RecordError> {
        let (mut shown, mut events) = (Vec::with_capacity(bytes.len()), Vec::new());
        self.tap.host(bytes, &mut shown, |event| events.push(event));
        let mut ends = None;
        for event in events {
            ends = ends.or(self.learn(session, event)?);
        }
        Ok(Shown { bytes: shown.into(), ends })
    }

    /// The shell is over: with it, what ran last. A line that ends the shell has its exit status. `unseen` is why there is
    /// none. Gives how many lines there were, and what is still for the client: the beginning of what might have been a mark.
    pub(super) fn finish(
        &mut self,
        session: &Session,
        exit: Option<&Exit>,
        unseen: Option<Reason>,
    ) -> Result<(Vec<StatementResult>, Vec<u8>), RecordError> {
        let mut events = Vec::new();
        let held = self.tap.finish(|event| events.push(event));
        for event in events {
            self.learn(session, event)?;
        }
        if let Some(running) = self.running.take() {
            let code = exit.map(Exit::code);
            let unseen = unseen.unwrap_or(Reason::SessionEnded);
            let draft = match exit {
                Some(exit) => {
                    OutcomeDraft { code: code.as_deref(), executed: true, ..OutcomeDraft::new(exit.status()) }
                }
                None => entries::unknown(unseen),
            };
            session.log().withdraw(running, &draft)?;
        }
        Ok((vec![StatementResult { tag: "LINES".to_owned(), rows: Some(self.count) }], held))
    }

    /// Records what was seen. Gives why the terminal must end, if it must.
    fn learn(&mut self, session: &Session, event: Event) -> Result<Option<Ends>, RecordError> {
        match event {
            Event::Line { text, directory, seen } => self.begin(session, Line { text, directory, seen }),
            Event::Ended { status, pipeline } => {
                let Some(running) = self.running.take() else { return Ok(None) };
                let code = status.map(|status| status.to_string());
                let part = |status: &u32| StatementResult { tag: format!("PIPE {status}"), rows: None };
                let parts: Vec<_> = pipeline.iter().map(part).collect();
                let ended = match status {
                    Some(0) => OutcomeDraft::new(Status::Ok),
                    Some(_) => OutcomeDraft::new(Status::Error),
                    None => entries::unknown(Reason::NotSeen),
                };
                let draft = OutcomeDraft { code: code.as_deref(), executed: true, results: &parts, ..ended };
                session.log().withdraw(running, &draft)?;
                Ok(None)
            }
        }
    }

    fn begin(&mut self, session: &Session, line: Line) -> Result<Option<Ends>, RecordError> {
        // The shell goes on, so what ran before is over; nobody said how.
        if let Some(before) = self.running.take() {
            session.log().withdraw(before, &entries::unknown(Reason::NotSeen))?;
        }
        self.count += 1;
        let marked = matches!(line.seen, Seen::Marked | Seen::Read);
        let (pending, why) = session.saw(&Asked::line(self.shell.ordinal, line))?;
        let too_many = || format!("OnRecord ends this terminal: {LINES_MAX} lines ran in it");
        let ruled = why.map(|why| (Reason::Policy, why));
        let ends = ruled.or_else(|| (self.count >= LINES_MAX).then(|| (Reason::Violation, too_many())));
        let Some((reason, why)) = ends else {
            match marked {
                true => self.running = Some(pending),
                false => drop(session.log().withdraw(pending, &entries::unknown(Reason::NotSeen))?),
            }
            return Ok(None);
        };
        let command = pending.command();
        let text = format!("{why}\r\nIt had begun to run. The terminal ends here. The record has it as {command}.");
        let message: Field = session.log().seal(text.as_bytes());
        session.log().withdraw(pending, &OutcomeDraft { message, ..entries::unknown(reason) })?;
        Ok(Some((reason, text)))
    }
}
