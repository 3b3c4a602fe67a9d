//! Curves: ROC and reliability.

use serde::{Deserialize, Serialize};

/// Points of the ROC curve, `(false positive rate, true positive rate)`, from (0, 0) to (1, 1), ties
/// as one step; thinned to at most `most` points. Empty without both classes.
pub fn roc(scores: &[f64], truths: &[bool], most: usize) -> Vec<(f64, f64)> {
    let mut order: Vec<(f64, bool)> = scores.iter().copied().zip(truths.iter().copied()).collect();
    order.sort_unstable_by(|a, b| b.0.total_cmp(&a.0));
    let positives = order.iter().filter(|(_, truth)| *truth).count() as f64;
    let negatives = order.len() as f64 - positives;
    if positives == 0.0 || negatives == 0.0 {
        return Vec::new();
    }
    let mut points = vec![(0.0, 0.0)];
    let (mut hit, mut miss) = (0.0, 0.0);
    for tied in order.chunk_by(|a, b| a.0 == b.0) {
        let right = tied.iter().filter(|(_, truth)| *truth).count() as f64;
        hit += right;
        miss += tied.len() as f64 - right;
        points.push((miss / negatives, hit / positives));
    }
    if points.len() <= most.max(2) {
        return points;
    }
    let last = points.len() - 1;
    let steps = most.max(2) - 1;
    (0..=steps).map(|step| points[step * last / steps]).collect()
}

/// A bin of a reliability curve.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct CalibrationBin {
    /// Rows in it.
    pub rows: u64,
    /// Their mean score.
    pub score: f64,
    /// Their share of positives.
    pub share: f64,
}

/// Reliability in `bins` bins of equal width: bin i holds scores in `(i/n, (i+1)/n]`, the first also
/// 0. Empty bins have no rows and zeros.
pub fn calibration(scores: &[f64], truths: &[bool], bins: usize) -> Vec<CalibrationBin> {
    let mut sums = vec![(0u64, 0.0, 0.0); bins.max(1)];
    for (score, truth) in scores.iter().zip(truths) {
        let bin = (score * bins as f64).ceil() as usize;
        let bin = bin.saturating_sub(1).min(sums.len() - 1);
        sums[bin].0 += 1;
        sums[bin].1 += score;
        sums[bin].2 += f64::from(u8::from(*truth));
    }
    let bin = |(rows, score, share): (u64, f64, f64)| {
        let count = rows.max(1) as f64;
        CalibrationBin { rows, score: score / count, share: share / count }
    };
    sums.into_iter().map(bin).collect()
}

/// Expected calibration error (Naeini et al., 2015): the bins' gaps, weighted by their rows.
pub fn calibration_error(bins: &[CalibrationBin]) -> f64 {
    let total: u64 = bins.iter().map(|bin| bin.rows).sum();
    let gap = |bin: &CalibrationBin| bin.rows as f64 * (bin.score - bin.share).abs();
    bins.iter().map(gap).sum::<f64>() / total.max(1) as f64
}
