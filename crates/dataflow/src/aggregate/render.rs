//! What an aggregate answers from its lane's slots.
//!
//! Does not know how the slots came to be.

use falaj_definitions::plan::{AggregateCall, AggregateFunction};
use falaj_event::{Value, encoding};
use num_bigint::{BigInt, Sign};

use crate::aggregate::heap::{Encoded, Heap};
use crate::aggregate::input::{Repr, decimal_of};
use crate::aggregate::ops::{Kind, Op};
use crate::aggregate::slots::{ORDER_WORDS, Seen};
use crate::exact::{ExactSum, Inline, Moments, variance};
use falaj_event::ColumnType;

/// A decimal result.
#[derive(Clone, Copy, Debug)]
struct Decimal {
    scale: u8,
    /// Ten to the precision: the least unscaled magnitude that does not fit.
    limit: u128,
}

/// Where one aggregate finds its answer.
#[derive(Clone, Debug)]
pub(crate) struct Output {
    function: AggregateFunction,
    repr: Repr,
    decimal: Option<Decimal>,
    count_at: usize,
    op: Option<Op>,
    squares: Option<Op>,
    quick: Option<Quick>,
}

/// An answer that is a few words, and where they are.
#[derive(Clone, Copy, Debug)]
enum Quick {
    Count,
    /// Order-preserving bits of an 8-byte value.
    Word(usize),
    /// A sum of integers.
    Sum(usize, Decimal),
    /// Its mean.
    Mean(usize),
}

impl Output {
    pub(crate) fn new(call: &AggregateCall, count_at: usize, ops: &[Op], repr: Repr) -> Self {
        let find = |wanted: &dyn Fn(Kind) -> bool| ops.iter().find(|op| wanted(op.kind)).copied();
        let op = match call.function {
            AggregateFunction::CountRows | AggregateFunction::Count => None,
            AggregateFunction::CountDistinct => find(&|kind| kind == Kind::Counts),
            AggregateFunction::Sum
            | AggregateFunction::Avg
            | AggregateFunction::Variance { .. }
            | AggregateFunction::Stddev { .. } => {
                find(&|kind| matches!(kind, Kind::Sum | Kind::IntegerSum))
            }
            AggregateFunction::Min => find(&|kind| kind == Kind::Min),
            AggregateFunction::Max => find(&|kind| kind == Kind::Max),
            AggregateFunction::First => find(&|kind| kind == Kind::First),
            AggregateFunction::Last => find(&|kind| kind == Kind::Last),
            AggregateFunction::LastN(_) => find(&|kind| matches!(kind, Kind::Latest(_))),
            AggregateFunction::TopN(_) => find(&|kind| matches!(kind, Kind::Greatest(_))),
            AggregateFunction::ApproxDistinct => find(&|kind| kind == Kind::Registers),
            AggregateFunction::ApproxQuantile(_) => find(&|kind| kind == Kind::Buckets),
            AggregateFunction::BoolAnd | AggregateFunction::BoolOr => {
                find(&|kind| kind == Kind::Trues)
            }
        };
        let decimal = match call.output_type {
            ColumnType::Decimal { precision, scale } => {
                let limit = 10u128.checked_pow(precision.into()).unwrap_or(u128::MAX);
                Some(Decimal { scale, limit })
            }
            _ => None,
        };
        let squares = find(&|kind| kind == Kind::Squares);
        let quick = Quick::of(call.function, op, decimal);
        Self { function: call.function, repr, decimal, count_at, op, squares, quick }
    }

    /// Appends the aggregate's value in canonical encoding.
    #[inline]
    pub(crate) fn encode(&self, seen: Seen<'_>, out: &mut Vec<u8>) {
        let (count, errors) = (seen.words[self.count_at], seen.words[self.count_at + 1]);
        match self.quick {
            Some(Quick::Count) if errors == 0 => encoding::encode_int(bounded(count), out),
            Some(_) if errors == 0 && count == 0 => out.push(encoding::TAG_NULL),
            Some(Quick::Word(at)) if errors == 0 => self.repr.encode(seen.words[at], out),
            Some(Quick::Sum(at, decimal)) if errors == 0 => {
                match fits(seen.wide(at).cast_signed(), decimal.limit) {
                    Some(sum) => encoding::encode_decimal(sum, decimal.scale, out),
                    None => out.push(encoding::TAG_ERROR),
                }
            }
            Some(Quick::Mean(at)) if errors == 0 => {
                let mean = match i64::try_from(seen.wide(at).cast_signed()) {
                    // Both are exact, so this is one rounding.
                    Ok(sum) if sum.unsigned_abs() < EXACT_F64 && count < EXACT_F64 => {
                        sum as f64 / count as f64
                    }
                    _ => sum_of_integers(seen, at).quotient(count),
                };
                encoding::encode_f64(mean, out);
            }
            _ => encoding::encode_value(&self.render(seen), out),
        }
    }

