//! What a terminal showed: played in a terminal, printed, given to other players, and searched.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use serde_json::{Value, json};
use testkit::clients;
use testkit::process::{self, Finished};

use super::shells::{BASH, PROFILE, shell, shells_of, sit};
use super::{Place, place_with};

/// Colours, a mark of shell integration, and what acts on the terminal of whoever looks.
const PROGRAM: &str = r"printf 'one \033]52;c;aGVsbG8=\007\033]0;title\007\n'; sleep 0.2; printf '\033]633;E;x\007t\033[31mw\033[0mo \346\227'
printf '\245\n'; sleep 0.2; printf 'three\033[6n\033[c\n'; exit 3";

/// A place where a program ran in a terminal, and its command.
fn recorded() -> (Place, Value) {
    let place = place_with("", "terminals = true\n", "");
    let mut ssh = place.client("ssh");
    let said = process::run(ssh.args(["-tt", "web1@127.0.0.1", PROGRAM]), "");
    assert_eq!(said.status.code(), Some(3), "{said:?}");
    let command = place.only();
    (place, command)
}

fn id(command: &Value) -> &str {
    command["id"].as_str().unwrap()
}

/// Plays it in a terminal of 100 columns and 30 rows.
fn watch(place: &Place, args: &[&str], steps: &Value) -> Value {
    let mut watch = Command::new(clients::python());
    watch.arg(clients::scripts().join("watch.py")).args(["100", "30"]).arg(steps.to_string());
    watch.arg(env!("CARGO_BIN_EXE_onrecord")).arg("--config").arg(place.gateway.config()).args(args);
    let said = process::run(&mut watch, "").expect_success("watch.py");
    let watched: Value = serde_json::from_str(&said).unwrap();
    let drawn = watched["drawn"].as_str().unwrap();
    for hostile in ["\x1b]", "\x1b[6n", "\x1b[c", "\x07", "\x1bP"] {
        assert!(!drawn.contains(hostile), "{hostile:?} came through: {drawn:?}");
    }
    assert_eq!(watched["restored"], true, "{watched:#}");
    assert!(drawn.trim_end().ends_with("\x1b[?1049l"), "{drawn:?}");
    watched
}

/// What the terminal shows after what was drawn up to this note.
fn screen(watched: &Value, note: usize) -> Vec<String> {
    let mut terminal = avt::Terminal::new(100, 30).unwrap();
    terminal.feed(watched["notes"][note].as_str().unwrap());
    terminal.screen().visible_lines().map(|line| line.text().trim_end().to_owned()).collect()
}

#[test]
fn a_terminal_is_played_in_a_terminal_and_keys_go_back_and_forth() {
    let (place, command) = recorded();
    let steps = json!([
        ["expect", "the end"],
        ["screen"],
        ["send", "p"],
        ["expect", "paused 00:00"],
        ["screen"],
        ["send", "\u{1b}[C"],
        ["expect", "the end"],
        ["screen"],
        ["send", "q"],
    ]);
    let watched = watch(&place, &["replay", id(&command), "--at-once"], &steps);
    assert_eq!(watched["code"], 0, "{watched:#}");
    for note in [0, 2] {
        assert_eq!(screen(&watched, note)[..3], ["one", "two 日", "three"], "{watched:#}");
    }
    assert!(!screen(&watched, 1).concat().contains("two"), "{watched:#}");
    // In its own time, from its session, whose only command it is.
    let session = command["session"].as_str().unwrap();
    let steps = json!([["expect", "one"], ["expect", "three"], ["expect", "the end"], ["send", "\u{3}"]]);
    assert_eq!(watch(&place, &["replay", session], &steps)["code"], 0);
}

#[test]
fn keys_go_from_line_to_line_of_a_real_shell() {
    let place = shells_of(BASH, "", &[PROFILE]);
    let typed = [("at-host$ ", "echo one\r"), ("at-host$ ", "echo two\r"), ("at-host$ ", "exit 3\r")];
    let seen = sit(&place, &typed);
    assert!(seen.ends_with("exit status 3\n"), "{seen}");
    let shell = shell(&place);
    // The line at the bottom names the line of the shell.
    let steps = json!([
        ["expect", "the end"],
        ["send", "p"],
        ["expect", "paused"],
        ["expect", "q]  exit 3"],
        ["send", "p"],
        ["expect", "q]  echo two"],
        ["screen"],
        ["send", "p"],
        ["expect", "q]  echo one"],
        ["screen"],
        ["send", "n"],
        ["expect", "q]  echo two"],
        ["screen"],
        ["send", "nn"],
        ["expect", "the end"],
        ["screen"],
        ["send", "q"],
    ]);
    let watched = watch(&place, &["replay", id(&shell), "--at-once"], &steps);
    assert_eq!(watched["code"], 0, "{watched:#}");
    let shown = |note| screen(&watched, note)[..29].join("\n");
    let has = |note, text: &str| shown(note).contains(text);
    assert!(has(0, "at-host$ echo two") && !has(0, "exit 3"), "{watched:#}");
    assert!(has(1, "at-host$ echo one") && !has(1, "echo two"), "{watched:#}");
    assert_eq!(shown(2), shown(0));
    assert!(has(3, "at-host$ exit 3"), "{watched:#}");
}

