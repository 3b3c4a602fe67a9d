//! What a topic is: its columns, key, event time, subject and kind.
//!
//! Does not know how topics are declared in files (see the definitions crate) or stored.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use serde::{Deserialize, Serialize};

use crate::ids::TopicId;
use crate::types::ColumnType;

/// Who may see a column, from open to most guarded.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Classification {
    /// May be published.
    Public,
    /// Inside the organisation.
    #[default]
    Internal,
    /// Named roles only.
    Confidential,
    /// Named persons only.
    Restricted,
}

/// Whether a topic's events are facts or row versions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TopicKind {
    /// Every event is a fact of its own; only `insert` is allowed.
    #[default]
    Event,
    /// The topic is its newest row per primary key; `upsert` and `delete` are allowed.
    Table,
}

/// One column of a topic.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Column {
    /// Its name: `[a-z_][a-z0-9_]*`, never beginning with `__`.
    pub name: String,
    /// Its declared type.
    pub column_type: ColumnType,
    /// Whether NULL may be stored.
    pub nullable: bool,
    /// Personal data: sealed value by value under the subject's key, stored as `binary`.
    pub pii: bool,
    /// Who may see it.
    pub classification: Classification,
    /// The schema version that added it, from 1.
    pub since_version: u32,
}

/// The schema of one version of one topic.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TopicSchema {
    /// The topic's name, e.g. `payments` or `falaj.epochs`.
    pub name: String,
    /// Counts from 1; grows with every accepted change.
    pub version: u32,
    /// Event or table.
    pub kind: TopicKind,
    /// Columns in declared order.
    pub columns: Vec<Column>,
    /// Indices into `columns`: the key (the primary key of a table topic). Never empty, never pii.
    pub key: Vec<usize>,
    /// Index into `columns`: a non-nullable `timestamp`.
    pub event_time: usize,
    /// Index into `columns`: the random reference of the person an event is about.
    pub subject: Option<usize>,
    /// Number of partitions, fixed for the topic's life.
    pub partitions: u32,
    /// Appended by the platform only; never moves `T`.
    pub derived: bool,
}

impl TopicSchema {
    /// The id used in stored bytes.
    pub fn id(&self) -> TopicId {
        TopicId::of(&self.name)
    }

    /// The index of the column called `name`.
    pub fn column_index(&self, name: &str) -> Option<usize> {
        self.columns.iter().position(|column| column.name == name)
    }

    /// What producers send and readers receive: declared types, in declared order.
    pub fn arrow_schema(&self) -> SchemaRef {
        self.schema_with(|column| column.column_type.to_arrow())
    }

    /// What is stored and hashed: as [`Self::arrow_schema`], with pii columns as `binary`.
    pub fn stored_schema(&self) -> SchemaRef {
        self.schema_with(|column| match column.pii {
            true => DataType::Binary,
            false => column.column_type.to_arrow(),
        })
    }

    fn schema_with(&self, data_type: impl Fn(&Column) -> DataType) -> SchemaRef {
        let fields = self
            .columns
            .iter()
            .map(|column| Field::new(&column.name, data_type(column), column.nullable));
        Arc::new(Schema::new(fields.collect::<Vec<_>>()))
    }
}
