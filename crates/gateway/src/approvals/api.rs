//! Approvals over the HTTP API.
//!
//! ```text
//! GET  /v1/approvals        those that the bearer may decide or has asked for; `wait` and `after` to watch
//! GET  /v1/approvals/ID     all of one
//! POST /v1/approvals/ID     what the bearer decides
//! POST /v1/approvals/ID/challenge   what the bearer's passkey is to sign for that
//! ```
//!
//! Invariant: a decision names the digest of exactly what its maker was shown, and is durable before it is answered. Who has a
//! passkey decides nothing without its signature, and where the connection asks for one, nobody approves without.

use std::time::Duration;

use hyper::{Method, StatusCode};
use model::{ApprovalDecision, Assertion, CommandId, Digest, Identity, approval_challenge, wall_text};
use policy::TEXT_CHARACTERS_MAX;
use policy::approvals::{NotDecided, Standing};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::timeout;

use super::{Approvals, Held, NotCounted};
use crate::passkeys::{NotTaken, Passkeys, SignedForm, Site, not_taken, request_options};

/// Characters of a statement in a list.
const LISTED_CHARACTERS: usize = 200;
/// How long somebody who watches is kept waiting.
const WATCH_MAX: Duration = Duration::from_secs(50);

/// What somebody decides.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Decision {
    decision: String,
    request: String,
    comment: Option<String>,
    assertion: Option<SignedForm>,
}

/// How people sign here.
pub(crate) struct Signing<'a> {
    /// Whose keys there are.
    pub(crate) passkeys: &'a Passkeys,
    /// Where they are used; nobody signs unless given.
    pub(crate) site: Option<&'a Site>,
}

/// What a decision says, as it was read.
struct Asked {
    decision: ApprovalDecision,
    request: Digest,
    comment: Option<String>,
    assertion: Option<Assertion>,
}

/// Answers a request of somebody who is proven to be `by`. The path is what follows `/v1/approvals`.
pub(crate) async fn answer(
    approvals: &Approvals,
    signing: &Signing<'_>,
    by: &Identity,
    method: &Method,
    path: &str,
    query: Option<&str>,
    body: &[u8],
) -> (StatusCode, Value) {
    match (method, path.strip_prefix('/')) {
        (&Method::GET, None) => list(approvals, by, query).await,
        (&Method::GET, Some(id)) => match id.parse() {
            Ok(of) => show(approvals, by, of),
            Err(_) => unknown(),
        },
        (&Method::POST, Some(path)) => {
            let (id, challenged) = path.strip_suffix("/challenge").map_or((path, false), |id| (id, true));
            let Ok(of) = id.parse() else { return unknown() };
            match Asked::read(body) {
                Ok(asked) if challenged => challenge(approvals, signing, by, of, &asked),
                Ok(asked) => decide(approvals, signing, by, of, asked),
                Err(problem) => problem,
            }
        }
        _ => problem(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", "use GET, or POST to decide", ""),
    }
}

async fn list(approvals: &Approvals, by: &Identity, query: Option<&str>) -> (StatusCode, Value) {
    let mut revision = approvals.revision.subscribe();
    let asked = |name: &str| {
        let pairs = form_urlencoded::parse(query.unwrap_or_default().as_bytes());
        pairs.into_iter().find(|(key, _)| key == name).and_then(|(_, value)| value.parse::<u64>().ok())
    };
    if let (Some(wait), Some(after)) = (asked("wait"), asked("after")) {
        let changed = revision.wait_for(|revision| *revision != after);
        // Nothing has changed: the same again.
        let _ = timeout(Duration::from_secs(wait).min(WATCH_MAX), changed).await;
    }
    // Before the look: a change in between is seen twice rather than never.
    let now = *revision.borrow_and_update();
    let inner = approvals.lock();
    let cases = inner.cases.iter().filter(|(_, held)| concerns(held, by));
    let cases: Vec<Value> = cases.map(|(id, held)| summary(*id, held, by, LISTED_CHARACTERS)).collect();
    (StatusCode::OK, json!({"approvals": cases, "revision": now}))
}

fn show(approvals: &Approvals, by: &Identity, of: CommandId) -> (StatusCode, Value) {
    if !approvals.lock().cases.get(&of).is_some_and(|held| concerns(held, by)) {
        return unknown();
    }
    if let Err(error) = approvals.see(of, by) {
        return not_recorded(&error.to_string());
    }
    let inner = approvals.lock();
    match inner.cases.get(&of) {
        Some(held) => (StatusCode::OK, detail(of, held, by)),
        None => unknown(),
    }
}

impl Asked {
    fn read(body: &[u8]) -> Result<Self, (StatusCode, Value)> {
        let invalid = |text: &str, hint: &str| problem(StatusCode::BAD_REQUEST, "invalid_request", text, hint);
        let form: Decision = serde_json::from_slice(body).map_err(|error| {
            let hint = "send {\"decision\": \"approve\" or \"deny\", \"request\": \"as the approval has it\"}";
            invalid(&format!("the decision is not one: {error}"), hint)
        })?;
        let decision = ApprovalDecision::parse(&form.decision);
        let decision = decision.ok_or_else(|| invalid("a decision is \"approve\" or \"deny\"", ""))?;
        let request = digest(&form.request).ok_or_else(|| {
            invalid("`request` is not a SHA-256 in hexadecimal", "take it from the approval as it was shown")
        })?;
        let comment = form.comment.filter(|comment| !comment.is_empty());
        if comment.as_ref().is_some_and(|comment| comment.chars().count() > TEXT_CHARACTERS_MAX) {
            return Err(invalid("a comment has at most 1000 characters", ""));
        }
        let assertion = form.assertion.map(|signed| {
            signed.read().ok_or_else(|| invalid("the signature is not base64url", "send what the browser made"))
        });
        Ok(Self { decision, request, comment, assertion: assertion.transpose()? })
    }

    /// What is signed for it.
    fn challenge(&self, by: &Identity) -> Digest {
        approval_challenge(self.decision, &by.name, &self.request, self.comment.as_deref())
    }
}

impl Signing<'_> {
    /// The signature that a decision has, checked; none where nobody has to sign.
    fn signature(&self, by: &Identity, asked: &mut Asked, must: bool) -> Result<Option<Assertion>, NotTaken> {
        let Some(site) = self.site else {
            return match (&asked.assertion, must) {
                (Some(_), _) => Err(NotTaken::NotYours),
                (None, true) => Err(NotTaken::MustSign),
                (None, false) => Ok(None),
            };
        };
        match asked.assertion.take() {
            Some(assertion) => {
                self.passkeys.verify(&by.name, site, &asked.challenge(by), &assertion)?;
                Ok(Some(assertion))
            }
            None if self.passkeys.has(&by.name, site) => Err(NotTaken::Unsigned),
            None if must => Err(NotTaken::MustSign),
            None => Ok(None),
        }
    }
}

