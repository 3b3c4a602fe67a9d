//! The domain classifier: can a model tell the window from the reference? If its AUC on rows it has
//! not seen is above one half by more than chance, something has drifted, in whatever combination
//! of columns (Friedman, "On multivariate goodness-of-fit and two-sample testing", 2003; Lopez-Paz
//! and Oquab, ICLR 2017).
//!
//! A ridge logistic regression on each column's standardised value, its square and whether it is
//! missing, so that shifts of mean, spread and missingness show; trained on half of the rows. Splits
//! and permutations come from a counter and a seed. Interactions without any marginal trace are
//! beyond it. Does not know which rows are worth comparing.

#[cfg(test)]
mod tests;

use serde::{Deserialize, Serialize};

use crate::DriftError;
use crate::random::CounterRandom;

/// Weight of the squared coefficients; columns are standardised.
const RIDGE: f64 = 1.0;
const MOST_STEPS: usize = 50;
/// Standard values beyond this are cut, so that one wild row does not bend the fit.
const MOST_DEVIATIONS: f64 = 6.0;

/// The outcome of the test.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DomainTest {
    /// Area under the ROC curve on the rows not trained on; one half without drift.
    pub auc: f64,
    /// The share of permutations of those rows with an AUC as great, `(1 + hits) / (1 + draws)`:
    /// exact, since the rows are exchangeable without drift.
    pub p_value: f64,
    /// Permutations drawn.
    pub permutations: u32,
    /// Rows trained on.
    pub train_rows: u64,
    /// Rows tested on.
    pub test_rows: u64,
    /// Per column, the sum of the absolute coefficients: where it looked.
    pub weights: Vec<f64>,
}

/// Tests `current` against `reference`: rows of equally many columns, NaN where a value is missing.
/// O(rows · columns²) per Newton step of at most 50, mostly 5.
///
/// # Errors
/// [`DriftError`] for fewer than four rows on a side, or rows of different lengths.
pub fn domain_test(
    reference: &[Vec<f64>],
    current: &[Vec<f64>],
    permutations: u32,
    seed: u64,
) -> Result<DomainTest, DriftError> {
    check(reference, current)?;
    let mut random = CounterRandom::new(seed, 0);
    let (train_reference, test_reference) = halves(reference, &mut random);
    let (train_current, test_current) = halves(current, &mut random);
    let train: Vec<&Vec<f64>> = train_reference.iter().chain(&train_current).copied().collect();
    let scale = Scale::of(&train);
    let label = |index: usize| f64::from(u8::from(index >= train_reference.len()));
    let features: Vec<Vec<f64>> = train.iter().map(|row| scale.expand(row)).collect();
    let labels: Vec<f64> = (0..train.len()).map(label).collect();
    let coefficients = fit(&features, &labels);
    let score = |row: &&Vec<f64>| dot(&coefficients, &scale.expand(row));
    let mut scores: Vec<f64> = test_reference.iter().map(score).collect();
    let negatives = scores.len();
    scores.extend(test_current.iter().map(score));
    let ranks = midranks(&scores);
    let auc = auc_of(&ranks[negatives..], negatives);
    let p_value = permutation_p_value(&ranks, negatives, auc, permutations, seed);
    Ok(DomainTest {
        auc,
        p_value,
        permutations,
        train_rows: train.len() as u64,
        test_rows: scores.len() as u64,
        weights: scale.weights(&coefficients),
    })
}

/// The area under the ROC curve of `scores` for `labels`, ties counted half (Mann and Whitney
/// 1947); `None` where a class is empty.
pub fn auc(scores: &[f64], labels: &[bool]) -> Option<f64> {
    let ranks = midranks(scores);
    let paired = ranks.iter().zip(labels).filter(|(_, label)| **label);
    let positives: Vec<f64> = paired.map(|(rank, _)| *rank).collect();
    let negatives = scores.len().min(labels.len()) - positives.len();
    let both = !positives.is_empty() && negatives > 0;
    both.then(|| auc_of(&positives, negatives))
}

