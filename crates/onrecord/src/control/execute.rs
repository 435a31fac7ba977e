//! Does what is asked for, with an open log.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use model::{Actor, CommandId, ContentKind, Digest, Export, IdentityName, Known, SessionId, wall_text};
use serde_json::{Value, json};
use store::{CustodyError, Erased, GatewayEntry, Health, Held, HoldScope, Pace, Recorder, RetentionRules};

use gateway::{Access, AccessError, InUse, Outposts, OutpostsError, Seen, Standing, Watch};

use super::{Code, Refusal, Request};

/// A selection that was handed out is described in at most this many bytes.
const SELECTION_BYTES_MAX: usize = 16 * 1024;
/// A reason has at most this many bytes.
const REASON_BYTES_MAX: usize = 4096;

/// An open log, and the rules in force.
#[derive(Clone)]
pub struct Executor {
    /// The log.
    pub recorder: Recorder,
    /// The rules in force.
    pub rules: Rules,
    /// What is remembered of identities.
    pub access: Access,
    /// What is known of outposts, where there are any.
    pub outposts: Option<Outposts>,
    /// Where outposts find the gateway, if that is known.
    pub outpost_address: Option<String>,
}

/// How long content is kept. Clones are the same; a change of the configuration changes them.
#[derive(Clone)]
pub struct Rules(Arc<RwLock<RetentionRules>>);

impl Rules {
    /// These.
    #[must_use]
    pub fn new(rules: RetentionRules) -> Self {
        Self(Arc::new(RwLock::new(rules)))
    }

    /// The rules in force now.
    #[must_use]
    pub fn now(&self) -> RetentionRules {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Puts others in force.
    pub fn set(&self, rules: RetentionRules) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = rules;
    }
}

/// A user of this machine, as the record names one. The kernel says who it is.
#[must_use]
pub fn actor(uid: u32) -> Actor {
    Actor { name: format!("uid:{uid}"), known: Known::Verified }
}

