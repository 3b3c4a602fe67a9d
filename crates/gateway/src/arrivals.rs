//! Batches as producers send them to batches as the topic declares them.
//!
//! Why it exists: columns come in any order, of related types, some of them missing, with or without
//! an operation per row; and a row that does not fit must not take its neighbours with it. It does
//! not know expectations, sequences or the log.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, RecordBatchOptions, new_null_array};
use arrow::datatypes::{DataType, Schema, SchemaRef};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use falaj_event::convert::{convert, convertible};
use falaj_event::{Op, TopicKind};
use serde_json::{Map, Value as Json};

use crate::backend::{BackendError, Misfit, TopicInfo};

/// The optional column that gives one operation per row.
pub const OP_COLUMN: &str = "__op";

/// A batch that is ready for the backend.
#[derive(Clone, Debug)]
pub struct Arrival {
    /// Declared columns, declared order, declared types, all nullable.
    pub batch: RecordBatch,
    /// One operation per row, where the batch gave them.
    pub ops: Option<Vec<Op>>,
    /// Rows that do not fit, ascending.
    pub misfits: Vec<Misfit>,
}

/// How batches of one schema become batches of one topic; made once per stream.
#[derive(Debug)]
pub struct Arrivals {
    declared: SchemaRef,
    /// Per declared column its column in the incoming batch, if it has one.
    sources: Vec<Option<usize>>,
    ops: Option<usize>,
    kind: TopicKind,
}

impl Arrivals {
    /// Checks what can be checked before any row is there.
    ///
    /// # Errors
    /// Names every column that is unknown, missing or of an impossible type.
    pub fn new(topic: &TopicInfo, incoming: &Schema) -> Result<Self, BackendError> {
        let name = &topic.schema.name;
        let mut ops = None;
        let mut sources = vec![None; topic.arrow.fields().len()];
        for (index, field) in incoming.fields().iter().enumerate() {
            if field.name() == OP_COLUMN {
                ops = Some(index);
                continue;
            }
            let Some((declared, column)) = topic.arrow.column_with_name(field.name()) else {
                let columns = topic.arrow.fields().iter().map(|column| column.name().as_str());
                return Err(BackendError::unknown("column", field.name(), columns));
            };
            if !convertible(field.data_type(), column.data_type()) {
                return Err(BackendError::invalid(format!(
                    "column `{}` of topic `{name}` is {}, but the stream sends {}; convert it \
                     before you send it",
                    field.name(),
                    topic.schema.columns[declared].column_type,
                    field.data_type(),
                )));
            }
            if sources[declared].replace(index).is_some() {
                return Err(BackendError::invalid(format!(
                    "the stream has two columns called `{}`",
                    field.name()
                )));
            }
        }
        let needed = topic.schema.key.iter().copied().chain([topic.schema.event_time]);
        for column in needed {
            if sources.get(column).is_some_and(Option::is_none) {
                return Err(BackendError::invalid(format!(
                    "the stream has no column `{}`, which topic `{name}` needs as key or event time",
                    topic.schema.columns[column].name
                )));
            }
        }
        let fields = topic.arrow.fields().iter();
        let fields = fields.map(|field| Arc::new(field.as_ref().clone().with_nullable(true)));
        let declared = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
        Ok(Self { declared, sources, ops, kind: topic.schema.kind })
    }

    /// Converts one batch.
    ///
    /// # Errors
    /// Only when the batch as a whole cannot be read; rows that do not fit are
    /// [`Arrival::misfits`].
    pub fn take(&self, incoming: &RecordBatch) -> Result<Arrival, BackendError> {
        let rows = incoming.num_rows();
        let mut reasons: BTreeMap<usize, Vec<String>> = BTreeMap::new();
        let mut columns: Vec<ArrayRef> = Vec::with_capacity(self.sources.len());
        for (field, source) in self.declared.fields().iter().zip(&self.sources) {
            let Some(source) = source else {
                columns.push(new_null_array(field.data_type(), rows));
                continue;
            };
            let sent = incoming.column(*source);
            let converted = convert(sent, field.data_type()).map_err(|error| {
                BackendError::invalid(format!("column `{}`: {error}", field.name()))
            })?;
            for row in converted.misfits {
                reasons.entry(row).or_default().push(format!(
                    "`{}` = {} does not fit {}",
                    field.name(),
                    text(sent, row),
                    field.data_type()
                ));
            }
            columns.push(converted.array);
        }
        let ops = match self.ops {
            Some(column) => Some(self.operations(incoming.column(column), &mut reasons)?),
            None => None,
        };
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        let batch =
            RecordBatch::try_new_with_options(Arc::clone(&self.declared), columns, &options)
                .map_err(|error| BackendError::invalid(error.to_string()))?;
        let misfits = reasons
            .into_iter()
            .map(|(row, reasons)| Misfit { row, reasons, original: row_json(incoming, row) })
            .collect();
        Ok(Arrival { batch, ops, misfits })
    }

    fn operations(
        &self,
        column: &ArrayRef,
        reasons: &mut BTreeMap<usize, Vec<String>>,
    ) -> Result<Vec<Op>, BackendError> {
        let column = convert(column, &DataType::Utf8)
            .map_err(|error| BackendError::invalid(format!("column `{OP_COLUMN}`: {error}")))?
            .array;
        let default = match self.kind {
            TopicKind::Event => Op::Insert,
            TopicKind::Table => Op::Upsert,
        };
        let names = column.as_string::<i32>().iter().enumerate();
        Ok(names
            .map(|(row, name)| match name {
                None => default,
                Some("insert") => Op::Insert,
                Some("upsert") => Op::Upsert,
                Some("delete") => Op::Delete,
                Some(other) => {
                    reasons.entry(row).or_default().push(format!(
                        "`{OP_COLUMN}` = {other:?} is no operation; use insert, upsert or delete"
                    ));
                    default
                }
            })
            .collect())
    }
}

fn text(column: &ArrayRef, row: usize) -> String {
    ArrayFormatter::try_new(column.as_ref(), &FormatOptions::default())
        .and_then(|formatter| formatter.value(row).try_to_string())
        .unwrap_or_else(|_| "a value that cannot be shown".to_owned())
}

/// A row as a JSON object: numbers as numbers, everything else that is not NULL or boolean as text.
fn row_json(batch: &RecordBatch, row: usize) -> String {
    let schema = batch.schema();
    let cells = schema.fields().iter().zip(batch.columns()).map(|(field, column)| {
        let logically_null = column.logical_nulls().is_some_and(|nulls| nulls.is_null(row));
        let value = match column.data_type() {
            _ if logically_null => Json::Null,
            DataType::Boolean => Json::Bool(column.as_boolean().value(row)),
            data_type if data_type.is_numeric() => {
                let text = text(column, row);
                serde_json::from_str(&text).unwrap_or(Json::String(text))
            }
            _ => Json::String(text(column, row)),
        };
        (field.name().clone(), value)
    });
    Json::Object(cells.collect::<Map<_, _>>()).to_string()
}

#[cfg(test)]
mod tests;
