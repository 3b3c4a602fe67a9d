//! Making a reference out of rows: bins, samples, and the spread of chunks.
//!
//! Chunks are what the reference would have been as windows: the training rows of each window of
//! `T`'s length, so that a daily rhythm or a season within the reference widens the limits and does
//! not alarm. Where that gives fewer than five of them, ten runs of rows in order of time. A chunk is
//! scored against all the others, and a later one against those before it as well, for a window comes
//! after its reference, too: a trend within the reference widens the limits.

use std::collections::BTreeMap;
use std::sync::Arc;

use falaj_drift::samples::{PValueMethod, kolmogorov_smirnov};
use falaj_drift::{ColumnSummary, DriftError, Metric, Spread, score};
use falaj_event::{LogTime, Value};

use super::calibration::{self, CalibrationStep};
use super::columns::{Column, Names, add_row, empty_summary, encoded, sample_hash, with_sample};
use super::matrix::{Encoding, MatrixReference, RowSample};
use super::{
    ColumnReference, FigureReference, REFERENCE_FORMAT, REFERENCE_SAMPLE, ReferenceError,
    ReferenceSet, SLICE_VALUES, SliceReference, WINDOW_SAMPLE,
};
use crate::metrics::{JudgedRow, measure, names};
use crate::settings::{ColumnKind, MonitorSettings, Test};
use crate::values::{name_of, number_of};
use crate::{Actual, Task};

/// Fewest rows of a chunk, whatever the settings say.
const LEAST_CHUNK: usize = 50;
/// Chunks by time below this number say nothing about spread.
const LEAST_CHUNKS: usize = 5;
/// Chunks scored per column, evenly chosen where there are more.
const MOST_CHUNKS: usize = 20;
/// Runs of rows where time gives too few chunks; NannyML's default.
const RUNS: usize = 10;

/// A row that the model did not learn from, scored and judged.
#[derive(Clone, Debug, PartialEq)]
pub struct HeldOut {
    /// The probability of the positive class (binary) or of the label (multiclass), or the value.
    pub score: f64,
    /// Multiclass: a probability per class.
    pub scores: Arc<[f64]>,
    /// The class foretold, as text; empty for regression.
    pub predicted: Arc<str>,
    /// The truth.
    pub actual: Actual,
}

/// Rows on their way into a reference. Memory: about 16 bytes per value.
pub struct ReferenceRows {
    times: Vec<LogTime>,
    inputs: Vec<Column>,
    held_out: Vec<HeldOut>,
}

impl ReferenceRows {
    /// No rows yet.
    pub fn new(settings: &MonitorSettings) -> Self {
        let column = |input: &crate::settings::InputColumn| match input.kind {
            ColumnKind::Number => Column::Numbers(Vec::new()),
            ColumnKind::Name => Column::Names(Names::default()),
        };
        Self {
            times: Vec::new(),
            inputs: settings.inputs.iter().map(column).collect(),
            held_out: Vec::new(),
        }
    }

    /// Adds a training row: when it was observed and the model's inputs in signature order.
    ///
    /// # Errors
    /// [`ReferenceError::Width`] where the number of inputs is another one.
    pub fn add(&mut self, observed_at: LogTime, inputs: &[Value]) -> Result<(), ReferenceError> {
        if inputs.len() != self.inputs.len() {
            let (expected, found) = (self.inputs.len(), inputs.len());
            return Err(ReferenceError::Width { expected, found });
        }
        self.times.push(observed_at);
        for (column, value) in self.inputs.iter_mut().zip(inputs) {
            match column {
                Column::Numbers(rows) => rows.push(number_of(value)),
                Column::Names(names) => names.add(name_of(value).as_deref()),
            }
        }
        Ok(())
    }

    /// Adds a held-out row, in order of time.
    pub fn add_held_out(&mut self, row: HeldOut) {
        self.held_out.push(row);
    }
}

