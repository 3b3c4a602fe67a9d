//! The Flight service: which call goes to which door.
//!
//! Knows gRPC and Flight; what the calls mean is in the submodules, what is behind them in the
//! [`Backend`].

mod describe;
mod exchange;
mod features;
mod predict;
mod put;
mod read;

use std::sync::Arc;

use arrow_flight::flight_service_server::FlightService;
use arrow_flight::{
    Action, ActionType, Criteria, Empty, FlightData, FlightDescriptor, FlightInfo,
    HandshakeRequest, HandshakeResponse, PollInfo, PutResult, SchemaResult, Ticket,
};
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use tokio::sync::watch;
use tonic::{Request, Response, Status, Streaming};

use crate::backend::{Backend, BackendError, Identity};
use crate::metrics::Metrics;

/// What every call needs.
#[derive(Clone)]
pub(crate) struct Gateway {
    pub(crate) backend: Arc<dyn Backend>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) limits: Limits,
    /// True once the server is stopping; open streams end then.
    pub(crate) stopping: watch::Receiver<bool>,
}

/// Bounds that protect the node.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Largest gRPC message in either direction, and largest Arrow batch after decompression.
    pub max_message_bytes: usize,
    /// Batches per `DoPut` stream that may wait for their epoch; more are not read.
    pub max_batches_in_flight: usize,
    /// Rows per batch that `DoGet` streams.
    pub read_batch_rows: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { max_message_bytes: 64 << 20, max_batches_in_flight: 64, read_batch_rows: 8192 }
    }
}

impl Gateway {
    /// Resolves when the server is stopping.
    pub(crate) fn stopped(&self) -> BoxFuture<'static, ()> {
        let mut stopping = self.stopping.clone();
        Box::pin(async move {
            // An error means that the server is gone already.
            let _ = stopping.wait_for(|stopping| *stopping).await;
        })
    }
}

fn stopping_status() -> Status {
    BackendError::unavailable("the node is stopping; connect again when it is back").into()
}

fn identity_of<T>(request: &Request<T>) -> Result<Identity, Status> {
    request
        .extensions()
        .get::<Identity>()
        .cloned()
        .ok_or_else(|| Status::internal("the call was not authenticated"))
}

type ResponseStream<T> = Result<Response<BoxStream<'static, Result<T, Status>>>, Status>;

#[tonic::async_trait]
impl FlightService for Gateway {
    type HandshakeStream = BoxStream<'static, Result<HandshakeResponse, Status>>;
    type ListFlightsStream = BoxStream<'static, Result<FlightInfo, Status>>;
    type DoGetStream = BoxStream<'static, Result<FlightData, Status>>;
    type DoPutStream = BoxStream<'static, Result<PutResult, Status>>;
    type DoActionStream = BoxStream<'static, Result<arrow_flight::Result, Status>>;
    type ListActionsStream = BoxStream<'static, Result<ActionType, Status>>;
    type DoExchangeStream = BoxStream<'static, Result<FlightData, Status>>;

    async fn handshake(
        &self,
        _: Request<Streaming<HandshakeRequest>>,
    ) -> ResponseStream<HandshakeResponse> {
        Err(Status::unimplemented(
            "there is no handshake: send the header `authorization: Bearer TOKEN` with every call",
        ))
    }

    async fn list_flights(&self, request: Request<Criteria>) -> ResponseStream<FlightInfo> {
        describe::list(self, &request.into_inner()).await
    }

    async fn get_flight_info(
        &self,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        describe::info(self, request.into_inner()).await.map(Response::new)
    }

    async fn poll_flight_info(
        &self,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<PollInfo>, Status> {
        let info = describe::info(self, request.into_inner()).await?;
        Ok(Response::new(PollInfo::new().with_info(info)))
    }

    async fn get_schema(
        &self,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<SchemaResult>, Status> {
        describe::schema(self, request.into_inner()).map(Response::new)
    }

    async fn do_get(&self, request: Request<Ticket>) -> ResponseStream<FlightData> {
        let identity = identity_of(&request)?;
        read::open(self.clone(), identity, &request.into_inner().ticket).await.map(Response::new)
    }

    async fn do_put(&self, request: Request<Streaming<FlightData>>) -> ResponseStream<PutResult> {
        let identity = identity_of(&request)?;
        put::open(self.clone(), identity, request.into_inner()).map(Response::new)
    }

    async fn do_exchange(
        &self,
        request: Request<Streaming<FlightData>>,
    ) -> ResponseStream<FlightData> {
        let identity = identity_of(&request)?;
        exchange::open(self.clone(), identity, request.into_inner()).map(Response::new)
    }

    async fn do_action(&self, request: Request<Action>) -> ResponseStream<arrow_flight::Result> {
        let identity = identity_of(&request)?;
        describe::act(self, &request.into_inner(), &identity).await
    }

    async fn list_actions(&self, _: Request<Empty>) -> ResponseStream<ActionType> {
        Ok(describe::actions(self))
    }
}
