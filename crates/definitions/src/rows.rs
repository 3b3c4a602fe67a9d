//! Rows from outside (JSON objects, NDJSON lines, CSV records) as typed batches of a topic, each bad
//! row refused with every reason and none of its neighbours with it.
//!
//! How values are written:
//!
//! | type | JSON | CSV |
//! | --- | --- | --- |
//! | bool | `true`, `false` | `true`, `false` |
//! | int, uint | whole number (`5`, `5.0`) or a string that holds one | the same |
//! | float | number, or `"NaN"`, `"Infinity"`, `"-Infinity"` | the same |
//! | decimal | number or string; exact, never through a float | the same |
//! | string | string | text; empty is NULL where the column has it |
//! | binary | string: base64, or `0x` and hexadecimal digits | the same |
//! | date | `"2026-01-31"` | the same |
//! | timestamp | RFC 3339 string, or whole microseconds since 1970 UTC | the same |
//! | list | array | a JSON array |
//!
//! `null`, an empty CSV field and a field that is not there are NULL. The field `__op` (`insert`,
//! `upsert`, `delete`) says what the row does; without it rows are inserted into event topics and
//! upserted into tables.
//!
//! Does not know where rows come from, nor what happens to refused ones.

mod cells;
mod header;
mod json;
mod scan;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use arrow::datatypes::{Field, Schema, SchemaRef};
use arrow::error::ArrowError;
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use falaj_event::value::to_array;
use falaj_event::{Op, TopicKind, TopicSchema, Value};

use crate::diagnostics::nearest;
use crate::door::{Checked, DoorError, Misread, part};
use crate::expectations::Checks;
use crate::reasons::{Reason, ReasonCode};
use crate::text::quote;
use crate::topics::TopicDefinition;
use cells::{Misfit, from_csv, from_json, shown};
use header::Place;
pub use header::{CsvHeader, HeaderError};
pub use json::{row_json, value_json};

/// The field or column that says what a row does.
pub const OP_FIELD: &str = "__op";

/// What a row of this kind of topic does when it does not say.
pub fn default_op(kind: TopicKind) -> Op {
    match kind {
        TopicKind::Event => Op::Insert,
        TopicKind::Table => Op::Upsert,
    }
}

/// The operation of a written name.
pub(crate) fn op_named(text: &str) -> Option<Op> {
    match text {
        "insert" => Some(Op::Insert),
        "upsert" => Some(Op::Upsert),
        "delete" => Some(Op::Delete),
        _ => None,
    }
}

/// The topic's columns in declared types, all nullable: what bad rows and deletes need.
pub(crate) fn loose_schema(schema: &TopicSchema) -> SchemaRef {
    let fields = schema.columns.iter();
    let fields = fields.map(|column| Field::new(&column.name, column.column_type.to_arrow(), true));
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}

/// What is said of a field that the topic does not have.
pub(crate) fn unknown(schema: &TopicSchema, name: &str) -> String {
    let shown = shown(name);
    match nearest(name, schema.columns.iter().map(|column| column.name.as_str())) {
        Some(meant) => format!("there is no column `{shown}`; did you mean `{meant}`?"),
        None => format!("there is no column `{shown}`"),
    }
}

/// Collects rows of one topic.
#[derive(Debug)]
pub struct RowParser {
    checks: Checks,
    columns: Vec<Vec<Value>>,
    ops: Vec<Op>,
    originals: Vec<String>,
    misread: Misread,
}

impl RowParser {
    /// A parser without rows.
    pub fn new(topic: Arc<TopicDefinition>) -> Self {
        let columns = vec![Vec::new(); topic.schema.columns.len()];
        Self {
            checks: Checks::new(topic),
            columns,
            ops: Vec::new(),
            originals: Vec::new(),
            misread: Misread::default(),
        }
    }

    /// The topic.
    pub fn topic(&self) -> &Arc<TopicDefinition> {
        self.checks.topic()
    }

    /// Number of rows collected, bad ones included.
    pub fn len(&self) -> usize {
        self.ops.len()
    }

    /// Whether no row was collected.
    pub fn is_empty(&self) -> bool {
        self.ops.is_empty()
    }

