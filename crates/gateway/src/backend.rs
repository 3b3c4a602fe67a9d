//! What the doors ask of the node behind them: the [`Backend`] trait and its vocabulary.
//!
//! Why it exists: the gateway speaks gRPC, TLS and Arrow; the node knows the log, the engine and the
//! views. This is all that passes between them. It knows no log, no engine, no RocksDB and no file
//! of definitions.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use falaj_event::{LogTime, Op, ProducerId, TopicKind, TopicSchema, ViewId};
use futures::Stream;
use futures::future::BoxFuture;

pub use crate::error::BackendError;
pub use crate::prediction::{ModelInfo, PredictRequest, PredictResponse};

/// A stream of record batches of one schema; the consumer's pace is the producer's pace.
pub type BatchStream = Pin<Box<dyn Stream<Item = Result<RecordBatch, BackendError>> + Send>>;

/// Resolves when the batch's epoch record is durable (or will never be).
pub type AckFuture = BoxFuture<'static, Result<ProduceAck, BackendError>>;

/// The node, as the doors see it. Every method may be called from many tasks at once.
#[tonic::async_trait]
pub trait Backend: Send + Sync + 'static {
    /// What can be produced to and read, now. Cheap: a clone of a shared snapshot, which the
    /// backend replaces whole when a definition changes.
    fn catalog(&self) -> Arc<Catalog>;

    /// How far the log, the topic or view called `name` is; `None` where nothing is called so.
    async fn statistics(&self, name: &str) -> Option<Statistics>;

    /// The state of the node for operators, as a JSON object. It has at least `ready` (bool).
    async fn status(&self) -> serde_json::Value;

    /// Admits one batch. It returns once the batch has its place in the order of admission (this
    /// wait is the back-pressure); the [`AckFuture`] then resolves when the batch is durable.
    /// Batches admitted one after the other are committed in that order, so a caller may admit the
    /// next before the previous is acknowledged. Dropping the future does not withdraw the batch.
    ///
    /// # Errors
    /// When the whole batch is refused, nothing of it having been admitted. Single bad rows are no
    /// error: they are [`ProduceAck::rejected`].
    async fn produce(&self, request: ProduceRequest) -> Result<AckFuture, BackendError>;

    /// Looks keys up in one or more views at one `T_r`. It runs on the connection's task: an answer
    /// from memory or disk cache is given inline, a longer wait (`min_t`) yields.
    ///
    /// # Errors
    /// When the whole request has no answer. A key without a row is no error: see [`ValueStatus`].
    async fn lookup(&self, request: LookupRequest) -> Result<LookupResponse, BackendError>;

    /// Scores rows with the model that serves [`ModelInfo::name`] now: features of all rows are read
    /// at one `T_r`, one model version answers the whole request, and every score is logged as a
    /// prediction event before (`ack = "durable"`) or after (`"fast"`) it is given.
    ///
    /// # Errors
    /// When the whole request has no answer. A row that cannot be scored is no error of the
    /// request: its own error stands in the answer, and nothing is logged for it.
    async fn predict(&self, request: PredictRequest) -> Result<PredictResponse, BackendError> {
        Err(BackendError::unknown("model", &request.model.name, []))
    }

    /// All rows of one view at one `T`, ordered by key bytes, in batches of
    /// [`ScanRequest::batch_rows`] rows or fewer, with the schema [`ScanRequest::schema`].
    ///
    /// # Errors
    /// When the scan cannot start; the stream's own errors end it.
    async fn scan(&self, request: ScanRequest) -> Result<Scan, BackendError>;

    /// The events of a topic, within one partition by offset, in all by epoch then partition, with
    /// the schema [`TopicInfo::read_schema`]. With `follow` the stream does not end at the tail.
    ///
    /// # Errors
    /// When the read cannot start; the stream's own errors end it.
    async fn read_topic(&self, request: ReadTopicRequest) -> Result<BatchStream, BackendError>;

    /// The training set of a model pipeline: one row per label, in one order for one log.
    ///
    /// # Errors
    /// When there is no such pipeline, or its set cannot be computed.
    async fn training_set(&self, request: TrainingSetRequest) -> Result<TrainingSet, BackendError> {
        Err(BackendError::unknown("model pipeline", &request.pipeline, []))
    }

    /// The node's own actions, for [`Self::action`]: names with one line of description each.
    fn actions(&self) -> Vec<(&'static str, &'static str)> {
        Vec::new()
    }

    /// Runs an action of the node's own (audit, replay, …); `body` is what the client sent, NULL for
    /// an empty one. The answer is one JSON document.
    ///
    /// # Errors
    /// [`BackendError::Unknown`] for a name that the node does not have, or why the action failed.
    async fn action(
        &self,
        name: &str,
        body: serde_json::Value,
        identity: &Identity,
    ) -> Result<serde_json::Value, BackendError> {
        let _ = (body, identity);
        Err(BackendError::unknown("action", name, []))
    }
}

