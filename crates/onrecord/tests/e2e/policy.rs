//! A policy decides each command: what it denies does not reach the server, in every way in which a client can send it,
//! and the record says what was decided, by which rules, on what.

use std::process::Command;

use rustix::process::Signal;
use testkit::postgres::binary;
use testkit::process::{Finished, poll, run};
use testkit::raw::{Message, Raw, bind, describe_portal, execute, kinds, parse, query, sync};
use testkit::{Gateway, Plan, Postgres};

use crate::plan;

/// Agents read and change what they understand to name; nobody changes every row.
const CAREFUL: &str = r#"
version: 1
default: deny
rules:
  - id: read
    when: 'identity.kind == "agent" && cmd.complete && cmd.effects.all(e, e in ["read", "session"])'
    then: allow
  - id: write
    when: 'conn.labels.?env.orValue("") == "prod" && cmd.complete && cmd.effects.all(e, e in ["read", "write"])'
    then: allow
  - id: no-unbounded-change
    when: '("delete" in cmd.operations || "update" in cmd.operations) && !cmd.has_where'
    then: deny
    message: add a WHERE clause that says which rows
"#;
const READ_ONLY: &str = r#"
version: 1
default: deny
rules:
  - {id: read, when: 'cmd.complete && cmd.effects.all(e, e in ["read", "session"])', then: allow}
"#;

fn start(plan: Plan) -> (Postgres, Gateway) {
    let server = Postgres::start();
    server.create_database("shop");
    server.sql_in(
        "shop",
        "create table orders (id int4 primary key, note text); \
         insert into orders select n, 'note ' || n from generate_series(1, 10) n; \
         create table secret (v int4); insert into secret values (42); \
         grant all on all tables in schema public to app_owner; alter table orders owner to app_owner; \
         alter table secret owner to app_owner",
    );
    let gateway = plan.start(&server);
    (server, gateway)
}

fn login(gateway: &Gateway) -> Raw {
    Raw::login(&gateway.target().with_database("app/shop"))
}

fn orders(server: &Postgres) -> String {
    server.sql_in("shop", "select count(*) from orders").trim().to_owned()
}

fn error(answer: &[Message]) -> &Message {
    answer.iter().find(|message| message.kind == b'E').unwrap_or_else(|| panic!("no error in {answer:?}"))
}

#[track_caller]
fn assert_refused(answer: &[Message], says: &str) {
    let error = error(answer);
    assert_eq!(error.field(b'C').as_deref(), Some("42501"), "{error:?}");
    let message = error.field(b'M').unwrap();
    assert!(message.starts_with("OnRecord refused this statement: ") && message.contains(says), "{message}");
}

#[track_caller]
fn assert_never_ran(server: &Postgres, part: &str) {
    let ran = server.log().ran("shop");
    assert!(!ran.iter().any(|ran| ran.text.contains(part)), "`{part}` reached the server");
}

fn psql(gateway: &Gateway, text: &str) -> Finished {
    let mut psql = Command::new(binary("psql"));
    gateway.target().with_database("app/shop").libpq(&mut psql);
    run(psql.args(["-X", "-A", "-t", "-c", text]), "")
}

