//! What a version's training rows looked like, kept beside its artifact for drift to be measured
//! against.
//!
//! Only translation from rows to `falaj_monitor`'s reference; what it holds is decided there.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result};
use arrow::record_batch::RecordBatch;
use falaj_definitions::pipelines::Pipeline;
use falaj_event::cells::Cells;
use falaj_event::{LogTime, Value};
use falaj_model::train::events::RowCounts;
use falaj_monitor::{HeldOut, ReferenceRows, ReferenceSet};

use super::outcomes::actual;
use super::rules::LABEL;
use super::serving::{Loaded, score};
use super::watch::settings::monitor_settings;

/// Where the reference of the artifact `id` is kept in the folder of artifacts.
pub fn path(folder: &std::path::Path, id: &str) -> PathBuf {
    folder.join(format!("{id}.reference.json"))
}

/// Reads the reference of the artifact `id`; `None` where none was kept.
///
/// # Errors
/// When it is damaged.
pub fn read(folder: &std::path::Path, id: &str) -> Result<Option<Arc<ReferenceSet>>> {
    let path = path(folder, id);
    match std::fs::read(&path) {
        Ok(bytes) => {
            let set = ReferenceSet::from_bytes(&bytes);
            Ok(Some(Arc::new(set.with_context(|| format!("reading {}", path.display()))?)))
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("reading {}", path.display())),
    }
}

/// The reference of a version: its training rows, and its scores on the rows held out; `counts` says
/// which these are.
///
/// # Errors
/// When the rows lack a column, or cannot be summarised.
pub fn make(
    pipeline: &Pipeline,
    counts: RowCounts,
    loaded: &Loaded,
    batches: &[RecordBatch],
) -> Result<ReferenceSet> {
    let settings = monitor_settings(pipeline);
    let mut rows = ReferenceRows::new(&settings);
    let held_out = if counts.test > 0 { counts.test } else { counts.validation };
    let all = counts.train + counts.validation + counts.test;
    let names: Vec<String> =
        pipeline.signature.inputs.iter().map(|input| input.name.clone()).collect();
    let mut scratch = loaded.scorer.scratch();
    let mut number = 0;
    for batch in batches {
        let column = |name: &str| -> Result<Cells<'_>> {
            let found = batch.column_by_name(name);
            let found = found.with_context(|| format!("the rows have no column `{name}`"))?;
            Ok(Cells::new(found.as_ref())?)
        };
        let labels = column(LABEL)?;
        let truths = column(&pipeline.label.column)?;
        let moments = column(&pipeline.label.observed_at)?;
        let inputs = names.iter().map(|name| column(name)).collect::<Result<Vec<_>>>()?;
        for row in (0..batch.num_rows()).filter(|row| !labels.is_null(*row)) {
            let place = number;
            number += 1;
            let is_training = place < counts.train;
            if !is_training && place + held_out < all {
                continue;
            }
            let values: Vec<Value> = inputs.iter().map(|cells| cells.value(row)).collect();
            if is_training {
                let at = match moments.value(row) {
                    Value::Timestamp(at) => LogTime(u64::try_from(at).unwrap_or_default()),
                    _ => LogTime(0),
                };
                rows.add(at, &values)?;
                continue;
            }
            let Some(actual) = actual(pipeline, &truths.value(row)) else { continue };
            let threshold = pipeline.serving.threshold;
            if let Ok(scored) = score(loaded, &names, &values, threshold, &mut scratch) {
                rows.add_held_out(HeldOut {
                    score: scored.score,
                    scores: scored.scores.into(),
                    predicted: Arc::from(scored.predicted.unwrap_or_default()),
                    actual,
                });
            }
        }
    }
    Ok(ReferenceSet::from_rows(&settings, &rows)?)
}
