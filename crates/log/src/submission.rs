//! What callers hand to the sequencer and what they get back.
//!
//! Does not know expectations: rows that a caller has already rejected come beside the good ones.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::TimestampMicrosecondType;
use arrow::record_batch::RecordBatch;
use falaj_event::hash::domain_hash;
use falaj_event::ids::EVENT_ID_BYTES;
use falaj_event::{EventId, Hash256, LogTime, Op, ProducerId, TopicId, TopicKind, TopicSchema};
use falaj_vault::Vault;

use crate::pii::{PiiError, seal_rows};
use crate::schemas::{may_be_null, rebatch, row_schema};

/// Where events come from, and with it their ids.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A producer's batch: the sequences `first_sequence .. first_sequence + sequences`, of which
    /// each is an accepted or a rejected row. A producer sends its sequences in ascending order;
    /// it may leave some out, but what it skipped cannot be sent later.
    Producer {
        /// Who.
        producer: ProducerId,
        /// Sequence of the batch's first row.
        first_sequence: u64,
        /// Number of rows of the batch, rejected ones included.
        sequences: u32,
    },
    /// Events that the platform derives: ids by row. Never moves `T`; not deduplicated here (the
    /// caller keeps a watermark).
    Derived(Vec<Hash256>),
}

/// The operations of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ops {
    /// The same for all rows.
    All(Op),
    /// Row by row.
    Each(Vec<Op>),
}

impl Ops {
    /// The operation of a row; inserts beyond the end.
    pub fn get(&self, row: usize) -> Op {
        match self {
            Self::All(op) => *op,
            Self::Each(ops) => ops.get(row).copied().unwrap_or(Op::Insert),
        }
    }
}

/// Rows on their way to a `<topic>.rejected`.
#[derive(Clone, Debug)]
pub struct Rejections {
    /// The rejected topic's schema.
    pub schema: Arc<TopicSchema>,
    /// One row per rejected row, in declared types. The event-time column is overwritten with the
    /// epoch's `T`.
    pub batch: RecordBatch,
    /// Which rows these were, ascending: positions in the producer's batch (in a [`Submission`]), or
    /// rows of the candidate (from [`crate::close::Admission`]).
    pub rows: Vec<u32>,
    /// Why, per row.
    pub reasons: Vec<Vec<String>>,
}

/// What is called once with the outcome, on the sequencer's thread: it must not block.
pub type Reply = Box<dyn FnOnce(Result<Ack, SubmitError>) + Send>;

/// A batch of events for one topic.
pub struct Submission {
    /// The topic, in the version that the batch was made under.
    pub schema: Arc<TopicSchema>,
    /// Source and ids.
    pub origin: Origin,
    /// Operations, by row of `batch`.
    pub ops: Ops,
    /// Rows in declared types and declared order (see [`row_schema`]; names and nullability of the
    /// batch's own schema do not matter).
    pub batch: RecordBatch,
    /// Position of each row in the producer's batch, ascending; `None` when no row is missing.
    pub positions: Option<Vec<u32>>,
    /// The rows that were rejected before: the positions that `positions` leaves out, with reasons.
    pub rejected: Option<Rejections>,
    /// Gets the outcome.
    pub reply: Reply,
}

/// What was appended to one partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AppendedRange {
    /// Partition of the submission's topic.
    pub partition: u32,
    /// Offset of the first row.
    pub first_offset: u64,
    /// Number of rows; their offsets are dense.
    pub count: u32,
}

/// A rejected row, as its producer is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RejectedRow {
    /// Position in the producer's batch, from 0.
    pub position: u32,
    /// Every reason; empty for a row that an earlier submission of the same sequence was told.
    pub reasons: Vec<String>,
}

/// Rows of a submission that the log already held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Duplicates {
    /// Position of the first of them in the producer's batch.
    pub position: u32,
    /// How many.
    pub count: u32,
    /// How many of these were accepted then.
    pub accepted: u32,
    /// The epoch that carries them.
    pub epoch: u64,
    /// That epoch's `T`.
    pub t: LogTime,
}

