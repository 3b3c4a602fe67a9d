//! Figures of serving in windows: how often a version failed to score, and how long requests took.
//!
//! What was measured comes in as data (the serving side writes it down as events), is added up over
//! tumbling windows of `T`, and is told when a window closes; so what is decided from it can be replayed
//! though the measuring itself cannot. Outcomes are kept by window likewise, for a figure that somebody
//! else computes. Does not know clocks.

use std::collections::BTreeMap;
use std::sync::Arc;

use falaj_event::LogTime;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::Outcome;
use crate::row::{DriftRow, Finding, RowKind, Window};
use crate::settings::Limit;
use crate::windows::Closed;

#[cfg(test)]
mod tests;

/// The share of rows that a version could not score, of those that were whole.
pub const ERROR_RATE: &str = "error_rate";
/// The 99th percentile of what a request took, microseconds.
pub const LATENCY_P99_US: &str = "latency_p99_us";
/// What predictions were worth.
pub const KPI: &str = "kpi";

/// Buckets per power of two: a value is told with an error of at most 1/32 of it.
const STEPS: u32 = 32;

/// Durations by bucket. Buckets are exact up to 32 ns, then 32 to each power of two.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Latencies(BTreeMap<u32, u64>);

impl Latencies {
    /// Counts one.
    pub fn add(&mut self, nanoseconds: u64) {
        *self.0.entry(bucket(nanoseconds)).or_default() += 1;
    }

    /// Counts all of `other`.
    pub fn merge(&mut self, other: &Self) {
        for (bucket, count) in &other.0 {
            *self.0.entry(*bucket).or_default() += count;
        }
    }

    /// How many there are.
    pub fn count(&self) -> u64 {
        self.0.values().sum()
    }

    /// The least duration that a share `quantile` of them does not exceed, in microseconds: the upper
    /// end of its bucket. `None` without any.
    pub fn quantile_us(&self, quantile: f64) -> Option<f64> {
        let rank = (quantile * self.count() as f64).ceil().max(1.0) as u64;
        let mut seen = 0;
        let found = self.0.iter().find(|(_, count)| {
            seen += **count;
            seen >= rank
        });
        found.map(|(bucket, _)| upper_end(*bucket) as f64 / 1e3)
    }
}

fn bucket(nanoseconds: u64) -> u32 {
    if nanoseconds < u64::from(STEPS) {
        return nanoseconds as u32;
    }
    let shift = nanoseconds.ilog2() - STEPS.ilog2();
    (shift + 1) * STEPS + ((nanoseconds >> shift) as u32 - STEPS)
}

/// The greatest duration of a bucket.
fn upper_end(bucket: u32) -> u64 {
    if bucket < STEPS {
        return u64::from(bucket);
    }
    let (shift, step) = (bucket / STEPS - 1, bucket % STEPS);
    let next = u128::from(STEPS + step + 1) << shift.min(64);
    u64::try_from(next - 1).unwrap_or(u64::MAX)
}

/// What one version did within some time.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Served {
    /// Requests that it answered, or took part in.
    pub requests: u64,
    /// Rows that it was asked for.
    pub rows: u64,
    /// Rows that it could not score.
    pub errors: u64,
    /// Rows that no version could have scored: an unknown entity, a missing input. Not among `rows`.
    pub refused: u64,
    /// What requests took, from their arrival to their answer, without waiting for the log.
    pub latencies: Latencies,
}

impl Served {
    /// Adds what `other` holds.
    pub fn merge(&mut self, other: &Self) {
        self.requests += other.requests;
        self.rows += other.rows;
        self.errors += other.errors;
        self.refused += other.refused;
        self.latencies.merge(&other.latencies);
    }

    /// A figure and how much is behind it.
    fn figure(&self, name: &str) -> (Option<f64>, u64) {
        match name {
            ERROR_RATE => {
                let rate = self.errors as f64 / self.rows as f64;
                ((self.rows > 0).then_some(rate), self.rows)
            }
            LATENCY_P99_US => (self.latencies.quantile_us(0.99), self.latencies.count()),
            _ => (None, 0),
        }
    }
}

