//! Whole rows of the reference, for tests that look at all columns together.
//!
//! A number is one column (NaN where missing), a name is one indicator column for each of the most
//! frequent names. Does not know the tests.

use std::collections::BTreeMap;

use falaj_drift::reconstruction::{DEFAULT_SHARE, PrincipalComponents};
use falaj_drift::{DriftError, Spread};
use falaj_event::Value;
use serde::{Deserialize, Serialize};

use crate::values::{name_of, number_of};

/// Rows that the reference and each window keep.
pub const MATRIX_ROWS: usize = 500;
/// Names that get a column of their own.
const INDICATORS: usize = 6;

/// What a watched input becomes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Encoding {
    /// Itself.
    Number,
    /// One indicator per name.
    Names(Vec<String>),
}

impl Encoding {
    /// An encoding of the most frequent of `names` (which are in that order).
    pub(super) fn of_names<'a>(names: impl Iterator<Item = &'a str>) -> Self {
        Self::Names(names.take(INDICATORS).map(str::to_owned).collect())
    }

    /// Appends the columns of one value.
    pub fn encode(&self, value: &Value, row: &mut Vec<f64>) {
        match self {
            Self::Number => row.push(number_of(value).unwrap_or(f64::NAN)),
            Self::Names(names) => {
                let name = name_of(value);
                let is = |known: &String| name.as_deref() == Some(known.as_str());
                row.extend(names.iter().map(|known| f64::from(u8::from(is(known)))));
            }
        }
    }
}

/// A row whose floats come back bit for bit.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct MatrixRow(#[serde(with = "falaj_drift::exact::list")] pub Vec<f64>);

/// Sampled rows of the reference.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MatrixReference {
    /// One per watched input, in order.
    pub encodings: Vec<Encoding>,
    /// At most [`MATRIX_ROWS`] rows.
    pub rows: Vec<MatrixRow>,
    /// Their principal components, where reconstruction is declared.
    pub components: Option<PrincipalComponents>,
    /// The reconstruction error from chunk to chunk, in samples as large as a window's.
    pub error: Option<Spread>,
}

impl MatrixReference {
    /// Of sampled rows, and of the samples of each chunk where reconstruction is declared.
    pub(super) fn of(
        encodings: Vec<Encoding>,
        rows: Vec<Vec<f64>>,
        chunks: Option<&[Vec<Vec<f64>>]>,
    ) -> Result<Self, DriftError> {
        let (mut components, mut error) = (None, None);
        if let Some(chunks) = chunks {
            let found = PrincipalComponents::fit(&rows, DEFAULT_SHARE)?;
            let errors = chunks.iter().map(|chunk| found.error(chunk));
            let errors = errors.collect::<Result<Vec<f64>, _>>()?;
            let least = chunks.iter().map(|chunk| chunk.len() as u64).min().unwrap_or(0);
            error = Spread::of(&errors, least).ok();
            components = Some(found);
        }
        let rows = rows.into_iter().map(MatrixRow).collect();
        Ok(Self { encodings, rows, components, error })
    }
}

/// The rows whose hashes are the least: a uniform sample, whatever the order of arrival.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RowSample {
    rows: BTreeMap<u64, Vec<f64>>,
}

crate::kept::kept!(RowSample { rows });

impl RowSample {
    /// Whether a row with this hash would be kept: what is not is not even encoded.
    pub fn wants(&self, hash: u64) -> bool {
        self.rows.len() < MATRIX_ROWS
            || self.rows.last_key_value().is_some_and(|(greatest, _)| hash < *greatest)
    }

    /// Adds a row.
    pub fn add(&mut self, hash: u64, row: Vec<f64>) {
        self.rows.insert(hash, row);
        if self.rows.len() > MATRIX_ROWS {
            self.rows.pop_last();
        }
    }

    /// The rows, by hash.
    pub fn into_rows(self) -> Vec<Vec<f64>> {
        self.rows.into_values().collect()
    }

    /// The rows, by hash.
    pub fn rows(&self) -> Vec<Vec<f64>> {
        self.rows.values().cloned().collect()
    }
}
