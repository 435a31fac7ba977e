//! Has texts analysed in processes of their own.
//!
//! The parser is C, and reads what an attacker wrote: it is not let near the gateway's memory. A text that ends a process
//! ends nothing else. The invariant: every question is answered, by its deadline, if only with why nothing is known.
//!
//! One queue, in the order of asking; each process has a thread that takes from it. The deadline counts from the asking, so
//! the one in front is always the first to be due, and a thread that gave one up finds the next still in time or due.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use model::{Facts, Opaque};
use tokio::sync::oneshot;

use crate::analysis::Holds;
use crate::cache::{Cache, Key, key, shape_key};
use crate::child::{Child, Unanswered};
use crate::shape::Shape;
use crate::{Settings, analysis, codec};

/// The most questions that wait, of all processes together. One more is answered with [`Opaque::Timeout`] at once: it would
/// not have been answered in time.
pub const QUEUE_MAX: usize = 1024;
/// The most processes that are started in place of ended ones within [`STARTS_WINDOW`], per worker. Beyond it, questions are
/// answered with [`Opaque::Failed`] until the window is over.
pub const STARTS_MAX: usize = 20;
/// See [`STARTS_MAX`].
pub const STARTS_WINDOW: Duration = Duration::from_secs(10);
/// How many processes a text may end before it is remembered as one that does.
const DEATHS_MAX: usize = 2;

/// How an [`Analyzer`] works.
#[derive(Clone, Debug)]
pub struct AnalyzerConfig {
    /// The program that analyses, and its arguments: one that calls [`crate::serve_worker`].
    pub command: Vec<OsString>,
    /// How many of it run.
    pub workers: usize,
    /// How long one text may take, from when it is asked for.
    pub deadline: Duration,
}

/// Analyses texts in processes of their own, so that no text can end this one, and remembers what it found.
///
/// When it is dropped, the processes end.
pub struct Analyzer {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

struct Shared {
    config: AnalyzerConfig,
    cache: Cache,
    queue: Mutex<Queue>,
    more: Condvar,
}

#[derive(Default)]
struct Queue {
    jobs: VecDeque<Job>,
    closed: bool,
}

struct Job {
    keys: Keys,
    question: Vec<u8>,
    due: Instant,
    answer: oneshot::Sender<Arc<Facts>>,
}

/// What a text's facts can be remembered by.
struct Keys {
    text: Key,
    /// If it has a shape.
    shape: Option<Key>,
}

impl Analyzer {
    /// Starts it; its processes are started when they are needed.
    #[must_use]
    pub fn start(config: AnalyzerConfig) -> Arc<Self> {
        let workers = config.workers.max(1);
        let shared = Arc::new(Shared {
            config,
            cache: Cache::default(),
            queue: Mutex::new(Queue::default()),
            more: Condvar::new(),
        });
        let thread = |number: usize| {
            let shared = Arc::clone(&shared);
            let thread = std::thread::Builder::new().name(format!("sql-worker-{number}"));
            thread.spawn(move || Worker::new(&shared).run())
        };
        let threads: Vec<_> = (0..workers).filter_map(|number| thread(number).ok()).collect();
        if threads.is_empty() {
            tracing::error!("no thread for the analysis of statements could be started: all statements are opaque");
            shared.close();
        }
        Arc::new(Self { shared, threads })
    }

    /// The facts of a text, if it was analysed before under these settings, or one whose facts are also this one's.
    #[must_use]
    pub fn known(&self, text: &[u8], settings: Settings) -> Option<Arc<Facts>> {
        self.shared.known(&key(text, settings), || Some(shape_key(&Shape::of(text)?, settings)))
    }

    /// Has a text analysed. Whatever happens, facts arrive within the deadline, if only [`Facts::unknown`].
    pub fn ask(&self, text: &[u8], settings: Settings) -> oneshot::Receiver<Arc<Facts>> {
        let (answer, asked) = oneshot::channel();
        let now = |reason| Arc::new(Facts::unknown(reason));
        if let Some(reason) = analysis::refused(text, settings) {
            let _ = answer.send(now(reason));
            return asked;
        }
        let Some(question) = codec::question(text, settings) else {
            let _ = answer.send(now(Opaque::TooLong));
            return asked;
        };
        let due = Instant::now() + self.shared.config.deadline;
        let job = Job { keys: Keys::of(text, settings), question, due, answer };
        let mut queue = self.shared.queue();
        if queue.closed {
            drop(queue);
            job.end(now(Opaque::Failed));
        } else if queue.jobs.len() >= QUEUE_MAX {
            drop(queue);
            job.end(now(Opaque::Timeout));
        } else {
            queue.jobs.push_back(job);
            drop(queue);
            self.shared.more.notify_one();
        }
        asked
    }
}

impl Drop for Analyzer {
    fn drop(&mut self) {
        self.shared.close();
        for thread in self.threads.drain(..) {
            // Each is done with its question when that is due.
            let _ = thread.join();
        }
    }
}

impl std::fmt::Debug for Analyzer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Analyzer").field("config", &self.shared.config).finish_non_exhaustive()
    }
}

