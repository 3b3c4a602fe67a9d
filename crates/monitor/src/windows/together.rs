//! Tests of all inputs together, at the close of a window: the domain classifier and the
//! reconstruction error.
//!
//! On samples of at most [`MATRIX_ROWS`] rows of each side. Seeds are functions of version and
//! window, so that a replay draws the same.

use falaj_drift::classifier::domain_test;
use serde_json::json;

use super::close::Stamp;
use crate::reference::{MATRIX_ROWS, MatrixReference, RowSample};
use crate::row::DriftRow;
use crate::settings::{MonitorSettings, Test};

/// Permutations of the domain classifier's test: enough that a p-value survives the correction.
const PERMUTATIONS: u32 = 9_999;

/// What all inputs are together, on the way to a row.
pub(super) struct Together {
    pub(super) test: Test,
    pub(super) value: f64,
    pub(super) p_value: Option<f64>,
    pub(super) limit: Option<f64>,
    pub(super) detail: serde_json::Value,
}

impl Together {
    /// The row, with the p-value as it is after correction.
    pub(super) fn row(&self, stamp: &Stamp<'_>, p_value: Option<f64>, rows: u64) -> DriftRow {
        let unusual = self.limit.map(|limit| self.value > limit);
        let significant = p_value.map(|p_value| p_value <= stamp.settings.alpha);
        DriftRow {
            value: Some(self.value).filter(|value| value.is_finite()),
            p_value,
            threshold: self.limit,
            alarm: significant.or(unusual).unwrap_or(false),
            detail: self.detail.to_string(),
            ..stamp.row("inputs", self.test.name(), rows)
        }
    }
}

/// The declared tests of a window's sampled rows. What cannot be measured (fewer than four rows on a
/// side) is left out.
pub(super) fn tests(
    stamp: &Stamp<'_>,
    reference: &MatrixReference,
    sample: &RowSample,
) -> Vec<Together> {
    let settings: &MonitorSettings = stamp.settings;
    let current = sample.rows();
    let mut found = Vec::new();
    if settings.declares(Test::DomainClassifier) {
        let before: Vec<Vec<f64>> = reference.rows.iter().map(|row| row.0.clone()).collect();
        let seed = stamp.window.start.0 ^ (u64::from(stamp.version) << 48);
        if let Ok(test) = domain_test(&before, &current, PERMUTATIONS, seed) {
            let detail = json!({
                "method": "AUC of a ridge logistic regression on rows that it was not fitted on",
                "permutations": test.permutations,
                "train_rows": test.train_rows,
                "test_rows": test.test_rows,
                "p_value": test.p_value.to_string(),
                "weights": test.weights,
                "seed": seed.to_string(),
                "alpha": settings.alpha,
                "correction": settings.correction,
                "sample": MATRIX_ROWS,
            });
            found.push(Together {
                test: Test::DomainClassifier,
                value: test.auc,
                p_value: Some(test.p_value),
                limit: None,
                detail,
            });
        }
    }
    if settings.declares(Test::Reconstruction)
        && let Some(components) = &reference.components
        && let Ok(value) = components.error(&current)
    {
        let limit = reference.error.map(|spread| {
            let fewer = spread.chunk_rows as f64 / current.len().max(1) as f64;
            let deviations = spread.for_one_more(settings.spread);
            spread.mean + deviations * spread.deviation * fewer.max(1.0).sqrt()
        });
        let detail = json!({
            "method": "mean distance of standardised rows from their principal components",
            "components": components.kept(),
            "spread": reference.error,
            "deviations": settings.spread,
            "sample": current.len(),
        });
        found.push(Together { test: Test::Reconstruction, value, p_value: None, limit, detail });
    }
    found
}
