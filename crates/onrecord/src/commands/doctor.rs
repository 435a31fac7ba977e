//! `onrecord doctor`: looks for what keeps the gateway from working, one line each, with what to do.

use std::fs;
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream, ToSocketAddrs};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use clap::Args;
use serde_json::{Value, json};
use store::{RealDisk, Recorder, Wrapping, WrappingKey};

use super::Context;
use super::config::{described, idle_parts};
use super::words::bytes;
use crate::config::{
    Address, Config, Connection, ConnectionKind, HostLogin, SecretState, UpstreamTls, Witness, resolve_secrets,
};
use crate::control::{Asked, Request, ask};
use crate::output::{Console, Format, Tone, single_line};
use crate::wiring::{issuer_source, wrapping_key};
use crate::{Exit, Failure};

/// How long a resource may take to answer.
const ANSWER_MAX: Duration = Duration::from_secs(3);
/// A flush slower than this is felt in every command.
const FLUSH_SLOW: Duration = Duration::from_millis(10);
const FLUSHES: usize = 15;
/// Free space below which a day of recording may not fit.
const FREE_BYTES_LOW: u64 = 2 << 30;
/// Free space below which the next segments do not fit.
const FREE_BYTES_NONE: u64 = 256 << 20;
/// How much of an SSH server's greeting is read, bytes (RFC 4253, 4.2).
const GREETING_BYTES_MAX: u64 = 255;
/// PostgreSQL's SSLRequest.
const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 47];

/// Arguments of `doctor`.
#[derive(Debug, Args)]
pub struct Doctor {}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Level {
    Ok,
    Warn,
    Fail,
}

struct Report<'a> {
    console: &'a mut Console,
    findings: Vec<Value>,
    failed: bool,
}

impl Doctor {
    /// Does it. Ends with 1 when something fails.
    pub fn run(self, context: &mut Context) -> Result<(), Failure> {
        let file = context.config_file();
        let config = context.load()?;
        let mut report = Report { console: &mut context.console, findings: Vec::new(), failed: false };
        report.say(Level::Ok, "configuration", &file.display().to_string(), "")?;
        secrets(&config, &mut report)?;
        clock(&mut report)?;
        let serving = data_directory(&config, &mut report)?;
        ports(&config, serving, &mut report)?;
        for (name, connection) in &config.connections {
            resource(&config, name.as_str(), connection, &mut report)?;
        }
        for (name, issuer) in &config.issuers {
            let what = format!("issuer {name}");
            match issuer_source(name, issuer).map_err(|failure| failure.to_string()).and_then(|source| source.look()) {
                Ok(count) => report.say(Level::Ok, &what, &super::words::counted(count, "key", "keys"), "")?,
                Err(why) => {
                    let hint = "until its keys are there, nobody is let in by its tokens; `issuer`, `jwks` and `ca` say where they are";
                    report.say(Level::Fail, &what, &why, hint)?;
                }
            }
        }
        if let Some(witness) = &config.witness {
            witnesses(&config, witness, &mut report)?;
        }
        for (key, what, hint) in idle_parts(&config) {
            report.say(Level::Warn, &key, &what, hint)?;
        }
        let (failed, findings) = (report.failed, report.findings);
        if context.console.format() != Format::Table {
            context.console.json_list(findings.into_iter().map(Ok::<_, Failure>))?;
        }
        if failed { Err(Failure::said(Exit::Failure)) } else { Ok(()) }
    }
}

impl Report<'_> {
    fn say(&mut self, level: Level, what: &str, found: &str, hint: &str) -> Result<(), Failure> {
        self.failed |= level == Level::Fail;
        let (word, tone) = match level {
            Level::Ok => ("ok", Tone::Good),
            Level::Warn => ("warn", Tone::Warning),
            Level::Fail => ("fail", Tone::Bad),
        };
        if self.console.format() != Format::Table {
            self.findings.push(json!({"level": word, "what": what, "found": found,
                "hint": (!hint.is_empty()).then_some(hint)}));
            return Ok(());
        }
        let word = self.console.paint(tone, &format!("{word:4}"));
        self.console.line(&format!("{word}  {what}: {}", single_line(found)))?;
        if !hint.is_empty() && level != Level::Ok {
            self.console.line(&format!("      {}", self.console.paint(Tone::Faint, hint)))?;
        }
        // Some checks take their time: what is known is shown.
        Ok(self.console.flush()?)
    }
}

fn secrets(config: &Config, report: &mut Report<'_>) -> Result<(), Failure> {
    let findings = resolve_secrets(config);
    for finding in &findings {
        let level = match finding.what {
            SecretState::Unreadable(_) => Level::Fail,
            SecretState::Loose(..) => Level::Warn,
        };
        let (key, what, hint) = described(finding);
        report.say(level, &key, &what, hint)?;
    }
    if findings.is_empty() && !config.secrets().is_empty() {
        report.say(Level::Ok, "secrets", "all can be read", "")?;
    }
    Ok(())
}

