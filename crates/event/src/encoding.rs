//! The canonical encoding of values and rows: permanent bytes used for event hashes, keys,
//! partitioning and stored rows.
//!
//! Each value is a tag byte and a payload; the encoding is self-delimiting, and comparing encoded
//! bytes compares values of one type (memcomparable). A row is the concatenation of its values.
//!
//! | tag | value | payload |
//! | --- | --- | --- |
//! | `00` | NULL | none |
//! | `01` | error | none (views only) |
//! | `02` | bool | `00` or `01` |
//! | `03` | int8…int64 | 8 bytes: two's complement big-endian, sign bit flipped |
//! | `04` | uint8…uint64 | 8 bytes big-endian |
//! | `05` | float32 | 4 bytes: totalOrder bits big-endian, one canonical NaN |
//! | `06` | float64 | 8 bytes: likewise |
//! | `07` | decimal | scale (1 byte), 16 bytes: unscaled integer big-endian, sign bit flipped |
//! | `08` | string | UTF-8 with `00` written as `00 FF`, ended by `00 00` |
//! | `09` | binary | likewise |
//! | `0A` | date | 4 bytes: days since 1970-01-01, big-endian, sign bit flipped |
//! | `0B` | timestamp | 8 bytes: microseconds since 1970 UTC, big-endian, sign bit flipped |
//! | `0C` | list | for each element `01` and its encoding; ended by `00` |
//!
//! Does not know schemas: a decoder gets back what was encoded, and callers check types.

use std::borrow::Cow;

use crate::value::{Value, canonical_f32_bits, canonical_f64_bits};

/// NULL.
pub const TAG_NULL: u8 = 0x00;
/// A failed computation.
pub const TAG_ERROR: u8 = 0x01;
pub(crate) const TAG_BOOL: u8 = 0x02;
pub(crate) const TAG_INT: u8 = 0x03;
pub(crate) const TAG_UINT: u8 = 0x04;
pub(crate) const TAG_F32: u8 = 0x05;
pub(crate) const TAG_F64: u8 = 0x06;
pub(crate) const TAG_DECIMAL: u8 = 0x07;
pub(crate) const TAG_STRING: u8 = 0x08;
pub(crate) const TAG_BINARY: u8 = 0x09;
pub(crate) const TAG_DATE: u8 = 0x0A;
pub(crate) const TAG_TIMESTAMP: u8 = 0x0B;
pub(crate) const TAG_LIST: u8 = 0x0C;

/// Bytes that are not a canonical encoding.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The bytes end inside a value.
    #[error("byte {at}: the encoding ends inside a value")]
    Truncated {
        /// Offset of the end.
        at: usize,
    },
    /// No value has this tag.
    #[error("byte {at}: 0x{tag:02x} is not the tag of a value")]
    Tag {
        /// Offset of the tag.
        at: usize,
        /// The byte found.
        tag: u8,
    },
    /// A payload that no encoder writes.
    #[error("byte {at}: {what}")]
    Payload {
        /// Offset of the payload.
        at: usize,
        /// What is wrong.
        what: &'static str,
    },
}

const OTHER_NAN: &str = "a NaN other than the one that is written";

/// Appends a bool.
pub fn encode_bool(value: bool, out: &mut Vec<u8>) {
    out.extend_from_slice(&[TAG_BOOL, u8::from(value)]);
}

/// Appends a signed integer.
#[inline]
pub fn encode_int(value: i64, out: &mut Vec<u8>) {
    tagged(TAG_INT, flip64(value), out);
}

/// Appends an unsigned integer.
pub fn encode_uint(value: u64, out: &mut Vec<u8>) {
    tagged(TAG_UINT, value.to_be_bytes(), out);
}

/// Appends a float32.
pub fn encode_f32(value: f32, out: &mut Vec<u8>) {
    out.push(TAG_F32);
    out.extend_from_slice(&canonical_f32_bits(value).to_be_bytes());
}

/// Appends a float64.
#[inline]
pub fn encode_f64(value: f64, out: &mut Vec<u8>) {
    tagged(TAG_F64, canonical_f64_bits(value).to_be_bytes(), out);
}

/// Appends a decimal.
#[inline]
pub fn encode_decimal(unscaled: i128, scale: u8, out: &mut Vec<u8>) {
    let mut bytes = [scale; 18];
    bytes[0] = TAG_DECIMAL;
    bytes[2..].copy_from_slice(&(unscaled.cast_unsigned() ^ (1 << 127)).to_be_bytes());
    out.extend_from_slice(&bytes);
}

/// Appends a string.
pub fn encode_string(value: &str, out: &mut Vec<u8>) {
    out.push(TAG_STRING);
    escape(value.as_bytes(), out);
}

