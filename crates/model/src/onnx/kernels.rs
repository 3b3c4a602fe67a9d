//! Arithmetic of the operators, over small tensors.
//!
//! float32 throughout, sums in ascending order, nothing fused: the same bits on every machine.

use super::operators::{Arithmetic, Norm};
use super::tensor::{Data, Tensor};
use super::trees::PostTransform;

pub(super) fn position(axis: i64, dimensions: usize) -> Result<usize, String> {
    let from_end = if axis < 0 { axis + dimensions as i64 } else { axis };
    usize::try_from(from_end)
        .ok()
        .filter(|axis| *axis < dimensions.max(1))
        .ok_or_else(|| format!("there is no axis {axis} among {dimensions}"))
}

pub(super) fn flatten(input: &Tensor, axis: i64) -> Result<Tensor, String> {
    let axis = position(axis, input.shape.len() + 1)?;
    let (rows, columns) = input.shape.split_at(axis);
    let shape = vec![rows.iter().product(), columns.iter().product()];
    Ok(Tensor { shape, data: input.data.clone() })
}

pub(super) fn map(input: &Tensor, function: impl Fn(f32) -> f32) -> Result<Tensor, String> {
    let values = input.as_floats()?.iter().map(|x| function(*x)).collect();
    Ok(Tensor::floats(input.shape.clone(), values))
}

pub(super) fn cast(input: &Tensor, to: i64) -> Result<Tensor, String> {
    let data = match (&input.data, to) {
        (Data::Float(values), 1) => Data::Float(values.clone()),
        (Data::Float(values), 6 | 7) => Data::Integer(values.iter().map(|v| *v as i64).collect()),
        (Data::Float(values), 9) => {
            Data::Integer(values.iter().map(|v| i64::from(*v != 0.0)).collect())
        }
        (Data::Integer(values), 1) => Data::Float(values.iter().map(|v| *v as f32).collect()),
        (Data::Integer(values), 6 | 7) => Data::Integer(values.clone()),
        (Data::Integer(values), 8) => Data::Text(values.iter().map(i64::to_string).collect()),
        (Data::Text(values), 8) => Data::Text(values.clone()),
        _ => return Err(format!("the cast to type {to} is not supported")),
    };
    Ok(Tensor { shape: input.shape.clone(), data })
}

/// Shape of two tensors together, by the rules of NumPy.
pub(super) fn together(a: &[usize], b: &[usize]) -> Result<Vec<usize>, String> {
    let dimensions = a.len().max(b.len());
    let at = |shape: &[usize], axis: usize| {
        (axis + shape.len()).checked_sub(dimensions).map_or(1, |axis| shape[axis])
    };
    let length = |axis: usize| match (at(a, axis), at(b, axis)) {
        (x, y) if x == y || y == 1 => Ok(x),
        (1, y) => Ok(y),
        _ => Err(format!("shapes {a:?} and {b:?} do not go together")),
    };
    (0..dimensions).map(length).collect()
}

/// For every value of `shape` the position of its value in a tensor of shape `of`.
pub(super) fn positions<'a>(
    shape: &'a [usize],
    of: &'a [usize],
) -> impl Iterator<Item = usize> + 'a {
    let total: usize = shape.iter().product();
    (0..total).map(move |flat| {
        let (mut rest, mut at, mut stride) = (flat, 0, 1);
        for axis in (0..shape.len()).rev() {
            let own = rest % shape[axis];
            rest /= shape[axis];
            if let Some(axis) = (axis + of.len()).checked_sub(shape.len()) {
                if of[axis] > 1 {
                    at += own * stride;
                }
                stride *= of[axis];
            }
        }
        at
    })
}

