//! Reading cells of Arrow arrays without a downcast per cell, as [`Value`]s or straight into
//! canonical bytes.
//!
//! Does not know which arrays belong to which topic.

use std::sync::Arc;

use arrow::array::{
    Array, AsArray, BinaryArray, BooleanArray, Date32Array, Decimal128Array, Float32Array,
    Float64Array, Int8Array, Int16Array, Int32Array, Int64Array, ListArray, StringArray,
    TimestampMicrosecondArray, UInt8Array, UInt16Array, UInt32Array, UInt64Array,
};
use arrow::datatypes::{
    DataType, Date32Type, Decimal128Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type,
    Int64Type, TimeUnit, TimestampMicrosecondType, UInt8Type, UInt16Type, UInt32Type, UInt64Type,
};
use arrow::record_batch::RecordBatch;

use crate::encoding as enc;
use crate::value::Value;

/// An Arrow type that no column type maps to.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("Arrow type {0} is not the carrier of any column type")]
pub struct UnsupportedArrowType(pub String);

/// One array, downcast once.
#[derive(Clone, Copy, Debug)]
pub enum Cells<'a> {
    /// bool
    Bool(&'a BooleanArray),
    /// int8
    Int8(&'a Int8Array),
    /// int16
    Int16(&'a Int16Array),
    /// int32
    Int32(&'a Int32Array),
    /// int64
    Int64(&'a Int64Array),
    /// uint8
    UInt8(&'a UInt8Array),
    /// uint16
    UInt16(&'a UInt16Array),
    /// uint32
    UInt32(&'a UInt32Array),
    /// uint64
    UInt64(&'a UInt64Array),
    /// float32
    Float32(&'a Float32Array),
    /// float64
    Float64(&'a Float64Array),
    /// decimal and its scale
    Decimal(&'a Decimal128Array, u8),
    /// string
    String(&'a StringArray),
    /// binary
    Binary(&'a BinaryArray),
    /// date
    Date(&'a Date32Array),
    /// timestamp
    Timestamp(&'a TimestampMicrosecondArray),
    /// list
    List(&'a ListArray),
}

impl<'a> Cells<'a> {
    /// Downcasts `array`.
    ///
    /// # Errors
    /// When the array's type carries no [`crate::ColumnType`].
    pub fn new(array: &'a dyn Array) -> Result<Self, UnsupportedArrowType> {
        Ok(match array.data_type() {
            DataType::Boolean => Self::Bool(array.as_boolean()),
            DataType::Int8 => Self::Int8(array.as_primitive::<Int8Type>()),
            DataType::Int16 => Self::Int16(array.as_primitive::<Int16Type>()),
            DataType::Int32 => Self::Int32(array.as_primitive::<Int32Type>()),
            DataType::Int64 => Self::Int64(array.as_primitive::<Int64Type>()),
            DataType::UInt8 => Self::UInt8(array.as_primitive::<UInt8Type>()),
            DataType::UInt16 => Self::UInt16(array.as_primitive::<UInt16Type>()),
            DataType::UInt32 => Self::UInt32(array.as_primitive::<UInt32Type>()),
            DataType::UInt64 => Self::UInt64(array.as_primitive::<UInt64Type>()),
            DataType::Float32 => Self::Float32(array.as_primitive::<Float32Type>()),
            DataType::Float64 => Self::Float64(array.as_primitive::<Float64Type>()),
            DataType::Decimal128(_, scale) => Self::Decimal(
                array.as_primitive::<Decimal128Type>(),
                u8::try_from(*scale)
                    .map_err(|_| UnsupportedArrowType(array.data_type().to_string()))?,
            ),
            DataType::Utf8 => Self::String(array.as_string::<i32>()),
            DataType::Binary => Self::Binary(array.as_binary::<i32>()),
            DataType::Date32 => Self::Date(array.as_primitive::<Date32Type>()),
            DataType::Timestamp(TimeUnit::Microsecond, _) => {
                Self::Timestamp(array.as_primitive::<TimestampMicrosecondType>())
            }
            DataType::List(_) => Self::List(array.as_list::<i32>()),
            other => return Err(UnsupportedArrowType(other.to_string())),
        })
    }

    fn as_array(&self) -> &'a dyn Array {
        match *self {
            Self::Bool(a) => a,
            Self::Int8(a) => a,
            Self::Int16(a) => a,
            Self::Int32(a) => a,
            Self::Int64(a) => a,
            Self::UInt8(a) => a,
            Self::UInt16(a) => a,
            Self::UInt32(a) => a,
            Self::UInt64(a) => a,
            Self::Float32(a) => a,
            Self::Float64(a) => a,
            Self::Decimal(a, _) => a,
            Self::String(a) => a,
            Self::Binary(a) => a,
            Self::Date(a) => a,
            Self::Timestamp(a) => a,
            Self::List(a) => a,
        }
    }

    /// Whether the cell is NULL. Panics when `row` is out of bounds.
    pub fn is_null(&self, row: usize) -> bool {
        self.as_array().is_null(row)
    }

    /// The cell as a [`Value`]. Panics when `row` is out of bounds.
    pub fn value(&self, row: usize) -> Value {
        if self.is_null(row) {
            return Value::Null;
        }
        match *self {
            Self::Bool(a) => Value::Bool(a.value(row)),
            Self::Int8(a) => Value::Int(a.value(row).into()),
            Self::Int16(a) => Value::Int(a.value(row).into()),
            Self::Int32(a) => Value::Int(a.value(row).into()),
            Self::Int64(a) => Value::Int(a.value(row)),
            Self::UInt8(a) => Value::UInt(a.value(row).into()),
            Self::UInt16(a) => Value::UInt(a.value(row).into()),
            Self::UInt32(a) => Value::UInt(a.value(row).into()),
            Self::UInt64(a) => Value::UInt(a.value(row)),
            Self::Float32(a) => Value::Float32(a.value(row)),
            Self::Float64(a) => Value::Float64(a.value(row)),
            Self::Decimal(a, scale) => Value::Decimal(a.value(row), scale),
            Self::String(a) => Value::String(a.value(row).into()),
            Self::Binary(a) => Value::Binary(a.value(row).into()),
            Self::Date(a) => Value::Date(a.value(row)),
            Self::Timestamp(a) => Value::Timestamp(a.value(row)),
            Self::List(a) => {
                let items = a.value(row);
                match Cells::new(&items) {
                    Ok(cells) => Value::List((0..items.len()).map(|i| cells.value(i)).collect()),
                    Err(_) => Value::Error,
                }
            }
        }
    }

    /// Appends the cell's canonical encoding to `out`. Panics when `row` is out of bounds.
    pub fn encode(&self, row: usize, out: &mut Vec<u8>) {
        if self.is_null(row) {
            return out.push(enc::TAG_NULL);
        }
        match *self {
            Self::Bool(a) => enc::encode_bool(a.value(row), out),
            Self::Int8(a) => enc::encode_int(a.value(row).into(), out),
            Self::Int16(a) => enc::encode_int(a.value(row).into(), out),
            Self::Int32(a) => enc::encode_int(a.value(row).into(), out),
            Self::Int64(a) => enc::encode_int(a.value(row), out),
            Self::UInt8(a) => enc::encode_uint(a.value(row).into(), out),
            Self::UInt16(a) => enc::encode_uint(a.value(row).into(), out),
            Self::UInt32(a) => enc::encode_uint(a.value(row).into(), out),
            Self::UInt64(a) => enc::encode_uint(a.value(row), out),
            Self::Float32(a) => enc::encode_f32(a.value(row), out),
            Self::Float64(a) => enc::encode_f64(a.value(row), out),
            Self::Decimal(a, scale) => enc::encode_decimal(a.value(row), scale, out),
            Self::String(a) => enc::encode_string(a.value(row), out),
            Self::Binary(a) => enc::encode_binary(a.value(row), out),
            Self::Date(a) => enc::encode_date(a.value(row), out),
            Self::Timestamp(a) => enc::encode_timestamp(a.value(row), out),
            Self::List(_) => enc::encode_value(&self.value(row), out),
        }
    }
}

/// The columns of a batch, each downcast once.
///
/// # Errors
/// When a column's type carries no [`crate::ColumnType`].
pub fn batch_cells(batch: &RecordBatch) -> Result<Vec<Cells<'_>>, UnsupportedArrowType> {
    batch.columns().iter().map(|column| Cells::new(column.as_ref())).collect()
}

/// Converts a list of shared arrays likewise.
///
/// # Errors
/// As [`batch_cells`].
pub fn array_cells(arrays: &[Arc<dyn Array>]) -> Result<Vec<Cells<'_>>, UnsupportedArrowType> {
    arrays.iter().map(|array| Cells::new(array.as_ref())).collect()
}
