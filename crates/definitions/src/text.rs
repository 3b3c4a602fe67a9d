//! Values as people write them: durations, instants, dates, exact decimals and bytes.
//!
//! Why it exists: definition files, NDJSON, CSV and error messages must agree on one spelling, and
//! no number may pass through binary floating point on the way to a decimal. Does not know columns
//! or files.

use std::fmt::Write as _;

use falaj_event::Value;

const SECOND_US: i64 = 1_000_000;
const DAY_US: i64 = 86_400 * SECOND_US;

/// Microseconds of a duration such as `5 min`, `1 hour 30 minutes` or `250 ms`.
///
/// # Errors
/// What is wrong with it, as a clause.
pub fn parse_duration(text: &str) -> Result<u64, String> {
    let mut rest = text.trim();
    if rest.is_empty() {
        return Err("a duration is a number and a unit, e.g. `30 days`".into());
    }
    let mut total = 0u64;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let (number, tail) = rest.split_at(digits);
        let number: u64 = number.parse().map_err(|_| {
            format!("`{rest}` does not begin with a whole number: write e.g. `30 days`")
        })?;
        let tail = tail.trim_start();
        let letters = tail.find(|c: char| !c.is_alphabetic()).unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(letters);
        total = number
            .checked_mul(unit_us(unit)?)
            .and_then(|part| total.checked_add(part))
            .filter(|total| i64::try_from(*total).is_ok())
            .ok_or_else(|| format!("`{text}` is longer than 292,000 years: write `forever`"))?;
        rest = tail.trim_start();
    }
    Ok(total)
}

fn unit_us(unit: &str) -> Result<u64, String> {
    Ok(match unit.to_ascii_lowercase().as_str() {
        "us" | "µs" | "microsecond" | "microseconds" => 1,
        "ms" | "millisecond" | "milliseconds" => 1_000,
        "s" | "sec" | "second" | "seconds" => 1_000_000,
        "m" | "min" | "minute" | "minutes" => 60_000_000,
        "h" | "hour" | "hours" => 3_600_000_000,
        "d" | "day" | "days" => 86_400_000_000,
        "w" | "week" | "weeks" => 604_800_000_000,
        "month" | "months" | "y" | "year" | "years" => {
            return Err(format!(
                "`{unit}` has no fixed length: write days, e.g. 7 years are `2557 days`"
            ));
        }
        "" => return Err("the number has no unit: write e.g. `30 days`".into()),
        _ => {
            return Err(format!(
                "`{unit}` is no unit of time: use us, ms, s, min, hours, days or weeks"
            ));
        }
    })
}

/// A duration in the largest units that express it exactly, e.g. `1 hour 30 minutes`.
pub fn format_duration(us: u64) -> String {
    const UNITS: [(u64, &str); 6] = [
        (86_400_000_000, "day"),
        (3_600_000_000, "hour"),
        (60_000_000, "minute"),
        (1_000_000, "second"),
        (1_000, "ms"),
        (1, "us"),
    ];
    let mut left = us;
    let mut parts = Vec::new();
    for (unit_us, unit) in UNITS {
        let count = left / unit_us;
        left %= unit_us;
        if count > 0 {
            let plural = if count > 1 && unit_us >= 1_000_000 { "s" } else { "" };
            parts.push(format!("{count} {unit}{plural}"));
        }
    }
    match parts.is_empty() {
        true => "0 seconds".into(),
        false => parts.join(" "),
    }
}

/// Days since 1970-01-01 of a date of the proleptic Gregorian calendar.
pub(crate) fn days_from_date(year: i64, month: i64, day: i64) -> Option<i64> {
    if !(1..=12).contains(&month) || day < 1 || day > days_in_month(year, month) {
        return None;
    }
    // Years begin in March, so that the day that comes and goes is the last one.
    let year = if month > 2 { year } else { year - 1 };
    let days_before_month = (153 * ((month + 9) % 12) + 2) / 5;
    let leap_days = year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    Some(365 * year + leap_days + days_before_month + day - 1 - 719_468)
}