/// Who is calling, as authenticated by the door.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// A stable name, e.g. `local` for the holder of the local user's token.
    pub name: Arc<str>,
}

/// Everything that can be named in a request.
#[derive(Clone, Debug, Default)]
pub struct Catalog {
    /// Topics by name, system topics (`falaj.…`) and `….rejected` among them.
    pub topics: BTreeMap<String, Arc<TopicInfo>>,
    /// Views by name.
    pub views: BTreeMap<String, Arc<ViewInfo>>,
    /// Model pipelines by name.
    pub models: BTreeMap<String, Arc<ModelInfo>>,
}

/// A topic as the doors show it.
#[derive(Clone, Debug)]
pub struct TopicInfo {
    /// Name, columns, key, kind.
    pub schema: TopicSchema,
    /// What producers send: [`TopicSchema::arrow_schema`].
    pub arrow: SchemaRef,
    /// Whether clients may produce to it (not to system and derived topics).
    pub writable: bool,
    /// What people should know (description, owner, expectations, retention, …): a JSON object.
    pub details: serde_json::Value,
}

/// System columns that [`Backend::read_topic`] appends after a topic's own columns, in this order.
pub const TOPIC_SYSTEM_COLUMNS: [&str; 5] =
    ["__t", "__partition", "__offset", "__op", "__event_id"];

impl TopicInfo {
    /// A topic that clients may produce to unless it is derived.
    pub fn new(schema: TopicSchema, details: serde_json::Value) -> Self {
        Self { arrow: schema.arrow_schema(), writable: !schema.derived, schema, details }
    }

    /// What readers get: the declared columns, all nullable (older versions lack newer columns),
    /// then `__t` uint64 (µs), `__partition` uint32, `__offset` uint64, `__op` string (`insert`,
    /// `upsert`, `delete`) and `__event_id` binary (33 bytes, see `falaj_event::EventId`).
    pub fn read_schema(&self) -> SchemaRef {
        let types = [
            DataType::UInt64,
            DataType::UInt32,
            DataType::UInt64,
            DataType::Utf8,
            DataType::Binary,
        ];
        let own = self
            .arrow
            .fields()
            .iter()
            .map(|field| Arc::new(field.as_ref().clone().with_nullable(true)));
        let system = TOPIC_SYSTEM_COLUMNS
            .iter()
            .zip(types)
            .map(|(name, data_type)| Arc::new(Field::new(*name, data_type, false)));
        Arc::new(Schema::new(own.chain(system).collect::<Vec<_>>()))
    }

    /// What an event without a given operation is.
    pub fn default_op(&self) -> Op {
        match self.schema.kind {
            TopicKind::Event => Op::Insert,
            TopicKind::Table => Op::Upsert,
        }
    }
}

/// A view as the doors show it.
#[derive(Clone, Debug)]
pub struct ViewInfo {
    /// Its name.
    pub name: String,
    /// Its version; a changed definition is another id.
    pub id: ViewId,
    /// All output columns in order, key columns too.
    pub schema: SchemaRef,
    /// Indices of the key columns in `schema`, in key order.
    pub key: Vec<usize>,
    /// A row expires when `T_r` is this many microseconds past its latest event; `None`: never.
    pub ttl_us: Option<u64>,
    /// What people should know (description, owner, tags, SQL, cost class per feature, …): a JSON
    /// object.
    pub details: serde_json::Value,
}

impl ViewInfo {
    /// Indices of the columns that are not part of the key.
    pub fn value_columns(&self) -> Vec<usize> {
        (0..self.schema.fields().len()).filter(|index| !self.key.contains(index)).collect()
    }
}

/// How far a topic or view is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Events of the topic or rows of the view, where it is known without counting.
    pub records: Option<u64>,
    /// A topic: the newest committed `T`. A view: its progress.
    pub t: Option<LogTime>,
    /// A view: time from the newest commit to its being readable, in microseconds, lately.
    pub freshness_us: Option<u64>,
}

