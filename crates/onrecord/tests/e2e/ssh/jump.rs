//! `ssh -J`: the gateway answers in the place of the host.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::Signal;
use serde_json::json;
use testkit::process::{self, Finished, Process, poll};

use super::{Place, place, place_limited, place_with};

impl Place {
    /// A client's configuration: the gateway and one line that says whom to trust, as in the documentation.
    pub(super) fn jumping(&self) -> PathBuf {
        let ca = fs::read_to_string(self.gateway.data().join("ssh/host_ca.pub")).unwrap();
        fs::write(self.path("known_hosts"), format!("@cert-authority * {ca}")).unwrap();
        let file = self.path("ssh_config");
        let text = format!(
            "Host gateway\n HostName 127.0.0.1\n Port {port}\n User whoever\nHost *\n User {user}\n IdentityFile {key}\n \
             IdentitiesOnly yes\n IdentityAgent none\n UserKnownHostsFile {known}\n StrictHostKeyChecking yes\n",
            port = self.gateway.ssh_port(),
            user = self.host.user(),
            key = self.path("agent").display(),
            known = self.path("known_hosts").display(),
        );
        fs::write(&file, text).unwrap();
        file
    }

    fn jump(&self, args: &[&str]) -> Finished {
        process::run(&mut self.jumper("ssh", args), "")
    }

    fn jumper(&self, program: &str, args: &[&str]) -> Command {
        let mut command = Command::new(program);
        command.arg("-F").arg(self.path("ssh_config")).args(["-J", "gateway"]).args(args);
        command
    }

    fn sessions(&self) -> usize {
        self.gateway.cli(&["sessions", "--output", "ndjson"]).expect_success("sessions").lines().count()
    }
}

#[test]
fn stock_clients_jump_and_the_record_has_what_runs() {
    let place = place_with("", "", "[ssh]\nnames = [\"127.0.0.1\"]\n");
    place.jumping();
    let said = place.jump(&["web1", "echo out; echo err >&2; exit 7"]);
    assert_eq!((said.status.code(), said.stdout.as_str()), (Some(7), "out\n"), "{}", said.stderr);
    let command = place.only();
    let told = ["identity", "connection", "proof", "status", "code"].map(|key| command[key].as_str().unwrap());
    assert_eq!(told, ["agent:deployer", "web1", "public-key", "error", "7"]);
    assert_eq!(place.sessions(), 1, "the way there is none");
    // By its address, as where a client's configuration has one.
    let port = place.host.port().to_string();
    assert_eq!(place.jump(&["-p", &port, "127.0.0.1", "echo in"]).stdout, "in\n");

    let bytes: Vec<u8> = (0..9_000_000u32).map(|n| n.wrapping_mul(2_654_435_761).to_be_bytes()[1]).collect();
    fs::write(place.path("file"), &bytes).unwrap();
    let far = place.host.home().join("far");
    let to = format!("web1:{}", far.display());
    process::run(&mut place.jumper("scp", &[place.path("file").to_str().unwrap(), &to]), "").expect_success("scp");
    assert!(fs::read(&far).unwrap() == bytes, "the file differs");
    let get = format!("get {} {}\n", far.display(), place.path("back").display());
    process::run(&mut place.jumper("sftp", &["-b", "-", "web1"]), &get).expect_success("sftp");
    assert!(fs::read(place.path("back")).unwrap() == bytes, "the file differs");
    // One that sends before it reads, with more than fits into all windows.
    let mut cat = place.jumper("ssh", &["web1", "cat"]);
    cat.stdin(fs::File::open(place.path("file")).unwrap()).stdout(fs::File::create(place.path("out")).unwrap());
    assert!(cat.status().unwrap().success());
    assert!(fs::read(place.path("out")).unwrap() == bytes, "what came back differs");
    let written = format!("write {}", far.display());
    assert!(place.commands().iter().any(|command| command["text"] == json!(written)));
    place.gateway.verify();
}

#[test]
fn who_has_proven_something_and_does_nothing_with_it_does_not_stay() {
    let place = place_limited("authentication_seconds_max = 2\n");
    place.jumping();
    let known = format!("[127.0.0.1]:{} {}\n", place.gateway.ssh_port(), place.gateway_key());
    fs::write(place.path("known_hosts"), known).unwrap();
    let mut idle = place.client("ssh");
    let mut idle = Process::start("ssh", idle.args(["-N", "whoever@127.0.0.1"]), Signal::KILL);
    poll("the client to be sent away", || idle.ended().is_some().then_some(()));
    assert_eq!(place.sessions(), 0);
    // Who comes to a connection has a session at once, which ends when its identity is revoked.
    let mut held = place.client("ssh");
    let mut held = Process::start("ssh", held.args(["-N", "web1@127.0.0.1"]), Signal::KILL);
    poll("the session", || (place.sessions() == 1).then_some(()));
    place.gateway.cli(&["identities", "revoke", "agent:deployer", "--reason", "test"]).expect_success("revoke");
    poll("the client to be sent away", || held.ended().is_some().then_some(()));
    place.gateway.verify();
}

