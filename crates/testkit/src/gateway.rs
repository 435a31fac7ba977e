//! The real `onrecord` binary as a gateway before a test's PostgreSQL.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use rustix::process::Signal;

use crate::postgres::PASSWORD;
use crate::process::{self, Finished, Process, poll};
use crate::tls::write_secret;
use crate::{Authority, Postgres, Record, Target, Tls, scram};

/// What a gateway is to be configured with.
#[derive(Clone, Debug)]
pub struct Plan {
    binary: PathBuf,
    connections: Vec<Connection>,
    limits: String,
    listen: String,
    groups: Vec<String>,
    tables: String,
    data: Option<PathBuf>,
    durability: &'static str,
    message_bytes_max: u64,
    policy: Option<(String, &'static str)>,
    approvals: Option<String>,
    break_glass: Option<String>,
}

/// One connection of the configuration.
#[derive(Clone, Debug)]
pub struct Connection {
    /// Its name: the database name that clients ask for.
    pub name: String,
    /// The database at the server.
    pub database: String,
    /// User at the server.
    pub user: String,
    /// `disable`, `require` or `verify-full`.
    pub tls: &'static str,
}

impl Plan {
    /// A gateway of this binary with the connections that the test kit's PostgreSQL serves: `app`
    /// as its owner, `md5` and `password` as the users of those methods, and `secure`, which is
    /// `app` over verified TLS. Databases of any name can be reached (`app/NAME`).
    pub fn new(binary: impl Into<PathBuf>) -> Plan {
        let connection = |name: &str, user: &str, tls| Connection {
            name: name.to_owned(),
            database: "app".to_owned(),
            user: user.to_owned(),
            tls,
        };
        Plan {
            binary: binary.into(),
            connections: vec![
                connection("app", "app_owner", "disable"),
                connection("md5", "md5_user", "disable"),
                connection("password", "password_user", "verify-full"),
                connection("secure", "app_owner", "verify-full"),
            ],
            limits: String::new(),
            listen: String::new(),
            groups: Vec::new(),
            tables: String::new(),
            data: None,
            durability: "intent",
            message_bytes_max: 1 << 30,
            policy: None,
            approvals: None,
            break_glass: None,
        }
    }

    /// One more connection, without TLS to the server.
    #[must_use]
    pub fn connection(mut self, name: &str, database: &str, user: &str) -> Plan {
        let (name, database, user) = (name.to_owned(), database.to_owned(), user.to_owned());
        self.connections.push(Connection { name, database, user, tls: "disable" });
        self
    }

    /// Lines for the `[limits]` table.
    #[must_use]
    pub fn limits(self, lines: &str) -> Plan {
        Plan { limits: lines.to_owned(), ..self }
    }

    /// With the HTTP API on a free port.
    #[must_use]
    pub fn api(self) -> Plan {
        self.listen("api = [\"127.0.0.1:0\"]\n")
    }

    /// Groups that may use every connection.
    #[must_use]
    pub fn groups(mut self, groups: &[&str]) -> Plan {
        self.groups.extend(groups.iter().map(|&group| group.to_owned()));
        self
    }

    /// More lines for the `[listen]` table.
    #[must_use]
    pub fn listen(mut self, lines: &str) -> Plan {
        self.listen.push_str(lines);
        self
    }

    /// More tables of the configuration, as text.
    #[must_use]
    pub fn tables(mut self, text: &str) -> Plan {
        self.tables.push_str(text);
        self
    }

    /// Another durability for all connections.
    #[must_use]
    pub fn durability(self, durability: &'static str) -> Plan {
        Plan { durability, ..self }
    }

    /// A lower limit of a message's length for all connections.
    #[must_use]
    pub fn message_bytes_max(self, message_bytes_max: u64) -> Plan {
        Plan { message_bytes_max, ..self }
    }

    /// A policy for every connection, and whether it is to `enforce` or `observe`. All have the label `env = "prod"`.
    #[must_use]
    pub fn policy(self, text: &str, mode: &'static str) -> Plan {
        Plan { policy: Some((text.to_owned(), mode)), ..self }
    }

