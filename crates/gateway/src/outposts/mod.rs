//! Outposts, as the gateway sees them: who may join, whose links are up, and streams through them.
//!
//! An outpost dials the gateway's port for outposts; a link of it lives on one worker, like a session. What an outpost
//! is trusted with is to move bytes: it cannot open a stream, and what runs through one is the gateway's own TLS to the
//! resource, unless the connection is configured otherwise.
//!
//! Invariant: an outpost that is revoked has no link, no stream and no way to get one within a second.

mod authority;
mod links;
mod registry;
mod serve;

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use link::frame::{HOST_BYTES_MAX, plain};
use link::{Frame, JoinToken, LinkStream, VERSION};
use model::{Actor, Carried, OutpostAction};
use rustls::ServerConfig;
use store::{GatewayEntry, RecordError, Recorder};
use tokio::sync::Semaphore;

use crate::{hex, random};
use authority::{Authorities, Issued};
pub(crate) use links::on_worker;
use links::{Link, Links, Why};
pub use registry::Enrolled;
use registry::{NotAdmitted, Registry, Serial};
pub(crate) use serve::serve;

/// Where in the data directory this remembers.
const DIRECTORY: &str = "outposts";
/// Connections at the port for outposts at a time, links included.
const CONNECTIONS_MAX: usize = 1024;
/// How long a session may wait for its stream, whatever the rest of its login takes.
pub(crate) const OPEN_MAX: Duration = Duration::from_secs(5);
/// The longest that a join token may be valid.
pub const JOIN_TTL_MAX: Duration = Duration::from_secs(24 * 3600);
/// Labels of an outpost.
const LABELS_MAX: usize = 16;
/// The gateway's certificate towards outposts is made anew after this.
const CERTIFICATE_AGE_MAX: Duration = Duration::from_secs(24 * 3600);
/// Between two entries that somebody was turned away.
const REFUSED_EVERY: Duration = Duration::from_secs(10);

/// Which outposts may carry a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Via {
    /// The one with this name.
    Name(String),
    /// Each that has this label.
    Label(String),
}

/// What a gateway knows of its outposts. Clones are the same.
#[derive(Clone)]
pub struct Outposts(Arc<Inner>);

struct Inner {
    recorder: Recorder,
    registry: Registry,
    links: Links,
    authority: Mutex<Authority>,
    handshakes: Arc<Semaphore>,
    refused: Mutex<Option<Instant>>,
}

struct Authority {
    authorities: Authorities,
    server: Arc<ServerConfig>,
    made: Instant,
}

/// Why something about outposts was not done.
#[derive(Debug, thiserror::Error)]
pub enum OutpostsError {
    /// The disk refused.
    #[error("what is kept of outposts cannot be read or written: {0}")]
    Disk(#[from] io::Error),
    /// A file is not what was written.
    #[error("{} is damaged; restore it, or remove its directory and let every outpost join again", .0.display())]
    Damaged(PathBuf),
    /// It is done, and not on the record.
    #[error("done, but it is not on the record: {0}")]
    Record(#[from] RecordError),
    /// A certificate could not be made, or a request is none.
    #[error("no certificate can be made: {0}")]
    Certificate(#[from] rcgen::Error),
    /// TLS cannot be set up.
    #[error("TLS towards outposts cannot be set up: {0}")]
    Tls(#[from] rustls::Error),
    /// There are too many.
    #[error("there are too many {0}")]
    TooMany(&'static str),
    /// There is no such outpost, or it is revoked already.
    #[error("there is no outpost {0:?} that could connect")]
    Unknown(String),
    /// The one before has not been dropped yet.
    #[error("the authority was rotated within the last 25 hours: outposts need that long to learn of it")]
    Rotating,
    /// Cannot be: one is made when there is none.
    #[error("there is no authority")]
    NoAuthority,
    /// A name or label that cannot be.
    #[error("{0:?} is no name or label of an outpost: use 1 to 63 letters, digits, `_`, `.` or `-`")]
    Name(String),
    /// The address in the join token.
    #[error("{0:?} is no address that an outpost could dial: write HOST:PORT in outposts.address")]
    Address(String),
}

/// Why there is no stream through an outpost.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OpenError {
    #[error("no outpost {0} is connected")]
    None(Via),
    #[error("outpost {outpost} may not dial {address}: it is not on its own list (--allow)")]
    Refused { outpost: String, address: String },
    #[error("outpost {outpost} cannot reach {address}: {why}")]
    Unreachable { outpost: String, address: String, why: String },
    #[error("outpost {outpost} got no answer from {address} in time")]
    TimedOut { outpost: String, address: String },
    #[error("the link to outpost {outpost} was lost: {why}")]
    Lost { outpost: String, why: String },
}

/// An outpost and what is up of it.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Who it is.
    pub outpost: Enrolled,
    /// Its links that are up.
    pub links: usize,
    /// Sessions and other streams through them, without the control streams.
    pub streams: usize,
    /// Where its links come from.
    pub addresses: Vec<SocketAddr>,
    /// What it says it is.
    pub program: Option<String>,
}

/// What more an entry says.
#[derive(Default)]
struct Said<'a> {
    address: Option<SocketAddr>,
    serial: Option<&'a str>,
    reason: Option<String>,
    by: Option<Actor>,
}

impl std::fmt::Display for Via {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Label(label) => write!(f, "with label {label}"),
        }
    }
}

