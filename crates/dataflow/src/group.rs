//! The fused keyed operator: all windows and aggregates of one view, per key, driven one `T` after
//! the other.
//!
//! Every RANGE frame is a window over tiles of its hop. Windows of one hop share a ring of tiles per
//! key; each window keeps running totals, from which leaving tiles are subtracted or, where slots
//! cannot be subtracted from, which are folded anew. A tile `i` of hop `h` leaves the window of length
//! `w` at `(i + 1)·h + w`; exact windows have `h` = 1 µs. One entry per key in a timer wheel says when
//! the key must be looked at next, so keys at rest cost nothing. Where nothing depends on a view but
//! readers, its rows also say what time will make of them (`foretell`), and few looks are needed.
//!
//! Rows at `T` are a pure function of the events visible at `T`. This module knows no threads, no
//! dataflow library and no storage: its driver gives events and `T`s and takes rows and state.

mod apply;
mod foretell;
mod key;
mod plan;
mod ring;
mod rows;
mod state;
mod sweep;
mod warm;
mod wheel;

use falaj_event::{EventOrder, EventTime, KeyBytes, LogTime, key_hash};
use hashbrown::HashTable;

use crate::aggregate::Parsed;
use crate::group::key::{Cells, KeyState};
use crate::group::plan::Compiled;
use crate::group::wheel::Wheel;
use crate::values::Values;

pub use crate::group::plan::GroupPlan;
pub(crate) use crate::group::sweep::{Sweep, SweepKey};
pub(crate) use crate::group::warm::WARM_TOGETHER;

/// What [`GroupCore`] cannot read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GroupError {
    /// The cells of an event.
    #[error("an event of key {key} does not have the view's columns: rebuild the view's state")]
    Cells {
        /// The key, hexadecimal.
        key: String,
    },
    /// An entry of the state.
    #[error("state entry {entry} is not one that this view writes: rebuild the view's state")]
    Entry {
        /// The entry's key, hexadecimal.
        entry: String,
    },
}

/// The values of one key.
#[cfg(test)]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupRow {
    /// Event time of the key's latest event.
    pub latest_event_time: EventTime,
    /// Bare columns, then aggregates, in the plan's order.
    pub values: Vec<falaj_event::Value>,
}

/// A key whose values may have changed.
#[cfg(test)]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupOutput {
    /// The key's canonical encoding.
    pub key: KeyBytes,
    /// Its row; `None` when every event of the key has been retracted.
    pub row: Option<GroupRow>,
    /// What time will make of the row's values, in order of time.
    pub later: Vec<(EventTime, Vec<falaj_event::Value>)>,
}

/// What is said of a key whose values may have changed.
pub enum Given<'a> {
    /// Its latest event time and its values.
    Row(EventTime, Values<'a>),
    /// The values that the row just given will have from this time on, and which of them are other
    /// than before (their indexes, ascending).
    Later(EventTime, Values<'a>, &'a [usize]),
    /// Every event of the key has been retracted.
    Gone,
}

/// Sizes and counters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GroupStats {
    /// Keys held.
    pub keys: usize,
    /// Tiles held.
    pub tiles: usize,
    /// Estimated bytes of all state, the wheel and index included.
    pub bytes: usize,
    /// Events that came too late for at least one of their windows.
    pub late: u64,
    /// Retractions of events that were not there (ignored).
    pub invalid_retractions: u64,
}

/// A change of a retractable key that waits for the next step of time.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Pending {
    key: KeyBytes,
    order: EventOrder,
    cells: Cells,
    diff: isize,
}

/// Space that is used again and again.
#[derive(Debug, Default)]
struct Scratch {
    ranges: Vec<(u32, u32)>,
    parsed: Vec<Parsed>,
    stale: Vec<usize>,
    due: Vec<(i64, u32)>,
    warm: Vec<u32>,
    ahead: foretell::Ahead,
}

/// The state of all keys of one view on one worker.
#[derive(Debug)]
pub struct GroupCore {
    plan: Compiled,
    retractable: bool,
    horizon_us: Option<u64>,
    prefix: Vec<u8>,
    now: EventTime,
    keys: Vec<Option<KeyState>>,
    free: Vec<u32>,
    index: HashTable<u32>,
    wheel: Wheel,
    pending: Vec<Pending>,
    touched: Vec<u32>,
    dirty: Vec<u32>,
    /// State keys of tiles that left since the last checkpoint, without partition and prefix.
    left: Vec<(u32, u8, i64)>,
    /// Restored tiles are not in the windows' totals yet.
    restoring: bool,
    scratch: Scratch,
    late: u64,
    invalid_retractions: u64,
}