    /// Who approves what the policy holds, for every connection: the inside of an inline table.
    #[must_use]
    pub fn approvals(self, text: &str) -> Plan {
        Plan { approvals: Some(text.to_owned()), ..self }
    }

    /// Who may break the glass, for every connection: the inside of an inline table.
    #[must_use]
    pub fn break_glass(self, text: &str) -> Plan {
        Plan { break_glass: Some(text.to_owned()), ..self }
    }

    /// The record in a directory of the test's own (a small file system, for example).
    #[must_use]
    pub fn data(self, dir: &Path) -> Plan {
        Plan { data: Some(dir.to_owned()), ..self }
    }

    /// Configures and starts it, and waits until it is ready.
    #[track_caller]
    pub fn start(self, server: &Postgres) -> Gateway {
        let dir = tempfile::Builder::new().prefix("onrecord-gw-").tempdir().unwrap();
        let gateway = Gateway {
            process: None,
            authority: Authority::new(),
            data: self.data.clone().unwrap_or_else(|| dir.path().join("data")),
            agent_key: random_key(),
            port: 0,
            starts: 0,
            dir,
            plan: self,
        };
        gateway.create_record();
        gateway.configure(server).launch()
    }
}

/// A running gateway. Its agents are `copilot-agent` and `app_owner`; a third, `other-agent`, has
/// the same key and may use nothing.
#[derive(Debug)]
pub struct Gateway {
    // First, so that the process ends before its directory goes.
    process: Option<Process>,
    plan: Plan,
    authority: Authority,
    data: PathBuf,
    agent_key: String,
    port: u16,
    starts: u32,
    dir: tempfile::TempDir,
}

impl Gateway {
    /// Where the agent connects, without TLS, to connection `app`.
    pub fn target(&self) -> Target {
        Target {
            host: "127.0.0.1".into(),
            port: self.port,
            user: AGENT.into(),
            password: self.agent_key.clone(),
            database: "app".into(),
            tls: Tls::Off,
        }
    }

    /// As [`Gateway::target`] over TLS, the gateway's certificate verified.
    pub fn secure_target(&self) -> Target {
        self.target().with_tls(self.authority.ca())
    }

    /// The gateway's process id.
    pub fn id(&self) -> u32 {
        self.process.as_ref().expect("running").id()
    }

    /// The process.
    pub fn process(&mut self) -> &mut Process {
        self.process.as_mut().expect("running")
    }

    /// The most memory that it has had resident so far.
    pub fn peak_memory_kib(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.id())).unwrap();
        let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:")).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }

    /// Whether it is still running.
    pub fn running(&mut self) -> bool {
        self.process.as_mut().is_some_and(|p| p.ended().is_none())
    }

    /// Kills it as a power cut would, as far as its memory goes.
    pub fn kill9(&mut self) {
        if self.running() {
            self.process().signal(Signal::KILL);
        }
        self.process().wait();
        self.process = None;
    }

    /// Stops it in the orderly way and checks that it says that it succeeded.
    #[track_caller]
    pub fn stop(&mut self) {
        self.process().signal(Signal::TERM);
        let status = self.process().wait();
        assert!(status.success(), "stop: {status}\n{}", self.stderr());
        self.process = None;
    }

    /// Starts it again on the same data directory.
    #[track_caller]
    pub fn restart(self) -> Gateway {
        assert!(self.process.is_none(), "stop or kill it first");
        self.launch()
    }

    /// Everything it has written to standard error, over all starts.
    pub fn stderr(&self) -> String {
        let read = |n| fs::read_to_string(self.stderr_path(n)).unwrap_or_default();
        (1..=self.starts).map(read).collect()
    }

    /// The data directory.
    pub fn data(&self) -> &Path {
        &self.data
    }

    /// The certificate authority of the gateway's certificate.
    pub fn authority(&self) -> &Authority {
        &self.authority
    }

