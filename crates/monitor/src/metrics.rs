//! Figures of judged predictions: how good a version was in a window.
//!
//! Exact: every figure is the usual definition over all the rows given, summed in their order. A
//! figure that is not defined on the rows (AUC with one class, R² of a constant) is `None`, never a
//! made-up number. Does not know windows.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::judge::{Actual, Task, judge};

#[cfg(test)]
mod tests;

/// Bins of equal width of the calibration error.
const CALIBRATION_BINS: usize = 10;

/// A prediction and the truth about it.
#[derive(Clone, Debug, PartialEq)]
pub struct JudgedRow {
    /// The probability of the positive class (binary) or of the label (multiclass), or the value.
    pub score: f64,
    /// Multiclass: a probability per class.
    pub scores: Arc<[f64]>,
    /// The class foretold, as text; empty for regression.
    pub predicted: Arc<str>,
    /// The truth.
    pub actual: Arc<Actual>,
}

/// The names of a task's figures, in the order of reports.
pub fn names(task: &Task) -> &'static [&'static str] {
    match task {
        Task::Binary { .. } => &[
            "auc",
            "log_loss",
            "brier",
            "accuracy",
            "average_precision",
            "precision",
            "recall",
            "f1",
            "kappa",
            "mcc",
            "macro_f1",
            "calibration_error",
        ],
        Task::Multiclass { .. } => {
            &["log_loss", "brier", "accuracy", "kappa", "macro_f1", "calibration_error"]
        }
        Task::Regression => &["rmse", "mae", "mape", "r2", "pinball"],
    }
}

/// Whether more of the figure is better.
pub fn higher_is_better(name: &str) -> bool {
    !matches!(
        name,
        "log_loss" | "brier" | "calibration_error" | "rmse" | "mae" | "mape" | "pinball"
    )
}

/// Counts `[truth][chosen]` by class.
type Confusion<'a> = BTreeMap<(&'a str, &'a str), f64>;

/// The figure `name` over `rows`; `None` where it is not defined on them.
pub fn measure<'a>(
    task: &Task,
    name: &str,
    rows: impl IntoIterator<Item = &'a JudgedRow>,
) -> Option<f64> {
    let rows: Vec<&JudgedRow> = rows.into_iter().collect();
    if rows.is_empty() {
        return None;
    }
    let found = match task {
        Task::Regression => regression(name, &rows),
        Task::Binary { positive } => match name {
            "auc" => auc(&by_score(positive, &rows)),
            "average_precision" => average_precision(&by_score(positive, &rows)),
            "calibration_error" => {
                Some(calibration(rows.iter().map(|row| (row.score, is(row, positive)))))
            }
            "precision" | "recall" | "f1" | "mcc" => positive_class(name, positive, &rows),
            _ => of_classes(task, name, &rows),
        },
        Task::Multiclass { .. } => match name {
            "calibration_error" => Some(calibration(rows.iter().map(|row| {
                let right =
                    matches!(&*row.actual, Actual::Class(class) if **class == *row.predicted);
                (row.score, right)
            }))),
            _ => of_classes(task, name, &rows),
        },
    };
    found.filter(|value| value.is_finite())
}

fn is(row: &JudgedRow, positive: &str) -> bool {
    matches!(&*row.actual, Actual::Class(class) if class == positive)
}

/// Figures that both kinds of classification have.
fn of_classes(task: &Task, name: &str, rows: &[&JudgedRow]) -> Option<f64> {
    let mean = |term: fn(&crate::Judgement) -> Option<f64>| {
        let mut sum = 0.0;
        for row in rows {
            let judged = judge(task, row.score, &row.scores, &row.predicted, &row.actual)?;
            sum += term(&judged)?;
        }
        Some(sum / rows.len() as f64)
    };
    match name {
        "log_loss" => mean(|judged| judged.log_loss),
        "brier" => mean(|judged| judged.brier),
        "accuracy" => mean(|judged| judged.correct.map(|correct| f64::from(u8::from(correct)))),
        "kappa" => kappa(&confusion(task, rows)),
        "macro_f1" => macro_f1(&confusion(task, rows)),
        _ => None,
    }
}

/// Binary labels are told apart as positive or not: a label topic may know more classes.
fn confusion<'a>(task: &'a Task, rows: &[&'a JudgedRow]) -> Confusion<'a> {
    let side = |class: &'a str| match task {
        Task::Binary { positive } if class == positive => "positive",
        Task::Binary { .. } => "negative",
        _ => class,
    };
    let mut counts = Confusion::new();
    for row in rows {
        if let Actual::Class(class) = &*row.actual {
            *counts.entry((side(class), side(&row.predicted))).or_default() += 1.0;
        }
    }
    counts
}

fn classes<'a>(confusion: &Confusion<'a>) -> Vec<&'a str> {
    let both = confusion.keys().flat_map(|(truth, chosen)| [*truth, *chosen]);
    let mut all: Vec<&str> = both.collect();
    all.sort_unstable();
    all.dedup();
    all
}

fn margins(confusion: &Confusion<'_>, class: &str) -> (f64, f64, f64) {
    let sum = |of: &dyn Fn(&(&str, &str)) -> bool| {
        confusion.iter().filter(|(key, _)| of(key)).map(|(_, count)| count).sum::<f64>()
    };
    let right = confusion.get(&(class, class)).copied().unwrap_or(0.0);
    (right, sum(&|(truth, _)| *truth == class), sum(&|(_, chosen)| *chosen == class))
}

