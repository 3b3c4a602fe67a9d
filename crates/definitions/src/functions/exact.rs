//! Rounding, negation and the one form of a float: exact for decimals, checked for integers, and
//! plain IEEE 754 operations for floats.
//!
//! Does not know SQL.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::compute::cast;
use arrow::compute::kernels::numeric::neg;
use arrow::datatypes::{
    DataType, Decimal128Type, Field, FieldRef, Float32Type, Float64Type, Int64Type, TimeUnit,
};
use arrow::error::ArrowError;
use datafusion::common::{Result, ScalarValue, exec_err, plan_err};
use datafusion::logical_expr::{
    ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
    Volatility,
};

/// Functions with their names in SQL, fewest and most arguments.
pub(super) fn functions() -> Vec<(&'static str, Arc<ScalarUDF>, usize, usize)> {
    let one = |name, kind, most| (name, udf(name, kind), 1, most);
    vec![
        one("round", Kind::Round, 2),
        one("trunc", Kind::Trunc, 2),
        one("floor", Kind::Floor, 1),
        one("ceil", Kind::Ceil, 1),
        one("ceiling", Kind::Ceil, 1),
    ]
}

/// `-x`, checked.
pub(crate) fn negate() -> Arc<ScalarUDF> {
    udf("checked_negate", Kind::Negate)
}

/// A float with one zero and one NaN, so that comparing bits is comparing numbers.
pub(crate) fn canonical_float() -> Arc<ScalarUDF> {
    udf("canonical_float", Kind::Canonical)
}

/// Seconds since 1970 of a timestamp, or the seconds of a difference of two: float64.
pub(crate) fn epoch() -> Arc<ScalarUDF> {
    udf("epoch_seconds", Kind::Epoch)
}

