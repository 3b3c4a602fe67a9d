//! How a pipeline's model is trained, gated, served, watched and retrained: every setting with its
//! default.
//!
//! Does not know files, nor how any of it is carried out.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The kind of model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TrainerKind {
    /// Logistic, softmax or linear regression.
    Linear,
    /// A multilayer perceptron with embeddings for categorical inputs.
    Mlp,
    /// A residual MLP with numerical embeddings.
    Resnet,
    /// Gradient-boosted trees.
    Trees,
}

impl TrainerKind {
    /// The word that files use.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Linear => "linear",
            Self::Mlp => "mlp",
            Self::Resnet => "resnet",
            Self::Trees => "trees",
        }
    }
}

/// Arithmetic of a neural trainer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// float32 throughout.
    Fp32,
    /// bfloat16 compute, float32 master weights.
    Bf16,
    /// float16 compute with dynamic loss scaling, float32 master weights.
    F16,
}

/// How scores become probabilities.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Calibration {
    /// As the model gives them.
    None,
    /// One temperature, fitted on the validation rows.
    Temperature,
    /// Isotonic regression, fitted on the validation rows.
    Isotonic,
}

/// How rows of each class weigh in the loss.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ClassWeight {
    /// All alike.
    None,
    /// Inversely to the class's frequency among the training rows.
    Balanced,
    /// As given, by class as text.
    Given(BTreeMap<String, f64>),
}

/// The trainer and its hyper-parameters. Those that its kind does not use hold their defaults.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Trainer {
    /// The kind of model.
    pub kind: TrainerKind,
    /// Seed of everything random. Default 0.
    pub seed: u32,
    /// Passes over the training rows, at most (boosting rounds for trees). Default 20; trees 300.
    pub epochs: u32,
    /// Rows per step. Default 256. Not for trees.
    pub batch_size: u32,
    /// Default 0.001; trees 0.1.
    pub learning_rate: f64,
    /// Decoupled weight decay (AdamW); for trees the L2 penalty on leaves. Default 0.0001; trees 1.
    pub weight_decay: f64,
    /// Widths of the hidden layers. Default `[64, 32]`; resnet `[128, 128]` (width of each block).
    pub hidden: Vec<u32>,
    /// Share of hidden units dropped in training. Default 0.
    pub dropout: f64,
    /// Width of the embeddings of categorical inputs (resnet: of numerical ones too). Default 8.
    pub embedding: u32,
    /// Depth of a tree. Default 6. Trees only.
    pub depth: u32,
    /// Rows that a leaf needs. Default 20. Trees only.
    pub leaf_rows: u32,
    /// Default `fp32`. Neural trainers only.
    pub precision: Precision,
    /// Epochs (rounds) without improvement on the validation rows after which training stops; 0:
    /// never. Default 5; trees 30.
    pub early_stopping: u32,
    /// Default: temperature for classification, none for regression.
    pub calibration: Calibration,
    /// Default none. Classification only.
    pub class_weight: ClassWeight,
    /// Place in the queue for a shared device; higher goes first. Default 0.
    pub priority: u32,
}

/// Fractions of the rows in order of `observed_at`; they sum to 1.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Split {
    /// The earliest. Default 0.7.
    pub train: f64,
    /// Then these: early stopping and calibration. Default 0.15.
    pub validation: f64,
    /// The latest: metrics and gates. Default 0.15.
    pub test: f64,
    /// Rows nearer than this to the beginning of the next part are left out of the earlier one.
    /// Microseconds. Default 0.
    pub embargo_us: u64,
}

/// Which view of the past a training set shows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TrainingMode {
    /// Events known now with `event_time < observed_at`, windows exactly at `observed_at`.
    #[default]
    AsCorrected,
    /// The views at the greatest epoch `T <= observed_at`.
    AsKnown,
    /// What the prediction was made with.
    AsServed,
}

