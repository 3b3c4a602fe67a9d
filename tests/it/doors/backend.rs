//! A backend in memory: real answers from plain maps, so that the doors are tested without a node.
//!
//! It commits every batch as one epoch, keeps every version of every row, and can be told to hold
//! acknowledgements back.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use arrow::array::{
    Array, ArrayRef, AsArray, BinaryArray, Float64Array, Int64Array, RecordBatch, StringArray,
    UInt32Array, UInt64Array,
};
use arrow::compute::{concat_batches, take_record_batch};
use arrow::datatypes::{DataType, Field, Float64Type, Schema, SchemaRef, TimestampMicrosecondType};
use falaj_event::{
    Classification, Column, ColumnType, Hash256, LogTime, Op, ProducerId, TopicKind, TopicSchema,
    ViewId,
};
use falaj_gateway::backend::*;
use falaj_gateway::lookup::status_array;
use falaj_gateway::{Client, ConnectOptions, Handle, Limits, Options, Server, Tls};
use futures::stream::{StreamExt, unfold};
use serde_json::json;
use tokio::sync::watch;

/// `T` of the first epoch.
pub const FIRST_T: u64 = 1_000;
/// Rows of `card_totals` expire this long after their latest event.
pub const TTL_US: u64 = 1_000_000;

#[derive(Clone, Debug)]
struct CardRow {
    latest_us: i64,
    count: i64,
    /// `None`: NULL. NaN stands for a computation without an answer.
    total: Option<f64>,
}

struct StoredBatch {
    t: u64,
    first_offset: u64,
    batch: RecordBatch,
    ops: Vec<Op>,
    producer: ProducerId,
    first_sequence: u64,
}

#[derive(Default)]
struct State {
    batches: Vec<StoredBatch>,
    next_offset: u64,
    cards: BTreeMap<String, Vec<(u64, CardRow)>>,
    acks: BTreeMap<(ProducerId, u64), ProduceAck>,
}

/// The backend.
pub struct MemoryBackend {
    catalog: Arc<Catalog>,
    state: Arc<Mutex<State>>,
    /// The newest `T`.
    pub t: watch::Sender<u64>,
    /// Acknowledgements wait while this is true.
    pub hold: watch::Sender<bool>,
    /// Batches admitted so far.
    pub admitted: AtomicUsize,
    /// Lookups that are waiting for `min_t` now.
    pub waiting: AtomicU64,
    /// Batches that scans were asked for.
    pub scanned: Arc<AtomicUsize>,
}

fn column(name: &str, column_type: ColumnType, nullable: bool) -> Column {
    Column {
        name: name.to_owned(),
        column_type,
        nullable,
        pii: false,
        classification: Classification::Internal,
        since_version: 1,
    }
}

fn topic(name: &str, kind: TopicKind, derived: bool) -> (String, Arc<TopicInfo>) {
    let schema = TopicSchema {
        name: name.to_owned(),
        version: 1,
        kind,
        columns: vec![
            column("card", ColumnType::String, false),
            column("amount", ColumnType::Float64, true),
            column("at", ColumnType::Timestamp, false),
            column("shop", ColumnType::Int32, true),
        ],
        key: vec![0],
        event_time: 2,
        subject: None,
        partitions: 2,
        derived,
    };
    let info = TopicInfo::new(schema, json!({ "description": format!("the topic {name}") }));
    (name.to_owned(), Arc::new(info))
}

fn view(
    name: &str,
    number: u8,
    key: (&str, DataType),
    values: &[(&str, DataType)],
) -> (String, Arc<ViewInfo>) {
    let mut fields = vec![Field::new(key.0, key.1, false)];
    fields
        .extend(values.iter().map(|(name, data_type)| Field::new(*name, data_type.clone(), true)));
    let info = ViewInfo {
        name: name.to_owned(),
        id: ViewId::of(&Hash256([number; 32])),
        schema: Arc::new(Schema::new(fields)),
        key: vec![0],
        ttl_us: Some(TTL_US),
        details: json!({ "owner": "tests" }),
    };
    (name.to_owned(), Arc::new(info))
}

