//! What is measured: one PostgreSQL, and what may stand in front of it.
//!
//! Every proxy has one thread for its sessions: pgbouncer and the byte copy have no other, the
//! gateway runs with `workers = 1` (its flusher is a second thread, and its time is counted). Each
//! durability has a gateway process of its own, so that processor time and memory are its own; the
//! ones that are not being measured sit idle. TLS is off everywhere.

use std::{
    env, fs,
    io::{BufRead, BufReader},
    net::{SocketAddr, TcpListener, TcpStream},
    os::unix::{
        fs::{PermissionsExt, chown},
        process::CommandExt,
    },
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, bail, ensure};
use clap::ValueEnum;
use rustix::process::Signal;

use crate::processes::{Processes, Started};

/// In the order of a round.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Kind {
    /// No proxy.
    Direct,
    /// pgbouncer in session mode.
    Pgbouncer,
    /// The plain two-way byte copy.
    Relay,
    /// The gateway: the intent is on stable storage before the command leaves.
    Intent,
    /// As `Intent`, with a policy that every statement is put to: the example rules of docs/examples/policy.
    Policy,
    /// The gateway: the response waits for stable storage.
    Held,
    /// The gateway: the intent has left the process; synced within a bound.
    Written,
}

impl Kind {
    /// All of them.
    pub(crate) const ALL: [Self; 7] =
        [Self::Direct, Self::Pgbouncer, Self::Relay, Self::Intent, Self::Policy, Self::Held, Self::Written];

    /// As the options and tables call it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Pgbouncer => "pgbouncer",
            Self::Relay => "relay",
            Self::Intent => "intent",
            Self::Policy => "policy",
            Self::Held => "held",
            Self::Written => "written",
        }
    }

    /// Whether it is the gateway.
    pub(crate) fn records(self) -> bool {
        matches!(self, Self::Intent | Self::Policy | Self::Held | Self::Written)
    }

    /// The gateway's durability.
    fn durability(self) -> &'static str {
        if self == Self::Policy { Self::Intent.name() } else { self.name() }
    }
}

/// One way to reach the database.
#[derive(Clone, Copy)]
pub(crate) struct Target {
    pub(crate) kind: Kind,
    pub(crate) address: SocketAddr,
    /// The process in between; none for direct.
    pub(crate) proxy: Option<Started>,
    /// What the database is called there.
    pub(crate) database: &'static str,
}

impl Target {
    /// A client program pointed here, with TLS and GSSAPI off whatever the environment says.
    pub(crate) fn client(&self, program: &Path) -> Command {
        client(program, self.address)
    }
}

/// The programs a run needs, found once.
pub(crate) struct Programs {
    pub(crate) pgbench: PathBuf,
    pub(crate) psql: PathBuf,
    initdb: PathBuf,
    postgres: PathBuf,
    pgbouncer: PathBuf,
    relay: PathBuf,
    pub(crate) onrecord: PathBuf,
    pub(crate) outpost: PathBuf,
}

impl Programs {
    /// Looks in PATH, then where Debian keeps PostgreSQL's own.
    pub(crate) fn find(onrecord: Option<PathBuf>) -> anyhow::Result<Self> {
        let beside = env::current_exe()?;
        let beside = beside.parent().context("this program has no directory")?;
        Ok(Self {
            pgbench: find("pgbench")?,
            psql: find("psql")?,
            initdb: find("initdb")?,
            postgres: find("postgres")?,
            pgbouncer: find("pgbouncer").unwrap_or_else(|_| PathBuf::from("pgbouncer")),
            relay: beside.join("relay"),
            outpost: beside.join("onrecord-outpost"),
            onrecord: onrecord.unwrap_or_else(|| beside.join("onrecord")),
        })
    }

    /// What PostgreSQL and pgbouncer call themselves.
    pub(crate) fn versions(&self) -> Vec<String> {
        [&self.postgres, &self.pgbouncer]
            .into_iter()
            .filter_map(|program| {
                let output = Command::new(program).arg("--version").output().ok()?;
                let text = String::from_utf8(output.stdout).ok()?;
                Some(text.lines().next()?.to_owned())
            })
            .collect()
    }
}

/// A running PostgreSQL with pgbench's tables, and how to put proxies before it.
pub(crate) struct Cluster<'a> {
    pub(crate) processes: &'a Processes,
    pub(crate) programs: &'a Programs,
    pub(crate) directory: &'a Path,
    pub(crate) server: SocketAddr,
    /// The SCRAM secret as the server keeps it; the gateway's identity has the same.
    pub(crate) secret: String,
    account: Option<Account>,
    proxies_started: u32,
}

