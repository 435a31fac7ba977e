//! `onrecord receipt`: takes out the receipt of a session, or checks one, with nothing but a public key.

use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use ledger::{Checkpoint, Quorum, VerifierKey, WitnessPolicy};
use model::wall_text;
use publish::{Closes, RECEIPT_BYTES_MAX, Receipt, Search, Source};
use serde_json::json;

use super::words::{counted, in_full};
use super::{Context, log_key, source};
use crate::cli::RecordPlace;
use crate::output::{Format, Tone};
use crate::{Exit, Failure};

/// Arguments of `receipt`.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub struct ReceiptCommand {
    /// The session's id, or the end of it
    #[arg(required = true, value_name = "SESSION")]
    session: Option<String>,
    /// Write the receipt to a new file [default: standard output]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    #[command(flatten)]
    place: RecordPlace,
    #[command(subcommand)]
    command: Option<Subject>,
}

#[derive(Debug, Subcommand)]
enum Subject {
    /// Check a receipt, with no need for the log
    Check(Check),
}

#[derive(Debug, Args)]
struct Check {
    /// The receipt
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// The log's public key, or a file that has it: from a copy kept elsewhere
    #[arg(long, value_name = "VKEY")]
    vkey: String,
    /// Also check that enough witnesses have cosigned, by this tlog-policy file
    #[arg(long, value_name = "FILE")]
    policy: Option<PathBuf>,
    /// Also check that this log still has the session: a data directory, or the URL of a published log
    #[arg(long, value_name = "DIR|URL")]
    against: Option<String>,
}

impl ReceiptCommand {
    /// Does it.
    pub fn run(self, context: &mut Context) -> Result<(), Failure> {
        match (self.command, self.session) {
            (Some(Subject::Check(check)), _) => check.run(context),
            (None, Some(session)) => take_out(context, &self.place, &session, self.out.as_deref()),
            (None, None) => Err(Failure::usage("which session?")),
        }
    }
}

fn take_out(context: &mut Context, place: &RecordPlace, id: &str, out: Option<&Path>) -> Result<(), Failure> {
    let data = context.data(place)?;
    let reader = context.reader(place)?;
    let session = source::session(&reader, id)?;
    let receipt = Closes::open_dir(&data, reader.vkey()).receipt(session, Search::All).map_err(source::unreadable)?;
    let receipt = receipt.ok_or_else(|| {
        Failure::not_found(format_args!("there is no receipt of session {session} yet"))
            .hint("a session has one when it has ended, and a checkpoint after that was published")
    })?;
    // Whoever takes it away relies on it.
    receipt.check(reader.vkey()).map_err(|error| {
        Failure::new(format_args!("the published log does not prove session {session}: {error}"))
            .hint("`onrecord verify` says what is wrong with the record")
    })?;
    let text = receipt.to_string();
    match (out, context.console.format()) {
        (Some(file), _) => write_new(file, &text),
        (None, Format::Table) => Ok(context.console.line(text.trim_end_matches('\n'))?),
        (None, Format::Json | Format::Ndjson) => Ok(context.console.json(&json!({
            "session": session.to_string(), "index": receipt.index(), "receipt": text,
        }))?),
    }
}

fn write_new(file: &Path, text: &str) -> Result<(), Failure> {
    let write = || {
        let mut new = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o644).open(file)?;
        new.write_all(text.as_bytes())?;
        new.sync_all()
    };
    write().map_err(|error: std::io::Error| Failure::new(format_args!("cannot write {}: {error}", file.display())))
}

impl Check {
    fn run(self, context: &mut Context) -> Result<(), Failure> {
        let key = log_key(&self.vkey)?;
        let policy = self.policy.as_deref().map(read_policy).transpose()?;
        if policy.as_ref().is_some_and(|policy| !policy.accepts(&key)) {
            return Err(Failure::usage("--policy: no line `log` has the key of this log")
                .hint(format_args!("if you trust this log, add the line: log {key}")));
        }
        let text = read(&self.file)?;
        let checked = text.parse::<Receipt>().and_then(|receipt| Ok((receipt.check(&key)?, receipt)));
        let (signed, receipt) = match checked {
            Ok(checked) => checked,
            Err(error) => return self.refused(context, Exit::Integrity, &error.to_string()),
        };
        let mut said = Said { witnesses: Vec::new(), now: None };
        if let Some(policy) = policy {
            match witnesses(&policy, &receipt) {
                Ok(names) => said.witnesses = names,
                Err(what) => return self.refused(context, Exit::Coverage, &what),
            }
        }
        if let Some(place) = &self.against {
            match Source::of(place).bears_out(&receipt, &signed, &key) {
                Ok(now) => said.now = Some(now),
                Err(error) if error.is_removal() => {
                    return self.refused(context, Exit::Integrity, &error.to_string());
                }
                Err(error) => return Err(Failure::new(format_args!("{place}: {error}"))),
            }
        }
        said.print(context, &key, &receipt, &signed)
    }

