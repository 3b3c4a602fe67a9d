//! A uniform sample that merges: the `k` values whose events have the least hashes (bottom-k
//! sampling; Cohen and Kaplan, PODC 2007).
//!
//! Which values are kept is a function of the events alone, in any order and cut into any windows.
//! Taking events back keeps it a uniform sample of what is left, though a smaller one where kept
//! events go. Does not compute the hashes: they come with the values.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::exact;

/// At most `capacity` values of the events seen, keyed by the event's hash.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct BottomSample {
    capacity: usize,
    seen: u64,
    kept: BTreeMap<u64, Kept>,
    /// The greatest hash kept, while the sample is full and nothing has gone since it was looked up:
    /// what follows from `kept`, at hand for the events that do not enter.
    #[serde(skip)]
    greatest: Option<u64>,
}

impl PartialEq for BottomSample {
    fn eq(&self, other: &Self) -> bool {
        (self.capacity, self.seen, &self.kept) == (other.capacity, other.seen, &other.kept)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
struct Kept(#[serde(with = "exact::value")] f64);

impl BottomSample {
    /// An empty sample of at most `capacity` values.
    pub fn new(capacity: usize) -> Self {
        Self { capacity, seen: 0, kept: BTreeMap::new(), greatest: None }
    }

    /// Sees one event: its value and its 64-bit hash (of its identity, uniform). Mostly one
    /// comparison once the sample is full.
    pub fn add(&mut self, hash: u64, value: f64) {
        self.seen += 1;
        self.keep(hash, value);
    }

    fn keep(&mut self, hash: u64, value: f64) {
        if self.greatest.is_some_and(|greatest| greatest <= hash) || self.capacity == 0 {
            return;
        }
        if self.kept.len() >= self.capacity
            && self.kept.last_key_value().is_some_and(|(greatest, _)| *greatest <= hash)
        {
            self.note_greatest();
            return;
        }
        self.kept.insert(hash, Kept(value));
        while self.kept.len() > self.capacity {
            self.kept.pop_last();
        }
        self.note_greatest();
    }

    fn note_greatest(&mut self) {
        let full = self.kept.len() >= self.capacity;
        let greatest = self.kept.last_key_value().filter(|_| full);
        self.greatest = greatest.map(|(greatest, _)| *greatest);
    }

    /// Takes one event back that was added.
    pub fn remove(&mut self, hash: u64) {
        self.seen = self.seen.saturating_sub(1);
        self.kept.remove(&hash);
        self.greatest = None;
    }

    /// Adds what `other` saw.
    pub fn merge(&mut self, other: &Self) {
        self.seen += other.seen;
        for (hash, kept) in &other.kept {
            self.keep(*hash, kept.0);
        }
    }

    /// Takes back what `other` saw, which must all have been added.
    pub fn subtract(&mut self, other: &Self) {
        self.seen = self.seen.saturating_sub(other.seen);
        for hash in other.kept.keys() {
            self.kept.remove(hash);
        }
        self.greatest = None;
    }

    /// Whether the sample is every event, so that scores on it are exact.
    pub fn is_complete(&self) -> bool {
        self.kept.len() as u64 == self.seen
    }

    /// The values kept, ascending.
    pub fn sorted(&self) -> Vec<f64> {
        let mut values: Vec<f64> = self.kept.values().map(|kept| kept.0).collect();
        values.sort_unstable_by(f64::total_cmp);
        values
    }

    /// How many values are kept.
    pub fn len(&self) -> usize {
        self.kept.len()
    }

    /// Whether no value is kept.
    pub fn is_empty(&self) -> bool {
        self.kept.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::CounterRandom;

    fn filled(range: std::ops::Range<u64>, capacity: usize) -> BottomSample {
        let random = CounterRandom::new(3, 0);
        let mut sample = BottomSample::new(capacity);
        range.for_each(|event| sample.add(random.at(event), event as f64));
        sample
    }

    #[test]
    fn merging_parts_is_sampling_the_whole() {
        let mut parts = filled(0..300, 64);
        parts.merge(&filled(300..1_000, 64));
        assert_eq!(parts, filled(0..1_000, 64));
        assert_eq!(parts.len(), 64);
        assert!(!parts.is_complete());
    }

    #[test]
    fn a_complete_sample_subtracts_exactly() {
        let mut all = filled(0..100, 1_000);
        all.subtract(&filled(60..100, 1_000));
        assert_eq!(all, filled(0..60, 1_000));
        assert!(all.is_complete());
    }
}
