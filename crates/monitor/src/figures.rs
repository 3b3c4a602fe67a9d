//! Figures in windows: how good a version was, as labels arrive, over tumbling windows of `T`.
//!
//! A judgement belongs to the window of the `T` at which prediction and label were both known. One
//! that is corrected while its window is open replaces the earlier one; a correction that comes
//! later counts in the window that it comes in. Exact up to [`MOST_ROWS`] judgements per window and
//! version, over a uniform sample of that size beyond (which one is a function of the predictions'
//! ids alone). Cost per judgement and window length: one map entry, no allocation of its own. Does not
//! know what a figure causes.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use falaj_event::LogTime;
use serde_json::json;

use crate::kept::{Kept, kept};
use crate::metrics::{JudgedRow, higher_is_better, measure};
use crate::reference::{FigureReference, ReferenceSet};
use crate::row::{DriftRow, Finding, RowKind, Window};
use crate::settings::{Figure, FigureWindows, Limit, MonitorSettings};
use crate::values::name_of;
use crate::windows::{Closed, sample_hash};
use crate::{Outcome, Prediction};

#[cfg(test)]
mod tests;

/// The figure that needs no labels: the mean of a version's scores.
pub const MEAN_SCORE: &str = "mean_score";
/// Judgements of one version in one window up to which figures are exact.
pub const MOST_ROWS: usize = 200_000;
/// Values of a slice column whose figures are told, the most frequent ones.
const SLICE_VALUES: usize = 16;

/// One length of window of one pipeline.
#[derive(Clone, Debug)]
pub struct OpenFigures {
    settings: Arc<MonitorSettings>,
    windows: FigureWindows,
    open: Option<u64>,
    versions: BTreeMap<u32, Judged>,
}

#[derive(Clone, Debug, Default)]
struct Judged {
    /// In log order of their first judgement. More than the sample holds now and then.
    rows: Vec<Entry>,
    /// Positions in `rows` by id: only looked up.
    places: HashMap<Arc<str>, usize>,
    /// Hashes from here on are outside the sample.
    bound: Option<u64>,
    /// The distinct values of slice columns, so that rows share them.
    values: BTreeSet<Arc<str>>,
    /// Judgements, those outside the sample included.
    count: u64,
    predictions: u64,
    scores: f64,
}

#[derive(Clone, Debug)]
struct Entry {
    /// The sample's.
    hash: u64,
    /// `None`: the judgement was taken back.
    row: Option<JudgedRow>,
    /// The value of each slice column.
    slices: Slices,
}

/// Values of slice columns: mostly there is one, which needs no allocation.
#[derive(Clone, Debug, Default)]
struct Slices {
    first: Option<Arc<str>>,
    rest: Vec<Option<Arc<str>>>,
}

impl Slices {
    fn push(&mut self, place: usize, value: Option<Arc<str>>) {
        match place {
            0 => self.first = value,
            _ => self.rest.push(value),
        }
    }

    fn get(&self, place: usize) -> Option<&str> {
        match place {
            0 => self.first.as_deref(),
            _ => self.rest.get(place - 1)?.as_deref(),
        }
    }
}

kept!(JudgedRow { score, scores, predicted, actual });
kept!(Slices { first, rest });
kept!(Entry { hash, row, slices });
kept!(Judged { rows, places, bound, values, count, predictions, scores });

impl Judged {
    fn shared(&mut self, value: &str) -> Arc<str> {
        if let Some(known) = self.values.get(value) {
            return Arc::clone(known);
        }
        let value: Arc<str> = value.into();
        self.values.insert(Arc::clone(&value));
        value
    }

    fn take_back(&mut self, id: &Arc<str>) {
        if let Some(entry) = self.places.remove(id).and_then(|place| self.rows.get_mut(place)) {
            entry.row = None;
            self.count = self.count.saturating_sub(1);
        }
    }

    fn put(&mut self, id: &Arc<str>, first: bool, entry: Entry) {
        if let Some(known) = self.places.get(id).and_then(|place| self.rows.get_mut(*place)) {
            *known = entry;
            return;
        }
        if self.bound.is_some_and(|bound| entry.hash >= bound) {
            self.count += u64::from(first);
            return;
        }
        self.count += 1;
        self.places.insert(Arc::clone(id), self.rows.len());
        self.rows.push(entry);
        if self.rows.len() >= 2 * MOST_ROWS {
            self.trim();
        }
    }

