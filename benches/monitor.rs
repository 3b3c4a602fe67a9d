//! Watching predictions: what the monitors cost per prediction, beside what keeping its features up to
//! date costs per event.
//!
//! Measured: processor time of the fold over epochs of 1,000 predictions of a binary model with 25
//! inputs (21 numbers, 4 names; one of the names a slice), each judged one epoch later: the join of
//! labels, drift windows of 50,000 predictions with five tests of every column, figures in two windows,
//! CBPE and an ADWIN over the errors, the closes of the windows included; the same with the tests
//! of all inputs together; and what it takes to write the fold down and to read it back, which is what a
//! restart costs. The baseline is feature maintenance as in the `maintenance` bench: five aggregates
//! over three windows in the engine, without the view store's writes.
//!
//! Limit: memory traffic of counters; per watched column one bin search and one sample comparison, and
//! one more bin search and a sketch bucket where a slice column tells rows apart.
//!
//! Not measured: reading the log, decoding, writing outcomes and scores.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use falaj_dataflow::{Engine, EpochInput, Options, TopicInput};
use falaj_event::{LogTime, Op, Value};
use falaj_monitor::settings::{
    ColumnKind, Correction, Figure, FigureWindows, InputColumn, MonitorSettings, Test,
};
use falaj_monitor::{
    Actual, HeldOut, JoinRule, Joiner, Label, Monitor, Outcome, Prediction, ReferenceRows,
    ReferenceSet, Task,
};
use harness::Scale;
use harness::measure::processor_time;
use harness::report::{Table, Target};
use harness::workload;
use kit::random::Random;

const NUMBERS: usize = 21;
const NAMES: usize = 4;
const PER_EPOCH: u64 = 1_000;
/// An epoch of 1,000 predictions takes this long, a window holds 50 of them.
const EPOCH_US: u64 = 1_000_000;
const WINDOW_US: u64 = 50 * EPOCH_US;

fn settings(tests: &[&str]) -> MonitorSettings {
    let number = |index| InputColumn { name: format!("n{index}"), kind: ColumnKind::Number };
    let name = |index| InputColumn { name: format!("c{index}"), kind: ColumnKind::Name };
    let figure = |name: &str| Figure { name: name.to_owned(), limit: None };
    let figures = || vec![figure("auc"), figure("log_loss"), figure("accuracy")];
    MonitorSettings {
        pipeline: "bench".to_owned(),
        task: Task::Binary { positive: "true".to_owned() },
        threshold: 0.5,
        inputs: (0..NUMBERS).map(number).chain((0..NAMES).map(name)).collect(),
        columns: (0..NUMBERS + NAMES).collect(),
        slices: vec![NUMBERS],
        window_us: WINDOW_US,
        min_rows: 200,
        tests: tests.iter().filter_map(|name| Test::from_name(name)).collect(),
        correction: Correction::BenjaminiHochberg,
        alpha: 0.01,
        spread: 3.0,
        detectors: vec!["adwin".to_owned()],
        figures: vec![
            FigureWindows { length_us: WINDOW_US, figures: figures() },
            FigureWindows { length_us: 4 * WINDOW_US, figures: figures() },
        ],
        estimate: true,
    }
}

/// One prediction's inputs, score and truth.
fn draw(random: &mut Random) -> (Vec<Value>, f64, bool) {
    let mut uniform = || random.below(1 << 30) as f64 / f64::from(1 << 30);
    let mut inputs: Vec<Value> =
        (0..NUMBERS).map(|index| Value::Float64(uniform() * (index + 1) as f64)).collect();
    let score = uniform();
    let truth = uniform() < score;
    let codes: Vec<u64> = (0..NAMES).map(|_| random.below(6)).collect();
    inputs.extend(codes.into_iter().map(|code| Value::String(format!("name{code}").into())));
    (inputs, score, truth)
}

