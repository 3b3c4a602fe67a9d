//! Bringing keys into the processor's caches before they are needed.
//!
//! Why it exists: the state of many keys is far larger than any cache, so what an event costs is
//! waiting for a dozen places in memory, each known only once the one before has come. Looking at some
//! dozens of keys first, one step for all of them after the other, lets the processor wait for many at
//! once. Changes nothing, and knows nothing but where things lie.

use std::hint::black_box;

use falaj_event::key_hash;

use crate::group::GroupCore;
use crate::group::key::KeyState;

/// Keys that are brought into the caches together: more would push each other out before they are
/// used, fewer would not be waited for at the same time.
pub(crate) const WARM_TOGETHER: usize = 128;

impl GroupCore {
    /// Says that these keys, [`WARM_TOGETHER`] at most, are about to get events.
    pub fn expect<'a>(&mut self, keys: impl Iterator<Item = &'a [u8]>) {
        let mut ids = std::mem::take(&mut self.scratch.warm);
        ids.clear();
        // Whose key it really is would have to be waited for; nearly always it is this one's.
        let likely = keys.filter_map(|key| self.index.find(key_hash(key), |_| true));
        ids.extend(likely);
        self.warm(&ids);
        self.scratch.warm = ids;
    }

    /// Reads what is needed of these keys.
    pub(super) fn warm(&self, ids: &[u32]) {
        let states = || ids.iter().filter_map(|id| self.keys[*id as usize].as_ref());
        black_box(states().map(KeyState::touch_self).fold(0, u64::wrapping_add));
        black_box(states().map(|state| state.touch_tiles(&self.plan)).fold(0, u64::wrapping_add));
    }
}