pub(super) fn binary(operation: Arithmetic, a: &Tensor, b: &Tensor) -> Result<Tensor, String> {
    let shape = together(&a.shape, &b.shape)?;
    let pairs = positions(&shape, &a.shape).zip(positions(&shape, &b.shape));
    let data = match (&a.data, &b.data) {
        (Data::Float(x), Data::Float(y)) => {
            let compute = |(i, j): (usize, usize)| match operation {
                Arithmetic::Add => x[i] + y[j],
                Arithmetic::Sub => x[i] - y[j],
                Arithmetic::Mul => x[i] * y[j],
                Arithmetic::Div => x[i] / y[j],
            };
            Data::Float(pairs.map(compute).collect())
        }
        (Data::Integer(x), Data::Integer(y)) => {
            let compute = |(i, j): (usize, usize)| match operation {
                Arithmetic::Add => x[i].checked_add(y[j]),
                Arithmetic::Sub => x[i].checked_sub(y[j]),
                Arithmetic::Mul => x[i].checked_mul(y[j]),
                Arithmetic::Div => x[i].checked_div(y[j]),
            };
            let values = pairs.map(compute).collect::<Option<Vec<_>>>();
            Data::Integer(values.ok_or("integers overflow or are divided by zero")?)
        }
        _ => return Err("it takes two floats or two integers".to_owned()),
    };
    Ok(Tensor { shape, data })
}

pub(super) fn matmul(
    a: &Tensor,
    b: &Tensor,
    transpose_a: bool,
    transpose_b: bool,
) -> Result<Tensor, String> {
    if a.shape.len() > 2 || b.shape.len() != 2 {
        return Err("products of more than two dimensions are not supported".to_owned());
    }
    let turn = |(rows, columns): (usize, usize), turned: bool| {
        if turned { (columns, rows) } else { (rows, columns) }
    };
    let ((rows, inner), (other, columns)) =
        (turn(a.matrix(), transpose_a), turn(b.matrix(), transpose_b));
    if inner != other {
        return Err(format!("a product of {rows}×{inner} and {other}×{columns}"));
    }
    let (x, y) = (a.as_floats()?, b.as_floats()?);
    let mut out = vec![0.0f32; rows * columns];
    for row in 0..rows {
        let sums = &mut out[row * columns..(row + 1) * columns];
        for k in 0..inner {
            let value = if transpose_a { x[k * rows + row] } else { x[row * inner + k] };
            for (column, sum) in sums.iter_mut().enumerate() {
                let weight =
                    if transpose_b { y[column * inner + k] } else { y[k * columns + column] };
                *sum += value * weight;
            }
        }
    }
    Ok(Tensor::floats(vec![rows, columns], out))
}

pub(super) fn softmax(input: &Tensor, axis: i64, flatten: bool) -> Result<Tensor, String> {
    let axis = position(axis, input.shape.len())?;
    if !flatten && axis + 1 != input.shape.len() {
        return Err("softmax over another than the last axis is not supported".to_owned());
    }
    let run: usize = input.shape[axis..].iter().product();
    let mut values = input.as_floats()?.to_vec();
    for row in values.chunks_exact_mut(run.max(1)) {
        PostTransform::Softmax.apply(row);
    }
    Ok(Tensor::floats(input.shape.clone(), values))
}

pub(super) fn concat(inputs: &[&Tensor], axis: i64) -> Result<Tensor, String> {
    let first = inputs.first().ok_or("there is nothing to concatenate")?;
    let axis = position(axis, first.shape.len())?;
    let mut shape = first.shape.clone();
    shape[axis] = 0;
    for input in inputs {
        let fits = input.shape.len() == shape.len()
            && input
                .shape
                .iter()
                .zip(&first.shape)
                .enumerate()
                .all(|(at, (a, b))| at == axis || a == b);
        if !fits {
            return Err(format!("shape {:?} does not continue {:?}", input.shape, first.shape));
        }
        shape[axis] += input.shape[axis];
    }
    let outer: usize = shape[..axis].iter().product();
    let mut floats = Vec::new();
    let mut integers = Vec::new();
    for block in 0..outer {
        for input in inputs {
            let run: usize = input.shape[axis..].iter().product();
            let range = block * run..(block + 1) * run;
            match (&input.data, &first.data) {
                (Data::Float(values), Data::Float(_)) => floats.extend_from_slice(&values[range]),
                (Data::Integer(values), Data::Integer(_)) => {
                    integers.extend_from_slice(&values[range])
                }
                _ => return Err("it takes only floats or only integers".to_owned()),
            }
        }
    }
    let data = if matches!(first.data, Data::Float(_)) {
        Data::Float(floats)
    } else {
        Data::Integer(integers)
    };
    Ok(Tensor { shape, data })
}

