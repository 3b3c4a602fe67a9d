//! Gradient descent over ranks: every rank computes its share of each batch, gradients are added up
//! in rank order, and every rank makes the same update.
//!
//! Rank 0 also validates, writes checkpoints and decides when to stop; the others follow. Does not
//! know what a session computes on.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use sha2::{Digest, Sha256};

use super::batches::{Loaded, encoded, encoded_bytes};
use super::checkpoint::{Checkpoint, Progress};
use super::data::{Dataset, Range};
use super::events::{EpochPoint, Sink, TrainingEvent};
use super::{Fitted, TrainError, cancelled};
use crate::backend::{self, Backend, BackendError, Hardware, Pass, Session};
use crate::calibration::{CalibrationMap, binary_probability};
use crate::collective::{Alone, Collective, thread_group};
use crate::loss::{loss_and_gradient, softmax};
use crate::metrics::{Metrics, evaluate};
use crate::model::{Body, outputs};
use crate::network::Network;
use crate::optimiser::{LossScale, State, Update};
use crate::random::{Purpose, Stream};
use crate::spec::{JobSpec, Task};

/// Rows per forward pass of a validation.
const VALIDATION_ROWS: usize = 4_096;
/// Steps in a row that may be skipped before the run has diverged.
const MOST_SKIPPED: u32 = 64;

/// What all ranks share.
struct Run<'a> {
    spec: &'a JobSpec,
    dataset: &'a Dataset,
    network: &'a Network,
    backend: &'a dyn Backend,
    batch_size: usize,
    encoded: Option<Vec<f32>>,
    cancel: &'a AtomicBool,
}

pub(super) fn train_network(
    spec: &JobSpec,
    dataset: &Dataset,
    folder: &Path,
    cancel: &AtomicBool,
    sink: &mut Sink<'_>,
) -> Result<Fitted, TrainError> {
    let outputs = outputs(spec.task, &dataset.target);
    let network = Network::plan(&spec.trainer, &dataset.preprocessing, outputs)
        .ok_or_else(|| TrainError::Trees { why: "trees are no network".to_owned() })?;
    let threads = threads_per_rank(spec);
    let (backend, fallback) = backend::choose(spec.backend, threads)?;
    let batch_size = adapted_batch(spec, backend.rows_that_fit(&network));
    check_memory(spec, dataset, &network, batch_size)?;
    let encoded = encoded(spec, dataset);
    let run =
        Run { spec, dataset, network: &network, backend: &*backend, batch_size, encoded, cancel };
    let (job, data) = (job_hash(spec, batch_size)?, dataset.fingerprint());
    let found = Checkpoint::read(folder, &job, &data, network.parameter_count());
    let resumed_after = found.as_ref().map(|checkpoint| checkpoint.progress.epoch);
    let mut checkpoint = found.unwrap_or_else(|| first_checkpoint(spec, &network, job, data));
    sink(TrainingEvent::Started {
        model: spec.model.clone(),
        trainer: spec.trainer.name().to_owned(),
        hardware: backend.hardware(),
        fallback: fallback.map(|why| why.to_string()),
        rows: dataset.counts,
        parameters: network.parameter_count(),
        batch_size,
        epochs: spec.epochs,
        workers: spec.workers,
        resumed_after,
        restarted: None,
    });
    if !is_over(spec, &checkpoint.progress) {
        run_ranks(&run, &mut checkpoint, folder, sink)?;
    }
    let mut parameters = checkpoint.best;
    fill_unseen(&network, dataset, &mut parameters);
    let hardware = Hardware { free_bytes: None, ..backend.hardware() };
    Ok(Fitted {
        body: Body::Network { network, parameters },
        history: checkpoint.progress.history,
        best_epoch: checkpoint.progress.best_epoch,
        hardware,
    })
}

fn threads_per_rank(spec: &JobSpec) -> usize {
    let available = || std::thread::available_parallelism().map_or(1, usize::from);
    let all = if spec.threads == 0 { available() } else { spec.threads };
    (all / spec.workers).max(1)
}

fn adapted_batch(spec: &JobSpec, fits: Option<usize>) -> usize {
    let fits = fits.unwrap_or(usize::MAX).saturating_mul(spec.workers);
    let rows = spec.batch_size.min(fits);
    (rows / spec.workers).max(1) * spec.workers
}

