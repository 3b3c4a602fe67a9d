//! One written value (JSON or CSV) as a value of a column's type, or the reason why it is none.
//!
//! Does not know rows, nullability or expectations.

use falaj_event::{ColumnType, Value};

use super::scan;
use crate::reasons::ReasonCode;
use crate::text::{parse_binary, parse_date, parse_decimal, parse_timestamp};

/// Why a value is none of its column.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Misfit {
    pub code: ReasonCode,
    /// A clause that follows the column's name and value.
    pub why: String,
}

fn wrong(column_type: &ColumnType, expected: &str) -> Misfit {
    let why = format!("does not fit {column_type}: expected {expected}");
    Misfit { code: ReasonCode::WrongType, why }
}

fn misspelt(column_type: &ColumnType, why: &str) -> Misfit {
    Misfit { code: ReasonCode::WrongType, why: format!("does not fit {column_type}: {why}") }
}

fn range(column_type: &ColumnType, why: impl std::fmt::Display) -> Misfit {
    let why = format!("does not fit {column_type}: {why}");
    Misfit { code: ReasonCode::OutOfRange, why }
}

/// What was written, as messages show it.
pub(super) fn shown(raw: &str) -> String {
    let cut: String = raw.chars().take(64).collect();
    if cut.len() < raw.len() { format!("{cut}…") } else { cut }
}

/// The value of a JSON text, which must be valid JSON.
pub(super) fn from_json(raw: &str, column_type: &ColumnType) -> Result<Value, Misfit> {
    match (raw.as_bytes().first(), column_type) {
        (Some(b'n'), _) => Ok(Value::Null),
        (Some(b'"'), _) => match serde_json::from_str::<String>(raw) {
            Ok(text) => from_string(&text, column_type),
            Err(_) => Err(wrong(column_type, expected(column_type))),
        },
        (Some(b't' | b'f'), ColumnType::Bool) => Ok(Value::Bool(raw == "true")),
        (Some(b'['), ColumnType::List(item)) => from_array(raw, item, column_type),
        (Some(b'-' | b'0'..=b'9'), _) => from_number(raw, column_type),
        _ => Err(wrong(column_type, expected(column_type))),
    }
}

/// The value of a CSV field; an empty one is NULL, of a string column that has no NULL the empty
/// string.
pub(super) fn from_csv(
    text: &str,
    column_type: &ColumnType,
    nullable: bool,
) -> Result<Value, Misfit> {
    let trimmed = text.trim();
    match column_type {
        ColumnType::String if text.is_empty() && !nullable => Ok(Value::String("".into())),
        _ if text.is_empty() => Ok(Value::Null),
        ColumnType::String => Ok(Value::String(text.into())),
        ColumnType::Bool => match trimmed.to_ascii_lowercase().as_str() {
            "true" => Ok(Value::Bool(true)),
            "false" => Ok(Value::Bool(false)),
            _ => Err(wrong(column_type, "true or false")),
        },
        ColumnType::List(item) => from_array(text, item, column_type),
        ColumnType::Timestamp if is_whole(trimmed) => from_number(trimmed, column_type),
        _ => from_string(trimmed, column_type),
    }
}

fn is_whole(text: &str) -> bool {
    let digits = text.strip_prefix('-').unwrap_or(text);
    !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())
}

fn from_array(raw: &str, item: &ColumnType, column_type: &ColumnType) -> Result<Value, Misfit> {
    let items = scan::array(raw).map_err(|_| wrong(column_type, "a JSON array"))?;
    let values: Result<Vec<Value>, Misfit> = items
        .iter()
        .enumerate()
        .map(|(index, raw)| {
            from_json(raw, item).map_err(|misfit| Misfit {
                why: format!("is not a {column_type}: item {index} {}", misfit.why),
                ..misfit
            })
        })
        .collect();
    Ok(Value::List(values?.into()))
}

/// What a column's type is written as.
fn expected(column_type: &ColumnType) -> &'static str {
    match column_type {
        ColumnType::Bool => "true or false",
        ColumnType::Int8
        | ColumnType::Int16
        | ColumnType::Int32
        | ColumnType::Int64
        | ColumnType::UInt8
        | ColumnType::UInt16
        | ColumnType::UInt32
        | ColumnType::UInt64 => "a whole number",
        ColumnType::Float32 | ColumnType::Float64 => "a number",
        ColumnType::Decimal { .. } => "a decimal number, as a number or a string",
        ColumnType::String => "a string",
        ColumnType::Binary => "base64, or 0x and hexadecimal digits, in a string",
        ColumnType::Date => "a date such as \"2026-01-31\"",
        ColumnType::Timestamp => {
            "an instant such as \"2026-01-31T08:15:00Z\", or whole microseconds since 1970 UTC"
        }
        ColumnType::List(_) => "a list",
    }
}

