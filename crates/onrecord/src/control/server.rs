//! The gateway's side of the control socket: a thread that accepts, and one for each connection, of which there are few.
//!
//! Invariant: only the gateway's own user and root are answered.

use std::collections::HashMap;
use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use gateway::{Shown, Watch};
use model::Actor;
use rustix::net::sockopt::socket_peercred;
use store::Pace;

use super::place::{NAME, Place};
use super::{Code, Executor, REQUEST_BYTES_MAX, Refusal, Request, actor, answer_line, shown};

/// Connections at a time.
const CONNECTIONS_MAX: usize = 24;
/// Of these, so many may watch.
const WATCHES_MAX: usize = 16;
/// How often it is looked whether somebody who watches is still there.
const WATCH_PAUSE: Duration = Duration::from_millis(250);
/// How long a request may take to arrive, counted from the one before.
const REQUEST_TIME_MAX: Duration = Duration::from_secs(30);
/// How long an answer may take to be read.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(10);
/// After an accept that failed, so that a lasting failure does not keep a processor busy.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A listening control socket. Stops when it is dropped.
pub struct Server {
    shared: Arc<Shared>,
    accepting: Option<JoinHandle<()>>,
    place: Place,
}

struct Shared {
    executor: Executor,
    stop: AtomicBool,
    watches: AtomicUsize,
    connections: Mutex<Connections>,
}

#[derive(Default)]
struct Connections {
    next: u64,
    open: HashMap<u64, (UnixStream, Option<JoinHandle<()>>)>,
}

impl Server {
    /// Listens in a data directory, of which the caller holds the lock: what is left there of an earlier run is removed.
    ///
    /// # Errors
    /// The socket cannot be made.
    pub fn start(data: &Path, executor: Executor) -> io::Result<Self> {
        let place = Place::new(data)?;
        let beside = place.path("control.new");
        for path in [&beside, &place.path(NAME)] {
            match fs::remove_file(path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        // It gets its name when nobody else can use it any more.
        let listener = UnixListener::bind(&beside)?;
        fs::set_permissions(&beside, fs::Permissions::from_mode(0o600))?;
        fs::rename(&beside, place.path(NAME))?;
        let shared = Arc::new(Shared {
            executor,
            stop: AtomicBool::new(false),
            watches: AtomicUsize::new(0),
            connections: Mutex::default(),
        });
        let of_thread = shared.clone();
        let accepting =
            std::thread::Builder::new().name("control".into()).spawn(move || of_thread.accept(&listener))?;
        Ok(Self { shared, accepting: Some(accepting), place })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.shared.stop.store(true, SeqCst);
        // Wakes the accepting thread.
        let woken = UnixStream::connect(self.place.path(NAME));
        let _ = fs::remove_file(self.place.path(NAME));
        if let (Some(accepting), Ok(_)) = (self.accepting.take(), woken) {
            let _ = accepting.join();
        }
        let open: Vec<_> = self.shared.connections().open.drain().map(|(_, connection)| connection).collect();
        for (stream, thread) in open {
            // What is being done is finished, or stops at its next pause; what is asked for from here on is not.
            let _ = stream.shutdown(std::net::Shutdown::Read);
            if let Some(thread) = thread {
                let _ = thread.join();
            }
        }
    }
}

impl Shared {
    fn connections(&self) -> MutexGuard<'_, Connections> {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn accept(self: &Arc<Self>, listener: &UnixListener) {
        loop {
            let accepted = listener.accept();
            if self.stop.load(SeqCst) {
                return;
            }
            match accepted {
                Ok((stream, _)) => self.begin(stream),
                Err(_) => std::thread::sleep(ACCEPT_PAUSE),
            }
        }
    }

    /// Serves a connection in a thread of its own, if there are not too many.
    fn begin(self: &Arc<Self>, mut stream: UnixStream) {
        let _ = stream.set_write_timeout(Some(ANSWER_TIME_MAX));
        let mut connections = self.connections();
        if connections.open.len() >= CONNECTIONS_MAX {
            drop(connections);
            let busy = Refusal::new(Code::Busy, "too many ask at the same time; try again");
            let _ = send(&mut stream, &Err(busy));
            return;
        }
        let Ok(ours) = stream.try_clone() else { return };
        let number = connections.next;
        connections.next += 1;
        let shared = self.clone();
        let serve = move || {
            let _ = shared.serve(&mut stream);
            shared.connections().open.remove(&number);
        };
        // The lock is held until the thread is entered, so that it cannot leave before.
        if let Ok(thread) = std::thread::Builder::new().name("control-peer".into()).spawn(serve) {
            connections.open.insert(number, (ours, Some(thread)));
        }
    }

    fn serve(&self, stream: &mut UnixStream) -> io::Result<()> {
        let uid = socket_peercred(&*stream)?.uid;
        if !(uid.is_root() || uid == rustix::process::geteuid()) {
            return send(stream, &Err(Refusal::new(Code::Forbidden, "only the gateway's own user and root may ask")));
        }
        let by = actor(uid.as_raw());
        let mut lines = Lines { buffer: Vec::new() };
        while let Some(line) = lines.next(stream)? {
            let mut pace = || if self.stop.load(SeqCst) { Pace::Stop } else { Pace::Go };
            let answer = match line {
                Line::Whole(line) => match Request::parse(&line) {
                    Ok(Request::Watch { command }) => return self.watch(stream, &command, &by),
                    request => request.and_then(|request| self.executor.execute(&request, &by, &mut pace)),
                },
                Line::TooLong => {
                    let what = format_args!("a request has at most {REQUEST_BYTES_MAX} bytes");
                    return send(stream, &Err(Refusal::new(Code::Malformed, what)));
                }
            };
            send(stream, &answer)?;
        }
        Ok(())
    }
}

impl Shared {
    /// Shows what a program writes until it ends, whoever looks leaves or says something, or the gateway stops.
    fn watch(&self, stream: &mut UnixStream, command: &str, by: &Actor) -> io::Result<()> {
        let watches = self.watches.fetch_add(1, SeqCst);
        let watching = match watches < WATCHES_MAX {
            true => self.executor.watch(command, by),
            false => Err(Refusal::new(Code::Busy, "too many watch at the same time")),
        };
        let shown = match watching {
            Err(refusal) => send(stream, &Err(refusal)),
            Ok(watch) => {
                send(stream, &Ok(serde_json::json!({"command": command}))).and_then(|()| self.show(stream, &watch))
            }
        };
        self.watches.fetch_sub(1, SeqCst);
        shown
    }

