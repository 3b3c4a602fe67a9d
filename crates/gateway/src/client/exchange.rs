//! A stream of requests and answers kept open, whatever they mean.

use arrow::array::RecordBatch;
use arrow::datatypes::{Schema, SchemaRef};
use arrow_flight::{FlightData, FlightDescriptor};
use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use super::{Client, ClientError, SEND_AHEAD, protocol};
use crate::decode::{Decoded, IpcDecoder};
use crate::encode::IpcEncoder;

/// The half that asks.
pub(super) struct Asking {
    outgoing: mpsc::Sender<FlightData>,
    encoder: IpcEncoder,
}

/// The half that is answered, in the order of the requests.
pub(super) struct Answers {
    incoming: Streaming<FlightData>,
    decoder: IpcDecoder,
}

impl Client {
    /// Opens a stream at `path` whose requests have `schema`.
    pub(super) async fn exchange(
        &self,
        path: Vec<String>,
        schema: &Schema,
    ) -> Result<(Asking, Answers), ClientError> {
        let (outgoing, requests) = mpsc::channel(SEND_AHEAD);
        let encoder = IpcEncoder::new().map_err(protocol)?;
        let mut first = encoder.schema(schema);
        first.flight_descriptor = Some(FlightDescriptor::new_path(path));
        outgoing.send(first).await.map_err(|_| ClientError::Ended)?;
        let request = self.request(ReceiverStream::new(requests));
        let incoming = self.inner.clone().do_exchange(request).await?.into_inner();
        let mut answers = Answers { incoming, decoder: IpcDecoder::new(self.max_message_bytes) };
        match answers.next_message().await? {
            (Decoded::Schema(_), _) => Ok((Asking { outgoing, encoder }, answers)),
            _ => Err(protocol("the stream does not begin with a schema")),
        }
    }
}

impl Asking {
    /// Sends one request; `options` are left out where they are the defaults.
    pub(super) async fn send<T: Serialize + Default + PartialEq>(
        &mut self,
        rows: &RecordBatch,
        options: &T,
    ) -> Result<(), ClientError> {
        let metadata = match *options == T::default() {
            true => Bytes::new(),
            false => serde_json::to_vec(options).map_err(protocol)?.into(),
        };
        let message = self.encoder.batch(rows, metadata).map_err(protocol)?;
        self.outgoing.send(message).await.map_err(|_| ClientError::Ended)
    }
}

impl Answers {
    /// The schema of every answer.
    pub(super) fn schema(&self) -> Option<&SchemaRef> {
        self.decoder.schema()
    }

    async fn next_message(&mut self) -> Result<(Decoded, Bytes), ClientError> {
        let message = self.incoming.message().await?.ok_or(ClientError::Ended)?;
        let decoded =
            self.decoder.decode(&message.data_header, message.data_body).map_err(protocol)?;
        Ok((decoded, message.app_metadata))
    }

    /// Waits for the next answer.
    pub(super) async fn receive<M: DeserializeOwned>(
        &mut self,
    ) -> Result<(M, RecordBatch), ClientError> {
        let (decoded, metadata) = self.next_message().await?;
        let Decoded::Batch(batch) = decoded else {
            return Err(protocol("an answer without a batch"));
        };
        Ok((serde_json::from_slice(&metadata).map_err(protocol)?, batch))
    }
}
