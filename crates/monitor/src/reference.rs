//! What the rows looked like that a model version was trained on: what its windows are compared to.
//!
//! Made once, at training, from the training rows (inputs) and from the held-out rows (scores and
//! figures, because a model flatters the rows that it has seen), and stored beside the artifact. The
//! same rows in the same order give the same bytes. It carries, per column and test, the spread of
//! the reference's own chunks, so that alarms are relative to what the reference does to itself.
//! Does not know the model.

mod build;
mod calibration;
mod columns;
mod matrix;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use falaj_drift::{ColumnSummary, Metric, Spread};
use serde::{Deserialize, Serialize};

pub use build::{HeldOut, ReferenceRows};
pub use calibration::{CalibrationStep, calibrated};
pub use matrix::{Encoding, MATRIX_ROWS, MatrixReference, MatrixRow, RowSample};

/// The format of [`ReferenceSet`]; another one is refused.
pub const REFERENCE_FORMAT: u32 = 1;

/// The greatest number of values of a numeric column that the reference keeps.
pub const REFERENCE_SAMPLE: usize = 2_000;
/// The greatest number of values of a numeric column that a window keeps. Up to as many rows, the
/// tests on samples are exact.
pub const WINDOW_SAMPLE: usize = 1_000;
/// Names of a column that are told apart: the most frequent ones of the reference.
pub const NAMES: usize = 64;
/// Values of a slice column that are told apart: the most frequent ones of the reference.
pub const SLICE_VALUES: usize = 8;

/// One column of the reference.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ColumnReference {
    /// The input's name; `score`; `predicted`.
    pub name: String,
    /// Its values.
    #[serde(with = "summary_form")]
    pub summary: ColumnSummary,
    /// What each test does from chunk to chunk; none where there were too few rows.
    pub spreads: BTreeMap<Metric, Spread>,
}

/// The kind around the summary, not in it: what is read through a tag inside loses the numbers that
/// JSON writes as keys.
mod summary_form {
    use falaj_drift::{CategorySummary, ColumnSummary, NumericSummary};
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    #[derive(Serialize)]
    #[serde(rename_all = "snake_case")]
    enum Borrowed<'a> {
        Numeric(&'a NumericSummary),
        Category(&'a CategorySummary),
    }

    #[derive(Deserialize)]
    #[serde(rename_all = "snake_case")]
    enum Owned {
        Numeric(NumericSummary),
        Category(CategorySummary),
    }

    pub(super) fn serialize<S: Serializer>(
        summary: &ColumnSummary,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        match summary {
            ColumnSummary::Numeric(summary) => Borrowed::Numeric(summary),
            ColumnSummary::Category(summary) => Borrowed::Category(summary),
        }
        .serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<ColumnSummary, D::Error> {
        Ok(match Owned::deserialize(deserializer)? {
            Owned::Numeric(summary) => ColumnSummary::Numeric(summary),
            Owned::Category(summary) => ColumnSummary::Category(summary),
        })
    }
}

/// The rows with one value of a slice column.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SliceReference {
    /// The slice column.
    pub column: String,
    /// Its value, as text.
    pub value: String,
    /// The watched inputs, in order. Without samples.
    pub inputs: Vec<ColumnReference>,
}

/// A figure of the held-out rows and what it does from chunk to chunk.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct FigureReference {
    /// Over all held-out rows.
    #[serde(with = "falaj_drift::exact::value")]
    pub value: f64,
    /// Over their chunks; `None` where there were too few rows.
    pub spread: Option<Spread>,
}

/// Everything that a version's windows are compared to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ReferenceSet {
    /// [`REFERENCE_FORMAT`].
    pub format: u32,
    /// Training rows.
    pub rows: u64,
    /// Held-out rows.
    pub held_out_rows: u64,
    /// The watched inputs, in the order of the settings' columns.
    pub inputs: Vec<ColumnReference>,
    /// Scores of the held-out rows.
    pub score: Option<ColumnReference>,
    /// Classes foretold for the held-out rows.
    pub predicted: Option<ColumnReference>,
    /// The watched inputs within the most frequent values of each slice column.
    pub slices: Vec<SliceReference>,
    /// Figures of the held-out rows.
    pub figures: BTreeMap<String, FigureReference>,
    /// Scores as probabilities; empty where they are.
    pub calibration: Vec<CalibrationStep>,
    /// Whole rows, where a test of all inputs together is declared.
    pub matrix: Option<MatrixReference>,
}

impl ReferenceSet {
    /// The bytes to store: canonical JSON.
    pub fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// Reads stored bytes.
    ///
    /// # Errors
    /// Where they are none, or of another format.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, ReferenceError> {
        let found: Self = serde_json::from_slice(bytes)
            .map_err(|error| ReferenceError::Unreadable(error.to_string()))?;
        match found.format {
            REFERENCE_FORMAT => Ok(found),
            other => Err(ReferenceError::Format(other)),
        }
    }
}

/// What can be wrong with a reference.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum ReferenceError {
    /// A training row of another width.
    #[error("a training row has {found} inputs, the signature {expected}: give them in its order")]
    Width {
        /// The signature's.
        expected: usize,
        /// The row's.
        found: usize,
    },
    /// No rows.
    #[error("there are no training rows to compare windows to")]
    Empty,
    /// The arithmetic refused.
    #[error("column `{column}`: {source}")]
    Column {
        /// The column.
        column: String,
        /// Why.
        source: falaj_drift::DriftError,
    },
    /// Bytes that are no reference.
    #[error("these bytes are no reference: {0}")]
    Unreadable(String),
    /// A reference of another program.
    #[error("the reference is of format {0}, this program reads {REFERENCE_FORMAT}: train again")]
    Format(u32),
}
