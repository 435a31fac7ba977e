//! A new client: TLS, startup message, proof of identity.
//!
//! Nothing upstream is touched before the client has proven who it is. Every read is of exactly
//! as many bytes as the message says, so that no byte sent ahead of TLS is ever read as protocol
//! (CVE-2021-23214), and the loop over SSL and GSS requests is bounded (CVE-2026-6479).
//!
//! Sources: PostgreSQL 15 manual 55.2.1, 55.2.10 to 55.2.12; src/backend/postmaster/postmaster.c,
//! ProcessStartupPacket; src/backend/libpq/auth.c.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use model::{ChannelBinding, Identity, ProofMethod};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_rustls::TlsAcceptor;
use wire::postgres::message;
use wire::postgres::startup::{CancelKey, First, Startup, StartupError, parse_first};
use zeroize::Zeroizing;

use super::Route;
use crate::access::{self, Access, NotProven, Proven};
use crate::config::{Config, Plaintext};
use crate::random;
use crate::refusals::{Named, Reason};
use crate::scram::{Binding, ChannelBound, SCRAM, SCRAM_PLUS, ServerExchange};
use crate::stream::Stream;
use crate::tls::ALPN_POSTGRESQL;

/// The newest protocol version that is spoken.
const VERSION_NEWEST: u32 = 0x0003_0002;
/// Longest SASL message that is taken from a client, bytes.
const SASL_BYTES_MAX: usize = 4096;
/// Longest message with a token that is read, bytes. It is more than a token may have, so that one that is too long is
/// told so.
const TOKEN_MESSAGE_BYTES_MAX: usize = 64 * 1024;
/// The user name of a client that proves by a token who it is.
const TOKEN_USER: &str = "token";

/// What a new connection turned out to be.
pub(crate) enum Greeted {
    /// A client that has proven who it is.
    Client(Box<Client>),
    /// A request to cancel what another session is running.
    Cancel(CancelKey),
}

/// A client that has proven who it is. The last message that it was sent is the SCRAM server
/// signature; AuthenticationOk is still owed.
pub(crate) struct Client {
    pub(crate) stream: Stream,
    pub(crate) peer: SocketAddr,
    pub(crate) route: Route,
    pub(crate) tls: Option<&'static str>,
    pub(crate) startup: Startup,
    pub(crate) identity: Arc<Identity>,
    /// The one connection that its credential opens, if it is for one only.
    only: Option<Vec<String>>,
    /// The database name as the client gave it.
    pub(crate) asked: String,
    /// Its part before the first slash.
    pub(crate) connection: String,
    /// The part after it.
    pub(crate) database: Option<String>,
    /// Minor version in force towards this client: 0 or 2.
    pub(crate) minor: u16,
}

impl Client {
    /// Whether the client's credential is one for this connection. Whether its identity may use it is another question.
    pub(crate) fn may_open(&self, connection: &str) -> bool {
        self.only.as_ref().is_none_or(|only| only.iter().any(|name| name == connection))
    }
}

