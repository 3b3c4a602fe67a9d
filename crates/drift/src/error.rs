//! What can be wrong with the inputs of a score.
//!
//! Does not know which column they belong to: the caller adds that.

use thiserror::Error;

/// An input that no score can be made of.
#[derive(Clone, Debug, PartialEq, Error)]
pub enum DriftError {
    /// Nothing to compare.
    #[error("{0} holds no values: wait for a window that does")]
    Empty(&'static str),
    /// Two summaries that do not count the same bins.
    #[error("the two summaries count different bins: score both by one bin definition")]
    DifferentBins,
    /// Two lists that should be equally long.
    #[error("{what}: {left} values against {right}")]
    DifferentLengths {
        /// Which lists.
        what: &'static str,
        /// The length of the first.
        left: usize,
        /// The length of the second.
        right: usize,
    },
    /// A parameter outside its range.
    #[error("{what} is {value}: {rule}")]
    BadParameter {
        /// Which.
        what: &'static str,
        /// Its value.
        value: f64,
        /// What it should be.
        rule: &'static str,
    },
    /// A metric that this kind of column does not have.
    #[error("{metric} is not defined for a {column} column")]
    Undefined {
        /// The metric.
        metric: &'static str,
        /// The kind of column.
        column: &'static str,
    },
    /// More was subtracted than had been added.
    #[error("{0} would count below zero: subtract only what was added")]
    Underflow(&'static str),
}
