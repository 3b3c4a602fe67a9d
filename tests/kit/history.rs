//! Logs without a log: events in their order of arrival, cut into epochs, as the engine and the
//! oracles take them.
//!
//! Offsets, partitions and `T` follow the contracts of the log; nothing is stored or sealed. Does not
//! know where events come from.
#![allow(clippy::expect_used, clippy::panic, reason = "a harness fails loudly")]

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema};
use falaj_dataflow::{EpochInput, TopicInput};
use falaj_event::encoding::encode_row;
use falaj_event::value::to_array;
use falaj_event::{ColumnType, EventOrder, LogTime, Op, TopicSchema, Value};

use crate::random::Random;

/// A second in microseconds.
pub const SECOND: i64 = 1_000_000;

/// An event on its way to the log.
#[derive(Clone, Debug)]
pub struct Arrival {
    /// When it reaches the sequencer, microseconds since 1970 UTC; never less than the one before.
    pub at: i64,
    /// Where it goes.
    pub topic: Arc<TopicSchema>,
    /// What it does.
    pub op: Op,
    /// All declared columns, pii columns as stored binary; of a delete only the key and event time.
    pub cells: Vec<Value>,
}

/// An event in the log.
#[derive(Clone, Debug)]
pub struct Event {
    /// Its topic.
    pub topic: Arc<TopicSchema>,
    /// What it does.
    pub op: Op,
    /// Its place.
    pub order: EventOrder,
    /// All declared columns.
    pub cells: Vec<Value>,
}

/// One epoch.
#[derive(Clone, Debug)]
pub struct Epoch {
    /// From 0, without gaps.
    pub number: u64,
    /// Its `T`.
    pub t: LogTime,
    /// What it appended, in order of arrival.
    pub events: Vec<Event>,
}

/// A whole log.
#[derive(Clone, Debug, Default)]
pub struct History {
    /// Its epochs in order.
    pub epochs: Vec<Epoch>,
}

/// How an epoch's `T` comes about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clock {
    /// The wall clock at its close; epochs without events are ticks.
    Wall,
    /// Its greatest event time; epochs without events do not exist.
    Event,
}

/// Where an epoch ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Close {
    /// Number of arrivals before it, those of earlier epochs included.
    pub arrivals: usize,
    /// The wall clock, microseconds since 1970 UTC.
    pub wall: i64,
}

/// Ends of epochs over `arrivals`: `most` arrivals at most in each, and in the gaps between them up to
/// `ticks` epochs without any.
pub fn closes(random: &mut Random, arrivals: &[Arrival], most: u64, ticks: u64) -> Vec<Close> {
    let mut closes = Vec::new();
    let mut taken = 0;
    while taken < arrivals.len() {
        let size = 1 + usize::try_from(random.below(most)).unwrap_or(0);
        taken = (taken + size).min(arrivals.len());
        let wall = arrivals[taken - 1].at;
        closes.push(Close { arrivals: taken, wall });
        let next = arrivals.get(taken).map_or(wall + 7_200 * SECOND, |arrival| arrival.at);
        for _ in 0..random.below(ticks + 1) {
            let whole = (next - wall) / SECOND;
            let wall = wall + random.between(0, whole.max(1)) * SECOND;
            closes.push(Close { arrivals: taken, wall });
        }
    }
    closes.sort_by_key(|close| (close.arrivals, close.wall));
    closes
}

impl History {
    /// Cuts `arrivals` into epochs.
    pub fn cut(arrivals: &[Arrival], closes: &[Close], clock: Clock) -> Self {
        let mut offsets: BTreeMap<(String, u32), u64> = BTreeMap::new();
        let mut epochs: Vec<Epoch> = Vec::new();
        let mut from = 0;
        for close in closes {
            let part = &arrivals[from..close.arrivals];
            from = close.arrivals;
            let previous = epochs.last().map(|epoch| epoch.t.0);
            let greatest =
                part.iter().map(|arrival| event_time(&arrival.topic, &arrival.cells)).max();
            let wanted = match clock {
                Clock::Wall => close.wall,
                Clock::Event => match greatest {
                    Some(greatest) => greatest,
                    None => continue,
                },
            };
            let wanted = u64::try_from(wanted).expect("times are after 1970");
            let t = LogTime(previous.map_or(wanted, |previous| wanted.max(previous + 1)));
            let number = epochs.len() as u64;
            let events = part.iter().map(|arrival| event(arrival, t, &mut offsets)).collect();
            epochs.push(Epoch { number, t, events });
        }
        Self { epochs }
    }

