//! The sketches recomputed from raw values by their definitions, with nothing that merges or
//! subtracts.
//!
//! Does not know windows.
#![allow(clippy::expect_used, clippy::panic, reason = "a harness fails loudly")]

use falaj_event::encoding::encode_row;
use falaj_event::value::canonical_f64_bits;
use falaj_event::{Value, key_hash};

use super::exact;

/// HyperLogLog with 4,096 registers and Ertl's improved estimator.
pub fn approx_distinct(values: &[&Value]) -> i64 {
    let mut registers = vec![0usize; 4_096];
    for value in values {
        let hash = key_hash(&encode_row([*value]));
        let register = usize::try_from(hash / (1 << 52)).expect("12 bits");
        let tail = hash % (1 << 52);
        // Zeros before the first one of 52 bits, plus one.
        let rank = (0..52).rev().position(|bit| tail >> bit & 1 == 1).unwrap_or(52) + 1;
        registers[register] = registers[register].max(rank);
    }
    let count = |rank: usize| registers.iter().filter(|&&r| r == rank).count() as f64;
    let m = 4_096.0;
    let mut z = m * tau(1.0 - count(53) / m);
    for rank in (1..=52).rev() {
        z = 0.5 * (z + count(rank));
    }
    z += m * sigma(count(0) / m);
    let estimate = m * m / (2.0 * std::f64::consts::LN_2 * z);
    #[allow(clippy::cast_possible_truncation)]
    let rounded = estimate.round_ties_even() as i64;
    rounded
}

/// `x + Σ 2^(k−1)·x^(2^k)` for `k = 1 …`
fn sigma(x: f64) -> f64 {
    if x >= 1.0 {
        return f64::INFINITY;
    }
    let (mut power, mut weight, mut sum) = (x, 1.0, x);
    loop {
        power *= power;
        let next = sum + power * weight;
        if next == sum {
            return sum;
        }
        sum = next;
        weight += weight;
    }
}

/// `(1 − x − Σ 2^(−k)·(1 − x^(2^(−k)))²) / 3` for `k = 1 …`
fn tau(x: f64) -> f64 {
    if x <= 0.0 || x >= 1.0 {
        return 0.0;
    }
    let (mut root, mut weight, mut sum) = (x, 1.0, 1.0 - x);
    loop {
        root = root.sqrt();
        weight *= 0.5;
        let next = sum - (1.0 - root) * (1.0 - root) * weight;
        if next == sum {
            return sum / 3.0;
        }
        sum = next;
    }
}

/// The middle of the bucket of the value at rank `⌊q·(n − 1)⌋`; a bucket is all float64 with the same
/// sign, exponent and six bits of fraction.
pub fn approx_quantile(values: &[&Value], q: f64) -> f64 {
    let float = |value: &&Value| match value {
        Value::Float32(v) => f64::from(*v),
        Value::Float64(v) => *v,
        other => exact::nearest(&exact::fraction(other).expect("a number")),
    };
    let mut sorted: Vec<f64> = values.iter().map(float).collect();
    sorted.sort_by_key(|value| canonical_f64_bits(*value));
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    let rank = (q * (sorted.len() - 1) as f64).floor() as usize;
    let found = sorted[rank];
    if found == 0.0 {
        return 0.0;
    }
    if !found.is_finite() {
        return found;
    }
    let width = 1u64 << 46;
    f64::from_bits(found.to_bits() / width * width + width / 2)
}
