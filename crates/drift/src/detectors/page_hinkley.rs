//! Page-Hinkley: a cumulated distance from the mean that leaves its least or greatest value (Page,
//! "Continuous inspection schemes", Biometrika 41, 1954), with a fading factor as in river.
//!
//! Does not adapt its threshold to the values' scale: choose it for them.

use serde::{Deserialize, Serialize};

use super::Signal;
use crate::exact;

/// Which way the mean may move.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PageHinkleyMode {
    /// Upwards.
    Up,
    /// Downwards.
    Down,
    /// Either way.
    #[default]
    Both,
}

/// When Page-Hinkley alarms.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PageHinkleyParameters {
    /// Values before the first signal.
    pub min_instances: u64,
    /// The change that is tolerated.
    #[serde(with = "exact::value")]
    pub delta: f64,
    /// The cumulated distance that alarms.
    #[serde(with = "exact::value")]
    pub threshold: f64,
    /// What is kept of the cumulated distance at each value.
    #[serde(with = "exact::value")]
    pub alpha: f64,
    /// Which way the mean may move.
    pub mode: PageHinkleyMode,
}

impl Default for PageHinkleyParameters {
    fn default() -> Self {
        Self {
            min_instances: 30,
            delta: 0.005,
            threshold: 50.0,
            alpha: 1.0 - 0.0001,
            mode: PageHinkleyMode::Both,
        }
    }
}

/// The cumulated distances. O(1).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PageHinkley {
    parameters: PageHinkleyParameters,
    count: u64,
    #[serde(with = "exact::value")]
    mean: f64,
    #[serde(with = "exact::value")]
    increase: f64,
    #[serde(with = "exact::value")]
    decrease: f64,
    /// The least of `increase`; `None` before the first value.
    #[serde(with = "exact::optional")]
    least_increase: Option<f64>,
    #[serde(with = "exact::value")]
    greatest_decrease: f64,
    drifted: bool,
}

impl PageHinkley {
    /// A detector that has seen nothing.
    pub fn new(parameters: PageHinkleyParameters) -> Self {
        Self {
            parameters,
            count: 0,
            mean: 0.0,
            increase: 0.0,
            decrease: 0.0,
            least_increase: None,
            // Where river starts as well; it matters for the first values only.
            greatest_decrease: -1.0,
            drifted: false,
        }
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
        self.mean += (value - self.mean) / self.count as f64;
        let distance = value - self.mean;
        let PageHinkleyParameters { delta, alpha, threshold, .. } = self.parameters;
        self.increase = alpha * self.increase + distance - delta;
        self.decrease = alpha * self.decrease + distance + delta;
        let least = self.least_increase.map_or(self.increase, |least| least.min(self.increase));
        self.least_increase = Some(least);
        self.greatest_decrease = self.greatest_decrease.max(self.decrease);
        if self.count < self.parameters.min_instances {
            return Signal::Stable;
        }
        let up = self.increase - least > threshold;
        let down = self.greatest_decrease - self.decrease > threshold;
        self.drifted = match self.parameters.mode {
            PageHinkleyMode::Up => up,
            PageHinkleyMode::Down => down,
            PageHinkleyMode::Both => up || down,
        };
        if self.drifted { Signal::Drift } else { Signal::Stable }
    }
}
