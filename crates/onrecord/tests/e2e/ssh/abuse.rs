//! Who means harm, or acts as if: floods, endless streams, odd bytes, peers that break off. The gateway stays within its bounds,
//! goes on for the others, and has an honest record of it.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};
use testkit::process::{self, poll};
use testkit::sshd::{self, Sshd};

use super::ends::{host_at, paramiko, paramiko_host};
use super::shells::{BASH, PROFILE, line, lines, shell, shells_of, sit};
use super::{Place, place, place_of, place_with};
use crate::plan;

/// Memory that nobody brings the gateway to exceed, KiB.
const MEMORY_KIB_MAX: u64 = 150 * 1024;

impl Place {
    /// Runs a script to its end, in which `connect()` gives a client of paramiko's.
    fn script(&self, script: &str) -> String {
        let mut running = paramiko(self, script);
        let status = running.wait();
        let said = fs::read_to_string(self.path("out")).unwrap();
        assert!(status.success(), "{said}");
        said
    }

    /// The only command whose text begins so.
    fn of(&self, text: &str) -> Value {
        let commands = self.commands();
        let begins = |command: &&Value| command["text"].as_str().is_some_and(|it| it.starts_with(text));
        let found: Vec<&Value> = commands.iter().filter(begins).collect();
        assert_eq!(found.len(), 1, "{text}: {commands:#?}");
        self.show(&found[0]["id"])
    }

    /// Others are served as ever, within the bounds.
    fn goes_on(&self) {
        let said = self.ssh(&["echo as ever"]);
        assert_eq!(said.stdout, "as ever\n", "{said:?}\n{}", self.gateway.stderr());
        let peak = self.gateway.peak_memory_kib();
        assert!(peak < MEMORY_KIB_MAX, "{peak} KiB of memory");
    }
}

fn sha256(file: &Path) -> String {
    let said = process::run(Command::new("sha256sum").arg(file), "").expect_success("sha256sum");
    said.split(' ').next().unwrap().to_owned()
}

fn pattern(length: u32) -> Vec<u8> {
    (0..length).map(|n| n.wrapping_mul(2_654_435_761).to_be_bytes()[1]).collect()
}

#[test]
fn keys_are_exchanged_again_in_the_middle_of_transfers() {
    let more = "RekeyLimit 128K\nMatch all\nLogLevel DEBUG1";
    let place = place_of(Sshd::start_with(more), plan(), "", "", "");
    let (big, near) = (place.path("big"), place.path("near"));
    fs::write(&big, pattern(20_000_000)).unwrap();
    fs::write(&near, pattern(5_000_000)).unwrap();
    let digest = sha256(&near);
    let (log, debug) = (place.path("log").display().to_string(), "LogLevel=DEBUG1");
    let rekeying = ["-o", "RekeyLimit=128K", "-o", debug];
    let mut cat = place.client("ssh");
    cat.args(rekeying).args(["-E", &log, "web1@127.0.0.1", "cat"]);
    cat.stdin(fs::File::open(&big).unwrap()).stdout(fs::File::create(place.path("through")).unwrap());
    assert!(cat.stderr(Stdio::null()).status().unwrap().success());
    assert_eq!(sha256(&place.path("through")), sha256(&big));
    // Once to begin with.
    assert!(fs::read_to_string(&log).unwrap().matches("SSH2_MSG_NEWKEYS received").count() > 50);
    assert!(place.host.log().matches("SSH2_MSG_NEWKEYS received").count() > 50);
    let (by_sftp, by_scp) = (place.host.home().join("by-sftp"), place.host.home().join("by-scp"));
    let batch = format!(
        "put {near} {far}\nget {far} {back}\n",
        near = near.display(),
        far = by_sftp.display(),
        back = place.path("back").display()
    );
    let mut sftp = place.client("sftp");
    process::run(sftp.args(rekeying).args(["-b", "-", "web1@127.0.0.1"]), &batch).expect_success("sftp");
    assert_eq!((sha256(&by_sftp), sha256(&place.path("back"))), (digest.clone(), digest.clone()));
    let far = format!("web1@127.0.0.1:{}", by_scp.display());
    for [from, to] in [[near.display().to_string(), far.clone()], [far, place.path("again").display().to_string()]] {
        let mut scp = place.client("scp");
        process::run(scp.args(rekeying).args(["-q", "-O", &from, &to]), "").expect_success("scp");
    }
    assert_eq!((sha256(&by_scp), sha256(&place.path("again"))), (digest.clone(), digest.clone()));
    for far in [by_sftp, by_scp] {
        for (verb, direction) in [("write", "written"), ("read", "read")] {
            let file = place.of(&format!("{verb} {}", far.display()))["file"].clone();
            assert_eq!((&file[direction], &file["sha256"]), (&json!(5_000_000), &json!(digest)), "{verb} {far:?}");
        }
    }
    assert!(place.commands().iter().all(|command| command["status"] == "ok"));
    assert!(place.gateway.verify().contains("ok"));
}

