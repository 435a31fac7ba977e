//! A small HTTP/1.1 server for plain answers: one thread, bounded in everything.
//!
//! A [`Site`] is an ordinary function from a request to an answer; it may read files, so it runs on one of a few threads
//! beside the loop that moves bytes.
//!
//! Not for: TLS (a proxy in front does that; what is served here is signed, or refused by its own rules), nor for
//! streams: an answer is whole before its first byte leaves.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Limited};
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::header::{ACCEPT_ENCODING, HeaderMap};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

/// Threads on which sites work.
const SITE_THREADS: usize = 4;
/// Bytes of a request's first line and headers.
const HEAD_BYTES_MAX: usize = 16 * 1024;
/// Headers of a request.
const HEADERS_MAX: usize = 64;
/// An answer is handed to the socket in pieces of so many bytes.
const PIECE_BYTES: usize = 64 * 1024;
/// Pieces of all answers that are being sent.
const PIECES_MAX: usize = 1024;
/// How long connections may take to end when the server stops, or when they are old.
const GRACE: Duration = Duration::from_secs(5);
/// Pause after an accept that failed, as when there are no descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Limits of a server.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Connections at a time; others wait to be accepted.
    pub connections_max: usize,
    /// Bytes of a request's body.
    pub body_bytes_max: usize,
    /// How long a client may take to send a head, and again a body; an idle connection ends after as long.
    pub request_max: Duration,
    /// How old a connection may become.
    pub connection_max: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections_max: 256,
            body_bytes_max: 0,
            request_max: Duration::from_secs(15),
            connection_max: Duration::from_secs(180),
        }
    }
}

/// What a request wants. `HEAD` is `GET` without the body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// To read.
    Get,
    /// To hand something in.
    Post,
}

/// Whether an answer may be compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// As it is.
    Identity,
    /// With gzip, if that is worth it.
    Gzip,
}

/// A request.
#[derive(Clone, Debug)]
pub struct Request {
    /// What it wants.
    pub method: Method,
    /// The path, as it was sent: nothing is decoded.
    pub path: String,
    /// What the client takes.
    pub encoding: Encoding,
    /// The body.
    pub body: Vec<u8>,
}

/// An answer.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// Headers; the length is added.
    pub headers: Vec<(&'static str, &'static str)>,
    /// The body.
    pub body: Bytes,
}

/// What answers requests.
pub trait Site: Send + Sync + 'static {
    /// Answers one. May block for as long as reading or syncing a file takes.
    fn answer(&self, request: &Request) -> Answer;
}

/// A running server. It ends when this is dropped.
pub struct Server {
    addresses: Vec<SocketAddr>,
    quit: watch::Sender<()>,
    thread: Option<JoinHandle<()>>,
}

impl Answer {
    /// An answer with a body of this type.
    #[must_use]
    pub fn new(status: u16, content_type: &'static str, body: impl Into<Bytes>) -> Self {
        let headers = vec![("content-type", content_type), ("x-content-type-options", "nosniff")];
        Self { status, headers, body: body.into() }
    }

    /// A line of text for people.
    #[must_use]
    pub fn text(status: u16, text: &str) -> Self {
        Self::new(status, "text/plain; charset=utf-8", format!("{text}\n")).with("cache-control", "no-store")
    }

    /// There is nothing at this path.
    #[must_use]
    pub fn not_found() -> Self {
        Self::text(404, "not found")
    }

    /// Adds a header.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: &'static str) -> Self {
        self.headers.push((name, value));
        self
    }
}

