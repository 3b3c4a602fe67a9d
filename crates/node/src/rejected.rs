//! Rows of `<topic>.rejected`: the reasons and the original of every row that was not accepted.
//!
//! Knows the columns of `topics/system/rejected.toml` by name; does not decide what is rejected.

use std::sync::Arc;

use anyhow::{Result, bail};
use arrow::record_batch::RecordBatch;
use falaj_event::cells::batch_cells;
use falaj_event::value::to_array;
use falaj_event::{EventId, TopicSchema, Value};

/// One reason for a rejection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reason {
    /// A stable word, e.g. `not_between`.
    pub code: String,
    /// The column concerned; empty for the whole row.
    pub column: String,
    /// In words.
    pub text: String,
}

/// A row that is rejected.
#[derive(Clone, Debug)]
pub struct RejectedOriginal {
    /// Id that it would have had.
    pub event_id: EventId,
    /// Why.
    pub reasons: Vec<Reason>,
    /// The person that it is about, where that could be read.
    pub subject: Value,
    /// The row as JSON, or the raw line.
    pub row: String,
}

/// The rows of `originals` for the rejected topic `schema` of a topic at `schema_version`.
///
/// # Errors
/// When the rejected topic is not what this program writes.
pub fn batch(
    schema: &TopicSchema,
    schema_version: u32,
    originals: &[RejectedOriginal],
    wall_clock_us: i64,
) -> Result<RecordBatch> {
    let mut arrays = Vec::with_capacity(schema.columns.len());
    for column in &schema.columns {
        let values = originals
            .iter()
            .map(|original| value(&column.name, original, schema_version, wall_clock_us))
            .collect::<Result<Vec<_>>>()?;
        arrays.push(to_array(&column.column_type, &values)?);
    }
    Ok(RecordBatch::try_new(falaj_log::schemas::row_schema(schema), arrays)?)
}

fn value(column: &str, original: &RejectedOriginal, version: u32, wall_clock_us: i64) -> Result<Value> {
    let list = |part: fn(&Reason) -> &str| {
        let items = original.reasons.iter().map(|reason| Value::String(part(reason).into()));
        Value::List(items.collect())
    };
    let producer = match &original.event_id {
        EventId::Producer { producer, sequence } => Some((producer, *sequence)),
        EventId::Derived(_) => None,
    };
    Ok(match column {
        "event_id" => Value::Binary(original.event_id.to_bytes().as_slice().into()),
        // Overwritten with the epoch's T when the epoch closes.
        "t" => Value::Timestamp(0),
        "producer" => producer.map_or(Value::Null, |(id, _)| Value::Binary(id.0.as_slice().into())),
        "sequence" => producer.map_or(Value::Null, |(_, sequence)| Value::UInt(sequence)),
        "codes" => list(|reason| &reason.code),
        "columns" => list(|reason| &reason.column),
        "reasons" => list(|reason| &reason.text),
        "subject" => original.subject.clone(),
        "row" => Value::String(original.row.as_str().into()),
        "schema_version" => Value::UInt(version.into()),
        "wall_clock" => Value::Timestamp(wall_clock_us),
        other => bail!("rejected topics have a column `{other}` that this program does not write"),
    })
}

/// The subject and the JSON of a row of a topic's batch.
///
/// # Errors
/// When the batch holds a type that no topic has.
pub fn describe(schema: &TopicSchema, batch: &RecordBatch, row: usize) -> Result<(Value, String)> {
    let one = batch.slice(row, 1);
    let subject = match schema.subject {
        Some(index) => batch_cells(&one)?[index].value(0),
        None => Value::Null,
    };
    let json = crate::json::batch_json(&one)?.pop().unwrap_or_default();
    Ok((subject, json.to_string()))
}

/// As [`batch`], for the parts of a submission.
///
/// # Errors
/// As [`batch`].
pub fn rejections(
    schema: &Arc<TopicSchema>,
    schema_version: u32,
    rows: Vec<u32>,
    originals: &[RejectedOriginal],
    wall_clock_us: i64,
) -> Result<falaj_log::Rejections> {
    let reasons = originals
        .iter()
        .map(|original| original.reasons.iter().map(|reason| reason.text.clone()).collect())
        .collect();
    Ok(falaj_log::Rejections {
        schema: Arc::clone(schema),
        batch: batch(schema, schema_version, originals, wall_clock_us)?,
        rows,
        reasons,
    })
}
