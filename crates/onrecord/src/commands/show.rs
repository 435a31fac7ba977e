//! `onrecord show ID`: everything known of a command or a session, in order.

use clap::Args;
use std::sync::Arc;

use model::{CommandId, Evidence, Oversight, OversightAction, SessionId, Time, wall_text};
use serde_json::{Value, json};
use store::{CommandView, Erasure, OutcomeView, Reader, SessionView};

use super::row::{self, Row, Times};
use super::selection::Selection;
use super::source::{self, Named, state};
use super::{Context, sessions, story, words};
use crate::Failure;
use crate::cli::RecordPlace;
use crate::output::{Console, Format, Tone, lines, single_line};

/// Columns of a fact's name.
const NAME: usize = 14;

/// Arguments of `show`.
#[derive(Debug, Args)]
pub struct Show {
    /// A command (SESSION.N) or a session, in full or by the end of the session's id
    id: String,
    #[command(flatten)]
    place: RecordPlace,
}

impl Show {
    /// Does it.
    pub fn run(self, context: &mut Context) -> Result<(), Failure> {
        let reader = context.reader(&self.place)?;
        match source::named(&reader, &self.id)? {
            Named::Command(id) => command(&reader, id, &mut context.console),
            Named::Session(id) => session(&reader, id, &mut context.console),
        }
    }
}

fn command(reader: &Reader, id: CommandId, console: &mut Console) -> Result<(), Failure> {
    let view = source::command(reader, id)?;
    let intent = hash(reader, view.index)?;
    let outcome = view.outcome.as_ref().map(|outcome| hash(reader, outcome.index)).transpose()?;
    let approval = story::of(reader, &view)?;
    let glass = story::glass_of(reader, &view)?;
    if console.format() != Format::Table {
        let mut value = serde_json::to_value(Row::from(view.clone())).map_err(Failure::new)?;
        if let (Some(fields), Some(more)) =
            (value.as_object_mut(), evidence(&view, &intent, outcome.as_deref()).as_object_mut())
        {
            fields.append(more);
            fields.insert("approval".to_owned(), approval.as_ref().map_or(Value::Null, story::as_json));
            fields.insert("break_glass".to_owned(), glass.as_ref().map_or(Value::Null, story::glass_as_json));
        }
        return Ok(console.json(&value)?);
    }
    let who = &view.who;
    let mut facts = Facts { console };
    facts.say("command", &view.id.to_string())?;
    facts.say("time", &words::in_full(view.time.wall_us))?;
    facts.say("who", &format!("{} ({})", who.name, who.known))?;
    if let Some(principal) = &who.on_behalf_of {
        facts.say("on behalf of", &format!("{} ({})", principal.name, principal.known))?;
    }
    facts.say("connection", &format!("{}{}", view.connection, words::database(view.database.as_ref())))?;
    let named = |what: &str, label: &Option<model::Label>| match label.as_ref().map(ToString::to_string) {
        Some(name) if !name.is_empty() => format!(", {what} {name}"),
        _ => String::new(),
    };
    let (statement, portal) = (named("statement", &view.statement), named("portal", &view.portal));
    facts.say("via", &format!("{}{statement}{portal}", view.via))?;
    if let Some(transaction) = view.transaction {
        facts.say("transaction", &format!("{transaction} when it was sent"))?;
    }
    facts.say("fidelity", view.fidelity.as_str())?;
    decided(&mut facts, &view)?;
    approved(&mut facts, &view, approval.as_ref())?;
    let mut name = "break-glass";
    for (tone, line) in glass.as_ref().map(story::glass_told).unwrap_or_default() {
        facts.toned(name, tone, &line)?;
        name = "";
    }
    facts.say("durability", view.durability.as_str())?;
    if let Some(upstream) = view.upstream {
        facts.toned("upstream", Tone::Warning, &format!("{upstream}: others on the way can read and change it"))?;
    }
    claims(&mut facts, &view.claims)?;
    facts.content("text", &view.text)?;
    parameters(&mut facts, &view)?;
    match &view.outcome {
        Some(outcome) => ended(&mut facts, &view, outcome)?,
        None => facts.toned("status", Tone::Faint, "pending: no outcome yet")?,
    }
    facts.say("intent", &format!("entry {}, leaf {intent}", view.index))?;
    if let Some(request) = approval.as_ref().and_then(|approval| approval.steps.first()) {
        facts.say("request", &format!("entry {}, leaf {}", request.index, request.leaf.hex()))?;
    }
    if let (Some(outcome), Some(hash)) = (&view.outcome, outcome) {
        facts.say("outcome", &format!("entry {}, leaf {hash}", outcome.index))?;
    }
    Ok(())
}

