//! Correction for many tests at once: a hundred columns tested at 5 % raise five alarms a window
//! without any drift.
//!
//! Does not know what was tested. A p-value that is not a number counts as 1.

use serde::{Deserialize, Serialize};

/// Which error is held at the level.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Correction {
    /// None: each test by itself.
    None,
    /// The chance of any false alarm, under any dependence (Bonferroni 1936; Dunn 1961).
    Bonferroni,
    /// The same, uniformly more powerful (Holm, Scand. J. Statist. 6, 1979).
    Holm,
    /// The expected share of false alarms among the alarms, for independent or positively
    /// dependent tests (Benjamini and Hochberg, J. Royal Statist. Soc. B 57, 1995).
    #[default]
    BenjaminiHochberg,
}

/// The adjusted p-values, in the order given: a test alarms at level `alpha` where its adjusted
/// p-value is at most `alpha`. Each is at least the p-value itself and at most 1.
pub fn adjust(p_values: &[f64], correction: Correction) -> Vec<f64> {
    let clean = |p: &f64| if p.is_nan() { 1.0 } else { p.clamp(0.0, 1.0) };
    let p_values: Vec<f64> = p_values.iter().map(clean).collect();
    let count = p_values.len();
    let mut order: Vec<usize> = (0..count).collect();
    order.sort_by(|a, b| p_values[*a].total_cmp(&p_values[*b]).then(a.cmp(b)));
    let mut adjusted = p_values.clone();
    match correction {
        Correction::None => {}
        Correction::Bonferroni => {
            adjusted.iter_mut().for_each(|p| *p = (*p * count as f64).min(1.0));
        }
        Correction::Holm => {
            let mut greatest = 0.0_f64;
            for (rank, index) in order.iter().enumerate() {
                greatest = greatest.max(p_values[*index] * (count - rank) as f64).min(1.0);
                adjusted[*index] = greatest;
            }
        }
        Correction::BenjaminiHochberg => {
            let mut least = 1.0_f64;
            for (rank, index) in order.iter().enumerate().rev() {
                // The quotient first: at the last rank it is exactly 1, and the value stays itself.
                least = least.min(p_values[*index] * (count as f64 / (rank + 1) as f64));
                adjusted[*index] = least;
            }
        }
    }
    adjusted
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn adjusted_values_are_those_of_statsmodels() {
        let p = [0.01, 0.04, 0.03, 0.005, f64::NAN];
        let close = |found: Vec<f64>, expected: [f64; 5]| {
            for (found, expected) in found.iter().zip(expected) {
                assert!((found - expected).abs() < 1e-15, "{found} is not {expected}");
            }
        };
        // multipletests([.01, .04, .03, .005, 1.], method = "bonferroni" | "holm" | "fdr_bh")
        close(adjust(&p, Correction::Bonferroni), [0.05, 0.2, 0.15, 0.025, 1.0]);
        close(adjust(&p, Correction::Holm), [0.04, 0.09, 0.09, 0.025, 1.0]);
        close(adjust(&p, Correction::BenjaminiHochberg), [0.025, 0.05, 0.05, 0.025, 1.0]);
        close(adjust(&p, Correction::None), [0.01, 0.04, 0.03, 0.005, 1.0]);
    }

    proptest! {
        #[test]
        fn corrections_are_ordered(p in prop::collection::vec(0.0_f64..=1.0, 0..40)) {
            let of = |correction| adjust(&p, correction);
            let (holm, bh) = (of(Correction::Holm), of(Correction::BenjaminiHochberg));
            let bonferroni = of(Correction::Bonferroni);
            for index in 0..p.len() {
                prop_assert!(p[index] <= bh[index] + 1e-15);
                prop_assert!(bh[index] <= holm[index] + 1e-12);
                prop_assert!(holm[index] <= bonferroni[index] + 1e-12);
                prop_assert!(bonferroni[index] <= 1.0);
            }
        }
    }
}