fn clock(report: &mut Report<'_>) -> Result<(), Failure> {
    use model::ClockState;
    let hint = "a time service such as chrony or systemd-timesyncd keeps it right; every heartbeat on the record says how it was";
    match store::clock_state() {
        ClockState::Synchronized => report.say(Level::Ok, "clock", "synchronized", ""),
        ClockState::Unsynchronized => report.say(Level::Warn, "clock", "not synchronized", hint),
        ClockState::NotEstablished => report.say(Level::Warn, "clock", "the system does not say", hint),
    }
}

/// Looks at the data directory and says whether a gateway has it open.
fn data_directory(config: &Config, report: &mut Report<'_>) -> Result<bool, Failure> {
    let data = &config.gateway.data;
    let shown = data.display().to_string();
    let metadata = match fs::metadata(data) {
        Ok(metadata) => metadata,
        Err(error) => {
            let hint = "`onrecord init` makes it; check `gateway.data` in the configuration";
            report.say(Level::Fail, "data directory", &format!("{shown}: {error}"), hint)?;
            return Ok(false);
        }
    };
    let mode = metadata.mode() & 0o777;
    let us = rustix::process::geteuid();
    if mode & 0o077 != 0 {
        let found = format!("{shown}: others may enter it (mode {mode:04o})");
        report.say(Level::Warn, "data directory", &found, "chmod 700 it: the keys of the record are inside")?;
    } else if metadata.uid() != us.as_raw() && !us.is_root() {
        let found = format!("{shown}: it belongs to user {}", metadata.uid());
        report.say(Level::Fail, "data directory", &found, "run as the user that the gateway runs as")?;
    } else {
        report.say(Level::Ok, "data directory", &shown, "")?;
    }
    flush_time(data, report)?;
    free_space(data, report)?;
    let serving = is_locked(data);
    if serving {
        report.say(Level::Ok, "gateway", "running", "")?;
    }
    keys(config, report)?;
    if serving {
        control(data, report)?;
    }
    log(data, report)?;
    Ok(serving)
}

/// Says how the key is kept under which session keys are.
fn keys(config: &Config, report: &mut Report<'_>) -> Result<(), Failure> {
    let kept = match Recorder::wrapping(&RealDisk::new(&config.gateway.data)) {
        Ok(kept) => kept,
        Err(error) => return report.say(Level::Fail, "keys", &error.to_string(), "restore keys/ from a backup"),
    };
    let given = match wrapping_key(config.record.wrapping_key.as_ref()) {
        Ok(given) => given,
        Err(failure) => return report.say(Level::Fail, "keys", &failure.to_string(), ""),
    };
    let given = given.as_ref().map(WrappingKey::id);
    match (kept, given) {
        (Wrapping::None, None) => report.say(
            Level::Ok,
            "keys",
            "in clear, guarded by the files' mode; `record.wrapping_key` would wrap them",
            "",
        ),
        (Wrapping::None, Some(given)) => {
            let found = format!("in clear, although the configuration names the wrapping key {given}");
            report.say(Level::Fail, "keys", &found, "stop the gateway and run `onrecord keys rewrap`")
        }
        (Wrapping::By(id), Some(given)) if id == given => {
            report.say(Level::Ok, "keys", &format!("wrapped by {id}"), "")
        }
        (Wrapping::By(id), Some(given)) => {
            let found = format!("wrapped by {id}, and the configuration names {given}");
            let hint = "stop the gateway and run `onrecord keys rewrap --from ...` with the key that wraps them now";
            report.say(Level::Fail, "keys", &found, hint)
        }
        (Wrapping::By(id), None) => {
            let found = format!("wrapped by {id}, and the configuration names no wrapping key");
            report.say(Level::Fail, "keys", &found, "name it as `wrapping_key` in [record]")
        }
    }
}

/// Whether the running gateway can be asked.
fn control(data: &Path, report: &mut Report<'_>) -> Result<(), Failure> {
    let hint = "run this as the user that the gateway runs as; `erase`, `hold` and the like need it while it runs";
    match ask(data, &Request::Status {}) {
        Ok(Asked::Answered(Ok(_))) => report.say(Level::Ok, "control socket", "answers", ""),
        Ok(Asked::Answered(Err(refusal))) => report.say(Level::Warn, "control socket", &refusal.message, hint),
        Ok(Asked::Nobody) => report.say(Level::Warn, "control socket", "nobody answers", hint),
        Err(error) => report.say(Level::Warn, "control socket", &error.to_string(), hint),
    }
}

