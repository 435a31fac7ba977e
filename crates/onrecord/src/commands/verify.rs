//! `onrecord verify`: three verdicts on a record, never one.

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};

use clap::Args;
use ledger::VerifierKey;
use model::wall_text;
use serde_json::{Value, json};
use store::{CompletenessVerdict, Progress, Report, Violation};

use super::{Context, words};
use crate::output::{Console, Format, Tone, single_line};
use crate::{Exit, Failure};

/// Between two signs of progress, in entries.
const PROGRESS_ENTRIES: u64 = 50_000;
/// Columns of a verdict's name, and of the verdict.
const NAME: usize = 14;
const VERDICT: usize = 10;
/// Connections and silences that are listed one by one.
const LISTED_MAX: usize = 20;

/// Arguments of `verify`.
#[derive(Debug, Args)]
pub struct Verify {
    /// The data directory [default: the configuration's]
    dir: Option<PathBuf>,
    /// The public verifier key, from a copy kept elsewhere [default: the directory's own]
    #[arg(long, value_name = "FILE")]
    vkey: Option<PathBuf>,
}

impl Verify {
    /// Does it. Ends with 3 or 4 when a verdict is not good.
    pub fn run(self, context: &mut Context) -> Result<(), Failure> {
        let data = match self.dir {
            Some(dir) => dir,
            None => context.load()?.gateway.data,
        };
        let vkey = self.vkey.as_deref().map(read_key).transpose()?;
        match print(&mut context.console, &data, vkey.as_ref(), 0)? {
            Exit::Ok => Ok(()),
            exit => Err(Failure::said(exit)),
        }
    }
}

/// Verifies the record in a data directory, prints the verdicts, and says which exit code they are.
pub fn print(console: &mut Console, data: &Path, vkey: Option<&VerifierKey>, indent: usize) -> Result<Exit, Failure> {
    let report = verified(data, vkey, &mut progress())?;
    if console.format() == Format::Table {
        verdicts(&report, vkey.is_some(), indent, console)?;
    } else {
        console.json(&as_json(&report))?;
    }
    console.flush()?;
    Ok(exit(&report))
}

/// The verdict in one line.
pub fn briefly(data: &Path) -> Result<(Exit, String), Failure> {
    let report = verified(data, None, &mut |_| {})?;
    let integrity = &report.integrity;
    let said = match (&integrity.violation, exit(&report)) {
        (Some(violation), _) => described(violation),
        (None, Exit::Ok) => {
            let entries = words::counted(integrity.entries, "entry", "entries");
            format!("{entries}, unaltered and complete")
        }
        (None, _) => report.completeness.gaps.first().cloned().unwrap_or_default(),
    };
    Ok((exit(&report), said))
}

fn verified(data: &Path, vkey: Option<&VerifierKey>, progress: &mut dyn FnMut(Progress)) -> Result<Report, Failure> {
    store::verify(data, vkey, progress)
        .map_err(|error| Failure::new(format_args!("cannot verify the record in {}: {error}", data.display())))
}

fn exit(report: &Report) -> Exit {
    match (&report.integrity.violation, report.completeness.verdict) {
        (Some(_), _) => Exit::Integrity,
        (None, CompletenessVerdict::Ok) => Exit::Ok,
        (None, CompletenessVerdict::Violated | CompletenessVerdict::NotEstablished) => Exit::Completeness,
    }
}

/// Long work shows that it goes on, to somebody who looks.
fn progress() -> impl FnMut(Progress) {
    let watched = std::io::stderr().is_terminal();
    let mut next = PROGRESS_ENTRIES;
    move |progress| {
        if watched && progress.entries >= next {
            next = progress.entries + PROGRESS_ENTRIES;
            let _ = write!(std::io::stderr(), "\r{} entries verified ...\r", progress.entries);
        }
    }
}

fn verdicts(report: &Report, own_copy: bool, indent: usize, console: &mut Console) -> Result<(), Failure> {
    let mut lines = Lines { console, indent };
    integrity(report, own_copy, &mut lines)?;
    completeness(report, &mut lines)?;
    coverage(report, &mut lines)
}

