//! The registered claims of a token (RFC 7519, 8693, 9068, OpenID Connect Core), read with a bound on each.

use serde_json::{Map, Value};

use crate::refusal::Refusal;

/// The longest text of a claim that is kept on the record, in bytes.
const TEXT_BYTES_MAX: usize = 512;
/// The most audiences, and the most means of signing in.
const LIST_MAX: usize = 32;
/// How long the chain of those who act may be.
const ACTORS_MAX: usize = 8;
/// The last second that a time may name: the end of the year 9999.
const TIME_MAX: u64 = 253_402_300_799;

/// What a token says about itself. Times are seconds since 1970.
pub(crate) struct Registered {
    pub(crate) issuer: String,
    pub(crate) subject: String,
    pub(crate) audience: Vec<String>,
    pub(crate) client: Option<String>,
    pub(crate) jti: Option<String>,
    pub(crate) issued: Option<u64>,
    pub(crate) not_before: Option<u64>,
    pub(crate) expires: u64,
    pub(crate) auth_time: Option<u64>,
    pub(crate) acr: Option<String>,
    pub(crate) amr: Vec<String>,
    pub(crate) actors: Vec<String>,
    pub(crate) confirmation: Option<String>,
}

impl Registered {
    pub(crate) fn read(claims: &Map<String, Value>) -> Result<Self, Refusal> {
        let missing = |claim| move || Refusal::Claims { claim, what: "is missing" };
        let client = match text(claims, "azp")? {
            Some(party) => Some(party),
            None => text(claims, "client_id")?,
        };
        Ok(Self {
            issuer: text(claims, "iss")?.ok_or_else(missing("iss"))?,
            subject: text(claims, "sub")?.ok_or_else(missing("sub"))?,
            audience: audience(claims)?,
            client,
            jti: text(claims, "jti")?,
            issued: time(claims, "iat")?,
            not_before: time(claims, "nbf")?,
            expires: time(claims, "exp")?.ok_or_else(missing("exp"))?,
            auth_time: time(claims, "auth_time")?,
            acr: acr(claims)?,
            amr: amr(claims)?,
            actors: actors(claims)?,
            confirmation: confirmation(claims)?,
        })
    }
}

fn text(claims: &Map<String, Value>, claim: &'static str) -> Result<Option<String>, Refusal> {
    match claims.get(claim) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(value)) => one_text(claim, value).map(Some),
        Some(_) => Err(Refusal::Claims { claim, what: "is no text" }),
    }
}

fn one_text(claim: &'static str, value: &str) -> Result<String, Refusal> {
    match value.len() {
        0 => Err(Refusal::Claims { claim, what: "is empty" }),
        1..=TEXT_BYTES_MAX => Ok(value.to_owned()),
        _ => Err(Refusal::Claims { claim, what: "has more than 512 bytes" }),
    }
}

fn texts(claim: &'static str, list: &[Value]) -> Result<Vec<String>, Refusal> {
    if list.len() > LIST_MAX {
        return Err(Refusal::Claims { claim, what: "has more than 32 members" });
    }
    let each = |value: &Value| match value {
        Value::String(value) => one_text(claim, value),
        _ => Err(Refusal::Claims { claim, what: "has a member that is no text" }),
    };
    list.iter().map(each).collect()
}

fn audience(claims: &Map<String, Value>) -> Result<Vec<String>, Refusal> {
    let claim = "aud";
    match claims.get(claim) {
        None => Err(Refusal::Claims { claim, what: "is missing" }),
        Some(Value::String(value)) => Ok(vec![one_text(claim, value)?]),
        Some(Value::Array(list)) => texts(claim, list),
        Some(_) => Err(Refusal::Claims { claim, what: "is neither a text nor a list of texts" }),
    }
}

/// How strongly the subject signed in. Some issuers give a number.
fn acr(claims: &Map<String, Value>) -> Result<Option<String>, Refusal> {
    match claims.get("acr") {
        Some(Value::Number(number)) => Ok(Some(number.to_string())),
        _ => text(claims, "acr"),
    }
}

fn amr(claims: &Map<String, Value>) -> Result<Vec<String>, Refusal> {
    match claims.get("amr") {
        None | Some(Value::Null) => Ok(Vec::new()),
        // Not what the standard says, and what some issuers do.
        Some(Value::String(value)) => Ok(vec![one_text("amr", value)?]),
        Some(Value::Array(list)) => texts("amr", list),
        Some(_) => Err(Refusal::Claims { claim: "amr", what: "is no list of texts" }),
    }
}

/// A `NumericDate`: seconds since 1970, perhaps with a fraction, which is cut.
fn time(claims: &Map<String, Value>, claim: &'static str) -> Result<Option<u64>, Refusal> {
    let wrong = || Refusal::Claims { claim, what: "is no time (seconds since 1970)" };
    let number = match claims.get(claim) {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::Number(number)) => number,
        Some(_) => return Err(wrong()),
    };
    let seconds = match number.as_u64() {
        Some(seconds) => seconds,
        None => whole_seconds(number.as_f64().ok_or_else(wrong)?).ok_or_else(wrong)?,
    };
    if seconds <= TIME_MAX { Ok(Some(seconds)) } else { Err(wrong()) }
}

/// The whole part of a number of seconds, by its decimal text: no cast that could wrap or saturate.
fn whole_seconds(number: f64) -> Option<u64> {
    let text = format!("{:.0}", number.floor());
    text.parse().ok()
}

/// The chain of those who act, the one who acts now first (RFC 8693, section 4.1).
fn actors(claims: &Map<String, Value>) -> Result<Vec<String>, Refusal> {
    let claim = "act";
    let mut actors = Vec::new();
    let mut at = claims;
    loop {
        let actor = match at.get(claim) {
            None => return Ok(actors),
            Some(Value::Object(actor)) => actor,
            Some(_) => return Err(Refusal::Claims { claim, what: "is no object" }),
        };
        if actors.len() == ACTORS_MAX {
            return Err(Refusal::Claims { claim, what: "is a chain of more than 8" });
        }
        match actor.get("sub") {
            Some(Value::String(sub)) => actors.push(one_text(claim, sub)?),
            _ => return Err(Refusal::Claims { claim, what: "does not say who acts (`sub`)" }),
        }
        at = actor;
    }
}

/// The thumbprint of the key that the token is bound to, if it is (RFC 7800, 8705, 9449).
fn confirmation(claims: &Map<String, Value>) -> Result<Option<String>, Refusal> {
    let claim = "cnf";
    match claims.get(claim) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Object(cnf)) => match cnf.get("jkt").or_else(|| cnf.get("x5t#S256")) {
            Some(Value::String(thumbprint)) => one_text(claim, thumbprint).map(Some),
            // Bound by other means; bound all the same.
            _ => Ok(Some("other".to_owned())),
        },
        Some(_) => Err(Refusal::Claims { claim, what: "is no object" }),
    }
}
