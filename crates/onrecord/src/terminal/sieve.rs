//! Lets through what draws, and nothing else: for files that other programs may write to a terminal as they are.
//!
//! What stays: characters that print, the control characters that move the cursor, and the sequences that move it, erase,
//! insert, scroll, colour and change screens. What goes: strings of any kind (titles, the clipboard, links, the marks of
//! shell integration), requests that a terminal answers, and what sets keys, the mouse or the window.

/// A sequence is at most so many characters long; longer ones are left out.
const SEQUENCE_CHARS_MAX: usize = 64;
/// The ends of sequences that draw.
const DRAWS: &str = "@ABCDEFGHIJKLMPSTXZ`abdefghlmrsu";
/// Of these the private modes that draw: origin, wrapping, cursor, the other screen.
const MODES: [&str; 6] = ["6", "7", "25", "47", "1047", "1049"];

/// Where in a sequence the text is.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum At {
    #[default]
    Text,
    Escape,
    /// Behind `ESC` and what stands between it and the end, such as `(`.
    Intermediate,
    Csi,
    /// In a string, which BEL ends or not.
    String {
        bell: bool,
    },
}

/// Takes text in pieces, and gives what draws.
#[derive(Debug, Default)]
pub(crate) struct Sieve {
    at: At,
    sequence: String,
}

impl Sieve {
    pub(crate) fn push(&mut self, text: &str) -> String {
        let mut out = String::with_capacity(text.len());
        for c in text.chars() {
            self.take(c, &mut out);
        }
        out
    }

    fn take(&mut self, c: char, out: &mut String) {
        match (self.at, c) {
            // These end whatever it was.
            (_, '\x18' | '\x1a' | '\u{9c}') => self.at = At::Text,
            (_, '\x1b') => self.begin(At::Escape),
            (_, '\u{9b}') => self.begin(At::Csi),
            (_, '\u{9d}') => self.at = At::String { bell: true },
            (_, '\u{90}' | '\u{98}' | '\u{9e}' | '\u{9f}') => self.at = At::String { bell: false },
            (At::String { bell: true }, '\x07') => self.at = At::Text,
            (At::String { .. }, _) => {}
            // In the middle of a sequence they count as if before it.
            (_, '\x08'..='\r') => out.push(c),
            (_, '\0'..='\x1f' | '\x7f'..='\u{9f}') => {}
            (At::Text, _) => out.push(c),
            (At::Escape, '[') => self.begin(At::Csi),
            (At::Escape, ']') => self.at = At::String { bell: true },
            (At::Escape, 'P' | 'X' | '^' | '_') => self.at = At::String { bell: false },
            (At::Escape, ' '..='/') => {
                self.sequence.push(c);
                self.at = At::Intermediate;
            }
            // A whole reset would reach beyond the screen.
            (At::Escape, 'c') => self.end("\x1b[0m\x1b[r\x1b[2J\x1b[H", out),
            (At::Escape, '7' | '8' | 'D' | 'E' | 'H' | 'M') => self.end(&format!("\x1b{c}"), out),
            (At::Intermediate, '0'..='~') => {
                let whole = format!("\x1b{}{c}", self.sequence);
                let draws = matches!(whole.as_str(), "\x1b#8" | "\x1b(0" | "\x1b(B" | "\x1b)0" | "\x1b)B");
                self.end(if draws { &whole } else { "" }, out);
            }
            (At::Csi, '@'..='~') => {
                let whole = csi(&self.sequence, c);
                self.end(&whole.unwrap_or_default(), out);
            }
            (At::Csi | At::Intermediate, _) => {
                if self.sequence.len() < SEQUENCE_CHARS_MAX {
                    self.sequence.push(c);
                } else {
                    // Its end is waited for, and leads to nothing.
                    self.sequence.replace_range(.., " ");
                }
            }
            (At::Escape, _) => self.at = At::Text,
        }
    }

    fn begin(&mut self, at: At) {
        self.at = at;
        self.sequence.clear();
    }

    fn end(&mut self, whole: &str, out: &mut String) {
        out.push_str(whole);
        self.begin(At::Text);
    }
}

