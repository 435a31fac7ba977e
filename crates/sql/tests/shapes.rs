//! What is known of a text because of another one is what is found out by looking at it.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use proptest::prelude::*;
use proptest::sample::Index;
use sql::{Analyzer, AnalyzerConfig, Encoding, Settings, Strings, analyze};

const SETTINGS: Settings = Settings { strings: Strings::Standard, encoding: Encoding::AsciiSafe };

fn start() -> Arc<Analyzer> {
    let command = vec![env!("CARGO_BIN_EXE_sql-worker").into()];
    Analyzer::start(AnalyzerConfig { command, workers: 1, deadline: Duration::from_secs(120) })
}

#[test]
fn facts_of_one_text_are_those_of_all_of_its_shape() {
    let analyzer = start();
    for (one, other) in [
        (
            "SELECT abalance FROM pgbench_accounts WHERE aid = 4711;",
            "SELECT abalance FROM pgbench_accounts WHERE aid = 7;",
        ),
        ("update t set a = a + -12 where b = 3", "update t set a = a + -0 where b = 999999999"),
        ("insert into t values (1, 2), (3, 4)", "insert into t values (4, 4), (4, 4)"),
        (
            "delete from t where a in (1, 2) and b::varchar(3) < c",
            "delete from t where a in (2, 1) and b::varchar(0) < c",
        ),
        ("select f(1) from t1 order by 1 limit 5 for update", "select f(2) from t1 order by 2 limit 0 for update"),
    ] {
        assert_eq!(analyzer.known(one.as_bytes(), SETTINGS), None, "{one}");
        analyzer.ask(one.as_bytes(), SETTINGS).blocking_recv().unwrap();
        for text in [one, other] {
            assert_eq!(analyzer.known(text.as_bytes(), SETTINGS).as_deref(), Some(&analyze(text.as_bytes(), SETTINGS)));
        }
        let otherwise = Settings { encoding: Encoding::Other, ..SETTINGS };
        assert_eq!(analyzer.known(one.as_bytes(), otherwise), None, "{one}");
    }
}

/// Where a number is not an integer, where the grammar looks at it, where it is no constant in an expression, or where what
/// it is counts.
#[test]
fn facts_of_other_texts_are_their_own() {
    let analyzer = start();
    for (one, other) in [
        ("select 1", "select 1.0"),
        ("select 1", "select 1e5"),
        ("select 1", "select 0x1F"),
        ("select 1", "select 1_0"),
        ("select 1", "select 1a"),
        ("select 1", "select 2147483648"),
        ("select 1", "select '1'"),
        ("select 1", "select $1"),
        ("select 1", "select +1"),
        ("select 1", "select  1"),
        ("select 1", "select 1 -- 2"),
        ("select a1 from t where b = 1", "select a2 from t where b = 1"),
        ("select a from t1 where b = 1", "select a from t2 where b = 1"),
        ("select a1()", "select a2()"),
        ("select 1::float(24)", "select 1::float(25)"),
        ("select 1::float(1)", "select 1::float(99)"),
        ("select current_time(1)", "select current_time(2)"),
        ("select null::int[1]", "select null::int[2]"),
        ("select null::int array[1]", "select null::int array[2]"),
        ("fetch 1 from c", "fetch 2 from c"),
        ("set work_mem = 1", "set work_mem = 2"),
        ("set work_mem to -1", "set work_mem to -2"),
        ("explain (analyze 0) delete from t", "explain (analyze 1) delete from t"),
        ("alter table t alter column 1 set statistics 5", "alter table t alter column 0 set statistics 5"),
        ("create table t (a int) partition by range (a)", "create table t (a int) partition by range (b)"),
        ("vacuum (parallel 1) t", "vacuum (parallel 2) t"),
        ("nonsense 1", "nonsense 2"),
    ] {
        analyzer.ask(one.as_bytes(), SETTINGS).blocking_recv().unwrap();
        assert_eq!(analyzer.known(other.as_bytes(), SETTINGS), None, "{one}; {other}");
    }
}

/// Statements of `tests/corpus`, and some with more integers.
static STATEMENTS: LazyLock<Vec<String>> = LazyLock::new(|| {
    let own = WITH_INTEGERS.iter().map(|&statement| statement.to_owned());
    let corpus = testkit::corpus::statements();
    own.chain(corpus.iter().filter_map(|entry| entry.text("sql").map(str::to_owned))).collect()
});

