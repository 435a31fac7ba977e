//! Commands and sessions as people ask for them: intents joined with their outcomes, content opened.
//!
//! Memory is bounded by what is open at a time in the log, not by its length.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use model::{
    Body, BreakGlassId, Claim, CommandId, Copy, Digest, Durability, Effective, Effects, Entry, Fidelity, Identity,
    Intent, Kind, Label, Outcome, Oversight, ProofMethod, Reason, SessionClose, SessionEnd, SessionId, SessionOpen,
    StatementResult, Status, Time, Transaction, Transcript, UpstreamSecurity, Verdict, Via, Who, comment_claims,
};

use crate::error::StoreError;
use crate::reader::{Entries, Opened, Reader, Stored};

/// Which commands or sessions are wanted: all that is set must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// The whole name of an identity, or the part after its kind.
    pub identity: Option<String>,
    /// The name of a connection.
    pub connection: Option<String>,
    /// A session.
    pub session: Option<SessionId>,
    /// How the command ended.
    pub status: Option<CommandStatus>,
    /// What was decided on the command.
    pub verdict: Option<Verdict>,
    /// The break-glass under which it was sent.
    pub break_glass: Option<BreakGlassId>,
    /// Not before this wall clock time, in microseconds since 1970.
    pub since_us: Option<i64>,
    /// Before this wall clock time, in microseconds since 1970.
    pub until_us: Option<i64>,
    /// Text that the command's text contains, in any case of ASCII letters.
    pub contains: Option<String>,
    /// A claim with this name whose value contains this text, in any case of ASCII letters: of the session, or of the
    /// comment of the command's text.
    pub claim: Option<(String, String)>,
}

/// How a command ended, or that it has not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CommandStatus {
    /// It has no outcome yet.
    Pending,
    /// It ended so.
    Ended(Status),
}

impl CommandStatus {
    /// The text of the status.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Ended(status) => status.as_str(),
        }
    }

    /// The status of this text.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        if text == "pending" { Some(Self::Pending) } else { Status::parse(text).map(Self::Ended) }
    }
}

/// A command: what was asked for, and what became of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommandView {
    /// The command.
    pub id: CommandId,
    /// The index of its intent.
    pub index: u64,
    /// When the intent was recorded.
    pub time: Time,
    /// Who sent it.
    pub who: Who,
    /// How that was proven when the session began; none if that is not in what was read.
    pub proof: Option<ProofMethod>,
    /// Over which connection.
    pub connection: String,
    /// To which database, where there are any.
    pub database: Option<Label>,
    /// By which message.
    pub via: Via,
    /// Its text.
    pub text: Opened,
    /// Its parameters: a JSON array.
    pub parameters: Opened,
    /// The prepared statement's name.
    pub statement: Option<Label>,
    /// The portal's name.
    pub portal: Option<Label>,
    /// The state of the transaction, where there are any.
    pub transaction: Option<Transaction>,
    /// How exactly it is known.
    pub fidelity: Fidelity,
    /// What it does, as far as that was analysed.
    pub effects: Effects,
    /// The decision.
    pub verdict: Verdict,
    /// The rules that matched.
    pub rules: Vec<String>,
    /// The policy in force, if there was one.
    pub policy: Option<Digest>,
    /// What a policy said of it that only observed, or that break-glass lifted, if that was not the decision.
    pub observed: Option<Verdict>,
    /// The command under whose approval it waits or runs, if it is not its own.
    pub approval: Option<CommandId>,
    /// The break-glass that its sender had opened on the connection.
    pub break_glass: Option<BreakGlassId>,
    /// The durability in force.
    pub durability: Durability,
    /// What was claimed and nobody checked: by the session when it began, and in the text's comment.
    pub claims: Vec<Claim>,
    /// Said only where the way to the server is open to others.
    pub upstream: Option<UpstreamSecurity>,
    /// What became of it; none yet if it is pending.
    pub outcome: Option<OutcomeView>,
}

/// What went in and out of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileView {
    /// Bytes that were read.
    pub read: u64,
    /// Bytes that were written.
    pub written: u64,
    /// SHA-256 of the content in hexadecimal digits, if it went as a whole and in order.
    pub sha256: Opened,
}

