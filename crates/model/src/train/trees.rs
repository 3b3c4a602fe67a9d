//! Gradient-boosted trees: `forust-ml` grows them, and they become our own flat nodes.
//!
//! A category stands for the mean label of its training rows, drawn towards the overall mean by ten
//! rows' worth (Micci-Barreca, 2001): one number, or one per class. Several classes are boosted one
//! against the rest. Growing does not depend on the number of threads, and an interrupted run starts
//! anew and ends in the same trees.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use forust_ml::metric::Metric;
use forust_ml::objective::ObjectiveType;
use forust_ml::sampler::SampleMethod;
use forust_ml::{GradientBooster, Matrix};

use super::data::{Dataset, Range};
use super::events::{EpochPoint, Sink, TrainingEvent};
use super::{Fitted, TrainError, cancelled};
use crate::backend::Backend;
use crate::backend::cpu::Cpu;
use crate::metrics::Metrics;
use crate::model::{Body, outputs};
use crate::score::forest::{Forest, LEAF, Node, Tree};
use crate::spec::{JobSpec, Task, Trainer};

/// Rows that the overall mean counts as when a category's mean is drawn towards it.
const PRIOR_ROWS: f64 = 10.0;

/// Name of the file that says that trees were begun in a run's folder.
const BEGUN: &str = "trees.begun";
const ANEW: &str = "it was interrupted, and boosting cannot go on with an ensemble: its trees are grown \
    anew, and end in the same ones";

/// Notes that trees are begun in `folder`; says whether they were before.
fn begin(folder: &Path) -> Result<bool, TrainError> {
    let path = folder.join(BEGUN);
    let again = path.exists();
    let written = std::fs::create_dir_all(folder).and_then(|()| std::fs::write(&path, b""));
    let failed = |error: std::io::Error| TrainError::Io {
        operation: "writing",
        path: path.clone(),
        why: error.to_string(),
    };
    written.map(|()| again).map_err(failed)
}

/// The run has its model.
pub(super) fn ended(folder: &Path) {
    // What is left over is removed with the folder.
    let _ = std::fs::remove_file(folder.join(BEGUN));
}

pub(super) fn train_trees(
    spec: &JobSpec,
    dataset: &Dataset,
    folder: &Path,
    cancel: &AtomicBool,
    sink: &mut Sink<'_>,
) -> Result<Fitted, TrainError> {
    let Trainer::Trees { trees, .. } = spec.trainer else {
        return Err(TrainError::Trees { why: "the job asks for something else".to_owned() });
    };
    let outputs = outputs(spec.task, &dataset.target);
    let hardware = Cpu::new(spec.threads).hardware();
    check_memory(spec, dataset, outputs)?;
    sink(TrainingEvent::Started {
        model: spec.model.clone(),
        trainer: spec.trainer.name().to_owned(),
        hardware: hardware.clone(),
        fallback: None,
        rows: dataset.counts,
        parameters: 0,
        batch_size: dataset.counts.train,
        epochs: trees as u32,
        workers: 1,
        resumed_after: None,
        restarted: begin(folder)?.then(|| ANEW.to_owned()),
    });
    let mut forest = Forest {
        numbers: dataset.preprocessing.numbers(),
        categories: category_values(spec.task, dataset, outputs),
        ..Forest::default()
    };
    let train = Columns::new(dataset, &forest, dataset.train());
    let validation = Columns::new(dataset, &forest, dataset.validation());
    let mut history = Vec::new();
    let mut best_epoch = 0;
    for output in 0..outputs {
        cancelled(cancel)?;
        let started = Instant::now();
        let booster = grow(spec, dataset, &train, &validation, output, outputs)?;
        let kept = booster.prediction_iteration.unwrap_or(booster.trees.len());
        best_epoch = best_epoch.max(kept as u32);
        append(&mut forest, &booster, output as u32, kept);
        tell(&booster, &mut history, started, dataset.counts.train, kept, sink);
    }
    forest.check().map_err(|error| TrainError::Trees { why: error.to_string() })?;
    Ok(Fitted { body: Body::Forest(forest), history, best_epoch, hardware })
}

