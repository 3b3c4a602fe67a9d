//! Where an epoch's batches become rows: each worker decodes and prepares its share of them.
//!
//! Does not know what happens to rows, nor how epochs come here.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use arrow::record_batch::RecordBatch;
use falaj_event::cells::{Cells, batch_cells};
use falaj_event::encoding::TAG_NULL;
use falaj_event::{EventOrder, LogTime, Op, TopicId, TopicSchema};
use timely::container::CapacityContainerBuilder;
use timely::dataflow::InputHandle;

use crate::error::EngineError;
use crate::metrics::Metrics;
use crate::row::{Bytes, Change, Row};
use crate::view::Preparer;

/// All that one epoch appended, as the engine reads it.
#[derive(Clone, Debug)]
pub struct EpochInput {
    /// The epoch's number.
    pub epoch: u64,
    /// Its `T`, greater than that of every epoch before it.
    pub t: LogTime,
    /// What was appended, in any order; at most one entry per (topic, partition). Topics that no
    /// view reads may be left out.
    pub topics: Vec<TopicInput>,
}

/// What one epoch appended to one partition of one topic.
#[derive(Clone, Debug)]
pub struct TopicInput {
    /// The topic.
    pub topic: Arc<TopicSchema>,
    /// The partition.
    pub partition: u32,
    /// Offset of the first row; the others follow without gaps.
    pub first_offset: u64,
    /// What each row does: as many as the batch has rows.
    pub ops: Vec<Op>,
    /// The rows: all declared columns in declared order, pii columns as stored `binary`.
    pub batch: RecordBatch,
}

/// A worker's handle of one input.
pub(crate) type Input = InputHandle<u64, CapacityContainerBuilder<Vec<Change>>>;

/// What an input takes from its topic's rows.
pub(crate) enum Tap {
    /// Rows prepared for one view.
    Prepared(Box<Preparer>),
    /// Events with these columns as they are, the others NULL.
    Columns(Vec<bool>),
    /// Events of a table topic: key is the primary key; no cells for a delete.
    Table,
}

/// The inputs that one worker feeds.
pub(crate) struct Sources {
    taps: BTreeMap<TopicId, Vec<(Tap, Input)>>,
    index: usize,
    peers: usize,
}

/// Batches below this many rows are not worth cutting.
const ROWS_WORTH_SHARING: usize = 256;

impl Sources {
    pub(crate) fn new(index: usize, peers: usize) -> Self {
        Self { taps: BTreeMap::new(), index, peers }
    }

    pub(crate) fn add(&mut self, topic: TopicId, tap: Tap, input: Input) {
        self.taps.entry(topic).or_default().push((tap, input));
    }

    /// Lets every input pass `t`: nothing at or before it will come.
    pub(crate) fn pass(&mut self, t: u64) {
        for (_, input) in self.taps.values_mut().flatten() {
            input.advance_to(t.saturating_add(1));
        }
    }

    /// Puts this worker's share of `epoch` in.
    pub(crate) fn feed(
        &mut self,
        epoch: &EpochInput,
        metrics: &Metrics,
    ) -> Result<(), EngineError> {
        for (index, topic) in epoch.topics.iter().enumerate() {
            let Some(taps) = self.taps.get_mut(&topic.topic.id()) else { continue };
            let rows = topic.batch.num_rows();
            let (from, to) = if rows >= ROWS_WORTH_SHARING {
                (rows * self.index / self.peers, rows * (self.index + 1) / self.peers)
            } else if index % self.peers == self.index {
                (0, rows)
            } else {
                continue;
            };
            let share = Share::new(topic, epoch.t, from, to)?;
            share.count(metrics);
            for (tap, input) in taps {
                input.advance_to(epoch.t.0);
                share.feed(tap, input, metrics)?;
            }
        }
        Ok(())
    }
}

