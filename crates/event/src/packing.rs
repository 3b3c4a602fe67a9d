//! Cells in fewer bytes: how rows are stored where nobody compares them byte by byte.
//!
//! Why it exists: canonical encoding ([`crate::encoding`]) is made to be compared, and a count of three
//! takes nine bytes in it. Packed, it takes two. Numbers lose what can be put back: leading zeros of
//! integers, trailing zeros of floating point numbers. Everything else stays as it is.
//!
//! A packed cell begins with a head: the cell's tag in the low four bits, a length or value in the high
//! ones.
//!
//! | tag | high bits of the head | what follows |
//! | --- | --- | --- |
//! | null, error | 0 | nothing |
//! | bool | the value | nothing |
//! | int, timestamp | number of bytes | the value in zigzag (`2v`, or `−2v − 1` below zero), the lowest byte first, without its leading zero bytes |
//! | date | number of bytes | likewise |
//! | uint | number of bytes | the value, likewise |
//! | decimal | number of bytes, 15 for 15 or 16 | scale; the unscaled value in zigzag, likewise, 16 bytes for 15 |
//! | float32, float64 | number of bytes | the canonical payload without its trailing zero bytes |
//! | string, binary, list | 0 | the canonical payload |
//! | 15, which is no cell's | 0 | bytes that are no cells, up to the end |
//!
//! Any bytes can be packed and come back the same. Packed bytes cannot be compared but for equality.
//!
//! Does not know what the cells mean.

use crate::encoding::{
    TAG_BINARY, TAG_BOOL, TAG_DATE, TAG_DECIMAL, TAG_ERROR, TAG_F32, TAG_F64, TAG_INT, TAG_LIST,
    TAG_NULL, TAG_STRING, TAG_TIMESTAMP, TAG_UINT, encoded_len,
};

/// The head before bytes that are no cells.
const OTHER: u8 = 0x0F;
/// In a decimal's head: all 16 bytes follow.
const ALL_BYTES: usize = 15;

/// Appends the cells of a canonical row, packed. Bytes that are no row come back the same.
pub fn pack_row(mut row: &[u8], out: &mut Vec<u8>) {
    while let Some((cell, rest)) = encoded_len(row).and_then(|len| row.split_at_checked(len)) {
        if !pack_cell(cell, out) {
            break;
        }
        row = rest;
    }
    if !row.is_empty() {
        out.push(OTHER);
        out.extend_from_slice(row);
    }
}

/// Appends one canonical cell, packed; says whether it is one that is written.
#[inline]
fn pack_cell(cell: &[u8], out: &mut Vec<u8>) -> bool {
    let Some((&tag, payload)) = cell.split_first() else { return false };
    match (tag, payload) {
        (TAG_NULL | TAG_ERROR, []) => out.push(tag),
        (TAG_BOOL, [value @ (0 | 1)]) => out.push(tag | value << 4),
        (TAG_INT | TAG_TIMESTAMP, _) => match payload.first_chunk::<8>() {
            Some(bytes) => {
                let value = (u64::from_be_bytes(*bytes) ^ 1 << 63).cast_signed();
                push_number(tag, ((value << 1) ^ (value >> 63)).cast_unsigned(), out);
            }
            None => return false,
        },
        (TAG_UINT, _) => match payload.first_chunk::<8>() {
            Some(bytes) => push_number(tag, u64::from_be_bytes(*bytes), out),
            None => return false,
        },
        (TAG_DATE, _) => match payload.first_chunk::<4>() {
            Some(bytes) => {
                let value = (u32::from_be_bytes(*bytes) ^ 1 << 31).cast_signed();
                push_number(tag, ((value << 1) ^ (value >> 31)).cast_unsigned().into(), out);
            }
            None => return false,
        },
        (TAG_F64, _) => match payload.first_chunk::<8>() {
            Some(bytes) => push_number(tag, u64::from_le_bytes(*bytes), out),
            None => return false,
        },
        (TAG_F32, _) => match payload.first_chunk::<4>() {
            Some(bytes) => push_number(tag, u32::from_le_bytes(*bytes).into(), out),
            None => return false,
        },
        (TAG_DECIMAL, [scale, bytes @ ..]) => match bytes.first_chunk::<16>() {
            Some(bytes) => push_decimal(*scale, *bytes, out),
            None => return false,
        },
        (TAG_STRING | TAG_BINARY | TAG_LIST, _) => out.extend_from_slice(cell),
        _ => return false,
    }
    true
}

