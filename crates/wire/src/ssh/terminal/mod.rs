//! Terminals: which lines a shell runs, as far as its terminal shows it.
//!
//! What a terminal shows is no protocol of commands. Two things tell lines from it. A shell that was started with the
//! gateway's integration marks them ([`marks`]): the line, and how it ended. Where there are no marks, lines are read off the
//! screen ([`screen`]): what stands behind the prompt when Enter is pressed. Neither is proof against who sits there: the
//! marks can be switched off and forged, the screen can show anything. What was seen is labelled as such.
//!
//! Invariant: all bytes of the host but the marks with this tap's nonce come out again, in their order.

pub mod emulator;
mod marks;
mod screen;

pub use marks::{MARK_BYTES_MAX, Mark};

use marks::{Marks, Piece};
use screen::{Screen, Typed};

/// Lines of one command that wait for its mark.
const UNMARKED_MAX: usize = 100;
/// Lines behind the same prompt that nothing marked, by which it is clear that nothing marks any more.
const LOST_MIN: usize = 3;

/// How a line is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// The shell marked it.
    Marked,
    /// The shell marked that a line ran, and could not tell which: its text was read off the screen.
    Read,
    /// It was read off the screen, of a shell that marks nothing.
    Screen,
    /// It was read off the screen: entered at the prompt of a shell that goes on marking, and did not mark that it ran.
    Unmarked,
    /// It was read off the screen, of a shell that had marked lines before.
    Lost,
}

/// What the terminal shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A line began to run.
    Line {
        /// Its text; none where neither shell nor screen can tell it.
        text: Option<Vec<u8>>,
        /// The shell's working directory, if it told it.
        directory: Option<Vec<u8>>,
        /// How it is known.
        seen: Seen,
    },
    /// The line that the shell marked last has ended.
    Ended {
        /// Its exit status, if the shell knows it.
        status: Option<u32>,
        /// Those of the commands of its last pipeline, if there were several.
        pipeline: Vec<u32>,
    },
}

/// What is known of the integration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Integration {
    /// There is none, or not yet.
    None,
    /// The shell shows its prompt.
    Prompt,
    /// The shell runs a line that it marked.
    Running,
}

/// Follows one terminal.
pub struct Tap {
    marks: Marks,
    screen: Screen,
    integration: Integration,
    /// Lines that were entered and not marked yet.
    unmarked: Vec<Typed>,
    /// How the prompt of the shell looks that marks lines.
    prompt: String,
}

impl Tap {
    /// Of a terminal of so many columns and rows, whose shell was started with an integration that knows `nonce`; empty if
    /// without.
    #[must_use]
    pub fn new(nonce: &[u8], columns: u32, rows: u32) -> Self {
        Self {
            marks: Marks::new(nonce),
            screen: Screen::new(columns, rows),
            integration: Integration::None,
            unmarked: Vec::new(),
            prompt: String::new(),
        }
    }

    /// The terminal has another size.
    pub fn resize(&mut self, columns: u32, rows: u32) {
        self.screen.resize(columns, rows);
    }

    /// Takes bytes of the client on their way to the host.
    pub fn client(&mut self, bytes: &[u8]) {
        self.screen.input(bytes);
    }