/// Why a connection was turned away. What the client may read has been sent already.
#[derive(Debug, thiserror::Error)]
pub(crate) enum GreetError {
    #[error("the client went away: {0}")]
    Gone(#[from] io::Error),
    #[error("turned away: {0:?}")]
    Refused(Reason),
    /// It could not prove who it is.
    #[error("turned away: {reason:?}")]
    NotProven { reason: Reason, named: Named },
}

/// Takes a connection up to its proof of identity. The caller bounds the time. Not cancel safe:
/// dropping it closes the socket.
pub(crate) async fn greet(
    stream: Stream,
    peer: SocketAddr,
    route: Route,
    config: &Config,
    access: &Access,
) -> Result<Greeted, GreetError> {
    let (mut stream, binding, tls, certificate, startup) = match secure(stream, plaintext(&route, peer, config), config)
        .await?
    {
        Secured::Cancel(key) => return Ok(Greeted::Cancel(key)),
        Secured::Startup { stream, binding, tls, certificate, startup } => (stream, binding, tls, certificate, startup),
    };
    if startup.major() != 3 {
        let text = format!(
            "unsupported frontend protocol {}.{}: OnRecord speaks 3.0 to 3.2",
            startup.major(),
            startup.minor()
        );
        return refuse(&mut stream, Reason::Unsupported, "0A000", &text, None).await;
    }
    if startup.replication().is_some_and(|value| !is_off(value)) {
        let text = "replication connections are not carried by OnRecord";
        let hint = "Logical and physical replication read whole tables without a statement that could be recorded.";
        return refuse(&mut stream, Reason::Unsupported, "0A000", text, Some(hint)).await;
    }
    let minor = if startup.minor() >= 2 { 2 } else { 0 };
    let options = startup.unsupported_options();
    if !options.is_empty() || startup.minor() > 2 || startup.minor() == 1 {
        let newest = if minor == 2 { VERSION_NEWEST } else { 0x0003_0000 };
        let answer = message::negotiate_protocol_version(newest, &options);
        stream.write_all(&answer).await?;
    }
    let user = startup.user().unwrap_or_default().to_vec();
    let name = String::from_utf8_lossy(&user).into_owned();
    let asked = startup.database().unwrap_or(&user);
    let asked = String::from_utf8_lossy(asked).into_owned();
    let (connection, database) = match asked.split_once('/') {
        Some((connection, database)) => (connection.to_owned(), Some(database.to_owned())),
        None => (asked.clone(), None),
    };
    let named = || Named::new(&user, asked.as_bytes());
    let certified = certificate.and_then(|certificate| by_certificate(&certificate, &name, config));
    let verdict = match (certified, Login::of(&name)) {
        (Some(identity), _) => Ok(Proven { identity: Arc::new(identity), only: None }),
        (None, Login::Key) => match by_key(&mut stream, &binding, &name, config, &access.mock_key()).await? {
            Some(identity) => Ok(Proven { identity: Arc::new(identity), only: None }),
            // One text for a wrong secret and for a name that does not exist, the server's own.
            None => {
                Err((Reason::AuthenticationFailed, format!("password authentication failed for user \"{name}\""), None))
            }
        },
        // SSH has encrypted what comes through a tunnel.
        (None, Login::Token) if tls.is_none() && matches!(route, Route::Straight) => {
            let text = "OnRecord takes tokens over TLS only";
            let hint = "Set sslmode=verify-full (or at least require) in the client.";
            return refuse(&mut stream, Reason::PlaintextRefused, "28000", text, Some(hint)).await;
        }
        (None, Login::Token) => match by_token(&mut stream, &name, config, access).await? {
            Ok(proven) => Ok(proven),
            Err(NotProven { reason, text, hint }) => {
                Err((reason, format!("OnRecord does not accept the token: {text}"), hint))
            }
        },
    };
    // Again, now that there is a verdict: of guesses that come at the same time no more are answered than one by one.
    let failures_max = config.limits.failed_logins_per_minute_max;
    if let Some(wait) = access.wait(peer.ip(), failures_max) {
        let (text, hint) = throttled(wait);
        return refuse(&mut stream, Reason::Throttled, "53300", &text, Some(hint)).await;
    }
    let Proven { identity, only } = match verdict {
        Ok(proven) => proven,
        Err((reason, text, hint)) => {
            access.failed(peer.ip(), reason, failures_max);
            let answer = message::error_response("FATAL", "28P01", &text, hint);
            return not_proven(&mut stream, reason, named(), &answer).await;
        }
    };
    let client = Client { stream, peer, route, tls, startup, identity, only, asked, connection, database, minor };
    Ok(Greeted::Client(Box::new(client)))
}

/// What a source is told that has failed too often.
pub(crate) fn throttled(wait: Duration) -> (String, &'static str) {
    let seconds = wait.as_secs() + 1;
    let text = format!("OnRecord takes no logins from this address for {seconds} s: too many have failed");
    (text, "Look for a client that keeps trying with a wrong credential.")
}

/// How a client that gives this user name proves who it is. Only the form of the name counts, so that the way tells
/// nothing of which names exist.
enum Login {
    /// By the key of the identity with that name, which is not sent.
    Key,
    /// By a token, which is sent; the name is [`TOKEN_USER`], or the identity's full name.
    Token,
}

impl Login {
    fn of(user: &str) -> Self {
        if user == TOKEN_USER || user.contains(':') { Self::Token } else { Self::Key }
    }
}

/// The identity that a client certificate proves, if it is the one that the user name names. What it does not prove may
/// still be proven by a secret.
fn by_certificate(certificate: &[u8], user: &str, config: &Config) -> Option<Identity> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let proven = config.certificates.as_ref()?.prove(certificate, now).ok()?;
    let names = [proven.name.name(), proven.name.as_str(), TOKEN_USER];
    names.contains(&user).then(|| access::identity_of(proven, ChannelBinding::Bound))
}

