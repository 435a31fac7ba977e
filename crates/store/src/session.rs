//! One session's part of the record: it seals, numbers and links the session's entries and appends them.
//!
//! Invariants: the session's entries are numbered without gaps and each names the hash of the one before; every
//! intent gets exactly one outcome before the session's last entry, whatever happens to the session's task.

use std::sync::Arc;

use ledger::{Frontier, leaf_hash};
use model::seal::{SessionKey, seal};
use model::{
    AbsentReason, Body, BreakGlassId, Carried, Claim, CommandId, Copy, Digest, Durability, Effective, Effects, Entry,
    Facts, Fidelity, Field, FileContent, Identity, Intent, Label, Link, Outcome, RESULTS_MAX, Reason, SessionClose,
    SessionEnd, SessionId, SessionOpen, StatementResult, Status, Time, Transaction, Transcript, UpstreamSecurity,
    Verdict, Via, Who,
};

use crate::blob::{BlobKeys, BlobWriter};
use crate::error::RecordError;
use crate::gate::{Opening, Pending, Recorded};
use crate::log::{Log, Position, Purpose};

/// Content of at most this many bytes is sealed in the entry itself; longer content goes into a blob.
pub const INLINE_BYTES_MAX: usize = 16 * 1024;

/// What is known of a session when it begins.
#[derive(Clone, Debug)]
pub struct SessionStart {
    /// Who it is.
    pub identity: Identity,
    /// Which connection it uses.
    pub connection: String,
    /// Which database, where there are any.
    pub database: Option<Label>,
    /// As which user the gateway logged in there.
    pub upstream_user: String,
    /// The protocol.
    pub protocol: String,
    /// The client's address.
    pub client: String,
    /// The TLS version and cipher suite, none without TLS.
    pub tls: Option<String>,
    /// What the client said about itself.
    pub claims: Vec<Claim>,
    /// The durability in force.
    pub durability: Durability,
    /// How safe the way to the server is.
    pub upstream: UpstreamSecurity,
    /// The outpost through which the server is reached, if through one.
    pub outpost: Option<Carried>,
}

/// A command that is about to run.
#[derive(Clone, Copy, Debug)]
pub struct IntentDraft<'a> {
    /// By which message it came.
    pub via: Via,
    /// Its text, from [`SessionLog::seal`] or [`BlobWriter::finish`].
    pub text: &'a Field,
    /// Its parameters, likewise.
    pub parameters: &'a Field,
    /// The prepared statement's name, if the protocol has one here.
    pub statement: Option<&'a [u8]>,
    /// The portal's name, if the protocol has one here.
    pub portal: Option<&'a [u8]>,
    /// The state of the transaction.
    pub transaction: Option<Transaction>,
    /// The decision.
    pub verdict: Verdict,
    /// The rules that matched.
    pub rules: &'a [String],
    /// What it does, if that was analysed.
    pub effects: Option<&'a Arc<Facts>>,
    /// The policy in force, if there is one.
    pub policy: Option<Digest>,
    /// What a policy says of it that only observes, or that break-glass lifts, if that is not the decision.
    pub observed: Option<Verdict>,
    /// The command under whose approval this one waits or runs, if it is not its own.
    pub approval: Option<CommandId>,
    /// The break-glass that its sender had opened on the connection.
    pub break_glass: Option<BreakGlassId>,
    /// How many bytes the client sent for it.
    pub bytes: u64,
    /// How exactly it is known.
    pub fidelity: Fidelity,
}

impl<'a> IntentDraft<'a> {
    /// An intent of this text with these parameters, with nothing else known of it, and nothing to be said against it.
    #[must_use]
    pub fn new(via: Via, text: &'a Field, parameters: &'a Field) -> Self {
        Self {
            via,
            text,
            parameters,
            statement: None,
            portal: None,
            transaction: None,
            verdict: Verdict::Allow,
            rules: &[],
            effects: None,
            policy: None,
            observed: None,
            approval: None,
            break_glass: None,
            bytes: 0,
            fidelity: Fidelity::Exact,
        }
    }
}

