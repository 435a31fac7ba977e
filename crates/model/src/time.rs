//! Time as the record has it: the wall clock for people, the boot clock for order and durations.

/// One instant, read from both clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Time {
    /// Wall clock, microseconds since 1970-01-01T00:00:00Z.
    pub wall_us: i64,
    /// CLOCK_BOOTTIME: microseconds since the machine started, sleep included. Never steps back.
    pub boot_us: u64,
}

/// Text that is no time of the record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a time is written as 2026-11-22T09:35:01.123456Z, to the microsecond and in UTC")]
pub struct TimeError;

/// How long the text of a wall clock time is, for the years 0 to 9999.
pub const WALL_TEXT_BYTES: usize = 27;

const DAY_US: i64 = 86_400_000_000;
const YEAR_9999_END_US: i64 = 253_402_300_800_000_000;
const YEAR_0_START_US: i64 = -62_167_219_200_000_000;

/// The time as RFC 3339 text with microseconds. Times outside the years 0 to 9999 are written as the nearest one inside.
#[must_use]
pub fn wall_text(wall_us: i64) -> String {
    let mut text = Vec::with_capacity(WALL_TEXT_BYTES);
    write_wall(wall_us, &mut text);
    String::from_utf8(text).unwrap_or_default()
}

/// As [`wall_text`], appended to a buffer.
pub fn write_wall(wall_us: i64, out: &mut Vec<u8>) {
    let wall_us = wall_us.clamp(YEAR_0_START_US, YEAR_9999_END_US - 1);
    let (year, month, day) = civil(wall_us.div_euclid(DAY_US));
    let in_day = wall_us.rem_euclid(DAY_US);
    let seconds = in_day / 1_000_000;
    two(year / 100, out);
    two(year % 100, out);
    out.push(b'-');
    two(month, out);
    out.push(b'-');
    two(day, out);
    out.push(b'T');
    two(seconds / 3600, out);
    out.push(b':');
    two(seconds / 60 % 60, out);
    out.push(b':');
    two(seconds % 60, out);
    out.push(b'.');
    let micros = in_day % 1_000_000;
    two(micros / 10_000, out);
    two(micros / 100 % 100, out);
    two(micros % 100, out);
    out.push(b'Z');
}

/// Parses what [`wall_text`] writes, and nothing else.
///
/// # Errors
/// The text is not of that form or names a day that does not exist.
pub fn parse_wall(text: &str) -> Result<i64, TimeError> {
    let bytes: &[u8; WALL_TEXT_BYTES] = text.as_bytes().try_into().map_err(|_| TimeError)?;
    let number = |from: usize, digits: usize| {
        bytes.iter().skip(from).take(digits).try_fold(0i64, |value, byte| {
            byte.is_ascii_digit().then(|| value * 10 + i64::from(byte - b'0')).ok_or(TimeError)
        })
    };
    let (year, month, day) = (number(0, 4)?, number(5, 2)?, number(8, 2)?);
    let (hour, minute, second) = (number(11, 2)?, number(14, 2)?, number(17, 2)?);
    let wall_us = days(year, month, day) * DAY_US + ((hour * 60 + minute) * 60 + second) * 1_000_000 + number(20, 6)?;
    let separators = [(4, b'-'), (7, b'-'), (10, b'T'), (13, b':'), (16, b':'), (19, b'.'), (26, b'Z')];
    let formed = separators.iter().all(|(at, byte)| bytes.get(*at) == Some(byte));
    // A day that does not exist is another day when it is counted back.
    let exists = civil(days(year, month, day)) == (year, month, day) && hour < 24 && minute < 60 && second < 60;
    if formed && exists { Ok(wall_us) } else { Err(TimeError) }
}

fn two(number: i64, out: &mut Vec<u8>) {
    let number = u8::try_from(number).unwrap_or(0);
    out.push(b'0' + number / 10);
    out.push(b'0' + number % 10);
}

// Days since 1970 and the proleptic Gregorian calendar, after Howard Hinnant's `chrono`-compatible algorithms.
fn civil(days: i64) -> (i64, i64, i64) {
    let z = days + 719_468;
    let era = z.div_euclid(146_097);
    let doe = z.rem_euclid(146_097);
    let yoe = (doe - doe / 1460 + doe / 36_524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let month = if mp < 10 { mp + 3 } else { mp - 9 };
    (yoe + era * 400 + i64::from(month <= 2), month, doy - (153 * mp + 2) / 5 + 1)
}

fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = year - i64::from(month <= 2);
    let era = year.div_euclid(400);
    let yoe = year.rem_euclid(400);
    let mp = if month > 2 { month - 3 } else { month + 9 };
    let doy = (153 * mp + 2) / 5 + day - 1;
    era * 146_097 + yoe * 365 + yoe / 4 - yoe / 100 + doy - 719_468
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn known_times() {
        assert_eq!(wall_text(0), "1970-01-01T00:00:00.000000Z");
        assert_eq!(wall_text(1_763_804_101_123_456), "2025-11-22T09:35:01.123456Z");
        assert_eq!(wall_text(i64::MAX), "9999-12-31T23:59:59.999999Z");
        for bad in ["2025-02-29T00:00:00.000000Z", "2025-01-01T24:00:00.000000Z", "2025-01-01 00:00:00.000000Z", ""] {
            assert!(parse_wall(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn text_round_trips(wall_us in YEAR_0_START_US..YEAR_9999_END_US) {
            let text = wall_text(wall_us);
            prop_assert_eq!(text.len(), WALL_TEXT_BYTES);
            prop_assert_eq!(parse_wall(&text).unwrap(), wall_us);
        }
    }
}
