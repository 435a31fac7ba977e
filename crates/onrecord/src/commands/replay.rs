//! `onrecord replay SESSION`: the session again, command by command, in its own time.

use std::time::Duration;

use clap::Args;
use serde_json::Value;

use super::row::{self, Row};
use super::selection::Selection;
use super::source::{self, Named};
use super::{Context, show, words};
use crate::Failure;
use crate::cli::RecordPlace;
use crate::output::{Console, Format, Tone, lines, single_line};

/// A pause longer than this is cut to it, and said.
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// Arguments of `replay`.
#[derive(Debug, Args)]
pub struct Replay {
    /// The session, in full or by the end of its id
    session: String,
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
        let id = match source::named(&reader, &self.session)? {
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
            let row = Row::from(command.map_err(source::unreadable)?);
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
