//! A witness: what it knows of each log, kept so that it can never cosign two pasts.
//!
//! Each log has one file, `logs/<sha256 of the origin>`, with its key and the last note that was cosigned. It is replaced
//! whole and made durable before a cosignature leaves. The directory is locked by the one process that serves it.
//!
//! Not for: HTTP (see `witness_site`), or the rules of what may be cosigned (see `ledger::consider`).
//!
//! Invariants: a cosignature leaves only after its checkpoint is durable; what was once cosigned is never forgotten while
//! its file is there; a file that cannot be read stops that log, it never begins anew.

use std::any::Any;
use std::collections::HashMap;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use ledger::{
    AddCheckpoint, Checkpoint, CosignerKey, Known, NOTE_BYTES_MAX, NoteError, Refusal, SignatureLine, SignedNote,
    VerifierKey, consider,
};
use sha2::{Digest as _, Sha256};
use store::{Disk, RealDisk, read_file, replace_file};
use zeroize::Zeroizing;

use crate::lock;

const LOCK: &str = "LOCK";
/// Taken by those who add a log, also while the witness is served.
const ADD_LOCK: &str = "LOCK.add";
const KEY: &str = "key";
const VKEY: &str = "vkey";
const LOGS: &str = "logs";
const HEAD: &str = "onrecord/v1 witnessed-log\n";
/// A file of a log: its key and a note.
const LOG_BYTES_MAX: u64 = 128 * 1024;
const KEY_BYTES_MAX: u64 = 4096;
/// A witness knows at most so many logs.
const LOGS_MAX: usize = 10_000;
/// How many cosignatures one log gets at once, after a pause, and how often another.
const BURST: u32 = 30;
const REFILL: Duration = Duration::from_millis(200);

/// A witness. Its directory is locked as long as this lives.
pub struct Witness {
    disk: Arc<dyn Disk>,
    key: CosignerKey,
    logs: Mutex<HashMap<String, Arc<Mutex<Log>>>>,
    _lock: Box<dyn Any + Send + Sync>,
}

/// What a witness knows of one log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogState {
    /// The log's key; its name is the origin.
    pub key: VerifierKey,
    /// The last note that was cosigned, with the cosignature; none if there was none yet.
    pub note: Option<SignedNote>,
}

struct Log {
    state: LogState,
    known: Option<Known>,
    allowance: Allowance,
}

/// How many more cosignatures a log may have at the moment.
struct Allowance {
    left: u32,
    since: Instant,
}

