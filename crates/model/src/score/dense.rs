//! The arithmetic of networks at prediction: float32, one fixed order of additions.
//!
//! Every output starts at its bias and adds `input × weight` in ascending order of the inputs; SIMD
//! runs across outputs, never along the sum, and nothing is contracted into fused
//! multiply-adds. So a row's bits do not depend on the other rows, the number of threads or the
//! vector width of the machine. Does not know what inputs or outputs mean.

use crate::network::{NORM_EPSILON, Network, Step};

/// Outputs that are computed together.
const LANES: usize = 32;
/// Narrower groups, for what [`LANES`] leaves over.
const NARROW: usize = 8;
/// Rows that are computed layer by layer together, so that weights stay in the cache.
pub const ROWS: usize = 4;

#[derive(Clone, Debug)]
enum Operation {
    /// Weights packed per group of outputs, then per input.
    Dense {
        inputs: usize,
        outputs: usize,
        relu: bool,
        weights: Vec<f32>,
        bias: Vec<f32>,
    },
    Relu,
    LayerNorm {
        gain: Vec<f32>,
        shift: Vec<f32>,
    },
    Save,
    AddSaved,
}

/// A network, laid out for prediction.
#[derive(Clone, Debug)]
pub struct Program {
    operations: Vec<Operation>,
    inputs: usize,
    outputs: usize,
    stride: usize,
    saves: usize,
    wide_simd: bool,
}

/// Activations of up to [`ROWS`] rows.
#[derive(Clone, Debug)]
pub struct Buffers {
    current: Vec<f32>,
    next: Vec<f32>,
    saved: Vec<f32>,
}

fn padded(outputs: usize) -> usize {
    outputs.next_multiple_of(NARROW)
}

/// Groups of outputs: (first output, width).
fn groups(outputs: usize) -> impl Iterator<Item = (usize, usize)> {
    let outputs = padded(outputs);
    let full = outputs / LANES;
    let rest = (outputs - full * LANES) / NARROW;
    let wide = (0..full).map(|group| (group * LANES, LANES));
    wide.chain((0..rest).map(move |group| (full * LANES + group * NARROW, NARROW)))
}

fn pack(weights: &[f32], inputs: usize, outputs: usize) -> Vec<f32> {
    let mut packed = Vec::with_capacity(inputs * padded(outputs));
    for (first, width) in groups(outputs) {
        for input in 0..inputs {
            let value = |output: usize| {
                if output < outputs { weights[input * outputs + output] } else { 0.0 }
            };
            packed.extend((first..first + width).map(value));
        }
    }
    packed
}

impl Program {
    /// Lays out `network`; `parameters` are its flat values.
    pub fn new(network: &Network, parameters: &[f32]) -> Self {
        let values = |index: usize| parameters[network.parameters[index].range()].to_vec();
        let mut operations: Vec<Operation> = Vec::new();
        let (mut depth, mut saves) = (0usize, 0usize);
        for step in &network.steps {
            match step {
                Step::Dense { weight, bias } => {
                    let (inputs, outputs) = network.parameters[*weight].shape;
                    let mut bias = values(*bias);
                    bias.resize(padded(outputs), 0.0);
                    let weights = pack(&values(*weight), inputs, outputs);
                    let relu = false;
                    operations.push(Operation::Dense { inputs, outputs, relu, weights, bias });
                }
                Step::Relu => match operations.last_mut() {
                    Some(Operation::Dense { relu, .. }) => *relu = true,
                    _ => operations.push(Operation::Relu),
                },
                Step::Dropout { .. } => {}
                Step::LayerNorm { gain, shift } => {
                    let (gain, shift) = (values(*gain), values(*shift));
                    operations.push(Operation::LayerNorm { gain, shift });
                }
                Step::Save => {
                    depth += 1;
                    saves = saves.max(depth);
                    operations.push(Operation::Save);
                }
                Step::AddSaved => {
                    depth = depth.saturating_sub(1);
                    operations.push(Operation::AddSaved);
                }
            }
        }
        Self {
            operations,
            inputs: network.input_width(),
            outputs: network.outputs,
            stride: padded(network.widest()),
            saves,
            wide_simd: has_wide_simd(),
        }
    }

    /// Number of inputs.
    pub fn inputs(&self) -> usize {
        self.inputs
    }

    /// Buffers that fit.
    pub fn buffers(&self) -> Buffers {
        let buffer = || vec![0.0; self.stride * ROWS];
        Buffers {
            current: buffer(),
            next: buffer(),
            saved: vec![0.0; self.stride * ROWS * self.saves],
        }
    }