fn check_memory(
    spec: &JobSpec,
    dataset: &Dataset,
    network: &Network,
    batch: usize,
) -> Result<(), TrainError> {
    let rows = encoded_bytes(spec, dataset).unwrap_or(0)
        + dataset.rows.len()
            * (8 * dataset.preprocessing.numbers() + 4 * network.embeddings.len() + 24);
    // Masters, moments, gradient, best, variables; activations of every step, forward and backward.
    let parameters = network.parameter_count() * 4 * 8 * spec.workers;
    let activations =
        batch.max(VALIDATION_ROWS) * network.widest() * (network.steps.len() + 2) * 4 * 3;
    let needed = rows + parameters + activations;
    if needed > spec.bounds.max_bytes {
        return Err(TrainError::TooLarge { needed, bound: spec.bounds.max_bytes });
    }
    Ok(())
}

/// Threads, backend and bounds may change between an interruption and its continuation.
fn job_hash(spec: &JobSpec, batch_size: usize) -> Result<String, TrainError> {
    let mut same = JobSpec { batch_size, threads: 0, ..spec.clone() };
    same.bounds = Default::default();
    let text = serde_json::to_string(&same)
        .map_err(|error| TrainError::Checkpoint { why: error.to_string() })?;
    let mut hasher = Sha256::new();
    hasher.update(env!("CARGO_PKG_VERSION"));
    hasher.update(text);
    Ok(crate::artifact::hex(&hasher.finalize()))
}

fn first_checkpoint(spec: &JobSpec, network: &Network, job: String, data: String) -> Checkpoint {
    let parameters = network.first_values(spec.seed);
    Checkpoint {
        progress: Progress {
            job,
            data,
            epoch: 0,
            steps: 0,
            updates: 0,
            scale: LossScale::new(spec.precision),
            best_loss: f64::MAX,
            best_epoch: 0,
            history: Vec::new(),
        },
        best: parameters.clone(),
        state: State::new(parameters),
    }
}

fn is_over(spec: &JobSpec, progress: &Progress) -> bool {
    let waited = progress.epoch - progress.best_epoch;
    progress.epoch >= spec.epochs || (spec.patience > 0 && waited >= spec.patience)
}

fn run_ranks(
    run: &Run<'_>,
    checkpoint: &mut Checkpoint,
    folder: &Path,
    sink: &mut Sink<'_>,
) -> Result<(), TrainError> {
    if run.spec.workers == 1 {
        return within(run, || lead(run, Box::new(Alone), checkpoint, folder, sink));
    }
    let mut ranks: Vec<Box<dyn Collective>> = match run.backend.collectives(run.spec.workers) {
        Some(ranks) => ranks?,
        None => thread_group(run.spec.workers)
            .into_iter()
            .map(|rank| Box::new(rank) as Box<dyn Collective>)
            .collect(),
    };
    let first = ranks.remove(0);
    let start = checkpoint.clone();
    let start = &start;
    std::thread::scope(|scope| {
        let spawn = |rank: Box<dyn Collective>| {
            scope.spawn(move || within(run, || follow(run, rank, start)))
        };
        let followers: Vec<_> = ranks.into_iter().map(spawn).collect();
        // Its end of the group goes with it, so that nobody waits for rank 0.
        let mut result = within(run, || lead(run, first, checkpoint, folder, sink));
        for follower in followers {
            let followed = follower.join().unwrap_or_else(|_| {
                let why = "a rank's thread ended".to_owned();
                Err(BackendError::Device { operation: "training", why }.into())
            });
            let is_echo = matches!(&result, Err(TrainError::Backend(BackendError::Collective(_))));
            if let Err(error) = followed
                && (is_echo || result.is_ok())
            {
                result = Err(error);
            }
        }
        result
    })
}

/// A rank's work, where the backend wants it.
fn within(
    run: &Run<'_>,
    work: impl FnOnce() -> Result<(), TrainError> + Send,
) -> Result<(), TrainError> {
    let (mut work, mut result) = (Some(work), Ok(()));
    run.backend.within(&mut || {
        if let Some(work) = work.take() {
            result = work();
        }
    })?;
    result
}

/// A rank that only computes.
fn follow(
    run: &Run<'_>,
    collective: Box<dyn Collective>,
    start: &Checkpoint,
) -> Result<(), TrainError> {
    let collective = &*collective;
    let mut rank = Rank::new(run, collective, start)?;
    for epoch in start.progress.epoch + 1.. {
        rank.pass(epoch)?;
        let mut stop = [0.0];
        collective.all_reduce(&mut stop).map_err(BackendError::from)?;
        if stop[0] > 0.0 {
            break;
        }
    }
    Ok(())
}