/// What became of a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutcomeView {
    /// The index of the outcome.
    pub index: u64,
    /// When it was recorded.
    pub time: Time,
    /// How it ended.
    pub status: Status,
    /// Why.
    pub reason: Option<Reason>,
    /// SQLSTATE.
    pub code: Option<String>,
    /// The server's message.
    pub message: Opened,
    /// The results.
    pub results: Vec<StatementResult>,
    /// How many results there were in all.
    pub results_count: u64,
    /// Rows that were sent to the client.
    pub rows: u64,
    /// Bytes from the client.
    pub bytes_up: u64,
    /// Bytes to the client.
    pub bytes_down: u64,
    /// How long it took.
    pub duration_us: u64,
    /// What a COPY moved.
    pub copy: Option<Copy>,
    /// How many times rows were fetched.
    pub fetches: u32,
    /// Whether it ended before all rows were fetched.
    pub suspended: bool,
    /// Whether its effects lasted.
    pub effective: Effective,
    /// How many notices the server sent.
    pub notices: u32,
    /// Whether it was executed at all.
    pub executed: bool,
    /// What went over its streams, if it is a program.
    pub transcript: Option<Transcript>,
    /// What went in and out of the file, if it is an operation on an open one.
    pub file: Option<FileView>,
}

impl CommandView {
    /// How it ended, or that it has not.
    #[must_use]
    pub fn status(&self) -> CommandStatus {
        self.outcome.as_ref().map_or(CommandStatus::Pending, |outcome| CommandStatus::Ended(outcome.status))
    }
}

/// A session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionView {
    /// The session.
    pub id: SessionId,
    /// The index of its first entry.
    pub index: u64,
    /// When it began.
    pub time: Time,
    /// What is known of it.
    pub open: SessionOpen,
    /// Who it is.
    pub identity: Identity,
    /// How many intents it has so far.
    pub intents: u64,
    /// How many outcomes it has so far.
    pub outcomes: u64,
    /// How it ended; none if it is open.
    pub close: Option<CloseView>,
}

/// How a session ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CloseView {
    /// When.
    pub time: Time,
    /// Why.
    pub reason: SessionEnd,
    /// Bytes from the client.
    pub bytes_up: u64,
    /// Bytes to the client.
    pub bytes_down: u64,
}

/// As [`commands`], of those whose intents are between these entries; the log is read no further than to their outcomes.
/// What a session said when it began is known only if that is there, too.
#[must_use]
pub fn commands_between(reader: &Reader, filter: Filter, first: u64, last: u64) -> Commands {
    Commands { entries: reader.entries(first), last, ..commands(reader, filter) }
}

/// The commands that the filter wants, from the beginning of the log, each when its outcome is known, in the order of
/// their intents; those that have none yet come last. Only when more than a few thousand commands wait behind one that
/// runs long, they are not held back for it.
#[must_use]
pub fn commands(reader: &Reader, filter: Filter) -> Commands {
    Commands {
        reader: reader.clone(),
        filter,
        entries: reader.entries(0),
        next: 0,
        last: u64::MAX,
        left: usize::MAX,
        held: VecDeque::new(),
        begun: HashMap::new(),
        late: HashMap::new(),
    }
}

/// An iterator over commands; see [`commands`].
pub struct Commands {
    reader: Reader,
    filter: Filter,
    entries: Entries,
    next: u64,
    /// The last entry that can be an intent that is wanted.
    last: u64,
    /// How many more intents are wanted.
    left: usize,
    held: VecDeque<Held>,
    /// What each open session said when it began.
    begun: HashMap<SessionId, Arc<Begun>>,
    /// Commands that are no longer waited for.
    late: HashMap<CommandId, Late>,
}

/// A command that others do not wait for any more.
struct Late {
    command: Waiting,
    /// Whether it was given as pending.
    given: bool,
}

struct Held {
    command: Waiting,
    outcome: Option<(u64, Time, Outcome)>,
}

/// A command, as its intent says it.
#[derive(Clone)]
struct Waiting {
    index: u64,
    time: Time,
    intent: Intent,
    begun: Arc<Begun>,
}

/// What is kept of a session's first entry for the commands of the session.
#[derive(Default)]
struct Begun {
    claims: Vec<Claim>,
    proof: Option<ProofMethod>,
}

const HELD_MAX: usize = 4096;

impl Commands {
    /// The same, but of only so many intents, at least one: those that come first. The next ones are those behind the
    /// largest index that was given.
    #[must_use]
    pub fn first(self, count: usize) -> Self {
        Self { left: count.max(1), ..self }
    }

    /// What was appended since the end was reached: for following a growing log. Commands that were given as pending
    /// are given again when they end.
    pub fn again(&mut self) {
        self.entries = self.reader.entries(self.next);
    }