fn check_memory(spec: &JobSpec, dataset: &Dataset, outputs: usize) -> Result<(), TrainError> {
    let columns = dataset.preprocessing.numbers() + dataset.preprocessing.codes() * outputs;
    // The columns, their bins, and gradients, predictions and weights per row.
    let needed =
        dataset.rows.len() * (columns * (8 + 2) + 64 + 8 * dataset.preprocessing.numbers());
    if needed > spec.bounds.max_bytes {
        return Err(TrainError::TooLarge { needed, bound: spec.bounds.max_bytes });
    }
    Ok(())
}

/// The numbers that stand for each code of each categorical column.
fn category_values(task: Task, dataset: &Dataset, outputs: usize) -> Vec<Vec<Vec<f64>>> {
    let target = |row: usize, output: usize| match task {
        Task::Multiclass => f64::from(u8::from(dataset.raw_labels[row] as usize == output)),
        _ => f64::from(dataset.labels[row]),
    };
    let rows = dataset.train();
    let counts = dataset.preprocessing.code_counts();
    let column = |(position, codes): (usize, usize)| {
        let mut sums = vec![vec![0.0; outputs]; codes];
        let mut seen = vec![0.0; codes];
        let mut totals = vec![0.0; outputs];
        for row in rows.clone() {
            let code = dataset.codes_of(row)[position] as usize;
            seen[code] += 1.0;
            for output in 0..outputs {
                sums[code][output] += target(row, output);
                totals[output] += target(row, output);
            }
        }
        let share = |(sums, seen): (Vec<f64>, f64)| {
            let value = |(sum, total): (f64, &f64)| {
                let overall = total / rows.len().max(1) as f64;
                (sum + PRIOR_ROWS * overall) / (seen + PRIOR_ROWS)
            };
            sums.into_iter().zip(&totals).map(value).collect::<Vec<f64>>()
        };
        sums.into_iter().zip(seen).map(share).collect()
    };
    counts.into_iter().enumerate().map(column).collect()
}

/// Inputs of a range of rows, column after column.
struct Columns {
    range: Range,
    values: Vec<f64>,
    width: usize,
}

impl Columns {
    fn new(dataset: &Dataset, forest: &Forest, range: Range) -> Self {
        let (width, rows) = (forest.width(), range.len());
        let mut values = vec![0.0; width * rows];
        let mut inputs = vec![0.0; width];
        for (at, row) in range.clone().enumerate() {
            forest.inputs(dataset.numbers_of(row), dataset.codes_of(row), &mut inputs);
            for (column, value) in inputs.iter().enumerate() {
                values[column * rows + at] = *value;
            }
        }
        Self { range, values, width }
    }

    fn matrix(&self) -> Matrix<'_, f64> {
        Matrix::new(&self.values, self.range.len(), self.width)
    }

    fn labels(&self, task: Task, dataset: &Dataset, output: usize) -> Vec<f64> {
        let label = |row: usize| match task {
            Task::Multiclass => f64::from(u8::from(dataset.raw_labels[row] as usize == output)),
            _ => f64::from(dataset.labels[row]),
        };
        self.range.clone().map(label).collect()
    }

    fn weights(&self, dataset: &Dataset) -> Vec<f64> {
        dataset.weights[self.range.clone()].iter().map(|weight| f64::from(*weight)).collect()
    }
}

