//! `onrecord verify`: three verdicts on a record, never one, wherever the record is.

mod source;
mod state;
mod verdicts;

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::time::Instant;

use clap::Args;
use ledger::audit::{Audit, Scope, read_published};
use ledger::{Checkpoint, SignedNote, TlogProof, VerifierKey, WitnessPolicy};
use store::Published;

pub use verdicts::{Demand, KeyFrom, Verdicts, Witnessed};

use self::source::{Directory, Fetch, Http, S3, Source};
use self::state::State;
use super::Context;
use super::evidence::read_bundle;
use crate::output::Console;
use crate::{Exit, Failure};

/// Between two signs of progress, in entries.
const PROGRESS_ENTRIES: u64 = 20_000;
/// A file named on the command line is at most this long, in bytes.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Arguments of `verify`.
#[derive(Debug, Args)]
pub struct Verify {
    /// A data directory, an evidence bundle, a published log (a directory, http://, https:// or s3://bucket/prefix)
    /// [default: the configuration's data directory]
    source: Option<String>,
    /// The log's public key, or a file that has it, from a copy kept elsewhere
    /// [default: a data directory's own]
    #[arg(long, value_name = "KEY")]
    vkey: Option<String>,
    /// A C2SP tlog-policy file of one's own: which witnesses must have cosigned
    #[arg(long, value_name = "FILE")]
    policy: Option<PathBuf>,
    /// A checkpoint or receipt of this log that was kept elsewhere: the log must continue it (may be repeated)
    #[arg(long, value_name = "FILE")]
    checkpoint: Vec<PathBuf>,
    /// Go on from where an earlier verification of this log stopped, and keep here how far this one came
    #[arg(long, value_name = "FILE")]
    state: Option<PathBuf>,
    /// End with 6 also when something could not be looked at: long texts that are not at hand, entries that are not
    /// signed yet, a key that is not from elsewhere
    #[arg(long)]
    strict: bool,
}

/// What verification is given besides the record.
#[derive(Default)]
struct Given {
    vkey: Option<VerifierKey>,
    policy: Option<WitnessPolicy>,
    kept: Vec<String>,
    state: Option<State>,
    demand: Demand,
}

impl Verify {
    /// Does it. Ends with the exit code of the worst verdict.
    pub fn run(self, context: &mut Context) -> Result<(), Failure> {
        let given = Given {
            vkey: self.vkey.as_deref().map(read_key).transpose()?,
            policy: self.policy.as_deref().map(read_policy).transpose()?,
            kept: self.checkpoint.iter().map(|file| read_kept(file)).collect::<Result<_, _>>()?,
            state: self.state.map(State::new),
            demand: if self.strict { Demand::Everything } else { Demand::NothingWrong },
        };
        let source = match self.source {
            Some(source) => Source::parse(&source)?,
            None => Source::Data(context.load()?.gateway.data),
        };
        let verdicts = match &source {
            Source::Data(data) => data_directory(data, &given, &mut Progress::new())?,
            Source::Bundle(file) => bundle(file, &given)?,
            Source::Tiles(dir) => published(&Directory(dir.clone()), &given)?,
            Source::Http(prefix) => published(&Http::new(prefix), &given)?,
            Source::S3 { bucket, prefix } => published(&S3::new(bucket, prefix)?, &given)?,
        };
        verdicts.print(&mut context.console, 0)?;
        match verdicts.exit() {
            Exit::Ok => Ok(()),
            exit => Err(Failure::said(exit)),
        }
    }
}

/// Verifies the record in a data directory with its own key, prints the verdicts, and says which exit code they are.
pub fn print(console: &mut Console, data: &Path, indent: usize) -> Result<Exit, Failure> {
    let verdicts = data_directory(data, &Given::default(), &mut Progress::new())?;
    verdicts.print(console, indent)?;
    Ok(verdicts.exit())
}

/// The verdict on a data directory in one line.
pub fn briefly(data: &Path) -> Result<(Exit, String), Failure> {
    let verdicts = data_directory(data, &Given::default(), &mut Progress::silent())?;
    Ok((verdicts.exit(), verdicts.briefly()))
}

