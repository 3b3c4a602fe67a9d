//! Joins with table topics: the row current at `T` (reactive, on differential's own operators) and
//! the row version as of the event's time.
//!
//! Both take changing left rows and give changing joined rows, whose cells are the left cells
//! followed by the table's (NULL where nothing matches); key and order stay the left row's. Does not
//! know what is done with joined rows.

use std::collections::BTreeMap;
use std::rc::Rc;

use differential_dataflow::AsCollection;
use differential_dataflow::operators::arrange::{Arranged, TraceAgent};
use differential_dataflow::trace::implementations::{ValBatcher, ValSpine};
use falaj_definitions::plan::Join;
use falaj_event::{EventOrder, LogTime, StateChange, logical_partition};
use timely::dataflow::operators::core::concat::Concat;
use timely::dataflow::operators::vec::Map;

use crate::columns::{Columns, Computed, encode_nulls};
use crate::context::{Context, Logic, Route, Tick, consolidate, each_tick};
use crate::error::EngineError;
use crate::row::{
    Bytes, Change, ORDER_BYTES, Row, Rows, pack_order, pack_pair, unpack_order, unpack_pair,
};
use crate::state::{Restored, Space};

/// Rows arranged by join key.
pub(crate) type ByKey<'scope> = Arranged<'scope, TraceAgent<ValSpine<Bytes, Bytes, u64, isize>>>;

/// Arranges the current rows of a table topic by primary key; joins share the arrangement.
pub(crate) fn arrange_table<'scope>(rows: Rows<'scope>, name: &str) -> ByKey<'scope> {
    rows.map(|(row, t, diff)| ((row.key, row.cells), t, diff))
        .as_collection()
        .arrange_named::<_, ValSpine<_, _, _, _>>(name, ValBatcher::new)
}

/// A left row's order, key and cells in one value.
fn pack_left(row: &Row) -> Bytes {
    let mut packed = Bytes::from_slice(&pack_order(&row.order));
    pack_pair(&row.key, &row.cells, &mut packed);
    packed
}

/// Reads what [`pack_left`] wrote and appends the table's cells.
fn joined(left: &[u8], right: &[u8]) -> Row {
    let unpacked = unpack_order(left).and_then(|(order, rest)| Some((order, unpack_pair(rest)?)));
    let (order, (key, cells)) = unpacked.unwrap_or((
        EventOrder { event_time: 0, t: LogTime(0), partition: 0, offset: 0 },
        (&[], &[]),
    ));
    let mut all = Bytes::with_capacity(cells.len() + right.len());
    all.extend_from_slice(cells);
    all.extend_from_slice(right);
    Row { key: Bytes::from_slice(key), order, cells: all }
}

/// Replaces each row by (its join key, its order, the row packed). The join key is empty where a
/// cell of it is NULL or failed: nothing matches then.
fn by_join_key<'scope>(
    rows: Rows<'scope>,
    join: &Join,
    name: &str,
    context: &Rc<Context>,
) -> Result<Rows<'scope>, EngineError> {
    let columns = Columns::of(&join.left_key, name.to_owned())?;
    let width = join.left_key.output_types().len();
    let shared = Rc::clone(context);
    let mut scratch = Vec::new();
    let mut run = move |rows: &[(Row, isize)], t: u64, out: &mut Vec<Change>| {
        let evaluated = columns.evaluate_cells(rows.iter().map(|(row, _)| row.cells.as_slice()))?;
        let computed = Computed::new(&evaluated, columns.place())?;
        for (index, (row, diff)) in rows.iter().enumerate() {
            scratch.clear();
            let usable =
                |column| !computed.is_null(column, index) && !computed.is_error(column, index);
            if (0..width).all(usable) {
                (0..width).for_each(|column| computed.encode(column, index, &mut scratch));
            }
            let key = Bytes::from_slice(&scratch);
            out.push((Row { key, order: row.order, cells: pack_left(row) }, t, *diff));
        }
        Ok(())
    };
    let logic: Logic = Box::new(move |tick: &Tick, mut rows, out| {
        consolidate(&mut rows);
        if !rows.is_empty() {
            shared.check(run(&rows, tick.t, out));
        }
    });
    Ok(each_tick(rows, Route::Here, name, context, logic))
}

