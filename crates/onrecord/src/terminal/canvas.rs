//! Draws an emulated screen on a real terminal, of which only what changed.
//!
//! Invariant: what is drawn consists of cursor moves, colours and attributes, erasing, showing and hiding the cursor, all of
//! our own making, and of characters that print. Nothing of it depends on how wide the terminal takes a character to be.

use std::fmt::Write;

use avt::{Cell, Color, Pen};
use unicode_width::UnicodeWidthChar;

use super::Emulator;
use crate::output::acts;

/// What the terminal of whoever looks shows.
pub(crate) struct Canvas {
    columns: usize,
    rows: usize,
    colour: bool,
    shown: Vec<Vec<Cell>>,
    status: Option<String>,
    blank: bool,
}

impl Canvas {
    /// A window of this size, of which nothing is known.
    pub(crate) fn new(columns: usize, rows: usize, colour: bool) -> Self {
        let shown = vec![vec![Cell::default(); columns]; rows];
        Self { columns, rows, colour, shown, status: None, blank: false }
    }

    /// How much it can show: columns and rows.
    pub(crate) fn size(&self) -> (usize, usize) {
        (self.columns, self.rows)
    }

    /// What makes the terminal show this screen. `status`, if there is one, takes the last row. What does not fit is cut
    /// off: rows above, so that the cursor is seen, and columns at the right.
    pub(crate) fn draw(&mut self, emulator: &Emulator, status: Option<&str>) -> String {
        let mut out = String::from("\x1b[?25l");
        if !self.blank {
            out.push_str("\x1b[0m\x1b[2J");
            self.blank = true;
        }
        let terminal = emulator.terminal();
        let cursor = terminal.cursor();
        let rows = self.rows - usize::from(status.is_some()).min(self.rows);
        let above = (cursor.row + 1).saturating_sub(rows);
        for row in 0..rows {
            let line = terminal.screen().line(above + row);
            let cells = cells(line.map(avt::Line::cells).unwrap_or_default(), self.columns);
            self.row(row, cells, &mut out);
        }
        self.say(status, &mut out);
        if let Some((column, row)) = cursor.position().filter(|(column, _)| *column <= self.columns) {
            let column = column.min(self.columns.saturating_sub(1));
            let _ = write!(out, "\x1b[{};{}H\x1b[?25h", row - above + 1, column + 1);
        }
        out
    }

    fn row(&mut self, row: usize, cells: Vec<Cell>, out: &mut String) {
        let Some(shown) = self.shown.get_mut(row) else { return };
        let differ = |(new, old): (&Cell, &Cell)| new != old;
        let Some(first) = cells.iter().zip(shown.iter()).position(differ) else { return };
        let last = cells.iter().zip(shown.iter()).rposition(differ).unwrap_or(first);
        // Both halves of a wide character, of what is there and of what comes.
        let halved = |cells: &[Cell]| cells.get(first).is_some_and(|cell| cell.width() == 0);
        let first = if halved(&cells) || halved(shown) { first.saturating_sub(1) } else { first };
        let mut pen: Option<&Pen> = None;
        // Where the terminal's cursor is; not known behind what terminals disagree on.
        let mut at = None;
        for (column, cell) in cells.iter().enumerate().take(last + 1).skip(first).filter(|(_, cell)| cell.width() > 0) {
            if at != Some(column) {
                let _ = write!(out, "\x1b[{};{}H", row + 1, column + 1);
            }
            if pen != Some(cell.pen()) {
                attributes(cell.pen(), self.colour, out);
                pen = Some(cell.pen());
            }
            at = put(cell.char(), out).then_some(column + 1);
        }
        if pen.is_some() {
            out.push_str("\x1b[0m");
        }
        *shown = cells;
    }

    fn say(&mut self, status: Option<&str>, out: &mut String) {
        let Some(shown) = self.shown.last_mut() else { return };
        if let Some(text) = status.filter(|text| self.status.as_deref() != Some(*text)) {
            let mut width = 0;
            let fits = text.chars().take_while(|c| {
                width += c.width().unwrap_or(1);
                width <= self.columns
            });
            let _ = write!(out, "\x1b[{};1H\x1b[0;7m\x1b[2K", self.rows);
            fits.for_each(|c| {
                put(c, out);
            });
            out.push_str("\x1b[0m");
        }
        // What is under it is drawn again once it goes.
        if status.is_none() && self.status.is_some() {
            let _ = write!(out, "\x1b[{};1H\x1b[0m\x1b[2K", self.rows);
            shown.fill(Cell::default());
        }
        self.status = status.map(str::to_owned);
    }
}