/// Some consecutive rows of one topic's partition.
struct Share<'a> {
    topic: &'a TopicInput,
    batch: RecordBatch,
    ops: &'a [Op],
    orders: Vec<EventOrder>,
    t: LogTime,
}

impl<'a> Share<'a> {
    fn new(topic: &'a TopicInput, t: LogTime, from: usize, to: usize) -> Result<Self, EngineError> {
        let wrong = |why: String| EngineError::rows(&format!("topic `{}`", topic.topic.name), why);
        let expected = topic.topic.columns.len();
        if topic.batch.num_columns() != expected || topic.ops.len() != topic.batch.num_rows() {
            return Err(wrong(format!(
                "{} columns, {} ops and {} rows where {expected} columns are declared",
                topic.batch.num_columns(),
                topic.ops.len(),
                topic.batch.num_rows(),
            )));
        }
        let batch = topic.batch.slice(from, to - from);
        let times = batch.column(topic.topic.event_time);
        let Ok(Cells::Timestamp(times)) = Cells::new(times.as_ref()) else {
            return Err(wrong("the event time is not a timestamp".to_owned()));
        };
        let first = topic.first_offset + from as u64;
        let order = |(row, event_time): (usize, &i64)| EventOrder {
            event_time: *event_time,
            t,
            partition: topic.partition,
            offset: first + row as u64,
        };
        let orders = times.values().iter().enumerate().map(order).collect();
        Ok(Self { topic, batch, ops: &topic.ops[from..to], orders, t })
    }

    fn count(&self, metrics: &Metrics) {
        let now = self.t.as_event_time();
        let count = |counter: &AtomicU64, keep: &dyn Fn(i64) -> bool| {
            let kept = self.orders.iter().filter(|order| keep(order.event_time)).count();
            Metrics::count(counter, kept);
        };
        count(&metrics.events, &|_| true);
        count(&metrics.late, &|event_time| event_time < now);
        count(&metrics.future, &|event_time| event_time > now);
    }

    fn feed(&self, tap: &mut Tap, input: &mut Input, metrics: &Metrics) -> Result<(), EngineError> {
        let t = self.t.0;
        match tap {
            Tap::Prepared(preparer) => {
                preparer.batch(&self.batch, None, metrics, |row, key, cells| {
                    let (key, cells) = (Bytes::from_slice(key), Bytes::from_slice(cells));
                    input.send((Row { key, order: self.orders[row], cells }, t, 1));
                })
            }
            Tap::Columns(wanted) => self.feed_cells(input, |cells, row, out| {
                for (cell, wanted) in cells.iter().zip(wanted.iter()) {
                    match wanted {
                        true => cell.encode(row, out),
                        false => out.push(TAG_NULL),
                    }
                }
                0
            }),
            Tap::Table => self.feed_cells(input, |cells, row, out| {
                for column in &self.topic.topic.key {
                    cells[*column].encode(row, out);
                }
                let key = out.len();
                if self.ops[row] != Op::Delete {
                    cells.iter().for_each(|cell| cell.encode(row, out));
                }
                key
            }),
        }
    }

    /// Sends each row as `encode` writes it: the key, whose length is returned, and the cells.
    fn feed_cells(
        &self,
        input: &mut Input,
        encode: impl Fn(&[Cells<'_>], usize, &mut Vec<u8>) -> usize,
    ) -> Result<(), EngineError> {
        let cells = batch_cells(&self.batch).map_err(|error| {
            EngineError::rows(&format!("topic `{}`", self.topic.topic.name), error)
        })?;
        let mut scratch = Vec::new();
        for (row, order) in self.orders.iter().enumerate() {
            scratch.clear();
            let key = encode(&cells, row, &mut scratch);
            let (key, cells) = scratch.split_at(key);
            let (key, cells) = (Bytes::from_slice(key), Bytes::from_slice(cells));
            input.send((Row { key, order: *order, cells }, self.t.0, 1));
        }
        Ok(())
    }
}
