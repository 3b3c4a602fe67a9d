//! Parity: every backend against plain float64 loops, forward, gradient and update.
//!
//! The CUDA half runs where there is a GPU and says so where there is none.

use super::cuda::Cuda;
use super::*;
use crate::collective::Alone;
use crate::loss::loss_and_gradient;
use crate::network::{NORM_EPSILON, Step};
use crate::preprocess::{Column, Encoding, Preprocessing};
use crate::random::{Purpose, Stream};
use crate::spec::{Optimiser, Trainer};
use crate::table::InputType;

const ROWS: usize = 37;

fn column(name: &str, encoding: Encoding) -> Column {
    Column { name: name.to_owned(), input: InputType::Float64, nullable: false, encoding }
}

fn preprocessing() -> Preprocessing {
    let number = || Encoding::Number { mean: 0.0, deviation: 1.0, indicator: false, bins: vec![] };
    let category = |entries: usize| Encoding::Category {
        vocabulary: (0..entries).map(|entry| format!("{entry:03}")).collect(),
    };
    let mut columns: Vec<Column> = (0..9).map(|at| column(&format!("x{at}"), number())).collect();
    columns.push(column("few", category(3)));
    columns.push(column("many", category(30)));
    Preprocessing { columns }
}

/// Rows, and a network with a state in the middle of a training.
struct Case {
    network: Network,
    task: Task,
    state: State,
    numbers: Vec<f32>,
    codes: Vec<u32>,
    labels: Vec<f32>,
    weights: Vec<f32>,
}

impl Case {
    fn new(trainer: &Trainer, task: Task) -> Self {
        let outputs = if task == Task::Multiclass { 3 } else { 1 };
        let network = Network::plan(trainer, &preprocessing(), outputs).expect("a network");
        let stream = Stream::new(11, Purpose::Shuffle, 0);
        let draw = |from: u64, count: usize, scale: f32| -> Vec<f32> {
            (0..count).map(|at| (stream.uniform(from + at as u64) - 0.5) * scale).collect()
        };
        let count = network.parameter_count();
        let mut state = State::new(network.first_values(5));
        for (value, noise) in state.parameters.iter_mut().zip(draw(0, count, 0.2)) {
            *value += noise;
        }
        state.first = draw(1 << 20, count, 0.02);
        state.second = draw(1 << 21, count, 0.02).iter().map(|value| value * value).collect();
        let labels = (0..ROWS).map(|row| match task {
            Task::Binary => (row % 2) as f32,
            Task::Multiclass => (row % 3) as f32,
            Task::Regression => (row as f32) / 10.0 - 1.5,
        });
        let code = |row: usize| [(row % 5) as u32, (row * 7 % 32) as u32];
        Self {
            task,
            state,
            numbers: draw(1 << 22, ROWS * 9, 4.0),
            codes: (0..ROWS).flat_map(code).collect(),
            labels: labels.collect(),
            weights: (0..ROWS).map(|row| 0.5 + (row % 4) as f32).collect(),
            network,
        }
    }

    fn batch(&self) -> Batch<'_> {
        Batch {
            rows: ROWS,
            numbers: &self.numbers,
            codes: &self.codes,
            labels: &self.labels,
            weights: &self.weights,
        }
    }
}

fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for task in [Task::Binary, Task::Multiclass, Task::Regression] {
        for trainer in [
            Trainer::Linear {},
            Trainer::Mlp { hidden: vec![16, 24], dropout: 0.25 },
            Trainer::Resnet { width: 16, blocks: 2, expansion: 2, dropout: 0.25, bins: 0 },
        ] {
            cases.push(Case::new(&trainer, task));
        }
    }
    cases
}

const PASS: Pass = Pass { scale: 1.0, seed: 3, step: 7, first_row: 0 };

/// A matrix, row by row.
type Matrix = Vec<Vec<f64>>;

/// The network in float64.
struct Reference<'a> {
    case: &'a Case,
    gradient: Vec<f64>,
}

enum Kept {
    Nothing,
    Input(Matrix),
    Mask(Vec<f32>),
}

