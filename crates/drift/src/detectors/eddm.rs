//! EDDM: the distance between two errors, which shrinks as a model gets worse (Baena-García, del
//! Campo-Ávila, Fidalgo, Bifet, Gavaldà and Morales-Bueno, "Early drift detection method", 2006).
//!
//! Very eager at its default parameters. Does not look at values without an error.

use serde::{Deserialize, Serialize};

use super::Signal;
use crate::exact;

/// When EDDM warns and alarms.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EddmParameters {
    /// Errors before the first signal.
    pub warm_start: u64,
    /// The share of the best distance below which it warns.
    #[serde(with = "exact::value")]
    pub alpha: f64,
    /// The share of the best distance below which it alarms.
    #[serde(with = "exact::value")]
    pub beta: f64,
}

impl Default for EddmParameters {
    fn default() -> Self {
        Self { warm_start: 30, alpha: 0.95, beta: 0.9 }
    }
}

/// The distances and their best. Values are 1 for an error, anything else for none. O(1).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Eddm {
    parameters: EddmParameters,
    count: u64,
    errors: u64,
    last_error: u64,
    #[serde(with = "exact::value")]
    mean: f64,
    /// Sum of squared distances from the mean (Welford 1962).
    #[serde(with = "exact::value")]
    squares: f64,
    #[serde(with = "exact::value")]
    best: f64,
    signal: Signal,
}

impl Eddm {
    /// A detector that has seen nothing.
    pub fn new(parameters: EddmParameters) -> Self {
        Self {
            parameters,
            count: 0,
            errors: 0,
            last_error: 0,
            mean: 0.0,
            squares: 0.0,
            best: -1.0,
            signal: Signal::Stable,
        }
    }

    /// Takes one value in. Between errors the signal of the last error stands.
    pub fn update(&mut self, value: f64) -> Signal {
        if self.signal == Signal::Drift {
            *self = Self::new(self.parameters);
        }
        if !value.is_finite() {
            return self.signal;
        }
        self.count += 1;
        if value != 1.0 {
            return self.signal;
        }
        self.errors += 1;
        let distance = (self.count - self.last_error) as f64;
        self.last_error = self.count;
        let before = distance - self.mean;
        self.mean += before / self.errors as f64;
        self.squares += before * (distance - self.mean);
        if self.count > self.parameters.warm_start {
            self.judge();
        }
        self.signal
    }

    fn judge(&mut self) {
        let variance = if self.errors > 1 { self.squares / (self.errors - 1) as f64 } else { 0.0 };
        let level = self.mean + 2.0 * variance.sqrt();
        if level > self.best {
            self.best = level;
        } else if self.errors > self.parameters.warm_start {
            let share = level / self.best;
            self.signal = if share < self.parameters.beta {
                Signal::Drift
            } else if share < self.parameters.alpha {
                Signal::Warning
            } else {
                Signal::Stable
            };
        }
    }
}