#[test]
fn a_change_of_every_row_is_refused_with_what_to_do_in_psql() {
    let (server, gateway) = start(plan().policy(CAREFUL, "enforce"));
    let refused = psql(&gateway, "DELETE FROM orders");
    assert!(!refused.status.success(), "{refused:?}");
    assert!(
        refused.stderr.contains("add a WHERE clause that says which rows (rule no-unbounded-change)"),
        "{refused:?}"
    );
    assert!(refused.stderr.contains("It was not sent to the server. The record has it as "), "{refused:?}");
    assert_eq!(orders(&server), "10");
    assert_never_ran(&server, "DELETE FROM orders");
    assert!(psql(&gateway, "DELETE FROM orders WHERE id = 3").status.success());
    assert_eq!(psql(&gateway, "select count(*) from orders").stdout.trim(), "9");

    let record = gateway.settled("shop");
    let denied = record.commands.iter().find(|command| command.text() == "DELETE FROM orders").unwrap();
    assert_eq!((denied.status(), denied.code(), denied.str("verdict")), ("denied", Some("42501"), Some("deny")));
    assert_eq!(denied.0["rules"], serde_json::json!(["write", "no-unbounded-change"]));
    let shown = gateway.cli(&["show", denied.str("id").unwrap(), "--output", "json"]).expect_success("show");
    let shown: serde_json::Value = serde_json::from_str(&shown).unwrap();
    assert_eq!(shown["effects"]["operations"], serde_json::json!(["delete"]));
    assert_eq!(shown["effects"]["relations"][0]["name"], "orders");
    assert_eq!(shown["effects"]["has_where"], false);
    assert_eq!(shown["policy"].as_str().map(str::len), Some(64));
    let page = gateway.cli(&["show", denied.str("id").unwrap()]).expect_success("show");
    assert!(page.contains("no-unbounded-change") && page.contains("delete (write)"), "{page}");
    gateway.verify();
}

#[test]
fn a_refusal_keeps_the_place_in_the_protocol() {
    let (server, gateway) = start(plan().policy(READ_ONLY, "enforce"));
    let mut raw = login(&gateway);
    // In the middle of a batch of queries.
    let answer =
        raw.exchange(&[query("select 1"), query("delete from orders where id = 1"), query("select 2")].concat(), 3);
    assert_eq!(kinds(&answer), "TDCZEZTDCZ", "{answer:?}");
    assert_refused(&answer, "no rule of the connection's policy allows it");
    // Prepared: refused at its Parse, and what follows is skipped until Sync.
    let change =
        [parse("s", "delete from orders where id = $1"), bind("", "s", &["1"]), execute("", 0), sync()].concat();
    let answer = raw.exchange(&change, 1);
    assert_eq!(kinds(&answer), "EZ", "{answer:?}");
    assert_refused(&answer, "no rule");
    let read =
        [parse("s", "select count(*) from orders"), bind("", "s", &[]), describe_portal(""), execute("", 0), sync()];
    assert_eq!(kinds(&raw.exchange(&read.concat(), 1)), "12TDCZ");
    // A transaction that is open fails with it, as it would have by the server's own error.
    assert_eq!(kinds(&raw.exchange(&query("begin"), 1)), "CZ");
    assert_refused(&raw.exchange(&query("truncate orders"), 1), "no rule");
    let failed = raw.exchange(&query("select 1"), 1);
    assert_eq!(error(&failed).field(b'C').as_deref(), Some("25P02"));
    assert_eq!(kinds(&raw.exchange(&query("rollback"), 1)), "CZ");
    assert_eq!(kinds(&raw.exchange(&query("select count(*) from orders"), 1)), "TDCZ");
    assert_eq!(orders(&server), "10");
    for part in ["delete", "truncate"] {
        assert_never_ran(&server, part);
    }
    let record = gateway.settled("shop");
    let denied: Vec<_> = record.commands.iter().filter(|command| command.status() == "denied").collect();
    // The Bind of the statement whose Parse was refused is an attempt of its own, of a statement that there is not.
    let via: Vec<_> = denied.iter().map(|command| command.str("via").unwrap()).collect();
    assert_eq!(via, ["simple", "parse", "extended", "simple"], "{:#?}", record.texts());
    // Whoever refused, the policy in force is named.
    for command in denied {
        let shown = gateway.cli(&["show", command.str("id").unwrap(), "--output", "json"]).expect_success("show");
        let shown: serde_json::Value = serde_json::from_str(&shown).unwrap();
        assert_eq!(shown["policy"].as_str().map(str::len), Some(64), "{shown}");
    }
    gateway.verify();
}

