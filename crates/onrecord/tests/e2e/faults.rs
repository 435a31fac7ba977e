//! Processes killed and disks that refuse: the record stays honest, and says what it does not know.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use rustix::process::Signal;
use testkit::clients::await_running;
use testkit::postgres::binary;
use testkit::process::{self, Process, find_program, poll, run};
use testkit::raw::{Raw, kinds, message, query};
use testkit::{Gateway, Postgres};

use crate::{plan, start};

#[test]
fn the_client_is_killed_in_mid_statement() {
    let (server, gateway) = start();
    let mut psql = process::tethered(binary("psql"), "KILL");
    gateway.target().libpq(&mut psql).args(["-XAtqc", "select pg_sleep(60), 'killed client'"]);
    let mut client = Process::start("psql", psql.stdout(Stdio::null()), Signal::KILL);
    await_running(&server, "pg_sleep(60), 'killed client'");
    client.signal(Signal::KILL);
    client.wait();
    let command = gateway.settled("app").only("killed client").clone();
    // What was running is cancelled on the server, and its end is on the record.
    assert_eq!((command.status(), command.code()), ("cancelled", Some("57014")), "{command:?}");
    gateway.verify();
}

#[test]
fn the_gateway_is_killed_in_mid_statement() {
    let (server, mut gateway) = start();
    let mut raw = Raw::login(&gateway.target());
    assert_eq!(kinds(&raw.exchange(&query("select 'before'"), 1)), "TDCZ");
    raw.send(&query("select pg_sleep(60), 'open'"));
    await_running(&server, "pg_sleep(60), 'open'");
    gateway.kill9();
    let gateway = gateway.restart();
    let record = gateway.settled("app");
    assert_eq!(record.only("'before'").status(), "ok");
    let open = record.only("'open'");
    assert_eq!((open.status(), open.str("reason")), ("unknown", Some("gateway_restarted")), "{open:?}");
    let report = gateway.verify();
    assert!(!report.is_empty());
    // And it works again.
    let mut raw = Raw::login(&gateway.target());
    assert_eq!(kinds(&raw.exchange(&query("select 'after'"), 1)), "TDCZ");
    assert_eq!(gateway.settled("app").only("'after'").status(), "ok");
}

/// Killed again and again, at whatever point it has reached, while several clients work. What a client saw answered is
/// on the record, what the server ran is on the record, everything has an outcome, and the record verifies each time.
/// `ONRECORD_KILL_ROUNDS` asks for more rounds.
#[test]
fn the_gateway_is_killed_at_any_point_under_load() {
    let rounds = std::env::var("ONRECORD_KILL_ROUNDS").map_or(20u16, |rounds| rounds.parse().expect("a number"));
    let (server, mut gateway) = start();
    let mut answered = Vec::new();
    for round in 0..rounds {
        let clients: Vec<_> = (0..4).map(|client| (client, Raw::login(&gateway.target()))).collect();
        let working: Vec<_> = clients
            .into_iter()
            .map(|(client, raw)| thread::spawn(move || work_until_killed(raw, &format!("{round}.{client}"))))
            .collect();
        let mut random = [0; 2];
        getrandom::fill(&mut random).unwrap();
        thread::sleep(Duration::from_micros(u64::from(u16::from_be_bytes(random)) * 3));
        gateway.kill9();
        working.into_iter().for_each(|client| answered.extend(client.join().unwrap()));
        gateway = gateway.restart();
        gateway.verify();
    }
    let record = gateway.settled("app");
    let statuses: BTreeMap<&str, &str> = record.commands.iter().map(|c| (c.text(), c.status())).collect();
    assert_eq!(statuses.len(), record.commands.len(), "each text was sent once");
    assert!(statuses.values().all(|status| matches!(*status, "ok" | "unknown")), "{statuses:?}");
    assert!(answered.len() > usize::from(rounds) * 4, "clients were at work: {} answers", answered.len());
    let missing: Vec<_> = answered.iter().filter(|text| !statuses.contains_key(text.as_str())).collect();
    assert!(missing.is_empty(), "answered and not on the record: {missing:?}");
    let ran = server.log().ran("app");
    let missing: Vec<_> = ran.iter().filter(|ran| !statuses.contains_key(ran.text.as_str())).collect();
    assert!(missing.is_empty(), "ran and not on the record: {missing:?}");
}