    /// Brings the sample down to its size.
    fn trim(&mut self) {
        let live = self.rows.iter().filter(|entry| entry.row.is_some());
        let mut hashes: Vec<u64> = live.map(|entry| entry.hash).collect();
        if hashes.len() > MOST_ROWS {
            let (_, bound, _) = hashes.select_nth_unstable(MOST_ROWS);
            self.bound = Some(*bound);
        }
        let is_kept = |entry: &Entry, bound: Option<u64>| {
            entry.row.is_some() && bound.is_none_or(|bound| entry.hash < bound)
        };
        let mut moved = Vec::with_capacity(self.rows.len());
        let mut next = 0;
        for entry in &self.rows {
            let kept = is_kept(entry, self.bound);
            moved.push(kept.then_some(next));
            next += usize::from(kept);
        }
        let bound = self.bound;
        self.rows.retain(|entry| is_kept(entry, bound));
        self.places.retain(|_, place| match moved.get(*place).copied().flatten() {
            Some(now) => {
                *place = now;
                true
            }
            None => false,
        });
    }

    /// The rows of the sample, in log order.
    fn judged(&self) -> impl Iterator<Item = (&Entry, &JudgedRow)> {
        self.rows.iter().filter_map(|entry| Some((entry, entry.row.as_ref()?)))
    }
}

impl OpenFigures {
    /// Nothing seen yet.
    pub fn new(settings: Arc<MonitorSettings>, windows: FigureWindows) -> Self {
        Self { settings, windows, open: None, versions: BTreeMap::new() }
    }

    /// Appends what it has seen.
    pub fn save(&self, out: &mut Vec<u8>) {
        self.open.put(out);
        self.versions.put(out);
    }

    /// What [`OpenFigures::save`] wrote, under the same settings.
    pub fn restore(
        settings: Arc<MonitorSettings>,
        windows: FigureWindows,
        bytes: &mut &[u8],
    ) -> Option<Self> {
        Some(Self { settings, windows, open: Kept::take(bytes)?, versions: Kept::take(bytes)? })
    }

    /// Closes what ends at or before `t`. `reference` gives a version's.
    pub fn advance(
        &mut self,
        t: LogTime,
        reference: impl Fn(u32) -> Option<Arc<ReferenceSet>>,
    ) -> Closed {
        let index = t.0 / self.windows.length_us.max(1);
        let Some(open) = self.open.filter(|open| *open < index) else { return Closed::default() };
        self.open = None;
        let window = Window::tumbling(open, self.windows.length_us);
        let mut closed = Closed::default();
        for (version, mut judged) in std::mem::take(&mut self.versions) {
            judged.trim();
            let close = Close {
                settings: &self.settings,
                figures: &self.windows.figures,
                reference: reference(version),
                version,
                window,
                t,
            };
            close.run(&judged, &mut closed);
        }
        closed
    }

    /// Counts a prediction of an epoch with this `T`.
    pub fn predicted(&mut self, t: LogTime, prediction: &Prediction) {
        if !self.windows.figures.iter().any(|figure| figure.name == MEAN_SCORE) {
            return;
        }
        let own = self.of(t, prediction.version);
        own.predictions += 1;
        own.scores += prediction.score;
    }

    /// Counts a judgement of an epoch with this `T`, or takes one back.
    pub fn judged(&mut self, t: LogTime, outcome: &Outcome) {
        let prediction = &outcome.prediction;
        let settings = Arc::clone(&self.settings);
        let own = self.of(t, prediction.version);
        let Some(actual) = &outcome.actual else {
            own.take_back(&prediction.id);
            return;
        };
        let mut slices = Slices::default();
        for (place, position) in settings.slices.iter().enumerate() {
            let value = prediction.inputs.get(*position).and_then(name_of);
            slices.push(place, value.map(|value| own.shared(&value)));
        }
        let row = JudgedRow {
            score: prediction.score,
            scores: Arc::clone(&prediction.scores),
            predicted: Arc::clone(&prediction.predicted),
            actual: Arc::clone(actual),
        };
        let entry = Entry { hash: sample_hash(prediction), row: Some(row), slices };
        own.put(&prediction.id, outcome.first, entry);
    }

    fn of(&mut self, t: LogTime, version: u32) -> &mut Judged {
        self.open = Some(t.0 / self.windows.length_us.max(1));
        self.versions.entry(version).or_default()
    }
}

struct Close<'a> {
    settings: &'a MonitorSettings,
    figures: &'a [Figure],
    reference: Option<Arc<ReferenceSet>>,
    version: u32,
    window: Window,
    t: LogTime,
}