    /// The aggregate's value.
    pub(crate) fn render(&self, seen: Seen<'_>) -> Value {
        let (count, errors) = (seen.words[self.count_at], seen.words[self.count_at + 1]);
        if errors > 0 {
            return Value::Error;
        }
        match (self.function, self.op) {
            (AggregateFunction::CountRows | AggregateFunction::Count, _) => int(count),
            (AggregateFunction::CountDistinct, Some(op)) => match object(seen, op) {
                Some(Heap::Counts(counts)) => int(counts.len() as u64),
                _ => Value::Int(0),
            },
            (AggregateFunction::ApproxDistinct, Some(op)) => match object(seen, op) {
                Some(Heap::Registers(registers)) => int(registers.estimate()),
                _ => Value::Int(0),
            },
            _ if count == 0 => Value::Null,
            (_, Some(op)) => self.render_some(seen, op, count),
            (_, None) => Value::Error,
        }
    }

    fn render_some(&self, seen: Seen<'_>, op: Op, count: u64) -> Value {
        match self.function {
            AggregateFunction::Sum => self.number(seen, op, None),
            AggregateFunction::Avg => self.number(seen, op, Some(count)),
            AggregateFunction::Variance { sample } => self.moments(seen, op, count, sample, false),
            AggregateFunction::Stddev { sample } => self.moments(seen, op, count, sample, true),
            AggregateFunction::Min | AggregateFunction::Max => self.value(seen, op, op.at),
            AggregateFunction::First | AggregateFunction::Last => {
                self.value(seen, op, op.at + ORDER_WORDS)
            }
            AggregateFunction::TopN(n) => match object(seen, op) {
                Some(Heap::Greatest(list)) => values(list.iter().take(n as usize)),
                _ => Value::Null,
            },
            AggregateFunction::LastN(n) => match object(seen, op) {
                Some(Heap::Latest(list)) => {
                    values(list.iter().take(n as usize).map(|(_, value)| value))
                }
                _ => Value::Null,
            },
            AggregateFunction::ApproxQuantile(q) => match object(seen, op) {
                Some(Heap::Buckets(buckets)) => {
                    buckets.quantile(q).map_or(Value::Null, Value::Float64)
                }
                _ => Value::Null,
            },
            AggregateFunction::BoolAnd => Value::Bool(seen.words[op.at] == count),
            AggregateFunction::BoolOr => Value::Bool(seen.words[op.at] > 0),
            AggregateFunction::CountRows
            | AggregateFunction::Count
            | AggregateFunction::CountDistinct
            | AggregateFunction::ApproxDistinct => Value::Error,
        }
    }

    /// A sum, or its quotient by `divisor`.
    fn number(&self, seen: Seen<'_>, op: Op, divisor: Option<u64>) -> Value {
        match self.decimal {
            None => {
                let count = divisor.unwrap_or(1);
                Value::Float64(match op.kind {
                    Kind::IntegerSum => sum_of_integers(seen, op.at).quotient(count),
                    _ if seen.objects[op.object].is_none() => {
                        ExactSum::from_parts(seen.inline(op.at), None).quotient(count)
                    }
                    _ => seen.sum(op.at, op.object).quotient(count),
                })
            }
            Some(Decimal { scale, limit }) => {
                let from = if let Repr::Decimal(scale) = self.repr { scale } else { 0 };
                if let (None, true, Some(sum)) = (divisor, from == scale, small_sum(seen, op)) {
                    return fits(sum, limit).map_or(Value::Error, |sum| Value::Decimal(sum, scale));
                }
                let sum = match op.kind {
                    Kind::IntegerSum => Some(BigInt::from(seen.wide(op.at).cast_signed())),
                    _ => seen.sum(op.at, op.object).to_integer(),
                };
                sum.and_then(|sum| decimal(&sum, divisor.unwrap_or(1), from, limit, scale))
                    .map_or(Value::Error, |unscaled| Value::Decimal(unscaled, scale))
            }
        }
    }

