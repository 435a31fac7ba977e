//! Shells: what runs in them is seen, and said to be seen, not known.

use std::fs;
use std::process::Command;

use serde_json::{Value, json};
use testkit::process;
use testkit::sshd::Sshd;

use super::{Place, place, place_of, place_with};
use crate::plan;

/// A host whose user has this shell, with these files in the user's home.
pub(super) fn shells_of(shell: &str, policy: &str, files: &[(&str, &str)]) -> Place {
    let host = Sshd::start_shell(shell);
    for (name, text) in files {
        let file = host.home().join(name);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, text).unwrap();
    }
    place_of(host, plan(), policy, "terminals = true\nshells = \"marked\"\n", "")
}

pub(super) const BASH: &str = "/bin/bash";
pub(super) const PROFILE: (&str, &str) = (".bash_profile", "PS1='at-host$ '\n");

/// Sits at a terminal of 100 columns and 30 rows with a stock `ssh`: waits for each first part, then types the second.
/// Gives what was on the terminal, as it came.
pub(super) fn sit(place: &Place, steps: &[(&str, &str)]) -> String {
    let ssh = place.client("ssh");
    let mut words: Vec<&str> = vec!["ssh"];
    words.extend(ssh.get_args().map(|word| word.to_str().unwrap()));
    words.extend(["-tt", "web1@127.0.0.1"]);
    let script = place.path("sit.py");
    let text = r#"
import fcntl, json, os, pty, select, struct, sys, termios, time
words, steps = json.loads(sys.argv[1]), json.loads(sys.argv[2])
child, fd = pty.fork()
if child == 0:
    os.execvpe(words[0], words, dict(os.environ, TERM="xterm"))
fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 100, 0, 0))
out, at = b"", 0
def read(seconds):
    global out
    if not select.select([fd], [], [], seconds)[0]:
        return True
    try:
        more = os.read(fd, 65536)
    except OSError:
        return False
    out += more
    return bool(more)
open_ = True
for expected, typed in steps:
    end = time.time() + 60
    while open_ and out.find(expected.encode(), at) < 0:
        if time.time() > end:
            sys.exit("waited for %r in %r" % (expected, out[at:]))
        open_ = read(1)
    at = out.find(expected.encode(), at) + len(expected)
    os.write(fd, typed.encode())
end = time.time() + 60
while read(1) and time.time() < end:
    pass
sys.stdout.buffer.write(out)
_, status = os.waitpid(child, 0)
sys.stdout.buffer.write(b"\nexit status %d\n" % os.waitstatus_to_exitcode(status))
"#;
    fs::write(&script, text).unwrap();
    let mut python = Command::new("python3");
    let steps: Vec<[&str; 2]> = steps.iter().map(|(expected, typed)| [*expected, *typed]).collect();
    python.arg(&script).arg(json!(words).to_string()).arg(json!(steps).to_string());
    process::run(&mut python, "").expect_success("the terminal")
}

/// The lines of all shells, each as text, fidelity, status, code and integration.
pub(super) fn lines(place: &Place) -> Vec<[String; 5]> {
    let commands = place.commands();
    let lines = commands.iter().filter(|command| command["via"] == "line");
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let mut lines: Vec<_> = lines
        .map(|line| {
            let integration = &line["parameters"]["integration"];
            ([&line["text"], &line["fidelity"], &line["status"], &line["code"], integration].map(text), &line["id"])
        })
        .collect();
    lines.sort_by_key(|(_, id)| id.as_str().and_then(|id| id.rsplit('.').next()?.parse::<u32>().ok()));
    lines.into_iter().map(|(line, _)| line).collect()
}

pub(super) fn line(text: &str, fidelity: &str, status: &str, code: &str, integration: &str) -> [String; 5] {
    [text, fidelity, status, code, integration].map(str::to_owned)
}

pub(super) fn shell(place: &Place) -> Value {
    let commands = place.commands();
    commands.into_iter().find(|command| command["via"] == "shell").unwrap()
}

#[test]
fn a_script_that_a_shell_reads_is_one_command_with_its_input() {
    let refused = place();
    assert_eq!(refused.ssh(&[]).status.code(), Some(126));
    let place = place_with("", "shells = \"marked\"\n", "");
    let mut ssh = place.client("ssh");
    let said = process::run(ssh.args(["-T", "web1@127.0.0.1"]), "echo one\nexit 4\n");
    assert_eq!((said.status.code(), said.stdout.contains("one\n")), (Some(4), true), "{said:?}");
    let command = place.only();
    let told = ["via", "fidelity", "status", "code"].map(|key| command[key].as_str().unwrap());
    assert_eq!(told, ["shell", "opaque", "error", "4"], "{command:#}");
    let id = command["id"].as_str().unwrap();
    let input = place.gateway.cli(&["output", id, "--stream", "stdin"]).expect_success("onrecord output");
    assert_eq!(input, "echo one\nexit 4\n");
    assert!(place.gateway.verify().contains("ok"));
}

