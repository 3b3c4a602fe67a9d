//! All versions of the rows of tables that ASOF joins read, and events joined with them, a batch at a
//! time.
//!
//! Does not know what becomes of joined rows.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;

use arrow::array::{ArrayRef, UInt32Array};
use arrow::compute::{concat_batches, take};
use arrow::datatypes::{Field, Schema};
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use falaj_definitions::plan::{Join, ViewPlan};
use falaj_event::cells::{Cells, batch_cells};
use falaj_event::{EventOrder, EventTime, Op, TopicId, TopicSchema};
use hashbrown::HashMap;

use super::{Job, Meter, TrainingError};
use crate::columns::{Columns, Computed};
use crate::error::EngineError;
use crate::row::Bytes;
use crate::source::{EpochInput, TopicInput};

/// The versions of one table's rows.
pub(super) struct Versions {
    rows: RecordBatch,
    /// Ascending; a row's number in `rows`, `None` for a delete.
    by_key: HashMap<Bytes, Vec<(EventOrder, Option<u32>)>>,
}

/// Versions by table.
pub(super) type Tables = BTreeMap<TopicId, Versions>;

/// Reads every table that the views `swept` of `job` join.
pub(super) fn read(
    job: &Job<'_>,
    swept: &[usize],
    meter: &mut Meter<'_>,
) -> Result<Tables, TrainingError> {
    let mut topics: BTreeMap<TopicId, Arc<TopicSchema>> = BTreeMap::new();
    for join in swept.iter().flat_map(|&index| &job.views[index].plan.joins) {
        topics.insert(join.table.id(), Arc::clone(&join.table));
    }
    let mut building: BTreeMap<TopicId, Building> = topics
        .into_iter()
        .map(|(id, topic)| {
            (id, Building { topic, batches: Vec::new(), rows: 0, by_key: HashMap::new() })
        })
        .collect();
    let wanted: Vec<TopicId> = building.keys().copied().collect();
    if !wanted.is_empty() {
        job.events.scan(&wanted, &mut |input: EpochInput| {
            meter.read(&input);
            for part in &input.topics {
                if let Some(table) = building.get_mut(&part.topic.id()) {
                    table.add(part, &input)?;
                }
            }
            Ok(ControlFlow::Continue(()))
        })?;
    }
    building.into_iter().map(|(id, table)| Ok((id, table.finish()?))).collect()
}

struct Building {
    topic: Arc<TopicSchema>,
    batches: Vec<RecordBatch>,
    rows: usize,
    by_key: HashMap<Bytes, Vec<(EventOrder, Option<u32>)>>,
}

impl Building {
    fn add(&mut self, part: &TopicInput, input: &EpochInput) -> Result<(), EngineError> {
        let wrong = |why: &dyn ToString| {
            EngineError::rows(&format!("topic `{}`", part.topic.name), why.to_string())
        };
        let cells = batch_cells(&part.batch).map_err(|error| wrong(&error))?;
        let times = event_times(part)?;
        let mut key = Vec::new();
        for (row, event_time) in times.iter().enumerate() {
            key.clear();
            for column in &part.topic.key {
                cells
                    .get(*column)
                    .ok_or_else(|| wrong(&"a key column is missing"))?
                    .encode(row, &mut key);
            }
            let order = order_of(part, input, row, *event_time);
            let number = u32::try_from(self.rows + row).map_err(|error| wrong(&error))?;
            let version = (part.ops.get(row) != Some(&Op::Delete)).then_some(number);
            self.by_key.entry(Bytes::from_slice(&key)).or_default().push((order, version));
        }
        self.rows += part.batch.num_rows();
        self.batches.push(part.batch.clone());
        Ok(())
    }

    fn finish(mut self) -> Result<Versions, EngineError> {
        for versions in self.by_key.values_mut() {
            versions.sort_unstable();
        }
        let place = format!("topic `{}`", self.topic.name);
        let schema = match self.batches.first() {
            Some(batch) => batch.schema(),
            None => self.topic.stored_schema(),
        };
        let rows = concat_batches(&schema, &self.batches)
            .map_err(|error| EngineError::rows(&place, error))?;
        Ok(Versions { rows, by_key: self.by_key })
    }
}

