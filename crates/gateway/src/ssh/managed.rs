//! A shell in name only: the gateway reads lines, and each is a command of its own.
//!
//! No shell is started on the host, so nothing runs that was not decided over and recorded first, byte by byte. The price
//! is that lines share nothing: each begins in the user's home, with the environment that the client asked for.

use std::collections::VecDeque;

use store::RecordError;

use super::inbox::{Inbox, Up};
use super::program::{COMMAND_BYTES_MAX, Client, Done, Exit};
use super::relay::InputFrom;
use super::upstream::{Staged, Start};

/// The longest line that is typed, bytes.
const LINE_BYTES_MAX: usize = 8 * 1024;
/// Lines that can be recalled.
const RECALLED_MAX: usize = 100;
/// What a shell says of a line that was interrupted.
const INTERRUPTED: u32 = 130;
/// Whoever sits there expects a shell.
const GREETING: &str = "OnRecord runs each line as a command of its own: directories and variables of one are not those of the \
                        next. `exit` ends this.";

/// Serves a client that asked for a shell, until it ends it.
pub(super) async fn serve(client: &Client, inbox: &mut Inbox, staged: Staged) -> Result<Done, RecordError> {
    let Staged { env, mut terminal, .. } = staged;
    let mut lines = Lines::default();
    let prompt = terminal.is_some().then(|| format!("{}> ", client.session().connection()));
    if prompt.is_some() {
        client.show(format!("{GREETING}\r\n").into_bytes()).await;
    }
    let mut last = Exit::Status(0);
    loop {
        // Nothing begins for a client that is gone.
        if !inbox.is_open() {
            return Ok(Done { said: None, exit: None });
        }
        let line = match read(client, inbox, &mut lines, prompt.as_deref()).await {
            Read::Line(line) => line,
            Read::Interrupted => {
                last = Exit::Status(INTERRUPTED);
                continue;
            }
            Read::End => return Ok(Done { said: None, exit: Some(last) }),
            Read::Gone => return Ok(Done { said: None, exit: None }),
        };
        match what(&line) {
            What::Nothing => continue,
            What::Exit(status) => return Ok(Done { said: None, exit: Some(status.map_or(last, Exit::Status)) }),
            What::Command => {}
        }
        if let (Some(terminal), Some(size)) = (&mut terminal, inbox.size()) {
            terminal.size = size;
        }
        // A script is not the input of its own commands.
        let input = if terminal.is_some() { InputFrom::Client } else { InputFrom::Nowhere };
        let staged = Staged { start: Start::Exec(line), env: env.clone(), terminal: terminal.clone() };
        let Done { said, exit } = client.command(inbox, input, staged).await?;
        match (said, &prompt) {
            // A client writes its two streams out in no order, and the prompt belongs behind this.
            (Some(text), Some(_)) => client.show(format!("{text}\r\n").into_bytes()).await,
            (Some(text), None) => client.say(&text).await,
            (None, _) => {}
        }
        match exit {
            Some(exit) => last = exit,
            None => return Ok(Done { said: None, exit: None }),
        }
        // A program may have taken the end of what is typed.
        lines.over |= inbox.is_ended();
    }
}

/// What a line is.
#[derive(Debug, PartialEq, Eq)]
enum What {
    /// Blank, or a comment.
    Nothing,
    /// The end, with a status of its own.
    Exit(Option<u32>),
    Command,
}

fn what(line: &[u8]) -> What {
    let words: Vec<&[u8]> = line.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty()).collect();
    match words.as_slice() {
        [] => What::Nothing,
        [first, ..] if first.starts_with(b"#") => What::Nothing,
        [b"exit" | b"logout"] => What::Exit(None),
        [b"exit" | b"logout", status] => {
            match std::str::from_utf8(status).ok().and_then(|status| status.parse().ok()) {
                Some(status) => What::Exit(Some(status)),
                None => What::Command,
            }
        }
        _ => What::Command,
    }
}

/// What came of reading a line.
enum Read {
    Line(Vec<u8>),
    /// It was given up.
    Interrupted,
    /// There are no more.
    End,
    /// The client is gone, or the session ends.
    Gone,
}