/// How a command ended.
#[derive(Clone, Debug)]
pub struct OutcomeDraft<'a> {
    /// How it ended.
    pub status: Status,
    /// Why, where the status does not say.
    pub reason: Option<Reason>,
    /// The protocol's own code (SQLSTATE).
    pub code: Option<&'a str>,
    /// The server's message, from [`SessionLog::seal`].
    pub message: Field,
    /// The results; at most [`RESULTS_MAX`] are listed.
    pub results: &'a [StatementResult],
    /// How many results there were in all.
    pub results_count: u64,
    /// Rows that were sent to the client.
    pub rows: u64,
    /// Bytes from the client.
    pub bytes_up: u64,
    /// Bytes to the client.
    pub bytes_down: u64,
    /// What a COPY moved.
    pub copy: Option<Copy>,
    /// How many times rows were fetched from it.
    pub fetches: u32,
    /// Whether it ended before all its rows were fetched.
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
    pub file: Option<FileContent>,
}

impl OutcomeDraft<'_> {
    /// An outcome of this status, with nothing else known.
    #[must_use]
    pub fn new(status: Status) -> Self {
        Self {
            status,
            reason: None,
            code: None,
            message: Field::Absent(AbsentReason::None),
            results: &[],
            results_count: 0,
            rows: 0,
            bytes_up: 0,
            bytes_down: 0,
            copy: None,
            fetches: 0,
            suspended: false,
            effective: Effective::Unknown,
            notices: 0,
            executed: false,
            transcript: None,
            file: None,
        }
    }
}

/// Why a session ended, and what went over it.
#[derive(Clone, Copy, Debug)]
pub struct SessionClosing {
    /// Why.
    pub reason: SessionEnd,
    /// Bytes from the client.
    pub bytes_up: u64,
    /// Bytes to the client.
    pub bytes_down: u64,
}

/// A session's writer. Its owner is the session; if it is dropped without [`SessionLog::close`], because the session's
/// task panicked, it completes the session by itself.
pub struct SessionLog {
    log: Arc<Log>,
    id: SessionId,
    key: SessionKey,
    fields: u64,
    next_number: u32,
    previous: Option<Digest>,
    /// The tree of the session's own entries.
    tree: Frontier,
    intents: u32,
    outcomes: u32,
    /// Commands without an outcome, in order, and when each began.
    open: Vec<(u32, u64)>,
    /// The session's next intent, of which only some parts change.
    template: Entry,
    leaf: Vec<u8>,
    broken: Option<RecordError>,
    closed: bool,
}

impl SessionLog {
    pub(crate) fn open(
        log: Arc<Log>,
        id: SessionId,
        (key_slot, key): (u64, SessionKey),
        start: SessionStart,
    ) -> Result<(Self, Opening), RecordError> {
        let link = Link { session: id, number: 0, previous: None };
        let who = Who {
            name: start.identity.name.clone(),
            known: start.identity.known,
            on_behalf_of: start.identity.on_behalf_of.clone(),
        };
        let template = Intent {
            link,
            command: CommandId { session: id, ordinal: 1 },
            who,
            connection: start.connection.clone(),
            database: start.database.clone(),
            via: Via::Simple,
            text: Field::NONE,
            parameters: Field::NONE,
            statement: None,
            portal: None,
            transaction: None,
            effects: Effects::NotEstablished,
            fidelity: Fidelity::Exact,
            verdict: Verdict::Allow,
            rules: Vec::new(),
            policy: None,
            observed: None,
            approval: None,
            break_glass: None,
            durability: start.durability,
            bytes: 0,
            upstream: (start.upstream == UpstreamSecurity::Plaintext).then_some(start.upstream),
        };
        let time = log.clock.now();
        let mut session = Self {
            id,
            fields: 0,
            next_number: 0,
            previous: None,
            tree: Frontier::new(),
            intents: 0,
            outcomes: 0,
            open: Vec::new(),
            template: Entry { time, body: Body::Intent(template) },
            leaf: Vec::with_capacity(1024),
            broken: None,
            // Nothing to complete until the first entry is appended.
            closed: true,
            log,
            key,
        };
        let body = Body::SessionOpen(SessionOpen {
            link,
            identity: start.identity,
            connection: start.connection,
            database: start.database,
            upstream_user: start.upstream_user,
            protocol: start.protocol,
            client: start.client,
            tls: start.tls,
            claims: start.claims,
            durability: start.durability,
            key_slot,
            key_commitment: session.key.commitment(id),
            upstream: Some(start.upstream),
            outpost: start.outpost,
        });
        session.leaf.clear();
        Entry { time, body }.encode(&mut session.leaf);
        let position = session.append(Purpose::Begin)?;
        session.closed = false;
        Ok((session, Opening { position }))
    }

