//! One typed value, its reading from and writing to Arrow arrays.
//!
//! Does not know rows, schemas or bytes (see [`crate::encoding`]).

use std::cmp::Ordering;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryBuilder, BooleanBuilder, Date32Builder, Decimal128Builder, Float32Builder,
    Float64Builder, Int8Builder, Int16Builder, Int32Builder, Int64Builder, ListArray,
    StringBuilder, TimestampMicrosecondBuilder, UInt8Builder, UInt16Builder, UInt32Builder,
    UInt64Builder,
};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::datatypes::{DataType, Field};

use crate::types::ColumnType;

/// A value of any [`ColumnType`], or NULL, or the mark of a failed computation.
#[derive(Clone, Debug)]
pub enum Value {
    /// SQL NULL.
    Null,
    /// A computation of a view had no answer (overflow, division by zero, …). Never in topics.
    Error,
    /// bool
    Bool(bool),
    /// int8 to int64
    Int(i64),
    /// uint8 to uint64
    UInt(u64),
    /// float32
    Float32(f32),
    /// float64
    Float64(f64),
    /// decimal: the unscaled integer and the scale
    Decimal(i128, u8),
    /// string
    String(Arc<str>),
    /// binary
    Binary(Arc<[u8]>),
    /// days since 1970-01-01
    Date(i32),
    /// microseconds since 1970-01-01T00:00:00Z
    Timestamp(i64),
    /// list
    List(Arc<[Value]>),
}

impl Value {
    /// Whether this is NULL.
    pub fn is_null(&self) -> bool {
        matches!(self, Self::Null)
    }

    fn rank(&self) -> u8 {
        match self {
            Self::Null => 0,
            Self::Error => 1,
            Self::Bool(_) => 2,
            Self::Int(_) => 3,
            Self::UInt(_) => 4,
            Self::Float32(_) => 5,
            Self::Float64(_) => 6,
            Self::Decimal(..) => 7,
            Self::String(_) => 8,
            Self::Binary(_) => 9,
            Self::Date(_) => 10,
            Self::Timestamp(_) => 11,
            Self::List(_) => 12,
        }
    }
}

/// A float64 whose order is IEEE 754 totalOrder with every NaN made the one canonical, greatest NaN.
pub fn canonical_f64_bits(value: f64) -> u64 {
    let bits = if value.is_nan() { f64::NAN.to_bits() & !(1 << 63) } else { value.to_bits() };
    if bits >> 63 == 1 { !bits } else { bits | 1 << 63 }
}

/// As [`canonical_f64_bits`], for float32.
pub fn canonical_f32_bits(value: f32) -> u32 {
    let bits = if value.is_nan() { f32::NAN.to_bits() & !(1 << 31) } else { value.to_bits() };
    if bits >> 31 == 1 { !bits } else { bits | 1 << 31 }
}

impl PartialEq for Value {
    #[inline]
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Null, Self::Null) => true,
            (Self::Int(a), Self::Int(b)) => a == b,
            (Self::Decimal(a, p), Self::Decimal(b, q)) => (a, p) == (b, q),
            (Self::Float64(a), Self::Float64(b)) => {
                canonical_f64_bits(*a) == canonical_f64_bits(*b)
            }
            _ => self.cmp(other) == Ordering::Equal,
        }
    }
}
impl Eq for Value {}
impl PartialOrd for Value {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// The order of values of one type: numeric, lexical (bytes), temporal; NULL first; −0.0 before
/// 0.0 and NaN last. Equal to the order of the canonical encodings. Values of different types are
/// ordered by type, decimals of different scale by scale.
impl Ord for Value {
    fn cmp(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Self::Bool(a), Self::Bool(b)) => a.cmp(b),
            (Self::Int(a), Self::Int(b)) => a.cmp(b),
            (Self::UInt(a), Self::UInt(b)) => a.cmp(b),
            (Self::Float32(a), Self::Float32(b)) => {
                canonical_f32_bits(*a).cmp(&canonical_f32_bits(*b))
            }
            (Self::Float64(a), Self::Float64(b)) => {
                canonical_f64_bits(*a).cmp(&canonical_f64_bits(*b))
            }
            (Self::Decimal(a, p), Self::Decimal(b, q)) => p.cmp(q).then(a.cmp(b)),
            (Self::String(a), Self::String(b)) => a.cmp(b),
            (Self::Binary(a), Self::Binary(b)) => a.cmp(b),
            (Self::Date(a), Self::Date(b)) => a.cmp(b),
            (Self::Timestamp(a), Self::Timestamp(b)) => a.cmp(b),
            (Self::List(a), Self::List(b)) => a.cmp(b),
            _ => self.rank().cmp(&other.rank()),
        }
    }
}

