//! Break-glass over SSH: what it lifts outlives its end, and is reviewed after that.

use std::fs;
use std::io::Write as _;
use std::process::{Command, Stdio};

use serde_json::json;
use testkit::issuer::Issuer;
use testkit::process::{self, Finished, poll};

use super::place_with;
use crate::approvals::sink;

#[test]
fn a_program_that_outlives_break_glass_is_reviewed_once_it_has_ended() {
    let policy = r#"
version: 1
default: deny
rules:
  - {id: all, when: 'conn.kind == "ssh"', then: allow}
  - {id: trees, when: 'cmd.text.contains("rm -r")', then: require_approval}
"#;
    let (issuer, (url, _posted)) = (Issuer::start(), sink());
    let webhook = tempfile::NamedTempFile::new().unwrap();
    fs::write(webhook.path(), &url).unwrap();
    let others = format!(
        "[notifications]\nwebhook = \"file:{}\"\n[issuers.corp]\nissuer = \"{}\"\naudience = \"onrecord\"\n\
         [[issuers.corp.rules]]\nname = \"people\"\nwhen = 'true'\nidentity = \"human:{{claims.sub}}\"\n",
        webhook.path().display(),
        issuer.url()
    );
    let more = "approvals = { approvers = [\"human:dora\"] }\nbreak_glass = { openers = [\"human:bea\"] }\n";
    let place = place_with(policy, more, &others);
    let glass = |who: &str, args: &[&str]| -> Finished {
        let token = issuer.mint(json!({"aud": "onrecord", "sub": who}));
        let mut command = Command::new(env!("CARGO_BIN_EXE_onrecord"));
        command.env("ONRECORD_GATEWAY", place.gateway.api()).env("ONRECORD_CA", place.gateway.authority().ca());
        process::run(command.env("ONRECORD_TOKEN", &token).arg("break-glass").args(args), "")
    };
    let opened = glass("bea", &["open", "--connection", "web1", "--reason", "the disk is full", "--output", "json"]);
    let opened: serde_json::Value = serde_json::from_str(&opened.expect_success("open")).unwrap();
    let id = opened["id"].as_str().unwrap();

    let tree = place.host.home().join("tree");
    fs::create_dir_all(tree.join("deep")).unwrap();
    let mut ssh = place.client_with("ssh", "person");
    ssh.args(["web1@127.0.0.1", &format!("rm -r {} && cat", tree.display())]);
    let mut running = ssh.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    poll("the command to run", || (!tree.exists()).then_some(()));
    glass("bea", &["close", id]).expect_success("close");

    let early = glass("dora", &["review", id, "--comment", "fine", "--yes"]);
    assert!(early.stderr.contains("not all that was begun under it has ended"), "{}", early.stderr);
    let mut stdin = running.stdin.take().unwrap();
    stdin.write_all(b"hello").unwrap();
    drop(stdin);
    let said = running.wait_with_output().unwrap();
    let told = String::from_utf8(said.stderr).unwrap();
    assert_eq!((said.status.code(), said.stdout.as_slice()), (Some(0), b"hello".as_slice()), "{told}");
    assert!(told.contains(&format!("OnRecord: break-glass {id} is open until")), "{told}");
    let command = place.only();
    assert_eq!((&command["verdict"], &command["status"]), (&json!("allow"), &json!("ok")), "{command:#}");

    let reviewed = glass("dora", &["review", id, "--comment", "fine", "--yes"]);
    for part in ["exec: ok 0, would have been held", "5 bytes in, 5 out, 0 of errors", "rm -r "] {
        assert!(reviewed.stderr.contains(part), "{part} is missing in {}", reviewed.stderr);
    }
    reviewed.expect_success("review");
    place.gateway.verify();
}
