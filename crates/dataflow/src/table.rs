//! Keyed rows that change: the current rows of a table topic, or of a view that others read, turned
//! into changes (−old, +new).
//!
//! Does not know where new rows come from or what reads the changes.

use std::collections::BTreeSet;
use std::rc::Rc;

use falaj_event::{EventOrder, StateChange, logical_partition};
use hashbrown::HashMap;

use crate::columns::{count_cells, encode_nulls};
use crate::context::{Context, Logic, Route, Tick, each_tick};
use crate::error::EngineError;
use crate::row::{Bytes, Change, Row, Rows, pack_order, unpack_order};
use crate::state::{Restored, Space};

/// The current row of every key.
pub(crate) struct RowStore {
    space: Space,
    rows: HashMap<Bytes, (EventOrder, Bytes)>,
    /// Keys that changed since the last checkpoint.
    touched: BTreeSet<Bytes>,
}

impl RowStore {
    /// The rows of a checkpoint; ones that were stored before a topic got more columns are filled up
    /// with NULLs to `width` columns.
    pub(crate) fn restore(
        space: Space,
        width: usize,
        restored: &mut Restored,
    ) -> Result<Self, EngineError> {
        let mut rows = HashMap::new();
        for (key, value) in restored.take(&space) {
            let (order, cells) =
                unpack_order(&value).ok_or_else(|| EngineError::state(&key, "not a row"))?;
            let found = count_cells(cells)
                .filter(|found| *found <= width)
                .ok_or_else(|| EngineError::state(&key, "not the cells of a row"))?;
            let mut cells = cells.to_vec();
            encode_nulls(width - found, &mut cells);
            rows.insert(Bytes::from_slice(space.own(&key)), (order, Bytes::from_vec(cells)));
        }
        Ok(Self { space, rows, touched: BTreeSet::new() })
    }

    /// The row of `key`.
    pub(crate) fn get(&self, key: &[u8]) -> Option<&(EventOrder, Bytes)> {
        self.rows.get(key)
    }

    /// Sets or removes the row of `key` and puts the difference out.
    pub(crate) fn set(
        &mut self,
        t: u64,
        key: Bytes,
        new: Option<(EventOrder, Bytes)>,
        out: &mut Vec<Change>,
    ) {
        let old = match &new {
            Some(row) => self.rows.insert(key.clone(), row.clone()),
            None => self.rows.remove(&key),
        };
        if old == new {
            return;
        }
        self.touched.insert(key.clone());
        for (row, diff) in [(old, -1), (new, 1)] {
            if let Some((order, cells)) = row {
                out.push((Row { key: key.clone(), order, cells }, t, diff));
            }
        }
    }

    /// Puts every row out, as restored rows are at the moment of the checkpoint.
    pub(crate) fn hydrate(&self, t: u64, out: &mut Vec<Change>) {
        out.extend(self.rows.iter().map(|(key, (order, cells))| {
            (Row { key: key.clone(), order: *order, cells: cells.clone() }, t, 1)
        }));
    }

    /// What changed since the last call.
    pub(crate) fn checkpoint(&mut self) -> Vec<StateChange> {
        let change = |key: Bytes| {
            let value = self.rows.get(&key).map(|(order, cells)| {
                let mut value = pack_order(order).to_vec();
                value.extend_from_slice(cells);
                value
            });
            self.space.change(logical_partition(&key), &key, value)
        };
        std::mem::take(&mut self.touched).into_iter().map(change).collect()
    }
}

/// Turns the events of a table topic (key: primary key; cells: the row, empty for a delete) into
/// changes of its current rows: within an epoch only the last event of a key counts.
pub(crate) fn current_rows<'scope>(
    events: Rows<'scope>,
    name: &str,
    mut store: RowStore,
    context: &Rc<Context>,
) -> Rows<'scope> {
    let shared = Rc::clone(context);
    let logic: Logic = Box::new(move |tick: &Tick, mut events, out| {
        if tick.hydrate {
            store.hydrate(tick.t, out);
        }
        // A primary key lives in one partition: its events are in log order by offset.
        let log_order = |row: &Row| (row.order.t, row.order.partition, row.order.offset);
        events.sort_unstable_by(|(a, _), (b, _)| {
            a.key.cmp(&b.key).then_with(|| log_order(a).cmp(&log_order(b)))
        });
        let mut events = events.into_iter().peekable();
        while let Some((row, _)) = events.next() {
            if events.peek().is_some_and(|(next, _)| next.key == row.key) {
                continue;
            }
            let new = (!row.cells.is_empty()).then_some((row.order, row.cells));
            store.set(tick.t, row.key, new, out);
        }
        if tick.checkpoint {
            shared.emit_state(tick, store.checkpoint());
        }
    });
    each_tick(events, Route::Key, name, context, logic)
}
