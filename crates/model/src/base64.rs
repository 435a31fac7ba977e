//! Base64 as entries have it: the standard alphabet, padded, and no bits set that stand for nothing (RFC 4648, sections 4
//! and 3.5). Written for reading many short values, without a copy where only their form counts.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// What a byte that is no digit counts as; the digits count as 0 to 63.
const NO_DIGIT: u8 = 0x80;

#[allow(clippy::indexing_slicing, clippy::cast_possible_truncation, reason = "evaluated when this is compiled")]
const VALUES: [u8; 256] = {
    let digits = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut values = [NO_DIGIT; 256];
    let mut digit = 0;
    while digit < digits.len() {
        values[digits[digit] as usize] = digit as u8;
        digit += 1;
    }
    values
};

#[inline(always)]
fn value(byte: u8) -> u8 {
    VALUES.get(usize::from(byte)).copied().unwrap_or(NO_DIGIT)
}

/// Any number of bytes.
pub(crate) fn decode(text: &[u8]) -> Option<Vec<u8>> {
    STANDARD.decode(text).ok()
}

/// Whether [`decode`] gives anything.
#[inline(always)]
pub(crate) fn is_valid(text: &[u8]) -> bool {
    let (groups, rest) = text.as_chunks::<4>();
    let Some(([.., third, fourth], groups)) = groups.split_last() else {
        return rest.is_empty();
    };
    let (last, unused) = match (third, fourth) {
        (b'=', b'=') => (2, 0x0f),
        (_, b'=') => (3, 0x03),
        _ => (4, 0),
    };
    let last = text.get(groups.len() * 4..).and_then(|group| group.get(..last)).unwrap_or_default();
    let all = groups.as_flattened().iter().chain(last).fold(0, |all, byte| all | value(*byte));
    rest.is_empty() && all < NO_DIGIT && last.last().is_some_and(|byte| value(*byte) & unused == 0)
}

/// Whether [`decode_32`] gives anything.
#[inline(always)]
pub(crate) fn is_32(text: &[u8; 44]) -> bool {
    matches!(text, [.., third, b'='] if *third != b'=') && is_valid(text)
}

/// Exactly 32 bytes.
#[inline(always)]
pub(crate) fn decode_32(text: &[u8; 44]) -> Option<[u8; 32]> {
    let (groups, _) = text.as_chunks::<4>();
    let mut bytes = [0u8; 33];
    let mut all = 0;
    for (to, [a, b, c, d]) in bytes.as_chunks_mut::<3>().0.iter_mut().zip(groups) {
        let (a, b, c) = (value(*a), value(*b), value(*c));
        // The padding, which stands only at the end: looked at below.
        let d = if *d == b'=' { 0 } else { value(*d) };
        all |= a | b | c | d;
        *to = [a << 2 | b >> 4, b << 4 | c >> 2, c << 6 | d];
    }
    let padded = text.iter().position(|byte| *byte == b'=') == Some(43);
    let [bytes @ .., unused] = bytes;
    (all < NO_DIGIT && padded && unused == 0).then_some(bytes)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn they_agree_with_the_crate(bytes in any::<Vec<u8>>(), of_32 in any::<[u8; 32]>(), at in any::<prop::sample::Index>(), other in any::<prop::sample::Index>()) {
            const LIKELY: &[u8] = b"=AQgwB/+-_9\"";
            for text in [STANDARD.encode(bytes), STANDARD.encode(of_32)] {
                let mut text = text.into_bytes();
                prop_assert!(is_valid(&text));
                if !text.is_empty() {
                    let at = at.index(text.len());
                    text.splice(at..=at, [*other.get(LIKELY)]);
                }
                prop_assert_eq!(is_valid(&text), decode(&text).is_some());
                if let Ok(text) = <&[u8; 44]>::try_from(text.as_slice()) {
                    let right = decode(text).and_then(|bytes| bytes.try_into().ok());
                    prop_assert_eq!(decode_32(text), right);
                    prop_assert_eq!(is_32(text), right.is_some());
                }
            }
        }

        #[test]
        fn they_agree_on_any_text(text in "[A-D=/+gQ\"]{0,12}") {
            prop_assert_eq!(is_valid(text.as_bytes()), decode(text.as_bytes()).is_some());
        }
    }
}