impl Executor {
    /// Does it. `pace` is asked by what takes long.
    ///
    /// # Errors
    /// Why it was not done.
    pub fn execute(&self, request: &Request, by: &Actor, pace: &mut dyn FnMut() -> Pace) -> Result<Value, Refusal> {
        let recorder = &self.recorder;
        match request {
            Request::Status {} => Ok(match recorder.health() {
                Health::Accepting => json!({"recording": true}),
                Health::Stopped { why } => json!({"recording": false, "why": why.to_string()}),
            }),
            Request::Erase { session, reason } => {
                Ok(erased(&recorder.erase(parsed::<SessionId>("session", session)?, by, reason)?))
            }
            Request::Redact { command, field, reason } => {
                let field = ContentKind::parse(field).ok_or_else(|| {
                    Refusal::new(
                        Code::Invalid,
                        format_args!("{field:?} is no field: statement, parameters, message or output"),
                    )
                })?;
                Ok(erased(&recorder.redact(parsed::<CommandId>("command", command)?, field, by, reason)?))
            }
            Request::HoldPlace { session, connection, identity, reason } => {
                let scope = HoldScope {
                    session: session.as_deref().map(|text| parsed("session", text)).transpose()?,
                    connection: connection.clone(),
                    identity: identity.as_deref().map(|text| parsed::<IdentityName>("identity", text)).transpose()?,
                };
                Ok(json!({"hold": recorder.place_hold(scope, by, reason)?}))
            }
            Request::HoldRelease { hold, reason } => {
                recorder.release_hold(hold, by, reason)?;
                Ok(json!({"hold": hold}))
            }
            Request::HoldList {} => Ok(json!({"holds": recorder.holds().iter().map(held).collect::<Vec<_>>()})),
            Request::RetentionRun {} => {
                let retained = recorder.retain(&self.rules.now(), by, pace)?;
                Ok(json!({"erased": retained.erased, "held": retained.held}))
            }
            Request::IdentityList {} => {
                let all = self.access.standings();
                Ok(json!({"identities": all.iter().map(|(name, one)| standing(name, one)).collect::<Vec<_>>()}))
            }
            Request::IdentityRevoke { identity, reason } => {
                let name = parsed::<IdentityName>("identity", identity)?;
                let done = self.access.revoke(&name, &reason_of(reason)?, by)?;
                Ok(json!({"identity": name.to_string(), "sessions": done.sessions, "tokens": done.tokens}))
            }
            Request::IdentityRestore { identity, reason } => {
                let name = parsed::<IdentityName>("identity", identity)?;
                self.access.restore(&name, &reason_of(reason)?, by)?;
                Ok(json!({"identity": name.to_string()}))
            }
            Request::OutpostInvite { name, labels, ttl_seconds } => {
                let address = self.outpost_address.as_deref().ok_or_else(|| {
                    let what = "where outposts find this gateway is not known: write outposts.address = \"HOST:PORT\"";
                    Refusal::new(Code::Invalid, what)
                })?;
                let ttl = Duration::from_secs(*ttl_seconds).min(gateway::JOIN_TTL_MAX);
                let token = self.outposts()?.invite(name, labels, ttl, address, by)?;
                recorder.flush().map_err(CustodyError::from)?;
                let answer = json!({"name": name, "labels": labels, "token": token.to_line(), "address": address, "seconds": ttl.as_secs()});
                Ok(answer)
            }
            Request::OutpostList {} => {
                let all = self.outposts()?.all();
                Ok(json!({"outposts": all.iter().map(seen).collect::<Vec<_>>()}))
            }
            Request::OutpostRevoke { name } => {
                let (outpost, links) = self.outposts()?.revoke(name, by)?;
                recorder.flush().map_err(CustodyError::from)?;
                Ok(json!({"name": outpost.name, "id": outpost.id, "links": links}))
            }
            Request::OutpostRotateAuthority {} => {
                self.outposts()?.rotate_authority(by)?;
                recorder.flush().map_err(CustodyError::from)?;
                Ok(json!({}))
            }
            Request::Kill { session, reason } => {
                let session = parsed::<SessionId>("session", session)?;
                self.access.kill(session, &reason_of(reason)?, by)?;
                Ok(json!({"session": session.to_string()}))
            }
            Request::Follow { session } => {
                let session = parsed::<SessionId>("session", session)?;
                self.access.follow(session, by)?;
                Ok(json!({"session": session.to_string()}))
            }
            // The server of the socket goes on from [`Executor::watch`] instead.
            Request::Watch { .. } => Err(Refusal::new(Code::Invalid, "what is watched goes on, and is no one answer")),
            Request::NoteExport { selection, entries, disclosed, sha256 } => {
                if selection.len() > SELECTION_BYTES_MAX {
                    let what = format_args!("`selection` has more than {SELECTION_BYTES_MAX} bytes");
                    return Err(Refusal::new(Code::Invalid, what));
                }
                let note = Export {
                    by: by.clone(),
                    selection: selection.clone(),
                    entries: *entries,
                    disclosed: *disclosed,
                    sha256: digest(sha256)?,
                };
                let position = recorder.note(GatewayEntry::Export(note)).map_err(CustodyError::from)?;
                recorder.flush().map_err(CustodyError::from)?;
                Ok(json!({"entry": position.index()}))
            }
        }
    }
}

impl Executor {
    /// Begins what [`Request::Watch`] asks for.
    ///
    /// # Errors
    /// Why not.
    pub(super) fn watch(&self, command: &str, by: &Actor) -> Result<Watch, Refusal> {
        Ok(self.access.watch(parsed::<CommandId>("command", command)?, by)?)
    }

    fn outposts(&self) -> Result<&Outposts, Refusal> {
        self.outposts.as_ref().ok_or_else(|| {
            let what = "this gateway has no outposts: add `outposts = [\"0.0.0.0:7443\"]` to [listen] and restart it";
            Refusal::new(Code::Invalid, what)
        })
    }
}

/// An outpost as answers and the command line have it.
fn seen(seen: &Seen) -> Value {
    let time = |seconds: i64| wall_text(seconds.saturating_mul(1_000_000));
    let outpost = &seen.outpost;
    json!({
        "name": outpost.name,
        "id": outpost.id,
        "labels": outpost.labels,
        "since": time(outpost.since),
        "certificate_until": outpost.valid_until().map(time),
        "revoked": outpost.revoked.map(time),
        "links": seen.links,
        "streams": seen.streams,
        "addresses": seen.addresses.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "program": seen.program,
    })
}

impl From<OutpostsError> for Refusal {
    fn from(error: OutpostsError) -> Self {
        let code = match &error {
            OutpostsError::Unknown(_) => Code::NotFound,
            OutpostsError::Name(_) | OutpostsError::Address(_) | OutpostsError::TooMany(_) => Code::Invalid,
            OutpostsError::Rotating => Code::Already,
            OutpostsError::Disk(_)
            | OutpostsError::Damaged(_)
            | OutpostsError::Record(_)
            | OutpostsError::Certificate(_)
            | OutpostsError::Tls(_)
            | OutpostsError::NoAuthority => Code::Failed,
        };
        Self::new(code, error)
    }
}

