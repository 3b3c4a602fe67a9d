//! Events entering and leaving: single events given by the driver, and tiles that time takes out.
//!
//! Does not know rows or stored state.

use falaj_event::EventOrder;

use crate::aggregate::{Event, Lane, Parsed, Selector};
use crate::group::key::KeyState;
use crate::group::plan::{Compiled, Grid};
use crate::group::{GroupCore, Pending, Scratch, WARM_TOGETHER};

impl KeyState {
    /// Adds an event to the tiles and totals of every frame that it is not too late for. Returns
    /// whether it was too late for some.
    pub(super) fn add(&mut self, plan: &Compiled, event: &Event<'_>) -> bool {
        let event_time = event.order.event_time;
        let mut late = false;
        for (index, grid) in plan.grids.iter().enumerate() {
            let (shape, tile) = (grid.shape(), grid.tile_of(event_time));
            if grid.hop.is_some() && tile <= grid.gone() {
                late = true;
                continue;
            }
            let ring = &mut self.rings[index];
            let (at, made) = ring.find_or_insert(shape, tile, grid.layout.empty());
            grid.layout.add(&mut ring.slots(shape, at), event);
            ring.count(shape, at, 1, 0);
            for window in &grid.windows {
                if tile <= window.limit {
                    late = true;
                    continue;
                }
                grid.layout.add(&mut self.totals(window, shape).0, event);
                if made {
                    let leave = grid.leave(tile, window);
                    let ring = &mut self.rings[index];
                    ring.next_leave = ring.next_leave.min(leave);
                    self.next_leave = self.next_leave.min(leave);
                }
            }
        }
        late
    }

    /// Takes an event out of the tiles and totals that still hold it. It is no longer among the
    /// kept events.
    fn remove(&mut self, plan: &Compiled, event: &Event<'_>, again: &mut Scratch) {
        for (index, grid) in plan.grids.iter().enumerate() {
            let (shape, tile) = (grid.shape(), grid.tile_of(event.order.event_time));
            let Some(at) = self.rings[index].find(shape, tile) else { continue };
            let ring = &mut self.rings[index];
            if ring.count(shape, at, 0, 1) == 0 {
                ring.remove(shape, at);
            } else {
                again.stale.clear();
                let slots = &mut ring.slots(shape, at);
                grid.layout.remove(slots, event, &mut again.stale);
                self.rebuild(plan, index, at, tile, again);
            }
            for window in &grid.windows {
                if tile > window.limit {
                    again.stale.clear();
                    let (mut totals, rings) = self.totals(window, shape);
                    grid.layout.remove(&mut totals, event, &mut again.stale);
                    let ring = &rings[index];
                    let live = ring.up_to(shape, window.limit)..ring.len();
                    for op in &again.stale {
                        grid.layout.refold(*op, &mut totals, ring.parts(shape, live.clone()));
                    }
                }
            }
        }
    }

    /// Folds the stale operators of a tile anew over the events kept.
    fn rebuild(
        &mut self,
        plan: &Compiled,
        index: usize,
        at: usize,
        tile: i64,
        again: &mut Scratch,
    ) {
        let grid: &Grid = &plan.grids[index];
        if again.stale.is_empty() {
            return;
        }
        let Self { rings, events, .. } = self;
        let mut slots = rings[index].slots(grid.shape(), at);
        again.stale.iter().for_each(|op| grid.layout.reset(*op, &mut slots));
        let (start, end) = grid.span(tile);
        for (order, cells, count) in events.between(start, end) {
            if !parse_kept(&plan.selector, &plan.lanes, cells, again) {
                continue;
            }
            let event = Event { parsed: &again.parsed, cells, order };
            for _ in 0..count {
                grid.layout.readd(&again.stale, &mut slots, &event);
            }
        }
    }

    /// Takes out what has left by `now`, the time that the grids have reached, and calls `gone` with
    /// each tile that has left its longest window, and whether it was stored. Says whether any total
    /// changed.
    pub(super) fn settle(
        &mut self,
        plan: &Compiled,
        now: i64,
        stale: &mut Vec<usize>,
        mut gone: impl FnMut(usize, i64, bool),
    ) -> bool {
        let mut changed = false;
        if self.next_leave <= now {
            for (index, grid) in plan.grids.iter().enumerate() {
                if self.rings[index].next_leave > now {
                    continue;
                }
                changed |= self.settle_windows(index, grid, stale);
                let (shape, ring) = (grid.shape(), &mut self.rings[index]);
                while ring.len() > 0 && ring.tile(shape, 0) <= grid.gone() {
                    let tile = ring.tile(shape, 0);
                    let stored = ring.remove(shape, 0);
                    gone(index, tile, stored);
                }
            }
            self.next_leave =
                self.rings.iter().map(|ring| ring.next_leave).min().unwrap_or(i64::MAX);
        }
        self.settled = self.settled.max(now);
        changed
    }

