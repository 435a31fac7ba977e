//! Threads, each with its own event loop, its own sessions and its own gate to the record.
//!
//! A session lives on one worker for life: both of its sockets and the waiters for its record are
//! on one thread, and what it waits for wakes it without crossing threads.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;
use std::time::Duration;

use store::{Gate, Lone};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_util::task::TaskTracker;

use crate::Shared;
use crate::postgres::Busy;
use crate::{outposts, postgres, ssh};
use tokio_util::sync::CancellationToken;

/// Accepted connections that wait for their worker.
pub(crate) const ARRIVALS_MAX: usize = 256;

/// How long links may take to say goodbye.
const LINKS_PARTING: Duration = Duration::from_secs(2);

/// A connection on its way to a worker.
pub(crate) struct Arrival {
    pub(crate) stream: std::net::TcpStream,
    pub(crate) peer: SocketAddr,
    pub(crate) port: Port,
}

/// What is spoken where it came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Port {
    Postgres,
    Ssh,
    Outposts,
}

/// How many sessions of this worker have a command running, and whether this one does.
#[derive(Default)]
pub(crate) struct Running {
    total: Arc<AtomicUsize>,
    mine: bool,
}

impl Running {
    /// One more session's share in the count.
    pub(crate) fn join(&self) -> Self {
        Self { total: self.total.clone(), mine: false }
    }

    /// Tells whether this session has a command running.
    pub(crate) fn set(&mut self, busy: Busy) {
        let now = busy == Busy::Yes;
        if self.mine != now {
            self.mine = now;
            // One thread only; the atomic is for the task to be movable in the type system's eyes.
            if now {
                self.total.fetch_add(1, Ordering::Relaxed);
            } else {
                self.total.fetch_sub(1, Ordering::Relaxed);
            }
        }
    }

    fn lone(&self) -> Lone {
        if self.total.load(Ordering::Relaxed) <= 1 { Lone::Yes } else { Lone::No }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.set(Busy::No);
    }
}

/// A connection's place on its worker.
pub(crate) struct Seat {
    /// The worker's gate to the record.
    pub(crate) gate: Arc<Gate>,
    pub(crate) running: Running,
}

impl Seat {
    /// One more on the same worker.
    pub(crate) fn beside(&self) -> Self {
        Self { gate: self.gate.clone(), running: self.running.join() }
    }
}

/// Runs one worker until its arrivals end and its sessions are over.
pub(crate) async fn run(shared: Arc<Shared>, number: usize, mut arrivals: mpsc::Receiver<Arrival>) {
    let seat = Seat { gate: Arc::new(shared.recorder.gate()), running: Running::default() };
    let (sessions, links) = (TaskTracker::new(), TaskTracker::new());
    let closing = CancellationToken::new();
    outposts::on_worker(number);
    let turning = tokio::spawn(turn(seat.beside()));
    while let Some(arrival) = arrivals.recv().await {
        let Ok(stream) = TcpStream::from_std(arrival.stream) else {
            continue;
        };
        match arrival.port {
            Port::Postgres => {
                let serving = postgres::serve(shared.clone(), seat.beside(), stream, arrival.peer);
                sessions.spawn(shared.sessions.track_future(serving));
            }
            Port::Ssh => {
                let serving = ssh::serve(shared.clone(), seat.beside(), stream, arrival.peer);
                sessions.spawn(shared.sessions.track_future(serving));
            }
            Port::Outposts => {
                links.spawn(outposts::serve(shared.clone(), stream, arrival.peer, closing.clone()));
            }
        }
    }
    sessions.close();
    sessions.wait().await;
    // Sessions of other workers may run through links of this one.
    shared.sessions.close();
    shared.sessions.wait().await;
    closing.cancel();
    links.close();
    let _ = tokio::time::timeout(LINKS_PARTING, links.wait()).await;
    turning.abort();
}

/// Once per turn of the event loop in which a session waits for the record: writes what all of
/// them appended in that turn, and lets them go on as it becomes safe.
async fn turn(Seat { gate, running }: Seat) {
    poll_fn(|cx| {
        gate.set_turn_waker(cx.waker());
        gate.turn(running.lone());
        Poll::<()>::Pending
    })
    .await;
}
