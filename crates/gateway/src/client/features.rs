//! Looking features up on a stream kept open.

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{Schema, SchemaRef, UInt8Type};
use serde_json::Value as Json;

use super::exchange::{Answers, Asking};
use super::{Client, ClientError, protocol};
use crate::backend::{STATUS_COLUMN, ValueStatus};
use crate::wire::{LookupMetadata, LookupOptions, StatusCounts};

/// The answer to one lookup.
#[derive(Clone, Debug)]
pub struct FeatureAnswer {
    /// What the request gave as `id`.
    pub id: Option<Json>,
    /// The `T_r` of every value, in microseconds.
    pub t: u64,
    /// Values per status.
    pub counts: StatusCounts,
    /// Key columns, value columns, `__status` ([`crate::lookup`]).
    pub batch: RecordBatch,
}

impl FeatureAnswer {
    /// The status of a value, by row and number of the value column (key columns not counted).
    pub fn status(&self, row: usize, value: usize) -> Option<ValueStatus> {
        let statuses = self.batch.column_by_name(STATUS_COLUMN)?.as_fixed_size_list_opt()?;
        if row >= statuses.len() {
            return None;
        }
        let row = statuses.value(row);
        let row = row.as_primitive_opt::<UInt8Type>()?;
        ValueStatus::ALL.get(usize::from(*row.values().get(value)?)).copied()
    }
}

/// An open feature stream.
pub struct FeatureStream {
    sender: FeatureSender,
    receiver: FeatureReceiver,
}

/// The half of a [`FeatureStream`] that asks.
pub struct FeatureSender(Asking);

/// The half of a [`FeatureStream`] that is answered, in the order of the requests.
pub struct FeatureReceiver(Answers);

impl Client {
    /// Opens a stream for `features`, each a `VIEW` or `VIEW.COLUMN`; `keys` is the schema of the
    /// requests: the views' key columns.
    ///
    /// # Errors
    /// When a name is unknown, a key column is missing, or the call fails.
    pub async fn features<S: AsRef<str>>(
        &self,
        features: &[S],
        keys: &Schema,
    ) -> Result<FeatureStream, ClientError> {
        let path = std::iter::once("features").chain(features.iter().map(AsRef::as_ref));
        let (asking, answers) = self.exchange(path.map(str::to_owned).collect(), keys).await?;
        Ok(FeatureStream { sender: FeatureSender(asking), receiver: FeatureReceiver(answers) })
    }
}

impl FeatureStream {
    /// The schema of every answer.
    pub fn schema(&self) -> Option<&SchemaRef> {
        self.receiver.0.schema()
    }

    /// Asks and waits for the answer.
    ///
    /// # Errors
    /// [`ClientError::Request`] when this request failed and the stream goes on; any other error
    /// ends the stream.
    pub async fn lookup(
        &mut self,
        keys: &RecordBatch,
        options: &LookupOptions,
    ) -> Result<FeatureAnswer, ClientError> {
        match self.sender.send(keys, options).await {
            // The stream is over; the receiver knows why.
            Ok(()) | Err(ClientError::Ended) => self.receiver.receive().await,
            Err(error) => Err(error),
        }
    }

    /// The two halves, to ask again before the answer is there.
    pub fn split(self) -> (FeatureSender, FeatureReceiver) {
        (self.sender, self.receiver)
    }
}

impl FeatureSender {
    /// Sends one request.
    ///
    /// # Errors
    /// [`ClientError::Ended`] when the stream is over (the receiver knows why).
    pub async fn send(
        &mut self,
        keys: &RecordBatch,
        options: &LookupOptions,
    ) -> Result<(), ClientError> {
        self.0.send(keys, options).await
    }
}

impl FeatureReceiver {
    /// Waits for the next answer.
    ///
    /// # Errors
    /// As [`FeatureStream::lookup`].
    pub async fn receive(&mut self) -> Result<FeatureAnswer, ClientError> {
        let (metadata, batch) = self.0.receive::<LookupMetadata>().await?;
        if let Some(error) = metadata.error {
            return Err(ClientError::Request(error));
        }
        let t = metadata.t.ok_or_else(|| protocol("an answer without T"))?.0;
        Ok(FeatureAnswer { id: metadata.id, t, counts: metadata.counts, batch })
    }
}
