//! The statements that read or change what they should not, in every way that is known, sent through a gateway that allows
//! reading plain tables only.
//!
//! `touches` of an entry says what it does where nobody stands in between; here it must do nothing.

use std::process::Command;

use testkit::corpus::{Entry, OnError, RESET, STATE, shows_a_secret, statements};
use testkit::postgres::binary;
use testkit::process::run;
use testkit::{Gateway, Postgres, Target};

use crate::plan;

const POLICY: &str = include_str!("../../../../docs/examples/policy/read-only-tables.yaml");
const PLAIN_TABLES: &str = include_str!("../../../../docs/examples/catalogue/plain-tables.sql");
const REACHABLE_FUNCTIONS: &str = include_str!("../../../../docs/examples/catalogue/reachable-functions.sql");

/// Those that run a function which is named by nothing but an operator, a column or a function of PostgreSQL's own.
const BEHIND_A_BUILT_IN_NAME: [&str; 5] = [
    "hidden: function called like a column (hidden)",
    "hidden: function of a built-in name for a row (hidden)",
    "hidden: operator of a built-in name for a row (hidden)",
    "hidden: operator of a built-in name for other types (hidden)",
    "hidden: function of a built-in name for other types (hidden)",
];

/// A server with the corpus' database, and a gateway whose agents may read its plain tables, but not `customers`.
fn start() -> (Postgres, Gateway) {
    let server = Postgres::start();
    server.sql(RESET);
    let tables = server.sql(PLAIN_TABLES);
    let tables: Vec<&str> = tables.lines().filter(|table| *table != "public.customers").collect();
    // No view, and not what `customers` inherits from.
    let expected = ["audited", "defaulted", "inbox", "other", "part", "part_2", "parted", "regions"];
    assert_eq!(tables, expected.map(|table| format!("public.{table}")));
    let (before, after) = POLICY.split_once("[public.orders, public.order_items]").unwrap();
    let gateway = plan().policy(&format!("{before}[{}]{after}", tables.join(", ")), "enforce").start(&server);
    (server, gateway)
}

/// What psql prints of a statement that must run.
#[track_caller]
fn psql(target: &Target, statement: &str) -> String {
    let mut psql = Command::new(binary("psql"));
    target.libpq(&mut psql);
    run(psql.args(["-XAtq", "-c", statement]), "").expect_success(statement).trim_end().to_owned()
}

/// Whether the entry does something through the gateway that it should not.
fn gets_past(server: &Postgres, target: &Target, entry: &Entry, untouched: &str) -> bool {
    let output = entry.run(target, OnError::GoOn);
    shows_a_secret(&output) || server.sql(STATE) != untouched
}

#[test]
fn no_statement_of_the_corpus_gets_past_a_policy_of_plain_tables() {
    let (server, gateway) = start();
    let untouched = server.sql(STATE);
    let entries = statements();
    let touching = entries.iter().filter(|entry| !entry.list("touches").is_empty()).count();
    assert!(touching > 150, "{touching}");

    // As a superuser, whom the server forbids nothing: what the policy alone stops.
    let mut past = Vec::new();
    for entry in &entries {
        if gets_past(&server, &gateway.target(), entry, &untouched) {
            past.push(entry.id());
            server.sql(RESET);
        }
    }
    assert_eq!(past, BEHIND_A_BUILT_IN_NAME);

    // As one who may do all to all tables, but executes no function that has not been looked at.
    let user = Target { user: "md5_user".into(), ..server.target() };
    server.sql(
        "grant all on schema public, evil_schema to md5_user; grant all on all tables in schema public to md5_user",
    );
    let functions = psql(&user, REACHABLE_FUNCTIONS);
    assert!(functions.contains("leak(other)") && !functions.contains("t_delete"), "{functions}");
    for function in functions.lines() {
        server.sql(&format!("revoke execute on routine {function} from public"));
    }
    let reader = gateway.target().with_database("md5");
    for entry in entries.iter().filter(|entry| past.contains(&entry.id())) {
        assert!(!gets_past(&server, &reader, entry, &untouched), "{}", entry.id());
    }
    gateway.verify();
}

#[test]
fn plain_tables_are_read_all_the_same() {
    let (server, gateway) = start();
    server.sql("insert into part values (1); insert into parted values (2)");
    for (statement, answer) in [
        ("select count(*) from regions", "2"),
        ("select note from public.other where id = 2", "two"),
        ("with r as (select id from regions) select max(o.id) from other o join r on r.id = o.id", "2"),
        ("select id from parted union all select id from part order by 1", "1\n2"),
        ("select upper(note) || '!' from other where note like 'o%'", "ONE!"),
        ("show server_version_num", server.sql("show server_version_num").as_str()),
    ] {
        assert_eq!(psql(&gateway.target(), statement), answer, "{statement}");
    }
    assert!(psql(&gateway.target(), "explain select * from other").contains("Seq Scan"));
    gateway.verify();
}