pub(super) fn arg_max(input: &Tensor, axis: i64, keep: bool) -> Result<Tensor, String> {
    let axis = position(axis, input.shape.len())?;
    if axis + 1 != input.shape.len() {
        return Err("the maximum along another than the last axis is not supported".to_owned());
    }
    let run = input.shape[axis].max(1);
    let best = |row: &[f32]| {
        let mut best = 0;
        for (at, value) in row.iter().enumerate() {
            if *value > row[best] {
                best = at;
            }
        }
        best as i64
    };
    let values = input.as_floats()?.chunks_exact(run).map(best).collect();
    let mut shape = input.shape.clone();
    if keep {
        shape[axis] = 1;
    } else {
        shape.pop();
    }
    Ok(Tensor::integers(shape, values))
}

pub(super) fn reshape(input: &Tensor, to: &[i64]) -> Result<Tensor, String> {
    let mut shape = Vec::with_capacity(to.len());
    let mut open = None;
    for (axis, length) in to.iter().enumerate() {
        shape.push(match length {
            0 => *input.shape.get(axis).ok_or("a dimension to keep is not there")?,
            -1 if open.is_none() => {
                open = Some(axis);
                1
            }
            length => usize::try_from(*length).map_err(|_| "a dimension is negative")?,
        });
    }
    let known: usize = shape.iter().product();
    if let Some(axis) = open {
        shape[axis] = input.len().checked_div(known).unwrap_or(0);
    }
    if shape.iter().product::<usize>() != input.len() {
        return Err(format!("{:?} cannot take the shape {to:?}", input.shape));
    }
    Ok(Tensor { shape, data: input.data.clone() })
}

pub(super) fn axes_of(axes: &[i64], second: Option<&&Tensor>) -> Result<Vec<i64>, String> {
    second.map_or_else(|| Ok(axes.to_vec()), |tensor| Ok(tensor.as_integers()?.to_vec()))
}

pub(super) fn squeeze(
    input: &Tensor,
    axes: &[i64],
    second: Option<&&Tensor>,
) -> Result<Tensor, String> {
    let axes = axes_of(axes, second)?;
    let axes = axes
        .iter()
        .map(|axis| position(*axis, input.shape.len()))
        .collect::<Result<Vec<_>, _>>()?;
    let goes =
        |axis: usize| if axes.is_empty() { input.shape[axis] == 1 } else { axes.contains(&axis) };
    if axes.iter().any(|axis| input.shape[*axis] != 1) {
        return Err("an axis to squeeze is longer than 1".to_owned());
    }
    let shape =
        (0..input.shape.len()).filter(|axis| !goes(*axis)).map(|axis| input.shape[axis]).collect();
    Ok(Tensor { shape, data: input.data.clone() })
}

pub(super) fn unsqueeze(
    input: &Tensor,
    axes: &[i64],
    second: Option<&&Tensor>,
) -> Result<Tensor, String> {
    let axes = axes_of(axes, second)?;
    let dimensions = input.shape.len() + axes.len();
    let mut axes =
        axes.iter().map(|axis| position(*axis, dimensions)).collect::<Result<Vec<_>, _>>()?;
    axes.sort_unstable();
    let mut shape = input.shape.clone();
    for axis in axes {
        if axis > shape.len() {
            return Err("an axis to insert lies beyond the others".to_owned());
        }
        shape.insert(axis, 1);
    }
    Ok(Tensor { shape, data: input.data.clone() })
}