impl ReferenceSet {
    /// The reference of these rows. Deterministic: a function of the settings and of the rows in the
    /// order given (training rows of equal times count in that order).
    ///
    /// Cost: a sort per numeric column, and per watched column and test one score per chunk (at most
    /// 20); seconds for 25 columns of 200,000 rows.
    ///
    /// # Errors
    /// [`ReferenceError`] for no rows, or a column that cannot be summarised.
    pub fn from_rows(
        settings: &MonitorSettings,
        rows: &ReferenceRows,
    ) -> Result<Self, ReferenceError> {
        if rows.times.is_empty() {
            return Err(ReferenceError::Empty);
        }
        let mut order: Vec<usize> = (0..rows.times.len()).collect();
        order.sort_by_key(|row| rows.times[*row]);
        let maker = Maker { settings, rows };
        let chunks = maker.chunks(&order);
        let inputs = maker.inputs(&order, &chunks, REFERENCE_SAMPLE)?;
        let mut slices = Vec::new();
        for slice in &settings.slices {
            slices.extend(maker.slices(*slice, &order, &chunks)?);
        }
        let (score, predicted) = maker.outputs()?;
        Ok(Self {
            format: REFERENCE_FORMAT,
            rows: order.len() as u64,
            held_out_rows: rows.held_out.len() as u64,
            inputs,
            score,
            predicted,
            slices,
            figures: maker.figures(),
            calibration: maker.calibration(),
            matrix: maker.matrix(&order, &chunks)?,
        })
    }
}

struct Maker<'a> {
    settings: &'a MonitorSettings,
    rows: &'a ReferenceRows,
}