/// Appends a head and the bytes of a number, the lowest first, without its leading zeros.
#[inline]
fn push_number(tag: u8, number: u64, out: &mut Vec<u8>) {
    let length = 8 - number.leading_zeros() as usize / 8;
    let mut bytes = [0; 9];
    bytes[0] = tag | (length as u8) << 4;
    bytes[1..].copy_from_slice(&number.to_le_bytes());
    // All of them and less again: a length that is known is copied without a call.
    out.extend_from_slice(&bytes);
    out.truncate(out.len() - (8 - length));
}

#[inline]
fn push_decimal(scale: u8, bytes: [u8; 16], out: &mut Vec<u8>) {
    let value = (u128::from_be_bytes(bytes) ^ 1 << 127).cast_signed();
    let number = ((value << 1) ^ (value >> 127)).cast_unsigned();
    let length = 16 - number.leading_zeros() as usize / 8;
    let mut packed = [scale; 18];
    packed[0] = TAG_DECIMAL | (length.min(ALL_BYTES) as u8) << 4;
    packed[2..].copy_from_slice(&number.to_le_bytes());
    out.extend_from_slice(&packed);
    if length < ALL_BYTES {
        out.truncate(out.len() - (16 - length));
    }
}

/// The length of the packed cell that `bytes` begin with; `None` where they begin with none.
#[inline]
pub fn packed_len(bytes: &[u8]) -> Option<usize> {
    let head = *bytes.first()?;
    let (tag, high) = (head & 0x0F, usize::from(head >> 4));
    let length = match tag {
        TAG_NULL | TAG_ERROR if high == 0 => 1,
        TAG_BOOL if high <= 1 => 1,
        TAG_INT | TAG_TIMESTAMP | TAG_UINT | TAG_F64 if high <= 8 => 1 + high,
        TAG_DATE | TAG_F32 if high <= 4 => 1 + high,
        TAG_DECIMAL if high == ALL_BYTES => 18,
        TAG_DECIMAL => 2 + high,
        TAG_STRING | TAG_BINARY | TAG_LIST => encoded_len(bytes)?,
        OTHER if high == 0 => bytes.len(),
        _ => return None,
    };
    (length <= bytes.len()).then_some(length)
}

/// The cells of a packed row, one after the other, still packed; ends early where the bytes stop being
/// a packed row.
pub fn packed_cells(mut row: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let (cell, rest) = row.split_at_checked(packed_len(row)?)?;
        row = rest;
        Some(cell)
    })
}

/// Appends one packed cell as it was; `None` where it is not one.
#[inline]
pub fn unpack_cell(cell: &[u8], out: &mut Vec<u8>) -> Option<()> {
    let (&head, payload) = cell.split_first()?;
    let (tag, high) = (head & 0x0F, head >> 4);
    match tag {
        TAG_NULL | TAG_ERROR => out.push(tag),
        TAG_BOOL => out.extend_from_slice(&[tag, high]),
        TAG_INT | TAG_TIMESTAMP => {
            let number = number(payload)?;
            let value = (number >> 1) ^ (number & 1).wrapping_neg();
            push_8(tag, (value ^ 1 << 63).to_be_bytes(), out);
        }
        TAG_UINT => push_8(tag, number(payload)?.to_be_bytes(), out),
        TAG_F64 => push_8(tag, number(payload)?.to_le_bytes(), out),
        TAG_DATE => {
            let number = u32::try_from(number(payload)?).ok()?;
            let value = (number >> 1) ^ (number & 1).wrapping_neg();
            out.push(tag);
            out.extend_from_slice(&(value ^ 1 << 31).to_be_bytes());
        }
        TAG_F32 => {
            out.push(tag);
            out.extend_from_slice(&u32::try_from(number(payload)?).ok()?.to_le_bytes());
        }
        TAG_DECIMAL => {
            let (&scale, payload) = payload.split_first()?;
            let mut bytes = [0; 16];
            bytes.get_mut(..payload.len())?.copy_from_slice(payload);
            let number = u128::from_le_bytes(bytes);
            let value = (number >> 1) ^ (number & 1).wrapping_neg();
            let mut cell = [scale; 18];
            cell[0] = tag;
            cell[2..].copy_from_slice(&(value ^ 1 << 127).to_be_bytes());
            out.extend_from_slice(&cell);
        }
        TAG_STRING | TAG_BINARY | TAG_LIST => out.extend_from_slice(cell),
        OTHER => out.extend_from_slice(payload),
        _ => return None,
    }
    Some(())
}

/// Appends the cells of a packed row as they were; `None` where it is not one.
pub fn unpack_row(mut row: &[u8], out: &mut Vec<u8>) -> Option<()> {
    while !row.is_empty() {
        let (cell, rest) = row.split_at_checked(packed_len(row)?)?;
        unpack_cell(cell, out)?;
        row = rest;
    }
    Some(())
}

