//! Models of other tools: ONNX graphs of the kind that exporters of tabular models write.
//!
//! Our own evaluator, for dense graphs and for tree ensembles alike: its sums have one order and
//! nothing is fused, so that a prediction can be replayed on another machine, which kernels chosen by
//! processor do not give; and it follows ONNX Runtime where that decides what a label is. An operator
//! that it does not know is refused when the model is read, never skipped. Does not know what the
//! numbers mean.

mod functions;
mod kernels;
mod layout;
mod operators;
mod proto;
mod tensor;
mod trees;

use std::collections::BTreeMap;

use prost::Message;

use operators::Operator;
use proto::{GraphProto, ModelProto, ValueInfo};
use tensor::Attributes;
pub use tensor::{Data, Tensor};

/// Why an ONNX model cannot be used.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum OnnxError {
    /// The bytes are no ONNX model.
    #[error("these bytes are not an ONNX model: {0}")]
    Foreign(String),
    /// An operator that is not evaluated here.
    #[error("operator `{operator}` is not supported")]
    Operator {
        /// The operator.
        operator: String,
    },
    /// An attribute that is wrong, or not evaluated here.
    #[error("attribute `{attribute}` of `{operator}`: {why}")]
    Attribute {
        /// The operator.
        operator: String,
        /// Its attribute.
        attribute: String,
        /// What is wrong.
        why: String,
    },
    /// A constant cannot be read.
    #[error("constant `{name}`: {why}")]
    Constant {
        /// Its name.
        name: String,
        /// What is wrong.
        why: String,
    },
    /// Trees that are not sound.
    #[error("the trees of `{operator}` are not sound: {why}")]
    Trees {
        /// The operator.
        operator: String,
        /// What is wrong.
        why: String,
    },
    /// A step reads what nothing writes.
    #[error("`{operator}` reads `{name}`, which nothing before it writes")]
    Order {
        /// The operator.
        operator: String,
        /// What it reads.
        name: String,
    },
    /// A step cannot be computed.
    #[error("`{operator}`: {why}")]
    Compute {
        /// The operator.
        operator: String,
        /// What is wrong.
        why: String,
    },
    /// The inputs do not fit.
    #[error("the model takes {expected} columns of float32, and was given {given}")]
    Inputs {
        /// Columns given.
        given: usize,
        /// Columns taken.
        expected: String,
    },
    /// An input that is not of numbers.
    #[error("input `{name}` is not a float32 or integer tensor")]
    InputType {
        /// The input.
        name: String,
    },
    /// No output holds floats.
    #[error("the model has no output of scores")]
    NoScores,
}

#[derive(Clone, Debug)]
struct Step {
    name: String,
    operator: Operator,
    inputs: Vec<usize>,
    outputs: Vec<Option<usize>>,
}

/// An input of a graph.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GraphInput {
    /// Its name.
    pub name: String,
    /// Its columns, where the file says how many.
    pub columns: Option<usize>,
    is_integer: bool,
    slot: usize,
}

/// A model that was read.
#[derive(Clone, Debug)]
pub struct OnnxModel {
    inputs: Vec<GraphInput>,
    outputs: Vec<(String, usize)>,
    constants: Vec<(usize, Tensor)>,
    steps: Vec<Step>,
    slots: usize,
}

/// Gives every value of a graph its place.
#[derive(Default)]
struct Names {
    by_name: BTreeMap<String, usize>,
}

impl Names {
    fn slot(&mut self, name: &str) -> usize {
        let next = self.by_name.len();
        *self.by_name.entry(name.to_owned()).or_insert(next)
    }
}

fn graph_input(info: &ValueInfo, slot: usize) -> Result<GraphInput, OnnxError> {
    let refused = || OnnxError::InputType { name: info.name.clone() };
    let tensor = info.r#type.as_ref().and_then(|t| t.tensor_type.as_ref()).ok_or_else(refused)?;
    if !matches!(tensor.elem_type, 1 | 6 | 7) {
        return Err(refused());
    }
    let dimensions = tensor.shape.as_ref().map_or(&[][..], |shape| &shape.dim);
    let columns = match dimensions {
        [_, columns] => usize::try_from(columns.dim_value).ok().filter(|columns| *columns > 0),
        _ => None,
    };
    Ok(GraphInput { name: info.name.clone(), columns, is_integer: tensor.elem_type != 1, slot })
}

impl OnnxModel {
    /// Reads a model; every operator in it is known and every constant sound afterwards.
    ///
    /// # Errors
    /// [`OnnxError`], naming the operator or constant.
    pub fn read(bytes: &[u8]) -> Result<Self, OnnxError> {
        let model =
            ModelProto::decode(bytes).map_err(|error| OnnxError::Foreign(error.to_string()))?;
        let graph = model.graph.as_ref().filter(|graph| !graph.output.is_empty());
        let graph = graph.ok_or_else(|| OnnxError::Foreign("it has no graph".to_owned()))?;
        let main = model.opset_import.iter().filter(|set| set.domain.is_empty());
        let opset = main.map(|set| set.version).max().unwrap_or(1);
        Self::of_graph(graph, opset)
    }

