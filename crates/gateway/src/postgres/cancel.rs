//! CancelRequest: keys are minted here, and each reaches the one backend that it was minted for.
//!
//! A client's key has the backend's process id (drivers compare it with `pg_backend_pid()`) and a
//! secret of ours. The server's own key never leaves the gateway.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::Waker;

use model::SessionId;
use subtle::ConstantTimeEq as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use wire::postgres::message;
use wire::postgres::startup::CancelKey;

use super::login;
use crate::config::Connection;
use crate::outposts::Outposts;
use crate::random;

/// Cancel keys of all live sessions.
#[derive(Default)]
pub(crate) struct Cancels {
    by_pid: Mutex<HashMap<u32, Vec<Entry>>>,
}

struct Entry {
    secret: Vec<u8>,
    target: Arc<Target>,
}

/// The backend that one key cancels.
pub(crate) struct Target {
    pub(crate) session: SessionId,
    connection: Arc<Connection>,
    outposts: Option<Outposts>,
    upstream: CancelKey,
    busy: AtomicBool,
    waits: Mutex<Waits>,
}

/// Whether the session's command waits for people.
#[derive(Default)]
enum Waits {
    #[default]
    No,
    /// It does; this wakes the session.
    Yes(Waker),
    /// It did, and whoever sent it wants it no more.
    NoMore,
}

impl Target {
    /// Tells whether a command is running, so that a late cancel is not carried.
    pub(crate) fn set_busy(&self, busy: Busy) {
        self.busy.store(busy == Busy::Yes, Ordering::Relaxed);
    }

    /// A command waits for people: a cancellation is for that.
    pub(crate) fn set_waits(&self, waker: &Waker) {
        let mut waits = self.waits.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if !matches!(*waits, Waits::NoMore) {
            *waits = Waits::Yes(waker.clone());
        }
    }

    /// No command waits for people any more. Says whether it was cancelled.
    pub(crate) fn stop_waiting(&self) -> bool {
        let mut waits = self.waits.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        matches!(std::mem::take(&mut *waits), Waits::NoMore)
    }

    /// Whether the command that waits was cancelled.
    pub(crate) fn wait_is_cancelled(&self) -> bool {
        matches!(*self.waits.lock().unwrap_or_else(std::sync::PoisonError::into_inner), Waits::NoMore)
    }

    /// Cancels the command that waits for people, if one does. The server knows nothing of it.
    pub(crate) fn cancel_wait(&self) -> bool {
        let mut waits = self.waits.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        match std::mem::replace(&mut *waits, Waits::NoMore) {
            // Clients ask twice, some of them.
            Waits::NoMore => true,
            Waits::Yes(waker) => {
                waker.wake();
                true
            }
            Waits::No => {
                *waits = Waits::No;
                false
            }
        }
    }

    /// Whether a command is running.
    pub(crate) fn busy(&self) -> Busy {
        if self.busy.load(Ordering::Relaxed) { Busy::Yes } else { Busy::No }
    }

    /// Carries the cancellation to the backend: a connection of its own, encrypted as the
    /// session's is, that the server closes once the signal is sent. The caller bounds the time.
    pub(crate) async fn cancel(&self) -> Result<(), login::LoginError> {
        let io = login::LoginError::Unreachable;
        let reached = login::reach(&self.connection, self.outposts.as_ref(), &self.session.to_string()).await;
        let carried = reached.map_err(|error| io(std::io::Error::other(error)))?.map(|(stream, _)| stream);
        let (mut stream, _) = login::connect(&self.connection, carried).await?;
        stream.write_all(&message::cancel_request(&self.upstream)).await.map_err(io)?;
        stream.flush().await.map_err(io)?;
        let mut rest = [0; 64];
        while stream.read(&mut rest).await.is_ok_and(|read| read > 0) {}
        Ok(())
    }
}

/// Whether a session has a command running.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Busy {
    Yes,
    No,
}

/// A minted key; it stops working when this is dropped.
pub(crate) struct Minted {
    pub(crate) key: CancelKey,
    pub(crate) target: Arc<Target>,
    cancels: Arc<Cancels>,
}

impl Cancels {
    /// Mints the key of a session. `secret_bytes` is 4 for protocol 3.0, 32 for 3.2.
    pub(crate) fn mint(
        self: &Arc<Self>,
        session: SessionId,
        connection: &Arc<Connection>,
        outposts: Option<&Outposts>,
        upstream: CancelKey,
        secret_bytes: usize,
    ) -> Minted {
        let pid = upstream.pid;
        let target = Arc::new(Target {
            session,
            connection: connection.clone(),
            outposts: outposts.cloned(),
            upstream,
            busy: AtomicBool::new(false),
            waits: Mutex::default(),
        });
        let mut by_pid = self.by_pid.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let entries = by_pid.entry(pid).or_default();
        // Two servers may give out one process id; their keys must still differ.
        let secret = loop {
            let mut secret = random::bytes::<32>().to_vec();
            secret.truncate(secret_bytes);
            if entries.iter().all(|entry| entry.secret != secret) {
                break secret;
            }
        };
        entries.push(Entry { secret: secret.clone(), target: target.clone() });
        Minted { key: CancelKey { pid, secret }, target, cancels: self.clone() }
    }

    /// The session whose key this is.
    pub(crate) fn find(&self, key: &CancelKey) -> Option<Arc<Target>> {
        let by_pid = self.by_pid.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        by_pid
            .get(&key.pid)?
            .iter()
            .find(|entry| bool::from(entry.secret.ct_eq(&key.secret)))
            .map(|entry| entry.target.clone())
    }
}

impl Drop for Minted {
    fn drop(&mut self) {
        let mut by_pid = self.cancels.by_pid.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(entries) = by_pid.get_mut(&self.key.pid) {
            entries.retain(|entry| entry.secret != self.key.secret);
            if entries.is_empty() {
                by_pid.remove(&self.key.pid);
            }
        }
    }
}