    /// The URL of the published log, if the plan has a table `[publish]`.
    #[track_caller]
    pub fn published(&self) -> String {
        let said = fs::read_to_string(self.stderr_path(self.starts)).unwrap();
        let line = said.lines().find_map(|l| l.split_once("published over http on ")).expect("the log is published");
        format!("http://{}", line.1.trim())
    }

    /// Where outposts dial, as it said at its last start.
    #[track_caller]
    pub fn outpost_address(&self) -> String {
        let said = fs::read_to_string(self.stderr_path(self.starts)).unwrap();
        let line = said.lines().find_map(|l| l.split_once("outposts dial ")).expect("there is a port for outposts");
        line.1.trim().to_owned()
    }

    /// The port on 127.0.0.1 where it speaks SSH, as it said at its last start.
    #[track_caller]
    pub fn ssh_port(&self) -> u16 {
        let said = fs::read_to_string(self.stderr_path(self.starts)).unwrap();
        let line = said.lines().find_map(|l| l.split_once("ssh on 127.0.0.1:")).expect("it speaks SSH");
        line.1.split(|c: char| !c.is_ascii_digit()).next().unwrap().parse().unwrap()
    }

    /// The URL of its HTTP API, as it said at its last start.
    #[track_caller]
    pub fn api(&self) -> String {
        let said = fs::read_to_string(self.stderr_path(self.starts)).unwrap();
        let line = said.lines().find_map(|l| l.split_once("the API is on https ")).expect("there is an API");
        format!("https://{}", line.1.trim())
    }

    /// Whether the log has this text in the clear.
    pub fn mentions(&self, text: &str) -> bool {
        let mut grep = Command::new("grep");
        grep.args(["--text", "--quiet", "--recursive", "--fixed-strings", "--", text]).arg(self.data.join("log"));
        process::run(&mut grep, "").status.success()
    }

    /// The password that the gateway's connections use, as a file.
    pub fn password_file(&self) -> PathBuf {
        self.dir.path().join("upstream.password")
    }

    /// The log's public key.
    pub fn vkey(&self) -> String {
        fs::read_to_string(self.data.join("vkey")).unwrap().trim().to_owned()
    }

    /// Starts a copy of this gateway's data directory as another gateway with the same configuration.
    #[track_caller]
    pub fn copy(&self, data: &Path, server: &Postgres) -> Result<Gateway, String> {
        let dir = tempfile::Builder::new().prefix("onrecord-gw-").tempdir().unwrap();
        let copy = Gateway {
            process: None,
            authority: Authority::new(),
            data: data.to_owned(),
            agent_key: self.agent_key.clone(),
            port: 0,
            starts: 0,
            dir,
            plan: self.plan.clone(),
        };
        copy.configure(server).try_launch()
    }

    /// The file of its policy, whether it has one or not.
    pub fn policy(&self) -> PathBuf {
        self.dir.path().join("policy.yaml")
    }

    /// The configuration file.
    pub fn config(&self) -> PathBuf {
        self.dir.path().join("onrecord.toml")
    }

    /// Every secret that this gateway was given.
    pub fn secrets(&self) -> Vec<String> {
        vec![self.agent_key.clone(), PASSWORD.to_owned()]
    }

    /// Runs `onrecord ARGS --config FILE`.
    pub fn cli(&self, args: &[&str]) -> Finished {
        let mut command = Command::new(&self.plan.binary);
        process::run(command.args(args).arg("--config").arg(self.config()), "")
    }

    /// The record as it is on disk now.
    #[track_caller]
    pub fn record(&self) -> Record {
        let args = ["commands", "--output", "ndjson", "--limit", "10000000"];
        Record::parse(&self.cli(&args).expect_success("onrecord commands"))
    }

    /// How many entries of a kind the log holds, read from its files: an entry is one JSON object
    /// that begins with its version and its kind.
    pub fn entries(&self, kind: &str) -> usize {
        let mut grep = Command::new("grep");
        grep.args(["--text", "--only-matching", "--no-filename", "--recursive", "--fixed-strings"]);
        grep.arg(format!("{{\"v\":1,\"k\":\"{kind}\"")).arg(self.data.join("log"));
        process::run(&mut grep, "").stdout.lines().count()
    }

