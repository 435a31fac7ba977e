//! Cutting an SQL text into tokens: comments, quotes and dollar quotes as the server's scanner has them.

/// The longest word that any list below has.
const WORD_BYTES_MAX: usize = 32;

/// A word in lower case, cut: longer words are in no list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Word {
    bytes: [u8; WORD_BYTES_MAX],
    length: u8,
}

impl Word {
    const NONE: Self = Self { bytes: [0; WORD_BYTES_MAX], length: 0 };

    fn new(text: &[u8]) -> Self {
        let mut word = Self::NONE;
        if text.len() > WORD_BYTES_MAX {
            // Not empty and in no list.
            word.length = 1;
            return word;
        }
        for (to, from) in word.bytes.iter_mut().zip(text) {
            *to = from.to_ascii_lowercase();
        }
        word.length = u8::try_from(text.len()).unwrap_or(0);
        word
    }

    pub(super) fn text(&self) -> &str {
        self.bytes.get(..usize::from(self.length)).and_then(|bytes| std::str::from_utf8(bytes).ok()).unwrap_or("?")
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Token {
    /// A quoted identifier: never a keyword.
    Quoted,
    /// A string or a number.
    Literal,
    Symbol(u8),
    Word(Word),
}

#[derive(Debug)]
pub(super) struct Tokens<'b> {
    text: &'b [u8],
    at: usize,
    /// A plain string had a backslash.
    pub(super) backslash: bool,
    /// The last token was a string with escapes: a string right behind it may be its continuation.
    escaped: bool,
}

impl<'b> Tokens<'b> {
    pub(super) fn new(text: &'b [u8]) -> Self {
        Self { text, at: 0, backslash: false, escaped: false }
    }

    fn peek(&self, ahead: usize) -> u8 {
        self.text.get(self.at.saturating_add(ahead)).copied().unwrap_or(0)
    }

    fn ended(&self) -> bool {
        self.at >= self.text.len()
    }

    pub(super) fn next(&mut self) -> Option<Token> {
        self.blank();
        if self.ended() {
            return None;
        }
        let escaped = std::mem::take(&mut self.escaped);
        Some(match (self.peek(0), self.peek(1), self.peek(2)) {
            (b'\'', ..) => {
                self.backslash |= escaped;
                self.string(1, false)
            }
            (b'e' | b'E', b'\'', _) => {
                self.escaped = true;
                self.string(2, true)
            }
            (b'b' | b'B' | b'x' | b'X' | b'n' | b'N', b'\'', _) => self.string(2, false),
            (b'u' | b'U', b'&', b'\'') => self.string(3, false),
            (b'u' | b'U', b'&', b'"') => self.identifier(3),
            (b'"', ..) => self.identifier(1),
            (b'$', ..) => self.dollar(),
            (first, ..) if starts_word(first) => self.word(),
            (b'0'..=b'9', ..) => {
                // What is glued to a number counts as a word of its own, as it does in older servers.
                while self.peek(0).is_ascii_digit() {
                    self.at += 1;
                }
                Token::Literal
            }
            (symbol, ..) => {
                self.at += 1;
                Token::Symbol(symbol)
            }
        })
    }

    fn blank(&mut self) {
        while !self.ended() {
            match (self.peek(0), self.peek(1)) {
                (b' ' | b'\t' | b'\n' | b'\r' | 0x0B | 0x0C, _) => self.at += 1,
                (b'-', b'-') => {
                    while !self.ended() && !matches!(self.peek(0), b'\n' | b'\r') {
                        self.at += 1;
                    }
                }
                (b'/', b'*') => self.comment(),
                _ => return,
            }
        }
    }

    fn comment(&mut self) {
        let mut depth = 0_usize;
        while !self.ended() {
            match (self.peek(0), self.peek(1)) {
                (b'/', b'*') => {
                    depth += 1;
                    self.at += 2;
                }
                (b'*', b'/') => {
                    depth -= 1;
                    self.at += 2;
                    if depth == 0 {
                        return;
                    }
                }
                _ => self.at += 1,
            }
        }
    }

    fn string(&mut self, prefix: usize, escapes: bool) -> Token {
        self.at += prefix;
        while !self.ended() {
            match (self.peek(0), self.peek(1)) {
                (b'\'', b'\'') => self.at += 2,
                (b'\'', _) => {
                    self.at += 1;
                    break;
                }
                (b'\\', _) if escapes => self.at += 2,
                (b'\\', _) => {
                    self.backslash = true;
                    self.at += 1;
                }
                _ => self.at += 1,
            }
        }
        Token::Literal
    }

    fn identifier(&mut self, prefix: usize) -> Token {
        self.at += prefix;
        while !self.ended() {
            match (self.peek(0), self.peek(1)) {
                (b'"', b'"') => self.at += 2,
                (b'"', _) => {
                    self.at += 1;
                    break;
                }
                _ => self.at += 1,
            }
        }
        Token::Quoted
    }

    /// `$1`, `$$text$$` or `$tag$text$tag$`.
    fn dollar(&mut self) -> Token {
        let rest = self.text.get(self.at..).unwrap_or_default();
        let tag = rest.iter().skip(1).take_while(|byte| continues_word(**byte) && **byte != b'$').count();
        let numbered = rest.get(1).is_some_and(u8::is_ascii_digit);
        if numbered || rest.get(tag + 1) != Some(&b'$') {
            self.at += 1;
            return Token::Symbol(b'$');
        }
        let (mark, body) = rest.split_at_checked(tag + 2).unwrap_or((rest, &[]));
        let end = body.windows(mark.len()).position(|window| window == mark).unwrap_or(body.len());
        self.at += mark.len() + end + mark.len();
        Token::Literal
    }

    fn word(&mut self) -> Token {
        let start = self.at;
        while continues_word(self.peek(0)) {
            self.at += 1;
        }
        Token::Word(Word::new(self.text.get(start..self.at).unwrap_or_default()))
    }
}

fn starts_word(byte: u8) -> bool {
    byte.is_ascii_alphabetic() || byte == b'_' || byte >= 0x80
}

fn continues_word(byte: u8) -> bool {
    starts_word(byte) || byte.is_ascii_digit() || byte == b'$'
}

/// Whether `text` has the lower-case `word` in it, whatever its case.
pub(super) fn contains(text: &[u8], word: &[u8]) -> bool {
    let first = word.first().copied().unwrap_or(0);
    text.windows(word.len())
        .any(|window| window.first().is_some_and(|byte| byte | 0x20 == first) && window.eq_ignore_ascii_case(word))
}