fn days_in_month(year: i64, month: i64) -> i64 {
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    match month {
        2 if leap => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Year, month and day of a number of days since 1970-01-01.
pub(crate) fn date_from_days(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    (era * 400 + year_of_era + i64::from(month <= 2), month, day)
}

/// Takes exactly `count` digits off the front.
fn digits(text: &str, count: usize) -> Option<(i64, &str)> {
    let head = text.get(..count)?;
    if !head.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    Some((head.parse().ok()?, text.get(count..)?))
}

/// Days since 1970-01-01 of `YYYY-MM-DD`; `None` for anything else.
pub fn parse_date(text: &str) -> Option<i32> {
    let (days, rest) = date_prefix(text)?;
    if !rest.is_empty() {
        return None;
    }
    i32::try_from(days).ok()
}

fn date_prefix(text: &str) -> Option<(i64, &str)> {
    let (year, rest) = digits(text, 4)?;
    let (month, rest) = digits(rest.strip_prefix('-')?, 2)?;
    let (day, rest) = digits(rest.strip_prefix('-')?, 2)?;
    Some((days_from_date(year, month, day)?, rest))
}

/// Microseconds since 1970 UTC of an RFC 3339 instant (`2026-01-31T08:15:00.25Z`,
/// `2026-01-31 12:15:00+04:00`). At most six digits of a second's fraction, or further zeros: more
/// would be lost.
///
/// # Errors
/// What is wrong with it, as a clause.
pub fn parse_timestamp(text: &str) -> Result<i64, &'static str> {
    const SHAPE: &str = "it is not an RFC 3339 instant such as 2026-01-31T08:15:00Z";
    let (days, rest) = date_prefix(text).ok_or(SHAPE)?;
    let rest = rest.strip_prefix(['T', 't', ' ']).ok_or(SHAPE)?;
    let (hour, rest) = digits(rest, 2).ok_or(SHAPE)?;
    let (minute, rest) = rest.strip_prefix(':').and_then(|rest| digits(rest, 2)).ok_or(SHAPE)?;
    let (second, rest) = rest.strip_prefix(':').and_then(|rest| digits(rest, 2)).ok_or(SHAPE)?;
    if hour > 23 || minute > 59 || second > 59 {
        return Err("its time of day does not exist");
    }
    let (micros, rest) = match rest.strip_prefix('.') {
        Some(rest) => {
            fraction_us(rest).ok_or("its fraction of a second is finer than microseconds")?
        }
        None => (0, rest),
    };
    let offset =
        offset_seconds(rest).ok_or("it has no offset from UTC: end it with Z or +04:00")?;
    Ok(days * DAY_US + (hour * 3_600 + minute * 60 + second - offset) * SECOND_US + micros)
}

fn fraction_us(text: &str) -> Option<(i64, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (fraction, rest) = text.split_at(end);
    let (kept, beyond) = fraction.split_at(fraction.len().min(6));
    if kept.is_empty() || beyond.bytes().any(|digit| digit != b'0') {
        return None;
    }
    Some((format!("{kept:0<6}").parse().ok()?, rest))
}

fn offset_seconds(text: &str) -> Option<i64> {
    if matches!(text, "Z" | "z") {
        return Some(0);
    }
    let sign = match text.get(..1)? {
        "+" => 1,
        "-" => -1,
        _ => return None,
    };
    let (hours, rest) = digits(text.get(1..)?, 2)?;
    let (minutes, rest) = digits(rest.strip_prefix(':')?, 2)?;
    (rest.is_empty() && hours < 24 && minutes < 60).then_some(sign * (hours * 3_600 + minutes * 60))
}

/// `YYYY-MM-DD` of days since 1970-01-01.
pub fn format_date(days: i32) -> String {
    let (year, month, day) = date_from_days(days.into());
    format!("{year:04}-{month:02}-{day:02}")
}

/// An RFC 3339 instant in UTC, with as many digits of a fraction as it has.
pub fn format_timestamp(us: i64) -> String {
    let (year, month, day) = date_from_days(us.div_euclid(DAY_US));
    let of_day = us.rem_euclid(DAY_US);
    let (seconds, micros) = (of_day / SECOND_US, of_day % SECOND_US);
    let (hour, minute, second) = (seconds / 3_600, seconds / 60 % 60, seconds % 60);
    let mut text = format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}");
    if micros > 0 {
        let fraction = format!("{micros:06}");
        let _ = write!(text, ".{}", fraction.trim_end_matches('0'));
    }
    text.push('Z');
    text
}

/// The unscaled integer of an exact decimal (`-12.50`, `1.25e3`) with `scale` digits after the point
/// and at most `precision` digits in all. Further zeros after the point are allowed; any other digit
/// there is refused, never rounded.
///
/// # Errors
/// What is wrong with it, as a clause.
pub fn parse_decimal(text: &str, precision: u8, scale: u8) -> Result<i128, String> {
    let shape = || "it is not a decimal number such as 12.50".to_owned();
    let (negative, unsigned) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, exponent.parse::<i32>().map_err(|_| shape())?),
        None => (unsigned, 0),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let all_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if (whole.is_empty() && fraction.is_empty()) || !all_digits(whole) || !all_digits(fraction) {
        return Err(shape());
    }
    let digits = format!("{whole}{fraction}");
    let significant = digits.trim_start_matches('0').trim_end_matches('0');
    if significant.is_empty() {
        return Ok(0);
    }
    let trailing = digits.len() - digits.trim_end_matches('0').len();
    // Position of the last significant digit relative to the unscaled integer's last digit.
    let shift =
        i64::from(exponent) - count(fraction) + count(&digits[..trailing]) + i64::from(scale);
    if shift < 0 {
        return Err(format!("it has more than {scale} digits after the point"));
    }
    if count(significant) + shift > i64::from(precision) {
        let whole = precision.saturating_sub(scale);
        return Err(format!("it has more than {whole} digits before the point"));
    }
    let zeros = usize::try_from(shift).unwrap_or(0);
    let magnitude: i128 =
        format!("{significant}{}", "0".repeat(zeros)).parse().map_err(|_| shape())?;
    Ok(if negative { -magnitude } else { magnitude })
}

