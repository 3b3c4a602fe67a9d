//! From fitted values to a model with its report: calibration, figures, slices, references.
//!
//! Every figure is computed by the scorer that will serve the model.

use super::data::{Dataset, Range};
use super::{Fitted, Reference, Report, TrainError, Trained};
use crate::calibration::{CalibrationMap, fit_isotonic, fit_temperature};
use crate::loss::sigmoid;
use crate::metrics::{CALIBRATION_BINS, by_slice, curves, evaluate};
use crate::model::Model;
use crate::preprocess::{Encoding, FIRST, MISSING, UNKNOWN, category_text};
use crate::score::Scorer;
use crate::spec::{Calibration, JobSpec, Task};
use crate::table::{Input, Table, TableColumn};

/// Points of a ROC curve that are kept.
const ROC_POINTS: usize = 200;
/// Values of a slice column that are reported on.
const SLICE_VALUES: usize = 50;
/// Quantiles of a reference, less one.
const QUANTILES: usize = 100;

pub(super) fn finish(
    spec: &JobSpec,
    table: &Table<'_>,
    dataset: Dataset,
    fitted: Fitted,
) -> Result<Trained, TrainError> {
    let mut model = Model {
        task: spec.task,
        preprocessing: dataset.preprocessing.clone(),
        target: dataset.target.clone(),
        body: fitted.body,
        calibration: CalibrationMap::None,
    };
    let columns = model
        .preprocessing
        .columns
        .iter()
        .map(|column| table.column(&column.name))
        .collect::<Result<Vec<_>, _>>()?;
    let reader = Reader { dataset: &dataset, columns };
    model.calibration = calibrate(spec, &reader, &model)?;
    let scorer = Scorer::new(&model)?;
    let outputs = scorer.outputs();
    let reported = if dataset.counts.test > 0 { dataset.test() } else { dataset.validation() };
    let figures = |range: Range| -> Result<_, TrainError> {
        let scores = reader.scores(&scorer, range.clone())?;
        Ok((evaluate(spec.task, &scores, &dataset.raw_labels[range], outputs), scores))
    };
    let (train, _) = figures(dataset.train())?;
    let (validation, held) = figures(dataset.validation())?;
    let (test, scores) = figures(reported.clone())?;
    let labels = &dataset.raw_labels[reported.clone()];
    let mut report = Report {
        rows: dataset.counts,
        history: fitted.history,
        best_epoch: fitted.best_epoch,
        train,
        validation,
        test,
        reference: references(&dataset),
        score_quantiles: (0..outputs)
            .map(|output| quantiles(held.iter().skip(output).step_by(outputs).copied().collect()))
            .collect(),
        ..Report::default()
    };
    for name in &spec.slices {
        let column = table.column(name)?;
        let text = |row: usize| slice_text(&column.value(dataset.rows[row] as usize));
        let values: Vec<Option<String>> = reported.clone().map(text).collect();
        let slices =
            by_slice(spec.task, name, &values, &scores, labels, (outputs, 0.5), SLICE_VALUES);
        report.slices.extend(slices);
    }
    if spec.task == Task::Binary {
        let truths: Vec<bool> = labels.iter().map(|label| *label > 0.5).collect();
        let raw: Vec<f64> = reader.raw(&scorer, reported)?.into_iter().map(sigmoid).collect();
        report.roc = curves::roc(&scores, &truths, ROC_POINTS);
        report.reliability_raw = curves::calibration(&raw, &truths, CALIBRATION_BINS);
        report.reliability = curves::calibration(&scores, &truths, CALIBRATION_BINS);
    }
    Ok(Trained { model, report, hardware: fitted.hardware })
}

fn slice_text(value: &Input<'_>) -> Option<String> {
    match value {
        Input::Number(number) if number.is_finite() => Some(number.to_string()),
        other => category_text(other),
    }
}