impl GroupCore {
    /// An empty operator. `prefix` comes after the logical partition in its state keys.
    pub fn new(plan: GroupPlan, prefix: &[u8]) -> Self {
        Self {
            plan: Compiled::new(&plan),
            retractable: plan.retractable,
            horizon_us: plan.horizon_us,
            prefix: prefix.to_vec(),
            now: i64::MIN,
            keys: Vec::new(),
            free: Vec::new(),
            index: HashTable::new(),
            wheel: Wheel::default(),
            pending: Vec::new(),
            touched: Vec::new(),
            dirty: Vec::new(),
            left: Vec::new(),
            restoring: false,
            scratch: Scratch::default(),
            late: 0,
            invalid_retractions: 0,
        }
    }

    /// Gives an event that becomes visible at the `T` of the next [`Self::advance`], or takes one
    /// back. `cells` is the canonical row of [`GroupPlan::cell_columns`].
    ///
    /// # Errors
    /// When `cells` are not such a row; nothing has changed then.
    pub fn update(
        &mut self,
        key: &[u8],
        order: EventOrder,
        cells: &[u8],
        diff: isize,
    ) -> Result<(), GroupError> {
        self.parse(key, cells)?;
        if self.retractable {
            self.pending.push(Pending { key: key.into(), order, cells: cells.into(), diff });
            return Ok(());
        }
        if diff < 0 {
            self.invalid_retractions += diff.unsigned_abs() as u64;
            return Ok(());
        }
        let id = self.intern(key);
        for _ in 0..diff {
            self.insert(id, &order, cells);
        }
        Ok(())
    }

    /// Finds the cells of a row and reads the lanes' inputs.
    fn parse(&mut self, key: &[u8], cells: &[u8]) -> Result<(), GroupError> {
        let Scratch { ranges, parsed, .. } = &mut self.scratch;
        self.plan
            .selector
            .ranges(cells, ranges)
            .ok_or_else(|| GroupError::Cells { key: falaj_event::ids::hex(key) })?;
        parsed.clear();
        parsed.extend(self.plan.lanes.iter().map(|lane| lane.parse(cells, ranges)));
        Ok(())
    }

    /// Moves to `t`, which must grow: what has left by then leaves, the events given since the last
    /// call enter, and the keys whose values may have changed are handed to `each`, ascending. Where
    /// the plan foretells, a row stands until it is given again: what is said to come later comes.
    pub fn advance_each(&mut self, t: LogTime, each: impl FnMut(&[u8], Given<'_>)) {
        self.now = self.now.max(t.as_event_time());
        let now = self.now;
        self.plan.grids.iter_mut().for_each(|grid| grid.step(now));
        if std::mem::take(&mut self.restoring) {
            self.fill_totals();
        }
        self.wake();
        self.apply_pending();
        self.give_touched(each);
    }

    /// Sizes and counters; walks all keys.
    pub fn stats(&self) -> GroupStats {
        let live = || self.keys.iter().flatten();
        let tiles = live().flat_map(|state| &state.rings).map(|ring| ring.len()).sum();
        let per_key = size_of::<Option<KeyState>>() - size_of::<KeyState>();
        let bytes: usize = live().map(|state| state.bytes() + per_key).sum();
        GroupStats {
            keys: self.index.len(),
            tiles,
            bytes: bytes + self.wheel.bytes() + self.index.capacity() * 5,
            late: self.late,
            invalid_retractions: self.invalid_retractions,
        }
    }

    fn find(&self, key: &[u8]) -> Option<u32> {
        let same = |id: &u32| {
            self.keys[*id as usize].as_ref().is_some_and(|state| state.key.as_slice() == key)
        };
        self.index.find(key_hash(key), same).copied()
    }

    /// The number of a key, which is made if need be.
    fn intern(&mut self, key: &[u8]) -> u32 {
        if let Some(id) = self.find(key) {
            return id;
        }
        let state = Some(KeyState::new(key, &self.plan));
        let id = match self.free.pop() {
            Some(id) => {
                self.keys[id as usize] = state;
                id
            }
            None => {
                self.keys.push(state);
                (self.keys.len() - 1) as u32
            }
        };
        let keys = &self.keys;
        let hash = |id: &u32| keys[*id as usize].as_ref().map_or(0, |state| key_hash(&state.key));
        self.index.insert_unique(key_hash(key), id, hash);
        id
    }

    /// Forgets a key that has no events. Only retractable keys can come to this, and they have no
    /// tiles in the state.
    fn forget(&mut self, id: u32) {
        if let Some(state) = self.keys[id as usize].take() {
            if let Ok(entry) = self.index.find_entry(key_hash(&state.key), |have| *have == id) {
                entry.remove();
            }
            self.free.push(id);
        }
    }
}

#[cfg(test)]
mod edges;
#[cfg(test)]
mod naive;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod timing;