impl Close<'_> {
    fn run(&self, judged: &Judged, closed: &mut Closed) {
        for figure in self.figures {
            let (value, support) = if figure.name == MEAN_SCORE {
                let count = judged.predictions;
                ((count > 0).then(|| judged.scores / count as f64), count)
            } else {
                let rows = judged.judged().map(|(_, row)| row);
                (measure(&self.settings.task, &figure.name, rows), judged.count)
            };
            if support == 0 {
                continue;
            }
            let sampled = figure.name != MEAN_SCORE && judged.count > judged.rows.len() as u64;
            closed.rows.push(self.row(figure, None, value, support, sampled));
            closed.findings.push(Finding::Figure {
                version: self.version,
                window: self.window,
                figure: figure.name.clone(),
                value,
                support,
            });
        }
        for place in 0..self.settings.slices.len() {
            self.slices(place, judged, closed);
        }
    }

    fn slices(&self, place: usize, judged: &Judged, closed: &mut Closed) {
        let Some(column) = self.settings.slices.get(place) else { return };
        let Some(column) = self.settings.inputs.get(*column) else { return };
        let mut groups: BTreeMap<&str, Vec<&JudgedRow>> = BTreeMap::new();
        for (entry, row) in judged.judged() {
            if let Some(value) = entry.slices.get(place) {
                groups.entry(value).or_default().push(row);
            }
        }
        let mut all: Vec<(&str, Vec<&JudgedRow>)> = groups.into_iter().collect();
        all.sort_by(|a, b| b.1.len().cmp(&a.1.len()).then(a.0.cmp(b.0)));
        all.truncate(SLICE_VALUES);
        all.retain(|(_, rows)| rows.len() as u64 >= self.settings.min_rows);
        all.sort_by(|a, b| a.0.cmp(b.0));
        for (value, rows) in all {
            let slice = format!("{}={value}", column.name);
            for figure in self.figures.iter().filter(|figure| figure.name != MEAN_SCORE) {
                let found = measure(&self.settings.task, &figure.name, rows.iter().copied());
                let support = rows.len() as u64;
                closed.rows.push(self.row(figure, Some(slice.clone()), found, support, false));
            }
        }
    }

    fn row(
        &self,
        figure: &Figure,
        slice: Option<String>,
        value: Option<f64>,
        support: u64,
        sampled: bool,
    ) -> DriftRow {
        let usual = self.reference.as_ref().and_then(|found| found.figures.get(&figure.name));
        // A declared limit is of the whole; a slice is compared to what the reference does.
        let declared = figure.limit.filter(|_| slice.is_none());
        let limit = declared.or_else(|| usual_limit(&figure.name, usual, self.settings, support));
        let enough = support >= self.settings.min_rows;
        let alarm =
            enough && matches!((limit, value), (Some(limit), Some(value)) if !limit.holds(value));
        let rule = match (declared, limit) {
            (Some(_), _) => "declared",
            (None, Some(_)) => "the reference's own spread",
            (None, None) => "none",
        };
        let detail = json!({
            "rule": rule,
            "limit": limit,
            "deviations": self.settings.spread,
            "reference": usual,
            "sampled": sampled,
        });
        DriftRow {
            version: self.version,
            t: self.t,
            window: self.window,
            kind: RowKind::Performance,
            subject: figure.name.clone(),
            slice,
            test: figure.name.clone(),
            value,
            p_value: None,
            threshold: limit.map(Limit::value),
            alarm,
            rows: support,
            detail: detail.to_string(),
        }
    }
}

/// What a figure of so many rows does not leave while nothing changes: the mean of the reference's
/// chunks, so many standard deviations to the worse side (more of them where the chunks are few: see
/// [`Spread::for_one_more`](falaj_drift::Spread::for_one_more)), wider where there are fewer rows than a
/// chunk's (standard errors shrink with the root of the rows).
pub(crate) fn usual_limit(
    name: &str,
    usual: Option<&FigureReference>,
    settings: &MonitorSettings,
    rows: u64,
) -> Option<Limit> {
    let spread = usual?.spread?;
    let fewer = (spread.chunk_rows as f64 / rows.max(1) as f64).max(1.0).sqrt();
    let distance = spread.for_one_more(settings.spread) * spread.deviation * fewer;
    Some(match higher_is_better(name) {
        true => Limit::AtLeast(spread.mean - distance),
        false => Limit::AtMost(spread.mean + distance),
    })
}
