//! Small ONNX files, written byte by byte (onnx.proto3), so that tests need nothing beside the tree.

fn varint(mut number: u64, out: &mut Vec<u8>) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

fn number(field: u64, value: u64) -> Vec<u8> {
    let mut out = Vec::new();
    varint(field << 3, &mut out);
    varint(value, &mut out);
    out
}

fn bytes(field: u64, content: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    varint(field << 3 | 2, &mut out);
    varint(content.len() as u64, &mut out);
    out.extend_from_slice(content);
    out
}

fn text(field: u64, content: &str) -> Vec<u8> {
    bytes(field, content.as_bytes())
}

fn constant(name: &str, rows: u64, columns: u64, values: &[f32]) -> Vec<u8> {
    let raw: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    let parts = [number(1, rows), number(1, columns), number(2, 1), text(8, name), bytes(9, &raw)];
    bytes(5, &parts.concat())
}

fn step(operator: &str, inputs: &[&str], output: &str) -> Vec<u8> {
    let inputs: Vec<u8> = inputs.iter().flat_map(|name| text(1, name)).collect();
    bytes(1, &[inputs, text(2, output), text(4, operator)].concat())
}

/// A model of one input of `columns` float32.
fn model(columns: u64, constants: &[Vec<u8>], steps: &[Vec<u8>], output: &str) -> Vec<u8> {
    let shape = [bytes(1, &number(1, 0)), bytes(1, &number(1, columns))].concat();
    let tensor = [number(1, 1), bytes(2, &shape)].concat();
    let of = bytes(2, &bytes(1, &tensor));
    let input = bytes(11, &[text(1, "x"), of].concat());
    let output = bytes(12, &text(1, output));
    let graph = [steps.concat(), constants.concat(), input, output].concat();
    let opset = bytes(8, &[text(1, ""), number(2, 15)].concat());
    [number(1, 8), bytes(7, &graph), opset].concat()
}

/// `1 / (1 + exp(-(weights · x + bias)))`.
pub fn logistic(weights: &[f32], bias: f32) -> Vec<u8> {
    let columns = weights.len() as u64;
    let constants = [constant("w", columns, 1, weights), constant("b", 1, 1, &[bias])];
    let steps = [
        step("MatMul", &["x", "w"], "product"),
        step("Add", &["product", "b"], "sum"),
        step("Sigmoid", &["sum"], "score"),
    ];
    model(columns, &constants, &steps, "score")
}

/// As [`logistic`], but not a number where `limit - breaking · x` is negative.
pub fn breaking(weights: &[f32], bias: f32, breaking: &[f32], limit: f32) -> Vec<u8> {
    let columns = weights.len() as u64;
    let against: Vec<f32> = breaking.iter().map(|weight| -weight).collect();
    let constants = [
        constant("w", columns, 1, weights),
        constant("b", 1, 1, &[bias]),
        constant("v", columns, 1, &against),
        constant("limit", 1, 1, &[limit]),
        constant("nothing", 1, 1, &[0.0]),
    ];
    let steps = [
        step("MatMul", &["x", "w"], "product"),
        step("Add", &["product", "b"], "sum"),
        step("Sigmoid", &["sum"], "share"),
        step("MatMul", &["x", "v"], "against"),
        step("Add", &["against", "limit"], "room"),
        step("Log", &["room"], "logarithm"),
        step("Mul", &["logarithm", "nothing"], "none"),
        step("Add", &["share", "none"], "score"),
    ];
    model(columns, &constants, &steps, "score")
}

/// `weights · x`, where a missing value counts as 0.
pub fn line(weights: &[f32]) -> Vec<u8> {
    let columns = weights.len() as u64;
    let constants = [constant("w", columns, 1, weights)];
    let missing = [vec![0x15], f32::NAN.to_le_bytes().to_vec()].concat();
    let attributes = [
        bytes(5, &[text(1, "imputed_value_floats"), vec![0x3d, 0, 0, 0, 0]].concat()),
        bytes(5, &[text(1, "replaced_value_float"), missing].concat()),
    ];
    let names = [text(1, "x"), text(2, "whole"), text(4, "Imputer"), text(7, "ai.onnx.ml")];
    let inputs = [names.concat(), attributes.concat()];
    let steps = [bytes(1, &inputs.concat()), step("MatMul", &["whole", "w"], "score")];
    model(columns, &constants, &steps, "score")
}