    fn take(&mut self, stored: Stored) -> Option<Held> {
        self.next = stored.index + 1;
        let time = stored.entry.time;
        match stored.entry.body {
            Body::SessionOpen(open) => {
                self.reader.learn(&open);
                let begun = Begun { claims: open.claims, proof: Some(open.identity.proof.method) };
                self.begun.insert(open.link.session, Arc::new(begun));
                None
            }
            Body::Intent(intent) if stored.index <= self.last && self.filter.wants_intent(time, &intent) => {
                let begun = self.begun.get(&intent.link.session).cloned().unwrap_or_default();
                let command = Waiting { index: stored.index, time, intent, begun };
                self.held.push_back(Held { command, outcome: None });
                self.left = self.left.saturating_sub(1);
                if self.left == 0 {
                    self.last = stored.index;
                }
                if self.held.len() > HELD_MAX {
                    let first = self.held.pop_front()?;
                    match first.outcome {
                        Some(_) => return Some(first),
                        None => self.late(first.command, false),
                    };
                }
                None
            }
            Body::Outcome(outcome) => {
                let of = outcome.of;
                let ended = (stored.index, time, outcome);
                if let Some(held) = self.held.iter_mut().rev().find(|held| held.command.intent.command == of) {
                    held.outcome = Some(ended);
                    return None;
                }
                Some(Held { command: self.late.remove(&of)?.command, outcome: Some(ended) })
            }
            Body::SessionClose(close) => {
                self.begun.remove(&close.link.session);
                None
            }
            _ => None,
        }
    }

    fn late(&mut self, command: Waiting, given: bool) {
        self.late.insert(command.intent.command, Late { command, given });
    }

    /// The first of those that others do not wait for, and that was not given yet.
    fn overtaken(&mut self) -> Option<Waiting> {
        let late = self.late.values_mut().filter(|late| !late.given).min_by_key(|late| late.command.index)?;
        late.given = true;
        Some(late.command.clone())
    }

    /// The next entry, unless none can say more.
    fn more(&mut self) -> Option<Result<Stored, StoreError>> {
        let all = self.next > self.last && self.held.is_empty() && self.late.is_empty();
        if all { None } else { self.entries.next() }
    }

    fn ready(&mut self) -> Option<Held> {
        if self.held.front()?.outcome.is_some() { self.held.pop_front() } else { None }
    }

    fn view(&self, held: Held) -> Result<Option<CommandView>, StoreError> {
        let Held { command: Waiting { index, time, intent, begun }, outcome } = held;
        // Before any content is opened.
        let status = outcome.as_ref().map_or(CommandStatus::Pending, |(_, _, o)| CommandStatus::Ended(o.status));
        if self.filter.status.is_some_and(|wanted| wanted != status) {
            return Ok(None);
        }
        let session = intent.link.session;
        let text = self.reader.open_field(session, &intent.text)?;
        let mut claims = begun.claims.clone();
        if let Opened::Bytes(text) = &text {
            claims.extend(comment_claims(text));
        }
        let view = CommandView {
            id: intent.command,
            index,
            time,
            text,
            claims,
            proof: begun.proof,
            upstream: intent.upstream,
            parameters: self.reader.open_field(session, &intent.parameters)?,
            who: intent.who,
            connection: intent.connection,
            database: intent.database,
            via: intent.via,
            statement: intent.statement,
            portal: intent.portal,
            transaction: intent.transaction,
            fidelity: intent.fidelity,
            effects: intent.effects,
            verdict: intent.verdict,
            rules: intent.rules,
            policy: intent.policy,
            observed: intent.observed,
            approval: intent.approval,
            break_glass: intent.break_glass,
            durability: intent.durability,
            outcome: outcome.map(|(index, time, o)| self.outcome(session, index, time, o)).transpose()?,
        };
        Ok(self.filter.wants(&view).then_some(view))
    }

    fn outcome(&self, session: SessionId, index: u64, time: Time, o: Outcome) -> Result<OutcomeView, StoreError> {
        Ok(OutcomeView {
            index,
            time,
            status: o.status,
            reason: o.reason,
            message: self.reader.open_field(session, &o.message)?,
            code: o.code,
            results: o.results,
            results_count: o.results_count,
            rows: o.rows,
            bytes_up: o.bytes_up,
            bytes_down: o.bytes_down,
            duration_us: o.duration_us,
            copy: o.copy,
            fetches: o.fetches,
            suspended: o.suspended,
            effective: o.effective,
            notices: o.notices,
            executed: o.executed,
            transcript: o.transcript,
            file: match o.file {
                Some(file) => Some(FileView {
                    read: file.read,
                    written: file.written,
                    sha256: self.reader.open_field(session, &file.sha256)?,
                }),
                None => None,
            },
        })
    }
}

impl Iterator for Commands {
    type Item = Result<CommandView, StoreError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let held = match self.ready() {
                Some(held) => held,
                None => match self.more() {
                    Some(Err(error)) => return Some(Err(error)),
                    Some(Ok(stored)) => match self.take(stored) {
                        Some(held) => held,
                        None => continue,
                    },
                    // The end: what is still pending is given, and kept for when it ends.
                    None => {
                        if let Some(command) = self.overtaken() {
                            let view = self.view(Held { command, outcome: None });
                            match view {
                                Ok(None) => continue,
                                view => return view.transpose(),
                            }
                        }
                        let command = match self.held.pop_front() {
                            Some(Held { command, outcome: None }) => command,
                            Some(held) => match self.view(held) {
                                Ok(None) => continue,
                                Ok(Some(view)) => return Some(Ok(view)),
                                Err(error) => return Some(Err(error)),
                            },
                            None => return None,
                        };
                        self.late(command.clone(), true);
                        Held { command, outcome: None }
                    }
                },
            };
            match self.view(held) {
                Ok(None) => {}
                Ok(Some(view)) => return Some(Ok(view)),
                Err(error) => return Some(Err(error)),
            }
        }
    }
}

