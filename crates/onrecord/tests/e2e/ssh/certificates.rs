//! Certificates: by which clients prove who they are, by which the gateway does towards hosts, and hosts towards it.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::process::Signal;
use serde_json::{Value, json};
use testkit::issuer::Issuer;
use testkit::process::{self, Finished, Process, poll};
use testkit::sshd::{Sshd, keygen, public};
use testkit::{Outpost, Way};

use super::{Place, place, place_of, place_with};
use crate::plan;

const RULES: &str = r#"
[[issuers.corp.rules]]
name = "agents"
when = 'size(act) == 1'
identity = "agent:{act[0]}"
on_behalf_of = "human:{claims.sub}"
run = "conversation:{claims.sid}"
"#;

/// A place whose gateway trusts an issuer.
pub(super) fn trusting(issuer: &Issuer) -> Place {
    let table = format!("[issuers.corp]\nissuer = \"{}\"\naudience = \"onrecord\"\n{RULES}", issuer.url());
    place_with("", "", &table)
}

pub(super) fn token(issuer: &Issuer) -> String {
    issuer.mint(json!({"aud": "onrecord", "sub": "bea", "act": {"sub": "deployer"}, "sid": "c-17"}))
}

impl Place {
    /// Changes the configuration, and waits until it is in force.
    pub(super) fn reconfigure(&self, change: impl FnOnce(String) -> String) {
        let before = self.gateway.stderr().matches("read again and in force").count();
        let config = fs::read_to_string(self.gateway.config()).unwrap();
        fs::write(self.gateway.config(), change(config)).unwrap();
        poll("the configuration to be read again", || {
            (self.gateway.stderr().matches("read again and in force").count() > before).then_some(())
        });
    }

    /// Makes the same host reachable under another name.
    fn add_twin(&self, name: &str) {
        self.reconfigure(|config| {
            let (_, from) = config.split_once("[connections.web1]").unwrap();
            let table = from.split("\n\n").next().unwrap();
            format!("{config}\n[connections.{name}]{table}\n")
        });
    }

    /// `onrecord login --ssh`, with a home of its own.
    pub(super) fn login(&self, token: &str, args: &[&str]) -> Finished {
        let mut login = Command::new(env!("CARGO_BIN_EXE_onrecord"));
        login.env_clear().env("PATH", std::env::var_os("PATH").unwrap()).env("HOME", self.home.path());
        login.env("ONRECORD_GATEWAY", self.gateway.api()).env("ONRECORD_CA", self.gateway.authority().ca());
        login.env("SSH_AUTH_SOCK", self.path("agent.sock"));
        process::run(login.env("ONRECORD_TOKEN", token).args(["login", "--ssh"]).args(args), "")
    }

    fn ssh_as(&self, key: &str, to: &str, command: &str) -> Finished {
        process::run(self.client_with("ssh", key).args([&format!("{to}@127.0.0.1"), command]), "")
    }
}

/// Lets the connection go to another host, with these lines in the place of the credential and the host's keys.
fn moved(place: &Place, host: &Sshd, lines: &str) {
    place.reconfigure(|config| {
        let (before, rest) = config.split_once("[connections.web1]\n").unwrap();
        let (table, after) = rest.split_once("\n\n").unwrap();
        let kept = table
            .lines()
            .filter(|line| !["address", "key", "login", "host_", "outpost"].iter().any(|key| line.starts_with(key)));
        let kept = kept.collect::<Vec<_>>().join("\n");
        format!("{before}[connections.web1]\naddress = \"127.0.0.1:{}\"\n{lines}\n{kept}\n\n{after}", host.port())
    });
}

/// What a certificate says, as `ssh-keygen` reads it.
fn described(file: &Path) -> String {
    process::run(Command::new("ssh-keygen").arg("-L").arg("-f").arg(file), "").expect_success("ssh-keygen -L")
}

/// Has a public key signed by an authority.
fn sign(ca: &Path, public: &Path, args: &[&str]) {
    let mut keygen = Command::new("ssh-keygen");
    keygen.arg("-q").arg("-s").arg(ca).args(["-I", "forged"]).args(args).arg(public);
    process::run(&mut keygen, "").expect_success("ssh-keygen -s");
}

