//! What running programs write, for those who watch them.
//!
//! Invariant: nobody who watches holds up a program, or costs it more memory than is said here. Who does not keep up
//! misses a part, and is told how much.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use model::CommandId;
use model::transcript::{Frame, Stream};

/// How much is kept of what a terminal showed last, for those who begin to watch it, in bytes.
const KEPT_BYTES_MAX: usize = 32 * 1024;
/// How much may wait for somebody who watches, in bytes.
const WAITING_BYTES_MAX: usize = 1 << 20;
/// What a frame costs besides its payload.
const FRAME_COST_BYTES: usize = 64;
/// Those who watch one program at the same time.
const WATCHERS_MAX: usize = 8;

/// The programs that run.
#[derive(Default)]
pub(crate) struct Shows(Mutex<HashMap<CommandId, Arc<Show>>>);

/// One program.
struct Show(Mutex<State>);

struct State {
    /// Then the end of what was shown is kept: it makes the screen.
    has_terminal: bool,
    kept: Queue,
    watchers: Vec<Arc<Watcher>>,
    /// Nobody else begins to watch it.
    over: bool,
}

/// Frames, oldest first, as many as there is room for.
#[derive(Default)]
struct Queue {
    frames: VecDeque<Frame>,
    cost: usize,
    /// Bytes that were left out since somebody looked.
    missed: u64,
}

/// The program's end of it. Dropped, the program is over.
pub(crate) struct Showing {
    shows: Arc<Shows>,
    command: CommandId,
    show: Arc<Show>,
}

#[derive(Default)]
struct Watcher {
    waiting: Mutex<Waiting>,
    news: Condvar,
}

#[derive(Default)]
struct Waiting {
    queue: Queue,
    over: bool,
}

/// The end of somebody who watches.
pub struct Watch {
    show: Arc<Show>,
    watcher: Arc<Watcher>,
}

/// What somebody who watches learns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Shown {
    /// What the program wrote, or how large its terminal is; times count from its beginning.
    Frame(Frame),
    /// So many bytes came too fast, and are left out. The record has them.
    Missed(u64),
    /// Nothing for now.
    Nothing,
    /// The program is over.
    Over,
}

impl Shows {
    /// A program begins.
    pub(crate) fn begin(self: &Arc<Self>, command: CommandId, has_terminal: bool) -> Showing {
        let state = State { has_terminal, kept: Queue::default(), watchers: Vec::new(), over: false };
        let show = Arc::new(Show(Mutex::new(state)));
        self.lock().insert(command, show.clone());
        Showing { shows: self.clone(), command, show }
    }

    /// Begins to watch a program: from what its terminal showed last. None if it does not run, or too many watch it.
    pub(crate) fn watch(&self, command: CommandId) -> Option<Watch> {
        let show = self.lock().get(&command)?.clone();
        let mut state = show.lock();
        if state.over || state.watchers.len() >= WATCHERS_MAX {
            return None;
        }
        let watcher = Arc::new(Watcher::default());
        watcher.lock().queue = Queue { frames: state.kept.frames.clone(), cost: state.kept.cost, missed: 0 };
        state.watchers.push(watcher.clone());
        drop(state);
        Some(Watch { show, watcher })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<CommandId, Arc<Show>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Shows {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shows").finish_non_exhaustive()
    }
}

impl Show {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Showing {
    /// It wrote this.
    pub(crate) fn wrote(&self, stream: Stream, at_us: u64, bytes: &[u8]) {
        self.push(|| Frame::Bytes { stream, at_us, bytes: bytes.to_vec() });
    }

    /// Its terminal has this size from here on.
    pub(crate) fn sized(&self, at_us: u64, [columns, rows]: [u32; 2]) {
        self.push(|| Frame::Size { at_us, columns, rows });
    }

