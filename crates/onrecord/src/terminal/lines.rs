//! The text of a terminal: its lines as they leave the screen, and a search for what stood in them.

use avt::parser::{DecMode, Function};
use avt::{Line, Observation, Observer, Operation, ScreenKind, Terminal};

use wire::ssh::terminal::emulator::ROWS_MAX;

/// A line that goes on over several rows is text of at most so many bytes; what is longer is cut into several.
pub(crate) const LINE_BYTES_MAX: usize = 64 << 10;
/// So many rows before and behind the cursor's count as the same line while they are on the screen. What goes on over more
/// is looked at as it leaves the screen.
const JOINED_ROWS_MAX: usize = 8;

/// Gives the text of lines as they scroll off, of the screen when it is given up, and at the end of what is left.
pub(crate) struct Lines<F> {
    /// Rows of a line that is not whole yet.
    pending: String,
    /// Empty lines that nothing followed yet.
    empty: usize,
    say: F,
}

impl<F: FnMut(&str)> Lines<F> {
    pub(crate) fn new(say: F) -> Self {
        Self { pending: String::new(), empty: 0, say }
    }

    /// The end of a screen: all that is on it; first what is on the one behind it, if a program has the whole terminal.
    pub(crate) fn finish(&mut self, terminal: &Terminal) {
        terminal.primary_screen().visible_lines().for_each(|line| self.row(line));
        self.whole();
        self.empty = 0;
        if terminal.active_screen_kind() == ScreenKind::Alternate {
            self.alternate(terminal);
        }
    }

    /// What a program that had the whole terminal showed at last.
    fn alternate(&mut self, terminal: &Terminal) {
        let rows_before = std::mem::take(&mut self.pending);
        // A screen that is given up has nothing before its first line.
        let blank = |line: &&Line| line.text().trim().is_empty();
        terminal.screen().visible_lines().skip_while(blank).for_each(|line| self.row(line));
        self.whole();
        self.pending = rows_before;
        self.empty = 0;
    }

    fn row(&mut self, line: &Line) {
        self.pending.extend(line.chars());
        if !line.is_wrapped() || self.pending.len() > LINE_BYTES_MAX {
            self.line();
        }
    }

    fn whole(&mut self) {
        if !self.pending.is_empty() {
            self.line();
        }
    }

    fn line(&mut self) {
        let text = self.pending.trim_end();
        if text.is_empty() {
            // A few bytes can scroll a whole screen.
            self.empty = (self.empty + 1).min(ROWS_MAX);
        } else {
            for _ in 0..std::mem::take(&mut self.empty) {
                (self.say)("");
            }
            (self.say)(text);
        }
        self.pending.clear();
    }
}

impl<F: FnMut(&str)> Observer for Lines<F> {
    type Output = ();

    fn before(&mut self, context: &mut Observation<'_>, operation: &Operation) {
        let Operation::Function(function) = operation else { return };
        let terminal = context.terminal();
        match function {
            Function::Ris => self.finish(terminal),
            Function::Decrst(modes)
                if terminal.active_screen_kind() == ScreenKind::Alternate
                    && modes.as_slice().iter().any(|mode| is_alternate(*mode)) =>
            {
                self.alternate(terminal);
            }
            _ => {}
        }
    }

    fn evicted(&mut self, _context: &mut Observation<'_>, line: &Line) {
        self.row(line);
    }

    fn end(&mut self, _context: &mut Observation<'_>) {}
}

fn is_alternate(mode: DecMode) -> bool {
    matches!(mode, DecMode::AltScreenBuffer | DecMode::SaveCursorAltScreenBuffer)
}

/// Looks for a text in the lines as they stand on the screen: whenever the cursor leaves what was written, whatever becomes
/// of it afterwards. In capitals or not.
pub(crate) struct Search<'a> {
    wanted: &'a str,
    found: bool,
    /// The cursor's row has changed since it was looked at.
    changed: bool,
    /// The end of the line that the first row on the screen goes on.
    above: String,
}

impl<'a> Search<'a> {
    pub(crate) fn new(wanted: &'a str) -> Self {
        Self { wanted, found: false, changed: false, above: String::new() }
    }