fn events_at(
    state: &Mutex<State>,
    number: usize,
    schema: &SchemaRef,
) -> Option<(u64, RecordBatch)> {
    let state = state.lock().unwrap();
    let stored = state.batches.get(number)?;
    let rows = stored.batch.num_rows();
    let sequence = stored.first_sequence;
    let ids = (0..rows as u64).map(|row| {
        falaj_event::EventId::Producer { producer: stored.producer, sequence: sequence + row }
            .to_bytes()
    });
    let ops = stored.ops.iter().map(|op| match op {
        Op::Insert => "insert",
        Op::Upsert => "upsert",
        Op::Delete => "delete",
    });
    let system: [ArrayRef; 5] = [
        Arc::new(UInt64Array::from(vec![stored.t; rows])),
        Arc::new(UInt32Array::from(vec![0; rows])),
        Arc::new(UInt64Array::from_iter_values(
            stored.first_offset..stored.first_offset + rows as u64,
        )),
        Arc::new(StringArray::from_iter_values(ops)),
        Arc::new(BinaryArray::from_iter_values(ids)),
    ];
    let columns = stored.batch.columns().iter().cloned().chain(system).collect();
    Some((stored.t, RecordBatch::try_new(Arc::clone(schema), columns).unwrap()))
}

impl MemoryBackend {
    pub fn new() -> Arc<Self> {
        let numbers = [("count", DataType::Int64), ("total", DataType::Float64)];
        let numbered = |n: usize| (0..n).map(|i| format!("f{i}")).collect::<Vec<_>>();
        let wide = numbered(400);
        let wide: Vec<_> = wide.iter().map(|name| (name.as_str(), DataType::Int64)).collect();
        let catalog = Catalog {
            topics: [
                topic("payments", TopicKind::Event, false),
                topic("accounts", TopicKind::Table, false),
                topic("falaj.epochs", TopicKind::Event, true),
            ]
            .into(),
            views: [
                view("card_totals", 1, ("card", DataType::Utf8), &numbers),
                view("card_counts", 2, ("card", DataType::Utf8), &numbers[..1]),
                view("big", 3, ("row", DataType::Int64), &wide),
            ]
            .into(),
            models: Default::default(),
        };
        Arc::new(Self {
            catalog: Arc::new(catalog),
            state: Arc::default(),
            t: watch::Sender::new(FIRST_T - 1),
            hold: watch::Sender::new(false),
            admitted: AtomicUsize::new(0),
            waiting: AtomicU64::new(0),
            scanned: Arc::default(),
        })
    }

    /// Moves `T` on without events.
    pub fn tick(&self, t: u64) {
        self.t.send_replace(t);
    }

    fn commit(&self, request: &ProduceRequest) -> ProduceAck {
        let state = &mut *self.state.lock().unwrap();
        let identity = (request.producer, request.first_sequence);
        if let Some(original) = state.acks.get(&identity) {
            return ProduceAck { accepted: 0, duplicates: original.accepted, ..original.clone() };
        }
        let t = *self.t.borrow() + 1;
        let batch = &request.batch;
        let (cards, amounts) = (batch.column(0).as_string::<i32>(), batch.column(1));
        let amounts = amounts.as_primitive::<Float64Type>();
        let times = batch.column(2).as_primitive::<TimestampMicrosecondType>();
        let misfits: BTreeMap<_, _> =
            request.misfits.iter().map(|misfit| (misfit.row, misfit)).collect();
        let mut rejected = Vec::new();
        let mut kept = Vec::new();
        for row in 0..batch.num_rows() {
            let mut reasons = misfits.get(&row).map_or(vec![], |misfit| misfit.reasons.clone());
            if cards.is_null(row) || times.is_null(row) {
                reasons.push("`card` and `at` must not be NULL".to_owned());
            }
            if !reasons.is_empty() {
                rejected.push(RejectedRow { row, reasons });
                continue;
            }
            kept.push(row as u64);
            let versions = state.cards.entry(cards.value(row).to_owned()).or_default();
            let mut next = versions
                .last()
                .map_or(CardRow { latest_us: i64::MIN, count: 0, total: None }, |(_, row)| {
                    row.clone()
                });
            next.count += 1;
            next.latest_us = next.latest_us.max(times.value(row));
            if amounts.is_valid(row) {
                next.total = Some(next.total.unwrap_or(0.0) + amounts.value(row));
            }
            versions.push((t, next));
        }
        let accepted = kept.len() as u64;
        let first = state.next_offset;
        let ops = request.ops.clone().unwrap_or(vec![Op::Insert; batch.num_rows()]);
        state.batches.push(StoredBatch {
            t,
            first_offset: first,
            ops: kept.iter().map(|row| ops[*row as usize]).collect(),
            batch: take_record_batch(batch, &UInt64Array::from(kept)).unwrap(),
            producer: request.producer,
            first_sequence: request.first_sequence,
        });
        state.next_offset += accepted;
        let offsets = vec![OffsetRange { partition: 0, first, count: accepted }];
        let ack = ProduceAck {
            t: LogTime(t),
            epoch: t - FIRST_T,
            offsets,
            accepted,
            rejected,
            duplicates: 0,
        };
        state.acks.insert(identity, ack.clone());
        self.t.send_replace(t);
        ack
    }

