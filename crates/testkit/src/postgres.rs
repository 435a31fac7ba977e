//! A PostgreSQL of the test's own: found on the machine, started on a free loopback port with a
//! data directory in a temporary place, its own log complete, stopped on drop.

use std::fs::{self, File};
use std::net::TcpListener;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::process::Signal;

use crate::process::{self, Process, poll, tethered};
use crate::{Authority, Namespace, ServerLog, Target, Tls};

/// The password of every role that the test kit makes.
pub const PASSWORD: &str = "upstream-Secret-4711";

/// A running PostgreSQL server with the roles `app_owner` (superuser, SCRAM), `md5_user` and
/// `password_user` (each named after how the server asks for their password), and database `app`.
#[derive(Debug)]
pub struct Postgres {
    process: Process,
    dir: tempfile::TempDir,
    authority: Authority,
    port: u16,
    namespace: Option<String>,
    markers: AtomicU32,
}

impl Postgres {
    /// Starts a server from a copied template, which is made once per version and target directory.
    pub fn start() -> Postgres {
        Postgres::start_with(&[])
    }

    /// As [`Postgres::start`], with further `name=value` settings.
    pub fn start_with(settings: &[&str]) -> Postgres {
        Postgres::start_there(settings, None)
    }

    /// As [`Postgres::start`], in a network namespace: nobody outside of it can connect.
    pub fn start_in(namespace: &Namespace) -> Postgres {
        Postgres::start_there(&[], Some(namespace.name()))
    }

    fn start_there(settings: &[&str], namespace: Option<&str>) -> Postgres {
        let dir = tempfile::Builder::new().prefix("onrecord-pg-").tempdir().unwrap();
        let data = dir.path().join("data");
        copy_tree(&template(), &data);
        let authority = Authority::new();
        fs::copy(authority.certificate(), data.join("server.crt")).unwrap();
        fs::copy(authority.key(), data.join("server.key")).unwrap();
        hand_over(dir.path());
        let mut attempt = 0;
        loop {
            attempt += 1;
            let port = free_port();
            let mut process = launch(&data, port, settings, namespace);
            if await_ready(&data, &mut process) {
                let markers = AtomicU32::new(0);
                let namespace = namespace.map(str::to_owned);
                return Postgres { process, dir, authority, port, namespace, markers };
            }
            // Somebody else may have taken the port between our look and the server's.
            assert!(attempt < 5, "PostgreSQL does not start:\n{}", startup_log(&data));
        }
    }

    /// The port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The certificate authority that signed the server's certificate.
    pub fn authority(&self) -> &Authority {
        &self.authority
    }

    /// Direct access as the owner, without TLS.
    pub fn target(&self) -> Target {
        Target {
            host: "127.0.0.1".into(),
            port: self.port,
            user: "app_owner".into(),
            password: PASSWORD.into(),
            database: "app".into(),
            tls: Tls::Off,
        }
    }

    /// Runs statements directly, each in its own `psql -c`, and gives what the last one printed.
    #[track_caller]
    pub fn sql(&self, statements: &str) -> String {
        self.sql_in("app", statements)
    }

    /// As [`Postgres::sql`] in another database.
    #[track_caller]
    pub fn sql_in(&self, database: &str, statements: &str) -> String {
        let mut psql = match &self.namespace {
            None => Command::new(binary("psql")),
            Some(namespace) => Namespace::command(namespace, binary("psql")),
        };
        self.target().with_database(database).libpq(&mut psql);
        psql.args(["-XAtq", "-v", "ON_ERROR_STOP=1", "-c", statements]);
        process::run(&mut psql, "").expect_success(statements).trim_end().to_owned()
    }

    /// Makes a database of its own, so that its part of the server's log can be told apart.
    pub fn create_database(&self, name: &str) {
        self.sql(&format!("create database \"{name}\""));
    }

