//! Lines that are read off the screen: what stands there, behind where somebody began to type, when Enter is pressed.
//!
//! The screen is what a terminal of the same size would show, so that what was rubbed out, recalled or completed is there as it
//! was, and what was not echoed is not. It is what a person would see, and no more to be trusted than that.

use std::mem;

use super::emulator::Emulator;

/// The largest screen that is followed: nobody types lines on a larger one, and it is followed while others wait.
const COLUMNS_MAX: u32 = 500;
const ROWS_MAX: u32 = 200;
/// Lines that were entered and not shown yet.
const ENTERED_MAX: usize = 1000;
/// The longest prompt that is remembered, characters.
const PROMPT_CHARACTERS_MAX: usize = 200;
/// The longest line that is read, characters; of a longer one, the beginning.
const LINE_CHARACTERS_MAX: usize = 16 * 1024;
/// What `Ctrl-C` sends.
const INTERRUPT: u8 = 0x03;
/// What `Ctrl-O` sends: with readline, Enter and the next line of the history.
const OPERATE: u8 = 0x0f;

/// A line that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Typed {
    pub(super) text: String,
    /// What stands in front of it.
    pub(super) prompt: String,
}

impl Typed {
    /// Whether it stands behind a prompt that looks like this one: prompts show times and directories, so the beginning and
    /// the end count.
    pub(super) fn is_behind(&self, prompt: &str) -> bool {
        let ends = |text: &str| {
            let text = text.trim();
            let first: String = text.chars().take(3).collect();
            (first, text.chars().next_back())
        };
        !prompt.trim().is_empty() && ends(&self.prompt) == ends(prompt)
    }
}

/// What a terminal shows, and where somebody types in it.
pub(super) struct Screen {
    emulator: Emulator,
    /// The column where the first character of a line was typed.
    typed_at: Option<usize>,
    /// Lines that were entered and have not been shown yet.
    entered: usize,
}

impl Screen {
    pub(super) fn new(columns: u32, rows: u32) -> Self {
        let mut screen = Self { emulator: Emulator::default(), typed_at: None, entered: 0 };
        screen.resize(columns, rows);
        screen
    }

    pub(super) fn resize(&mut self, columns: u32, rows: u32) {
        self.emulator.resize(columns.min(COLUMNS_MAX), rows.min(ROWS_MAX), ());
    }

    /// A shell shows its prompt: what was typed before belongs to what ran before.
    pub(super) fn prompt(&mut self) {
        (self.typed_at, self.entered) = (None, 0);
    }

    /// Somebody types. Where the first key is pressed, a line begins; no later key moves that.
    pub(super) fn input(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            if byte == INTERRUPT {
                // What is typed so far is given up; what was entered is not.
                if self.entered == 0 {
                    self.typed_at = None;
                }
                continue;
            }
            let column = self.emulator.terminal().cursor().col;
            self.typed_at.get_or_insert(column);
            if matches!(byte, b'\r' | b'\n' | OPERATE) {
                self.entered = ENTERED_MAX.min(self.entered + 1);
            }
        }
    }

    /// The host shows something. `read` gets each line that was entered and is whole on the screen now.
    pub(super) fn output(&mut self, bytes: &[u8], mut read: impl FnMut(Typed)) {
        let mut rest = bytes;
        while self.entered > 0 {
            let Some(end) = rest.iter().position(|&byte| byte == b'\n') else { break };
            let (line, after) = rest.split_at(end);
            self.emulator.write(line, ());
            if let Some(typed) = self.read() {
                read(typed);
            }
            self.entered -= 1;
            rest = after.get(1..).unwrap_or_default();
            self.emulator.write(b"\n", ());
            // What was typed ahead begins where its line does.
            self.typed_at = (self.entered > 0).then_some(0);
        }
        self.emulator.write(rest, ());
    }

    /// The line that the cursor is in, cut where somebody began to type. None if nothing stands there.
    fn read(&mut self) -> Option<Typed> {
        let at = mem::take(&mut self.typed_at)?;
        let terminal = self.emulator.terminal();
        let line = |row: usize| terminal.screen().line(row);
        let last = terminal.cursor().row;
        let wraps = |row: &usize| line(*row).is_some_and(avt::Line::is_wrapped);
        let first = last - (0..last).rev().take_while(wraps).count();
        let cells = (first..=last).filter_map(line).flat_map(avt::Line::cells).enumerate();
        let (mut prompt, mut text) = (String::new(), String::new());
        for (column, cell) in cells.filter(|(_, cell)| cell.width() > 0).take(LINE_CHARACTERS_MAX) {
            if column < at { prompt.push(cell.char()) } else { text.push(cell.char()) }
        }
        let prompt = prompt.chars().take(PROMPT_CHARACTERS_MAX).collect();
        let text = text.trim();
        (!text.is_empty()).then(|| Typed { text: text.to_owned(), prompt })
    }
}