impl Reference<'_> {
    fn parameter(&self, index: usize) -> Vec<f64> {
        let range = self.case.network.parameters[index].range();
        self.case.state.parameters[range].iter().map(|value| f64::from(*value)).collect()
    }

    fn inputs(&self) -> Matrix {
        let case = self.case;
        (0..ROWS)
            .map(|row| {
                let own = &case.numbers[row * 9..(row + 1) * 9];
                let mut inputs: Vec<f64> = own.iter().map(|x| f64::from(*x)).collect();
                if !case.network.wide {
                    for (position, table) in case.network.embeddings.iter().enumerate() {
                        let width = case.network.parameters[*table].shape.1;
                        let code = case.codes[row * 2 + position] as usize;
                        inputs.extend(&self.parameter(*table)[code * width..(code + 1) * width]);
                    }
                }
                inputs
            })
            .collect()
    }

    fn forward(&self, pass: Option<&Pass>) -> (Matrix, Vec<Kept>) {
        let mut x = self.inputs();
        let (mut kept, mut saved): (Vec<Kept>, Vec<Matrix>) = (Vec::new(), Vec::new());
        for (layer, step) in self.case.network.steps.iter().enumerate() {
            let before = x.clone();
            kept.push(Kept::Nothing);
            match step {
                Step::Dense { weight, bias } => {
                    let columns = self.case.network.parameters[*weight].shape.1;
                    let (weight, bias) = (self.parameter(*weight), self.parameter(*bias));
                    let sum = |row: &Vec<f64>, column: usize| {
                        let terms =
                            row.iter().enumerate().map(|(at, x)| x * weight[at * columns + column]);
                        terms.sum::<f64>() + bias[column]
                    };
                    x = before
                        .iter()
                        .map(|row| (0..columns).map(|c| sum(row, c)).collect())
                        .collect();
                    kept[layer] = Kept::Input(before);
                }
                Step::Relu => {
                    x.iter_mut().flatten().for_each(|value| *value = value.max(0.0));
                    kept[layer] = Kept::Input(before);
                }
                Step::Dropout { rate } => {
                    if let Some(pass) = pass {
                        let width = x[0].len();
                        let mask = dropout::mask(pass, layer, *rate, ROWS, width);
                        x.iter_mut().flatten().zip(&mask).for_each(|(x, m)| *x *= f64::from(*m));
                        kept[layer] = Kept::Mask(mask);
                    }
                }
                Step::LayerNorm { gain, shift } => {
                    let (gain, shift) = (self.parameter(*gain), self.parameter(*shift));
                    for row in &mut x {
                        let (mean, root) = moments(row);
                        for (at, value) in row.iter_mut().enumerate() {
                            *value = (*value - mean) / root * gain[at] + shift[at];
                        }
                    }
                    kept[layer] = Kept::Input(before);
                }
                Step::Save => saved.push(before),
                Step::AddSaved => {
                    let other = saved.pop().expect("saved");
                    x.iter_mut()
                        .flatten()
                        .zip(other.into_iter().flatten())
                        .for_each(|(x, y)| *x += y);
                }
            }
        }
        if self.case.network.wide {
            for (position, table) in self.case.network.embeddings.iter().enumerate() {
                let values = self.parameter(*table);
                for (row, logits) in x.iter_mut().enumerate() {
                    let code = self.case.codes[row * 2 + position] as usize;
                    let width = logits.len();
                    for (at, logit) in logits.iter_mut().enumerate() {
                        *logit += values[code * width + at];
                    }
                }
            }
        }
        (x, kept)
    }

    /// Adds `value` to the gradient of one value of a parameter.
    fn put(&mut self, parameter: usize, at: usize, value: f64) {
        self.gradient[self.case.network.parameters[parameter].offset + at] += value;
    }

    fn backward(&mut self, mut slopes: Matrix, kept: Vec<Kept>) {
        let network = self.case.network.clone();
        if network.wide {
            self.scatter(&slopes, 0);
        }
        let mut saved: Vec<Matrix> = Vec::new();
        for (step, kept) in network.steps.iter().zip(kept).rev() {
            match (step, kept) {
                (Step::Dense { weight, bias }, Kept::Input(input)) => {
                    let columns = network.parameters[*weight].shape.1;
                    let values = self.parameter(*weight);
                    let mut back: Matrix = vec![vec![0.0; input[0].len()]; ROWS];
                    for row in 0..ROWS {
                        for column in 0..columns {
                            let slope = slopes[row][column];
                            self.put(*bias, column, slope);
                            for at in 0..input[row].len() {
                                self.put(*weight, at * columns + column, slope * input[row][at]);
                                back[row][at] += slope * values[at * columns + column];
                            }
                        }
                    }
                    slopes = back;
                }
                (Step::Relu, Kept::Input(input)) => {
                    for (slope, x) in slopes.iter_mut().flatten().zip(input.iter().flatten()) {
                        *slope *= f64::from(u8::from(*x > 0.0));
                    }
                }
                (Step::Dropout { .. }, Kept::Mask(mask)) => {
                    slopes.iter_mut().flatten().zip(&mask).for_each(|(s, m)| *s *= f64::from(*m));
                }
                (Step::LayerNorm { gain, shift }, Kept::Input(input)) => {
                    let values = self.parameter(*gain);
                    for (row, x) in input.iter().enumerate() {
                        let (mean, root) = moments(x);
                        let normal: Vec<f64> = x.iter().map(|x| (x - mean) / root).collect();
                        let inner: Vec<f64> =
                            slopes[row].iter().zip(&values).map(|(s, g)| s * g).collect();
                        let width = x.len() as f64;
                        let sum = inner.iter().sum::<f64>() / width;
                        let along =
                            inner.iter().zip(&normal).map(|(a, b)| a * b).sum::<f64>() / width;
                        for at in 0..x.len() {
                            self.put(*gain, at, slopes[row][at] * normal[at]);
                            self.put(*shift, at, slopes[row][at]);
                            slopes[row][at] = (inner[at] - sum - normal[at] * along) / root;
                        }
                    }
                }
                (Step::AddSaved, _) => saved.push(slopes.clone()),
                (Step::Save, _) => {
                    let other = saved.pop().expect("saved");
                    slopes
                        .iter_mut()
                        .flatten()
                        .zip(other.into_iter().flatten())
                        .for_each(|(x, y)| *x += y);
                }
                _ => {}
            }
        }
        if !network.wide {
            self.scatter(&slopes, network.numeric_width);
        }
    }

    /// Slopes of embeddings, which begin at column `first`.
    fn scatter(&mut self, slopes: &Matrix, first: usize) {
        let (network, codes) = (self.case.network.clone(), self.case.codes.clone());
        let mut at = first;
        for (position, table) in network.embeddings.iter().enumerate() {
            let width = network.parameters[*table].shape.1;
            for (row, slopes) in slopes.iter().enumerate() {
                let code = codes[row * 2 + position] as usize;
                for unit in 0..width {
                    self.put(*table, code * width + unit, slopes[at + unit]);
                }
            }
            at += if network.wide { 0 } else { width };
        }
    }
}