#[test]
fn commands_of_any_length_and_of_any_bytes_run_or_are_refused_in_words() {
    let place = place();
    let out = place.script(
        r#"
client = connect()
def run(name, command):
    global client
    try:
        channel = client.get_transport().open_session()
        channel.exec_command(command)
        errors = channel.makefile_stderr("rb").read()
        print(name, channel.recv_exit_status(), channel.makefile("rb").read(), errors, flush=True)
    except Exception as error:
        print(name, "gone")
        client = connect()
limit = 128 * 1024
run("fits", b"true " + b"x" * (limit - 1 - 5))
run("limit", b"true " + b"x" * (limit - 5))
run("above", b"true " + b"x" * (limit - 4))
run("double", b"true " + b"x" * (2 * limit - 5))
run("mega", b"true " + b"x" * (8 * limit))
run("nul", b"echo one\0; echo two")
run("latin", b"printf '\xe9\xff\x01'")
run("newlines", b"echo 1\necho 2\r\n")
"#,
    );
    let told = |name: &str| out.lines().find(|line| line.starts_with(name)).unwrap();
    assert_eq!(told("fits"), "fits 0 b'' b''");
    // One byte more than Linux takes.
    assert!(told("limit").starts_with("limit 1 ") && told("limit").contains("Argument list too long"), "{out}");
    for (name, why) in
        [("above", "no command of more than 128 KiB"), ("double", "of more than"), ("nul", "with a NUL in it")]
    {
        assert!(told(name).starts_with(&format!("{name} 126 ")) && told(name).contains(why), "{out}");
    }
    // No packet is so long.
    assert_eq!(told("mega"), "mega gone");
    assert_eq!(told("latin"), r"latin 0 b'\xe9\xff\x01' b''");
    let mut denied: Vec<_> = place.commands().into_iter().filter(|command| command["status"] == "denied").collect();
    denied.sort_by_key(|command| command["text"].as_str().unwrap().len());
    let rules: Vec<&str> = denied.iter().map(|command| command["rules"][0].as_str().unwrap()).collect();
    assert_eq!(rules, ["builtin:nul", "builtin:message-size", "builtin:message-size"]);
    assert_eq!(denied[0]["text"], "echo one\0; echo two");
    assert_eq!(denied[2]["text"].as_str().unwrap().len(), 256 * 1024);
    assert_eq!(place.of("printf")["status"], "ok");
    let sessions = place.gateway.cli(&["sessions"]).expect_success("sessions");
    assert_eq!(sessions.matches("violation").count(), 1, "{sessions}");
    place.goes_on();
    assert!(place.gateway.verify().contains("ok"));
}

/// A server that says this to whoever comes, without end, and takes note of who left.
fn chatter(line: &'static [u8]) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for client in listener.incoming() {
            let Ok(mut client) = client else { continue };
            thread::spawn(move || while client.write_all(line).is_ok() {});
        }
    });
    port
}

