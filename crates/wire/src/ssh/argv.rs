//! The words that a host's shell makes of a command, where no shell could make anything else of it.
//!
//! A command of `exec` is a text for the user's shell, and which shell that is only the host knows. What is read here has
//! nothing in it that POSIX shells, zsh or fish expand, redirect or give a meaning: of all else there are no words.

/// The most words.
pub const WORDS_MAX: usize = 256;

/// The arguments of the one program that a shell starts for this command, its name first. None where it may be more, or
/// something else: what expands, redirects, assigns, a second command; text that is not ASCII, which a shell may cut by its
/// locale; more than [`WORDS_MAX`]. What the name stands for (a program, a builtin, an alias) only the shell knows.
#[must_use]
pub fn argv(command: &str) -> Option<Vec<String>> {
    let words = Some(command).filter(|command| command.is_ascii()).and_then(|command| words(command.as_bytes()))?;
    let named = words.first().is_some_and(|name| !name.is_empty());
    let home = |word: &Word| word.home;
    if !named || words.len() > WORDS_MAX || words.iter().any(home) {
        return None;
    }
    words.into_iter().map(|word| String::from_utf8(word.bytes).ok()).collect()
}

/// A word of a command.
#[derive(Debug, Default)]
pub(super) struct Word {
    /// Its bytes, without what quotes them.
    pub(super) bytes: Vec<u8>,
    /// It begins with a `~` that is not quoted, so that the shell puts a home directory in the place of that.
    home: bool,
}

impl Word {
    fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }
}

/// The words that any shell cuts the command into, if it expands nothing; a leading `~` is the only exception.
pub(super) fn words(command: &[u8]) -> Option<Vec<Word>> {
    let mut words = Vec::new();
    let mut word: Option<Word> = None;
    let mut bytes = command.iter().copied();
    while let Some(byte) = bytes.next() {
        match byte {
            b' ' => words.extend(word.take()),
            b'\'' => {
                let word = word.get_or_insert_default();
                loop {
                    match bytes.next()? {
                        b'\'' => break,
                        // fish takes it for one of its own there.
                        b'\\' => return None,
                        quoted => word.bytes.push(printable(quoted)?),
                    }
                }
            }
            b'"' => {
                let word = word.get_or_insert_default();
                loop {
                    match bytes.next()? {
                        b'"' => break,
                        b'$' | b'`' | b'\\' | b'!' => return None,
                        quoted => word.bytes.push(printable(quoted)?),
                    }
                }
            }
            b'\\' => word.get_or_insert_default().bytes.push(escaped(bytes.next()?)?),
            b'~' if word.is_none() => word = Some(Word { bytes: vec![byte], home: true }),
            // Of the first word it makes an assignment, and zsh looks a command up behind one that begins a word.
            b'=' if !words.is_empty() && word.as_ref().is_some_and(|word| !word.is_empty()) => {
                word.get_or_insert_default().bytes.push(byte);
            }
            // fish takes one at the beginning of a word for a job.
            b'%' if word.is_none() => return None,
            _ if plain(byte) => word.get_or_insert_default().bytes.push(byte),
            _ => return None,
        }
    }
    words.extend(word);
    Some(words)
}

/// Means itself to every shell, wherever it stands in a word.
fn plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"/._-+:,@%".contains(&byte) || byte >= 0x80
}

/// May stand between quotes.
fn printable(byte: u8) -> Option<u8> {
    Some(byte).filter(|byte| *byte >= b' ' && *byte != 0x7f)
}

/// May stand behind a backslash: not a letter or a digit, of which fish makes something else.
fn escaped(byte: u8) -> Option<u8> {
    printable(byte).filter(|byte| !byte.is_ascii_alphanumeric())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn what_plainly_is_one_program_has_its_arguments() {
        for (command, words) in [
            ("uptime", &["uptime"][..]),
            ("  df   -h ", &["df", "-h"]),
            ("systemctl --no-pager status app@1.service", &["systemctl", "--no-pager", "status", "app@1.service"]),
            ("journalctl -u app --lines=50", &["journalctl", "-u", "app", "--lines=50"]),
            ("printf '%s' \"a b\" c\\ d ''", &["printf", "%s", "a b", "c d", ""]),
            ("rm -r '$HOME; *'", &["rm", "-r", "$HOME; *"]),
        ] {
            assert_eq!(argv(command).unwrap(), words, "{command}");
        }
    }

    #[test]
    fn what_may_be_more_has_none() {
        for command in [
            "",
            " ",
            "''",
            "a; b",
            "a && b",
            "a | b",
            "a > b",
            "a\nb",
            "a\tb",
            "a $b",
            "a `b`",
            "a \"$b\"",
            "a *",
            "a ?",
            "a [b]",
            "a {b,c}",
            "a ~",
            "a b=~",
            "a =ls",
            "A=1 b",
            "A=1",
            "a !b",
            "a #b",
            "a (b)",
            "a ^b",
            "a 'b",
            "a b\\",
            "a \\n",
            "a '\\'",
            "a %1",
            "a b\u{a0}c",
            "a é",
            "a 'b\0'",
        ] {
            assert_eq!(argv(command), None, "{command:?}");
        }
        assert!(argv(&"a ".repeat(WORDS_MAX)).is_some() && argv(&"a ".repeat(WORDS_MAX + 1)).is_none());
    }
}
