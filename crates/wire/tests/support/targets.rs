//! What the fuzzer runs, and what `cargo test` replays over the committed corpora.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used, clippy::indexing_slicing)]

use super::support::{Session, limits, message};
use wire::postgres::message::{error_fields, server_frame};
use wire::postgres::startup::{First, parse_first};

/// The first packets of a client.
pub fn pg_startup(bytes: &[u8]) {
    let whole = parse_first(bytes);
    if let Ok(Some((first, taken))) = &whole {
        assert!(*taken <= bytes.len() && *taken <= 10_000);
        if !matches!(first, First::DirectTls) {
            assert_eq!(parse_first(&bytes[..*taken - 1]), Ok(None));
            assert_eq!(parse_first(&bytes[..*taken]), whole);
        }
    }
    if let Ok(Some((frame, taken))) = server_frame(bytes, 4096) {
        assert!(taken <= 4096);
        let _ = error_fields(frame.body);
    }
}

/// A client's session: the same bytes at once and one by one.
pub fn pg_frontend(bytes: &[u8]) {
    let run = |size: usize| {
        let mut session = Session::new(limits());
        for piece in bytes.chunks(size.max(1)) {
            if session.client(piece).is_err() {
                break;
            }
        }
        (session.log, session.to_server)
    };
    assert_eq!(run(bytes.len()), run(1));
}

/// A server's answers to a client that has asked for everything once.
pub fn pg_backend(bytes: &[u8]) {
    let run = |size: usize| {
        let mut session = Session::new(limits());
        for line in [
            "P s|select $1",
            "D S s",
            "B p|s|x",
            "E p|1",
            "E p",
            "C P p",
            "S",
            "Q select 1; select 2",
            "F 952",
            "B |nobody",
            "S",
        ] {
            session.client(&message(line)).unwrap();
        }
        session.client(&message("Q copy t from stdin")).unwrap();
        for piece in bytes.chunks(size.max(1)) {
            if session.server(piece).is_err() {
                break;
            }
        }
        let open = session.tap.abandon();
        assert!(open.is_sorted());
        (session.log, session.to_client, open)
    };
    assert_eq!(run(bytes.len()), run(1));
}
