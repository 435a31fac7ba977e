//! Ten thousand connections that want nothing good.

use std::process::Command;
use std::thread;

use testkit::postgres::binary;
use testkit::process;
use testkit::raw::{Raw, kinds, query};
use testkit::{Postgres, Target};

use crate::plan;

const CONNECTIONS: usize = 10_000;
const THREADS: usize = 8;
const AT_ONCE: usize = 64;

/// What each third of them sends.
fn say(number: usize) -> Vec<u8> {
    match number % 3 {
        0 => Vec::new(),
        1 => (0..8).map(|i| u8::try_from(number * 31 % 251).unwrap().wrapping_mul(i * 2 + 3)).collect(),
        _ => [&0x8000_0000u32.to_be_bytes()[..], &0x0003_0000u32.to_be_bytes(), b"user\0"].concat(),
    }
}

fn flood(target: &Target) {
    thread::scope(|scope| {
        for part in 0..THREADS {
            scope.spawn(move || {
                let share = (part..CONNECTIONS).step_by(THREADS).collect::<Vec<_>>();
                for wave in share.chunks(AT_ONCE) {
                    let mut open: Vec<Raw> = wave.iter().map(|_| Raw::connect(target)).collect();
                    for (raw, number) in open.iter_mut().zip(wave) {
                        let _ = raw.try_send(&say(*number));
                    }
                    // Those who spoke are refused; those who are silent hang up.
                    for (mut raw, number) in open.into_iter().zip(wave) {
                        if number % 3 == 0 {
                            continue;
                        }
                        raw.finish();
                        while raw.read_byte().is_some() {}
                    }
                }
            });
        }
    });
}

#[test]
fn ten_thousand_strangers() {
    let server = Postgres::start();
    let mut gateway = plan().limits("connections_max = 2000").start(&server);
    let target = gateway.target();
    let before = gateway.peak_memory_kib();
    let mut honest = Raw::login(&target);
    flood(&target);
    // Who was inside stays inside, and new ones get in.
    assert_eq!(kinds(&honest.exchange(&query("select 'inside'"), 1)), "TDCZ");
    let mut psql = Command::new(binary("psql"));
    target.libpq(&mut psql).args(["-XAtqc", "select 'after'"]);
    assert_eq!(process::run(&mut psql, "").expect_success("psql").trim(), "after");
    let after = gateway.peak_memory_kib();
    assert!(after < before + 128 * 1024, "memory peaked at {after} KiB, from {before} KiB");
    assert!(gateway.running());
    assert!(!gateway.stderr().contains("panicked"), "{}", gateway.stderr());
    gateway.stop();
    gateway.verify();
    // Recorded, and folded: entries by reason and source, not ten thousand of them.
    let refused = gateway.entries("refused");
    assert!((1..1000).contains(&refused), "{refused} entries of refused connections");
}

#[test]
fn the_silent_are_sent_away() {
    let server = Postgres::start();
    let limits = "authentication_seconds_max = 1\nconnections_max = 300";
    let gateway = plan().limits(limits).start(&server);
    let target = gateway.target();
    let silent: Vec<Raw> = (0..200).map(|_| Raw::connect(&target)).collect();
    for mut raw in silent {
        while raw.read_byte().is_some() {}
    }
    assert_eq!(kinds(&Raw::login(&target).exchange(&query("select 1"), 1)), "TDCZ");
}

#[test]
fn more_connections_than_allowed() {
    let server = Postgres::start();
    let gateway = plan().limits("connections_max = 20").start(&server);
    let target = gateway.target();
    let inside: Vec<Raw> = (0..20).map(|_| Raw::login(&target)).collect();
    let mut one_more = Raw::connect(&target);
    let refusal = one_more.authenticate(&target, 0x0003_0000, &[]).expect_err("a refusal");
    assert!(matches!(refusal.field(b'C').as_deref(), None | Some("53300")), "{refusal:?}");
    drop(inside);
    process::poll("a place to become free", || Raw::connect(&target).authenticate(&target, 0x0003_0000, &[]).ok());
}

#[test]
fn more_connections_of_one_identity_than_allowed() {
    let server = Postgres::start();
    let gateway = plan().limits("connections_per_identity_max = 3").start(&server);
    let target = gateway.target();
    let inside: Vec<Raw> = (0..3).map(|_| Raw::login(&target)).collect();
    let refusal = Raw::connect(&target).authenticate(&target, 0x0003_0000, &[]).expect_err("a refusal");
    assert_eq!(refusal.field(b'C').as_deref(), Some("53300"), "{refusal:?}");
    // Another identity is not kept out by it.
    Raw::login(&target.with_user("app_owner", &target.password));
    drop(inside);
    process::poll("a place to become free", || Raw::connect(&target).authenticate(&target, 0x0003_0000, &[]).ok());
}

#[test]
fn the_idle_are_sent_away() {
    let server = Postgres::start();
    let gateway = plan().limits("idle_seconds_max = 1").start(&server);
    let mut raw = Raw::login(&gateway.target());
    assert_eq!(kinds(&raw.exchange(&query("select 1"), 1)), "TDCZ");
    while let Some(last) = raw.read() {
        assert_eq!(last.field(b'C').as_deref(), Some("57P05"), "{last:?}");
    }
}
