//! Figures against scikit-learn's, and by hand.

use super::*;

const SCORES: [f64; 12] = [0.1, 0.4, 0.35, 0.8, 0.8, 0.65, 0.2, 0.9, 0.5, 0.35, 0.05, 1.0];
const LABELS: [f64; 12] = [0.0, 0.0, 1.0, 1.0, 0.0, 1.0, 0.0, 1.0, 1.0, 0.0, 0.0, 1.0];

fn close(metrics: &Metrics, name: &str, expected: f64) {
    let own = metrics.get(name).unwrap_or(f64::NAN);
    assert!((own - expected).abs() < 1e-12, "{name}: {own} {expected}");
}

#[test]
fn binary_figures_are_scikit_learns() {
    let metrics = evaluate(Task::Binary, &SCORES, &LABELS, 1);
    GOLDEN_BINARY.iter().for_each(|(name, expected)| close(&metrics, name, *expected));
}

/// The figures of eight rows of three classes.
fn three_classes() -> Metrics {
    let scores = [
        [0.7, 0.2, 0.1],
        [0.1, 0.6, 0.3],
        [0.2, 0.5, 0.3],
        [0.3, 0.3, 0.4],
        [0.25, 0.25, 0.5],
        [0.6, 0.3, 0.1],
        [0.1, 0.1, 0.8],
        [0.45, 0.35, 0.2],
    ];
    let labels = [0.0, 1.0, 2.0, 2.0, 1.0, 0.0, 2.0, 1.0];
    evaluate(Task::Multiclass, scores.as_flattened(), &labels, 3)
}

#[test]
fn multiclass_figures_are_scikit_learns() {
    let metrics = three_classes();
    GOLDEN_MULTICLASS.iter().for_each(|(name, expected)| close(&metrics, name, *expected));
}

#[test]
fn regression_figures_are_scikit_learns() {
    let metrics = evaluate(Task::Regression, &[2.5, 0.0, 2.0, 8.0], &[3.0, -0.5, 2.0, 7.0], 1);
    GOLDEN_REGRESSION.iter().for_each(|(name, expected)| close(&metrics, name, *expected));
}

#[test]
fn what_is_not_defined_is_absent() {
    let one_class = evaluate(Task::Binary, &[0.2, 0.4], &[0.0, 0.0], 1);
    assert_eq!(one_class.get("auc"), None);
    assert_eq!(one_class.get("recall"), None);
    assert_eq!(one_class.get("kappa"), None);
    assert_eq!(one_class.get("accuracy"), Some(1.0));
    assert_eq!(evaluate(Task::Regression, &[1.0], &[1.0], 1).get("r2"), None);
    assert_eq!(evaluate(Task::Binary, &[], &[], 1).0.len(), 1);
    let certain = evaluate(Task::Binary, &[0.0, 1.0], &[1.0, 0.0], 1);
    assert!(certain.get("log_loss").is_some_and(|loss| loss > 30.0 && loss.is_finite()));
}

#[test]
fn ties_count_one_half() {
    let auc = |scores: &[f64]| classification::auc(scores, &[true, false, true, false]);
    assert_eq!(auc(&[0.5; 4]), Some(0.5));
    assert_eq!(auc(&[0.9, 0.1, 0.8, 0.2]), Some(1.0));
    assert_eq!(auc(&[0.1, 0.9, 0.2, 0.8]), Some(0.0));
    assert_eq!(auc(&[0.5, 0.5, 0.9, 0.1]), Some(0.875));
}

#[test]
fn curves_begin_and_end_where_they_must() {
    let truths: Vec<bool> = LABELS.iter().map(|label| *label > 0.5).collect();
    for most in [2, 5, 100] {
        let points = curves::roc(&SCORES, &truths, most);
        assert_eq!((points[0], points[points.len() - 1]), ((0.0, 0.0), (1.0, 1.0)));
        assert!(points.len() <= most.max(2));
    }
    // The area under the whole curve is the AUC.
    let points = curves::roc(&SCORES, &truths, 100);
    let area: f64 = points.windows(2).map(|p| (p[1].0 - p[0].0) * (p[1].1 + p[0].1) / 2.0).sum();
    assert!((area - classification::auc(&SCORES, &truths).expect("auc")).abs() < 1e-12);
    let bins = curves::calibration(&[0.0, 0.1, 0.15, 1.0], &[false, true, true, true], 10);
    assert_eq!((bins[0].rows, bins[1].rows, bins[9].rows), (2, 1, 1));
    assert!((bins[0].share - 0.5).abs() < 1e-15);
}

