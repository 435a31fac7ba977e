//! The rules of the tap, one test each, against scripted replies.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

mod support;

use support::{Session, framed, limits, message, reply};
use wire::postgres::message::{ErrorFields, error_fields};
use wire::postgres::tap::*;

fn session() -> Session {
    Session::new(limits())
}

fn client(session: &mut Session, lines: &[&str]) {
    for line in lines {
        session.client(&message(line)).unwrap();
    }
}

fn server(session: &mut Session, lines: &[&str]) {
    for line in lines {
        session.server(&reply(line)).unwrap();
    }
}

fn outcome(session: &Session, key: u64) -> &CommandOutcome {
    &session.outcomes.iter().find(|(found, _)| *found == key).unwrap().1
}

#[test]
fn lengths_are_the_servers() {
    for kind in *b"QPBFdEDCHSXcf" {
        for length in [0_u32, 3, 0x7FFF_FFFF, 0xFFFF_FFFF, 0x3FFF_FFFF] {
            let mut bytes = vec![kind];
            bytes.extend(length.to_be_bytes());
            assert!(
                matches!(session().client(&bytes), Err(Violation::ClientLength { .. })),
                "{} {length}",
                char::from(kind)
            );
        }
    }
    for kind in *b"EDCHSXcf" {
        let header = [kind, 0, 0, 0x27, 0x11];
        assert!(matches!(session().client(&header), Err(Violation::ClientLength { length: 10_001, .. })));
        let header = [kind, 0, 0, 0x27, 0x10];
        session().client(&header).unwrap();
    }
    let header = [b'Q', 0, 0x20, 0, 0];
    assert!(matches!(session().client(&header), Err(Violation::MessageTooLarge { .. })));
}

#[test]
fn types_that_have_no_place_end_the_session() {
    for bytes in [&b"p\0\0\0\x05\0"[..], b"\0\0\0\x08\x04\xd2\x16\x2f", b"z\0\0\0\x04", b"\xff\0\0\0\x04"] {
        assert!(matches!(session().client(bytes), Err(Violation::ClientUnexpected { .. })));
    }
}

#[test]
fn bodies_are_exactly_their_fields() {
    let bodies: [(u8, &[u8]); 18] = [
        (b'Q', b"select 1"),
        (b'Q', b"select 1\0; drop table t\0"),
        (b'Q', b""),
        (b'P', b"s\0select 1\0"),
        (b'P', b"s\0select 1\0\0\x01"),
        (b'P', b"s\0select 1\0\0\0x"),
        (b'P', b"s"),
        (b'B', b"\0\0\0\0\0\0\0"),
        (b'B', b"\0\0\0\0\0\0\0\0x"),
        (b'B', b"\0\0\0\0\0\x01\0\0\0\x09x\0\0"),
        (b'E', b"\0\0\0\0"),
        (b'E', b"\0\0\0\0\0x"),
        (b'D', b"Xname\0"),
        (b'C', b"Sname"),
        (b'F', b"\0\0\0\x01"),
        (b'H', b"x"),
        (b'c', b"x"),
        (b'f', b"no end"),
    ];
    for (kind, body) in bodies {
        let result = session().client(&framed(kind, body));
        assert!(matches!(result, Err(Violation::ClientMalformed { .. })), "{} {body:?}", char::from(kind));
    }
}

#[test]
fn a_sync_with_a_body_is_answered_like_any_other() {
    let mut session = session();
    session.client(&framed(b'S', &[b'x'; 100])).unwrap();
    server(&mut session, &["E 08P01", "Z I"]);
    assert!(session.tap.idle());
}