/// One batch on its way in.
#[derive(Clone, Debug)]
pub struct ProduceRequest {
    /// The topic, from the current catalog.
    pub topic: Arc<TopicInfo>,
    /// The declared columns in declared order and of the declared types. Every field is nullable
    /// here: a column that the producer did not send is all NULL, and NULL in a column that forbids
    /// it is a rejected row, not a refused batch.
    pub batch: RecordBatch,
    /// One operation per row; `None`: [`TopicInfo::default_op`] for all.
    pub ops: Option<Vec<Op>>,
    /// Rows with values that could not be converted to the declared type (NULL in `batch`). They
    /// are to be rejected with these reasons and any others. Ordered by row; at most one per row.
    pub misfits: Vec<Misfit>,
    /// Who numbers these rows: the given id, or the id of this connection's session.
    pub producer: ProducerId,
    /// The sequence of row 0; row `i` has `first_sequence + i`, rejected or not.
    pub first_sequence: u64,
    /// Who sends it.
    pub identity: Identity,
}

/// A row that does not fit the declared types.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Misfit {
    /// Row in the batch, from 0.
    pub row: usize,
    /// One reason per column that does not fit, each naming column, value and type.
    pub reasons: Vec<String>,
    /// The row as it was sent: a JSON object.
    pub original: String,
}

/// What became of a batch; given when its epoch is durable.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProduceAck {
    /// The epoch's `T`; of a retry, the original one.
    pub t: LogTime,
    /// The epoch's number.
    pub epoch: u64,
    /// Where the accepted rows are.
    pub offsets: Vec<OffsetRange>,
    /// Rows appended to the topic by this request.
    pub accepted: u64,
    /// Rows appended to `<topic>.rejected`, ordered by row.
    pub rejected: Vec<RejectedRow>,
    /// Rows that were already in the log.
    pub duplicates: u64,
}

/// Offsets that a batch was given in one partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OffsetRange {
    /// The partition.
    pub partition: u32,
    /// Offset of its first row there.
    pub first: u64,
    /// Number of its rows there.
    pub count: u64,
}

/// A row that was not accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RejectedRow {
    /// Row in the batch, from 0.
    pub row: usize,
    /// Every reason.
    pub reasons: Vec<String>,
}

/// A view and the columns wanted of it.
#[derive(Clone, Debug)]
pub struct ViewSelection {
    /// The view, from the current catalog.
    pub view: Arc<ViewInfo>,
    /// Indices into `view.schema`, in the order of the answer.
    pub columns: Vec<usize>,
    /// For each key column of the view, in key order, its column in [`LookupRequest::keys`].
    pub key_columns: Vec<usize>,
}

/// Keys to look up.
#[derive(Clone, Debug)]
pub struct LookupRequest {
    /// The views, all read at one `T_r`. Shared by all requests of one stream.
    pub views: Arc<[ViewSelection]>,
    /// One key per row (per view: [`ViewSelection::key_columns`]), of exactly the views' key types.
    /// A NULL in a key is a key that was never seen.
    pub keys: RecordBatch,
    /// Read at the greatest epoch `T` at or before this one instead of the newest.
    pub as_of: Option<LogTime>,
    /// Wait until `T_r >= min_t`.
    pub min_t: Option<LogTime>,
    /// When to give up waiting for `min_t`.
    pub deadline: Option<Instant>,
    /// Who asks.
    pub identity: Identity,
}

/// What became of one value of a lookup. The numbers are part of the wire contract.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum ValueStatus {
    /// There is a value.
    Present = 0,
    /// The value is SQL NULL.
    Null = 1,
    /// No event of that key was ever seen (at or before `T_r`).
    NotFound = 2,
    /// The key's latest event is longer ago than the view's ttl.
    Expired = 3,
    /// The subject was erased.
    Erased = 4,
    /// The view is still being built up to `T_r`.
    Unavailable = 5,
    /// The value's computation had no answer (overflow, division by zero, …).
    Error = 6,
}

impl ValueStatus {
    /// All of them, by number.
    pub const ALL: [Self; 7] = [
        Self::Present,
        Self::Null,
        Self::NotFound,
        Self::Expired,
        Self::Erased,
        Self::Unavailable,
        Self::Error,
    ];

    /// Its name in JSON metadata.
    pub fn name(self) -> &'static str {
        match self {
            Self::Present => "present",
            Self::Null => "null",
            Self::NotFound => "not_found",
            Self::Expired => "expired",
            Self::Erased => "erased",
            Self::Unavailable => "unavailable",
            Self::Error => "error",
        }
    }
}

/// Rows found, one [`ViewRows`] per requested view in request order.
#[derive(Clone, Debug)]
pub struct LookupResponse {
    /// The `T_r` at which all views were read.
    pub t: LogTime,
    /// Per view.
    pub views: Vec<ViewRows>,
}