fn reference(settings: &MonitorSettings) -> Result<Arc<ReferenceSet>> {
    let mut rows = ReferenceRows::new(settings);
    let mut random = Random::new(1);
    for row in 0..20_000 {
        let (inputs, score, truth) = draw(&mut random);
        rows.add(LogTime(row * EPOCH_US / 100), &inputs)?;
        if row % 5 == 0 {
            rows.add_held_out(HeldOut {
                score,
                scores: Arc::from([]),
                predicted: (score >= 0.5).to_string().into(),
                actual: Actual::Class(truth.to_string()),
            });
        }
    }
    Ok(Arc::new(ReferenceSet::from_rows(settings, &rows)?))
}

/// Epochs of predictions, with the labels of those before.
fn epochs(count: u64) -> Vec<(LogTime, Vec<Prediction>, Vec<Label>)> {
    let mut random = Random::new(2);
    let mut before = Vec::new();
    let mut all = Vec::new();
    for epoch in 0..count {
        let t = LogTime((1_000_000 + epoch) * EPOCH_US);
        let (mut predictions, mut labels) = (Vec::new(), Vec::new());
        for row in 0..PER_EPOCH {
            let (inputs, score, truth) = draw(&mut random);
            let id: Arc<str> = format!("p{epoch}-{row}").into();
            let key: Arc<[u8]> = id.as_bytes().into();
            predictions.push(Prediction {
                id: Arc::clone(&id),
                key: Arc::clone(&key),
                t,
                version: 1,
                served: true,
                score,
                scores: Arc::from([]),
                predicted: if score >= 0.5 { "true".into() } else { "false".into() },
                inputs: inputs.into(),
                keys: Arc::from([]),
            });
            labels.push(Label {
                name: Arc::clone(&key),
                op: Op::Upsert,
                prediction_id: Some(id),
                key,
                observed_at: t,
                row: Arc::from([Value::Bool(truth)]),
            });
        }
        all.push((t, predictions, std::mem::replace(&mut before, labels)));
    }
    all
}

/// What a fold over many epochs came to.
struct Watched {
    /// Seconds per prediction.
    cost: f64,
    /// Rows of scores.
    rows: usize,
    /// Seconds to write the fold down and read it back, and the bytes between.
    restart: (f64, usize),
}

fn watch(tests: &[&str], count: u64) -> Result<Watched> {
    let settings = settings(tests);
    let rule = JoinRule { within_us: EPOCH_US, delay_us: 10 * EPOCH_US };
    let mut joiner = Joiner::new(rule);
    let mut monitor = Monitor::new(settings.clone());
    let reference = reference(&settings)?;
    monitor.set_reference(1, Arc::clone(&reference));
    let all = epochs(count);
    let mut rows = 0;
    let before = processor_time()?;
    for (t, predictions, labels) in all {
        let joined = joiner.epoch(t, predictions.iter().cloned(), labels);
        let outcomes: Vec<Outcome> = joined
            .iter()
            .map(|joined| {
                let truth = joined.label.row.first().map(|value| *value == Value::Bool(true));
                let actual = truth.map(|truth| Actual::Class(truth.to_string()));
                Outcome::of(&settings.task, actual, joined)
            })
            .collect();
        rows += monitor.epoch(t, &predictions, &outcomes).rows.len();
    }
    let spent = (processor_time()? - before).as_secs_f64();
    ensure!(count * EPOCH_US <= WINDOW_US || rows > 0, "no window was scored");
    let restart = written_and_read((&joiner, rule), &monitor, (settings, reference))?;
    Ok(Watched { cost: spent / (count * PER_EPOCH) as f64, rows, restart })
}