#[test]
fn replies_that_answer_nothing_end_the_session() {
    for line in
        ["1", "2", "3", "n", "T", "t", "s", "I", "C SELECT 1", "D", "d", "c", "G", "H", "W", "V", "Z I", "E 42601"]
    {
        assert!(matches!(session().server(&reply(line)), Err(Violation::ServerDesync { .. })), "{line}");
    }
    for kind in *b"RKvz" {
        assert!(session().server(&framed(kind, &[0; 8])).is_err());
    }
    for (sent, said) in [
        ("Q select 1", "1"),
        ("Q select 1", "s"),
        ("Q select 1", "G"),
        ("Q copy t from stdin", "W"),
        ("P |select 1", "2"),
        ("C S x", "1"),
        ("F 952", "C SELECT 1"),
        ("S", "3"),
        ("P |select 1", "Z I"),
    ] {
        let mut session = session();
        client(&mut session, &[sent]);
        assert!(matches!(session.server(&reply(said)), Err(Violation::ServerDesync { .. })), "{sent} {said}");
    }
}

#[test]
fn server_lengths_are_checked() {
    assert!(session().server(b"C\0\0\0\x03").is_err());
    assert!(session().server(b"C\0\x10\0\0").is_err());
    assert!(session().server(b"D\xff\xff\xff\xff").is_err());
    assert!(session().server(&framed(b'Z', b"X")).is_err());
    assert!(session().server(&framed(b'Z', b"")).is_err());
}

#[test]
fn what_comes_at_any_time_answers_nothing() {
    let mut session = session();
    server(&mut session, &["N", "A", "S a=b"]);
    client(&mut session, &["P |select 1", "B |", "E", "S"]);
    server(&mut session, &["N", "1", "S a=c", "2", "A", "N", "D", "N", "C SELECT 1", "N", "Z I"]);
    assert_eq!(outcome(&session, 0).notices, 2, "a notice before its Bind was answered is not its own");
    assert_eq!(outcome(&session, 0).rows, 1);
}

#[test]
fn violations_and_refusals_never_show_what_was_sent() {
    let violation = session().client(&framed(b'Q', b"secret")).unwrap_err();
    let (code, text) = violation.for_client();
    assert_eq!(code, "08P01");
    assert!(!text.contains("secret"));
}

#[test]
fn a_gigabyte_of_copy_data_passes_in_pieces() {
    let mut session = session();
    client(&mut session, &["Q copy t from stdin"]);
    server(&mut session, &["G"]);
    let header = [b'd', 0x3F, 0xFF, 0xFF, 0xFE];
    session.client(&header).unwrap();
    for _ in 0..50 {
        session.client(&[b'x'; 65_536]).unwrap();
        assert!(session.to_server.len() >= 65_536);
        session.to_server.clear();
    }
    assert!(!session.tap.idle());
}

#[test]
fn rows_pass_in_pieces() {
    let mut session = session();
    client(&mut session, &["Q select 1"]);
    session.server(&[b'D', 0x3F, 0xFF, 0xFF, 0xFE, 0]).unwrap();
    assert_eq!(session.to_client.len(), 6);
    session.server(&[0; 1000]).unwrap();
    assert_eq!(session.to_client.len(), 1006);
}

#[test]
fn a_long_error_is_read_at_its_head_and_passes_whole() {
    let mut session = session();
    client(&mut session, &["Q select 1"]);
    let body = [b"SERROR\0VERROR\0C22000\0M".to_vec(), vec![b'x'; 100_000], b"\0\0".to_vec()].concat();
    let error = framed(b'E', &body);
    for piece in error.chunks(10_000) {
        session.server(piece).unwrap();
    }
    server(&mut session, &["Z I"]);
    assert_eq!(session.to_client.len(), error.len() + 6);
    let outcome = outcome(&session, 0);
    assert_eq!((outcome.code.as_deref(), outcome.message.as_ref().unwrap().len()), (Some("22000"), 8192));
}

