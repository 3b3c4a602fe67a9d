//! Quantile buckets that subtract: integer counters over fixed buckets of the float64 line.
//!
//! A bucket is all float64 with the same sign, exponent and top six bits of the fraction, so its
//! index is a shift of the bits and needs no logarithm. A bucket's answer is its midpoint, so a
//! finite normal answer is within 1/128 (0.8 %) of the value at the asked rank; zeros, infinities and
//! NaN are answered exactly; subnormals within 2^-1029 absolutely. NaN counts as the greatest value.
//!
//! Does not know which column the values come from.

use crate::sketch::BadSketch;

const DROPPED_BITS: u32 = 46;

/// Counters of the buckets that are not empty, ascending by value.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct QuantileBuckets {
    buckets: Vec<(u32, u64)>,
}

/// Even when the bucket is a range of values; odd, between its neighbours, for zero.
fn index_of(value: f64) -> u32 {
    if value == 0.0 {
        return ((1u64 << 63) >> (DROPPED_BITS - 1)) as u32 - 1;
    }
    let ordered = falaj_event::value::canonical_f64_bits(value);
    ((ordered >> DROPPED_BITS) << 1) as u32
}

fn value_of(index: u32) -> f64 {
    if index & 1 == 1 {
        return 0.0;
    }
    let ordered = u64::from(index >> 1) << DROPPED_BITS;
    let low_bits = if ordered >> 63 == 1 { ordered & !(1 << 63) } else { !ordered };
    // Negative numbers order backwards: the bits of the greatest magnitude come first.
    let magnitude = low_bits & (u64::MAX >> 1) & !((1 << DROPPED_BITS) - 1);
    let middle = match magnitude >> 52 {
        0x7ff => magnitude,
        _ => magnitude | 1 << (DROPPED_BITS - 1),
    };
    f64::from_bits(middle | low_bits & 1 << 63)
}

impl QuantileBuckets {
    /// Counts a value.
    pub fn add(&mut self, value: f64) {
        self.change(index_of(value), 1, false);
    }

    /// Takes back a value that was counted; one that was not is ignored.
    pub fn subtract(&mut self, value: f64) {
        self.change(index_of(value), 1, true);
    }

    fn change(&mut self, index: u32, count: u64, subtract: bool) {
        match self.buckets.binary_search_by_key(&index, |bucket| bucket.0) {
            Ok(at) if subtract => {
                self.buckets[at].1 = self.buckets[at].1.saturating_sub(count);
                if self.buckets[at].1 == 0 {
                    self.buckets.remove(at);
                }
            }
            Ok(at) => self.buckets[at].1 += count,
            Err(_) if subtract => {}
            Err(at) => self.buckets.insert(at, (index, count)),
        }
    }

    /// Adds the counters of `other`, or subtracts them.
    pub fn merge(&mut self, other: &Self, subtract: bool) {
        for (index, count) in &other.buckets {
            self.change(*index, *count, subtract);
        }
    }

    /// The value at rank `⌊q·(n − 1)⌋` (from 0) of the sorted inputs, to the bucket's precision;
    /// `None` when nothing is counted. `q` is clamped to 0..=1.
    pub fn quantile(&self, q: f64) -> Option<f64> {
        let count: u64 = self.buckets.iter().map(|bucket| bucket.1).sum();
        let last = count.checked_sub(1)?;
        let rank = ((q.clamp(0.0, 1.0) * last as f64) as u64).min(last);
        let mut below = 0;
        self.buckets.iter().find_map(|(index, count)| {
            below += count;
            (below > rank).then(|| value_of(*index))
        })
    }

    /// Appends the canonical bytes: the number of buckets as u32 big-endian; each bucket as u32 and
    /// its counter as u64, big-endian, ascending.
    pub fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&(self.buckets.len() as u32).to_be_bytes());
        for (index, count) in &self.buckets {
            out.extend_from_slice(&index.to_be_bytes());
            out.extend_from_slice(&count.to_be_bytes());
        }
    }

    /// Reads canonical bytes off the front of `bytes`.
    ///
    /// # Errors
    /// When `bytes` do not begin with a sketch.
    pub fn read(bytes: &mut &[u8]) -> Result<Self, BadSketch> {
        let (length, rest) = bytes.split_first_chunk::<4>().ok_or(BadSketch)?;
        let length = u32::from_be_bytes(*length) as usize;
        let (entries, rest) = rest.split_at_checked(length.saturating_mul(12)).ok_or(BadSketch)?;
        let mut buckets = Vec::with_capacity(length);
        for entry in entries.chunks_exact(12) {
            let (index, count) = entry.split_first_chunk::<4>().ok_or(BadSketch)?;
            let count = u64::from_be_bytes(count.try_into().map_err(|_| BadSketch)?);
            let index = u32::from_be_bytes(*index);
            if buckets.last().is_some_and(|last: &(u32, u64)| last.0 >= index) || count == 0 {
                return Err(BadSketch);
            }
            buckets.push((index, count));
        }
        *bytes = rest;
        Ok(Self { buckets })
    }

    /// Bytes on the heap.
    pub fn heap_bytes(&self) -> usize {
        self.buckets.capacity() * size_of::<(u32, u64)>()
    }
}
