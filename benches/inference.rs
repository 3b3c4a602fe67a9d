//! The model crate's two loops: predicting and training, for a network of 10 features, 64-32-1.
//!
//! Predicting: nanoseconds per row of the scorer, from typed values to a probability, beside three
//! calls of `gemm` of the same shapes (the products alone: no values read, no bias, no activation, no
//! sigmoid), one row at a time and 256 rows together. The two are timed in turns; the best round of
//! each counts, so that other work on the machine does not.
//!
//! Training: rows per second of a run (shuffling, encoding, clipping and norms included) beside the
//! loop that candle's own layers, loss and optimiser give, over rows that lie encoded in memory. Both
//! use one thread.
//!
//! Limit: 2,720 multiplications and additions per row; a core with 8 lanes does them in about 100 ns.

use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use anyhow::{Context, Result};
use arrow::array::{ArrayRef, BooleanArray, Float64Array, RecordBatch};
use candle_core::{DType, Device, Tensor};
use candle_nn::{AdamW, Module, Optimizer, ParamsAdamW, VarBuilder, VarMap};
use falaj_model::spec::BackendChoice;
use falaj_model::train::events::TrainingEvent;
use falaj_model::{Feature, FeatureKind, Input, JobSpec, Scorer, Task, Trainer, train};
use harness::Scale;
use harness::report::{Table, Target};
use harness::workload::mix;

const FEATURES: usize = 10;
const LAYERS: [(usize, usize); 3] = [(10, 64), (64, 32), (32, 1)];
const BATCH: usize = 256;
const TRAINING_BATCH: usize = 256;

fn value(row: usize, column: usize) -> f64 {
    (mix((row * FEATURES + column) as u64) % 2_000) as f64 / 1_000.0 - 1.0
}

fn label(row: usize) -> bool {
    (0..FEATURES).map(|column| value(row, column) * (column as f64 - 4.5)).sum::<f64>() > 0.0
}

fn table(rows: usize) -> Result<RecordBatch> {
    let mut columns: Vec<(String, ArrayRef)> = Vec::new();
    for column in 0..FEATURES {
        let values: Vec<f64> = (0..rows).map(|row| value(row, column)).collect();
        columns.push((format!("x{column}"), Arc::new(Float64Array::from(values))));
    }
    let labels: Vec<bool> = (0..rows).map(label).collect();
    columns.push(("label".to_owned(), Arc::new(BooleanArray::from(labels))));
    Ok(RecordBatch::try_from_iter(columns)?)
}

fn job(epochs: u32) -> JobSpec {
    let feature = |at: usize| Feature::new(&format!("x{at}"), FeatureKind::Numeric);
    let features = (0..FEATURES).map(feature).collect();
    let mut job = JobSpec::new("bench", Task::Binary, "label", features, Trainer::mlp());
    job.backend = BackendChoice::Cpu;
    (job.epochs, job.patience, job.batch_size, job.threads) = (epochs, 0, TRAINING_BATCH, 1);
    job
}

/// The model, and rows per second of its best pass.
fn trained(rows: usize, epochs: u32, folder: &Path) -> Result<(Scorer, f64)> {
    let mut best = 0.0f64;
    let mut sink = |event: TrainingEvent| {
        if let TrainingEvent::Epoch { rows_per_s, .. } = event {
            best = best.max(rows_per_s);
        }
    };
    let never = AtomicBool::new(false);
    let trained = train(&job(epochs), &[table(rows)?], folder, &never, &mut sink)?;
    Ok((Scorer::new(&trained.model)?, best))
}

/// Rows per second of the best pass of candle's own loop.
fn candle_alone(rows: usize, epochs: u32) -> Result<f64> {
    let device = Device::Cpu;
    let inputs: Vec<f32> =
        (0..rows).flat_map(|row| (0..FEATURES).map(move |c| value(row, c) as f32)).collect();
    let labels: Vec<f32> = (0..rows).map(|row| f32::from(u8::from(label(row)))).collect();
    let inputs = Tensor::from_vec(inputs, (rows, FEATURES), &device)?;
    let labels = Tensor::from_vec(labels, (rows, 1), &device)?;
    let variables = VarMap::new();
    let builder = VarBuilder::from_varmap(&variables, DType::F32, &device);
    let layer =
        |at: usize| candle_nn::linear(LAYERS[at].0, LAYERS[at].1, builder.pp(format!("layer{at}")));
    let layers = [layer(0)?, layer(1)?, layer(2)?];
    let settings = ParamsAdamW { lr: 2e-3, ..ParamsAdamW::default() };
    let mut optimiser = AdamW::new(variables.all_vars(), settings)?;
    let mut best = 0.0f64;
    for _ in 0..epochs {
        let started = Instant::now();
        for first in (0..rows).step_by(TRAINING_BATCH) {
            let count = TRAINING_BATCH.min(rows - first);
            let (x, y) = (inputs.narrow(0, first, count)?, labels.narrow(0, first, count)?);
            let hidden = layers[0].forward(&x)?.relu()?;
            let hidden = layers[1].forward(&hidden)?.relu()?;
            let logits = layers[2].forward(&hidden)?;
            let loss = candle_nn::loss::binary_cross_entropy_with_logit(&logits, &y)?;
            optimiser.backward_step(&loss)?;
        }
        best = best.max(rows as f64 / started.elapsed().as_secs_f64());
    }
    Ok(best)
}

