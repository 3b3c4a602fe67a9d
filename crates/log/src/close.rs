//! Closing an epoch: from checked submissions to an entry and sealed blocks, without effects.
//!
//! Everything that is decided here follows from the arguments; the log, the clock, the queue and
//! replies are the sequencer's.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{FixedSizeBinaryArray, TimestampMicrosecondArray, UInt8Array, UInt32Array};
use arrow::buffer::Buffer;
use arrow::compute::{concat_batches, interleave_record_batch, take_record_batch};
use arrow::error::ArrowError;
use arrow::record_batch::RecordBatch;
use falaj_event::cells::Cells;
use falaj_event::ids::EVENT_ID_BYTES;
use falaj_event::{Hash256, LogTime, TopicId, TopicSchema, partition_of};
use falaj_vault::{Random, Vault};

use crate::block::{BlockError, BlockHeader, BlockRows, SEED_BYTES, seal_block};
use crate::bytes::Extensions;
use crate::contract::{BlockId, StagedBlock};
use crate::epoch::{
    ClockMode, EpochEntry, EpochRecord, PartitionEntry, ProducerEntry, encode_producers,
    partitions_root, producers_hash,
};
use crate::merkle;
use crate::rows::event_hashes;
use crate::schemas::{adapt, rebatch, stored_row_schema};
use crate::submission::{Prepared, PreparedRejections, position_of};

/// Rows that one submission adds to one topic.
pub(crate) struct Segment {
    pub schema: Arc<TopicSchema>,
    pub stored: RecordBatch,
    /// Stored ids, 33 bytes per row.
    pub ids: Vec<u8>,
    /// Operations, one byte per row.
    pub ops: Vec<u8>,
}

/// What an epoch is made of.
pub(crate) struct EpochInputs<'a> {
    pub term: u64,
    pub t: LogTime,
    pub clock: ClockMode,
    pub wall_clock_us: u64,
    pub definitions: Hash256,
    pub tail: Option<&'a EpochRecord>,
    pub segments: Vec<Segment>,
    pub producers: Vec<ProducerEntry>,
    pub random: &'a dyn Random,
    pub next_offset: &'a dyn Fn(TopicId, u32) -> u64,
}

/// A closed epoch: all that is left to do before it is appended is to seal its blocks.
pub(crate) struct ClosedEpoch {
    pub entry: EpochEntry,
    pub blocks: Vec<OpenBlock>,
    /// Per segment: partition, first offset and count of its rows, ascending by partition.
    pub ranges: Vec<Vec<(u32, u64, u32)>>,
}

/// A block before it is sealed, which its entry says nothing about: whoever writes it does that too.
pub(crate) struct OpenBlock {
    schema: Arc<TopicSchema>,
    header: BlockHeader,
    rows: BlockRows,
}

impl OpenBlock {
    /// Compresses and seals it.
    pub(crate) fn seal(self, vault: &Vault) -> Result<StagedBlock, CloseError> {
        let Self { schema, header, rows } = self;
        let BlockHeader { topic, partition, id, .. } = header;
        let bytes = seal_block(vault, &header, &rows).map_err(|source| CloseError::Block {
            topic: schema.name.clone(),
            partition,
            source,
        })?;
        Ok(StagedBlock { topic, partition, id, bytes: bytes.into() })
    }
}

/// Why an epoch could not be closed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CloseError {
    #[error("topic `{topic}` partition {partition}: {source}")]
    Block { topic: String, partition: u32, source: BlockError },
    #[error("topic `{topic}`: {source}")]
    Arrow { topic: String, source: ArrowError },
    #[error("the random source failed")]
    Random,
}

/// The segment of a submission's rows from `first_row` on, less the refused ones (rows counted from
/// `first_row`, ascending).
pub(crate) fn segment_of(
    prepared: &Prepared,
    first_row: usize,
    refused: &[u32],
) -> Result<Segment, ArrowError> {
    let rows = prepared.stored.num_rows() - first_row;
    let mut stored = prepared.stored.slice(first_row, rows);
    let mut ids = Vec::with_capacity(rows * EVENT_ID_BYTES);
    let mut ops = Vec::with_capacity(rows);
    let mut kept = Vec::new();
    let mut refused = refused.iter().peekable();
    let any_refused = refused.peek().is_some();
    for row in 0..rows {
        if refused.next_if(|next| **next as usize == row).is_some() {
            continue;
        }
        if any_refused {
            kept.push(u32::try_from(row).unwrap_or(u32::MAX));
        }
        let position = position_of(prepared.positions.as_deref(), first_row + row);
        ids.extend_from_slice(&prepared.origin.event_id(position).to_bytes());
        ops.push(prepared.ops.get(first_row + row) as u8);
    }
    if any_refused {
        stored = take_record_batch(&stored, &UInt32Array::from(kept))?;
    }
    Ok(Segment { schema: Arc::clone(&prepared.schema), stored, ids, ops })
}

