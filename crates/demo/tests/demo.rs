//! The demo from end to end: the real binary, a real PostgreSQL, a record that verifies, and one that does not.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

struct Place(tempfile::TempDir);

impl Place {
    fn demo(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_demo"));
        command.args(arguments).env("XDG_DATA_HOME", self.0.path()).env_remove("COLUMNS");
        command
    }

    fn run(&self, arguments: &[&str]) -> (i32, String, String) {
        let Output { status, stdout, stderr } = self.demo(arguments).output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (status.code().unwrap(), text(stdout), text(stderr))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // Root's server keeps its data elsewhere.
        let _ = self.demo(&["--reset"]).output();
    }
}

#[test]
fn what_the_agents_did_is_on_the_record_and_a_changed_byte_is_named() {
    let place = Place(tempfile::tempdir().unwrap());
    let (code, out, err) = place.run(&["--script"]);
    assert_eq!(code, 0, "{out}\n{err}");
    for said in [
        "agent:claude-code",
        "agent:copilot-agent",
        "error 42703",
        "error 23503",
        "integrity     ok",
        "completeness  ok",
        "evidence.zip: 13 commands and their proof",
    ] {
        assert!(out.contains(said), "{said}:\n{out}");
    }

    let (code, out, err) = place.run(&["--script", "--json"]);
    assert_eq!(code, 0, "{out}\n{err}");
    let events: Vec<Value> = out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let commands: Vec<&Value> = events.iter().filter(|event| event.get("via").is_some()).collect();
    let of = |user: &str| commands.iter().filter(|command| command["identity"] == user).count();
    assert_eq!((of("agent:claude-code"), of("agent:copilot-agent")), (6, 7), "{out}");
    assert!(commands.iter().all(|command| command["text"].is_string() && command["status"] != "pending"));
    let prepared: Vec<_> = commands
        .iter()
        .filter(|command| command["text"].as_str().unwrap().starts_with("select name"))
        .map(|command| command["parameters"][0]["value"].clone())
        .collect();
    assert_eq!(prepared, ["1", "2", "3"]);
    let evidence = events.iter().find(|event| event["event"] == "evidence").unwrap();
    assert_eq!(evidence["commands"], 13, "what this run did, and not the one before");
    // Two runs of 14 commands, two of which fail.
    assert_eq!(events.iter().find_map(|event| event.get("completeness")).unwrap()["outcomes"]["ok"], 24, "{out}");

    let (code, out, err) = place.run(&["tamper"]);
    assert_eq!(code, 0, "{out}\n{err}");
    assert!(out.contains("integrity     VIOLATED"), "{out}");
    assert!(out.contains("entry ") && out.contains("command "), "{out}");

    let (code, out, err) = place.run(&["--script"]);
    assert_eq!(code, 0, "{out}\n{err}");
    assert!(out.contains("does not verify; it is set aside"), "{out}");
}

#[test]
fn it_stays_up_for_a_client_and_stops_what_it_started() {
    let place = Place(tempfile::tempdir().unwrap());
    let mut child = place.demo(&["--json"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut events = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
    let mut server = None;
    let mut lines = Vec::new();
    for line in events.by_ref() {
        let event: Value = serde_json::from_str(&line).unwrap();
        match event["event"].as_str() {
            Some("PostgreSQL") => server = event["port"].as_u64(),
            Some("try") => lines.push(event["line"].as_str().unwrap().to_owned()),
            Some("note") if event["text"].as_str().unwrap().starts_with("Ctrl-C") => break,
            _ => {}
        }
    }
    let keys = place.0.path().join("onrecord/demo/claude-code.pgpass");
    assert_eq!(std::fs::metadata(&keys).unwrap().permissions().mode() & 0o777, 0o600);
    // What it proposes for verifying needs no other program than this one.
    let verifying: Vec<_> = lines.iter().filter(|line| line.contains(" verify")).collect();
    assert_eq!(verifying.len(), 2, "{lines:?}");
    for line in verifying {
        let (_, words) = line.split_once(" -p demo -- ").unwrap();
        let mut shell = Command::new("sh");
        let said = shell.args(["-c", &format!("{} {words}", env!("CARGO_BIN_EXE_demo"))]).output().unwrap();
        let text = String::from_utf8_lossy(&said.stdout);
        assert!(said.status.success() && text.contains("integrity     ok"), "{line}: {said:?}");
    }
    if let Some(psql) = lines.iter().find(|line| line.contains("psql")) {
        let mut shell = Command::new("sh");
        shell.args(["-c", &format!("{psql} -Atc 'select 40 + 2'")]);
        let output = shell.output().unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stdout), "42\n", "{psql}: {output:?}");
    }
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    let asked = Instant::now();
    let status = child.wait().unwrap();
    assert!(status.success(), "{status}");
    assert!(asked.elapsed() < Duration::from_secs(20));
    let port = u16::try_from(server.unwrap()).unwrap();
    assert!(std::net::TcpStream::connect(("127.0.0.1", port)).is_err(), "PostgreSQL was left behind");
}