#[test]
fn who_jumps_gets_no_further_than_who_does_not() {
    let policy = r#"
version: 1
default: deny
rules:
  - {id: all, when: 'conn.kind == "ssh"', then: allow}
  - {id: no-trees, when: 'cmd.text.contains("rm -r")', then: deny, message: nobody removes whole trees}
"#;
    let place = place_with(policy, "", "[ssh]\nnames = [\"127.0.0.1\"]\n");
    place.jumping();
    let said = place.jump(&["web1", "rm -r /nowhere"]);
    assert_eq!(said.status.code(), Some(126), "{said:?}");
    assert!(said.stderr.contains("nobody removes whole trees"), "{}", said.stderr);
    let said = place.jump(&["nobody@web1", "true"]);
    assert_eq!(said.status.code(), Some(255));
    assert!(said.stderr.contains("may not use connection \"web1\" as user \"nobody\""), "{}", said.stderr);
    let before = place.sessions();
    // Neither elsewhere, nor on from there, nor without a proof.
    let port = place.host.port() + 1;
    for target in ["nowhere:22", "127.0.0.1:1", "app:5432", &format!("127.0.0.1:{port}")] {
        let mut forward = Command::new("ssh");
        forward.arg("-F").arg(place.path("ssh_config")).args(["-W", target, "gateway"]);
        let said = process::run(&mut forward, "");
        assert!(!said.status.success() && said.stderr.contains("administratively prohibited"), "{target}: {said:?}");
    }
    let mut twice = Command::new("ssh");
    twice.arg("-F").arg(place.path("ssh_config")).args(["-J", "gateway,web1", "elsewhere", "true"]);
    let said = process::run(&mut twice, "");
    assert!(!said.status.success() && said.stderr.contains("administratively prohibited"), "{said:?}");
    let key = format!("IdentityFile={}", place.path("stranger").display());
    let mut stranger = Command::new("ssh");
    stranger.arg("-F").arg("none").args(["-o", "IdentitiesOnly=yes", "-o", "IdentityAgent=none", "-o", &key]);
    stranger.arg("-o").arg(format!("UserKnownHostsFile={}", place.path("known_hosts").display()));
    stranger.arg("-p").arg(place.gateway.ssh_port().to_string()).args(["-W", "web1:22", "127.0.0.1"]);
    assert!(process::run(&mut stranger, "").stderr.contains("Permission denied"));
    // Of the rest there is nothing but that it was refused.
    assert_eq!(place.sessions(), before + 1, "who came to web1 to go on from there had a session there");
    poll("the refusals to be entries", || (place.gateway.entries("refused") > 0).then_some(()));
}

#[test]
fn who_jumps_and_goes_away_leaves_an_honest_unknown() {
    let place = place();
    place.jumping();
    // Without a certificate for the gateway itself, its key is pinned as ever.
    let known = fs::read_to_string(place.path("known_hosts")).unwrap();
    let known = format!("{known}[127.0.0.1]:{} {}\n", place.gateway.ssh_port(), place.gateway_key());
    fs::write(place.path("known_hosts"), known).unwrap();
    let mut ssh = place.jumper("ssh", &["web1", "echo began; sleep 600"]);
    let out = fs::File::create(place.path("out")).unwrap();
    let mut running = Process::start("ssh", ssh.stdin(Stdio::null()).stdout(out), Signal::KILL);
    poll("the command", || fs::read_to_string(place.path("out")).unwrap().contains("began").then_some(()));
    running.signal(Signal::KILL);
    running.wait();
    let command = place.only();
    assert_eq!((&command["status"], &command["reason"]), (&json!("unknown"), &json!("client_gone")), "{command:#}");
    // The gateway stops in time, whatever still hangs in it.
    let mut ssh = place.jumper("ssh", &["web1", "echo began; sleep 600"]);
    let out = fs::File::create(place.path("again")).unwrap();
    let mut running = Process::start("ssh", ssh.stdin(Stdio::null()).stdout(out), Signal::KILL);
    poll("the command", || fs::read_to_string(place.path("again")).unwrap().contains("began").then_some(()));
    let mut place = place;
    place.gateway.stop();
    running.wait();
    let place = Place { gateway: place.gateway.restart(), ..place };
    let reasons: Vec<_> = place.commands().iter().map(|command| command["reason"].clone()).collect();
    assert_eq!(reasons.iter().filter(|reason| **reason == json!("gateway_stopped")).count(), 1, "{reasons:?}");
}

#[test]
fn ansible_jumps() {
    // It asks for terminals.
    let place = place_with("", "terminals = true\n", "[ssh]\nnames = [\"127.0.0.1\"]\n");
    let config = place.jumping();
    let python = testkit::clients::python();
    let inventory = place.path("inventory");
    let line = format!(
        "web1 ansible_ssh_common_args='-F {} -J gateway' ansible_python_interpreter={} ansible_remote_tmp={}/ansible\n",
        config.display(),
        python.display(),
        place.host.home().display(),
    );
    fs::write(&inventory, line).unwrap();
    let mut ansible = Command::new(python.with_file_name("ansible"));
    ansible.env("HOME", place.home.path()).env("ANSIBLE_LOCALHOST_WARNING", "0");
    ansible.env("PATH", format!("{}:{}", python.parent().unwrap().display(), std::env::var("PATH").unwrap()));
    ansible.arg("-i").arg(&inventory).args(["web1", "-m", "command", "-a", "echo from-ansible"]);
    let said = process::run_for(&mut ansible, "", Duration::from_secs(120));
    assert!(said.status.success() && said.stdout.contains("from-ansible"), "{said:?}");
    assert!(place.commands().iter().any(|command| command["text"].as_str().unwrap().contains("ansible")));
}
