//! One pipeline's predictions: features at one `T_r`, a score by the version that the policy picks, the
//! prediction event.
//!
//! Does not know Flight, nor how a version came to serve. A row that has no score is named and not
//! logged.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, Result, bail};
use arrow::array::{
    Array, ArrayRef, Float64Array, Float64Builder, ListBuilder, StringArray, UInt32Array,
};
use arrow::record_batch::RecordBatch;
use falaj_definitions::catalog::Catalog;
use falaj_definitions::pipelines::{Acknowledgement, InputOrigin, Pipeline, Task};
use falaj_event::cells::{Cells, batch_cells};
use falaj_event::encoding::{decode_row, encode_row};
use falaj_event::hash::domain_hash;
use falaj_event::{LogTime, TopicSchema, Value, ViewId};
use falaj_gateway::backend::{BackendError, ModelInfo, PredictRequest, PredictResponse};
use falaj_views::{Snapshot, ViewStore};

use super::ledger::Entry;
use super::serving::{Loaded, Scored, Slot, score};
use crate::backend::lookup::view_error;
use crate::backend::rows::key_bytes;
use crate::pump::wall_clock_us;

/// Columns taken from one view.
struct Part {
    view: ViewId,
    name: String,
    ttl_us: Option<u64>,
    /// Positions of the view's key columns among the entity's.
    key: Vec<usize>,
    /// Indices of the wanted columns among the view's.
    columns: Vec<usize>,
    width: usize,
}

/// A request-time feature.
struct Given {
    name: String,
    optional: bool,
}

/// Answers for one pipeline.
pub struct Predictor {
    /// The pipeline.
    pub pipeline: Arc<Pipeline>,
    /// What callers see of it.
    pub info: Arc<ModelInfo>,
    /// What serves.
    pub slot: Slot,
    topic: Arc<TopicSchema>,
    parts: Vec<Part>,
    given: Vec<Given>,
    names: Vec<String>,
    /// Tells this start of the node from others.
    term: u64,
    next: AtomicU64,
}

/// A prediction event: what tells it from others of the same cause, and its values in column order.
pub type LoggedRow = (Vec<u8>, Vec<Value>);

/// The model's inputs of one row, in signature order, or why there are none.
pub type Inputs = Result<Vec<Value>, String>;

impl Predictor {
    /// Works out once what every request needs.
    ///
    /// # Errors
    /// When the pipeline does not fit the catalog: a defect, for it was checked.
    pub fn new(pipeline: &Arc<Pipeline>, catalog: &Catalog, term: u64) -> Result<Self> {
        let topic_name = format!("{}.predictions", pipeline.name);
        let topic = catalog.topics.get(&topic_name).with_context(|| format!("no {topic_name}"))?;
        let parts = pipeline
            .features
            .iter()
            .map(|set| part(pipeline, set, catalog))
            .collect::<Result<Vec<_>>>()?;
        let given = pipeline
            .request
            .iter()
            .map(|feature| Given { name: feature.name.clone(), optional: feature.optional });
        Ok(Self {
            pipeline: Arc::clone(pipeline),
            info: Arc::new(model_info(pipeline)),
            slot: Slot::default(),
            topic: Arc::clone(&topic.schema),
            parts,
            given: given.collect(),
            names: pipeline.signature.inputs.iter().map(|input| input.name.clone()).collect(),
            term,
            next: AtomicU64::new(0),
        })
    }

