//! Rows as the model reads them: columns of an Arrow batch, seen as few kinds of values.
//!
//! Does not know which columns are features; it finds the ones that are named.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Float64Array, Int64Array, StringArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type, Int64Type};
use arrow::record_batch::RecordBatch;
use serde::{Deserialize, Serialize};

/// One value of one row.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Input<'a> {
    /// NULL, or a number that is not one.
    Missing,
    /// A float; NaN counts as missing, infinities are refused.
    Number(f64),
    /// An integer.
    Integer(i64),
    /// Text.
    Text(&'a str),
    /// True or false.
    Boolean(bool),
}

impl Input<'_> {
    /// What it is, for messages.
    pub fn type_name(&self) -> &'static str {
        match self {
            Self::Missing => "NULL",
            Self::Number(_) => "a float",
            Self::Integer(_) => "an integer",
            Self::Text(_) => "text",
            Self::Boolean(_) => "a boolean",
        }
    }
}

/// What values a column has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum InputType {
    /// Floats; integers are taken too.
    Float64,
    /// Integers.
    Int64,
    /// Text.
    String,
    /// True or false.
    Boolean,
}

impl InputType {
    /// Its name in signatures.
    pub fn name(self) -> &'static str {
        match self {
            Self::Float64 => "float64",
            Self::Int64 => "int64",
            Self::String => "string",
            Self::Boolean => "boolean",
        }
    }
}

/// Why a table cannot be read.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum TableError {
    /// A column is not there.
    #[error("the table has no column `{column}`; it has {present}")]
    NoColumn {
        /// The missing column.
        column: String,
        /// What there is.
        present: String,
    },
    /// A column has a type that no model reads.
    #[error(
        "column `{column}` is {data_type}; a model reads numbers, text, booleans and timestamps: \
         cast it in the view"
    )]
    ColumnType {
        /// The column.
        column: String,
        /// Its Arrow type.
        data_type: String,
    },
    /// Batches of one table differ.
    #[error("column `{column}` has one type in one batch and another in the next")]
    MixedTypes {
        /// The column.
        column: String,
    },
}

#[derive(Clone, Debug)]
enum Values {
    Float(Float64Array),
    Integer(Int64Array),
    Text(StringArray),
    Boolean(BooleanArray),
    Null(usize),
}

/// A named column of a table.
#[derive(Clone, Debug)]
pub struct Column {
    name: String,
    values: Values,
}

impl Column {
    /// The column `name` of `batch`.
    ///
    /// # Errors
    /// [`TableError::NoColumn`], [`TableError::ColumnType`].
    pub fn find(batch: &RecordBatch, name: &str) -> Result<Self, TableError> {
        let array = batch.column_by_name(name).ok_or_else(|| TableError::NoColumn {
            column: name.to_owned(),
            present: list(batch),
        })?;
        Self::new(name, array)
    }

    fn new(name: &str, array: &ArrayRef) -> Result<Self, TableError> {
        let refused = || TableError::ColumnType {
            column: name.to_owned(),
            data_type: array.data_type().to_string(),
        };
        let to = |data_type: DataType| -> Result<ArrayRef, TableError> {
            if *array.data_type() == data_type {
                return Ok(Arc::clone(array));
            }
            cast(array, &data_type).map_err(|_| refused())
        };
        let values = match array.data_type() {
            DataType::Null => Values::Null(array.len()),
            DataType::Boolean => Values::Boolean(array.as_boolean().clone()),
            DataType::Float16 | DataType::Float32 | DataType::Float64 | DataType::UInt64 => {
                Values::Float(to(DataType::Float64)?.as_primitive::<Float64Type>().clone())
            }
            DataType::Decimal32(..)
            | DataType::Decimal64(..)
            | DataType::Decimal128(..)
            | DataType::Decimal256(..) => {
                Values::Float(to(DataType::Float64)?.as_primitive::<Float64Type>().clone())
            }
            data_type if data_type.is_integer() => {
                Values::Integer(to(DataType::Int64)?.as_primitive::<Int64Type>().clone())
            }
            DataType::Timestamp(..) | DataType::Duration(_) | DataType::Date64 => {
                Values::Integer(to(DataType::Int64)?.as_primitive::<Int64Type>().clone())
            }
            DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => {
                Values::Text(to(DataType::Utf8)?.as_string::<i32>().clone())
            }
            DataType::Dictionary(_, inner) if **inner == DataType::Utf8 => {
                Values::Text(to(DataType::Utf8)?.as_string::<i32>().clone())
            }
            _ => return Err(refused()),
        };
        Ok(Self { name: name.to_owned(), values })
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its number of rows.
    pub fn rows(&self) -> usize {
        match &self.values {
            Values::Float(array) => array.len(),
            Values::Integer(array) => array.len(),
            Values::Text(array) => array.len(),
            Values::Boolean(array) => array.len(),
            Values::Null(rows) => *rows,
        }
    }

    /// What it holds; `None` when every value is NULL by type.
    pub fn input_type(&self) -> Option<InputType> {
        match &self.values {
            Values::Float(_) => Some(InputType::Float64),
            Values::Integer(_) => Some(InputType::Int64),
            Values::Text(_) => Some(InputType::String),
            Values::Boolean(_) => Some(InputType::Boolean),
            Values::Null(_) => None,
        }
    }

    /// The value of `row`, which must be below [`Column::rows`].
    pub fn value(&self, row: usize) -> Input<'_> {
        match &self.values {
            Values::Float(array) if array.is_valid(row) => Input::Number(array.value(row)),
            Values::Integer(array) if array.is_valid(row) => Input::Integer(array.value(row)),
            Values::Text(array) if array.is_valid(row) => Input::Text(array.value(row)),
            Values::Boolean(array) if array.is_valid(row) => Input::Boolean(array.value(row)),
            _ => Input::Missing,
        }
    }
}

