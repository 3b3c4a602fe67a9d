//! Maps from scores to probabilities that hold, fitted on validation rows.
//!
//! Does not know what made the scores.

use serde::{Deserialize, Serialize};

use crate::loss::{sigmoid, softmax, softplus};

/// A fitted map.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum CalibrationMap {
    /// As they are.
    #[default]
    None,
    /// Logits divided by a temperature.
    Temperature {
        /// The divisor; above 1 softens.
        temperature: f64,
    },
    /// A monotone map, linear between its points and flat beyond them.
    Isotonic {
        /// Probabilities as trained, ascending.
        scores: Vec<f64>,
        /// Probabilities that hold, not descending.
        probabilities: Vec<f64>,
    },
}

impl CalibrationMap {
    /// The divisor of logits.
    pub fn temperature(&self) -> f64 {
        match self {
            Self::Temperature { temperature } => *temperature,
            _ => 1.0,
        }
    }

    /// The probability for a probability as trained (after the temperature).
    pub fn probability(&self, score: f64) -> f64 {
        match self {
            Self::Isotonic { scores, probabilities } => interpolate(scores, probabilities, score),
            _ => score,
        }
    }
}

fn interpolate(at: &[f64], values: &[f64], x: f64) -> f64 {
    let above = at.partition_point(|point| *point < x);
    match (above.checked_sub(1), at.get(above)) {
        (None, _) => values.first().copied().unwrap_or(x),
        (Some(last), None) => values[last],
        (Some(below), Some(high)) => {
            let low = at[below];
            let share = (x - low) / (high - low);
            values[below] + (values[above] - values[below]) * share
        }
    }
}

/// The temperature that minimises the log loss of `logits` (`outputs` per row; one for binary tasks)
/// on `classes`: golden-section search over its logarithm in [−3, 3], in which the loss has one
/// minimum.
pub fn fit_temperature(logits: &[f64], classes: &[usize], outputs: usize) -> CalibrationMap {
    let loss = |log_temperature: f64| {
        let temperature = libm::exp(log_temperature);
        logits
            .chunks_exact(outputs.max(1))
            .zip(classes)
            .map(|(row, class)| {
                if outputs == 1 {
                    let z = row[0] / temperature;
                    return softplus(if *class == 1 { -z } else { z });
                }
                let mut scaled: Vec<f64> = row.iter().map(|z| z / temperature).collect();
                softmax(&mut scaled);
                -libm::log(scaled[*class].max(f64::MIN_POSITIVE))
            })
            .sum::<f64>()
    };
    let ratio = (5f64.sqrt() - 1.0) / 2.0;
    let (mut low, mut high) = (-3.0, 3.0);
    for _ in 0..60 {
        let left = high - ratio * (high - low);
        let right = low + ratio * (high - low);
        if loss(left) <= loss(right) {
            high = right;
        } else {
            low = left;
        }
    }
    CalibrationMap::Temperature { temperature: libm::exp((low + high) / 2.0) }
}

