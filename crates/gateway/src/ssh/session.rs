//! A session: one client's authenticated use of one host, with its part of the record and its policy.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use model::{BreakGlassId, Carried, CommandId, Durability, Facts, Field, Identity, Reason, SessionEnd, Verdict, Who};
use policy::approvals::ApprovalRules;
use policy::{Admission, Decision, Denial, Input, Permit, SessionState, Subject, Target};
use russh::server::Handle;
use store::{Gate, Level, Opening, Pending, Position, RecordError, Recorded, SessionClosing, SessionLog};
use tokio::sync::watch;

use super::entries::{self, Asked};
use super::upstream::Upstream;
use super::valve::Valve;
use crate::Shared;
use crate::access::{Entered, Showing};
use crate::approvals::Approvals;
use crate::break_glass::Covered;
use crate::config::{Config, Host, Policy, Shells, Terminals};
use crate::words;

/// What a session begins with.
pub(super) struct OpeningParts<'a> {
    pub(super) identity: &'a Arc<Identity>,
    pub(super) host: &'a Arc<Host>,
    pub(super) user: &'a str,
    pub(super) peer: SocketAddr,
    pub(super) client_version: &'a [u8],
    pub(super) outpost: Option<Carried>,
}

/// A session that is on the record.
pub(super) struct Session {
    shared: Arc<Shared>,
    gate: Arc<Gate>,
    admission: Admission,
    host: Arc<Host>,
    who: Who,
    subject: Subject,
    target: Target,
    user: String,
    upstream: Upstream,
    log: Mutex<Option<SessionLog>>,
    opening: Position,
    handle: Handle,
    valve: Arc<Valve>,
    /// Why it ends, once it does.
    end: watch::Sender<Option<SessionEnd>>,
    /// Its place among the live sessions, by which it is ended from outside.
    entered: Mutex<Entered>,
    began: Instant,
    outcome_wait: Duration,
    connect_max: Duration,
    commands: AtomicU64,
    bytes_up: AtomicU64,
    bytes_down: AtomicU64,
}

/// What a session is made of.
pub(super) struct Parts {
    pub(super) shared: Arc<Shared>,
    pub(super) gate: Arc<Gate>,
    pub(super) admission: Admission,
    pub(super) host: Arc<Host>,
    pub(super) identity: Arc<Identity>,
    pub(super) user: String,
    pub(super) upstream: Upstream,
    pub(super) log: SessionLog,
    pub(super) opening: Opening,
    pub(super) handle: Handle,
    pub(super) valve: Arc<Valve>,
    pub(super) end: watch::Sender<Option<SessionEnd>>,
    pub(super) outcome_wait: Duration,
    pub(super) connect_max: Duration,
    pub(super) entered: Entered,
}

/// What is said of one command.
pub(super) struct Said {
    pub(super) facts: Arc<Facts>,
    /// The policy that decides or observes, and its decision.
    pub(super) policy: Option<(Arc<Policy>, Arc<Decision>)>,
}

/// What becomes of a command.
pub(super) enum Ruled {
    /// It goes, once its intent is safe. With it comes what its client is to be told.
    Goes(Permit, Pending, Option<String>),
    /// It does not, and the record and this text say why.
    Refused(String),
    /// Somebody must approve it.
    Held(Denial, Said),
}

/// Comes when a session ends, and says why.
pub(super) struct Ending(watch::Receiver<Option<SessionEnd>>);

/// Says that it is to end; what was said first counts.
pub(super) fn end(end: &watch::Sender<Option<SessionEnd>>, why: SessionEnd) {
    end.send_if_modified(|end| match end {
        Some(_) => false,
        None => {
            *end = Some(why);
            true
        }
    });
}

impl Ending {
    pub(super) fn of(end: &watch::Sender<Option<SessionEnd>>) -> Self {
        Self(end.subscribe())
    }

    /// Cancel safe.
    pub(super) async fn wait(&self) -> SessionEnd {
        let mut receiver = self.0.clone();
        let ended = receiver.wait_for(Option::is_some).await.map(|end| *end);
        ended.ok().flatten().unwrap_or(SessionEnd::GatewayFault)
    }
}

