//! The meaning of a view, recomputed from the full list of its events: no tiles, no totals, no
//! retraction, no sharing, exact fractions where the operator has limbs.

use falaj_definitions::plan::{AggregateCall, AggregateFunction, Frame};
use falaj_event::{ColumnType, EventOrder, Value, encoding::encode_row, key_hash};
use num_bigint::{BigInt, Sign};

use crate::exact::reference::{self, Fraction};
use crate::group::{GroupPlan, GroupRow};
use crate::sketch::HyperLogLog;

/// An event: its place and its cells.
pub(super) type NaiveEvent = (EventOrder, Vec<Value>);

fn floor(value: i64, grid: i64) -> i64 {
    value.div_euclid(grid) * grid
}

/// The row of a key at `now` from all of its events.
pub(super) fn row(plan: &GroupPlan, events: &[NaiveEvent], now: i64) -> Option<GroupRow> {
    let mut sorted = events.to_vec();
    sorted.sort_by(|a, b| a.0.cmp(&b.0).then_with(|| encode_row(&a.1).cmp(&encode_row(&b.1))));
    let latest = sorted.last()?;
    let cells = plan.cells();
    let cell = |column: usize| cells.iter().position(|have| *have == column).unwrap();
    let mut values: Vec<Value> =
        plan.bare.iter().map(|column| latest.1[cell(*column)].clone()).collect();
    for call in &plan.aggregates {
        let framed = match call.frame {
            Frame::Lifetime => sorted.clone(),
            Frame::Rows { preceding } => {
                sorted[sorted.len().saturating_sub(preceding as usize + 1)..].to_vec()
            }
            Frame::Range { preceding_us, hop_us } => {
                let edge = floor(now - preceding_us as i64, hop_us as i64);
                let inside = |event: &&NaiveEvent| (edge..=now).contains(&event.0.event_time);
                sorted.iter().filter(inside).cloned().collect()
            }
        };
        values.push(aggregate(call, &framed, &cell));
    }
    Some(GroupRow { latest_event_time: latest.0.event_time, values })
}

fn aggregate(call: &AggregateCall, events: &[NaiveEvent], cell: &dyn Fn(usize) -> usize) -> Value {
    let mut inputs: Vec<Value> = Vec::new();
    for (_, cells) in events {
        match call.filter.map(|column| &cells[cell(column)]) {
            None | Some(Value::Bool(true)) => {}
            Some(Value::Error) => return Value::Error,
            Some(_) => continue,
        }
        match call.input.map(|column| &cells[cell(column)]) {
            None => inputs.push(Value::Bool(true)),
            Some(Value::Error) => return Value::Error,
            Some(Value::Null) => {}
            Some(value) => inputs.push(value.clone()),
        }
    }
    apply(call, &inputs)
}

fn apply(call: &AggregateCall, inputs: &[Value]) -> Value {
    let sorted = || {
        let mut sorted = inputs.to_vec();
        sorted.sort();
        sorted
    };
    match call.function {
        AggregateFunction::CountRows | AggregateFunction::Count => Value::Int(inputs.len() as i64),
        AggregateFunction::CountDistinct => {
            let mut sorted = sorted();
            sorted.dedup();
            Value::Int(sorted.len() as i64)
        }
        AggregateFunction::ApproxDistinct => {
            let mut sketch = HyperLogLog::default();
            inputs.iter().for_each(|value| sketch.add(key_hash(&encode_row([value]))));
            Value::Int(sketch.estimate() as i64)
        }
        _ if inputs.is_empty() => Value::Null,
        AggregateFunction::Sum => number(call, inputs, 1),
        AggregateFunction::Avg => number(call, inputs, inputs.len()),
        AggregateFunction::Variance { sample } => variance(inputs, sample, false),
        AggregateFunction::Stddev { sample } => variance(inputs, sample, true),
        AggregateFunction::Min => sorted()[0].clone(),
        AggregateFunction::Max => sorted().pop().unwrap(),
        AggregateFunction::First => inputs[0].clone(),
        AggregateFunction::Last => inputs.last().unwrap().clone(),
        AggregateFunction::LastN(n) => {
            Value::List(inputs.iter().rev().take(n as usize).cloned().collect())
        }
        AggregateFunction::TopN(n) => {
            Value::List(sorted().into_iter().rev().take(n as usize).collect())
        }
        AggregateFunction::ApproxQuantile(q) => quantile(inputs, q),
        AggregateFunction::BoolAnd => Value::Bool(inputs.iter().all(|v| *v == Value::Bool(true))),
        AggregateFunction::BoolOr => Value::Bool(inputs.contains(&Value::Bool(true))),
    }
}

