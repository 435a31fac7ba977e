//! The binary forms of the types that drivers send most, as text.

use crate::cursor::Cursor;
use std::borrow::Cow;

/// Numbers with more digits than this (4 per step of weight) are not written out.
const NUMERIC_WEIGHT_MAX: i32 = 250;
const NUMERIC_SCALE_MAX: usize = 1000;

/// The name of a built-in type.
pub(crate) fn type_name(oid: u32) -> Option<&'static str> {
    Some(match oid {
        16 => "bool",
        17 => "bytea",
        18 => "char",
        19 => "name",
        20 => "int8",
        21 => "int2",
        23 => "int4",
        25 => "text",
        26 => "oid",
        114 => "json",
        700 => "float4",
        701 => "float8",
        1042 => "bpchar",
        1043 => "varchar",
        1082 => "date",
        1083 => "time",
        1114 => "timestamp",
        1184 => "timestamptz",
        1186 => "interval",
        1700 => "numeric",
        2950 => "uuid",
        3802 => "jsonb",
        1000 => "bool[]",
        1005 => "int2[]",
        1007 => "int4[]",
        1009 => "text[]",
        1015 => "varchar[]",
        1016 => "int8[]",
        1021 => "float4[]",
        1022 => "float8[]",
        1231 => "numeric[]",
        2951 => "uuid[]",
        _ => return None,
    })
}

/// A binary value as text, or `None` where it is not of the form that its type has.
pub(crate) fn binary(oid: u32, value: &[u8]) -> Option<Cow<'_, str>> {
    let mut cursor = Cursor(value);
    let text = match oid {
        16 => match cursor.u8()? {
            0 => "false".to_owned(),
            1 => "true".to_owned(),
            _ => return None,
        },
        20 => i64::from_be_bytes(cursor.array()?).to_string(),
        21 => i16::from_be_bytes(cursor.array()?).to_string(),
        23 => cursor.i32()?.to_string(),
        26 => cursor.u32()?.to_string(),
        700 => float(f32::from_be_bytes(cursor.array()?)),
        701 => float(f64::from_be_bytes(cursor.array()?)),
        19 | 25 | 114 | 1042 | 1043 => return std::str::from_utf8(value).ok().map(Cow::Borrowed),
        3802 => {
            let (version, text) = value.split_first()?;
            return if *version == 1 { std::str::from_utf8(text).ok().map(Cow::Borrowed) } else { None };
        }
        1082 => date(i64::from(cursor.i32()?))?,
        1114 => timestamp(i64::from_be_bytes(cursor.array()?), "")?,
        1184 => timestamp(i64::from_be_bytes(cursor.array()?), "+00")?,
        1700 => numeric(&mut cursor)?,
        2950 => uuid(&cursor.array()?),
        _ => return None,
    };
    cursor.is_empty().then_some(Cow::Owned(text))
}

/// The shortest digits that give the same value back, without a page of zeros.
fn float<F: Into<f64> + Copy + std::fmt::Display + std::fmt::LowerExp>(value: F) -> String {
    let wide: f64 = value.into();
    if wide.is_nan() {
        "NaN".to_owned()
    } else if wide.is_infinite() {
        if wide > 0.0 { "Infinity" } else { "-Infinity" }.to_owned()
    } else if wide == 0.0 || (1e-5..1e15).contains(&wide.abs()) {
        value.to_string()
    } else {
        format!("{value:e}")
    }
}

fn uuid(bytes: &[u8; 16]) -> String {
    use std::fmt::Write as _;
    let mut text = String::with_capacity(36);
    for (index, byte) in bytes.iter().enumerate() {
        if matches!(index, 4 | 6 | 8 | 10) {
            text.push('-');
        }
        let _ = write!(text, "{byte:02x}");
    }
    text
}

/// Days since 2000-01-01, with the two infinities that PostgreSQL has.
fn date(days: i64) -> Option<String> {
    if days == i64::from(i32::MAX) {
        return Some("infinity".to_owned());
    }
    if days == i64::from(i32::MIN) {
        return Some("-infinity".to_owned());
    }
    let (year, month, day) = civil(days.checked_add(10_957)?)?;
    Some(if year > 0 {
        format!("{year:04}-{month:02}-{day:02}")
    } else {
        format!("{:04}-{month:02}-{day:02} BC", 1_i64.checked_sub(year)?)
    })
}