    fn of_graph(graph: &GraphProto, opset: i64) -> Result<Self, OnnxError> {
        let mut names = Names::default();
        let mut constants = Vec::new();
        for tensor in &graph.initializer {
            constants.push((names.slot(&tensor.name), Tensor::constant(tensor)?));
        }
        let mut inputs = Vec::new();
        for info in &graph.input {
            if !names.by_name.contains_key(&info.name) {
                inputs.push(graph_input(info, names.slot(&info.name))?);
            }
        }
        let mut steps = Vec::new();
        for node in &graph.node {
            let attributes = Attributes::of(node);
            let operator = {
                let (domain, name, outputs) = (&node.domain, &node.op_type, node.output.len());
                Operator::read(domain, name, &attributes, opset, outputs)?
            };
            // Optional inputs are left out at the end only, as exporters do.
            let read = node.input.iter().take_while(|name| !name.is_empty());
            let slot = |name: &String| {
                names.by_name.get(name).copied().ok_or_else(|| OnnxError::Order {
                    operator: node.op_type.clone(),
                    name: name.clone(),
                })
            };
            let inputs = read.map(slot).collect::<Result<Vec<_>, _>>()?;
            let written = node.output.iter();
            let outputs =
                written.map(|name| (!name.is_empty()).then(|| names.slot(name))).collect();
            steps.push(Step { name: node.op_type.clone(), operator, inputs, outputs });
        }
        let output = |info: &ValueInfo| {
            let slot = names.by_name.get(&info.name).copied();
            slot.map(|slot| (info.name.clone(), slot)).ok_or_else(|| OnnxError::Order {
                operator: "the output".to_owned(),
                name: info.name.clone(),
            })
        };
        let outputs = graph.output.iter().map(output).collect::<Result<Vec<_>, _>>()?;
        Ok(Self { inputs, outputs, constants, steps, slots: names.by_name.len() })
    }

    /// Its inputs.
    pub fn inputs(&self) -> &[GraphInput] {
        &self.inputs
    }

    /// Columns over all inputs, where the file says how many.
    pub fn columns(&self) -> Option<usize> {
        self.inputs.iter().map(|input| input.columns).sum()
    }

    /// All outputs, by name, for rows of `columns` numbers that lie one after another. Several inputs
    /// take their columns in turn.
    ///
    /// # Errors
    /// [`OnnxError::Inputs`], [`OnnxError::Compute`].
    pub fn run(&self, numbers: &[f32], columns: usize) -> Result<Vec<(String, Tensor)>, OnnxError> {
        let mut values: Vec<Option<Tensor>> = vec![None; self.slots];
        self.load(numbers, columns, &mut values)?;
        for (slot, tensor) in &self.constants {
            values[*slot] = Some(tensor.clone());
        }
        for step in &self.steps {
            let given = step.inputs.iter().map(|slot| values[*slot].as_ref());
            let given = given.collect::<Option<Vec<_>>>().ok_or_else(|| OnnxError::Order {
                operator: step.name.clone(),
                name: "a value".to_owned(),
            })?;
            let results = step
                .operator
                .run(&given)
                .map_err(|why| OnnxError::Compute { operator: step.name.clone(), why })?;
            for (slot, result) in step.outputs.iter().zip(results) {
                if let Some(slot) = slot {
                    values[*slot] = Some(result);
                }
            }
        }
        let output = |(name, slot): &(String, usize)| {
            let value = values[*slot].clone();
            value.map(|value| (name.clone(), value)).ok_or_else(|| OnnxError::Order {
                operator: "the output".to_owned(),
                name: name.clone(),
            })
        };
        self.outputs.iter().map(output).collect()
    }

    fn load(
        &self,
        numbers: &[f32],
        columns: usize,
        values: &mut [Option<Tensor>],
    ) -> Result<(), OnnxError> {
        let wrong = || OnnxError::Inputs {
            given: columns,
            expected: self.columns().map_or_else(|| "some".to_owned(), |count| count.to_string()),
        };
        let rows = numbers.len().checked_div(columns).unwrap_or(0);
        if rows * columns != numbers.len() || self.inputs.is_empty() {
            return Err(wrong());
        }
        let mut first = 0;
        for input in &self.inputs {
            let width = match (input.columns, self.inputs.len()) {
                (Some(width), _) => width,
                (None, 1) => columns,
                (None, _) => return Err(wrong()),
            };
            if first + width > columns {
                return Err(wrong());
            }
            let own = numbers.chunks_exact(columns).flat_map(|row| &row[first..first + width]);
            values[input.slot] = Some(if input.is_integer {
                Tensor::integers(vec![rows, width], own.map(|x| *x as i64).collect())
            } else {
                Tensor::floats(vec![rows, width], own.copied().collect())
            });
            first += width;
        }
        if first == columns { Ok(()) } else { Err(wrong()) }
    }

    /// The scores among its outputs: the last output of floats, `rows × scores`.
    ///
    /// # Errors
    /// [`OnnxError::NoScores`], and as [`OnnxModel::run`].
    pub fn scores(&self, numbers: &[f32], columns: usize) -> Result<(usize, Vec<f32>), OnnxError> {
        let outputs = self.run(numbers, columns)?;
        let scores = outputs.into_iter().rev().find_map(|(_, tensor)| match tensor.data {
            Data::Float(values) => {
                let rows = numbers.len() / columns.max(1);
                Some((values.len().checked_div(rows).unwrap_or(0), values))
            }
            _ => None,
        });
        scores.ok_or(OnnxError::NoScores)
    }
}

#[cfg(test)]
pub(crate) mod tests;
