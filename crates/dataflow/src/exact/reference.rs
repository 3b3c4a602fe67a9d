//! Arbitrary-precision rationals and their roundings by bisection over all float64: slow, obvious,
//! and sharing nothing with the code that it checks.

use num_bigint::{BigInt, Sign};
use std::cmp::Ordering;

/// A fraction with a positive denominator.
#[derive(Clone, Debug)]
pub(crate) struct Fraction {
    pub(crate) top: BigInt,
    pub(crate) bottom: BigInt,
}

impl Fraction {
    pub(crate) fn new(top: impl Into<BigInt>, bottom: impl Into<BigInt>) -> Self {
        Self { top: top.into(), bottom: bottom.into() }
    }

    /// A finite float64, exactly.
    pub(crate) fn of(value: f64) -> Self {
        let bits = value.to_bits();
        let field = bits >> 52 & 0x7ff;
        let fraction = bits & ((1 << 52) - 1);
        let significand = if field == 0 { fraction } else { fraction | 1 << 52 };
        let top = BigInt::from(significand) << field.max(1);
        Self { top: if bits >> 63 == 1 { -top } else { top }, bottom: BigInt::from(1) << 1075u32 }
    }

    pub(crate) fn plus(&self, other: &Self) -> Self {
        if self.bottom == other.bottom {
            return Self::new(&self.top + &other.top, self.bottom.clone());
        }
        let top = &self.top * &other.bottom + &other.top * &self.bottom;
        Self::new(top, &self.bottom * &other.bottom)
    }

    pub(crate) fn minus(&self, other: &Self) -> Self {
        self.plus(&Self::new(-&other.top, other.bottom.clone()))
    }

    pub(crate) fn times(&self, other: &Self) -> Self {
        Self::new(&self.top * &other.top, &self.bottom * &other.bottom)
    }

    fn compare(&self, other: &Self) -> Ordering {
        (&self.top * &other.bottom).cmp(&(&other.top * &self.bottom))
    }

    /// The nearest float64, ties to even; `power` 2 asks for the root of the fraction.
    fn nearest(&self, power: u32) -> f64 {
        if self.top.sign() == Sign::NoSign {
            return 0.0;
        }
        let magnitude = Self::new(self.top.magnitude().clone(), self.bottom.clone());
        let raised = |value: Self| if power == 2 { value.times(&value) } else { value };
        // The greatest finite float64 not above the magnitude.
        let (mut low, mut high) = (0u64, f64::INFINITY.to_bits());
        while high - low > 1 {
            let middle = low.midpoint(high);
            match raised(Self::of(f64::from_bits(middle))).compare(&magnitude) {
                Ordering::Greater => high = middle,
                _ => low = middle,
            }
        }
        // Beyond the greatest finite value the grid goes on to 2^1024, which stands for infinity.
        let above = if high == f64::INFINITY.to_bits() {
            Self::new(BigInt::from(1) << 1024u32, 1)
        } else {
            Self::of(f64::from_bits(high))
        };
        let half = Self::of(f64::from_bits(low)).plus(&above).times(&Self::new(1, 2));
        let up = match magnitude.compare(&raised(half)) {
            Ordering::Less => false,
            Ordering::Greater => true,
            Ordering::Equal => low & 1 == 1,
        };
        let rounded = f64::from_bits(if up { high } else { low });
        if self.top.sign() == Sign::Minus { -rounded } else { rounded }
    }

    pub(crate) fn to_f64(&self) -> f64 {
        self.nearest(1)
    }

    pub(crate) fn root(&self) -> f64 {
        self.nearest(2)
    }
}

/// The exact sum of fractions.
pub(crate) fn sum(values: &[Fraction]) -> Fraction {
    values.iter().fold(Fraction::new(0, 1), |sum, value| sum.plus(value))
}

/// The exact variance, by its definition over the mean.
pub(crate) fn variance(values: &[Fraction], sample: bool) -> Option<Fraction> {
    let divisor = values.len().checked_sub(usize::from(sample)).filter(|left| *left > 0)?;
    let mean = sum(values).times(&Fraction::new(1, values.len()));
    let squares: Vec<Fraction> = values
        .iter()
        .map(|value| {
            let distance = value.minus(&mean);
            distance.times(&distance)
        })
        .collect();
    Some(sum(&squares).times(&Fraction::new(1, divisor)))
}
