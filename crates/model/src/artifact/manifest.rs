//! What is said of a model, beside its tensors.

use serde::{Deserialize, Serialize};

use crate::backend::Hardware;
use crate::calibration::CalibrationMap;
use crate::model::{Model, Target};
use crate::network::Network;
use crate::preprocess::Preprocessing;
use crate::spec::{JobSpec, Task};
use crate::table::InputType;
use crate::train::Report;

/// A typed input or output.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Field {
    /// Its name.
    pub name: String,
    /// Its type.
    #[serde(rename = "type")]
    pub field_type: InputType,
    /// Whether it may be missing.
    pub nullable: bool,
}

/// What a prediction takes and gives.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signature {
    /// Columns of a row, in order.
    pub inputs: Vec<Field>,
    /// `score` (binary), `prediction` (regression), or one `score.<class>` per class.
    pub outputs: Vec<Field>,
}

impl Signature {
    /// The signature of `model`.
    pub fn of(model: &Model) -> Self {
        let output = |name: String| Field { name, field_type: InputType::Float64, nullable: false };
        let inputs = model.preprocessing.columns.iter().map(|column| Field {
            name: column.name.clone(),
            field_type: column.input,
            nullable: column.nullable,
        });
        let outputs = match (model.task, &model.target) {
            (Task::Multiclass, Target::Classes { classes, .. }) => {
                classes.iter().map(|class| output(format!("score.{class}"))).collect()
            }
            (Task::Regression, _) => vec![output("prediction".to_owned())],
            _ => vec![output("score".to_owned())],
        };
        Self { inputs: inputs.collect(), outputs }
    }
}

/// A view that the training set was made of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ViewReference {
    /// Its name.
    pub name: String,
    /// Hash of its definition.
    pub definition: String,
}

/// Where a model comes from, as far as the platform knows and this crate does not.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Provenance {
    /// Id of the training run.
    pub run: String,
    /// First and last epoch (`T`) of the training set.
    pub epochs: Option<(u64, u64)>,
    /// How features were joined to labels: as corrected, as known, as served.
    pub mode: String,
    /// Views that features come from.
    pub views: Vec<ViewReference>,
    /// Hash of the pipeline's definition.
    pub pipeline: String,
    /// Commit of the code.
    pub git_commit: String,
    /// Version of the code.
    pub code_version: String,
}

/// The shape of what computes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum BodyManifest {
    /// A network; its tensors have the names of its parameters.
    Network {
        /// Its shape.
        network: Network,
    },
    /// Trees; nodes, roots, bases and category values are tensors.
    Forest {
        /// Inputs that come from numbers.
        numbers: usize,
        /// Number of categorical columns.
        categories: usize,
    },
    /// A model of another tool; its file is a tensor of bytes.
    Onnx {},
}

/// Everything that is said of a model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// Name of the model.
    pub model: String,
    /// What a prediction takes and gives.
    pub signature: Signature,
    /// What it predicts.
    pub task: Task,
    /// From values to inputs.
    pub preprocessing: Preprocessing,
    /// What the outputs stand for.
    pub target: Target,
    /// From logits to probabilities.
    pub calibration: CalibrationMap,
    /// The shape of what computes.
    pub body: BodyManifest,
    /// The job, seed and hyper-parameters included.
    pub job: JobSpec,
    /// Figures, history, curves, references.
    pub report: Report,
    /// What it was trained on.
    pub hardware: Hardware,
    /// Where it comes from.
    pub provenance: Provenance,
}