#[test]
fn a_player_that_is_ended_gives_the_terminal_back() {
    let (place, command) = recorded();
    for signal in [2, 15, 1] {
        let steps = json!([["expect", "the end"], ["signal", signal]]);
        watch(&place, &["replay", id(&command), "--speed", "100"], &steps);
    }
}

#[test]
fn without_a_terminal_its_text_is_printed() {
    let (place, command) = recorded();
    for what in [id(&command), command["session"].as_str().unwrap()] {
        let said = place.gateway.cli(&["replay", what]).expect_success("replay");
        assert_eq!(said, "one\ntwo 日\nthree\n");
    }
    let listed = place.gateway.cli(&["replay", id(&command), "--output", "json"]).expect_success("replay");
    let listed: Vec<Value> = serde_json::from_str(&listed).unwrap();
    assert_eq!(
        listed.iter().map(|line| line["text"].as_str().unwrap()).collect::<Vec<_>>(),
        ["one", "two 日", "three"]
    );
}

#[test]
fn other_players_read_what_is_written_for_them() {
    let (place, command) = recorded();
    let file = place.path("two.cast").display().to_string();
    let written = place.gateway.cli(&["asciicast", id(&command), "--out", &file]);
    assert!(written.stderr.contains("proves nothing"), "{written:?}");
    written.expect_success("asciicast");
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let mut asciinema = Command::new(clients::python());
    let said = process::run(asciinema.args(["-m", "asciinema", "cat", &file]), "").expect_success("asciinema cat");
    assert_eq!(said, "one \r\nt\u{1b}[31mw\u{1b}[0mo 日\r\nthree\r\n");
    let lines = |version: &str| -> Vec<Value> {
        let said = place.gateway.cli(&["asciicast", id(&command), "--version", version]).expect_success("asciicast");
        said.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    let (two, three) = (lines("2"), lines("3"));
    assert_eq!((&two[0]["version"], &two[0]["title"]), (&json!(2), &command["id"]));
    assert_eq!((&three[0]["version"], &three[0]["title"]), (&json!(3), &command["id"]));
    assert!(three[0]["term"]["cols"].as_u64().unwrap() > 0, "{}", three[0]);
    assert_eq!(three.last().unwrap().as_array().unwrap()[1..], [json!("x"), json!("3")]);
    // The same moments, counted from the beginning and from the event before.
    let moments = |lines: &[Value]| lines[1..].iter().map(|event| event[0].as_f64().unwrap()).collect::<Vec<_>>();
    let summed = moments(&three)
        .iter()
        .scan(0.0, |sum, since| {
            *sum += since;
            Some(*sum)
        })
        .collect::<Vec<_>>();
    assert!(moments(&two).iter().zip(&summed).all(|(at, summed)| (at - summed).abs() < 1e-4), "{two:?} {three:?}");
    let plain = place.ssh(&["echo plain"]);
    assert!(plain.status.success());
    let commands = place.commands();
    let plain = commands.iter().find(|command| command["text"] == "echo plain").unwrap();
    let refused = place.gateway.cli(&["asciicast", id(plain)]);
    assert!(refused.status.code() == Some(5) && refused.stderr.contains("had no terminal"), "{refused:?}");
}

#[test]
fn commands_are_found_by_what_they_wrote() {
    let (place, command) = recorded();
    assert!(place.ssh(&["echo a needle in hay"]).status.success());
    place.commands();
    let search = |text: &str| -> (Vec<String>, Finished) {
        let said = place.gateway.cli(&["commands", "--output", "ndjson", "--wrote", text]);
        let found = said.stdout.lines().map(|line| id(&serde_json::from_str(line).unwrap()).to_owned()).collect();
        (found, said)
    };
    assert_eq!(search("TWO 日").0, [id(&command)]);
    assert_eq!(search("needle in").0.len(), 1);
    for nowhere in ["[31m", "633", "hello", "title", "oneone"] {
        assert!(search(nowhere).0.is_empty(), "{nowhere}");
    }
    let session = command["session"].as_str().unwrap();
    let erased = place.gateway.cli(&["erase", "--session", session, "--reason", "a test"]);
    erased.expect_success("erase");
    let (found, said) = search("two");
    assert!(found.is_empty() && said.stderr.contains("the output of 1 command could not be searched"), "{said:?}");
}
