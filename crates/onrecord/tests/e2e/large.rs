//! Messages far larger than a session's memory: streamed, not held.

use testkit::raw::{Raw, kinds, query};

use crate::start;

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
    // Lists show the beginning of such a text, and say how long it is; `verify` reads all of it.
    assert!(text.starts_with(command.text()), "{} bytes", command.text().len());
    assert!(command.str("text_state").is_some_and(|s| s.contains(&text.len().to_string())), "{command:?}");
    gateway.verify();
}