impl<'a> Cluster<'a> {
    /// Makes and starts the database. fsync and the rest are as PostgreSQL has them by default.
    pub(crate) fn start(processes: &'a Processes, programs: &'a Programs, directory: &'a Path) -> anyhow::Result<Self> {
        let account = Account::for_servers()?;
        let data = directory.join("postgres");
        fs::create_dir(&data)?;
        fs::set_permissions(directory, fs::Permissions::from_mode(0o755))?;
        let password = directory.join("password");
        fs::write(&password, PASSWORD)?;
        for path in [&data, &password] {
            Account::own(account.as_ref(), path)?;
        }
        let server = free_address()?;
        let mut initdb = Command::new(&programs.initdb);
        initdb
            .arg("--pgdata")
            .arg(&data)
            .args(["--username", USER, "--auth", "scram-sha-256"])
            .args(["--encoding", "UTF8", "--no-locale", "--pwfile"])
            .arg(&password);
        processes.run(Account::run_as(account.as_ref(), &mut initdb, &data))?;

        let mut postgres = Command::new(&programs.postgres);
        postgres
            .arg("-D")
            .arg(&data)
            .args(["-p", &server.port().to_string()])
            .args(["-c", "listen_addresses=127.0.0.1"])
            .args(["-c", "unix_socket_directories="])
            .args(["-c", "shared_buffers=256MB"])
            .args(["-c", "max_connections=4000"])
            .args(["-c", "logging_collector=off"])
            .args(["-c", "log_min_messages=panic"])
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        processes.start(Account::run_as(account.as_ref(), &mut postgres, &data), Signal::INT, |_| ())?;
        let mut cluster =
            Self { processes, programs, directory, server, secret: String::new(), account, proxies_started: 0 };
        cluster.fill()?;
        Ok(cluster)
    }

    fn fill(&mut self) -> anyhow::Result<()> {
        let deadline = Instant::now() + START_WITHIN;
        while let Err(error) = self.query("postgres", "select 1") {
            ensure!(Instant::now() < deadline, "PostgreSQL does not start: {error:#}");
            thread::sleep(Duration::from_millis(50));
        }
        self.query("postgres", &format!("create database {DATABASE}"))?;
        let mut pgbench = client(&self.programs.pgbench, self.server);
        pgbench.args(["--initialize", "--quiet", "--scale", SCALE, DATABASE]);
        self.processes.run(&mut pgbench)?;
        self.query(DATABASE, "checkpoint")?;
        self.secret = self.query("postgres", "select rolpassword from pg_authid where rolname = current_user")?;
        Ok(())
    }

    /// Asks the server itself.
    pub(crate) fn query(&self, database: &str, text: &str) -> anyhow::Result<String> {
        let mut psql = client(&self.programs.psql, self.server);
        psql.args(["-XAtqc", text, database]);
        let output = self.processes.run(&mut psql)?;
        Ok(String::from_utf8(output.stdout)?.trim_end().to_owned())
    }

    /// Has the server take TLS with this certificate and key, as files in its data directory.
    pub(crate) fn secure(&self, certificate: &str, key: &str) -> anyhow::Result<()> {
        let data = self.directory.join("postgres");
        for (name, text) in [("server.crt", certificate), ("server.key", key)] {
            let path = data.join(name);
            fs::write(&path, text)?;
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
            Account::own(self.account.as_ref(), &path)?;
        }
        self.query("postgres", "alter system set ssl = on")?;
        self.query("postgres", "select pg_reload_conf()")?;
        Ok(())
    }

    /// Starts a fresh proxy of this kind.
    pub(crate) fn target(&mut self, kind: Kind) -> anyhow::Result<Target> {
        self.proxies_started += 1;
        let name = format!("{}-{}", kind.name(), self.proxies_started);
        let directory = self.directory.join(name);
        fs::create_dir(&directory)?;
        let (address, proxy) = match kind {
            Kind::Direct => (self.server, None),
            Kind::Pgbouncer => self.pgbouncer(&directory)?,
            Kind::Relay => self.relay()?,
            Kind::Intent | Kind::Policy | Kind::Held | Kind::Written => self.gateway(kind, &directory)?,
        };
        Ok(Target { kind, address, proxy, database: DATABASE })
    }

