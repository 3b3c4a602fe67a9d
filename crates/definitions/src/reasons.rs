//! Why a row is refused: a stable code, the column and words with the value.
//!
//! Does not know how reasons are found or where refused rows go.

use std::fmt;

use falaj_event::Value;
use serde::{Deserialize, Serialize};

/// The kind of a reason; its name is stored in rejected topics and never changes meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReasonCode {
    /// The row is not what its format says (not JSON, not an object, wrong number of fields).
    Malformed,
    /// A field that the topic does not have, or twice the same.
    UnknownField,
    /// A value of another type than its column.
    WrongType,
    /// A value of the right kind that the column's type cannot hold exactly.
    OutOfRange,
    /// NULL, or no value at all, where there must be one.
    Null,
    /// Outside `between`.
    NotBetween,
    /// Not among `one_of`.
    NotOneOf,
    /// Does not match `matches`.
    NotMatching,
    /// Dated later than `T` and the topic's skew allow.
    TooFarAhead,
    /// The value was there before, within `unique_within`.
    NotUnique,
    /// A delete of a key that has no row.
    MissingKey,
    /// An operation that the topic's kind does not have.
    WrongOperation,
}

impl ReasonCode {
    /// The stored name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::UnknownField => "unknown_field",
            Self::WrongType => "wrong_type",
            Self::OutOfRange => "out_of_range",
            Self::Null => "null",
            Self::NotBetween => "not_between",
            Self::NotOneOf => "not_one_of",
            Self::NotMatching => "not_matching",
            Self::TooFarAhead => "too_far_ahead",
            Self::NotUnique => "not_unique",
            Self::MissingKey => "missing_key",
            Self::WrongOperation => "wrong_operation",
        }
    }
}

/// One reason why a row is refused. Values of personal data are not repeated in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Reason {
    /// Its kind.
    pub code: ReasonCode,
    /// The column; `None` where it concerns the whole row.
    pub column: Option<String>,
    /// In words, with the value.
    pub text: String,
}

impl Reason {
    /// A reason that concerns a column.
    pub fn of(code: ReasonCode, column: &str, text: impl Into<String>) -> Self {
        Self { code, column: Some(column.to_owned()), text: text.into() }
    }

    /// A reason that concerns the whole row.
    pub fn row(code: ReasonCode, text: impl Into<String>) -> Self {
        Self { code, column: None, text: text.into() }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// All reasons against one row of a batch; at least one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RowReasons {
    /// The row, from 0.
    pub row: usize,
    /// Every reason, in the order of the topic's columns.
    pub reasons: Vec<Reason>,
}

/// A refused row, as it will stand in the rejected topic.
#[derive(Clone, Debug, PartialEq)]
pub struct RejectedRow {
    /// Its position in what the producer sent, from 0.
    pub position: u32,
    /// Every reason.
    pub reasons: Vec<Reason>,
    /// The value of the topic's subject column, where it could be read; else NULL.
    pub subject: Value,
    /// The row as it came: JSON, or the raw text where it was none.
    pub row: String,
}

/// Reasons by row, collected in any order.
#[derive(Debug, Default)]
pub(crate) struct Collected(std::collections::BTreeMap<usize, Vec<Reason>>);

impl Collected {
    pub fn add(&mut self, row: usize, reason: Reason) {
        self.0.entry(row).or_default().push(reason);
    }

    pub fn into_rows(self) -> Vec<RowReasons> {
        self.0.into_iter().map(|(row, reasons)| RowReasons { row, reasons }).collect()
    }
}
