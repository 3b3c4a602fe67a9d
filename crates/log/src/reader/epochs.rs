//! `falaj.epochs` as rows: records are stored beside the blocks, and read like any topic.
//!
//! Its offsets are epoch numbers, its event ids derive from the records' hashes.

use std::sync::Arc;

use arrow::array::FixedSizeBinaryArray;
use arrow::record_batch::RecordBatch;
use falaj_event::{EventId, Hash256, LogTime, Op, TopicSchema, Value};

use super::PartitionEvents;
use crate::epoch::{ClockMode, EpochRecord};
use crate::schemas::{TypedRowError, typed_rows};

fn column(record: &EpochRecord, name: &str) -> Option<Value> {
    let hash = |hash: &Hash256| Value::Binary(hash.0.as_slice().into());
    let clock = match record.clock {
        ClockMode::Wall => "wall",
        ClockMode::Event => "event",
    };
    Some(match name {
        "epoch" => Value::UInt(record.epoch),
        "t" => Value::Timestamp(record.t.as_event_time()),
        "term" => Value::UInt(record.term),
        "clock" => Value::String(clock.into()),
        "wall_clock" => Value::Timestamp(LogTime(record.wall_clock_us).as_event_time()),
        "definitions" => hash(&record.definitions),
        "previous" => hash(&record.previous),
        "partitions_root" => hash(&record.partitions_root),
        "producers_hash" => hash(&record.producers_hash),
        "events" => Value::UInt(record.events),
        _ => return None,
    })
}

/// Rows of `falaj.epochs`, in declared types; columns that `schema` declares beyond the record's
/// fields are NULL.
///
/// # Errors
/// When `schema` gives a field another type.
pub fn epoch_rows(
    schema: &TopicSchema,
    records: &[&EpochRecord],
) -> Result<RecordBatch, TypedRowError> {
    typed_rows(schema, records.len(), |name, row| column(records.get(row)?, name))
}

pub(super) fn epoch_events(
    schema: Arc<TopicSchema>,
    record: &EpochRecord,
) -> Result<PartitionEvents, TypedRowError> {
    let id = EventId::Derived(record.hash()).to_bytes();
    Ok(PartitionEvents {
        batch: epoch_rows(&schema, &[record])?,
        topic: schema,
        partition: 0,
        first_offset: record.epoch,
        ops: vec![Op::Insert],
        erased: Vec::new(),
        ids: FixedSizeBinaryArray::try_from_iter(std::iter::once(id))?,
        salts: Vec::new(),
        skipped: 0,
    })
}
