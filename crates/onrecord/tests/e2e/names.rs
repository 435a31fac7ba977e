//! Names are not identity: SQL's PREPARE, DEALLOCATE, DECLARE and CLOSE share namespaces with the
//! protocol's statements and portals. Whatever an agent plays with them, what runs is what is
//! recorded, or it is refused.

use testkit::raw::{Message, Raw, bind, execute, parse, query, sync};
use testkit::{Gateway, Postgres, agree};

use crate::start;

/// Plays `steps` (bytes, and how many ReadyForQuery answer them) on a table that holds 42, and
/// holds the record against the server's log. Gives what the last step was answered.
#[track_caller]
fn play(steps: &[(Vec<u8>, usize)]) -> (Vec<Message>, Postgres, Gateway) {
    let (server, gateway) = start();
    server.create_database("games");
    server.sql_in("games", "create table secret (v int4); insert into secret values (42)");
    let mut raw = Raw::login(&gateway.target().with_database("app/games"));
    let mut last = Vec::new();
    for (bytes, ready) in steps {
        last = raw.exchange(bytes, *ready);
    }
    drop(raw);
    let record = gateway.settled("games");
    // The first line is that of the set-up above.
    agree::succeeded_alike(&record, &server.log().ran("games")[1..]);
    (last, server, gateway)
}

fn refused(answer: &[Message], code: &str) -> bool {
    answer.iter().any(|m| m.kind == b'E' && m.field(b'C').as_deref() == Some(code))
}

fn shows_secret(answer: &[Message]) -> bool {
    answer.iter().any(|m| m.kind == b'D' && m.body.ends_with(b"42"))
}

#[test]
fn a_statement_prepared_in_sql_and_bound_in_the_protocol() {
    let (answer, _server, gateway) = play(&[
        (query("prepare s1 as select v from secret"), 1),
        ([bind("", "s1", &[]), execute("", 0), sync()].concat(), 1),
    ]);
    assert!(refused(&answer, "26000") || told_of_secret(&gateway, &answer), "{answer:?}");
}

#[test]
fn a_statement_replaced_behind_the_protocol() {
    let replace = "do $$ begin execute 'deallocate s1'; \
                   execute 'prepare s1 as select v from secret'; end $$";
    let (answer, _server, gateway) = play(&[
        ([parse("s1", "select 1"), sync()].concat(), 1),
        (query(replace), 1),
        ([bind("", "s1", &[]), execute("", 0), sync()].concat(), 1),
    ]);
    assert!(!shows_secret(&answer) || told_of_secret(&gateway, &answer), "{answer:?}");
}

#[test]
fn a_cursor_declared_in_sql_and_executed_in_the_protocol() {
    let (answer, _server, gateway) = play(&[
        (query("begin"), 1),
        (query("declare c cursor for select v from secret"), 1),
        ([execute("c", 0), sync()].concat(), 1),
    ]);
    assert!(refused(&answer, "34000") || told_of_secret(&gateway, &answer), "{answer:?}");
}

#[test]
fn a_portal_replaced_behind_the_protocol() {
    let (answer, _server, gateway) = play(&[
        (query("begin"), 1),
        ([parse("", "select 1"), bind("p1", "", &[]), sync()].concat(), 1),
        (query("close p1; declare p1 cursor for select v from secret"), 1),
        ([execute("p1", 0), sync()].concat(), 1),
    ]);
    assert!(refused(&answer, "34000") || told_of_secret(&gateway, &answer), "{answer:?}");
}

/// Whether the rows that came out are those of a recorded command that says so.
fn told_of_secret(gateway: &Gateway, answer: &[Message]) -> bool {
    let record = gateway.settled("games");
    let last = record.commands.last().expect("a command");
    shows_secret(answer) && last.status() == "ok" && last.text().contains("secret")
}