/// What was decided, by what, on what.
fn decided(facts: &mut Facts<'_>, view: &CommandView) -> Result<(), Failure> {
    let tone = match view.verdict {
        model::Verdict::Allow => Tone::Plain,
        model::Verdict::Deny => Tone::Bad,
        model::Verdict::Hold => Tone::Warning,
    };
    facts.toned("verdict", tone, view.verdict.as_str())?;
    if let Some(observed) = view.observed {
        let otherwise = match view.break_glass {
            Some(_) => "had the glass not been broken and the policy been enforced",
            None => "had the policy been enforced",
        };
        facts.toned("observed", Tone::Warning, &format!("{observed}, {otherwise}"))?;
    }
    if !view.rules.is_empty() {
        facts.say("rules", &view.rules.join(", "))?;
    }
    if let Some(policy) = view.policy {
        facts.say("policy", &format!("sha256 {}", policy.hex()))?;
    }
    let model::Effects::Established(does) = &view.effects else { return Ok(()) };
    let words = |words: Vec<&str>| words.join(", ");
    let operations = words(does.operations.iter().map(|word| word.as_str()).collect());
    facts.say(
        "statement",
        &format!("{operations} ({})", words(does.effects.iter().map(|word| word.as_str()).collect())),
    )?;
    for relation in &does.relations {
        let schema = relation.schema.as_ref().map_or_else(String::new, |schema| format!("{schema}."));
        let access = words(relation.access.iter().map(|word| word.as_str()).collect());
        facts.say("relation", &single_line(&format!("{schema}{}  {access}", relation.name)))?;
    }
    if !does.functions.is_empty() {
        facts.say("functions", &single_line(&does.functions.join(", ")))?;
    }
    if !does.complete() {
        let why = words(does.opaque.iter().map(|word| word.as_str()).collect());
        facts.toned("not known", Tone::Warning, &format!("it may do more: {why}"))?;
    }
    Ok(())
}

/// Who approved it, if it needed that, and what came of the approval.
fn approved(facts: &mut Facts<'_>, view: &CommandView, approval: Option<&store::ApprovalStory>) -> Result<(), Failure> {
    let Some(approval) = approval else {
        let waits = view.verdict == model::Verdict::Hold;
        return if waits { facts.toned("approval", Tone::Faint, "not asked for") } else { Ok(()) };
    };
    let mut name = "approval";
    for (tone, line) in story::told(approval, view.id) {
        facts.toned(name, tone, &line)?;
        name = "";
    }
    Ok(())
}

/// As [`decided`], for programs.
fn effects(view: &CommandView) -> Value {
    let model::Effects::Established(does) = &view.effects else { return Value::Null };
    let relation = |relation: &model::Relation| {
        json!({
            "schema": relation.schema,
            "name": relation.name,
            "access": relation.access.iter().map(|word| word.as_str()).collect::<Vec<_>>(),
        })
    };
    json!({
        "operation": does.operation.as_str(),
        "operations": does.operations.iter().map(|word| word.as_str()).collect::<Vec<_>>(),
        "effects": does.effects.iter().map(|word| word.as_str()).collect::<Vec<_>>(),
        "relations": does.relations.iter().map(relation).collect::<Vec<_>>(),
        "functions": does.functions,
        "has_where": does.bounded,
        "fingerprint": does.fingerprint.map(|fingerprint| fingerprint.hex()),
        "complete": does.complete(),
        "opaque": does.opaque.iter().map(|word| word.as_str()).collect::<Vec<_>>(),
    })
}

fn parameters(facts: &mut Facts<'_>, view: &CommandView) -> Result<(), Failure> {
    let row = Row::from(view.clone());
    match (row.parameters, row.parameters_state) {
        (Some(Value::Array(values)), _) => {
            for (number, value) in (1..).zip(&values) {
                facts.say(&format!("${number}"), &parameter(value))?;
            }
            Ok(())
        }
        (Some(Value::Object(asked)), _) => {
            for (name, value) in &asked {
                facts.say(name, &single_line(&value.as_str().map_or_else(|| value.to_string(), str::to_owned)))?;
            }
            Ok(())
        }
        (_, Some(why)) => facts.toned("parameters", Tone::Faint, &why),
        (_, None) => Ok(()),
    }
}