#[test]
fn the_lines_of_a_shell_are_commands_with_their_exit_status() {
    let profile = "PS1='at-\\W$ '\nHISTCONTROL=ignoreboth\n";
    let place = shells_of(BASH, "", &[(".bashrc", profile), (".bash_profile", ". ~/.bashrc\n")]);
    let seen = sit(
        &place,
        &[
            ("$ ", "echo out; false\r"),
            ("out\r\n", ""),
            ("$ ", "cd /usr\r"),
            ("at-usr$ ", "true | sh -c 'exit 3' | cat\r"),
            ("at-usr$ ", " test -e /nowhere\r"),
            ("at-usr$ ", "for i in 1 2; do\r"),
            ("> ", "echo $i; done\r"),
            ("2\r\n", ""),
            ("at-usr$ ", "stty -echo; echo now; read -r secret; stty echo\r"),
            ("now\r\n", "correct-horse\r"),
            ("at-usr$ ", "exit 6\r"),
        ],
    );
    assert!(seen.ends_with("exit status 6\n"), "{seen}");
    assert!(!seen.contains("]633;"), "marks are left out: {seen:?}");
    assert_eq!(
        lines(&place),
        [
            line("echo out; false", "shell", "error", "1", ""),
            line("cd /usr", "shell", "ok", "0", ""),
            line("true | sh -c 'exit 3' | cat", "shell", "ok", "0", ""),
            // The user keeps it out of the history, so the shell cannot tell what it was.
            line("test -e /nowhere", "screen", "error", "1", ""),
            line("for i in 1 2; do echo $i; done", "shell", "ok", "0", ""),
            line("stty -echo; echo now; read -r secret; stty echo", "shell", "ok", "0", ""),
            line("exit 6", "shell", "error", "6", ""),
        ]
    );
    let shell = shell(&place);
    let told = ["text", "fidelity", "status", "code"].map(|key| shell[key].as_str().unwrap_or_default());
    assert_eq!(told, ["", "opaque", "error", "6"], "{shell:#}");
    let (id, number) = shell["id"].as_str().unwrap().rsplit_once('.').unwrap();
    let piped = place.commands().into_iter().find(|line| line["text"].as_str().unwrap_or_default().contains("exit 3"));
    let piped = piped.unwrap();
    assert_eq!(piped["parameters"], json!({"shell": number.parse::<u32>().unwrap(), "directory": "/usr"}));
    let results = place.show(&piped["id"])["results"].clone();
    assert_eq!(results.as_array().unwrap().len(), 3, "{results}");
    assert_eq!(results[1]["tag"], "PIPE 3");
    // What was typed unseen is nowhere; the terminal itself is kept as the host sent it.
    let raw = place.gateway.cli(&["output", &format!("{id}.{number}"), "--raw"]).expect_success("onrecord output");
    assert!(raw.contains("]633;E;cd /usr;") && !raw.contains("correct-horse"), "{raw}");
    assert!(place.gateway.verify().contains("ok"));
}

#[test]
fn zsh_and_fish_mark_their_lines_too() {
    for shell in ["/usr/bin/zsh", "/usr/bin/fish"] {
        let fish = "function fish_prompt; echo 'ready# '; end\nset fish_greeting\n";
        let files = [(".zshrc", "PS1='ready# '\n"), (".config/fish/config.fish", fish)];
        let place = shells_of(shell, "", &files);
        let seen =
            sit(&place, &[("ready# ", "sh -c 'exit 3'\r"), ("ready# ", "echo 'a;b\\\\c'\r"), ("ready# ", "exit 5\r")]);
        assert!(seen.ends_with("exit status 5\n"), "{seen}");
        let expected = [
            line("sh -c 'exit 3'", "shell", "error", "3", ""),
            line("echo 'a;b\\\\c'", "shell", "ok", "0", ""),
            line("exit 5", "shell", "error", "5", ""),
        ];
        assert_eq!(lines(&place), expected, "{shell}: {seen}");
    }
}

#[test]
fn lines_that_a_shell_does_not_run_are_not_taken_for_marks_that_stopped() {
    for (shell, file) in [("/usr/bin/zsh", ".zshrc"), (BASH, ".bash_profile")] {
        let place = shells_of(shell, "", &[(file, "PS1='ready# '\n")]);
        let wrong = ("ready# ", "fi\r");
        let seen = sit(&place, &[wrong, wrong, wrong, ("ready# ", "true\r"), ("ready# ", "exit 5\r")]);
        let lines = lines(&place);
        let (ran, not_run): (Vec<_>, Vec<_>) = lines.into_iter().partition(|line| line[4].is_empty());
        let expected = [line("true", "shell", "ok", "0", ""), line("exit 5", "shell", "error", "5", "")];
        assert_eq!(ran, expected, "{shell}: {seen}");
        assert_eq!(not_run, vec![line("fi", "screen", "unknown", "", "unmarked"); 3], "{shell}: {seen}");
    }
}

