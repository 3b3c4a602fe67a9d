//! Record batches to Flight messages, with nothing recomputed that is the same for every message.
//!
//! Knows Arrow's IPC format; knows no request and no backend.

use arrow::array::RecordBatch;
use arrow::datatypes::Schema;
use arrow_flight::{FlightData, SchemaAsIpc};
use arrow_ipc::MetadataVersion;
use arrow_ipc::writer::{DictionaryTracker, IpcDataGenerator, IpcWriteContext, IpcWriteOptions};
use bytes::Bytes;

use crate::backend::BackendError;

/// Messages above this size are split into several where their rows allow it: below the 4 MiB that
/// many gRPC clients accept by default.
const MAX_BATCH_BYTES: usize = 2 << 20;

/// Encodes the messages of one stream. Its buffers are reused from message to message.
pub struct IpcEncoder {
    generator: IpcDataGenerator,
    tracker: DictionaryTracker,
    context: IpcWriteContext,
    options: IpcWriteOptions,
}

impl IpcEncoder {
    /// An encoder of uncompressed messages.
    ///
    /// # Errors
    /// Never in practice: the options are constant.
    pub fn new() -> Result<Self, BackendError> {
        // 8 bytes instead of 64: a row of ten features is otherwise mostly padding.
        let options = IpcWriteOptions::try_new(8, false, MetadataVersion::V5)
            .map_err(|error| BackendError::internal(format!("IPC options: {error}")))?;
        Ok(Self {
            generator: IpcDataGenerator::default(),
            tracker: DictionaryTracker::new(false),
            context: IpcWriteContext::default(),
            options,
        })
    }

    /// The message that begins a stream of this schema.
    pub fn schema(&self, schema: &Schema) -> FlightData {
        SchemaAsIpc::new(schema, &self.options).into()
    }

    /// One batch as one message.
    ///
    /// # Errors
    /// When the batch holds dictionaries (no type of ours does) or Arrow cannot encode it.
    pub fn batch(
        &mut self,
        batch: &RecordBatch,
        app_metadata: Bytes,
    ) -> Result<FlightData, BackendError> {
        let (dictionaries, encoded) = self
            .generator
            .encode(batch, &mut self.tracker, &self.options, &mut self.context)
            .map_err(|error| BackendError::internal(format!("encoding an answer: {error}")))?;
        if !dictionaries.is_empty() {
            return Err(BackendError::internal("an answer holds dictionary columns"));
        }
        Ok(FlightData {
            flight_descriptor: None,
            data_header: encoded.ipc_message.into(),
            app_metadata,
            data_body: encoded.arrow_data.into(),
        })
    }
}

/// Cuts a batch into slices of roughly [`MAX_BATCH_BYTES`] or less; a single row is never cut.
pub fn split(batch: RecordBatch) -> Vec<RecordBatch> {
    let bytes: usize = batch
        .columns()
        .iter()
        .map(|column| column.to_data().get_slice_memory_size().unwrap_or(0))
        .sum();
    let rows = batch.num_rows();
    if bytes <= MAX_BATCH_BYTES || rows <= 1 {
        return vec![batch];
    }
    let pieces = bytes.div_ceil(MAX_BATCH_BYTES).min(rows);
    let step = rows.div_ceil(pieces);
    (0..rows).step_by(step).map(|start| batch.slice(start, step.min(rows - start))).collect()
}
