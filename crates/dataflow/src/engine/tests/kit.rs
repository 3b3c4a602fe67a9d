//! Plans, logs and an oracle that recomputes every view from scratch at every epoch.
//!
//! The programs of these plans only pick columns, so the oracle can read them; it shares no code
//! with the engine's operators.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use arrow::datatypes::{Field, Schema, SchemaRef};
use arrow::record_batch::RecordBatch;
use falaj_definitions::plan::{
    AggregateCall, AggregateFunction, CostClass, Description, Frame, Join, JoinKind, OutputColumn,
    Shape, Source, ViewPlan,
};
use falaj_definitions::program::Program;
use falaj_event::encoding::encode_row;
use falaj_event::hash::domain_hash;
use falaj_event::value::to_array;
use falaj_event::{
    Classification, Column, ColumnType, EpochChanges, EventOrder, LogTime, Op, TopicKind,
    TopicSchema, Value, ViewId,
};

use crate::{Engine, EngineError, EpochInput, Options, Resume, TopicInput};

pub(super) const SECOND: i64 = 1_000_000;

pub(super) fn topic(
    name: &str,
    kind: TopicKind,
    columns: &[(&str, ColumnType)],
    key: usize,
    partitions: u32,
) -> Arc<TopicSchema> {
    let column = |(name, column_type): &(&str, ColumnType)| Column {
        name: (*name).to_owned(),
        column_type: column_type.clone(),
        nullable: *name != "at",
        pii: false,
        classification: Classification::Public,
        since_version: 1,
    };
    Arc::new(TopicSchema {
        name: name.to_owned(),
        version: 1,
        kind,
        columns: columns.iter().map(column).collect(),
        key: vec![key],
        event_time: columns.iter().position(|(name, _)| *name == "at").unwrap(),
        subject: None,
        partitions,
        derived: false,
    })
}

pub(super) fn payments() -> Arc<TopicSchema> {
    let columns = [
        ("account", ColumnType::String),
        ("merchant", ColumnType::String),
        ("amount", ColumnType::Int64),
        ("at", ColumnType::Timestamp),
        ("good", ColumnType::Bool),
    ];
    topic("payments", TopicKind::Event, &columns, 0, 2)
}

pub(super) fn merchants() -> Arc<TopicSchema> {
    let columns = [
        ("merchant", ColumnType::String),
        ("category", ColumnType::String),
        ("ceiling", ColumnType::Int64),
        ("at", ColumnType::Timestamp),
    ];
    topic("merchants", TopicKind::Table, &columns, 0, 1)
}

/// Builds one plan whose programs pick columns.
pub(super) struct PlanOf {
    pub(super) name: &'static str,
    pub(super) source: Source,
    /// Kind, table and the column of the row so far that is the table's key.
    pub(super) joins: Vec<(JoinKind, Arc<TopicSchema>, usize)>,
    /// Columns of the joined row that make up the prepared row.
    pub(super) prepare: Vec<usize>,
    pub(super) predicate: Option<usize>,
    pub(super) key: Vec<usize>,
    pub(super) shape: Shape,
    /// Columns of the result that make up the output.
    pub(super) finish: Vec<usize>,
    pub(super) having: Option<usize>,
    pub(super) horizon: Option<i64>,
}

fn schema_of(types: &[ColumnType]) -> SchemaRef {
    let field =
        |(index, t): (usize, &ColumnType)| Field::new(format!("c{index}"), t.to_arrow(), true);
    Arc::new(Schema::new(types.iter().enumerate().map(field).collect::<Vec<_>>()))
}