/// Rows of one view, aligned to the requested keys.
#[derive(Clone, Debug)]
pub struct ViewRows {
    /// The requested columns in requested order; row `i` belongs to key `i`. Values whose status is
    /// not [`ValueStatus::Present`] are NULL.
    pub columns: Vec<ArrayRef>,
    /// [`ValueStatus`] as bytes, row by row: as many as keys times columns.
    pub statuses: Vec<u8>,
}

/// A whole view.
#[derive(Clone, Debug)]
pub struct ScanRequest {
    /// The view, from the current catalog.
    pub view: Arc<ViewInfo>,
    /// Indices into `view.schema`, in the order of the answer.
    pub columns: Vec<usize>,
    /// Read at the greatest epoch `T` at or before this one instead of the newest.
    pub as_of: Option<LogTime>,
    /// Wait until `T_r >= min_t`.
    pub min_t: Option<LogTime>,
    /// When to give up waiting for `min_t`.
    pub deadline: Option<Instant>,
    /// Greatest number of rows per batch.
    pub batch_rows: usize,
    /// Who asks.
    pub identity: Identity,
}

/// Name of the column of value statuses, in lookups and scans.
pub const STATUS_COLUMN: &str = "__status";

impl ScanRequest {
    /// The requested columns, nullable, then `__status`: [`status_field`] over the requested
    /// columns. Rows past their ttl are there, their values NULL and EXPIRED (key columns stay).
    pub fn schema(&self) -> SchemaRef {
        let mut fields: Vec<_> = self
            .columns
            .iter()
            .map(|index| Arc::new(self.view.schema.field(*index).clone().with_nullable(true)))
            .collect();
        fields.push(Arc::new(status_field(self.columns.len())));
        Arc::new(Schema::new(fields))
    }
}

/// The `__status` column: a fixed-size list of `columns` uint8, one per value column of the same
/// row in order, each a [`ValueStatus`].
pub fn status_field(columns: usize) -> Field {
    let item = Arc::new(Field::new("item", DataType::UInt8, false));
    let length = i32::try_from(columns).unwrap_or(i32::MAX);
    Field::new(STATUS_COLUMN, DataType::FixedSizeList(item, length), false)
}

/// A running scan.
pub struct Scan {
    /// The `T_r` of every row.
    pub t: LogTime,
    /// The rows.
    pub batches: BatchStream,
}

/// A range of a topic.
#[derive(Clone, Debug)]
pub struct ReadTopicRequest {
    /// The topic, from the current catalog.
    pub topic: Arc<TopicInfo>,
    /// Which partition; `None`: all.
    pub partition: Option<u32>,
    /// First offset (with `partition` only).
    pub from_offset: Option<u64>,
    /// Offset after the last one (with `partition` only).
    pub to_offset: Option<u64>,
    /// Only epochs with `T >= from_t`.
    pub from_t: Option<LogTime>,
    /// Only epochs with `T <= to_t`.
    pub to_t: Option<LogTime>,
    /// Give at most this many events.
    pub limit: Option<u64>,
    /// Go on with new epochs as they are committed, until `to_t`, `to_offset` or `limit`.
    pub follow: bool,
    /// Greatest number of rows per batch.
    pub batch_rows: usize,
    /// Who asks.
    pub identity: Identity,
}

/// A training set.
#[derive(Clone, Debug)]
pub struct TrainingSetRequest {
    /// The model pipeline.
    pub pipeline: String,
    /// `as_corrected`, `as_known` or `as_served`; `None`: the pipeline's own.
    pub mode: Option<String>,
    /// Only what was in the log at this `T`.
    pub until: Option<LogTime>,
    /// All labels rather than the pipeline's choice of them.
    pub all: bool,
    /// Whether the differences to the other modes are wanted.
    pub compare: bool,
    /// Greatest number of rows per batch.
    pub batch_rows: usize,
    /// Who asks.
    pub identity: Identity,
}

/// A computed training set.
pub struct TrainingSet {
    /// The schema of every batch.
    pub schema: SchemaRef,
    /// What it is made of: pipeline, mode, hashes, rows, `t`, differences. A JSON object.
    pub metadata: serde_json::Value,
    /// The rows.
    pub batches: BatchStream,
}

/// Time left until `deadline`, zero when it has passed; `None` without one.
pub fn remaining(deadline: Option<Instant>, now: Instant) -> Option<Duration> {
    deadline.map(|deadline| deadline.saturating_duration_since(now))
}
