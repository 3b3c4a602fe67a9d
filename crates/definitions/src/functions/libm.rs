//! Transcendental functions over the pinned `libm` crate: the same bits on every machine,
//! whatever its C library or processor. A result that is not a number is the one canonical NaN.
//!
//! Does not know SQL; infinities and NaN are IEEE 754's, never errors.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::array::{AsArray, Float64Array};
use arrow::compute::binary;
use arrow::datatypes::{DataType, Float64Type};
use datafusion::common::{Result, exec_err};
use datafusion::logical_expr::{
    ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};

type Unary = fn(f64) -> f64;
type Binary = fn(f64, f64) -> f64;

const UNARY: &[(&str, Unary)] = &[
    ("acos", libm::acos),
    ("acosh", libm::acosh),
    ("asin", libm::asin),
    ("asinh", libm::asinh),
    ("atan", libm::atan),
    ("atanh", libm::atanh),
    ("cbrt", libm::cbrt),
    ("cos", libm::cos),
    ("cosh", libm::cosh),
    ("cot", cotangent),
    ("degrees", f64::to_degrees),
    ("exp", libm::exp),
    ("ln", libm::log),
    ("log10", libm::log10),
    ("log2", libm::log2),
    ("radians", f64::to_radians),
    ("sin", libm::sin),
    ("sinh", libm::sinh),
    ("sqrt", libm::sqrt),
    ("tan", libm::tan),
    ("tanh", libm::tanh),
];

const BINARY: &[(&str, Binary)] =
    &[("atan2", libm::atan2), ("pow", libm::pow), ("power", libm::pow)];

fn cotangent(x: f64) -> f64 {
    1.0 / libm::tan(x)
}

/// All of them with their names in SQL.
pub(super) fn functions() -> Vec<(&'static str, Arc<ScalarUDF>)> {
    let unary = UNARY.iter().map(|&(name, f)| (name, Kernel::Unary(f)));
    let binary = BINARY.iter().map(|&(name, f)| (name, Kernel::Binary(f)));
    unary
        .chain(binary)
        .map(|(name, kernel)| {
            let inputs = match kernel {
                Kernel::Unary(_) => vec![DataType::Float64],
                Kernel::Binary(_) => vec![DataType::Float64; 2],
            };
            let signature = Signature::exact(inputs, Volatility::Immutable);
            (name, Arc::new(ScalarUDF::from(LibmFunction { name, kernel, signature })))
        })
        .collect()
}

#[derive(Clone, Copy, Debug)]
enum Kernel {
    Unary(Unary),
    Binary(Binary),
}

#[derive(Debug)]
struct LibmFunction {
    name: &'static str,
    kernel: Kernel,
    signature: Signature,
}

impl PartialEq for LibmFunction {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}
impl Eq for LibmFunction {}
impl Hash for LibmFunction {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.name.hash(state);
    }
}

fn canonical(x: f64) -> f64 {
    if x.is_nan() { f64::NAN } else { x }
}

impl ScalarUDFImpl for LibmFunction {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Float64)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let arrays = ColumnarValue::values_to_arrays(&args.args)?;
        let result: Float64Array = match (self.kernel, arrays.as_slice()) {
            (Kernel::Unary(f), [x]) => x.as_primitive::<Float64Type>().unary(|x| canonical(f(x))),
            (Kernel::Binary(f), [x, y]) => binary(
                x.as_primitive::<Float64Type>(),
                y.as_primitive::<Float64Type>(),
                |x, y| canonical(f(x, y)),
            )?,
            _ => return exec_err!("{} has another number of arguments", self.name),
        };
        Ok(ColumnarValue::Array(Arc::new(result)))
    }
}

/// Whether `name` is one of them.
pub(crate) fn is_libm(name: &str) -> bool {
    UNARY.iter().any(|(known, _)| *known == name) || BINARY.iter().any(|(known, _)| *known == name)
}
