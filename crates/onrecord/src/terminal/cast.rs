//! Writes what a terminal showed as an asciicast, version 2 or 3, for other players: a view of the record, and no evidence.
//!
//! What players write to a terminal as it is has gone through the [`Sieve`].

use std::io::{self, Write};
use std::iter::Peekable;
use std::vec;

use model::transcript::{Frame, Stream};
use serde_json::{Map, Value, json};

use super::sieve::Sieve;
use super::{Mark, Tape, Utf8, size};
use crate::Failure;
use crate::output::acts;

/// The form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Version {
    /// Read by everything: times since the beginning.
    V2,
    /// Of asciinema 3: times since the event before, and how the program ended.
    V3,
}

/// What is known of the whole.
#[derive(Debug)]
pub(crate) struct About {
    pub(crate) title: String,
    /// Microseconds since 1970 at which the program began.
    pub(crate) began_us: i64,
    pub(crate) duration_us: u64,
    /// The name of the terminal, such as `xterm`.
    pub(crate) terminal: Option<String>,
    /// How the program ended, if that is a number.
    pub(crate) exit: Option<String>,
    /// In the order of their times.
    pub(crate) marks: Vec<Mark>,
}

/// Writes one.
///
/// # Errors
/// The transcript cannot be read, or the cast not be written.
pub(crate) fn write(tape: &mut impl Tape, about: About, version: Version, out: &mut dyn Write) -> Result<(), Failure> {
    tape.rewind()?;
    let mut next = tape.next()?;
    // The size that the terminal begins with is that of the header.
    let mut at_first = size(0, 0);
    if let Some(Frame::Size { columns, rows, .. }) = next {
        at_first = size(columns, rows);
        next = tape.next()?;
    }
    line(&header(&about, version, at_first), out)?;
    let mut events = Events { version, last_us: 0, marks: about.marks.into_iter().peekable(), out };
    let (mut utf8, mut sieve) = (Utf8::default(), Sieve::default());
    let mut ended_us = about.duration_us;
    while let Some(frame) = next {
        match frame {
            Frame::Bytes { stream: Stream::Stdin, .. } => {}
            Frame::Bytes { at_us, bytes, .. } => {
                let text = sieve.push(&utf8.push(&bytes));
                if !text.is_empty() {
                    events.at(at_us, "o", &text)?;
                }
            }
            Frame::Size { at_us, columns, rows } => {
                let (columns, rows) = size(columns, rows);
                events.at(at_us, "r", &format!("{columns}x{rows}"))?;
            }
            Frame::End { at_us, .. } => ended_us = at_us,
        }
        next = tape.next()?;
    }
    if let Some(cut) = utf8.finish() {
        events.at(ended_us, "o", &sieve.push(&cut.to_string()))?;
    }
    events.marks_until(ended_us)?;
    if let Some(exit) = about.exit.filter(|_| version == Version::V3) {
        events.at(ended_us, "x", &exit)?;
    }
    Ok(())
}

fn header(about: &About, version: Version, (columns, rows): (usize, usize)) -> Value {
    let mut header = Map::new();
    let mut set = |name: &str, value: Value| header.insert(name.to_owned(), value);
    match version {
        Version::V2 => {
            set("version", json!(2));
            set("width", json!(columns));
            set("height", json!(rows));
            set("duration", seconds(about.duration_us));
            if let Some(terminal) = &about.terminal {
                set("env", json!({ "TERM": terminal }));
            }
        }
        Version::V3 => {
            let mut term = json!({"cols": columns, "rows": rows});
            if let (Some(kind), Some(term)) = (&about.terminal, term.as_object_mut()) {
                term.insert("type".to_owned(), json!(kind));
            }
            set("version", json!(3));
            set("term", term);
        }
    }
    set("timestamp", json!(about.began_us.div_euclid(1_000_000)));
    set("title", json!(about.title));
    Value::Object(header)
}

struct Events<'a> {
    version: Version,
    last_us: u64,
    marks: Peekable<vec::IntoIter<Mark>>,
    out: &'a mut dyn Write,
}

