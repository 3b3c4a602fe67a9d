//! Scores of one column at the close of a window: reference against window.
//!
//! Every score carries what is needed to recompute and to doubt it: the bins, the rows on both
//! sides, the method. Does not judge: see [`crate::alarm`].

#[cfg(test)]
mod tests;

use serde::{Deserialize, Serialize};

use crate::bins::BinDefinition;
use crate::distance::{self, LogBase, ZeroRule};
use crate::samples::{self, PValueMethod};
use crate::sketch::QuantileSketch;
use crate::summary::{CategorySummary, ColumnSummary, NumericSummary};
use crate::{DriftError, chi_square};

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Metric {
    /// Population stability index over the bins.
    Psi,
    /// Two-sample Kolmogorov-Smirnov statistic, with p-value. Numeric.
    KolmogorovSmirnov,
    /// Jensen-Shannon distance over the bins, natural logarithm.
    JensenShannon,
    /// Hellinger distance over the bins.
    Hellinger,
    /// Chi-square test of homogeneity over the bins, with p-value.
    ChiSquare,
    /// Wasserstein distance in standard deviations of the reference. Numeric.
    Wasserstein,
    /// Total variation distance over the bins.
    TotalVariation,
    /// Absolute change of the share of missing values, with p-value.
    MissingRate,
    /// Share of the window's values outside the reference's range, or of names that the reference
    /// does not have.
    OutOfRange,
}

impl Metric {
    /// All of them, in the order of reports.
    pub const ALL: [Self; 9] = [
        Self::Psi,
        Self::KolmogorovSmirnov,
        Self::JensenShannon,
        Self::Hellinger,
        Self::ChiSquare,
        Self::Wasserstein,
        Self::TotalVariation,
        Self::MissingRate,
        Self::OutOfRange,
    ];

    /// The name, as in events and files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Psi => "psi",
            Self::KolmogorovSmirnov => "kolmogorov_smirnov",
            Self::JensenShannon => "jensen_shannon",
            Self::Hellinger => "hellinger",
            Self::ChiSquare => "chi_square",
            Self::Wasserstein => "wasserstein",
            Self::TotalVariation => "total_variation",
            Self::MissingRate => "missing_rate",
            Self::OutOfRange => "out_of_range",
        }
    }

    /// The metric of a name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|metric| metric.name() == name)
    }

    /// The greatest value that it can take; `None` where there is none.
    pub fn upper_limit(self) -> Option<f64> {
        match self {
            Self::JensenShannon => Some(core::f64::consts::LN_2.sqrt()),
            Self::Psi | Self::ChiSquare | Self::Wasserstein => None,
            _ => Some(1.0),
        }
    }
}

/// One score, with everything to recompute it from the two windows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Score {
    /// What was measured.
    pub metric: Metric,
    /// The value.
    pub value: f64,
    /// The probability of a value as great without drift, where the metric has one.
    pub p_value: Option<f64>,
    /// How it was computed, in words.
    pub method: String,
    /// The bins, where they matter.
    pub bins: Option<BinDefinition>,
    /// The reference's rows.
    pub reference_rows: u64,
    /// The window's rows.
    pub current_rows: u64,
}

/// The exact Kolmogorov-Smirnov p-value of unequal samples is computed up to this product of their
/// sizes; beyond it a window's close would wait for it.
const EXACT_PATHS_UP_TO: usize = 4_000_000;

/// Scores `current` against `reference` by one metric.
///
/// # Errors
/// [`DriftError`] where a side is empty, the two count different bins, or the metric is not defined
/// for the kind of column.
pub fn score(
    reference: &ColumnSummary,
    current: &ColumnSummary,
    metric: Metric,
) -> Result<Score, DriftError> {
    if reference.rows() == 0 {
        return Err(DriftError::Empty("the reference"));
    }
    if current.rows() == 0 {
        return Err(DriftError::Empty("the window"));
    }
    let mut draft = Score {
        metric,
        value: f64::NAN,
        p_value: None,
        method: String::new(),
        bins: None,
        reference_rows: reference.rows(),
        current_rows: current.rows(),
    };
    if metric == Metric::MissingRate {
        missing_rate(&mut draft, reference.missing(), current.missing());
        return Ok(draft);
    }
    match (reference, current) {
        (ColumnSummary::Numeric(reference), ColumnSummary::Numeric(current)) => {
            numeric(&mut draft, reference, current)?;
        }
        (ColumnSummary::Category(reference), ColumnSummary::Category(current)) => {
            category(&mut draft, reference, current)?;
        }
        _ => return Err(DriftError::DifferentBins),
    }
    Ok(draft)
}

