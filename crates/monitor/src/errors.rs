//! Detectors over the stream of errors of served predictions, one value per judged prediction in the
//! order of the log.
//!
//! The error is 0 or 1 for classes, the absolute error for numbers. Every version has detectors of
//! its own: a new model starts a new stream. A correction of a label is not a new error. Cost per
//! judgement: constant per detector (ADWIN logarithmic, amortised). Does not know windows.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use falaj_drift::detectors::{Detector, Signal};
use falaj_event::LogTime;
use serde_json::json;

use crate::judge::Judgement;
use crate::kept::{Kept, kept, put_json, take_json};
use crate::row::{DriftRow, Finding, RowKind, Window};
use crate::settings::MonitorSettings;
use crate::windows::Closed;

/// Newest errors whose mean is told with an alarm.
const RECENT: usize = 64;
/// Versions whose streams are kept: those judged last.
const MOST_VERSIONS: usize = 8;

/// The streams of one pipeline.
#[derive(Clone, Debug)]
pub struct ErrorStreams {
    settings: Arc<MonitorSettings>,
    streams: BTreeMap<u32, Stream>,
}

#[derive(Clone, Debug)]
struct Stream {
    detectors: Vec<Watcher>,
    recent: VecDeque<f64>,
    last: LogTime,
}

/// A detector and the errors since it began or last raised an alarm.
#[derive(Clone, Debug)]
struct Watcher {
    name: String,
    detector: Detector,
    since: LogTime,
    seen: u64,
    sum: f64,
}

impl Kept for Watcher {
    fn put(&self, out: &mut Vec<u8>) {
        self.name.put(out);
        put_json(&self.detector, out);
        (self.since, self.seen, self.sum).put(out);
    }

    fn take(bytes: &mut &[u8]) -> Option<Self> {
        let (name, detector) = (String::take(bytes)?, take_json(bytes)?);
        let (since, seen, sum) = Kept::take(bytes)?;
        Some(Self { name, detector, since, seen, sum })
    }
}

kept!(Stream { detectors, recent, last });

/// A judgement as an error: 1 for a wrong class, the absolute error of a number.
pub fn error_of(judgement: &Judgement) -> Option<f64> {
    let of_class = judgement.correct.map(|correct| f64::from(u8::from(!correct)));
    of_class.or(judgement.error.map(f64::abs))
}

impl ErrorStreams {
    /// Nothing seen yet.
    pub fn new(settings: Arc<MonitorSettings>) -> Self {
        Self { settings, streams: BTreeMap::new() }
    }

    /// Appends what it has seen.
    pub fn save(&self, out: &mut Vec<u8>) {
        self.streams.put(out);
    }

    /// What [`ErrorStreams::save`] wrote, under the same settings.
    pub fn restore(settings: Arc<MonitorSettings>, bytes: &mut &[u8]) -> Option<Self> {
        Some(Self { settings, streams: Kept::take(bytes)? })
    }

    /// Takes the error of a served prediction of `version` that was judged at `t`.
    pub fn take(&mut self, t: LogTime, version: u32, error: f64) -> Closed {
        let mut closed = Closed::default();
        if self.settings.detectors.is_empty() || !error.is_finite() {
            return closed;
        }
        let settings = &self.settings;
        let stream =
            self.streams.entry(version).or_insert_with(|| Stream::new(settings, version, t));
        stream.last = t;
        stream.recent.push_back(error);
        if stream.recent.len() > RECENT {
            stream.recent.pop_front();
        }
        let recent = || stream.recent.iter().sum::<f64>() / stream.recent.len() as f64;
        for watcher in &mut stream.detectors {
            watcher.seen += 1;
            watcher.sum += error;
            if watcher.detector.update(error) == Signal::Drift {
                closed.extend(watcher.alarm(version, t, recent()));
            }
        }
        self.forget();
        closed
    }

    fn forget(&mut self) {
        while self.streams.len() > MOST_VERSIONS {
            let oldest = self.streams.iter().min_by_key(|(version, own)| (own.last, **version));
            let Some(version) = oldest.map(|(version, _)| *version) else { return };
            self.streams.remove(&version);
        }
    }
}

impl Stream {
    fn new(settings: &MonitorSettings, version: u32, since: LogTime) -> Self {
        let watcher = |name: &String| {
            let detector = Detector::by_name(name, u64::from(version))?;
            Some(Watcher { name: name.clone(), detector, since, seen: 0, sum: 0.0 })
        };
        Self {
            detectors: settings.detectors.iter().filter_map(watcher).collect(),
            recent: VecDeque::new(),
            last: since,
        }
    }
}

impl Watcher {
    fn alarm(&mut self, version: u32, t: LogTime, recent: f64) -> Closed {
        let window = Window { start: self.since, end: LogTime(t.0.saturating_add(1)) };
        let mean = self.sum / self.seen.max(1) as f64;
        let detail = json!({
            "errors_since_the_last_alarm": self.seen,
            "their_mean": mean,
            "mean_of_the_newest": recent,
            "newest": RECENT,
        });
        let row = DriftRow {
            version,
            t,
            window,
            kind: RowKind::Detector,
            subject: "error".to_owned(),
            slice: None,
            test: self.name.clone(),
            value: Some(recent),
            p_value: None,
            threshold: None,
            alarm: true,
            rows: self.seen,
            detail: detail.to_string(),
        };
        let detector = self.name.clone();
        (self.since, self.seen, self.sum) = (t, 0, 0.0);
        Closed { rows: vec![row], findings: vec![Finding::Detector { version, window, detector }] }
    }
}