/// Sends one command after the other until the gateway is gone, and gives those that were answered.
fn work_until_killed(mut raw: Raw, name: &str) -> Vec<String> {
    let mut answered = Vec::new();
    loop {
        let text = format!("select 'client {name} number {}'", answered.len());
        if raw.try_send(&query(&text)).is_err() || kinds(&raw.until_ready(1)) != "TDCZ" {
            return answered;
        }
        answered.push(text);
    }
}

#[test]
fn the_server_is_killed_in_mid_statement() {
    let (mut server, gateway) = start();
    let mut raw = Raw::login(&gateway.target());
    raw.send(&query("select pg_sleep(60), 'lost'"));
    await_running(&server, "pg_sleep(60), 'lost'");
    server.process().signal(Signal::QUIT);
    let end = raw.until_ready(1);
    assert!(!kinds(&end).contains('Z'), "the session is over: {end:?}");
    let lost = gateway.settled("app").only("'lost'").clone();
    assert_eq!((lost.status(), lost.str("reason")), ("unknown", Some("upstream_gone")), "{lost:?}");
    server.process().wait();
    let refusal = Raw::connect(&gateway.target()).authenticate(&gateway.target(), 0x0003_0000, &[]);
    assert!(refusal.expect_err("no server").field(b'M').is_some());
    gateway.verify();
}

#[test]
fn a_backend_is_terminated_in_mid_statement() {
    let (server, gateway) = start();
    let mut raw = Raw::login(&gateway.target());
    let (pid, _) = raw.key();
    raw.send(&query("select pg_sleep(60), 'terminated'"));
    await_running(&server, "pg_sleep(60), 'terminated'");
    server.sql_in("template1", &format!("select pg_terminate_backend({pid})"));
    let end = raw.until_ready(1);
    let fatal = end.iter().find(|m| m.kind == b'E').expect("the server's own last words");
    assert_eq!(fatal.field(b'C').as_deref(), Some("57P01"));
    let command = gateway.settled("app").only("'terminated'").clone();
    assert_eq!(command.code(), Some("57P01"), "{command:?}");
}

/// A flush of the disk fails: nothing more goes to the server, and clients are told why.
#[test]
fn a_flush_fails() {
    let (server, gateway) = start();
    let mut raw = Raw::login(&gateway.target());
    assert_eq!(kinds(&raw.exchange(&query("select 'before'"), 1)), "TDCZ");
    let Some(strace) = inject(&gateway, "fdatasync,fsync:error=EIO") else {
        return;
    };
    let refusal = raw.exchange(&query("select 'after the flush failed'"), 1);
    assert_refused(&refusal);
    // One strike: nothing is accepted any more, until the log was read and checked as at a restart.
    let mut later = Raw::connect(&gateway.target());
    if later.authenticate(&gateway.target(), 0x0003_0000, &[]).is_ok() {
        assert_refused(&later.exchange(&query("select 'after the flush failed'"), 1));
    }
    drop(strace);
    assert_never_ran(&server, "after the flush failed");
    comes_back(&gateway);
    recovers(gateway);
}

/// The data directory is gone, as when its file system is unmounted: commands are refused within the time in which a
/// checkpoint would have been written, and run again once it is back.
#[test]
fn the_data_directory_vanishes() {
    let (server, gateway) = start();
    let mut raw = Raw::login(&gateway.target());
    assert_eq!(kinds(&raw.exchange(&query("select 'before'"), 1)), "TDCZ");
    let away = gateway.data().with_extension("away");
    fs::rename(gateway.data(), &away).unwrap();
    let mut number = 0;
    let refusal = poll("a refusal", || {
        number += 1;
        let answer = raw.exchange(&query(&format!("select 'away {number}'")), 1);
        (kinds(&answer) != "TDCZ").then_some(answer)
    });
    assert_refused(&refusal);
    assert_never_ran(&server, &format!("'away {number}'"));
    fs::rename(&away, gateway.data()).unwrap();
    comes_back(&gateway);
    // What ran in between went to the very files that are back.
    let record = gateway.settled("app");
    (1..number).for_each(|n| _ = record.only(&format!("'away {n}'")));
    recovers(gateway);
}

