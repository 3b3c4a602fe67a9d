//! Numeric readings of a lane's value: as a summand and as a float64.
//!
//! Does not know slots.

use num_bigint::BigUint;

use crate::aggregate::input::{Parsed, Repr, decimal_of, f32_of, f64_of};
use crate::exact::{Term, ratio_to_f64};

/// The value as a summand; decimals unscaled. Values that are not numbers give zero (`check` refuses
/// them).
#[inline]
pub(crate) fn term(repr: Repr, parsed: &Parsed) -> Term {
    match repr {
        Repr::Int => Term::Finite(i128::from((parsed.word ^ 1 << 63).cast_signed()), 0),
        Repr::UInt => Term::Finite(i128::from(parsed.word), 0),
        Repr::Float32 => Term::of_f64(f64::from(f32_of(parsed.word))),
        Repr::Float64 => Term::of_f64(f64_of(parsed.word)),
        // No decimal of 38 digits is i128::MIN, the one value that cannot be negated.
        Repr::Decimal(_) => Term::Finite(decimal_of(parsed.wide).max(-i128::MAX), 0),
        Repr::Bool => Term::Finite(i128::from(parsed.word), 0),
        Repr::Date | Repr::Timestamp | Repr::Bytes => Term::Finite(0, 0),
    }
}

/// The float64 nearest to the value.
pub(crate) fn nearest_f64(repr: Repr, parsed: &Parsed) -> f64 {
    match repr {
        Repr::Int => (parsed.word ^ 1 << 63).cast_signed() as f64,
        Repr::UInt | Repr::Bool => parsed.word as f64,
        Repr::Float32 => f64::from(f32_of(parsed.word)),
        Repr::Float64 => f64_of(parsed.word),
        Repr::Decimal(scale) => decimal_to_f64(decimal_of(parsed.wide), scale),
        Repr::Date | Repr::Timestamp | Repr::Bytes => f64::NAN,
    }
}

fn decimal_to_f64(unscaled: i128, scale: u8) -> f64 {
    let magnitude = unscaled.unsigned_abs();
    if scale == 0 {
        return unscaled as f64;
    }
    // Both operands exact, one rounding.
    if magnitude < 1 << 53 && scale <= 22 {
        return unscaled as f64 / 10u128.pow(u32::from(scale)) as f64;
    }
    let denominator = BigUint::from(10u8).pow(u32::from(scale));
    ratio_to_f64(unscaled < 0, &BigUint::from(magnitude), &denominator, 0)
}
