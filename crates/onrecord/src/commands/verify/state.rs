//! The file in which `onrecord verify --state` keeps how far it came.
//!
//! It is replaced as a whole, now and then while entries are read and at the end, so that verification can be interrupted
//! at any time. Whoever can write it can make verification skip entries: it belongs to the auditor.

use std::cell::Cell;
use std::fs::OpenOptions;
use std::io::{ErrorKind, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use ledger::VerifierKey;
use ledger::audit::Audit;

use crate::Failure;

/// How often it is written while entries are read.
const EVERY: Duration = Duration::from_secs(5);
/// It is at most this long, in bytes: that of half a million open sessions.
const STATE_BYTES_MAX: u64 = 256 << 20;

pub(super) struct State {
    file: PathBuf,
    last: Cell<Instant>,
}

impl State {
    pub(super) fn new(file: PathBuf) -> Self {
        Self { file, last: Cell::new(Instant::now()) }
    }

    /// The verification that was put aside; none if there is no such file yet.
    pub(super) fn load(&self, key: &VerifierKey) -> Result<Option<Audit>, Failure> {
        let failed = |what: &dyn std::fmt::Display| {
            Failure::usage(format_args!("--state: {}: {what}", self.file.display()))
                .hint("without the file, verification begins at the beginning")
        };
        let file = match OpenOptions::new().read(true).open(&self.file) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            file => file.map_err(|error| failed(&error))?,
        };
        let mut saved = Vec::new();
        file.take(STATE_BYTES_MAX).read_to_end(&mut saved).map_err(|error| failed(&error))?;
        Audit::resume(&saved, key).map(Some).map_err(|error| failed(&error))
    }

    /// Keeps how far the audit came, if it was not kept a moment ago. What cannot be written now is no reason to stop.
    pub(super) fn save_now_and_then(&self, audit: &Audit) {
        // What is not signed yet may still be lost with the power.
        if self.last.get().elapsed() >= EVERY && audit.entries() <= audit.newest_signed() {
            self.last.set(Instant::now());
            if let Some(saved) = audit.save() {
                let _ = self.write(&saved);
            }
        }
    }

    pub(super) fn save(&self, saved: &[u8]) -> Result<(), Failure> {
        self.write(saved).map_err(|error| Failure::new(format_args!("--state: {}: {error}", self.file.display())))
    }

    fn write(&self, saved: &[u8]) -> std::io::Result<()> {
        let mut new = self.file.clone().into_os_string();
        new.push(".new");
        let new = Path::new(&new);
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(new)?;
        file.write_all(saved)?;
        file.sync_all()?;
        std::fs::rename(new, &self.file)
    }
}
