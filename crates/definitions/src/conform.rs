//! Arrow batches from any producer as batches of a topic: columns by name, values as
//! [`falaj_event::convert`] takes them, each row whose value does not fit refused on its own.
//!
//! Does not know where batches come from, nor how values are converted.

#[cfg(test)]
mod tests;

use arrow::array::{Array, ArrayRef, AsArray, new_null_array};
use arrow::datatypes::DataType;
use arrow::error::ArrowError;
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use falaj_event::convert::{convert, convertible};
use falaj_event::{Op, TopicKind, TopicSchema};

use crate::door::{Checked, DoorError, Misread, part};
use crate::expectations::{Checks, is_in_deletes};
use crate::reasons::{Reason, ReasonCode};
use crate::rows::{OP_FIELD, default_op, loose_schema, op_named, row_json, unknown};

/// A batch that is not one of the topic at all.
#[derive(Debug, thiserror::Error)]
pub enum ConformError {
    /// Columns that are unknown, missing, repeated or of a type that cannot be converted.
    #[error("the batch does not fit topic `{topic}`: {}", .problems.join("; "))]
    Columns {
        /// The topic.
        topic: String,
        /// Everything that is wrong.
        problems: Vec<String>,
    },
    /// The batch could not be checked or built.
    #[error(transparent)]
    Door(#[from] DoorError),
}

impl From<ArrowError> for ConformError {
    fn from(error: ArrowError) -> Self {
        Self::Door(error.into())
    }
}

/// Maps `batch` to the topic of `checks`, checks every row and parts good from bad ones. A column
/// `__op` (strings `insert`, `upsert`, `delete`) says what each row does.
///
/// # Errors
/// When columns are unknown, missing or incompatible: all of them are named.
pub fn conform(checks: &Checks, batch: &RecordBatch) -> Result<Checked, ConformError> {
    let schema = &checks.topic().schema;
    let mut misread = Misread::default();
    let ops = operations(schema, batch, &mut misread)?;
    let sources = sources(schema, batch, &ops)?;
    let mut columns = Vec::with_capacity(sources.len());
    for (column, source) in schema.columns.iter().zip(sources) {
        let Some(source) = source else {
            columns.push(new_null_array(&column.column_type.to_arrow(), batch.num_rows()));
            continue;
        };
        let converted = convert(source, &column.column_type.to_arrow()).map_err(|error| {
            let problems = vec![format!("column `{}`: {error}", column.name)];
            ConformError::Columns { topic: schema.name.clone(), problems }
        })?;
        for row in converted.misfits {
            let shown = match column.pii {
                true => String::new(),
                false => format!(" = {}", printed(source, row)),
            };
            let text = format!(
                "{}{shown} does not fit {}: no cast from {} keeps it as it is",
                column.name,
                column.column_type,
                source.data_type()
            );
            misread.add(row, Reason::of(ReasonCode::OutOfRange, &column.name, text));
        }
        columns.push(converted.array);
    }
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    let typed = RecordBatch::try_new_with_options(loose_schema(schema), columns, &options)?;
    Ok(part(checks, typed, ops, misread, |row| row_json(batch, row))?)
}

fn printed(array: &ArrayRef, row: usize) -> String {
    let options = arrow::util::display::FormatOptions::default();
    let text = arrow::util::display::ArrayFormatter::try_new(array.as_ref(), &options)
        .and_then(|formatter| formatter.value(row).try_to_string())
        .unwrap_or_default();
    text.chars().take(64).collect()
}

/// What each row does.
fn operations(
    schema: &TopicSchema,
    batch: &RecordBatch,
    misread: &mut Misread,
) -> Result<Vec<Op>, ConformError> {
    let default = default_op(schema.kind);
    let Some(column) = batch.column_by_name(OP_FIELD) else {
        return Ok(vec![default; batch.num_rows()]);
    };
    if !convertible(column.data_type(), &DataType::Utf8) {
        let problem = format!("column `{OP_FIELD}` is {}, not a string", column.data_type());
        return Err(ConformError::Columns { topic: schema.name.clone(), problems: vec![problem] });
    }
    let names = convert(column, &DataType::Utf8).map_err(|error| {
        let problems = vec![format!("column `{OP_FIELD}`: {error}")];
        ConformError::Columns { topic: schema.name.clone(), problems }
    })?;
    let names = names.array.as_string::<i32>();
    let mut ops = Vec::with_capacity(batch.num_rows());
    for row in 0..batch.num_rows() {
        let op = match names.is_null(row) {
            true => Some(default),
            false => op_named(names.value(row)),
        };
        if op.is_none() {
            let text = format!(
                "{OP_FIELD} = {} is not insert, upsert or delete",
                crate::text::quote(names.value(row))
            );
            misread.add(row, Reason::row(ReasonCode::WrongOperation, text));
        }
        ops.push(op.unwrap_or(default));
    }
    Ok(ops)
}

/// The batch's column for each of the topic's; `None` where it is NULL throughout.
fn sources<'a>(
    schema: &TopicSchema,
    batch: &'a RecordBatch,
    ops: &[Op],
) -> Result<Vec<Option<&'a ArrayRef>>, ConformError> {
    let mut problems = Vec::new();
    let mut sources: Vec<Option<&ArrayRef>> = vec![None; schema.columns.len()];
    for (field, array) in batch.schema_ref().fields().iter().zip(batch.columns()) {
        let Some(index) = schema.column_index(field.name()) else {
            if field.name() != OP_FIELD {
                problems.push(unknown(schema, field.name()));
            }
            continue;
        };
        let column = &schema.columns[index];
        if !convertible(array.data_type(), &column.column_type.to_arrow()) {
            let (name, expected) = (&column.name, &column.column_type);
            problems
                .push(format!("column `{name}` is {}, which is no {expected}", array.data_type()));
        } else if sources[index].is_some() {
            problems.push(format!("column `{}` stands there twice", column.name));
        }
        sources[index] = Some(array);
    }
    let only_deletes = schema.kind == TopicKind::Table && ops.iter().all(|op| *op == Op::Delete);
    for (index, column) in schema.columns.iter().enumerate() {
        let may_lack = column.nullable || (only_deletes && !is_in_deletes(schema, index));
        if sources[index].is_none() && !may_lack {
            problems.push(format!("column `{}` ({}) is missing", column.name, column.column_type));
        }
    }
    match problems.is_empty() {
        true => Ok(sources),
        false => Err(ConformError::Columns { topic: schema.name.clone(), problems }),
    }
}
