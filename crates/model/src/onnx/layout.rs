//! Operators that take tensors apart, move their parts and fold them: what exporters of neural networks
//! for tables write between the products (embeddings, normalisation, gates).
//!
//! Rows are asked for one by one or many at once, so nothing here mixes rows: what would fold, cut or
//! move along the first of several dimensions is refused. Sums run in ascending order.

use std::cmp::Ordering;

use super::OnnxError;
use super::kernels::{axes_of, binary, map, position, positions, together};
use super::operators::Arithmetic;
use super::tensor::{Attributes, Data, Tensor};

/// One of these operators.
#[derive(Clone, Debug)]
pub(super) enum Layout {
    Transpose { order: Vec<i64> },
    Gather { axis: i64 },
    Slice,
    Split { axis: i64, lengths: Vec<i64>, parts: usize },
    Where,
    Compare(Comparison),
    Not,
    Extreme { greatest: bool },
    Power,
    Fold { fold: Fold, axes: Vec<i64>, keep: bool },
    LayerNormalization { axis: i64, epsilon: f32 },
    LogSoftmax { axis: i64 },
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Comparison {
    Equal,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

impl Comparison {
    /// Whether it holds of two values that are in this order, if in any.
    fn holds(self, order: Option<Ordering>) -> i64 {
        let holds = order.is_some_and(|order| match self {
            Self::Equal => order.is_eq(),
            Self::Less => order.is_lt(),
            Self::LessOrEqual => order.is_le(),
            Self::Greater => order.is_gt(),
            Self::GreaterOrEqual => order.is_ge(),
        });
        i64::from(holds)
    }
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Fold {
    Sum,
    Mean,
    Least,
    Greatest,
}

impl Fold {
    fn of(self, values: &[f32]) -> f32 {
        match self {
            Self::Sum => values.iter().sum(),
            Self::Mean => values.iter().sum::<f32>() / values.len() as f32,
            Self::Least => values.iter().copied().fold(f32::INFINITY, f32::min),
            Self::Greatest => values.iter().copied().fold(f32::NEG_INFINITY, f32::max),
        }
    }
}

impl Layout {
    /// Reads the operator of a node that writes this many outputs, if it is one of these.
    pub(super) fn read(
        name: &str,
        a: &Attributes<'_>,
        outputs: usize,
    ) -> Result<Option<Self>, OnnxError> {
        let fold = |fold: Fold| -> Result<Self, OnnxError> {
            let (axes, keep) = (a.ints("axes").to_vec(), a.int("keepdims", 1) != 0);
            Ok(Self::Fold { fold, axes, keep })
        };
        Ok(Some(match name {
            "Transpose" => Self::Transpose { order: a.ints("perm").to_vec() },
            "Gather" => Self::Gather { axis: a.int("axis", 0) },
            "Slice" => {
                a.refuse(&["starts", "ends"])?;
                Self::Slice
            }
            "Split" => {
                let lengths = a.ints("split").to_vec();
                Self::Split { axis: a.int("axis", 0), lengths, parts: outputs }
            }
            "Where" => Self::Where,
            "Equal" => Self::Compare(Comparison::Equal),
            "Less" => Self::Compare(Comparison::Less),
            "LessOrEqual" => Self::Compare(Comparison::LessOrEqual),
            "Greater" => Self::Compare(Comparison::Greater),
            "GreaterOrEqual" => Self::Compare(Comparison::GreaterOrEqual),
            "Not" => Self::Not,
            "Min" => Self::Extreme { greatest: false },
            "Max" => Self::Extreme { greatest: true },
            "Pow" => Self::Power,
            "ReduceSum" => fold(Fold::Sum)?,
            "ReduceMean" => fold(Fold::Mean)?,
            "ReduceMin" => fold(Fold::Least)?,
            "ReduceMax" => fold(Fold::Greatest)?,
            "LayerNormalization" => Self::LayerNormalization {
                axis: a.int("axis", -1),
                epsilon: a.float("epsilon", 1e-5),
            },
            "LogSoftmax" => Self::LogSoftmax { axis: a.int("axis", -1) },
            _ => return Ok(None),
        }))
    }

    /// Computes the outputs.
    pub(super) fn run(&self, inputs: &[&Tensor]) -> Result<Vec<Tensor>, String> {
        let input =
            |at: usize| inputs.get(at).copied().ok_or_else(|| "an input is missing".to_owned());
        let one = |tensor: Tensor| Ok(vec![tensor]);
        match self {
            Self::Transpose { order } => one(transpose(input(0)?, order)?),
            Self::Gather { axis } => one(gather(input(0)?, input(1)?, *axis)?),
            Self::Slice => one(slice(inputs)?),
            Self::Split { axis, lengths, parts } => {
                split(input(0)?, *axis, lengths, inputs.get(1), *parts)
            }
            Self::Where => one(choose(input(0)?, input(1)?, input(2)?)?),
            Self::Compare(comparison) => one(compare(*comparison, input(0)?, input(1)?)?),
            Self::Not => one(negate(input(0)?)?),
            Self::Extreme { greatest } => one(extreme(inputs, *greatest)?),
            Self::Power => one(power(input(0)?, input(1)?)?),
            Self::Fold { fold, axes, keep } => {
                one(folded(input(0)?, *fold, axes, inputs.get(1), *keep)?)
            }
            Self::LayerNormalization { axis, epsilon } => one(layer_norm(inputs, *axis, *epsilon)?),
            Self::LogSoftmax { axis } => one(log_softmax(input(0)?, *axis)?),
        }
    }
}

impl Data {
    /// The values at these places.
    fn pick(&self, places: impl Iterator<Item = usize>) -> Self {
        match self {
            Self::Float(values) => Self::Float(places.map(|at| values[at]).collect()),
            Self::Integer(values) => Self::Integer(places.map(|at| values[at]).collect()),
            Self::Text(values) => Self::Text(places.map(|at| values[at].clone()).collect()),
        }
    }
}

/// Lengths before, of and behind an axis.
fn around(shape: &[usize], axis: usize) -> (usize, usize, usize) {
    let product = |lengths: &[usize]| lengths.iter().product();
    (product(&shape[..axis]), shape[axis], product(&shape[axis + 1..]))
}

/// The axis, which is not that of the rows.
fn within_rows(axis: i64, shape: &[usize], doing: &str) -> Result<usize, String> {
    let at = position(axis, shape.len())?;
    match at == 0 && shape.len() > 1 {
        true => Err(format!("{doing} over rows is not supported: a row's score is its own")),
        false if shape.is_empty() => Err(format!("{doing} takes a dimension")),
        false => Ok(at),
    }
}

fn transpose(input: &Tensor, order: &[i64]) -> Result<Tensor, String> {
    let dimensions = input.shape.len();
    let order = match order {
        [] => (0..dimensions).rev().collect(),
        given => given.iter().map(|a| position(*a, dimensions)).collect::<Result<Vec<_>, _>>()?,
    };
    let mut sorted = order.clone();
    sorted.sort_unstable();
    if !sorted.iter().copied().eq(0..dimensions) {
        return Err("its order does not name each dimension once".to_owned());
    }
    if dimensions > 1 && order[0] != 0 {
        return Err("rows cannot become columns: a row's score is its own".to_owned());
    }
    let stride = |axis: usize| input.shape[axis + 1..].iter().product::<usize>();
    let shape: Vec<usize> = order.iter().map(|axis| input.shape[*axis]).collect();
    let place = |flat: usize| {
        let (mut rest, mut at) = (flat, 0);
        for (axis, length) in order.iter().zip(&shape).rev() {
            at += rest % length * stride(*axis);
            rest /= length;
        }
        at
    };
    let data = input.data.pick((0..input.len()).map(place));
    Ok(Tensor { shape, data })
}

/// `axis` of `input` at the indexes `at`, whose dimensions take its place: `input` is a table, not rows.
fn gather(input: &Tensor, at: &Tensor, axis: i64) -> Result<Tensor, String> {
    let axis = position(axis, input.shape.len())?;
    if input.shape.is_empty() {
        return Err("there is nothing to gather from".to_owned());
    }
    let (outer, length, inner) = around(&input.shape, axis);
    let index = |at: &i64| {
        let from_end = if *at < 0 { at + length as i64 } else { *at };
        let found = usize::try_from(from_end).ok().filter(|at| *at < length);
        found.ok_or_else(|| format!("index {at} is not among {length}"))
    };
    let wanted = at.as_integers()?.iter().map(index).collect::<Result<Vec<_>, _>>()?;
    let places = (0..outer).flat_map(|block| {
        let starts = wanted.iter().map(move |at| (block * length + at) * inner);
        starts.flat_map(move |start| start..start + inner)
    });
    let data = input.data.pick(places);
    let shape = [&input.shape[..axis], &at.shape, &input.shape[axis + 1..]].concat();
    Ok(Tensor { shape, data })
}

/// One axis from `start` to before `end`.
fn cut(input: &Tensor, axis: usize, start: usize, end: usize) -> Tensor {
    let (outer, length, inner) = around(&input.shape, axis);
    let places = (0..outer)
        .flat_map(|block| (block * length + start) * inner..(block * length + end) * inner);
    let data = input.data.pick(places);
    let mut shape = input.shape.clone();
    shape[axis] = end - start;
    Tensor { shape, data }
}

fn slice(inputs: &[&Tensor]) -> Result<Tensor, String> {
    let [input, starts, ends, rest @ ..] = inputs else {
        return Err("it takes a tensor, starts and ends".to_owned());
    };
    let (starts, ends) = (starts.as_integers()?, ends.as_integers()?);
    let axes = match rest.first() {
        Some(axes) => axes.as_integers()?.to_vec(),
        None => (0..starts.len() as i64).collect(),
    };
    if let Some(steps) = rest.get(1)
        && steps.as_integers()?.iter().any(|step| *step != 1)
    {
        return Err("steps other than 1 are not supported".to_owned());
    }
    if starts.len() != ends.len() || starts.len() != axes.len() {
        return Err("starts, ends and axes are not as many".to_owned());
    }
    let mut out = (*input).clone();
    for ((start, end), axis) in starts.iter().zip(ends).zip(axes) {
        let axis = within_rows(axis, &out.shape, "a slice")?;
        let length = out.shape[axis] as i64;
        let bound = |at: i64| (if at < 0 { at + length } else { at }).clamp(0, length) as usize;
        let (start, end) = (bound(*start), bound(*end));
        out = cut(&out, axis, start, end.max(start));
    }
    Ok(out)
}

fn split(
    input: &Tensor,
    axis: i64,
    lengths: &[i64],
    second: Option<&&Tensor>,
    parts: usize,
) -> Result<Vec<Tensor>, String> {
    let axis = within_rows(axis, &input.shape, "a split")?;
    let length = input.shape[axis];
    let mut lengths = axes_of(lengths, second)?;
    if lengths.is_empty() {
        let each = length.div_ceil(parts.max(1));
        lengths = (0..parts).map(|at| each.min(length.saturating_sub(at * each)) as i64).collect();
    }
    let fitting = |at: &i64| usize::try_from(*at).ok().filter(|at| *at <= length);
    let lengths = lengths.iter().map(fitting).collect::<Option<Vec<_>>>();
    let lengths = lengths.ok_or("a part is of negative length, or longer than the whole")?;
    if lengths.len() != parts || lengths.iter().sum::<usize>() != length {
        return Err(format!("parts of {lengths:?} are not {length}"));
    }
    let mut start = 0;
    let part = |length| {
        start += length;
        cut(input, axis, start - length, start)
    };
    Ok(lengths.into_iter().map(part).collect())
}

fn choose(condition: &Tensor, a: &Tensor, b: &Tensor) -> Result<Tensor, String> {
    let shape = together(&together(&condition.shape, &a.shape)?, &b.shape)?;
    let which: Vec<bool> = positions(&shape, &condition.shape)
        .map(|at| condition.as_integers().map(|values| values[at] != 0))
        .collect::<Result<_, _>>()?;
    let pairs = positions(&shape, &a.shape).zip(positions(&shape, &b.shape)).zip(which);
    let data = match (&a.data, &b.data) {
        (Data::Float(x), Data::Float(y)) => {
            Data::Float(pairs.map(|((i, j), first)| if first { x[i] } else { y[j] }).collect())
        }
        (Data::Integer(x), Data::Integer(y)) => {
            Data::Integer(pairs.map(|((i, j), first)| if first { x[i] } else { y[j] }).collect())
        }
        _ => return Err("it takes two floats or two integers".to_owned()),
    };
    Ok(Tensor { shape, data })
}

fn compare(comparison: Comparison, a: &Tensor, b: &Tensor) -> Result<Tensor, String> {
    let shape = together(&a.shape, &b.shape)?;
    let pairs = positions(&shape, &a.shape).zip(positions(&shape, &b.shape));
    let values = match (&a.data, &b.data) {
        (Data::Float(x), Data::Float(y)) => {
            pairs.map(|(i, j)| comparison.holds(x[i].partial_cmp(&y[j]))).collect()
        }
        (Data::Integer(x), Data::Integer(y)) => {
            pairs.map(|(i, j)| comparison.holds(Some(x[i].cmp(&y[j])))).collect()
        }
        _ => return Err("it takes two floats or two integers".to_owned()),
    };
    Ok(Tensor::integers(shape, values))
}

/// The least or greatest of several tensors, value by value; NaN where any is.
fn extreme(inputs: &[&Tensor], greatest: bool) -> Result<Tensor, String> {
    let (first, rest) = inputs.split_first().ok_or("an input is missing")?;
    let mut out = (*first).clone();
    for next in rest {
        let shape = together(&out.shape, &next.shape)?;
        let (x, y) = (out.as_floats()?, next.as_floats()?);
        let pairs = positions(&shape, &out.shape).zip(positions(&shape, &next.shape));
        let pick = |(i, j): (usize, usize)| match (x[i], y[j]) {
            (a, b) if a.is_nan() || b.is_nan() => f32::NAN,
            (a, b) if greatest => a.max(b),
            (a, b) => a.min(b),
        };
        out = Tensor::floats(shape.clone(), pairs.map(pick).collect());
    }
    Ok(out)
}

/// Folds the given axes, which must be the last ones.
fn folded(
    input: &Tensor,
    fold: Fold,
    axes: &[i64],
    second: Option<&&Tensor>,
    keep: bool,
) -> Result<Tensor, String> {
    let dimensions = input.shape.len();
    let mut at = axes_of(axes, second)?
        .iter()
        .map(|axis| within_rows(*axis, &input.shape, "a fold"))
        .collect::<Result<Vec<_>, _>>()?;
    at.sort_unstable();
    at.dedup();
    let first = dimensions - at.len();
    if at.is_empty() || !at.iter().copied().eq(first..dimensions) {
        return Err("a fold over other than the last axes is not supported".to_owned());
    }
    let run = input.shape[first..].iter().product::<usize>();
    if run == 0 {
        return Err("there is nothing to fold".to_owned());
    }
    let values = input.as_floats()?.chunks_exact(run).map(|values| fold.of(values)).collect();
    let mut shape = input.shape[..first].to_vec();
    if keep {
        shape.resize(dimensions, 1);
    }
    Ok(Tensor::floats(shape, values))
}

/// `(x − mean) / √(variance + ε) · gain + shift` over the axes from `axis` on.
fn layer_norm(inputs: &[&Tensor], axis: i64, epsilon: f32) -> Result<Tensor, String> {
    let [input, gain, rest @ ..] = inputs else {
        return Err("it takes a tensor and a gain".to_owned());
    };
    let first = within_rows(axis, &input.shape, "a norm")?;
    let run = input.shape[first..].iter().product::<usize>().max(1);
    let mut values = input.as_floats()?.to_vec();
    for row in values.chunks_exact_mut(run) {
        let mean = row.iter().sum::<f32>() / run as f32;
        let variance = row.iter().map(|x| (x - mean) * (x - mean)).sum::<f32>() / run as f32;
        let root = (variance + epsilon).sqrt();
        row.iter_mut().for_each(|x| *x = (*x - mean) / root);
    }
    let normal = Tensor::floats(input.shape.clone(), values);
    let scaled = binary(Arithmetic::Mul, &normal, gain)?;
    match rest.first() {
        Some(shift) => binary(Arithmetic::Add, &scaled, shift),
        None => Ok(scaled),
    }
}

fn log_softmax(input: &Tensor, axis: i64) -> Result<Tensor, String> {
    let first = within_rows(axis, &input.shape, "a softmax")?;
    if first + 1 != input.shape.len() {
        return Err("softmax over another than the last axis is not supported".to_owned());
    }
    let mut values = input.as_floats()?.to_vec();
    for row in values.chunks_exact_mut(input.shape[first].max(1)) {
        let greatest = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let sum: f32 = row.iter().map(|x| libm::expf(x - greatest)).sum();
        let base = greatest + libm::logf(sum);
        row.iter_mut().for_each(|x| *x -= base);
    }
    Ok(Tensor::floats(input.shape.clone(), values))
}

fn negate(input: &Tensor) -> Result<Tensor, String> {
    let values = input.as_integers()?.iter().map(|value| i64::from(*value == 0)).collect();
    Ok(Tensor::integers(input.shape.clone(), values))
}

/// `x` to the power of another tensor's values.
fn power(a: &Tensor, b: &Tensor) -> Result<Tensor, String> {
    let exponent = match &b.data {
        Data::Integer(values) => {
            let values = values.iter().map(|value| *value as f32).collect();
            Tensor::floats(b.shape.clone(), values)
        }
        _ => map(b, |x| x)?,
    };
    let shape = together(&a.shape, &exponent.shape)?;
    let (x, y) = (a.as_floats()?, exponent.as_floats()?);
    let pairs = positions(&shape, &a.shape).zip(positions(&shape, &exponent.shape));
    let values = pairs.map(|(i, j)| libm::powf(x[i], y[j])).collect();
    Ok(Tensor::floats(shape.clone(), values))
}
