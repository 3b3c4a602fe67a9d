//! A checked model pipeline as data: the task, the label, the features and the signature.
//!
//! Does not know files or spans (see [`super::parse`]); how it is trained and served stands in
//! [`super::settings`].

use std::path::PathBuf;
use std::sync::Arc;

use falaj_event::{ColumnType, Hash256};
use serde::{Deserialize, Serialize};

use super::derived::{OUTCOMES_SUFFIX, PREDICTIONS_SUFFIX};
use super::settings::{Gates, Kpi, Monitors, Retrain, Serving, Split, Trainer, Training};

/// One model pipeline, checked against the topics and views that it reads.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Pipeline {
    /// Its name, which is the model's name: unique among pipelines, topics and views.
    pub name: String,
    /// Who answers for it.
    pub owner: Option<String>,
    /// What it is for.
    pub description: String,
    /// Free labels.
    pub tags: Vec<String>,
    /// What is learned.
    pub task: Task,
    /// Columns of the label topic that name what a prediction is about, in order: a caller gives
    /// them as keys.
    pub entity: Vec<String>,
    /// The truth that the model learns to foretell.
    pub label: Label,
    /// The views that are read, in declared order.
    pub features: Vec<FeatureSet>,
    /// What the caller of a prediction gives beside the keys, in declared order.
    pub request: Vec<RequestFeature>,
    /// What goes in and what comes out: derived from all of the above.
    pub signature: Signature,
    /// How it is trained.
    pub trainer: Trainer,
    /// How rows are divided, in order of `observed_at`.
    pub split: Split,
    /// Which rows are trained on.
    pub training: Training,
    /// What a version must meet before it serves.
    pub gates: Gates,
    /// How it serves.
    pub serving: Serving,
    /// How it is watched.
    pub monitors: Monitors,
    /// When it is trained again.
    pub retrain: Retrain,
    /// What it is worth, in the terms of the business.
    pub kpi: Option<Kpi>,
    /// The file that declares it.
    pub file: PathBuf,
    /// The text of that file.
    #[serde(skip)]
    pub text: Arc<str>,
    /// SHA-256 (domain `falaj.definition.pipeline.v1`) of the pipeline format's version, the name,
    /// the text, the hash of the label's topic, and the name and hash of each view in order.
    pub hash: Hash256,
}

impl Pipeline {
    /// Name of the topic of its predictions.
    pub fn predictions_name(&self) -> String {
        format!("{}{PREDICTIONS_SUFFIX}", self.name)
    }

    /// Name of the topic of its outcomes.
    pub fn outcomes_name(&self) -> String {
        format!("{}{OUTCOMES_SUFFIX}", self.name)
    }

    /// Hash of what decides the contents of its training sets: names, label, entity, features with
    /// their views' hashes and request features. Trainer, gates and serving may change without it.
    /// SHA-256, domain `falaj.pipeline.inputs.v1`.
    pub fn inputs_hash(&self) -> Hash256 {
        let parts: Vec<Vec<u8>> = [
            serde_json::to_vec(&self.entity),
            serde_json::to_vec(&self.label),
            serde_json::to_vec(&self.features),
            serde_json::to_vec(&self.request),
        ]
        .into_iter()
        .map(Result::unwrap_or_default)
        .collect();
        let parts: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
        falaj_event::hash::domain_hash(b"falaj.pipeline.inputs.v1", &parts)
    }
}

/// What is learned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Task {
    /// One of two classes: a probability of the positive one.
    Binary,
    /// One of several classes: a probability of each.
    Multiclass,
    /// A number.
    Regression,
}

impl Task {
    /// The word that files use.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Binary => "binary",
            Self::Multiclass => "multiclass",
            Self::Regression => "regression",
        }
    }
}

/// Where the truth comes from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Label {
    /// The topic.
    pub topic: String,
    /// Its column that holds the truth.
    pub column: String,
    /// That column's type.
    pub column_type: ColumnType,
    /// The column that holds the moment at which a prediction would have been made: features are
    /// those known strictly before it. Default: the topic's event time.
    pub observed_at: String,
    /// The longest time between that moment and the label's arrival; until it has passed, a missing
    /// label means nothing. Microseconds.
    pub delay_us: u64,
    /// [`Task::Binary`]: the value that is the positive class.
    pub positive: Option<ClassValue>,
    /// [`Task::Multiclass`]: the classes in the order of the scores; empty for other tasks.
    pub classes: Vec<ClassValue>,
    /// How labels find the predictions that they judge.
    pub join: FeedbackJoin,
}