/// Appends bytes.
pub fn encode_binary(value: &[u8], out: &mut Vec<u8>) {
    out.push(TAG_BINARY);
    escape(value, out);
}

/// Appends a date.
pub fn encode_date(days: i32, out: &mut Vec<u8>) {
    out.push(TAG_DATE);
    out.extend_from_slice(&(days.cast_unsigned() ^ (1 << 31)).to_be_bytes());
}

/// Appends a timestamp.
#[inline]
pub fn encode_timestamp(micros: i64, out: &mut Vec<u8>) {
    tagged(TAG_TIMESTAMP, flip64(micros), out);
}

/// Appends any value.
pub fn encode_value(value: &Value, out: &mut Vec<u8>) {
    match value {
        Value::Null => out.push(TAG_NULL),
        Value::Error => out.push(TAG_ERROR),
        Value::Bool(v) => encode_bool(*v, out),
        Value::Int(v) => encode_int(*v, out),
        Value::UInt(v) => encode_uint(*v, out),
        Value::Float32(v) => encode_f32(*v, out),
        Value::Float64(v) => encode_f64(*v, out),
        Value::Decimal(v, scale) => encode_decimal(*v, *scale, out),
        Value::String(v) => encode_string(v, out),
        Value::Binary(v) => encode_binary(v, out),
        Value::Date(v) => encode_date(*v, out),
        Value::Timestamp(v) => encode_timestamp(*v, out),
        Value::List(items) => {
            out.push(TAG_LIST);
            for item in items.iter() {
                out.push(1);
                encode_value(item, out);
            }
            out.push(0);
        }
    }
}

/// The canonical encoding of a row.
pub fn encode_row<'a>(values: impl IntoIterator<Item = &'a Value>) -> Vec<u8> {
    let mut out = Vec::new();
    for value in values {
        encode_value(value, &mut out);
    }
    out
}

/// Reads the values of a row.
///
/// # Errors
/// Says at which byte `bytes` stop being a canonical row.
pub fn decode_row(bytes: &[u8]) -> Result<Vec<Value>, DecodeError> {
    let mut reader = Reader { bytes, at: 0 };
    let mut values = Vec::new();
    while reader.at < bytes.len() {
        values.push(reader.value(0)?);
    }
    Ok(values)
}

/// Reads one value and returns the number of bytes that it took.
///
/// # Errors
/// Says at which byte `bytes` stop being a canonical value.
pub fn decode_value(bytes: &[u8]) -> Result<(Value, usize), DecodeError> {
    let mut reader = Reader { bytes, at: 0 };
    let value = reader.value(0)?;
    Ok((value, reader.at))
}

/// The length of the value that `bytes` begin with, without reading it; `None` where they begin with
/// none. Looks at no more than is needed to find the end: a value that is found may still not decode.
#[inline]
pub fn encoded_len(bytes: &[u8]) -> Option<usize> {
    let (tag, rest) = bytes.split_first()?;
    let length = match *tag {
        TAG_NULL | TAG_ERROR => 1,
        TAG_BOOL => 2,
        TAG_INT | TAG_UINT | TAG_F64 | TAG_TIMESTAMP => 9,
        TAG_F32 | TAG_DATE => 5,
        TAG_DECIMAL => 18,
        TAG_STRING | TAG_BINARY => {
            let mut at = 0;
            loop {
                at += rest.get(at..)?.iter().position(|byte| *byte == 0)? + 1;
                match rest.get(at)? {
                    0 => break at + 2,
                    _ => at += 1,
                }
            }
        }
        TAG_LIST => {
            let mut at = 1;
            while *bytes.get(at)? == 1 {
                at += 1 + encoded_len(bytes.get(at + 1..)?)?;
            }
            at + 1
        }
        _ => return None,
    };
    (length <= bytes.len()).then_some(length)
}

/// The values of an encoded row, one after the other, still encoded; ends early where the bytes stop
/// being a row.
pub fn cells(mut row: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let (cell, rest) = row.split_at_checked(encoded_len(row)?)?;
        row = rest;
        Some(cell)
    })
}