#[test]
fn what_only_observes_denies_nothing_and_says_so() {
    let (server, gateway) = start(plan().policy(READ_ONLY, "observe"));
    let mut raw = login(&gateway);
    assert_eq!(kinds(&raw.exchange(&query("delete from orders where id = 1"), 1)), "CZ");
    assert_eq!(kinds(&raw.exchange(&query("select 'read'"), 1)), "TDCZ");
    assert_eq!(orders(&server), "9");
    let record = gateway.settled("shop");
    let change = record.only("delete");
    assert_eq!((change.status(), change.str("verdict"), change.str("observed")), ("ok", Some("allow"), Some("deny")));
    assert_eq!(record.only("'read'").str("observed"), None);
}

/// A policy file that changes counts from the next command on, in sessions that are open, too. One that is wrong is
/// refused, and what was in force stays.
#[test]
fn a_policy_changes_under_live_sessions() {
    let (server, gateway) = start(plan().policy(CAREFUL, "enforce"));
    let mut raw = login(&gateway);
    let prepare = [parse("s", "delete from orders where id = $1"), sync()].concat();
    assert_eq!(kinds(&raw.exchange(&prepare, 1)), "1Z");
    let change = |id: &str| [bind("", "s", &[id]), execute("", 0), sync()].concat();
    assert_eq!(kinds(&raw.exchange(&change("1"), 1)), "2CZ");
    let entries = gateway.entries("configuration");
    std::fs::write(gateway.policy(), READ_ONLY).unwrap();
    poll("the change to be in force", || (gateway.entries("configuration") > entries).then_some(()));
    assert_refused(&raw.exchange(&change("2"), 1), "no rule");
    std::fs::write(gateway.policy(), READ_ONLY.replace("cmd.complete", "cmd.compleet")).unwrap();
    poll("the refusal", || gateway.stderr().contains("compleet").then_some(()));
    let said = gateway.stderr();
    assert!(said.contains("policy.yaml:5") && said.contains("complete"), "names line and what to write: {said}");
    assert_refused(&raw.exchange(&change("2"), 1), "no rule");
    assert_eq!(orders(&server), "9");
}

/// What a session sets, or did at its start, changes what texts mean: then no facts are the whole.
#[test]
fn settings_cannot_talk_a_policy_round() {
    let (server, gateway) = start(plan().policy(READ_ONLY, "enforce"));
    let target = gateway.target().with_database("app/shop");
    let hidden = r"select 'a\'; delete from orders; --'";
    let mut set_at_start = Raw::connect(&target);
    set_at_start.authenticate(&target, 0x0003_0000, &[("standard_conforming_strings", "off")]).unwrap();
    assert_refused(&set_at_start.exchange(&query("select 1"), 1), "no rule");
    let mut by_options = Raw::connect(&target);
    by_options.authenticate(&target, 0x0003_0000, &[("options", "-c search_path=pg_temp")]).unwrap();
    assert_refused(&by_options.exchange(&query("select * from orders"), 1), "no rule");
    let mut raw = login(&gateway);
    for change in [
        "set standard_conforming_strings = off",
        "select set_config('standard_conforming_strings', 'off', false)",
        "set search_path = pg_temp",
        "set role app_owner",
        "set session authorization default",
    ] {
        assert_refused(&raw.exchange(&query(change), 1), "no rule");
    }
    assert_eq!(kinds(&raw.exchange(&query("set statement_timeout = '1min'"), 1)), "CZ");
    // As the server reads it, this is one string.
    assert_refused(&raw.exchange(&query(hidden), 1), "no rule");
    assert_eq!(kinds(&raw.exchange(&query("select count(*) from orders"), 1)), "TDCZ");
    assert_eq!(orders(&server), "10");
}