/// The segment of rejections of positions from `new_from` on, dated `t`.
pub(crate) fn rejection_segment(
    rejections: &PreparedRejections,
    new_from: u32,
    t: LogTime,
) -> Result<Segment, ArrowError> {
    let first = rejections.positions.partition_point(|position| *position < new_from);
    let rows = rejections.positions.len() - first;
    let stored = rejections.stored.slice(first, rows);
    let schema = &rejections.schema;
    let mut columns = stored.columns().to_vec();
    let dated = vec![t.as_event_time(); rows];
    columns[schema.event_time] =
        Arc::new(TimestampMicrosecondArray::from(dated).with_timezone("UTC"));
    Ok(Segment {
        schema: Arc::clone(schema),
        stored: rebatch(stored.schema(), columns, rows)?,
        ids: rejections.ids[first..].concat(),
        ops: vec![falaj_event::Op::Insert as u8; rows],
    })
}

/// Rows of one partition in append order.
struct PartitionRows {
    stored: RecordBatch,
    ids: Vec<u8>,
    ops: Vec<u8>,
    /// Segment and its number of rows, in order.
    owners: Vec<(usize, u32)>,
}

/// Closes an epoch.
pub(crate) fn close_epoch(inputs: EpochInputs<'_>) -> Result<ClosedEpoch, CloseError> {
    let mut topics: BTreeMap<TopicId, Vec<usize>> = BTreeMap::new();
    for (index, segment) in inputs.segments.iter().enumerate() {
        if !segment.ops.is_empty() {
            topics.entry(segment.schema.id()).or_default().push(index);
        }
    }
    let mut ranges = vec![Vec::new(); inputs.segments.len()];
    let mut partitions = Vec::new();
    let mut blocks = Vec::new();
    for (topic, members) in topics {
        let Some(schema) = newest(&inputs.segments, &members) else { continue };
        let arrow = |source| CloseError::Arrow { topic: schema.name.clone(), source };
        let parts = split(&inputs.segments, &members, &schema).map_err(arrow)?;
        for (partition, rows) in parts {
            let first_offset = (inputs.next_offset)(topic, partition);
            let mut offset = first_offset;
            for (segment, count) in &rows.owners {
                ranges[*segment].push((partition, offset, *count));
                offset += u64::from(*count);
            }
            let (entry, block) = close_partition(&inputs, &schema, partition, first_offset, rows)?;
            partitions.push(entry);
            blocks.push(block);
        }
    }
    let entry = entry_of(&inputs, partitions);
    Ok(ClosedEpoch { entry, blocks, ranges })
}

fn newest(segments: &[Segment], members: &[usize]) -> Option<Arc<TopicSchema>> {
    let schemas = members.iter().map(|index| &segments[*index].schema);
    schemas.max_by_key(|schema| schema.version).cloned()
}

fn entry_of(inputs: &EpochInputs<'_>, partitions: Vec<PartitionEntry>) -> EpochEntry {
    let producers = inputs.producers.clone();
    let record = EpochRecord {
        term: inputs.term,
        epoch: inputs.tail.map_or(0, |tail| tail.epoch + 1),
        t: inputs.t,
        clock: inputs.clock,
        wall_clock_us: inputs.wall_clock_us,
        definitions: inputs.definitions,
        previous: inputs.tail.map_or_else(Hash256::default, EpochRecord::hash),
        partitions_root: partitions_root(&partitions),
        producers_hash: producers_hash(&encode_producers(&producers)),
        events: partitions.iter().map(|entry| u64::from(entry.count)).sum(),
        extensions: Extensions::default(),
    };
    EpochEntry { record, partitions, producers }
}

