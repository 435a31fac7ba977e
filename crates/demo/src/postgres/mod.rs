//! The demo's own PostgreSQL: a throw-away server from the system's programs, on loopback, on a free port.
//!
//! Not for: keeping anything. It runs without fsync.

mod find;
mod install;

use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

use crate::place::{Place, make_private};

pub(crate) use find::Programs;

/// The superuser of the server, which only the gateway signs in as.
pub(crate) const OWNER: &str = "shop_owner";
/// In a data directory that is complete.
const MARKER: &str = "onrecord-demo";
/// How long a start or a stop may take.
const WAIT_MAX: Duration = Duration::from_secs(30);

/// A running server. Dropping it stops it.
pub(crate) struct Server {
    child: Child,
    /// Its port on 127.0.0.1.
    pub(crate) port: u16,
    /// What `postgres --version` says.
    pub(crate) version: String,
}

/// Whom the server runs as when the demo runs as root, which PostgreSQL refuses to.
#[derive(Debug, Clone, Copy)]
struct Account {
    uid: u32,
    gid: u32,
}

impl Server {
    /// Finds or installs the programs, makes the data directory unless an earlier run left one, and starts.
    /// `say` is told what takes long.
    pub(crate) fn start(place: &Place, password: &str, say: &mut dyn FnMut(&str)) -> Result<Self> {
        let programs = match Programs::find() {
            Some(programs) => programs,
            None => install::install(say)?,
        };
        let account = Account::needed()?;
        let data = data_directory(place, account)?;
        stop_stale(&data)?;
        let version = programs.version.clone();
        if !usable(&data, &programs, password) {
            if data.exists() {
                fs::remove_dir_all(&data)?;
            }
            initialise(&programs, &data, account, password, place)?;
        }
        let port = free_port()?;
        let child = launch(&programs, &data, account, port, place)?;
        let mut server = Self { child, port, version };
        server.await_ready(&data, place)?;
        Ok(server)
    }

    /// Stops the server: fast shutdown, and waits for it.
    pub(crate) fn stop(mut self) {
        self.shut_down();
    }

