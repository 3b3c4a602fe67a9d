//! ONNX Runtime's answers on exported models, and small graphs made by hand.

use std::path::PathBuf;

use super::proto::*;
use super::*;

fn data() -> Option<PathBuf> {
    let beside = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared");
    let given = std::env::var_os("FALAJ_SHARED").map(PathBuf::from);
    given.into_iter().chain([beside]).map(|path| path.join("data/onnx")).find(|path| path.is_dir())
}

fn flat(value: &serde_json::Value, into: &mut Vec<f64>) {
    match value {
        serde_json::Value::Array(values) => values.iter().for_each(|value| flat(value, into)),
        other => into.push(other.as_f64().expect("a number")),
    }
}

#[test]
fn answers_are_those_of_onnx_runtime() {
    let Some(folder) = data() else {
        println!("skipped: no ../shared/data/onnx");
        return;
    };
    let mut seen = 0;
    for entry in std::fs::read_dir(folder).expect("a folder").flatten() {
        let path = entry.path();
        if path.extension().is_none_or(|extension| extension != "onnx") {
            continue;
        }
        let model = OnnxModel::read(&std::fs::read(&path).expect("a file")).expect("a model");
        let text = std::fs::read_to_string(path.with_extension("json")).expect("its answers");
        let answers: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        let rows = answers["x"].as_array().expect("rows");
        let columns = rows[0].as_array().expect("a row").len();
        let mut numbers = Vec::new();
        flat(&answers["x"], &mut numbers);
        let numbers: Vec<f32> = numbers.into_iter().map(|number| number as f32).collect();
        let outputs = model.run(&numbers, columns).expect("outputs");
        let expected = answers["outs"].as_array().expect("outputs");
        assert_eq!(outputs.len(), expected.len(), "{path:?}");
        for ((name, output), expected) in outputs.iter().zip(expected) {
            let mut values = Vec::new();
            flat(expected, &mut values);
            let own: Vec<f64> = match &output.data {
                Data::Float(values) => values.iter().map(|value| f64::from(*value)).collect(),
                Data::Integer(values) => values.iter().map(|value| *value as f64).collect(),
                Data::Text(_) => panic!("text"),
            };
            assert_eq!(own.len(), values.len(), "{path:?} {name}");
            for (at, (own, expected)) in own.iter().zip(&values).enumerate() {
                let difference = (own - expected).abs() / expected.abs().max(1.0);
                assert!(difference <= 2e-6, "{path:?} {name} {at}: {own} {expected}");
            }
            // Row by row gives the same bits.
            if let Data::Float(all) = &output.data {
                let (_, one) = model.scores(&numbers[..columns], columns).expect("scores");
                assert_eq!(one[..], all[..one.len()], "{path:?}");
            }
        }
        seen += 1;
    }
    assert!(seen >= 13, "{seen} models");
}

fn ints(name: &str, values: &[i64]) -> AttributeProto {
    AttributeProto { name: name.to_owned(), ints: values.to_vec(), ..Default::default() }
}

fn floats(name: &str, values: &[f32]) -> AttributeProto {
    AttributeProto { name: name.to_owned(), floats: values.to_vec(), ..Default::default() }
}

fn text(name: &str, value: &str) -> AttributeProto {
    AttributeProto { name: name.to_owned(), s: value.as_bytes().to_vec(), ..Default::default() }
}

fn texts(name: &str, values: &[&str]) -> AttributeProto {
    let strings = values.iter().map(|value| value.as_bytes().to_vec()).collect();
    AttributeProto { name: name.to_owned(), strings, ..Default::default() }
}

