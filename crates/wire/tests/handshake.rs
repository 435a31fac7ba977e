//! The first packets, and the messages that the gateway builds.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

use wire::postgres::message::*;
use wire::postgres::startup::*;
use wire::postgres::tap::TxStatus;

fn start(parameters: &[(&[u8], &[u8])]) -> Result<Startup, StartupError> {
    match parse_first(&startup_message(0x0003_0000, parameters))? {
        Some((First::Start(startup), _)) => Ok(startup),
        other => panic!("{other:?}"),
    }
}

#[test]
fn requests_are_eight_bytes() {
    assert_eq!(parse_first(&ssl_request()).unwrap(), Some((First::Tls, 8)));
    assert_eq!(parse_first(&[0, 0, 0, 8, 4, 210, 22, 48]).unwrap(), Some((First::Gss, 8)));
    assert!(parse_first(&[0, 0, 0, 9, 4, 210, 22, 47, 0]).is_err());
    assert_eq!(parse_first(&[0x16, 3, 1]).unwrap(), Some((First::DirectTls, 0)));
}

#[test]
fn bytes_behind_a_request_are_not_touched() {
    let mut bytes = ssl_request();
    bytes.extend_from_slice(b"more");
    assert_eq!(parse_first(&bytes).unwrap(), Some((First::Tls, 8)));
}

#[test]
fn cancel_keys_have_4_to_256_bytes() {
    for (length, good) in [(0, false), (3, false), (4, true), (32, true), (256, true), (257, false)] {
        let key = CancelKey { pid: 7, secret: vec![9; length] };
        let bytes = cancel_request(&key);
        match parse_first(&bytes) {
            Ok(Some((First::Cancel(read), taken))) => {
                assert!(good && read == key && taken == bytes.len())
            }
            other => assert!(!good && other.is_err(), "{length}"),
        }
    }
    assert!(!format!("{:?}", CancelKey { pid: 1, secret: vec![77; 4] }).contains("77"));
}

#[test]
fn a_startup_packet_is_a_list_in_order() {
    let startup = start(&[
        (b"user", b"bea"),
        (b"options", b"-c search_path=a-c"),
        (b"_pq_.foo", b"1"),
        (b"application_name", b"x"),
        (b"application_name", b"y"),
        (b"_pq_.bar", b""),
        (b"replication", b"true"),
    ])
    .unwrap();
    assert_eq!((startup.major(), startup.minor()), (3, 0));
    assert_eq!((startup.user(), startup.database()), (Some(&b"bea"[..]), None));
    assert_eq!(startup.parameter(b"application_name"), Some(&b"y"[..]), "the last wins");
    assert_eq!(startup.replication(), Some(&b"true"[..]));
    assert_eq!(startup.unsupported_options(), [&b"_pq_.foo"[..], b"_pq_.bar"]);
    assert_eq!(startup.parameters().count(), 7);
}

#[test]
fn two_users_are_refused() {
    assert_eq!(start(&[(b"user", b"a"), (b"user", b"a")]).unwrap_err(), StartupError::RepeatedUser);
}

#[test]
fn versions_are_negotiated_and_unknown_ones_refused() {
    for minor in [0_u32, 2, 3, 9999] {
        let bytes = startup_message(0x0003_0000 | minor, &[(b"user", b"a")]);
        assert!(
            matches!(parse_first(&bytes), Ok(Some((First::Start(startup), _))) if u32::from(startup.minor()) == minor)
        );
    }
    for version in [0x0004_0000, 0x0002_0000, 0, 80_877_105] {
        let error = parse_first(&startup_message(version, &[])).unwrap_err();
        assert_eq!(error.for_client().0, "0A000");
    }
}

#[test]
fn the_declared_length_is_respected_exactly() {
    let good = startup_message(0x0003_0000, &[(b"user", b"a")]);
    for cut in 0..good.len() {
        assert_eq!(parse_first(&good[..cut]).unwrap(), None, "{cut}");
    }
    for length in [0_u32, 7, 10_001, u32::MAX] {
        let mut bytes = length.to_be_bytes().to_vec();
        bytes.extend_from_slice(&[0, 3, 0, 0]);
        assert_eq!(
            parse_first(&bytes).unwrap_err(),
            StartupError::Length(length),
            "refused at once, nothing allocated"
        );
    }
    // One byte less than its fields have, one more, and no terminator.
    for (length, body) in [(16_u32, &b"user\0a\0\0"[..]), (18, b"user\0a\0\0xx"), (14, b"user\0a"), (12, b"user")] {
        let mut bytes = length.to_be_bytes().to_vec();
        bytes.extend_from_slice(&[0, 3, 0, 0]);
        bytes.extend_from_slice(body);
        let read = parse_first(&bytes);
        assert_eq!(read.is_ok(), length == 16, "{length} {read:?}");
    }
}

#[test]
fn messages_are_framed_as_they_should_be() {
    assert_eq!(ready_for_query(TxStatus::Open), b"Z\0\0\0\x05T");
    assert_eq!(parameter_status(b"a", b"b"), b"S\0\0\0\x08a\0b\0");
    assert_eq!(backend_key_data(1, b"abcd"), b"K\0\0\0\x0c\0\0\0\x01abcd");
    assert_eq!(authentication_ok(), b"R\0\0\0\x08\0\0\0\0");
    assert_eq!(authentication_cleartext(), b"R\0\0\0\x08\0\0\0\x03");
    assert_eq!(authentication_sasl(&["A", "B"]), b"R\0\0\0\x0d\0\0\0\x0aA\0B\0\0");
    assert_eq!(authentication_sasl_continue(b"x"), b"R\0\0\0\x09\0\0\0\x0bx");
    assert_eq!(authentication_sasl_final(b"x"), b"R\0\0\0\x09\0\0\0\x0cx");
    assert_eq!(negotiate_protocol_version(0x0003_0002, &[b"_pq_.a"]), b"v\0\0\0\x13\0\x03\0\x02\0\0\0\x01_pq_.a\0");
    assert_eq!(password_message(b"pw"), b"p\0\0\0\x07pw\0");
    assert_eq!(sasl_initial_response("A", b"xy"), b"p\0\0\0\x0cA\0\0\0\0\x02xy");
    assert_eq!(sasl_response(b"xy"), b"p\0\0\0\x06xy");
    assert_eq!(terminate(), b"X\0\0\0\x04");
    assert_eq!(ssl_request(), b"\0\0\0\x08\x04\xd2\x16\x2f");
}

#[test]
fn a_nul_cannot_end_a_field_early() {
    let bytes = error_response("ERROR", "42501", "no\0C00000\0", Some("ask\0"));
    let (frame, taken) = server_frame(&bytes, 1000).unwrap().unwrap();
    assert_eq!((frame.kind, taken), (b'E', bytes.len()));
    let fields = error_fields(frame.body);
    assert_eq!(
        (fields.severity.as_str(), fields.code.as_str(), fields.message.as_str()),
        ("ERROR", "42501", "noC00000")
    );
    assert_eq!(notice("NOTICE", "00000", "m", None)[0], b'N');
}

#[test]
fn frames_are_whole_and_bounded() {
    let bytes = authentication_ok();
    for cut in 0..bytes.len() {
        assert_eq!(server_frame(&bytes[..cut], 100).unwrap(), None);
    }
    assert!(server_frame(b"R\0\0\0\x03", 100).is_err());
    assert!(server_frame(b"R\0\0\x10\0", 100).is_err());
}
