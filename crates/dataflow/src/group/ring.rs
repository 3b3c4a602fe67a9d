//! The live tiles of one key on one hop grid, ascending, in one flat allocation.
//!
//! Does not know time or windows.

use std::ops::Range;

use crate::aggregate::{Object, Seen, Slots};

/// Words before a tile's slots: its number, then its marks and event count.
const HEADER: usize = 2;
const DIRTY: u64 = 1;
const STORED: u64 = 2;
const ONE_EVENT: u64 = 4;

/// How long the records of a ring are: slot words and objects per tile.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    pub(crate) words: usize,
    pub(crate) objects: usize,
}

impl Shape {
    fn stride(self) -> usize {
        HEADER + self.words
    }
}

/// Tiles in order. Leaving tiles are dropped at the front without moving the rest at once.
#[derive(Clone, Debug)]
pub(crate) struct Ring {
    /// When the next tile leaves a window; `i64::MAX` for never.
    pub(crate) next_leave: i64,
    records: Vec<u64>,
    objects: Vec<Object>,
    /// Records already dropped at the front of the arrays.
    head: usize,
    live: usize,
    /// No dirty tile is below this one.
    dirty_from: Option<i64>,
}

impl Default for Ring {
    fn default() -> Self {
        Self {
            next_leave: i64::MAX,
            records: Vec::new(),
            objects: Vec::new(),
            head: 0,
            live: 0,
            dirty_from: None,
        }
    }
}

impl Ring {
    /// Number of live tiles.
    pub(crate) fn len(&self) -> usize {
        self.live
    }

    fn start(&self, shape: Shape, index: usize) -> usize {
        (self.head + index) * shape.stride()
    }

    /// The number of the tile at `index`.
    pub(crate) fn tile(&self, shape: Shape, index: usize) -> i64 {
        self.records[self.start(shape, index)].cast_signed()
    }

    /// Reads the ends of the first and of the last tile, which may lie across lines of the cache.
    #[inline]
    pub(crate) fn touch(&self, shape: Shape) -> u64 {
        let (stride, first) = (shape.stride(), self.head * shape.stride());
        let end = self.records.len();
        // None waits for another.
        let word = |at: usize| self.records.get(at).copied().unwrap_or_default();
        (word(first) ^ word(first + stride - 1))
            ^ (word(end.wrapping_sub(stride)) ^ word(end.wrapping_sub(1)))
    }

    /// How many tiles have numbers up to `tile`.
    pub(crate) fn up_to(&self, shape: Shape, tile: i64) -> usize {
        let len = self.len();
        // Most questions are about the front: look there first, in growing strides.
        let (mut low, mut high) = (0, 1);
        while high <= len && self.tile(shape, high - 1) <= tile {
            (low, high) = (high, high * 2);
        }
        high = high.min(len + 1) - 1;
        high = high.max(low);
        while low < high {
            let middle = low.midpoint(high);
            if self.tile(shape, middle) <= tile { low = middle + 1 } else { high = middle }
        }
        low
    }

    /// The index of `tile`, if it lives.
    pub(crate) fn find(&self, shape: Shape, tile: i64) -> Option<usize> {
        let index = self.up_to(shape, tile).checked_sub(1)?;
        (self.tile(shape, index) == tile).then_some(index)
    }

    /// The index of `tile`, made with slots `empty` if it did not live; and whether it was made.
    pub(crate) fn find_or_insert(
        &mut self,
        shape: Shape,
        tile: i64,
        empty: &[u64],
    ) -> (usize, bool) {
        let len = self.len();
        let newest = if len == 0 { None } else { Some(self.tile(shape, len - 1)) };
        let index = match newest {
            Some(newest) if newest == tile => return (len - 1, false),
            Some(newest) if newest > tile => self.up_to(shape, tile),
            _ => len,
        };
        if index > 0 && index < len && self.tile(shape, index - 1) == tile {
            return (index - 1, false);
        }
        self.reserve(shape);
        let at = self.start(shape, index);
        let old_end = self.records.len();
        self.records.extend([tile.cast_unsigned(), 0]);
        self.records.extend_from_slice(empty);
        self.objects.resize_with(self.objects.len() + shape.objects, || None);
        self.live += 1;
        if at < old_end {
            self.records[at..].rotate_right(shape.stride());
            let object = (self.head + index) * shape.objects;
            self.objects[object..].rotate_right(shape.objects);
        }
        (index, true)
    }

