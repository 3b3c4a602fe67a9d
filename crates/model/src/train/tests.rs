//! Runs over small made-up tables: they learn, they repeat, they resume.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arrow::array::{ArrayRef, BooleanArray, Float64Array, Int64Array, StringArray};
use arrow::record_batch::RecordBatch;

use super::*;
use crate::artifact::manifest::Provenance;
use crate::artifact::{Artifact, hex};
use crate::random::{Purpose, Stream};
use crate::spec::{
    BackendChoice, Calibration, ClassWeights, Feature, FeatureKind, Precision, Task,
};

const ROWS: usize = 2_000;

/// Rows in which `fraud` depends on the amount, the country and the night; the amount is now and then
/// missing.
pub(crate) fn payments(rows: usize, seed: u64) -> RecordBatch {
    let stream = Stream::new(seed, Purpose::Shuffle, 77);
    let uniform = |row: usize, column: u64| f64::from(stream.uniform(row as u64 * 8 + column));
    let countries = ["AE", "BH", "KW", "OM", "SA"];
    let mut amounts = Vec::new();
    let (mut names, mut nights, mut ages) = (Vec::new(), Vec::new(), Vec::new());
    let (mut frauds, mut levels, mut losses) = (Vec::new(), Vec::new(), Vec::new());
    for row in 0..rows {
        let amount = uniform(row, 0) * 100.0;
        let country = (uniform(row, 1) * 5.0) as usize;
        let night = uniform(row, 2) < 0.3;
        let age = (uniform(row, 3) * 60.0) as i64;
        let logit = (amount - 50.0) / 10.0
            + [0.0, 2.0, -2.0, 1.0, -1.0][country]
            + if night { 2.0 } else { -1.0 };
        frauds.push(uniform(row, 4) < 1.0 / (1.0 + (-logit).exp()));
        levels.push(["low", "middle", "high"][(logit > -2.0) as usize + (logit > 2.0) as usize]);
        losses.push(3.0 * logit + 100.0 + uniform(row, 5));
        amounts.push((uniform(row, 6) >= 0.05).then_some(amount));
        names.push(countries[country]);
        nights.push(night);
        ages.push(age);
    }
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("amount", Arc::new(Float64Array::from(amounts))),
        ("country", Arc::new(StringArray::from(names))),
        ("night", Arc::new(BooleanArray::from(nights))),
        ("age", Arc::new(Int64Array::from(ages))),
        ("fraud", Arc::new(BooleanArray::from(frauds))),
        ("level", Arc::new(StringArray::from(levels))),
        ("loss", Arc::new(Float64Array::from(losses))),
    ];
    RecordBatch::try_from_iter(columns).expect("a batch")
}

pub(crate) fn job(task: Task, trainer: Trainer) -> JobSpec {
    let label = match task {
        Task::Binary => "fraud",
        Task::Multiclass => "level",
        Task::Regression => "loss",
    };
    let features = vec![
        Feature::new("amount", FeatureKind::Numeric),
        Feature::new("country", FeatureKind::Categorical),
        Feature::new("night", FeatureKind::Boolean),
        Feature::new("age", FeatureKind::Numeric),
    ];
    let mut job = JobSpec::new("m", task, label, features, trainer);
    job.backend = BackendChoice::Cpu;
    job.epochs = 12;
    job.batch_size = 64;
    job.optimiser.learning_rate = 5e-3;
    job
}

fn run(job: &JobSpec) -> Result<(Trained, Vec<TrainingEvent>), TrainError> {
    let folder = tempfile::tempdir().expect("a folder");
    let mut events = Vec::new();
    let rows = [payments(ROWS, 1)];
    let never = AtomicBool::new(false);
    let trained = train(job, &rows, folder.path(), &never, &mut |event| events.push(event))?;
    Ok((trained, events))
}

fn bytes(job: &JobSpec, trained: Trained) -> Vec<u8> {
    Artifact::new(job, trained, Provenance::default()).expect("an artifact").to_bytes()
}

fn mlp() -> Trainer {
    Trainer::Mlp { hidden: vec![16, 8], dropout: 0.1 }
}

fn resnet() -> Trainer {
    Trainer::Resnet { width: 16, blocks: 2, expansion: 2, dropout: 0.1, bins: 8 }
}