fn integrity(report: &Report, own_copy: bool, lines: &mut Lines<'_>) -> Result<(), Failure> {
    let integrity = &report.integrity;
    let entries = words::counted(integrity.entries, "entry", "entries");
    match &integrity.violation {
        Some(violation) => {
            lines.verdict("integrity", Tone::Bad, "VIOLATED", &described(violation))?;
            lines.detail(&format!("in {}, at byte {}", violation.file, violation.offset))?;
            if let Some(command) = violation.command {
                lines.detail(&format!("command {command}"))?;
            }
        }
        None => {
            let signed = match integrity.signed {
                Some(signed) if signed == integrity.entries => "all of them signed".to_owned(),
                Some(signed) => format!("the first {signed} signed"),
                None => "none signed yet".to_owned(),
            };
            lines.verdict("integrity", Tone::Good, "ok", &format!("{entries} as they were recorded, {signed}"))?;
        }
    }
    lines.detail(&format!("log {}, root {}", integrity.origin, integrity.root.hex()))?;
    if integrity.blobs > 0 {
        let blobs = words::counted(integrity.blobs, "long text", "long texts");
        lines.detail(&format!("{blobs} as named"))?;
    }
    if integrity.torn_bytes > 0 {
        let torn = words::counted(integrity.torn_bytes, "byte", "bytes");
        lines.detail(&format!("{torn} of an unfinished group at the end, on which nothing relied"))?;
    }
    if !own_copy {
        lines.detail("checked with the directory's own key; --vkey FILE checks with a copy that you keep elsewhere")?;
    }
    Ok(())
}

fn completeness(report: &Report, lines: &mut Lines<'_>) -> Result<(), Failure> {
    let completeness = &report.completeness;
    let commands = words::counted(completeness.commands, "command", "commands");
    let outcomes: Vec<String> = completeness
        .outcomes
        .iter()
        .filter(|(_, count)| **count > 0)
        .map(|(status, count)| format!("{count} {status}"))
        .collect();
    match completeness.verdict {
        CompletenessVerdict::Ok => {
            let all = if completeness.pending == 0 {
                "each with its outcome".to_owned()
            } else {
                format!("{} still running", completeness.pending)
            };
            lines.verdict("completeness", Tone::Good, "ok", &format!("{commands}, {all}"))?;
        }
        CompletenessVerdict::Violated => {
            let gaps = words::counted(completeness.gaps_count, "gap", "gaps");
            lines.verdict("completeness", Tone::Bad, "VIOLATED", &gaps)?;
            for gap in completeness.gaps.iter().take(LISTED_MAX) {
                lines.detail(gap)?;
            }
        }
        CompletenessVerdict::NotEstablished => {
            let why = "cannot be told while integrity is violated";
            lines.verdict("completeness", Tone::Warning, "unknown", why)?;
        }
    }
    if !outcomes.is_empty() {
        lines.detail(&outcomes.join(", "))?;
    }
    let mut sessions = words::counted(completeness.sessions, "session", "sessions");
    for (count, what) in [(completeness.sessions_open, "open"), (completeness.sessions_lost, "lost")] {
        if count > 0 {
            sessions.push_str(&format!(", {count} {what}"));
        }
    }
    if completeness.refused > 0 {
        let refused = words::counted(completeness.refused, "attempt", "attempts");
        sessions.push_str(&format!("; {refused} to connect refused"));
    }
    lines.detail(&sessions)?;
    for silence in completeness.silences.iter().take(LISTED_MAX) {
        let (from, to) = (words::to_the_second(silence.from.wall_us), words::to_the_second(silence.to.wall_us));
        lines.detail(&format!("silence from {from} to {to}: the gateway was up and recorded nothing"))?;
    }
    Ok(())
}

