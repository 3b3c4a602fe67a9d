//! Figures by hand, and against scikit-learn's.

use super::*;

fn row(score: f64, predicted: &str, actual: &str) -> JudgedRow {
    JudgedRow {
        score,
        scores: Arc::from([]),
        predicted: predicted.into(),
        actual: Arc::new(Actual::Class(actual.into())),
    }
}

fn binary() -> (Task, Vec<JudgedRow>) {
    let task = Task::Binary { positive: "1".into() };
    let label = |score: f64| if score >= 0.5 { "1" } else { "0" };
    let rows = [(0.9, "1"), (0.8, "0"), (0.7, "1"), (0.4, "1"), (0.4, "0"), (0.1, "0")];
    (task, rows.iter().map(|(score, truth)| row(*score, label(*score), truth)).collect())
}

#[test]
fn binary_figures_are_those_of_the_textbook() {
    let (task, rows) = binary();
    let of = |name: &str| measure(&task, name, &rows).unwrap();
    let close = |name: &str, expected: f64| {
        let found = of(name);
        assert!((found - expected).abs() < 1e-12, "{name} = {found}, not {expected}");
    };
    // 9 pairs of a positive and a negative: 6 won, one tied, two lost (0.8 beats 0.7 and 0.4).
    close("auc", 6.5 / 9.0);
    // Recall grows at 0.9 (precision 1), 0.7 (2 of 3) and 0.4 (3 of 5).
    close("average_precision", (1.0 + 2.0 / 3.0 + 3.0 / 5.0) / 3.0);
    close("accuracy", 4.0 / 6.0);
    close("precision", 2.0 / 3.0);
    close("recall", 2.0 / 3.0);
    close("f1", 2.0 / 3.0);
    close("macro_f1", 2.0 / 3.0);
    close("kappa", 1.0 / 3.0);
    close("mcc", 1.0 / 3.0);
    let squares = 0.01 + 0.64 + 0.09 + 0.36 + 0.16 + 0.01;
    close("brier", squares / 6.0);
    let logs = [0.9, 0.2, 0.7, 0.4, 0.6, 0.9].iter().map(|p: &f64| -p.ln()).sum::<f64>();
    close("log_loss", logs / 6.0);
    // Bins: 0.1 | 0.4 twice | 0.7 | 0.8 | 0.9.
    close("calibration_error", (0.1 + 0.2 + 0.3 + 0.8 + 0.1) / 6.0);
}

#[test]
fn what_is_not_defined_is_absent() {
    let task = Task::Binary { positive: "1".into() };
    let rows = vec![row(0.2, "0", "0"), row(0.3, "0", "0")];
    for name in ["auc", "average_precision", "precision", "recall", "kappa", "mcc"] {
        assert_eq!(measure(&task, name, &rows), None, "{name}");
    }
    assert_eq!(measure(&task, "accuracy", &rows), Some(1.0));
    assert_eq!(measure(&task, "accuracy", &[]), None);
    assert_eq!(measure(&task, "no such figure", &rows), None);
}

#[test]
fn numbers_have_their_own() {
    let rows: Vec<JudgedRow> = [(2.5, 3.0), (0.0, -0.5), (2.0, 2.0), (8.0, 7.0)]
        .iter()
        .map(|(score, truth)| JudgedRow {
            actual: Arc::new(Actual::Number(*truth)),
            ..row(*score, "", "")
        })
        .collect();
    let of = |name: &str| measure(&Task::Regression, name, &rows).unwrap();
    // scikit-learn's documentation of r2_score and mean_absolute_error.
    assert!((of("r2") - 0.948_608_137_044_967_9).abs() < 1e-12);
    assert!((of("mae") - 0.5).abs() < 1e-12);
    assert!((of("rmse") - 0.612_372_435_695_794_5).abs() < 1e-12);
    assert!((of("pinball") - 0.25).abs() < 1e-12);
}

#[test]
fn many_classes() {
    let classes = vec!["a".into(), "b".into(), "c".into()];
    let task = Task::Multiclass { classes };
    let of = |scores: [f64; 3], predicted: &str, actual: &str| JudgedRow {
        score: scores.into_iter().fold(0.0, f64::max),
        scores: scores.into(),
        predicted: predicted.into(),
        actual: Arc::new(Actual::Class(actual.into())),
    };
    let rows = vec![
        of([0.8, 0.1, 0.1], "a", "a"),
        of([0.2, 0.5, 0.3], "b", "c"),
        of([0.3, 0.3, 0.4], "c", "c"),
    ];
    assert_eq!(measure(&task, "accuracy", &rows), Some(2.0 / 3.0));
    // a: 1; b: 0 (foretold, never true); c: 2·1 / (2 + 1).
    assert!((measure(&task, "macro_f1", &rows).unwrap() - (1.0 + 2.0 / 3.0) / 3.0).abs() < 1e-12);
    assert_eq!(measure(&task, "auc", &rows), None);
}