/// The isotonic map by pooling adjacent violators (Ayer et al., 1955); equal scores are pooled first.
/// The pools at the ends, which hold one class alone, are told as if they held one row of the base rate
/// more: no probability is 0 or 1 where both classes were seen.
pub fn fit_isotonic(scores: &[f64], truths: &[bool]) -> CalibrationMap {
    let mut order: Vec<(f64, f64)> = scores
        .iter()
        .copied()
        .zip(truths.iter().map(|truth| f64::from(u8::from(*truth))))
        .collect();
    order.sort_unstable_by(|a, b| a.0.total_cmp(&b.0));
    struct Pool {
        first: f64,
        last: f64,
        sum: f64,
        rows: f64,
    }
    let mut pools: Vec<Pool> = Vec::new();
    for tied in order.chunk_by(|a, b| a.0 == b.0) {
        let sum = tied.iter().map(|row| row.1).sum();
        let mut pool = Pool { first: tied[0].0, last: tied[0].0, sum, rows: tied.len() as f64 };
        while let Some(before) = pools.last()
            && before.sum * pool.rows >= pool.sum * before.rows
        {
            pool.first = before.first;
            pool.sum += before.sum;
            pool.rows += before.rows;
            pools.pop();
        }
        pools.push(pool);
    }
    let base = truths.iter().filter(|truth| **truth).count() as f64 / truths.len().max(1) as f64;
    let of = |pool: &Pool| match pool.sum / pool.rows {
        // So many rows of one class do not prove that the other never comes: one more row of the base
        // rate, so that a single surprise does not cost a log loss without bound.
        share if share == 0.0 || share == 1.0 => (pool.sum + base) / (pool.rows + 1.0),
        share => share,
    };
    let inner = |pool: &&Pool| pool.sum > 0.0 && pool.sum < pool.rows;
    let least = pools.iter().find(inner).map_or(1.0, of);
    let greatest = pools.iter().rev().find(inner).map_or(0.0, of);
    let mut map = (Vec::new(), Vec::new());
    for pool in pools {
        let probability = match of(&pool) {
            held if pool.sum == 0.0 => held.min(least),
            held if pool.sum == pool.rows => held.max(greatest),
            held => held,
        };
        for score in [pool.first, pool.last] {
            if map.0.last() != Some(&score) {
                map.0.push(score);
                map.1.push(probability);
            }
        }
    }
    CalibrationMap::Isotonic { scores: map.0, probabilities: map.1 }
}

/// Probability of a binary logit under `map`.
pub fn binary_probability(map: &CalibrationMap, logit: f64) -> f64 {
    map.probability(sigmoid(logit / map.temperature()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_temperature_undoes_overconfidence() {
        // 3 of 4 right at logit ±4: the best temperature makes 4/T the logit of 3/4.
        let logits = [4.0, 4.0, 4.0, 4.0, -4.0, -4.0, -4.0, -4.0];
        let classes = [1, 1, 1, 0, 0, 0, 0, 1];
        let map = fit_temperature(&logits, &classes, 1);
        assert!((map.temperature() - 4.0 / 3f64.ln()).abs() < 1e-6, "{map:?}");
    }

    #[test]
    fn isotonic_regression_is_scikit_learns_between_the_ends() {
        let scores = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6];
        let truths = [false, true, false, false, true, true];
        // IsotonicRegression().fit(...).predict: 0, 1/3, 1/3, 1/3, 1, 1; the ends with half a row of
        // either class more.
        let map = fit_isotonic(&scores, &truths);
        let third = 1.0 / 3.0;
        for (score, expected) in
            scores.iter().zip([0.25, third, third, third, 2.5 / 3.0, 2.5 / 3.0])
        {
            assert!((map.probability(*score) - expected).abs() < 1e-12, "{score}");
        }
        assert!((map.probability(0.15) - (0.25 + third) / 2.0).abs() < 1e-12);
        assert_eq!((map.probability(0.0), map.probability(1.0)), (0.25, 2.5 / 3.0));
    }

    /// Whatever the rows: ascending, and no probability is certain where both classes were seen.
    #[test]
    fn isotonic_maps_ascend_and_are_never_certain() {
        let mut state = 7_u64;
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 33) as f64 / (1_u64 << 31) as f64
        };
        for rows in [2, 3, 10, 100, 1_000] {
            let scores: Vec<f64> = (0..rows).map(|_| next()).collect();
            let mut truths: Vec<bool> = scores.iter().map(|score| next() < *score).collect();
            (truths[0], truths[1]) = (true, false);
            let CalibrationMap::Isotonic { probabilities, .. } = fit_isotonic(&scores, &truths)
            else {
                panic!("isotonic")
            };
            assert!(probabilities.is_sorted(), "{probabilities:?}");
            assert!(probabilities.iter().all(|held| *held > 0.0 && *held < 1.0));
        }
        let all = fit_isotonic(&[0.2, 0.4], &[true, true]);
        assert_eq!(all.probability(0.3), 1.0, "only one class was seen");
    }
}