impl Maker<'_> {
    /// Runs of `order`, as ranges.
    fn chunks(&self, order: &[usize]) -> Vec<std::ops::Range<usize>> {
        let least = (self.settings.min_rows as usize).max(LEAST_CHUNK);
        let window =
            |place: usize| self.rows.times[order[place]].0 / self.settings.window_us.max(1);
        let mut chunks = Vec::new();
        let mut start = 0;
        for place in 1..=order.len() {
            let ends = place == order.len() || window(place) != window(place - 1);
            if ends && place - start >= least {
                chunks.push(start..place);
                start = place;
            }
        }
        if chunks.len() < LEAST_CHUNKS {
            chunks = runs(order.len());
        }
        chunks
    }

    fn inputs(
        &self,
        order: &[usize],
        chunks: &[std::ops::Range<usize>],
        sample: usize,
    ) -> Result<Vec<ColumnReference>, ReferenceError> {
        let of = |position: &usize| {
            let name = self.settings.inputs.get(*position).map(|input| input.name.clone());
            let (Some(name), Some(column)) = (name, self.rows.inputs.get(*position)) else {
                return Err(ReferenceError::Width {
                    expected: position + 1,
                    found: self.rows.inputs.len(),
                });
            };
            self.column(name, column, order, chunks, sample)
        };
        self.settings.columns.iter().map(of).collect()
    }

    fn column(
        &self,
        name: String,
        column: &Column,
        order: &[usize],
        chunks: &[std::ops::Range<usize>],
        sample: usize,
    ) -> Result<ColumnReference, ReferenceError> {
        let refused = |source| ReferenceError::Column { column: name.clone(), source };
        let window_sample = sample.min(WINDOW_SAMPLE);
        let empty = empty_summary(column, order).map_err(refused)?;
        let fill = |range: std::ops::Range<usize>, sample: usize| {
            let mut summary = with_sample(&empty, sample);
            for place in range {
                add_row(&mut summary, column, order[place], place as u64);
            }
            summary
        };
        let whole = fill(0..order.len(), sample);
        let parts = chosen(chunks, MOST_CHUNKS);
        let parts = parts.into_iter().map(|range| fill(range, window_sample)).collect::<Vec<_>>();
        let spreads = spreads(&whole, &parts, self.settings).map_err(refused)?;
        Ok(ColumnReference { name, summary: whole, spreads })
    }

    fn slices(
        &self,
        slice: usize,
        order: &[usize],
        chunks: &[std::ops::Range<usize>],
    ) -> Result<Vec<SliceReference>, ReferenceError> {
        let Some(name) = self.settings.inputs.get(slice).map(|input| input.name.clone()) else {
            return Ok(Vec::new());
        };
        let Some(Column::Names(names)) = self.rows.inputs.get(slice) else {
            return Ok(Vec::new());
        };
        let least = (self.settings.min_rows as usize).max(LEAST_CHUNK);
        let mut values = names.by_frequency(order);
        values.retain(|(size, _)| *size >= least);
        values.truncate(SLICE_VALUES);
        values.sort_by(|a, b| a.1.cmp(b.1));
        let mut slices = Vec::new();
        for (_, value) in values {
            let has = |place: &usize| names.name(order[*place]) == Some(value);
            let part: Vec<usize> = (0..order.len()).filter(has).collect();
            let edge = |place: usize| part.partition_point(|member| *member < place);
            let own: Vec<_> = chunks
                .iter()
                .map(|chunk| edge(chunk.start)..edge(chunk.end))
                .filter(|chunk| chunk.len() >= LEAST_CHUNK)
                .collect();
            let rows: Vec<usize> = part.iter().map(|place| order[*place]).collect();
            let inputs = self.inputs(&rows, &own, 0)?;
            slices.push(SliceReference { column: name.clone(), value: value.to_string(), inputs });
        }
        Ok(slices)
    }

    /// The score and the class foretold, of the held-out rows.
    #[allow(clippy::type_complexity)]
    fn outputs(
        &self,
    ) -> Result<(Option<ColumnReference>, Option<ColumnReference>), ReferenceError> {
        let held = &self.rows.held_out;
        if held.is_empty() {
            return Ok((None, None));
        }
        let order: Vec<usize> = (0..held.len()).collect();
        let chunks = runs(held.len());
        let scores = Column::Numbers(held.iter().map(|row| Some(row.score)).collect());
        let score = self.column("score".into(), &scores, &order, &chunks, REFERENCE_SAMPLE)?;
        if self.settings.task == Task::Regression {
            return Ok((Some(score), None));
        }
        let mut names = Names::default();
        held.iter().for_each(|row| names.add(Some(&row.predicted)));
        let classes = Column::Names(names);
        let predicted = self.column("predicted".into(), &classes, &order, &chunks, 0)?;
        Ok((Some(score), Some(predicted)))
    }

    fn figures(&self) -> BTreeMap<String, FigureReference> {
        let task = &self.settings.task;
        let judged: Vec<JudgedRow> = self
            .rows
            .held_out
            .iter()
            .map(|row| JudgedRow {
                score: row.score,
                scores: Arc::clone(&row.scores),
                predicted: Arc::clone(&row.predicted),
                actual: Arc::new(row.actual.clone()),
            })
            .collect();
        let chunks = runs(judged.len());
        let mut figures = BTreeMap::new();
        for name in names(task) {
            let Some(value) = measure(task, name, &judged) else { continue };
            let of = |chunk: &std::ops::Range<usize>| measure(task, name, &judged[chunk.clone()]);
            let values: Vec<f64> = chunks.iter().filter_map(of).collect();
            let rows = chunks.iter().map(|chunk| chunk.len() as u64).min().unwrap_or(0);
            let spread = Spread::of(&values, rows).ok();
            figures.insert((*name).to_owned(), FigureReference { value, spread });
        }
        figures
    }
}

