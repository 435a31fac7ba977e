//! The HTTP API towards agents and people: exchange of a proof for a connection token or an SSH certificate, and who one is.
//!
//! ```text
//! GET  /v1/about      what a client needs to know to log in; for everybody
//! GET  /v1/whoami     who the bearer is and what it may use
//! POST /oauth/token   RFC 8693: a token of an issuer in, a connection token or a certificate for an SSH key out
//! …    /v1/approvals  what waits for people (`approvals::api`)
//! …    /v1/break-glass  who runs it without waiting (`break_glass::api`)
//! …    /v1/passkeys   what people sign with (`passkeys::api`)
//! GET  /approve       the page for both
//! ```
//!
//! TLS only, HTTP/1.1, one thread with its own event loop: what is done here is rare, and may wait for the disk. It is
//! no place for what an operator does (that is the control socket), nor for the record (that is `publish`).
//!
//! Invariant: a connection token, or a certificate, is on the record before it leaves.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::header::{AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE, HeaderMap, WWW_AUTHENTICATE};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use model::{Identity, Opens, RefusedReason as Reason, Token, wall_text};
use policy::Grants;
use russh::keys::ssh_key::certificate::CertType;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use zeroize::Zeroizing;

use crate::access::{AccessError, NotProven, Proven};
use crate::approvals::{self, Signing};
use crate::refusals::Named;
use crate::ssh::certificates::{self, PRINCIPALS_MAX};
use crate::{Config, KeyError, Shared, SshPrivateKey, SshPublicKey, break_glass, passkeys};

/// Connections at a time; others wait to be accepted.
const CONNECTIONS_MAX: usize = 256;
/// Bytes of a request's first line and headers; a token has to fit.
const HEAD_BYTES_MAX: usize = 64 * 1024;
/// Headers of a request.
const HEADERS_MAX: usize = 64;
/// Bytes of a request's body.
const BODY_BYTES_MAX: usize = 64 * 1024;
/// How long the handshake, a head, or a body may take.
const REQUEST_MAX: Duration = Duration::from_secs(10);
/// How old a connection may become.
const CONNECTION_MAX: Duration = Duration::from_secs(120);
/// Pause after an accept that failed.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How long a connection token holds when nobody says.
const TTL_DEFAULT: Duration = Duration::from_secs(15 * 60);

/// Where approvals are.
const APPROVALS: &str = "/v1/approvals";
/// Where break-glass is.
const BREAK_GLASS: &str = "/v1/break-glass";
/// Where passkeys are.
const PASSKEYS: &str = "/v1/passkeys";
/// RFC 8693, 2.1.
const GRANT_EXCHANGE: &str = "urn:ietf:params:oauth:grant-type:token-exchange";
/// RFC 8693, 3.
const TYPE_JWT: &str = "urn:ietf:params:oauth:token-type:jwt";
/// As above; what issuers call an ID token is a JWT too.
const TYPE_ID_TOKEN: &str = "urn:ietf:params:oauth:token-type:id_token";
/// As above.
const TYPE_ACCESS_TOKEN: &str = "urn:ietf:params:oauth:token-type:access_token";
/// Our own: a certificate for an SSH key, as OpenSSH writes one.
const TYPE_SSH_CERTIFICATE: &str = "urn:onrecord:token-type:ssh-certificate";

/// Where the gateway speaks what, where it does.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ports {
    pub(crate) postgres: Option<u16>,
    pub(crate) ssh: Option<u16>,
}

/// Serves until the gateway stops.
pub(crate) async fn run(shared: Arc<Shared>, listeners: Vec<TcpListener>, ports: Ports) {
    let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut accepting = JoinSet::new();
    for listener in listeners {
        accepting.spawn(accept(shared.clone(), listener, slots.clone(), ports));
    }
    shared.stopping.cancelled().await;
    accepting.shutdown().await;
}

