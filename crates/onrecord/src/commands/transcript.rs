//! Transcripts as commands need them: their frames out of the record, and what a terminal's recording is of.

use std::collections::VecDeque;

use model::transcript::{Frame, Reader as FrameReader};
use model::{CommandId, Field, SessionId, Transcript, Via};
use serde_json::Value;
use store::{BlobReader, CommandView, Opened, OutcomeView, Reader};

use super::row::Row;
use super::selection::Selection;
use super::source;
use crate::Failure;
use crate::terminal::{Mark, Tape};

/// The frames of one, piece by piece: it may be longer than memory.
pub(super) struct Frames<'a> {
    reader: &'a Reader,
    session: SessionId,
    content: &'a Field,
    source: Source,
    frames: FrameReader,
    ready: VecDeque<Frame>,
}

/// Where the pieces come from.
enum Source {
    Blob(Box<BlobReader>),
    Whole(Vec<u8>),
    /// There are no more; that the last frame was there is not looked at yet.
    Ended,
    /// It was.
    Over,
}

impl<'a> Frames<'a> {
    /// Of content that can be shown.
    ///
    /// # Errors
    /// It was erased, withheld or cannot be opened; the words say what.
    pub(super) fn open(reader: &'a Reader, session: SessionId, content: &'a Field) -> Result<Self, Failure> {
        let mut frames = Self {
            reader,
            session,
            content,
            source: Source::Ended,
            frames: FrameReader::default(),
            ready: VecDeque::new(),
        };
        frames.rewind()?;
        Ok(frames)
    }
}

impl Tape for Frames<'_> {
    fn rewind(&mut self) -> Result<(), Failure> {
        self.frames = FrameReader::default();
        self.ready.clear();
        if let Field::Blob(blob) = self.content
            && let Some(blob) = self.reader.open_blob(self.session, blob).map_err(source::unreadable)?
        {
            self.source = Source::Blob(Box::new(blob));
            return Ok(());
        }
        let opened = self.reader.open_field(self.session, self.content).map_err(source::unreadable)?;
        let why = source::state(&opened);
        let Opened::Bytes(bytes) = opened else {
            let why = why.unwrap_or_else(|| "there is none".to_owned());
            return Err(Failure::not_found(format_args!("the output cannot be shown: {why}")));
        };
        self.source = Source::Whole(bytes);
        Ok(())
    }

    fn next(&mut self) -> Result<Option<Frame>, Failure> {
        let wrong = |error| Failure::new(error).hint("`onrecord verify` says what is wrong with the record");
        let Self { frames, ready, .. } = self;
        loop {
            if let Some(frame) = ready.pop_front() {
                return Ok(Some(frame));
            }
            match &mut self.source {
                Source::Blob(blob) => match blob.next_chunk().map_err(Failure::new)? {
                    Some(piece) => frames.push(piece, |frame| ready.push_back(frame)).map_err(wrong)?,
                    None => self.source = Source::Ended,
                },
                Source::Whole(bytes) => {
                    let bytes = std::mem::take(bytes);
                    self.source = Source::Ended;
                    frames.push(&bytes, |frame| ready.push_back(frame)).map_err(wrong)?;
                }
                Source::Ended => {
                    std::mem::take(frames).finish().map_err(wrong)?;
                    self.source = Source::Over;
                }
                Source::Over => return Ok(None),
            }
        }
    }
}

/// What went over a command's streams.
pub(super) fn of(view: &CommandView) -> Result<(&OutcomeView, &Transcript), Failure> {
    let ended = view.outcome.as_ref().and_then(|outcome| Some((outcome, outcome.transcript.as_ref()?)));
    ended.ok_or_else(|| {
        Failure::not_found(format_args!("there is no output of {} in this record", view.id))
            .hint("only programs have one, once they have ended; `onrecord show` says what there is of others")
    })
}

/// Whether a program was to have a terminal, as far as its parameters can be read. That it had one, the transcript says.
pub(super) fn has_terminal(view: &CommandView) -> bool {
    terminal_name(view).is_some()
}

fn terminal_name(view: &CommandView) -> Option<String> {
    terminal_in(&parameters(view)?).map(str::to_owned)
}