impl PlanOf {
    pub(super) fn build(self) -> Arc<ViewPlan> {
        let mut types: Vec<ColumnType> = match &self.source {
            Source::Topic(topic) => topic.columns.iter().map(|c| c.column_type.clone()).collect(),
            Source::View(view) => view.output.iter().map(|c| c.column_type.clone()).collect(),
        };
        let mut joins = Vec::new();
        for (kind, table, column) in self.joins {
            let left_key = Program::columns(schema_of(&types), &[column]).unwrap();
            types.extend(table.columns.iter().map(|column| column.column_type.clone()));
            joins.push(Join { kind, table, left_key });
        }
        let prepare = Program::columns(schema_of(&types), &self.prepare).unwrap();
        let prepared = prepare.output_types().to_vec();
        let mut results: Vec<ColumnType> = prepared.clone();
        if let Shape::Keyed { bare, aggregates } = &self.shape {
            results = self.key.iter().chain(bare).map(|c| prepared[*c].clone()).collect();
            results.extend(aggregates.iter().map(|call| call.output_type.clone()));
        }
        let finish = Program::columns(schema_of(&results), &self.finish).unwrap();
        let width = self.finish.len() - usize::from(self.having.is_some());
        let output =
            finish.output_types()[..width].iter().enumerate().map(|(index, t)| OutputColumn {
                name: format!("c{index}"),
                column_type: t.clone(),
                class: CostClass::Plain,
                lifetime: false,
            });
        let output: Vec<_> = output.collect();
        let hash = domain_hash(b"test", &[self.name.as_bytes()]);
        Arc::new(ViewPlan {
            name: self.name.to_owned(),
            id: ViewId::of(&hash),
            hash,
            source: self.source,
            joins,
            prepare,
            predicate: self.predicate,
            output_key: (0..self.key.len()).collect(),
            key: self.key,
            shape: self.shape,
            finish,
            having: self.having,
            output,
            ttl_us: None,
            retain_us: 0,
            horizon_us: self.horizon.map(|us| u64::try_from(us).unwrap()),
            description: Description::default(),
        })
    }
}

pub(super) fn call(
    function: AggregateFunction,
    input: Option<usize>,
    input_type: ColumnType,
    frame: Frame,
) -> AggregateCall {
    let output_type = match function {
        AggregateFunction::CountRows | AggregateFunction::Count => ColumnType::Int64,
        AggregateFunction::Sum => ColumnType::Decimal { precision: 38, scale: 0 },
        _ => input_type.clone(),
    };
    AggregateCall { function, input, input_type, filter: None, frame, output_type }
}

/// One event of a log.
#[derive(Clone, Debug)]
pub(super) struct Event {
    pub(super) topic: Arc<TopicSchema>,
    pub(super) op: Op,
    pub(super) order: EventOrder,
    pub(super) cells: Vec<Value>,
}

/// A log: per epoch its `T` and events.
pub(super) type Log = Vec<(u64, Vec<Event>)>;

pub(super) fn text(value: &str) -> Value {
    Value::String(value.into())
}

/// Appends events to a log in epochs, giving out offsets.
#[derive(Default)]
pub(super) struct LogWriter {
    pub(super) log: Log,
    offsets: BTreeMap<(String, u32), u64>,
}

impl LogWriter {
    pub(super) fn epoch(&mut self, t: u64) {
        self.log.push((t, Vec::new()));
    }

    pub(super) fn append(&mut self, topic: &Arc<TopicSchema>, op: Op, cells: Vec<Value>) {
        let key = encode_row(topic.key.iter().map(|column| &cells[*column]));
        let partition = falaj_event::partition_of(&key, topic.partitions);
        let offset = self.offsets.entry((topic.name.clone(), partition)).or_default();
        let Value::Timestamp(event_time) = cells[topic.event_time] else { panic!("no time") };
        let (t, events) = self.log.last_mut().unwrap();
        let order = EventOrder { event_time, t: LogTime(*t), partition, offset: *offset };
        *offset += 1;
        events.push(Event { topic: Arc::clone(topic), op, order, cells });
    }
}

/// An epoch as the engine takes it.
pub(super) fn input_of(epoch: u64, t: u64, events: &[Event]) -> EpochInput {
    let mut topics: BTreeMap<(String, u32), Vec<&Event>> = BTreeMap::new();
    for event in events {
        topics.entry((event.topic.name.clone(), event.order.partition)).or_default().push(event);
    }
    let one = |((_, partition), events): ((String, u32), Vec<&Event>)| {
        let topic = Arc::clone(&events[0].topic);
        let column = |index: usize| {
            let values: Vec<Value> = events.iter().map(|e| e.cells[index].clone()).collect();
            to_array(&topic.columns[index].column_type, &values).unwrap()
        };
        let columns = (0..topic.columns.len()).map(column).collect();
        TopicInput {
            partition,
            first_offset: events[0].order.offset,
            ops: events.iter().map(|event| event.op).collect(),
            batch: RecordBatch::try_new(topic.stored_schema(), columns).unwrap(),
            topic,
        }
    };
    EpochInput { epoch, t: LogTime(t), topics: topics.into_iter().map(one).collect() }
}

