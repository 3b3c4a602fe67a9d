//! What of the operator is stored, and how it comes back.
//!
//! Keys are `logical partition ‖ prefix ‖ kind ‖ group key ‖ suffix`:
//!
//! | kind | suffix | value |
//! | --- | --- | --- |
//! | `00` key | none | event time of the latest event (8 bytes, order-preserving); where rows foretell: the `T` of the row given out last, when the key is to be looked at (8 each, likewise), whether that row foretells everything (1); the kept latest events: their number (varint), each as order (28 bytes), length (varint) and cells; for each packed grid the number of its tiles (varint) and each tile: how much its number is above that of the tile before, or above 0 (a signed number, see `aggregate`), then as below |
//! | `01` tile | number of the grid (1), of the tile (8, order-preserving) | number of events (varint), then the lanes (see `aggregate`) |
//!
//! Append-only keys have a `00` entry, and one `01` entry per live tile of the grids that are not
//! packed (`plan::Grid::packed`). Retractable keys have a `00` entry only once an event of theirs can no
//! longer be retracted (with that event's time); everything else of theirs is rebuilt from the rows that
//! the driver's inputs keep and feed again.

use falaj_event::encoding::write_varint;
use falaj_event::{StateChange, ids::hex, logical_partition};

use crate::aggregate::{
    BadAccumulator, order_bytes, read_order, read_signed, read_varint, take, write_signed,
};
use crate::group::key::KeyState;
use crate::group::plan::Grid;
use crate::group::{GroupCore, GroupError, WARM_TOGETHER};

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
        let dirty = std::mem::take(&mut self.dirty);
        let mut changes = Vec::with_capacity(dirty.len());
        for (id, grid, tile) in std::mem::take(&mut self.left) {
            if let Some(state) = &self.keys[id as usize] {
                changes
                    .push(StateChange { key: self.tile_key(&state.key, grid, tile), value: None });
            }
        }
        let keys = &self.keys;
        // Written nearly in order: what is left to sort is then little.
        let place = |id: u32| {
            let key = keys[id as usize].as_ref().map_or(&[][..], |state| state.key.as_slice());
            let mut bytes = [0; 16];
            bytes[0] = logical_partition(key);
            bytes[1..].iter_mut().zip(key).for_each(|(to, from)| *to = *from);
            (u128::from_be_bytes(bytes), id)
        };
        let mut dirty: Vec<(u128, u32)> = dirty.into_iter().map(place).collect();
        dirty.sort_unstable();
        let ids: Vec<u32> = dirty.into_iter().map(|(_, id)| id).collect();
        for ids in ids.chunks(WARM_TOGETHER) {
            self.warm(ids);
            self.write_keys(ids, &mut changes);
        }
        // A tile that has left never comes back, so no entry is there twice.
        changes.sort_unstable_by(|a, b| a.key.cmp(&b.key));
        changes
    }

    fn write_keys(&mut self, ids: &[u32], changes: &mut Vec<StateChange>) {
        let mut keys = std::mem::take(&mut self.keys);
        // Entries differ in length: written here and copied, each is as large as it must be.
        let mut scratch = Vec::new();
        for id in ids {
            if let Some(state) = keys[*id as usize].as_mut().filter(|state| state.dirty) {
                state.dirty = false;
                self.write_key(state, &mut scratch, changes);
            }
        }
        self.keys = keys;
    }

    fn write_key(
        &self,
        state: &mut KeyState,
        scratch: &mut Vec<u8>,
        changes: &mut Vec<StateChange>,
    ) {
        let mut packed_dirty = false;
        for (index, grid) in self.plan.grids.iter().enumerate().filter(|_| !self.retractable) {
            let (shape, ring) = (grid.shape(), &mut state.rings[index]);
            if grid.packed {
                packed_dirty |= ring.take_dirty();
                continue;
            }
            let key = &state.key;
            ring.drain_dirty(shape, |ring, tile, at| {
                scratch.clear();
                write_varint(ring.events(shape, at), scratch);
                grid.layout.write(ring.seen(shape, at), scratch);
                let key = self.tile_key(key, index as u8, tile);
                changes.push(StateChange { key, value: Some(scratch.to_vec()) });
            });
        }
        if (std::mem::take(&mut state.meta_dirty) || packed_dirty)
            && let Some(latest) = state.latest.or(state.permanent)
        {
            let key = self.state_key(KIND_KEY, &state.key, &[]);
            scratch.clear();
            self.write_key_entry(state, latest, scratch);
            changes.push(StateChange { key, value: Some(scratch.to_vec()) });
        }
    }

    fn write_key_entry(&self, state: &KeyState, latest: i64, value: &mut Vec<u8>) {
        value.extend_from_slice(&flipped(latest));
        if self.plan.foretells {
            value.extend_from_slice(&flipped(state.told_at));
            value.extend_from_slice(&flipped(state.wake));
            value.push(u8::from(state.told_all));
        }
        write_varint(state.events.recent().len() as u64, value);
        for (order, cells) in state.events.recent() {
            value.extend_from_slice(&order_bytes(order));
            write_varint(cells.len() as u64, value);
            value.extend_from_slice(cells);
        }
        let packed = |grid: &&Grid| grid.packed && !self.retractable;
        for (ring, grid) in
            state.rings.iter().zip(&self.plan.grids).filter(|(_, grid)| packed(grid))
        {
            let shape = grid.shape();
            write_varint(ring.len() as u64, value);
            let mut before = 0;
            for at in 0..ring.len() {
                let tile = ring.tile(shape, at);
                write_signed(i128::from(tile) - i128::from(before), value);
                before = tile;
                write_varint(ring.events(shape, at), value);
                grid.layout.write(ring.seen(shape, at), value);
            }
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
                self.restore_tile(key, usize::from(suffix[0]), tile, bytes)?;
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
        if self.plan.foretells {
            (state.told_at, state.wake) = (unflipped(take(bytes)?), unflipped(take(bytes)?));
            let [told_all] = take(bytes)?;
            state.told_all = told_all == 1;
        }
        for _ in 0..read_varint(bytes)? {
            let order = read_order(bytes)?;
            let length = usize::try_from(read_varint(bytes)?).map_err(|_| BadAccumulator)?;
            let (cells, rest) = bytes.split_at_checked(length).ok_or(BadAccumulator)?;
            *bytes = rest;
            state.events.keep_recent(order, cells, keep);
        }
        for index in 0..self.plan.grids.len() {
            if self.plan.grids[index].packed && !retractable {
                let mut before = 0;
                for _ in 0..read_varint(bytes)? {
                    let tile = read_signed(bytes)?.checked_add(i128::from(before));
                    let tile = tile.and_then(|tile| i64::try_from(tile).ok());
                    before = tile.ok_or(BadAccumulator)?;
                    self.restore_tile(key, index, before, bytes)?;
                }
            }
        }
        Ok(())
    }

    fn restore_tile(
        &mut self,
        key: &[u8],
        index: usize,
        tile: i64,
        bytes: &mut &[u8],
    ) -> Result<(), BadAccumulator> {
        let id = self.intern(key);
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

    /// Folds restored tiles into the windows that they were in when their key was last settled.
    pub(super) fn fill_totals(&mut self) {
        for (id, state) in self.keys.iter_mut().enumerate() {
            let Some(state) = state else { continue };
            state.settled = if self.plan.foretells { state.told_at } else { self.now };
            for (index, grid) in self.plan.grids.iter().enumerate() {
                let shape = grid.shape();
                for window in &grid.windows {
                    let limit = grid.limit_at(state.settled, window);
                    let (mut totals, rings) = state.totals(window, shape);
                    let ring = &rings[index];
                    let start = ring.up_to(shape, limit);
                    for part in ring.parts(shape, start..ring.len()) {
                        grid.layout.merge(&mut totals, part);
                    }
                    if start < ring.len() {
                        let leave = grid.leave(ring.tile(shape, start), window);
                        let ring = &mut state.rings[index];
                        ring.next_leave = ring.next_leave.min(leave);
                        state.next_leave = state.next_leave.min(leave);
                    }
                }
            }
            if !self.plan.foretells {
                state.wake = state.next_leave;
            }
            state.queued = state.wake;
            self.wheel.push(state.wake, id as u32);
        }
    }
}