fn udf(name: &'static str, kind: Kind) -> Arc<ScalarUDF> {
    let signature = Signature::user_defined(Volatility::Immutable);
    Arc::new(ScalarUDF::from(ExactFunction { name, kind, signature }))
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Kind {
    Round,
    Trunc,
    Floor,
    Ceil,
    Negate,
    Canonical,
    Epoch,
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct ExactFunction {
    name: &'static str,
    kind: Kind,
    signature: Signature,
}

impl ScalarUDFImpl for ExactFunction {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        let Some(first) = types.first() else {
            return plan_err!("{} needs an argument", self.name);
        };
        let accepted = match self.kind {
            Kind::Canonical => first.is_floating(),
            Kind::Epoch => matches!(
                first,
                DataType::Timestamp(TimeUnit::Microsecond, _)
                    | DataType::Duration(TimeUnit::Microsecond)
            ),
            Kind::Negate => first.is_numeric() && !first.is_unsigned_integer(),
            _ => first.is_numeric(),
        };
        if !accepted {
            return plan_err!("{} does not take {first}", self.name);
        }
        let mut coerced = vec![first.clone()];
        if types.len() > 1 {
            coerced.push(DataType::Int64);
        }
        Ok(coerced)
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        exec_err!("{} has no type without its fields: {types:?}", self.name)
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        let Some(field) = args.arg_fields.first() else {
            return plan_err!("{} needs an argument", self.name);
        };
        let digits = match args.scalar_arguments.get(1) {
            None => 0,
            Some(Some(ScalarValue::Int64(Some(digits)))) if (0..=18).contains(digits) => {
                i8::try_from(*digits).unwrap_or(0)
            }
            Some(_) => {
                return plan_err!("the digits of {} must be a constant from 0 to 18", self.name);
            }
        };
        let data_type = match (self.kind, field.data_type()) {
            (Kind::Negate | Kind::Canonical, other) => other.clone(),
            (Kind::Epoch, _) => DataType::Float64,
            (_, DataType::Decimal128(precision, scale)) => {
                let kept = digits.min(*scale).max(0);
                let whole = i16::from(*precision) - i16::from(*scale);
                let precision =
                    u8::try_from((whole + i16::from(kept) + 1).clamp(1, 38)).unwrap_or(38);
                DataType::Decimal128(precision, kept)
            }
            (_, other) => other.clone(),
        };
        Ok(Arc::new(Field::new(self.name, data_type, true)))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let digits = match args.args.get(1) {
            Some(ColumnarValue::Scalar(ScalarValue::Int64(Some(digits)))) => *digits,
            None => 0,
            Some(_) => return exec_err!("the digits of {} must be a constant", self.name),
        };
        let arrays = ColumnarValue::values_to_arrays(&args.args)?;
        let Some(array) = arrays.first() else {
            return exec_err!("{} needs an argument", self.name);
        };
        let result: ArrayRef = match (self.kind, array.data_type()) {
            (Kind::Negate, _) => neg(array)?,
            (Kind::Epoch, _) => {
                let micros = cast(array, &DataType::Int64)?;
                let micros = micros.as_primitive::<Int64Type>();
                #[allow(clippy::cast_precision_loss)] // exact below 2^53 microseconds, 285 years
                Arc::new(micros.unary::<_, Float64Type>(|us| us as f64 / 1e6))
            }
            (kind, DataType::Float64) => {
                let values = array.as_primitive::<Float64Type>();
                Arc::new(values.unary::<_, Float64Type>(|x| float(kind, x, digits)))
            }
            (kind, DataType::Float32) => {
                let values = array.as_primitive::<Float32Type>();
                #[allow(clippy::cast_possible_truncation)] // rounding back to the declared type
                Arc::new(values.unary::<_, Float32Type>(|x| float(kind, x.into(), digits) as f32))
            }
            (kind, DataType::Decimal128(_, scale)) => {
                decimal(kind, array, *scale, args.return_field.data_type())?
            }
            _ => Arc::clone(array),
        };
        Ok(ColumnarValue::Array(result))
    }
}

/// Powers of ten that a float64 holds exactly.
const POWERS: [f64; 19] = [
    1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16,
    1e17, 1e18,
];

fn float(kind: Kind, x: f64, digits: i64) -> f64 {
    let whole = match kind {
        Kind::Round => libm::round,
        Kind::Trunc => libm::trunc,
        Kind::Floor => libm::floor,
        Kind::Ceil => libm::ceil,
        Kind::Canonical | Kind::Negate | Kind::Epoch => {
            return if x.is_nan() {
                f64::NAN
            } else if x == 0.0 {
                0.0
            } else {
                x
            };
        }
    };
    let power = usize::try_from(digits).ok().and_then(|digits| POWERS.get(digits)).copied();
    let scaled = x * power.unwrap_or(1.0);
    if scaled.is_finite() { whole(scaled) / power.unwrap_or(1.0) } else { x }
}

fn decimal(kind: Kind, array: &ArrayRef, scale: i8, to: &DataType) -> Result<ArrayRef> {
    let DataType::Decimal128(precision, kept) = *to else {
        return exec_err!("a decimal rounds to a decimal, not to {to}");
    };
    let unit = 10_i128.pow(u32::from(scale.saturating_sub(kept).max(0).unsigned_abs()));
    let values = array.as_primitive::<Decimal128Type>();
    let rounded = values.try_unary::<_, Decimal128Type, ArrowError>(|x| {
        let (quotient, rest) = (x.div_euclid(unit), x.rem_euclid(unit));
        let up = match kind {
            Kind::Floor => false,
            Kind::Ceil => rest != 0,
            Kind::Trunc => x < 0 && rest != 0,
            // Half away from zero; `rest` is measured from below.
            _ => rest > unit - rest || (rest == unit - rest && x > 0 && unit > 1),
        };
        Ok(quotient + i128::from(up))
    })?;
    Ok(Arc::new(rounded.with_precision_and_scale(precision, kept)?))
}
