//! The story of an approval or of break-glass: what the record says of it, for people and for programs.

use std::collections::BTreeSet;
use std::sync::Arc;

use model::{
    ApprovalDecision, ApprovalStep, BreakGlassFinding, BreakGlassId, BreakGlassStep, CommandId, Identity, wall_text,
};
use serde_json::{Value, json};
use store::{ApprovalEntry, ApprovalStory, BreakGlassEntry, CommandView, Reader};

use super::{source, words};
use crate::Failure;
use crate::output::Tone;

/// The approval that a command waited for or ran under: its own, or that of another command.
pub(super) fn of(reader: &Reader, view: &CommandView) -> Result<Option<ApprovalStory>, Failure> {
    reader.approval_story(view.approval.unwrap_or(view.id)).map_err(source::unreadable)
}

/// The approvals in a bundle that are of these commands, or were used by them.
pub(super) fn in_bundle(bundle: &evidence::Report) -> Vec<(CommandId, ApprovalStory)> {
    let story = |of: CommandId| {
        let steps = bundle.approvals.iter().filter(|step| step.approval.of == of);
        let entry = |step: &evidence::ApprovalEntry| {
            let evidence::ApprovalEntry { index, time, leaf, approval } = step.clone();
            Arc::new(ApprovalEntry { index, time, leaf, step: approval.step })
        };
        ApprovalStory { of, steps: steps.map(entry).collect(), void: None }
    };
    let commands = bundle.commands.iter().map(|command| &command.intent);
    let stories = commands.map(|intent| (intent.command, story(intent.approval.unwrap_or(intent.command))));
    stories.filter(|(_, story)| !story.steps.is_empty()).collect()
}

/// The story in lines, told to somebody who looks at this command.
pub(super) fn told(story: &ApprovalStory, command: CommandId) -> Vec<(Tone, String)> {
    let mut lines = Vec::new();
    if story.of != command {
        lines.push((Tone::Plain, format!("of command {}", story.of)));
    }
    for entry in &story.steps {
        let at = words::in_full(entry.time.wall_us);
        lines.push(match &entry.step {
            ApprovalStep::Requested(request) => {
                let people = words::counted(request.quorum, "person", "people");
                let until = words::in_full(request.expires_us);
                (Tone::Plain, format!("asked for at {at}, until {until}, of {people}"))
            }
            ApprovalStep::Seen { by } => (Tone::Faint, format!("seen by {} at {at}", person(by))),
            ApprovalStep::Decided(vote) => {
                let (tone, decided) = match vote.decision {
                    ApprovalDecision::Approve => (Tone::Good, "approved"),
                    ApprovalDecision::Deny => (Tone::Bad, "denied"),
                };
                let comment = vote.comment.as_ref().map_or_else(String::new, |comment| format!(": {comment}"));
                let signed = if vote.signature.is_some() { ", signed by a passkey" } else { "" };
                (tone, format!("{decided} by {} at {at}{signed}{comment}", person(&vote.by)))
            }
            ApprovalStep::Used { command: by } if *by == command => {
                (Tone::Good, format!("used by this command at {at}"))
            }
            ApprovalStep::Used { command: by } => (Tone::Plain, format!("used by command {by} at {at}")),
            ApprovalStep::Ended { how } => (Tone::Warning, format!("{how} at {at}")),
        });
    }
    if let Some((index, time)) = story.void {
        let at = words::in_full(time.wall_us);
        lines.push((Tone::Warning, format!("void since {at}: the gateway stopped or started again (entry {index})")));
    }
    lines
}

/// The story for programs.
pub(super) fn as_json(story: &ApprovalStory) -> Value {
    let place = |entry: &ApprovalEntry| (entry.index, wall_text(entry.time.wall_us));
    let (mut asked, mut used, mut ended) = (Value::Null, Value::Null, Value::Null);
    let (mut seen, mut votes) = (Vec::new(), Vec::new());
    for entry in &story.steps {
        let (index, time) = place(entry);
        match &entry.step {
            ApprovalStep::Requested(request) => {
                asked = json!({
                    "entry": index,
                    "time": time,
                    "request": entry.leaf.hex(),
                    "intent": request.intent.hex(),
                    "connection": request.connection,
                    "database": request.database.as_ref().map(ToString::to_string),
                    "role": request.role,
                    "policy": request.policy.hex(),
                    "quorum": request.quorum,
                    "signed": request.signed,
                    "expires": wall_text(request.expires_us),
                });
            }
            ApprovalStep::Seen { by } => seen.push(json!({"entry": index, "time": time, "by": identity(by)})),
            ApprovalStep::Decided(vote) => votes.push(json!({
                "entry": index,
                "time": time,
                "by": identity(&vote.by),
                "decision": vote.decision.as_str(),
                "request": vote.request.hex(),
                "comment": vote.comment,
                "passkey": vote.signature.as_ref().map(|signature| &signature.credential),
            })),
            ApprovalStep::Used { command } => {
                used = json!({"entry": index, "time": time, "command": command.to_string()});
            }
            ApprovalStep::Ended { how } => ended = json!({"entry": index, "time": time, "how": how.as_str()}),
        }
    }
    json!({
        "of": story.of.to_string(),
        "state": state(story),
        "asked": asked,
        "seen": seen,
        "votes": votes,
        "used": used,
        "ended": ended,
        "void": story.void.map(|(index, time)| json!({"entry": index, "time": wall_text(time.wall_us)})),
    })
}

