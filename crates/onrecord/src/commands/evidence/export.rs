//! `onrecord evidence export`: commands, their sessions and the proof, as one file.

use std::collections::BTreeSet;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use evidence::{Draft, DraftError, Trust};
use model::{Actor, ContentKind, Digest, Known};
use serde_json::json;
use sha2::{Digest as _, Sha256};
use store::{Options, Published, Reader};

use super::super::selection::Selection;
use super::super::{Context, source, words};
use super::page::page;
use super::{gather, note, pin};
use crate::cli::RecordPlace;
use crate::output::{Format, Tone};
use crate::{Exit, Failure};
use crate::{outside, wiring};

/// Arguments of `evidence export`.
#[derive(Debug, Args)]
pub struct Export {
    #[command(flatten)]
    selection: Selection,
    /// Leave content out; the file verifies all the same, and says what was left out (may be repeated)
    #[arg(long, value_name = "WHAT", value_enum)]
    withhold: Vec<Withhold>,
    /// The file to write; it must not exist yet
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    #[command(flatten)]
    place: RecordPlace,
}

/// What can be left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Withhold {
    /// The texts of commands
    Statement,
    /// Their parameters
    Parameters,
    /// The messages of the server
    Message,
    /// What went over the streams of programs, and the digests of files
    Output,
    /// All of these
    All,
}

/// What is to be exported.
pub struct Request<'a> {
    /// The data directory.
    pub data: &'a Path,
    /// The record in it, with the keys that open what is disclosed.
    pub reader: &'a Reader,
    /// Which commands.
    pub selection: &'a Selection,
    /// What is left out.
    pub withhold: &'a [Withhold],
    /// Where to.
    pub out: &'a Path,
    /// The witness policy that is configured.
    pub policy: Option<&'a str>,
}

/// What was exported.
pub struct Exported {
    /// The file's length.
    pub bytes: usize,
    /// The file's SHA-256.
    pub sha256: Digest,
    /// How many commands were selected.
    pub commands: usize,
    /// How many were left out, because they are not signed yet.
    pub unsigned: usize,
    /// What verification says of it.
    pub report: evidence::Report,
    /// Why the record does not say that this was exported, if it does not.
    pub unnoted: Option<Failure>,
}

impl Export {
    /// Does it.
    pub fn run(self, context: &mut Context) -> Result<(), Failure> {
        let data = context.data(&self.place)?;
        let reader = context.reader(&self.place)?;
        let key = reader.vkey().clone();
        // The configuration may belong to another machine than a data directory that was named.
        let witness = if self.place.data.is_none() { context.load()?.witness } else { None };
        let policy =
            witness.map(|witness| outside::policy(&witness, &key)).transpose()?.map(|policy| policy.to_string());
        let options = match context.load() {
            Ok(config) if self.place.data.is_none() => wiring::options(&config)?,
            _ => Options::new(key.name()),
        };
        let request = Request {
            data: &data,
            reader: &reader,
            selection: &self.selection,
            withhold: &self.withhold,
            out: &self.out,
            policy: policy.as_deref(),
        };
        let exported = export(&request, &mut |entry| note::note(&data, options.clone(), entry))?;
        let console = &mut context.console;
        let entries = exported.report.audit.integrity.entries;
        let size = exported.report.audit.integrity.signed.unwrap_or(0);
        if console.format() == Format::Table {
            let commands = words::counted(exported.commands, "command", "commands");
            console.line(&format!(
                "{}: {commands}, {}, proven in the log of {size} entries",
                self.out.display(),
                words::counted(entries, "entry", "entries")
            ))?;
            let faint = [
                format!("sha256 {}", exported.sha256.hex()),
                format!("onrecord verify {} --vkey KEY  or open the verify.html in it", self.out.display()),
            ];
            for line in faint {
                console.line(&console.paint(Tone::Faint, &format!("  {line}")))?;
            }
        } else {
            console.json(&json!({
                "file": self.out,
                "bytes": exported.bytes,
                "sha256": exported.sha256.hex(),
                "commands": exported.commands,
                "entries": entries,
                "size": size,
                "noted": exported.unnoted.is_none(),
                "unsigned": exported.unsigned,
            }))?;
        }
        console.flush()?;
        if exported.unsigned > 0 {
            let left_out = words::counted(exported.unsigned, "command was", "commands were");
            warn(&format!("{left_out} left out: not signed yet. Export again in a second"));
        }
        if let Some(why) = exported.unnoted {
            warn(&format!("the record does not say that this was exported: {why}"));
        }
        Ok(())
    }
}

