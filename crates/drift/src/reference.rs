//! The reference of a monitored column: what the training set looked like, and how much it differs
//! from itself from chunk to chunk. Stored with the model; a window is judged against it.
//!
//! Does not know the column's name, nor when a window closes.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::DriftError;
use crate::alarm::{AlarmPolicy, Judgement, Spread, Threshold};
use crate::bins::BinDefinition;
use crate::correction::{Correction, adjust};
use crate::random::CounterRandom;
use crate::samples::sorted;
use crate::score::{Metric, Score, score_all};
use crate::summary::{CategorySummary, ColumnSummary, NumericSummary};

/// How a numeric column is binned.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "rule", rename_all = "snake_case", deny_unknown_fields)]
pub enum BinChoice {
    /// Bins of equal mass in the reference.
    Quantiles {
        /// How many.
        count: usize,
    },
    /// Bins of equal width over the reference's range.
    EqualWidth {
        /// How many.
        count: usize,
    },
    /// These edges.
    Explicit {
        /// Strictly increasing.
        edges: Vec<f64>,
    },
}

/// How a reference is made.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ReferenceOptions {
    /// The bins of numeric columns.
    pub bins: BinChoice,
    /// Rows of a chunk, in the order given: as many as a window has, so that the spread speaks of
    /// windows. 0: a tenth of the reference.
    pub chunk_rows: usize,
    /// Values kept as a sample.
    pub sample: usize,
    /// Names told apart.
    pub categories: usize,
}

impl Default for ReferenceOptions {
    fn default() -> Self {
        let bins = BinChoice::Quantiles { count: 10 };
        Self { bins, chunk_rows: 0, sample: 10_000, categories: 1_000 }
    }
}

/// One column's reference. Deterministic in the values, their order and the options.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ColumnReference {
    /// All of it.
    pub summary: ColumnSummary,
    /// What each metric does within it; empty where it was too short for two chunks.
    pub spreads: BTreeMap<Metric, Spread>,
    /// Values kept as a sample, also of a window.
    pub sample: usize,
}

/// A score with its judgement.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct JudgedScore {
    /// The score.
    pub score: Score,
    /// What it was compared with; `None` where the policy's rule does not apply to the metric.
    pub judgement: Option<Judgement>,
}

impl ColumnReference {
    /// The reference of a numeric column: its values in the order of time, `None` or NaN where
    /// missing. O(n log n).
    ///
    /// # Errors
    /// [`DriftError`] where there is no value, or the bins' options make no sense.
    pub fn numeric(values: &[Option<f64>], options: &ReferenceOptions) -> Result<Self, DriftError> {
        let present: Vec<f64> = values.iter().flatten().copied().collect();
        let finite: Vec<f64> = present.iter().copied().filter(|value| value.is_finite()).collect();
        let ascending = sorted(&finite);
        let (Some(low), Some(high)) = (ascending.first(), ascending.last()) else {
            return Err(DriftError::Empty("the reference"));
        };
        let bins = match &options.bins {
            BinChoice::Quantiles { count } => BinDefinition::quantiles(&ascending, *count)?,
            BinChoice::EqualWidth { count } if low < high => {
                BinDefinition::equal_width(*low, *high, *count)?
            }
            BinChoice::EqualWidth { .. } => BinDefinition::quantiles(&ascending, 1)?,
            BinChoice::Explicit { edges } => BinDefinition::explicit(edges.clone())?,
        };
        let empty = NumericSummary::new(bins, Some((*low, *high)), options.sample);
        // One hash per position in the whole reference, so that chunks merge like windows do.
        let random = CounterRandom::new(0, 0);
        let mut position = 0;
        let chunks = values.chunks(chunk_rows(values.len(), options)).map(|chunk| {
            let mut summary = empty.clone();
            for value in chunk {
                summary.add(random.at(position), *value);
                position += 1;
            }
            ColumnSummary::Numeric(summary)
        });
        Self::of_chunks(chunks.collect(), options.sample)
    }

