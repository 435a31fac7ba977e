//! Random sequences of messages, played directly and through the gateway: every answer must be the
//! same, byte for byte, and the record must hold what the server's log says ran. SQL that plays with
//! the names of statements and portals is left out: there the gateway refuses what the server would
//! do, and the tests of names say how.

use testkit::raw::{
    Message, Raw, bind, close_statement, copy_data, copy_done, describe_portal, execute, parse, query, sync,
};
use testkit::{Target, agree};

use crate::start;

const SEQUENCES: u64 = 150;
const MESSAGES: u64 = 25;

/// A small generator of numbers: the same seed plays the same sequence.
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }

    fn pick<'t>(&mut self, of: &[&'t str]) -> &'t str {
        of[usize::try_from(self.below(of.len() as u64)).unwrap()]
    }
}

const TEXTS: [&str; 10] = [
    "select 1",
    "select n from generate_series(1, 4) as n",
    "insert into pg_temp.t values (1)",
    "insert into pg_temp.t values (1), (2)",
    "select * from missing",
    "select 1 / 0",
    "update pg_temp.t set n = n + 1",
    "select count(*) from pg_temp.t",
    "this is no sql",
    "show timezone",
];

const QUERIES: [&str; 10] = [
    "select 1",
    "begin",
    "commit",
    "rollback",
    "select 1; select 2",
    "select 1; select 1 / 0; select 3",
    "begin; insert into pg_temp.t values (5); select * from missing; commit",
    "insert into pg_temp.t values (7); commit; select 1",
    "savepoint a",
    "rollback to a",
];

const STATEMENTS: [&str; 3] = ["", "s0", "s1"];
const PORTALS: [&str; 2] = ["", "p0"];

fn sequence(seed: u64) -> Vec<u8> {
    let mut dice = Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let mut bytes = query("create temp table t (n int4)");
    for _ in 0..MESSAGES {
        let message = match dice.below(20) {
            0..=3 => parse(dice.pick(&STATEMENTS), dice.pick(&TEXTS)),
            4..=7 => bind(dice.pick(&PORTALS), dice.pick(&STATEMENTS), &[]),
            8..=11 => {
                let portal = dice.pick(&PORTALS);
                execute(portal, u32::try_from(dice.below(3)).unwrap())
            }
            12 => describe_portal(dice.pick(&PORTALS)),
            13 => close_statement(dice.pick(&STATEMENTS)),
            14..=15 => sync(),
            16 => [
                sync(),
                query("copy pg_temp.t from stdin"),
                copy_data(if dice.below(2) == 0 { b"3\n" } else { b"x\n" }),
                copy_done(),
            ]
            .concat(),
            17 => query("copy pg_temp.t to stdout"),
            _ => query(dice.pick(&QUERIES)),
        };
        bytes.extend(message);
    }
    bytes.extend(sync());
    bytes.extend(query("rollback"));
    bytes.extend(query(&format!("select 'end of {seed}'")));
    bytes
}

/// What is compared of an answer: all of it, but for errors, where the gateway's own refusals have
/// the server's SQLSTATE and words of their own.
fn play(target: &Target, seed: u64) -> Vec<String> {
    let mut raw = Raw::login(target);
    raw.send(&sequence(seed));
    let end = format!("end of {seed}");
    let mut seen = Vec::new();
    let mut over = false;
    while let Some(message) = raw.read() {
        over |= message.kind == b'D' && message.body.ends_with(end.as_bytes());
        let last = over && message.kind == b'Z';
        seen.push(shown(&message));
        if last {
            break;
        }
    }
    seen
}

/// A sequence as it reads: kinds and what is in them.
fn sent(mut bytes: &[u8]) -> String {
    let mut text = String::new();
    while let Some((header, rest)) = bytes.split_at_checked(5) {
        let length = u32::from_be_bytes(header[1..].try_into().unwrap());
        let (body, rest) = rest.split_at(usize::try_from(length - 4).unwrap());
        let kind = header[0];
        text += &shown(&Message { kind, body: body.to_vec() });
        text.push(' ');
        bytes = rest;
    }
    text
}

fn shown(message: &Message) -> String {
    match (message.field(b'S'), message.field(b'C')) {
        (Some(severity), Some(code)) if message.kind == b'E' => {
            // A portal that is nobody's Bind is unknown to the gateway; to the server it may be the
            // failed one of an earlier simple query, which it refuses by another code.
            let code = if code == "55000" { "34000" } else { &code };
            format!("E {severity} {code}")
        }
        _ => format!("{message:?}"),
    }
}

#[test]
fn random_sequences() {
    let (server, gateway) = start();
    server.create_database("direct");
    server.create_database("through");
    let direct = server.target().with_database("direct");
    let through = gateway.target().with_database("app/through");
    for seed in 0..SEQUENCES {
        let (expected, seen) = (play(&direct, seed), play(&through, seed));
        if let Some(at) = (0..expected.len().max(seen.len())).find(|i| expected.get(*i) != seen.get(*i)) {
            let from = at.saturating_sub(4);
            panic!(
                "seed {seed}, answer {at}:\nsent {}\ndirect {:#?}\nthrough the gateway {:#?}\n{}",
                sent(&sequence(seed)),
                expected.get(from..(at + 3).min(expected.len())),
                seen.get(from..(at + 3).min(seen.len())),
                gateway.stderr(),
            );
        }
    }
    let record = gateway.settled("through");
    let ran = server.log().ran("through");
    agree::succeeded_as_often(&record, &ran);
    gateway.verify();
}
