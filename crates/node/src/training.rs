//! Training sets.

use anyhow::{Result, bail};
use arrow::record_batch::RecordBatch;
use falaj_definitions::pipelines::Pipeline;

use crate::core::Core;

/// The rows that a pipeline is trained on.
///
/// # Errors
/// Always.
#[allow(clippy::type_complexity)]
pub fn rows(_: &Core, pipeline: &Pipeline) -> Result<(Vec<RecordBatch>, Option<(u64, u64)>)> {
    bail!("no training set for {}", pipeline.name)
}
