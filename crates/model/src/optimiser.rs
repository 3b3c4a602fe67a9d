//! AdamW over flat parameters, and the scale that keeps float16 gradients above underflow.
//!
//! Does not know where gradients come from.

use serde::{Deserialize, Serialize};

use crate::network::Network;
use crate::spec::{Optimiser, Precision};

/// What one update does, as a device kernel needs it too.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Update {
    /// Multiplies the gradient first: 1 / (loss scale · weight of the batch), and clipping.
    pub gradient_factor: f32,
    /// Learning rate.
    pub rate: f32,
    /// Decoupled weight decay.
    pub decay: f32,
    /// Decay of the first moment.
    pub beta1: f32,
    /// Decay of the second moment.
    pub beta2: f32,
    /// `1 − beta1^t`.
    pub correction1: f32,
    /// `1 − beta2^t`.
    pub correction2: f32,
    /// Added to the root of the second moment.
    pub epsilon: f32,
}

impl Update {
    /// Update number `number` (from 1).
    pub fn new(settings: &Optimiser, number: u64, gradient_factor: f32) -> Self {
        let correction = |beta: f64| (1.0 - libm::pow(beta, number as f64)) as f32;
        Self {
            gradient_factor,
            rate: settings.learning_rate as f32,
            decay: settings.weight_decay as f32,
            beta1: settings.beta1 as f32,
            beta2: settings.beta2 as f32,
            correction1: correction(settings.beta1),
            correction2: correction(settings.beta2),
            epsilon: settings.epsilon as f32,
        }
    }
}

/// Parameters and both moments, flat.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct State {
    /// float32 masters.
    pub parameters: Vec<f32>,
    /// First moments.
    pub first: Vec<f32>,
    /// Second moments.
    pub second: Vec<f32>,
}

impl State {
    /// No moments yet.
    pub fn new(parameters: Vec<f32>) -> Self {
        let zeros = vec![0.0; parameters.len()];
        Self { parameters, first: zeros.clone(), second: zeros }
    }

    /// One AdamW update: `p −= rate · (m̂ / (√v̂ + ε) + decay · p)`.
    pub fn apply(&mut self, network: &Network, gradient: &[f32], update: &Update) {
        for parameter in &network.parameters {
            let decay = if parameter.decays { update.decay } else { 0.0 };
            let range = parameter.range();
            let values = self.parameters[range.clone()].iter_mut();
            let moments = self.first[range.clone()].iter_mut().zip(&mut self.second[range.clone()]);
            for ((value, (first, second)), raw) in values.zip(moments).zip(&gradient[range]) {
                let g = raw * update.gradient_factor;
                *first = update.beta1 * *first + (1.0 - update.beta1) * g;
                *second = update.beta2 * *second + (1.0 - update.beta2) * (g * g);
                let mean = *first / update.correction1;
                let root = (*second / update.correction2).sqrt();
                *value -= update.rate * (mean / (root + update.epsilon) + decay * *value);
            }
        }
    }
}

/// Dynamic loss scaling (Micikevicius et al., "Mixed precision training", 2018): halve on overflow,
/// double after so many steps without one.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct LossScale {
    /// The factor on the loss, a power of two.
    pub scale: f32,
    /// Steps since it last changed.
    pub steady: u32,
    /// Steps that overflowed and were skipped.
    pub skipped: u64,
    dynamic: bool,
}

const GROW_AFTER: u32 = 2_000;
const FIRST_SCALE: f32 = 65_536.0;
const GREATEST_SCALE: f32 = 16_777_216.0;

impl LossScale {
    /// Dynamic for float16, 1 otherwise: bfloat16 has float32's range.
    pub fn new(precision: Precision) -> Self {
        let dynamic = precision == Precision::F16;
        Self { scale: if dynamic { FIRST_SCALE } else { 1.0 }, steady: 0, skipped: 0, dynamic }
    }

    /// Whether to take the step whose gradient norm was `finite`; adapts the scale.
    pub fn accept(&mut self, finite: bool) -> bool {
        if finite {
            self.steady += 1;
            if self.dynamic && self.steady >= GROW_AFTER && self.scale < GREATEST_SCALE {
                self.scale *= 2.0;
                self.steady = 0;
            }
        } else {
            self.skipped += 1;
            self.steady = 0;
            if self.dynamic {
                self.scale = (self.scale / 2.0).max(1.0);
            }
        }
        finite
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::preprocess::Preprocessing;
    use crate::spec::Trainer;

    #[test]
    fn one_update_is_the_papers() {
        let network = Network {
            numeric_width: 1,
            ..Network::plan(&Trainer::Linear {}, &Preprocessing::default(), 1).expect("a network")
        };
        let settings = Optimiser { learning_rate: 0.1, weight_decay: 0.5, ..Default::default() };
        let mut state = State::new(vec![2.0]);
        // The first update moves by rate · sign(g): m̂ = g, √v̂ = |g|. The bias does not decay.
        state.apply(&network, &[4.0], &Update::new(&settings, 1, 0.25));
        assert!((state.parameters[0] - 1.9).abs() < 1e-6, "{:?}", state.parameters);
        assert!((state.first[0] - 0.1).abs() < 1e-6 && (state.second[0] - 1e-3).abs() < 1e-6);
    }

    #[test]
    fn the_scale_halves_on_overflow_and_doubles_when_steady() {
        let mut scale = LossScale::new(Precision::F16);
        assert!(!scale.accept(false));
        assert_eq!((scale.scale, scale.skipped), (32_768.0, 1));
        for _ in 0..GROW_AFTER {
            assert!(scale.accept(true));
        }
        assert_eq!(scale.scale, 65_536.0);
        let mut fixed = LossScale::new(Precision::Bf16);
        fixed.accept(false);
        assert_eq!((fixed.scale, fixed.skipped), (1.0, 1));
    }
}