fn calibrate(
    spec: &JobSpec,
    reader: &Reader<'_>,
    model: &Model,
) -> Result<CalibrationMap, TrainError> {
    if spec.calibration == Calibration::None {
        return Ok(CalibrationMap::None);
    }
    let scorer = Scorer::new(model)?;
    let range = reader.dataset.validation();
    let labels = &reader.dataset.raw_labels[range.clone()];
    let logits = reader.raw(&scorer, range)?;
    Ok(match spec.calibration {
        Calibration::Isotonic => {
            let scores: Vec<f64> = logits.into_iter().map(sigmoid).collect();
            let truths: Vec<bool> = labels.iter().map(|label| *label > 0.5).collect();
            fit_isotonic(&scores, &truths)
        }
        _ => {
            let classes: Vec<usize> = labels.iter().map(|label| *label as usize).collect();
            fit_temperature(&logits, &classes, scorer.outputs())
        }
    })
}

/// Rows of the data set, as a scorer is asked at prediction.
struct Reader<'a> {
    dataset: &'a Dataset,
    columns: Vec<TableColumn>,
}

impl Reader<'_> {
    fn each(
        &self,
        range: Range,
        outputs: usize,
        mut score: impl FnMut(&[Input<'_>], &mut [f64]) -> Result<(), crate::score::ScoreError>,
    ) -> Result<Vec<f64>, TrainError> {
        let mut all = vec![0.0; range.len() * outputs];
        let mut inputs = Vec::with_capacity(self.columns.len());
        for (row, out) in range.zip(all.chunks_exact_mut(outputs)) {
            let row = self.dataset.rows[row] as usize;
            inputs.clear();
            inputs.extend(self.columns.iter().map(|column| column.value(row)));
            score(&inputs, out)?;
        }
        Ok(all)
    }

    fn scores(&self, scorer: &Scorer, range: Range) -> Result<Vec<f64>, TrainError> {
        let mut scratch = scorer.scratch();
        self.each(range, scorer.outputs(), |inputs, out| {
            scorer.score_into(inputs, &mut scratch, out)
        })
    }

    fn raw(&self, scorer: &Scorer, range: Range) -> Result<Vec<f64>, TrainError> {
        let mut scratch = scorer.scratch();
        self.each(range, scorer.outputs(), |inputs, out| scorer.raw(inputs, &mut scratch, out))
    }
}

fn quantiles(mut values: Vec<f64>) -> Vec<f64> {
    values.sort_unstable_by(f64::total_cmp);
    let Some(last) = values.len().checked_sub(1) else { return Vec::new() };
    (0..=QUANTILES).map(|step| values[step * last / QUANTILES]).collect()
}

/// What the training rows looked like.
fn references(dataset: &Dataset) -> Vec<Reference> {
    let (mut number, mut code) = (0, 0);
    let mut references = Vec::new();
    for column in &dataset.preprocessing.columns {
        let rows = dataset.train();
        let mut reference = Reference {
            column: column.name.clone(),
            rows: rows.len() as u64,
            missing: 0,
            quantiles: Vec::new(),
            counts: Vec::new(),
            unknown: 0,
        };
        match &column.encoding {
            Encoding::Number { .. } => {
                let all = rows.map(|row| dataset.numbers_of(row)[number]);
                let present: Vec<f64> = all.filter(|value| !value.is_nan()).collect();
                reference.missing = reference.rows - present.len() as u64;
                reference.quantiles = quantiles(present);
                number += 1;
            }
            Encoding::Category { vocabulary } => {
                reference.counts = vec![0; vocabulary.len()];
                for row in rows {
                    match dataset.codes_of(row)[code] {
                        UNKNOWN => reference.unknown += 1,
                        MISSING => reference.missing += 1,
                        known => reference.counts[(known - FIRST) as usize] += 1,
                    }
                }
                code += 1;
            }
        }
        references.push(reference);
    }
    references
}
