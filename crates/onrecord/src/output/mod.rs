//! What the CLI prints: tables for people, JSON for programs.
//!
//! Invariant: text that came from a client or a resource reaches a terminal only through [`escape`], so
//! that nothing recorded can drive the terminal of the person who reads it.

mod escape;
mod table;

pub(crate) use escape::{acts, json as json_text};
pub use escape::{lines, single_line};
pub use table::{Align, Cell, Column, Table};

use std::io::{self, IsTerminal, Write};

use clap::ValueEnum;
use clap::builder::styling::{AnsiColor, Style};
use serde::Serialize;

/// How results are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Format {
    /// For people, fitted to the terminal.
    #[default]
    Table,
    /// One JSON value.
    Json,
    /// One JSON object a line.
    Ndjson,
}

impl Write for Console {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.out.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// What a piece of text is to the reader, which decides its colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Tone {
    /// Broken, refused, altered.
    Bad,
    /// Beside the point.
    Faint,
    /// As it should be.
    Good,
    /// As any text.
    #[default]
    Plain,
    /// What to look at first.
    Strong,
    /// Worth a look.
    Warning,
}

/// Where a command prints, and how.
pub struct Console {
    out: Box<dyn Write>,
    format: Format,
    look: Look,
}

/// What the terminal can do.
#[derive(Debug, Clone, Copy, Default)]
pub struct Look {
    /// Whether to use colours.
    pub colour: bool,
    /// Columns that a line may take; unlimited when nobody looks at a terminal.
    pub width: Option<usize>,
}

impl Console {
    /// The process's standard output.
    pub fn stdout(format: Format) -> Self {
        let stdout = io::stdout();
        let look = Look::of(&stdout);
        Self { out: Box::new(io::BufWriter::new(stdout)), format, look }
    }

    /// A console that prints elsewhere, such as into a test's buffer.
    pub fn new(out: Box<dyn Write>, format: Format, look: Look) -> Self {
        Self { out, format, look }
    }

    /// How results are printed.
    pub fn format(&self) -> Format {
        self.format
    }

    /// What the terminal can do.
    pub fn look(&self) -> Look {
        self.look
    }

    /// The text in the colour of its tone.
    pub fn paint(&self, tone: Tone, text: &str) -> String {
        self.look.paint(tone, text)
    }

    /// Prints bytes as they are.
    pub fn bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.out.write_all(bytes)
    }

    /// Prints a line as it is.
    pub fn line(&mut self, line: &str) -> io::Result<()> {
        writeln!(self.out, "{line}")
    }

    /// Prints a table; nothing for one without rows.
    pub fn table(&mut self, table: &Table) -> io::Result<()> {
        table.render(&mut self.out, self.look)
    }

    /// Prints one JSON value on its own: indented for `json`, on one line for `ndjson`.
    pub fn json(&mut self, value: &impl Serialize) -> io::Result<()> {
        let text = match self.format {
            Format::Ndjson => serde_json::to_string(value),
            Format::Json | Format::Table => serde_json::to_string_pretty(value),
        };
        self.line(&escape::json(&text?))
    }

    /// Prints a list as JSON: an array for `json`, an object a line for `ndjson`. Streams.
    pub fn json_list<T: Serialize, E: From<io::Error>>(
        &mut self,
        values: impl IntoIterator<Item = Result<T, E>>,
    ) -> Result<(), E> {
        let (first, between, last) = match self.format {
            Format::Ndjson => ("", "\n", "\n"),
            Format::Json | Format::Table => ("[\n  ", ",\n  ", "\n]\n"),
        };
        let mut some = false;
        for value in values {
            let text = serde_json::to_string(&value?).map_err(io::Error::from)?;
            self.out.write_all(if some { between } else { first }.as_bytes())?;
            self.out.write_all(escape::json(&text).as_bytes())?;
            some = true;
        }
        match (some, self.format) {
            (true, _) => self.out.write_all(last.as_bytes())?,
            (false, Format::Ndjson) => {}
            (false, Format::Json | Format::Table) => self.out.write_all(b"[]\n")?,
        }
        Ok(self.out.flush()?)
    }

    /// Hands on what is buffered.
    pub fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

impl Look {
    /// What this stream can do: nothing unless it is a terminal. `COLUMNS` is believed about the width.
    pub fn of(stream: &(impl IsTerminal + std::os::fd::AsFd)) -> Self {
        let asked = std::env::var("COLUMNS").ok().and_then(|columns| columns.parse().ok());
        if !stream.is_terminal() {
            return Self { colour: false, width: asked };
        }
        let set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        let size = rustix::termios::tcgetwinsize(stream).ok();
        let columns = size.map(|size| usize::from(size.ws_col)).filter(|columns| *columns > 0);
        Self {
            colour: !set("NO_COLOR") && std::env::var_os("TERM").is_none_or(|term| term != "dumb"),
            width: asked.or(columns),
        }
    }

    /// The text in the colour of its tone.
    pub fn paint(self, tone: Tone, text: &str) -> String {
        let style = match tone {
            Tone::Bad => Style::new().fg_color(Some(AnsiColor::Red.into())),
            Tone::Faint => Style::new().dimmed(),
            Tone::Good => Style::new().fg_color(Some(AnsiColor::Green.into())),
            Tone::Plain => Style::new(),
            Tone::Strong => Style::new().bold(),
            Tone::Warning => Style::new().fg_color(Some(AnsiColor::Yellow.into())),
        };
        if self.colour && tone != Tone::Plain && !text.is_empty() {
            format!("{style}{text}{style:#}")
        } else {
            text.to_owned()
        }
    }
}