    /// The record of one database once every command on it has its outcome.
    #[track_caller]
    pub fn settled(&self, database: &str) -> Record {
        let mut last = None;
        poll("outcomes of all commands", || {
            let record = self.record().of_database(database);
            let pending = record.commands.iter().any(|c| c.status() == "pending");
            // The client may have left before the gateway wrote its last outcome: two equal reads.
            let count = record.commands.len();
            let stable = last.replace(count) == Some(count);
            (!pending && stable).then_some(record)
        })
    }

    /// No secret that this gateway was given, and none of `more`, may be found, plain, in base64 or
    /// in hexadecimal, in its data directory, in what it said, or in its command line.
    #[track_caller]
    pub fn assert_no_secrets(&self, more: &[&str]) {
        let given = self.secrets();
        let all = given.iter().map(String::as_str).chain(more.iter().copied());
        let patterns: Vec<String> = all.flat_map(forms).collect();
        let list = self.dir.path().join("patterns");
        write_secret(&list, &patterns.join("\n"));
        let mut grep = Command::new("grep");
        grep.args(["--recursive", "--text", "--files-with-matches", "--fixed-strings", "--file"]);
        grep.arg(&list).arg(&self.data);
        let leaks = process::run(&mut grep, "");
        assert_eq!(leaks.stdout, "", "files with a secret");
        let cmdline = self.process.as_ref().map(|p| fs::read(format!("/proc/{}/cmdline", p.id())));
        let cmdline = cmdline.and_then(Result::ok).unwrap_or_default();
        let said = self.stderr() + &String::from_utf8_lossy(&cmdline);
        let leaked = patterns.iter().any(|p| said.contains(p));
        assert!(!leaked, "a secret in the gateway's output or command line");
    }

    /// `onrecord verify` must find nothing wrong.
    #[track_caller]
    pub fn verify(&self) -> String {
        self.cli(&["verify"]).expect_success("onrecord verify")
    }

    /// `onrecord init` makes the record; its configuration is put aside for one of our own.
    fn create_record(&self) {
        if !self.data.exists() {
            let mut init = Command::new(&self.plan.binary);
            init.arg("init").arg("--config").arg(self.dir.path().join("init.toml"));
            init.arg("--name").arg(ORIGIN).arg("--data").arg(&self.data);
            process::run(&mut init, "").expect_success("onrecord init");
        }
    }

    fn configure(self, server: &Postgres) -> Gateway {
        let dir = self.dir.path();
        write_secret(&dir.join("upstream.password"), PASSWORD);
        let mut config = format!(
            "[gateway]\nname = \"{ORIGIN}\"\ndata = {data:?}\n\n\
             [listen]\npostgres = [\"127.0.0.1:0\"]\n{listen}\n\
             [tls]\ncertificate = \"file:{certificate}\"\nkey = \"file:{key}\"\n\n",
            data = self.data,
            listen = self.plan.listen,
            certificate = self.authority.certificate().display(),
            key = self.authority.key().display(),
        );
        let ca = format!("ca = \"file:{}\"\n", server.authority().ca().display());
        let policy = self.plan.policy.as_ref().map(|(_, mode)| {
            format!("labels = {{ env = \"prod\" }}\npolicy = [\"policy.yaml\"]\npolicy_mode = \"{mode}\"\n")
        });
        let mut policy = policy.unwrap_or_default();
        if let Some(approvals) = &self.plan.approvals {
            policy += &format!("approvals = {{ {approvals} }}\n");
        }
        if let Some(break_glass) = &self.plan.break_glass {
            policy += &format!("break_glass = {{ {break_glass} }}\n");
        }
        for connection in &self.plan.connections {
            let Connection { name, database, user, tls } = connection;
            config += &format!(
                "[connections.{name}]\nkind = \"postgres\"\naddress = \"127.0.0.1:{port}\"\n\
                 database = \"{database}\"\ndatabases = [\"*\"]\nuser = \"{user}\"\n\
                 password = \"file:{password}\"\ntls = \"{tls}\"\n{ca}\
                 durability = \"{durability}\"\nidentities = [\"agent:{AGENT}\", \"agent:{OWNER}\"]\n\
                 groups = {groups:?}\nmessage_bytes_max = {message_bytes_max}\n{policy}\n",
                groups = self.plan.groups,
                message_bytes_max = self.plan.message_bytes_max,
                port = server.port(),
                password = dir.join("upstream.password").display(),
                ca = if *tls == "verify-full" { ca.as_str() } else { "" },
                durability = self.plan.durability,
            );
        }
        if let Some((text, _)) = &self.plan.policy {
            fs::write(self.policy(), text).unwrap();
        }
        for name in [AGENT, OWNER, "other-agent"] {
            let secret = scram::secret(&self.agent_key);
            config += &format!("[identities.{name}]\nkind = \"agent\"\nsecret = \"{secret}\"\n\n");
        }
        config += &format!("[limits]\n{}\n\n{}\n", self.plan.limits, self.plan.tables);
        write_secret(&self.config(), &config);
        self
    }

