//! Views that react to changing tables or read other views: the engine itself, fed in the order of
//! event time, one step per moment that is asked for.
//!
//! At the step `T = q` the engine has seen exactly the events with `event_time < q`. Of a table's
//! events those count that no later one in the log has overtaken. Does not know how views work.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::UInt32Array;
use arrow::compute::{concat_batches, take_record_batch};
use arrow::record_batch::RecordBatch;
use falaj_definitions::plan::{JoinKind, Source, ViewPlan};
use falaj_event::cells::batch_cells;
use falaj_event::{
    EpochChanges, EventTime, LogTime, Op, TopicId, TopicKind, TopicSchema, ViewId, ViewRow,
};
use hashbrown::HashMap;

use super::versions::event_times;
use super::{Job, Meter, TrainingError};
use crate::engine::{Engine, Options as EngineOptions};
use crate::error::EngineError;
use crate::source::{EpochInput, TopicInput};

/// Steps that are under way at once.
const IN_FLIGHT: usize = 64;

/// Answers the questions of the views `replayed`.
pub(super) fn run(
    job: &Job<'_>,
    replayed: &[usize],
    answers: &mut [Vec<Option<ViewRow>>],
    meter: &mut Meter<'_>,
) -> Result<(), TrainingError> {
    let mut plans = Vec::new();
    for &index in replayed {
        with_inputs(job.views[index].plan, &mut plans);
    }
    let latest = job.at.iter().copied().max().unwrap_or(i64::MIN);
    let topics = load(job, &plans, latest, meter)?;
    let mut moments: Vec<u32> = (0..job.at.len() as u32).collect();
    moments.sort_by_key(|question| job.at[*question as usize]);
    let mut feed = Feed::new(&plans, topics)?;
    let mut watched = Watched::new(job, replayed);
    let engine = Engine::start(EngineOptions {
        workers: 1,
        checkpoint_every: u64::MAX,
        max_epochs_in_flight: IN_FLIGHT,
        plans,
        resume: None,
    })?;
    let mut under_way: std::collections::VecDeque<&[u32]> = std::collections::VecDeque::new();
    let mut epoch = 0;
    for same in moments.chunk_by(|a, b| job.at[*a as usize] == job.at[*b as usize]) {
        let at = job.at[same[0] as usize];
        // No event of the log's own time can be before the first of all moments.
        let Some(t) = u64::try_from(at).ok().filter(|t| *t > 0) else { continue };
        if under_way.len() == IN_FLIGHT {
            let asked = under_way.pop_front().unwrap_or_default();
            watched.take(&engine, asked, answers, meter)?;
        }
        engine.submit(EpochInput { epoch, t: LogTime(t), topics: feed.before(at)? })?;
        under_way.push_back(same);
        epoch += 1;
    }
    for asked in under_way {
        watched.take(&engine, asked, answers, meter)?;
    }
    engine.stop()?;
    Ok(())
}

/// A view after everything that it reads, each once.
fn with_inputs(plan: &Arc<ViewPlan>, plans: &mut Vec<Arc<ViewPlan>>) {
    if plans.iter().any(|known| known.id == plan.id) {
        return;
    }
    if let Source::View(below) = &plan.source {
        with_inputs(below, plans);
    }
    plans.push(Arc::clone(plan));
}

/// The rows that are watched, as they are after the steps taken so far.
struct Watched<'a> {
    job: &'a Job<'a>,
    replayed: &'a [usize],
    rows: BTreeMap<ViewId, HashMap<&'a [u8], Option<ViewRow>>>,
}

impl<'a> Watched<'a> {
    fn new(job: &'a Job<'a>, replayed: &'a [usize]) -> Self {
        let mut rows: BTreeMap<ViewId, HashMap<&'a [u8], Option<ViewRow>>> = BTreeMap::new();
        for &index in replayed {
            let asked = &job.views[index];
            let own = rows.entry(asked.plan.id).or_default();
            own.extend(asked.keys.iter().flatten().map(|key| (key.as_slice(), None)));
        }
        Self { job, replayed, rows }
    }

