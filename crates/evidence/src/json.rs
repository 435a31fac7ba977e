//! A report as JSON, for programs and for the page in the browser.

use ledger::Quorum;
use ledger::audit::{CompletenessVerdict, Violation};
use model::{ApprovalStep, BreakGlassId, BreakGlassStep, CommandId, Identity, wall_text};
use serde_json::{Map, Value, json};

use crate::report::{ApprovalEntry, BreakGlassEntry, Command, Content, From, Report};

/// Of longer content, this many bytes are shown; `length` says how many there are.
pub const SHOWN_BYTES_MAX: usize = 64 * 1024;

impl Report {
    /// What the bundle is, and how much of it can be read: what verdicts on any record do not have.
    #[must_use]
    pub fn bundle_json(&self) -> Value {
        let manifest = self.manifest.as_ref();
        let disclosure: Map<String, Value> = self
            .disclosure
            .iter()
            .map(|(kind, counts)| {
                let counts = json!({
                    "disclosed": counts.disclosed, "withheld": counts.withheld, "erased": counts.erased,
                });
                (kind.to_string(), counts)
            })
            .collect();
        json!({
            "selection": manifest.map(|manifest| manifest.selection.clone()),
            "program": manifest.map(|manifest| manifest.program.clone()),
            "range": manifest.map(|manifest| manifest.range),
            "left_out": self.left_out,
            "selected": manifest.map(crate::Manifest::count),
            "withheld": manifest.map(|manifest| {
                manifest.withheld.iter().map(|kind| kind.as_str()).collect::<Vec<_>>()
            }),
            "disclosure": disclosure,
            "vkey_from": from(self.key_from),
            "policy_from": self.witnessed.as_ref().map(|(_, whose)| from(*whose)),
            "approvals": self.approvals.iter().map(approval).collect::<Vec<_>>(),
            "break_glass": self.break_glass.iter().map(break_glass).collect::<Vec<_>>(),
            "unknown_files": self.unknown_files,
        })
    }

    fn verdicts_json(&self) -> Value {
        let (integrity, completeness) = (&self.audit.integrity, &self.audit.completeness);
        let coverage = &self.audit.coverage;
        let outcomes: Map<String, Value> =
            completeness.outcomes.iter().map(|(status, count)| (status.to_string(), json!(count))).collect();
        let connections: Map<String, Value> =
            coverage.connections.iter().map(|(name, times)| (name.clone(), span(times))).collect();
        json!({
            "integrity": {
                "verdict": if integrity.violation.is_none() { "ok" } else { "violated" },
                "violation": integrity.violation.as_ref().map(violation),
                "entries": integrity.entries,
                "origin": integrity.origin,
                "vkey": integrity.vkey,
                "signed": integrity.signed,
                "root": integrity.root.hex(),
                "blobs": integrity.blobs,
                "signed_decisions": integrity.signed_decisions,
                "signed_decisions_unchecked": integrity.signed_decisions_unchecked,
            },
            "completeness": {
                "verdict": match completeness.verdict {
                    CompletenessVerdict::Ok => "ok",
                    CompletenessVerdict::Violated => "violated",
                    CompletenessVerdict::NotEstablished => "not_established",
                },
                "gaps": completeness.gaps,
                "gaps_count": completeness.gaps_count,
                "commands": completeness.commands,
                "outcomes": outcomes,
                "pending": completeness.pending,
                "sessions": completeness.sessions,
                "sessions_open": completeness.sessions_open,
                "sessions_lost": completeness.sessions_lost,
                "erased_sessions": completeness.erased_sessions,
                "erased_fields": completeness.erased_fields,
                "break_glass": {
                    "opened": completeness.break_glass_opened,
                    "commands": completeness.break_glass_commands,
                    "unreviewed": completeness.break_glass_unreviewed.iter().map(BreakGlassId::to_string).collect::<Vec<_>>(),
                },
            },
            "coverage": {
                "recorded": coverage.recorded.as_ref().map(span),
                "connections": connections,
            },
            "witnesses": self.witnessed.as_ref().map(|(evaluation, _)| json!({
                "quorum": match evaluation.quorum {
                    Quorum::Reached => "reached",
                    Quorum::NotReached => "not_reached",
                    Quorum::NoneRequired => "none_required",
                },
                "cosigned": evaluation.cosigned.iter().map(|(name, seconds)| {
                    json!({"witness": name, "time": seconds_text(*seconds)})
                }).collect::<Vec<_>>(),
            })),
            "bundle": self.bundle_json(),
        })
    }

    /// The whole report, with at most this many commands.
    #[must_use]
    pub fn json(&self, commands_max: usize) -> Value {
        let mut value = self.verdicts_json();
        let commands: Vec<Value> = self.commands.iter().take(commands_max).map(command).collect();
        if let Some(fields) = value.as_object_mut() {
            fields.insert("commands".to_owned(), commands.into());
        }
        value
    }
}

