//! What the demo shows: calm lines for people, events for programs.

use std::io::Write;
use std::time::Duration;

use anyhow::Result;
use onrecord::output::{Console, Format, Look, Tone};
use serde_json::{Value, json};

/// Where the demo prints.
pub(crate) struct Screen {
    pub(crate) console: Console,
}

/// Columns of a step's name.
const NAME: usize = 12;

impl Screen {
    pub(crate) fn new(json: bool) -> Self {
        Self { console: Console::stdout(if json { Format::Ndjson } else { Format::Table }) }
    }

    pub(crate) fn is_json(&self) -> bool {
        self.console.format() != Format::Table
    }

    /// What this is, and where it keeps things.
    pub(crate) fn title(&mut self, place: &str) -> Result<()> {
        if self.is_json() {
            return Ok(());
        }
        let name = self.console.paint(Tone::Strong, "OnRecord demo");
        let about = self.console.paint(Tone::Faint, &format!("local and disposable, in {place}"));
        self.console.line(&format!("\n  {name}  {about}\n"))?;
        Ok(self.console.flush()?)
    }

    /// A step is done.
    pub(crate) fn step(&mut self, name: &str, text: &str, took: Option<Duration>, event: Value) -> Result<()> {
        if self.is_json() {
            return self.event(name, event);
        }
        let tick = self.console.paint(Tone::Good, "✓");
        let took = took.map_or_else(String::new, |took| {
            self.console.paint(Tone::Faint, &format!("  {:.1} s", took.as_secs_f64()))
        });
        self.console.line(&format!("  {tick} {name:NAME$} {text}{took}"))?;
        Ok(self.console.flush()?)
    }

    /// Something to know before it goes on.
    pub(crate) fn note(&mut self, text: &str) -> Result<()> {
        if self.is_json() {
            return self.event("note", json!({"text": text}));
        }
        let mark = self.console.paint(Tone::Warning, "·");
        self.console.line(&format!("  {mark} {text}"))?;
        Ok(self.console.flush()?)
    }

    /// The beginning of a part.
    pub(crate) fn heading(&mut self, text: &str) -> Result<()> {
        if self.is_json() {
            return Ok(());
        }
        let text = self.console.paint(Tone::Strong, text);
        self.console.line(&format!("\n  {text}"))?;
        Ok(self.console.flush()?)
    }

    /// A line to copy, under what it is for.
    pub(crate) fn try_this(&mut self, what: &str, line: &str) -> Result<()> {
        if self.is_json() {
            return self.event("try", json!({"what": what, "line": line}));
        }
        let what = self.console.paint(Tone::Faint, &format!("# {what}"));
        self.console.line(&format!("  {what}\n  {line}\n"))?;
        Ok(self.console.flush()?)
    }

    /// A last line.
    pub(crate) fn close(&mut self, text: &str) -> Result<()> {
        if self.is_json() {
            return self.event("note", json!({"text": text}));
        }
        self.console.line(&format!("  {}", self.console.paint(Tone::Faint, text)))?;
        Ok(self.console.flush()?)
    }

    /// Nobody to tell it to is no reason to fail again.
    pub(crate) fn failure(&mut self, text: &str) {
        let _ = self.console.flush();
        let stderr = std::io::stderr();
        let mark = Look::of(&stderr).paint(Tone::Bad, "✗");
        let _ = writeln!(stderr.lock(), "  {mark} {text}");
    }

    pub(crate) fn event(&mut self, name: &str, mut event: Value) -> Result<()> {
        if let Some(fields) = event.as_object_mut() {
            fields.insert("event".to_owned(), name.into());
        }
        self.console.json(&event)?;
        Ok(self.console.flush()?)
    }
}

/// A reader that has seen enough, such as `head`, is no failure.
pub(crate) fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let broken = |cause: &(dyn std::error::Error + 'static)| {
        cause.downcast_ref::<std::io::Error>().is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe)
    };
    error.chain().any(broken)
}
