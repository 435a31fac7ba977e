//! Building the few messages that the gateway says itself, and reading whole server messages while a session
//! is being authenticated.
//!
//! For: handshakes on both legs, and refusals in the protocol's own words. Not for: anything that is forwarded.
//! Invariant: a length is never wrong: strings lose their NULs, and what does not fit is cut, not wrapped.

use super::startup::CancelKey;
use super::tap::{TxStatus, Violation};

pub use super::fields::{ErrorFields, error_fields};

/// One whole message of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServerFrame<'a> {
    /// Type byte.
    pub kind: u8,
    /// Body, without type and length.
    pub body: &'a [u8],
}

/// Reads one whole server message of at most `max` bytes: the message and how many bytes it took, or `None`
/// while it is incomplete.
pub fn server_frame(bytes: &[u8], max: usize) -> Result<Option<(ServerFrame<'_>, usize)>, Violation> {
    let Some(&[kind, a, b, c, d]) = bytes.first_chunk::<5>() else {
        return Ok(None);
    };
    let length = u32::from_be_bytes([a, b, c, d]);
    let total = usize::try_from(length).unwrap_or(usize::MAX).saturating_add(1);
    if length < 4 || total > max {
        return Err(Violation::ServerLength { kind, length });
    }
    Ok(bytes.get(5..total).map(|body| (ServerFrame { kind, body }, total)))
}

/// ErrorResponse.
pub fn error_response(severity: &str, code: &str, message: &str, hint: Option<&str>) -> Vec<u8> {
    fields(b'E', severity, code, message, hint)
}

/// NoticeResponse.
pub fn notice(severity: &str, code: &str, message: &str, hint: Option<&str>) -> Vec<u8> {
    fields(b'N', severity, code, message, hint)
}

/// ReadyForQuery.
pub fn ready_for_query(status: TxStatus) -> Vec<u8> {
    typed(b'Z', |body| body.push(status.byte()))
}

/// ParameterStatus.
pub fn parameter_status(name: &[u8], value: &[u8]) -> Vec<u8> {
    typed(b'S', |body| {
        string(body, name);
        string(body, value);
    })
}

/// BackendKeyData.
pub fn backend_key_data(pid: u32, secret: &[u8]) -> Vec<u8> {
    typed(b'K', |body| {
        body.extend_from_slice(&pid.to_be_bytes());
        body.extend_from_slice(secret);
    })
}

/// AuthenticationOk.
pub fn authentication_ok() -> Vec<u8> {
    authentication(0, &[])
}

/// AuthenticationCleartextPassword.
pub fn authentication_cleartext() -> Vec<u8> {
    authentication(3, &[])
}

/// AuthenticationSASL with the mechanisms on offer, best first.
pub fn authentication_sasl(mechanisms: &[&str]) -> Vec<u8> {
    let mut list = Vec::new();
    for mechanism in mechanisms {
        string(&mut list, mechanism.as_bytes());
    }
    list.push(0);
    authentication(10, &list)
}

/// AuthenticationSASLContinue.
pub fn authentication_sasl_continue(data: &[u8]) -> Vec<u8> {
    authentication(11, data)
}

/// AuthenticationSASLFinal.
pub fn authentication_sasl_final(data: &[u8]) -> Vec<u8> {
    authentication(12, data)
}

/// NegotiateProtocolVersion: the newest version that is spoken (such as 0x0003_0002) and the options that are not.
pub fn negotiate_protocol_version(newest: u32, unsupported: &[&[u8]]) -> Vec<u8> {
    typed(b'v', |body| {
        body.extend_from_slice(&newest.to_be_bytes());
        body.extend_from_slice(&u32::try_from(unsupported.len()).unwrap_or(u32::MAX).to_be_bytes());
        for name in unsupported {
            string(body, name);
        }
    })
}

/// PasswordMessage.
pub fn password_message(password: &[u8]) -> Vec<u8> {
    typed(b'p', |body| string(body, password))
}

/// SASLInitialResponse.
pub fn sasl_initial_response(mechanism: &str, data: &[u8]) -> Vec<u8> {
    typed(b'p', |body| {
        string(body, mechanism.as_bytes());
        body.extend_from_slice(&u32::try_from(data.len()).unwrap_or(u32::MAX).to_be_bytes());
        body.extend_from_slice(data);
    })
}

