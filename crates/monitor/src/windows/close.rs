//! The close of a drift window: every declared test of every column, corrected for their number,
//! judged against the reference's own spread.
//!
//! # When a score is an alarm
//! * Its value lies beyond the reference's chunk-to-chunk mean plus so many standard deviations
//!   (NannyML's rule), more of them where the reference had few chunks (see
//!   [`Spread::for_one_more`]), and widened where the window holds fewer rows than a chunk (see
//!   [`Spread::limit_for`]). This says that it is *more than usual*.
//! * And its p-value, corrected over all tests of the version's window, is at or below the declared
//!   level. This says that it is *not by chance*. PSI, Jensen-Shannon, Hellinger and total variation
//!   have the p-value of the chi-square test over the same bins (all four are asymptotically
//!   multiples of its statistic: Csiszár and Shields, 2004), Wasserstein that of Kolmogorov-Smirnov
//!   over the same samples.
//!
//! Where the reference had too few rows for a spread, the p-value alone decides. A fixed threshold
//! never does.

use falaj_drift::correction::adjust;
use falaj_drift::{ColumnSummary, Metric, Score, Spread, chi_square, score};
use falaj_event::LogTime;
use serde_json::json;

use super::together::{self, Together};
use super::{Closed, VersionWindow};
use crate::reference::ColumnReference;
use crate::row::{DriftRow, Finding, RowKind, Window};
use crate::settings::{MonitorSettings, Test};

/// One score on its way to a row.
struct Draft<'a> {
    subject: &'a str,
    slice: Option<String>,
    score: Score,
    /// The test whose p-value it has.
    p_value_of: Option<Metric>,
    spread: Option<Spread>,
    counts: Option<(Vec<u64>, Vec<u64>)>,
}

pub(super) fn close(
    settings: &MonitorSettings,
    version: u32,
    own: &VersionWindow,
    window: Window,
    t: LogTime,
) -> Closed {
    let stamp = Stamp { settings, version, window, t };
    if own.rows < settings.min_rows {
        return Closed { rows: vec![stamp.too_few(own.rows)], findings: Vec::new() };
    }
    let mut drafts = Vec::new();
    let reference = &own.reference;
    let outputs = [(&reference.score, &own.score), (&reference.predicted, &own.predicted)];
    for (column, current) in reference.inputs.iter().zip(&own.inputs) {
        draft(settings, column, current, None, &mut drafts);
    }
    for (column, current) in outputs {
        if let (Some(column), Some(current)) = (column, current) {
            draft(settings, column, current, None, &mut drafts);
        }
    }
    for (slice, summaries) in reference.slices.iter().zip(&own.slices) {
        for (column, current) in slice.inputs.iter().zip(summaries) {
            if current.rows() >= settings.min_rows && column.name != slice.column {
                let name = format!("{}={}", slice.column, slice.value);
                draft(settings, column, current, Some(name), &mut drafts);
            }
        }
    }
    let together = match &reference.matrix {
        Some(matrix) => together::tests(&stamp, matrix, &own.sample),
        None => Vec::new(),
    };
    let mut closed = stamp.judge(drafts, &together, own.rows);
    closed.rows.extend(own.scores.rows(&stamp, reference, own.rows));
    closed
}

/// Scores one column by every declared test that is defined for it.
fn draft<'a>(
    settings: &MonitorSettings,
    reference: &'a ColumnReference,
    current: &ColumnSummary,
    slice: Option<String>,
    drafts: &mut Vec<Draft<'a>>,
) {
    for metric in settings.column_tests() {
        let Ok(mut found) = score(&reference.summary, current, metric) else { continue };
        let mut p_value_of = Some(metric);
        if metric == Metric::OutOfRange {
            found.p_value = out_of_range_p_value(&reference.summary, current);
        } else if found.p_value.is_none() {
            let other = match metric {
                Metric::Wasserstein => Metric::KolmogorovSmirnov,
                _ => Metric::ChiSquare,
            };
            p_value_of = Some(other);
            found.p_value = borrowed_p_value(&reference.summary, current, other);
        }
        let counts = found.bins.as_ref().and_then(|bins| {
            let of = |summary: &ColumnSummary| match summary {
                ColumnSummary::Numeric(summary) => Some(summary.counts.clone()),
                ColumnSummary::Category(summary) => Some(summary.histogram(bins)),
            };
            Some((of(&reference.summary)?, of(current)?))
        });
        drafts.push(Draft {
            subject: &reference.name,
            slice: slice.clone(),
            score: found,
            p_value_of,
            spread: reference.spreads.get(&metric).copied(),
            counts,
        });
    }
}

