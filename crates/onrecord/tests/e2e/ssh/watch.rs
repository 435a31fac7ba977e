//! Who looks on while something runs, and who ends it: live, and on the record.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::process::{Child, ChildStdout, Command, Stdio};

use serde_json::{Value, json};
use testkit::clients;
use testkit::process::{self, poll, tethered};

use super::{Place, place_with};

/// Writes a line on its terminal ten times a second, for as long as it may.
const TICKS: &str = "i=0; while [ $i -lt 600 ]; do i=$((i+1)); echo tick $i; sleep 0.1; done";

/// A stock client whose program runs by now: it has written a line.
fn runs(place: &Place, arguments: &[&str]) -> (Child, BufReader<ChildStdout>) {
    let words: Vec<_> = place.client("ssh").get_args().map(std::ffi::OsStr::to_owned).collect();
    let mut ssh = tethered("ssh", "TERM");
    ssh.args(words).args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut ssh = ssh.spawn().unwrap();
    let mut out = BufReader::new(ssh.stdout.take().unwrap());
    out.read_line(&mut String::new()).unwrap();
    (ssh, out)
}

/// The command that runs.
fn running(place: &Place) -> Value {
    poll("a command that runs", || {
        let listed = place.gateway.cli(&["commands", "--status", "pending", "--output", "ndjson"]);
        let listed = listed.expect_success("onrecord commands");
        listed.lines().next().map(|line| serde_json::from_str(line).unwrap())
    })
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_default()
}