/// SASLResponse.
pub fn sasl_response(data: &[u8]) -> Vec<u8> {
    typed(b'p', |body| body.extend_from_slice(data))
}

/// StartupMessage.
pub fn startup_message(version: u32, parameters: &[(&[u8], &[u8])]) -> Vec<u8> {
    untyped(version, |body| {
        for (name, value) in parameters {
            string(body, name);
            string(body, value);
        }
        body.push(0);
    })
}

/// CancelRequest.
pub fn cancel_request(key: &CancelKey) -> Vec<u8> {
    untyped(80_877_102, |body| {
        body.extend_from_slice(&key.pid.to_be_bytes());
        body.extend_from_slice(&key.secret);
    })
}

/// SSLRequest.
pub fn ssl_request() -> Vec<u8> {
    untyped(80_877_103, |_| {})
}

/// Terminate.
pub fn terminate() -> Vec<u8> {
    typed(b'X', |_| {})
}

/// Flush.
pub(crate) fn flush() -> Vec<u8> {
    typed(b'H', |_| {})
}

/// Close of a statement (`S`) or portal (`P`).
pub(crate) fn close(out: &mut Vec<u8>, what: u8, name: &[u8]) {
    append(out, b'C', |body| {
        body.push(what);
        string(body, name);
    });
}

/// Parse.
pub(crate) fn parse(out: &mut Vec<u8>, name: &[u8], text: &[u8], types: &[u32]) {
    append(out, b'P', |body| {
        string(body, name);
        string(body, text);
        body.extend_from_slice(&u16::try_from(types.len()).unwrap_or(u16::MAX).to_be_bytes());
        for oid in types {
            body.extend_from_slice(&oid.to_be_bytes());
        }
    });
}

/// Bind without parameters.
pub(crate) fn bind(out: &mut Vec<u8>, portal: &[u8], statement: &[u8]) {
    append(out, b'B', |body| {
        string(body, portal);
        string(body, statement);
        body.extend_from_slice(&[0; 6]);
    });
}

/// FunctionCall of a function that cannot exist (OID 0), without arguments.
pub(crate) fn impossible_function() -> Vec<u8> {
    typed(b'F', |body| body.extend_from_slice(&[0; 10]))
}

fn fields(kind: u8, severity: &str, code: &str, message: &str, hint: Option<&str>) -> Vec<u8> {
    typed(kind, |body| {
        let hint = hint.map(|hint| (b'H', hint));
        for (field, text) in [(b'S', severity), (b'V', severity), (b'C', code), (b'M', message)].into_iter().chain(hint)
        {
            body.push(field);
            string(body, text.as_bytes());
        }
        body.push(0);
    })
}

fn authentication(code: u32, data: &[u8]) -> Vec<u8> {
    typed(b'R', |body| {
        body.extend_from_slice(&code.to_be_bytes());
        body.extend_from_slice(data);
    })
}

/// A NUL inside would end the string early and turn its rest into other fields: such bytes are left out.
fn string(body: &mut Vec<u8>, text: &[u8]) {
    body.extend(text.iter().copied().filter(|byte| *byte != 0));
    body.push(0);
}

fn typed(kind: u8, write: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut out = Vec::with_capacity(64);
    append(&mut out, kind, write);
    out
}

fn append(out: &mut Vec<u8>, kind: u8, write: impl FnOnce(&mut Vec<u8>)) {
    out.push(kind);
    sized(out, write);
}

fn untyped(code: u32, write: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut out = Vec::with_capacity(64);
    sized(&mut out, |body| {
        body.extend_from_slice(&code.to_be_bytes());
        write(body);
    });
    out
}

/// Writes a length before what `write` writes; the length counts itself.
fn sized(out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend_from_slice(&[0; 4]);
    write(out);
    let length = u32::try_from(out.len() - start).unwrap_or(u32::MAX);
    if let Some(place) = out.get_mut(start..).and_then(|rest| rest.first_chunk_mut::<4>()) {
        *place = length.to_be_bytes();
    }
}
