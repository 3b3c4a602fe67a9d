//! What of the operator is stored, and how it comes back.
//!
//! Keys are `logical partition ‖ prefix ‖ kind ‖ group key ‖ suffix`:
//!
//! | kind | suffix | value |
//! | --- | --- | --- |
//! | `00` key | none | event time of the latest event (8 bytes, order-preserving); the kept latest events: their number (varint), each as order (28 bytes), length (varint) and cells |
//! | `01` tile | number of the grid (1), of the tile (8, order-preserving) | number of events (varint), then the lanes (see `aggregate`) |
//!
//! Append-only keys have a `00` entry and one `01` entry per live tile. Retractable keys have a `00`
//! entry only once an event of theirs can no longer be retracted (with that event's time); everything
//! else of theirs is rebuilt from the rows that the driver's inputs keep and feed again.

use std::collections::BTreeMap;

use falaj_event::{StateChange, ids::hex, logical_partition};

use crate::aggregate::{BadAccumulator, order_bytes, read_order, take};
use crate::aggregate::{read_varint, write_varint};
use crate::group::key::KeyState;
use crate::group::{GroupCore, GroupError};

const KIND_KEY: u8 = 0;
const KIND_TILE: u8 = 1;
const TILE_SUFFIX: usize = 9;

fn flipped(value: i64) -> [u8; 8] {
    (value.cast_unsigned() ^ 1 << 63).to_be_bytes()
}

fn unflipped(bytes: [u8; 8]) -> i64 {
    (u64::from_be_bytes(bytes) ^ 1 << 63).cast_signed()
}

impl GroupCore {
    fn state_key(&self, kind: u8, key: &[u8], suffix: &[u8]) -> Vec<u8> {
        [&[logical_partition(key)], self.prefix.as_slice(), &[kind], key, suffix].concat()
    }

    fn tile_key(&self, key: &[u8], grid: u8, tile: i64) -> Vec<u8> {
        let mut suffix = [grid; TILE_SUFFIX];
        suffix[1..].copy_from_slice(&flipped(tile));
        self.state_key(KIND_TILE, key, &suffix)
    }

    /// What has changed since the last call, ascending by state key: a pure function of the events
    /// and `T`s so far, and of where the last call was.
    pub fn checkpoint(&mut self) -> Vec<StateChange> {
        let mut changes: BTreeMap<Vec<u8>, Option<Vec<u8>>> = BTreeMap::new();
        for (id, grid, tile) in std::mem::take(&mut self.left) {
            if let Some(state) = &self.keys[id as usize] {
                changes.insert(self.tile_key(&state.key, grid, tile), None);
            }
        }
        let mut keys = std::mem::take(&mut self.keys);
        for id in std::mem::take(&mut self.dirty) {
            if let Some(state) = keys[id as usize].as_mut().filter(|state| state.dirty) {
                state.dirty = false;
                self.write_key(state, &mut changes);
            }
        }
        self.keys = keys;
        changes.into_iter().map(|(key, value)| StateChange { key, value }).collect()
    }

    fn write_key(&self, state: &mut KeyState, changes: &mut BTreeMap<Vec<u8>, Option<Vec<u8>>>) {
        if std::mem::take(&mut state.meta_dirty)
            && let Some(latest) = state.latest.or(state.permanent)
        {
            let mut value = flipped(latest).to_vec();
            write_varint(state.events.recent().len() as u64, &mut value);
            for (order, cells) in state.events.recent() {
                value.extend_from_slice(&order_bytes(order));
                write_varint(cells.len() as u64, &mut value);
                value.extend_from_slice(cells);
            }
            changes.insert(self.state_key(KIND_KEY, &state.key, &[]), Some(value));
        }
        if self.retractable {
            return;
        }
        for (index, (ring, grid)) in state.rings.iter_mut().zip(&self.plan.grids).enumerate() {
            let shape = grid.shape();
            ring.drain_dirty(shape, |ring, tile, at| {
                let mut value = Vec::with_capacity(64);
                write_varint(ring.events(shape, at), &mut value);
                grid.layout.write(ring.seen(shape, at), &mut value);
                changes.insert(self.tile_key(&state.key, index as u8, tile), Some(value));
            });
        }
    }

