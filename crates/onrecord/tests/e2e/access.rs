//! Who is let in, and for how long: lock-outs, changes of the configuration under live sessions, credentials in several
//! places, guesses.

use std::fs;
use std::process::Stdio;
use std::time::{Duration, Instant};

use testkit::process::{poll, tethered};
use testkit::raw::{Raw, query};
use testkit::{Gateway, Target, scram};

use crate::{plan, start};

/// The agent that the test kit's gateway lets in beside the usual one.
fn owner(gateway: &Gateway) -> Target {
    Target { user: "app_owner".into(), ..gateway.target() }
}

#[track_caller]
fn refused(target: &Target) -> testkit::raw::Message {
    Raw::connect(target).authenticate(target, 0x0003_0000, &[]).expect_err("a refusal")
}

/// The SQLSTATE that ends a session without its asking, and how long that took.
fn ended(session: &mut Raw) -> (String, Duration) {
    let began = Instant::now();
    let last = session.read().expect("the reason of the end");
    (last.field(b'C').unwrap_or_default(), began.elapsed())
}

/// Changes the configuration, and waits until it is in force or refused.
#[track_caller]
fn reconfigure(gateway: &Gateway, change: impl FnOnce(String) -> String) -> String {
    let said = |gateway: &Gateway| gateway.stderr().matches("onrecord: the configuration").count();
    let before = said(gateway);
    let text = change(fs::read_to_string(gateway.config()).unwrap());
    // As editors do: a whole file in the place of another.
    let beside = gateway.config().with_extension("new");
    fs::write(&beside, text).unwrap();
    fs::rename(beside, gateway.config()).unwrap();
    poll("what becomes of the configuration", || (said(gateway) > before).then(|| gateway.stderr()))
}

#[test]
fn a_revoked_identity_loses_its_sessions_at_once_and_gets_none() {
    let (_server, gateway) = start();
    let mut idle = Raw::login(&gateway.target());
    let mut busy = Raw::login(&gateway.target());
    busy.send(&query("select pg_sleep(60)"));
    let mut other = Raw::login(&owner(&gateway));
    let said = gateway.cli(&["identities", "revoke", "agent:copilot-agent", "--reason", "key leaked"]);
    assert!(said.expect_success("revoke").contains("2 sessions ended"));
    for session in [&mut idle, &mut busy] {
        let (code, took) = ended(session);
        assert_eq!(code, "57P01");
        assert!(took < Duration::from_secs(5), "{took:?}");
    }
    assert_eq!(refused(&gateway.target()).field(b'C').as_deref(), Some("28000"));
    other.exchange(&query("select 1"), 1);

    let listed = gateway.cli(&["identities", "list"]).expect_success("list");
    assert!(listed.contains("locked out: key leaked"), "{listed}");
    let again = gateway.cli(&["identities", "revoke", "agent:copilot-agent", "--reason", "again"]);
    assert!(again.stderr.contains("locked out already"), "{}", again.stderr);
    let sleeping = gateway.settled("app");
    let sleeping = sleeping.commands.iter().find(|c| c.text().contains("pg_sleep")).unwrap();
    assert!(["cancelled", "unknown"].contains(&sleeping.status()), "{}", sleeping.status());

    // It stays so over a restart, and until someone lets it in again.
    let mut gateway = gateway;
    gateway.stop();
    let gateway = gateway.restart();
    assert_eq!(refused(&gateway.target()).field(b'C').as_deref(), Some("28000"));
    gateway.cli(&["identities", "restore", "agent:copilot-agent", "--reason", "new key"]).expect_success("restore");
    Raw::login(&gateway.target());
    assert_eq!(gateway.entries("revocation"), 2);
    gateway.verify();
}

