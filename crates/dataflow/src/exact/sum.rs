//! Exact retractable sums of floats, integers, decimals and their squares, and what is rendered
//! from them.
//!
//! Most sums fit one 128-bit integer times a power of two ([`Inline`]); what does not goes to a
//! [`Spill`] of limbs. The value is always inline + spill, so nothing has to be converted back.

use num_bigint::{BigInt, BigUint, Sign};

use crate::exact::limbs::Limbs;
use crate::exact::round::{
    ratio_to_f64, round_big, round_to_f64, small_ratio_to_f64, sqrt_ratio_to_f64,
};

/// Integers below this are float64 exactly.
const EXACT_F64: u128 = 1 << 53;

/// No square of a float64 has a bit further from 2^0 than this.
const EXPONENT_MAX: i32 = 4 * 1074;
/// Bytes that 2^63 squares of float64 may need, and some more.
const MAGNITUDE_MAX: usize = 1024;

/// One summand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Term {
    /// `mantissa · 2^exponent`
    Finite(i128, i32),
    /// The square of an integer whose square exceeds 126 bits.
    Square(u128),
    /// NaN
    Nan,
    /// +∞
    PositiveInfinity,
    /// −∞
    NegativeInfinity,
}

impl Term {
    /// A float64 as a summand; exact.
    pub fn of_f64(value: f64) -> Self {
        let bits = value.to_bits();
        let field = (bits >> 52 & 0x7ff) as i32;
        let fraction = bits & ((1 << 52) - 1);
        if field == 0x7ff {
            return match (fraction, bits >> 63) {
                (0, 0) => Self::PositiveInfinity,
                (0, _) => Self::NegativeInfinity,
                _ => Self::Nan,
            };
        }
        let (mantissa, exponent) =
            if field == 0 { (fraction, -1074) } else { (fraction | 1 << 52, field - 1075) };
        if mantissa == 0 {
            return Self::Finite(0, 0);
        }
        // Short numbers stay short: the fewer trailing zeros, the more sums fit inline.
        let zeros = mantissa.trailing_zeros();
        let magnitude = i128::from(mantissa >> zeros);
        let signed = if bits >> 63 == 1 { -magnitude } else { magnitude };
        Self::Finite(signed, exponent + zeros as i32)
    }

    /// The exact square.
    pub fn squared(self) -> Self {
        match self {
            Self::Finite(mantissa, exponent) => {
                let magnitude = mantissa.unsigned_abs();
                if magnitude < 1 << 63 {
                    Self::Finite((magnitude * magnitude).cast_signed(), 2 * exponent)
                } else {
                    // Only integers and decimals (exponent 0) are this long.
                    Self::Square(magnitude)
                }
            }
            Self::NegativeInfinity => Self::PositiveInfinity,
            other => other,
        }
    }
}

/// `mantissa · 2^exponent`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Inline {
    /// The mantissa.
    pub mantissa: i128,
    /// The exponent of two.
    pub exponent: i32,
}

impl Inline {
    /// Adds where the sum fits; says whether it did.
    #[inline]
    fn try_add(&mut self, mantissa: i128, exponent: i32) -> bool {
        if mantissa == 0 {
            return true;
        }
        if self.mantissa == 0 {
            *self = Self { mantissa, exponent };
            return true;
        }
        let (high, low, distance, base) = if self.exponent >= exponent {
            (self.mantissa, mantissa, self.exponent.abs_diff(exponent), exponent)
        } else {
            (mantissa, self.mantissa, exponent.abs_diff(self.exponent), self.exponent)
        };
        if distance + 1 >= high.unsigned_abs().leading_zeros() {
            return false;
        }
        match (high << distance).checked_add(low) {
            // i128::MIN has no magnitude in i128: keep out of it.
            Some(sum) if sum != i128::MIN => {
                *self = Self { mantissa: sum, exponent: base };
                true
            }
            _ => false,
        }
    }
}

/// What does not fit inline.
#[derive(Clone, Debug, Default)]
pub struct Spill {
    limbs: Limbs,
    nans: i64,
    positive_infinities: i64,
    negative_infinities: i64,
}

