//! Any bytes, in any pieces, in any order: the same is said, nothing panics, every operation ends once.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

#[path = "support/sftp.rs"]
mod sftp;
#[path = "support/sftp_targets.rs"]
mod targets;

use proptest::prelude::*;
use sftp::*;
use std::collections::BTreeMap;

/// Requests that mostly make sense where the handles `a` to `c` are given.
fn request() -> impl Strategy<Value = Vec<u8>> {
    let handle = || prop::sample::select(vec!["a", "b", "c", "g", "h"]);
    let number = || 0..8u32;
    let offset = || prop_oneof![0..200u64, any::<u64>()];
    prop_oneof![
        4 => (number(), 0..64u32).prop_map(|(request, flags)| open(request, "/f", flags)),
        2 => number().prop_map(|request| opendir(request, "/d")),
        4 => (number(), handle()).prop_map(|(request, handle)| close(request, handle)),
        4 => (number(), handle(), offset(), 0..50u32).prop_map(|(r, handle, offset, length)| read(r, handle, offset, length)),
        4 => (number(), handle(), offset(), "[a-z]{0,50}").prop_map(|(r, handle, offset, text)| write(r, handle, offset, &text)),
        1 => (number(), handle()).prop_map(|(request, handle)| readdir(request, handle)),
        1 => (number(), handle(), handle()).prop_map(|(request, from, to)| copy_data(request, from, to)),
        2 => number().prop_map(|request| remove(request, "/f")),
        1 => (any::<u8>(), prop::collection::vec(any::<u8>(), 0..40)).prop_map(|(kind, body)| Fields(body).packet(kind)),
    ]
}

fn reply() -> impl Strategy<Value = Vec<u8>> {
    let number = || 0..8u32;
    prop_oneof![
        4 => (number(), prop::sample::select(vec!["a", "b", "c"])).prop_map(|(request, handle)| handle_reply(request, handle)),
        6 => (number(), 0..5u32).prop_map(|(request, code)| status(request, code)),
        3 => (number(), "[a-z]{0,50}").prop_map(|(request, text)| data(request, &text)),
        1 => number().prop_map(|request| names(request, &["x", "y"])),
        1 => number().prop_map(attributes),
        1 => (any::<u8>(), prop::collection::vec(any::<u8>(), 0..40)).prop_map(|(kind, body)| Fields(body).packet(kind)),
    ]
}

#[derive(Clone, Debug)]
enum Turn {
    Client(Vec<u8>),
    Server(Vec<u8>),
}

fn turns() -> impl Strategy<Value = Vec<Turn>> {
    let turn = prop_oneof![request().prop_map(Turn::Client), reply().prop_map(Turn::Server)];
    prop::collection::vec(turn, 1..60)
}

/// Plays the turns in pieces of `size` bytes, up to the first violation.
fn play(turns: &[Turn], size: usize) -> (Vec<String>, Vec<u8>, Vec<u8>) {
    let mut session = Session::with_open(&["g", "h"]);
    session.policy = |operation| (operation.key.0 % 5 == 4).then_some("denied");
    for turn in turns {
        let done = match turn {
            Turn::Client(bytes) => bytes.chunks(size).try_for_each(|piece| session.client(piece)),
            Turn::Server(bytes) => bytes.chunks(size).try_for_each(|piece| session.server(piece)),
        };
        if done.is_err() {
            break;
        }
    }
    session.end();
    (session.log, session.to_server, session.to_client)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_pieces_say_the_same(turns in turns(), size in 1..20usize) {
        let whole = play(&turns, usize::MAX);
        prop_assert_eq!(&whole, &play(&turns, size));
        // Each operation ends once, unless it was denied.
        let mut ends: BTreeMap<u64, usize> = [(0, 0), (1, 0)].into();
        for line in &whole.0 {
            let mut words = line.split(' ');
            match (words.next().unwrap(), words.next().unwrap().parse::<u64>()) {
                ("violation", _) => {}
                ("deny" | "refuse" | "outcome", Ok(key)) => *ends.get_mut(&key).unwrap() += 1,
                (_, Ok(key)) => assert!(ends.insert(key, 0).is_none()),
                _ => unreachable!("{line}"),
            }
        }
        prop_assert!(ends.values().all(|count| *count == 1), "{:?}", whole.0);
    }

    #[test]
    fn any_bytes(client in prop::collection::vec(any::<u8>(), 0..200), server in prop::collection::vec(any::<u8>(), 0..200)) {
        targets::sftp_client(&client);
        targets::sftp_client(&Fields(client).packet(3));
        targets::sftp_server(&server);
        targets::sftp_server(&Fields(server).packet(104));
    }

    #[test]
    fn any_requests(requests in prop::collection::vec(request(), 0..30), replies in prop::collection::vec(reply(), 0..30)) {
        targets::sftp_client(&requests.concat());
        targets::sftp_server(&replies.concat());
    }
}