    /// Names of the model's inputs, in signature order.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// Reads the inputs of every row at the snapshot's `T` (or as of an older one).
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn inputs(
        &self,
        snapshot: &Snapshot<'_>,
        t: LogTime,
        as_of: Option<LogTime>,
        asked: &RecordBatch,
    ) -> Result<Vec<Inputs>, BackendError> {
        let mut rows: Vec<(Vec<Value>, bool, Option<String>)> = (0..asked.num_rows())
            .map(|_| (Vec::with_capacity(self.names.len()), false, None))
            .collect();
        for part in &self.parts {
            let keys = key_bytes(asked, &part.key)?;
            let known: Vec<&[u8]> = keys.iter().flatten().map(Vec::as_slice).collect();
            let found = match as_of {
                Some(t) => snapshot.multi_get_as_of(part.view, &known, t),
                None => snapshot.multi_get(part.view, &known),
            };
            let mut found = found.map_err(view_error)?.into_iter();
            for (key, (values, is_known, error)) in keys.iter().zip(&mut rows) {
                if key.is_none() {
                    error.get_or_insert_with(|| "a key column is NULL".to_owned());
                }
                match key.as_ref().and_then(|_| found.next().flatten()) {
                    Some(row) => {
                        *is_known = true;
                        let expired = part.is_expired(row.latest_event_time, t);
                        part.take(&row.columns, expired, values)?;
                    }
                    None => values.extend(part.columns.iter().map(|_| Value::Null)),
                }
            }
        }
        let cells = batch_cells(asked).map_err(|error| BackendError::invalid(error.to_string()))?;
        let mut out = Vec::with_capacity(rows.len());
        for (row, (mut values, is_known, error)) in rows.into_iter().enumerate() {
            let error = error.or_else(|| self.give(&cells, row, &mut values)).or_else(|| {
                (!is_known && !self.parts.is_empty()).then(|| {
                    "unknown entity: no feature view has seen an event of this key".to_owned()
                })
            });
            out.push(error.map_or(Ok(values), Err));
        }
        Ok(out)
    }

