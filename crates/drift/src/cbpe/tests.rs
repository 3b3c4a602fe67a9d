//! CBPE against the formula in NumPy, and against realised figures.

use super::*;
use crate::CounterRandom;

fn row(score: f64, probability: f64) -> ScoredRow {
    ScoredRow { score, probability, predicted: score >= 0.5 }
}

/// 200 rows of the generator `x ← 1103515245 x + 12345 mod 2^31` from 5, rounded to 3 digits.
fn rows() -> Vec<ScoredRow> {
    let mut x = 5_u64;
    let mut draw = || {
        x = (1_103_515_245 * x + 12_345) % (1 << 31);
        x as f64 / (1_u64 << 31) as f64
    };
    let rounded = |value: f64| (value * 1000.0).round_ties_even() / 1000.0;
    (0..200).map(|_| rounded(draw())).map(|s| row(s, (s * 0.9 + 0.03).clamp(0.0, 1.0))).collect()
}

#[test]
fn estimates_are_the_formulas() {
    let found = estimate(&rows()).unwrap();
    let close = |found: f64, expected: f64| assert!((found - expected).abs() < 1e-12, "{found}");
    close(found.accuracy, 0.725_946_5);
    close(found.auc.unwrap(), 0.800_176_798_585_417_6);
    close(found.log_loss, 0.551_222_101_847_485_4);
    close(found.brier, 0.183_388_508);
    assert_eq!(found.rows, 200);
}

#[test]
fn estimates_come_true_where_probabilities_are_calibrated() {
    let mut random = CounterRandom::new(11, 0);
    let rows: Vec<ScoredRow> = (0..20_000).map(|_| random.uniform()).map(|p| row(p, p)).collect();
    let found = estimate(&rows).unwrap();
    let right = rows.iter().filter(|row| (random.uniform() < row.probability) == row.predicted);
    let realised = right.count() as f64 / 20_000.0;
    let error = (realised - found.accuracy).abs();
    assert!(error < 4.0 * found.accuracy_error, "{error} of {}", found.accuracy_error);
    assert!((0.74..0.76).contains(&found.accuracy));
}

#[test]
fn edges() {
    assert_eq!(estimate(&[]), Err(DriftError::Empty("the window")));
    assert!(estimate(&[row(1.5, 0.5)]).is_err());
    assert!(estimate(&[row(0.5, f64::NAN)]).is_err());
    let sure = estimate(&[row(1.0, 1.0), row(0.9, 1.0)]).unwrap();
    assert_eq!((sure.auc, sure.accuracy, sure.accuracy_error), (None, 1.0, 0.0));
    let tied = estimate(&[row(0.4, 0.2), row(0.4, 0.9)]).unwrap();
    assert_eq!(tied.auc, Some(0.5));
    let (accuracy, error) = multiclass_accuracy(&[0.5, 0.7]).unwrap();
    assert!((accuracy - 0.6).abs() < 1e-15 && (error - 0.46_f64.sqrt() / 2.0).abs() < 1e-15);
}
