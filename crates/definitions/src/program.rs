//! Vectorised, total, stateless expressions: DataFusion physical expressions over Arrow batches,
//! with a mark for every cell that has no answer.
//!
//! Why it exists: everything before and after the stateful operator is computed a batch at a time,
//! and no input may stop a dataflow. Does not know where batches come from, nor SQL. (DataFusion
//! stays behind this module.)

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, new_null_array};
use arrow::buffer::{BooleanBuffer, NullBuffer};
use arrow::compute::concat;
use arrow::datatypes::{DataType, Decimal128Type, DecimalType, Schema, SchemaRef};
use arrow::record_batch::RecordBatch;
use datafusion::physical_expr::PhysicalExpr;
use falaj_event::ColumnType;

#[cfg(test)]
mod tests;

/// For each column, which cells are errors (`None`: none of them). An error cell is NULL in the
/// array itself.
pub type ErrorMask = Vec<Option<BooleanArray>>;

/// A list of expressions over one input schema.
#[derive(Clone, Debug)]
pub struct Program {
    pub(crate) input: SchemaRef,
    pub(crate) output: Vec<ColumnType>,
    steps: Arc<[Step]>,
}

/// One output column.
#[derive(Debug)]
enum Step {
    /// An input column as it is.
    Column(usize),
    /// A computation over some input columns.
    Compute { expression: Arc<dyn PhysicalExpr>, reads: Vec<usize>, carrier: DataType },
}

/// The columns that a program computed.
#[derive(Clone, Debug)]
pub struct Evaluated {
    /// One array per expression; same length as the input.
    pub columns: Vec<ArrayRef>,
    /// Cells that failed.
    pub errors: ErrorMask,
}

/// A batch that a program cannot read: a defect of the caller, never of the data.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProgramError {
    /// Wrong number of columns.
    #[error(
        "the batch has {found} columns and the program reads {expected}: pass the rows that the plan describes"
    )]
    Width {
        /// Columns of the program's input.
        expected: usize,
        /// Columns of the batch.
        found: usize,
    },
    /// A column of another type.
    #[error(
        "column {index} (`{name}`) of the batch is {found} and the program reads {expected}: pass the rows that the plan describes"
    )]
    Type {
        /// Index of the column.
        index: usize,
        /// Its name in the program's input.
        name: String,
        /// Type that the program reads.
        expected: String,
        /// Type in the batch.
        found: String,
    },
    /// An error mask that does not belong to the batch.
    #[error(
        "the error mask has {found} entries where the batch has {expected}: pass one entry per column, each as long as the batch"
    )]
    Mask {
        /// Columns or rows of the batch.
        expected: usize,
        /// Entries of the mask.
        found: usize,
    },
}

impl Program {
    /// A program that passes the columns `indices` of `input` on. Indices must be in range and the
    /// columns of column types; others are left out of `None`.
    pub fn columns(input: SchemaRef, indices: &[usize]) -> Option<Self> {
        let output = indices
            .iter()
            .map(|&index| ColumnType::from_arrow(input.fields().get(index)?.data_type()))
            .collect::<Option<Vec<_>>>()?;
        let steps = indices.iter().map(|&index| Step::Column(index)).collect();
        Some(Self { input, output, steps })
    }

    /// A program of compiled expressions, each with its column type. The expressions are pure,
    /// checked (nothing wraps) and yield the carrier of their column type.
    pub(crate) fn compile(
        input: SchemaRef,
        expressions: Vec<(Arc<dyn PhysicalExpr>, ColumnType)>,
    ) -> Self {
        let (steps, output) = expressions
            .into_iter()
            .map(|(expression, column_type)| (step(expression, &column_type, &input), column_type))
            .unzip::<_, _, Vec<_>, Vec<_>>();
        Self { input, output, steps: steps.into() }
    }

    /// The columns it reads.
    pub fn input_schema(&self) -> &SchemaRef {
        &self.input
    }

    /// The types of the columns that it computes.
    pub fn output_types(&self) -> &[ColumnType] {
        &self.output
    }

    /// For each computed column, the input column that it passes on unchanged.
    pub fn passed_columns(&self) -> Vec<Option<usize>> {
        self.steps
            .iter()
            .map(|step| match step {
                Step::Column(index) => Some(*index),
                Step::Compute { .. } => None,
            })
            .collect()
    }