/// The file system of the record turns read-only, as Linux does when it finds an error in it.
#[test]
fn the_file_system_turns_read_only() {
    let (server, gateway) = start();
    let mut raw = Raw::login(&gateway.target());
    assert_eq!(kinds(&raw.exchange(&query("select 'before'"), 1)), "TDCZ");
    let calls = "pwrite64,pwritev,pwritev2,rename,renameat,renameat2,unlink,unlinkat,mkdir,mkdirat:error=EROFS";
    let Some(strace) = inject(&gateway, calls) else {
        return;
    };
    assert_refused(&raw.exchange(&query("select 'read-only'"), 1));
    poll("a try to come back, in vain", || gateway.stderr().contains("still not recording").then_some(()));
    drop(strace);
    assert_never_ran(&server, "read-only");
    comes_back(&gateway);
    recovers(gateway);
}

/// What the client must not learn before it is on the record, it does not learn when the flush fails either.
#[test]
fn a_flush_fails_under_a_held_response() {
    for durability in ["held", "both"] {
        let server = Postgres::start();
        let gateway = plan().durability(durability).start(&server);
        let mut raw = Raw::login(&gateway.target());
        assert_eq!(kinds(&raw.exchange(&query("select 'before'"), 1)), "TDCZ");
        let Some(strace) = inject(&gateway, "fdatasync,fsync:error=EIO") else {
            return;
        };
        let answer = raw.exchange(&query("select 'never seen'"), 1);
        assert!(!kinds(&answer).contains('C') && !kinds(&answer).contains('Z'), "{durability}: {answer:?}");
        assert!(!kinds(&answer).contains('D'), "{durability}: {answer:?}");
        let error = answer.iter().find(|m| m.kind == b'E').unwrap_or_else(|| panic!("{durability}: no reason"));
        assert_eq!(error.field(b'C').as_deref(), Some("58030"));
        drop(strace);
        recovers(gateway);
    }
}

/// With `both`, the end of a response does not leave when its outcome cannot be recorded, even though its intent was.
#[test]
fn an_outcome_cannot_be_recorded() {
    let server = Postgres::start();
    let mut gateway = plan().durability("both").start(&server);
    let mut raw = Raw::login(&gateway.target());
    raw.send(&query("select pg_sleep(1), 'long enough'"));
    await_running(&server, "'long enough'");
    let Some(strace) = inject(&gateway, "fdatasync,fsync:error=EIO") else {
        return;
    };
    // Whatever is recorded next fails, here the start of another session.
    let another = Raw::connect(&gateway.target()).authenticate(&gateway.target(), 0x0003_0000, &[]);
    another.expect_err("no record, no session");
    let answer = raw.until_ready(1);
    assert!(!kinds(&answer).contains('Z'), "{answer:?}");
    drop(strace);
    gateway.kill9();
    let gateway = gateway.restart();
    assert_eq!(gateway.settled("app").only("'long enough'").status(), "unknown");
    gateway.verify();
}

/// A command and a goodbye in one segment, and then the flush fails: the session ends, and so does the gateway.
#[test]
fn a_flush_fails_after_a_goodbye() {
    let (server, mut gateway) = start();
    let mut raw = Raw::login(&gateway.target());
    assert_eq!(kinds(&raw.exchange(&query("select 'before'"), 1)), "TDCZ");
    let Some(strace) = inject(&gateway, "fdatasync,fsync:error=EIO") else {
        return;
    };
    raw.send(&[query("select 'not any more'"), message(b'X', b"")].concat());
    assert!(!kinds(&raw.until_ready(1)).contains('D'));
    drop(strace);
    assert_never_ran(&server, "not any more");
    gateway.process().signal(Signal::TERM);
    gateway.process().wait();
}

/// A client says goodbye behind a statement that takes for ever: a stop does not wait for it.
#[test]
fn a_stop_cuts_short_what_runs_after_a_goodbye() {
    let (server, mut gateway) = start();
    let mut raw = Raw::login(&gateway.target());
    raw.send(&[query("select pg_sleep(600), 'long'"), message(b'X', b"")].concat());
    await_running(&server, "pg_sleep(600), 'long'");
    drop(raw);
    gateway.stop();
    let gateway = gateway.restart();
    assert_eq!(gateway.settled("app").only("'long'").status(), "cancelled");
    gateway.verify();
}

