//! The timer wheel: which keys have to be looked at when.
//!
//! Entries lie unsorted in slots of about a second: those that are due come all at once and in no
//! order. Does not know what happens to them.

use std::collections::BTreeMap;

/// A slot spans 2^20 µs, about a second.
const SLOT_BITS: u32 = 20;

/// Times in microseconds, each with the number of a key.
#[derive(Debug, Default)]
pub(crate) struct Wheel {
    slots: BTreeMap<i64, Vec<(i64, u32)>>,
}

impl Wheel {
    /// Asks for `key` at `time`; `i64::MAX` means never.
    pub(crate) fn push(&mut self, time: i64, key: u32) {
        if time != i64::MAX {
            self.slots.entry(time >> SLOT_BITS).or_default().push((time, key));
        }
    }

    /// Appends the entries whose time is at most `now` to `due`.
    pub(crate) fn take(&mut self, now: i64, due: &mut Vec<(i64, u32)>) {
        let slot = now >> SLOT_BITS;
        while let Some(mut entry) = self.slots.first_entry().filter(|entry| *entry.key() <= slot) {
            if *entry.key() < slot {
                due.append(&mut entry.remove());
                continue;
            }
            entry.get_mut().retain(|&(time, key)| {
                if time <= now {
                    due.push((time, key));
                }
                time > now
            });
            if entry.get().is_empty() {
                entry.remove();
            }
            break;
        }
    }

    /// An estimate of the bytes held.
    pub(crate) fn bytes(&self) -> usize {
        self.slots.values().map(|slot| slot.capacity() * 16 + 64).sum()
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
        let take = |wheel: &mut Wheel, now| {
            let mut due = Vec::new();
            wheel.take(now, &mut due);
            due.sort_unstable();
            due
        };
        assert_eq!(take(&mut wheel, -5), [(-(1 << 40), 5)]);
        assert_eq!(take(&mut wheel, 4), [(-3, 1)]);
        assert_eq!(take(&mut wheel, 1_048_575), [(5, 0), (5, 3), (1_048_575, 7)]);
        // One that is due at once, in a slot that has been reached.
        wheel.push(7, 100);
        assert_eq!(take(&mut wheel, 1_048_575), [(7, 100)]);
        assert_eq!(take(&mut wheel, 1_048_576), [(1_048_576, 6)]);
        assert_eq!(take(&mut wheel, 3_999_999), []);
        assert_eq!(take(&mut wheel, i64::MAX), [(4_000_000, 2), (1 << 40, 4)]);
        assert_eq!(take(&mut wheel, i64::MAX), []);
    }
}