#[test]
fn banners_that_never_end_bring_nobody_down() {
    let lines = chatter(b"this is no version yet\r\n");
    let nothing = chatter(&[b'x'; 4096]);
    let junk = chatter(b"SSH-2.0-hello\r\n");
    let home = tempfile::tempdir().unwrap();
    sshd::keygen(&home.path().join("key"));
    let hosts = [("lines", lines), ("nothing", nothing), ("junk", junk)];
    let others = hosts.map(|(name, port)| host_at(home.path(), name, port)).concat();
    let place = place_with("", "", &others);
    for name in ["lines", "nothing", "junk"] {
        let mut ssh = place.client("ssh");
        let said = process::run(ssh.args([&format!("{name}@127.0.0.1"), "true"]), "");
        assert_eq!(said.status.code(), Some(255), "{said:?}");
        let told = format!("OnRecord could not establish SSH with the host behind connection \"{name}\"");
        assert!(said.stderr.contains(&told), "{said:?}");
    }
    // Clients that never say what they are.
    for line in [&b"GET / HTTP/1.1\r\n"[..], &[b'x'; 4096], b"SSH-2.0-hello\r\n"] {
        let mut client = TcpStream::connect(("127.0.0.1", place.gateway.ssh_port())).unwrap();
        let mut sent = 0;
        while client.write_all(line).is_ok() {
            sent += line.len();
            assert!(sent < 64 << 20, "the gateway reads on and on");
        }
        let mut told = Vec::new();
        let _ = client.read_to_end(&mut told);
    }
    assert!(place.commands().is_empty());
    poll("the refusals to be entries", || (place.gateway.entries("refused") > 0).then_some(()));
    place.goes_on();
    assert!(place.gateway.verify().contains("ok"));
}

#[test]
fn many_channels_run_at_once_and_one_too_many_is_refused() {
    let place = place();
    let out = place.script(
        r#"
client = connect()
transport = client.get_transport()
running = []
for n in range(40):
    channel = transport.open_session()
    channel.exec_command("cat; exit %d" % (n % 3))
    running.append(channel)
idle = [transport.open_session() for _ in range(88)]
refused = 0
for _ in range(3):
    try:
        transport.open_session()
    except paramiko.ChannelException as error:
        refused += error.code == 4
print("refused", refused)
for n, channel in enumerate(running):
    channel.sendall(b"%d" % n)
    channel.shutdown_write()
for n, channel in enumerate(running):
    assert channel.makefile("rb").read() == b"%d" % n, n
    assert channel.recv_exit_status() == n % 3, n
idle[0].close()
for _ in range(100):
    try:
        channel = transport.open_session()
        break
    except paramiko.ChannelException:
        time.sleep(0.1)
channel.exec_command("echo again")
print(channel.makefile("rb").read())
"#,
    );
    assert!(out.contains("refused 3") && out.contains("again"), "{out}");
    let commands = place.commands();
    assert_eq!(commands.len(), 41);
    let failed = commands.iter().filter(|command| command["status"] == "error").count();
    assert_eq!(failed, 26, "{commands:#?}");
    place.goes_on();
    assert!(place.gateway.verify().contains("ok"));
}

#[test]
fn a_channel_without_room_holds_up_nobody_and_its_end_is_known() {
    let place = place();
    let out = place.script(
        r#"
client = connect()
transport = client.get_transport()
transport._sanitize_window_size = lambda size: 0 if size == 1 else 1 << 21
blind = transport.open_session(window_size=1)
blind.exec_command("echo unseen; exit 3")
endless = transport.open_session(window_size=1)
endless.exec_command("cat /dev/zero")
seeing = transport.open_session(window_size=1 << 21)
seeing.exec_command("echo seen")
print(seeing.makefile("rb").read(), seeing.recv_exit_status(), blind.in_window_size, blind.exit_status_ready())
time.sleep(2)
"#,
    );
    assert!(out.contains(r"b'seen\n' 0 0 False"), "{out}");
    let blind = place.of("echo unseen");
    assert_eq!((&blind["code"], &blind["streams"]["stdout"]), (&json!("3"), &json!(7)), "{blind:#}");
    let endless = place.of("cat /dev/zero");
    assert_eq!((&endless["status"], &endless["reason"]), (&json!("unknown"), &json!("client_gone")), "{endless:#}");
    place.goes_on();
}

