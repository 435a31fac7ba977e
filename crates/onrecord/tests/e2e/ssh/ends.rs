//! How sessions, channels and commands end when a client, a host, an outpost or the gateway does something else than to wait.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};
use testkit::process::{self, Process, poll};
use testkit::sshd::{Sshd, keygen, public};
use testkit::{Outpost, Postgres, Way};

use super::{Place, place, place_limited, place_with};
use crate::plan;

#[test]
fn a_client_that_goes_away_leaves_an_honest_unknown() {
    let place = place();
    let mut ssh = place.client("ssh");
    ssh.args(["web1@127.0.0.1", "echo began; sleep 600"]);
    let out = fs::File::create(place.path("out")).unwrap();
    let mut running = Process::start("ssh", ssh.stdout(out), Signal::KILL);
    poll("the command", || fs::read_to_string(place.path("out")).unwrap().contains("began").then_some(()));
    running.signal(Signal::KILL);
    running.wait();
    let command = place.only();
    assert_eq!((&command["status"], &command["reason"]), (&json!("unknown"), &json!("client_gone")), "{command:#}");
    let shown = place.show(&command["id"]);
    assert_eq!(shown["streams"]["stdout"], 6);
}

#[test]
fn a_gateway_that_dies_leaves_no_gap() {
    let mut place = place();
    let mut ssh = place.client("ssh");
    ssh.args(["web1@127.0.0.1", "echo began; sleep 600"]);
    let out = fs::File::create(place.path("out")).unwrap();
    let mut running = Process::start("ssh", ssh.stdout(out), Signal::KILL);
    poll("the command", || fs::read_to_string(place.path("out")).unwrap().contains("began").then_some(()));
    place.gateway.kill9();
    running.wait();
    place.gateway = place.gateway.restart();
    let command = place.only();
    assert_eq!((&command["status"], &command["reason"]), (&json!("unknown"), &json!("gateway_restarted")));
    place.gateway.verify();
}

#[test]
fn a_slow_reader_that_sends_on_holds_up_nobody_for_ever() {
    let place = place();
    // More than all windows and queues on the way, there and back.
    let bytes = vec![7u8; 24 << 20];
    fs::write(place.path("input"), &bytes).unwrap();
    let mut shell = Command::new("bash");
    let ssh = place.client("ssh");
    let words: Vec<String> = std::iter::once("ssh".to_owned())
        .chain(ssh.get_args().map(|word| format!("'{}'", word.to_str().unwrap())))
        .collect();
    let line = format!("{} web1@127.0.0.1 cat < {} | (sleep 3; wc -c)", words.join(" "), place.path("input").display());
    shell.args(["-c", &line]);
    let said = process::run_for(&mut shell, "", Duration::from_secs(120));
    assert_eq!(said.stdout.trim(), bytes.len().to_string(), "{}", said.stderr);
    assert_eq!(place.only()["status"], "ok");
}

/// A client of its own making, with the agent's key, that keeps its connection in `client` and its channels open.
pub(super) fn paramiko(place: &Place, script: &str) -> Process {
    let file = place.path("script.py");
    let (port, key, known) = (place.gateway.ssh_port(), place.path("agent"), place.path("known_hosts"));
    let text = format!(
        r#"
import os, paramiko, time
def wait_for(path):
    while not os.path.exists(path):
        time.sleep(0.05)
def connect():
    client = paramiko.SSHClient()
    client.load_host_keys({known:?})
    client.connect("127.0.0.1", {port}, "web1", key_filename={key:?}, look_for_keys=False, allow_agent=False)
    return client
PORT, KEY = {port}, {key:?}
HERE = {here:?} + "/"
{script}
"#,
        here = place.home.path(),
    );
    fs::write(&file, text).unwrap();
    let out = fs::File::create(place.path("out")).unwrap();
    let mut python = Command::new(testkit::clients::python());
    python.arg("-u").arg(&file).stdout(out.try_clone().unwrap()).stderr(out);
    Process::start("paramiko", &mut python, Signal::KILL)
}

pub(super) fn said(place: &Place, part: &str) {
    poll(part, || fs::read_to_string(place.path("out")).unwrap().contains(part).then_some(()));
}

