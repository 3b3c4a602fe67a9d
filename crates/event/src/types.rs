//! Column types: the closed set that a topic may declare, their names in files and their Arrow
//! counterparts.
//!
//! Does not know values or schemas.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, TimeUnit};
use serde::{Deserialize, Serialize};

/// The type of one column.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum ColumnType {
    /// true or false
    Bool,
    /// 8-bit signed integer
    Int8,
    /// 16-bit signed integer
    Int16,
    /// 32-bit signed integer
    Int32,
    /// 64-bit signed integer
    Int64,
    /// 8-bit unsigned integer
    UInt8,
    /// 16-bit unsigned integer
    UInt16,
    /// 32-bit unsigned integer
    UInt32,
    /// 64-bit unsigned integer
    UInt64,
    /// IEEE 754 binary32
    Float32,
    /// IEEE 754 binary64
    Float64,
    /// Exact decimal: `precision` digits (1..=38), `scale` of them after the point
    Decimal {
        /// Total digits, 1..=38.
        precision: u8,
        /// Digits after the point, 0..=precision.
        scale: u8,
    },
    /// UTF-8 text
    String,
    /// Bytes
    Binary,
    /// Days since 1970-01-01
    Date,
    /// Microseconds since 1970-01-01T00:00:00Z
    Timestamp,
    /// A list of one of the types above; elements may be NULL
    List(Box<ColumnType>),
}

impl ColumnType {
    /// The Arrow type that carries this type in memory, in files and over Flight.
    pub fn to_arrow(&self) -> DataType {
        match self {
            Self::Bool => DataType::Boolean,
            Self::Int8 => DataType::Int8,
            Self::Int16 => DataType::Int16,
            Self::Int32 => DataType::Int32,
            Self::Int64 => DataType::Int64,
            Self::UInt8 => DataType::UInt8,
            Self::UInt16 => DataType::UInt16,
            Self::UInt32 => DataType::UInt32,
            Self::UInt64 => DataType::UInt64,
            Self::Float32 => DataType::Float32,
            Self::Float64 => DataType::Float64,
            Self::Decimal { precision, scale } => {
                DataType::Decimal128(*precision, i8::try_from(*scale).unwrap_or(0))
            }
            Self::String => DataType::Utf8,
            Self::Binary => DataType::Binary,
            Self::Date => DataType::Date32,
            Self::Timestamp => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
            Self::List(item) => DataType::List(Arc::new(Field::new("item", item.to_arrow(), true))),
        }
    }

    /// The column type that `data_type` is exactly the carrier of; `None` for any other type.
    pub fn from_arrow(data_type: &DataType) -> Option<Self> {
        Some(match data_type {
            DataType::Boolean => Self::Bool,
            DataType::Int8 => Self::Int8,
            DataType::Int16 => Self::Int16,
            DataType::Int32 => Self::Int32,
            DataType::Int64 => Self::Int64,
            DataType::UInt8 => Self::UInt8,
            DataType::UInt16 => Self::UInt16,
            DataType::UInt32 => Self::UInt32,
            DataType::UInt64 => Self::UInt64,
            DataType::Float32 => Self::Float32,
            DataType::Float64 => Self::Float64,
            DataType::Decimal128(precision, scale) => {
                Self::Decimal { precision: *precision, scale: u8::try_from(*scale).ok()? }
            }
            DataType::Utf8 => Self::String,
            DataType::Binary => Self::Binary,
            DataType::Date32 => Self::Date,
            DataType::Timestamp(TimeUnit::Microsecond, Some(zone))
                if matches!(zone.as_ref(), "UTC" | "+00:00") =>
            {
                Self::Timestamp
            }
            DataType::List(field) => Self::List(Box::new(Self::from_arrow(field.data_type())?)),
            _ => return None,
        })
    }

    /// Whether values of this type may be key columns: everything but floats and lists.
    pub fn is_key_type(&self) -> bool {
        !matches!(self, Self::Float32 | Self::Float64 | Self::List(_))
    }
}