impl Session {
    pub(super) fn new(parts: Parts) -> Self {
        let Parts {
            shared,
            gate,
            admission,
            host,
            identity,
            user,
            upstream,
            log,
            opening,
            handle,
            valve,
            end,
            outcome_wait,
            connect_max,
            entered,
        } = parts;
        shared.totals.sessions.fetch_add(1, Ordering::Relaxed);
        Self {
            who: Who {
                name: identity.name.clone(),
                known: identity.known,
                on_behalf_of: identity.on_behalf_of.clone(),
            },
            subject: Subject::of(&identity),
            target: entries::target(&host, &user),
            shared,
            gate,
            admission,
            host,
            user,
            upstream,
            log: Mutex::new(Some(log)),
            opening: opening.position(),
            handle,
            valve,
            end,
            entered: Mutex::new(entered),
            began: Instant::now(),
            outcome_wait,
            connect_max,
            commands: AtomicU64::new(0),
            bytes_up: AtomicU64::new(0),
            bytes_down: AtomicU64::new(0),
        }
    }

    /// The record's first entry of it is on stable storage.
    pub(super) async fn opened(&self) -> Result<(), RecordError> {
        poll_fn(|cx| self.gate.poll(cx, self.opening, Level::Durable)).await
    }

    pub(super) fn handle(&self) -> &Handle {
        &self.handle
    }

    /// Of the client's connection.
    pub(super) fn valve(&self) -> &Arc<Valve> {
        &self.valve
    }

    pub(super) fn upstream(&self) -> &Upstream {
        &self.upstream
    }

    pub(super) fn connection(&self) -> &str {
        &self.host.name
    }

    pub(super) fn user(&self) -> &str {
        &self.user
    }

    pub(super) fn who(&self) -> &Who {
        &self.who
    }

    pub(super) fn kept_bytes_max(&self) -> u64 {
        self.host.kept_bytes_max
    }

    pub(super) fn terminals(&self) -> Terminals {
        self.host.terminals
    }

    pub(super) fn shells(&self) -> Shells {
        self.host.shells
    }

    pub(super) fn outcome_wait(&self) -> Duration {
        self.outcome_wait
    }

    pub(super) fn approvals(&self) -> &Arc<Approvals> {
        &self.shared.approvals
    }

    /// Who approves what is held, by the configuration in force.
    pub(super) fn approval_rules(&self) -> Option<ApprovalRules> {
        self.host_now(&self.shared.config()).approvals.clone()
    }

    /// The digest of the policy in force.
    pub(super) fn policy_digest(&self) -> Option<model::Digest> {
        self.host_now(&self.shared.config()).policy.as_ref().map(|policy| policy.set.digest())
    }

    /// A connection that is gone ends its sessions; until then its last policy holds.
    fn host_now(&self, config: &Config) -> Arc<Host> {
        config.hosts.get(&self.host.name).unwrap_or(&self.host).clone()
    }

    pub(super) fn ending(&self) -> Ending {
        Ending::of(&self.end)
    }

    /// Whether it is to end: nothing new begins.
    pub(super) fn is_ending(&self) -> bool {
        self.end.borrow().is_some()
    }

    /// How long a host may take to be reached and logged in to.
    pub(super) fn connect_max(&self) -> Duration {
        self.connect_max
    }

    /// Ends it; what it was told first counts.
    pub(super) fn finish(&self, why: SessionEnd) {
        end(&self.end, why);
    }

    /// Comes when it is ended from outside. Cancel safe.
    pub(super) async fn ended_from_outside(&self) -> SessionEnd {
        poll_fn(|cx| {
            let mut entered = self.entered.lock().unwrap_or_else(PoisonError::into_inner);
            match std::pin::Pin::new(&mut entered.ended).poll(cx) {
                std::task::Poll::Ready(Ok(why)) => std::task::Poll::Ready(why),
                // Nobody can end it any more.
                std::task::Poll::Ready(Err(_)) | std::task::Poll::Pending => std::task::Poll::Pending,
            }
        })
        .await
    }

    /// It cannot be recorded any more.
    pub(super) fn fail(&self, error: &RecordError) {
        tracing::error!(%error, "a session cannot be recorded");
        self.finish(SessionEnd::RecordingStopped);
    }

    /// What a program writes is for those who watch it, too.
    pub(super) fn show(&self, command: CommandId, has_terminal: bool) -> Showing {
        self.shared.access.show(command, has_terminal)
    }

    pub(super) fn count(&self, up: u64, down: u64) {
        self.bytes_up.fetch_add(up, Ordering::Relaxed);
        self.bytes_down.fetch_add(down, Ordering::Relaxed);
        self.shared.totals.bytes_up.fetch_add(up, Ordering::Relaxed);
        self.shared.totals.bytes_down.fetch_add(down, Ordering::Relaxed);
    }