#[test]
fn who_has_logged_in_uses_stock_ssh() {
    let issuer = Issuer::start();
    let place = trusting(&issuer);
    place.add_twin("web2");
    let file = place.path("key");
    let out = ["--out", file.to_str().unwrap(), "--connection", "web1"];
    let said = place.login(&token(&issuer), &out).expect_success("login --ssh");
    assert!(said.contains("agent:deployer has a certificate until") && said.contains("web1@127.0.0.1"), "{said}");
    let known = format!("[127.0.0.1]:{} {}", place.gateway.ssh_port(), place.gateway_key());
    assert!(said.contains(&known), "{said}");
    let certificate = place.path("key-cert.pub");
    for file in [&file, &certificate] {
        assert_eq!(fs::metadata(file).unwrap().permissions().mode() & 0o777, 0o600, "{file:?}");
    }
    let shown = described(&certificate);
    for part in
        ["user certificate", "identity=agent:deployer serial=", "web1", "permit-pty", "Critical Options: (none)"]
    {
        assert!(shown.contains(part), "{part}: {shown}");
    }
    assert!(!shown.contains("web2") && !shown.contains("port-forwarding"), "{shown}");

    let said = place.ssh_as("key", "web1", "echo in");
    assert_eq!(said.stdout, "in\n", "{}", said.stderr);
    let command = place.only();
    let told = ["identity", "on_behalf_of", "proof", "connection"].map(|key| command[key].as_str().unwrap());
    assert_eq!(told, ["agent:deployer", "human:bea", "ssh-certificate", "web1"], "{command:#}");
    let listed = place.gateway.cli(&["sessions", "--output", "ndjson"]).expect_success("sessions");
    let session: Value = serde_json::from_str(listed.lines().next().unwrap()).unwrap();
    assert_eq!(session["evidence"]["rule"], "corp/agents", "{session:#}");
    assert_eq!((&session["run"], &session["on_behalf_of_known"]), (&json!("conversation:c-17"), &json!("verified")));
    assert_eq!(place.gateway.entries("token"), 1);

    let said = place.ssh_as("key", "web2", "echo in");
    assert!(said.status.code() == Some(255) && said.stderr.contains("Permission denied"), "{said:?}");
    // Nor by one that says more than was handed out, though the authority itself has signed it.
    let serial = described(&certificate).split_once("Serial: ").unwrap().1.lines().next().unwrap().trim().to_owned();
    fs::copy(&file, place.path("wider")).unwrap();
    let public = process::run(Command::new("ssh-keygen").arg("-y").arg("-f").arg(&file), "").expect_success("-y");
    fs::write(place.path("wider.pub"), public).unwrap();
    let ca = place.gateway.data().join("ssh/user_ca");
    sign(&ca, &place.path("wider.pub"), &["-n", "web1,web2", "-V", "-1m:+5m", "-z", &serial]);
    assert!(place.ssh_as("wider", "web1", "true").status.success(), "it would fail for another reason");
    assert!(!place.ssh_as("wider", "web2", "true").status.success());
    // Who has one for each place gets to both.
    let second = place.path("second");
    let out = ["--out", second.to_str().unwrap(), "--connection", "web2"];
    place.login(&token(&issuer), &out).expect_success("login --ssh");
    for to in ["web1", "web2"] {
        let mut ssh = place.client_with("ssh", "key");
        ssh.arg("-o").arg(format!("IdentityFile={}", second.display())).args([&format!("{to}@127.0.0.1"), "echo in"]);
        let said = process::run(&mut ssh, "");
        assert_eq!(said.stdout, "in\n", "{to}: {}", said.stderr);
    }
    // The next one takes the place of this one, and what is not ours stays.
    let again = place.login(&token(&issuer), &["--out", file.to_str().unwrap()]).expect_success("login --ssh");
    assert!(again.contains("web1, web2"), "{again}");
    assert_eq!(place.ssh_as("key", "web2", "echo in").stdout, "in\n");
    let before = fs::read(place.path("agent")).unwrap();
    let refused = place.login(&token(&issuer), &["--out", place.path("agent").to_str().unwrap()]);
    assert!(refused.stderr.contains("is there already"), "{}", refused.stderr);
    assert_eq!(fs::read(place.path("agent")).unwrap(), before);

    let revoked = place.gateway.cli(&["identities", "revoke", "agent:deployer", "--reason", "test"]);
    assert!(revoked.stdout.contains("3 tokens taken back"), "{revoked:?}");
    assert!(!place.ssh_as("key", "web1", "echo in").status.success());
    place.gateway.cli(&["identities", "restore", "agent:deployer", "--reason", "test"]).expect_success("restore");
    assert!(!place.ssh_as("key", "web1", "echo in").status.success(), "what was taken back stays so");
    place.gateway.verify();
}