const WITH_INTEGERS: &[&str] = &[
    "select a from t where b = 1 and c < -2 order by 1 limit 3 offset 4",
    "select * from t fetch first 5 rows only",
    "select * from t tablesample system (10) repeatable (3)",
    "select sum(a) over (order by b rows between 1 preceding and 2 following) from t",
    "select a[1], b[2:3], c::int[4], d::varchar(5), e::numeric(6, 7), f::float(8), g::bit(9) from t",
    "select current_timestamp(1), localtime(2), interval(3) 'x', substring(a from 4 for 5)",
    "select 1 union select 2 intersect select -3",
    "insert into t1 (a, b2) values (1, -2), (3, 4) on conflict (a) do update set a = 5 where t1.a > 6 returning 7",
    "update t set a = a + 1, b = array[2, 3] where c between 4 and 5",
    "merge into t using (values (1, 2)) v (a, b) on t.a = v.a and 1 = 1 when matched and b > 3 then update set b = 4 when not matched then insert values (5)",
    "delete from t using u where t.a = u.a and u.b in (1, 2, 3)",
    "with x as (select 1 as a limit 2) delete from t where b = (select a + 3 from x)",
    "select case a when 1 then 2 else 3 end, coalesce(4, 5), nullif(6, 7), greatest(8, 9) from generate_series(1, 10) a",
    "select extract(year from a) + 1, a at time zone b, 2 = any (c), row(3, 4) < row(5, 6) from t group by 1, 2, cube (3)",
    "fetch 1 from c",
    "set work_mem = 1",
    "alter table t alter column a set statistics 1",
    "create table t (a int[1], b varchar(2) default 3, check (a[1] > 4)) partition by hash (b)",
    "create table t partition of u for values with (modulus 1, remainder 0)",
    "select nextval(1), setval(2, 3), pg_notify(4, 5), lo_import(6), set_config(7, 8, 9)",
    "select 1;select 2; delete from t where a = 3",
    "declare c cursor for select 1",
    "prepare p as select 1",
    "explain (analyze 1, buffers 0) select 2",
];

static ANALYZER: LazyLock<Arc<Analyzer>> = LazyLock::new(start);

/// What takes the place of digits: mostly integers, and what is close to one.
fn digits() -> impl Strategy<Value = String> {
    prop_oneof![
        12 => "[0-9]{1,9}",
        1 => "[0-9]{10,12}",
        1 => prop::sample::select(vec!["1.5", ".5", "1.", "1..2", "1e5", "0x1F", "0b1", "0o7", "1_000", "1a", "$1", "-1", "--1", "- 1", "+1", "E'1'", "'1'", "\"1\"", "1 2", "/*1*/", "1;", "(1)", "é", "#1", "a1", "1'", ""]).prop_map(str::to_owned),
    ]
}

/// The text with each of its runs of digits, wherever it is, either as it is or another.
fn with(text: &str, others: &[(String, bool)], from: usize) -> String {
    let mut changed = String::new();
    let mut rest = text;
    let mut number = from;
    while let Some(start) = rest.find(|c: char| c.is_ascii_digit()) {
        let (before, after) = rest.split_at(start);
        let (run, after) = after.split_at(after.find(|c: char| !c.is_ascii_digit()).unwrap_or(after.len()));
        let (other, change) = &others[number % others.len()];
        changed.push_str(before);
        changed.push_str(if *change { other } else { run });
        number += 1;
        rest = after;
    }
    changed + rest
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn what_is_known_is_what_would_be_found_out(
        statement in any::<Index>(),
        others in prop::collection::vec((digits(), prop::bool::weighted(0.7)), 1..6),
    ) {
        let statement = statement.get(&STATEMENTS);
        // The first may make its shape known, the others use it.
        for number in 0..others.len() {
            let text = with(statement, &others, number);
            let said = ANALYZER.ask(text.as_bytes(), SETTINGS).blocking_recv().unwrap();
            prop_assert_eq!(&*said, &analyze(text.as_bytes(), SETTINGS), "{}", text);
        }
    }
}
