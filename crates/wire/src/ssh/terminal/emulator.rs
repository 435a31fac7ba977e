//! A terminal, emulated: what it shows of what a program wrote.
//!
//! The emulator is crate `avt`. It takes any bytes: what could cost more than its length is bounded here.

use avt::Observer;
use avt::parser::Function;

/// The widest terminal that is emulated, in columns: what is said to be larger is cut to it.
pub const COLUMNS_MAX: usize = 1000;
/// The highest one, in rows.
pub const ROWS_MAX: usize = 500;
/// The size of a terminal of which nobody says it: columns and rows.
pub const SIZE_DEFAULT: (usize, usize) = (80, 24);

/// Cells that a byte may make the emulator touch, on the average: what clears whole screens is only a few bytes long.
const CELLS_PER_BYTE: usize = 64;
/// Cells that may be touched at once, when little was before.
const CELLS_SAVED_MAX: usize = 8 * COLUMNS_MAX * ROWS_MAX;

/// A terminal, emulated.
pub struct Emulator {
    parser: avt::Parser,
    terminal: avt::Terminal,
    utf8: Utf8,
    /// Cells that may still be touched.
    cells: usize,
}

impl Default for Emulator {
    fn default() -> Self {
        let (columns, rows) = SIZE_DEFAULT;
        let terminal = avt::Terminal::new(columns, rows).expect("neither is zero");
        Self { parser: avt::Parser::new(), terminal, utf8: Utf8::default(), cells: CELLS_SAVED_MAX }
    }
}

impl Emulator {
    /// What it shows.
    pub fn terminal(&self) -> &avt::Terminal {
        &self.terminal
    }

    /// What the program wrote.
    pub fn write(&mut self, bytes: &[u8], observer: impl Observer) {
        let text = self.utf8.push(bytes);
        let (columns, rows) = self.terminal.size();
        let (parser, cells) = (&mut self.parser, &mut self.cells);
        *cells = CELLS_SAVED_MAX.min(*cells + text.len() * CELLS_PER_BYTE);
        let functions = text.chars().filter_map(|c| {
            let function = match parser.feed(c)? {
                // Eight bytes would print 65,535 characters.
                Function::Rep(times) => Function::Rep(times.min(u16::try_from(columns).unwrap_or(u16::MAX))),
                function => function,
            };
            // Who does this many times over does not want it to be seen.
            *cells = cells.checked_sub(touched(&function, columns, rows))?;
            Some(function)
        });
        self.terminal.execute_with(functions, observer);
    }

    /// The terminal has this size from here on.
    pub fn resize(&mut self, columns: u32, rows: u32, observer: impl Observer) {
        let (columns, rows) = size(columns, rows);
        self.terminal.resize_with(columns, rows, observer);
    }
}

/// How many cells a function touches at most.
fn touched(function: &Function, columns: usize, rows: usize) -> usize {
    match function {
        Function::Decaln
        | Function::Decrst(_)
        | Function::Decset(_)
        | Function::Dl(_)
        | Function::Ed(_)
        | Function::Il(_)
        | Function::Ris
        | Function::Sd(_)
        | Function::Su(_) => columns * rows,
        Function::Dch(_) | Function::Ech(_) | Function::El(_) | Function::Ich(_) | Function::Rep(_) => columns,
        _ => 1,
    }
}

/// The size that is emulated where the record says this one. Zero is what clients say that do not know.
pub fn size(columns: u32, rows: u32) -> (usize, usize) {
    let within = |asked: u32, unknown: usize, most: usize| match usize::try_from(asked) {
        Ok(0) => unknown,
        Ok(asked) => asked.min(most),
        Err(_) => most,
    };
    (within(columns, SIZE_DEFAULT.0, COLUMNS_MAX), within(rows, SIZE_DEFAULT.1, ROWS_MAX))
}

/// Text that comes in pieces: a character may be cut by a frame. What is no UTF-8 is replaced.
#[derive(Debug, Default)]
pub struct Utf8 {
    /// The beginning of a character, at most three bytes.
    rest: Vec<u8>,
}

impl Utf8 {
    /// The characters that are whole with these bytes.
    pub fn push(&mut self, bytes: &[u8]) -> String {
        self.rest.extend_from_slice(bytes);
        let all = std::mem::take(&mut self.rest);
        let mut text = String::with_capacity(all.len());
        let mut left = all.as_slice();
        while let Err(error) = std::str::from_utf8(left) {
            let (valid, after) = left.split_at(error.valid_up_to());
            text.push_str(std::str::from_utf8(valid).unwrap_or_default());
            let Some(wrong) = error.error_len() else {
                self.rest = after.to_vec();
                return text;
            };
            text.push(char::REPLACEMENT_CHARACTER);
            left = after.get(wrong..).unwrap_or_default();
        }
        text.push_str(std::str::from_utf8(left).unwrap_or_default());
        text
    }

    /// There is nothing more.
    pub fn finish(&mut self) -> Option<char> {
        let cut = !std::mem::take(&mut self.rest).is_empty();
        cut.then_some(char::REPLACEMENT_CHARACTER)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_character_that_frames_cut_stays_whole_and_no_utf8_is_replaced() {
        let whole = "a日b\u{1f600}é".as_bytes();
        for cut in 1..whole.len() {
            let mut utf8 = Utf8::default();
            let text: String = whole.chunks(cut).map(|piece| utf8.push(piece)).collect();
            assert_eq!((text.as_str(), utf8.finish()), ("a日b\u{1f600}é", None), "pieces of {cut}");
        }
        let mut utf8 = Utf8::default();
        assert_eq!(utf8.push(b"a\xffb\xe6\x97A\x9b31m\xe6"), "a\u{fffd}b\u{fffd}A\u{fffd}31m");
        assert_eq!((utf8.finish(), utf8.finish()), (Some('\u{fffd}'), None));
    }

    #[test]
    fn a_few_bytes_do_not_keep_it_busy_for_long() {
        let mut emulator = Emulator::default();
        emulator.resize(1000, 500, ());
        emulator.write("\x1b#8".repeat(10_000).as_bytes(), ());
        emulator.write(b"\x1b[2J", ());
        let first = |emulator: &Emulator| emulator.terminal().screen().line(0).unwrap().text().trim_end().len();
        assert_eq!(first(&emulator), 1000, "clearing it once more is not seen");
        // What costs what it is long goes on, and pays for the next.
        emulator.write("x".repeat(10_000).as_bytes(), ());
        emulator.write(b"\x1b[2J", ());
        assert_eq!(first(&emulator), 0);
    }

    #[test]
    fn sizes_are_kept_within_bounds() {
        assert_eq!(size(132, 43), (132, 43));
        assert_eq!(size(0, 0), SIZE_DEFAULT);
        assert_eq!(size(u32::MAX, u32::MAX), (COLUMNS_MAX, ROWS_MAX));
        let mut emulator = Emulator::default();
        for (columns, rows) in [(1, 1), (0, 7), (u32::MAX, 1), (1, u32::MAX), (3, 2)] {
            emulator.write("日本語 wide\x1b[999;999H日\x1b[2J".as_bytes(), ());
            emulator.resize(columns, rows, ());
        }
        assert_eq!(emulator.terminal().size(), (3, 2));
    }
}
