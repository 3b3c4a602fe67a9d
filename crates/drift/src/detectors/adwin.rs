//! ADWIN2: a window that is cut where its two parts have different means (Bifet and Gavaldà,
//! "Learning from time-changing data with adaptive windowing", SIAM SDM 2007).
//!
//! Buckets of 1, 2, 4, … values in rows of at most `max_buckets`; a cut is tried at every bucket's
//! end, the newest of a row included (river's current behaviour; its older one skipped it). Does not
//! keep the values themselves.

use serde::{Deserialize, Serialize};

use super::Signal;
use crate::exact;

/// How ADWIN looks for a cut.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AdwinParameters {
    /// The chance of a false cut.
    #[serde(with = "exact::value")]
    pub delta: f64,
    /// Values between two looks.
    pub clock: u64,
    /// Buckets per row before two are merged; at least 1.
    pub max_buckets: usize,
    /// The least number of values on either side of a cut.
    pub min_window_length: u64,
    /// Values before the first look.
    pub grace_period: u64,
}

impl Default for AdwinParameters {
    fn default() -> Self {
        Self { delta: 0.002, clock: 32, max_buckets: 5, min_window_length: 5, grace_period: 10 }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
struct Bucket {
    #[serde(with = "exact::value")]
    total: f64,
    #[serde(with = "exact::value")]
    variance: f64,
}

/// The adaptive window. O(log n) memory; O(1) amortised per value, O(log n) buckets per look.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Adwin {
    parameters: AdwinParameters,
    /// Row `i` holds buckets of `2^i` values, the oldest first.
    rows: Vec<Vec<Bucket>>,
    width: u64,
    #[serde(with = "exact::value")]
    total: f64,
    /// Sum of squared distances from the mean.
    #[serde(with = "exact::value")]
    variance: f64,
    ticks: u64,
    drifted: bool,
}

impl Adwin {
    /// An empty window.
    pub fn new(parameters: AdwinParameters) -> Self {
        Self {
            parameters,
            rows: vec![Vec::new()],
            width: 0,
            total: 0.0,
            variance: 0.0,
            ticks: 0,
            drifted: false,
        }
    }

    /// Takes one value in.
    pub fn update(&mut self, value: f64) -> Signal {
        if !value.is_finite() {
            return Signal::Stable;
        }
        if self.drifted {
            *self = Self::new(self.parameters);
        }
        self.insert(value);
        self.ticks += 1;
        let due = self.ticks.is_multiple_of(self.parameters.clock.max(1));
        if due && self.width > self.parameters.grace_period {
            while self.cut_once() {
                self.drifted = true;
            }
        }
        if self.drifted { Signal::Drift } else { Signal::Stable }
    }

    /// Values in the window.
    pub fn width(&self) -> u64 {
        self.width
    }

    /// Their sum.
    pub fn total(&self) -> f64 {
        self.total
    }

    /// Their mean; 0 where there are none.
    pub fn mean(&self) -> f64 {
        if self.width == 0 { 0.0 } else { self.total / self.width as f64 }
    }

    /// Their variance, dividing by n; 0 where there are none.
    pub fn variance(&self) -> f64 {
        if self.width == 0 { 0.0 } else { self.variance / self.width as f64 }
    }

    fn insert(&mut self, value: f64) {
        if self.width > 0 {
            let before = self.width as f64;
            let distance = value - self.total / before;
            self.variance += before * distance * distance / (before + 1.0);
        }
        self.width += 1;
        self.total += value;
        if let Some(row) = self.rows.first_mut() {
            row.push(Bucket { total: value, variance: 0.0 });
        }
        self.compress();
    }

    /// Merges the two oldest buckets of every row that is over its bound into the next row.
    fn compress(&mut self) {
        let mut index = 0;
        while self.rows.get(index).is_some_and(|row| row.len() > self.parameters.max_buckets.max(1))
        {
            let size = bucket_size(index) as f64;
            let (first, second) = (self.rows[index][0], self.rows[index][1]);
            self.rows[index].drain(..2);
            let distance = first.total / size - second.total / size;
            let merged = Bucket {
                total: first.total + second.total,
                variance: first.variance
                    + second.variance
                    + size * size * distance * distance / (size + size),
            };
            if self.rows.len() == index + 1 {
                self.rows.push(Vec::new());
            }
            self.rows[index + 1].push(merged);
            index += 1;
        }
    }

    /// Looks for a cut from the oldest bucket on; drops the oldest bucket where there is one.
    fn cut_once(&mut self) -> bool {
        let least = self.parameters.min_window_length;
        let (mut old, mut old_total) = (0_u64, 0.0);
        for (index, row) in self.rows.iter().enumerate().rev() {
            for bucket in row {
                old += bucket_size(index);
                old_total += bucket.total;
                let new = self.width.saturating_sub(old);
                if new == 0 {
                    return false;
                }
                let new_total = self.total - old_total;
                let distance = old_total / old as f64 - new_total / new as f64;
                if old >= least && new >= least && distance.abs() > self.bound(old, new) {
                    self.drop_oldest();
                    return true;
                }
            }
        }
        false
    }

    /// The paper's epsilon, by the normal approximation with Bernstein's correction.
    fn bound(&self, old: u64, new: u64) -> f64 {
        let least = self.parameters.min_window_length as f64;
        let width = self.width as f64;
        let confidence = libm::log(2.0 * libm::log(width) / self.parameters.delta);
        let inverse = 1.0 / (old as f64 - least + 1.0) + 1.0 / (new as f64 - least + 1.0);
        (2.0 * inverse * (self.variance / width) * confidence).sqrt()
            + 2.0 / 3.0 * confidence * inverse
    }

    fn drop_oldest(&mut self) {
        let Some(index) = self.rows.iter().rposition(|row| !row.is_empty()) else { return };
        let bucket = self.rows[index].remove(0);
        let size = bucket_size(index);
        self.width = self.width.saturating_sub(size);
        self.total -= bucket.total;
        let (count, rest) = (size as f64, self.width as f64);
        let distance = bucket.total / count - self.total / rest.max(1.0);
        let spread = count * rest * distance * distance / (count + rest);
        self.variance = (self.variance - bucket.variance - spread).max(0.0);
        while self.rows.len() > 1 && self.rows.last().is_some_and(Vec::is_empty) {
            self.rows.pop();
        }
    }
}

fn bucket_size(row: usize) -> u64 {
    1 << row.min(62)
}
