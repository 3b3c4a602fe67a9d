//! A quantile sketch that merges and subtracts: counts of values in buckets of equal relative width.
//!
//! Buckets are cut out of the float's own bits (sign, exponent and the leading bits of the
//! mantissa), in the manner of HdrHistogram and of DDSketch (Masson, Rim and Lee, VLDB 2019) but
//! without a logarithm: the same bits everywhere. Counts are a multiset, so merging and subtracting
//! are exact and in any order. Does not know exact extremes: it knows the buckets they lie in.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::DriftError;

/// Mantissa bits that a bucket keeps.
const KEPT_BITS: u32 = 7;

/// The greatest relative distance of a value from its bucket's middle.
pub const RELATIVE_ERROR: f64 = 1.0 / (1 << (KEPT_BITS + 1)) as f64;

/// Values counted in buckets; NaN is not counted. At most a few hundred buckets are in use for
/// data of ordinary range.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct QuantileSketch {
    buckets: BTreeMap<i64, u64>,
    count: u64,
}

impl QuantileSketch {
    /// Counts `value` once. O(log buckets).
    pub fn add(&mut self, value: f64) {
        if !value.is_nan() {
            *self.buckets.entry(bucket(value)).or_default() += 1;
            self.count += 1;
        }
    }

    /// Takes back one `value` that was added.
    ///
    /// # Errors
    /// [`DriftError::Underflow`] where no value of its bucket is there; nothing is changed.
    pub fn remove(&mut self, value: f64) -> Result<(), DriftError> {
        if value.is_nan() {
            return Ok(());
        }
        self.take(bucket(value), 1)
    }

    /// Adds everything that `other` counts.
    pub fn merge(&mut self, other: &Self) {
        for (bucket, count) in &other.buckets {
            *self.buckets.entry(*bucket).or_default() += count;
        }
        self.count += other.count;
    }

    /// Takes back everything that `other` counts.
    ///
    /// # Errors
    /// [`DriftError::Underflow`] where it was not all added; nothing is changed.
    pub fn subtract(&mut self, other: &Self) -> Result<(), DriftError> {
        let own = |bucket| self.buckets.get(bucket).copied().unwrap_or(0);
        if other.buckets.iter().any(|(bucket, count)| own(bucket) < *count) {
            return Err(DriftError::Underflow("a quantile sketch"));
        }
        for (bucket, count) in &other.buckets {
            self.take(*bucket, *count)?;
        }
        Ok(())
    }

    fn take(&mut self, bucket: i64, count: u64) -> Result<(), DriftError> {
        let underflow = DriftError::Underflow("a quantile sketch");
        let held = self.buckets.get_mut(&bucket).ok_or(underflow.clone())?;
        *held = held.checked_sub(count).ok_or(underflow)?;
        if *held == 0 {
            self.buckets.remove(&bucket);
        }
        self.count -= count;
        Ok(())
    }

    /// How many values.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The buckets' middles and counts, ascending.
    pub fn points(&self) -> impl Iterator<Item = (f64, u64)> {
        self.buckets.iter().map(|(bucket, count)| (middle(*bucket), *count))
    }

    /// The middle of the bucket of the value with rank `ceil(q n)`, within [`RELATIVE_ERROR`] of
    /// it; `None` where nothing was counted.
    pub fn quantile(&self, q: f64) -> Option<f64> {
        let rank = ((q.clamp(0.0, 1.0) * self.count as f64).ceil() as u64).max(1);
        let mut seen = 0;
        self.points().find_map(|(value, count)| {
            seen += count;
            (seen >= rank).then_some(value)
        })
    }

    /// How many values lie in buckets below the lowest or above the highest of `other`; all of them
    /// where `other` is empty.
    pub fn beyond(&self, other: &Self) -> u64 {
        let (low, high) = (other.buckets.first_key_value(), other.buckets.last_key_value());
        let (Some((low, _)), Some((high, _))) = (low, high) else { return self.count };
        let outside = self.buckets.iter().filter(|(bucket, _)| *bucket < low || *bucket > high);
        outside.map(|(_, count)| count).sum()
    }

