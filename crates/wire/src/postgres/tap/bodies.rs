//! The bodies of Parse and Bind: exactly their fields, or nothing.

use crate::cursor::Cursor;
use crate::postgres::parameters::Parameters;

pub(super) struct ParseBody<'b> {
    pub(super) name: &'b [u8],
    pub(super) text: &'b [u8],
    pub(super) types: Box<[u32]>,
}

impl<'b> ParseBody<'b> {
    pub(super) fn read(body: &'b [u8]) -> Option<Self> {
        let mut cursor = Cursor(body);
        let (name, text, count) = (cursor.string()?, cursor.string()?, cursor.u16()?);
        let types = oids(cursor.0, count)?;
        Some(Self { name, text, types })
    }
}

/// The name and the text of a whole Parse message.
pub fn parse_of(message: &[u8]) -> Option<(&[u8], &[u8])> {
    let body = message.strip_prefix(b"P")?.get(4..)?;
    ParseBody::read(body).map(|parse| (parse.name, parse.text))
}

pub(super) struct BindBody<'b> {
    pub(super) portal: &'b [u8],
    pub(super) statement: &'b [u8],
    pub(super) parameters: Parameters<'b>,
}

impl<'b> BindBody<'b> {
    pub(super) fn read(body: &'b [u8]) -> Option<Self> {
        let mut cursor = Cursor(body);
        let (portal, statement) = (cursor.string()?, cursor.string()?);
        let parameters = Parameters::parse(&mut cursor)?;
        let formats = cursor.u16()?;
        cursor.take(usize::from(formats).checked_mul(2)?)?;
        cursor.is_empty().then_some(Self { portal, statement, parameters })
    }
}

/// Exactly `count` type ids and nothing after them.
pub(super) fn oids(bytes: &[u8], count: u16) -> Option<Box<[u32]>> {
    let (chunks, rest) = bytes.as_chunks::<4>();
    (rest.is_empty() && chunks.len() == usize::from(count))
        .then(|| chunks.iter().map(|chunk| u32::from_be_bytes(*chunk)).collect())
}

/// A text that ends with the body's only NUL.
pub(super) fn query_text(body: &[u8]) -> Option<&[u8]> {
    let mut cursor = Cursor(body);
    cursor.string().filter(|_| cursor.is_empty())
}