    /// Takes tiles out of the totals of the windows that they have left.
    fn settle_windows(&mut self, index: usize, grid: &Grid, stale: &mut Vec<usize>) -> bool {
        let (shape, mut changed, mut next) = (grid.shape(), false, i64::MAX);
        let settled = self.settled;
        for window in &grid.windows {
            let (mut totals, rings) = self.totals(window, shape);
            let ring = &rings[index];
            let end = ring.up_to(shape, window.limit);
            if end < ring.len() {
                next = next.min(grid.leave(ring.tile(shape, end), window));
            }
            if end == 0 {
                continue;
            }
            // What had left before is out of the totals, or was too late to get into them.
            let start = ring.up_to(shape, grid.limit_at(settled, window));
            if start >= end {
                continue;
            }
            changed = true;
            stale.clear();
            for part in ring.parts(shape, start..end) {
                grid.layout.subtract(&mut totals, part, stale);
            }
            for op in stale.iter() {
                grid.layout.refold(*op, &mut totals, ring.parts(shape, end..ring.len()));
            }
        }
        self.rings[index].next_leave = next;
        changed
    }

    /// Forgets events that can no longer be retracted, and asks to be called for the next one.
    fn forget_past(&mut self, horizon_us: u64, now: i64) {
        while let Some(first) = self.events.first() {
            let end = past_horizon_at(first.event_time, horizon_us);
            if end > now {
                self.wake = self.wake.min(end);
                break;
            }
            self.make_permanent(first.event_time);
            self.events.forget_first();
        }
    }

    fn make_permanent(&mut self, event_time: i64) {
        if self.permanent.is_none_or(|have| have < event_time) {
            self.permanent = Some(event_time);
            self.meta_dirty = true;
        }
    }
}

/// When an event is past the horizon.
fn past_horizon_at(event_time: i64, horizon_us: u64) -> i64 {
    i64::try_from(i128::from(event_time) + i128::from(horizon_us)).unwrap_or(i64::MAX)
}

/// Reads the lanes' inputs of a kept event, which has been read before.
fn parse_kept(selector: &Selector, lanes: &[Lane], cells: &[u8], again: &mut Scratch) -> bool {
    let found = selector.ranges(cells, &mut again.ranges).is_some();
    again.parsed.clear();
    if found {
        again.parsed.extend(lanes.iter().map(|lane| lane.parse(cells, &again.ranges)));
    }
    found
}

impl GroupCore {
    /// Enters the event whose inputs have just been read.
    pub(super) fn insert(&mut self, id: u32, order: &EventOrder, cells: &[u8]) {
        self.settle(id);
        let Some(state) = self.keys[id as usize].as_mut() else { return };
        let parsed: &[Parsed] = &self.scratch.parsed;
        let late = state.add(&self.plan, &Event { parsed, cells, order });
        self.late += u64::from(late);
        if !self.retractable {
            if self.plan.keep > 0 && state.events.keep_recent(*order, cells, self.plan.keep) {
                state.meta_dirty = true;
            }
            if state.latest.is_none_or(|latest| latest < order.event_time) {
                state.latest = Some(order.event_time);
                state.meta_dirty = true;
            }
        }
        if !self.plan.foretells && state.next_leave < state.wake {
            state.wake = state.next_leave;
            self.queue(id);
        }
        self.touch(id);
        self.mark_dirty(id);
    }

    /// Takes out of a key what has left by the time reached; says whether any total changed.
    pub(super) fn settle(&mut self, id: u32) -> bool {
        let Some(state) = self.keys[id as usize].as_mut() else { return false };
        let (plan, left, mut shrunk) = (&self.plan, &mut self.left, false);
        let stored_apart = !self.retractable;
        let changed =
            state.settle(plan, self.now, &mut self.scratch.stale, |grid, tile, stored| {
                if plan.grids[grid].packed {
                    shrunk = true;
                } else if stored && stored_apart {
                    left.push((id, grid as u8, tile));
                }
            });
        if shrunk {
            state.meta_dirty |= stored_apart;
            self.mark_dirty(id);
        }
        changed
    }

    /// Sees to it that the wheel has the key for its next look.
    pub(super) fn queue(&mut self, id: u32) {
        if let Some(state) = self.keys[id as usize].as_mut().filter(|s| s.wake < s.queued) {
            state.queued = state.wake;
            self.wheel.push(state.wake, id);
        }
    }

    pub(super) fn touch(&mut self, id: u32) {
        if let Some(state) = self.keys[id as usize].as_mut().filter(|state| !state.touched) {
            state.touched = true;
            self.touched.push(id);
        }
    }