/// Appends a number in groups of seven bits, the lowest first, the high bit set on all but the last.
pub fn write_varint(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Reads what [`write_varint`] wrote off the front of `bytes`; `None` where they hold no number.
pub fn read_varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

/// Appends both at once.
#[inline]
fn tagged(tag: u8, payload: [u8; 8], out: &mut Vec<u8>) {
    let mut bytes = [tag; 9];
    bytes[1..].copy_from_slice(&payload);
    out.extend_from_slice(&bytes);
}

fn flip64(value: i64) -> [u8; 8] {
    (value.cast_unsigned() ^ (1 << 63)).to_be_bytes()
}

fn escape(bytes: &[u8], out: &mut Vec<u8>) {
    if bytes.contains(&0) {
        for byte in bytes {
            out.push(*byte);
            if *byte == 0 {
                out.push(0xFF);
            }
        }
    } else {
        out.extend_from_slice(bytes);
    }
    out.extend_from_slice(&[0, 0]);
}

/// Lists nest at most once in a column type; decoding refuses deeper nesting than this.
const MAX_DEPTH: usize = 4;

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let chunk =
            rest.first_chunk::<N>().ok_or(DecodeError::Truncated { at: self.bytes.len() })?;
        self.at += N;
        Ok(*chunk)
    }

    /// The bytes of a string; borrowed where none of them is escaped, which nearly all are not.
    fn unescape(&mut self) -> Result<Cow<'a, [u8]>, DecodeError> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        if let Some(plain) = rest.iter().position(|byte| *byte == 0)
            && rest.get(plain + 1) == Some(&0)
        {
            self.at += plain + 2;
            return Ok(Cow::Borrowed(&rest[..plain]));
        }
        let mut out = Vec::new();
        loop {
            let [byte] = self.take()?;
            if byte != 0 {
                out.push(byte);
                continue;
            }
            match self.take()? {
                [0] => return Ok(Cow::Owned(out)),
                [0xFF] => out.push(0),
                _ => {
                    return Err(DecodeError::Payload {
                        at: self.at - 1,
                        what: "a zero byte must be followed by FF or 00",
                    });
                }
            }
        }
    }

    fn value(&mut self, depth: usize) -> Result<Value, DecodeError> {
        let at = self.at;
        let payload = |what| DecodeError::Payload { at: at + 1, what };
        let [tag] = self.take()?;
        Ok(match tag {
            TAG_NULL => Value::Null,
            TAG_ERROR => Value::Error,
            TAG_BOOL => match self.take()? {
                [0] => Value::Bool(false),
                [1] => Value::Bool(true),
                _ => return Err(payload("a bool is 00 or 01")),
            },
            TAG_INT => Value::Int(unflip64(self.take()?)),
            TAG_UINT => Value::UInt(u64::from_be_bytes(self.take()?)),
            TAG_F32 => {
                let at = self.at;
                let bits = u32::from_be_bytes(self.take()?);
                let value = f32::from_bits(match bits >> 31 {
                    1 => bits & !(1 << 31),
                    _ => !bits,
                });
                // Of all NaNs one is written: equal values have equal bytes.
                if value.is_nan() && canonical_f32_bits(value) != bits {
                    return Err(DecodeError::Payload { at, what: OTHER_NAN });
                }
                Value::Float32(value)
            }
            TAG_F64 => {
                let at = self.at;
                let bits = u64::from_be_bytes(self.take()?);
                let value = f64::from_bits(match bits >> 63 {
                    1 => bits & !(1 << 63),
                    _ => !bits,
                });
                if value.is_nan() && canonical_f64_bits(value) != bits {
                    return Err(DecodeError::Payload { at, what: OTHER_NAN });
                }
                Value::Float64(value)
            }
            TAG_DECIMAL => {
                let [scale] = self.take()?;
                let bits = u128::from_be_bytes(self.take()?) ^ (1 << 127);
                Value::Decimal(bits.cast_signed(), scale)
            }
            TAG_STRING => {
                let bytes = self.unescape()?;
                let text =
                    std::str::from_utf8(&bytes).map_err(|_| payload("a string must be UTF-8"))?;
                Value::String(text.into())
            }
            TAG_BINARY => Value::Binary(self.unescape()?.as_ref().into()),
            TAG_DATE => Value::Date((u32::from_be_bytes(self.take()?) ^ (1 << 31)).cast_signed()),
            TAG_TIMESTAMP => Value::Timestamp(unflip64(self.take()?)),
            TAG_LIST if depth < MAX_DEPTH => {
                let mut items = Vec::new();
                loop {
                    match self.take()? {
                        [0] => break Value::List(items.into()),
                        [1] => items.push(self.value(depth + 1)?),
                        _ => return Err(payload("a list element begins with 01")),
                    }
                }
            }
            tag => return Err(DecodeError::Tag { at, tag }),
        })
    }
}

