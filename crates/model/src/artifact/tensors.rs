//! Bodies as safetensors, and back.

use safetensors::tensor::{Dtype, SafeTensors, TensorView};

use super::ArtifactError;
use super::manifest::BodyManifest;
use crate::model::{Body, Model};
use crate::score::forest::{Forest, Node, Tree};

/// Name of the tensor that holds an ONNX file.
const FILE: &str = "onnx";

struct Tensor {
    name: String,
    dtype: Dtype,
    shape: Vec<usize>,
    bytes: Vec<u8>,
}

fn f32s(name: &str, shape: Vec<usize>, values: &[f32]) -> Tensor {
    let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    Tensor { name: name.to_owned(), dtype: Dtype::F32, shape, bytes }
}

fn f64s(name: &str, shape: Vec<usize>, values: impl IntoIterator<Item = f64>) -> Tensor {
    let bytes = values.into_iter().flat_map(f64::to_le_bytes).collect();
    Tensor { name: name.to_owned(), dtype: Dtype::F64, shape, bytes }
}

fn u32s(name: &str, values: impl ExactSizeIterator<Item = u32>) -> Tensor {
    let shape = vec![values.len()];
    let bytes = values.flat_map(u32::to_le_bytes).collect();
    Tensor { name: name.to_owned(), dtype: Dtype::U32, shape, bytes }
}

fn wrong(name: &str, why: impl ToString) -> ArtifactError {
    ArtifactError::Tensor { name: name.to_owned(), why: why.to_string() }
}

pub(super) fn write(model: &Model) -> Result<(BodyManifest, Vec<u8>), ArtifactError> {
    let (manifest, tensors) = match &model.body {
        Body::Network { network, parameters } => {
            let tensor = |parameter: &crate::network::Parameter| {
                let shape = vec![parameter.shape.0, parameter.shape.1];
                f32s(&parameter.name, shape, &parameters[parameter.range()])
            };
            let tensors = network.parameters.iter().map(tensor).collect::<Vec<_>>();
            (BodyManifest::Network { network: network.clone() }, tensors)
        }
        Body::Forest(forest) => forest_tensors(forest),
        Body::Onnx(file) => {
            let (name, dtype, shape) = (FILE.to_owned(), Dtype::U8, vec![file.len()]);
            (BodyManifest::Onnx {}, vec![Tensor { name, dtype, shape, bytes: file.clone() }])
        }
    };
    let views = tensors
        .iter()
        .map(|tensor| {
            TensorView::new(tensor.dtype, tensor.shape.clone(), &tensor.bytes)
                .map(|view| (tensor.name.as_str(), view))
                .map_err(|error| wrong(&tensor.name, error))
        })
        .collect::<Result<Vec<_>, _>>()?;
    let bytes = safetensors::serialize(views, None).map_err(|error| wrong("all", error))?;
    Ok((manifest, bytes))
}

fn forest_tensors(forest: &Forest) -> (BodyManifest, Vec<Tensor>) {
    let nodes = &forest.nodes;
    let mut tensors = vec![
        f64s("base", vec![forest.base.len()], forest.base.iter().copied()),
        f64s("nodes.threshold", vec![nodes.len()], nodes.iter().map(|node| node.threshold)),
        u32s("nodes.feature", nodes.iter().map(|node| node.feature)),
        u32s("nodes.left", nodes.iter().map(|node| node.left)),
        u32s("nodes.right", nodes.iter().map(|node| node.right)),
        u32s("nodes.missing", nodes.iter().map(|node| node.missing)),
        u32s("trees.root", forest.trees.iter().map(|tree| tree.root)),
        u32s("trees.output", forest.trees.iter().map(|tree| tree.output)),
    ];
    for (column, codes) in forest.categories.iter().enumerate() {
        let shape = vec![codes.len(), codes.first().map_or(0, Vec::len)];
        let values = codes.iter().flatten().copied();
        tensors.push(f64s(&format!("categories.{column}"), shape, values));
    }
    let categories = forest.categories.len();
    (BodyManifest::Forest { numbers: forest.numbers, categories }, tensors)
}

struct Source<'a>(SafeTensors<'a>);

