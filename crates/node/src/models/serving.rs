//! What serves now: loaded versions of one pipeline and how requests are shared out among them.
//!
//! A request takes one [`ServingSet`] and keeps it to its end, so a swap never mixes versions within a
//! request and never fails one. Does not decide what serves (see `falaj_lifecycle`).

use std::sync::{Arc, PoisonError, RwLock};

use falaj_event::Value;
use falaj_lifecycle::ServingPolicy;
use falaj_model::score::{Scorer, Scratch};
use falaj_model::table::Input;

/// A model version, ready to predict.
pub struct Loaded {
    /// Its number.
    pub version: u32,
    /// SHA-256 of its artifact.
    pub digest: [u8; 32],
    /// The model.
    pub scorer: Scorer,
    /// The classes, in the order of the pipeline's scores; none for a number.
    classes: Vec<String>,
    /// Where the model has the score of each class; empty where it has them in that order.
    places: Vec<Option<usize>>,
}

impl Loaded {
    /// A model under the classes that its pipeline declares (none: the model's own). A declared class
    /// that it has never seen has the probability 0.
    ///
    /// # Errors
    /// When the model knows a class that is not declared.
    pub fn new(
        version: u32,
        digest: [u8; 32],
        scorer: Scorer,
        declared: Vec<String>,
    ) -> anyhow::Result<Self> {
        let own = scorer.target().classes();
        if declared.is_empty() || own == declared {
            let classes = own.to_vec();
            return Ok(Self { version, digest, scorer, classes, places: Vec::new() });
        }
        if let Some(stranger) = own.iter().find(|class| !declared.contains(class)) {
            anyhow::bail!("version {version} knows a class `{stranger}` that is not declared");
        }
        let place = |class: &String| own.iter().position(|known| known == class);
        let places = declared.iter().map(place).collect();
        Ok(Self { version, digest, scorer, classes: declared, places })
    }

    /// The classes, in the order of [`Scored::scores`]; none for a number.
    pub fn classes(&self) -> &[String] {
        &self.classes
    }

    /// Numbers per prediction: one, or one per class of a multiclass task.
    pub fn outputs(&self) -> usize {
        if self.places.is_empty() { self.scorer.outputs() } else { self.places.len() }
    }

    /// The model's scores in the order of [`Loaded::classes`].
    pub fn arrange(&self, scores: Vec<f64>) -> Vec<f64> {
        if self.places.is_empty() {
            return scores;
        }
        let score = |place: &Option<usize>| place.and_then(|at| scores.get(at).copied());
        self.places.iter().map(|place| score(place).unwrap_or(0.0)).collect()
    }
}

/// What serves one pipeline.
#[derive(Default)]
pub struct ServingSet {
    /// Answers.
    pub champion: Option<Arc<Loaded>>,
    /// Scores beside it.
    pub challenger: Option<Arc<Loaded>>,
    /// How requests are shared out.
    pub policy: ServingPolicy,
}

impl ServingSet {
    /// The loaded version of this number.
    pub fn version(&self, number: u32) -> Option<&Arc<Loaded>> {
        let all = self.champion.iter().chain(&self.challenger);
        all.into_iter().find(|loaded| loaded.version == number)
    }
}

/// The place of one pipeline's serving set.
#[derive(Default)]
pub struct Slot(RwLock<Arc<ServingSet>>);

impl Slot {
    /// What serves now.
    pub fn get(&self) -> Arc<ServingSet> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Swaps what serves; requests under way go on with what they took.
    pub fn set(&self, set: ServingSet) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(set);
    }
}

/// A value as a model reads it. Decimals become the nearest float64 of their quotient, as in training
/// sets.
///
/// # Errors
/// Says which kind of value no model reads.
pub fn input(value: &Value) -> Result<Input<'_>, &'static str> {
    Ok(match value {
        Value::Null => Input::Missing,
        Value::Bool(value) => Input::Boolean(*value),
        Value::Int(value) => Input::Integer(*value),
        Value::UInt(value) => match i64::try_from(*value) {
            Ok(value) => Input::Integer(value),
            Err(_) => Input::Number(*value as f64),
        },
        Value::Float32(value) => Input::Number(f64::from(*value)),
        Value::Float64(value) => Input::Number(*value),
        Value::Decimal(unscaled, scale) => {
            Input::Number(*unscaled as f64 / 10_f64.powi(i32::from(*scale)))
        }
        Value::String(value) => Input::Text(value),
        Value::Error => return Err("its computation had no answer (overflow, division by zero)"),
        Value::Binary(_) => return Err("it is binary"),
        Value::Date(_) | Value::Timestamp(_) => return Err("it is a moment"),
        Value::List(_) => return Err("it is a list"),
    })
}

