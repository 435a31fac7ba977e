//! A run from start to report.
//!
//! A round goes through all cases, and each case through all targets, so that what is compared ran
//! within seconds of each other, and every case is spread over the whole run. Each round begins
//! with another target, so that none always comes first.

use std::{
    fs,
    io::{self, Write},
    path::Path,
    time::Instant,
};

use anyhow::{Context, ensure};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::{
    Options,
    cases::{Bench, Case, Idle, Sample},
    measure::{Disk, Machine, Noise},
    processes::Processes,
    report::{Conditions, Report},
    summary::{Flushes, NoiseSeen, Samples, quantile},
    targets::{Cluster, Kind, Programs, Target},
};

/// Measures and prints.
pub(crate) fn run(options: &Options, processes: &Processes) -> anyhow::Result<()> {
    let begun = Instant::now();
    let rounds = options.rounds.unwrap_or(if options.quick { 3 } else { 7 });
    let seconds = options.seconds.unwrap_or(if options.quick { 1 } else { 3 });
    let kinds = chosen_kinds(options);
    let wanted =
        |name: &str| options.only.is_empty() || options.only.iter().any(|begin| name.starts_with(begin.as_str()));
    let cases: Vec<Case> = Case::all()
        .into_iter()
        .filter(|case| case.is_quick() || !options.quick || !options.only.is_empty())
        .filter(|case| wanted(&case.name()))
        .collect();
    ensure!(!cases.is_empty() || wanted("idle"), "no case begins with {}", options.only.join(" or "));
    ensure_disk(&options.dir)?;
    raise_file_limit()?;

    let programs = Programs::find(options.onrecord.clone())?;
    let directory = processes.directory(&options.dir)?;
    say("starting PostgreSQL");
    let mut cluster = Cluster::start(processes, &programs, &directory)?;
    let bench = Bench { processes, programs: &programs, directory: &directory, seconds };

    let idle = if wanted("idle") { weigh(&bench, &mut cluster, &kinds, options.quick)? } else { Vec::new() };
    let mut measured = Measured::new(&cases);
    if !cases.is_empty() {
        let targets = kinds.iter().map(|kind| cluster.target(*kind)).collect::<Result<Vec<_>, _>>()?;
        warm_up(&bench, &targets)?;
        let mut disk = Disk::new(&directory)?;
        for round in 0..rounds {
            measured.round(round, rounds, &bench, &targets, &mut disk)?;
        }
    }

    let report = Report::new(
        Conditions {
            rounds,
            seconds,
            programs: programs.versions(),
            processor: processor(),
            noise: NoiseSeen::of(&measured.noise),
            flush: Flushes::of(&measured.flushes_us),
            took_seconds: begun.elapsed().as_secs(),
            failures: measured.failures,
        },
        &measured.cases,
        &idle,
    );
    let text = if options.json { report.json()? } else { report.tables() };
    writeln!(io::stdout(), "{text}")?;
    Ok(())
}

struct Measured {
    cases: Vec<Samples>,
    flushes_us: Vec<f64>,
    noise: Vec<Noise>,
    failures: Vec<String>,
}

impl Measured {
    fn new(cases: &[Case]) -> Self {
        Self {
            cases: cases.iter().map(|&case| Samples { case, rounds: Vec::new(), flush_us: Vec::new() }).collect(),
            flushes_us: Vec::new(),
            noise: Vec::new(),
            failures: Vec::new(),
        }
    }

