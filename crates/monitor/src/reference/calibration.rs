//! Scores as probabilities, where the held-out rows say that they are not: isotonic regression by
//! pooling adjacent violators (Ayer et al. 1955; Zadrozny and Elkan 2002).
//!
//! Used where it lowers the expected calibration error on rows that it was not fitted on, as NannyML
//! decides. Does not change any score: performance estimates alone use it.

use serde::{Deserialize, Serialize};

/// Held-out rows below which no calibration is fitted.
const LEAST_ROWS: usize = 200;
/// Bins of the comparison, of equal width.
const BINS: usize = 10;

/// A step of the fitted function: from this score on (up to the next step), this probability.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct CalibrationStep {
    /// The least score of the step.
    #[serde(with = "falaj_drift::exact::value")]
    pub from: f64,
    /// Its share of positives.
    #[serde(with = "falaj_drift::exact::value")]
    pub probability: f64,
}

/// The probability of a score; the score itself where nothing was fitted.
pub fn calibrated(steps: &[CalibrationStep], score: f64) -> f64 {
    let after = steps.partition_point(|step| step.from <= score);
    match (steps.first(), after.checked_sub(1).and_then(|place| steps.get(place))) {
        (_, Some(step)) => step.probability,
        (Some(first), None) => first.probability,
        (None, None) => score,
    }
}

/// The steps for these rows (score, positive); empty where the scores are as good as they are.
pub(super) fn fit(rows: &[(f64, bool)]) -> Vec<CalibrationStep> {
    if rows.len() < LEAST_ROWS {
        return Vec::new();
    }
    let part = |odd: usize| rows.iter().skip(odd).step_by(2).copied().collect::<Vec<_>>();
    let (fitted, tested) = (pool(&part(0)), part(1));
    if error(&tested, &fitted) < error(&tested, &[]) { pool(rows) } else { Vec::new() }
}

fn pool(rows: &[(f64, bool)]) -> Vec<CalibrationStep> {
    let mut order = rows.to_vec();
    order.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
    // (least score, positives, rows)
    let mut blocks: Vec<(f64, f64, f64)> = Vec::new();
    for tied in order.chunk_by(|a, b| a.0 == b.0) {
        let positives = tied.iter().filter(|(_, positive)| *positive).count() as f64;
        blocks.push((tied[0].0, positives, tied.len() as f64));
        while let [.., left, right] = blocks.as_slice()
            && left.1 / left.2 >= right.1 / right.2
        {
            let merged = (left.0, left.1 + right.1, left.2 + right.2);
            blocks.truncate(blocks.len() - 2);
            blocks.push(merged);
        }
    }
    let step = |(from, positives, rows)| CalibrationStep { from, probability: positives / rows };
    blocks.into_iter().map(step).collect()
}

fn error(rows: &[(f64, bool)], steps: &[CalibrationStep]) -> f64 {
    let mut gaps = [0.0; BINS];
    for (score, positive) in rows {
        let probability = calibrated(steps, *score);
        let bin = ((probability * BINS as f64) as usize).min(BINS - 1);
        gaps[bin] += probability - f64::from(u8::from(*positive));
    }
    gaps.iter().map(|gap: &f64| gap.abs()).sum::<f64>() / rows.len().max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use falaj_drift::CounterRandom;

    fn rows(truth: impl Fn(f64) -> f64) -> Vec<(f64, bool)> {
        let mut random = CounterRandom::new(4, 4);
        let row = |_| {
            let score = random.uniform();
            (score, random.uniform() < truth(score))
        };
        (0..4_000).map(row).collect()
    }

    #[test]
    fn crooked_scores_are_straightened_and_straight_ones_left_alone() {
        let steps = fit(&rows(|score| score * score));
        assert!(steps.windows(2).all(|pair| pair[0].probability < pair[1].probability));
        for score in [0.2, 0.5, 0.8] {
            let found = calibrated(&steps, score);
            assert!((found - score * score).abs() < 0.08, "{score}: {found}");
        }
        assert_eq!(calibrated(&[], 0.3), 0.3);
        assert_eq!(fit(&rows(|_| 0.5)[..100]), []);
    }
}