/// One figure over windows of one length.
#[derive(Clone, Debug, PartialEq)]
pub struct ServedFigure {
    /// [`ERROR_RATE`], [`LATENCY_P99_US`] or [`KPI`].
    pub name: String,
    /// Length of its windows. Microseconds.
    pub length_us: u64,
    /// What is well.
    pub limit: Option<Limit>,
}

/// A window that closed, of a version.
#[derive(Clone, Debug, PartialEq)]
pub struct ClosedWindow<A> {
    /// The version.
    pub version: u32,
    /// The window.
    pub window: Window,
    /// What was gathered.
    pub gathered: A,
}

/// Gathers something per version over tumbling windows of one length: it belongs to the window of the
/// `T` of the epoch that carries it, so nothing is ever late.
#[derive(Clone, Debug)]
pub struct Gather<A> {
    length_us: u64,
    open: Option<u64>,
    versions: BTreeMap<u32, A>,
}

impl<A: Default> Gather<A> {
    /// Nothing yet.
    pub fn new(length_us: u64) -> Self {
        Self { length_us: length_us.max(1), open: None, versions: BTreeMap::new() }
    }

    /// Closes what ends at or before `t`; versions ascending.
    pub fn advance(&mut self, t: LogTime) -> Vec<ClosedWindow<A>> {
        let index = t.0 / self.length_us;
        let Some(open) = self.open.filter(|open| *open < index) else { return Vec::new() };
        self.open = None;
        let window = Window::tumbling(open, self.length_us);
        let versions = std::mem::take(&mut self.versions).into_iter();
        versions.map(|(version, gathered)| ClosedWindow { version, window, gathered }).collect()
    }

    /// What is gathered of a version in the window of `t`.
    pub fn of(&mut self, t: LogTime, version: u32) -> &mut A {
        self.open = Some(t.0 / self.length_us);
        self.versions.entry(version).or_default()
    }
}

/// A version's outcomes in a window: the newest per prediction.
pub type Outcomes = BTreeMap<Arc<str>, Outcome>;

/// Adds an outcome, or takes one back.
pub fn add_outcome(outcomes: &mut Outcomes, outcome: &Outcome) {
    let id = Arc::clone(&outcome.prediction.id);
    match outcome.actual {
        Some(_) => outcomes.insert(id, outcome.clone()),
        None => outcomes.remove(&id),
    };
}

impl ServedFigure {
    /// What a window's measurements say.
    pub fn of_served(&self, closed: &ClosedWindow<Served>, t: LogTime) -> Closed {
        let (value, support) = closed.gathered.figure(&self.name);
        let detail = json!({
            "requests": closed.gathered.requests,
            "rows": closed.gathered.rows,
            "errors": closed.gathered.errors,
            "refused": closed.gathered.refused,
            "latency_p50_us": closed.gathered.latencies.quantile_us(0.5),
            "latency_p99_us": closed.gathered.latencies.quantile_us(0.99),
        });
        self.told(closed.version, closed.window, t, (value, support), detail)
    }

    /// A window's figure that was computed elsewhere, and the rows behind it.
    pub fn told(
        &self,
        version: u32,
        window: Window,
        t: LogTime,
        (value, support): (Option<f64>, u64),
        detail: serde_json::Value,
    ) -> Closed {
        if support == 0 {
            return Closed::default();
        }
        let alarm =
            matches!((self.limit, value), (Some(limit), Some(value)) if !limit.holds(value));
        let row = DriftRow {
            version,
            t,
            window,
            kind: RowKind::Performance,
            subject: self.name.clone(),
            slice: None,
            test: self.name.clone(),
            value,
            p_value: None,
            threshold: self.limit.map(Limit::value),
            alarm,
            rows: support,
            detail: detail.to_string(),
        };
        let figure = self.name.clone();
        let finding = Finding::Figure { version, window, figure, value, support };
        Closed { rows: vec![row], findings: vec![finding] }
    }
}