    #[track_caller]
    fn launch(self) -> Gateway {
        self.try_launch().unwrap_or_else(|said| panic!("the gateway ended before it was ready:\n{said}"))
    }

    /// As [`Gateway::restart`], for one that may refuse to start: then what it said.
    #[track_caller]
    pub fn try_restart(self) -> Result<Gateway, String> {
        assert!(self.process.is_none(), "stop or kill it first");
        self.try_launch()
    }

    #[track_caller]
    fn try_launch(mut self) -> Result<Gateway, String> {
        self.starts += 1;
        let stderr = File::create(self.stderr_path(self.starts)).unwrap();
        let mut command = process::tethered(&self.plan.binary, "KILL");
        command.arg("serve").arg("--config").arg(self.config());
        command.stdout(stderr.try_clone().unwrap()).stderr(stderr);
        let mut process = Process::start("onrecord serve", &mut command, Signal::KILL);
        let path = self.stderr_path(self.starts);
        self.port = poll("the gateway's ready line", || {
            let ended = process.ended();
            let said = fs::read_to_string(&path).unwrap_or_default();
            if let Some(status) = ended {
                return Some(Err(format!("{status}\n{said}")));
            }
            ready_port(&said).map(Ok)
        })?;
        self.process = Some(process);
        Ok(self)
    }

    fn stderr_path(&self, start: u32) -> PathBuf {
        self.dir.path().join(format!("stderr.{start}"))
    }
}

fn ready_port(said: &str) -> Option<u16> {
    let line = said.lines().find(|l| l.contains("onrecord: ready"))?;
    let (_, port) = line.split_once("postgres on 127.0.0.1:")?;
    port.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

/// A secret as it might be written. Base64 has three forms, by where in a longer text it begins;
/// only the characters that depend on nothing around them count.
fn forms(secret: &str) -> Vec<String> {
    let hex: String = secret.bytes().map(|b| format!("{b:02x}")).collect();
    let mut forms = vec![secret.to_owned(), hex.to_uppercase(), hex];
    for (before, skipped) in [("", 0), ("x", 2), ("xx", 3)] {
        let encoded = STANDARD_NO_PAD.encode(format!("{before}{secret}"));
        forms.push(encoded[skipped..encoded.len() - 2].to_owned());
    }
    forms
}

/// A key as `onrecord identities add` makes them, distinct enough to be found wherever it leaks.
fn random_key() -> String {
    let mut bytes = [0u8; 24];
    getrandom::fill(&mut bytes).unwrap();
    let alphabet = b"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
    let letters = bytes.iter().map(|b| char::from(alphabet[usize::from(*b) % alphabet.len()]));
    format!("onr_{}", letters.collect::<String>())
}

/// The log's name.
const ORIGIN: &str = "gateway.example.com/test";

/// The identity that tests use.
const AGENT: &str = "copilot-agent";

/// An identity named as the server's own user, for suites in which the name must be the same.
const OWNER: &str = "app_owner";