#[test]
fn a_session_that_is_killed_ends_at_once_and_others_go_on() {
    let (_server, gateway) = start();
    let mut busy = Raw::login(&gateway.target());
    let mut other = Raw::login(&gateway.target());
    busy.exchange(&query("select 1"), 1);
    busy.send(&query("select pg_sleep(60)"));
    let sleeping = poll("the statement", || {
        let record = gateway.record();
        record.commands.into_iter().find(|c| c.text().contains("pg_sleep"))
    });
    let session = sleeping.str("session").unwrap().to_owned();

    // Somebody follows the session from here on, until it ends.
    let mut follow = tethered(env!("CARGO_BIN_EXE_onrecord"), "TERM");
    follow.args(["watch", &session, "--output", "ndjson", "--config"]).arg(gateway.config());
    let follow = follow.stdout(Stdio::piped()).spawn().unwrap();
    poll("somebody follows it", || (gateway.entries("oversight") == 1).then_some(()));
    let killed = gateway.cli(&["kill", &session, "--reason", "it sleeps"]);
    killed.expect_success("onrecord kill");
    let (code, took) = ended(&mut busy);
    assert_eq!(code, "57P01");
    assert!(took < Duration::from_secs(5), "{took:?}");
    other.exchange(&query("select 2"), 1);
    let followed = follow.wait_with_output().unwrap();
    assert!(followed.status.success());
    let followed = String::from_utf8(followed.stdout).unwrap();
    let told: Vec<_> = followed.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()).collect();
    let told: Vec<_> = told.iter().map(|c| [c["text"].as_str().unwrap(), c["status"].as_str().unwrap()]).collect();
    assert_eq!(told[..2], [["select 1", "ok"], ["select pg_sleep(60)", "pending"]]);
    assert!(told.len() == 3 && ["cancelled", "unknown"].contains(&told[2][1]), "{told:?}");
    let shown = gateway.cli(&["show", &session]).expect_success("onrecord show");
    assert!(shown.contains("killed") && shown.contains("it sleeps"), "{shown}");
    let nobody = gateway.cli(&["kill", &session, "--reason", "again"]);
    assert_eq!(nobody.status.code(), Some(5), "{nobody:?}");
    gateway.verify();
}

#[test]
fn a_change_of_the_configuration_is_in_force_without_a_restart() {
    let (_server, gateway) = start();
    let mut stays = Raw::login(&gateway.target());
    let mut goes = Raw::login(&owner(&gateway));
    let key = "onr_ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789abcd";
    let said = reconfigure(&gateway, |text| {
        let new = format!(
            "\n[identities.new-agent]\nkind = \"agent\"\ngroups = [\"fresh\"]\nsecret = \"{}\"\n",
            scram::secret(key)
        );
        let text = text.replace(", \"agent:app_owner\"]", "]").replace("groups = []", "groups = [\"fresh\"]");
        text + &new
    });
    assert!(said.contains("1 session that is no longer permitted ended"), "{said}");
    assert_eq!(ended(&mut goes).0, "57P01");
    stays.exchange(&query("select 1"), 1);
    let new = Target { user: "new-agent".into(), password: key.into(), ..gateway.target() };
    Raw::login(&new);
    assert_eq!(refused(&owner(&gateway)).field(b'C').as_deref(), Some("3D000"));

    // One that cannot be is refused, in words, and what was in force still is.
    let said = reconfigure(&gateway, |text| text.replace("kind = \"agent\"", "kind = \"robot\""));
    assert!(said.contains("the configuration was refused"), "{said}");
    stays.exchange(&query("select 1"), 1);
    let said = reconfigure(&gateway, |text| {
        text.replace("kind = \"robot\"", "kind = \"agent\"").replace("127.0.0.1:0", "127.0.0.1:1")
    });
    assert!(said.contains("listen cannot change while the gateway runs"), "{said}");
    Raw::login(&new);
    assert_eq!(gateway.entries("configuration"), 3);
    gateway.verify();
}

#[test]
fn a_signal_reads_secrets_again() {
    let (_server, mut gateway) = start();
    let before = gateway.entries("configuration");
    gateway.process().signal(rustix::process::Signal::HUP);
    poll("an entry", || (gateway.entries("configuration") > before).then_some(()));
    Raw::login(&gateway.target());
}

#[test]
fn a_credential_in_two_places_is_seen() {
    let (_server, gateway) = start();
    let here = gateway.target();
    let _one = Raw::login(&here);
    // Another address of this machine: every one of 127.0.0.0/8 is.
    let _two = Raw::login_from("127.0.0.2", &here);
    assert_eq!(gateway.entries("shared"), 1);
    let listed = gateway.cli(&["identities", "list"]).expect_success("list");
    assert!(listed.contains("one credential in use from 127.0.0.1, 127.0.0.2"), "{listed}");
}

#[test]
fn guesses_are_slowed_and_others_are_not() {
    let server = testkit::Postgres::start();
    let gateway = plan().limits("failed_logins_per_minute_max = 5").start(&server);
    let wrong = Target { password: "wrong".into(), ..gateway.target() };
    let codes: Vec<_> = (0..8).map(|_| refused(&wrong).field(b'C').unwrap()).collect();
    assert_eq!(codes[..5], ["28P01"; 5]);
    assert_eq!(codes[7], "53300");
    assert_eq!(refused(&gateway.target()).field(b'C').as_deref(), Some("53300"), "from there, nobody");
    Raw::login_from("127.0.0.2", &gateway.target());
}