#[test]
fn the_boundary_is_the_last_end_of_a_response() {
    let mut tap = Tap::new(limits());
    let bytes = message("Q select 1");
    assert!(matches!(tap.client(&bytes), Ok(ClientStep::Command(..))));
    let mut events = Vec::new();
    let rows = [reply("T"), reply("D")].concat();
    let all = [rows.clone(), reply("C SELECT 1")].concat();
    let step = tap.server(&all, &mut events).unwrap();
    assert_eq!((step.pass, step.boundary, step.more), (all.len(), Some(rows.len()), false));
    let step = tap.server(&reply("Z I"), &mut events).unwrap();
    assert_eq!((step.pass, step.boundary), (6, Some(0)));
    assert_eq!(events.len(), 2);
}

#[test]
fn a_flush_only_pipeline_does_not_wait_for_ever() {
    let mut session = session();
    client(&mut session, &["P s|select 1"]);
    server(&mut session, &["1"]);
    for _ in 0..1000 {
        client(&mut session, &["B |s", "E", "H"]);
        server(&mut session, &["2", "C SELECT 1"]);
    }
    assert!(session.outcomes.len() >= 900);
    assert!(session.outcomes.iter().all(|(_, outcome)| outcome.effective == Effective::Unknown));
    client(&mut session, &["S"]);
    server(&mut session, &["Z I"]);
    assert_eq!(session.outcomes.len(), 1000);
}

#[test]
fn a_client_that_never_syncs_after_an_error_is_ended() {
    let mut session = session();
    client(&mut session, &["P |nonsense"]);
    server(&mut session, &["E 42601"]);
    let bind = message("B |");
    let error = (0..1000).find_map(|_| session.client(&bind).err()).unwrap();
    assert!(matches!(error, Violation::TooMany { .. }));
    assert_eq!(error.for_client().0, "53400");
}

#[test]
fn names_beyond_the_limit_are_forgotten_and_refused() {
    let mut session = session();
    for name in 0..20 {
        client(&mut session, &[&format!("P s{name}|select 1"), "S"]);
        server(&mut session, &["1", "Z I"]);
    }
    client(&mut session, &["B |s3", "E", "S"]);
    server(&mut session, &["2", "C SELECT 1", "Z I"]);
    client(&mut session, &["B |s19", "E", "S"]);
    assert!(session.log.last().unwrap().contains("StatementUnknown"));
    server(&mut session, &["3", "E 26000", "Z I"]);
    assert_eq!(outcome(&session, 1).status, OutcomeStatus::Denied);
}

#[test]
fn texts_beyond_the_limit_are_forgotten() {
    let mut session = session();
    let text = "x".repeat(4000);
    for name in 0..16 {
        client(&mut session, &[&format!("P s{name}|{text}"), "S"]);
        server(&mut session, &["1", "Z I"]);
    }
    for name in 0..16 {
        client(&mut session, &[&format!("P s{name}|{text}{text}"), "S"]);
        session.server(&[reply("1"), reply("Z I")].concat()).unwrap();
    }
    assert!(size_of::<Tap>() < 1024);
}

#[test]
fn a_name_of_an_unanswered_segment_makes_the_client_wait() {
    let mut session = session();
    client(&mut session, &["P s|select 1", "S", "B |s", "E", "S"]);
    assert!(session.waiting && session.tap.waiting());
    assert_eq!(session.drafted, 0);
    server(&mut session, &["1"]);
    assert!(!session.waiting);
    assert_eq!(session.drafted, 1);
    server(&mut session, &["Z I", "2", "C SELECT 1", "Z I"]);
    assert!(session.tap.idle());
}

#[test]
fn built_ins_are_trusted_until_something_may_shadow_them() {
    let mut session = session();
    let mut run = |text: &str| {
        session.to_server.clear();
        client(&mut session, &[&format!("Q {text}")]);
        server(&mut session, &["C X", "Z I", "S standard_conforming_strings=on"]);
        client(&mut session, &["P s|select 1", "S"]);
        server(&mut session, &["1", "Z I"]);
        client(&mut session, &["Q select lower(x) from t"]);
        server(&mut session, &["C X", "Z I"]);
        session.to_server.clear();
        client(&mut session, &["B |s", "S"]);
        let renewed = session.to_server[0] == b'C';
        if renewed {
            server(&mut session, &["3", "1"]);
        }
        server(&mut session, &["2", "Z I"]);
        renewed
    };
    assert!(!run("select 1"));
    assert!(run("set search_path to x"), "a schema of the user's comes first");
    assert!(run("select 1"), "for good");
}