    /// Grows by half: doubling would leave half of the memory of all rings unused.
    fn reserve(&mut self, shape: Shape) {
        if self.records.len() + shape.stride() > self.records.capacity() {
            if self.head * 3 >= self.live {
                self.compact(shape);
            }
            let tiles = self.len() / 2 + 1;
            self.records.reserve_exact(tiles * shape.stride());
            self.objects.reserve_exact(tiles * shape.objects);
        }
    }

    fn compact(&mut self, shape: Shape) {
        self.records.drain(..self.head * shape.stride());
        self.objects.drain(..self.head * shape.objects);
        self.head = 0;
    }

    /// The slots of the tile at `index`.
    pub(crate) fn seen(&self, shape: Shape, index: usize) -> Seen<'_> {
        let at = self.start(shape, index) + HEADER;
        let object = (self.head + index) * shape.objects;
        Seen {
            words: &self.records[at..at + shape.words],
            objects: &self.objects[object..object + shape.objects],
        }
    }

    /// The slots of the tiles in `range`, in order of time.
    pub(crate) fn parts(
        &self,
        shape: Shape,
        range: Range<usize>,
    ) -> impl DoubleEndedIterator<Item = Seen<'_>> {
        range.map(move |index| self.seen(shape, index))
    }

    /// The slots of the tile at `index`, to change.
    pub(crate) fn slots(&mut self, shape: Shape, index: usize) -> Slots<'_> {
        let at = self.start(shape, index) + HEADER;
        let object = (self.head + index) * shape.objects;
        Slots {
            words: &mut self.records[at..at + shape.words],
            objects: &mut self.objects[object..object + shape.objects],
        }
    }

    /// Counts events in or out of the tile at `index`, marks it dirty, and says how many it has.
    pub(crate) fn count(&mut self, shape: Shape, index: usize, add: u64, take: u64) -> u64 {
        let tile = self.tile(shape, index);
        let at = self.start(shape, index) + 1;
        let mark = &mut self.records[at];
        *mark = (*mark + add * ONE_EVENT).saturating_sub(take * ONE_EVENT) | DIRTY;
        self.dirty_from = Some(self.dirty_from.map_or(tile, |from| from.min(tile)));
        *mark / ONE_EVENT
    }

    /// Events in the tile at `index`.
    pub(crate) fn events(&self, shape: Shape, index: usize) -> u64 {
        self.records[self.start(shape, index) + 1] / ONE_EVENT
    }

    /// Sets the marks of a tile that was read from the state: `events` in it, stored, clean.
    pub(crate) fn mark_restored(&mut self, shape: Shape, index: usize, events: u64) {
        let at = self.start(shape, index) + 1;
        self.records[at] = (events * ONE_EVENT) | STORED;
    }

    /// Removes the tile at `index`; says whether the state has it.
    pub(crate) fn remove(&mut self, shape: Shape, index: usize) -> bool {
        let at = self.start(shape, index);
        let stored = self.records[at + 1] & STORED != 0;
        self.live -= 1;
        if index == 0 {
            let object = self.head * shape.objects;
            self.objects[object..object + shape.objects].fill_with(|| None);
            self.head += 1;
            if self.head > self.live {
                self.compact(shape);
                self.shrink(shape);
            }
        } else {
            self.records.drain(at..at + shape.stride());
            let object = (self.head + index) * shape.objects;
            self.objects.drain(object..object + shape.objects);
        }
        stored
    }

    fn shrink(&mut self, shape: Shape) {
        if self.records.capacity() > 3 * (self.records.len() + shape.stride()) {
            self.records.shrink_to(self.records.len() + shape.stride());
            self.objects.shrink_to(self.objects.len() + shape.objects);
        }
    }

    /// Whether any tile is dirty; afterwards none counts as dirty.
    pub(crate) fn take_dirty(&mut self) -> bool {
        self.dirty_from.take().is_some()
    }

    /// Calls `write` with every dirty tile and its index, and marks it clean and stored.
    pub(crate) fn drain_dirty(&mut self, shape: Shape, mut write: impl FnMut(&Self, i64, usize)) {
        let Some(from) = self.dirty_from.take() else { return };
        for index in self.up_to(shape, from.saturating_sub(1))..self.len() {
            let at = self.start(shape, index) + 1;
            if self.records[at] & DIRTY != 0 {
                self.records[at] = (self.records[at] & !DIRTY) | STORED;
                let tile = self.tile(shape, index);
                write(self, tile, index);
            }
        }
    }

    /// Heap bytes, objects' contents estimated.
    pub(crate) fn bytes(&self) -> usize {
        let objects: usize = self.objects.iter().flatten().map(|heap| heap.bytes()).sum();
        self.records.capacity() * 8 + self.objects.capacity() * size_of::<Object>() + objects
    }
}
