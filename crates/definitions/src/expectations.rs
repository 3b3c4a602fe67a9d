//! What the events of a topic must meet: declared checks, evaluated over whole batches.
//!
//! Stateless checks are made here, at the door; those that need `T` or earlier events are made when
//! an epoch closes (see [`crate::admission`]). Does not know where batches come from nor where
//! refused rows go.

#[cfg(test)]
mod tests;

use std::sync::Arc;

use arrow::array::{Array, ArrowPrimitiveType, PrimitiveArray, StringArray};
use arrow::record_batch::RecordBatch;
use falaj_event::cells::{Cells, UnsupportedArrowType};
use falaj_event::{Column, Op, TopicKind, TopicSchema, Value};
use regex::Regex;

use crate::reasons::{Collected, Reason, ReasonCode, RowReasons};
use crate::text::show;
use crate::topics::TopicDefinition;

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

/// The stateless checks of one topic.
#[derive(Clone, Debug)]
pub struct Checks {
    topic: Arc<TopicDefinition>,
}

impl Checks {
    /// The checks of `topic`.
    pub fn new(topic: Arc<TopicDefinition>) -> Self {
        Self { topic }
    }

    /// The topic.
    pub fn topic(&self) -> &Arc<TopicDefinition> {
        &self.topic
    }

    /// Every reason against every row of `batch`, whose columns are the topic's, in declared types
    /// and order; `ops` gives each row's operation. Rows without a reason are not in the answer.
    ///
    /// A delete carries the key and the event time; nothing else of it is looked at.
    ///
    /// # Errors
    /// When a column is of a type that no topic has.
    pub fn check(
        &self,
        ops: impl Fn(usize) -> Op,
        batch: &RecordBatch,
    ) -> Result<Vec<RowReasons>, UnsupportedArrowType> {
        let schema = &self.topic.schema;
        let mut found = Collected::default();
        for row in 0..batch.num_rows() {
            if let Some(reason) = wrong_operation(schema.kind, ops(row)) {
                found.add(row, reason);
            }
        }
        for (index, (column, array)) in schema.columns.iter().zip(batch.columns()).enumerate() {
            let cells = Cells::new(array.as_ref())?;
            let in_deletes = is_in_deletes(schema, index);
            let looked_at = |row: usize| in_deletes || ops(row) != Op::Delete;
            let rules = || {
                let all = self.topic.expectations.iter();
                all.filter(|expectation| expectation.column == index)
                    .map(|expectation| &expectation.rule)
            };
            let must_be = !column.nullable || rules().any(|rule| matches!(rule, Rule::NotNull));
            if must_be && array.null_count() > 0 {
                for row in (0..array.len()).filter(|row| array.is_null(*row) && looked_at(*row)) {
                    let text = format!("{} is missing or NULL", column.name);
                    found.add(row, Reason::of(ReasonCode::Null, &column.name, text));
                }
            }
            for rule in rules() {
                for row in
                    failing(rule, &cells, array.len()).into_iter().filter(|row| looked_at(*row))
                {
                    found.add(row, reason(rule, column, &cells, row));
                }
            }
        }
        Ok(found.into_rows())
    }
}

/// Whether deletes of a table topic carry this column.
pub(crate) fn is_in_deletes(schema: &TopicSchema, column: usize) -> bool {
    column == schema.event_time || schema.key.contains(&column)
}

fn wrong_operation(kind: TopicKind, op: Op) -> Option<Reason> {
    let text = match (kind, op) {
        (TopicKind::Event, Op::Insert) | (TopicKind::Table, Op::Upsert | Op::Delete) => {
            return None;
        }
        (TopicKind::Event, Op::Upsert) => "an event topic takes inserts only, not an upsert",
        (TopicKind::Event, Op::Delete) => "an event topic takes inserts only, not a delete",
        (TopicKind::Table, Op::Insert) => "a table topic takes upserts and deletes, not an insert",
    };
    Some(Reason::row(ReasonCode::WrongOperation, text))
}