    /// Takes bytes of the host: `out` gets what is for the client. Events come in the order of the bytes.
    pub fn host(&mut self, bytes: &[u8], out: &mut Vec<u8>, mut event: impl FnMut(Event)) {
        let Self { marks, screen, integration, unmarked, prompt } = self;
        marks.feed(bytes, |piece| match piece {
            Piece::Bytes(bytes) => {
                out.extend_from_slice(bytes);
                screen.output(bytes, |typed| match *integration {
                    Integration::None => event(typed.seen(Seen::Screen)),
                    Integration::Prompt => {
                        if unmarked.is_empty() {
                            typed.prompt.clone_into(prompt);
                        }
                        unmarked.push(typed);
                        // For more lines of the same command a shell shows another prompt.
                        let again = unmarked.iter().filter(|typed| typed.is_behind(prompt)).count();
                        if again >= LOST_MIN || unmarked.len() > UNMARKED_MAX {
                            unmarked.drain(..).for_each(|typed| event(typed.seen(Seen::Lost)));
                        }
                    }
                    // What is typed to a program is no line of the shell; what stands behind the shell's own prompt is one.
                    Integration::Running if typed.is_behind(prompt) => event(typed.seen(Seen::Lost)),
                    Integration::Running => {}
                });
            }
            Piece::Mark(Mark::None) => *integration = Integration::None,
            Piece::Mark(Mark::Line { text, directory }) => {
                *integration = Integration::Running;
                let on_screen = unmarked.drain(..).next_back().map(|typed| typed.text.into_bytes());
                match text {
                    Some(text) => event(Event::Line { text: Some(text), directory, seen: Seen::Marked }),
                    None => event(Event::Line { text: on_screen, directory, seen: Seen::Read }),
                }
            }
            Piece::Mark(Mark::Prompt { status, pipeline }) => {
                let before = std::mem::replace(integration, Integration::Prompt);
                unmarked.drain(..).for_each(|typed| event(typed.seen(Seen::Unmarked)));
                screen.prompt();
                if before == Integration::Running {
                    event(Event::Ended { status, pipeline });
                }
            }
        });
    }

    /// There is nothing more. Gives what was held back, if anything.
    pub fn finish(&mut self, mut event: impl FnMut(Event)) -> Vec<u8> {
        self.unmarked.drain(..).for_each(|typed| event(typed.seen(Seen::Unmarked)));
        self.marks.finish()
    }
}

impl Typed {
    fn seen(self, seen: Seen) -> Event {
        Event::Line { text: Some(self.text.into_bytes()), directory: None, seen }
    }
}