/// A host that opens what nobody has asked for, towards the gateway.
#[test]
fn a_host_opens_nothing_towards_the_gateway() {
    let home = tempfile::tempdir().unwrap();
    let (_host, port) = paramiko_host(
        home.path(),
        r#"
    def check_channel_exec_request(self, channel, command):
        threading.Thread(target=self.open, args=[channel]).start()
        return True
    def open(self, channel):
        here = ("127.0.0.1", 22)
        for kind in ["session", "x11", "auth-agent@openssh.com", "forwarded-tcpip", "direct-tcpip"]:
            try:
                channel.get_transport().open_channel(kind, here, here)
                channel.sendall(kind + " was opened\n")
            except paramiko.ChannelException as error:
                channel.sendall("%s %d\n" % (kind, error.code))
        channel.send_exit_status(0)
        channel.close()
"#,
    );
    let place = place_with("", "", &host_at(home.path(), "opening", port));
    let mut ssh = place.client("ssh");
    let said = process::run(ssh.args(["opening@127.0.0.1", "anything"]), "");
    let expected = ["session", "x11", "auth-agent@openssh.com", "forwarded-tcpip", "direct-tcpip"];
    let expected: String = expected.map(|kind| format!("{kind} 1\n")).concat();
    assert_eq!(said.stdout, expected, "{said:?}");
}

/// Many channels that take nothing, fill their programs' input, and have them write as much as may wait.
#[test]
fn what_waits_in_many_channels_counts_together() {
    let place = place();
    let out = place.script(
        r#"
import threading
client = connect()
transport = client.get_transport()
transport._sanitize_window_size = lambda size: 0
channels = []
for n in range(12):
    channel = transport.open_session(window_size=0)
    channel.exec_command("head -c 62000000 /dev/zero; sleep 600")
    channels.append(channel)
def fill(channel):
    try:
        channel.settimeout(10)
        channel.sendall(b"y" * (3 << 20))
    except Exception as error:
        print("blocked", error)
threads = [threading.Thread(target=fill, args=[channel], daemon=True) for channel in channels]
for thread in threads: thread.start()
for thread in threads: thread.join()
time.sleep(5)
print("filled")
os._exit(0)
"#,
    );
    assert!(out.contains("filled"), "{out}");
    let ended = place.commands().iter().filter(|command| command["reason"] == "violation").count();
    assert!(ended > 0 && ended < 12, "{ended} were ended");
    let peak = place.gateway.peak_memory_kib();
    assert!(peak < 2 * MEMORY_KIB_MAX, "{peak} KiB of memory");
    assert!(place.gateway.verify().contains("ok"));
}

#[test]
fn an_output_without_end_costs_no_memory_and_a_big_one_is_whole() {
    let place = place();
    // A reader that takes a little, and leaves.
    let words = |command: &str| {
        let ssh = place.client("ssh");
        let words = ssh.get_args().map(|word| format!("'{}'", word.to_str().unwrap()));
        let words: Vec<String> = std::iter::once("ssh".to_owned()).chain(words).collect();
        format!("{} web1@127.0.0.1 '{command}'", words.join(" "))
    };
    let bash = |line: &str| process::run(Command::new("bash").args(["-c", line]), "");
    let mut ssh = place.client("ssh");
    ssh.args(["web1@127.0.0.1", "cat /dev/zero"]).stdout(Stdio::piped());
    let mut leaving = ssh.stdin(Stdio::null()).spawn().unwrap();
    leaving.stdout.take().unwrap().read_exact(&mut [1; 100_000]).unwrap();
    leaving.kill().unwrap();
    leaving.wait().unwrap();
    let left = place.only();
    assert_eq!((&left["status"], &left["reason"]), (&json!("unknown"), &json!("client_gone")), "{left:#}");
    let shown = place.show(&left["id"]);
    assert!(shown["streams"]["stdout"].as_u64().unwrap() >= 100_000, "{shown:#}");
    // One that takes nothing, for as long as it likes.
    let mut ssh = place.client("ssh");
    ssh.args(["web1@127.0.0.1", "head -c 2000000000 /dev/zero"]).stdout(Stdio::piped());
    let mut idle = ssh.stdin(Stdio::null()).spawn().unwrap();
    thread::sleep(Duration::from_secs(1));
    place.goes_on();
    idle.kill().unwrap();
    idle.wait().unwrap();
    // One that takes it all.
    let said = bash(&format!("{} | sha256sum", words("head -c 300000000 /dev/zero | tr \"\\0\" x")));
    let digest = said.stdout.split(' ').next().unwrap().to_owned();
    let direct = bash("head -c 300000000 /dev/zero | tr '\\0' x | sha256sum");
    assert_eq!(said.stdout, direct.stdout);
    let big = place.of("head -c 300000000");
    assert_eq!(big["streams"]["stdout"], 300_000_000, "{big:#}");
    let output =
        place.gateway.cli(&["output", big["id"].as_str().unwrap(), "--stream", "stdout", "--output", "ndjson"]);
    let output = output.expect_success("onrecord output");
    let whole: Value = serde_json::from_str(output.lines().last().unwrap()).unwrap();
    assert_eq!((&whole["bytes"], &whole["sha256"]), (&json!(300_000_000), &json!(digest)), "{whole}");
    place.goes_on();
    assert!(place.gateway.verify().contains("ok"));
}

