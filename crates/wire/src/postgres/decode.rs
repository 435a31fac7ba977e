//! The binary forms of the types that drivers send most, as text.

use super::cursor::Cursor;
use std::borrow::Cow;

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
        700 => f32::from_be_bytes(cursor.array()?).to_string(),
        701 => f64::from_be_bytes(cursor.array()?).to_string(),
        19 | 25 | 114 | 1042 | 1043 => return std::str::from_utf8(value).ok().map(Cow::Borrowed),
        3802 => {
            let (version, text) = value.split_first()?;
            return if *version == 1 {
                std::str::from_utf8(text).ok().map(Cow::Borrowed)
            } else {
                None
            };
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
    let (date, era) = date
        .strip_suffix(" BC")
        .map_or((date.as_str(), ""), |date| (date, " BC"));
    let seconds = rest / 1_000_000;
    let clock = format!(
        "{:02}:{:02}:{:02}",
        seconds / 3600,
        seconds / 60 % 60,
        seconds % 60
    );
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
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 {
        shifted_month + 3
    } else {
        shifted_month - 9
    };
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
    let mut digits = Vec::with_capacity(usize::from(count));
    for _ in 0..count {
        let digit = cursor.u16()?;
        if digit > 9999 {
            return None;
        }
        digits.push(digit);
    }
    let digit = |power: i32| {
        usize::try_from(weight - power)
            .ok()
            .and_then(|place| digits.get(place))
            .copied()
            .unwrap_or(0)
    };
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
