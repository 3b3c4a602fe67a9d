//! KSWIN: a Kolmogorov-Smirnov test of the newest values against a draw of the older ones (Raab,
//! Heusinger and Schleif, "Reactive soft prototype computing for concept drift streams",
//! Neurocomputing 416, 2020).
//!
//! The draw is by counter: a function of the seed and of how many values there were. Does not
//! correct for testing at every value: hence the small level.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use super::Signal;
use crate::exact;
use crate::random::CounterRandom;
use crate::samples::{kolmogorov_smirnov, sorted};

/// The least statistic that alarms, however small its p-value: the reference implementation's.
const LEAST_STATISTIC: f64 = 0.1;

/// When KSWIN alarms.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct KswinParameters {
    /// The level of each test.
    #[serde(with = "exact::value")]
    pub alpha: f64,
    /// Values kept.
    pub window_size: usize,
    /// Values on either side of the test; at most half of `window_size`.
    pub stat_size: usize,
}

impl Default for KswinParameters {
    fn default() -> Self {
        Self { alpha: 0.005, window_size: 100, stat_size: 30 }
    }
}

/// The window. O(window_size log window_size) per value once it is full.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Kswin {
    parameters: KswinParameters,
    random: CounterRandom,
    #[serde(with = "deque_form")]
    window: VecDeque<f64>,
    drifted: bool,
}

mod deque_form {
    use std::collections::VecDeque;

    use serde::{Deserializer, Serializer};

    use crate::exact::list;

    pub(super) fn serialize<S: Serializer>(
        window: &VecDeque<f64>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        list::serialize(&window.iter().copied().collect::<Vec<_>>(), serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<VecDeque<f64>, D::Error> {
        list::deserialize(deserializer).map(VecDeque::from)
    }
}

impl Kswin {
    /// An empty window that draws by `seed`.
    pub fn new(parameters: KswinParameters, seed: u64) -> Self {
        let random = CounterRandom::new(seed, 0);
        Self { parameters, random, window: VecDeque::new(), drifted: false }
    }

    /// Takes one value in.
    pub fn update(&mut self, value: f64) -> Signal {
        if !value.is_finite() {
            return Signal::Stable;
        }
        if self.drifted {
            self.window.clear();
            self.drifted = false;
        }
        self.window.push_back(value);
        while self.window.len() > self.parameters.window_size {
            self.window.pop_front();
        }
        let recent = self.parameters.stat_size.min(self.parameters.window_size / 2);
        if self.window.len() < self.parameters.window_size || recent == 0 {
            return Signal::Stable;
        }
        let (mut older, newest) = self.split(recent);
        self.draw(&mut older, recent);
        let test = kolmogorov_smirnov(&sorted(&older), &sorted(&newest), None);
        self.drifted = test.is_ok_and(|test| {
            test.p_value <= self.parameters.alpha && test.statistic > LEAST_STATISTIC
        });
        if self.drifted { Signal::Drift } else { Signal::Stable }
    }

    fn split(&self, recent: usize) -> (Vec<f64>, Vec<f64>) {
        let older = self.window.len() - recent;
        (
            self.window.iter().take(older).copied().collect(),
            self.window.iter().skip(older).copied().collect(),
        )
    }

    /// Keeps `count` of `values`, drawn without replacement.
    fn draw(&mut self, values: &mut Vec<f64>, count: usize) {
        for index in 0..count.min(values.len()) {
            let other = index + self.random.below(values.len() - index);
            values.swap(index, other);
        }
        values.truncate(count);
    }
}