    fn push(&self, frame: impl FnOnce() -> Frame) {
        let mut state = self.show.lock();
        if !state.has_terminal && state.watchers.is_empty() {
            return;
        }
        let frame = frame();
        for watcher in &state.watchers {
            watcher.lock().queue.push(frame.clone(), WAITING_BYTES_MAX);
            watcher.news.notify_one();
        }
        if state.has_terminal {
            state.kept.push(frame, KEPT_BYTES_MAX);
        }
    }
}

impl Drop for Showing {
    fn drop(&mut self) {
        self.shows.lock().remove(&self.command);
        let mut state = self.show.lock();
        state.over = true;
        for watcher in std::mem::take(&mut state.watchers) {
            watcher.lock().over = true;
            watcher.news.notify_one();
        }
    }
}

impl Queue {
    /// Adds one, and leaves out the oldest for which there is no room. What the terminal's size was stays known.
    fn push(&mut self, frame: Frame, max: usize) {
        self.cost += cost(&frame);
        self.frames.push_back(frame);
        let mut size = None;
        while self.cost > max && self.frames.len() > 1 {
            let Some(oldest) = self.frames.pop_front() else { break };
            self.cost -= cost(&oldest);
            match oldest {
                Frame::Bytes { bytes, .. } => self.missed += u64::try_from(bytes.len()).unwrap_or(u64::MAX),
                Frame::Size { .. } => size = Some(oldest),
                Frame::End { .. } => {}
            }
        }
        if let Some(size) = size {
            self.cost += cost(&size);
            self.frames.push_front(size);
        }
    }
}

fn cost(frame: &Frame) -> usize {
    match frame {
        Frame::Bytes { bytes, .. } => FRAME_COST_BYTES + bytes.len(),
        Frame::Size { .. } | Frame::End { .. } => FRAME_COST_BYTES,
    }
}

impl Watcher {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Watch {
    /// What comes next, or nothing within this time.
    #[must_use]
    pub fn next(&self, wait: Duration) -> Shown {
        let waiting = self.watcher.lock();
        let nothing = |waiting: &mut Waiting| waiting.queue.frames.is_empty() && !waiting.over;
        let waited = self.watcher.news.wait_timeout_while(waiting, wait, nothing);
        let (mut waiting, _) = waited.unwrap_or_else(PoisonError::into_inner);
        let missed = std::mem::take(&mut waiting.queue.missed);
        if missed > 0 {
            return Shown::Missed(missed);
        }
        match waiting.queue.frames.pop_front() {
            Some(frame) => {
                waiting.queue.cost -= cost(&frame);
                Shown::Frame(frame)
            }
            None if waiting.over => Shown::Over,
            None => Shown::Nothing,
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.show.lock().watchers.retain(|watcher| !Arc::ptr_eq(watcher, &self.watcher));
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use model::SessionId;

    fn command() -> CommandId {
        CommandId { session: SessionId::from_bytes([1; 16]), ordinal: 1 }
    }

    fn all(watch: &Watch) -> Vec<Shown> {
        std::iter::from_fn(|| match watch.next(Duration::ZERO) {
            Shown::Nothing => None,
            shown => Some(shown),
        })
        .take_while(|shown| *shown != Shown::Over)
        .collect()
    }

    fn bytes(shown: &[Shown]) -> Vec<u8> {
        let of = |shown: &Shown| match shown {
            Shown::Frame(Frame::Bytes { bytes, .. }) => bytes.clone(),
            _ => Vec::new(),
        };
        shown.iter().flat_map(of).collect()
    }

    #[test]
    fn who_comes_late_gets_what_a_terminal_showed_last_and_then_all() {
        let shows = Arc::new(Shows::default());
        assert!(shows.watch(command()).is_none(), "it does not run");
        let showing = shows.begin(command(), true);
        showing.sized(0, [80, 24]);
        showing.wrote(Stream::Stdout, 5, b"before ");
        let watch = shows.watch(command()).unwrap();
        showing.wrote(Stream::Stdout, 9, b"after");
        let seen = all(&watch);
        assert_eq!(seen.first(), Some(&Shown::Frame(Frame::Size { at_us: 0, columns: 80, rows: 24 })));
        assert_eq!(bytes(&seen), b"before after");
        drop(showing);
        assert_eq!(watch.next(Duration::from_secs(60)), Shown::Over);
        assert!(shows.watch(command()).is_none());
    }

    #[test]
    fn nothing_is_kept_of_what_has_no_terminal_and_is_not_watched() {
        let shows = Arc::new(Shows::default());
        let showing = shows.begin(command(), false);
        showing.wrote(Stream::Stdout, 5, b"before");
        let watch = shows.watch(command()).unwrap();
        showing.wrote(Stream::Stderr, 9, b"after");
        assert_eq!(bytes(&all(&watch)), b"after");
    }

    #[test]
    fn memory_is_bounded_and_what_was_missed_is_said() {
        let shows = Arc::new(Shows::default());
        let showing = shows.begin(command(), true);
        let watch = shows.watch(command()).unwrap();
        showing.sized(0, [100, 30]);
        for at in 0..1000 {
            showing.wrote(Stream::Stdout, at, &[b'x'; 10_000]);
        }
        showing.wrote(Stream::Stdout, 1001, b"end");
        let seen = all(&watch);
        let Some(Shown::Missed(missed)) = seen.first() else { panic!("{:?}", seen.first()) };
        assert_eq!(seen.get(1), Some(&Shown::Frame(Frame::Size { at_us: 0, columns: 100, rows: 30 })));
        let seen = bytes(&seen);
        assert!(seen.len() <= WAITING_BYTES_MAX && seen.ends_with(b"xend"), "{}", seen.len());
        assert_eq!(seen.len() as u64 + missed, 10_000_003);
        let late = shows.watch(command()).unwrap();
        let late = bytes(&all(&late));
        assert!(late.len() <= KEPT_BYTES_MAX && late.ends_with(b"xend"), "{}", late.len());
    }

    #[test]
    fn only_so_many_watch_one_program() {
        let shows = Arc::new(Shows::default());
        let _showing = shows.begin(command(), true);
        let mut watches: Vec<_> = (0..WATCHERS_MAX).map(|_| shows.watch(command()).unwrap()).collect();
        assert!(shows.watch(command()).is_none());
        watches.pop();
        assert!(shows.watch(command()).is_some());
    }
}