/// SCRAM with the key of an identity. `None` when the proof is wrong or there is no such identity.
async fn by_key(
    stream: &mut Stream,
    binding: &Binding,
    user: &str,
    config: &Config,
    mock_key: &[u8; 32],
) -> Result<Option<Identity>, GreetError> {
    let known = config.identities.get(user);
    let secret = known.and_then(|identity| identity.secret.as_ref());
    let proven = prove(stream, binding, user.as_bytes(), secret, mock_key).await?;
    let (Some(identity), Some(bound)) = (known, proven) else {
        return Ok(None);
    };
    let (method, channel) = match bound {
        ChannelBound::Yes => (ProofMethod::ScramSha256Plus, ChannelBinding::Bound),
        ChannelBound::No => (ProofMethod::ScramSha256, ChannelBinding::None),
    };
    Ok(Some(identity.proven(method, channel, identity.credential.clone())))
}

/// A token as the password.
async fn by_token(
    stream: &mut Stream,
    user: &str,
    config: &Config,
    access: &Access,
) -> Result<Result<Proven, NotProven>, GreetError> {
    stream.write_all(&message::authentication_cleartext()).await?;
    stream.flush().await?;
    let mut password = Zeroizing::new(read_password(stream, TOKEN_MESSAGE_BYTES_MAX).await?);
    if password.pop() != Some(0) {
        return Err(GreetError::Refused(Reason::Malformed));
    }
    let proven = match std::str::from_utf8(&password) {
        Ok(text) => access.prove(text, config).await,
        Err(_) => Err(NotProven::malformed()),
    };
    Ok(proven.and_then(|proven| match proven.identity.name.as_str() {
        name if user == TOKEN_USER || user == name => Ok(proven),
        name => Err(NotProven {
            reason: Reason::AuthenticationFailed,
            text: format!("it is one of {name}, and the user name says {user}"),
            hint: Some("Give `token` as the user name, or the full name of the identity."),
        }),
    }))
}

enum Secured {
    Cancel(CancelKey),
    Startup {
        stream: Stream,
        binding: Binding,
        tls: Option<&'static str>,
        /// The client's certificate, if it showed one; TLS has verified it.
        certificate: Option<Vec<u8>>,
        startup: Startup,
    },
}

/// Whether a client may do without TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum WithoutTls {
    Allowed,
    Refused,
}

fn plaintext(route: &Route, peer: SocketAddr, config: &Config) -> WithoutTls {
    let allowed = match (route, config.plaintext) {
        // It is no plaintext: SSH encrypts it as TLS would.
        (Route::Tunnel(_), _) | (Route::Straight, Plaintext::Always) => true,
        (Route::Straight, Plaintext::Loopback) => peer.ip().to_canonical().is_loopback(),
        (Route::Straight, Plaintext::Never) => false,
    };
    if allowed { WithoutTls::Allowed } else { WithoutTls::Refused }
}