impl Via {
    fn matches(&self, outpost: &Enrolled) -> bool {
        match self {
            Self::Name(name) => outpost.name == *name,
            Self::Label(label) => outpost.labels.contains(label),
        }
    }
}

/// Whether a text can be the name or a label of an outpost.
#[must_use]
pub fn is_outpost_name(text: &str) -> bool {
    (1..=63).contains(&text.len()) && text.chars().all(|c| c.is_ascii_alphanumeric() || "_.-".contains(c))
}

impl Outposts {
    /// Reads what is kept in a data directory; makes an authority if there is none.
    ///
    /// # Errors
    /// It cannot be read or written.
    pub fn open(data: &Path, recorder: Recorder) -> Result<Self, OutpostsError> {
        let registry = Registry::open(&data.join(DIRECTORY))?;
        let mut authorities = Authorities::open(&registry, now())?;
        authorities.retire(&registry, now())?;
        let server = authorities.server(now())?;
        Ok(Self(Arc::new(Inner {
            recorder,
            registry,
            links: Links::default(),
            authority: Mutex::new(Authority { authorities, server, made: Instant::now() }),
            handshakes: Arc::new(Semaphore::new(CONNECTIONS_MAX)),
            refused: Mutex::default(),
        })))
    }

    /// Hands out a join token, which lets one outpost join under this name. It is a secret.
    ///
    /// # Errors
    /// A name or the address is none, there are too many tokens, or disk or record refuses.
    pub fn invite(
        &self,
        name: &str,
        labels: &[String],
        ttl: Duration,
        address: &str,
        by: &Actor,
    ) -> Result<JoinToken, OutpostsError> {
        if let Some(odd) = labels.iter().map(String::as_str).chain([name]).find(|text| !is_outpost_name(text)) {
            return Err(OutpostsError::Name(odd.to_owned()));
        }
        if labels.len() > LABELS_MAX {
            return Err(OutpostsError::TooMany("labels"));
        }
        let (id, secret) = (random::bytes(), random::bytes());
        let pin = self.authority().authorities.pin().ok_or(OutpostsError::NoAuthority)?;
        let token = JoinToken::new(id, secret, pin, address);
        let token = token.map_err(|_| OutpostsError::Address(address.to_owned()))?;
        let until = now().saturating_add(i64::try_from(ttl.min(JOIN_TTL_MAX).as_secs()).unwrap_or(0));
        self.0.registry.invite(id, secret, name, labels, [now(), until])?;
        self.record(
            OutpostAction::Invited,
            (String::new(), name.to_owned(), labels.to_vec()),
            Said { by: Some(by.clone()), ..Said::default() },
        )?;
        Ok(token)
    }

    /// Locks an outpost out: its links and the sessions in them end, and its certificate holds no more. Says how many
    /// links ended.
    ///
    /// # Errors
    /// There is none of this name, or disk or record refuses.
    pub fn revoke(&self, name: &str, by: &Actor) -> Result<(Enrolled, usize), OutpostsError> {
        let outpost = self.0.registry.revoke(name, now())?;
        let links = self.0.links.end(&outpost.id, Why::Revoked);
        let of = (outpost.id.clone(), outpost.name.clone(), outpost.labels.clone());
        self.record(OutpostAction::Revoked, of, Said { by: Some(by.clone()), ..Said::default() })?;
        Ok((outpost, links))
    }