/// Microseconds since 2000-01-01.
fn timestamp(micros: i64, zone: &str) -> Option<String> {
    const DAY: i64 = 86_400_000_000;
    match micros {
        i64::MAX => return Some("infinity".to_owned()),
        i64::MIN => return Some("-infinity".to_owned()),
        _ => {}
    }
    let rest = micros.rem_euclid(DAY);
    let date = date(micros.div_euclid(DAY))?;
    let (date, era) = date.strip_suffix(" BC").map_or((date.as_str(), ""), |date| (date, " BC"));
    let seconds = rest / 1_000_000;
    let clock = format!("{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60);
    let fraction = match rest % 1_000_000 {
        0 => String::new(),
        micros => format!(".{micros:06}"),
    };
    Some(format!("{date} {clock}{fraction}{zone}{era}"))
}

/// The proleptic Gregorian date of a day counted from 1970-01-01 (Hinnant's `civil_from_days`).
fn civil(days: i64) -> Option<(i64, i64, i64)> {
    let shifted = days.checked_add(719_468)?;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    Some((year_of_era + era * 400 + i64::from(month <= 2), month, day))
}

/// Digits in base 10000, a weight of the first, a sign and a display scale.
fn numeric(cursor: &mut Cursor<'_>) -> Option<String> {
    use std::fmt::Write as _;
    let count = cursor.u16()?;
    let weight = i32::from(i16::from_be_bytes(cursor.array()?));
    let sign = cursor.u16()?;
    let scale = usize::from(cursor.u16()?);
    match sign {
        0x0000 | 0x4000 => {}
        0xC000 => return Some("NaN".to_owned()),
        0xD000 => return Some("Infinity".to_owned()),
        0xF000 => return Some("-Infinity".to_owned()),
        _ => return None,
    }
    // A few bytes can stand for a hundred thousand zeros: those stay bytes.
    if weight > NUMERIC_WEIGHT_MAX || scale > NUMERIC_SCALE_MAX {
        return None;
    }
    let mut digits = Vec::with_capacity(usize::from(count));
    for _ in 0..count {
        let digit = cursor.u16()?;
        if digit > 9999 {
            return None;
        }
        digits.push(digit);
    }
    let digit =
        |power: i32| usize::try_from(weight - power).ok().and_then(|place| digits.get(place)).copied().unwrap_or(0);
    let mut text = String::new();
    if sign == 0x4000 {
        text.push('-');
    }
    if weight < 0 {
        text.push('0');
    }
    for power in (0..=weight).rev() {
        if power == weight {
            let _ = write!(text, "{}", digit(power));
        } else {
            let _ = write!(text, "{:04}", digit(power));
        }
    }
    if scale > 0 {
        text.push('.');
        let whole = text.len();
        let mut power = -1;
        while text.len() - whole < scale {
            let _ = write!(text, "{:04}", digit(power));
            power -= 1;
        }
        text.truncate(whole + scale);
    }
    Some(text)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::*;

    fn unhex(hex: &str) -> Vec<u8> {
        (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
    }

    /// The bytes are what PostgreSQL 15's send functions gave for these values.
    #[test]
    fn values_read_as_the_server_writes_them() {
        for (oid, text, hex) in [
            (1700, "0", "0000000000000000"),
            (1700, "1", "00010000000000000001"),
            (1700, "-1", "00010000400000000001"),
            (1700, "12345.678", "0003000100000003000109291a7c"),
            (1700, "0.0001", "0001ffff000000040001"),
            (1700, "0.00001234", "0001fffe0000000804d2"),
            (1700, "100000000000000000000", "00010005000000000001"),
            (1700, "-99999999.99", "0003000140000002270f270f26ac"),
            (1700, "10000", "00010001000000000001"),
            (1700, "NaN", "00000000c0000000"),
            (1700, "Infinity", "00000000d0000020"),
            (1700, "-Infinity", "00000000f0000020"),
            (1700, "1.10", "0002000000000002000103e8"),
            (1700, "123456789012345678901234567890.5", "0009000700000001000c0d801ed204d2162e23340d801ed21388"),
            (1700, "0.00", "0000000000000002"),
            (1082, "2000-01-01", "00000000"),
            (1082, "1999-12-31", "ffffffff"),
            (1082, "2026-11-22", "0000265e"),
            (1082, "0001-01-01", "fff4dbf9"),
            (1082, "0044-03-15 BC", "fff49d7b"),
            (1082, "0001-12-31 BC", "fff4dbf8"),
            (1082, "infinity", "7fffffff"),
            (1082, "-infinity", "80000000"),
            (1082, "2024-02-29", "00002279"),
            (1082, "5874897-12-31", "7fda970c"),
            (1082, "4713-01-01 BC", "ffda97cd"),
            (1114, "2000-01-01 00:00:00", "0000000000000000"),
            (1114, "1999-12-31 23:59:59.999999", "ffffffffffffffff"),
            (1114, "2026-11-22 09:35:01.123456", "000303d8f5c29d80"),
            (1114, "infinity", "7fffffffffffffff"),
            (1114, "-infinity", "8000000000000000"),
            (1114, "0044-03-15 12:00:00 BC", "ff1af9e8fb46d000"),
            (1114, "294276-12-31 23:59:59.999999", "7fffff5bb3b29fff"),
            (2950, "00112233-4455-6677-8899-aabbccddeeff", "00112233445566778899aabbccddeeff"),
            (3802, "{\"a\": 1}", "017b2261223a20317d"),
            (701, "0", "0000000000000000"),
            (701, "1.5", "3ff8000000000000"),
            (701, "-2.25e300", "fe4ae0c41900844f"),
            (701, "0.1", "3fb999999999999a"),
            (701, "NaN", "7ff8000000000000"),
            (701, "Infinity", "7ff0000000000000"),
            (700, "0.1", "3dcccccd"),
            (16, "true", "01"),
            (16, "false", "00"),
            (21, "-2", "fffe"),
            (23, "7", "00000007"),
            (20, "-9223372036854775808", "8000000000000000"),
            (26, "4294967295", "ffffffff"),
            (25, "hé", "68c3a9"),
        ] {
            assert_eq!(binary(oid, &unhex(hex)).as_deref(), Some(text), "{oid} {hex}");
        }
    }

    #[test]
    fn what_does_not_fit_stays_bytes() {
        for (oid, hex) in [
            (16, "02"),
            (16, ""),
            (23, "000000"),
            (23, "0000000000"),
            (25, "ff"),
            (3802, "02"),
            (3802, ""),
            (1700, "0001000000000000"),
            (1700, "00010000000000002710"),
            (1700, "0000000012340000"),
            (1700, "00007fff00000000"),
            (1700, "000000000000ffff"),
            (17, "00"),
            (1007, "00"),
            (99999, "00"),
            (2950, "00"),
            (1114, "00"),
        ] {
            assert_eq!(binary(oid, &unhex(hex)), None, "{oid} {hex}");
        }
        assert_eq!(timestamp(i64::MIN + 1, "").is_some(), timestamp(i64::MAX - 1, "").is_some());
        assert!(binary(1184, &[0; 8]).unwrap().ends_with("+00"));
    }
}
