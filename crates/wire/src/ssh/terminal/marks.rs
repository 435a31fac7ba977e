//! The marks that the gateway's shell integration puts into what a terminal shows.
//!
//! A mark is an operating system command (ECMA-48, 8.3.89) of number 633, which terminals that do not know it leave out:
//! `ESC ] 633 ; KIND ; FIELDS ; NONCE BEL`, or with `ESC \` at its end. The number and the escapes within fields (`\\` for a
//! backslash, `\xNN` for any other byte) are those of Visual Studio Code's shell integration; that the nonce is the last
//! field of each mark is ours. What has another nonce is somebody else's and passes.

/// The longest mark, bytes.
pub const MARK_BYTES_MAX: usize = 384 * 1024;
/// How all of them begin.
const BEGIN: &[u8] = b"\x1b]633;";
const ESC: u8 = 0x1b;
const BEL: u8 = 0x07;
const CAN: u8 = 0x18;
const SUB: u8 = 0x1a;

/// What a shell marks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mark {
    /// `E;TEXT;DIRECTORY`: a line is about to run. `U;DIRECTORY`: one whose text it cannot tell.
    Line {
        /// The line.
        text: Option<Vec<u8>>,
        /// The shell's working directory.
        directory: Option<Vec<u8>>,
    },
    /// `D;STATUS;PIPELINE`: the prompt comes next; the exit status of the last line, and those of the parts of its last pipeline
    /// if there were several.
    Prompt {
        /// From 0 to 255; none where the shell does not know it (`?`).
        status: Option<u32>,
        /// As many as there were, at most 64.
        pipeline: Vec<u32>,
    },
    /// `N`: this shell will mark nothing.
    None,
}

/// A part of what the host sent.
pub(super) enum Piece<'a> {
    /// For the client.
    Bytes(&'a [u8]),
    Mark(Mark),
}

/// Finds them.
pub(super) struct Marks {
    nonce: Vec<u8>,
    /// The beginning of what may be one.
    held: Vec<u8>,
}

/// What one more byte makes of what is held.
enum Held {
    /// It may still be a mark.
    On,
    /// It is none; from `at` on it may be the beginning of another one.
    Not { at: usize },
    /// It ends here; its terminator has `bytes`.
    Ends { bytes: usize },
}

impl Marks {
    /// With this nonce, or none where it is empty: then everything passes.
    pub(super) fn new(nonce: &[u8]) -> Self {
        Self { nonce: nonce.to_vec(), held: Vec::new() }
    }

    pub(super) fn feed(&mut self, bytes: &[u8], mut got: impl FnMut(Piece<'_>)) {
        if self.nonce.is_empty() {
            return got(Piece::Bytes(bytes));
        }
        let mut rest = bytes;
        while !rest.is_empty() {
            if self.held.is_empty() {
                let escape = rest.iter().position(|&byte| byte == ESC).unwrap_or(rest.len());
                let (plain, from) = rest.split_at(escape);
                if !plain.is_empty() {
                    got(Piece::Bytes(plain));
                }
                rest = from;
            }
            let Some((&byte, after)) = rest.split_first() else { break };
            rest = after;
            self.held.push(byte);
            match self.held_is() {
                Held::On => {}
                Held::Not { at } => {
                    let again = self.held.split_off(at);
                    got(Piece::Bytes(&self.held));
                    self.held = again;
                }
                Held::Ends { bytes } => {
                    let held = std::mem::take(&mut self.held);
                    let body = held.get(BEGIN.len()..held.len() - bytes).unwrap_or_default();
                    match self.mark(body) {
                        Some(mark) => got(Piece::Mark(mark)),
                        None => got(Piece::Bytes(&held)),
                    }
                }
            }
        }
    }

    /// What was held back, when there is nothing more.
    pub(super) fn finish(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.held)
    }

    fn held_is(&self) -> Held {
        let held = &self.held;
        if held.len() <= BEGIN.len() {
            return match BEGIN.starts_with(held) {
                true => Held::On,
                // Only the byte that came last may begin another one.
                false => Held::Not { at: if held.last() == Some(&ESC) { held.len() - 1 } else { held.len() } },
            };
        }
        match held.as_slice() {
            [.., ESC, b'\\'] => Held::Ends { bytes: 2 },
            [.., ESC, b']'] => Held::Not { at: held.len() - 2 },
            [.., ESC, ESC] => Held::Not { at: held.len() - 1 },
            [.., ESC, _] | [.., CAN | SUB] => Held::Not { at: held.len() },
            [.., BEL] => Held::Ends { bytes: 1 },
            _ if held.len() > MARK_BYTES_MAX => Held::Not { at: held.len() },
            _ => Held::On,
        }
    }

    /// The mark, if it is one of this nonce.
    fn mark(&self, body: &[u8]) -> Option<Mark> {
        let body = body.strip_suffix(self.nonce.as_slice())?;
        let body = body.strip_suffix(b";")?;
        let mut fields = body.split(|&byte| byte == b';');
        match (fields.next()?, fields.next(), fields.next(), fields.next()) {
            (b"E", Some(text), Some(directory), None) => {
                Some(Mark::Line { text: Some(unescaped(text)), directory: Some(unescaped(directory)) })
            }
            (b"U", Some(directory), None, None) => {
                Some(Mark::Line { text: None, directory: Some(unescaped(directory)) })
            }
            (b"D", Some(status), pipeline, None) => {
                let pipeline = pipeline.unwrap_or_default().split(|&byte| byte == b' ').filter_map(number);
                let pipeline: Vec<u32> = pipeline.take(64).collect();
                let pipeline = if pipeline.len() > 1 { pipeline } else { Vec::new() };
                let status = if status == b"?" { None } else { Some(number(status)?) };
                Some(Mark::Prompt { status, pipeline })
            }
            (b"N", None, None, None) => Some(Mark::None),
            _ => None,
        }
    }
}

fn number(digits: &[u8]) -> Option<u32> {
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// A field without its escapes. What is no escape stands for itself.
fn unescaped(field: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&byte, after)) = rest.split_first() {
        let hex = |digits: &[u8]| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok();
        match (byte, after) {
            (b'\\', [b'\\', after @ ..]) => {
                plain.push(b'\\');
                rest = after;
            }
            (b'\\', [b'x', high, low, after @ ..]) if let Some(byte) = hex(&[*high, *low]) => {
                plain.push(byte);
                rest = after;
            }
            _ => {
                plain.push(byte);
                rest = after;
            }
        }
    }
    plain
}
