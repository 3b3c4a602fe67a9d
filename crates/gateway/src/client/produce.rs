//! Producing: batches in, acknowledgements out.

use arrow::array::RecordBatch;
use arrow::datatypes::Schema;
use arrow_flight::{FlightData, FlightDescriptor, PutResult};
use bytes::Bytes;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use super::{Client, ClientError, SEND_AHEAD, protocol};
use crate::encode::IpcEncoder;
use crate::wire::{AckMetadata, ProduceOptions};

/// An open stream of batches to one topic.
pub struct ProduceStream {
    sender: BatchSender,
    acks: AckReceiver,
}

/// The half of a [`ProduceStream`] that sends.
pub struct BatchSender {
    outgoing: mpsc::Sender<FlightData>,
    encoder: IpcEncoder,
}

/// The half of a [`ProduceStream`] that is acknowledged, one per batch, in order.
pub struct AckReceiver {
    incoming: Streaming<PutResult>,
}

impl Client {
    /// Opens a stream of batches of one schema to `topic`.
    ///
    /// # Errors
    /// When the call fails. An unknown topic or column shows at the first acknowledgement.
    pub async fn producer(
        &self,
        topic: &str,
        schema: &Schema,
    ) -> Result<ProduceStream, ClientError> {
        let (outgoing, batches) = mpsc::channel(SEND_AHEAD);
        let encoder = IpcEncoder::new().map_err(protocol)?;
        let mut first = encoder.schema(schema);
        let path = vec!["topics".to_owned(), topic.to_owned()];
        first.flight_descriptor = Some(FlightDescriptor::new_path(path));
        outgoing.send(first).await.map_err(|_| ClientError::Ended)?;
        let request = self.request(ReceiverStream::new(batches));
        let incoming = self.inner.clone().do_put(request).await?.into_inner();
        Ok(ProduceStream {
            sender: BatchSender { outgoing, encoder },
            acks: AckReceiver { incoming },
        })
    }

    /// Produces `batches` (of one schema) and waits for all acknowledgements. With `options` naming
    /// a producer, batches are numbered on from its sequence, so that a repeated call is recognised.
    ///
    /// # Errors
    /// When the call fails; a refused batch is in its acknowledgement's `error`.
    pub async fn produce(
        &self,
        topic: &str,
        batches: &[RecordBatch],
        options: &ProduceOptions,
    ) -> Result<Vec<AckMetadata>, ClientError> {
        let Some(first) = batches.first() else { return Ok(Vec::new()) };
        let (mut sender, mut receiver) = self.producer(topic, &first.schema()).await?.split();
        let sending = async {
            let mut options = options.clone();
            for batch in batches {
                // The receiver learns why the stream ended.
                if sender.send(batch, &options).await.is_err() {
                    break;
                }
                options.sequence = options.sequence.map(|first| first + batch.num_rows() as u64);
            }
            drop(sender);
        };
        let receiving = async {
            let mut acks = Vec::with_capacity(batches.len());
            while let Some(ack) = receiver.receive().await? {
                acks.push(ack);
            }
            Ok(acks)
        };
        let ((), acks) = tokio::join!(sending, receiving);
        acks
    }
}

impl ProduceStream {
    /// Sends one batch and waits for its acknowledgement.
    ///
    /// # Errors
    /// [`ClientError::Request`] when this batch was refused and the stream goes on; any other error
    /// ends the stream.
    pub async fn send_and_wait(
        &mut self,
        batch: &RecordBatch,
        options: &ProduceOptions,
    ) -> Result<AckMetadata, ClientError> {
        // A failed send means that the stream is over; the receiver knows why.
        let _ = self.sender.send(batch, options).await;
        let ack = self.acks.receive().await?.ok_or(ClientError::Ended)?;
        match ack.error {
            Some(error) => Err(ClientError::Request(error)),
            None => Ok(ack),
        }
    }

    /// The two halves, to send on before acknowledgements are there. Read the acknowledgements while
    /// you send: a node that cannot deliver them stops reading.
    pub fn split(self) -> (BatchSender, AckReceiver) {
        (self.sender, self.acks)
    }
}

impl BatchSender {
    /// Sends one batch. Dropping the sender ends the stream once all is acknowledged.
    ///
    /// # Errors
    /// [`ClientError::Ended`] when the stream is over (the receiver knows why).
    pub async fn send(
        &mut self,
        batch: &RecordBatch,
        options: &ProduceOptions,
    ) -> Result<(), ClientError> {
        let metadata = match *options == ProduceOptions::default() {
            true => Bytes::new(),
            false => serde_json::to_vec(options).map_err(protocol)?.into(),
        };
        let message = self.encoder.batch(batch, metadata).map_err(protocol)?;
        self.outgoing.send(message).await.map_err(|_| ClientError::Ended)
    }
}

impl AckReceiver {
    /// The next acknowledgement; `None` after the last.
    ///
    /// # Errors
    /// When the stream failed.
    pub async fn receive(&mut self) -> Result<Option<AckMetadata>, ClientError> {
        match self.incoming.message().await? {
            None => Ok(None),
            Some(result) => {
                serde_json::from_slice(&result.app_metadata).map(Some).map_err(protocol)
            }
        }
    }
}
