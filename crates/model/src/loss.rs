//! Losses and their gradients with respect to the logits, in forms that neither overflow nor cancel.
//!
//! Evaluators stop at the logits; from there on everything is here, for the CPU and for the host's
//! side of every test. Does not know what made the logits.

use crate::spec::Task;

/// `log(1 + exp(x))` without overflow.
pub fn softplus(x: f64) -> f64 {
    x.max(0.0) + libm::log1p(libm::exp(-x.abs()))
}

/// `1 / (1 + exp(−x))` without overflow.
pub fn sigmoid(x: f64) -> f64 {
    if x >= 0.0 {
        1.0 / (1.0 + libm::exp(-x))
    } else {
        let e = libm::exp(x);
        e / (1.0 + e)
    }
}

/// Replaces logits by probabilities that sum to 1.
pub fn softmax(values: &mut [f64]) {
    let greatest = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let mut sum = 0.0;
    for value in values.iter_mut() {
        *value = libm::exp(*value - greatest);
        sum += *value;
    }
    for value in values.iter_mut() {
        *value /= sum;
    }
}

/// The weighted sum of the rows' losses; its gradient with respect to each logit goes to `gradient`,
/// times `scale`.
///
/// Binary: `max(z, 0) − z·y + log(1 + exp(−|z|))`. Multiclass: `logsumexp(z) − z_y`. Regression:
/// `(z − y)² / 2`. `logits` and `gradient` have `outputs` entries per row; `labels` holds 0 or 1, the
/// class, or the (standardised) number.
pub fn loss_and_gradient(
    task: Task,
    logits: &[f32],
    labels: &[f32],
    weights: &[f32],
    scale: f32,
    gradient: &mut [f32],
) -> f64 {
    let outputs = logits.len().checked_div(labels.len()).unwrap_or(1);
    let mut total = 0.0;
    for (row, (label, weight)) in labels.iter().zip(weights).enumerate() {
        let range = row * outputs..(row + 1) * outputs;
        let (logits, gradient) = (&logits[range.clone()], &mut gradient[range]);
        let factor = f64::from(*weight) * f64::from(scale);
        let loss = match task {
            Task::Binary => {
                let (z, y) = (f64::from(logits[0]), f64::from(*label));
                gradient[0] = ((sigmoid(z) - y) * factor) as f32;
                softplus(z) - z * y
            }
            Task::Regression => {
                let error = f64::from(logits[0]) - f64::from(*label);
                gradient[0] = (error * factor) as f32;
                error * error / 2.0
            }
            Task::Multiclass => multiclass(logits, *label as usize, factor, gradient),
        };
        total += loss * f64::from(*weight);
    }
    total
}

fn multiclass(logits: &[f32], class: usize, factor: f64, gradient: &mut [f32]) -> f64 {
    let greatest = logits.iter().map(|z| f64::from(*z)).fold(f64::NEG_INFINITY, f64::max);
    let sum: f64 = logits.iter().map(|z| libm::exp(f64::from(*z) - greatest)).sum();
    for (at, (z, out)) in logits.iter().zip(gradient).enumerate() {
        let probability = libm::exp(f64::from(*z) - greatest) / sum;
        let target = if at == class { 1.0 } else { 0.0 };
        *out = ((probability - target) * factor) as f32;
    }
    greatest + libm::log(sum) - f64::from(logits[class])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn binary(z: f32, y: f32) -> (f64, f32) {
        let mut gradient = [0.0];
        let loss = loss_and_gradient(Task::Binary, &[z], &[y], &[1.0], 1.0, &mut gradient);
        (loss, gradient[0])
    }

    #[test]
    fn extreme_logits_have_finite_losses_and_gradients() {
        assert_eq!(binary(20.0, 0.0).0, 20.000000002061153);
        assert_eq!(binary(-1e30, 0.0), (0.0, 0.0));
        assert_eq!(binary(1e30, 0.0), (f64::from(1e30f32), 1.0));
        assert_eq!(binary(-90.0, 1.0), (90.0, -1.0));
    }

    #[test]
    fn gradients_are_those_of_finite_differences() {
        let logits = [0.3f32, -1.2, 0.7, 2.0, 0.1, -0.4];
        let (labels, weights) = ([2.0f32, 0.0], [1.0f32, 2.5]);
        let mut gradient = [0.0; 6];
        let mut unused = [0.0; 6];
        loss_and_gradient(Task::Multiclass, &logits, &labels, &weights, 1.0, &mut gradient);
        for at in 0..6 {
            let mut moved = logits;
            moved[at] += 1e-2;
            let up =
                loss_and_gradient(Task::Multiclass, &moved, &labels, &weights, 1.0, &mut unused);
            moved[at] -= 2e-2;
            let low =
                loss_and_gradient(Task::Multiclass, &moved, &labels, &weights, 1.0, &mut unused);
            let difference = (up - low) / 2e-2;
            assert!((difference - f64::from(gradient[at])).abs() < 1e-4, "{at}");
        }
    }
}
