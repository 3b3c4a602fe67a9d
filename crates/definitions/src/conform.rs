//! Arrow batches from any producer as batches of a topic: columns by name, safe casts only, each row
//! whose value does not fit refused on its own.
//!
//! A cast is safe when it can be undone: a value that would change is refused with its row, never
//! rounded, cut or wrapped. The one exception is float64 into a float32 column, which rounds, as
//! declared. Accepted, beside a column's own type:
//!
//! | column | also takes |
//! | --- | --- |
//! | int, uint | every other integer type; floats that hold whole numbers (what pandas makes of gaps) |
//! | float | the other float; integers that it holds exactly |
//! | decimal | other decimals that lose nothing; integers |
//! | string | large, view and dictionary strings |
//! | binary | large, view, fixed-size and dictionary binary |
//! | date | date64 at midnight |
//! | timestamp | any unit that loses nothing; any time zone; without one, UTC is meant |
//! | list | large, fixed-size and view lists of what the item takes |
//!
//! A column of Arrow's null type is NULL throughout; dictionaries are unpacked. Does not know where
//! batches come from.

#[cfg(test)]
mod tests;

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, ListArray, make_array, new_null_array};
use arrow::compute::kernels::cmp::distinct;
use arrow::compute::{CastOptions, cast_with_options, nullif};
use arrow::datatypes::{DataType, Field, Float32Type, Float64Type, TimeUnit};
use arrow::error::ArrowError;
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use falaj_event::{ColumnType, Op, TopicKind, TopicSchema};

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
        let (array, bad) = convert(source, &column.column_type)?;
        let Some(bad) = bad.filter(|bad| bad.true_count() > 0) else {
            columns.push(array);
            continue;
        };
        for row in (0..bad.len()).filter(|row| bad.value(*row)) {
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
        columns.push(nullif(&array, &bad)?);
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
    if !is_text(column.data_type()) {
        let problem = format!("column `{OP_FIELD}` is {}, not a string", column.data_type());
        return Err(ConformError::Columns { topic: schema.name.clone(), problems: vec![problem] });
    }
    let names = cast(column, &DataType::Utf8)?;
    let names = names.as_string::<i32>();
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
        if !is_compatible(array.data_type(), &column.column_type) {
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

fn is_text(data_type: &DataType) -> bool {
    match data_type {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View | DataType::Null => true,
        DataType::Dictionary(_, values) => is_text(values),
        _ => false,
    }
}

fn is_decimal(data_type: &DataType) -> bool {
    matches!(
        data_type,
        DataType::Decimal32(..)
            | DataType::Decimal64(..)
            | DataType::Decimal128(..)
            | DataType::Decimal256(..)
    )
}

/// Whether values of this Arrow type may be values of the column, one by one.
fn is_compatible(from: &DataType, to: &ColumnType) -> bool {
    match from {
        DataType::Null => return true,
        DataType::Dictionary(_, values) => return is_compatible(values, to),
        _ => {}
    }
    match to {
        ColumnType::Bool => *from == DataType::Boolean,
        ColumnType::Int8
        | ColumnType::Int16
        | ColumnType::Int32
        | ColumnType::Int64
        | ColumnType::UInt8
        | ColumnType::UInt16
        | ColumnType::UInt32
        | ColumnType::UInt64
        | ColumnType::Float32
        | ColumnType::Float64 => {
            from.is_integer() || matches!(from, DataType::Float32 | DataType::Float64)
        }
        ColumnType::Decimal { .. } => from.is_integer() || is_decimal(from),
        ColumnType::String => is_text(from),
        ColumnType::Binary => matches!(
            from,
            DataType::Binary
                | DataType::LargeBinary
                | DataType::BinaryView
                | DataType::FixedSizeBinary(_)
        ),
        ColumnType::Date => matches!(from, DataType::Date32 | DataType::Date64),
        ColumnType::Timestamp => matches!(from, DataType::Timestamp(..)),
        ColumnType::List(item) => match from {
            DataType::List(field)
            | DataType::LargeList(field)
            | DataType::FixedSizeList(field, _)
            | DataType::ListView(field)
            | DataType::LargeListView(field) => is_compatible(field.data_type(), item),
            _ => false,
        },
    }
}

fn cast(array: &ArrayRef, to: &DataType) -> Result<ArrayRef, ArrowError> {
    cast_with_options(array, to, &CastOptions { safe: true, ..CastOptions::default() })
}

/// The array in the column's type, and which cells lost something on the way (`None`: none did).
fn convert(
    array: &ArrayRef,
    to: &ColumnType,
) -> Result<(ArrayRef, Option<BooleanArray>), ArrowError> {
    let target = to.to_arrow();
    match (array.data_type(), to) {
        (from, _) if *from == target => return Ok((Arc::clone(array), None)),
        (DataType::Null, _) => return Ok((new_null_array(&target, array.len()), None)),
        (DataType::Dictionary(_, values), _) => return convert(&cast(array, values)?, to),
        (_, ColumnType::List(item)) => return convert_list(array, item, &target),
        // Instants are counted from 1970 UTC whatever zone is named; where none is, UTC is meant.
        (DataType::Timestamp(unit, _), ColumnType::Timestamp) => {
            let counted = reinterpret(array, DataType::Timestamp(*unit, None))?;
            let micros = DataType::Timestamp(TimeUnit::Microsecond, None);
            let (micros, bad) = lossless(&counted, &micros)?;
            return Ok((reinterpret(&micros, target)?, bad));
        }
        _ => {}
    }
    match to {
        ColumnType::String | ColumnType::Binary => Ok((cast(array, &target)?, None)),
        ColumnType::Float32 if *array.data_type() == DataType::Float64 => {
            let narrow = cast(array, &target)?;
            let (wide, single) =
                (array.as_primitive::<Float64Type>(), narrow.as_primitive::<Float32Type>());
            let overflowed = wide.values().iter().zip(single.values().iter());
            let overflowed: Vec<bool> =
                overflowed.map(|(wide, single)| wide.is_finite() && !single.is_finite()).collect();
            Ok((narrow, Some(BooleanArray::from(overflowed))))
        }
        _ => lossless(array, &target),
    }
}

/// The same bytes under another type of the same layout.
fn reinterpret(array: &ArrayRef, data_type: DataType) -> Result<ArrayRef, ArrowError> {
    Ok(make_array(array.to_data().into_builder().data_type(data_type).build()?))
}

/// Casts, casts back, and marks what is not what it was.
fn lossless(
    array: &ArrayRef,
    target: &DataType,
) -> Result<(ArrayRef, Option<BooleanArray>), ArrowError> {
    let there = cast(array, target)?;
    let back = cast(&there, array.data_type())?;
    let changed = distinct(&array, &back)?;
    Ok((there, Some(changed)))
}

fn convert_list(
    array: &ArrayRef,
    item: &ColumnType,
    target: &DataType,
) -> Result<(ArrayRef, Option<BooleanArray>), ArrowError> {
    let DataType::List(field) = target else {
        return Err(ArrowError::CastError(format!("{target} is not a list")));
    };
    // To a plain list of the items as they are, so that items are converted like any column.
    let inner = match array.data_type() {
        DataType::List(inner)
        | DataType::LargeList(inner)
        | DataType::FixedSizeList(inner, _)
        | DataType::ListView(inner)
        | DataType::LargeListView(inner) => inner.data_type().clone(),
        other => return Err(ArrowError::CastError(format!("{other} is not a list"))),
    };
    let plain = cast(array, &DataType::List(Arc::new(Field::new("item", inner, true))))?;
    let plain = plain.as_list::<i32>();
    let (items, bad_items) = convert(plain.values(), item)?;
    let bad = bad_items.map(|bad_items| {
        let rows = plain.offsets().windows(2).enumerate().map(|(row, bounds)| {
            let range = bounds[0]..bounds[1];
            let mut cells = range.filter_map(|at| usize::try_from(at).ok());
            Some(plain.is_valid(row) && cells.any(|at| bad_items.value(at)))
        });
        rows.collect::<BooleanArray>()
    });
    let list = ListArray::try_new(
        Arc::clone(field),
        plain.offsets().clone(),
        items,
        plain.nulls().cloned(),
    )?;
    Ok((Arc::new(list), bad))
}
