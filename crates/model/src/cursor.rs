//! Reads the one encoding of entries, key by key and value by value.
//!
//! Each key must stand exactly where `encode` puts it, and each value must be written exactly as `encode` writes it. What
//! is read gives the same bytes when it is written again: that is the invariant here, and what everything above relies on.

use std::borrow::Cow;

use crate::{BreakGlassId, CommandId, Digest, IdentityName, Label, SessionId, base64, time};

/// What is wrong at the place of a cursor.
pub(crate) enum Bad {
    /// It is not written as an entry is.
    Form,
    /// The value is not one that the key can have.
    Value,
}

pub(crate) type Read<T> = Result<T, Bad>;

/// Stands in the bytes of an entry.
pub(crate) struct Cursor<'a> {
    rest: &'a [u8],
    /// The key that was read last.
    key: &'static str,
    /// Behind an object's brace: its first key has no comma before it.
    fresh: bool,
    /// The session id that was read last: an entry often says it twice.
    session: Option<(&'a [u8; 26], SessionId)>,
}

/// Bytes that stand in a string as they are, whatever stands beside them: ASCII but control characters, the quote and
/// the backslash.
#[allow(clippy::indexing_slicing, reason = "evaluated when this is compiled")]
const PLAIN: [bool; 256] = {
    let mut plain = [false; 256];
    let mut byte = 0x20;
    while byte < 0x7f {
        plain[byte] = byte != b'"' as usize && byte != b'\\' as usize;
        byte += 1;
    }
    plain
};

impl<'a> Cursor<'a> {
    /// Stands behind the kind.
    pub(crate) fn new(rest: &'a [u8]) -> Self {
        Self { rest, key: "k", fresh: false, session: None }
    }

