//! Training: from a job and its rows to a model and a report, telling events on the way.
//!
//! The same job, rows and version give the same bytes on a CPU, whatever the number of threads and
//! however often the run was interrupted. Does not know where events and models are kept.

mod batches;
pub mod checkpoint;
pub mod data;
pub mod events;
mod finish;
mod network;
mod trees;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use arrow::record_batch::RecordBatch;
use serde::{Deserialize, Serialize};

use crate::backend::{BackendError, Hardware};
use crate::metrics::curves::CalibrationBin;
use crate::metrics::{Metrics, Slice};
use crate::model::{Body, Model};
use crate::preprocess::ValueError;
use crate::score::ScoreError;
use crate::spec::{JobSpec, SpecError, Trainer};
use crate::table::{Table, TableError};
use data::Dataset;
use events::{EpochPoint, RowCounts, Sink, TrainingEvent};

/// Why there is no model.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum TrainError {
    /// The job is wrong.
    #[error(transparent)]
    Spec(#[from] SpecError),
    /// The table cannot be read.
    #[error(transparent)]
    Table(#[from] TableError),
    /// A feature cannot be encoded.
    #[error("feature `{column}`: {why}")]
    Feature {
        /// The column.
        column: String,
        /// What is wrong.
        why: String,
    },
    /// The label cannot be learnt.
    #[error("label `{column}`: {why}")]
    Label {
        /// The column.
        column: String,
        /// What is wrong.
        why: String,
    },
    /// A value of a row cannot be used.
    #[error("row {row} of the training set: {source}")]
    Value {
        /// The row, from 0.
        row: usize,
        /// What is wrong.
        source: ValueError,
    },
    /// The table has too many rows.
    #[error("the training set has {rows} rows, the bound is {bound}")]
    TooManyRows {
        /// Rows of the table.
        rows: usize,
        /// The job's bound.
        bound: usize,
    },
    /// The table has too few rows.
    #[error("{labelled} rows have a label: too few to train on and to validate with")]
    TooFewRows {
        /// Rows with a label.
        labelled: usize,
    },
    /// The run would need too much memory.
    #[error(
        "the run needs about {needed} bytes, the bound is {bound}; raise it or take fewer rows"
    )]
    TooLarge {
        /// The estimate.
        needed: usize,
        /// The job's bound.
        bound: usize,
    },
    /// The device failed.
    #[error(transparent)]
    Backend(#[from] BackendError),
    /// Losses are no longer numbers.
    #[error(
        "training diverged in pass {epoch}: the gradients are not finite; lower the learning rate"
    )]
    Diverged {
        /// The pass.
        epoch: u32,
    },
    /// The trees could not be grown.
    #[error("growing trees failed: {why}")]
    Trees {
        /// What the library says.
        why: String,
    },
    /// Somebody cancelled the run.
    #[error("the run was cancelled")]
    Cancelled,
    /// A file could not be written.
    #[error("{operation} {path} failed: {why}", path = path.display())]
    Io {
        /// What was tried.
        operation: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system says.
        why: String,
    },
    /// A checkpoint could not be made.
    #[error("making a checkpoint failed: {why}")]
    Checkpoint {
        /// What is wrong.
        why: String,
    },
    /// The trained model does not predict.
    #[error("the trained model does not predict: {0}")]
    Score(#[from] ScoreError),
}

/// What is known of a model besides the model; part of its artifact. Holds nothing that depends on
/// clocks or threads.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// How the rows were divided.
    pub rows: RowCounts,
    /// Every pass.
    pub history: Vec<EpochPoint>,
    /// The pass whose parameters were kept.
    pub best_epoch: u32,
    /// Figures of the training rows.
    pub train: Metrics,
    /// Figures of the validation rows, which calibration and early stopping have seen.
    pub validation: Metrics,
    /// Figures of the test rows; of the validation rows, where there are no test rows.
    pub test: Metrics,
    /// Figures of the test rows per slice.
    pub slices: Vec<Slice>,
    /// ROC of the test rows (binary tasks).
    pub roc: Vec<(f64, f64)>,
    /// Reliability on the test rows before calibration (binary tasks).
    pub reliability_raw: Vec<CalibrationBin>,
    /// Reliability on the test rows (binary tasks).
    pub reliability: Vec<CalibrationBin>,
    /// What the training rows looked like, for drift to be measured against.
    pub reference: Vec<Reference>,
    /// Scores of the validation rows: 101 quantiles, per output.
    pub score_quantiles: Vec<Vec<f64>>,
}

/// One column of the training rows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Reference {
    /// The column.
    pub column: String,
    /// Rows.
    pub rows: u64,
    /// Rows where it is missing.
    pub missing: u64,
    /// 101 quantiles of a number, from its least to its greatest.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub quantiles: Vec<f64>,
    /// Rows per entry of the vocabulary.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub counts: Vec<u64>,
    /// Rows outside of the vocabulary.
    #[serde(default)]
    pub unknown: u64,
}

/// What a run gives.
#[derive(Clone, Debug, PartialEq)]
pub struct Trained {
    /// The model.
    pub model: Model,
    /// What is known of it.
    pub report: Report,
    /// What it was computed on.
    pub hardware: Hardware,
}

/// What a trainer gives.
struct Fitted {
    body: Body,
    history: Vec<EpochPoint>,
    best_epoch: u32,
    hardware: Hardware,
}

/// Trains `spec` on the rows of `batches`, oldest first. `folder` keeps the checkpoint of an
/// interrupted run: the same job over the same rows goes on from there (trees are grown anew, and the
/// event [`TrainingEvent::Started`] says so), and ends in the same bytes.
/// `cancel` is looked at before every step (before every ensemble, for trees).
///
/// # Errors
/// [`TrainError`], told as [`TrainingEvent::Failed`] too. Nothing is registered anywhere.
pub fn train(
    spec: &JobSpec,
    batches: &[RecordBatch],
    folder: &Path,
    cancel: &AtomicBool,
    sink: &mut Sink<'_>,
) -> Result<Trained, TrainError> {
    let result = run(spec, batches, folder, cancel, sink);
    if let Err(error) = &result {
        sink(TrainingEvent::Failed { error: error.to_string() });
    }
    result
}

fn run(
    spec: &JobSpec,
    batches: &[RecordBatch],
    folder: &Path,
    cancel: &AtomicBool,
    sink: &mut Sink<'_>,
) -> Result<Trained, TrainError> {
    let started = Instant::now();
    spec.check()?;
    let table = Table::new(batches);
    let dataset = Dataset::read(spec, &table)?;
    let fitted = match spec.trainer {
        Trainer::Trees { .. } => trees::train_trees(spec, &dataset, folder, cancel, sink)?,
        _ => network::train_network(spec, &dataset, folder, cancel, sink)?,
    };
    let epochs = fitted.history.len() as u32;
    let trained = finish::finish(spec, &table, dataset, fitted)?;
    sink(TrainingEvent::Finished {
        epochs,
        best_epoch: trained.report.best_epoch,
        metrics: trained.report.test.clone(),
        seconds: started.elapsed().as_secs_f64(),
    });
    checkpoint::Checkpoint::remove(folder);
    trees::ended(folder);
    Ok(trained)
}

fn cancelled(cancel: &AtomicBool) -> Result<(), TrainError> {
    if cancel.load(Ordering::Relaxed) { Err(TrainError::Cancelled) } else { Ok(()) }
}

#[cfg(test)]
pub(crate) mod tests;