impl Source<'_> {
    fn tensor(
        &self,
        name: &str,
        dtype: Dtype,
        dimensions: usize,
    ) -> Result<(Vec<usize>, &[u8]), ArtifactError> {
        let tensor = self.0.tensor(name).map_err(|error| wrong(name, error))?;
        if tensor.dtype() != dtype || tensor.shape().len() != dimensions {
            let found = format!("it is {:?} {:?}", tensor.dtype(), tensor.shape());
            return Err(wrong(name, found));
        }
        Ok((tensor.shape().to_vec(), tensor.data()))
    }

    fn u32s(&self, name: &str) -> Result<Vec<u32>, ArtifactError> {
        let (_, bytes) = self.tensor(name, Dtype::U32, 1)?;
        let value = |four: &[u8]| u32::from_le_bytes([four[0], four[1], four[2], four[3]]);
        Ok(bytes.chunks_exact(4).map(value).collect())
    }

    fn f64s(&self, name: &str, dimensions: usize) -> Result<(Vec<usize>, Vec<f64>), ArtifactError> {
        let (shape, bytes) = self.tensor(name, Dtype::F64, dimensions)?;
        let value = |eight: &[u8]| {
            let mut bytes = [0; 8];
            bytes.copy_from_slice(eight);
            f64::from_le_bytes(bytes)
        };
        Ok((shape, bytes.chunks_exact(8).map(value).collect()))
    }
}

pub(super) fn read(manifest: &BodyManifest, bytes: &[u8]) -> Result<Body, ArtifactError> {
    let source = Source(SafeTensors::deserialize(bytes).map_err(|error| wrong("all", error))?);
    match manifest {
        BodyManifest::Network { network } => {
            network.check().map_err(|why| ArtifactError::Manifest(why.to_owned()))?;
            let mut parameters = Vec::with_capacity(network.parameter_count());
            for parameter in &network.parameters {
                let (shape, bytes) = source.tensor(&parameter.name, Dtype::F32, 2)?;
                if shape != [parameter.shape.0, parameter.shape.1] {
                    return Err(wrong(&parameter.name, format!("its shape is {shape:?}")));
                }
                let value = |four: &[u8]| f32::from_le_bytes([four[0], four[1], four[2], four[3]]);
                parameters.extend(bytes.chunks_exact(4).map(value));
            }
            Ok(Body::Network { network: network.clone(), parameters })
        }
        BodyManifest::Onnx {} => {
            let (_, file) = source.tensor(FILE, Dtype::U8, 1)?;
            Ok(Body::Onnx(file.to_vec()))
        }
        BodyManifest::Forest { numbers, categories } => {
            read_forest(&source, *numbers, *categories).map(Body::Forest)
        }
    }
}

fn read_forest(
    source: &Source<'_>,
    numbers: usize,
    categories: usize,
) -> Result<Forest, ArtifactError> {
    let (_, base) = source.f64s("base", 1)?;
    let (_, thresholds) = source.f64s("nodes.threshold", 1)?;
    let features = source.u32s("nodes.feature")?;
    let lefts = source.u32s("nodes.left")?;
    let rights = source.u32s("nodes.right")?;
    let missings = source.u32s("nodes.missing")?;
    let count = thresholds.len();
    if [&features, &lefts, &rights, &missings].iter().any(|column| column.len() != count) {
        return Err(wrong("nodes", "its columns have unequal lengths"));
    }
    let node = |at: usize| Node {
        threshold: thresholds[at],
        feature: features[at],
        left: lefts[at],
        right: rights[at],
        missing: missings[at],
    };
    let roots = source.u32s("trees.root")?;
    let outputs = source.u32s("trees.output")?;
    if roots.len() != outputs.len() {
        return Err(wrong("trees", "its columns have unequal lengths"));
    }
    let mut tables = Vec::new();
    for column in 0..categories {
        let (shape, values) = source.f64s(&format!("categories.{column}"), 2)?;
        tables.push(values.chunks(shape[1].max(1)).map(<[f64]>::to_vec).collect());
    }
    Ok(Forest {
        nodes: (0..count).map(node).collect(),
        trees: roots.into_iter().zip(outputs).map(|(root, output)| Tree { root, output }).collect(),
        base,
        categories: tables,
        numbers,
    })
}
