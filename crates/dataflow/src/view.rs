//! The stages of one view: prepare (joined rows to keyed rows), and the operators that run a view's
//! stages once per epoch.
//!
//! Does not know where rows come from, and knows aggregation only as [`GroupCore`].

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use arrow::record_batch::RecordBatch;
use falaj_definitions::plan::{Shape, Source, ViewPlan};
use falaj_definitions::program::{ErrorMask, Evaluated};
use falaj_event::{EventOrder, EventTime, LogTime, RowChange, TopicKind, ViewRow, key_hash};

use crate::columns::{Columns, Computed};
use crate::context::{Context, Logic, Route, Tick, consolidate, each_tick};
use crate::delay::Held;
use crate::error::EngineError;
use crate::finish::Finisher;
use crate::group::{Given, GroupCore, GroupPlan, GroupStats, WARM_TOGETHER};
use crate::metrics::Metrics;
use crate::row::{Bytes, Change, Row, Rows};
use crate::state::{Restored, Space};
use crate::table::RowStore;
use crate::values::ValueList;

/// Runs a view's `prepare` program and cuts its result into (key, cells).
pub(crate) struct Preparer {
    plan: Arc<ViewPlan>,
    columns: Columns,
    /// Columns of the prepared row that go on.
    cells: Vec<usize>,
    key_scratch: Vec<u8>,
    cell_scratch: Vec<u8>,
}

impl Preparer {
    pub(crate) fn new(plan: &Arc<ViewPlan>) -> Result<Self, EngineError> {
        let cells = match &plan.shape {
            Shape::Keyed { .. } => GroupPlan::cell_columns(plan),
            Shape::PerRow => (0..plan.prepare.output_types().len()).collect(),
        };
        Ok(Self {
            plan: Arc::clone(plan),
            columns: Columns::of(&plan.prepare, format!("view `{}` prepare", plan.name))?,
            cells,
            key_scratch: Vec::new(),
            cell_scratch: Vec::new(),
        })
    }

    /// Prepares a batch of source rows: for each row that WHERE keeps, calls `each` with its index,
    /// key and cells.
    pub(crate) fn batch(
        &mut self,
        batch: &RecordBatch,
        errors: Option<&ErrorMask>,
        metrics: &Metrics,
        each: impl FnMut(usize, &[u8], &[u8]),
    ) -> Result<(), EngineError> {
        let evaluated = self.columns.evaluate_batch(batch, errors)?;
        self.cut(&evaluated, batch.num_rows(), metrics, each)
    }

    /// Likewise for rows in canonical encoding.
    pub(crate) fn rows<'a>(
        &mut self,
        rows: impl ExactSizeIterator<Item = &'a [u8]>,
        metrics: &Metrics,
        each: impl FnMut(usize, &[u8], &[u8]),
    ) -> Result<(), EngineError> {
        let count = rows.len();
        let evaluated = self.columns.evaluate_cells(rows)?;
        self.cut(&evaluated, count, metrics, each)
    }

    fn cut(
        &mut self,
        evaluated: &Evaluated,
        rows: usize,
        metrics: &Metrics,
        mut each: impl FnMut(usize, &[u8], &[u8]),
    ) -> Result<(), EngineError> {
        let computed = Computed::new(evaluated, self.columns.place())?;
        Metrics::count(&metrics.expression_errors, computed.failures());
        for row in 0..rows {
            if self.plan.predicate.is_some_and(|column| !computed.is_true(column, row)) {
                continue;
            }
            // A key that failed names no key: the row is counted among the errors and has no view.
            if self.plan.key.iter().any(|column| computed.is_error(*column, row)) {
                continue;
            }
            self.key_scratch.clear();
            for column in &self.plan.key {
                computed.encode(*column, row, &mut self.key_scratch);
            }
            self.cell_scratch.clear();
            for column in &self.cells {
                computed.encode(*column, row, &mut self.cell_scratch);
            }
            each(row, &self.key_scratch, &self.cell_scratch);
        }
        Ok(())
    }
}

/// Prepares changing rows.
pub(crate) fn prepare_rows<'scope>(
    rows: Rows<'scope>,
    mut preparer: Preparer,
    context: &Rc<Context>,
) -> Rows<'scope> {
    let shared = Rc::clone(context);
    let name = format!("{} prepare", preparer.plan.name);
    let logic: Logic = Box::new(move |tick: &Tick, mut rows, out| {
        consolidate(&mut rows);
        if rows.is_empty() {
            return;
        }
        let cells = rows.iter().map(|(row, _)| row.cells.as_slice());
        shared.check(preparer.rows(cells, &shared.metrics, |index, key, cells| {
            let (row, diff) = &rows[index];
            let key = Bytes::from_slice(key);
            let prepared = Row { key, order: row.order, cells: Bytes::from_slice(cells) };
            out.push((prepared, tick.t, *diff));
        }));
    });
    each_tick(rows, Route::Here, &name, context, logic)
}