#[test]
fn other_shells_are_read_off_the_screen() {
    let place = shells_of("/bin/dash", "", &[(".profile", "PS1='at-host$ '\n")]);
    let seen = sit(&place, &[("at-host$", "echo hello\r"), ("hello\r\n", ""), ("at-host$", "exit 2\r")]);
    assert!(seen.ends_with("exit status 2\n"), "{seen}");
    let expected = ["echo hello", "exit 2"].map(|text| line(text, "screen", "unknown", "", ""));
    assert_eq!(lines(&place), expected, "{seen}");
}

#[test]
fn marks_that_stop_and_marks_that_are_forged_are_shown_for_what_they_are() {
    let place = shells_of(BASH, "", &[PROFILE]);
    sit(
        &place,
        &[
            // Somebody else's marks: they pass, and mean nothing.
            ("at-host$ ", "printf '\\033]633;E;rm -rf /;/;0000\\007\\033]633;D;0;;0000\\007'\r"),
            ("at-host$ ", "unset PS0 PROMPT_COMMAND\r"),
            ("at-host$ ", "id -u\r"),
            ("at-host$ ", "exit\r"),
        ],
    );
    let lines = lines(&place);
    assert_eq!(lines.len(), 4, "{lines:#?}");
    assert!(lines[0][0].starts_with("printf"), "{lines:#?}");
    assert_eq!(lines[1], line("unset PS0 PROMPT_COMMAND", "shell", "unknown", "", ""));
    assert_eq!(lines[2], line("id -u", "screen", "unknown", "", "lost"));
    assert_eq!(lines[3], line("exit", "screen", "unknown", "", "lost"));
}

#[test]
fn lines_of_a_managed_shell_are_commands_that_are_known_exactly() {
    let policy = r#"
version: 1
default: deny
rules:
  - {id: all, when: 'cmd.operation == "exec" && cmd.opaque.all(o, o == "exec")', then: allow}
  - {id: no-trees, when: 'cmd.text.contains("rm -r")', then: deny, message: nobody removes trees}
"#;
    let place = place_with(policy, "terminals = true\nshells = \"managed\"\n", "");
    let seen = sit(
        &place,
        &[
            ("web1> ", "tty; sh -c 'exit 3'\r"),
            ("/dev/pts/", ""),
            ("web1> ", "rm -r /nowhere\r"),
            ("nobody removes trees", ""),
            ("web1> ", "\x1b[A\x1b[A\x7f\x7f4'\r"),
            ("/dev/pts/", ""),
            ("web1> ", "exit\r"),
        ],
    );
    assert!(seen.ends_with("exit status 4\n"), "{seen}");
    let mut ssh = place.client("ssh");
    let script = "echo one\n# a comment\ncat\nexit 7\necho not any more\n";
    let said = process::run(ssh.args(["-T", "web1@127.0.0.1"]), script);
    assert_eq!((said.status.code(), said.stdout.as_str()), (Some(7), "one\n"), "{said:?}");
    let mut told: Vec<_> = place
        .commands()
        .iter()
        .map(|command| {
            ["via", "text", "fidelity", "status", "code"]
                .map(|key| command[key].as_str().unwrap_or_default().to_owned())
        })
        .collect();
    told.sort();
    let exec = |text: &str, status: &str, code: &str| ["exec", text, "exact", status, code].map(str::to_owned);
    assert_eq!(
        told,
        [
            exec("cat", "ok", "0"),
            exec("echo one", "ok", "0"),
            exec("rm -r /nowhere", "denied", ""),
            exec("tty; sh -c 'exit 3'", "error", "3"),
            exec("tty; sh -c 'exit 4'", "error", "4"),
        ]
    );
    assert!(place.gateway.verify().contains("ok"));
}

#[test]
fn a_rule_over_a_line_ends_the_terminal_after_the_fact() {
    let policy = r#"
version: 1
default: deny
rules:
  - {id: all, when: 'conn.kind == "ssh"', then: allow}
  - {id: no-trees, when: 'cmd.operation == "line" && cmd.text.contains("rm -r")', then: deny, message: nobody removes trees}
"#;
    let place = shells_of(BASH, policy, &[PROFILE]);
    let seen = sit(&place, &[("at-host$ ", "true\r"), ("at-host$ ", "rm -r /nowhere\r"), ("ends here", "")]);
    assert!(seen.contains("nobody removes trees (rule no-trees)") && seen.ends_with("exit status 255\n"), "{seen}");
    assert_eq!(lines(&place)[1], line("rm -r /nowhere", "shell", "unknown", "", ""));
    let commands = place.commands();
    let denied = commands.iter().find(|command| command["text"] == "rm -r /nowhere").unwrap();
    assert_eq!((&denied["observed"], &denied["reason"]), (&json!("deny"), &json!("policy")), "{denied:#}");
    assert_eq!((&shell(&place)["status"], &shell(&place)["reason"]), (&json!("unknown"), &json!("policy")));
    assert!(place.gateway.verify().contains("ok"));
}
