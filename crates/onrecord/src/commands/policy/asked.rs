//! One command, put to rules.

use std::collections::BTreeMap;

use model::{Effects, Facts, IdentityName, Opaque, SessionId, Transaction, Via};
use policy::{Decision, Input, PolicySet, SessionState, Subject, SubjectParts, Target, TargetParts};
use sql::{Encoding, Settings, Strings};
use store::{CommandView, Opened, SessionView};

use super::Labels;

/// The settings that statements are read under: those of a session that changed none.
const SETTINGS: Settings = Settings { strings: Strings::Standard, encoding: Encoding::AsciiSafe };

/// One command, as rules see it.
pub(super) struct Asked {
    pub(super) subject: Subject,
    pub(super) target: Target,
    pub(super) facts: Facts,
    pub(super) text: Option<String>,
    pub(super) unix: i64,
    pub(super) session: SessionState,
}

impl Asked {
    /// What a set is asked.
    pub(super) fn with<T>(&self, set: &PolicySet, run: impl FnOnce(&Input<'_>) -> T) -> T {
        run(&Input {
            who: &self.subject,
            target: &self.target,
            facts: &self.facts,
            text: self.text.as_deref(),
            moment: set.moment(self.unix),
            session: self.session,
        })
    }

    /// What a set says.
    pub(super) fn decide(&self, set: &PolicySet) -> Decision {
        self.with(set, |input| set.decide(input))
    }
}

/// The facts of a statement.
pub(super) fn facts(text: &[u8]) -> Facts {
    sql::analyze(text, SETTINGS)
}

/// A session that nothing was sent in before.
pub(super) const FRESH: SessionState = SessionState { age: 0, count: 0, transaction: Transaction::Idle };

/// A session of the record, as rules see it.
pub(super) struct Recorded {
    subject: Subject,
    target: Target,
    began_us: i64,
}

/// Sessions of the record by their ids.
pub(super) type Sessions = BTreeMap<SessionId, Recorded>;

/// Why a recorded command cannot be put to rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Why {
    Erased,
    Sealed,
    Damaged,
    TooLong,
    NoText,
    Function,
    NoSession,
}

impl Why {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Erased => "erased",
            Self::Sealed => "sealed: the keys cannot be read here",
            Self::Damaged => "damaged",
            Self::TooLong => "longer than is read back",
            Self::NoText => "without a text",
            Self::Function => "a call by number, which rules do not decide",
            Self::NoSession => "the session's beginning is not in this record",
        }
    }

    /// As a key of JSON.
    pub(super) fn key(self) -> &'static str {
        match self {
            Self::Erased => "erased",
            Self::Sealed => "sealed",
            Self::Damaged => "damaged",
            Self::TooLong => "too_long",
            Self::NoText => "no_text",
            Self::Function => "function",
            Self::NoSession => "no_session",
        }
    }
}

/// What rules see of sessions.
pub(super) fn sessions(views: &[SessionView], labels: &Labels) -> Sessions {
    views.iter().map(|view| (view.id, session(view, labels))).collect()
}

fn session(view: &SessionView, labels: &Labels) -> Recorded {
    let (identity, open) = (&view.identity, &view.open);
    Recorded {
        subject: Subject::of(identity),
        target: Target::new(TargetParts {
            name: &open.connection,
            // `postgres 3.0` is the kind and the protocol's version.
            kind: open.protocol.split(' ').next().unwrap_or_default(),
            labels: &labels.of(&open.connection),
            database: &open.database.as_ref().map(ToString::to_string).unwrap_or_default(),
            role: &open.upstream_user,
        }),
        began_us: view.time.wall_us,
    }
}

/// A recorded command, as rules would have seen it, as far as the record still has it.
pub(super) fn recorded(view: &CommandView, sessions: &Sessions) -> Result<Asked, Why> {
    if view.via == Via::Function {
        return Err(Why::Function);
    }
    let session = sessions.get(&view.id.session).ok_or(Why::NoSession)?;
    let bytes = match &view.text {
        Opened::Bytes(bytes) => bytes,
        Opened::Blob { .. } => return Err(Why::TooLong),
        Opened::Absent(_) => return Err(Why::NoText),
        Opened::Erased(_) => return Err(Why::Erased),
        Opened::NoKey => return Err(Why::Sealed),
        Opened::Damaged => return Err(Why::Damaged),
    };
    let age = view.time.wall_us.saturating_sub(session.began_us) / 1_000_000;
    Ok(Asked {
        subject: session.subject.clone(),
        target: session.target.clone(),
        // What was found then knew the session's settings.
        facts: match &view.effects {
            Effects::Established(then) => Facts::clone(then),
            Effects::NotEstablished => match view.via {
                Via::Simple | Via::Extended | Via::Parse | Via::Function => facts(bytes),
                // Nothing looked at it, and no statement is in it.
                Via::Exec | Via::Shell | Via::Line | Via::Subsystem => Facts::unknown(Opaque::Exec),
                Via::File => Facts::unknown(Opaque::Statement),
            },
        },
        text: String::from_utf8(bytes.clone()).ok(),
        unix: view.time.wall_us.div_euclid(1_000_000),
        session: SessionState {
            age: u64::try_from(age).unwrap_or(0),
            count: u64::from(view.id.ordinal.saturating_sub(1)),
            transaction: view.transaction.unwrap_or(Transaction::Idle),
        },
    })
}

/// A statement that was never sent.
pub(super) struct Imagined<'a> {
    pub(super) identity: &'a IdentityName,
    pub(super) groups: &'a [String],
    pub(super) on_behalf_of: Option<&'a IdentityName>,
    pub(super) run: Option<&'a str>,
    pub(super) claims: &'a BTreeMap<String, String>,
    pub(super) connection: &'a str,
    pub(super) labels: &'a BTreeMap<String, String>,
    pub(super) database: &'a str,
    pub(super) role: &'a str,
    pub(super) sql: &'a str,
    pub(super) unix: i64,
}

impl From<Imagined<'_>> for Asked {
    fn from(imagined: Imagined<'_>) -> Self {
        Self {
            subject: Subject::new(SubjectParts {
                name: imagined.identity,
                groups: imagined.groups,
                on_behalf_of: imagined.on_behalf_of,
                run: imagined.run,
                claims: imagined.claims,
            }),
            target: Target::new(TargetParts {
                name: imagined.connection,
                kind: "postgres",
                labels: imagined.labels,
                database: imagined.database,
                role: imagined.role,
            }),
            facts: facts(imagined.sql.as_bytes()),
            text: Some(imagined.sql.to_owned()),
            unix: imagined.unix,
            session: FRESH,
        }
    }
}

/// What a decision is for people: `deny by rule x`.
pub(super) fn verdict(decision: &Decision) -> String {
    let ruling = decision.ruling();
    match (decision.decisive(), decision.error()) {
        (Some(rule), _) => format!("{ruling} by rule {rule}"),
        (None, Some(error)) => format!("{ruling}, because {error}"),
        (None, None) => format!("{ruling} by default: no rule matched"),
    }
}

/// The words of reasons, for people.
pub(super) fn reasons(opaque: &[Opaque]) -> String {
    opaque.iter().map(|reason| reason.as_str()).collect::<Vec<_>>().join(", ")
}