impl fmt::Display for ColumnType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bool => f.write_str("bool"),
            Self::Int8 => f.write_str("int8"),
            Self::Int16 => f.write_str("int16"),
            Self::Int32 => f.write_str("int32"),
            Self::Int64 => f.write_str("int64"),
            Self::UInt8 => f.write_str("uint8"),
            Self::UInt16 => f.write_str("uint16"),
            Self::UInt32 => f.write_str("uint32"),
            Self::UInt64 => f.write_str("uint64"),
            Self::Float32 => f.write_str("float32"),
            Self::Float64 => f.write_str("float64"),
            Self::Decimal { precision, scale } => write!(f, "decimal({precision},{scale})"),
            Self::String => f.write_str("string"),
            Self::Binary => f.write_str("binary"),
            Self::Date => f.write_str("date"),
            Self::Timestamp => f.write_str("timestamp"),
            Self::List(item) => write!(f, "list<{item}>"),
        }
    }
}

/// A type name that no column can have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "unknown type `{0}`: use bool, int8..int64, uint8..uint64, float32, float64, decimal(p,s) with \
     1 <= p <= 38 and s <= p, string, binary, date, timestamp or list<one of these>"
)]
pub struct UnknownType(pub String);

impl FromStr for ColumnType {
    type Err = UnknownType;

    fn from_str(text: &str) -> Result<Self, UnknownType> {
        let unknown = || UnknownType(text.to_owned());
        Ok(match text.trim() {
            "bool" => Self::Bool,
            "int8" => Self::Int8,
            "int16" => Self::Int16,
            "int32" => Self::Int32,
            "int64" => Self::Int64,
            "uint8" => Self::UInt8,
            "uint16" => Self::UInt16,
            "uint32" => Self::UInt32,
            "uint64" => Self::UInt64,
            "float32" => Self::Float32,
            "float64" => Self::Float64,
            "string" => Self::String,
            "binary" => Self::Binary,
            "date" => Self::Date,
            "timestamp" => Self::Timestamp,
            other => {
                if let Some(inner) = other.strip_prefix("list<").and_then(|s| s.strip_suffix('>')) {
                    match inner.parse()? {
                        Self::List(_) => return Err(unknown()),
                        item => Self::List(Box::new(item)),
                    }
                } else {
                    let (precision, scale) = other
                        .strip_prefix("decimal(")
                        .and_then(|s| s.strip_suffix(')'))
                        .and_then(|s| s.split_once(','))
                        .ok_or_else(unknown)?;
                    let precision: u8 = precision.trim().parse().map_err(|_| unknown())?;
                    let scale: u8 = scale.trim().parse().map_err(|_| unknown())?;
                    if !(1..=38).contains(&precision) || scale > precision {
                        return Err(unknown());
                    }
                    Self::Decimal { precision, scale }
                }
            }
        })
    }
}

impl TryFrom<String> for ColumnType {
    type Error = UnknownType;
    fn try_from(text: String) -> Result<Self, UnknownType> {
        text.parse()
    }
}

impl From<ColumnType> for String {
    fn from(column_type: ColumnType) -> Self {
        column_type.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_arrow_types_round_trip() {
        for name in [
            "bool",
            "int8",
            "int16",
            "int32",
            "int64",
            "uint8",
            "uint16",
            "uint32",
            "uint64",
            "float32",
            "float64",
            "decimal(38,0)",
            "decimal(12,2)",
            "string",
            "binary",
            "date",
            "timestamp",
            "list<int64>",
            "list<decimal(9,3)>",
        ] {
            let parsed: ColumnType = name.parse().unwrap();
            assert_eq!(parsed.to_string(), name);
            assert_eq!(ColumnType::from_arrow(&parsed.to_arrow()), Some(parsed));
        }
    }

    #[test]
    fn unknown_types_are_named() {
        for name in ["int", "decimal(39,1)", "decimal(4,5)", "decimal(x,1)", "list<list<int8>>", ""]
        {
            let error = name.parse::<ColumnType>().unwrap_err();
            assert!(error.to_string().contains(&format!("`{name}`")) || name.starts_with("list"));
        }
    }
}