/// Looks on, without a terminal.
fn look_on(place: &Place, id: &str) -> Child {
    let mut watch = tethered(env!("CARGO_BIN_EXE_onrecord"), "TERM");
    watch.args(["watch", id, "--output", "ndjson", "--config"]).arg(place.gateway.config());
    watch.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

#[test]
fn a_terminal_is_watched_while_it_runs_and_its_session_is_ended() {
    let place = place_with("", "terminals = true\n", "");
    let (mut ssh, mut out) = runs(&place, &["-tt", "web1@127.0.0.1", TICKS]);
    std::thread::spawn(move || std::io::copy(&mut out, &mut std::io::sink()));
    let command = running(&place);
    let (id, session) = (text(&command, "id"), text(&command, "session"));

    // In a terminal, by the session's name, until somebody has seen enough.
    let steps = json!([["expect", "tick "], ["expect", "\u{1b}[?25h"], ["expect", "\u{1b}[?25h"], ["send", "q"]]);
    let mut watch = Command::new(clients::python());
    watch.arg(clients::scripts().join("watch.py")).args(["100", "40"]).arg(steps.to_string());
    watch.args([env!("CARGO_BIN_EXE_onrecord"), "watch", session, "--config"]).arg(place.gateway.config());
    let watched: Value = serde_json::from_str(&process::run(&mut watch, "").expect_success("watch.py")).unwrap();
    assert_eq!((&watched["code"], &watched["restored"]), (&json!(0), &json!(true)), "{watched:#}");
    let drawn = text(&watched, "drawn");
    let (screen, after) = drawn.split_once("\x1b[?1049l").unwrap();
    assert!(screen.contains(" live ") && after.contains("goes on"), "{drawn:?}");
    let mut terminal = avt::Terminal::new(100, 40).unwrap();
    terminal.feed(screen);
    let rows: Vec<String> = terminal.screen().visible_lines().map(|line| line.text().trim_end().to_owned()).collect();
    let tick = |row: &String| row.strip_prefix("tick ").map(|number| number.parse::<u32>().unwrap());
    let ticks: Vec<u32> = rows.iter().filter_map(tick).collect();
    assert!(ticks.len() > 1 && ticks.windows(2).all(|two| two[0] + 1 == two[1]), "{rows:#?}");

    // As text, until it ends: it is ended.
    let mut looking = look_on(&place, id);
    let mut lines = BufReader::new(looking.stdout.take().unwrap()).lines();
    // What is on the screen is text once it leaves that.
    let first: Value = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
    assert!(text(&first, "text").starts_with("tick "), "{first:#}");
    let refused = place.gateway.cli(&["kill", id, "--reason", "x"]);
    assert!(refused.status.code() == Some(2) && refused.stderr.contains("is a command"), "{refused:?}");
    let killed = place.gateway.cli(&["kill", &session[16..], "--reason", "it floods the terminal"]);
    assert!(killed.expect_success("onrecord kill").contains("is told to end"));
    let last = lines.map(|line| serde_json::from_str::<Value>(&line.unwrap()).unwrap()).last().unwrap();
    assert!(text(&last, "text").starts_with("tick "), "{last:#}");
    assert!(looking.wait().unwrap().success());
    assert_eq!(ssh.wait().unwrap().code(), Some(255));
    let mut said = String::new();
    ssh.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert!(said.contains("somebody who looks after the gateway ended it"), "{said}");

    let command = place.only();
    assert_eq!(["status", "reason"].map(|key| text(&command, key)), ["unknown", "killed"], "{command:#}");
    let shown = place.show(&command["session"]);
    let overseen: Vec<_> = shown["oversight"].as_array().unwrap().iter().collect();
    let told = |entry: &Value| ["action", "command", "reason"].map(|key| text(entry, key).to_owned());
    let told: Vec<_> = overseen.into_iter().map(told).collect();
    let expected = [["watched", id, ""], ["watched", id, ""], ["killed", "", "it floods the terminal"]];
    assert_eq!(told, expected.map(|entry| entry.map(str::to_owned)));
    let again = place.gateway.cli(&["kill", session, "--reason", "again"]);
    assert!(again.status.code() == Some(5) && again.stderr.contains("is not live"), "{again:?}");
    let late = place.gateway.cli(&["watch", id]);
    assert!(late.status.code() == Some(5) && late.stderr.contains("has ended"), "{late:?}");
    place.gateway.verify();
}

#[test]
fn output_without_a_terminal_is_watched_and_who_does_not_look_holds_up_nobody() {
    let place = place_with("", "", "");
    let (mut ssh, mut from_host) = runs(
        &place,
        &[
            "web1@127.0.0.1",
            "echo ready; read go; echo out; echo err >&2; read go; head -c 50000000 /dev/zero; echo end",
        ],
    );
    let command = running(&place);
    let id = text(&command, "id");
    let mut looking = look_on(&place, id);
    // One that reads nothing, and is waited for by nobody.
    let mut idle = look_on(&place, id);
    poll("both look on", || (place.gateway.entries("oversight") == 2).then_some(()));
    let mut input = ssh.stdin.take().unwrap();
    input.write_all(b"go\n").unwrap();
    let mut lines = BufReader::new(looking.stdout.take().unwrap()).lines();
    let mut next = || -> Value { serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap() };
    let of = |line: Value| (text(&line, "stream").to_owned(), text(&line, "text").to_owned());
    let mut first = [of(next()), of(next())];
    first.sort();
    assert_eq!(first, [("stderr".to_owned(), "err".to_owned()), ("stdout".to_owned(), "out".to_owned())]);
    input.write_all(b"go\n").unwrap();
    drop(input);
    let mut out = Vec::new();
    from_host.read_to_end(&mut out).unwrap();
    assert_eq!(out.len(), 50_000_000 + "out\nend\n".len());
    assert!(ssh.wait().unwrap().success());
    let last = lines.map(|line| serde_json::from_str::<Value>(&line.unwrap()).unwrap()).last().unwrap();
    assert!(text(&last, "text").ends_with("end"));
    assert!(looking.wait().unwrap().success());
    idle.kill().unwrap();
    idle.wait().unwrap();
    place.only();
    place.gateway.verify();
}

#[test]
fn who_watches_learns_that_the_gateway_is_gone_and_not_that_the_program_has_ended() {
    let mut place = place_with("", "terminals = true\n", "");
    let (mut ssh, _out) = runs(&place, &["-tt", "web1@127.0.0.1", "echo began; sleep 600"]);
    let id = text(&running(&place), "id").to_owned();
    let mut watch = Command::new(clients::python());
    watch.arg(clients::scripts().join("watch.py")).args(["100", "40", r#"[["expect", "began"]]"#]);
    watch.args([env!("CARGO_BIN_EXE_onrecord"), "watch", &id, "--config"]).arg(place.gateway.config());
    let watch = watch.stdout(Stdio::piped()).spawn().unwrap();
    poll("somebody watches", || (place.gateway.entries("oversight") == 1).then_some(()));
    place.gateway.kill9();
    let watched: Value = serde_json::from_slice(&watch.wait_with_output().unwrap().stdout).unwrap();
    assert_eq!((&watched["code"], &watched["restored"]), (&json!(1), &json!(true)), "{watched:#}");
    let drawn = text(&watched, "drawn");
    assert!(drawn.contains("the gateway shows no more") && !drawn.contains("has ended"), "{drawn:?}");
    ssh.wait().unwrap();
    place.gateway = place.gateway.restart();
    let command = place.only();
    assert_eq!(["status", "reason"].map(|key| text(&command, key)), ["unknown", "gateway_restarted"], "{command:#}");
    place.gateway.verify();
}
