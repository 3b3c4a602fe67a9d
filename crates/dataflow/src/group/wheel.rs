//! The timer wheel: which keys have to be looked at when.
//!
//! Entries lie unsorted in slots of about a second: those that are due come all at once and in no
//! order. What is minutes away lies in slots of minutes, which are few enough to stay in the caches,
//! and is spread over slots of seconds when its minutes come. Does not know what happens to entries.

use std::collections::BTreeMap;

/// A slot spans 2^20 µs, about a second.
const SLOT_BITS: u32 = 20;
/// A slot of what is far away spans 2^28 µs, about four and a half minutes.
const FAR_BITS: u32 = 28;

type Slots = BTreeMap<i64, Vec<(i64, u32)>>;

/// Times in microseconds, each with the number of a key.
#[derive(Debug)]
pub(crate) struct Wheel {
    near: Slots,
    far: Slots,
    /// Far slots up to this one have been spread over near ones.
    spread: i64,
}

impl Default for Wheel {
    fn default() -> Self {
        Self { near: Slots::new(), far: Slots::new(), spread: i64::MIN }
    }
}

impl Wheel {
    /// Asks for `key` at `time`; `i64::MAX` means never.
    pub(crate) fn push(&mut self, time: i64, key: u32) {
        if time == i64::MAX {
            return;
        }
        let far = time >> FAR_BITS;
        let (slots, slot) = match far > self.spread {
            true => (&mut self.far, far),
            false => (&mut self.near, time >> SLOT_BITS),
        };
        slots.entry(slot).or_default().push((time, key));
    }

    /// Appends the entries whose time is at most `now` to `due`.
    pub(crate) fn take(&mut self, now: i64, due: &mut Vec<(i64, u32)>) {
        self.spread = self.spread.max(now >> FAR_BITS);
        while let Some(entry) = self.far.first_entry().filter(|slot| *slot.key() <= self.spread) {
            for (time, key) in entry.remove() {
                match time <= now {
                    true => due.push((time, key)),
                    false => self.push(time, key),
                }
            }
        }
        let slot = now >> SLOT_BITS;
        while let Some(mut entry) = self.near.first_entry().filter(|entry| *entry.key() <= slot) {
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
        let slots = self.near.values().chain(self.far.values());
        slots.map(|slot| slot.capacity() * 16 + 64).sum()
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