/// A control sequence, if it draws.
fn csi(parameters: &str, end: char) -> Option<String> {
    let (private, numbers) = parameters.strip_prefix('?').map_or((false, parameters), |numbers| (true, numbers));
    let plain = numbers.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b';' | b':'));
    let parameters = match (private, end) {
        (true, 'h' | 'l') => {
            let modes: Vec<&str> = numbers.split(';').filter(|mode| MODES.contains(mode)).collect();
            (!modes.is_empty()).then(|| format!("?{}", modes.join(";")))?
        }
        (true, 'J' | 'K') => numbers.to_owned(),
        (true, _) => return None,
        // What scrolled off is not the screen's.
        (false, 'J') if numbers == "3" => return None,
        // Of the others, only the one that inserts.
        (false, 'h' | 'l') if numbers != "4" => return None,
        (false, _) => numbers.to_owned(),
    };
    (plain && DRAWS.contains(end)).then(|| format!("\x1b[{parameters}{end}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sieved(text: &str) -> String {
        Sieve::default().push(text)
    }

    #[test]
    fn what_draws_stays() {
        for text in [
            "plain ünïcode 日本\r\n\ttab\x08",
            "\x1b[1;31mred\x1b[0m\x1b[38;2;1;2;3m\x1b[4:3m",
            "\x1b[2J\x1b[H\x1b[10;20H\x1b[K\x1b[3@\x1b[2L\x1b[5b\x1b[1;20r",
            "\x1b7\x1b8\x1bM\x1b(0lqk\x1b(B\x1b#8",
            "\x1b[?1049h\x1b[?25l\x1b[?25h\x1b[?1049l\x1b[?7l\x1b[4h\x1b[4l",
        ] {
            assert_eq!(sieved(text), text);
        }
        assert_eq!(sieved("\u{9b}31mred"), "\x1b[31mred");
        assert_eq!(sieved("\x1b[3\n1mx"), "\n\x1b[31mx");
        assert_eq!(sieved("\x1b[?1;25;1000h"), "\x1b[?25h");
    }

    #[test]
    fn what_acts_goes() {
        for text in [
            "\x1b]633;E;ls -l\x07",
            "\x1b]633;A\x1b\\",
            "\x1b]52;c;aGk=\x07",
            "\x1b]0;t\u{9c}",
            "\u{9d}2;t\x07",
            "\x1bP$qm\x1b\\",
            "\x1b_Gx\x07y\x1b\\",
            "\x1b^x\x1b\\",
            "\x1bXx\x1b\\",
            "\u{90}q\u{9c}",
            "\u{9f}x\u{9c}",
            "\x1b[3J",
            "\x1b[c",
            "\x1b[>c",
            "\x1b[6n",
            "\x1b[?6n",
            "\x1b[21t",
            "\x1b[8;1;1t",
            "\x1b[?1000h",
            "\x1b[?2004h",
            "\x1b[20h",
            "\x1b[>4;2m",
            "\x1b[2 q",
            "\x1b[!p",
            "\x1b[?u",
            "\x1b=",
            "\x1bZ",
            "\x1bn",
            "\x1b%G",
            "\x05",
            "\x07",
            "\0",
            "\x7f",
            "\u{85}",
            "\x1b\x1b[5n",
            "\x1b[1\x1b[5n",
            "\x1b[1$r",
            "\x1b[?(07>K",
            "\x1b[?25$l",
        ] {
            assert_eq!(sieved(&format!("a{text}b")), "ab", "{text:?}");
        }
        let long = format!("a\x1b[{}mb", "1;".repeat(500));
        assert_eq!(sieved(&long), "ab");
    }

    #[test]
    fn pieces_make_no_difference() {
        let text = "a\x1b]633;E;ls\x07b\x1b[31mc\x1b[6nd\x1bP\x1b\\e\x1b(0f\x1b[?1049;1hg\x1b]0;x";
        for cut in 1..text.len() {
            let mut sieve = Sieve::default();
            let pieces = text.as_bytes().chunks(cut).map(|piece| std::str::from_utf8(piece).unwrap_or_default());
            assert_eq!(pieces.map(|piece| sieve.push(piece)).collect::<String>(), sieved(text), "pieces of {cut}");
        }
    }
}
