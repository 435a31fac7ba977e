//! What the policy says of a command: its facts, asked for before the tap takes it, and the decision on them.
//!
//! A statement is analysed in another process, so its facts may not be there yet. Then the session takes nothing more of its
//! client until they are; the message stays where it was, and is decided and taken in one go when they have come.
//!
//! Not for: what facts are (that is `sql`), what rules are (that is `policy`).
//!
//! Invariant: facts are those of exactly the text that runs, under the settings under which the server reads it. Once the
//! session may have changed what a text means in a way that is not followed here, no facts of it are the whole any more.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use model::{Digest, Effect, Facts, Opaque, Operation, Who};
use policy::approvals::ApprovalRules;
use policy::{Decision, Input, SessionState, Subject, Target};
use sql::{Encoding, Settings, Strings};
use tokio::sync::oneshot::Receiver;
use wire::postgres::tap::{Peeked, Purpose, Reading, Text, TxStatus};

use super::super::greet::Client;
use super::super::{entries, is_setting};
use crate::Shared;
use crate::approvals::Approvals;
use crate::break_glass::{BreakGlass, Covered};
use crate::config::{Config, Connection, Policy};

/// Decisions of one session that are remembered.
const DECISIONS_MAX: usize = 512;

/// The policy of a session's connection, as it is at the time.
pub(crate) struct Policing {
    shared: Arc<Shared>,
    connection: String,
    database: String,
    subject: Subject,
    target: Target,
    role: String,
    who: Who,
    began: Instant,
    /// What was in force at the last look.
    config: Arc<Config>,
    policy: Option<Arc<Policy>>,
    /// Something ran, or was set when the session began, that may have changed what texts mean.
    doubt: bool,
    asked: Option<Asked>,
    /// The facts of the message that is next.
    facts: Option<Arc<Facts>>,
    /// What that message does with its text.
    purpose: Purpose,
    /// Decisions by the facts that they were made on. Statements that differ in their constants only have the same.
    decisions: HashMap<Arc<Facts>, Arc<Decision>>,
    /// The hour and the day of those decisions, where they count.
    decided_at: (u8, &'static str),
}

struct Asked {
    text: Arc<[u8]>,
    settings: Settings,
    state: State,
}

enum State {
    Waiting(Receiver<Arc<Facts>>),
    Here(Arc<Facts>),
}

/// Whether the facts of the next message are there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    Ready,
    Wait,
}

/// What is said of one command.
pub(crate) struct Said {
    /// Its facts, where there is a policy.
    pub(crate) facts: Option<Arc<Facts>>,
    /// The policy that decides or observes, and its decision.
    pub(crate) policy: Option<(Arc<Policy>, Arc<Decision>)>,
}

impl Policing {
    /// Of a session of this client.
    pub(crate) fn new(shared: &Arc<Shared>, connection: &Connection, database: &str, client: &Client) -> Self {
        let config = shared.config();
        let known = config.connections.get(&connection.name);
        let policy = known.and_then(|known| known.policy.clone());
        let mut set = client.startup.parameters().filter(|(name, _)| is_setting(name));
        let settings_known = set.all(|(name, _)| is_harmless(name));
        Self {
            shared: Arc::clone(shared),
            connection: connection.name.clone(),
            database: database.to_owned(),
            subject: Subject::of(&client.identity),
            target: entries::target(connection, database),
            role: connection.user.clone(),
            who: Who {
                name: client.identity.name.clone(),
                known: client.identity.known,
                on_behalf_of: client.identity.on_behalf_of.clone(),
            },
            began: Instant::now(),
            config,
            policy,
            doubt: !settings_known,
            asked: None,
            facts: None,
            purpose: Purpose::Run,
            decisions: HashMap::new(),
            decided_at: (0, ""),
        }
    }

    /// Looks which policy is in force now.
    pub(super) fn refresh(&mut self) {
        let config = self.shared.config();
        if Arc::ptr_eq(&config, &self.config) {
            return;
        }
        // A connection that is gone ends its sessions; until then its last policy holds.
        if let Some(connection) = config.connections.get(&self.connection) {
            self.target = entries::target(connection, &self.database);
            self.policy.clone_from(&connection.policy);
        }
        self.config = config;
        self.decisions.clear();
    }

    /// The policy in force, if there is one.
    pub(super) fn digest(&self) -> Option<Digest> {
        self.policy.as_ref().map(|policy| policy.set.digest())
    }