/// A reason that can stand in an entry.
fn reason_of(reason: &str) -> Result<String, Refusal> {
    if (1..=REASON_BYTES_MAX).contains(&reason.trim().len()) {
        return Ok(reason.trim().to_owned());
    }
    Err(Refusal::new(Code::Invalid, format_args!("a reason has 1 to {REASON_BYTES_MAX} bytes")))
}

fn standing(name: &IdentityName, one: &Standing) -> Value {
    let in_use = |one: &InUse| {
        json!({
            "credential": one.credential,
            "sessions": one.sessions,
            "sources": one.sources.iter().map(ToString::to_string).collect::<Vec<_>>(),
            "runs": one.runs,
            "shared": one.shared,
        })
    };
    let token = |(id, connection, expires): &(String, String, i64)| json!({"id": id, "connection": connection, "expires": wall_text(*expires)});
    json!({
        "name": name.to_string(),
        "sessions": one.sessions,
        "credentials": one.credentials.iter().map(in_use).collect::<Vec<_>>(),
        "tokens": one.tokens.iter().map(token).collect::<Vec<_>>(),
        "revoked": one.revoked.as_ref().map(|(time, entry)| {
            json!({"time": wall_text(time.wall_us), "reason": entry.reason, "by": entry.by.name})
        }),
    })
}

fn erased(erased: &Erased) -> Value {
    let shared =
        erased.shared.iter().map(|(command, field)| json!({"command": command.to_string(), "field": field.as_str()}));
    json!({
        "session": erased.session.to_string(),
        "entry": erased.index,
        "blobs": erased.blobs,
        "shared": shared.collect::<Vec<_>>(),
    })
}

/// A hold as answers and the command line have it.
pub(crate) fn held(held: &Held) -> Value {
    let hold = &held.hold;
    json!({
        "hold": hold.hold,
        "time": wall_text(held.time.wall_us),
        "session": hold.session.map(|session| session.to_string()),
        "connection": hold.connection,
        "identity": hold.identity.as_ref().map(ToString::to_string),
        "reason": hold.reason,
        "by": hold.by.name,
        "entry": held.index,
    })
}

fn parsed<T: std::str::FromStr<Err: std::fmt::Display>>(what: &str, text: &str) -> Result<T, Refusal> {
    text.parse().map_err(|error| Refusal::new(Code::Invalid, format_args!("{what} {text:?}: {error}")))
}

fn digest(hex: &str) -> Result<Digest, Refusal> {
    let refused = || Refusal::new(Code::Invalid, "`sha256` is 64 hexadecimal digits");
    let mut bytes = [0; 32];
    if hex.len() != 64 || !hex.is_ascii() {
        return Err(refused());
    }
    for (byte, pair) in bytes.iter_mut().zip(hex.as_bytes().chunks(2)) {
        let pair = std::str::from_utf8(pair).map_err(|_| refused())?;
        *byte = u8::from_str_radix(pair, 16).map_err(|_| refused())?;
    }
    Ok(Digest(bytes))
}

impl From<AccessError> for Refusal {
    fn from(error: AccessError) -> Self {
        let code = match &error {
            AccessError::Already(_) => Code::Already,
            AccessError::Not(_) | AccessError::NotLive(_) | AccessError::NotRunning(_) => Code::NotFound,
            AccessError::Disk(_) | AccessError::Record(_) | AccessError::Token(_) | AccessError::Passkeys(_) => {
                Code::Failed
            }
        };
        Self::new(code, error)
    }
}

impl From<CustodyError> for Refusal {
    fn from(error: CustodyError) -> Self {
        let code = match &error {
            CustodyError::NoSession(_) | CustodyError::NoCommand(_) | CustodyError::NoHold(_) => Code::NotFound,
            CustodyError::Nothing { .. } => Code::NotFound,
            CustodyError::Open(_) => Code::Open,
            CustodyError::Held { .. } => Code::Held,
            CustodyError::Already => Code::Already,
            CustodyError::Reason => Code::Invalid,
            CustodyError::Unfinished(_) => Code::Unfinished,
            CustodyError::OtherKey(_)
            | CustodyError::ClockStepped { .. }
            | CustodyError::Store(_)
            | CustodyError::Record(_) => Code::Failed,
        };
        Self::new(code, error)
    }
}
