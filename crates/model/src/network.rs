//! The shape of a network: its steps, its parameters in one flat vector, their first values.
//!
//! Every evaluator (candle, CUDA, the scorer, the reference in the tests) walks the same steps over
//! the same flat parameters. Does not know how a step is computed.

use serde::{Deserialize, Serialize};

use crate::preprocess::Preprocessing;
use crate::random::{Purpose, Stream};
use crate::spec::Trainer;

/// A run of the flat parameters.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Parameter {
    /// Unique name, also in the artifact.
    pub name: String,
    /// Rows and columns; a vector has one row.
    pub shape: (usize, usize),
    /// Where it starts.
    pub offset: usize,
    /// Whether weight decay applies.
    pub decays: bool,
}

impl Parameter {
    /// Its number of values.
    pub fn len(&self) -> usize {
        self.shape.0 * self.shape.1
    }

    /// Whether it has no values.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Where it lies in the flat vector.
    pub fn range(&self) -> std::ops::Range<usize> {
        self.offset..self.offset + self.len()
    }
}

/// One step over the activations of a batch; parameters are indices into [`Network::parameters`].
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "step", rename_all = "snake_case")]
pub enum Step {
    /// `x · weight + bias`, weight of `(inputs, outputs)`.
    Dense {
        /// The matrix.
        weight: usize,
        /// The vector.
        bias: usize,
    },
    /// `max(x, 0)`.
    Relu,
    /// In training, zero with this probability and otherwise divided by its complement.
    Dropout {
        /// The probability.
        rate: f32,
    },
    /// Rows to mean 0 and variance 1 (epsilon 1e-5), times gain, plus shift.
    LayerNorm {
        /// Gain vector.
        gain: usize,
        /// Shift vector.
        shift: usize,
    },
    /// Remembers the activations.
    Save,
    /// Adds the activations remembered last.
    AddSaved,
}

/// Added to the variance in a layer norm.
pub const NORM_EPSILON: f32 = 1e-5;

/// A network over one preprocessing.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Network {
    /// Inputs that come from numbers.
    pub numeric_width: usize,
    /// One embedding table per categorical column, `(codes, width)`.
    pub embeddings: Vec<usize>,
    /// Whether embeddings are added to the logits; otherwise they are appended to the inputs.
    pub wide: bool,
    /// What is done, in order.
    pub steps: Vec<Step>,
    /// Number of logits.
    pub outputs: usize,
    /// All parameters.
    pub parameters: Vec<Parameter>,
}

impl Network {
    /// The network of `trainer`; `None` for trees.
    pub fn plan(trainer: &Trainer, preprocessing: &Preprocessing, outputs: usize) -> Option<Self> {
        let mut network = Self {
            numeric_width: preprocessing.width(),
            embeddings: Vec::new(),
            wide: matches!(trainer, Trainer::Linear {}),
            steps: Vec::new(),
            outputs,
            parameters: Vec::new(),
        };
        for (column, codes) in preprocessing.code_counts().into_iter().enumerate() {
            let width = if network.wide { outputs } else { embedding_width(codes) };
            let name = format!("embedding.{column}");
            let table = network.parameter(name, (codes, width), network.wide);
            network.embeddings.push(table);
        }
        let inputs = network.input_width();
        match trainer {
            Trainer::Linear {} => network.dense("output", inputs, outputs),
            Trainer::Mlp { hidden, dropout } => network.perceptron(inputs, hidden, *dropout),
            Trainer::Resnet { width, blocks, expansion, dropout, .. } => {
                network.residual(inputs, *width, *blocks, width * expansion, *dropout);
            }
            Trainer::Trees { .. } | Trainer::Onnx {} => return None,
        }
        Some(network)
    }

    /// Width of what the first step reads.
    pub fn input_width(&self) -> usize {
        let embedded = self.embeddings.iter().map(|table| self.parameters[*table].shape.1);
        self.numeric_width + if self.wide { 0 } else { embedded.sum::<usize>() }
    }

    /// Number of values over all parameters.
    pub fn parameter_count(&self) -> usize {
        self.parameters.iter().map(Parameter::len).sum()
    }

    /// Widest activations of any step.
    pub fn widest(&self) -> usize {
        let dense = self.steps.iter().filter_map(|step| match step {
            Step::Dense { weight, .. } => Some(self.parameters[*weight].shape.1),
            _ => None,
        });
        dense.chain([self.input_width(), self.outputs]).max().unwrap_or(0)
    }

