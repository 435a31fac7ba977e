//! What a terminal showed, from the transcript of its program: played, as text, and for other players.
//!
//! Invariant: what a program wrote never reaches the terminal of whoever looks. It goes into an emulator, and what is printed
//! is drawn from the emulator's screen, of a few sequences of our own ([`canvas`]); or it goes through [`sieve`], for a file.
//!
//! Not for: finding transcripts, which is the matter of the commands. Where they come from is a [`Tape`].

pub(crate) mod canvas;
pub(crate) mod cast;
pub mod fuzz;
pub(crate) mod lines;
pub(crate) mod player;
pub(crate) mod sieve;
pub(crate) mod stage;

use avt::Observer;
use avt::parser::Function;
use model::transcript::Frame;

use crate::Failure;

/// The widest terminal that is emulated, in columns: what the record says is larger is cut to it.
pub(crate) const COLUMNS_MAX: usize = 1000;
/// The highest one, in rows.
pub(crate) const ROWS_MAX: usize = 500;
/// The size of a terminal of which the record does not say it: columns and rows.
pub(crate) const SIZE_DEFAULT: (usize, usize) = (80, 24);

/// The frames of a transcript, from the beginning as often as need be.
pub(crate) trait Tape {
    /// Goes back to the beginning.
    fn rewind(&mut self) -> Result<(), Failure>;
    /// The next frame; none at the end.
    fn next(&mut self) -> Result<Option<Frame>, Failure>;
}

/// A line that a shell ran, in the time of its terminal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mark {
    /// Microseconds since the terminal's program began.
    pub(crate) at_us: u64,
    /// The line.
    pub(crate) text: String,
}

/// A terminal, emulated.
pub(crate) struct Emulator {
    parser: avt::Parser,
    terminal: avt::Terminal,
    utf8: Utf8,
}

impl Default for Emulator {
    fn default() -> Self {
        let (columns, rows) = SIZE_DEFAULT;
        let terminal = avt::Terminal::new(columns, rows).expect("neither is zero");
        Self { parser: avt::Parser::new(), terminal, utf8: Utf8::default() }
    }
}

impl Emulator {
    /// What it shows.
    pub(crate) fn terminal(&self) -> &avt::Terminal {
        &self.terminal
    }

    /// What the program wrote.
    pub(crate) fn write(&mut self, bytes: &[u8], observer: impl Observer) {
        let text = self.utf8.push(bytes);
        let columns = u16::try_from(self.terminal.size().0).unwrap_or(u16::MAX);
        let parser = &mut self.parser;
        let functions = text.chars().filter_map(|c| match parser.feed(c)? {
            // Eight bytes would print 65,535 characters.
            Function::Rep(times) => Some(Function::Rep(times.min(columns))),
            function => Some(function),
        });
        self.terminal.execute_with(functions, observer);
    }

    /// The terminal has this size from here on.
    pub(crate) fn resize(&mut self, columns: u32, rows: u32, observer: impl Observer) {
        let (columns, rows) = size(columns, rows);
        self.terminal.resize_with(columns, rows, observer);
    }
}

/// The size that is emulated where the record says this one. Zero is what clients say that do not know.
pub(crate) fn size(columns: u32, rows: u32) -> (usize, usize) {
    let within = |asked: u32, unknown: usize, most: usize| match usize::try_from(asked) {
        Ok(0) => unknown,
        Ok(asked) => asked.min(most),
        Err(_) => most,
    };
    (within(columns, SIZE_DEFAULT.0, COLUMNS_MAX), within(rows, SIZE_DEFAULT.1, ROWS_MAX))
}

/// Text that comes in pieces: a character may be cut by a frame. What is no UTF-8 is replaced.
#[derive(Debug, Default)]
pub(crate) struct Utf8 {
    /// The beginning of a character, at most three bytes.
    rest: Vec<u8>,
}

impl Utf8 {
    /// The characters that are whole with these bytes.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> String {
        self.rest.extend_from_slice(bytes);
        let all = std::mem::take(&mut self.rest);
        let mut text = String::with_capacity(all.len());
        let mut left = all.as_slice();
        while let Err(error) = std::str::from_utf8(left) {
            let (valid, after) = left.split_at(error.valid_up_to());
            text.push_str(std::str::from_utf8(valid).unwrap_or_default());
            let Some(wrong) = error.error_len() else {
                self.rest = after.to_vec();
                return text;
            };
            text.push(char::REPLACEMENT_CHARACTER);
            left = after.get(wrong..).unwrap_or_default();
        }
        text.push_str(std::str::from_utf8(left).unwrap_or_default());
        text
    }

    /// There is nothing more.
    pub(crate) fn finish(&mut self) -> Option<char> {
        let cut = !std::mem::take(&mut self.rest).is_empty();
        cut.then_some(char::REPLACEMENT_CHARACTER)
    }
}

/// A transcript in memory.
#[cfg(test)]
pub(crate) struct Frames {
    frames: Vec<Frame>,
    next: usize,
}

#[cfg(test)]
impl Frames {
    /// Of bytes at their times, in microseconds.
    pub(crate) fn of(written: &[(u64, &[u8])]) -> Self {
        let bytes = |&(at_us, bytes): &(u64, &[u8])| Frame::Bytes {
            stream: model::transcript::Stream::Stdout,
            at_us,
            bytes: bytes.to_vec(),
        };
        Self { frames: written.iter().map(bytes).collect(), next: 0 }
    }

    /// With a size at a time.
    pub(crate) fn sized(mut self, at_us: u64, columns: u32, rows: u32) -> Self {
        let place =
            self.frames.iter().position(|frame| !matches!(frame, Frame::Bytes { at_us: at, .. } if *at < at_us));
        self.frames.insert(place.unwrap_or(self.frames.len()), Frame::Size { at_us, columns, rows });
        self
    }
}

#[cfg(test)]
impl Tape for Frames {
    fn rewind(&mut self) -> Result<(), Failure> {
        self.next = 0;
        Ok(())
    }

    fn next(&mut self) -> Result<Option<Frame>, Failure> {
        let frame = self.frames.get(self.next).cloned();
        self.next += 1;
        Ok(frame)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_character_that_frames_cut_stays_whole_and_no_utf8_is_replaced() {
        let whole = "a日b\u{1f600}é".as_bytes();
        for cut in 1..whole.len() {
            let mut utf8 = Utf8::default();
            let text: String = whole.chunks(cut).map(|piece| utf8.push(piece)).collect();
            assert_eq!((text.as_str(), utf8.finish()), ("a日b\u{1f600}é", None), "pieces of {cut}");
        }
        let mut utf8 = Utf8::default();
        assert_eq!(utf8.push(b"a\xffb\xe6\x97A\x9b31m\xe6"), "a\u{fffd}b\u{fffd}A\u{fffd}31m");
        assert_eq!((utf8.finish(), utf8.finish()), (Some('\u{fffd}'), None));
    }

    #[test]
    fn sizes_are_kept_within_bounds() {
        assert_eq!(size(132, 43), (132, 43));
        assert_eq!(size(0, 0), SIZE_DEFAULT);
        assert_eq!(size(u32::MAX, u32::MAX), (COLUMNS_MAX, ROWS_MAX));
        let mut emulator = Emulator::default();
        for (columns, rows) in [(1, 1), (0, 7), (u32::MAX, 1), (1, u32::MAX), (3, 2)] {
            emulator.write("日本語 wide\x1b[999;999H日\x1b[2J".as_bytes(), ());
            emulator.resize(columns, rows, ());
        }
        assert_eq!(emulator.terminal().size(), (3, 2));
    }
}
