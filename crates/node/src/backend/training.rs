//! Training sets for the door: computed on a blocking thread, then streamed.
//!
//! Does not know how features are computed.

use std::sync::Arc;

use falaj_definitions::pipelines::TrainingMode;
use falaj_gateway::backend::{BackendError, BatchStream, TrainingSet, TrainingSetRequest};

use crate::core::Core;
use crate::training::{self, SetRequest};

/// Computes the set that `request` names.
///
/// # Errors
/// For an unknown pipeline or mode, and where the set cannot be computed.
pub async fn training_set(
    core: &Arc<Core>,
    request: TrainingSetRequest,
) -> Result<TrainingSet, BackendError> {
    let Some(pipeline) = core.catalog.pipeline(&request.pipeline) else {
        let known = core.catalog.pipelines.iter().map(|pipeline| pipeline.name.as_str());
        return Err(BackendError::unknown("model pipeline", &request.pipeline, known));
    };
    let mode = match request.mode.as_deref() {
        None => pipeline.training.mode,
        Some("as_corrected") => TrainingMode::AsCorrected,
        Some("as_known") => TrainingMode::AsKnown,
        Some("as_served") => TrainingMode::AsServed,
        Some(other) => {
            return Err(BackendError::invalid(format!(
                "there is no mode `{other}`: use as_corrected, as_known or as_served"
            )));
        }
    };
    let wanted = SetRequest {
        pipeline: Arc::clone(pipeline),
        mode,
        until: request.until,
        all: request.all,
        compare: request.compare,
    };
    let core = Arc::clone(core);
    let computed =
        tokio::task::spawn_blocking(move || training::compute(&core, &wanted, &mut |_| {}));
    let set = computed
        .await
        .map_err(|error| BackendError::internal(error.to_string()))?
        .map_err(|error| BackendError::internal(format!("{error:#}")))?;
    let schema = set.batch.schema();
    let rows = request.batch_rows.max(1);
    let starts = (0..set.batch.num_rows()).step_by(rows);
    let pieces =
        starts.map(move |start| Ok(set.batch.slice(start, rows.min(set.batch.num_rows() - start))));
    let batches: BatchStream = Box::pin(futures::stream::iter(pieces));
    Ok(TrainingSet { schema, metadata: set.metadata, batches })
}