fn coverage(report: &Report, lines: &mut Lines<'_>) -> Result<(), Failure> {
    let span = |(from, to): (i64, i64)| format!("{} to {} UTC", words::to_the_second(from), words::to_the_second(to));
    let coverage = &report.coverage;
    let recorded = coverage.recorded.map_or_else(|| "nothing yet".to_owned(), span);
    lines.verdict("coverage", Tone::Plain, "recorded", &recorded)?;
    for (name, range) in coverage.connections.iter().take(LISTED_MAX) {
        lines.detail(&format!("connection {name}: {}", span(*range)))?;
    }
    lines.detail("what went around the gateway is in no record")
}

fn described(violation: &Violation) -> String {
    match violation.index {
        Some(index) => format!("entry {index}: {}", violation.what),
        None => violation.what.clone(),
    }
}

fn as_json(report: &Report) -> Value {
    let (integrity, completeness) = (&report.integrity, &report.completeness);
    let span = |(from, to): &(i64, i64)| json!({"from": wall_text(*from), "to": wall_text(*to)});
    let outcomes: serde_json::Map<String, Value> =
        completeness.outcomes.iter().map(|(status, count)| (status.to_string(), Value::from(*count))).collect();
    let silences: Vec<Value> =
        completeness.silences.iter().map(|silence| span(&(silence.from.wall_us, silence.to.wall_us))).collect();
    let connections: serde_json::Map<String, Value> =
        report.coverage.connections.iter().map(|(name, range)| (name.clone(), span(range))).collect();
    json!({
        "integrity": {
            "verdict": if integrity.violation.is_none() { "ok" } else { "violated" },
            "violation": integrity.violation.as_ref().map(|violation| json!({
                "index": violation.index,
                "command": violation.command.map(|command| command.to_string()),
                "file": violation.file,
                "offset": violation.offset,
                "what": violation.what,
            })),
            "entries": integrity.entries,
            "root": integrity.root.hex(),
            "origin": integrity.origin,
            "vkey": integrity.vkey,
            "signed": integrity.signed,
            "blobs": integrity.blobs,
            "torn_bytes": integrity.torn_bytes,
        },
        "completeness": {
            "verdict": match completeness.verdict {
                CompletenessVerdict::Ok => "ok",
                CompletenessVerdict::Violated => "violated",
                CompletenessVerdict::NotEstablished => "not_established",
            },
            "gaps": completeness.gaps,
            "gaps_count": completeness.gaps_count,
            "commands": completeness.commands,
            "outcomes": outcomes,
            "pending": completeness.pending,
            "sessions": completeness.sessions,
            "sessions_open": completeness.sessions_open,
            "sessions_lost": completeness.sessions_lost,
            "refused": completeness.refused,
            "silences": silences,
            "stopped": completeness.stopped,
        },
        "coverage": {
            "recorded": report.coverage.recorded.as_ref().map(span),
            "connections": connections,
        },
    })
}

fn read_key(file: &Path) -> Result<VerifierKey, Failure> {
    let text = std::fs::read_to_string(file)
        .map_err(|error| Failure::usage(format_args!("--vkey: {}: {error}", file.display())))?;
    text.trim().parse().map_err(|error| {
        Failure::usage(format_args!("--vkey: {}: {error}", file.display()))
            .hint("it is the file `vkey` of the data directory, or the line that `onrecord init` printed")
    })
}

/// Verdicts and their details, in columns.
struct Lines<'a> {
    console: &'a mut Console,
    indent: usize,
}

impl Lines<'_> {
    fn verdict(&mut self, name: &str, tone: Tone, verdict: &str, text: &str) -> Result<(), Failure> {
        let indent = self.indent;
        let verdict = self.console.paint(tone, &format!("{verdict:VERDICT$}"));
        let text = single_line(text);
        Ok(self.console.line(&format!("{:indent$}{name:NAME$}{verdict}{text}", ""))?)
    }

    fn detail(&mut self, text: &str) -> Result<(), Failure> {
        let indent = self.indent + NAME + VERDICT;
        let text = self.console.paint(Tone::Faint, &single_line(text));
        Ok(self.console.line(&format!("{:indent$}{text}", ""))?)
    }
}