/// Answers SSLRequest and GSSENCRequest, each at most once, and reads the startup message.
async fn secure(mut stream: Stream, without: WithoutTls, config: &Config) -> Result<Secured, GreetError> {
    let Some(first) = stream.peek().await? else {
        return Err(GreetError::Refused(Reason::ClosedEarly));
    };
    if first == 0x16 {
        let stream = accept_tls(stream, config).await?;
        if stream.get_ref().1.alpn_protocol() != Some(ALPN_POSTGRESQL) {
            return Err(GreetError::Refused(Reason::Malformed));
        }
        return over_tls(stream, config).await;
    }
    let mut gss_asked = false;
    loop {
        match read_first(&mut stream).await? {
            First::Tls => {
                stream.write_all(b"S").await?;
                stream.flush().await?;
                let stream = accept_tls(stream, config).await?;
                return over_tls(stream, config).await;
            }
            First::Gss if !gss_asked => {
                gss_asked = true;
                stream.write_all(b"N").await?;
                stream.flush().await?;
            }
            First::Cancel(key) => return Ok(Secured::Cancel(key)),
            First::Start(startup) => {
                if without == WithoutTls::Refused {
                    let text = "OnRecord takes connections over TLS only";
                    let hint = "Set sslmode=verify-full (or at least require) in the client.";
                    return refuse(&mut stream, Reason::PlaintextRefused, "28000", text, Some(hint)).await;
                }
                return Ok(Secured::Startup { stream, binding: Binding::None, tls: None, certificate: None, startup });
            }
            First::Gss | First::DirectTls => {
                return Err(GreetError::Refused(Reason::Malformed));
            }
        }
    }
}

async fn accept_tls(stream: Stream, config: &Config) -> Result<tokio_rustls::server::TlsStream<Stream>, GreetError> {
    TlsAcceptor::from(config.tls.config.clone())
        .accept(stream)
        .await
        .map_err(|_| GreetError::Refused(Reason::Malformed))
}

async fn over_tls(mut stream: tokio_rustls::server::TlsStream<Stream>, config: &Config) -> Result<Secured, GreetError> {
    let version = match stream.get_ref().1.protocol_version() {
        Some(rustls::ProtocolVersion::TLSv1_2) => "TLSv1.2",
        _ => "TLSv1.3",
    };
    let shown = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
    let certificate = shown.map(|certificate| certificate.to_vec());
    match read_first(&mut stream).await? {
        First::Cancel(key) => Ok(Secured::Cancel(key)),
        First::Start(startup) => Ok(Secured::Startup {
            stream: Stream::ServerTls(Box::new(stream)),
            binding: Binding::EndPoint(config.tls.end_point.clone()),
            tls: Some(version),
            certificate,
            startup,
        }),
        // Encryption inside encryption: CVE-2026-14681.
        First::Tls | First::Gss | First::DirectTls => Err(GreetError::Refused(Reason::Malformed)),
    }
}

/// Reads one startup packet: its length, then exactly that many bytes.
async fn read_first<S>(stream: &mut S) -> Result<First, GreetError>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    let mut packet = vec![0; 8];
    if let Err(error) = stream.read_exact(&mut packet).await {
        return Err(match error.kind() {
            io::ErrorKind::UnexpectedEof => GreetError::Refused(Reason::ClosedEarly),
            _ => error.into(),
        });
    }
    loop {
        match parse_first(&packet) {
            Ok(Some((first, _))) => return Ok(first),
            Ok(None) => {
                let [a, b, c, d, ..] = packet.as_slice() else {
                    return Err(GreetError::Refused(Reason::Malformed));
                };
                let length = u32::from_be_bytes([*a, *b, *c, *d]);
                let length = usize::try_from(length).unwrap_or(usize::MAX);
                let have = packet.len();
                // parse_first has checked the length; it asks for more only below its limit.
                if length <= have || length > wire::postgres::startup::STARTUP_BYTES_MAX {
                    return Err(GreetError::Refused(Reason::Malformed));
                }
                packet.resize(length, 0);
                let rest = packet.get_mut(have..).unwrap_or_default();
                stream.read_exact(rest).await?;
            }
            Err(error) => return Err(malformed(stream, &error).await),
        }
    }
}

async fn malformed<S>(stream: &mut S, error: &StartupError) -> GreetError
where
    S: tokio::io::AsyncWrite + Unpin,
{
    let (code, text) = error.for_client();
    let answer = message::error_response("FATAL", code, &text, None);
    // The client may be gone; the reason is counted either way.
    let _ = stream.write_all(&answer).await;
    let _ = stream.flush().await;
    GreetError::Refused(Reason::Malformed)
}

