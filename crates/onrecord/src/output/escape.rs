//! Makes recorded text safe to look at.
//!
//! Control characters, and the invisible ones that reorder or hide text, are written out as escapes.
//! Nothing is dropped: what was there can be read off.

use std::borrow::Cow;
use std::fmt::Write;

/// The text on one line: line breaks become `↵`, tabs a space, what could act on a terminal an escape.
pub fn single_line(text: &str) -> Cow<'_, str> {
    escaped(text, |c, out| match c {
        '\n' => out.push('↵'),
        '\t' => out.push(' '),
        other => spell_out(other, out),
    })
}

/// The text in its own lines; anything else that could act on a terminal is escaped.
pub fn lines(text: &str) -> impl Iterator<Item = Cow<'_, str>> {
    text.split('\n').map(|line| {
        let line = line.strip_suffix('\r').unwrap_or(line);
        escaped(line, |c, out| match c {
            '\t' => out.push_str("    "),
            other => spell_out(other, out),
        })
    })
}

/// JSON text with the characters that JSON allows and terminals act on as `\u` escapes: the same value.
pub(crate) fn json(text: &str) -> Cow<'_, str> {
    escaped(text, |c, out| {
        if c == '\n' {
            out.push('\n');
            return;
        }
        let mut units = [0; 2];
        for unit in c.encode_utf16(&mut units) {
            let _ = write!(out, "\\u{unit:04x}");
        }
    })
}

fn escaped(text: &str, write: impl Fn(char, &mut String)) -> Cow<'_, str> {
    if !text.contains(acts) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if acts(c) {
            write(c, &mut out);
        } else {
            out.push(c);
        }
    }
    Cow::Owned(out)
}

fn spell_out(c: char, out: &mut String) {
    let code = u32::from(c);
    let _ = match c {
        '\r' => out.write_str("\\r"),
        _ if code < 0x100 => write!(out, "\\x{code:02x}"),
        _ => write!(out, "\\u{{{code:x}}}"),
    };
}

/// Control characters (C0, DEL, C1), and the characters without a width of their own that reorder text,
/// hide in it or end a line.
pub(crate) fn acts(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terminal_sequences_are_spelled_out() {
        assert_eq!(single_line("select '\u{1b}[2J\u{7}'\r\n;\tok"), "select '\\x1b[2J\\x07'\\r↵; ok");
        assert_eq!(single_line("\u{9b}31m \u{202e}evil\u{200b}"), "\\x9b31m \\u{202e}evil\\u{200b}");
        assert_eq!(single_line("größe 日本 ✓"), "größe 日本 ✓");
    }

    #[test]
    fn lines_keep_their_breaks() {
        let all: Vec<_> = lines("a\r\n\tb\u{1b}c").collect();
        assert_eq!(all, ["a", "    b\\x1bc"]);
    }

    #[test]
    fn json_stays_the_same_value() {
        let value = serde_json::json!({"text": "a\u{9b}b\u{202e}c\u{e0001}d\n\u{1b}"});
        let text = value.to_string();
        let safe = json(&text);
        assert!(!safe.contains(acts));
        assert_eq!(serde_json::from_str::<serde_json::Value>(&safe).ok(), Some(value));
    }
}
