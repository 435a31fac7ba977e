//! What is answered to a pipeline, and what the record says of each command in it. The answers are
//! the server's own: every case runs directly too, and both must look the same.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use testkit::raw::{Raw, bind, copy_data, copy_done, execute, kinds, parse, query, sync};
use testkit::{Gateway, Postgres};

use crate::start;

/// Sends `bytes` at once, directly and through the gateway; the kinds of the answers must be equal
/// and the record must hold `commands` (text, status, SQLSTATE).
#[track_caller]
fn same(bytes: &[u8], ready: usize, commands: &[(&str, &str, &str)]) {
    let (server, gateway) = start();
    let answer = both_ways(&server, &gateway, bytes, ready);
    assert_eq!(answer.0, answer.1, "direct, and through the gateway");
    recorded(&gateway, commands);
    gateway.verify();
}

fn both_ways(server: &Postgres, gateway: &Gateway, bytes: &[u8], ready: usize) -> (String, String) {
    let set_up = "create table numbers (n int4 primary key); \
                  create table later (n int4 references numbers deferrable initially deferred)";
    let kinds_at = |target| {
        let mut raw = Raw::login(&target);
        let answer = kinds(&raw.exchange(bytes, ready));
        // Nothing may be left over: the next answer is the next command's.
        assert_eq!(kinds(&raw.exchange(&query("select 'end'"), 1)), "TDCZ", "after {answer}");
        answer
    };
    for database in ["direct", "through"] {
        server.create_database(database);
        server.sql_in(database, set_up);
    }
    let direct = kinds_at(server.target().with_database("direct"));
    (direct, kinds_at(gateway.target().with_database("app/through")))
}

#[track_caller]
fn recorded(gateway: &Gateway, commands: &[(&str, &str, &str)]) {
    let record = gateway.settled("through");
    let held: Vec<_> = record
        .commands
        .iter()
        .map(|c| (c.text(), c.status(), c.code().unwrap_or("")))
        .filter(|(text, ..)| *text != "select 'end'")
        .collect();
    assert_eq!(held, commands);
}

/// Parse, Bind and Execute of an unnamed statement.
fn run(text: &str) -> Vec<u8> {
    [parse("", text), bind("", "", &[]), execute("", 0)].concat()
}

#[test]
fn an_error_skips_all_until_sync_even_a_query() {
    let bytes = [run("select * from missing"), query("select 1"), run("select 2"), sync(), query("select 3")];
    same(
        &bytes.concat(),
        2,
        &[
            ("select * from missing", "error", "42P01"),
            ("select 1", "skipped", ""),
            ("select 2", "skipped", ""),
            ("select 3", "ok", ""),
        ],
    );
}

#[test]
fn an_error_in_a_query_skips_nothing() {
    let bytes = [query("select 1 / 0"), run("select 1"), sync(), query("select 2")];
    let commands = [("select 1 / 0", "error", "22012"), ("select 1", "ok", ""), ("select 2", "ok", "")];
    same(&bytes.concat(), 3, &commands);
}

#[test]
fn statements_of_one_query_end_at_the_first_error() {
    let text = "insert into numbers values (1); select 1 / 0; select 3";
    same(&query(text), 1, &[(text, "error", "22012")]);
}

#[test]
fn a_constraint_that_fails_at_sync() {
    let text = "insert into later values (7)";
    let bytes = [run(text), sync(), query("select count(*) from later")].concat();
    let (server, gateway) = start();
    let answer = both_ways(&server, &gateway, &bytes, 2);
    assert_eq!(answer.0, answer.1);
    let id = gateway.settled("through").only(text).str("id").unwrap().to_owned();
    let shown = gateway.cli(&["show", &id, "--output", "json"]).expect_success("show");
    // The server said INSERT 0 1 and then took it back.
    assert!(shown.contains("rolled_back"), "{shown}");
}

#[test]
fn copy_from_stdout_reads_from_the_client() {
    // The server's grammar takes one word for the other.
    let text = "copy numbers from stdout";
    let bytes = [query(text), copy_data(b"1\n"), copy_done()].concat();
    same(&bytes, 1, &[(text, "ok", "")]);
}