/// Runs `log` from `resume` on and returns the changes of every epoch.
pub(super) fn run(
    plans: &[Arc<ViewPlan>],
    log: &Log,
    workers: usize,
    in_flight: usize,
    resume: Option<Resume>,
) -> Result<Vec<EpochChanges>, EngineError> {
    let from = resume.as_ref().map_or(0, |resume| usize::try_from(resume.epoch).unwrap() + 1);
    let engine = Engine::start(Options {
        workers,
        checkpoint_every: 4,
        max_epochs_in_flight: in_flight,
        plans: plans.to_vec(),
        resume,
    })?;
    let mut taken = Vec::new();
    let mut take = |engine: &Engine| -> Result<(), EngineError> {
        let changes = engine.take(Duration::from_secs(60))?.expect("no epoch within a minute");
        taken.push(changes);
        Ok(())
    };
    for (index, (t, events)) in log.iter().enumerate().skip(from) {
        if index - from >= in_flight {
            take(&engine)?;
        }
        engine.submit(input_of(index as u64, *t, events))?;
    }
    for _ in 0..in_flight.min(log.len() - from) {
        take(&engine)?;
    }
    engine.stop()?;
    Ok(taken)
}

/// A view's rows: key → (latest event time, cells of the output).
pub(super) type Contents = BTreeMap<Vec<u8>, (i64, Vec<u8>)>;

/// Folds changes into the contents of all views.
pub(super) fn fold(contents: &mut BTreeMap<ViewId, Contents>, changes: &EpochChanges) {
    for change in &changes.rows {
        let view = contents.entry(change.view).or_default();
        match &change.row {
            Some(row) => {
                view.insert(change.key.to_vec(), (row.latest_event_time, row.columns.clone()));
            }
            None => {
                view.remove(change.key.as_slice());
            }
        }
    }
}

/// Recomputes views from scratch; remembers between epochs only when a row last changed.
#[derive(Default)]
pub(super) struct Oracle {
    rows: BTreeMap<ViewId, BTreeMap<Vec<u8>, Sourced>>,
}

type Sourced = (EventOrder, Vec<Value>);

impl Oracle {
    /// All rows of `plan` at `t`, given all events up to `t`. Plans must come in order.
    pub(super) fn at(&mut self, plan: &ViewPlan, events: &[&Event], t: u64) -> Contents {
        let now = i64::try_from(t).unwrap();
        let mut rows: Vec<Sourced> = match &plan.source {
            Source::Topic(topic) => topic_rows(topic, events),
            Source::View(view) => self.rows[&view.id].values().cloned().collect(),
        };
        rows.retain(|(order, _)| order.event_time <= now);
        for join in &plan.joins {
            let key = pick(&join.left_key);
            rows.iter_mut().for_each(|row| join_row(row, join, key[0], events));
        }
        let prepare = pick(&plan.prepare);
        let mut groups: BTreeMap<Vec<u8>, (Vec<Value>, Vec<Sourced>)> = BTreeMap::new();
        for (order, cells) in rows {
            let cells: Vec<Value> = prepare.iter().map(|column| cells[*column].clone()).collect();
            if plan.predicate.is_some_and(|column| cells[column] != Value::Bool(true)) {
                continue;
            }
            let key: Vec<Value> = plan.key.iter().map(|column| cells[*column].clone()).collect();
            groups.entry(encode_row(&key)).or_insert((key, vec![])).1.push((order, cells));
        }
        let mut now_rows = BTreeMap::new();
        for (bytes, (key, mut group)) in groups {
            group.sort_by_key(|(order, _)| *order);
            let (last, cells) = group.last().unwrap().clone();
            let result = match &plan.shape {
                Shape::PerRow => cells,
                Shape::Keyed { bare, aggregates } => {
                    let bare = bare.iter().map(|column| cells[*column].clone());
                    let calls = aggregates.iter().map(|call| aggregate(call, &group, now));
                    key.into_iter().chain(bare).chain(calls).collect()
                }
            };
            let mut output: Vec<Value> =
                pick(&plan.finish).iter().map(|column| result[*column].clone()).collect();
            if plan.having.is_some_and(|_| output.pop() != Some(Value::Bool(true))) {
                continue;
            }
            let old = self.rows.get(&plan.id).and_then(|rows| rows.get(&bytes));
            let order = match old {
                Some((order, old)) if order.event_time == last.event_time && *old == output => {
                    *order
                }
                _ => EventOrder {
                    event_time: last.event_time,
                    t: LogTime(t),
                    partition: 0,
                    offset: falaj_event::key_hash(&bytes),
                },
            };
            now_rows.insert(bytes, (order, output));
        }
        let contents = now_rows
            .iter()
            .map(|(key, (order, row))| (key.clone(), (order.event_time, encode_row(row))))
            .collect();
        self.rows.insert(plan.id, now_rows);
        contents
    }
}