    /// Takes one step's changes and answers the questions asked at it.
    fn take(
        &mut self,
        engine: &Engine,
        asked: &[u32],
        answers: &mut [Vec<Option<ViewRow>>],
        meter: &mut Meter<'_>,
    ) -> Result<(), TrainingError> {
        let changes = loop {
            if let Some(changes) = engine.take(Duration::from_millis(200))? {
                break changes;
            }
        };
        self.apply(changes);
        for &index in self.replayed {
            let view = &self.job.views[index];
            for &question in asked {
                let key = view.keys[question as usize].as_deref();
                let row = key.and_then(|key| self.rows.get(&view.plan.id)?.get(key));
                let at = LogTime(self.job.at[question as usize].unsigned_abs());
                answers[index][question as usize] = match row {
                    Some(Some(row)) => Some(as_of(row, at, &view.plan.name)?),
                    _ => None,
                };
            }
        }
        meter.now.done += asked.len() * self.replayed.len();
        meter.tell();
        Ok(())
    }

    /// Keeps the rows that are asked for, and what is foretold of them.
    fn apply(&mut self, changes: EpochChanges) {
        for change in changes.rows {
            let own = self.rows.get_mut(&change.view);
            if let Some(row) = own.and_then(|own| own.get_mut(change.key.as_slice())) {
                *row = change.row;
            }
        }
    }
}

/// The row as the passing of time has made it.
fn as_of(row: &ViewRow, at: LogTime, view: &str) -> Result<ViewRow, EngineError> {
    let damaged = || EngineError::rows(&format!("view `{view}`"), "a row foretells nonsense");
    let columns = row.columns_at(at).ok_or_else(damaged)?;
    Ok(ViewRow { latest_event_time: row.latest_event_time, columns, foretold: Vec::new() })
}

/// The events of one topic.
struct Loaded {
    topic: Arc<TopicSchema>,
    rows: RecordBatch,
    ops: Vec<Op>,
    /// (event time, number in log order) of every event, ascending.
    order: Vec<(EventTime, u32)>,
    /// How many have been fed.
    fed: usize,
    /// Offset of the next row that is fed.
    offset: u64,
    /// Of a table: the primary key of every row, and the newest row in log order fed so far.
    keys: Vec<u32>,
    newest: Vec<Option<u32>>,
    /// Whether overtaken versions still count for an ASOF join.
    versions: bool,
}