    async fn read_t(
        &self,
        as_of: Option<LogTime>,
        min_t: Option<LogTime>,
        deadline: Option<std::time::Instant>,
    ) -> Result<LogTime, BackendError> {
        let mut t = self.t.subscribe();
        if let Some(min_t) = min_t {
            self.waiting.fetch_add(1, Ordering::SeqCst);
            struct Waiting<'a>(&'a AtomicU64);
            impl Drop for Waiting<'_> {
                fn drop(&mut self) {
                    self.0.fetch_sub(1, Ordering::SeqCst);
                }
            }
            let _waiting = Waiting(&self.waiting);
            let reached = t.wait_for(|t| *t >= min_t.0);
            let deadline = tokio::time::Instant::from_std(deadline.unwrap());
            if tokio::time::timeout_at(deadline, reached).await.is_err() {
                let reached = LogTime(*self.t.borrow());
                return Err(BackendError::NotYet { wanted: min_t, reached });
            }
        }
        let newest = LogTime(*t.borrow());
        match as_of {
            Some(asked) if asked.0 < FIRST_T => {
                Err(BackendError::NotRetained { asked, oldest: LogTime(FIRST_T) })
            }
            Some(asked) => Ok(asked.min(newest)),
            None => Ok(newest),
        }
    }

    fn card_row(&self, card: Option<&str>, t: LogTime) -> (ValueStatus, Option<CardRow>) {
        let card = match card {
            Some("erased") => return (ValueStatus::Erased, None),
            Some("building") => return (ValueStatus::Unavailable, None),
            Some(card) => card,
            None => return (ValueStatus::NotFound, None),
        };
        let state = self.state.lock().unwrap();
        let versions = state.cards.get(card).map_or(&[][..], |versions| versions);
        match versions.iter().rev().find(|(version, _)| *version <= t.0) {
            None => (ValueStatus::NotFound, None),
            Some((_, row)) if t.as_event_time() - row.latest_us > TTL_US as i64 => {
                (ValueStatus::Expired, None)
            }
            Some((_, row)) => (ValueStatus::Present, Some(row.clone())),
        }
    }

    fn view_rows(&self, selection: &ViewSelection, keys: &RecordBatch, t: LogTime) -> ViewRows {
        let cards = keys.column(selection.key_columns[0]).as_string::<i32>();
        let rows: Vec<_> = cards.iter().map(|card| self.card_row(card, t)).collect();
        let mut statuses = vec![0; rows.len() * selection.columns.len()];
        let mut columns: Vec<ArrayRef> = Vec::new();
        for (place, column) in selection.columns.iter().enumerate() {
            let name = selection.view.schema.field(*column).name().clone();
            let mut counts = Vec::new();
            let mut totals = Vec::new();
            for (number, (status, row)) in rows.iter().enumerate() {
                let value = row.as_ref().map(|row| row.total).unwrap_or_default();
                let status = match (*status, name.as_str(), value) {
                    (ValueStatus::Present, "total", None) => ValueStatus::Null,
                    (ValueStatus::Present, "total", Some(v)) if v.is_nan() => ValueStatus::Error,
                    (status, ..) => status,
                };
                statuses[number * selection.columns.len() + place] = status as u8;
                let present = status == ValueStatus::Present;
                counts.push(row.as_ref().filter(|_| present).map(|row| row.count));
                totals.push(value.filter(|_| present));
            }
            columns.push(match name.as_str() {
                "count" => Arc::new(Int64Array::from(counts)),
                "total" => Arc::new(Float64Array::from(totals)),
                _ => Arc::new(cards.clone()),
            });
        }
        ViewRows { columns, statuses }
    }

    fn big_batch(request: &ScanRequest, first: i64) -> RecordBatch {
        let rows = request.batch_rows as i64;
        let column = Arc::new(Int64Array::from_iter_values(first..first + rows)) as ArrayRef;
        let mut columns = vec![column; request.columns.len()];
        let statuses = vec![0; request.batch_rows * request.columns.len()];
        columns.push(status_array(statuses, request.columns.len(), request.batch_rows).unwrap());
        RecordBatch::try_new(request.schema(), columns).unwrap()
    }
}

