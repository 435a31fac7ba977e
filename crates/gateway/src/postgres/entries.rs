//! From what the tap says to what the record keeps.
//!
//! Pure translation: closed sets of one vocabulary to closed sets of the other, nothing decided.

use std::net::SocketAddr;
use std::sync::Arc;

use model::{
    AbsentReason, BreakGlassId, Cancel, CancelResult, Carried, Claim, CommandId, Copy, CopyDirection, Digest,
    Effective, Facts, Field, Label, Reason, SessionId, StatementResult, Status, Transaction, Verdict, Via,
};
use policy::{Request, Ruling, Target, TargetParts};
use store::{GatewayEntry, IntentDraft, OutcomeDraft, SessionStart};
use wire::postgres::tap;

use super::Route;
use super::greet::Client;
use super::session::Said;
use crate::config::Connection;

/// The command has no text of its own.
pub(crate) const NO_TEXT: Field = Field::NONE;
/// The command has no parameters.
pub(crate) const NO_PARAMETERS: Field = Field::NONE;
/// The outcome has no message.
pub(crate) const NO_MESSAGE: Field = Field::NONE;
/// There is content, but the gateway did not see it.
pub(crate) const NOT_SEEN: Field = Field::Absent(AbsentReason::NotSeen);

/// The rule that refuses what the gateway cannot record faithfully.
const RULE_NAMES: &str = "builtin:names-are-not-identity";
/// The rule that refuses messages above the connection's limit.
pub(crate) const RULE_SIZE: &str = "builtin:message-size";
/// The rule that refuses function calls by number.
const RULE_FUNCTION: &str = "builtin:function-call";

/// What a command is, apart from its content.
pub(crate) struct Shape<'a> {
    via: tap::Via,
    statement: &'a [u8],
    portal: &'a [u8],
    transaction: Transaction,
    bytes: u64,
}

impl<'a> Shape<'a> {
    /// Of a command that is in memory; `bytes` is what the client sent for it.
    pub(crate) fn of(draft: &'a tap::Draft<'_>, bytes: usize) -> Self {
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        Self::new(draft.via, draft.statement, draft.portal, draft.transaction, bytes)
    }

    pub(crate) fn new(
        sent: tap::Via,
        statement: &'a [u8],
        portal: &'a [u8],
        status: tap::TxStatus,
        bytes: u64,
    ) -> Self {
        Self { via: sent, statement, portal, transaction: transaction(status), bytes }
    }

    /// Of a Parse that the server refused.
    pub(crate) fn of_parse(statement: &'a [u8], status: tap::TxStatus) -> Self {
        Self::new(tap::Via::Parse, statement, b"", status, 0)
    }

    /// Of a message whose body was never read.
    pub(crate) fn too_large(kind: Option<u8>, status: tap::TxStatus, bytes: usize) -> Self {
        let sent = match kind {
            Some(b'P') => tap::Via::Parse,
            Some(b'B') => tap::Via::Extended,
            Some(b'F') => tap::Via::Function,
            _ => tap::Via::Simple,
        };
        Self::new(sent, b"", b"", status, u64::try_from(bytes).unwrap_or(u64::MAX))
    }

    /// What policy looks at. The tap lets through only the function calls that are listed.
    pub(crate) fn request(&self) -> Request {
        match self.via {
            tap::Via::Function => Request::FunctionCall { listed: policy::Listed::Yes },
            tap::Via::Simple | tap::Via::Extended | tap::Via::Parse => Request::Statement,
        }
    }

    /// What is recorded before it runs, or of one that does not run.
    pub(crate) fn intent<'b>(&'b self, text: &'b Field, parameters: &'b Field, ruled: Ruled<'b>) -> IntentDraft<'b> {
        IntentDraft {
            via: via(self.via),
            text,
            parameters,
            statement: name(self.statement),
            portal: name(self.portal),
            transaction: Some(self.transaction),
            verdict: ruled.verdict,
            rules: ruled.rules,
            effects: ruled.effects,
            policy: ruled.policy,
            observed: ruled.observed,
            approval: ruled.approval,
            break_glass: ruled.break_glass,
            bytes: self.bytes,
            fidelity: model::Fidelity::Exact,
        }
    }