/// The outcome of a submission: durable when it is given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ack {
    /// `T` of the epoch that carries the last row: the original one for a pure retry.
    pub t: LogTime,
    /// That epoch's number.
    pub epoch: u64,
    /// What was appended now, per partition, ascending.
    pub appended: Vec<AppendedRange>,
    /// Number of accepted rows, duplicates included.
    pub accepted: u32,
    /// Rejected rows, ascending by position, duplicates included.
    pub rejected: Vec<RejectedRow>,
    /// What the log already held.
    pub duplicates: Vec<Duplicates>,
}

/// Why a submission has no acknowledgement.
#[derive(Debug, Clone, thiserror::Error)]
pub enum SubmitError {
    /// The submission contradicts itself or its topic.
    #[error("topic `{topic}`: the submission is malformed: {why}")]
    Malformed {
        /// The topic.
        topic: String,
        /// What is wrong.
        why: String,
    },
    /// A sequence that is behind the producer's newest one and was never recorded.
    #[error(
        "producer {producer:?}: sequence {sequence} was never recorded and is not above {last}, \
         the newest one: send sequences in ascending order, or use a new producer id"
    )]
    SequenceNotRecorded {
        /// Who.
        producer: ProducerId,
        /// The sequence.
        sequence: u64,
        /// The newest recorded sequence.
        last: u64,
    },
    /// A sequence that was used for another topic.
    #[error("producer {producer:?}: sequence {sequence} was already used for topic {topic:?}")]
    SequenceOfOtherTopic {
        /// Who.
        producer: ProducerId,
        /// The sequence.
        sequence: u64,
        /// The topic that has it.
        topic: TopicId,
    },
    /// Personal values were not sealed.
    #[error("topic `{topic}`: {source}")]
    Sealing {
        /// The topic.
        topic: String,
        /// The cause.
        source: Arc<PiiError>,
    },
    /// The queue is full and the caller did not want to wait.
    #[error("the sequencer's queue is full: wait and send the same sequences again")]
    Full,
    /// The sequencer was shut down before it took the submission.
    #[error("the sequencer is shut down; nothing was appended")]
    Closed,
    /// The log failed.
    #[error(
        "the sequencer stopped: {reason}. Whether the last epoch was appended is known when the log \
         is reopened; send the same sequences again then"
    )]
    Poisoned {
        /// What failed.
        reason: Arc<str>,
    },
}

/// A checked submission with its personal values sealed: all that needs no order.
pub(crate) struct Prepared {
    pub schema: Arc<TopicSchema>,
    pub origin: Origin,
    pub ops: Ops,
    /// Declared types, under [`row_schema`].
    pub batch: RecordBatch,
    /// What will be stored.
    pub stored: RecordBatch,
    pub positions: Option<Vec<u32>>,
    pub rejected: Option<PreparedRejections>,
    pub bytes: usize,
}

/// Rejected rows with their personal values sealed.
pub(crate) struct PreparedRejections {
    pub schema: Arc<TopicSchema>,
    pub stored: RecordBatch,
    /// Positions in the producer's batch, ascending.
    pub positions: Vec<u32>,
    /// Ids of the rejection events.
    pub ids: Vec<[u8; EVENT_ID_BYTES]>,
    pub reasons: Vec<Vec<String>>,
}

impl Origin {
    /// The id of the event at this position of the source's batch.
    pub fn event_id(&self, position: u32) -> EventId {
        match self {
            Self::Producer { producer, first_sequence, .. } => EventId::Producer {
                producer: *producer,
                sequence: first_sequence.saturating_add(position.into()),
            },
            Self::Derived(ids) => {
                EventId::Derived(ids.get(position as usize).copied().unwrap_or_default())
            }
        }
    }