/// Every metric that is defined for the two summaries, in the order of [`Metric::ALL`].
///
/// # Errors
/// [`DriftError`] where a side holds no rows or the two count different bins; metrics that have
/// nothing to measure (a column of missing values) are left out.
pub fn score_all(
    reference: &ColumnSummary,
    current: &ColumnSummary,
) -> Result<Vec<Score>, DriftError> {
    let mut scores = Vec::with_capacity(Metric::ALL.len());
    for metric in Metric::ALL {
        match score(reference, current, metric) {
            Ok(found) => scores.push(found),
            Err(DriftError::Undefined { .. }) => {}
            Err(DriftError::Empty(_)) if reference.rows() > 0 && current.rows() > 0 => {}
            Err(other) => return Err(other),
        }
    }
    Ok(scores)
}

fn missing_rate(draft: &mut Score, reference: u64, current: u64) {
    let (n, m) = (draft.reference_rows, draft.current_rows);
    draft.value = (reference as f64 / n as f64 - current as f64 / m as f64).abs();
    draft.p_value = Some(chi_square::two_proportions(reference, n, current, m));
    draft.method = "change of the missing share; pooled two-proportion test".to_owned();
}

fn numeric(
    draft: &mut Score,
    reference: &NumericSummary,
    current: &NumericSummary,
) -> Result<(), DriftError> {
    match draft.metric {
        Metric::KolmogorovSmirnov => numeric_ks(draft, reference, current),
        Metric::Wasserstein => numeric_wasserstein(draft, reference, current),
        Metric::OutOfRange => {
            let present = current.present();
            if present == 0 {
                return Err(DriftError::Empty("the window"));
            }
            draft.value = current.beyond as f64 / present as f64;
            draft.method = range_words(reference.range);
            Ok(())
        }
        _ => {
            if reference.bins != current.bins {
                return Err(DriftError::DifferentBins);
            }
            binned(draft, &reference.counts, &current.counts, &reference.bins)
        }
    }
}

fn range_words(range: Option<(f64, f64)>) -> String {
    match range {
        Some((low, high)) => format!("share of values outside [{low}, {high}]"),
        None => "share of values outside the range (none is set)".to_owned(),
    }
}

fn category(
    draft: &mut Score,
    reference: &CategorySummary,
    current: &CategorySummary,
) -> Result<(), DriftError> {
    if current.present() == 0 {
        return Err(DriftError::Empty("the window"));
    }
    let bins = reference.bins();
    match draft.metric {
        Metric::KolmogorovSmirnov | Metric::Wasserstein => {
            Err(DriftError::Undefined { metric: draft.metric.name(), column: "categorical" })
        }
        Metric::OutOfRange => {
            let others = current.histogram(&bins).last().copied().unwrap_or(0);
            draft.value = others as f64 / current.present() as f64;
            draft.method = "share of names that the reference does not have".to_owned();
            draft.bins = Some(bins);
            Ok(())
        }
        _ => {
            let (left, right) = (reference.histogram(&bins), current.histogram(&bins));
            binned(draft, &left, &right, &bins)
        }
    }
}

fn binned(
    draft: &mut Score,
    reference: &[u64],
    current: &[u64],
    bins: &BinDefinition,
) -> Result<(), DriftError> {
    let (p, q) = (distance::shares(reference)?, distance::shares(current)?);
    let (value, method) = match draft.metric {
        Metric::Psi => (distance::psi(&p, &q, ZeroRule::default())?, "shares of 0 count as 0.0001"),
        Metric::JensenShannon => {
            (distance::jensen_shannon_distance(&p, &q, LogBase::E)?, "distance, natural logarithm")
        }
        Metric::Hellinger => (distance::hellinger(&p, &q)?, "of the binned shares"),
        Metric::TotalVariation => (distance::total_variation(&p, &q)?, "of the binned shares"),
        Metric::ChiSquare => {
            let test = chi_square::two_sample(reference, current)?;
            draft.p_value = Some(test.p_value);
            (test.statistic, "two-sample test of homogeneity")
        }
        metric => return Err(DriftError::Undefined { metric: metric.name(), column: "binned" }),
    };
    draft.value = value;
    draft.method = method.to_owned();
    draft.bins = Some(bins.clone());
    Ok(())
}