fn moments(row: &[f64]) -> (f64, f64) {
    let count = row.len() as f64;
    let mean = row.iter().sum::<f64>() / count;
    let variance = row.iter().map(|x| (x - mean) * (x - mean)).sum::<f64>() / count;
    (mean, (variance + f64::from(NORM_EPSILON)).sqrt())
}

/// Loss and gradient in float64 (the slopes of the logits have been rounded to float32 once).
fn reference(case: &Case) -> (f64, Vec<f64>, Vec<f64>) {
    let mut reference = Reference { case, gradient: vec![0.0; case.network.parameter_count()] };
    let plain: Vec<f64> = reference.forward(None).0.into_iter().flatten().collect();
    let (logits, kept) = reference.forward(Some(&PASS));
    let flat: Vec<f32> = logits.iter().flatten().map(|logit| *logit as f32).collect();
    let mut slopes = vec![0.0; flat.len()];
    let loss = loss_and_gradient(case.task, &flat, &case.labels, &case.weights, 1.0, &mut slopes);
    let outputs = case.network.outputs;
    let slopes = slopes.chunks(outputs).map(|row| row.iter().map(|s| f64::from(*s)).collect());
    reference.backward(slopes.collect(), kept);
    (loss, plain, reference.gradient)
}

/// Greatest difference, relative to the greatest value.
fn distance(own: &[f32], expected: &[f64]) -> f64 {
    assert_eq!(own.len(), expected.len());
    let size = expected.iter().fold(1e-3f64, |size, value| size.max(value.abs()));
    let differences = own.iter().zip(expected).map(|(a, b)| (f64::from(*a) - b).abs());
    differences.fold(0.0, f64::max) / size
}

