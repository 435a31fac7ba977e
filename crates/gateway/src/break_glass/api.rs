//! Break-glass over the HTTP API.
//!
//! ```text
//! POST /v1/break-glass             the bearer breaks the glass
//! GET  /v1/break-glass             those that are open or were not reviewed, as far as the bearer may see them
//! GET  /v1/break-glass/ID          all of one, with the commands under it, a page at a time: `after` is what `next` was
//! POST /v1/break-glass/ID/close    the bearer closes it
//! POST /v1/break-glass/ID/review   what the bearer found
//! ```
//!
//! Invariant: what is answered is durable. Who may not use a connection learns nothing of it.

use std::sync::Arc;
use std::time::Duration;

use hyper::{Method, StatusCode};
use model::{
    AbsentReason, BreakGlassFinding, BreakGlassId, BreakGlassReview, BreakGlassStep, BreakGlassWord, Effects, Identity,
    wall_text,
};
use policy::break_glass::{GlassRules, LASTS_MAX, NotOpened, NotReviewed, Standing};
use serde::Deserialize;
use serde_json::{Value, json};
use store::{CommandView, Filter, Opened, Reader, StoreError, commands_between};

use super::{Asked, BreakGlass, Held, NotDone};
use crate::approvals::problem;
use crate::config::Config;

/// Commands of one page.
const PAGE_COMMANDS_MAX: usize = 500;
/// Characters of a statement, and of its parameters, that are shown.
const CONTENT_CHARACTERS_MAX: usize = 4000;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Opening {
    connection: String,
    reason: String,
    seconds: Option<u64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Finding {
    finding: String,
    comment: String,
}

type Answer = (StatusCode, Value);

/// Answers a request of somebody who is proven to be `by`. The path is what follows `/v1/break-glass`.
pub(crate) async fn answer(
    glasses: &Arc<BreakGlass>,
    config: &Config,
    by: &Identity,
    method: &Method,
    path: &str,
    query: Option<&str>,
    body: &[u8],
) -> Answer {
    let place = path.strip_prefix('/').map(|path| path.split_once('/').unwrap_or((path, "")));
    match (method, place) {
        (&Method::GET, None) => list(glasses, config, by),
        (&Method::POST, None) => open(glasses, config, by, body),
        (_, Some((id, what))) => {
            let Ok(id) = id.parse() else { return unknown() };
            match (method, what) {
                (&Method::GET, "") => show(glasses, config, by, id, query).await,
                (&Method::POST, "close") => close(glasses, config, by, id),
                (&Method::POST, "review") => review(glasses, config, by, id, body).await,
                (_, "" | "close" | "review") => wrong_method(),
                _ => unknown(),
            }
        }
        _ => wrong_method(),
    }
}

fn open(glasses: &BreakGlass, config: &Config, by: &Identity, body: &[u8]) -> Answer {
    let form: Opening = match serde_json::from_slice(body) {
        Ok(form) => form,
        Err(error) => return invalid(&error, "send {\"connection\": NAME, \"reason\": TEXT, \"seconds\": NUMBER}"),
    };
    let grants = config.grants(&form.connection);
    if grants.is_none_or(|grants| grants.admit(&by.name, &by.groups).is_none()) {
        // One answer, so that nobody learns which connections there are.
        let text = format!("connection \"{}\" does not exist, or {} may not use it", form.connection, by.name);
        return problem(StatusCode::NOT_FOUND, "not_found", &text, "`onrecord whoami` lists those you may use");
    }
    let rules = config.glass_rules(&form.connection);
    let longest = rules.map_or(LASTS_MAX, |rules| rules.longest);
    let lasts = form.seconds.map_or(longest, Duration::from_secs);
    let asked = Asked { by, connection: &form.connection, reason: form.reason.trim(), lasts };
    match glasses.break_it(&asked, rules) {
        Ok(id) => one(glasses, config, by, id),
        Err(why) => not_done(&why),
    }
}

fn list(glasses: &BreakGlass, config: &Config, by: &Identity) -> Answer {
    let known = glasses.read();
    let unreviewed = known.known.iter().filter(|(_, held)| !held.is_reviewed() && concerns(held, config, by));
    let all: Vec<Value> = unreviewed.map(|(id, held)| summary(*id, held, config, by)).collect();
    (StatusCode::OK, json!({ "break_glass": all }))
}

fn close(glasses: &BreakGlass, config: &Config, by: &Identity, id: BreakGlassId) -> Answer {
    let Some(rules) = rules_for(glasses, config, by, id) else { return unknown() };
    match glasses.close_it(id, by, rules) {
        Ok(()) => one(glasses, config, by, id),
        Err(why) => not_done(&why),
    }
}

async fn review(glasses: &Arc<BreakGlass>, config: &Config, by: &Identity, id: BreakGlassId, body: &[u8]) -> Answer {
    let hint = "send {\"finding\": \"justified\" or \"not_justified\", \"comment\": TEXT}";
    let form: Finding = match serde_json::from_slice(body) {
        Ok(form) => form,
        Err(error) => return invalid(&error, hint),
    };
    let Some(finding) = BreakGlassFinding::parse(&form.finding) else {
        return invalid(&"a finding is \"justified\" or \"not_justified\"", hint);
    };
    let Some(rules) = rules_for(glasses, config, by, id) else { return unknown() };
    let review = BreakGlassReview { by: by.clone(), finding, comment: form.comment.trim().to_owned() };
    // What ran under it may fill much of the record: nothing else waits while that is looked through.
    let (reviewed, rules) = (glasses.clone(), rules.cloned());
    let reviewed = tokio::task::spawn_blocking(move || reviewed.review(id, review, rules.as_ref()));
    match reviewed.await {
        Ok(Ok(())) => one(glasses, config, by, id),
        Ok(Err(why)) => not_done(&why),
        Err(_) => unreadable("the reading was broken off"),
    }
}

/// The rules by which somebody may close or review one, if they may see it at all.
fn rules_for<'a>(
    glasses: &BreakGlass,
    config: &'a Config,
    by: &Identity,
    id: BreakGlassId,
) -> Option<Option<&'a GlassRules>> {
    let known = glasses.read();
    let held = known.known.get(&id).filter(|held| concerns(held, config, by))?;
    Some(rules_of(held, config))
}