/// The end of a view: puts its changed rows out, and into the stream of changes that views over it
/// read.
struct Output {
    finisher: Finisher,
    /// Kept only when other views read this one.
    store: Option<RowStore>,
    context: Rc<Context>,
}

impl Output {
    /// Takes a result of the epoch.
    fn give(&mut self, key: &[u8], given: &Given<'_>) {
        self.context.check(self.finisher.give(key, given));
    }

    /// Puts out what was given.
    fn put(&mut self, tick: &Tick, out: &mut Vec<Change>) {
        let metrics = &self.context.metrics;
        if let Some(store) = self.store.as_ref().filter(|_| tick.hydrate) {
            store.hydrate(tick.t, out);
        }
        let rows = self.context.check(self.finisher.finish(metrics));
        if !tick.hydrate && !rows.is_empty() {
            if let Some(counters) = metrics.view(self.finisher.view()) {
                let columns = |row: &ViewRow| row.columns.len() + row.foretold.len();
                let bytes =
                    |change: &RowChange| change.key.len() + change.row.as_ref().map_or(0, columns);
                Metrics::count(&counters.rows, rows.len());
                Metrics::count(&counters.bytes, rows.iter().map(bytes).sum());
            }
            if let Some(store) = &mut self.store {
                rows.iter().for_each(|row| pass_on(store, tick.t, row, out));
            }
            self.context.emit_rows(tick, rows);
        }
        if let Some(store) = self.store.as_mut().filter(|_| tick.checkpoint) {
            let changes = store.checkpoint();
            self.context.emit_state(tick, changes);
        }
    }
}

/// A row's place in the total order is its latest event time, the `T` that it changed at and, to settle
/// ties between keys, the hash of its key. A row that did not change keeps its place.
fn pass_on(store: &mut RowStore, t: u64, change: &RowChange, out: &mut Vec<Change>) {
    let key = Bytes::from_slice(&change.key);
    let new = change.row.as_ref().map(|row| {
        let order = EventOrder {
            event_time: row.latest_event_time,
            t: LogTime(t),
            partition: 0,
            offset: key_hash(&key),
        };
        (order, Bytes::from_slice(&row.columns))
    });
    let same = match (store.get(&key), &new) {
        (Some((old_order, old)), Some((order, new))) => {
            old_order.event_time == order.event_time && old == new
        }
        _ => false,
    };
    if !same {
        store.set(t, key, new, out);
    }
}

/// What the last operator of a view is made of.
pub(crate) struct Parts<'a> {
    pub(crate) plan: &'a Arc<ViewPlan>,
    /// Whether other views read this one.
    pub(crate) is_read: bool,
    pub(crate) restored: &'a mut Restored,
    pub(crate) context: &'a Rc<Context>,
}

impl Parts<'_> {
    fn output(&mut self) -> Result<Output, EngineError> {
        let space = Space::rows(self.plan.id);
        let width = self.plan.output.len();
        let store = match self.is_read {
            true => Some(RowStore::restore(space, width, self.restored)?),
            false => None,
        };
        let finisher = Finisher::new(self.plan)?;
        Ok(Output { finisher, store, context: Rc::clone(self.context) })
    }
}

/// One row per key: prepared rows (on whatever worker) to the changes of the view's rows.
///
/// `held` waits for future-dated rows here when nothing before this operator does.
pub(crate) fn keyed_view<'scope>(
    rows: Rows<'scope>,
    mut parts: Parts<'_>,
    mut held: Option<Held>,
) -> Result<Rows<'scope>, EngineError> {
    let plan = Arc::clone(parts.plan);
    let mut output = parts.output()?;
    let mut group = Group::restore(&plan, parts.is_read, parts.restored)?;
    let context = Rc::clone(parts.context);
    let name = format!("{} group", plan.name);
    let logic: Logic = Box::new(move |tick: &Tick, mut rows, out| {
        if let Some(held) = &mut held {
            held.turn(tick, |row, diff| group.update(&row, diff, &context));
            rows.retain(|(row, diff)| held.admits(tick, row, *diff));
        }
        rows.chunks(WARM_TOGETHER).for_each(|rows| group.update_all(rows, &context));
        group.core.advance_each(LogTime(tick.t), |key, given| {
            if !tick.hydrate {
                output.give(key, &given);
            }
        });
        output.put(tick, out);
        if tick.checkpoint {
            context.emit_state(tick, group.core.checkpoint());
            group.measure(&context.metrics);
            if let Some(held) = &mut held {
                context.emit_state(tick, held.checkpoint());
            }
        }
    });
    Ok(each_tick(rows, Route::Key, &name, parts.context, logic))
}