/// A class, as a column's value.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(untagged)]
pub enum ClassValue {
    /// Of a bool column.
    Bool(bool),
    /// Of a column of whole numbers.
    Int(i64),
    /// Of a string column.
    Text(String),
}

/// How a label finds its prediction.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "by", rename_all = "snake_case")]
pub enum FeedbackJoin {
    /// The label's topic has a string column with the prediction's id; a NULL there falls back to
    /// key and time.
    PredictionId {
        /// The column.
        column: String,
        /// As in [`FeedbackJoin::KeyAndTime`], for labels without an id.
        within_us: u64,
    },
    /// The entity's prediction nearest to `observed_at` (the later one when two are as near).
    KeyAndTime {
        /// At most this far from `observed_at`, before or after. Microseconds.
        within_us: u64,
    },
}

/// Columns taken from one view.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FeatureSet {
    /// The view.
    pub view: String,
    /// The view's hash when the pipeline was checked.
    pub view_hash: Hash256,
    /// For each of the view's key columns, in its order, the entity column that it is looked up by.
    pub key: Vec<String>,
    /// The view's columns that are features, in order.
    pub columns: Vec<String>,
    /// The names of those features in the signature: `prefix` and the column's name.
    pub names: Vec<String>,
}

/// A value that the caller of a prediction gives, and that label rows carry for training.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequestFeature {
    /// Its name in requests and in the signature.
    pub name: String,
    /// Its type.
    pub column_type: ColumnType,
    /// The column of the label's topic that holds it, default `name`.
    pub label_column: String,
    /// Whether a request may leave it out.
    pub optional: bool,
}

/// Typed inputs and outputs, in order: enforced at every prediction and stored with the model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signature {
    /// Key columns, which choose the feature rows and are no inputs of the model itself.
    pub keys: Vec<(String, ColumnType)>,
    /// The model's inputs: features of views in declared order, then request features.
    pub inputs: Vec<SignatureInput>,
    /// What a prediction answers.
    pub outputs: Vec<SignatureOutput>,
}

impl Signature {
    /// SHA-256 (domain `falaj.signature.v1`) of keys, inputs and outputs: models of equal
    /// signatures can replace each other.
    pub fn hash(&self) -> Hash256 {
        let bytes = serde_json::to_vec(self).unwrap_or_default();
        falaj_event::hash::domain_hash(b"falaj.signature.v1", &[&bytes])
    }
}

/// One input of the model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignatureInput {
    /// Its name, unique among the inputs and keys.
    pub name: String,
    /// Its type.
    pub column_type: ColumnType,
    /// How a model reads it.
    pub kind: InputKind,
    /// Where its value comes from.
    pub origin: InputOrigin,
    /// Whether it can be NULL. Features of views always can: an unknown key has none.
    pub nullable: bool,
}

/// How a model reads an input.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum InputKind {
    /// Integers, floats and decimals, as float64.
    Numeric,
    /// Strings, and columns declared `categorical`.
    Categorical,
    /// Bools.
    Boolean,
}

impl InputKind {
    /// How a column of this type is read unless its pipeline says otherwise; `None` when no model
    /// can read it.
    pub fn of(column_type: &ColumnType) -> Option<Self> {
        use ColumnType as T;
        match column_type {
            T::Bool => Some(Self::Boolean),
            T::String => Some(Self::Categorical),
            T::Binary | T::Date | T::Timestamp | T::List(_) => None,
            _ => Some(Self::Numeric),
        }
    }

    /// The word that is printed.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Numeric => "numeric",
            Self::Categorical => "categorical",
            Self::Boolean => "boolean",
        }
    }
}

/// Where an input's value comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "from", rename_all = "snake_case")]
pub enum InputOrigin {
    /// A view's column.
    View {
        /// The view.
        view: String,
        /// Its column.
        column: String,
    },
    /// The caller.
    Request,
}

/// One output of a prediction.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignatureOutput {
    /// Its name.
    pub name: String,
    /// Its type.
    pub column_type: ColumnType,
}
