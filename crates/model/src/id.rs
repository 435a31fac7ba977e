//! Ids of sessions and commands. They are minted by the gateway, never taken from a client.

use std::fmt;
use std::str::FromStr;

/// A session: a ULID, so that ids sort by the time at which the session began.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionId(u128);

/// A command: its session and its ordinal there, counted from 1. The text is `<session>.<ordinal>`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CommandId {
    /// The session in which the command was sent.
    pub session: SessionId,
    /// Its place among the session's commands, from 1.
    pub ordinal: u32,
}

/// Text that is no id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// Not 26 digits of Crockford's base 32.
    #[error("a session id has 26 digits of Crockford's base 32, like 01K9ZZ3Q0V8C2M4N6P8R0T2W4Y")]
    Session,
    /// Not `<session>.<ordinal>`.
    #[error("a command id is a session id, a full stop and a number from 1, like 01K9ZZ3Q0V8C2M4N6P8R0T2W4Y.17")]
    Command,
}

const DIGITS: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";
const TEXT_BYTES: usize = 26;

/// The value of each digit by its byte; 32 for what is no digit.
#[allow(clippy::indexing_slicing, clippy::cast_possible_truncation, reason = "evaluated when this is compiled")]
const VALUES: [u8; 256] = {
    let mut values = [32; 256];
    let mut digit = 0;
    while digit < DIGITS.len() {
        values[DIGITS[digit] as usize] = digit as u8;
        digit += 1;
    }
    values
};

impl SessionId {
    /// Makes an id from the time (milliseconds since 1970, 48 bits are used) and 80 random bits.
    #[must_use]
    pub fn new(unix_ms: u64, random: [u8; 10]) -> Self {
        let mut bytes = [0u8; 16];
        let ms = unix_ms.to_be_bytes();
        let (head, tail) = bytes.split_at_mut(6);
        for (to, from) in head.iter_mut().zip(ms.iter().skip(2)) {
            *to = *from;
        }
        tail.copy_from_slice(&random);
        Self(u128::from_be_bytes(bytes))
    }

    /// The id as 16 bytes, big-endian.
    #[must_use]
    pub fn to_bytes(self) -> [u8; 16] {
        self.0.to_be_bytes()
    }

    /// The id of these 16 bytes.
    #[must_use]
    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(u128::from_be_bytes(bytes))
    }

    /// When the session began, in milliseconds since 1970, as the id says.
    #[must_use]
    pub fn unix_ms(self) -> u64 {
        u64::try_from(self.0 >> 80).unwrap_or(u64::MAX)
    }

    pub(crate) fn text(self) -> [u8; TEXT_BYTES] {
        let mut text = [b'0'; TEXT_BYTES];
        let mut rest = self.0;
        for place in text.iter_mut().rev() {
            let digit = usize::try_from(rest & 31).unwrap_or(0);
            *place = DIGITS.get(digit).copied().unwrap_or(b'0');
            rest >>= 5;
        }
        text
    }

    pub(crate) fn from_text(text: &[u8]) -> Option<Self> {
        if text.len() != TEXT_BYTES || text.first().is_none_or(|&b| !(b'0'..=b'7').contains(&b)) {
            return None;
        }
        let mut value = 0u128;
        for &byte in text {
            let digit = VALUES.get(usize::from(byte)).copied().filter(|digit| *digit < 32)?;
            value = (value << 5) | u128::from(digit);
        }
        Some(Self(value))
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(std::str::from_utf8(&self.text()).unwrap_or_default())
    }
}

impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SessionId({self})")
    }
}

impl FromStr for SessionId {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        Self::from_text(text.as_bytes()).ok_or(IdError::Session)
    }
}

impl fmt::Display for CommandId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.session, self.ordinal)
    }
}

impl FromStr for CommandId {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        let (session, ordinal) = text.split_once('.').ok_or(IdError::Command)?;
        let canonical = !ordinal.starts_with('0') && ordinal.bytes().all(|b| b.is_ascii_digit());
        match (session.parse(), ordinal.parse()) {
            (Ok(session), Ok(ordinal)) if canonical => Ok(Self { session, ordinal }),
            _ => Err(IdError::Command),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn ids_round_trip_and_sort_by_time() {
        let a = SessionId::new(1_763_804_136_123, [0xff; 10]);
        let b = SessionId::new(1_763_804_136_124, [0; 10]);
        assert!(a < b && a.to_string() < b.to_string());
        assert_eq!(a.to_string().parse::<SessionId>().unwrap(), a);
        assert_eq!(a.unix_ms(), 1_763_804_136_123);
        let command = CommandId { session: a, ordinal: 17 };
        assert_eq!(command.to_string().parse::<CommandId>().unwrap(), command);
    }

    #[test]
    fn other_text_is_refused() {
        let good = SessionId::new(1, [7; 10]).to_string();
        for bad in ["", "8ZZZZZZZZZZZZZZZZZZZZZZZZZ", &good.to_lowercase(), &good[1..], &format!("{good}0")] {
            assert!(bad == good || bad.parse::<SessionId>().is_err(), "{bad}");
        }
        for bad in [".1", ".01", ".", ".-1", ".+1", ".4294967296", ".1 "] {
            assert!(format!("{good}{bad}").parse::<CommandId>().is_err() || bad == ".1", "{bad}");
        }
    }
}
