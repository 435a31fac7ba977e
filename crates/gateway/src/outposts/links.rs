//! The links that are up, and which of them carries a session.

use std::cell::Cell;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use link::{Opener, PING_EVERY};
use tokio::sync::oneshot;

use super::Via;
use super::registry::Enrolled;

/// A ping comes every [`PING_EVERY`]; one that is so late may never come.
const QUIET_AFTER: Duration = PING_EVERY.saturating_add(Duration::from_secs(3));

thread_local! {
    /// Which worker this thread is: a session takes a link of its own worker, so that no byte crosses threads.
    static WORKER: Cell<usize> = const { Cell::new(usize::MAX) };
}

/// Says which worker this thread is.
pub(crate) fn on_worker(number: usize) {
    WORKER.set(number);
}

/// The links that are up.
#[derive(Default)]
pub(super) struct Links(Mutex<State>);

#[derive(Default)]
struct State {
    next: u64,
    up: HashMap<u64, (Arc<Link>, Option<oneshot::Sender<Why>>)>,
}

/// One link.
pub(super) struct Link {
    pub(super) outpost: Enrolled,
    pub(super) opener: Opener,
    pub(super) peer: SocketAddr,
    pub(super) instance: [u8; 16],
    pub(super) epoch: u64,
    pub(super) place: u8,
    pub(super) program: String,
    worker: usize,
    heard: Mutex<Instant>,
}

/// Why a link is ended from here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Why {
    /// A newer one of the same outpost took its place.
    Superseded,
    /// The outpost was locked out.
    Revoked,
}

/// A link's place among those that are up; it ends with this.
pub(super) struct Up<'a> {
    links: &'a Links,
    number: u64,
    /// Comes when the link is to end.
    pub(super) end: oneshot::Receiver<Why>,
}

impl Link {
    pub(super) fn new(
        outpost: Enrolled,
        opener: Opener,
        peer: SocketAddr,
        (instance, epoch, place): ([u8; 16], u64, u8),
        program: String,
    ) -> Self {
        let (worker, heard) = (WORKER.get(), Mutex::new(Instant::now()));
        Self { outpost, opener, peer, instance, epoch, place, program, worker, heard }
    }

    /// The outpost has said something.
    pub(super) fn heard(&self) {
        *self.heard.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    /// Whether a ping is overdue: it may be dead, and is taken only where there is no other.
    fn is_quiet(&self) -> bool {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner).elapsed() > QUIET_AFTER
    }

    /// A link of an outpost's process that is gone, or an older one of the same place.
    fn superseded_by(&self, newer: &Self) -> bool {
        self.outpost.id == newer.outpost.id
            && (self.instance != newer.instance || (self.place == newer.place && self.epoch < newer.epoch))
    }
}

impl State {
    /// Tells links to end; says how many. Their sessions learn it from the end, and a new one takes them no more from now on.
    fn end(&mut self, why: Why, which: impl Fn(&Link) -> bool) -> usize {
        let those = self.up.values_mut().filter(|(link, _)| which(link));
        those.filter_map(|(_, end)| end.take()).filter_map(|end| end.send(why).ok()).count()
    }
}

impl Links {
    /// Counts a link in and ends those that it supersedes; says whether it is the outpost's only one, and how many ended.
    pub(super) fn add(&self, link: Arc<Link>) -> (Up<'_>, usize) {
        let mut state = self.lock();
        let superseded = state.end(Why::Superseded, |old| old.superseded_by(&link));
        let number = state.next;
        state.next += 1;
        let (sender, end) = oneshot::channel();
        state.up.insert(number, (link, Some(sender)));
        (Up { links: self, number, end }, superseded)
    }

    /// Ends all links of an outpost; says how many.
    pub(super) fn end(&self, outpost: &str, why: Why) -> usize {
        self.lock().end(why, |link| link.outpost.id == outpost)
    }

    /// The links that new streams may take: of each outpost the best, the outpost with the fewest streams first.
    pub(super) fn candidates(&self, via: &Via) -> Vec<Arc<Link>> {
        let here = WORKER.get();
        let state = self.lock();
        let mut by_outpost: HashMap<&str, (usize, &Arc<Link>)> = HashMap::new();
        // One that is told to end takes no more.
        let live = state.up.values().filter(|(link, end)| end.is_some() && !link.opener.is_lost());
        let rank = |link: &Link| (link.is_quiet(), link.worker != here, link.opener.streams());
        for (link, _) in live.filter(|(link, _)| via.matches(&link.outpost)) {
            let (streams, best) = by_outpost.entry(&link.outpost.id).or_insert((0, link));
            *streams += link.opener.streams();
            if rank(link) < rank(best) {
                *best = link;
            }
        }
        let mut candidates: Vec<_> = by_outpost.into_values().map(|(streams, link)| (streams, link.clone())).collect();
        candidates.sort_by_key(|(streams, link)| (link.is_quiet(), *streams));
        candidates.into_iter().map(|(_, link)| link).collect()
    }

    /// All that are up.
    pub(super) fn all(&self) -> Vec<Arc<Link>> {
        self.lock().up.values().map(|(link, _)| link.clone()).collect()
    }

    /// How many an outpost has up.
    pub(super) fn count(&self, outpost: &str) -> usize {
        self.lock().up.values().filter(|(link, _)| link.outpost.id == outpost).count()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Up<'_> {
    fn drop(&mut self) {
        self.links.lock().up.remove(&self.number);
    }
}