impl TrainingMode {
    /// The word that files use.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::AsCorrected => "as_corrected",
            Self::AsKnown => "as_known",
            Self::AsServed => "as_served",
        }
    }
}

/// Which rows are trained on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Training {
    /// Default as corrected.
    pub mode: TrainingMode,
    /// Only labels observed within this long before the newest one; `None`: all. Microseconds.
    pub history_us: Option<u64>,
    /// The newest so many of those; `None`: all.
    pub max_rows: Option<u32>,
    /// Fewer rows than this are no training set. Default 100.
    pub min_rows: u32,
}

/// A side of a threshold.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Bound {
    /// The value or more is well.
    AtLeast(f64),
    /// The value or less is well.
    AtMost(f64),
}

impl Bound {
    /// Whether `value` is on the right side; NaN never is.
    pub fn holds(self, value: f64) -> bool {
        match self {
            Self::AtLeast(limit) => value >= limit,
            Self::AtMost(limit) => value <= limit,
        }
    }
}

impl std::fmt::Display for Bound {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::AtLeast(limit) => write!(f, ">= {limit}"),
            Self::AtMost(limit) => write!(f, "<= {limit}"),
        }
    }
}

/// A threshold of one metric over all test rows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Gate {
    /// The metric's name, one of [`super::METRICS`].
    pub metric: String,
    /// Its threshold.
    pub bound: Bound,
}

/// No worse than the champion on the same rows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ChampionGate {
    /// The metric compared. Default: the task's first.
    pub metric: String,
    /// How much worse is still well, in the metric's unit. Default 0.
    pub delta: f64,
}

/// A threshold within every value of a column.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SliceGate {
    /// A categorical or boolean input.
    pub column: String,
    /// The metric.
    pub metric: String,
    /// Its threshold.
    pub bound: Bound,
    /// Slices of fewer rows are reported, not judged. Default 100.
    pub minimum_support: u32,
}

/// How true probabilities must be.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CalibrationGate {
    /// Expected calibration error, at most.
    pub at_most: f64,
    /// Bins of equal count. Default 15.
    pub bins: u32,
}

/// What a version must meet before it serves. Nothing declared: nothing demanded but a finite loss.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Gates {
    /// Absolute thresholds, by name of the metric.
    pub metrics: Vec<Gate>,
    /// Comparison with the champion; `None`: none is made.
    pub champion: Option<ChampionGate>,
    /// Floors per slice.
    pub slices: Vec<SliceGate>,
    /// Calibration.
    pub calibration: Option<CalibrationGate>,
    /// p99 of a single-row prediction, at most. Microseconds.
    pub latency_p99_us: Option<u64>,
    /// Threshold of the KPI over the test rows.
    pub kpi: Option<Bound>,
    /// People who must approve; 0: nobody. Default 0.
    pub approvals: u32,
}

/// Who answers.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "policy", rename_all = "snake_case")]
pub enum Policy {
    /// The champion.
    Champion,
    /// The champion; the challenger predicts unseen.
    Shadow,
    /// The challenger answers this share of entities (by key hash), in percent.
    Split {
        /// Above 0, below 100.
        percent: f64,
    },
}

/// What an answer waits for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Acknowledgement {
    /// The prediction event is durable.
    #[default]
    Durable,
    /// Nothing: the event follows.
    Fast,
}

/// How it serves.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Serving {
    /// Default champion.
    pub policy: Policy,
    /// Default durable.
    pub ack: Acknowledgement,
    /// So many waiting prediction events are appended without waiting for more. Default 256.
    pub batch_rows: u32,
    /// How long a prediction event waits for those of other requests, to be appended with them.
    /// Microseconds. Default 0 for durable answers, which wait for it; 10 ms for fast ones.
    pub batch_wait_us: u64,
    /// Binary: a score from here on is labelled positive. Default 0.5.
    pub threshold: f64,
    /// Predictions that are not durable after this are errors. Microseconds. Default 10 s.
    pub timeout_us: u64,
}