fn from_string(text: &str, column_type: &ColumnType) -> Result<Value, Misfit> {
    match (column_type, text) {
        (ColumnType::String, _) => Ok(Value::String(text.into())),
        (ColumnType::Binary, _) => parse_binary(text)
            .map(|bytes| Value::Binary(bytes.into()))
            .map_err(|why| misspelt(column_type, why)),
        (ColumnType::Date, _) => parse_date(text)
            .map(Value::Date)
            .ok_or_else(|| wrong(column_type, expected(column_type))),
        (ColumnType::Timestamp, _) => {
            parse_timestamp(text).map(Value::Timestamp).map_err(|why| misspelt(column_type, why))
        }
        (ColumnType::Float32, "NaN") => Ok(Value::Float32(f32::NAN)),
        (ColumnType::Float32, "Infinity") => Ok(Value::Float32(f32::INFINITY)),
        (ColumnType::Float32, "-Infinity") => Ok(Value::Float32(f32::NEG_INFINITY)),
        (ColumnType::Float64, "NaN") => Ok(Value::Float64(f64::NAN)),
        (ColumnType::Float64, "Infinity") => Ok(Value::Float64(f64::INFINITY)),
        (ColumnType::Float64, "-Infinity") => Ok(Value::Float64(f64::NEG_INFINITY)),
        (ColumnType::Bool | ColumnType::List(_), _) => {
            Err(wrong(column_type, expected(column_type)))
        }
        _ => from_number(text, column_type),
    }
}

fn from_number(text: &str, column_type: &ColumnType) -> Result<Value, Misfit> {
    match column_type {
        ColumnType::Int8 => signed(text, column_type, i8::MIN.into(), i8::MAX.into()),
        ColumnType::Int16 => signed(text, column_type, i16::MIN.into(), i16::MAX.into()),
        ColumnType::Int32 => signed(text, column_type, i32::MIN.into(), i32::MAX.into()),
        ColumnType::Int64 => signed(text, column_type, i64::MIN, i64::MAX),
        ColumnType::UInt8 => unsigned(text, column_type, u8::MAX.into()),
        ColumnType::UInt16 => unsigned(text, column_type, u16::MAX.into()),
        ColumnType::UInt32 => unsigned(text, column_type, u32::MAX.into()),
        ColumnType::UInt64 => unsigned(text, column_type, u64::MAX),
        ColumnType::Float32 => match text.parse::<f32>() {
            Ok(value) if is_number(text) && value.is_finite() => Ok(Value::Float32(value)),
            Ok(_) if is_number(text) => Err(range(column_type, "it is too large")),
            _ => Err(wrong(column_type, "a number")),
        },
        ColumnType::Float64 => match text.parse::<f64>() {
            Ok(value) if is_number(text) && value.is_finite() => Ok(Value::Float64(value)),
            Ok(_) if is_number(text) => Err(range(column_type, "it is too large")),
            _ => Err(wrong(column_type, "a number")),
        },
        ColumnType::Decimal { precision, scale } => parse_decimal(text, *precision, *scale)
            .map(|value| Value::Decimal(value, *scale))
            .map_err(|why| match is_number(text) {
                true => range(column_type, why),
                false => wrong(column_type, expected(column_type)),
            }),
        ColumnType::Timestamp => match text.parse() {
            Ok(micros) => Ok(Value::Timestamp(micros)),
            Err(_) => Err(wrong(column_type, expected(column_type))),
        },
        _ => Err(wrong(column_type, expected(column_type))),
    }
}

/// Whether text is a number in JSON's sense, a leading plus or zeros aside: Rust also reads `inf`.
fn is_number(text: &str) -> bool {
    text.bytes().any(|byte| byte.is_ascii_digit())
        && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'+' | b'-' | b'.' | b'e' | b'E'))
}

/// A whole number, however it is written (`5`, `5.0`, `5e0`).
fn whole(text: &str, column_type: &ColumnType) -> Result<i128, Misfit> {
    if let Ok(number) = text.parse() {
        return Ok(number);
    }
    if !is_number(text) {
        return Err(wrong(column_type, "a whole number"));
    }
    parse_decimal(text, 38, 0).map_err(|why| range(column_type, why))
}

fn signed(
    text: &str,
    column_type: &ColumnType,
    least: i64,
    greatest: i64,
) -> Result<Value, Misfit> {
    match i64::try_from(whole(text, column_type)?) {
        Ok(number) if (least..=greatest).contains(&number) => Ok(Value::Int(number)),
        _ => Err(range(column_type, format!("it is not between {least} and {greatest}"))),
    }
}

fn unsigned(text: &str, column_type: &ColumnType, greatest: u64) -> Result<Value, Misfit> {
    match u64::try_from(whole(text, column_type)?) {
        Ok(number) if number <= greatest => Ok(Value::UInt(number)),
        _ => Err(range(column_type, format!("it is not between 0 and {greatest}"))),
    }
}