fn pick(program: &Program) -> Vec<usize> {
    program.passed_columns().into_iter().map(Option::unwrap).collect()
}

fn topic_rows(topic: &TopicSchema, events: &[&Event]) -> Vec<Sourced> {
    let own = events.iter().filter(|event| event.topic.name == topic.name);
    if topic.kind == TopicKind::Event {
        return own.map(|event| (event.order, event.cells.clone())).collect();
    }
    let mut rows = BTreeMap::new();
    for event in own {
        let key = encode_row(topic.key.iter().map(|column| &event.cells[*column]));
        match event.op {
            Op::Delete => rows.remove(&key),
            _ => rows.insert(key, (event.order, event.cells.clone())),
        };
    }
    rows.into_values().collect()
}

fn join_row(row: &mut Sourced, join: &Join, column: usize, events: &[&Event]) {
    let key = row.1[column].clone();
    let table = &join.table;
    let found = match join.kind {
        _ if key.is_null() => None,
        JoinKind::Left => topic_rows(table, events)
            .into_iter()
            .find(|(_, cells)| cells[table.key[0]] == key)
            .map(|(_, cells)| cells),
        JoinKind::AsOf => events
            .iter()
            .filter(|event| event.topic.name == table.name)
            .filter(|event| event.cells[table.key[0]] == key)
            .filter(|event| event.order.event_time <= row.0.event_time)
            .max_by_key(|event| event.order)
            .filter(|event| event.op != Op::Delete)
            .map(|event| event.cells.clone()),
    };
    row.1.extend(found.unwrap_or_else(|| vec![Value::Null; table.columns.len()]));
}

fn aggregate(call: &AggregateCall, group: &[Sourced], now: i64) -> Value {
    let inside = |order: &EventOrder| match call.frame {
        Frame::Range { preceding_us, hop_us } => {
            let hop = i64::try_from(hop_us).unwrap();
            let start = now - i64::try_from(preceding_us).unwrap();
            order.event_time >= start.div_euclid(hop) * hop
        }
        Frame::Lifetime => true,
        Frame::Rows { .. } => panic!("not in these plans"),
    };
    let framed = group.iter().filter(|(order, _)| inside(order));
    let Some(input) = call.input else {
        return Value::Int(i64::try_from(framed.count()).unwrap());
    };
    let values: Vec<Value> =
        framed.map(|(_, cells)| cells[input].clone()).filter(|value| !value.is_null()).collect();
    match call.function {
        AggregateFunction::Count => Value::Int(i64::try_from(values.len()).unwrap()),
        AggregateFunction::Min => values.into_iter().min().unwrap_or(Value::Null),
        AggregateFunction::Max => values.into_iter().max().unwrap_or(Value::Null),
        AggregateFunction::First => values.first().cloned().unwrap_or(Value::Null),
        AggregateFunction::Last => values.last().cloned().unwrap_or(Value::Null),
        AggregateFunction::Sum if values.is_empty() => Value::Null,
        AggregateFunction::Sum => {
            let number = |value: &Value| match value {
                Value::Int(value) => i128::from(*value),
                Value::Decimal(value, 0) => *value,
                other => panic!("sum of {other:?}"),
            };
            Value::Decimal(values.iter().map(number).sum(), 0)
        }
        other => panic!("{other:?} is not in these plans"),
    }
}
