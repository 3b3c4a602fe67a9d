//! What is to be trained, as data: the job that a trainer process reads.
//!
//! Does not know where the rows come from or where the model goes.

mod check;

use serde::{Deserialize, Serialize};

pub use check::SpecError;

/// What the model predicts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Task {
    /// One of two classes; the score is the probability of the greater class.
    Binary,
    /// One of several classes; the scores are their probabilities.
    Multiclass,
    /// A number.
    Regression,
}

/// How a column enters the model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FeatureKind {
    /// A number, standardised; missing values become the mean and raise an indicator.
    Numeric,
    /// Text or integers from a vocabulary, with buckets for the unknown and the missing.
    Categorical,
    /// True or false; treated as the numbers 1 and 0.
    Boolean,
}

/// One input column.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Feature {
    /// Name of the column.
    pub name: String,
    /// How it enters the model.
    pub kind: FeatureKind,
    /// Whether a prediction may lack it; by default, whether any row of the table lacks it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nullable: Option<bool>,
}

impl Feature {
    /// A feature whose nullability is taken from the table.
    pub fn new(name: &str, kind: FeatureKind) -> Self {
        Self { name: name.to_owned(), kind, nullable: None }
    }
}

/// What is trained, with its hyper-parameters.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Trainer {
    /// Logistic (softmax) or linear regression.
    Linear {},
    /// A multi-layer perceptron with embeddings for categorical columns.
    Mlp {
        /// Widths of the hidden layers.
        #[serde(default = "default_hidden")]
        hidden: Vec<usize>,
        /// Probability that a hidden unit is dropped in training.
        #[serde(default)]
        dropout: f32,
    },
    /// A residual network over piecewise-linear encodings of the numbers: Gorishniy et al.,
    /// "Revisiting deep learning models for tabular data" (2021) and "On embeddings for numerical
    /// features in tabular deep learning" (2022).
    Resnet {
        /// Width of the residual stream.
        #[serde(default = "default_width")]
        width: usize,
        /// Number of residual blocks.
        #[serde(default = "default_blocks")]
        blocks: usize,
        /// Width within a block, as a multiple of `width`.
        #[serde(default = "default_expansion")]
        expansion: usize,
        /// Probability that a unit within a block is dropped in training.
        #[serde(default = "default_dropout")]
        dropout: f32,
        /// Quantile bins per numeric column; 0 leaves numbers as they are.
        #[serde(default = "default_bins")]
        bins: usize,
    },
    /// Gradient-boosted trees (XGBoost's second-order boosting, Chen and Guestrin 2016, as the
    /// `forust-ml` crate has it); several classes are boosted one against the rest.
    Trees {
        /// Most trees per output.
        #[serde(default = "default_trees")]
        trees: usize,
        /// Share of a tree's answer that is taken.
        #[serde(default = "default_tree_rate")]
        learning_rate: f32,
        /// Most splits from root to leaf.
        #[serde(default = "default_depth")]
        max_depth: usize,
        /// Least sum of second derivatives in a leaf.
        #[serde(default = "default_leaf_weight")]
        min_leaf_weight: f32,
        /// L2 penalty on leaf values.
        #[serde(default = "default_leaf_weight")]
        l2: f32,
        /// Share of the rows drawn for each tree.
        #[serde(default = "default_share")]
        subsample: f32,
        /// Share of the columns drawn for each tree.
        #[serde(default = "default_column_share")]
        column_share: f64,
        /// Most histogram bins per column.
        #[serde(default = "default_tree_bins")]
        bins: u16,
        /// Trees without a better validation loss before boosting ends.
        #[serde(default = "default_rounds")]
        early_stopping_rounds: usize,
    },
    /// A model of another tool, registered rather than trained.
    Onnx {},
}

fn default_hidden() -> Vec<usize> {
    vec![64, 32]
}
fn default_width() -> usize {
    64
}
fn default_blocks() -> usize {
    2
}
fn default_expansion() -> usize {
    2
}
fn default_dropout() -> f32 {
    0.1
}
fn default_bins() -> usize {
    16
}
fn default_trees() -> usize {
    500
}
fn default_tree_rate() -> f32 {
    0.1
}
fn default_depth() -> usize {
    6
}
fn default_leaf_weight() -> f32 {
    1.0
}
fn default_share() -> f32 {
    1.0
}
fn default_column_share() -> f64 {
    1.0
}
fn default_tree_bins() -> u16 {
    255
}
fn default_rounds() -> usize {
    30
}

impl Trainer {
    /// An MLP with the default widths.
    pub fn mlp() -> Self {
        Self::Mlp { hidden: default_hidden(), dropout: 0.0 }
    }

    /// A residual network of the default size.
    pub fn resnet() -> Self {
        Self::Resnet {
            width: default_width(),
            blocks: default_blocks(),
            expansion: default_expansion(),
            dropout: default_dropout(),
            bins: default_bins(),
        }
    }

    /// Trees of the default size.
    pub fn trees() -> Self {
        Self::Trees {
            trees: default_trees(),
            learning_rate: default_tree_rate(),
            max_depth: default_depth(),
            min_leaf_weight: default_leaf_weight(),
            l2: default_leaf_weight(),
            subsample: default_share(),
            column_share: default_column_share(),
            bins: default_tree_bins(),
            early_stopping_rounds: default_rounds(),
        }
    }

    /// Its name in files.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Linear {} => "linear",
            Self::Mlp { .. } => "mlp",
            Self::Resnet { .. } => "resnet",
            Self::Trees { .. } => "trees",
            Self::Onnx {} => "onnx",
        }
    }
}

