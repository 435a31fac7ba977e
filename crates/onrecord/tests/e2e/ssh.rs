//! Commands over SSH: stock clients through the gateway to a real sshd, each with its exit status on the record.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};
use testkit::issuer::Issuer;
use testkit::process::{self, Finished, Process, poll};
use testkit::sshd::{Sshd, keygen, public};
use testkit::{Gateway, Outpost, Plan, Postgres, Way};

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
    place_of(plan().limits(limits), "", "", "")
}

/// `more` is what the connection's table has besides, where it has a policy of this text; `others` are other tables.
fn place_with(policy: &str, more: &str, others: &str) -> Place {
    place_of(plan(), policy, more, others)
}

fn place_of(plan: Plan, policy: &str, more: &str, others: &str) -> Place {
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("policy.yaml");
    fs::write(&file, policy).unwrap();
    let policy = if policy.is_empty() { String::new() } else { format!("policy = [{file:?}]\n") };
    for who in ["agent", "person", "stranger"] {
        keygen(&home.path().join(who));
    }
    let (server, host) = (Postgres::start(), Sshd::start());
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

    /// Every command over the host's connection, once each has its outcome.
    fn commands(&self) -> Vec<Value> {
        let mut last = None;
        poll("outcomes of all commands", || {
            let listed =
                self.gateway.cli(&["commands", "--connection", "web1", "--output", "ndjson", "--limit", "100000"]);
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
    assert!(shell.stderr.contains("OnRecord carries commands, not shells"), "{}", shell.stderr);
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

/// What a batch of the stock client does, as the record has it.
#[test]
fn each_operation_on_files_is_a_command() {
    let place = place();
    let far = place.host.home().join("far");
    fs::create_dir(&far).unwrap();
    fs::write(place.path("near"), "some content\n").unwrap();
    let batch = format!(
        "put {near} {far}/a\nget {far}/a {back}\nrename {far}/a {far}/b\nmkdir {far}/d\nls {far}\nchmod 600 {far}/b\n\
         rm {far}/b\nrmdir {far}/d\n-rm {far}/nothing\n",
        near = place.path("near").display(),
        back = place.path("back").display(),
        far = far.display(),
    );
    let mut sftp = place.client("sftp");
    sftp.args(["-b", "-", "web1@127.0.0.1"]);
    let said = process::run(&mut sftp, &batch);
    assert!(said.status.success(), "{}", said.stderr);
    assert_eq!(fs::read_to_string(place.path("back")).unwrap(), "some content\n");
    let commands = place.commands();
    let far = far.display().to_string();
    let told: Vec<(String, String)> = commands
        .iter()
        .filter(|command| command["via"] == "file")
        .map(|command| {
            let text = command["text"].as_str().unwrap().replace(&far, "FAR");
            (text, command["status"].as_str().unwrap().to_owned())
        })
        .collect();
    let expected = [
        ("write FAR/a", "ok"),
        ("read FAR/a", "ok"),
        ("posix-rename FAR/a -> FAR/b", "ok"),
        ("mkdir FAR/d", "ok"),
        ("list FAR/", "ok"),
        ("setstat FAR/b", "ok"),
        ("remove FAR/b", "ok"),
        ("rmdir FAR/d", "ok"),
        ("remove FAR/nothing", "error"),
    ];
    let expected: Vec<_> = expected.map(|(text, status)| (text.to_owned(), status.to_owned())).to_vec();
    assert_eq!(told, expected, "{commands:#?}");
    let of = |text: &str| commands.iter().find(|command| command["text"].as_str().unwrap().starts_with(text)).unwrap();
    let shown = place.show(&of("write")["id"]);
    let mut sum = Command::new("sha256sum");
    let sum = process::run(sum.arg(place.path("near")), "").stdout;
    assert_eq!(shown["file"], json!({"read": 0, "written": 13, "sha256": sum.split(' ').next().unwrap()}), "{shown:#}");
    let subsystem = commands.iter().find(|command| command["via"] == "subsystem").unwrap();
    assert_eq!(
        (&subsystem["text"], &subsystem["status"], &subsystem["code"]),
        (&json!("sftp"), &json!("ok"), &json!("0"))
    );
    place.gateway.verify();
}

#[test]
fn a_policy_decides_over_files() {
    let policy = r#"
version: 1
default: deny
rules:
  - {id: all, when: 'conn.kind == "ssh"', then: allow}
  - id: not-there
    when: 'cmd.operation.startsWith("file_") && cmd.operation != "file_read" && cmd.text.contains("/protected/")'
    then: deny
    message: nothing is changed there
"#;
    let place = place_with(policy, "", "");
    let far = place.host.home().join("protected");
    fs::create_dir(&far).unwrap();
    fs::write(far.join("old"), "old").unwrap();
    fs::write(place.path("near"), "new").unwrap();
    let mut sftp = place.client("sftp");
    sftp.args(["-b", "-", "web1@127.0.0.1"]);
    let batch = format!(
        "-put {near} {far}/old\n-rm {far}/old\nget {far}/old {back}\n",
        near = place.path("near").display(),
        far = far.display(),
        back = place.path("back").display()
    );
    let said = process::run(&mut sftp, &batch);
    assert!(said.status.success(), "{}", said.stderr);
    assert!(said.stderr.contains("nothing is changed there (rule not-there)"), "{}", said.stderr);
    assert_eq!(fs::read_to_string(far.join("old")).unwrap(), "old");
    assert_eq!(fs::read_to_string(place.path("back")).unwrap(), "old");
    let commands = place.commands();
    let denied = commands.iter().filter(|command| command["status"] == "denied").count();
    assert_eq!(denied, 2, "{commands:#?}");
}

#[test]
fn scp_copies_in_both_of_its_protocols() {
    let place = place();
    fs::write(place.path("near"), vec![5u8; 300_000]).unwrap();
    for (protocol, far) in [("-s", "by-sftp"), ("-O", "by-scp")] {
        let far = place.host.home().join(far);
        let mut scp = place.client("scp");
        scp.args(["-q", protocol]).arg(place.path("near")).arg(format!("web1@127.0.0.1:{}", far.display()));
        process::run(&mut scp, "").expect_success("scp there");
        assert_eq!(fs::read(&far).unwrap().len(), 300_000);
        let mut scp = place.client("scp");
        scp.args(["-q", protocol]).arg(format!("web1@127.0.0.1:{}", far.display())).arg(place.path("back"));
        process::run(&mut scp, "").expect_success("scp back");
    }
    let commands = place.commands();
    let texts: Vec<&str> = commands.iter().map(|command| command["text"].as_str().unwrap()).collect();
    let has = |start: &str, end: &str| texts.iter().any(|text| text.starts_with(start) && text.ends_with(end));
    assert!(has("write ", "/by-sftp") && has("read ", "/by-sftp"), "{texts:#?}");
    assert!(has("scp -q -t ", "/by-scp") || has("scp -t ", "/by-scp"), "{texts:#?}");
    let mut sum = Command::new("sha256sum");
    let sum = process::run(sum.arg(place.path("near")), "").stdout;
    let sum = sum.split(' ').next().unwrap();
    for (verb, read, written) in [("write ", 0, 300_000), ("read ", 300_000, 0)] {
        let of = |command: &&Value| {
            let text = command["text"].as_str().unwrap();
            text.starts_with(verb)
                && text.contains("/by-scp")
                && text.ends_with(if verb == "write " { "<- near" } else { "-> by-scp" })
        };
        let copied = commands.iter().find(of).unwrap_or_else(|| panic!("{verb}: {texts:#?}"));
        assert_eq!(place.show(&copied["id"])["file"], json!({"read": read, "written": written, "sha256": sum}));
    }
    assert!(commands.iter().all(|command| command["status"] == "ok"), "{commands:#?}");
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

/// Programs that use ssh, or speak it themselves, as they come.
#[test]
fn stock_programs_work_over_it() {
    // Ansible asks for terminals.
    let place = place_with("", "terminals = true\n", "");
    let far = place.host.home().join("far");
    fs::create_dir_all(&far).unwrap();
    let far = far.display().to_string();
    let ssh = place.client("ssh");
    let words = ssh.get_args().map(|word| format!("'{}'", word.to_str().unwrap()));
    let ssh = std::iter::once("ssh".to_owned()).chain(words).collect::<Vec<_>>().join(" ");
    fs::create_dir(place.path("tree")).unwrap();
    fs::write(place.path("tree/one"), "one").unwrap();

    let mut rsync = Command::new("rsync");
    rsync.args(["-a", "-e", &ssh]).arg(place.path("tree")).arg(format!("web1@127.0.0.1:{far}/"));
    process::run(&mut rsync, "").expect_success("rsync");
    assert_eq!(fs::read_to_string(format!("{far}/tree/one")).unwrap(), "one");

    let git = |args: &[&str]| {
        let mut git = Command::new("git");
        git.env("GIT_SSH_COMMAND", &ssh).env("HOME", place.home.path()).args(args);
        process::run(&mut git, "").expect_success("git")
    };
    let clone = place.path("clone").display().to_string();
    git(&["init", "-q", "--bare", &format!("{far}/repo.git")]);
    git(&["clone", "-q", &format!("web1@127.0.0.1:{far}/repo.git"), &clone]);
    fs::write(place.path("clone/file"), "text").unwrap();
    git(&["-C", &clone, "add", "file"]);
    git(&["-C", &clone, "-c", "user.name=x", "-c", "user.email=x@example.com", "commit", "-q", "-m", "one"]);
    git(&["-C", &clone, "push", "-q", "origin", "HEAD"]);

    let python = testkit::clients::python();
    let (port, key, known) = (place.gateway.ssh_port(), place.path("agent"), place.path("known_hosts"));
    let paramiko = format!(
        r#"
import paramiko
client = paramiko.SSHClient()
client.load_host_keys({known:?})
client.connect("127.0.0.1", {port}, "web1", key_filename={key:?}, look_for_keys=False, allow_agent=False)
_, out, err = client.exec_command("echo paramiko; exit 4")
assert out.read() == b"paramiko\n" and out.channel.recv_exit_status() == 4
sftp = client.open_sftp()
with sftp.open("{far}/paramiko", "w") as file:
    file.write("from paramiko")
with sftp.open("{far}/paramiko") as file:
    assert file.read() == b"from paramiko"
client.close()
"#
    );
    process::run(Command::new(&python).arg("-"), &paramiko).expect_success("paramiko");
    let asyncssh = format!(
        r#"
import asyncio, asyncssh
async def main():
    async with asyncssh.connect("127.0.0.1", {port}, username="web1", client_keys=[{key:?}], known_hosts={known:?},
                                agent_path=None, config=[]) as connection:
        results = await asyncio.gather(*(connection.run(f"echo {{n}}; exit {{n % 3}}") for n in range(20)))
        for n, result in enumerate(results):
            assert (result.stdout, result.exit_status) == (f"{{n}}\n", n % 3), result
asyncio.run(main())
"#
    );
    process::run(Command::new(&python).arg("-"), &asyncssh).expect_success("asyncssh");

    let mut ansible = Command::new(python.with_file_name("ansible"));
    let inventory = place.path("inventory");
    fs::write(
        &inventory,
        format!(
            "web1 ansible_host=127.0.0.1 ansible_port={port} ansible_user=web1 ansible_ssh_private_key_file={}              ansible_ssh_common_args='-F none -o IdentityAgent=none -o UserKnownHostsFile={}'              ansible_python_interpreter={python} ansible_remote_tmp={far}/ansible\n",
            key.display(),
            known.display(),
            python = python.display(),
        ),
    )
    .unwrap();
    ansible.env("HOME", place.home.path()).env("ANSIBLE_LOCALHOST_WARNING", "0");
    ansible.env("PATH", format!("{}:{}", python.parent().unwrap().display(), std::env::var("PATH").unwrap()));
    ansible.arg("-i").arg(&inventory).args(["web1", "-m", "command", "-a", "echo from-ansible"]);
    let said = process::run_for(&mut ansible, "", Duration::from_secs(120));
    assert!(said.status.success() && said.stdout.contains("from-ansible"), "{said:?}");

    let commands = place.commands();
    let count = |part: &str| commands.iter().filter(|command| command["text"].as_str().unwrap().contains(part)).count();
    assert!(count("rsync --server") == 1, "{commands:#?}");
    assert!(count("git-upload-pack") == 1 && count("git-receive-pack") == 1, "{commands:#?}");
    let paramiko = commands.iter().find(|command| command["text"] == "echo paramiko; exit 4").unwrap();
    assert_eq!(paramiko["code"], "4");
    let codes: Vec<_> = (0..20)
        .map(|n| {
            let text = format!("echo {n}; exit {}", n % 3);
            commands.iter().find(|command| command["text"] == text.as_str()).unwrap()["code"]
                .as_str()
                .unwrap()
                .to_owned()
        })
        .collect();
    assert_eq!(codes, (0..20).map(|n: u32| (n % 3).to_string()).collect::<Vec<_>>());
    assert!(count("ansible") > 0, "{commands:#?}");
    place.gateway.verify();
}

/// A client that fills every queue on the way, so that its requests wait, and hides among them what it may not do.
#[test]
fn what_waits_for_the_tap_of_files_does_not_pass_it_by() {
    let policy = r#"
version: 1
default: deny
rules:
  - {id: reads, when: 'cmd.operation == "file_read" || cmd.operation == "subsystem"', then: allow}
"#
    .replace(r#"cmd.operation == "subsystem""#, r#"cmd.operation == "subsystem" && cmd.opaque.all(o, o == "exec")"#)
    .replace(r#"cmd.operation == "file_read""#, r#"cmd.complete && cmd.operation == "file_read""#);
    let place = place_with(&policy, "", "");
    let big = place.host.home().join("big");
    let protected = place.host.home().join("protected");
    fs::write(&big, vec![1u8; 1 << 20]).unwrap();
    fs::write(&protected, "stays").unwrap();
    let (port, key, known) = (place.gateway.ssh_port(), place.path("agent"), place.path("known_hosts"));
    let script = format!(
        r#"
import paramiko, struct, time
client = paramiko.SSHClient()
client.load_host_keys({known:?})
client.connect("127.0.0.1", {port}, "web1", key_filename={key:?}, look_for_keys=False, allow_agent=False)
channel = client.get_transport().open_session()
channel.invoke_subsystem("sftp")
channel.settimeout(3)
def packet(kind, body):
    return struct.pack(">IB", len(body) + 1, kind) + body
def string(text):
    return struct.pack(">I", len(text)) + text
def exactly(count):
    got = b""
    while len(got) < count:
        got += channel.recv(count - len(got))
    return got
def answer():
    return exactly(struct.unpack(">I", exactly(4))[0])
channel.sendall(packet(1, struct.pack(">I", 3)))
answer()
channel.sendall(packet(3, struct.pack(">I", 1) + string(b"{big}") + struct.pack(">II", 1, 0)))
opened = answer()
assert opened[0] == 102, opened
handle = opened[9:]
number = 1
flood = b""
for _ in range(40000):
    number += 1
    flood += packet(5, struct.pack(">I", number) + string(handle) + struct.pack(">QI", 0, 32768))
number += 1
flood += packet(13, struct.pack(">I", number) + string(b"{protected}")) * 1
try:
    channel.sendall(flood)
except Exception as error:
    print("blocked", error)
time.sleep(3)
print("sent")
client.close()
"#,
        big = big.display(),
        protected = protected.display(),
    );
    let said = process::run_for(Command::new(testkit::clients::python()).arg("-"), &script, Duration::from_secs(240));
    assert!(said.stdout.contains("sent"), "{said:?}");
    let commands = place.commands();
    assert_eq!(fs::read_to_string(&protected).unwrap(), "stays", "{commands:#?}");
    let ran: Vec<_> = commands.iter().filter(|command| command["status"] == "ok" && command["via"] == "file").collect();
    assert!(ran.is_empty(), "{ran:#?}");
    assert!(place.gateway.peak_memory_kib() < 400 * 1024);
    place.gateway.verify();
}

/// A client of its own making, with the agent's key, that keeps its connection in `client` and its channels open.
fn paramiko(place: &Place, script: &str) -> Process {
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

fn said(place: &Place, part: &str) {
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