fn rules_of<'a>(held: &Held, config: &'a Config) -> Option<&'a GlassRules> {
    config.glass_rules(&held.glass.opening().connection)
}

/// Whether somebody may see one: who opened it, and who may review it.
fn concerns(held: &Held, config: &Config, by: &Identity) -> bool {
    let opener = &held.glass.opening().by.name;
    let own = *opener == by.name && by.on_behalf_of.is_none();
    own || rules_of(held, config).is_some_and(|rules| rules.may_review(opener, by).is_ok())
}

fn one(glasses: &BreakGlass, config: &Config, by: &Identity, id: BreakGlassId) -> Answer {
    match glasses.read().known.get(&id) {
        Some(held) => (StatusCode::OK, summary(id, held, config, by)),
        None => unknown(),
    }
}

async fn show(
    glasses: &Arc<BreakGlass>,
    config: &Config,
    by: &Identity,
    id: BreakGlassId,
    query: Option<&str>,
) -> Answer {
    let after = match after_of(query) {
        Ok(after) => after,
        Err(refused) => return refused,
    };
    let (mut value, window) = {
        let known = glasses.read();
        let Some(held) = known.known.get(&id).filter(|held| concerns(held, config, by)) else { return unknown() };
        (summary(id, held, config, by), held.window())
    };
    // Its commands may fill much of the record: nothing else waits while it is read.
    let commands = if let Some((first, last)) = window {
        let reader = glasses.reader.clone();
        tokio::task::spawn_blocking(move || {
            commands(&reader, id, after.map_or(first, |after| after.saturating_add(1).max(first)), last)
        })
        .await
    } else {
        Ok(Ok(Value::Null))
    };
    let commands = match commands {
        Ok(Ok(commands)) => commands,
        Ok(Err(error)) => return unreadable(&error.to_string()),
        Err(_) => return unreadable("the reading was broken off"),
    };
    if let Some(fields) = value.as_object_mut() {
        fields.insert("next".to_owned(), commands.get("next").cloned().unwrap_or(Value::Null));
        fields.insert("commands".to_owned(), commands.get("list").cloned().unwrap_or(Value::Null));
    }
    (StatusCode::OK, value)
}

