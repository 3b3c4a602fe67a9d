//! Counter-based randomness: every draw is a function of (seed, stream, position).
//!
//! Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011). Nothing has
//! state that could be lost in a checkpoint, and ranks that draw disjoint positions draw what one
//! rank would have drawn. Does not know what the numbers are for.

const MULTIPLIER: [u32; 2] = [0xD251_1F53, 0xCD9E_8D57];
const WEYL: [u32; 2] = [0x9E37_79B9, 0xBB67_AE85];
const ROUNDS: usize = 10;

/// What a stream of numbers is drawn for; streams never overlap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// First values of parameters.
    Parameters = 1,
    /// Order of the training rows within an epoch.
    Shuffle = 2,
    /// Dropout masks.
    Dropout = 3,
}

/// Four words for one counter under one key.
pub fn philox(mut counter: [u32; 4], key: u64) -> [u32; 4] {
    let mut key = [key as u32, (key >> 32) as u32];
    for round in 0..ROUNDS {
        if round > 0 {
            key = [key[0].wrapping_add(WEYL[0]), key[1].wrapping_add(WEYL[1])];
        }
        let wide = [
            u64::from(MULTIPLIER[0]) * u64::from(counter[0]),
            u64::from(MULTIPLIER[1]) * u64::from(counter[2]),
        ];
        counter = [
            (wide[1] >> 32) as u32 ^ counter[1] ^ key[0],
            wide[1] as u32,
            (wide[0] >> 32) as u32 ^ counter[3] ^ key[1],
            wide[0] as u32,
        ];
    }
    counter
}

/// The numbers of one (seed, purpose, index).
#[derive(Clone, Copy, Debug)]
pub struct Stream {
    key: u64,
    purpose: u32,
    index: u32,
}

impl Stream {
    /// The stream `index` of `purpose` under `seed`.
    pub fn new(seed: u64, purpose: Purpose, index: u32) -> Self {
        Self { key: seed, purpose: purpose as u32, index }
    }

    /// The word at `position`.
    pub fn word(&self, position: u64) -> u32 {
        let block = position / 4;
        let counter = [block as u32, (block >> 32) as u32, self.index, self.purpose];
        philox(counter, self.key)[(position % 4) as usize]
    }

    /// Uniform in [0, 1), 24 bits, at `position`.
    pub fn uniform(&self, position: u64) -> f32 {
        (self.word(position) >> 8) as f32 / (1u32 << 24) as f32
    }

    /// A uniformly drawn order of `0..count` (Fisher and Yates; multiply-shift, whose bias is below
    /// `count / 2^64`).
    pub fn permutation(&self, count: usize) -> Vec<u32> {
        let mut order: Vec<u32> = (0..count as u32).collect();
        for last in (1..count).rev() {
            let position = 2 * last as u64;
            let wide = u64::from(self.word(position)) << 32 | u64::from(self.word(position + 1));
            let chosen = ((u128::from(wide) * (last as u128 + 1)) >> 64) as usize;
            order.swap(last, chosen);
        }
        order
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn philox_gives_the_published_words() {
        assert_eq!(philox([0; 4], 0), [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]);
        assert_eq!(
            philox([u32::MAX; 4], u64::MAX),
            [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]
        );
        assert_eq!(
            philox([0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344], 0x299f_31d0_a409_3822),
            [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1]
        );
    }

    #[test]
    fn a_permutation_has_every_number_once_and_depends_on_its_stream() {
        let order = Stream::new(7, Purpose::Shuffle, 0).permutation(1_000);
        let mut sorted = order.clone();
        sorted.sort_unstable();
        assert!(sorted.iter().enumerate().all(|(at, value)| at as u32 == *value));
        assert_ne!(order, Stream::new(7, Purpose::Shuffle, 1).permutation(1_000));
        assert_ne!(order, Stream::new(8, Purpose::Shuffle, 0).permutation(1_000));
        assert_eq!(order, Stream::new(7, Purpose::Shuffle, 0).permutation(1_000));
    }

    #[test]
    fn uniform_numbers_are_uniform() {
        let stream = Stream::new(3, Purpose::Dropout, 9);
        let mean = (0..100_000).map(|at| f64::from(stream.uniform(at))).sum::<f64>() / 1e5;
        assert!((mean - 0.5).abs() < 0.005, "{mean}");
    }
}