    fn pgbouncer(&self, directory: &Path) -> anyhow::Result<(SocketAddr, Option<Started>)> {
        let address = free_address()?;
        let (port, server) = (address.port(), self.server.port());
        let users = directory.join("users");
        fs::write(&users, format!("\"{USER}\" \"{PASSWORD}\"\n"))?;
        let ini = directory.join("pgbouncer.ini");
        fs::write(
            &ini,
            format!(
                "[databases]\n\
                 {DATABASE} = host=127.0.0.1 port={server} dbname={DATABASE} user={USER} password={PASSWORD}\n\
                 [pgbouncer]\n\
                 listen_addr = 127.0.0.1\n\
                 listen_port = {port}\n\
                 unix_socket_dir =\n\
                 auth_type = scram-sha-256\n\
                 auth_file = {users}\n\
                 pool_mode = session\n\
                 max_client_conn = 4000\n\
                 default_pool_size = 4000\n\
                 log_connections = 0\n\
                 log_disconnections = 0\n\
                 log_stats = 0\n",
                users = users.display(),
            ),
        )?;
        for path in [directory, users.as_path(), ini.as_path()] {
            Account::own(self.account.as_ref(), path)?;
        }
        let mut command = Command::new(&self.programs.pgbouncer);
        command.arg("--quiet").arg(&ini).stdout(Stdio::null()).stderr(Stdio::piped());
        let command = Account::run_as(self.account.as_ref(), &mut command, directory);
        let (started, lines) = self.processes.start(command, Signal::TERM, stderr_lines)?;
        let deadline = Instant::now() + START_WITHIN;
        while TcpStream::connect(address).is_err() {
            if Instant::now() > deadline {
                let said: Vec<String> = lines.try_iter().collect();
                bail!("pgbouncer does not start: {}", said.join("; "));
            }
            thread::sleep(Duration::from_millis(20));
        }
        Ok((address, Some(started)))
    }

    fn relay(&self) -> anyhow::Result<(SocketAddr, Option<Started>)> {
        let mut command = Command::new(&self.programs.relay);
        command.arg(self.server.to_string()).stderr(Stdio::piped());
        let (started, lines) = self.processes.start(&mut command, Signal::TERM, stderr_lines)?;
        let line = lines.recv_timeout(START_WITHIN).context("the relay does not start")?;
        Ok((line.parse()?, Some(started)))
    }

    fn gateway(&self, kind: Kind, directory: &Path) -> anyhow::Result<(SocketAddr, Option<Started>)> {
        ensure!(
            self.programs.onrecord.exists(),
            "{} is not built; leave the gateway out with --targets direct,pgbouncer,relay",
            self.programs.onrecord.display()
        );
        let config = directory.join("onrecord.toml");
        let data = directory.join("data");
        let name = format!("bench.invalid/{}", kind.name());
        let mut init = Command::new(&self.programs.onrecord);
        init.args(["init", "--name", &name, "--listen", "127.0.0.1:0", "--config"])
            .arg(&config)
            .arg("--data")
            .arg(&data);
        self.processes.run(&mut init)?;
        // Rules that ask for approval need somebody who could give it, though nothing here is held.
        let (api, policy, issuer) = if kind == Kind::Policy {
            fs::write(directory.join("rules.yaml"), RULES)?;
            (
                "api = [\"127.0.0.1:0\"]\n",
                "labels = { env = \"dev\" }\npolicy = [\"rules.yaml\"]\napprovals = { groups = [\"on-call\"] }\n",
                "[issuers.nobody]\nissuer = \"http://127.0.0.1:9\"\naudience = \"bench\"\n\
                 [[issuers.nobody.rules]]\nname = \"people\"\nwhen = \"true\"\nidentity = \"human:{claims.sub}\"\n",
            )
        } else {
            ("", "", "")
        };
        // `init` has made the record; what it is a record of is ours to say.
        let password = directory.join("password");
        fs::write(&password, PASSWORD)?;
        fs::set_permissions(&password, fs::Permissions::from_mode(0o600))?;
        fs::write(
            &config,
            format!(
                "[gateway]\n\
                 name = \"{name}\"\n\
                 data = {data:?}\n\
                 workers = 1\n\
                 [listen]\n\
                 postgres = [\"127.0.0.1:0\"]\n\
                 {api}\
                 [connections.{DATABASE}]\n\
                 kind = \"postgres\"\n\
                 address = \"{server}\"\n\
                 database = \"{DATABASE}\"\n\
                 user = \"{USER}\"\n\
                 password = \"file:{password}\"\n\
                 tls = \"disable\"\n\
                 durability = \"{durability}\"\n\
                 identities = [\"agent:{USER}\"]\n\
                 {policy}\
                 [identities.{USER}]\n\
                 kind = \"agent\"\n\
                 secret = \"{secret}\"\n\
                 [limits]\n\
                 connections_max = 4096\n\
                 connections_per_identity_max = 4096\n\
                 {issuer}",
                durability = kind.durability(),
                server = self.server,
                password = password.display(),
                secret = self.secret,
            ),
        )?;
        let mut command = Command::new(&self.programs.onrecord);
        command.args(["serve", "--config"]).arg(&config).stdout(Stdio::null()).stderr(Stdio::piped());
        let (started, lines) = self.processes.start(&mut command, Signal::TERM, stderr_lines)?;
        let deadline = Instant::now() + START_WITHIN;
        let mut said = Vec::new();
        while let Ok(line) = lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            if let Some((_, address)) = line.split_once("ready, postgres on ") {
                return Ok((address.trim().parse()?, Some(started)));
            }
            said.push(line);
        }
        bail!("the gateway does not start: {}", said.join("; "));
    }
}