fn numeric_ks(
    draft: &mut Score,
    reference: &NumericSummary,
    current: &NumericSummary,
) -> Result<(), DriftError> {
    if reference.sample.is_empty() || current.sample.is_empty() {
        let (n, m) = (reference.present(), current.present());
        let (statistic, _) = compare_sketches(&reference.sketch, &current.sketch)?;
        draft.value = statistic;
        draft.p_value = Some(samples::asymptotic_p_value(n, m, statistic));
        draft.method = "sketches; asymptotic p-value".to_owned();
        return Ok(());
    }
    let (left, right) = (reference.sample.sorted(), current.sample.sorted());
    let affordable = left.len() == right.len() || left.len() * right.len() <= EXACT_PATHS_UP_TO;
    let method = (!affordable).then_some(PValueMethod::Asymptotic);
    let test = samples::kolmogorov_smirnov(&left, &right, method)?;
    draft.value = test.statistic;
    draft.p_value = Some(test.p_value);
    let kind = match test.method {
        PValueMethod::Exact => "exact",
        PValueMethod::Asymptotic => "asymptotic",
    };
    draft.method = format!("{}; {kind} p-value", sample_words(reference, current));
    Ok(())
}

fn numeric_wasserstein(
    draft: &mut Score,
    reference: &NumericSummary,
    current: &NumericSummary,
) -> Result<(), DriftError> {
    let deviation = reference.deviation().ok_or(DriftError::Empty("the reference"))?;
    let (distance, words) = if reference.sample.is_empty() || current.sample.is_empty() {
        (compare_sketches(&reference.sketch, &current.sketch)?.1, "sketches".to_owned())
    } else {
        let (left, right) = (reference.sample.sorted(), current.sample.sorted());
        (samples::wasserstein(&left, &right)?, sample_words(reference, current))
    };
    draft.value = samples::normalised(distance, deviation);
    draft.method = format!("{words}; in standard deviations of the reference ({deviation})");
    Ok(())
}

fn sample_words(reference: &NumericSummary, current: &NumericSummary) -> String {
    if reference.sample.is_complete() && current.sample.is_complete() {
        return "every value".to_owned();
    }
    let (n, m) = (reference.sample.len(), current.sample.len());
    format!("samples of {n} and {m} values")
}

/// `sup |F - G|` and `∫ |F - G|` of two sketches, each bucket's values taken at its middle.
fn compare_sketches(
    reference: &QuantileSketch,
    current: &QuantileSketch,
) -> Result<(f64, f64), DriftError> {
    if reference.count() == 0 {
        return Err(DriftError::Empty("the reference"));
    }
    if current.count() == 0 {
        return Err(DriftError::Empty("the window"));
    }
    let (n, m) = (reference.count() as f64, current.count() as f64);
    let (mut left, mut right) = (reference.points().peekable(), current.points().peekable());
    let (mut below, mut below_too) = (0_u64, 0_u64);
    let (mut greatest, mut area, mut gap) = (0.0_f64, 0.0, 0.0_f64);
    let mut previous: Option<f64> = None;
    loop {
        let value = match (left.peek(), right.peek()) {
            (Some((a, _)), Some((b, _))) => a.min(*b),
            (Some((a, _)), None) => *a,
            (None, Some((b, _))) => *b,
            (None, None) => return Ok((greatest, area)),
        };
        if let Some(before) = previous {
            area += gap * (value - before);
        }
        while let Some((_, count)) = left.next_if(|(next, _)| *next <= value) {
            below += count;
        }
        while let Some((_, count)) = right.next_if(|(next, _)| *next <= value) {
            below_too += count;
        }
        gap = (below as f64 / n - below_too as f64 / m).abs();
        greatest = greatest.max(gap);
        previous = Some(value);
    }
}