#[test]
fn a_plain_session_never_renews() {
    let mut session = session();
    client(&mut session, &["P s|update t set a = $1 where b = $2", "S"]);
    server(&mut session, &["1", "Z I"]);
    for text in ["begin", "select count(*) from t", "insert into t (a) values ('x\\y')", "commit", "show all"] {
        client(&mut session, &[&format!("Q {text}")]);
        server(&mut session, &["C X", "Z I"]);
        session.to_server.clear();
        client(&mut session, &["B |s|1|2", "E", "S"]);
        assert_eq!(session.to_server[0], b'B', "{text}");
        server(&mut session, &["2", "C UPDATE 1", "Z I"]);
    }
}

#[test]
fn a_backslash_counts_unless_strings_are_known_to_conform() {
    for (known, renewed) in [("on", false), ("off", true)] {
        let mut session = session();
        server(&mut session, &[&format!("S standard_conforming_strings={known}")]);
        client(&mut session, &["P s|select 1", "S"]);
        server(&mut session, &["1", "Z I"]);
        client(&mut session, &[r"Q select 'a\'"]);
        server(&mut session, &["C X", "Z I"]);
        session.to_server.clear();
        client(&mut session, &["B |s", "S"]);
        assert_eq!(session.to_server[0] == b'C', renewed);
    }
}

#[test]
fn the_unnamed_statement_and_portal_are_never_in_doubt() {
    let mut session = session();
    client(&mut session, &["P |select f(1)", "B |", "E |1", "E |1", "B |", "E", "S"]);
    assert!(!session.log.iter().any(|line| line.starts_with("refuse")));
    assert!(!session.to_server.starts_with(b"C"));
}

#[test]
fn an_own_run_does_not_put_its_portal_in_doubt() {
    let mut session = session();
    client(&mut session, &["P |select f(1)", "B p|", "E p|1", "E p|1", "S"]);
    assert!(!session.log.iter().any(|line| line.starts_with("refuse")));
    client(&mut session, &["B q|", "E p|1"]);
    assert!(session.log.last().unwrap().contains("PortalInDoubt") || session.waiting);
}

/// Drives one step by hand: the harness forwards what it gets.
fn deny(before: &[&str], line: &str) -> (Tap, Vec<u8>) {
    let mut tap = Tap::new(limits());
    let mut out = Vec::new();
    for line in before {
        match tap.client(&message(line)).unwrap() {
            ClientStep::Pass(passive) => passive.write_to(&mut out),
            ClientStep::Command(executing, _) => executing.write_to(&mut out),
            step => panic!("{step:?}"),
        }
    }
    out.clear();
    let bytes = message(line);
    let ClientStep::Command(executing, draft) = tap.client(&bytes).unwrap() else { panic!("{line}") };
    let refusal = Refusal::Denied { code: "42501".to_owned(), message: "no".to_owned(), hint: Some("ask".to_owned()) };
    let passive = tap.deny(executing, draft.key, refusal);
    assert_eq!(passive.consumed(), bytes.len());
    passive.write_to(&mut out);
    (tap, out)
}