/// Seconds to write a fold down and read it back, and the bytes between.
fn written_and_read(
    (joiner, rule): (&Joiner, JoinRule),
    monitor: &Monitor,
    (settings, reference): (MonitorSettings, Arc<ReferenceSet>),
) -> Result<(f64, usize)> {
    let before = processor_time()?;
    let mut bytes = Vec::new();
    joiner.save(&mut bytes);
    monitor.save(&mut bytes);
    let mut left = bytes.as_slice();
    let again = Joiner::restore(rule, &mut left).context("the join is not read back")?;
    let other = Monitor::restore(settings, [(1, reference)].into(), &mut left);
    let other = other.context("the monitors are not read back")?;
    let seconds = (processor_time()? - before).as_secs_f64();
    let mut copy = Vec::new();
    again.save(&mut copy);
    other.save(&mut copy);
    ensure!(copy == bytes, "what was read back is something else");
    Ok((seconds, bytes.len()))
}

/// Seconds per event of the engine, five aggregates over three windows.
fn maintain(scale: Scale) -> Result<f64> {
    let (topic, plan) = workload::meter_plan()?;
    let meters = scale.size(30_000, 200);
    let (warm, measured) =
        ((18 * meters).div_ceil(PER_EPOCH), (4 * meters).div_ceil(PER_EPOCH).max(2));
    let spacing_us = 25 * 3_600_000_000 / (warm * PER_EPOCH);
    let engine = Engine::start(Options {
        workers: 1,
        checkpoint_every: 256,
        max_epochs_in_flight: 8,
        plans: vec![plan],
        resume: None,
    })?;
    let input = |epoch: u64| -> Result<EpochInput> {
        let first = epoch * PER_EPOCH;
        let batch = workload::readings(&topic, first, PER_EPOCH, meters, spacing_us)?;
        let t = LogTime(workload::START_US + (first + PER_EPOCH) * spacing_us);
        let topic = TopicInput {
            topic: Arc::clone(&topic),
            partition: 0,
            first_offset: first,
            ops: vec![Op::Insert; batch.num_rows()],
            batch,
        };
        Ok(EpochInput { epoch, t, topics: vec![topic] })
    };
    let step = |given: EpochInput| -> Result<()> {
        engine.submit(given)?;
        engine.take(Duration::from_secs(120))?.context("an epoch takes too long")?;
        Ok(())
    };
    for epoch in 0..warm {
        step(input(epoch)?)?;
    }
    let inputs = (warm..warm + measured).map(input).collect::<Result<Vec<_>>>()?;
    let before = processor_time()?;
    inputs.into_iter().try_for_each(step)?;
    let spent = (processor_time()? - before).as_secs_f64();
    engine.stop()?;
    Ok(spent / (measured * PER_EPOCH) as f64)
}

fn main() -> Result<()> {
    let scale = Scale::from_environment();
    let mut table = Table::new("monitor: a model of 25 inputs, watched", scale);
    let count = scale.size(210, 60);
    let maintained = maintain(scale)?;
    let five = ["psi", "ks", "chi_square", "missing_rate", "range"];
    let Watched { cost, rows, restart } = watch(&five, count)?;
    let unit = "ns";
    let ns = |seconds: f64| seconds * 1e9;
    let name = "per judged prediction, against an event's feature maintenance";
    table.ratio(name, ns(cost), ns(maintained), unit, Target::Stated);
    let alone = watch(&[], count)?.cost;
    table.ratio("of which joins, counters and figures", ns(alone), ns(cost), unit, Target::Stated);
    let all = watch(&[&five[..], &["domain_classifier", "reconstruction"]].concat(), count)?.cost;
    table.ratio("with the tests of all inputs together", ns(all), ns(cost), unit, Target::Stated);
    table.note(format!(
        "{} predictions, windows of {}, {rows} scores; feature maintenance: five aggregates over \
         three windows, engine alone",
        count * PER_EPOCH,
        PER_EPOCH * WINDOW_US / EPOCH_US,
    ));
    table.note(format!(
        "the fold is written down and read back in {:.0} ms ({:.1} MiB), whatever the log holds; folding \
         a million predictions and their labels anew takes {:.1} s and their decoding",
        1e3 * restart.0,
        restart.1 as f64 / f64::from(1 << 20),
        1e6 * cost,
    ));
    table.note(format!("watching costs {:.0} % of feature maintenance", 100.0 * cost / maintained));
    table.print();
    Ok(())
}