impl Server {
    /// Listens and answers until [`Server::stop`].
    ///
    /// # Errors
    /// An address cannot be listened on, or there can be no thread.
    pub fn start(name: &str, listen: &[SocketAddr], site: Arc<dyn Site>, limits: Limits) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .enable_time()
            .max_blocking_threads(SITE_THREADS)
            .thread_name(format!("{name}-site"))
            .build()?;
        let bind = |address: &SocketAddr| {
            let listener = std::net::TcpListener::bind(address)
                .map_err(|error| io::Error::new(error.kind(), format!("cannot listen on {address}: {error}")))?;
            listener.set_nonblocking(true)?;
            Ok(listener)
        };
        let listeners = listen.iter().map(bind).collect::<io::Result<Vec<_>>>()?;
        let addresses = listeners.iter().map(std::net::TcpListener::local_addr).collect::<io::Result<_>>()?;
        let entered = runtime.enter();
        let listeners = listeners.into_iter().map(TcpListener::from_std).collect::<io::Result<Vec<_>>>()?;
        drop(entered);
        let (quit, told) = watch::channel(());
        let house = House {
            site,
            limits,
            connections: Arc::new(Semaphore::new(limits.connections_max)),
            pieces: Arc::new(Semaphore::new(PIECES_MAX)),
            told,
        };
        let work = move || {
            runtime.block_on(house.run(listeners));
            // A site that hangs in a system call does not keep the gateway from stopping.
            runtime.shutdown_timeout(GRACE);
        };
        let thread = std::thread::Builder::new().name(name.to_owned()).spawn(work)?;
        Ok(Self { addresses, quit, thread: Some(thread) })
    }

    /// Where it listens, with the ports that were taken where 0 was asked for.
    #[must_use]
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Ends it: what is being answered is answered, within a few seconds.
    pub fn stop(mut self) {
        self.end();
    }

    fn end(&mut self) {
        let _ = self.quit.send(());
        if let Some(thread) = self.thread.take() {
            // A thread that panicked has nothing more to say.
            let _ = thread.join();
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.end();
    }
}

#[derive(Clone)]
struct House {
    site: Arc<dyn Site>,
    limits: Limits,
    connections: Arc<Semaphore>,
    pieces: Arc<Semaphore>,
    told: watch::Receiver<()>,
}

impl House {
    async fn run(mut self, listeners: Vec<TcpListener>) {
        let mut accepting = JoinSet::new();
        for listener in listeners {
            let house = self.clone();
            accepting.spawn(house.accept(listener));
        }
        let _ = self.told.changed().await;
        while accepting.join_next().await.is_some() {}
    }

    /// Takes connections until told to quit, then waits until they have ended. Cancel safe: nothing is lost but
    /// connections.
    async fn accept(mut self, listener: TcpListener) {
        let mut open = JoinSet::new();
        loop {
            let Ok(permit) = self.connections.clone().acquire_owned().await else { break };
            tokio::select! {
                _ = self.told.changed() => break,
                accepted = listener.accept() => match accepted {
                    Ok((stream, _)) => {
                        let house = self.clone();
                        open.spawn(async move {
                            house.connection(stream).await;
                            drop(permit);
                        });
                    }
                    Err(_) => sleep(ACCEPT_PAUSE).await,
                },
            }
            while open.try_join_next().is_some() {}
        }
        drop(listener);
        while open.join_next().await.is_some() {}
    }

    async fn connection(mut self, stream: TcpStream) {
        let _ = stream.set_nodelay(true);
        let house = self.clone();
        let service = service_fn(move |request| {
            let house = house.clone();
            async move { Ok::<_, Infallible>(house.respond(request).await) }
        });
        let mut builder = http1::Builder::new();
        builder.timer(TokioTimer::new()).header_read_timeout(self.limits.request_max);
        builder.max_buf_size(HEAD_BYTES_MAX).max_headers(HEADERS_MAX);
        let connection = builder.serve_connection(TokioIo::new(stream), service);
        let end = sleep(self.limits.connection_max);
        tokio::pin!(connection, end);
        let mut leaving = false;
        loop {
            tokio::select! {
                // An error is the client's: it left, or it does not speak HTTP.
                _ = connection.as_mut() => return,
                _ = self.told.changed(), if !leaving => {}
                () = end.as_mut() => {}
            }
            if leaving {
                return;
            }
            leaving = true;
            connection.as_mut().graceful_shutdown();
            end.as_mut().reset(Instant::now() + GRACE);
        }
    }

