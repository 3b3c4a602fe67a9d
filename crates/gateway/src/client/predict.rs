//! Asking a model for predictions on a stream kept open.

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{Float64Type, Schema, SchemaRef};

use super::exchange::{Answers, Asking};
use super::{Client, ClientError};
use crate::prediction::PREDICTION_ID;
use crate::wire::{PredictMetadata, PredictOptions};

/// The answer to one request.
#[derive(Clone, Debug)]
pub struct PredictAnswer {
    /// `T_r`, model version, where the events are, how many rows have no score.
    pub metadata: PredictMetadata,
    /// See [`crate::prediction`] for the columns.
    pub batch: RecordBatch,
}

impl PredictAnswer {
    fn text<'a>(&'a self, column: &str, row: usize) -> Option<&'a str> {
        let texts = self.batch.column_by_name(column)?.as_string_opt::<i32>()?;
        (row < texts.len() && texts.is_valid(row)).then(|| texts.value(row))
    }

    /// The score of a row; `None` where it has none.
    pub fn score(&self, row: usize) -> Option<f64> {
        let scores = self.batch.column_by_name("score")?.as_primitive_opt::<Float64Type>()?;
        (row < scores.len() && scores.is_valid(row)).then(|| scores.value(row))
    }

    /// The class of a row.
    pub fn label(&self, row: usize) -> Option<&str> {
        self.text("label", row)
    }

    /// The id of a row's prediction.
    pub fn prediction_id(&self, row: usize) -> Option<&str> {
        self.text(PREDICTION_ID, row)
    }

    /// Why a row has no score.
    pub fn error(&self, row: usize) -> Option<&str> {
        self.text("error", row)
    }
}

/// An open prediction stream.
pub struct PredictStream {
    sender: PredictSender,
    receiver: PredictReceiver,
}

/// The half of a [`PredictStream`] that asks.
pub struct PredictSender(Asking);

/// The half of a [`PredictStream`] that is answered, in the order of the requests.
pub struct PredictReceiver(Answers);

impl Client {
    /// Opens a stream of predictions by `model`; `inputs` is the schema of the requests
    /// ([`crate::prediction`]).
    ///
    /// # Errors
    /// When the model is unknown, an input is missing or of another type, or the call fails.
    pub async fn predictions(
        &self,
        model: &str,
        inputs: &Schema,
    ) -> Result<PredictStream, ClientError> {
        let path = vec!["predict".to_owned(), model.to_owned()];
        let (asking, answers) = self.exchange(path, inputs).await?;
        Ok(PredictStream { sender: PredictSender(asking), receiver: PredictReceiver(answers) })
    }
}

impl PredictStream {
    /// The schema of every answer.
    pub fn schema(&self) -> Option<&SchemaRef> {
        self.receiver.0.schema()
    }

    /// Asks and waits for the answer.
    ///
    /// # Errors
    /// [`ClientError::Request`] when this request failed and the stream goes on; any other error
    /// ends the stream.
    pub async fn predict(
        &mut self,
        rows: &RecordBatch,
        options: &PredictOptions,
    ) -> Result<PredictAnswer, ClientError> {
        match self.sender.send(rows, options).await {
            // The stream is over; the receiver knows why.
            Ok(()) | Err(ClientError::Ended) => self.receiver.receive().await,
            Err(error) => Err(error),
        }
    }

    /// The two halves, to ask again before the answer is there.
    pub fn split(self) -> (PredictSender, PredictReceiver) {
        (self.sender, self.receiver)
    }
}

impl PredictSender {
    /// Sends one request.
    ///
    /// # Errors
    /// [`ClientError::Ended`] when the stream is over (the receiver knows why).
    pub async fn send(
        &mut self,
        rows: &RecordBatch,
        options: &PredictOptions,
    ) -> Result<(), ClientError> {
        self.0.send(rows, options).await
    }
}

impl PredictReceiver {
    /// Waits for the next answer.
    ///
    /// # Errors
    /// As [`PredictStream::predict`].
    pub async fn receive(&mut self) -> Result<PredictAnswer, ClientError> {
        let (mut metadata, batch) = self.0.receive::<PredictMetadata>().await?;
        if let Some(error) = metadata.error.take() {
            return Err(ClientError::Request(error));
        }
        Ok(PredictAnswer { metadata, batch })
    }
}
