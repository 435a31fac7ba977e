//! What the gateway costs over SSH, beside a direct connection and one that jumps over a plain `sshd` (`ProxyJump`), which is
//! how hosts are usually reached. OpenSSH's own client and server everywhere; the host and the jump host are processes of
//! the run, on loopback, with keys of their own.

use std::{
    fs,
    io::{self, Write},
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use rustix::process::Signal;

use crate::{
    link::await_line,
    measure::{cpu_us, resident_bytes},
    processes::{Processes, Started},
    summary::median,
    targets::{Programs, stderr_lines},
};

/// How a run is cut to size.
#[derive(clap::Args, Clone)]
pub(crate) struct Options {
    /// Fewer rounds, each shorter.
    #[arg(long)]
    quick: bool,
    /// Where to put keys, logs and the record: on the disk that is to be measured.
    #[arg(long, default_value = "/var/tmp")]
    dir: PathBuf,
}

/// Bytes of one download.
const DOWNLOAD_BYTES: u64 = 512 << 20;
/// Terminals that are idle at the same time, over connections of so many; fewer for a quick run.
const TERMINALS: u64 = 1000;
const TERMINALS_QUICK: u64 = 100;
const TERMINALS_OF_A_CONNECTION: u64 = 50;
const MIB: f64 = 1024.0 * 1024.0;

/// What runs in terminals whose record is weighed: much at once, and a line at a time.
const SHOWN: [(&str, &str); 2] = [
    ("a listing of 16 MB", "ls -lR --color=always /usr 2>/dev/null | head -c 16000000"),
    ("a line at a time", "for file in /usr/bin/*; do ls -ld --color=always $file; done"),
];

/// The ways to the host.
const WAYS: [&str; 3] = ["direct", "ProxyJump", "OnRecord"];

/// What a round found, for each of [`WAYS`].
#[derive(Default, Clone)]
struct Round {
    /// Milliseconds of `ssh HOST true`, the middle of several.
    command_ms: [f64; 3],
    /// Milliseconds of `true` over a connection that is open.
    channel_ms: [f64; 3],
    /// MiB a second.
    download: [f64; 3],
    /// Seconds of processor time of the gateway for a GB.
    gateway_cpu: f64,
}

/// The place: a host, a jump host, a gateway, and what a client needs.
struct Place {
    directory: PathBuf,
    gateway: Started,
}

/// Measures and prints.
pub(crate) fn run(options: &Options, processes: &Processes) -> anyhow::Result<()> {
    let (rounds, commands, terminals) = if options.quick { (3, 5, TERMINALS_QUICK) } else { (7, 15, TERMINALS) };
    let programs = Programs::find(None)?;
    let directory = processes.directory(&options.dir)?;
    say("starting the host, the jump host and the gateway");
    let place = Place::start(processes, &programs, directory)?;
    let before = resident_bytes(place.gateway.pid())?;
    say("weighing idle terminals");
    let idle = (terminals, place.idle(processes, terminals)?);
    say("weighing what terminals leave on the disk");
    let mut weighed = Vec::new();
    for (what, program) in SHOWN {
        weighed.push((what, place.recorded(processes, program)?));
    }
    let mut found = Vec::new();
    for round in 0..rounds {
        say(&format!("round {} of {rounds}", round + 1));
        let mut one = Round::default();
        // Each round begins with another one, so that none always comes first.
        for way in (0..3).cycle().skip(round % 3).take(3) {
            let slot = |list: &mut [f64; 3], value| list.iter_mut().skip(way).take(1).for_each(|place| *place = value);
            slot(&mut one.command_ms, place.commands(processes, way, commands, false)?);
            slot(&mut one.channel_ms, place.commands(processes, way, commands, true)?);
            let cpu = cpu_us(place.gateway.pid())?;
            slot(&mut one.download, place.download(processes, way)?);
            if way == 2 {
                let spent = (cpu_us(place.gateway.pid())? - cpu) as f64 / 1e6;
                one.gateway_cpu = spent * 1e9 / DOWNLOAD_BYTES as f64;
            }
        }
        found.push(one);
    }
    writeln!(io::stdout(), "{}", report(&found, before, idle, &weighed))?;
    Ok(())
}

fn report(found: &[Round], before: u64, (terminals, idle): (u64, u64), weighed: &[(&str, Weighed)]) -> String {
    let of = |pick: &dyn Fn(&Round) -> f64| median(&found.iter().map(pick).collect::<Vec<_>>()).unwrap_or(0.0);
    let row = |what: &str, list: &dyn Fn(&Round) -> [f64; 3]| {
        let cells = [0, 1, 2].map(|at| of(&|round| list(round).get(at).copied().unwrap_or(0.0)));
        let [direct, jump, gateway] = cells;
        format!("| {what} | {direct:.0} | {jump:.0} | {gateway:.0} |\n")
    };
    let ratio = |list: &dyn Fn(&Round) -> [f64; 3]| {
        of(&|round| {
            let [_, jump, gateway] = list(round);
            gateway / jump
        })
    };
    let mut text = format!("| | {} |\n|---|---|---|---|\n", WAYS.join(" | "));
    text += &row("`ssh HOST true`, ms", &|round| round.command_ms);
    text += &row("`true` over an open connection, ms", &|round| round.channel_ms);
    text += &row("download with aes256-gcm, MiB/s", &|round| round.download);
    let idle = idle.saturating_sub(before) as f64 / terminals as f64 * 1000.0 / MIB;
    text += "\n| what a terminal showed, KiB | shown | by zstd | recorded |\n|---|---|---|---|\n";
    for (what, Weighed { shown, packed, recorded }) in weighed {
        let [shown, packed, recorded] = [shown, packed, recorded].map(|bytes| *bytes as f64 / 1024.0);
        text += &format!("| {what} | {shown:.0} | {packed:.0} | {recorded:.0} |\n");
    }
    let largest = |(_, weighed): &(&str, Weighed)| weighed.recorded as f64 / weighed.packed as f64;
    let recorded = weighed.iter().map(largest).fold(0.0, f64::max);
    let bars = [
        ("`ssh HOST true`, of a ProxyJump", ratio(&|round| round.command_ms), 1.3, false),
        ("download, of a ProxyJump", ratio(&|round| round.download), 0.7, true),
        ("processor seconds of the gateway for a GB", of(&|round| round.gateway_cpu), 3.5, false),
        ("1,000 idle terminals, MiB at the gateway", idle, 150.0, false),
        ("the record of a terminal, of zstd's", recorded, 1.1, false),
    ];
    text += "\n| bar | wanted | found | |\n|---|---|---|---|\n";
    for (what, found, wanted, least) in bars {
        let (sign, met) = if least { ("at least", found >= wanted) } else { ("at most", found <= wanted) };
        let met = if met { "met" } else { "**missed**" };
        text += &format!("| {what} | {sign} {wanted} | {found:.2} | {met} |\n");
    }
    text + &format!("\nThere were {terminals} terminals; the gateway had {:.1} MiB before.", before as f64 / MIB)
}

impl Place {
    fn start(processes: &Processes, programs: &Programs, directory: PathBuf) -> anyhow::Result<Self> {
        for name in ["host_key", "jump_key", "client_key", "agent_key"] {
            let mut keygen = Command::new("ssh-keygen");
            processes
                .run(keygen.args(["-q", "-t", "ed25519", "-N", "", "-C", "bench", "-f"]).arg(directory.join(name)))?;
        }
        let user = processes.run(Command::new("id").arg("-un"))?;
        let user = String::from_utf8(user.stdout)?.trim().to_owned();
        let host_port = sshd(processes, &directory, "host_key")?;
        let jump_port = sshd(processes, &directory, "jump_key")?;
        let (gateway, gateway_port) = gateway(processes, programs, &directory, &user, host_port)?;
        let key = |name: &str| public(&directory.join(name));
        let known = format!(
            "[127.0.0.1]:{host_port} {}\n[127.0.0.1]:{jump_port} {}\n[127.0.0.1]:{gateway_port} {}\n",
            key("host_key")?,
            key("jump_key")?,
            key("data/ssh/host_key")?,
        );
        fs::write(directory.join("known_hosts"), known)?;
        // One key exchange for all: what OpenSSH prefers with its own kind is slower, and no cost of a way.
        // The jump needs its options in a file: a command line's are for the host alone.
        let common = format!(
            "IdentitiesOnly yes\nIdentityAgent none\nUserKnownHostsFile {0}/known_hosts\nCiphers aes256-gcm@openssh.com\n\
             KexAlgorithms curve25519-sha256\n\
             ControlPersist no\nLogLevel ERROR\n",
            directory.display()
        );
        let client = format!("IdentityFile {}/client_key\nUser {user}\n", directory.display());
        let config = format!(
            "Host direct\nHostName 127.0.0.1\nPort {host_port}\n{client}{common}\
             Host jump\nHostName 127.0.0.1\nPort {jump_port}\n{client}{common}\
             Host ProxyJump\nHostName 127.0.0.1\nPort {host_port}\nProxyJump jump\n{client}{common}\
             Host OnRecord\nHostName 127.0.0.1\nPort {gateway_port}\nUser web1\nIdentityFile {}/agent_key\n{common}",
            directory.display()
        );
        fs::write(directory.join("ssh_config"), config)?;
        Ok(Self { directory, gateway })
    }

    fn ssh(&self, way: usize) -> Command {
        let mut ssh = Command::new("ssh");
        ssh.arg("-F").arg(self.directory.join("ssh_config")).arg("-o").arg("BatchMode=yes");
        ssh.arg(WAYS.get(way).copied().unwrap_or_default());
        ssh
    }

    /// The middle of what `true` takes, ms: with a connection of its own each time, or over one that is open.
    fn commands(&self, processes: &Processes, way: usize, count: usize, open: bool) -> anyhow::Result<f64> {
        let control = self.directory.join("control");
        let master = if open { Some(self.master(processes, way, &control)?) } else { None };
        let mut taken = Vec::new();
        for _ in 0..count {
            let mut ssh = self.ssh(way);
            if open {
                ssh.arg("-S").arg(&control);
            }
            let begin = Instant::now();
            processes.run(ssh.arg("true"))?;
            taken.push(begin.elapsed().as_secs_f64() * 1e3);
        }
        if let Some(master) = master {
            processes.end(master);
        }
        Ok(median(&taken).unwrap_or(0.0))
    }

    /// A connection that others use, at this path.
    fn master(&self, processes: &Processes, way: usize, control: &Path) -> anyhow::Result<Started> {
        let _ = fs::remove_file(control);
        let mut ssh = self.ssh(way);
        ssh.args(["-M", "-N", "-S"]).arg(control).stdout(Stdio::null()).stderr(Stdio::null());
        let (master, ()) = processes.start(&mut ssh, Signal::TERM, |_| ())?;
        for _ in 0..200 {
            if control.exists() {
                return Ok(master);
            }
            thread::sleep(Duration::from_millis(50));
        }
        anyhow::bail!("no connection {}", WAYS.get(way).copied().unwrap_or_default())
    }

    /// MiB a second of one download.
    fn download(&self, processes: &Processes, way: usize) -> anyhow::Result<f64> {
        let mut ssh = self.ssh(way);
        let line = format!("head -c {DOWNLOAD_BYTES} /dev/zero");
        // What comes is thrown away, with no pipe in between that would be the limit.
        let out = fs::File::create("/dev/null")?;
        let begin = Instant::now();
        let (started, ()) = processes.start(ssh.arg(line).stdout(out).stderr(Stdio::null()), Signal::KILL, |_| ())?;
        processes.wait(started)?;
        Ok(DOWNLOAD_BYTES as f64 / MIB / begin.elapsed().as_secs_f64())
    }

    /// What the gateway's memory is with so many terminals open, bytes.
    fn idle(&self, processes: &Processes, terminals: u64) -> anyhow::Result<u64> {
        let mut started = Vec::new();
        for connection in 0..terminals / TERMINALS_OF_A_CONNECTION {
            let control = self.directory.join(format!("control{connection}"));
            let master = self.master(processes, 2, &control)?;
            for _ in 0..TERMINALS_OF_A_CONNECTION {
                let mut ssh = self.ssh(2);
                ssh.arg("-S").arg(&control).arg("-tt").arg("sleep 3600").stdout(Stdio::null()).stderr(Stdio::null());
                started.push(processes.start(&mut ssh, Signal::KILL, |_| ())?.0);
            }
            started.push(master);
            // One connection's after the other's, so that none waits for its login longer than it may.
            await_programs("sleep 3600", (connection + 1) * TERMINALS_OF_A_CONNECTION)?;
        }
        let bytes = resident_bytes(self.gateway.pid())?;
        started.into_iter().for_each(|one| processes.end(one));
        Ok(bytes)
    }

    /// Weighs what a terminal leaves on the disk in which this program runs.
    fn recorded(&self, processes: &Processes, program: &str) -> anyhow::Result<Weighed> {
        let (shown, blobs) = (self.directory.join("shown"), self.directory.join("data/blobs"));
        let before = size_of(&blobs)?;
        let mut ssh = self.ssh(2);
        ssh.arg("-tt").arg(program).stdin(Stdio::null()).stdout(fs::File::create(&shown)?).stderr(Stdio::null());
        let (started, ()) = processes.start(&mut ssh, Signal::KILL, |_| ())?;
        processes.wait(started)?;
        let packed = processes.run(Command::new("zstd").args(["-3", "-q", "-c"]).arg(&shown));
        let packed = packed.context("zstd (apt-get install zstd)")?.stdout;
        // Written before the client had its end.
        let recorded = size_of(&blobs)? - before;
        ensure!(recorded > 0, "the terminal left nothing: its transcript is too short to be weighed");
        Ok(Weighed { shown: fs::metadata(&shown)?.len(), packed: u64::try_from(packed.len())?, recorded })
    }
}

/// Waits until the host runs so many of this program: each terminal is there then.
fn await_programs(program: &str, wanted: u64) -> anyhow::Result<()> {
    let deadline = Instant::now() + Duration::from_secs(120);
    loop {
        let running = Command::new("pgrep").args(["-cfx", program]).output()?;
        let running: u64 = String::from_utf8_lossy(&running.stdout).trim().parse().unwrap_or(0);
        if running >= wanted {
            return Ok(());
        }
        ensure!(Instant::now() < deadline, "only {running} of {wanted} terminals came up");
        thread::sleep(Duration::from_millis(200));
    }
}

/// The bytes of all files below a directory, which need not be there.
fn size_of(directory: &Path) -> anyhow::Result<u64> {
    let Ok(entries) = fs::read_dir(directory) else { return Ok(0) };
    let mut bytes = 0;
    for entry in entries {
        let entry = entry?;
        let metadata = entry.metadata()?;
        bytes += if metadata.is_dir() { size_of(&entry.path())? } else { metadata.len() };
    }
    Ok(bytes)
}

/// What a terminal showed, and what that is packed, in bytes.
struct Weighed {
    shown: u64,
    packed: u64,
    recorded: u64,
}

/// An OpenSSH server with this key, which lets in `client_key`. Gives its port.
fn sshd(processes: &Processes, directory: &Path, key: &str) -> anyhow::Result<u16> {
    let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    let here = directory.display();
    let config = format!(
        "Port {port}\nListenAddress 127.0.0.1\nHostKey {here}/{key}\nPidFile none\n\
         AuthorizedKeysFile {here}/client_key.pub\nStrictModes no\nUsePAM no\nPasswordAuthentication no\n\
         PermitRootLogin yes\nMaxStartups 4000\nMaxSessions 4000\n"
    );
    let file = directory.join(format!("{key}.sshd_config"));
    fs::write(&file, config)?;
    if rustix::process::geteuid().is_root() {
        // Where sshd's unprivileged half lives.
        fs::create_dir_all("/run/sshd")?;
    }
    let mut command = Command::new("/usr/sbin/sshd");
    command.arg("-D").arg("-e").arg("-f").arg(&file).stdout(Stdio::null()).stderr(Stdio::piped());
    let (_, lines) = processes.start(&mut command, Signal::TERM, stderr_lines)?;
    await_line(&lines, "Server listening")?;
    // What it says later is not waited for, and must not fill its pipe.
    thread::spawn(move || while lines.recv().is_ok() {});
    Ok(port)
}

/// A gateway before the host. Gives the port where it speaks SSH.
fn gateway(
    processes: &Processes,
    programs: &Programs,
    directory: &Path,
    user: &str,
    host_port: u16,
) -> anyhow::Result<(Started, u16)> {
    let (config, data) = (directory.join("onrecord.toml"), directory.join("data"));
    let onrecord = || Command::new(&programs.onrecord);
    let mut init = onrecord();
    init.args(["init", "--name", "bench.invalid/ssh", "--listen", "127.0.0.1:0", "--config"]).arg(&config);
    processes.run(init.arg("--data").arg(&data))?;
    let text = format!(
        "[gateway]\nname = \"bench.invalid/ssh\"\ndata = {data:?}\n[listen]\nssh = [\"127.0.0.1:0\"]\n\
         [connections.web1]\nkind = \"ssh\"\naddress = \"127.0.0.1:{host_port}\"\nuser = \"{user}\"\n\
         key = \"file:{here}/client_key\"\nhost_keys = [\"{host}\"]\nidentities = [\"agent:bench\"]\nterminals = true\n\
         [identities.bench]\nkind = \"agent\"\nssh_keys = [\"{agent}\"]\n\
         [limits]\nconnections_max = 4096\nconnections_per_identity_max = 4096\n",
        here = directory.display(),
        host = public(&directory.join("host_key"))?,
        agent = public(&directory.join("agent_key"))?,
    );
    fs::write(&config, text)?;
    let mut serve = onrecord();
    serve.args(["serve", "--config"]).arg(&config).stdout(Stdio::null()).stderr(Stdio::piped());
    let (gateway, lines) = processes.start(&mut serve, Signal::TERM, stderr_lines)?;
    let said = await_line(&lines, "ssh on 127.0.0.1:")?;
    thread::spawn(move || while lines.recv().is_ok() {});
    let port: String = said.chars().take_while(char::is_ascii_digit).collect();
    Ok((gateway, port.parse().context("the gateway's port")?))
}

/// The public half of a key file, as `KIND BASE64`.
fn public(file: &Path) -> anyhow::Result<String> {
    let text = fs::read_to_string(file.with_extension("pub")).with_context(|| file.display().to_string())?;
    Ok(text.split_whitespace().take(2).collect::<Vec<_>>().join(" "))
}

fn say(text: &str) {
    let _ = writeln!(io::stderr(), "bench: {text}");
}
