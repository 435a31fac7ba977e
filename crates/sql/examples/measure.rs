//! Measures: analysis in this process, what is known, and the way to the other process and back.
//!
//! `cargo run --release -p sql --example measure -- target/release/sql-worker`
#![allow(clippy::print_stdout, clippy::expect_used)]

use std::hint::black_box;
use std::time::{Duration, Instant};

use sql::{Analyzer, AnalyzerConfig, Encoding, Settings, Strings, analyze};

const TEXTS: &[(&str, &str)] = &[
    ("select 1", "select 1"),
    ("pgbench select", "SELECT abalance FROM pgbench_accounts WHERE aid = 4711;"),
    (
        "5-way join",
        "select c.name, n.name, sum(l.price * (1 - l.discount)) as revenue from customer c join orders o on o.custkey = c.custkey \
         join lineitem l on l.orderkey = o.orderkey join supplier s on s.suppkey = l.suppkey join nation n on n.nationkey = s.nationkey \
         where o.orderdate >= date '2026-01-01' and o.orderdate < date '2026-02-01' and c.segment = 'BUILDING' \
         group by c.name, n.name having sum(l.price) > 100 order by revenue desc limit 20",
    ),
];
/// Rounds, of which the quickest counts.
const ROUNDS: usize = 9;

fn main() {
    let settings = Settings { strings: Strings::Standard, encoding: Encoding::AsciiSafe };
    let worker = std::env::args_os().nth(1).expect("the path of sql-worker");
    let worker = std::fs::canonicalize(worker).expect("a path of sql-worker").into_os_string();
    for (name, text) in TEXTS {
        let text = text.as_bytes();
        report(name, "analyse", 2000, || {
            black_box(analyze(black_box(text), settings));
        });
        let config = AnalyzerConfig { command: vec![worker.clone()], workers: 1, deadline: Duration::from_secs(10) };
        let analyzer = Analyzer::start(config);
        let mut number = 0_u64;
        report(name, "ask", 2000, || {
            // Texts that were not asked before.
            number += 1;
            let text = [text, format!(" -- {number}").as_bytes()].concat();
            analyzer.ask(&text, settings).blocking_recv().expect("facts");
        });
        analyzer.ask(text, settings).blocking_recv().expect("facts");
        let other = String::from_utf8_lossy(text).replace("4711", "12").into_bytes();
        report(name, "known, other integers", 100_000, || {
            black_box(analyzer.known(black_box(&other), settings));
        });
        report(name, "known", 100_000, || {
            black_box(analyzer.known(black_box(text), settings));
        });
    }
}

fn report(name: &str, what: &str, times: u32, mut run: impl FnMut()) {
    let mut round = || {
        let start = Instant::now();
        (0..times).for_each(|_| run());
        start.elapsed() / times
    };
    let best = (0..ROUNDS).map(|_| round()).min().unwrap_or_default();
    println!("{name:16} {what:22} {:8.2} us", best.as_secs_f64() * 1e6);
}
