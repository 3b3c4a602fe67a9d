//! Figures of predicted classes and probabilities.

/// Probabilities this close to 0 or 1 are moved there before a logarithm (float64's epsilon, as
/// scikit-learn 1.3 and later do).
const CLIP: f64 = f64::EPSILON;

/// Mean of `−ln p(truth)`.
pub fn log_loss(scores: &[f64], truths: &[bool]) -> f64 {
    let loss = |(score, truth): (&f64, &bool)| {
        let p = if *truth { *score } else { 1.0 - *score };
        -libm::log(p.clamp(CLIP, 1.0 - CLIP))
    };
    scores.iter().zip(truths).map(loss).sum::<f64>() / truths.len().max(1) as f64
}

/// Mean of `−ln p(class)`; `scores` has `outputs` probabilities per row.
pub fn log_loss_multiclass(scores: &[f64], classes: &[usize], outputs: usize) -> f64 {
    let loss = |(row, class): (&[f64], &usize)| -libm::log(row[*class].clamp(CLIP, 1.0 - CLIP));
    scores.chunks_exact(outputs).zip(classes).map(loss).sum::<f64>() / classes.len().max(1) as f64
}

/// Mean squared difference of probability and outcome (Brier 1950).
pub fn brier(scores: &[f64], truths: &[bool]) -> f64 {
    let loss = |(score, truth): (&f64, &bool)| {
        let error = score - f64::from(u8::from(*truth));
        error * error
    };
    scores.iter().zip(truths).map(loss).sum::<f64>() / truths.len().max(1) as f64
}

/// Brier's original form: summed over classes.
pub fn brier_multiclass(scores: &[f64], classes: &[usize], outputs: usize) -> f64 {
    let loss = |(row, class): (&[f64], &usize)| {
        let terms = row.iter().enumerate().map(|(at, p)| {
            let error = p - if at == *class { 1.0 } else { 0.0 };
            error * error
        });
        terms.sum::<f64>()
    };
    scores.chunks_exact(outputs).zip(classes).map(loss).sum::<f64>() / classes.len().max(1) as f64
}

