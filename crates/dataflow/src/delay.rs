//! Events that wait: a future-dated event enters the dataflow at the first `T` that reaches its
//! event time, and an event that a join still needs is kept until it leaves every window.
//!
//! Why it exists: an arrangement touches every update that it holds back, at every step; an ordered
//! map of what waits costs nothing until its time comes. It does not know what rows mean.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::atomic::Ordering;

use falaj_event::{EventOrder, LogTime, StateChange, logical_partition};

use crate::context::{Context, Logic, Route, Tick, each_tick};
use crate::error::EngineError;
use crate::row::{Bytes, Row, Rows, pack_order, pack_pair, unpack_order, unpack_pair};
use crate::state::{Restored, Space};

/// Rows held back or kept, in event order.
pub(crate) struct Held {
    rows: BTreeMap<EventOrder, (Bytes, Bytes)>,
    keep: Keep,
    /// Where the rows are stored; `None` when their source stores them.
    space: Option<Space>,
    /// Rows that came since the last checkpoint.
    fresh: BTreeSet<EventOrder>,
    /// Stored rows that left since the last checkpoint.
    gone: Vec<StateChange>,
    metrics: Rc<Context>,
}

/// What happens to rows whose time has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Keep {
    /// They are passed on and forgotten.
    Waiting,
    /// They are passed on and kept, for ever or until they are this old (microseconds), when they
    /// are retracted.
    Live(Option<u64>),
}

impl Held {
    /// What waits and lives without being stored.
    pub(crate) fn unstored(keep: Keep, context: &Rc<Context>) -> Self {
        Self {
            rows: BTreeMap::new(),
            keep,
            space: None,
            fresh: BTreeSet::new(),
            gone: Vec::new(),
            metrics: Rc::clone(context),
        }
    }

    /// The rows of a checkpoint.
    pub(crate) fn restore(
        space: Space,
        keep: Keep,
        restored: &mut Restored,
        context: &Rc<Context>,
    ) -> Result<Self, EngineError> {
        let mut held = Self::unstored(keep, context);
        for (key, value) in restored.take(&space) {
            let order = unpack_order(space.own(&key)).filter(|(_, rest)| rest.is_empty());
            let row = unpack_pair(&value);
            let (Some((order, _)), Some((row_key, cells))) = (order, row) else {
                return Err(EngineError::state(&key, "not an event that waits"));
            };
            held.rows.insert(order, (Bytes::from_slice(row_key), Bytes::from_slice(cells)));
        }
        held.space = Some(space);
        Ok(held)
    }

    /// Passes on what was held before this epoch and changes at it; then [`Self::admits`] is asked
    /// about the rows that arrive at it.
    pub(crate) fn turn(&mut self, tick: &Tick, mut pass: impl FnMut(Row, isize)) {
        let now = tick.now();
        let before = tick.previous.map(|t| i64::try_from(t).unwrap_or(i64::MAX));
        if tick.hydrate {
            self.hydrate(now, &mut pass);
        } else {
            self.retire(now, before, &mut pass);
            self.release(now, before, &mut pass);
        }
    }

    /// Takes note of a row that arrives; whether it changes at this epoch.
    pub(crate) fn admits(&mut self, tick: &Tick, row: &Row, diff: isize) -> bool {
        let waits = row.order.event_time > tick.now();
        if waits || self.keep != Keep::Waiting {
            self.hold(row, diff, waits);
        }
        !waits
    }

    fn hold(&mut self, row: &Row, diff: isize, waits: bool) {
        if diff > 0 {
            self.rows.insert(row.order, (row.key.clone(), row.cells.clone()));
            self.fresh.insert(row.order);
            self.count_waiting(i64::from(waits));
        } else if let Some((key, _)) = self.rows.remove(&row.order) {
            self.forget(row.order, &key);
            self.count_waiting(-i64::from(waits));
        }
    }

