//! What is known of a trained version before it goes further: figures on the test rows, beside the
//! champion's on the same rows, per slice, its latency and what it would have been worth.
//!
//! Measures; judges nothing (see `falaj_lifecycle::gates`).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use arrow::record_batch::RecordBatch;
use falaj_definitions::catalog::Catalog;
use falaj_definitions::pipelines::{InputKind, Pipeline, Task};
use falaj_event::cells::Cells;
use falaj_event::hash::domain_hash;
use falaj_event::{ColumnType, LogTime, Value};
use falaj_lifecycle::Evidence;
use falaj_lifecycle::gates::{ChampionEvidence, SliceEvidence};
use falaj_model::metrics;
use falaj_model::preprocess::category_text;
use falaj_model::table::{Input, Table, TableColumn};
use falaj_monitor::Actual;
use falaj_monitor::metrics::{JudgedRow, measure, names};

use super::kpi::KpiMeter;
use super::predictor::Predictor;
use super::rows::{batch, moment, text};
use super::rules::LABEL;
use super::serving::{Loaded, Scored, label, score};

/// Rows that are scored one by one to measure the latency.
const LATENCY_ROWS: usize = 2_000;
/// Most values of a column that figures are given for.
const SLICE_VALUES: usize = 50;

/// Scores a made-up row, so that the first request finds everything in place; fails where the version
/// does not fit the pipeline's signature.
///
/// # Errors
/// When the version cannot predict for this pipeline.
pub fn warm(predictor: &Predictor, loaded: &Loaded) -> Result<()> {
    let pipeline = &predictor.pipeline;
    let values: Vec<Value> = pipeline
        .signature
        .inputs
        .iter()
        .map(|input| match (&input.column_type, input.kind) {
            (ColumnType::String, _) => Value::String("".into()),
            (ColumnType::Bool, _) | (_, InputKind::Boolean) => Value::Bool(false),
            (ColumnType::Float32 | ColumnType::Float64, _) => Value::Float64(0.0),
            (ColumnType::Decimal { scale, .. }, _) => Value::Decimal(0, *scale),
            _ => Value::Int(0),
        })
        .collect();
    let mut scratch = loaded.scorer.scratch();
    let threshold = pipeline.serving.threshold;
    score(loaded, predictor.names(), &values, threshold, &mut scratch)
        .map(|_| ())
        .map_err(anyhow::Error::msg)
        .with_context(|| {
            format!("version {} does not predict for {}", loaded.version, pipeline.name)
        })
}

/// The test rows of a training set.
pub struct TestRows<'a> {
    batches: &'a [RecordBatch],
    /// Row numbers over all batches.
    rows: Vec<usize>,
}

impl<'a> TestRows<'a> {
    /// The last `count` rows that have a label.
    ///
    /// # Errors
    /// When the training set has no label column.
    pub fn new(batches: &'a [RecordBatch], count: usize) -> Result<Self> {
        let table = Table::new(batches);
        let labels = table.column(LABEL)?;
        let labelled: Vec<usize> =
            (0..table.rows()).filter(|row| labels.value(*row) != Input::Missing).collect();
        let rows = labelled[labelled.len().saturating_sub(count)..].to_vec();
        Ok(Self { batches, rows })
    }

    /// Names these rows: their places, labels and inputs.
    fn digest(&self, columns: &[TableColumn], labels: &TableColumn) -> String {
        let mut parts: Vec<Vec<u8>> = Vec::with_capacity(self.rows.len());
        for row in &self.rows {
            let mut bytes = row.to_le_bytes().to_vec();
            for column in columns.iter().chain([labels]) {
                bytes.extend_from_slice(format!("{:?}\u{0}", column.value(*row)).as_bytes());
            }
            parts.push(bytes);
        }
        let parts: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
        falaj_event::ids::hex(&domain_hash(b"falaj.test-rows.v1", &parts).0)
    }
}

/// One version's answers on the test rows.
struct Answers {
    scores: Vec<f64>,
    labels: Vec<f64>,
    scored: Vec<Scored>,
    outputs: usize,
    latency_us_p99: f64,
}