/// Cohen's kappa: agreement beyond chance (Cohen 1960); `None` where chance alone agrees always.
fn kappa(confusion: &Confusion<'_>) -> Option<f64> {
    let total: f64 = confusion.values().sum();
    let (mut agreed, mut by_chance) = (0.0, 0.0);
    for class in classes(confusion) {
        let (right, truth, chosen) = margins(confusion, class);
        agreed += right / total;
        by_chance += (truth / total) * (chosen / total);
    }
    (by_chance < 1.0).then(|| (agreed - by_chance) / (1.0 - by_chance))
}

/// Mean over the classes that occur or were foretold of each one's F1.
fn macro_f1(confusion: &Confusion<'_>) -> Option<f64> {
    let all = classes(confusion);
    let f1 = |class: &&str| {
        let (right, truth, chosen) = margins(confusion, class);
        2.0 * right / (truth + chosen)
    };
    (!all.is_empty()).then(|| all.iter().map(f1).sum::<f64>() / all.len() as f64)
}

fn positive_class(name: &str, positive: &str, rows: &[&JudgedRow]) -> Option<f64> {
    let (mut tp, mut fp, mut fne, mut tn) = (0.0, 0.0, 0.0, 0.0);
    for row in rows {
        match (is(row, positive), *row.predicted == *positive) {
            (true, true) => tp += 1.0,
            (false, true) => fp += 1.0,
            (true, false) => fne += 1.0,
            (false, false) => tn += 1.0,
        }
    }
    let share = |part: f64, whole: f64| (whole > 0.0).then(|| part / whole);
    match name {
        "precision" => share(tp, tp + fp),
        "recall" => share(tp, tp + fne),
        "f1" => share(2.0 * tp, 2.0 * tp + fp + fne),
        // Matthews 1975.
        _ => share(tp * tn - fp * fne, ((tp + fp) * (tp + fne) * (tn + fp) * (tn + fne)).sqrt()),
    }
}

/// Scores with whether the truth is positive, the lowest first.
fn by_score(positive: &str, rows: &[&JudgedRow]) -> Vec<(f64, bool)> {
    let mut order: Vec<(f64, bool)> =
        rows.iter().map(|row| (row.score, is(row, positive))).collect();
    order.sort_unstable_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
    order
}

/// Area under the ROC curve: the probability that a positive row scores above a negative one, ties
/// counting one half (Hanley and McNeil 1982). `None` without both classes.
fn auc(order: &[(f64, bool)]) -> Option<f64> {
    let (mut wins, mut negatives) = (0.0, 0.0);
    for tied in order.chunk_by(|a, b| a.0 == b.0) {
        let positive = tied.iter().filter(|(_, truth)| *truth).count() as f64;
        let negative = tied.len() as f64 - positive;
        wins += positive * (negatives + negative / 2.0);
        negatives += negative;
    }
    let positives = order.len() as f64 - negatives;
    (positives > 0.0 && negatives > 0.0).then(|| wins / (positives * negatives))
}

/// `Σ (R_k - R_{k-1}) P_k` over the distinct scores from the highest, without interpolation.
fn average_precision(order: &[(f64, bool)]) -> Option<f64> {
    let positives = order.iter().filter(|(_, truth)| *truth).count() as f64;
    let (mut hits, mut seen, mut sum) = (0.0, 0.0, 0.0);
    let descending: Vec<(f64, bool)> = order.iter().rev().copied().collect();
    for tied in descending.chunk_by(|a, b| a.0 == b.0) {
        let found = tied.iter().filter(|(_, truth)| *truth).count() as f64;
        hits += found;
        seen += tied.len() as f64;
        sum += found * (hits / seen);
    }
    (positives > 0.0).then(|| sum / positives)
}

/// Expected calibration error (Naeini, Cooper and Hauskrecht, AAAI 2015) over ten bins of equal
/// width, of which bin `i` holds the probabilities in `(i/10, (i+1)/10]`, the first also 0.
fn calibration(rows: impl Iterator<Item = (f64, bool)>) -> f64 {
    let mut bins = [(0.0, 0.0, 0.0); CALIBRATION_BINS];
    let mut total = 0.0;
    for (probability, truth) in rows {
        let place = (probability * CALIBRATION_BINS as f64).ceil() as usize;
        let bin = &mut bins[place.saturating_sub(1).min(CALIBRATION_BINS - 1)];
        bin.0 += 1.0;
        bin.1 += probability;
        bin.2 += f64::from(u8::from(truth));
        total += 1.0;
    }
    let gaps = bins.iter().map(|(_, scores, hits): &(f64, f64, f64)| (scores - hits).abs());
    gaps.sum::<f64>() / total
}

fn regression(name: &str, rows: &[&JudgedRow]) -> Option<f64> {
    let n = rows.len() as f64;
    let truth = |row: &JudgedRow| match &*row.actual {
        Actual::Number(value) => *value,
        Actual::Class(_) => f64::NAN,
    };
    let mean = |term: &dyn Fn(f64, f64) -> f64| {
        rows.iter().map(|row| term(row.score, truth(row))).sum::<f64>() / n
    };
    match name {
        "rmse" => Some(mean(&|value, truth| (value - truth) * (value - truth)).sqrt()),
        "mae" => Some(mean(&|value, truth| (value - truth).abs())),
        // Undefined where a truth is 0: the quotient is infinite, and the figure absent.
        "mape" => Some(mean(&|value, truth| ((value - truth) / truth).abs())),
        // Koenker and Bassett 1978, at the median: half of the mean absolute error.
        "pinball" => Some(mean(&|value, truth| (value - truth).abs() / 2.0)),
        "r2" => {
            let centre = mean(&|_, truth| truth);
            let whole = mean(&|_, truth| (truth - centre) * (truth - centre));
            let rest = mean(&|value, truth| (value - truth) * (value - truth));
            (whole > 0.0).then(|| 1.0 - rest / whole)
        }
        _ => None,
    }
}
