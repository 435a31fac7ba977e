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

use std::cell::Cell;

use avt::Observer;
use model::transcript::{Frame, Stream};
pub(crate) use wire::ssh::terminal::emulator::{Emulator, SIZE_DEFAULT, Utf8, size};

use crate::Failure;

/// The frames of a transcript, from the beginning as often as need be.
pub(crate) trait Tape {
    /// Goes back to the beginning.
    fn rewind(&mut self) -> Result<(), Failure>;
    /// The next frame; none at the end.
    fn next(&mut self) -> Result<Option<Frame>, Failure>;
}

/// What a frame does to a screen. What was typed does nothing: what is shown of it came back from the program.
pub(crate) fn apply(emulator: &mut Emulator, frame: &Frame, observer: impl Observer) {
    match frame {
        Frame::Bytes { stream: Stream::Stdin, .. } | Frame::End { .. } => {}
        Frame::Bytes { bytes, .. } => emulator.write(bytes, observer),
        Frame::Size { columns, rows, .. } => emulator.resize(*columns, *rows, observer),
    }
}

/// The text of a terminal: lines as they scroll off, and the screen at the end, each with the time in microseconds.
pub(crate) fn text(
    mut next: impl FnMut() -> Result<Option<Frame>, Failure>,
    mut say: impl FnMut(u64, &str) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let mut emulator = Emulator::default();
    let (at_us, mut said) = (Cell::new(0), Ok(()));
    let mut lines = lines::Lines::new(|text: &str| {
        if said.is_ok() {
            said = say(at_us.get(), text);
        }
    });
    while let Some(frame) = next()? {
        at_us.set(at_of(&frame));
        apply(&mut emulator, &frame, &mut lines);
    }
    lines.finish(emulator.terminal());
    said
}

/// When a frame was written, in microseconds.
pub(crate) fn at_of(frame: &Frame) -> u64 {
    match frame {
        Frame::Bytes { at_us, .. } | Frame::Size { at_us, .. } | Frame::End { at_us, .. } => *at_us,
    }
}

/// A line that a shell ran, in the time of its terminal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mark {
    /// Microseconds since the terminal's program began.
    pub(crate) at_us: u64,
    /// The line.
    pub(crate) text: String,
}

/// A transcript in memory.
pub(crate) struct Frames {
    frames: Vec<Frame>,
    next: usize,
}

impl From<Vec<Frame>> for Frames {
    fn from(frames: Vec<Frame>) -> Self {
        Self { frames, next: 0 }
    }
}

#[cfg(test)]
impl Frames {
    /// Of bytes at their times, in microseconds.
    pub(crate) fn of(written: &[(u64, &[u8])]) -> Self {
        let bytes =
            |&(at_us, bytes): &(u64, &[u8])| Frame::Bytes { stream: Stream::Stdout, at_us, bytes: bytes.to_vec() };
        written.iter().map(bytes).collect::<Vec<_>>().into()
    }

    /// With a size at a time.
    pub(crate) fn sized(mut self, at_us: u64, columns: u32, rows: u32) -> Self {
        let place =
            self.frames.iter().position(|frame| !matches!(frame, Frame::Bytes { at_us: at, .. } if *at < at_us));
        self.frames.insert(place.unwrap_or(self.frames.len()), Frame::Size { at_us, columns, rows });
        self
    }
}

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