/// [`GroupCore`] in its place.
struct Group {
    plan: Arc<ViewPlan>,
    core: GroupCore,
    /// What this worker has added to the view's gauges.
    measured: GroupStats,
}

impl Group {
    fn restore(
        plan: &Arc<ViewPlan>,
        is_read: bool,
        restored: &mut Restored,
    ) -> Result<Self, EngineError> {
        let space = Space::group(plan.id);
        let mut group_plan = GroupPlan::of(plan);
        // A view over this one must be told of a change when it comes.
        group_plan.foretells &= !is_read;
        // Rows of a table or view are kept by their source: a retraction of any of them counts.
        if !matches!(&plan.source, Source::Topic(topic) if topic.kind == TopicKind::Event) {
            group_plan.horizon_us = None;
        }
        let mut core = GroupCore::new(group_plan, space.prefix());
        let entries = restored.take(&space);
        if !entries.is_empty() {
            let own = entries.iter().map(|(key, value)| (space.own(key), value.as_slice()));
            core.restore(own).map_err(|error| EngineError::state(space.prefix(), error))?;
        }
        Ok(Self { plan: Arc::clone(plan), core, measured: GroupStats::default() })
    }

    fn update_all(&mut self, rows: &[(Row, isize)], context: &Context) {
        self.core.expect(rows.iter().map(|(row, _)| row.key.as_slice()));
        rows.iter().for_each(|(row, diff)| self.update(row, *diff, context));
    }

    fn update(&mut self, row: &Row, diff: isize, context: &Context) {
        if let Err(error) = self.core.update(&row.key, row.order, &row.cells, diff) {
            context.fail(EngineError::rows(&format!("view `{}`", self.plan.name), error));
        }
    }

    /// Brings the view's gauges up to date. Walks all keys, so only now and then.
    fn measure(&mut self, metrics: &Metrics) {
        let (Some(counters), now) = (metrics.view(self.plan.id), self.core.stats()) else { return };
        let before = std::mem::replace(&mut self.measured, now);
        let add = |gauge: &AtomicI64, before: usize, now: usize| {
            let signed = |size| i64::try_from(size).unwrap_or(i64::MAX);
            gauge.fetch_add(signed(now) - signed(before), Ordering::Relaxed);
        };
        add(&counters.keys, before.keys, now.keys);
        add(&counters.tiles, before.tiles, now.tiles);
        add(&counters.state_bytes, before.bytes, now.bytes);
    }
}

/// One output row per row of the view below, under the same key.
pub(crate) fn per_row_view<'scope>(
    rows: Rows<'scope>,
    mut parts: Parts<'_>,
) -> Result<Rows<'scope>, EngineError> {
    let mut output = parts.output()?;
    let name = format!("{} rows", parts.plan.name);
    let logic: Logic = Box::new(move |tick: &Tick, mut rows, out| {
        consolidate(&mut rows);
        for (key, row) in newest_per_key(rows) {
            match &row {
                Some((time, cells)) => {
                    let values = ValueList::of_row(cells);
                    output.give(&key, &Given::Row(*time, values.all()));
                }
                None => output.give(&key, &Given::Gone),
            }
        }
        output.put(tick, out);
    });
    Ok(each_tick(rows, Route::Key, &name, parts.context, logic))
}

/// A key, and its row's time and cells if it has one.
type Newest = (Bytes, Option<(EventTime, Bytes)>);

/// Of each key whose rows changed, the row that there is now.
fn newest_per_key(rows: Vec<(Row, isize)>) -> Vec<Newest> {
    let mut results: Vec<Newest> = Vec::new();
    // Sorted by key: the changes of one key are neighbours.
    for (row, diff) in rows {
        if results.last().is_none_or(|last| last.0 != row.key) {
            results.push((row.key.clone(), None));
        }
        if let Some(last) = results.last_mut().filter(|_| diff > 0) {
            last.1 = Some((row.order.event_time, row.cells));
        }
    }
    results
}
