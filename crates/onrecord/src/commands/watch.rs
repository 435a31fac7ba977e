//! `onrecord watch ID`: what a program writes, or the commands of a session, while they happen. The record says who watched.

use std::time::Duration;

use clap::Args;
use gateway::Shown;
use model::transcript::{Frame, Stream};
use model::{Body, SessionId, Via};
use serde_json::json;
use store::{CommandStatus, CommandView, Reader};
use tokio::sync::mpsc;

use super::row::{self, Times};
use super::selection::Selection;
use super::source::{self, Named};
use super::transcript::has_terminal;
use super::{Context, asking, commands};
use crate::Failure;
use crate::cli::RecordPlace;
use crate::control::{Request, Watching};
use crate::output::{Console, Format, Tone, single_line};
use crate::terminal::stage;

/// How often it is looked for more commands.
const INTERVAL: Duration = Duration::from_millis(250);
/// What is shown that waits to be drawn.
const SHOWN_MAX: usize = 64;
/// A line of output that is longer is printed in parts, of so many bytes.
const LINE_BYTES_MAX: usize = 8 * 1024;

/// Arguments of `watch`.
#[derive(Debug, Args)]
pub struct Watch {
    /// A session, or a running program (SESSION.N), in full or by the end of the session's id
    id: String,
}

impl Watch {
    /// Does it.
    pub fn run(self, context: &mut Context) -> Result<(), Failure> {
        if context.console.format() == Format::Json {
            return Err(Failure::usage("what is watched has no end, and --output json is one value")
                .hint("use --output ndjson"));
        }
        let reader = context.reader(&RecordPlace::default())?;
        match source::named(&reader, &self.id)? {
            Named::Command(id) => {
                let view = source::command(&reader, id)?;
                if view.status() != CommandStatus::Pending {
                    return Err(Failure::not_found(format_args!("{id} has ended"))
                        .hint(format_args!("`onrecord show {id}` says how; `replay` and `output` what it wrote")));
                }
                program(context, &view)
            }
            Named::Session(id) => match terminal_now(&reader, id)? {
                Some(view) => program(context, &view),
                None => session(context, &reader, id),
            },
        }
    }
}

/// The program with a terminal that runs in a session, the last to begin if several do.
fn terminal_now(reader: &Reader, session: SessionId) -> Result<Option<CommandView>, Failure> {
    let mut found = None;
    for view in source::commands(reader, &of(session))? {
        let view = view.map_err(source::unreadable)?;
        if view.status() == CommandStatus::Pending && is_program(&view) && has_terminal(&view) {
            found = Some(view);
        }
    }
    Ok(found)
}

fn of(session: SessionId) -> Selection {
    Selection { session: Some(session.to_string()), ..Selection::default() }
}

fn is_program(view: &CommandView) -> bool {
    matches!(view.via, Via::Exec | Via::Shell)
}

/// Shows what a program writes, until it is over.
fn program(context: &mut Context, view: &CommandView) -> Result<(), Failure> {
    let (id, terminal) = (view.id, has_terminal(view));
    let watching = asking::watch(context, id)?;
    let console = &mut context.console;
    if !terminal || console.format() != Format::Table || !stage::is_there() {
        return print(watching, terminal, console);
    }
    console.line(&console.paint(Tone::Faint, &format!("{id}: live; the record says that you watch")))?;
    console.flush()?;
    let (sender, shown) = mpsc::channel(SHOWN_MAX);
    std::thread::Builder::new().name("watch".to_owned()).spawn(move || pass_on(watching, &sender))?;
    let end = stage::watch(shown, console.look().colour)?;
    let said = match end {
        stage::End::Left => format!("{id} goes on"),
        stage::End::Over => format!("{id} has ended: onrecord show {id}"),
        stage::End::Lost => return Err(shows_no_more("it ended the connection")),
    };
    Ok(console.line(&console.paint(Tone::Faint, &said))?)
}

fn shows_no_more(why: impl std::fmt::Display) -> Failure {
    Failure::new(format_args!("the gateway shows no more: {why}"))
        .hint("whether the program goes on is not known; `onrecord show` has what the record says")
}