#[falaj_gateway::async_trait]
impl Backend for MemoryBackend {
    fn catalog(&self) -> Arc<Catalog> {
        Arc::clone(&self.catalog)
    }

    async fn statistics(&self, name: &str) -> Option<Statistics> {
        let state = self.state.lock().unwrap();
        let records = match name {
            "payments" => state.next_offset,
            "card_totals" | "card_counts" => state.cards.len() as u64,
            _ => return None,
        };
        let t = Some(LogTime(*self.t.borrow()));
        Some(Statistics { records: Some(records), t, freshness_us: None })
    }

    async fn status(&self) -> serde_json::Value {
        json!({ "ready": !*self.hold.borrow(), "t": *self.t.borrow() })
    }

    async fn produce(&self, request: ProduceRequest) -> Result<AckFuture, BackendError> {
        self.admitted.fetch_add(1, Ordering::SeqCst);
        if request.batch.num_rows() == 0 {
            return Err(BackendError::invalid("an empty batch"));
        }
        let ack = self.commit(&request);
        let mut hold = self.hold.subscribe();
        Ok(Box::pin(async move {
            hold.wait_for(|hold| !hold).await.unwrap();
            // Later batches are ready first; the door must put them in order.
            let scatter = 7 - ack.t.0 % 8;
            tokio::time::sleep(Duration::from_millis(scatter)).await;
            Ok(ack)
        }))
    }

    async fn lookup(&self, request: LookupRequest) -> Result<LookupResponse, BackendError> {
        let t = self.read_t(request.as_of, request.min_t, request.deadline).await?;
        let rows = |selection| self.view_rows(selection, &request.keys, t);
        Ok(LookupResponse { t, views: request.views.iter().map(rows).collect() })
    }

    async fn scan(&self, request: ScanRequest) -> Result<Scan, BackendError> {
        let t = self.read_t(request.as_of, request.min_t, request.deadline).await?;
        let scanned = Arc::clone(&self.scanned);
        if request.view.name == "big" {
            let batches = unfold(0, move |number| {
                scanned.fetch_add(1, Ordering::SeqCst);
                let batch = Self::big_batch(&request, number * request.batch_rows as i64);
                futures::future::ready(Some((Ok(batch), number + 1)))
            });
            return Ok(Scan { t, batches: batches.boxed() });
        }
        let cards: Vec<String> = self.state.lock().unwrap().cards.keys().cloned().collect();
        let keys = Arc::new(StringArray::from(cards)) as ArrayRef;
        let keys = RecordBatch::try_from_iter([("card", keys)]).unwrap();
        let columns = request.columns.clone();
        let selection = ViewSelection { view: request.view.clone(), columns, key_columns: vec![0] };
        let found = self.view_rows(&selection, &keys, t);
        let mut columns = found.columns;
        let width = request.columns.len();
        columns.push(status_array(found.statuses, width, keys.num_rows()).unwrap());
        let all = RecordBatch::try_new(request.schema(), columns).unwrap();
        let step = request.batch_rows;
        let pieces: Vec<_> = (0..all.num_rows())
            .step_by(step)
            .map(|start| Ok(all.slice(start, step.min(all.num_rows() - start))))
            .collect();
        Ok(Scan { t, batches: futures::stream::iter(pieces).boxed() })
    }

