//! One prediction against one label: the terms that metrics are sums of.
//!
//! Pure arithmetic; does not know windows or topics.

use serde::{Deserialize, Serialize};

/// What is foretold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "task", rename_all = "snake_case")]
pub enum Task {
    /// One of two classes, of which `positive` is the one whose probability is the score.
    Binary {
        /// The positive class as text.
        positive: String,
    },
    /// One of several classes, in the order of the scores.
    Multiclass {
        /// The classes as text.
        classes: Vec<String>,
    },
    /// A number.
    Regression,
}

/// The truth about one prediction.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Actual {
    /// A class as text.
    Class(String),
    /// A number.
    Number(f64),
}

/// The terms of one judged prediction. Those that its task does not have are `None`.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Judgement {
    /// Whether the class was right.
    pub correct: Option<bool>,
    /// `-ln p(actual)`, natural logarithm, `p` kept within `[1e-15, 1 - 1e-15]`.
    pub log_loss: Option<f64>,
    /// Brier's score: `(p - y)²` (binary), `Σ (p_k - y_k)²` over the classes (multiclass, Brier 1950).
    pub brier: Option<f64>,
    /// Value foretold minus actual value.
    pub error: Option<f64>,
}

/// Probabilities nearer to 0 or 1 than this are taken as being this near.
const NEAREST: f64 = 1e-15;

fn log_loss(probability: f64) -> f64 {
    -libm::log(probability.clamp(NEAREST, 1.0 - NEAREST))
}

/// Judges a prediction; `None` where the label is no value of the task (another kind, or a class that
/// the model does not know).
pub fn judge(
    task: &Task,
    score: f64,
    scores: &[f64],
    predicted: &str,
    actual: &Actual,
) -> Option<Judgement> {
    match (task, actual) {
        (Task::Binary { positive }, Actual::Class(class)) => {
            let is_positive = class == positive;
            let target = if is_positive { 1.0 } else { 0.0 };
            let probability = if is_positive { score } else { 1.0 - score };
            Some(Judgement {
                // A label topic may know more classes than two: what counts is the side.
                correct: Some((predicted == positive) == is_positive),
                log_loss: Some(log_loss(probability)),
                brier: Some((score - target) * (score - target)),
                error: None,
            })
        }
        (Task::Multiclass { classes }, Actual::Class(class)) => {
            let index = classes.iter().position(|known| known == class)?;
            let probability = *scores.get(index)?;
            let brier = scores.iter().enumerate().map(|(place, p)| {
                let distance = p - if place == index { 1.0 } else { 0.0 };
                distance * distance
            });
            Some(Judgement {
                correct: Some(predicted == class),
                log_loss: Some(log_loss(probability)),
                brier: Some(brier.fold(0.0, |sum, term| sum + term)),
                error: None,
            })
        }
        (Task::Regression, Actual::Number(value)) => {
            Some(Judgement { error: Some(score - value), ..Judgement::default() })
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn class(name: &str) -> Actual {
        Actual::Class(name.to_owned())
    }

    #[test]
    fn a_binary_score_is_the_probability_of_the_positive_class() {
        let task = Task::Binary { positive: "true".into() };
        let hit = judge(&task, 0.8, &[], "true", &class("true")).unwrap();
        assert_eq!(hit.correct, Some(true));
        assert_eq!(hit.log_loss, Some(-libm::log(0.8)));
        assert!((hit.brier.unwrap() - 0.04).abs() < 1e-15);
        let miss = judge(&task, 0.8, &[], "true", &class("false")).unwrap();
        assert_eq!(miss.correct, Some(false));
        assert!((miss.log_loss.unwrap() - 1.609_437_912_434_100_3).abs() < 1e-12);
        assert!((miss.brier.unwrap() - 0.64).abs() < 1e-15);
    }

    #[test]
    fn certain_and_wrong_is_dear_but_finite() {
        let task = Task::Binary { positive: "1".into() };
        let loss = judge(&task, 1.0, &[], "1", &class("0")).unwrap().log_loss.unwrap();
        assert!((34.0..35.0).contains(&loss), "{loss}");
    }

    #[test]
    fn many_classes_are_judged_over_all_of_them() {
        let task = Task::Multiclass { classes: vec!["a".into(), "b".into(), "c".into()] };
        let judged = judge(&task, 0.5, &[0.5, 0.3, 0.2], "a", &class("b")).unwrap();
        assert_eq!(judged.correct, Some(false));
        assert_eq!(judged.log_loss, Some(-libm::log(0.3)));
        assert!((judged.brier.unwrap() - (0.25 + 0.49 + 0.04)).abs() < 1e-15);
        assert_eq!(judge(&task, 0.5, &[0.5, 0.3, 0.2], "a", &class("z")), None);
    }

    #[test]
    fn a_number_is_off_by_a_difference() {
        let judged = judge(&Task::Regression, 3.5, &[], "", &Actual::Number(5.0)).unwrap();
        assert_eq!(judged.error, Some(-1.5));
        assert_eq!(judged.correct, None);
        assert_eq!(judge(&Task::Regression, 3.5, &[], "", &class("x")), None);
    }
}
