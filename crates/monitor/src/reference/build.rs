//! Making a reference out of rows: bins, samples, and the spread of chunks.
//!
//! Chunks are what the reference would have been as windows: the training rows of each window of
//! `T`'s length, so that a daily rhythm or a season within the reference widens the limits and does
//! not alarm. Where that gives fewer than five of them, ten runs of rows in order of time.

use std::collections::BTreeMap;
use std::sync::Arc;

use falaj_drift::samples::{PValueMethod, kolmogorov_smirnov};
use falaj_drift::{
    BinDefinition, CategorySummary, ColumnSummary, CounterRandom, DriftError, Metric,
    NumericSummary, Spread, score,
};
use falaj_event::{LogTime, Value};

use super::calibration::{self, CalibrationStep};
use super::matrix::{Encoding, MatrixReference, RowSample};
use super::{
    ColumnReference, FigureReference, NAMES, REFERENCE_FORMAT, REFERENCE_SAMPLE, ReferenceError,
    ReferenceSet, SLICE_VALUES, SliceReference, WINDOW_SAMPLE,
};
use crate::metrics::{JudgedRow, measure, names};
use crate::settings::{ColumnKind, MonitorSettings, Test};
use crate::values::{name_of, number_of};
use crate::{Actual, Task};

/// Bins of a numeric column: equal shares of the reference.
const BINS: usize = 10;
/// Fewest rows of a chunk, whatever the settings say.
const LEAST_CHUNK: usize = 50;
/// Chunks by time below this number say nothing about spread.
const LEAST_CHUNKS: usize = 5;
/// Chunks scored per column, evenly chosen where there are more.
const MOST_CHUNKS: usize = 20;
/// Runs of rows where time gives too few chunks; NannyML's default.
const RUNS: usize = 10;
/// Draws the samples of references.
const SAMPLE_STREAM: u64 = 0x5245_4645_5245_4E43;

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

enum Column {
    Numbers(Vec<Option<f64>>),
    Names(Names),
}

/// Names as codes in order of appearance.
#[derive(Default)]
struct Names {
    names: Vec<Arc<str>>,
    codes: BTreeMap<Arc<str>, u32>,
    rows: Vec<Option<u32>>,
}

impl Names {
    fn add(&mut self, name: Option<&str>) {
        let code = name.map(|name| match self.codes.get(name) {
            Some(code) => *code,
            None => {
                let (code, name) = (self.names.len() as u32, Arc::<str>::from(name));
                self.names.push(Arc::clone(&name));
                self.codes.insert(name, code);
                code
            }
        });
        self.rows.push(code);
    }

    fn name(&self, row: usize) -> Option<&str> {
        let code = self.rows.get(row).copied().flatten()?;
        self.names.get(code as usize).map(|name| &**name)
    }

    /// The names of these rows, the most frequent first, those as frequent by name.
    fn by_frequency(&self, rows: &[usize]) -> Vec<(usize, &str)> {
        let mut sizes = vec![0; self.names.len()];
        for row in rows {
            if let Some(code) = self.rows.get(*row).copied().flatten() {
                sizes[code as usize] += 1;
            }
        }
        let all = sizes.into_iter().zip(&self.names).map(|(size, name)| (size, &**name));
        let mut found: Vec<(usize, &str)> = all.filter(|(size, _)| *size > 0).collect();
        found.sort_by(|a, b| b.0.cmp(&a.0).then(a.1.cmp(b.1)));
        found
    }
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

fn encoded(columns: &[&Column], encodings: &[Encoding], row: usize) -> Vec<f64> {
    let mut out = Vec::new();
    for (column, encoding) in columns.iter().zip(encodings) {
        let value = match column {
            Column::Numbers(rows) => rows[row].map_or(Value::Null, Value::Float64),
            Column::Names(names) => {
                names.name(row).map_or(Value::Null, |name| Value::String(name.into()))
            }
        };
        encoding.encode(&value, &mut out);
    }
    out
}

fn sample_hash(place: u64) -> u64 {
    CounterRandom::new(0, SAMPLE_STREAM).at(place)
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

/// A summary over the column's bins (or its most frequent names) that counts nothing yet.
fn empty_summary(column: &Column, order: &[usize]) -> Result<ColumnSummary, DriftError> {
    match column {
        Column::Numbers(rows) => {
            let values = order.iter().filter_map(|row| rows[*row]);
            let mut sorted: Vec<f64> = values.filter(|value| value.is_finite()).collect();
            sorted.sort_unstable_by(f64::total_cmp);
            let range = sorted.first().copied().zip(sorted.last().copied());
            // A column that is always missing has one bin, and can only come to be present.
            let bins = match sorted.is_empty() {
                true => BinDefinition::Cuts { cuts: Vec::new(), origin: "no values".to_owned() },
                false => BinDefinition::quantiles(&sorted, BINS)?,
            };
            Ok(ColumnSummary::Numeric(NumericSummary::new(bins, range, 0)))
        }
        Column::Names(names) => {
            let mut names = names.by_frequency(order);
            names.truncate(NAMES);
            // Zero counts keep the places: a chunk counts the same names as the whole.
            let mut summary = CategorySummary::new(names.len());
            summary.counts = names.into_iter().map(|(_, name)| (name.to_string(), 0)).collect();
            Ok(ColumnSummary::Category(summary))
        }
    }
}

fn with_sample(empty: &ColumnSummary, sample: usize) -> ColumnSummary {
    match empty {
        ColumnSummary::Numeric(summary) => ColumnSummary::Numeric(summary.empty_like(sample)),
        ColumnSummary::Category(summary) => ColumnSummary::Category(summary.clone()),
    }
}

fn add_row(summary: &mut ColumnSummary, column: &Column, row: usize, place: u64) {
    match (summary, column) {
        (ColumnSummary::Numeric(summary), Column::Numbers(rows)) => {
            summary.add(sample_hash(place), rows[row]);
        }
        (ColumnSummary::Category(summary), Column::Names(names)) => summary.add(names.name(row)),
        _ => {}
    }
}

/// The spread of every declared test of a column, each part scored against the rest.
fn spreads(
    whole: &ColumnSummary,
    parts: &[ColumnSummary],
    settings: &MonitorSettings,
) -> Result<BTreeMap<Metric, Spread>, DriftError> {
    let rows = parts.iter().map(ColumnSummary::rows).min().unwrap_or(0);
    let mut values: BTreeMap<Metric, Vec<f64>> = BTreeMap::new();
    for part in parts {
        let mut others = whole.clone();
        others.subtract(part)?;
        for metric in settings.column_tests() {
            if let Some(value) = chunk_score(&others, part, metric)? {
                values.entry(metric).or_default().push(value);
            }
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