    pub(crate) fn found(&self) -> bool {
        self.found
    }

    fn look(&mut self, terminal: &Terminal) {
        if !std::mem::take(&mut self.changed) || self.found {
            return;
        }
        let screen = terminal.screen();
        let row = terminal.cursor().row;
        let wrapped = |row: usize| screen.line(row).is_some_and(Line::is_wrapped);
        let first = (row.saturating_sub(JOINED_ROWS_MAX)..row).rev().take_while(|before| wrapped(*before)).last();
        let last = (row..row + JOINED_ROWS_MAX).find(|row| !wrapped(*row)).unwrap_or(row + JOINED_ROWS_MAX);
        let first = first.unwrap_or(row);
        let mut text = String::new();
        if first == 0 && terminal.active_screen_kind() == ScreenKind::Primary {
            text.push_str(&self.above);
        }
        for line in screen.visible_lines().skip(first).take(last + 1 - first) {
            text.extend(line.chars());
        }
        self.found = contains(text.as_bytes(), self.wanted.as_bytes());
    }
}

impl Observer for Search<'_> {
    type Output = ();

    fn before(&mut self, context: &mut Observation<'_>, operation: &Operation) {
        match operation {
            Operation::Function(Function::Print(_) | Function::Rep(_) | Function::Sgr(_)) => {}
            _ => self.look(context.terminal()),
        }
    }

    fn after(&mut self, _context: &mut Observation<'_>, operation: &Operation) {
        use Function::{Dch, Ech, El, Ich, Print, Rep};
        if let Operation::Function(Print(_) | Rep(_) | Dch(_) | Ech(_) | El(_) | Ich(_)) = operation {
            self.changed = true;
        }
    }

    fn evicted(&mut self, _context: &mut Observation<'_>, line: &Line) {
        self.above.extend(line.chars());
        if !self.found && contains(self.above.as_bytes(), self.wanted.as_bytes()) {
            self.found = true;
        }
        let keep = if line.is_wrapped() { self.wanted.len() } else { 0 };
        self.above = tail(&self.above, keep).to_owned();
    }

    fn end(&mut self, context: &mut Observation<'_>) {
        self.look(context.terminal());
    }
}

/// Looks for a text in the lines of a stream.
pub(crate) struct StreamSearch<'a> {
    wanted: &'a str,
    utf8: super::Utf8,
    line: String,
    found: bool,
}

impl<'a> StreamSearch<'a> {
    pub(crate) fn new(wanted: &'a str) -> Self {
        Self { wanted, utf8: super::Utf8::default(), line: String::new(), found: false }
    }

    pub(crate) fn push(&mut self, bytes: &[u8]) {
        for piece in self.utf8.push(bytes).split_inclusive('\n') {
            let (text, ends) = piece.strip_suffix('\n').map_or((piece, false), |text| (text, true));
            self.line.push_str(text);
            self.found |= contains(self.line.as_bytes(), self.wanted.as_bytes());
            let keep = if ends { 0 } else { self.wanted.len() };
            self.line = tail(&self.line, keep).to_owned();
        }
    }

    pub(crate) fn found(&self) -> bool {
        self.found
    }
}

/// The last bytes of a text, so many and up to three more.
fn tail(text: &str, bytes: usize) -> &str {
    let mut start = text.len().saturating_sub(bytes);
    while !text.is_char_boundary(start) {
        start -= 1;
    }
    text.get(start..).unwrap_or_default()
}

/// As `commands --contains` compares: capitals of ASCII letters do not count.
fn contains(text: &[u8], wanted: &[u8]) -> bool {
    wanted.is_empty() || text.windows(wanted.len()).any(|window| window.eq_ignore_ascii_case(wanted))
}

#[cfg(test)]
mod tests {
    use super::super::Emulator;
    use super::*;

    fn text(size: (u32, u32), pieces: &[&str]) -> Vec<String> {
        let mut said = Vec::new();
        let mut emulator = Emulator::default();
        emulator.resize(size.0, size.1, ());
        let mut lines = Lines::new(|line: &str| said.push(line.to_owned()));
        for piece in pieces {
            emulator.write(piece.as_bytes(), &mut lines);
        }
        lines.finish(emulator.terminal());
        said
    }