#[test]
fn a_denied_query_is_answered_in_its_place() {
    let (mut tap, out) = deny(&["P |select 1", "Q select 2"], "Q copy t from stdin");
    assert_eq!(out[0], b'F');
    let mut events = Vec::new();
    let before = [reply("1"), reply("C SELECT 1")].concat();
    assert_eq!(tap.server(&before, &mut events).unwrap().pass, before.len());
    let ready = reply("Z I");
    assert_eq!(tap.server(&ready, &mut events).unwrap().pass, ready.len());
    let step = tap.server(&reply("E 42883"), &mut events).unwrap();
    assert_eq!((step.pass, step.skip), (0, reply("E 42883").len()));
    let ErrorFields { code, message: said, .. } = error_fields(&step.reply[5..]);
    assert_eq!((code.as_str(), said.as_str()), ("42501", "no"));
    events.clear();
    let _ = tap.server(&ready, &mut events).unwrap();
    assert!(
        matches!(&events[0], Event::Outcome { key: CommandKey(1), outcome } if outcome.status == OutcomeStatus::Denied)
    );
    assert!(tap.idle());
    assert!(matches!(tap.client(&message("Q select 1")), Ok(ClientStep::Command(..))), "not held for COPY");
}

#[test]
fn a_denied_bind_skips_until_sync() {
    let (mut tap, out) = deny(&["P s|select 1"], "B p|s");
    assert_eq!(out[0], b'C');
    for line in ["E p", "S"] {
        assert!(matches!(tap.client(&message(line)), Ok(ClientStep::Pass(_))));
    }
    let mut events = Vec::new();
    let step = tap.server(&[reply("1"), reply("3")].concat(), &mut events).unwrap();
    assert_eq!((step.pass, step.skip), (5, 5));
    let step = tap.server(&reply("E 26000"), &mut events).unwrap();
    assert_eq!(error_fields(&step.reply[5..]).code, "42501");
    let _ = tap.server(&reply("Z I"), &mut events).unwrap();
    assert_eq!(events.len(), 2);
    assert!(tap.idle());
}

#[test]
fn a_denied_bind_takes_its_renewal_back() {
    let mut tap = Tap::new(limits());
    let mut events = Vec::new();
    for (line, said) in [("P s|select 1", "1"), ("Q discard plans", "C X"), ("", "Z I")] {
        if !line.is_empty() {
            let _ = tap.client(&message(line)).unwrap();
        }
        let _ = tap.server(&reply(said), &mut events).unwrap();
    }
    let bytes = message("B |s");
    let ClientStep::Command(executing, draft) = tap.client(&bytes).unwrap() else { panic!() };
    let refusal = Refusal::Denied { code: "42501".to_owned(), message: String::new(), hint: None };
    let _ = tap.deny(executing, draft.key, refusal);
    let _ = tap.client(&message("S")).unwrap();
    for said in ["3", "E 26000", "Z I"] {
        let _ = tap.server(&reply(said), &mut events).unwrap();
    }
    assert!(tap.idle() && tap.abandon().is_empty());
}

#[test]
fn an_answer_where_a_refusal_was_due_ends_the_session() {
    let mut session = session();
    client(&mut session, &["B |nobody", "S"]);
    server(&mut session, &["3"]);
    assert!(session.server(&reply("2")).is_err());
    let mut session = session_with(&["F 89"]);
    assert!(session.server(&reply("V")).is_err());
}

fn session_with(lines: &[&str]) -> Session {
    let mut session = session();
    client(&mut session, lines);
    session
}

#[test]
fn another_error_in_a_refusals_place_passes_as_it_is() {
    let mut session = session_with(&["F 89"]);
    let said = reply("E 25P02");
    session.server(&said).unwrap();
    assert_eq!(session.to_client, said);
}

#[test]
fn what_is_open_is_abandoned_in_order() {
    let mut session = session_with(&["Q select 1", "Q select 2", "F 952"]);
    server(&mut session, &["C X", "Z I", "C X"]);
    assert_eq!(session.tap.abandon(), [CommandKey(1), CommandKey(2)]);
    assert!(session.tap.abandon().is_empty());
}

#[test]
fn a_fatal_error_is_said_and_passes() {
    let mut session = session_with(&["Q select 1"]);
    let fatal = framed(b'E', b"SFATAL\0VFATAL\0C57P01\0Mgoing down\0\0");
    session.server(&fatal).unwrap();
    assert_eq!(session.to_client, fatal);
    assert!(session.log.last().unwrap().starts_with("fatal 57P01"));
    assert_eq!(session.tap.abandon().len(), 1);
}