    /// The rule by which the gateway refuses such a command.
    pub(crate) fn denied_by(&self) -> String {
        match self.via {
            tap::Via::Function => RULE_FUNCTION.to_owned(),
            tap::Via::Simple | tap::Via::Extended | tap::Via::Parse => RULE_NAMES.to_owned(),
        }
    }
}

/// What was decided of a command, and on what.
#[derive(Clone, Copy)]
pub(crate) struct Ruled<'a> {
    verdict: Verdict,
    rules: &'a [String],
    effects: Option<&'a Arc<Facts>>,
    policy: Option<Digest>,
    observed: Option<Verdict>,
    approval: Option<CommandId>,
    break_glass: Option<BreakGlassId>,
}

impl<'a> Ruled<'a> {
    /// Of a command that no policy was asked about, under this one.
    pub(crate) fn unasked(policy: Option<Digest>) -> Self {
        let (approval, break_glass) = (None, None);
        Self { verdict: Verdict::Allow, rules: &[], effects: None, policy, observed: None, approval, break_glass }
    }

    /// By the gateway's own rules, which no policy can change.
    pub(crate) fn refused(rules: &'a [String], policy: Option<Digest>) -> Self {
        Self { verdict: Verdict::Deny, rules, ..Self::unasked(policy) }
    }

    /// By a policy, if there is one.
    pub(crate) fn by(verdict: Verdict, said: &'a Said) -> Self {
        let Some((policy, decision)) = &said.policy else { return Self { verdict, ..Self::unasked(None) } };
        let wanted = match decision.ruling() {
            Ruling::Allow => Verdict::Allow,
            Ruling::Deny => Verdict::Deny,
            Ruling::Hold => Verdict::Hold,
        };
        Self {
            verdict,
            rules: decision.rules(),
            effects: said.facts.as_ref(),
            policy: Some(policy.set.digest()),
            // What is denied because it cannot be held was not let through either.
            observed: (verdict == Verdict::Allow && wanted != verdict).then_some(wanted),
            ..Self::unasked(None)
        }
    }

    /// The same, under the approval of another command.
    pub(crate) fn under(self, approval: Option<CommandId>) -> Self {
        Self { approval, ..self }
    }

    /// The same, while its sender has this break-glass open on the connection.
    pub(crate) fn while_open(self, break_glass: Option<BreakGlassId>) -> Self {
        Self { break_glass, ..self }
    }
}

/// What the commands of a session are sent to, as policies see it.
pub(crate) fn target(connection: &Connection, database: &str) -> Target {
    Target::new(TargetParts {
        name: &connection.name,
        kind: "postgres",
        labels: &connection.labels,
        database,
        role: &connection.user,
    })
}

/// A session's first entry.
pub(crate) fn session_open(
    client: &Client,
    connection: &Connection,
    database: &str,
    outpost: Option<Carried>,
) -> SessionStart {
    let claims = client.startup.parameters().filter(|(name, _)| !matches!(*name, b"user" | b"database"));
    SessionStart {
        identity: model::Identity::clone(&client.identity),
        connection: connection.name.clone(),
        database: Some(Label::new(database.as_bytes())),
        upstream_user: connection.user.clone(),
        protocol: match client.route {
            Route::Straight => format!("postgres 3.{}", client.minor),
            Route::Tunnel(_) => format!("postgres 3.{} over ssh 2.0", client.minor),
        },
        client: client.peer.to_string(),
        tls: client.tls.map(str::to_owned),
        claims: claims.map(|(name, value)| Claim { name: Label::new(name), value: Label::new(value) }).collect(),
        durability: connection.durability,
        upstream: connection.security(),
        outpost,
    }
}