/// Buffers of the products.
struct Products {
    activations: Vec<Vec<f32>>,
    weights: Vec<Vec<f32>>,
}

impl Products {
    fn new(rows: usize) -> Self {
        let filled = |count: usize| (0..count).map(|at| value(at, 3) as f32).collect::<Vec<f32>>();
        let mut activations = vec![filled(rows * FEATURES)];
        activations.extend(LAYERS.iter().map(|(_, outputs)| vec![0.0; rows * outputs]));
        Self { activations, weights: LAYERS.iter().map(|(i, o)| filled(i * o)).collect() }
    }

    #[allow(unsafe_code)]
    fn run(&mut self, rows: usize) {
        for (at, (inputs, outputs)) in LAYERS.iter().enumerate() {
            let (before, after) = self.activations.split_at_mut(at + 1);
            // SAFETY: the buffers have rows × inputs, inputs × outputs and rows × outputs values.
            unsafe {
                gemm::gemm(
                    rows,
                    *outputs,
                    *inputs,
                    after[0].as_mut_ptr(),
                    1,
                    *outputs as isize,
                    false,
                    before[at].as_ptr(),
                    1,
                    *inputs as isize,
                    self.weights[at].as_ptr(),
                    1,
                    *outputs as isize,
                    0.0,
                    1.0,
                    false,
                    false,
                    false,
                    gemm::Parallelism::None,
                );
            }
        }
        black_box(&self.activations[LAYERS.len()]);
    }
}

/// Nanoseconds per row of the best round of each, in turns.
fn kernel(scorer: &Scorer, rows: usize, rounds: u64, calls: u64) -> Result<(f64, f64)> {
    let inputs: Vec<Input<'_>> =
        (0..rows * FEATURES).map(|at| Input::Number(value(at, 1))).collect();
    let mut scratch = scorer.scratch();
    let mut out = vec![0.0; rows];
    let mut products = Products::new(rows);
    let mut best = (f64::MAX, f64::MAX);
    for _ in 0..rounds {
        let started = Instant::now();
        for _ in 0..calls {
            scorer.score_rows(black_box(&inputs), &mut scratch, &mut out, &mut |_, _| ())?;
            black_box(&out);
        }
        let own = started.elapsed();
        let started = Instant::now();
        for _ in 0..calls {
            products.run(black_box(rows));
        }
        let other = started.elapsed();
        let each =
            |time: std::time::Duration| time.as_nanos() as f64 / (calls * rows as u64) as f64;
        best = (best.0.min(each(own)), best.1.min(each(other)));
    }
    out.iter().all(|score| score.is_finite()).then_some(best).context("a score is not a number")
}

fn main() -> Result<()> {
    let scale = Scale::from_environment();
    let folder = tempfile::tempdir()?;
    let mut table = Table::new("inference: 10 features, MLP 64-32-1", scale);
    let rows = scale.size(50_000, 600) as usize;
    let epochs = scale.size(4, 1) as u32;
    let (scorer, own) = trained(rows, epochs, folder.path())?;
    let rounds = scale.size(200, 2);
    let (single, bare) = kernel(&scorer, 1, rounds, scale.size(2_000, 5))?;
    table.ratio("one row at a time, per row, against gemm", single, bare, "ns", Target::Stated);
    let (many, bare) = kernel(&scorer, BATCH, rounds, scale.size(10, 2))?;
    table.ratio("256 rows together, per row, against gemm", many, bare, "ns", Target::Stated);
    let pool = rayon_of_one()?;
    let candle = pool.install(|| candle_alone(rows * 7 / 10, epochs))?;
    table.ratio("training, against candle's own loop", own, candle, "rows/s", Target::Stated);
    table.note("limit: 2,720 multiplications and additions per row; the baseline does only them");
    table.print();
    Ok(())
}

/// Both loops get one thread.
fn rayon_of_one() -> Result<rayon::ThreadPool> {
    Ok(rayon::ThreadPoolBuilder::new().num_threads(1).build()?)
}