    /// Adds the request-time features; says which one is missing.
    fn give(&self, cells: &[Cells<'_>], row: usize, values: &mut Vec<Value>) -> Option<String> {
        let first = self.pipeline.signature.keys.len();
        for (feature, column) in self.given.iter().zip(cells.get(first..).unwrap_or_default()) {
            let value = column.value(row);
            if value.is_null() && !feature.optional {
                return Some(format!("request feature `{}` is missing", feature.name));
            }
            values.push(value);
        }
        None
    }

    /// Scores a request with what serves now, and gives the answer and the events to be logged.
    ///
    /// # Errors
    /// When nothing serves yet, or the store cannot be read.
    pub fn predict(
        &self,
        store: &ViewStore,
        request: &PredictRequest,
    ) -> Result<(PredictResponse, Vec<LoggedRow>), BackendError> {
        let set = self.slot.get();
        let Some(champion) = &set.champion else {
            return Err(BackendError::unavailable(format!(
                "no version of model `{0}` serves yet; train one with `falaj train {0}`",
                self.pipeline.name
            )));
        };
        let snapshot = store.snapshot().map_err(view_error)?;
        let t = snapshot.t().unwrap_or_default();
        let inputs = self.inputs(&snapshot, t, None, &request.inputs)?;
        let entity: Vec<usize> = (0..self.pipeline.signature.keys.len()).collect();
        let keys = key_bytes(&request.inputs, &entity)?;
        let challenger = set.challenger.as_ref().map(|loaded| loaded.version);
        let mut answer = Answer::new(inputs.len());
        let mut events = Vec::new();
        let mut misfits = request.misfits.iter().peekable();
        for (row, inputs) in inputs.into_iter().enumerate() {
            let misfit = misfits.next_if(|(at, _)| *at == row).map(|(_, why)| why.clone());
            let id = self.id(request, row);
            let route = keys[row]
                .as_ref()
                .and_then(|key| set.policy.route(Some(champion.version), challenger, key));
            let outcome = match (misfit, inputs, route) {
                (Some(why), ..) | (None, Err(why), _) => Err(why),
                (None, Ok(_), None) => Err("a key column is NULL".to_owned()),
                (None, Ok(inputs), Some(route)) => {
                    self.serve(&set, route.serve, &inputs).map(|(loaded, scored)| {
                        let made = Made {
                            id: &id,
                            t,
                            inputs: &inputs,
                            served: true,
                            propensity: route.propensity,
                        };
                        events.push(self.event(request, row, &made, &loaded, &scored));
                        if let Some(version) = route.shadow
                            && let Ok((shadow, beside)) = self.serve(&set, version, &inputs)
                        {
                            let propensity = 1.0 - route.propensity;
                            let made = Made { served: false, propensity, ..made };
                            events.push(self.event(request, row, &made, &shadow, &beside));
                        }
                        (loaded.version, scored)
                    })
                }
            };
            answer.add(id, outcome);
        }
        let (batch, errors) = answer.finish(self, &request.inputs)?;
        let response =
            PredictResponse { t, logged_t: None, model_version: champion.version, batch, errors };
        Ok((response, events))
    }

    fn serve(
        &self,
        set: &super::serving::ServingSet,
        version: u32,
        inputs: &[Value],
    ) -> Result<(Arc<Loaded>, Scored), String> {
        let loaded = set
            .version(version)
            .ok_or_else(|| format!("version {version} is not loaded; try again"))?;
        let mut scratch = loaded.scorer.scratch();
        let threshold = self.pipeline.serving.threshold;
        let scored = score(loaded, &self.names, inputs, threshold, &mut scratch)?;
        Ok((Arc::clone(loaded), scored))
    }

    /// Whether answers wait until their events are durable.
    pub fn is_durable(&self) -> bool {
        self.pipeline.serving.ack == Acknowledgement::Durable
    }

    /// The entry for the ledger that carries these events.
    pub fn entry(
        &self,
        t: LogTime,
        rows: Vec<LoggedRow>,
        reply: tokio::sync::oneshot::Sender<Result<LogTime, String>>,
    ) -> Entry {
        Entry {
            schema: Arc::clone(&self.topic),
            definition: self.pipeline.hash,
            cause: t,
            rows,
            reply,
        }
    }

    fn id(&self, request: &PredictRequest, row: usize) -> String {
        match &request.ids {
            Some(ids) if ids.is_valid(row) => ids.value(row).to_owned(),
            _ => {
                let number = self.next.fetch_add(1, Ordering::Relaxed);
                format!("{}-{:x}-{number:x}", self.pipeline.name, self.term)
            }
        }
    }

    fn event(
        &self,
        request: &PredictRequest,
        row: usize,
        made: &Made<'_>,
        loaded: &Loaded,
        scored: &Scored,
    ) -> (Vec<u8>, Vec<Value>) {
        let inputs = encode_row(made.inputs);
        let value = |name: &str| match name {
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
            "ack" => Value::String(if self.is_durable() { "durable" } else { "fast" }.into()),
            "asked_by" => Value::String(Arc::clone(&request.identity.name)),
            "wall_clock" => Value::Timestamp(LogTime(wall_clock_us()).as_event_time()),
            key => request
                .inputs
                .column_by_name(key)
                .and_then(|column| Cells::new(column.as_ref()).ok())
                .map_or(Value::Null, |cells| cells.value(row)),
        };
        let values = self.topic.columns.iter().map(|column| value(&column.name)).collect();
        (format!("{} {}", made.id, loaded.version).into_bytes(), values)
    }
}

#[derive(Clone, Copy)]
struct Made<'a> {
    id: &'a str,
    t: LogTime,
    inputs: &'a [Value],
    served: bool,
    propensity: f64,
}

/// The hash that a prediction event commits to: of its id and its inputs' canonical bytes.
pub fn inputs_hash(id: &str, inputs: &[u8]) -> [u8; 32] {
    domain_hash(b"falaj.inputs.v1", &[id.as_bytes(), inputs]).0
}

impl Part {
    fn is_expired(&self, latest_event_time: i64, t: LogTime) -> bool {
        let age = i128::from(t.0) - i128::from(latest_event_time);
        self.ttl_us.is_some_and(|ttl| age > i128::from(ttl))
    }

