//! Fractions of unlimited size and their one rounding to float64: to the nearest, ties to even.
//!
//! Does not know aggregates.
#![allow(clippy::expect_used, clippy::panic, reason = "a harness fails loudly")]

use falaj_event::Value;
use num_bigint::{BigInt, BigUint, Sign};
use num_rational::BigRational;

/// Bits of a float64's significand.
const SIGNIFICAND: i64 = 53;
/// Exponent of the last bit of subnormals.
const LAST: i64 = -1074;

/// A finite number as a fraction; `None` for what is no number, and for NaN and infinities.
pub fn fraction(value: &Value) -> Option<BigRational> {
    match value {
        Value::Int(v) => Some(BigRational::from_integer(BigInt::from(*v))),
        Value::UInt(v) => Some(BigRational::from_integer(BigInt::from(*v))),
        Value::Decimal(v, scale) => {
            Some(BigRational::new(BigInt::from(*v), BigInt::from(10).pow(u32::from(*scale))))
        }
        Value::Float32(v) => BigRational::from_float(f64::from(*v)),
        Value::Float64(v) => BigRational::from_float(*v),
        _ => None,
    }
}

/// The nearest float64; infinite beyond the greatest.
pub fn nearest(value: &BigRational) -> f64 {
    let (top, bottom) = (value.numer().magnitude(), value.denom().magnitude());
    if *top == BigUint::from(0u8) {
        return 0.0;
    }
    let last = (floor_log2(top, bottom) - (SIGNIFICAND - 1)).max(LAST);
    let (top, bottom) = scaled(top, bottom, -last);
    let whole = &top / &bottom;
    let rest = &top - &whole * &bottom;
    let up = round_up(&(rest * 2u8), &bottom, &whole);
    signed(value, compose(whole + u8::from(up), last))
}

/// The nearest float64 to the square root of a fraction that is not negative.
pub fn nearest_root(value: &BigRational) -> f64 {
    let (top, bottom) = (value.numer().magnitude(), value.denom().magnitude());
    if *top == BigUint::from(0u8) {
        return 0.0;
    }
    let last = (floor_log2(top, bottom).div_euclid(2) - (SIGNIFICAND - 1)).max(LAST);
    let (top, bottom) = scaled(top, bottom, -2 * last);
    let whole = (&top / &bottom).sqrt();
    // Is the value above the square of the middle, (whole + 1/2)²? Times four: 4·whole² + 4·whole + 1.
    let middle = (&whole * &whole + &whole) * 4u8 + 1u8;
    let up = round_up(&(top * 4u8), &(middle * &bottom), &whole);
    compose(whole + u8::from(up), last)
}

/// Whether `value` against its `middle` rounds up; the tie goes to the even neighbour.
fn round_up(value: &BigUint, middle: &BigUint, below: &BigUint) -> bool {
    match value.cmp(middle) {
        std::cmp::Ordering::Less => false,
        std::cmp::Ordering::Greater => true,
        std::cmp::Ordering::Equal => below.bit(0),
    }
}

fn floor_log2(top: &BigUint, bottom: &BigUint) -> i64 {
    let bits = |value: &BigUint| i64::try_from(value.bits()).unwrap_or(i64::MAX);
    let guess = bits(top) - bits(bottom);
    let (scaled_top, scaled_bottom) = scaled(top, bottom, -guess);
    if scaled_top < scaled_bottom { guess - 1 } else { guess }
}

/// A fraction times two to the `power`.
fn scaled(top: &BigUint, bottom: &BigUint, power: i64) -> (BigUint, BigUint) {
    match power >= 0 {
        true => (top << power.unsigned_abs(), bottom.clone()),
        false => (top.clone(), bottom << power.unsigned_abs()),
    }
}

/// `significand · 2^last`, of which a float64 holds every bit.
fn compose(significand: BigUint, last: i64) -> f64 {
    let (significand, last) = match significand.bits() == SIGNIFICAND.unsigned_abs() + 1 {
        true => (significand >> 1u8, last + 1),
        false => (significand, last),
    };
    let significand = u64::try_from(significand).expect("53 bits");
    let hidden = 1u64 << (SIGNIFICAND - 1);
    if significand < hidden {
        return f64::from_bits(significand);
    }
    match u64::try_from(last - LAST + 1) {
        Ok(field) if field < 0x7ff => f64::from_bits(field << 52 | (significand - hidden)),
        _ => f64::INFINITY,
    }
}

fn signed(value: &BigRational, magnitude: f64) -> f64 {
    if value.numer().sign() == Sign::Minus { -magnitude } else { magnitude }
}
