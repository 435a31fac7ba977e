//! Asks the witnesses to cosign what the log has signed.
//!
//! One thread follows the published checkpoints; at most once an interval it asks all witnesses that are due, at the same
//! time, each within a bounded time. What they answer is believed only as far as their keys prove it. A witness that
//! refuses may lie; one that shows this log's own signature on another past does not: see [`Contradiction`].
//!
//! Not for: a command's path. When no witness answers, recording goes on, and the record says who is behind.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use ledger::{
    ADD_CHECKPOINT_BYTES_MAX, AddCheckpoint, PolicyWitness, Quorum, SignatureLine, SignedNote, VerifierKey,
    WitnessPolicy, prove_consistency,
};
use model::Witnesses;
use store::{GatewayEntry, Recorder};

use crate::looking::{Contradiction, Look, Ours};
use crate::standing::{Account, Notices, Outcome};
use crate::{lock, tiles};
use fetch::{Client, FetchError};

/// At the latest after so long, an entry says how far the witnesses are.
const NOTICE_INTERVAL: Duration = Duration::from_secs(60);
/// How long the thread waits before it looks whether it is to stop.
const WAIT: Duration = Duration::from_millis(200);
/// Requests to one witness for one checkpoint: once to learn its size, once to be cosigned, once more for a race.
const REQUESTS_MAX: usize = 3;
/// A witness's answer is at most this long, in bytes.
const ANSWER_BYTES_MAX: u64 = 16 * 1024;
/// Signature lines that are looked at in an answer.
const LINES_MAX: usize = 16;

/// Whom to ask, and how often.
#[derive(Clone, Debug)]
pub struct Asking {
    /// The witnesses, and how many are enough.
    pub policy: WitnessPolicy,
    /// At most once in this time.
    pub interval: Duration,
    /// How long one request may take.
    pub timeout: Duration,
}

/// The thread that asks. It ends when this is dropped.
pub struct Asker {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    quit: AtomicBool,
    contradiction: Mutex<Option<Contradiction>>,
}

impl Asker {
    /// Begins to ask.
    ///
    /// # Errors
    /// There can be no thread.
    pub fn start(recorder: Recorder, key: VerifierKey, asking: Asking) -> std::io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let mut work = Work::new(recorder, key, asking, shared.clone());
        let thread = std::thread::Builder::new().name("publish-asker".to_owned()).spawn(move || work.run())?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// Tells it to end, and does not wait: what is being asked is asked to the end.
    pub fn quit(&self) {
        self.shared.quit.store(true, Ordering::SeqCst);
    }

    /// The proof that the log must not go on, if a witness has shown one.
    #[must_use]
    pub fn contradiction(&self) -> Option<Contradiction> {
        lock(&self.shared.contradiction).clone()
    }
}

