//! What is measured, and one measurement of it.

use std::{
    fs,
    path::Path,
    process::Stdio,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, bail, ensure};
use rustix::process::Signal;

use crate::{
    measure::{cpu_us, resident_bytes},
    processes::{Processes, Started},
    targets::{Cluster, DATABASE, Kind, Programs, Target},
};

/// One line of work, done on every target in every round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Case {
    /// `pgbench -S`: one indexed read a transaction.
    Read { mode: Mode, clients: u32 },
    /// `pgbench -S -C`: a connection for every transaction.
    Connect,
    /// A result of many rows, received and thrown away by psql.
    Rows,
    /// The same rows by COPY.
    CopyOut,
}

/// pgbench's `-M`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    Simple,
    Extended,
    Prepared,
}

/// What one run of a case on one target gave.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sample {
    /// Transactions or rows a second.
    pub(crate) per_second: f64,
    /// The proxy's processor time for each of them.
    pub(crate) cpu_us: Option<f64>,
    /// At one client.
    pub(crate) latency: Option<Latency>,
}

/// Of single transactions, in microseconds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Latency {
    pub(crate) mean_us: f64,
    pub(crate) median_us: f64,
    pub(crate) p99_us: f64,
}

impl Case {
    /// All of them, in the order of a round.
    pub(crate) fn all() -> Vec<Self> {
        let mut all = Vec::new();
        for clients in [1, 8, 32] {
            for mode in [Mode::Simple, Mode::Extended, Mode::Prepared] {
                all.push(Self::Read { mode, clients });
            }
        }
        all.extend([Self::Connect, Self::Rows, Self::CopyOut]);
        all
    }

    /// As `--only` and the tables call it.
    pub(crate) fn name(self) -> String {
        match self {
            Self::Read { mode, clients } => format!("{}/{clients}", mode.name()),
            Self::Connect => "connect/1".into(),
            Self::Rows => "rows".into(),
            Self::CopyOut => "copy-out".into(),
        }
    }

    /// One sentence for the reader of a table.
    pub(crate) fn explanation(self) -> String {
        match self {
            Self::Read { mode, clients: 1 } => {
                format!("`pgbench -S -M {}`, one client", mode.name())
            }
            Self::Read { mode, clients } => {
                format!("`pgbench -S -M {}`, {clients} clients", mode.name())
            }
            Self::Connect => "`pgbench -S -C`, one client: a new connection each time".into(),
            Self::Rows => format!("{ROWS} rows to psql"),
            Self::CopyOut => format!("{ROWS} rows to psql by COPY"),
        }
    }

    /// Whether a quick run does it: what a bar is set on.
    pub(crate) fn is_quick(self) -> bool {
        match self {
            Self::Read { mode, .. } => mode != Mode::Extended,
            Self::Connect => false,
            Self::Rows | Self::CopyOut => true,
        }
    }

    /// What `per_second` counts.
    pub(crate) fn unit(self) -> &'static str {
        match self {
            Self::Read { .. } | Self::Connect => "transactions",
            Self::Rows | Self::CopyOut => "rows",
        }
    }

    /// Measures once.
    pub(crate) fn measure(self, bench: &Bench<'_>, target: &Target) -> anyhow::Result<Sample> {
        let before = bench.cpu(target)?;
        let done = match self {
            Self::Read { mode, clients } => bench.pgbench(target, mode, clients, &[])?,
            Self::Connect => bench.pgbench(target, Mode::Simple, 1, &["--connect"])?,
            Self::Rows => bench.psql(target, ROWS_STATEMENT)?,
            Self::CopyOut => bench.psql(target, COPY_STATEMENT)?,
        };
        let after = bench.cpu(target)?;
        Ok(Sample {
            per_second: done.per_second,
            cpu_us: before.zip(after).map(|(before, after)| after.saturating_sub(before) as f64 / done.count),
            latency: done.latency,
        })
    }
}