fn float(value: &Value) -> Option<f64> {
    match value {
        Value::Float32(v) => Some(f64::from(*v)),
        Value::Float64(v) => Some(*v),
        _ => None,
    }
}

fn fraction(value: &Value) -> Fraction {
    match value {
        Value::Int(v) => Fraction::new(*v, 1),
        Value::UInt(v) => Fraction::new(*v, 1),
        Value::Decimal(v, scale) => Fraction::new(*v, BigInt::from(10).pow(u32::from(*scale))),
        other => Fraction::of(float(other).unwrap()),
    }
}

/// What a sum of floats is when some are not finite.
fn special(inputs: &[Value]) -> Option<f64> {
    let all: Vec<f64> = inputs.iter().filter_map(float).filter(|v| !v.is_finite()).collect();
    let first = *all.first()?;
    Some(if all.iter().all(|value| *value == first) { first } else { f64::NAN })
}

fn number(call: &AggregateCall, inputs: &[Value], divisor: usize) -> Value {
    if let Some(special) = special(inputs) {
        return Value::Float64(special);
    }
    let sum = reference::sum(&inputs.iter().map(fraction).collect::<Vec<_>>());
    let exact = sum.times(&Fraction::new(1, divisor));
    let ColumnType::Decimal { precision, scale } = call.output_type else {
        return Value::Float64(exact.to_f64());
    };
    // Half away from zero: the floor of the magnitude plus one half.
    let scaled = exact.times(&Fraction::new(BigInt::from(10).pow(u32::from(scale)), 1));
    let magnitude = BigInt::from(scaled.top.magnitude().clone());
    let rounded: BigInt = (magnitude * 2 + &scaled.bottom) / (&scaled.bottom * 2);
    if rounded >= BigInt::from(10).pow(u32::from(precision)) {
        return Value::Error;
    }
    let signed = if scaled.top.sign() == Sign::Minus { -rounded } else { rounded };
    Value::Decimal(i128::try_from(signed).unwrap(), scale)
}

fn variance(inputs: &[Value], sample: bool, root: bool) -> Value {
    if inputs.len() < 1 + usize::from(sample) {
        return Value::Null;
    }
    if special(inputs).is_some() {
        return Value::Float64(f64::NAN);
    }
    let exact = reference::variance(&inputs.iter().map(fraction).collect::<Vec<_>>(), sample);
    exact.map_or(Value::Null, |exact| {
        Value::Float64(if root { exact.root() } else { exact.to_f64() })
    })
}

/// The bucket's midpoint of the value at the rank, from the definition of the buckets.
fn quantile(inputs: &[Value], q: f64) -> Value {
    let mut all: Vec<f64> = inputs
        .iter()
        .map(|value| float(value).unwrap_or_else(|| fraction(value).to_f64()))
        .collect();
    all.sort_by_key(|value| falaj_event::value::canonical_f64_bits(*value + 0.0));
    let value = all[(q * (all.len() - 1) as f64) as usize];
    if value == 0.0 || !value.is_finite() {
        return Value::Float64(value + 0.0);
    }
    let width = 1u64 << 46;
    Value::Float64(f64::from_bits(value.to_bits() / width * width + width / 2))
}