    /// The server writes its state as the last line of `postmaster.pid`.
    fn await_ready(&mut self, data: &Path, place: &Place) -> Result<()> {
        let started = Instant::now();
        loop {
            let state = fs::read_to_string(data.join("postmaster.pid")).unwrap_or_default();
            if state.lines().nth(7).is_some_and(|line| line.trim() == "ready") {
                return Ok(());
            }
            if let Some(status) = self.child.try_wait()? {
                bail!("PostgreSQL ended with {status} at its start; it says:\n{}", tail(&place.server_log()));
            }
            if started.elapsed() > WAIT_MAX {
                bail!("PostgreSQL is not ready after {WAIT_MAX:?}; it says:\n{}", tail(&place.server_log()));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn shut_down(&mut self) {
        if matches!(self.child.try_wait(), Ok(Some(_))) {
            return;
        }
        signal(self.child.id(), Signal::INT);
        let asked = Instant::now();
        while asked.elapsed() < WAIT_MAX {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.shut_down();
    }
}

impl Account {
    /// None unless this process is root; then the account `postgres`, else `nobody`.
    fn needed() -> Result<Option<Self>> {
        if !rustix::process::geteuid().is_root() {
            return Ok(None);
        }
        let accounts = fs::read_to_string("/etc/passwd").context("cannot read /etc/passwd")?;
        let account = |name: &str| {
            accounts.lines().find_map(|line| {
                let mut fields = line.split(':');
                (fields.next() == Some(name)).then_some(())?;
                let uid = fields.nth(1)?.parse().ok()?;
                Some(Self { uid, gid: fields.next()?.parse().ok()? })
            })
        };
        let account = account("postgres").or_else(|| account("nobody")).context(
            "PostgreSQL does not run as root, and there is neither an account postgres nor nobody: run the demo as another user",
        )?;
        Ok(Some(account))
    }

    fn apply(self, command: &mut Command) {
        command.uid(self.uid).gid(self.gid);
    }
}

/// Below the demo's own directory; for root elsewhere, because the server's account may not enter root's.
fn data_directory(place: &Place, account: Option<Account>) -> Result<PathBuf> {
    let Some(account) = account else {
        return Ok(place.root().join("postgres"));
    };
    let home = std::env::var_os("HOME").map(PathBuf::from);
    let mut name = "onrecord-demo".to_owned();
    if home.is_none_or(|home| place.root() != home.join(".local/share/onrecord/demo")) {
        // Another XDG_DATA_HOME is another demo.
        name = format!("{name}-{:016x}", hash(place.root()));
    }
    let parent = Path::new("/var/lib").join(name);
    make_private(&parent)?;
    std::os::unix::fs::chown(&parent, Some(account.uid), Some(account.gid))?;
    Ok(parent.join("postgres"))
}

/// Removes the server's data.
pub(crate) fn wipe(place: &Place) -> Result<()> {
    let account = Account::needed()?;
    let data = data_directory(place, account)?;
    stop_stale(&data)?;
    if data.exists() {
        fs::remove_dir_all(&data).with_context(|| format!("cannot remove {}", data.display()))?;
    }
    if account.is_some()
        && let Some(parent) = data.parent()
    {
        fs::remove_dir(parent)?;
    }
    Ok(())
}

/// Whether an earlier run left a complete data directory of the same major version and password. The last
/// file that `initialise` writes says so.
fn usable(data: &Path, programs: &Programs, password: &str) -> bool {
    fs::read_to_string(data.join(MARKER)).is_ok_and(|text| text == marker(programs, password))
}

fn marker(programs: &Programs, password: &str) -> String {
    format!("{} {:016x}", programs.major, hash(password))
}

fn hash(value: impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

fn initialise(programs: &Programs, data: &Path, account: Option<Account>, password: &str, place: &Place) -> Result<()> {
    make_private(data)?;
    // initdb reads the superuser's password from a file that its account may read.
    let hidden = data.with_extension("password");
    crate::place::write_private(&hidden, password)?;
    if let Some(account) = account {
        for path in [data, hidden.as_path()] {
            std::os::unix::fs::chown(path, Some(account.uid), Some(account.gid))?;
        }
    }
    let log = fs::File::create(place.server_log())?;
    let mut initdb = Command::new(programs.directory.join("initdb"));
    initdb
        .arg("--pgdata")
        .arg(data)
        .arg("--pwfile")
        .arg(&hidden)
        .args(["--username", OWNER, "--auth=scram-sha-256", "--encoding=UTF8", "--no-locale", "--no-sync"])
        .current_dir("/")
        .env_remove("PGDATA")
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log);
    if let Some(account) = account {
        account.apply(&mut initdb);
    }
    let status = initdb.status().with_context(|| format!("cannot run {:?}", initdb.get_program()))?;
    fs::remove_file(&hidden)?;
    if !status.success() {
        bail!("initdb ended with {status}; it says:\n{}", tail(&place.server_log()));
    }
    fs::write(data.join(MARKER), marker(programs, password))?;
    Ok(())
}

fn launch(programs: &Programs, data: &Path, account: Option<Account>, port: u16, place: &Place) -> Result<Child> {
    let log = fs::OpenOptions::new().append(true).create(true).open(place.server_log())?;
    let mut postgres = Command::new(programs.directory.join("postgres"));
    postgres.arg("-D").arg(data).args(["-p", &port.to_string()]);
    for setting in [
        "listen_addresses=127.0.0.1",
        "unix_socket_directories=",
        "fsync=off",
        "full_page_writes=off",
        "synchronous_commit=off",
        "shared_buffers=16MB",
        "max_connections=32",
        "logging_collector=off",
    ] {
        postgres.args(["-c", setting]);
    }
    postgres
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        // Its own group: Ctrl-C reaches the demo alone, which then stops the gateway before the server.
        .process_group(0);
    if let Some(account) = account {
        account.apply(&mut postgres);
    }
    postgres.spawn().with_context(|| format!("cannot run {:?}", postgres.get_program()))
}

/// Stops the server that a killed demo left behind. The process is ours only if it runs in our directory.
fn stop_stale(data: &Path) -> Result<()> {
    let Ok(state) = fs::read_to_string(data.join("postmaster.pid")) else { return Ok(()) };
    let Some(pid) = state.lines().next().and_then(|line| line.trim().parse::<u32>().ok()) else {
        return Ok(());
    };
    let ours = || fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|directory| directory == data);
    if !ours() {
        return Ok(());
    }
    signal(pid, Signal::INT);
    let asked = Instant::now();
    while ours() {
        if asked.elapsed() > WAIT_MAX {
            bail!("the PostgreSQL of an earlier demo (process {pid}) does not stop");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

fn signal(pid: u32, signal: Signal) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        let _ = kill_process(pid, signal);
    }
}

fn free_port() -> Result<u16> {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").context("no free port on 127.0.0.1")?;
    Ok(listener.local_addr()?.port())
}

fn tail(log: &Path) -> String {
    let text = fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    let from = lines.len().saturating_sub(12);
    lines.get(from..).unwrap_or_default().iter().map(|line| format!("  {line}\n")).collect()
}