/// The next line; with a prompt, of somebody at a terminal.
async fn read(client: &Client, inbox: &mut Inbox, lines: &mut Lines, prompt: Option<&str>) -> Read {
    let ending = client.session().ending();
    if let Some(prompt) = prompt {
        client.show(prompt.as_bytes().to_vec()).await;
    }
    loop {
        let mut shown = Vec::new();
        let step = lines.step(prompt, &mut shown);
        if !shown.is_empty() {
            client.show(shown).await;
        }
        match step {
            Step::Line(line) => return Read::Line(line),
            Step::Interrupted => return Read::Interrupted,
            Step::End => return Read::End,
            Step::More => {}
        }
        match inbox.pop() {
            Some(up) => {
                inbox.passed(up.cost());
                match up {
                    Up::Data(data) => lines.typed.extend(data),
                    Up::Eof => lines.over = true,
                    Up::Signal(_) | Up::Resize(_) => {}
                }
            }
            None => tokio::select! {
                biased;
                _ = ending.wait() => return Read::Gone,
                () = inbox.take() => {
                    if !inbox.is_open() || inbox.is_stuck() {
                        return Read::Gone;
                    }
                }
            },
        }
    }
}

/// Puts lines together from what is typed: a line editor with the keys that everybody uses.
#[derive(Default)]
struct Lines {
    /// What was typed and not looked at.
    typed: VecDeque<u8>,
    /// Nothing more will be typed.
    over: bool,
    line: Vec<u8>,
    /// A key that sends several bytes, as far as it has come.
    key: Vec<u8>,
    recalled: Vec<Vec<u8>>,
    /// How far back one has gone in `recalled`.
    back: usize,
    /// The line is to be shown anew.
    changed: bool,
}

/// What typing led to.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    Line(Vec<u8>),
    Interrupted,
    End,
    /// Nothing yet.
    More,
}

impl Lines {
    /// Looks at what was typed, up to the end of a line. With a prompt, `shown` gets what the terminal is to show.
    fn step(&mut self, prompt: Option<&str>, shown: &mut Vec<u8>) -> Step {
        while let Some(byte) = self.typed.pop_front() {
            let step = match prompt {
                Some(prompt) => self.press(byte, prompt, shown),
                None => self.read(byte),
            };
            if step != Step::More {
                return step;
            }
        }
        if let Some(prompt) = prompt {
            self.redraw(prompt, shown);
        }
        match (self.over, self.line.is_empty() || prompt.is_some()) {
            // At a terminal a line that nobody has entered is none.
            (true, true) => Step::End,
            (true, false) => Step::Line(std::mem::take(&mut self.line)),
            (false, _) => Step::More,
        }
    }

    /// A byte of a script.
    fn read(&mut self, byte: u8) -> Step {
        if byte != b'\n' {
            // A byte more than a command may have: as such it is refused.
            if self.line.len() <= COMMAND_BYTES_MAX {
                self.line.push(byte);
            }
            return Step::More;
        }
        if self.line.last() == Some(&b'\r') {
            self.line.pop();
        }
        Step::Line(std::mem::take(&mut self.line))
    }

    /// A byte of a key.
    fn press(&mut self, byte: u8, prompt: &str, shown: &mut Vec<u8>) -> Step {
        if byte == 0x1b || !self.key.is_empty() {
            self.key.push(byte);
            match self.key.as_slice() {
                [_] | [_, b'[' | b'O'] => return Step::More,
                [_, b'[', .., last] if !(0x40..=0x7e).contains(last) && self.key.len() < 16 => return Step::More,
                [_, _, b'A'] => self.recall(self.back + 1),
                [_, _, b'B'] => self.recall(self.back.saturating_sub(1)),
                _ => {}
            }
            self.key.clear();
            self.changed = true;
            return Step::More;
        }
        match byte {
            b'\r' | b'\n' => {
                self.redraw(prompt, shown);
                shown.extend(b"\r\n");
                self.back = 0;
                let line = std::mem::take(&mut self.line);
                if !line.is_empty() && self.recalled.last() != Some(&line) {
                    self.recalled.push(line.clone());
                    let surplus = self.recalled.len().saturating_sub(RECALLED_MAX);
                    self.recalled.drain(..surplus);
                }
                return Step::Line(line);
            }
            // Ctrl-C
            0x03 => {
                self.redraw(prompt, shown);
                shown.extend(b"^C\r\n");
                self.line.clear();
                return Step::Interrupted;
            }
            // Ctrl-D
            0x04 if self.line.is_empty() => {
                shown.extend(b"\r\n");
                return Step::End;
            }
            // Backspace, by characters.
            0x08 | 0x7f => {
                while self.line.pop().is_some_and(|byte| byte & 0xc0 == 0x80) {}
                self.changed = true;
            }
            // Ctrl-U
            0x15 => {
                self.line.clear();
                self.changed = true;
            }
            // Ctrl-W
            0x17 => {
                while self.line.pop_if(|byte| *byte == b' ').is_some() {}
                while self.line.pop_if(|byte| *byte != b' ').is_some() {}
                self.changed = true;
            }
            b'\t' | 0x20.. if self.line.len() < LINE_BYTES_MAX => {
                self.line.push(byte);
                if !self.changed {
                    shown.push(byte);
                }
            }
            b'\t' | 0x20.. => shown.push(0x07),
            _ => {}
        }
        Step::More
    }