/// `LEFT JOIN`: at `T`, every left row joins the table row current at `T`.
///
/// A left row that matches nothing is the left row itself, taken back for as long as a match exists:
/// each match yields the joined row and, negated, the unmatched one.
pub(crate) fn left_join<'scope>(
    left: Rows<'scope>,
    table: ByKey<'scope>,
    join: &Join,
    name: &str,
    context: &Rc<Context>,
) -> Result<Rows<'scope>, EngineError> {
    let mut nulls = Vec::new();
    encode_nulls(join.table.columns.len(), &mut nulls);
    let keyed = by_join_key(left, join, &format!("{name} key"), context)?;
    let arranged = keyed
        .clone()
        .flat_map(|(row, t, diff)| (!row.key.is_empty()).then_some(((row.key, row.cells), t, diff)))
        .as_collection()
        .arrange_named::<_, ValSpine<_, _, _, _>>(&format!("{name} left"), ValBatcher::new);
    let pad = nulls.clone();
    let unmatched = keyed.map(move |(row, t, diff)| (joined(&row.cells, &pad), t, diff));
    let matched = arranged
        .join_core(table, move |_key, left, right| {
            [(joined(left, right), true), (joined(left, &nulls), false)]
        })
        .inner
        .map(|((row, matches), t, diff)| (row, t, if matches { diff } else { -diff }));
    Ok(unmatched.concat(matched))
}

/// Marks the cells of a row version among the left rows of an [`asof_join`].
const VERSION: u8 = 1;
const LEFT: u8 = 0;

/// `ASOF JOIN`: every left row joins the newest row version that is not newer than its event time.
///
/// `versions` are the events of the table topic (key: primary key; cells: the row, empty for a
/// delete). A version that comes late joins again the left rows that it concerns.
pub(crate) fn asof_join<'scope>(
    left: Rows<'scope>,
    versions: Rows<'scope>,
    join: &Join,
    name: &str,
    mut operator: AsOf,
    context: &Rc<Context>,
) -> Result<Rows<'scope>, EngineError> {
    let tagged = |tag: u8| {
        move |(mut row, t, diff): Change| {
            row.cells.push(tag);
            (row, t, diff)
        }
    };
    let left = by_join_key(left, join, &format!("{name} key"), context)?.map(tagged(LEFT));
    let both = left.concat(versions.map(tagged(VERSION)));
    let shared = Rc::clone(context);
    let logic: Logic = Box::new(move |tick, mut rows, out| {
        consolidate(&mut rows);
        let (versions, left): (Vec<_>, Vec<_>) =
            rows.into_iter().partition(|(row, _)| row.cells.last() == Some(&VERSION));
        for (mut row, _) in versions {
            row.cells.pop();
            operator.version(tick, row, out);
        }
        for (mut row, diff) in left {
            row.cells.pop();
            operator.left(tick.t, row, diff, out);
        }
        if tick.checkpoint {
            shared.emit_state(tick, operator.checkpoint());
        }
    });
    Ok(each_tick(both, Route::Key, name, context, logic))
}

/// The state of an ASOF join: per join key the history of the table's row and the live left rows.
pub(crate) struct AsOf {
    space: Space,
    /// After this long past its event time a left row cannot matter, so of the versions that were
    /// superseded before then only the last is kept. Microseconds.
    horizon: Option<i64>,
    nulls: Bytes,
    keys: hashbrown::HashMap<Bytes, AsOfKey>,
    changed: BTreeMap<(Bytes, EventOrder), bool>,
}

#[derive(Default)]
struct AsOfKey {
    /// The row from each version on; empty: deleted.
    versions: BTreeMap<EventOrder, Bytes>,
    /// Live left rows, packed, with their counts.
    left: BTreeMap<(EventOrder, Bytes), isize>,
}

impl AsOfKey {
    /// Cells of the newest version that `at` may see; `None` when nothing matches.
    fn version_at(&self, at: &EventOrder) -> Option<&Bytes> {
        self.versions.range(..=at).next_back().map(|(_, cells)| cells).filter(|c| !c.is_empty())
    }
}

/// The greatest order of an event at `event_time`.
fn last_at(event_time: i64) -> EventOrder {
    EventOrder { event_time, t: LogTime(u64::MAX), partition: u32::MAX, offset: u64::MAX }
}