impl Spill {
    fn is_zero(&self) -> bool {
        self.nans == 0
            && self.positive_infinities == 0
            && self.negative_infinities == 0
            && self.limbs.is_zero()
    }

    fn special(&self) -> Option<f64> {
        match (self.nans != 0, self.positive_infinities != 0, self.negative_infinities != 0) {
            (false, false, false) => None,
            (false, true, false) => Some(f64::INFINITY),
            (false, false, true) => Some(f64::NEG_INFINITY),
            _ => Some(f64::NAN),
        }
    }

    /// Bytes on the heap, the box included.
    pub fn heap_bytes(&self) -> usize {
        size_of::<Self>() + self.limbs.heap_bytes()
    }
}

/// Bytes that no sum writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not the canonical bytes of an exact sum")]
pub struct BadBytes;

/// An exact sum. Additions and subtractions form a group: whatever the order, equal multisets give
/// equal sums, equal bytes and equal roundings.
#[derive(Clone, Debug, Default)]
pub struct ExactSum {
    inline: Inline,
    spill: Option<Box<Spill>>,
}

impl ExactSum {
    /// Takes a sum apart into its inline part and its spill.
    pub fn into_parts(self) -> (Inline, Option<Box<Spill>>) {
        (self.inline, self.spill)
    }

    /// Puts a sum together again.
    pub fn from_parts(inline: Inline, spill: Option<Box<Spill>>) -> Self {
        Self { inline, spill }
    }

    /// Adds one summand, or takes it back.
    #[inline]
    pub fn add(&mut self, term: Term, subtract: bool) {
        match term {
            Term::Finite(mantissa, exponent) => {
                let mantissa = if subtract { -mantissa } else { mantissa };
                if !self.inline.try_add(mantissa, exponent) {
                    self.flush();
                    self.inline = Inline { mantissa, exponent };
                }
            }
            other => self.add_rare(other, if subtract { -1 } else { 1 }),
        }
    }

    #[cold]
    fn add_rare(&mut self, term: Term, diff: i64) {
        let spill = self.spill.get_or_insert_default();
        match term {
            Term::Finite(..) => {}
            Term::Square(magnitude) => {
                let (high, low) = (magnitude >> 64, magnitude & u128::from(u64::MAX));
                spill.limbs.add(diff < 0, low * low, 0);
                // Twice the cross product may need 129 bits: add it at one position higher.
                spill.limbs.add(diff < 0, high * low, 65);
                spill.limbs.add(diff < 0, high * high, 128);
            }
            Term::Nan => spill.nans += diff,
            Term::PositiveInfinity => spill.positive_infinities += diff,
            Term::NegativeInfinity => spill.negative_infinities += diff,
        }
        self.tidy();
    }

    #[cold]
    fn flush(&mut self) {
        let Inline { mantissa, exponent } = std::mem::take(&mut self.inline);
        let spill = self.spill.get_or_insert_default();
        spill.limbs.add(mantissa < 0, mantissa.unsigned_abs(), exponent);
        self.tidy();
    }

    fn tidy(&mut self) {
        if self.spill.as_ref().is_some_and(|spill| spill.is_zero()) {
            self.spill = None;
        }
    }

    /// Adds another sum, or subtracts it.
    #[inline]
    pub fn merge(&mut self, other: &Self, subtract: bool) {
        self.merge_parts(other.inline, other.spill.as_deref(), subtract);
    }

    /// As [`Self::merge`] with the parts of the other sum.
    #[inline]
    pub fn merge_parts(&mut self, inline: Inline, spill: Option<&Spill>, subtract: bool) {
        self.add(Term::Finite(inline.mantissa, inline.exponent), subtract);
        if let Some(other) = spill {
            let diff = if subtract { -1 } else { 1 };
            let spill = self.spill.get_or_insert_default();
            spill.limbs.merge(&other.limbs, subtract);
            spill.nans += diff * other.nans;
            spill.positive_infinities += diff * other.positive_infinities;
            spill.negative_infinities += diff * other.negative_infinities;
            self.tidy();
        }
    }

    /// The inverse: the sum that cancels this one, special counters included.
    #[cfg(test)]
    pub fn negated(&self) -> Self {
        let mut zero = Self::default();
        zero.merge(self, true);
        zero
    }