async fn accept(shared: Arc<Shared>, listener: TcpListener, slots: Arc<Semaphore>, ports: Ports) {
    let mut connections = JoinSet::new();
    loop {
        let Ok(slot) = slots.clone().acquire_owned().await else { return };
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection to the API");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        while connections.try_join_next().is_some() {}
        let shared = shared.clone();
        connections.spawn(async move {
            let _ = timeout(CONNECTION_MAX, connection(shared, stream, peer, ports)).await;
            drop(slot);
        });
    }
}

async fn connection(shared: Arc<Shared>, stream: TcpStream, peer: SocketAddr, ports: Ports) {
    let tls = shared.config().tls.http.clone();
    let Ok(Ok(stream)) = timeout(REQUEST_MAX, TlsAcceptor::from(tls).accept(stream)).await else {
        return shared.refuse(Reason::Malformed, peer);
    };
    let service = service_fn(|request| {
        let shared = shared.clone();
        async move { Ok::<_, Infallible>(answer(&shared, request, peer, ports).await) }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(REQUEST_MAX)
        .max_headers(HEADERS_MAX)
        .max_buf_size(HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), service);
    // A client that speaks no HTTP, or leaves in the middle, is its own business.
    let _ = served.await;
}

type Answer = Response<Full<Bytes>>;

async fn answer(shared: &Shared, request: Request<Incoming>, peer: SocketAddr, ports: Ports) -> Answer {
    let config = shared.config();
    match (request.method(), request.uri().path()) {
        (&Method::GET, "/v1/about") => {
            let mut about = config.about.clone();
            if let Some(about) = about.as_object_mut() {
                about.insert("postgres".to_owned(), json!({"port": ports.postgres}));
                if let (Some(keys), Some(port)) = (&config.ssh, ports.ssh) {
                    let [host_key, host_ca] = [&keys.host, &keys.host_ca].map(|key| key.public().to_openssh());
                    let known = json!({"port": port, "host_key": host_key, "host_ca": host_ca});
                    about.insert("ssh".to_owned(), known);
                }
            }
            json_answer(StatusCode::OK, &about)
        }
        (&Method::GET, "/v1/whoami") => match bearer_of(request.headers()) {
            None => unauthorised("the request has no bearer token", "give it as `Authorization: Bearer TOKEN`"),
            Some(token) => match proven(shared, &config, &token, peer).await {
                Ok(proven) => json_answer(StatusCode::OK, &whoami(&config, &proven)),
                Err(NotProven { text, hint, .. }) => unauthorised(&text, hint.unwrap_or_default()),
            },
        },
        (&Method::POST, "/oauth/token") => {
            let bearer = bearer_of(request.headers());
            match timeout(REQUEST_MAX, Limited::new(request.into_body(), BODY_BYTES_MAX).collect()).await {
                Ok(Ok(body)) => {
                    let body = Zeroizing::new(body.to_bytes().to_vec());
                    let exchanged = exchange(shared, &config, bearer, &body, peer).await;
                    exchanged.unwrap_or_else(OauthError::answer)
                }
                Ok(Err(_)) => OauthError::request("the body is longer than 64 KiB, or broke off").answer(),
                Err(_) => OauthError::request("the body took too long").answer(),
            }
        }
        (_, path) if [APPROVALS, BREAK_GLASS, PASSKEYS].iter().any(|above| is_below(path, above)) => {
            for_people(shared, &config, request, peer).await
        }
        (&Method::GET, "/approve" | "/approve.js" | "/approve.css") => {
            let page = passkeys::page(request.uri().path());
            page.unwrap_or_else(|| json_answer(StatusCode::NOT_FOUND, &json!({"error": "not_found"})))
        }
        (_, "/v1/about" | "/v1/whoami" | "/oauth/token" | "/approve" | "/approve.js" | "/approve.css") => {
            let status = StatusCode::METHOD_NOT_ALLOWED;
            json_answer(status, &json!({"error": "method_not_allowed"}))
        }
        _ => json_answer(StatusCode::NOT_FOUND, &json!({"error": "not_found"})),
    }
}

/// What people decide, and sign with. Who asks must be proven by what proves them elsewhere, not by a token for one
/// connection.
async fn for_people(shared: &Shared, config: &Config, request: Request<Incoming>, peer: SocketAddr) -> Answer {
    let Some(token) = bearer_of(request.headers()) else {
        return unauthorised("the request has no bearer token", "give it as `Authorization: Bearer TOKEN`");
    };
    let proven = match proven(shared, config, &token, peer).await {
        Ok(Proven { only: Some(_), .. }) => {
            return unauthorised("a connection token is for its connection only", "use what proved you first");
        }
        Ok(proven) => proven,
        Err(NotProven { text, hint, .. }) => return unauthorised(&text, hint.unwrap_or_default()),
    };
    let (head, body) = request.into_parts();
    let Ok(Ok(body)) = timeout(REQUEST_MAX, Limited::new(body, BODY_BYTES_MAX).collect()).await else {
        let text = "the body is longer than 64 KiB, broke off, or took too long";
        return json_answer(StatusCode::BAD_REQUEST, &json!({"error": "invalid_request", "error_description": text}));
    };
    // A lock-out may have come in while the body did.
    if shared.access.is_revoked(&proven.identity.name) {
        return unauthorised(&NotProven::revoked(&proven.identity.name).text, "");
    }
    let (path, query, body) = (head.uri.path(), head.uri.query(), body.to_bytes());
    let (passkeys, site) = (shared.access.passkeys(), config.passkeys.as_ref());
    let (by, method) = (&proven.identity, &head.method);
    let (status, value) = if let Some(path) = path.strip_prefix(PASSKEYS) {
        passkeys::answer(passkeys, site, by, method, path, &body)
    } else if let Some(path) = path.strip_prefix(BREAK_GLASS) {
        break_glass::answer(&shared.break_glass, config, by, method, path, query, &body).await
    } else {
        let (path, signing) = (path.strip_prefix(APPROVALS).unwrap_or_default(), Signing { passkeys, site });
        approvals::answer(&shared.approvals, &signing, by, method, path, query, &body).await
    };
    // One that came in meanwhile has not seen a key that was just enrolled.
    if shared.access.is_revoked(&proven.identity.name)
        && let Err(error) = passkeys.remove_all(&proven.identity.name)
    {
        tracing::error!(%error, "the passkeys of an identity that is locked out cannot be removed");
    }
    json_answer(status, &value)
}

/// Who a token proves, with what every failure costs: an entry, and one of the source's tries.
async fn proven(shared: &Shared, config: &Config, token: &str, peer: SocketAddr) -> Result<Proven, NotProven> {
    let failures_max = config.limits.failed_logins_per_minute_max;
    let check = || match shared.access.wait(peer.ip(), failures_max) {
        None => Ok(()),
        Some(wait) => Err(NotProven {
            reason: Reason::Throttled,
            text: format!("too many attempts from this address have failed; wait {} s", wait.as_secs() + 1),
            hint: None,
        }),
    };
    let proven = match check() {
        Ok(()) => shared.access.prove(token, config).await,
        Err(throttled) => Err(throttled),
    };
    // Again, now that there is a verdict: of guesses that come at the same time no more are answered than one by one.
    let proven = check().and(proven).and_then(|proven| match shared.access.is_revoked(&proven.identity.name) {
        true => Err(NotProven::revoked(&proven.identity.name)),
        false => Ok(proven),
    });
    if let Err(NotProven { reason, .. }) = &proven {
        shared.access.failed(peer.ip(), *reason, failures_max);
        shared.refuse(*reason, peer);
    }
    proven
}

/// A token exchange, RFC 8693. What the standard has no place for (how long, and for whom) is added to its answer.
async fn exchange(
    shared: &Shared,
    config: &Config,
    bearer: Option<Zeroizing<String>>,
    body: &[u8],
    peer: SocketAddr,
) -> Result<Answer, OauthError> {
    let form = Form::parse(body)?;
    match form.get("grant_type")? {
        Some(GRANT_EXCHANGE) => {}
        Some(_) | None => {
            return Err(OauthError::new("unsupported_grant_type", format!("grant_type is {GRANT_EXCHANGE}")));
        }
    }
    if let Some(kind) = form.get("subject_token_type")?
        && ![TYPE_JWT, TYPE_ID_TOKEN, TYPE_ACCESS_TOKEN].contains(&kind)
    {
        return Err(OauthError::request(format_args!("subject_token_type is {TYPE_JWT}")));
    }
    let subject = form.get("subject_token")?.or(bearer.as_deref().map(String::as_str));
    let subject = subject.ok_or_else(|| OauthError::request("subject_token is missing"))?;
    let wanted = Wants::of(&form, config)?;
    let ttl = match form.get("ttl_seconds")? {
        None => TTL_DEFAULT.min(config.limits.token_max),
        Some(text) => {
            text.parse().map(Duration::from_secs).map_err(|_| OauthError::request("ttl_seconds is a number"))?
        }
    };
    if ttl.is_zero() || ttl > config.limits.token_max {
        let most = config.limits.token_max.as_secs();
        return Err(OauthError::request(format_args!("ttl_seconds is 1 to {most}")));
    }
    let proven = proven(shared, config, subject, peer).await;
    let Proven { identity, only } = proven.map_err(|NotProven { text, .. }| {
        OauthError::new("invalid_grant", format!("the token is not accepted: {text}"))
    })?;
    if only.is_some() {
        let text = "a connection token cannot be exchanged for another; use what proved you first";
        return Err(OauthError::new("invalid_grant", text));
    }
    let Ticket { text, kind, token, opens } = match wanted {
        Wants::Token(asked) => {
            permitted(shared, config.grants(asked), &identity, asked, peer)?;
            let (text, token) = shared.access.issue(&identity, asked, peer.ip(), ttl).map_err(not_handed_out)?;
            Ticket { text, kind: TYPE_ACCESS_TOKEN, token, opens: vec![("connection", json!(asked))] }
        }
        Wants::Certificate { key, ca, asked } => {
            for name in &asked {
                permitted(shared, config.grants(name), &identity, name, peer)?;
            }
            let connections = match asked.is_empty() {
                false => asked.into_iter().map(str::to_owned).collect(),
                true => open_to(config, &identity)?,
            };
            let databases: Vec<_> = connections.iter().filter(|name| config.connections.contains_key(*name)).collect();
            let opens = vec![("connections", json!(connections)), ("databases", json!(databases))];
            let (text, token) = certify(shared, &identity, connections, (&key, ca), peer, ttl)?;
            Ticket { text, kind: TYPE_SSH_CERTIFICATE, token, opens }
        }
    };
    // A lock-out that came in between has not seen this token.
    if shared.access.is_revoked(&identity.name) {
        shared.access.take_back(&identity.name);
        return Err(OauthError::new("invalid_grant", format!("{} was revoked", identity.name)));
    }
    let mut answer = json!({
        "access_token": *text,
        "issued_token_type": kind,
        "token_type": "N_A",
        "expires_in": ttl.as_secs(),
        "expires": wall_text(token.expires_us),
        "id": token.id,
        "identity": identity.name.as_str(),
        "on_behalf_of": identity.on_behalf_of.as_ref().map(|whom| whom.name.as_str()),
    });
    if let Some(fields) = answer.as_object_mut() {
        fields.extend(opens.into_iter().map(|(key, names)| (key.to_owned(), names)));
    }
    Ok(json_answer(StatusCode::OK, &answer))
}

/// What a proof is exchanged for.
enum Wants<'a> {
    /// A token for a connection.
    Token(&'a str),
    /// A certificate for a key, for these connections, or all that there are for its owner.
    Certificate { key: SshPublicKey, ca: &'a SshPrivateKey, asked: Vec<&'a str> },
}

/// What a proof was exchanged for, and what that opens.
struct Ticket {
    text: Zeroizing<String>,
    kind: &'static str,
    token: Token,
    opens: Vec<(&'static str, Value)>,
}

impl<'a> Wants<'a> {
    fn of(form: &'a Form, config: &'a Config) -> Result<Self, OauthError> {
        match form.get("requested_token_type")? {
            None | Some(TYPE_ACCESS_TOKEN) => {
                let asked = form.get("audience")?;
                asked.map(Self::Token).ok_or_else(|| OauthError::request("audience is missing: a connection's name"))
            }
            Some(TYPE_SSH_CERTIFICATE) => {
                let none = || OauthError::new("invalid_target", "this gateway does not speak SSH");
                let ca = &config.ssh.as_ref().ok_or_else(none)?.user_ca;
                let line = form.get("public_key")?;
                let line = line.ok_or_else(|| OauthError::request("public_key is missing: the key to be certified"))?;
                let key = SshPublicKey::from_openssh(line);
                let key = key.map_err(|error| OauthError::request(format_args!("public_key: {error}")))?;
                let asked = form.all("audience").collect();
                Ok(Self::Certificate { key, ca, asked })
            }
            Some(_) => Err(OauthError::request(format_args!(
                "requested_token_type is {TYPE_ACCESS_TOKEN} or {TYPE_SSH_CERTIFICATE}"
            ))),
        }
    }
}

/// Whether somebody may use a connection. One answer, so that nobody learns which connections there are.
fn permitted(
    shared: &Shared,
    grants: Option<&Grants>,
    identity: &Identity,
    asked: &str,
    peer: SocketAddr,
) -> Result<(), OauthError> {
    if grants.is_some_and(|grants| grants.admit(&identity.name, &identity.groups).is_some()) {
        return Ok(());
    }
    let named = Named::new(identity.name.as_str().as_bytes(), asked.as_bytes());
    shared.refuse_named(Reason::NotPermitted, peer, named);
    let text = format!("connection \"{asked}\" does not exist, or {} may not use it", identity.name);
    Err(OauthError::new("invalid_target", text))
}

/// The connections that somebody may use: hosts, and databases that are reached by way of the gateway.
fn open_to(config: &Config, identity: &Identity) -> Result<Vec<String>, OauthError> {
    let may = |name: &&String| config.permits(identity, name);
    let names: Vec<_> = config.hosts.keys().chain(config.connections.keys()).filter(may).cloned().collect();
    match names.len() {
        0 => Err(OauthError::new("invalid_target", format!("{} may use no connection", identity.name))),
        1..=PRINCIPALS_MAX => Ok(names),
        count => {
            let text =
                format!("{count} connections are more than fit into a certificate: name at most {PRINCIPALS_MAX}");
            Err(OauthError::new("invalid_target", text))
        }
    }
}

/// A certificate for a key, on the record.
fn certify(
    shared: &Shared,
    identity: &Identity,
    connections: Vec<String>,
    (key, ca): (&SshPublicKey, &SshPrivateKey),
    peer: SocketAddr,
    ttl: Duration,
) -> Result<(Zeroizing<String>, Token), OauthError> {
    let opens = Opens::Ssh { connections: connections.clone(), key: key.fingerprint() };
    let issued = shared.access.certify(identity, opens, key.digest(), peer.ip(), ttl);
    let token = issued.map_err(not_handed_out)?;
    let wanted = certificates::Wanted {
        kind: CertType::User,
        serial: u64::from_str_radix(&token.id, 16).unwrap_or_default(),
        key_id: &format!("identity={} serial={}", identity.name, token.id),
        principals: &connections,
        ttl,
    };
    let signed = certificates::sign(ca, key, &wanted)
        .and_then(|certificate| certificate.to_openssh().map_err(|_| KeyError::Certificate));
    let text = signed.map_err(|error| {
        tracing::error!(%error, "a certificate could not be signed");
        OauthError::unavailable("the certificate cannot be signed")
    })?;
    Ok((Zeroizing::new(text), token))
}

fn not_handed_out(error: AccessError) -> OauthError {
    match error {
        AccessError::Token(error) => OauthError::new("invalid_request", error),
        error => {
            tracing::error!(%error, "a connection token or a certificate could not be handed out");
            OauthError::unavailable("nothing can be handed out now, because it cannot be recorded")
        }
    }
}

fn whoami(config: &Config, proven: &Proven) -> Value {
    let identity = &proven.identity;
    let connections = config
        .all_grants()
        .filter(|(name, grants)| proven.may_open(name) && grants.admit(&identity.name, &identity.groups).is_some())
        .map(|(name, _)| name);
    let known = |name: &str, known: model::Known| json!({"value": name, "known": known.as_str()});
    json!({
        "identity": known(identity.name.as_str(), identity.known),
        "on_behalf_of": identity.on_behalf_of.as_ref().map(|whom| known(whom.name.as_str(), whom.known)),
        "run": identity.run.as_ref().map(|run| known(&run.id, run.known)),
        "groups": identity.groups,
        "proof": identity.proof.method.as_str(),
        "connections": connections.collect::<Vec<_>>(),
    })
}

/// Whether a path is this one, or one below it.
fn is_below(path: &str, above: &str) -> bool {
    path.strip_prefix(above).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

fn bearer_of(headers: &HeaderMap) -> Option<Zeroizing<String>> {
    let (scheme, token) = headers.get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| Zeroizing::new(token.trim().to_owned()))
}

/// Fields of a form: a request for a certificate names connections, one a field.
const FIELDS_MAX: usize = PRINCIPALS_MAX + 32;

/// What a client posted, as HTML forms are.
struct Form(Vec<(String, Zeroizing<String>)>);

impl Form {
    fn parse(body: &[u8]) -> Result<Self, OauthError> {
        let fields = form_urlencoded::parse(body).map(|(name, value)| (name.into_owned(), value.into_owned().into()));
        // More fields than there could be meaning for cost memory, and nothing else.
        let fields: Vec<_> = fields.take(FIELDS_MAX + 1).collect();
        if fields.len() > FIELDS_MAX {
            Err(OauthError::request("the form has too many fields"))
        } else {
            Ok(Self(fields))
        }
    }

    /// All fields of this name.
    fn all(&self, name: &str) -> impl Iterator<Item = &str> {
        self.0.iter().filter(move |(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// The one field of this name.
    fn get(&self, name: &str) -> Result<Option<&str>, OauthError> {
        let mut all = self.all(name);
        let (first, second) = (all.next(), all.next());
        if second.is_some() { Err(OauthError::request(format_args!("{name} is there twice"))) } else { Ok(first) }
    }
}

/// An error as RFC 6749, 5.2 has it.
struct OauthError {
    status: StatusCode,
    error: &'static str,
    description: String,
}

impl OauthError {
    fn new(error: &'static str, description: impl ToString) -> Self {
        Self { status: StatusCode::BAD_REQUEST, error, description: description.to_string() }
    }

    fn request(description: impl ToString) -> Self {
        Self::new("invalid_request", description)
    }

    fn unavailable(description: impl ToString) -> Self {
        Self { status: StatusCode::SERVICE_UNAVAILABLE, ..Self::new("temporarily_unavailable", description) }
    }

    fn answer(self) -> Answer {
        json_answer(self.status, &json!({"error": self.error, "error_description": self.description}))
    }
}

fn unauthorised(text: &str, hint: &str) -> Answer {
    let value = json!({"error": "invalid_token", "error_description": text, "hint": hint});
    let mut answer = json_answer(StatusCode::UNAUTHORIZED, &value);
    answer.headers_mut().insert(WWW_AUTHENTICATE, hyper::header::HeaderValue::from_static("Bearer"));
    answer
}

fn json_answer(status: StatusCode, value: &Value) -> Answer {
    let mut answer = Response::new(Full::new(Bytes::from(format!("{value}\n"))));
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, hyper::header::HeaderValue::from_static("application/json"));
    headers.insert(CACHE_CONTROL, hyper::header::HeaderValue::from_static("no-store"));
    answer
}