    /// Number of rows of the source's batch, rejected ones included.
    pub(crate) fn rows(&self) -> usize {
        match self {
            Self::Producer { sequences, .. } => *sequences as usize,
            Self::Derived(ids) => ids.len(),
        }
    }
}

/// The id of the event that records the rejection of `original` on the topic `rejected`.
pub fn rejection_id(rejected: TopicId, original: &EventId) -> EventId {
    EventId::Derived(domain_hash(b"falaj.rejected.v1", &[&rejected.0, &original.to_bytes()]))
}

/// The position that row `row` of a batch has in its source's batch.
pub(crate) fn position_of(positions: Option<&[u32]>, row: usize) -> u32 {
    match positions {
        Some(positions) => positions.get(row).copied().unwrap_or(u32::MAX),
        None => u32::try_from(row).unwrap_or(u32::MAX),
    }
}

/// The microseconds of an event-time column; `None` for another type.
pub(crate) fn event_times(column: &ArrayRef) -> Option<&[i64]> {
    let times = column.as_primitive_opt::<TimestampMicrosecondType>()?;
    Some(times.values())
}

impl Submission {
    /// Checks the submission and seals its personal values; runs on the caller's thread.
    pub(crate) fn prepare(self, vault: &Vault) -> (Result<Prepared, SubmitError>, Reply) {
        let Self { schema, origin, ops, batch, positions, rejected, reply } = self;
        let rejections = rejected.as_ref().map(|rejected| rejected.rows.as_slice());
        let prepared = check_positions(&origin, batch.num_rows(), positions.as_deref(), rejections)
            .and_then(|()| check_ops(&schema, &ops, batch.num_rows()))
            .and_then(|()| check_batch(&schema, &batch, &ops))
            .map_err(|why| SubmitError::Malformed { topic: schema.name.clone(), why })
            .and_then(|batch| {
                let ids: Vec<_> = match schema.columns.iter().any(|column| column.pii) {
                    true => (0..batch.num_rows())
                        .map(|row| origin.event_id(position_of(positions.as_deref(), row)))
                        .map(|id| id.to_bytes())
                        .collect(),
                    false => Vec::new(),
                };
                let stored = seal(vault, &schema, &batch, &ids)?;
                let rejected = rejected
                    .map(|rejected| {
                        let positions = rejected.rows.clone();
                        PreparedRejections::new(vault, &origin, rejected, positions)
                    })
                    .transpose()?;
                let bytes = memory_bytes(&stored);
                Ok(Prepared { schema, origin, ops, batch, stored, positions, rejected, bytes })
            });
        (prepared, reply)
    }
}

impl PreparedRejections {
    /// Checks and seals rejections of rows that have these positions.
    pub(crate) fn new(
        vault: &Vault,
        origin: &Origin,
        rejections: Rejections,
        positions: Vec<u32>,
    ) -> Result<Self, SubmitError> {
        let Rejections { schema, batch, reasons, .. } = rejections;
        let malformed = |why| SubmitError::Malformed { topic: schema.name.clone(), why };
        let count = positions.len();
        if batch.num_rows() != count || reasons.len() != count {
            let (rows, told) = (batch.num_rows(), reasons.len());
            return Err(malformed(format!("{count} rejected rows, {rows} rows, {told} reasons")));
        }
        let batch = check_batch(&schema, &batch, &Ops::All(Op::Insert)).map_err(malformed)?;
        let topic = schema.id();
        let ids: Vec<_> = positions
            .iter()
            .map(|position| rejection_id(topic, &origin.event_id(*position)).to_bytes())
            .collect();
        let stored = seal(vault, &schema, &batch, &ids)?;
        Ok(Self { schema, stored, positions, ids, reasons })
    }
}

