//! Chi-square tests of counts over categories.
//!
//! The default is the two-sample test of homogeneity, which takes both samples as samples. The
//! goodness-of-fit form that Evidently uses takes the reference as exact and doubles the statistic
//! for samples of equal size; it is here to compare with. Does not know what the counts count.

use serde::{Deserialize, Serialize};

use crate::DriftError;
use crate::special::{chi_square_tail, normal_two_sided};

/// A chi-square test.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct ChiSquare {
    /// The statistic.
    pub statistic: f64,
    /// Its degrees of freedom.
    pub degrees: u64,
    /// Upper tail probability.
    pub p_value: f64,
}

/// Pearson's test of homogeneity of two samples over the same bins (a 2 × k contingency table,
/// without Yates' correction). Bins that are empty in both are left out.
///
/// # Errors
/// [`DriftError`] where lengths differ or a sample is empty.
pub fn two_sample(reference: &[u64], current: &[u64]) -> Result<ChiSquare, DriftError> {
    let (n, m) = totals(reference, current)?;
    let all = n + m;
    let mut statistic = 0.0;
    let mut used = 0_u64;
    for (left, right) in reference.iter().zip(current) {
        let column = (left + right) as f64;
        if column > 0.0 {
            used += 1;
            for (observed, row) in [(*left, n), (*right, m)] {
                let expected = row * column / all;
                let difference = observed as f64 - expected;
                statistic += difference * difference / expected;
            }
        }
    }
    let degrees = used.saturating_sub(1);
    let p_value = if degrees == 0 { 1.0 } else { chi_square_tail(statistic, degrees as f64) };
    Ok(ChiSquare { statistic, degrees, p_value })
}

/// Pearson's goodness of fit of the current counts to the reference's shares, taken as exact. A
/// category that the reference lacks makes the statistic infinite.
///
/// # Errors
/// [`DriftError`] where lengths differ or a sample is empty.
pub fn goodness_of_fit(reference: &[u64], current: &[u64]) -> Result<ChiSquare, DriftError> {
    let (n, m) = totals(reference, current)?;
    let mut statistic = 0.0;
    let mut used = 0_u64;
    for (left, right) in reference.iter().zip(current) {
        if left + right > 0 {
            used += 1;
            let expected = *left as f64 / n * m;
            let difference = *right as f64 - expected;
            statistic += difference * difference / expected;
        }
    }
    let degrees = used.saturating_sub(1);
    let p_value = if degrees == 0 { 1.0 } else { chi_square_tail(statistic, degrees as f64) };
    Ok(ChiSquare { statistic, degrees, p_value })
}

/// Two-sided p-value of the test that two proportions are equal, by the pooled normal
/// approximation; 1 where both are 0 or both 1.
pub fn two_proportions(hits: u64, rows: u64, other_hits: u64, other_rows: u64) -> f64 {
    let (n, m) = (rows as f64, other_rows as f64);
    let pooled = (hits + other_hits) as f64 / (n + m);
    let error = (pooled * (1.0 - pooled) * (1.0 / n + 1.0 / m)).sqrt();
    let difference = hits as f64 / n - other_hits as f64 / m;
    if error > 0.0 { normal_two_sided(difference / error) } else { 1.0 }
}

fn totals(reference: &[u64], current: &[u64]) -> Result<(f64, f64), DriftError> {
    if reference.len() != current.len() {
        return Err(DriftError::DifferentLengths {
            what: "two histograms",
            left: reference.len(),
            right: current.len(),
        });
    }
    let (n, m): (u64, u64) = (reference.iter().sum(), current.iter().sum());
    if n == 0 {
        return Err(DriftError::Empty("the reference"));
    }
    if m == 0 {
        return Err(DriftError::Empty("the window"));
    }
    Ok((n as f64, m as f64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_of_the_portable_generator_match_scipy() {
        let (reference, current) = ([775, 612, 415, 198], [347, 321, 125, 207]);
        let test = two_sample(&reference, &current).unwrap();
        assert!((test.statistic - 86.214_445_237_317_38).abs() < 1e-10, "{}", test.statistic);
        assert_eq!(test.degrees, 3);
        assert!((test.p_value / 1.423_815_417_901_343_4e-18 - 1.0).abs() < 1e-10);
        let fit = goodness_of_fit(&reference, &current).unwrap();
        assert!((fit.statistic - 155.587_583_980_912_43).abs() < 1e-10);
    }

    #[test]
    fn empty_bins_and_samples() {
        let test = two_sample(&[5, 0, 5], &[5, 0, 5]).unwrap();
        assert_eq!((test.statistic, test.degrees, test.p_value), (0.0, 1, 1.0));
        assert_eq!(two_sample(&[5], &[9]).unwrap().p_value, 1.0);
        assert_eq!(two_sample(&[0], &[9]), Err(DriftError::Empty("the reference")));
        assert!(goodness_of_fit(&[9, 0], &[5, 4]).unwrap().statistic.is_infinite());
        assert_eq!(two_proportions(0, 10, 0, 20), 1.0);
    }
}
