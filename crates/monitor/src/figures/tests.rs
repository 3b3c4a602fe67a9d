//! Windows of figures: corrections, limits, bounds.

use super::*;
use crate::testing::{CALM, WINDOW_US, reference, settings};

fn open() -> OpenFigures {
    let settings = Arc::new(settings());
    let windows = settings.figures[0].clone();
    OpenFigures::new(settings, windows)
}

fn accuracy(closed: &Closed) -> (Option<f64>, u64) {
    let row = closed.rows.iter().find(|row| row.subject == "accuracy" && row.slice.is_none());
    row.map_or((None, 0), |row| (row.value, row.rows))
}

#[test]
fn a_correction_replaces_and_a_withdrawal_removes() {
    let mut figures = open();
    for row in 0..10 {
        figures.judged(LogTime(1), &CALM.outcome(row, 1));
    }
    let mut corrected = CALM.outcome(3, 1);
    let wrong = if &*corrected.prediction.predicted == "true" { "false" } else { "true" };
    corrected.actual = Some(Arc::new(crate::Actual::Class(wrong.into())));
    figures.judged(LogTime(2), &corrected);
    let mut withdrawn = CALM.outcome(4, 1);
    withdrawn.actual = None;
    figures.judged(LogTime(3), &withdrawn);
    let right = |row: u64| CALM.outcome(row, 1).judgement.unwrap().correct == Some(true);
    let expected = (0..10).filter(|row| *row != 3 && *row != 4 && right(*row)).count();
    let closed = figures.advance(LogTime(WINDOW_US), |_| None);
    assert_eq!(accuracy(&closed), (Some(expected as f64 / 9.0), 9));
    assert_eq!(figures.advance(LogTime(2 * WINDOW_US), |_| None), Closed::default());
}

#[test]
fn declared_limits_go_before_usual_ones() {
    let settings = settings();
    let reference = reference(&settings, CALM, 4_000);
    let mut figures = open();
    for row in 0..400 {
        figures.judged(LogTime(1), &CALM.outcome(row, 1));
        figures.predicted(LogTime(1), &CALM.prediction(row, 1));
    }
    let closed = figures.advance(LogTime(WINDOW_US), |_| Some(Arc::clone(&reference)));
    let of = |name: &str| {
        closed.rows.iter().find(|row| row.subject == name && row.slice.is_none()).unwrap()
    };
    assert_eq!(of("accuracy").threshold, Some(0.7));
    assert_eq!(of("mean_score").threshold, Some(0.9));
    let auc = of("auc");
    let usual = reference.figures["auc"].spread.unwrap();
    assert!(auc.threshold.unwrap() < usual.mean && !auc.alarm);
    assert!(auc.detail.contains("the reference's own spread"));
    assert!(of("mean_score").value.is_some_and(|mean| (0.4..0.6).contains(&mean)));
    // 400 rows over three channels: each of them suffices.
    let slices = closed.rows.iter().filter(|row| row.subject == "auc" && row.slice.is_some());
    assert_eq!(slices.count(), 3);
}
