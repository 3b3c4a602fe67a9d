//! Summaries of one column over one window: what the scores at its close are made of.
//!
//! Counts and multisets, so that they merge and subtract exactly, in any order: a day is the sum of
//! its hours, a late or retracted event is one step, a reference without one of its chunks is a
//! subtraction. Does not know windows or columns' names.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::DriftError;
use crate::bins::BinDefinition;
use crate::sample::BottomSample;
use crate::sketch::QuantileSketch;

/// A numeric column: a histogram, a quantile sketch, a bounded sample and the missing values.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NumericSummary {
    /// The bins that are counted.
    pub bins: BinDefinition,
    /// Values per bin.
    pub counts: Vec<u64>,
    /// Values that lie in no bin.
    pub outside: u64,
    /// Values below and above the reference's range, where [`NumericSummary::range`] is set.
    pub beyond: u64,
    /// Rows without a value: NULL or NaN.
    pub missing: u64,
    /// The least and greatest value of the reference.
    #[serde(with = "range_form")]
    pub range: Option<(f64, f64)>,
    /// Counts by relative width.
    pub sketch: QuantileSketch,
    /// A bounded uniform sample.
    pub sample: BottomSample,
    /// Whether the sketch is kept: not where the sample answers what it is asked.
    #[serde(default = "yes", skip_serializing_if = "Clone::clone")]
    pub sketched: bool,
}

fn yes() -> bool {
    true
}

/// The range as two exact floats.
mod range_form {
    use serde::{Deserializer, Serializer};

    use crate::exact::list;