#[test]
fn a_channel_that_was_open_before_its_identity_was_revoked_starts_nothing() {
    let mut place = place();
    let mark = place.path("mark").display().to_string();
    let script = format!(
        "client = connect()\nchannels = [client.get_transport().open_session() for _ in range(3)]\nprint('open')\n\
         wait_for(HERE + 'revoked')\ntry:\n    channels[0].exec_command('touch {mark}')\n    time.sleep(1)\nexcept Exception as \
         error:\n    print(error)\nprint('asked')\ntime.sleep(600)\n"
    );
    let mut client = paramiko(&place, &script);
    said(&place, "open");
    let revoke = place.gateway.cli(&["identities", "revoke", "agent:deployer", "--reason", "test"]);
    revoke.expect_success("identities revoke");
    fs::write(place.path("revoked"), "").unwrap();
    said(&place, "asked");
    assert!(!place.path("mark").exists());
    assert!(place.commands().iter().all(|command| command["status"] != "ok"));
    // Nothing of it holds up the end.
    place.gateway.stop();
    client.signal(Signal::KILL);
    client.wait();
}

#[test]
fn who_takes_too_long_to_log_in_is_not_let_in_afterwards() {
    let place = place_limited("authentication_seconds_max = 2");
    let script = "import socket\nsock = socket.create_connection(('127.0.0.1', PORT))\ntransport = paramiko.Transport(sock)\n\
                  transport.start_client(timeout=5)\ntime.sleep(4)\ntry:\n    \
                  transport.auth_publickey('web1', paramiko.Ed25519Key.from_private_key_file(KEY))\n    \
                  print('let in')\nexcept Exception as error:\n    print('kept out', error)\n";
    let mut client = paramiko(&place, script);
    client.wait();
    let said = fs::read_to_string(place.path("out")).unwrap();
    assert!(said.contains("kept out") && !said.contains("let in"), "{said}");
    assert_eq!(place.gateway.entries("session-open"), 0);
}

#[test]
fn idle_channels_do_not_hold_up_the_end_of_a_gateway() {
    let mut place = place();
    let script = "client = connect()\nchannels = [client.get_transport().open_session() for _ in range(3)]\n\
                  running = client.get_transport().open_session()\nrunning.exec_command('sleep 600')\nprint('open')\n\
                  time.sleep(600)\n";
    let mut client = paramiko(&place, script);
    said(&place, "open");
    poll("the command", || (place.gateway.entries("intent") == 1).then_some(()));
    place.gateway.stop();
    let command = place.only();
    assert_eq!((&command["status"], &command["reason"]), (&json!("unknown"), &json!("gateway_stopped")), "{command:#}");
    client.signal(Signal::KILL);
    client.wait();
}

#[test]
fn a_channel_starts_one_thing() {
    let place = place();
    let script = "client = connect()\nchannel = client.get_transport().open_session()\nchannel.exec_command('sleep 1; echo one')\n\
                  try:\n    channel.exec_command('echo two')\nexcept Exception as error:\n    print('refused', error)\n\
                  print(channel.recv(100))\n";
    let mut client = paramiko(&place, script);
    client.wait();
    let said = fs::read_to_string(place.path("out")).unwrap();
    assert!(said.contains("refused"), "{said}");
    assert_eq!(place.only()["text"], "sleep 1; echo one");
}

#[test]
fn a_host_is_reached_through_its_outpost_and_its_loss_is_told() {
    let home = tempfile::tempdir().unwrap();
    keygen(&home.path().join("agent"));
    let (server, host) = (Postgres::start(), Sshd::start());
    let address = format!("127.0.0.1:{}", host.port());
    let tables = format!(
        "[connections.web1]\nkind = \"ssh\"\naddress = \"{address}\"\nuser = \"{user}\"\nkey = \"file:{key}\"\n\
         host_keys = [\"{host_key}\"]\nidentities = [\"agent:deployer\"]\noutpost = \"site-a\"\n\n\
         [identities.deployer]\nkind = \"agent\"\nssh_keys = [\"{agent}\"]\n",
        user = host.user(),
        key = host.client_key().display(),
        host_key = host.host_key(),
        agent = public(&home.path().join("agent")),
    );
    let listen = "ssh = [\"127.0.0.1:0\"]\noutposts = [\"127.0.0.1:0\"]\n";
    let gateway = plan().listen(listen).tables(&tables).start(&server);
    let place = Place { _server: server, host, gateway, home };
    let known = format!("[127.0.0.1]:{} {}\n", place.gateway.ssh_port(), place.gateway_key());
    fs::write(place.path("known_hosts"), known).unwrap();
    let without = place.ssh(&["true"]);
    assert_eq!(without.status.code(), Some(255));
    assert!(without.stderr.contains("OnRecord cannot reach the host behind connection \"web1\""), "{}", without.stderr);

    let mut outpost = Outpost::join(&place.gateway, "site-a", &[], &[&address], Way::default());
    assert_eq!(place.ssh(&["echo through; exit 5"]).status.code(), Some(5));
    poll("the outpost to have carried it", || outpost.said().contains(&format!("to {address} ended")).then_some(()));
    let mut ssh = place.client("ssh");
    ssh.args(["web1@127.0.0.1", "echo began; sleep 600"]);
    let out = fs::File::create(place.path("out")).unwrap();
    let mut running = Process::start("ssh", ssh.stdout(out), Signal::KILL);
    poll("the command", || fs::read_to_string(place.path("out")).unwrap().contains("began").then_some(()));
    outpost.kill9();
    running.wait();
    let commands = place.commands();
    let told: Vec<_> =
        commands.iter().map(|command| (&command["status"], &command["code"], &command["reason"])).collect();
    let none = &Value::Null;
    assert_eq!(told, [(&json!("error"), &json!("5"), none), (&json!("unknown"), none, &json!("outpost_lost"))]);
    place.gateway.verify();
}

