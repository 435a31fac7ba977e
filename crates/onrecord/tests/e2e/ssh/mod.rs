//! Commands over SSH: stock clients through the gateway to a real sshd, each with its exit status on the record.
//!
//! Here: the place that all of these tests have, who is let in, and commands. Files are in `files`, other programs than ssh in
//! `programs` and `ansible`, break-glass in `glass`, shells in `shells`, databases by way of SSH in `forward`, what terminals
//! showed in `replay`, who looks on in `watch`, how it all ends, orderly or not, in `ends`, and who means harm, or acts as
//! if, in `abuse`.

mod abuse;
mod ansible;
mod certificates;
mod ends;
mod files;
mod forward;
mod glass;
mod jump;
mod programs;
mod replay;
mod shells;
mod watch;

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use rustix::process::Signal;
use serde_json::{Value, json};
use testkit::issuer::Issuer;
use testkit::process::{self, Finished, Process, poll};
use testkit::sshd::{Sshd, keygen, public};
use testkit::{Gateway, Plan, Postgres};

use crate::plan;

/// A host, a gateway before it, and an agent and a person with a key each.
struct Place {
    // The database is there because the test kit's gateway is one before a database.
    _server: Postgres,
    host: Sshd,
    gateway: Gateway,
    home: tempfile::TempDir,
}

fn place() -> Place {
    place_with("", "", "")
}

/// With these lines in the table `[limits]`.
fn place_limited(limits: &str) -> Place {
    place_of(Sshd::start(), plan().limits(limits), "", "", "")
}

/// `more` is what the connection's table has besides, where it has a policy of this text; `others` are other tables.
fn place_with(policy: &str, more: &str, others: &str) -> Place {
    place_of(Sshd::start(), plan(), policy, more, others)
}

fn place_of(host: Sshd, plan: Plan, policy: &str, more: &str, others: &str) -> Place {
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("policy.yaml");
    fs::write(&file, policy).unwrap();
    let policy = if policy.is_empty() { String::new() } else { format!("policy = [{file:?}]\n") };
    for who in ["agent", "person", "stranger"] {
        keygen(&home.path().join(who));
    }
    let server = Postgres::start();
    let tables = format!(
        "[connections.web1]\nkind = \"ssh\"\naddress = \"127.0.0.1:{port}\"\nuser = \"{user}\"\nkey = \"file:{key}\"\n\
         host_keys = [\"{host_key}\"]\nidentities = [\"agent:deployer\", \"human:bea\"]\n{policy}{more}\n\
         [identities.deployer]\nkind = \"agent\"\non_behalf_of = \"human:bea\"\nssh_keys = [\"{agent}\"]\n\
         [identities.bea]\nkind = \"human\"\nssh_keys = [\"{person}\"]\n\n{others}\n",
        port = host.port(),
        user = host.user(),
        key = host.client_key().display(),
        host_key = host.host_key(),
        agent = public(&home.path().join("agent")),
        person = public(&home.path().join("person")),
    );
    let gateway = plan.api().listen("ssh = [\"127.0.0.1:0\"]\n").tables(&tables).start(&server);
    let place = Place { _server: server, host, gateway, home };
    let known = format!("[127.0.0.1]:{} {}\n", place.gateway.ssh_port(), place.gateway_key());
    fs::write(place.home.path().join("known_hosts"), known).unwrap();
    place
}

