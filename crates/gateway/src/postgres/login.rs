//! Reaching a PostgreSQL server and logging in to it as the gateway.
//!
//! The credential is used here and nowhere else. The server has to prove itself too: by its
//! certificate where TLS is on, by its SCRAM signature where it uses SCRAM.
//!
//! Sources: PostgreSQL 15 manual 55.2.1 and 55.3; src/interfaces/libpq/fe-auth.c.

use std::io;

use link::LinkStream;
use md5::{Digest as _, Md5};
use model::Carried;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use wire::postgres::message;
use wire::postgres::startup::CancelKey;

use crate::config::{Address, Connection};
use crate::outposts::{OPEN_MAX, OpenError, Outposts};
use crate::scram::{Binding, ClientExchange, ScramError};
use crate::stream::Stream;
use crate::tls;
use crate::{hex, random};

/// Longest message that a server may send before it is ready for queries, bytes.
const LOGIN_MESSAGE_BYTES_MAX: usize = 1024 * 1024;
/// All that a server may send between login and readiness, bytes.
const GREETING_BYTES_MAX: usize = 4 * 1024 * 1024;

/// A server that is logged in to and ready for queries.
pub(crate) struct LoggedIn {
    pub(crate) stream: Stream,
    /// ParameterStatus and notices, verbatim, in the order they came.
    pub(crate) greeting: Vec<u8>,
    /// The settings that the server reported, name and value.
    pub(crate) parameters: Vec<(Vec<u8>, Vec<u8>)>,
    /// ReadyForQuery, verbatim.
    pub(crate) ready: Vec<u8>,
    /// The server's own cancel key, never shown to a client.
    pub(crate) cancel: Option<CancelKey>,
}