fn reason(rule: &Rule, column: &Column, cells: &Cells<'_>, row: usize) -> Reason {
    let name = &column.name;
    // Reasons are stored unsealed.
    let subject = match column.pii {
        true => name.clone(),
        false => format!("{name} = {}", show(&cells.value(row))),
    };
    let (code, what) = match rule {
        Rule::Between(least, greatest) => (
            ReasonCode::NotBetween,
            format!("is not between {} and {}", show(least), show(greatest)),
        ),
        Rule::OneOf(allowed) => {
            let shown: Vec<String> = allowed.iter().take(8).map(show).collect();
            let more = if allowed.len() > 8 { ", …" } else { "" };
            (ReasonCode::NotOneOf, format!("is not one of {}{more}", shown.join(", ")))
        }
        Rule::Matches(pattern, _) => (ReasonCode::NotMatching, format!("does not match {pattern}")),
        Rule::NotNull | Rule::UniqueWithin(_) => (ReasonCode::Null, "is missing".into()),
    };
    Reason::of(code, name, format!("{subject} {what}"))
}

/// The rows that break a stateless rule, ascending.
fn failing(rule: &Rule, cells: &Cells<'_>, rows: usize) -> Vec<usize> {
    match (rule, cells) {
        (Rule::Between(least, greatest), _) => outside(cells, least, greatest),
        (Rule::OneOf(allowed), Cells::String(array)) => {
            let allowed: Vec<&str> = allowed
                .iter()
                .filter_map(|value| match value {
                    Value::String(text) => Some(text.as_ref()),
                    _ => None,
                })
                .collect();
            strings(array, |text| allowed.binary_search(&text).is_ok())
        }
        (Rule::OneOf(allowed), _) => (0..rows)
            .filter(|row| {
                !cells.is_null(*row) && allowed.binary_search(&cells.value(*row)).is_err()
            })
            .collect(),
        (Rule::Matches(_, regex), Cells::String(array)) => {
            strings(array, |text| regex.is_match(text))
        }
        // Nullability is looked at once per column; uniqueness when the epoch closes.
        (Rule::NotNull | Rule::UniqueWithin(_) | Rule::Matches(..), _) => Vec::new(),
    }
}

fn strings(array: &StringArray, fits: impl Fn(&str) -> bool) -> Vec<usize> {
    (0..array.len()).filter(|row| array.is_valid(*row) && !fits(array.value(*row))).collect()
}

fn values<T: ArrowPrimitiveType>(
    array: &PrimitiveArray<T>,
    fits: impl Fn(T::Native) -> bool,
) -> Vec<usize> {
    let cells = array.values().iter().enumerate();
    cells
        .filter(|(row, value)| !fits(**value) && array.is_valid(*row))
        .map(|(row, _)| row)
        .collect()
}

/// The rows whose value is not within the bounds, ascending.
fn outside(cells: &Cells<'_>, least: &Value, greatest: &Value) -> Vec<usize> {
    match (cells, least, greatest) {
        (Cells::Int8(a), Value::Int(l), Value::Int(g)) => {
            values(a, |v| (*l..=*g).contains(&v.into()))
        }
        (Cells::Int16(a), Value::Int(l), Value::Int(g)) => {
            values(a, |v| (*l..=*g).contains(&v.into()))
        }
        (Cells::Int32(a), Value::Int(l), Value::Int(g)) => {
            values(a, |v| (*l..=*g).contains(&v.into()))
        }
        (Cells::Int64(a), Value::Int(l), Value::Int(g)) => values(a, |v| (*l..=*g).contains(&v)),
        (Cells::UInt8(a), Value::UInt(l), Value::UInt(g)) => {
            values(a, |v| (*l..=*g).contains(&v.into()))
        }
        (Cells::UInt16(a), Value::UInt(l), Value::UInt(g)) => {
            values(a, |v| (*l..=*g).contains(&v.into()))
        }
        (Cells::UInt32(a), Value::UInt(l), Value::UInt(g)) => {
            values(a, |v| (*l..=*g).contains(&v.into()))
        }
        (Cells::UInt64(a), Value::UInt(l), Value::UInt(g)) => values(a, |v| (*l..=*g).contains(&v)),
        (Cells::Float32(a), Value::Float32(l), Value::Float32(g)) => {
            values(a, |v| (*l..=*g).contains(&v))
        }
        (Cells::Float64(a), Value::Float64(l), Value::Float64(g)) => {
            values(a, |v| (*l..=*g).contains(&v))
        }
        (Cells::Decimal(a, _), Value::Decimal(l, _), Value::Decimal(g, _)) => {
            values(a, |v| (*l..=*g).contains(&v))
        }
        (Cells::Date(a), Value::Date(l), Value::Date(g)) => values(a, |v| (*l..=*g).contains(&v)),
        (Cells::Timestamp(a), Value::Timestamp(l), Value::Timestamp(g)) => {
            values(a, |v| (*l..=*g).contains(&v))
        }
        _ => Vec::new(),
    }
}
