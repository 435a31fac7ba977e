//! Times, durations and counts as people write and read them.

use std::fmt::Display;
use std::time::{SystemTime, UNIX_EPOCH};

use model::{parse_wall, wall_text};

/// Now, in microseconds since 1970.
pub fn now_us() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(now.as_micros()).unwrap_or(i64::MAX)
}

/// A moment as people give it: `90s`, `30m`, `1h`, `2d` ago, a date, or an RFC 3339 time.
pub(super) fn moment(text: &str) -> Result<i64, String> {
    ago(text).map(|ago| now_us() - ago).or_else(|| instant(text)).ok_or_else(|| {
        "write how long ago (90s, 30m, 1h, 2d), a date (2026-11-22) or a time (2026-11-22T09:35:00Z)".to_owned()
    })
}

fn ago(text: &str) -> Option<i64> {
    let text = text.strip_prefix('-').unwrap_or(text);
    let seconds = match text.as_bytes().last()? {
        b's' => 1,
        b'm' => 60,
        b'h' => 3600,
        b'd' => 86_400,
        _ => return None,
    };
    let number: u32 = text.get(..text.len() - 1)?.parse().ok()?;
    i64::from(number).checked_mul(seconds * 1_000_000)
}

/// RFC 3339, where the parts after the date may be missing; without an offset it is UTC.
fn instant(text: &str) -> Option<i64> {
    let date = text.get(..10)?;
    let rest = text.get(10..)?;
    let rest = rest.strip_prefix(['T', 't', ' ']).unwrap_or(rest);
    let (time, offset_us) = match rest.find(['Z', 'z', '+', '-']) {
        None => (rest, 0),
        Some(at) => (rest.get(..at)?, offset(rest.get(at..)?)?),
    };
    let (whole, fraction) = time.split_once('.').unwrap_or((time, ""));
    let whole = match whole.len() {
        0 => "00:00:00".to_owned(),
        5 => format!("{whole}:00"),
        _ => whole.to_owned(),
    };
    let fraction: String = fraction.chars().chain("000000".chars()).take(6).collect();
    parse_wall(&format!("{date}T{whole}.{fraction}Z")).ok().map(|us| us - offset_us)
}

fn offset(text: &str) -> Option<i64> {
    if text.eq_ignore_ascii_case("z") {
        return Some(0);
    }
    let sign = if text.starts_with('-') { -1 } else { 1 };
    let (hours, minutes) = text.get(1..)?.split_once(':')?;
    let number = |text: &str| text.parse::<u8>().ok().filter(|_| text.len() == 2).map(i64::from);
    Some(sign * (number(hours)? * 60 + number(minutes)?) * 60_000_000)
}

/// To the second, in UTC: `2026-11-22 09:35:01`.
pub(super) fn to_the_second(wall_us: i64) -> String {
    wall_text(wall_us).get(..19).unwrap_or_default().replace('T', " ")
}

/// In full: `2026-11-22 09:35:01.123456 UTC`.
pub(super) fn in_full(wall_us: i64) -> String {
    wall_text(wall_us).replace('T', " ").replace('Z', " UTC")
}

/// A duration with two digits that matter.
pub(super) fn duration(us: u64) -> String {
    let tenths = |unit_us: u64| format!("{}.{}", us / unit_us, us % unit_us * 10 / unit_us);
    match us {
        ..1_000 => format!("{us} µs"),
        1_000..100_000 => format!("{} ms", tenths(1_000)),
        100_000..1_000_000 => format!("{} ms", us / 1_000),
        1_000_000..60_000_000 => format!("{} s", tenths(1_000_000)),
        _ => format!("{} min {:02} s", us / 60_000_000, us / 1_000_000 % 60),
    }
}

/// Bytes in the largest unit that leaves a whole number in front.
pub(super) fn bytes(count: u64) -> String {
    let units = [("TiB", 1_u64 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
    let unit = units.into_iter().find(|(_, size)| count >= *size);
    unit.map_or_else(|| format!("{count} B"), |(name, size)| format!("{} {name}", count / size))
}

/// `1 row`, `2 rows`.
pub(super) fn counted<T: Display + PartialEq + From<u8>>(count: T, one: &str, many: &str) -> String {
    format!("{count} {}", if count == T::from(1) { one } else { many })
}

/// A database as it follows a connection's name; nothing where there are none.
pub(super) fn database(name: Option<&model::Label>) -> String {
    name.map_or_else(String::new, |name| format!(", database {name}"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn moments() {
        let noon = parse_wall("2026-11-22T12:00:00.000000Z").unwrap();
        for text in [
            "2026-11-22T12:00:00Z",
            "2026-11-22 12:00",
            "2026-11-22T12:00:00.000000Z",
            "2026-11-22T14:00:00+02:00",
            "2026-11-22t07:30:00.0-04:30",
        ] {
            assert_eq!(moment(text), Ok(noon), "{text}");
        }
        assert_eq!(moment("2026-11-22"), Ok(noon - 12 * 3_600_000_000));
        let hour = now_us() - moment("1h").unwrap();
        assert!((3_599_000_000..3_601_000_000).contains(&hour), "{hour}");
        for text in ["", "h", "yesterday", "2026-13-01", "2026-11-22T25:00", "1w", "99999999999d", "2026-11-22T12:00+2"]
        {
            assert!(moment(text).is_err(), "{text}");
        }
    }

    #[test]
    fn durations_and_bytes() {
        let all: Vec<_> = [7, 1_234, 123_456, 1_234_567, 123_456_789].map(duration).into();
        assert_eq!(all, ["7 µs", "1.2 ms", "123 ms", "1.2 s", "2 min 03 s"]);
        assert_eq!([1023, 2048, 5 << 30].map(bytes), ["1023 B", "2 KiB", "5 GiB"]);
    }
}