/// Everything that the gates ask for.
///
/// # Errors
/// When a row cannot be scored, or the KPI cannot be computed.
pub fn evidence(
    pipeline: &Pipeline,
    catalog: &Catalog,
    candidate: &Loaded,
    champion: Option<&Loaded>,
    test: &TestRows<'_>,
) -> Result<Evidence> {
    let table = Table::new(test.batches);
    let columns = inputs(pipeline, &table)?;
    let labels = table.column(LABEL)?;
    let answers = answer(pipeline, candidate, test, &columns, &labels)?;
    let task = model_task(pipeline.task);
    let threshold = pipeline.serving.threshold;
    let figures = |answers: &Answers, loaded: &Loaded| {
        let Answers { scores, labels, outputs, .. } = answers;
        let mut all = metrics::evaluate_at(task, scores, labels, *outputs, threshold).0;
        add_watched(pipeline, loaded, answers, &mut all);
        all
    };
    let mut slices = Vec::new();
    for name in slice_columns(pipeline) {
        let column = table.column(name)?;
        let values: Vec<Option<String>> =
            test.rows.iter().map(|row| category_text(&column.value(*row))).collect();
        slices.extend(
            metrics::by_slice(
                task,
                name,
                &values,
                &answers.scores,
                &answers.labels,
                (answers.outputs, threshold),
                SLICE_VALUES,
            )
            .into_iter()
            .map(|slice| SliceEvidence {
                column: slice.column,
                value: slice.value.unwrap_or_else(|| "NULL".to_owned()),
                support: slice.metrics.get("rows").unwrap_or(0.0) as u64,
                metrics: slice.metrics.0,
            }),
        );
    }
    let digest = test.digest(&columns, &labels);
    let champion = champion
        .map(|loaded| -> Result<ChampionEvidence> {
            let answers = answer(pipeline, loaded, test, &columns, &labels)?;
            Ok(ChampionEvidence {
                version: loaded.version,
                rows_digest: digest.clone(),
                metrics: figures(&answers, loaded),
                kpi: kpi(pipeline, catalog, test, &answers)?,
            })
        })
        .transpose()?;
    let metrics = figures(&answers, candidate);
    Ok(Evidence {
        rows: test.rows.len() as u64,
        rows_digest: digest,
        ece: metrics.get("calibration_error").copied(),
        metrics,
        champion,
        slices,
        latency_us: BTreeMap::from([("p99".to_owned(), answers.latency_us_p99)]),
        kpi: kpi(pipeline, catalog, test, &answers)?,
    })
}

/// Adds the figures that predictions are watched by and the trainer does not compute.
fn add_watched(
    pipeline: &Pipeline,
    loaded: &Loaded,
    answers: &Answers,
    all: &mut BTreeMap<String, f64>,
) {
    let classes = loaded.classes();
    let task = super::outcomes::judged_task(pipeline, classes);
    let actual = |label: f64| match pipeline.task {
        Task::Regression => Actual::Number(label),
        _ => Actual::Class(classes.get(label as usize).cloned().unwrap_or_default()),
    };
    let rows: Vec<JudgedRow> = answers
        .scored
        .iter()
        .zip(&answers.labels)
        .map(|(scored, label)| JudgedRow {
            score: scored.score,
            scores: scored.scores.as_slice().into(),
            predicted: scored.predicted.as_deref().unwrap_or_default().into(),
            actual: Arc::new(actual(*label)),
        })
        .collect();
    for name in names(&task).iter().filter(|name| !all.contains_key(**name)).collect::<Vec<_>>() {
        if let Some(value) = measure(&task, name, &rows).filter(|value| value.is_finite()) {
            all.insert((*name).to_owned(), value);
        }
    }
}

fn slice_columns(pipeline: &Pipeline) -> Vec<&String> {
    let mut names: Vec<&String> = pipeline.gates.slices.iter().map(|gate| &gate.column).collect();
    names.extend(&pipeline.monitors.slices);
    names.sort();
    names.dedup();
    names
}

fn model_task(task: Task) -> falaj_model::spec::Task {
    match task {
        Task::Binary => falaj_model::spec::Task::Binary,
        Task::Multiclass => falaj_model::spec::Task::Multiclass,
        Task::Regression => falaj_model::spec::Task::Regression,
    }
}

fn inputs(pipeline: &Pipeline, table: &Table<'_>) -> Result<Vec<TableColumn>> {
    let names = pipeline.signature.inputs.iter().map(|input| &input.name);
    names.map(|name| Ok(table.column(name)?)).collect()
}