/// A parameter for people: its value and type.
pub(super) fn parameter(value: &Value) -> String {
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    match (value, value.get("type"), value.get("value")) {
        (Value::Null, _, _) => "null".to_owned(),
        (_, Some(kind), Some(value)) => format!("{}  ({})", text(value), text(kind)),
        (other, _, _) => other.to_string(),
    }
}

fn ended(facts: &mut Facts<'_>, view: &CommandView, outcome: &OutcomeView) -> Result<(), Failure> {
    let status = view.status().as_str();
    let detail = outcome.code.as_deref().or(outcome.reason.map(model::Reason::as_str));
    let detail = detail.map_or_else(String::new, |detail| format!(" {detail}"));
    facts.toned("status", row::tone_of(status), &format!("{status}{detail}"))?;
    if outcome.message.text().is_some() || state(&outcome.message).is_some() {
        facts.content("message", &outcome.message)?;
    }
    let tags = outcome.results.iter().map(|result| match result.rows {
        // SQL's tags have the number in them, those of programs and files do not.
        Some(rows) if !result.tag.ends_with(|last: char| last.is_ascii_digit()) => format!("{} {rows}", result.tag),
        _ => result.tag.clone(),
    });
    let tags: Vec<String> = tags.collect();
    if !tags.is_empty() {
        let more = outcome.results_count.saturating_sub(tags.len() as u64);
        let more = if more > 0 { format!(", and {more} more") } else { String::new() };
        facts.say("result", &format!("{}{more}", tags.join(", ")))?;
    }
    if view.transaction.is_some() {
        facts.say("rows", &outcome.rows.to_string())?;
    }
    if let Some(copy) = outcome.copy {
        facts.say("copy", &format!("{} bytes {}", copy.bytes, copy.direction))?;
    }
    facts.say("bytes", &format!("{} up, {} down", outcome.bytes_up, outcome.bytes_down))?;
    facts.say("took", &words::duration(outcome.duration_us))?;
    if view.transaction.is_some() {
        facts.say("effects", outcome.effective.as_str())?;
    }
    streams(facts, outcome)?;
    if outcome.notices > 0 {
        facts.say("notices", &outcome.notices.to_string())?;
    }
    if outcome.suspended {
        facts.say("fetched", &format!("in {} parts, not to its end", outcome.fetches))?;
    }
    if !outcome.executed {
        facts.say("executed", "no")?;
    }
    Ok(())
}

/// What went over a program's streams, and in and out of a file.
fn streams(facts: &mut Facts<'_>, outcome: &OutcomeView) -> Result<(), Failure> {
    if let Some(transcript) = &outcome.transcript {
        let all = transcript.stdin + transcript.stdout + transcript.stderr;
        let kept = match transcript.kept {
            kept if kept == all => String::new(),
            kept => format!("; the first {kept} are kept"),
        };
        let model::Transcript { stdin, stdout, stderr, .. } = transcript;
        facts.say("streams", &format!("{stdin} bytes in, {stdout} out, {stderr} of errors{kept}"))?;
    }
    if let Some(file) = &outcome.file {
        facts.say("file", &format!("{} bytes read, {} written", file.read, file.written))?;
        if file.sha256.text().is_some() {
            facts.content("sha256", &file.sha256)?;
        }
    }
    Ok(())
}

fn evidence(view: &CommandView, intent: &str, outcome: Option<&str>) -> Value {
    let ended = view.outcome.as_ref();
    json!({
        "identity_known": view.who.known.as_str(),
        "on_behalf_of_known": view.who.on_behalf_of.as_ref().map(|principal| principal.known.as_str()),
        "portal": view.portal.as_ref().map(ToString::to_string),
        "durability": view.durability.as_str(),
        "policy": view.policy.map(|policy| policy.hex()),
        "effects": effects(view),
        "claims": sessions::claims(&view.claims),
        "upstream": view.upstream.map(|upstream| upstream.as_str()),
        "copy": ended.and_then(|o| o.copy).map(|copy| json!({"direction": copy.direction.as_str(), "bytes": copy.bytes})),
        "executed": ended.map(|o| o.executed),
        "fidelity": view.fidelity.as_str(),
        "streams": ended.and_then(|o| o.transcript.as_ref()).map(|streams| json!({
            "stdin": streams.stdin, "stdout": streams.stdout, "stderr": streams.stderr, "kept": streams.kept,
        })),
        "file": ended.and_then(|o| o.file.as_ref()).map(|file| json!({
            "read": file.read, "written": file.written, "sha256": file.sha256.text(),
        })),
        "suspended": ended.map(|o| o.suspended),
        "fetches": ended.map(|o| o.fetches),
        "notices": ended.map(|o| o.notices),
        "intent": {"index": view.index, "leaf_hash": intent},
        "outcome": ended.map(|o| json!({"index": o.index, "leaf_hash": outcome})),
    })
}

