//! `ssh -L` and `ssh -W` to a database: the gateway answers in the channel as it does where PostgreSQL is listened for.

use std::fs;
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use rustix::process::Signal;
use serde_json::{Value, json};
use testkit::Target;
use testkit::clients::{await_running, python};
use testkit::issuer::Issuer;
use testkit::postgres::free_port;
use testkit::process::{self, Finished, Process, poll};
use testkit::raw::{Raw, query};

use super::certificates::{token, trusting};
use super::{Place, place, place_limited};

/// Lets the SSH identity use the database.
fn granted(place: Place) -> Place {
    place.reconfigure(|config| {
        config.replacen("identities = [\"agent:", "identities = [\"agent:deployer\", \"agent:", 1)
    });
    place
}

/// A stock client that forwards, with the key of this name.
struct Tunnel {
    ssh: Process,
    port: u16,
}

impl Place {
    fn tunnel(&self, key: &str, to: &str) -> Tunnel {
        let port = free_port();
        let mut ssh = self.client_with("ssh", key);
        ssh.args(["-N", "-o", "ExitOnForwardFailure=yes", "-L", &format!("{port}:{to}"), "whoever@127.0.0.1"]);
        let mut ssh = Process::start("ssh", ssh.stderr(Stdio::null()), Signal::KILL);
        poll("ssh to listen", || {
            assert!(ssh.ended().is_none(), "ssh has ended");
            TcpStream::connect(("127.0.0.1", port)).ok()
        });
        Tunnel { ssh, port }
    }

    /// Where the agent of the database connects, through a tunnel.
    fn through(&self, tunnel: &Tunnel) -> Target {
        Target { port: tunnel.port, ..self.gateway.target() }
    }

    /// What comes back of these bytes through `ssh -W`.
    fn stdio(&self, to: &str, input: &str) -> Finished {
        let mut ssh = self.client("ssh");
        process::run(ssh.args(["-W", to, "whoever@127.0.0.1"]), input)
    }

