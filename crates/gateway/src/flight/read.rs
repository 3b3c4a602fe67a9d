//! `DoGet`: whole views, ranges of topics and training sets, streamed at the reader's pace.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use arrow::datatypes::{Schema, SchemaRef};
use arrow_flight::FlightData;
use bytes::Bytes;
use falaj_event::LogTime;
use futures::future::BoxFuture;
use futures::stream::{BoxStream, StreamExt, unfold};
use serde_json::json;
use tonic::Status;

use super::{Gateway, stopping_status};
use crate::backend::{
    BackendError, BatchStream, Identity, ReadTopicRequest, ScanRequest, TrainingSetRequest,
};
use crate::encode::{IpcEncoder, split};
use crate::lookup::{column_of, deadline, unknown_view};
use crate::metrics::{DoorMetrics, Metrics, OpenStream};
use crate::wire::ReadTicket;

struct Reading {
    batches: BatchStream,
    encoder: IpcEncoder,
    ready: VecDeque<FlightData>,
    stopped: BoxFuture<'static, ()>,
    ended: bool,
    metrics: Arc<Metrics>,
    door: fn(&Metrics) -> &DoorMetrics,
    _open: OpenStream,
}

/// What a ticket opened.
struct Opened {
    schema: SchemaRef,
    batches: BatchStream,
    metadata: serde_json::Value,
}

pub(super) async fn open(
    gateway: Gateway,
    identity: Identity,
    ticket: &[u8],
) -> Result<BoxStream<'static, Result<FlightData, Status>>, Status> {
    let started = Instant::now();
    let ticket = ReadTicket::parse(ticket)?;
    let (door, opened): (fn(&Metrics) -> &DoorMetrics, _) =
        match (&ticket.view, &ticket.topic, &ticket.training_set) {
            (Some(_), None, None) => {
                (|metrics| &metrics.scans, scan(&gateway, identity, &ticket).await)
            }
            (None, Some(_), None) => {
                (|metrics| &metrics.topic_reads, topic(&gateway, identity, &ticket).await)
            }
            (None, None, Some(_)) => {
                (|metrics| &metrics.scans, training_set(&gateway, identity, &ticket).await)
            }
            _ => {
                let why = "a ticket names either a `view`, a `topic` or a `training_set`";
                return Err(BackendError::invalid(why).into());
            }
        };
    door(&gateway.metrics).finish(started, 0, opened.is_ok());
    let opened = opened?;
    let encoder = IpcEncoder::new()?;
    let mut first = encoder.schema(&opened.schema);
    first.app_metadata = Bytes::from(opened.metadata.to_string());
    let reading = Reading {
        batches: opened.batches,
        encoder,
        ready: VecDeque::from([first]),
        stopped: gateway.stopped(),
        ended: false,
        _open: OpenStream::new(&gateway.metrics, door),
        metrics: gateway.metrics,
        door,
    };
    Ok(unfold(reading, |mut reading| async move {
        let item = reading.next().await?;
        reading.ended |= item.is_err();
        Some((item, reading))
    })
    .boxed())
}

impl Reading {
    async fn next(&mut self) -> Option<Result<FlightData, Status>> {
        loop {
            if let Some(message) = self.ready.pop_front() {
                return Some(Ok(message));
            }
            if self.ended {
                return None;
            }
            let batch = tokio::select! {
                biased;
                () = &mut self.stopped => return Some(Err(stopping_status())),
                batch = self.batches.next() => batch?,
            };
            let encoded = batch.and_then(|batch| {
                (self.door)(&self.metrics).rows.fetch_add(batch.num_rows() as u64, Relaxed);
                for piece in split(batch) {
                    self.ready.push_back(self.encoder.batch(&piece, Bytes::new())?);
                }
                Ok(())
            });
            if let Err(error) = encoded {
                return Some(Err(error.into()));
            }
        }
    }
}