fn booster(spec: &JobSpec, output: usize) -> Option<GradientBooster> {
    let Trainer::Trees {
        trees,
        learning_rate,
        max_depth,
        min_leaf_weight,
        l2,
        subsample,
        column_share,
        bins,
        early_stopping_rounds,
    } = spec.trainer
    else {
        return None;
    };
    let (objective, metric) = match spec.task {
        Task::Regression => (ObjectiveType::SquaredLoss, Metric::RootMeanSquaredError),
        Task::Binary | Task::Multiclass => (ObjectiveType::LogLoss, Metric::LogLoss),
    };
    let sampling = if subsample < 1.0 { SampleMethod::Random } else { SampleMethod::None };
    let stopping = (early_stopping_rounds > 0).then_some(early_stopping_rounds);
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let threads = if spec.threads == 0 { threads } else { spec.threads };
    let booster = GradientBooster::default()
        .set_objective_type(objective)
        .set_iterations(trees)
        .set_learning_rate(learning_rate)
        .set_max_depth(max_depth)
        .set_min_leaf_weight(min_leaf_weight)
        .set_l2(l2)
        .set_subsample(subsample)
        .set_sample_method(sampling)
        .set_colsample_bytree(column_share)
        .set_nbins(bins)
        .set_seed(spec.seed.wrapping_add(output as u64))
        .set_missing(f64::NAN)
        .set_allow_missing_splits(true)
        .set_create_missing_branch(false)
        .set_initialize_base_score(true)
        .set_evaluation_metric(Some(metric))
        .set_early_stopping_rounds(stopping)
        .set_parallel(true)
        .set_num_threads(Some(threads));
    Some(booster)
}

fn grow(
    spec: &JobSpec,
    dataset: &Dataset,
    train: &Columns,
    validation: &Columns,
    output: usize,
    _outputs: usize,
) -> Result<GradientBooster, TrainError> {
    let failed = |why: String| TrainError::Trees { why };
    let Some(mut booster) = booster(spec, output) else {
        return Err(failed("the job asks for something else".to_owned()));
    };
    let labels = train.labels(spec.task, dataset, output);
    let weights = train.weights(dataset);
    let held = validation.labels(spec.task, dataset, output);
    let held_weights = validation.weights(dataset);
    let (matrix, held_matrix) = (train.matrix(), validation.matrix());
    let (own, other) = (train.matrix(), &held_matrix);
    let evaluations = vec![
        (own, labels.as_slice(), weights.as_slice()),
        (Matrix::new(other.data, other.rows, other.cols), held.as_slice(), held_weights.as_slice()),
    ];
    // The library asserts some of what it expects.
    let grown = catch_unwind(AssertUnwindSafe(|| {
        booster.fit(&matrix, &labels, &weights, Some(evaluations))
    }));
    match grown {
        Ok(Ok(())) => Ok(booster),
        Ok(Err(error)) => Err(failed(error.to_string())),
        Err(_) => Err(failed("the library gave up on these rows".to_owned())),
    }
}

/// Copies the kept trees; children of a node come after it.
fn append(forest: &mut Forest, booster: &GradientBooster, output: u32, kept: usize) {
    forest.base.push(booster.base_score);
    for tree in booster.trees.iter().take(kept) {
        let root = forest.nodes.len() as u32;
        forest.trees.push(Tree { root, output });
        for node in &tree.nodes {
            let at = |child: usize| root + child as u32;
            forest.nodes.push(if node.is_leaf {
                let threshold = f64::from(node.weight_value);
                Node { threshold, feature: LEAF, left: 0, right: 0, missing: 0 }
            } else {
                Node {
                    threshold: node.split_value,
                    feature: node.split_feature as u32,
                    left: at(node.left_child),
                    right: at(node.right_child),
                    missing: at(node.missing_node),
                }
            });
        }
    }
}

/// One point and one event per tree, from the library's own record.
fn tell(
    booster: &GradientBooster,
    history: &mut Vec<EpochPoint>,
    started: Instant,
    rows: usize,
    kept: usize,
    sink: &mut Sink<'_>,
) {
    let trees = booster.trees.len();
    let rows_per_s = (rows * trees) as f64 / started.elapsed().as_secs_f64().max(1e-9);
    let Some(record) = &booster.evaluation_history else { return };
    for tree in 0..record.rows {
        let at =
            |set: usize| record.data.get(tree * record.cols + set).copied().unwrap_or(f64::NAN);
        let point = EpochPoint {
            epoch: history.len() as u32 + 1,
            train_loss: at(0),
            validation_loss: at(1),
            gradient_norm: None,
        };
        history.push(point.clone());
        sink(TrainingEvent::Epoch {
            point,
            validation: Metrics::default(),
            rows_per_s,
            loss_scale: 1.0,
            skipped_steps: 0,
            best: tree + 1 == kept,
            device: None,
        });
    }
}
