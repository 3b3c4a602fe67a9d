//! One request for predictions under way: what every row needs, found and made once, and the answer.
//!
//! Does not know where features come from.

use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array, Float64Builder, ListBuilder, StringArray, UInt32Array};
use arrow::record_batch::RecordBatch;
use falaj_event::cells::Cells;
use falaj_event::encoding::encode_row;
use falaj_event::{LogTime, Value};
use falaj_gateway::backend::{BackendError, PredictRequest};
use falaj_model::score::Scratch;

use super::{LoggedRow, Predictor, inputs_hash};
use crate::models::serving::{Loaded, Scored, ServingSet, score};
use crate::pump::wall_clock_us;

/// What one request needs for every row: the columns that are copied into events and room for
/// computing, found and made once.
pub(super) struct Asking<'a> {
    predictor: &'a Predictor,
    set: &'a ServingSet,
    identity: Value,
    /// By column of the topic: the request's, where it is one of its keys.
    given: Vec<Option<Cells<'a>>>,
    scratches: Vec<(u32, Scratch)>,
}

impl<'a> Asking<'a> {
    pub(super) fn new(
        predictor: &'a Predictor,
        set: &'a ServingSet,
        request: &'a PredictRequest,
    ) -> Result<Self, BackendError> {
        let given = predictor.topic.columns.iter().map(|column| {
            let found = request.inputs.column_by_name(&column.name);
            found.map(|column| Cells::new(column.as_ref())).transpose()
        });
        Ok(Self {
            predictor,
            set,
            identity: Value::String(Arc::clone(&request.identity.name)),
            given: given
                .collect::<Result<_, _>>()
                .map_err(|error| BackendError::invalid(error.to_string()))?,
            scratches: Vec::new(),
        })
    }

    pub(super) fn serve(
        &mut self,
        version: u32,
        inputs: &[Value],
    ) -> Result<(&'a Loaded, Scored), String> {
        let set = self.set;
        let loaded = set
            .version(version)
            .ok_or_else(|| format!("version {version} is not loaded; try again"))?;
        let place = match self.scratches.iter().position(|(known, _)| *known == version) {
            Some(place) => place,
            None => {
                self.scratches.push((version, loaded.scorer.scratch()));
                self.scratches.len() - 1
            }
        };
        let threshold = self.predictor.pipeline.serving.threshold;
        let scratch = &mut self.scratches[place].1;
        let scored = score(loaded, &self.predictor.names, inputs, threshold, scratch)?;
        Ok((loaded, scored))
    }

    pub(super) fn event(
        &self,
        row: usize,
        made: &Made<'_>,
        loaded: &Loaded,
        scored: &Scored,
    ) -> LoggedRow {
        let inputs = encode_row(made.inputs);
        let value = |name: &str, given: &Option<Cells<'a>>| match name {
            "prediction_id" => Value::String(made.id.into()),
            "t" => Value::Timestamp(made.t.as_event_time()),
            "model_version" => Value::UInt(loaded.version.into()),
            "artifact" => Value::Binary(loaded.digest.as_slice().into()),
            "served" => Value::Bool(made.served),
            "propensity" => Value::Float64(made.propensity),
            "inputs_hash" => Value::Binary(inputs_hash(made.id, &inputs).as_slice().into()),
            "inputs" => Value::Binary(inputs.as_slice().into()),
            "score" => Value::Float64(scored.score),
            "scores" => {
                Value::List(scored.scores.iter().map(|score| Value::Float64(*score)).collect())
            }
            "predicted" => {
                scored.predicted.as_deref().map_or(Value::Null, |class| Value::String(class.into()))
            }
            "ack" => {
                let ack = if self.predictor.is_durable() { "durable" } else { "fast" };
                Value::String(ack.into())
            }
            "asked_by" => self.identity.clone(),
            "wall_clock" => Value::Timestamp(LogTime(wall_clock_us()).as_event_time()),
            _ => given.map_or(Value::Null, |cells| cells.value(row)),
        };
        let columns = self.predictor.topic.columns.iter().zip(&self.given);
        let values = columns.map(|(column, given)| value(&column.name, given)).collect();
        (format!("{} {}", made.id, loaded.version).into_bytes(), values)
    }
}

/// A prediction, but for its score.
#[derive(Clone, Copy)]
pub(super) struct Made<'a> {
    pub id: &'a str,
    pub t: LogTime,
    pub inputs: &'a [Value],
    pub served: bool,
    pub propensity: f64,
}

/// An answer under construction.
pub(super) struct Answer {
    ids: Vec<Option<String>>,
    outcomes: Vec<Result<(u32, Scored), String>>,
}

impl Answer {
    pub(super) fn new(rows: usize) -> Self {
        Self { ids: Vec::with_capacity(rows), outcomes: Vec::with_capacity(rows) }
    }

    pub(super) fn add(&mut self, id: String, outcome: Result<(u32, Scored), String>) {
        self.ids.push(outcome.is_ok().then_some(id));
        self.outcomes.push(outcome);
    }

    pub(super) fn finish(
        self,
        predictor: &Predictor,
        asked: &RecordBatch,
    ) -> Result<(RecordBatch, u64), BackendError> {
        let schema = predictor.info.answer_schema();
        let ok = |outcome: &Result<(u32, Scored), String>| outcome.as_ref().ok().cloned();
        let mut columns: Vec<ArrayRef> = vec![Arc::new(StringArray::from(self.ids))];
        columns.extend(asked.columns().iter().take(predictor.info.keys.fields().len()).cloned());
        let scores = self.outcomes.iter().map(|one| ok(one).map(|(_, scored)| scored.score));
        columns.push(Arc::new(scores.collect::<Float64Array>()));
        let labels = self.outcomes.iter().map(|one| ok(one).and_then(|(_, one)| one.predicted));
        columns.push(Arc::new(labels.collect::<StringArray>()));
        if predictor.info.classes.len() > 2 {
            let mut lists = ListBuilder::new(Float64Builder::new());
            for one in &self.outcomes {
                match one {
                    Ok((_, scored)) => lists.append_value(scored.scores.iter().map(|s| Some(*s))),
                    Err(_) => lists.append_null(),
                }
            }
            columns.push(Arc::new(lists.finish()));
        }
        let versions = self.outcomes.iter().map(|one| ok(one).map(|(version, _)| version));
        columns.push(Arc::new(versions.collect::<UInt32Array>()));
        let errors = self.outcomes.iter().filter(|one| one.is_err()).count() as u64;
        let told = self.outcomes.into_iter().map(Result::err);
        columns.push(Arc::new(told.collect::<StringArray>()));
        let batch = RecordBatch::try_new(schema, columns)
            .map_err(|error| BackendError::internal(error.to_string()))?;
        Ok((batch, errors))
    }
}
