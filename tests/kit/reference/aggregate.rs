//! Aggregates over the rows of a frame, in their order, by their definitions.
//!
//! Does not know frames.
#![allow(clippy::expect_used, clippy::panic, reason = "a harness fails loudly")]

use falaj_definitions::plan::{AggregateCall, AggregateFunction as F};
use falaj_event::{ColumnType, Value};
use num_bigint::{BigInt, Sign};
use num_rational::BigRational;

use super::{exact, sketches};

/// The value of `call` over prepared rows in the total order.
pub fn value(call: &AggregateCall, rows: &[&Vec<Value>]) -> Value {
    let counted: Vec<&&Vec<Value>> = match call.filter {
        None => rows.iter().collect(),
        Some(column) => {
            if rows.iter().any(|row| matches!(row[column], Value::Error)) {
                return Value::Error;
            }
            rows.iter().filter(|row| row[column] == Value::Bool(true)).collect()
        }
    };
    let Some(column) = call.input else { return count(counted.len()) };
    let inputs: Vec<&Value> =
        counted.iter().map(|row| &row[column]).filter(|value| !value.is_null()).collect();
    match inputs.iter().any(|value| matches!(value, Value::Error)) {
        true => Value::Error,
        false => over(call, &inputs),
    }
}

fn count(count: usize) -> Value {
    Value::Int(i64::try_from(count).expect("fits"))
}

fn over(call: &AggregateCall, inputs: &[&Value]) -> Value {
    let mut sorted = inputs.to_vec();
    sorted.sort();
    let list = |values: &mut dyn Iterator<Item = &&Value>| -> Value {
        Value::List(values.map(|value| (*value).clone()).collect())
    };
    match call.function {
        F::CountRows | F::Count => return count(inputs.len()),
        F::CountDistinct => {
            sorted.dedup();
            return count(sorted.len());
        }
        F::ApproxDistinct => return Value::Int(sketches::approx_distinct(inputs)),
        _ => {}
    }
    let Some(first) = inputs.first() else { return Value::Null };
    match call.function {
        F::Sum => quotient(call, inputs, 1),
        F::Avg => quotient(call, inputs, inputs.len()),
        F::Variance { sample } => {
            variance(inputs, sample).map_or(Value::Null, |exact| match exact {
                Some(exact) => Value::Float64(exact::nearest(&exact)),
                None => Value::Float64(f64::NAN),
            })
        }
        F::Stddev { sample } => variance(inputs, sample).map_or(Value::Null, |exact| match exact {
            Some(exact) => Value::Float64(exact::nearest_root(&exact)),
            None => Value::Float64(f64::NAN),
        }),
        F::Min => sorted[0].clone(),
        F::Max => sorted[sorted.len() - 1].clone(),
        F::First => (*first).clone(),
        F::Last => inputs[inputs.len() - 1].clone(),
        F::LastN(n) => list(&mut inputs.iter().rev().take(n as usize)),
        F::TopN(n) => list(&mut sorted.iter().rev().take(n as usize)),
        F::ApproxQuantile(q) => Value::Float64(sketches::approx_quantile(inputs, q)),
        F::BoolAnd => Value::Bool(inputs.iter().all(|value| **value == Value::Bool(true))),
        F::BoolOr => Value::Bool(inputs.contains(&&Value::Bool(true))),
        F::CountRows | F::Count | F::CountDistinct | F::ApproxDistinct => Value::Null,
    }
}

/// The fractions of `inputs`, or what their sum is when some have none.
fn fractions(inputs: &[&Value]) -> Result<Vec<BigRational>, f64> {
    let float = |value: &&Value| match value {
        Value::Float32(v) => Some(f64::from(*v)),
        Value::Float64(v) => Some(*v),
        _ => None,
    };
    let strange = |value: &f64| !value.is_finite();
    let all: Vec<f64> = inputs.iter().filter_map(float).filter(strange).collect();
    match all.first() {
        None => Ok(inputs.iter().map(|value| exact::fraction(value).expect("a number")).collect()),
        Some(first) if all.iter().all(|value| value == first) => Err(*first),
        Some(_) => Err(f64::NAN),
    }
}

fn total(values: &[BigRational]) -> BigRational {
    values.iter().fold(BigRational::from_integer(BigInt::from(0)), |sum, value| sum + value)
}

fn whole(value: usize) -> BigRational {
    BigRational::from_integer(BigInt::from(value))
}

fn quotient(call: &AggregateCall, inputs: &[&Value], divisor: usize) -> Value {
    let exact = match fractions(inputs) {
        Ok(values) => total(&values) / whole(divisor),
        Err(strange) => return Value::Float64(strange),
    };
    let ColumnType::Decimal { precision, scale } = call.output_type else {
        return Value::Float64(exact::nearest(&exact));
    };
    let scaled = exact * BigRational::from_integer(BigInt::from(10).pow(u32::from(scale)));
    // `round` is half away from zero.
    let rounded = scaled.round().to_integer();
    let limit = BigInt::from(10).pow(u32::from(precision));
    if rounded.magnitude() >= limit.magnitude() {
        return Value::Error;
    }
    Value::Decimal(i128::try_from(rounded).expect("38 digits"), scale)
}

/// `None` below the least number of inputs; `Some(None)` when an input is not finite.
fn variance(inputs: &[&Value], sample: bool) -> Option<Option<BigRational>> {
    let divisor = inputs.len().checked_sub(usize::from(sample)).filter(|left| *left > 0)?;
    let Ok(values) = fractions(inputs) else { return Some(None) };
    // The sum of squared distances from the mean, exactly: Σx² − (Σx)² / n.
    let sum = total(&values);
    let squares: Vec<BigRational> = values.iter().map(|value| value * value).collect();
    let distances = total(&squares) - &sum * &sum / whole(values.len());
    let variance = distances / whole(divisor);
    debug_assert_ne!(variance.numer().sign(), Sign::Minus);
    Some(Some(variance))
}