/// A host that is paramiko, with these methods of its `ServerInterface`, and its port. In this directory its `key` lets in
/// and is the host's; what it prints is in `out`.
pub(super) fn paramiko_host(home: &Path, methods: &str) -> (Process, u16) {
    let (key, script, out) = (home.join("key"), home.join("host.py"), home.join("out"));
    keygen(&key);
    let text = format!(
        r#"
import os, paramiko, socket, threading, time
class Host(paramiko.ServerInterface):
    def check_auth_publickey(self, user, key):
        return paramiko.AUTH_SUCCESSFUL
    def get_allowed_auths(self, user):
        return "publickey"
    def check_channel_request(self, kind, number):
        return paramiko.OPEN_SUCCEEDED
{methods}
listener = socket.create_server(("127.0.0.1", 0))
print("port", listener.getsockname()[1], "end", flush=True)
transports = []
while True:
    client, _ = listener.accept()
    transport = paramiko.Transport(client)
    transport.add_server_key(paramiko.Ed25519Key.from_private_key_file({key:?}))
    transport.start_server(server=Host())
    transports.append(transport)
"#
    );
    fs::write(&script, text).unwrap();
    let mut python = Command::new(testkit::clients::python());
    let host = Process::start("paramiko", python.arg(&script).stdout(fs::File::create(&out).unwrap()), Signal::KILL);
    let port = poll("the host", || {
        let said = fs::read_to_string(&out).unwrap();
        said.strip_prefix("port ")?.split_once(" end")?.0.parse().ok()
    });
    (host, port)
}

/// The table of a connection to a host on this port, with the file `key` in this directory as its key and the gateway's.
pub(super) fn host_at(home: &Path, name: &str, port: u16) -> String {
    format!(
        "[connections.{name}]\nkind = \"ssh\"\naddress = \"127.0.0.1:{port}\"\nuser = \"deploy\"\nkey = \"file:{key}\"\n\
         host_keys = [\"{host_key}\"]\nidentities = [\"agent:deployer\"]\n",
        key = home.join("key").display(),
        host_key = public(&home.join("key")),
    )
}

/// A host that takes a channel and then says nothing more, as one does whose disk hangs.
#[test]
fn a_host_that_does_not_answer_holds_up_nobody() {
    let home = tempfile::tempdir().unwrap();
    let (_host, port) = paramiko_host(
        home.path(),
        r#"
    def check_channel_pty_request(self, *asked):
        print("asked", flush=True)
        time.sleep(600)
"#,
    );
    let out = home.path().join("out");
    let web2 = host_at(home.path(), "web2", port) + "terminals = true\n";
    let mut place = place_with("", "", &web2);
    let mut ssh = place.client("ssh");
    ssh.args(["-tt", "web2@127.0.0.1", "true"]);
    let err = fs::File::create(place.path("err")).unwrap();
    let mut running = Process::start("ssh", ssh.stderr(err), Signal::KILL);
    poll("the host to be asked", || fs::read_to_string(&out).unwrap().contains("asked").then_some(()));
    place.gateway.stop();
    running.wait();
    let said = fs::read_to_string(place.path("err")).unwrap();
    assert!(said.contains("OnRecord ends this session. The command was not sent to the host."), "{said}");
    let command = place.only();
    assert_eq!((&command["status"], &command["reason"]), (&json!("skipped"), &json!("not_forwarded")), "{command:#}");
    place.gateway.verify();
}