/// Why a server could not be logged in to. Fault of the upstream, or of our configuration of it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LoginError {
    #[error("cannot reach the server: {0}")]
    Unreachable(#[source] io::Error),
    #[error("TLS with the server failed: {0}")]
    Tls(#[source] io::Error),
    #[error("the server does not offer TLS, and this connection requires it")]
    NoTls,
    #[error("{0:?} is not a name that a certificate can be checked against")]
    Name(String),
    #[error("the server answered 0x{got:02x} where {expected} was expected")]
    Unexpected { expected: &'static str, got: u8 },
    #[error("the server sent a message of {bytes} bytes during login")]
    TooLong { bytes: usize },
    #[error("the server asks for authentication method {0}, which the gateway does not do")]
    Method(u32),
    #[error("the server asks for a password, and none is configured")]
    NoPassword,
    #[error("the server asks for the password in clear text, and who it is was not verified (tls = \"verify-full\")")]
    ClearText,
    #[error("SCRAM with the server failed: {0}")]
    Scram(#[from] ScramError),
    /// The server's own refusal.
    #[error("the server refused: {code}")]
    Refused { code: String, response: Vec<u8> },
}

impl LoginError {
    /// The ErrorResponse for the client. The server's own words pass when they say nothing of the
    /// gateway's credential (SQLSTATE class 28); the rest is for the operator's log.
    pub(crate) fn for_client(&self, connection: &str) -> Vec<u8> {
        match self {
            Self::Refused { code, response } if !code.starts_with("28") => response.clone(),
            Self::Refused { .. } => message::error_response(
                "FATAL",
                "08004",
                &format!("OnRecord could not log in to the resource behind connection \"{connection}\""),
                Some(
                    "The gateway's credential for it was refused; its operator finds the reason in the gateway's log.",
                ),
            ),
            Self::Unreachable(_) => message::error_response(
                "FATAL",
                "08001",
                &format!("OnRecord cannot reach the resource behind connection \"{connection}\""),
                Some("The server may be down or its address wrong; `onrecord doctor` on the gateway says more."),
            ),
            _ => message::error_response(
                "FATAL",
                "08006",
                &format!("OnRecord could not establish a session with the resource behind connection \"{connection}\""),
                Some("`onrecord doctor` on the gateway says why."),
            ),
        }
    }
}

/// A stream towards the server through an outpost, where the connection asks for one; and which outpost that is.
pub(crate) async fn reach(
    connection: &Connection,
    outposts: Option<&Outposts>,
    session: &str,
) -> Result<Option<(LinkStream, Carried)>, OpenError> {
    let (Some(via), Address::Tcp { host, port }) = (&connection.outpost, &connection.address) else {
        return Ok(None);
    };
    let outposts = outposts.ok_or_else(|| OpenError::None(via.clone()))?;
    outposts.open_stream(via, host, *port, session, OPEN_MAX).await.map(Some)
}

/// Connects, with TLS where the connection asks for it; over `carried` where [`reach`] gave one. Not cancel safe: dropping
/// it closes the socket.
pub(crate) async fn connect(
    connection: &Connection,
    carried: Option<LinkStream>,
) -> Result<(Stream, Binding), LoginError> {
    if let (Address::Tcp { host, .. }, Some(carried)) = (&connection.address, carried) {
        return match secure(connection, host, carried).await? {
            Secured::Plain(stream) => Ok((Stream::Link(stream), Binding::None)),
            Secured::Tls(stream, binding) => Ok((Stream::LinkTls(stream), binding)),
        };
    }
    let (host, tcp) = match &connection.address {
        Address::Unix(path) => {
            let stream = UnixStream::connect(path).await.map_err(LoginError::Unreachable)?;
            return Ok((Stream::Unix(stream), Binding::None));
        }
        Address::Tcp { host, port } => {
            let stream = TcpStream::connect((host.as_str(), *port)).await.map_err(LoginError::Unreachable)?;
            stream.set_nodelay(true).map_err(LoginError::Unreachable)?;
            crate::keepalive(&stream);
            (host, stream)
        }
    };
    match secure(connection, host, tcp).await? {
        Secured::Plain(stream) => Ok((Stream::Tcp(stream), Binding::None)),
        Secured::Tls(stream, binding) => Ok((Stream::ClientTls(stream), binding)),
    }
}

/// A stream to the server, as safe as the connection wants it.
enum Secured<S> {
    Plain(S),
    Tls(Box<TlsStream<S>>, Binding),
}

async fn secure<S>(connection: &Connection, host: &str, mut tcp: S) -> Result<Secured<S>, LoginError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let Some(client_tls) = &connection.tls else {
        return Ok(Secured::Plain(tcp));
    };
    tcp.write_all(&message::ssl_request()).await.map_err(LoginError::Unreachable)?;
    // One unframed byte. Whatever an attacker puts behind it goes to the TLS handshake, which
    // fails on it (CVE-2021-23222).
    match tcp.read_u8().await.map_err(LoginError::Unreachable)? {
        b'S' => {}
        b'N' => return Err(LoginError::NoTls),
        got => {
            return Err(LoginError::Unexpected { expected: "the answer to SSLRequest", got });
        }
    }
    let host = connection.server_name.as_deref().unwrap_or(host);
    let name = ServerName::try_from(host.to_owned()).map_err(|_| LoginError::Name(host.to_owned()))?;
    let stream = TlsConnector::from(client_tls.config.clone()).connect(name, tcp).await.map_err(LoginError::Tls)?;
    let certificate = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
    let binding = tls::end_point(certificate);
    Ok(Secured::Tls(Box::new(stream), binding))
}

/// Connects, logs in and waits until the server is ready. `parameters` goes into the startup
/// message as it is. Not cancel safe: dropping it closes the socket.
pub(crate) async fn log_in(
    connection: &Connection,
    carried: Option<LinkStream>,
    version: u32,
    parameters: &[(&[u8], &[u8])],
) -> Result<LoggedIn, LoginError> {
    let (mut stream, binding) = connect(connection, carried).await?;
    let io = LoginError::Unreachable;
    stream.write_all(&message::startup_message(version, parameters)).await.map_err(io)?;
    authenticate(&mut stream, connection, &binding).await?;

    let mut greeting = Vec::new();
    let mut parameters = Vec::new();
    let mut cancel = None;
    loop {
        let frame = read_frame(&mut stream).await?;
        match frame.kind() {
            b'K' => cancel = frame.cancel_key(),
            b'Z' => {
                return Ok(LoggedIn { stream, greeting, parameters, ready: frame.bytes, cancel });
            }
            b'S' | b'N' => {
                parameters.extend(frame.parameter());
                greeting.extend_from_slice(&frame.bytes);
                if greeting.len() > GREETING_BYTES_MAX {
                    return Err(LoginError::TooLong { bytes: greeting.len() });
                }
            }
            // The server may speak an older minor version; either leg negotiates for itself.
            b'v' => {}
            b'E' => return Err(frame.refused()),
            got => {
                return Err(LoginError::Unexpected { expected: "ReadyForQuery", got });
            }
        }
    }
}

async fn authenticate(stream: &mut Stream, connection: &Connection, binding: &Binding) -> Result<(), LoginError> {
    let io = LoginError::Unreachable;
    let password = || connection.password.as_ref().ok_or(LoginError::NoPassword);
    let mut scram: Option<ClientExchange> = None;
    let mut proof = None;
    loop {
        let frame = read_frame(stream).await?;
        match frame.kind() {
            b'R' => {}
            b'v' | b'N' => continue,
            b'E' => return Err(frame.refused()),
            got => {
                return Err(LoginError::Unexpected { expected: "an authentication request", got });
            }
        }
        let (method, data) = frame.authentication()?;
        let answer = match method {
            0 if scram.is_none() && proof.is_none() => return Ok(()),
            // A server that asked for SCRAM and then skips its own proof is not the server.
            0 => return Err(ScramError::ServerProof.into()),
            // A server that has begun SCRAM and then wants less is not the server.
            3 | 5 if scram.is_some() || proof.is_some() => return Err(ScramError::Malformed.into()),
            3 if !connection.may_see_password() => return Err(LoginError::ClearText),
            3 => message::password_message(password()?),
            5 => {
                let hash = md5_response(&connection.user, password()?, data);
                message::password_message(hash.as_bytes())
            }
            10 => {
                let names = String::from_utf8_lossy(data).into_owned();
                let offered: Vec<&str> = names.split('\0').filter(|name| !name.is_empty()).collect();
                let nonce = random::bytes();
                let (exchange, mechanism, first) = ClientExchange::start(password()?, &offered, binding, &nonce)?;
                scram = Some(exchange);
                message::sasl_initial_response(mechanism, first.as_bytes())
            }
            11 => {
                let exchange = scram.take().ok_or(ScramError::Malformed)?;
                let (expected, last) = exchange.prove(data, &connection.salted)?;
                proof = Some(expected);
                message::sasl_response(last.as_bytes())
            }
            12 => {
                proof.take().ok_or(ScramError::Malformed)?.check(data)?;
                continue;
            }
            other => return Err(LoginError::Method(other)),
        };
        stream.write_all(&answer).await.map_err(io)?;
    }
}

/// `"md5" + md5hex(md5hex(password + user) + salt)`; manual 55.2.1, AuthenticationMD5Password.
fn md5_response(user: &str, password: &[u8], salt: &[u8]) -> String {
    let inner = hex(&Md5::digest([password, user.as_bytes()].concat()));
    format!("md5{}", hex(&Md5::digest([inner.as_bytes(), salt].concat())))
}

/// One whole message of the login phase: type, length, body.
struct Frame {
    bytes: Vec<u8>,
}

impl Frame {
    fn kind(&self) -> u8 {
        self.bytes.first().copied().unwrap_or_default()
    }

    fn body(&self) -> &[u8] {
        self.bytes.get(5..).unwrap_or_default()
    }

    fn authentication(&self) -> Result<(u32, &[u8]), LoginError> {
        match self.body().split_first_chunk::<4>() {
            Some((method, data)) => Ok((u32::from_be_bytes(*method), data)),
            None => Err(LoginError::Unexpected { expected: "an authentication request", got: b'R' }),
        }
    }

    /// Name and value of a ParameterStatus.
    fn parameter(&self) -> Option<(Vec<u8>, Vec<u8>)> {
        let mut strings = self.body().split(|&byte| byte == 0);
        match (self.kind(), strings.next(), strings.next()) {
            (b'S', Some(name), Some(value)) => Some((name.to_vec(), value.to_vec())),
            _ => None,
        }
    }

    fn cancel_key(&self) -> Option<CancelKey> {
        let (pid, secret) = self.body().split_first_chunk::<4>()?;
        Some(CancelKey { pid: u32::from_be_bytes(*pid), secret: secret.to_vec() })
    }

    fn refused(self) -> LoginError {
        let code = message::error_fields(self.body()).code;
        LoginError::Refused { code, response: self.bytes }
    }
}

async fn read_frame(stream: &mut Stream) -> Result<Frame, LoginError> {
    let mut header = [0u8; 5];
    stream.read_exact(&mut header).await.map_err(LoginError::Unreachable)?;
    let [_, a, b, c, d] = header;
    let length = usize::try_from(u32::from_be_bytes([a, b, c, d])).unwrap_or(usize::MAX);
    if !(4..=LOGIN_MESSAGE_BYTES_MAX).contains(&length) {
        return Err(LoginError::TooLong { bytes: length });
    }
    let mut bytes = vec![0; 1 + length];
    let (head, body) = bytes.split_at_mut(5);
    head.copy_from_slice(&header);
    stream.read_exact(body).await.map_err(LoginError::Unreachable)?;
    Ok(Frame { bytes })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Computed with PostgreSQL's own formula: md5(md5('secretbea') || salt).
    #[test]
    fn md5_is_hashed_twice_with_user_and_salt() {
        let once = hex(&Md5::digest(b"secretbea"));
        let twice = hex(&Md5::digest([once.as_bytes(), &[1, 2, 3, 4]].concat()));
        assert_eq!(md5_response("bea", b"secret", &[1, 2, 3, 4]), format!("md5{twice}"));
    }
}
