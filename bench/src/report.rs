//! What a run found, for people (tables in Markdown) and for machines (JSON), and the bars that the
//! gateway is held to.

use std::fmt::Write;

use serde::Serialize;

use crate::{
    cases::{Case, IDLE_SESSIONS, Idle, Mode},
    summary::{Flushes, NoiseSeen, Row, Samples, Spread, median},
    targets::Kind,
};

/// Under what the numbers were taken.
#[derive(Serialize)]
pub(crate) struct Conditions {
    pub(crate) rounds: usize,
    pub(crate) seconds: u32,
    pub(crate) programs: Vec<String>,
    pub(crate) processor: String,
    pub(crate) noise: Option<NoiseSeen>,
    pub(crate) flush: Option<Flushes>,
    pub(crate) took_seconds: u64,
    /// Measurements that failed twice and are missing from the numbers.
    pub(crate) failures: Vec<String>,
}

/// All that a run found.
#[derive(Serialize)]
pub(crate) struct Report {
    conditions: Conditions,
    cases: Vec<CaseReport>,
    idle: Vec<IdleReport>,
    bars: Vec<Bar>,
}

#[derive(Serialize)]
struct CaseReport {
    case: String,
    explanation: String,
    unit: &'static str,
    rows: Vec<Row>,
}

#[derive(Serialize)]
struct IdleReport {
    target: Kind,
    sessions: u32,
    #[serde(flatten)]
    idle: Idle,
}

/// One promise and what was found.
#[derive(Serialize)]
struct Bar {
    what: String,
    wanted: String,
    found: String,
    met: bool,
}

impl Report {
    /// Judges.
    pub(crate) fn new(conditions: Conditions, cases: &[Samples], idle: &[(Kind, Idle)]) -> Self {
        let bars = bars(cases, idle);
        let cases = cases
            .iter()
            .map(|samples| CaseReport {
                case: samples.case.name(),
                explanation: samples.case.explanation(),
                unit: samples.case.unit(),
                rows: samples.rows(),
            })
            .collect();
        let idle = idle.iter().map(|&(target, idle)| IdleReport { target, sessions: IDLE_SESSIONS, idle }).collect();
        Self { conditions, cases, idle, bars }
    }

    /// For machines.
    pub(crate) fn json(&self) -> anyhow::Result<String> {
        Ok(serde_json::to_string_pretty(self)?)
    }

    /// For people.
    pub(crate) fn tables(&self) -> String {
        let mut text = self.conditions.text();
        for case in &self.cases {
            text += &case.table();
        }
        if !self.idle.is_empty() {
            text += &idle_table(&self.idle);
        }
        if !self.bars.is_empty() {
            text += &bars_table(&self.bars, self.conditions.are_noisy());
        }
        text
    }
}

impl Conditions {
    /// Whether others took so much that a verdict means little.
    fn are_noisy(&self) -> bool {
        let processors = self.noise.is_some_and(|noise| noise.median.others + noise.median.stolen > NOISE_SHARE_MOST);
        let disk = self.flush.is_some_and(|flush| flush.p99_us > FLUSH_P99_TIMES_MOST * flush.median_us);
        processors || disk
    }

    fn text(&self) -> String {
        let mut text = format!(
            "{}. {}. {} rounds of {} s a run, took {} s. TLS off everywhere.\n",
            self.processor,
            self.programs.join(", "),
            self.rounds,
            self.seconds,
            self.took_seconds,
        );
        if let Some(flush) = &self.flush {
            let _ = writeln!(
                text,
                "The disk's own flush (4 KiB pwrite and fdatasync into a zero-filled file): median {:.0} µs, p99 {:.0} µs.",
                flush.median_us, flush.p99_us,
            );
        }
        if let Some(noise) = &self.noise {
            let _ = writeln!(
                text,
                "Noise: others used {:.0} % of the machine's processors in the median round, {:.0} % in the worst; the hypervisor withheld {:.0} %, {:.0} %.",
                noise.median.others * 100.0,
                noise.worst.others * 100.0,
                noise.median.stolen * 100.0,
                noise.worst.stolen * 100.0,
            );
        }
        for failure in &self.failures {
            let _ = writeln!(text, "Failed, and left out: {failure}.");
        }
        text += "Ratios are medians over rounds of the ratio within a round (least to greatest).\n";
        text
    }
}

impl CaseReport {
    fn table(&self) -> String {
        let mut text = format!("\n### {}\n{}.\n\n", self.case, self.explanation);
        let latency = self.rows.iter().any(|row| row.median_us.is_some());
        let unit = self.unit;
        let _ = write!(text, "| | {unit}/s | of direct | of pgbouncer | of relay | proxy CPU µs |");
        text += if latency { " mean µs | p50 µs | p99 µs | p50 added |\n" } else { "\n" };
        text += "|---|---:|---:|---:|---:|---:|";
        text += if latency { "---:|---:|---:|---:|\n" } else { "\n" };
        for row in &self.rows {
            let _ = write!(
                text,
                "| {} | {:.0} | {} | {} | {} | {} |",
                row.target.name(),
                row.per_second,
                spread(row.of_direct),
                spread(row.of_pgbouncer),
                spread(row.of_relay),
                if self.unit == "rows" { number(row.cpu_us, 3) } else { number(row.cpu_us, 1) },
            );
            if latency {
                let _ = write!(
                    text,
                    " {} | {} | {} | {} |",
                    number(row.mean_us, 0),
                    number(row.median_us, 0),
                    number(row.p99_us, 0),
                    number(row.added_us, 0),
                );
            }
            text.push('\n');
        }
        text
    }
}