/// The name of the terminal that a program was to have, in its parameters.
pub(super) fn terminal_in(parameters: &Value) -> Option<&str> {
    parameters.get("terminal")?.as_str()
}

fn parameters(view: &CommandView) -> Option<Value> {
    match &view.parameters {
        Opened::Bytes(bytes) => serde_json::from_slice(bytes).ok(),
        _ => None,
    }
}

/// What a terminal showed, with all that the record says of it.
pub(super) struct Recording<'a> {
    pub(super) id: CommandId,
    pub(super) transcript: &'a Transcript,
    pub(super) frames: Frames<'a>,
    /// The name of the terminal.
    pub(super) terminal: Option<String>,
    /// The size that it began with, as the record says it.
    pub(super) size: Option<(u32, u32)>,
    /// Microseconds since 1970 at which the program began.
    pub(super) began_us: i64,
    pub(super) duration_us: u64,
    /// The exit status, or the signal.
    pub(super) code: Option<String>,
    /// The lines that the shell ran, in the order of their times.
    pub(super) marks: Vec<Mark>,
}

impl<'a> Recording<'a> {
    /// Of a command that had a terminal.
    pub(super) fn of(reader: &'a Reader, view: &'a CommandView) -> Result<Self, Failure> {
        let (outcome, transcript) = of(view)?;
        let mut frames = Frames::open(reader, view.id.session, &transcript.content)?;
        let (mut duration_us, mut size) = (0, None);
        while let Some(frame) = frames.next()? {
            match frame {
                Frame::End { at_us, .. } => duration_us = at_us,
                Frame::Size { columns, rows, .. } => size = size.or(Some((columns, rows))),
                Frame::Bytes { .. } => {}
            }
        }
        if size.is_none() {
            return Err(Failure::not_found(format_args!("{} had no terminal", view.id))
                .hint("`onrecord output ID` prints what it wrote"));
        }
        frames.rewind()?;
        // A command may wait after its intent, for a person or for the host.
        let ended_us = outcome.time.wall_us;
        let began_us = ended_us.saturating_sub(i64::try_from(duration_us).unwrap_or(i64::MAX));
        let began_us = began_us.clamp(view.time.wall_us.min(ended_us), ended_us);
        Ok(Self {
            id: view.id,
            transcript,
            frames,
            terminal: terminal_name(view),
            size,
            began_us,
            duration_us,
            code: outcome.code.clone(),
            marks: marks(reader, view, began_us)?,
        })
    }

    /// Says what of the output is not there, if something is not.
    pub(super) fn left_out(&self) -> Option<String> {
        left_out(self.transcript, Typed::Counted)
    }
}

/// Whether a program's input is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Typed {
    Kept,
    /// As with a terminal.
    Counted,
}

impl Typed {
    pub(super) fn of(view: &CommandView) -> Self {
        if has_terminal(view) { Self::Counted } else { Self::Kept }
    }
}

/// Says what of what should be kept is not there, if something is not.
pub(super) fn left_out(transcript: &Transcript, typed: Typed) -> Option<String> {
    let typed = if typed == Typed::Kept { transcript.stdin } else { 0 };
    let all = typed + transcript.stdout + transcript.stderr;
    (transcript.kept < all).then(|| format!("{} of {all} bytes are not kept", all - transcript.kept))
}

/// The lines that ran in a shell.
fn marks(reader: &Reader, shell: &CommandView, began_us: i64) -> Result<Vec<Mark>, Failure> {
    let selection = Selection { session: Some(shell.id.session.to_string()), ..Selection::default() };
    let mut marks = Vec::new();
    for view in source::commands(reader, &selection)? {
        let view = view.map_err(source::unreadable)?;
        let of = parameters(&view).and_then(|parameters| parameters.get("shell")?.as_u64());
        if view.via != Via::Line || of != Some(u64::from(shell.id.ordinal)) {
            continue;
        }
        let at_us = u64::try_from(view.time.wall_us.saturating_sub(began_us)).unwrap_or(0);
        let row = Row::from(view);
        marks.push(Mark { at_us, text: row.text_or_why().1.to_owned() });
    }
    marks.sort_by_key(|mark| mark.at_us);
    Ok(marks)
}