    /// The server's log, complete up to everything that a client has seen before this call.
    pub fn log(&self) -> ServerLog {
        let number = self.markers.fetch_add(1, Ordering::Relaxed);
        let marker = format!("onrecord-marker-{number}");
        self.sql_in("template1", &format!("select '{marker}'"));
        let path = self.dir.path().join("data/log/server.csv");
        poll("the server's log to reach its marker", || {
            let bytes = fs::read(&path).ok()?;
            let text = String::from_utf8_lossy(&bytes).into_owned();
            text.contains(&marker).then(|| ServerLog::parse(&text))
        })
    }

    /// The postmaster, for tests that take it away.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// The directory of the server's log and data.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }
}

/// One of PostgreSQL's programs, from PATH or Debian's place for them, newest version first.
pub fn binary(name: &str) -> PathBuf {
    let mut versions: Vec<(u32, PathBuf)> = fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|e| Some((e.file_name().to_str()?.parse().ok()?, e.path().join("bin"))))
        .filter(|(_, bin)| bin.join("initdb").is_file())
        .collect();
    versions.sort();
    // Debian's psql on PATH is a wrapper in Perl; the real one is quicker and takes signals itself.
    if let Some(path) = versions.iter().rev().map(|(_, bin)| bin.join(name)).find(|p| p.is_file()) {
        return path;
    }
    process::find_program(name).unwrap_or_else(|| {
        panic!("PostgreSQL's `{name}` not found: `cargo xtask test` installs it (Debian: postgresql)")
    })
}

fn launch(data: &Path, port: u16, settings: &[&str], namespace: Option<&str>) -> Process {
    let log = File::create(data.join("startup.log")).unwrap();
    // Fast shutdown would wait for sessions; the data is thrown away in any case.
    let mut command = match namespace {
        None => tethered(binary("postgres"), "QUIT"),
        Some(namespace) => Namespace::command_as(namespace, binary("postgres"), server_user(), "QUIT"),
    };
    command.arg("-D").arg(data).args(["-c", &format!("port={port}")]);
    for setting in settings {
        command.args(["-c", setting]);
    }
    command.stdout(log.try_clone().unwrap()).stderr(log).current_dir(data);
    if namespace.is_none() {
        as_server_user(&mut command);
    }
    Process::start("postgres", &mut command, Signal::QUIT)
}

fn await_ready(data: &Path, process: &mut Process) -> bool {
    poll("PostgreSQL to be ready", || {
        if process.ended().is_some() {
            return Some(false);
        }
        let state = fs::read_to_string(data.join("postmaster.pid")).unwrap_or_default();
        let ready = state.lines().nth(7).is_some_and(|line| line.trim() == "ready");
        let ours = state.lines().next() == Some(process.id().to_string().as_str());
        (ready && ours).then_some(true)
    })
}

fn startup_log(data: &Path) -> String {
    let log = fs::read_to_string(data.join("startup.log")).unwrap_or_default();
    log + &fs::read_to_string(data.join("log/server.csv")).unwrap_or_default()
}

/// The data directory that every server is copied from. Made under a lock, kept in `target/`.
fn template() -> PathBuf {
    let version = process::run(Command::new(binary("postgres")).arg("--version"), "");
    let version = version.expect_success("postgres --version");
    let version: String = version.chars().filter(|c| c.is_ascii_digit() || *c == '.').collect();
    let home = target_dir().join("testkit");
    fs::create_dir_all(&home).unwrap();
    let lock = File::create(home.join("template.lock")).unwrap();
    lock.lock().unwrap();
    let template = home.join(format!("postgres-{version}-r{TEMPLATE_RECIPE}"));
    if !template.is_dir() {
        let work = tempfile::Builder::new().prefix("onrecord-initdb-").tempdir().unwrap();
        initialise(work.path());
        let fresh = home.join("template.new");
        let _ = fs::remove_dir_all(&fresh);
        copy_tree(&work.path().join("data"), &fresh);
        fs::rename(&fresh, &template).unwrap();
    }
    template
}

