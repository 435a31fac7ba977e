//! How verdicts are said: three lines, each with its details, or one JSON object.

use ledger::{Evaluation, Quorum};
use model::wall_text;
use serde_json::{Value, json};
use store::{AwayEnd, CompletenessVerdict, Report, Violation};

use super::super::{story, words};
use crate::output::{Console, Format, Tone, single_line};
use crate::{Exit, Failure};

/// Columns of a verdict's name, and of the verdict.
const NAME: usize = 14;
const VERDICT: usize = 10;
/// Connections and silences that are listed one by one.
const LISTED_MAX: usize = 20;

/// Where the public key came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyFrom {
    /// From the record itself: a record that was replaced as a whole, key and all, is not noticed.
    Record,
    /// From elsewhere.
    Elsewhere,
}

/// What makes an exit code other than 0, besides what is wrong.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Demand {
    /// Nothing else.
    #[default]
    NothingWrong,
    /// Whatever could not be looked at.
    Everything,
}

/// What verification found, and what a policy says of the witnesses, if one was given.
pub struct Verdicts {
    /// The three verdicts.
    pub report: Report,
    /// What the policy says.
    pub witnessed: Option<Witnessed>,
    /// Where the key came from.
    pub key: KeyFrom,
    /// What counts for the exit code.
    pub demand: Demand,
    /// What else is known of an evidence bundle, if it is one.
    pub bundle: Option<evidence::Report>,
}

/// What a policy says of the newest checkpoint that has cosignatures.
pub struct Witnessed {
    /// How many entries that checkpoint covers; none if there is no such checkpoint.
    pub size: Option<u64>,
    /// The policy's word.
    pub evaluation: Evaluation,
}

impl Verdicts {
    /// The exit code: the worst verdict's.
    pub fn exit(&self) -> Exit {
        let quorum = self.witnessed.as_ref().map(|witnessed| witnessed.evaluation.quorum);
        match (&self.report.integrity.violation, self.report.completeness.verdict, quorum) {
            (Some(_), _, _) => Exit::Integrity,
            (None, CompletenessVerdict::Violated | CompletenessVerdict::NotEstablished, _) => Exit::Completeness,
            (None, CompletenessVerdict::Ok, Some(Quorum::NotReached)) => Exit::Coverage,
            (None, CompletenessVerdict::Ok, _) => match self.demand {
                Demand::Everything if !self.not_looked_at().is_empty() => Exit::Coverage,
                Demand::Everything | Demand::NothingWrong => Exit::Ok,
            },
        }
    }

    /// What could not be looked at.
    fn not_looked_at(&self) -> Vec<String> {
        let integrity = &self.report.integrity;
        let unsigned = integrity.entries.saturating_sub(integrity.signed.unwrap_or(0));
        let mut all = Vec::new();
        if integrity.blobs_unchecked > 0 {
            let blobs = words::counted(integrity.blobs_unchecked, "long text", "long texts");
            all.push(format!("{blobs} not at hand here"));
        }
        if integrity.signed_decisions_unchecked > 0 {
            let decisions = words::counted(integrity.signed_decisions_unchecked, "signed decision", "signed decisions");
            all.push(format!("{decisions} by a passkey whose enrolment is not at hand here"));
        }
        if unsigned > 0 {
            let entries = words::counted(unsigned, "entry", "entries");
            all.push(format!("{entries} at the end not signed yet"));
        }
        if self.key == KeyFrom::Record {
            all.push("the key is the record's own".to_owned());
        }
        all
    }

    /// Prints them.
    pub fn print(&self, console: &mut Console, indent: usize) -> Result<(), Failure> {
        if console.format() == Format::Table {
            let mut lines = Lines { console, indent };
            integrity(self, &mut lines)?;
            completeness(&self.report, &mut lines)?;
            coverage(&self.report, &mut lines)?;
            if self.demand == Demand::Everything && !self.not_looked_at().is_empty() {
                lines.verdict("not seen", Tone::Bad, "TOO MUCH", &self.not_looked_at().join(", "))?;
            }
            if let Some(bundle) = &self.bundle {
                disclosed(bundle, &mut lines)?;
            }
            if let Some(witnessed) = &self.witnessed {
                witnesses(witnessed, &mut lines)?;
            }
        } else {
            console.json(&as_json(self))?;
        }
        console.flush()?;
        Ok(())
    }

