//! `DoPut ["topics", NAME]`: batches in, one acknowledgement per batch out, in order.
//!
//! The next batches are read and admitted while earlier ones wait for their epoch, up to
//! [`super::Limits::max_batches_in_flight`]; beyond that nothing is read, and the producer feels it.

use std::sync::Arc;
use std::time::Instant;

use arrow_flight::{FlightData, PutResult};
use falaj_event::ProducerId;
use futures::FutureExt;
use futures::future::{BoxFuture, ready};
use futures::stream::{BoxStream, StreamExt, unfold};
use serde_json::Value as Json;
use tonic::{Status, Streaming};

use super::{Gateway, stopping_status};
use crate::arrivals::Arrivals;
use crate::backend::{AckFuture, BackendError, Identity, ProduceRequest, TopicInfo};
use crate::decode::{Decoded, IpcDecoder};
use crate::metrics::OpenStream;
use crate::token::random;
use crate::wire::{AckMetadata, ProduceOptions, parse_options};

type Answer = BoxFuture<'static, Result<PutResult, Status>>;

struct Intake {
    gateway: Gateway,
    identity: Identity,
    incoming: Streaming<FlightData>,
    stopped: BoxFuture<'static, ()>,
    decoder: IpcDecoder,
    path: Option<Vec<String>>,
    target: Option<(Arc<TopicInfo>, Arrivals)>,
    /// Numbers the rows of batches that bring no numbers.
    session: ProducerId,
    next_sequence: u64,
    next_batch: u64,
    ended: bool,
    _open: OpenStream,
}

pub(super) fn open(
    gateway: Gateway,
    identity: Identity,
    incoming: Streaming<FlightData>,
) -> Result<BoxStream<'static, Result<PutResult, Status>>, Status> {
    let session = random::<16>().map_err(|error| Status::internal(error.to_string()))?;
    let in_flight = gateway.limits.max_batches_in_flight.max(1);
    let intake = Intake {
        stopped: gateway.stopped(),
        decoder: IpcDecoder::new(gateway.limits.max_message_bytes),
        _open: OpenStream::new(&gateway.metrics, |metrics| &metrics.produce),
        session: ProducerId(session),
        path: None,
        target: None,
        next_sequence: 0,
        next_batch: 0,
        ended: false,
        gateway,
        identity,
        incoming,
    };
    let answers = unfold(intake, |mut intake| async move {
        let answer = intake.next().await?;
        Some((answer, intake))
    });
    Ok(answers.buffered(in_flight).boxed())
}

impl Intake {
    /// The next answer to wait for; `None` at the end of the stream.
    async fn next(&mut self) -> Option<Answer> {
        while !self.ended {
            let message = tokio::select! {
                biased;
                () = &mut self.stopped => Err(stopping_status()),
                message = self.incoming.message() => message,
            };
            let taken = match message {
                Ok(Some(message)) => self.take(message).await,
                Ok(None) => return None,
                Err(status) => Err(status),
            };
            match taken {
                Ok(Some(answer)) => return Some(answer),
                Ok(None) => {}
                Err(status) => {
                    self.ended = true;
                    return Some(ready(Err(status)).boxed());
                }
            }
        }
        None
    }