    /// Makes another authority. Outposts learn of it when they renew; the one before is dropped after 25 hours.
    ///
    /// # Errors
    /// The last rotation is not over, or disk or record refuses.
    pub fn rotate_authority(&self, by: &Actor) -> Result<(), OutpostsError> {
        let mut authority = self.authority();
        authority.authorities.rotate(&self.0.registry, now())?;
        authority.renew_server()?;
        drop(authority);
        let nobody = (String::new(), String::new(), Vec::new());
        self.record(OutpostAction::AuthorityRotated, nobody, Said { by: Some(by.clone()), ..Said::default() })
    }

    /// All outposts, and what is up of each.
    #[must_use]
    pub fn all(&self) -> Vec<Seen> {
        let links = self.0.links.all();
        let seen = |outpost: Enrolled| {
            let of_it: Vec<&Arc<Link>> = links.iter().filter(|link| link.outpost.id == outpost.id).collect();
            let mut addresses: Vec<_> = of_it.iter().map(|link| link.peer).collect();
            addresses.sort_unstable();
            let streams: usize = of_it.iter().map(|link| link.opener.streams()).sum();
            let program = of_it.first().map(|link| link.program.clone());
            Seen { outpost, links: of_it.len(), streams: streams.saturating_sub(of_it.len()), addresses, program }
        };
        self.0.registry.all().into_iter().map(seen).collect()
    }

    /// A stream to `host:port` through one of the outposts that may carry it. Each is asked once, the one with the least
    /// to do first.
    pub(crate) async fn open_stream(
        &self,
        via: &Via,
        host: &str,
        port: u16,
        session: &str,
        limit: Duration,
    ) -> Result<(LinkStream, Carried), OpenError> {
        let deadline = Instant::now() + limit;
        let mut last = OpenError::None(via.clone());
        let candidates = self.0.links.candidates(via);
        for (link, left) in candidates.iter().zip((1..=candidates.len()).rev()) {
            // One that does not answer must leave time for the others.
            let share = deadline.saturating_duration_since(Instant::now()) / u32::try_from(left).unwrap_or(u32::MAX);
            match tokio::time::timeout(share, open_on(link, host, port, session, share)).await {
                Ok(Ok(stream)) => {
                    let carried = Carried { id: link.outpost.id.clone(), name: link.outpost.name.clone() };
                    return Ok((stream, carried));
                }
                Ok(Err(error)) => last = error,
                Err(_elapsed) => {
                    let outpost = link.outpost.name.clone();
                    last = OpenError::TimedOut { outpost, address: address_of(host, port) };
                }
            }
        }
        Err(last)
    }

    /// Takes in whoever has the token: the certificate, or why not.
    fn join(
        &self,
        token: [u8; 8],
        request: &[u8],
        mac: &[u8; 32],
        peer: SocketAddr,
    ) -> Result<Result<Frame, NotAdmitted>, OutpostsError> {
        let (name, labels) = match self.0.registry.redeem(token, request, mac, now())? {
            Ok(redeemed) => redeemed,
            Err(why) => return Ok(Err(why)),
        };
        let id = format!("op_{}", hex(&random::bytes::<8>()));
        let (issued, authorities) = self.issue(request, &id)?;
        let serials = vec![Serial { serial: issued.serial.clone(), not_after: issued.not_after }];
        let outpost = Enrolled { id, name, labels, since: now(), serials, revoked: None };
        for replaced in self.0.registry.enrol(outpost.clone(), now())? {
            self.0.links.end(&replaced.id, Why::Revoked);
            let reason = Some(format!("replaced by {}", outpost.id));
            self.note(OutpostAction::Revoked, Some(&replaced), Said { reason, ..Said::default() });
        }
        let said = Said { address: Some(peer), serial: Some(&issued.serial), ..Said::default() };
        self.note(OutpostAction::Enrolled, Some(&outpost), said);
        Ok(Ok(frame(&outpost, issued, authorities)))
    }

    /// The next certificate of an outpost.
    fn renew(&self, outpost: &Enrolled, request: &[u8], peer: SocketAddr) -> Result<Frame, OutpostsError> {
        let (issued, authorities) = self.issue(request, &outpost.id)?;
        let serial = Serial { serial: issued.serial.clone(), not_after: issued.not_after };
        self.0.registry.renew(&outpost.id, serial, now())?;
        let said = Said { address: Some(peer), serial: Some(&issued.serial), ..Said::default() };
        self.note(OutpostAction::Renewed, Some(outpost), said);
        Ok(frame(outpost, issued, authorities))
    }