/// A client resets its connection with the end of a result unread: the outcome is still the server's own.
#[test]
fn a_client_resets_its_connection_with_a_result_unread() {
    let (_server, gateway) = start();
    let mut raw = Raw::login(&gateway.target());
    raw.send(&query("select repeat('x', 1000) from generate_series(1, 20000) -- reset"));
    // Something is there and is never read: closing now resets.
    raw.stream().peek(&mut [0]).unwrap();
    drop(raw);
    let command = gateway.settled("app").only("-- reset").clone();
    assert!(matches!(command.status(), "ok" | "cancelled"), "{command:?}");
    gateway.verify();
}

/// A write fails.
#[test]
fn a_write_fails() {
    let (server, gateway) = start();
    let mut raw = Raw::login(&gateway.target());
    assert_eq!(kinds(&raw.exchange(&query("select 'before'"), 1)), "TDCZ");
    let Some(strace) = inject(&gateway, "pwrite64,pwritev,pwritev2:error=ENOSPC") else {
        return;
    };
    assert_refused(&raw.exchange(&query("select 'after the write failed'"), 1));
    drop(strace);
    assert_never_ran(&server, "after the write failed");
    recovers(gateway);
}

/// The file system of the record fills up for real.
#[test]
fn the_disk_is_full() {
    if !rustix::process::geteuid().is_root() {
        return skip("a small file system is mounted by root only");
    }
    let server = Postgres::start();
    let mount = Mount::new(320);
    let mut gateway = plan().data(&mount.dir.path().join("data")).start(&server);
    let mut raw = Raw::login(&gateway.target());
    assert_eq!(kinds(&raw.exchange(&query("select 'before'"), 1)), "TDCZ");
    fs::write(mount.dir.path().join("filler"), vec![1u8; 320 << 20]).expect_err("a full disk");
    // Texts of this size fill the space that is reserved ahead in the end.
    let mut answered = 0;
    let refusal = loop {
        let text = format!("select {answered}, length('{}')", noise(4 << 20));
        let answer = raw.exchange(&query(&text), 1);
        if kinds(&answer) != "TDCZ" {
            break answer;
        }
        answered += 1;
        assert!(answered < 200, "the disk never became full");
    };
    assert_refused(&refusal);
    assert_never_ran(&server, &format!("select {answered}, length"));
    drop(raw);
    gateway.kill9();
    fs::remove_file(mount.dir.path().join("filler")).unwrap();
    let gateway = gateway.restart();
    let held = gateway.settled("app").texts().iter().filter(|t| t.contains("length")).count();
    assert!(held >= answered, "{held} of {answered} commands are on the record");
    gateway.verify();
    recovers(gateway);
}

/// The room that is reserved ahead is used up, and no more can be had: new commands are refused while there is still
/// space for the ends of those that run. With space, the gateway goes on by itself.
#[test]
fn the_reserve_is_used_up() {
    if !rustix::process::geteuid().is_root() {
        return skip("a small file system is mounted by root only");
    }
    let server = Postgres::start();
    // Two segments, their content once more in tiles, and what must be free before the gateway goes on.
    let mount = Mount::new(600);
    let gateway = plan().data(&mount.dir.path().join("data")).start(&server);
    let mut running = Raw::login(&gateway.target());
    running.send(&query("select pg_sleep(600), 'long'"));
    await_running(&server, "'long'");
    let filler = mount.dir.path().join("filler");
    fs::write(&filler, vec![1u8; 600 << 20]).expect_err("a full disk");
    let mut raw = Raw::login(&gateway.target());
    let mut answered = 0;
    // Each is short enough to stand in its entry.
    let refusal = loop {
        let text = format!("select {answered}, length('{}')", noise(15_000));
        let answer = raw.exchange(&query(&text), 1);
        if kinds(&answer) != "TDCZ" {
            break answer;
        }
        answered += 1;
        assert!(answered < 20_000, "the reserve was never used up");
    };
    assert_refused(&refusal);
    server
        .sql_in("template1", "select pg_cancel_backend(pid) from pg_stat_activity where query like 'select pg_sleep%'");
    assert!(kinds(&running.until_ready(1)).contains('E'));
    let record = gateway.settled("app");
    assert_eq!(record.only("'long'").status(), "cancelled", "its outcome still finds room");
    assert_eq!(record.texts().iter().filter(|t| t.contains("length")).count(), answered);
    fs::remove_file(filler).unwrap();
    comes_back(&gateway);
}

