//! A CancelRequest reaches the backend whose session it names, and no other.

use testkit::Target;
use testkit::clients::await_running;
use testkit::raw::{Raw, cancel_request, kinds, query};

use crate::start;

fn cancel(target: &Target, pid: u32, secret: &[u8]) {
    let mut raw = Raw::connect(target);
    raw.send(&cancel_request(pid, secret));
    // Never answered: the gateway closes when it is done.
    assert!(raw.closed(), "a CancelRequest has no answer");
}

#[test]
fn only_the_session_whose_key_is_shown() {
    let (server, gateway) = start();
    let target = gateway.target();
    let mut first = Raw::login(&target);
    let mut second = Raw::login(&target);
    first.send(&query("select pg_sleep(60), 'first'"));
    second.send(&query("select pg_sleep(60), 'second'"));
    await_running(&server, "pg_sleep(60), 'first'");
    await_running(&server, "pg_sleep(60), 'second'");

    // Keys that are nobody's: a wrong secret, another session's secret, a pid of no session.
    let ((pid, secret), (other_pid, other_secret)) = (first.key(), second.key());
    let mut wrong = secret.clone();
    wrong[0] ^= 1;
    cancel(&target, pid, &wrong);
    cancel(&target, pid, &other_secret);
    cancel(&target, other_pid, &secret);
    cancel(&target, 1, &secret);
    await_running(&server, "pg_sleep(60), 'first'");
    await_running(&server, "pg_sleep(60), 'second'");

    cancel(&target, other_pid, &other_secret);
    let end = second.until_ready(1);
    assert_eq!(kinds(&end), "TEZ", "{end:?}");
    assert_eq!(end.iter().find_map(|m| m.field(b'C')).as_deref(), Some("57014"));
    await_running(&server, "pg_sleep(60), 'first'");
    cancel(&target, pid, &secret);
    assert_eq!(kinds(&first.until_ready(1)), "TEZ");

    assert!(gateway.entries("cancel") > 0, "no entry of a CancelRequest");
    let record = gateway.settled("app");
    for text in ["'first'", "'second'"] {
        let command = record.only(text);
        assert_eq!((command.status(), command.code()), ("cancelled", Some("57014")), "{command:?}");
    }
}

#[test]
fn a_late_one_cancels_nothing() {
    let (_server, gateway) = start();
    let target = gateway.target();
    let mut raw = Raw::login(&target);
    assert_eq!(kinds(&raw.exchange(&query("select 1"), 1)), "TDCZ");
    let (pid, secret) = raw.key();
    cancel(&target, pid, &secret);
    // What is sent afterwards is another command, and runs to its end.
    assert_eq!(kinds(&raw.exchange(&query("select pg_sleep(0.3)"), 1)), "TDCZ");
}

#[test]
fn the_backend_is_named_by_its_own_pid() {
    let (_server, gateway) = start();
    let mut raw = Raw::login(&gateway.target());
    let rows = raw.exchange(&query("select pg_backend_pid()"), 1);
    let row = rows.iter().find(|m| m.kind == b'D').expect("a row");
    let pid: u32 = String::from_utf8_lossy(&row.body[6..]).parse().unwrap();
    assert_eq!(raw.key().0, pid);
}