/// The number whose lowest bytes these are; `None` where they are more than 8.
#[inline]
fn number(bytes: &[u8]) -> Option<u64> {
    let mut all = [0; 8];
    all.get_mut(..bytes.len())?.copy_from_slice(bytes);
    Some(u64::from_le_bytes(all))
}

#[inline]
fn push_8(tag: u8, payload: [u8; 8], out: &mut Vec<u8>) {
    let mut cell = [tag; 9];
    cell[1..].copy_from_slice(&payload);
    out.extend_from_slice(&cell);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::Value;
    use crate::encoding::{cells, encode_row};
    use crate::ids::hex;

    fn packed(row: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        pack_row(row, &mut out);
        out
    }

    fn unpacked(row: &[u8]) -> Option<Vec<u8>> {
        let mut out = Vec::new();
        unpack_row(row, &mut out).map(|()| out)
    }

    #[test]
    fn the_documented_bytes() {
        let list = Value::List([Value::Int(1)].into_iter().collect());
        for (value, expected) in [
            (Value::Null, "00"),
            (Value::Error, "01"),
            (Value::Bool(false), "02"),
            (Value::Bool(true), "12"),
            (Value::Int(0), "03"),
            (Value::Int(3), "13 06"),
            (Value::Int(-1), "13 01"),
            (Value::Int(300), "23 58 02"),
            (Value::Int(i64::MIN), "83 ff ff ff ff ff ff ff ff"),
            (Value::UInt(300), "24 2c 01"),
            (Value::Timestamp(1_000_000), "3b 80 84 1e"),
            (Value::Date(-2), "1a 03"),
            (Value::Float64(1.5), "26 bf f8"),
            (Value::Float32(-1.0), "45 40 7f ff ff"),
            (Value::Decimal(-5, 2), "17 02 09"),
            (Value::Decimal(1 << 120, 0), "f7 00 00000000000000000000000000000002"),
            (Value::String("ab".into()), "08 61 62 00 00"),
            (list, "0c 01 03 80 00 00 00 00 00 00 01 00"),
        ] {
            let row = encode_row([&value]);
            let bytes = packed(&row);
            assert_eq!(hex(&bytes), expected.replace(' ', ""), "{value:?}");
            assert_eq!(packed_len(&bytes), Some(bytes.len()), "{value:?}");
            assert_eq!(unpacked(&bytes), Some(row), "{value:?}");
        }
    }

    fn values() -> impl Strategy<Value = Value> {
        let shifted = (any::<i64>(), 0..64u32).prop_map(|(value, by)| value >> by);
        let wide = (any::<i128>(), 0..128u32).prop_map(|(value, by)| value >> by);
        prop_oneof![
            Just(Value::Null),
            Just(Value::Error),
            any::<bool>().prop_map(Value::Bool),
            shifted.clone().prop_map(Value::Int),
            shifted.clone().prop_map(|value| Value::UInt(value.cast_unsigned())),
            shifted.clone().prop_map(Value::Timestamp),
            shifted.clone().prop_map(|value| Value::Date(value as i32)),
            shifted.prop_map(|value| Value::Float64(value as f64 / 8.0)),
            any::<f64>().prop_map(Value::Float64),
            any::<f32>().prop_map(Value::Float32),
            (wide, 0..38u8).prop_map(|(value, scale)| Value::Decimal(value, scale)),
            ".{0,9}".prop_map(|text| Value::String(text.into())),
        ]
    }

    proptest! {
        #[test]
        fn rows_come_back_and_are_no_longer(row in prop::collection::vec(values(), 0..12)) {
            let row = encode_row(&row);
            let bytes = packed(&row);
            prop_assert!(bytes.len() <= row.len());
            prop_assert_eq!(packed_cells(&bytes).count(), cells(&row).count());
            for (packed, cell) in packed_cells(&bytes).zip(cells(&row)) {
                prop_assert_eq!(unpacked(packed), Some(cell.to_vec()));
            }
            prop_assert_eq!(unpacked(&bytes), Some(row));
        }

        #[test]
        fn any_bytes_come_back(bytes in any::<Vec<u8>>(), row in prop::collection::vec(values(), 0..4)) {
            let bytes = [encode_row(&row), bytes].concat();
            prop_assert_eq!(unpacked(&packed(&bytes)), Some(bytes));
        }

        #[test]
        fn no_bytes_panic(bytes in any::<Vec<u8>>()) {
            let _ = unpacked(&bytes);
            let _ = packed_cells(&bytes).count();
            let _ = unpack_cell(&bytes, &mut Vec::new());
        }
    }
}