#[test]
fn every_trainer_learns_every_task() {
    for trainer in [Trainer::Linear {}, mlp(), resnet(), Trainer::trees()] {
        let binary = run(&job(Task::Binary, trainer.clone())).expect("a model").0.report.test;
        assert!(binary.get("auc").expect("auc") > 0.9, "{trainer:?} {binary:?}");
        let several = run(&job(Task::Multiclass, trainer.clone())).expect("a model").0.report.test;
        let least = if matches!(trainer, Trainer::Linear {}) { 0.75 } else { 0.85 };
        assert!(several.get("accuracy").expect("accuracy") > least, "{trainer:?} {several:?}");
        let number = run(&job(Task::Regression, trainer.clone())).expect("a model").0.report.test;
        assert!(number.get("r2").expect("r2") > 0.85, "{trainer:?} {number:?}");
    }
}

#[test]
fn events_tell_the_run() {
    let (trained, events) = run(&job(Task::Binary, mlp())).expect("a model");
    assert!(matches!(&events[0], TrainingEvent::Started { rows, parameters, hardware, .. }
            if rows.train == 1_400 && rows.test == 300 && *parameters > 100 && hardware.backend == "cpu"));
    let passes = events.iter().filter(|event| matches!(event, TrainingEvent::Epoch { .. })).count();
    assert_eq!(passes, trained.report.history.len());
    assert!(matches!(events.last(), Some(TrainingEvent::Finished { .. })));
    for event in &events {
        let text = serde_json::to_string(event).expect("JSON");
        assert_eq!(&serde_json::from_str::<TrainingEvent>(&text).expect("an event"), event);
    }
    assert!(trained.report.history.last().expect("a pass").train_loss < 0.4);
    assert_eq!(trained.report.reference[0].quantiles.len(), 101);
}

#[test]
fn an_interrupted_run_ends_in_the_same_bytes() {
    for trainer in [mlp(), resnet()] {
        let job = job(Task::Binary, trainer);
        let whole = bytes(&job, run(&job).expect("a model").0);
        let folder = tempfile::tempdir().expect("a folder");
        let rows = [payments(ROWS, 1)];
        let stop = AtomicBool::new(false);
        let mut until_fifth = |event: TrainingEvent| {
            if matches!(event, TrainingEvent::Checkpoint { epoch: 5, .. }) {
                stop.store(true, Ordering::Relaxed);
            }
        };
        let cut = train(&job, &rows, folder.path(), &stop, &mut until_fifth);
        assert_eq!(cut, Err(TrainError::Cancelled));
        let mut resumed = None;
        let again = train(&job, &rows, folder.path(), &AtomicBool::new(false), &mut |event| {
            if let TrainingEvent::Started { resumed_after, .. } = event {
                resumed = resumed_after;
            }
        });
        assert_eq!(resumed, Some(5));
        assert!(bytes(&job, again.expect("a model")) == whole);
        assert!(std::fs::read_dir(folder.path()).expect("a folder").next().is_none());
    }
}

#[test]
fn trees_that_were_interrupted_are_grown_anew_and_say_so() {
    let job = job(Task::Binary, Trainer::trees());
    let whole = bytes(&job, run(&job).expect("a model").0);
    let folder = tempfile::tempdir().expect("a folder");
    let rows = [payments(ROWS, 1)];
    let told = |stop: &AtomicBool| {
        let mut why = None;
        let trained = train(&job, &rows, folder.path(), stop, &mut |event| {
            if let TrainingEvent::Started { restarted, resumed_after, .. } = event {
                assert_eq!(resumed_after, None);
                why = restarted;
            }
        });
        (trained, why)
    };
    assert_eq!(told(&AtomicBool::new(true)), (Err(TrainError::Cancelled), None));
    let (again, why) = told(&AtomicBool::new(false));
    assert!(why.is_some_and(|why| why.contains("grown anew")));
    assert!(bytes(&job, again.expect("a model")) == whole);
    assert!(std::fs::read_dir(folder.path()).expect("a folder").next().is_none());
}

#[test]
fn a_damaged_or_foreign_checkpoint_starts_the_run_anew() {
    let job = job(Task::Binary, Trainer::Linear {});
    let whole = bytes(&job, run(&job).expect("a model").0);
    for damage in [&b"not a checkpoint"[..], &[0xff; 64]] {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join(checkpoint::FILE), damage).expect("a file");
        let rows = [payments(ROWS, 1)];
        let trained = train(&job, &rows, folder.path(), &AtomicBool::new(false), &mut |_| {});
        assert!(bytes(&job, trained.expect("a model")) == whole);
    }
}