fn input(columns: i64) -> ValueInfo {
    let dim = vec![Dimension { dim_value: 0 }, Dimension { dim_value: columns }];
    let shape = Some(TensorShape { dim });
    let tensor_type = Some(TensorType { elem_type: 1, shape });
    ValueInfo { name: "x".to_owned(), r#type: Some(TypeProto { tensor_type }) }
}

fn one_node(
    domain: &str,
    operator: &str,
    attribute: Vec<AttributeProto>,
    outputs: &[&str],
) -> ModelProto {
    let output: Vec<String> = outputs.iter().map(|name| (*name).to_owned()).collect();
    let node = NodeProto {
        input: vec!["x".to_owned()],
        output: output.clone(),
        op_type: operator.to_owned(),
        attribute,
        domain: domain.to_owned(),
    };
    let output = output.into_iter().map(|name| ValueInfo { name, r#type: None }).collect();
    let graph = GraphProto { node: vec![node], initializer: vec![], input: vec![input(1)], output };
    let opset_import = vec![OperatorSet { domain: String::new(), version: 15 }];
    ModelProto { graph: Some(graph), opset_import }
}

/// One split at 0.5; `missing` values go where it says; leaves weigh 1 (true) and 2 (false).
pub(crate) fn stump(mode: &str, missing: i64, extra: Vec<AttributeProto>) -> ModelProto {
    let mut attributes = vec![
        ints("nodes_treeids", &[0, 0, 0]),
        ints("nodes_nodeids", &[0, 1, 2]),
        ints("nodes_featureids", &[0, 0, 0]),
        floats("nodes_values", &[0.5, 0.0, 0.0]),
        texts("nodes_modes", &[mode, "LEAF", "LEAF"]),
        ints("nodes_truenodeids", &[1, 0, 0]),
        ints("nodes_falsenodeids", &[2, 0, 0]),
        ints("nodes_missing_value_tracks_true", &[missing, 0, 0]),
        ints("target_treeids", &[0, 0]),
        ints("target_nodeids", &[1, 2]),
        ints("target_ids", &[0, 0]),
        floats("target_weights", &[1.0, 2.0]),
    ];
    attributes.extend(extra);
    one_node("ai.onnx.ml", "TreeEnsembleRegressor", attributes, &["y"])
}

pub(crate) fn answers(model: &ModelProto, inputs: &[f32]) -> Vec<f32> {
    let model = OnnxModel::read(&model.encode_to_vec()).expect("a model");
    model.scores(inputs, 1).expect("scores").1
}

#[test]
fn every_branch_mode_compares_as_it_is_called() {
    let inputs = [0.25, 0.5, 0.75, f32::NAN];
    for (mode, expected) in [
        ("BRANCH_LEQ", [1.0, 1.0, 2.0, 2.0]),
        ("BRANCH_LT", [1.0, 2.0, 2.0, 2.0]),
        ("BRANCH_GTE", [2.0, 1.0, 1.0, 2.0]),
        ("BRANCH_GT", [2.0, 2.0, 1.0, 2.0]),
        ("BRANCH_EQ", [2.0, 1.0, 2.0, 2.0]),
        ("BRANCH_NEQ", [1.0, 2.0, 1.0, 1.0]),
    ] {
        assert_eq!(answers(&stump(mode, 0, vec![]), &inputs), expected, "{mode}");
        assert_eq!(answers(&stump(mode, 1, vec![]), &inputs)[3], 1.0, "{mode}");
    }
}

#[test]
fn base_values_aggregates_and_transforms_apply() {
    let base = || floats("base_values", &[0.5]);
    assert_eq!(answers(&stump("BRANCH_LT", 0, vec![base()]), &[0.0, 1.0]), [1.5, 2.5]);
    let average = vec![base(), text("aggregate_function", "AVERAGE")];
    assert_eq!(answers(&stump("BRANCH_LT", 0, average), &[0.0]), [1.5]);
    let logistic = vec![text("post_transform", "LOGISTIC")];
    assert_eq!(answers(&stump("BRANCH_LT", 0, logistic), &[0.0]), [0.731_058_6]);
    let softmax = vec![text("post_transform", "SOFTMAX")];
    assert_eq!(answers(&stump("BRANCH_LT", 0, softmax), &[0.0]), [1.0]);
    let probit = vec![text("post_transform", "PROBIT"), floats("base_values", &[-0.025])];
    let value = answers(&stump("BRANCH_LT", 0, probit), &[0.0])[0];
    assert!((value - 1.959_964).abs() < 0.01, "{value}");
}

#[test]
fn what_is_not_known_is_refused_by_name() {
    let error = |model: &ModelProto| OnnxModel::read(&model.encode_to_vec()).expect_err("refused");
    let unknown = one_node("", "Einsum", vec![], &["y"]);
    assert_eq!(error(&unknown).to_string(), "operator `Einsum` is not supported");
    let foreign = one_node("com.microsoft", "FusedGemm", vec![], &["y"]);
    assert_eq!(error(&foreign).to_string(), "operator `com.microsoft.FusedGemm` is not supported");
    assert!(error(&stump("BRANCH_MEMBER", 0, vec![])).to_string().contains("BRANCH_MEMBER"));
    let mut circle = stump("BRANCH_LT", 0, vec![]);
    let attributes = &mut circle.graph.as_mut().expect("a graph").node[0].attribute;
    attributes[5] = ints("nodes_truenodeids", &[0, 0, 0]);
    assert!(matches!(error(&circle), OnnxError::Trees { .. }));
    let mut reads = one_node("", "Relu", vec![], &["y"]);
    reads.graph.as_mut().expect("a graph").node[0].input[0] = "z".to_owned();
    assert!(error(&reads).to_string().contains("`z`"));
    assert!(matches!(OnnxModel::read(b"no model at all"), Err(OnnxError::Foreign(_))));
    assert!(OnnxModel::read(&[]).is_err());
    let relu =
        OnnxModel::read(&one_node("", "Relu", vec![], &["y"]).encode_to_vec()).expect("a model");
    assert!(matches!(relu.scores(&[1.0, 2.0], 2), Err(OnnxError::Inputs { .. })));
    assert_eq!(relu.scores(&[-1.0, 2.0], 1).expect("scores").1, [0.0, 2.0]);
}