#[test]
fn an_agent_keeps_it_and_it_outlives_a_restart() {
    let issuer = Issuer::start();
    let mut place = trusting(&issuer);
    let socket = place.path("agent.sock");
    let mut agent = Command::new("ssh-agent");
    let agent = Process::start("ssh-agent", agent.arg("-D").arg("-a").arg(&socket).stdout(Stdio::null()), Signal::TERM);
    poll("ssh-agent", || socket.exists().then_some(()));
    place.login(&token(&issuer), &[]).expect_success("login --ssh");
    let listed = process::run(Command::new("ssh-add").arg("-l").env("SSH_AUTH_SOCK", &socket), "");
    assert!(listed.stdout.contains("(ED25519-CERT)"), "{listed:?}");
    place.gateway.stop();
    let place = Place { gateway: place.gateway.restart(), ..place };
    let known = format!("[127.0.0.1]:{} {}\n", place.gateway.ssh_port(), place.gateway_key());
    fs::write(place.path("known_hosts"), known).unwrap();
    let mut ssh = Command::new("ssh");
    ssh.args(["-F", "none", "-o"]).arg(format!("IdentityAgent={}", socket.display())).arg("-o");
    ssh.arg(format!("UserKnownHostsFile={}", place.path("known_hosts").display()));
    ssh.arg("-p").arg(place.gateway.ssh_port().to_string()).args(["web1@127.0.0.1", "echo in"]);
    let said = process::run(&mut ssh, "");
    assert_eq!(said.stdout, "in\n", "{}", said.stderr);
    assert_eq!(place.only()["proof"], "ssh-certificate");
    // Without an agent and without a file there is no place for the key.
    drop(agent);
    assert!(place.login(&token(&issuer), &[]).stderr.contains("--out FILE"));
}