/// Rank 0.
fn lead(
    run: &Run<'_>,
    collective: Box<dyn Collective>,
    checkpoint: &mut Checkpoint,
    folder: &Path,
    sink: &mut Sink<'_>,
) -> Result<(), TrainError> {
    let collective = &*collective;
    let mut rank = Rank::new(run, collective, checkpoint)?;
    loop {
        let epoch = checkpoint.progress.epoch + 1;
        let started = Instant::now();
        let sums = rank.pass(epoch)?;
        let seconds = started.elapsed().as_secs_f64().max(1e-9);
        let (loss, validation) = rank.validate(run.dataset.validation())?;
        if !loss.is_finite() {
            return Err(TrainError::Diverged { epoch });
        }
        let progress = &mut checkpoint.progress;
        let point = EpochPoint {
            epoch,
            train_loss: sums.loss / sums.weight.max(f64::MIN_POSITIVE),
            validation_loss: loss,
            gradient_norm: Some(sums.norms / sums.updates.max(1) as f64),
        };
        let best = loss < progress.best_loss;
        progress.epoch = epoch;
        progress.steps = rank.steps;
        progress.updates = rank.updates;
        progress.scale = rank.scale;
        progress.history.push(point.clone());
        checkpoint.state = rank.session.state()?;
        if best {
            (progress.best_loss, progress.best_epoch) = (loss, epoch);
            checkpoint.best.clone_from(&checkpoint.state.parameters);
        }
        sink(TrainingEvent::Epoch {
            point,
            validation,
            rows_per_s: run.dataset.counts.train as f64 / seconds,
            loss_scale: rank.scale.scale,
            skipped_steps: rank.scale.skipped,
            best,
            device: rank.session.device_use(),
        });
        let bytes = checkpoint.write(folder)?;
        sink(TrainingEvent::Checkpoint { epoch, bytes });
        let over = is_over(run.spec, &checkpoint.progress);
        let mut stop = [f32::from(u8::from(over))];
        collective.all_reduce(&mut stop).map_err(BackendError::from)?;
        if over {
            return Ok(());
        }
    }
}

#[derive(Default)]
struct PassSums {
    loss: f64,
    weight: f64,
    norms: f64,
    updates: u64,
}

struct Rank<'a> {
    run: &'a Run<'a>,
    collective: &'a dyn Collective,
    session: Box<dyn Session>,
    steps: u64,
    updates: u64,
    scale: LossScale,
    skipped_in_a_row: u32,
    loaded: Loaded,
}

impl<'a> Rank<'a> {
    fn new(
        run: &'a Run<'a>,
        collective: &'a dyn Collective,
        start: &Checkpoint,
    ) -> Result<Self, TrainError> {
        let spec = run.spec;
        let session = run.backend.session(
            run.network,
            spec.task,
            spec.precision,
            &start.state,
            collective.rank(),
        )?;
        Ok(Self {
            run,
            collective,
            session,
            steps: start.progress.steps,
            updates: start.progress.updates,
            scale: start.progress.scale,
            skipped_in_a_row: 0,
            loaded: Loaded::default(),
        })
    }

    /// One pass over the training rows, in an order drawn for it.
    fn pass(&mut self, epoch: u32) -> Result<PassSums, TrainError> {
        let stream = Stream::new(self.run.spec.seed, Purpose::Shuffle, epoch);
        let order = stream.permutation(self.run.dataset.counts.train);
        let mut sums = PassSums::default();
        for rows in order.chunks(self.run.batch_size) {
            self.step(rows, epoch, &mut sums)?;
        }
        Ok(sums)
    }

    fn step(&mut self, rows: &[u32], epoch: u32, sums: &mut PassSums) -> Result<(), TrainError> {
        if self.collective.ranks() == 1 {
            cancelled(self.run.cancel)?;
        }
        let share = self.run.batch_size / self.collective.ranks();
        let first = (self.collective.rank() * share).min(rows.len());
        let own = &rows[first..(first + share).min(rows.len())];
        let batch = self.loaded.load(
            self.run.dataset,
            self.run.encoded.as_deref(),
            own.iter().map(|row| *row as usize),
        );
        let pass = Pass {
            scale: self.scale.scale,
            seed: self.run.spec.seed,
            step: self.steps as u32,
            first_row: first,
        };
        let loss = self.session.backward(&batch, &pass)?;
        let weight: f64 = batch.weights.iter().map(|weight| f64::from(*weight)).sum();
        let mut extras = [loss as f32, weight as f32, 0.0];
        let is_cancelled = self.run.cancel.load(Ordering::Relaxed);
        extras[2] = f32::from(u8::from(is_cancelled));
        self.session.exchange(self.collective, &mut extras)?;
        if extras[2] > 0.0 {
            return Err(TrainError::Cancelled);
        }
        let (loss, weight) = match self.collective.ranks() {
            1 => (loss, weight),
            _ => (f64::from(extras[0]), f64::from(extras[1])),
        };
        self.steps += 1;
        self.update(weight, epoch, sums)?;
        sums.loss += loss;
        sums.weight += weight;
        Ok(())
    }

