//! Processes that analyse: real ones, and ones that do not do what they should.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::ffi::OsString;
use std::fs;
use std::io::Write;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use model::{Effect, Facts, Opaque, Operation};
use sql::{Analyzer, AnalyzerConfig, Encoding, QUEUE_MAX, STARTS_MAX, Settings, Strings, TEXT_BYTES_MAX, analyze};
use tokio::sync::oneshot::Receiver;

const SETTINGS: Settings = Settings { strings: Strings::Standard, encoding: Encoding::AsciiSafe };
/// Never reached by what answers.
const LONG: Duration = Duration::from_secs(120);
/// Always reached by what does not.
const SHORT: Duration = Duration::from_millis(200);

fn real(argument: &str) -> Vec<OsString> {
    vec![env!("CARGO_BIN_EXE_sql-worker").into(), argument.into()]
}

fn start(command: &[&str], deadline: Duration) -> Arc<Analyzer> {
    started(command.iter().map(OsString::from).collect(), 1, deadline)
}

fn started(command: Vec<OsString>, workers: usize, deadline: Duration) -> Arc<Analyzer> {
    Analyzer::start(AnalyzerConfig { command, workers, deadline })
}

fn facts(asked: Receiver<Arc<Facts>>) -> Arc<Facts> {
    asked.blocking_recv().unwrap()
}

#[test]
fn facts_are_those_of_this_process_and_remembered() {
    let analyzer = started(real("remembers"), 2, LONG);
    for text in ["select 1", "delete from \"ü\"", "selec", "", "select 'a\\'; drop table t; --'"] {
        assert_eq!(analyzer.known(text.as_bytes(), SETTINGS), None);
        let asked = facts(analyzer.ask(text.as_bytes(), SETTINGS));
        assert_eq!(*asked, analyze(text.as_bytes(), SETTINGS), "{text}");
        assert_eq!(analyzer.known(text.as_bytes(), SETTINGS), Some(asked));
        let other = Settings { strings: Strings::Either, ..SETTINGS };
        assert_eq!(analyzer.known(text.as_bytes(), other), None);
    }
}

#[test]
fn many_at_once_are_all_answered() {
    let analyzer = started(real("many"), 2, LONG);
    let texts: Vec<String> = (0..500).map(|number| format!("update t{number} set a = 1")).collect();
    let asked: Vec<_> = texts.iter().map(|text| analyzer.ask(text.as_bytes(), SETTINGS)).collect();
    for (number, asked) in asked.into_iter().enumerate() {
        assert_eq!(facts(asked).relations[0].name, format!("t{number}"));
    }
}

#[test]
fn what_cannot_be_analysed_is_not_sent() {
    let analyzer = start(&["/bin/false"], LONG);
    let long = vec![b' '; TEXT_BYTES_MAX + 1];
    assert_eq!(facts(analyzer.ask(&long, SETTINGS)).opaque, [Opaque::TooLong]);
    assert_eq!(facts(analyzer.ask(b"select '\xff'", SETTINGS)).opaque, [Opaque::Encoding]);
}

#[test]
fn the_longest_text_passes_both_pipes() {
    let analyzer = started(real("longest"), 1, LONG);
    let mut text = b"select 1 /*".to_vec();
    text.resize(TEXT_BYTES_MAX - 2, b'x');
    text.extend_from_slice(b"*/");
    assert_eq!(facts(analyzer.ask(&text, SETTINGS)).operation, Operation::Select);
    let names: Vec<String> = (0..100).map(|number| format!("\"{}{number:03}\"", "\u{1}".repeat(60))).collect();
    let text = format!("select * from {}", names.join(","));
    let facts = facts(analyzer.ask(text.as_bytes(), SETTINGS));
    assert_eq!((facts.relations.len(), &facts.opaque[..]), (64, &[Opaque::TooMany][..]));
}

#[test]
fn one_that_hangs_is_ended_and_every_question_answered() {
    let analyzer = start(&["/bin/sleep", "4711"], SHORT);
    let asked: Vec<_> = (0..5_u8).map(|number| analyzer.ask(&[b'a' + number], SETTINGS)).collect();
    for asked in asked {
        assert_eq!(facts(asked).opaque, [Opaque::Timeout]);
    }
    assert_eq!(analyzer.known(b"a", SETTINGS), None, "it may have been the machine");
}

#[test]
fn a_text_that_ends_processes_is_remembered() {
    let analyzer = start(&["/bin/sh", "-c", "read -r line; exit 1"], LONG);
    assert_eq!(facts(analyzer.ask(b"x\n", SETTINGS)).opaque, [Opaque::Failed]);
    assert!(analyzer.known(b"x\n", SETTINGS).is_some());
}