    /// The session's id.
    #[must_use]
    pub fn id(&self) -> SessionId {
        self.id
    }

    /// Seals content. Longer content than [`INLINE_BYTES_MAX`] is stored as a blob; if that fails, the session's next
    /// intent fails with the reason, so that the command is not forwarded.
    pub fn seal(&mut self, content: &[u8]) -> Field {
        if content.len() <= INLINE_BYTES_MAX {
            let number = self.take_fields(1);
            return Field::Sealed(seal(self.id, &self.key.field(number), number, content));
        }
        let stored = self.blob().and_then(|mut blob| {
            blob.write(content)?;
            blob.finish()
        });
        match stored {
            Ok((field, _)) => field,
            Err(error) => {
                self.broken.get_or_insert(error);
                Field::Absent(AbsentReason::NotSeen)
            }
        }
    }

    /// Begins a blob for long content. Any number can be written at a time.
    ///
    /// # Errors
    /// The disk refused.
    pub fn blob(&mut self) -> Result<BlobWriter, RecordError> {
        self.log.check(Purpose::Begin)?;
        let number = self.take_fields(2);
        let keys = BlobKeys { number, key: self.key.field(number), head_key: self.key.field(number + 1) };
        BlobWriter::new(self.log.disk.clone(), self.id, keys)
    }

    /// Appends an intent. It is not safe yet: wait for its position, then [`crate::Gate::admit`] it.
    ///
    /// # Errors
    /// It cannot be recorded, so the command must not be forwarded.
    pub fn intent(&mut self, draft: &IntentDraft<'_>) -> Result<Pending, RecordError> {
        if let Some(broken) = self.broken.take() {
            return Err(broken);
        }
        let time = self.log.clock.now();
        let command = CommandId { session: self.id, ordinal: self.intents + 1 };
        let link = self.link();
        self.template.time = time;
        if let Body::Intent(intent) = &mut self.template.body {
            intent.link = link;
            intent.command = command;
            intent.via = draft.via;
            intent.fidelity = draft.fidelity;
            intent.text.clone_from(draft.text);
            intent.parameters.clone_from(draft.parameters);
            intent.statement = draft.statement.map(Label::new);
            intent.portal = draft.portal.map(Label::new);
            intent.transaction = draft.transaction;
            intent.verdict = draft.verdict;
            intent.rules.clear();
            intent.rules.extend_from_slice(draft.rules);
            intent.effects = match draft.effects {
                Some(facts) => Effects::Established(Arc::clone(facts)),
                None => Effects::NotEstablished,
            };
            intent.policy = draft.policy;
            intent.observed = draft.observed;
            intent.approval = draft.approval;
            intent.break_glass = draft.break_glass;
            intent.bytes = draft.bytes;
        }
        self.leaf.clear();
        self.template.encode(&mut self.leaf);
        let position = self.append(Purpose::Begin)?;
        self.intents += 1;
        self.open.push((command.ordinal, time.boot_us));
        Ok(Pending { command, position, boot_us: time.boot_us, leaf: self.previous.unwrap_or(Digest([0; 32])) })
    }

    /// Appends a command's outcome. It is written with the next group and needs no flush of its own.
    ///
    /// # Errors
    /// Recording has stopped; after the restart the outcome is `unknown`.
    pub fn outcome(&mut self, recorded: Recorded, draft: &OutcomeDraft<'_>) -> Result<Position, RecordError> {
        let began = recorded.boot_us();
        self.end(recorded.command(), began, draft)
    }

    /// Ends a command whose intent was appended but which was never forwarded: the client went away, or recording
    /// stopped, while it waited. Or one that the gateway did not forward as such, but saw.
    ///
    /// # Errors
    /// As [`SessionLog::outcome`].
    #[allow(clippy::needless_pass_by_value, reason = "a pending intent is used up by its outcome")]
    pub fn withdraw(&mut self, pending: Pending, draft: &OutcomeDraft<'_>) -> Result<Position, RecordError> {
        self.end(pending.command, pending.boot_us, draft)
    }

    /// Records a command that the gateway did not forward or learnt of only afterwards: its intent and its outcome
    /// together.
    ///
    /// # Errors
    /// It cannot be recorded.
    pub fn settled(
        &mut self,
        intent: &IntentDraft<'_>,
        outcome: &OutcomeDraft<'_>,
    ) -> Result<(CommandId, Position), RecordError> {
        let pending = self.intent(intent)?;
        let command = pending.command;
        Ok((command, self.withdraw(pending, outcome)?))
    }

