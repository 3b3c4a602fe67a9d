//! Drift windows: what a version sees, summarised over tumbling windows of `T`, and scored against
//! what it was trained on when a window closes.
//!
//! A prediction belongs to the window of the `T` of the epoch that carries it: epochs come in order
//! of `T`, so nothing is ever late and no window is ever opened again. A window closes at the first
//! epoch whose `T` is at or beyond its end.
//!
//! Cost per prediction: for each watched column (inputs, score, class) one bin search, one sketch
//! bucket and, rarely once the sample is full, one sample entry; as much again without the sample
//! for each slice column; one comparison each for the samples of scores and of whole rows. Memory per open window and version: the bins, a few hundred sketch
//! buckets and at most [`WINDOW_SAMPLE`] values per column. Does not know what an alarm causes.

mod close;
mod estimate;
#[cfg(test)]
mod tests;
mod together;

use std::collections::BTreeMap;
use std::sync::Arc;

use falaj_drift::ColumnSummary;
use falaj_event::hash::key_hash;
use falaj_event::{LogTime, Value};

use crate::kept::{Kept, put_json, take_json};
use crate::reference::{ColumnReference, ReferenceSet, RowSample, WINDOW_SAMPLE};
use crate::row::{DriftRow, Finding, Window};
use crate::settings::MonitorSettings;
use crate::values::{name_of, number_of};
use crate::{Prediction, Task};
use estimate::Scores;

pub use estimate::MOST_SCORES;

/// Windows of one pipeline's predictions.
#[derive(Clone, Debug)]
pub struct DriftWindows {
    settings: Arc<MonitorSettings>,
    /// The number of the open window.
    open: Option<u64>,
    versions: BTreeMap<u32, VersionWindow>,
}

/// One version's part of the open window.
#[derive(Clone, Debug)]
struct VersionWindow {
    reference: Arc<ReferenceSet>,
    rows: u64,
    /// As the reference's inputs.
    inputs: Vec<ColumnSummary>,
    score: Option<ColumnSummary>,
    predicted: Option<ColumnSummary>,
    /// As the reference's slices.
    slices: Vec<Vec<ColumnSummary>>,
    /// The position of each slice's column among the inputs.
    slice_inputs: Vec<Option<usize>>,
    scores: Scores,
    sample: RowSample,
}

/// What closed.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Closed {
    /// Rows of `falaj.drift`, in order.
    pub rows: Vec<DriftRow>,
    /// What they mean.
    pub findings: Vec<Finding>,
}

impl Closed {
    /// Adds what `other` holds.
    pub fn extend(&mut self, other: Self) {
        self.rows.extend(other.rows);
        self.findings.extend(other.findings);
    }
}

impl DriftWindows {
    /// Nothing seen yet.
    pub fn new(settings: Arc<MonitorSettings>) -> Self {
        Self { settings, open: None, versions: BTreeMap::new() }
    }

    /// Appends what it has seen, but for the references.
    pub fn save(&self, out: &mut Vec<u8>) {
        self.open.put(out);
        self.versions.len().put(out);
        for (version, own) in &self.versions {
            version.put(out);
            own.save(out);
        }
    }

    /// What [`DriftWindows::save`] wrote, under the same settings; `reference` gives a version's.
    pub fn restore(
        settings: Arc<MonitorSettings>,
        reference: impl Fn(u32) -> Option<Arc<ReferenceSet>>,
        bytes: &mut &[u8],
    ) -> Option<Self> {
        let open = Kept::take(bytes)?;
        let mut versions = BTreeMap::new();
        for _ in 0..usize::take(bytes)? {
            let version = Kept::take(bytes)?;
            let empty = VersionWindow::new(&settings, reference(version)?);
            versions.insert(version, empty.restored(bytes)?);
        }
        Some(Self { settings, open, versions })
    }

    /// Closes what ends at or before `t`.
    pub fn advance(&mut self, t: LogTime) -> Closed {
        let index = t.0 / self.settings.window_us.max(1);
        let Some(open) = self.open.filter(|open| *open < index) else { return Closed::default() };
        self.open = None;
        let window = Window::tumbling(open, self.settings.window_us);
        let mut closed = Closed::default();
        for (version, own) in std::mem::take(&mut self.versions) {
            closed.extend(close::close(&self.settings, version, &own, window, t));
        }
        closed
    }

    /// Counts a prediction of an epoch with this `T`. Predictions of versions without a reference
    /// are not watched: there is nothing to compare them to.
    pub fn add(
        &mut self,
        t: LogTime,
        prediction: &Prediction,
        reference: Option<&Arc<ReferenceSet>>,
    ) {
        let Some(reference) = reference else { return };
        self.open = Some(t.0 / self.settings.window_us.max(1));
        let own = self
            .versions
            .entry(prediction.version)
            .or_insert_with(|| VersionWindow::new(&self.settings, Arc::clone(reference)));
        own.add(&self.settings, prediction);
    }
}