/// What an approval has come to, in the words that the gateway's API has for it, and `void`.
fn state(story: &ApprovalStory) -> &'static str {
    let (mut quorum, mut approved, mut denied) = (1, BTreeSet::new(), false);
    for entry in &story.steps {
        match &entry.step {
            ApprovalStep::Requested(request) => quorum = request.quorum,
            ApprovalStep::Decided(vote) => match vote.decision {
                ApprovalDecision::Approve => drop(approved.insert(vote.by.name.as_str())),
                ApprovalDecision::Deny => denied = true,
            },
            ApprovalStep::Used { .. } => return "used",
            ApprovalStep::Ended { how } => return how.as_str(),
            ApprovalStep::Seen { .. } => {}
        }
    }
    match (denied, story.void, u64::try_from(approved.len())) {
        (true, _, _) => "denied",
        (false, Some(_), _) => "void",
        (false, None, Ok(approved)) if approved < quorum => "waiting",
        (false, None, _) => "approved",
    }
}

/// The steps of break-glass, as the record or a bundle has them.
pub(super) struct GlassStory {
    pub(super) id: BreakGlassId,
    steps: Vec<Arc<BreakGlassEntry>>,
}

/// The break-glass that a command's sender had opened, if one was.
pub(super) fn glass_of(reader: &Reader, view: &CommandView) -> Result<Option<GlassStory>, Failure> {
    let Some(id) = view.break_glass else { return Ok(None) };
    let steps = reader.break_glass(id).map_err(source::unreadable)?;
    Ok(Some(GlassStory { id, steps }))
}

/// All break-glass of a bundle.
pub(super) fn glasses_in_bundle(bundle: &evidence::Report) -> Vec<GlassStory> {
    let mut stories: Vec<GlassStory> = Vec::new();
    for evidence::BreakGlassEntry { index, time, break_glass } in &bundle.break_glass {
        let entry = Arc::new(BreakGlassEntry { index: *index, time: *time, step: break_glass.step.clone() });
        match stories.iter_mut().find(|story| story.id == break_glass.id) {
            Some(story) => story.steps.push(entry),
            None => stories.push(GlassStory { id: break_glass.id, steps: vec![entry] }),
        }
    }
    stories
}

/// The story in lines.
pub(super) fn glass_told(story: &GlassStory) -> Vec<(Tone, String)> {
    let mut lines = vec![(Tone::Warning, story.id.to_string())];
    let mut reviewed = false;
    for entry in &story.steps {
        let at = words::in_full(entry.time.wall_us);
        lines.push(match &entry.step {
            BreakGlassStep::Opened(opening) => {
                let until = words::in_full(opening.until_us);
                let (by, connection) = (person(&opening.by), &opening.connection);
                (Tone::Plain, format!("opened by {by} on {connection} at {at}, until {until}: {}", opening.reason))
            }
            BreakGlassStep::Closed { how, by: Some(by) } => {
                (Tone::Plain, format!("closed at {at} ({how}) by {}", person(by)))
            }
            BreakGlassStep::Closed { how, by: None } => (Tone::Plain, format!("closed at {at} ({how})")),
            BreakGlassStep::Reviewed(review) => {
                reviewed = true;
                let (tone, found) = match review.finding {
                    BreakGlassFinding::Justified => (Tone::Good, "justified"),
                    BreakGlassFinding::NotJustified => (Tone::Bad, "not justified"),
                };
                (tone, format!("reviewed by {} at {at}: {found}: {}", person(&review.by), review.comment))
            }
        });
    }
    if !reviewed {
        lines.push((Tone::Warning, "not reviewed yet".to_owned()));
    }
    lines
}

/// The story for programs.
pub(super) fn glass_as_json(story: &GlassStory) -> Value {
    let (mut opened, mut closed, mut review) = (Value::Null, Value::Null, Value::Null);
    for entry in &story.steps {
        let (index, time) = (entry.index, wall_text(entry.time.wall_us));
        match &entry.step {
            BreakGlassStep::Opened(opening) => {
                opened = json!({
                    "entry": index,
                    "time": time,
                    "by": identity(&opening.by),
                    "connection": opening.connection,
                    "reason": opening.reason,
                    "until": wall_text(opening.until_us),
                });
            }
            BreakGlassStep::Closed { how, by } => {
                let by = by.as_deref().map(identity);
                closed = json!({"entry": index, "time": time, "how": how.as_str(), "by": by});
            }
            BreakGlassStep::Reviewed(told) => {
                review = json!({
                    "entry": index,
                    "time": time,
                    "by": identity(&told.by),
                    "finding": told.finding.as_str(),
                    "comment": told.comment,
                });
            }
        }
    }
    json!({"id": story.id.to_string(), "opened": opened, "closed": closed, "review": review})
}

/// Who, and how that is known.
fn person(by: &Identity) -> String {
    format!("{} ({}, {})", by.name, by.known, by.proof.method)
}

fn identity(by: &Identity) -> Value {
    json!({"name": by.name.as_str(), "known": by.known.as_str(), "proof": by.proof.method.as_str()})
}
