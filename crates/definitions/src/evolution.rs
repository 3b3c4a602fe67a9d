//! How a topic may change: what a new version may bring, and how rows of an old version read under a
//! newer one.
//!
//! One rule: old events must stay readable without being rewritten, and every reader of the old
//! columns must find them unchanged. So a new version adds nullable columns at the end, which old
//! events read as NULL, and nothing else of a schema ever changes. Expectations, retention, skew and
//! descriptions bind new events only and may change freely. Does not know files or storage.

#[cfg(test)]
mod tests;

use std::sync::Arc;

use arrow::array::{ArrayRef, new_null_array};
use arrow::error::ArrowError;
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use falaj_event::{Column, TopicSchema};

use crate::rows::loose_schema;

/// What a new declaration of a topic changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Nothing that events are stored by.
    Unchanged,
    /// A new version with these columns more.
    Added {
        /// The new version.
        version: u32,
        /// Names of the new columns, in order.
        columns: Vec<String>,
    },
}

/// A change that would make old events unreadable, or other than they were.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("topic `{topic}` cannot change from version {from} to {to}: {}", .reasons.join("; "))]
pub struct Incompatible {
    /// The topic.
    pub topic: String,
    /// The version in force.
    pub from: u32,
    /// The version declared now.
    pub to: u32,
    /// Every reason, with what to do.
    pub reasons: Vec<String>,
}

/// What becomes of a topic whose schema in force is `old` when `new` is declared.
///
/// # Errors
/// Every reason why it cannot be accepted.
pub fn compare(old: &TopicSchema, new: &TopicSchema) -> Result<Change, Incompatible> {
    let mut reasons = Vec::new();
    compare_topic(old, new, &mut reasons);
    for (index, column) in old.columns.iter().enumerate() {
        match new.columns.get(index) {
            Some(other) if other.name == column.name => compare_column(column, other, &mut reasons),
            _ => reasons.push(moved(column, new)),
        }
    }
    let added: Vec<&Column> =
        new.columns.iter().filter(|column| old.column_index(&column.name).is_none()).collect();
    compare_versions(old, new, &added, &mut reasons);
    if !reasons.is_empty() {
        let (from, to) = (old.version, new.version);
        return Err(Incompatible { topic: old.name.clone(), from, to, reasons });
    }
    Ok(match added.is_empty() {
        true => Change::Unchanged,
        false => Change::Added {
            version: new.version,
            columns: added.iter().map(|column| column.name.clone()).collect(),
        },
    })
}

fn compare_topic(old: &TopicSchema, new: &TopicSchema, reasons: &mut Vec<String>) {
    if old.name != new.name {
        reasons.push(format!("its name changed to `{}`: that is another topic", new.name));
    }
    if old.kind != new.kind {
        reasons
            .push(format!("its kind changed from {:?} to {:?}", old.kind, new.kind).to_lowercase());
    }
    if old.partitions != new.partitions {
        reasons.push(format!(
            "its partitions changed from {} to {}: events would no longer be where their key says",
            old.partitions, new.partitions
        ));
    }
    if old.derived != new.derived {
        reasons.push("who appends to it changed (`derived`)".into());
    }
    let names = |schema: &TopicSchema, indices: &[usize]| -> Vec<String> {
        let columns = indices.iter().filter_map(|index| schema.columns.get(*index));
        columns.map(|column| column.name.clone()).collect()
    };
    let compared = [
        ("key", names(old, &old.key), names(new, &new.key)),
        ("event time", names(old, &[old.event_time]), names(new, &[new.event_time])),
        ("subject", names(old, old.subject.as_slice()), names(new, new.subject.as_slice())),
    ];
    for (what, before, after) in compared {
        if before != after {
            let told = |names: &[String]| match names {
                [] => "nothing".to_owned(),
                names => format!("`{}`", names.join(", ")),
            };
            reasons.push(format!("its {what} changed from {} to {}", told(&before), told(&after)));
        }
    }
}

fn compare_column(old: &Column, new: &Column, reasons: &mut Vec<String>) {
    let name = &old.name;
    if old.column_type != new.column_type {
        reasons.push(format!(
            "column `{name}` changed its type from {} to {}: add a column of the new type",
            old.column_type, new.column_type
        ));
    }
    match (old.nullable, new.nullable) {
        (true, false) => reasons.push(format!(
            "column `{name}` is no longer nullable, but old events may hold NULL: write \
             `nullable = true` and `not_null = true`"
        )),
        (false, true) => reasons.push(format!(
            "column `{name}` became nullable: whoever reads it counts on a value being there"
        )),
        _ => {}
    }
    match (old.pii, new.pii) {
        (true, false) => {
            reasons.push(format!("column `{name}` is no longer personal data, but was sealed"))
        }
        (false, true) => reasons.push(format!(
            "column `{name}` became personal data, but old events hold it unsealed: add a column"
        )),
        _ => {}
    }
    if old.since_version != new.since_version {
        reasons.push(format!(
            "column `{name}` is from version {}, not {}",
            old.since_version, new.since_version
        ));
    }
}

fn moved(column: &Column, new: &TopicSchema) -> String {
    let name = &column.name;
    match new.column_index(name) {
        Some(_) => format!("column `{name}` moved: new columns go to the end"),
        None => format!("column `{name}` was removed: keep it, old events hold it"),
    }
}

fn compare_versions(
    old: &TopicSchema,
    new: &TopicSchema,
    added: &[&Column],
    reasons: &mut Vec<String>,
) {
    let next = old.version.saturating_add(1);
    for column in added {
        let name = &column.name;
        if !column.nullable {
            reasons.push(format!("new column `{name}` is not nullable, but old events lack it"));
        }
        if column.since_version != next {
            reasons.push(format!("new column `{name}` must say `since = {next}`"));
        }
    }
    if !added.is_empty() && new.version != next {
        reasons.push(format!("columns were added: write `version = {next}`"));
    }
    if added.is_empty() && new.version != old.version {
        reasons.push(format!("no column was added: leave `version = {}`", old.version));
    }
}

/// Rows of version `old` (its columns, in order) under the columns of `new`, which a chain of accepted
/// changes leads to: columns that came later are NULL.
///
/// # Errors
/// When the batch is not of `old`, or the versions are not of one chain.
pub fn adapt(
    batch: &RecordBatch,
    old: &TopicSchema,
    new: &TopicSchema,
) -> Result<RecordBatch, ArrowError> {
    if batch.num_columns() != old.columns.len() {
        return Err(ArrowError::SchemaError(format!(
            "a batch of {} columns is not of version {} of `{}`",
            batch.num_columns(),
            old.version,
            old.name
        )));
    }
    let schema = loose_schema(new);
    let columns: Vec<ArrayRef> = new
        .columns
        .iter()
        .zip(schema.fields())
        .map(|(column, field)| match old.column_index(&column.name) {
            Some(index) => Arc::clone(batch.column(index)),
            None => new_null_array(field.data_type(), batch.num_rows()),
        })
        .collect();
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    RecordBatch::try_new_with_options(schema, columns, &options)
}
