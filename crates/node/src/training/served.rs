//! What was served: for every label row, the prediction that it judges, as the pipeline's topic of
//! predictions has it.
//!
//! Labels find predictions as outcomes do (see `falaj_monitor::join`): by id where the label has one,
//! else the entity's prediction nearest to the label's moment, the later one of two as near. Only
//! predictions that answered a caller count, not those made in shadow. Does not know models.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, bail};
use falaj_definitions::pipelines::{FeedbackJoin, Pipeline};
use falaj_event::cells::Cells;
use falaj_event::encoding::{decode_row, encode_value};
use falaj_event::{LogTime, Value};
use falaj_log::{PiiMode, ReadOptions};

use super::{Labels, ServedRow};
use crate::core::Core;
use crate::models::rows::RowReader;

/// Served predictions, found by id and by key and time.
#[derive(Default)]
struct Found {
    rows: Vec<ServedRow>,
    by_id: BTreeMap<String, usize>,
    /// Per key: `T_r` and place in log order.
    by_key: BTreeMap<Vec<u8>, BTreeSet<(u64, usize)>>,
}

/// The prediction that each label row judges, of those in the log up to epoch `until`; `None` where
/// there is none, its inputs were erased, or it was made under a signature of another width.
///
/// # Errors
/// When the log cannot be read, or holds no predictions of this pipeline at all.
pub(super) fn read(
    core: &Core,
    pipeline: &Pipeline,
    labels: &Labels,
    until: u64,
) -> Result<Vec<Option<ServedRow>>> {
    let found = gather(core, pipeline, until)?;
    if found.rows.is_empty() {
        bail!("no predictions have been logged: train as_corrected or as_known until some are");
    }
    let (within_us, column) = match &pipeline.label.join {
        FeedbackJoin::PredictionId { column, within_us } => (*within_us, Some(column)),
        FeedbackJoin::KeyAndTime { within_us } => (*within_us, None),
    };
    let ids = column
        .map(|name| {
            let column = labels.batch.column_by_name(name);
            let column = column.with_context(|| format!("labels have no column `{name}`"))?;
            Ok::<_, anyhow::Error>(Cells::new(column.as_ref())?)
        })
        .transpose()?;
    let keys = labels.keys(&pipeline.entity)?;
    let judged = keys.iter().zip(&labels.observed_at).enumerate().map(|(row, (key, at))| {
        let place = match ids.as_ref().map(|ids| ids.value(row)) {
            Some(Value::String(id)) => found.by_id.get(&*id).copied(),
            _ => key.as_ref().and_then(|key| found.nearest(key, *at, within_us)),
        };
        place.and_then(|place| found.rows.get(place).cloned())
    });
    Ok(judged.collect())
}

fn gather(core: &Core, pipeline: &Pipeline, until: u64) -> Result<Found> {
    let name = pipeline.predictions_name();
    let topic = core.catalog.topics.get(&name).with_context(|| format!("no {name}"))?;
    let schema = &topic.schema;
    let reader = core.reader.with_options(ReadOptions {
        topics: Some([schema.id()].into()),
        pii: PiiMode::Plain,
        skip_cut: true,
        ..ReadOptions::default()
    });
    let mut found = Found::default();
    for partition in 0..schema.partitions {
        for (record, events) in reader.range(schema.id(), partition, 0, usize::MAX)? {
            if record.epoch > until {
                break;
            }
            let rows = RowReader::new(schema, &events.batch)?;
            for row in 0..rows.rows() {
                found.add(pipeline, &rows, row)?;
            }
        }
    }
    Ok(found)
}

impl Found {
    fn add(&mut self, pipeline: &Pipeline, rows: &RowReader<'_>, row: usize) -> Result<()> {
        if rows.value(row, "served")? != Value::Bool(true) {
            return Ok(());
        }
        let Value::Binary(bytes) = rows.value(row, "inputs")? else { return Ok(()) };
        let mut values = decode_row(&bytes).context("the inputs of a prediction")?;
        if values.len() != pipeline.signature.inputs.len() {
            return Ok(());
        }
        // Features of views come first in a signature; what the caller gave stands in the label row.
        values.truncate(values.len() - pipeline.request.len());
        let t = rows.moment(row, "t")?;
        let mut key = Vec::new();
        for name in &pipeline.entity {
            encode_value(&rows.value(row, name)?, &mut key);
        }
        let place = self.rows.len();
        self.by_id.insert(rows.text(row, "prediction_id")?.to_string(), place);
        self.by_key.entry(key).or_default().insert((t.0, place));
        self.rows.push(ServedRow { t, values });
        Ok(())
    }

    fn nearest(&self, key: &[u8], at: i64, within_us: u64) -> Option<usize> {
        let at = LogTime(u64::try_from(at).ok()?).0;
        let (from, to) = (at.saturating_sub(within_us), at.saturating_add(within_us));
        let places = self.by_key.get(key)?.range((from, 0)..=(to, usize::MAX));
        let nearest = places.map(|(t, place)| {
            // Of two as near the later one; of two at the same moment the one logged last.
            (t.abs_diff(at), std::cmp::Reverse((*t, *place)))
        });
        nearest.min().map(|(_, place)| place.0.1)
    }
}
