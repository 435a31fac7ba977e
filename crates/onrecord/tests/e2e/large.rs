//! Messages far larger than a session's memory: streamed, not held.

use testkit::Postgres;
use testkit::raw::{Raw, kinds, query};

use crate::{plan, start};

const MIB: usize = 1 << 20;

#[test]
fn a_row_streams_through() {
    let (_server, gateway) = start();
    let mut raw = Raw::login(&gateway.target());
    let before = gateway.peak_memory_kib();
    let answer = raw.exchange(&query("select repeat('x', 200 * 1024 * 1024)"), 1);
    assert_eq!(kinds(&answer), "TDCZ");
    assert!(answer.iter().any(|m| m.body.len() > 200 * MIB));
    let grown = gateway.peak_memory_kib() - before;
    assert!(grown < 32 * 1024, "{grown} KiB more memory for a row of 200 MiB");
    let record = gateway.settled("app");
    assert_eq!(record.only("repeat").rows(), Some(1));
}

/// A client that takes a little at a time slows the server; the gateway keeps no more than its share of the result.
#[test]
fn a_slow_reader_slows_the_server_and_nothing_else() {
    let (_server, gateway) = start();
    let mut raw = Raw::login(&gateway.target());
    let before = gateway.peak_memory_kib();
    raw.send(&query("select repeat('x', 1000) from generate_series(1, 200 * 1024)"));
    let mut rows = 0;
    while let Some(message) = raw.read() {
        rows += usize::from(message.kind == b'D');
        if rows % 1024 == 0 && message.kind == b'D' {
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        if message.kind == b'Z' {
            break;
        }
    }
    assert_eq!(rows, 200 * 1024);
    let grown = gateway.peak_memory_kib() - before;
    assert!(grown < 32 * 1024, "{grown} KiB more memory for a result of 200 MiB");
}

#[test]
fn a_text_goes_to_a_blob_and_on() {
    let (_server, gateway) = start();
    let mut raw = Raw::login(&gateway.target());
    let before = gateway.peak_memory_kib();
    let text = format!("select length('{}')", "y".repeat(64 * MIB));
    assert_eq!(kinds(&raw.exchange(&query(&text), 1)), "TDCZ");
    let grown = gateway.peak_memory_kib() - before;
    assert!(grown < 32 * 1024, "{grown} KiB more memory for a text of 64 MiB");
    let record = gateway.settled("app");
    let command = record.only("select length");
    // Lists show the beginning of such a text, and say how long its message is (the text and its
    // terminator); `verify` reads all of it.
    assert!(text.starts_with(command.text()), "{} bytes", command.text().len());
    let bytes = (text.len() + 1).to_string();
    assert!(command.str("text_state").is_some_and(|s| s.contains(&bytes)), "{:?}", command.str("text_state"));
    gateway.verify();
}

/// Above the connection's limit a message is refused by its header alone, in words, and that is on the record.
#[test]
fn a_message_above_the_limit_is_refused() {
    let server = Postgres::start();
    let gateway = plan().message_bytes_max(1 << 20).start(&server);
    let mut raw = Raw::login(&gateway.target());
    assert_eq!(kinds(&raw.exchange(&query("select 'before'"), 1)), "TDCZ");
    // Its body is never sent.
    let header = [&b"Q"[..], &(1_u32 << 21).to_be_bytes(), b"select 'too large'"].concat();
    let answer = raw.exchange(&header, 1);
    let refusal = answer.iter().find(|m| m.kind == b'E').unwrap_or_else(|| panic!("{answer:?}"));
    assert_eq!((refusal.field(b'S').as_deref(), refusal.field(b'C').as_deref()), (Some("FATAL"), Some("54000")));
    let record = gateway.settled("app");
    let denied = record.commands.last().unwrap();
    assert_eq!((denied.status(), denied.code()), ("denied", Some("54000")), "{denied:?}");
    assert_eq!(server.log().ran("app").len(), 1);
    gateway.verify();
}
