//! Finding the cells of a canonical row and reading them without allocating.
//!
//! Does not know what the cells are used for.

use falaj_event::encoding::{self, encoded_len};
use falaj_event::{ColumnType, EventOrder, Value};

/// How values of a column lie in slots.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Repr {
    /// One word.
    Bool,
    /// One word.
    Int,
    /// One word.
    UInt,
    /// One word.
    Float32,
    /// One word.
    Float64,
    /// One word.
    Date,
    /// One word.
    Timestamp,
    /// Two words; the scale.
    Decimal(u8),
    /// An encoded value of any length.
    Bytes,
}

impl Repr {
    pub(crate) fn of(column_type: &ColumnType) -> Self {
        match column_type {
            ColumnType::Bool => Self::Bool,
            ColumnType::Int8 | ColumnType::Int16 | ColumnType::Int32 | ColumnType::Int64 => {
                Self::Int
            }
            ColumnType::UInt8 | ColumnType::UInt16 | ColumnType::UInt32 | ColumnType::UInt64 => {
                Self::UInt
            }
            ColumnType::Float32 => Self::Float32,
            ColumnType::Float64 => Self::Float64,
            ColumnType::Date => Self::Date,
            ColumnType::Timestamp => Self::Timestamp,
            ColumnType::Decimal { scale, .. } => Self::Decimal(*scale),
            ColumnType::String | ColumnType::Binary | ColumnType::List(_) => Self::Bytes,
        }
    }

    /// Words that hold a value, and whether it needs an object instead.
    pub(crate) fn words(self) -> (usize, bool) {
        match self {
            Self::Decimal(_) => (2, false),
            Self::Bytes => (0, true),
            _ => (1, false),
        }
    }

    /// Whether a value's canonical encoding is a tag and its 8 order-preserving bytes.
    pub(crate) fn is_8_bytes(self) -> bool {
        matches!(self, Self::Int | Self::UInt | Self::Float64 | Self::Timestamp)
    }

    /// Appends the value whose order-preserving bits are `word` in canonical encoding.
    #[inline]
    pub(crate) fn encode(self, word: u64, out: &mut Vec<u8>) {
        match self {
            Self::Int => encoding::encode_int((word ^ 1 << 63).cast_signed(), out),
            Self::UInt => encoding::encode_uint(word, out),
            Self::Float64 => encoding::encode_f64(f64_of(word), out),
            Self::Timestamp => encoding::encode_timestamp((word ^ 1 << 63).cast_signed(), out),
            _ => encoding::encode_value(&self.value(word), out),
        }
    }

    /// The value whose order-preserving bits are `word`.
    pub(crate) fn value(self, word: u64) -> Value {
        let signed = (word ^ 1 << 63).cast_signed();
        match self {
            Self::Bool => Value::Bool(word != 0),
            Self::Int => Value::Int(signed),
            Self::UInt => Value::UInt(word),
            Self::Timestamp => Value::Timestamp(signed),
            Self::Float32 => Value::Float32(f32_of(word)),
            Self::Float64 => Value::Float64(f64_of(word)),
            Self::Date => Value::Date((word as u32 ^ 1 << 31).cast_signed()),
            Self::Decimal(_) | Self::Bytes => Value::Error,
        }
    }
}

pub(crate) fn f32_of(word: u64) -> f32 {
    let bits = word as u32;
    f32::from_bits(if bits >> 31 == 1 { bits & !(1 << 31) } else { !bits })
}

pub(crate) fn f64_of(word: u64) -> f64 {
    f64::from_bits(if word >> 63 == 1 { word & !(1 << 63) } else { !word })
}

/// The unscaled integer whose order-preserving bits are `wide`.
pub(crate) fn decimal_of(wide: u128) -> i128 {
    (wide ^ 1 << 127).cast_signed()
}

