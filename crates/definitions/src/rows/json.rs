//! Rows as JSON text that the row parser reads back to the same values.
//!
//! Does not know topics.

use std::fmt::Write as _;

use arrow::array::Array;
use arrow::record_batch::RecordBatch;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use falaj_event::Value;
use falaj_event::cells::Cells;

use crate::text::{format_base64, format_date, format_decimal, format_timestamp};

/// RFC 3339 has four digits for a year: 0000-01-01T00:00:00Z to 9999-12-31T23:59:59.999999Z.
const RFC_3339_US: std::ops::RangeInclusive<i64> =
    -62_167_219_200_000_000..=253_402_300_799_999_999;
const RFC_3339_DAYS: std::ops::RangeInclusive<i32> = -719_528..=2_932_896;

/// One row of a batch of any types as a JSON object. NULLs are left out; decimals and bytes are
/// strings (base64), instants RFC 3339 where they have four digits for the year and microseconds
/// otherwise. Values of types that no topic has are given as Arrow prints them. `row` must be within
/// the batch.
pub fn row_json(batch: &RecordBatch, row: usize) -> String {
    let mut out = String::from("{");
    for (field, array) in batch.schema_ref().fields().iter().zip(batch.columns()) {
        if array.is_null(row) {
            continue;
        }
        if out.len() > 1 {
            out.push(',');
        }
        push_string(field.name(), &mut out);
        out.push(':');
        match Cells::new(array.as_ref()) {
            Ok(cells) => push_value(&cells.value(row), &mut out),
            Err(_) => push_foreign(array.as_ref(), row, &mut out),
        }
    }
    out.push('}');
    out
}

/// A value as JSON text.
pub fn value_json(value: &Value) -> String {
    let mut out = String::new();
    push_value(value, &mut out);
    out
}

fn push_foreign(array: &dyn Array, row: usize, out: &mut String) {
    let shown = ArrayFormatter::try_new(array, &FormatOptions::default())
        .and_then(|formatter| formatter.value(row).try_to_string());
    let shown = shown.unwrap_or_else(|error| error.to_string());
    match array.data_type().is_integer() {
        true => out.push_str(&shown),
        false => push_string(&shown, out),
    }
}

fn push_string(text: &str, out: &mut String) {
    // Writing a string as JSON cannot fail.
    out.push_str(&serde_json::to_string(text).unwrap_or_default());
}

fn push_value(value: &Value, out: &mut String) {
    // Writing to a string cannot fail.
    let _ = match value {
        Value::Null | Value::Error => write!(out, "null"),
        Value::Bool(v) => write!(out, "{v}"),
        Value::Int(v) => write!(out, "{v}"),
        Value::UInt(v) => write!(out, "{v}"),
        Value::Float32(v) if v.is_finite() => write!(out, "{v}"),
        Value::Float64(v) if v.is_finite() => write!(out, "{v}"),
        Value::Float32(v) => write!(out, "\"{}\"", infinite((*v).into())),
        Value::Float64(v) => write!(out, "\"{}\"", infinite(*v)),
        Value::Decimal(v, scale) => write!(out, "\"{}\"", format_decimal(*v, *scale)),
        Value::String(v) => {
            push_string(v, out);
            Ok(())
        }
        Value::Binary(v) => write!(out, "\"{}\"", format_base64(v)),
        Value::Date(v) if RFC_3339_DAYS.contains(v) => write!(out, "\"{}\"", format_date(*v)),
        Value::Date(v) => write!(out, "\"{v} days since 1970\""),
        Value::Timestamp(v) if RFC_3339_US.contains(v) => {
            write!(out, "\"{}\"", format_timestamp(*v))
        }
        Value::Timestamp(v) => write!(out, "{v}"),
        Value::List(items) => {
            out.push('[');
            for (at, item) in items.iter().enumerate() {
                if at > 0 {
                    out.push(',');
                }
                push_value(item, out);
            }
            write!(out, "]")
        }
    };
}

fn infinite(value: f64) -> &'static str {
    match (value.is_nan(), value > 0.0) {
        (true, _) => "NaN",
        (_, true) => "Infinity",
        _ => "-Infinity",
    }
}
