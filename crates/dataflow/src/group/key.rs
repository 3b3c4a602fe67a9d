//! The state of one key.
//!
//! Does not know the other keys, nor when time moves.

use std::collections::BTreeMap;
use std::ops::Bound;

use falaj_event::{EventOrder, EventTime, KeyBytes, LogTime};
use smallvec::SmallVec;

use crate::aggregate::{Object, Slots};
use crate::group::plan::{Compiled, Window};
use crate::group::ring::{Ring, Shape};

/// The wanted cells of an event, in canonical encoding.
pub(crate) type Cells = Box<[u8]>;

/// Events that a key keeps.
#[derive(Clone, Debug, Default)]
pub(crate) struct Events {
    /// Append-only keys: the latest ones, ascending.
    recent: Vec<(EventOrder, Cells)>,
    /// Retractable keys: all that may still be retracted, and how often each is there.
    all: BTreeMap<(EventOrder, Cells), u64>,
}

fn lowest_order(event_time: EventTime) -> (EventOrder, Cells) {
    let order = EventOrder { event_time, t: LogTime(0), partition: 0, offset: 0 };
    (order, Cells::default())
}

impl Events {
    /// Keeps an event among the latest `limit`; says whether anything changed.
    pub(crate) fn keep_recent(&mut self, order: EventOrder, cells: &[u8], limit: u64) -> bool {
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let at = self.recent.partition_point(|have| (&have.0, &*have.1) <= (&order, cells));
        if at == 0 && self.recent.len() >= limit {
            return false;
        }
        if self.recent.len() >= limit {
            self.recent[..at].rotate_left(1);
            self.recent[at - 1] = (order, cells.into());
        } else {
            self.recent.insert(at, (order, cells.into()));
        }
        true
    }

    /// The kept latest events, ascending.
    pub(crate) fn recent(&self) -> &[(EventOrder, Cells)] {
        &self.recent
    }

    /// Adds occurrences of a retractable event.
    pub(crate) fn insert(&mut self, order: EventOrder, cells: Cells, count: u64) {
        *self.all.entry((order, cells)).or_default() += count;
    }

    /// Takes one occurrence away; says whether there was one.
    pub(crate) fn remove(&mut self, event: &(EventOrder, Cells)) -> bool {
        let Some(have) = self.all.get_mut(event) else { return false };
        *have -= 1;
        if *have == 0 {
            self.all.remove(event);
        }
        true
    }

    /// Retractable events with event times from `start` to before `end`, ascending.
    pub(crate) fn between(
        &self,
        start: EventTime,
        end: Option<EventTime>,
    ) -> impl Iterator<Item = (&EventOrder, &[u8], u64)> {
        let end = end.map_or(Bound::Unbounded, |end| Bound::Excluded(lowest_order(end)));
        self.all
            .range((Bound::Included(lowest_order(start)), end))
            .map(|((order, cells), count)| (order, cells.as_ref(), *count))
    }

    /// The earliest retractable event.
    pub(crate) fn first(&self) -> Option<EventOrder> {
        self.all.first_key_value().map(|((order, _), _)| *order)
    }

    /// Forgets the earliest retractable event.
    pub(crate) fn forget_first(&mut self) {
        self.all.pop_first();
    }

    /// The latest retractable event's time.
    pub(crate) fn last_time(&self) -> Option<EventTime> {
        self.all.last_key_value().map(|((order, _), _)| order.event_time)
    }

    /// Calls `visit` with the latest `limit` events, the latest first.
    pub(crate) fn latest(&self, limit: u64, mut visit: impl FnMut(&EventOrder, &[u8])) {
        let recent = self.recent.iter().rev().map(|(order, cells)| (order, cells, 1));
        let all = self.all.iter().rev().map(|((order, cells), count)| (order, cells, *count));
        let mut left = limit;
        for (order, cells, count) in recent.chain(all) {
            for _ in 0..count.min(left) {
                visit(order, cells);
            }
            left = left.saturating_sub(count);
            if left == 0 {
                break;
            }
        }
    }

    /// An estimate of the heap bytes.
    pub(crate) fn bytes(&self) -> usize {
        let recent: usize = self.recent.iter().map(|event| event.1.len() + 16).sum();
        let all: usize = self.all.keys().map(|event| event.1.len() + 96).sum();
        recent + all + self.recent.capacity() * size_of::<(EventOrder, Cells)>()
    }
}