fn data_directory(data: &Path, given: &Given, progress: &mut Progress) -> Result<Verdicts, Failure> {
    let failed = |error: store::StoreError| {
        Failure::new(format_args!("cannot verify the record in {}: {error}", data.display()))
    };
    let disk = std::sync::Arc::new(store::RealDisk::new(data));
    let key = match &given.vkey {
        Some(key) => key.clone(),
        None => store::Reader::on(disk.clone()).map_err(failed)?.vkey().clone(),
    };
    check_policy(given, &key)?;
    let mut expected = kept_checkpoints(given, &key)?;
    // A cosigned checkpoint counts only if it is one of this very log.
    let cosigned = match (&given.policy, Published::open_dir(data).cosigned().map_err(failed)?) {
        (Some(_), Some(note)) => Some(open(&note, &key)?),
        _ => None,
    };
    expected.extend(cosigned.iter().map(|(checkpoint, _)| checkpoint.clone()));
    let put_aside = given.state.as_ref().map(|state| state.load(&key)).transpose()?.flatten();
    let mut seen = |audit: &Audit| {
        progress.at(audit.entries(), None);
        given.state.iter().for_each(|state| state.save_now_and_then(audit));
    };
    let verified = store::verify_from(disk, given.vkey.as_ref(), &expected, put_aside, &mut seen);
    progress.end();
    let verified = verified.map_err(failed)?;
    if let (Some(state), Some(saved)) = (&given.state, &verified.saved) {
        state.save(saved)?;
    }
    let key = if given.vkey.is_some() { KeyFrom::Elsewhere } else { KeyFrom::Record };
    let witnessed = witnessed(given, cosigned);
    Ok(Verdicts { report: verified.report, witnessed, key, demand: given.demand, bundle: None })
}

fn published(log: &dyn Fetch, given: &Given) -> Result<Verdicts, Failure> {
    let Some(key) = &given.vkey else {
        return Err(Failure::usage("a published log is verified with a key from elsewhere: --vkey KEY")
            .hint("it is the file `vkey` of the data directory, or the line that `onrecord init` printed"));
    };
    check_policy(given, key)?;
    let missing = || Failure::not_found("there is no `checkpoint` there, so no published log");
    // The checkpoint comes first: the log may grow while it is read.
    let note = log.text("checkpoint")?.ok_or_else(missing)?;
    let mut audit = Audit::new(Scope::Whole, key);
    let size = match Checkpoint::open(&note, key) {
        Ok(checkpoint) => {
            let size = checkpoint.size;
            audit.expect(checkpoint);
            size
        }
        Err(error) => {
            audit.violate_file("checkpoint", error.to_string());
            0
        }
    };
    let kept = kept_checkpoints(given, key)?;
    kept.into_iter().for_each(|checkpoint| audit.expect(checkpoint));
    let mut cosigned = SignedNote::parse(&note).ok().and_then(|_| open(&note, key).ok());
    if given.policy.is_some()
        && let Some(note) = log.text("cosigned")?
        && cosigned.as_ref().is_none_or(|(_, note)| note.signatures().len() < 2)
    {
        let older = open(&note, key)?;
        if older.0.size <= size {
            audit.expect(older.0.clone());
            cosigned = Some(older);
        }
    }
    if let Some(put_aside) = given.state.as_ref().map(|state| state.load(key)).transpose()?.flatten() {
        audit = audit.or_from(put_aside);
    }
    let mut progress = Progress::new();
    let seen = |audit: &Audit| {
        progress.at(audit.entries(), Some(size));
        given.state.iter().for_each(|state| state.save_now_and_then(audit));
    };
    let read = read_published(&mut audit, size, |tile| log.tile(tile), seen);
    progress.end();
    if let (Some(state), Some(saved)) = (&given.state, audit.saved_at_signed()) {
        state.save(saved)?;
    }
    read?;
    let witnessed = witnessed(given, cosigned);
    let (report, key, demand) = (audit.finish(None), KeyFrom::Elsewhere, given.demand);
    Ok(Verdicts { report, witnessed, key, demand, bundle: None })
}

fn bundle(file: &Path, given: &Given) -> Result<Verdicts, Failure> {
    if given.state.is_some() {
        return Err(Failure::usage("--state is for a log that grows; a bundle is read as a whole"));
    }
    let trust = evidence::Trust { key: given.vkey.clone(), policy: given.policy.clone() };
    let mut bundle = evidence::verify(&read_bundle(file)?, &trust);
    if let Some(key) = &given.vkey {
        for kept in kept_checkpoints(given, key)? {
            same_size(&mut bundle, &kept)?;
        }
    } else if !given.kept.is_empty() {
        return Err(Failure::usage("--checkpoint needs --vkey, the key that signed it"));
    }
    let size = bundle.audit.integrity.signed;
    let witnessed = bundle.witnessed.clone().map(|(evaluation, _)| Witnessed { size, evaluation });
    let key = if given.vkey.is_some() { KeyFrom::Elsewhere } else { KeyFrom::Record };
    let (report, demand) = (bundle.audit.clone(), given.demand);
    Ok(Verdicts { report, witnessed, key, demand, bundle: Some(bundle) })
}

