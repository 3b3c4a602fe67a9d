//! The values of a row on their way out, in canonical encoding.
//!
//! Why it exists: nearly every value that an aggregate answers is written to a row as it is. Kept as the
//! bytes that it is written as, it is put together once, compared as bytes and copied. Does not know
//! what the values are of.

use falaj_event::Value;
use falaj_event::encoding::{TAG_ERROR, cells, decode_value};

/// Some values, of one row or of several, one after the other.
#[derive(Clone, Debug, Default)]
pub(crate) struct ValueList {
    bytes: Vec<u8>,
    /// Where each value lies; bytes that were replaced stay behind.
    ranges: Vec<(usize, usize)>,
}

/// Some neighbours of a [`ValueList`].
#[derive(Clone, Copy, Debug)]
pub struct Values<'a> {
    bytes: &'a [u8],
    ranges: &'a [(usize, usize)],
}

impl ValueList {
    /// The values of an encoded row, as far as it is one.
    pub(crate) fn of_row(row: &[u8]) -> Self {
        let mut list = Self::default();
        cells(row).for_each(|cell| list.push_encoded(cell));
        list
    }

    pub(crate) fn len(&self) -> usize {
        self.ranges.len()
    }

    pub(crate) fn clear(&mut self) {
        self.bytes.clear();
        self.ranges.clear();
    }

    /// Appends the value that `encode` writes.
    #[inline]
    pub(crate) fn push_with(&mut self, encode: impl FnOnce(&mut Vec<u8>)) {
        let start = self.bytes.len();
        encode(&mut self.bytes);
        self.ranges.push((start, self.bytes.len()));
    }

    pub(crate) fn push_encoded(&mut self, value: &[u8]) {
        self.push_with(|out| out.extend_from_slice(value));
    }

    /// Appends all of `values`.
    pub(crate) fn extend(&mut self, values: Values<'_>) {
        values.iter().for_each(|value| self.push_encoded(value));
    }

    /// Replaces the value at `at` by the one that `encode` writes; says whether it is another one.
    #[inline]
    pub(crate) fn replace_with(&mut self, at: usize, encode: impl FnOnce(&mut Vec<u8>)) -> bool {
        let (start, (from, to)) = (self.bytes.len(), self.ranges[at]);
        encode(&mut self.bytes);
        let (old, new) = self.bytes.split_at(start);
        if same(&old[from..to], new) {
            self.bytes.truncate(start);
            return false;
        }
        self.ranges[at] = (start, self.bytes.len());
        true
    }

    /// All of them.
    pub(crate) fn all(&self) -> Values<'_> {
        Values { bytes: &self.bytes, ranges: &self.ranges }
    }
}

/// Whether both are the same; values that differ mostly do so at the end.
#[inline]
fn same(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.last_chunk::<8>() == b.last_chunk::<8>() && a == b
}

impl<'a> Values<'a> {
    /// No values.
    pub(crate) const NONE: Self = Self { bytes: &[], ranges: &[] };

    pub(crate) fn len(self) -> usize {
        self.ranges.len()
    }

    /// The encoded value at `at`; the mark of an error where there is none.
    #[inline]
    pub(crate) fn encoded(self, at: usize) -> &'a [u8] {
        match self.ranges.get(at) {
            Some((from, to)) => &self.bytes[*from..*to],
            None => &[TAG_ERROR],
        }
    }

    /// The value at `at`.
    pub(crate) fn value(self, at: usize) -> Value {
        decode_value(self.encoded(at)).map_or(Value::Error, |(value, _)| value)
    }

    /// How many of them are the mark of an error.
    pub(crate) fn errors(self) -> usize {
        self.iter().filter(|value| **value == [TAG_ERROR]).count()
    }

    /// All of them as one row, where they lie one after the other.
    pub(crate) fn joined(self) -> Option<&'a [u8]> {
        let (first, last) = (self.ranges.first()?, self.ranges.last()?);
        let are_joined = self.ranges.windows(2).all(|pair| pair[0].1 == pair[1].0);
        are_joined.then(|| &self.bytes[first.0..last.1])
    }

    pub(crate) fn iter(self) -> impl Iterator<Item = &'a [u8]> {
        (0..self.len()).map(move |at| self.encoded(at))
    }

    /// The first `count` of them, all if they are fewer, and the others.
    pub(crate) fn split_at(self, count: usize) -> (Self, Self) {
        let (first, rest) = self.ranges.split_at(count.min(self.ranges.len()));
        (Self { ranges: first, ..self }, Self { ranges: rest, ..self })
    }

    /// All of them, decoded.
    #[cfg(test)]
    pub(crate) fn to_vec(self) -> Vec<Value> {
        (0..self.len()).map(|at| self.value(at)).collect()
    }
}

#[cfg(test)]
mod tests {
    use falaj_event::encoding::{encode_row, encode_value};

    use super::*;

    #[test]
    fn values_are_replaced_by_others_of_any_length() {
        let row = [Value::Null, Value::Int(5), Value::String("a\0b".into())];
        let mut list = ValueList::of_row(&encode_row(&row));
        assert_eq!(list.all().to_vec(), row);
        assert_eq!(list.all().joined(), Some(encode_row(&row).as_slice()));
        assert_eq!(list.all().split_at(1).1.joined(), Some(&encode_row(&row)[1..]));
        assert!(!list.replace_with(1, |out| encode_value(&row[1], out)));
        assert!(list.replace_with(0, |out| encode_value(&row[2], out)));
        assert!(list.replace_with(2, |out| encode_value(&Value::Null, out)));
        assert_eq!(list.all().to_vec(), [row[2].clone(), Value::Int(5), Value::Null]);
        assert_eq!((list.all().joined(), Values::NONE.joined()), (None, None));
        let (first, rest) = list.all().split_at(1);
        assert_eq!((first.len(), rest.to_vec()), (1, vec![Value::Int(5), Value::Null]));
        assert_eq!(rest.value(2), Value::Error);
        list.push_encoded(&[TAG_ERROR]);
        assert_eq!(list.all().errors(), 1);
    }
}