#[test]
fn what_is_not_the_certificate_lets_nobody_in() {
    let issuer = Issuer::start();
    let place = trusting(&issuer);
    let file = place.path("key");
    let out = ["--out", file.to_str().unwrap(), "--ttl", "10m", "--output", "json"];
    let said = place.login(&token(&issuer), &out).expect_success("login --ssh");
    let said: Value = serde_json::from_str(&said).unwrap();
    let serial = u64::from_str_radix(said["id"].as_str().unwrap(), 16).unwrap();
    let (serial, other) = (serial.to_string(), serial.wrapping_add(1).to_string());
    // Even whoever has the authority's key cannot forge one: what it proves is what the gateway remembers.
    let ca = place.gateway.data().join("ssh/user_ca");
    keygen(&place.path("other_ca"));
    let public = process::run(Command::new("ssh-keygen").arg("-y").arg("-f").arg(&file), "").expect_success("-y");
    let attempt = |ca: &Path, args: &[&str]| {
        fs::copy(&file, place.path("forged")).unwrap();
        fs::write(place.path("forged.pub"), &public).unwrap();
        sign(ca, &place.path("forged.pub"), args);
        place.ssh_as("forged", "web1", "true")
    };
    let good = ["-n", "web1", "-V", "-1m:+5m", "-z", &serial];
    assert!(attempt(&ca, &good).status.success(), "the others would fail for another reason");
    let base = &good[..4];
    let of = |more: &[&'static str]| [&good[..], more].concat();
    let cases = [
        ("of another authority", attempt(&place.path("other_ca"), &good)),
        ("of a host", attempt(&ca, &of(&["-h"]))),
        ("expired", attempt(&ca, &["-n", "web1", "-V", "-10m:-5m", "-z", &serial])),
        ("not yet valid", attempt(&ca, &["-n", "web1", "-V", "+5m:+10m", "-z", &serial])),
        ("with a command", attempt(&ca, &of(&["-O", "force-command=true"]))),
        ("for an address", attempt(&ca, &of(&["-O", "source-address=127.0.0.1/32"]))),
        ("with an unknown condition", attempt(&ca, &of(&["-O", "critical:x@example.com=y"]))),
        ("never handed out", attempt(&ca, &[base, &["-z", &other]].concat())),
    ];
    for (what, said) in cases {
        assert!(!said.status.success() && said.stderr.contains("Permission denied"), "{what}: {said:?}");
    }
    // One for elsewhere, and one that says for everybody: that is nobody.
    for args in [&["-n", "web2", "-V", "-1m:+5m", "-z", &serial][..], &["-V", "-1m:+5m", "-z", &serial]] {
        let said = attempt(&ca, args);
        assert!(!said.status.success() && said.stderr.contains("Permission denied"), "{args:?}: {said:?}");
    }
    assert_eq!(place.commands().len(), 1);
    // Another key, with a certificate that is not for it.
    keygen(&place.path("thief"));
    fs::copy(place.path("key-cert.pub"), place.path("thief-cert.pub")).unwrap();
    assert!(!place.ssh_as("thief", "web1", "true").status.success());
    // Nobody is certified for longer than a token may hold, for what they may not use, or without proof.
    let refused = place.login(&token(&issuer), &["--out", place.path("x").to_str().unwrap(), "--ttl", "2h"]);
    assert!(refused.stderr.contains("ttl_seconds is 1 to 3600"), "{}", refused.stderr);
    let refused = place.login(&token(&issuer), &["--out", place.path("x").to_str().unwrap(), "--connection", "app"]);
    assert!(refused.stderr.contains("connection \"app\" does not exist"), "{}", refused.stderr);
    assert!(!place.login("hello", &["--out", place.path("x").to_str().unwrap()]).status.success());
    assert!(!place.path("x").exists());
}

#[test]
fn a_host_learns_by_a_certificate_who_is_behind_the_gateway() {
    let place = place();
    let trusted = place.path("trusted.pub");
    let host = Sshd::start_with(&format!("TrustedUserCAKeys {}", trusted.display()));
    let lines = format!("login = \"certificate\"\nhost_keys = [\"{}\"]", host.host_key());
    moved(&place, &host, &lines);
    let refused = place.ssh(&["true"]);
    assert!(refused.stderr.contains("OnRecord could not log in to the host"), "{}", refused.stderr);
    // What is in the documentation: the host trusts the gateway's authority for sessions, and no other of its keys.
    let keys = place.gateway.data().join("ssh");
    fs::copy(keys.join("user_ca.pub"), &trusted).unwrap();
    assert!(!place.ssh(&["true"]).status.success(), "another authority of the gateway");
    fs::copy(keys.join("session_ca.pub"), &trusted).unwrap();
    let said = place.ssh(&["echo in; exit 3"]);
    assert_eq!((said.status.code(), said.stdout.as_str()), (Some(3), "in\n"), "{}", said.stderr);
    let session = place.only()["session"].as_str().unwrap().to_owned();
    let log = poll("the host's log", || {
        let log = host.log();
        log.contains("Accepted publickey").then_some(log)
    });
    let line = log.lines().find(|line| line.contains("Accepted publickey")).unwrap();
    let name = fs::read_to_string(place.gateway.config()).unwrap();
    let name = name.lines().find_map(|line| line.strip_prefix("name = ")).unwrap().trim_matches('"').to_owned();
    let id = format!("ID identity=agent:deployer on_behalf_of=human:bea session={session} gateway={name}");
    assert!(line.contains("ED25519-CERT") && line.contains(&id), "{line}");
    assert_eq!(fs::metadata(keys.join("session_ca")).unwrap().permissions().mode() & 0o777, 0o600);
    let doctor = place.gateway.cli(&["doctor"]);
    assert!(doctor.stdout.contains(fs::read_to_string(&trusted).unwrap().trim()), "{doctor:?}");
    // It is towards hosts only that it signs.
    fs::copy(place.path("stranger"), place.path("client")).unwrap();
    fs::copy(place.path("stranger.pub"), place.path("client.pub")).unwrap();
    sign(&keys.join("session_ca"), &place.path("client.pub"), &["-n", "web1", "-V", "-1m:+5m"]);
    let said = place.ssh_as("client", "web1", "true");
    assert!(!said.status.success() && said.stderr.contains("Permission denied"), "{said:?}");
    assert_eq!(place.commands().len(), 1);
}

/// A host with a certificate of this authority.
fn certified(ca: &Path, dir: &Path, args: &[&str]) -> Sshd {
    let key = dir.join(format!("host-{}", fs::read_dir(dir).unwrap().count()));
    keygen(&key);
    sign(ca, &key.with_extension("pub"), args);
    let mut certificate = key.clone().into_os_string();
    certificate.push("-cert.pub");
    Sshd::start_with(&format!("HostKey {}\nHostCertificate {}", key.display(), Path::new(&certificate).display()))
}

#[test]
fn a_host_proves_itself_by_a_certificate() {
    let place = place();
    let ca = place.path("ca");
    keygen(&ca);
    keygen(&place.path("other_ca"));
    let good = ["-h", "-n", "127.0.0.1,web1.internal", "-V", "-1m:+5m"];
    let key = |host: &Sshd| format!("key = \"file:{}\"\nhost_cas = [\"{}\"]", host.client_key().display(), public(&ca));
    let host = certified(&ca, place.home.path(), &good);
    moved(&place, &host, &key(&host));
    assert_eq!(place.ssh(&["echo in"]).stdout, "in\n");
    assert!(host.log().contains("Accepted publickey"));
    let others = [
        ("of another authority", place.path("other_ca"), &good[..], "not signed by an authority"),
        ("of a user", ca.clone(), &good[1..], "one for users"),
        ("of another host", ca.clone(), &["-h", "-n", "web2.internal", "-V", "-1m:+5m"], "not valid for \"127.0.0.1\""),
        ("of all hosts", ca.clone(), &["-h", "-V", "-1m:+5m"], "not valid for \"127.0.0.1\""),
        ("of a pattern", ca.clone(), &["-h", "-n", "127.0.0.*", "-V", "-1m:+5m"], "not valid for \"127.0.0.1\""),
        ("expired", ca.clone(), &["-h", "-n", "127.0.0.1", "-V", "-10m:-5m"], "not valid now"),
    ];
    for (what, ca, args, why) in others {
        let host = certified(&ca, place.home.path(), args);
        moved(&place, &host, &key(&host));
        let said = place.ssh(&["true"]);
        assert!(
            !said.status.success() && said.stderr.contains("OnRecord does not trust the certificate"),
            "{what}: {said:?}"
        );
        assert!(said.stderr.contains(why), "{what}: {said:?}");
        assert!(!host.log().contains("Accepted"), "{what}");
    }
    // A host that has none, and whose key is not pinned.
    let host = Sshd::start();
    moved(&place, &host, &key(&host));
    assert!(!place.ssh(&["true"]).status.success());
    assert_eq!(place.commands().len(), 1);
}

#[test]
fn certificates_prove_either_side_through_an_outpost() {
    let place = place_of(Sshd::start(), plan().listen("outposts = [\"127.0.0.1:0\"]\n"), "", "", "");
    let ca = place.path("ca");
    keygen(&ca);
    let trusted = place.gateway.data().join("ssh/session_ca.pub");
    let (key, certificate) = (place.path("host"), place.path("host-cert.pub"));
    keygen(&key);
    sign(&ca, &key.with_extension("pub"), &["-h", "-n", "127.0.0.1", "-V", "-1m:+5m"]);
    let host = Sshd::start_with(&format!(
        "HostKey {}\nHostCertificate {}\nTrustedUserCAKeys {}",
        key.display(),
        certificate.display(),
        trusted.display()
    ));
    let lines = |ca: &Path| format!("login = \"certificate\"\nhost_cas = [\"{}\"]\noutpost = \"site-a\"", public(ca));
    let address = format!("127.0.0.1:{}", host.port());
    let _outpost = Outpost::join(&place.gateway, "site-a", &[], &[&address], Way::default());
    moved(&place, &host, &lines(&ca));
    assert_eq!(place.ssh(&["echo through"]).stdout, "through\n");
    assert!(host.log().contains("ID identity=agent:deployer"), "{}", host.log());
    keygen(&place.path("other_ca"));
    moved(&place, &host, &lines(&place.path("other_ca")));
    assert!(place.ssh(&["true"]).stderr.contains("not signed by an authority"));
}