/// An outcome that the server gave.
pub(crate) fn outcome<'a>(
    outcome: &'a tap::CommandOutcome,
    message: Field,
    results: &'a [StatementResult],
) -> OutcomeDraft<'a> {
    let status = match outcome.status {
        tap::OutcomeStatus::Cancelled => Status::Cancelled,
        tap::OutcomeStatus::Denied => Status::Denied,
        tap::OutcomeStatus::Error => Status::Error,
        tap::OutcomeStatus::Ok => Status::Ok,
        tap::OutcomeStatus::Skipped => Status::Skipped,
    };
    let reason = match outcome.status {
        tap::OutcomeStatus::Skipped => Some(Reason::PipelineError),
        tap::OutcomeStatus::Denied => Some(Reason::Policy),
        tap::OutcomeStatus::Cancelled | tap::OutcomeStatus::Error | tap::OutcomeStatus::Ok => None,
    };
    OutcomeDraft {
        status,
        reason,
        code: outcome.code.as_deref(),
        message,
        results,
        results_count: outcome.results_total,
        rows: outcome.rows,
        bytes_up: outcome.bytes_up,
        bytes_down: outcome.bytes_down,
        copy: outcome.copy.map(|copy| Copy {
            direction: match copy.direction {
                tap::CopyDirection::In => CopyDirection::In,
                tap::CopyDirection::Out => CopyDirection::Out,
            },
            bytes: copy.bytes,
        }),
        fetches: outcome.fetches,
        suspended: outcome.suspended,
        effective: match outcome.effective {
            tap::Effective::Committed => Effective::Committed,
            tap::Effective::Open => Effective::Open,
            tap::Effective::RolledBack => Effective::RolledBack,
            tap::Effective::Unknown => Effective::Unknown,
        },
        notices: outcome.notices,
        executed: outcome.executed,
        transcript: None,
        file: None,
    }
}

/// The results of a command, as the record has them.
pub(crate) fn results(outcome: &mut tap::CommandOutcome) -> Vec<StatementResult> {
    let taken = std::mem::take(&mut outcome.results);
    taken.into_iter().map(|result| StatementResult { tag: result.tag, rows: result.rows }).collect()
}

/// The outcome of a command that the gateway refused.
pub(crate) fn denied(code: &str, message: Field) -> OutcomeDraft<'_> {
    OutcomeDraft {
        reason: Some(Reason::Policy),
        code: Some(code),
        message,
        effective: Effective::RolledBack,
        ..OutcomeDraft::new(Status::Denied)
    }
}

/// The outcome of a command whose end nobody saw.
pub(crate) fn unknown(reason: Reason, code: Option<&str>) -> OutcomeDraft<'_> {
    OutcomeDraft { reason: Some(reason), code, executed: true, ..OutcomeDraft::new(Status::Unknown) }
}

/// The outcome of a command whose session ended before it was forwarded.
pub(crate) fn never_forwarded() -> OutcomeDraft<'static> {
    OutcomeDraft {
        reason: Some(Reason::NotForwarded),
        effective: Effective::RolledBack,
        ..OutcomeDraft::new(Status::Skipped)
    }
}

/// What became of a CancelRequest.
pub(crate) fn cancel(session: Option<SessionId>, peer: SocketAddr, result: CancelResult) -> GatewayEntry {
    GatewayEntry::Cancel(Cancel { session, source: peer.ip().to_canonical().to_string(), result, count: 1 })
}

fn name(name: &[u8]) -> Option<&[u8]> {
    (!name.is_empty()).then_some(name)
}

fn via(via: tap::Via) -> Via {
    match via {
        tap::Via::Extended => Via::Extended,
        tap::Via::Function => Via::Function,
        tap::Via::Parse => Via::Parse,
        tap::Via::Simple => Via::Simple,
    }
}

pub(crate) fn transaction(status: tap::TxStatus) -> Transaction {
    match status {
        tap::TxStatus::Idle => Transaction::Idle,
        tap::TxStatus::Open => Transaction::Open,
        tap::TxStatus::Failed => Transaction::Failed,
    }
}
