//! Types as views have them: families that may meet, SQL names for casts, and the column type that
//! carries an Arrow type.
//!
//! Does not know expressions.

use arrow::datatypes::DataType;
use datafusion::sql::sqlparser::ast::{self, ExactNumberInfo, TimezoneInfo};
use datafusion::sql::sqlparser::tokenizer::Span;
use falaj_event::ColumnType;

use super::refusal::{Checked, mistyped};

/// Types that compare and mix with each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Family {
    Number,
    Text,
    Bool,
    Time,
    Bytes,
    Interval,
    Duration,
    List,
    Null,
    Other,
}

/// The family of a type.
pub(crate) fn family(data_type: &DataType) -> Family {
    match data_type {
        DataType::Null => Family::Null,
        DataType::Boolean => Family::Bool,
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => Family::Text,
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView => Family::Bytes,
        DataType::Date32 | DataType::Timestamp(..) => Family::Time,
        DataType::Interval(_) => Family::Interval,
        DataType::Duration(_) => Family::Duration,
        DataType::List(_) | DataType::LargeList(_) => Family::List,
        other if other.is_numeric() => Family::Number,
        _ => Family::Other,
    }
}

/// The carrier of timestamps.
pub(crate) fn timestamp() -> DataType {
    ColumnType::Timestamp.to_arrow()
}

/// The column type that values of `data_type` are carried by; `None` when no column has them.
pub(crate) fn carrier(data_type: &DataType) -> Option<ColumnType> {
    Some(match data_type {
        DataType::Utf8View | DataType::LargeUtf8 => ColumnType::String,
        DataType::BinaryView | DataType::LargeBinary => ColumnType::Binary,
        DataType::Timestamp(..) => ColumnType::Timestamp,
        DataType::List(field) | DataType::LargeList(field) => {
            ColumnType::List(Box::new(carrier(field.data_type())?))
        }
        other => ColumnType::from_arrow(other)?,
    })
}

/// The type that a SQL type name means, where engines agree.
pub(crate) fn cast_type(name: &ast::DataType, span: Span) -> Checked<DataType> {
    use ast::DataType as Sql;
    Ok(match name {
        Sql::Bool | Sql::Boolean => DataType::Boolean,
        Sql::TinyInt(None) => DataType::Int8,
        Sql::SmallInt(None) | Sql::Int2(None) => DataType::Int16,
        Sql::Int(None) | Sql::Integer(None) | Sql::Int4(None) => DataType::Int32,
        Sql::BigInt(None) | Sql::Int8(None) => DataType::Int64,
        Sql::UTinyInt | Sql::TinyIntUnsigned(None) => DataType::UInt8,
        Sql::USmallInt | Sql::SmallIntUnsigned(None) => DataType::UInt16,
        Sql::IntUnsigned(None) | Sql::IntegerUnsigned(None) => DataType::UInt32,
        Sql::UBigInt | Sql::BigIntUnsigned(None) => DataType::UInt64,
        Sql::Custom(name, arguments)
            if arguments.is_empty() && name.to_string().eq_ignore_ascii_case("uinteger") =>
        {
            DataType::UInt32
        }
        Sql::Real | Sql::Float4 => DataType::Float32,
        Sql::Double(ExactNumberInfo::None) | Sql::DoublePrecision | Sql::Float8 => {
            DataType::Float64
        }
        Sql::Decimal(info) | Sql::Numeric(info) | Sql::Dec(info) => decimal(info, span)?,
        Sql::Varchar(None) | Sql::Text | Sql::String(None) => DataType::Utf8,
        Sql::Bytea | Sql::Blob(None) => DataType::Binary,
        Sql::Date => DataType::Date32,
        Sql::Timestamp(
            None,
            TimezoneInfo::None | TimezoneInfo::WithTimeZone | TimezoneInfo::Tz,
        ) => timestamp(),
        Sql::Float(_) => {
            return Err(mistyped(span, "FLOAT is 32 bits in DuckDB and 64 in PostgreSQL")
                .help("write REAL or DOUBLE"));
        }
        Sql::Varchar(Some(_)) | Sql::Char(_) | Sql::Character(_) | Sql::CharacterVarying(_) => {
            return Err(mistyped(span, "engines disagree on string types with a length")
                .help("write VARCHAR"));
        }
        other => {
            return Err(mistyped(span, format!("{other} is not a column type")).help(
                "use BOOLEAN, TINYINT, SMALLINT, INTEGER, BIGINT, REAL, DOUBLE, DECIMAL(p,s), VARCHAR, DATE or TIMESTAMP",
            ));
        }
    })
}

fn decimal(info: &ExactNumberInfo, span: Span) -> Checked<DataType> {
    let wrong = |message: &str| {
        mistyped(span, message.to_owned())
            .help("write DECIMAL(p,s) with 1 <= p <= 38 and 0 <= s <= p")
    };
    let (precision, scale) = match info {
        ExactNumberInfo::None => return Err(wrong("engines disagree on DECIMAL without digits")),
        ExactNumberInfo::Precision(precision) => (*precision, 0),
        ExactNumberInfo::PrecisionAndScale(precision, scale) => (*precision, *scale),
    };
    match (u8::try_from(precision), i8::try_from(scale)) {
        (Ok(p), Ok(s)) if (1..=38).contains(&p) && s >= 0 && s.unsigned_abs() <= p => {
            Ok(DataType::Decimal128(p, s))
        }
        _ => Err(wrong("no such decimal")),
    }
}