    fn take(&self, row: &[u8], expired: bool, values: &mut Vec<Value>) -> Result<(), BackendError> {
        let damaged = |why: String| BackendError::Damaged {
            message: format!("a stored row of view {} is damaged: {why}", self.name),
        };
        let cells = decode_row(row).map_err(|error| damaged(error.to_string()))?;
        if cells.len() != self.width {
            return Err(damaged(format!("{} columns instead of {}", cells.len(), self.width)));
        }
        values.extend(self.columns.iter().map(|index| match expired {
            true => Value::Null,
            false => cells[*index].clone(),
        }));
        Ok(())
    }
}

fn part(
    pipeline: &Pipeline,
    set: &falaj_definitions::pipelines::FeatureSet,
    catalog: &Catalog,
) -> Result<Part> {
    let view = catalog.view(&set.view).with_context(|| format!("no view `{}`", set.view))?;
    let position = |name: &String| {
        pipeline
            .signature
            .keys
            .iter()
            .position(|(key, _)| key == name)
            .with_context(|| format!("`{name}` is no key of {}", pipeline.name))
    };
    let column = |name: &String| {
        view.output
            .iter()
            .position(|column| column.name == *name)
            .with_context(|| format!("view `{}` has no column `{name}`", view.name))
    };
    Ok(Part {
        view: view.id,
        name: view.name.clone(),
        ttl_us: view.ttl_us,
        key: set.key.iter().map(position).collect::<Result<_>>()?,
        columns: set.columns.iter().map(column).collect::<Result<_>>()?,
        width: view.output.len(),
    })
}

/// What callers see of a pipeline.
pub fn model_info(pipeline: &Pipeline) -> ModelInfo {
    use arrow::datatypes::{Field, Schema};
    let keys = pipeline.signature.keys.iter();
    let keys: Vec<Field> = keys.map(|(name, of)| Field::new(name, of.to_arrow(), false)).collect();
    let request: Vec<Field> = pipeline
        .request
        .iter()
        .map(|feature| Field::new(&feature.name, feature.column_type.to_arrow(), feature.optional))
        .collect();
    let inputs = pipeline.signature.inputs.iter().map(|input| {
        let from = match &input.origin {
            InputOrigin::View { view, column } => format!("{view}.{column}"),
            InputOrigin::Request => "request".to_owned(),
        };
        serde_json::json!({ "name": input.name, "type": input.column_type.to_string(), "from": from })
    });
    ModelInfo {
        name: pipeline.name.clone(),
        keys: Arc::new(Schema::new(keys)),
        request: Arc::new(Schema::new(request)),
        classes: classes(pipeline),
        details: serde_json::json!({
            "description": pipeline.description,
            "owner": pipeline.owner,
            "tags": pipeline.tags,
            "task": pipeline.task.as_str(),
            "signature": inputs.collect::<Vec<_>>(),
            "hash": pipeline.hash,
            "ack": pipeline.serving.ack,
            "text": pipeline.text.as_ref(),
        }),
    }
}

/// The classes that answers name; empty for regression.
pub fn classes(pipeline: &Pipeline) -> Vec<String> {
    match pipeline.task {
        Task::Binary => vec!["false".to_owned(), "true".to_owned()],
        Task::Multiclass => super::outcomes::declared_classes(pipeline),
        Task::Regression => Vec::new(),
    }
}

/// An answer under construction.
struct Answer {
    ids: Vec<Option<String>>,
    outcomes: Vec<Result<(u32, Scored), String>>,
}

impl Answer {
    fn new(rows: usize) -> Self {
        Self { ids: Vec::with_capacity(rows), outcomes: Vec::with_capacity(rows) }
    }

    fn add(&mut self, id: String, outcome: Result<(u32, Scored), String>) {
        self.ids.push(outcome.is_ok().then_some(id));
        self.outcomes.push(outcome);
    }

    fn finish(
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

/// A prediction event's inputs, or why there are none.
///
/// # Errors
/// When the bytes are no row of `width` values.
pub fn decode_inputs(bytes: &[u8], width: usize) -> Result<Vec<Value>> {
    let values = decode_row(bytes)?;
    if values.len() != width {
        bail!("the prediction has {} inputs, the signature {width}", values.len());
    }
    Ok(values)
}
