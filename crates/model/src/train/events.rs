//! What a run tells while it goes on.

use serde::{Deserialize, Serialize};

use crate::backend::Hardware;
use crate::metrics::Metrics;

/// How the rows were divided.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RowCounts {
    /// Trained on.
    pub train: usize,
    /// For early stopping and calibration.
    pub validation: usize,
    /// For the reported figures.
    pub test: usize,
    /// Left out because their label is NULL.
    pub without_label: usize,
}

/// Use of a GPU.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct DeviceUse {
    /// Seconds in which it computed.
    pub busy_s: f64,
    /// Free memory in bytes.
    pub free_bytes: u64,
}

/// One pass over the training rows (or, for trees, one tree).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct EpochPoint {
    /// Its number, from 1.
    pub epoch: u32,
    /// Mean (weighted) loss over the training rows, while they were trained on.
    pub train_loss: f64,
    /// Mean loss over the validation rows.
    pub validation_loss: f64,
    /// Mean norm of the gradients, before clipping; `None` for trees.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gradient_norm: Option<f64>,
}

/// Where events go; it is called on the thread that trains.
pub type Sink<'a> = dyn FnMut(TrainingEvent) + Send + 'a;

/// What happened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum TrainingEvent {
    /// The run begins.
    Started {
        /// Name of the model.
        model: String,
        /// Name of the trainer.
        trainer: String,
        /// What it computes on.
        hardware: Hardware,
        /// Why it is not the GPU that was preferred.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        fallback: Option<String>,
        /// How the rows were divided.
        rows: RowCounts,
        /// Number of trained values; 0 for trees.
        parameters: usize,
        /// Rows per step, after adapting to the memory of a GPU.
        batch_size: usize,
        /// Most passes.
        epochs: u32,
        /// Data-parallel ranks.
        workers: usize,
        /// Pass after which an interrupted run goes on.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        resumed_after: Option<u32>,
        /// Why an interrupted run begins anew instead.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        restarted: Option<String>,
    },
    /// A pass ended.
    Epoch {
        /// Its losses.
        #[serde(flatten)]
        point: EpochPoint,
        /// Figures of the validation rows.
        validation: Metrics,
        /// Training rows per second of the pass.
        rows_per_s: f64,
        /// Loss scale of mixed precision.
        loss_scale: f32,
        /// Steps skipped so far because a gradient overflowed.
        skipped_steps: u64,
        /// Whether it is the best so far.
        best: bool,
        /// Use of the GPU so far.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        device: Option<DeviceUse>,
    },
    /// A checkpoint is durable.
    Checkpoint {
        /// The pass it follows.
        epoch: u32,
        /// Its size.
        bytes: u64,
    },
    /// The run has a model.
    Finished {
        /// Passes that were made.
        epochs: u32,
        /// The pass whose parameters were kept.
        best_epoch: u32,
        /// Figures of the test rows (of the validation rows, where there are no test rows).
        metrics: Metrics,
        /// Wall time.
        seconds: f64,
    },
    /// The run has no model.
    Failed {
        /// Why.
        error: String,
    },
}