/// A value that its column cannot hold.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("row {row}: a value of kind {found} does not fit a column of type {expected}")]
pub struct ValueMismatch {
    /// Row of the offending value, from 0.
    pub row: usize,
    /// What the column holds.
    pub expected: String,
    /// What was found.
    pub found: String,
}

/// Builds the Arrow array of `column_type` that holds `values` in order. [`Value::Error`] becomes
/// NULL (its mark travels beside the array).
///
/// # Errors
/// Names the first value that is not of `column_type` or out of its range.
pub fn to_array(column_type: &ColumnType, values: &[Value]) -> Result<ArrayRef, ValueMismatch> {
    macro_rules! build {
        ($builder:expr, $pattern:pat => $out:expr) => {{
            let mut builder = $builder;
            for (row, value) in values.iter().enumerate() {
                match value {
                    Value::Null | Value::Error => builder.append_null(),
                    $pattern => match $out {
                        Some(out) => builder.append_value(out),
                        None => return Err(mismatch(row, column_type, value)),
                    },
                    other => return Err(mismatch(row, column_type, other)),
                }
            }
            Ok(Arc::new(builder.finish()) as ArrayRef)
        }};
    }
    let n = values.len();
    match column_type {
        ColumnType::Bool => build!(BooleanBuilder::with_capacity(n), Value::Bool(v) => Some(*v)),
        ColumnType::Int8 => {
            build!(Int8Builder::with_capacity(n), Value::Int(v) => i8::try_from(*v).ok())
        }
        ColumnType::Int16 => {
            build!(Int16Builder::with_capacity(n), Value::Int(v) => i16::try_from(*v).ok())
        }
        ColumnType::Int32 => {
            build!(Int32Builder::with_capacity(n), Value::Int(v) => i32::try_from(*v).ok())
        }
        ColumnType::Int64 => build!(Int64Builder::with_capacity(n), Value::Int(v) => Some(*v)),
        ColumnType::UInt8 => {
            build!(UInt8Builder::with_capacity(n), Value::UInt(v) => u8::try_from(*v).ok())
        }
        ColumnType::UInt16 => {
            build!(UInt16Builder::with_capacity(n), Value::UInt(v) => u16::try_from(*v).ok())
        }
        ColumnType::UInt32 => {
            build!(UInt32Builder::with_capacity(n), Value::UInt(v) => u32::try_from(*v).ok())
        }
        ColumnType::UInt64 => build!(UInt64Builder::with_capacity(n), Value::UInt(v) => Some(*v)),
        ColumnType::Float32 => {
            build!(Float32Builder::with_capacity(n), Value::Float32(v) => Some(*v))
        }
        ColumnType::Float64 => {
            build!(Float64Builder::with_capacity(n), Value::Float64(v) => Some(*v))
        }
        ColumnType::Decimal { scale, .. } => build!(
            Decimal128Builder::with_capacity(n).with_data_type(column_type.to_arrow()),
            Value::Decimal(v, s) => (s == scale).then_some(*v)
        ),
        ColumnType::String => build!(StringBuilder::new(), Value::String(v) => Some(v)),
        ColumnType::Binary => build!(BinaryBuilder::new(), Value::Binary(v) => Some(v)),
        ColumnType::Date => build!(Date32Builder::with_capacity(n), Value::Date(v) => Some(*v)),
        ColumnType::Timestamp => build!(
            TimestampMicrosecondBuilder::with_capacity(n).with_timezone("UTC"),
            Value::Timestamp(v) => Some(*v)
        ),
        ColumnType::List(item) => to_list_array(item, column_type, values),
    }
}

fn to_list_array(
    item: &ColumnType,
    column_type: &ColumnType,
    values: &[Value],
) -> Result<ArrayRef, ValueMismatch> {
    let mut flat = Vec::new();
    let mut lengths = Vec::with_capacity(values.len());
    let mut valid = Vec::with_capacity(values.len());
    for (row, value) in values.iter().enumerate() {
        match value {
            Value::Null | Value::Error => {
                lengths.push(0);
                valid.push(false);
            }
            Value::List(items) => {
                flat.extend(items.iter().cloned());
                lengths.push(items.len());
                valid.push(true);
            }
            other => return Err(mismatch(row, column_type, other)),
        }
    }
    let field = match column_type.to_arrow() {
        DataType::List(field) => field,
        other => Arc::new(Field::new("item", other, true)),
    };
    let items = to_array(item, &flat)?;
    let offsets = OffsetBuffer::from_lengths(lengths);
    Ok(Arc::new(ListArray::new(field, offsets, items, Some(NullBuffer::from(valid)))))
}

fn mismatch(row: usize, column_type: &ColumnType, value: &Value) -> ValueMismatch {
    ValueMismatch { row, expected: column_type.to_string(), found: format!("{value:?}") }
}