/// Splits a topic's segments by partition, all rows under the newest schema among them.
fn split(
    segments: &[Segment],
    members: &[usize],
    schema: &TopicSchema,
) -> Result<BTreeMap<u32, PartitionRows>, ArrowError> {
    let target = stored_row_schema(schema);
    let batches = members
        .iter()
        .map(|index| {
            let segment = &segments[*index];
            adapt(&segment.stored, &segment.schema, schema, Arc::clone(&target))
        })
        .collect::<Result<Vec<_>, _>>()?;
    if schema.partitions <= 1 {
        let gather = |of: fn(&Segment) -> &Vec<u8>| {
            members.iter().flat_map(|index| of(&segments[*index]).iter().copied()).collect()
        };
        let stored = match batches.as_slice() {
            [only] => only.clone(),
            _ => concat_batches(&target, &batches)?,
        };
        let owners = members.iter().zip(&batches);
        let rows = PartitionRows {
            stored,
            ids: gather(|segment| &segment.ids),
            ops: gather(|segment| &segment.ops),
            owners: owners.map(|(index, batch)| (*index, row_count(batch.num_rows()))).collect(),
        };
        return Ok(BTreeMap::from([(0, rows)]));
    }
    let batch_refs: Vec<&RecordBatch> = batches.iter().collect();
    let mut parts = BTreeMap::new();
    for (partition, picked) in place(&batches, schema)? {
        let mut rows = PartitionRows {
            stored: interleave_record_batch(&batch_refs, &picked)?,
            ids: Vec::with_capacity(picked.len() * EVENT_ID_BYTES),
            ops: Vec::with_capacity(picked.len()),
            owners: Vec::new(),
        };
        for (batch, row) in picked {
            let owner = members[batch];
            let at = row * EVENT_ID_BYTES;
            rows.ids.extend_from_slice(&segments[owner].ids[at..at + EVENT_ID_BYTES]);
            rows.ops.push(segments[owner].ops[row]);
            match rows.owners.last_mut() {
                Some((last, count)) if *last == owner => *count += 1,
                _ => rows.owners.push((owner, 1)),
            }
        }
        parts.insert(partition, rows);
    }
    Ok(parts)
}

/// Which rows, as (batch, row) in order, go to which partition.
fn place(
    batches: &[RecordBatch],
    schema: &TopicSchema,
) -> Result<BTreeMap<u32, Vec<(usize, usize)>>, ArrowError> {
    let mut placed: BTreeMap<u32, Vec<(usize, usize)>> = BTreeMap::new();
    let mut key = Vec::new();
    for (index, batch) in batches.iter().enumerate() {
        let cells = schema
            .key
            .iter()
            .map(|column| Cells::new(batch.column(*column).as_ref()))
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| ArrowError::SchemaError(error.to_string()))?;
        for row in 0..batch.num_rows() {
            key.clear();
            cells.iter().for_each(|cell| cell.encode(row, &mut key));
            placed.entry(partition_of(&key, schema.partitions)).or_default().push((index, row));
        }
    }
    Ok(placed)
}

pub(crate) fn row_count(rows: usize) -> u32 {
    u32::try_from(rows).unwrap_or(u32::MAX)
}

fn close_partition(
    inputs: &EpochInputs<'_>,
    schema: &Arc<TopicSchema>,
    partition: u32,
    first_offset: u64,
    rows: PartitionRows,
) -> Result<(PartitionEntry, OpenBlock), CloseError> {
    let topic = schema.id();
    let mut random = [0; 16 + SEED_BYTES];
    inputs.random.fill(&mut random).map_err(|_| CloseError::Random)?;
    let (mut id, mut seed) = ([0; 16], [0; SEED_BYTES]);
    id.copy_from_slice(&random[..16]);
    seed.copy_from_slice(&random[16..]);
    let id = BlockId(id);
    let count = row_count(rows.stored.num_rows());
    let block_error = |source| CloseError::Block { topic: schema.name.clone(), partition, source };
    let rows = block_rows(rows, seed)
        .map_err(|source| CloseError::Arrow { topic: schema.name.clone(), source })?;
    let hashes = event_hashes(&rows, schema.version).map_err(block_error)?;
    let header = BlockHeader { topic, partition, schema_version: schema.version, id, count };
    let entry = PartitionEntry {
        topic,
        partition,
        first_offset,
        count,
        blocks: vec![id],
        events_root: merkle::root(hashes.iter().map(|hash| hash.0)),
        extensions: Extensions::default(),
    };
    Ok((entry, OpenBlock { schema: Arc::clone(schema), header, rows }))
}

fn block_rows(rows: PartitionRows, seed: [u8; SEED_BYTES]) -> Result<BlockRows, ArrowError> {
    let width = EVENT_ID_BYTES as i32;
    Ok(BlockRows {
        seed,
        ops: UInt8Array::from(rows.ops),
        ids: FixedSizeBinaryArray::try_new(width, Buffer::from_vec(rows.ids), None)?,
        stored: rows.stored,
    })
}

#[cfg(test)]
mod tests;
