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

/// Share of the variance that is explained; `None` where there is none.
pub fn r2(scores: &[f64], labels: &[f64]) -> Option<f64> {
    let centre = mean(labels.iter().copied(), labels.len());
    let whole: f64 = labels.iter().map(|b| (b - centre) * (b - centre)).sum();
    let rest: f64 = scores.iter().zip(labels).map(|(a, b)| (a - b) * (a - b)).sum();
    (whole > 0.0).then(|| 1.0 - rest / whole)
}
