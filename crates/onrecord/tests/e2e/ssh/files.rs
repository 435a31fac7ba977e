//! Files over SSH: each operation of SFTP a command of its own, each copy of scp told, and none that passes the policy by.

use std::fs;
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};
use testkit::process;

use super::{place, place_with};

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

/// A client that fills every queue on the way, so that its requests wait, and hides among them what it may not do.
#[test]
fn what_waits_for_the_tap_of_files_does_not_pass_it_by() {
    let policy = r#"
version: 1
default: deny
rules:
  - {id: files, when: 'cmd.operation == "subsystem" && cmd.opaque.all(o, o == "exec")', then: allow}
  - {id: reads, when: 'cmd.operation == "file_read" && cmd.complete', then: allow}
"#;
    let place = place_with(policy, "", "");
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
flood += packet(13, struct.pack(">I", number) + string(b"{protected}"))
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
