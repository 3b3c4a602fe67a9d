//! Rounding exact values to float64 once, to nearest, ties to even; subnormals and overflow to
//! infinity included.
//!
//! Does not know where the values come from.

use num_bigint::BigUint;

/// Bits of the fraction that a quotient or root carries before the sticky bit: more than the 53 of
/// a float64 and its rounding bit.
const QUOTIENT_BITS: u64 = 66;

/// The float64 nearest to `±(significand + ε) · 2^exponent`, where `0 < ε < 1` if `sticky` and
/// `ε = 0` otherwise. With `sticky` the significand must have at least 55 bits.
pub fn round_to_f64(negative: bool, significand: u128, exponent: i64, sticky: bool) -> f64 {
    let magnitude = round_magnitude(significand, exponent, sticky);
    if negative { -magnitude } else { magnitude }
}

fn round_magnitude(significand: u128, exponent: i64, sticky: bool) -> f64 {
    if significand == 0 {
        return 0.0;
    }
    let bits = i64::from(128 - significand.leading_zeros());
    let top = exponent.saturating_add(bits - 1);
    if top > 1023 {
        return f64::INFINITY;
    }
    let unit = (top - 52).max(-1074);
    let shift = unit - exponent;
    let mantissa = if shift <= 0 {
        significand << shift.unsigned_abs()
    } else {
        shift_right_to_even(significand, shift, sticky)
    };
    // 2^52 set means a normal number; a carry into 2^53 moves the exponent field by itself, up to
    // infinity.
    let mantissa = u64::try_from(mantissa).unwrap_or(u64::MAX);
    let field = u64::try_from(unit + 1074).unwrap_or(0);
    f64::from_bits((field << 52) + mantissa)
}

fn shift_right_to_even(significand: u128, shift: i64, sticky: bool) -> u128 {
    if shift > 128 {
        return 0;
    }
    let quotient = if shift == 128 { 0 } else { significand >> shift };
    let half = 1u128 << (shift - 1);
    let rest = if shift == 128 { significand } else { significand & ((half << 1) - 1) };
    let up = rest > half || rest == half && (sticky || quotient & 1 == 1);
    quotient + u128::from(up)
}

/// As [`round_to_f64`] for a significand of any length.
pub(crate) fn round_big(negative: bool, significand: &BigUint, exponent: i64, sticky: bool) -> f64 {
    let excess = significand.bits().saturating_sub(128);
    let lost = excess > 0 && significand.trailing_zeros().is_some_and(|zeros| zeros < excess);
    let top = u128::try_from(significand >> excess).unwrap_or(u128::MAX);
    let exponent = exponent.saturating_add(i64::try_from(excess).unwrap_or(i64::MAX));
    round_to_f64(negative, top, exponent, sticky || lost)
}

/// The float64 nearest to `±numerator / denominator · 2^exponent`. A zero denominator gives NaN.
pub fn ratio_to_f64(
    negative: bool,
    numerator: &BigUint,
    denominator: &BigUint,
    exponent: i64,
) -> f64 {
    if *denominator == BigUint::ZERO {
        return f64::NAN;
    }
    let shift = (denominator.bits() + QUOTIENT_BITS).saturating_sub(numerator.bits());
    let shifted = numerator << shift;
    let quotient = &shifted / denominator;
    let exact = &quotient * denominator == shifted;
    round_big(negative, &quotient, exponent - i64::try_from(shift).unwrap_or(i64::MAX), !exact)
}

/// The float64 nearest to `±numerator / denominator · 2^exponent` for small operands, without
/// allocating. A zero denominator gives NaN.
pub(crate) fn small_ratio_to_f64(
    negative: bool,
    numerator: u128,
    denominator: u64,
    exponent: i64,
) -> f64 {
    if denominator == 0 {
        return f64::NAN;
    }
    if numerator == 0 {
        return 0.0;
    }
    // 128 bits over at most 64 leave a quotient of at least 64.
    let shift = numerator.leading_zeros();
    let shifted = numerator << shift;
    let quotient = shifted / u128::from(denominator);
    let exact = quotient * u128::from(denominator) == shifted;
    round_to_f64(negative, quotient, exponent - i64::from(shift), !exact)
}

/// The float64 nearest to the square root of `numerator / denominator · 2^exponent`. A zero
/// denominator gives NaN.
pub fn sqrt_ratio_to_f64(numerator: &BigUint, denominator: &BigUint, exponent: i64) -> f64 {
    if *denominator == BigUint::ZERO {
        return f64::NAN;
    }
    let odd = exponent.rem_euclid(2);
    let wanted = denominator.bits() + 2 * QUOTIENT_BITS + 2;
    let shift = wanted.saturating_sub(numerator.bits()).next_multiple_of(2);
    let shifted = numerator << (shift + odd.unsigned_abs());
    let quotient = &shifted / denominator;
    let root = quotient.sqrt();
    let exact = &quotient * denominator == shifted && &root * &root == quotient;
    let exponent = (exponent - odd - i64::try_from(shift).unwrap_or(i64::MAX)) / 2;
    round_big(false, &root, exponent, !exact)
}