/// What a browser needs to sign a decision.
fn challenge(
    approvals: &Approvals,
    signing: &Signing<'_>,
    by: &Identity,
    of: CommandId,
    asked: &Asked,
) -> (StatusCode, Value) {
    let inner = approvals.lock();
    let Some(held) = inner.cases.get(&of).filter(|held| concerns(held, by)) else { return unknown() };
    if let Err(why) = held.case.check(by, asked.decision, asked.request, held.now()) {
        return not_counted(&why);
    }
    let own = signing.site.map(|site| (site, signing.passkeys.of(&by.name, site)));
    let Some((site, own)) = own.filter(|(_, own)| !own.is_empty()) else {
        let hint = "the page /approve makes one, where the gateway's operator has set passkeys.origin";
        return problem(StatusCode::CONFLICT, "no_passkeys", "you have no passkey here to sign with", hint);
    };
    let own: Vec<_> = own.into_iter().map(|(_, key)| key).collect();
    (StatusCode::OK, json!({"publicKey": request_options(&asked.challenge(by).0, &own, site)}))
}

fn decide(
    approvals: &Approvals,
    signing: &Signing<'_>,
    by: &Identity,
    of: CommandId,
    mut asked: Asked,
) -> (StatusCode, Value) {
    let must = match approvals.lock().cases.get(&of) {
        Some(held) if concerns(held, by) => {
            // Whoever may not decide is told that, and not to sign.
            let allowed = held.case.rules().may_decide(held.case.requester(), by).is_ok();
            allowed && held.case.rules().signed && asked.decision == ApprovalDecision::Approve
        }
        _ => return unknown(),
    };
    let signature = match signing.signature(by, &mut asked, must) {
        Ok(signature) => signature,
        Err(error) => return not_taken(&error),
    };
    match approvals.decide(of, by, asked.decision, asked.request, asked.comment, signature) {
        Ok(()) => {}
        Err(NotCounted::Unknown) => return unknown(),
        Err(NotCounted::Not(why)) => return not_counted(&why),
        Err(NotCounted::Record(error)) => return not_recorded(&error.to_string()),
    }
    if let Err(error) = approvals.recorder.flush() {
        return not_recorded(&error.to_string());
    }
    let inner = approvals.lock();
    match inner.cases.get(&of) {
        Some(held) => (StatusCode::OK, detail(of, held, by)),
        None => unknown(),
    }
}

