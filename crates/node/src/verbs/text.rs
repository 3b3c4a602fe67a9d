//! Words to values and back on the command line: times, keys, counts, tables.
//!
//! Pure; knows no verb.

pub use crate::json::{batch_json, time, value_json};
use anyhow::{Context, bail};
use arrow::array::{Array, ArrayRef, StringArray};
use arrow::compute::cast;
use arrow::compute::kernels::cast_utils::Parser;
use arrow::datatypes::{DataType, Field, Schema, TimestampMicrosecondType};
use arrow::record_batch::RecordBatch;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use comfy_table::{CellAlignment, ContentArrangement, Table, presets};
use falaj_event::LogTime;
use indicatif::{ProgressBar, ProgressStyle};
use std::sync::Arc;

/// Reads a `T`: microseconds since 1970 UTC, or RFC 3339.
///
/// # Errors
/// When it is neither, or before 1970.
pub fn log_time(text: &str) -> anyhow::Result<LogTime> {
    if let Ok(micros) = text.parse::<u64>() {
        return Ok(LogTime(micros));
    }
    let micros = TimestampMicrosecondType::parse(text).with_context(|| {
        format!("`{text}` is no T: give microseconds since 1970 UTC, or a time like 2026-01-31T08:00:00Z")
    })?;
    Ok(LogTime(u64::try_from(micros).with_context(|| format!("`{text}` is before 1970"))?))
}

/// The keys given as `column=value,column=value`, as a batch of exactly `key` columns.
///
/// # Errors
/// Names the key whose columns are not the view's key, or whose value is not of the column's type.
pub fn keys(texts: &[String], key: &[Arc<Field>]) -> anyhow::Result<RecordBatch> {
    let names = || key.iter().map(|f| f.name().as_str()).collect::<Vec<_>>().join("`, `");
    let mut columns: Vec<Vec<String>> = vec![Vec::new(); key.len()];
    for text in texts {
        let mut given = Vec::new();
        for part in text.split(',') {
            let (name, value) = part
                .split_once('=')
                .with_context(|| format!("--key {text}: `{part}` is not `column=value`"))?;
            given.push((name.trim(), value.trim()));
        }
        if given.len() != key.len() {
            bail!("--key {text}: the key has the columns `{}`", names());
        }
        for (field, column) in key.iter().zip(&mut columns) {
            let value = given.iter().find(|(name, _)| name == field.name());
            let (_, value) = value.with_context(|| {
                format!(
                    "--key {text}: column `{}` is missing (the key has the columns `{}`)",
                    field.name(),
                    names()
                )
            })?;
            column.push((*value).to_owned());
        }
    }
    let arrays = key
        .iter()
        .zip(columns)
        .map(|(field, column)| typed(field, column))
        .collect::<anyhow::Result<Vec<ArrayRef>>>()?;
    let fields: Vec<_> = key.iter().map(|f| f.as_ref().clone().with_nullable(true)).collect();
    Ok(RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays)?)
}

fn typed(field: &Field, values: Vec<String>) -> anyhow::Result<ArrayRef> {
    let text: ArrayRef = Arc::new(StringArray::from(values.clone()));
    let typed = cast(&text, field.data_type())?;
    if let Some(row) = (0..typed.len()).find(|row| typed.is_null(*row)) {
        bail!(
            "--key: `{}` is not a {} (column `{}`)",
            values[row],
            field.data_type(),
            field.name()
        );
    }
    Ok(typed)
}

/// A number with thin separators: 1234567 → `1,234,567`.
pub fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// Microseconds in the unit that people would choose: `870 µs`, `12.3 ms`, `4.1 s`.
pub fn duration(micros: u64) -> String {
    match micros {
        0..1_000 => format!("{micros} µs"),
        1_000..1_000_000 => format!("{:.1} ms", micros as f64 / 1e3),
        _ => format!("{:.1} s", micros as f64 / 1e6),
    }
}

/// A spinner with a message, on standard error.
pub fn spinner(message: &str) -> ProgressBar {
    let bar = ProgressBar::new_spinner().with_message(message.to_owned());
    bar.enable_steady_tick(std::time::Duration::from_millis(120));
    bar
}

/// A progress bar over `all` of something, on standard error.
pub fn bar(all: u64, what: &str) -> ProgressBar {
    let style = ProgressStyle::with_template(
        "{msg:22} {bar:32.cyan} {human_pos:>10}/{human_len} {per_sec:>14} {eta:>4} left",
    );
    let bar = ProgressBar::new(all).with_message(what.to_owned());
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar
}

/// A table with these headers.
pub fn table<const N: usize>(headers: [&str; N]) -> Table {
    let mut table = Table::new();
    table
        .load_preset(presets::UTF8_FULL_CONDENSED)
        .set_content_arrangement(ContentArrangement::Dynamic)
        .set_header(headers);
    table
}

/// A batch as a table, numbers to the right.
///
/// # Errors
/// When a column cannot be printed.
pub fn batch_table(batch: &RecordBatch) -> anyhow::Result<Table> {
    let mut table = table([]);
    let schema = batch.schema();
    table.set_header(schema.fields().iter().map(|field| field.name().as_str()));
    let options = FormatOptions::new().with_null("NULL");
    let formatters = batch
        .columns()
        .iter()
        .map(|column| ArrayFormatter::try_new(column.as_ref(), &options))
        .collect::<Result<Vec<_>, _>>()?;
    for row in 0..batch.num_rows() {
        table.add_row(formatters.iter().map(|formatter| formatter.value(row).to_string()));
    }
    for (index, field) in schema.fields().iter().enumerate() {
        let numeric =
            field.data_type().is_numeric() && !matches!(field.data_type(), DataType::Null);
        if let Some(column) = table.column_mut(index).filter(|_| numeric) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    Ok(table)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_and_written() {
        assert_eq!(log_time("12").unwrap(), LogTime(12));
        assert_eq!(log_time("1970-01-01T00:00:01Z").unwrap(), LogTime(1_000_000));
        assert!(log_time("1969-12-31T00:00:00Z").is_err());
        assert!(log_time("yesterday").unwrap_err().to_string().contains("yesterday"));
        assert_eq!(time(1_000_000), "1970-01-01T00:00:01Z");
    }

    #[test]
    fn keys_are_typed_by_the_view() {
        let fields = [
            Arc::new(Field::new("customer", DataType::Utf8, false)),
            Arc::new(Field::new("n", DataType::Int32, false)),
        ];
        let batch = keys(&["n=4,customer=C1".into(), "customer=C2,n=-1".into()], &fields).unwrap();
        assert_eq!(batch.num_rows(), 2);
        assert_eq!(batch.schema().field(1).data_type(), &DataType::Int32);
        for (text, part) in [
            ("n=4", "the key has"),
            ("n=x,customer=a", "`x` is not"),
            ("n,customer=a", "`n` is not"),
            ("m=1,customer=a", "`n` is missing"),
        ] {
            let error = keys(&[text.into()], &fields).unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
        }
    }

    #[test]
    fn numbers_read_well() {
        assert_eq!(count(0), "0");
        assert_eq!(count(1_234_567), "1,234,567");
        assert_eq!(duration(870), "870 µs");
        assert_eq!(duration(12_340), "12.3 ms");
    }
}
