//! Values of a graph: float32, int64 or text, with a shape.

use std::collections::BTreeMap;

use super::OnnxError;
use super::proto::{AttributeProto, NodeProto, TensorProto};

/// Values of one type.
#[derive(Clone, Debug, PartialEq)]
pub enum Data {
    /// float32.
    Float(Vec<f32>),
    /// int64 (and int32, bool).
    Integer(Vec<i64>),
    /// Text.
    Text(Vec<String>),
}

/// A value of a graph.
#[derive(Clone, Debug, PartialEq)]
pub struct Tensor {
    /// Lengths of its dimensions.
    pub shape: Vec<usize>,
    /// Row-major values.
    pub data: Data,
}

impl Tensor {
    /// A float tensor.
    pub fn floats(shape: Vec<usize>, values: Vec<f32>) -> Self {
        Self { shape, data: Data::Float(values) }
    }

    /// An integer tensor.
    pub fn integers(shape: Vec<usize>, values: Vec<i64>) -> Self {
        Self { shape, data: Data::Integer(values) }
    }

    /// Number of values.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The values of a float tensor.
    pub(super) fn as_floats(&self) -> Result<&[f32], String> {
        match &self.data {
            Data::Float(values) => Ok(values),
            _ => Err("it takes floats".to_owned()),
        }
    }

    /// The values of an integer tensor.
    pub(super) fn as_integers(&self) -> Result<&[i64], String> {
        match &self.data {
            Data::Integer(values) => Ok(values),
            _ => Err("it takes integers".to_owned()),
        }
    }

    /// Rows and columns, a vector being one row and further dimensions being columns.
    pub(super) fn matrix(&self) -> (usize, usize) {
        match self.shape.as_slice() {
            [] => (1, 1),
            [columns] => (1, *columns),
            [rows, rest @ ..] => (*rows, rest.iter().product()),
        }
    }

    /// Reads a constant.
    pub(super) fn constant(proto: &TensorProto) -> Result<Self, OnnxError> {
        let refused =
            |why: &str| OnnxError::Constant { name: proto.name.clone(), why: why.to_owned() };
        if proto.data_location != 0 {
            return Err(refused("its values are in another file"));
        }
        let shape = proto.dims.iter().map(|length| usize::try_from(*length));
        let shape: Vec<usize> =
            shape.collect::<Result<_, _>>().map_err(|_| refused("a dimension is negative"))?;
        let expected =
            shape.iter().try_fold(1usize, |product, length| product.checked_mul(*length));
        let expected = expected.ok_or_else(|| refused("it is too large"))?;
        let raw = proto.raw_data.as_slice();
        let data = match proto.data_type {
            1 if raw.is_empty() => Data::Float(proto.float_data.clone()),
            1 => Data::Float(
                raw.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect(),
            ),
            6 if raw.is_empty() => {
                Data::Integer(proto.int32_data.iter().map(|v| i64::from(*v)).collect())
            }
            6 => Data::Integer(
                raw.chunks_exact(4)
                    .map(|b| i64::from(i32::from_le_bytes([b[0], b[1], b[2], b[3]])))
                    .collect(),
            ),
            7 if raw.is_empty() => Data::Integer(proto.int64_data.clone()),
            7 => Data::Integer(
                raw.chunks_exact(8)
                    .map(|b| i64::from_le_bytes([b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7]]))
                    .collect(),
            ),
            8 => Data::Text(
                proto.string_data.iter().map(|b| String::from_utf8_lossy(b).into_owned()).collect(),
            ),
            other => {
                return Err(refused(&format!(
                    "its type is {other}; float32, int32, int64 and text are read"
                )));
            }
        };
        let given = match &data {
            Data::Float(values) => values.len(),
            Data::Integer(values) => values.len(),
            Data::Text(values) => values.len(),
        };
        if given != expected {
            return Err(refused("it has not as many values as its shape says"));
        }
        Ok(Self { shape, data })
    }
}

/// Attributes of a node, by name.
pub(super) struct Attributes<'a> {
    operator: &'a str,
    by_name: BTreeMap<&'a str, &'a AttributeProto>,
}

impl<'a> Attributes<'a> {
    pub(super) fn of(node: &'a NodeProto) -> Self {
        let by_name = node.attribute.iter().map(|a| (a.name.as_str(), a)).collect();
        Self { operator: &node.op_type, by_name }
    }

    pub(super) fn int(&self, name: &str, default: i64) -> i64 {
        self.by_name.get(name).map_or(default, |attribute| attribute.i)
    }

    pub(super) fn float(&self, name: &str, default: f32) -> f32 {
        self.by_name.get(name).map_or(default, |attribute| attribute.f)
    }

    pub(super) fn floats(&self, name: &str) -> &'a [f32] {
        self.by_name.get(name).map_or(&[], |attribute| &attribute.floats)
    }

    pub(super) fn ints(&self, name: &str) -> &'a [i64] {
        self.by_name.get(name).map_or(&[], |attribute| &attribute.ints)
    }

    pub(super) fn tensor(&self, name: &str) -> Option<&'a TensorProto> {
        self.by_name.get(name).and_then(|attribute| attribute.t.as_ref())
    }

    pub(super) fn text(&self, name: &str, default: &str) -> String {
        let text = |a: &&AttributeProto| String::from_utf8_lossy(&a.s).into_owned();
        self.by_name.get(name).map_or_else(|| default.to_owned(), text)
    }

    pub(super) fn texts(&self, name: &str) -> Vec<String> {
        let texts = self.by_name.get(name).map_or(&[][..], |attribute| &attribute.strings);
        texts.iter().map(|text| String::from_utf8_lossy(text).into_owned()).collect()
    }

    /// Refuses a model that relies on an attribute that is not read.
    pub(super) fn refuse(&self, names: &[&str]) -> Result<(), OnnxError> {
        match names.iter().find(|name| self.by_name.contains_key(**name)) {
            None => Ok(()),
            Some(name) => Err(OnnxError::Attribute {
                operator: self.operator.to_owned(),
                attribute: (*name).to_owned(),
                why: "it is not supported".to_owned(),
            }),
        }
    }
}