    async fn read_topic(&self, request: ReadTopicRequest) -> Result<BatchStream, BackendError> {
        if request.topic.schema.name != "payments" {
            return Ok(futures::stream::empty().boxed());
        }
        let schema = request.topic.read_schema();
        let newest = self.t.subscribe();
        let (from, to) =
            (request.from_t.map_or(0, |t| t.0), request.to_t.map_or(u64::MAX, |t| t.0));
        let mut found = Vec::new();
        for number in 0.. {
            let Some((t, batch)) = events_at(&self.state, number, &schema) else { break };
            if (from..=to).contains(&t) {
                found.push(batch);
            }
        }
        let all = concat_batches(&schema, &found).unwrap();
        let first = request.from_offset.unwrap_or(0).min(all.num_rows() as u64) as usize;
        let end = request.to_offset.unwrap_or(u64::MAX).min(all.num_rows() as u64) as usize;
        let end = end.min(first + request.limit.unwrap_or(u64::MAX).min(1 << 40) as usize);
        let known = futures::stream::iter([Ok(all.slice(first, end.max(first) - first))]);
        if !request.follow {
            return Ok(known.boxed());
        }
        let next = self.state.lock().unwrap().batches.len();
        let state = Arc::clone(&self.state);
        let following = unfold((next, newest, state), move |(number, mut newest, state)| {
            let schema = Arc::clone(&schema);
            async move {
                loop {
                    if let Some((_, batch)) = events_at(&state, number, &schema) {
                        return Some((Ok(batch), (number + 1, newest, state)));
                    }
                    newest.changed().await.ok()?;
                }
            }
        });
        Ok(known.chain(following).boxed())
    }
}

/// A server over a [`MemoryBackend`], with TLS and a token, in a directory of its own.
pub struct Served {
    pub backend: Arc<MemoryBackend>,
    pub handle: Option<Handle>,
    pub directory: tempfile::TempDir,
    pub options: ConnectOptions,
}

pub async fn serve() -> Served {
    serve_with(Limits::default()).await
}

pub async fn serve_with(limits: Limits) -> Served {
    let directory = tempfile::tempdir().unwrap();
    let backend = MemoryBackend::new();
    let options = Options {
        address: "127.0.0.1:0".parse().unwrap(),
        tls: Tls::Local {
            directory: directory.path().join("tls"),
            names: vec![],
            now: SystemTime::now(),
        },
        token_path: directory.path().join("token"),
        limits,
    };
    let handle = Server::run(options, backend.clone()).await.unwrap();
    let ca = std::fs::read(handle.ca_path().unwrap()).unwrap();
    let token = std::fs::read_to_string(directory.path().join("token")).unwrap();
    let options = ConnectOptions::new(handle.url()).ca_pem(ca).token(token);
    Served { backend, handle: Some(handle), directory, options }
}

impl Served {
    pub async fn client(&self) -> Client {
        Client::connect(&self.options).await.unwrap()
    }

    pub fn handle(&self) -> &Handle {
        self.handle.as_ref().unwrap()
    }
}

/// Payments of `cards`, one each, with these amounts, all at `at_us`.
pub fn payments(cards: &[&str], amounts: &[Option<f64>], at_us: i64) -> RecordBatch {
    let at = arrow::array::TimestampMicrosecondArray::from(vec![at_us; cards.len()]);
    RecordBatch::try_from_iter_with_nullable([
        ("card", Arc::new(StringArray::from(cards.to_vec())) as ArrayRef, true),
        ("amount", Arc::new(Float64Array::from(amounts.to_vec())) as ArrayRef, true),
        ("at", Arc::new(at.with_timezone("UTC")) as ArrayRef, true),
    ])
    .unwrap()
}

/// Keys of a lookup by card.
pub fn cards(cards: &[&str]) -> RecordBatch {
    let cards = Arc::new(StringArray::from(cards.to_vec())) as ArrayRef;
    RecordBatch::try_from_iter_with_nullable([("card", cards, true)]).unwrap()
}

/// Waits until `condition` holds, at most ten seconds.
pub async fn eventually(what: &str, condition: impl Fn() -> bool) {
    for _ in 0..1000 {
        if condition() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("it never happened that {what}");
}