    /// The reference of a categorical column: its names in the order of time, `None` where missing.
    ///
    /// # Errors
    /// [`DriftError`] where there is no row.
    pub fn category(
        names: &[Option<&str>],
        options: &ReferenceOptions,
    ) -> Result<Self, DriftError> {
        let chunks = names.chunks(chunk_rows(names.len(), options)).map(|chunk| {
            let mut summary = CategorySummary::new(options.categories);
            chunk.iter().for_each(|name| summary.add(*name));
            ColumnSummary::Category(summary)
        });
        Self::of_chunks(chunks.collect(), 0)
    }

    /// The reference that these windows make together: the last, if smaller than half of the
    /// first, adds to the whole but not to the spread.
    ///
    /// # Errors
    /// [`DriftError`] where there is none, or they do not count alike.
    pub fn of_chunks(mut chunks: Vec<ColumnSummary>, sample: usize) -> Result<Self, DriftError> {
        let first = chunks.first().ok_or(DriftError::Empty("the reference"))?;
        let full_rows = first.rows();
        let mut summary = first.clone();
        for chunk in chunks.iter().skip(1) {
            summary.merge(chunk)?;
        }
        if summary.rows() == 0 {
            return Err(DriftError::Empty("the reference"));
        }
        if chunks.last().is_some_and(|last| last.rows() * 2 < full_rows) {
            chunks.pop();
        }
        let mut spreads = BTreeMap::new();
        for metric in Metric::ALL {
            // Metrics that the column does not have, or too few chunks: no spread, no judgement.
            if let Ok(spread) = Spread::of_chunks(&chunks, metric) {
                spreads.insert(metric, spread);
            }
        }
        Ok(Self { summary, spreads, sample })
    }

    /// An empty window that is comparable with this reference.
    pub fn window(&self) -> ColumnSummary {
        match &self.summary {
            ColumnSummary::Numeric(summary) => {
                ColumnSummary::Numeric(summary.empty_like(self.sample))
            }
            ColumnSummary::Category(summary) => {
                ColumnSummary::Category(CategorySummary::new(summary.capacity))
            }
        }
    }

    /// Every score of a closed window, judged by `policy`. A relative threshold judges metrics that
    /// have a spread, a significance threshold those that have a p-value.
    ///
    /// # Errors
    /// [`DriftError`] where the window holds no rows or counts other bins.
    pub fn judge(
        &self,
        window: &ColumnSummary,
        policy: &AlarmPolicy,
    ) -> Result<Vec<JudgedScore>, DriftError> {
        let scores = score_all(&self.summary, window)?;
        let judged = scores.into_iter().map(|score| {
            let judgement = policy.judge(&score, self.spreads.get(&score.metric)).ok();
            JudgedScore { score, judgement }
        });
        Ok(judged.collect())
    }
}

/// Judges one metric of several columns together: their p-values, corrected for their number, at
/// the policy's significance level. `None` for a column without p-value; all `None` where the
/// policy's threshold is another.
pub fn judge_together(
    scores: &[&Score],
    policy: &AlarmPolicy,
    correction: Correction,
) -> Vec<Option<Judgement>> {
    let Threshold::Significance { alpha } = policy.threshold else {
        return vec![None; scores.len()];
    };
    let p_values: Vec<f64> = scores.iter().filter_map(|score| score.p_value).collect();
    let mut adjusted = adjust(&p_values, correction).into_iter();
    let judge = |score: &&Score| {
        score.p_value?;
        adjusted.next().map(|p_value| policy.judge_p_value(p_value, alpha))
    };
    scores.iter().map(judge).collect()
}

fn chunk_rows(rows: usize, options: &ReferenceOptions) -> usize {
    let rows = if options.chunk_rows > 0 { options.chunk_rows } else { rows.div_ceil(10) };
    rows.max(1)
}