impl Place {
    fn gateway_key(&self) -> String {
        public(&self.gateway.data().join("ssh/host_key"))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    /// A stock client, with the agent's key.
    fn client(&self, program: &str) -> Command {
        self.client_with(program, "agent")
    }

    fn client_with(&self, program: &str, key: &str) -> Command {
        let mut client = Command::new(program);
        client.args(["-F", "none", "-o", "IdentitiesOnly=yes", "-o", "IdentityAgent=none"]);
        client.arg("-o").arg(format!("UserKnownHostsFile={}", self.path("known_hosts").display()));
        client.arg("-o").arg(format!("IdentityFile={}", self.path(key).display()));
        client.arg("-o").arg(format!("Port={}", self.gateway.ssh_port()));
        client
    }

    fn ssh(&self, arguments: &[&str]) -> Finished {
        let mut ssh = self.client("ssh");
        ssh.arg("web1@127.0.0.1").args(arguments);
        process::run(&mut ssh, "")
    }

    /// Every command, once each has its outcome.
    fn commands(&self) -> Vec<Value> {
        let mut last = None;
        poll("outcomes of all commands", || {
            let listed = self.gateway.cli(&["commands", "--output", "ndjson", "--limit", "100000"]);
            let said = listed.expect_success("onrecord commands");
            let commands: Vec<Value> = said.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
            let pending = commands.iter().any(|command| command["status"] == "pending");
            let stable = last.replace(commands.len()) == Some(commands.len());
            (!pending && stable).then_some(commands)
        })
    }

    fn only(&self) -> Value {
        let mut commands = self.commands();
        assert_eq!(commands.len(), 1, "{commands:#?}");
        commands.remove(0)
    }

    fn show(&self, id: &Value) -> Value {
        let shown = self.gateway.cli(&["show", id.as_str().unwrap(), "--output", "json"]);
        serde_json::from_str(&shown.expect_success("onrecord show")).unwrap()
    }
}

#[test]
fn a_command_runs_and_its_exit_status_is_on_the_record() {
    let place = place();
    let said = place.ssh(&["echo out; echo err >&2; cat; exit 7"]);
    assert_eq!((said.status.code(), said.stdout.as_str()), (Some(7), "out\n"), "{}", said.stderr);
    assert!(said.stderr.contains("err\n"), "{}", said.stderr);
    let command = place.only();
    let told = ["identity", "on_behalf_of", "proof", "connection", "via", "text", "fidelity", "status", "code"];
    let told = told.map(|key| command[key].as_str().unwrap_or_default());
    let text = "echo out; echo err >&2; cat; exit 7";
    assert_eq!(
        told,
        ["agent:deployer", "human:bea", "public-key", "web1", "exec", text, "exact", "error", "7"],
        "{command:#}"
    );
    assert_eq!(command["database"], Value::Null);
    let shown = place.show(&command["id"]);
    assert_eq!(shown["streams"], json!({"stdin": 0, "stdout": 4, "stderr": 4, "kept": 8}), "{shown:#}");
    let id = command["id"].as_str().unwrap();
    let output = |more: &[&str]| place.gateway.cli(&[&["output", id], more].concat()).expect_success("onrecord output");
    assert_eq!(output(&["--stream", "stderr"]), "err\n");
    assert_eq!(output(&["--raw", "--stream", "stdout"]), "out\n");
    assert!(place.gateway.verify().contains("ok"));
}

#[test]
fn input_output_and_errors_pass_byte_by_byte_in_both_directions() {
    let place = place();
    let bytes: Vec<u8> = (0..3_000_000u32).map(|n| n.wrapping_mul(2_654_435_761).to_be_bytes()[1]).collect();
    let file = place.path("input");
    fs::write(&file, &bytes).unwrap();
    let mut ssh = place.client("ssh");
    ssh.args(["web1@127.0.0.1", "tee /dev/stderr | cat"]);
    ssh.stdin(fs::File::open(&file).unwrap());
    ssh.stdout(fs::File::create(place.path("out")).unwrap()).stderr(fs::File::create(place.path("err")).unwrap());
    assert!(ssh.status().unwrap().success());
    assert!(fs::read(place.path("out")).unwrap() == bytes, "standard output differs");
    assert!(fs::read(place.path("err")).unwrap() == bytes, "standard error differs");
    let shown = place.show(&place.only()["id"]);
    assert_eq!(
        shown["streams"],
        json!({"stdin": 3_000_000, "stdout": 3_000_000, "stderr": 3_000_000, "kept": 9_000_000})
    );
    assert_eq!(shown["status"], "ok");
    // A bundle carries it, and only what is not withheld.
    let id = shown["id"].as_str().unwrap();
    let raw = ["output", id, "--raw", "--stream", "stdin"];
    let mut again = Command::new(env!("CARGO_BIN_EXE_onrecord"));
    let again = again.args(raw).arg("--config").arg(place.gateway.config()).output().unwrap();
    assert!(again.stdout == bytes, "the record has another input");
    place.gateway.verify();
    for (withhold, verdict) in [("", "disclosed"), ("output", "withheld")] {
        let bundle = place.path(&format!("bundle-{withhold}.zip"));
        let mut args = vec!["evidence", "export", "--connection", "web1", "--out", bundle.to_str().unwrap()];
        if !withhold.is_empty() {
            args.extend(["--withhold", withhold]);
        }
        // What is not signed yet cannot be exported.
        poll("the export", || place.gateway.cli(&args).status.success().then_some(()));
        let mut verify = Command::new(env!("CARGO_BIN_EXE_onrecord"));
        verify.arg("verify").arg(&bundle).args(["--vkey", &place.gateway.vkey()]);
        let said = process::run(&mut verify, "");
        assert!(said.stdout.contains(verdict), "{withhold}: {said:?}");
    }
}

#[test]
fn a_command_that_is_killed_says_by_which_signal() {
    let place = place();
    let said = place.ssh(&["kill -TERM $$"]);
    assert_eq!(said.status.code(), Some(255), "{}", said.stderr);
    let command = place.only();
    assert_eq!((&command["status"], &command["code"]), (&json!("error"), &json!("SIGTERM")), "{command:#}");
}

#[test]
fn shells_and_forwarding_are_refused_in_words() {
    let place = place();
    let shell = place.ssh(&[]);
    assert_eq!(shell.status.code(), Some(126), "{}", shell.stderr);
    assert!(shell.stderr.contains("OnRecord carries commands and no shells to this host"), "{}", shell.stderr);
    let mut forwarding = place.client("ssh");
    forwarding.args(["-W", "127.0.0.1:22", "web1@127.0.0.1"]);
    assert!(!process::run(&mut forwarding, "").status.success());
    let commands = place.commands();
    let shell = commands.iter().find(|command| command["via"] == "shell").unwrap();
    assert_eq!((&shell["status"], &shell["rules"]), (&json!("denied"), &json!(["builtin:shell"])), "{shell:#}");
}

#[test]
fn who_is_not_let_in_learns_why_and_nothing_reaches_the_host() {
    let place = place();
    let before = place.host.log();
    let run = |key: &str, to: &str| {
        let mut ssh = place.client_with("ssh", key);
        ssh.args(["-o", "BatchMode=yes", to, "true"]);
        process::run(&mut ssh, "")
    };
    let stranger = run("stranger", "web1@127.0.0.1");
    assert!(!stranger.status.success() && stranger.stderr.contains("Permission denied"), "{}", stranger.stderr);
    for to in ["nowhere@127.0.0.1", "root2%web1@127.0.0.1"] {
        let said = run("agent", to);
        assert_eq!(said.status.code(), Some(255));
        assert!(said.stderr.contains("does not exist, or agent:deployer may not use it"), "{}", said.stderr);
    }
    let user = format!("{}%web1@127.0.0.1", place.host.user());
    assert!(run("person", &user).status.success());
    assert_eq!(
        place.host.log().matches("Accepted publickey").count() - before.matches("Accepted publickey").count(),
        1
    );
    let command = place.only();
    assert_eq!(command["identity"], "human:bea");
}

#[test]
fn a_token_as_password_is_told_what_is_wrong_with_it() {
    let place = place();
    let try_with = |password: &str| {
        let mut ssh = Command::new("sshpass");
        ssh.args(["-p", password, "ssh", "-F", "none", "-o", "PubkeyAuthentication=no"]);
        ssh.arg("-o").arg(format!("UserKnownHostsFile={}", place.path("known_hosts").display()));
        ssh.arg("-p").arg(place.gateway.ssh_port().to_string()).args(["web1@127.0.0.1", "true"]);
        process::run(&mut ssh, "")
    };
    let said = try_with("hello");
    assert!(!said.status.success());
    assert!(said.stderr.contains("it is neither a connection token nor a JSON Web Token"), "{}", said.stderr);
    let said = try_with(&"x".repeat(1500));
    assert!(said.stderr.contains("ssh cuts passwords off after 1,023 bytes"), "{}", said.stderr);
}

#[test]
fn a_command_gets_its_terminal_and_what_is_typed_unseen_is_not_kept() {
    let without = place();
    let mut ssh = without.client("ssh");
    let said = process::run(ssh.args(["-tt", "web1@127.0.0.1", "tty"]), "");
    assert!(said.stderr.contains("PTY allocation request failed"), "{said:?}");
    let place = place_with("", "terminals = true\n", "");
    let mut ssh = place.client("ssh");
    ssh.args(["-tt", "web1@127.0.0.1", "tty; stty -echo; echo ready; read -r secret; echo ${#secret}; exit 3"]);
    let said = process::run(&mut ssh, "correct-horse\n");
    assert_eq!(said.status.code(), Some(3), "{said:?}");
    assert!(said.stdout.contains("/dev/pts/") && said.stdout.contains("13"), "{said:?}");
    let command = place.only();
    assert_eq!(command["parameters"]["terminal"].as_str(), Some(std::env::var("TERM").as_deref().unwrap_or("dumb")));
    let shown = place.show(&command["id"]);
    let streams = &shown["streams"];
    assert_eq!((&shown["code"], &streams["stdin"]), (&json!("3"), &json!(14)), "{shown:#}");
    assert_eq!(streams["kept"], streams["stdout"], "{shown:#}");
}

#[test]
fn a_policy_decides_over_commands() {
    let policy = r#"
version: 1
default: deny
rules:
  - {id: all, when: 'conn.kind == "ssh"', then: allow}
  - {id: no-trees, when: 'cmd.text.matches("rm\\s+-[a-z]*r")', then: deny, message: nobody removes whole trees}
"#;
    let place = place_with(policy, "", "");
    let said = place.ssh(&["rm -rf /nowhere"]);
    assert_eq!(said.status.code(), Some(126), "{}", said.stderr);
    assert!(said.stderr.contains("nobody removes whole trees (rule no-trees)"), "{}", said.stderr);
    assert_eq!(place.ssh(&["echo fine"]).stdout, "fine\n");
    let commands = place.commands();
    let denied = commands.iter().find(|command| command["status"] == "denied").unwrap();
    assert_eq!(denied["rules"], json!(["all", "no-trees"]), "{denied:#}");
}

#[test]
fn a_host_that_is_another_is_not_logged_in_to() {
    let other = Sshd::start();
    let place = place();
    let config = fs::read_to_string(place.gateway.config()).unwrap();
    fs::write(place.gateway.config(), config.replace(&place.host.host_key(), &other.host_key())).unwrap();
    poll("the configuration to be read again", || {
        place.gateway.stderr().contains("read again and in force").then_some(())
    });
    let said = place.ssh(&["true"]);
    assert_eq!(said.status.code(), Some(255));
    assert!(said.stderr.contains("its key is not the one that is configured"), "{}", said.stderr);
    assert!(place.commands().is_empty());
}

#[test]
fn a_command_waits_for_a_person_and_then_runs() {
    let policy = r#"
version: 1
default: deny
rules:
  - {id: all, when: 'conn.kind == "ssh"', then: allow}
  - {id: trees, when: 'cmd.text.contains("rm -r")', then: require_approval, message: somebody must look at that}
"#;
    let issuer = Issuer::start();
    let people = format!(
        "[issuers.corp]\nissuer = \"{}\"\naudience = \"onrecord\"\n[[issuers.corp.rules]]\nname = \"people\"\n\
         when = 'has(claims.email)'\nidentity = \"human:{{claims.email}}\"\n",
        issuer.url()
    );
    let place = place_with(policy, "approvals = { approvers = [\"human:dora@example.com\"] }\n", &people);
    let tree = place.host.home().join("tree");
    fs::create_dir_all(tree.join("deep")).unwrap();
    let mut ssh = place.client("ssh");
    ssh.args(["web1@127.0.0.1", &format!("rm -r {} && echo gone", tree.display())]);
    let out = fs::File::create(place.path("out")).unwrap();
    let err = fs::File::create(place.path("err")).unwrap();
    let mut running =
        Process::start("ssh", ssh.stdin(std::process::Stdio::null()).stdout(out).stderr(err), Signal::KILL);
    let told = poll("the client to be told", || {
        let said = fs::read_to_string(place.path("err")).unwrap();
        said.contains("onrecord approvals approve").then_some(said)
    });
    assert!(told.contains("somebody must look at that (rule trees)"), "{told}");
    let id = told.split("onrecord approvals approve ").nth(1).unwrap().split(' ').next().unwrap().to_owned();
    assert!(tree.exists());
    let token = issuer.mint(json!({"aud": "onrecord", "sub": "dora", "email": "dora@example.com"}));
    let approvals = |args: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_onrecord"));
        command.env("ONRECORD_GATEWAY", place.gateway.api()).env("ONRECORD_CA", place.gateway.authority().ca());
        process::run(command.env("ONRECORD_TOKEN", &token).arg("approvals").args(args), "")
    };
    let shown = approvals(&["show", &id]).expect_success("approvals show");
    assert!(shown.contains("rm -r") && shown.contains("agent:deployer"), "{shown}");
    approvals(&["approve", &id, "--yes"]).expect_success("approvals approve");
    let status = running.wait();
    assert!(status.success(), "{}", fs::read_to_string(place.path("err")).unwrap());
    assert!(!tree.exists());
    let command = place.only();
    assert_eq!((&command["verdict"], &command["status"]), (&json!("hold"), &json!("ok")), "{command:#}");
    let story = place.gateway.cli(&["show", &id]).expect_success("show");
    assert!(story.contains("human:dora@example.com"), "{story}");
    place.gateway.verify();
}
