//! One pipeline's predictions: features at one `T_r`, a score by the version that the policy picks, the
//! prediction event.
//!
//! Does not know Flight, nor how a version came to serve. A row that has no score is named and not
//! logged.

mod events;
mod request;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use arrow::array::Array;
use arrow::record_batch::RecordBatch;
use falaj_definitions::catalog::Catalog;
use falaj_definitions::pipelines::{Acknowledgement, InputOrigin, Pipeline, Task};
use falaj_event::cells::{Cells, batch_cells};
use falaj_event::encoding::{cells, decode_row, decode_value};
use falaj_event::hash::domain_hash;
use falaj_event::{LogTime, TopicSchema, Value, ViewId};
use falaj_gateway::backend::{BackendError, ModelInfo, PredictRequest, PredictResponse};
use falaj_log::Log;
use falaj_views::{Snapshot, ViewStore};

use super::figures::{Counts, Tally};
use super::ledger::Entry;
use super::serving::Slot;
use crate::backend::lookup::{read_rows, read_time, view_error};
use crate::backend::rows::{is_expired, key_bytes};
pub use events::Events;
use events::Made;
use request::{Answer, Asking};

/// Columns taken from one view.
struct Part {
    view: ViewId,
    name: String,
    ttl_us: Option<u64>,
    /// Positions of the view's key columns among the entity's.
    key: Vec<usize>,
    /// Number of wanted columns.
    columns: usize,
    /// By column of the view: which of the wanted ones it is.
    wanted: Vec<Vec<usize>>,
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
    /// What serving measured of itself and has not written down.
    pub tally: Tally,
    topic: Arc<TopicSchema>,
    parts: Vec<Part>,
    given: Vec<Given>,
    names: Vec<String>,
    /// Tells this start of the node from others.
    term: u64,
    next: AtomicU64,
}

/// The model's inputs of one row, in signature order, or why there are none.
pub type Inputs = Result<Vec<Value>, String>;