    fn issue(&self, request: &[u8], id: &str) -> Result<(Issued, Vec<Vec<u8>>), OutpostsError> {
        let authority = self.authority();
        let issued = authority.authorities.issue(request, id, now())?;
        let trusted = authority.authorities.certificates().iter().map(|one| one.to_vec()).collect();
        Ok((issued, trusted))
    }

    /// The gateway's side of TLS towards outposts, as it is to be now.
    fn server(&self) -> Arc<ServerConfig> {
        let mut authority = self.authority();
        if authority.made.elapsed() > CERTIFICATE_AGE_MAX {
            let retired = authority.authorities.retire(&self.0.registry, now());
            if let Err(error) = retired.and_then(|_| authority.renew_server()) {
                tracing::error!(%error, "the certificate towards outposts is not renewed");
            }
        }
        authority.server.clone()
    }

    fn authority(&self) -> MutexGuard<'_, Authority> {
        self.0.authority.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn of_serial(&self, serial: &str) -> Option<Enrolled> {
        self.0.registry.all().into_iter().find(|outpost| outpost.serials.iter().any(|known| known.serial == serial))
    }

    /// Whether the next one that is turned away gets an entry of its own: a flood must not fill the record.
    fn may_say_refused(&self) -> bool {
        let mut last = self.0.refused.lock().unwrap_or_else(PoisonError::into_inner);
        let may = last.is_none_or(|last| last.elapsed() >= REFUSED_EVERY);
        if may {
            *last = Some(Instant::now());
        }
        may
    }

    fn note(&self, action: OutpostAction, outpost: Option<&Enrolled>, said: Said<'_>) {
        let of = outpost.map(|one| (one.id.clone(), one.name.clone(), one.labels.clone())).unwrap_or_default();
        tracing::info!(outpost = of.1, address = ?said.address, "outpost {action}");
        if let Err(error) = self.record(action, of, said) {
            tracing::error!(%error, "an entry of an outpost is not written");
        }
    }

    fn record(
        &self,
        action: OutpostAction,
        (id, name, labels): (String, String, Vec<String>),
        said: Said<'_>,
    ) -> Result<(), OutpostsError> {
        self.0.recorder.note(GatewayEntry::Outpost(model::Outpost {
            action,
            id,
            name,
            labels,
            address: said.address.map(|address| address.to_string()),
            serial: said.serial.map(str::to_owned),
            reason: said.reason,
            by: said.by,
        }))?;
        Ok(())
    }
}

impl Authority {
    fn renew_server(&mut self) -> Result<(), OutpostsError> {
        self.server = self.authorities.server(now())?;
        self.made = Instant::now();
        Ok(())
    }
}

async fn open_on(link: &Link, host: &str, port: u16, session: &str, limit: Duration) -> Result<LinkStream, OpenError> {
    let (outpost, address) = (link.outpost.name.clone(), address_of(host, port));
    let lost = |why: &dyn std::fmt::Display| OpenError::Lost { outpost: outpost.clone(), why: why.to_string() };
    if host.len() > HOST_BYTES_MAX {
        return Err(OpenError::Refused { outpost, address });
    }
    let mut stream = link.opener.open().await.map_err(|error| lost(&error))?;
    let open = Frame::Open {
        version: VERSION,
        session: plain(session),
        host: host.to_owned(),
        port,
        deadline_ms: u32::try_from(limit.as_millis()).unwrap_or(u32::MAX),
    };
    open.write(&mut stream).await.map_err(|error| lost(&error))?;
    match Frame::read(&mut stream).await.map_err(|error| lost(&error))? {
        Frame::Opened { .. } => Ok(stream),
        Frame::Refused => Err(OpenError::Refused { outpost, address }),
        Frame::Unreachable { why } => Err(OpenError::Unreachable { outpost, address, why }),
        Frame::TimedOut => Err(OpenError::TimedOut { outpost, address }),
        _ => Err(lost(&"it answers what makes no sense")),
    }
}

fn address_of(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

fn frame(outpost: &Enrolled, issued: Issued, authorities: Vec<Vec<u8>>) -> Frame {
    Frame::Issued {
        id: outpost.id.clone(),
        name: outpost.name.clone(),
        certificate: issued.certificate.to_vec(),
        authorities,
        not_before: issued.not_before,
        not_after: issued.not_after,
    }
}

/// The wall clock, seconds since 1970.
fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}
