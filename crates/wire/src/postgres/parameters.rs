//! The parameters of a Bind or FunctionCall, as they were sent, and how they are written into the record.
//!
//! Invariant: a value that is not understood is written as its bytes; nothing is guessed and nothing is lost.

use super::decode;
use super::tap::Prepared;
use crate::cursor::Cursor;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use std::sync::Arc;

/// Parameters of one command.
#[derive(Clone, Debug)]
pub struct Parameters<'b> {
    formats: &'b [u8],
    values: &'b [u8],
    count: u16,
    prepared: Option<Arc<Prepared>>,
}

/// One parameter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parameter<'b> {
    /// Type, 0 where it is not known.
    pub oid: u32,
    /// Format code: 0 for text, 1 for binary.
    pub format: u16,
    /// Value as sent; `None` for NULL.
    pub value: Option<&'b [u8]>,
}

/// The JSON of the parameters is longer than the caller wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the parameters are longer than {bytes_max} bytes as JSON")]
pub struct TooLong {
    /// The caller's limit.
    pub bytes_max: usize,
}

impl<'b> Parameters<'b> {
    /// Reads format codes and values off `cursor`; leaves what follows them.
    pub(crate) fn parse(cursor: &mut Cursor<'b>) -> Option<Self> {
        let formats = cursor.u16()?;
        let formats = cursor.take(usize::from(formats).checked_mul(2)?)?;
        let count = cursor.u16()?;
        let start = cursor.0;
        for _ in 0..count {
            if let Ok(length) = usize::try_from(cursor.i32()?) {
                cursor.take(length)?;
            }
        }
        let values = start.get(..start.len().checked_sub(cursor.0.len())?)?;
        Some(Self { formats, values, count, prepared: None })
    }

    pub(crate) fn of(mut self, prepared: Arc<Prepared>) -> Self {
        self.prepared = Some(prepared);
        self
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        usize::from(self.count)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The values as they were sent: each with its length of 4 bytes, -1 for NULL.
    pub fn raw(&self) -> &'b [u8] {
        self.values
    }

    /// Each parameter in order.
    pub fn iter(&self) -> impl Iterator<Item = Parameter<'b>> {
        let types = self.prepared.as_deref().map(Prepared::types).unwrap_or_default();
        let formats = self.formats;
        let mut values = Cursor(self.values);
        (0..self.len()).map_while(move |index| {
            let value = match usize::try_from(values.i32()?) {
                Ok(length) => Some(values.take(length)?),
                Err(_) => None,
            };
            let oid = types.get(index).copied().unwrap_or(0);
            Some(Parameter { oid, format: format_of(formats, index), value })
        })
    }

    /// Writes a JSON array with `null` or an object per parameter, or leaves `out` as it was.
    pub fn to_json(&self, out: &mut Vec<u8>, bytes_max: usize) -> Result<(), TooLong> {
        let start = out.len();
        out.push(b'[');
        for (index, parameter) in self.iter().enumerate() {
            if index > 0 {
                out.push(b',');
            }
            // Before the value is written, so that the memory is bounded too.
            let least = parameter.value.map_or(0, <[u8]>::len).min(bytes_max.saturating_add(1));
            if out.len() - start + least > bytes_max {
                out.truncate(start);
                return Err(TooLong { bytes_max });
            }
            parameter.to_json(out);
        }
        out.push(b']');
        if out.len() - start > bytes_max {
            out.truncate(start);
            return Err(TooLong { bytes_max });
        }
        Ok(())
    }
}

/// No format code means text, one is for all, else there is one for each.
fn format_of(formats: &[u8], index: usize) -> u16 {
    let place = if formats.len() == 2 { 0 } else { index.saturating_mul(2) };
    formats.get(place..).and_then(|rest| rest.first_chunk::<2>()).map_or(0, |code| u16::from_be_bytes(*code))
}