fn initialise(work: &Path) {
    fs::write(work.join("password"), PASSWORD).unwrap();
    hand_over(work);
    let data = work.join("data");
    let mut initdb = Command::new(binary("initdb"));
    initdb.arg("-D").arg(&data).arg("--pwfile").arg(work.join("password"));
    initdb.args(["-U", "app_owner", "-A", "scram-sha-256", "-E", "UTF8", "--no-sync"]);
    initdb.args(["--locale=C", "--no-instructions"]).current_dir(work);
    process::run(as_server_user(&mut initdb), "").expect_success("initdb");
    fs::write(data.join("postgresql.auto.conf"), SETTINGS).unwrap();
    fs::write(data.join("pg_hba.conf"), HBA).unwrap();
    let mut single = Command::new(binary("postgres"));
    single.args(["--single", "-j", "-D"]).arg(&data).arg("postgres").current_dir(work);
    let done = process::run(as_server_user(&mut single), &roles());
    assert!(!done.stderr.contains("ERROR"), "roles: {}", done.stderr);
    done.expect_success("postgres --single");
}

fn roles() -> String {
    let role = |name: &str, method: &str| {
        format!(
            "set password_encryption = '{method}';\n\n\
             create role {name} login password '{PASSWORD}';\n\n"
        )
    };
    role("md5_user", "md5") + &role("password_user", "scram-sha-256") + "create database app owner app_owner;\n\n"
}

fn copy_tree(from: &Path, to: &Path) {
    let mut cp = Command::new("cp");
    cp.args(["-R", "--reflink=auto"]).arg(from).arg(to);
    process::run(&mut cp, "").expect_success("cp");
}

/// Gives a directory to the user that the server runs as.
fn hand_over(dir: &Path) {
    let mut chmod = Command::new("chmod");
    process::run(chmod.args(["-R", "go-rwx"]).arg(dir), "").expect_success("chmod");
    if let Some((uid, gid)) = server_user() {
        let mut chown = Command::new("chown");
        chown.args(["-R", &format!("{uid}:{gid}")]).arg(dir);
        process::run(&mut chown, "").expect_success("chown");
    }
}

fn as_server_user(command: &mut Command) -> &mut Command {
    if let Some((uid, gid)) = server_user() {
        command.uid(uid).gid(gid);
    }
    command
}

/// PostgreSQL refuses to run as root: `postgres` where that user exists, else `nobody`.
pub fn server_user() -> Option<(u32, u32)> {
    if !rustix::process::geteuid().is_root() {
        return None;
    }
    let users = fs::read_to_string("/etc/passwd").unwrap();
    let find = |name: &str| {
        let mut fields = users.lines().map(|l| l.split(':').collect::<Vec<_>>());
        let user = fields.find(|f| f.first() == Some(&name))?;
        Some((user.get(2)?.parse().ok()?, user.get(3)?.parse().ok()?))
    };
    Some(find("postgres").or_else(|| find("nobody")).expect("a user to run PostgreSQL as"))
}

/// The target directory that this test was built into.
pub fn target_dir() -> PathBuf {
    let exe = std::env::current_exe().unwrap();
    let found = exe.ancestors().find(|dir| dir.join("CACHEDIR.TAG").is_file());
    found.unwrap_or_else(|| panic!("{} is in no cargo target directory", exe.display())).to_owned()
}

/// A loopback port that was free a moment ago.
pub fn free_port() -> u16 {
    TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port()
}

/// Raise when what the template holds changes.
const TEMPLATE_RECIPE: u32 = 1;

const HBA: &str = "\
host all md5_user      127.0.0.1/32 md5
host all password_user 127.0.0.1/32 password
host all all           127.0.0.1/32 scram-sha-256
";

/// The log is the server's account of what ran: every statement before it runs, its duration when
/// it succeeded, its text when it failed.
const SETTINGS: &str = "\
listen_addresses = '127.0.0.1'
unix_socket_directories = ''
ssl = on
fsync = off
shared_buffers = '64MB'
max_connections = 300
max_prepared_transactions = 2
timezone = 'UTC'
log_timezone = 'UTC'
lc_messages = 'C'
logging_collector = on
log_destination = 'csvlog'
log_directory = 'log'
log_filename = 'server'
log_rotation_age = 0
log_rotation_size = 0
log_statement = 'all'
log_duration = on
log_min_error_statement = 'error'
log_min_messages = 'warning'
log_connections = on
log_disconnections = on
";