    /// Takes back the entries of a checkpoint, in any order; keys come without partition and prefix.
    /// The next calls must be the updates that feed a retractable view again, if it is one, and
    /// [`Self::advance`] to the `T` of the checkpoint, whose outputs say nothing new.
    ///
    /// # Errors
    /// Names the first entry that this view does not write.
    pub fn restore<'a>(
        &mut self,
        entries: impl Iterator<Item = (&'a [u8], &'a [u8])>,
    ) -> Result<(), GroupError> {
        self.restoring = true;
        for (entry, value) in entries {
            self.restore_entry(entry, value)
                .map_err(|_| GroupError::Entry { entry: hex(entry) })?;
        }
        Ok(())
    }

    fn restore_entry(&mut self, entry: &[u8], mut value: &[u8]) -> Result<(), BadAccumulator> {
        let bytes = &mut value;
        match entry.split_first().ok_or(BadAccumulator)? {
            (&KIND_KEY, key) => self.restore_key(key, bytes)?,
            (&KIND_TILE, rest) if !self.retractable => {
                let (key, suffix) = rest
                    .split_last_chunk::<TILE_SUFFIX>()
                    .map(|(key, suffix)| (key, *suffix))
                    .ok_or(BadAccumulator)?;
                let mut tail = &suffix[1..];
                let tile = unflipped(take(&mut tail)?);
                self.restore_tile(key, suffix[0], tile, bytes)?;
            }
            _ => return Err(BadAccumulator),
        }
        if bytes.is_empty() { Ok(()) } else { Err(BadAccumulator) }
    }

    fn restore_key(&mut self, key: &[u8], bytes: &mut &[u8]) -> Result<(), BadAccumulator> {
        let time = unflipped(take(bytes)?);
        let id = self.intern(key);
        let (keep, retractable) = (self.plan.keep, self.retractable);
        let state = self.keys[id as usize].as_mut().ok_or(BadAccumulator)?;
        state.emitted = true;
        match retractable {
            true => state.permanent = Some(time),
            false => state.latest = Some(time),
        }
        for _ in 0..read_varint(bytes)? {
            let order = read_order(bytes)?;
            let length = usize::try_from(read_varint(bytes)?).map_err(|_| BadAccumulator)?;
            let (cells, rest) = bytes.split_at_checked(length).ok_or(BadAccumulator)?;
            *bytes = rest;
            state.events.keep_recent(order, cells, keep);
        }
        Ok(())
    }

    fn restore_tile(
        &mut self,
        key: &[u8],
        grid: u8,
        tile: i64,
        bytes: &mut &[u8],
    ) -> Result<(), BadAccumulator> {
        let id = self.intern(key);
        let index = usize::from(grid);
        let grid = self.plan.grids.get(index).ok_or(BadAccumulator)?;
        let state = self.keys[id as usize].as_mut().ok_or(BadAccumulator)?;
        let (shape, ring) = (grid.shape(), &mut state.rings[index]);
        let (at, made) = ring.find_or_insert(shape, tile, grid.layout.empty());
        if !made {
            return Err(BadAccumulator);
        }
        let events = read_varint(bytes)?;
        ring.mark_restored(shape, at, events);
        grid.layout.read(&mut ring.slots(shape, at), bytes)
    }

    /// Folds restored tiles into the windows that they are in at the time reached.
    pub(super) fn fill_totals(&mut self) {
        for (id, state) in self.keys.iter_mut().enumerate() {
            let Some(state) = state else { continue };
            for (index, grid) in self.plan.grids.iter().enumerate() {
                let shape = grid.shape();
                for window in &grid.windows {
                    let (mut totals, rings) = state.totals(window, shape);
                    let ring = &rings[index];
                    let start = ring.up_to(shape, window.limit);
                    for part in ring.parts(shape, start..ring.len(shape)) {
                        grid.layout.merge(&mut totals, part);
                    }
                    if start < ring.len(shape) {
                        let leave = grid.leave(ring.tile(shape, start), window);
                        let ring = &mut state.rings[index];
                        ring.next_leave = ring.next_leave.min(leave);
                        state.next_leave = state.next_leave.min(leave);
                    }
                }
            }
            self.wheel.push(state.next_leave, id as u32);
        }
    }
}