/// Text that packing makes hardly smaller.
fn noise(length: usize) -> String {
    let mut state = 7u64;
    let letter = |_| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        char::from(
            b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+-"
                [usize::from(state.to_be_bytes()[0] >> 2)],
        )
    };
    (0..length).map(letter).collect()
}

#[track_caller]
fn assert_refused(answer: &[testkit::raw::Message]) {
    let error = answer.iter().find(|m| m.kind == b'E').unwrap_or_else(|| panic!("{answer:?}"));
    assert!(!answer.iter().any(|m| m.kind == b'D'), "rows after a refusal: {answer:?}");
    let code = error.field(b'C').unwrap();
    assert!(matches!(code.as_str(), "58030" | "53100"), "{error:?}");
    assert!(error.field(b'M').unwrap().contains("record"), "says why: {error:?}");
}

#[track_caller]
fn assert_never_ran(server: &Postgres, part: &str) {
    let ran = server.log().ran("app");
    assert!(!ran.iter().any(|r| r.text.contains(part)), "`{part}` reached the server");
}

/// Without a restart, commands run and are recorded again, at the same address, and the record verifies.
#[track_caller]
fn comes_back(gateway: &Gateway) {
    poll("the gateway to come back", || (gateway.stderr().matches("onrecord: ready").count() > 1).then_some(()));
    let mut raw = Raw::login(&gateway.target());
    assert_eq!(kinds(&raw.exchange(&query("select 'back again'"), 1)), "TDCZ");
    assert_eq!(gateway.settled("app").only("'back again'").status(), "ok");
    gateway.verify();
}

/// After a restart commands run and are recorded, and the record verifies.
#[track_caller]
fn recovers(mut gateway: Gateway) {
    gateway.kill9();
    let again = gateway.restart();
    let mut raw = Raw::login(&again.target());
    assert_eq!(kinds(&raw.exchange(&query("select 'recovered'"), 1)), "TDCZ");
    assert_eq!(again.settled("app").only("'recovered'").status(), "ok");
    again.verify();
}

/// Makes system calls of a running gateway fail until the returned process ends.
fn inject(gateway: &Gateway, fault: &str) -> Option<Process> {
    let Some(strace) = find_program("strace") else {
        skip("strace is not installed");
        return None;
    };
    let calls = fault.split(':').next().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let said = dir.path().join("said");
    let mut command = process::tethered(strace, "TERM");
    command.args(["-f", "-o", "/dev/null", "-e", &format!("trace={calls}")]);
    command.args(["-e", &format!("inject={fault}"), "-p", &gateway.id().to_string()]);
    command.stderr(fs::File::create(&said).unwrap());
    let mut strace = Process::start("strace", &mut command, Signal::TERM);
    let attached = poll("strace to attach", || {
        let text = fs::read_to_string(&said).unwrap();
        if text.contains("attached") {
            return Some(true);
        }
        strace.ended().map(|_| false)
    });
    if attached {
        return Some(strace);
    }
    skip(&format!("strace may not attach here: {}", fs::read_to_string(&said).unwrap()));
    None
}

/// Says why a test did not run; where everything must run, that is a failure.
#[track_caller]
fn skip(why: &str) {
    assert!(std::env::var_os("CI").is_none(), "must not be skipped here: {why}");
    eprintln!("SKIPPED: {why}");
}

/// A small file system in memory, unmounted on drop.
struct Mount {
    dir: tempfile::TempDir,
}

impl Mount {
    fn new(mebibytes: u32) -> Mount {
        let dir = tempfile::tempdir().unwrap();
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &format!("size={mebibytes}m"), "onrecord-test"]);
        run(mount.arg(dir.path()), "").expect_success("mount");
        Mount { dir }
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        unmount(self.dir.path());
    }
}

fn unmount(dir: &Path) {
    let _ = Command::new("umount").arg("--lazy").arg(dir).status();
}