fn hash(reader: &Reader, index: u64) -> Result<String, Failure> {
    match reader.entries(index).next() {
        Some(stored) => Ok(stored.map_err(source::unreadable)?.hash.hex()),
        None => Err(Failure::new(format_args!("entry {index} is gone"))),
    }
}

fn session(reader: &Reader, id: SessionId, console: &mut Console) -> Result<(), Failure> {
    let selection = Selection { session: Some(id.to_string()), ..Selection::default() };
    let view = source::sessions(reader, &selection)?
        .into_iter()
        .next()
        .ok_or_else(|| Failure::not_found(format_args!("there is no session {id} in this record")))?;
    let mut rows = Vec::new();
    for command in source::commands(reader, &selection)? {
        rows.push(Row::from(command.map_err(source::unreadable)?));
    }
    if console.format() != Format::Table {
        let mut value = sessions::as_json(&view);
        if let Some(fields) = value.as_object_mut() {
            fields.insert("erasures".to_owned(), erasures(reader, id)?.iter().map(|one| as_json(one)).collect());
            let overseen = store::oversight(reader, id).map_err(source::unreadable)?;
            fields.insert("oversight".to_owned(), overseen.iter().map(overseen_as_json).collect());
            fields.insert("list".to_owned(), serde_json::to_value(&rows).map_err(Failure::new)?);
        }
        return Ok(console.json(&value)?);
    }
    about_session(&view, console)?;
    about_erasures(&erasures(reader, id)?, console)?;
    about_oversight(&store::oversight(reader, id).map_err(source::unreadable)?, console)?;
    if !rows.is_empty() {
        console.line("")?;
    }
    Ok(console.table(&row::table(&rows, Times::Short, 0))?)
}

/// What the record says was erased of a session.
pub(super) fn erasures(reader: &Reader, id: SessionId) -> Result<Vec<Arc<Erasure>>, Failure> {
    reader.erasures(id).map_err(source::unreadable)
}

fn as_json(erasure: &Erasure) -> Value {
    json!({
        "entry": erasure.index,
        "time": wall_text(erasure.time.wall_us),
        "fields": erasure.fields.as_deref(),
        "cause": erasure.cause.as_str(),
        "reason": &*erasure.reason,
        "by": erasure.by.name,
    })
}

/// Says what was erased of a session, when, by whom and why.
pub(super) fn about_erasures(erasures: &[Arc<Erasure>], console: &mut Console) -> Result<(), Failure> {
    let mut facts = Facts { console };
    for erasure in erasures {
        let what = match &erasure.fields {
            None => "all content".to_owned(),
            Some(fields) => words::counted(fields.len(), "field", "fields"),
        };
        facts.toned("erased", Tone::Warning, &format!("{what}, {}", source::erased(erasure)))?;
    }
    Ok(())
}

fn overseen_as_json((time, entry): &(Time, Oversight)) -> Value {
    json!({
        "time": wall_text(time.wall_us),
        "action": entry.action.as_str(),
        "command": entry.command.map(|command| command.to_string()),
        "reason": entry.reason,
        "by": entry.by.name,
    })
}

/// Says who watched a session while it went on, or ended it.
fn about_oversight(overseen: &[(Time, Oversight)], console: &mut Console) -> Result<(), Failure> {
    let mut facts = Facts { console };
    for (time, entry) in overseen {
        let (tone, what) = match entry.action {
            OversightAction::Watched => (Tone::Plain, entry.command.map(|command| format!(".{}", command.ordinal))),
            OversightAction::Killed => {
                (Tone::Warning, entry.reason.as_deref().map(|why| single_line(why).into_owned()))
            }
        };
        let what = what.map_or_else(String::new, |what| format!(": {what}"));
        let said = format!("{} by {}{what}", words::in_full(time.wall_us), single_line(&entry.by.name));
        facts.toned(entry.action.as_str(), tone, &said)?;
    }
    Ok(())
}