fn flush_time(data: &Path, report: &mut Report<'_>) -> Result<(), Failure> {
    let hint = "make the data directory writable for this user";
    match measure_flush(data) {
        Err(error) => report.say(Level::Fail, "flush", &format!("cannot write: {error}"), hint),
        Ok(time) => {
            let found = format!("{:.1} ms for 4 KiB to stable storage", time.as_secs_f64() * 1000.0);
            let level = if time > FLUSH_SLOW { Level::Warn } else { Level::Ok };
            let hint = "every command waits for a flush: use a faster disk, or another `durability` where that will do";
            report.say(level, "flush", &found, hint)
        }
    }
}

/// The median, so that one hiccup does not count.
fn measure_flush(data: &Path) -> std::io::Result<Duration> {
    let path = data.join(format!("doctor-{}.tmp", std::process::id()));
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
    let mut measured = || {
        let mut times = Vec::with_capacity(FLUSHES);
        for _ in 0..FLUSHES {
            let started = Instant::now();
            file.write_all(&[0; 4096])?;
            file.sync_data()?;
            times.push(started.elapsed());
        }
        times.sort_unstable();
        Ok(times.get(FLUSHES / 2).copied().unwrap_or_default())
    };
    let time = measured();
    let _ = fs::remove_file(&path);
    time
}

fn free_space(data: &Path, report: &mut Report<'_>) -> Result<(), Failure> {
    let Ok(space) = rustix::fs::statvfs(data) else { return Ok(()) };
    let free = space.f_bavail.saturating_mul(space.f_frsize);
    let found = format!("{} free", bytes(free));
    let hint = "free some: when the disk of the record is full, commands are refused";
    let level = match free {
        ..FREE_BYTES_NONE => Level::Fail,
        FREE_BYTES_NONE..FREE_BYTES_LOW => Level::Warn,
        FREE_BYTES_LOW.. => Level::Ok,
    };
    report.say(level, "disk", &found, hint)
}

fn is_locked(data: &Path) -> bool {
    use rustix::fs::{FlockOperation, flock};
    let Ok(lock) = fs::File::open(data.join("LOCK")) else { return false };
    // Released again when the file is closed at the end of this function.
    flock(&lock, FlockOperation::NonBlockingLockShared).is_err()
}

fn log(data: &Path, report: &mut Report<'_>) -> Result<(), Failure> {
    match super::verify::briefly(data) {
        Ok((Exit::Ok, found)) => report.say(Level::Ok, "record", &found, ""),
        Ok((_, found)) => report.say(Level::Fail, "record", &found, "`onrecord verify` says more"),
        Err(failure) => {
            let hint = "`onrecord verify` says more";
            report.say(Level::Fail, "record", &failure.to_string(), hint)
        }
    }
}

fn witnesses(config: &Config, witness: &Witness, report: &mut Report<'_>) -> Result<(), Failure> {
    let looks = match crate::outside::look(config, witness) {
        Ok(looks) => looks,
        Err(failure) => return report.say(Level::Fail, "witnesses", &failure.to_string(), ""),
    };
    let size = super::witness::published_size(config);
    for look in looks {
        let what = format!("witness {}", look.witness);
        let found = super::witness::described(&look, size);
        match (&look.contradiction, &look.cosigned) {
            (Some(_), _) => {
                let hint =
                    "stop the gateway: a copy of its data directory runs elsewhere, or an older one was restored";
                report.say(Level::Fail, &what, &found, hint)?;
            }
            (None, Ok(Some(_))) => report.say(Level::Ok, &what, &found, "")?,
            (None, Ok(None)) => {
                let hint = "it has to know the log: `onrecord witness add-log` there, with this log's vkey";
                report.say(Level::Warn, &what, &found, hint)?;
            }
            (None, Err(_)) => {
                let hint =
                    "check the address in the policy, and that the witness is up; recording does not wait for it";
                report.say(Level::Warn, &what, &found, hint)?;
            }
        }
    }
    Ok(())
}

fn ports(config: &Config, serving: bool, report: &mut Report<'_>) -> Result<(), Failure> {
    let publish = config.publish.iter().flat_map(|publish| &publish.listen);
    for address in config.listen.postgres.iter().chain(&config.listen.ssh).chain(&config.listen.outposts).chain(publish)
    {
        let what = format!("listen {address}");
        match TcpListener::bind(address) {
            Ok(_) if serving && address.port() != 0 => {
                let hint = "it was started with another configuration: restart it";
                report.say(Level::Warn, &what, "the running gateway does not listen here", hint)?;
            }
            Ok(_) => report.say(Level::Ok, &what, "free", "")?,
            Err(error) if error.kind() == ErrorKind::AddrInUse && serving => {
                report.say(Level::Ok, &what, "in use, by the running gateway by all appearances", "")?;
            }
            Err(error) => {
                let hint = match error.kind() {
                    ErrorKind::AddrInUse => "another program listens here: stop it, or choose another port",
                    ErrorKind::PermissionDenied => "ports below 1024 need a privilege: choose a higher one",
                    _ => "is it an address of this machine?",
                };
                report.say(Level::Fail, &what, &error.to_string(), hint)?;
            }
        }
    }
    Ok(())
}

