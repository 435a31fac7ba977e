//! A writer of JSON objects: nothing but appending to a buffer.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// Writes one object; nested objects and arrays are opened and closed in order.
pub(crate) struct Json<'a> {
    out: &'a mut Vec<u8>,
}

impl<'a> Json<'a> {
    pub(crate) fn new(out: &'a mut Vec<u8>) -> Self {
        Self { out }
    }

    pub(crate) fn raw(&mut self, bytes: &[u8]) -> &mut Self {
        self.out.extend_from_slice(bytes);
        self
    }

    pub(crate) fn out(&mut self) -> &mut Vec<u8> {
        self.out
    }

    /// `,"key":` ; keys are ours and need no escaping.
    pub(crate) fn key(&mut self, key: &str) -> &mut Self {
        if !matches!(self.out.last(), Some(b'{' | b'[') | None) {
            self.out.push(b',');
        }
        self.out.push(b'"');
        self.out.extend_from_slice(key.as_bytes());
        self.out.extend_from_slice(b"\":");
        self
    }

    pub(crate) fn string(&mut self, text: &str) -> &mut Self {
        self.out.push(b'"');
        let mut rest = text.as_bytes();
        while let Some(at) = rest.iter().position(|&b| b < 0x20 || b == b'"' || b == b'\\' || b == 0x7f) {
            let (plain, special) = rest.split_at(at);
            self.out.extend_from_slice(plain);
            let Some((&byte, after)) = special.split_first() else {
                break;
            };
            match byte {
                b'"' => self.out.extend_from_slice(b"\\\""),
                b'\\' => self.out.extend_from_slice(b"\\\\"),
                _ => {
                    const HEX: &[u8; 16] = b"0123456789abcdef";
                    self.out.extend_from_slice(b"\\u00");
                    for nibble in [byte >> 4, byte & 15] {
                        self.out.push(HEX.get(usize::from(nibble)).copied().unwrap_or(b'0'));
                    }
                }
            }
            rest = after;
        }
        self.out.extend_from_slice(rest);
        self.out.push(b'"');
        self
    }

    /// Text that is known to need no escaping.
    pub(crate) fn plain(&mut self, text: &[u8]) -> &mut Self {
        self.out.push(b'"');
        self.out.extend_from_slice(text);
        self.out.push(b'"');
        self
    }

    pub(crate) fn number(&mut self, number: u64) -> &mut Self {
        decimal(number, self.out);
        self
    }

    pub(crate) fn truth(&mut self, truth: bool) -> &mut Self {
        self.raw(if truth { b"true" } else { b"false" })
    }

    pub(crate) fn null(&mut self) -> &mut Self {
        self.raw(b"null")
    }

    pub(crate) fn base64(&mut self, bytes: &[u8]) -> &mut Self {
        self.out.push(b'"');
        let at = self.out.len();
        self.out.resize(at + bytes.len().div_ceil(3) * 4, 0);
        if let Some(place) = self.out.get_mut(at..) {
            let written = STANDARD.encode_slice(bytes, place);
            debug_assert!(written.is_ok(), "the place has the exact length");
        }
        self.out.push(b'"');
        self
    }
}

pub(crate) fn decimal(mut number: u64, out: &mut Vec<u8>) {
    let mut digits = [0u8; 20];
    let mut count = 0;
    for place in digits.iter_mut().rev() {
        *place = b'0' + u8::try_from(number % 10).unwrap_or(0);
        number /= 10;
        count += 1;
        if number == 0 {
            break;
        }
    }
    out.extend_from_slice(digits.get(20 - count..).unwrap_or_default());
}
