//! Randomness without state: a counter, a seed, and a mixing function.
//!
//! Why it exists: a permutation test that is replayed must draw the same permutations, whatever was
//! drawn before it. The mixer is the finaliser of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014)
//! over a Weyl sequence. Not for secrets.

use serde::{Deserialize, Serialize};

const WEYL: u64 = 0x9E37_79B9_7F4A_7C15;

/// The `i`-th draw of a (seed, stream) is a function of the three numbers alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CounterRandom {
    key: u64,
    counter: u64,
}

impl CounterRandom {
    /// Draws of `stream` under `seed`, from the first on.
    pub fn new(seed: u64, stream: u64) -> Self {
        Self { key: mix(seed ^ mix(stream.wrapping_mul(WEYL))), counter: 0 }
    }

    /// The draw with this index, uniform over 64 bits.
    pub fn at(&self, index: u64) -> u64 {
        mix(self.key.wrapping_add(index.wrapping_add(1).wrapping_mul(WEYL)))
    }

    /// The next draw.
    pub fn next_bits(&mut self) -> u64 {
        let drawn = self.at(self.counter);
        self.counter = self.counter.wrapping_add(1);
        drawn
    }

    /// A uniform number in [0, 1), of 53 bits.
    pub fn uniform(&mut self) -> f64 {
        (self.next_bits() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// A uniform index below `bound`, without bias (Lemire, ACM TOMACS 2019); 0 for `bound` 0.
    pub fn below(&mut self, bound: usize) -> usize {
        let bound = bound as u64;
        if bound == 0 {
            return 0;
        }
        let least = bound.wrapping_neg() % bound;
        loop {
            let wide = u128::from(self.next_bits()) * u128::from(bound);
            if wide as u64 >= least {
                return (wide >> 64) as usize;
            }
        }
    }

    /// Shuffles `values` (Fisher and Yates).
    pub fn shuffle<T>(&mut self, values: &mut [T]) {
        for last in (1..values.len()).rev() {
            values.swap(last, self.below(last + 1));
        }
    }
}

fn mix(value: u64) -> u64 {
    let value = (value ^ (value >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    value ^ (value >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_are_the_published_splitmix64() {
        // The reference implementation's first outputs for the state 0.
        let random = CounterRandom { key: 0, counter: 0 };
        assert_eq!(random.at(0), 0xE220_A839_7B1D_CDAF);
        assert_eq!(random.at(1), 0x6E78_9E6A_A1B9_65F4);
        assert_eq!(random.at(2), 0x06C4_5D18_8009_454F);
    }

    #[test]
    fn streams_differ_and_indices_are_uniform() {
        assert_ne!(CounterRandom::new(1, 0).at(0), CounterRandom::new(1, 1).at(0));
        let mut random = CounterRandom::new(9, 9);
        let mut counts = [0_u32; 7];
        (0..70_000).for_each(|_| counts[random.below(7)] += 1);
        // Six standard deviations around 10,000.
        assert!(counts.iter().all(|count| (9_445..=10_555).contains(count)), "{counts:?}");
        let mut order: Vec<u32> = (0..50).collect();
        random.shuffle(&mut order);
        let mut sorted = order.clone();
        sorted.sort_unstable();
        assert_ne!(order, sorted);
        assert_eq!(sorted, (0..50).collect::<Vec<_>>());
    }
}
