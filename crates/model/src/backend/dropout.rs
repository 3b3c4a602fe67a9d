//! Dropout masks as functions of (seed, step, layer, row, unit): whatever the device and the rank.

use super::Pass;
use crate::random::{Purpose, Stream};

/// Key of the masks of one dropout layer.
pub(super) fn layer_seed(seed: u64, layer: usize) -> u64 {
    seed ^ (layer as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15)
}

/// `rows × width` factors: 0 with probability `rate`, else `1 / (1 − rate)`.
pub(super) fn mask(pass: &Pass, layer: usize, rate: f32, rows: usize, width: usize) -> Vec<f32> {
    let stream = Stream::new(layer_seed(pass.seed, layer), Purpose::Dropout, pass.step);
    let first = (pass.first_row * width) as u64;
    let kept = 1.0 / (1.0 - rate);
    let factor = |at: usize| {
        if stream.uniform(first + at as u64) < rate { 0.0 } else { kept }
    };
    (0..rows * width).map(factor).collect()
}
