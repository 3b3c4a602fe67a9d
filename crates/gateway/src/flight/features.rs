//! `DoExchange ["features", VIEW…]`: keys in, feature rows out, on a stream kept open.
//!
//! The stream's shape is settled once, by the descriptor and the schema of its first message; every
//! record batch that follows is one request, answered by one batch in order. No task is spawned: the
//! connection's own task decodes, asks the backend and encodes.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use arrow_flight::FlightData;
use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::{BoxStream, StreamExt, unfold};
use tonic::{Status, Streaming};

use super::{Gateway, stopping_status};
use crate::backend::{BackendError, Identity, LookupRequest};
use crate::decode::{Decoded, IpcDecoder};
use crate::encode::IpcEncoder;
use crate::lookup::{LookupPlan, deadline};
use crate::metrics::OpenStream;
use crate::wire::{LookupMetadata, LookupOptions, StatusCounts, parse_options};

struct Exchange {
    gateway: Gateway,
    identity: Identity,
    incoming: Streaming<FlightData>,
    stopped: BoxFuture<'static, ()>,
    path: Option<Vec<String>>,
    decoder: IpcDecoder,
    encoder: IpcEncoder,
    plan: Option<LookupPlan>,
    ready: VecDeque<FlightData>,
    ended: bool,
    _open: OpenStream,
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
        _open: OpenStream::new(&gateway.metrics, |metrics| &metrics.lookups),
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
        let outcome = match self.decoder.decode(&message.data_header, body) {
            Ok(Decoded::Schema(_)) => return self.begin(),
            Ok(Decoded::Nothing) if message.app_metadata.is_empty() => return Ok(()),
            Ok(Decoded::Nothing) => Err(BackendError::invalid(
                "metadata without keys: send a record batch of keys with it",
            )),
            Ok(Decoded::Batch(keys)) => Ok(keys),
            Err(error) => Err(BackendError::invalid(error.to_string())),
        };
        let Some(plan) = &self.plan else {
            let message = "the first message must carry a schema and a descriptor path";
            return Err(BackendError::invalid(
                outcome
                    .err()
                    .map_or_else(|| message.to_owned(), |error| format!("{message}: {error}")),
            )
            .into());
        };
        let options = parse_options::<LookupOptions>(&message.app_metadata);
        let id = options.as_ref().ok().and_then(|options| options.id.clone());
        let answer = match outcome.and_then(|keys| Ok((plan.keys(&keys)?, options?))) {
            Ok((keys, options)) => {
                let request = LookupRequest {
                    views: Arc::clone(&plan.views),
                    keys,
                    as_of: options.as_of.map(falaj_event::LogTime),
                    min_t: options.min_t.map(falaj_event::LogTime),
                    deadline: deadline(options.timeout_ms, started),
                    identity: self.identity.clone(),
                };
                let keys = request.keys.clone();
                let found = tokio::select! {
                    biased;
                    found = self.gateway.backend.lookup(request) => found,
                    () = &mut self.stopped => return Err(stopping_status()),
                };
                found.and_then(|found| plan.answer(&keys, found))
            }
            Err(error) => Err(error),
        };
        let ok = answer.is_ok();
        let (metadata, batch) = match answer {
            Ok((t, statuses, batch)) => {
                let rows = batch.num_rows() as u64;
                (LookupMetadata { id, t: Some(t), rows, counts: statuses, error: None }, batch)
            }
            Err(error) => {
                let counts = StatusCounts::default();
                let error = Some(error.details());
                (LookupMetadata { id, t: None, rows: 0, counts, error }, plan.empty())
            }
        };
        let metadata = serde_json::to_vec(&metadata).map_or_else(|_| Bytes::new(), Bytes::from);
        self.ready.push_back(self.encoder.batch(&batch, metadata)?);
        self.gateway.metrics.lookups.finish(started, batch.num_rows(), ok);
        Ok(())
    }

    /// Settles the stream's shape and answers with the schema of all answers.
    fn begin(&mut self) -> Result<(), Status> {
        let (Some(path), Some(schema)) = (&self.path, self.decoder.schema()) else {
            return Err(BackendError::invalid(
                "the first message must carry the descriptor path [\"features\", VIEW, …]",
            )
            .into());
        };
        if self.plan.is_some() {
            return Err(BackendError::invalid("a stream has one schema; open another").into());
        }
        let plan = LookupPlan::new(&self.gateway.backend.catalog(), path, schema)?;
        self.ready.push_back(self.encoder.schema(&plan.schema));
        self.plan = Some(plan);
        Ok(())
    }
}