/// Where the page before this one ended, if this is not the first.
fn after_of(query: Option<&str>) -> Result<Option<u64>, Answer> {
    let mut pairs = form_urlencoded::parse(query.unwrap_or_default().as_bytes());
    let after = pairs.find(|(key, _)| key == "after").map(|(_, value)| value.parse());
    after.transpose().map_err(|_| invalid(&"`after` is what `next` was on the page before", ""))
}

/// The first page of the commands that name it and whose intents are between these entries, oldest first; `next` says
/// whether there may be another one.
pub(super) fn commands(reader: &Reader, id: BreakGlassId, first: u64, last: u64) -> Result<Value, StoreError> {
    let filter = Filter { break_glass: Some(id), ..Filter::default() };
    let (mut list, mut end) = (Vec::new(), None);
    for view in commands_between(reader, filter, first, last).first(PAGE_COMMANDS_MAX) {
        let view = view?;
        end = end.max(Some(view.index));
        list.push(command(&view));
    }
    let next = end.filter(|_| list.len() >= PAGE_COMMANDS_MAX);
    Ok(json!({"list": list, "next": next}))
}

/// The beginning of content; and whether that is not all of it.
fn shown(content: &Opened) -> (Option<String>, bool) {
    let Some(text) = content.text() else { return (None, !matches!(content, Opened::Absent(AbsentReason::None))) };
    let mut characters = text.chars();
    let beginning: String = characters.by_ref().take(CONTENT_CHARACTERS_MAX).collect();
    let longer = characters.next().is_some() || matches!(content, Opened::Blob { .. });
    (Some(beginning), longer)
}

fn command(view: &CommandView) -> Value {
    let (statement, statement_shortened) = shown(&view.text);
    let (parameters, parameters_shortened) = shown(&view.parameters);
    let outcome = view.outcome.as_ref();
    let effects: Vec<&str> = match &view.effects {
        Effects::NotEstablished => Vec::new(),
        Effects::Established(facts) => facts.effects.iter().map(|effect| effect.as_str()).collect(),
    };
    json!({
        "id": view.id.to_string(),
        "time": wall_text(view.time.wall_us),
        "database": view.database.as_ref().map(ToString::to_string),
        "via": view.via.as_str(),
        "verdict": view.verdict.as_str(),
        "lifted": view.observed == Some(model::Verdict::Hold) && view.verdict == model::Verdict::Allow,
        "rules": view.rules,
        "effects": effects,
        "statement": statement,
        "statement_shortened": statement_shortened,
        "parameters": parameters.filter(|text| text != "[]"),
        "parameters_shortened": parameters_shortened,
        "status": view.status().as_str(),
        "code": outcome.and_then(|outcome| outcome.code.as_deref()),
        "rows": outcome.map(|outcome| outcome.rows),
        "streams": outcome.and_then(|outcome| outcome.transcript.as_ref()).map(|streams| json!({
            "stdin": streams.stdin, "stdout": streams.stdout, "stderr": streams.stderr, "kept": streams.kept,
        })),
        "file": outcome.and_then(|outcome| outcome.file.as_ref()).map(|file| json!({
            "read": file.read, "written": file.written, "sha256": file.sha256.text(),
        })),
        "results": outcome.map(|outcome| outcome.results.iter().map(|result| &*result.tag).collect::<Vec<_>>()),
    })
}

