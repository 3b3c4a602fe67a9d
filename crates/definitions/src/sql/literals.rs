//! Literals: numbers as exact decimals, timestamps in UTC, intervals in their parts.
//!
//! Does not know names.

use arrow::datatypes::{DataType, IntervalMonthDayNano};
use datafusion::common::ScalarValue;
use datafusion::logical_expr::Expr;
use datafusion::sql::sqlparser::ast::{self, Value};
use datafusion::sql::sqlparser::tokenizer::Span;

use super::header::Parts;
use super::refusal::{Checked, Refusal, mistyped, unsupported};
use super::scalar::Typed;
use super::types::Family;

/// A number: int64, or an exact decimal, or a float when it has an exponent.
pub(crate) fn number(digits: &str, span: Span) -> Checked<Typed> {
    let value = if digits.contains(['e', 'E']) {
        digits.parse().ok().map(|value| ScalarValue::Float64(Some(value)))
    } else if let Ok(value) = digits.parse::<i64>() {
        Some(ScalarValue::Int64(Some(value)))
    } else {
        exact(digits)
    };
    let value = value.ok_or_else(|| {
        mistyped(span, format!("{digits} has more than 38 digits"))
            .help("write it with an exponent: 1e40")
    })?;
    Ok(Typed {
        data_type: value.data_type(),
        expr: Expr::Literal(value, None),
        nullable: false,
        span,
        number: Some(digits.to_owned()),
    })
}

fn exact(digits: &str) -> Option<ScalarValue> {
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let unscaled: i128 = format!("{whole}{fraction}").parse().ok()?;
    let scale = i8::try_from(fraction.len()).ok()?;
    let significant = unscaled.unsigned_abs().to_string().len();
    let precision = u8::try_from(significant.max(fraction.len())).ok()?;
    (precision <= 38).then_some(ScalarValue::Decimal128(Some(unscaled), precision, scale))
}

/// `DATE '…'`, `TIMESTAMP '…'` and strings next to such values.
pub(crate) fn typed(text: &str, to: &DataType, span: Span) -> Checked<ScalarValue> {
    ScalarValue::Utf8(Some(text.to_owned())).cast_to(to).map_err(|_| {
        mistyped(span, format!("'{text}' is not a {}", name(to)))
            .help("write DATE '2026-01-31' or TIMESTAMP '2026-01-31 12:00:00' (UTC)")
    })
}

fn name(data_type: &DataType) -> &'static str {
    match data_type {
        DataType::Date32 => "date",
        DataType::Timestamp(..) => "timestamp",
        _ => "value of that type",
    }
}

/// Lets a string literal next to a date or timestamp be one.
pub(crate) fn meet(l: Typed, r: Typed) -> Checked<(Typed, Typed)> {
    match (l.family(), r.family()) {
        (Family::Time, Family::Text) => {
            let to = l.data_type.clone();
            Ok((l, become_time(r, &to)?))
        }
        (Family::Text, Family::Time) => {
            let to = r.data_type.clone();
            Ok((become_time(l, &to)?, r))
        }
        _ => Ok((l, r)),
    }
}

fn become_time(text: Typed, to: &DataType) -> Checked<Typed> {
    let Expr::Literal(ScalarValue::Utf8(Some(value)), _) = &text.expr else { return Ok(text) };
    let value = typed(value, to, text.span)?;
    Ok(Typed { data_type: value.data_type(), expr: Expr::Literal(value, None), ..text })
}

/// The parts of `INTERVAL '1 day 2 hours'`, `INTERVAL '5' MINUTE` or `INTERVAL 5 MINUTE`.
pub(crate) fn interval(interval: &ast::Interval, span: Span) -> Checked<Parts> {
    let wrong = |message: String| {
        Refusal::new("interval", span, message)
            .help("write INTERVAL '5 minutes' or INTERVAL '1' DAY")
    };
    let plain = interval.leading_precision.is_none()
        && interval.last_field.is_none()
        && interval.fractional_seconds_precision.is_none();
    if !plain {
        return Err(wrong("this form of interval is not supported".to_owned()));
    }
    let text = match interval.value.as_ref() {
        ast::Expr::Value(value) => match &value.value {
            Value::SingleQuotedString(text) => text.clone(),
            Value::Number(digits, _) => digits.to_string(),
            _ => return Err(wrong("an interval is a constant".to_owned())),
        },
        _ => return Err(wrong("an interval is a constant".to_owned())),
    };
    match &interval.leading_field {
        None => Parts::read(&text).map_err(wrong),
        Some(unit) => {
            let number = text
                .trim()
                .parse()
                .map_err(|_| wrong(format!("`{text}` is not a whole number")))?;
            Parts::default().plus(number, &unit.to_string()).map_err(wrong)
        }
    }
}

/// An interval for arithmetic with timestamps.
pub(crate) fn interval_scalar(parts: Parts, span: Span) -> Checked<ScalarValue> {
    let number = |value: i64| i32::try_from(value).ok();
    let (Some(months), Some(days), Some(nanos)) =
        (number(parts.months), number(parts.days), parts.micros.checked_mul(1_000))
    else {
        return Err(unsupported(span, "the interval is too long"));
    };
    Ok(ScalarValue::IntervalMonthDayNano(Some(IntervalMonthDayNano::new(months, days, nanos))))
}