fn borrowed_p_value(
    reference: &ColumnSummary,
    current: &ColumnSummary,
    metric: Metric,
) -> Option<f64> {
    score(reference, current, metric).ok().and_then(|found| found.p_value)
}

/// The probability that so many of the window's rows (or more) lie beyond everything that the
/// reference holds, if both are draws of one distribution: beta-binomial, exact for a continuous
/// column (the order statistics' exceedances; Gumbel and von Schelling 1950). For names: of rows
/// whose name is none of those told apart.
fn out_of_range_p_value(reference: &ColumnSummary, current: &ColumnSummary) -> Option<f64> {
    match (reference, current) {
        (ColumnSummary::Numeric(reference), ColumnSummary::Numeric(current)) => {
            Some(exceedance_tail(current.beyond, current.present(), 2, reference.present()))
        }
        (ColumnSummary::Category(reference), ColumnSummary::Category(current)) => {
            let bins = reference.bins();
            let others = |counts: Vec<u64>| counts.last().copied().unwrap_or(0);
            let (before, now) =
                (others(reference.histogram(&bins)), others(current.histogram(&bins)));
            let (n, m) = (reference.present(), current.present());
            if before > EXACT_OTHERS {
                return Some(chi_square::two_proportions(before, n, now, m));
            }
            Some(exceedance_tail(now, m, before + 1, n))
        }
        _ => None,
    }
}

/// Reference rows of other names up to which the exact tail is computed.
const EXACT_OTHERS: u64 = 50;

/// `P(K >= hits)` of a beta-binomial of `rows` trials with parameters `a` and `n + 1 - a`.
pub(super) fn exceedance_tail(hits: u64, rows: u64, a: u64, n: u64) -> f64 {
    if hits == 0 {
        return 1.0;
    }
    let (a, m) = (a as f64, rows as f64);
    let b = ((n as f64) + 1.0 - a).max(1.0);
    let mut mass = 1.0;
    let mut term = 0.0;
    while term < a {
        mass *= (b + term) / (b + m + term);
        term += 1.0;
    }
    let mut below = 0.0;
    for hit in 0..hits {
        let k = hit as f64;
        below += mass;
        mass *= (m - k) / (k + 1.0) * (a + k) / (m - k - 1.0 + b);
    }
    (1.0 - below).clamp(0.0, 1.0)
}

/// What all rows of a close share.
pub(super) struct Stamp<'a> {
    pub(super) settings: &'a MonitorSettings,
    pub(super) version: u32,
    pub(super) window: Window,
    t: LogTime,
}