impl Maker<'_> {
    fn calibration(&self) -> Vec<CalibrationStep> {
        let Task::Binary { positive } = &self.settings.task else { return Vec::new() };
        let is = |actual: &Actual| matches!(actual, Actual::Class(class) if class == positive);
        let rows = self.rows.held_out.iter().map(|row| (row.score, is(&row.actual)));
        calibration::fit(&rows.collect::<Vec<_>>())
    }

    fn matrix(
        &self,
        order: &[usize],
        chunks: &[std::ops::Range<usize>],
    ) -> Result<Option<MatrixReference>, ReferenceError> {
        let rebuilds = self.settings.declares(Test::Reconstruction);
        if !rebuilds && !self.settings.declares(Test::DomainClassifier) {
            return Ok(None);
        }
        let columns: Vec<&Column> =
            self.settings.columns.iter().filter_map(|at| self.rows.inputs.get(*at)).collect();
        let encodings: Vec<Encoding> = columns
            .iter()
            .map(|column| match column {
                Column::Numbers(_) => Encoding::Number,
                Column::Names(names) => {
                    Encoding::of_names(names.by_frequency(order).into_iter().map(|(_, name)| name))
                }
            })
            .collect();
        let sample = |range: std::ops::Range<usize>| {
            let mut sample = RowSample::default();
            for place in range {
                let hash = sample_hash(place as u64);
                if sample.wants(hash) {
                    sample.add(hash, encoded(&columns, &encodings, order[place]));
                }
            }
            sample.into_rows()
        };
        let parts: Option<Vec<_>> =
            rebuilds.then(|| chosen(chunks, MOST_CHUNKS).into_iter().map(&sample).collect());
        let rows = sample(0..order.len());
        MatrixReference::of(encodings, rows, parts.as_deref())
            .map(Some)
            .map_err(|source| ReferenceError::Column { column: "inputs".to_owned(), source })
    }
}

/// `count` rows as ten runs, fewer where a run would be shorter than 50 rows; none below two.
fn runs(count: usize) -> Vec<std::ops::Range<usize>> {
    let parts = (count / LEAST_CHUNK).min(RUNS);
    if parts < 2 {
        return Vec::new();
    }
    (0..parts).map(|part| part * count / parts..(part + 1) * count / parts).collect()
}

/// At most `most` of `chunks`, evenly chosen.
fn chosen(chunks: &[std::ops::Range<usize>], most: usize) -> Vec<std::ops::Range<usize>> {
    let count = chunks.len().min(most);
    (0..count).map(|place| chunks[place * chunks.len() / count].clone()).collect()
}

/// The spread of every declared test of a column, each part scored against the rest, and those of the
/// later half against the parts before them where that is more.
fn spreads(
    whole: &ColumnSummary,
    parts: &[ColumnSummary],
    settings: &MonitorSettings,
) -> Result<BTreeMap<Metric, Spread>, DriftError> {
    let rows = parts.iter().map(ColumnSummary::rows).min().unwrap_or(0);
    let mut values: BTreeMap<Metric, Vec<f64>> = BTreeMap::new();
    let mut before: Option<ColumnSummary> = None;
    for (place, part) in parts.iter().enumerate() {
        let mut others = whole.clone();
        others.subtract(part)?;
        let earlier = before.as_ref().filter(|_| 2 * place >= parts.len());
        for metric in settings.column_tests() {
            let score = chunk_score(&others, part, metric)?;
            let ahead = match earlier {
                Some(earlier) => chunk_score(earlier, part, metric)?,
                None => None,
            };
            if let Some(value) = score.into_iter().chain(ahead).max_by(f64::total_cmp) {
                values.entry(metric).or_default().push(value);
            }
        }
        match &mut before {
            Some(before) => before.merge(part)?,
            None => before = Some(part.clone()),
        }
    }
    let spread = |(metric, values): (Metric, Vec<f64>)| {
        Spread::of(&values, rows).ok().map(|spread| (metric, spread))
    };
    Ok(values.into_iter().filter_map(spread).collect())
}

/// The value alone: the exact p-value of a Kolmogorov-Smirnov test is dear, and nobody asks here.
fn chunk_score(
    others: &ColumnSummary,
    part: &ColumnSummary,
    metric: Metric,
) -> Result<Option<f64>, DriftError> {
    if let (Metric::KolmogorovSmirnov, ColumnSummary::Numeric(left), ColumnSummary::Numeric(right)) =
        (metric, others, part)
        && !left.sample.is_empty()
        && !right.sample.is_empty()
    {
        let (left, right) = (left.sample.sorted(), right.sample.sorted());
        let test = kolmogorov_smirnov(&left, &right, Some(PValueMethod::Asymptotic))?;
        return Ok(Some(test.statistic));
    }
    match score(others, part, metric) {
        Ok(found) => Ok(Some(found.value).filter(|value| value.is_finite())),
        Err(DriftError::Undefined { .. } | DriftError::Empty(_)) => Ok(None),
        Err(other) => Err(other),
    }
}