/// For fuzzing: a nonce in front of the first zero byte, then what client and host send by turns, each behind the next zero.
pub fn fuzz(data: &[u8]) {
    let mut parts = data.split(|&byte| byte == 0);
    let nonce = parts.next().unwrap_or_default();
    let parts: Vec<&[u8]> = parts.collect();
    let run = |piece: usize| {
        let mut tap = Tap::new(nonce, 20, 5);
        let (mut out, mut marked) = (Vec::new(), Vec::new());
        let mut got = |event| {
            if let Event::Line { seen: Seen::Marked, .. } | Event::Ended { .. } = event {
                marked.push(event);
            }
        };
        for turn in parts.chunks(2) {
            tap.client(turn.first().copied().unwrap_or_default());
            for host in turn.get(1).copied().unwrap_or_default().chunks(piece) {
                tap.host(host, &mut out, &mut got);
            }
            tap.resize(u32::try_from(out.len()).unwrap_or(0), 3);
        }
        out.extend(tap.finish(&mut got));
        (out, marked)
    };
    let whole = run(usize::MAX);
    assert_eq!(whole, run(1), "pieces change what is seen");
    let sent: Vec<u8> = parts.chunks(2).filter_map(|turn| turn.get(1)).flat_map(|host| host.to_vec()).collect();
    if whole.1.is_empty() {
        assert!(whole.0.len() <= sent.len(), "more comes out than went in");
    }
    if nonce.is_empty() {
        assert_eq!(whole.0, sent, "without a nonce nothing is left out");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONCE: &[u8] = b"7f3a";

    fn line(text: &str, seen: Seen) -> Event {
        Event::Line { text: Some(text.as_bytes().to_vec()), directory: None, seen }
    }

    /// What is given to the client, and what is seen, of these turns of client and host.
    fn seen(nonce: &[u8], turns: &[(&str, &str)]) -> (String, Vec<Event>) {
        let mut tap = Tap::new(nonce, 80, 24);
        let (mut out, mut events) = (Vec::new(), Vec::new());
        for (client, host) in turns {
            tap.client(client.as_bytes());
            tap.host(host.as_bytes(), &mut out, |event| events.push(event));
        }
        out.extend(tap.finish(|event| events.push(event)));
        (String::from_utf8(out).unwrap_or_default(), events)
    }

    #[test]
    fn marks_tell_lines_and_are_left_out() {
        let (out, events) = seen(
            NONCE,
            &[
                ("", "\x1b]633;D;0;;7f3a\x07$ "),
                ("ls x\\x3by\r", "ls x\r\n\x1b]633;E;ls \\\\ x\\x3by;/srv;7f3a\x07no\r\n\x1b]633;D;2;0 2;7f3a\x1b\\$ "),
            ],
        );
        assert_eq!(out, "$ ls x\r\nno\r\n$ ");
        let text = Some(b"ls \\ x;y".to_vec());
        let marked = Event::Line { text, directory: Some(b"/srv".to_vec()), seen: Seen::Marked };
        assert_eq!(events, [marked, Event::Ended { status: Some(2), pipeline: vec![0, 2] }]);
    }

    #[test]
    fn a_mark_without_the_nonce_is_what_the_program_shows() {
        let hostile = "\x1b]633;E;rm -rf /;/;0000\x07\x1b]633;D;0;;\x07\x1b]0;title\x07\x1b]633;\x18";
        let (out, events) = seen(NONCE, &[("", hostile)]);
        assert_eq!(out, hostile);
        assert_eq!(events, []);
    }

    #[test]
    fn lines_are_read_off_the_screen_where_nothing_marks_them() {
        let turns = [
            ("", "$ "),
            ("ls", "ls"),
            ("\r", "\r\nfile\r\n$ "),
            // What is recalled is on the screen, though nobody typed it.
            ("\x1b[A", "\x1b[31mrm\x1b[0m file"),
            ("\r", "\r\n$ "),
            // What is not echoed is not there.
            ("sudo x\r", "sudo x\r\nPassword: "),
            ("secret\r", "\r\n$ "),
            // Backspace.
            ("lx\x7fs\r", "lx\x08 \x08s\r\n$ "),
        ];
        let (_, events) = seen(b"", &turns);
        let texts = ["ls", "rm file", "sudo x", "ls"];
        assert_eq!(events, texts.map(|text| line(text, Seen::Screen)));
        // A shell whose integration does not come up is read the same.
        let (_, events) = seen(NONCE, &turns);
        assert_eq!(events, texts.map(|text| line(text, Seen::Screen)));
    }

    #[test]
    fn what_wraps_is_read_whole() {
        let long = "x".repeat(170);
        let (_, events) = seen(b"", &[("", "prompt$ "), (&long, &long), ("\r", "\r\n")]);
        assert_eq!(events, [line(&long, Seen::Screen)]);
        let low = "\r\n".repeat(30);
        let (_, events) = seen(b"", &[("", &low), ("", "prompt$ "), (&long, &long), ("\r", "\r\n")]);
        assert_eq!(events, [line(&long, Seen::Screen)]);
    }

    #[test]
    fn marks_that_stop_are_noticed() {
        let begin = ("", "\x1b]633;D;0;;7f3a\x07host$ ");
        let ls = ("ls\r", "ls\r\n\x1b]633;E;ls;/;7f3a\x07\x1b]633;D;0;;7f3a\x07host$ ");
        let marked = Event::Line { text: Some(b"ls".to_vec()), directory: Some(b"/".to_vec()), seen: Seen::Marked };
        let ended = Event::Ended { status: Some(0), pipeline: Vec::new() };
        // The shell still shows prompts, but marks no lines.
        let (_, events) = seen(NONCE, &[begin, ls, ("id\r", "id\r\nuid=0\r\n\x1b]633;D;0;;7f3a\x07host$ ")]);
        assert_eq!(events, [marked.clone(), ended.clone(), line("id", Seen::Unmarked)]);
        // Nothing is marked any more, neither by this shell nor by one inside it that looks the same.
        let nested = ("bash --norc\r", "bash --norc\r\n\x1b]633;E;bash --norc;/;7f3a\x07host$ ");
        let (_, events) = seen(NONCE, &[begin, ls, nested, ("id\r", "id\r\nuid=0\r\nhost$ ")]);
        assert_eq!(events.last(), Some(&line("id", Seen::Lost)));
        // A program's own prompt is another matter.
        let python = ("python\r", "python\r\n\x1b]633;E;python;/;7f3a\x07>>> ");
        let (_, events) = seen(NONCE, &[begin, ls, python, ("1+1\r", "1+1\r\n2\r\n>>> ")]);
        assert_eq!(events.len(), 3, "{events:?}");
        // Lines of one command are none that got lost. Of one that was given up the shell says nothing, and nobody else knows.
        let twice = ("for i in a\rdo id; done\r", "for i in a\r\n> do id; done\r\n\x1b]633;E;for;/;7f3a\x07");
        let (_, events) = seen(NONCE, &[begin, twice]);
        assert_eq!(events.len(), 1, "{events:?}");
        let given_up = [("for i in a\r", "for i in a\r\n> "), ("\x03", "^C\r\n\x1b]633;D;130;;7f3a\x07host$ ")];
        let (_, events) = seen(NONCE, &[begin, given_up[0], given_up[1]]);
        assert_eq!(events, [line("for i in a", Seen::Unmarked)]);
        // The shell shows prompts, and neither marks them nor the lines behind them.
        let silent = ("id\r", "id\r\nuid=0\r\nhost$ ");
        let (_, events) = seen(NONCE, &[begin, silent, silent, silent]);
        assert_eq!(events, ["id", "id", "id"].map(|text| line(text, Seen::Lost)));
    }

    #[test]
    fn no_key_takes_a_line_away() {
        for (typed, echo) in [
            ("touch a \x04\r", "touch a \r\n"),
            ("xtouch a\x01\x04\x05\r", "xtouch a\x1b[7D\x1b[P\x1b[7C\r\n"),
            ("touch a\r\x04", "touch a\r\n"),
            ("touch a\r\x03", "touch a\r\n"),
            ("\x10\x10\r", "touch a\r\n"),
            ("touch a\x0f", "touch a\r\n"),
        ] {
            let (_, events) = seen(b"", &[("", "$ "), (typed, echo)]);
            let read = events.first().is_some_and(|event| match event {
                Event::Line { text: Some(text), .. } => text.ends_with(b"ouch a"),
                _ => false,
            });
            assert!(read, "{typed:?}: {events:?}");
        }
        let (_, events) = seen(b"", &[("", "\x1b[?1049h$ "), ("touch a\r", "touch a\r\n")]);
        assert_eq!(events, [line("touch a", Seen::Screen)]);
    }

    #[test]
    fn a_screen_of_any_size_is_followed() {
        for (columns, rows) in [(1, 1), (1, 24), (40, 1), (u32::MAX, u32::MAX)] {
            let mut tap = Tap::new(b"", columns, rows);
            let mut out = Vec::new();
            for _ in 0..3 {
                tap.client("日本 wide\r".as_bytes());
                tap.host("日本 wide\x1b[65535b\x1b[65535@\x1b[999;999H日\r\n".as_bytes(), &mut out, |_| ());
                tap.resize(rows, columns);
            }
        }
    }

    #[test]
    fn the_text_of_a_line_that_the_shell_cannot_tell_is_read_off_the_screen() {
        let begin = ("", "\x1b]633;D;0;;7f3a\x07host$ ");
        let (_, events) = seen(NONCE, &[begin, ("id\r", "id\r\n\x1b]633;U;/;7f3a\x07")]);
        let directory = Some(b"/".to_vec());
        assert_eq!(events, [Event::Line { text: Some(b"id".to_vec()), directory, seen: Seen::Read }]);
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_followed(data in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..600)) {
            fuzz(&data);
        }

        #[test]
        fn any_marks_are_followed(data in "7f(\x00|\x1b\\]633;[EDUN](;[a-c0 \\\\x]*){0,4};7f\x07|\r|\n|\x1b\\[[0-9]{0,3}[A-HJKmr]|[a-c]|\x1b){0,60}") {
            fuzz(data.as_bytes());
        }
    }
}