    /// Whether every summand has been cancelled, or the finite ones sum to zero and there is no
    /// other.
    pub fn is_zero(&self) -> bool {
        self.spill.as_ref().is_none_or(|spill| spill.special().is_none() && spill.counters_zero())
            && self.finite().1 == BigUint::ZERO
    }

    /// What the sum is when a summand was not finite.
    pub fn special(&self) -> Option<f64> {
        self.spill.as_ref().and_then(|spill| spill.special())
    }

    /// The finite part as sign, magnitude and exponent of two; zero is `(false, 0, 0)`, otherwise
    /// the magnitude is odd.
    fn finite(&self) -> (bool, BigUint, i64) {
        let (negative, magnitude, exponent) = match &self.spill {
            None => {
                let Inline { mantissa, exponent } = self.inline;
                (mantissa < 0, BigUint::from(mantissa.unsigned_abs()), i64::from(exponent))
            }
            Some(spill) => {
                let mut limbs = spill.limbs.clone();
                let Inline { mantissa, exponent } = self.inline;
                limbs.add(mantissa < 0, mantissa.unsigned_abs(), exponent);
                limbs.parts()
            }
        };
        match magnitude.trailing_zeros() {
            None => (false, BigUint::ZERO, 0),
            Some(zeros) => {
                (negative, magnitude >> zeros, exponent + i64::try_from(zeros).unwrap_or(0))
            }
        }
    }

    /// The exact finite part as an integer, for sums of integers and decimals; `None` when it is
    /// not one.
    pub fn to_integer(&self) -> Option<BigInt> {
        let (negative, magnitude, exponent) = self.finite();
        let shift = u64::try_from(exponent).ok()?;
        let sign = if negative { Sign::Minus } else { Sign::Plus };
        Some(BigInt::from_biguint(sign, magnitude << shift))
    }

    /// The sum rounded once. NaN if a NaN or both infinities were added, an infinity if one was;
    /// a sum of zero is +0 (a negative one too small for a float64 is −0).
    #[cfg(test)]
    pub fn to_f64(&self) -> f64 {
        self.quotient(1)
    }

    /// The sum divided by `count`, rounded once.
    pub fn quotient(&self, count: u64) -> f64 {
        let Inline { mantissa, exponent } = self.inline;
        if self.spill.is_none() {
            let magnitude = mantissa.unsigned_abs();
            return match count {
                1 => round_to_f64(mantissa < 0, magnitude, exponent.into(), false),
                // Both operands are exact, so this is one rounding.
                _ if exponent == 0 && magnitude < EXACT_F64 && u128::from(count) < EXACT_F64 => {
                    mantissa as f64 / count as f64
                }
                _ => small_ratio_to_f64(mantissa < 0, magnitude, count, exponent.into()),
            };
        }
        if let Some(special) = self.special() {
            return special;
        }
        let (negative, magnitude, exponent) = self.finite();
        match count {
            1 => round_big(negative, &magnitude, exponent, false),
            _ => ratio_to_f64(negative, &magnitude, &BigUint::from(count), exponent),
        }
    }

    /// Appends the canonical bytes: equal sums write equal bytes.
    ///
    /// A head byte (bit 0 negative, bit 1 special counters follow), the counters as three i64
    /// big-endian, the exponent as i32 big-endian, the number of magnitude bytes as u16 big-endian
    /// and the odd magnitude big-endian. A finite part of zero has no magnitude bytes.
    pub fn write(&self, out: &mut Vec<u8>) {
        let (negative, magnitude, exponent) = self.finite();
        let counters = self.spill.as_deref().filter(|spill| !spill.counters_zero());
        out.push(u8::from(negative) | u8::from(counters.is_some()) << 1);
        if let Some(spill) = counters {
            for counter in [spill.nans, spill.positive_infinities, spill.negative_infinities] {
                out.extend_from_slice(&counter.to_be_bytes());
            }
        }
        let bytes = if magnitude == BigUint::ZERO { Vec::new() } else { magnitude.to_bytes_be() };
        out.extend_from_slice(&i32::try_from(exponent).unwrap_or(i32::MAX).to_be_bytes());
        out.extend_from_slice(&u16::try_from(bytes.len()).unwrap_or(u16::MAX).to_be_bytes());
        out.extend_from_slice(&bytes);
    }