/// Whether somebody may see a case: who asked, for whom it was asked, and who may decide.
fn concerns(held: &Held, by: &Identity) -> bool {
    let requester = held.case.requester();
    let asked = requester.name == by.name || requester.on_behalf_of.as_ref().is_some_and(|whom| whom.name == by.name);
    asked || held.case.rules().may_decide(requester, by).is_ok()
}

fn summary(of: CommandId, held: &Held, by: &Identity, characters: usize) -> Value {
    let Held { case, shown, .. } = held;
    let statement: String = shown.statement.chars().take(characters).collect();
    let shortened = statement.len() < shown.statement.len();
    let requester = case.requester();
    json!({
        "id": of.to_string(),
        "state": state(case.standing()),
        "may_decide": case.is_open() && case.rules().may_decide(requester, by).is_ok(),
        "requester": requester.name.as_str(),
        "on_behalf_of": requester.on_behalf_of.as_ref().map(|whom| whom.name.as_str()),
        "connection": shown.connection,
        "database": shown.database,
        "role": shown.role,
        "asked": wall_text(held.asked_us),
        "expires": wall_text(case.expires_us()),
        "approvals": case.approvals(),
        "quorum": case.rules().quorum,
        "signed": case.rules().signed,
        "message": shown.message,
        "rules": shown.rules,
        "statement": statement,
        "statement_shortened": shortened,
    })
}

fn detail(of: CommandId, held: &Held, by: &Identity) -> Value {
    let mut value = summary(of, held, by, usize::MAX);
    let vote = |vote: &super::Vote| {
        json!({
            "by": vote.by.as_str(),
            "decision": vote.decision.as_str(),
            "time": wall_text(vote.at_us),
            "comment": vote.comment,
            "signed": vote.signed,
        })
    };
    let more = json!({
        "parameters": held.shown.parameters,
        "transaction": held.shown.transaction.map(model::Transaction::as_str),
        "opaque": held.shown.opaque.iter().map(|why| why.as_str()).collect::<Vec<_>>(),
        "policy": held.case.policy().hex(),
        "intent": held.intent.hex(),
        "request": held.case.request().hex(),
        "votes": held.votes.iter().map(vote).collect::<Vec<_>>(),
        "seen": held.seen.iter().map(|(who, at)| json!({"by": who.as_str(), "time": wall_text(*at)})).collect::<Vec<_>>(),
        "used_by": held.used_by.map(|command| command.to_string()),
    });
    if let (Some(all), Value::Object(mut more)) = (value.as_object_mut(), more) {
        all.append(&mut more);
    }
    value
}

fn state(standing: Standing) -> &'static str {
    match standing {
        Standing::Waiting => "waiting",
        Standing::Approved => "approved",
        Standing::Denied => "denied",
        Standing::Used => "used",
        Standing::Ended(how) => how.as_str(),
    }
}

fn digest(hex: &str) -> Option<Digest> {
    let mut bytes = [0; 32];
    if hex.len() != 64 || !hex.is_ascii() {
        return None;
    }
    for (byte, digits) in bytes.iter_mut().zip(hex.as_bytes().chunks_exact(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
    }
    Some(Digest(bytes))
}

fn not_counted(why: &NotDecided) -> (StatusCode, Value) {
    let (status, code, hint) = match why {
        NotDecided::NotAllowed(_) => (StatusCode::FORBIDDEN, "not_allowed", ""),
        NotDecided::Changed => (StatusCode::CONFLICT, "changed", "get the approval again, and decide on what it shows"),
        NotDecided::NotOpen => (StatusCode::CONFLICT, "not_open", "its state says why; the command can be sent again"),
        NotDecided::Again => (StatusCode::CONFLICT, "not_open", ""),
    };
    problem(status, code, &why.to_string(), hint)
}

fn not_recorded(error: &str) -> (StatusCode, Value) {
    let text = format!("nothing was decided, because it cannot be recorded: {error}");
    problem(StatusCode::SERVICE_UNAVAILABLE, "not_recorded", &text, "the gateway's operator should look at its disk")
}

fn unknown() -> (StatusCode, Value) {
    let hint =
        "an approval is called by its command, SESSION.N; after a restart of the gateway it must be asked for again";
    problem(StatusCode::NOT_FOUND, "not_found", "there is no such approval, or it is not for you to see", hint)
}

/// An error as the API has them: a word for programs, and what happened and what to do for people.
pub(crate) fn problem(status: StatusCode, code: &str, text: &str, hint: &str) -> (StatusCode, Value) {
    (status, json!({"error": code, "error_description": text, "hint": hint}))
}