#[test]
fn slices_are_the_most_frequent_values() {
    let value = |text: &str| Some(text.to_owned());
    let values = [value("b"), None, value("a"), value("b"), value("c"), None];
    let scores = [0.1, 0.9, 0.2, 0.8, 0.7, 0.3];
    let labels = [0.0, 1.0, 0.0, 1.0, 1.0, 0.0];
    let slices = by_slice(Task::Binary, "k", &values, &scores, &labels, (1, 0.5), 2);
    let names: Vec<Option<&str>> = slices.iter().map(|slice| slice.value.as_deref()).collect();
    assert_eq!(names, [None, Some("b")]);
    assert_eq!(slices[1].metrics.get("rows"), Some(2.0));
    assert_eq!(slices[1].metrics.get("auc"), Some(1.0));
    assert_eq!(by_slice(Task::Binary, "k", &values, &scores, &labels, (1, 0.5), 9).len(), 4);
}

const GOLDEN_BINARY: [(&str, f64); 9] = [
    ("log_loss", 0.4527583418146037),
    ("brier", 0.15166666666666667),
    ("auc", 0.8611111111111112),
    ("accuracy", 0.8333333333333334),
    ("kappa", 0.6666666666666667),
    ("precision", 0.8333333333333334),
    ("recall", 0.8333333333333334),
    ("f1", 0.8333333333333334),
    ("calibration_error", 0.1666666666666667),
];

const GOLDEN_MULTICLASS: [(&str, f64); 9] = [
    ("log_loss", 0.7697312205754478),
    ("brier", 0.4475),
    ("auc", 0.8555555555555555),
    ("accuracy", 0.625),
    ("kappa", 0.4418604651162791),
    ("precision", 0.611111111111111),
    ("recall", 0.6666666666666666),
    ("f1", 0.6222222222222222),
    ("calibration_error", 0.41874999999999996),
];

const GOLDEN_REGRESSION: [(&str, f64); 3] =
    [("rmse", 0.6123724356957945), ("mae", 0.5), ("r2", 0.9486081370449679)];

#[test]
fn figures_that_gates_may_name_are_all_there() {
    // By hand, as scikit-learn defines them. Descending by score: the labels and, after each group of
    // ties, precision times the positives found: 1.0: +, 0.9: +, 0.8 (two): + -, 0.65: +, 0.5: +,
    // 0.4: -, 0.35 (two): + -, then three negatives.
    let found = (1.0 + 1.0 + 3.0 / 4.0 + 4.0 / 5.0 + 5.0 / 6.0 + 6.0 / 9.0) / 6.0;
    let metrics = evaluate(Task::Binary, &SCORES, &LABELS, 1);
    close(&metrics, "average_precision", found);
    // At 0.5: five of six positives chosen, and one of six negatives.
    close(&metrics, "mcc", (5.0 * 5.0 - 1.0) / (6.0_f64 * 6.0 * 6.0 * 6.0).sqrt());
    close(&metrics, "macro_f1", 10.0 / 12.0);
    // At 0.85 two are chosen, both rightly: recall 2/6.
    let strict = evaluate_at(Task::Binary, &SCORES, &LABELS, 1, 0.85);
    close(&strict, "recall", 2.0 / 6.0);
    close(&strict, "precision", 1.0);
    let metrics = evaluate(Task::Regression, &[2.5, 0.0, 2.0, 8.0], &[3.0, -0.5, 2.0, 7.0], 1);
    close(&metrics, "mape", (0.5 / 3.0 + 1.0 + 0.0 + 1.0 / 7.0) / 4.0);
    close(&metrics, "pinball", (0.5 + 0.5 + 0.0 + 1.0) / 8.0);
    let zero = evaluate(Task::Regression, &[1.0, 2.0], &[0.0, 2.0], 1);
    assert_eq!(zero.get("mape"), None, "a share of nothing is not a number");
    // Chosen: 0 1 1 2 2 0 2 0 for 0 1 2 2 1 0 2 1; F1 of each class against the rest.
    let metrics = three_classes();
    close(&metrics, "macro_f1", (4.0 / 5.0 + 2.0 / 5.0 + 4.0 / 6.0) / 3.0);
    // Every name that a pipeline may gate on is measured.
    let names = |metrics: &Metrics| metrics.0.keys().cloned().collect::<Vec<_>>();
    let binary = names(&evaluate(Task::Binary, &SCORES, &LABELS, 1));
    for name in ["auc", "log_loss", "brier", "accuracy", "average_precision", "precision"] {
        assert!(binary.iter().any(|known| known == name), "{name}");
    }
    for name in ["recall", "f1", "kappa", "mcc", "macro_f1", "calibration_error"] {
        assert!(binary.iter().any(|known| known == name), "{name}");
    }
}
