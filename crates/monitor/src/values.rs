//! Typed values as what is counted: numbers or names.
//!
//! Does not know columns.

use std::borrow::Cow;

use falaj_event::Value;

/// A value as a number: integers, floats and decimals as float64, bools as 0 and 1; `None` for NULL
/// and for what is no number.
pub fn number_of(value: &Value) -> Option<f64> {
    match value {
        Value::Bool(flag) => Some(f64::from(u8::from(*flag))),
        Value::Int(number) => Some(*number as f64),
        Value::UInt(number) => Some(*number as f64),
        Value::Float32(number) => Some(f64::from(*number)),
        Value::Float64(number) => Some(*number),
        Value::Decimal(unscaled, scale) => {
            // The division rounds once, as the decimal's nearest float64 does.
            Some(*unscaled as f64 / 10_f64.powi(i32::from(*scale)))
        }
        _ => None,
    }
}

/// A value as a name: text as it is, bools as `true` and `false`, numbers in decimal; `None` for
/// NULL and for what has no name.
pub fn name_of(value: &Value) -> Option<Cow<'_, str>> {
    match value {
        Value::String(text) => Some(Cow::Borrowed(text)),
        Value::Bool(true) => Some(Cow::Borrowed("true")),
        Value::Bool(false) => Some(Cow::Borrowed("false")),
        Value::Int(number) => Some(Cow::Owned(number.to_string())),
        Value::UInt(number) => Some(Cow::Owned(number.to_string())),
        Value::Float32(number) => Some(Cow::Owned(number.to_string())),
        Value::Float64(number) => Some(Cow::Owned(number.to_string())),
        Value::Date(days) => Some(Cow::Owned(days.to_string())),
        Value::Timestamp(micros) => Some(Cow::Owned(micros.to_string())),
        Value::Decimal(..) => number_of(value).map(|number| Cow::Owned(number.to_string())),
        Value::Null | Value::Error | Value::Binary(_) | Value::List(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_numbers_or_names() {
        assert_eq!(number_of(&Value::Decimal(1_250, 2)), Some(12.5));
        assert_eq!(number_of(&Value::Bool(true)), Some(1.0));
        assert_eq!(number_of(&Value::String("7".into())), None);
        assert_eq!(name_of(&Value::Int(-3)).as_deref(), Some("-3"));
        assert_eq!(name_of(&Value::Bool(false)).as_deref(), Some("false"));
        assert_eq!(name_of(&Value::Null), None);
    }
}