#[test]
fn one_that_answers_nonsense_is_not_believed() {
    let analyzer = start(&["/bin/cat"], LONG);
    assert_eq!(*facts(analyzer.ask(b"select 1", SETTINGS)), Facts::unknown(Opaque::Failed));
    let analyzer = start(&["/bin/sh", "-c", "printf '\\377\\377\\377\\377'; cat"], LONG);
    assert_eq!(*facts(analyzer.ask(b"select 1", SETTINGS)), Facts::unknown(Opaque::Failed));
}

#[test]
fn none_that_starts_is_an_answer_too() {
    let analyzer = start(&["/nonexistent"], LONG);
    let answer = facts(analyzer.ask(b"select 1", SETTINGS));
    assert_eq!(answer.effects, [Effect::Unknown]);
    assert_eq!(analyzer.known(b"select 1", SETTINGS), None, "it is not the text's");
    assert_eq!(facts(start(&[], LONG).ask(b"select 1", SETTINGS)).opaque, [Opaque::Failed]);
}

#[test]
fn processes_are_not_started_without_end() {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("starts");
    let script = format!("echo >> {}; exit 1", log.display());
    let analyzer = start(&["/bin/sh", "-c", &script], LONG);
    for number in 0..100_u8 {
        assert_eq!(facts(analyzer.ask(&[number + 1], SETTINGS)).opaque, [Opaque::Failed]);
    }
    drop(analyzer);
    let starts = fs::read(&log).unwrap().len();
    // The window may have passed once on a slow machine.
    assert!((1..=3 * STARTS_MAX).contains(&starts), "{starts}");
}

#[test]
fn a_full_queue_says_so_at_once() {
    let analyzer = start(&["/bin/sleep", "4712"], SHORT);
    let text = |number: usize| format!("select {number}");
    let asked: Vec<_> = (0..QUEUE_MAX + 100).map(|number| analyzer.ask(text(number).as_bytes(), SETTINGS)).collect();
    for asked in asked {
        assert_eq!(facts(asked).opaque, [Opaque::Timeout]);
    }
}

/// The processes whose command line has this argument.
fn processes(argument: &str) -> Vec<u32> {
    let with = |pid: &u32| {
        let command = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        command.split(|byte| *byte == 0).any(|part| part == argument.as_bytes())
    };
    let entries = fs::read_dir("/proc").unwrap().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).filter(with).collect()
}

#[test]
fn a_process_has_nothing_and_ends_with_the_analyzer() {
    let ours = fs::File::open("/proc/self/exe").unwrap();
    let analyzer = started(real("has-nothing"), 1, LONG);
    assert!(processes("has-nothing").is_empty(), "none is started before it is needed");
    facts(analyzer.ask(b"select 1", SETTINGS));
    let [pid] = processes("has-nothing")[..] else { panic!("one process") };
    assert_eq!(fs::read(format!("/proc/{pid}/environ")).unwrap(), b"");
    // This file is open here, and not there. What this process was given itself, without a mark, passes on.
    let files = fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
    for file in files.map(|file| file.unwrap().file_name().into_string().unwrap()) {
        let given = fs::read_to_string(format!("/proc/self/fdinfo/{file}")).unwrap_or_default();
        let passes_on = given
            .lines()
            .find_map(|line| line.strip_prefix("flags:"))
            .is_some_and(|flags| u32::from_str_radix(flags.trim(), 8).unwrap() & 0o2_000_000 == 0);
        assert!(["0", "1", "2"].contains(&file.as_str()) || passes_on, "{file}");
    }
    drop(ours);
    let limits = fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
    for limit in ["Max core file size", "Max open files", "Max file size"] {
        let line = limits.lines().find(|line| line.starts_with(limit)).unwrap();
        assert_eq!(line[limit.len()..].split_whitespace().next(), Some("0"), "{line}");
    }
    drop(analyzer);
    assert!(processes("has-nothing").is_empty());
}

#[test]
fn one_that_was_killed_is_replaced() {
    let analyzer = started(real("was-killed"), 1, LONG);
    facts(analyzer.ask(b"select 1", SETTINGS));
    let [pid] = processes("was-killed")[..] else { panic!("one process") };
    let pid = rustix::process::Pid::from_raw(pid.cast_signed()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    assert_eq!(facts(analyzer.ask(b"select 2", SETTINGS)).opaque, []);
}

#[test]
fn the_worker_ends_with_its_input_and_at_nonsense() {
    for (input, ends_well) in [(&b""[..], true), (&[255; 4], false)] {
        let mut worker = std::process::Command::new(env!("CARGO_BIN_EXE_sql-worker"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        worker.stdin.take().unwrap().write_all(input).unwrap();
        let output = worker.wait_with_output().unwrap();
        assert_eq!(output.status.success(), ends_well, "{output:?}");
    }
}