/// A text that was prepared while it meant something else is judged by what it meant then.
#[test]
fn a_text_is_judged_as_the_server_has_read_it() {
    // Nothing is denied that does not change rows, so that settings can be changed.
    let policy = r#"
version: 1
default: allow
rules:
  - {id: no-write, when: '"write" in cmd.effects || "unparsed" in cmd.opaque', then: deny}
  - {id: in-doubt, when: '"settings" in cmd.opaque && cmd.operation == "select"', then: deny}
"#;
    let (server, gateway) = start(plan().policy(policy, "enforce"));
    let mut raw = login(&gateway);
    let hidden = r"select 'a\'; delete from orders; --'";
    let game = [
        parse("", "set standard_conforming_strings = off"),
        bind("", "", &[]),
        execute("", 0),
        parse("s", hidden),
        parse("", "set standard_conforming_strings = on"),
        bind("", "", &[]),
        execute("", 0),
        sync(),
        bind("", "s", &[]),
        execute("", 0),
        sync(),
    ];
    raw.send(&game.concat());
    raw.until_ready(2);
    assert_eq!(orders(&server), "10");
    let record = gateway.settled("shop");
    assert!(record.commands.iter().all(|command| !command.text().contains("delete") || command.status() != "ok"));
}

/// Whatever becomes of the analysis, the gateway stays and nothing runs that was not understood.
#[test]
fn a_lost_analysis_loses_nothing_else() {
    let (server, gateway) = start(plan().policy(READ_ONLY, "enforce"));
    let mut raw = login(&gateway);
    assert_eq!(kinds(&raw.exchange(&query("select 0"), 1)), "TDCZ");
    let analysts = || {
        let children =
            std::fs::read_to_string(format!("/proc/{0}/task/{0}/children", gateway.id())).unwrap_or_default();
        let tasks = std::fs::read_dir(format!("/proc/{}/task", gateway.id())).unwrap();
        let of = |task: std::io::Result<std::fs::DirEntry>| {
            std::fs::read_to_string(task.unwrap().path().join("children")).unwrap_or_default()
        };
        let all: String = tasks.map(of).collect::<Vec<_>>().join(" ") + &children;
        let mut pids: Vec<i32> = all.split_whitespace().map(|pid| pid.parse().unwrap()).collect();
        pids.dedup();
        pids
    };
    assert!(!analysts().is_empty(), "the analysis is in processes of its own");
    for round in 0..5 {
        for pid in analysts() {
            let _ = rustix::process::kill_process(rustix::process::Pid::from_raw(pid).unwrap(), Signal::KILL);
        }
        // Either it was analysed anew, or it is not understood and refused.
        let answer = raw.exchange(&query(&format!("select {round}, 'again'")), 1);
        assert!(["TDCZ", "EZ"].contains(&kinds(&answer).as_str()), "{answer:?}");
        assert_refused(&raw.exchange(&query(&format!("delete from orders where id = {round}")), 1), "no rule");
    }
    poll("the analysis to be back", || {
        let answer = raw.exchange(&query("select 'and back'"), 1);
        (kinds(&answer) == "TDCZ").then_some(())
    });
    assert_eq!(orders(&server), "10");
    gateway.verify();
}

/// Texts that are too long to be looked at are not understood.
#[test]
fn a_text_too_long_to_be_read_is_not_understood() {
    let (server, gateway) = start(plan().policy(READ_ONLY, "enforce"));
    let mut raw = login(&gateway);
    for bytes in [100_000, 2 << 20] {
        let padded = format!("select 1 /* {} */; delete from orders", "x".repeat(bytes));
        assert_refused(&raw.exchange(&query(&padded), 1), "no rule");
        let prepared = [parse("long", &padded), bind("", "long", &[]), execute("", 0), sync()].concat();
        assert_refused(&raw.exchange(&prepared, 1), "no rule");
    }
    assert_eq!(kinds(&raw.exchange(&query("select 1"), 1)), "TDCZ");
    assert_eq!(orders(&server), "10");
    assert_never_ran(&server, "delete");
}

#[test]
fn a_gateway_does_not_start_with_a_policy_that_is_wrong() {
    let (_server, mut gateway) = start(plan().policy(READ_ONLY, "enforce"));
    gateway.stop();
    std::fs::write(gateway.policy(), "version: 1\nrules:\n  - {id: a, when: 'cmd.nothing', then: allow}\n").unwrap();
    let said = gateway.try_restart().expect_err("it is refused");
    assert!(said.contains("policy.yaml:3") && said.contains("rule a") && said.contains("nothing"), "{said}");
}
