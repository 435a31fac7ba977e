//! What the way through an outpost costs: the same gateway process, once straight to the server and once through an
//! outpost, both with TLS to the server, within seconds of each other in every round.

use std::{
    fs,
    io::{self, Write},
    net::SocketAddr,
    os::unix::fs::PermissionsExt,
    path::PathBuf,
    process::{Command, Stdio},
    time::Instant,
};

use anyhow::bail;
use rustix::process::Signal;

use crate::{
    cases::{Bench, Mode, ROWS_STATEMENT},
    measure::resident_bytes,
    processes::{Processes, Started},
    summary::median,
    targets::{Cluster, DATABASE, Kind, PASSWORD, Programs, START_WITHIN, Target, USER, stderr_lines},
    token::{self, Cost},
};

/// How a run is cut to size.
#[derive(clap::Args, Clone)]
pub(crate) struct Options {
    /// Fewer rounds, each shorter.
    #[arg(long)]
    quick: bool,
    /// Where to put the database and the logs: on the disk that is to be measured.
    #[arg(long, default_value = "/var/tmp")]
    dir: PathBuf,
}

/// The gateway straight to the server, and through the outpost.
const NEAR: &str = "near";
const FAR: &str = "far";
/// Clients of the throughput measurement.
const CLIENTS: u32 = 8;
const MIB: f64 = 1024.0 * 1024.0;

/// What a round found: transactions and rows a second, straight to the server, through the gateway, through the outpost.
struct Round {
    transactions: [f64; 3],
    rows: [f64; 3],
}

/// Measures and prints.
pub(crate) fn run(options: &Options, processes: &Processes) -> anyhow::Result<()> {
    let (rounds, seconds) = if options.quick { (3, 1) } else { (7, 3) };
    crate::run::raise_file_limit()?;
    let programs = Programs::find(None)?;
    let directory = processes.directory(&options.dir)?;
    say("starting PostgreSQL, the gateway and the outpost");
    let mut cluster = Cluster::start(processes, &programs, &directory)?;
    let made = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()])?;
    cluster.secure(&made.cert.pem(), &made.signing_key.serialize_pem())?;
    let direct = cluster.target(Kind::Direct)?;
    let (address, gateway, outpost) = start(&cluster, &made.cert.pem())?;
    let through = |database| Target { kind: Kind::Intent, address, proxy: Some(gateway), database };
    let targets = [direct, through(NEAR), through(FAR)];
    let bench = Bench { processes, programs: &programs, directory: &directory, seconds };

    let before = [resident_bytes(gateway.pid())?, resident_bytes(outpost.pid())?];
    say("weighing idle sessions");
    let clients = bench.idle_clients(&cluster, &through(FAR))?;
    let idle = [resident_bytes(gateway.pid())?, resident_bytes(outpost.pid())?];
    processes.end(clients);
    bench.idle_gone(&cluster)?;

    let mut found = Vec::new();
    for round in 0..rounds {
        say(&format!("round {} of {rounds}", round + 1));
        let mut one = Round { transactions: [0.0; 3], rows: [0.0; 3] };
        // Each round begins with another one, so that none always comes first.
        for (at, target) in targets.iter().enumerate().cycle().skip(round % 3).take(3) {
            let transactions = bench.pgbench(target, Mode::Simple, CLIENTS, &[])?.per_second;
            let rows = bench.psql(target, ROWS_STATEMENT)?.per_second;
            for (list, value) in [(&mut one.transactions, transactions), (&mut one.rows, rows)] {
                list.iter_mut().skip(at).take(1).for_each(|place| *place = value);
            }
        }
        found.push(one);
    }
    writeln!(io::stdout(), "{}", report(&found, before, idle, &token::costs()?))?;
    Ok(())
}