    pub(super) fn mark_dirty(&mut self, id: u32) {
        if let Some(state) = self.keys[id as usize].as_mut().filter(|state| !state.dirty) {
            state.dirty = true;
            self.dirty.push(id);
        }
    }

    /// Looks at the keys whose time has come.
    pub(super) fn wake(&mut self) {
        let mut due = std::mem::take(&mut self.scratch.due);
        self.wheel.take(self.now, &mut due);
        let mut warm = std::mem::take(&mut self.scratch.warm);
        for (index, &(time, id)) in due.iter().enumerate() {
            if index % WARM_TOGETHER == 0 {
                warm.clear();
                warm.extend(due[index..].iter().take(WARM_TOGETHER).map(|(_, id)| *id));
                self.warm(&warm);
            }
            let Some(state) = self.keys[id as usize].as_mut() else { continue };
            // Another entry of the key may have come first.
            if state.queued != time {
                continue;
            }
            state.queued = i64::MAX;
            if state.wake > self.now {
                self.queue(id);
            } else if self.plan.foretells && !state.told_all {
                self.touch(id);
            } else {
                self.expire(id);
            }
        }
        due.clear();
        (self.scratch.due, self.scratch.warm) = (due, warm);
    }

    fn expire(&mut self, id: u32) {
        let changed = self.settle(id);
        let horizon = self.horizon_us.filter(|_| self.retractable);
        let Some(state) = self.keys[id as usize].as_mut() else { return };
        state.wake = if self.plan.foretells { i64::MAX } else { state.next_leave };
        if let Some(horizon_us) = horizon {
            state.forget_past(horizon_us, self.now);
        }
        let meta_dirty = state.meta_dirty;
        self.queue(id);
        if changed && !self.plan.foretells {
            self.touch(id);
        }
        if meta_dirty {
            self.mark_dirty(id);
        }
    }

    /// Enters and retracts what was given for a retractable view, consolidated: what was added and
    /// taken back before it became visible never was.
    pub(super) fn apply_pending(&mut self) {
        let mut pending = std::mem::take(&mut self.pending);
        pending.sort_unstable();
        let mut rest = pending.into_iter().peekable();
        while let Some(mut change) = rest.next() {
            while let Some(same) = rest.next_if(|next| {
                next.order == change.order && next.cells == change.cells && next.key == change.key
            }) {
                change.diff += same.diff;
            }
            // A row that was given has been read once already.
            if change.diff != 0 && self.parse(&change.key, &change.cells).is_ok() {
                self.apply(change);
            }
        }
    }

    fn apply(&mut self, change: Pending) {
        let Pending { key, order, cells, diff } = change;
        let past = self
            .horizon_us
            .is_some_and(|horizon| past_horizon_at(order.event_time, horizon) <= self.now);
        let count = diff.unsigned_abs() as u64;
        if diff > 0 {
            let id = self.intern(&key);
            if past {
                self.late += count;
                if let Some(state) = self.keys[id as usize].as_mut() {
                    state.make_permanent(order.event_time);
                }
                self.touch(id);
                self.mark_dirty(id);
                return;
            }
            for _ in 0..count {
                self.insert(id, &order, &cells);
            }
            self.keep_retractable(id, order, cells, count);
        } else if !past {
            self.retract(&key, order, cells, count);
        }
    }

    fn keep_retractable(&mut self, id: u32, order: EventOrder, cells: Box<[u8]>, count: u64) {
        let Some(state) = self.keys[id as usize].as_mut() else { return };
        state.events.insert(order, cells, count);
        if let Some(horizon_us) = self.horizon_us {
            let end = past_horizon_at(order.event_time, horizon_us);
            if end < state.wake {
                state.wake = end;
                self.queue(id);
            }
        }
    }

    fn retract(&mut self, key: &[u8], order: EventOrder, cells: Box<[u8]>, count: u64) {
        let id = self.find(key);
        if let Some(id) = id {
            self.settle(id);
        }
        let state = id.and_then(|id| Some((id, self.keys[id as usize].as_mut()?)));
        let Some((id, state)) = state else {
            self.invalid_retractions += count;
            return;
        };
        let parsed = std::mem::take(&mut self.scratch.parsed);
        let (row, mut taken) = ((order, cells), 0);
        // One at a time: a tile that is folded anew is folded over exactly the events it counts.
        while taken < count && state.events.remove(&row) {
            let event = Event { parsed: &parsed, cells: &row.1, order: &row.0 };
            state.remove(&self.plan, &event, &mut self.scratch);
            taken += 1;
        }
        self.invalid_retractions += count - taken;
        self.scratch.parsed = parsed;
        if taken > 0 {
            self.touch(id);
        }
    }
}
