//! The parts of accumulators that do not fit words.
//!
//! Does not know which function they serve.

use std::collections::BTreeMap;

use falaj_event::EventOrder;

use crate::exact::Spill;
use crate::sketch::{HyperLogLog, QuantileBuckets};

/// A slot's part outside the words; `None` while it is empty.
pub(crate) type Object = Option<Box<Heap>>;

/// A value's canonical encoding.
pub(crate) type Encoded = Box<[u8]>;

#[derive(Clone, Debug)]
pub(crate) enum Heap {
    /// What of an exact sum does not fit inline.
    Spill(Box<Spill>),
    /// The extreme, first or last value.
    Bytes(Encoded),
    /// The greatest values, greatest first.
    Greatest(Vec<Encoded>),
    /// The latest values, latest first.
    Latest(Vec<(EventOrder, Encoded)>),
    /// How often each value occurs.
    Counts(BTreeMap<Encoded, u64>),
    /// HyperLogLog registers.
    Registers(HyperLogLog),
    /// Quantile buckets.
    Buckets(QuantileBuckets),
}

impl Heap {
    /// An estimate of the bytes behind an object, its box included.
    pub(crate) fn bytes(&self) -> usize {
        const NODE: usize = 16;
        size_of::<Self>()
            + match self {
                Self::Spill(spill) => spill.heap_bytes(),
                Self::Bytes(value) => value.len(),
                Self::Greatest(values) => values.iter().map(|value| value.len() + 2 * NODE).sum(),
                Self::Latest(values) => {
                    values.iter().map(|value| value.1.len() + size_of_val(value) + NODE).sum()
                }
                Self::Counts(counts) => counts.keys().map(|value| value.len() + 3 * NODE).sum(),
                Self::Registers(registers) => registers.heap_bytes(),
                Self::Buckets(buckets) => buckets.heap_bytes(),
            }
    }
}

/// Inserts into a list that is kept sorted, greatest first, and at most `limit` long.
pub(crate) fn insert_greatest<T: Ord>(list: &mut Vec<T>, value: T, limit: usize) {
    let at = list.partition_point(|other| *other >= value);
    if at < limit {
        list.insert(at, value);
        list.truncate(limit);
    }
}