/// Reads what the plans read, up to the last moment.
fn load(
    job: &Job<'_>,
    plans: &[Arc<ViewPlan>],
    latest: EventTime,
    meter: &mut Meter<'_>,
) -> Result<BTreeMap<TopicId, Vec<TopicInput>>, TrainingError> {
    let mut wanted = BTreeSet::new();
    for plan in plans {
        if let Source::Topic(topic) = &plan.source {
            wanted.insert(topic.id());
        }
        wanted.extend(plan.joins.iter().map(|join| join.table.id()));
    }
    let wanted: Vec<TopicId> = wanted.into_iter().collect();
    let mut parts: BTreeMap<TopicId, Vec<TopicInput>> = BTreeMap::new();
    let mut held = 0;
    job.events.scan(&wanted, &mut |mut input: EpochInput| {
        meter.read(&input);
        input.topics.sort_by_key(|part| part.partition);
        for part in input.topics {
            if event_times(&part)?.iter().all(|time| *time >= latest) {
                continue;
            }
            held += part.batch.get_array_memory_size();
            parts.entry(part.topic.id()).or_default().push(part);
        }
        if held > job.options.memory_bytes {
            let names: Vec<&str> = plans.iter().map(|plan| plan.name.as_str()).collect();
            let (views, bound) = (names.join(", "), job.options.memory_bytes);
            return Err(TrainingError::Memory { views, bound });
        }
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(parts)
}

/// All topics, fed by event time.
struct Feed {
    topics: Vec<Loaded>,
}

impl Feed {
    fn new(
        plans: &[Arc<ViewPlan>],
        parts: BTreeMap<TopicId, Vec<TopicInput>>,
    ) -> Result<Self, EngineError> {
        let asof: BTreeSet<TopicId> = plans
            .iter()
            .flat_map(|plan| &plan.joins)
            .filter(|join| join.kind == JoinKind::AsOf)
            .map(|join| join.table.id())
            .collect();
        let loaded = parts
            .into_iter()
            .map(|(topic, parts)| Loaded::new(&parts, asof.contains(&topic)))
            .collect::<Result<Vec<_>, _>>()?;
        Ok(Self { topics: loaded.into_iter().flatten().collect() })
    }

    /// The events before `at` that have not been given yet.
    fn before(&mut self, at: EventTime) -> Result<Vec<TopicInput>, EngineError> {
        let parts = self.topics.iter_mut().map(|topic| topic.before(at));
        Ok(parts.collect::<Result<Vec<_>, _>>()?.into_iter().flatten().collect())
    }
}

impl Loaded {
    fn new(parts: &[TopicInput], versions: bool) -> Result<Option<Self>, EngineError> {
        let Some(first) = parts.first() else { return Ok(None) };
        let topic = Arc::clone(&first.topic);
        let place = format!("topic `{}`", topic.name);
        let rows = concat_batches(first.batch.schema_ref(), parts.iter().map(|part| &part.batch))
            .map_err(|error| EngineError::rows(&place, error))?;
        let ops: Vec<Op> = parts.iter().flat_map(|part| part.ops.iter().copied()).collect();
        let mut order = Vec::with_capacity(ops.len());
        for part in parts {
            let from = order.len() as u32;
            order.extend(event_times(part)?.iter().zip(from..).map(|(time, row)| (*time, row)));
        }
        order.sort_unstable();
        let (keys, count) = match topic.kind {
            TopicKind::Table => primary_keys(&topic, &rows, &place)?,
            TopicKind::Event => (Vec::new(), 0),
        };
        let newest = vec![None; count];
        Ok(Some(Self { topic, rows, ops, order, fed: 0, offset: 0, keys, newest, versions }))
    }

    fn before(&mut self, at: EventTime) -> Result<Option<TopicInput>, EngineError> {
        let from = self.fed;
        self.fed += self.order[from..].partition_point(|(time, _)| *time < at);
        let mut rows: Vec<u32> = self.order[from..self.fed].iter().map(|(_, row)| *row).collect();
        rows.sort_unstable();
        if self.topic.kind == TopicKind::Table {
            rows = self.of_table(&rows);
        }
        if rows.is_empty() {
            return Ok(None);
        }
        let place = format!("topic `{}`", self.topic.name);
        let ops: Vec<Op> =
            rows.iter().filter_map(|row| self.ops.get(*row as usize)).copied().collect();
        let batch = take_record_batch(&self.rows, &UInt32Array::from(rows))
            .map_err(|error| EngineError::rows(&place, error))?;
        let first_offset = self.offset;
        self.offset += ops.len() as u64;
        Ok(Some(TopicInput {
            topic: Arc::clone(&self.topic),
            partition: 0,
            first_offset,
            ops,
            batch,
        }))
    }

    /// Leaves out rows that a later one in the log has overtaken; or, where their version counts,
    /// puts the row that is current behind them again.
    fn of_table(&mut self, rows: &[u32]) -> Vec<u32> {
        let mut kept = Vec::with_capacity(rows.len());
        for &row in rows {
            let newest = &mut self.newest[self.keys[row as usize] as usize];
            match *newest {
                Some(current) if current > row && self.versions => kept.extend([row, current]),
                Some(current) if current > row => {}
                _ => {
                    *newest = Some(row);
                    kept.push(row);
                }
            }
        }
        kept
    }
}

/// For each row the number of its primary key, and how many there are.
fn primary_keys(
    topic: &TopicSchema,
    rows: &RecordBatch,
    place: &str,
) -> Result<(Vec<u32>, usize), EngineError> {
    let cells = batch_cells(rows).map_err(|error| EngineError::rows(place, error))?;
    let mut numbers: HashMap<Vec<u8>, u32> = HashMap::new();
    let mut keys = Vec::with_capacity(rows.num_rows());
    for row in 0..rows.num_rows() {
        let mut key = Vec::new();
        for column in &topic.key {
            if let Some(cells) = cells.get(*column) {
                cells.encode(row, &mut key);
            }
        }
        let next = numbers.len() as u32;
        keys.push(*numbers.entry(key).or_insert(next));
    }
    let count = numbers.len();
    Ok((keys, count))
}