#[test]
fn a_host_that_is_gone_midway_leaves_an_unknown_and_the_session_goes_on() {
    let place = place();
    let said = place.ssh(&["kill -9 $PPID; sleep 600"]);
    assert_eq!(said.status.code(), Some(255), "{said:?}");
    let told = "OnRecord: the connection to the host broke. Whether the command ended is not known.";
    assert!(said.stderr.contains(told), "{said:?}");
    let command = place.only();
    assert_eq!((&command["status"], &command["reason"]), (&json!("unknown"), &json!("upstream_gone")), "{command:#}");
    // Within one session: a command, files, and then another command.
    let far = place.host.home().join("far").display().to_string();
    let mut client = paramiko(
        &place,
        &format!(
            r#"
client = connect()
_, out, err = client.exec_command("cat; kill -9 $PPID; sleep 600")
out.channel.sendall(b"passed")
print(out.channel.recv(6))
out.channel.shutdown_write()
print("exec", out.channel.recv_exit_status(), err.read())
sftp = client.open_sftp()
file = sftp.open("{far}", "w")
file.write(b"x" * 1000000)
file.flush()
sftp.stat("{far}")
print("written", flush=True)
wait_for(HERE + "killed")
try:
    for _ in range(1000):
        file.write(b"x" * 100000)
    print("all written")
except Exception as error:
    print("sftp ends", error)
_, out, err = client.exec_command("echo still here")
print(out.read())
os._exit(0)
"#
        ),
    );
    super::ends::said(&place, "written");
    place.host.drop_sessions();
    fs::write(place.path("killed"), "").unwrap();
    client.wait();
    let out = fs::read_to_string(place.path("out")).unwrap();
    for part in ["b'passed'", "exec 255 b'OnRecord: the connection to the host broke.", "sftp ends", r"b'still here\n'"]
    {
        assert!(out.contains(part), "{part} is missing in {out}");
    }
    let told: Vec<_> = ["cat; kill", "sftp", "write "]
        .map(|text| place.of(text))
        .iter()
        .map(|command| [&command["status"], &command["reason"]].map(|it| it.as_str().unwrap().to_owned()))
        .collect();
    let gone = ["unknown", "upstream_gone"].map(str::to_owned);
    assert_eq!(told, [gone.clone(), gone, ["unknown", "session_ended"].map(str::to_owned)]);
    // In a shell.
    let place = shells_of(BASH, "", &[PROFILE]);
    let seen = sit(&place, &[("at-host$ ", "echo now; read -r _; kill -9 $PPID; sleep 600\r"), ("now\r\n", "\r")]);
    assert!(
        seen.contains("OnRecord: the connection to the host broke.") && seen.ends_with("exit status 255\n"),
        "{seen}"
    );
    assert_eq!(lines(&place)[0], line("echo now; read -r _; kill -9 $PPID; sleep 600", "shell", "unknown", "", ""));
    let shell = shell(&place);
    assert_eq!((&shell["status"], &shell["reason"]), (&json!("unknown"), &json!("upstream_gone")), "{shell:#}");
    place.goes_on();
    assert!(place.gateway.verify().contains("ok"));
}