    fn moments(&self, seen: Seen<'_>, op: Op, count: u64, sample: bool, root: bool) -> Value {
        let Some(squares) = self.squares else { return Value::Error };
        let sum = match op.kind {
            Kind::IntegerSum => sum_of_integers(seen, op.at),
            _ => seen.sum(op.at, op.object),
        };
        let squares = seen.sum(squares.at, squares.object);
        let scale = if let Repr::Decimal(scale) = self.repr { scale } else { 0 };
        let moments = Moments { count, sum: &sum, squares: &squares, scale };
        variance(moments, sample, root).map_or(Value::Null, Value::Float64)
    }

    fn value(&self, seen: Seen<'_>, op: Op, at: usize) -> Value {
        match self.repr {
            Repr::Decimal(scale) => Value::Decimal(decimal_of(seen.wide(at)), scale),
            Repr::Bytes => seen.bytes(op.object).map_or(Value::Null, decode),
            repr => repr.value(seen.words[at]),
        }
    }
}

/// Whole numbers below this are exact in an f64.
const EXACT_F64: u64 = 1 << 53;

impl Quick {
    fn of(function: AggregateFunction, op: Option<Op>, decimal: Option<Decimal>) -> Option<Self> {
        let op = match (function, op) {
            (AggregateFunction::CountRows | AggregateFunction::Count, _) => {
                return Some(Self::Count);
            }
            (_, op) => op?,
        };
        match (function, op.kind, decimal) {
            (AggregateFunction::Min | AggregateFunction::Max, _, _) if op.repr.is_8_bytes() => {
                Some(Self::Word(op.at))
            }
            (AggregateFunction::Sum, Kind::IntegerSum, Some(decimal)) if decimal.scale == 0 => {
                Some(Self::Sum(op.at, decimal))
            }
            (AggregateFunction::Avg, Kind::IntegerSum, None) => Some(Self::Mean(op.at)),
            _ => None,
        }
    }
}

/// A sum of integers that fits i128.
fn small_sum(seen: Seen<'_>, op: Op) -> Option<i128> {
    if op.kind == Kind::IntegerSum {
        return Some(seen.wide(op.at).cast_signed());
    }
    let inline = seen.inline(op.at);
    (seen.objects[op.object].is_none() && inline.exponent == 0).then_some(inline.mantissa)
}

fn fits(unscaled: i128, limit: u128) -> Option<i128> {
    (unscaled.unsigned_abs() < limit).then_some(unscaled)
}

fn sum_of_integers(seen: Seen<'_>, at: usize) -> ExactSum {
    let mantissa = seen.wide(at).cast_signed();
    ExactSum::from_parts(Inline { mantissa, exponent: 0 }, None)
}

fn bounded(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

fn int(count: u64) -> Value {
    Value::Int(bounded(count))
}

fn object(seen: Seen<'_>, op: Op) -> Option<&Heap> {
    seen.objects[op.object].as_deref()
}

fn decode(bytes: &[u8]) -> Value {
    encoding::decode_value(bytes).map_or(Value::Error, |(value, _)| value)
}

fn values<'a>(list: impl Iterator<Item = &'a Encoded>) -> Value {
    Value::List(list.map(|value| decode(value)).collect())
}

/// `sum / divisor`, moved from scale `from` to `scale`, rounded half away from zero; `None` when it
/// reaches `limit`.
fn decimal(sum: &BigInt, divisor: u64, from: u8, limit: u128, scale: u8) -> Option<i128> {
    let ten = |power: u8| BigInt::from(10u8).pow(u32::from(power));
    let numerator = sum * ten(scale.saturating_sub(from)) * 2u8;
    let denominator = BigInt::from(divisor) * ten(from.saturating_sub(scale));
    // Half away from zero: truncate (2·x ± 1) / 2 of the exact quotient.
    let toward = if sum.sign() == Sign::Minus { -denominator.clone() } else { denominator.clone() };
    let rounded = (numerator + toward) / (denominator * 2u8);
    fits(i128::try_from(rounded).ok()?, limit)
}