impl Predictor {
    /// Works out once what every request needs.
    ///
    /// # Errors
    /// When the pipeline does not fit the catalog: a defect, for it was checked.
    pub fn new(pipeline: &Arc<Pipeline>, catalog: &Catalog, term: u64) -> Result<Self> {
        let topic_name = pipeline.predictions_name();
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
            tally: Tally::default(),
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
        let at = t.as_event_time();
        for part in &self.parts {
            let keys = key_bytes(asked, &part.key)?;
            read_rows(snapshot, part.view, &keys, as_of, |row, found| {
                let (values, is_known, error) = &mut rows[row];
                if keys[row].is_none() {
                    error.get_or_insert_with(|| "a key column is NULL".to_owned());
                }
                *is_known |= found.is_some();
                let first = values.len();
                values.resize(first + part.columns, Value::Null);
                match found {
                    Some(row) => {
                        let expired = is_expired(part.ttl_us, row.latest_event_time, at);
                        part.take(row.columns, expired, &mut values[first..])
                    }
                    None => Ok(()),
                }
            })?;
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
    /// When nothing serves yet, the `T` asked for is not there, or the store cannot be read.
    pub fn predict(
        &self,
        store: &ViewStore,
        log: &dyn Log,
        request: &PredictRequest,
    ) -> Result<(PredictResponse, Events), BackendError> {
        let arrived = Instant::now();
        let set = self.slot.get();
        let Some(champion) = &set.champion else {
            return Err(BackendError::unavailable(format!(
                "no version of model `{0}` serves yet; train one with `falaj train {0}`",
                self.pipeline.name
            )));
        };
        let snapshot = store.snapshot().map_err(view_error)?;
        let t = read_time(&snapshot, log, request.as_of)?;
        let inputs = self.inputs(&snapshot, t, request.as_of.map(|_| t), &request.inputs)?;
        let entity: Vec<usize> = (0..self.pipeline.signature.keys.len()).collect();
        let keys = key_bytes(&request.inputs, &entity)?;
        let challenger = set.challenger.as_ref().map(|loaded| loaded.version);
        let mut answer = Answer::new(inputs.len());
        let mut asking = Asking::new(self, &set, inputs.len());
        let mut counts = Counts::default();
        let mut misfits = request.misfits.iter().peekable();
        for (row, inputs) in inputs.into_iter().enumerate() {
            let misfit = misfits.next_if(|(at, _)| *at == row).map(|(_, why)| why.clone());
            let key = keys[row].as_ref();
            let route =
                key.and_then(|key| set.policy.route(Some(champion.version), challenger, key));
            let routed = misfit.map_or(inputs, Err).and_then(|inputs| {
                let route = route.ok_or_else(|| "a key column is NULL".to_owned())?;
                Ok((inputs, route))
            });
            let (inputs, route) = match routed {
                Ok(routed) => routed,
                Err(why) => {
                    counts.refused += 1;
                    answer.refuse(&why);
                    continue;
                }
            };
            let id = self.id(request, row);
            let served = asking.serve(route.serve, &inputs);
            counts.add(route.serve, served.is_err());
            match served {
                Err(why) => answer.refuse(&why),
                Ok((loaded, scored)) => {
                    let propensity = route.propensity;
                    let made = Made { id: &id, inputs: &inputs, served: true, propensity };
                    asking.events.push(row, &made, loaded, &scored);
                    if let Some(version) = route.shadow
                        && let Ok((shadow, beside)) = asking.serve(version, &inputs)
                    {
                        let propensity = 1.0 - route.propensity;
                        let made = Made { served: false, propensity, ..made };
                        asking.events.push(row, &made, shadow, &beside);
                    }
                    answer.add(&id, loaded.version, &scored);
                }
            }
        }
        let events = asking.events.finish(&self.topic, request, t, self.pipeline.serving.ack)?;
        let (batch, errors) = answer.finish(self, &request.inputs)?;
        self.tally.add(champion.version, &counts, arrived.elapsed());
        let response =
            PredictResponse { t, logged_t: None, model_version: champion.version, batch, errors };
        Ok((response, events))
    }

    /// Whether answers wait until their events are durable.
    pub fn is_durable(&self) -> bool {
        self.pipeline.serving.ack == Acknowledgement::Durable
    }

    /// The entry for the ledger that carries these events.
    pub fn entry(
        &self,
        t: LogTime,
        events: Events,
        reply: tokio::sync::oneshot::Sender<Result<LogTime, String>>,
    ) -> Entry {
        Entry {
            schema: Arc::clone(&self.topic),
            definition: self.pipeline.hash,
            cause: t,
            events,
            waits: Duration::from_micros(self.pipeline.serving.batch_wait_us),
            enough: self.pipeline.serving.batch_rows as usize,
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
}

/// The hash that a prediction event commits to: of its id and its inputs' canonical bytes.
pub fn inputs_hash(id: &str, inputs: &[u8]) -> [u8; 32] {
    domain_hash(b"falaj.inputs.v1", &[id.as_bytes(), inputs]).0
}

impl Part {
    /// Puts the wanted values of a stored row into `values`, which are NULL so far.
    fn take(&self, row: &[u8], expired: bool, values: &mut [Value]) -> Result<(), BackendError> {
        let damaged = |why: String| BackendError::Damaged {
            message: format!("a stored row of view {} is damaged: {why}", self.name),
        };
        let (mut found, mut bytes) = (0, 0);
        for cell in cells(row) {
            for out in self.wanted.get(found).into_iter().flatten().filter(|_| !expired) {
                values[*out] = decode_value(cell).map_err(|error| damaged(error.to_string()))?.0;
            }
            found += 1;
            bytes += cell.len();
        }
        if bytes != row.len() || found != self.wanted.len() {
            let wanted = self.wanted.len();
            return Err(damaged(format!("{found} columns instead of {wanted}; rebuild state/")));
        }
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
    let mut wanted = vec![Vec::new(); view.output.len()];
    for (out, name) in set.columns.iter().enumerate() {
        wanted[column(name)?].push(out);
    }
    Ok(Part {
        view: view.id,
        name: view.name.clone(),
        ttl_us: view.ttl_us,
        key: set.key.iter().map(position).collect::<Result<_>>()?,
        columns: set.columns.len(),
        wanted,
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