    fn update(&mut self, weight: f64, epoch: u32, sums: &mut PassSums) -> Result<(), TrainError> {
        let unscale = 1.0 / (f64::from(self.scale.scale) * weight);
        let norm = self.session.squared_norm()?.sqrt() * unscale;
        if !self.scale.accept(norm.is_finite()) {
            self.skipped_in_a_row += 1;
            if self.skipped_in_a_row > MOST_SKIPPED {
                return Err(TrainError::Diverged { epoch });
            }
            return Ok(());
        }
        self.skipped_in_a_row = 0;
        self.updates += 1;
        let settings = &self.run.spec.optimiser;
        let clip = settings.clip_norm;
        let clipping = if clip > 0.0 && norm > clip { clip / norm } else { 1.0 };
        let factor = (unscale * clipping) as f32;
        self.session.update(&Update::new(settings, self.updates, factor))?;
        sums.norms += norm;
        sums.updates += 1;
        Ok(())
    }

    /// Mean weighted loss and the figures of the rows `range`.
    fn validate(&mut self, range: Range) -> Result<(f64, Metrics), TrainError> {
        let dataset = self.run.dataset;
        let (task, outputs) = (self.run.spec.task, self.run.network.outputs);
        let mut scores = Vec::with_capacity(range.len() * outputs);
        let (mut loss, mut weight) = (0.0, 0.0);
        let (mut logits, mut slopes) = (Vec::new(), Vec::new());
        for first in range.clone().step_by(VALIDATION_ROWS) {
            let rows = first..(first + VALIDATION_ROWS).min(range.end);
            let batch = self.loaded.load(dataset, self.run.encoded.as_deref(), rows);
            self.session.logits(&batch, &mut logits)?;
            slopes.resize(logits.len(), 0.0);
            loss += loss_and_gradient(task, &logits, batch.labels, batch.weights, 1.0, &mut slopes);
            weight += batch.weights.iter().map(|weight| f64::from(*weight)).sum::<f64>();
            for row in logits.chunks_exact(outputs) {
                push_scores(task, row, dataset, &mut scores);
            }
        }
        let metrics = evaluate(task, &scores, &dataset.raw_labels[range], outputs);
        Ok((loss / weight.max(f64::MIN_POSITIVE), metrics))
    }
}

fn push_scores(task: Task, logits: &[f32], dataset: &Dataset, scores: &mut Vec<f64>) {
    let start = scores.len();
    scores.extend(logits.iter().map(|logit| f64::from(*logit)));
    match (task, &dataset.target) {
        (Task::Binary, _) => {
            scores[start] = binary_probability(&CalibrationMap::None, scores[start])
        }
        (Task::Multiclass, _) => softmax(&mut scores[start..]),
        (Task::Regression, crate::model::Target::Number { mean, deviation }) => {
            scores[start] = scores[start] * deviation + mean;
        }
        (Task::Regression, _) => {}
    }
}

/// A bucket that no training row fell into gets the mean of the others, weighted by their rows: the
/// best guess for a category that is met for the first time.
fn fill_unseen(network: &Network, dataset: &Dataset, parameters: &mut [f32]) {
    for (position, table) in network.embeddings.iter().enumerate() {
        let parameter = &network.parameters[*table];
        let (codes, width) = parameter.shape;
        let mut counts = vec![0u64; codes];
        for row in dataset.train() {
            counts[dataset.codes_of(row)[position] as usize] += 1;
        }
        let total: u64 = counts.iter().sum();
        let values = &mut parameters[parameter.range()];
        for unit in 0..width {
            let weighted = counts
                .iter()
                .enumerate()
                .map(|(code, count)| f64::from(values[code * width + unit]) * *count as f64);
            let mean = (weighted.sum::<f64>() / total.max(1) as f64) as f32;
            for code in (0..codes).filter(|code| counts[*code] == 0) {
                values[code * width + unit] = mean;
            }
        }
    }
}