    /// The verdict in one line.
    pub fn briefly(&self) -> String {
        let integrity = &self.report.integrity;
        match (&integrity.violation, self.exit()) {
            (Some(violation), _) => described(violation),
            (None, Exit::Ok) => {
                let entries = words::counted(integrity.entries, "entry", "entries");
                format!("{entries}, unaltered and complete")
            }
            (None, Exit::Coverage) => "too few witnesses, or too much not looked at".to_owned(),
            (None, _) => self.report.completeness.gaps.first().cloned().unwrap_or_default(),
        }
    }
}

fn integrity(verdicts: &Verdicts, lines: &mut Lines<'_>) -> Result<(), Failure> {
    let integrity = &verdicts.report.integrity;
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
                Some(signed) if verdicts.bundle.is_some() => format!("proven in the signed log of {signed}"),
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
    if integrity.signed_decisions > 0 {
        let decisions = words::counted(integrity.signed_decisions, "decision", "decisions");
        lines.detail(&format!("{decisions} signed by a passkey of who decided"))?;
    }
    if integrity.signed_decisions_unchecked > 0 {
        let decisions = words::counted(integrity.signed_decisions_unchecked, "signed decision", "signed decisions");
        lines.detail(&format!("{decisions} not checked: the passkey's enrolment is not at hand here"))?;
    }
    if integrity.torn_bytes > 0 {
        let torn = words::counted(integrity.torn_bytes, "byte", "bytes");
        lines.detail(&format!("{torn} of an unfinished group at the end, on which nothing relied"))?;
    }
    if integrity.blobs_unchecked > 0 && verdicts.bundle.is_none() {
        let blobs = words::counted(integrity.blobs_unchecked, "long text", "long texts");
        lines.detail(&format!("{blobs} not at hand here, so not looked at"))?;
    }
    if verdicts.key == KeyFrom::Record {
        lines.detail("checked with the record's own key; --vkey KEY checks with a copy that you keep elsewhere")?;
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
    if completeness.recoveries > 0 {
        let times = words::counted(completeness.recoveries, "time", "times");
        let mut text = format!("recovered {times} after the gateway had not stopped cleanly");
        if completeness.torn_bytes_declared > 0 {
            let torn = words::counted(completeness.torn_bytes_declared, "byte", "bytes");
            text.push_str(&format!("; {torn} of unfinished writes dropped, on which nothing relied"));
        }
        lines.detail(&text)?;
    }
    let erased = [(completeness.erased_sessions, "session"), (completeness.erased_fields, "field")];
    for (count, what) in erased.into_iter().filter(|(count, _)| *count > 0) {
        let were = if count == 1 { "was" } else { "were" };
        lines.detail(&format!("the content of {count} {what}{} {were} erased, as the record says", plural(count)))?;
    }
    if !completeness.holds.is_empty() {
        let holds: Vec<&str> = completeness.holds.iter().map(String::as_str).take(LISTED_MAX).collect();
        lines.detail(&format!("holds in force: {}", holds.join(", ")))?;
    }
    if completeness.break_glass_opened > 0 {
        let times = words::counted(completeness.break_glass_opened, "time", "times");
        let commands = words::counted(completeness.break_glass_commands, "command", "commands");
        lines.detail(&format!("break-glass was opened {times}, with {commands} under it"))?;
    }
    for id in completeness.break_glass_unreviewed.iter().take(LISTED_MAX) {
        lines.detail(&format!("break-glass {id} was not reviewed yet"))?;
    }
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
    for away in coverage.away.iter().take(LISTED_MAX) {
        let how = match away.end {
            AwayEnd::Stopped => "stopped",
            AwayEnd::Crashed => "not running, without having stopped cleanly",
        };
        lines.detail(&format!("{}: {how}", span((away.from_us, away.to_us))))?;
    }
    let more = coverage.away_count.saturating_sub(u64::try_from(LISTED_MAX).unwrap_or(0));
    if more > 0 {
        lines.detail(&format!("and {more} more such times"))?;
    }
    for step in coverage.clock_steps.iter().take(LISTED_MAX) {
        let by = words::duration(step.by_us.unsigned_abs());
        let way = if step.by_us < 0 { "back" } else { "forward" };
        lines.detail(&format!("the wall clock went {way} by {by} at entry {}", step.index))?;
    }
    if let Some(previous) = &coverage.previous {
        lines.detail(&format!(
            "continues log {} after {} of its entries ({})",
            previous.origin, previous.size, previous.reason
        ))?;
    }
    if let Some(standing) = &coverage.witnesses {
        for witness in standing.witnesses.iter().take(LISTED_MAX) {
            let size = witness.size.map_or_else(|| "nothing".to_owned(), |size| format!("{size} entries"));
            lines.detail(&format!("witness {}: {}, has cosigned {size}", single_line(&witness.name), witness.state))?;
        }
    }
    lines.detail("what went around the gateway is in no record")
}

/// What a bundle discloses, and of what it is a part.
fn disclosed(bundle: &evidence::Report, lines: &mut Lines<'_>) -> Result<(), Failure> {
    let Some(manifest) = &bundle.manifest else {
        return Ok(());
    };
    let (first, last) = manifest.range;
    let left_out = words::counted(bundle.left_out, "entry", "entries");
    lines.detail(&format!("whole sessions between entries {first} and {last}; {left_out} of others are not in it"))?;
    let commands = words::counted(manifest.count(), "command", "commands");
    let asked = if manifest.selection.is_empty() { "everything" } else { &manifest.selection };
    lines.verdict("disclosed", Tone::Plain, "in part", &format!("{commands} selected by: {asked}"))?;
    for (kind, counts) in &bundle.disclosure {
        let counts = [(counts.disclosed, "can be read"), (counts.withheld, "withheld"), (counts.erased, "erased")];
        let told: Vec<String> =
            counts.iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!("{count} {what}")).collect();
        if !told.is_empty() {
            lines.detail(&format!("{kind}: {}", told.join(", ")))?;
        }
    }
    for (command, story) in story::in_bundle(bundle).iter().take(LISTED_MAX) {
        for (_, line) in story::told(story, *command) {
            lines.detail(&format!("approval for {command}: {line}"))?;
        }
    }
    for story in story::glasses_in_bundle(bundle).iter().take(LISTED_MAX) {
        for (_, line) in story::glass_told(story).iter().skip(1) {
            lines.detail(&format!("break-glass {}: {line}", story.id))?;
        }
    }
    for file in bundle.unknown_files.iter().take(LISTED_MAX) {
        lines.detail(&format!("{file} is not known to this version: only its digest was checked"))?;
    }
    Ok(())
}