/// The first cells of a row, so many. Of a wide character that is cut, nothing is left.
fn cells(line: &[Cell], columns: usize) -> Vec<Cell> {
    let mut cells: Vec<Cell> = line.iter().take(columns).copied().collect();
    if let Some(cut) = cells.last_mut().filter(|cell| cell.width() == 2) {
        *cut = Cell::default();
    }
    cells.resize(columns, Cell::default());
    cells
}

/// Prints a character; whether every terminal takes it to be one column wide.
fn put(c: char, out: &mut String) -> bool {
    match c {
        ' '..='~' => {
            out.push(c);
            return true;
        }
        _ if acts(c) => out.push(char::REPLACEMENT_CHARACTER),
        _ if c.width() == Some(0) => out.extend([c, ' ']),
        _ => out.push(c),
    }
    false
}

fn attributes(pen: &Pen, colour: bool, out: &mut String) {
    out.push_str("\x1b[0");
    let set = [
        (pen.is_bold(), ";1"),
        (pen.is_faint(), ";2"),
        (pen.is_italic(), ";3"),
        (pen.is_underline(), ";4"),
        (pen.is_inverse(), ";7"),
        (pen.is_strikethrough(), ";9"),
    ];
    set.into_iter().filter(|(set, _)| *set).for_each(|(_, code)| out.push_str(code));
    for (plane, of) in [(38, pen.foreground()), (48, pen.background())] {
        let _ = match of.filter(|_| colour) {
            Some(Color::Indexed(index)) => write!(out, ";{plane};5;{index}"),
            Some(Color::RGB(rgb)) => write!(out, ";{plane};2;{};{};{}", rgb.r, rgb.g, rgb.b),
            None => Ok(()),
        };
    }
    out.push('m');
}

/// Whether a text consists of nothing but what [`Canvas::draw`] may write.
#[must_use]
pub(crate) fn is_safe(drawn: &str) -> bool {
    let mut rest = drawn;
    while let Some(at) = rest.find(acts) {
        let Some(sequence) = rest.get(at..).and_then(|rest| rest.strip_prefix("\x1b[")) else { return false };
        let Some(end) = sequence.find(|c: char| !matches!(c, '0'..='9' | ';' | '?')) else { return false };
        let (parameters, after) = sequence.split_at(end);
        let allowed = match after.chars().next() {
            Some('H' | 'm') => !parameters.contains('?'),
            Some('J' | 'K') => parameters == "2",
            Some('h' | 'l') => parameters == "?25",
            _ => false,
        };
        if !allowed {
            return false;
        }
        rest = after.get(1..).unwrap_or_default();
    }
    true
}

#[cfg(test)]
#[allow(clippy::indexing_slicing)]
mod tests {
    use super::*;

    /// What a terminal shows once this was drawn on it.
    fn seen(size: (u32, u32), drawn: &str) -> Vec<String> {
        let mut viewer = Emulator::default();
        viewer.resize(size.0, size.1, ());
        viewer.write(drawn.as_bytes(), ());
        rows(&viewer)
    }

    fn rows(emulator: &Emulator) -> Vec<String> {
        emulator.terminal().screen().visible_lines().map(|line| line.text().trim_end().to_owned()).collect()
    }

    fn emulated(size: (u32, u32), written: &[u8]) -> Emulator {
        let mut emulator = Emulator::default();
        emulator.resize(size.0, size.1, ());
        emulator.write(written, ());
        emulator
    }

