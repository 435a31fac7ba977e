//! The connections to the gateway: each is kept by a task of its own, dialled again when it is lost.

use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use link::{ALPN_LINK, DEAD_AFTER, Frame, LinkStream, Mux, Opener, PING_EVERY, Side, VERSION, trust};
use tokio::io::{AsyncRead, AsyncWrite, ReadHalf, WriteHalf};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::{OutpostError, Shared, carrier, random, say, serve};

/// The pause before a lost connection is dialled again is a random part of the first, doubled up to the last.
const PAUSES: [Duration; 2] = [Duration::from_millis(500), Duration::from_secs(30)];
/// A connection that held so long was a good one: the pauses start anew.
const GOOD_AFTER: Duration = Duration::from_secs(60);

/// A random pause before the next try, after so many in vain.
pub(crate) fn pause(tries: u32) -> Duration {
    let [first, last] = PAUSES;
    let longest = first.saturating_mul(1 << tries.min(10)).min(last);
    let part = u32::from(u16::from_be_bytes(random()));
    longest * part / u32::from(u16::MAX)
}

/// Keeps all connections. Returns only when the gateway does not want this outpost any more.
pub(crate) async fn keep(shared: Arc<Shared>) -> Result<(), OutpostError> {
    let mut places = JoinSet::new();
    let epoch = Arc::new(AtomicU64::new(1));
    for place in 0..shared.options.connections {
        places.spawn(keep_one(shared.clone(), place, epoch.clone()));
    }
    match places.join_next().await {
        Some(Ok(error)) => Err(error),
        // A place that panicked has said so.
        Some(Err(_)) | None => Err(OutpostError::Answer),
    }
}

async fn keep_one(shared: Arc<Shared>, place: u8, epoch: Arc<AtomicU64>) -> OutpostError {
    let mut tries = 0;
    let mut said = String::new();
    loop {
        let begun = Instant::now();
        let why = match connect(&shared, place, epoch.fetch_add(1, Relaxed)).await {
            Ok(End::Denied(why)) => return OutpostError::Denied(why),
            Ok(End::Goodbye(why)) => format!("the gateway ended the connection: {why}"),
            Err(error) => error.to_string(),
        };
        if shared.identity().is_expired() {
            return OutpostError::Expired;
        }
        if begun.elapsed() > GOOD_AFTER {
            tries = 0;
            said.clear();
        }
        // The same reason is said once.
        if why != said {
            say(&format!("connection {place}: {why}"));
            said = why;
        }
        tokio::time::sleep(pause(tries)).await;
        tries += 1;
    }
}

/// How a connection ended, when the gateway said so.
enum End {
    Goodbye(String),
    Denied(String),
}

/// One connection, from dialling to its end.
async fn connect(shared: &Arc<Shared>, place: u8, epoch: u64) -> io::Result<End> {
    let (address, tls) = {
        let identity = shared.identity();
        let tls = trust::member(&identity.authorities, identity.certificate.clone(), identity.key(), ALPN_LINK);
        (identity.address.clone(), tls.map_err(io::Error::other)?)
    };
    let stream = carrier::dial(&shared.options, &address, tls).await?;
    let (mux, opener) = Mux::new(stream, Side::Outpost);
    tokio::select! {
        lost = drive(shared, mux) => Err(lost),
        ended = control(shared, &opener, place, epoch) => ended,
    }
}

/// Moves the streams, and serves each that the gateway opens. When this is dropped, all of them end.
async fn drive<T: AsyncRead + AsyncWrite + Unpin>(shared: &Arc<Shared>, mut mux: Mux<T>) -> io::Error {
    let mut streams = JoinSet::new();
    loop {
        tokio::select! {
            biased;
            next = poll_fn(|cx| mux.poll_next(cx)) => match next {
                Some(Ok(stream)) => drop(streams.spawn(serve::serve(shared.clone(), stream))),
                Some(Err(error)) => return io::Error::other(error),
                None => return io::ErrorKind::UnexpectedEof.into(),
            },
            // What is done is let go.
            Some(_) = streams.join_next() => {}
        }
    }
}

/// The control stream: says who this is, then keeps asking whether the gateway is still there.
async fn control(shared: &Shared, opener: &Opener, place: u8, epoch: u64) -> io::Result<End> {
    let mut stream = opener.open().await.map_err(io::Error::other)?;
    let program = concat!("onrecord-outpost ", env!("CARGO_PKG_VERSION")).to_owned();
    let hello = Frame::Hello { version: VERSION, instance: shared.instance, epoch, place, program };
    hello.write(&mut stream).await?;
    let answer = tokio::time::timeout(DEAD_AFTER, Frame::read(&mut stream)).await;
    match answer.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))? {
        Frame::Welcome { version: VERSION, .. } => say(&format!("connection {place}: connected")),
        Frame::Denied { why } => return Ok(End::Denied(why)),
        Frame::Goodbye { why } => return Ok(End::Goodbye(why)),
        _ => return Err(io::Error::new(io::ErrorKind::InvalidData, "the gateway is of another version")),
    }
    let (read, write) = tokio::io::split(stream);
    let (heard, pongs) = watch::channel(Instant::now());
    tokio::select! {
        ended = listen(read, &heard) => ended,
        error = ping(shared, write, &pongs) => Err(error),
    }
}

async fn listen(mut read: ReadHalf<LinkStream>, heard: &watch::Sender<Instant>) -> io::Result<End> {
    loop {
        match Frame::read(&mut read).await? {
            Frame::Pong { .. } => drop(heard.send_replace(Instant::now())),
            Frame::Goodbye { why } => return Ok(End::Goodbye(why)),
            Frame::Denied { why } => return Ok(End::Denied(why)),
            _ => return Err(io::Error::new(io::ErrorKind::InvalidData, "the gateway sent what it should not")),
        }
    }
}

async fn ping(shared: &Shared, mut write: WriteHalf<LinkStream>, pongs: &watch::Receiver<Instant>) -> io::Error {
    let (mut number, mut stopping) = (0, shared.stopping.subscribe());
    loop {
        let told = tokio::time::timeout(PING_EVERY, stopping.wait_for(|stopping| *stopping)).await;
        if told.is_ok_and(|told| told.is_ok()) {
            let _ = Frame::Goodbye { why: "the outpost was stopped".into() }.write(&mut write).await;
            // The process is about to end.
            return std::future::pending().await;
        }
        if pongs.borrow().elapsed() > DEAD_AFTER {
            return io::Error::new(io::ErrorKind::TimedOut, "the gateway is silent");
        }
        number += 1;
        if let Err(error) = (Frame::Ping { number }).write(&mut write).await {
            return error;
        }
    }
}