fn summary(id: BreakGlassId, held: &Held, config: &Config, by: &Identity) -> Value {
    let opening = held.glass.opening();
    let state = match held.glass.standing() {
        Standing::Open => "open",
        Standing::Closed(_) => "closed",
        Standing::Reviewed(_) => "reviewed",
    };
    let reviewer = rules_of(held, config).is_some_and(|rules| rules.may_review(&opening.by.name, by).is_ok());
    let time = |word| held.step(word).map(|step| wall_text(step.time.wall_us));
    let (how, closed_by) = match held.closed().map(|step| &step.step) {
        Some(BreakGlassStep::Closed { how, by }) => (Some(how.as_str()), by.as_ref().map(|by| by.name.as_str())),
        _ => (None, None),
    };
    let review = match held.step(BreakGlassWord::Reviewed).map(|step| &step.step) {
        Some(BreakGlassStep::Reviewed(review)) => json!({
            "by": review.by.name.as_str(),
            "finding": review.finding.as_str(),
            "comment": review.comment,
            "time": time(BreakGlassWord::Reviewed),
        }),
        _ => Value::Null,
    };
    json!({
        "id": id.to_string(),
        "state": state,
        "connection": opening.connection,
        "opener": opening.by.name.as_str(),
        "known": opening.by.known.as_str(),
        "proof": opening.by.proof.method.as_str(),
        "reason": opening.reason,
        "opened": time(BreakGlassWord::Opened),
        "until": wall_text(opening.until_us),
        "closed": time(BreakGlassWord::Closed),
        "how": how,
        "closed_by": closed_by,
        "review": review,
        "may_close": state == "open" && (reviewer || opening.by.name == by.name),
        "may_review": state == "closed" && reviewer,
    })
}

fn not_done(why: &NotDone) -> Answer {
    let (status, code, hint) = match why {
        NotDone::Unknown => return unknown(),
        NotDone::NotConfigured(_) => (
            StatusCode::CONFLICT,
            "not_configured",
            "the gateway's operator writes [connections.NAME.break_glass] with openers = [\"human:NAME\"]",
        ),
        NotDone::NotOpened(NotOpened::NotAllowed(_))
        | NotDone::NotYours(_)
        | NotDone::NotReviewed(NotReviewed::NotAllowed(_)) => (StatusCode::FORBIDDEN, "not_allowed", ""),
        NotDone::NotOpened(NotOpened::Lasts(_) | NotOpened::Reason) | NotDone::NotReviewed(NotReviewed::Comment) => {
            (StatusCode::BAD_REQUEST, "invalid_request", "")
        }
        NotDone::Already(_) => (StatusCode::CONFLICT, "already_open", "close it first, to open it anew"),
        NotDone::TooMany(_) => (StatusCode::CONFLICT, "not_reviewed", "another person reviews them first"),
        NotDone::Over | NotDone::NotReviewed(NotReviewed::Again) => (StatusCode::CONFLICT, "not_open", ""),
        NotDone::NotReviewed(NotReviewed::Open) => {
            (StatusCode::CONFLICT, "still_open", "close it, or wait until its time is over")
        }
        NotDone::Running(_) => {
            (StatusCode::CONFLICT, "still_running", "what has begun outlives the end: review it once all has ended")
        }
        NotDone::Unreadable(why) => return unreadable(&why.to_string()),
        NotDone::Record(_) => {
            let hint = "the gateway's operator should look at its disk";
            (StatusCode::SERVICE_UNAVAILABLE, "not_recorded", hint)
        }
    };
    problem(status, code, &why.to_string(), hint)
}

fn invalid(why: &dyn std::fmt::Display, hint: &str) -> Answer {
    problem(StatusCode::BAD_REQUEST, "invalid_request", &format!("the request cannot be read: {why}"), hint)
}

fn unreadable(why: &str) -> Answer {
    let text = format!("the commands under it cannot be read: {why}");
    problem(StatusCode::SERVICE_UNAVAILABLE, "not_readable", &text, "the gateway's operator should look at its disk")
}

fn wrong_method() -> Answer {
    problem(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", "use GET, or POST to open, close and review", "")
}

fn unknown() -> Answer {
    let hint = "`onrecord break-glass list` has those that are open or wait for a review";
    problem(StatusCode::NOT_FOUND, "not_found", "there is no such break-glass, or it is not for you to see", hint)
}
