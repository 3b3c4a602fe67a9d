//! What is watched, and how closely: a pipeline's monitors as plain settings.
//!
//! Does not know files or pipelines: whoever reads those fills this in.

use falaj_drift::Metric;
pub use falaj_drift::correction::Correction;
use serde::{Deserialize, Serialize};

use crate::Task;

/// How an input's values are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ColumnKind {
    /// As numbers: integers, floats, decimals.
    Number,
    /// As names: strings, bools, and whatever is declared categorical.
    Name,
}

/// One input of the model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InputColumn {
    /// Its name in the signature.
    pub name: String,
    /// How its values are counted.
    pub kind: ColumnKind,
}

/// A declared test.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Test {
    /// Of each column by itself.
    Column(Metric),
    /// Of all inputs together: can a classifier tell the window from the reference?
    DomainClassifier,
    /// Of all inputs together: do the reference's principal components still describe them?
    Reconstruction,
}

impl Test {
    /// The test of a name, as files have it.
    pub fn from_name(name: &str) -> Option<Self> {
        match name {
            "ks" => Some(Self::Column(Metric::KolmogorovSmirnov)),
            "range" => Some(Self::Column(Metric::OutOfRange)),
            "domain_classifier" => Some(Self::DomainClassifier),
            "reconstruction" => Some(Self::Reconstruction),
            other => Metric::from_name(other).map(Self::Column),
        }
    }

    /// Its name in files and events.
    pub fn name(self) -> &'static str {
        match self {
            Self::Column(Metric::KolmogorovSmirnov) => "ks",
            Self::Column(Metric::OutOfRange) => "range",
            Self::Column(metric) => metric.name(),
            Self::DomainClassifier => "domain_classifier",
            Self::Reconstruction => "reconstruction",
        }
    }
}

/// A declared limit of a figure.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Limit {
    /// The value or more is well.
    AtLeast(f64),
    /// The value or less is well.
    AtMost(f64),
}

impl Limit {
    /// Whether `value` is well; NaN never is.
    pub fn holds(self, value: f64) -> bool {
        match self {
            Self::AtLeast(limit) => value >= limit,
            Self::AtMost(limit) => value <= limit,
        }
    }

    /// The number.
    pub fn value(self) -> f64 {
        match self {
            Self::AtLeast(limit) | Self::AtMost(limit) => limit,
        }
    }
}

/// A figure that is followed in windows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Figure {
    /// A metric of [`crate::metrics`], or `mean_score`.
    pub name: String,
    /// Its declared limit; `None`: what the reference does.
    pub limit: Option<Limit>,
}

/// Windows of one length, and the figures that are followed in them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FigureWindows {
    /// Length in microseconds; above 0.
    pub length_us: u64,
    /// The figures, in the order of reports.
    pub figures: Vec<Figure>,
}

/// Everything that is watched about one pipeline.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MonitorSettings {
    /// The pipeline.
    pub pipeline: String,
    /// What it foretells.
    pub task: Task,
    /// Binary: a score from here on is labelled positive.
    pub threshold: f64,
    /// The model's inputs, in signature order.
    pub inputs: Vec<InputColumn>,
    /// Positions of the inputs whose drift is measured.
    pub columns: Vec<usize>,
    /// Positions of the inputs by whose values drift and figures are told apart.
    pub slices: Vec<usize>,
    /// Length of a drift window in microseconds; above 0.
    pub window_us: u64,
    /// Windows (of slices: their part of the window) of fewer rows are not judged.
    pub min_rows: u64,
    /// The declared tests, in order.
    pub tests: Vec<Test>,
    /// What is done about many tests at once.
    pub correction: Correction,
    /// Level of significance after correction.
    pub alpha: f64,
    /// How many of the reference's own chunk-to-chunk deviations beyond its mean are an alarm.
    pub spread: f64,
    /// Detectors over the stream of errors, by name (see [`falaj_drift::detectors`]).
    pub detectors: Vec<String>,
    /// Figures followed as labels arrive, by length of window.
    pub figures: Vec<FigureWindows>,
    /// Whether performance is estimated before labels arrive.
    pub estimate: bool,
}

impl MonitorSettings {
    /// The tests of single columns, in order.
    pub fn column_tests(&self) -> impl Iterator<Item = Metric> {
        self.tests.iter().filter_map(|test| match test {
            Test::Column(metric) => Some(*metric),
            _ => None,
        })
    }

    /// Whether this test is declared.
    pub fn declares(&self, test: Test) -> bool {
        self.tests.contains(&test)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_go_both_ways() {
        for name in [
            "psi",
            "ks",
            "jensen_shannon",
            "hellinger",
            "chi_square",
            "wasserstein",
            "missing_rate",
            "range",
            "domain_classifier",
            "reconstruction",
        ] {
            assert_eq!(Test::from_name(name).unwrap().name(), name);
        }
        assert_eq!(Test::from_name("psii"), None);
    }
}
