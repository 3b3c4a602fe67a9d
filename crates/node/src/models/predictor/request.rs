//! One request for predictions under way: the versions that score it, and the answer.
//!
//! Does not know where features come from.

use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Builder, ListBuilder, StringBuilder, UInt32Builder};
use arrow::record_batch::RecordBatch;
use falaj_event::Value;
use falaj_gateway::backend::BackendError;
use falaj_model::score::Scratch;

use super::Predictor;
use super::events::EventBuilder;
use crate::models::serving::{Loaded, Scored, ServingSet, score};

/// What one request needs for every row: room for computing, made once, and its events.
pub(super) struct Asking<'a> {
    predictor: &'a Predictor,
    set: &'a ServingSet,
    scratches: Vec<(u32, Scratch)>,
    pub events: EventBuilder,
}

impl<'a> Asking<'a> {
    pub(super) fn new(predictor: &'a Predictor, set: &'a ServingSet, rows: usize) -> Self {
        let events = EventBuilder::with_capacity(rows);
        Self { predictor, set, scratches: Vec::new(), events }
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
}

/// An answer under construction.
pub(super) struct Answer {
    ids: StringBuilder,
    score: Float64Builder,
    labels: StringBuilder,
    scores: ListBuilder<Float64Builder>,
    versions: UInt32Builder,
    errors: StringBuilder,
    failed: u64,
}

impl Answer {
    pub(super) fn new(rows: usize) -> Self {
        Self {
            ids: StringBuilder::with_capacity(rows, 24 * rows),
            score: Float64Builder::with_capacity(rows),
            labels: StringBuilder::with_capacity(rows, 8 * rows),
            scores: ListBuilder::new(Float64Builder::new()),
            versions: UInt32Builder::with_capacity(rows),
            errors: StringBuilder::new(),
            failed: 0,
        }
    }

    pub(super) fn add(&mut self, id: &str, version: u32, scored: &Scored) {
        self.ids.append_value(id);
        self.score.append_value(scored.score);
        self.labels.append_option(scored.predicted.as_deref());
        self.scores.append_value(scored.scores.iter().map(|score| Some(*score)));
        self.versions.append_value(version);
        self.errors.append_null();
    }

    pub(super) fn refuse(&mut self, why: &str) {
        self.ids.append_null();
        self.score.append_null();
        self.labels.append_null();
        self.scores.append_null();
        self.versions.append_null();
        self.errors.append_value(why);
        self.failed += 1;
    }

    pub(super) fn finish(
        mut self,
        predictor: &Predictor,
        asked: &RecordBatch,
    ) -> Result<(RecordBatch, u64), BackendError> {
        let schema = predictor.info.answer_schema();
        let mut columns: Vec<ArrayRef> = vec![Arc::new(self.ids.finish())];
        columns.extend(asked.columns().iter().take(predictor.info.keys.fields().len()).cloned());
        columns.push(Arc::new(self.score.finish()));
        columns.push(Arc::new(self.labels.finish()));
        if predictor.info.classes.len() > 2 {
            columns.push(Arc::new(self.scores.finish()));
        }
        columns.push(Arc::new(self.versions.finish()));
        columns.push(Arc::new(self.errors.finish()));
        let batch = RecordBatch::try_new(schema, columns)
            .map_err(|error| BackendError::internal(error.to_string()))?;
        Ok((batch, self.failed))
    }
}
