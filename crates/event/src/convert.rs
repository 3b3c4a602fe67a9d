//! Columns as others send them to columns as they are declared: exactly, or not at all.
//!
//! Why it exists: producers send dictionaries, large strings, 64-bit integers and naive timestamps. A
//! value is taken over when the declared type can hold it without loss; otherwise its row is named.
//! Accepted, beside a column's own type:
//!
//! | column | also takes |
//! | --- | --- |
//! | int, uint | every other integer type; floats and decimals that hold whole numbers (what pandas makes of gaps) |
//! | float | other floats; integers that it holds exactly |
//! | decimal | other decimals that lose nothing; integers |
//! | string | large, view and dictionary strings |
//! | binary | large, view, fixed-size and dictionary binary |
//! | date | date64 at midnight |
//! | timestamp | any unit that loses nothing; any time zone; without one, UTC is meant |
//! | list | large, fixed-size and view lists of what the item takes |
//!
//! A cast is safe when it can be undone: a value that would change is refused with its row, never
//! rounded, cut or wrapped. The one exception is a wider float into a narrower column, which rounds, as
//! declared, but never to infinity. A column of Arrow's null type is NULL throughout. It knows no topic,
//! no view and no transport.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Int64Array, ListArray, TimestampMicrosecondArray,
    UInt64Array, new_null_array,
};
use arrow::compute::kernels::{cmp::not_distinct, length::length};
use arrow::compute::{CastOptions, cast_with_options, take};
use arrow::datatypes::{DataType, TimeUnit, UInt64Type};
use arrow::error::ArrowError;

/// Most bytes that a column may take after its dictionary or views are written out.
const MAX_EXPANDED_BYTES: u64 = 256 << 20;

/// A converted column.
#[derive(Clone, Debug)]
pub struct Converted {
    /// Of the declared type; NULL where a value does not fit.
    pub array: ArrayRef,
    /// Rows (ascending, unique) whose value does not fit.
    pub misfits: Vec<usize>,
}

impl Converted {
    fn whole(array: ArrayRef) -> Self {
        Self { array, misfits: Vec::new() }
    }
}

/// Why no value of a column can be converted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConvertError {
    /// Types of different families.
    #[error("{from} values are no {to} values; convert them before you send them")]
    Types {
        /// The Arrow type sent.
        from: String,
        /// The declared Arrow type.
        to: String,
    },
    /// A dictionary or view column that is small on the wire and huge in memory.
    #[error("the column takes {0} bytes when written out; send smaller batches")]
    Expansion(u64),
    /// Arrow refused.
    #[error("{0}")]
    Arrow(String),
}

impl From<ArrowError> for ConvertError {
    fn from(error: ArrowError) -> Self {
        Self::Arrow(error.to_string())
    }
}

/// Whether [`convert`] knows how to take `from` as `to`, whatever the values are.
pub fn convertible(from: &DataType, to: &DataType) -> bool {
    use DataType as D;
    match (from, to) {
        (D::Null, _) => true,
        (D::Dictionary(_, values), _) => convertible(values, to),
        (
            D::List(from)
            | D::LargeList(from)
            | D::FixedSizeList(from, _)
            | D::ListView(from)
            | D::LargeListView(from),
            D::List(to),
        ) => convertible(from.data_type(), to.data_type()),
        (D::Timestamp(..), D::Timestamp(TimeUnit::Microsecond, _)) => true,
        _ if to.is_integer() => from.is_integer() || from.is_floating() || is_decimal(from),
        _ if to.is_floating() => from.is_integer() || from.is_floating(),
        _ if is_decimal(to) => from.is_integer() || is_decimal(from),
        _ if is_text(from) && is_text(to) => true,
        _ if is_bytes(from) && is_bytes(to) => true,
        (D::Date64, D::Date32) => true,
        _ => from == to,
    }
}

fn is_number(data_type: &DataType) -> bool {
    data_type.is_numeric()
}

