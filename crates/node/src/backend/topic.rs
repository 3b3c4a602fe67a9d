//! Reading topics for the door: by offset within a partition, or by epoch over all of them.
//!
//! Does not know Flight, views or who may read.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use arrow::array::{ArrayRef, BinaryArray, StringArray, UInt32Array, UInt64Array};
use arrow::record_batch::RecordBatch;
use falaj_event::{EventId, LogTime, Op};
use falaj_gateway::backend::{BackendError, BatchStream, ReadTopicRequest};
use falaj_log::reader::{PartitionEvents, PiiMode, ReadOptions};
use falaj_log::{LogError, ReadError, Reader};

/// Streams the asked range; a blocking thread reads a few batches ahead.
pub fn read_topic(reader: &Reader, request: ReadTopicRequest) -> BatchStream {
    let (sender, receiver) = tokio::sync::mpsc::channel(4);
    let reader = reader.with_options(ReadOptions {
        topics: Some([request.topic.schema.id()].into()),
        pii: PiiMode::Plain,
        ..ReadOptions::default()
    });
    tokio::task::spawn_blocking(move || {
        let mut run = Run { request: &request, sender: &sender, given: 0 };
        let outcome = match request.partition {
            Some(partition) => run.by_offset(&reader, partition),
            None => run.by_epoch(&reader),
        };
        if let Err(error) = outcome {
            // A reader that is gone needs no error.
            let _ = sender.blocking_send(Err(refused(&reader, &request, &error)));
        }
    });
    Box::pin(futures::stream::unfold(receiver, |mut receiver| async {
        receiver.recv().await.map(|batch| (batch, receiver))
    }))
}

/// Events that were cut are said to be so, with the first `T` that can be read.
fn refused(reader: &Reader, request: &ReadTopicRequest, error: &anyhow::Error) -> BackendError {
    if let Some(ReadError::Log(LogError::Cut { first_kept, .. })) = error.downcast_ref()
        && let Ok(Some(entry)) = reader.log().entry(*first_kept)
    {
        let asked = request.from_t.unwrap_or_default();
        return BackendError::NotRetained { asked, oldest: entry.record.t };
    }
    BackendError::Damaged { message: format!("{error:#}") }
}

struct Run<'a> {
    request: &'a ReadTopicRequest,
    sender: &'a tokio::sync::mpsc::Sender<Result<RecordBatch, BackendError>>,
    given: u64,
}

/// Whether to go on.
type GoOn = bool;

const FOLLOW_WAIT: Duration = Duration::from_millis(200);

impl Run<'_> {
    fn by_offset(&mut self, reader: &Reader, partition: u32) -> Result<()> {
        let topic = self.request.topic.schema.id();
        let mut offset = self.request.from_offset.unwrap_or(0);
        let mut seen = None;
        loop {
            let found = reader.range(topic, partition, offset, self.request.batch_rows)?;
            for (record, events) in &found {
                offset = events.first_offset + events.len() as u64;
                if self.request.from_t.is_some_and(|from| record.t < from) {
                    continue;
                }
                if self.request.to_t.is_some_and(|to| record.t > to)
                    || !self.give(record.t, events)?
                {
                    return Ok(());
                }
            }
            if found.is_empty() {
                if !self.request.follow || self.sender.is_closed() {
                    return Ok(());
                }
                seen = reader.log().wait_beyond(seen, FOLLOW_WAIT);
            }
        }
    }

    fn by_epoch(&mut self, reader: &Reader) -> Result<()> {
        let log = reader.log();
        let mut epoch = match self.request.from_t.and_then(|from| from.0.checked_sub(1)) {
            Some(before) => {
                log.entry_at(LogTime(before))?.map_or(0, |entry| entry.record.epoch + 1)
            }
            None => 0,
        };
        loop {
            let Some(events) = reader.epoch(epoch)? else {
                if !self.request.follow || self.sender.is_closed() {
                    return Ok(());
                }
                log.wait_beyond(epoch.checked_sub(1), FOLLOW_WAIT);
                continue;
            };
            let t = events.record().t;
            if self.request.to_t.is_some_and(|to| t > to) {
                return Ok(());
            }
            for part in &events.topics {
                if !self.give(t, part)? {
                    return Ok(());
                }
            }
            epoch += 1;
        }
    }

    /// Hands the rows of one epoch and partition on, in batches of the asked size.
    fn give(&mut self, t: LogTime, events: &PartitionEvents) -> Result<GoOn> {
        let mut end = events.len();
        if let Some(to) = self.request.to_offset.filter(|_| self.request.partition.is_some()) {
            let left = to.saturating_sub(events.first_offset);
            end = end.min(usize::try_from(left).unwrap_or(usize::MAX));
        }
        let mut start = 0;
        while start < end {
            let mut rows = (end - start).min(self.request.batch_rows.max(1));
            if let Some(limit) = self.request.limit {
                rows = rows.min(usize::try_from(limit - self.given).unwrap_or(usize::MAX));
            }
            if rows == 0 {
                return Ok(false);
            }
            let batch = with_system_columns(self.request, t, events, start, rows)?;
            if self.sender.blocking_send(Ok(batch)).is_err() {
                return Ok(false);
            }
            self.given += rows as u64;
            start += rows;
        }
        Ok(end == events.len() && self.request.limit.is_none_or(|limit| self.given < limit))
    }
}

fn with_system_columns(
    request: &ReadTopicRequest,
    t: LogTime,
    events: &PartitionEvents,
    start: usize,
    rows: usize,
) -> Result<RecordBatch> {
    let slice = events.batch.slice(start, rows);
    let first = events.first_offset + start as u64;
    let ids: Vec<[u8; 33]> = (start..start + rows)
        .filter_map(|row| events.event_id(row))
        .map(|id: EventId| id.to_bytes())
        .collect();
    let ops = events.ops[start..start + rows].iter().map(|op| op_name(*op));
    let mut columns = slice.columns().to_vec();
    let system: [ArrayRef; 5] = [
        Arc::new(UInt64Array::from(vec![t.0; rows])),
        Arc::new(UInt32Array::from(vec![events.partition; rows])),
        Arc::new(UInt64Array::from_iter_values(first..first + rows as u64)),
        Arc::new(StringArray::from_iter_values(ops)),
        Arc::new(BinaryArray::from_iter_values(ids)),
    ];
    columns.extend(system);
    Ok(RecordBatch::try_new(request.topic.read_schema(), columns)?)
}

/// The word of an operation.
pub fn op_name(op: Op) -> &'static str {
    match op {
        Op::Insert => "insert",
        Op::Upsert => "upsert",
        Op::Delete => "delete",
    }
}