fn answer(
    pipeline: &Pipeline,
    loaded: &Loaded,
    test: &TestRows<'_>,
    columns: &[TableColumn],
    labels: &TableColumn,
) -> Result<Answers> {
    let classes = loaded.classes();
    let outputs = loaded.outputs();
    let mut scratch = loaded.scorer.scratch();
    let mut answers = Answers {
        scores: Vec::with_capacity(test.rows.len() * outputs),
        labels: Vec::with_capacity(test.rows.len()),
        scored: Vec::with_capacity(test.rows.len()),
        outputs,
        latency_us_p99: 0.0,
    };
    let mut latencies: Vec<Duration> = Vec::with_capacity(LATENCY_ROWS);
    for row in &test.rows {
        let values: Vec<Input<'_>> = columns.iter().map(|column| column.value(*row)).collect();
        let mut scores = vec![0.0; loaded.scorer.outputs()];
        let started = Instant::now();
        loaded
            .scorer
            .score_into(&values, &mut scratch, &mut scores)
            .with_context(|| format!("test row {row}, version {}", loaded.version))?;
        if latencies.len() < LATENCY_ROWS {
            latencies.push(started.elapsed());
        }
        let Some(truth) = truth(pipeline.task, classes, labels.value(*row)) else {
            bail!(
                "test row {row}: version {} knows no class {:?}",
                loaded.version,
                labels.value(*row)
            );
        };
        let scores = loaded.arrange(scores);
        answers.labels.push(truth);
        answers.scores.extend_from_slice(&scores);
        answers.scored.push(label(classes, scores, pipeline.serving.threshold));
    }
    latencies.sort_unstable();
    let at = (latencies.len() * 99).div_ceil(100).saturating_sub(1);
    answers.latency_us_p99 =
        latencies.get(at).map_or(0.0, |latency| latency.as_nanos() as f64 / 1e3);
    Ok(answers)
}

/// The label as the metrics take it: the class's number, or the number.
fn truth(task: Task, classes: &[String], label: Input<'_>) -> Option<f64> {
    match (task, label) {
        (Task::Regression, Input::Number(number)) => Some(number),
        (Task::Regression, Input::Integer(number)) => Some(number as f64),
        (Task::Regression, _) => None,
        (_, label) => {
            let class = category_text(&label)?;
            classes.iter().position(|known| *known == class).map(|place| place as f64)
        }
    }
}

/// What the test rows' predictions were worth, by the very view that follows the served ones.
fn kpi(
    pipeline: &Pipeline,
    catalog: &Catalog,
    test: &TestRows<'_>,
    answers: &Answers,
) -> Result<Option<f64>> {
    let Some(mut meter) = KpiMeter::new(pipeline, catalog)? else { return Ok(None) };
    let rows = judged(pipeline, meter.schema(), test, answers)?;
    meter.measure(&rows)
}

/// The test rows as rows of the outcomes topic.
fn judged(
    pipeline: &Pipeline,
    schema: &falaj_event::TopicSchema,
    test: &TestRows<'_>,
    answers: &Answers,
) -> Result<RecordBatch> {
    let starts: Vec<usize> = test
        .batches
        .iter()
        .scan(0, |next, batch| {
            let start = *next;
            *next += batch.num_rows();
            Some(start)
        })
        .collect();
    let mut rows = Vec::with_capacity(test.rows.len());
    for (place, row) in test.rows.iter().enumerate() {
        let at = starts.partition_point(|start| start <= row).saturating_sub(1);
        let (source, within) = (&test.batches[at], row - starts[at]);
        let scored = &answers.scored[place];
        let actual = source
            .column_by_name(&pipeline.label.column)
            .map(|column| Cells::new(column.as_ref()).map(|cells| cells.value(within)))
            .transpose()?
            .unwrap_or(Value::Null);
        let mut values = vec![
            ("prediction_id", text(format!("{row}"))),
            ("model", text("candidate")),
            ("t", moment(LogTime(1))),
            ("predicted_at", moment(LogTime(1))),
            ("served", Value::Bool(true)),
            ("actual", actual.clone()),
        ];
        values.extend(super::outcomes::terms(pipeline, scored, &actual));
        for column in &schema.columns {
            if values.iter().any(|(name, _)| *name == column.name) {
                continue;
            }
            if let Some(found) = source.column_by_name(&column.name) {
                values.push((&column.name, Cells::new(found.as_ref())?.value(within)));
            } else if !column.nullable {
                bail!("the training set has no column `{}`, which outcomes have", column.name);
            }
        }
        rows.push(values);
    }
    batch(schema, rows)
}