    fn show(&self, stream: &mut UnixStream, watch: &Watch) -> io::Result<()> {
        stream.set_read_timeout(Some(Duration::from_millis(1)))?;
        let mut looked = Instant::now();
        while !self.stop.load(SeqCst) {
            let shown = watch.next(WATCH_PAUSE);
            if let Some(line) = shown::line(&shown) {
                stream.write_all((line + "\n").as_bytes())?;
            }
            if shown == Shown::Over {
                break;
            }
            if looked.elapsed() >= WATCH_PAUSE {
                looked = Instant::now();
                match stream.read(&mut [0]) {
                    Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {}
                    _ => break,
                }
            }
        }
        Ok(())
    }
}

fn send(stream: &mut UnixStream, answer: &Result<serde_json::Value, Refusal>) -> io::Result<()> {
    stream.write_all((answer_line(answer) + "\n").as_bytes())
}

struct Lines {
    buffer: Vec<u8>,
}

enum Line {
    Whole(Vec<u8>),
    TooLong,
}

impl Lines {
    /// The next line; none at the end, whatever was begun.
    fn next(&mut self, stream: &mut UnixStream) -> io::Result<Option<Line>> {
        let deadline = Instant::now() + REQUEST_TIME_MAX;
        loop {
            if let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let rest = self.buffer.split_off(end + 1);
                let mut line = std::mem::replace(&mut self.buffer, rest);
                line.pop();
                return Ok(Some(if line.len() > REQUEST_BYTES_MAX { Line::TooLong } else { Line::Whole(line) }));
            }
            if self.buffer.len() > REQUEST_BYTES_MAX {
                return Ok(Some(Line::TooLong));
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(None);
            }
            stream.set_read_timeout(Some(left))?;
            let mut piece = [0; 4096];
            match stream.read(&mut piece) {
                Ok(0) => return Ok(None),
                Ok(count) => self.buffer.extend_from_slice(piece.get(..count).unwrap_or_default()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}