fn is_decimal(data_type: &DataType) -> bool {
    is_number(data_type) && !data_type.is_integer() && !data_type.is_floating()
}

fn is_text(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View)
}

fn is_bytes(data_type: &DataType) -> bool {
    matches!(
        data_type,
        DataType::Binary
            | DataType::LargeBinary
            | DataType::BinaryView
            | DataType::FixedSizeBinary(_)
    )
}

/// Converts `array` to the declared type `to`.
///
/// The module's table says what is taken; dictionaries, views and large types are written out.
///
/// # Errors
/// [`ConvertError`], when no value could be converted.
pub fn convert(array: &ArrayRef, to: &DataType) -> Result<Converted, ConvertError> {
    let from = array.data_type();
    if from == to {
        return Ok(Converted::whole(Arc::clone(array)));
    }
    if !convertible(from, to) {
        return Err(ConvertError::Types { from: from.to_string(), to: to.to_string() });
    }
    match (from, to) {
        (DataType::Null, _) => Ok(Converted::whole(new_null_array(to, array.len()))),
        (DataType::Dictionary(..), _) => convert(&written_out(array)?, to),
        (DataType::Timestamp(unit, _), DataType::Timestamp(..)) => timestamps(array, *unit),
        (_, DataType::List(item)) => lists(array, item.data_type(), to),
        (DataType::Utf8View | DataType::BinaryView, _) => {
            check_expansion(lengths(array)?.iter().flatten().sum())?;
            Ok(Converted::whole(cast(array, to)?))
        }
        (DataType::Date64, _) => numbers(array, to),
        _ if is_number(to) => numbers(array, to),
        _ => Ok(Converted::whole(cast(array, to)?)),
    }
}

fn cast(array: &dyn Array, to: &DataType) -> Result<ArrayRef, ArrowError> {
    cast_with_options(array, to, &CastOptions { safe: false, ..CastOptions::default() })
}

/// NULL where a value cannot be cast.
fn cast_or_null(array: &dyn Array, to: &DataType) -> Result<ArrayRef, ArrowError> {
    cast_with_options(array, to, &CastOptions { safe: true, ..CastOptions::default() })
}

fn numbers(array: &ArrayRef, to: &DataType) -> Result<Converted, ConvertError> {
    let there = cast_or_null(array, to)?;
    let fits: BooleanArray = match (array.data_type(), to) {
        (DataType::Float64 | DataType::Float32, DataType::Float32 | DataType::Float16) => {
            let narrow = cast(&there, &DataType::Float64)?;
            let wide = cast(array, &DataType::Float64)?;
            narrow
                .as_primitive::<arrow::datatypes::Float64Type>()
                .iter()
                .zip(wide.as_primitive::<arrow::datatypes::Float64Type>())
                .map(|(narrow, wide)| match (narrow, wide) {
                    (Some(narrow), Some(wide)) => Some(narrow.is_finite() || !wide.is_finite()),
                    (narrow, wide) => Some(narrow.is_none() && wide.is_none()),
                })
                .collect()
        }
        (from, _) => not_distinct(&cast_or_null(&there, from)?, array)?,
    };
    let misfits: Vec<usize> = (0..fits.len()).filter(|row| !fits.value(*row)).collect();
    let array = if misfits.is_empty() { there } else { without(&there, &misfits)? };
    Ok(Converted { array, misfits })
}

fn timestamps(array: &ArrayRef, unit: TimeUnit) -> Result<Converted, ConvertError> {
    let ticks = cast(array, &DataType::Int64)?;
    let ticks: &Int64Array = ticks.as_primitive();
    let mut misfits = Vec::new();
    let mut micros = Vec::with_capacity(ticks.len());
    for (row, tick) in ticks.iter().enumerate() {
        let converted = tick.and_then(|tick| match unit {
            TimeUnit::Second => tick.checked_mul(1_000_000),
            TimeUnit::Millisecond => tick.checked_mul(1_000),
            TimeUnit::Microsecond => Some(tick),
            TimeUnit::Nanosecond => (tick % 1_000 == 0).then_some(tick / 1_000),
        });
        if tick.is_some() && converted.is_none() {
            misfits.push(row);
        }
        micros.push(converted);
    }
    let array = TimestampMicrosecondArray::from(micros).with_timezone("UTC");
    Ok(Converted { array: Arc::new(array), misfits })
}

