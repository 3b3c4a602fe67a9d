//! The timer wheel: which keys have something leaving when.
//!
//! Far entries lie unsorted in coarse slots; only the slot that time has reached is ordered. Does
//! not know what leaves.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

/// A slot spans 2^20 µs, about a second.
const SLOT_BITS: u32 = 20;

/// Times in microseconds, each with the number of a key.
#[derive(Debug, Default)]
pub(crate) struct Wheel {
    far: BTreeMap<i64, Vec<(i64, u32)>>,
    near: BinaryHeap<Reverse<(i64, u32)>>,
    /// Slots below this one have gone to `near`.
    reached: i64,
    started: bool,
}

impl Wheel {
    /// Asks for `key` at `time`; `i64::MAX` means never.
    pub(crate) fn push(&mut self, time: i64, key: u32) {
        if time == i64::MAX {
            return;
        }
        let slot = time >> SLOT_BITS;
        if self.started && slot < self.reached {
            self.near.push(Reverse((time, key)));
        } else {
            self.far.entry(slot).or_default().push((time, key));
        }
    }

    /// Takes one entry whose time is at most `now`, the least first.
    pub(crate) fn pop(&mut self, now: i64) -> Option<(i64, u32)> {
        let slot = now >> SLOT_BITS;
        if !self.started || self.reached <= slot {
            (self.started, self.reached) = (true, slot + 1);
            while let Some(entry) = self.far.first_entry().filter(|entry| *entry.key() <= slot) {
                self.near.extend(entry.remove().into_iter().map(Reverse));
            }
        }
        match self.near.peek() {
            Some(Reverse((time, _))) if *time <= now => self.near.pop().map(|entry| entry.0),
            _ => None,
        }
    }

    /// An estimate of the bytes held.
    pub(crate) fn bytes(&self) -> usize {
        let far: usize = self.far.values().map(|slot| slot.capacity() * 16 + 64).sum();
        far + self.near.capacity() * 16
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_come_when_their_time_has_come() {
        let mut wheel = Wheel::default();
        let times = [5, -3, 4_000_000, 5, 1 << 40, -(1 << 40), 1_048_576, 1_048_575, i64::MAX];
        for (key, time) in times.into_iter().enumerate() {
            wheel.push(time, key as u32);
        }
        let mut taken = Vec::new();
        for now in [-5, 4, 5, 1_048_575, 1_048_576] {
            while let Some((time, key)) = wheel.pop(now) {
                assert!(time <= now);
                taken.push((time, key));
            }
            // One that is due at once, and one in a slot that has been reached.
            wheel.push(now, 100);
            assert_eq!(wheel.pop(now), Some((now, 100)));
        }
        assert_eq!(
            taken,
            [(-(1 << 40), 5), (-3, 1), (5, 0), (5, 3), (1_048_575, 7), (1_048_576, 6)]
        );
        assert_eq!(wheel.pop(3_999_999), None);
        assert_eq!(wheel.pop(i64::MAX), Some((4_000_000, 2)));
        assert_eq!(wheel.pop(i64::MAX), Some((1 << 40, 4)));
        assert_eq!(wheel.pop(i64::MAX), None);
    }
}