    /// Says that it is not proven.
    fn refused(&self, context: &mut Context, exit: Exit, what: &str) -> Result<(), Failure> {
        let console = &mut context.console;
        if console.format() == Format::Table {
            let verdict = console.paint(Tone::Bad, "NOT PROVEN");
            console.line(&format!("{}: {verdict}: {what}", self.file.display()))?;
        } else {
            console.json(&json!({"proven": false, "error": what}))?;
        }
        Err(Failure::said(exit))
    }
}

/// What was found besides the log's own signature.
struct Said {
    witnesses: Vec<String>,
    now: Option<Checkpoint>,
}

impl Said {
    fn print(
        self,
        context: &mut Context,
        key: &VerifierKey,
        receipt: &Receipt,
        signed: &Checkpoint,
    ) -> Result<(), Failure> {
        let console = &mut context.console;
        let close = receipt.close();
        if console.format() != Format::Table {
            return Ok(console.json(&json!({
                "proven": true,
                "log": key.name(),
                "session": receipt.session().to_string(),
                "index": receipt.index(),
                "size": signed.size,
                "time": wall_text(receipt.time().wall_us),
                "reason": close.reason.to_string(),
                "intents": close.intents,
                "outcomes": close.outcomes,
                "root": close.root.map(|root| root.base64()),
                "witnesses": self.witnesses,
                "log_size": self.now.map(|now| now.size),
            }))?);
        }
        let verdict = console.paint(Tone::Good, "proven");
        let commands = counted(close.intents, "command", "commands");
        console.line(&format!("{verdict}: session {} with {commands} is on the record", receipt.session()))?;
        let ended = in_full(receipt.time().wall_us);
        console.line(&format!("  ended   {ended} ({}), entry {}", close.reason, receipt.index()))?;
        console.line(&format!("  signed  by {} in a checkpoint of {} entries", key.name(), signed.size))?;
        if !self.witnesses.is_empty() {
            console.line(&format!("  seen    by {}", self.witnesses.join(", ")))?;
        }
        if let Some(now) = self.now {
            console.line(&format!("  there   still, in the log of {} entries", now.size))?;
        }
        Ok(())
    }
}

/// The witnesses of a policy that have cosigned, if they are enough.
fn witnesses(policy: &WitnessPolicy, receipt: &Receipt) -> Result<Vec<String>, String> {
    let note = receipt.note().map_err(|error| error.to_string())?;
    let evaluation = policy.evaluate(&note);
    let names: Vec<String> = evaluation.cosigned.iter().map(|(name, _)| name.clone()).collect();
    match evaluation.quorum {
        Quorum::Reached | Quorum::NoneRequired => Ok(names),
        Quorum::NotReached => {
            let by = if names.is_empty() { "nobody".to_owned() } else { names.join(", ") };
            Err(format!("not enough witnesses of the policy have cosigned; it is cosigned by {by}"))
        }
    }
}

fn read(file: &Path) -> Result<String, Failure> {
    use std::io::Read as _;
    let failed = |error: std::io::Error| Failure::new(format_args!("cannot read {}: {error}", file.display()));
    let mut text = Vec::new();
    let most = u64::try_from(RECEIPT_BYTES_MAX).unwrap_or(u64::MAX);
    std::fs::File::open(file).map_err(failed)?.take(most + 1).read_to_end(&mut text).map_err(failed)?;
    // What is too long, or no text, is no receipt either.
    Ok(String::from_utf8(text).unwrap_or_default())
}

fn read_policy(file: &Path) -> Result<WitnessPolicy, Failure> {
    let text = std::fs::read_to_string(file)
        .map_err(|error| Failure::usage(format_args!("--policy: {}: {error}", file.display())))?;
    text.parse().map_err(|error| Failure::usage(format_args!("--policy: {}: {error}", file.display())))
}