    fn sessions_listed(&self) -> Vec<Value> {
        let listed = self.gateway.cli(&["sessions", "--output", "ndjson"]).expect_success("sessions");
        listed.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

fn psql(target: &Target, args: &[&str]) -> Finished {
    process::run(&mut psql_command(target, args), "")
}

fn psql_command(target: &Target, args: &[&str]) -> Command {
    let mut psql = Command::new(testkit::postgres::binary("psql"));
    target.libpq(psql.args(["-X", "-q", "-At", "-v", "ON_ERROR_STOP=1"]).args(args));
    psql
}

fn over_tls(place: &Place, target: &Target) -> Target {
    target.with_tls(place.gateway.authority().ca())
}

#[test]
fn a_client_comes_through_a_tunnel_and_is_recorded_as_itself() {
    let place = granted(place());
    let tunnel = place.tunnel("agent", "app:5432");
    let target = place.through(&tunnel);
    assert_eq!(psql(&target, &["-c", "select 'in the clear'"]).expect_success("psql"), "in the clear\n");
    let mut bound = psql_command(&over_tls(&place, &target), &["-c", "select 'over TLS'"]);
    let said = process::run(bound.env("PGCHANNELBINDING", "require"), "").expect_success("psql");
    assert_eq!(said, "over TLS\n");
    // Another database of the same connection, and the port is whatever is asked for.
    place._server.create_database("other");
    let elsewhere = place.tunnel("agent", "app:1");
    let other = place.through(&elsewhere).with_database("app/other");
    assert_eq!(psql(&other, &["-c", "select current_database()"]).expect_success("psql"), "other\n");
    // By the address that is configured.
    let address = place.tunnel("agent", &format!("127.0.0.1:{}", place._server.port()));
    assert_eq!(psql(&place.through(&address), &["-c", "select 4"]).expect_success("psql"), "4\n");

    let record = place.gateway.settled("app");
    for (text, proof) in [("in the clear", "scram-sha-256"), ("over TLS", "scram-sha-256-plus")] {
        let command = record.only(text);
        let told = ["identity", "connection", "proof", "status"].map(|key| command.str(key).unwrap());
        assert_eq!(told, ["agent:copilot-agent", "app", proof, "ok"], "{command:?}");
    }
    let sessions = place.sessions_listed();
    assert_eq!(sessions.len(), 4, "who only forwards has no session: {sessions:#?}");
    for session in &sessions {
        assert_eq!(session["protocol"].as_str(), Some("postgres 3.0 over ssh 2.0"), "{session:#}");
        assert!(session["client"].as_str().unwrap().starts_with("127.0.0.1:"), "{session:#}");
    }
    let shown = |tls: bool| {
        let one = sessions.iter().find(|session| session["tls"].is_null() != tls).unwrap();
        place.gateway.cli(&["show", one["id"].as_str().unwrap()]).expect_success("show")
    };
    assert!(shown(false).contains(", over SSH"), "{}", shown(false));
    assert!(shown(true).contains(", TLSv1.3 over SSH"), "{}", shown(true));
    place.gateway.verify();
}

#[test]
fn a_tunnel_leads_to_one_connection_and_says_so() {
    let place = granted(place());
    let tunnel = place.tunnel("agent", "app:5432");
    // There is such a connection, and this client may use it; or there is none.
    for database in ["secure", "nowhere", "copilot-agent"] {
        let said = psql(&place.through(&tunnel).with_database(database), &["-c", "select 1"]);
        let expected = format!("this SSH tunnel does not lead to connection \"{database}\"");
        assert!(!said.status.success() && said.stderr.contains(&expected), "{said:?}");
        assert!(said.stderr.contains("NAME is app here"), "{said:?}");
    }
    // Whoever may use nothing there learns no names.
    let stranger = place.through(&tunnel).with_user("other-agent", &place.gateway.target().password);
    let said = psql(&stranger.with_database("secure"), &["-c", "select 1"]);
    assert!(said.stderr.contains("It leads to no connection that agent:other-agent may use"), "{said:?}");
    let said = psql(&stranger, &["-c", "select 1"]);
    assert!(said.stderr.contains("connection \"app\" does not exist, or agent:other-agent may not use it"), "{said:?}");
    assert!(place.gateway.record().commands.is_empty());
    // An address is that of several connections: those that may be used are all meant.
    let may = |who: &str| format!("identities = [{who}\"agent:copilot-agent\"");
    place.reconfigure(|config| config.replace(&may(""), &may("\"agent:deployer\", ")));
    let address = place.tunnel("agent", &format!("127.0.0.1:{}", place._server.port()));
    for database in ["app", "secure"] {
        let target = place.through(&address).with_database(database);
        assert_eq!(psql(&target, &["-c", "select 1"]).expect_success("psql"), "1\n");
        let by_name = psql(&place.through(&tunnel).with_database(database), &["-c", "select 1"]);
        assert_eq!(by_name.status.success(), database == "app", "{by_name:?}");
    }
}

#[test]
fn what_one_may_not_use_is_refused_as_what_is_not_there() {
    let place = granted(place());
    let address = format!("127.0.0.1:{}", place._server.port() + 1);
    for to in ["secure:5432", "nowhere:5432", "App:5432", &address] {
        let said = place.stdio(to, "");
        assert!(!said.status.success() && said.stderr.contains("administratively prohibited"), "{to}: {said:?}");
    }
    let mut person = place.client_with("ssh", "person");
    let said = process::run(person.args(["-W", "app:5432", "whoever@127.0.0.1"]), "");
    assert!(!said.status.success() && said.stderr.contains("administratively prohibited"), "{said:?}");
    // Nor the other way round, nor to sockets.
    let mut back = place.client("ssh");
    back.args(["-N", "-o", "ExitOnForwardFailure=yes", "-R", "0:127.0.0.1:1", "whoever@127.0.0.1"]);
    assert!(!process::run(&mut back, "").status.success());
    poll("the refusals to be entries", || (place.gateway.entries("refused") > 0).then_some(()));
    assert!(place.sessions_listed().is_empty());
    let log = fs::read_dir(place.gateway.data().join("log")).unwrap();
    let log: Vec<u8> = log.flat_map(|file| fs::read(file.unwrap().path()).unwrap_or_default()).collect();
    assert!(String::from_utf8_lossy(&log).contains("\"reason\":\"not_permitted\""));
}

#[test]
fn who_has_logged_in_needs_no_other_credential_and_no_tls() {
    let issuer = Issuer::start();
    let place = granted(trusting(&issuer));
    let file = place.path("key");
    let said = place.login(&token(&issuer), &["--out", file.to_str().unwrap()]).expect_success("login --ssh");
    assert!(said.contains(": web1, app") && said.contains("web1@127.0.0.1"), "{said}");
    let tunnel = place.tunnel("key", "app:5432");
    let mut get = Command::new(env!("CARGO_BIN_EXE_onrecord"));
    get.env("ONRECORD_GATEWAY", place.gateway.api()).env("ONRECORD_CA", place.gateway.authority().ca());
    get.env("ONRECORD_TOKEN", token(&issuer)).args(["token", "--connection", "app"]);
    let secret = process::run(&mut get, "").expect_success("onrecord token");
    // In the clear, as far as PostgreSQL knows: SSH encrypts it.
    let target = place.through(&tunnel).with_user("token", secret.trim());
    assert_eq!(psql(&target, &["-c", "select 'by a token'"]).expect_success("psql"), "by a token\n");
    let command = place.only();
    let told = ["identity", "on_behalf_of", "proof", "connection"].map(|key| command[key].as_str().unwrap());
    assert_eq!(told, ["agent:deployer", "human:bea", "connection-token", "app"], "{command:#}");

    // One that is for hosts only leads to no database.
    let narrow = place.path("narrow");
    let out = ["--out", narrow.to_str().unwrap(), "--connection", "web1"];
    place.login(&token(&issuer), &out).expect_success("login --ssh");
    let mut ssh = place.client_with("ssh", "narrow");
    let said = process::run(ssh.args(["-W", "app:5432", "whoever@127.0.0.1"]), "");
    assert!(!said.status.success() && said.stderr.contains("administratively prohibited"), "{said:?}");
    // And one for databases only is for them.
    let narrow = place.path("database");
    let out = ["--out", narrow.to_str().unwrap(), "--connection", "app"];
    let said = place.login(&token(&issuer), &out).expect_success("login --ssh");
    assert!(said.contains("-N -L 5432:app:5432"), "{said}");
    let tunnel = place.tunnel("database", "app:5432");
    let target = place.through(&tunnel).with_user("token", secret.trim());
    assert_eq!(psql(&target, &["-c", "select 1"]).expect_success("psql"), "1\n");
    place.gateway.verify();
}

#[test]
fn who_forwards_may_wait_until_they_are_locked_out() {
    let place = granted(place_limited("authentication_seconds_max = 1\n"));
    let mut tunnel = place.tunnel("agent", "app:5432");
    let waits = || {
        // Whoever has nothing to wait for is sent away meanwhile.
        let mut idle = place.client_with("ssh", "person");
        let mut idle = Process::start("ssh", idle.args(["-N", "whoever@127.0.0.1"]), Signal::KILL);
        poll("the client to be sent away", || idle.ended().is_some().then_some(()));
    };
    waits();
    waits();
    let target = place.through(&tunnel);
    assert_eq!(psql(&target, &["-c", "select 1"]).expect_success("psql"), "1\n");
    waits();
    let mut psql = psql_command(&target, &["-c", "select pg_sleep(600)"]);
    let mut running = Process::start("psql", psql.stderr(Stdio::null()), Signal::KILL);
    await_running(&place._server, "pg_sleep(600)");
    place.gateway.cli(&["identities", "revoke", "agent:deployer", "--reason", "test"]).expect_success("revoke");
    poll("the client to be sent away", || tunnel.ssh.ended().is_some().then_some(()));
    assert!(!running.wait().success());
    let record = place.gateway.settled("app");
    assert_eq!(record.only("pg_sleep").status(), "cancelled", "the one inside is gone with its way: {record:?}");
    // No way any more, for nobody who is locked out.
    let said = place.stdio("app:5432", "");
    assert!(!said.status.success(), "{said:?}");
    place.gateway.verify();
}

#[test]
fn a_cancellation_comes_through_a_channel_of_its_own() {
    let place = granted(place());
    let tunnel = place.tunnel("agent", "app:5432");
    for target in [place.through(&tunnel), over_tls(&place, &place.through(&tunnel))] {
        let mut psql = psql_command(&target, &["-c", "select pg_sleep(600)"]);
        let said = fs::File::create(place.path("said")).unwrap();
        let mut running = Process::start("psql", psql.stderr(said), Signal::KILL);
        await_running(&place._server, "pg_sleep(600)");
        running.signal(Signal::INT);
        running.wait();
        let said = fs::read_to_string(place.path("said")).unwrap();
        assert!(said.contains("canceling statement due to user request"), "{said}");
    }
    let commands = place.commands();
    assert_eq!(commands.len(), 2);
    assert!(commands.iter().all(|command| command["status"] == "cancelled"), "{commands:#?}");
    assert!(place.gateway.entries("cancel") >= 2);
}

#[test]
fn bulk_passes_whole_in_both_directions() {
    let place = granted(place());
    place._server.sql("create table bulk (line text)");
    let tunnel = place.tunnel("agent", "app:5432");
    let rows = 50_000;
    let all =
        format!("copy (select repeat('x', 992) || to_char(n, '0000000') from generate_series(1, {rows}) n) to stdout");
    let file = |name: &str| -> PathBuf { place.path(name) };
    for (name, target) in [("plain", place.through(&tunnel)), ("tls", over_tls(&place, &place.through(&tunnel)))] {
        let mut out = psql_command(&target, &["-c", &all]);
        assert!(out.stdout(fs::File::create(file(name)).unwrap()).status().unwrap().success());
        let got = fs::read(file(name)).unwrap();
        let expected: Vec<u8> = (1..=rows).flat_map(|n| format!("{} {n:07}\n", "x".repeat(992)).into_bytes()).collect();
        assert_eq!(got.len(), expected.len());
        assert!(got == expected, "{name}: what came differs");
        let mut back = psql_command(&target, &["-c", "copy bulk from stdin"]);
        assert!(back.stdin(fs::File::open(file(name)).unwrap()).status().unwrap().success());
    }
    let counted = place._server.sql("select count(*), count(distinct line), sum(length(line)) from bulk");
    assert!(counted.contains(&format!("{}|{rows}|{}", 2 * rows, 2 * rows * 1000)), "{counted}");
    let commands = place.commands();
    let whole = |command: &Value| command["results"][0]["rows"] == json!(rows) && command["status"] == "ok";
    assert!(commands.len() == 4 && commands.iter().all(whole), "{commands:#?}");
    // What is held up in one tunnel holds up no memory: far more went over than may wait.
    assert!(place.gateway.peak_memory_kib() < 200 << 10, "{} KiB", place.gateway.peak_memory_kib());
    place.gateway.verify();
}

#[test]
fn who_does_not_read_holds_up_nobody_else() {
    let place = granted(place());
    let tunnel = place.tunnel("agent", "app:5432");
    let target = place.through(&tunnel);
    let mut deaf = Raw::login(&target);
    deaf.send(&query("select repeat('x', 1000000) from generate_series(1, 100)"));
    // The server waits for whoever does not read.
    let waits = "select count(*) from pg_stat_activity where wait_event = 'ClientWrite'";
    poll("the server to wait", || place._server.sql(waits).contains('1').then_some(()));
    for _ in 0..3 {
        assert_eq!(psql(&target, &["-c", "select 1"]).expect_success("psql"), "1\n");
    }
    let rows = deaf.until_ready(1).iter().filter(|message| message.kind == b'D').count();
    assert_eq!(rows, 100, "all is there for whoever reads after all");
    assert!(place.gateway.peak_memory_kib() < 200 << 10, "{} KiB", place.gateway.peak_memory_kib());
}

#[test]
fn each_tunnel_is_one_connection_more() {
    // The SSH connection and one tunnel.
    let place = granted(place_limited("connections_max = 2\n"));
    let tunnel = place.tunnel("agent", "app:5432");
    let target = place.through(&tunnel);
    poll("the first way to be over", || psql(&target, &["-c", "select 1"]).status.success().then_some(()));
    let first = poll("a way", || {
        let mut raw = Raw::connect(&target);
        raw.authenticate(&target, 0x0003_0000, &[]).ok().map(|()| raw)
    });
    let said = psql(&target, &["-c", "select 1"]);
    assert!(said.stderr.contains("OnRecord has reached its limit of connections"), "{said:?}");
    drop(first);
    poll("a way to be free again", || psql(&target, &["-c", "select 1"]).status.success().then_some(()));
}

#[test]
fn what_ends_the_way_ends_the_session_and_its_command_has_an_outcome() {
    let place = granted(place());
    let run = |text: &str, tunnel: &Tunnel| {
        let mut psql = psql_command(&place.through(tunnel), &["-c", text]);
        let running = Process::start("psql", psql.stderr(Stdio::null()).stdout(Stdio::null()), Signal::KILL);
        await_running(&place._server, text);
        running
    };
    // The SSH connection is cut.
    let mut tunnel = place.tunnel("agent", "app:5432");
    let mut running = run("select pg_sleep(601)", &tunnel);
    tunnel.ssh.signal(Signal::KILL);
    tunnel.ssh.wait();
    running.wait();
    let record = place.gateway.settled("app");
    let command = record.only("601");
    // Its server was asked to stop it, and has said that it did.
    assert_eq!((command.status(), command.code()), ("cancelled", Some("57014")), "{command:?}");
    // The gateway stops.
    let tunnel = place.tunnel("agent", "app:5432");
    let mut running = run("select pg_sleep(602)", &tunnel);
    let mut place = place;
    place.gateway.stop();
    running.wait();
    let place = Place { gateway: place.gateway.restart(), ..place };
    let command = place.gateway.settled("app");
    assert!(["cancelled", "unknown"].contains(&command.only("602").status()), "{command:?}");
    let ends: Vec<_> = place.sessions_listed().iter().map(|session| session["ended_by"].clone()).collect();
    assert_eq!(ends.len(), 2, "{ends:?}");
    place.gateway.verify();
}

#[test]
fn what_is_no_postgres_is_refused_and_harms_nobody() {
    let place = granted(place());
    let long = "x".repeat(3_000_000);
    let inputs =
        ["", "x", "GET / HTTP/1.1\r\nHost: app\r\n\r\n", "SSH-2.0-x\r\n", "\0\0\0\u{8}\u{4}\u{d2}\u{16}\u{2f}", &long];
    for input in inputs {
        let said = place.stdio("app:5432", input);
        assert!(!said.stdout.contains("SSH-2.0"), "{said:?}");
    }
    let said = place.stdio("app:5432", "GET / HTTP/1.1\r\nHost: app\r\n\r\n");
    assert!(said.stdout.contains("08P01"), "{said:?}");
    assert!(!place.gateway.stderr().contains("panic"), "{}", place.gateway.stderr());
    // More ways at a time than may be: the rest is refused, and they work.
    let tunnel = place.tunnel("agent", "app:5432");
    let held: Vec<_> = (0..40).map(|_| TcpStream::connect(("127.0.0.1", tunnel.port)).unwrap()).collect();
    drop(held);
    poll("a way to be free again", || {
        psql(&place.through(&tunnel), &["-c", "select 1"]).status.success().then_some(())
    });
}

#[test]
fn libraries_forward_too() {
    let place = granted(place());
    let target = place.gateway.target();
    let script = format!(
        r#"
import asyncio, asyncpg, asyncssh, psycopg
async def main():
    async with asyncssh.connect("127.0.0.1", {port}, username="whoever", client_keys=[{key:?}], known_hosts={known:?},
                                config=None) as ssh:
        listener = await ssh.forward_local_port("127.0.0.1", 0, "app", 5432)
        way = dict(host="127.0.0.1", port=listener.get_port(), user={user:?}, password={password:?})
        pool = await asyncpg.create_pool(**way, database="app", ssl=False, min_size=4, max_size=4)
        got = await asyncio.gather(*(pool.fetchval("select $1::int4", n) for n in range(20)))
        assert got == list(range(20)), got
        await pool.close()
        def second():
            with psycopg.connect(**way, dbname="app", sslmode="require") as db:
                assert db.execute("select %s::text", ("by psycopg",)).fetchone() == ("by psycopg",)
        await asyncio.to_thread(second)
asyncio.run(main())
"#,
        port = place.gateway.ssh_port(),
        key = place.path("agent").display().to_string(),
        known = place.path("known_hosts").display().to_string(),
        user = target.user,
        password = target.password,
    );
    process::run(Command::new(python()).arg("-"), &script).expect_success("asyncssh");
    let record = place.gateway.settled("app");
    assert_eq!(record.commands.iter().filter(|command| command.text() == "select $1::int4").count(), 20);
    place.gateway.verify();
}
