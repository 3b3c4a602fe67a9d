//! Topic schemas as the log meets them: who knows which version, what a block's batch looks like,
//! and how rows of an old version read under a newer one.
//!
//! Does not know how schemas are declared or checked.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use arrow::array::{ArrayRef, new_null_array};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::error::ArrowError;
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use falaj_event::value::to_array;
use falaj_event::{TopicId, TopicKind, TopicSchema, Value};

/// Gives the schema that a block was written with, and the newest one to read it under.
pub trait SchemaProvider: Send + Sync + 'static {
    /// The schema of this version of the topic.
    fn schema(&self, topic: TopicId, version: u32) -> Option<Arc<TopicSchema>>;

    /// The topic's newest schema.
    fn newest(&self, topic: TopicId) -> Option<Arc<TopicSchema>>;
}

/// Schemas in memory. Versions are added while others read.
#[derive(Debug, Default)]
pub struct Schemas {
    topics: RwLock<BTreeMap<TopicId, BTreeMap<u32, Arc<TopicSchema>>>>,
}

impl Schemas {
    /// Knows nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a version of a topic, replacing what had its number.
    pub fn insert(&self, schema: Arc<TopicSchema>) {
        let mut topics = self.topics.write().unwrap_or_else(PoisonError::into_inner);
        topics.entry(schema.id()).or_default().insert(schema.version, schema);
    }
}

impl FromIterator<Arc<TopicSchema>> for Schemas {
    fn from_iter<I: IntoIterator<Item = Arc<TopicSchema>>>(schemas: I) -> Self {
        let all = Self::new();
        schemas.into_iter().for_each(|schema| all.insert(schema));
        all
    }
}

impl SchemaProvider for Schemas {
    fn schema(&self, topic: TopicId, version: u32) -> Option<Arc<TopicSchema>> {
        let topics = self.topics.read().unwrap_or_else(PoisonError::into_inner);
        topics.get(&topic)?.get(&version).cloned()
    }

    fn newest(&self, topic: TopicId) -> Option<Arc<TopicSchema>> {
        let topics = self.topics.read().unwrap_or_else(PoisonError::into_inner);
        topics.get(&topic)?.last_key_value().map(|(_, schema)| Arc::clone(schema))
    }
}

/// Whether a column of this topic may hold NULL in some event. Deletes of a table topic carry only
/// the key and the event time.
pub fn may_be_null(schema: &TopicSchema, column: usize) -> bool {
    let required = column == schema.event_time || schema.key.contains(&column);
    schema.columns[column].nullable || (schema.kind == TopicKind::Table && !required)
}

/// The Arrow schema of rows in declared types, with the nullability that rows really have.
pub fn row_schema(schema: &TopicSchema) -> SchemaRef {
    fields(schema, |index| {
        (schema.columns[index].column_type.to_arrow(), may_be_null(schema, index))
    })
}

/// The Arrow schema of stored rows: as [`row_schema`], with pii columns as `binary`.
pub fn stored_row_schema(schema: &TopicSchema) -> SchemaRef {
    fields(schema, |index| {
        let column = &schema.columns[index];
        let data_type = if column.pii { DataType::Binary } else { column.column_type.to_arrow() };
        (data_type, may_be_null(schema, index))
    })
}

/// The Arrow schema of rows whose pii values were opened: erased ones read as NULL.
pub fn opened_row_schema(schema: &TopicSchema) -> SchemaRef {
    fields(schema, |index| {
        let column = &schema.columns[index];
        (column.column_type.to_arrow(), column.pii || may_be_null(schema, index))
    })
}

fn fields(schema: &TopicSchema, of: impl Fn(usize) -> (DataType, bool)) -> SchemaRef {
    let fields = schema.columns.iter().enumerate().map(|(index, column)| {
        let (data_type, nullable) = of(index);
        Field::new(&column.name, data_type, nullable)
    });
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}

/// Rows of version `from` as rows of version `to`, under the Arrow schema `target` (one of the
/// functions above, of `to`): columns go by name, missing ones are NULL.
///
/// # Errors
/// When a column changed its type or a missing one may not be NULL.
pub(crate) fn adapt(
    batch: &RecordBatch,
    from: &TopicSchema,
    to: &TopicSchema,
    target: SchemaRef,
) -> Result<RecordBatch, ArrowError> {
    let columns: Vec<ArrayRef> = to
        .columns
        .iter()
        .zip(target.fields())
        .map(|(column, field)| match from.column_index(&column.name) {
            Some(index) => Arc::clone(batch.column(index)),
            None => new_null_array(field.data_type(), batch.num_rows()),
        })
        .collect();
    rebatch(target, columns, batch.num_rows())
}

/// Why typed values do not make rows of a topic, or rows do not give them back.
#[derive(Debug, thiserror::Error)]
pub enum TypedRowError {
    /// The topic's declaration lacks a column or gives it another type.
    #[error("topic `{topic}`, column `{column}`: {why}")]
    Column {
        /// Topic.
        topic: String,
        /// Column.
        column: String,
        /// What is wrong.
        why: String,
    },
    /// Columns that do not make a batch.
    #[error(transparent)]
    Arrow(#[from] ArrowError),
}

/// Rows of a system topic from the values that `of` gives by column name and row; columns that it
/// does not know are NULL.
pub(crate) fn typed_rows(
    schema: &TopicSchema,
    rows: usize,
    of: impl Fn(&str, usize) -> Option<Value>,
) -> Result<RecordBatch, TypedRowError> {
    let columns = (schema.columns.iter())
        .map(|column| {
            let value = |row| of(&column.name, row).unwrap_or(Value::Null);
            let values: Vec<Value> = (0..rows).map(value).collect();
            to_array(&column.column_type, &values).map_err(|error| TypedRowError::Column {
                topic: schema.name.clone(),
                column: column.name.clone(),
                why: error.to_string(),
            })
        })
        .collect::<Result<Vec<ArrayRef>, _>>()?;
    Ok(rebatch(row_schema(schema), columns, rows)?)
}

/// A batch whose row count does not depend on there being a column.
pub(crate) fn rebatch(
    schema: SchemaRef,
    columns: Vec<ArrayRef>,
    rows: usize,
) -> Result<RecordBatch, ArrowError> {
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    RecordBatch::try_new_with_options(schema, columns, &options)
}