fn witnesses(witnessed: &Witnessed, lines: &mut Lines<'_>) -> Result<(), Failure> {
    let Evaluation { cosigned, wrong, quorum } = &witnessed.evaluation;
    let of = match witnessed.size {
        Some(size) => format!("{} cosigned {size} entries", words::counted(cosigned.len(), "witness", "witnesses")),
        None => "nothing was cosigned".to_owned(),
    };
    match quorum {
        Quorum::Reached => lines.verdict("witnesses", Tone::Good, "enough", &of)?,
        Quorum::NotReached => lines.verdict("witnesses", Tone::Bad, "TOO FEW", &of)?,
        Quorum::NoneRequired => lines.verdict("witnesses", Tone::Plain, "none", "the policy asks for none")?,
    }
    for (name, unix_seconds) in cosigned.iter().take(LISTED_MAX) {
        let time = i64::try_from(*unix_seconds).unwrap_or(i64::MAX).saturating_mul(1_000_000);
        lines.detail(&format!("{} at {} UTC", single_line(name), words::to_the_second(time)))?;
    }
    for name in wrong.iter().take(LISTED_MAX) {
        lines.detail(&format!("the cosignature of {} is wrong", single_line(name)))?;
    }
    Ok(())
}

fn plural(count: u64) -> &'static str {
    if count == 1 { "" } else { "s" }
}

