//! Counters of a running engine.
//!
//! Does not know who reads them or how they are exported.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use falaj_event::ViewId;

/// Live counters, shared by all workers. They describe the work done by this engine since it was
/// started and are no part of any result.
#[derive(Debug, Default)]
pub struct Metrics {
    /// Rows of submitted topics that some view reads.
    pub(crate) events: AtomicU64,
    /// Of those, rows with event_time < `T`.
    pub(crate) late: AtomicU64,
    /// Of those, rows with event_time > `T`.
    pub(crate) future: AtomicU64,
    /// Rows that wait for their event time now.
    pub(crate) waiting: AtomicI64,
    /// Cells of prepared or finished rows, keys and predicates that failed.
    pub(crate) expression_errors: AtomicU64,
    /// Epochs completed by every worker.
    pub(crate) epochs: AtomicU64,
    views: BTreeMap<ViewId, ViewCounters>,
}

/// Counters of one view.
#[derive(Debug, Default)]
pub(crate) struct ViewCounters {
    pub(crate) rows: AtomicU64,
    pub(crate) bytes: AtomicU64,
    pub(crate) keys: AtomicI64,
    pub(crate) tiles: AtomicI64,
    pub(crate) state_bytes: AtomicI64,
}

/// The counters at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MetricsSnapshot {
    /// Rows of submitted topics that some view reads.
    pub events: u64,
    /// Of those, rows with event_time < `T`.
    pub late: u64,
    /// Of those, rows with event_time > `T`.
    pub future: u64,
    /// Rows that wait for their event time now.
    pub waiting: i64,
    /// Cells, keys and predicates whose computation failed.
    pub expression_errors: u64,
    /// Epochs completed by every worker.
    pub epochs: u64,
    /// Per view.
    pub views: BTreeMap<ViewId, ViewMetrics>,
}

/// One view's counters at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ViewMetrics {
    /// Row changes emitted.
    pub rows: u64,
    /// Bytes of row changes emitted.
    pub bytes: u64,
    /// Keys held by the view's operator.
    pub keys: i64,
    /// Tiles held by the view's operator.
    pub tiles: i64,
    /// Approximate bytes held by the view's operator.
    pub state_bytes: i64,
}

impl Metrics {
    pub(crate) fn new(views: impl IntoIterator<Item = ViewId>) -> Self {
        let views = views.into_iter().map(|view| (view, ViewCounters::default())).collect();
        Self { views, ..Self::default() }
    }

    pub(crate) fn view(&self, view: ViewId) -> Option<&ViewCounters> {
        self.views.get(&view)
    }

    pub(crate) fn count(counter: &AtomicU64, by: usize) {
        if by > 0 {
            counter.fetch_add(by as u64, Ordering::Relaxed);
        }
    }

    /// The counters now. Counters are read one by one: a snapshot under load is approximate.
    pub fn snapshot(&self) -> MetricsSnapshot {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        MetricsSnapshot {
            events: read(&self.events),
            late: read(&self.late),
            future: read(&self.future),
            waiting: self.waiting.load(Ordering::Relaxed),
            expression_errors: read(&self.expression_errors),
            epochs: read(&self.epochs),
            views: self
                .views
                .iter()
                .map(|(view, counters)| {
                    let metrics = ViewMetrics {
                        rows: read(&counters.rows),
                        bytes: read(&counters.bytes),
                        keys: counters.keys.load(Ordering::Relaxed),
                        tiles: counters.tiles.load(Ordering::Relaxed),
                        state_bytes: counters.state_bytes.load(Ordering::Relaxed),
                    };
                    (*view, metrics)
                })
                .collect(),
        }
    }
}
