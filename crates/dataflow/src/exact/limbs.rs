//! An integer multiple of a power of two that grows where its bits are: two's complement limbs over
//! a sparse window of exponents.
//!
//! Does not know floats or rounding.

use num_bigint::BigUint;

/// `Σ limbs[i] · 2^(64·(low + i))`, the last limb signed. Any history of additions that leads to
/// the same number is the same number; [`Limbs::parts`] gives its one canonical form.
#[derive(Clone, Debug, Default)]
pub struct Limbs {
    low: i32,
    limbs: Vec<u64>,
}

impl Limbs {
    /// Whether the value is zero.
    pub fn is_zero(&self) -> bool {
        self.limbs.iter().all(|limb| *limb == 0)
    }

    /// Adds `±magnitude · 2^position`.
    pub fn add(&mut self, negative: bool, magnitude: u128, position: i32) {
        if magnitude == 0 {
            return;
        }
        let limb = position.div_euclid(64);
        let offset = position.rem_euclid(64).unsigned_abs();
        let (low, high) =
            (magnitude << offset, if offset == 0 { 0 } else { magnitude >> (128 - offset) });
        let parts = [low as u64, (low >> 64) as u64, high as u64];
        self.cover(limb, limb + 3);
        self.apply(negative, &parts, 0, limb);
    }

    /// Adds `other`, or subtracts it.
    pub fn merge(&mut self, other: &Self, subtract: bool) {
        let Some(top) = other.limbs.last() else { return };
        let end = other.low + other.limbs.len() as i32;
        self.cover(other.low, end);
        let extension = if top >> 63 == 1 { u64::MAX } else { 0 };
        self.apply(subtract, &other.limbs, extension, other.low);
    }

    /// Makes room for limbs `first..end` and one pure sign limb above everything.
    fn cover(&mut self, first: i32, end: i32) {
        if self.limbs.is_empty() {
            self.low = first;
        }
        if first < self.low {
            let missing = (self.low - first).unsigned_abs() as usize;
            self.limbs.splice(0..0, std::iter::repeat_n(0, missing));
            self.low = first;
        }
        let sign = self.sign();
        let wanted = (end - self.low).unsigned_abs() as usize + 1;
        if self.limbs.len() < wanted {
            self.limbs.resize(wanted, sign);
        }
        if self.limbs.last() != Some(&sign) {
            self.limbs.push(sign);
        }
    }

    fn sign(&self) -> u64 {
        if self.limbs.last().is_some_and(|top| top >> 63 == 1) { u64::MAX } else { 0 }
    }

    /// Adds or subtracts `parts`, continued upwards by `extension`, from limb `first` on. `cover`
    /// has made room, so the top limb cannot overflow.
    fn apply(&mut self, subtract: bool, parts: &[u64], extension: u64, first: i32) {
        let start = (first - self.low).unsigned_abs() as usize;
        let mut carry = false;
        for (index, limb) in self.limbs.iter_mut().skip(start).enumerate() {
            let part = parts.get(index).copied().unwrap_or(extension);
            if index >= parts.len() && part == 0 && !carry {
                break;
            }
            let (value, first) =
                if subtract { limb.overflowing_sub(part) } else { limb.overflowing_add(part) };
            let carried = u64::from(carry);
            let (value, second) = if subtract {
                value.overflowing_sub(carried)
            } else {
                value.overflowing_add(carried)
            };
            *limb = value;
            carry = first | second;
        }
        self.trim();
    }

    fn trim(&mut self) {
        while let [.., below, top] = self.limbs.as_slice() {
            let extension = if below >> 63 == 1 { u64::MAX } else { 0 };
            if *top != extension {
                break;
            }
            self.limbs.pop();
        }
        let zeros = self.limbs.iter().take_while(|limb| **limb == 0).count();
        if zeros == self.limbs.len() {
            self.limbs.clear();
        } else if zeros > 0 {
            self.limbs.drain(..zeros);
            self.low += zeros as i32;
        }
    }

    /// The value as sign, magnitude and exponent of two (not normalised).
    pub fn parts(&self) -> (bool, BigUint, i64) {
        let negative = self.sign() != 0;
        let mut limbs = self.limbs.clone();
        if negative {
            let mut carry = true;
            for limb in &mut limbs {
                (*limb, carry) = (!*limb).overflowing_add(u64::from(carry));
            }
        }
        let bytes: Vec<u8> = limbs.iter().flat_map(|limb| limb.to_le_bytes()).collect();
        (negative, BigUint::from_bytes_le(&bytes), 64 * i64::from(self.low))
    }

    /// Bytes on the heap.
    pub fn heap_bytes(&self) -> usize {
        self.limbs.capacity() * 8
    }
}