    /// Bounds that every counted value lies within: the outer ends of the outermost buckets.
    pub fn bounds(&self) -> Option<(f64, f64)> {
        let (low, _) = self.buckets.first_key_value()?;
        let (high, _) = self.buckets.last_key_value()?;
        Some((ends(*low).0, ends(*high).1))
    }
}

/// The bucket of a value: monotone in it; 0 for zero, negated for negative values.
fn bucket(value: f64) -> i64 {
    let leading = (value.abs().to_bits() >> (52 - KEPT_BITS)) as i64;
    // Zero and the deepest subnormals share bucket 0; one more keeps ±0 apart from ±tiny.
    let magnitude = if value == 0.0 { 0 } else { leading + 1 };
    if value < 0.0 { -magnitude } else { magnitude }
}

fn ends(bucket: i64) -> (f64, f64) {
    if bucket == 0 {
        return (0.0, 0.0);
    }
    let leading = bucket.unsigned_abs() - 1;
    let low = f64::from_bits(leading << (52 - KEPT_BITS));
    let high = f64::from_bits(((leading + 1) << (52 - KEPT_BITS)) - 1);
    // The bucket of infinity holds nothing else.
    let high = if low.is_infinite() { low } else { high };
    if bucket < 0 { (-high, -low) } else { (low, high) }
}

fn middle(bucket: i64) -> f64 {
    let (low, high) = ends(bucket);
    if low == high { low } else { low + (high - low) / 2.0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_bucket_holds_its_values(value in -1e12_f64..1e12, tiny in -1e-300_f64..1e-300) {
            for value in [value, tiny, 0.0, -0.0] {
                let (low, high) = ends(bucket(value));
                prop_assert!(low <= value && value <= high, "{value} not in [{low}, {high}]");
            }
            let error = (middle(bucket(value)) - value).abs();
            prop_assert!(error <= value.abs() * RELATIVE_ERROR);
        }

        #[test]
        fn buckets_are_monotone(a in any::<f64>(), b in any::<f64>()) {
            prop_assume!(!a.is_nan() && !b.is_nan());
            if a <= b {
                prop_assert!(bucket(a) <= bucket(b));
            }
        }

        #[test]
        fn subtracting_undoes_merging(
            left in prop::collection::vec(-1e3_f64..1e3, 0..60),
            right in prop::collection::vec(-1e3_f64..1e3, 0..60),
        ) {
            let fill = |values: &[f64]| {
                let mut sketch = QuantileSketch::default();
                values.iter().for_each(|value| sketch.add(*value));
                sketch
            };
            let (one, two) = (fill(&left), fill(&right));
            let mut both = one.clone();
            both.merge(&two);
            let together: Vec<f64> = left.iter().chain(&right).copied().collect();
            prop_assert_eq!(&both, &fill(&together));
            both.subtract(&two).unwrap();
            prop_assert_eq!(both, one);
        }
    }

    #[test]
    fn quantiles_are_within_the_stated_error() {
        let mut sketch = QuantileSketch::default();
        (1..=10_000).for_each(|value| sketch.add(f64::from(value) * 0.37));
        for q in [0.0, 0.01, 0.5, 0.99, 1.0] {
            let rank = (q * 10_000.0_f64).ceil().max(1.0);
            let found = sketch.quantile(q).unwrap();
            assert!((found - rank * 0.37).abs() <= rank * 0.37 * RELATIVE_ERROR);
        }
        assert_eq!(QuantileSketch::default().quantile(0.5), None);
    }

    #[test]
    fn infinities_are_counted_and_nan_is_not() {
        let mut sketch = QuantileSketch::default();
        [f64::INFINITY, f64::NEG_INFINITY, f64::NAN, 1.0].iter().for_each(|v| sketch.add(*v));
        assert_eq!(sketch.count(), 3);
        assert_eq!(sketch.bounds(), Some((f64::NEG_INFINITY, f64::INFINITY)));
        assert!(sketch.remove(7.0).is_err());
    }
}