    /// All events of epochs with `T <= t`.
    pub fn until(&self, t: LogTime) -> Vec<&Event> {
        let known = self.epochs.iter().take_while(|epoch| epoch.t <= t);
        known.flat_map(|epoch| &epoch.events).collect()
    }

    /// An epoch as the engine takes it.
    pub fn input(&self, number: u64) -> EpochInput {
        let epoch = &self.epochs[usize::try_from(number).expect("fits")];
        let mut parts: BTreeMap<(String, u32), Vec<&Event>> = BTreeMap::new();
        for event in &epoch.events {
            let part = (event.topic.name.clone(), event.order.partition);
            parts.entry(part).or_default().push(event);
        }
        let topics = parts.into_values().map(|events| TopicInput {
            topic: Arc::clone(&events[0].topic),
            partition: events[0].order.partition,
            first_offset: events[0].order.offset,
            ops: events.iter().map(|event| event.op).collect(),
            batch: batch(&events[0].topic, &events, Vec::new()),
        });
        EpochInput { epoch: number, t: epoch.t, topics: topics.collect() }
    }

    /// The events of `topic` in the form that `falaj export` gives and oracles read.
    pub fn exported(&self, topic: &TopicSchema) -> RecordBatch {
        let all = self.epochs.iter().flat_map(|epoch| &epoch.events);
        let events: Vec<&Event> = all.filter(|event| event.topic.name == topic.name).collect();
        let number = |value: u64| i64::try_from(value).expect("fits");
        let int = |f: &dyn Fn(&Event) -> i64| -> ArrayRef {
            Arc::new(events.iter().map(|event| Some(f(event))).collect::<Int64Array>())
        };
        let ops = events.iter().map(|event| match event.op {
            Op::Insert => "insert",
            Op::Upsert => "upsert",
            Op::Delete => "delete",
        });
        let ops: ArrayRef = Arc::new(StringArray::from_iter_values(ops));
        let extra = vec![
            ("__t", int(&|event| number(event.order.t.0))),
            ("__partition", int(&|event| i64::from(event.order.partition))),
            ("__offset", int(&|event| number(event.order.offset))),
            ("__op", ops),
        ];
        batch(topic, &events, extra)
    }
}

/// The event time among a row's cells.
///
/// # Panics
/// When it is not a timestamp.
pub fn event_time(topic: &TopicSchema, cells: &[Value]) -> i64 {
    match &cells[topic.event_time] {
        Value::Timestamp(time) => *time,
        other => panic!("the event time of {} is {other:?}", topic.name),
    }
}

fn event(arrival: &Arrival, t: LogTime, offsets: &mut BTreeMap<(String, u32), u64>) -> Event {
    let topic = &arrival.topic;
    let key = encode_row(topic.key.iter().map(|&column| &arrival.cells[column]));
    let partition = falaj_event::partition_of(&key, topic.partitions);
    let next = offsets.entry((topic.name.clone(), partition)).or_default();
    let offset = *next;
    *next += 1;
    Event {
        topic: Arc::clone(topic),
        op: arrival.op,
        order: EventOrder { event_time: event_time(topic, &arrival.cells), t, partition, offset },
        cells: arrival.cells.clone(),
    }
}

fn batch(topic: &TopicSchema, events: &[&Event], extra: Vec<(&str, ArrayRef)>) -> RecordBatch {
    let mut fields = Vec::new();
    let mut arrays = Vec::new();
    for (index, column) in topic.columns.iter().enumerate() {
        let stored = if column.pii { ColumnType::Binary } else { column.column_type.clone() };
        let cells: Vec<Value> = events.iter().map(|event| event.cells[index].clone()).collect();
        arrays.push(to_array(&stored, &cells).expect("cells fit their topic"));
        // Deletes carry their key and event time only.
        fields.push(Field::new(&column.name, stored.to_arrow(), true));
    }
    for (name, array) in extra {
        let data_type: DataType = array.data_type().clone();
        fields.push(Field::new(name, data_type, true));
        arrays.push(array);
    }
    RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays).expect("columns of one length")
}