impl Events<'_> {
    fn at(&mut self, at_us: u64, code: &str, data: &str) -> Result<(), Failure> {
        self.marks_until(at_us)?;
        self.event(at_us, code, data)
    }

    fn marks_until(&mut self, at_us: u64) -> Result<(), Failure> {
        while let Some(mark) = self.marks.next_if(|mark| mark.at_us <= at_us) {
            // Players show it.
            let text: String = mark.text.chars().map(|c| if acts(c) { ' ' } else { c }).collect();
            self.event(mark.at_us, "m", &text)?;
        }
        Ok(())
    }

    fn event(&mut self, at_us: u64, code: &str, data: &str) -> Result<(), Failure> {
        let at_us = at_us.max(self.last_us);
        let time = match self.version {
            Version::V2 => at_us,
            Version::V3 => at_us - self.last_us,
        };
        self.last_us = at_us;
        line(&json!([seconds(time), code, data]), self.out)
    }
}

/// Seconds, to the microsecond.
fn seconds(us: u64) -> Value {
    // Exact up to 285 years.
    #[allow(clippy::cast_precision_loss)]
    let seconds = us as f64 / 1e6;
    json!(seconds)
}

fn line(value: &Value, out: &mut dyn Write) -> Result<(), Failure> {
    let text = crate::output::json_text(&serde_json::to_string(value).map_err(io::Error::from)?).into_owned();
    Ok(writeln!(out, "{text}")?)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::super::Frames;
    use super::*;

    fn cast(tape: Frames, version: Version) -> Vec<Value> {
        let mut tape = tape;
        let about = About {
            title: "01M8D92HT3G0153CJY7DA7YGYW.1".to_owned(),
            began_us: 1_795_340_101_900_000,
            duration_us: 3_000_000,
            terminal: Some("xterm".to_owned()),
            exit: Some("7".to_owned()),
            marks: vec![
                Mark { at_us: 400_000, text: "ls\u{1b}[c\n-l".to_owned() },
                Mark { at_us: 9_000_000, text: "never".to_owned() },
            ],
        };
        let mut out = Vec::new();
        write(&mut tape, about, version, &mut out).unwrap();
        String::from_utf8(out).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    fn tape() -> Frames {
        let written: [(u64, &[u8]); 5] = [
            (0, b"\x1b]633;A\x07$ \xe6\x97"),
            (250_000, b"\xa5 \xff\x1b[3"),
            (500_000, b"1mred\x1b]52;c;eA==\x07"),
            (1_000_001, b"\x1b[6n"),
            (2_000_000, b"end\xe6"),
        ];
        Frames::of(&written).sized(1_500_000, 132, 43).sized(0, 100, 30)
    }

    #[test]
    fn version_two_has_times_since_the_beginning() {
        let lines = cast(tape(), Version::V2);
        assert_eq!(
            lines[0],
            json!({"version": 2, "width": 100, "height": 30, "duration": 3.0, "env": {"TERM": "xterm"},
                   "timestamp": 1_795_340_101, "title": "01M8D92HT3G0153CJY7DA7YGYW.1"})
        );
        assert_eq!(
            lines[1..],
            [
                json!([0.0, "o", "$ "]),
                json!([0.25, "o", "日 \u{fffd}"]),
                json!([0.4, "m", "ls [c -l"]),
                json!([0.5, "o", "\u{1b}[31mred"]),
                json!([1.5, "r", "132x43"]),
                json!([2.0, "o", "end"]),
                json!([3.0, "o", "\u{fffd}"]),
            ]
        );
    }

    #[test]
    fn version_three_has_times_since_the_event_before_and_the_exit_status() {
        let lines = cast(tape(), Version::V3);
        assert_eq!(
            lines[0],
            json!({"version": 3, "term": {"cols": 100, "rows": 30, "type": "xterm"},
                   "timestamp": 1_795_340_101, "title": "01M8D92HT3G0153CJY7DA7YGYW.1"})
        );
        let times: Vec<(f64, &str)> =
            lines[1..].iter().map(|line| (line[0].as_f64().unwrap(), line[1].as_str().unwrap())).collect();
        assert_eq!(
            times,
            [(0.0, "o"), (0.25, "o"), (0.15, "m"), (0.1, "o"), (1.0, "r"), (0.5, "o"), (1.0, "o"), (0.0, "x")]
        );
        assert_eq!(lines.last().unwrap()[2], "7");
    }

    #[test]
    fn without_a_size_it_is_eighty_by_twenty_four() {
        let lines = cast(Frames::of(&[(5, b"x")]), Version::V2);
        assert_eq!((&lines[0]["width"], &lines[0]["height"]), (&json!(80), &json!(24)));
    }
}
