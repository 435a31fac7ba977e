//! `onrecord replay ID`: the session again, command by command, in its own time; or what a terminal showed.

use std::time::Duration;

use clap::Args;
use model::{SessionId, Via};
use serde_json::{Value, json};
use store::{CommandView, Reader};

use super::row::{self, Row};
use super::selection::Selection;
use super::source::{self, Named};
use super::transcript::{Recording, has_terminal};
use super::{Context, show, words};
use crate::Failure;
use crate::cli::RecordPlace;
use crate::output::{Console, Format, Tone, lines, single_line};
use crate::terminal::player::{PAUSE_MAX, Player};
use crate::terminal::{self, SIZE_DEFAULT, Tape as _, stage};

/// Arguments of `replay`.
#[derive(Debug, Args)]
pub struct Replay {
    /// A session, or a command that had a terminal (SESSION.N), in full or by the end of the session's id
    id: String,
    /// So many times as fast
    #[arg(long, value_name = "X", default_value_t = 1.0, value_parser = speed, conflicts_with = "at_once")]
    speed: f64,
    /// Without pauses
    #[arg(long)]
    at_once: bool,
    #[command(flatten)]
    place: RecordPlace,
}

impl Replay {
    /// Does it.
    pub fn run(self, context: &mut Context) -> Result<(), Failure> {
        let reader = context.reader(&self.place)?;
        let named = source::named(&reader, &self.id)?;
        let table = context.console.format() == Format::Table;
        let terminal = match named {
            Named::Command(id) => Some(source::command(&reader, id)?).filter(has_terminal),
            Named::Session(id) if table => only_terminal(&reader, id)?,
            Named::Session(_) => None,
        };
        if let Some(view) = terminal {
            return self.terminal(&reader, &view, &mut context.console);
        }
        let id = match named {
            Named::Session(id) => id,
            Named::Command(id) => id.session,
        };
        let selection = Selection { session: Some(id.to_string()), ..Selection::default() };
        let view = source::sessions(&reader, &selection)?
            .into_iter()
            .next()
            .ok_or_else(|| Failure::not_found(format_args!("there is no session {id} in this record")))?;
        let console = &mut context.console;
        if console.format() == Format::Table {
            show::about_session(&view, console)?;
            show::about_erasures(&show::erasures(&reader, id)?, console)?;
        }
        let mut clock = view.time.wall_us;
        let mut rows = Vec::new();
        for command in source::commands(&reader, &selection)? {
            let view = command.map_err(source::unreadable)?;
            let played =
                has_terminal(&view) && view.outcome.as_ref().is_some_and(|outcome| outcome.transcript.is_some());
            let row = Row::from(view);
            if console.format() == Format::Json {
                rows.push(row);
                continue;
            }
            self.wait(row.time - clock, console)?;
            clock = row.time;
            if console.format() == Format::Table {
                asked(&row, console)?;
                let took = row.measured.as_ref().map_or(0, |measured| measured.duration_us);
                self.wait(i64::try_from(took).unwrap_or(i64::MAX), console)?;
                clock = clock.saturating_add(i64::try_from(took).unwrap_or(0));
                answered(&row, console)?;
                if played {
                    let how = format!("what its terminal showed: onrecord replay {}", row.short_id());
                    console.line(&format!("  {}", console.paint(Tone::Faint, &how)))?;
                }
            } else {
                console.json(&row)?;
            }
            console.flush()?;
        }
        if console.format() == Format::Json {
            return console.json_list(rows.iter().map(Ok::<_, Failure>));
        }
        if console.format() == Format::Table {
            let end = match &view.close {
                None => "the session is open".to_owned(),
                Some(close) => format!("the session ended: {}", close.reason),
            };
            console.line(&format!("\n{}", console.paint(Tone::Faint, &end)))?;
        }
        Ok(())
    }

    /// Plays what a terminal showed; where there is no terminal to play it on, prints the text.
    fn terminal(&self, reader: &Reader, view: &CommandView, console: &mut Console) -> Result<(), Failure> {
        let recording = Recording::of(reader, view)?;
        let left_out = recording.left_out();
        if console.format() != Format::Table || !stage::is_there() {
            return print(recording, console);
        }
        let (columns, rows) = recording.size.map_or(SIZE_DEFAULT, |(columns, rows)| terminal::size(columns, rows));
        let took = words::duration(recording.duration_us);
        let said = format!("{}: {columns}x{rows}, {took}", recording.id);
        console.line(&console.paint(Tone::Faint, &said))?;
        if let Some(window) = stage::window(&std::io::stdout()).filter(|window| window.0 < columns || window.1 < rows) {
            let said = format!("this window is {}x{}: what does not fit is not shown", window.0, window.1);
            console.line(&console.paint(Tone::Warning, &said))?;
        }
        if let Some(left_out) = left_out {
            console.line(&console.paint(Tone::Warning, &left_out))?;
        }
        console.flush()?;
        let colour = console.look().colour;
        let mut player = Player::new(recording.frames, recording.marks, recording.duration_us, self.speed)?;
        if self.at_once {
            player.skip_to_end();
        }
        stage::play(player, colour)
    }

