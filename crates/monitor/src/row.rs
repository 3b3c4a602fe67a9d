//! What monitoring says: rows of `falaj.drift`, and findings for whoever acts on them.
//!
//! Does not know how either is written down or acted on.

use falaj_event::LogTime;
use serde::{Deserialize, Serialize};

/// A stretch of `T`: from `start` up to, not including, `end`. Tumbling windows begin at multiples
/// of their length since 1970 UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Window {
    /// Its first instant.
    pub start: LogTime,
    /// The instant after its last.
    pub end: LogTime,
}

impl Window {
    /// The window number `index` of this length.
    pub fn tumbling(index: u64, length_us: u64) -> Self {
        let start = index.saturating_mul(length_us);
        Self { start: LogTime(start), end: LogTime(start.saturating_add(length_us)) }
    }
}

/// What was measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RowKind {
    /// Inputs and scores against the reference.
    Drift,
    /// Predictions against their labels.
    Performance,
    /// Predictions against labels that have not come.
    Estimate,
    /// A detector over the stream of errors raised an alarm.
    Detector,
}

impl RowKind {
    /// The word in events.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Drift => "drift",
            Self::Performance => "performance",
            Self::Estimate => "estimate",
            Self::Detector => "detector",
        }
    }
}

/// One row of `falaj.drift`.
#[derive(Clone, Debug, PartialEq)]
pub struct DriftRow {
    /// The model version that is watched.
    pub version: u32,
    /// `T` of the epoch that closed the window.
    pub t: LogTime,
    /// The window.
    pub window: Window,
    /// What was measured.
    pub kind: RowKind,
    /// The input, `score`, `predicted`, `inputs` (all together), or the figure.
    pub subject: String,
    /// `COLUMN=VALUE` where it is of a slice.
    pub slice: Option<String>,
    /// The statistic, or the figure.
    pub test: String,
    /// Its value; `None` where the window did not suffice.
    pub value: Option<f64>,
    /// The p-value after correction, where there is one.
    pub p_value: Option<f64>,
    /// What it was compared to.
    pub threshold: Option<f64>,
    /// Whether it is an alarm.
    pub alarm: bool,
    /// Rows of the window (of the slice).
    pub rows: u64,
    /// Bins, counts and settings, as JSON: enough to compute the value again.
    pub detail: String,
}

impl DriftRow {
    /// The bytes that tell this row from others of its cause: pipeline and place.
    pub fn key(&self, pipeline: &str) -> Vec<u8> {
        let slice = self.slice.as_deref().unwrap_or_default();
        let words = [pipeline, self.kind.as_str(), &self.subject, slice, &self.test];
        let mut key = Vec::new();
        for word in words {
            key.extend_from_slice(&(word.len() as u64).to_be_bytes());
            key.extend_from_slice(word.as_bytes());
        }
        key.extend_from_slice(&self.version.to_be_bytes());
        key.extend_from_slice(&self.window.start.0.to_be_bytes());
        key.extend_from_slice(&self.window.end.0.to_be_bytes());
        key
    }
}

/// What a closed window or a detector means for triggers and guardrails; whole windows only, no
/// slices.
#[derive(Clone, Debug, PartialEq)]
pub enum Finding {
    /// A drift window of one version was judged.
    Drift {
        /// The version.
        version: u32,
        /// The window.
        window: Window,
        /// The columns that were judged.
        watched: Vec<String>,
        /// Those in alarm.
        alarmed: Vec<String>,
        /// Alarms of detectors over the version's errors within the window.
        detected: u64,
    },
    /// A window of a figure closed.
    Figure {
        /// The version.
        version: u32,
        /// The window.
        window: Window,
        /// The figure.
        figure: String,
        /// Its value, where there is one.
        value: Option<f64>,
        /// Rows behind it.
        support: u64,
    },
    /// A detector raised an alarm.
    Detector {
        /// The version.
        version: u32,
        /// From the detector's beginning (or its last alarm) to this `T`.
        window: Window,
        /// Which.
        detector: String,
    },
}