    /// The input columns that the computed column `output` reads.
    pub fn reads(&self, output: usize) -> &[usize] {
        match self.steps.get(output) {
            Some(Step::Column(index)) => std::slice::from_ref(index),
            Some(Step::Compute { reads, .. }) => reads,
            None => &[],
        }
    }

    /// Computes every column for every row of `batch`. A cell whose computation fails (overflow,
    /// division by zero, a bad cast) or reads a cell that `errors` marks is NULL and marked in
    /// the result; no other cell is touched by it. A cell depends on its row alone: never on
    /// the other rows of the batch, the time, the zone or the session.
    ///
    /// # Errors
    /// When the batch or the mask is not of the program's input schema.
    pub fn evaluate(
        &self,
        batch: &RecordBatch,
        errors: Option<&ErrorMask>,
    ) -> Result<Evaluated, ProgramError> {
        self.check(batch, errors)?;
        let mut columns = Vec::with_capacity(self.steps.len());
        let mut masks = Vec::with_capacity(self.steps.len());
        for step in self.steps.iter() {
            let (column, mask) = match step {
                Step::Column(index) => (
                    Arc::clone(batch.column(*index)),
                    errors.and_then(|errors| errors[*index].clone()),
                ),
                Step::Compute { expression, reads, carrier } => {
                    let (column, failed) = compute(expression.as_ref(), batch, carrier);
                    let inherited = reads.iter().filter_map(|&read| errors?[read].as_ref());
                    mark(column, failed, inherited)
                }
            };
            columns.push(column);
            masks.push(mask);
        }
        Ok(Evaluated { columns, errors: masks })
    }

    fn check(&self, batch: &RecordBatch, errors: Option<&ErrorMask>) -> Result<(), ProgramError> {
        let expected = self.input.fields().len();
        if batch.num_columns() != expected {
            return Err(ProgramError::Width { expected, found: batch.num_columns() });
        }
        for (index, (field, column)) in self.input.fields().iter().zip(batch.columns()).enumerate()
        {
            if !same_carrier(field.data_type(), column.data_type()) {
                return Err(ProgramError::Type {
                    index,
                    name: field.name().clone(),
                    expected: field.data_type().to_string(),
                    found: column.data_type().to_string(),
                });
            }
        }
        let Some(errors) = errors else { return Ok(()) };
        if errors.len() != expected {
            return Err(ProgramError::Mask { expected, found: errors.len() });
        }
        let rows = batch.num_rows();
        match errors.iter().flatten().find(|mask| mask.len() != rows) {
            Some(mask) => Err(ProgramError::Mask { expected: rows, found: mask.len() }),
            None => Ok(()),
        }
    }
}

/// Types that one column type maps to (a list's field name does not matter).
fn same_carrier(expected: &DataType, found: &DataType) -> bool {
    expected == found
        || matches!(
            (ColumnType::from_arrow(expected), ColumnType::from_arrow(found)),
            (Some(a), Some(b)) if a == b
        )
}

fn step(expression: Arc<dyn PhysicalExpr>, column_type: &ColumnType, input: &Schema) -> Step {
    use datafusion::physical_expr::expressions::Column;
    if let Some(column) = expression.downcast_ref::<Column>()
        && input.field(column.index()).data_type() == &column_type.to_arrow()
    {
        return Step::Column(column.index());
    }
    let mut reads: Vec<usize> = datafusion::physical_expr::utils::collect_columns(&expression)
        .iter()
        .map(Column::index)
        .collect();
    reads.sort_unstable();
    Step::Compute { expression, reads, carrier: column_type.to_arrow() }
}