fn resource(config: &Config, name: &str, connection: &Connection, report: &mut Report<'_>) -> Result<(), Failure> {
    let what = format!("connection {name}");
    let address = &connection.address;
    if connection.login == Some(HostLogin::Certificate) {
        let file = config.gateway.data.join("ssh/session_ca.pub");
        let (level, found, hint) = match fs::read_to_string(&file) {
            Ok(key) => (Level::Ok, format!("its sshd must trust (TrustedUserCAKeys) {}", key.trim()), ""),
            Err(_) => (Level::Warn, format!("{} is not there yet", file.display()), "`onrecord serve` makes it"),
        };
        report.say(level, &what, &found, hint)?;
    }
    if let Some(via) = &connection.outpost {
        let found = format!("{address} is reached through outpost {via}");
        return report.say(Level::Ok, &what, &found, "`onrecord outpost list` shows whether it is connected");
    }
    if connection.kind == ConnectionKind::Ssh {
        return match greeting(address) {
            Ok(version) => report.say(Level::Ok, &what, &format!("{address} answers: {version}"), ""),
            Err(error) => {
                let hint = "check `address`, the network between, and that sshd is up";
                report.say(Level::Fail, &what, &format!("{address}: {error}"), hint)
            }
        };
    }
    match ask_for_tls(address) {
        Err(error) => {
            let hint = "check `address`, the network between, and that the server is up";
            report.say(Level::Fail, &what, &format!("{address}: {error}"), hint)
        }
        Ok(offered) => match (connection.tls(), offered) {
            (UpstreamTls::Disable, _) => report.say(Level::Ok, &what, &format!("{address} answers"), ""),
            (UpstreamTls::Require | UpstreamTls::VerifyFull, Tls::Offered) => {
                let found = format!("{address} answers and offers TLS");
                report.say(Level::Ok, &what, &found, "")
            }
            (UpstreamTls::Require | UpstreamTls::VerifyFull, Tls::Refused) => {
                let found = format!("{address} answers and does not offer TLS");
                let hint = "turn it on in the server, or write tls = \"disable\" if nobody else can listen";
                report.say(Level::Fail, &what, &found, hint)
            }
        },
    }
}

enum Tls {
    Offered,
    Refused,
}

/// The version that an SSH server says first (RFC 4253, 4.2).
fn greeting(address: &Address) -> std::io::Result<String> {
    let Address::Tcp { host, port } = address else { return Err(ErrorKind::Unsupported.into()) };
    let mut last = std::io::Error::new(ErrorKind::NotFound, "the name has no address");
    for address in (host.as_str(), *port).to_socket_addrs()? {
        let stream = match TcpStream::connect_timeout(&address, ANSWER_MAX) {
            Ok(stream) => stream,
            Err(error) => {
                last = error;
                continue;
            }
        };
        stream.set_read_timeout(Some(ANSWER_MAX))?;
        let mut said = String::new();
        BufReader::new(stream.take(GREETING_BYTES_MAX)).read_line(&mut said)?;
        let version = single_line(said.trim()).into_owned();
        return match said.starts_with("SSH-2.0-") {
            true => Ok(version),
            false => Err(std::io::Error::other("it does not answer as an SSH server does")),
        };
    }
    Err(last)
}

fn ask_for_tls(address: &Address) -> std::io::Result<Tls> {
    match address {
        Address::Tcp { host, port } => {
            let mut last = std::io::Error::new(ErrorKind::NotFound, "the name has no address");
            for address in (host.as_str(), *port).to_socket_addrs()? {
                match TcpStream::connect_timeout(&address, ANSWER_MAX) {
                    Ok(stream) => {
                        stream.set_read_timeout(Some(ANSWER_MAX))?;
                        return ssl_request(stream);
                    }
                    Err(error) => last = error,
                }
            }
            Err(last)
        }
        Address::Unix(directory) => {
            let stream = UnixStream::connect(directory.join(".s.PGSQL.5432"))?;
            stream.set_read_timeout(Some(ANSWER_MAX))?;
            ssl_request(stream)
        }
    }
}

fn ssl_request(mut stream: impl Read + Write) -> std::io::Result<Tls> {
    stream.write_all(&SSL_REQUEST)?;
    let mut answer = [0];
    stream.read_exact(&mut answer)?;
    match &answer {
        b"S" => Ok(Tls::Offered),
        b"N" => Ok(Tls::Refused),
        _ => Err(std::io::Error::new(ErrorKind::InvalidData, "what answers does not speak PostgreSQL")),
    }
}