fn violation(violation: &Violation) -> Value {
    json!({
        "index": violation.index,
        "command": violation.command.as_ref().map(CommandId::to_string),
        "file": violation.file,
        "offset": violation.offset,
        "what": violation.what,
    })
}

fn command(command: &Command) -> Value {
    let outcome = command.outcome.as_ref();
    let who = &command.intent.who;
    json!({
        "id": command.intent.command.to_string(),
        "index": command.index,
        "time": wall_text(command.time.wall_us),
        "identity": who.name.to_string(),
        "known": who.known.as_str(),
        "on_behalf_of": who.on_behalf_of.as_ref().map(|principal| principal.name.to_string()),
        "connection": command.intent.connection,
        "database": command.intent.database.as_ref().map(ToString::to_string),
        "verdict": command.intent.verdict.as_str(),
        "observed": command.intent.observed.map(model::Verdict::as_str),
        "approval": command.intent.approval.as_ref().map(CommandId::to_string),
        "break_glass": command.intent.break_glass.as_ref().map(BreakGlassId::to_string),
        "text": content(&command.text),
        "parameters": content(&command.parameters),
        "message": content(&command.message),
        "status": outcome.map_or("pending", |outcome| outcome.status.as_str()),
        "code": outcome.and_then(|outcome| outcome.code.clone()),
        "reason": outcome.and_then(|outcome| outcome.reason).map(model::Reason::as_str),
        "rows": outcome.map(|outcome| outcome.rows),
        "results": outcome.map(|outcome| {
            outcome.results.iter().map(|result| result.tag.clone()).collect::<Vec<_>>()
        }),
        "effective": outcome.map(|outcome| outcome.effective.as_str()),
        "duration_us": outcome.map(|outcome| outcome.duration_us),
    })
}

fn person(by: &Identity) -> Value {
    json!({"name": by.name.as_str(), "known": by.known.as_str(), "proof": by.proof.method.as_str()})
}

/// A step of break-glass: the members depend on which.
fn break_glass(entry: &BreakGlassEntry) -> Value {
    let step = &entry.break_glass.step;
    let mut value = match step {
        BreakGlassStep::Opened(opening) => json!({
            "connection": opening.connection,
            "by": person(&opening.by),
            "reason": opening.reason,
            "until": wall_text(opening.until_us),
        }),
        BreakGlassStep::Closed { how, by } => json!({"how": how.as_str(), "by": by.as_deref().map(person)}),
        BreakGlassStep::Reviewed(review) => json!({
            "by": person(&review.by),
            "finding": review.finding.as_str(),
            "comment": review.comment,
        }),
    };
    if let Some(fields) = value.as_object_mut() {
        fields.insert("id".to_owned(), entry.break_glass.id.to_string().into());
        fields.insert("step".to_owned(), step.word().as_str().into());
        fields.insert("index".to_owned(), entry.index.into());
        fields.insert("time".to_owned(), wall_text(entry.time.wall_us).into());
    }
    value
}

/// A step of an approval: the members depend on which.
fn approval(entry: &ApprovalEntry) -> Value {
    let mut value = match &entry.approval.step {
        ApprovalStep::Requested(request) => json!({
            "request": entry.leaf.hex(),
            "intent": request.intent.hex(),
            "quorum": request.quorum,
            "expires": wall_text(request.expires_us),
        }),
        ApprovalStep::Seen { by } => json!({"by": person(by)}),
        ApprovalStep::Decided(vote) => json!({
            "decision": vote.decision.as_str(),
            "request": vote.request.hex(),
            "by": person(&vote.by),
            "comment": vote.comment,
        }),
        ApprovalStep::Used { command } => json!({"command": command.to_string()}),
        ApprovalStep::Ended { how } => json!({"how": how.as_str()}),
    };
    if let Some(fields) = value.as_object_mut() {
        fields.insert("of".to_owned(), entry.approval.of.to_string().into());
        fields.insert("step".to_owned(), entry.approval.step.word().as_str().into());
        fields.insert("index".to_owned(), entry.index.into());
        fields.insert("time".to_owned(), wall_text(entry.time.wall_us).into());
    }
    value
}

fn content(content: &Content) -> Value {
    match content {
        Content::Disclosed(bytes) => {
            let shown = bytes.get(..SHOWN_BYTES_MAX).unwrap_or(bytes);
            json!({"text": String::from_utf8_lossy(shown), "length": bytes.len(), "cut": shown.len() < bytes.len()})
        }
        other => other.state().map_or(Value::Null, |state| json!({"state": state})),
    }
}

fn from(from: From) -> &'static str {
    match from {
        From::Verifier => "verifier",
        From::Bundle => "bundle",
    }
}

fn span((from, to): &(i64, i64)) -> Value {
    json!({"from": wall_text(*from), "to": wall_text(*to)})
}

fn seconds_text(seconds: u64) -> String {
    wall_text(i64::try_from(seconds.saturating_mul(1_000_000)).unwrap_or(i64::MAX))
}