    /// Whether an analysis is waited for.
    pub(super) fn waits(&self) -> bool {
        matches!(&self.asked, Some(Asked { state: State::Waiting(_), .. }))
    }

    /// Ready when an analysis that is waited for has come.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(asked) = &mut self.asked else { return Poll::Pending };
        let State::Waiting(receiver) = &mut asked.state else { return Poll::Pending };
        let Poll::Ready(facts) = Pin::new(receiver).poll(cx) else { return Poll::Pending };
        let facts = facts.unwrap_or_else(|_| Arc::new(Facts::unknown(Opaque::Failed)));
        asked.state = State::Here(facts);
        Poll::Ready(())
    }

    /// Sees to the facts of the next message.
    pub(super) fn next<'b>(&mut self, peek: impl FnOnce() -> Option<Peeked<'b>>) -> Next {
        self.facts = None;
        self.purpose = Purpose::Run;
        if self.policy.is_none() {
            return Next::Ready;
        }
        let Some(Peeked { purpose, text, reading }) = peek() else { return Next::Ready };
        self.purpose = purpose;
        let text: &[u8] = match &text {
            Text::Inline(text) => text,
            Text::Prepared { text, .. } => text,
            // Too long to be looked at, or nothing.
            Text::Spooled { .. } | Text::None => return Next::Ready,
        };
        let settings = settings(reading);
        if let Some(facts) = self.shared.analyzer.known(text, settings) {
            self.asked = None;
            self.facts = Some(facts);
            return Next::Ready;
        }
        if let Some(asked) = &self.asked
            && *asked.text == *text
            && asked.settings == settings
        {
            let State::Here(facts) = &asked.state else { return Next::Wait };
            self.facts = Some(Arc::clone(facts));
            self.asked = None;
            return Next::Ready;
        }
        let receiver = self.shared.analyzer.ask(text, settings);
        self.asked = Some(Asked { text: text.into(), settings, state: State::Waiting(receiver) });
        Next::Wait
    }

    /// What the policy says of a command with a text: that of the message that [`Policing::next`] saw last.
    pub(super) fn statement(&mut self, text: Option<&[u8]>, transaction: TxStatus, commands: u64) -> Said {
        let facts = self.facts.take();
        self.say(facts, Opaque::TooLong, text, transaction, commands)
    }

    /// What the policy says of a text that is only prepared, if that is what the message does that
    /// [`Policing::next`] saw last.
    pub(super) fn prepared(&mut self, text: &[u8], transaction: TxStatus, commands: u64) -> Option<Said> {
        let prepares = self.purpose == Purpose::Prepare && self.policy.is_some();
        prepares.then(|| self.statement(Some(text), transaction, commands))
    }

    /// As [`Policing::prepared`], of a text that is too long to be looked at.
    pub(super) fn prepared_large(&mut self, transaction: TxStatus, commands: u64) -> Option<Said> {
        self.policy.is_some().then(|| self.large(transaction, commands))
    }

    /// What the policy says of a function call by number.
    pub(super) fn function(&mut self, transaction: TxStatus, commands: u64) -> Said {
        let call = || Facts {
            operation: Operation::Function,
            operations: vec![Operation::Function],
            bounded: true,
            ..Facts::unknown(Opaque::Function)
        };
        let facts = self.policy.is_some().then(|| Arc::new(call()));
        self.say(facts, Opaque::Function, None, transaction, commands)
    }

    /// What the policy says of a command whose text is too long to be looked at.
    pub(super) fn large(&mut self, transaction: TxStatus, commands: u64) -> Said {
        self.say(None, Opaque::TooLong, None, transaction, commands)
    }

    fn say(
        &mut self,
        facts: Option<Arc<Facts>>,
        otherwise: Opaque,
        text: Option<&[u8]>,
        transaction: TxStatus,
        commands: u64,
    ) -> Said {
        let Some(policy) = self.policy.clone() else { return Said { facts: None, policy: None } };
        let facts = facts.unwrap_or_else(|| Arc::new(Facts::unknown(otherwise)));
        let seen = match self.doubt {
            false => Arc::clone(&facts),
            true => Arc::new(Facts::clone(&facts).doubted(Opaque::Settings)),
        };
        let varies = policy.set.varies_with();
        let moment = policy.set.moment(now());
        // Of the time, rules see the hour and the day.
        if varies.time && self.decided_at != (moment.hour, moment.weekday) {
            self.decisions.clear();
            self.decided_at = (moment.hour, moment.weekday);
        }
        let same_always = !(varies.text || varies.session || self.doubt);
        if same_always && let Some(decision) = self.decisions.get(&facts) {
            let decision = Arc::clone(decision);
            return Said { facts: Some(facts), policy: Some((policy, decision)) };
        }
        let text = text.filter(|_| varies.text).and_then(|text| std::str::from_utf8(text).ok());
        let decision = Arc::new(policy.set.decide(&Input {
            who: &self.subject,
            target: &self.target,
            facts: &seen,
            text,
            moment,
            session: SessionState {
                age: self.began.elapsed().as_secs(),
                count: commands,
                transaction: entries::transaction(transaction),
            },
        }));
        if same_always {
            if self.decisions.len() >= DECISIONS_MAX {
                self.decisions.clear();
            }
            self.decisions.insert(facts, Arc::clone(&decision));
        }
        Said { facts: Some(seen), policy: Some((policy, decision)) }
    }

    /// What the policy says now of a command that waited: of the same text, with the facts that it had.
    pub(super) fn again(
        &mut self,
        facts: Option<Arc<Facts>>,
        text: &[u8],
        transaction: TxStatus,
        commands: u64,
    ) -> Said {
        self.say(facts, Opaque::TooLong, Some(text), transaction, commands)
    }

    /// Who approves what is held, by the configuration in force; nobody, if it names nobody.
    pub(super) fn approval_rules(&self) -> Option<ApprovalRules> {
        self.config.connections.get(&self.connection).and_then(|connection| connection.approvals.clone())
    }

    /// All that waits for people.
    pub(super) fn approvals(&self) -> &Arc<Approvals> {
        &self.shared.approvals
    }

    /// All break-glass of the gateway.
    pub(super) fn break_glass(&self) -> Arc<BreakGlass> {
        Arc::clone(&self.shared.break_glass)
    }

    /// What covers the session's commands now; nothing where nothing is held. While it is there, nothing closes it.
    pub(super) fn covered_by<'g>(&self, glasses: &'g BreakGlass) -> Option<Covered<'g>> {
        self.policy.as_ref().filter(|policy| policy.decides())?;
        glasses.covering(&self.who, &self.connection)
    }

    /// Who sends the session's commands.
    pub(super) fn who(&self) -> &Who {
        &self.who
    }

    /// Over which connection.
    pub(super) fn connection(&self) -> &str {
        &self.connection
    }

    /// To which database.
    pub(super) fn database(&self) -> &str {
        &self.database
    }

    /// As which user of the server.
    pub(super) fn role(&self) -> &str {
        &self.role
    }

    /// A command with these facts is let through: it may change what later texts mean.
    pub(super) fn runs(&mut self, facts: Option<&Facts>) {
        let changes =
            |facts: &Facts| facts.opaque.contains(&Opaque::Settings) || facts.effects.contains(&Effect::Unknown);
        // Without a policy nothing was analysed; one may come while the session lives.
        self.doubt |= facts.is_none_or(changes);
    }
}