    fn found(wanted: &str, pieces: &[&str]) -> bool {
        let mut search = Search::new(wanted);
        let mut emulator = Emulator::default();
        emulator.resize(20, 3, ());
        for piece in pieces {
            emulator.write(piece.as_bytes(), &mut search);
        }
        search.found()
    }

    #[test]
    fn lines_come_as_they_scroll_off_and_the_screen_at_the_end() {
        assert_eq!(text((20, 2), &["one\r\ntwo\r\nth", "ree\r\n\x1b[31mfour"]), ["one", "two", "three", "four"]);
        assert_eq!(text((4, 2), &["abcdefghijkl\r\nend"]), ["abcdefghijkl", "end"]);
        assert_eq!(text((20, 4), &["over\rOVER\r\n\r\n\x1b]0;title\x07x\r\n"]), ["OVER", "", "x"]);
    }

    #[test]
    fn what_a_program_showed_that_had_the_whole_terminal_is_there_too() {
        let pieces = ["$ less\r\n", "\x1b[?1049h\x1b[Hpage one\x1b[2Hline", "\x1b[?1049l$ done"];
        assert_eq!(text((20, 3), &pieces), ["page one", "line", "$ less", "$ done"]);
        assert_eq!(text((20, 3), &["before\x1bcafter"]), ["before", "after"]);
    }

    #[test]
    fn scrolling_without_text_says_nothing_without_an_end() {
        let scrolling = "\x1b[65535S".repeat(2000);
        let said = text((80, 24), &["a\r\n", &scrolling, "b"]);
        assert!(said.len() <= ROWS_MAX + 2, "{}", said.len());
        assert_eq!((said.first().map(String::as_str), said.last().map(String::as_str)), (Some("a"), Some("b")));
    }

    #[test]
    fn text_is_found_as_it_was_on_the_screen() {
        assert!(found("password", &["pass\x1b[31mword"]), "colours in between");
        assert!(found("PassWord", &["pass", "word"]), "frames in between");
        assert!(found(
            "password",
            &["word\x1b[1Gpass\x1b[1@\x1b[1G\x1b[4Cs\x1b[1G\x1b[4@\x1b[1Gpass\x1b[5G\x1b[4@word"]
        ));
        assert!(found("hello world", &["hello\x1b[1Cworld"]), "moves in between");
        assert!(found("gone", &["gone\r    \r"]), "overwritten at once");
        assert!(found("gone", &["gone\x1b[2J\x1b[H"]), "erased at once");
        assert!(found("0123456789abcdefghijABC", &["x 0123456789abcdefghijABC"]), "over two rows");
        assert!(found("first", &["first\r\n2\r\n3\r\n4\r\n5\r\n"]), "scrolled off");
        assert!(found("in vim", &["\x1b[?1049h\x1b[2;3Hin vim\x1b[?1049l"]), "on the other screen");
        assert!(found("tail", &[&format!("{}tail", "x".repeat(19 + 20 * 50))]), "at the end of a long line");
        assert!(!found("passwd", &["pass\r\nwd"]));
        assert!(!found("633", &["\x1b]633;E;ls\x07$ ls"]), "marks are not on the screen");
        assert!(!found("31m", &["\x1b[31mred"]));
    }

    #[test]
    fn text_is_found_in_lines_of_a_stream() {
        let found = |wanted: &str, pieces: &[&str]| {
            let mut search = StreamSearch::new(wanted);
            pieces.iter().for_each(|piece| search.push(piece.as_bytes()));
            search.found()
        };
        assert!(found("Needle", &["hay\nhay nee", "dle hay"]));
        assert!(found("日本", &["x\n日", "本"]));
        assert!(!found("needle", &["nee\ndle"]));
        let hay = "h".repeat(LINE_BYTES_MAX);
        assert!(found("needle", &[&hay, "nee", &format!("dle{hay}")]));
    }
}