    /// How many commands have no outcome yet.
    #[must_use]
    pub fn open_commands(&self) -> usize {
        self.open.len()
    }

    /// Ends the session. Commands that still have no outcome get `unknown`.
    ///
    /// # Errors
    /// Recording has stopped; after the restart the session is closed as lost.
    pub fn close(mut self, closing: SessionClosing) -> Result<Position, RecordError> {
        self.finish(closing)
    }

    fn finish(&mut self, closing: SessionClosing) -> Result<Position, RecordError> {
        self.closed = true;
        let reason = closing.reason.unknown_because();
        while let Some(&(ordinal, began)) = self.open.first() {
            let draft = OutcomeDraft { reason: Some(reason), ..OutcomeDraft::new(Status::Unknown) };
            self.end(CommandId { session: self.id, ordinal }, began, &draft)?;
        }
        let body = Body::SessionClose(SessionClose {
            link: self.link(),
            reason: closing.reason,
            intents: self.intents,
            outcomes: self.outcomes,
            bytes_up: closing.bytes_up,
            bytes_down: closing.bytes_down,
            root: Some(self.tree.root()),
        });
        self.leaf.clear();
        Entry { time: self.log.clock.now(), body }.encode(&mut self.leaf);
        self.append(Purpose::Complete)
    }

    fn end(&mut self, of: CommandId, began: u64, draft: &OutcomeDraft<'_>) -> Result<Position, RecordError> {
        let at = self.open.iter().position(|(ordinal, _)| *ordinal == of.ordinal);
        let Some(at) = at.filter(|_| of.session == self.id) else {
            return Err(RecordError::WrongSession);
        };
        let time = self.log.clock.now();
        let outcome = outcome_of(self.link(), of, time.boot_us.saturating_sub(began), draft);
        self.leaf.clear();
        Entry { time, body: Body::Outcome(outcome) }.encode(&mut self.leaf);
        let position = self.append(Purpose::Complete)?;
        self.open.remove(at);
        self.outcomes += 1;
        Ok(position)
    }

    fn append(&mut self, purpose: Purpose) -> Result<Position, RecordError> {
        let hash = leaf_hash(&self.leaf);
        let position = self.log.append(&self.leaf, hash, purpose)?;
        self.previous = Some(hash);
        self.tree.append(hash);
        self.next_number += 1;
        Ok(position)
    }

    fn link(&self) -> Link {
        Link { session: self.id, number: self.next_number, previous: self.previous }
    }

    fn take_fields(&mut self, count: u64) -> u64 {
        let number = self.fields;
        self.fields += count;
        number
    }
}

impl Drop for SessionLog {
    fn drop(&mut self) {
        if !self.closed {
            let closing = SessionClosing { reason: SessionEnd::GatewayFault, bytes_up: 0, bytes_down: 0 };
            // If recording has stopped, the restart completes the session.
            let _ = self.finish(closing);
        }
    }
}

/// An outcome about which nothing is known but that the gateway was gone.
pub(crate) fn lost_outcome(link: Link, of: CommandId, time: Time) -> Entry {
    let draft = OutcomeDraft { reason: Some(Reason::GatewayRestarted), ..OutcomeDraft::new(Status::Unknown) };
    Entry { time, body: Body::Outcome(outcome_of(link, of, 0, &draft)) }
}

fn outcome_of(link: Link, of: CommandId, duration_us: u64, draft: &OutcomeDraft<'_>) -> Outcome {
    Outcome {
        link,
        of,
        status: draft.status,
        reason: draft.reason,
        code: draft.code.map(str::to_owned),
        message: draft.message.clone(),
        results: draft.results.iter().take(RESULTS_MAX).cloned().collect(),
        results_count: draft.results_count.max(u64::try_from(draft.results.len()).unwrap_or(0)),
        rows: draft.rows,
        bytes_up: draft.bytes_up,
        bytes_down: draft.bytes_down,
        duration_us,
        copy: draft.copy,
        fetches: draft.fetches,
        suspended: draft.suspended,
        effective: draft.effective,
        notices: draft.notices,
        executed: draft.executed,
        transcript: draft.transcript.clone(),
        file: draft.file.clone(),
    }
}