fn unflip64(bytes: [u8; 8]) -> i64 {
    (u64::from_be_bytes(bytes) ^ (1 << 63)).cast_signed()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ColumnType, cells::Cells, value::to_array};
    use proptest::prelude::*;

    #[test]
    fn one_nan_is_written_and_no_other_is_read() {
        for value in [Value::Float32(f32::NAN), Value::Float64(-f64::NAN)] {
            let bytes = encode_row(std::slice::from_ref(&value));
            assert_eq!(decode_row(&bytes), Ok(vec![value]));
            let mut other = bytes.clone();
            *other.last_mut().unwrap() ^= 1;
            assert!(decode_row(&other).unwrap_err().to_string().contains("byte 1: a NaN other"));
        }
        assert!(decode_row(&[5, 0, 3, 1, 130]).is_err());
    }

    #[test]
    fn the_documented_bytes() {
        let row = encode_row(&[
            Value::Null,
            Value::Bool(true),
            Value::Int(-1),
            Value::UInt(258),
            Value::Float64(1.0),
            Value::Decimal(5, 2),
            Value::String("a\0b".into()),
            Value::Date(0),
            Value::Timestamp(1),
            Value::List([Value::Int(0)].into()),
        ]);
        let expected = "00\
            0201\
            037fffffffffffffff\
            040000000000000102\
            06bff0000000000000\
            070280000000000000000000000000000005\
            086100ff620000\
            0a80000000\
            0b8000000000000001\
            0c0103800000000000000000";
        assert_eq!(crate::ids::hex(&row), expected);
    }

    #[test]
    fn broken_bytes_are_named() {
        assert_eq!(decode_row(&[0x03, 1]), Err(DecodeError::Truncated { at: 2 }));
        assert_eq!(decode_row(&[0x00, 0x77]), Err(DecodeError::Tag { at: 1, tag: 0x77 }));
        assert!(matches!(decode_row(&[0x02, 7]), Err(DecodeError::Payload { at: 1, .. })));
        let deep = [[TAG_LIST, 1]; 40].concat();
        assert!(decode_row(&deep).is_err());
    }

    fn any_value() -> impl Strategy<Value = Value> {
        let scalar = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::Bool),
            any::<i64>().prop_map(Value::Int),
            any::<u64>().prop_map(Value::UInt),
            any::<f32>().prop_map(Value::Float32),
            any::<f64>().prop_map(Value::Float64),
            (any::<i128>(), 0u8..38).prop_map(|(v, s)| Value::Decimal(v, s)),
            ".*".prop_map(|s| Value::String(s.into())),
            any::<Vec<u8>>().prop_map(|b| Value::Binary(b.into())),
            any::<i32>().prop_map(Value::Date),
            any::<i64>().prop_map(Value::Timestamp),
        ];
        prop_oneof![
            4 => scalar.clone(),
            1 => prop::collection::vec(scalar, 0..4).prop_map(|v| Value::List(v.into())),
        ]
    }

    proptest! {
        #[test]
        fn rows_round_trip(row in prop::collection::vec(any_value(), 0..6)) {
            prop_assert_eq!(decode_row(&encode_row(&row)).unwrap(), row);
        }

        #[test]
        fn cells_are_found_without_decoding(row in prop::collection::vec(any_value(), 0..6)) {
            let encoded = encode_row(&row);
            let found: Vec<Vec<u8>> = cells(&encoded).map(<[u8]>::to_vec).collect();
            let each: Vec<Vec<u8>> = row.iter().map(|value| encode_row([value])).collect();
            prop_assert_eq!(found, each);
        }

        #[test]
        fn varints_round_trip(value in any::<u64>()) {
            let mut bytes = Vec::new();
            write_varint(value, &mut bytes);
            let mut rest = bytes.as_slice();
            prop_assert_eq!((read_varint(&mut rest), rest.len()), (Some(value), 0));
        }

        #[test]
        fn bytes_order_as_values(a in any_value(), b in any_value()) {
            prop_assert_eq!(encode_row([&a]).cmp(&encode_row([&b])), a.cmp(&b));
        }

        #[test]
        fn no_bytes_panic(bytes in any::<Vec<u8>>()) {
            let _ = (decode_row(&bytes), encoded_len(&bytes), cells(&bytes).count());
        }

        #[test]
        fn arrays_and_values_encode_alike(values in prop::collection::vec(any::<Option<i32>>(), 1..20)) {
            let values: Vec<Value> =
                values.into_iter().map(|v| v.map_or(Value::Null, |v| Value::Int(v.into()))).collect();
            let list = Value::List(values.clone().into());
            for (column_type, values) in [
                (ColumnType::Int32, values),
                (ColumnType::List(Box::new(ColumnType::Int32)), vec![list, Value::Null]),
            ] {
                let array = to_array(&column_type, &values).unwrap();
                let cells = Cells::new(array.as_ref()).unwrap();
                for (row, value) in values.iter().enumerate() {
                    let mut bytes = Vec::new();
                    cells.encode(row, &mut bytes);
                    prop_assert_eq!(&bytes, &encode_row([value]));
                    prop_assert_eq!(&cells.value(row), value);
                }
            }
        }
    }
}