fn count(text: &str) -> i64 {
    i64::try_from(text.len()).unwrap_or(i64::MAX)
}

/// A decimal with all its digits after the point.
pub fn format_decimal(unscaled: i128, scale: u8) -> String {
    let sign = if unscaled < 0 { "-" } else { "" };
    let digits = unscaled.unsigned_abs().to_string();
    let scale = usize::from(scale);
    if scale == 0 {
        return format!("{sign}{digits}");
    }
    let digits = format!("{digits:0>width$}", width = scale + 1);
    let (whole, fraction) = digits.split_at(digits.len() - scale);
    format!("{sign}{whole}.{fraction}")
}

/// Bytes from `0x…` or `hex:…` hexadecimal, or from base64 (standard or URL alphabet, padding
/// optional).
///
/// # Errors
/// What is wrong with it, as a clause.
pub fn parse_binary(text: &str) -> Result<Vec<u8>, &'static str> {
    if let Some(hex) = text.strip_prefix("0x").or_else(|| text.strip_prefix("hex:")) {
        return parse_hex(hex).ok_or("what follows 0x is not an even number of hexadecimal digits");
    }
    parse_base64(text).ok_or("it is neither base64 nor 0x and hexadecimal digits")
}

fn parse_hex(text: &str) -> Option<Vec<u8>> {
    let digits: Vec<u8> = text
        .chars()
        .map(|c| c.to_digit(16).and_then(|d| u8::try_from(d).ok()))
        .collect::<Option<_>>()?;
    let (pairs, rest) = digits.as_chunks::<2>();
    rest.is_empty().then(|| pairs.iter().map(|[high, low]| high << 4 | low).collect())
}

fn parse_base64(text: &str) -> Option<Vec<u8>> {
    let unpadded = text.trim_end_matches('=');
    let padding = text.len() - unpadded.len();
    if padding > 2 || (padding > 0 && !text.len().is_multiple_of(4)) || unpadded.len() % 4 == 1 {
        return None;
    }
    let mut out = Vec::with_capacity(unpadded.len() * 3 / 4);
    let (mut bits, mut held) = (0u32, 0u32);
    for byte in unpadded.bytes() {
        let sextet = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' | b'-' => 62,
            b'/' | b'_' => 63,
            _ => return None,
        };
        bits = (bits << 6 | u32::from(sextet)) & 0xFFFF;
        held += 6;
        if held >= 8 {
            held -= 8;
            out.push(u8::try_from(bits >> held & 0xFF).ok()?);
        }
    }
    // Bits that no byte takes must be zero, or two texts would mean the same bytes.
    (bits & ((1 << held) - 1) == 0).then_some(out)
}

/// Base64 with the standard alphabet and padding.
pub fn format_base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let byte = |at: usize| u32::from(chunk.get(at).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for at in 0..4u32 {
            let index = (bits >> (18 - 6 * at) & 63) as usize;
            let used = at as usize <= chunk.len();
            out.push(if used { char::from(ALPHABET[index]) } else { '=' });
        }
    }
    out
}

/// A value as messages show it: short, and unambiguous about text.
pub fn show(value: &Value) -> String {
    match value {
        Value::Null => "NULL".into(),
        Value::Error => "an error".into(),
        Value::Bool(v) => v.to_string(),
        Value::Int(v) => v.to_string(),
        Value::UInt(v) => v.to_string(),
        Value::Float32(v) => v.to_string(),
        Value::Float64(v) => v.to_string(),
        Value::Decimal(v, scale) => format_decimal(*v, *scale),
        Value::String(v) => quote(v),
        Value::Binary(v) => format!("{} bytes", v.len()),
        Value::Date(v) => format_date(*v),
        Value::Timestamp(v) => format_timestamp(*v),
        Value::List(items) => {
            let shown: Vec<String> = items.iter().take(4).map(show).collect();
            let more = if items.len() > 4 { ", …" } else { "" };
            format!("[{}{more}]", shown.join(", "))
        }
    }
}

/// Text in quotes, escaped, cut to 64 characters.
pub fn quote(text: &str) -> String {
    let mut cut: String = text.chars().take(64).collect();
    if cut.len() < text.len() {
        cut.push('…');
    }
    format!("{cut:?}")
}

#[cfg(test)]
mod tests;