    pub(super) fn serialize<S: Serializer>(
        range: &Option<(f64, f64)>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        let values = range.map_or_else(Vec::new, |(low, high)| vec![low, high]);
        list::serialize(&values, serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<(f64, f64)>, D::Error> {
        let values = list::deserialize(deserializer)?;
        Ok(match values.as_slice() {
            [low, high] => Some((*low, *high)),
            _ => None,
        })
    }
}

impl NumericSummary {
    /// An empty summary over `bins`, with a sample of at most `sample` values (0: none), that
    /// counts values outside `range` apart.
    pub fn new(bins: BinDefinition, range: Option<(f64, f64)>, sample: usize) -> Self {
        let counts = vec![0; bins.len()];
        Self {
            bins,
            counts,
            outside: 0,
            beyond: 0,
            missing: 0,
            range,
            sketch: QuantileSketch::default(),
            sample: BottomSample::new(sample),
            sketched: true,
        }
    }

    /// The same without a sketch, before anything is added: a window with a sample does not need one.
    pub fn without_sketch(mut self) -> Self {
        self.sketched = false;
        self
    }

    /// The summary of a reference: its values (`None` is missing) over `bins`, with its own range.
    /// The sample is drawn by position, under a fixed seed.
    pub fn of_reference(bins: BinDefinition, values: &[Option<f64>], sample: usize) -> Self {
        let present = values.iter().flatten().copied().filter(|value| !value.is_nan());
        let range = present.fold(None, |range: Option<(f64, f64)>, value| {
            let (low, high) = range.unwrap_or((value, value));
            Some((low.min(value), high.max(value)))
        });
        let mut summary = Self::new(bins, range, sample);
        let random = crate::CounterRandom::new(0, 0);
        for (position, value) in values.iter().enumerate() {
            summary.add(random.at(position as u64), *value);
        }
        summary
    }

    /// An empty summary that a window fills, comparable with this one.
    pub fn empty_like(&self, sample: usize) -> Self {
        Self::new(self.bins.clone(), self.range, sample)
    }

    /// Counts one row: the hash of its event's identity and its value. O(log bins + log buckets),
    /// plus O(log sample) for the rows that enter the sample.
    pub fn add(&mut self, hash: u64, value: Option<f64>) {
        let Some(value) = value.filter(|value| !value.is_nan()) else {
            self.missing += 1;
            return;
        };
        match self.bins.of_number(value).and_then(|bin| self.counts.get_mut(bin)) {
            Some(count) => *count += 1,
            None => self.outside += 1,
        }
        self.beyond += u64::from(self.is_beyond(value));
        if self.sketched {
            self.sketch.add(value);
        }
        self.sample.add(hash, value);
    }

    /// Takes back one row that was added.
    ///
    /// # Errors
    /// [`DriftError::Underflow`] where no such row was added; nothing is changed.
    pub fn remove(&mut self, hash: u64, value: Option<f64>) -> Result<(), DriftError> {
        let underflow = DriftError::Underflow("a numeric summary");
        let Some(value) = value.filter(|value| !value.is_nan()) else {
            self.missing = self.missing.checked_sub(1).ok_or(underflow)?;
            return Ok(());
        };
        let beyond = self.beyond.checked_sub(u64::from(self.is_beyond(value)));
        let beyond = beyond.ok_or(underflow.clone())?;
        let held = match self.bins.of_number(value).and_then(|bin| self.counts.get_mut(bin)) {
            Some(count) => count,
            None => &mut self.outside,
        };
        let rest = held.checked_sub(1).ok_or(underflow)?;
        if self.sketched {
            self.sketch.remove(value)?;
        }
        *held = rest;
        self.beyond = beyond;
        self.sample.remove(hash);
        Ok(())
    }

    fn is_beyond(&self, value: f64) -> bool {
        self.range.is_some_and(|(low, high)| value < low || value > high)
    }

    /// Adds the rows of `other`.
    ///
    /// # Errors
    /// [`DriftError::DifferentBins`] where the two do not count alike; nothing is changed.
    pub fn merge(&mut self, other: &Self) -> Result<(), DriftError> {
        self.check(other)?;
        self.counts.iter_mut().zip(&other.counts).for_each(|(own, more)| *own += more);
        self.outside += other.outside;
        self.beyond += other.beyond;
        self.missing += other.missing;
        self.sketch.merge(&other.sketch);
        self.sample.merge(&other.sample);
        Ok(())
    }

    /// Takes back the rows of `other`, all of which must have been added.
    ///
    /// # Errors
    /// [`DriftError`] where they were not, or the two do not count alike; nothing is changed.
    pub fn subtract(&mut self, other: &Self) -> Result<(), DriftError> {
        self.check(other)?;
        let underflow = DriftError::Underflow("a numeric summary");
        let counts = subtract_counts(&self.counts, &other.counts).ok_or(underflow.clone())?;
        let rest = |own: u64, less: u64| own.checked_sub(less).ok_or(underflow.clone());
        let outside = rest(self.outside, other.outside)?;
        let beyond = rest(self.beyond, other.beyond)?;
        let missing = rest(self.missing, other.missing)?;
        self.sketch.subtract(&other.sketch)?;
        self.sample.subtract(&other.sample);
        (self.counts, self.outside, self.beyond, self.missing) = (counts, outside, beyond, missing);
        Ok(())
    }

    fn check(&self, other: &Self) -> Result<(), DriftError> {
        let alike = self.sketched == other.sketched;
        if alike && self.bins == other.bins && self.range == other.range {
            return Ok(());
        }
        Err(DriftError::DifferentBins)
    }

    /// Rows with a value.
    pub fn present(&self) -> u64 {
        self.counts.iter().sum::<u64>() + self.outside
    }

    /// Rows.
    pub fn rows(&self) -> u64 {
        self.present() + self.missing
    }

    /// Standard deviation (dividing by n) of the sample, or where there is none of the sketch,
    /// within its relative error.
    pub fn deviation(&self) -> Option<f64> {
        if !self.sample.is_empty() {
            return Some(crate::samples::moments(&self.sample.sorted()).1);
        }
        let n = self.present() as f64;
        if n == 0.0 {
            return None;
        }
        let mean = self.sketch.points().map(|(value, count)| value * count as f64).sum::<f64>() / n;
        let square = |(value, count): (f64, u64)| (value - mean) * (value - mean) * count as f64;
        Some((self.sketch.points().map(square).sum::<f64>() / n).sqrt())
    }
}

/// A categorical column: exact counts per name, bounded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CategorySummary {
    /// Rows per name.
    pub counts: BTreeMap<String, u64>,
    /// Rows of names beyond the bound.
    pub overflow: u64,
    /// Rows without a value.
    pub missing: u64,
    /// The greatest number of names that are told apart.
    pub capacity: usize,
}

impl CategorySummary {
    /// An empty summary that tells at most `capacity` names apart. Which names those are depends
    /// on the order of arrival beyond it: choose it above the column's cardinality.
    pub fn new(capacity: usize) -> Self {
        Self { counts: BTreeMap::new(), overflow: 0, missing: 0, capacity }
    }

    /// Counts one row. O(log names).
    pub fn add(&mut self, name: Option<&str>) {
        self.add_many(name, 1);
    }

