//! What can be wrong with a job before there are any rows.

use super::{Calibration, ClassWeights, JobSpec, Split, Task, Trainer};

/// What is wrong with a job.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("job `{model}`: {field}: {why}")]
pub struct SpecError {
    /// The model's name.
    pub model: String,
    /// The field that is wrong.
    pub field: &'static str,
    /// What is wrong with it, and what would be right.
    pub why: String,
}

impl JobSpec {
    /// Checks everything that can be checked without the rows.
    ///
    /// # Errors
    /// [`SpecError`], naming the field.
    pub fn check(&self) -> Result<(), SpecError> {
        self.check_columns()?;
        self.check_numbers()?;
        self.check_trainer()
    }

    fn wrong(&self, field: &'static str, why: impl Into<String>) -> SpecError {
        SpecError { model: self.model.clone(), field, why: why.into() }
    }

    fn check_columns(&self) -> Result<(), SpecError> {
        if self.model.is_empty() {
            return Err(self.wrong("model", "a model needs a name"));
        }
        if self.features.is_empty() {
            return Err(self.wrong("features", "there must be at least one"));
        }
        let mut names: Vec<&str> = self.features.iter().map(|f| f.name.as_str()).collect();
        names.sort_unstable();
        if let Some(pair) = names.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(self.wrong("features", format!("`{}` is named twice", pair[0])));
        }
        if names.binary_search(&self.label.as_str()).is_ok() {
            let why =
                format!("`{}` is also a feature: the model would read its answer", self.label);
            return Err(self.wrong("label", why));
        }
        Ok(())
    }

    fn check_numbers(&self) -> Result<(), SpecError> {
        let Split { train, validation, test } = self.split;
        let shares = [train, validation, test];
        if shares.iter().any(|share| !(0.0..=1.0).contains(share))
            || (shares.iter().sum::<f64>() - 1.0).abs() > 1e-9
            || train == 0.0
            || validation == 0.0
        {
            let why = format!(
                "shares {shares:?} must be between 0 and 1 and sum to 1, and neither train nor \
                 validation may be 0"
            );
            return Err(self.wrong("split", why));
        }
        if self.workers == 0 || self.workers > 1_024 {
            return Err(self.wrong("workers", "must be between 1 and 1024"));
        }
        if self.batch_size < self.workers || !self.batch_size.is_multiple_of(self.workers) {
            let why = format!(
                "{} rows do not divide over {} workers; make it a multiple",
                self.batch_size, self.workers
            );
            return Err(self.wrong("batch_size", why));
        }
        if self.epochs == 0 {
            return Err(self.wrong("epochs", "must be at least 1"));
        }
        let o = &self.optimiser;
        let numbers = [o.learning_rate, o.epsilon];
        let shares = [o.beta1, o.beta2];
        if numbers.iter().any(|n| !n.is_finite() || *n <= 0.0)
            || shares.iter().any(|n| !(0.0..1.0).contains(n))
            || !(o.weight_decay.is_finite() && o.weight_decay >= 0.0)
            || !(o.clip_norm.is_finite() && o.clip_norm >= 0.0)
        {
            let why = "learning_rate and epsilon must be positive, betas in [0, 1), weight_decay \
                       and clip_norm not negative";
            return Err(self.wrong("optimiser", why));
        }
        Ok(())
    }

    fn check_trainer(&self) -> Result<(), SpecError> {
        let dropout = match &self.trainer {
            Trainer::Mlp { dropout, .. } | Trainer::Resnet { dropout, .. } => *dropout,
            _ => 0.0,
        };
        if !(0.0..1.0).contains(&dropout) {
            return Err(self.wrong("trainer", "dropout must be in [0, 1)"));
        }
        if self.trainer == (Trainer::Onnx {}) {
            return Err(self.wrong("trainer", "an ONNX model is registered, not trained"));
        }
        let widths_ok = match &self.trainer {
            Trainer::Linear {} | Trainer::Onnx {} => true,
            Trainer::Mlp { hidden, .. } => hidden.iter().all(|w| (1..=65_536).contains(w)),
            Trainer::Resnet { width, blocks, expansion, bins, .. } => {
                (1..=65_536).contains(width)
                    && (1..=256).contains(blocks)
                    && (1..=16).contains(expansion)
                    && *bins <= 4_096
            }
            Trainer::Trees {
                trees,
                learning_rate,
                max_depth,
                subsample,
                column_share,
                bins,
                ..
            } => {
                (1..=100_000).contains(trees)
                    && (*learning_rate > 0.0 && *learning_rate <= 1.0)
                    && (1..=64).contains(max_depth)
                    && (*subsample > 0.0 && *subsample <= 1.0)
                    && (*column_share > 0.0 && *column_share <= 1.0)
                    && (2..=60_000).contains(bins)
            }
        };
        if !widths_ok {
            let why = "a width, count or share is zero or beyond any use: widths to 65536, 256 \
                       blocks, expansion 16, 4096 bins, 100000 trees of depth 64, shares to 1";
            return Err(self.wrong("trainer", why));
        }
        if self.calibration == Calibration::Isotonic && self.task != Task::Binary {
            return Err(self.wrong("calibration", "isotonic needs a binary task"));
        }
        if self.calibration != Calibration::None && self.task == Task::Regression {
            return Err(self.wrong("calibration", "a regression has no probabilities to calibrate"));
        }
        if self.class_weights != ClassWeights::None && self.task == Task::Regression {
            return Err(self.wrong("class_weights", "a regression has no classes"));
        }
        if let ClassWeights::Given(weights) = &self.class_weights
            && weights.iter().any(|weight| !weight.is_finite() || *weight <= 0.0)
        {
            return Err(self.wrong("class_weights", "weights must be positive numbers"));
        }
        Ok(())
    }
}