fn lists(array: &ArrayRef, item: &DataType, to: &DataType) -> Result<Converted, ConvertError> {
    let items_type = match array.data_type() {
        DataType::List(field)
        | DataType::LargeList(field)
        | DataType::FixedSizeList(field, _)
        | DataType::ListView(field)
        | DataType::LargeListView(field) => field,
        other => {
            return Err(ConvertError::Types { from: other.to_string(), to: to.to_string() });
        }
    };
    let list = cast(array, &DataType::List(Arc::clone(items_type)))?;
    let list: &ListArray = list.as_list();
    let Converted { array: items, misfits: bad_items } = convert(list.values(), item)?;
    let offsets = list.offsets();
    let misfits = (0..list.len())
        .filter(|row| {
            let (start, end) = (offsets[*row] as usize, offsets[*row + 1] as usize);
            let first = bad_items.partition_point(|bad| *bad < start);
            list.is_valid(*row) && bad_items.get(first).is_some_and(|bad| *bad < end)
        })
        .collect::<Vec<_>>();
    let DataType::List(field) = to else {
        return Err(ConvertError::Types { from: items_type.to_string(), to: to.to_string() });
    };
    let field = Arc::clone(field);
    let array = ListArray::try_new(field, offsets.clone(), items, list.nulls().cloned())?;
    let array: ArrayRef = Arc::new(array);
    let array = if misfits.is_empty() { array } else { without(&array, &misfits)? };
    Ok(Converted { array, misfits })
}

/// `array` with NULL in the given rows.
fn without(array: &ArrayRef, rows: &[usize]) -> Result<ArrayRef, ArrowError> {
    let mut rows = rows.iter().copied().peekable();
    let indices: UInt64Array = (0..array.len())
        .map(|row| rows.next_if_eq(&row).map_or(Some(row as u64), |_| None))
        .collect();
    take(array, &indices, None)
}

fn written_out(array: &ArrayRef) -> Result<ArrayRef, ConvertError> {
    let dictionary = array
        .as_any_dictionary_opt()
        .ok_or_else(|| ConvertError::Arrow("a dictionary column that is none".to_owned()))?;
    let values = dictionary.values();
    let keys = cast(dictionary.keys(), &DataType::UInt64)?;
    let keys = keys.as_primitive::<UInt64Type>();
    if values.data_type().is_primitive() || values.data_type() == &DataType::Boolean {
        return Ok(take(values, keys, None)?);
    }
    let lengths = lengths(values)?;
    let used = keys.iter().flatten().map(|key| lengths.get(key as usize).copied().flatten());
    check_expansion(used.flatten().sum())?;
    Ok(take(values, keys, None)?)
}

/// Bytes of each value of a string or binary column.
fn lengths(array: &ArrayRef) -> Result<Vec<Option<u64>>, ConvertError> {
    let lengths = match array.data_type() {
        DataType::BinaryView => {
            return Ok(array
                .as_binary_view()
                .iter()
                .map(|value| value.map(|bytes| bytes.len() as u64))
                .collect());
        }
        DataType::Null => return Ok(vec![None; array.len()]),
        _ => length(array)?,
    };
    Ok(cast(&lengths, &DataType::UInt64)?.as_primitive::<UInt64Type>().iter().collect())
}

fn check_expansion(bytes: u64) -> Result<(), ConvertError> {
    if bytes > MAX_EXPANDED_BYTES { Err(ConvertError::Expansion(bytes)) } else { Ok(()) }
}

#[cfg(test)]
mod tests;