    /// What writes the record of it, for as long as what is given lives: never across a wait.
    ///
    /// # Panics
    /// After [`Session::close`], which comes after all commands.
    #[allow(clippy::expect_used, reason = "closed only after every program has ended")]
    pub(super) fn log(&self) -> Log<'_> {
        Log(self.log.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// What the policy says of it now.
    pub(super) fn say(&self, asked: &Asked) -> Said {
        let policy = self.host_now(&self.shared.config()).policy.clone();
        let facts = Arc::clone(&asked.facts);
        let Some(policy) = policy else { return Said { facts, policy: None } };
        let decision = policy.set.decide(&Input {
            who: &self.subject,
            target: &self.target,
            facts: &facts,
            text: asked.as_text(),
            moment: policy.set.moment(unix()),
            session: SessionState {
                age: self.began.elapsed().as_secs(),
                count: self.commands.load(Ordering::Relaxed),
                transaction: model::Transaction::Idle,
            },
        });
        Said { facts, policy: Some((policy, Arc::new(decision))) }
    }

    /// Decides a command, and writes its intent unless somebody must approve it first. Where its sender has broken the
    /// glass, nothing is held.
    pub(super) fn decide(&self, asked: &Asked) -> Result<Ruled, RecordError> {
        let said = self.say(asked);
        let verdict = self.verdict(&said);
        let (policy, decision) = said.policy.as_ref().map(|(policy, decision)| (&**policy, &**decision)).unzip();
        let refused = |denial: &Denial| {
            let text = words::why_denied("command", decision, denial);
            self.refuse(asked, &said, &text).map(Ruled::Refused)
        };
        let verdict = match verdict {
            policy::Verdict::Deny(denial) => return refused(&denial),
            policy::Verdict::Hold(denial) if self.covering(policy).is_none() => return Ok(Ruled::Held(denial, said)),
            verdict => verdict,
        };
        let sealed = self.seal(asked);
        let covered = self.covering(policy);
        let (verdict, glass) = match &covered {
            Some(covered) => (covered.lift(verdict), Some(covered.id())),
            None => (verdict, None),
        };
        match verdict {
            policy::Verdict::Allow(permit) => {
                let told = covered.as_ref().map(words::runs_under).map(|(text, hint)| format!("{text}\r\n{hint}"));
                let pending = self.intend_under(asked, &sealed, &said, Verdict::Allow, None, glass)?;
                Ok(Ruled::Goes(permit, pending, told))
            }
            policy::Verdict::Deny(denial) => refused(&denial),
            // It was closed in between.
            policy::Verdict::Hold(denial) => Ok(Ruled::Held(denial, said)),
        }
    }

    /// Writes down a line that a shell was seen to run. What the policy says of it comes after the fact: where it would not
    /// have let it run, the words are given with which its terminal ends.
    pub(super) fn saw(&self, asked: &Asked) -> Result<(Pending, Option<String>), RecordError> {
        let said = self.say(asked);
        let verdict = self.verdict(&said);
        let (policy, decision) = said.policy.as_ref().map(|(policy, decision)| (&**policy, &**decision)).unzip();
        let sealed = self.seal(asked);
        let covered = self.covering(policy);
        let (verdict, glass) = match &covered {
            Some(covered) => (covered.lift(verdict), Some(covered.id())),
            None => (verdict, None),
        };
        let pending = self.intend_under(asked, &sealed, &said, Verdict::Allow, None, glass)?;
        let why = match verdict {
            policy::Verdict::Allow(_) => None,
            policy::Verdict::Deny(denial) => Some(words::why_denied("line", decision, &denial)),
            policy::Verdict::Hold(Denial { rule, .. }) => {
                Some(format!("OnRecord: somebody must approve this line, and no line of a shell waits (rule {rule})"))
            }
        };
        Ok((pending, why))
    }

    /// The decision: the policy's, or the grant's where there is none.
    fn verdict(&self, said: &Said) -> policy::Verdict {
        match &said.policy {
            None => self.admission.decide(&policy::Request::Statement),
            Some((policy, decision)) => self.admission.apply(decision, policy.mode),
        }
    }

    /// Seals what the record has of a command. That may wait for the disk, so it comes before anything is covered: whoever
    /// closes break-glass waits for what is.
    fn seal(&self, asked: &Asked) -> (Field, Field) {
        fields(&mut self.log(), asked)
    }

    /// Writes the intent of a command that is held.
    pub(super) fn intend(&self, asked: &Asked, said: &Said, under: Option<CommandId>) -> Result<Pending, RecordError> {
        let sealed = self.seal(asked);
        self.marked(|glass| self.intend_under(asked, &sealed, said, Verdict::Hold, under, glass))
    }

    fn intend_under(
        &self,
        asked: &Asked,
        (text, parameters): &(Field, Field),
        said: &Said,
        verdict: Verdict,
        under: Option<CommandId>,
        glass: Option<BreakGlassId>,
    ) -> Result<Pending, RecordError> {
        let draft = entries::under(entries::intent(asked, text, parameters, verdict, said, &[]), under, glass);
        let pending = self.log().intent(&draft)?;
        self.commands.fetch_add(1, Ordering::Relaxed);
        Ok(pending)
    }

    /// What covers its commands under this policy; nothing where nothing is held. While it is there, nothing closes it.
    fn covering(&self, policy: Option<&Policy>) -> Option<Covered<'_>> {
        policy.filter(|policy| policy.decides())?;
        self.shared.break_glass.covering(&self.who, &self.host.name)
    }