    fn wait(&self, recorded_us: i64, console: &mut Console) -> Result<(), Failure> {
        let recorded = Duration::from_micros(u64::try_from(recorded_us).unwrap_or(0));
        if self.at_once || recorded.is_zero() {
            return Ok(());
        }
        console.flush()?;
        let pause = recorded.div_f64(self.speed);
        if pause > PAUSE_MAX && console.format() == Format::Table {
            let said = format!("\n(nothing for {})", words::duration(u64::try_from(recorded_us).unwrap_or(0)));
            console.line(&console.paint(Tone::Faint, &said))?;
            console.flush()?;
        }
        std::thread::sleep(pause.min(PAUSE_MAX));
        Ok(())
    }
}

/// The terminal of a session in which there is nothing else.
fn only_terminal(reader: &Reader, session: SessionId) -> Result<Option<CommandView>, Failure> {
    let selection = Selection { session: Some(session.to_string()), ..Selection::default() };
    let mut only = None;
    for view in source::commands(reader, &selection)? {
        let view = view.map_err(source::unreadable)?;
        if view.via == Via::Line {
            continue;
        }
        let played = view.outcome.as_ref().is_some_and(|outcome| outcome.transcript.is_some());
        if only.is_some() || !played || !has_terminal(&view) {
            return Ok(None);
        }
        only = Some(view);
    }
    Ok(only)
}

/// The text of a terminal: lines as they scroll off, and the screen at the end.
fn print(recording: Recording<'_>, console: &mut Console) -> Result<(), Failure> {
    let left_out = recording.left_out();
    let format = console.format();
    let mut frames = recording.frames;
    let mut listed = Vec::new();
    terminal::text(
        || frames.next(),
        |at_us, text| {
            match format {
                Format::Json => listed.push(json!({"at_us": at_us, "text": text})),
                Format::Ndjson => console.json(&json!({"at_us": at_us, "text": text}))?,
                Format::Table => console.line(&single_line(text))?,
            }
            Ok(())
        },
    )?;
    if format == Format::Json {
        console.json_list(listed.iter().map(Ok::<_, Failure>))?;
    }
    if let Some(left_out) = left_out {
        console.flush()?;
        super::note(format_args!("{left_out}"));
    }
    Ok(())
}

fn asked(row: &Row, console: &mut Console) -> Result<(), Failure> {
    let ordinal = format!("#{}", row.ordinal);
    let time = words::in_full(row.time);
    let head = format!("\n{}  {}", console.paint(Tone::Strong, &ordinal), console.paint(Tone::Faint, &time));
    console.line(&head)?;
    if let Some(text) = &row.text {
        for line in lines(text) {
            console.line(&format!("  {line}"))?;
        }
    }
    if let Some(why) = &row.text_state {
        console.line(&format!("  {}", console.paint(Tone::Faint, why)))?;
    }
    if let Some(Value::Array(values)) = &row.parameters {
        for (number, value) in (1..).zip(values) {
            let value = show::parameter(value);
            let line = format!("${number} = {}", single_line(&value));
            console.line(&format!("  {}", console.paint(Tone::Faint, &line)))?;
        }
    }
    Ok(console.flush()?)
}

/// The result line: status, what the server said, and how long it took.
fn answered(row: &Row, console: &mut Console) -> Result<(), Failure> {
    let mut line = console.paint(row::tone_of(row.status), row.status);
    if let Some(detail) = row.code.as_deref().or(row.reason) {
        line.push_str(&format!(" {}", single_line(detail)));
    }
    if let Some(message) = &row.message {
        line.push_str(&format!(": {}", single_line(message)));
    }
    if let Some(measured) = &row.measured {
        let tags: Vec<&str> = measured.results.iter().map(|result| result.tag.as_str()).collect();
        if !tags.is_empty() {
            line.push_str(&format!("  {}", single_line(&tags.join(", "))));
        }
        let took = words::duration(measured.duration_us);
        line.push_str(&console.paint(Tone::Faint, &format!("  {took}")));
    }
    Ok(console.line(&format!("  → {line}"))?)
}

fn speed(text: &str) -> Result<f64, &'static str> {
    match text.trim_end_matches(['x', 'X']).parse::<f64>() {
        Ok(speed) if (0.01..=10_000.0).contains(&speed) => Ok(speed),
        _ => Err("write a number from 0.01 to 10000, such as 10"),
    }
}