/// Shares of the rows, in their order: the oldest train, the newest test.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Split {
    /// Share that is trained on.
    pub train: f64,
    /// Share that stops training early and fits the calibration.
    pub validation: f64,
    /// Share that the reported figures are computed on.
    pub test: f64,
}

impl Default for Split {
    fn default() -> Self {
        Self { train: 0.7, validation: 0.15, test: 0.15 }
    }
}

/// AdamW (Loshchilov and Hutter, "Decoupled weight decay regularization", 2019).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Optimiser {
    /// Step size.
    pub learning_rate: f64,
    /// Decoupled decay; applies to weight matrices, not to biases and norms.
    pub weight_decay: f64,
    /// Decay of the first moment.
    pub beta1: f64,
    /// Decay of the second moment.
    pub beta2: f64,
    /// Added to the root of the second moment.
    pub epsilon: f64,
    /// Greatest global gradient norm; 0 does not clip.
    pub clip_norm: f64,
}

impl Default for Optimiser {
    fn default() -> Self {
        Self {
            learning_rate: 2e-3,
            weight_decay: 1e-4,
            beta1: 0.9,
            beta2: 0.999,
            epsilon: 1e-8,
            clip_norm: 1.0,
        }
    }
}

/// Numbers that forward and backward passes compute in; parameters stay float32.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Precision {
    /// float32 throughout.
    #[default]
    F32,
    /// bfloat16 products, float32 masters.
    Bf16,
    /// float16 products, float32 masters, dynamic loss scaling.
    F16,
}

/// How much a row of a class counts in the loss.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ClassWeights {
    /// Every row counts alike.
    #[default]
    None,
    /// Inversely to the class's share of the training rows.
    Balanced,
    /// As given, by class in ascending order.
    Given(Vec<f64>),
}

/// How scores become probabilities that hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Calibration {
    /// As trained.
    #[default]
    None,
    /// One divisor of the logits (Guo et al., "On calibration of modern neural networks", 2017).
    Temperature,
    /// A monotone map of the score (Zadrozny and Elkan, 2002); binary tasks only.
    Isotonic,
}

/// Where it is computed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BackendChoice {
    /// CUDA where there is one, else the CPU.
    #[default]
    Auto,
    /// The CPU.
    Cpu,
    /// CUDA, or an error.
    Cuda,
}

/// What a run may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Bounds {
    /// Most rows of the table.
    pub max_rows: usize,
    /// Most memory, estimated before it is taken.
    pub max_bytes: usize,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { max_rows: 50_000_000, max_bytes: 8 << 30 }
    }
}

/// A training job.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JobSpec {
    /// Name of the model.
    pub model: String,
    /// What it predicts.
    pub task: Task,
    /// Column of the label; rows where it is NULL are left out and counted.
    pub label: String,
    /// Input columns, in the order of the signature.
    pub features: Vec<Feature>,
    /// What is trained.
    pub trainer: Trainer,
    /// How the rows are divided.
    #[serde(default)]
    pub split: Split,
    /// Key of all randomness.
    #[serde(default)]
    pub seed: u64,
    /// Step sizes.
    #[serde(default)]
    pub optimiser: Optimiser,
    /// Numbers of the forward and backward passes.
    #[serde(default)]
    pub precision: Precision,
    /// Rows per step, over all workers.
    #[serde(default = "default_batch_size")]
    pub batch_size: usize,
    /// Most passes over the training rows.
    #[serde(default = "default_epochs")]
    pub epochs: u32,
    /// Passes without a better validation loss before training ends; 0 never ends early.
    #[serde(default = "default_patience")]
    pub patience: u32,
    /// How rows of a class count.
    #[serde(default)]
    pub class_weights: ClassWeights,
    /// How scores become probabilities.
    #[serde(default)]
    pub calibration: Calibration,
    /// Columns whose values are reported on one by one.
    #[serde(default)]
    pub slices: Vec<String>,
    /// Where it is computed.
    #[serde(default)]
    pub backend: BackendChoice,
    /// Data-parallel ranks.
    #[serde(default = "default_workers")]
    pub workers: usize,
    /// Threads over all ranks; 0 takes the machine's. Results do not depend on it.
    #[serde(default)]
    pub threads: usize,
    /// Categories of a column beyond the most frequent so many share the bucket of the unknown.
    #[serde(default = "default_max_categories")]
    pub max_categories: usize,
    /// What the run may use.
    #[serde(default)]
    pub bounds: Bounds,
}

fn default_batch_size() -> usize {
    256
}
fn default_epochs() -> u32 {
    50
}
fn default_patience() -> u32 {
    8
}
fn default_workers() -> usize {
    1
}
fn default_max_categories() -> usize {
    1_000
}

impl JobSpec {
    /// A job with every default.
    pub fn new(
        model: &str,
        task: Task,
        label: &str,
        features: Vec<Feature>,
        trainer: Trainer,
    ) -> Self {
        Self {
            model: model.to_owned(),
            task,
            label: label.to_owned(),
            features,
            trainer,
            split: Split::default(),
            seed: 0,
            optimiser: Optimiser::default(),
            precision: Precision::default(),
            batch_size: default_batch_size(),
            epochs: default_epochs(),
            patience: default_patience(),
            class_weights: ClassWeights::default(),
            calibration: Calibration::default(),
            slices: Vec::new(),
            backend: BackendChoice::default(),
            workers: default_workers(),
            threads: 0,
            max_categories: default_max_categories(),
            bounds: Bounds::default(),
        }
    }
}