    /// Shows the line of so many before; 0 is an empty one.
    fn recall(&mut self, back: usize) {
        let line = self.recalled.len().checked_sub(back).and_then(|at| self.recalled.get(at));
        match (back, line) {
            (0, _) => (self.line, self.back) = (Vec::new(), 0),
            (back, Some(line)) => (self.line, self.back) = (line.clone(), back),
            (_, None) => {}
        }
    }

    /// Shows the line anew, if it has changed other than at its end: once, however many keys changed it.
    fn redraw(&mut self, prompt: &str, shown: &mut Vec<u8>) {
        if !std::mem::take(&mut self.changed) {
            return;
        }
        shown.extend(b"\r\x1b[K");
        shown.extend(prompt.as_bytes());
        shown.extend(&self.line);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// The lines that come of typing this at a terminal, and what it shows.
    fn typed(keys: &[u8]) -> (Vec<String>, String) {
        let mut lines = Lines { typed: keys.iter().copied().collect(), ..Lines::default() };
        let (mut got, mut shown) = (Vec::new(), Vec::new());
        loop {
            match lines.step(Some("h> "), &mut shown) {
                Step::Line(line) => got.push(String::from_utf8(line).unwrap()),
                Step::Interrupted => got.push("^C".to_owned()),
                Step::End => got.push("^D".to_owned()),
                Step::More => return (got, String::from_utf8(shown).unwrap()),
            }
        }
    }

    #[test]
    fn lines_are_edited() {
        assert_eq!(typed(b"ls\r").0, ["ls"]);
        assert_eq!(typed("lä\u{7f}s -l x\x17y\r".as_bytes()).0, ["ls -l y"]);
        assert_eq!(typed(b"rm\x15id\r\x03ab\x03\x04").0, ["id", "^C", "^C", "^D"]);
        assert_eq!(typed(b"a\rb\r\x1b[A\x1b[A\x1b[A\r\x1b[A\x1b[B\r").0, ["a", "b", "a", ""]);
        assert_eq!(typed(b"a\x1b[1;5Cb\x1bOHc\t\x01\r").0, ["abc\t"]);
        assert_eq!(typed(b"ab\x7f").1, "ab\r\x1b[Kh> a");
    }

    #[test]
    fn a_line_at_a_terminal_has_a_limit() {
        let long = vec![b'x'; LINE_BYTES_MAX + 10];
        assert_eq!(typed(&[&long, &b"\r"[..]].concat()).0.first().unwrap().len(), LINE_BYTES_MAX);
    }

    #[test]
    fn a_line_that_nobody_entered_is_none() {
        let mut lines = Lines { typed: b"rm -rf /srv/a".iter().copied().collect(), over: true, ..Lines::default() };
        assert_eq!(lines.step(Some("h> "), &mut Vec::new()), Step::End);
    }

    #[test]
    fn many_keys_cost_no_more_than_what_they_show() {
        let mut lines = Lines { line: vec![b'x'; LINE_BYTES_MAX], ..Lines::default() };
        lines.typed.extend(b"\x1bz".repeat(1000));
        let mut shown = Vec::new();
        assert_eq!(lines.step(Some("h> "), &mut shown), Step::More);
        assert!(shown.len() < 2 * LINE_BYTES_MAX, "{}", shown.len());
    }

    #[test]
    fn a_script_is_its_lines() {
        let mut lines = Lines { typed: b"a\r\nb\n\nc".iter().copied().collect(), over: true, ..Lines::default() };
        let mut next = || lines.step(None, &mut Vec::new());
        let line = |text: &str| Step::Line(text.as_bytes().to_vec());
        assert_eq!([next(), next(), next(), next(), next()], [line("a"), line("b"), line(""), line("c"), Step::End]);
    }

    #[test]
    fn some_lines_are_no_commands() {
        for (line, expected) in [
            (" ", What::Nothing),
            ("# x", What::Nothing),
            ("exit", What::Exit(None)),
            (" exit 3 ", What::Exit(Some(3))),
            ("exit $x", What::Command),
            ("exit; id", What::Command),
            ("exited", What::Command),
        ] {
            assert_eq!(what(line.as_bytes()), expected, "{line}");
        }
    }
}
