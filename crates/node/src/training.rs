//! Training sets: label rows of a pipeline with the features of their moment, in one of three modes.
//!
//! *As corrected* asks the engine's sweep over the log, *as known* the views' history, *as served* the
//! logged predictions. Puts the parts together and compares them; knows neither how views are computed
//! nor what models do with rows.

mod answers;
mod compare;
mod labels;
mod modes;
mod served;

use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use arrow::record_batch::RecordBatch;
use falaj_dataflow::training::Progress;
use falaj_definitions::pipelines::{Pipeline, TrainingMode};
use falaj_event::{LogTime, Value};
use serde_json::{Value as Json, json};

use crate::core::Core;
use answers::Features;
pub use labels::Labels;

/// Which training set.
#[derive(Clone, Debug)]
pub struct SetRequest {
    /// The pipeline.
    pub pipeline: Arc<Pipeline>,
    /// How the past is seen.
    pub mode: TrainingMode,
    /// Only what was in the log at this `T`, labels and events alike; `None`: all of it.
    pub until: Option<LogTime>,
    /// All labels rather than the pipeline's `history` and `max_rows`.
    pub all: bool,
    /// Whether the other modes are computed too, and compared.
    pub compare: bool,
}

/// A training set.
#[derive(Clone, Debug)]
pub struct TrainingSet {
    /// One row per label in log order: the readable columns of the label's topic, request features
    /// that have another name there, the views' features under their names in the signature, and
    /// `__status`, one [`falaj_gateway::backend::ValueStatus`] per feature of a view.
    pub batch: RecordBatch,
    /// What it is: pipeline, mode, hashes, `t`, rows, differences.
    pub metadata: Json,
}

/// What a prediction was made with.
#[derive(Clone, Debug, PartialEq)]
struct ServedRow {
    /// The `T_r` at which its features were read.
    t: LogTime,
    /// The features of views, in signature order.
    values: Vec<Value>,
}

/// Computes a training set.
///
/// # Errors
/// When the log or the views cannot be read, or the mode needs predictions and there are none.
pub fn compute(
    core: &Core,
    request: &SetRequest,
    progress: &mut dyn FnMut(Progress),
) -> Result<TrainingSet> {
    let pipeline = &request.pipeline;
    let entry = match request.until {
        Some(t) => core.log.entry_at(t)?.context("the log has no epoch at or before that T")?,
        None => core.log.tail().context("the log is empty")?,
    };
    let (epoch, t) = (entry.record.epoch, entry.record.t);
    let topic = core
        .catalog
        .topics
        .get(&pipeline.label.topic)
        .with_context(|| format!("there is no topic `{}`", pipeline.label.topic))?;
    let all = labels::read(&core.reader, &topic.schema, &pipeline.label.observed_at, epoch)?;
    let labels = if request.all { all } else { all.chosen(&pipeline.training)? };
    let mut work = modes::Work { core, pipeline, labels: &labels, epoch, progress };
    let features = work.features(request.mode)?;
    let mut differences = Vec::new();
    if request.compare {
        for other in [TrainingMode::AsCorrected, TrainingMode::AsKnown, TrainingMode::AsServed] {
            if other != request.mode {
                differences.push(match work.features(other) {
                    Ok(found) => compare::compare(other, &features, &found),
                    Err(why) => {
                        json!({ "mode": other.as_str(), "unavailable": format!("{why:#}") })
                    }
                });
            }
        }
    }
    let batch = assemble(pipeline, &labels, &features)?;
    ensure!(batch.num_rows() == labels.len(), "a training set has one row per label");
    let mut metadata = json!({
        "training_set": pipeline.name,
        "mode": request.mode.as_str(),
        "rows": labels.len(),
        "t": t,
        "epoch": epoch,
        // Events of its views below this epoch are gone by retention; 0: none are.
        "whole_from_epoch": whole_from(core, pipeline),
        "pipeline_hash": pipeline.hash,
        "inputs_hash": pipeline.inputs_hash(),
        "views": pipeline.features.iter()
            .map(|set| (set.view.clone(), json!(set.view_hash)))
            .collect::<serde_json::Map<_, _>>(),
        "label": pipeline.label.column,
        "observed_at": pipeline.label.observed_at,
        "inputs": pipeline.signature.inputs.iter().map(|input| &input.name).collect::<Vec<_>>(),
    });
    if request.compare {
        metadata["differences"] = Json::Array(differences);
    }
    Ok(TrainingSet { batch, metadata })
}

