//! What the events of a topic must meet: declared checks, evaluated over whole batches.
//!
//! Does not know where batches come from nor where rejected rows go.

use regex::Regex;

use falaj_event::Value;

/// One declared check on one column.
#[derive(Clone, Debug)]
pub struct Expectation {
    /// Index into the topic's columns.
    pub column: usize,
    /// What is expected of it.
    pub rule: Rule,
}

/// What is expected of a column's values. NULL meets every rule but [`Rule::NotNull`].
#[derive(Clone, Debug)]
pub enum Rule {
    /// No NULL in new events, although the column can hold it (older events do).
    NotNull,
    /// Least and greatest allowed value, both included; of the column's type. NaN is outside.
    Between(Value, Value),
    /// The allowed values, sorted; of the column's type.
    OneOf(Vec<Value>),
    /// The pattern that the whole string must match, as written and compiled (anchored).
    Matches(String, Regex),
    /// No other event of the topic with the same value was accepted within this time of `T`.
    /// Microseconds.
    UniqueWithin(u64),
}