fn described(violation: &Violation) -> String {
    match violation.index {
        Some(index) => format!("entry {index}: {}", violation.what),
        None => violation.what.clone(),
    }
}

fn as_json(verdicts: &Verdicts) -> Value {
    let report = &verdicts.report;
    let (integrity, completeness) = (&report.integrity, &report.completeness);
    let span = |(from, to): &(i64, i64)| json!({"from": wall_text(*from), "to": wall_text(*to)});
    let outcomes: serde_json::Map<String, Value> =
        completeness.outcomes.iter().map(|(status, count)| (status.to_string(), Value::from(*count))).collect();
    let silences: Vec<Value> =
        completeness.silences.iter().map(|silence| span(&(silence.from.wall_us, silence.to.wall_us))).collect();
    let connections: serde_json::Map<String, Value> =
        report.coverage.connections.iter().map(|(name, range)| (name.clone(), span(range))).collect();
    let away: Vec<Value> = report
        .coverage
        .away
        .iter()
        .map(|away| {
            let how = match away.end {
                AwayEnd::Stopped => "stopped",
                AwayEnd::Crashed => "crashed",
            };
            json!({"from": wall_text(away.from_us), "to": wall_text(away.to_us), "end": how})
        })
        .collect();
    let clock_steps: Vec<Value> =
        report.coverage.clock_steps.iter().map(|step| json!({"index": step.index, "by_us": step.by_us})).collect();
    let witnesses: Option<Vec<Value>> = report.coverage.witnesses.as_ref().map(|standing| {
        let one = |w: &model::WitnessStanding| json!({"name": w.name, "state": w.state.as_str(), "size": w.size});
        standing.witnesses.iter().map(one).collect()
    });
    let mut value = json!({
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
            "blobs_unchecked": integrity.blobs_unchecked,
            "torn_bytes": integrity.torn_bytes,
            "signed_decisions": integrity.signed_decisions,
            "signed_decisions_unchecked": integrity.signed_decisions_unchecked,
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
            "recoveries": completeness.recoveries,
            "torn_bytes_declared": completeness.torn_bytes_declared,
            "erased_sessions": completeness.erased_sessions,
            "erased_fields": completeness.erased_fields,
            "holds": completeness.holds,
            "break_glass": {
                "opened": completeness.break_glass_opened,
                "commands": completeness.break_glass_commands,
                "unreviewed": completeness.break_glass_unreviewed.iter().map(ToString::to_string).collect::<Vec<_>>(),
            },
            "silences": silences,
            "stopped": completeness.stopped,
        },
        "coverage": {
            "recorded": report.coverage.recorded.as_ref().map(span),
            "connections": connections,
            "away": away,
            "away_count": report.coverage.away_count,
            "clock_steps": clock_steps,
            "previous": report.coverage.previous.as_ref().map(|previous| json!({
                "origin": previous.origin,
                "vkey": previous.vkey,
                "size": previous.size,
                "root": previous.root.hex(),
                "reason": previous.reason.as_str(),
            })),
            "witnesses": witnesses,
        },
        "not_looked_at": verdicts.not_looked_at(),
        "policy": verdicts.witnessed.as_ref().map(|witnessed| json!({
            "quorum": match witnessed.evaluation.quorum {
                Quorum::Reached => "reached",
                Quorum::NotReached => "not_reached",
                Quorum::NoneRequired => "none_required",
            },
            "size": witnessed.size,
            "cosigned": witnessed.evaluation.cosigned.iter()
                .map(|(name, time)| json!({"witness": name, "unix_seconds": time})).collect::<Vec<_>>(),
            "wrong": witnessed.evaluation.wrong,
        })),
    });
    if let (Some(bundle), Some(fields)) = (&verdicts.bundle, value.as_object_mut()) {
        fields.insert("bundle".to_owned(), bundle.bundle_json());
    }
    value
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
