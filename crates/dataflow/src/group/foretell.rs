//! What time will make of a row that has just been given out.
//!
//! Why it exists: most changes of a window are events that leave. Where only readers depend on a view,
//! such changes are worked out when the row is written, not when they come, so the key is not looked at
//! and nothing is written when they do. How far ahead is a guess that costs time if it is wrong, never
//! correctness: a key that got events quickly is likely to get another one soon, and then all that was
//! foretold beyond it is in vain.
//!
//! Does not know how a row is stored or read.

use falaj_event::{EventTime, key_hash};

use crate::aggregate::{Object, Slots};
use crate::group::key::KeyState;
use crate::group::plan::Compiled;
use crate::values::{ValueList, Values};

/// Changes that a row foretells at most.
const MOST_FORETOLD: usize = 4;
/// How many times as far ahead a row looks as the row before it lies back.
const PATIENCE: i64 = 8;

/// Space that is used again and again.
#[derive(Debug, Default)]
pub(super) struct Ahead {
    words: Vec<u64>,
    objects: Vec<Object>,
    stale: Vec<usize>,
    edges: Vec<Edge>,
    changed: Vec<usize>,
}

/// The old end of a window on its way through the tiles.
#[derive(Clone, Copy, Debug)]
struct Edge {
    grid: usize,
    window: usize,
    /// The tile that leaves next, as an index into the ring.
    tile: usize,
    /// When it leaves.
    leave: i64,
}

impl KeyState {
    /// Calls `later` with the values that the row has from the next change on, and which of them are
    /// new, and so on, and settles when the key has to be looked at again. `values` are the row's as of `now`.
    pub(super) fn foretell(
        &mut self,
        plan: &Compiled,
        now: EventTime,
        ahead: &mut Ahead,
        values: &mut ValueList,
        mut later: impl FnMut(EventTime, Values<'_>, &[usize]),
    ) {
        let horizon = match self.told_at {
            i64::MIN => i64::MAX,
            before => now.saturating_add(now.saturating_sub(before).saturating_mul(PATIENCE)),
        };
        self.told_at = now;
        self.meta_dirty = true;
        self.start(plan, ahead);
        let (mut last, mut told) = (now, 0);
        let next = loop {
            let next = ahead.edges.iter().map(|edge| edge.leave).min().unwrap_or(i64::MAX);
            if next == i64::MAX || next > horizon || told == MOST_FORETOLD {
                break next;
            }
            ahead.changed.clear();
            for index in 0..ahead.edges.len() {
                if ahead.edges[index].leave == next {
                    self.cross(plan, ahead, index, values);
                }
            }
            ahead.changed.sort_unstable();
            later(next, values.all(), &ahead.changed);
            (last, told) = (next, told + 1);
        };
        self.told_all = next == i64::MAX;
        self.wake = match (self.told_all, told) {
            (true, 0) => i64::MAX,
            // Tiles that have left are dropped some time after.
            (true, _) => last.saturating_add(self.share_of(TIDY_WITHIN_US)),
            // Many keys have a change at the same moment: rows are given again some time before.
            (false, _) => next - self.share_of((next - last) / 2),
        };
    }

    /// A part of a span that differs from key to key.
    fn share_of(&self, span: i64) -> i64 {
        let part = u128::from(key_hash(&self.key)) * u128::from(span.max(0).cast_unsigned());
        (part >> 64) as i64
    }

    /// Puts the edges where they are as of `settled`, and copies the totals.
    fn start(&self, plan: &Compiled, ahead: &mut Ahead) {
        ahead.words.clear();
        ahead.words.extend_from_slice(&self.totals);
        ahead.objects.clear();
        ahead.objects.extend(self.objects.iter().cloned());
        ahead.edges.clear();
        for (grid_index, grid) in plan.grids.iter().enumerate() {
            let (ring, shape) = (&self.rings[grid_index], grid.shape());
            for (window_index, window) in grid.windows.iter().enumerate() {
                let tile = ring.up_to(shape, window.limit);
                if tile < ring.len() {
                    let leave = grid.leave(ring.tile(shape, tile), window);
                    ahead.edges.push(Edge { grid: grid_index, window: window_index, tile, leave });
                }
            }
        }
    }

    /// Takes the next tile out of one window, and says what its values are then.
    fn cross(&self, plan: &Compiled, ahead: &mut Ahead, index: usize, values: &mut ValueList) {
        let Ahead { words, objects, stale, edges, changed } = ahead;
        let edge = &mut edges[index];
        let (grid, ring) = (&plan.grids[edge.grid], &self.rings[edge.grid]);
        let (shape, window) = (grid.shape(), &grid.windows[edge.window]);
        let mut totals = Slots {
            words: &mut words[window.words_at..window.words_at + shape.words],
            objects: &mut objects[window.objects_at..window.objects_at + shape.objects],
        };
        stale.clear();
        grid.layout.subtract(&mut totals, ring.seen(shape, edge.tile), stale);
        edge.tile += 1;
        let live = edge.tile..ring.len();
        for op in stale.iter() {
            grid.layout.refold(*op, &mut totals, ring.parts(shape, live.clone()));
        }
        edge.leave = match live.is_empty() {
            true => i64::MAX,
            false => grid.leave(ring.tile(shape, edge.tile), window),
        };
        for call in &window.calls {
            let (at, output) = (plan.bare.len() + call, &plan.calls[*call].1);
            if values.replace_with(at, |out| output.encode(totals.seen(), out)) {
                changed.push(at);
            }
        }
    }
}

/// Keys at rest drop their last tiles within this time after those left. Microseconds.
const TIDY_WITHIN_US: i64 = 3_600_000_000;