/// One (input, filter) pair.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Lane {
    /// Which cell; `None` for `count(*)`.
    pub(crate) input: Option<usize>,
    /// Which cell.
    pub(crate) filter: Option<usize>,
    /// Of the input.
    pub(crate) repr: Repr,
}

/// What a lane sees in one event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Presence {
    /// Filtered out, or NULL.
    Absent,
    /// The input or the filter is an error.
    Error,
    /// A value.
    Present,
}

/// A lane's input, read once per event.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Parsed {
    pub(crate) presence: Presence,
    /// Order-preserving bits of a one-word value.
    pub(crate) word: u64,
    /// Order-preserving bits of a decimal.
    pub(crate) wide: u128,
    start: u32,
    end: u32,
}

/// One event as accumulators see it.
#[derive(Clone, Copy)]
pub(crate) struct Event<'a> {
    /// One per lane.
    pub(crate) parsed: &'a [Parsed],
    /// The canonical row.
    pub(crate) cells: &'a [u8],
    /// Its place in the total order.
    pub(crate) order: &'a EventOrder,
}

impl<'a> Event<'a> {
    /// The canonical encoding of a lane's value.
    pub(crate) fn encoded(&self, parsed: &Parsed) -> &'a [u8] {
        &self.cells[parsed.start as usize..parsed.end as usize]
    }
}

/// Finds the cells of an event.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Selector {
    cells: usize,
}

impl Selector {
    pub(crate) fn new(cells: usize) -> Self {
        Self { cells }
    }

    /// Finds the byte ranges of the cells; `None` when `row` does not have just as many.
    pub(crate) fn ranges(&self, row: &[u8], out: &mut Vec<(u32, u32)>) -> Option<()> {
        out.clear();
        let mut at = 0;
        for _ in 0..self.cells {
            let end = at + encoded_len(row.get(at..)?)?;
            out.push((u32::try_from(at).ok()?, u32::try_from(end).ok()?));
            at = end;
        }
        (at == row.len()).then_some(())
    }
}

impl Lane {
    /// A lane over cells `input` and `filter`.
    pub(crate) fn new(
        input: Option<usize>,
        filter: Option<usize>,
        input_type: &ColumnType,
    ) -> Self {
        let repr = if input.is_some() { Repr::of(input_type) } else { Repr::Bool };
        Self { input, filter, repr }
    }

    /// Reads the lane's input from the cells that [`Selector::ranges`] found.
    pub(crate) fn parse(&self, cells: &[u8], ranges: &[(u32, u32)]) -> Parsed {
        let mut parsed = Parsed { presence: Presence::Present, word: 0, wide: 0, start: 0, end: 0 };
        if let Some(filter) = self.filter {
            let (start, end) = ranges[filter];
            match &cells[start as usize..end as usize] {
                [_, 1] => {}
                [encoding::TAG_ERROR] => return Parsed { presence: Presence::Error, ..parsed },
                _ => return Parsed { presence: Presence::Absent, ..parsed },
            }
        }
        let Some(input) = self.input else { return parsed };
        (parsed.start, parsed.end) = ranges[input];
        let encoded = &cells[parsed.start as usize..parsed.end as usize];
        match encoded {
            [encoding::TAG_NULL, ..] => parsed.presence = Presence::Absent,
            [encoding::TAG_ERROR, ..] | [] => parsed.presence = Presence::Error,
            [_, payload @ ..] => match self.repr {
                Repr::Bytes => {}
                Repr::Decimal(_) => match payload.last_chunk::<16>() {
                    Some(bytes) => parsed.wide = u128::from_be_bytes(*bytes),
                    None => parsed.presence = Presence::Error,
                },
                _ => match payload.first_chunk::<8>() {
                    Some(bytes) => parsed.word = u64::from_be_bytes(*bytes),
                    None => {
                        parsed.word =
                            payload.iter().fold(0, |word, byte| word << 8 | u64::from(*byte));
                    }
                },
            },
        }
        parsed
    }
}