    async fn take(&mut self, mut message: FlightData) -> Result<Option<Answer>, Status> {
        let started = Instant::now();
        if let Some(descriptor) = message.flight_descriptor.take().filter(|d| !d.path.is_empty()) {
            self.path.get_or_insert(descriptor.path);
        }
        let body = std::mem::take(&mut message.data_body);
        let batch = match self.decoder.decode(&message.data_header, body) {
            Ok(Decoded::Schema(_)) => {
                self.begin()?;
                return Ok(None);
            }
            Ok(Decoded::Nothing) => return Ok(None),
            Ok(Decoded::Batch(batch)) => Ok(batch),
            Err(error) => Err(BackendError::invalid(error.to_string())),
        };
        if self.target.is_none() {
            let error = batch.err().unwrap_or_else(|| {
                BackendError::invalid("the first message must carry a schema and a descriptor path")
            });
            return Err(error.into());
        }
        let number = self.next_batch;
        self.next_batch += 1;
        let options = parse_options::<ProduceOptions>(&message.app_metadata);
        let id = options.as_ref().ok().and_then(|options| options.id.clone());
        let rows = batch.as_ref().map_or(0, |batch| batch.num_rows());
        let admitted = match batch.and_then(|batch| self.request(&batch, options?)) {
            Ok(request) => self.gateway.backend.produce(request).await,
            Err(error) => Err(error),
        };
        let answer = Answering { number, id, rows, started, metrics: self.gateway.metrics.clone() };
        Ok(Some(answer.when(admitted).boxed()))
    }

    fn begin(&mut self) -> Result<(), Status> {
        let (Some(path), Some(schema)) = (&self.path, self.decoder.schema()) else {
            return Err(BackendError::invalid(
                "the first message must carry the descriptor path [\"topics\", NAME]",
            )
            .into());
        };
        if self.target.is_some() {
            return Err(BackendError::invalid("a stream has one schema; open another").into());
        }
        let [door, name] = path.as_slice() else {
            return Err(not_a_topic(path).into());
        };
        if door != "topics" {
            return Err(not_a_topic(path).into());
        }
        let catalog = self.gateway.backend.catalog();
        let topic = catalog.topics.get(name).ok_or_else(|| {
            BackendError::unknown("topic", name, catalog.topics.keys().map(String::as_str))
        })?;
        if !topic.writable {
            return Err(BackendError::Denied {
                message: format!("only the platform itself writes to `{name}`"),
            }
            .into());
        }
        self.target = Some((Arc::clone(topic), Arrivals::new(topic, schema)?));
        Ok(())
    }

    fn request(
        &mut self,
        batch: &arrow::array::RecordBatch,
        options: ProduceOptions,
    ) -> Result<ProduceRequest, BackendError> {
        let Some((topic, arrivals)) = &self.target else {
            return Err(BackendError::internal("a batch before its topic"));
        };
        let rows = batch.num_rows();
        let (producer, first_sequence) = match options.numbering()? {
            Some(numbering) => numbering,
            None => {
                let first = self.next_sequence;
                self.next_sequence += rows as u64;
                (self.session, first)
            }
        };
        if first_sequence.checked_add(rows as u64).is_none() {
            return Err(BackendError::invalid("the sequence overflows 64 bits"));
        }
        let arrival = arrivals.take(batch)?;
        Ok(ProduceRequest {
            topic: Arc::clone(topic),
            batch: arrival.batch,
            ops: arrival.ops.or(options.op.map(|op| vec![op; rows])),
            misfits: arrival.misfits,
            producer,
            first_sequence,
            identity: self.identity.clone(),
        })
    }
}

fn not_a_topic(path: &[String]) -> BackendError {
    BackendError::invalid(format!(
        "the descriptor path {path:?} is no door: use [\"topics\", NAME]"
    ))
}

/// What the acknowledgement of one batch needs besides the outcome.
struct Answering {
    number: u64,
    id: Option<Json>,
    rows: usize,
    started: Instant,
    metrics: Arc<crate::metrics::Metrics>,
}

impl Answering {
    async fn when(self, admitted: Result<AckFuture, BackendError>) -> Result<PutResult, Status> {
        let outcome = match admitted {
            Ok(durable) => durable.await,
            Err(error) => Err(error),
        };
        self.metrics.produce.finish(self.started, self.rows, outcome.is_ok());
        let metadata = AckMetadata::new(self.number, self.id, outcome);
        let metadata = serde_json::to_vec(&metadata)
            .map_err(|error| Status::internal(format!("an acknowledgement: {error}")))?;
        Ok(PutResult { app_metadata: metadata.into() })
    }
}