#[test]
fn bytes_do_not_depend_on_the_number_of_threads() {
    for trainer in [Trainer::Mlp { hidden: vec![96, 64], dropout: 0.1 }, resnet(), Trainer::trees()]
    {
        let mut job = job(Task::Binary, trainer);
        (job.epochs, job.batch_size) = (2, 512);
        job.threads = 1;
        let one = bytes(&job, run(&job).expect("a model").0);
        for threads in [2, 5] {
            job.threads = threads;
            assert!(bytes(&job, run(&job).expect("a model").0) == one, "{threads} threads");
        }
    }
}

/// Run by the test below in processes of their own, where candle reads `RAYON_NUM_THREADS`.
#[test]
fn child_trains_and_prints_its_id() {
    if std::env::var_os("FALAJ_MODEL_CHILD").is_none() {
        return;
    }
    let mut job = job(Task::Binary, Trainer::Mlp { hidden: vec![96, 64], dropout: 0.0 });
    (job.epochs, job.batch_size, job.threads) = (2, 512, 3);
    let (trained, _) = run(&job).expect("a model");
    let artifact = Artifact::new(&job, trained, Provenance::default()).expect("an artifact");
    println!("id={}", artifact.id());
}

#[test]
fn bytes_do_not_depend_on_the_process() {
    let id = |threads: &str| {
        let output = std::process::Command::new(std::env::current_exe().expect("this test"))
            .args(["--exact", "train::tests::child_trains_and_prints_its_id", "--nocapture"])
            .env("FALAJ_MODEL_CHILD", "1")
            .env("RAYON_NUM_THREADS", threads)
            .output()
            .expect("a child");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        text.split("id=").nth(1).expect("an id").get(..64).expect("64 digits").to_owned()
    };
    let one = id("1");
    assert_eq!(id("4"), one);
    assert_eq!(id("7"), one);
}

#[test]
fn ranks_with_shares_equal_one_rank_with_the_batch() {
    for trainer in [Trainer::Linear {}, Trainer::Mlp { hidden: vec![16], dropout: 0.2 }, resnet()] {
        let mut job = job(Task::Binary, trainer);
        // 1400 training rows: the last batch of 96 is a partial one, of which some ranks get nothing.
        (job.epochs, job.batch_size) = (2, 96);
        let parameters = |trained: Trained| match trained.model.body {
            Body::Network { parameters, .. } => parameters,
            _ => Vec::new(),
        };
        let one = parameters(run(&job).expect("a model").0);
        for workers in [2, 3, 4] {
            job.workers = workers;
            let several = parameters(run(&job).expect("a model").0);
            let furthest = one
                .iter()
                .zip(&several)
                .map(|(a, b)| f64::from((a - b).abs() / a.abs().max(1.0)))
                .fold(0.0, f64::max);
            assert!(!one.is_empty() && furthest <= 1e-6, "{workers} ranks: {furthest:e}");
        }
    }
}

#[test]
fn ranks_can_be_cancelled() {
    let mut job = job(Task::Binary, mlp());
    job.workers = 2;
    let folder = tempfile::tempdir().expect("a folder");
    let cancelled =
        train(&job, &[payments(ROWS, 1)], folder.path(), &AtomicBool::new(true), &mut |_| {});
    assert_eq!(cancelled, Err(TrainError::Cancelled));
}

#[test]
fn half_precision_learns_and_reports_its_scale() {
    for precision in [Precision::Bf16, Precision::F16] {
        for trainer in [mlp(), resnet()] {
            let mut job = job(Task::Binary, trainer);
            (job.precision, job.epochs) = (precision, 6);
            let (trained, events) = run(&job).expect("a model");
            let auc = trained.report.test.get("auc").expect("auc");
            assert!(auc > 0.9, "{precision:?} {auc}");
            let scale = events.iter().find_map(|event| match event {
                TrainingEvent::Epoch { loss_scale, .. } => Some(*loss_scale),
                _ => None,
            });
            let expected = if precision == Precision::F16 { 1024.0..=131_072.0 } else { 1.0..=1.0 };
            assert!(expected.contains(&scale.expect("a scale")), "{scale:?}");
        }
    }
}