impl AsOf {
    /// The versions of a checkpoint (left rows are fed again).
    pub(crate) fn restore(
        space: Space,
        width: usize,
        horizon_us: Option<u64>,
        restored: &mut Restored,
    ) -> Result<Self, EngineError> {
        let mut keys: hashbrown::HashMap<Bytes, AsOfKey> = hashbrown::HashMap::new();
        for (key, cells) in restored.take(&space) {
            let own = space.own(&key);
            let version = own
                .split_last_chunk::<ORDER_BYTES>()
                .and_then(|(own_key, order)| Some((own_key, unpack_order(order)?.0)));
            let (own_key, order) =
                version.ok_or_else(|| EngineError::state(&key, "not a row version"))?;
            let entry = keys.entry(Bytes::from_slice(own_key)).or_default();
            entry.versions.insert(order, Bytes::from_vec(cells));
        }
        let mut nulls = Vec::new();
        encode_nulls(width, &mut nulls);
        Ok(Self {
            space,
            horizon: horizon_us.map(|us| i64::try_from(us).unwrap_or(i64::MAX)),
            nulls: Bytes::from_vec(nulls),
            keys,
            changed: BTreeMap::new(),
        })
    }

    /// A version is known from `tick` on: left rows between it and the next version see it.
    fn version(&mut self, tick: &Tick, row: Row, out: &mut Vec<Change>) {
        let Row { key, order, cells } = row;
        let state = self.keys.entry(key.clone()).or_default();
        let next = state.versions.range(order..).find(|(other, _)| **other != order);
        let until = next.map_or(i64::MAX, |(next, _)| next.event_time);
        let before = state.version_at(&order).unwrap_or(&self.nulls);
        let after = if cells.is_empty() { &self.nulls } else { &cells };
        let from = (
            EventOrder { event_time: order.event_time, t: LogTime(0), partition: 0, offset: 0 },
            Bytes::new(),
        );
        for ((left_order, packed), count) in state.left.range(from..) {
            if next.is_some() && left_order.event_time >= until {
                break;
            }
            out.push((joined(packed, before), tick.t, -count));
            out.push((joined(packed, after), tick.t, *count));
        }
        state.versions.insert(order, cells);
        self.changed.insert((key.clone(), order), true);
        self.prune(tick, &key);
    }

    fn prune(&mut self, tick: &Tick, key: &Bytes) {
        let (Some(horizon), Some(state)) = (self.horizon, self.keys.get_mut(key)) else { return };
        let oldest = last_at(tick.now().saturating_sub(horizon));
        let Some(kept) = state.versions.range(..=oldest).next_back().map(|(order, _)| *order)
        else {
            return;
        };
        let rest = state.versions.split_off(&kept);
        for order in std::mem::replace(&mut state.versions, rest).into_keys() {
            self.changed.insert((key.clone(), order), false);
        }
    }

    /// A left row comes or goes.
    fn left(&mut self, t: u64, row: Row, diff: isize, out: &mut Vec<Change>) {
        let Row { key, order, cells: packed } = row;
        if key.is_empty() {
            out.push((joined(&packed, &self.nulls), t, diff));
            return;
        }
        let state = self.keys.entry(key.clone()).or_default();
        let cells = state.version_at(&last_at(order.event_time)).unwrap_or(&self.nulls);
        out.push((joined(&packed, cells), t, diff));
        let place = (order, packed);
        let count = state.left.get(&place).copied().unwrap_or_default() + diff;
        if count != 0 {
            state.left.insert(place, count);
        } else {
            state.left.remove(&place);
            if state.left.is_empty() && state.versions.is_empty() {
                self.keys.remove(&key);
            }
        }
    }

    fn checkpoint(&mut self) -> Vec<StateChange> {
        let changed = std::mem::take(&mut self.changed);
        let change = |((key, order), present): ((Bytes, EventOrder), bool)| {
            let mut own = key.to_vec();
            own.extend_from_slice(&pack_order(&order));
            let cells = self.keys.get(&key).and_then(|state| state.versions.get(&order));
            let value = cells.filter(|_| present).map(|cells| cells.to_vec());
            self.space.change(logical_partition(&key), &own, value)
        };
        changed.into_iter().map(change).collect()
    }
}
