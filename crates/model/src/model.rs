//! A trained model as data: everything that a prediction depends on.
//!
//! Does not know how it was trained, nor how it is stored.

use serde::{Deserialize, Serialize};

use crate::calibration::CalibrationMap;
use crate::network::Network;
use crate::preprocess::{Column, Encoding, Preprocessing};
use crate::score::forest::Forest;
use crate::spec::Task;
use crate::table::InputType;

/// What the outputs stand for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Target {
    /// Classes, ascending; a binary score is the probability of the second.
    Classes {
        /// What the label column holds.
        input: InputType,
        /// The classes, as text.
        classes: Vec<String>,
    },
    /// A number; the network predicts `(label − mean) / deviation`.
    Number {
        /// Mean of the training labels.
        mean: f64,
        /// Population standard deviation of the training labels; 1 where they are all alike.
        deviation: f64,
    },
}

impl Target {
    /// The classes; none for a number.
    pub fn classes(&self) -> &[String] {
        match self {
            Self::Classes { classes, .. } => classes,
            Self::Number { .. } => &[],
        }
    }
}

/// What computes the logits.
#[derive(Clone, Debug, PartialEq)]
pub enum Body {
    /// A network and its flat parameters.
    Network {
        /// Its shape.
        network: Network,
        /// Its values.
        parameters: Vec<f32>,
    },
    /// Trees.
    Forest(Forest),
    /// A model of another tool, as its file; it takes the columns' numbers in order.
    Onnx(Vec<u8>),
}

/// A model.
#[derive(Clone, Debug, PartialEq)]
pub struct Model {
    /// What it predicts.
    pub task: Task,
    /// From values to inputs.
    pub preprocessing: Preprocessing,
    /// What the outputs stand for.
    pub target: Target,
    /// What is computed.
    pub body: Body,
    /// From logits to probabilities.
    pub calibration: CalibrationMap,
}

impl Model {
    /// A model of another tool. Its file takes the numbers of `columns` in their order, and gives the
    /// probabilities of `classes`, or a number where there are none; which of its outputs is the
    /// score is told by the type: the last output of floats.
    pub fn onnx(
        task: Task,
        columns: &[(String, bool)],
        classes: Vec<String>,
        file: Vec<u8>,
    ) -> Self {
        let column = |(name, nullable): &(String, bool)| Column {
            name: name.clone(),
            input: InputType::Float64,
            nullable: *nullable,
            encoding: Encoding::Number {
                mean: 0.0,
                deviation: 1.0,
                indicator: false,
                bins: vec![],
            },
        };
        let target = match task {
            Task::Regression => Target::Number { mean: 0.0, deviation: 1.0 },
            _ => Target::Classes { input: InputType::String, classes },
        };
        Self {
            task,
            preprocessing: Preprocessing { columns: columns.iter().map(column).collect() },
            target,
            body: Body::Onnx(file),
            calibration: CalibrationMap::None,
        }
    }

    /// Numbers per prediction: one, or one per class of a multiclass task.
    pub fn outputs(&self) -> usize {
        outputs(self.task, &self.target)
    }
}

/// Numbers per prediction.
pub fn outputs(task: Task, target: &Target) -> usize {
    match task {
        Task::Multiclass => target.classes().len(),
        Task::Binary | Task::Regression => 1,
    }
}
