//! The prediction events of one request, column by column, as they go to the log.
//!
//! Built beside the answer, so that no value is boxed on its way. Does not know who appends them.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryBuilder, BooleanBuilder, Float64Builder, ListBuilder, StringArray,
    StringBuilder, TimestampMicrosecondArray, UInt32Builder, UInt64Array,
};
use arrow::compute::take;
use falaj_definitions::pipelines::Acknowledgement;
use falaj_event::encoding::encode_row;
use falaj_event::{LogTime, TopicSchema, Value};
use falaj_gateway::backend::{BackendError, PredictRequest};

use super::inputs_hash;
use crate::models::serving::{Loaded, Scored};
use crate::pump::wall_clock_us;

/// Prediction events in the order of the answer.
pub struct Events {
    /// What tells each from others of the same cause.
    pub names: Vec<Vec<u8>>,
    /// The topic's columns, in declared order.
    pub columns: Vec<ArrayRef>,
}

/// A prediction, but for its score.
#[derive(Clone, Copy)]
pub(super) struct Made<'a> {
    pub id: &'a str,
    pub inputs: &'a [Value],
    pub served: bool,
    pub propensity: f64,
}

/// Events under construction.
pub(super) struct EventBuilder {
    names: Vec<Vec<u8>>,
    rows: Vec<u64>,
    ids: StringBuilder,
    versions: UInt32Builder,
    artifacts: BinaryBuilder,
    served: BooleanBuilder,
    propensities: Float64Builder,
    inputs: BinaryBuilder,
    hashes: BinaryBuilder,
    score: Float64Builder,
    scores: ListBuilder<Float64Builder>,
    predicted: StringBuilder,
}

impl EventBuilder {
    pub(super) fn with_capacity(rows: usize) -> Self {
        Self {
            names: Vec::with_capacity(rows),
            rows: Vec::with_capacity(rows),
            ids: StringBuilder::with_capacity(rows, 24 * rows),
            versions: UInt32Builder::with_capacity(rows),
            artifacts: BinaryBuilder::with_capacity(rows, 32 * rows),
            served: BooleanBuilder::with_capacity(rows),
            propensities: Float64Builder::with_capacity(rows),
            inputs: BinaryBuilder::with_capacity(rows, 128 * rows),
            hashes: BinaryBuilder::with_capacity(rows, 32 * rows),
            score: Float64Builder::with_capacity(rows),
            scores: ListBuilder::new(Float64Builder::new()),
            predicted: StringBuilder::with_capacity(rows, 8 * rows),
        }
    }

    /// Adds the event of the request's row `row`.
    pub(super) fn push(&mut self, row: usize, made: &Made<'_>, loaded: &Loaded, scored: &Scored) {
        let inputs = encode_row(made.inputs);
        self.names.push(format!("{} {}", made.id, loaded.version).into_bytes());
        self.rows.push(row as u64);
        self.ids.append_value(made.id);
        self.versions.append_value(loaded.version);
        self.artifacts.append_value(loaded.digest);
        self.served.append_value(made.served);
        self.propensities.append_value(made.propensity);
        self.hashes.append_value(inputs_hash(made.id, &inputs));
        self.inputs.append_value(inputs);
        self.score.append_value(scored.score);
        self.scores.append_value(scored.scores.iter().map(|score| Some(*score)));
        self.predicted.append_option(scored.predicted.as_deref());
    }

    /// The columns of `topic`; what they share is taken from the request.
    pub(super) fn finish(
        mut self,
        topic: &TopicSchema,
        request: &PredictRequest,
        t: LogTime,
        ack: Acknowledgement,
    ) -> Result<Events, BackendError> {
        let count = self.rows.len();
        let rows = UInt64Array::from(std::mem::take(&mut self.rows));
        let moment = |t: LogTime| -> ArrayRef {
            let all = TimestampMicrosecondArray::from_value(t.as_event_time(), count);
            Arc::new(all.with_timezone("UTC"))
        };
        let text = |text: &str| -> ArrayRef {
            Arc::new(StringArray::from_iter_values(std::iter::repeat_n(text, count)))
        };
        let mut columns = Vec::with_capacity(topic.columns.len());
        for column in &topic.columns {
            let array: ArrayRef = match column.name.as_str() {
                "prediction_id" => Arc::new(self.ids.finish()),
                "t" => moment(t),
                "model_version" => Arc::new(self.versions.finish()),
                "artifact" => Arc::new(self.artifacts.finish()),
                "served" => Arc::new(self.served.finish()),
                "propensity" => Arc::new(self.propensities.finish()),
                "inputs" => Arc::new(self.inputs.finish()),
                "inputs_hash" => Arc::new(self.hashes.finish()),
                "score" => Arc::new(self.score.finish()),
                "scores" => Arc::new(self.scores.finish()),
                "predicted" => Arc::new(self.predicted.finish()),
                "ack" => text(match ack {
                    Acknowledgement::Durable => "durable",
                    Acknowledgement::Fast => "fast",
                }),
                "asked_by" => text(&request.identity.name),
                "wall_clock" => moment(LogTime(wall_clock_us())),
                key => {
                    let given = request.inputs.column_by_name(key).ok_or_else(|| {
                        BackendError::internal(format!("topic {} has a `{key}`", topic.name))
                    })?;
                    take(given, &rows, None)
                        .map_err(|error| BackendError::internal(error.to_string()))?
                }
            };
            columns.push(array);
        }
        Ok(Events { names: self.names, columns })
    }
}
