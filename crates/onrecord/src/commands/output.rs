//! `onrecord output COMMAND`: what a program wrote, as it was recorded.

use clap::{Args, ValueEnum};
use model::transcript::{Frame, Stream};
use serde_json::{Value, json};
use store::Reader;

use super::Context;
use super::source::{self, Named};
use crate::Failure;
use crate::cli::RecordPlace;
use crate::output::{Console, Format, Tone, lines};

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
        let Named::Command(id) = source::named(&reader, &self.id)? else {
            return Err(Failure::usage(format_args!("{} is a session", self.id))
                .hint("`onrecord show ID` lists a session's commands"));
        };
        let view = source::command(&reader, id)?;
        let transcript = view.outcome.as_ref().and_then(|outcome| outcome.transcript.as_ref());
        let Some(transcript) = transcript else {
            return Err(Failure::not_found(format_args!("there is no output of {id} in this record"))
                .hint("only programs have one, once they have ended; `onrecord show` says what there is of others"));
        };
        let console = &mut context.console;
        let mut frames = model::transcript::Reader::default();
        let mut failed = Ok(());
        let mut texts = [Vec::new(), Vec::new(), Vec::new()];
        let mut listed = Vec::new();
        let mut show = |piece: &[u8], console: &mut Console| {
            let read = frames.push(piece, |frame| {
                if failed.is_ok() {
                    failed = self.frame(frame, &mut texts, &mut listed, console);
                }
            });
            read.map_err(|error| Failure::new(error).hint("`onrecord verify` says what is wrong with the record"))
        };
        pieces(&reader, id.session, &transcript.content, |piece| show(piece, console))?;
        failed?;
        if console.format() == Format::Json {
            return console.json_list(listed.iter().map(Ok::<_, Failure>));
        }
        for text in texts.iter().filter(|text| !text.is_empty()) {
            line(text, console)?;
        }
        let all = transcript.stdin + transcript.stdout + transcript.stderr;
        if transcript.kept < all && console.format() == Format::Table && !self.raw {
            let left_out = all - transcript.kept;
            let said = console.paint(Tone::Faint, &format!("({left_out} of {all} bytes are not kept)"));
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
        let Frame::Bytes { stream, at_us, bytes } = frame else { return Ok(()) };
        if !self.wants(stream) {
            return Ok(());
        }
        if console.format() != Format::Table {
            let text = String::from_utf8_lossy(&bytes);
            let frame = json!({"stream": stream.as_str(), "at_us": at_us, "text": text});
            if console.format() == Format::Json {
                listed.push(frame);
                return Ok(());
            }
            return Ok(console.json(&frame)?);
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
}

fn line(text: &[u8], console: &mut Console) -> Result<(), Failure> {
    for line in lines(&String::from_utf8_lossy(text)) {
        console.line(&line)?;
    }
    Ok(())
}

/// Content, piece by piece: it may be longer than memory.
fn pieces(
    reader: &Reader,
    session: model::SessionId,
    content: &model::Field,
    mut piece: impl FnMut(&[u8]) -> Result<(), Failure>,
) -> Result<(), Failure> {
    if let model::Field::Blob(blob) = content
        && let Some(mut blob) = reader.open_blob(session, blob).map_err(source::unreadable)?
    {
        while let Some(chunk) = blob.next_chunk().map_err(Failure::new)? {
            piece(chunk)?;
        }
        return Ok(());
    }
    let opened = reader.open_field(session, content).map_err(source::unreadable)?;
    match (&opened, source::state(&opened)) {
        (store::Opened::Bytes(bytes), _) => piece(bytes),
        (_, why) => Err(Failure::not_found(format_args!(
            "the output cannot be shown: {}",
            why.unwrap_or_else(|| "there is none".to_owned())
        ))),
    }
}