impl Versions {
    /// The newest version that is not newer than `event_time`.
    fn find(&self, key: &[u8], event_time: EventTime) -> Option<u32> {
        let versions = self.by_key.get(key)?;
        let until = versions.partition_point(|(order, _)| order.event_time <= event_time);
        versions.get(until.checked_sub(1)?)?.1
    }
}

/// A view's joins, ready to be applied to batches.
pub(super) struct Joiner<'a> {
    steps: Vec<(Columns, usize, &'a Versions)>,
}

impl<'a> Joiner<'a> {
    pub(super) fn new(plan: &ViewPlan, tables: &'a Tables) -> Result<Self, EngineError> {
        let step = |join: &Join| {
            let place = format!("view `{}` join with `{}`", plan.name, join.table.name);
            let versions = tables.get(&join.table.id()).ok_or_else(|| EngineError::Plan {
                view: plan.name.clone(),
                why: format!("table `{}` has not been read", join.table.name),
            })?;
            let columns = Columns::of(&join.left_key, place)?;
            Ok((columns, join.left_key.output_types().len(), versions))
        };
        Ok(Self { steps: plan.joins.iter().map(step).collect::<Result<_, EngineError>>()? })
    }

    /// `batch` with the columns of every joined table appended, each row's as of its event time.
    pub(super) fn join(
        &self,
        batch: &RecordBatch,
        times: &[EventTime],
    ) -> Result<RecordBatch, EngineError> {
        let mut joined = batch.clone();
        for (columns, width, versions) in &self.steps {
            let rows = find_all(columns, *width, versions, &joined, times)?;
            joined = append(&joined, &versions.rows, &rows, columns.place())?;
        }
        Ok(joined)
    }
}

/// For each row, the number of the version that it joins.
fn find_all(
    columns: &Columns,
    width: usize,
    versions: &Versions,
    batch: &RecordBatch,
    times: &[EventTime],
) -> Result<UInt32Array, EngineError> {
    let evaluated = columns.evaluate_batch(batch, None)?;
    let computed = Computed::new(&evaluated, columns.place())?;
    let mut key = Vec::new();
    let find = |(row, event_time): (usize, &EventTime)| {
        let usable = |column| !computed.is_null(column, row) && !computed.is_error(column, row);
        if !(0..width).all(usable) {
            return None;
        }
        key.clear();
        (0..width).for_each(|column| computed.encode(column, row, &mut key));
        versions.find(&key, *event_time)
    };
    Ok(times.iter().enumerate().map(find).collect())
}

fn append(
    left: &RecordBatch,
    table: &RecordBatch,
    rows: &UInt32Array,
    place: &str,
) -> Result<RecordBatch, EngineError> {
    let mut arrays: Vec<ArrayRef> = left.columns().to_vec();
    for column in table.columns() {
        let taken = take(column.as_ref(), rows, None);
        arrays.push(taken.map_err(|error| EngineError::rows(place, error))?);
    }
    let names = left.schema_ref().fields().iter().chain(table.schema_ref().fields());
    let fields: Vec<Field> =
        names.map(|field| field.as_ref().clone().with_nullable(true)).collect();
    let options = RecordBatchOptions::new().with_row_count(Some(left.num_rows()));
    RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), arrays, &options)
        .map_err(|error| EngineError::rows(place, error))
}

/// The event times of a batch.
pub(super) fn event_times(part: &TopicInput) -> Result<&[EventTime], EngineError> {
    let wrong = |why: &str| EngineError::rows(&format!("topic `{}`", part.topic.name), why);
    if part.ops.len() != part.batch.num_rows() {
        return Err(wrong("not one op per row"));
    }
    let times = part.batch.columns().get(part.topic.event_time);
    match times.map(|times| Cells::new(times.as_ref())) {
        Some(Ok(Cells::Timestamp(times))) => Ok(times.values()),
        _ => Err(wrong("the event time is not a timestamp")),
    }
}

/// The place of a row in the total order.
pub(super) fn order_of(
    part: &TopicInput,
    input: &EpochInput,
    row: usize,
    event_time: EventTime,
) -> EventOrder {
    EventOrder {
        event_time,
        t: input.t,
        partition: part.partition,
        offset: part.first_offset + row as u64,
    }
}
