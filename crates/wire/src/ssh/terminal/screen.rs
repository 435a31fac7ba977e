//! Lines that are read off the screen: what stands there, where something was typed, when Enter is pressed.
//!
//! The screen is what a terminal of the same size would show (crate `vt100`), so that what was rubbed out, recalled or
//! completed is there as it was, and what was not echoed is not.

use std::mem;

use vt100::Parser;

/// The largest screen that is followed, columns and rows; larger ones are followed as if they were so large.
const COLUMNS_MAX: u16 = 1000;
const ROWS_MAX: u16 = 500;
/// Lines that were entered and not shown yet.
const ENTERED_MAX: usize = 1000;
/// The longest prompt that is remembered, characters.
const PROMPT_CHARACTERS_MAX: usize = 200;

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
    parser: Parser,
    /// The column where the first character of a line was typed.
    typed_at: Option<u16>,
    /// Lines that were entered and have not been shown yet.
    entered: usize,
}

impl Screen {
    pub(super) fn new(columns: u32, rows: u32) -> Self {
        let (rows, columns) = within(columns, rows);
        Self { parser: Parser::new(rows, columns, 0), typed_at: None, entered: 0 }
    }

    pub(super) fn resize(&mut self, columns: u32, rows: u32) {
        let (rows, columns) = within(columns, rows);
        self.parser.screen_mut().set_size(rows, columns);
    }

    /// A shell shows its prompt: what was typed before belongs to what ran before.
    pub(super) fn prompt(&mut self) {
        (self.typed_at, self.entered) = (None, 0);
    }

    /// Somebody types.
    pub(super) fn input(&mut self, bytes: &[u8]) {
        if self.parser.screen().alternate_screen() {
            return;
        }
        for &byte in bytes {
            match byte {
                // Interrupt, end of file: whatever was typed is not entered.
                0x03 | 0x04 => self.prompt(),
                b'\r' | b'\n' => self.entered = ENTERED_MAX.min(self.entered + 1),
                _ => {}
            }
            if self.typed_at.is_none() && byte >= 0x20 || byte == 0x1b || byte == b'\r' {
                let (_, column) = self.parser.screen().cursor_position();
                self.typed_at.get_or_insert(column);
            }
        }
    }

    /// The host shows something. `read` gets each line that was entered and is whole on the screen now.
    pub(super) fn output(&mut self, bytes: &[u8], mut read: impl FnMut(Typed)) {
        let mut rest = bytes;
        while self.entered > 0 {
            let Some(end) = rest.iter().position(|&byte| byte == b'\n') else { break };
            let (line, after) = rest.split_at(end);
            self.parser.process(line);
            if let Some(typed) = self.read() {
                read(typed);
            }
            self.entered -= 1;
            rest = after.get(1..).unwrap_or_default();
            self.parser.process(b"\n");
            // What was typed ahead begins where its line does.
            self.typed_at = (self.entered > 0).then_some(0);
        }
        self.parser.process(rest);
    }

    /// The line that the cursor is in, cut where somebody began to type. None if nothing stands there.
    fn read(&mut self) -> Option<Typed> {
        let at = mem::take(&mut self.typed_at)?;
        let screen = self.parser.screen();
        let (last, _) = screen.cursor_position();
        let (_, columns) = screen.size();
        let mut first = last;
        while first > 0 && screen.row_wrapped(first - 1) {
            first -= 1;
        }
        let text = screen.contents_between(first, at, last, columns);
        let prompt = screen.contents_between(first, 0, first, at);
        let text = text.trim();
        let prompt = prompt.chars().take(PROMPT_CHARACTERS_MAX).collect();
        (!text.is_empty()).then(|| Typed { text: text.to_owned(), prompt })
    }
}

/// Rows and columns that a screen can have. Who does not say how many there are has as many as usual.
fn within(columns: u32, rows: u32) -> (u16, u16) {
    let clamp = |number: u32, usual: u16, max: u16| match number {
        0 => usual,
        number => u16::try_from(number).unwrap_or(max).min(max),
    };
    (clamp(rows, 24, ROWS_MAX), clamp(columns, 80, COLUMNS_MAX))
}
