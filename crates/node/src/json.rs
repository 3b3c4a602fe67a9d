//! Values and rows as JSON, for people and for rejected originals.
//!
//! Pure; knows no verb and no topic.

use anyhow::Result;
use arrow::record_batch::RecordBatch;
use arrow::util::display::{ArrayFormatter, FormatOptions};

/// Writes a time in microseconds as RFC 3339 UTC.
pub fn time(micros: i64) -> String {
    let array = arrow::array::TimestampMicrosecondArray::from(vec![micros]).with_timezone("UTC");
    let options = FormatOptions::new();
    match ArrayFormatter::try_new(&array, &options) {
        Ok(formatter) => formatter.value(0).to_string(),
        Err(_) => micros.to_string(),
    }
}

/// The rows of a batch as JSON objects: numbers as numbers (decimals and integers beyond 2^53 as
/// strings), times as RFC 3339, bytes as hexadecimal.
///
/// # Errors
/// When a column is of a type that no column type maps to.
pub fn batch_json(batch: &RecordBatch) -> Result<Vec<serde_json::Value>> {
    let cells = falaj_event::cells::batch_cells(batch)?;
    let schema = batch.schema();
    Ok((0..batch.num_rows())
        .map(|row| {
            let fields = schema.fields().iter().zip(&cells);
            fields
                .map(|(field, cell)| (field.name().clone(), value_json(&cell.value(row))))
                .collect()
        })
        .map(serde_json::Value::Object)
        .collect())
}

/// A value as JSON, as in [`batch_json`].
pub fn value_json(value: &falaj_event::Value) -> serde_json::Value {
    use falaj_event::Value as V;
    use serde_json::{Value as Json, json};
    const EXACT: u64 = 1 << 53;
    match value {
        V::Null | V::Error => Json::Null,
        V::Bool(v) => json!(v),
        V::Int(v) if v.unsigned_abs() <= EXACT => json!(v),
        V::Int(v) => json!(v.to_string()),
        V::UInt(v) if *v <= EXACT => json!(v),
        V::UInt(v) => json!(v.to_string()),
        V::Float32(v) => finite(f64::from(*v)),
        V::Float64(v) => finite(*v),
        V::Decimal(v, scale) => json!(decimal(*v, *scale)),
        V::String(v) => json!(v.as_ref()),
        V::Binary(v) => json!(falaj_event::ids::hex(v)),
        V::Date(days) => json!(time(i64::from(*days) * 86_400_000_000).split('T').next()),
        V::Timestamp(micros) => json!(time(*micros)),
        V::List(items) => Json::Array(items.iter().map(value_json).collect()),
    }
}

fn finite(value: f64) -> serde_json::Value {
    match value.is_finite() {
        true => serde_json::json!(value),
        false => serde_json::json!(value.to_string()),
    }
}

fn decimal(unscaled: i128, scale: u8) -> String {
    let digits = format!("{:0width$}", unscaled.unsigned_abs(), width = usize::from(scale) + 1);
    let (whole, fraction) = digits.split_at(digits.len() - usize::from(scale));
    let sign = if unscaled < 0 { "-" } else { "" };
    match fraction {
        "" => format!("{sign}{whole}"),
        _ => format!("{sign}{whole}.{fraction}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use falaj_event::Value;
    use serde_json::json;

    #[test]
    fn values_keep_their_meaning() {
        assert_eq!(value_json(&Value::Decimal(-1234, 2)), json!("-12.34"));
        assert_eq!(value_json(&Value::Decimal(5, 2)), json!("0.05"));
        assert_eq!(value_json(&Value::Int(i64::MAX)), json!("9223372036854775807"));
        assert_eq!(value_json(&Value::Float64(f64::NAN)), json!("NaN"));
        assert_eq!(value_json(&Value::Date(1)), json!("1970-01-02"));
        assert_eq!(value_json(&Value::Timestamp(1_000_000)), json!("1970-01-01T00:00:01Z"));
    }
}