fn idle_table(idle: &[IdleReport]) -> String {
    let mut text = format!(
        "\n### idle\nResident memory of a fresh proxy, and with {IDLE_SESSIONS} sessions that have asked once and wait.\n\n| | alone MB | with sessions MB | kB a session |\n|---|---:|---:|---:|\n"
    );
    for row in idle {
        let (empty, all) = (row.idle.empty_bytes as f64, row.idle.bytes as f64);
        let _ = writeln!(
            text,
            "| {} | {:.1} | {:.1} | {:.1} |",
            row.target.name(),
            empty / 1e6,
            all / 1e6,
            (all - empty) / 1e3 / f64::from(row.sessions),
        );
    }
    text
}

fn bars_table(bars: &[Bar], noisy: bool) -> String {
    let mut text = String::from("\n### bars\n\n");
    if noisy {
        text += "Others kept the machine or its disk busy: these verdicts are weak, repeat the run.\n\n";
    }
    text += "| bar | wanted | found | |\n|---|---|---|---|\n";
    for bar in bars {
        let met = if bar.met { "met" } else { "**missed**" };
        let _ = writeln!(text, "| {} | {} | {} | {met} |", bar.what, bar.wanted, bar.found);
    }
    text
}

/// What issue 2 asks for, as far as this run measured it.
fn bars(cases: &[Samples], idle: &[(Kind, Idle)]) -> Vec<Bar> {
    let mut bars = Vec::new();
    for samples in cases {
        let name = samples.case.name();
        let rows = samples.rows();
        let row = |kind: Kind| rows.iter().find(|row| row.target == kind);
        match samples.case {
            Case::Read { mode: Mode::Simple | Mode::Prepared, clients: 8 | 32 } => {
                for (kind, least) in [(Kind::Written, 0.9), (Kind::Intent, 0.7)] {
                    bars.extend(row(kind).and_then(|row| row.of_pgbouncer).map(|ratio| {
                        at_least(format!("{name}, {}: throughput of pgbouncer's", kind.name()), ratio.median, least)
                    }));
                }
                bars.extend(samples.ratio(Kind::Policy, Kind::Intent).map(|ratio| {
                    at_least(format!("{name}, policy: throughput without it"), ratio.median, POLICY_LEAST)
                }));
                let pgbouncer = row(Kind::Pgbouncer).and_then(|row| row.cpu_us);
                for kind in [Kind::Written, Kind::Intent] {
                    let ours = row(kind).and_then(|row| row.cpu_us);
                    bars.extend(ours.zip(pgbouncer).map(|(ours, theirs)| {
                        let what = format!("{name}, {}: CPU of pgbouncer's", kind.name());
                        at_most(what, ours / theirs, CPU_TIMES_MOST, "")
                    }));
                }
            }
            Case::Read { clients: 1, .. } => {
                let beyond = samples.added_beyond_flush_us(Kind::Intent, FLUSH_TIMES);
                bars.extend(beyond.map(|beyond| {
                    let flush = median(&samples.flush_us).unwrap_or_default();
                    let what = format!("{name}, intent: p50 added beyond {FLUSH_TIMES} flushes of {flush:.0} µs");
                    at_most(what, beyond, ADDED_US_MOST, " µs")
                }));
            }
            Case::Rows | Case::CopyOut => {
                for kind in Kind::ALL.into_iter().filter(|kind| kind.records()) {
                    bars.extend(row(kind).and_then(|row| row.of_relay).map(|ratio| {
                        at_least(format!("{name}, {}: of the byte copy's", kind.name()), ratio.median, 0.9)
                    }));
                }
            }
            Case::Read { .. } | Case::Connect => {}
        }
    }
    for (kind, idle) in idle.iter().filter(|(kind, _)| kind.records()) {
        let what = format!("{IDLE_SESSIONS} idle sessions, {}", kind.name());
        bars.push(at_most(what, idle.bytes as f64 / 1e6, IDLE_MB_MOST, " MB"));
    }
    bars
}

fn at_least(what: String, found: f64, least: f64) -> Bar {
    Bar { what, wanted: format!("at least {least:.2}"), found: format!("{found:.2}"), met: found >= least }
}

fn at_most(what: String, found: f64, most: f64, unit: &str) -> Bar {
    let digits = if unit.is_empty() { 2 } else { 0 };
    Bar {
        what,
        wanted: format!("at most {most:.digits$}{unit}"),
        found: format!("{found:.digits$}{unit}"),
        met: found <= most,
    }
}

fn spread(spread: Option<Spread>) -> String {
    spread.map_or_else(|| "-".into(), |s| format!("{:.2} ({:.2} to {:.2})", s.median, s.least, s.greatest))
}

fn number(value: Option<f64>, digits: usize) -> String {
    value.map_or_else(|| "-".into(), |value| format!("{value:.digits$}"))
}

const NOISE_SHARE_MOST: f64 = 0.1;
const FLUSH_P99_TIMES_MOST: f64 = 10.0;
const FLUSH_TIMES: f64 = 1.5;
const ADDED_US_MOST: f64 = 60.0;
/// Throughput with the example rules, of that of the same gateway without a policy.
const POLICY_LEAST: f64 = 0.9;
const CPU_TIMES_MOST: f64 = 1.5;
const IDLE_MB_MOST: f64 = 60.0;