    /// Checks that steps and parameters fit together, for networks that were read from somewhere.
    ///
    /// # Errors
    /// What does not fit.
    pub fn check(&self) -> Result<(), &'static str> {
        let mut offset = 0usize;
        for parameter in &self.parameters {
            let length = parameter.shape.0.checked_mul(parameter.shape.1).filter(|l| *l < 1 << 40);
            if parameter.offset != offset {
                return Err("a parameter does not follow the one before it");
            }
            offset += length.ok_or("a parameter is too large")?;
        }
        let shape = |index: usize| self.parameters.get(index).map(|p| p.shape);
        for table in &self.embeddings {
            let (_, width) = shape(*table).ok_or("an embedding has no table")?;
            if self.wide && width != self.outputs {
                return Err("a wide embedding has not one value per output");
            }
        }
        let mut width = self.input_width();
        let mut saved = Vec::new();
        for step in &self.steps {
            match step {
                Step::Dense { weight, bias } => {
                    let (inputs, outputs) = shape(*weight).ok_or("a layer has no weights")?;
                    if inputs != width || shape(*bias) != Some((1, outputs)) {
                        return Err("a layer does not fit the one before it");
                    }
                    width = outputs;
                }
                Step::LayerNorm { gain, shift } => {
                    if shape(*gain) != Some((1, width)) || shape(*shift) != Some((1, width)) {
                        return Err("a norm does not fit the layer before it");
                    }
                }
                Step::Save => saved.push(width),
                Step::AddSaved if saved.pop() != Some(width) => {
                    return Err("a residual does not fit what it is added to");
                }
                Step::Dropout { rate } if !(0.0..1.0).contains(rate) => {
                    return Err("a dropout rate is not below 1");
                }
                Step::AddSaved | Step::Dropout { .. } | Step::Relu => {}
            }
        }
        if width == self.outputs { Ok(()) } else { Err("the last layer does not give the outputs") }
    }

    fn parameter(&mut self, name: String, shape: (usize, usize), decays: bool) -> usize {
        let offset = self.parameter_count();
        self.parameters.push(Parameter { name, shape, offset, decays });
        self.parameters.len() - 1
    }

    fn dense(&mut self, name: &str, inputs: usize, outputs: usize) {
        let weight = self.parameter(format!("{name}.weight"), (inputs, outputs), true);
        let bias = self.parameter(format!("{name}.bias"), (1, outputs), false);
        self.steps.push(Step::Dense { weight, bias });
    }

    fn norm(&mut self, name: &str, width: usize) {
        let gain = self.parameter(format!("{name}.gain"), (1, width), false);
        let shift = self.parameter(format!("{name}.shift"), (1, width), false);
        self.steps.push(Step::LayerNorm { gain, shift });
    }

    fn drop(&mut self, rate: f32) {
        if rate > 0.0 {
            self.steps.push(Step::Dropout { rate });
        }
    }

    fn perceptron(&mut self, inputs: usize, hidden: &[usize], dropout: f32) {
        let mut width = inputs;
        for (layer, next) in hidden.iter().enumerate() {
            self.dense(&format!("hidden.{layer}"), width, *next);
            self.steps.push(Step::Relu);
            self.drop(dropout);
            width = *next;
        }
        self.dense("output", width, self.outputs);
    }

    fn residual(&mut self, inputs: usize, width: usize, blocks: usize, within: usize, rate: f32) {
        self.dense("input", inputs, width);
        for block in 0..blocks {
            self.steps.push(Step::Save);
            self.norm(&format!("block.{block}.norm"), width);
            self.dense(&format!("block.{block}.up"), width, within);
            self.steps.push(Step::Relu);
            self.drop(rate);
            self.dense(&format!("block.{block}.down"), within, width);
            self.steps.push(Step::AddSaved);
        }
        self.norm("head.norm", width);
        self.steps.push(Step::Relu);
        self.dense("output", width, self.outputs);
    }

    /// First values: He's uniform for matrices before a ReLU, Glorot's for the output, zero for
    /// biases and for the wide tables, uniform in ±1/√width for embeddings.
    pub fn first_values(&self, seed: u64) -> Vec<f32> {
        let mut values = vec![0.0; self.parameter_count()];
        for (index, parameter) in self.parameters.iter().enumerate() {
            let (rows, columns) = parameter.shape;
            let name = parameter.name.as_str();
            let slice = &mut values[parameter.range()];
            let bound = if name.ends_with(".gain") {
                slice.fill(1.0);
                continue;
            } else if name.ends_with(".bias") || name.ends_with(".shift") {
                continue;
            } else if name.starts_with("embedding.") {
                if self.wide { 0.0 } else { 1.0 / (columns as f64).sqrt() }
            } else if name == "output.weight" {
                if self.wide { 0.0 } else { (6.0 / (rows + columns) as f64).sqrt() }
            } else {
                (6.0 / rows.max(1) as f64).sqrt()
            };
            let stream = Stream::new(seed, Purpose::Parameters, index as u32);
            for (at, value) in slice.iter_mut().enumerate() {
                *value = ((f64::from(stream.uniform(at as u64)) * 2.0 - 1.0) * bound) as f32;
            }
        }
        values
    }
}

/// Width of the embedding of a column with `codes` codes: `1.6 · codes^0.56`, at most 32 (the rule of
/// the fastai library).
fn embedding_width(codes: usize) -> usize {
    let width = (1.6 * libm::pow(codes as f64, 0.56)).round() as usize;
    width.clamp(2, 32)
}
