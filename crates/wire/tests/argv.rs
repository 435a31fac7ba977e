//! The words of a command are those that the shells themselves make of it.
#![allow(clippy::unwrap_used)]

use std::process::Command;

use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::TestRunner;
use wire::ssh::argv::argv;

const SHELLS: [&str; 4] = ["sh", "bash", "zsh", "fish"];
const COMMANDS: usize = 500;

/// Texts of what shells give a meaning to, and of what they do not.
fn commands() -> Vec<String> {
    let piece = prop_oneof![
        4 => "[a-z0-9]{1,3}",
        2 => Just(" ".to_owned()),
        2 => "[ '\"\\\\=~%!$`;&|<>(){}*?#^@+:,./-]",
        1 => "'[ -~]{0,4}'",
        1 => "\"[ -~]{0,4}\"",
    ];
    let command = prop::collection::vec(piece, 1..8).prop_map(|pieces| format!("w {}", pieces.concat()));
    let mut runner = TestRunner::deterministic();
    let mut commands = Vec::new();
    while commands.len() < COMMANDS {
        let command = command.new_tree(&mut runner).unwrap().current();
        if argv(&command).is_some() {
            commands.push(command);
        }
    }
    commands
}

#[test]
fn shells_make_the_same_words_of_a_command() {
    let commands = commands();
    let directory = tempfile::tempdir().unwrap();
    // A program that says its arguments, by the name that the commands begin with.
    let program = directory.path().join("w");
    std::fs::write(&program, "#!/bin/sh\nfor word; do printf '%s\\001' \"$word\"; done; printf '\\002'\n").unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(&program, mode).unwrap();
    let path = format!("{}:{}", directory.path().display(), std::env::var("PATH").unwrap());
    for shell in SHELLS {
        let mut run = Command::new(shell);
        // Each as a host runs it, but in one process: one that was read otherwise would spoil those behind it.
        let said = run.arg("-c").arg(commands.join("\n")).env("PATH", &path).env("HOME", directory.path());
        let said = said.output().unwrap_or_else(|error| panic!("{shell}: {error}; `cargo xtask test` installs it"));
        let said = String::from_utf8(said.stdout).unwrap();
        let mut said = said.split_terminator('\u{2}');
        for command in &commands {
            let words: Vec<&str> = said.next().unwrap_or("nothing more").split_terminator('\u{1}').collect();
            assert_eq!(words, *argv(command).unwrap().split_off(1), "{shell} of {command:?}");
        }
        assert_eq!(said.next(), None, "{shell}");
    }
}
