//! Values and rows as JSON documents, for people and for programs.
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

/// The rows of a batch as JSON objects that `falaj produce` reads back to the same values: decimals as
/// strings, times as RFC 3339, bytes as base64.
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
    // What is written there is JSON.
    serde_json::from_str(&falaj_definitions::rows::value_json(value)).unwrap_or_default()
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
        assert_eq!(value_json(&Value::Int(i64::MAX)), json!(i64::MAX));
        assert_eq!(value_json(&Value::Binary([1, 2].as_slice().into())), json!("AQI="));
        assert_eq!(value_json(&Value::Float64(f64::NAN)), json!("NaN"));
        assert_eq!(value_json(&Value::Date(1)), json!("1970-01-02"));
        assert_eq!(value_json(&Value::Timestamp(1_000_000)), json!("1970-01-01T00:00:01Z"));
    }
}