/// The column and the cells that failed. A batch that fails is halved until single rows fail, so
/// that a row's result never depends on its neighbours.
fn compute(
    expression: &dyn PhysicalExpr,
    batch: &RecordBatch,
    carrier: &DataType,
) -> (ArrayRef, Option<BooleanArray>) {
    let rows = batch.num_rows();
    if rows == 0 {
        return (new_null_array(carrier, 0), None);
    }
    if let Some(column) = attempt(expression, batch, carrier) {
        return check_decimals(column);
    }
    let mut pieces = Vec::new();
    halve(expression, batch, carrier, &mut pieces);
    let (columns, failed): (Vec<ArrayRef>, Vec<BooleanArray>) = pieces.into_iter().unzip();
    let columns: Vec<&dyn Array> = columns.iter().map(AsRef::as_ref).collect();
    let failed: Vec<&dyn Array> = failed.iter().map(|mask| mask as &dyn Array).collect();
    match (concat(&columns), concat(&failed)) {
        (Ok(column), Ok(failed)) => (column, Some(failed.as_boolean().clone())),
        // Offsets beyond 2 GiB: no cell of this column has an answer.
        _ => (new_null_array(carrier, rows), Some(all(rows))),
    }
}

fn halve(
    expression: &dyn PhysicalExpr,
    batch: &RecordBatch,
    carrier: &DataType,
    pieces: &mut Vec<(ArrayRef, BooleanArray)>,
) {
    let rows = batch.num_rows();
    if let Some(column) = attempt(expression, batch, carrier) {
        let (column, failed) = check_decimals(column);
        let failed =
            failed.unwrap_or_else(|| BooleanArray::new(BooleanBuffer::new_unset(rows), None));
        pieces.push((column, failed));
    } else if rows <= 1 {
        pieces.push((new_null_array(carrier, rows), all(rows)));
    } else {
        let middle = rows / 2;
        halve(expression, &batch.slice(0, middle), carrier, pieces);
        halve(expression, &batch.slice(middle, rows - middle), carrier, pieces);
    }
}

fn all(rows: usize) -> BooleanArray {
    BooleanArray::new(BooleanBuffer::new_set(rows), None)
}

/// `None` when the expression fails on some row, panics, or yields another type than `carrier`.
fn attempt(
    expression: &dyn PhysicalExpr,
    batch: &RecordBatch,
    carrier: &DataType,
) -> Option<ArrayRef> {
    let evaluate =
        || expression.evaluate(batch).and_then(|value| value.into_array(batch.num_rows()));
    let column = catch_unwind(AssertUnwindSafe(evaluate)).ok()?.ok()?;
    if column.data_type() == carrier {
        return Some(column);
    }
    if same_carrier(carrier, column.data_type()) {
        return arrow::compute::cast(&column, carrier).ok();
    }
    None
}

/// Decimal arithmetic is checked against 128 bits; cells beyond the declared digits fail here.
fn check_decimals(column: ArrayRef) -> (ArrayRef, Option<BooleanArray>) {
    let DataType::Decimal128(precision, scale) = *column.data_type() else {
        return (column, None);
    };
    let values = column.as_primitive::<Decimal128Type>();
    if values.validate_decimal_precision(precision).is_ok() {
        return (column, None);
    }
    let bad = |row: usize| {
        values.is_valid(row)
            && Decimal128Type::validate_decimal_precision(values.value(row), precision, scale)
                .is_err()
    };
    let failed = BooleanArray::new(BooleanBuffer::collect_bool(values.len(), bad), None);
    (column, Some(failed))
}

/// Marks failed and inherited errors and makes those cells NULL.
fn mark<'a>(
    column: ArrayRef,
    failed: Option<BooleanArray>,
    inherited: impl Iterator<Item = &'a BooleanArray>,
) -> (ArrayRef, Option<BooleanArray>) {
    let mut bits = failed.map(|mask| mask.values().clone());
    for mask in inherited {
        // A mask's own NULLs mean nothing: only set and valid bits are errors.
        let values = match mask.nulls() {
            Some(valid) => mask.values() & valid.inner(),
            None => mask.values().clone(),
        };
        bits = Some(match bits {
            Some(bits) => &bits | &values,
            None => values,
        });
    }
    let Some(bits) = bits.filter(|bits| bits.count_set_bits() > 0) else { return (column, None) };
    let valid = !&bits;
    let nulls = match column.logical_nulls() {
        Some(nulls) => NullBuffer::new(nulls.inner() & &valid),
        None => NullBuffer::new(valid),
    };
    let rebuilt = column.to_data().into_builder().nulls(Some(nulls)).build();
    match rebuilt {
        Ok(data) => (arrow::array::make_array(data), Some(BooleanArray::new(bits, None))),
        Err(_) => {
            let rows = column.len();
            (new_null_array(column.data_type(), rows), Some(all(rows)))
        }
    }
}