    /// Where the inputs of `row` (below [`ROWS`]) go.
    pub fn input_mut<'b>(&self, buffers: &'b mut Buffers, row: usize) -> &'b mut [f32] {
        let start = row * self.stride;
        &mut buffers.current[start..start + self.inputs]
    }

    /// The logits of `row` after [`Program::run`].
    pub fn logits<'b>(&self, buffers: &'b Buffers, row: usize) -> &'b [f32] {
        let start = row * self.stride;
        &buffers.current[start..start + self.outputs]
    }

    /// Computes the first `rows` rows.
    pub fn run(&self, buffers: &mut Buffers, rows: usize) {
        #[cfg(target_arch = "x86_64")]
        if self.wide_simd {
            #[allow(unsafe_code)]
            // SAFETY: the processor has AVX2, which was asked when the program was laid out.
            unsafe {
                run_avx2(self, buffers, rows)
            };
            return;
        }
        run(self, buffers, rows);
    }
}

#[cfg(target_arch = "x86_64")]
fn has_wide_simd() -> bool {
    std::arch::is_x86_feature_detected!("avx2")
}

#[cfg(not(target_arch = "x86_64"))]
fn has_wide_simd() -> bool {
    false
}

// Without "fma" among the features, so that no multiplication can be fused with an addition.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn run_avx2(program: &Program, buffers: &mut Buffers, rows: usize) {
    run(program, buffers, rows);
}

#[inline(always)]
fn run(program: &Program, buffers: &mut Buffers, rows: usize) {
    let stride = program.stride;
    let (mut width, mut depth) = (program.inputs, 0);
    for operation in &program.operations {
        match operation {
            Operation::Dense { inputs, outputs, relu, weights, bias } => {
                let layer = Layer { inputs: *inputs, weights, bias, relu: *relu };
                for row in 0..rows {
                    let own = row * stride..(row + 1) * stride;
                    layer.run(&buffers.current[own.clone()], &mut buffers.next[own], *outputs);
                }
                std::mem::swap(&mut buffers.current, &mut buffers.next);
                width = *outputs;
            }
            Operation::Relu => {
                for row in buffers.current.chunks_exact_mut(stride).take(rows) {
                    row[..width].iter_mut().for_each(|value| *value = rectified(*value));
                }
            }
            Operation::LayerNorm { gain, shift } => {
                for row in buffers.current.chunks_exact_mut(stride).take(rows) {
                    normalise(&mut row[..width], gain, shift);
                }
            }
            Operation::Save => {
                let start = depth * stride * ROWS;
                buffers.saved[start..start + stride * ROWS].copy_from_slice(&buffers.current);
                depth += 1;
            }
            Operation::AddSaved => {
                depth -= 1;
                let saved = &buffers.saved[depth * stride * ROWS..(depth + 1) * stride * ROWS];
                for (value, before) in buffers.current.iter_mut().zip(saved) {
                    *value += before;
                }
            }
        }
    }
}

#[inline(always)]
fn rectified(value: f32) -> f32 {
    // NaN must come through.
    if value < 0.0 { 0.0 } else { value }
}

#[inline(always)]
fn normalise(row: &mut [f32], gain: &[f32], shift: &[f32]) {
    let count = row.len() as f32;
    let mean = row.iter().sum::<f32>() / count;
    let variance = row.iter().map(|value| (value - mean) * (value - mean)).sum::<f32>() / count;
    let root = (variance + NORM_EPSILON).sqrt();
    for ((value, gain), shift) in row.iter_mut().zip(gain).zip(shift) {
        *value = (*value - mean) / root * gain + shift;
    }
}

struct Layer<'a> {
    inputs: usize,
    weights: &'a [f32],
    bias: &'a [f32],
    relu: bool,
}

impl Layer<'_> {
    #[inline(always)]
    fn run(&self, from: &[f32], into: &mut [f32], outputs: usize) {
        let mut rest = self.weights;
        for (first, width) in groups(outputs) {
            let (weights, after) = rest.split_at(self.inputs * width);
            rest = after;
            if width == NARROW {
                self.group::<NARROW>(weights, from, into, first);
            } else {
                self.group::<LANES>(weights, from, into, first);
            }
        }
    }

    /// The `W` outputs from `first` on.
    #[inline(always)]
    fn group<const W: usize>(&self, weights: &[f32], from: &[f32], into: &mut [f32], first: usize) {
        let mut sums = [0.0f32; W];
        sums.copy_from_slice(&self.bias[first..first + W]);
        for (value, weights) in from[..self.inputs].iter().zip(weights.chunks_exact(W)) {
            for (sum, weight) in sums.iter_mut().zip(weights) {
                *sum += value * weight;
            }
        }
        let out = &mut into[first..first + W];
        if self.relu {
            for (out, sum) in out.iter_mut().zip(&sums) {
                *out = rectified(*sum);
            }
        } else {
            out.copy_from_slice(&sums);
        }
    }
}