pub(super) fn batch_norm(inputs: &[&Tensor], epsilon: f32) -> Result<Tensor, String> {
    let [input, gain, shift, mean, variance, ..] = inputs else {
        return Err("it takes five inputs".to_owned());
    };
    let (_, columns) = input.matrix();
    let parts = [gain.as_floats()?, shift.as_floats()?, mean.as_floats()?, variance.as_floats()?];
    if input.shape.len() != 2 || parts.iter().any(|part| part.len() != columns) {
        return Err("it takes a matrix and one value per column".to_owned());
    }
    let mut values = input.as_floats()?.to_vec();
    for row in values.chunks_exact_mut(columns.max(1)) {
        for (at, value) in row.iter_mut().enumerate() {
            let root = (parts[3][at] + epsilon).sqrt();
            *value = (*value - parts[2][at]) / root * parts[0][at] + parts[1][at];
        }
    }
    Ok(Tensor::floats(input.shape.clone(), values))
}

pub(super) fn extract(input: &Tensor, at: &[i64]) -> Result<Tensor, String> {
    let (rows, columns) = input.matrix();
    let at = at.iter().map(|at| usize::try_from(*at).ok().filter(|at| *at < columns));
    let at = at.collect::<Option<Vec<usize>>>().ok_or("a column to extract is not there")?;
    let each = || (0..rows).flat_map(|row| at.iter().map(move |at| row * columns + at));
    let data = match &input.data {
        Data::Float(values) => Data::Float(each().map(|at| values[at]).collect()),
        Data::Integer(values) => Data::Integer(each().map(|at| values[at]).collect()),
        Data::Text(values) => Data::Text(each().map(|at| values[at].clone()).collect()),
    };
    Ok(Tensor { shape: vec![rows, at.len()], data })
}

/// The value for a column: its own, or the one for all.
pub(super) fn per_column(values: &[f32], column: usize) -> Result<f32, String> {
    match values {
        [one] => Ok(*one),
        many => {
            many.get(column).copied().ok_or_else(|| format!("it has no value for column {column}"))
        }
    }
}

pub(super) fn each_column(
    input: &Tensor,
    function: impl Fn(usize, f32) -> Result<f32, String>,
) -> Result<Tensor, String> {
    let (_, columns) = input.matrix();
    let values = input.as_floats()?.iter().enumerate();
    let values =
        values.map(|(at, x)| function(at % columns.max(1), *x)).collect::<Result<_, _>>()?;
    Ok(Tensor::floats(input.shape.clone(), values))
}

pub(super) fn scaled(input: &Tensor, offset: &[f32], scale: &[f32]) -> Result<Tensor, String> {
    each_column(input, |column, x| {
        Ok((x - per_column(offset, column)?) * per_column(scale, column)?)
    })
}

pub(super) fn imputed(input: &Tensor, values: &[f32], replaced: f32) -> Result<Tensor, String> {
    each_column(input, |column, x| {
        let missing = if replaced.is_nan() { x.is_nan() } else { x == replaced };
        if missing { per_column(values, column) } else { Ok(x) }
    })
}

pub(super) fn normalised(input: &Tensor, norm: Norm) -> Result<Tensor, String> {
    let (_, columns) = input.matrix();
    let mut values = input.as_floats()?.to_vec();
    for row in values.chunks_exact_mut(columns.max(1)) {
        let size = match norm {
            Norm::Max => row.iter().copied().fold(f32::NEG_INFINITY, f32::max),
            Norm::L1 => row.iter().map(|x| x.abs()).sum(),
            Norm::L2 => row.iter().map(|x| x * x).sum::<f32>().sqrt(),
        };
        if size != 0.0 {
            row.iter_mut().for_each(|x| *x /= size);
        }
    }
    Ok(Tensor::floats(input.shape.clone(), values))
}