impl VersionWindow {
    fn new(settings: &MonitorSettings, reference: Arc<ReferenceSet>) -> Self {
        let position = |name: &str| settings.inputs.iter().position(|input| input.name == *name);
        let of = |all: &[ColumnReference], sample: usize| -> Vec<ColumnSummary> {
            all.iter().map(|column| empty_like(&column.summary, sample)).collect()
        };
        let one = |column: &Option<ColumnReference>| {
            column.as_ref().map(|column| empty_like(&column.summary, WINDOW_SAMPLE))
        };
        Self {
            rows: 0,
            inputs: of(&reference.inputs, WINDOW_SAMPLE),
            score: one(&reference.score),
            predicted: one(&reference.predicted),
            slices: reference.slices.iter().map(|slice| of(&slice.inputs, 0)).collect(),
            slice_inputs: reference.slices.iter().map(|slice| position(&slice.column)).collect(),
            scores: Scores::default(),
            sample: RowSample::default(),
            reference,
        }
    }

    fn save(&self, out: &mut Vec<u8>) {
        self.rows.put(out);
        put_json(&self.inputs, out);
        put_json(&self.score, out);
        put_json(&self.predicted, out);
        put_json(&self.slices, out);
        self.scores.put(out);
        self.sample.put(out);
    }

    fn restored(mut self, bytes: &mut &[u8]) -> Option<Self> {
        self.rows = Kept::take(bytes)?;
        self.inputs = take_json(bytes)?;
        self.score = take_json(bytes)?;
        self.predicted = take_json(bytes)?;
        self.slices = take_json(bytes)?;
        self.scores = Kept::take(bytes)?;
        self.sample = Kept::take(bytes)?;
        Some(self)
    }

    fn add(&mut self, settings: &MonitorSettings, prediction: &Prediction) {
        let hash = sample_hash(prediction);
        self.rows += 1;
        if let Some(ColumnSummary::Numeric(summary)) = &mut self.score {
            summary.add(hash, Some(prediction.score));
        }
        if let Some(ColumnSummary::Category(summary)) = &mut self.predicted
            && settings.task != Task::Regression
        {
            summary.add(Some(&prediction.predicted));
        }
        self.scores.add(settings, hash, prediction);
        // Erased inputs say nothing, not that they are missing.
        if prediction.inputs.len() != settings.inputs.len() {
            return;
        }
        add_inputs(&mut self.inputs, settings, prediction, hash);
        if let Some(matrix) = &self.reference.matrix
            && self.sample.wants(hash)
        {
            let mut row = Vec::new();
            for (encoding, position) in matrix.encodings.iter().zip(&settings.columns) {
                encoding.encode(&prediction.inputs[*position], &mut row);
            }
            self.sample.add(hash, row);
        }
        let slices = self.reference.slices.iter().zip(&self.slice_inputs).zip(&mut self.slices);
        for ((slice, position), summaries) in slices {
            let value = position.and_then(|position| name_of(&prediction.inputs[position]));
            if value.is_some_and(|value| value == slice.value.as_str()) {
                add_inputs(summaries, settings, prediction, hash);
            }
        }
    }
}

/// Draws samples: uniform over predictions, the same at every replay.
pub(crate) fn sample_hash(prediction: &Prediction) -> u64 {
    key_hash(prediction.id.as_bytes())
}

fn add_inputs(
    summaries: &mut [ColumnSummary],
    settings: &MonitorSettings,
    prediction: &Prediction,
    hash: u64,
) {
    for (summary, position) in summaries.iter_mut().zip(&settings.columns) {
        let value = prediction.inputs.get(*position).unwrap_or(&Value::Null);
        match summary {
            ColumnSummary::Numeric(summary) => summary.add(hash, number_of(value)),
            ColumnSummary::Category(summary) => summary.add(name_of(value).as_deref()),
        }
    }
}

/// A summary that counts as `reference` does, and nothing yet.
fn empty_like(reference: &ColumnSummary, sample: usize) -> ColumnSummary {
    match reference {
        ColumnSummary::Numeric(summary) => {
            let sample = if summary.sample.is_empty() { 0 } else { sample };
            let empty = summary.empty_like(sample);
            // What a sketch would be asked is asked of the sample.
            ColumnSummary::Numeric(if sample > 0 { empty.without_sketch() } else { empty })
        }
        ColumnSummary::Category(summary) => {
            let mut empty = falaj_drift::CategorySummary::new(summary.capacity);
            empty.counts = summary.counts.keys().map(|name| (name.clone(), 0)).collect();
            ColumnSummary::Category(empty)
        }
    }
}
