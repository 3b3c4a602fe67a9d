//! Figures of predicted numbers.

fn mean(values: impl Iterator<Item = f64>, count: usize) -> f64 {
    values.sum::<f64>() / count.max(1) as f64
}

/// Root of the mean squared error.
pub fn rmse(scores: &[f64], labels: &[f64]) -> f64 {
    mean(scores.iter().zip(labels).map(|(a, b)| (a - b) * (a - b)), labels.len()).sqrt()
}

/// Mean absolute error.
pub fn mae(scores: &[f64], labels: &[f64]) -> f64 {
    mean(scores.iter().zip(labels).map(|(a, b)| (a - b).abs()), labels.len())
}

/// Mean absolute percentage error, as a share: mean of `|label − score| / |label|`. `None` where a
/// label is 0, whose share is not defined (scikit-learn divides by an epsilon there).
pub fn mape(scores: &[f64], labels: &[f64]) -> Option<f64> {
    let share = mean(scores.iter().zip(labels).map(|(a, b)| ((a - b) / b).abs()), labels.len());
    share.is_finite().then_some(share)
}

/// Pinball loss at the median (Koenker and Bassett 1978): mean of `|label − score| / 2`.
pub fn pinball(scores: &[f64], labels: &[f64]) -> f64 {
    mae(scores, labels) / 2.0
}

/// Share of the variance that is explained; `None` where there is none.
pub fn r2(scores: &[f64], labels: &[f64]) -> Option<f64> {
    let centre = mean(labels.iter().copied(), labels.len());
    let whole: f64 = labels.iter().map(|b| (b - centre) * (b - centre)).sum();
    let rest: f64 = scores.iter().zip(labels).map(|(a, b)| (a - b) * (a - b)).sum();
    (whole > 0.0).then(|| 1.0 - rest / whole)
}