fn seal(
    vault: &Vault,
    schema: &TopicSchema,
    batch: &RecordBatch,
    ids: &[[u8; EVENT_ID_BYTES]],
) -> Result<RecordBatch, SubmitError> {
    seal_rows(vault, schema, batch, |row| &ids[row]).map_err(|source| SubmitError::Sealing {
        topic: schema.name.clone(),
        source: Arc::new(source),
    })
}

/// What the rows take in memory, without what their buffers share with other batches.
fn memory_bytes(batch: &RecordBatch) -> usize {
    let sizes = batch.columns().iter().map(|column| column.to_data().get_slice_memory_size());
    sizes.flatten().sum()
}

/// Every position of the source's batch is exactly one row, kept or rejected.
fn check_positions(
    origin: &Origin,
    rows: usize,
    positions: Option<&[u32]>,
    rejected: Option<&[u32]>,
) -> Result<(), String> {
    let total = origin.rows();
    let rejected = rejected.unwrap_or_default();
    if let Origin::Producer { first_sequence, sequences, .. } = origin
        && first_sequence.checked_add(u64::from(*sequences)).is_none()
    {
        return Err(format!("sequences overflow after {first_sequence}"));
    }
    if total == 0 {
        return Err("it holds no rows".into());
    }
    if rows + rejected.len() != total || positions.is_some_and(|of| of.len() != rows) {
        let bad = rejected.len();
        return Err(format!("{rows} rows and {bad} rejected ones for {total} positions"));
    }
    let Some(positions) = positions else {
        return match rejected.is_empty() {
            true => Ok(()),
            false => Err("rejected rows without positions".into()),
        };
    };
    if !positions.is_sorted_by(|a, b| a < b) || !rejected.is_sorted_by(|a, b| a < b) {
        return Err("positions do not ascend".into());
    }
    let inside = |of: &[u32]| of.last().is_none_or(|last| (*last as usize) < total);
    let overlap = rejected.iter().any(|position| positions.binary_search(position).is_ok());
    match inside(positions) && inside(rejected) && !overlap {
        true => Ok(()),
        false => Err("positions do not make up the batch".into()),
    }
}

fn check_ops(schema: &TopicSchema, ops: &Ops, rows: usize) -> Result<(), String> {
    let allowed = |op: &Op| match schema.kind {
        TopicKind::Event => *op == Op::Insert,
        TopicKind::Table => *op != Op::Insert,
    };
    let (fit, count) = match ops {
        Ops::All(op) => (allowed(op), rows),
        Ops::Each(ops) => (ops.iter().all(allowed), ops.len()),
    };
    match (fit, count == rows) {
        (true, true) => Ok(()),
        (false, _) => Err("event topics take inserts, table topics upserts and deletes".into()),
        (_, false) => Err(format!("{count} operations for {rows} rows")),
    }
}

/// The batch under [`row_schema`], with types and nullability checked.
fn check_batch(
    schema: &TopicSchema,
    batch: &RecordBatch,
    ops: &Ops,
) -> Result<RecordBatch, String> {
    let expected = row_schema(schema);
    if batch.num_columns() != expected.fields().len() {
        let (found, wanted) = (batch.num_columns(), expected.fields().len());
        return Err(format!("{found} columns instead of {wanted}"));
    }
    for (index, (field, array)) in expected.fields().iter().zip(batch.columns()).enumerate() {
        if !array.data_type().equals_datatype(field.data_type()) {
            let (name, found) = (field.name(), array.data_type());
            return Err(format!("column `{name}` is {found}, not {}", field.data_type()));
        }
        let null_in = |row: usize| {
            array.is_null(row) && (ops.get(row) != Op::Delete || !may_be_null(schema, index))
        };
        if array.null_count() > 0
            && !schema.columns[index].nullable
            && let Some(row) = (0..array.len()).find(|row| null_in(*row))
        {
            return Err(format!("row {row}: column `{}` is NULL", field.name()));
        }
    }
    rebatch(expected, batch.columns().to_vec(), batch.num_rows()).map_err(|error| error.to_string())
}
