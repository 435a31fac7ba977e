//! The fields of ErrorResponse and NoticeResponse.

use crate::cursor::Cursor;

/// Longest message text that is kept.
const MESSAGE_BYTES_MAX: usize = 8 * 1024;
/// Longest severity or code that is kept; real ones have 5 to 9 bytes.
const WORD_BYTES_MAX: usize = 32;

/// What an error said. Lossy only where the server's bytes are not UTF-8.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ErrorFields {
    /// Severity in English (`ERROR`, `FATAL`, `PANIC`), or localised from servers before 9.6.
    pub severity: String,
    /// SQLSTATE.
    pub code: String,
    /// Primary message, at most 8 KiB of it.
    pub message: String,
}

impl ErrorFields {
    /// Whether the server ends the session with this error.
    pub fn ends_session(&self) -> bool {
        matches!(self.severity.as_str(), "FATAL" | "PANIC")
    }
}

/// Reads the fields of an error's body; of a cut body, as many as there are.
pub fn error_fields(body: &[u8]) -> ErrorFields {
    let mut fields = ErrorFields::default();
    let mut cursor = Cursor(body);
    let mut english = false;
    while let Some(field) = cursor.u8() {
        if field == 0 {
            break;
        }
        let (text, ended) = match cursor.string() {
            Some(text) => (text, false),
            None => (cursor.0, true),
        };
        match field {
            b'V' => {
                fields.severity = bounded(text, WORD_BYTES_MAX);
                english = true;
            }
            b'S' if !english => fields.severity = bounded(text, WORD_BYTES_MAX),
            b'C' => fields.code = bounded(text, WORD_BYTES_MAX),
            b'M' => fields.message = bounded(text, MESSAGE_BYTES_MAX),
            _ => {}
        }
        if ended {
            break;
        }
    }
    fields
}

/// At most `max` bytes of `text`, cut at a character.
pub(crate) fn bounded(text: &[u8], max: usize) -> String {
    let mut end = text.len().min(max);
    if end < text.len() {
        // Step back over the continuation bytes of a character that would be cut in two.
        while end > 0 && max - end < 4 && text.get(end).is_some_and(|byte| byte & 0xC0 == 0x80) {
            end -= 1;
        }
    }
    String::from_utf8_lossy(text.get(..end).unwrap_or_default()).into_owned()
}
