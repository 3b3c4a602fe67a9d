//! The operators that exporters of tabular models emit: their attributes, and what they are given.

use super::OnnxError;
use super::functions::Function;
use super::kernels::{
    arg_max, batch_norm, binary, cast, concat, extract, flatten, imputed, map, matmul, normalised,
    reshape, scaled, softmax, squeeze, unsqueeze,
};
use super::layout::Layout;
use super::tensor::{Attributes, Tensor};
use super::trees::{Labels, PostTransform, Trees, logistic, read_labels};

/// An operator with its attributes read.
#[derive(Clone, Debug)]
pub(super) enum Operator {
    Identity,
    Constant(Tensor),
    Cast { to: i64 },
    Binary(Arithmetic),
    Unary(Function),
    Clip { low: f32, high: f32 },
    MatMul,
    Gemm { alpha: f32, beta: f32, transpose_a: bool, transpose_b: bool },
    Softmax { axis: i64, flatten: bool },
    Concat { axis: i64 },
    ArgMax { axis: i64, keep: bool },
    Reshape,
    Flatten { axis: i64 },
    Squeeze { axes: Vec<i64> },
    Unsqueeze { axes: Vec<i64> },
    BatchNormalization { epsilon: f32 },
    FeatureExtractor,
    Scaler { offset: Vec<f32>, scale: Vec<f32> },
    Normalizer { norm: Norm },
    Imputer { values: Vec<f32>, replaced: f32 },
    LinearRegressor(Linear),
    LinearClassifier(Linear, Labels),
    Trees(Box<Trees>),
    Layout(Layout),
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Arithmetic {
    Add,
    Sub,
    Mul,
    Div,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Norm {
    Max,
    L1,
    L2,
}

#[derive(Clone, Debug)]
pub(super) struct Linear {
    coefficients: Vec<f32>,
    intercepts: Vec<f32>,
    targets: usize,
    transform: PostTransform,
}

fn linear(
    operator: &str,
    attributes: &Attributes<'_>,
    targets: usize,
) -> Result<Linear, OnnxError> {
    let coefficients = attributes.floats("coefficients").to_vec();
    let intercepts = attributes.floats("intercepts").to_vec();
    let whole = targets > 0 && coefficients.len().is_multiple_of(targets);
    if !whole || !(intercepts.is_empty() || intercepts.len() == targets) {
        return Err(OnnxError::Attribute {
            operator: operator.to_owned(),
            attribute: "coefficients".to_owned(),
            why: "they do not divide over the targets".to_owned(),
        });
    }
    let transform = PostTransform::parse(operator, &attributes.text("post_transform", "NONE"))?;
    Ok(Linear { coefficients, intercepts, targets, transform })
}

impl Operator {
    /// Reads the operator of a node; `opset` is the version of the main operator set.
    pub(super) fn read(
        domain: &str,
        name: &str,
        attributes: &Attributes<'_>,
        opset: i64,
        outputs: usize,
    ) -> Result<Self, OnnxError> {
        match domain {
            "" | "ai.onnx" => match Layout::read(name, attributes, outputs)? {
                Some(layout) => Ok(Self::Layout(layout)),
                None => Self::read_main(name, attributes, opset),
            },
            "ai.onnx.ml" => Self::read_ml(name, attributes),
            _ => Err(OnnxError::Operator { operator: format!("{domain}.{name}") }),
        }
    }

    fn read_main(name: &str, a: &Attributes<'_>, opset: i64) -> Result<Self, OnnxError> {
        Ok(match name {
            "Identity" | "Dropout" => Self::Identity,
            "Constant" => match a.tensor("value") {
                Some(tensor) => Self::Constant(Tensor::constant(tensor)?),
                None => {
                    return Err(OnnxError::Operator {
                        operator: "Constant without a tensor".to_owned(),
                    });
                }
            },
            "Cast" => Self::Cast { to: a.int("to", 1) },
            "Add" => Self::Binary(Arithmetic::Add),
            "Sub" => Self::Binary(Arithmetic::Sub),
            "Mul" => Self::Binary(Arithmetic::Mul),
            "Div" => Self::Binary(Arithmetic::Div),
            "Relu" => Self::Unary(Function::Relu),
            "Sigmoid" => Self::Unary(Function::Sigmoid),
            "Tanh" => Self::Unary(Function::Tanh),
            "Exp" => Self::Unary(Function::Exp),
            "Log" => Self::Unary(Function::Log),
            "Sqrt" => Self::Unary(Function::Sqrt),
            "Neg" => Self::Unary(Function::Neg),
            "Abs" => Self::Unary(Function::Abs),
            "Erf" => Self::Unary(Function::Erf),
            "Gelu" => Self::Unary(match a.text("approximate", "none").as_str() {
                "tanh" => Function::GeluByTanh,
                _ => Function::Gelu,
            }),
            "Softplus" => Self::Unary(Function::Softplus),
            "Sign" => Self::Unary(Function::Sign),
            "HardSigmoid" => {
                Self::Unary(Function::HardSigmoid(a.float("alpha", 0.2), a.float("beta", 0.5)))
            }
            "HardSwish" => Self::Unary(Function::HardSwish),
            "Selu" => Self::Unary(Function::Selu(
                a.float("alpha", 1.673_263_2),
                a.float("gamma", 1.050_701),
            )),
            "LeakyRelu" => Self::Unary(Function::LeakyRelu(a.float("alpha", 0.01))),
            "Elu" => Self::Unary(Function::Elu(a.float("alpha", 1.0))),
            "Clip" => Self::Clip { low: a.float("min", f32::MIN), high: a.float("max", f32::MAX) },
            "MatMul" => Self::MatMul,
            "Gemm" => Self::Gemm {
                alpha: a.float("alpha", 1.0),
                beta: a.float("beta", 1.0),
                transpose_a: a.int("transA", 0) != 0,
                transpose_b: a.int("transB", 0) != 0,
            },
            "Softmax" => {
                let flatten = opset < 13;
                Self::Softmax { axis: a.int("axis", if flatten { 1 } else { -1 }), flatten }
            }
            "Concat" => Self::Concat { axis: a.int("axis", 0) },
            "ArgMax" => {
                a.refuse(&["select_last_index"])?;
                Self::ArgMax { axis: a.int("axis", 0), keep: a.int("keepdims", 1) != 0 }
            }
            "Reshape" => Self::Reshape,
            "Flatten" => Self::Flatten { axis: a.int("axis", 1) },
            "Squeeze" => Self::Squeeze { axes: a.ints("axes").to_vec() },
            "Unsqueeze" => Self::Unsqueeze { axes: a.ints("axes").to_vec() },
            "BatchNormalization" => Self::BatchNormalization { epsilon: a.float("epsilon", 1e-5) },
            _ => return Err(OnnxError::Operator { operator: name.to_owned() }),
        })
    }

    fn read_ml(name: &str, a: &Attributes<'_>) -> Result<Self, OnnxError> {
        Ok(match name {
            // The map of labels to probabilities is left as the probabilities.
            "ZipMap" => Self::Identity,
            "ArrayFeatureExtractor" => Self::FeatureExtractor,
            "Scaler" => Self::Scaler {
                offset: a.floats("offset").to_vec(),
                scale: a.floats("scale").to_vec(),
            },
            "Normalizer" => Self::Normalizer {
                norm: match a.text("norm", "MAX").as_str() {
                    "L1" => Norm::L1,
                    "L2" => Norm::L2,
                    _ => Norm::Max,
                },
            },
            "Imputer" => {
                a.refuse(&["imputed_value_int64s"])?;
                Self::Imputer {
                    values: a.floats("imputed_value_floats").to_vec(),
                    replaced: a.float("replaced_value_float", 0.0),
                }
            }
            "LinearRegressor" => {
                let targets = usize::try_from(a.int("targets", 1)).unwrap_or(0);
                Self::LinearRegressor(linear(name, a, targets)?)
            }
            "LinearClassifier" => {
                let labels = read_labels(a, "classlabels_ints", "classlabels_strings");
                let given = a.floats("intercepts").len();
                let targets = if given > 0 { given } else { labels.count() };
                Self::LinearClassifier(linear(name, a, targets)?, labels)
            }
            "TreeEnsembleClassifier" | "TreeEnsembleRegressor" => {
                Self::Trees(Box::new(Trees::read(name, a)?))
            }
            _ => return Err(OnnxError::Operator { operator: format!("ai.onnx.ml.{name}") }),
        })
    }

    /// Computes the outputs.
    pub(super) fn run(&self, inputs: &[&Tensor]) -> Result<Vec<Tensor>, String> {
        let input =
            |at: usize| inputs.get(at).copied().ok_or_else(|| "an input is missing".to_owned());
        let one = |tensor: Tensor| Ok(vec![tensor]);
        match self {
            Self::Constant(tensor) => one(tensor.clone()),
            Self::Identity => one(input(0)?.clone()),
            Self::Cast { to } => one(cast(input(0)?, *to)?),
            Self::Binary(operation) => one(binary(*operation, input(0)?, input(1)?)?),
            Self::Unary(function) => one(map(input(0)?, |x| function.at(x))?),
            Self::Clip { low, high } => {
                let bound = |at: usize, given: f32| match inputs.get(at) {
                    Some(tensor) => {
                        tensor.as_floats()?.first().copied().ok_or("a bound is empty".to_owned())
                    }
                    None => Ok(given),
                };
                let (low, high) = (bound(1, *low)?, bound(2, *high)?);
                one(map(input(0)?, |x| {
                    if x < low {
                        low
                    } else if x > high {
                        high
                    } else {
                        x
                    }
                })?)
            }
            Self::MatMul => one(matmul(input(0)?, input(1)?, false, false)?),
            Self::Gemm { alpha, beta, transpose_a, transpose_b } => {
                let product = matmul(input(0)?, input(1)?, *transpose_a, *transpose_b)?;
                let product = map(&product, |x| if *alpha == 1.0 { x } else { x * alpha })?;
                match inputs.get(2) {
                    None => one(product),
                    Some(bias) => {
                        let bias = map(bias, |x| if *beta == 1.0 { x } else { x * beta })?;
                        one(binary(Arithmetic::Add, &product, &bias)?)
                    }
                }
            }
            Self::Softmax { axis, flatten } => one(softmax(input(0)?, *axis, *flatten)?),
            Self::Concat { axis } => one(concat(inputs, *axis)?),
            Self::ArgMax { axis, keep } => one(arg_max(input(0)?, *axis, *keep)?),
            Self::Reshape => one(reshape(input(0)?, input(1)?.as_integers()?)?),
            Self::Flatten { axis } => one(flatten(input(0)?, *axis)?),
            Self::Squeeze { axes } => one(squeeze(input(0)?, axes, inputs.get(1))?),
            Self::Unsqueeze { axes } => one(unsqueeze(input(0)?, axes, inputs.get(1))?),
            Self::BatchNormalization { epsilon } => one(batch_norm(inputs, *epsilon)?),
            Self::FeatureExtractor => one(extract(input(0)?, input(1)?.as_integers()?)?),
            Self::Scaler { offset, scale } => one(scaled(input(0)?, offset, scale)?),
            Self::Normalizer { norm } => one(normalised(input(0)?, *norm)?),
            Self::Imputer { values, replaced } => one(imputed(input(0)?, values, *replaced)?),
            Self::LinearRegressor(linear) => one(linear.regress(input(0)?)?),
            Self::LinearClassifier(linear, labels) => linear.classify(input(0)?, labels),
            Self::Layout(layout) => layout.run(inputs),
            Self::Trees(trees) => match &trees.labels {
                None => one(trees.regress(input(0)?)?),
                Some(labels) => {
                    let (chosen, scores) = trees.classify(input(0)?)?;
                    Ok(vec![labels.pick(&chosen), scores])
                }
            },
        }
    }
}

impl Linear {
    fn scores(&self, input: &Tensor) -> Result<Vec<f32>, String> {
        let (rows, columns) = input.matrix();
        if columns * self.targets != self.coefficients.len() {
            return Err(format!(
                "it has {} coefficients for {columns} columns",
                self.coefficients.len()
            ));
        }
        let mut scores = Vec::with_capacity(rows * self.targets);
        for row in input.as_floats()?.chunks_exact(columns.max(1)) {
            for target in 0..self.targets {
                let weights = &self.coefficients[target * columns..(target + 1) * columns];
                let sum: f32 = row.iter().zip(weights).map(|(x, weight)| x * weight).sum();
                scores.push(sum + self.intercepts.get(target).copied().unwrap_or(0.0));
            }
        }
        Ok(scores)
    }

    fn regress(&self, input: &Tensor) -> Result<Tensor, String> {
        let mut scores = self.scores(input)?;
        for row in scores.chunks_exact_mut(self.targets) {
            self.transform.apply(row);
        }
        Ok(Tensor::floats(vec![scores.len() / self.targets, self.targets], scores))
    }

    fn classify(&self, input: &Tensor, labels: &Labels) -> Result<Vec<Tensor>, String> {
        let scores = self.scores(input)?;
        let (mut chosen, mut out) = (Vec::new(), Vec::new());
        for row in scores.chunks_exact(self.targets) {
            if self.targets == 1 && labels.count() == 2 {
                chosen.push(usize::from(row[0] > 0.0));
                out.extend(match self.transform {
                    PostTransform::Logistic => [logistic(-row[0]), logistic(row[0])],
                    PostTransform::None => [-row[0], row[0]],
                    _ => {
                        return Err(
                            "one score for two classes is taken with LOGISTIC or NONE".to_owned()
                        );
                    }
                });
                continue;
            }
            if labels.count() != self.targets {
                return Err("it has not one label per score".to_owned());
            }
            let mut best = 0;
            for (at, score) in row.iter().enumerate() {
                if *score > row[best] {
                    best = at;
                }
            }
            chosen.push(best);
            let start = out.len();
            out.extend_from_slice(row);
            self.transform.apply(&mut out[start..]);
        }
        let columns = out.len().checked_div(chosen.len()).unwrap_or(self.targets);
        let scores = Tensor::floats(vec![chosen.len(), columns], out);
        Ok(vec![labels.pick(&chosen), scores])
    }
}