    fn add_many(&mut self, name: Option<&str>, rows: u64) {
        let Some(name) = name else {
            self.missing += rows;
            return;
        };
        if let Some(count) = self.counts.get_mut(name) {
            *count += rows;
        } else if self.counts.len() < self.capacity {
            self.counts.insert(name.to_owned(), rows);
        } else {
            self.overflow += rows;
        }
    }

    /// Takes back one row that was added.
    ///
    /// # Errors
    /// [`DriftError::Underflow`] where no such row was added; nothing is changed.
    pub fn remove(&mut self, name: Option<&str>) -> Result<(), DriftError> {
        let mut one = Self::new(1);
        one.add(name);
        self.subtract(&one)
    }

    /// Adds the rows of `other`.
    pub fn merge(&mut self, other: &Self) {
        other.counts.iter().for_each(|(name, rows)| self.add_many(Some(name), *rows));
        self.overflow += other.overflow;
        self.missing += other.missing;
    }

    /// Takes back the rows of `other`, all of which must have been added.
    ///
    /// # Errors
    /// [`DriftError::Underflow`] where they were not; nothing is changed.
    pub fn subtract(&mut self, other: &Self) -> Result<(), DriftError> {
        let underflow = || DriftError::Underflow("a categorical summary");
        let rest = |own: u64, less: u64| own.checked_sub(less).ok_or_else(underflow);
        let mut overflow = rest(self.overflow, other.overflow)?;
        let missing = rest(self.missing, other.missing)?;
        let mut counts = self.counts.clone();
        for (name, rows) in &other.counts {
            match counts.get_mut(name) {
                Some(held) => *held = rest(*held, *rows)?,
                None => overflow = rest(overflow, *rows)?,
            }
        }
        counts.retain(|_, rows| *rows > 0);
        (self.counts, self.overflow, self.missing) = (counts, overflow, missing);
        Ok(())
    }

    /// The names as bins, with one for others.
    pub fn bins(&self) -> BinDefinition {
        BinDefinition::categories(self.counts.keys().cloned())
    }

    /// The counts over `bins`.
    pub fn histogram(&self, bins: &BinDefinition) -> Vec<u64> {
        let mut counts = vec![0; bins.len()];
        for (name, rows) in &self.counts {
            if let Some(bin) = bins.of_name(name) {
                counts[bin] += rows;
            }
        }
        if let (BinDefinition::Categories { other: true, .. }, Some(last)) =
            (bins, counts.last_mut())
        {
            *last += self.overflow;
        }
        counts
    }

    /// Rows with a value.
    pub fn present(&self) -> u64 {
        self.counts.values().sum::<u64>() + self.overflow
    }

    /// Rows.
    pub fn rows(&self) -> u64 {
        self.present() + self.missing
    }
}

/// One column's summary.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ColumnSummary {
    /// Of numbers.
    Numeric(NumericSummary),
    /// Of names.
    Category(CategorySummary),
}

impl ColumnSummary {
    /// Rows.
    pub fn rows(&self) -> u64 {
        match self {
            Self::Numeric(summary) => summary.rows(),
            Self::Category(summary) => summary.rows(),
        }
    }

    /// Rows without a value.
    pub fn missing(&self) -> u64 {
        match self {
            Self::Numeric(summary) => summary.missing,
            Self::Category(summary) => summary.missing,
        }
    }

    /// Adds the rows of `other`.
    ///
    /// # Errors
    /// [`DriftError::DifferentBins`] where the two do not count alike; nothing is changed.
    pub fn merge(&mut self, other: &Self) -> Result<(), DriftError> {
        match (self, other) {
            (Self::Numeric(own), Self::Numeric(more)) => own.merge(more),
            (Self::Category(own), Self::Category(more)) => {
                own.merge(more);
                Ok(())
            }
            _ => Err(DriftError::DifferentBins),
        }
    }

    /// Takes back the rows of `other`.
    ///
    /// # Errors
    /// [`DriftError`] where they were not all added, or the two do not count alike.
    pub fn subtract(&mut self, other: &Self) -> Result<(), DriftError> {
        match (self, other) {
            (Self::Numeric(own), Self::Numeric(less)) => own.subtract(less),
            (Self::Category(own), Self::Category(less)) => own.subtract(less),
            _ => Err(DriftError::DifferentBins),
        }
    }
}

fn subtract_counts(own: &[u64], less: &[u64]) -> Option<Vec<u64>> {
    own.iter().zip(less).map(|(own, less)| own.checked_sub(*less)).collect()
}