/// The account that servers run as when we are root, which they refuse to run as.
struct Account {
    uid: u32,
    gid: u32,
}

impl Account {
    fn for_servers() -> anyhow::Result<Option<Self>> {
        if !rustix::process::geteuid().is_root() {
            return Ok(None);
        }
        let accounts = fs::read_to_string("/etc/passwd")?;
        for wanted in ["postgres", "nobody"] {
            for line in accounts.lines() {
                let mut fields = line.split(':');
                if fields.next() == Some(wanted)
                    && let (Some(uid), Some(gid)) = (fields.nth(1), fields.next())
                {
                    return Ok(Some(Self { uid: uid.parse()?, gid: gid.parse()? }));
                }
            }
        }
        bail!("as root, PostgreSQL needs an account `postgres` or `nobody` to run as");
    }

    fn own(account: Option<&Self>, path: &Path) -> anyhow::Result<()> {
        if let Some(account) = account {
            chown(path, Some(account.uid), Some(account.gid))?;
        }
        Ok(())
    }

    fn run_as<'c>(account: Option<&Self>, command: &'c mut Command, directory: &Path) -> &'c mut Command {
        if let Some(account) = account {
            command.uid(account.uid).gid(account.gid);
        }
        command.current_dir(directory)
    }
}

fn client(program: &Path, address: SocketAddr) -> Command {
    let mut command = Command::new(program);
    command
        .env("PGHOST", address.ip().to_string())
        .env("PGPORT", address.port().to_string())
        .env("PGUSER", USER)
        .env("PGPASSWORD", PASSWORD)
        .env("PGSSLMODE", "disable")
        .env("PGGSSENCMODE", "disable")
        .env("LC_ALL", "C");
    command
}

/// Reads a process's stderr for as long as it lives, so that it never blocks on a full pipe.
pub(crate) fn stderr_lines(child: &mut Child) -> mpsc::Receiver<String> {
    let (lines, receiver) = mpsc::sync_channel(LINES_KEPT_MAX);
    if let Some(stderr) = child.stderr.take() {
        thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                let _ = lines.try_send(line);
            }
        });
    }
    receiver
}

fn free_address() -> anyhow::Result<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}

fn find(program: &str) -> anyhow::Result<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let mut debian: Vec<PathBuf> = fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .filter_map(|entry| Some(entry.ok()?.path().join("bin")))
        .collect();
    debian.sort();
    env::split_paths(&path)
        .chain(["/usr/sbin".into()])
        .chain(debian.into_iter().rev())
        .map(|directory| directory.join(program))
        .find(|candidate| candidate.is_file())
        .with_context(|| format!("{program} is missing: `apt-get install postgresql pgbouncer` has all that is needed"))
}

/// The database, under the same name through every target.
pub(crate) const DATABASE: &str = "app";
pub(crate) const USER: &str = "bench";
/// Guards nothing: throw-away data, on loopback, for the length of a run.
pub(crate) const PASSWORD: &str = "bench";
/// The policy of [`Kind::Policy`].
const RULES: &str = include_str!("../../docs/examples/policy/rules.yaml");
/// A million accounts, about 150 MiB: in memory.
const SCALE: &str = "10";
pub(crate) const START_WITHIN: Duration = Duration::from_secs(30);
const LINES_KEPT_MAX: usize = 100;