impl Parameter<'_> {
    fn to_json(self, out: &mut Vec<u8>) {
        let Some(value) = self.value else {
            out.extend_from_slice(b"null");
            return;
        };
        out.extend_from_slice(b"{\"type\":");
        match decode::type_name(self.oid) {
            Some(name) => json_string(out, name),
            None => out.extend_from_slice(self.oid.to_string().as_bytes()),
        }
        let text = match self.format {
            0 => std::str::from_utf8(value).ok().map(std::borrow::Cow::Borrowed),
            1 => decode::binary(self.oid, value),
            _ => None,
        };
        if let Some(text) = text {
            out.extend_from_slice(b",\"value\":");
            json_string(out, &text);
        } else {
            out.extend_from_slice(b",\"base64\":\"");
            out.extend_from_slice(STANDARD.encode(value).as_bytes());
            out.push(b'"');
        }
        out.push(b'}');
    }
}

fn json_string(out: &mut Vec<u8>, text: &str) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    out.push(b'"');
    for byte in text.bytes() {
        match byte {
            b'"' => out.extend_from_slice(b"\\\""),
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            0..0x20 => {
                let digit = |nibble: u8| HEX.get(usize::from(nibble)).copied().unwrap_or(b'0');
                out.extend_from_slice(&[b'\\', b'u', b'0', b'0', digit(byte >> 4), digit(byte & 15)]);
            }
            _ => out.push(byte),
        }
    }
    out.push(b'"');
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::postgres::lexer::Class;

    fn json(body: &[u8], types: &[u32], bytes_max: usize) -> Result<String, TooLong> {
        let prepared = Prepared::new(1, b"", Some(b""), types.into(), Class::default());
        let mut out = b"before".to_vec();
        let done = Parameters::parse(&mut Cursor(body)).unwrap().of(prepared).to_json(&mut out, bytes_max);
        let text = String::from_utf8(out).unwrap();
        let rest = text.strip_prefix("before").unwrap();
        done.map(|()| rest.to_owned()).inspect_err(|_| assert!(rest.is_empty()))
    }

    #[test]
    fn each_value_is_written_as_what_it_is() {
        let body = [
            &[0, 4, 0, 0, 0, 1, 0, 1, 0, 2, 0, 5][..],
            b"\0\0\0\x05a\"\n\x01\\",
            b"\0\0\0\x04\0\0\0\x07",
            b"\xff\xff\xff\xff",
            b"\0\0\0\x01x",
            b"\0\0\0\x01\xff",
        ]
        .concat();
        assert_eq!(
            json(&body, &[25, 23], 1000).unwrap(),
            r#"[{"type":"text","value":"a\"\n\u0001\\"},{"type":"int4","value":"7"},null,{"type":0,"base64":"eA=="},{"type":0,"base64":"/w=="}]"#
        );
        let one_format_for_all = [&[0, 1, 0, 1, 0, 2][..], b"\0\0\0\x02\0\x01", b"\0\0\0\x01\x01"].concat();
        assert_eq!(
            json(&one_format_for_all, &[21, 16], 1000).unwrap(),
            r#"[{"type":"int2","value":"1"},{"type":"bool","value":"true"}]"#
        );
        assert_eq!(json(&[0, 0, 0, 0], &[], 2).unwrap(), "[]");
    }

    #[test]
    fn what_is_too_long_leaves_nothing() {
        let body = [&[0, 0, 0, 1][..], b"\0\0\0\x05aaaaa"].concat();
        let whole = json(&body, &[25], 1000).unwrap();
        assert!(json(&body, &[25], whole.len()).is_ok());
        assert_eq!(json(&body, &[25], whole.len() - 1), Err(TooLong { bytes_max: whole.len() - 1 }));
        assert!(json(&body, &[25], 0).is_err());
    }

    #[test]
    fn cut_values_are_no_parameters() {
        for body in [&b""[..], &[0, 1], &[0, 0], &[0, 0, 0, 1], &[0, 0, 0, 1, 0, 0, 0, 2, 1]] {
            assert!(Parameters::parse(&mut Cursor(body)).is_none());
        }
    }
}
