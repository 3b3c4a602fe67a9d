//! Figures that say how good predictions were: of classes, of probabilities, of numbers, per slice.
//!
//! Each is the usual definition, unweighted, in float64, summed in row order; a figure that is not
//! defined on the rows (AUC with one class, R² of a constant) is absent, never a made-up number. Does
//! not know what predicted.

pub mod classification;
pub mod curves;
pub mod regression;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::spec::Task;

/// Figures by name: `log_loss`, `brier`, `accuracy`, `kappa`, `auc`, `average_precision`,
/// `precision`, `recall`, `f1`, `macro_f1`, `mcc`, `calibration_error`, `rmse`, `mae`, `mape`,
/// `pinball`, `r2`, `rows`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Metrics(pub BTreeMap<String, f64>);

impl Metrics {
    /// The figure `name`, where it is defined.
    pub fn get(&self, name: &str) -> Option<f64> {
        self.0.get(name).copied()
    }

    fn put(&mut self, name: &str, value: Option<f64>) {
        if let Some(value) = value.filter(|value| value.is_finite()) {
            self.0.insert(name.to_owned(), value);
        }
    }
}

/// Bins of the calibration error.
pub const CALIBRATION_BINS: usize = 10;

/// All figures of a task. `scores` has `outputs` numbers per row: the probability of the greater
/// class, the probabilities of all classes, or the number; `labels` has 0 or 1, the class, or the
/// number.
pub fn evaluate(task: Task, scores: &[f64], labels: &[f64], outputs: usize) -> Metrics {
    evaluate_at(task, scores, labels, outputs, 0.5)
}

/// As [`evaluate`], with `threshold` the probability from which on a binary score is labelled
/// positive.
pub fn evaluate_at(
    task: Task,
    scores: &[f64],
    labels: &[f64],
    outputs: usize,
    threshold: f64,
) -> Metrics {
    let mut metrics = Metrics::default();
    metrics.put("rows", Some(labels.len() as f64));
    if labels.is_empty() {
        return metrics;
    }
    match task {
        Task::Binary => binary(&mut metrics, scores, labels, threshold),
        Task::Multiclass => multiclass(&mut metrics, scores, labels, outputs),
        Task::Regression => {
            metrics.put("rmse", Some(regression::rmse(scores, labels)));
            metrics.put("mae", Some(regression::mae(scores, labels)));
            metrics.put("mape", regression::mape(scores, labels));
            metrics.put("pinball", Some(regression::pinball(scores, labels)));
            metrics.put("r2", regression::r2(scores, labels));
        }
    }
    metrics
}

fn binary(metrics: &mut Metrics, scores: &[f64], labels: &[f64], threshold: f64) {
    let truths: Vec<bool> = labels.iter().map(|label| *label > 0.5).collect();
    let classes: Vec<usize> = truths.iter().map(|truth| usize::from(*truth)).collect();
    let chosen: Vec<usize> = scores.iter().map(|score| usize::from(*score >= threshold)).collect();
    let confusion = classification::confusion(&chosen, &classes, 2);
    let positive = classification::one_class(&confusion, 1);
    metrics.put("log_loss", Some(classification::log_loss(scores, &truths)));
    metrics.put("brier", Some(classification::brier(scores, &truths)));
    metrics.put("auc", classification::auc(scores, &truths));
    metrics.put("accuracy", Some(classification::accuracy(&confusion)));
    metrics.put("kappa", classification::kappa(&confusion));
    metrics.put("average_precision", classification::average_precision(scores, &truths));
    metrics.put("mcc", classification::mcc(&confusion));
    metrics.put("macro_f1", classification::macro_f1(&confusion));
    metrics.put("precision", positive.precision);
    metrics.put("recall", positive.recall);
    metrics.put("f1", positive.f1);
    let bins = curves::calibration(scores, &truths, CALIBRATION_BINS);
    metrics.put("calibration_error", Some(curves::calibration_error(&bins)));
}

fn multiclass(metrics: &mut Metrics, scores: &[f64], labels: &[f64], outputs: usize) {
    let classes: Vec<usize> = labels.iter().map(|label| *label as usize).collect();
    let rows = || scores.chunks_exact(outputs.max(1));
    let chosen: Vec<usize> = rows().map(classification::greatest).collect();
    let confusion = classification::confusion(&chosen, &classes, outputs);
    metrics.put("log_loss", Some(classification::log_loss_multiclass(scores, &classes, outputs)));
    metrics.put("brier", Some(classification::brier_multiclass(scores, &classes, outputs)));
    metrics.put("auc", classification::auc_one_vs_rest(scores, &classes, outputs));
    metrics.put("accuracy", Some(classification::accuracy(&confusion)));
    metrics.put("kappa", classification::kappa(&confusion));
    let each: Vec<_> = (0..outputs).map(|c| classification::one_class(&confusion, c)).collect();
    let macro_mean = |figure: fn(&classification::OneClass) -> Option<f64>| {
        let present: Vec<f64> = each.iter().map(|one| figure(one).unwrap_or(0.0)).collect();
        Some(present.iter().sum::<f64>() / present.len().max(1) as f64)
    };
    metrics.put("precision", macro_mean(|one| one.precision));
    metrics.put("recall", macro_mean(|one| one.recall));
    metrics.put("f1", macro_mean(|one| one.f1));
    metrics.put("macro_f1", classification::macro_f1(&confusion));
    let confidence: Vec<f64> =
        rows().zip(&chosen).map(|(row, class)| row.get(*class).copied().unwrap_or(0.0)).collect();
    let right: Vec<bool> = chosen.iter().zip(&classes).map(|(a, b)| a == b).collect();
    let bins = curves::calibration(&confidence, &right, CALIBRATION_BINS);
    metrics.put("calibration_error", Some(curves::calibration_error(&bins)));
}

/// Figures of the rows with one value in one column.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Slice {
    /// The column.
    pub column: String,
    /// The value, as text; `None` for NULL.
    pub value: Option<String>,
    /// Their figures.
    pub metrics: Metrics,
}

/// Figures per value of one column, values ascending, NULL first; at most `most` values, the most
/// frequent ones. `outputs` and `threshold` as for [`evaluate_at`].
pub fn by_slice(
    task: Task,
    column: &str,
    values: &[Option<String>],
    scores: &[f64],
    labels: &[f64],
    (outputs, threshold): (usize, f64),
    most: usize,
) -> Vec<Slice> {
    let mut groups = BTreeMap::<&Option<String>, Vec<usize>>::new();
    for (row, value) in values.iter().enumerate() {
        groups.entry(value).or_default().push(row);
    }
    let mut sizes: Vec<usize> = groups.values().map(Vec::len).collect();
    sizes.sort_unstable_by(|a, b| b.cmp(a));
    let least = sizes.get(most).map_or(0, |size| size + 1);
    let slice = |(value, rows): (&Option<String>, Vec<usize>)| {
        let scores: Vec<f64> = rows
            .iter()
            .flat_map(|row| &scores[row * outputs..(row + 1) * outputs])
            .copied()
            .collect();
        let labels: Vec<f64> = rows.iter().map(|row| labels[*row]).collect();
        let metrics = evaluate_at(task, &scores, &labels, outputs, threshold);
        Slice { column: column.to_owned(), value: value.clone(), metrics }
    };
    groups.into_iter().filter(|(_, rows)| rows.len() >= least).map(slice).collect()
}

#[cfg(test)]
mod tests;