impl Mode {
    fn name(self) -> &'static str {
        match self {
            Self::Simple => "simple",
            Self::Extended => "extended",
            Self::Prepared => "prepared",
        }
    }
}

/// What every measurement needs.
pub(crate) struct Bench<'a> {
    pub(crate) processes: &'a Processes,
    pub(crate) programs: &'a Programs,
    pub(crate) directory: &'a Path,
    pub(crate) seconds: u32,
}

pub(crate) struct Done {
    count: f64,
    pub(crate) per_second: f64,
    latency: Option<Latency>,
}

impl Bench<'_> {
    fn cpu(&self, target: &Target) -> anyhow::Result<Option<u64>> {
        target.proxy.map(|proxy| cpu_us(proxy.pid())).transpose()
    }

    pub(crate) fn pgbench(&self, target: &Target, mode: Mode, clients: u32, more: &[&str]) -> anyhow::Result<Done> {
        let log = self.directory.join("latencies");
        // pgbench's clock runs while it connects, which many clients on a busy machine take long to do.
        let seconds = self.seconds + clients / 32;
        let mut pgbench = target.client(&self.programs.pgbench);
        pgbench
            .args(["--select-only", "--no-vacuum", "--protocol", mode.name()])
            .args(["--client", &clients.to_string()])
            .args(["--jobs", &clients.min(2).to_string()])
            .args(["--time", &seconds.to_string()])
            .args(more);
        // With one client the log of each transaction costs the measurement nothing that matters.
        if clients == 1 {
            pgbench.arg("--log").arg("--log-prefix").arg(&log);
        }
        let output = self.processes.run(pgbench.arg(target.database))?;
        let text = String::from_utf8(output.stdout)?;
        let number = |label: &str| -> anyhow::Result<f64> {
            let line = text.lines().find_map(|line| line.strip_prefix(label));
            let word = line.and_then(|rest| rest.split([' ', '/']).find(|word| !word.is_empty()));
            word.with_context(|| format!("pgbench printed no `{label}`: {text}"))?
                .parse()
                .with_context(|| format!("pgbench printed an odd `{label}`"))
        };
        ensure!(
            number("number of failed transactions:")? == 0.0,
            "transactions failed through {}: {text}",
            target.kind.name()
        );
        let count = number("number of transactions actually processed:")?;
        ensure!(count > 0.0, "no transaction came through {}", target.kind.name());
        Ok(Done { count, per_second: number("tps =")?, latency: (clients == 1).then(|| self.latency()).transpose()? })
    }

    /// Reads and removes the log of transactions that pgbench has left.
    fn latency(&self) -> anyhow::Result<Latency> {
        let mut taken = Vec::new();
        for entry in fs::read_dir(self.directory)? {
            let path = entry?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            if !name.starts_with("latencies.") {
                continue;
            }
            for line in fs::read_to_string(&path)?.lines() {
                // client, transaction, microseconds, script, epoch, ...
                let field = line.split(' ').nth(2).context("a short line of log")?;
                taken.push(field.parse::<f64>()?);
            }
            fs::remove_file(&path)?;
        }
        ensure!(!taken.is_empty(), "pgbench left no log of its transactions");
        Ok(Latency {
            mean_us: taken.iter().sum::<f64>() / taken.len() as f64,
            median_us: crate::summary::quantile(&taken, 0.5),
            p99_us: crate::summary::quantile(&taken, 0.99),
        })
    }

    /// Time as psql takes it, so that neither its start nor the connection is in it.
    pub(crate) fn psql(&self, target: &Target, statement: &str) -> anyhow::Result<Done> {
        let mut psql = target.client(&self.programs.psql);
        psql.args(["-XAtq", "-o", "/dev/null", "-c", "\\timing on"]);
        for _ in 0..ROWS_TIMES {
            psql.args(["-c", statement]);
        }
        let output = self.processes.run(psql.arg(target.database))?;
        let text = String::from_utf8(output.stdout)?;
        let mut milliseconds = 0.0;
        let mut times = 0;
        for line in text.lines().filter_map(|line| line.strip_prefix("Time: ")) {
            let word = line.split(' ').next().unwrap_or_default();
            milliseconds += word.parse::<f64>()?;
            times += 1;
        }
        ensure!(times == ROWS_TIMES, "psql printed {times} times: {text}");
        let count = f64::from(ROWS * ROWS_TIMES);
        Ok(Done { count, per_second: count / (milliseconds / 1000.0), latency: None })
    }

    /// Resident bytes of a fresh proxy, alone and with many sessions that have asked once and now
    /// do nothing.
    pub(crate) fn idle(&self, cluster: &mut Cluster<'_>, kind: Kind) -> anyhow::Result<Idle> {
        let target = cluster.target(kind)?;
        let proxy = target.proxy.context("direct has no process to weigh")?;
        let empty_bytes = resident_bytes(proxy.pid())?;
        let clients = self.idle_clients(cluster, &target)?;
        let bytes = resident_bytes(proxy.pid())?;
        self.processes.end(clients);
        self.processes.end(proxy);
        self.idle_gone(cluster)?;
        Ok(Idle { empty_bytes, bytes })
    }

    /// Sessions that have asked once and now do nothing; ended with the process that holds them.
    pub(crate) fn idle_clients(&self, cluster: &Cluster<'_>, target: &Target) -> anyhow::Result<Started> {
        let script = self.directory.join("idle.sql");
        fs::write(&script, "select 1;\n\\sleep 2000 s\n")?;
        let mut pgbench = target.client(&self.programs.pgbench);
        pgbench
            .args(["--no-vacuum", "--jobs", "2", "--client", &IDLE_SESSIONS.to_string()])
            .args(["--transactions", "1", "--file"])
            .arg(&script)
            .arg(target.database)
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let (clients, ()) = self.processes.start(&mut pgbench, Signal::KILL, |_| ())?;
        let deadline = Instant::now() + IDLE_WITHIN;
        // Each has asked when the server says so.
        loop {
            let asked: u32 = cluster
                .query(
                    DATABASE,
                    "select count(*) from pg_stat_activity where query like 'select 1%' and state = 'idle'",
                )?
                .parse()?;
            if asked >= IDLE_SESSIONS {
                break;
            }
            if Instant::now() > deadline {
                bail!("only {asked} of {IDLE_SESSIONS} sessions came up through {}", target.kind.name());
            }
            thread::sleep(Duration::from_millis(200));
        }
        Ok(clients)
    }

    /// Waits until those sessions are gone.
    pub(crate) fn idle_gone(&self, cluster: &Cluster<'_>) -> anyhow::Result<()> {
        let deadline = Instant::now() + IDLE_WITHIN;
        while cluster.query(DATABASE, "select count(*) from pg_stat_activity where query like 'select 1%'")? != "0" {
            if Instant::now() > deadline {
                bail!("the idle sessions do not end");
            }
            thread::sleep(Duration::from_millis(200));
        }
        Ok(())
    }
}

/// Resident memory of a proxy.
#[derive(Clone, Copy, serde::Serialize)]
pub(crate) struct Idle {
    /// Just started.
    pub(crate) empty_bytes: u64,
    /// With `IDLE_SESSIONS`.
    pub(crate) bytes: u64,
}

/// Sessions held open for the weighing.
pub(crate) const IDLE_SESSIONS: u32 = 1000;
const IDLE_WITHIN: Duration = Duration::from_secs(120);
const ROWS: u32 = 500_000;
/// Statements in one measurement: one alone is over in a quarter of a second.
const ROWS_TIMES: u32 = 2;
pub(crate) const ROWS_STATEMENT: &str = "select aid, bid, abalance, filler from pgbench_accounts limit 500000";
const COPY_STATEMENT: &str = "copy (select aid, bid, abalance, filler from pgbench_accounts limit 500000) to stdout";