/// What is done about many tests at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Correction {
    /// Nothing.
    None,
    /// Bonferroni's family-wise error.
    Bonferroni,
    /// Holm's step-down.
    Holm,
    /// Benjamini and Hochberg's false discovery rate.
    BenjaminiHochberg,
}

/// What a broken guardrail does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// Opens an incident.
    Alert,
    /// Opens an incident and brings the last good version back.
    Rollback,
}

/// A limit that serving must keep.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Guardrail {
    /// A metric of the task, or `error_rate`, `latency_p99_us`, `mean_score`, `kpi`.
    pub metric: String,
    /// Its limit.
    pub bound: Bound,
    /// Over this long, event time. Microseconds.
    pub window_us: u64,
    /// Predictions (labels, for metrics) that the window must hold to be judged. Default 100.
    pub minimum_support: u32,
    /// Default rollback.
    pub action: Action,
}

/// How it is watched.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Monitors {
    /// Inputs whose drift is measured, in signature order; always with the score. Default: all but
    /// aggregates over all events ever, which drift by themselves.
    pub columns: Vec<String>,
    /// Length of a drift window, event time. Microseconds. Default 1 day.
    pub window_us: u64,
    /// Windows of fewer rows are not judged. Default 200.
    pub min_rows: u32,
    /// Statistics. Default `psi`, `ks`, `chi_square`, `missing_rate`, `range`.
    pub tests: Vec<String>,
    /// Default Benjamini-Hochberg.
    pub correction: Correction,
    /// Level of significance after correction. Default 0.01.
    pub alpha: f64,
    /// How many of the reference's own chunk-to-chunk spreads beyond its mean are an alarm. Default 3.
    pub spread: f64,
    /// Detectors over the stream of errors. Default `adwin`.
    pub detectors: Vec<String>,
    /// Inputs by whose values metrics and drift are told apart, too.
    pub slices: Vec<String>,
    /// Metrics followed as labels arrive. Default: all of the task.
    pub metrics: Vec<String>,
    /// Their windows, event time. Microseconds. Default 1 day and 7 days; lifetime always.
    pub metric_windows_us: Vec<u64>,
    /// Whether performance is estimated before labels arrive (CBPE). Default true for
    /// classification.
    pub estimate: bool,
    /// Limits that serving must keep.
    pub guardrails: Vec<Guardrail>,
}

/// A metric that must not fall below (rise above) its bound.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MetricFloor {
    /// The metric.
    pub metric: String,
    /// Its bound.
    pub bound: Bound,
    /// Over this long, event time. Microseconds.
    pub window_us: u64,
}

/// What a trained version waits for before it takes the champion's place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Promotion {
    /// Its gates, approvals among them.
    #[default]
    Automatic,
    /// A command.
    Manual,
}

/// When it is trained again. Nothing declared: by command only.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Retrain {
    /// After so many drifted windows in a row; `None`: drift does not retrain.
    pub drift_windows: Option<u32>,
    /// When a metric leaves its bound.
    pub floors: Vec<MetricFloor>,
    /// After so many labels since the last training.
    pub labels: Option<u32>,
    /// So much event time after the last training began (before the first: after the declaration).
    /// Microseconds.
    pub every_us: Option<u64>,
    /// No trigger within this much event time of the last training. Microseconds. Default 1 day.
    pub cool_down_us: u64,
    /// Default automatic.
    pub promotion: Promotion,
}

/// What it is worth.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Kpi {
    /// Its name. Default `kpi`.
    pub name: String,
    /// Its unit, for display.
    pub unit: Option<String>,
    /// An SQL aggregate expression over judged predictions, one row each: the entity columns, the
    /// signature's inputs, `score` (`value` for regression), `predicted`, `actual`, and the columns
    /// of the label's topic that have other names.
    pub sql: String,
    /// A view `SELECT model, <sql> AS kpi FROM judged GROUP BY model`, as the engine maintains it.
    pub view_sql: String,
}