impl Filter {
    fn wants_intent(&self, time: Time, intent: &Intent) -> bool {
        self.wants_session(intent.link.session)
            && self.wants_time(time)
            && self.wants_identity(intent.who.name.as_str(), intent.who.name.name())
            && self.wants_connection(&intent.connection)
            && self.verdict.is_none_or(|verdict| verdict == intent.verdict)
            && self.break_glass.is_none_or(|id| intent.break_glass == Some(id))
    }

    fn wants(&self, view: &CommandView) -> bool {
        let contained = |needle: &str| match &view.text {
            Opened::Bytes(text) | Opened::Blob { head: text, .. } => contains(text, needle.as_bytes()),
            Opened::Absent(_) | Opened::Erased(_) | Opened::NoKey | Opened::Damaged => false,
        };
        let claimed = |(name, value): &(String, String)| {
            let is = |claim: &Claim| {
                claim.name.to_string().eq_ignore_ascii_case(name)
                    && contains(claim.value.to_string().as_bytes(), value.as_bytes())
            };
            view.claims.iter().any(is)
        };
        self.contains.as_deref().is_none_or(contained) && self.claim.as_ref().is_none_or(claimed)
    }

    fn wants_session(&self, session: SessionId) -> bool {
        self.session.is_none_or(|wanted| wanted == session)
    }

    fn wants_time(&self, time: Time) -> bool {
        self.since_us.is_none_or(|since| time.wall_us >= since)
            && self.until_us.is_none_or(|until| time.wall_us < until)
    }

    fn wants_identity(&self, whole: &str, name: &str) -> bool {
        self.identity.as_deref().is_none_or(|wanted| wanted == whole || wanted == name)
    }

    fn wants_connection(&self, connection: &str) -> bool {
        self.connection.as_deref().is_none_or(|wanted| wanted == connection)
    }
}

fn contains(text: &[u8], needle: &[u8]) -> bool {
    needle.is_empty() || text.windows(needle.len()).any(|window| window.eq_ignore_ascii_case(needle))
}

/// The sessions that the filter wants (`status` and `contains` are about commands and do not count), in the order in
/// which they began. Sessions that are still open have no close.
///
/// # Errors
/// The log cannot be read.
pub fn sessions(reader: &Reader, filter: &Filter) -> Result<Vec<SessionView>, StoreError> {
    let mut views: Vec<SessionView> = Vec::new();
    let mut open: HashMap<SessionId, usize> = HashMap::new();
    for stored in reader.entries(0) {
        let Stored { index, entry, .. } = stored?;
        let Some(id) = entry.body.link().map(|link| link.session) else {
            continue;
        };
        let kind = entry.body.kind();
        if let Body::SessionOpen(begun) = entry.body {
            let name = &begun.identity.name;
            if filter.wants_session(id)
                && filter.wants_time(entry.time)
                && filter.wants_identity(name.as_str(), name.name())
                && filter.wants_connection(&begun.connection)
            {
                open.insert(id, views.len());
                views.push(SessionView {
                    id,
                    index,
                    time: entry.time,
                    identity: begun.identity.clone(),
                    open: begun,
                    intents: 0,
                    outcomes: 0,
                    close: None,
                });
            }
            continue;
        }
        let Some(view) = open.get(&id).and_then(|at| views.get_mut(*at)) else {
            continue;
        };
        match (kind, entry.body) {
            (Kind::Intent, _) => view.intents += 1,
            (Kind::Outcome, _) => view.outcomes += 1,
            (_, Body::SessionClose(SessionClose { reason, bytes_up, bytes_down, .. })) => {
                view.close = Some(CloseView { time: entry.time, reason, bytes_up, bytes_down });
                open.remove(&id);
            }
            _ => {}
        }
    }
    Ok(views)
}

/// Who watched a session while it went on, or ended it, in order.
///
/// # Errors
/// The log cannot be read.
pub fn oversight(reader: &Reader, session: SessionId) -> Result<Vec<(Time, Oversight)>, StoreError> {
    let of = |stored: Result<Stored, StoreError>| match stored {
        Ok(Stored { entry: Entry { time, body: Body::Oversight(entry) }, .. }) if entry.session == session => {
            Some(Ok((time, entry)))
        }
        Ok(_) => None,
        Err(error) => Some(Err(error)),
    };
    reader.entries(0).filter_map(of).collect()
}
