//! `onrecord output COMMAND`: what a program wrote, as it was recorded.

use clap::{Args, ValueEnum};
use model::transcript::{Frame, Stream, Whole};
use serde_json::{Value, json};

use super::Context;
use super::source;
use super::transcript::{self, Frames};
use crate::Failure;
use crate::cli::RecordPlace;
use crate::output::{Console, Format, Tone, lines};
use crate::terminal::Tape as _;

/// Arguments of `output`.
#[derive(Debug, Args)]
pub struct Output {
    /// A command (SESSION.N), in full or by the end of the session's id
    id: String,
    /// One stream only
    #[arg(long, value_name = "STREAM")]
    stream: Option<Which>,
    /// The bytes as they are: they can do to a terminal what the program could
    #[arg(long)]
    raw: bool,
    #[command(flatten)]
    place: RecordPlace,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Which {
    /// What it was given
    Stdin,
    /// What it wrote
    Stdout,
    /// What it wrote of errors
    Stderr,
}

impl Output {
    /// Does it.
    pub fn run(self, context: &mut Context) -> Result<(), Failure> {
        let reader = context.reader(&self.place)?;
        let view = source::command_named(&reader, &self.id)?;
        let (_, transcript) = transcript::of(&view)?;
        let console = &mut context.console;
        let mut frames = Frames::open(&reader, view.id.session, &transcript.content)?;
        let mut texts = [Vec::new(), Vec::new(), Vec::new()];
        let mut listed = Vec::new();
        while let Some(frame) = frames.next()? {
            self.frame(frame, &mut texts, &mut listed, console)?;
        }
        if console.format() == Format::Json {
            return console.json_list(listed.iter().map(Ok::<_, Failure>));
        }
        for text in texts.iter().filter(|text| !text.is_empty()) {
            line(text, console)?;
        }
        let left_out = transcript::left_out(transcript, transcript::Typed::of(&view));
        if let Some(left_out) = left_out.filter(|_| console.format() == Format::Table && !self.raw) {
            let said = console.paint(Tone::Faint, &format!("({left_out})"));
            console.line(&said)?;
        }
        Ok(())
    }

    fn wants(&self, stream: Stream) -> bool {
        match self.stream {
            None => stream != Stream::Stdin,
            Some(Which::Stdin) => stream == Stream::Stdin,
            Some(Which::Stdout) => stream == Stream::Stdout,
            Some(Which::Stderr) => stream == Stream::Stderr,
        }
    }

    fn frame(
        &self,
        frame: Frame,
        texts: &mut [Vec<u8>; 3],
        listed: &mut Vec<Value>,
        console: &mut Console,
    ) -> Result<(), Failure> {
        let (stream, at_us, bytes) = match frame {
            Frame::Bytes { stream, at_us, bytes } => (stream, at_us, bytes),
            Frame::Size { .. } => return Ok(()),
            Frame::End { at_us, wholes } => return self.wholes(at_us, wholes, listed, console),
        };
        if !self.wants(stream) {
            return Ok(());
        }
        if console.format() != Format::Table {
            let text = String::from_utf8_lossy(&bytes);
            return tell(json!({"stream": stream.as_str(), "at_us": at_us, "text": text}), listed, console);
        }
        if self.raw {
            return Ok(console.bytes(&bytes)?);
        }
        // Lines as they get whole: a character may be cut by a frame.
        let Some(text) = texts.get_mut(usize::from(stream.number())) else { return Ok(()) };
        for piece in bytes.split_inclusive(|&byte| byte == b'\n') {
            let (whole, piece) = piece.strip_suffix(b"\n").map_or((false, piece), |piece| (true, piece));
            text.extend_from_slice(piece);
            if whole {
                line(text, console)?;
                text.clear();
            }
        }
        Ok(())
    }

    /// What each stream was as a whole, kept or not: nothing that a program wrote, so for other programs only.
    fn wholes(
        &self,
        at_us: u64,
        wholes: [Whole; 3],
        listed: &mut Vec<Value>,
        console: &mut Console,
    ) -> Result<(), Failure> {
        if console.format() == Format::Table {
            return Ok(());
        }
        for (stream, whole) in Stream::ALL.into_iter().zip(wholes).filter(|(stream, _)| self.wants(*stream)) {
            let sha256 = whole.sha256.map(|digest| digest.hex());
            let told = json!({"stream": stream.as_str(), "at_us": at_us, "bytes": whole.bytes, "sha256": sha256});
            tell(told, listed, console)?;
        }
        Ok(())
    }
}

fn tell(told: Value, listed: &mut Vec<Value>, console: &mut Console) -> Result<(), Failure> {
    if console.format() == Format::Json {
        listed.push(told);
        return Ok(());
    }
    Ok(console.json(&told)?)
}

fn line(text: &[u8], console: &mut Console) -> Result<(), Failure> {
    for line in lines(&String::from_utf8_lossy(text)) {
        console.line(&line)?;
    }
    Ok(())
}