#[test]
fn results_are_bounded_and_counted() {
    let mut session = session_with(&["Q select 1"]);
    for _ in 0..5000 {
        session.server(&reply("C SELECT 1")).unwrap();
    }
    server(&mut session, &["Z I"]);
    let outcome = outcome(&session, 0);
    assert_eq!((outcome.results.len(), outcome.results_total), (1000, 5000));
}

#[test]
fn effects_follow_the_transaction() {
    let cases: [(&[&str], &[&str], Effective); 9] = [
        (&["Q insert"], &["C INSERT 0 1", "Z I"], Effective::Committed),
        (&["Q insert; select"], &["C INSERT 0 1", "E 42601", "Z I"], Effective::RolledBack),
        (&["Q select; commit; select"], &["C X", "C COMMIT", "E 42601", "Z I"], Effective::Unknown),
        (&["Q select"], &["C X", "Z T"], Effective::Open),
        (&["Q select"], &["E 42601", "Z E"], Effective::RolledBack),
        (&["Q commit"], &["C ROLLBACK", "Z I"], Effective::RolledBack),
        (&["Q call p()"], &["E 42601", "Z I"], Effective::Unknown),
        (&["Q savepoint a; select; rollback to a"], &["C SAVEPOINT", "C X", "C ROLLBACK", "Z T"], Effective::Unknown),
        (&["Q select; prepare transaction 'x'"], &["C X", "C PREPARE TRANSACTION", "Z I"], Effective::Unknown),
    ];
    for (sent, said, effective) in cases {
        let mut session = session_with(sent);
        server(&mut session, said);
        assert_eq!(outcome(&session, 0).effective, effective, "{sent:?}");
    }
}

#[test]
fn large_messages_are_checked_like_small_ones() {
    let text = "x".repeat(5000);
    for body in [text.clone(), format!("{text}\0{text}\0")] {
        assert!(session().client(&framed(b'Q', body.as_bytes())).is_err());
    }
    assert!(session().client(&framed(b'P', format!("s\0{text}\0\0").as_bytes())).is_err());
    assert!(session().client(&framed(b'P', format!("{text}\0x\0\0\0").as_bytes())).is_err());
    session().client(&framed(b'P', format!("s\0{text}\0\0\0").as_bytes())).unwrap();
    let mut refused = session();
    refused.client(&[framed(b'F', &[&89_u32.to_be_bytes()[..], &[0; 5000]].concat())].concat()).unwrap();
    assert!(refused.log.last().unwrap().contains("FunctionCall"));
    assert_eq!(refused.to_server.len(), 15, "the body stays here");
}

#[test]
fn a_denied_large_query_is_answered_in_its_place() {
    let mut tap = Tap::new(limits());
    let body = format!("{}\0", "x".repeat(5000));
    assert!(matches!(tap.client(&framed(b'Q', body.as_bytes())), Ok(ClientStep::Large { .. })));
    let LargeStep::Done(draft) = tap.large(body.as_bytes()).unwrap() else { panic!() };
    let (LargePass::Executing(executing), Some(key)) = (draft.pass, draft.key) else { panic!() };
    let refusal = Refusal::Denied { code: "42501".to_owned(), message: String::new(), hint: None };
    let mut out = Vec::new();
    tap.deny_large(executing, key, refusal).write_to(&mut out);
    assert_eq!((out[0], out.len()), (b'F', 15));
    let mut events = Vec::new();
    let step = tap.server(&reply("E 42883"), &mut events).unwrap();
    assert_eq!(error_fields(&step.reply[5..]).code, "42501");
    let _ = tap.server(&reply("Z I"), &mut events).unwrap();
    assert!(tap.idle() && tap.abandon().is_empty());
}