/// Exports. `note` is told what the record is to say of it.
pub fn export(
    request: &Request<'_>,
    note: &mut dyn FnMut(model::Export) -> Result<(), Failure>,
) -> Result<Exported, Failure> {
    if request.out.exists() {
        return Err(Failure::usage(format_args!("{} exists already", request.out.display()))
            .hint("name another file, or remove this one"));
    }
    let reader = request.reader;
    let published = Published::open_dir(request.data);
    let newest = pin::newest(&published, reader.vkey())?;
    let size = newest.checkpoint.size;
    let selected = gather::select(reader, request.selection, size)?;
    if selected.commands.is_empty() {
        return Err(Failure::not_found("no command on the record matches, so there is nothing to export")
            .hint("`onrecord commands` with the same options lists what matches"));
    }
    let sessions = gather::with_approvals(reader, selected.commands.keys().copied(), size)?;
    let touched = gather::touch(reader, &sessions, size)?;
    let pinned = pin::choose(request.data, &published, reader.vkey(), newest, touched.last, request.policy)?;
    let entries = touched.within(pinned.checkpoint.size);
    let withheld = kinds(request.withhold);
    let opened = gather::open(reader, &entries, &selected.commands, &withheld)?;
    let draft = Draft {
        program: concat!("onrecord ", env!("CARGO_PKG_VERSION")).to_owned(),
        key: reader.vkey().clone(),
        checkpoint: pinned.note,
        selection: source::spelled(reader, request.selection)?,
        withheld,
        commands: selected.commands,
        entries,
        keys: opened.keys,
        blobs: opened.blobs,
        policy: pinned.policy,
        page: page(),
    };
    let bytes = draft.build(&mut published.nodes(size)).map_err(unbuilt)?;
    let report = proven(&bytes, &draft)?;
    let sha256 = Digest(Sha256::digest(&bytes).into());
    write(request.out, &bytes)?;
    let unnoted = note(model::Export {
        by: Actor { name: format!("uid:{}", rustix::process::getuid().as_raw()), known: Known::Verified },
        selection: draft.selection.clone(),
        entries: u64::try_from(draft.entries.len()).unwrap_or(u64::MAX),
        disclosed: report.disclosure.values().map(|counts| counts.disclosed).sum(),
        sha256,
    });
    Ok(Exported {
        bytes: bytes.len(),
        sha256,
        commands: draft.commands.values().map(BTreeSet::len).sum(),
        unsigned: selected.unsigned,
        report,
        unnoted: unnoted.err(),
    })
}

/// What is handed out must verify: a damaged record is told now, not by the auditor.
fn proven(bytes: &[u8], draft: &Draft) -> Result<evidence::Report, Failure> {
    let report = evidence::verify(bytes, &Trust { key: Some(draft.key.clone()), policy: None });
    match &report.audit.integrity.violation {
        None => Ok(report),
        Some(violation) => {
            let at = violation.index.map_or_else(String::new, |index| format!("entry {index}: "));
            Err(Failure::of(
                Exit::Integrity,
                format_args!("nothing was exported, for it does not verify: {at}{}", violation.what),
            )
            .hint("`onrecord verify` says what is wrong with the record"))
        }
    }
}

fn kinds(withhold: &[Withhold]) -> BTreeSet<ContentKind> {
    let kinds = |withhold: &Withhold| match withhold {
        Withhold::Statement => vec![ContentKind::Statement],
        Withhold::Parameters => vec![ContentKind::Parameters],
        Withhold::Message => vec![ContentKind::Message],
        Withhold::Output => vec![ContentKind::Output],
        Withhold::All => ContentKind::ALL.to_vec(),
    };
    withhold.iter().flat_map(kinds).collect()
}

fn unbuilt(error: DraftError<store::StoreError>) -> Failure {
    match error {
        DraftError::Nodes(error) => Failure::new(format_args!("the published log cannot be read: {error}"))
            .hint("remove the directory tiles in the data directory: the gateway's next start makes it again"),
        error => Failure::new(error),
    }
}

/// Whoever may read the file can read what it discloses: nobody but its owner at first.
fn write(out: &Path, bytes: &[u8]) -> Result<(), Failure> {
    let written = || {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(out)?;
        file.write_all(bytes).and_then(|()| file.sync_all()).inspect_err(|_| {
            let _ = std::fs::remove_file(out);
        })
    };
    written().map_err(|error: std::io::Error| Failure::new(format_args!("cannot write {}: {error}", out.display())))
}

fn warn(text: &str) {
    let _ = writeln!(std::io::stderr(), "onrecord: warning: {text}");
}
