//! Performance before labels arrive: what calibrated probabilities promise (CBPE).
//!
//! If `p` is the probability that a label is 1, a row predicted 1 is right with probability `p`, so
//! the expected confusion matrix, and every figure made of it, is known without labels (NannyML,
//! "Confidence-based performance estimation"; Białek, Kuberski, Perrakis and Bifet, "Estimating
//! model performance under covariate shift without labels", 2024). It sees covariate shift; it is
//! blind by design where P(Y | X) itself changes. Does not calibrate.

#[cfg(test)]
mod tests;

use serde::{Deserialize, Serialize};

use crate::DriftError;

/// Scores are kept this far from 0 and 1 under a logarithm.
const CLIP: f64 = 1e-15;

/// One scored row of a binary model.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct ScoredRow {
    /// The model's score, by which it decides and ranks; in [0, 1].
    pub score: f64,
    /// The calibrated probability that the label is 1.
    pub probability: f64,
    /// What the model predicted.
    pub predicted: bool,
}

/// Expected counts of the confusion matrix.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ExpectedConfusion {
    /// Predicted 1 and right.
    pub true_positives: f64,
    /// Predicted 1 and wrong.
    pub false_positives: f64,
    /// Predicted 0 and right.
    pub true_negatives: f64,
    /// Predicted 0 and wrong.
    pub false_negatives: f64,
}

/// Estimated performance over one window.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EstimatedPerformance {
    /// Rows that it is estimated from.
    pub rows: u64,
    /// The expected confusion matrix.
    pub confusion: ExpectedConfusion,
    /// Expected accuracy.
    pub accuracy: f64,
    /// The standard deviation that the realised accuracy would have around it by the labels'
    /// chance alone: `√(Σ p (1 - p)) / n`, the Poisson binomial's. NannyML's band is three of them.
    pub accuracy_error: f64,
    /// Expected area under the ROC curve; `None` where one class is not expected at all.
    pub auc: Option<f64>,
    /// Expected log loss of the scores, in nats.
    pub log_loss: f64,
    /// Expected Brier score of the scores.
    pub brier: f64,
}

/// Estimates over the rows of a window. O(n log n).
///
/// # Errors
/// [`DriftError`] where there are no rows, or a score or probability lies outside [0, 1].
pub fn estimate(rows: &[ScoredRow]) -> Result<EstimatedPerformance, DriftError> {
    if rows.is_empty() {
        return Err(DriftError::Empty("the window"));
    }
    for row in rows {
        check_unit("a score", row.score)?;
        check_unit("a probability", row.probability)?;
    }
    let mut confusion = ExpectedConfusion::default();
    let (mut spread, mut log_loss, mut brier) = (0.0, 0.0, 0.0);
    for ScoredRow { score, probability, predicted } in rows.iter().copied() {
        let counter = 1.0 - probability;
        if predicted {
            confusion.true_positives += probability;
            confusion.false_positives += counter;
        } else {
            confusion.false_negatives += probability;
            confusion.true_negatives += counter;
        }
        spread += probability * counter;
        let clipped = score.clamp(CLIP, 1.0 - CLIP);
        log_loss -= probability * libm::log(clipped) + counter * libm::log(1.0 - clipped);
        brier += probability * (1.0 - score) * (1.0 - score) + counter * score * score;
    }
    let count = rows.len() as f64;
    Ok(EstimatedPerformance {
        rows: rows.len() as u64,
        confusion,
        accuracy: (confusion.true_positives + confusion.true_negatives) / count,
        accuracy_error: f64::sqrt(spread) / count,
        auc: expected_auc(rows),
        log_loss: log_loss / count,
        brier: brier / count,
    })
}

/// The area under the expected ROC curve: rows by descending score, each `p` of a positive and
/// `1 - p` of a negative, equal scores as one step, by trapezia. `None` where one class has no mass.
fn expected_auc(rows: &[ScoredRow]) -> Option<f64> {
    let mut order: Vec<&ScoredRow> = rows.iter().collect();
    order.sort_by(|a, b| b.score.total_cmp(&a.score));
    let (mut positives, mut negatives, mut area) = (0.0, 0.0, 0.0);
    let mut index = 0;
    while let Some(first) = order.get(index) {
        let tied = order[index..].iter().take_while(|row| row.score == first.score);
        let (mut more_positives, mut more_negatives) = (0.0, 0.0);
        for row in tied {
            more_positives += row.probability;
            more_negatives += 1.0 - row.probability;
            index += 1;
        }
        area += more_negatives * (positives + more_positives / 2.0);
        positives += more_positives;
        negatives += more_negatives;
    }
    (positives > 0.0 && negatives > 0.0).then(|| area / (positives * negatives))
}

/// Expected accuracy of a multiclass model: the mean calibrated probability of the predicted
/// class, with the standard deviation of the realised one around it.
///
/// # Errors
/// [`DriftError`] where there are no rows, or a probability lies outside [0, 1].
pub fn multiclass_accuracy(of_predicted: &[f64]) -> Result<(f64, f64), DriftError> {
    if of_predicted.is_empty() {
        return Err(DriftError::Empty("the window"));
    }
    of_predicted.iter().try_for_each(|p| check_unit("a probability", *p))?;
    let count = of_predicted.len() as f64;
    let spread: f64 = of_predicted.iter().map(|p| p * (1.0 - p)).sum();
    Ok((of_predicted.iter().sum::<f64>() / count, spread.sqrt() / count))
}

fn check_unit(what: &'static str, value: f64) -> Result<(), DriftError> {
    if (0.0..=1.0).contains(&value) {
        return Ok(());
    }
    Err(DriftError::BadParameter { what, value, rule: "between 0 and 1" })
}