fn report(found: &[Round], before: [u64; 2], idle: [u64; 2], tokens: &[Cost]) -> String {
    let of = |pick: &dyn Fn(&Round) -> f64| median(&found.iter().map(pick).collect::<Vec<_>>()).unwrap_or(0.0);
    let ratio = |list: &dyn Fn(&Round) -> [f64; 3], over: usize| {
        of(&|round| {
            let [direct, near, far] = list(round);
            far / if over == 0 { direct } else { near }
        })
    };
    let transactions = |round: &Round| round.transactions;
    let rows = |round: &Round| round.rows;
    let mut text = format!(
        "| | direct | gateway | gateway and outpost |\n|---|---|---|---|\n\
         | `pgbench -S`, {CLIENTS} clients, a second | {:.0} | {:.0} | {:.0} |\n\
         | rows to psql, a second | {:.0} | {:.0} | {:.0} |\n\n",
        of(&|r| r.transactions[0]),
        of(&|r| r.transactions[1]),
        of(&|r| r.transactions[2]),
        of(&|r| r.rows[0]),
        of(&|r| r.rows[1]),
        of(&|r| r.rows[2]),
    );
    let [gateway, outpost] = idle.map(|bytes| bytes as f64 / MIB);
    let [gateway_before, outpost_before] = before.map(|bytes| bytes as f64 / MIB);
    let bars = [
        ("throughput of the gateway that the outpost leaves", ratio(&transactions, 1), 0.85, true),
        ("bulk rows of a direct connection that are left", ratio(&rows, 0), 0.6, true),
        ("1,000 idle sessions, MiB at the outpost", outpost, 40.0, false),
        ("1,000 idle sessions, MiB at the gateway", gateway, 100.0, false),
    ];
    text += "| bar | wanted | found | |\n|---|---|---|---|\n";
    let checks = tokens.iter().map(|one| {
        (format!("a warm check of an {} token, µs (p99 {:.0})", one.algorithm, one.p99), one.median, 200.0, false)
    });
    let bars = bars.into_iter().map(|(what, found, wanted, least)| (what.to_owned(), found, wanted, least));
    for (what, found, wanted, least) in bars.chain(checks) {
        let (sign, met) = if least { ("at least", found >= wanted) } else { ("below", found < wanted) };
        let met = if met { "met" } else { "**missed**" };
        text += &format!("| {what} | {sign} {wanted} | {found:.2} | {met} |\n");
    }
    text + &format!("\nBefore any session: outpost {outpost_before:.1} MiB, gateway {gateway_before:.1} MiB.")
}

/// A gateway with both connections, and an outpost that has joined it.
fn start(cluster: &Cluster<'_>, ca: &str) -> anyhow::Result<(SocketAddr, Started, Started)> {
    let directory = cluster.directory.join("link");
    fs::create_dir(&directory)?;
    let (config, data) = (directory.join("onrecord.toml"), directory.join("data"));
    let onrecord = || Command::new(&cluster.programs.onrecord);
    cluster.processes.run(
        onrecord()
            .args(["init", "--name", "bench.invalid/link", "--listen", "127.0.0.1:0", "--config"])
            .arg(&config)
            .arg("--data")
            .arg(&data),
    )?;
    let secret = |name: &str, text: &str| -> anyhow::Result<PathBuf> {
        let path = directory.join(name);
        fs::write(&path, text)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
        Ok(path)
    };
    let (password, ca) = (secret("password", PASSWORD)?, secret("ca.pem", ca)?);
    let connection = |name: &str, more: &str| {
        format!(
            "[connections.{name}]\nkind = \"postgres\"\naddress = \"{server}\"\ndatabase = \"{DATABASE}\"\n\
             user = \"{USER}\"\npassword = \"file:{password}\"\ntls = \"verify-full\"\nca = \"file:{ca}\"\n\
             identities = [\"service:{USER}\"]\n{more}\n",
            server = cluster.server,
            password = password.display(),
            ca = ca.display(),
        )
    };
    let text = format!(
        "[gateway]\nname = \"bench.invalid/link\"\ndata = {data:?}\nworkers = 1\n\
         [listen]\npostgres = [\"127.0.0.1:0\"]\noutposts = [\"127.0.0.1:0\"]\n{near}{far}\
         [identities.{USER}]\nkind = \"service\"\nsecret = \"{secret}\"\n\
         [limits]\nconnections_max = 4096\nconnections_per_identity_max = 4096\n",
        near = connection(NEAR, ""),
        far = connection(FAR, "outpost = \"bench\""),
        secret = cluster.secret,
    );
    fs::write(&config, text)?;
    let mut serve = onrecord();
    serve.args(["serve", "--config"]).arg(&config).stdout(Stdio::null()).stderr(Stdio::piped());
    let (gateway, lines) = cluster.processes.start(&mut serve, Signal::TERM, stderr_lines)?;
    let address = await_line(&lines, "ready, postgres on ")?.trim().parse()?;

    let token =
        cluster.processes.run(onrecord().args(["outpost", "token", "--name", "bench", "--config"]).arg(&config))?;
    let join = secret("join", &String::from_utf8(token.stdout)?)?;
    let mut outpost = Command::new(&cluster.programs.outpost);
    outpost.arg("--state").arg(directory.join("outpost")).arg("--join-file").arg(join);
    outpost.args(["--allow", &cluster.server.to_string()]).stdout(Stdio::null()).stderr(Stdio::piped());
    let (outpost, lines) = cluster.processes.start(&mut outpost, Signal::TERM, stderr_lines)?;
    for _ in 0..2 {
        await_line(&lines, ": connected")?;
    }
    Ok((address, gateway, outpost))
}

pub(crate) fn await_line(lines: &std::sync::mpsc::Receiver<String>, what: &str) -> anyhow::Result<String> {
    let deadline = Instant::now() + START_WITHIN;
    let mut said = Vec::new();
    while let Ok(line) = lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
        if let Some((_, rest)) = line.split_once(what) {
            return Ok(rest.to_owned());
        }
        said.push(line);
    }
    bail!("it does not start: {}", said.join("; "));
}

fn say(text: &str) {
    let _ = writeln!(io::stderr(), "bench: {text}");
}