    /// Retracts rows that no window can hold any more. A row that came at the last epoch or before
    /// has been passed on, so its key has been seen.
    fn retire(&mut self, now: i64, before: Option<i64>, pass: &mut impl FnMut(Row, isize)) {
        let (Keep::Live(Some(horizon)), Some(before)) = (self.keep, before) else { return };
        let horizon = i64::try_from(horizon).unwrap_or(i64::MAX);
        while let Some(entry) = self.rows.first_entry() {
            let order = *entry.key();
            if order.event_time > before || order.event_time.saturating_add(horizon) > now {
                break;
            }
            let (key, cells) = entry.remove();
            self.forget(order, &key);
            pass(Row { key, order, cells }, -1);
        }
    }

    /// Passes on the rows whose event time has come since the last epoch.
    fn release(&mut self, now: i64, before: Option<i64>, pass: &mut impl FnMut(Row, isize)) {
        let first = |event_time| EventOrder { event_time, t: LogTime(0), partition: 0, offset: 0 };
        let from = first(before.map_or(i64::MIN, |before| before.saturating_add(1)));
        let last = EventOrder {
            event_time: now,
            t: LogTime(u64::MAX),
            partition: u32::MAX,
            offset: u64::MAX,
        };
        if from > last {
            return;
        }
        let due: Vec<EventOrder> = self.rows.range(from..=last).map(|(order, _)| *order).collect();
        self.count_waiting(-i64::try_from(due.len()).unwrap_or(i64::MAX));
        for order in due {
            if self.keep == Keep::Waiting {
                if let Some((key, cells)) = self.rows.remove(&order) {
                    self.forget(order, &key);
                    pass(Row { key, order, cells }, 1);
                }
            } else if let Some((key, cells)) = self.rows.get(&order) {
                pass(Row { key: key.clone(), order, cells: cells.clone() }, 1);
            }
        }
    }

    /// Passes on again what had been passed on and was kept.
    fn hydrate(&mut self, now: i64, pass: &mut impl FnMut(Row, isize)) {
        let mut waiting = 0;
        for (order, (key, cells)) in &self.rows {
            if order.event_time <= now {
                pass(Row { key: key.clone(), order: *order, cells: cells.clone() }, 1);
            } else {
                waiting += 1;
            }
        }
        self.count_waiting(waiting);
    }

    fn forget(&mut self, order: EventOrder, key: &[u8]) {
        if !self.fresh.remove(&order)
            && let Some(space) = &self.space
        {
            let (partition, own) = place(&order, key);
            self.gone.push(space.change(partition, &own, None));
        }
    }

    fn count_waiting(&self, by: i64) {
        if by != 0 {
            self.metrics.metrics.waiting.fetch_add(by, Ordering::Relaxed);
        }
    }

    /// What changed since the last call.
    pub(crate) fn checkpoint(&mut self) -> Vec<StateChange> {
        let fresh = std::mem::take(&mut self.fresh);
        let mut changes = std::mem::take(&mut self.gone);
        if let Some(space) = &self.space {
            changes.extend(fresh.into_iter().filter_map(|order| {
                let (key, cells) = self.rows.get(&order)?;
                let (partition, own) = place(&order, key);
                let mut value = Vec::new();
                pack_pair(key, cells, &mut value);
                Some(space.change(partition, &own, Some(value)))
            }));
        }
        changes
    }
}

/// Where a held row is stored: with its key, or anywhere when it has none yet.
fn place(order: &EventOrder, key: &[u8]) -> (u8, [u8; crate::row::ORDER_BYTES]) {
    let own = pack_order(order);
    let partition = logical_partition(if key.is_empty() { &own } else { key });
    (partition, own)
}

/// Holds rows back until their event time comes, on the worker that they are on.
pub(crate) fn delay_until<'scope>(
    rows: Rows<'scope>,
    name: &str,
    mut held: Held,
    context: &Rc<Context>,
) -> Rows<'scope> {
    let shared = Rc::clone(context);
    let logic: Logic = Box::new(move |tick, rows, out| {
        held.turn(tick, |row, diff| out.push((row, tick.t, diff)));
        for (row, diff) in rows {
            if held.admits(tick, &row, diff) {
                out.push((row, tick.t, diff));
            }
        }
        if tick.checkpoint {
            shared.emit_state(tick, held.checkpoint());
        }
    });
    each_tick(rows, Route::Here, name, context, logic)
}
