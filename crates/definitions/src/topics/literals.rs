//! Literals in a topic's file as values of a column's type.
//!
//! Does not know expectations.

use falaj_event::{ColumnType, Value};
use toml::de::DeValue;

use crate::text::{parse_date, parse_decimal, parse_timestamp};

/// The value that `literal` spells for a column of `column_type`.
///
/// # Errors
/// What would be right, as a clause.
pub(super) fn literal(literal: &DeValue<'_>, column_type: &ColumnType) -> Result<Value, String> {
    let text = written(literal);
    match column_type {
        ColumnType::Bool => match literal {
            DeValue::Boolean(flag) => Some(Value::Bool(*flag)),
            _ => None,
        }
        .ok_or_else(|| "it must be true or false".into()),
        ColumnType::Int8 => integer(literal, i8::MIN.into(), i8::MAX.into()),
        ColumnType::Int16 => integer(literal, i16::MIN.into(), i16::MAX.into()),
        ColumnType::Int32 => integer(literal, i32::MIN.into(), i32::MAX.into()),
        ColumnType::Int64 => integer(literal, i64::MIN, i64::MAX),
        ColumnType::UInt8 => unsigned(literal, u8::MAX.into()),
        ColumnType::UInt16 => unsigned(literal, u16::MAX.into()),
        ColumnType::UInt32 => unsigned(literal, u32::MAX.into()),
        ColumnType::UInt64 => unsigned(literal, u64::MAX),
        ColumnType::Float32 => float(literal).map(|value| Value::Float32(value as f32)),
        ColumnType::Float64 => float(literal).map(Value::Float64),
        ColumnType::Decimal { precision, scale } => match (literal, text) {
            (DeValue::Integer(_) | DeValue::Float(_) | DeValue::String(_), Some(text)) => {
                parse_decimal(&text, *precision, *scale).map(|value| Value::Decimal(value, *scale))
            }
            _ => Err("it must be a decimal number such as 12.50".into()),
        },
        ColumnType::String => match literal {
            DeValue::String(text) => Ok(Value::String(text.as_ref().into())),
            _ => Err("it must be a string".into()),
        },
        ColumnType::Date => text
            .and_then(|text| parse_date(&text))
            .map(Value::Date)
            .ok_or_else(|| "it must be a date such as 2026-01-31".into()),
        ColumnType::Timestamp => {
            parse_timestamp(&text.unwrap_or_default()).map(Value::Timestamp).map_err(str::to_owned)
        }
        ColumnType::Binary | ColumnType::List(_) => {
            Err(format!("a {column_type} cannot be written here"))
        }
    }
}

/// The literal as the file spells it (strings without quotes, numbers in decimal).
fn written(literal: &DeValue<'_>) -> Option<String> {
    Some(match literal {
        DeValue::String(text) => text.to_string(),
        DeValue::Integer(number) => whole(number)?.to_string(),
        DeValue::Float(number) => number.as_str().to_owned(),
        DeValue::Datetime(time) => time.to_string(),
        DeValue::Boolean(_) | DeValue::Array(_) | DeValue::Table(_) => return None,
    })
}

fn whole(number: &toml::de::DeInteger<'_>) -> Option<i128> {
    i128::from_str_radix(number.as_str(), number.radix()).ok()
}

fn integer(literal: &DeValue<'_>, least: i64, greatest: i64) -> Result<Value, String> {
    let wrong = || format!("it must be a whole number between {least} and {greatest}");
    let DeValue::Integer(number) = literal else {
        return Err(wrong());
    };
    let number = whole(number).and_then(|number| i64::try_from(number).ok()).ok_or_else(wrong)?;
    if !(least..=greatest).contains(&number) {
        return Err(wrong());
    }
    Ok(Value::Int(number))
}

fn unsigned(literal: &DeValue<'_>, greatest: u64) -> Result<Value, String> {
    let wrong = || format!("it must be a whole number between 0 and {greatest}");
    let DeValue::Integer(number) = literal else {
        return Err(wrong());
    };
    let number = whole(number).and_then(|number| u64::try_from(number).ok()).ok_or_else(wrong)?;
    if number > greatest {
        return Err(wrong());
    }
    Ok(Value::UInt(number))
}

fn float(literal: &DeValue<'_>) -> Result<f64, String> {
    let text = match literal {
        DeValue::Integer(number) => whole(number).map(|number| number.to_string()),
        DeValue::Float(number) => Some(number.as_str().to_owned()),
        _ => None,
    };
    match text.and_then(|text| text.parse::<f64>().ok()) {
        Some(number) if !number.is_nan() => Ok(number),
        _ => Err("it must be a number".into()),
    }
}