impl Keys {
    fn of(text: &[u8], settings: Settings) -> Self {
        let shape = Shape::of(text);
        Self { text: key(text, settings), shape: shape.map(|shape| shape_key(&shape, settings)) }
    }

    /// What facts that hold for this are remembered by.
    fn of_what(&self, holds: Holds) -> Key {
        match holds {
            Holds::Shape => self.shape.unwrap_or(self.text),
            Holds::Text => self.text,
        }
    }
}

impl Job {
    fn end(self, facts: Arc<Facts>) {
        // Who asked may have gone.
        let _ = self.answer.send(facts);
    }
}

impl Shared {
    /// What is remembered by a text's key, or else by that of its shape, which is only made then.
    fn known(&self, text: &Key, shape: impl FnOnce() -> Option<Key>) -> Option<Arc<Facts>> {
        self.cache.get(text).or_else(|| self.cache.get(&shape()?))
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// No more questions. Those that wait are answered.
    fn close(&self) {
        let mut queue = self.queue();
        queue.closed = true;
        let jobs = std::mem::take(&mut queue.jobs);
        drop(queue);
        self.more.notify_all();
        let facts = Arc::new(Facts::unknown(Opaque::Failed));
        jobs.into_iter().for_each(|job| job.end(Arc::clone(&facts)));
    }

    /// The next question, or `None` when there will be none.
    fn next(&self) -> Option<Job> {
        let mut queue = self.queue();
        loop {
            if let Some(job) = queue.jobs.pop_front() {
                return Some(job);
            }
            if queue.closed {
                return None;
            }
            queue = self.more.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// A thread's process, and how often it had to be started.
struct Worker<'a> {
    shared: &'a Shared,
    child: Option<Child>,
    starts: VecDeque<Instant>,
}

impl<'a> Worker<'a> {
    fn new(shared: &'a Shared) -> Self {
        Self { shared, child: None, starts: VecDeque::with_capacity(STARTS_MAX) }
    }

    fn run(mut self) {
        while let Some(job) = self.shared.next() {
            // Somebody may have asked the same in the meantime.
            let known = self.shared.known(&job.keys.text, || job.keys.shape);
            let facts = known.unwrap_or_else(|| self.analyse(&job));
            job.end(facts);
        }
    }

    fn analyse(&mut self, job: &Job) -> Arc<Facts> {
        for death in 1..=DEATHS_MAX {
            if Instant::now() >= job.due {
                // The queue took its time, or the processes before: no reason to end this one.
                return Arc::new(Facts::unknown(Opaque::Timeout));
            }
            let Some(child) = self.child() else { return Arc::new(Facts::unknown(Opaque::Failed)) };
            match child.ask(&job.question, job.due) {
                Ok((facts, holds)) => {
                    let facts = Arc::new(facts);
                    self.shared.cache.put(job.keys.of_what(holds), Arc::clone(&facts));
                    return facts;
                }
                Err(error @ Unanswered::Late) => {
                    tracing::warn!(%error, "a statement is opaque");
                    self.child = None;
                    return Arc::new(Facts::unknown(Opaque::Timeout));
                }
                Err(error) => {
                    tracing::warn!(%error, death, "an analysing process is lost");
                    self.child = None;
                }
            }
        }
        // Not again: each time costs processes.
        let facts = Arc::new(Facts::unknown(Opaque::Failed));
        self.shared.cache.put(job.keys.text, Arc::clone(&facts));
        facts
    }

    /// A process that runs, or `None` if none can be started, or too many were.
    fn child(&mut self) -> Option<&mut Child> {
        if self.child.as_mut().is_some_and(|child| !child.runs()) {
            self.child = None;
        }
        if self.child.is_none() {
            let now = Instant::now();
            while self.starts.front().is_some_and(|start| now.duration_since(*start) > STARTS_WINDOW) {
                self.starts.pop_front();
            }
            if self.starts.len() >= STARTS_MAX {
                return None;
            }
            self.starts.push_back(now);
            match Child::start(&self.shared.config.command) {
                Ok(child) => self.child = Some(child),
                Err(error) => tracing::error!(
                    %error,
                    "an analysing process cannot be started: statements are opaque until it can"
                ),
            }
        }
        self.child.as_mut()
    }
}