    /// Does what writes an intent, with the break-glass that the sender has open; nothing closes it meanwhile. Never with
    /// the log at hand: whoever is covered waits for that.
    pub(super) fn marked<T>(&self, write: impl FnOnce(Option<BreakGlassId>) -> T) -> T {
        let host = self.host_now(&self.shared.config());
        let covered = self.covering(host.policy.as_deref());
        write(covered.as_ref().map(Covered::id))
    }

    /// Records a command that is refused, in these words. Gives them with the place where the record has it.
    pub(super) fn refuse(&self, asked: &Asked, said: &Said, text: &str) -> Result<String, RecordError> {
        self.settle(asked, said, &[], text)
    }

    /// As [`Session::refuse`], by a rule of the gateway's own.
    pub(super) fn refuse_by(&self, asked: &Asked, rule: &str, text: &str) -> Result<String, RecordError> {
        let said = Said { facts: Arc::clone(&asked.facts), policy: None };
        self.settle(asked, &said, &[rule.to_owned()], text)
    }

    fn settle(&self, asked: &Asked, said: &Said, rules: &[String], text: &str) -> Result<String, RecordError> {
        let (sealed, parameters) = self.seal(asked);
        let outcome = entries::denied(Reason::Policy, self.log().seal(text.as_bytes()));
        let draft = entries::intent(asked, &sealed, &parameters, Verdict::Deny, said, rules);
        let (command, _) = self.marked(|glass| self.log().settled(&entries::under(draft, None, glass), &outcome))?;
        Ok(refusal(text, command))
    }

    /// Waits until an intent is as safe as the connection wants it, `ready` being the last entry that counts for it.
    pub(super) async fn recorded(&self, pending: Pending, ready: Position) -> Result<Recorded, RecordError> {
        let level = match self.host.durability {
            Durability::Intent | Durability::Both => Level::Durable,
            Durability::Held | Durability::Written => Level::Written,
        };
        let mut pending = pending;
        loop {
            poll_fn(|cx| self.gate.poll(cx, ready, level)).await?;
            match self.gate.admit(pending, level) {
                Ok(recorded) => {
                    self.shared.totals.commands.fetch_add(1, Ordering::Relaxed);
                    return Ok(recorded);
                }
                Err(back) => pending = back,
            }
        }
    }

    /// Closes its part of the record. Every program has ended.
    pub(super) async fn close(&self, reason: SessionEnd) {
        self.upstream.close().await;
        let log = self.log.lock().unwrap_or_else(PoisonError::into_inner).take();
        let closing = SessionClosing {
            reason,
            bytes_up: self.bytes_up.load(Ordering::Relaxed),
            bytes_down: self.bytes_down.load(Ordering::Relaxed),
        };
        if let Some(Err(error)) = log.map(|log| log.close(closing)) {
            tracing::error!(%error, "the end of a session cannot be recorded");
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.shared.totals.sessions.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What is said of a command that was not sent to the host.
pub(super) fn refusal(text: &str, command: CommandId) -> String {
    format!("{text}\r\nIt was not sent to the host. The record has it as {command}.")
}

fn fields(log: &mut SessionLog, asked: &Asked) -> (Field, Field) {
    let text = if asked.text.is_empty() { Field::NONE } else { log.seal(&asked.text) };
    let parameters = asked.parameters.as_ref().map_or(Field::NONE, |parameters| log.seal(parameters));
    (text, parameters)
}

/// Seconds since 1970.
fn unix() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

/// See [`Session::log`].
pub(super) struct Log<'a>(MutexGuard<'a, Option<SessionLog>>);

impl std::ops::Deref for Log<'_> {
    type Target = SessionLog;

    #[allow(clippy::expect_used, reason = "closed only after every program has ended")]
    fn deref(&self) -> &SessionLog {
        self.0.as_ref().expect("the session is open")
    }
}

impl std::ops::DerefMut for Log<'_> {
    #[allow(clippy::expect_used, reason = "closed only after every program has ended")]
    fn deref_mut(&mut self) -> &mut SessionLog {
        self.0.as_mut().expect("the session is open")
    }
}
