//! DDM: an error rate that rises above its best by so many standard deviations (Gama, Medas,
//! Castillo and Rodrigues, "Learning with drift detection", SBIA 2004).
//!
//! Does not see gradual drift well: see EDDM.

use serde::{Deserialize, Serialize};

use super::Signal;
use crate::exact;

/// When DDM warns and alarms.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DdmParameters {
    /// Values before the first signal.
    pub warm_start: u64,
    /// Standard deviations above the best for a warning.
    #[serde(with = "exact::value")]
    pub warning_threshold: f64,
    /// Standard deviations above the best for a drift.
    #[serde(with = "exact::value")]
    pub drift_threshold: f64,
}

impl Default for DdmParameters {
    fn default() -> Self {
        Self { warm_start: 30, warning_threshold: 2.0, drift_threshold: 3.0 }
    }
}

/// The error rate and its best. Values are 1 for an error and 0 for none. O(1).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ddm {
    parameters: DdmParameters,
    count: u64,
    #[serde(with = "exact::value")]
    rate: f64,
    /// Rate and deviation where their sum was least.
    best: Option<Best>,
    drifted: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
struct Best {
    #[serde(with = "exact::value")]
    rate: f64,
    #[serde(with = "exact::value")]
    deviation: f64,
}

impl Ddm {
    /// A detector that has seen nothing.
    pub fn new(parameters: DdmParameters) -> Self {
        Self { parameters, count: 0, rate: 0.0, best: None, drifted: false }
    }

    /// Takes one value in.
    pub fn update(&mut self, value: f64) -> Signal {
        if !value.is_finite() {
            return Signal::Stable;
        }
        if self.drifted {
            *self = Self::new(self.parameters);
        }
        self.count += 1;
        self.rate += (value - self.rate) / self.count as f64;
        if self.count <= self.parameters.warm_start {
            return Signal::Stable;
        }
        let deviation = (self.rate * (1.0 - self.rate) / self.count as f64).max(0.0).sqrt();
        let level = self.rate + deviation;
        let best = match self.best {
            Some(best) if level > best.rate + best.deviation => best,
            _ => Best { rate: self.rate, deviation },
        };
        self.best = Some(best);
        let above = |deviations: f64| level > best.rate + deviations * best.deviation;
        if above(self.parameters.drift_threshold) {
            self.drifted = true;
            Signal::Drift
        } else if above(self.parameters.warning_threshold) {
            Signal::Warning
        } else {
            Signal::Stable
        }
    }

    /// The error rate since the last drift.
    pub fn rate(&self) -> f64 {
        self.rate
    }
}