    fn round(
        &mut self,
        round: usize,
        rounds: usize,
        bench: &Bench<'_>,
        targets: &[Target],
        disk: &mut Disk,
    ) -> anyhow::Result<()> {
        let before = Machine::read(&bench.processes.pids())?;
        for samples in &mut self.cases {
            say(&format!("round {} of {rounds}: {}", round + 1, samples.case.name()));
            let mut of_round = Vec::new();
            let mut flushes = Vec::new();
            for target in in_turn(targets, round) {
                // Around what waits for the disk, so that the disk is judged at the speed it had then.
                if target.kind == Kind::Intent {
                    flushes.extend(disk.flushes_us(FLUSHES_A_SIDE)?);
                }
                match measure(samples.case, bench, target) {
                    Ok(sample) => of_round.push((target.kind, sample)),
                    Err(error) => {
                        let name = samples.case.name();
                        let failure = format!("{name}, {}: {error:#}", target.kind.name());
                        say(&failure);
                        self.failures.push(failure);
                    }
                }
                if target.kind == Kind::Intent {
                    flushes.extend(disk.flushes_us(FLUSHES_A_SIDE)?);
                }
            }
            if !flushes.is_empty() {
                samples.flush_us.push(quantile(&flushes, 0.5));
            }
            samples.rounds.push(of_round);
            self.flushes_us.extend(flushes);
        }
        let after = Machine::read(&bench.processes.pids())?;
        self.noise.push(after.noise_since(&before));
        Ok(())
    }
}

/// A second try, since a short run on a machine that others keep busy may find no time at all.
fn measure(case: Case, bench: &Bench<'_>, target: &Target) -> anyhow::Result<Sample> {
    case.measure(bench, target).or_else(|_| case.measure(bench, target))
}

/// Fills the database's cache and opens what is opened once.
fn warm_up(bench: &Bench<'_>, targets: &[Target]) -> anyhow::Result<()> {
    say("warming up");
    for target in targets {
        for case in [Case::Rows, Case::Connect] {
            case.measure(bench, target).with_context(|| format!("through {}", target.kind.name()))?;
        }
    }
    Ok(())
}

fn weigh(
    bench: &Bench<'_>,
    cluster: &mut Cluster<'_>,
    kinds: &[Kind],
    quick: bool,
) -> anyhow::Result<Vec<(Kind, Idle)>> {
    let mut idle = Vec::new();
    for &kind in kinds {
        // The durabilities hold the same for a session; one stands for all when time is short.
        let worth = match kind {
            Kind::Direct => false,
            Kind::Pgbouncer | Kind::Intent => true,
            Kind::Relay | Kind::Policy | Kind::Held | Kind::Written => !quick,
        };
        if worth {
            say(&format!("idle sessions: {}", kind.name()));
            idle.push((kind, bench.idle(cluster, kind)?));
        }
    }
    Ok(idle)
}

fn in_turn(targets: &[Target], round: usize) -> impl Iterator<Item = &Target> {
    let first = round % targets.len().max(1);
    targets.iter().cycle().skip(first).take(targets.len())
}

/// In the order of a round, each once.
fn chosen_kinds(options: &Options) -> Vec<Kind> {
    Kind::ALL.into_iter().filter(|kind| options.targets.is_empty() || options.targets.contains(kind)).collect()
}

/// A log in memory would flatter us.
fn ensure_disk(directory: &Path) -> anyhow::Result<()> {
    let directory = directory.canonicalize().with_context(|| format!("{} is not there", directory.display()))?;
    let mounts = fs::read_to_string("/proc/self/mounts")?;
    let kind = mounts
        .lines()
        .filter_map(|line| {
            let mut fields = line.split(' ').skip(1);
            Some((fields.next()?, fields.next()?))
        })
        .filter(|(at, _)| directory.starts_with(at))
        .max_by_key(|(at, _)| at.len())
        .map(|(_, kind)| kind);
    ensure!(
        !matches!(kind, Some("tmpfs" | "ramfs")),
        "{} is in memory; name a directory on a disk with --dir",
        directory.display()
    );
    Ok(())
}

/// A thousand sessions need more files than a shell allows by default.
pub(crate) fn raise_file_limit() -> anyhow::Result<()> {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })?;
    Ok(())
}

fn processor() -> String {
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = text
        .lines()
        .find_map(|line| line.strip_prefix("model name"))
        .map(|rest| rest.trim_start_matches([' ', '\t', ':']))
        .unwrap_or("unknown processor");
    let count = std::thread::available_parallelism().map_or(1, usize::from);
    format!("{count} x {name}")
}

fn say(what: &str) {
    let _ = writeln!(io::stderr(), "bench: {what}");
}

const FLUSHES_A_SIDE: usize = 50;
