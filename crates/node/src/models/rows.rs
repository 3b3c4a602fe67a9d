//! Rows of the platform's own events: columns by name in, submissions out, and back.
//!
//! Knows schemas and ids; what a row means is the caller's.

use std::sync::Arc;

use anyhow::{Context, Result, bail};
use arrow::record_batch::RecordBatch;
use falaj_event::cells::{Cells, batch_cells};
use falaj_event::value::to_array;
use falaj_event::{EventId, Hash256, LogTime, Op, TopicSchema, Value};
use falaj_log::{Ops, Origin, Submission};

/// One row, by column name; columns that are left out are NULL.
pub type Row<'a> = Vec<(&'a str, Value)>;

/// Text as a value.
pub fn text(text: impl AsRef<str>) -> Value {
    Value::String(text.as_ref().into())
}

/// A moment as a value.
pub fn moment(t: LogTime) -> Value {
    Value::Timestamp(t.as_event_time())
}

/// The rows as a batch of `schema`.
///
/// # Errors
/// When a name is no column of it, or a value is not of its column's type.
pub fn batch(schema: &TopicSchema, rows: Vec<Row<'_>>) -> Result<RecordBatch> {
    let mut columns: Vec<Vec<Value>> = vec![vec![Value::Null; rows.len()]; schema.columns.len()];
    for (number, row) in rows.into_iter().enumerate() {
        for (name, value) in row {
            let Some(index) = schema.column_index(name) else {
                bail!("topic {} has no column `{name}`", schema.name);
            };
            columns[index][number] = value;
        }
    }
    of_columns(schema, &columns)
}

/// A batch of `schema` from the values of every column, in its order.
///
/// # Errors
/// When a value is not of its column's type.
pub fn of_columns(schema: &TopicSchema, columns: &[Vec<Value>]) -> Result<RecordBatch> {
    let arrays = schema
        .columns
        .iter()
        .zip(columns)
        .map(|(column, values)| {
            to_array(&column.column_type, values)
                .with_context(|| format!("topic {}, column `{}`", schema.name, column.name))
        })
        .collect::<Result<Vec<_>>>()?;
    Ok(RecordBatch::try_new(falaj_log::schemas::row_schema(schema), arrays)?)
}

/// A submission of derived events whose ids follow from `definition`, `cause` and `keys` (one per
/// row). Nobody is told of its outcome until [`Submission::reply`] is set.
///
/// # Errors
/// As [`batch`].
pub fn derived(
    schema: &Arc<TopicSchema>,
    definition: &Hash256,
    cause: LogTime,
    keys: &[Vec<u8>],
    rows: Vec<Row<'_>>,
) -> Result<Submission> {
    let mut ids = Vec::with_capacity(rows.len());
    for (ordinal, key) in keys.iter().enumerate() {
        match EventId::derived(definition, cause, key, u32::try_from(ordinal)?) {
            EventId::Derived(hash) => ids.push(hash),
            EventId::Producer { .. } => bail!("a derived event has a derived id"),
        }
    }
    Ok(Submission {
        batch: batch(schema, rows)?,
        schema: Arc::clone(schema),
        origin: Origin::Derived(ids),
        ops: Ops::All(Op::Insert),
        positions: None,
        rejected: None,
        reply: Box::new(|_| {}),
    })
}

/// Reads rows of a topic by column name.
pub struct RowReader<'a> {
    schema: &'a TopicSchema,
    cells: Vec<Cells<'a>>,
    rows: usize,
}

impl<'a> RowReader<'a> {
    /// Over a batch of `schema`'s columns in order.
    ///
    /// # Errors
    /// When a column's type is none of a topic's.
    pub fn new(schema: &'a TopicSchema, batch: &'a RecordBatch) -> Result<Self> {
        Ok(Self { schema, cells: batch_cells(batch)?, rows: batch.num_rows() })
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// A value.
    ///
    /// # Errors
    /// When there is no such column.
    pub fn value(&self, row: usize, column: &str) -> Result<Value> {
        let index = self
            .schema
            .column_index(column)
            .with_context(|| format!("topic {} has no column `{column}`", self.schema.name))?;
        Ok(self.cells[index].value(row))
    }

    /// A text.
    ///
    /// # Errors
    /// When there is no such column, or it holds none here.
    pub fn text(&self, row: usize, column: &str) -> Result<Arc<str>> {
        match self.value(row, column)? {
            Value::String(text) => Ok(text),
            other => bail!("topic {}, `{column}`: {other:?} is no text", self.schema.name),
        }
    }

    /// An unsigned number; `None` for NULL.
    ///
    /// # Errors
    /// When there is no such column, or it holds something else.
    pub fn number(&self, row: usize, column: &str) -> Result<Option<u64>> {
        match self.value(row, column)? {
            Value::UInt(number) => Ok(Some(number)),
            Value::Null => Ok(None),
            other => bail!("topic {}, `{column}`: {other:?} is no number", self.schema.name),
        }
    }

    /// A moment as log time.
    ///
    /// # Errors
    /// When there is no such column, or it holds none here.
    pub fn moment(&self, row: usize, column: &str) -> Result<LogTime> {
        match self.value(row, column)? {
            Value::Timestamp(at) => Ok(LogTime(u64::try_from(at)?)),
            other => bail!("topic {}, `{column}`: {other:?} is no moment", self.schema.name),
        }
    }
}