/// SCRAM, with the channel bound where there is one. `None` when the proof is wrong.
async fn prove(
    stream: &mut Stream,
    binding: &Binding,
    user: &[u8],
    secret: Option<&crate::scram::Secret>,
    mock_key: &[u8; 32],
) -> Result<Option<ChannelBound>, GreetError> {
    let mechanisms: &[&str] = match binding {
        Binding::None => &[SCRAM],
        Binding::EndPoint(_) => &[SCRAM_PLUS, SCRAM],
    };
    stream.write_all(&message::authentication_sasl(mechanisms)).await?;
    stream.flush().await?;
    let initial = read_password(stream, SASL_BYTES_MAX).await?;
    let Some((mechanism, data)) = sasl_initial(&initial) else {
        return Err(GreetError::Refused(Reason::Malformed));
    };
    let nonce = random::bytes();
    let started = ServerExchange::start(mechanism, data, user, secret, mock_key, binding, &nonce);
    let Ok((exchange, server_first)) = started else {
        return Ok(None);
    };
    let answer = message::authentication_sasl_continue(server_first.as_bytes());
    stream.write_all(&answer).await?;
    stream.flush().await?;
    let last = read_password(stream, SASL_BYTES_MAX).await?;
    let Ok((server_final, bound)) = exchange.finish(&last) else {
        return Ok(None);
    };
    let answer = message::authentication_sasl_final(server_final.as_bytes());
    stream.write_all(&answer).await?;
    Ok(Some(bound))
}

/// The body of a 'p' message.
async fn read_password(stream: &mut Stream, bytes_max: usize) -> Result<Vec<u8>, GreetError> {
    let kind = stream.read_u8().await?;
    let length = usize::try_from(stream.read_u32().await?).unwrap_or(usize::MAX);
    if kind != b'p' || !(4..=bytes_max).contains(&length) {
        return Err(GreetError::Refused(Reason::Malformed));
    }
    let mut body = vec![0; length - 4];
    stream.read_exact(&mut body).await?;
    Ok(body)
}

/// SASLInitialResponse: mechanism, NUL, length, data.
fn sasl_initial(body: &[u8]) -> Option<(&str, &[u8])> {
    let end = body.iter().position(|&byte| byte == 0)?;
    let (mechanism, rest) = body.split_at_checked(end)?;
    let (length, data) = rest.get(1..)?.split_first_chunk::<4>()?;
    let length = usize::try_from(u32::from_be_bytes(*length)).ok()?;
    (data.len() == length).then_some(())?;
    Some((std::str::from_utf8(mechanism).ok()?, data))
}

/// Values that PostgreSQL reads as "no" for `replication`; parse_bool in src/backend/utils/adt/bool.c.
fn is_off(value: &[u8]) -> bool {
    let value = value.to_ascii_lowercase();
    matches!(value.as_slice(), b"0" | b"f" | b"fa" | b"fal" | b"fals" | b"false" | b"n" | b"no" | b"of" | b"off")
}

async fn not_proven<T>(stream: &mut Stream, reason: Reason, named: Named, answer: &[u8]) -> Result<T, GreetError> {
    stream.write_all(answer).await?;
    stream.shutdown().await?;
    Err(GreetError::NotProven { reason, named })
}

async fn refuse<T>(
    stream: &mut Stream,
    reason: Reason,
    code: &str,
    text: &str,
    hint: Option<&str>,
) -> Result<T, GreetError> {
    stream.write_all(&message::error_response("FATAL", code, text, hint)).await?;
    stream.shutdown().await?;
    Err(GreetError::Refused(reason))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sasl_response_says_its_length_and_keeps_to_it() {
        assert_eq!(sasl_initial(b"X\0\0\0\0\x02ab"), Some(("X", b"ab".as_slice())));
        for bad in [b"".as_slice(), b"X", b"X\0", b"X\0\0\0\0\x03ab", b"X\0\xff\xff\xff\xff"] {
            assert_eq!(sasl_initial(bad), None);
        }
    }

    #[test]
    fn replication_is_off_only_when_it_says_so() {
        assert!(is_off(b"off") && is_off(b"FALSE") && is_off(b"0"));
        assert!(!is_off(b"database") && !is_off(b"true") && !is_off(b"") && !is_off(b"o"));
    }
}
