//! Rows of canonical bytes to Arrow batches and back: what stands between the stateful operators,
//! which see bytes, and the vectorised programs, which see columns.
//!
//! Does not know what a program computes.

use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, new_null_array};
use arrow::buffer::BooleanBuffer;
use arrow::datatypes::{Field, Schema, SchemaRef};
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use falaj_definitions::program::{ErrorMask, Evaluated, Program};
use falaj_event::cells::{Cells, array_cells};
use falaj_event::encoding::{TAG_ERROR, TAG_NULL, decode_value};
use falaj_event::value::to_array;
use falaj_event::{ColumnType, Value};

use crate::error::EngineError;

/// The columns that a program reads.
#[derive(Clone, Debug)]
pub(crate) struct Columns {
    place: String,
    program: Program,
    schema: SchemaRef,
    types: Vec<ColumnType>,
}

impl Columns {
    /// The input of `program`, which `place` names in errors.
    pub(crate) fn of(program: &Program, place: String) -> Result<Self, EngineError> {
        let input = program.input_schema();
        let types = input
            .fields()
            .iter()
            .map(|field| ColumnType::from_arrow(field.data_type()))
            .collect::<Option<Vec<_>>>()
            .ok_or_else(|| EngineError::rows(&place, "a column has no column type"))?;
        // Nullable throughout: an unmatched join and a column that nobody reads are NULL here.
        let fields = input
            .fields()
            .iter()
            .zip(&types)
            .map(|(field, column_type)| Field::new(field.name(), column_type.to_arrow(), true));
        let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
        Ok(Self { place, program: program.clone(), schema, types })
    }

    /// Runs the program over rows in canonical encoding.
    pub(crate) fn evaluate_cells<'a>(
        &self,
        rows: impl ExactSizeIterator<Item = &'a [u8]>,
    ) -> Result<Evaluated, EngineError> {
        let mut columns = self.empty(rows.len());
        for mut bytes in rows {
            for column in &mut columns {
                let (value, length) = match bytes.is_empty() {
                    true => (Value::Null, 0),
                    false => decode_value(bytes)
                        .map_err(|error| EngineError::rows(&self.place, error))?,
                };
                column.push(value);
                bytes = bytes.get(length..).unwrap_or_default();
            }
            if !bytes.is_empty() {
                return Err(EngineError::rows(&self.place, "a row has more cells than columns"));
            }
        }
        let rows = columns.first().map_or(0, Vec::len);
        self.evaluate(columns.into_iter().map(Some).collect(), rows)
    }

    /// Number of columns.
    pub(crate) fn width(&self) -> usize {
        self.types.len()
    }

    /// Room for `rows` values in each column.
    fn empty(&self, rows: usize) -> Vec<Vec<Value>> {
        self.types.iter().map(|_| Vec::with_capacity(rows)).collect()
    }

    /// Runs the program over columns of `rows` values; a column without values is NULL throughout.
    pub(crate) fn evaluate(
        &self,
        columns: Vec<Option<Vec<Value>>>,
        rows: usize,
    ) -> Result<Evaluated, EngineError> {
        let mut failed = false;
        let mut errors: ErrorMask = Vec::with_capacity(columns.len());
        let mut arrays: Vec<ArrayRef> = Vec::with_capacity(columns.len());
        for (column_type, values) in self.types.iter().zip(&columns) {
            let Some(values) = values else {
                arrays.push(new_null_array(&column_type.to_arrow(), rows));
                errors.push(None);
                continue;
            };
            let array = to_array(column_type, values)
                .map_err(|error| EngineError::rows(&self.place, error))?;
            let marked = values.iter().any(|value| matches!(value, Value::Error));
            failed |= marked;
            errors.push(marked.then(|| {
                let is_error = |row: usize| matches!(values[row], Value::Error);
                BooleanArray::new(BooleanBuffer::collect_bool(rows, is_error), None)
            }));
            arrays.push(array);
        }
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        let batch = RecordBatch::try_new_with_options(Arc::clone(&self.schema), arrays, &options)
            .map_err(|error| EngineError::rows(&self.place, error))?;
        self.evaluate_batch(&batch, failed.then_some(&errors))
    }

    /// Runs the program over a batch.
    pub(crate) fn evaluate_batch(
        &self,
        batch: &RecordBatch,
        errors: Option<&ErrorMask>,
    ) -> Result<Evaluated, EngineError> {
        self.program
            .evaluate(batch, errors)
            .map_err(|source| EngineError::Program { place: self.place.clone(), source })
    }

    /// The name that errors carry.
    pub(crate) fn place(&self) -> &str {
        &self.place
    }
}

/// Computed columns, ready to be read cell by cell.
pub(crate) struct Computed<'a> {
    cells: Vec<Cells<'a>>,
    errors: &'a ErrorMask,
}

impl<'a> Computed<'a> {
    pub(crate) fn new(evaluated: &'a Evaluated, place: &str) -> Result<Self, EngineError> {
        let cells =
            array_cells(&evaluated.columns).map_err(|error| EngineError::rows(place, error))?;
        Ok(Self { cells, errors: &evaluated.errors })
    }

    pub(crate) fn is_error(&self, column: usize, row: usize) -> bool {
        self.errors.get(column).and_then(Option::as_ref).is_some_and(|mask| mask.value(row))
    }

    pub(crate) fn is_null(&self, column: usize, row: usize) -> bool {
        self.cells[column].is_null(row)
    }

    /// Whether the boolean cell is true (neither false nor NULL nor an error).
    pub(crate) fn is_true(&self, column: usize, row: usize) -> bool {
        match &self.cells[column] {
            Cells::Bool(array) => !self.is_null(column, row) && array.value(row),
            _ => false,
        }
    }

    /// Appends the cell's canonical encoding, the mark of an error included.
    pub(crate) fn encode(&self, column: usize, row: usize, out: &mut Vec<u8>) {
        if self.is_error(column, row) {
            out.push(TAG_ERROR);
        } else {
            self.cells[column].encode(row, out);
        }
    }

    /// Number of cells that failed.
    pub(crate) fn failures(&self) -> usize {
        let count = |mask: &BooleanArray| mask.values().count_set_bits();
        self.errors.iter().flatten().map(count).sum()
    }
}

/// Appends `count` NULL cells.
pub(crate) fn encode_nulls(count: usize, out: &mut Vec<u8>) {
    out.resize(out.len() + count, TAG_NULL);
}

/// Number of cells in canonical bytes.
pub(crate) fn count_cells(mut bytes: &[u8]) -> Option<usize> {
    let mut count = 0;
    while !bytes.is_empty() {
        let (_, length) = decode_value(bytes).ok()?;
        bytes = bytes.get(length..)?;
        count += 1;
    }
    Some(count)
}