    /// Adds one JSON object, e.g. a line of NDJSON.
    pub fn push_json(&mut self, text: &str) {
        let row = self.begin(text.trim().to_owned());
        let fields = match scan::object(text) {
            Ok(fields) => fields,
            Err(why) => {
                let text = format!("the row cannot be read: {why}");
                return self.misread.add(row, Reason::row(ReasonCode::Malformed, text));
            }
        };
        let topic = Arc::clone(self.topic());
        let mut seen = Vec::with_capacity(fields.len());
        for (name, raw) in &fields {
            if seen.contains(&name) {
                let text = format!("field `{}` stands there twice", shown(name));
                self.misread.add(row, Reason::row(ReasonCode::UnknownField, text));
                continue;
            }
            seen.push(name);
            match topic.schema.column_index(name) {
                Some(index) => {
                    let read = from_json(raw, &topic.schema.columns[index].column_type);
                    self.set(row, index, read, || shown(raw));
                }
                None if name == OP_FIELD => {
                    let op =
                        serde_json::from_str::<String>(raw).unwrap_or_else(|_| (*raw).to_owned());
                    self.set_op(row, &op);
                }
                None => {
                    let text = unknown(&topic.schema, name);
                    self.misread.add(row, Reason::row(ReasonCode::UnknownField, text));
                }
            }
        }
    }

    /// Adds one JSON value. Its numbers were read before: as floats, unless they were integers.
    pub fn push_value(&mut self, value: &serde_json::Value) {
        self.push_json(&value.to_string());
    }

    /// Adds one CSV record.
    pub fn push_record<'a>(
        &mut self,
        header: &CsvHeader,
        fields: impl IntoIterator<Item = &'a str>,
    ) {
        let fields: Vec<&str> = fields.into_iter().collect();
        let row = self.begin(header.original(&fields));
        if fields.len() != header.places().len() {
            let (found, wanted) = (fields.len(), header.places().len());
            let text = format!("the record has {found} fields, but the header has {wanted}");
            return self.misread.add(row, Reason::row(ReasonCode::Malformed, text));
        }
        let topic = Arc::clone(self.topic());
        for (place, text) in header.places().iter().zip(fields) {
            match place {
                Place::Column(index) => {
                    let column = &topic.schema.columns[*index];
                    let read = from_csv(text, &column.column_type, column.nullable);
                    self.set(row, *index, read, || quote(text));
                }
                Place::Op if text.is_empty() => {}
                Place::Op => self.set_op(row, text),
            }
        }
    }

    /// Everything collected, parted into good and bad rows; the parser is empty afterwards.
    ///
    /// # Errors
    /// When Arrow refuses to build the batch (more than 2 GiB of text in one column).
    pub fn finish(&mut self) -> Result<Checked, DoorError> {
        let schema = Arc::clone(&self.topic().schema);
        let mut arrays = Vec::with_capacity(self.columns.len());
        for (column, values) in schema.columns.iter().zip(&mut self.columns) {
            let array = to_array(&column.column_type, values);
            values.clear();
            arrays.push(array.map_err(|mismatch| {
                ArrowError::InvalidArgumentError(format!("{}: {mismatch}", column.name))
            })?);
        }
        let ops = std::mem::take(&mut self.ops);
        let originals = std::mem::take(&mut self.originals);
        let misread = std::mem::take(&mut self.misread);
        let options = RecordBatchOptions::new().with_row_count(Some(ops.len()));
        let batch = RecordBatch::try_new_with_options(loose_schema(&schema), arrays, &options)?;
        let original = |row: usize| originals.get(row).cloned().unwrap_or_default();
        part(&self.checks, batch, ops, misread, original)
    }

    /// Begins a row of NULLs.
    fn begin(&mut self, original: String) -> usize {
        let row = self.ops.len();
        self.columns.iter_mut().for_each(|column| column.push(Value::Null));
        self.ops.push(default_op(self.topic().schema.kind));
        self.originals.push(original);
        row
    }

    fn set(
        &mut self,
        row: usize,
        index: usize,
        read: Result<Value, Misfit>,
        shown: impl Fn() -> String,
    ) {
        match read {
            Ok(value) => {
                if let Some(cell) =
                    self.columns.get_mut(index).and_then(|column| column.get_mut(row))
                {
                    *cell = value;
                }
            }
            Err(misfit) => {
                let column = &self.checks.topic().schema.columns[index];
                let name = &column.name;
                let text = match column.pii {
                    true => format!("{name} {}", misfit.why),
                    false => format!("{name} = {} {}", shown(), misfit.why),
                };
                self.misread.add(row, Reason::of(misfit.code, name, text));
            }
        }
    }

    fn set_op(&mut self, row: usize, text: &str) {
        match op_named(text) {
            Some(op) => self.ops[row] = op,
            None => {
                let text = format!("{OP_FIELD} = {} is not insert, upsert or delete", quote(text));
                self.misread.add(row, Reason::row(ReasonCode::WrongOperation, text));
            }
        }
    }
}
