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

fn int(name: &str, value: i64) -> AttributeProto {
    AttributeProto { name: name.to_owned(), i: value, ..Default::default() }
}

fn float_constant(name: &str, dims: &[i64], values: &[f32]) -> TensorProto {
    let (name, dims, float_data) = (name.to_owned(), dims.to_vec(), values.to_vec());
    TensorProto { name, dims, data_type: 1, float_data, ..Default::default() }
}

fn int_constant(name: &str, values: &[i64]) -> TensorProto {
    let (name, int64_data) = (name.to_owned(), values.to_vec());
    TensorProto {
        name,
        dims: vec![values.len() as i64],
        data_type: 7,
        int64_data,
        ..Default::default()
    }
}

/// A graph over `x`: each step is an operator, what it reads, what it writes, and its attributes.
type Steps<'a> = &'a [(&'a str, &'a [&'a str], &'a [&'a str], Vec<AttributeProto>)];

fn graph(columns: i64, steps: Steps<'_>, initializer: Vec<TensorProto>, output: &str) -> OnnxModel {
    let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    let node =
        |(operator, reads, writes, attribute): &(&str, &[&str], &[&str], Vec<_>)| NodeProto {
            input: names(reads),
            output: names(writes),
            op_type: (*operator).to_owned(),
            attribute: attribute.clone(),
            domain: String::new(),
        };
    let output = vec![ValueInfo { name: output.to_owned(), r#type: None }];
    let node = steps.iter().map(node).collect();
    let graph = Some(GraphProto { node, initializer, input: vec![input(columns)], output });
    let opset_import = vec![OperatorSet { domain: String::new(), version: 17 }];
    let bytes = ModelProto { graph, opset_import }.encode_to_vec();
    OnnxModel::read(&bytes).expect("a model")
}

/// As a network for tables is exported: a category looked up in a table, numbers normalised, a gate.
#[test]
fn networks_with_embeddings_norms_and_gates_are_evaluated() {
    let steps: Steps<'_> = &[
        ("Slice", &["x", "zero", "one", "one"], &["category"], vec![]),
        ("Slice", &["x", "one", "four", "one"], &["numbers"], vec![]),
        ("Cast", &["category"], &["code"], vec![int("to", 7)]),
        ("Squeeze", &["code", "one"], &["codes"], vec![]),
        ("Gather", &["table", "codes"], &["embedded"], vec![int("axis", 0)]),
        ("LayerNormalization", &["numbers", "gain", "shift"], &["normal"], vec![]),
        ("Concat", &["embedded", "normal"], &["all"], vec![int("axis", 1)]),
        ("Gelu", &["all"], &["active"], vec![]),
        ("Split", &["all", "lengths"], &["left", "right"], vec![int("axis", 1)]),
        ("ReduceMean", &["left", "one"], &["mean"], vec![int("keepdims", 1)]),
        ("Greater", &["mean", "half"], &["is_large"], vec![]),
        ("ReduceSum", &["active", "one"], &["sum"], vec![int("keepdims", 1)]),
        ("ReduceMax", &["right", "one"], &["greatest"], vec![int("keepdims", 1)]),
        ("Where", &["is_large", "sum", "greatest"], &["y"], vec![]),
    ];
    let constants = vec![
        int_constant("zero", &[0]),
        int_constant("one", &[1]),
        int_constant("four", &[4]),
        int_constant("lengths", &[2, 3]),
        float_constant("half", &[1], &[0.5]),
        float_constant("table", &[3, 2], &[0.25, 0.5, 2.0, -1.0, 3.0, 1.5]),
        float_constant("gain", &[3], &[1.0, 2.0, -0.5]),
        float_constant("shift", &[3], &[0.0, 0.5, 1.0]),
    ];
    let model = graph(4, steps, constants, "y");
    let reference = |row: &[f32]| -> f64 {
        let table = [[0.25, 0.5], [2.0, -1.0], [3.0, 1.5]];
        let numbers: Vec<f64> = row[1..].iter().map(|x| f64::from(*x)).collect();
        let mean = numbers.iter().sum::<f64>() / 3.0;
        let variance = numbers.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / 3.0;
        let (gain, shift) = ([1.0, 2.0, -0.5], [0.0, 0.5, 1.0]);
        let normal = |at: usize| (numbers[at] - mean) / (variance + 1e-5).sqrt();
        let normal: Vec<f64> = (0..3).map(|at| normal(at) * gain[at] + shift[at]).collect();
        let embedded = table[row[0] as usize];
        let gelu = |x: f64| 0.5 * x * (1.0 + libm::erf(x / 2.0f64.sqrt()));
        match (embedded[0] + embedded[1]) / 2.0 > 0.5 {
            true => embedded.iter().chain(&normal).map(|x| gelu(*x)).sum(),
            false => normal.into_iter().fold(f64::NEG_INFINITY, f64::max),
        }
    };
    let rows = [[0.0, 1.0, 2.0, 4.0], [1.0, -3.0, 0.5, 9.0], [2.0, 7.0, 7.5, -1.0]];
    let together = model.scores(rows.as_flattened(), 4).expect("scores").1;
    for (row, score) in rows.iter().zip(together) {
        assert!((f64::from(score) - reference(row)).abs() < 1e-5, "{row:?}: {score}");
        assert_eq!(model.scores(row, 4).expect("scores").1, [score]);
    }
    let unknown = model.scores(&[3.0, 1.0, 2.0, 4.0], 4).expect_err("no such category");
    assert_eq!(unknown.to_string(), "`Gather`: index 3 is not among 3");
}

#[test]
fn functions_are_what_they_are_called() {
    let of = |operator: &str, attributes: Vec<AttributeProto>, x: f32| {
        let model = graph(1, &[(operator, &["x"], &["y"], attributes)], vec![], "y");
        f64::from(model.scores(&[x], 1).expect("scores").1[0])
    };
    for x in [-4.0f32, -0.75, 0.0, 0.3, 2.5] {
        let wide = f64::from(x);
        for (operator, attributes, expected) in [
            ("Erf", vec![], libm::erf(wide)),
            ("Gelu", vec![], 0.5 * wide * (1.0 + libm::erf(wide / 2f64.sqrt()))),
            ("Gelu", vec![text("approximate", "tanh")], {
                let inner = (2.0 / std::f64::consts::PI).sqrt() * (wide + 0.044_715 * wide.powi(3));
                0.5 * wide * (1.0 + inner.tanh())
            }),
            ("Softplus", vec![], wide.exp().ln_1p()),
            ("Sign", vec![], if x == 0.0 { 0.0 } else { wide.signum() }),
            ("HardSigmoid", vec![], (0.2 * wide + 0.5).clamp(0.0, 1.0)),
            ("HardSwish", vec![], wide * (wide / 6.0 + 0.5).clamp(0.0, 1.0)),
            ("Selu", vec![], {
                let scaled = if wide > 0.0 { wide } else { 1.673_263_242 * wide.exp_m1() };
                1.050_700_987 * scaled
            }),
        ] {
            let own = of(operator, attributes, x);
            assert!((own - expected).abs() < 2e-6, "{operator}({x}): {own} {expected}");
        }
    }
}

#[test]
fn several_tensors_are_put_together_value_by_value() {
    let constants =
        || vec![float_constant("c", &[3], &[1.0, -2.0, 0.5]), int_constant("two", &[2])];
    let run = |steps: Steps<'_>| {
        let model = graph(3, steps, constants(), "y");
        model.scores(&[2.0, -3.0, 0.5, -1.0, 4.0, f32::NAN], 3).expect("scores").1
    };
    let least = run(&[("Min", &["x", "c"], &["y"], vec![])]);
    assert_eq!(least[..5], [1.0, -3.0, 0.5, -1.0, -2.0]);
    assert!(least[5].is_nan());
    assert_eq!(run(&[("Max", &["x", "c"], &["y"], vec![])])[..5], [2.0, -2.0, 0.5, 1.0, 4.0]);
    assert_eq!(run(&[("Pow", &["x", "two"], &["y"], vec![])])[..5], [4.0, 9.0, 0.25, 1.0, 16.0]);
    for (operator, expected) in [
        ("Equal", [0.0, 0.0, 1.0, 0.0, 0.0, 0.0]),
        ("Less", [0.0, 1.0, 0.0, 1.0, 0.0, 0.0]),
        ("LessOrEqual", [0.0, 1.0, 1.0, 1.0, 0.0, 0.0]),
        ("Greater", [1.0, 0.0, 0.0, 0.0, 1.0, 0.0]),
        ("GreaterOrEqual", [1.0, 0.0, 1.0, 0.0, 1.0, 0.0]),
    ] {
        let as_floats = vec![int("to", 1)];
        let steps: Steps<'_> =
            &[(operator, &["x", "c"], &["b"], vec![]), ("Cast", &["b"], &["y"], as_floats.clone())];
        assert_eq!(run(steps), expected, "{operator}");
        let steps: Steps<'_> = &[
            (operator, &["x", "c"], &["b"], vec![]),
            ("Not", &["b"], &["n"], vec![]),
            ("Cast", &["n"], &["y"], as_floats),
        ];
        assert_eq!(run(steps), expected.map(|value| 1.0 - value), "not {operator}");
    }
    let turned: Steps<'_> = &[
        ("Unsqueeze", &["x", "two"], &["deep"], vec![]),
        ("Transpose", &["deep"], &["turned"], vec![ints("perm", &[0, 2, 1])]),
        ("ReduceMin", &["turned"], &["y"], vec![ints("axes", &[1, 2]), int("keepdims", 0)]),
    ];
    assert_eq!(run(turned)[0], -3.0);
    let sum: f32 =
        run(&[("LogSoftmax", &["x"], &["y"], vec![])])[..3].iter().map(|x| x.exp()).sum();
    assert!((sum - 1.0).abs() < 1e-6, "{sum}");
}

#[test]
fn what_would_mix_rows_is_refused() {
    let constants = || vec![int_constant("zero", &[0]), int_constant("one", &[1])];
    for steps in [
        &[("ReduceSum", &["x", "zero"] as &[&str], &["y"] as &[&str], vec![])],
        &[("Slice", &["x", "zero", "one", "zero"] as _, &["y"] as _, vec![])],
        &[("Transpose", &["x"] as _, &["y"] as _, vec![])],
        &[("Split", &["x"] as _, &["y", "z"] as _, vec![int("axis", 0)])],
        &[("LayerNormalization", &["x", "one"] as _, &["y"] as _, vec![int("axis", 0)])],
    ] {
        let model = graph(2, steps, constants(), "y");
        let error = model.scores(&[1.0, 2.0, 3.0, 4.0], 2).expect_err("refused").to_string();
        assert!(error.contains("a row's score is its own"), "{error}");
    }
}