fn check(reference: &[Vec<f64>], current: &[Vec<f64>]) -> Result<(), DriftError> {
    if reference.len() < 4 {
        return Err(DriftError::Empty("the reference (below four rows)"));
    }
    if current.len() < 4 {
        return Err(DriftError::Empty("the window (below four rows)"));
    }
    let width = reference[0].len();
    match reference.iter().chain(current).find(|row| row.len() != width) {
        None => Ok(()),
        Some(row) => {
            Err(DriftError::DifferentLengths { what: "two rows", left: width, right: row.len() })
        }
    }
}

/// The rows of `all` in two halves, drawn.
fn halves<'a>(
    all: &'a [Vec<f64>],
    random: &mut CounterRandom,
) -> (Vec<&'a Vec<f64>>, Vec<&'a Vec<f64>>) {
    let mut rows: Vec<&Vec<f64>> = all.iter().collect();
    random.shuffle(&mut rows);
    let rest = rows.split_off(rows.len() / 2);
    (rows, rest)
}

/// Per column: its mean and standard deviation over the rows trained on.
struct Scale {
    columns: Vec<(f64, f64)>,
}

impl Scale {
    fn of(rows: &[&Vec<f64>]) -> Self {
        let width = rows.first().map_or(0, |row| row.len());
        let of_column = |column: usize| {
            let values = rows.iter().map(|row| row[column]).filter(|value| value.is_finite());
            let values: Vec<f64> = values.collect();
            if values.is_empty() { (0.0, 0.0) } else { crate::samples::moments(&values) }
        };
        Self { columns: (0..width).map(of_column).collect() }
    }

    /// 1, then per column: standardised value, its square less 1, missing or not.
    fn expand(&self, row: &[f64]) -> Vec<f64> {
        let mut features = Vec::with_capacity(1 + 3 * self.columns.len());
        features.push(1.0);
        for (value, (mean, deviation)) in row.iter().zip(&self.columns) {
            if !value.is_finite() {
                features.extend([0.0, 0.0, 1.0]);
            } else if *deviation > 0.0 {
                let standard = (value - mean) / deviation;
                let standard = standard.clamp(-MOST_DEVIATIONS, MOST_DEVIATIONS);
                features.extend([standard, standard * standard - 1.0, 0.0]);
            } else {
                // Constant where trained: any other value is told by the sign alone.
                let sign = f64::from(u8::from(value > mean)) - f64::from(u8::from(value < mean));
                features.extend([sign, 0.0, 0.0]);
            }
        }
        features
    }

    fn weights(&self, coefficients: &[f64]) -> Vec<f64> {
        let of_column = coefficients.get(1..).unwrap_or_default().chunks(3);
        of_column.map(|three| three.iter().map(|weight| weight.abs()).sum()).collect()
    }
}

/// Ridge logistic regression by Newton's method, the intercept unpenalised. Rows and sums run in
/// order; a step that does not lower the loss is halved.
fn fit(rows: &[Vec<f64>], labels: &[f64]) -> Vec<f64> {
    let width = rows.first().map_or(0, Vec::len);
    let mut coefficients = vec![0.0; width];
    let mut loss = objective(rows, labels, &coefficients);
    for _ in 0..MOST_STEPS {
        let (gradient, mut hessian) = derivatives(rows, labels, &coefficients);
        let Some(step) = solve_positive(&mut hessian, &gradient) else { break };
        let (mut factor, mut improved) = (1.0, false);
        for _ in 0..20 {
            let moved = coefficients.iter().zip(&step).map(|(old, step)| old - factor * step);
            let trial: Vec<f64> = moved.collect();
            let trial_loss = objective(rows, labels, &trial);
            if trial_loss < loss {
                improved = loss - trial_loss > 1e-10 * loss.abs().max(1.0);
                (coefficients, loss) = (trial, trial_loss);
                break;
            }
            factor /= 2.0;
        }
        if !improved {
            break;
        }
    }
    coefficients
}

fn objective(rows: &[Vec<f64>], labels: &[f64], coefficients: &[f64]) -> f64 {
    let of_row = |(row, label): (&Vec<f64>, &f64)| {
        let logit = dot(coefficients, row);
        logit.max(0.0) - logit * label + libm::log1p(libm::exp(-logit.abs()))
    };
    let penalty: f64 = coefficients.iter().skip(1).map(|weight| weight * weight).sum();
    rows.iter().zip(labels).map(of_row).sum::<f64>() + RIDGE * penalty / 2.0
}

