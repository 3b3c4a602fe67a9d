//! Scores on raw samples: Kolmogorov-Smirnov, Wasserstein, moments.
//!
//! Samples come sorted ascending, without NaN. Does not know how they were drawn.

#[cfg(test)]
mod tests;

use serde::{Deserialize, Serialize};

use crate::DriftError;
use crate::kolmogorov::{one_sample_tail, two_sample_exact_tail};

/// Up to this many values in the larger sample the p-value is exact by default, as SciPy's `auto`.
pub const EXACT_UP_TO: usize = 10_000;

/// How a Kolmogorov-Smirnov p-value was computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PValueMethod {
    /// By counting lattice paths; exact where there are no ties, conservative where there are.
    Exact,
    /// By the one-sample distribution of the effective size `n m / (n + m)`, rounded.
    Asymptotic,
}

/// A two-sample Kolmogorov-Smirnov test.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct KolmogorovSmirnov {
    /// `sup |F - G|`.
    pub statistic: f64,
    /// Two-sided p-value.
    pub p_value: f64,
    /// How it was computed.
    pub method: PValueMethod,
}

/// The two-sided two-sample Kolmogorov-Smirnov test of two ascending samples. `method` as given, or
/// exact up to [`EXACT_UP_TO`] values as SciPy's `ks_2samp(method = "auto")`. O(n + m), the exact
/// p-value of unequal sizes O(n m).
///
/// # Errors
/// [`DriftError::Empty`] where a sample is empty.
pub fn kolmogorov_smirnov(
    reference: &[f64],
    current: &[f64],
    method: Option<PValueMethod>,
) -> Result<KolmogorovSmirnov, DriftError> {
    check(reference, current)?;
    let statistic = greatest_distance(reference, current);
    let (n, m) = (reference.len(), current.len());
    let method = method.unwrap_or(if n.max(m) <= EXACT_UP_TO {
        PValueMethod::Exact
    } else {
        PValueMethod::Asymptotic
    });
    let p_value = match method {
        PValueMethod::Exact => two_sample_exact_tail(n as u64, m as u64, statistic),
        PValueMethod::Asymptotic => asymptotic_p_value(n as u64, m as u64, statistic),
    };
    Ok(KolmogorovSmirnov { statistic, p_value, method })
}

/// The p-value of a statistic from `n` and `m` values by the effective size.
pub fn asymptotic_p_value(n: u64, m: u64, statistic: f64) -> f64 {
    let (large, small) = (n.max(m) as f64, n.min(m) as f64);
    let effective = (large * small / (large + small)).round_ties_even();
    one_sample_tail((effective as u64).max(1), statistic)
}

fn greatest_distance(left: &[f64], right: &[f64]) -> f64 {
    let (n, m) = (left.len() as f64, right.len() as f64);
    let mut greatest = 0.0_f64;
    each_step(left, right, |_, i, j| {
        greatest = greatest.max((i as f64 / n - j as f64 / m).abs());
    });
    greatest
}

/// The first Wasserstein distance `∫ |F - G|` between two ascending samples (the earth mover's
/// distance in one dimension; Vallender 1974), in the column's own units. O(n + m).
///
/// # Errors
/// [`DriftError::Empty`] where a sample is empty.
pub fn wasserstein(left: &[f64], right: &[f64]) -> Result<f64, DriftError> {
    check(left, right)?;
    let (n, m) = (left.len() as f64, right.len() as f64);
    let (mut distance, mut previous, mut gap) = (0.0, None, 0.0_f64);
    each_step(left, right, |value, i, j| {
        if let Some(before) = previous {
            distance += gap * (value - before);
        }
        gap = (i as f64 / n - j as f64 / m).abs();
        previous = Some(value);
    });
    Ok(distance)
}

/// Wasserstein distance in units of the reference's standard deviation (`deviation`, dividing by
/// n), which counts as at least 0.001: Evidently's normalisation.
pub fn normalised(distance: f64, deviation: f64) -> f64 {
    distance / deviation.max(0.001)
}

/// Mean and standard deviation (dividing by n), in two passes in the order given; NaN where empty.
pub fn moments(values: &[f64]) -> (f64, f64) {
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    let squares = values.iter().map(|value| (value - mean) * (value - mean));
    (mean, (squares.sum::<f64>() / n).sqrt())
}

/// `values` ascending, NaN left out.
pub fn sorted(values: &[f64]) -> Vec<f64> {
    let mut sorted: Vec<f64> = values.iter().copied().filter(|value| !value.is_nan()).collect();
    sorted.sort_unstable_by(f64::total_cmp);
    sorted
}

/// Calls `visit` for each distinct value in order, with how many of each side are at most it.
fn each_step(left: &[f64], right: &[f64], mut visit: impl FnMut(f64, usize, usize)) {
    let (mut i, mut j) = (0, 0);
    while i < left.len() || j < right.len() {
        let value = match (left.get(i), right.get(j)) {
            (Some(a), Some(b)) => a.min(*b),
            (Some(a), None) => *a,
            (None, Some(b)) => *b,
            (None, None) => return,
        };
        while left.get(i).is_some_and(|next| *next <= value) {
            i += 1;
        }
        while right.get(j).is_some_and(|next| *next <= value) {
            j += 1;
        }
        visit(value, i, j);
    }
}

fn check(reference: &[f64], current: &[f64]) -> Result<(), DriftError> {
    if reference.is_empty() {
        return Err(DriftError::Empty("the reference"));
    }
    if current.is_empty() {
        return Err(DriftError::Empty("the window"));
    }
    // NaN would never be passed over, and the scan would never end.
    if reference.iter().chain(current).any(|value| value.is_nan()) {
        return Err(DriftError::BadParameter {
            what: "a sample value",
            value: f64::NAN,
            rule: "missing values are a score of their own: leave them out",
        });
    }
    Ok(())
}