/// Area under the ROC curve: the probability that a positive row scores above a negative one, ties
/// counting one half (Mann and Whitney). `None` without both classes.
pub fn auc(scores: &[f64], truths: &[bool]) -> Option<f64> {
    let mut order: Vec<(f64, bool)> = scores.iter().copied().zip(truths.iter().copied()).collect();
    order.sort_unstable_by(|a, b| a.0.total_cmp(&b.0));
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

/// Average precision: `Σ (R_k − R_{k−1}) P_k` over the distinct scores from the highest, without
/// interpolation, as scikit-learn has it (Manning, Raghavan and Schütze 2008, section 8.4). `None`
/// without a positive row.
pub fn average_precision(scores: &[f64], truths: &[bool]) -> Option<f64> {
    let mut order: Vec<(f64, bool)> = scores.iter().copied().zip(truths.iter().copied()).collect();
    order.sort_unstable_by(|a, b| b.0.total_cmp(&a.0));
    let (mut hits, mut seen, mut sum) = (0.0, 0.0, 0.0);
    for tied in order.chunk_by(|a, b| a.0 == b.0) {
        let found = tied.iter().filter(|(_, truth)| *truth).count() as f64;
        hits += found;
        seen += tied.len() as f64;
        sum += found * (hits / seen);
    }
    (hits > 0.0).then(|| sum / hits)
}

/// Matthews' correlation coefficient of a confusion of two classes (Matthews 1975):
/// `(TP·TN − FP·FN) / √((TP+FP)(TP+FN)(TN+FP)(TN+FN))`; `None` where a margin is empty.
pub fn mcc(confusion: &[Vec<u64>]) -> Option<f64> {
    let [[tn, fp], [fne, tp]] = [
        [*confusion.first()?.first()? as f64, *confusion.first()?.get(1)? as f64],
        [*confusion.get(1)?.first()? as f64, *confusion.get(1)?.get(1)? as f64],
    ];
    let margins = (tp + fp) * (tp + fne) * (tn + fp) * (tn + fne);
    (margins > 0.0).then(|| (tp * tn - fp * fne) / margins.sqrt())
}

/// Mean over the classes that occur or were chosen of each one's F1 (scikit-learn's
/// `f1_score(average = "macro")`).
pub fn macro_f1(confusion: &[Vec<u64>]) -> Option<f64> {
    let each: Vec<f64> =
        (0..confusion.len()).filter_map(|class| one_class(confusion, class).f1).collect();
    (!each.is_empty()).then(|| each.iter().sum::<f64>() / each.len() as f64)
}

/// Mean over the classes of the area of each against the rest; `None` unless every class occurs.
pub fn auc_one_vs_rest(scores: &[f64], classes: &[usize], outputs: usize) -> Option<f64> {
    let mut sum = 0.0;
    for class in 0..outputs {
        let own: Vec<f64> = scores.iter().skip(class).step_by(outputs).copied().collect();
        let truths: Vec<bool> = classes.iter().map(|other| *other == class).collect();
        sum += auc(&own, &truths)?;
    }
    (outputs > 0).then(|| sum / outputs as f64)
}

/// Position of the greatest value, the first of equals.
pub fn greatest(row: &[f64]) -> usize {
    let mut best = 0;
    for (at, value) in row.iter().enumerate() {
        if *value > row[best] {
            best = at;
        }
    }
    best
}

/// Counts, `[truth][chosen]`.
pub fn confusion(chosen: &[usize], classes: &[usize], outputs: usize) -> Vec<Vec<u64>> {
    let mut counts = vec![vec![0; outputs]; outputs];
    for (chosen, class) in chosen.iter().zip(classes) {
        if let Some(cell) =
            counts.get_mut(*class).and_then(|row: &mut Vec<u64>| row.get_mut(*chosen))
        {
            *cell += 1;
        }
    }
    counts
}

fn total(confusion: &[Vec<u64>]) -> f64 {
    confusion.iter().flatten().sum::<u64>() as f64
}

/// Share of rows whose class was chosen.
pub fn accuracy(confusion: &[Vec<u64>]) -> f64 {
    let right: u64 = confusion.iter().enumerate().map(|(class, row)| row[class]).sum();
    right as f64 / total(confusion).max(1.0)
}

/// Cohen's kappa: agreement beyond chance; `None` where chance alone agrees always.
pub fn kappa(confusion: &[Vec<u64>]) -> Option<f64> {
    let total = total(confusion);
    let by_chance: f64 = (0..confusion.len())
        .map(|class| {
            let truth: u64 = confusion[class].iter().sum();
            let chosen: u64 = confusion.iter().map(|row| row[class]).sum();
            (truth as f64 / total) * (chosen as f64 / total)
        })
        .sum();
    (by_chance < 1.0).then(|| (accuracy(confusion) - by_chance) / (1.0 - by_chance))
}

/// Figures of one class against the rest.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct OneClass {
    /// Share of the chosen that are of the class; `None` where none was chosen.
    pub precision: Option<f64>,
    /// Share of the class that was chosen; `None` where the class does not occur.
    pub recall: Option<f64>,
    /// Harmonic mean of both; `None` where the class neither occurs nor was chosen.
    pub f1: Option<f64>,
}

/// Figures of `class`.
pub fn one_class(confusion: &[Vec<u64>], class: usize) -> OneClass {
    let right = confusion[class][class] as f64;
    let truth = confusion[class].iter().sum::<u64>() as f64;
    let chosen = confusion.iter().map(|row| row[class]).sum::<u64>() as f64;
    let share = |part: f64, whole: f64| (whole > 0.0).then(|| part / whole);
    OneClass {
        precision: share(right, chosen),
        recall: share(right, truth),
        f1: share(2.0 * right, truth + chosen),
    }
}