#[test]
fn overflowing_steps_are_skipped_and_counted() {
    let mut job = job(Task::Regression, mlp());
    // Errors of a few deviations, times 65536 and a batch of them, overflow float16.
    (job.precision, job.epochs, job.batch_size) = (Precision::F16, 2, 1_024);
    let (trained, events) = run(&job).expect("a model");
    let skipped = events.iter().filter_map(|event| match event {
        TrainingEvent::Epoch { skipped_steps, .. } => Some(*skipped_steps),
        _ => None,
    });
    assert!(skipped.max().expect("passes") > 0);
    assert!(trained.report.test.get("rmse").is_some());
}

#[test]
fn a_run_that_diverges_says_so() {
    let mut job = job(Task::Regression, Trainer::Linear {});
    (job.optimiser.learning_rate, job.optimiser.clip_norm) = (1e38, 0.0);
    assert!(matches!(run(&job), Err(TrainError::Diverged { .. })));
}

#[test]
fn weights_and_calibration_do_what_they_say() {
    let mut job = job(Task::Binary, Trainer::Linear {});
    job.class_weights = ClassWeights::Given(vec![1.0, 20.0]);
    let weighted = run(&job).expect("a model").0.report;
    job.class_weights = ClassWeights::None;
    let plain = run(&job).expect("a model").0.report;
    assert!(weighted.test.get("recall") > plain.test.get("recall"));
    job.class_weights = ClassWeights::Given(vec![1.0, 20.0]);
    for calibration in [Calibration::Isotonic, Calibration::Temperature] {
        job.calibration = calibration;
        let calibrated = run(&job).expect("a model").0.report;
        let loss = |report: &Report| report.validation.get("log_loss").expect("a loss");
        assert!(loss(&calibrated) < loss(&weighted), "{calibration:?}");
    }
}

#[test]
fn bounds_and_bad_rows_are_errors_that_name_the_place() {
    let mut job = job(Task::Binary, Trainer::Linear {});
    job.bounds.max_rows = 10;
    assert_eq!(run(&job).err(), Some(TrainError::TooManyRows { rows: ROWS, bound: 10 }));
    job.bounds.max_rows = 10_000;
    job.bounds.max_bytes = 1_000;
    assert!(matches!(run(&job), Err(TrainError::TooLarge { .. })));
    job.bounds = Default::default();
    job.label = "country".to_owned();
    assert!(matches!(run(&job), Err(TrainError::Spec(_))));
    job.label = "nothing".to_owned();
    let error = run(&job).expect_err("no such column").to_string();
    assert!(error.contains("`nothing`") && error.contains("amount, country"), "{error}");
    job.label = "level".to_owned();
    assert!(matches!(run(&job), Err(TrainError::Label { .. })));
    let amounts: ArrayRef = Arc::new(Float64Array::from(vec![1.0, 2.0, f64::INFINITY, 4.0]));
    let labels: ArrayRef = Arc::new(BooleanArray::from(vec![true, false, true, false]));
    let batch = RecordBatch::try_from_iter([("amount", amounts), ("fraud", labels)]).expect("rows");
    job.label = "fraud".to_owned();
    job.features.truncate(1);
    let folder = tempfile::tempdir().expect("a folder");
    let error = train(&job, &[batch], folder.path(), &AtomicBool::new(false), &mut |_| {});
    assert!(error.expect_err("infinite").to_string().contains("amount"));
}

#[test]
fn rows_after_the_training_rows_do_not_touch_the_preprocessing() {
    let job = job(Task::Binary, Trainer::Linear {});
    let never = AtomicBool::new(false);
    let folder = tempfile::tempdir().expect("a folder");
    let rows = payments(ROWS, 1);
    let later = payments(ROWS, 2);
    let mixed = [rows.slice(0, 1_400), later.slice(1_400, 600)];
    let one = train(&job, &[rows], folder.path(), &never, &mut |_| {}).expect("a model");
    let other = train(&job, &mixed, folder.path(), &never, &mut |_| {}).expect("a model");
    assert_eq!(one.model.preprocessing, other.model.preprocessing);
    assert_ne!(one.report.validation, other.report.validation);
    assert_eq!(hex(&[0, 255]), "00ff");
}
