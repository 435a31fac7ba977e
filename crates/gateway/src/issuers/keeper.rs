//! The keys of one issuer, and the thread that fetches them.

use std::io;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::thread;
use std::time::{Duration, Instant};

use identity::KeySet;
use tokio::sync::watch;
use tokio::time::timeout;

use super::fetch::Fetcher;
use super::{Timing, now};

/// Before the second try after a failed fetch; doubled for the next, to at most [`RETRY_MAX`].
const RETRY: Duration = Duration::from_secs(1);
/// Between two tries, at most.
const RETRY_MAX: Duration = Duration::from_secs(60);
/// Between two fetches of an issuer that asks for less, at least.
const REFRESH_MIN: Duration = Duration::from_secs(60);
/// Between two readings of a file.
const FILE_REFRESH: Duration = Duration::from_secs(10);

/// The keys of one issuer. When this is dropped, its thread ends.
pub(super) struct Keeper {
    shared: Arc<Shared>,
    /// Asks for a fetch. One request is enough for all who wait.
    requests: SyncSender<()>,
    /// How many fetches there were; changes at the end of each.
    fetches: watch::Receiver<u64>,
}

/// What the thread and the workers share.
struct Shared {
    keys: RwLock<Option<Arc<KeySet>>>,
    state: Mutex<State>,
    stale: Duration,
}

struct State {
    /// Whether a fetch is under way.
    fetching: bool,
    /// When the next will be, unless one is asked for.
    next: Instant,
    /// From when one may be asked for.
    may_ask: Instant,
    /// Why the last failed.
    failure: Option<String>,
}

/// What a fetch brought for a token whose key was not there.
pub(super) enum Newer {
    Keys(Arc<KeySet>),
    /// Nothing, or it may not be asked for yet.
    None,
}

impl Keeper {
    pub(super) fn start(name: &str, fetcher: Fetcher, timing: Timing) -> io::Result<Arc<Self>> {
        let (requests, asked) = sync_channel(1);
        let (done, fetches) = watch::channel(0);
        let now = Instant::now();
        let state = State { fetching: true, next: now, may_ask: now, failure: None };
        let shared = Arc::new(Shared { keys: RwLock::default(), state: Mutex::new(state), stale: timing.stale });
        let thread = Thread { name: name.to_owned(), shared: Arc::clone(&shared), fetcher, timing, done };
        thread::Builder::new().name("issuer-keys".to_owned()).spawn(move || thread.run(&asked))?;
        Ok(Arc::new(Self { shared, requests, fetches }))
    }

    /// The keys, if there are any that still hold at this time, in seconds since 1970.
    pub(super) fn keys(&self, now: u64) -> Option<Arc<KeySet>> {
        let keys = self.shared.keys.read().unwrap_or_else(PoisonError::into_inner).clone();
        keys.filter(|keys| now.saturating_sub(keys.fetched()) <= self.shared.stale.as_secs())
    }

    /// Why the last fetch failed, if it did.
    pub(super) fn failure(&self) -> Option<String> {
        self.shared.state().failure.clone()
    }

    /// Waits for the first keys, if they can come within this time.
    pub(super) async fn first(&self, wait: Duration) -> Option<Arc<KeySet>> {
        let mut fetches = self.fetches.clone();
        let arrived = async {
            loop {
                fetches.borrow_and_update();
                if let Some(keys) = self.keys(now()) {
                    return Some(keys);
                }
                if !self.comes_within(wait) || fetches.changed().await.is_err() {
                    return None;
                }
            }
        };
        timeout(wait, arrived).await.ok().flatten()
    }

    /// Waits for keys that are not these, if that is allowed now.
    pub(super) async fn newer(&self, than: &Arc<KeySet>, wait: Duration) -> Newer {
        let mut fetches = self.fetches.clone();
        fetches.borrow_and_update();
        let newer = || self.keys(now()).filter(|keys| !Arc::ptr_eq(keys, than)).map_or(Newer::None, Newer::Keys);
        // Someone else's fetch may have ended since.
        if let found @ Newer::Keys(_) = newer() {
            return found;
        }
        {
            let state = self.shared.state();
            if !state.fetching {
                if Instant::now() < state.may_ask {
                    drop(state);
                    return newer();
                }
                // Full: it is asked for already.
                let _ = self.requests.try_send(());
            }
        }
        match timeout(wait, fetches.changed()).await {
            Ok(Ok(())) => newer(),
            Ok(Err(_)) | Err(_) => Newer::None,
        }
    }

    fn comes_within(&self, wait: Duration) -> bool {
        let state = self.shared.state();
        state.fetching || state.next <= Instant::now() + wait
    }
}

impl Shared {
    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The thread's side.
struct Thread {
    name: String,
    shared: Arc<Shared>,
    fetcher: Fetcher,
    timing: Timing,
    done: watch::Sender<u64>,
}

impl Thread {
    fn run(self, asked: &Receiver<()>) {
        let mut failures = 0;
        loop {
            let began = Instant::now();
            self.shared.state().fetching = true;
            let pause = self.fetch(&mut failures);
            {
                let mut state = self.shared.state();
                state.fetching = false;
                state.next = Instant::now() + pause;
                state.may_ask = began + self.timing.unknown_key;
                // What was asked for while this fetch ran may need another, but not sooner than is allowed: who waits is
                // answered by this one.
                let _ = asked.try_recv();
            }
            self.done.send_modify(|fetches| *fetches += 1);
            match asked.recv_timeout(pause) {
                Ok(()) | Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    /// Fetches once; gives the time until the next.
    fn fetch(&self, failures: &mut u32) -> Duration {
        let name = self.name.as_str();
        match self.fetcher.fetch() {
            Ok(fetched) => {
                let (keys, skipped) = (fetched.keys.len(), fetched.keys.skipped());
                let before =
                    self.shared.keys.write().unwrap_or_else(PoisonError::into_inner).replace(Arc::new(fetched.keys));
                let changed = before.is_none_or(|before| Some(before.document()) != self.document());
                if changed || *failures > 0 {
                    tracing::info!(issuer = name, keys, skipped, "the keys of the issuer are here");
                }
                *failures = 0;
                self.shared.state().failure = None;
                if self.fetcher.is_local() {
                    return FILE_REFRESH.min(self.timing.refresh);
                }
                let asked_for = fetched.max_age.map_or(self.timing.refresh, |age| age.max(REFRESH_MIN));
                asked_for.min(self.timing.refresh)
            }
            Err(error) => {
                let what = error.to_string();
                // Each kind of failure once, not each try.
                if self.shared.state().failure.replace(what.clone()).as_ref() != Some(&what) {
                    let stale = self.shared.keys.read().unwrap_or_else(PoisonError::into_inner).is_some();
                    let hours = self.timing.stale.as_secs() / 3600;
                    match stale {
                        true => tracing::warn!(
                            issuer = name,
                            "the keys of the issuer cannot be renewed; those at hand hold for at most {hours} h: {what}"
                        ),
                        false => tracing::warn!(
                            issuer = name,
                            "the keys of the issuer cannot be fetched, and its tokens are refused until they can: {what}"
                        ),
                    }
                }
                let pause = RETRY.saturating_mul(1 << (*failures).min(6));
                *failures = failures.saturating_add(1);
                pause.min(RETRY_MAX)
            }
        }
    }

    fn document(&self) -> Option<model::Digest> {
        let keys = self.shared.keys.read().unwrap_or_else(PoisonError::into_inner);
        keys.as_ref().map(|keys| keys.document())
    }
}
