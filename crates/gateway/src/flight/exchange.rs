//! `DoExchange` on a stream kept open: requests in, answers out, in order.
//!
//! The stream's shape is settled once, by the descriptor and the schema of its first message; every
//! record batch that follows is one request, answered by one batch. No task is spawned: the
//! connection's own task decodes, asks the backend and encodes. What a request means is in
//! [`super::features`] and [`super::predict`].

use std::collections::VecDeque;
use std::time::Instant;

use arrow::array::RecordBatch;
use arrow_flight::FlightData;
use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::{BoxStream, StreamExt, unfold};
use tonic::{Status, Streaming};

use super::{Gateway, features, predict, stopping_status};
use crate::backend::{BackendError, Identity};
use crate::decode::{Decoded, IpcDecoder};
use crate::encode::IpcEncoder;
use crate::lookup::LookupPlan;
use crate::metrics::{DoorMetrics, Metrics, OpenStream};
use crate::prediction::PredictPlan;

/// What one stream is for.
enum Plan {
    Features(LookupPlan),
    Predict(PredictPlan),
}

/// One request's answer.
pub(super) struct Answer {
    pub metadata: Bytes,
    pub batch: RecordBatch,
    pub ok: bool,
}

/// One request.
pub(super) struct Question<'a> {
    pub gateway: &'a Gateway,
    pub identity: &'a Identity,
    pub rows: Result<RecordBatch, BackendError>,
    pub app_metadata: &'a [u8],
    pub started: Instant,
}

struct Exchange {
    gateway: Gateway,
    identity: Identity,
    incoming: Streaming<FlightData>,
    stopped: BoxFuture<'static, ()>,
    path: Option<Vec<String>>,
    decoder: IpcDecoder,
    encoder: IpcEncoder,
    plan: Option<(Plan, OpenStream)>,
    ready: VecDeque<FlightData>,
    ended: bool,
}

pub(super) fn open(
    gateway: Gateway,
    identity: Identity,
    incoming: Streaming<FlightData>,
) -> Result<BoxStream<'static, Result<FlightData, Status>>, Status> {
    let exchange = Exchange {
        stopped: gateway.stopped(),
        decoder: IpcDecoder::new(gateway.limits.max_message_bytes),
        encoder: IpcEncoder::new()?,
        path: None,
        plan: None,
        ready: VecDeque::new(),
        ended: false,
        gateway,
        identity,
        incoming,
    };
    Ok(unfold(Box::new(exchange), |mut exchange| async move {
        let item = exchange.next().await?;
        exchange.ended |= item.is_err();
        Some((item, exchange))
    })
    .boxed())
}

impl Exchange {
    async fn next(&mut self) -> Option<Result<FlightData, Status>> {
        loop {
            if let Some(message) = self.ready.pop_front() {
                return Some(Ok(message));
            }
            if self.ended {
                return None;
            }
            // Asked here too, or a client that never pauses would never be told.
            if self.gateway.stopping.has_changed().unwrap_or(true) {
                return Some(Err(stopping_status()));
            }
            let message = tokio::select! {
                biased;
                message = self.incoming.message() => message,
                () = &mut self.stopped => Err(stopping_status()),
            };
            match message {
                Ok(Some(message)) => {
                    if let Err(status) = self.take(message).await {
                        return Some(Err(status));
                    }
                }
                Ok(None) => return None,
                Err(status) => return Some(Err(status)),
            }
        }
    }

    /// Takes one message in; what it is answered with is then in `ready`.
    async fn take(&mut self, mut message: FlightData) -> Result<(), Status> {
        let started = Instant::now();
        if let Some(descriptor) = message.flight_descriptor.take().filter(|d| !d.path.is_empty()) {
            self.path.get_or_insert(descriptor.path);
        }
        let body = std::mem::take(&mut message.data_body);
        let rows = match self.decoder.decode(&message.data_header, body) {
            Ok(Decoded::Schema(_)) => return self.begin(),
            Ok(Decoded::Nothing) if message.app_metadata.is_empty() => return Ok(()),
            Ok(Decoded::Nothing) => {
                Err(BackendError::invalid("metadata without rows: send a record batch with it"))
            }
            Ok(Decoded::Batch(rows)) => Ok(rows),
            Err(error) => Err(BackendError::invalid(error.to_string())),
        };
        let Some((plan, _)) = &self.plan else {
            let message = "the first message must carry a schema and a descriptor path";
            let told = rows.err().map_or_else(|| message.into(), |e| format!("{message}: {e}"));
            return Err(BackendError::invalid(told).into());
        };
        let question = Question {
            gateway: &self.gateway,
            identity: &self.identity,
            rows,
            app_metadata: &message.app_metadata,
            started,
        };
        let asked = async {
            match plan {
                Plan::Features(plan) => features::answer(plan, question).await,
                Plan::Predict(plan) => predict::answer(plan, question).await,
            }
        };
        let answer = tokio::select! {
            biased;
            answer = asked => answer,
            () = &mut self.stopped => return Err(stopping_status()),
        };
        self.ready.push_back(self.encoder.batch(&answer.batch, answer.metadata)?);
        let rows = answer.batch.num_rows();
        door(plan)(&self.gateway.metrics).finish(started, rows, answer.ok);
        Ok(())
    }

    /// Settles the stream's shape and answers with the schema of all answers.
    fn begin(&mut self) -> Result<(), Status> {
        let (Some(path), Some(schema)) = (&self.path, self.decoder.schema()) else {
            return Err(BackendError::invalid(
                "the first message must carry the descriptor path [\"features\", VIEW, …] or \
                 [\"predict\", MODEL]",
            )
            .into());
        };
        if self.plan.is_some() {
            return Err(BackendError::invalid("a stream has one schema; open another").into());
        }
        let catalog = self.gateway.backend.catalog();
        let (plan, answers) = match path.first().map(String::as_str) {
            Some("predict") => {
                let plan = PredictPlan::new(&catalog, path, schema)?;
                let answers = plan.schema.clone();
                (Plan::Predict(plan), answers)
            }
            _ => {
                let plan = LookupPlan::new(&catalog, path, schema)?;
                let answers = plan.schema.clone();
                (Plan::Features(plan), answers)
            }
        };
        self.ready.push_back(self.encoder.schema(&answers));
        let open = OpenStream::new(&self.gateway.metrics, door(&plan));
        self.plan = Some((plan, open));
        Ok(())
    }
}

fn door(plan: &Plan) -> fn(&Metrics) -> &DoorMetrics {
    match plan {
        Plan::Features(_) => |metrics| &metrics.lookups,
        Plan::Predict(_) => |metrics| &metrics.predictions,
    }
}