    /// The key that was read last.
    pub(crate) fn key(&self) -> &'static str {
        self.key
    }

    /// The entry's last brace, and nothing after it.
    pub(crate) fn end(&self) -> Read<()> {
        if self.rest == b"}" { Ok(()) } else { Err(Bad::Form) }
    }

    // Keys with their values.

    /// Reads a key, and its value with `read`.
    #[inline(always)]
    pub(crate) fn at<T>(&mut self, key: &'static str, read: impl FnOnce(&mut Self) -> Read<T>) -> Read<T> {
        self.optional(key, read)?.ok_or(Bad::Form)
    }

    /// As [`Cursor::at`], if the key is there.
    #[inline(always)]
    pub(crate) fn optional<T>(
        &mut self,
        key: &'static str,
        read: impl FnOnce(&mut Self) -> Read<T>,
    ) -> Read<Option<T>> {
        let rest = if self.fresh { self.rest.strip_prefix(b"\"") } else { self.rest.strip_prefix(b",\"") };
        let rest = rest.and_then(|rest| rest.strip_prefix(key.as_bytes()));
        match rest.and_then(|rest| rest.strip_prefix(b"\":")) {
            Some(rest) => {
                (self.rest, self.key, self.fresh) = (rest, key, false);
                read(self).map(Some)
            }
            None => Ok(None),
        }
    }

    pub(crate) fn string(&mut self, key: &'static str) -> Read<String> {
        self.at(key, |c| c.text().map(Cow::into_owned))
    }

    #[inline(always)]
    pub(crate) fn number(&mut self, key: &'static str) -> Read<u64> {
        self.at(key, Self::decimal)
    }

    #[inline(always)]
    pub(crate) fn small(&mut self, key: &'static str) -> Read<u32> {
        self.at(key, |c| c.decimal()?.try_into().map_err(|_| Bad::Value))
    }

    #[inline(always)]
    pub(crate) fn truth(&mut self, key: &'static str) -> Read<bool> {
        self.at(key, |c| {
            let truth = c.rest.starts_with(b"true");
            c.exactly(if truth { b"true" } else { b"false" })?;
            Ok(truth)
        })
    }

    #[inline(always)]
    pub(crate) fn word<T>(&mut self, key: &'static str, parse: impl FnOnce(&[u8]) -> Option<T>) -> Read<T> {
        self.at(key, |c| c.word_value(parse))
    }

    #[inline(always)]
    pub(crate) fn wall(&mut self, key: &'static str) -> Read<i64> {
        self.at(key, |c| c.fixed(time::wall_of))
    }

    pub(crate) fn name(&mut self, key: &'static str) -> Read<IdentityName> {
        self.at(key, Self::name_value)
    }

    #[inline(always)]
    pub(crate) fn command(&mut self, key: &'static str) -> Read<CommandId> {
        self.at(key, |c| {
            let mut session = None;
            let command = c.formed(|text| {
                let (id, ordinal) = text.split_first_chunk::<26>()?;
                let command = CommandId { session: SessionId::from_text(id)?, ordinal: ordinal_of(ordinal)? };
                session = Some((id, command.session));
                Some(command)
            })?;
            c.session = session;
            Ok(command)
        })
    }

    /// A command's id that says nothing of what follows.
    pub(crate) fn command_value(&mut self) -> Read<CommandId> {
        self.formed(|text| {
            let (id, ordinal) = text.split_first_chunk::<26>()?;
            Some(CommandId { session: SessionId::from_text(id)?, ordinal: ordinal_of(ordinal)? })
        })
    }

    #[inline(always)]
    pub(crate) fn digest(&mut self, key: &'static str) -> Read<Digest> {
        self.at(key, Self::base64_digest)
    }

    #[inline(always)]
    pub(crate) fn digest_or_null(&mut self, key: &'static str) -> Read<Option<Digest>> {
        self.at(key, |c| c.or_null(Self::base64_digest))
    }

    // Values.

    #[inline(always)]
    pub(crate) fn exactly(&mut self, bytes: &[u8]) -> Read<()> {
        self.rest = self.rest.strip_prefix(bytes).ok_or(Bad::Form)?;
        Ok(())
    }

    #[inline(always)]
    pub(crate) fn object<T>(&mut self, read: impl FnOnce(&mut Self) -> Read<T>) -> Read<T> {
        self.exactly(b"{")?;
        self.fresh = true;
        let value = read(self)?;
        self.fresh = false;
        self.exactly(b"}")?;
        Ok(value)
    }

    pub(crate) fn array<T>(&mut self, mut read: impl FnMut(&mut Self) -> Read<T>) -> Read<Vec<T>> {
        let mut values = Vec::new();
        self.each(|c| {
            values.push(read(c)?);
            Ok(())
        })?;
        Ok(values)
    }

    /// The items of an array, one after the other.
    #[inline(always)]
    pub(crate) fn each(&mut self, mut read: impl FnMut(&mut Self) -> Read<()>) -> Read<()> {
        self.exactly(b"[")?;
        let mut first = true;
        while self.rest.first() != Some(&b']') {
            if !std::mem::take(&mut first) {
                self.exactly(b",")?;
            }
            read(self)?;
        }
        self.exactly(b"]")
    }

    #[inline(always)]
    pub(crate) fn or_null<T>(&mut self, read: impl FnOnce(&mut Self) -> Read<T>) -> Read<Option<T>> {
        match self.rest.strip_prefix(b"null") {
            Some(rest) => {
                self.rest = rest;
                Ok(None)
            }
            None => read(self).map(Some),
        }
    }

    #[inline(always)]
    pub(crate) fn decimal(&mut self) -> Read<u64> {
        let (mut value, mut digits) = (Some(0u64), 0);
        for byte in self.rest.iter().take(21) {
            let digit = byte.wrapping_sub(b'0');
            if digit > 9 {
                break;
            }
            // Nineteen digits always fit.
            value = match value {
                Some(value) if digits < 19 => Some(value * 10 + u64::from(digit)),
                value => value.and_then(|value| value.checked_mul(10)?.checked_add(u64::from(digit))),
            };
            digits += 1;
        }
        let (text, rest) = self.rest.split_at_checked(digits).ok_or(Bad::Form)?;
        if text.is_empty() || (digits > 1 && text.first() == Some(&b'0')) {
            return Err(Bad::Form);
        }
        self.rest = rest;
        value.ok_or(Bad::Value)
    }

    /// A string: quote and backslash escaped with a backslash, control characters as `\u00xx`, everything else as it is.
    pub(crate) fn text(&mut self) -> Read<Cow<'a, str>> {
        self.exactly(b"\"")?;
        let at = memchr::memchr2(b'"', b'\\', self.rest).ok_or(Bad::Form)?;
        let (text, mut rest) = self.rest.split_at_checked(at).ok_or(Bad::Form)?;
        let control = |b: &u8| *b < 0x20 || *b == 0x7f;
        // Not `any`: without an early end, many bytes are looked at in one step.
        if text.iter().fold(false, |found, b| found | control(b)) {
            return Err(Bad::Form);
        }
        if let [b'"', after @ ..] = rest {
            self.rest = after;
            return std::str::from_utf8(text).map(Cow::Borrowed).map_err(|_| Bad::Form);
        }
        let mut bytes = text.to_vec();
        loop {
            rest = match rest {
                [b'"', after @ ..] => {
                    self.rest = after;
                    return String::from_utf8(bytes).map(Cow::Owned).map_err(|_| Bad::Form);
                }
                [b'\\', escaped @ (b'"' | b'\\'), after @ ..] => {
                    bytes.push(*escaped);
                    after
                }
                [b'\\', b'u', b'0', b'0', high, low, after @ ..] => {
                    bytes.push(escaped_control(*high, *low).ok_or(Bad::Form)?);
                    after
                }
                [byte, after @ ..] if !control(byte) && !matches!(byte, b'\\') => {
                    bytes.push(*byte);
                    after
                }
                _ => return Err(Bad::Form),
            };
        }
    }

    /// As [`Cursor::text`], for who does not need the text.
    #[inline(always)]
    pub(crate) fn skip_text(&mut self) -> Read<()> {
        if let Some(rest) = self.rest.strip_prefix(b"\"")
            && let Some(end) = rest.iter().position(|b| !PLAIN.get(usize::from(*b)).is_some_and(|plain| *plain))
            && let Some((b'"', after)) = rest.get(end..).and_then(<[u8]>::split_first)
        {
            self.rest = after;
            return Ok(());
        }
        self.text().map(|_| ())
    }

    /// A string that has one of a few forms, in none of which anything is escaped. `parse` looks at every byte.
    #[inline(always)]
    pub(crate) fn formed<T>(&mut self, parse: impl FnOnce(&'a [u8]) -> Option<T>) -> Read<T> {
        if let Some(rest) = self.rest.strip_prefix(b"\"")
            && let Some(end) = rest.iter().position(|b| *b == b'"')
            && let Some((text, [_, after @ ..])) = rest.split_at_checked(end)
            && let Some(value) = parse(text)
        {
            self.rest = after;
            return Ok(value);
        }
        Err(self.unformed())
    }

    /// As [`Cursor::formed`], where all forms have the same length.
    #[inline(always)]
    pub(crate) fn fixed<const N: usize, T>(&mut self, parse: impl FnOnce(&'a [u8; N]) -> Option<T>) -> Read<T> {
        if let Some(rest) = self.rest.strip_prefix(b"\"")
            && let Some((text, [b'"', after @ ..])) = rest.split_first_chunk::<N>()
            && let Some(value) = parse(text)
        {
            self.rest = after;
            return Ok(value);
        }
        Err(self.unformed())
    }

    /// Why a string has none of the forms that it could have.
    #[cold]
    fn unformed(&mut self) -> Bad {
        match self.text() {
            Ok(_) => Bad::Value,
            Err(bad) => bad,
        }
    }

    #[inline(always)]
    pub(crate) fn word_value<T>(&mut self, parse: impl FnOnce(&[u8]) -> Option<T>) -> Read<T> {
        self.formed(parse)
    }

    pub(crate) fn name_value(&mut self) -> Read<IdentityName> {
        self.formed(|text| std::str::from_utf8(text).ok()?.parse().ok())
    }

    #[inline(always)]
    pub(crate) fn skip_name(&mut self) -> Read<()> {
        self.formed(|text| IdentityName::is_one(text).then_some(()))
    }

    #[inline(always)]
    pub(crate) fn session_value(&mut self) -> Read<SessionId> {
        let last = self.session;
        let (text, id) = self.fixed(|text: &[u8; 26]| match last {
            Some((last, id)) if last == text => Some((text, id)),
            _ => Some((text, SessionId::from_text(text)?)),
        })?;
        self.session = Some((text, id));
        Ok(id)
    }

    pub(crate) fn break_glass_value(&mut self) -> Read<BreakGlassId> {
        self.session_value().map(|id| BreakGlassId::from_bytes(id.to_bytes()))
    }

    #[inline(always)]
    pub(crate) fn base64_digest(&mut self) -> Read<Digest> {
        self.fixed(|text| base64::decode_32(text).map(Digest))
    }

    /// Base64 of 32 bytes, for who does not need them.
    #[inline(always)]
    pub(crate) fn skip_digest(&mut self) -> Read<()> {
        self.fixed(|text: &[u8; 44]| base64::is_32(text).then_some(()))
    }

    pub(crate) fn base64_bytes(&mut self) -> Read<Vec<u8>> {
        self.formed(base64::decode)
    }

    /// As [`Cursor::base64_bytes`], for who does not need them.
    #[inline(always)]
    pub(crate) fn skip_base64(&mut self) -> Read<()> {
        if let Some(rest) = self.rest.strip_prefix(b"\"")
            && let Some(end) = memchr::memchr(b'"', rest)
            && let Some((text, [_, after @ ..])) = rest.split_at_checked(end)
            && base64::is_valid(text)
        {
            self.rest = after;
            return Ok(());
        }
        Err(self.unformed())
    }

    pub(crate) fn hex_digest(&mut self) -> Read<Digest> {
        self.formed(|text| Digest::from_hex(std::str::from_utf8(text).ok()?))
    }

    pub(crate) fn label_value(&mut self) -> Read<Label> {
        if self.rest.first() == Some(&b'"') {
            return Ok(Label::Text(self.text()?.into_owned()));
        }
        self.object(|c| Ok(Label::Digest { sha256: c.at("sha256", Self::hex_digest)?, bytes: c.number("bytes")? }))
    }

    /// As [`Cursor::label_value`], for who does not need it.
    #[inline(always)]
    pub(crate) fn skip_label(&mut self) -> Read<()> {
        if self.rest.first() == Some(&b'"') { self.skip_text() } else { self.label_value().map(|_| ()) }
    }
}

/// The ordinal of a command's id, with the full stop before it.
#[inline(always)]
fn ordinal_of(text: &[u8]) -> Option<u32> {
    let digits = text.strip_prefix(b".").filter(|digits| digits.first().is_some_and(|first| *first != b'0'))?;
    digits.iter().try_fold(0u32, |value, byte| {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 { None } else { value.checked_mul(10)?.checked_add(u32::from(digit)) }
    })
}

/// The control character that these two hexadecimal digits, in lower case, stand for.
fn escaped_control(high: u8, low: u8) -> Option<u8> {
    let digit = |digit: u8| match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    };
    Some(digit(high)? << 4 | digit(low)?).filter(|byte| *byte < 0x20 || *byte == 0x7f)
}
