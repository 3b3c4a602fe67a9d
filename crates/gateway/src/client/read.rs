//! Reading whole views and ranges of topics.

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use arrow_flight::{FlightData, Ticket};
use serde_json::Value as Json;
use tonic::Streaming;

use super::{Client, ClientError, protocol};
use crate::decode::{Decoded, IpcDecoder};
use crate::wire::ReadTicket;

/// An open read. Dropping it ends the read.
pub struct Reading {
    incoming: Streaming<FlightData>,
    decoder: IpcDecoder,
    schema: SchemaRef,
    metadata: Json,
}

impl Client {
    /// Opens a read.
    ///
    /// # Errors
    /// When a name is unknown, the ticket means nothing, or the call fails.
    pub async fn read(&self, ticket: &ReadTicket) -> Result<Reading, ClientError> {
        let request = self.request(Ticket::new(ticket.to_bytes()));
        let mut incoming = self.inner.clone().do_get(request).await?.into_inner();
        let mut decoder = IpcDecoder::new(self.max_message_bytes);
        let first = incoming.message().await?.ok_or(ClientError::Ended)?;
        let metadata = serde_json::from_slice(&first.app_metadata).unwrap_or_default();
        match decoder.decode(&first.data_header, first.data_body).map_err(protocol)? {
            Decoded::Schema(schema) => Ok(Reading { incoming, decoder, schema, metadata }),
            _ => Err(protocol("the stream does not begin with a schema")),
        }
    }
}

impl Reading {
    /// The schema of every batch.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// What the node says of the rows: a JSON object.
    pub fn metadata(&self) -> &Json {
        &self.metadata
    }

    /// The `T_r` of a view's rows, in microseconds.
    pub fn t(&self) -> Option<u64> {
        self.metadata["t"].as_u64()
    }

    /// The next batch; `None` at the end.
    ///
    /// # Errors
    /// When the read failed.
    pub async fn next(&mut self) -> Result<Option<RecordBatch>, ClientError> {
        while let Some(message) = self.incoming.message().await? {
            let decoded = self.decoder.decode(&message.data_header, message.data_body);
            if let Decoded::Batch(batch) = decoded.map_err(protocol)? {
                return Ok(Some(batch));
            }
        }
        Ok(None)
    }

    /// All batches that are left.
    ///
    /// # Errors
    /// When the read failed.
    pub async fn collect(mut self) -> Result<Vec<RecordBatch>, ClientError> {
        let mut batches = Vec::new();
        while let Some(batch) = self.next().await? {
            batches.push(batch);
        }
        Ok(batches)
    }
}