/// A bundle has one checkpoint: only a kept one of the same size says something about it.
fn same_size(bundle: &mut evidence::Report, kept: &Checkpoint) -> Result<(), Failure> {
    let integrity = &mut bundle.audit.integrity;
    match integrity.signed {
        Some(size) if size == kept.size => {
            if kept.root != integrity.root && integrity.violation.is_none() {
                integrity.violation = Some(store::Violation {
                    index: None,
                    command: None,
                    file: "checkpoint".to_owned(),
                    offset: 0,
                    what: format!("the log that you kept a checkpoint of had another root at {size} entries"),
                });
            }
            Ok(())
        }
        _ => Err(Failure::usage(format_args!(
            "--checkpoint: the bundle is about a log of {} entries, the checkpoint about one of {}",
            integrity.signed.unwrap_or(0),
            kept.size
        ))
        .hint("verify the published log itself against it: it has what is between the two")),
    }
}

/// The checkpoint of a note that the key has signed.
fn open(note: &str, key: &VerifierKey) -> Result<(Checkpoint, SignedNote), Failure> {
    let checkpoint = Checkpoint::open(note, key).map_err(Failure::new)?;
    Ok((checkpoint, SignedNote::parse(note).map_err(Failure::new)?))
}

/// A policy that names logs accepts no other.
fn check_policy(given: &Given, key: &VerifierKey) -> Result<(), Failure> {
    match &given.policy {
        Some(policy) if !policy.accepts(key) => Err(Failure::usage("--policy: no line `log` has the key of this log")
            .hint(format_args!("if you trust this log, add the line: log {key}"))),
        _ => Ok(()),
    }
}

fn witnessed(given: &Given, cosigned: Option<(Checkpoint, SignedNote)>) -> Option<Witnessed> {
    let policy = given.policy.as_ref()?;
    Some(match cosigned {
        Some((checkpoint, note)) => Witnessed { size: Some(checkpoint.size), evaluation: policy.evaluate(&note) },
        None => Witnessed { size: None, evaluation: policy.evaluate_nothing() },
    })
}

fn kept_checkpoints(given: &Given, key: &VerifierKey) -> Result<Vec<Checkpoint>, Failure> {
    let open = |note: &String| {
        Checkpoint::open(note, key).map_err(|error| Failure::usage(format_args!("--checkpoint: {error}")))
    };
    given.kept.iter().map(open).collect()
}

/// A key, or the file that it is in.
pub(super) fn read_key(key: &str) -> Result<VerifierKey, Failure> {
    let text = match key.parse() {
        Ok(key) => return Ok(key),
        Err(_) => read_file(Path::new(key), "--vkey")?,
    };
    text.trim().parse().map_err(|error| {
        Failure::usage(format_args!("--vkey: {key}: {error}"))
            .hint("it is the file `vkey` of the data directory, or the line that `onrecord init` printed")
    })
}

fn read_policy(file: &Path) -> Result<WitnessPolicy, Failure> {
    let text = read_file(file, "--policy")?;
    text.parse().map_err(|error| Failure::usage(format_args!("--policy: {}: {error}", file.display())))
}

/// A checkpoint by itself, or the one in a proof.
fn read_kept(file: &Path) -> Result<String, Failure> {
    let text = read_file(file, "--checkpoint")?;
    Ok(text.parse::<TlogProof>().map_or(text, |proof| proof.checkpoint))
}

fn read_file(file: &Path, argument: &str) -> Result<String, Failure> {
    let failed = |what: &dyn std::fmt::Display| Failure::usage(format_args!("{argument}: {}: {what}", file.display()));
    match std::fs::metadata(file) {
        Ok(found) if found.len() > FILE_BYTES_MAX => return Err(failed(&"it is too long")),
        _ => {}
    }
    std::fs::read_to_string(file).map_err(|error| failed(&error))
}

/// Long work shows that it goes on, to somebody who looks.
struct Progress {
    watched: bool,
    began: Instant,
    next: u64,
}

impl Progress {
    fn new() -> Self {
        Self { watched: std::io::stderr().is_terminal(), ..Self::silent() }
    }

    fn silent() -> Self {
        Self { watched: false, began: Instant::now(), next: PROGRESS_ENTRIES }
    }

    fn at(&mut self, entries: u64, of: Option<u64>) {
        if !self.watched || entries < self.next {
            return;
        }
        self.next = entries + PROGRESS_ENTRIES;
        let per_second = entries * 1000 / u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX).max(1);
        let part = of.filter(|of| *of > 0).map(|of| format!(" ({} %)", entries.saturating_mul(100) / of));
        let part = part.unwrap_or_default();
        let _ = write!(std::io::stderr(), "\r{entries} entries verified{part}, {per_second} a second \x1b[K");
    }

    fn end(&self) {
        if self.watched && self.next > PROGRESS_ENTRIES {
            let _ = write!(std::io::stderr(), "\r\x1b[K");
        }
    }
}