/// Why a witness does not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum WitnessError {
    /// By the rules.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The log asks more often than it may.
    #[error("this log asks too often: at most one checkpoint in {} ms", REFILL.as_millis())]
    TooOften,
    /// The disk refused. Nothing was cosigned.
    #[error("{what}: {source}")]
    Disk {
        /// What was tried.
        what: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// Another process serves this witness.
    #[error("another process has this witness's directory open; one process serves one witness")]
    Locked,
    /// There is a witness already.
    #[error("there is a witness in this directory already; its key is never overwritten")]
    Exists,
    /// There is no witness here.
    #[error("there is no witness in this directory; `onrecord witness init` makes one")]
    NoWitness,
    /// A log of this name is known by another key.
    #[error("a log named {0} is known already, by another key: a witness never exchanges a log's key")]
    OtherKey(String),
    /// There are too many logs.
    #[error("this witness knows {LOGS_MAX} logs, and no more fit")]
    TooMany,
    /// A file is damaged.
    #[error("{file}: {what}. A witness that has forgotten must not go on: restore the file")]
    Damaged {
        /// The file.
        file: String,
        /// What is wrong with it.
        what: String,
    },
    /// A name or a key.
    #[error(transparent)]
    Key(#[from] NoteError),
}

/// The name of a log's file, and of its place over HTTP: the SHA-256 of its origin, in hexadecimal.
#[must_use]
pub fn origin_name(origin: &str) -> String {
    model::Digest(Sha256::digest(origin).into()).hex()
}

impl Witness {
    /// Makes a witness in a directory: its key, of which it gives the public part.
    ///
    /// # Errors
    /// There is one already, the name cannot be one, or the disk refused.
    pub fn init(dir: &Path, name: &str) -> Result<String, WitnessError> {
        Self::init_on(&RealDisk::new(dir), name)
    }

    /// As [`Witness::init`], on any disk.
    ///
    /// # Errors
    /// As [`Witness::init`].
    pub fn init_on(disk: &dyn Disk, name: &str) -> Result<String, WitnessError> {
        let mut seed = Zeroizing::new([0; 32]);
        let failed = |error: getrandom::Error| io::Error::other(error.to_string());
        getrandom::fill(&mut *seed).map_err(failed).map_err(fault("making a key"))?;
        let key = CosignerKey::new(name, &seed)?;
        disk.create_dir(LOGS).map_err(fault("making the directory"))?;
        let _lock = take(disk, LOCK)?;
        // With the public key the witness exists: what a broken attempt left is made again.
        match read_file(disk, VKEY, KEY_BYTES_MAX) {
            Ok(_) => return Err(WitnessError::Exists),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(fault("reading vkey")(error)),
        }
        let text = Zeroizing::new(format!("{}\n", key.to_text()));
        replace_file(disk, "", KEY, text.as_bytes()).map_err(fault("writing the key"))?;
        let vkey = key.verifier().to_string();
        replace_file(disk, "", VKEY, format!("{vkey}\n").as_bytes()).map_err(fault("writing vkey"))?;
        Ok(vkey)
    }

    /// Lets a witness know a log, also while it is served. A log that it knows by this key already stays as it is.
    ///
    /// # Errors
    /// There is no witness, it knows the log by another key, or the disk refused.
    pub fn add_log(dir: &Path, key: &VerifierKey) -> Result<(), WitnessError> {
        Self::add_log_on(&RealDisk::new(dir), key)
    }

    /// As [`Witness::add_log`], on any disk.
    ///
    /// # Errors
    /// As [`Witness::add_log`].
    pub fn add_log_on(disk: &dyn Disk, key: &VerifierKey) -> Result<(), WitnessError> {
        if disk.open(VKEY, store::Mode::Read).is_err() {
            return Err(WitnessError::NoWitness);
        }
        let _lock = take(disk, ADD_LOCK)?;
        let name = origin_name(key.name());
        match read_log(disk, &name)? {
            Some(state) if state.key == *key => return Ok(()),
            Some(_) => return Err(WitnessError::OtherKey(key.name().to_owned())),
            None => {}
        }
        if disk.list(LOGS).map_err(fault("reading logs"))?.len() >= LOGS_MAX {
            return Err(WitnessError::TooMany);
        }
        write_log(disk, &name, &LogState { key: key.clone(), note: None }).map_err(fault("writing the log's file"))
    }

    /// Opens a witness, to serve it.
    ///
    /// # Errors
    /// Another process has it, there is none, or something of it cannot be read.
    pub fn open(dir: &Path) -> Result<Self, WitnessError> {
        Self::open_on(Arc::new(RealDisk::new(dir)))
    }

    /// As [`Witness::open`], on any disk.
    ///
    /// # Errors
    /// As [`Witness::open`].
    pub fn open_on(disk: Arc<dyn Disk>) -> Result<Self, WitnessError> {
        let text = match read_file(&*disk, KEY, KEY_BYTES_MAX) {
            Ok(text) => Zeroizing::new(text),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(WitnessError::NoWitness),
            Err(error) => return Err(fault("reading the key")(error)),
        };
        let text = std::str::from_utf8(&text).map_err(|_| NoteError::SigningKey)?;
        let key = CosignerKey::from_text(text)?;
        let lock = take(&*disk, LOCK)?;
        let witness = Self { disk, key, logs: Mutex::default(), _lock: lock };
        // All are read now: a damaged one is found by whoever starts the witness, not by its log.
        for name in witness.disk.list(LOGS).map_err(fault("reading logs"))? {
            if is_name(&name) {
                witness.log(&name)?;
            }
        }
        Ok(witness)
    }

    /// The witness's public key.
    #[must_use]
    pub fn vkey(&self) -> String {
        self.key.verifier().to_string()
    }

    /// The logs that it knows.
    #[must_use]
    pub fn states(&self) -> Vec<LogState> {
        let logs: Vec<_> = lock(&self.logs).values().cloned().collect();
        let mut states: Vec<_> = logs.iter().map(|log| lock(log).state.clone()).collect();
        states.sort_by(|one, other| one.key.name().cmp(other.key.name()));
        states
    }

    /// Answers a request to cosign, at this time: a cosignature, if the checkpoint continues what was cosigned. It is
    /// durable when this returns.
    ///
    /// # Errors
    /// By the rules, or because the disk refused.
    pub fn add_checkpoint(&self, body: &str, unix_seconds: u64) -> Result<SignatureLine, WitnessError> {
        let request: AddCheckpoint = body.parse().map_err(|_| Refusal::Malformed)?;
        let name = origin_name(request.origin());
        let Some(log) = self.log(&name)? else { return Err(Refusal::UnknownLog.into()) };
        // Held until the new state is durable: no two requests for one log run at a time.
        let mut log = lock(&log);
        let (known, note) = consider(log.known.as_ref(), &request, &log.state.key)?;
        if !log.allowance.take(Instant::now()) {
            return Err(WitnessError::TooOften);
        }
        let line = self.key.cosign(note.text(), unix_seconds)?;
        // Signatures of others are not kept: they could crowd out ours.
        let by_log = |by: &&SignatureLine| by.name == log.state.key.name() && by.id == log.state.key.id();
        let signed = note.signatures().iter().find(by_log).ok_or(Refusal::NotSigned)?;
        let note = SignedNote::parse(&format!("{}\n{signed}\n{line}\n", note.text()))?;
        let state = LogState { key: log.state.key.clone(), note: Some(note) };
        // Whether the write succeeds or not, what was considered last is never unlearnt by this process: if the disk
        // failed half-way, nothing else of this size is cosigned.
        log.known = Some(known);
        write_log(&*self.disk, &name, &state).map_err(fault("writing the log's file"))?;
        log.state = state;
        Ok(line)
    }

    /// The last note that was cosigned of the log whose origin has this SHA-256, in hexadecimal.
    ///
    /// # Errors
    /// Its file cannot be read.
    pub fn latest(&self, name: &str) -> Result<Option<SignedNote>, WitnessError> {
        if !is_name(name) {
            return Ok(None);
        }
        Ok(self.log(name)?.and_then(|log| lock(&log).state.note.clone()))
    }

    /// A log that is known, also if it was added a moment ago.
    fn log(&self, name: &str) -> Result<Option<Arc<Mutex<Log>>>, WitnessError> {
        // Held while the file is read, so that one log never has two states.
        let mut logs = lock(&self.logs);
        if let Some(log) = logs.get(name) {
            return Ok(Some(log.clone()));
        }
        if logs.len() >= LOGS_MAX {
            return Ok(None);
        }
        let Some(state) = read_log(&*self.disk, name)? else { return Ok(None) };
        let damaged = |what: String| WitnessError::Damaged { file: format!("{LOGS}/{name}"), what };
        let known = match &state.note {
            None => None,
            Some(note) => {
                self.key.verifier().verify(note).map_err(|error| damaged(error.to_string()))?;
                let checkpoint = Checkpoint::open(&note.to_string(), &state.key);
                let Checkpoint { size, root, .. } = checkpoint.map_err(|error| damaged(error.to_string()))?;
                Some(Known { size, root })
            }
        };
        let allowance = Allowance { left: BURST, since: Instant::now() };
        let log = Arc::new(Mutex::new(Log { state, known, allowance }));
        logs.insert(name.to_owned(), log.clone());
        Ok(Some(log))
    }
}

impl Allowance {
    /// Takes one, if there is one.
    fn take(&mut self, now: Instant) -> bool {
        while self.left < BURST && now.saturating_duration_since(self.since) >= REFILL {
            self.left += 1;
            self.since += REFILL;
        }
        if self.left == BURST {
            self.since = now;
        }
        let some = self.left > 0;
        self.left = self.left.saturating_sub(1);
        some
    }
}

fn is_name(name: &str) -> bool {
    name.len() == 64 && name.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

fn take(disk: &dyn Disk, name: &str) -> Result<Box<dyn Any + Send + Sync>, WitnessError> {
    disk.lock(name).map_err(|error| match error.kind() {
        io::ErrorKind::WouldBlock => WitnessError::Locked,
        _ => fault("locking the directory")(error),
    })
}

fn fault(what: &'static str) -> impl FnOnce(io::Error) -> WitnessError {
    move |source| WitnessError::Disk { what: what.to_owned(), source }
}

fn write_log(disk: &dyn Disk, name: &str, state: &LogState) -> io::Result<()> {
    let note = state.note.as_ref().map_or_else(String::new, ToString::to_string);
    replace_file(disk, LOGS, name, format!("{HEAD}{}\n{note}", state.key).as_bytes())
}

fn read_log(disk: &dyn Disk, name: &str) -> Result<Option<LogState>, WitnessError> {
    let file = format!("{LOGS}/{name}");
    let bytes = match read_file(disk, &file, LOG_BYTES_MAX) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(WitnessError::Disk { what: format!("reading {file}"), source }),
    };
    let state = parse_log(&bytes).filter(|state| origin_name(state.key.name()) == name);
    let what = "it is not the file of a log, or of another one".to_owned();
    state.map(Some).ok_or(WitnessError::Damaged { file, what })
}

pub(crate) fn parse_log(bytes: &[u8]) -> Option<LogState> {
    let rest = std::str::from_utf8(bytes).ok()?.strip_prefix(HEAD)?;
    let (key, note) = rest.split_once('\n')?;
    let key: VerifierKey = key.parse().ok()?;
    if note.len() > NOTE_BYTES_MAX {
        return None;
    }
    let note = if note.is_empty() { None } else { Some(SignedNote::parse(note).ok()?) };
    Some(LogState { key, note })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_allowance_refills_up_to_the_burst() {
        let start = Instant::now();
        let mut allowance = Allowance { left: BURST, since: start };
        for _ in 0..BURST {
            assert!(allowance.take(start));
        }
        assert!(!allowance.take(start));
        assert!(!allowance.take(start + REFILL / 2));
        assert!(allowance.take(start + REFILL));
        assert!(!allowance.take(start + REFILL));
        let later = start + Duration::from_secs(3600);
        for _ in 0..BURST {
            assert!(allowance.take(later));
        }
        assert!(!allowance.take(later));
    }
}