#[test]
fn copy_in_by_the_extended_protocol() {
    let copy = "copy numbers from stdin";
    let good = [run(copy), sync(), copy_data(b"1\n"), copy_done(), sync()].concat();
    same(&good, 1, &[(copy, "ok", "")]);
    let bad = [run(copy), sync(), copy_data(b"x\n"), copy_done(), sync(), query("select 1")];
    same(&bad.concat(), 2, &[(copy, "error", "22P02"), ("select 1", "ok", "")]);
}

#[test]
fn copy_of_no_table() {
    let copy = "copy missing from stdin";
    let bytes = [run(copy), sync(), copy_data(b"1\n"), copy_done(), sync(), query("select 1")];
    same(&bytes.concat(), 3, &[(copy, "error", "42P01"), ("select 1", "ok", "")]);
}

#[test]
fn copy_within_several_statements() {
    let text = "select 0; copy numbers from stdin; select 9";
    let bytes = [query(text), copy_data(b"1\n"), copy_done()].concat();
    same(&bytes, 1, &[(text, "ok", "")]);
}

#[test]
fn a_portal_read_in_pieces_is_one_command() {
    let text = "select * from generate_series(1, 3)";
    let bytes = [parse("", text), bind("", "", &[]), execute("", 1), execute("", 1), execute("", 0), sync()];
    let (server, gateway) = start();
    let answer = both_ways(&server, &gateway, &bytes.concat(), 1);
    assert_eq!(answer, ("12DsDsDCZ".to_owned(), "12DsDsDCZ".to_owned()));
    assert_eq!(gateway.settled("through").only("generate_series").rows(), Some(3));
}

#[test]
fn text_with_a_nul_never_runs() {
    let nul = testkit::raw::message(b'Q', b"select 1\0; drop table numbers\0");
    let (server, gateway) = start();
    server.create_database("through");
    server.sql_in("through", "create table numbers (n int4)");
    let mut raw = Raw::login(&gateway.target().with_database("app/through"));
    raw.send(&nul);
    let answer = raw.until_ready(1);
    assert_eq!(answer.first().and_then(|m| m.field(b'C')).as_deref(), Some("08P01"), "{answer:?}");
    drop(raw);
    assert_eq!(server.sql_in("through", "select count(*) from numbers"), "0");
}

#[test]
fn a_byte_at_a_time() {
    let (_server, gateway) = start();
    let mut raw = Raw::login(&gateway.target());
    let bytes = [run("select 1"), sync(), query("select 2")].concat();
    raw.send_bytewise(&bytes);
    assert_eq!(kinds(&raw.until_ready(2)), "12DCZTDCZ");
}

/// The client sends 200 statements with big parameters and reads nothing of their big results until
/// it can send no more: every buffer on the way is full in both directions.
#[test]
fn both_directions_full() {
    let (_server, gateway) = start();
    let raw = Raw::login(&gateway.target());
    let mut writer = raw.stream().try_clone().unwrap();
    let mut reader = raw;
    let parameter = "p".repeat(512 * 1024);
    let one =
        [parse("", "select $1, repeat('r', 256 * 1024)"), bind("", "", &[&parameter]), execute("", 0), sync()].concat();
    let sent = Arc::new(AtomicUsize::new(0));
    let progress = Arc::clone(&sent);
    let sender = thread::spawn(move || {
        for _ in 0..200 {
            std::io::Write::write_all(&mut writer, &one).unwrap();
            progress.fetch_add(1, Ordering::Relaxed);
        }
    });
    // Reads only once the sender is stuck.
    let mut before = usize::MAX;
    while before != sent.load(Ordering::Relaxed) {
        before = sent.load(Ordering::Relaxed);
        thread::sleep(Duration::from_millis(500));
    }
    assert!(before < 200, "the buffers were never full");
    let answer = reader.until_ready(200);
    sender.join().unwrap();
    assert_eq!(kinds(&answer), "12DCZ".repeat(200));
    let record = gateway.settled("app");
    assert_eq!(record.commands.len(), 200);
    assert!(record.commands.iter().all(|c| c.status() == "ok" && c.rows() == Some(1)));
}
