//! Performance before labels come: what the scores of a window promise (CBPE, see
//! [`falaj_drift::cbpe`]).
//!
//! Exact up to [`MOST_SCORES`] predictions of a version in a window, over a uniform sample beyond.
//! Limits are those of the realised figures: what the reference's chunks did.

use std::collections::BinaryHeap;

use falaj_drift::cbpe::{ScoredRow, estimate, multiclass_accuracy};
use serde_json::json;

use super::close::Stamp;
use crate::figures::usual_limit;
use crate::kept::kept;
use crate::reference::{ReferenceSet, calibrated};
use crate::row::{DriftRow, RowKind};
use crate::settings::{Limit, MonitorSettings};
use crate::{Prediction, Task};

/// Predictions of one version in one window up to which estimates are exact.
pub const MOST_SCORES: usize = 20_000;

/// Scores of a window, a uniform sample beyond the bound.
#[derive(Clone, Debug, Default)]
pub(super) struct Scores {
    /// The sample's hash, the score's bits, whether the positive class was foretold; the greatest hash
    /// on top.
    kept: BinaryHeap<(u64, u64, bool)>,
}

kept!(Scores { kept });

impl Scores {
    pub(super) fn add(&mut self, settings: &MonitorSettings, hash: u64, prediction: &Prediction) {
        if !settings.estimate || !(0.0..=1.0).contains(&prediction.score) {
            return;
        }
        let full = self.kept.len() >= MOST_SCORES;
        if full && self.kept.peek().is_some_and(|(greatest, ..)| hash >= *greatest) {
            return;
        }
        let positive = match &settings.task {
            Task::Binary { positive } => *prediction.predicted == **positive,
            _ => true,
        };
        self.kept.push((hash, prediction.score.to_bits(), positive));
        if self.kept.len() > MOST_SCORES {
            self.kept.pop();
        }
    }

    /// The estimates of a window of `rows` predictions.
    pub(super) fn rows(
        &self,
        stamp: &Stamp<'_>,
        reference: &ReferenceSet,
        rows: u64,
    ) -> Vec<DriftRow> {
        if self.kept.is_empty() {
            return Vec::new();
        }
        let row = |name: &str, value: Option<f64>, deviation: Option<f64>| {
            let usual = reference.figures.get(name);
            let limit = usual_limit(name, usual, stamp.settings, rows);
            let alarm = matches!((limit, value), (Some(limit), Some(value)) if !limit.holds(value));
            let detail = json!({
                "method": "CBPE",
                "calibrated": !reference.calibration.is_empty(),
                "reference": usual,
                "limit": limit,
                "deviation_by_chance": deviation,
                "sampled": (self.kept.len() as u64) < rows,
            });
            DriftRow {
                kind: RowKind::Estimate,
                value,
                threshold: limit.map(Limit::value),
                alarm,
                detail: detail.to_string(),
                ..stamp.row(name, "cbpe", rows)
            }
        };
        match &stamp.settings.task {
            Task::Binary { .. } => {
                let Ok(found) = estimate(&self.scored(reference)) else { return Vec::new() };
                vec![
                    row("auc", found.auc, None),
                    row("accuracy", Some(found.accuracy), Some(found.accuracy_error)),
                    row("log_loss", Some(found.log_loss), None),
                    row("brier", Some(found.brier), None),
                ]
            }
            Task::Multiclass { .. } => {
                let scores: Vec<f64> = self.sorted().map(|(score, _)| score).collect();
                let found = multiclass_accuracy(&scores).ok();
                let accuracy = |(value, error)| row("accuracy", Some(value), Some(error));
                found.into_iter().map(accuracy).collect()
            }
            Task::Regression => Vec::new(),
        }
    }

    /// Scores and whether the positive class was foretold, in the order of the hashes.
    fn sorted(&self) -> impl Iterator<Item = (f64, bool)> {
        let sorted = self.kept.clone().into_sorted_vec();
        sorted.into_iter().map(|(_, bits, positive)| (f64::from_bits(bits), positive))
    }

    fn scored(&self, reference: &ReferenceSet) -> Vec<ScoredRow> {
        let row = |(score, predicted): (f64, bool)| ScoredRow {
            score,
            probability: calibrated(&reference.calibration, score),
            predicted,
        };
        self.sorted().map(row).collect()
    }
}