fn settings(reading: Reading) -> Settings {
    Settings {
        strings: match reading.conforming {
            Some(true) => Strings::Standard,
            Some(false) => Strings::Escapes,
            None => Strings::Either,
        },
        encoding: if reading.ascii { Encoding::AsciiSafe } else { Encoding::Other },
    }
}

/// Seconds since 1970.
fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

/// Whether a client may give this setting at startup without changing what its statements do to which objects. The tap
/// follows the encoding.
fn is_harmless(name: &[u8]) -> bool {
    let name = std::str::from_utf8(name).unwrap_or_default();
    name.eq_ignore_ascii_case("client_encoding") || sql::harmless_setting(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_settings_that_change_no_meaning_are_harmless() {
        for name in ["application_name", "DateStyle", "TimeZone", "client_encoding"] {
            assert!(is_harmless(name.as_bytes()), "{name}");
        }
        for name in ["search_path", "role", "options", "standard_conforming_strings", "session_replication_role", ""] {
            assert!(!is_harmless(name.as_bytes()), "{name}");
        }
    }

    #[test]
    fn a_text_whose_reading_is_not_known_is_read_in_both_ways() {
        let unknown = settings(Reading { conforming: None, ascii: false });
        assert_eq!(unknown, Settings { strings: Strings::Either, encoding: Encoding::Other });
        let known = settings(Reading { conforming: Some(true), ascii: true });
        assert_eq!(known, Settings { strings: Strings::Standard, encoding: Encoding::AsciiSafe });
    }
}