fn list(batch: &RecordBatch) -> String {
    let schema = batch.schema();
    let names: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
    names.join(", ")
}

/// A table: batches of one schema, in row order.
#[derive(Clone, Copy, Debug)]
pub struct Table<'a> {
    batches: &'a [RecordBatch],
}

/// One column over all batches of a table.
#[derive(Clone, Debug)]
pub struct TableColumn {
    parts: Vec<Column>,
    starts: Vec<usize>,
}

impl<'a> Table<'a> {
    /// The rows of `batches`, one after another.
    pub fn new(batches: &'a [RecordBatch]) -> Self {
        Self { batches }
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.batches.iter().map(RecordBatch::num_rows).sum()
    }

    /// The column `name`.
    ///
    /// # Errors
    /// [`TableError`].
    pub fn column(&self, name: &str) -> Result<TableColumn, TableError> {
        let mut column = TableColumn { parts: Vec::new(), starts: Vec::new() };
        let mut start = 0;
        let mut found = None;
        for batch in self.batches {
            let part = Column::find(batch, name)?;
            match (found, part.input_type()) {
                (Some(before), Some(now)) if before != now => {
                    return Err(TableError::MixedTypes { column: name.to_owned() });
                }
                (None, now) => found = now,
                _ => {}
            }
            column.starts.push(start);
            start += part.rows();
            column.parts.push(part);
        }
        Ok(column)
    }
}

impl TableColumn {
    /// What it holds; `None` when every value is NULL by type.
    pub fn input_type(&self) -> Option<InputType> {
        self.parts.iter().find_map(Column::input_type)
    }

    /// The value of `row`; [`Input::Missing`] beyond the end.
    pub fn value(&self, row: usize) -> Input<'_> {
        let part = self.starts.partition_point(|start| *start <= row);
        let Some(part) = part.checked_sub(1) else { return Input::Missing };
        let within = row - self.starts[part];
        if within < self.parts[part].rows() {
            self.parts[part].value(within)
        } else {
            Input::Missing
        }
    }
}

/// The columns of a batch that a signature names, in its order: rows for a scorer.
#[derive(Clone, Debug)]
pub struct Rows {
    columns: Vec<Column>,
    rows: usize,
}

impl Rows {
    /// Binds `names` to the columns of `batch`.
    ///
    /// # Errors
    /// [`TableError`].
    pub fn bind<'n>(
        batch: &RecordBatch,
        names: impl IntoIterator<Item = &'n str>,
    ) -> Result<Self, TableError> {
        let columns =
            names.into_iter().map(|name| Column::find(batch, name)).collect::<Result<_, _>>()?;
        Ok(Self { columns, rows: batch.num_rows() })
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Values of `row` into `into`, which it clears first.
    pub fn row<'a>(&'a self, row: usize, into: &mut Vec<Input<'a>>) {
        into.clear();
        into.extend(self.columns.iter().map(|column| column.value(row)));
    }
}