fn compare(backend: &dyn Backend, precision: Precision, tolerance: f64) {
    for case in cases() {
        let (loss, logits, gradient) = reference(&case);
        let mut session = backend
            .session(&case.network, case.task, precision, &case.state, 0)
            .expect("a session");
        let mut own = Vec::new();
        session.logits(&case.batch(), &mut own).expect("logits");
        assert!(distance(&own, &logits) < tolerance, "{:?} logits", case.task);
        let found = session.backward(&case.batch(), &PASS).expect("a gradient");
        assert!((found - loss).abs() / loss < tolerance, "{:?} loss {found} {loss}", case.task);
        session.exchange(&Alone, &mut []).expect("alone");
        let own = session.gradient().expect("a gradient");
        let apart = distance(&own, &gradient);
        assert!(apart < tolerance, "{:?} {:?} gradient {apart:e}", case.task, case.network.steps);
        let norm: f64 = own.iter().map(|g| f64::from(*g) * f64::from(*g)).sum();
        let squared = session.squared_norm().expect("a norm");
        assert!((squared - norm).abs() <= 1e-9 * norm, "norm");
        let update = Update::new(&Optimiser::default(), 3, 0.5);
        session.update(&update).expect("an update");
        let mut expected = case.state.clone();
        expected.apply(&case.network, &own, &update);
        let updated = session.state().expect("a state");
        for (own, expected) in [
            (&updated.parameters, &expected.parameters),
            (&updated.first, &expected.first),
            (&updated.second, &expected.second),
        ] {
            let expected: Vec<f64> = expected.iter().map(|value| f64::from(*value)).collect();
            assert!(distance(own, &expected) < 1e-6, "{:?} update", case.task);
        }
    }
}

#[test]
fn the_cpu_computes_what_plain_loops_compute() {
    let cpu = cpu::Cpu::new(2);
    compare(&cpu, Precision::F32, 2e-6);
    compare(&cpu, Precision::Bf16, 0.2);
    compare(&cpu, Precision::F16, 0.08);
}

#[test]
fn cuda_computes_what_plain_loops_compute() {
    match Cuda::open(0) {
        Err(why) => println!("skipped: {why}"),
        Ok(gpu) => {
            compare(&gpu, Precision::F32, 1e-5);
            compare(&gpu, Precision::Bf16, 0.2);
            compare(&gpu, Precision::F16, 0.08);
        }
    }
}

#[test]
fn a_missing_gpu_is_an_answer() {
    if let Err(error) = Cuda::open(0) {
        assert!(matches!(error, BackendError::NoDevice { .. }), "{error}");
        let (backend, why) = choose(BackendChoice::Auto, 1).expect("the CPU");
        assert_eq!((backend.hardware().backend.as_str(), why), ("cpu", Some(error.clone())));
        assert_eq!(choose(BackendChoice::Cuda, 1).err(), Some(error));
    }
    assert!(matches!(Cuda::open(9_999), Err(BackendError::NoDevice { .. })));
}

#[test]
fn batches_that_do_not_fit_are_refused() {
    let case = Case::new(&Trainer::mlp(), Task::Binary);
    let session =
        cpu::Cpu::new(1).session(&case.network, case.task, Precision::F32, &case.state, 0);
    let mut session = session.expect("a session");
    let mut codes = case.codes.clone();
    codes[3] = 99;
    let wrong = Batch { codes: &codes, ..case.batch() };
    assert!(matches!(session.backward(&wrong, &PASS), Err(BackendError::Shape { .. })));
    let short = Batch { labels: &case.labels[1..], ..case.batch() };
    assert!(matches!(session.backward(&short, &PASS), Err(BackendError::Shape { .. })));
}