/// What is known of a session itself.
pub(super) fn about_session(view: &SessionView, console: &mut Console) -> Result<(), Failure> {
    let open = &view.open;
    let identity = &view.identity;
    let mut facts = Facts { console };
    facts.say("session", &view.id.to_string())?;
    facts.say("began", &words::in_full(view.time.wall_us))?;
    facts.say("who", &format!("{} ({} by {})", identity.name, identity.known, identity.proof.method))?;
    proof(&mut facts, &identity.proof)?;
    if let Some(principal) = &identity.on_behalf_of {
        facts.say("on behalf of", &format!("{} ({})", principal.name, principal.known))?;
    }
    if let Some(run) = &identity.run {
        facts.say("run", &format!("{} ({})", run.id, run.known))?;
    }
    if !identity.groups.is_empty() {
        facts.say("groups", &identity.groups.join(", "))?;
    }
    let database = words::database(open.database.as_ref());
    let database = format!("{}{database}, as {}", open.connection, open.upstream_user);
    facts.say("connection", &database)?;
    let by = match (&open.tls, open.protocol.split(' ').any(|word| word == "ssh")) {
        (Some(tls), true) => &format!("{tls} over SSH"),
        (Some(tls), false) => tls,
        (None, true) => "over SSH",
        (None, false) => "without TLS",
    };
    facts.say("from", &format!("{}, {by}", open.client))?;
    if let Some(outpost) = &open.outpost {
        facts.say("through", &format!("outpost {}", outpost.name))?;
    }
    if let Some(upstream) = open.upstream {
        facts.say("upstream", upstream.as_str())?;
    }
    claims(&mut facts, &open.claims)?;
    facts.say("durability", open.durability.as_str())?;
    let open_or_ended = match &view.close {
        None => "open".to_owned(),
        Some(close) => format!("{} at {}", close.reason, words::in_full(close.time.wall_us)),
    };
    facts.say("ended", &open_or_ended)
}

/// What was said and nobody checked.
fn claims(facts: &mut Facts<'_>, claims: &[model::Claim]) -> Result<(), Failure> {
    for claim in claims {
        facts.say("claimed", &format!("{} = {}", claim.name, claim.value))?;
    }
    Ok(())
}

/// What was checked of a credential.
fn proof(facts: &mut Facts<'_>, proof: &model::Proof) -> Result<(), Failure> {
    facts.say("credential", &proof.credential)?;
    match &proof.evidence {
        None => Ok(()),
        Some(Evidence::Token(token)) => {
            facts.say("issued by", &format!("{} to {}", token.issuer, token.subject))?;
            if !token.actors.is_empty() {
                facts.say("acting", &token.actors.join(", for which acts "))?;
            }
            let until = i64::try_from(token.expires).unwrap_or(i64::MAX).saturating_mul(1_000_000);
            facts.say(
                "signed by",
                &format!("key {} ({})", token.kid.as_deref().unwrap_or("without a name"), token.algorithm),
            )?;
            facts.say("token", &format!("sha256 {}, until {}", token.token.hex(), words::to_the_second(until)))?;
            for (name, value) in &token.claims {
                facts.say("", &format!("{name} = {value}"))?;
            }
            facts.say("rule", &token.rule)
        }
        Some(Evidence::Certificate(certificate)) => {
            facts.say("certificate", &format!("{}, serial {}", certificate.subject, certificate.serial))?;
            facts.say("issued by", &certificate.issuer)?;
            facts.say("sha256", &certificate.sha256.hex())?;
            facts.say("rule", &certificate.rule)
        }
    }
}

/// Facts, one a line, with their names in a column of their own.
struct Facts<'a> {
    console: &'a mut Console,
}

impl Facts<'_> {
    fn say(&mut self, name: &str, value: &str) -> Result<(), Failure> {
        self.toned(name, Tone::Plain, value)
    }

    fn toned(&mut self, name: &str, tone: Tone, value: &str) -> Result<(), Failure> {
        let name = self.console.paint(Tone::Faint, &format!("{name:NAME$}"));
        let value = self.console.paint(tone, &single_line(value));
        Ok(self.console.line(&format!("{name}{value}"))?)
    }

    /// Content in its own lines.
    fn content(&mut self, name: &str, content: &store::Opened) -> Result<(), Failure> {
        let mut name = name;
        if let Some(text) = content.text() {
            for line in lines(&text) {
                let column = self.console.paint(Tone::Faint, &format!("{name:NAME$}"));
                self.console.line(&format!("{column}{}", self.console.paint(Tone::Strong, &line)))?;
                name = "";
            }
        }
        match state(content) {
            Some(why) => self.toned(name, Tone::Faint, &why),
            None => Ok(()),
        }
    }
}