#[test]
fn clients_that_break_off_and_inputs_that_end_first() {
    let place = place();
    let mut cat = place.client("ssh");
    let said = cat.args(["web1@127.0.0.1", "cat"]).stdin(Stdio::null()).output().unwrap();
    assert_eq!((said.status.code(), said.stdout.as_slice()), (Some(0), &b""[..]));
    let mut half = place.client("ssh");
    let said = process::run(half.args(["web1@127.0.0.1", "cat; sleep 0.2; echo y"]), "x");
    assert_eq!(said.stdout, "xy\n", "{said:?}");
    place.script(
        r#"
import socket, struct
client = connect()
channel = client.get_transport().open_session()
channel.exec_command("echo reset; sleep 600")
assert channel.recv(6) == b"reset\n"
client.get_transport().sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
client.get_transport().sock.close()
client = connect()
channel = client.get_transport().open_session()
channel.exec_command("echo half; sleep 600")
assert channel.recv(5) == b"half\n"
client.get_transport().sock.shutdown(socket.SHUT_WR)
client = connect()
channel = client.get_transport().open_session()
channel.exec_command("echo closed; sleep 600")
assert channel.recv(7) == b"closed\n"
channel.close()
wait = client.exec_command("echo next")[1].read()
assert wait == b"next\n"
os._exit(0)
"#,
    );
    for text in ["echo reset", "echo half", "echo closed"] {
        let command = place.of(text);
        assert_eq!((&command["status"], &command["reason"]), (&json!("unknown"), &json!("client_gone")), "{command:#}");
    }
    let half = place.of("cat; sleep");
    assert_eq!(
        (&half["status"], &half["streams"]["stdin"], &half["streams"]["stdout"]),
        (&json!("ok"), &json!(1), &json!(3))
    );
    place.goes_on();
    assert!(place.gateway.verify().contains("ok"));
}

#[test]
fn a_shell_in_a_shell_is_one_line_of_it() {
    let place = shells_of(BASH, "", &[PROFILE, (".bashrc", "PS1='inner$ '\n")]);
    let seen = sit(
        &place,
        &[
            ("at-host$ ", "bash\r"),
            ("inner$ ", "sh -c 'exit 5'\r"),
            ("inner$ ", "exit\r"),
            ("at-host$ ", "true\r"),
            ("at-host$ ", "exit 3\r"),
        ],
    );
    assert!(seen.ends_with("exit status 3\n"), "{seen}");
    let expected = [("bash", "error", "5"), ("true", "ok", "0"), ("exit 3", "error", "3")];
    assert_eq!(lines(&place), expected.map(|(text, status, code)| line(text, "shell", status, code, "")), "{seen}");
    let outer = shell(&place);
    assert_eq!((&outer["status"], &outer["code"]), (&json!("error"), &json!("3")), "{outer:#}");
    let screen = place.gateway.cli(&["replay", outer["id"].as_str().unwrap()]).expect_success("replay");
    assert!(screen.contains("inner$ sh -c 'exit 5'"), "{screen}");

    let place = shells_of(BASH, "", &[PROFILE, (".zshrc", "PS1='zsh# '\n")]);
    let seen = sit(
        &place,
        &[
            ("at-host$ ", "echo first\r"),
            ("at-host$ ", "exec zsh\r"),
            ("zsh# ", "echo second\r"),
            ("zsh# ", "exit 4\r"),
        ],
    );
    assert!(seen.ends_with("exit status 4\n"), "{seen}");
    let expected = [("echo first", "ok", "0"), ("exec zsh", "error", "4")];
    assert_eq!(lines(&place), expected.map(|(text, status, code)| line(text, "shell", status, code, "")), "{seen}");
    assert_eq!(shell(&place)["code"], "4");
    assert!(place.gateway.verify().contains("ok"));
}