/// One row's scores.
#[derive(Clone, Debug, PartialEq)]
pub struct Scored {
    /// The probability of the positive class (binary), of the label (multiclass), or the value.
    pub score: f64,
    /// Multiclass: one per class.
    pub scores: Vec<f64>,
    /// The class; `None` for regression.
    pub predicted: Option<String>,
}

/// Scores one row of values in signature order. `threshold`: from which probability on a binary score
/// is labelled positive.
///
/// # Errors
/// Names the input that is missing or of another type.
pub fn score(
    loaded: &Loaded,
    names: &[String],
    values: &[Value],
    threshold: f64,
    scratch: &mut Scratch,
) -> Result<Scored, String> {
    let mut inputs = Vec::with_capacity(values.len());
    for (name, value) in names.iter().zip(values) {
        inputs.push(input(value).map_err(|why| format!("input `{name}` cannot be used: {why}"))?);
    }
    let mut scores = vec![0.0; loaded.scorer.outputs()];
    loaded.scorer.score_into(&inputs, scratch, &mut scores).map_err(|error| error.to_string())?;
    Ok(label(loaded.classes(), loaded.arrange(scores), threshold))
}

/// The label that follows from a row's scores.
pub fn label(classes: &[String], scores: Vec<f64>, threshold: f64) -> Scored {
    match (classes, scores.as_slice()) {
        ([], _) => Scored {
            score: scores.first().copied().unwrap_or(f64::NAN),
            scores: Vec::new(),
            predicted: None,
        },
        ([negative, positive], [score]) => {
            let class = if *score >= threshold { positive } else { negative };
            Scored { score: *score, scores: Vec::new(), predicted: Some(class.clone()) }
        }
        (_, all) => {
            // The first of equal scores: a fixed rule, whatever the order of computation was.
            let best =
                (0..all.len()).fold(0, |best, at| if all[at] > all[best] { at } else { best });
            let score = all.get(best).copied().unwrap_or(f64::NAN);
            Scored { score, predicted: classes.get(best).cloned(), scores }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn classes(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn labels_follow_from_scores() {
        let binary = classes(&["false", "true"]);
        assert_eq!(label(&binary, vec![0.5], 0.5).predicted.as_deref(), Some("true"));
        assert_eq!(label(&binary, vec![0.49], 0.5).predicted.as_deref(), Some("false"));
        assert_eq!(label(&binary, vec![0.3], 0.2).predicted.as_deref(), Some("true"));
        let many = label(&classes(&["a", "b", "c"]), vec![0.2, 0.4, 0.4], 0.5);
        assert_eq!((many.predicted.as_deref(), many.score), (Some("b"), 0.4));
        let number = label(&[], vec![7.5], 0.5);
        assert_eq!((number.predicted, number.score), (None, 7.5));
    }

    #[test]
    fn values_are_read_as_training_sets_have_them() {
        assert_eq!(input(&Value::Decimal(12_345, 2)), Ok(Input::Number(123.45)));
        assert_eq!(input(&Value::UInt(7)), Ok(Input::Integer(7)));
        assert_eq!(input(&Value::Null), Ok(Input::Missing));
        assert!(input(&Value::Error).is_err() && input(&Value::Date(1)).is_err());
    }

    #[test]
    fn a_swap_leaves_requests_under_way_alone() {
        let slot = Slot::default();
        let before = slot.get();
        slot.set(ServingSet { policy: ServingPolicy::ChampionOnly, ..ServingSet::default() });
        assert_eq!(before.policy, ServingPolicy::default());
        assert_eq!(slot.get().policy, ServingPolicy::ChampionOnly);
    }
}