/// The first epoch from which on the log holds all events that a pipeline's views read.
fn whole_from(core: &Core, pipeline: &Pipeline) -> u64 {
    let plans: Vec<_> =
        pipeline.features.iter().filter_map(|set| core.catalog.view(&set.view).cloned()).collect();
    crate::baseline::whole_from(core.log.as_ref(), &plans)
}

/// The rows that a pipeline is trained on, in order of their moments (in log order where those are
/// equal), and the first and last epoch that they are made of.
///
/// # Errors
/// As [`compute`], and where there are fewer rows than the pipeline's `min_rows`.
#[allow(clippy::type_complexity)]
pub fn rows(core: &Core, pipeline: &Pipeline) -> Result<(Vec<RecordBatch>, Option<(u64, u64)>)> {
    let known = core.catalog.pipeline(&pipeline.name);
    let request = SetRequest {
        pipeline: known.cloned().unwrap_or_else(|| Arc::new(pipeline.clone())),
        mode: pipeline.training.mode,
        until: None,
        all: false,
        compare: false,
    };
    let set = compute(core, &request, &mut |_| {})?;
    let set = match pipeline.training.mode {
        TrainingMode::AsServed => with_prediction(set)?,
        TrainingMode::AsCorrected | TrainingMode::AsKnown => set,
    };
    let (found, needed) = (set.batch.num_rows(), pipeline.training.min_rows as usize);
    ensure!(
        found >= needed,
        "{found} labels of `{}` are known and {needed} are needed: wait for more, or lower min_rows",
        pipeline.name
    );
    let moments =
        set.batch.column_by_name(&pipeline.label.observed_at).context("the set has no moments")?;
    let times = falaj_event::cells::Cells::new(moments.as_ref())?;
    let mut rows: Vec<u32> = (0..u32::try_from(found)?).collect();
    rows.sort_by_cached_key(|row| (times.value(*row as usize), *row));
    let sorted =
        arrow::compute::take_record_batch(&set.batch, &arrow::array::UInt32Array::from(rows))?;
    let epochs = set.metadata["epoch"].as_u64().map(|last| (0, last));
    Ok((vec![sorted], epochs))
}

/// The rows that a prediction was served for: what was never served is no missing value to be learned.
fn with_prediction(set: TrainingSet) -> Result<TrainingSet> {
    let Some(statuses) = set.batch.column_by_name(falaj_gateway::backend::STATUS_COLUMN) else {
        return Ok(set);
    };
    let width = match statuses.data_type() {
        arrow::datatypes::DataType::FixedSizeList(_, width) => usize::try_from(*width)?,
        other => anyhow::bail!("statuses are {other}"),
    };
    let lists = arrow::array::AsArray::as_fixed_size_list(statuses.as_ref());
    let values: &arrow::array::UInt8Array = arrow::array::AsArray::as_primitive(lists.values());
    let absent = falaj_gateway::backend::ValueStatus::NotFound as u8;
    let kept: arrow::array::BooleanArray = values
        .values()
        .chunks_exact(width.max(1))
        .map(|row| Some(row.iter().any(|status| *status != absent)))
        .collect();
    let batch = arrow::compute::filter_record_batch(&set.batch, &kept)?;
    Ok(TrainingSet { batch, ..set })
}

/// Labels, request features and features side by side.
fn assemble(pipeline: &Pipeline, labels: &Labels, features: &Features) -> Result<RecordBatch> {
    use arrow::datatypes::{Field, Schema};
    let own = labels.batch.schema();
    let mut fields: Vec<Field> =
        own.fields().iter().map(|field| field.as_ref().clone().with_nullable(true)).collect();
    let mut arrays = labels.batch.columns().to_vec();
    for request in pipeline.request.iter().filter(|found| found.name != found.label_column) {
        let column = labels
            .batch
            .column_by_name(&request.label_column)
            .with_context(|| format!("labels have no column `{}`", request.label_column))?;
        fields.push(Field::new(&request.name, column.data_type().clone(), true));
        arrays.push(Arc::clone(column));
    }
    for (name, array) in features.names.iter().zip(&features.arrays) {
        fields.push(Field::new(name, array.data_type().clone(), true));
        arrays.push(Arc::clone(array));
    }
    if !features.names.is_empty() {
        fields.push(falaj_gateway::backend::status_field(features.names.len()));
        arrays.push(features.status_array()?);
    }
    let options = arrow::record_batch::RecordBatchOptions::new().with_row_count(Some(labels.len()));
    Ok(RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), arrays, &options)?)
}
