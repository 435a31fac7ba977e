//! Does what is asked for, with an open log.

use model::{Actor, CommandId, Digest, Export, IdentityName, Known, SessionId, wall_text};
use serde_json::{Value, json};
use store::{
    CommandField, CustodyError, Erased, GatewayEntry, Health, Held, HoldScope, Pace, Recorder, RetentionRules,
};

use super::{Code, Refusal, Request};

/// A selection that was handed out is described in at most this many bytes.
const SELECTION_BYTES_MAX: usize = 16 * 1024;

/// An open log, and the rules in force.
#[derive(Clone)]
pub struct Executor {
    /// The log.
    pub recorder: Recorder,
    /// How long content is kept.
    pub rules: RetentionRules,
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
                let field = CommandField::parse(field).ok_or_else(|| {
                    Refusal::new(Code::Invalid, format_args!("{field:?} is no field: statement, parameters or message"))
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
                let retained = recorder.retain(&self.rules, by, pace)?;
                Ok(json!({"erased": retained.erased, "held": retained.held}))
            }
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