    async fn respond(self, request: hyper::Request<Incoming>) -> hyper::Response<Pieces> {
        let answer = match self.request(request).await {
            Ok(request) => {
                let site = self.site.clone();
                let answer = tokio::task::spawn_blocking(move || site.answer(&request)).await;
                answer.unwrap_or_else(|_| Answer::text(500, "internal error"))
            }
            Err(refusal) => refusal,
        };
        let count = u32::try_from(answer.body.len().div_ceil(PIECE_BYTES).min(PIECES_MAX)).unwrap_or(u32::MAX);
        match timeout(self.limits.request_max, self.pieces.clone().acquire_many_owned(count)).await {
            Ok(Ok(room)) => response(answer, Some(room)),
            _ => response(Answer::text(503, "busy: try again").with("retry-after", "5"), None),
        }
    }

    async fn request(&self, request: hyper::Request<Incoming>) -> Result<Request, Answer> {
        let method = match *request.method() {
            hyper::Method::GET | hyper::Method::HEAD => Method::Get,
            hyper::Method::POST => Method::Post,
            _ => return Err(Answer::text(405, "method not allowed").with("allow", "GET, HEAD, POST")),
        };
        let path = request.uri().path().to_owned();
        let encoding = encoding(request.headers());
        let body = match method {
            Method::Get => Vec::new(),
            Method::Post => {
                let whole = Limited::new(request.into_body(), self.limits.body_bytes_max).collect();
                match timeout(self.limits.request_max, whole).await {
                    Ok(Ok(body)) => body.to_bytes().to_vec(),
                    Ok(Err(_)) => return Err(Answer::text(413, "the body is longer than it can be")),
                    Err(_) => return Err(Answer::text(408, "the body did not come in time")),
                }
            }
        };
        Ok(Request { method, path, encoding, body })
    }
}

/// The answer as hyper takes it. `room` is held until the last piece has been handed to the socket.
fn response(answer: Answer, room: Option<OwnedSemaphorePermit>) -> hyper::Response<Pieces> {
    let mut response = hyper::Response::new(Pieces { rest: answer.body, _room: room });
    *response.status_mut() =
        hyper::StatusCode::from_u16(answer.status).unwrap_or(hyper::StatusCode::INTERNAL_SERVER_ERROR);
    for (name, value) in answer.headers {
        let value = hyper::header::HeaderValue::from_static(value);
        response.headers_mut().append(hyper::header::HeaderName::from_static(name), value);
    }
    response
}

/// Whether the client takes gzip.
fn encoding(headers: &HeaderMap) -> Encoding {
    let lists = headers.get_all(ACCEPT_ENCODING).into_iter().filter_map(|value| value.to_str().ok());
    let takes = |item: &str| {
        let (name, weight) = item.split_once(';').unwrap_or((item, ""));
        let refused = matches!(weight.trim().replace(' ', "").as_str(), "q=0" | "q=0.0" | "q=0.00" | "q=0.000");
        name.trim().eq_ignore_ascii_case("gzip") && !refused
    };
    if lists.flat_map(|list| list.split(',')).any(takes) { Encoding::Gzip } else { Encoding::Identity }
}

/// A body that is handed over piece by piece, so that a slow reader is waited for.
struct Pieces {
    rest: Bytes,
    _room: Option<OwnedSemaphorePermit>,
}

impl Body for Pieces {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let length = self.rest.len().min(PIECE_BYTES);
        Poll::Ready((length > 0).then(|| Ok(Frame::data(self.rest.split_to(length)))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(u64::try_from(self.rest.len()).unwrap_or(u64::MAX))
    }
}
