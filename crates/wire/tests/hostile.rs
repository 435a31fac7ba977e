//! Bytes that nobody should send: an error or patience, never a panic, never a hoard.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod support;

use proptest::prelude::*;
use support::{Session, framed, message, reply};
use wire::postgres::message::{error_fields, server_frame};
use wire::postgres::startup::parse_first;

fn client_bytes() -> impl Strategy<Value = Vec<u8>> {
    let body = prop::collection::vec(any::<u8>(), 0..60);
    prop_oneof![
        (prop::sample::select(b"QPBEDCFHSXdcfp".to_vec()), body.clone()).prop_map(|(kind, body)| framed(kind, &body)),
        (prop::sample::select(b"QPBEDCFHSXdcf".to_vec()), any::<u32>()).prop_map(|(kind, length)| [
            &[kind][..],
            &(length % 12_000).to_be_bytes()
        ]
        .concat()),
        body,
        prop::sample::select(vec![
            "Q select 1",
            "P s|select 1",
            "B |s",
            "B p|s|x",
            "E",
            "E p|1",
            "S",
            "H",
            "F 952",
            "c"
        ])
        .prop_map(message),
    ]
}

fn server_bytes() -> impl Strategy<Value = Vec<u8>> {
    let body = prop::collection::vec(any::<u8>(), 0..60);
    prop_oneof![
        (prop::sample::select(b"123CDEGHINSTVWZstn".to_vec()), body.clone())
            .prop_map(|(kind, body)| framed(kind, &body)),
        body,
        prop::sample::select(vec!["1", "2", "3", "C SELECT 1", "D", "Z I", "Z T", "E 42601", "N", "S a=b"])
            .prop_map(reply),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_in_any_order(
        turns in prop::collection::vec((any::<bool>(), client_bytes(), server_bytes()), 1..60),
    ) {
        let mut session = Session::new(support::limits());
        for (client, from_client, from_server) in turns {
            let done = if client { session.client(&from_client) } else { session.server(&from_server) };
            if done.is_err() {
                break;
            }
        }
        let open = session.tap.abandon();
        prop_assert!(open.is_sorted());
    }

    #[test]
    fn any_first_packet(bytes in prop::collection::vec(any::<u8>(), 0..300), code in any::<u8>()) {
        let _ = parse_first(&bytes);
        let mut packet = u32::try_from(bytes.len() + 8).unwrap().to_be_bytes().to_vec();
        packet.extend_from_slice(&[0, 3, 0, code]);
        packet.extend_from_slice(&bytes);
        if let Ok(Some((_, taken))) = parse_first(&packet) {
            prop_assert_eq!(taken, packet.len());
        }
    }

    #[test]
    fn any_frame(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
        let _ = server_frame(&bytes, 64);
        let _ = error_fields(&bytes);
    }
}