/// Gradient and Hessian (its lower triangle, row by row).
fn derivatives(rows: &[Vec<f64>], labels: &[f64], coefficients: &[f64]) -> (Vec<f64>, Vec<f64>) {
    let width = coefficients.len();
    let mut gradient = vec![0.0; width];
    let mut hessian = vec![0.0; width * width];
    for (row, label) in rows.iter().zip(labels) {
        let probability = 1.0 / (1.0 + libm::exp(-dot(coefficients, row)));
        let weight = probability * (1.0 - probability);
        for i in 0..width {
            gradient[i] += (probability - label) * row[i];
            for j in 0..=i {
                hessian[i * width + j] += weight * row[i] * row[j];
            }
        }
    }
    for index in 0..width {
        // A hair on the intercept keeps the matrix positive where everything is separated.
        let ridge = if index == 0 { 1e-9 } else { RIDGE };
        hessian[index * width + index] += ridge;
        if index > 0 {
            gradient[index] += RIDGE * coefficients[index];
        }
    }
    (gradient, hessian)
}

/// Solves a symmetric positive definite system by Cholesky; `None` where it is not one.
fn solve_positive(matrix: &mut [f64], right: &[f64]) -> Option<Vec<f64>> {
    let width = right.len();
    for i in 0..width {
        for j in 0..=i {
            let inner: f64 = (0..j).map(|k| matrix[i * width + k] * matrix[j * width + k]).sum();
            let rest = matrix[i * width + j] - inner;
            if i != j {
                matrix[i * width + j] = rest / matrix[j * width + j];
            } else if rest > 0.0 {
                matrix[i * width + i] = rest.sqrt();
            } else {
                return None;
            }
        }
    }
    let mut solution = right.to_vec();
    for i in 0..width {
        let inner: f64 = (0..i).map(|k| matrix[i * width + k] * solution[k]).sum();
        solution[i] = (solution[i] - inner) / matrix[i * width + i];
    }
    for i in (0..width).rev() {
        let inner: f64 = (i + 1..width).map(|k| matrix[k * width + i] * solution[k]).sum();
        solution[i] = (solution[i] - inner) / matrix[i * width + i];
    }
    Some(solution)
}

fn dot(left: &[f64], right: &[f64]) -> f64 {
    left.iter().zip(right).map(|(a, b)| a * b).sum()
}

/// Ranks from 1, ties sharing their mean.
fn midranks(scores: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_by(|a, b| scores[*a].total_cmp(&scores[*b]));
    let mut ranks = vec![0.0; scores.len()];
    let mut start = 0;
    while start < order.len() {
        let value = scores[order[start]];
        let tied = order[start..].iter().take_while(|index| scores[**index] == value).count();
        let end = start + tied.max(1);
        let mean = (start + 1 + end) as f64 / 2.0;
        order[start..end].iter().for_each(|index| ranks[*index] = mean);
        start = end;
    }
    ranks
}

fn auc_of(positive_ranks: &[f64], negatives: usize) -> f64 {
    let positives = positive_ranks.len() as f64;
    let least = positives * (positives + 1.0) / 2.0;
    (positive_ranks.iter().sum::<f64>() - least) / (positives * negatives as f64)
}

/// Each permutation is a stream of its own: the draws do not depend on what was drawn before.
fn permutation_p_value(
    ranks: &[f64],
    negatives: usize,
    observed: f64,
    permutations: u32,
    seed: u64,
) -> f64 {
    let mut hits = 0_u32;
    for permutation in 1..=permutations {
        let mut drawn = ranks.to_vec();
        CounterRandom::new(seed, u64::from(permutation)).shuffle(&mut drawn);
        // Rank sums are multiples of one half, so that equal ones are equal.
        hits += u32::from(auc_of(&drawn[negatives..], negatives) >= observed);
    }
    f64::from(hits + 1) / f64::from(permutations + 1)
}