/// Passes on what comes until it is over, the gateway is gone or nobody wants it any more.
fn pass_on(mut watching: Watching, sender: &mpsc::Sender<Shown>) {
    while let Ok(shown) = watching.wait() {
        if sender.blocking_send(shown).is_err() {
            return;
        }
    }
}

/// The text of what a program writes, line by line.
fn print(mut watching: Watching, terminal: bool, console: &mut Console) -> Result<(), Failure> {
    let next = || loop {
        match watching.wait() {
            Ok(Shown::Frame(frame)) => return Ok(Some(frame)),
            Ok(Shown::Over) => return Ok(None),
            Ok(Shown::Missed(bytes)) => super::note(format_args!("{bytes} bytes came too fast and are not shown")),
            Ok(Shown::Nothing) => {}
            Err(error) => return Err(shows_no_more(error)),
        }
    };
    let say = |at_us: u64, stream: Stream, text: &str| {
        match console.format() {
            Format::Table => console.line(&single_line(text))?,
            Format::Json | Format::Ndjson => {
                console.json(&json!({"at_us": at_us, "stream": stream.as_str(), "text": text}))?;
            }
        }
        Ok(console.flush()?)
    };
    match terminal {
        true => {
            let mut say = say;
            crate::terminal::text(next, |at_us, text| say(at_us, Stream::Stdout, text))
        }
        false => by_lines(next, say),
    }
}

/// Lines of what has no terminal, of each stream by itself.
fn by_lines(
    mut next: impl FnMut() -> Result<Option<Frame>, Failure>,
    mut say: impl FnMut(u64, Stream, &str) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let mut lines = [Stream::Stdout, Stream::Stderr].map(|stream| (stream, Vec::new()));
    let mut at = 0;
    while let Some(frame) = next()? {
        let Frame::Bytes { stream, at_us, bytes } = frame else { continue };
        at = at_us;
        for (_, line) in lines.iter_mut().filter(|(of, _)| *of == stream) {
            for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
                line.extend_from_slice(piece);
                if line.ends_with(b"\n") || line.len() >= LINE_BYTES_MAX {
                    let text = String::from_utf8_lossy(line);
                    say(at, stream, text.trim_end_matches(['\r', '\n']))?;
                    line.clear();
                }
            }
        }
    }
    for (stream, line) in lines.iter().filter(|(_, line)| !line.is_empty()) {
        say(at, *stream, &String::from_utf8_lossy(line))?;
    }
    Ok(())
}

/// The commands of a session as they begin and end, until it ends.
fn session(context: &mut Context, reader: &Reader, id: SessionId) -> Result<(), Failure> {
    asking::ask_live(context, &Request::Follow { session: id.to_string() })?;
    let console = &mut context.console;
    let mut from = 0;
    let mut all = source::commands(reader, &of(id))?;
    let mut above = row::table(&[], Times::Full, 0);
    loop {
        // Whether it has ended first: then what follows is all there is.
        let end = closed(reader, id, &mut from)?;
        let rows = commands::newest(&mut all, 0, &mut |_| Ok(true))?;
        commands::print_below(&mut above, &rows, console)?;
        for row in rows.iter().filter(|row| row.is_terminal_now()) {
            super::note(format_args!("its terminal: onrecord watch {}", row.short_id()));
        }
        console.flush()?;
        if let Some(reason) = end {
            if console.format() == Format::Table {
                console.line(&console.paint(Tone::Faint, &format!("the session ended: {reason}")))?;
            }
            return Ok(());
        }
        std::thread::sleep(INTERVAL);
        all.again();
    }
}

/// Why a session ended, if it has by now. `from` is where to look on.
fn closed(reader: &Reader, id: SessionId, from: &mut u64) -> Result<Option<String>, Failure> {
    for stored in reader.entries(*from) {
        let stored = stored.map_err(source::unreadable)?;
        *from = stored.index + 1;
        if let Body::SessionClose(close) = &stored.entry.body
            && close.link.session == id
        {
            return Ok(Some(close.reason.to_string()));
        }
    }
    Ok(None)
}
