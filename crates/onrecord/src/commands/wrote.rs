//! `--wrote TEXT`: commands by what they wrote; what had a terminal, by what was to be read on it.

use model::transcript::{Frame, Stream};
use store::{CommandView, Reader};

use super::transcript::{self, Frames, Typed, left_out};
use super::words;
use crate::terminal::lines::{Search, StreamSearch};
use crate::terminal::{self, Emulator, Tape};
use crate::{Exit, Failure};

/// Looks for a text in what commands wrote, and counts where it cannot look.
pub(super) struct Wrote {
    text: String,
    closed: usize,
    cut: usize,
}

impl Wrote {
    pub(super) fn new(text: String) -> Self {
        Self { text, closed: 0, cut: 0 }
    }

    /// Whether this command wrote it.
    ///
    /// # Errors
    /// The record cannot be read.
    pub(super) fn by(&mut self, reader: &Reader, view: &CommandView) -> Result<bool, Failure> {
        let Some(transcript) = view.outcome.as_ref().and_then(|outcome| outcome.transcript.as_ref()) else {
            return Ok(false);
        };
        if transcript.stdout + transcript.stderr == 0 {
            return Ok(false);
        }
        let mut frames = match Frames::open(reader, view.id.session, &transcript.content) {
            Ok(frames) => frames,
            Err(failure) if failure.exit() == Exit::NotFound => {
                self.closed += 1;
                return Ok(false);
            }
            Err(failure) => return Err(failure),
        };
        let found = match transcript::has_terminal(view) {
            true => on_screen(&self.text, &mut frames)?,
            false => in_lines(&self.text, &mut frames)?,
        };
        self.cut += usize::from(!found && left_out(transcript, Typed::of(view)).is_some());
        Ok(found)
    }

    /// Says where it could not look.
    pub(super) fn say_what_is_missing(&self) {
        let commands = |count| words::counted(count, "command", "commands");
        if self.closed > 0 {
            super::note(format_args!(
                "the output of {} could not be searched: it was erased or withheld, or its key is not here",
                commands(self.closed)
            ));
        }
        if self.cut > 0 {
            super::note(format_args!(
                "the output of {} is kept in part, and was searched as far as that",
                commands(self.cut)
            ));
        }
    }
}

fn on_screen(text: &str, frames: &mut impl Tape) -> Result<bool, Failure> {
    let mut emulator = Emulator::default();
    let mut search = Search::new(text);
    while let Some(frame) = frames.next()?.filter(|_| !search.found()) {
        terminal::apply(&mut emulator, &frame, &mut search);
    }
    Ok(search.found())
}

fn in_lines(text: &str, frames: &mut impl Tape) -> Result<bool, Failure> {
    let mut streams = [Stream::Stdout, Stream::Stderr].map(|stream| (stream, StreamSearch::new(text)));
    while let Some(frame) = frames.next()?.filter(|_| !streams.iter().any(|(_, search)| search.found())) {
        if let Frame::Bytes { stream, bytes, .. } = frame {
            streams.iter_mut().filter(|(of, _)| *of == stream).for_each(|(_, search)| search.push(&bytes));
        }
    }
    Ok(streams.iter().any(|(_, search)| search.found()))
}