impl Drop for Asker {
    fn drop(&mut self) {
        self.shared.quit.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

struct Work {
    recorder: Recorder,
    key: VerifierKey,
    asking: Asking,
    client: Client,
    shared: Arc<Shared>,
    accounts: Vec<Account>,
    /// What each witness cosigned last, as it said: where the next proof begins.
    sizes: HashMap<usize, u64>,
    notices: Notices,
    enough: Option<u64>,
}

/// What came of asking one witness.
enum Asked {
    Cosigned(Vec<SignatureLine>),
    Refused(String),
    Silent(String),
}

impl Work {
    fn new(recorder: Recorder, key: VerifierKey, asking: Asking, shared: Arc<Shared>) -> Self {
        let client = Client::of_system(asking.timeout);
        let accounts = asking.policy.witnesses().iter().map(|witness| Account::new(witness.verifier.name().to_owned()));
        let accounts = accounts.collect();
        let (sizes, notices) = (HashMap::new(), Notices::default());
        Self { recorder, key, asking, client, shared, accounts, sizes, notices, enough: None }
    }

    fn run(&mut self) {
        let (mut seen, mut next) = (0, Instant::now());
        while !self.shared.quit.load(Ordering::SeqCst) {
            let Some((size, note)) = self.recorder.wait_checkpoint(seen, WAIT) else { continue };
            if Instant::now() < next {
                std::thread::sleep(WAIT.min(next.saturating_duration_since(Instant::now())));
                continue;
            }
            next = Instant::now() + self.asking.interval;
            seen = size;
            match SignedNote::parse(&note) {
                Ok(note) => self.round(size, note),
                Err(error) => tracing::error!("the log's own checkpoint cannot be read: {error}"),
            }
        }
    }

    /// Asks everybody who is due for this checkpoint.
    fn round(&mut self, size: u64, mut note: SignedNote) {
        let now = Instant::now();
        let due: Vec<usize> = (0..).zip(&self.accounts).filter(|(_, a)| a.is_due(now)).map(|(at, _)| at).collect();
        let (asked, late): (Vec<_>, Vec<_>) = (0..self.accounts.len()).partition(|at| due.contains(at));
        for at in late {
            if let Some(account) = self.accounts.get_mut(at) {
                account.lag();
            }
        }
        let answers: Vec<(usize, Option<u64>, Asked)> = std::thread::scope(|scope| {
            let threads: Vec<_> = asked
                .into_iter()
                .filter_map(|at| Some((at, self.asking.policy.witnesses().get(at)?)))
                .map(|(at, witness)| {
                    let (this, note) = (&*self, &note);
                    let known = self.sizes.get(&at).copied();
                    (at, scope.spawn(move || this.ask(witness, known, size, note)))
                })
                .collect();
            let panicked = || (None, Asked::Silent("internal error".to_owned()));
            let joined = threads.into_iter().map(|(at, thread)| (at, thread.join().unwrap_or_else(|_| panicked())));
            joined.map(|(at, (known, asked))| (at, known, asked)).collect()
        });
        let mut cosigned = false;
        for (at, known, asked) in answers {
            match known {
                Some(known) => self.sizes.insert(at, known),
                None => self.sizes.remove(&at),
            };
            cosigned |= matches!(asked, Asked::Cosigned(_));
            self.take_in(at, asked, size, &mut note);
        }
        if cosigned && let Err(error) = self.recorder.cosigned(&note) {
            tracing::warn!("cosignatures could not be kept: {error}");
        }
        match self.asking.policy.evaluate(&note).quorum {
            Quorum::Reached | Quorum::NoneRequired => self.enough = Some(size),
            Quorum::NotReached => {}
        }
        self.notice(size);
    }

    fn take_in(&mut self, at: usize, asked: Asked, size: u64, note: &mut SignedNote) {
        let (Some(account), Some(witness)) = (self.accounts.get_mut(at), self.asking.policy.witnesses().get(at)) else {
            return;
        };
        let before = account.standing().state;
        let (outcome, why) = match asked {
            Asked::Cosigned(lines) => {
                lines.into_iter().for_each(|line| note.add(line));
                (Outcome::Cosigned, None)
            }
            Asked::Refused(why) => (Outcome::Refused, Some(why)),
            Asked::Silent(why) => (Outcome::Silent, Some(why)),
        };
        account.answered(outcome, size, Instant::now());
        let after = account.standing().state;
        match why {
            Some(why) if before != after => tracing::warn!("witness {}: {after}: {why}", witness.name),
            Some(why) => tracing::debug!("witness {}: {after}: {why}", witness.name),
            None if before != after => tracing::info!("witness {}: {after}", witness.name),
            None => {}
        }
    }

    fn notice(&mut self, size: u64) {
        let standings = self.accounts.iter().map(Account::standing).collect();
        let entry = Witnesses { size, enough: self.enough, witnesses: standings };
        if self.notices.is_due(&entry, Instant::now(), NOTICE_INTERVAL)
            && let Err(error) = self.recorder.note(GatewayEntry::Witnesses(entry))
        {
            tracing::debug!("how far the witnesses are could not be recorded: {error}");
        }
    }

    /// Asks one witness for this checkpoint. Gives the size that it has cosigned last, as far as is known, and what came
    /// of it.
    fn ask(&self, witness: &PolicyWitness, known: Option<u64>, size: u64, note: &SignedNote) -> (Option<u64>, Asked) {
        let Some(url) = &witness.url else {
            return (known, Asked::Silent("the policy does not say where it is asked".to_owned()));
        };
        let mut old = known.filter(|known| *known <= size).unwrap_or(0);
        for _ in 0..REQUESTS_MAX {
            if self.shared.quit.load(Ordering::SeqCst) {
                return (known, Asked::Silent("the gateway stops".to_owned()));
            }
            match self.request(witness, url, old, size, note) {
                Ok(Reply::Cosigned(lines)) => return (Some(size), Asked::Cosigned(lines)),
                Ok(Reply::Has(other)) if other != old && other < size => old = other,
                // The same size may be another root: that is what the next request asks.
                Ok(Reply::Has(other)) if other == size && old != size => old = other,
                Ok(Reply::Has(other)) => {
                    let said = format!("it has cosigned another checkpoint of {other} entries; ours has {size}");
                    return (Some(other), self.refused(witness, url, said));
                }
                Ok(Reply::Refused(why)) => return (known, self.refused(witness, url, why)),
                Err(error) => return (None, Asked::Silent(error.to_string())),
            }
        }
        (Some(old), Asked::Silent("others hand in checkpoints of this log at the same time".to_owned()))
    }

    /// A refusal that the witness may be able to prove right.
    fn refused(&self, witness: &PolicyWitness, url: &str, why: String) -> Asked {
        let published = self.recorder.published();
        let ours = Ours { key: self.key.clone(), published, signed: 0 };
        if let Look { contradiction: Some(contradiction), .. } = ours.look(&self.client, witness, url) {
            tracing::error!("{contradiction}");
            *lock(&self.shared.contradiction) = Some(contradiction);
        }
        Asked::Refused(why)
    }

    fn request(
        &self,
        witness: &PolicyWitness,
        url: &str,
        old: u64,
        size: u64,
        note: &SignedNote,
    ) -> Result<Reply, AskError> {
        let proof = prove_consistency(&mut tiles::nodes(&self.recorder.published(), size), old, size)?;
        let body = AddCheckpoint { old, proof, checkpoint: note.to_string() }.to_string();
        debug_assert!(body.len() <= ADD_CHECKPOINT_BYTES_MAX, "a proof is short");
        let url = format!("{}/add-checkpoint", url.trim_end_matches('/'));
        let headers = [("content-type", "text/plain; charset=utf-8".to_owned())];
        let reply = self.client.post(&url, &headers, body.as_bytes(), ANSWER_BYTES_MAX)?;
        let of_size = reply.header("content-type") == Some("text/x.tlog.size");
        let text = String::from_utf8(reply.body).map_err(|_| AskError::Garbage("it is not text"))?;
        match reply.status {
            200 => cosignatures(&text, witness, note).map(Reply::Cosigned).map_err(AskError::Garbage),
            409 if of_size => {
                let other = text.trim_end_matches('\n').parse().map_err(|_| AskError::Garbage("it is not a size"))?;
                Ok(Reply::Has(other))
            }
            400 | 403 | 404 | 409 | 422 => {
                let said: String = text.chars().filter(|c| !c.is_control()).take(200).collect();
                Ok(Reply::Refused(format!("status {}: {said}", reply.status)))
            }
            status => Err(AskError::Status(status)),
        }
    }
}

/// The cosignatures of this witness in its answer; those of others are ignored.
fn cosignatures(text: &str, witness: &PolicyWitness, note: &SignedNote) -> Result<Vec<SignatureLine>, &'static str> {
    let verifier = &witness.verifier;
    let mut found = Vec::new();
    for line in text.lines().take(LINES_MAX) {
        let line = SignatureLine::parse(line).map_err(|_| "it is not signature lines")?;
        if line.name != verifier.name() || line.id != verifier.id() {
            continue;
        }
        let mut alone = note.clone();
        alone.add(line.clone());
        verifier.verify(&alone).map_err(|_| "the cosignature is wrong")?;
        found.push(line);
    }
    if found.is_empty() { Err("there is no cosignature by the witness's key") } else { Ok(found) }
}

enum Reply {
    Cosigned(Vec<SignatureLine>),
    /// It has cosigned this size last.
    Has(u64),
    Refused(String),
}

#[derive(Debug, thiserror::Error)]
enum AskError {
    #[error("{0}")]
    Client(#[from] FetchError),
    #[error("its answer is no witness's: {0}")]
    Garbage(&'static str),
    #[error("its answer's status is {0}")]
    Status(u16),
    #[error("no proof could be made: {0}")]
    Proof(#[from] store::StoreError),
}
