//! The first bytes of a connection: versions, encryption, authentication, and what is refused.

use std::process::Command;

use testkit::postgres::binary;
use testkit::process;
use testkit::raw::{Message, Raw, cstr, kinds, query};
use testkit::{Target, Tls};

use crate::start;

const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f];
const GSS_REQUEST: [u8; 8] = [0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x30];

fn psql(target: &Target, text: &str) -> process::Finished {
    let mut psql = Command::new(binary("psql"));
    process::run(target.libpq(&mut psql).args(["-XAtqc", text]), "")
}

#[track_caller]
fn refused(target: &Target, parameters: &[(&str, &str)], version: u32) -> Message {
    Raw::connect(target).authenticate(target, version, parameters).expect_err("a refusal")
}

#[test]
fn every_way_that_a_server_asks_for_a_password() {
    let (_server, gateway) = start();
    for connection in ["app", "md5", "password", "secure"] {
        let target = gateway.target().with_database(connection);
        let user = psql(&target, "select current_user").expect_success(connection);
        let expected = match connection {
            "app" | "secure" => "app_owner",
            other => &format!("{other}_user"),
        };
        assert_eq!(user.trim(), expected);
    }
    gateway.assert_no_secrets(&[]);
}

#[test]
fn a_newer_minor_version_is_negotiated() {
    let (_server, gateway) = start();
    let target = gateway.target();
    let mut raw = Raw::connect(&target);
    raw.authenticate(&target, 0x0003_270f, &[("_pq_.grease", "1")]).unwrap();
    let negotiated = raw.greeting.iter().find(|m| m.kind == b'v').expect("NegotiateProtocolVersion");
    let expected = [&0x0003_0002u32.to_be_bytes()[..], &1u32.to_be_bytes(), &cstr("_pq_.grease")];
    assert_eq!(negotiated.body, expected.concat());
    assert!(raw.key().1.len() > 4, "a long cancel key for 3.2");
    assert_eq!(kinds(&raw.exchange(&query("select 1"), 1)), "TDCZ");
}

#[test]
fn protocol_3_0_gets_a_short_cancel_key() {
    let (_server, gateway) = start();
    assert_eq!(Raw::login(&gateway.target()).key().1.len(), 4);
}

#[test]
fn another_major_version_is_refused() {
    let (_server, gateway) = start();
    assert_eq!(refused(&gateway.target(), &[], 0x0004_0000).field(b'C').as_deref(), Some("0A000"));
}

#[test]
fn gss_is_declined_and_plain_text_goes_on() {
    let (_server, gateway) = start();
    let target = gateway.target();
    let mut raw = Raw::connect(&target);
    raw.send(&GSS_REQUEST);
    assert_eq!(raw.read_byte(), Some(b'N'));
    raw.authenticate(&target, 0x0003_0000, &[]).unwrap();
}

#[test]
fn requests_for_encryption_are_bounded() {
    let (_server, gateway) = start();
    let mut raw = Raw::connect(&gateway.target());
    let mut answers = 0;
    while answers < 10 && raw.try_send(&GSS_REQUEST).is_ok() {
        match raw.read_byte() {
            Some(b'N') => answers += 1,
            _ => break,
        }
    }
    assert!(answers < 3, "declined {answers} times on one connection");
}

/// What was sent in plain text behind the request for TLS must not be taken for the protocol.
#[test]
fn bytes_behind_the_request_for_tls_are_no_startup() {
    let (_server, gateway) = start();
    let target = gateway.target();
    let mut raw = Raw::connect(&target);
    let startup = testkit::raw::startup(&target, 0x0003_0000, &[]);
    raw.send(&[&SSL_REQUEST[..], &startup].concat());
    let answer = raw.read_byte();
    assert!(matches!(answer, None | Some(b'S' | b'E')), "{answer:?}");
    // Whether refused at once or by a TLS handshake that fails: no authentication is offered.
    while let Some(byte) = raw.read_byte() {
        assert_ne!(byte, b'R', "an authentication request in plain text");
    }
}

#[test]
fn nobody_gets_in_without_the_key() {
    let (server, mut gateway) = start();
    let target = gateway.target();
    let wrong_key = refused(&target.with_user("copilot-agent", "onr_wrong"), &[], 0x0003_0000);
    let unknown = refused(&target.with_user("nobody-known", "onr_wrong"), &[], 0x0003_0000);
    assert_eq!(wrong_key.field(b'C').as_deref(), Some("28P01"));
    // The answer must not tell which of the two it was.
    let without_name = |m: &Message, name: &str| m.field(b'M').unwrap().replace(name, "NAME");
    assert_eq!(without_name(&wrong_key, "copilot-agent"), without_name(&unknown, "nobody-known"));

    let other = target.with_user("other-agent", &target.password);
    assert_eq!(refused(&other, &[], 0x0003_0000).field(b'S').as_deref(), Some("FATAL"));
    let no_such = target.with_database("no-such-connection");
    assert_eq!(refused(&no_such, &[], 0x0003_0000).field(b'S').as_deref(), Some("FATAL"));
    let walsender = refused(&target, &[("replication", "database")], 0x0003_0000);
    assert!(walsender.field(b'M').unwrap().contains("replication"), "{walsender:?}");
    // Nothing of this reached the server, and all of it is on the record.
    assert_eq!(server.log().sessions("app"), 0);
    gateway.stop();
    assert!(gateway.entries("refused") > 0, "no entry of a refused connection");
    gateway.verify();
}

#[test]
fn a_certificate_for_another_name_is_noticed_by_the_client() {
    let (_server, gateway) = start();
    let stranger = testkit::Authority::new();
    let target = Target { tls: Tls::VerifyFull(stranger.ca()), ..gateway.target() };
    let finished = psql(&target, "select 1");
    assert!(!finished.status.success() && finished.stderr.contains("SSL error"), "{finished:?}");
}

#[test]
fn the_startup_settings_arrive() {
    let (_server, gateway) = start();
    let target = gateway.target();
    let mut psql = Command::new(binary("psql"));
    target.libpq(&mut psql).env("PGAPPNAME", "agent-7").env("PGTZ", "Asia/Tokyo");
    psql.env("PGCLIENTENCODING", "LATIN1").env("PGOPTIONS", "-c statement_timeout=12345");
    let show = "select current_setting('application_name'), current_setting('timezone'), \
                current_setting('client_encoding'), current_setting('statement_timeout')";
    let out = process::run(psql.args(["-XAtqc", show]), "").expect_success("psql");
    assert_eq!(out.trim(), "agent-7|Asia/Tokyo|LATIN1|12345ms");
}
