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
            (Kernel::Binary(f), [x, y]) => {
                binary(x.as_primitive::<Float64Type>(), y.as_primitive::<Float64Type>(), |x, y| {
                    canonical(f(x, y))
                })?
            }
            _ => return exec_err!("{} has another number of arguments", self.name),
        };
        Ok(ColumnarValue::Array(Arc::new(result)))
    }
}

/// Whether `name` is one of them.
pub(crate) fn is_libm(name: &str) -> bool {
    UNARY.iter().any(|(known, _)| *known == name) || BINARY.iter().any(|(known, _)| *known == name)
}

#[cfg(test)]
pub(super) fn evaluate(name: &str, x: f64) -> f64 {
    let unary = UNARY.iter().find(|(known, _)| *known == name).map(|(_, f)| f(x));
    unary.unwrap_or_else(|| canonical(libm::pow(x, 1.0 / 3.0)))
}

/// (function, argument, bits of the result); `pow` is to the power of a third.
#[cfg(test)]
pub(super) fn golden() -> Vec<(&'static str, f64, u64)> {
    vec![
        ("acos", 0.3, 0x3ff441f5ecbeef59),
        ("acosh", 2.5, 0x3ff9119c13a31bb0),
        ("asin", 0.3, 0x3fd380159e14f6ff),
        ("asinh", 0.7, 0x3fe4e2a4fe9085dd),
        ("atan", 0.7, 0x3fe38b112d7bd4ad),
        ("atanh", 0.3, 0x3fd3cf2b50617c96),
        ("cbrt", 10.0, 0x40013c484138704f),
        ("cos", 1.0, 0x3fe14a280fb5068c),
        ("cos", 1e22, 0x3fe0be2cef01c8f4),
        ("cosh", 1.5, 0x4002d1bc21e22022),
        ("cot", 0.7, 0x3ff2fef14a96d5da),
        ("degrees", 1.0, 0x404ca5dc1a63c1f8),
        ("exp", 1.0, 0x4005bf0a8b14576a),
        ("exp", -745.0, 0x0000000000000001),
        ("exp", 0.1, 0x3ff1aec7b35a00d4),
        ("ln", 10.0, 0x40026bb1bbb55516),
        ("ln", 0.1, 0xc0026bb1bbb55515),
        ("ln", 5e-324, 0xc0874385446d71c3),
        ("log10", 2.0, 0x3fd34413509f79ff),
        ("log10", 1000.0, 0x4008000000000000),
        ("log2", 10.0, 0x400a934f0979a371),
        ("log2", 0.1, 0xc00a934f0979a371),
        ("radians", 100.0, 0x3ffbecde5da115a9),
        ("sin", 1.0, 0x3feaed548f090cee),
        ("sin", 1e22, 0xbfeb453ab76bf397),
        ("sinh", 1.5, 0x400108c3aabd6a60),
        ("sqrt", 2.0, 0x3ff6a09e667f3bcd),
        ("tan", 1.0, 0x3ff8eb245cbee3a6),
        ("tan", 1e22, 0xbffa0f79c1b6b258),
        ("tanh", 0.7, 0x3fe356fb17af2e90),
        ("pow", 10.0, 0x40013c484138704f),
        ("pow", 0.1, 0x3fddb4c7760bcff3),
    ]
}
