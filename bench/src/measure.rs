//! Instruments: processor time and memory of a process, the disk's own flush, the machine's noise.

use std::{
    fs::{self, File, OpenOptions},
    os::unix::fs::FileExt,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::Context;

/// Processor time that a process and all its threads have used, in microseconds.
pub(crate) fn cpu_us(pid: u32) -> anyhow::Result<u64> {
    let stat = Stat::read(pid).with_context(|| format!("process {pid} has ended"))?;
    Ok(ticks_us(stat.own_ticks))
}

/// Resident memory of a process in bytes.
pub(crate) fn resident_bytes(pid: u32) -> anyhow::Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let kib: u64 = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .and_then(|rest| rest.split_whitespace().next())
        .context("no VmRSS")?
        .parse()?;
    Ok(kib * 1024)
}

/// The disk's own flush: 4 KiB written into a zero-filled file, then fdatasync.
pub(crate) struct Disk {
    file: File,
    next_page: u64,
}

impl Disk {
    /// Makes the file, in the directory whose disk is meant.
    pub(crate) fn new(directory: &Path) -> anyhow::Result<Self> {
        let file = OpenOptions::new().write(true).create_new(true).open(directory.join("fdatasync-probe"))?;
        for page in 0..DISK_PAGES {
            file.write_all_at(&[0; PAGE_BYTES], page * PAGE_BYTES as u64)?;
        }
        file.sync_all()?;
        Ok(Self { file, next_page: 0 })
    }

    /// What each of `count` flushes took, in microseconds.
    pub(crate) fn flushes_us(&mut self, count: usize) -> anyhow::Result<Vec<f64>> {
        let mut taken = Vec::with_capacity(count);
        for _ in 0..count {
            let start = Instant::now();
            self.file.write_all_at(&[1; PAGE_BYTES], self.next_page * PAGE_BYTES as u64)?;
            self.file.sync_data()?;
            taken.push(microseconds(start.elapsed()));
            self.next_page = (self.next_page + 1) % DISK_PAGES;
        }
        Ok(taken)
    }
}

/// How much of the machine others took: processor time that neither we nor our processes used, and
/// time the hypervisor withheld, as shares of what the machine had.
#[derive(Clone, Copy, serde::Serialize)]
pub(crate) struct Noise {
    pub(crate) others: f64,
    pub(crate) stolen: f64,
}

/// Counters at one instant; two of them make a `Noise`.
pub(crate) struct Machine {
    total: u64,
    busy: u64,
    stolen: u64,
    ours: u64,
}

impl Machine {
    /// Reads the counters. `pids` are our processes; their children count as ours too.
    pub(crate) fn read(pids: &[u32]) -> anyhow::Result<Self> {
        let stat = fs::read_to_string("/proc/stat")?;
        let line = stat.lines().next().context("/proc/stat is empty")?;
        let times: Vec<u64> = line.split_whitespace().skip(1).take(8).map(|field| field.parse().unwrap_or(0)).collect();
        let &[user, nice, system, _idle, _wait, irq, soft, stolen] = times.as_slice() else {
            anyhow::bail!("/proc/stat has fewer fields than known");
        };
        let own = std::process::id();
        let ours = fs::read_dir("/proc")?
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
            .filter_map(|pid: u32| Some((pid, Stat::read(pid)?)))
            .filter(|(pid, stat)| *pid == own || pids.contains(pid) || pids.contains(&stat.parent))
            .map(|(_, stat)| stat.own_ticks + stat.waited_ticks)
            .sum();
        Ok(Self { total: times.iter().sum(), busy: user + nice + system + irq + soft, stolen, ours })
    }

    /// What happened since an earlier reading.
    pub(crate) fn noise_since(&self, earlier: &Self) -> Noise {
        let total = self.total.saturating_sub(earlier.total).max(1) as f64;
        let busy = self.busy.saturating_sub(earlier.busy);
        let ours = self.ours.saturating_sub(earlier.ours);
        Noise {
            others: busy.saturating_sub(ours) as f64 / total,
            stolen: self.stolen.saturating_sub(earlier.stolen) as f64 / total,
        }
    }
}

/// Microseconds as a number that can be averaged.
pub(crate) fn microseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e6
}

/// The fields of `/proc/PID/stat` that matter here.
struct Stat {
    parent: u32,
    /// User and system time of the process and its threads.
    own_ticks: u64,
    /// The same of its children that have ended and been waited for.
    waited_ticks: u64,
}

impl Stat {
    fn read(pid: u32) -> Option<Self> {
        let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name may hold anything; the fields begin after its last parenthesis.
        let (_, rest) = text.rsplit_once(')')?;
        let fields: Vec<&str> = rest.split_whitespace().collect();
        let field = |at: usize| -> Option<u64> { fields.get(at)?.parse().ok() };
        Some(Self {
            parent: fields.get(1)?.parse().ok()?,
            own_ticks: field(11)? + field(12)?,
            waited_ticks: field(13)? + field(14)?,
        })
    }
}

fn ticks_us(ticks: u64) -> u64 {
    ticks * 1_000_000 / rustix::param::clock_ticks_per_second()
}

const PAGE_BYTES: usize = 4096;
/// 16 MiB, the size of a short stretch of log.
const DISK_PAGES: u64 = 4096;