async fn scan(
    gateway: &Gateway,
    identity: Identity,
    ticket: &ReadTicket,
) -> Result<Opened, BackendError> {
    refuse(ticket.partition.is_some(), "partition", "a view")?;
    refuse(ticket.from_offset.is_some() || ticket.to_offset.is_some(), "offsets", "a view")?;
    refuse(ticket.from_t.is_some() || ticket.to_t.is_some(), "from_t and to_t", "a view")?;
    refuse(ticket.follow || ticket.limit.is_some(), "follow and limit", "a view")?;
    let catalog = gateway.backend.catalog();
    let name = ticket.view.as_deref().unwrap_or_default();
    let view = catalog.views.get(name).ok_or_else(|| unknown_view(&catalog, name))?;
    let columns = match &ticket.columns {
        None => (0..view.schema.fields().len()).collect(),
        Some(names) => {
            names.iter().map(|column| column_of(view, column)).collect::<Result<Vec<_>, _>>()?
        }
    };
    let request = ScanRequest {
        view: Arc::clone(view),
        columns,
        as_of: ticket.as_of.map(LogTime),
        min_t: ticket.min_t.map(LogTime),
        deadline: deadline(ticket.timeout_ms, Instant::now()),
        batch_rows: gateway.limits.read_batch_rows,
        identity,
    };
    let schema = request.schema();
    let scan = gateway.backend.scan(request).await?;
    let metadata = json!({ "view": name, "t": scan.t });
    Ok(Opened { schema: described(&schema, &metadata), batches: scan.batches, metadata })
}

async fn topic(
    gateway: &Gateway,
    identity: Identity,
    ticket: &ReadTicket,
) -> Result<Opened, BackendError> {
    refuse(ticket.columns.is_some(), "columns", "a topic")?;
    refuse(ticket.as_of.is_some(), "as_of", "a topic (use to_t)")?;
    refuse(ticket.min_t.is_some() || ticket.timeout_ms.is_some(), "min_t", "a topic")?;
    let offsets = ticket.from_offset.is_some() || ticket.to_offset.is_some();
    if offsets && ticket.partition.is_none() {
        return Err(BackendError::invalid(
            "offsets count within one partition: give `partition` with them",
        ));
    }
    let catalog = gateway.backend.catalog();
    let name = ticket.topic.as_deref().unwrap_or_default();
    let topic = catalog.topics.get(name).ok_or_else(|| {
        BackendError::unknown("topic", name, catalog.topics.keys().map(String::as_str))
    })?;
    if let Some(partition) = ticket.partition.filter(|p| *p >= topic.schema.partitions) {
        return Err(BackendError::invalid(format!(
            "topic `{name}` has {} partitions, counted from 0; there is no partition {partition}",
            topic.schema.partitions
        )));
    }
    let request = ReadTopicRequest {
        topic: Arc::clone(topic),
        partition: ticket.partition,
        from_offset: ticket.from_offset,
        to_offset: ticket.to_offset,
        from_t: ticket.from_t.map(LogTime),
        to_t: ticket.to_t.map(LogTime),
        limit: ticket.limit,
        follow: ticket.follow,
        batch_rows: gateway.limits.read_batch_rows,
        identity,
    };
    let metadata = json!({ "topic": name });
    let schema = described(&topic.read_schema(), &metadata);
    Ok(Opened { schema, batches: gateway.backend.read_topic(request).await?, metadata })
}

async fn training_set(
    gateway: &Gateway,
    identity: Identity,
    ticket: &ReadTicket,
) -> Result<Opened, BackendError> {
    let offsets = ticket.from_offset.is_some() || ticket.to_offset.is_some();
    refuse(ticket.partition.is_some() || offsets, "partitions and offsets", "a training set")?;
    refuse(ticket.columns.is_some(), "columns", "a training set")?;
    refuse(
        ticket.as_of.is_some() || ticket.min_t.is_some(),
        "as_of",
        "a training set (use until)",
    )?;
    refuse(ticket.from_t.is_some() || ticket.to_t.is_some(), "from_t and to_t", "a training set")?;
    refuse(ticket.follow || ticket.limit.is_some(), "follow and limit", "a training set")?;
    let request = TrainingSetRequest {
        pipeline: ticket.training_set.clone().unwrap_or_default(),
        mode: ticket.mode.clone(),
        until: ticket.until.map(LogTime),
        all: ticket.all,
        compare: ticket.compare,
        batch_rows: gateway.limits.read_batch_rows,
        identity,
    };
    let set = gateway.backend.training_set(request).await?;
    Ok(Opened {
        schema: described(&set.schema, &set.metadata),
        batches: set.batches,
        metadata: set.metadata,
    })
}

fn refuse(given: bool, what: &str, of: &str) -> Result<(), BackendError> {
    if given {
        return Err(BackendError::invalid(format!("`{what}` means nothing for {of}")));
    }
    Ok(())
}

/// The schema with `falaj.…` metadata, which clients keep where they drop message metadata.
fn described(schema: &Schema, metadata: &serde_json::Value) -> SchemaRef {
    let entries = metadata.as_object().into_iter().flatten().map(|(key, value)| {
        let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        (format!("falaj.{key}"), text)
    });
    Arc::new(schema.clone().with_metadata(entries.collect()))
}
