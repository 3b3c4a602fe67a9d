//! Refused rows as rows of `<topic>.rejected`.
//!
//! Does not know when they are appended: `T` is filled in there.

use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use falaj_event::value::{ValueMismatch, to_array};
use falaj_event::{EventId, TopicSchema, Value};

use crate::reasons::{Reason, RejectedRow};
use crate::rows::loose_schema;

/// One refused row with what its source says of it.
#[derive(Clone, Debug)]
pub struct Rejection<'a> {
    /// The id that the event would have had.
    pub event_id: EventId,
    /// The row and the reasons.
    pub row: &'a RejectedRow,
}

/// Refused rows that could not be written down.
#[derive(Debug, thiserror::Error)]
pub enum RejectionError {
    /// A value that its column cannot hold.
    #[error("column `{column}` of `{topic}`: {source}")]
    Value {
        /// The rejected topic.
        topic: String,
        /// Its column.
        column: String,
        /// The cause.
        source: ValueMismatch,
    },
    /// Arrow refused to build the batch.
    #[error("the batch of rejected rows could not be built: {0}")]
    Arrow(#[from] arrow::error::ArrowError),
}

/// The batch of `rejected` (see [`crate::topics::rejected_topic`]) for these rows, in declared types.
/// `t_us` is the event time, as far as it is known; `source_version` the version of the source's
/// schema that the rows were checked against.
///
/// # Errors
/// When a subject is not of the type that the source declares, or Arrow refuses the batch.
pub fn rejected_batch(
    rejected: &TopicSchema,
    source_version: u32,
    t_us: i64,
    wall_clock_us: i64,
    rows: &[Rejection<'_>],
) -> Result<RecordBatch, RejectionError> {
    let mut arrays = Vec::with_capacity(rejected.columns.len());
    for column in &rejected.columns {
        let values: Vec<Value> = rows
            .iter()
            .map(|rejection| match column.name.as_str() {
                "t" => Value::Timestamp(t_us),
                "wall_clock" => Value::Timestamp(wall_clock_us),
                "schema_version" => Value::UInt(source_version.into()),
                name => cell(name, rejection),
            })
            .collect();
        let array = to_array(&column.column_type, &values);
        arrays.push(array.map_err(|source| RejectionError::Value {
            topic: rejected.name.clone(),
            column: column.name.clone(),
            source,
        })?);
    }
    let options = RecordBatchOptions::new().with_row_count(Some(rows.len()));
    Ok(RecordBatch::try_new_with_options(loose_schema(rejected), arrays, &options)?)
}

fn cell(column: &str, rejection: &Rejection<'_>) -> Value {
    let producer = match &rejection.event_id {
        EventId::Producer { producer, sequence } => Some((producer, *sequence)),
        EventId::Derived(_) => None,
    };
    let each = |text: fn(&Reason) -> String| {
        let reasons = rejection.row.reasons.iter();
        Value::List(reasons.map(|reason| Value::String(text(reason).into())).collect())
    };
    match column {
        "event_id" => Value::Binary(rejection.event_id.to_bytes().into()),
        "producer" => producer.map_or(Value::Null, |(id, _)| Value::Binary(id.0.into())),
        "sequence" => producer.map_or(Value::Null, |(_, sequence)| Value::UInt(sequence)),
        "codes" => each(|reason| reason.code.as_str().to_owned()),
        "columns" => each(|reason| reason.column.as_deref().unwrap_or_default().to_owned()),
        "reasons" => each(|reason| reason.text.clone()),
        "subject" => rejection.row.subject.clone(),
        "row" => Value::String(rejection.row.row.as_str().into()),
        _ => Value::Null,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::AsArray;
    use falaj_event::cells::Cells;
    use falaj_event::{ProducerId, TopicKind};

    use super::*;
    use crate::diagnostics::SourceFile;
    use crate::rows::RowParser;
    use crate::topics::{parse_topic, rejected_topic};

    #[test]
    fn rejected_rows_keep_reasons_subject_and_original() {
        let text = "name = \"t\"\nkey = \"k\"\nevent_time = \"at\"\nsubject = \"k\"\nversion = 3\ncolumns = [\n\
            { name = \"k\", type = \"int64\" },\n{ name = \"at\", type = \"timestamp\" },\n\
            { name = \"phone\", type = \"string\", pii = true, matches = '\\+\\d+' },\n]";
        let topic = Arc::new(parse_topic(&SourceFile::new("t.toml", text)).unwrap());
        let rejected = rejected_topic(&topic).unwrap().unwrap();
        let mut parser = RowParser::new(Arc::clone(&topic));
        let original = r#"{"k":7,"at":"soon","phone":"secret-number"}"#;
        parser.push_json(original);
        parser.push_json("{broken");
        let checked = parser.finish().unwrap();
        let ids = [
            EventId::Producer { producer: ProducerId([9; 16]), sequence: 41 },
            EventId::Derived(Default::default()),
        ];
        let rows: Vec<Rejection<'_>> = ids
            .iter()
            .zip(&checked.rejected)
            .map(|(event_id, row)| Rejection { event_id: *event_id, row })
            .collect();
        let batch = rejected_batch(&rejected.schema, 3, 5, 6, &rows).unwrap();
        assert_eq!(rejected.schema.kind, TopicKind::Event);
        let value = |name: &str, row: usize| {
            Cells::new(batch.column_by_name(name).unwrap().as_ref()).unwrap().value(row)
        };
        assert_eq!(value("event_id", 0), Value::Binary(ids[0].to_bytes().into()));
        assert_eq!(value("producer", 0), Value::Binary([9; 16].into()));
        assert_eq!((value("sequence", 0), value("sequence", 1)), (Value::UInt(41), Value::Null));
        assert_eq!((value("subject", 0), value("subject", 1)), (Value::Int(7), Value::Null));
        assert_eq!(value("row", 0), Value::String(original.into()));
        assert_eq!(value("row", 1), Value::String("{broken".into()));
        assert_eq!(
            (value("t", 0), value("wall_clock", 0)),
            (Value::Timestamp(5), Value::Timestamp(6))
        );
        assert_eq!(value("schema_version", 0), Value::UInt(3));
        let codes = ["wrong_type", "not_matching"].map(|code| Value::String(code.into()));
        assert_eq!(value("codes", 0), Value::List(codes.into()));
        assert_eq!(value("columns", 1), Value::List([Value::String("".into())].into()));
        let reasons = batch.column_by_name("reasons").unwrap().as_list::<i32>().value(0);
        let told: Vec<_> = reasons.as_string::<i32>().iter().flatten().map(str::to_owned).collect();
        assert_eq!(told.len(), 2);
        assert!(told.iter().all(|text| !text.contains("secret")), "{told:?}");
    }
}