    #[test]
    fn hostile_sequences_do_not_come_through() {
        let hostile: [&[u8]; 16] = [
            b"\x1b]52;c;aGVsbG8=\x07",
            b"\x1b]0;rm -rf\x07\x1b[21t",
            b"\x1bP$q\"p\x1b\\\x1bP+q544e\x1b\\",
            b"\x1b_Gi=1;AAAA\x1b\\",
            b"\x1b^private\x1b\\\x1bXsos\x1b\\",
            b"\x1b[c\x1b[>c\x1b[=c\x1bZ\x05",
            b"\x1b[6n\x1b[5n\x1b[?6n\x1b[18t\x1b[14t",
            b"\x9b6n\x9d52;c;aGVsbG8=\x9c\x90q\x9c\x9e\x9f\x98",
            "\u{9b}6n\u{9d}0;x\u{9c}\u{90}q\u{9c}".as_bytes(),
            b"\x1b]1337;File=inline=1:AAAA\x07\x1b]8;;http://x\x07link\x1b]8;;\x07",
            b"\x1b[?1000h\x1b[?2004h\x1b[?1h\x1b=\x1b[>4;2m\x1b[?9001h\x1b[20h",
            b"\x1b]4;1;?\x07\x1b]10;?\x07\x1b]633;E;ls\x07\x1b]777;notify;a;b\x07",
            "\u{202e}desrever\u{200b}\u{2066}\u{e0041}\u{ad}".as_bytes(),
            b"\x1b[8;1;1t\x1b[3;0;0t\x1b#8\x1bc\x1b(0lqk\x1b[!p\x07\x0e\x0f\x7f\x00",
            b"\x1b]52;c;never ended",
            b"\x1b[38;2;1;2;3;48;5;200m\x1b[999999999999;1H\x1b[",
        ];
        for written in hostile {
            let emulator = emulated((20, 4), &[b"before ", written, b" after"].concat());
            let drawn = Canvas::new(30, 6, true).draw(&emulator, Some("status \u{1b}[c"));
            assert!(is_safe(&drawn), "{:?} drew {drawn:?}", String::from_utf8_lossy(written));
        }
        for unsafe_one in ["\x1b[c", "\x1b]0;x\x07", "\x07", "\u{9b}m", "a\x1b", "\x1b[", "\x1b[?1h", "\x1b[3J", "\r"] {
            assert!(!is_safe(unsafe_one), "{unsafe_one:?}");
        }
    }

    #[test]
    fn what_is_drawn_shows_what_was_on_the_screen() {
        let written = "one \x1b[1;31mred\x1b[0m\r\n日本語 e\u{301}x\r\n\x1b[44mwide\x1b[K".as_bytes();
        let emulator = emulated((20, 4), written);
        let drawn = Canvas::new(20, 4, true).draw(&emulator, None);
        assert_eq!(seen((20, 4), &drawn)[..3], ["one red", "日本語 e\u{301}x", "wide"]);
        assert!(drawn.contains("\x1b[0;1;38;5;1m") && drawn.contains(";48;5;4m"), "{drawn:?}");
        let plain = Canvas::new(20, 4, false).draw(&emulator, None);
        assert!(!plain.contains(";38;") && !plain.contains(";48;"), "{plain:?}");
    }

    #[test]
    fn drawing_what_changed_comes_to_the_same_as_drawing_it_all() {
        let mut emulator = emulated((12, 4), b"");
        let mut canvas = Canvas::new(12, 5, true);
        let mut all = String::new();
        let written = [
            "日本語日本\r\nplain\x1b[7minverse",
            "\x1b[1;2Hx",
            "\x1b[1;1H  日",
            "\x1b[2J\x1b[4;1Hbottom\r\nscrolled\r\n",
            "\x1b[1;12H日",
            "\x1b[1;11H日",
            "\x1b[1;11H \x1b[3;3Hé\u{301}\x1b[1P",
            "\x1bc",
            "\x1b[?25lhidden",
        ];
        for (number, written) in written.iter().enumerate() {
            emulator.write(written.as_bytes(), ());
            let status = (number % 3 == 1).then_some("a status");
            let drawn = canvas.draw(&emulator, status);
            assert!(is_safe(&drawn), "{drawn:?}");
            all.push_str(&drawn);
            let anew = Canvas::new(12, 5, true).draw(&emulator, status);
            assert_eq!(seen((12, 5), &all), seen((12, 5), &anew), "after {written:?}");
        }
    }

    #[test]
    fn a_window_that_is_too_small_shows_the_part_with_the_cursor() {
        let emulator = emulated((10, 4), "1\r\n2\r\n3\r\n4567890日".as_bytes());
        assert_eq!(seen((8, 2), &Canvas::new(8, 2, true).draw(&emulator, None)), ["3", "4567890"]);
        assert_eq!(
            seen((8, 2), &Canvas::new(8, 2, true).draw(&emulator, Some("a long status"))),
            ["4567890", "a long s"]
        );
        for (columns, rows) in [(0, 0), (1, 0), (0, 1), (1, 1)] {
            assert!(is_safe(&Canvas::new(columns, rows, true).draw(&emulator, Some("x"))));
        }
    }
}
