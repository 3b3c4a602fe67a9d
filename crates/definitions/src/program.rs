//! Vectorised, total, stateless expressions: DataFusion physical expressions over Arrow batches,
//! with a mark for every cell that has no answer.
//!
//! Does not know where batches come from. (DataFusion stays behind this module.)

use arrow::array::{ArrayRef, BooleanArray};
use arrow::datatypes::SchemaRef;
use falaj_event::ColumnType;

/// For each column, which cells are errors (`None`: none of them). An error cell is NULL in the
/// array itself.
pub type ErrorMask = Vec<Option<BooleanArray>>;

/// A list of expressions over one input schema.
#[derive(Clone, Debug)]
pub struct Program {
    pub(crate) input: SchemaRef,
    pub(crate) output: Vec<ColumnType>,
}

/// The columns that a program computed.
#[derive(Clone, Debug)]
pub struct Evaluated {
    /// One array per expression; same length as the input.
    pub columns: Vec<ArrayRef>,
    /// Cells that failed.
    pub errors: ErrorMask,
}

impl Program {
    /// The columns it reads.
    pub fn input_schema(&self) -> &SchemaRef {
        &self.input
    }

    /// The types of the columns that it computes.
    pub fn output_types(&self) -> &[ColumnType] {
        &self.output
    }
}