impl Stamp<'_> {
    pub(super) fn row(&self, subject: &str, test: &str, rows: u64) -> DriftRow {
        DriftRow {
            version: self.version,
            t: self.t,
            window: self.window,
            kind: RowKind::Drift,
            subject: subject.to_owned(),
            slice: None,
            test: test.to_owned(),
            value: None,
            p_value: None,
            threshold: None,
            alarm: false,
            rows,
            detail: "{}".to_owned(),
        }
    }

    /// One row says that the window did not suffice.
    fn too_few(&self, rows: u64) -> DriftRow {
        let test = self.settings.tests.first().map_or("psi", |test| test.name());
        let least = self.settings.min_rows;
        let detail = json!({ "why": format!("{rows} rows, of {least} that a window needs") });
        DriftRow { detail: detail.to_string(), ..self.row("score", test, rows) }
    }

    fn judge(&self, drafts: Vec<Draft<'_>>, together: &[Together], all: u64) -> Closed {
        let (adjusted, of_all) = corrected(&drafts, together, self.settings);
        let mut watched: Vec<String> = Vec::new();
        let mut alarmed: Vec<String> = Vec::new();
        let mut rows = Vec::with_capacity(drafts.len());
        for (draft, p_value) in drafts.iter().zip(adjusted) {
            let row = self.judged(draft, p_value);
            if row.slice.is_none() {
                push_new(&mut watched, &row.subject);
                if row.alarm {
                    push_new(&mut alarmed, &row.subject);
                }
            }
            rows.push(row);
        }
        for (test, p_value) in together.iter().zip(of_all) {
            let row = test.row(self, p_value, all);
            push_new(&mut watched, &row.subject);
            if row.alarm {
                push_new(&mut alarmed, &row.subject);
            }
            rows.push(row);
        }
        let (version, window) = (self.version, self.window);
        let finding = Finding::Drift { version, window, watched, alarmed, detected: 0 };
        Closed { rows, findings: vec![finding] }
    }

    fn judged(&self, draft: &Draft<'_>, p_value: Option<f64>) -> DriftRow {
        let score = &draft.score;
        let limit = draft.spread.map(|spread| {
            let deviations = spread.for_one_more(self.settings.spread);
            spread.limit_for(score, deviations, 0.0)
        });
        let unusual = limit.is_none_or(|limit| score.value > limit);
        let significant = p_value.map(|p_value| p_value <= self.settings.alpha);
        let alarm = match (limit, significant) {
            (None, None) => false,
            (_, significant) => unusual && significant.unwrap_or(true),
        };
        let test = Test::Column(score.metric).name();
        DriftRow {
            slice: draft.slice.clone(),
            value: Some(score.value).filter(|value| value.is_finite()),
            p_value,
            threshold: limit,
            alarm,
            detail: self.detail(draft).to_string(),
            ..self.row(draft.subject, test, score.current_rows)
        }
    }

    fn detail(&self, draft: &Draft<'_>) -> serde_json::Value {
        let mut detail = json!({
            "method": draft.score.method,
            "reference_rows": draft.score.reference_rows,
            "rule": {
                "deviations": self.settings.spread,
                "deviations_of_spread":
                    draft.spread.map(|spread| spread.for_one_more(self.settings.spread)),
                "spread": draft.spread,
                "alpha": self.settings.alpha,
                "correction": self.settings.correction,
                "p_value": draft.score.p_value.map(|p_value| p_value.to_string()),
                "p_value_of": draft.p_value_of.map(|metric| Test::Column(metric).name()),
            },
        });
        if let (Some(bins), Some(object)) = (&draft.score.bins, detail.as_object_mut()) {
            object.insert("bins".to_owned(), json!(bins));
            if let Some((reference, current)) = &draft.counts {
                object.insert("reference".to_owned(), json!(reference));
                object.insert("window".to_owned(), json!(current));
            }
        }
        detail
    }
}

/// The corrected p-values of all drafts, and of the tests of all inputs together. A borrowed p-value
/// is one test, not two.
fn corrected(
    drafts: &[Draft<'_>],
    together: &[Together],
    settings: &MonitorSettings,
) -> (Vec<Option<f64>>, Vec<Option<f64>>) {
    let same = |a: &Draft<'_>, b: &Draft<'_>| {
        a.subject == b.subject && a.slice == b.slice && a.p_value_of == b.p_value_of
    };
    let mut family: Vec<f64> = Vec::new();
    let mut places: Vec<Option<usize>> = Vec::with_capacity(drafts.len());
    for (index, draft) in drafts.iter().enumerate() {
        let Some(p_value) = draft.score.p_value else {
            places.push(None);
            continue;
        };
        // Tests of a column stand together: few are looked at.
        let twin = (0..index)
            .rev()
            .take(settings.tests.len())
            .find(|other| drafts[*other].score.p_value.is_some() && same(&drafts[*other], draft));
        places.push(Some(match twin.and_then(|twin| places[twin]) {
            Some(place) => place,
            None => {
                family.push(p_value);
                family.len() - 1
            }
        }));
    }
    let alone = family.len();
    family.extend(together.iter().filter_map(|test| test.p_value));
    let adjusted = adjust(&family, settings.correction);
    let mut rest = adjusted[alone..].iter().copied();
    let of_all = together.iter().map(|test| test.p_value.and_then(|_| rest.next())).collect();
    let of_each = places.into_iter().map(|place| place.map(|place| adjusted[place])).collect();
    (of_each, of_all)
}

fn push_new(list: &mut Vec<String>, name: &str) {
    if list.last().is_none_or(|last| last != name) {
        list.push(name.to_owned());
    }
}
