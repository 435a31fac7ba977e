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
    text.as_bytes().try_into().ok().and_then(wall_of).ok_or(TimeError)
}

/// The time that this text says, if it is one.
#[inline(always)]
pub(crate) fn wall_of(text: &[u8; WALL_TEXT_BYTES]) -> Option<i64> {
    let [
        y1,
        y2,
        y3,
        y4,
        b'-',
        m1,
        m2,
        b'-',
        d1,
        d2,
        b'T',
        h1,
        h2,
        b':',
        i1,
        i2,
        b':',
        s1,
        s2,
        b'.',
        u1,
        u2,
        u3,
        u4,
        u5,
        u6,
        b'Z',
    ] = *text
    else {
        return None;
    };
    let mut digits = true;
    let mut two = |high: u8, low: u8| {
        let (high, low) = (high.wrapping_sub(b'0'), low.wrapping_sub(b'0'));
        digits &= high < 10 && low < 10;
        i64::from(high) * 10 + i64::from(low)
    };
    let (year, month, day) = (two(y1, y2) * 100 + two(y3, y4), two(m1, m2), two(d1, d2));
    let (hour, minute, second) = (two(h1, h2), two(i1, i2), two(s1, s2));
    let micros = (two(u1, u2) * 100 + two(u3, u4)) * 100 + two(u5, u6);
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let last = match month {
        1 | 3 | 5 | 7 | 8 | 10 | 12 => 31,
        4 | 6 | 9 | 11 => 30,
        2 => 28 + i64::from(leap),
        _ => return None,
    };
    let exists = (1..=last).contains(&day) && hour < 24 && minute < 60 && second < 60;
    let in_day = ((hour * 60 + minute) * 60 + second) * 1_000_000 + micros;
    (digits && exists).then(|| days(year, month, day) * DAY_US + in_day)
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