/// All that is known of one key.
#[derive(Clone, Debug)]
pub(crate) struct KeyState {
    pub(crate) key: KeyBytes,
    /// One per grid.
    pub(crate) rings: SmallVec<[Ring; 3]>,
    /// Running totals of all windows as of `settled`; three windows of five aggregates lie in place.
    pub(crate) totals: SmallVec<[u64; 24]>,
    pub(crate) objects: Box<[Object]>,
    pub(crate) events: Events,
    /// The next time at which something of this key leaves; `i64::MAX` for never.
    pub(crate) next_leave: i64,
    /// What had left by this time has been taken out.
    pub(crate) settled: i64,
    /// When the key has to be looked at, even if no event comes; `i64::MAX` for never.
    pub(crate) wake: i64,
    /// The earliest entry of the key in the timer wheel; `i64::MAX` when there is none.
    pub(crate) queued: i64,
    /// The `T` of the row given out last; `i64::MIN` before the first. Of views that foretell.
    pub(crate) told_at: i64,
    /// That row foretells everything that time will do: the next look is to tidy up.
    pub(crate) told_all: bool,
    /// The event time of the latest event.
    pub(crate) latest: Option<EventTime>,
    /// The greatest event time past the horizon: such events can no longer be retracted.
    pub(crate) permanent: Option<EventTime>,
    /// In the list of touched keys.
    pub(crate) touched: bool,
    /// In the list of dirty keys.
    pub(crate) dirty: bool,
    /// What is stored of the key itself has changed.
    pub(crate) meta_dirty: bool,
    /// A row has been given out (or was, before a restart).
    pub(crate) emitted: bool,
}

impl KeyState {
    pub(crate) fn new(key: &[u8], plan: &Compiled) -> Self {
        Self {
            key: key.into(),
            rings: plan.grids.iter().map(|_| Ring::default()).collect(),
            totals: SmallVec::from_slice(&plan.empty_totals),
            objects: (0..plan.totals.objects).map(|_| None).collect(),
            events: Events::default(),
            next_leave: i64::MAX,
            settled: i64::MIN,
            wake: i64::MAX,
            queued: i64::MAX,
            told_at: i64::MIN,
            told_all: false,
            latest: None,
            permanent: None,
            touched: false,
            dirty: false,
            meta_dirty: false,
            emitted: false,
        }
    }

    /// The running totals of a window, and the rings beside them.
    pub(crate) fn totals(&mut self, window: &Window, shape: Shape) -> (Slots<'_>, &mut [Ring]) {
        let slots = Slots {
            words: &mut self.totals[window.words_at..window.words_at + shape.words],
            objects: &mut self.objects[window.objects_at..window.objects_at + shape.objects],
        };
        (slots, &mut self.rings)
    }

    /// The running totals of a window.
    pub(crate) fn seen_totals(&self, window: &Window, shape: Shape) -> crate::aggregate::Seen<'_> {
        crate::aggregate::Seen {
            words: &self.totals[window.words_at..window.words_at + shape.words],
            objects: &self.objects[window.objects_at..window.objects_at + shape.objects],
        }
    }

    /// Reads a word of each part of the struct.
    #[inline]
    pub(crate) fn touch_self(&self) -> u64 {
        const WORDS_PER_LINE: usize = 8;
        let key = self.key.first().copied().map_or(0, u64::from);
        let totals = self.totals.iter().step_by(WORDS_PER_LINE);
        let totals = totals.fold(0, |sum: u64, word| sum.wrapping_add(*word));
        let rings = self.rings.iter().fold(0, |sum: i64, ring| sum.wrapping_add(ring.next_leave));
        key.wrapping_add(totals)
            .wrapping_add(rings.cast_unsigned())
            .wrapping_add(self.next_leave.wrapping_add(self.wake).cast_unsigned())
            .wrapping_add(u64::from(self.touched))
    }

    /// Reads some words of the first and of the last tile of each ring.
    #[inline]
    pub(crate) fn touch_tiles(&self, plan: &Compiled) -> u64 {
        let mut words = 0;
        for (ring, grid) in self.rings.iter().zip(&plan.grids) {
            words ^= ring.touch(grid.shape());
        }
        words
    }

    /// An estimate of the bytes held, the struct included.
    pub(crate) fn bytes(&self) -> usize {
        let apart =
            if self.rings.spilled() { self.rings.capacity() * size_of::<Ring>() } else { 0 };
        let rings: usize = self.rings.iter().map(|ring| ring.bytes()).sum();
        let objects: usize = self.objects.iter().flatten().map(|heap| heap.bytes()).sum();
        size_of::<Self>()
            + if self.key.spilled() { self.key.len() } else { 0 }
            + apart
            + rings
            + if self.totals.spilled() { self.totals.len() * 8 } else { 0 }
            + self.objects.len() * size_of::<Object>()
            + objects
            + self.events.bytes()
    }
}