    /// Reads canonical bytes off the front of `bytes`.
    ///
    /// # Errors
    /// When `bytes` do not begin with a sum.
    pub fn read(bytes: &mut &[u8]) -> Result<Self, BadBytes> {
        let [head] = take::<1>(bytes)?;
        let mut sum = Self::default();
        if head & 2 != 0 {
            let spill = sum.spill.get_or_insert_default();
            spill.nans = i64::from_be_bytes(take(bytes)?);
            spill.positive_infinities = i64::from_be_bytes(take(bytes)?);
            spill.negative_infinities = i64::from_be_bytes(take(bytes)?);
        }
        let exponent = i32::from_be_bytes(take(bytes)?);
        let length = usize::from(u16::from_be_bytes(take(bytes)?));
        let (magnitude, rest) = bytes.split_at_checked(length).ok_or(BadBytes)?;
        if exponent.abs() > EXPONENT_MAX || length > MAGNITUDE_MAX {
            return Err(BadBytes);
        }
        *bytes = rest;
        let mut position = exponent;
        for chunk in magnitude.rchunks(8) {
            let word = chunk.iter().fold(0u64, |word, byte| word << 8 | u64::from(*byte));
            let mantissa = i128::from(word);
            sum.add(Term::Finite(mantissa, position), head & 1 == 1);
            position = position.checked_add(64).ok_or(BadBytes)?;
        }
        Ok(sum)
    }

    /// Bytes on the heap.
    #[cfg(test)]
    pub fn heap_bytes(&self) -> usize {
        self.spill.as_ref().map_or(0, |spill| spill.heap_bytes())
    }
}

impl Spill {
    fn counters_zero(&self) -> bool {
        self.nans == 0 && self.positive_infinities == 0 && self.negative_infinities == 0
    }
}

impl PartialEq for ExactSum {
    fn eq(&self, other: &Self) -> bool {
        let mut difference = self.clone();
        difference.merge(other, true);
        difference.is_zero()
    }
}
impl Eq for ExactSum {}

fn take<const N: usize>(bytes: &mut &[u8]) -> Result<[u8; N], BadBytes> {
    let (head, rest) = bytes.split_first_chunk::<N>().ok_or(BadBytes)?;
    *bytes = rest;
    Ok(*head)
}

/// What variance and stddev are computed from.
#[derive(Clone, Copy, Debug)]
pub struct Moments<'a> {
    /// Number of inputs.
    pub count: u64,
    /// Σx
    pub sum: &'a ExactSum,
    /// Σx²
    pub squares: &'a ExactSum,
    /// The inputs were scaled up by ten to this power (decimals).
    pub scale: u8,
}

/// Variance (or its square root), the exact value rounded once: NULL (`None`) below two inputs for
/// the sample form and below one for the population form; NaN when an input was not finite.
pub fn variance(moments: Moments<'_>, sample: bool, root: bool) -> Option<f64> {
    let Moments { count, sum, squares, scale } = moments;
    if count < 1 + u64::from(sample) {
        return None;
    }
    if sum.special().is_some() || squares.special().is_some() {
        return Some(f64::NAN);
    }
    // (n·Σx² − (Σx)²) / (n·(n−1 or n)), over one power of two.
    let (_, squares, squares_exponent) = squares.finite();
    let (_, sum, sum_exponent) = sum.finite();
    let base = squares_exponent.min(2 * sum_exponent);
    let squares = squares << u64::try_from(squares_exponent - base).unwrap_or(0);
    let sum = (&sum * &sum) << u64::try_from(2 * sum_exponent - base).unwrap_or(0);
    let numerator = BigInt::from(squares * count) - BigInt::from(sum);
    // Cauchy and Schwarz: never negative.
    let numerator = numerator.to_biguint().unwrap_or_default();
    let denominator = BigUint::from(count)
        * BigUint::from(if sample { count - 1 } else { count })
        * BigUint::from(10u8).pow(2 * u32::from(scale));
    Some(match root {
        false => ratio_to_f64(false, &numerator, &denominator, base),
        true => sqrt_ratio_to_f64(&numerator, &denominator, base),
    })
}
